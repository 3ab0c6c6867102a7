"""Restriction of an objective to some components, which saves the cost of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from skdyn.nems.fitting.objective import Objective, Sizes, parameter_slices
from skdyn.nems.fitting.trials import Trial
from skdyn.nems.model import Model

# Number of rows on which outputs of a part and the whole are compared, and maximum rounding
# difference, relative to the largest output.
N_ROWS, ROUNDING = 100, 1e-9


class Part(NamedTuple):
    """The objective of some components, and their indices in the whole.

    Attributes
    ----------
    objective : Objective
        The loss of these components.
    components, outputs, values : ndarray of int or slice
        Indices of these components, of their losses, and of their free values in the whole.
    """

    objective: Objective
    components: np.ndarray | slice = slice(None)
    outputs: np.ndarray | slice = slice(None)
    values: np.ndarray | slice = slice(None)


def part_of(objective: Objective, chosen: np.ndarray) -> Part:
    """Return the objective of some components.

    Parameters
    ----------
    objective : Objective
        The whole objective.
    chosen : ndarray of bool of shape (n_components,)
        Mask of components, at least one.

    Returns
    -------
    Part
        The part with these components; the whole if all are chosen or its layers cannot be
        separated.
    """
    whole = Part(objective)
    if chosen.all() or not objective.is_exact:
        return whole
    outputs = np.flatnonzero(chosen[objective.component])
    layers = [layer.some_outputs(outputs) for layer in objective.model.layers]
    if None in layers:
        return whole
    model = Model(layers)
    places = _places(objective.model, outputs)
    own = np.array_equal(np.sort(places), np.flatnonzero(chosen[objective.component_of_value]))
    if not own or not _agree(objective, model, outputs):
        return whole
    sizes = (objective.sizes.typical, objective.sizes.scale, objective.sizes.share)
    part = Objective(
        model,
        [_some_outputs(trial, outputs) for trial in objective.trials],
        objective.loss,
        objective.alpha[outputs],
        objective.device,
        sizes=Sizes(*(size[outputs] for size in sizes)),
        reach=objective.reach[np.ix_(outputs, places)],
    )
    part.component = np.unique(objective.component[outputs], return_inverse=True)[1]
    part.is_looped, part.is_single = objective.is_looped, objective.is_single
    return Part(part, np.flatnonzero(chosen), outputs, places)


def _agree(objective: Objective, model: Model, outputs: np.ndarray) -> bool:
    """Return whether a model of some outputs agrees with the whole model."""
    few = {name: values[:N_ROWS] for name, values in objective.trials[0].data.items()}
    try:
        found = np.asarray(model.output(dict(few)))
    except Exception:  # a custom layer may raise any error for fewer outputs
        return False
    wanted = np.asarray(objective.model.output(dict(few)))[:, outputs]
    if found.shape != wanted.shape:
        return False
    return np.allclose(found, wanted, rtol=0, atol=ROUNDING * np.max(np.abs(wanted), initial=0))


def _places(model: Model, outputs: np.ndarray) -> np.ndarray:
    """Return indices of the free values of some outputs."""
    free = [one for layer in model.layers for one in layer.parameters.free if one.size]
    places = [np.arange(place.start, place.stop) for place in parameter_slices(model)]
    return np.concatenate(
        [
            place.reshape(one.shape)[..., outputs].ravel()
            for place, one in zip(places, free, strict=True)
        ]
    )


def _some_outputs(trial: Trial, outputs: np.ndarray) -> Trial:
    """Return a trial with the response and weights of some outputs."""

    def of(weight: np.ndarray) -> np.ndarray:
        return weight if weight.shape[1] == 1 else weight[:, outputs]

    held_out = None if trial.held_out is None else of(trial.held_out)
    target = np.ascontiguousarray(trial.target[:, outputs])
    return replace(trial, target=target, weight=of(trial.weight), held_out=held_out)
