"""Linear changes of variables for solvers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Block(NamedTuple):
    """Diagonal block of the parameters of one output.

    Attributes
    ----------
    places : ndarray of int
        Indices of the parameters.
    inverse : ndarray of shape (n_own, n_own)
        Inverse of the upper triangular factor of their block.
    border : ndarray of shape (n_own, n_shared)
        Entries of the output's parameters with the shared ones, divided by that factor.
    """

    places: np.ndarray
    inverse: np.ndarray
    border: np.ndarray


class LowRank(NamedTuple):
    """Symmetric map I + V diag(change) V' of a large block of parameters.

    Attributes
    ----------
    places : ndarray of int
        Indices of the parameters.
    vectors : ndarray of shape (rank, n_places)
        Orthonormal rows V'.
    change : ndarray of shape (rank,)
        Change of the length along each row.
    """

    places: np.ndarray
    vectors: np.ndarray
    change: np.ndarray

    def apply(self, values: np.ndarray) -> None:
        """Apply the map to its indices of a vector, in place."""
        part = values[self.places]
        values[self.places] = part + (self.change * (self.vectors @ part)) @ self.vectors


@dataclass(frozen=True)
class Coordinates:
    """Linear map between parameters and the coordinates of a solver.

    Attributes
    ----------
    origin : ndarray of shape (n_free,)
        Parameters at which the coordinates are zero.
    scale : ndarray of shape (n_free,)
        Scale by which each parameter is divided first.
    blocks : list of Block, default=[]
        One block per output with separate parameters.
    shared : ndarray of int, default=[]
        Indices of shared parameters.
    corner : ndarray of shape (n_shared, n_shared), default=[]
        Inverse of the upper triangular factor of their Schur complement.
    large : list of LowRank, default=[]
        Blocks that are too large for a full factorisation.
    """

    origin: np.ndarray
    scale: np.ndarray
    blocks: list[Block] = field(default_factory=list)
    shared: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    corner: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    large: list[LowRank] = field(default_factory=list)

    @property
    def is_rotated(self) -> bool:
        """Whether the map mixes parameters instead of only scaling them.

        Returns
        -------
        bool
            False if each coordinate depends on one parameter.
        """
        return bool(self.blocks or len(self.shared) or self.large)

    def parameters(self, point: np.ndarray) -> np.ndarray:
        """Convert coordinates to parameters.

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
        """Convert a gradient with respect to parameters to one with respect to coordinates.

        Parameters
        ----------
        gradient : ndarray of shape (n_free,)
            Derivatives with respect to parameters.

        Returns
        -------
        ndarray of shape (n_free,)
            R^-T times the gradient.
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
        """Convert bounds of parameters to bounds of coordinates.

        Parameters
        ----------
        low, high : ndarray of shape (n_free,)
            Bounds; bounded parameters are not mixed with others.

        Returns
        -------
        ndarray of shape (n_free, 2)
            Bounds of the coordinates.
        """
        return np.column_stack([(end - self.origin) * self.scale for end in (low, high)])
