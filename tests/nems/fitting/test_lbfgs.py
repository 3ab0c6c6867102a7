"""L-BFGS in rounds: against SciPy, bounds, components, and when it stops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime, minimize

from skdyn.core.training import FitDivergedError, Watcher
from skdyn.nems import Layer, Model, Parameter, Phi, from_keywords
from skdyn.nems.fitting import lbfgs
from skdyn.nems.fitting.coordinates import Coordinates
from skdyn.nems.fitting.gradients import layer_not_followed
from skdyn.nems.fitting.lbfgs import (
    EVALUATIONS_PER_ROUND,
    ITERATIONS_PER_LINE,
    LBFGS,
    N_FRUITLESS,
    N_JUDGED,
)
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.preconditioning import step_sizes
from skdyn.nems.fitting.results import NO_PROGRESS, STOPPED
from skdyn.nems.fitting.settings import FitSettings
from skdyn.nems.fitting.trials import Trial, hold_out
from skdyn.nems.losses import LOSSES, FunctionLoss, SquaredError

TEXT = "wc.4x2-fir.3x2-lvl.1-dexp.1"

# A start from which a fit takes more than a round.
SLOW = 3


def recording(n_samples=300, noise=0.1, seed=0, n_outputs=1):
    rng = np.random.default_rng(seed)
    stimulus = rng.standard_normal((n_samples, 4))
    stimulus[1:] += stimulus[:-1]
    drive = stimulus @ rng.standard_normal((4, n_outputs))
    drive[2:] -= 0.5 * drive[:-2]
    target = np.tanh(drive) + noise * rng.standard_normal(drive.shape)
    return [Trial({"input": stimulus}, target, np.ones((n_samples, 1)))]


def make_objective(text=TEXT, trials=None, loss=None, alpha=0.0, seed=0):
    model = Model(from_keywords(text)).sample_from_priors(random_state=seed)
    return Objective(model, trials or recording(), loss or SquaredError(), alpha)


def fit(objective, watcher=Watcher(), **options):  # noqa: B008
    return LBFGS().fit(objective, FitSettings(**options), np.random.RandomState(0), watcher)


def total(objective):
    """The sum over components and its gradient, as SciPy takes them."""

    def value_and_gradient(vector):
        values, gradient = objective.values_and_gradient(vector)
        return values.sum(), gradient

    return value_and_gradient


def falls(history):
    """Whether a loss never rises, except by rounding."""
    return (np.diff(history) <= 1e-12 * np.abs(history[:-1])).all()


# Optimum


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_it_ends_where_scipy_does(loss):
    """On the parameters themselves, of a loss with one minimum."""
    rng = np.random.default_rng(1)
    trials = [replace(t, target=rng.poisson(3 + t.target) * 1.0) for t in recording(n_outputs=2)]
    objective = make_objective("fir.3x4x2-lvl.2-srelu.2", trials, LOSSES[loss](), 1e-3)
    start = objective.model.get_parameter_vector()
    results = fit(objective, tol=1e-13)
    np.testing.assert_array_equal(results.final_parameters, objective.model.get_parameter_vector())
    scipy = minimize(total(objective), start, jac=True, method="L-BFGS-B", options={"ftol": 1e-15})
    expected = objective.with_penalty(objective.error(scipy.x), scipy.x)
    assert results.history[-1] == pytest.approx(expected, rel=1e-8)
    np.testing.assert_allclose(results.final_parameters, scipy.x, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(results.initial_parameters, start)
    assert results.final_error == pytest.approx(objective.error(scipy.x), rel=1e-6)
    assert results.criterion == min(results.history)
    assert falls(results.history)


@pytest.mark.parametrize("n_iterations", [1, EVALUATIONS_PER_ROUND, EVALUATIONS_PER_ROUND + 10])
def test_the_most_iterations_are_counted_over_all_rounds(n_iterations):
    # More than a round, and a curve that leaves much to be found.
    results = fit(make_objective(seed=SLOW), max_iter=n_iterations, tol=0)
    assert results.n_iter == len(results.history) == n_iterations
    assert not results.converged
    assert results.message == f"The loss still fell after max_iter={n_iterations} iterations"
    assert results.n_evaluations >= n_iterations
    assert falls(results.history)


def test_rounds_begin_where_the_one_before_has_ended():
    long = fit(make_objective(seed=SLOW), max_iter=70, tol=0)
    first = make_objective(seed=SLOW)
    short = fit(first, max_iter=EVALUATIONS_PER_ROUND, tol=0)
    rest = fit(first, max_iter=20, tol=0)
    assert long.history == short.history + rest.history
    np.testing.assert_array_equal(long.final_parameters, rest.final_parameters)


def steep_for(n_rounds, monkeypatch):
    """Coordinates that are no good in some rounds, as where the matrix is far from the truth."""
    rounds, as_it_is = [], lbfgs.round_coordinates

    def coordinates(objective, vector, boxed):
        rounds.append(vector.copy())
        if len(rounds) > n_rounds:
            return as_it_is(objective, vector, boxed)
        return Coordinates(vector, np.full(len(vector), 1e-100))

    monkeypatch.setattr(lbfgs, "round_coordinates", coordinates)
    return rounds


def test_a_round_that_leads_nowhere_is_followed_by_another(monkeypatch):
    expected = fit(make_objective())
    rounds = steep_for(1, monkeypatch)
    results = fit(make_objective())
    np.testing.assert_array_equal(rounds[0], rounds[1])
    assert results.converged
    assert results.final_error == pytest.approx(expected.final_error, rel=1e-2)


def test_rounds_that_all_lead_nowhere_end_without_a_minimum(monkeypatch):
    rounds = steep_for(99, monkeypatch)
    results = fit(make_objective())
    assert len(rounds) == N_FRUITLESS + 1
    assert not results.converged
    assert "gradient promises a decrease" in results.message
    assert results.final_error == results.initial_error


def test_where_it_is_stopped_early_the_first_step_is_that_of_scaled_parameters(monkeypatch):
    """Down the gradient, by finite differences, with each parameter in units of its step size."""
    monkeypatch.setattr(lbfgs, "round_coordinates", None)  # not to be called
    objective = make_objective(trials=hold_out(recording(), 0.3, np.random.RandomState(0)))
    start = objective.model.get_parameter_vector()
    sizes = step_sizes(objective, start)
    gradient = approx_fprime(start, objective.value, 1e-7)
    seen, evaluate = [], objective.values_and_gradient
    objective.values_and_gradient = lambda at: seen.append(at.copy()) or evaluate(at)
    fit(objective, early_stopping=True, n_iter_no_change=99, max_iter=1)
    step = (seen[-1] - start) / sizes
    expected = -sizes * gradient
    np.testing.assert_allclose(
        step / np.linalg.norm(step), expected / np.linalg.norm(expected), atol=1e-4
    )


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_outputs_that_share_nothing_are_fitted_as_if_alone(loss):
    """Step for step, in any units of the neighbour."""
    rng = np.random.default_rng(1)
    (trial,) = recording(n_outputs=2)
    target = rng.poisson(3 + trial.target) * np.array([1.0, 100.0])
    layers = "fir.3x4x{0}-lvl.{0}-srelu.{0}"
    both = make_objective(layers.format(2), [replace(trial, target=target)], LOSSES[loss](), 1e-3)
    assert len(both.component_share) == 2
    starts = [p.values for layer in both.model.layers for p in layer.parameters.free]
    together = fit(both, max_iter=15, tol=0)
    found = [p.values for layer in both.model.layers for p in layer.parameters.free]
    for output in range(2):
        one = slice(output, output + 1)
        part = replace(trial, target=target[:, one])
        objective = make_objective(layers.format(1), [part], LOSSES[loss](), 1e-3)
        objective.model.set_parameter_vector(np.concatenate([v[..., one].ravel() for v in starts]))
        alone = fit(objective, max_iter=15, tol=0)
        expected = np.concatenate([v[..., one].ravel() for v in found])
        np.testing.assert_allclose(alone.final_parameters, expected, rtol=1e-6, atol=1e-8)
    assert together.n_iter == 15


def test_nothing_to_fit():
    objective = make_objective()
    objective.model.freeze_layers()
    results = fit(Objective(objective.model, recording(), SquaredError(), 0.0))
    assert results.n_parameters == results.n_iter == 0
    assert results.converged
    assert results.message == "There is nothing to fit."
    assert results.final_error == results.initial_error == results.criterion


def test_a_start_at_the_minimum_stays_there():
    trials = recording()
    model = Model(from_keywords("lvl.4"))
    exact = [replace(trial, target=trial.data["input"]) for trial in trials]
    results = fit(Objective(model, exact, SquaredError(), 0.0))
    assert results.converged
    assert results.final_error == 0


# Bounds


class Line(Layer):
    def initial_parameters(self):
        return Phi(
            Parameter("slope", shape=(4,), bounds=(-0.1, 0.3)),
            Parameter("level", shape=(1,)),
            Parameter("ceiling", shape=(1,), bounds=(-np.inf, 0.7)),
        )

    def evaluate(self, values):
        slope, level, ceiling = self.get_parameter_values()
        return (values @ slope + level + ceiling * values[:, 0] ** 2)[:, None]


@pytest.mark.parametrize("seed", range(8))
def test_bounds_hold_to_the_last_bit(seed):
    """And what lies between them is the best there is, by SciPy on the parameters themselves."""
    rng = np.random.default_rng(seed)
    (trial,) = recording(seed=seed)
    truth = np.array([0.5, -0.5, 0.1, 0.2, 1.0, 2.0]) * rng.uniform(0.3, 3, 6)
    design = np.column_stack([trial.data["input"], np.ones(300), trial.data["input"][:, 0] ** 2])
    target = (design @ truth)[:, None] + 0.1 * rng.standard_normal((300, 1))
    model = Model([Line()])
    model.layers[0].set_parameter_values(slope=rng.uniform(-0.1, 0.3, 4))
    objective = Objective(model, [replace(trial, target=target)], SquaredError(), 0.0)
    low, high = model.get_bounds_vector()
    seen = []
    evaluate = objective.values_and_gradient
    objective.values_and_gradient = lambda at: seen.append(at.copy()) or evaluate(at)
    results = fit(objective, tol=1e-14)
    found = results.final_parameters
    assert all(((low <= at) & (at <= high)).all() for at in [*seen, found])
    scipy = minimize(
        total(objective),
        np.zeros(6),
        jac=True,
        method="L-BFGS-B",
        bounds=np.transpose([low, high]),
        options={"ftol": 1e-15, "gtol": 1e-12},
    )
    np.testing.assert_allclose(found, scipy.x, atol=1e-5)
    at_bound = np.isclose(scipy.x, low, atol=1e-9) | np.isclose(scipy.x, high, atol=1e-9)
    assert at_bound.any()
    assert set(found[at_bound]) <= {-0.1, 0.3, 0.7}


def test_a_start_out_of_bounds_is_put_within():
    model = Model([Line()])
    model.set_parameter_vector(np.array([9.0, 0, 0, -9, 0, 9]), ignore_bounds=True)
    results = fit(Objective(model, recording(), SquaredError(), 0.0), max_iter=1)
    np.testing.assert_array_equal(results.initial_parameters, [0.3, 0, 0, -0.1, 0, 0.7])


# When it stops


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_it_stops_at_the_first_five_iterations_of_too_little_progress(tol, unit):
    trials = [replace(trial, target=unit * trial.target) for trial in recording()]
    objective = make_objective("fir.3x4-lvl.1-srelu.1", trials, alpha=1e-3)
    first = objective.with_penalty(
        objective.error(objective.model.get_parameter_vector()),
        objective.model.get_parameter_vector(),
    )
    results = fit(objective, tol=tol)
    steps = steps_of(first, results.history)
    # The loss of a constant prediction: the variance.
    progress = -np.subtract(steps[N_JUDGED:], steps[:-N_JUDGED])
    enough = progress / N_JUDGED > tol * trials[0].target.var()
    assert not enough[-1]
    # New rounds are tried if the gradient predicts more progress than the tolerance.
    n_more = 0 if tol < 1e-3 else N_FRUITLESS
    assert (~enough).sum() <= 1 + n_more
    assert results.converged
    assert results.message == NO_PROGRESS


def steps_of(first, history):
    """Losses after the evaluations that were accepted: the others repeat the one before."""
    return np.array(history)[np.diff([first, *history]) != 0]


def test_progress_is_judged_over_the_ends_of_rounds(monkeypatch):
    """A restarted round does not count as one without progress."""
    monkeypatch.setattr(lbfgs, "EVALUATIONS_PER_ROUND", 8)
    results = fit(make_objective(), tol=1e-7)
    assert results.message == NO_PROGRESS
    assert results.n_iter > 3 * 8
    steps = steps_of(results.initial_error, results.history)
    progress = -np.subtract(steps[N_JUDGED:-1], steps[: -N_JUDGED - 1])
    assert (progress / N_JUDGED > 1e-7 * recording()[0].target.var()).all()


@pytest.mark.parametrize("patience", [1, 3])
def test_early_stopping_keeps_the_best(patience):
    """Few rows and many parameters, so that the held-out loss finally increases."""
    trials = hold_out(recording(80, noise=1.0), 0.3, np.random.RandomState(0))
    objective = make_objective("fir.8x4-lvl.1-dexp.1", trials)
    results = fit(objective, early_stopping=True, n_iter_no_change=patience, tol=0)
    watched = results.held_out_history
    best = int(np.argmin(watched))
    assert results.n_iter == len(watched) == len(results.history) == best + patience + 1
    assert results.converged
    assert results.message == "The held-out loss does not fall any more."
    assert results.criterion == watched[best]
    found = results.final_parameters
    assert objective.held_out_error(found) == pytest.approx(watched[best], rel=1e-12)
    np.testing.assert_array_equal(objective.model.get_parameter_vector(), found)
    # No stretch of iterations before had gone on for so long without progress.
    stale = [n - int(np.argmin(watched[: n + 1])) for n in range(len(watched))]
    assert max(stale[:-1]) < patience
    # Without early stopping the fit continues, and the held-out loss is larger.
    other = make_objective("fir.8x4-lvl.1-dexp.1", trials)
    without = fit(other)
    assert not without.held_out_history
    assert other.held_out_error(without.final_parameters) > watched[best]


class HeldOutLosses(Objective):
    """Returns made-up held-out losses."""

    values: list

    def held_out_error(self, vector):
        self.seen = [*getattr(self, "seen", []), vector.copy()]
        return self.values[len(self.seen) - 1]


def fit_values(*values, patience=3):
    model = Model(from_keywords(TEXT)).sample_from_priors(random_state=0)
    objective = HeldOutLosses(model, recording(), SquaredError(), 0.0)
    objective.values = values
    return objective, fit(objective, early_stopping=True, n_iter_no_change=patience, tol=0)


def test_early_stopping_counts_from_the_best():
    objective, results = fit_values(5, 4, 4.5, 4.2, 3, 3, 3.1, 3.1, 0)
    assert results.held_out_history == [5, 4, 4.5, 4.2, 3, 3, 3.1, 3.1]
    np.testing.assert_array_equal(results.final_parameters, objective.seen[4])
    assert results.criterion == 3


def test_a_held_out_loss_that_is_no_number_is_never_the_best():
    objective, results = fit_values(5, np.nan, 4, 3, 3.5, 3.5, 3.5, 0)
    np.testing.assert_array_equal(results.final_parameters, objective.seen[3])
    assert results.criterion == 3


def test_a_fit_that_cannot_take_a_step_has_not_converged():
    """Since the loss is no number where the first of them leads to."""

    class Root(Layer):
        def evaluate(self, values):
            return torch.sqrt(values) if torch.is_tensor(values) else values**0.5

    stimulus = np.random.default_rng(0).uniform(0.52, 2, (400, 1))
    model = Model([*from_keywords("wc.1x1-lvl.1"), Root()])
    model.set_parameter_vector(np.array([0.6, 0.3]))
    trial = Trial({"input": stimulus}, np.sqrt(stimulus - 0.5), np.ones((400, 1)))
    with np.errstate(invalid="ignore"):
        results = fit(Objective(model, [trial], SquaredError(), 0.0))
    assert results.final_error < 1e-3 or not results.converged


def test_verbose_prints_progress(capsys):
    options = {"max_iter": EVALUATIONS_PER_ROUND + 1, "tol": 0}
    fit(make_objective(seed=SLOW), **options)
    assert not capsys.readouterr().out
    results = fit(make_objective(seed=SLOW), verbose=1, **options)
    lines = capsys.readouterr().out.splitlines()
    reported = range(1, EVALUATIONS_PER_ROUND + 2, ITERATIONS_PER_LINE)
    assert lines == [f"Iteration {n}, error {results.history[n - 1]:.6g}" for n in reported]


def test_a_watcher_sees_each_iteration_and_may_end_it():
    class Third(Watcher):
        def __init__(self):
            self.begun, self.seen = 0, []

        def begin(self):
            self.begun += 1

        def end(self, numbers, weights):
            self.seen.append((numbers["loss"], weights.copy()))
            return len(self.seen) == 3

    watcher = Third()
    results = fit(make_objective(), watcher, tol=0)
    assert watcher.begun == len(watcher.seen) == results.n_iter == 3
    assert results.history == [loss for loss, _ in watcher.seen]
    np.testing.assert_array_equal(results.final_parameters, watcher.seen[-1][1])
    assert results.stopped
    assert not results.converged
    assert results.message == STOPPED


def test_a_start_where_the_loss_is_not_finite_is_refused():
    class Inverse(Layer):
        def evaluate(self, values):
            return 1 / values

    model = Model([*from_keywords("wc.4x1"), Inverse()])
    model.set_parameter_vector(np.zeros(4))
    with pytest.raises(FitDivergedError, match="The loss is not finite where the fit starts"):
        fit(Objective(model, recording(), SquaredError(), 0.0))


def test_a_start_where_the_gradient_is_not_finite_is_refused():
    """A root of zero: of the mean square of no errors at all."""

    def root(target, prediction, weight):
        return (weight * (prediction - target) ** 2).mean().sqrt()

    exact = [replace(trial, target=trial.data["input"]) for trial in recording()]
    objective = Objective(Model(from_keywords("lvl.4")), exact, FunctionLoss(root), 0.0)
    with pytest.raises(FitDivergedError, match="The gradient of the loss is not finite where"):
        fit(objective)


# Gradients


def test_parameters_are_looked_at_where_the_data_are():
    places = []

    class Noting(Layer):
        def initial_parameters(self):
            return Phi(Parameter("a"))

        def evaluate(self, values):
            (a,) = self.get_parameter_values()
            if torch.is_tensor(a):
                places.append((a.device, values.device))
            return a * values

    device = torch.device("meta")
    objective = Objective(
        Model([Noting()]), recording(n_outputs=4), SquaredError(), reach=np.ones((4, 1), bool)
    )
    objective.device = device
    objective.groups = [
        replace(
            group,
            target=group.target.to(device),
            weight=group.weight.to(device),
        )
        for group in objective.groups
    ]
    layer_not_followed(objective, np.zeros(1))
    assert set(places) == {(device, device)}


def test_numeric_gradients_end_at_the_same_point_within_bounds():
    class InNumPy(Layer):
        def evaluate(self, values):
            return np.interp(values, [-99, 99], [-99, 99])

    found = []
    for layers in ([Line()], [Line(), InNumPy()]):
        objective = Objective(Model(layers), recording(), SquaredError(), 0.0)
        if len(layers) == 1:
            found.append(fit(objective, tol=1e-12))
        else:
            with pytest.warns(UserWarning, match="torch cannot follow the layer 'InNumPy'"):
                found.append(fit(objective, tol=1e-12))
    exact, numeric = found
    assert exact.exact_gradients
    assert not numeric.exact_gradients
    np.testing.assert_allclose(numeric.final_parameters, exact.final_parameters, atol=1e-4)
    low, high = Model([Line()]).get_bounds_vector()
    assert ((low <= numeric.final_parameters) & (numeric.final_parameters <= high)).all()
