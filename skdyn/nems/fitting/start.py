"""Where a fit starts: a linear filter of few ranks, and an output nonlinearity that goes with it.

From the means of their priors, models of several neurons stall where all filters are alike. But
what comes before the nonlinearity is linear in the stimulus of the last lags,

    y[t, n] = sum_k v[k, n] sum_l f[l, k] sum_c w[c, k] x[t - l, c],

and linear in each of f, w and v while the other two are held. Its squared error depends on the
data through the covariance of the lagged stimulus, G, and that with the response alone, so that
alternating least squares (Kroonenberg & de Leeuw 1980, Psychometrika 45, 69-97) takes milliseconds
whatever the length of the recording.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from skdyn.nems.fitting.moments import LaggedMoments, lagged_moments
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.results import Solver
from skdyn.nems.fitting.settings import FitSettings
from skdyn.nems.fitting.trials import Trial
from skdyn.nems.layers.base import Layer
from skdyn.nems.layers.channels import WeightChannels
from skdyn.nems.layers.filters import FiniteImpulseResponse
from skdyn.nems.layers.nonlinearities import DoubleExponential, StaticNonlinearity
from skdyn.nems.model import INPUT, OUTPUT, Model

# What it takes to fit an output nonlinearity alone well enough for a start.
START_ITERATIONS, START_TOL = 60, 1e-4

# Ridge, relative to the mean of the diagonal.
RIDGE = 1e-3

# Rounds of alternating least squares.
N_ROUNDS = 15

# Percentiles of a response between which an output nonlinearity goes.
TAILS = (2, 99)


def _ridge(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    load = RIDGE * np.trace(matrix) / len(matrix)
    load = load if load > 0 else 1.0
    return np.linalg.solve(matrix + load * np.eye(len(matrix)), right)


def _solve(moments: LaggedMoments, basis: np.ndarray, output=slice(None)) -> np.ndarray:
    """Least squares in a basis (n_lags * n_channels, n_columns): weights of its columns."""
    return _ridge(basis.T @ moments.stimulus @ basis, basis.T @ moments.response[:, output])


def factor(moments: LaggedMoments, n_factors: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sum of separable filters with the least squared error, its factors shared by all outputs.

    Parameters
    ----------
    moments : LaggedMoments
        What the data say.
    n_factors : int
        How many filters.

    Returns
    -------
    filters : ndarray of shape (n_lags, n_factors)
        f, of norm one.
    channels : ndarray of shape (n_channels, n_factors)
        w, of norm one.
    weights : ndarray of shape (n_factors, n_outputs)
        v.
    """
    n_outputs = moments.response.shape[1]
    if n_outputs == 1:
        return _separable(moments, 0, n_factors)
    n_each = math.ceil(n_factors / n_outputs)
    found = [_separable(moments, output, n_each)[:2] for output in range(n_outputs)]
    filters, channels = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    chosen = _choose(moments, _products(filters, channels), n_factors)
    filters, channels = filters[:, chosen], channels[:, chosen]
    for _ in range(N_ROUNDS):
        weights = _solve(moments, _products(filters, channels))
        filters, channels = _one_round(moments, slice(None), filters, channels, weights)
    return filters, channels, _solve(moments, _products(filters, channels))


def _separable(moments, output, n_factors):
    """Factors for one output, all with a weight of their own size."""
    n_channels = len(moments.stimulus) // moments.n_lags
    # Any start will do; a fixed one is the same for every seed.
    rng = np.random.RandomState(0)
    filters = rng.standard_normal((moments.n_lags, n_factors))
    channels = rng.standard_normal((n_channels, n_factors))
    one = slice(output, output + 1)
    weights = np.ones((n_factors, 1))
    for _ in range(N_ROUNDS):
        filters, channels = _one_round(moments, one, filters, channels, weights)
    return filters, channels, _solve(moments, _products(filters, channels), one)


