"""Checks of autograd gradients, which identify the layer of a wrong gradient."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from skdyn.core.training import FitDivergedError
from skdyn.nems.fitting.objective import Objective, layer_of, parameter_slices, tensors_of
from skdyn.nems.layers.base import Layer
from skdyn.nems.model import Model

# Minimum number of input values for gradients in single precision, which halves their time, and
# maximum relative difference of loss and gradient at the start of a fit. Measured: with fewer
# values a fit takes as long as in double precision. The response is not included, so that no output
# depends on the number of outputs.
SINGLE_FROM, SINGLE_ERROR = 200_000, 1e-3

# Maximum relative error of a derivative that is attributed to rounding, and steps of finite
# differences, relative to the size of the values.
TOLERANCE, STEPS = 1e-4, (1e-5, 1e-4, 1e-6)


def check_start(objective: Objective, vector: np.ndarray) -> float:
    """Compute the loss at the start of a fit.

    Parameters
    ----------
    objective : Objective
        The loss.
    vector : ndarray of shape (n_free,)
        Initial values.

    Returns
    -------
    float
        The loss, without the penalty.

    Raises
    ------
    FitDivergedError
        If the loss is not finite.
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
    """Return whether single precision is faster and accurate enough.

    Parameters
    ----------
    objective : Objective
        The loss, with exact gradients.
    vector : ndarray of shape (n_free,)
        Values at which to check.

    Returns
    -------
    bool
        False for few data, and if the loss or gradient of a component differs by more than a
        thousandth.
    """
    if sum(x.size for one in objective.trials for x in one.data.values()) < SINGLE_FROM:
        return False
    values, gradient = objective.values_and_gradient(vector)
    objective.is_single = True
    try:
        found_values, found_gradient = objective.values_and_gradient(vector)
    except Exception:  # a custom layer that requires double precision
        return False
    finally:
        objective.is_single = False
    component = objective.component_of_value
    error = np.bincount(component, (found_gradient - gradient) ** 2, len(values))
    size = np.bincount(component, gradient**2, len(values))
    is_close = np.abs(found_values - values) <= SINGLE_ERROR * np.abs(values)
    return bool(np.all(is_close & (error <= SINGLE_ERROR**2 * size)))


def layer_not_followed(objective: Objective, vector: np.ndarray) -> str | None:
    """Return the name of a layer with no gradient, or a wrong one, in autograd.

    A layer that cannot be vectorised over trials is traced trial by trial. Custom layers are
    compared with finite differences, because their computations may leave torch without an error.

    Parameters
    ----------
    objective : Objective
        The loss; from now on, trials are computed one at a time if necessary.
    vector : ndarray of shape (n_free,)
        Values at which to check.

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
        # Every layer can be traced for single trials, so only the vectorisation fails.
        objective.is_looped = True
        try:
            _, gradient = objective.values_and_gradient(vector)
        except Exception:
            return _first_foreign(model)
    if all(map(_is_own, model.layers)) or not np.isfinite(gradient).all():
        return None  # non-finite values raise a separate error
    return _layer_with_wrong_gradient(objective, vector, gradient)


def _is_own(layer: Layer) -> bool:
    """Return whether a layer uses the computation of a class of the package."""
    own = type(layer).evaluate.__module__ == "skdyn.nems.layers" or (
        type(layer).__module__.startswith("skdyn.nems.layers.")
    )
    return own and layer.derivatives_are_sure


def _first_foreign(model: Model) -> str:
    foreign = [layer for layer in model.layers if not _is_own(layer)]
    return str((foreign or list(model.layers))[0].name)


def _layer_that_fails(model: Model, objective: Objective, vector: np.ndarray) -> str | None:
    """Return the name of the first layer that fails for tensors or does not return one."""
    theta = torch.tensor(vector, dtype=torch.float64, device=objective.device, requires_grad=True)
    data = {name: values[0] for name, values in objective.groups[0].part([0]).data.items()}
    reached: list[Layer] = []
    with tensors_of(model, theta), warnings.catch_warnings():
        # Warnings of torch are redundant here.
        warnings.simplefilter("ignore")
        try:
            for layer in model.steps(data):
                outputs: Any = data["output"]
                parts = outputs if isinstance(outputs, list) else [outputs]
                if not all(map(torch.is_tensor, parts)):
                    return str(layer.name)
                reached.append(layer)
        except Exception:
            # Any error means that tensors are not supported; arrays passed all layers already.
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
        # Derivative of the sum over components, like the gradient.
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
    """Return the layer of a wrong derivative or, if it is built in, the next custom layer."""
    layers = list(model.layers)
    behind = layers[next(i for i, one in enumerate(layers) if one is layer) :]
    return str(next((one for one in behind if not _is_own(one)), layer).name)
