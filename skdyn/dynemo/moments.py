"""Modes from the moments of a recording, before any network is trained.

The expected product x_t x_t' is a convex combination of the modes' covariances, with the mixing
coefficients as weights. Three facts lead from there to the modes:

1. Given the mixing coefficients, rows are independent. The covariance of the products at one row
   with those a few rows later is therefore free of noise: it has the rank of the mixture, and its
   leading eigenvectors span the directions in which the modes differ. (Lagged covariances find
   the subspace of linear mixtures in the same way: Molgedey & Schuster 1994, Belouchrani et al.
   1997.)
2. In that subspace the products, smoothed in time, are a cloud of points within a simplex whose
   vertices are the modes.
3. The vertices follow from the simplex of least volume, even for a mode that never has all the
   weight: `skdyn.core.simplex`.

The same points give rough mixing coefficients of each row, to which the networks are pretrained.

No random numbers are used. If means are learned, the rows themselves are moments too, beside the
products of the rows after their local mean is subtracted.

References
----------
Molgedey, L., & Schuster, H. G. (1994). Physical Review Letters, 72(23), 3634-3637.
Belouchrani, A., et al. (1997). IEEE Transactions on Signal Processing, 45(2), 434-444.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import convolve1d
from scipy.optimize import linear_sum_assignment
from scipy.signal.windows import hann
from scipy.sparse.linalg import LinearOperator, eigsh
from scipy.spatial.distance import cdist

from skdyn.core.simplex import furthest_sum, minimum_volume_simplex

# Lags, in rows, over which the covariance of the products is summed, forwards and backwards.
N_LAGS = 4

# Lengths of the windows among which one is chosen, in rows.
WINDOW_LENGTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)

# Most points that the simplex is fitted to.
MAX_POINTS = 2**13

# Smallest eigenvalue of a mode's covariance, relative to that of the whole recording.
SMALLEST_EIGENVALUE = 0.1

# Smallest mixing coefficient in pretraining.
SMALLEST_COEFFICIENT = 0.01

# Variance, relative to the largest, of directions in which the points do not move.
NEGLIGIBLE = 1e-8

# Smallest eigenvalue of the whole recording's covariance that is resolved, relative to the largest.
RESOLUTION = 1e-5


def modes_from_moments(
    moments: Moments,
    n_modes: int,
    given: tuple[np.ndarray | None, np.ndarray | None],
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Estimate means and covariances of modes from the moments of a recording.

    Parameters
    ----------
    moments : Moments
        Moments of the recording.
    n_modes : int
        Number of modes.
    given : tuple of two ndarrays or None
        Known means and covariances; the others are put in the matching order.

    Returns
    -------
    means : ndarray of shape (n_modes, n_channels) or None
        None if they do not count and are not given.
    covariances : ndarray of shape (n_modes, n_channels, n_channels) or (n_modes, n_channels), \
            or None
        Diagonals if only those count.
    """
    found = moments.modes(find_vertices(moments, n_modes))
    for known, values in zip(given, found, strict=True):
        if known is not None and values is not None:
            pairs = cdist(known.reshape(len(known), -1), values.reshape(len(values), -1))
            order = linear_sum_assignment(pairs)[1]
            found = [None if part is None else part[order] for part in found]
            break
    means, covariances = (
        other if values is None else values for values, other in zip(given, found, strict=True)
    )
    return means, covariances


def mixing_from_moments(
    moments: Moments, means: np.ndarray | None, covariances: np.ndarray | None
) -> list[np.ndarray]:
    """Estimate mixing coefficients from moments that are averaged in time.

    Averages are written as combinations of the modes' moments, with weights of sum one; weights
    that are too small are raised to `SMALLEST_COEFFICIENT`, and the sum set to one again.

    Parameters
    ----------
    moments : Moments
        Moments of the recording.
    means, covariances : ndarray or None
        Modes, as returned by `modes_from_moments`.

    Returns
    -------
    list of ndarray of shape (n_rows, n_modes)
        Mixing coefficients of each stretch, in single precision.
    """
    vertices = moments.vertices(means, covariances)
    _, sizes, axes = np.linalg.svd(vertices - vertices.mean(axis=0), full_matrices=False)
    # Modes that are all equal leave no direction; any one then gives them equal weights.
    axes = axes[: max(1, np.sum(sizes > math.sqrt(NEGLIGIBLE) * sizes[0]))]
    points = moments.project(axes)
    points = moments.smooth(points, moments.window_length(points))
    corners = np.column_stack([vertices @ axes.T, np.ones(len(vertices))])
    weights = np.column_stack([points, np.ones(len(points))]) @ np.linalg.pinv(corners)
    weights = np.maximum(weights, SMALLEST_COEFFICIENT)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.split(weights.astype(np.float32), moments.edges[1:-1])


