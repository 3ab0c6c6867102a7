"""Short-term synaptic plasticity: the input changes the gain of later input."""

from __future__ import annotations

import numpy as np
import torch

from skdyn.core.recursion import limited_recursion
from skdyn.nems.distributions import Uniform
from skdyn.nems.layers.base import (
    Layer,
    check_sampling_frequency,
    check_shape,
    misfit,
    on_tensors,
    passed_through,
)
from skdyn.nems.parameter import Parameter, Phi
from skdyn.nems.words import Word

# Maximum strength of a synapse, relative to rest.
STRONGEST = 5.0
# Percentile of the input that defines its unit at the start of a fit.
LARGE = 99


class ShortTermPlasticity(Layer):
    """Short-term plasticity: synapses with activity-dependent depression or facilitation.

    The output is y[t] = x[t] R[t], where R is the strength of the synapse, 1 at rest: R[0] = 1 and
    R[t] = R[t - 1] + (1 - R[t - 1]) / (tau f) - u max(x[t - 1], 0) R[t - 1], clipped between 0 and
    5; f is the sampling frequency.

    Parameters
    ----------
    shape : tuple of int, default=None
        (n_channels,), the last axis of the input. None is inferred from the data.
    sampling_frequency : float, default=100.0
        Rows per second of the data, in Hz.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    u is the fraction of the strength that is lost per row and unit of the input. With u > 0 a
    channel is depressed by its input, with u < 0 it is facilitated. It recovers with the time
    constant tau in seconds, which is at least one row.

    The priors are uniform: u between 0.0125 and 0.0375, for inputs between about 0 and 1; tau
    between 0.05 s and 0.45 s. A data-driven start scales u to the input.

    The model is that of synaptic resources with one state (Tsodyks, Pawelzik & Markram 1998, Neural
    Computation 10, 821-835), as used for auditory cortex by David, Mesgarani, Fritz & Shamma (2009,
    Journal of Neuroscience 29, 3374-3386). An output depends on all past rows, so that `n_past` is
    None. Each trial begins at rest.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import ShortTermPlasticity
    >>> layer = ShortTermPlasticity(shape=(1,), sampling_frequency=10)
    >>> layer.set_parameter_values(u=[0.5], tau=[0.5])
    >>> layer.evaluate(np.array([[1], [1], [1], [0], [0], [1]])).ravel().round(3)
    array([1.   , 0.5  , 0.35 , 0.   , 0.   , 0.555])
    """

    word = "stp"
    penalised = ()
    unit_free = ("tau",)
    joins_trials = True

    shape: tuple[int, ...]

    def __init__(self, shape=None, *, sampling_frequency: float = 100.0, **layer_options):
        self.sampling_frequency = check_sampling_frequency(sampling_frequency)
        super().__init__(check_shape(shape, "(n_channels,)", (1,)), **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        word.flags("fs#")
        return cls(word.shape(1), sampling_frequency=word.number("fs", 100))

    def word_options(self) -> list[str]:
        """Return the options that `from_word` reads."""
        rate = self.sampling_frequency
        return [] if rate == 100 else [f"fs{rate:.0f}"]

    def initial_parameters(self) -> Phi:
        """Return the parameters.

        Returns
        -------
        Phi
            The parameters u and tau.
        """
        return Phi(
            Parameter("u", self.shape, prior=Uniform(np.full(self.shape, 0.0125), 0.0375)),
            Parameter(
                "tau",
                self.shape,
                prior=Uniform(np.full(self.shape, 0.05), 0.45),
                bounds=(1 / self.sampling_frequency, np.inf),
                initial_value=np.full(self.shape, max(0.25, 1 / self.sampling_frequency)),
            ),
        )

    def take_outputs(self, demand: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Infer the number of channels, which the layer keeps."""
        return passed_through(self, demand)

    def start_from(
        self, random_state: np.random.RandomState, *inputs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Scale u to the input; see `Layer`."""
        values = np.maximum(inputs[0], 0).reshape(-1, *self.shape)
        size = np.percentile(values, LARGE, axis=0)
        size = np.where(size > 0, size, values.max(axis=0))
        size = np.where(size > 0, size, 1.0)
        start = self.mean_of_priors(inplace=False)
        return {"u": start["u"].values / size, "tau": start["tau"].values}

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Scale the input by the synaptic strength.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, ..., n_channels)
            Rows of time. Negative values pass through without an effect on the strength.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ..., n_channels)
            Output of the same shape.
        """
        if input.ndim < 2 or input.shape[-1:] != self.shape:
            raise misfit(
                self,
                input.shape,
                f"(n_samples, {self.shape[0]})",
                "Make the layer for that many channels, or name another input",
            )
        return input * self._strength(input)

    @on_tensors
    def strength(self, input):  # noqa: A002
        """Compute the strength of the synapses.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, ..., n_channels)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ..., n_channels)
            R, from 0 to 5; 1 is the strength at rest.
        """
        return self._strength(input)

    def _strength(self, values: torch.Tensor) -> torch.Tensor:
        u, tau = self.get_parameter_values("u", "tau")
        recovery = 1 / (tau * self.sampling_frequency)
        # Time is the first axis, followed by trials.
        trials = torch.relu(values).unflatten(0, (self.n_trials, -1)).movedim(0, 1)
        kept = 1 - recovery - u * trials[:-1]
        at_rest = torch.ones_like(trials[:1])
        factors = torch.cat([at_rest, kept])
        inputs = torch.cat([at_rest, recovery.expand_as(kept)])
        found = limited_recursion(factors, inputs, 0.0, STRONGEST)
        return found.movedim(0, 1).flatten(0, 1)
