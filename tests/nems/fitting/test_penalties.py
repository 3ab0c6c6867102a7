"""Penalties against scikit-learn's models, closed forms, and conditions of minima."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import ElasticNet, Lasso, Ridge
from sklearn.model_selection import GridSearchCV, KFold

from skdyn import NEMSRegressor
from skdyn.nems import (
    L1,
    L2,
    BandedL2,
    GroupL1,
    Layer,
    Model,
    Parameter,
    Penalty,
    Phi,
    Smooth,
    from_keywords,
    to_keywords,
)
from skdyn.nems.fitting.lbfgs import LBFGS
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.penalties import Norms
from skdyn.nems.fitting.proximal import Proximal
from skdyn.nems.fitting.settings import FitSettings
from skdyn.nems.fitting.trials import Trial
from skdyn.nems.layers import (
    STRF,
    FiniteImpulseResponse,
    LevelShift,
    SoftRelu,
    WeightChannels,
)
from skdyn.nems.losses import make_loss

N_ROWS, N_LAGS, N_CHANNELS = 400, 4, 5
RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal((N_ROWS + 2, N_CHANNELS))
X = NOISE[2:] + NOISE[1:-1] + 0.5 * NOISE[:-2] + 0.3
LAGGED = np.stack(
    [np.vstack([np.zeros((lag, N_CHANNELS)), X[: N_ROWS - lag]]) for lag in range(N_LAGS)], axis=1
)
TRUE = np.zeros((N_LAGS, N_CHANNELS, 2))
TRUE[:, 1, 0], TRUE[:, 3, 1], TRUE[1, 0, 1] = [1, 2, 1, 0.5], [-1, 1, 0, 0.3], 1
Y = np.einsum("tlc,lcn->tn", LAGGED, TRUE) + RNG.standard_normal((N_ROWS, 2)) * [1, 3]
DESIGN = LAGGED.reshape(N_ROWS, -1)


def fit(penalties, y=Y[:, 0], solver="lbfgs", tol=1e-10, extra=(), **options):
    n_outputs = 1 if y.ndim == 1 else y.shape[1]
    shape = (N_LAGS, N_CHANNELS) + ((n_outputs,) if n_outputs > 1 else ())
    layers = [FiniteImpulseResponse(shape, penalties=penalties), LevelShift((n_outputs,)), *extra]
    model = NEMSRegressor(layers, solver=solver, history="zeros", tol=tol, **options)
    return model.fit(X, y)


def values(model):
    return model.model_.layers[0]["coefficients"].values


def slope(model, y):
    """Derivative of the mean squared error with respect to the coefficients."""
    left = (model.predict(X) - y).reshape(N_ROWS, -1)
    return 2 * np.einsum("tlc,tn->lcn", LAGGED, left).reshape(values(model).shape) / N_ROWS


# ---------------------------------------------------------------------------- sparse penalties


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("extra", [False, True], ids=["quadratic", "quasi-newton"])
def test_l1_is_the_lasso_of_scikit_learn(alpha, extra):
    """Known second derivatives take two steps; a layer beside the filter hides them."""
    model = fit([L1(2 * alpha)], solver="proximal", extra=[Line()] if extra else [])
    expected = Lasso(alpha, tol=1e-12, max_iter=100_000).fit(DESIGN, Y[:, 0])
    found = values(model).ravel()
    np.testing.assert_allclose(found, expected.coef_, atol=1e-5)
    np.testing.assert_array_equal(found == 0, expected.coef_ == 0)
    level = model.predict(X)[0] - DESIGN[0] @ found
    assert level == pytest.approx(expected.intercept_, abs=1e-4)
    assert model.converged_
    assert model.n_iter_ < (100 if extra else 5)


@pytest.mark.parametrize("ratio", [0.2, 0.7])
def test_l1_and_l2_are_the_elastic_net_of_scikit_learn(ratio):
    alpha = 0.3
    expected = ElasticNet(alpha, l1_ratio=ratio, tol=1e-12, max_iter=100_000).fit(DESIGN, Y[:, 0])
    penalties = [L1(2 * alpha * ratio), L2(2 * alpha * (1 - ratio))]
    found = values(fit(penalties, solver="proximal")).ravel()
    np.testing.assert_allclose(found, expected.coef_, atol=1e-5)
    np.testing.assert_array_equal(found == 0, expected.coef_ == 0)
    given = {"alpha": 2 * alpha * (1 - ratio), "solver": "proximal"}
    np.testing.assert_allclose(values(fit(penalties[:1], **given)).ravel(), found, atol=1e-5)


def test_l1_of_several_outputs_with_weights_of_their_own():
    model = fit([L1([0.2, 1.0])], Y, solver="proximal")
    for output, alpha in enumerate([0.1, 0.5]):
        expected = Lasso(alpha, tol=1e-12, max_iter=100_000).fit(DESIGN, Y[:, output])
        np.testing.assert_allclose(values(model)[..., output].ravel(), expected.coef_, atol=1e-4)


def test_l1_within_bounds_is_the_positive_lasso():
    layer = FiniteImpulseResponse(
        (N_LAGS, N_CHANNELS), penalties=L1(0.2), bounds={"coefficients": (0, np.inf)}
    )
    model = NEMSRegressor([layer, LevelShift()], solver="proximal", history="zeros", tol=1e-10)
    expected = Lasso(0.1, positive=True, tol=1e-12, max_iter=100_000).fit(DESIGN, Y[:, 1])
    found = model.fit(X, Y[:, 1]).model_.layers[0]["coefficients"].values
    np.testing.assert_allclose(found.ravel(), expected.coef_, atol=1e-5)


@pytest.mark.parametrize("axis", ["lags", "channels"])
@pytest.mark.parametrize("y", [Y[:, 0], Y], ids=["one", "two"])
def test_group_lasso_fulfils_the_conditions_of_its_minimum(axis, y):
    """Yuan & Lin 2006: -slope is weight sqrt(size) h / |h|, or shorter where h is 0."""
    weight = 1.5 if axis == "lags" else 0.3
    model = fit([GroupL1(weight, axis)], y, solver="proximal")
    found = values(model).reshape(N_LAGS, N_CHANNELS, -1)
    slopes = slope(model, y).reshape(found.shape)
    other = 1 if axis == "lags" else 0
    norms = np.linalg.norm(found, axis=other, keepdims=True)
    limit = weight * np.sqrt(found.shape[other])
    active = np.broadcast_to(norms > 0, found.shape)
    expected = -limit * found / np.where(norms > 0, norms, 1)
    np.testing.assert_allclose(slopes[active], expected[active], atol=2e-4)
    lengths = np.linalg.norm(slopes, axis=other)
    assert (lengths[norms.squeeze(other) == 0] <= limit + 1e-3).all()
    n_zero = np.sum(norms == 0)
    assert 0 < n_zero < norms.size


def test_sparse_group_lasso_fulfils_the_conditions_of_its_minimum():
    single, group = 0.15, 0.2
    model = fit([GroupL1(group, "channels"), L1(single)], solver="proximal")
    found, slopes = values(model), slope(model, Y[:, 0])
    for channel in range(N_CHANNELS):
        one, down = found[:, channel], -slopes[:, channel]
        norm = np.linalg.norm(one)
        if norm == 0:
            shrunk = np.sign(down) * np.maximum(np.abs(down) - single, 0)
            assert np.linalg.norm(shrunk) <= group * np.sqrt(N_LAGS) + 1e-3
            continue
        rest = down - group * np.sqrt(N_LAGS) * one / norm
        np.testing.assert_allclose(rest[one != 0], single * np.sign(one[one != 0]), atol=2e-4)
        assert (np.abs(rest[one == 0]) <= single + 1e-3).all()
    assert (np.linalg.norm(found, axis=0) == 0).any()


def test_l1_of_a_poisson_model_fulfils_the_conditions_of_its_minimum():
    rate = np.log1p(np.exp(0.4 * X[:, 1]))
    counts = np.random.default_rng(1).poisson(rate).astype(float)
    layers = [WeightChannels((N_CHANNELS, 1), penalties=[L1(0.03)]), SoftRelu((1,))]
    model = NEMSRegressor(layers, loss="poisson", solver="proximal", tol=1e-10).fit(X, counts)
    found = model.model_.layers[0]["coefficients"].values[:, 0]

    def loss(weights):
        copy = model.model_.copy()
        copy.layers[0]["coefficients"] = weights[:, None]
        predicted = copy.predict(X)[:, 0]
        return np.mean(predicted - counts * np.log(predicted))

    step = 1e-5 * np.eye(N_CHANNELS)
    slopes = np.array([(loss(found + one) - loss(found - one)) / 2e-5 for one in step])
    assert found[1] > 0
    np.testing.assert_allclose(slopes[found != 0], -0.03 * np.sign(found[found != 0]), atol=1e-3)
    assert (np.abs(slopes[found == 0]) <= 0.031).all()
    assert (found == 0).any()


def test_proximal_without_norms_finds_what_lbfgs_finds():
    y = np.maximum(Y[:, 0], 0)
    models = [
        fit([Smooth(0.1)], y, solver, extra=[SoftRelu((1,))], random_state=0)
        for solver in ("lbfgs", "proximal")
    ]
    np.testing.assert_allclose(models[1].loss_, models[0].loss_, rtol=1e-3)
    assert all(model.converged_ for model in models)


def test_proximal_with_early_stopping_and_callbacks():
    model = fit([L1(0.02)], solver="proximal", early_stopping=True, random_state=0, tol=1e-6)
    assert len(model.history_["validation_loss"]) == len(model.history_["loss"]) == model.n_iter_
    short = NEMSRegressor(
        [FiniteImpulseResponse((N_LAGS, N_CHANNELS), penalties=[L1(0.02)]), SoftRelu((1,))],
        solver="proximal",
        max_iter=1,
        tol=0,
    )
    with pytest.warns(match="has not converged after 1 iterations"):
        short.fit(X, Y[:, 0])


def test_losses_of_proximal_steps_fall():
    model = fit([L1(0.2), Smooth(0.3)], Y, solver="proximal", init="prior_mean")
    assert (np.diff(model.history_["loss"]) <= 1e-9).all()


def test_proximal_map_is_the_minimum_of_its_definition():
    """Against a fine grid of the map's definition, for values in groups within groups."""
    norms = Norms(
        places=np.array([0, 1, 0, 1]),
        groups=np.array([0, 1, 2, 2]),
        weights=np.array([0.3, 0.5, 0.4]),
        levels=np.array([0, 0, 1, 1]),
    )
    grid = np.stack(np.meshgrid(*[np.linspace(-2, 2, 801)] * 2), axis=-1).reshape(-1, 2)
    penalty = np.abs(grid) @ [0.3, 0.5] + 0.4 * np.linalg.norm(grid, axis=1)
    for point in np.random.default_rng(0).uniform(-2, 2, (20, 2)):
        total = 0.7 * penalty + 0.5 * np.sum((grid - point) ** 2, axis=1)
        np.testing.assert_allclose(norms.shrunk(point, 0.7), grid[total.argmin()], atol=5e-3)
        assert norms.values(point).sum() == pytest.approx(
            np.abs(point) @ [0.3, 0.5] + 0.4 * np.linalg.norm(point)
        )


