import io
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning

from skdyn import DyNeMoEstimator, match_modes
from skdyn.core.recurrent import ACTIVATIONS
from skdyn.dynemo.objective import FreeEnergy

# Tiny fits explain little, and say so.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:(The (bound|mixing|modes)|Training ended):sklearn.exceptions.ConvergenceWarning"
    ),
    pytest.mark.filterwarnings("ignore:A gated recurrent unit"),
]

# Fitted attributes


def test_attributes_of_a_fit(small_dynemo, recording):
    model = small_dynemo(n_modes=3).fit(recording)
    assert model.means_.shape == (3, 5)
    assert model.covariances_.shape == (3, 5, 5)
    assert model.covariances_.dtype == np.float64
    assert np.linalg.eigvalsh(model.covariances_).min() > 0
    assert model.alpha_temperature_ > 0
    assert model.n_iter_ == 3
    assert model.n_features_in_ == 5
    names = {"loss", "ll_loss", "kl_loss", "kl_factor", "learning_rate", "seconds"}
    assert names <= set(model.history_)
    assert all(len(numbers) == 3 for numbers in model.history_.values())
    loss, nll, factor, kl = (
        np.array(model.history_[name]) for name in ("loss", "ll_loss", "kl_factor", "kl_loss")
    )
    np.testing.assert_allclose(loss, nll + factor * kl, rtol=1e-5)


def test_training_finds_the_modes_of_an_easy_mixture(small_dynemo, small_simulation):
    X = small_simulation.time_series
    model = small_dynemo(n_epochs=30, sequence_length=100, batch_size=2)
    truth, found = match_modes(small_simulation.mode_time_course, model.fit(X).transform(X))
    assert np.corrcoef(truth[:, 0], found[:, 0])[0, 1] > 0.9
    assert not model.problem_
    assert model.score(X) > -np.inf
    assert set(model.starts_) == {"moments", "hmm"}


@pytest.mark.parametrize("learn_means", [False, True])
@pytest.mark.parametrize("init_method", ["auto", "moments", "hmm", "random", "random_subset"])
def test_one_mode_is_a_gaussian(small_dynemo, recording, init_method, learn_means):
    X = 2 * recording - 0.1
    model = small_dynemo(n_modes=1, init_method=init_method, learn_means=learn_means)
    model.fit(X)
    assert not model.problem_
    assert model.summary().startswith("DyNeMo with 1 mode of 5 channels")
    np.testing.assert_array_equal(model.transform(X), np.ones((len(X), 1)))
    mean = X.mean(axis=0) if learn_means else np.zeros(5)
    gaussian = multivariate_normal(mean, (X - mean).T @ (X - mean) / len(X))
    best = gaussian.logpdf(X).mean()
    assert model.score(X) <= best
    if not init_method.startswith("random"):  # which takes more epochs
        assert model.score(X) > best - 0.03


