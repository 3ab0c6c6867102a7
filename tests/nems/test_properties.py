"""Properties of every fit, over all layers, losses, solvers and containers."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score

from skdyn import NEMSRegressor
from skdyn.core.training import FitDivergedError
from skdyn.model_selection import BlockKFold
from skdyn.nems import Layer, Model, Parameter, Phi, from_keywords
from skdyn.nems.fitting import SOLVERS
from skdyn.nems.layers import StaticNonlinearity
from skdyn.nems.losses import LEAST_RATE, LOSSES, Poisson

SOLVER_NAMES = sorted(SOLVERS)

# Words of models whose parameters can make up for any units of X and y.
FREE_UNITS = [
    "wc-lvl",
    "fir.3-lvl",
    "wc.x2-fir.3-lvl",
    "wc.x1-fir.3-lvl-dexp",
    "wc.x2-fir.3-relu.s.o.g",
    "wc.x2-fir.3-srelu.s.o.g",
    "wc.x1-fir.3-sig.s.o.g",
    "wc.x1-fir.3-tanh.s.o.g",
    "wc.x1-fir.3-prelu",
    "wc.x1.g-fir.3-lvl-dexp",
    "wc.x1.p-fir.3-lvl",
    "wc.x2.n-fir.3-lvl",
    "strf.x2x3-lvl-dexp",
    "strf.x1x3.relu-lvl",
    "wc.x3-relu.s-wc-lvl",
    "stp-fir.3-lvl",
    "bn-wc.x1-fir.3-lvl-dexp",
    "wc.x3-bn-relu-wc-lvl",
    "conv2d.2x3x3.cat-relu-wc-lvl",
    "wc.x1-pz.4-lvl",
]


def recording(n_samples=500, n_outputs=1, seed=0):
    """A stimulus of four channels, and rectified responses of rank one to its last three rows."""
    rng = np.random.default_rng(seed)
    X = rng.gamma(1.0, size=(n_samples, 4))
    channels = rng.uniform(0.3, 1, (4, n_outputs)) * [[1.0], [-1.0], [0.5], [-0.3]]
    drive = np.stack(
        [np.convolve(X @ one, [0.5, 1.0, -0.3])[:n_samples] for one in channels.T], axis=1
    )
    Y = np.maximum(drive + 0.2, 0) + 0.1 * rng.standard_normal((n_samples, n_outputs))
    return X, Y if n_outputs > 1 else Y[:, 0]


def counts(n_samples=600, seed=0):
    """Spikes of four neurons: a usual one, a silent one, a rare one and a busy one."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_samples, 3))
    rates = np.stack([np.exp(0.5 * X[:, 0]), 0 * X[:, 0], 0.02 * np.exp(X[:, 1] / 2)], axis=1)
    return X, np.column_stack([rng.poisson(rates), rng.poisson(60 * np.exp(X[:, 2] / 2))])


# 2. Every loss is bounded from below


@pytest.mark.parametrize("name", sorted(LOSSES))
@settings(max_examples=200, deadline=None)
@given(
    target=st.floats(0, 1e6),
    typical=st.floats(1e-9, 1e6),
    prediction=st.floats(-1e12, 1e12),
)
def test_loss_is_bounded_from_below_for_every_prediction(name, target, typical, prediction):
    loss = LOSSES[name]()

    def of(value):
        parts = (torch.tensor([x], dtype=torch.float64) for x in (target, value, typical))
        return float(loss.pointwise(*parts))

    # The best prediction is the response itself.
    best = min(of(target), of(max(target, 1e-3 * typical)))
    assert of(prediction) >= best - 1e-9 * max(1.0, abs(best))


