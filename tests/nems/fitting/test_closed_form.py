"""Closed forms of linear models, against scikit-learn's ridge and NumPy's least squares."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge

from skdyn.nems import Model, from_keywords
from skdyn.nems.fitting.closed_form import is_linear, solve_linear
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.run import DEFAULTS, fit_trials
from skdyn.nems.fitting.trials import Trial
from skdyn.nems.losses import SquaredError

# A model, how many lags it has, and how many outputs.
MODELS = [
    ("fir.3x4-lvl.1", 3, 1),
    ("fir.3x4x2-lvl.2", 3, 2),
    ("fir.3x4", 3, 1),
    ("fir.3x4x2", 3, 2),
    ("wc.4x2-lvl.2", 1, 2),
    ("wc.4x1", 1, 1),
    ("strf.4x3", 3, 1),
    ("strf.4x3-lvl.1", 3, 1),
]


def smooth(n_samples, seed):
    """Four channels, correlated in time and with each other, and not around zero."""
    noise = np.random.default_rng(seed).standard_normal((n_samples + 2, 6))
    noise = noise[2:] + noise[1:-1] + 0.5 * noise[:-2]
    return 0.7 + noise[:, :4] + noise[:, 1:5]


def make_trials(n_outputs=1, lengths=(80, 60, 2), weights=None, seed=0):
    rng = np.random.default_rng(seed)
    trials = []
    for number, n in enumerate(lengths):
        target = rng.standard_normal((n, n_outputs)) + 3
        weight = rng.uniform(0, 2, (n, weights)) if weights else np.ones((n, 1))
        trials.append(Trial({"input": smooth(n, number)}, target, weight))
    return trials


def fit(model, trials, **options):
    """A fitted copy."""
    return fit_trials(model, trials, {**DEFAULTS, "init": "given", "history": "zeros", **options})


def solve(text, trials, alpha=0.0):
    """The solution (n_lags * n_channels + 1, n_outputs), the level last, and the objective."""
    model = Model(from_keywords(text))
    objective = Objective(model, trials, SquaredError(), alpha)
    assert is_linear(model, trials)
    solve_linear(objective)
    n_outputs = trials[0].target.shape[1]
    filter_, *shifts = model.layers
    values = filter_["coefficients"].values.reshape(-1, n_outputs)
    level = shifts[0]["shift"].values if shifts else np.zeros(n_outputs)
    return np.vstack([values, level]), objective


def data_of(trials, n_lags):
    """All lags written out, responses and weights of all numbers."""
    designs = []
    for trial in trials:
        padded = np.vstack([np.zeros((n_lags - 1, 4)), trial.data["input"]])
        ends = range(n_lags - 1, -1, -1)
        designs.append(np.hstack([padded[end : end + len(trial.target)] for end in ends]))
    target, weight = (np.concatenate([getattr(t, k) for t in trials]) for k in ("target", "weight"))
    return np.concatenate(designs), target, np.broadcast_to(weight, target.shape)


def ridge(trials, n_lags, has_level, alpha):
    """One output after the other, the penalty as Ridge counts it."""
    design, target, weight = data_of(trials, n_lags)
    columns = []
    for output in range(target.shape[1]):
        # The mean is one over the numbers of this output, and the sum of squares is not halved.
        found = Ridge(alpha * weight[:, output].sum() / 2, fit_intercept=has_level, solver="svd")
        found.fit(design, target[:, output], sample_weight=weight[:, output])
        columns.append([*found.coef_, found.intercept_])
    return np.transpose(columns)


@pytest.mark.parametrize(("text", "n_lags", "n_outputs"), MODELS)
@pytest.mark.parametrize("weights", ["none", "rows", "outputs"])
@pytest.mark.parametrize("alpha", [0.0, 0.05])
def test_solutions_are_those_of_ridge(text, n_lags, n_outputs, weights, alpha):
    columns = {"none": None, "rows": 1, "outputs": n_outputs}[weights]
    trials = make_trials(n_outputs, weights=columns)
    found, objective = solve(text, trials, alpha)
    expected = ridge(trials, n_lags, "lvl" in text, alpha)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    # The solution is a minimum of the objective of the other solvers.
    _, gradient = objective.values_and_gradient(objective.model.get_parameter_vector())
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_alpha_is_that_of_ridge_over_half_of_all_samples():
    """r = alpha n_samples / 2, for each output."""
    trials = make_trials(2)
    design, target, _ = data_of(trials, 3)
    found, _ = solve("fir.3x4x2-lvl.2", trials, alpha=2 * 7.0 / len(target))
    expected = Ridge(7.0).fit(design, target)
    np.testing.assert_allclose(found[:-1], expected.coef_.T, rtol=1e-9)
    np.testing.assert_allclose(found[-1], expected.intercept_, rtol=1e-9)


def test_the_penalty_of_a_layer_stands_in_for_alpha():
    trials = make_trials()
    found, _ = solve("fir.3x4.l2:1-lvl.1", trials, alpha=5.0)
    np.testing.assert_allclose(found, ridge(trials, 3, True, 0.1), rtol=1e-9)


@pytest.mark.parametrize("text", ["wc.4x1", "fir.3x4", "fir.3x4-lvl.1"])
@pytest.mark.parametrize("n_samples", [6, 300, 20_000])
def test_of_many_solutions_the_shortest_is_taken(text, n_samples):
    (trial,) = make_trials(lengths=(n_samples,))
    stimulus = trial.data["input"]
    stimulus[:, 3] = stimulus[:, 0] - 0.3 * stimulus[:, 1]
    n_lags, has_level = 1 if text.startswith("wc") else 3, "lvl" in text
    found, _ = solve(text, [trial])
    design, target, _ = data_of([trial], n_lags)
    means = [part.mean(axis=0) * has_level for part in (design, target)]
    expected, *_ = np.linalg.lstsq(design - means[0], target - means[1], rcond=1e-10)
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-7, atol=1e-9)


def test_a_stimulus_without_variance_gives_the_mean():
    stimulus, target = np.full((50, 4), 2.0), np.arange(50.0)[:, np.newaxis]
    for value, text in ((0.0, "fir.3x4-lvl.1"), (2.0, "wc.4x1-lvl.1")):
        trial = Trial({"input": 0 * stimulus + value}, target, np.ones((50, 1)))
        found, _ = solve(text, [trial])
        np.testing.assert_allclose(found[:-1], 0, atol=1e-12)
        assert found[-1] == pytest.approx(24.5)


@pytest.mark.parametrize("condition", [1e1, 1e2, 1e3, 3e3, 1e4, 3e5])
def test_ill_conditioned_stimuli_cost_no_more_than_their_condition(condition):
    """As with least squares on the lags, not the square that moments bring, beyond nine digits."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((n, 4)))[0] for n in (1000, 4))
    stimulus = 30 * left * np.geomspace(1, 1 / condition, 4) @ right.T
    truth = rng.standard_normal((4, 1))
    trial = Trial({"input": stimulus}, stimulus @ truth, np.ones((1000, 1)))
    found, _ = solve("wc.4x1", [trial])
    expected, *_ = np.linalg.lstsq(stimulus, trial.target, rcond=None)
    close = 20 * np.finfo(float).eps * condition
    assert np.abs(expected - truth).max() < close
    assert np.abs(found[:-1] - truth).max() < max(close, 1e-9)


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e6])
def test_the_unit_of_the_stimulus_does_not_matter(unit):
    trials = make_trials()
    scaled = [replace(t, data={"input": unit * t.data["input"]}) for t in trials]
    (plain, _), (found, _) = solve("fir.3x4-lvl.1", trials), solve("fir.3x4-lvl.1", scaled)
    np.testing.assert_allclose(found[:-1] * unit, plain[:-1], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found[-1], plain[-1], rtol=1e-8)


