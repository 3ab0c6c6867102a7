"""Low-rank filters that best predict a response, from moments of a lagged stimulus.

The computations only use the covariance of the lagged stimulus and its covariance with the
response, so that their time does not depend on the length of the recording.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import nnls

# Ridge relative to each diagonal entry, so that units of channels do not matter.
RIDGE = 1e-3

# Rounds of alternating least squares.
N_ROUNDS = 15

# Maximum number of array entries of alternating least squares for several outputs.
NUMBERS_AT_ONCE = 4_000_000

# Number of exchange rounds, in which each profile is replaced by the best given the others.
N_EXCHANGES = 3

# Minimum fraction of a regressor's variance that previously chosen ones do not explain.
NEW_VARIANCE = 1e-3

# Relative differences up to this are rounding errors.
TIED = 1e-6

# Norm of bounded channel weights, unless the bounds require a smaller one.
LARGEST_NORM = 1e3

# Function of `matrix`, `right` and the unconstrained solution of `matrix @ w = right` that returns
# feasible channel weights (n_channels, k) near it.
Restriction = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def ridge(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve `matrix (..., n, n) @ x = right` with a ridge proportional to the diagonal."""
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1)
    largest = np.max(diagonal, axis=-1, keepdims=True, initial=0)
    load = RIDGE * np.where(diagonal > 0, diagonal, np.where(largest > 0, largest, 1.0))
    return np.linalg.solve(matrix + load[..., np.newaxis] * np.eye(matrix.shape[-1]), right)


def unit(columns: np.ndarray) -> np.ndarray:
    """Divide columns by their norms; zero columns are kept."""
    norms = np.linalg.norm(columns, axis=-2, keepdims=True)
    return columns / np.where(norms > 0, norms, 1)


