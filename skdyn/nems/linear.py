"""Models that are linear in their parameters, solved in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigh
from scipy.linalg.lapack import dpocon

from skdyn.nems.layers.base import Layer
from skdyn.nems.layers.channels import WeightChannels
from skdyn.nems.layers.filters import STRF, FiniteImpulseResponse
from skdyn.nems.layers.nonlinearities import LevelShift
from skdyn.nems.moments import LaggedMoments, lagged_moments, lagged_products, lagged_sums
from skdyn.nems.objective import Objective, Trial, squared_error
from skdyn.nems.wiring import INPUT

if TYPE_CHECKING:
    from skdyn.nems.model import Model

# Smallest share of the largest eigenvalue, per column, that is not taken for rounding.
SINGULAR = 1e-15

# Inverse of a condition that costs six digits of sixteen; and how often, and until when, a solution
# is refined that has lost more.
WELL_CONDITIONED, N_REFINEMENTS, SMALL_STEP = 1e-6, 3, 1e-9


def solve_linear(objective: Objective, trials: Sequence[Trial]) -> bool:
    """Set a model to the minimum of its squared error, if it is a filter and perhaps a level shift.

    The minimum solves (X' W X + M alpha / 2) h = X' W y, where X holds the stimulus at all lags,
    less its mean if there is a shift, W the weights, and M is the sum of the weights of all
    outputs. Where X' W X is singular and alpha is zero, h is the shortest of all solutions.

    Parameters
    ----------
    objective : Objective
        The loss; its model changes.
    trials : sequence of Trial
        What it was made of.

    Returns
    -------
    bool
        Whether the model was of that kind.
    """
    model = objective.model
    if objective.loss is not squared_error or not is_linear(model, trials):
        return False
    filter_, *shifts = model.layers
    n_lags, n_channels, n_outputs = _shape(filter_)
    solution, level = np.zeros((n_lags * n_channels, n_outputs)), np.zeros(n_outputs)
    total = sum(trial.weight.mean() * trial.target.size for trial in trials)
    load = total * objective.penalty[0] / 2  # of the filter, whose parameters come first
    for outputs, part in _by_weight(trials):
        solution[:, outputs], level[outputs] = _solve(part, n_lags, load, bool(shifts))
    filter_["coefficients"] = solution.reshape(filter_["coefficients"].shape)
    if shifts:
        shifts[0]["shift"] = level
    return True


def is_linear(model: Model, trials: Sequence[Trial]) -> bool:
    """Tell whether a model is a filter of the stimulus, free to take any values, and a shift.

    Parameters
    ----------
    model : Model
        The model; its layers know their sizes.
    trials : sequence of Trial
        What it is to predict.

    Returns
    -------
    bool
        Whether its squared error has a minimum in closed form.
    """
    data = trials[0].data
    if not model.layers or set(data) != {INPUT} or data[INPUT].ndim != 2:
        return False
    filter_, *shifts = model.layers
    kinds = [type(layer) for layer in model.layers]
    low, high = model.get_bounds_vector()
    return (
        kinds[0] in (WeightChannels, FiniteImpulseResponse, STRF)
        and kinds[1:] in ([], [LevelShift])
        and filter_.input in (None, INPUT)
        and all(layer.input is None and not layer.is_skipped for layer in shifts)
        and not any(layer.penalised for layer in shifts)
        and all(layer["shift"].size == trials[0].target.shape[1] for layer in shifts)
        and not any(p.is_frozen for layer in model.layers for p in layer.parameters.values())
        and not (np.isfinite(low).any() or np.isfinite(high).any())
        and _is_plain(filter_)
        and _shape(filter_)[1:] == (data[INPUT].shape[1], trials[0].target.shape[1])
    )


def _is_plain(layer: Layer) -> bool:
    """Tell whether each output of a layer sees all channels, and nothing is done to them."""
    shape: tuple = layer.shape or ()
    if isinstance(layer, WeightChannels):
        return len(shape) == 2 and not layer.norm_coefficients
    if isinstance(layer, STRF):
        return len(shape) == 2 and not (layer.activation or layer.skip_alpha or layer.stride > 1)
    assert isinstance(layer, FiniteImpulseResponse)
    # With one rank, each filter has a channel of its own, unless there is one channel.
    own = len(shape) == 3 and shape[1] == 1 and shape[2] > 1
    return not (own or layer.stride > 1 or layer.include_anticausal)


def _shape(layer: Layer) -> tuple[int, int, int]:
    """Numbers of lags, channels and outputs."""
    shape: tuple = layer.shape or ()
    if isinstance(layer, WeightChannels):
        return 1, shape[0], shape[1]
    if isinstance(layer, STRF):
        return shape[1], shape[0], 1
    return shape[0], shape[1], shape[2] if len(shape) == 3 else 1


def _by_weight(trials: Sequence[Trial]):
    """Outputs with the same weights, and the trials of these alone."""
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


def _solve(trials: Sequence[Trial], n_lags: int, load: float, has_level: bool):
    """Least squares of outputs with the same weights."""
    total = sum(trial.weight.mean(axis=1).sum() for trial in trials)
    if not total:
        return 0.0, 0.0
    moments = lagged_moments(trials, n_lags, centred=has_level)
    matrix = moments.stimulus + load / total * np.eye(len(moments.stimulus))
    solve, share = _solver(matrix)
    # Digits that were lost when means were subtracted.
    variance, square = np.diag(matrix), moments.stimulus_mean**2
    share *= np.min(variance / np.where(variance + square > 0, variance + square, 1), initial=1)
    solution = solve(moments.response)
    for _ in range(N_REFINEMENTS if share < WELL_CONDITIONED else 0):
        # Normal equations square the condition, so what a solution leaves is solved again.
        step = solve(_gradient(trials, moments, solution) / total - load / total * solution)
        solution = solution + step
        if np.abs(step).max() <= SMALL_STEP * np.abs(solution).max():
            break
    return solution, moments.response_mean - moments.stimulus_mean @ solution


def _gradient(trials: Sequence[Trial], moments: LaggedMoments, solution: np.ndarray) -> np.ndarray:
    """Products of what is left of the response with the stimulus at all lags, less its mean."""
    level = moments.response_mean - moments.stimulus_mean @ solution
    total = np.zeros_like(solution)
    for trial in trials:
        stimulus = np.asarray(trial.data[INPUT], dtype=float)
        left = trial.target - lagged_sums(stimulus, solution, moments.n_lags) - level
        left = left * trial.weight
        total += lagged_products(stimulus, left, moments.n_lags)
        total -= np.outer(moments.stimulus_mean, left.sum(axis=0))
    return total


def _solver(matrix: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """Solve with a positive matrix, or for the shortest solution where it is singular.

    Also gives about the inverse of the condition, 0 for a singular one.
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