def test_outputs_without_weight_are_zero():
    (trial,) = make_trials(2, lengths=(100,), weights=2)
    trial.weight[:, 1] = 0
    found, _ = solve("fir.3x4x2-lvl.2", [trial])
    np.testing.assert_array_equal(found[:, 1], 0)
    alone = Trial(trial.data, trial.target[:, :1], trial.weight[:, :1])
    np.testing.assert_allclose(found[:, :1], solve("fir.3x4-lvl.1", [alone])[0], rtol=1e-9)


# Nonlinear models need other solvers


def refused(model, trials):
    return not is_linear(model, trials)


@pytest.mark.parametrize(
    ("text", "n_outputs"),
    [
        ("fir.3x4-relu.1", 1),
        ("fir.3x4-lvl.1-lvl.1", 1),
        ("fir.3x4-lvl.1-dexp.1", 1),
        ("lvl.4-fir.3x4", 1),
        ("wc.4x2-fir.3x2", 1),
        ("wc.4x1.n", 1),
        ("wc.4x1.p", 1),
        ("wc.4x2.g", 2),
        ("wc.4x2x1", 2),
        ("fir.3x1x4", 4),
        ("fir.3x4.s2", 1),
        ("strf.4x3.s2", 1),
        ("strf.4x3.relu", 1),
        ("strf.4x3.sk50", 1),
        ("strf.4x1x3", 1),
        ("fir.3x4", 2),
        ("fir.3x5", 1),
    ],
)
def test_other_models_are_not_touched(text, n_outputs):
    assert refused(Model(from_keywords(text)), make_trials(n_outputs))


