import io
import pickle
import subprocess
import sys
import textwrap

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr

from skdyn import DyNeMoEstimator, ModeMatcher, match_modes
from skdyn.core.recurrent import ACTIVATIONS
from skdyn.dynemo.objective import FreeEnergy


def same_fit(first, second):
    """Whether two fitted estimators are equal to the last bit."""
    ours, theirs = first.network_.state_dict(), second.network_.state_dict()
    return (
        np.array_equal(first.covariances_, second.covariances_)
        and np.array_equal(first.means_, second.means_)
        and first.history_["loss"] == second.history_["loss"]
        and all(torch.equal(ours[name], theirs[name]) for name in ours)
    )


# What a fit leaves behind


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
    model = small_dynemo(n_epochs=60, sequence_length=100, batch_size=2, n_init=3)
    truth, found = match_modes(small_simulation.mode_time_course, model.fit(X).transform(X))
    assert np.corrcoef(truth[:, 0], found[:, 0])[0, 1] > 0.9
    assert model.history_["loss"][-1] < model.history_["loss"][0] - 0.5


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
        {"do_kl_annealing": False},
        {"kl_annealing_curve": "linear"},
        {"kl_annealing_sharpness": 1.0},
        {"n_kl_annealing_epochs": 3},
        {"batch_size": 3},
        {"learning_rate": 0.003},
        {"lr_decay": 0.5},
        {"gradient_clip": 1e-3},
        {"loss_calc": "sum"},
        {"init_method": "random"},
        {"n_init": 2},
        {"n_init_epochs": 2},
        {"init_take": 0.5},
        {"n_iter_no_change": 1, "validation_fraction": 0.3, "tol": 10.0},
        {"random_state": 1},
        {"sequence_length": 37},
    ],
    ids=str,
)
def test_every_parameter_changes_the_fit(small_dynemo, recording, parameters):
    # Enough epochs for the KL term to rise in several steps.
    plain = small_dynemo(n_epochs=8).fit(recording)
    changed = small_dynemo(**({"n_epochs": 8} | parameters)).fit(recording)
    assert not np.array_equal(plain.covariances_, changed.covariances_)
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
    model = small_dynemo(n_epochs=8, n_kl_annealing_epochs=4, lr_decay=0.1).fit(recording)
    tanh = [0.5 * np.tanh(10 * (epoch - 2) / 4) + 0.5 for epoch in (1, 2, 3)]
    np.testing.assert_allclose(model.history_["kl_factor"], [0, *tanh, 1, 1, 1, 1], rtol=1e-6)
    rates = [0.01] * 4 + [0.01 * np.exp(-0.1 * k) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(model.history_["learning_rate"], rates, rtol=1e-12)


# Early stopping


def test_early_stopping_keeps_the_best_weights(small_dynemo, recording):
    model = small_dynemo(
        n_epochs=60, n_kl_annealing_epochs=2, n_iter_no_change=3, validation_fraction=0.25
    ).fit(recording)
    held_out = np.array(model.history_["validation_loss"])
    assert model.converged_
    assert model.n_iter_ == len(held_out) < 60
    assert held_out[-1] >= held_out[2:].min() - model.tol * 3
    # The last epochs brought no progress, and what remains is no worse than any of them.
    again = small_dynemo(
        n_epochs=int(held_out[2:].argmin()) + 3,
        n_kl_annealing_epochs=2,
        n_iter_no_change=60,
        validation_fraction=0.25,
    )
    with pytest.warns(ConvergenceWarning):
        again.fit(recording)
    assert same_weights(model, again)


def same_weights(first, second):
    ours, theirs = first.network_.state_dict(), second.network_.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_budget_that_ends_first_is_told(small_dynemo, recording):
    with pytest.warns(ConvergenceWarning, match="raise n_epochs"):
        small_dynemo(n_iter_no_change=5).fit(recording)


def test_held_out_rows_are_not_trained_on(small_dynemo, recording, monkeypatch):
    # The first channel tells the number of the row.
    X = np.column_stack([np.arange(1.0, 601.0), recording])
    scale = np.sqrt(np.mean(X[:, 0] ** 2))
    rows = {"training_terms": set(), "held_out_loss": set()}

    class Spy(FreeEnergy):
        def training_terms(self, batch, epoch):
            rows["training_terms"] |= set((batch[:, :, 0] * scale).round().int().flatten().tolist())
            return super().training_terms(batch, epoch)

        def held_out_loss(self):
            rows["held_out_loss"] |= {
                int(row) + 1 + shift
                for row, length in zip(self.held_out.start, self.held_out.length, strict=True)
                for shift in range(length)
            }
            return super().held_out_loss()

    monkeypatch.setattr("skdyn.dynemo.fitting.FreeEnergy", Spy)
    model = small_dynemo(n_iter_no_change=40, tol=0.0, n_epochs=30, init_method="random")
    with pytest.warns(ConvergenceWarning):
        model.fit(X)
    assert len(rows["held_out_loss"]) == 50
    assert not rows["held_out_loss"] & rows["training_terms"]
    assert len(rows["training_terms"]) > 530


# Sessions


def test_containers_of_sessions_agree(small_dynemo, recording):
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


# Reproducibility


def test_the_same_seed_gives_the_same_bits_and_another_does_not(small_dynemo, recording):
    first, second = small_dynemo().fit(recording), small_dynemo().fit(recording)
    assert same_fit(first, second)
    assert not same_fit(first, small_dynemo(random_state=1).fit(recording))
    unseeded = [small_dynemo(random_state=None).fit(recording) for _ in range(2)]
    assert not same_fit(*unseeded)


def test_the_number_of_threads_does_not_matter(small_dynemo, recording):
    before = torch.get_num_threads()
    fits = []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            fits.append(small_dynemo().fit(recording))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    assert same_fit(fits[0], fits[1])
    assert same_fit(fits[0], fits[2])


def fit_covariances(model, X):
    return clone(model).fit(X).covariances_


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblib_workers_give_the_same_bits(small_dynemo, recording, backend):
    model = small_dynemo()
    here = fit_covariances(model, recording)
    with joblib.parallel_config(backend=backend):
        there = joblib.Parallel(n_jobs=2)(
            joblib.delayed(fit_covariances)(model, recording) for _ in range(3)
        )
    assert all(np.array_equal(here, one) for one in there)


def test_another_process_gives_the_same_bits(small_dynemo, recording, tmp_path):
    joblib.dump((small_dynemo(), np.array(recording)), tmp_path / "model")
    script = textwrap.dedent(f"""
        import joblib
        model, X = joblib.load({str(tmp_path / "model")!r})
        print(joblib.hash(model.fit(X).covariances_))
    """)
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    here = joblib.hash(small_dynemo().fit(recording).covariances_)
    assert output.stdout.strip() == here


def test_global_generators_are_neither_read_nor_moved(small_dynemo, recording):
    def fits():
        return [
            small_dynemo(random_state=0, inference_dropout=0.1).fit(recording),
            small_dynemo(random_state=None).fit(recording),
        ]

    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, _ = fits()
    first.sample(10)
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_before, torch.get_rng_state())


