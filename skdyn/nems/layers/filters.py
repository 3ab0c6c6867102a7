"""Layers that filter in time: an output depends on previous inputs."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch
from torch.nn.functional import conv1d, pad

from skdyn.nems.distributions import Normal
from skdyn.nems.layers.base import (
    Layer,
    check_shape,
    check_width,
    is_count,
    misfit,
    on_tensors,
    sizes_with_width,
)
from skdyn.nems.layers.channels import weigh
from skdyn.nems.layers.description import KernelPart
from skdyn.nems.parameter import Parameter, Phi
from skdyn.nems.words import PENALTY, Word

# Number of rows per block. Measured: for 15 lags 24 is the fastest of 8 to 64, and for 200 lags it
# is close to the fastest.
BLOCK = 24

# With at least this many filters of the same channels, and at most this many lags, a plain
# convolution is faster. Measured: two to ten times for 60 filters of 15 lags; slower for 10 filters
# or 60 lags.
MANY_FILTERS, FEW_LAGS = 32, 30

# The product of the filters with a matrix of all lags is faster still, if the input needs no
# gradient. Measured: a quarter to two fifths for 100 filters of 15 lags and 34 channels. This is
# the largest matrix, in numbers.
LAGGED_SIZE = 2**23


def filter_in_time(
    input: torch.Tensor,  # noqa: A002
    coefficients: torch.Tensor,
    n_future: int = 0,
    n_trials: int = 1,
) -> torch.Tensor:
    """Filter with finite impulse responses, with zero padding.

    y[t, k] = sum_{l, r} x[t + n_future - l, r(, k)] h[l, r, k]

    Parameters
    ----------
    input : Tensor of shape (n_samples, n_ranks) or (n_samples, n_ranks, n_filters)
        Rows of time; with two axes, each filter receives all columns.
    coefficients : Tensor of shape (n_lags, n_ranks, n_filters)
        Impulse responses, from the latest row to the earliest.
    n_future : int, default=0
        Position of the first lag in rows after the present; negative if it lies before the present.
    n_trials : int, default=1
        Number of concatenated trials of equal length, which are padded separately.

    Returns
    -------
    Tensor of shape (n_samples, n_filters)
        The filtered rows.

    Notes
    -----
    Time is divided into blocks, and the rows of a block are multiplied by a banded Toeplitz matrix
    of the response. With tens of lags and several filters this was the fastest method measured;
    with many filters a convolution, or a product with all lags, is faster. Fourier transforms are
    faster with hundreds of lags, but their rounding errors make outputs depend on future rows.
    """
    coefficients, n_future = _with_present(coefficients, n_future)
    n_lags, _, n_filters = coefficients.shape
    n_samples = input.shape[0] // n_trials
    before = n_lags - 1 - n_future
    if input.ndim == 2 and n_filters >= MANY_FILTERS and n_lags <= FEW_LAGS:
        trials = pad(input.unflatten(0, (n_trials, -1)), (0, 0, before, n_future))
        return _with_many_filters(trials, coefficients)
    responses = coefficients.flip(0)
    if input.ndim == 2:  # one group: (1, ranks, time) and (1, ranks, filters, lags)
        series = input.movedim(0, -1).unsqueeze(0)
        responses = responses.permute(1, 2, 0).unsqueeze(0)
    else:  # a group per filter: (filters, ranks, time) and (filters, ranks, 1, lags)
        series = input.permute(2, 1, 0)
        responses = responses.permute(2, 1, 0).unsqueeze(2)
    n_blocks = max(1, -(-n_samples // BLOCK))
    windows = _windows(series.unflatten(-1, (n_trials, n_samples)), before, n_lags, n_blocks)
    windows = windows.flatten(2, 3).transpose(1, 2).flatten(2)
    bands = _bands(responses).permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)
    blocks = (windows @ bands).unflatten(-1, (-1, BLOCK))  # (groups, blocks, filters, BLOCK)
    output = blocks.transpose(1, 2).reshape(n_filters, n_trials, -1)[..., :n_samples]
    return output.flatten(1).movedim(0, 1)


def _with_many_filters(trials: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Filter padded trials, of shape (trial, row, channel), with filters of all channels."""
    n_lags = len(coefficients)
    n_rows = trials.shape[1] - n_lags + 1
    if trials.requires_grad or len(trials) * n_rows * coefficients[:, :, 0].numel() > LAGGED_SIZE:
        responses = coefficients.permute(2, 1, 0).flip(-1)
        output = conv1d(trials.permute(0, 2, 1), responses)
        return output.permute(1, 0, 2).flatten(1).movedim(0, 1)
    # Lags and channels are adjacent in memory, so that a row of the matrix is copied as a whole.
    lagged = trials.unfold(1, n_lags, 1).movedim(-1, 2).flatten(2).flatten(0, 1)
    return lagged @ coefficients.flip(0).flatten(0, 1)


