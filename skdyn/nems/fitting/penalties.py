"""Penalties of layers, as matrices and norms of the vector of values that are fitted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from skdyn.nems.model import Model
from skdyn.nems.parameter import Parameter
from skdyn.nems.penalties import Penalty


@dataclass(frozen=True)
class Norms:
    """A weighted sum of norms of groups of values.

    Attributes
    ----------
    places : ndarray of int of shape (n_entries,)
        Values in the vector; a value may be in several groups.
    groups : ndarray of int of shape (n_entries,)
        The group of each.
    weights : ndarray of shape (n_groups,)
        Weight of each norm.
    levels : ndarray of int of shape (n_entries,)
        Groups of one level do not overlap, and lie within those of the next.
    """

    places: np.ndarray
    groups: np.ndarray
    weights: np.ndarray
    levels: np.ndarray

    def values(self, vector: np.ndarray) -> np.ndarray:
        """Weighted norm of each group.

        Parameters
        ----------
        vector : ndarray of shape (n_free,)
            Values.

        Returns
        -------
        ndarray of shape (n_groups,)
            Weight times norm.
        """
        squares = np.bincount(self.groups, vector[self.places] ** 2, len(self.weights))
        return self.weights * np.sqrt(squares)

    def of_members(self, numbers: np.ndarray) -> np.ndarray:
        """Take from each group one of the numbers of its values.

        Parameters
        ----------
        numbers : ndarray of shape (n_free,)
            Numbers that are equal within a group.

        Returns
        -------
        ndarray of shape (n_groups,)
            The numbers.
        """
        member = np.zeros(len(self.weights), dtype=int)
        member[self.groups] = self.places
        return numbers[member]

    @property
    def is_shared(self) -> np.ndarray:
        """Whether each entry is in a group with others.

        Returns
        -------
        ndarray of bool of shape (n_entries,)
            False for a value by itself.
        """
        return np.bincount(self.groups)[self.groups] > 1

    def scaled(self, factors: np.ndarray, sizes: np.ndarray) -> Norms:
        """The same norms with other weights, of values in units of sizes.

        Parameters
        ----------
        factors, sizes : ndarray of shape (n_free,)
            Factor of the weight, and unit, of each value; equal within a group.

        Returns
        -------
        Norms
            The norms.
        """
        return replace(self, weights=self.weights * self.of_members(factors * sizes))

    def within(self, places: np.ndarray) -> Norms | None:
        """Norms of the groups whose values lie at some places, counted among these.

        Parameters
        ----------
        places : ndarray of int of shape (n_places,)
            Places in the vector, ascending.

        Returns
        -------
        Norms or None
            None if there are none.
        """
        inside = np.isin(self.places, places)
        if not inside.any():
            return None
        kept, groups = np.unique(self.groups[inside], return_inverse=True)
        local = np.searchsorted(places, self.places[inside])
        return Norms(local, groups, self.weights[kept], self.levels[inside])

    def shrunk(self, vector: np.ndarray, step: float) -> np.ndarray:
        """Proximal map: shorten each group by its weight times a step, down to exactly 0.

        Parameters
        ----------
        vector : ndarray of shape (n_free,)
            Values.
        step : float
            The step.

        Returns
        -------
        ndarray of shape (n_free,)
            Values outside the groups stay. Groups that contain others come after these, which
            gives the map of the sum of all norms (Jenatton et al. 2011, J. Mach. Learn. Res. 12,
            2297-2334).
        """
        shrunk = vector.copy()
        for level in range(self.levels.max(initial=-1) + 1):
            part = self.levels == level
            places, groups = self.places[part], self.groups[part]
            norms = np.sqrt(np.bincount(groups, shrunk[places] ** 2, len(self.weights)))
            cut = step * self.weights
            kept = np.where(norms > cut, 1 - cut / np.where(norms > 0, norms, 1.0), 0.0)
            shrunk[places] *= kept[groups]
        return shrunk


def quadratic_penalties(model: Model, counts: np.ndarray) -> sparse.csr_array | None:
    """Matrix S for which v' S v / 2 is the sum of squares that layers penalise.

    Parameters
    ----------
    model : Model
        The model.
    counts : ndarray of shape (n_free,)
        How much a penalty of each value counts.

    Returns
    -------
    sparse array of shape (n_free, n_free) or None
        Symmetric; None if there is no such penalty.
    """
    parts = []
    for place, parameter, axes, penalty in _of_parameters(model):
        found = penalty.differences(parameter.shape, axes)
        if found is not None:
            matrix, weights = found
            # A difference counts as much as its values do in the mean.
            shares = abs(matrix)
            total = shares.sum(axis=1)
            mean = (shares @ counts[place]) / np.where(total > 0, total, 1)
            matrix = matrix.T @ sparse.diags_array(weights * mean) @ matrix
            before, after = place.start, len(counts) - place.stop
            sizes = [sparse.csr_array((before, before)), matrix, sparse.csr_array((after, after))]
            parts.append(sparse.block_diag(sizes, format="csr"))
    return sparse.csr_array(sum(parts[1:], parts[0])) if parts else None


def sparse_penalties(model: Model, counts: np.ndarray, alike: Sequence[np.ndarray]) -> Norms | None:
    """Norms that layers penalise.

    Parameters
    ----------
    model : Model
        The model.
    counts : ndarray of shape (n_free,)
        How much a penalty of each value counts.
    alike : sequence of ndarray
        For each free parameter, numbers that are equal for values that the same outputs need; only
        such are in one group.

    Returns
    -------
    Norms or None
        None if there is no such penalty.
    """
    numbers = {one.start: mark for one, mark in zip(_slices(model), alike, strict=True)}
    found: dict[int, list] = {}
    for place, parameter, axes, penalty in _of_parameters(model):
        made = penalty.groups(parameter.shape, axes)
        if made is not None:
            pairs = np.stack([made[0], numbers[place.start]])
            group = np.ravel(np.unique(pairs, axis=1, return_inverse=True)[1])
            size = np.bincount(group)
            weight = np.bincount(group, made[1] * counts[place]) / np.sqrt(size)
            found.setdefault(place.start, []).append((group, weight, penalty))
    if not found:
        return None
    places, groups, weights, levels, n_groups = [], [], [], [], 0
    for first, parts in found.items():
        parts.sort(key=lambda part: -len(part[1]))
        for (inner, _, one), (outer, _, other) in itertools.pairwise(parts):
            if len(np.unique(np.stack([inner, outer]), axis=1).T) > inner.max() + 1:
                raise ValueError(
                    f"The groups of {one} and of {other} overlap. Only groups that lie within "
                    "others are possible, such as single values within channels."
                )
        for level, (group, weight, _) in enumerate(parts):
            places.append(first + np.arange(len(group)))
            groups.append(group + n_groups)
            weights.append(weight)
            levels.append(np.full(len(group), level))
            n_groups += len(weight)
    return Norms(*(np.concatenate(one) for one in (places, groups, weights, levels)))


def has_norms(model: Model) -> bool:
    """Return whether a layer has a penalty with kinks."""
    return any(one.is_sparse for layer in model.layers for one in layer.penalties)


def _slices(model: Model) -> list[slice]:
    sizes = [p.size for layer in model.layers for p in layer.parameters.free if p.size]
    ends = np.cumsum(sizes, dtype=int)
    return [slice(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True)]


def _of_parameters(
    model: Model,
) -> Iterator[tuple[slice, Parameter, tuple[str, ...], Penalty]]:
    """Places of free parameters, names of their axes, and the penalties that they have."""
    slices = iter(_slices(model))
    for layer in model.layers:
        names = set(layer.parameters) if layer.penalised is None else set(layer.penalised)
        used = set()
        for name, parameter in layer.parameters.items():
            is_free = parameter.size and not parameter.is_frozen
            place = next(slices) if is_free else None
            axes = layer.axes.get(name, ())
            for number, penalty in enumerate(layer.penalties):
                is_meant = name == penalty.parameter or (
                    penalty.parameter is None and name in names
                )
                if is_meant and penalty.applies_to(parameter.shape, axes):
                    used.add(number)
                    if place is not None:
                        yield place, parameter, axes, penalty
        for number, penalty in enumerate(layer.penalties):
            if number not in used:
                raise ValueError(
                    f"The layer {layer.name!r} has no penalised parameter for {penalty}. It has "
                    f"{list(layer.parameters)}, with the names of axes {dict(layer.axes)}."
                )
