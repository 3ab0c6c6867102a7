"""Sizes of steps, by brute force and in other units."""

import numpy as np
import pytest

from skdyn.nems import Model, from_keywords
from skdyn.nems.fitting import preconditioning
from skdyn.nems.fitting.lbfgs import LBFGS
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.preconditioning import (
    DAMPING,
    MOST_USUAL,
    round_coordinates,
    step_sizes,
    usual_sizes,
)
from skdyn.nems.fitting.settings import FitSettings
from skdyn.nems.fitting.trials import Trial
from skdyn.nems.losses import Poisson, SquaredError

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


# Step sizes


def rms_change(model, trials, vector, place, size, n_draws=4000):
    """Change of each output, if all entries of an array change at random by a small size."""
    rng, before = np.random.default_rng(0), None
    small, total = 1e-4, 0.0
    before = np.concatenate([model.predict(trial.data) for trial in trials])
    for _ in range(n_draws):
        moved = vector.copy()
        moved[place] += small * size[place] * rng.standard_normal(place.stop - place.start)
        model.set_parameter_vector(moved, ignore_bounds=True)
        after = np.concatenate([model.predict(trial.data) for trial in trials])
        total = total + np.mean((after - before) ** 2, axis=0) / small**2 / n_draws
    model.set_parameter_vector(vector, ignore_bounds=True)
    return np.sqrt(total)


def test_steps_change_predictions_by_about_what_responses_vary(monkeypatch):
    """By brute force; with many random signs the estimate is exact."""
    monkeypatch.setattr(preconditioning, "N_PROBES", 400)
    objective, vector = make_objective("fir.3x4x2-lvl.2", 2)
    sizes = step_sizes(objective, vector)
    assert sizes.shape == vector.shape
    places = [slice(0, 24), slice(24, 26)]
    changes = [rms_change(objective.model, objective.trials, vector, p, sizes, 500) for p in places]
    for change in changes:
        np.testing.assert_allclose(change / objective.sizes.typical, np.sqrt(2), rtol=0.15)


def test_step_sizes_follow_the_units_of_stimulus_and_response():
    found = []
    for x_unit, y_unit in ((1, 1), (1e-3, 1), (1, 1e3)):
        trials = [
            Trial({"input": x_unit * t.data["input"]}, y_unit * t.target, t.weight)
            for t in make_trials(2)
        ]
        model = make_model("fir.3x4x2-lvl.2")
        found.append(step_sizes(Objective(model, trials, SquaredError()), np.zeros(26)))
    np.testing.assert_allclose(found[1][:24], 1e3 * found[0][:24], rtol=1e-9)
    np.testing.assert_allclose(found[1][24:], found[0][24:], rtol=1e-9)
    np.testing.assert_allclose(found[2], 1e3 * found[0], rtol=1e-9)


def test_steps_of_what_does_nothing_or_has_no_unit_are_near_the_usual():
    objective, vector = make_objective("wc.4x3-relu.3.o", 3)
    vector[:] = np.abs(vector)
    for trial in objective.trials:
        trial.data["input"] *= 0
    sizes, usual = step_sizes(objective, vector), usual_sizes(objective, vector)
    np.testing.assert_array_equal(sizes[:12], usual[:12])  # nothing comes in
    objective, vector = make_objective("wc.4x1-fir.3x1-dexp.1", 1)
    sizes, usual = step_sizes(objective, vector), usual_sizes(objective, vector)
    unit_free = preconditioning._unit_free(objective.model)
    assert (sizes > 0).all()
    assert (sizes[unit_free] <= MOST_USUAL * usual[unit_free]).all()
