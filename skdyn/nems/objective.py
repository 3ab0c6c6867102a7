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

CPU = torch.device("cpu")


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
    held_out : ndarray like weight, default=None
        Weight of those numbers that a fit is watched on and that have no weight in it.
    """

    data: dict[str, np.ndarray]
    target: np.ndarray
    weight: np.ndarray
    held_out: np.ndarray | None = None


@dataclass(frozen=True)
class Group:
    """Trials of one length, which are computed together.

    Attributes
    ----------
    data : dict of Tensor of shape (n_trials, n_samples, ...)
        What goes into the model, by name.
    target : Tensor of shape (n_trials, n_samples, n_outputs)
        The response.
    weight : Tensor of shape (n_trials, n_samples, 1) or (n_trials, n_samples, n_outputs)
        Weights, whose mean is one.
    share : float, default=1.0
        Share of the weights of all groups.
    """

    data: dict[str, Tensor]
    target: Tensor
    weight: Tensor
    share: float = 1.0


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
        Weight of the penalty: half the sum of the squares of all penalised values of layers that
        have no weight `l2` of their own.
    device : torch.device, default=torch.device("cpu")
        Where gradients are computed.
    """

    def __init__(
        self,
        model: Model,
        trials: Sequence[Trial],
        loss: Callable,
        alpha: float,
        device: torch.device = CPU,
    ):
        self.model, self.loss, self.alpha, self.device = model, loss, alpha, device
        self.groups = _group(trials, [trial.weight for trial in trials], device)
        held_out = [trial.held_out for trial in trials if trial.held_out is not None]
        self.held_out = _group(trials, held_out, device) if held_out else []
        self.n_evaluations = 0
        weights = [
            np.full(parameter.size, _weight_of(layer, name, alpha))
            for layer in model.layers
            for name, parameter in layer.parameters.items()
            if not parameter.is_frozen
        ]
        self.penalty = np.concatenate([np.zeros(0), *weights])
        self.scale = scale_of(loss, trials)

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
        return self._error(vector, self.groups)

    def held_out_error(self, vector: np.ndarray) -> float:
        """Loss of what is held out, without the penalty.

        Parameters
        ----------
        vector : ndarray of shape (n_free,)
            Values.

        Returns
        -------
        float
            The loss.
        """
        return self._error(vector, self.held_out)

    def _error(self, vector: np.ndarray, groups: list[Group]) -> float:
        self.model.set_parameter_vector(vector, ignore_bounds=True)
        total = 0.0
        for group in groups:
            outputs = [
                self.model.output({k: array[i].cpu().numpy() for k, array in group.data.items()})
                for i in range(len(group.target))
            ]
            prediction = torch.as_tensor(np.stack([np.asarray(one) for one in outputs]))
            total += group.share * float(self.loss_of(group, prediction.to(self.device)))
        return total

    def loss_of(self, group: Group, prediction: Tensor) -> Tensor:
        """Loss of the predictions of a group.

        Parameters
        ----------
        group : Group
            The group.
        prediction : Tensor of shape (n_trials, n_samples, n_outputs)
            Predictions.

        Returns
        -------
        Tensor
            The loss.
        """
        if prediction.shape != group.target.shape:
            raise ValueError(
                f"Got a model whose output has the shape {tuple(prediction.shape[1:])} and a "
                f"response of shape {tuple(group.target.shape[1:])}, expected the same; change "
                "the last layer."
            )
        return self.loss(group.target, prediction, group.weight)

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
        return (self.error(vector) + 0.5 * float(self.penalty @ vector**2)) / self.scale

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
        theta = torch.tensor(vector, dtype=torch.float64, device=self.device, requires_grad=True)
        total = 0.0
        with tensors_of(self.model, theta):
            for group in self.groups:
                loss = group.share * self.loss_of(group, self.predict(group.data))
                loss.backward()
                total += float(loss.detach())
        assert theta.grad is not None
        gradient = theta.grad.cpu().numpy() + self.penalty * vector
        total += 0.5 * float(self.penalty @ vector**2)
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

    def curvature(self, group: Group, prediction: Tensor) -> Tensor:
        """Second derivatives of the loss, each with respect to one prediction.

        Parameters
        ----------
        group : Group
            The response.
        prediction : Tensor of shape (n_trials, n_samples, n_outputs)
            Predictions.

        Returns
        -------
        Tensor of shape (n_trials, n_samples, n_outputs)
            In units of `scale`, and at least zero; where a loss has none at all, as that of
            absolute errors, those of a squared error.
        """
        flat = torch.full_like(prediction, 2 / prediction.numel() / self.scale)
        at = prediction.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.loss_of(group, at), at, create_graph=True)
        if not slope.requires_grad:
            return flat
        (curvature,) = torch.autograd.grad(slope.sum(), at)
        curvature = curvature.clamp_min(0)
        usable = torch.isfinite(curvature).all() & curvature.any()
        return curvature / self.scale if usable else flat


def _weight_of(layer: Layer, name: str, alpha: float) -> float:
    """Weight of the penalty of a parameter: it counts unless the layer says which do."""
    counts = layer.penalised is None or name in layer.penalised
    return (alpha if layer.l2 is None else layer.l2) if counts else 0.0


def _group(trials: Sequence[Trial], weights: Sequence[np.ndarray], device) -> list[Group]:
    """Trials of one length together, with an axis of trials in front.

    In memory time comes last, as it does in what the layers give.
    """
    # Trials that do not count at all have no weights to divide by.
    counting = [(trial, w) for trial, w in zip(trials, weights, strict=True) if w.any()]
    total = sum(w.mean() * trial.target.size for trial, w in counting)
    groups = []
    for length in sorted({len(trial.target) for trial, _ in counting}):
        same = [(trial, w) for trial, w in counting if len(trial.target) == length]

        def stacked(arrays):
            array = np.stack([np.asarray(one, dtype=float) for one in arrays])
            tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, 1, -1)))
            return tensor.to(device).movedim(-1, 1)

        target = stacked([trial.target for trial, _ in same])
        weight = stacked([w for _, w in same])
        data = {name: stacked([trial.data[name] for trial, _ in same]) for name in same[0][0].data}
        mean = float(weight.mean())
        groups.append(Group(data, target, weight / mean, mean * target.numel() / total))
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
                    tensors[name] = torch.from_numpy(parameter.values).to(theta.device)
                else:
                    part = theta[start : start + parameter.size]
                    tensors[name] = part.reshape(parameter.shape)
                    start += parameter.size
            stack.enter_context(layer.tensors(tensors))
        yield
