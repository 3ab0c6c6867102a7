"""Penalties of layers, as matrices and norms of the vector of fitted values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from skdyn.nems.model import Model
from skdyn.nems.parameter import Parameter
from skdyn.nems.penalties import Penalty, diagonal_array


@dataclass(frozen=True)
class Norms:
    """Weighted sum of norms of groups of values.

    Attributes
    ----------
    places : ndarray of int of shape (n_entries,)
        Indices of values in the vector; a value may be in several groups.
    groups : ndarray of int of shape (n_entries,)
        Group of each entry.
    weights : ndarray of shape (n_groups,)
        Weight of each norm.
    levels : ndarray of int of shape (n_entries,)
        Nesting level of each entry. Groups of a level do not overlap, and lie within groups of the
        next.
    """

    places: np.ndarray
    groups: np.ndarray
    weights: np.ndarray
    levels: np.ndarray

    def values(self, vector: np.ndarray) -> np.ndarray:
        """Return the weighted norm of each group.

        Parameters
        ----------
        vector : ndarray of shape (n_free,)
            Values.

        Returns
        -------
        ndarray of shape (n_groups,)
            Weights times norms.
        """
        squares = np.bincount(self.groups, vector[self.places] ** 2, len(self.weights))
        return self.weights * np.sqrt(squares)

    def of_members(self, numbers: np.ndarray) -> np.ndarray:
        """Return one value per group from values that are constant within groups.

        Parameters
        ----------
        numbers : ndarray of shape (n_free,)
            Values that are equal within each group.

        Returns
        -------
        ndarray of shape (n_groups,)
            One value per group.
        """
        member = np.zeros(len(self.weights), dtype=int)
        member[self.groups] = self.places
        return numbers[member]

    @property
    def is_shared(self) -> np.ndarray:
        """Return whether each entry is in a group with other entries.

        Returns
        -------
        ndarray of bool of shape (n_entries,)
            False for an entry in a group of one.
        """
        return np.bincount(self.groups)[self.groups] > 1

    def scaled(self, factors: np.ndarray, sizes: np.ndarray) -> Norms:
        """Return the norms with scaled weights, for values in units of sizes.

        Parameters
        ----------
        factors, sizes : ndarray of shape (n_free,)
            Factor of the weight and unit of each value; equal within a group.

        Returns
        -------
        Norms
            The scaled norms.
        """
        return replace(self, weights=self.weights * self.of_members(factors * sizes))

    def within(self, places: np.ndarray) -> Norms | None:
        """Return the norms of groups within a subset of values.

        Parameters
        ----------
        places : ndarray of int of shape (n_places,)
            Indices of the subset in the vector, ascending.

        Returns
        -------
        Norms or None
            Norms with indices into the subset; None without groups.
        """
        inside = np.isin(self.places, places)
        if not inside.any():
            return None
        kept, groups = np.unique(self.groups[inside], return_inverse=True)
        local = np.searchsorted(places, self.places[inside])
        return Norms(local, groups, self.weights[kept], self.levels[inside])

    def shrunk(self, vector: np.ndarray, step: float) -> np.ndarray:
        """Apply the proximal map: shrink each group by its weight times a step, down to 0.

        Parameters
        ----------
        vector : ndarray of shape (n_free,)
            Values.
        step : float
            The step.

        Returns
        -------
        ndarray of shape (n_free,)
            Values; those outside the groups are unchanged. Nested groups are processed from the
            innermost outwards, which yields the map of the sum of all norms (Jenatton et al. 2011,
            J. Mach. Learn. Res. 12, 2297-2334).
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
    """Return the matrix S for which v' S v / 2 is the quadratic penalty of the layers.

    Parameters
    ----------
    model : Model
        The model.
    counts : ndarray of shape (n_free,)
        Weight of a penalty of each value.

    Returns
    -------
    sparse array of shape (n_free, n_free) or None
        Symmetric matrix; None without such a penalty.
    """
    parts = []
    for place, parameter, axes, penalty in _of_parameters(model):
        found = penalty.differences(parameter.shape, axes)
        if found is not None:
            matrix, weights = found
            # The weight of a difference is the mean of those of its values.
            shares = abs(matrix)
            total = shares.sum(axis=1)
            mean = (shares @ counts[place]) / np.where(total > 0, total, 1)
            matrix = matrix.T @ diagonal_array(weights * mean) @ matrix
            before, after = place.start, len(counts) - place.stop
            sizes = [sparse.csr_array((before, before)), matrix, sparse.csr_array((after, after))]
            parts.append(sparse.block_diag(sizes, format="csr"))
    return sparse.csr_array(sum(parts[1:], parts[0])) if parts else None


def sparse_penalties(model: Model, counts: np.ndarray, alike: Sequence[np.ndarray]) -> Norms | None:
    """Return the norms that layers penalise.

    Parameters
    ----------
    model : Model
        The model.
    counts : ndarray of shape (n_free,)
        Weight of a penalty of each value.
    alike : sequence of ndarray
        Labels of each free parameter's values, equal for values that the same outputs depend on;
        only these can be in one group.

    Returns
    -------
    Norms or None
        The norms; None without such a penalty.
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
    """Return whether a layer has a nonsmooth penalty."""
    return any(one.is_sparse for layer in model.layers for one in layer.penalties)


def _slices(model: Model) -> list[slice]:
    sizes = [p.size for layer in model.layers for p in layer.parameters.free if p.size]
    ends = np.cumsum(sizes, dtype=int)
    return [slice(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True)]


def _of_parameters(
    model: Model,
) -> Iterator[tuple[slice, Parameter, tuple[str, ...], Penalty]]:
    """Yield indices of free parameters, names of their axes, and their penalties."""
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
