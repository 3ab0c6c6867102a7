"""Layers that weight the channels of a stimulus, at each moment independently."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch

from skdyn.nems.distributions import HalfNormal, Normal
from skdyn.nems.layers.base import (
    Layer,
    check_shape,
    check_width,
    misfit,
    on_tensors,
    sizes_with_width,
    with_last_size,
)
from skdyn.nems.layers.description import KernelPart
from skdyn.nems.parameter import Parameter, Phi
from skdyn.nems.words import PENALTY, Word

# Description of valid shapes, and allowed numbers of sizes.
SIZES: tuple[str, Container[int]] = "(n_in, n_out) or (n_in, n_ranks, n_out)", range(2, 10)

# Candidate means and standard deviations of Gaussians at the start of a fit.
GRID_MEANS, GRID_SDS = np.linspace(0, 1, 13), np.array([0.08, 0.13, 0.2, 0.35])


def weigh(input: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:  # noqa: A002
    """Compute weighted sums of channels.

    Parameters
    ----------
    input : Tensor of shape (n_samples, n_in)
        Rows of time.
    coefficients : Tensor of shape (n_in, n_out) or (n_in, n_ranks, n_out)
        Weights.

    Returns
    -------
    Tensor of shape (n_samples, n_out) or (n_samples, n_ranks, n_out)
        The sums. Time is the last axis in memory, as filters access it.
    """
    return torch.tensordot(coefficients, input, dims=([0], [1])).movedim(-1, 0)


def gaussian_weights(mean: torch.Tensor, sd: torch.Tensor, n_channels: int) -> torch.Tensor:
    """Return Gaussian channel weights that sum to one.

    Parameters
    ----------
    mean, sd : Tensor of shape (...)
        Centres and widths, in units of the number of channels.
    n_channels : int
        Number of channels.

    Returns
    -------
    Tensor of shape (n_channels, ...)
        The weights.
    """
    places = torch.arange(n_channels, dtype=mean.dtype, device=mean.device) / n_channels
    places = places.reshape(-1, *[1] * mean.ndim)
    # The softmax remains finite if all Gaussians underflow to zero.
    return torch.softmax(-((places - mean) / sd).square() / 2, dim=0)


def _outputs_from(shape: tuple, demand: tuple[int | None, ...]) -> tuple:
    """Complete a shape (n_in, n_out) or (n_in, n_ranks, n_out) for the next layer."""
    if len(demand) == 2 and len(shape) == 2:  # filters with separate ranks
        n_ranks = shape[1] or demand[0] or 1
        return (shape[0], n_ranks, demand[1])
    n_out = demand[-1] or 1
    return (*shape[:-1], n_out if shape[-1] is None else shape[-1])


class _FreeWeights(Layer):
    """Base class of layers with one free weight per channel and output."""

    penalised = ("coefficients",)
    axes = MappingProxyType({"coefficients": ("channels",)})
    n_past = 0
    _sizes = SIZES

    shape: tuple[int, ...]

    def __init__(
        self,
        shape,
        *,
        norm_coefficients: bool = False,
        positive_only: bool = False,
        **layer_options,
    ):
        self.norm_coefficients, self.positive_only = norm_coefficients, positive_only
        super().__init__(check_shape(shape, *self._sizes), **layer_options)

    def word_options(self) -> list[str]:
        """Return the options that `from_word` reads."""
        flags = {"n": self.norm_coefficients, "p": self.positive_only, "i": self.input == "input"}
        return [name for name, is_set in flags.items() if is_set]

    def initial_parameters(self) -> Phi:
        """Return the weights.

        Returns
        -------
        Phi
            The parameter coefficients, of the shape of the layer.
        """
        mean = np.full(self.shape, 0.01)
        mean.flat[:: self.shape[0] + 2] = 0.02
        if self.positive_only:
            prior, bounds = HalfNormal(mean), (0, np.inf)
            return Phi(Parameter("coefficients", self.shape, prior=prior, bounds=bounds))
        return Phi(Parameter("coefficients", self.shape, prior=Normal(mean, 0.1)))

    def _weights(self) -> torch.Tensor:
        (coefficients,) = self.get_parameter_values("coefficients")
        if self.norm_coefficients:
            return coefficients / coefficients.square().mean().sqrt()
        return coefficients

    def kernel_part(self) -> KernelPart:
        """Describe the channel weights; see `Layer`."""
        return KernelPart(
            sizes=self.shape[1:],
            n_channels=self.shape[0],
            weights=(self["coefficients"],),
            channel_weights=self._present_weights,
            is_normed=self.norm_coefficients,
        )

    @on_tensors
    def _present_weights(self):
        return self._weights()


class WeightChannels(_FreeWeights):
    """Weighted sums of channels.

    The output is y[t, r] = sum_c x[t, c] w[c, r], for each entry r of the shape without n_in.

    Parameters
    ----------
    shape : tuple of int
        (n_in, n_out), or (n_in, n_ranks, n_out) for n_ranks sums per output, as input of filters
        with several ranks. An n_in of None is inferred from the data.
    norm_coefficients : bool, default=False
        Whether the weights are divided by their root mean square.
    positive_only : bool, default=False
        Whether weights are constrained to be nonnegative.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    The prior of the coefficients is normal with a standard deviation of 0.1 and a mean of 0.01, or
    of 0.02 for every (n_in + 2)-th entry of the flattened array. With `positive_only` it is half
    normal with these means as its scale, within the bounds (0, inf).

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import WeightChannels
    >>> layer = WeightChannels(shape=(3, 2))
    >>> layer["coefficients"] = [[1, 0], [1, 0], [0, 5]]
    >>> layer.evaluate(np.array([[1, 2, 3], [4, 5, 6]]))
    array([[ 3., 15.],
           [ 9., 30.]])
    """

    word = "wc"
    kernel_part = _FreeWeights.kernel_part

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        flags = word.flags("n", "p", "i", PENALTY)
        return cls(
            word.shape(2, 3),
            norm_coefficients="n" in flags,
            positive_only="p" in flags,
            input="input" if "i" in flags else None,
            l2=word.penalty,
        )

    def filter_sizes(self) -> tuple[int, int, int] | None:
        """Return the sizes of a filter of one lag, if the weights are unconstrained."""
        if len(self.shape) != 2 or self.norm_coefficients or self.positive_only:
            return None
        return 1, self.shape[0], self.shape[1]

    def take_outputs(self, demand: tuple[int | None, ...]) -> None:
        """Infer the number of outputs, and of ranks per output."""
        self.shape = _outputs_from(self.shape, demand)

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
        return sizes_with_width(self, shapes[0])

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Sum the channels.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_in)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_out) or (n_samples, n_ranks, n_out)
            The weighted sums.
        """
        check_width(self, input.shape)
        return weigh(input, self._weights())