# ---------------------------------------------------------------------------- squared penalties


def differences(n_values, order):
    return np.diff(np.eye(n_values), order, axis=0)


QUADRATIC = {
    "l2": ([L2(0.3)], lambda: 0.3 * np.eye(20)),
    "lags": (
        [Smooth(0.5, "lags"), L2(0.1)],
        lambda: (
            0.1 * np.eye(20) + 0.5 * np.kron(differences(4, 2).T @ differences(4, 2), np.eye(5))
        ),
    ),
    "channels": (
        [Smooth(0.5, "channels", order=1)],
        lambda: 0.5 * np.kron(np.eye(4), differences(5, 1).T @ differences(5, 1)),
    ),
    "both": (
        [Smooth(0.5, 0, order=1), Smooth(2.0, 1)],
        lambda: (
            0.5 * np.kron(differences(4, 1).T @ differences(4, 1), np.eye(5))
            + 2.0 * np.kron(np.eye(4), differences(5, 2).T @ differences(5, 2))
        ),
    ),
    "bands": (
        [BandedL2([0.1, 4.0], [2, 3])],
        lambda: np.diag(np.tile(np.repeat([0.1, 4.0], [2, 3]), 4)),
    ),
}


def solution(matrix, y):
    """Minimum of mean (y - X h - b)^2 + h' P h / 2."""
    centred = DESIGN - DESIGN.mean(axis=0)
    right = centred.T @ (y - y.mean(axis=0)) / N_ROWS
    return np.linalg.solve(centred.T @ centred / N_ROWS + matrix / 2, right)


