"""Cross-spectra of modes from those of windows, by maximum Whittle likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

# Share of the mean spectrum's largest eigenvalue below which a direction is empty.
_EMPTY = 1e-10
# Lower bounds of a mode as shares of the mean spectrum: at the start of the refinement, because
# zeros would stay zero, and at its end, so that the likelihood is finite.
_FLOOR_OF_START, _FLOOR = 1e-3, 1e-6
# Share of the largest weight of any mode below which a mode counts as absent.
_SILENT = 1e-9


def fit_mixture(
    moments: np.ndarray,
    mean: np.ndarray,
    weights: np.ndarray,
    read: Callable[[], Iterable[tuple[slice, np.ndarray]]],
    n_steps: int,
) -> np.ndarray:
    """Positive semi-definite cross-spectra of modes, from least squares to likelihood.

    Parameters
    ----------
    moments : ndarray of shape (n_modes, n_frequencies, n_channels, n_channels)
        Least-squares solution of "cross-spectra of a window are those of modes times weights".
    mean : ndarray of shape (n_frequencies, n_channels, n_channels)
        Mean cross-spectra over windows.
    weights : ndarray of shape (n_windows, n_modes)
        Non-negative.
    read : callable
        Iterates over blocks of windows: their slice, and their Fourier transforms, of shape
        (n_windows, n_frequencies, n_channels, n_pieces).
    n_steps : int
        Rounds of refinement; none of them lowers the likelihood.

    Returns
    -------
    ndarray of shape (n_modes, n_frequencies, n_channels, n_channels)
        Hermitian and positive semi-definite. Zero for modes without weight.
    """
    spectra = np.zeros_like(moments)
    total = weights.sum(axis=0)
    heard = np.flatnonzero(total > _SILENT * total.max(initial=0))
    if not len(heard):
        return spectra
    whitener, colourer = _whitening(mean)
    # No mode exceeds the total.
    most = len(weights) / total[heard]
    start = whitener @ moments[heard] @ _adjoint(whitener)
    found = _clipped(start, _FLOOR_OF_START if n_steps else 0.0, most)
    weights = weights[:, heard]
    for _ in range(n_steps):
        found = _step(found, weights, whitener, read())
    floor = _FLOOR if n_steps else 0.0
    found = found + floor * np.eye(found.shape[-1])
    spectra[heard] = _hermitian(colourer @ found @ _adjoint(colourer))
    return spectra


def _step(spectra, weights, whitener, blocks):
    """One majorisation-minimisation step: each mode to a geometric mean of two matrices.

    With M the mixture in a window and P its cross-spectra, mode S becomes the geometric mean of
    G^-1 and S H S, where G sums a M^-1 over windows and H sums a M^-1 P M^-1. The fixed points are
    those of EM; the steps are longer, and no step lowers the likelihood.
    """
    shares = np.zeros_like(spectra)
    pulls = np.zeros_like(spectra)
    floor = _FLOOR * np.eye(spectra.shape[-1])
    usual = weights.sum(axis=1).mean()
    for block, transforms in blocks:
        own = weights[block]
        # Windows without an active mode carry no information about modes.
        kept = own.sum(axis=1) > _SILENT * usual
        own, pieces = own[kept], whitener @ transforms[kept].conj()
        inverse = np.linalg.inv(np.tensordot(own, spectra + floor, 1))
        explained = inverse @ pieces
        products = explained @ _adjoint(explained) / pieces.shape[-1]
        shares += np.tensordot(own.T, inverse, 1)
        pulls += np.tensordot(own.T, products, 1)
    return _geometric_mean(_hermitian(shares), _hermitian(spectra @ pulls @ spectra))


def _geometric_mean(first, second):
    """The geometric mean of the inverse of the first matrix and the second."""
    values, vectors = np.linalg.eigh(first)
    # Rounding alone can make a positive definite matrix singular.
    roots = np.sqrt(np.maximum(values, np.finfo(float).tiny))[..., np.newaxis, :]
    root = (vectors * roots) @ _adjoint(vectors)
    inverse_root = (vectors / roots) @ _adjoint(vectors)
    values, vectors = np.linalg.eigh(_hermitian(root @ second @ root))
    roots = np.sqrt(np.maximum(values, 0))[..., np.newaxis, :]
    middle = (vectors * roots) @ _adjoint(vectors)
    return _hermitian(inverse_root @ middle @ inverse_root)


def _whitening(mean):
    """Whitening matrix of the mean spectrum in directions that are not empty, and its inverse."""
    values, vectors = np.linalg.eigh(_hermitian(mean))
    full = values > _EMPTY * np.maximum(values[:, -1:], 0)
    roots = np.sqrt(np.where(full, values, 1))
    colourer = vectors * np.where(full, roots, 0)[:, np.newaxis]
    return _adjoint(vectors * np.where(full, 1 / roots, 0)[:, np.newaxis]), colourer


def _clipped(matrices, least, most):
    """Hermitian parts with eigenvalues that are within bounds, the upper one per matrix."""
    values, vectors = np.linalg.eigh(_hermitian(matrices))
    values = np.clip(values, least, np.maximum(most, least)[:, np.newaxis, np.newaxis])
    return (vectors * values[..., np.newaxis, :]) @ _adjoint(vectors)


def _adjoint(matrices):
    return matrices.conj().swapaxes(-1, -2)


def _hermitian(matrices):
    return (matrices + _adjoint(matrices)) / 2
