"""Gauss-Newton preconditioning against finite differences of predictions and the loss."""

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from skdyn.nems import Layer, Model, from_keywords
from skdyn.nems.fitting import lbfgs, preconditioning
from skdyn.nems.fitting.lbfgs import LBFGS
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.preconditioning import (
    DAMPING,
    round_coordinates,
    scaled_coordinates,
    usual_sizes,
)
from skdyn.nems.fitting.settings import FitSettings
from skdyn.nems.fitting.trials import Trial
from skdyn.nems.losses import LEAST_RATE, LOSSES, FunctionLoss, Poisson, SquaredError

ALL_OWN = "wc.4x1x3-fir.2x1x3-dexp.3"
SHARING = "wc.4x1x2-fir.3x1x2-wc.2x3-dexp.3"
ONE = "wc.4x2-fir.3x2-lvl.1-dexp.1"


@pytest.fixture
def without_least(monkeypatch):
    """No least curvature, so that the matrix is that of the data and the penalty alone."""
    monkeypatch.setattr(preconditioning, "LEAST", 1e-12)


def make_model(text, seed=0):
    return Model(from_keywords(text)).sample_from_priors(random_state=seed)


def make_trials(n_outputs, lengths=(60,), weights=1, seed=0):
    """Short enough for the matrix to be that of all rows; responses may be counts."""
    rng = np.random.default_rng(seed)
    return [
        Trial(
            {"input": rng.standard_normal((n, 4))},
            rng.poisson(2.0, (n, n_outputs)).astype(float),
            rng.uniform(0.2, 2, (n, weights)),
        )
        for n in lengths
    ]


def make_objective(text, n_outputs, loss=None, alpha=0.0, **options):
    model, trials = make_model(text), make_trials(n_outputs, **options)
    return Objective(model, trials, loss or SquaredError(), alpha), model.get_parameter_vector()


def fit(objective, **options):
    return LBFGS().fit(objective, FitSettings(**options), np.random.RandomState(0))


def round_at(objective, vector, boxed=()):
    return round_coordinates(objective, vector, np.isin(np.arange(len(vector)), boxed))


def map_of(coordinates):
    """The matrix A of theta = theta_0 + A z, column by column."""
    identity = np.eye(len(coordinates.origin))
    return np.transpose([coordinates.parameters(unit) - coordinates.origin for unit in identity])


def matrix_of(coordinates):
    """H from the coordinates, by A' (H + damping) A = 1."""
    inverse = np.linalg.inv(map_of(coordinates))
    return inverse.T @ inverse - DAMPING * np.diag(coordinates.scale**2)


def gauss_newton(objective, trials, vector, curvature_of):
    """J' W J and the penalty, with derivatives of predictions by finite differences."""
    model, step = objective.model, 1e-6

    def predict(values):
        model.set_parameter_vector(values, ignore_bounds=True)
        return np.concatenate([model.predict(trial.data) for trial in trials])

    jacobian = np.stack(
        [
            (predict(vector + unit) - predict(vector - unit)) / (2 * step)
            for unit in step * np.eye(len(vector))
        ],
        axis=-1,
    )
    target, weight = (np.concatenate([getattr(t, k) for t in trials]) for k in ("target", "weight"))
    weight = np.broadcast_to(weight, target.shape)
    # The loss of each component is relative to its size, with its outputs as mean over them.
    each = weight / weight.sum(axis=0) * curvature_of(target, predict(vector)) * factors(objective)
    model.set_parameter_vector(vector, ignore_bounds=True)
    matrix = np.einsum("tn,tni,tnj->ij", each, jacobian, jacobian)
    return matrix + np.diag(objective.value_penalty)


def factors(objective):
    """Factors from the mean loss of each output to its relative loss, written out."""
    trials, names = objective.trials, ("target", "weight")
    target, weight = (np.concatenate([getattr(t, k) for t in trials]) for k in names)
    weight = np.broadcast_to(weight, target.shape)
    mean = (weight * target).sum(axis=0) / weight.sum(axis=0)
    size = (weight * (target - mean) ** 2).sum(axis=0) / weight.sum(axis=0)
    if isinstance(objective.loss, Poisson):
        size = mean
    size = np.where(size > 0, size, 1.0)
    share = weight.sum(axis=0) / weight.sum()
    found = np.empty(len(share))
    for output, component in enumerate(objective.component):
        same = objective.component == component
        found[output] = share[output] / (share[same] @ size[same])
    return found


