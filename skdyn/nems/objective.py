"""What a model of a response is fitted to: the loss as a function of a vector of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from skdyn.nems.layers.base import Layer

if TYPE_CHECKING:
    from skdyn.nems.model import Model

# Predictions below this share of the mean response have the logarithm's tangent there.
LEAST_RATE = 1e-3


@dataclass(frozen=True)
class Trial:
    """One stretch of time without history before it.

    Attributes
    ----------
    data : dict of ndarray of shape (n_samples, ...)
        What goes into the model, by name.
    target : ndarray of shape (n_samples, n_outputs)
        The response.
    weight : ndarray of shape (n_samples, 1) or (n_samples, n_outputs)
        Weight of each number of the response; 0 leaves it out.
    """

    data: dict[str, np.ndarray]
    target: np.ndarray
    weight: np.ndarray


def squared_error(target, prediction, weight):
    """Mean squared error.

    Parameters
    ----------
    target, prediction : Tensor or ndarray of shape (..., n_samples, n_outputs)
        Response and prediction.
    weight : Tensor or ndarray that broadcasts to it
        Weights, whose mean is one.

    Returns
    -------
    Tensor or float
        Weighted mean of (y - p)^2.
    """
    return (weight * (prediction - target) ** 2).mean()


def poisson(target, prediction, weight):
    """Negative log-likelihood of Poisson counts, without the term that is the same for all models.

    Parameters
    ----------
    target, prediction : Tensor or ndarray of shape (..., n_samples, n_outputs)
        Counts, and their expectation. Where it is below a thousandth of the mean count, the
        logarithm is replaced by its tangent there, so that a negative one is led back.
    weight : Tensor or ndarray that broadcasts to it
        Weights, whose mean is one.

    Returns
    -------
    Tensor or float
        Weighted mean of p - y log p.
    """
    # Where nothing is counted, the logarithm does not count either.
    least = LEAST_RATE * float((weight * target).mean()) or 1.0
    where = torch.where if torch.is_tensor(prediction) else np.where
    log = torch.log if torch.is_tensor(prediction) else np.log
    above = where(prediction > least, prediction, 0 * prediction + least)
    tangent = (prediction - above) / least
    return (weight * (prediction - target * (log(above) + tangent))).mean()


def scale_of(loss: Callable, trials: Sequence[Trial]) -> float:
    """Size of a loss, so that a fit ends at the same point whatever the unit of the response.

    Parameters
    ----------
    loss : callable
        The loss.
    trials : sequence of Trial
        What is to be predicted.

    Returns
    -------
    float
        Positive: the mean count for Poisson counts, otherwise the loss of a constant prediction,
        the mean; which is the variance for squared errors.
    """
    target, weight = (
        np.concatenate([getattr(trial, name) for trial in trials]) for name in ("target", "weight")
    )
    weight = weight / weight.mean()
    mean = np.mean(weight * target, axis=0)
    if loss is poisson:
        scale = float(mean.mean())
    else:
        scale = abs(float(loss(*map(torch.from_numpy, (target, mean + 0 * target, weight)))))
    return scale if scale > 0 else 1.0


LOSSES: dict[str, Callable] = {"squared_error": squared_error, "poisson": poisson}


class Objective:
    """Loss of a model as a function of the vector of its values that are not frozen.

    Parameters
    ----------
    model : Model
        The model; its layers know their sizes.
    trials : sequence of Trial
        What it is to predict.
    loss : callable
        Of response, prediction and weight, as `squared_error`.
    alpha : float
        Weight of the penalty: half the sum of the squares of all penalised values.
    """

    def __init__(self, model: Model, trials: Sequence[Trial], loss: Callable, alpha: float):
        self.model, self.loss, self.alpha = model, loss, alpha
        # Trials that do not count at all have no weights to divide by.
        self.groups = _group([trial for trial in trials if trial.weight.any()])
        self.n_evaluations = 0
        mask = [
            np.full(parameter.size, name in _penalised(layer))
            for layer in model.layers
            for name, parameter in layer.parameters.items()
            if not parameter.is_frozen
        ]
        self.penalised = np.concatenate([np.zeros(0), *mask])
        total = sum(
            weight.sum() * target.shape[-1] / weight.shape[-1] for _, target, weight in self.groups
        )
        if not self.groups:
            raise ValueError("Got sample weights that are all zero, expected some above zero.")
        self.scale = scale_of(loss, trials)
        self.shares = [
            float(weight.sum() * target.shape[-1] / weight.shape[-1] / total)
            for _, target, weight in self.groups
        ]

    def error(self, vector: np.ndarray) -> float:
        """Loss without the penalty, computed by the layers' own arithmetic on arrays.

        Parameters
        ----------
        vector : ndarray of shape (n_free,)
            Values.

        Returns
        -------
        float
            The loss.
        """
        self.n_evaluations += 1
        self.model.set_parameter_vector(vector, ignore_bounds=True)
        total = 0.0
        for share, (data, target, weight) in zip(self.shares, self.groups, strict=True):
            outputs = [
                self.model.output({name: array[i].numpy() for name, array in data.items()})
                for i in range(len(target))
            ]
            prediction = torch.as_tensor(np.stack([np.asarray(one) for one in outputs]))
            total += share * float(self._loss(target, prediction, weight))
        return total

    def _loss(self, target: Tensor, prediction: Tensor, weight: Tensor):
        if prediction.shape != target.shape:
            raise ValueError(
                f"Got a model whose output has the shape {tuple(prediction.shape[1:])} and a "
                f"response of shape {tuple(target.shape[1:])}, expected the same; change the last "
                "layer."
            )
        return self.loss(target, prediction, weight / weight.mean())

    def value(self, vector: np.ndarray) -> float:
        """Loss with the penalty, in units of `scale`.

        Parameters
        ----------
        vector : ndarray of shape (n_free,)
            Values.

        Returns
        -------
        float
            The loss.
        """
        penalty = 0.5 * self.alpha * float(self.penalised @ vector**2)
        return (self.error(vector) + penalty) / self.scale

    def value_and_gradient(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """Loss with the penalty, and its exact gradient, in units of `scale`.

        Parameters
        ----------
        vector : ndarray of shape (n_free,)
            Values.

        Returns
        -------
        value : float
            The loss.
        gradient : ndarray of shape (n_free,)
            Its derivatives.
        """
        self.n_evaluations += 1
        theta = torch.tensor(vector, dtype=torch.float64, requires_grad=True)
        total = 0.0
        with tensors_of(self.model, theta):
            for share, (data, target, weight) in zip(self.shares, self.groups, strict=True):
                loss = share * self._loss(target, self.predict(data), weight)
                loss.backward()
                total += float(loss.detach())
        assert theta.grad is not None
        gradient = theta.grad.numpy() + self.alpha * self.penalised * vector
        total += 0.5 * self.alpha * float(self.penalised @ vector**2)
        return total / self.scale, gradient / self.scale

    def predict(self, data: dict[str, Tensor]) -> Tensor:
        """Predictions of all trials of one length.

        Parameters
        ----------
        data : dict of Tensor of shape (n_trials, n_samples, ...)
            What goes in, by name.

        Returns
        -------
        Tensor of shape (n_trials, n_samples, n_outputs)
            What comes out.
        """
        if len(next(iter(data.values()))) == 1:
            return self.model.output({name: values[0] for name, values in data.items()})[None]
        return torch.func.vmap(self.model.output)(data)


def _penalised(layer: Layer) -> Sequence[str]:
    """Names of the parameters that a penalty holds for: all, unless the layer says which."""
    return list(layer.parameters) if layer.penalised is None else layer.penalised


def _group(trials: Sequence[Trial]) -> list[tuple[dict[str, Tensor], Tensor, Tensor]]:
    """Trials of one length together, with an axis of trials in front."""
    lengths = sorted({len(trial.target) for trial in trials})
    groups = []
    for length in lengths:
        same = [trial for trial in trials if len(trial.target) == length]

        def stacked(arrays):
            return torch.from_numpy(np.stack([np.asarray(a, dtype=float) for a in arrays]))

        data = {name: stacked([trial.data[name] for trial in same]) for name in same[0].data}
        groups.append((data, stacked([t.target for t in same]), stacked([t.weight for t in same])))
    return groups


@contextmanager
def tensors_of(model: Model, theta: Tensor) -> Iterator[None]:
    """Let the layers take their values from a tensor.

    Parameters
    ----------
    model : Model
        The model.
    theta : Tensor of shape (n_free,)
        Values that are not frozen.

    Yields
    ------
    None
        The values are put back at the end.
    """
    start = 0
    with ExitStack() as stack:
        for layer in model.layers:
            tensors = {}
            for name, parameter in layer.parameters.items():
                if parameter.is_frozen:
                    tensors[name] = torch.from_numpy(parameter.values)
                else:
                    part = theta[start : start + parameter.size]
                    tensors[name] = part.reshape(parameter.shape)
                    start += parameter.size
            stack.enter_context(layer.tensors(tensors))
        yield
