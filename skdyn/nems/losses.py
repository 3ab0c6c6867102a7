"""Losses: what a fit minimises."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

# Expected counts below this share of the mean count have the quadratic continuation of the loss.
LEAST_RATE = 1e-3


class Loss:
    """Base class of losses: the mean, over samples and outputs, of a loss of each number.

    To write one, subclass it, define `pointwise`, and pass an instance as `loss=`. What it needs to
    know of a response as a whole, such as its mean, is in `typical`.

    Attributes
    ----------
    name : str
        The name of the loss in messages.
    has_closed_form : bool
        Whether it is the squared error, whose minimum a linear model has in closed form.
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
        """Compute the loss of each number of a response.

        Parameters
        ----------
        target, prediction : Tensor of shape (..., n_outputs)
            Response and prediction.
        typical : Tensor of shape (n_outputs,)
            From the method `typical`.

        Returns
        -------
        Tensor of shape (..., n_outputs)
            Bounded from below, whatever the prediction.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define pointwise.")

    def check(self, target: np.ndarray) -> None:
        """Raise ValueError if a response is not what the loss is for.

        Parameters
        ----------
        target : ndarray
            The numbers of the response that have weight.
        """

    def typical(self, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Compute a typical size of each output, from all data, once before a fit.

        Parameters
        ----------
        target : ndarray of shape (n_samples, n_outputs)
            The response.
        weight : ndarray of shape (n_samples, n_outputs)
            Weights.

        Returns
        -------
        ndarray of shape (n_outputs,)
            By default the standard deviation; where that is 0, the mean of the other outputs' or 1.
        """
        mean = _mean(target, weight)
        return _positive(np.sqrt(_mean((target - mean) ** 2, weight)), np.abs(mean))

    def scale(self, target: np.ndarray, weight: np.ndarray, typical: np.ndarray) -> np.ndarray:
        """Compute the size of the loss of each output, to which progress of a fit is relative.

        Parameters
        ----------
        target, weight : ndarray of shape (n_samples, n_outputs)
            Response and weights.
        typical : ndarray of shape (n_outputs,)
            From the method `typical`.

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
            Weights, whose mean over all numbers is 1.
        typical : Tensor of shape (n_outputs,)
            From the method `typical`.

        Returns
        -------
        Tensor of shape (n_outputs,)
            Their mean is the loss.
        """
        losses = weight * self.pointwise(target, prediction, typical)
        # With time last, as it is in memory, which it then is in gradients, too.
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
        """Compute the loss of each number; see `Loss`."""
        return (prediction - target) ** 2

    def scale(self, target: np.ndarray, weight: np.ndarray, typical: np.ndarray) -> np.ndarray:
        """Compute the variance of each output; see `Loss`."""
        return typical**2


class Poisson(Loss):
    """Negative log-likelihood of Poisson counts with expectation p, p - y log p.

    Terms that depend on the counts alone are left out. Below f, a thousandth of the output's mean
    count, the loss continues as the quadratic with the same value and slope at f and its minimum at
    p = y,

        f - y log f + ((p - y)^2 - (f - y)^2) / (2 f),

    so that it is bounded from below for every p, also where nothing is counted, and leads negative
    expectations back.

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
        """Compute the loss of each number; see `Loss`."""
        least = LEAST_RATE * typical
        is_low = prediction < least
        above = torch.where(is_low, least, prediction)
        below = torch.where(is_low, prediction, least)
        # The difference of the two squares, written so that nothing cancels.
        quadratic = (below - least) * (below + least - 2 * target) / (2 * least)
        return above - target * above.log() + quadratic

    def scale(self, target: np.ndarray, weight: np.ndarray, typical: np.ndarray) -> np.ndarray:
        """Compute the mean count of each output; see `Loss`."""
        return typical


class FunctionLoss(Loss):
    """A loss that is given as a function, of all outputs together.

    Parameters
    ----------
    function : callable
        Of response, prediction and weight, tensors of shape (n_trials, n_samples, n_outputs); it
        returns a mean over them.

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
    """Weighted mean of each column, 0 where nothing has weight."""
    total = weight.sum(axis=0)
    return (weight * values).sum(axis=0) / np.where(total > 0, total, 1)


def _positive(sizes: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Replace sizes that are 0, or rounding of `others`, by the mean of the positive ones, or 1."""
    rounding = 1e-12 * others if others is not None else 0.0
    usable = (sizes > rounding) & np.isfinite(sizes)
    return np.where(usable, sizes, sizes[usable].mean() if usable.any() else 1.0)


LOSSES: dict[str, type[Loss]] = {kind.name: kind for kind in (SquaredError, Poisson)}


def make_loss(loss: str | Loss | Callable) -> Loss:
    """Return the loss that an estimator was given.

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
        If it is something else.
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