SOLVED = [(name, solver) for name in QUADRATIC for solver in ("closed form", "lbfgs", "proximal")]


@pytest.mark.parametrize(("name", "solver"), [*SOLVED, ("lags", "adam"), ("channels", "adam")])
@pytest.mark.filterwarnings("ignore:The fit has not converged")
def test_squared_penalties_have_the_minimum_of_the_formula(name, solver):
    penalties, matrix = QUADRATIC[name]
    expected = solution(matrix(), Y[:, 0])
    if solver == "closed form":
        model = fit(penalties)
        assert model.n_iter_ == 1
        np.testing.assert_allclose(values(model).ravel(), expected, rtol=1e-8, atol=1e-10)
        return
    # A straight line that is fitted as well keeps the closed form out.
    line = Line()
    options = {"max_iter": 250, "learning_rate": 0.05}
    options = options if solver == "adam" else {}
    model = fit(penalties, solver=solver, extra=[line], random_state=0, **options)
    found = values(model).ravel()
    plain = solution(0 * matrix(), Y[:, 0])
    error, change = (np.abs(one - expected).max() for one in (found, plain))
    assert error < (0.1 if solver == "adam" else 2e-3) * change


class Line(Layer):
    """An offset that a fit finds beside that of the level."""

    n_past = 0
    penalised = ()

    def initial_parameters(self):
        return Phi(Parameter("offset", (1,)))

    def evaluate(self, inputs):
        (offset,) = self.get_parameter_values("offset")
        return inputs + offset


