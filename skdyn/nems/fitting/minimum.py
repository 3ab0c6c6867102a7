"""Convergence check: the decrease of the loss that gradients predict at the end of a fit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import nnls

# Largest predicted decrease at a minimum, relative to the size of the loss: half the squared
# gradient in coordinates in which the loss has a curvature of about one.
SMALL_DECREASE = 1e-3

# Number of points near the end of a fit at which gradients are evaluated, and their distance.
N_NEARBY, NEARBY = 24, 1e-2


def promised(
    point: np.ndarray,
    gradient: np.ndarray,
    bounds: np.ndarray,
    component: np.ndarray,
    n_components: int,
) -> np.ndarray:
    """Return the decrease of each component's loss that its gradient predicts.

    Parameters
    ----------
    point, gradient : ndarray of shape (n_free,)
        A point in coordinates in which the loss has a curvature of about one, and its gradient.
    bounds : ndarray of shape (n_free, 2)
        Lowest and highest coordinates.
    component : ndarray of int of shape (n_free,)
        The component of each coordinate.
    n_components : int
        Number of components.

    Returns
    -------
    ndarray of shape (n_components,)
        Half the squared length of the step against the gradient, within the bounds.
    """
    step = np.clip(point - gradient, bounds[:, 0], bounds[:, 1]) - point
    return 0.5 * np.bincount(component, step**2, n_components)


def promise_at_kinks(
    promise: np.ndarray,
    small: float,
    component: np.ndarray,
    gradient_at: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Return the predicted decrease at a kink of the loss, as rectifiers cause.

    At a minimum with a kink, gradients on all sides are large, but a convex combination of nearby
    gradients is small (gradient sampling; Burke, Lewis & Overton 2005, SIAM J. Optim. 15, 751-779).

    Parameters
    ----------
    promise : ndarray of shape (n_components,)
        Decreases predicted by the gradients at the end point.
    small : float
        Predicted decreases up to this value are unchanged.
    component : ndarray of int of shape (n_free,)
        The component of each coordinate.
    gradient_at : callable
        Function of the step from the end point that returns the gradient, zero for coordinates at
        an active bound.

    Returns
    -------
    ndarray of shape (n_components,)
        The smaller of both predicted decreases.
    """
    if np.all(promise <= small):
        return promise
    rng = np.random.RandomState(0)
    n_values = np.maximum(np.bincount(component, minlength=len(promise)), 1)[component]
    draws = rng.standard_normal((N_NEARBY, len(component)))
    gradients = np.array([gradient_at(NEARBY * draw / np.sqrt(n_values)) for draw in draws])
    if not np.isfinite(gradients).all():
        return promise
    promise = promise.copy()
    for number in np.flatnonzero(promise > small):
        mean = _shortest_mean(gradients[:, component == number])
        promise[number] = min(promise[number], 0.5 * float(mean @ mean))
    return promise


def promises(decrease: float) -> str:
    """Describe the decrease predicted at the end of a fit.

    Parameters
    ----------
    decrease : float
        Decrease, relative to the size of the loss.

    Returns
    -------
    str
        Part of a sentence.
    """
    return (
        f"its gradient promises a decrease of {decrease:.2g} times the loss of a constant "
        "prediction"
    )


def _shortest_mean(vectors: np.ndarray) -> np.ndarray:
    """Return the shortest convex combination of vectors."""
    size = 1e3 * np.linalg.norm(vectors, axis=1).max()
    if size == 0 or not np.isfinite(size):
        return vectors[0]
    rows = np.vstack([vectors.T, np.full(len(vectors), size)])
    weights, _ = nnls(rows, np.append(np.zeros(vectors.shape[1]), size))
    return weights @ vectors / max(weights.sum(), 1e-12)