def test_what_is_held_is_not_touched():
    for change in (
        lambda model: model.layers["fir"].freeze_parameters(),
        lambda model: model.layers["lvl"].freeze_parameters(),
        lambda model: model.layers["fir"].set_bounds(coefficients=(-9, np.inf)),
        lambda model: model.layers["lvl"].set_bounds(shift=(-np.inf, 9)),
        lambda model: setattr(model.layers["fir"], "input", "other"),
        lambda model: setattr(model.layers["lvl"], "input", "input"),
    ):
        model = Model(from_keywords("fir.3x4-lvl.1"))
        assert not refused(model.copy(), make_trials())
        change(model)
        assert refused(model, make_trials())


def test_other_data_are_not_touched():
    model, trials = Model(from_keywords("fir.3x4-lvl.1")), make_trials()
    stimulus = trials[0].data["input"]
    for data in ({"sound": stimulus}, {"input": stimulus, "state": stimulus}):
        assert refused(model, [replace(trials[0], data=data)])
    banks = np.stack([stimulus] * 2, axis=2)
    assert refused(Model(from_keywords("fir.3x4x2")), [replace(trials[0], data={"input": banks})])
    assert refused(Model(), trials)


# In a fit


@pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning")
def test_a_fit_takes_the_closed_form_where_it_holds():
    trials = make_trials()

    def message(**options):
        return fit(Model(from_keywords("fir.3x4-lvl.1")), trials, **options).results.message

    assert message() == "Solved in closed form."
    assert message(max_iter=1) == "Solved in closed form."
    assert "still fell" in message(solver="adam", max_iter=2)
    assert "closed form" not in message(early_stopping=True)
    counts = [replace(trial, target=np.abs(trial.target)) for trial in trials]
    poisson = fit(Model(from_keywords("fir.3x4-lvl.1")), counts, loss="poisson", max_iter=3)
    assert "closed form" not in poisson.results.message


def test_what_a_closed_form_tells_of_itself():
    trials = make_trials()
    model = Model(from_keywords("fir.3x4-lvl.1"))
    start = model.get_parameter_vector()
    results = fit(model, trials, alpha=0.1).results
    design, target, _ = data_of(trials, 3)
    design = np.column_stack([design, np.ones(len(design))])
    np.testing.assert_array_equal(results.initial_parameters, start)
    errors = [np.mean((target[:, 0] - design @ v) ** 2) for v in (start, results.final_parameters)]
    assert results.initial_error == pytest.approx(errors[0], rel=1e-12)
    assert results.final_error == pytest.approx(errors[1], rel=1e-12)
    penalty = 0.05 * np.sum(results.final_parameters[:-1] ** 2)
    assert results.history == pytest.approx([errors[1] + penalty], rel=1e-12)
    assert results.criterion == results.history[0]
    assert results.converged
    assert results.n_iter == 1
    assert not results.held_out_history


def test_a_level_shift_of_another_width_is_told_by_the_layer():
    model, trials = Model(from_keywords("fir.3x4x2-lvl.1")), make_trials(2)
    before = model.copy()
    with pytest.raises(ValueError, match="lvl, a LevelShift of shape"):
        fit(model, trials)
    assert model == before


def test_a_large_mean_costs_no_more_than_its_size():
    (trial,) = make_trials(lengths=(1000,))
    far = Trial({"input": 1e6 + trial.data["input"]}, trial.target, trial.weight)
    (near, _), (found, _) = (solve("wc.4x1-lvl.1", [one]) for one in (trial, far))
    np.testing.assert_allclose(found[:-1], near[:-1], atol=1e-8)


def test_penalties_that_someone_has_moved_are_those_of_the_objective():
    model, trials = Model(from_keywords("fir.3x4-lvl.1")), make_trials()
    model.layers["lvl"].penalised = ("shift",)
    model = fit(model, trials, alpha=0.1, tol=1e-14)
    objective = Objective(model, trials, SquaredError(), 0.1)
    _, gradient = objective.values_and_gradient(model.get_parameter_vector())
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