@pytest.mark.parametrize("name", ["lags", "bands"])
def test_squared_penalties_of_several_outputs_with_weights(name):
    penalties, matrix = QUADRATIC[name]
    weight = np.stack([np.ones(N_ROWS), (np.arange(N_ROWS) < 300).astype(float)], axis=1)
    shape = (N_LAGS, N_CHANNELS, 2)
    layers = [FiniteImpulseResponse(shape, penalties=penalties), LevelShift((2,))]
    model = NEMSRegressor(layers, history="zeros").fit(X, Y, sample_weight=weight)
    assert model.n_iter_ == 1
    np.testing.assert_allclose(values(model)[..., 0].ravel(), solution(matrix(), Y[:, 0]))
    rows = slice(0, 300)
    centred = DESIGN[rows] - DESIGN[rows].mean(axis=0)
    right = centred.T @ (Y[rows, 1] - Y[rows, 1].mean()) / 300
    expected = np.linalg.solve(centred.T @ centred / 300 + matrix() / 2, right)
    np.testing.assert_allclose(values(model)[..., 1].ravel(), expected, rtol=1e-7)


def test_weights_of_each_output_are_ridge_with_a_penalty_of_each():
    model = fit([L2([0.2, 3.0])], Y)
    for output, weight in enumerate([0.2, 3.0]):
        expected = Ridge(weight * N_ROWS / 2).fit(DESIGN, Y[:, output])
        np.testing.assert_allclose(values(model)[..., output].ravel(), expected.coef_, rtol=1e-7)


def objective_of(layers, n_outputs, loss="squared_error", alpha=0.1):
    model = Model(layers).sample_from_priors(random_state=0)
    target = np.abs(RNG.standard_normal((60, n_outputs)))
    weight = np.random.default_rng(2).uniform(0.5, 2, (60, n_outputs))
    trials = [Trial({"input": X[:60]}, target, weight)]
    return Objective(model, trials, make_loss(loss), alpha)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("shared", [False, True])
def test_gradients_of_penalties_are_finite_differences(loss, shared):
    penalties = [Smooth(0.5), Smooth(0.2, "channels"), L2(np.array([0.1, 0.7, 0.4]))]
    strf = STRF((N_CHANNELS, 2, N_LAGS, 3), penalties=penalties)
    layers = [strf, *(from_keywords("wc.3x2-srelu.2") if shared else from_keywords("srelu.3"))]
    objective = objective_of(layers, 2 if shared else 3, loss)
    vector = objective.model.get_parameter_vector() + 0.1
    _, gradient = objective.values_and_gradient(vector)
    numeric = np.empty_like(gradient)
    for place in range(len(vector)):
        ends = []
        for sign in (1, -1):
            moved = vector.copy()
            moved[place] += sign * 1e-6
            ends.append(objective.values(moved)[objective.component_of_value[place]])
        numeric[place] = (ends[0] - ends[1]) / 2e-6
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-7)


def test_penalties_count_in_the_history():
    model = fit([Smooth(0.5), L2(0.1)])
    h = values(model)
    expected = 0.25 * np.sum(np.diff(h, 2, axis=0) ** 2) + 0.05 * np.sum(h**2)
    assert model.history_["loss"][-1] - model.loss_ == pytest.approx(expected)
    model = fit([L1(0.3), GroupL1(0.2, "lags")], solver="proximal")
    h = values(model)
    groups = 0.2 * np.sqrt(N_CHANNELS) * np.linalg.norm(h, axis=1).sum()
    expected = 0.3 * np.abs(h).sum() + groups
    assert model.history_["loss"][-1] - model.loss_ == pytest.approx(expected, rel=1e-4)


