"""The smallest simplex around a cloud of points.

Points that are convex combinations of a few vertices fill part of a simplex. If enough of them
lie near its facets, the vertices are found even if no point is near a vertex: they are those of
the simplex of least volume that holds the points [1]_. With noise some points fall outside, so that
points outside are penalised rather than forbidden [2]_.

References
----------
.. [1] Craig, M. D. (1994). Minimum-volume transforms for remotely sensed data. IEEE Transactions on
   Geoscience and Remote Sensing, 32(3), 542-552.
.. [2] Bioucas-Dias, J. M. (2009). A variable splitting augmented Lagrangian approach to linear
   spectral unmixing. WHISPERS '09, 1-4.
.. [3] Morup, M., & Hansen, L. K. (2012). Archetypal analysis for machine learning and data mining.
   Neurocomputing, 80, 54-63.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import helmert
from scipy.optimize import minimize
from scipy.special import expit

# Price of a mean negative weight, in units of the logarithm of the volume.
PENALTY = 100.0

# Over which range of weights the penalty turns from none to proportional.
SOFTNESS = 0.02

# Largest number of replacements of each corner of a furthest sum.
N_REPLACEMENTS = 10


def furthest_sum(points: np.ndarray, n_corners: int) -> np.ndarray:
    """Select points that are far from each other [3]_.

    Each new corner has the largest sum of distances to those before it; then the earliest ones
    are chosen anew, so that the result does not depend on the first point.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_dims)
        A cloud of points, at least as many as corners.
    n_corners : int
        Number of points to select.

    Returns
    -------
    ndarray of int of shape (n_corners,)
        Indices of the points.
    """
    chosen = [int(np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
    sums = _distances(points, chosen[0])
    for _ in range(n_corners - 1 + N_REPLACEMENTS):
        if len(chosen) == n_corners:
            sums = sums - _distances(points, chosen.pop(0))
        candidates = sums.copy()
        candidates[chosen] = -np.inf
        chosen.append(int(np.argmax(candidates)))
        sums = sums + _distances(points, chosen[-1])
    return np.array(chosen)


def _distances(points: np.ndarray, index: int) -> np.ndarray:
    return np.linalg.norm(points - points[index], axis=1)


def minimum_volume_simplex(points: np.ndarray) -> np.ndarray:
    """Vertices of the smallest simplex that contains a cloud of points, up to noise.

    With V the vertices, a column of ones appended to them and to the points, Q = V^-1 gives the
    weights of the points, points @ Q. Minimised is

        -log |det Q| + penalty * sum_j mean_n softplus(-weights_nj),

    the logarithm of the volume, up to a constant, and the mean amount by which weights fall below
    zero, from the corners of a furthest sum, or else from a regular simplex, by L-BFGS.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_dims)
        A cloud of points that fills all dimensions.

    Returns
    -------
    ndarray of shape (n_dims + 1, n_dims)
        The vertices.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the points lie in fewer dimensions.
    """
    n_points, n_dims = points.shape
    center = points.mean(axis=0)
    # In coordinates of unit variance the problem is as well conditioned for thin clouds.
    covariance = np.atleast_2d(np.cov(points, rowvar=False, ddof=0))
    axes = np.linalg.cholesky(covariance)
    white = np.linalg.solve(axes, (points - center).T).T
    extended = np.column_stack([white, np.ones(n_points)])
    corners = extended[furthest_sum(white, n_dims + 1)]
    if np.linalg.matrix_rank(corners) <= n_dims:
        # Far points may be equal or lie in one plane; a regular simplex never does.
        corners[:, :n_dims] = n_dims * helmert(n_dims + 1).T

    def inverse(free: np.ndarray) -> np.ndarray:
        """Columns such that the weights of every point sum to one."""
        columns = free.reshape(n_dims + 1, n_dims)
        ones = np.append(np.zeros(n_dims), 1.0)
        return np.column_stack([columns, ones - columns.sum(axis=1)])

    def objective(free: np.ndarray) -> tuple[float, np.ndarray]:
        matrix = inverse(free)
        excess = extended @ matrix / -SOFTNESS
        penalty = PENALTY * SOFTNESS * np.logaddexp(0, excess).mean(axis=0).sum()
        gradient = -np.linalg.inv(matrix).T - PENALTY / n_points * extended.T @ expit(excess)
        value = penalty - np.linalg.slogdet(matrix)[1]
        return value, (gradient[:, :-1] - gradient[:, -1:]).ravel()

    first = np.linalg.inv(corners)[:, :-1].ravel()
    found = minimize(objective, first, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return np.linalg.inv(inverse(found.x))[:, :-1] @ axes.T + center