def flat(target, prediction):
    return 2.0


def of_counts(target, prediction):
    return target / prediction**2


# The matrix


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize(
    ("text", "n_outputs", "lengths", "weights"),
    [
        (ONE, 1, (60,), 1),
        (ALL_OWN, 3, (60,), 1),
        (SHARING, 3, (60,), 3),
        (SHARING, 3, (60, 60, 60), 3),
        ("wc.4x3", 3, (60, 60), 1),
        ("wc.4x1-fir.3x1", 1, (1,), 1),
    ],
)
@pytest.mark.usefixtures("without_least")
def test_the_matrix_is_that_of_gauss_and_newton(text, n_outputs, lengths, weights, alpha):
    options = {"lengths": lengths, "weights": weights}
    objective, vector = make_objective(text, n_outputs, alpha=alpha, **options)
    expected = gauss_newton(objective, make_trials(n_outputs, **options), vector, flat)
    to = round_at(objective, vector)
    close = {"rtol": 1e-5, "atol": 1e-7 * np.abs(expected).max()}
    np.testing.assert_allclose(matrix_of(to), expected, **close)
    np.testing.assert_allclose(to.scale**2, np.diag(expected), **close)


@pytest.mark.usefixtures("without_least")
def test_a_layers_own_penalty_is_in_the_matrix():
    objective, vector = make_objective("wc.4x2.l2:1-fir.3x2-dexp.1", 1, alpha=7.0)
    assert set(objective.penalty) == {0.1, 7.0, 0.0}
    expected = gauss_newton(objective, make_trials(1), vector, flat)
    found = matrix_of(round_at(objective, vector))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("without_least")
def test_the_curvature_of_counts_is_y_over_p_squared():
    objective, vector = make_objective(SHARING + "-lvl.3", 3, Poisson())
    vector[-3:] = 2.0  # rates far from zero, where the logarithm has its tangent
    expected = gauss_newton(objective, make_trials(3), vector, of_counts)
    found = matrix_of(round_at(objective, vector))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())
    # Below the smallest rate f the loss continues as a square, (p - y)^2 / (2 f).
    (group,) = objective.groups
    prediction = torch.ones_like(group.target)
    prediction[0, :10] = -1.0
    found = objective.curvature(group, prediction).numpy()
    rows = np.prod(group.target.shape[:2])
    wanted = (group.weight * group.target).numpy() / rows * factors(objective)
    least = LEAST_RATE * objective.sizes.typical
    wanted[0, :10] = (group.weight[0, :10] / rows).numpy() * factors(objective) / least
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_losses_without_curvature_have_that_of_a_square():
    def absolute(target, prediction, weight):
        return (weight * (prediction - target).abs()).mean()

    def straight(target, prediction, weight):
        return (weight * prediction).mean()

    def fourth(target, prediction, weight):
        return (weight * (prediction - target) ** 4).mean()

    def saddle(target, prediction, weight):
        return -(weight * (prediction - target) ** 2).mean()

    for loss, at_least in ((absolute, 2.0), (straight, 2.0), (saddle, 2.0), (fourth, None)):
        objective, vector = make_objective(ONE, 1, FunctionLoss(loss))
        (group,) = objective.groups
        found = objective.curvature(group, 1 + group.target).numpy()
        if at_least is None:  # (y + 1 - y)^4 has the second derivative 12
            weight = group.weight.numpy() * 12 / objective.scale
        else:  # of a squared error, relative to that of the mean
            weight = at_least / objective.sizes.typical**2
        np.testing.assert_allclose(found, weight / group.target.numel() + 0 * found, rtol=1e-10)
        assert np.isfinite(map_of(round_at(objective, vector))).all()


@pytest.mark.usefixtures("without_least")
def test_long_recordings_are_seen_at_some_rows_that_stand_for_all():
    model, trials = make_model(ONE), make_trials(1, lengths=(4000, 300, 4000), seed=1)
    for trial in trials:
        trial.data["input"] *= np.linspace(0, 2, len(trial.target))[:, np.newaxis]
    objective, vector = Objective(model, trials, SquaredError(), 0.0), model.get_parameter_vector()
    expected = gauss_newton(objective, trials, vector, flat)
    to = round_at(objective, vector)
    turn, damping = map_of(to), DAMPING * np.diag(to.scale**2)
    seen = np.linalg.eigvalsh(turn.T @ (expected + damping) @ turn)
    assert 0.4 < seen.min() < seen.max() < 2


