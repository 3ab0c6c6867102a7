"""Initialisation and pretraining of DyNeMoEstimator, and the matching defaults."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from skdyn import DyNeMoEstimator, match_modes
from skdyn.core.windows import cut_windows
from skdyn.dynemo import start, training
from skdyn.dynemo.settings import make_settings
from skdyn.simulation import MixedSineMVN

# Tiny fits explain little, and say so.
pytestmark = pytest.mark.filterwarnings(
    "ignore:(The (bound|mixing|modes)|Training ended):sklearn.exceptions.ConvergenceWarning"
)

COVARIANCES = np.stack([np.diag([1, 2, 3, 4, 5.0]), np.eye(5)]) + 0.2
# Training with negligible effect.
STILL = {"n_epochs": 1, "learning_rate": 1e-12}


def same_modes(first, second):
    return np.array_equal(first.covariances_, second.covariances_) and np.array_equal(
        first.means_, second.means_
    )


# The default start


@pytest.fixture(scope="module")
def many_channels():
    """A few rows of many channels: too few for steps of modes on a part of them."""
    rng = np.random.RandomState(0)
    states = np.repeat(rng.randint(3, size=60), rng.randint(30, 60, size=60))
    roots = np.linalg.cholesky([np.cov(rng.standard_normal((16, 40))) for _ in range(3)])
    return np.einsum("tij,tj->ti", roots[states], rng.standard_normal((len(states), 16)))


@pytest.mark.parametrize("max_polished", [64, 4096])
@pytest.mark.parametrize("case", ["many channels", "few channels"])
def test_polished_modes_are_taken_only_where_held_out_rows_gain(
    many_channels, recording, case, max_polished, monkeypatch
):
    X = many_channels if case == "many channels" else recording
    monkeypatch.setattr(start, "MAX_POLISHED", max_polished)
    bounds = {}
    judge = start.judge

    def noting(settings, one, *others):
        bounds[one.name, one.is_polished] = bound = judge(settings, one, *others)
        return bound

    monkeypatch.setattr(start, "judge", noting)
    model = DyNeMoEstimator(n_modes=3, sequence_length=50, random_state=0, **STILL).fit(X)
    for name, bound in model.starts_.items():
        assert bound == max(bounds[name, False], bounds[name, True])
    if max_polished == 64:
        assert not all(bounds[name, True] > bounds[name, False] for name in model.starts_)


def pieces_of(n_rows, sessions):
    rng = np.random.default_rng(0)
    return start.Pieces([rng.standard_normal((n, 2)) for n in n_rows], sessions)


@pytest.mark.parametrize(
    "sessions",
    [
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        list(range(12)),
        [0, 2, 2, 7],
        [2, 5, 8],
        [4, 9, 14],
    ],
    ids=str,
)
def test_starts_are_compared_on_sessions_that_they_have_not_seen(sessions):
    """Sessions without any row of weight are missing, and those with gaps have several pieces."""
    kept, held_out = start._hold_out(pieces_of([300] * len(sessions), sessions), 50)
    assert set(kept.session) | set(held_out.session) == set(sessions)
    assert set(kept.session).isdisjoint(held_out.session)
    assert sum(held_out.n_rows) >= 300
    assert sum(kept.n_rows) >= 150 * len(sessions)


@pytest.mark.parametrize("n_rows", [[300, 300], [100, 100, 5000], [200, 200, 200, 9000]], ids=str)
def test_starts_are_found_on_at_least_half_of_the_rows(n_rows):
    kept, held_out = start._hold_out(pieces_of(n_rows, list(range(len(n_rows)))), 50)
    assert sum(kept.n_rows) >= sum(n_rows) / 2
    assert sum(kept.n_rows) + sum(held_out.n_rows) <= sum(n_rows)
    assert held_out.n_rows


@pytest.mark.parametrize("length", [50, 200, 5000])
@pytest.mark.parametrize("n_rows", [[25_600], [12_000, 13_000], [40_000]])
def test_fits_are_checked_on_other_rows_than_modes_were_polished_on(length, n_rows):
    windows = cut_windows(n_rows, length, length)
    polished = start.spread_over(len(windows), max(1, start.MAX_POLISHED // length))
    checked = training._some(windows)
    pairs = set(zip(windows.session[polished], windows.start[polished], strict=True))
    assert len(checked) >= max(1, len(polished) - 1)
    assert not pairs & set(zip(checked.session, checked.start, strict=True))


def test_a_hidden_markov_model_is_taken_if_its_likelihood_is_above_all_bounds(
    small_dynemo, recording, monkeypatch
):
    bounds = {"moments": -5.0, "hmm": -5.0 - start.COARSE / 2}
    monkeypatch.setattr(start, "judge", lambda settings, one, *others: bounds[one.name])
    for log_likelihood, taken in ((-4.9, "hmm"), (-5.1, "moments")):
        monkeypatch.setattr(start, "log_likelihood", lambda rows, hmm, value=log_likelihood: value)
        assert next(iter(small_dynemo(**STILL).fit(recording).starts_)) == taken
    bounds["hmm"] = -5.0 - 2 * start.COARSE
    monkeypatch.setattr(start, "log_likelihood", lambda rows, hmm: -4.9)
    assert next(iter(small_dynemo(**STILL).fit(recording).starts_)) == "moments"


@pytest.mark.parametrize("learn_means", [False, True])
def test_the_default_start_is_the_same_for_every_seed(small_dynemo, recording, learn_means):
    settings = STILL | {"learn_means": learn_means}
    models = [small_dynemo(random_state=seed, **settings).fit(recording) for seed in (0, 1, None)]
    assert same_modes(models[0], models[1])
    assert same_modes(models[0], models[2])
    assert models[0].means_.any() == learn_means
    assert models[0].history_["loss"] != models[1].history_["loss"]
    drawn = [
        small_dynemo(random_state=seed, init_method="random", **settings).fit(recording)
        for seed in (0, 1)
    ]
    assert not same_modes(*drawn)


def test_the_default_start_is_near_the_modes(small_dynemo, small_simulation):
    found = small_dynemo(**STILL).fit(small_simulation.time_series).covariances_
    truth = small_simulation.covariances
    pairs = np.corrcoef(found.reshape(2, -1), truth.reshape(2, -1))[:2, 2:]
    assert max(np.trace(pairs), np.trace(pairs[::-1])) / 2 > 0.9


def test_the_default_start_scales_with_the_unit_of_the_data(small_dynemo, recording):
    unit = np.array([1e-6, 1e6, 1.0, 1e-3, 10.0])
    plain = small_dynemo(**STILL).fit(recording)
    scaled = small_dynemo(**STILL).fit(recording * unit)
    np.testing.assert_allclose(
        scaled.covariances_ / np.outer(unit, unit), plain.covariances_, rtol=1e-3, atol=1e-4
    )


@pytest.mark.filterwarnings("ignore:The means of the channels")
@pytest.mark.parametrize("parameters", [{}, {"learn_means": True}, {"diagonal_covariances": True}])
def test_a_recording_of_too_few_rows_starts_at_random(
    small_dynemo, recording, same_fit, parameters
):
    few, enough = recording[:19], recording[:20]
    drawn = {"init_method": "random"} | parameters
    assert same_fit(small_dynemo(**parameters).fit(few), small_dynemo(**drawn).fit(few))
    assert not same_fit(small_dynemo(**parameters).fit(enough), small_dynemo(**drawn).fit(enough))


def test_where_all_modes_are_given_nothing_is_sought(small_dynemo, recording):
    settings = STILL | {"initial_covariances": COVARIANCES}
    models = [
        small_dynemo(init_method=method, **settings).fit(recording)
        for method in ("moments", "random")
    ]
    for model in models:
        np.testing.assert_allclose(model.covariances_, COVARIANCES, rtol=1e-4, atol=1e-5)


# Pretraining


def first_loss(model):
    return model.history_["ll_loss"][0]


@pytest.mark.parametrize("name", ["initial_covariances", "init_method"])
@pytest.mark.parametrize("learned", [True, False])
def test_what_is_taught_shows_in_the_first_epoch(small_dynemo, small_simulation, name, learned):
    X, covariances = small_simulation.time_series, small_simulation.covariances
    settings = {"n_epochs": 8, "learn_covariances": learned}
    pretrained = small_dynemo(**{name: covariances}, **settings).fit(X)
    drawn = small_dynemo(initial_covariances=covariances, init_method="random", **settings).fit(X)
    assert first_loss(pretrained) < first_loss(drawn) - 0.02


def test_pretraining_is_short_and_only_where_a_mixing_is_known(
    small_dynemo, recording, monkeypatch
):
    trained = []

    def spy(network, objective, epoch_batches, settings):
        trained.append((type(objective).__name__, settings.n_epochs, len(list(epoch_batches()))))
        return train(network, objective, epoch_batches, settings)

    train = training.train
    monkeypatch.setattr(training, "train", spy)
    n_steps = np.ceil(len(recording) / 50 / 4)
    for n_epochs, n_encoder, n_prior in ((1, 1, 1), (10, 2, 1), (16, 3, 2)):
        trained.clear()
        small_dynemo(n_epochs=n_epochs).fit(recording)
        assert trained == [
            ("EncoderPretraining", n_encoder, n_steps),
            ("PriorPretraining", n_prior, n_steps),
            ("FreeEnergy", n_epochs, n_steps),
        ]
    for settings in ({"init_method": "random"}, {"n_epochs": 3, "init_method": "random_subset"}):
        trained.clear()
        small_dynemo(**settings).fit(recording)
        assert {name for name, *_ in trained} == {"FreeEnergy"}


def test_pretraining_moves_its_own_network_alone(small_dynemo, recording, monkeypatch):
    states = []

    def spy(network, objective, epoch_batches, settings):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        run = train(network, objective, epoch_batches, settings)
        after = network.state_dict()
        moved = {name.split(".")[0] for name in before if not before[name].equal(after[name])}
        states.append(moved)
        return run

    train = training.train
    monkeypatch.setattr(training, "train", spy)
    small_dynemo(learn_means=True).fit(recording)
    encoder = {"inference_rnn", "smoothed_mean", "posterior_mean", "posterior_std"}
    assert states[0] == encoder | {"log_smoothing"}
    assert states[1] == {"model_rnn", "prior_mean", "prior_std", "persistence"}
    assert {"means", "covariance_vectors", "log_temperature", "memory_logit"} <= states[2]


@pytest.mark.parametrize("method", ["random", "random_subset"])
def test_random_modes_move_at_once(small_dynemo, recording, method):
    settings = {"n_epochs": 1, "n_init_epochs": 1}
    still, moved = (
        small_dynemo(init_method=method, learning_rate=rate, **settings).fit(recording)
        for rate in (1e-12, 0.01)
    )
    assert np.abs(still.covariances_ - moved.covariances_).max() > 1e-3


def test_a_warm_start_teaches_and_seeks_nothing(small_dynemo, recording, monkeypatch):
    model = small_dynemo(warm_start=True, **STILL).fit(recording)
    before = model.covariances_

    def fail(settings, pieces):
        raise AssertionError("a start was sought")

    monkeypatch.setitem(start.METHODS, "moments", fail)
    after = model.set_params(learning_rate=0.01).fit(recording).covariances_
    assert 0 < np.abs(after - before).max() < 1


# Modes of the caller's


@pytest.mark.parametrize("learn_means", [False, True])
def test_a_fitted_estimator_gives_its_modes(small_dynemo, recording, same_fit, learn_means):
    settings = {"learn_means": learn_means, "random_state": 1}
    fitted = small_dynemo(learn_means=learn_means).fit(recording)
    means = fitted.means_ if learn_means else None
    models = [
        small_dynemo(init_method=fitted, **settings),
        small_dynemo(init_method=FrozenEstimator(fitted), **settings),
        clone(small_dynemo(init_method=FrozenEstimator(fitted), **settings)),
        small_dynemo(init_method=fitted.covariances_, initial_means=means, **settings),
        small_dynemo(init_method=fitted.covariances_.tolist(), initial_means=means, **settings),
        small_dynemo(initial_covariances=fitted.covariances_, initial_means=means, **settings),
    ]
    for model in models:
        model.fit(recording)
        assert same_fit(models[0], model)
    assert not same_fit(models[0], small_dynemo(**settings).fit(recording))


def test_initial_means_go_before_those_of_a_fitted_estimator(small_dynemo, recording):
    fitted = small_dynemo(learn_means=True).fit(recording)
    settings = STILL | {"learn_means": True, "init_method": fitted}
    means = np.full((2, 5), 0.3)
    np.testing.assert_allclose(
        small_dynemo(**settings).fit(recording).means_, fitted.means_, rtol=1e-5
    )
    model = small_dynemo(initial_means=means, **settings).fit(recording)
    np.testing.assert_allclose(model.means_, means, rtol=1e-5)


@pytest.mark.parametrize("from_estimator", [False, True])
def test_given_covariances_that_are_not_learned_stay_to_the_bit(
    small_dynemo, recording, from_estimator
):
    fitted = small_dynemo().fit(recording)
    covariances = fitted.covariances_.copy()
    given = fitted if from_estimator else covariances
    model = small_dynemo(init_method=given, learn_covariances=False, n_epochs=4).fit(recording)
    np.testing.assert_array_equal(model.covariances_, covariances)
    assert model.covariances_ is not fitted.covariances_
    assert model.init_method is given
    np.testing.assert_array_equal(fitted.covariances_, covariances)


def test_diagonals_may_be_given(small_dynemo, recording):
    variances = np.array([[1, 2, 3, 4, 5.0], [1, 1, 1, 1, 1]])
    settings = STILL | {"diagonal_covariances": True}
    model = small_dynemo(init_method=variances, **settings).fit(recording)
    np.testing.assert_allclose(model.covariances_, variances[:, :, None] * np.eye(5), rtol=1e-4)
    again = small_dynemo(init_method=model, **settings).fit(recording)
    np.testing.assert_allclose(again.covariances_, model.covariances_, rtol=1e-4)


def test_a_clone_of_a_fitted_estimator_says_what_to_do(small_dynemo, recording):
    fitted = small_dynemo().fit(recording)
    model = clone(small_dynemo(init_method=fitted))
    with pytest.raises(NotFittedError, match=r"clone unfits it.*covariances_.*FrozenEstimator"):
        model.fit(recording)
    with pytest.raises(NotFittedError, match="not fitted, but a fitted one was expected"):
        small_dynemo(init_method=FrozenEstimator(small_dynemo())).fit(recording)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"init_method": COVARIANCES, "initial_covariances": COVARIANCES},
            "Leave initial_covariances out",
        ),
        ({"init_method": COVARIANCES, "n_modes": 3}, r"\(2, 5, 5\), but \(3, 5, 5\) was expected"),
        ({"init_method": COVARIANCES[0]}, r"\(5, 5\), but \(2, 5, 5\) was expected"),
        ({"init_method": -COVARIANCES}, "eigenvalue"),
        ({"init_method": COVARIANCES * np.nan}, "NaN"),
        ({"init_method": "kmeans"}, "'init_method' parameter"),
        ({"init_method": None}, "'init_method' parameter"),
        ({"init_method": 3}, "'init_method' parameter"),
        ({"batch_size": "all"}, "'batch_size' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"lr_decay": "cosine"}, "'lr_decay' parameter"),
        ({"lr_decay": -0.1}, "'lr_decay' parameter"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_starts(small_dynemo, recording, parameters, message):
    with pytest.raises(ValueError, match=message):
        small_dynemo(**parameters).fit(recording)


def test_a_fitted_estimator_and_initial_covariances_contradict(small_dynemo, recording):
    fitted = small_dynemo().fit(recording)
    model = small_dynemo(init_method=fitted, initial_covariances=COVARIANCES)
    with pytest.raises(ValueError, match="Leave initial_covariances out"):
        model.fit(recording)


# Schedules and batches


def test_the_learning_rate_falls_in_equal_steps_by_default(small_dynemo, recording):
    rates = np.array(small_dynemo(n_epochs=8).fit(recording).history_["learning_rate"])
    np.testing.assert_allclose(rates, 0.01 * np.arange(8, 0, -1) / 8, rtol=1e-12)


def test_the_learning_rate_falls_exponentially_with_a_number(small_dynemo, recording):
    rates = small_dynemo(n_epochs=5, lr_decay=0.5).fit(recording).history_["learning_rate"]
    np.testing.assert_allclose(rates, 0.01 * np.exp([-0.5, -1, -1.5, -2, -2.5]), rtol=1e-12)


def test_the_kl_term_rises_for_a_quarter_of_the_epochs(small_dynemo, recording):
    plain = small_dynemo().fit(recording).history_["kl_factor"]
    assert set(plain) == {1.0}
    model = small_dynemo(n_epochs=16, do_kl_annealing=True).fit(recording)
    factor = np.array(model.history_["kl_factor"])
    assert (factor[:4] < 1).all()
    assert (factor[4:] == 1).all()


def settings_of(**parameters):
    parameters = DyNeMoEstimator(**parameters).get_params(deep=False)
    return make_settings(parameters, np.zeros(3), np.ones(3), 1e-6)


@pytest.mark.parametrize(
    ("n_windows", "size"),
    [(1, 4), (79, 4), (80, 5), (128, 8), (1000, 62), (1024, 64), (10**6, 64)],
)
def test_automatic_batch_size(n_windows, size):
    assert settings_of().windows_per_batch(n_windows) == size
    assert settings_of(batch_size=5).windows_per_batch(n_windows) == 5


def test_few_windows_are_trained_on_in_batches_of_four(small_dynemo, recording, same_fit):
    plain, four = small_dynemo().fit(recording), small_dynemo(batch_size=4).fit(recording)
    assert same_fit(plain, four)


# All together


def test_a_soft_mixture_is_recovered_in_few_epochs():
    simulation = MixedSineMVN(
        6000,
        4,
        8,
        relative_activation=[0] * 4,
        amplitudes=[4] * 4,
        frequencies=[0.5, 1.2, 2, 3],
        sampling_frequency=250,
        random_state=2,
    ).standardize()
    model = DyNeMoEstimator(
        4,
        n_epochs=20,
        sequence_length=50,
        inference_n_units=32,
        model_n_units=32,
        random_state=0,
    )
    alpha = model.fit_transform(simulation.time_series)
    truth, found = match_modes(simulation.mode_time_course, alpha)
    pairs = [np.corrcoef(*columns)[0, 1] for columns in zip(truth.T, found.T, strict=True)]
    assert np.mean(pairs) > 0.88
    assert min(pairs) > 0.8
