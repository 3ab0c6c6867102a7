"""Data-driven initial values of each layer, which avoid saddle points.

Initial values are set from the stimulus to the response, stage by stage (`stages.py`). If only
nonlinearities follow a stage, unit k is output k, and its kernel is the best one for this response,
subject to the ranks, signs, profiles or frozen values of the stage. Otherwise its units are hidden
(`hidden.py`). The last linear stage uses the actual outputs of previous stages, and therefore
starts with predictions at least about as good as those of a linear model. The final nonlinearities
are matched to the responses and, unless they are only a level shift, fitted separately.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from skdyn.core.training import FitDivergedError
from skdyn.nems.fitting import factors
from skdyn.nems.fitting.hidden import NOISE, set_hidden, set_neutral
from skdyn.nems.fitting.lbfgs import LBFGS
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.results import Solver
from skdyn.nems.fitting.settings import FitSettings
from skdyn.nems.fitting.stages import (
    ROUNDING,
    Given,
    Stage,
    arriving,
    at_input_rate,
    find_stages,
    given_for_all,
    make_given,
    put,
    run_first,
)
from skdyn.nems.fitting.trials import Trial, some_rows
from skdyn.nems.layers.base import Layer
from skdyn.nems.layers.description import WantedOutput
from skdyn.nems.model import INPUT, OUTPUT, Model, arguments
from skdyn.nems.parameter import Parameter

# Settings of the separate fit of the final nonlinearities, accurate enough for a start.
START_ITERATIONS, START_TOL, START_ROWS = 60, 1e-4, 1000

# Percentiles of a response that define the range of a final nonlinearity.
TAILS = (2, 99)

# Maximum number of lags times channels for a covariance; beyond it, kernels are drawn.
MOST_REGRESSORS = 3000

# Maximum number of rows used to compute a start.
MOST_ROWS = 50_000

# Size of random perturbations of equal coefficients, in standard deviations of the prior.
TIE_BREAK = 0.05


def start_at_data(
    objective: Objective,
    settings: FitSettings,
    solver: Solver,
    random_state: np.random.RandomState | None = None,
) -> None:
    """Set all layers from the data, then fit the final nonlinearities to their input.

    Parameters
    ----------
    objective : Objective
        The loss; the values of its model are changed. If the output is not finite, they are the
        given ones, with ties broken.
    settings : FitSettings
        Settings of the fit.
    solver : Solver
        The solver, which also fits the nonlinearities unless it uses batches.
    random_state : RandomState, default=None
        None for the first start, which does not depend on a seed. Otherwise the source of
        randomness of another start: other hidden units or, in a model without hidden units, kernels
        drawn from their priors and scaled to outputs of unit size.
    """
    model = objective.model
    trials = some_rows(model, objective.trials, MOST_ROWS)
    before = model.get_parameter_vector()
    standing_in = {layer.name: layer.stand_in() for layer in model.layers}
    others = Model([standing_in[layer.name] or layer for layer in model.layers])
    last = _set_layers(others, trials, random_state)
    for layer in model.layers:
        if (other := standing_in[layer.name]) is not None:
            layer.resemble(other, random_state or np.random.RandomState(0))
    if not all(np.isfinite(_output(model, trial)).all() for trial in trials):
        # For example the logarithm of a negative number; the previous values may work.
        model.set_parameter_vector(before, ignore_bounds=True)
        break_ties(model)
    elif last is not None:
        _fit_curves(objective, trials, last, settings, solver)


def start_in_two_stages(
    objective: Objective,
    settings: FitSettings,
    solver: Solver,
    random_state: np.random.RandomState | None = None,
) -> None:
    """Fit a model without its final nonlinearities, then match these to its output.

    Parameters
    ----------
    objective : Objective
        The loss; the values of its model are changed. They are those of `start_at_data` if no
        nonlinearity can be skipped.
    settings : FitSettings
        Settings of both fits.
    solver : Solver
        The solver, which is also used for the first fit.
    random_state : RandomState, default=None
        As in `start_at_data`.
    """
    model = objective.model
    linear = model.copy()
    stages = find_stages(linear, objective.trials[0].data)
    curves = [curve for curve in (stages[-1].curves if stages else []) if curve.bends]
    skips = [getattr(curve, "skip_nonlinearity", None) for curve in curves]
    if not any(skips):
        start_at_data(objective, settings, solver, random_state)
        return
    for skip in filter(None, skips):
        skip()
    first = Objective(
        linear,
        objective.trials,
        objective.loss,
        objective.alpha,
        objective.device,
        sizes=objective.sizes,
    )
    start_at_data(first, settings, solver, random_state)
    rng = random_state or np.random.RandomState(0)
    results = solver.fit(first, replace(settings, verbose=0), rng)
    linear.set_parameter_vector(results.final_parameters, ignore_bounds=True)
    trials = some_rows(model, objective.trials, MOST_ROWS)
    last = find_stages(model, trials[0].data)[-1]
    for layer, fitted in zip(model.layers, linear.layers, strict=True):
        if not any(layer is curve for curve in last.curves):
            for name, parameter in layer.parameters.items():
                parameter.values = fitted[name].values.copy()
    weight = np.concatenate(_weights_of(trials))
    if last.n_units == weight.shape[1]:
        wanted, _ = _wanted(last, trials, weight)
        _set_curves(model, last, trials, weight, wanted)
        _fit_curves(objective, trials, last, settings, solver)


def break_ties(model: Model) -> None:
    """Perturb equal coefficients of ranks, filters or hidden units at random.

    Parameters
    ----------
    model : Model
        The model; values are changed if slices along an axis other than the first are equal.
    """
    rng = np.random.RandomState(0)
    for layer in model.layers:
        for name, parameter in layer.parameters.items():
            counts = layer.penalised is None or name in layer.penalised
            if counts and not parameter.is_frozen:
                _break_ties(parameter, rng)


def _break_ties(parameter: Parameter, rng: np.random.RandomState) -> None:
    values, (low, high) = parameter.values, parameter.bounds
    tied = np.zeros(parameter.shape, dtype=bool)
    for axis in range(1, values.ndim):
        slices = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
        _, first, group = np.unique(slices, axis=0, return_index=True, return_inverse=True)
        is_copy = first[np.ravel(group)] != np.arange(len(slices))
        tied |= np.expand_dims(is_copy, [one for one in range(values.ndim) if one != axis])
    if not tied.any():
        return
    noise = TIE_BREAK * parameter.prior.sd() * rng.standard_normal(parameter.shape)
    outside = (values + noise < low) | (values + noise > high)
    moved = np.where(outside, values - noise, values + noise)
    moved = np.where((moved < low) | (moved > high), values, moved)
    parameter.values = np.where(tied, moved, values)


def _output(model: Model, trial: Trial) -> np.ndarray:
    return np.asarray(model.output(dict(trial.data)))


# -------------------------------------------------------------------------------- the walk


def _set_layers(
    model: Model, trials: Sequence[Trial], random_state: np.random.RandomState | None
) -> Stage | None:
    """Set the stages in order; return the last one if its unit k is output k."""
    rng = random_state or np.random.RandomState(0)
    stages, weights = find_stages(model, trials[0].data), _weights_of(trials)
    known = {number for stage in stages for number in range(stage.number, stage.linear_end)}
    n_outputs = trials[0].target.shape[1]
    is_direct = [stage.n_units == n_outputs and stage is stages[-1] for stage in stages]
    draws = random_state is not None and all(is_direct)
    last, targets, n_done = None, [trial.target for trial in trials], 0
    for place, stage in enumerate(stages):
        _set_others(model, range(n_done, stage.number), known, trials, rng)
        arrays = None if draws else _usable(model, trials, stage)
        if is_direct[place] and all(layer.modulates for layer in model.layers[stage.end :]):
            last = stage
            _set_last(model, stage, arrays, trials, weights, rng)
        elif arrays is None:
            _draw_stage(model, stage, trials, rng)
        elif is_direct[place]:
            _set_direct(stage, _moments(model, stage, arrays, targets, weights))
        else:
            lags = _later_lags(stage, stages[place + 1 :])
            given = _moments_of_all(model, stage, arrays, targets, weights, lags)
            if not _set_units(model, stage, given, trials, random_state):
                _draw_stage(model, stage, trials, rng)
        n_done = stage.linear_end
    _set_others(model, range(n_done, len(model.layers)), known, trials, rng)
    return last


def _set_others(model: Model, numbers: Iterable[int], known: set[int], trials, rng) -> None:
    """Set layers outside all stages from their inputs, or draw them."""
    for number in numbers:
        if number not in known and model.layers[number].kernel_part() is not None:
            _draw(model, number, trials, rng)
        _set_from_inputs(model, number, trials, rng)


def take_statistics(model: Model, trials: Sequence[Trial]) -> None:
    """Set statistics of layers, such as means, from their inputs, layer by layer.

    Parameters
    ----------
    model : Model
        The model; its values are changed.
    trials : sequence of Trial
        The data.
    """
    for number, layer in enumerate(model.layers):
        if layer.statistics:
            _set_from_inputs(model, number, trials, None)


def _set_from_inputs(model: Model, number: int, trials: Sequence[Trial], rng) -> None:
    """Initialise a layer from its inputs; without a random state, set only statistics."""
    layer = model.layers[number]
    if type(layer).start_from is Layer.start_from:
        return
    given = []
    for trial in trials:
        rows = run_first(model, trial.data, number)
        args, named = arguments(layer, rows, rows[OUTPUT])
        flat = [one for x in args for one in (x if isinstance(x, list) else [x])]
        given.append([np.asarray(one) for one in (*flat, *named.values())])
    inputs = [np.concatenate(parts) for parts in zip(*given, strict=True)]
    if not all(np.isfinite(one).all() for one in inputs):
        return
    for name, values in layer.start_from(rng or np.random.RandomState(0), *inputs).items():
        parameter = layer[name]
        if name in layer.statistics and not parameter.is_permanent:
            parameter.update(np.clip(values, *parameter.bounds))
        elif rng is not None:
            put(parameter, values)


def _weights_of(trials: Sequence[Trial]) -> list[np.ndarray]:
    """Return the weight of each entry of the responses; ones for outputs with zero weight."""
    weights = [np.broadcast_to(trial.weight, trial.target.shape) for trial in trials]
    without = ~np.any([weight.any(axis=0) for weight in weights], axis=0)
    return [np.where(without, 1.0, weight) for weight in weights]


def _usable(model: Model, trials: Sequence[Trial], stage: Stage) -> list[np.ndarray] | None:
    """Return the input of a stage, if it matches the kernels and is not too large."""
    arrays = arriving(model, trials, stage.number)
    if arrays is None or arrays[0].shape[1] != stage.n_channels:
        return None
    return arrays if stage.n_lags * stage.n_channels <= MOST_REGRESSORS else None


def _later_lags(stage: Stage, following: Sequence[Stage]) -> list[int]:
    """Return some lags, in rows of a stage's input, that later stages can use."""
    ratios = [other.rate // stage.rate for other in following]
    rest = sum((other.n_lags - 1) * n for other, n in zip(following, ratios, strict=True))
    ahead = sum(other.n_future * n for other, n in zip(following, ratios, strict=True))
    return sorted({lag - ahead for lag in (0, rest // 4, rest // 2, rest)})


def _moments(model, stage: Stage, arrays, targets, weights) -> list[tuple[np.ndarray, Given]]:
    """Return moments with each response, grouped by outputs with the same weights."""
    if stage.is_shared:
        given = _moments_of_all(model, stage, arrays, targets, weights, [0])
        return [(np.arange(stage.n_units), given)]
    joined = np.concatenate(weights)
    group = np.zeros(joined.shape[1], dtype=int)
    if not (joined == joined[:, :1]).all():
        group = np.ravel(np.unique(joined, axis=1, return_inverse=True)[1])
    found = []
    for number in range(group.max() + 1):
        outputs = np.flatnonzero(group == number)
        y = at_input_rate([one[:, outputs] for one in targets], arrays, stage, model)
        w = at_input_rate([one[:, outputs[:1]] for one in weights], arrays, stage, model)
        found.append((outputs, make_given(stage, arrays, y, w)))
    return found


def _moments_of_all(model, stage: Stage, arrays, targets, weights, lags) -> Given:
    targets, weights = (at_input_rate(one, arrays, stage, model) for one in (targets, weights))
    return given_for_all(stage, arrays, targets, weights, lags)


def _draw_stage(model: Model, stage: Stage, trials: Sequence[Trial], rng) -> None:
    for number in range(stage.number, stage.linear_end):
        _draw(model, number, trials, rng)


def _draw(model: Model, number: int, trials: Sequence[Trial], rng) -> None:
    """Draw coefficients of a layer, scaled to outputs of unit size with a positive mean."""
    layer = model.layers[number]
    part = layer.kernel_part()
    assert part is not None
    layer.sample_from_priors(rng)
    if part.profiles is None:
        parameter = part.filters if part.filters is not None else part.weights[0]
        trial = max(trials, key=lambda one: len(one.target))
        output = np.asarray(run_first(model, trial.data, number + 1)[OUTPUT])
        size = float(np.std(output))
        if 0 < size < np.inf:
            put(parameter, _turned(parameter, output) / size)


def _turned(parameter: Parameter, output: np.ndarray) -> np.ndarray:
    """Return coefficients with the sign of positive mean outputs, if the bounds allow it."""
    sign = np.where(np.mean(output, axis=0) < 0, -1.0, 1.0)
    fits = parameter.shape[1:] in (sign.shape, (1, *sign.shape)) or sign.size == 1
    fits = fits or parameter.shape[-1:] == sign.shape
    is_free = not np.isfinite(parameter.bounds).any()
    return parameter.values * sign if fits and is_free else parameter.values


# ----------------------------------------------------------------------- units that are outputs


def _set_direct(stage: Stage, moments: Sequence[tuple[np.ndarray, Given]]) -> None:
    """Set each unit to its best kernel.

    Parameters
    ----------
    stage : Stage
        The stage; its parameters are changed.
    moments : sequence of pairs
        Pairs of units and moments with their responses.
    """
    if stage.n_ranks == 0:
        parameter = stage.filters
        assert parameter is not None
        if not parameter.is_frozen:
            n_channels = stage.n_channels if stage.sees is None else 1
            kernels = np.zeros((stage.n_lags, n_channels, stage.n_units))
            for units, given in moments:
                kernels[..., units] = _full_kernels(stage, units, given)
            put(parameter, kernels)
        return
    if stage.is_shared:
        _set_shared(stage, moments[0][1])
        return
    found: dict[int, tuple] = {}
    for units, given in moments:
        found |= zip(units, _factors(stage, given, units), strict=True)
    filters, channels, numbers = zip(*(found[unit] for unit in range(stage.n_units)), strict=True)
    chosen = None if numbers[0] is None else np.stack(numbers, axis=-1)
    stage.put_factors(np.stack(filters, axis=-1), np.stack(channels, axis=-1), chosen)


def _full_kernels(stage: Stage, units: np.ndarray, given: Given) -> np.ndarray:
    if stage.sees is None:
        return given.kernels()
    kernels = [given.of(stage.sees[unit]).kernels()[..., i] for i, unit in enumerate(units)]
    return np.stack(kernels, axis=-1)


def _factors(stage: Stage, given: Given, units: np.ndarray) -> list[tuple]:
    """Return the best filters, channel weights and, if needed, profiles of each unit."""
    responses = np.moveaxis(given.response, 2, 0)
    if stage.sees is None:
        return _factors_alike(stage, given, units, responses)
    parts = [given.of(stage.sees[unit]) for unit in units]
    return [
        _factors_alike(stage, part, units[[place]], part.response[np.newaxis, ..., place])[0]
        for place, part in enumerate(parts)
    ]


def _factors_alike(stage: Stage, given: Given, units, responses: np.ndarray) -> list[tuple]:
    """Return the best factors of units with the same input channels."""
    assert stage.weigh is not None
    frozen = [parameter.is_frozen for parameter in stage.weigh.weights]
    if all(frozen) or (stage.profiles is not None and any(frozen)):
        channels = np.moveaxis(stage.channel_weights()[..., units], -1, 0)
        filters = _filters_of(stage, given, responses, channels)
        return [(*pair, None) for pair in zip(filters, channels, strict=True)]
    if stage.profiles is not None:
        return [_of_profiles(stage, given, response) for response in responses]
    if stage.filter is not None and stage.filters is not None and stage.filters.is_frozen:
        all_filters = stage.filters.values.reshape(stage.n_lags, stage.n_ranks, stage.n_units)
        found = factors.alternate(
            given.stimulus,
            responses[..., np.newaxis],
            np.moveaxis(all_filters[..., units], -1, 0),
            np.ones((len(units), len(given.mean), stage.n_ranks)),
            np.ones((len(units), stage.n_ranks, 1)),
            restrict=stage.restriction,
            keep_filters=True,
        )
        return [(*pair, None) for pair in zip(*found, strict=True)]
    filters, channels = factors.of_outputs(
        given.stimulus, responses, stage.n_ranks, stage.restriction
    )
    if stage.is_free:
        sizes = np.sqrt(np.linalg.norm(filters, axis=1, keepdims=True))
        filters, channels = filters / np.where(sizes > 0, sizes, 1), channels * sizes
    return [(*pair, None) for pair in zip(filters, channels, strict=True)]


def _of_profiles(stage: Stage, given: Given, response: np.ndarray) -> tuple:
    """Return the best filters of one unit, and their profiles."""
    assert stage.profiles is not None
    if "profiles" not in given.cache:
        given.cache["profiles"] = factors.profile_moments(given.stimulus, stage.profiles)
    filters, numbers = factors.of_profiles(
        given.cache["profiles"], (response @ stage.profiles).T, stage.n_ranks
    )
    return filters, stage.profiles[:, numbers], np.array(numbers)


def _filters_of(stage: Stage, given: Given, responses: np.ndarray, channels: np.ndarray):
    """Return the best filters of each unit for fixed channel weights."""
    ones = np.ones((len(responses), stage.n_lags, stage.n_ranks))
    if stage.filters is None or stage.filters.is_frozen:
        return ones
    weights = np.ones((len(responses), stage.n_ranks, 1))
    filters, _ = factors.alternate(
        given.stimulus, responses[..., np.newaxis], ones, channels, weights, keep_channels=True
    )
    return filters


def _set_shared(stage: Stage, given: Given) -> None:
    """Set channel weights that all units share, and separate filters of each unit."""
    assert stage.weigh is not None
    if not any(parameter.is_frozen for parameter in stage.weigh.weights):
        if stage.profiles is not None:
            profiles = stage.profiles
            gram = profiles.T @ given.stimulus[0, :, 0] @ profiles
            cross = np.einsum("lcn,cp->pln", given.response, profiles).reshape(len(gram), -1)
            chosen = factors.select(gram, cross, min(stage.n_ranks, len(gram)))
            stage.put_factors(None, None, np.resize(chosen, (stage.n_ranks, 1)))
        else:
            stage.put_factors(None, _shared_weights(stage, given), None)
    if stage.filters is None or stage.filters.is_frozen:
        return
    weights = stage.channel_weights()
    half = np.tensordot(given.stimulus, weights, axes=(3, 0))
    matrix = np.einsum("lcks,cr->lrks", half, weights, optimize=True)
    right = np.einsum("lcn,cr->lrn", given.response, weights)
    right = right.reshape(stage.n_lags * stage.n_ranks, -1)
    filters = factors.ridge(matrix.reshape(len(right), -1), right)
    put(stage.filters, filters if given.sizes is None else filters * given.sizes)


def _shared_weights(stage: Stage, given: Given) -> np.ndarray:
    """Return the main channel directions of the best kernels, as weights (n_channels, n_ranks)."""
    n_channels, n_ranks = len(given.spread), stage.n_ranks
    kernels = given.kernels() * given.spread[:, np.newaxis]
    left, _, _ = np.linalg.svd(kernels.transpose(1, 0, 2).reshape(n_channels, -1))
    extra = np.random.RandomState(0).standard_normal((n_channels, max(0, n_ranks - n_channels)))
    left = np.concatenate([factors.same_sign(left), extra], axis=1)[:, :n_ranks]
    weights = factors.unit(left / given.spread[:, np.newaxis])
    if stage.restriction is None:
        return weights
    return np.maximum(*factors.both_signs(stage.restriction, weights))


# ------------------------------------------------------------------------------- hidden units


def _set_units(model: Model, stage: Stage, given: Given, trials, random_state) -> bool:
    """Set a hidden stage; return whether that was possible."""
    is_fixed = any(parameter.is_frozen for parameter in stage.parameters)
    if not (stage.is_shared or stage.n_ranks > 1 or stage.sees is not None or is_fixed):
        return set_hidden(stage, given, random_state)
    rng = random_state or np.random.RandomState(0)
    n_outputs = given.response.shape[2]
    mixture = rng.standard_normal((n_outputs, stage.n_units))
    if n_outputs == 1:
        mixture = np.where(np.arange(stage.n_units) % 2, -1.0, 1.0)[np.newaxis]
    mixed = replace(given, response=given.response @ mixture, sizes=None, cache={})
    _set_direct(stage, [(np.arange(stage.n_units), mixed)])
    # Units with the same mixture of one response would be equal.
    for parameter in stage.parameters if stage.profiles is None else [stage.filters]:
        if parameter is not None and stage.n_units > 1:
            size = np.sqrt(np.mean(parameter.values**2)) or 1.0
            noise = rng.standard_normal(parameter.shape)
            put(parameter, parameter.values + NOISE * size * noise)
    for curve in stage.curves:
        set_neutral(curve)
    if stage.is_bent:
        _lift(model, stage, trials)
    return True


def _lift(model: Model, stage: Stage, trials: Sequence[Trial]) -> None:
    """Keep units from saturating, by a centring shift or else by a positive mean."""
    rows = [run_first(model, trial.data, stage.linear_end)[OUTPUT] for trial in trials]
    values = np.concatenate([np.asarray(one) for one in rows])
    if stage.shift is not None and stage.shift is not stage.last_part.shift:
        put(stage.shift, -values.mean(axis=0))
    elif stage.filters is not None:
        put(stage.filters, _turned(stage.filters, values))


# ------------------------------------------------------------------- nonlinearities at the end


def _set_last(model: Model, stage: Stage, arrays, trials, weights, rng) -> None:
    """Set the last stage: kernels for the targets of its nonlinearities, then these."""
    weight = np.concatenate(weights)
    wanted, targets = _wanted(stage, trials, weight)
    part = stage.last_part
    if arrays is None:
        _draw_stage(model, stage, trials, rng)
    else:
        step = model.stride // stage.rate
        if part.skip:
            skipped = [array[::step, : stage.n_units] for array in arrays]
            targets = targets - part.skip * np.concatenate(skipped)
        ends = np.cumsum([len(trial.target) for trial in trials])[:-1]
        moments = _moments(model, stage, arrays, np.split(targets, ends), weights)
        _set_direct(stage, moments)
        if part.shift is not None and not part.shift.is_frozen:
            shift = _describe(targets, weight).level
            for units, given in moments:
                shift[units] -= stage.mean_output(given.lagged_mean)[units]
            put(part.shift, shift)
    _set_curves(model, stage, trials, weight, wanted)


def _wanted(
    stage: Stage, trials: Sequence[Trial], weight: np.ndarray
) -> tuple[list[WantedOutput], np.ndarray]:
    """Return targets of the output of each final nonlinearity, and of the input of the first."""
    targets = np.concatenate([trial.target for trial in trials])
    wanted: list[WantedOutput] = []
    for curve in reversed(stage.curves):
        wanted.insert(0, _describe(targets, weight))
        targets = curve.invert(targets, wanted[0])
    return wanted, targets


def _set_curves(model: Model, stage: Stage, trials, weight: np.ndarray, wanted) -> None:
    """Match the final nonlinearities to the outputs of the kernels."""
    values = [run_first(model, trial.data, stage.linear_end)[OUTPUT] for trial in trials]
    for curve, aim in zip(stage.curves, wanted, strict=True):
        joined = np.concatenate(values)
        if joined.shape != weight.shape or not np.isfinite(joined).all():
            return
        _set_curve(curve, joined, weight, aim)
        values = [curve.evaluate(one) for one in values]


def _set_curve(curve: Layer, values: np.ndarray, weight: np.ndarray, wanted: WantedOutput) -> None:
    given = _describe(values, weight)
    spread = np.sqrt(np.average((values - given.level) ** 2, axis=0, weights=weight))
    spread = np.where(spread > ROUNDING * np.abs(given.level), spread, 0.0)
    for name, value in curve.start_values(given.level, spread, wanted).items():
        put(curve[name], np.broadcast_to(value, curve[name].shape))


def _describe(values: np.ndarray, weight: np.ndarray) -> WantedOutput:
    level = np.average(values, axis=0, weights=weight)
    low, high = (_percentile(values, weight, tail) for tail in TAILS)
    size = np.sqrt(np.average((values - level) ** 2, axis=0, weights=weight))
    size = np.where(size > ROUNDING * np.abs(level), size, np.abs(level))
    return WantedOutput(level, low, high, np.where(size > 0, size, 1.0))


def _reach(curves: Model, n_outputs: int) -> np.ndarray | None:
    """Return which free values each output of nonlinearities depends on, by channel."""
    free = [parameter for layer in curves.layers for parameter in layer.parameters.free]
    if any(parameter.shape != (n_outputs,) for parameter in free):
        return None
    return np.tile(np.eye(n_outputs, dtype=bool), len(free))


def _percentile(values: np.ndarray, weights: np.ndarray, percentage: float) -> np.ndarray:
    """Return the weighted percentile of each column."""
    order = np.argsort(values, axis=0)
    shares = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0)
    places = np.sum(shares < percentage / 100 * shares[-1], axis=0, keepdims=True)
    return np.take_along_axis(np.take_along_axis(values, order, axis=0), places, axis=0)[0]


def _fit_curves(objective: Objective, trials, stage: Stage, settings, solver: Solver) -> None:
    """Fit only the final nonlinearities, on a subset of rows, because they have no memory."""
    if not any(curve.bends and len(curve.parameters.free) > 1 for curve in stage.curves):
        return
    n_rows = sum(len(trial.target) for trial in trials)
    chosen = np.flatnonzero(np.random.RandomState(0).permutation(n_rows) < START_ROWS)
    # Ordered by time, so that segments of rows, as used for coordinates, contain all trials.
    times = np.concatenate([np.arange(len(trial.target)) for trial in trials])
    chosen = chosen[np.argsort(times[chosen], kind="stable")]
    inputs = [run_first(objective.model, trial.data, stage.linear_end)[OUTPUT] for trial in trials]
    targets = [trial.target for trial in trials]
    weights = [np.broadcast_to(trial.weight, trial.target.shape) for trial in trials]
    values, target, weight = (np.concatenate(one)[chosen] for one in (inputs, targets, weights))
    if not weight.any():
        return
    rest = Model([curve.copy() for curve in stage.curves])
    for curve in rest.layers:
        if not curve.neutral:
            curve.freeze_parameters()
    for curve, following in itertools.pairwise(rest.layers):
        if "shift" in curve.neutral and "shift" in following.neutral:
            # Of two successive shifts, one is redundant.
            curve.freeze_parameters("shift")
    with warnings.catch_warnings():
        # The main fit warns about layers that autograd cannot trace.
        warnings.simplefilter("ignore", UserWarning)
        alone = Objective(
            rest,
            [Trial({INPUT: values}, target, weight)],
            objective.loss,
            0.0,
            objective.device,
            reach=_reach(rest, stage.n_units),
        )
        # Measured: for these few values Adam takes 0.24 s and L-BFGS 0.02 s, and after Adam the
        # fit itself takes a third more epochs.
        own = LBFGS() if solver.uses_batches else solver
        short = replace(
            settings,
            max_iter=START_ITERATIONS,
            tol=START_TOL,
            early_stopping=False,
            verbose=0,
        )
        try:
            results = own.fit(alone, short, np.random.RandomState(0))
        except FitDivergedError:  # the main fit warns if it fails, too
            return
    rest.set_parameter_vector(results.final_parameters, ignore_bounds=True)
    for curve, fitted in zip(stage.curves, rest.layers, strict=True):
        for name, parameter in fitted.parameters.items():
            if not curve[name].is_frozen:
                curve[name].values = parameter.values