def _with_present(coefficients: torch.Tensor, n_future: int) -> tuple[torch.Tensor, int]:
    """Return responses whose lags include the present, and the number of lags after it."""
    before, after = max(-n_future, 0), max(n_future - len(coefficients) + 1, 0)
    if before or after:
        coefficients = pad(coefficients, (0, 0, 0, 0, before, after))
    return coefficients, max(n_future, 0)


def _windows(series: torch.Tensor, before: int, n_lags: int, n_blocks: int) -> torch.Tensor:
    """Cut the last axis, padded with zeros, into (blocks, rows): each block and its past.

    Blocks side by side, because the gradient of `unfold` takes twice as long.
    """
    n_past = n_lags - 1
    n_more = -(-n_past // BLOCK)
    n_after = (n_blocks + n_more) * BLOCK - series.shape[-1] - before
    blocks = pad(series, (before, n_after)).unflatten(-1, (n_blocks + n_more, BLOCK))
    parts = [blocks[..., first : first + n_blocks, :] for first in range(n_more + 1)]
    parts[-1] = parts[-1][..., : n_past - BLOCK * (n_more - 1)]
    return torch.cat(parts, dim=-1)


def _bands(responses: torch.Tensor) -> torch.Tensor:
    """Build banded matrices (BLOCK, BLOCK + n_lags - 1) from the last axis, that of lags."""
    # Copies, each followed by BLOCK zeros, are concatenated and read in rows that are one entry
    # shorter, so that each row starts one entry earlier.
    period = responses.shape[-1] + BLOCK
    padded = pad(responses, (0, BLOCK)).unsqueeze(-2)
    flat = padded.expand(*padded.shape[:-2], BLOCK, period).flatten(-2)
    return flat[..., : BLOCK * (period - 1)].unflatten(-1, (BLOCK, period - 1))


def _initial_coefficients(shape: tuple[int, ...], start: list[float]) -> Parameter:
    """Return responses that start with values in units of 1 / n_lags, followed by zeros."""
    mean = np.zeros(shape)
    for lag, value in enumerate(start[: shape[0]]):
        mean[lag] = value / shape[0]
    return Parameter("coefficients", shape, prior=Normal(mean, 1 / shape[0]))


class _Filter(Layer):
    """Base class of filters with a stride, any range of lags, and one or more trials."""

    joins_trials = True
    # Omitted from the repr if they are unset.
    quiet = frozenset({"tmin", "tmax", "sampling_frequency"})
    stride: int = 1
    tmin: float | None = None

    def _set_lags(self, shape: tuple, axis: int, tmin, tmax, sampling_frequency) -> tuple:
        """Store the range of lags and set their number in the shape."""
        self.tmin, self.tmax, self.sampling_frequency = tmin, tmax, sampling_frequency
        self._axis = axis
        if (tmin, tmax, sampling_frequency) == (None, None, None):
            return shape
        if None in (tmin, tmax, sampling_frequency) or sampling_frequency <= 0 or tmin > tmax:
            raise ValueError(
                f"tmin={tmin}, tmax={tmax} and sampling_frequency={sampling_frequency} must be "
                "given together, with tmin <= tmax in seconds and a frequency above 0 Hz."
            )
        n_lags = round(tmax * sampling_frequency) - round(tmin * sampling_frequency) + 1
        if shape[axis] not in (None, n_lags):
            raise ValueError(
                f"shape has {shape[axis]} lags, but from {tmin} to {tmax} s there are {n_lags}. "
                "Write None for their number."
            )
        return (*shape[:axis], n_lags, *shape[axis + 1 :])

    def get_params(self, deep: bool = True) -> dict:
        """Return the arguments of the constructor; see `Layer`. n_lags is None with `tmin`."""
        params = super().get_params(deep)
        if self.tmin is not None:
            axis = self._axis
            params["shape"] = (*self.shape[:axis], None, *self.shape[axis + 1 :])
        return params

    @property
    def first_lag(self) -> int:  # type: ignore[override]
        """Lag of the first row of the responses, in samples.

        Returns
        -------
        int
            The lag; negative if it lies after the present.
        """
        return 0 if self.tmin is None else round(self.tmin * self.sampling_frequency)

    @property
    def lags(self) -> np.ndarray:
        """Lags of the rows of the responses.

        Returns
        -------
        ndarray of int of shape (n_lags,)
            Delays of the output relative to the input, in samples.
        """
        return self.first_lag + np.arange(self.shape[self._axis])

    @property
    def n_past(self) -> int:  # type: ignore[override]
        """Number of past rows that an output depends on.

        Returns
        -------
        int
            The last lag, if it lies before the present.
        """
        return max(self.first_lag + self.shape[self._axis] - 1, 0)

    @property
    def n_future(self) -> int:  # type: ignore[override]
        """Number of future rows that an output depends on.

        Returns
        -------
        int
            0 for a causal filter.
        """
        return max(-self.first_lag, 0)

    def _decimated(self, output: torch.Tensor) -> torch.Tensor:
        """Return every stride-th row of each trial, from its first on."""
        if self.stride == 1:
            return output
        return output.unflatten(0, (self.n_trials, -1))[:, :: self.stride].flatten(0, 1)


class FiniteImpulseResponse(_Filter):
    """Finite impulse response (FIR) filters, causal by default.

    The output is y[t, k] = sum_{l, r} x[t - l, r] h[l, r, k]; where x has an axis of filters,
    filter k takes x[t - l, r, k]. Row 0 of the coefficients h is lag 0, or the first of `lags`. The
    input is padded with zeros before the first row and after the last.

    Parameters
    ----------
    shape : tuple of int
        (n_lags, n_ranks) for one filter, or (n_lags, n_ranks, n_filters). Sizes other than n_lags
        can be None and are then inferred from the data, unless they are ambiguous.
    stride : int, default=1
        Step between the rows of the output that are kept, from the first on.
    include_anticausal : bool, default=False
        Whether the lags are centred around the present: n_lags // 2 - 1 (at least 0) of the rows
        lie before it, and the others after it. Row 0 of h is the latest.
    tmin, tmax : float, default=None
        First and last lag in seconds, both included; the number of lags in the shape is then None.
        At a positive lag, the input precedes the output: an encoding model of a response to a
        stimulus uses lags of at least 0, a decoder of the stimulus from the response lags of at
        most 0.
    sampling_frequency : float, default=None
        Rows per second, in Hz, with `tmin` and `tmax`, which are rounded to whole samples.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    Inputs of each filter:

    ============================  =====================  ==================================
    input                         shape                  filter k sees
    ============================  =====================  ==================================
    (n_samples, R)                (n_lags, R)            all R channels; there is one filter
    (n_samples, R)                (n_lags, R, N)         all R channels
    (n_samples, R, N)             (n_lags, R, N)         the R channels [:, :, k]
    (n_samples, N)                (n_lags, 1, N)         channel k
    ============================  =====================  ==================================

    The prior of the coefficients is normal with a standard deviation of 1 / n_lags and a mean of
    zero; with more than two lags, the mean is 2 / n_lags at lag 1 and -1 / n_lags at lag 2.

    A NaN also affects up to 23 rows before it, because rows are computed in blocks of 24.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import FiniteImpulseResponse
    >>> layer = FiniteImpulseResponse(shape=(3, 1))
    >>> layer["coefficients"] = [[4], [2], [1]]
    >>> layer.evaluate(np.array([[1], [0], [0], [0], [10]])).ravel()
    array([ 4.,  2.,  1.,  0., 40.])
    """

    word = "fir"
    penalised = ("coefficients",)
    axes = MappingProxyType({"coefficients": ("lags", "channels")})

    shape: tuple[int, ...]

    def __init__(
        self,
        shape,
        *,
        stride: int = 1,
        include_anticausal: bool = False,
        tmin: float | None = None,
        tmax: float | None = None,
        sampling_frequency: float | None = None,
        **layer_options,
    ):
        self.stride, self.include_anticausal = _check_stride(stride), include_anticausal
        if include_anticausal and tmin is not None:
            raise ValueError("include_anticausal and tmin were both given. Pass one of them.")
        expected = "(n_lags, n_ranks) or (n_lags, n_ranks, n_filters)"
        checked = check_shape(shape, expected, (2, 3))
        sized = self._set_lags(checked, 0, tmin, tmax, sampling_frequency)
        super().__init__(sized, **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        word.refuse(r"[pz]\d.*", "asks for a filter of poles and zeros: write 'pz.15x3.p2.z1'")
        flags = word.flags("s#", "ac", PENALTY)
        return cls(
            word.shape(2, 3),
            stride=word.number("s", 1),
            include_anticausal="ac" in flags,
            l2=word.penalty,
        )

    def word_options(self) -> list[str]:
        """Return the options that `from_word` reads."""
        return [*_stride_option(self.stride), *(["ac"] if self.include_anticausal else [])]

    @property
    def first_lag(self) -> int:  # type: ignore[override]
        """Lag of the first row of the responses; see `lags`."""
        if self.include_anticausal:
            n_lags = self.shape[0]
            return max(n_lags // 2 - 1, 0) - (n_lags - 1)
        return super().first_lag

    def filter_sizes(self) -> tuple[int, int, int] | None:
        """Return the sizes, if each filter receives all channels."""
        n_lags, n_ranks, *n_filters = self.shape
        n_outputs = n_filters[0] if n_filters else 1
        # With one rank, each filter has its own channel, unless there is one channel.
        own = n_ranks == 1 and n_outputs > 1
        return (n_lags, n_ranks, n_outputs) if self.stride == 1 and not own else None

    def kernel_part(self) -> KernelPart:
        """Describe the filters; see `Layer`."""
        n_lags, *sizes = self.shape
        return KernelPart(
            sizes=tuple(sizes),
            n_lags=n_lags,
            n_future=-self.first_lag,
            stride=self.stride,
            filters=self["coefficients"],
        )

    def take_outputs(self, demand: tuple[int | None, ...]) -> tuple[int | None, ...] | None:
        """Infer the number of filters; the previous layer has ranks for each of them."""
        n_lags, n_ranks, *n_filters = tuple[int | None, ...](self.shape)
        n_outputs = demand[-1]
        if not n_filters:
            if n_outputs is not None and n_outputs > 1:
                self.shape = (n_lags, n_ranks, n_outputs)  # type: ignore[assignment]
                return n_ranks, n_outputs
            return (n_ranks,)
        if n_filters[0] is None:
            self.shape = (n_lags, n_ranks, n_outputs)  # type: ignore[assignment]
        return None if n_ranks is None else (n_outputs,)

    def initial_parameters(self) -> Phi:
        """Return the impulse responses.

        Returns
        -------
        Phi
            The parameter coefficients, of the shape of the layer.
        """
        start = [0.0, 2.0, -1.0] if self.shape[0] > 2 else []
        return Phi(_initial_coefficients(self.shape, start))

    def sizes_from(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """Complete the shape.

        Parameters
        ----------
        *shapes : tuple of int
            Shape of the input, (n_samples, n_ranks) or (n_samples, n_ranks, n_filters).

        Returns
        -------
        tuple of int
            The shape, with sizes from the input.
        """
        n_lags, *sizes = self.shape
        given = list(shapes[0][1:])
        if len(given) == 1 and len(sizes) == 2:
            # Two axes are ambiguous unless the number of filters, or one channel per filter, is
            # known.
            given = [1, *given] if sizes[0] == 1 else [*given, sizes[1]]
        found = [new if size is None else size for size, new in zip(sizes, given, strict=False)]
        if n_lags is None or len(given) != len(sizes) or None in found:
            raise misfit(
                self,
                shapes[0],
                "one that determines the sizes left open",
                "Write them in the shape",
            )
        return (n_lags, *found)

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Filter.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_ranks) or (n_samples, n_ranks, n_filters)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_filters)
            One row for each `stride` rows.
        """
        (coefficients,) = self.get_parameter_values("coefficients")
        _, n_ranks, *n_filters = self.shape
        if not n_filters:
            coefficients = coefficients.unsqueeze(-1)
        given = tuple(input.shape[1:])
        if len(given) == 1 and [1, *given] == [n_ranks, *n_filters]:
            input = input.unsqueeze(1)  # noqa: A001
        elif given != (n_ranks,) and given != (n_ranks, *n_filters):
            raise misfit(self, input.shape, *self._what_fits())
        output = filter_in_time(input, coefficients, -self.first_lag, self.n_trials)
        return self._decimated(output)

    def _what_fits(self) -> tuple[str, str]:
        _, n_ranks, *n_filters = self.shape
        fits = [f"(n_samples, {n_ranks})"]
        if n_filters:
            fits.append(f"(n_samples, {n_ranks}, {n_filters[0]})")
            if n_ranks == 1:
                fits.append(f"(n_samples, {n_filters[0]})")
        advice = (
            "Make the layer with shape=(n_lags, n_channels, n_filters) for filters that see all "
            "channels, or with (n_lags, 1, n_channels) for a filter per channel"
        )
        return " or ".join(dict.fromkeys(fits)), advice


FIR = FiniteImpulseResponse


class STRF(_Filter):
    """Spectro-temporal receptive fields (STRF): channel weights followed by filters.

    The output is y[t, k] = f(sum_{l, r} z[t - l, r, k] h[l, r, k] + shift[k]), where z[t, r, k] =
    sum_c x[t, c] w[c, r, k] are n_ranks weighted sums of channels for each filter, and f is the
    activation. Row 0 of h is lag 0, and the input is padded with zeros before the first row.

    Parameters
    ----------
    shape : tuple of int
        (n_in, n_ranks, n_lags, n_filters); (n_in, n_ranks, n_lags) for one filter; or (n_in,
        n_lags) for one filter with a separate response for each channel, which has neither w nor
        shift. An n_in of None is inferred from the data. With four sizes, an n_ranks of None is the
        smaller of n_in and n_lags.
    skip_alpha : float, default=0.0
        If not zero, abs(skip_alpha) times the first n_filters channels are added: before the
        activation if it is negative, after it if it is positive.
    activation : {None, "relu"}, default=None
        "relu" sets negative values to zero.
    stride : int, default=1
        Step between the rows of the output that are kept, from the first on.
    tmin, tmax : float, default=None
        First and last lag in seconds, as for `FiniteImpulseResponse`; n_lags is then None.
    sampling_frequency : float, default=None
        Rows per second, in Hz, with `tmin` and `tmax`.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    All priors are normal. wcoefficients w have a mean of 0.01 and a standard deviation of 0.05.
    Coefficients h have a standard deviation of 1 / n_lags and a mean of zero, except for the first
    three lags, where it is (0, 2, -1) / n_lags with at least ten lags, and (0.5, 0.5, -0.5) /
    n_lags with fewer. shift has a mean of 0 and a standard deviation of 0.01. With a shape of two
    sizes, the prior is that of `FiniteImpulseResponse`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import STRF
    >>> layer = STRF(shape=(3, 1, 2), activation="relu")
    >>> layer.set_parameter_values(wcoefficients=[[1], [1], [1]], coefficients=[[1], [-2]])
    >>> layer.evaluate(np.array([[1, 2, 3], [0, 0, 0], [4, 0, 0]])).ravel()
    array([6., 0., 4.])
    """

    word = "strf"
    penalised = ("wcoefficients", "coefficients")
    axes = MappingProxyType({"wcoefficients": ("channels",), "coefficients": ("lags",)})

    shape: tuple[int, ...]

    def __init__(
        self,
        shape,
        *,
        skip_alpha: float = 0.0,
        activation: str | None = None,
        stride: int = 1,
        tmin: float | None = None,
        tmax: float | None = None,
        sampling_frequency: float | None = None,
        **layer_options,
    ):
        if activation not in (None, "relu"):
            raise ValueError(
                f"activation must be None or 'relu', but is {activation!r}. Add a layer for "
                "another one."
            )
        self.skip_alpha, self.activation = skip_alpha, activation
        self.stride = _check_stride(stride)
        expected = "(n_in, n_lags), (n_in, n_ranks, n_lags) or (n_in, n_ranks, n_lags, n_filters)"
        checked = check_shape(shape, expected, (2, 3, 4))
        axis = 1 if len(checked) == 2 else 2
        sized = self._set_lags(checked, axis, tmin, tmax, sampling_frequency)
        super().__init__(sized, **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        flags = word.flags("relu", "sk", "sk#", "skl", "skl#", "s#", PENALTY)
        word.exclude("sk", "sk#", "skl", "skl#")
        after = 100 if "sk" in flags else word.number("sk", 0)
        before = 100 if "skl" in flags else word.number("skl", 0)
        return cls(
            word.shape(2, 4),
            skip_alpha=(after - before) / 100,
            activation="relu" if "relu" in flags else None,
            stride=word.number("s", 1),
            l2=word.penalty,
        )

    def word_options(self) -> list[str]:
        """Return the options that `from_word` reads."""
        name = "sk" if self.skip_alpha > 0 else "skl"
        skip = [f"{name}{abs(round(100 * self.skip_alpha))}"] if self.skip_alpha else []
        activation = [self.activation] if self.activation else []
        return [*activation, *skip, *_stride_option(self.stride)]

    def filter_sizes(self) -> tuple[int, int, int] | None:
        """Return the sizes, for one filter with a separate response for each channel."""
        if len(self.shape) > 2 or self.activation or self.skip_alpha or self.stride > 1:
            return None
        return self.shape[1], self.shape[0], 1

    def kernel_part(self) -> KernelPart:
        """Describe channel weights, filters and activation; see `Layer`."""
        n_in, *sizes = self.shape
        weights = self["wcoefficients"] if len(sizes) > 1 else None
        return KernelPart(
            sizes=(n_in,) if weights is None else (sizes[0], *sizes[2:]),
            n_channels=n_in,
            n_lags=len(self.lags),
            n_future=-self.first_lag,
            stride=self.stride,
            weights=() if weights is None else (weights,),
            channel_weights=None if weights is None else lambda: weights.values,
            filters=self["coefficients"],
            shift=self.parameters.get("shift"),
            rectifies=self.activation == "relu",
            skip=abs(self.skip_alpha),
        )

    def initial_parameters(self) -> Phi:
        """Return weights, impulse responses and shifts.

        Returns
        -------
        Phi
            The parameters wcoefficients (n_in, n_ranks[, n_filters]), coefficients (n_lags, n_ranks
            [, n_filters]) and shift (1, n_filters); or only coefficients (n_lags, n_in).
        """
        if self.skip_alpha and self.shape[0] < self._n_filters:
            raise ValueError(
                f"skip_alpha={self.skip_alpha} adds a channel to each filter, but there are "
                f"{self.shape[0]} channels for {self._n_filters} filters. Use skip_alpha=0, or "
                "fewer filters."
            )
        if len(self.shape) == 2:
            n_in, n_lags = self.shape
            return FiniteImpulseResponse((n_lags, n_in)).parameters
        n_in, n_ranks, n_lags, *n_filters = self.shape
        start = [0.0, 2.0, -1.0] if n_lags >= 10 else [0.5, 0.5, -0.5]
        return Phi(
            Parameter("wcoefficients", (n_in, n_ranks, *n_filters), prior=Normal(0.01, 0.05)),
            _initial_coefficients((n_lags, n_ranks, *n_filters), start),
            Parameter("shift", (1, self._n_filters), prior=Normal(0, 0.01)),
        )

    @property
    def _n_filters(self) -> int:
        return self.shape[3] if len(self.shape) == 4 else 1

    def take_outputs(self, demand: tuple[int | None, ...]) -> None:
        """Infer the number of filters; one filter of all channels gets the full rank."""
        n_outputs, sizes = demand[-1], list[int | None](self.shape)
        several = n_outputs is not None and n_outputs > 1
        if len(sizes) == 4 and sizes[3] is None:
            sizes[3] = n_outputs
        elif several and len(sizes) == 3:
            sizes.append(n_outputs)
        elif several and len(sizes) == 2:
            sizes = [sizes[0], None, sizes[1], n_outputs]
        self.shape = tuple(sizes)  # type: ignore[arg-type]

    def sizes_from(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """Complete the shape.

        Parameters
        ----------
        *shapes : tuple of int
            Shape of the input, (n_samples, n_in).

        Returns
        -------
        tuple of int
            The shape, with n_in from the input.
        """
        sizes = list[int | None](self.shape)
        if len(sizes) == 4 and sizes[1] is None and sizes[2] is not None:
            sizes[1] = min(sizes[0] or shapes[0][-1], sizes[2])
            self.shape = tuple(sizes)  # type: ignore[arg-type]
        return sizes_with_width(self, shapes[0])

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Weight the channels, filter, and apply the activation.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_in)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_filters)
            One row for each `stride` rows.
        """
        check_width(self, input.shape)
        output = self._decimated(self._filtered(input))
        skipped = abs(self.skip_alpha) * self._decimated(input)[:, : self._n_filters]
        if self.skip_alpha < 0:
            output = output + skipped
        if self.activation == "relu":
            output = torch.relu(output)
        if self.skip_alpha > 0:
            output = output + skipped
        return output

    def _filtered(self, stimulus: torch.Tensor) -> torch.Tensor:
        if len(self.shape) == 2:
            (coefficients,) = self.get_parameter_values("coefficients")
            coefficients = coefficients.unsqueeze(-1)
            return filter_in_time(stimulus, coefficients, -self.first_lag, self.n_trials)
        weights, coefficients, shift = self.get_parameter_values(
            "wcoefficients", "coefficients", "shift"
        )
        if len(self.shape) == 3:
            coefficients = coefficients.unsqueeze(-1)
        weighted = weigh(stimulus, weights)
        return filter_in_time(weighted, coefficients, -self.first_lag, self.n_trials) + shift


def _check_stride(stride) -> int:
    if not is_count(stride):
        raise ValueError(f"stride must be a whole number of at least 1, but is {stride!r}.")
    return int(stride)


def _stride_option(stride: int) -> list[str]:
    return [f"s{stride}"] if stride > 1 else []
