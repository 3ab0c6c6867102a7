"""Whether torch finds the gradient of a model, and which layer is to blame if not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from skdyn.core.training import FitDivergedError
from skdyn.nems.fitting.objective import Objective, layer_of, parameter_slices, tensors_of
from skdyn.nems.layers.base import Layer
from skdyn.nems.model import Model

# Numbers that go into a model from which gradients are computed in single precision, which halves
# their time, and the largest relative difference of loss and gradient that this may make where a
# fit starts. Measured: with fewer numbers a fit takes as long as in double precision. The response
# does not count, so that no output depends on whether there are others.
SINGLE_FROM, SINGLE_ERROR = 200_000, 1e-3

# Largest relative error of a derivative that counts as rounding, and steps that are tried, relative
# to the size of the values.
TOLERANCE, STEPS = 1e-4, (1e-5, 1e-4, 1e-6)


def check_start(objective: Objective, vector: np.ndarray) -> float:
    """Compute the loss where a fit starts.

    Parameters
    ----------
    objective : Objective
        The loss.
    vector : ndarray of shape (n_free,)
        Where the fit starts.

    Returns
    -------
    float
        The loss, without the penalty.

    Raises
    ------
    FitDivergedError
        If it is not finite.
    """
    error = objective.error(vector)
    if not np.isfinite(error):
        raise FitDivergedError(
            "The loss is not finite where the fit starts. Look for logarithms or powers of "
            "negative numbers in the layers, or for very large values of X, y and "
            "sample_weight."
        )
    return error


def single_is_enough(objective: Objective, vector: np.ndarray) -> bool:
    """Whether single precision is worth it, and enough for loss and gradient.

    Parameters
    ----------
    objective : Objective
        The loss, with exact gradients.
    vector : ndarray of shape (n_free,)
        Where to look.

    Returns
    -------
    bool
        False for few data, and if loss or gradient of a component differ by more than a thousandth.
    """
    if sum(x.size for one in objective.trials for x in one.data.values()) < SINGLE_FROM:
        return False
    values, gradient = objective.values_and_gradient(vector)
    objective.is_single = True
    try:
        found_values, found_gradient = objective.values_and_gradient(vector)
    except Exception:  # a layer of the user's that is written for double precision
        return False
    finally:
        objective.is_single = False
    component = objective.component_of_value
    error = np.bincount(component, (found_gradient - gradient) ** 2, len(values))
    size = np.bincount(component, gradient**2, len(values))
    is_close = np.abs(found_values - values) <= SINGLE_ERROR * np.abs(values)
    return bool(np.all(is_close & (error <= SINGLE_ERROR**2 * size)))


def layer_not_followed(objective: Objective, vector: np.ndarray) -> str | None:
    """Name of a layer through which torch finds no gradient, or a wrong one.

    A layer that cannot be vectorised over trials is followed trial by trial. Layers that are not
    the package's own are compared with finite differences, since what they compute may leave torch
    without an error.

    Parameters
    ----------
    objective : Objective
        The loss; trials are computed one after the other from now on if they have to be.
    vector : ndarray of shape (n_free,)
        Where to look.

    Returns
    -------
    str or None
        None if gradients are exact.
    """
    model = objective.model
    name = _layer_that_fails(model, objective, vector)
    if name is not None:
        return name
    try:
        _, gradient = objective.values_and_gradient(vector)
    except Exception:
        # One trial at a time every layer can be followed, so that vectorising them is what fails.
        objective.is_looped = True
        try:
            _, gradient = objective.values_and_gradient(vector)
        except Exception:
            return _first_foreign(model)
    if all(map(_is_own, model.layers)) or not np.isfinite(gradient).all():
        return None  # what is not finite is an error of its own
    return _layer_with_wrong_gradient(objective, vector, gradient)


def _is_own(layer: Layer) -> bool:
    """Whether a layer computes what the package's own classes do."""
    own = type(layer).evaluate.__module__ == "skdyn.nems.layers" or (
        type(layer).__module__.startswith("skdyn.nems.layers.")
    )
    return own and layer.derivatives_are_sure


def _first_foreign(model: Model) -> str:
    foreign = [layer for layer in model.layers if not _is_own(layer)]
    return str((foreign or list(model.layers))[0].name)


def _layer_that_fails(model: Model, objective: Objective, vector: np.ndarray) -> str | None:
    """Name of the first layer that raises an error for tensors, or returns something else."""
    theta = torch.tensor(vector, dtype=torch.float64, device=objective.device, requires_grad=True)
    data = {name: values[0] for name, values in objective.groups[0].part([0]).data.items()}
    reached: list[Layer] = []
    with tensors_of(model, theta), warnings.catch_warnings():
        # torch warns of what is about to be found out.
        warnings.simplefilter("ignore")
        try:
            for layer in model.steps(data):
                outputs: Any = data["output"]
                parts = outputs if isinstance(outputs, list) else [outputs]
                if not all(map(torch.is_tensor, parts)):
                    return str(layer.name)
                reached.append(layer)
        except Exception:
            # Whatever it is that tensors cannot do; arrays have been through all layers already.
            return str(model.layers[min(len(reached), len(model.layers) - 1)].name)
    return None


def _layer_with_wrong_gradient(
    objective: Objective, vector: np.ndarray, gradient: np.ndarray
) -> str | None:
    """Compare with finite differences, one parameter array at a time along a random direction."""
    rng = np.random.RandomState(0)
    for place in parameter_slices(objective.model):
        direction = np.zeros(len(vector))
        direction[place] = rng.standard_normal(place.stop - place.start)
        size = float(np.sqrt(np.mean(vector[place] ** 2))) or 1.0
        if not _agrees(objective, vector, gradient, direction, size):
            return _to_blame(objective.model, layer_of(objective.model, place.start))
    return None


def _agrees(objective, vector, gradient, direction, size) -> bool:
    exact = float(gradient @ direction)
    scale = np.abs(gradient) @ np.abs(direction)
    for step in STEPS:
        # Of the sum over components, as the gradient is.
        ends = [
            float(objective.values(vector + sign * step * size * direction).sum())
            for sign in (1, -1)
        ]
        numeric = (ends[0] - ends[1]) / (2 * step * size)
        rounding = 1e-10 * max(map(abs, ends)) / (step * size)
        if abs(numeric - exact) <= TOLERANCE * (scale + abs(numeric)) + rounding:
            objective.model.set_parameter_vector(vector, ignore_bounds=True)
            return True
    objective.model.set_parameter_vector(vector, ignore_bounds=True)
    return False


def _to_blame(model: Model, layer: Layer) -> str:
    """The layer of a wrong derivative or, if it is the package's own, the next foreign one."""
    layers = list(model.layers)
    behind = layers[next(i for i, one in enumerate(layers) if one is layer) :]
    return str(next((one for one in behind if not _is_own(one)), layer).name)
