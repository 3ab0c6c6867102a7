"""Settings of a fit."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from skdyn.nems.losses import Loss, SquaredError


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit; see the parameters of `NEMSRegressor`.

    Attributes
    ----------
    loss : Loss
        The loss to minimise.
    alpha : float or tuple of float
        Weight of the penalty, for all outputs or for each.
    max_iter : int
        Maximum number of iterations or epochs.
    tol : float
        Smallest progress, relative to the loss of a constant prediction.
    early_stopping : bool
        Whether the held-out loss stops the fit.
    n_iter_no_change : int
        Number of iterations or epochs without progress that stops the fit.
    batch_size : int or "auto"
        Number of windows in each step of Adam.
    learning_rate : float
        Step size of Adam.
    device : torch.device
        Device that computes gradients.
    verbose : int
        Verbosity; 0 is silent.
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
