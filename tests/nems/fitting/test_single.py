"""Single precision: where it is used, that it is enough, and that fits end where doubles do."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skdyn.nems import Layer, Model, NEMSRegressor, Parameter, Phi, from_keywords
from skdyn.nems.fitting import gradients, lbfgs
from skdyn.nems.fitting.gradients import single_is_enough
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.preconditioning import round_coordinates
from skdyn.nems.fitting.trials import Trial
from skdyn.nems.losses import LOSSES

WORDS = [
    "wc.6x1x3-fir.4x1x3-dexp.3",
    "wc.6x2.g-fir.4x1x2-relu.2.s-wc.2x3-lvl.3",
    "fir.4x6x3-relu.3.s-lvl.3",
    "strf.6x2x4x3-sig.3.s.o.g",
]


@pytest.fixture
def always(monkeypatch):
    """Single precision however few the data are."""
    monkeypatch.setattr(gradients, "SINGLE_FROM", 0)


def recording(n_samples=600, n_outputs=3):
    rng = np.random.default_rng(0)
    X = rng.gamma(1.0, size=(n_samples, 6))
    drive = X @ rng.standard_normal((6, n_outputs))
    drive[1:] += drive[:-1]
    y = np.maximum(drive, 0) + 0.3 * drive.std() * rng.random(drive.shape)
    return X, y


def make_objective(layers, loss="squared_error", units=(1.0, 1.0)):
    X, y = recording()
    layers = from_keywords(layers) if isinstance(layers, str) else layers
    model = Model(layers).sample_from_priors(random_state=0)
    trials = [Trial({"input": units[0] * X}, units[1] * y, np.ones((len(X), 1)))]
    return Objective(model, trials, LOSSES[loss](), 0.1)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("words", WORDS)
def test_single_precision_has_the_gradient_of_doubles(words, loss, always):
    objective = make_objective(words, loss)
    vector = objective.model.get_parameter_vector()
    assert single_is_enough(objective, vector)
    values, gradient = objective.values_and_gradient(vector)
    objective.is_single = True
    seen = []
    predict = objective.predict
    objective.predict = lambda data: seen.append(predict(data)) or seen[-1]
    found_values, found = objective.values_and_gradient(vector)
    assert seen[0].dtype == torch.float32
    assert found.dtype == found_values.dtype == float
    np.testing.assert_allclose(found_values, values, rtol=1e-5)
    np.testing.assert_allclose(found, gradient, atol=1e-4 * np.abs(gradient).max())
    assert not np.array_equal(found, gradient)


@pytest.mark.parametrize("words", WORDS)
def test_coordinates_of_single_precision_are_those_of_doubles(words):
    objective = make_objective(words)
    vector = objective.model.get_parameter_vector()
    boxed = np.zeros(len(vector), dtype=bool)
    point = np.random.default_rng(1).standard_normal(len(vector))
    expected = round_coordinates(objective, vector, boxed)
    objective.is_single = True
    found = round_coordinates(objective, vector, boxed)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-3)
    step = expected.parameters(point) - vector
    np.testing.assert_allclose(
        found.parameters(point) - vector, step, atol=1e-3 * np.abs(step).max()
    )


def test_few_data_stay_in_double_precision():
    objective = make_objective(WORDS[0])
    assert not single_is_enough(objective, objective.model.get_parameter_vector())


@pytest.mark.parametrize("units", [(1e30, 1.0), (1.0, 1e-30), (1e-30, 1.0)])
def test_units_that_single_precision_cannot_hold_stay_in_double_precision(units, always):
    objective = make_objective(WORDS[0], units=units)
    vector = objective.model.get_parameter_vector()
    with np.errstate(all="ignore"):
        enough = single_is_enough(objective, vector)
        values, gradient = objective.values_and_gradient(vector)
        objective.is_single = True
        found = objective.values_and_gradient(vector)
    close = np.allclose(found[0], values, rtol=1e-3) and np.allclose(
        found[1], gradient, rtol=0, atol=1e-3 * np.linalg.norm(gradient)
    )
    assert close or not enough


class Doubles(Layer):
    """A layer with a matrix product in double precision only."""

    def initial_parameters(self):
        return Phi(Parameter("gain", (3,)))

    def evaluate(self, input):  # noqa: A002
        (gain,) = self.get_parameter_values("gain")
        if torch.is_tensor(input):
            return gain * (input @ torch.eye(3, dtype=torch.float64))
        return gain * (input @ np.eye(3))


def test_layer_that_takes_doubles_only_is_fitted_in_double_precision(always):
    objective = make_objective([*from_keywords("wc.6x3"), Doubles()])
    assert not single_is_enough(objective, objective.model.get_parameter_vector())
    X, y = recording()
    model = NEMSRegressor([*from_keywords("wc.6x3"), Doubles()], max_iter=50)
    # Without a level, only in comparison with the same model in plain arithmetic.
    plain = NEMSRegressor("wc.6x3", max_iter=50).fit(X, y)
    assert model.fit(X, y).score(X, y) == pytest.approx(plain.score(X, y), abs=1e-4)


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
@pytest.mark.parametrize("units", [1.0, 1e-13, 1e9])
@pytest.mark.parametrize("words", WORDS[:3])
def test_fit_in_single_precision_ends_as_well_as_in_doubles(words, units, solver, monkeypatch):
    X, y = recording()

    def fitted():
        model = NEMSRegressor(words, solver=solver, history="zeros", random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.set_params(max_iter=50).fit(units * X, units * y)

    expected = fitted()
    monkeypatch.setattr(gradients, "SINGLE_FROM", 0)
    found = fitted()
    assert found.loss_ <= expected.loss_ + 0.005 * (units * y).var()
    assert found.converged_ or not expected.converged_


@pytest.mark.filterwarnings("ignore:The fit has not:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("tol", [1e-5, 1e-10])
def test_fit_goes_on_in_doubles_if_its_tolerance_is_below_the_rounding_of_singles(tol, always):
    X, y = recording()
    model = NEMSRegressor("wc.6x1x3-fir.4x1x3-lvl-sig.3.s.o.g", history="zeros", tol=tol)
    precision, evaluate = [], Objective.values_and_gradient
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Objective,
            "values_and_gradient",
            lambda self, vector: precision.append(self.is_single) or evaluate(self, vector),
        )
        model.fit(X, y)
    last = np.flatnonzero(precision)[-1]
    assert any(precision)
    assert (len(precision) - last > lbfgs.N_JUDGED) == (tol < lbfgs.SINGLE_ROUNDING)