# The coordinates


@pytest.mark.parametrize(
    ("text", "n_outputs", "boxed"),
    [
        (ONE, 1, ()),
        (ALL_OWN, 3, (0, 4, 7)),
        (SHARING, 3, ()),
        (SHARING, 3, (1, 9, 15)),
        (SHARING, 3, range(18)),
    ],
)
def test_coordinates_go_there_and_gradients_come_back(text, n_outputs, boxed):
    objective, vector = make_objective(text, n_outputs, alpha=0.1)
    to = round_at(objective, vector, boxed)
    point = np.random.default_rng(1).standard_normal(len(vector))
    np.testing.assert_array_equal(to.parameters(0 * point), vector)
    # The same loss as a function of the coordinates, near which it has another gradient.
    at = 0.05 * point

    def value(point):
        return objective.values_and_gradient(to.parameters(point))[0].sum()

    found = to.gradient(objective.values_and_gradient(to.parameters(at))[1])
    np.testing.assert_allclose(found, approx_fprime(at, value, 1e-6), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(to.gradient(point), map_of(to).T @ point, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("without_least")
def test_the_loss_is_round_where_a_fit_starts():
    """To second order, for a model in which Gauss-Newton is exact."""
    objective, vector = make_objective("wc.4x3", 3, lengths=(100,), alpha=0.01)
    to = round_at(objective, vector)

    def gradient(point):
        return to.gradient(objective.values_and_gradient(to.parameters(point))[1])

    origin = 0 * vector
    hessian = np.transpose([gradient(unit) - gradient(origin) for unit in np.eye(len(vector))])
    np.testing.assert_allclose(hessian, np.eye(len(vector)), atol=3 * DAMPING)


@pytest.mark.usefixtures("without_least")
def test_smaller_damping_is_rounder(monkeypatch):
    # All that would make the matrix singular is penalised.
    objective, vector = make_objective("wc.4x1x2-fir.3x1x2-wc.2x3", 3, alpha=0.1)
    expected = gauss_newton(objective, make_trials(3), vector, flat)
    far = []
    for damping in (1e-1, 1e-4, 1e-7):
        monkeypatch.setattr(preconditioning, "DAMPING", damping)
        turn = map_of(round_at(objective, vector))
        far.append(np.abs(turn.T @ expected @ turn - np.eye(len(vector))).max())
    assert far[0] > 10 * far[1] > 100 * far[2]
    assert far[2] < 1e-3


@pytest.mark.usefixtures("without_least")
def test_parameters_with_bounds_are_only_scaled():
    boxed = [0, 3, 9, 15, 22]
    objective, vector = make_objective(SHARING, 3)
    to = round_at(objective, vector, boxed)
    turn = map_of(to)
    others = np.setdiff1d(np.arange(len(vector)), boxed)
    np.testing.assert_array_equal(turn[np.ix_(boxed, others)], 0)
    np.testing.assert_array_equal(turn[np.ix_(others, boxed)], 0)
    np.testing.assert_allclose(turn[np.ix_(boxed, boxed)], np.diag(1 / to.scale[boxed]))
    # Unbounded parameters are preconditioned as if there were no others.
    full = matrix_of(round_at(objective, vector))
    found = matrix_of(to)[np.ix_(others, others)]
    np.testing.assert_allclose(found, full[np.ix_(others, others)], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(to.scale[boxed] ** 2, np.diag(full)[boxed], rtol=1e-6)
    low, high = vector - 1, vector + np.arange(len(vector))
    bounds = to.bounds(low, high)
    for end, column in ((low, 0), (high, 1)):
        reached = to.parameters(np.where(np.isin(np.arange(len(low)), boxed), bounds[:, column], 0))
        np.testing.assert_allclose(reached[boxed], end[boxed], rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        (ALL_OWN, []),
        ("wc.4x3", []),
        ("fir.2x4x3-lvl.3", []),
        (SHARING, [*range(8), *range(8, 14)]),
        ("wc.4x1-fir.2x1-wc.1x3", range(6)),
        ("wc.4x1-fir.2x1-dexp.1", []),
    ],
)
def test_who_owns_what(text, shared):
    n_outputs = 1 if text.endswith("1") else 3
    objective, vector = make_objective(text, n_outputs)
    to = round_at(objective, vector)
    np.testing.assert_array_equal(to.shared, shared)
    own = [places for places, _, _ in to.blocks]
    assert len(own) == n_outputs
    np.testing.assert_array_equal(np.sort(np.concatenate([*own, to.shared])), range(len(vector)))
    # A parameter of one output moves this output alone.
    model, (trial,) = objective.model, make_trials(n_outputs)
    before = model.predict(trial.data)
    for output, places in enumerate(own):
        moved = vector.copy()
        moved[places] += 1.0
        model.set_parameter_vector(moved)
        changed = (model.predict(trial.data) != before).any(axis=0)
        np.testing.assert_array_equal(np.flatnonzero(changed), [output])


def test_coordinates_are_of_the_vector_and_not_of_what_the_model_happens_to_be_at():
    objective, vector = make_objective(ONE, 1)
    first = round_at(objective, vector)
    objective.model.set_parameter_vector(0 * vector)
    again = round_at(objective, vector)
    np.testing.assert_array_equal(first.scale, again.scale)


def test_weights_that_are_zero_do_not_change_who_shares_what():
    """They may be so where a fit starts only."""
    objective, vector = make_objective("wc.4x1x2-fir.3x1x2-wc.2x3", 3)
    mix = vector[14:].reshape(2, 3)
    mix[:] = [[1, 2, 0], [0, 0, 3]]
    to = round_at(objective, vector)
    np.testing.assert_array_equal(to.shared, range(14))
    np.testing.assert_array_equal(to.blocks[2].places, [16, 19])


def test_parameters_that_hardly_matter_go_no_further_than_usual():
    """Their curvature is taken for a least one, in units of their size for that output."""
    text = "wc.4x3-lvl.3-relu.3"
    model, trials = Model(from_keywords(text)), make_trials(3)
    model.layers["lvl"]["shift"] = [-100.0, 5.0, 5.0]  # the first output is silent
    objective, vector = Objective(model, trials, SquaredError(), 0.0), model.get_parameter_vector()
    to = round_at(objective, vector)
    known = np.diag(gauss_newton(objective, trials, vector, flat))
    assert known.reshape(5, 3)[:, 0].max() == 0 < known.reshape(5, 3)[:, 1:].min()
    columns = [vector[output:12:3] for output in range(3)]
    rms = [np.sqrt(np.mean(column**2)) for column in columns]
    usual = np.concatenate([np.tile(rms, 4), np.abs(vector[12:])])
    least = preconditioning.LEAST / usual**2
    # Those of the other outputs have at least a share of the curvature of their array.
    for output in (1, 2):
        least[output:12:3] = preconditioning.LEAST * known[output:12:3].mean()
        least[12 + output] = preconditioning.LEAST * known[12 + output]
    np.testing.assert_allclose(to.scale**2, np.maximum(known, least), rtol=1e-5)
    silent = map_of(to)[::3, ::3]
    np.testing.assert_allclose(silent, np.diag(1 / to.scale[::3]), rtol=DAMPING)


def test_parameters_that_do_nothing_stay_as_they_are():
    text = "wc.4x3-relu.3.o"
    objective, vector = make_objective(text, 3)
    dead = np.zeros(4)
    weights = np.where(np.arange(12) % 3 == 1, 0.0, vector[:12])  # of the second output
    objective.model.set_parameter_vector(vector := np.concatenate([weights, vector[12:]]))
    to = round_at(objective, vector)
    assert np.isfinite(map_of(to)).all()
    gradient = to.gradient(objective.values_and_gradient(vector)[1])
    np.testing.assert_array_equal(gradient[1:12:3], dead)


# Operations that torch differentiates only once


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return torch.tanh(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (values,) = ctx.saved_tensors
        return gradient * (1 - torch.tanh(values) ** 2)


class InNumPy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return torch.from_numpy(np.tanh(values.detach().numpy()))

    @staticmethod
    def backward(ctx, gradient):
        (values,) = ctx.saved_tensors
        return torch.from_numpy(gradient.numpy() * (1 - np.tanh(values.detach().numpy()) ** 2))


class Bend(Layer):
    def __init__(self, function, **options):
        self.function = function
        super().__init__(**options)

    def evaluate(self, values):
        return self.function.apply(values) if torch.is_tensor(values) else np.tanh(values)


@pytest.mark.parametrize("function", [OnceOnly, InNumPy])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_a_layer_that_is_derived_once_has_plain_coordinates(function, n_outputs):
    objective = bent(function, f"wc.4x{n_outputs}", n_outputs)
    vector = objective.model.get_parameter_vector()
    to, plain = round_at(objective, vector), scaled_coordinates(objective, vector)
    assert not to.blocks
    assert not len(to.shared)
    np.testing.assert_array_equal(to.scale, plain.scale)
    point = np.random.default_rng(0).standard_normal(len(vector))
    np.testing.assert_array_equal(to.parameters(point), vector + point / to.scale)
    np.testing.assert_array_equal(to.gradient(point), point / to.scale)


# A bug that is known.


@pytest.mark.parametrize(
    ("function", "after"),
    [
        (OnceOnly, "lvl.2"),
        (OnceOnly, "wc.2x2"),
        (InNumPy, "lvl.2"),
        (InNumPy, "wc.2x2"),
    ],
)
def test_a_layer_that_is_derived_once_is_fitted_all_the_same(function, after):
    """Though others come after it, whose derivatives are known."""
    objective = bent(function, "wc.4x2", 2, after)
    results = fit(objective, tol=1e-9, max_iter=5000)
    assert results.exact_gradients
    assert results.converged
    assert results.final_error < 1e-6


def bent(function, before, n_outputs, after=None):
    """A model that can be fitted exactly."""
    layers = [*from_keywords(before), Bend(function), *(from_keywords(after) if after else [])]
    for number, layer in enumerate(layers):
        layer.name = f"layer {number}"
    (trial,) = make_trials(n_outputs)
    target = np.tanh(trial.data["input"][:, :n_outputs])
    model = Model(layers)
    return Objective(model, [Trial(trial.data, target, trial.weight)], SquaredError(), 0.0)


def test_derivatives_that_are_not_finite_leave_the_coordinates_plain():
    class Root(Layer):
        def evaluate(self, values):
            return abs(values) ** 0.5

    model = Model([*from_keywords("wc.4x1"), Root()])
    objective = Objective(model, make_trials(1), SquaredError(), 0.0)
    vector = np.zeros(4)
    to = round_at(objective, vector)
    np.testing.assert_array_equal(map_of(to), np.diag(usual_sizes(objective, vector)))


# In a fit


class Exponential(Layer):
    def evaluate(self, values):
        return torch.exp(values) if torch.is_tensor(values) else np.exp(values)


def counted(unit=(1, 1, 1, 1)):
    """Counts with an exponential of a smooth stimulus as rate: each loss has one minimum."""
    rng = np.random.default_rng(2)
    stimulus = rng.standard_normal((302, 4))
    stimulus = stimulus[2:] + stimulus[1:-1] + stimulus[:-2]
    counts = rng.poisson(np.exp(0.3 * stimulus @ rng.standard_normal((4, 3)))).astype(float)
    return [Trial({"input": unit * stimulus}, counts, np.ones((300, 1)))]


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_fits_end_at_the_same_minimum_in_either_coordinates(loss, monkeypatch):
    def fitted():
        model = Model([*from_keywords("fir.3x4x3-lvl.3"), Exponential()])
        objective = Objective(model, counted(), LOSSES[loss](), 1e-3)
        return fit(objective, tol=1e-13, max_iter=2000)

    def at_its_scale(objective, vector, boxed):
        return scaled_coordinates(objective, vector)

    found = fitted()
    monkeypatch.setattr(lbfgs, "round_coordinates", at_its_scale)
    plain = fitted()
    assert found.history[-1] == pytest.approx(plain.history[-1], rel=1e-9)
    np.testing.assert_allclose(found.final_parameters, plain.final_parameters, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("without_least")
def test_units_of_channels_do_not_change_the_way():
    """Nothing that an iteration does depends on them."""
    histories = []
    for unit in (np.ones(4), np.array([1, 1e-3, 1e3, 10])):
        model = Model([*from_keywords("wc.4x2-fir.3x2-lvl.1"), Exponential()])
        model.layers["wc"]["coefficients"] = (
            model.layers["wc"]["coefficients"].values / unit[:, None]
        )
        trials = [Trial(t.data, t.target[:, :1], t.weight) for t in counted(unit)]
        objective = Objective(model, trials, Poisson(), 0.0)
        histories.append(fit(objective, max_iter=20, tol=0).history)
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-6)
    assert len(histories[0]) == 20
    assert histories[0][-1] < histories[0][0] - 0.01
