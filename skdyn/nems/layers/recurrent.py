"""Recurrent layers, with a memory of all previous input."""

from __future__ import annotations

import numpy as np
import torch

from skdyn.nems.distributions import Normal
from skdyn.nems.layers.base import (
    Layer,
    check_shape,
    check_width,
    on_tensors,
    sizes_with_width,
    with_last_size,
)
from skdyn.nems.parameter import Parameter, Phi
from skdyn.nems.words import PENALTY, Word

# Gates of a unit: reset, update and candidate.
N_GATES = 3


class GatedRecurrentUnit(Layer):
    """Gated recurrent unit (GRU).

    With the memory h, initially zero, the input x and the logistic function s, the gates are
    r = s(x W_r + h U_r + b_r) and z = s(x W_z + h U_z + b_z), the candidate is
    n = tanh(x W_n + r (h U_n + c) + b_n), and the output is the new memory (1 - z) n + z h.

    Parameters
    ----------
    shape : tuple of int, default=(None, None)
        (n_in, n_units). An n_in of None is inferred from the data.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    input_weights contains W, of shape (n_in, 3, n_units), and recurrent_weights U, of shape
    (n_units, 3, n_units), with r, z and n in that order; bias contains b, of shape (3, n_units),
    and recurrent_bias c. The priors are normal with a mean of zero and a standard deviation of 1 /
    sqrt(n_in) for W, 1 / sqrt(n_units) for U, and 0.1 for b and c. A data-driven start draws from
    the priors and scales W to the input.

    These are the units of Cho et al. (2014, arXiv:1406.1078) in the variant of cuDNN and torch. An
    output depends on all past rows, so that `n_past` is None. Each trial begins with a memory of
    zero.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import GatedRecurrentUnit
    >>> layer = GatedRecurrentUnit(shape=(2, 5)).sample_from_priors(0)
    >>> layer.evaluate(np.ones((10, 2))).shape
    (10, 5)
    """

    word = "gru"
    penalised = ("input_weights", "recurrent_weights")
    joins_trials = True

    shape: tuple[int, ...]

    def __init__(self, shape=(None, None), **layer_options):
        super().__init__(check_shape(shape, "(n_in, n_units)", (2,)), **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        word.flags(PENALTY)
        return cls(word.shape(2), l2=word.penalty)

    def take_outputs(self, demand: tuple[int | None, ...]) -> None:
        """Infer the number of units."""
        self.shape = with_last_size(self, demand[-1])  # type: ignore[assignment]

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

    def initial_parameters(self) -> Phi:
        """Return weights and biases.

        Returns
        -------
        Phi
            The parameters input_weights, recurrent_weights, bias and recurrent_bias.
        """
        n_in, n_units = self.shape
        return Phi(
            Parameter("input_weights", (n_in, N_GATES, n_units), prior=Normal(0, n_in**-0.5)),
            Parameter(
                "recurrent_weights", (n_units, N_GATES, n_units), prior=Normal(0, n_units**-0.5)
            ),
            Parameter("bias", (N_GATES, n_units), prior=Normal(0, 0.1)),
            Parameter("recurrent_bias", (n_units,), prior=Normal(0, 0.1)),
        )

    def start_from(
        self, random_state: np.random.RandomState, *inputs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Draw from the priors, with weights scaled to the input; see `Layer`."""
        drawn = self.sample_from_priors(random_state, inplace=False)
        mean, size = inputs[0].mean(axis=0), inputs[0].std(axis=0)
        weights = drawn["input_weights"].values / np.where(size > 0, size, 1.0)[:, None, None]
        return {
            "input_weights": weights,
            "recurrent_weights": drawn["recurrent_weights"].values,
            "bias": drawn["bias"].values - np.tensordot(mean, weights, 1),
            "recurrent_bias": drawn["recurrent_bias"].values,
        }

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Update the memory row by row.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_in)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_units)
            The memory of each unit.
        """
        check_width(self, input.shape)
        weights, recurrent, bias, candidate = self.get_parameter_values(
            "input_weights", "recurrent_weights", "bias", "recurrent_bias"
        )
        own = [weights.flatten(1).T, recurrent.flatten(1).T, bias.flatten()]
        own.append(torch.cat([torch.zeros_like(bias[:2]).flatten(), candidate]))
        trials = input.unflatten(0, (self.n_trials, -1)).transpose(0, 1)
        start = input.new_zeros((1, self.n_trials, self.shape[1]))
        # Biases; one layer without dropout, in evaluation mode; one direction, with time first.
        output, _ = torch.gru(trials, start, own, True, 1, 0.0, False, False, False)
        return output.transpose(0, 1).flatten(0, 1)