def _one_round(moments, outputs, filters, channels, weights):
    """New filters for the channels, then new channels for the filters, both of norm one."""
    n_lags, n_channels = len(filters), len(channels)
    stimulus = moments.stimulus.reshape(n_lags, n_channels, n_lags, n_channels)
    response = moments.response[:, outputs].reshape(n_lags, n_channels, -1) @ weights.T
    alike = weights @ weights.T
    matrix = np.einsum("lckd,ds->lcks", stimulus, channels)
    matrix = np.einsum("lcks,cr,rs->lrks", matrix, channels, alike, optimize=True)
    right = np.einsum("lcr,cr->lr", response, channels)
    filters = _unit(_ridge(matrix.reshape(right.size, -1), right.ravel()).reshape(right.shape))
    matrix = np.einsum("lckd,ks->lcds", stimulus, filters)
    matrix = np.einsum("lcds,lr,rs->crds", matrix, filters, alike, optimize=True)
    right = np.einsum("lcr,lr->cr", response, filters)
    channels = _unit(_ridge(matrix.reshape(right.size, -1), right.ravel()).reshape(right.shape))
    return filters, channels


def _unit(columns: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(columns, axis=0)
    return columns / np.where(norms > 0, norms, 1)


def _products(filters: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """Each filter with its channels, as one column."""
    return np.einsum("lk,ck->lck", filters, channels).reshape(-1, filters.shape[1])


def _choose(moments: LaggedMoments, products: np.ndarray, n_chosen: int) -> list[int]:
    """One after the other, the column that explains most of what is left."""
    chosen: list[int] = []
    for _ in range(n_chosen):
        explained = {}
        for number in set(range(products.shape[1])) - set(chosen):
            columns = products[:, [*chosen, number]]
            weights = _solve(moments, columns)
            explained[number] = np.sum(weights * (columns.T @ moments.response))
        chosen.append(max(explained, key=lambda number: explained[number]))
    return chosen


def start_from_data(model: Model, trials: Sequence[Trial]) -> int:
    """Set the linear layers that a model begins with to what the data say.

    Parameters
    ----------
    model : Model
        The model; its values change.
    trials : sequence of Trial
        What it is to predict.

    Returns
    -------
    int
        How many layers at the beginning of the model were set: channel weights, filters, or both,
        then perhaps weights of what is shared. 0 if it begins with something else, or with layers
        of which something is frozen or constrained.
    """
    linear = _linear_layers(model)
    n_outputs = trials[0].target.shape[1]
    if not _goes_into(linear, trials[0].data):
        return 0
    kinds = [type(layer) for layer in linear]
    sizes = [_sizes(layer) for layer in linear]
    done = False
    if kinds in ([FiniteImpulseResponse], [WeightChannels]):
        # What comes next must leave each output by itself.
        if all(isinstance(layer, StaticNonlinearity) for layer in model.layers[1:2]):
            done = _start_full(linear[0], trials, n_outputs)
    elif kinds == [WeightChannels, FiniteImpulseResponse]:
        if sizes[0][1:] == sizes[1][1:]:
            done = _start_separable(linear[0], linear[1], trials, n_outputs)
            if not all(isinstance(layer, StaticNonlinearity) for layer in model.layers[2:]):
                done = done or _start_hidden(linear[0], linear[1], trials)
    elif kinds == [WeightChannels, FiniteImpulseResponse, WeightChannels]:
        shared = sizes[0][1:] == sizes[1][1:] == (1, sizes[2][0])
        if shared and sizes[2][1:] == (n_outputs,):
            done = _start_shared(linear[0], linear[1], linear[2], trials)
    return len(linear) if done else 0


def _sizes(layer: Layer) -> tuple[int, ...]:
    return tuple(size for size in layer.shape or () if size is not None)


def _linear_layers(model: Model) -> list[Layer]:
    """Linear layers at the beginning, each going into the next, that may be set to any values."""
    found: list[Layer] = []
    for layer in model.layers:
        plain = layer.input in (None, INPUT) if not found else layer.input is None
        if not (plain and _is_free(layer)):
            break
        found.append(layer)
    return found


def _is_free(layer: Layer) -> bool:
    """Tell whether a layer is linear and may be set to any values."""
    free = not any(
        parameter.is_frozen or np.isfinite(parameter.bounds).any()
        for parameter in layer.parameters.values()
    )
    if isinstance(layer, WeightChannels):
        return free and not layer.norm_coefficients
    if isinstance(layer, FiniteImpulseResponse):
        return free and layer.stride == 1 and not layer.include_anticausal
    return False


def _goes_into(linear: list[Layer], data: dict) -> bool:
    """Tell whether the first of some layers takes the data as they are."""
    if not linear or INPUT not in data or data[INPUT].ndim != 2:
        return False
    sizes = _sizes(linear[0])
    n_channels = sizes[0] if isinstance(linear[0], WeightChannels) else sizes[1]
    return data[INPUT].shape[1] == n_channels


def _start_full(layer: Layer, trials, n_outputs: int) -> bool:
    """Set a filter, or channel weights, which see one lag, that see all channels."""
    sizes = _sizes(layer)
    n_lags, _, *n_filters = (1, *sizes) if isinstance(layer, WeightChannels) else sizes
    if n_outputs != math.prod(n_filters):
        return False
    moments = lagged_moments(trials, n_lags)
    layer["coefficients"] = _ridge(moments.stimulus, moments.response).reshape(sizes)
    return True


def _start_separable(weigh: Layer, filter_: Layer, trials, n_outputs: int) -> bool:
    n_lags, n_ranks, *n_filters = _sizes(filter_)
    if n_outputs != math.prod(n_filters):
        return False
    moments = lagged_moments(trials, n_lags)
    for output in range(n_outputs):
        filters, channels, weights = _separable(moments, output, n_ranks)
        _share_size(weigh, filter_, (..., output) if n_filters else ..., filters, channels, weights)
    return True


def _start_hidden(weigh: Layer, filter_: Layer, trials) -> bool:
    """Filters whose outputs all responses are made of, by layers that come later."""
    n_lags, n_ranks, *n_filters = _sizes(filter_)
    if n_ranks != 1 or not n_filters:
        return False
    moments = lagged_moments(trials, n_lags)
    filters, channels, weights = factor(moments, n_filters[0])
    products = _products(filters, channels)
    spread = np.sqrt(np.sum(products * (moments.stimulus @ products), axis=0))
    sizes = np.sqrt(np.where(spread > 0, spread, 1))
    # Of unit variance, and with the sign of most responses, since a rectifier passes one only.
    sign = np.where(weights.sum(axis=1) < 0, -1, 1)
    weigh["coefficients"] = (channels / sizes)[:, np.newaxis]
    filter_["coefficients"] = (sign * filters / sizes)[:, np.newaxis]
    return True


def _start_shared(weigh: Layer, filter_: Layer, mix: Layer, trials) -> bool:
    moments, n_factors = lagged_moments(trials, _sizes(filter_)[0]), _sizes(mix)[0]
    filters, channels, weights = factor(moments, n_factors)
    sizes = np.linalg.norm(weights, axis=1, keepdims=True) ** (1 / 3)
    sizes[sizes == 0] = 1
    weigh["coefficients"] = (channels * sizes.T)[:, np.newaxis]
    filter_["coefficients"] = (filters * sizes.T)[:, np.newaxis]
    mix["coefficients"] = weights / sizes**2
    return True


def _share_size(weigh, filter_, place, filters, channels, weights) -> None:
    """Set both layers, which share the size of the weights."""
    sizes = np.sqrt(np.abs(weights[:, 0]))
    for layer, values in (
        (weigh, channels * sizes),
        (filter_, filters * sizes * np.sign(weights[:, 0])),
    ):
        all_values = np.array(layer["coefficients"].values)
        all_values[place] = values
        layer["coefficients"] = all_values


def start_at_data(objective: Objective, settings: FitSettings, solver: Solver) -> None:
    """Set the linear layers from the data, then fit what comes after them to their output.

    Parameters
    ----------
    objective : Objective
        The loss; the values of its model change if it begins with such layers, and what comes out
        is finite.
    settings : FitSettings
        How the fit is made.
    solver : Solver
        What makes it.
    """
    model, trials = objective.model, objective.trials
    before = model.get_parameter_vector()
    n_linear = start_from_data(model, trials)
    others = model.layers[n_linear:]
    alone = all(layer.input is None and not hasattr(layer, "state_arg") for layer in others)
    if n_linear and len(others) and alone:
        outputs = adapt_others(model, trials, n_linear)
        if not all(np.isfinite(model.output(dict(trial.data))).all() for trial in trials):
            # Such as the logarithm of less than zero; the values of before may do better.
            model.set_parameter_vector(before, ignore_bounds=True)
            return
        rest = Model([layer.copy() for layer in others])
        with warnings.catch_warnings():
            # The fit itself says which layer torch cannot follow.
            warnings.simplefilter("ignore", UserWarning)
            inner = Objective(rest, outputs, objective.loss, 0.0, objective.device)
            results = solver.fit(
                inner,
                replace(
                    settings,
                    max_iter=START_ITERATIONS,
                    tol=START_TOL,
                    early_stopping=False,
                    verbose=0,
                ),
                np.random.RandomState(0),
            )
        rest.set_parameter_vector(results.final_parameters, ignore_bounds=True)
        for layer, fitted in zip(others, rest.layers, strict=True):
            for name, parameter in fitted.parameters.items():
                layer[name].values = parameter.values


def adapt_others(model: Model, trials: Sequence[Trial], n_linear: int) -> list[Trial]:
    """Set layers after the first linear ones to what goes into them, one after the other.

    Weights of all channels become those of a ridge regression. Double exponentials go from what is
    seldom below to what is seldom above a response.

    Parameters
    ----------
    model : Model
        The model; its values change.
    trials : sequence of Trial
        What it is to predict.
    n_linear : int
        How many layers at its beginning are to be left alone.

    Returns
    -------
    list of Trial
        With what comes out of those as their only data.
    """
    made = [_output_of(model, trial, n_linear) for trial in trials]
    target = np.concatenate([trial.target for trial in made])
    weight = np.concatenate([np.broadcast_to(trial.weight, trial.target.shape) for trial in made])
    weight = weight + (weight.sum(axis=0) == 0)  # outputs without any weight
    for number, layer in enumerate(model.layers[n_linear:], n_linear):
        frozen = any(parameter.is_frozen for parameter in layer.parameters.values())
        given = [_output_of(model, trial, number) for trial in trials]
        if isinstance(layer, WeightChannels) and _is_free(layer) and len(_sizes(layer)) == 2:
            if given[0].data[INPUT].shape[1:] == layer.shape[:1]:
                _start_full(layer, given, target.shape[1])
        elif isinstance(layer, DoubleExponential) and not frozen:
            values = np.concatenate([trial.data[INPUT] for trial in given])
            if values.shape != target.shape or not np.isfinite(values).all():
                break
            mean = np.average(values, axis=0, weights=weight)
            spread = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weight))
            low, high = (_percentile(target, weight, tail) for tail in TAILS)
            start = {
                "base": np.broadcast_to(low, layer.shape),
                "amplitude": np.broadcast_to(high - low, layer.shape),
                "shift": -mean,
                "kappa": -np.log(np.where(spread > 0, spread, 1)),
            }
            layer.set_parameter_values(
                {name: np.clip(value, *layer[name].bounds) for name, value in start.items()}
            )
    return made


def _percentile(values: np.ndarray, weights: np.ndarray, percentage: float) -> np.ndarray:
    """Least value of each column up to which that percentage of its weight is."""
    order = np.argsort(values, axis=0)
    shares = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0)
    places = np.sum(shares < percentage / 100 * shares[-1], axis=0, keepdims=True)
    return np.take_along_axis(np.take_along_axis(values, order, axis=0), places, axis=0)[0]


def _output_of(model: Model, trial: Trial, n_layers: int) -> Trial:
    data = dict(trial.data)
    steps = model.steps(data)
    for _ in range(n_layers):
        next(steps)
    return Trial({INPUT: data[OUTPUT]}, trial.target, trial.weight)