# In scikit-learn's tools


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_in_a_pipeline(small_dynemo, recording, n_jobs):
    rng = np.random.default_rng(0)
    X = recording @ rng.normal(size=(5, 12)) + 0.1 * rng.normal(size=(600, 12))
    pipeline = make_pipeline(StandardScaler(), PCA(10), small_dynemo())
    search = GridSearchCV(
        pipeline, {"dynemoestimator__n_modes": [2, 4]}, cv=KFold(3), n_jobs=n_jobs
    ).fit(X)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert search.best_estimator_[-1].n_modes == [2, 4][int(np.argmax(scores))]
    assert search.predict(X).shape == (600,)


def test_cross_validation_scores_what_was_held_out(small_dynemo, recording):
    folds = KFold(3)
    scores = cross_validate(small_dynemo(), recording, cv=folds)["test_score"]
    for score, (train, test) in zip(scores, folds.split(recording), strict=True):
        assert score == small_dynemo().fit(recording[train]).score(recording[test])


def test_matcher_is_the_last_step_of_a_pipeline(small_dynemo, recording, small_simulation):
    truth = small_simulation.mode_time_course
    pipeline = make_pipeline(small_dynemo(n_epochs=20), ModeMatcher(reference=truth))
    matched = pipeline.fit_transform(recording)
    alpha = pipeline[0].transform(recording)
    np.testing.assert_array_equal(matched, match_modes(truth, alpha)[1])
    np.testing.assert_array_equal(matched, pipeline.transform(recording))