class Moments:
    """Rows and their products, as vectors, one at each point in time.

    The rows are whitened, so that noise is about as strong in every direction: a product of two
    channels has a variance of 2 if each entry off the diagonal is counted twice, and so have the
    rows after a factor of sqrt(2).

    Parameters
    ----------
    pieces : list of ndarray of shape (n_rows, n_channels)
        Stretches of the recording.
    means, covariances : bool
        Whether the rows count, and whether their products do.
    diagonal : bool
        Whether only the squares count among the products.
    """

    def __init__(self, pieces, *, means: bool, covariances: bool, diagonal: bool):
        self.edges = np.cumsum([0, *map(len, pieces)])
        rows = np.concatenate(pieces)
        self.n_rows, self.n_channels = rows.shape
        self.center = rows.mean(axis=0) if means else np.zeros_like(rows[0])
        rows -= self.center
        second = rows.T @ rows / np.float32(self.n_rows)
        if diagonal:
            second = np.diag(np.diag(second))
        values, axes = np.linalg.eigh(second.astype(np.float64))
        smallest = max(RESOLUTION * values[-1], np.finfo(np.float32).tiny)
        roots = np.sqrt(np.maximum(values, smallest))
        # Symmetric, so that diagonal covariances stay diagonal.
        self.unwhiten, self.whiten = (axes * roots) @ axes.T, (axes / roots) @ axes.T
        self.rows = rows @ self.whiten.astype(np.float32)
        self.residual, self.share = self.rows, 1.0
        self.means, self.covariances, self.diagonal = means, covariances, diagonal
        if means and covariances:
            self._take_local_means()
        n_levels = means * self.n_channels
        n_products = covariances * self.n_channels ** (1 if diagonal else 2)
        self.n_features = n_levels + n_products
        # A product of two channels appears twice.
        repeats = 0 if diagonal else n_products - self.n_channels * covariances
        self.n_distinct = self.n_features - repeats // 2
        self.average = self.combine(np.full(self.n_rows, 1 / self.n_rows))

    def _take_local_means(self) -> None:
        """Subtract local means, and return the rows and the share of variance that is left."""
        window = hann_window(self.window_length(self.rows))
        self.residual = self.rows - self._filter(self.rows, window, mode="nearest")
        kept = -window
        kept[len(window) // 2] += 1
        self.share = float(np.sum(kept**2))

    def project(self, directions: np.ndarray) -> np.ndarray:
        """Project the moments of each row, less their average, on directions.

        Parameters
        ----------
        directions : ndarray of shape (n_directions, n_features)
            Directions.

        Returns
        -------
        ndarray of shape (n_rows, n_directions)
            Projections.
        """
        columns = []
        for direction in directions.astype(np.float32):
            column = np.zeros(self.n_rows, np.float32)
            levels, products = self._split(direction)
            if self.means:
                column += math.sqrt(2) * (self.rows @ levels)
            if self.covariances and self.diagonal:
                column += self.residual**2 @ products
            elif self.covariances:
                matrix = products.reshape(self.n_channels, -1)
                column += np.einsum("tc,tc->t", self.residual @ matrix, self.residual)
            columns.append(column.astype(np.float64))
        projections = np.stack(columns, axis=1)
        return projections - projections.mean(axis=0)

    def combine(self, weights: np.ndarray) -> np.ndarray:
        """Weighted sum of the moments of all rows.

        Parameters
        ----------
        weights : ndarray of shape (n_rows,)
            Weights.

        Returns
        -------
        ndarray of shape (n_features,)
            The sum.
        """
        weights = weights.astype(np.float32)
        parts = []
        if self.means:
            parts.append(math.sqrt(2) * (weights @ self.rows))
        if self.covariances and self.diagonal:
            parts.append(weights @ self.residual**2)
        elif self.covariances:
            parts.append(((self.residual * weights[:, np.newaxis]).T @ self.residual).ravel())
        return np.concatenate(parts).astype(np.float64)

    def _split(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n_levels = self.n_channels if self.means else 0
        return vector[:n_levels], vector[n_levels:]

    def lagged(self, series: np.ndarray) -> np.ndarray:
        """Sum of the values up to `N_LAGS` rows before and after, never of the row itself.

        Parameters
        ----------
        series : ndarray of shape (n_rows, n_series)
            One column per series.

        Returns
        -------
        ndarray of shape (n_rows, n_series)
            Sums within each stretch.
        """
        weights = np.ones(2 * N_LAGS + 1)
        weights[N_LAGS] = 0
        return self._filter(series, weights, mode="constant")

    def smooth(self, series: np.ndarray, length: int) -> np.ndarray:
        """Averages under a Hann window.

        Parameters
        ----------
        series : ndarray of shape (n_rows, n_series)
            One column per series.
        length : int
            Rows of the window.

        Returns
        -------
        ndarray of shape (n_rows, n_series)
            Averages within each stretch.
        """
        return self._filter(series, hann_window(length), mode="nearest")

    def _filter(self, series: np.ndarray, weights: np.ndarray, mode: str) -> np.ndarray:
        filtered = np.empty_like(series)
        for start, stop in zip(self.edges[:-1], self.edges[1:], strict=True):
            filtered[start:stop] = convolve1d(series[start:stop], weights, axis=0, mode=mode)
        return filtered

    def window_length(self, series: np.ndarray) -> int:
        """Choose the length of the Hann window with the least expected error.

        The autocovariance at lags other than zero is that of the signal, which gives the expected
        squared error of every window.

        Parameters
        ----------
        series : ndarray of shape (n_rows, n_series)
            Signals with noise that is independent from row to row.

        Returns
        -------
        int
            One of `WINDOW_LENGTHS`.
        """
        covariance = self._autocovariance(series, max(WINDOW_LENGTHS))
        signal = covariance.copy()
        signal[0] = max(signal[1], 1.5 * signal[1] - 0.5 * signal[2])
        noise = max(0.0, covariance[0] - signal[0])
        errors = []
        for length in WINDOW_LENGTHS:
            window = hann_window(length)
            lags = np.arange(len(window))
            overlap = np.correlate(window, window, "full")[len(window) - 1 :]
            explained = signal[np.abs(lags - len(window) // 2)] @ window
            kept = 2 * overlap @ signal[lags] - overlap[0] * signal[0]
            errors.append(kept - 2 * explained + noise * overlap[0])
        return WINDOW_LENGTHS[int(np.argmin(errors))]

    def _autocovariance(self, series: np.ndarray, n_lags: int) -> np.ndarray:
        """Autocovariance at lags 0 to `n_lags`, summed over series."""
        total = np.zeros(n_lags + 1)
        for start, stop in zip(self.edges[:-1], self.edges[1:], strict=True):
            piece = series[start:stop]
            n_fft = 2 ** math.ceil(math.log2(len(piece) + n_lags + 1))
            power = np.abs(np.fft.rfft(piece, n_fft, axis=0)) ** 2
            total += np.fft.irfft(power.sum(axis=1), n_fft)[: n_lags + 1]
        return total / self.n_rows

    def modes(self, vertices: np.ndarray) -> list[np.ndarray | None]:
        """Convert vectors of moments to means and covariances.

        Parameters
        ----------
        vertices : ndarray of shape (n_modes, n_features)
            Moments, one row per mode, less their average.

        Returns
        -------
        list of two ndarrays or None
            Means and covariances, or diagonals of them; None for those that do not count here.
        """
        levels, products = zip(*map(self._split, self.average + vertices), strict=True)
        means = None
        if self.means:
            means = np.stack(levels) @ self.unwhiten / math.sqrt(2) + self.center
        if not self.covariances:
            return [means, None]
        if self.diagonal:
            variances = np.maximum(np.stack(products) / self.share, SMALLEST_EIGENVALUE)
            return [means, variances * np.diag(self.unwhiten) ** 2]
        matrices = np.stack(products).reshape(len(vertices), self.n_channels, -1) / self.share
        values, axes = np.linalg.eigh((matrices + matrices.swapaxes(1, 2)) / 2)
        halves = self.unwhiten @ (axes * np.sqrt(np.maximum(values, SMALLEST_EIGENVALUE))[:, None])
        return [means, halves @ halves.swapaxes(1, 2)]

    def vertices(self, means: np.ndarray | None, covariances: np.ndarray | None) -> np.ndarray:
        """Convert modes to vectors of moments, the inverse of `modes`.

        Parameters
        ----------
        means, covariances : ndarray or None
            As returned by `modes`.

        Returns
        -------
        ndarray of shape (n_modes, n_features)
            Moments, one row per mode, less their average.
        """
        parts = []
        if self.means and means is not None:
            parts.append(math.sqrt(2) * (means - self.center) @ self.whiten)
        if self.covariances and covariances is not None:
            if self.diagonal:
                products = covariances * np.diag(self.whiten) ** 2
            else:
                products = (self.whiten @ covariances @ self.whiten).reshape(len(covariances), -1)
            parts.append(self.share * products)
        return np.concatenate(parts, axis=1) - self.average


def hann_window(length: int) -> np.ndarray:
    """Hann window with a row in its middle, of sum one.

    Parameters
    ----------
    length : int
        Rows of the window.

    Returns
    -------
    ndarray of shape (2 * (length // 2) + 1,)
        Weights.
    """
    window = hann(2 * (length // 2) + 3)[1:-1]
    return window / window.sum()


def find_vertices(moments: Moments, n_modes: int) -> np.ndarray:
    """Find the vertices of the simplex in which the moments lie.

    Parameters
    ----------
    moments : Moments
        Moments of the recording.
    n_modes : int
        Number of vertices. If the moments have too few dimensions for that many, the others are
        points that lie far from each other.

    Returns
    -------
    ndarray of shape (n_modes, n_features)
        Vertices, less the average of the moments.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the moments do not change.
    """
    if n_modes == 1:
        return np.zeros((1, moments.n_features))
    directions = leading_directions(moments, n_modes - 1)
    projections = moments.project(directions)
    length = moments.window_length(projections)
    stride = max(length // 4, 1 + moments.n_rows // MAX_POINTS)
    points = moments.smooth(projections, length)[:: min(stride, moments.n_rows // n_modes // 2)]
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(points, rowvar=False)))
    if not variances[-1] > 0:
        raise np.linalg.LinAlgError("The moments do not change.")
    # Channels that repeat others leave directions in which nothing moves.
    axes = axes[:, variances > NEGLIGIBLE * variances[-1]]
    vertices = minimum_volume_simplex(points @ axes) @ axes.T
    n_missing = n_modes - len(vertices)
    if n_missing:
        vertices = np.concatenate([vertices, points[furthest_sum(points, n_missing)]])
    return vertices @ directions


def leading_directions(moments: Moments, n_directions: int) -> np.ndarray:
    """Find directions in which the moments change slowly rather than from row to row.

    Parameters
    ----------
    moments : Moments
        Moments of the recording.
    n_directions : int
        Number of directions.

    Returns
    -------
    ndarray of shape (n_directions, n_features), or fewer if there are fewer features
        Leading eigenvectors of the lagged covariance, orthonormal.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the lagged covariance is zero. Releases of ARPACK differ in what they do then.
    """
    size = moments.n_features

    def product(vector: np.ndarray) -> np.ndarray:
        lagged = moments.lagged(moments.project(vector.reshape(1, -1)))
        return moments.combine((lagged - lagged.mean(axis=0))[:, 0])

    if n_directions >= moments.n_distinct or size <= 2 * n_directions:
        matrix = np.stack([product(row) for row in np.eye(size)])
        vectors = np.linalg.eigh((matrix + matrix.T) / 2)[1]
        return vectors.T[::-1][: min(n_directions, moments.n_distinct)]
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    # Any vector is possible; a fixed one makes the start independent of the seed.
    first = np.random.RandomState(0).standard_normal(size)
    if not product(first).any():
        raise np.linalg.LinAlgError("No direction in which the moments change slowly was found.")
    vectors = eigsh(operator, n_directions, which="LA", v0=first, tol=1e-3)[1]
    return vectors.T[::-1]
