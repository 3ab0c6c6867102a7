"""Loss functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

# Below this fraction of the mean count, the loss of an expected count is continued quadratically.
LEAST_RATE = 1e-3


class Loss:
    """Base class of losses, averaged over samples and outputs.

    To write a custom loss, subclass it, define `pointwise`, and pass an instance as `loss=`. The
    method `typical` computes a statistic of the whole response for it, such as the mean.

    Attributes
    ----------
    name : str
        The name of the loss in messages.
    has_closed_form : bool
        Whether the loss is the squared error, which linear models minimise in closed form.
    is_per_output : bool
        Whether the loss of an output depends on that output alone.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn import NEMSRegressor
    >>> from skdyn.nems import Loss
    >>> class LogCosh(Loss):
    ...     def pointwise(self, target, prediction, typical):
    ...         error = (prediction - target) / typical
    ...         return error + (1 + (-2 * error).exp()).log()
    >>> X = np.random.default_rng(0).standard_normal((200, 2))
    >>> model = NEMSRegressor("wc-lvl", loss=LogCosh()).fit(X, X @ [1, 2])
    >>> round(model.score(X, X @ [1, 2]), 3)
    1.0
    """

    name: ClassVar[str] = "loss"
    has_closed_form: ClassVar[bool] = False
    is_per_output: ClassVar[bool] = True

    def pointwise(self, target: Tensor, prediction: Tensor, typical: Tensor) -> Tensor:
        """Compute the loss of each entry of a response.

        Parameters
        ----------
        target, prediction : Tensor of shape (..., n_outputs)
            Response and prediction.
        typical : Tensor of shape (n_outputs,)
            Typical sizes from the method `typical`.

        Returns
        -------
        Tensor of shape (..., n_outputs)
            Losses, bounded from below for all predictions.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define pointwise.")

    def check(self, target: np.ndarray) -> None:
        """Raise ValueError if a response is invalid for the loss.

        Parameters
        ----------
        target : ndarray
            Entries of the response with nonzero weight.
        """

    def typical(self, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Compute a typical size of each output from all data, once before a fit.

        Parameters
        ----------
        target : ndarray of shape (n_samples, n_outputs)
            The response.
        weight : ndarray of shape (n_samples, n_outputs)
            Weights.

        Returns
        -------
        ndarray of shape (n_outputs,)
            By default the standard deviation; where that is 0, the mean over the other outputs, or
            1.
        """
        mean = _mean(target, weight)
        return _positive(np.sqrt(_mean((target - mean) ** 2, weight)), np.abs(mean))

    def scale(self, target: np.ndarray, weight: np.ndarray, typical: np.ndarray) -> np.ndarray:
        """Compute the scale of the loss of each output, the unit of the tolerance of a fit.

        Parameters
        ----------
        target, weight : ndarray of shape (n_samples, n_outputs)
            Response and weights.
        typical : ndarray of shape (n_outputs,)
            Typical sizes from the method `typical`.

        Returns
        -------
        ndarray of shape (n_outputs,)
            By default the loss of the mean response as prediction, for positive losses.
        """
        prediction = np.broadcast_to(_mean(target, weight), target.shape)
        losses = self.pointwise(*map(torch.tensor, (target, prediction, typical)))
        constant = np.abs(_mean(np.asarray(losses), weight))
        return np.where((constant > 0) & np.isfinite(constant), constant, 1.0)

    def values(self, target: Tensor, prediction: Tensor, weight: Tensor, typical: Tensor) -> Tensor:
        """Compute the weighted mean of the losses of each output.

        Parameters
        ----------
        target, prediction : Tensor of shape (..., n_outputs)
            Response and prediction.
        weight : Tensor that broadcasts to them
            Weights with a mean of 1 over all entries.
        typical : Tensor of shape (n_outputs,)
            Typical sizes from the method `typical`.

        Returns
        -------
        Tensor of shape (n_outputs,)
            Losses of the outputs; the loss of the model is their mean.
        """
        losses = weight * self.pointwise(target, prediction, typical)
        # Time is the last axis, as in memory, so that gradients have the same layout.
        return losses.movedim(-1, 0).flatten(1).mean(dim=1)


class SquaredError(Loss):
    """Squared error, (y - p)^2.

    Examples
    --------
    >>> import torch
    >>> from skdyn.nems.losses import SquaredError
    >>> SquaredError().pointwise(torch.tensor([1.0]), torch.tensor([3.0]), torch.ones(1))
    tensor([4.])
    """

    name = "squared_error"
    has_closed_form = True

    def pointwise(self, target: Tensor, prediction: Tensor, typical: Tensor) -> Tensor:
        """Compute the loss of each entry; see `Loss`."""
        return (prediction - target) ** 2

    def scale(self, target: np.ndarray, weight: np.ndarray, typical: np.ndarray) -> np.ndarray:
        """Compute the variance of each output; see `Loss`."""
        return typical**2


class Poisson(Loss):
    """Negative log-likelihood of Poisson counts with expectation p, p - y log p.

    Terms that depend only on the counts are omitted. Below f, a thousandth of the output's mean
    count, the loss is continued by the quadratic with the same value and slope at f and its minimum
    at p = y,

        f - y log f + ((p - y)^2 - (f - y)^2) / (2 f),

    so that it is bounded from below for every p, even for zero counts, and its gradient drives
    negative expectations back.

    Examples
    --------
    >>> import torch
    >>> from skdyn.nems.losses import Poisson
    >>> Poisson().pointwise(torch.zeros(2), torch.tensor([2.0, -1.0]), torch.ones(1))
    tensor([  2.0000, 500.0005])
    """

    name = "poisson"

    def check(self, target: np.ndarray) -> None:
        """Raise ValueError if there are negative counts."""
        if np.any(target < 0):
            raise ValueError(
                f"loss='poisson' requires counts of at least 0, but y has {np.min(target):.4g}."
            )

    def typical(self, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Compute the mean count of each output; see `Loss`."""
        return _positive(_mean(target, weight))

    def pointwise(self, target: Tensor, prediction: Tensor, typical: Tensor) -> Tensor:
        """Compute the loss of each entry; see `Loss`."""
        least = LEAST_RATE * typical
        is_low = prediction < least
        above = torch.where(is_low, least, prediction)
        below = torch.where(is_low, prediction, least)
        # The difference of the two squares, factored to avoid cancellation.
        quadratic = (below - least) * (below + least - 2 * target) / (2 * least)
        return above - target * above.log() + quadratic

    def scale(self, target: np.ndarray, weight: np.ndarray, typical: np.ndarray) -> np.ndarray:
        """Compute the mean count of each output; see `Loss`."""
        return typical


class FunctionLoss(Loss):
    """A loss defined by a function of all outputs.

    Parameters
    ----------
    function : callable
        Function of response, prediction and weight, tensors of shape (n_trials, n_samples,
        n_outputs), that returns the mean loss.

    Examples
    --------
    >>> from skdyn.nems.losses import FunctionLoss
    >>> FunctionLoss(lambda target, prediction, weight: (weight * (target - prediction)).mean())
    FunctionLoss(<lambda>)
    """

    is_per_output = False

    def __init__(self, function: Callable):
        self.function = function

    def values(self, target: Tensor, prediction: Tensor, weight: Tensor, typical: Tensor) -> Tensor:
        """Compute the loss of all outputs, a tensor of shape (1,); see `Loss`."""
        return self.function(target, prediction, weight).reshape(1)

    def scale(self, target: np.ndarray, weight: np.ndarray, typical: np.ndarray) -> np.ndarray:
        """Compute the loss of the mean response, an array of shape (1,); see `Loss`."""
        prediction = np.broadcast_to(_mean(target, weight), target.shape)
        weight = weight / weight.mean()
        parts = [torch.tensor(part)[None] for part in (target, prediction, weight)]
        constant = abs(float(self.function(*parts)))
        return np.array([constant if 0 < constant < np.inf else 1.0])

    def __repr__(self) -> str:
        return f"FunctionLoss({getattr(self.function, '__name__', self.function)})"


def _mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the weighted mean of each column, 0 where all weights are zero."""
    total = weight.sum(axis=0)
    return (weight * values).sum(axis=0) / np.where(total > 0, total, 1)


def _positive(sizes: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Replace sizes that are 0, or rounding of `others`, by the mean of the positive ones, or 1."""
    rounding = 1e-12 * others if others is not None else 0.0
    usable = (sizes > rounding) & np.isfinite(sizes)
    return np.where(usable, sizes, sizes[usable].mean() if usable.any() else 1.0)


LOSSES: dict[str, type[Loss]] = {kind.name: kind for kind in (SquaredError, Poisson)}


def make_loss(loss: str | Loss | Callable) -> Loss:
    """Return the loss for an argument of an estimator.

    Parameters
    ----------
    loss : str, Loss or callable
        A name in `LOSSES`, a loss, or a function of response, prediction and weight.

    Returns
    -------
    Loss
        The loss.

    Raises
    ------
    ValueError
        If `loss` is none of these.
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]()
    if callable(loss):
        return FunctionLoss(loss)
    raise ValueError(
        f"Unknown loss {loss!r}: expected one of {', '.join(map(repr, LOSSES))}, a Loss, or a "
        "function of response, prediction and weight."
    )
