"""Penalties of parameters of a layer: ridge, banded ridge, smoothness and sparsity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy import sparse


def diagonal_array(values: np.ndarray) -> sparse.csr_array:
    """Return a sparse diagonal array, as `sparse.diags_array` of SciPy 1.12 does."""
    return sparse.csr_array(
        sparse.dia_array((np.asarray(values)[np.newaxis], [0]), shape=(len(values), len(values)))
    )


@dataclass(frozen=True)
class Penalty:
    """Base class of penalties.

    A penalty is added to the loss of each output that depends on the parameters. A subclass defines
    `differences`, for a sum of squares, or `groups`, for a sum of norms.

    Parameters
    ----------
    weight : float or array-like
        Weight, at least 0, in units of the loss. An array is broadcast to the shape of the
        parameter, so that its last axis may be outputs.
    parameter : str, default=None
        Name of the parameter; None for all penalised parameters of the layer.
    """

    weight: float | tuple
    parameter: str | None = field(default=None, kw_only=True)

    # Whether the penalty is nonsmooth, so that values become exactly 0.
    is_sparse: ClassVar[bool] = False

    def __post_init__(self):
        weight = np.asarray(self.weight, dtype=float)
        if not (np.isfinite(weight) & (weight >= 0)).all():
            raise ValueError(
                f"weight of {type(self).__name__} must be finite and at least 0, but is "
                f"{self.weight!r}."
            )
        # Nested tuples can be compared directly.
        object.__setattr__(self, "weight", _as_tuples(weight.tolist()))

    def differences(
        self, shape: tuple[int, ...], axes: tuple[str, ...]
    ) -> tuple[sparse.csr_array, np.ndarray] | None:
        """Return linear maps D for a penalty of half the weighted sum of squares of D v.

        Parameters
        ----------
        shape : tuple of int
            Shape of the parameter.
        axes : tuple of str
            Names of its axes, where defined.

        Returns
        -------
        matrix : sparse array of shape (n_terms, n_values)
            Maps of the flattened values v.
        weights : ndarray of shape (n_terms,)
            Weight of each square.
        """
        return None

    def groups(
        self, shape: tuple[int, ...], axes: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the groups of values with penalised norms.

        Parameters
        ----------
        shape : tuple of int
            Shape of the parameter.
        axes : tuple of str
            Names of its axes, where defined.

        Returns
        -------
        labels : ndarray of int of shape (n_values,)
            Group of each flattened value. Values of different outputs must be in different groups.
        weights : ndarray of shape (n_values,)
            Weight of the group's norm, before multiplication by the root of the group's size.
        """
        return None

    def applies_to(self, shape: tuple[int, ...], axes: tuple[str, ...]) -> bool:
        """Return whether the penalty applies to a parameter with these axes.

        Parameters
        ----------
        shape : tuple of int
            Shape of the parameter.
        axes : tuple of str
            Names of its axes.

        Returns
        -------
        bool
            True, by default.
        """
        return True

    def weights_for(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the weight of each value of a parameter.

        Parameters
        ----------
        shape : tuple of int
            Shape of the parameter.

        Returns
        -------
        ndarray of shape (n_values,)
            Weights of the flattened values.
        """
        weight = np.asarray(self.weight, dtype=float)
        try:
            return np.broadcast_to(weight, shape).ravel()
        except ValueError:
            raise ValueError(
                f"weight of {type(self).__name__} has the shape {weight.shape}, which does not "
                f"broadcast to the shape {shape} of the parameter."
            ) from None


@dataclass(frozen=True)
class L2(Penalty):
    """Ridge penalty: half the weighted sum of squares.

    Parameters
    ----------
    weight : float or array-like
        Weight of each value; an array is broadcast to the shape of the parameter.
    parameter : str, default=None
        Name of the parameter; None for all penalised parameters of the layer.

    Examples
    --------
    >>> from skdyn.nems import L2
    >>> from skdyn.nems.layers import FiniteImpulseResponse
    >>> layer = FiniteImpulseResponse((15, 18), penalties=[L2(0.1)])
    """

    def differences(self, shape, axes):
        """Return the identity, with the weights; see `Penalty`."""
        weights = self.weights_for(shape)
        return diagonal_array(np.ones(len(weights))), weights


@dataclass(frozen=True)
class BandedL2(Penalty):
    """Banded ridge: a weight for each band of channels.

    Features of different kinds, such as a spectrogram and its derivative, need penalties of
    different size (Nunez-Elizalde, Huth & Gallant 2019, NeuroImage 197, 482-492).

    Parameters
    ----------
    weight : array-like of shape (n_bands,)
        Weight of half the sum of squares of each band.
    sizes : sequence of int
        Number of channels of each band, in the order of the channels.
    axis : str or int, default="channels"
        The axis along which the bands lie.
    parameter : str, default=None
        Name of the parameter; None for all penalised parameters that have the axis.

    Examples
    --------
    >>> from skdyn.nems import BandedL2
    >>> from skdyn.nems.layers import FiniteImpulseResponse
    >>> layer = FiniteImpulseResponse((15, 20), penalties=[BandedL2([0.1, 10.0], [18, 2])])
    """

    sizes: tuple = ()
    axis: str | int = "channels"

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "sizes", tuple(int(one) for one in self.sizes))
        if np.shape(self.weight) != (len(self.sizes),) or min(self.sizes, default=0) < 1:
            raise ValueError(
                f"BandedL2 has {np.size(self.weight)} weights and the sizes {self.sizes}, but a "
                "weight for each band, with sizes of at least 1, was expected."
            )

    def applies_to(self, shape, axes):
        """Return whether a parameter has the axis; see `Penalty`."""
        return place_of(self.axis, shape, axes) is not None

    def differences(self, shape, axes):
        """Return the identity, with the weights of the bands; see `Penalty`."""
        place = place_of(self.axis, shape, axes)
        if sum(self.sizes) != shape[place]:
            raise ValueError(
                f"Bands of {self.sizes} channels are {sum(self.sizes)} in all, but the parameter "
                f"has {shape[place]}."
            )
        along = np.repeat(np.asarray(self.weight, dtype=float), self.sizes)
        weights = along[np.indices(shape)[place]].ravel()
        return diagonal_array(np.ones(len(weights))), weights


@dataclass(frozen=True)
class Smooth(Penalty):
    """Smoothness along an axis: half the sum of squared differences of neighbours.

    Parameters
    ----------
    weight : float
        Weight.
    axis : str or int, default="lags"
        "lags" or "channels", or the index of the axis.
    order : {1, 2}, default=2
        Order of the differences: 1 favours constant values, 2 straight lines.
    parameter : str, default=None
        Name of the parameter; None for all penalised parameters that have the axis.

    Examples
    --------
    >>> from skdyn.nems import Smooth
    >>> from skdyn.nems.layers import FiniteImpulseResponse
    >>> penalties = [Smooth(1.0, "lags"), Smooth(0.3, "channels")]
    >>> layer = FiniteImpulseResponse((15, 18), penalties=penalties)
    """

    axis: str | int = "lags"
    order: int = 2

    def __post_init__(self):
        super().__post_init__()
        if np.ndim(self.weight) or self.order not in (1, 2):
            raise ValueError(
                f"Smooth has the weight {self.weight!r} and order={self.order!r}, but one number "
                "and an order of 1 or 2 were expected."
            )

    def applies_to(self, shape, axes):
        """Return whether a parameter has the axis; see `Penalty`."""
        return place_of(self.axis, shape, axes) is not None

    def differences(self, shape, axes):
        """Return differences of neighbours; see `Penalty`."""
        place = place_of(self.axis, shape, axes)
        assert place is not None
        matrix = diagonal_array(np.ones(shape[place]))
        for _ in range(self.order):
            matrix = matrix[1:] - matrix[:-1]
        before, after = (int(np.prod(part)) for part in (shape[:place], shape[place + 1 :]))
        matrix = sparse.kron(diagonal_array(np.ones(before)), matrix)
        matrix = sparse.csr_array(sparse.kron(matrix, diagonal_array(np.ones(after))))
        return matrix, np.full(matrix.shape[0], float(np.asarray(self.weight)))


@dataclass(frozen=True)
class L1(Penalty):
    """Lasso penalty: the weighted sum of magnitudes, which sets values to exactly 0.

    It needs solver="proximal". With a loss of squared errors, the weight is twice the alpha of
    `sklearn.linear_model.Lasso`.

    Parameters
    ----------
    weight : float or array-like
        Weight of each value; an array is broadcast to the shape of the parameter.
    parameter : str, default=None
        Name of the parameter; None for all penalised parameters of the layer.

    Examples
    --------
    >>> from skdyn.nems import L1
    >>> from skdyn.nems.layers import FiniteImpulseResponse
    >>> layer = FiniteImpulseResponse((15, 18), penalties=[L1(0.01)])
    """

    is_sparse: ClassVar[bool] = True

    def groups(self, shape, axes):
        """Return a group for each value; see `Penalty`."""
        weights = self.weights_for(shape)
        return np.arange(len(weights)), weights


@dataclass(frozen=True)
class GroupL1(Penalty):
    """Group lasso: a sum of norms, which sets whole channels or lags to exactly 0.

    A group contains all values of one output at one index along an axis; with axis="channels", it
    is the filter of a channel. Its norm is weighted by the root of its size (Yuan & Lin 2006, J. R.
    Stat. Soc. B 68, 49-67). It needs solver="proximal".

    Parameters
    ----------
    weight : float or array-like
        Weight of the norms; an array is broadcast to the shape of the parameter.
    axis : str or int, default="channels"
        "lags" or "channels", or the index of the axis.
    parameter : str, default=None
        Name of the parameter; None for all penalised parameters that have the axis.

    Examples
    --------
    >>> from skdyn.nems import GroupL1
    >>> from skdyn.nems.layers import FiniteImpulseResponse
    >>> layer = FiniteImpulseResponse((15, 18), penalties=[GroupL1(0.01, "channels")])
    """

    axis: str | int = "channels"

    is_sparse: ClassVar[bool] = True

    def applies_to(self, shape, axes):
        """Return whether a parameter has the axis; see `Penalty`."""
        return place_of(self.axis, shape, axes) is not None

    def groups(self, shape, axes):
        """Return the index of each value along the axis; see `Penalty`."""
        place = place_of(self.axis, shape, axes)
        return np.indices(shape)[place].ravel(), self.weights_for(shape)


def place_of(axis: str | int, shape: tuple[int, ...], axes: tuple[str, ...]) -> int | None:
    """Return the index of an axis of a parameter.

    Parameters
    ----------
    axis : str or int
        Name or index of the axis.
    shape : tuple of int
        Shape of the parameter.
    axes : tuple of str
        Names of its axes, from the first on.

    Returns
    -------
    int or None
        Index of the axis; None without such an axis.
    """
    if isinstance(axis, str):
        named = axes[: len(shape)]
        return named.index(axis) if axis in named else None
    return axis % len(shape) if -len(shape) <= axis < len(shape) else None


def check_penalties(penalties) -> tuple[Penalty, ...]:
    """Check the penalties of a layer.

    Parameters
    ----------
    penalties : Penalty or sequence of Penalty
        The penalties.

    Returns
    -------
    tuple of Penalty
        The penalties as a tuple.
    """
    given = (penalties,) if isinstance(penalties, Penalty) else tuple(penalties)
    for one in given:
        if not isinstance(one, Penalty):
            raise TypeError(f"penalties must be instances of Penalty, but one is {one!r}.")
    return given


def _as_tuples(values):
    return tuple(map(_as_tuples, values)) if isinstance(values, list) else values


# Penalties by class; `skdyn.persistence` accepts them in files.
PENALTIES: tuple[type[Penalty], ...] = (L2, BandedL2, Smooth, L1, GroupL1)
