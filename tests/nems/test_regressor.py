"""Fits of NEMSRegressor against closed forms and brute force, and fitted attributes."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score

from skdyn import NEMSRegressor
from skdyn.nems.fitting.lbfgs import LBFGS
from skdyn.nems.layers import DoubleExponential, LevelShift, WeightChannels

RNG = np.random.default_rng(0)
N_ROWS, N_CHANNELS, N_LAGS = 240, 3, 4
X = RNG.standard_normal((N_ROWS, N_CHANNELS))
# Two responses with memory; the stimulus before the first row is zero.
FILTERS = RNG.standard_normal((N_LAGS, N_CHANNELS, 2))
PADDED = np.concatenate([np.zeros((N_LAGS - 1, N_CHANNELS)), X])
Y = sum(PADDED[N_LAGS - 1 - lag :][:N_ROWS] @ FILTERS[lag] for lag in range(N_LAGS))
Y = Y + 0.5 * RNG.standard_normal(Y.shape) + [1.0, -2.0]
y = Y[:, 0]
SESSIONS = np.repeat(["a", "b", "c"], 80)
WEIGHT = RNG.integers(0, 3, N_ROWS).astype(float)
FILTER = "fir.4xx-lvl"

few_iterations = pytest.mark.filterwarnings(
    f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__qualname__}"
)


def lags(stimulus=X, sessions=SESSIONS):
    """The stimulus at all lags, one session at a time."""
    parts = []
    for label in dict.fromkeys(sessions):
        rows = stimulus[sessions == label]
        before = np.concatenate([np.zeros((N_LAGS - 1, N_CHANNELS)), rows])
        parts.append(np.hstack([before[N_LAGS - 1 - n :][: len(rows)] for n in range(N_LAGS)]))
    return np.concatenate(parts)


# Models that are linear, against scikit-learn.


@pytest.mark.parametrize("target", [y, Y[:, :1], Y], ids=lambda target: str(target.shape))
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_the_default_is_linear_regression(target, weight):
    model = NEMSRegressor().fit(X, target, weight)
    linear = LinearRegression().fit(X, target, weight)
    np.testing.assert_allclose(model.predict(X), linear.predict(X), atol=1e-10)
    assert model.predict(X).shape == target.shape
    assert model.score(X, target, weight) == pytest.approx(linear.score(X, target, weight))
    np.testing.assert_allclose(
        model.model_.layers[0]["coefficients"].values,
        linear.coef_.reshape(-1, N_CHANNELS).T,
        atol=1e-10,
    )
    assert (model.n_iter_, model.converged_) == (1, True)


@pytest.mark.parametrize("ridge", [0.1, 30.0, 1e4])
@pytest.mark.parametrize("target", [y, Y], ids=["1-D", "2-D"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_alpha_is_that_of_ridge_regression(ridge, target, weight):
    n_rows = N_ROWS if weight is None else weight.sum()
    alpha = 2 * ridge / n_rows
    model = NEMSRegressor(alpha=alpha).fit(X, target, weight)
    wanted = Ridge(ridge).fit(X, target, weight)
    np.testing.assert_allclose(model.predict(X), wanted.predict(X), atol=1e-8)
    size = np.sum(wanted.coef_**2)
    # The loss is the mean over outputs, and so is the penalty.
    penalty = alpha / 2 * size / target[0].size
    np.testing.assert_allclose(model.history_["loss"][-1], model.loss_ + penalty)


@pytest.mark.parametrize("ridge", [0.0, 20.0])
def test_a_filter_is_ridge_regression_on_lags(ridge):
    model = NEMSRegressor(FILTER, alpha=2 * ridge / N_ROWS, history="zeros").fit(
        X, Y, sessions=SESSIONS
    )
    wanted = Ridge(ridge).fit(lags(), Y)
    np.testing.assert_allclose(
        model.predict(X, sessions=SESSIONS), wanted.predict(lags()), atol=1e-8
    )
    found = model.model_.layers[0]["coefficients"].values
    np.testing.assert_allclose(found.reshape(-1, 2), wanted.coef_.T, atol=1e-8)


def mean_of_squares(target, prediction, weight):
    return (weight * (prediction - target) ** 2).mean()


def test_a_loss_of_ones_own_is_minimised():
    model = NEMSRegressor(loss=mean_of_squares, tol=1e-12).fit(X, Y, WEIGHT)
    wanted = LinearRegression().fit(X, Y, WEIGHT)
    assert model.n_iter_ > 1
    np.testing.assert_allclose(model.predict(X), wanted.predict(X), atol=1e-4)
    error = np.average((Y - model.predict(X)) ** 2, weights=WEIGHT, axis=0).mean()
    assert model.loss_ == pytest.approx(error)


def test_adam_gets_to_the_same_place():
    model = NEMSRegressor(
        solver="adam", learning_rate=0.05, max_iter=200, tol=0, n_iter_no_change=200, random_state=0
    )
    # The patience covers all epochs, so that early stopping does not occur.
    with pytest.warns(ConvergenceWarning):
        model.fit(X, Y)
    assert model.loss_ == pytest.approx(NEMSRegressor().fit(X, Y).loss_, rel=1e-4)
    assert len(model.history_["loss"]) == model.n_iter_ == 200


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_poisson_rates_of_groups_are_their_mean_counts(weight):
    group = np.arange(N_ROWS) % 3
    counts = np.random.default_rng(1).poisson(np.array([0.5, 3.0, 20.0])[group])
    model = NEMSRegressor("wc", loss="poisson", tol=1e-12).fit(np.eye(3)[group], counts, weight)
    weight = np.ones(N_ROWS) if weight is None else weight
    wanted = [np.average(counts[group == n], weights=weight[group == n]) for n in range(3)]
    np.testing.assert_allclose(model.predict(np.eye(3)), wanted, rtol=1e-4)
    rate = model.predict(np.eye(3)[group])
    assert model.loss_ == pytest.approx(
        np.average(rate - counts * np.log(rate), weights=weight), rel=1e-6
    )


# Sizes


@pytest.mark.parametrize(
    ("words", "n_outputs", "shapes"),
    [
        (None, 1, [(3, 1), (1,)]),
        (None, 2, [(3, 2), (2,)]),
        ("fir.4xx-lvl", 1, [(4, 3, 1), (1,)]),
        ("fir.4xx-lvl", 2, [(4, 3, 2), (2,)]),
        ("fir.4-lvl", 1, [(4, 3), (1,)]),
        ("wc.x2-fir.3-lvl-dexp", 1, [(3, 2), (3, 2), (1,), (1,)]),
        ("wc.x1x-fir.3x1x-dexp", 1, [(3, 1, 1), (3, 1, 1), (1,)]),
        ("wc.x1x-fir.3x1x-dexp", 2, [(3, 1, 2), (3, 1, 2), (2,)]),
        ("wc.x2x-fir.3x2x-lvl", 2, [(3, 2, 2), (3, 2, 2), (2,)]),
        ("wc.x2-relu.s-wc.x-lvl", 2, [(3, 2), (2,), (2, 2), (2,)]),
        ("wc.3x2-lvl.2", 2, [(3, 2), (2,)]),
    ],
)
@few_iterations
def test_sizes_that_are_left_out_are_those_of_the_data(words, n_outputs, shapes):
    target = Y if n_outputs == 2 else y
    model = NEMSRegressor(words, max_iter=3).fit(X, target)
    assert [layer.shape for layer in model.model_.layers] == shapes
    assert model.predict(X).shape == target.shape
    assert model.n_outputs_ == n_outputs


# Dependence of predictions on the stimulus


CAUSAL = ["wc-lvl", FILTER, "wc.x2-fir.3-relu.s", "wc.x2x-fir.3x2x-sig.s.o.g", "strf.x4-lvl"]


@pytest.mark.parametrize("words", [*CAUSAL, "fir.5xx.ac-lvl"])
@few_iterations
def test_predictions_do_not_depend_on_the_future(words):
    target = y if words.startswith(("strf", "wc.x2-fir")) else Y
    model = NEMSRegressor(words, max_iter=3, random_state=0).fit(X, target)
    changed = X.copy()
    changed[100:] = 10 * np.random.default_rng(2).standard_normal((140, 3))
    before, after = model.predict(X), model.predict(changed)
    assert not np.allclose(before[100:], after[100:])
    if words in CAUSAL:
        np.testing.assert_allclose(before[:100], after[:100], rtol=1e-12)
    else:
        # Of its five lags three are in the future.
        np.testing.assert_allclose(before[:97], after[:97], rtol=1e-12)
        assert not np.any(np.isclose(before[97:100], after[97:100]))


@pytest.mark.parametrize("n_before", [3, 50])
def test_rows_before_are_history(n_before):
    model = NEMSRegressor(FILTER).fit(X, Y)
    whole = model.predict(X)
    # Three rows are all that a filter of four lags sees.
    tail = model.predict(X[100:], preceding=X[100 - n_before : 100])
    np.testing.assert_allclose(tail, whole[100:], rtol=1e-12)
    assert not np.allclose(model.predict(X[100:])[:3], whole[100:103])
    before = [X[100 - n_before : 100], X[:60]]
    parts = model.predict([X[100:], X[60:90]], preceding=before)
    for part, rows in zip(parts, (slice(100, None), slice(60, 90)), strict=True):
        np.testing.assert_allclose(part, whole[rows], rtol=1e-12)
    stack = model.predict(np.stack([X[100:], X[60:200]]), preceding=np.stack([X[90:100], X[50:60]]))
    np.testing.assert_allclose(stack, [whole[100:], whole[60:200]], rtol=1e-12)


# Weights


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
@pytest.mark.parametrize("words", [FILTER, "wc.x2-fir.3-relu.s"])
def test_rows_without_weight_may_hold_anything(words, value):
    weight = (WEIGHT > 0).astype(float)
    masked = np.where(weight > 0, y, value)
    model = NEMSRegressor(words, history="zeros").fit(X, masked, weight)
    same = NEMSRegressor(words, history="zeros").fit(X, y, weight)
    np.testing.assert_array_equal(model.predict(X), same.predict(X))
    assert model.score(X, masked, weight) == same.score(X, y, weight)
    if words == FILTER:
        wanted = LinearRegression().fit(lags(sessions=np.zeros(N_ROWS)), y, weight)
        np.testing.assert_allclose(
            model.predict(X), wanted.predict(lags(sessions=np.zeros(N_ROWS))), atol=1e-8
        )


def test_each_output_has_weights_of_its_own():
    weight = np.random.default_rng(3).integers(0, 3, Y.shape)
    target = np.where(weight > 0, Y, np.nan)
    model = NEMSRegressor(FILTER, history="zeros").fit(X, target, weight)
    prediction = model.predict(X)
    columns, scores = lags(sessions=np.zeros(N_ROWS)), []
    for n in range(2):
        linear = LinearRegression().fit(columns, Y[:, n], weight[:, n])
        np.testing.assert_allclose(prediction[:, n], linear.predict(columns), atol=1e-8)
        scores.append(linear.score(columns, Y[:, n], weight[:, n]))
    assert model.score(X, target, weight) == pytest.approx(np.mean(scores))


def test_an_output_without_weight_does_not_count():
    weight = np.ones(Y.shape)
    weight[:, 1] = 0
    model = NEMSRegressor(FILTER).fit(X, Y, weight)
    alone = NEMSRegressor(FILTER).fit(X, y)
    np.testing.assert_allclose(model.predict(X)[:, 0], alone.predict(X), atol=1e-8)
    assert model.score(X, Y, weight) == pytest.approx(alone.score(X, y))


@pytest.mark.parametrize("target", [y, Y], ids=["1-D", "2-D"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_the_score_is_that_of_scikit_learn(target, weight):
    model = NEMSRegressor(FILTER, history="zeros").fit(X, target)
    wanted = r2_score(target, model.predict(X), sample_weight=weight)
    assert model.score(X, target, weight) == pytest.approx(wanted, rel=1e-12)
    labelled = model.predict(X, sessions=SESSIONS)
    wanted = r2_score(target, labelled, sample_weight=weight)
    assert model.score(X, target, weight, sessions=SESSIONS) == pytest.approx(wanted, rel=1e-12)


# Initialisation and convergence


def parameters_at_start(words, **parameters):
    model = NEMSRegressor(words, max_iter=1, **parameters)
    return model.fit(X, y).model_.results.initial_parameters


@few_iterations
def test_where_a_fit_starts():
    layer = DoubleExponential((1,))
    layer.set_parameter_values(base=[3.0], amplitude=[2.0], shift=[1.0], kappa=[0.5])
    layer.freeze_parameters("base")
    layers = [LevelShift((3,)), WeightChannels((3, 1)), layer]
    values = parameters_at_start(layers, init="given")
    np.testing.assert_array_equal(values[-3:], [2.0, 1.0, 0.5])
    means = parameters_at_start(layers, init="prior_mean")
    np.testing.assert_array_equal(means[-3:], [0.5, 0.0, 0.2])
    draws = [
        parameters_at_start(layers, init="prior_sample", random_state=seed) for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.any(draws[0] == draws[2])
    assert not np.any(draws[0][-3:] == values[-3:])
    fitted = NEMSRegressor(layers, max_iter=1, init="prior_mean").fit(X, y)
    assert fitted.model_.layers[-1]["base"].values == 3.0
    # From the data, a start is better than the mean of the priors.
    words = "wc.x3-fir.4-relu.s"
    starts = [
        NEMSRegressor(words, max_iter=1, init=init).fit(X, y).model_.results.initial_error
        for init in ("auto", "prior_mean")
    ]
    assert starts[0] < 0.5 * starts[1]


@few_iterations
@pytest.mark.parametrize("early_stopping", [False, True])
def test_the_best_of_several_fits_stays(monkeypatch, early_stopping):
    fit, results = LBFGS.fit, []

    def noted(self, objective, *args):
        found = fit(self, objective, *args)
        if len(objective.model.layers) == 2:  # and not the curve alone, where a fit starts
            results.append(found)
        return found

    monkeypatch.setattr(LBFGS, "fit", noted)
    model = NEMSRegressor(
        "wc.x1-relu.s", n_init=6, max_iter=4, random_state=0, early_stopping=early_stopping
    ).fit(X, y)
    assert len(results) == 6
    kind = "validation_loss" if early_stopping else "loss"
    reached = [min(one.held_out_history) if early_stopping else one.history[-1] for one in results]
    assert len(set(reached)) > 1
    assert min(model.history_[kind]) == min(reached)
    best = results[int(np.argmin(reached))]
    np.testing.assert_array_equal(model.model_.get_parameter_vector(), best.final_parameters)
    assert len({tuple(one.initial_parameters) for one in results}) == 6


STOCHASTIC = [
    {"solver": "adam", "batch_size": 1},
    {"early_stopping": True},
    {"init": "prior_sample"},
    {"n_init": 3},
]


@few_iterations
@pytest.mark.parametrize("parameters", STOCHASTIC, ids=str)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(parameters):
    long = np.concatenate([X] * 4), np.concatenate([y] * 4)

    def fit(seed):
        model = NEMSRegressor("wc.x1-fir.2-relu.s", max_iter=3, random_state=seed, **parameters)
        model.fit(*long)
        return model.model_.get_parameter_vector(), model.history_

    first, again, other = fit(0), fit(0), fit(np.random.RandomState(7))
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    if "n_init" not in parameters:  # the first start may be the best one
        assert not np.array_equal(first[0], other[0])


@few_iterations
def test_global_generators_are_neither_read_nor_moved():
    before, torch_before = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    for parameters in STOCHASTIC:
        for seed in (0, None):
            NEMSRegressor("wc.x1-relu.s", max_iter=2, random_state=seed, **parameters).fit(X, y)
    np.testing.assert_equal(np.random.get_state(), before)  # noqa: NPY002
    assert torch.equal(torch_before, torch.get_rng_state())


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_early_stopping_ends_a_fit_that_learns_noise(solver):
    rng = np.random.default_rng(0)
    stimulus = rng.standard_normal((200, 60))
    target = stimulus[:, 0] + 3 * rng.standard_normal(200)
    parameters = {"solver": solver, "learning_rate": 0.03, "n_iter_no_change": 5, "random_state": 0}
    model = NEMSRegressor(early_stopping=True, init="prior_mean", max_iter=500, **parameters)
    model.fit(stimulus, target)
    watched, history = model.history_["validation_loss"], model.history_["loss"]
    assert len(watched) == len(history) == model.n_iter_ < 500
    assert model.converged_
    assert np.argmin(watched) <= model.n_iter_ - 5
    test = rng.standard_normal((2000, 60))
    full = NEMSRegressor().fit(stimulus, target)
    errors = [np.mean((one.predict(test) - test[:, 0]) ** 2) for one in (model, full)]
    assert errors[0] < 0.8 * errors[1]
    assert "validation_loss" not in full.history_


@few_iterations
@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_warm_start_goes_on_from_the_fitted_model(solver):
    model = NEMSRegressor(
        "wc.x2-fir.3-sig.s.o.g", solver=solver, max_iter=3, warm_start=True, random_state=0
    ).fit(X, y)
    first = model.model_
    vector, loss = first.get_parameter_vector(), model.loss_
    model.fit(X, y)
    np.testing.assert_array_equal(model.model_.results.initial_parameters, vector)
    assert model.loss_ < loss
    assert model.model_ is not first
    np.testing.assert_array_equal(first.get_parameter_vector(), vector)
    cold = model.set_params(warm_start=False).fit(X, y)
    assert cold.loss_ == pytest.approx(loss, rel=1e-12)


def test_a_fit_that_is_cut_short_says_so():
    model = NEMSRegressor("wc.x2-fir.3-relu.s", max_iter=1)
    with pytest.warns(
        ConvergenceWarning, match=r"not converged after 1 iterations.*raise max_iter=1"
    ):
        model.fit(X, y)
    assert (model.n_iter_, model.converged_) == (1, False)


@few_iterations
@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_silence_unless_asked(capfd, solver):
    for words in ("wc-lvl", "wc.x2-fir.3-relu.s"):
        NEMSRegressor(words, solver=solver, max_iter=2, random_state=0).fit(X, y).predict(X)
        assert capfd.readouterr() == ("", "")
        NEMSRegressor(words, solver=solver, max_iter=2, random_state=0, verbose=1).fit(X, y)
        assert any(capfd.readouterr())


def test_what_a_fit_leaves():
    model = NEMSRegressor("wc.x2-fir.3-relu.s", history="zeros")
    assert model.fit(X, Y[:, :1]) is model
    assert model.n_features_in_ == 3
    assert model.n_outputs_ == 1
    assert not hasattr(model, "feature_names_in_")
    assert model.model_.results.exact_gradients
    assert model.converged_
    assert len(model.history_["loss"]) == model.n_iter_
    assert list(model.history_) == ["loss"]
    assert np.all(np.diff(model.history_["loss"]) <= 0)
    error = np.mean((model.predict(X) - Y[:, :1]) ** 2)
    assert model.loss_ == pytest.approx(error) == pytest.approx(model.history_["loss"][-1])
    assert isinstance(model.loss_, float)


def test_a_response_that_a_model_can_give_is_found():
    truth = np.maximum(lags(sessions=np.zeros(N_ROWS)) @ FILTERS[..., 0].ravel(), 0)
    model = NEMSRegressor("wc.x3-fir.4-relu").fit(X, truth)
    assert model.score(X, truth) > 0.9999
    np.testing.assert_allclose(model.predict(2 * X), 2 * model.predict(X), rtol=1e-9)


@pytest.mark.parametrize("words", ["wc.x-lvl-dexp", "wc.x-dexp", "wc.x2-wc.2x-dexp"])
@pytest.mark.parametrize("seed", range(4))
def test_a_curve_is_as_good_as_a_line(words, seed):
    # A fit that starts where the curve does not see the stimulus ends on a step.
    rng = np.random.default_rng(seed)
    stimulus = rng.standard_normal((500, 4))
    target = np.tanh(stimulus @ rng.standard_normal(4)) + 0.5 * rng.standard_normal(500)
    line = NEMSRegressor().fit(stimulus, target).score(stimulus, target)
    model = NEMSRegressor(words).fit(stimulus, target)
    assert model.score(stimulus, target) > line - 0.001


def test_the_number_of_threads_does_not_matter():
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            found.append(NEMSRegressor("wc.x2-fir.3-relu.s").fit(X, y).predict(X))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)
