"""Closed-form solution of models that are linear in their parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigh
from scipy.linalg.lapack import dpocon

from skdyn.nems.fitting.moments import (
    LaggedMoments,
    lagged_moments,
    lagged_products,
    lagged_sums,
)
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.results import FitResults
from skdyn.nems.fitting.trials import Trial
from skdyn.nems.model import INPUT, Model

# Smallest eigenvalue, relative to the largest and per column, that is not rounding error.
SINGULAR = 1e-15

# Reciprocal condition number that costs six of sixteen digits; below it, a solution is refined up
# to this number of times, until this tolerance.
WELL_CONDITIONED, N_REFINEMENTS, SMALL_STEP = 1e-6, 3, 1e-9


def solve_linear(objective: Objective) -> FitResults:
    """Set a linear model, see `is_linear`, to the minimum of its squared error.

    The minimum for an output of weight W solves (X' W X + tr(W) P / 2) h = X' W y, where X is the
    lagged stimulus, centred if there is a level, and P is alpha times the identity, or the penalty
    matrix of the layer. If X' W X is singular and P is zero, h is the minimum-norm solution.

    Parameters
    ----------
    objective : Objective
        The loss; its model is changed.

    Returns
    -------
    FitResults
        The result, of one iteration.
    """
    model = objective.model
    start = model.get_parameter_vector()
    filter_, *levels = model.layers
    n_lags, n_channels, n_outputs = filter_.filter_sizes()
    solution, level = np.zeros((n_lags * n_channels, n_outputs)), np.zeros(n_outputs)
    loads = _loads(objective, solution.shape)
    trials = [_from_first_lag(trial, filter_.first_lag) for trial in objective.trials]
    for outputs, part in _by_weight(trials):
        solution[:, outputs], level[outputs] = _solve(part, n_lags, loads[outputs], bool(levels))
    filter_["coefficients"] = solution.reshape(filter_["coefficients"].shape)
    if levels:
        levels[0][levels[0].level] = level
    found = model.get_parameter_vector()
    initial_error, final_error = objective.error(start), objective.error(found)
    return FitResults(
        initial_parameters=start,
        final_parameters=found,
        initial_error=initial_error,
        final_error=final_error,
        n_iter=1,
        n_evaluations=objective.n_evaluations,
        converged=True,
        message="Solved in closed form.",
        exact_gradients=True,
        history=[objective.with_penalty(final_error, found)],
    )


@dataclass(frozen=True)
class LinearCurvature:
    """Second derivatives of the squared error of one output of a linear model.

    Attributes
    ----------
    matrix : ndarray of shape (n_values, n_values)
        Second derivatives of the mean of squares; outputs with the same weights share it.
    places : ndarray of int of shape (n_values,)
        Indices of the values in the model, in the order of the matrix.
    """

    matrix: np.ndarray
    places: np.ndarray


def linear_curvature(objective: Objective) -> list[LinearCurvature]:
    """Return second derivatives of each output's loss of a linear model, see `is_linear`.

    Parameters
    ----------
    objective : Objective
        The loss of squared errors.

    Returns
    -------
    list of LinearCurvature
        One per output.
    """
    filter_, *levels = objective.model.layers
    n_lags, n_channels, n_outputs = filter_.filter_sizes()
    n_values = n_lags * n_channels
    places = np.arange(n_values * n_outputs).reshape(n_values, n_outputs)
    if levels:
        places = np.vstack([places, n_values * n_outputs + np.arange(n_outputs)])
    trials = [_from_first_lag(trial, filter_.first_lag) for trial in objective.trials]
    found: list[LinearCurvature] = []
    for outputs, part in _by_weight(trials):
        matrix = np.zeros((n_values, n_values))
        mean = np.zeros(n_values)
        if any(trial.weight.any() for trial in part):
            moments = lagged_moments(part, n_lags)
            mean = moments.stimulus_mean
            matrix = moments.stimulus + np.outer(mean, mean)
        if levels:
            matrix = np.block([[matrix, mean[:, np.newaxis]], [mean, np.ones(1)]])
        found += [LinearCurvature(2 * matrix, own) for own in places.T[outputs]]
    return found


def _loads(objective: Objective, shape: tuple[int, int]) -> list[np.ndarray]:
    """Return half the penalty of each output: a scalar, or a matrix for coupled values."""
    filter_ = objective.model.layers[0]
    n_values, n_outputs = shape
    if not filter_.penalties:
        alpha = objective.alpha if filter_.l2 is None else np.full(n_outputs, filter_.l2)
        return list(alpha / 2)
    coupling = objective.coupling
    assert coupling is not None
    places = np.arange(n_values * n_outputs).reshape(shape)
    # Both are multiplied by the weight of their output in the loss of the model.
    counts = np.where(objective.counts > 0, objective.counts, 1.0)
    return [
        (np.diag(objective.penalty[own]) + coupling[own][:, own].toarray()) / (2 * counts[own[0]])
        for own in places.T
    ]


def is_linear(model: Model, trials: Sequence[Trial]) -> bool:
    """Return whether a model is an unconstrained filter of the stimulus, with or without a level.

    Parameters
    ----------
    model : Model
        The model, with known sizes of all layers.
    trials : sequence of Trial
        The trials to predict.

    Returns
    -------
    bool
        Whether the squared error can be minimised in closed form.
    """
    data = trials[0].data
    if not model.layers or set(data) != {INPUT} or data[INPUT].ndim != 2:
        return False
    filter_, *levels = model.layers
    n_outputs = trials[0].target.shape[1]
    low, high = model.get_bounds_vector()
    return (
        filter_.filter_sizes() is not None
        and filter_.filter_sizes()[1:] == (data[INPUT].shape[1], n_outputs)
        and "coefficients" in (filter_.penalised or ())
        and filter_.input in (None, INPUT)
        and len(levels) < 2
        and all(layer.level and layer.input is None for layer in levels)
        and not any(layer.penalised or layer.penalties for layer in levels)
        and all(layer[layer.level].size == n_outputs for layer in levels)
        and not any(p.is_frozen for layer in model.layers for p in layer.parameters.values())
        and not (np.isfinite(low).any() or np.isfinite(high).any())
    )


def _from_first_lag(trial: Trial, first_lag: int) -> Trial:
    """Shift the stimulus of a trial in time, so that the first lag of a filter is 0."""
    if first_lag == 0:
        return trial
    stimulus, target, weight = trial.data[INPUT], trial.target, trial.weight
    gap = np.zeros((abs(first_lag), stimulus.shape[1]))
    if first_lag > 0:
        stimulus = np.concatenate([gap, stimulus])[: len(stimulus)]
    else:
        # The whole stimulus is kept; rows of the response with zero weight are prepended.
        stimulus = np.concatenate([stimulus, gap])
        target, weight = (
            np.concatenate([np.zeros((len(gap), one.shape[1])), one]) for one in (target, weight)
        )
    return Trial({INPUT: stimulus}, target, weight)


def _by_weight(trials: Sequence[Trial]) -> Iterator[tuple[slice, Sequence[Trial]]]:
    """Yield outputs with the same weights, and trials of these outputs only."""
    if all(trial.weight.shape[1] == 1 for trial in trials):
        yield slice(None), trials
        return
    for output in range(trials[0].target.shape[1]):
        one = slice(output, output + 1)
        yield (
            one,
            [
                replace(trial, target=trial.target[:, one], weight=trial.weight[:, one])
                for trial in trials
            ],
        )


def _solve(trials: Sequence[Trial], n_lags: int, loads: list[np.ndarray], has_level: bool):
    """Solve least squares for outputs with the same weights and separate penalties."""
    if not any(trial.weight.any() for trial in trials):
        return 0.0, 0.0
    moments = lagged_moments(trials, n_lags, centred=has_level)
    solution = np.zeros_like(moments.response)
    alike: dict[bytes, list[int]] = {}
    for output, load in enumerate(loads):
        alike.setdefault(load.tobytes(), []).append(output)
    for outputs in alike.values():
        load = loads[outputs[0]]
        matrix = load if load.ndim else load * np.eye(len(solution))
        solution[:, outputs] = _solve_alike(trials, moments, np.array(outputs), matrix)
    return solution, moments.response_mean - moments.stimulus_mean @ solution


def _solve_alike(
    trials: Sequence[Trial], moments: LaggedMoments, outputs: np.ndarray, load: np.ndarray
) -> np.ndarray:
    """Solve least squares for outputs with the same weights and the same penalty."""
    total = sum(trial.weight.mean(axis=1).sum() for trial in trials)
    matrix = moments.stimulus + load
    solve, share = _solver(matrix)
    # Digits lost in the subtraction of means.
    variance, square = np.diag(matrix), moments.stimulus_mean**2
    share *= np.min(variance / np.where(variance + square > 0, variance + square, 1), initial=1)
    solution = solve(moments.response[:, outputs])
    for _ in range(N_REFINEMENTS if share < WELL_CONDITIONED else 0):
        # Normal equations square the condition number, hence the iterative refinement.
        left = _gradient(trials, moments, outputs, solution) / total
        step = solve(left - load @ solution)
        solution = solution + step
        if np.abs(step).max() <= SMALL_STEP * np.abs(solution).max():
            break
    return solution


def _gradient(
    trials: Sequence[Trial], moments: LaggedMoments, outputs: np.ndarray, solution: np.ndarray
) -> np.ndarray:
    """Return products of the residual response with the centred, lagged stimulus."""
    level = moments.response_mean[outputs] - moments.stimulus_mean @ solution
    total = np.zeros_like(solution)
    for trial in trials:
        stimulus = np.asarray(trial.data[INPUT], dtype=float)
        left = trial.target[:, outputs] - lagged_sums(stimulus, solution, moments.n_lags) - level
        left = left * trial.weight.mean(axis=1, keepdims=True)
        total += lagged_products(stimulus, left, moments.n_lags)
        total -= np.outer(moments.stimulus_mean, left.sum(axis=0))
    return total


def _solver(matrix: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """Return a solver for a positive matrix, or for the minimum-norm solution if it is singular.

    Also return an estimate of the reciprocal condition number, 0 for a singular matrix.
    """
    try:
        factor = cho_factor(matrix)
        share, _ = dpocon(factor[0], np.abs(matrix).sum(axis=0).max())
        if share > SINGULAR * len(matrix):
            return lambda right: cho_solve(factor, right), share
    except LinAlgError:
        pass
    values, vectors = eigh(matrix)
    keep = values > SINGULAR * len(matrix) * values.max(initial=0)
    values, vectors = values[keep], vectors[:, keep]
    return lambda right: vectors @ ((vectors.T @ right) / values[:, np.newaxis]), 0.0