def test_clone_and_set_params(small_dynemo, recording):
    model = small_dynemo().fit(recording)
    copy = clone(model).set_params(n_modes=4, learn_means=True)
    assert not hasattr(copy, "means_")
    assert copy.fit(recording).means_.shape == (4, 5)
    assert model.means_.shape == (2, 5)


def test_pickle_and_joblib_dump_give_the_same_model(small_dynemo, recording, tmp_path):
    model = small_dynemo(inference_normalization="batch").fit(recording)
    expected = model.transform(recording)
    joblib.dump(model, tmp_path / "model.joblib")
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib")):
        np.testing.assert_array_equal(copy.transform(recording), expected)
        assert copy.score(recording) == model.score(recording)
        assert all(weight.device.type == "cpu" for weight in copy.network_.parameters())


def test_pandas_output(small_dynemo, recording):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(recording, columns=list("abcde"), index=np.arange(600) * 0.72)
    model = small_dynemo().set_output(transform="pandas").fit(X)
    alpha = model.transform(X)
    assert list(alpha.columns) == ["dynemoestimator0", "dynemoestimator1"]
    assert (alpha.index == X.index).all()
    assert list(model.feature_names_in_) == list("abcde")
    frames = model.transform([X[:100], X[100:]])
    assert [frame.shape for frame in frames] == [(100, 2), (500, 2)]
    assert (frames[1].index == X.index[100:]).all()
    with pytest.raises(ValueError, match="feature names"):
        model.transform(X[list("edcba")])


def test_html_representation_before_and_after_fit(small_dynemo, recording):
    model = small_dynemo()
    assert "DyNeMoEstimator" in estimator_html_repr(model)
    page = estimator_html_repr(make_pipeline(StandardScaler(), model.fit(recording)))
    assert "DyNeMoEstimator" in page
    assert "sequence_length" in page


# Input


@pytest.mark.parametrize(
    "convert",
    [
        np.asfortranarray,
        lambda X: X.astype(np.float32),
        lambda X: X.tolist(),
        lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    ],
    ids=["fortran", "float32", "nested lists", "strided"],
)
def test_kinds_of_arrays(small_dynemo, recording, convert):
    X = convert(np.array(recording))
    expected = small_dynemo().fit(recording).transform(recording)
    alpha = small_dynemo().fit(X).transform(X)
    np.testing.assert_allclose(alpha, expected, atol=1e-3)


def test_memory_map_of_integers(small_dynemo, recording, tmp_path):
    whole = np.memmap(tmp_path / "x.dat", dtype=np.int16, mode="w+", shape=recording.shape)
    whole[:] = np.round(recording * 1000)
    whole.flush()
    X = np.memmap(tmp_path / "x.dat", dtype=np.int16, mode="r", shape=recording.shape)
    model = small_dynemo().fit(X)
    np.testing.assert_array_equal(
        model.transform(X), small_dynemo().fit(X.astype(float)).transform(X.astype(float))
    )


def test_nothing_of_the_callers_is_changed(small_dynemo, recording):
    X, covariances = np.array(recording), np.stack([np.eye(5)] * 2)
    before = X.copy(), covariances.copy()
    model = small_dynemo(initial_covariances=covariances)
    model.fit(X)
    model.transform(X)
    assert np.array_equal(X, before[0])
    assert np.array_equal(covariances, before[1])
    assert model.initial_covariances is covariances


