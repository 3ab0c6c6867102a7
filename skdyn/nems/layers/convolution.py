"""Two-dimensional convolutions over time and channels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import conv2d, pad

from skdyn.nems.distributions import Normal
from skdyn.nems.layers.base import Layer, check_shape, is_count, misfit, on_tensors
from skdyn.nems.layers.filters import _check_stride, _Filter
from skdyn.nems.parameter import Parameter, Phi
from skdyn.nems.words import PENALTY, Word

# Operation on the last axis, that of filters.
POOLINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "average": lambda values: values.mean(-1),
    "max": lambda values: values.amax(-1),
    "min": lambda values: values.amin(-1),
    "sum": lambda values: values.sum(-1),
    "product": lambda values: values.prod(-1),
    "std": lambda values: values.std(-1, correction=0),
    "stack": lambda values: values,
    "cat": lambda values: values.flatten(-2),
}
PADDINGS = ("zeros", "reflect", "none")


class Conv2d(_Filter):
    """Two-dimensional convolution over time and channels.

    The output of filter k is
    z[t, f, k] = sum_{l, j, p} x[t - l, f + j - n_bands // 2, p] h[l, j, p, k]:
    causal in time, and centred over channels. The filters are then pooled.

    Parameters
    ----------
    shape : tuple of int
        (n_lags, n_bands) for one filter, (n_lags, n_bands, n_filters), or (n_lags, n_bands,
        n_planes, n_filters) for an input of several planes, such as the filters of a previous
        layer. With three sizes, n_planes is 1. An n_planes of None is inferred from the data.
    pooling : {"average", "max", "min", "sum", "product", "std", "stack", "cat"}, default="average"
        Pooling of the filters. "stack" keeps the filters as a third axis, "cat" puts filter k of
        channel f in column f n_filters + k, and the other values reduce the filters to one number
        per channel.
    padding : {"zeros", "reflect", "none"}, default="zeros"
        Padding of the channel axis: "zeros"; "reflect", which mirrors the channels; or "none",
        which reduces the number of output channels by n_bands - 1. The time axis is padded with
        zeros before the first row.
    stride, channel_stride : int, default=1
        Step between output rows, and between output channels, from the first on.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    The prior of the coefficients h is normal with a standard deviation of 1 / n, where n is the
    number of coefficients, and a mean of zero; with more than two lags, the mean is 2 / n at lag 1
    and -1 / n at lag 2. A data-driven start draws the coefficients and scales them to outputs of
    unit size.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import Conv2d
    >>> layer = Conv2d(shape=(2, 3))
    >>> layer["coefficients"] = [[0, 1, 0], [1, 0, 0]]
    >>> layer.evaluate(np.array([[1, 2, 3], [0, 0, 0]]))
    array([[1., 2., 3.],
           [0., 1., 2.]])
    """

    word = "conv2d"
    penalised = ("coefficients",)

    shape: tuple[int, ...]

    def __init__(
        self,
        shape,
        *,
        pooling: str = "average",
        padding: str = "zeros",
        stride: int = 1,
        channel_stride: int = 1,
        **layer_options,
    ):
        for name, value, known in (
            ("pooling", pooling, list(POOLINGS)),
            ("padding", padding, list(PADDINGS)),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}, but is {value!r}.")
        if not is_count(channel_stride):
            raise ValueError(
                f"channel_stride must be a whole number of at least 1, but is {channel_stride!r}."
            )
        self.pooling, self.padding = pooling, padding
        self.stride, self.channel_stride = _check_stride(stride), int(channel_stride)
        expected = (
            "(n_lags, n_bands), (n_lags, n_bands, n_filters) or (n_lags, n_bands, n_planes, "
            "n_filters)"
        )
        super().__init__(check_shape(shape, expected, (2, 3, 4)), **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        word.refuse("PROD|STACK|MAX|MIN|AVG|STD|SUM|CAT", "is written in small letters here")
        paddings = ["reflect", "nopad"]
        flags = word.flags(*POOLINGS, *paddings, "s#", PENALTY)
        word.exclude(*POOLINGS)
        word.exclude(*paddings)
        pooling = next((name for name in POOLINGS if name in flags), "average")
        padding = "none" if "nopad" in flags else "reflect" if "reflect" in flags else "zeros"
        strides = divmod(word.number("s", 11), 10)
        if strides[0] == 0:  # one number is the stride in time
            strides = (strides[1], 1)
        return cls(
            word.shape(2, 4),
            pooling=pooling,
            padding=padding,
            stride=strides[0],
            channel_stride=strides[1],
            l2=word.penalty,
        )

    def word_options(self) -> list[str]:
        """Return the options that `from_word` reads."""
        strides = f"s{self.stride}{self.channel_stride}"
        padding = {"zeros": "", "none": "nopad"}.get(self.padding, self.padding)
        return [
            "" if self.pooling == "average" else self.pooling,
            padding,
            "" if strides == "s11" else strides,
        ]

    def initial_parameters(self) -> Phi:
        """Return the filters.

        Returns
        -------
        Phi
            The parameter coefficients, of the shape of the layer.
        """
        mean, size = np.zeros(self.shape), float(np.prod(self.shape))
        if self.shape[0] > 2:
            mean[1], mean[2] = 2 / size, -1 / size
        return Phi(Parameter("coefficients", self.shape, prior=Normal(mean, 1 / size)))

    def start_from(
        self, random_state: np.random.RandomState, *inputs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Draw filters, scaled to outputs of unit size; see `Layer`."""
        if self["coefficients"].is_frozen:
            return {}
        drawn = self.copy()
        assert isinstance(drawn, Conv2d)
        drawn.sample_from_priors(random_state)
        coefficients = drawn["coefficients"].values
        size = np.asarray(drawn.filtered(inputs[0])).std(axis=(0, 1))
        size = np.where((size > 0) & np.isfinite(size), size, 1.0)
        return {"coefficients": coefficients / (size if len(self.shape) > 2 else size[0])}

    def sizes_from(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """Complete the shape.

        Parameters
        ----------
        *shapes : tuple of int
            Shape of the input, (n_samples, n_channels) or (n_samples, n_channels, n_planes).

        Returns
        -------
        tuple of int
            The shape, with n_planes from the input.
        """
        sizes = list[int | None](self.shape)
        if len(sizes) == 4 and sizes[2] is None:
            sizes[2] = shapes[0][2] if len(shapes[0]) > 2 else 1
        if None in sizes:
            raise misfit(
                self, shapes[0], "a layer with only n_planes left open", "Write the other sizes"
            )
        return tuple(sizes)  # type: ignore[arg-type]

    @property
    def n_past(self) -> int:  # type: ignore[override]
        """Number of past rows that an output depends on.

        Returns
        -------
        int
            The number of lags minus one.
        """
        return self.shape[0] - 1

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Filter and pool.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_channels) or (n_samples, n_channels, \
                n_planes)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_out) or (n_samples, n_out, n_filters)
            One row for each `stride` rows.
        """
        return self._decimated(POOLINGS[self.pooling](self.filtered(input)))

    @on_tensors
    def filtered(self, input):  # noqa: A002
        """Compute the outputs of all filters, in all rows.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_channels) or (n_samples, n_channels, \
                n_planes)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_out, n_filters)
            The outputs before pooling.
        """
        (coefficients,) = self.get_parameter_values("coefficients")
        if coefficients.ndim < 4:
            coefficients = coefficients.reshape(*self.shape[:2], 1, -1)
        planes = input.unsqueeze(-1) if input.ndim == 2 else input
        n_lags, n_bands, n_planes, _ = coefficients.shape
        least = n_bands // 2 + 1 if self.padding == "reflect" else 1
        least = n_bands if self.padding == "none" else least
        if planes.ndim != 3 or planes.shape[2] != n_planes or planes.shape[1] < least:
            raise misfit(
                self,
                input.shape,
                f"(n_samples, n_channels, {n_planes}), or (n_samples, n_channels) for one plane, "
                f"with at least {least} channels,",
                "Write n_planes in the shape, or name another input",
            )
        trials = planes.unflatten(0, (self.n_trials, -1)).permute(0, 3, 1, 2)
        trials = pad(self._padded(trials, n_bands), (0, 0, n_lags - 1, 0))
        found = conv2d(trials, coefficients.flip(0).permute(3, 2, 0, 1))
        found = found[..., :: self.channel_stride]
        return found.permute(0, 2, 3, 1).flatten(0, 1)

    def _padded(self, trials: torch.Tensor, n_bands: int) -> torch.Tensor:
        """Pad the channels, the last axis."""
        before, after = n_bands // 2, n_bands - n_bands // 2 - 1
        if self.padding == "none":
            return trials
        if self.padding == "zeros":
            return pad(trials, (before, after))
        n_channels = trials.shape[-1]
        places = np.abs(np.arange(-before, n_channels + after))
        places = np.minimum(places, 2 * (n_channels - 1) - places)
        return trials[..., places.tolist()]
