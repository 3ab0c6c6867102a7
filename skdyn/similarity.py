"""Similarity and distance of every vector or matrix of one stack with every one of another."""

from __future__ import annotations

import numpy as np
import scipy.linalg

__all__ = ["check_positive_definite", "cosine_matrix", "riemannian_matrix", "rv_matrix"]


def cosine_matrix(vectors, others) -> np.ndarray:
    """Cosine of every row with every row.

    Parameters
    ----------
    vectors : ndarray of shape (n_vectors, n_channels)
        Rows of finite numbers.
    others : ndarray of shape (n_others, n_channels)
        Rows to compare with.

    Returns
    -------
    ndarray of shape (n_vectors, n_others)
        Within [-1, 1]; NaN where one of the two rows is zero.
    """

    def unit_rows(rows):
        spread = np.abs(rows).max(axis=1, keepdims=True)
        scaled = rows / np.where(spread == 0, np.nan, spread)
        return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)

    return np.clip(unit_rows(vectors) @ unit_rows(others).T, -1, 1)


def riemannian_matrix(stack, others) -> np.ndarray:
    """Affine-invariant distance of every matrix with every matrix.

    Parameters
    ----------
    stack : ndarray of shape (n_matrices, n_channels, n_channels)
        Symmetric positive definite matrices.
    others : ndarray of shape (n_others, n_channels, n_channels)
        Matrices to compare with.

    Returns
    -------
    ndarray of shape (n_matrices, n_others)
        At least 0; `skdyn.metrics.riemannian_distance` has the formula.

    Raises
    ------
    ValueError
        If a matrix is not square, not symmetric or not positive definite.
    """
    for matrix in (*stack, *others):
        check_positive_definite(matrix)
    distances = np.empty((len(stack), len(others)))
    for row, matrix in enumerate(stack):
        for column, other in enumerate(others):
            ratios = scipy.linalg.eigh(matrix, other, eigvals_only=True)
            if ratios[0] <= 0:
                raise ValueError(_indefinite("A pair of matrices", ratios))
            distances[row, column] = np.sqrt(np.sum(np.log(ratios) ** 2))
    return distances


def rv_matrix(stack, others) -> np.ndarray:
    """RV coefficient of every matrix with every matrix.

    Parameters
    ----------
    stack : ndarray of shape (n_matrices, n_channels, n_columns)
        Finite matrices.
    others : ndarray of shape (n_others, n_channels, n_other_columns)
        Matrices to compare with.

    Returns
    -------
    ndarray of shape (n_matrices, n_others)
        Within [0, 1]; NaN where one of the two is zero. `skdyn.metrics.rv_coefficient` has the
        formula.
    """

    def inner(first, second):  # tr(M M^T N N^T) is the squared Frobenius norm of M^T N
        return np.sum((first.T @ second) ** 2)

    def scaled(matrices):  # the coefficient does not change, and fourth powers stay in range
        return [matrix / (np.abs(matrix).max() or np.nan) for matrix in matrices]

    stack, others = scaled(stack), scaled(others)
    overlap = np.array([[inner(matrix, other) for other in others] for matrix in stack])
    size = [np.array([inner(matrix, matrix) for matrix in side]) for side in (stack, others)]
    return np.clip(overlap / np.sqrt(np.outer(*size)), 0, 1)


def check_positive_definite(matrix, name: str = "A matrix") -> None:
    """Check that a matrix can be a covariance.

    Parameters
    ----------
    matrix : ndarray of shape (n_rows, n_columns)
        A finite matrix.
    name : str, default="A matrix"
        How errors call it, at the start of a sentence.

    Raises
    ------
    ValueError
        If it is not square, not symmetric or, to the precision of float64, not positive definite.
    """
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"{name} has the shape {matrix.shape}, but a square one was expected. Pass a "
            "covariance."
        )
    if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-6 * np.abs(matrix).max()):
        raise ValueError(
            f"{name} is not symmetric, but a covariance was expected. Pass (C + C.T) / 2 if the "
            "difference is rounding."
        )
    eigenvalues = np.linalg.eigvalsh(matrix)
    # An eigenvalue below this is rounding: its logarithm would be noise.
    if eigenvalues[0] <= len(matrix) * np.finfo(np.float64).eps * eigenvalues[-1]:
        raise ValueError(_indefinite(name, eigenvalues))


def _indefinite(name, eigenvalues):
    return (
        f"{name} has eigenvalues from {eigenvalues[0]:.3g} to {eigenvalues[-1]:.3g}, but positive "
        "definite matrices were expected. Add a small multiple of the identity, or estimate them "
        "from more samples."
    )
