"""Linear changes of variables that a solver works in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Block(NamedTuple):
    """An output's own parameters.

    Attributes
    ----------
    places : ndarray of int
        Where they are.
    inverse : ndarray of shape (n_own, n_own)
        Inverse of the upper triangular factor of their block.
    border : ndarray of shape (n_own, n_shared)
        Their entries with what outputs share, divided by that factor.
    """

    places: np.ndarray
    inverse: np.ndarray
    border: np.ndarray


class LowRank(NamedTuple):
    """Many parameters, with the symmetric map I + V diag(change) V'.

    Attributes
    ----------
    places : ndarray of int
        Where they are.
    vectors : ndarray of shape (rank, n_places)
        Orthonormal rows V'.
    change : ndarray of shape (rank,)
        By how much the length of each changes.
    """

    places: np.ndarray
    vectors: np.ndarray
    change: np.ndarray

    def apply(self, values: np.ndarray) -> None:
        """Apply the map to the places of a vector, in place."""
        part = values[self.places]
        values[self.places] = part + (self.change * (self.vectors @ part)) @ self.vectors


@dataclass(frozen=True)
class Coordinates:
    """A linear map between parameters and what the solver sees.

    Attributes
    ----------
    origin : ndarray of shape (n_free,)
        Parameters where the new coordinates are zero.
    scale : ndarray of shape (n_free,)
        What each parameter is divided by first.
    blocks : list of Block, default=[]
        One per output with parameters of its own.
    shared : ndarray of int, default=[]
        Places of the parameters that outputs share.
    corner : ndarray of shape (n_shared, n_shared), default=[]
        Inverse of the upper triangular factor of what is left of their block.
    large : list of LowRank, default=[]
        What is too large for that.
    """

    origin: np.ndarray
    scale: np.ndarray
    blocks: list[Block] = field(default_factory=list)
    shared: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    corner: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    large: list[LowRank] = field(default_factory=list)

    @property
    def is_rotated(self) -> bool:
        """Whether parameters are mixed, and not only scaled.

        Returns
        -------
        bool
            False if each coordinate is one parameter.
        """
        return bool(self.blocks or len(self.shared) or self.large)

    def parameters(self, point: np.ndarray) -> np.ndarray:
        """Go back to parameters.

        Parameters
        ----------
        point : ndarray of shape (n_free,)
            Coordinates.

        Returns
        -------
        ndarray of shape (n_free,)
            theta_0 + R^-1 z.
        """
        step = point.copy()
        if len(self.shared):
            step[self.shared] = self.corner @ point[self.shared]
        for own, inverse, border in self.blocks:
            step[own] = inverse @ (point[own] - border @ step[self.shared])
        for part in self.large:
            part.apply(step)
        return self.origin + step / self.scale

    def gradient(self, gradient: np.ndarray) -> np.ndarray:
        """Turn a gradient with respect to parameters into one with respect to coordinates.

        Parameters
        ----------
        gradient : ndarray of shape (n_free,)
            Derivatives.

        Returns
        -------
        ndarray of shape (n_free,)
            R^-T times them.
        """
        turned = gradient / self.scale
        rest = turned[self.shared]
        for own, inverse, border in self.blocks:
            turned[own] = inverse.T @ turned[own]
            rest = rest - border.T @ turned[own]
        if len(self.shared):
            turned[self.shared] = self.corner.T @ rest
        for part in self.large:
            part.apply(turned)
        return turned

    def bounds(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Turn bounds of parameters into bounds of coordinates.

        Parameters
        ----------
        low, high : ndarray of shape (n_free,)
            Bounds; parameters that have any are not mixed with others.

        Returns
        -------
        ndarray of shape (n_free, 2)
            The same, of the coordinates.
        """
        return np.column_stack([(end - self.origin) * self.scale for end in (low, high)])
