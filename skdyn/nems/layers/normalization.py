"""Layers that normalise channels."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from skdyn.nems.distributions import HalfNormal, Normal
from skdyn.nems.layers.base import Layer, check_shape, misfit, on_tensors, passed_through
from skdyn.nems.layers.description import WantedOutput
from skdyn.nems.parameter import Parameter, Phi
from skdyn.nems.words import Word


def _spread(values: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each channel, 1 for constant ones."""
    sd = values.reshape(-1, values.shape[-1]).std(axis=0)
    return np.where((sd > 0) & np.isfinite(sd), sd, 1.0)


class _Normalization(Layer):
    """Base class of layers with statistics of the input of each channel."""

    n_past = 0
    penalised: tuple[str, ...] | None = ()

    shape: tuple[int, ...]

    def __init__(self, shape=None, **layer_options):
        super().__init__(check_shape(shape, "(n_channels,)", (1,)), **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        word.flags()
        return cls(word.shape(1))

    def _sd(self) -> Parameter:
        start = np.ones(self.shape)
        sd = Parameter(
            "sd", self.shape, prior=HalfNormal(1.0), bounds=(1e-300, np.inf), initial_value=start
        )
        sd.freeze()
        return sd

    def _check(self, values) -> None:
        if values.ndim < 2 or values.shape[-1:] != self.shape:
            raise misfit(
                self,
                values.shape,
                f"(n_samples, {self.shape[0]})",
                "Make the layer for that many channels, or name another input",
            )


class BatchNormalization(_Normalization):
    """Batch normalisation: standardised channels with a fitted gain and offset.

    The output is y = gain (x - mean) / sd + offset.

    Parameters
    ----------
    shape : tuple of int, default=None
        (n_channels,), the last axis of the input. None is inferred from the data.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    The mean and standard deviation of the input are computed from all rows at the start of a fit
    and then frozen. Therefore predictions do not depend on the batch, and every row depends only on
    the past. With init="given" the current values of the layer are used. In a data-driven start,
    gain and offset are initialised so that the output equals the input.

    Batch normalisation of Ioffe & Szegedy (2015, arXiv:1502.03167) recomputes them for each batch.

    The priors of gain and offset are normal with means of 1 and 0 and a standard deviation of 0.1.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import BatchNormalization
    >>> layer = BatchNormalization(shape=(1,))
    >>> layer.set_parameter_values(mean=[10], sd=[2])
    >>> layer.evaluate(np.array([[8], [12]])).ravel()
    array([-1.,  1.])
    """

    word = "bn"
    keeps_channels = True
    neutral = MappingProxyType({"gain": 1.0, "offset": 0.0})
    statistics = ("mean", "sd")

    def initial_parameters(self) -> Phi:
        """Return the parameters.

        Returns
        -------
        Phi
            The parameters gain, offset, mean and sd; the last two are frozen.
        """
        mean = Parameter("mean", self.shape, prior=Normal(0, 1))
        mean.freeze()
        return Phi(
            Parameter("gain", self.shape, prior=Normal(1, 0.1)),
            Parameter("offset", self.shape, prior=Normal(0, 0.1)),
            mean,
            self._sd(),
        )

    def start_values(
        self, mean: np.ndarray, spread: np.ndarray, wanted: WantedOutput
    ) -> dict[str, np.ndarray]:
        """Set the offset to the target level; see `Layer`."""
        gain = self["gain"].values / self["sd"].values
        return {"offset": wanted.level - gain * (mean - self["mean"].values)}

    def start_from(
        self, random_state: np.random.RandomState, *inputs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Compute statistics, and gain and offset that preserve the output; see `Layer`."""
        mean = inputs[0].reshape(-1, *self.shape).mean(axis=0)
        sd = _spread(inputs[0])
        gain = self["gain"].values / self["sd"].values
        offset = self["offset"].values + gain * (mean - self["mean"].values)
        return {"mean": mean, "sd": sd, "gain": gain * sd, "offset": offset}

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Normalise.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, ..., n_channels)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ..., n_channels)
            Output of the same shape.
        """
        self._check(input)
        gain, offset, mean, sd = self.get_parameter_values("gain", "offset", "mean", "sd")
        return gain * ((input - mean) / sd) + offset


class OutputNormalization(_Normalization):
    """Channels scaled to unit standard deviation: y = x / sd.

    Parameters
    ----------
    shape : tuple of int, default=None
        (n_channels,), the last axis of the input. None is inferred from the data.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    The standard deviation over all rows is computed at the start of a fit and then frozen. With
    init="given" the current value of the layer is used.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import OutputNormalization
    >>> layer = OutputNormalization(shape=(1,))
    >>> layer.set_parameter_values(sd=[2])
    >>> layer.evaluate(np.array([[8], [12]])).ravel()
    array([4., 6.])
    """

    word = "norm"
    statistics = ("sd",)

    def initial_parameters(self) -> Phi:
        """Return the parameter.

        Returns
        -------
        Phi
            The parameter sd, which is frozen.
        """
        return Phi(self._sd())

    def take_outputs(self, demand: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Infer the number of channels, which the layer keeps."""
        return passed_through(self, demand)

    def start_from(
        self, random_state: np.random.RandomState, *inputs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Compute the standard deviation; see `Layer`."""
        return {"sd": _spread(inputs[0])}

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Divide by the standard deviation.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, ..., n_channels)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ..., n_channels)
            Output of the same shape.
        """
        self._check(input)
        (sd,) = self.get_parameter_values("sd")
        return input / sd
