"""Stages of a model: linear layers with one kernel per unit, and the nonlinearities after them.

Layers describe their contribution to a kernel (`Layer.kernel_part`), so that a stage can be channel
weights, a filter, both, or an STRF.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from skdyn.nems.fitting import factors
from skdyn.nems.fitting.moments import lagged_moments
from skdyn.nems.fitting.trials import Trial
from skdyn.nems.layers.base import Layer
from skdyn.nems.layers.description import KernelPart
from skdyn.nems.model import INPUT, OUTPUT, Model, arguments, first
from skdyn.nems.parameter import Parameter

# Variance of a constant channel due to rounding, relative to the square of the mean.
LEAST_VARIANCE = 1e-13

# Standard deviation of a constant channel due to rounding, relative to the mean.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Stage:
    """Linear layers with one kernel per unit, and the nonlinearities after them.

    Attributes
    ----------
    number : int
        Index of the first layer in the model.
    n_linear : int
        Number of linear layers.
    weigh, filter : KernelPart or None
        Contributions of channel weights and filters; they may belong to the same layer.
    curves : list of Layer
        Nonlinearities that follow.
    n_lags, n_channels, n_ranks, n_units : int
        Sizes; n_ranks is 0 for a full kernel, with a value for each lag and channel.
    rate : int
        Number of rows of the data per row of the input.
    is_shared : bool
        Whether all units have the same channel weights.
    sees : list of ndarray or None
        The input channels of each unit; None for all.
    """

    number: int
    n_linear: int
    weigh: KernelPart | None
    filter: KernelPart | None
    n_lags: int
    n_channels: int
    n_ranks: int
    n_units: int
    curves: list[Layer] = field(default_factory=list)
    rate: int = 1
    is_shared: bool = False
    sees: list[np.ndarray] | None = None

    @property
    def linear_end(self) -> int:
        """Number of layers up to the last linear one of this stage."""
        return self.number + self.n_linear

    @property
    def end(self) -> int:
        """Number of layers up to the end of this stage."""
        return self.linear_end + len(self.curves)

    @property
    def n_future(self) -> int:
        """Number of lags that come after the present."""
        return self.filter.n_future if self.filter else 0

    @property
    def last_part(self) -> KernelPart:
        """The contribution of the last linear layer."""
        part = self.filter or self.weigh
        assert part is not None
        return part

    @property
    def profiles(self) -> np.ndarray | None:
        """Candidate channel weights (n_channels, n); None if weights are unconstrained."""
        return self.weigh.profiles if self.weigh else None

    @property
    def weights(self) -> Parameter | None:
        """The channel weights, if they are unconstrained and n_ranks is not 0."""
        if self.weigh is None or self.profiles is not None or self.n_ranks == 0:
            return None
        return self.weigh.weights[0]

    @property
    def filters(self) -> Parameter | None:
        """The filters, or channel weights that are kernels by themselves; None without any."""
        if self.filter is not None:
            return self.filter.filters
        return self.weigh.weights[0] if self.weigh and self.n_ranks == 0 else None

    @property
    def parameters(self) -> list[Parameter]:
        """All parameters of the kernels."""
        parts = [self.weigh.weights if self.weigh else (), [self.filters]]
        unique = {id(one): one for part in parts for one in part if one is not None}
        return list(unique.values())

    @property
    def restriction(self) -> factors.Restriction | None:
        """The restriction of the channel weights to their bounds; None without bounds."""
        if self.weights is None:
            return None
        lows, highs = self.weights.bounds
        return factors.restriction(float(np.max(lows)), float(np.min(highs)))

    @property
    def is_free(self) -> bool:
        """Whether the factors of kernels are unconstrained."""
        return self.profiles is None and not any(
            one.is_frozen or np.isfinite(one.bounds).any() for one in self.parameters
        )

    @property
    def shift(self) -> Parameter | None:
        """The first free shift before a nonlinearity is applied, or None."""
        shifts = [self.last_part.shift] + [
            curve.parameters.get("shift") for curve in self.curves[:2] if "shift" in curve.neutral
        ]
        free = [one for one in shifts if one is not None and not one.is_frozen]
        return free[0] if free else None

    @property
    def is_bent(self) -> bool:
        """Whether the units are nonlinear."""
        return self.last_part.rectifies or any(curve.bends for curve in self.curves)

    @property
    def saturates(self) -> bool:
        """Whether a nonlinearity saturates on both sides."""
        return any(curve.saturates for curve in self.curves)

    def channel_weights(self) -> np.ndarray:
        """Return the channel weights, (n_channels, n_ranks) or (n_channels, n_ranks, n_units)."""
        assert self.weigh is not None and self.weigh.channel_weights is not None
        values = self.weigh.channel_weights()
        units = () if self.is_shared else (self.n_units,)
        return values.reshape(len(values), self.n_ranks, *units)

    def mean_output(self, lagged_mean: np.ndarray) -> np.ndarray:
        """Return the mean output of each unit, from the means (n_lags, n_channels) of the input."""
        assert self.filters is not None
        filters = self.filters.values.reshape(self.n_lags, self.n_ranks, self.n_units)
        weights = self.channel_weights()
        return np.einsum("lrk,crk,lc->k", filters, weights, lagged_mean, optimize=True)

    def put_factors(self, filters, channels, numbers) -> None:
        """Set the factors of kernels that are not frozen.

        Parameters
        ----------
        filters : ndarray of shape (n_lags, n_ranks, n_units) or None
            Filters.
        channels : ndarray of shape (n_channels, n_ranks, n_units) or None
            Channel weights.
        numbers : ndarray of int of shape (n_ranks, n_units) or None
            Indices of the profiles.
        """
        assert self.weigh is not None
        if numbers is not None and self.weigh.settings is not None:
            for parameter, values in zip(self.weigh.weights, self.weigh.settings, strict=True):
                put(parameter, values[numbers])
        if channels is not None and self.weights is not None:
            put(self.weights, channels)
            if self.weigh.is_normed and filters is not None:
                filters = filters * np.sqrt(np.mean(channels**2))
        if filters is not None and self.filters is not None:
            put(self.filters, filters)


def put(parameter: Parameter, values: np.ndarray) -> None:
    """Set a parameter that is not frozen to finite values, within its bounds."""
    if not parameter.is_frozen and np.isfinite(values).all():
        parameter.update(np.clip(np.reshape(values, parameter.shape), *parameter.bounds))


def find_stages(model: Model, data: dict[str, np.ndarray]) -> list[Stage]:
    """Find the stages of a model.

    Parameters
    ----------
    model : Model
        The model, with known sizes of all layers.
    data : dict of ndarray
        Inputs for one trial.

    Returns
    -------
    list of Stage
        Stages in order; other layers may lie between them.
    """
    layers, widths = list(model.layers), list(_widths(model, data))
    parts = [layer.kernel_part() for layer in layers]
    stages, number, rate = [], 0, 1
    while number < len(layers):
        follows = number + 1 < len(layers) and layers[number + 1].input is None
        following = parts[number + 1] if follows else None
        stage = _stage(number, parts[number], following, widths[number])
        if stage is None:
            rate *= getattr(layers[number], "stride", 1)
            number += 1
            continue
        for layer in layers[stage.end :]:
            if not layer.keeps_channels or layer.input is not None:
                break
            stage.curves.append(layer)
        stages.append(replace(stage, rate=rate))
        rate *= stage.last_part.stride
        number = stage.end
    return stages


def _widths(model: Model, data: dict[str, np.ndarray]) -> Iterator[int]:
    """Return the number of input channels of each layer, 0 unless the input is one array."""
    rows = dict(data)
    previous, steps = first(rows), model.steps(rows)
    for layer in model.layers:
        array = _only_input(layer, rows, previous)
        yield 0 if array is None else array.shape[1]
        next(steps)
        previous = rows[OUTPUT]


def _stage(
    number: int, part: KernelPart | None, following: KernelPart | None, width: int
) -> Stage | None:
    if part is None:
        return None
    if part.weights and part.filters is not None:
        n_ranks, *n_units = part.sizes
        sizes = part.n_lags, part.n_channels, n_ranks, (*n_units, 1)[0]
        return Stage(number, 1, part, part, *sizes)
    if part.filters is not None:
        n_ranks, *n_units = part.sizes
        if n_units and n_ranks == 1 and width == n_units[0] > 1:
            sees = [np.array([unit]) for unit in range(width)]
            return Stage(number, 1, None, part, part.n_lags, width, 0, width, sees=sees)
        if n_ranks != width:
            return None
        return Stage(number, 1, None, part, part.n_lags, n_ranks, 0, (*n_units, 1)[0])
    if following is not None and following.filters is not None and not following.weights:
        return _pair(number, part, following)
    if len(part.sizes) != 1:
        return None
    n_ranks = 0 if part.profiles is None else 1
    return Stage(number, 1, part, None, 1, part.n_channels, n_ranks, part.sizes[0])


def _pair(number: int, weigh: KernelPart, filter_: KernelPart) -> Stage | None:
    """Combine channel weights and the filters after them."""
    outs, ins = weigh.sizes, filter_.sizes
    sizes = filter_.n_lags, weigh.n_channels
    if weigh.n_banks > 1:
        n_banks = weigh.n_banks
        sees = [np.arange(bank, weigh.n_channels, n_banks) for bank in range(n_banks)]
        return (
            Stage(number, 2, weigh, filter_, *sizes, outs[0], n_banks, sees=sees)
            if outs == ins
            else None
        )
    if outs == ins:  # the ranks of each filter, or of the single filter
        return Stage(number, 2, weigh, filter_, *sizes, ins[0], (*ins, 1)[1])
    if len(outs) == 1 and ins == (1, *outs):
        return Stage(number, 2, weigh, filter_, *sizes, 1, outs[0])
    if len(outs) == 1 and len(ins) == 2 and ins[0] == outs[0]:
        return Stage(number, 2, weigh, filter_, *sizes, ins[0], ins[1], is_shared=True)
    return None


# ------------------------------------------------------------------------------ inputs, outputs


@dataclass(frozen=True)
class Given:
    """The input of a stage, and its moments.

    Attributes
    ----------
    trials : list of Trial
        Trials with only this input, shifted by the lags after the present.
    stimulus : ndarray of shape (n_lags, n_channels, n_lags, n_channels)
        Covariance of the lagged input.
    response : ndarray of shape (n_lags, n_channels, n_outputs)
        Covariance of the lagged input with the response.
    mean, spread : ndarray of shape (n_channels,)
        Mean and standard deviation of the input; the latter is positive.
    lagged_mean : ndarray of shape (n_lags, n_channels)
        Means at each lag.
    sizes : ndarray of shape (n_outputs,) or None
        Scales by which responses were divided; None for 1.
    cache : dict
        Results that several units share.
    """

    trials: list[Trial]
    stimulus: np.ndarray
    response: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    lagged_mean: np.ndarray
    sizes: np.ndarray | None = None
    cache: dict = field(default_factory=dict)

    def kernels(self) -> np.ndarray:
        """Kernels (n_lags, n_channels, n_outputs) by ridge regression."""
        n_lags, n_channels, n_outputs = self.response.shape
        flat = self.stimulus.reshape(n_lags * n_channels, -1)
        right = self.response.reshape(-1, n_outputs)
        return factors.ridge(flat, right).reshape(self.response.shape)

    def of(self, channels: np.ndarray) -> Given:
        """Return the moments of a subset of channels."""
        return replace(
            self,
            stimulus=self.stimulus[:, channels][:, :, :, channels],
            response=self.response[:, channels],
            mean=self.mean[channels],
            spread=self.spread[channels],
            lagged_mean=self.lagged_mean[:, channels],
            cache={},
        )


def arriving(model: Model, trials: Sequence[Trial], number: int) -> list[np.ndarray] | None:
    """Compute the input of a layer in each trial.

    Parameters
    ----------
    model : Model
        The model.
    trials : sequence of Trial
        The data.
    number : int
        Index of the layer.

    Returns
    -------
    list of ndarray of shape (n_samples, n_channels), or None
        Inputs; None unless they are one finite array per trial.
    """
    layer = model.layers[number]
    rows = [run_first(model, trial.data, number) for trial in trials]
    arrays = [_only_input(layer, one, one[OUTPUT]) for one in rows]
    found = [array for array in arrays if array is not None and np.isfinite(array).all()]
    return found if len(found) == len(arrays) else None


def run_first(model: Model, data: dict[str, np.ndarray], n_layers: int) -> dict:
    """Compute the outputs of the first layers of a model, for one trial.

    Parameters
    ----------
    model : Model
        The model.
    data : dict of ndarray
        Inputs by name.
    n_layers : int
        Number of layers.

    Returns
    -------
    dict
        The data, named outputs, and "output", the output of the last of these layers.
    """
    rows = dict(data)
    previous, steps = first(rows), model.steps(rows)
    for _ in range(n_layers):
        next(steps)
    return rows if n_layers else {**rows, OUTPUT: previous}


def _only_input(layer: Layer, rows: dict, previous) -> np.ndarray | None:
    """Return the input of a layer, if it is one array, with the channels of banks concatenated."""
    args, named = arguments(layer, rows, previous)
    inputs = [*args, *named.values()]
    if len(inputs) != 1 or getattr(inputs[0], "ndim", 0) not in (2, 3):
        return None
    array = np.asarray(inputs[0], dtype=float)
    return array.reshape(len(array), -1)


def later(array: np.ndarray, n_rows: int) -> np.ndarray:
    """Replace each row by the one n_rows later, or earlier if negative, with zero padding."""
    moved = np.zeros_like(array)
    n_left = max(len(array) - abs(n_rows), 0)
    if n_rows >= 0:
        moved[:n_left] = array[n_rows:]
    else:
        moved[len(array) - n_left :] = array[:n_left]
    return moved


def at_input_rate(
    rows: Sequence[np.ndarray], arrays: Sequence[np.ndarray], stage: Stage, model: Model
) -> list[np.ndarray]:
    """Expand rows of the response to the rate of a stage's input, with zeros in between."""
    spaced = [np.zeros((len(array), one.shape[1])) for one, array in zip(rows, arrays, strict=True)]
    for new, one in zip(spaced, rows, strict=True):
        new[:: model.stride // stage.rate] = one
    return spaced


def make_given(
    stage: Stage,
    arrays: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
) -> Given:
    """Compute the moments of a stage's input.

    Parameters
    ----------
    stage : Stage
        The stage.
    arrays : sequence of ndarray of shape (n_samples, n_channels)
        Input in each trial.
    targets : sequence of ndarray of shape (n_samples, n_outputs)
        Targets to predict in each trial.
    weights : sequence of ndarray of shape (n_samples, 1)
        Weights, not all 0.

    Returns
    -------
    Given
        The moments.
    """
    trials = [
        Trial({INPUT: later(array, stage.n_future)}, target, weight)
        for array, target, weight in zip(arrays, targets, weights, strict=True)
    ]
    n_lags, n_channels = stage.n_lags, stage.n_channels
    moments = lagged_moments(trials, n_lags)
    varies = np.diag(moments.stimulus) > LEAST_VARIANCE * moments.stimulus_mean**2
    stimulus = np.where(np.outer(varies, varies), moments.stimulus, 0.0)
    stimulus = stimulus.reshape(n_lags, n_channels, n_lags, n_channels)
    response = np.where(varies[:, np.newaxis], moments.response, 0.0)
    response = response.reshape(n_lags, n_channels, -1)
    spread = np.sqrt(np.maximum(np.einsum("cc->c", stimulus[0, :, 0]), 0))
    spread = np.where(spread > 0, spread, np.max(spread, initial=0) or 1.0)
    lagged_mean = moments.stimulus_mean.reshape(n_lags, n_channels)
    return Given(trials, stimulus, response, lagged_mean[0], spread, lagged_mean)


def given_for_all(
    stage: Stage,
    arrays: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    lags: Sequence[int] = (0,),
) -> Given:
    """Compute moments with all responses, of unit variance, at several lags.

    Parameters
    ----------
    stage : Stage
        The stage.
    arrays : sequence of ndarray of shape (n_samples, n_channels)
        Input in each trial.
    targets, weights : sequence of ndarray of shape (n_samples, n_outputs)
        Responses and their weights, not all 0 for any output.
    lags : sequence of int
        Delays of the responses to predict, in rows.

    Returns
    -------
    Given
        Moments with a response for each lag and output. Each row has the mean of all weights, and
        responses are scaled so that their products with the input have the individual weights.
    """
    y, w = np.concatenate(targets), np.concatenate(weights)
    total = w.sum(axis=0)
    mean = (w * y).sum(axis=0) / total
    spread = np.sqrt((w * (y - mean) ** 2).sum(axis=0) / total)
    varies = spread > ROUNDING * np.abs(mean)
    spread = np.where(varies, spread, 1.0)
    shares = [one / total for one in weights]
    centred = [s * varies * (y - mean) / spread for s, y in zip(shares, targets, strict=True)]
    shares, centred = (
        [np.concatenate([later(one, lag) for lag in lags], axis=1) for one in parts]
        for parts in (shares, centred)
    )
    size = len(y)
    weight = [size * one.mean(axis=1, keepdims=True) for one in shares]
    scaled = [size * c / np.where(w > 0, w, 1.0) for c, w in zip(centred, weight, strict=True)]
    return replace(make_given(stage, arrays, scaled, weight), sizes=np.tile(spread, len(lags)))