def spoilt(value):
    def spoil(X):
        X[17, 2] = value
        return X

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoilt(np.nan), "NaN"),
        (spoilt(np.inf), "infinity"),
        (lambda X: X[:, 0], "Expected 2D array, got 1D array"),
        (lambda X: X[:0], "0 sample"),
        (lambda X: X[:1], "1 sample"),
        (lambda X: X[:, :0], "0 feature"),
        (lambda X: X[:3], r"3 sample\(s\).* while a minimum of 4 is required"),
        (lambda X: X.astype(str), "numeric"),
        (lambda X: X * [1, 1, 0, 1, 1], r"channels \[2\] do not vary"),
        (lambda X: [X[:300], X[300:, :4]], "Session 1 of 2"),
        (lambda X: [X[:300], spoilt(np.nan)(X[300:])], "Session 1 of 2.*NaN"),
    ],
    ids=[
        "nan",
        "inf",
        "1-d",
        "empty",
        "one row",
        "no channels",
        "few rows",
        "text",
        "constant channel",
        "widths differ",
        "nan in a session",
    ],
)
def test_bad_recordings(small_dynemo, recording, spoil, message):
    model = small_dynemo(n_modes=4)
    with pytest.raises(ValueError, match=message):
        model.fit(spoil(np.array(recording)))
    assert model.fit(recording).transform(recording).shape == (600, 4)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_modes": 1}, "'n_modes' parameter"),
        ({"n_modes": 2.5}, "'n_modes' parameter"),
        ({"sequence_length": 1}, "'sequence_length' parameter"),
        ({"inference_rnn": "transformer"}, "'inference_rnn' parameter"),
        ({"learn_covariances": False}, "all modes would stay equal"),
        ({"n_kl_annealing_epochs": 4}, "n_kl_annealing_epochs=4 and n_epochs=3"),
        ({"initial_covariances": np.eye(5)}, r"shape \(5, 5\), expected \(2, 5, 5\)"),
        ({"initial_covariances": -np.stack([np.eye(5)] * 2)}, "eigenvalue of -1"),
        ({"initial_covariances": np.triu(np.ones((2, 5, 5)))}, "not symmetric"),
        (
            {
                "initial_covariances": np.eye(5) + 0.1 * np.ones((2, 5, 5)),
                "diagonal_covariances": True,
            },
            "off the diagonal",
        ),
        (
            {"initial_covariances": np.zeros((2, 5)), "diagonal_covariances": True},
            "expected variances above 0",
        ),
        ({"initial_means": np.zeros((5, 2))}, r"expected \(2, 5\)"),
        ({"initial_means": np.full((2, 5), np.nan)}, "NaN"),
        ({"device": "nonsense"}, "use 'cpu'"),
    ],
    ids=str,
)
def test_bad_parameters(small_dynemo, recording, parameters, message):
    model = small_dynemo(**parameters)
    with pytest.raises(ValueError, match=message):
        model.fit(recording)
    model.set_params(**small_dynemo().get_params())
    assert model.fit(recording).n_iter_ == 3


def test_bad_sessions(small_dynemo, recording):
    model = small_dynemo()
    with pytest.raises(ValueError, match="599 labels for X with 600 rows"):
        model.fit(recording, sessions=np.zeros(599))
    with pytest.raises(ValueError, match="expected one of the two"):
        model.fit([recording], sessions=np.zeros(600))
    assert model.fit(recording, sessions=np.zeros(600)).n_iter_ == 3


def test_unfitted(recording):
    for method in ("transform", "predict", "score", "score_samples", "free_energy"):
        with pytest.raises(NotFittedError):
            getattr(DyNeMoEstimator(), method)(recording)
    with pytest.raises(NotFittedError):
        DyNeMoEstimator().sample()
    with pytest.raises(NotFittedError):
        DyNeMoEstimator().summary()


def test_wrong_width_after_fit(small_dynemo, recording):
    model = small_dynemo().fit(recording)
    with pytest.raises(ValueError, match="4 features, but DyNeMoEstimator is expecting 5"):
        model.transform(recording[:, :4])
    assert model.transform(recording).shape == (600, 2)


# Warm start and progress


def test_warm_start_goes_on(small_dynemo, recording):
    model = small_dynemo(n_epochs=15, warm_start=True, lr_decay=0.0).fit(recording)
    before, history = model.score(recording), model.history_
    model.fit(recording)
    assert set(model.history_["kl_factor"]) == {1.0}
    assert model.score(recording) > before
    assert model.history_["ll_loss"][0] < history["ll_loss"][0]
    model.set_params(n_modes=3)
    with pytest.raises(ValueError, match="warm_start=True"):
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
    small_dynemo(verbose=2).fit(recording)
    assert "start" in capfd.readouterr().err


def test_fitting_twice_forgets_the_first(small_dynemo, recording):
    model = small_dynemo().fit(recording[:300])
    assert same_fit(model.fit(recording), small_dynemo().fit(recording))


def test_pickle_is_small(small_dynemo, recording):
    buffer = io.BytesIO()
    pickle.dump(small_dynemo().fit(recording), buffer)
    assert buffer.tell() < 100_000
