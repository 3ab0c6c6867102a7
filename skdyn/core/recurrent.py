"""Stacks of recurrent layers, initialised and regularised as Keras does it.

Each layer is RNN -> normalisation -> activation -> dropout. Weights are drawn from an explicit
generator: glorot-uniform kernels, orthogonal recurrent kernels, zero biases except for a
forget-gate bias of one. An LSTM has one bias per gate; torch's second one stays at zero and is
not trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from skdyn.core.distributed import Draws

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": functional.elu,
    "gelu": functional.gelu,
    "relu": functional.relu,
    "selu": functional.selu,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "swish": functional.silu,
    "tanh": torch.tanh,
}
CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}
NORMALIZATIONS = ("layer", "batch")


@dataclass(frozen=True)
class RecurrentSettings:
    """Architecture of a stack of recurrent layers."""

    rnn: str = "lstm"
    n_layers: int = 1
    n_units: int = 64
    normalization: str | None = "layer"
    activation: str | None = None
    dropout: float = 0.0


class RecurrentStack(nn.Module):
    """Recurrent layers on (batch, time, features), each normalised, activated and dropped out.

    Parameters
    ----------
    n_inputs : int
        Number of input features.
    settings : RecurrentSettings
        Architecture of the layers.
    bidirectional : bool, default=False
        Whether each layer also runs backwards, its output then joined to the forward one.
    """

    def __init__(self, n_inputs: int, settings: RecurrentSettings, *, bidirectional: bool = False):
        super().__init__()
        self.settings = settings
        self.n_outputs = settings.n_units * (2 if bidirectional else 1)
        widths = [n_inputs] + [self.n_outputs] * (settings.n_layers - 1)
        self.cells = self._make_cells(widths)
        # Cells of their own, rather than torch's bidirectional ones, so that sequences of different
        # lengths can be run backwards from their ends at full speed.
        self.backward_cells = self._make_cells(widths if bidirectional else [])
        self.norms = nn.ModuleList(
            _normalization(settings.normalization, self.n_outputs) for _ in widths
        )
        if settings.rnn == "lstm":
            for name, weight in self._cell_parameters():
                if "bias_hh" in name:
                    weight.requires_grad_(False)

    def _make_cells(self, widths: list[int]) -> nn.ModuleList:
        make, n_units = CELLS[self.settings.rnn], self.settings.n_units
        return nn.ModuleList(make(width, n_units, batch_first=True) for width in widths)

    def _cell_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.cells.named_parameters()
        yield from self.backward_cells.named_parameters()

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights anew.

        Parameters
        ----------
        generator : torch.Generator
            Source of the random numbers.
        """
        for name, weight in self._cell_parameters():
            if "weight_ih" in name:
                # Keras draws one kernel for all gates, so the bound comes from its whole width.
                nn.init.xavier_uniform_(weight, generator=generator)
            elif "weight_hh" in name:
                nn.init.orthogonal_(weight, generator=generator)
            else:
                nn.init.zeros_(weight)
                if self.settings.rnn == "lstm" and "bias_ih" in name:
                    units = self.settings.n_units
                    weight.data[units : 2 * units] = 1.0
        for norm in self.norms:
            if isinstance(norm, nn.LayerNorm | nn.BatchNorm1d):
                norm.reset_parameters()

    def forward(
        self,
        inputs: Tensor,
        draws: Draws | None = None,
        state: list | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Run the stack over whole windows.

        Parameters
        ----------
        inputs : Tensor of shape (batch, time, n_inputs)
            The windows.
        draws : Draws, default=None
            Source of the dropout masks; None disables dropout.
        state : list, default=None
            One state per layer to start from; replaced in place by the states at the end.
        lengths : Tensor of int of shape (batch,), default=None
            Number of rows of each window; those after them are padding. None if all are whole.

        Returns
        -------
        Tensor of shape (batch, time, n_outputs)
            Output of the last layer.
        """
        activation = ACTIVATIONS.get(self.settings.activation or "", _identity)
        outputs = inputs
        backwards = None if not self.backward_cells else _backwards(inputs, lengths)
        for layer, (cell, norm) in enumerate(zip(self.cells, self.norms, strict=True)):
            given = outputs
            outputs, last = cell(given, None if state is None else state[layer])
            if state is not None:
                state[layer] = last
            if backwards is not None:
                reverse, _ = self.backward_cells[layer](backwards(given))
                outputs = torch.cat([outputs, backwards(reverse)], dim=-1)
            outputs = dropout(activation(norm(outputs)), self.settings.dropout, draws)
        return outputs


def _backwards(inputs: Tensor, lengths: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Row indices that reverse each window and leave its padding at the end."""
    if lengths is None:
        return lambda values: values.flip(1)
    steps = torch.arange(inputs.shape[1], device=inputs.device)
    reversed_steps = lengths[:, None] - 1 - steps
    places = torch.where(reversed_steps >= 0, reversed_steps, steps)[:, :, None]
    return lambda values: values.gather(1, places.expand_as(values))


def dropout(values: Tensor, probability: float, draws: Draws | None) -> Tensor:
    """Set a random part of the values to zero and scale up the rest.

    Parameters
    ----------
    values : Tensor of shape (batch, ...)
        Values.
    probability : float in [0, 1)
        Share that is dropped.
    draws : Draws or None
        Source of the dropout masks; None disables dropout.

    Returns
    -------
    Tensor
        Values of the same shape and the same expectation.
    """
    if draws is None or probability == 0:
        return values
    return values * (draws.uniform(values) >= probability) / (1 - probability)


def initialise_linear(layer: nn.Linear, generator: torch.Generator) -> None:
    """Draw a linear layer's weights: glorot-uniform, zero bias.

    Parameters
    ----------
    layer : torch.nn.Linear
        The layer.
    generator : torch.Generator
        Source of the random numbers.
    """
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)


def _identity(values: Tensor) -> Tensor:
    return values


def _normalization(kind: str | None, n_features: int) -> nn.Module:
    if kind == "layer":
        return nn.LayerNorm(n_features, eps=1e-3)
    if kind == "batch":
        return _BatchNorm(n_features, eps=1e-3, momentum=0.01)
    return nn.Identity()


class _BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of the last axis, over batch and time."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.flatten(0, 1)).reshape(inputs.shape)
