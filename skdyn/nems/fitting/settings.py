"""How a model is fitted: made once, and handed on."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from skdyn.nems.losses import Loss, SquaredError


@dataclass(frozen=True)
class FitSettings:
    """How a model is fitted; see `NEMSRegressor` for what each means.

    Attributes
    ----------
    loss : Loss
        What is minimised.
    alpha : float or tuple of float
        Weight of the penalty, of all outputs or of each.
    max_iter : int
        Most iterations or epochs.
    tol : float
        Smallest progress, relative to the loss of a constant prediction.
    early_stopping : bool
        Whether the loss of what is held out ends the fit.
    n_iter_no_change : int
        Iterations or epochs without progress that end it.
    batch_size : int or "auto"
        Windows in a step of Adam.
    learning_rate : float
        Step size of Adam.
    device : torch.device
        Where gradients are computed.
    verbose : int
        Whether progress is shown.
    """

    loss: Loss = field(default_factory=SquaredError)
    alpha: float | tuple[float, ...] = 0.0
    max_iter: int = 1000
    tol: float = 2e-6
    early_stopping: bool = False
    n_iter_no_change: int = 10
    batch_size: int | str = "auto"
    learning_rate: float = 0.01
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    verbose: int = 0
