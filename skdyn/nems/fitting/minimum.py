"""Whether a fit has ended at a minimum: what the gradients there promise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import nnls

# Largest decrease, relative to the size of the loss, that a gradient may promise at a minimum: half
# its square in coordinates in which the loss has a curvature of about one.
SMALL_DECREASE = 1e-3

# Points around the end of a fit at which gradients are looked at, and how far they are away.
N_NEARBY, NEARBY = 24, 1e-2


def promised(
    point: np.ndarray,
    gradient: np.ndarray,
    bounds: np.ndarray,
    component: np.ndarray,
    n_components: int,
) -> np.ndarray:
    """Decrease of the loss of each component that its gradient promises.

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
    """What gradients promise where the loss has a kink, as that of rectifiers has.

    There the gradient of no side is small, but some mean of those nearby is, which a step could
    follow otherwise (Burke, Lewis & Overton 2005, SIAM J. Optim. 15, 751-779).

    Parameters
    ----------
    promise : ndarray of shape (n_components,)
        What the gradients at the end itself promise.
    small : float
        Promises up to here are left as they are.
    component : ndarray of int of shape (n_free,)
        The component of each coordinate.
    gradient_at : callable
        The gradient, zero where a bound is in its way, as a function of the step from the end.

    Returns
    -------
    ndarray of shape (n_components,)
        The least of both promises.
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
    """Say what is promised at the end of a fit.

    Parameters
    ----------
    decrease : float
        Relative to the size of the loss.

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
    """The shortest mean of some vectors, with weights that are positive and whose sum is one."""
    size = 1e3 * np.linalg.norm(vectors, axis=1).max()
    if size == 0 or not np.isfinite(size):
        return vectors[0]
    rows = np.vstack([vectors.T, np.full(len(vectors), size)])
    weights, _ = nnls(rows, np.append(np.zeros(vectors.shape[1]), size))
    return weights @ vectors / max(weights.sum(), 1e-12)