@pytest.mark.parametrize("target", [0.0, 1e-3, 0.5, 7.0])
def test_poisson_loss_has_one_value_and_slope_where_its_formula_changes(target):
    typical = torch.tensor([2.0], dtype=torch.float64)
    least = LEAST_RATE * 2.0
    ends = torch.tensor([least * (1 - 1e-9), least * (1 + 1e-9)], dtype=torch.float64)
    ends.requires_grad_()
    losses = Poisson().pointwise(torch.tensor(target).double(), ends, typical)
    (slopes,) = torch.autograd.grad(losses.sum(), ends)
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    assert slopes[0].item() == pytest.approx(slopes[1].item(), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("solver", SOLVER_NAMES)
@pytest.mark.parametrize("layers", ["wc-lvl", "wc-lvl-dexp", "wc-lvl-srelu", "wc-lvl-prelu"])
def test_poisson_rates_are_near_the_counts_and_no_neuron_harms_another(layers, solver):
    X, Y = counts()
    max_iter = 200 if solver == "lbfgs" else 80
    model = NEMSRegressor(layers, loss="poisson", solver=solver, random_state=0, max_iter=max_iter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        together = model.fit(X, Y).predict(X)
        alone = np.column_stack([model.fit(X, neuron).predict(X) for neuron in Y.T])
    assert np.abs(together[:, 1]).max() < 0.01  # the silent one
    active = [0, 2, 3]
    rtol = 0.02 if solver == "lbfgs" else 0.6  # it has not converged
    np.testing.assert_allclose(together[:, active].mean(0), Y[:, active].mean(0), rtol=rtol)
    size = together[:, active].std(axis=0)
    harm = np.abs(together - alone)[:, active].max(axis=0)
    # Along the flat valley of a double exponential, accelerated steps magnify rounding by 10 every
    # three iterations.
    assert np.all(harm < (0.05 if solver == "proximal" else 0.01) * size)


@pytest.mark.parametrize(
    "last", ["lvl", "dexp", "relu.o", "prelu", "tanh.o.g", "sig.o.g", "srelu.o.g"]
)
def test_poisson_fit_of_outputs_that_can_be_negative_stays_near_the_counts(last):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 2))
    y = rng.poisson(np.maximum(X[:, 0], 0))
    model = NEMSRegressor(f"wc.x1-fir.3-lvl-{last}", loss="poisson", max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        predicted = model.fit(X, y).predict(X)
    assert abs(predicted.mean() - y.mean()) < 0.1
    assert predicted.min() > -1
    assert model.loss_ > np.mean(np.where(y > 0, y - y * np.log(np.maximum(y, 1)), 0)) - 1e-9


# 3. Units and neighbours do not matter


@pytest.mark.parametrize("solver", SOLVER_NAMES)
@pytest.mark.parametrize("layers", FREE_UNITS)
def test_fit_is_the_same_in_other_units(layers, solver):
    X, Y = recording(300, n_outputs=2)
    model = NEMSRegressor(layers, solver=solver, random_state=0, max_iter=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        reference = model.fit(X, Y).predict(X)
        for x_unit, y_unit in [(1e9, 1e-13), (1e-13, 1e9)]:
            found = model.fit(x_unit * X, y_unit * Y).predict(x_unit * X) / y_unit
            is_same = np.abs(found - reference).max() < 0.05 * reference.std()
            # On a plateau of the loss, rounding decides when the fit ends: also under 1 + 1e-12.
            errors = [np.mean((one - Y) ** 2, axis=0) for one in (reference, found)]
            assert is_same or errors[1] == pytest.approx(errors[0], rel=0.01)


@pytest.mark.parametrize("solver", SOLVER_NAMES)
@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize(
    "layers", ["fir.3-lvl", "wc.x1-fir.3-lvl-dexp", "wc.x2-fir.3-relu.s", "strf.x2x3-dexp"]
)
def test_output_that_shares_nothing_does_not_change_the_others(layers, loss, solver):
    X, Y = recording(300, n_outputs=2)
    Y = np.maximum(Y, 0)
    rng = np.random.default_rng(1)
    others = np.column_stack([1e6 * rng.random(300), np.zeros(300), 1e-6 * rng.random(300)])
    # Each three iterations of "proximal" magnify rounding tenfold in a flat valley.
    n_iter = 10 if solver == "proximal" else 40
    model = NEMSRegressor(layers, loss=loss, solver=solver, random_state=0, max_iter=n_iter, tol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        alone = model.fit(X, Y).predict(X)
        beside = model.fit(X, np.column_stack([Y, others])).predict(X)[:, :2]
    assert np.abs(alone - beside).max() < 1e-6 * alone.std()


@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_alpha_means_the_same_for_one_output_and_for_many(solver):
    X, Y = recording(n_outputs=3)
    alone = [
        NEMSRegressor("fir.3-lvl-relu.o", alpha=alpha, solver=solver, random_state=0)
        .fit(X, Y[:, n])
        .predict(X)
        for n, alpha in enumerate([0.0, 0.5, 2.0])
    ]
    together = NEMSRegressor(
        "fir.3-lvl-relu.o", alpha=[0.0, 0.5, 2.0], solver=solver, random_state=0
    )
    found = together.fit(X, Y).predict(X)
    np.testing.assert_allclose(found, np.transpose(alone), atol=0.02)


# 5. converged_ means it


class Flat(StaticNonlinearity):
    """A curve without a slope."""

    def nonlinearity(self, input):  # noqa: A002
        return 0 * input + 1.0


class Overflowing(Layer):
    """A logarithm of values that may be negative."""

    n_past = 0

    def initial_parameters(self):
        return Phi(Parameter("shift", self.shape))

    def evaluate(self, values):
        (shift,) = self.get_parameter_values("shift")
        return (values + shift) ** 0.5


@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_fit_with_constant_predictions_has_not_converged(solver):
    X, y = recording()
    model = NEMSRegressor([*from_keywords("wc.4x1"), Flat((1,))], solver=solver, max_iter=20)
    with pytest.warns(ConvergenceWarning, match="constant, but the response is not"):
        model.fit(X, y)
    assert model.converged_ is False


@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_fit_of_an_unbounded_loss_ends_and_has_not_converged(solver):
    X, y = recording()

    def unbounded(target, prediction, weight):
        return (weight * prediction).mean()

    model = NEMSRegressor("wc-lvl", loss=unbounded, solver=solver, max_iter=50)
    with pytest.warns(ConvergenceWarning):
        model.fit(X, y)
    assert model.converged_ is False
    assert model.n_iter_ <= 50


@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_fit_that_is_not_finite_at_its_start_raises(solver):
    X, y = recording()
    layers = [*from_keywords("wc.4x1"), Overflowing((1,), values={"shift": [-100.0]})]
    with pytest.raises((FitDivergedError, ValueError), match=r"not finite|diverged|cannot follow"):
        NEMSRegressor(layers, solver=solver, init="given", max_iter=20).fit(X, y)


def test_fit_says_that_more_iterations_would_help():
    X, y = recording()
    with pytest.warns(ConvergenceWarning, match="raise max_iter=2"):
        model = NEMSRegressor("wc.x2-fir.3-relu.s", max_iter=2).fit(X, y)
    assert not model.converged_


# 7. History at the edges


@pytest.mark.parametrize("offset", [0, 5, 50])
def test_recording_that_was_cut_is_fitted_and_scored_without_its_edge(offset):
    rng = np.random.default_rng(1)
    X = offset + rng.standard_normal((1500, 3))
    filters = rng.standard_normal((8, 3))
    y = sum(np.convolve(X[:, c], filters[:, c])[:1500] for c in range(3))
    X, y, before = X[100:], y[100:] + 0.5 * rng.standard_normal(1400), X[90:100]
    model = NEMSRegressor("fir.8-lvl").fit(X, y)
    assert np.abs(model.model_.layers[0]["coefficients"].values - filters).max() < 0.06
    assert model.score(X, y) > 0.98
    given = NEMSRegressor("fir.8-lvl", history="zeros").fit(X, y, preceding=before)
    assert np.abs(given.model_.layers[0]["coefficients"].values - filters).max() < 0.06
    assert given.score(X, y, preceding=before) > 0.98
    np.testing.assert_allclose(
        given.predict(X, preceding=before)[7:], given.predict(X)[7:], atol=1e-9
    )
    folds = BlockKFold(4)
    scores = [
        NEMSRegressor("fir.8-lvl")
        .fit(X[train], y[train], sessions=folds.block_labels(X)[train])
        .score(X[test], y[test])
        for train, test in folds.split(X)
    ]
    assert min(scores) > 0.98


def test_zeros_are_the_history_of_a_stimulus_that_begins_in_silence():
    X, _ = recording(60)
    y = np.convolve(X @ [1, -1, 0.5, 0.2], [1, 0.5, -0.5])[: len(X)]
    zeros = NEMSRegressor("fir.3", history="zeros").fit(X, y)
    assert zeros.score(X, y) == pytest.approx(1.0)
    np.testing.assert_allclose(zeros.predict(X), y, atol=1e-9)


@pytest.mark.parametrize("layers", ["fir.100-lvl", "wc.x1-fir.100000x1"])
def test_more_lags_than_rows_are_refused_with_their_number(layers):
    X, y = recording(60)
    n_lags = layers.split(".")[-1].split("-")[0].split("x")[0]
    with pytest.raises(ValueError, match=str(int(n_lags) - 1)):
        NEMSRegressor(layers).fit(X, y)


# 8. Populations


@pytest.mark.parametrize(
    "layers",
    [
        "wc-lvl",
        "fir.3-lvl",
        "wc-fir.3",
        "wc.x2-fir.3-lvl-dexp",
        "wc.x2.g-fir.3-lvl",
        "wc.x2.p-fir.3",
        "strf.x3-lvl",
        "strf.x2x3-dexp",
        "fir.3xx-lvl",
        "wc.x3-relu-wc-lvl",
        "wc.x4-fir.3x1x4-relu.s-wc-lvl-dexp",
        "wc.x2-fir.12-lvl-dexp",
    ],
)
@pytest.mark.parametrize("n_outputs", [1, 2, 6])
def test_words_take_sizes_from_any_number_of_outputs(layers, n_outputs):
    X, Y = recording(200, n_outputs=n_outputs)
    model = NEMSRegressor(layers, max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, Y)
    assert model.predict(X).shape == Y.shape
    assert np.isfinite(model.score(X, Y))


def test_stimulus_with_repeats_of_the_response_fits_and_scores():
    X, y = recording()
    rng = np.random.default_rng(0)
    repeats = y + 0.3 * rng.standard_normal((5, len(y)))
    repeats[3:, 250:] = np.nan
    model = Model(from_keywords("fir.3x4-lvl.1"))
    fitted = model.fit(X[np.newaxis], repeats, trials=True, verbose=0)
    recorded = np.isfinite(repeats)
    mean = np.nansum(repeats, axis=0) / recorded.sum(axis=0)
    reference = NEMSRegressor("fir.3-lvl").fit(X, mean, recorded.sum(axis=0))
    np.testing.assert_allclose(fitted.predict(X).ravel(), reference.predict(X), atol=1e-9)
    predicted = np.broadcast_to(fitted.predict(X).ravel(), repeats.shape)
    expected = np.corrcoef(predicted[recorded], repeats[recorded])[0, 1]
    assert fitted.score(X[np.newaxis], repeats, trials=True) == pytest.approx(expected)


def test_constant_output_has_no_r2_and_is_left_out_with_a_warning():
    X, Y = recording(n_outputs=2)
    with_constant = np.column_stack([Y, np.full(len(Y), 3.0)])
    reference = NEMSRegressor("fir.3-lvl").fit(X, Y).score(X, Y)
    model = NEMSRegressor("fir.3-lvl").fit(X, with_constant)
    with pytest.warns(UserWarning, match=r"outputs \[2\] are constant"):
        assert model.score(X, with_constant) == pytest.approx(reference)
    with pytest.warns(UserWarning, match="constant"):
        scores = cross_val_score(NEMSRegressor("fir.3-lvl-dexp"), X, with_constant, cv=3)
    assert np.isfinite(scores).all()


# 9. Gradients


class LargeUnits(Layer):
    """A band around a frequency in Hz."""

    n_past = 0

    def initial_parameters(self):
        return Phi(Parameter("frequency", (), initial_value=8000.0), Parameter("gain", ()))

    def evaluate(self, values):
        frequency, gain = self.get_parameter_values("frequency", "gain")
        return values * (frequency / 8000.0) + gain


class Checking(StaticNonlinearity):
    """A rectifier that looks at its input, which cannot be vectorised over trials."""

    def nonlinearity(self, input):  # noqa: A002
        if (input != input).any():
            raise ValueError("NaN")
        return input.clamp_min(0)


class Detached(Layer):
    """A layer that leaves torch without an error."""

    n_past = 0

    def evaluate(self, values):
        return values.detach().numpy() if torch.is_tensor(values) else values


def test_gradients_are_exact_whatever_the_size_of_a_parameter():
    X, y = recording()
    fitted = Model([*from_keywords("wc.4x1"), LargeUnits()]).fit(X, y, verbose=0)
    assert fitted.results.exact_gradients


def test_layer_that_cannot_be_vectorised_is_followed_trial_by_trial():
    X, y = recording()
    layers = [*from_keywords("wc.4x1-fir.3x1-lvl.1"), Checking((1,))]
    model = NEMSRegressor(layers).fit(list(X.reshape(5, 100, 4)), list(y.reshape(5, 100)))
    assert model.model_.results.exact_gradients


@pytest.mark.parametrize("place", [1, 2])
def test_layer_that_leaves_torch_is_the_one_that_is_named(place):
    X, y = recording(100)
    linear = Model(from_keywords("wc.4x1-lvl.1")).fit(X, y, verbose=0).score(X, y)
    layers = from_keywords("wc.4x1-lvl.1")
    layers.insert(place, Detached(name="culprit"))
    with pytest.warns(UserWarning, match="cannot follow the layer 'culprit'"):
        fitted = Model(layers).fit(X, y, verbose=0, max_iter=100)
    assert not fitted.results.exact_gradients
    assert fitted.score(X, y) == pytest.approx(linear, abs=1e-3)
    with pytest.raises(ValueError, match="cannot follow the layer 'culprit'"):
        Model(layers).fit(X, y, verbose=0, solver="adam")


def test_static_nonlinearity_of_a_user_keeps_its_windows():
    class Bent(StaticNonlinearity):
        def nonlinearity(self, input):  # noqa: A002
            return input.clamp_min(0)

    assert Bent((1,)).n_past == 0
    assert Model([*from_keywords("wc.4x1-fir.3x1"), Bent((1,))]).n_past == 2

    class Unknown(Layer):
        def evaluate(self, values):
            return values

    assert Model([*from_keywords("wc.4x1-fir.3x1"), Unknown()]).n_past is None