def products(filters: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """Return outer products of filters (..., n_lags, k) and channels (..., n_channels, k)."""
    full = filters[..., :, np.newaxis, :] * channels[..., np.newaxis, :, :]
    return full.reshape(*full.shape[:-3], -1, full.shape[-1])


def select(gram: np.ndarray, cross: np.ndarray, n_chosen: int) -> list[int]:
    """Choose regressors greedily, by the residual variance that they explain.

    Parameters
    ----------
    gram : ndarray of shape (n, n)
        Covariance of the regressors.
    cross : ndarray of shape (n, n_outputs)
        Covariance of the regressors with the targets.
    n_chosen : int
        Number of regressors to choose, at most n.

    Returns
    -------
    list of int
        Indices of the regressors; linear combinations of others come last.
    """
    # Pivoted Cholesky: only the diagonal of the residual covariance and the rows of the chosen
    # regressors are needed.
    left, cross = np.diag(gram).copy(), cross.copy()
    before = left.copy()
    rows, along = np.zeros((2, n_chosen, len(gram)))
    usable = np.isfinite(before) & (before > 0)
    chosen: list[int] = []
    for step in range(n_chosen):
        new = usable & (left > NEW_VARIANCE * before)
        new[chosen] = False
        if not new.any():
            # Remaining regressors in order of residual variance; those without variance come last.
            share = np.where(usable, left / np.where(usable, before, 1), -np.inf)
            share[chosen] = -np.inf
            rest = [int(one) for one in np.argsort(-share) if one not in set(chosen)]
            return chosen + rest[: n_chosen - len(chosen)]
        # The ridge keeps regressors with little residual variance from appearing informative.
        explained = np.sum(cross**2, axis=1) / np.where(new, left + RIDGE * before, 1)
        # The first of regressors that tie up to rounding, so that units of the data do not matter.
        explained = np.where(new, explained, 0)
        best = int(np.argmax(explained >= (1 - TIED) * np.max(explained)))
        if not new[best]:  # no variance is left to explain
            best = int(np.argmax(new))
        chosen.append(best)
        rows[step] = gram[best] - rows[:step, best] @ along[:step]
        along[step] = rows[step] / rows[step, best]
        cross = cross - np.outer(along[step], cross[best])
        left = left - along[step] * rows[step]
    return chosen


def main_directions(explained: np.ndarray, most: int) -> np.ndarray:
    """Return leading eigenvectors of a symmetric matrix, without those of rounding errors."""
    values, vectors = np.linalg.eigh(explained)
    keep = values > 1e-6 * max(values[-1], 0)
    return same_sign(vectors[:, keep][:, ::-1][:, :most])


def same_sign(columns: np.ndarray) -> np.ndarray:
    """Fix the sign of each column by a weighted sum, because that of a solver is arbitrary."""
    # Asymmetric weights, so that sums of typical columns are nonzero.
    weights = np.cos(np.arange(len(columns)) + 0.5)
    return columns * np.where(weights @ columns < 0, -1, 1)


def separable_parts(kernel: np.ndarray, spread: np.ndarray, n_parts: int):
    """Decompose a kernel (n_lags, n_channels) into products of filters and channels.

    Channels are scaled by their spread, so that components are ordered by output size.
    """
    left, sizes, right = np.linalg.svd(kernel * spread, full_matrices=False)
    n_parts = min(n_parts, len(sizes))
    turned = same_sign(left)
    signs = np.where(np.sum(turned * left, axis=0) < 0, -1, 1)
    left, right = turned, right * signs[:, np.newaxis]
    return left[:, :n_parts] * sizes[:n_parts], right[:n_parts].T / spread[:, np.newaxis]


def alternate(
    stimulus: np.ndarray,
    response: np.ndarray,
    filters: np.ndarray,
    channels: np.ndarray,
    weights: np.ndarray,
    *,
    restrict: Restriction | None = None,
    keep_filters: bool = False,
    keep_channels: bool = False,
    n_rounds: int = N_ROUNDS,
) -> tuple[np.ndarray, np.ndarray]:
    """Alternating least squares of filters and channels (Kroonenberg & de Leeuw 1980).

    Several problems with the same stimulus are solved together.

    Parameters
    ----------
    stimulus : ndarray of shape (n_lags, n_channels, n_lags, n_channels)
        Covariance of the lagged stimulus.
    response : ndarray of shape (n_problems, n_lags, n_channels, n_outputs)
        Its covariance with the response of each problem.
    filters : ndarray of shape (n_problems, n_lags, k)
        Initial filters.
    channels : ndarray of shape (n_problems, n_channels, k)
        Initial channel weights.
    weights : ndarray of shape (n_problems, k, n_outputs)
        Weights of the products of filters and channels in each output. With more than one output,
        they are updated in each round.
    restrict : Restriction, default=None
        Constraint of the channel weights; None for no constraint.
    keep_filters, keep_channels : bool, default=False
        Whether to keep the filters or the channels fixed.
    n_rounds : int, default=15
        Number of rounds.

    Returns
    -------
    filters : ndarray of shape (n_problems, n_lags, k)
        Filters of norm one, unless channels are kept or restricted.
    channels : ndarray of shape (n_problems, n_channels, k)
        Channel weights of norm one, unless they are kept or restricted.
    """
    n_lags, n_channels = stimulus.shape[:2]
    flat = stimulus.reshape(n_lags * n_channels, -1)
    # Two axes, because one large matrix product is faster than many small ones.
    by_channel = stimulus.reshape(-1, n_channels)
    by_lag = stimulus.transpose(0, 1, 3, 2).reshape(-1, n_lags)
    n_problems, n_outputs = len(response), response.shape[3]
    free = restrict is None

    def equations(by, kept):
        """Return matrix (problem, place, k, place, k) and right side with the other axis fixed."""
        half = by @ kept.transpose(1, 0, 2).reshape(kept.shape[1], -1)  # l c place, problem k
        half = half.reshape(n_lags, n_channels, -1, n_problems, kept.shape[2])
        along = 1 if by is by_channel else 0
        half = np.moveaxis(half, (3, along), (0, 4))  # problem, place, place, k, the axis kept
        n_places, shape = half.shape[1], half.shape[:4]
        matrix = half.reshape(n_problems, -1, half.shape[4]) @ kept
        matrix = matrix.reshape(*shape, -1).transpose(0, 1, 4, 2, 3)
        shares = weights @ weights.transpose(0, 2, 1)
        matrix = matrix * shares[:, np.newaxis, :, np.newaxis]
        weighed = response @ weights.transpose(0, 2, 1)[:, np.newaxis]
        right = np.einsum("plck,pck->plk" if along else "plck,plk->pck", weighed, kept)
        size = n_places * kept.shape[2]
        return matrix.reshape(n_problems, size, size), right

    def new_filters():
        matrix, right = equations(by_channel, channels)
        return ridge(matrix, right.reshape(n_problems, -1, 1)).reshape(right.shape)

    def new_channels():
        matrix, right = equations(by_lag, filters)
        found = ridge(matrix, right.reshape(n_problems, -1, 1)).reshape(right.shape)
        if restrict is None:
            return found
        return np.stack([restrict(*one) for one in zip(matrix, right, found, strict=True)])

    for _ in range(1 if keep_filters or keep_channels else n_rounds):
        if n_outputs > 1:
            weights = best_weights(flat, response, filters, channels)
        if not keep_filters:
            filters = new_filters()
            filters = filters if keep_channels else unit(filters)
        if not keep_channels:
            channels = new_channels()
            channels = unit(channels) if free and not keep_filters else channels
    if not (free or keep_filters or keep_channels):
        filters = new_filters()
    return filters, channels


def best_weights(flat, response, filters, channels) -> np.ndarray:
    """Return weights (n_problems, k, n_outputs) of products of filters and channels."""
    columns = products(filters, channels)
    turned = columns.transpose(0, 2, 1)
    return ridge(turned @ (flat @ columns), turned @ response.reshape(*columns.shape[:2], -1))


def of_outputs(stimulus, response, n_ranks: int, restrict=None) -> tuple[np.ndarray, np.ndarray]:
    """Return the best low-rank kernel for the response (n_outputs, n_lags, n_channels).

    The filters have the shape (n_outputs, n_lags, n_ranks) and carry the scale, the channels have
    the shape (n_outputs, n_channels, n_ranks) and a norm of one.
    """
    n_outputs, n_lags, n_channels = response.shape
    at_once = max(1, NUMBERS_AT_ONCE // (n_lags * n_channels * max(n_lags, n_channels) * n_ranks))
    if n_outputs > at_once:
        parts = range(0, n_outputs, at_once)
        found = [of_outputs(stimulus, response[i : i + at_once], n_ranks, restrict) for i in parts]
        filters, channels = (np.concatenate(one) for one in zip(*found, strict=True))
        return filters, channels
    # Any start works; a fixed one does not depend on seed and output.
    rng = np.random.RandomState(0)
    filters = np.tile(rng.standard_normal((n_lags, n_ranks)), (n_outputs, 1, 1))
    channels = np.tile(rng.standard_normal((n_channels, n_ranks)), (n_outputs, 1, 1))
    if restrict is not None:
        channels = np.abs(channels)
    response, weights = response[..., np.newaxis], np.ones((n_outputs, n_ranks, 1))
    filters, channels = alternate(stimulus, response, filters, channels, weights, restrict=restrict)
    if restrict is None:
        flat = stimulus.reshape(n_lags * n_channels, -1)
        sizes = best_weights(flat, response, filters, channels)
        filters = filters * sizes.transpose(0, 2, 1)
    return filters, channels


def profile_moments(stimulus: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    """Return the covariance (n, n_lags, n, n_lags) of a stimulus weighted by profiles."""
    n_lags, n_channels = stimulus.shape[:2]
    half = stimulus.reshape(-1, n_channels) @ profiles
    half = half.reshape(n_lags, n_channels, n_lags, -1).transpose(1, 0, 2, 3)
    full = profiles.T @ half.reshape(n_channels, -1)
    return full.reshape(-1, n_lags, n_lags, profiles.shape[1]).transpose(0, 1, 3, 2)


def of_profiles(moments: np.ndarray, response: np.ndarray, n_ranks: int):
    """Return the best low-rank kernel with channel weights out of a set of profiles.

    Profiles are chosen greedily, then each is replaced by the best one given the others.

    Parameters
    ----------
    moments : ndarray of shape (n, n_lags, n, n_lags)
        Moments from `profile_moments`.
    response : ndarray of shape (n, n_lags)
        Covariance of the weighted stimulus with the response.
    n_ranks : int
        Number of profiles.

    Returns
    -------
    filters : ndarray of shape (n_lags, n_ranks)
        The filter of each chosen profile.
    numbers : list of int
        The chosen profiles.
    """
    n, n_lags = response.shape

    def solved(numbers):
        right = response[numbers].ravel()
        filters = ridge(moments[numbers][:, :, numbers].reshape(len(right), -1), right)
        return filters, filters @ right

    def best(others):
        new = [one not in others for one in range(n)]
        if not any(new):  # more ranks than profiles
            return len(others) % n
        explained = [solved([*others, one])[1] if new[one] else -1.0 for one in range(n)]
        return int(np.argmax(explained))

    numbers: list[int] = []
    for _ in range(n_ranks):
        numbers.append(best(numbers))
    for _ in range(N_EXCHANGES if n_ranks > 1 else 0):
        before = list(numbers)
        for rank in range(n_ranks):
            numbers[rank] = best(numbers[:rank] + numbers[rank + 1 :])
        if numbers == before:
            break
    filters, _ = solved(numbers)
    return filters.reshape(n_ranks, n_lags).T, numbers


def restriction(low: float, high: float) -> Restriction | None:
    """Return a restriction of channel weights to bounds; None if there are no bounds."""
    if not low <= high or (low == -np.inf and high == np.inf):
        return None
    if low == 0 and high == np.inf:
        return _nonnegative

    def within(matrix: np.ndarray, right: np.ndarray, free: np.ndarray) -> np.ndarray:
        return _within(free, low, high)

    return within


def both_signs(restrict: Restriction, channels: np.ndarray) -> list[np.ndarray]:
    """Return channels and their negatives, restricted independently of the response."""
    nothing = np.zeros((0, 0))
    return [restrict(nothing, nothing, signed) for signed in (channels, -channels)]


def _nonnegative(matrix: np.ndarray, right: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Solve by nonnegative least squares; without a matrix, clip the free solution at 0."""
    if not matrix.size:
        return np.maximum(free, 0)
    diagonal = np.diag(matrix)
    # Scaled so that the diagonal and the right side are about one.
    size = np.sqrt(np.where(diagonal > 0, diagonal, np.max(diagonal, initial=0) or 1.0))
    root = np.linalg.cholesky(matrix / np.outer(size, size) + RIDGE * np.eye(len(size))).T
    scaled = right.ravel() / size
    scaled = np.linalg.solve(root.T, scaled / (np.max(np.abs(scaled), initial=0) or 1.0))
    try:
        found, _ = nnls(root, scaled, maxiter=30 * len(scaled))
    except RuntimeError:  # too many iterations
        found = np.zeros(len(scaled))
    found = unit((found / size).reshape(free.shape))
    return np.where(found.any(axis=0), found, unit(np.abs(free)))


def _within(free: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale and clip channels to the bounds, with the sign that preserves more of them."""
    signed = [
        np.clip(unit(sign * free) * size, low, high)
        for sign in (1, -1)
        for size in (min(high, LARGEST_NORM), min(-low, LARGEST_NORM))
        if size > 0
    ]
    if not signed:
        return np.clip(free, low, high)
    likeness = np.stack([np.abs(np.sum(unit(one) * free, axis=0)) for one in signed])
    best = np.argmax(likeness, axis=0)
    return np.stack([signed[one][:, column] for column, one in enumerate(best)], axis=1)