class WeightChannelsMulti(_FreeWeights):
    """Weighted sums of channels in several banks, such as one bank per ear.

    The output is y[t, r, b] = sum_c x[t, c, b] w[c, r, b], with separate sums for each bank.

    Parameters
    ----------
    shape : tuple of int
        (n_in, n_out, n_banks), where n_in is the number of channels per bank. An n_in or n_banks of
        None is inferred from the data; for an input with two axes, at most one of them can be None.
    norm_coefficients : bool, default=False
        Whether the weights are divided by their root mean square, over all banks.
    positive_only : bool, default=False
        Whether weights are constrained to be nonnegative.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    An input with two axes, (n_samples, n_in * n_banks), is reshaped in C order: its column c *
    n_banks + b is channel c of bank b.

    Filters interpret the output as n_out ranks for each of n_banks filters. `WeightChannels`
    computes sums of channels that all filters share. The prior is that of `WeightChannels`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import WeightChannelsMulti
    >>> layer = WeightChannelsMulti(shape=(3, 1, 2))
    >>> layer["coefficients"] = np.transpose([[[1, 1, 1]], [[0, 0, 5]]])
    >>> left, right = np.array([[1, 2, 3]]), np.array([[4, 5, 6]])
    >>> layer.evaluate(np.stack([left, right], axis=2))
    array([[[ 6., 30.]]])
    """

    word = "wc.b"
    _sizes = "(n_in, n_out, n_banks)", (3,)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        flags = word.flags("n", "p", "i", PENALTY)
        return cls(
            word.shape(3),
            norm_coefficients="n" in flags,
            positive_only="p" in flags,
            input="input" if "i" in flags else None,
            l2=word.penalty,
        )

    def sizes_from(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """Complete the shape.

        Parameters
        ----------
        *shapes : tuple of int
            Shape of the input, (n_samples, n_in, n_banks) or (n_samples, n_in * n_banks).

        Returns
        -------
        tuple of int
            The shape, with n_in and n_banks from the input.
        """
        (n_in, n_out, n_banks), given = self.shape, list(shapes[0][1:])
        known = n_in or n_banks
        if len(given) == 1 and known is not None:
            other, left = divmod(given[0], known)
            given = [] if left else [n_in or other, n_banks or other]
        if n_out is None or len(given) != 2 or 0 in given:
            raise misfit(
                self,
                shapes[0],
                "(n_samples, n_in, n_banks), or (n_samples, n_in * n_banks) with one of them "
                "known,",
                "Write the sizes that are open, n_out in any case",
            )
        return (n_in or given[0], n_out, n_banks or given[1])

    def kernel_part(self) -> KernelPart:
        """Describe the channel weights; see `Layer`."""
        n_in, _, n_banks = self.shape
        return replace(super().kernel_part(), n_channels=n_in * n_banks, n_banks=n_banks)

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Sum the channels of each bank.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_in, n_banks)
            Rows of time; or (n_samples, n_in * n_banks), see the notes of the class.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_out, n_banks)
            The weighted sums.
        """
        n_in, _, n_banks = self.shape
        if tuple(input.shape[1:]) not in ((n_in, n_banks), (n_in * n_banks,)):
            raise misfit(
                self,
                input.shape,
                f"(n_samples, {n_in}, {n_banks}) or (n_samples, {n_in * n_banks})",
                "Make the layer for what comes in, or take WeightChannels where all banks are to "
                "have the same channels",
            )
        banks = input.reshape(-1, n_in, n_banks).permute(2, 1, 0)
        return (self._weights().permute(2, 1, 0) @ banks).permute(2, 1, 0)


class WeightChannelsGaussian(Layer):
    """Weighted sums of channels, with weights that are Gaussian along the channel axis.

    The output is y[t, r] = sum_c x[t, c] w[c, r], where channel c of C has the position c / C and
    w[c, r] = exp(-((c / C - mean[r]) / sd[r])^2 / 2), divided by the sum of these over c.

    Parameters
    ----------
    shape : tuple of int
        (n_in, n_out) or (n_in, n_ranks, n_out). An n_in of None is inferred from the data.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    There are k = n_ranks n_out Gaussians. The prior of the mean of Gaussian j = 0, 1, ... is normal
    around (j + 1) / (2 k + 2) + 1 / 4, with a standard deviation of 0.2, within (-0.1, 1.1). That
    of sd is half normal with a scale of 0.4, within (0.05, inf).

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import WeightChannelsGaussian
    >>> layer = WeightChannelsGaussian(shape=(4, 1))
    >>> layer.set_parameter_values(mean=[0.5], sd=[0.25])
    >>> layer.evaluate(np.eye(4)).ravel().round(3)
    array([0.058, 0.258, 0.426, 0.258])
    """

    word = "wc.g"
    unit_free = ("mean", "sd")
    penalised = ()
    n_past = 0

    shape: tuple[int, ...]

    def __init__(self, shape, **layer_options):
        super().__init__(check_shape(shape, *SIZES), **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        return cls(word.shape(2, 3), input="input" if "i" in word.flags("i") else None)

    def word_options(self) -> list[str]:
        """Return the options that `from_word` reads."""
        return ["i"] if self.input == "input" else []

    def take_outputs(self, demand: tuple[int | None, ...]) -> None:
        """Infer the number of outputs, and of ranks per output."""
        self.shape = _outputs_from(self.shape, demand)

    def initial_parameters(self) -> Phi:
        """Return the parameters of the Gaussians.

        Returns
        -------
        Phi
            The parameters mean and sd, of the shape of the layer without n_in.
        """
        shape = self.shape[1:]
        n_gaussians = int(np.prod(shape))
        mean = (np.arange(n_gaussians) + 1) / (2 * n_gaussians + 2) + 0.25
        prior = Normal(mean.reshape(shape), 0.2)
        return Phi(
            Parameter("mean", shape, prior=prior, bounds=(-0.1, 1.1)),
            Parameter("sd", shape, prior=HalfNormal(0.4), bounds=(0.05, np.inf)),
        )

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
        return sizes_with_width(self, shapes[0])

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Sum the channels.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_in)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_out) or (n_samples, n_ranks, n_out)
            The weighted sums.
        """
        check_width(self, input.shape)
        mean, sd = self.get_parameter_values("mean", "sd")
        return weigh(input, gaussian_weights(mean, sd, self.shape[0]))

    def kernel_part(self) -> KernelPart:
        """Describe the channel weights and candidate Gaussians; see `Layer`."""
        parameters = self["mean"], self["sd"]
        settings = _grid(parameters)
        n_in = self.shape[0]

        def weights(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
            return gaussian_weights(torch.from_numpy(mean), torch.from_numpy(sd), n_in).numpy()

        return KernelPart(
            sizes=self.shape[1:],
            n_channels=n_in,
            weights=parameters,
            channel_weights=lambda: weights(parameters[0].values, parameters[1].values),
            profiles=weights(settings[0], settings[1]),
            settings=settings,
        )


class GaussianExpansion(Layer):
    """Gaussian expansion of channels to more channels.

    The output is y[t, o] = sum_c x[t, c] w[c, o], where output o of O has the position o / O and
    w[c, o] = amp[c] exp(-((o / O - mean[c]) / sd[c])^2 / 2), divided by the sum of the exponentials
    over o.

    Parameters
    ----------
    shape : tuple of int
        (n_in, n_out). An n_in of None is inferred from the data.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    The prior of mean[c] is normal around (c + 1) / (n_in + 1) with a standard deviation of 0.2,
    within (0, 1). Those of sd and amp are half normal with a scale of 0.4, within (0.2, inf) and
    (0.05, inf).

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import GaussianExpansion
    >>> layer = GaussianExpansion(shape=(1, 4))
    >>> layer.set_parameter_values(mean=[0.5], sd=[0.25], amp=[2])
    >>> layer.evaluate(np.ones((1, 1))).round(3)
    array([[0.115, 0.517, 0.852, 0.517]])
    """

    word = "wge"
    unit_free = ("mean", "sd")
    penalised = ()
    n_past = 0

    shape: tuple[int, ...]

    def __init__(self, shape, **layer_options):
        super().__init__(check_shape(shape, "(n_in, n_out)", (2,)), **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        word.flags()
        return cls(word.shape(2))

    def take_outputs(self, demand: tuple[int | None, ...]) -> None:
        """Infer the number of outputs."""
        self.shape = with_last_size(self, demand[-1])  # type: ignore[assignment]

    def initial_parameters(self) -> Phi:
        """Return the parameters of the Gaussians.

        Returns
        -------
        Phi
            The parameters mean, sd and amp, of shape (n_in,).
        """
        n_in = self.shape[0]
        mean = (np.arange(n_in) + 1) / (n_in + 1)
        return Phi(
            Parameter("mean", (n_in,), prior=Normal(mean, 0.2), bounds=(0, 1)),
            Parameter("sd", (n_in,), prior=HalfNormal(0.4), bounds=(0.2, np.inf)),
            Parameter("amp", (n_in,), prior=HalfNormal(0.4), bounds=(0.05, np.inf)),
        )

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
        return sizes_with_width(self, shapes[0])

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Expand the channels.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_in)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_out)
            The sums.
        """
        check_width(self, input.shape)
        mean, sd, amplitude = self.get_parameter_values("mean", "sd", "amp")
        return weigh(input, (amplitude * gaussian_weights(mean, sd, self.shape[1])).T)


def _grid(parameters: Iterable[Parameter]) -> np.ndarray:
    """Return all pairs of candidate means and standard deviations within the bounds."""
    axes = []
    for parameter, usual in zip(parameters, (GRID_MEANS, GRID_SDS), strict=True):
        low, high = (np.max(parameter.bounds[0]), np.min(parameter.bounds[1]))
        axes.append(np.unique(np.clip(usual, low, max(low, high))))
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes)])