def test_the_unit_of_the_data_does_not_matter(small_dynemo, recording):
    unit = np.array([1e-6, 1e6, 1.0, 1e-3, 10.0])
    plain = small_dynemo().fit(recording)
    scaled = small_dynemo().fit(recording * unit)
    np.testing.assert_allclose(
        scaled.covariances_ / np.outer(unit, unit), plain.covariances_, rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(
        scaled.transform(recording * unit), plain.transform(recording), atol=1e-3
    )
    shift = scaled.score(recording * unit) - plain.score(recording)
    assert shift == pytest.approx(-np.log(unit).sum(), abs=1e-2)


# Parameters


# Enough epochs for the KL term to rise in several steps, and a start that has parameters.
COMMON = {
    "n_epochs": 8,
    "do_kl_annealing": True,
    "n_kl_annealing_epochs": 4,
    "init_method": "random_subset",
}


@pytest.fixture(scope="module")
def plain_covariances(small_settings, recording):
    return DyNeMoEstimator(**(small_settings | COMMON)).fit(recording).covariances_


@pytest.mark.parametrize(
    "parameters",
    [
        {"inference_rnn": "gru", "model_rnn": "gru"},
        {"inference_n_layers": 2, "model_n_layers": 2},
        {"inference_normalization": None, "model_normalization": None},
        {"inference_normalization": "batch", "model_normalization": "batch"},
        {"inference_activation": "relu", "model_activation": "elu"},
        {"inference_dropout": 0.3, "model_dropout": 0.3},
        {"inference_n_units": 5, "model_n_units": 7},
        {"learn_alpha_temperature": False},
        {"initial_alpha_temperature": 2.0},
        {"learn_means": True},
        {"diagonal_covariances": True},
        {"covariances_epsilon": 0.5},
        {"do_kl_annealing": False, "n_kl_annealing_epochs": None},
        {"kl_annealing_curve": "linear"},
        {"kl_annealing_sharpness": 1.0},
        {"n_kl_annealing_epochs": 3},
        {"batch_size": 3},
        {"learning_rate": 0.003},
        {"lr_decay": 0.5},
        {"gradient_clip": 1e-3},
        {"loss_calc": "sum"},
        {"init_method": "random"},
        {"init_method": "moments"},
        {"init_method": "hmm"},
        {"n_init": 2},
        {"n_init_epochs": 2},
        {"init_take": 0.5},
        {"n_iter_no_change": 1, "validation_fraction": 0.3, "tol": 10.0},
        {"random_state": 1},
        {"sequence_length": 37},
    ],
    ids=str,
)
def test_every_parameter_changes_the_fit(small_dynemo, recording, plain_covariances, parameters):
    changed = small_dynemo(**(COMMON | parameters)).fit(recording)
    assert not np.array_equal(plain_covariances, changed.covariances_)
    assert np.isfinite(changed.score(recording))
    alpha = changed.transform(recording)
    assert alpha.min() >= 0
    np.testing.assert_allclose(alpha.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_trains(small_dynemo, recording, activation):
    model = small_dynemo(inference_activation=activation, model_activation=activation)
    assert np.isfinite(model.fit(recording).score(recording))


def test_parameters_that_are_not_learned_stay(small_dynemo, recording):
    means = np.arange(10.0).reshape(2, 5) / 10
    covariances = np.stack([np.eye(5), 2 * np.eye(5) + 0.1])
    model = small_dynemo(
        learn_covariances=False,
        initial_means=means,
        initial_covariances=covariances,
        learn_alpha_temperature=False,
        initial_alpha_temperature=0.7,
    ).fit(recording)
    np.testing.assert_array_equal(model.means_, means)
    np.testing.assert_array_equal(model.covariances_, covariances)
    assert model.alpha_temperature_ == pytest.approx(0.7)


def test_modes_are_zero_mean_unless_learned(small_dynemo, recording):
    assert not small_dynemo().fit(recording).means_.any()
    assert small_dynemo(learn_means=True).fit(recording).means_.any()


def test_initial_values_are_where_training_starts(small_dynemo, recording):
    covariances = np.stack([np.diag([1, 2, 3, 4, 5.0]), np.eye(5)]) + 0.2
    model = small_dynemo(
        learn_means=True,
        initial_means=np.full((2, 5), 0.3),
        initial_covariances=covariances,
        learning_rate=1e-9,
    ).fit(recording * 3)
    np.testing.assert_allclose(model.covariances_, covariances, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.means_, 0.3, rtol=1e-5)


@pytest.mark.parametrize("as_diagonals", [True, False])
def test_diagonal_covariances(small_dynemo, recording, as_diagonals):
    given = np.array([[1, 2, 3, 4, 5.0], [1, 1, 1, 1, 1]])
    model = small_dynemo(
        diagonal_covariances=True,
        initial_covariances=given if as_diagonals else given[:, :, None] * np.eye(5),
        learning_rate=1e-9,
    ).fit(recording)
    np.testing.assert_allclose(model.covariances_, given[:, :, None] * np.eye(5), rtol=1e-4)
    trained = small_dynemo(diagonal_covariances=True).fit(recording).covariances_
    assert not trained[:, ~np.eye(5, dtype=bool)].any()


def test_schedules_are_recorded_as_the_reference_states_them(small_dynemo, recording):
    annealing = {"do_kl_annealing": True, "n_kl_annealing_epochs": 4}
    model = small_dynemo(n_epochs=8, lr_decay=0.1, **annealing).fit(recording)
    tanh = [0.5 * np.tanh(10 * (epoch - 2) / 4) + 0.5 for epoch in (1, 2, 3)]
    np.testing.assert_allclose(model.history_["kl_factor"], [0, *tanh, 1, 1, 1, 1], rtol=1e-6)
    rates = [0.01] * 4 + [0.01 * np.exp(-0.1 * k) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(model.history_["learning_rate"], rates, rtol=1e-12)


# Early stopping


def test_early_stopping_keeps_the_best_weights(small_dynemo, recording, monkeypatch):
    # Neither the rate, the start nor the rows that are looked at depend on the budget.
    monkeypatch.setattr("skdyn.dynemo.training.STRIDE", 1)
    settings = {"n_kl_annealing_epochs": 2, "do_kl_annealing": True, "validation_fraction": 0.25}
    settings |= {"lr_decay": 0.1, "init_method": "random"}
    model = small_dynemo(n_epochs=60, n_iter_no_change=3, **settings).fit(recording)
    held_out = np.array(model.history_["validation_loss"])
    assert model.converged_
    assert model.n_iter_ == len(held_out) < 60
    assert held_out[-1] >= held_out[2:].min() - model.tol * 3
    # The last epochs made no progress, and the final state is no worse than any of them.
    n_epochs = int(held_out[2:].argmin()) + 3
    again = small_dynemo(n_epochs=n_epochs, n_iter_no_change=60, **settings)
    with pytest.warns(ConvergenceWarning):
        again.fit(recording)
    assert same_weights(model, again)


def same_weights(first, second):
    ours, theirs = first.network_.state_dict(), second.network_.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_budget_that_ends_first_is_told(small_dynemo, recording):
    with pytest.warns(ConvergenceWarning, match="raise n_epochs"):
        small_dynemo(n_iter_no_change=5).fit(recording)


@pytest.mark.filterwarnings("ignore:The means of the channels")
def test_held_out_rows_are_not_trained_on(small_dynemo, recording, monkeypatch):
    # The first channel is the number of the row.
    X = np.column_stack([np.arange(1.0, 601.0), recording])
    scale = np.sqrt(np.mean(X[:, 0] ** 2))
    rows = {"training_terms": set(), "held_out_loss": set()}

    class Spy(FreeEnergy):
        def training_terms(self, batch, epoch):
            rows["training_terms"] |= set(
                (batch.rows[:, :, 0] * scale).round().int().flatten().tolist()
            )
            return super().training_terms(batch, epoch)

        def held_out_loss(self):
            rows["held_out_loss"] |= {
                int(row) + 1 + shift
                for row, length in zip(self.held_out.start, self.held_out.length, strict=True)
                for shift in range(length)
            }
            return super().held_out_loss()

    monkeypatch.setattr("skdyn.dynemo.training.FreeEnergy", Spy)
    model = small_dynemo(n_iter_no_change=40, tol=0.0, n_epochs=30, init_method="random")
    with pytest.warns(ConvergenceWarning):
        model.fit(X)
    assert len(rows["held_out_loss"]) == 50
    assert not rows["held_out_loss"] & rows["training_terms"]
    assert len(rows["training_terms"]) > 530


# Sessions


def test_containers_of_sessions_agree(small_dynemo, recording, same_fit):
    stack = recording.reshape(3, 200, 5)
    labels = np.repeat(["a", "b", "a"], 200)
    models = [
        small_dynemo().fit(recording, sessions=labels),
        small_dynemo().fit(list(stack)),
        small_dynemo().fit(stack),
    ]
    assert same_fit(models[0], models[1])
    assert same_fit(models[0], models[2])
    assert not same_fit(models[0], small_dynemo().fit(recording))


def test_sessions_of_any_length_are_used(small_dynemo, recording):
    sessions = [recording[:3], recording[3:150], recording[150:151], recording[151:]]
    alpha = small_dynemo().fit_transform(sessions)
    assert [len(one) for one in alpha] == [3, 147, 1, 449]


# Warm start and progress


def test_warm_start_goes_on(small_dynemo, recording):
    model = small_dynemo(n_epochs=15, warm_start=True, lr_decay=0.0).fit(recording)
    before, history = model.score(recording), model.history_
    model.fit(recording)
    assert set(model.history_["kl_factor"]) == {1.0}
    assert model.score(recording) > before - 0.01
    assert model.history_["loss"][:15] == history["loss"]
    assert model.n_iter_ == 30
    assert max(model.history_["learning_rate"][15:]) <= 0.1 * history["learning_rate"][0]
    # The attributes of the modes agree with the network, in the scale of the first fit.
    scale = model.channel_scale_
    model.fit(2 * recording)
    np.testing.assert_array_equal(model.channel_scale_, scale)
    found = model.network_.mode_covariances().detach().double().numpy()
    np.testing.assert_allclose(model.covariances_, found * np.outer(scale, scale), rtol=1e-5)
    model.set_params(n_modes=3)
    with pytest.raises(ValueError, match="warm_start is True"):
        model.fit(recording)


def test_silence_and_progress(small_dynemo, recording, capfd):
    small_dynemo().fit(recording)
    assert capfd.readouterr() == ("", "")
    small_dynemo(verbose=1).fit(recording)
    output = capfd.readouterr()
    assert output.out == ""
    assert "3/3" in output.err
    assert "ll_loss" in output.err
    assert "start" not in output.err
    small_dynemo(verbose=2, init_method="random_subset").fit(recording)
    assert "start" in capfd.readouterr().err


def test_fitting_twice_forgets_the_first(small_dynemo, recording, same_fit):
    model = small_dynemo().fit(recording[:300])
    assert same_fit(model.fit(recording), small_dynemo().fit(recording))


def test_pickle_is_small(small_dynemo, recording):
    buffer = io.BytesIO()
    pickle.dump(small_dynemo().fit(recording), buffer)
    assert buffer.tell() < 100_000