def test_smoothness_makes_fits_shorter_not_longer():
    """The Gauss-Newton matrix has the penalty, so that a stiff one costs no iterations."""
    counts = {}
    for weight in (0.0, 100.0):
        layers = [FiniteImpulseResponse((N_LAGS, N_CHANNELS), penalties=[Smooth(weight)])]
        objective = objective_of([*layers, SoftRelu((1,))], 1, alpha=0.0)
        settings = FitSettings(tol=1e-9)
        found = LBFGS().fit(objective, settings, np.random.RandomState(0))
        counts[weight] = found.n_iter
    assert counts[100.0] <= 2 * counts[0.0] + 10


# ---------------------------------------------------------------------------------- as objects


def test_penalties_are_kept_by_copies_searches_and_representations():
    penalties = [Smooth(0.5, "channels"), BandedL2([1, 2], [2, 3]), L1(np.ones((4, 1)))]
    layer = FiniteImpulseResponse((N_LAGS, N_CHANNELS), penalties=penalties)
    assert layer.penalties == tuple(penalties)
    assert layer.copy() == layer == type(layer)(**layer.get_params())
    assert not layer.is_like(FiniteImpulseResponse((N_LAGS, N_CHANNELS)))
    assert "Smooth(weight=0.5" in repr(layer)
    assert "penalties" not in repr(FiniteImpulseResponse((3, 1)))
    with pytest.raises(ValueError, match="cannot be written as a word"):
        to_keywords([layer])
    named = [("filter", layer.copy().set_params(penalties=())), ("level", LevelShift())]
    grid = {"filter__penalties": [(), (Smooth(1e4),)]}
    search = GridSearchCV(NEMSRegressor(named, history="zeros"), grid, cv=KFold(2)).fit(X, Y[:, 0])
    assert search.best_params_["filter__penalties"] == ()
    assert clone(search.best_estimator_).get_params()["filter__penalties"] == ()


def test_a_penalty_of_a_users_own():
    class Sum(Penalty):
        """Half the squared sum of all values."""

        def differences(self, shape, axes):
            return torch_free_ones(int(np.prod(shape))), np.array([self.weight])

    found = values(fit([Sum(5.0)])).ravel()
    np.testing.assert_allclose(found, solution(5.0 * np.ones((20, 20)), Y[:, 0]), rtol=1e-7)
    with pytest.raises(TypeError, match="must be instances of Penalty, but one is 3"):
        FiniteImpulseResponse((3, 1), penalties=[3])


def torch_free_ones(size):
    from scipy import sparse

    assert not torch.is_tensor(size)
    return sparse.csr_array(np.ones((1, size)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L2(-1), "weight of L2 must be finite and at least 0, but is -1"),
        (lambda: L1(np.nan), "weight of L1 must be finite"),
        (lambda: Smooth(1, order=3), "order of 1 or 2"),
        (lambda: Smooth([1, 2]), "one number"),
        (lambda: BandedL2([1, 2], [3]), "BandedL2 has 2 weights and the sizes"),
        (lambda: fit([L2([1, 2, 3])]), "does not broadcast to the shape"),
        (lambda: fit([BandedL2([1, 2], [3, 3])]), "are 6 in all, but the parameter has 5"),
        (lambda: fit([Smooth(1, "time")]), "has no penalised parameter for Smooth"),
        (lambda: fit([L2(1, parameter="shift")]), "has no penalised parameter for L2"),
        (lambda: fit([L1(1)]), "penalty with kinks.*solver='lbfgs' cannot.*Use solver='proximal'"),
        (lambda: fit([L1(1)], solver="adam"), "solver='adam' cannot"),
        (
            lambda: fit([GroupL1(1, "lags"), GroupL1(1, "channels")], solver="proximal"),
            "overlap",
        ),
    ],
)
def test_penalties_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_groups_with_bounds_are_refused():
    layer = FiniteImpulseResponse((3, 2), penalties=[GroupL1(1)], bounds={"coefficients": (0, 1)})
    with pytest.raises(ValueError, match="bounds has a penalty on groups"):
        NEMSRegressor([layer], solver="proximal").fit(X[:, :2], Y[:, 0])


def test_proximal_needs_derivatives():
    class Absolute(Layer):
        def evaluate(self, inputs):
            return np.abs(np.asarray(inputs))

    with pytest.raises(ValueError, match=r"solver='proximal' needs gradients.*'Absolute'"):
        NEMSRegressor([WeightChannels((None, 1)), Absolute()], solver="proximal").fit(X, Y[:, 0])


def test_nothing_to_fit():
    frozen = FiniteImpulseResponse((3, N_CHANNELS), frozen=True, penalties=[L1(1.0)])
    model = NEMSRegressor([frozen], solver=Proximal()).fit(X, Y[:, 0])
    assert model.n_iter_ == 0
