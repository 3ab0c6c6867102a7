"""Time-delay embedding, and its moments without the wide matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Integral
from typing import ClassVar

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils.validation import check_is_fitted

from skdyn._sklearn import Interval, StrOptions
from skdyn.preprocessing.base import SessionTransformer, float_type
from skdyn.sessions import check_columns

# Numbers in a block of the wide matrix: 16 MB of float64.
_BLOCK_SIZE = 2**21


class TimeDelayEmbedder(OneToOneFeatureMixin, SessionTransformer):
    """Time-delay embedding: add each row's neighbours in time as columns.

    The covariance of embedded rows holds the spectra of channels and the phases between them. Row t
    of a channel becomes ``x[t + half], ..., x[t], ..., x[t - half]``, latest first, with
    ``half = n_embeddings // 2``, channel by channel.

    Parameters
    ----------
    n_embeddings : int, default=15
        Number of rows in the window around each row, itself included: odd. 15 at 250 Hz and 7 at
        100 Hz are common.
    edges : {"reflect", "edge", "zero"}, default="reflect"
        How a session is continued before its start and after its end, so that every row is kept.
        "reflect": mirrored in its first and last row, which keeps its spectrum. "edge": the first
        or last row is repeated. "zero": zeros.

    Attributes
    ----------
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    See Also
    --------
    TimeDelayPCA : The same followed by principal components, in little memory.

    Notes
    -----
    osl-dynamics drops ``half`` rows at either end of a session; the rows between are the same
    here, columns in the same order.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import TimeDelayEmbedder
    >>> X = np.array([[1.0], [2.0], [3.0], [4.0]])
    >>> embedder = TimeDelayEmbedder(n_embeddings=3)
    >>> embedder.fit_transform(X)
    array([[2., 1., 2.],
           [3., 2., 1.],
           [4., 3., 2.],
           [3., 4., 3.]])
    >>> embedder.get_feature_names_out(["Fz"])
    array(['Fz(t+1)', 'Fz(t)', 'Fz(t-1)'], dtype=object)
    """

    __metadata_request__inverse_transform = {"sessions": True}  # noqa: RUF012

    _parameter_constraints: ClassVar[dict] = {
        "n_embeddings": [Interval(Integral, 1, None, closed="left")],
        "edges": [StrOptions({"reflect", "edge", "zero"})],
    }

    def __init__(self, n_embeddings=15, *, edges="reflect"):
        self.n_embeddings = n_embeddings
        self.edges = edges

    def inverse_transform(self, X, *, sessions=None):
        """Reconstruct the channels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels * n_embeddings), list of such, or array of \
                shape (n_sessions, n_samples, n_channels * n_embeddings)
            Embedded rows.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        ndarray of shape (n_samples, n_channels), or as X
            Each value is the mean of its copies in the rows of its session; the inverse of an
            embedded recording is exact to the bit.
        """
        check_is_fitted(self)
        n_columns = self.n_features_in_ * self.n_embeddings
        recording = check_columns(X, sessions, n_columns=n_columns)
        return recording.like_input([self._invert(wide) for wide in recording.arrays])

    def get_feature_names_out(self, input_features=None):
        """Names of the columns: those of the channels, with their delay in rows.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the channels. None for those seen in `fit`, or x0, x1, ...

        Returns
        -------
        ndarray of str
            Such as "Fz(t+1)", "Fz(t)", "Fz(t-1)".
        """
        half = self.n_embeddings // 2
        delays = [f"(t{delay:+d})" if delay else "(t)" for delay in range(half, -half - 1, -1)]
        names = super().get_feature_names_out(input_features)
        return np.array([f"{name}{delay}" for name in names for delay in delays], dtype=object)

    def _learn(self, arrays):
        check_odd(self.n_embeddings)

    def _map(self, session):
        wide = np.empty(
            (len(session), session.shape[1] * self.n_embeddings), dtype=float_type(session)
        )
        for block in blocks(*wide.shape):
            wide[block] = _embed(session, block, self.n_embeddings, self.edges)
        return wide

    def _invert(self, wide):
        return _mean_of_copies(lambda lag: wide[:, lag :: self.n_embeddings], self.n_embeddings)


def check_odd(n_embeddings: int) -> None:
    """Refuse an embedding without a middle.

    Parameters
    ----------
    n_embeddings : int
        Rows that a row sees.

    Raises
    ------
    ValueError
        If the number is even.
    """
    if n_embeddings % 2 == 0:
        raise ValueError(
            f"n_embeddings is {n_embeddings}, but an odd number was expected, so that a row has as "
            f"many neighbours before it as after it. Use {n_embeddings + 1}."
        )


def embedded_moments(
    arrays: list[np.ndarray], n_embeddings: int, edges: str
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of embedded sessions, without embedding them.

    Parameters
    ----------
    arrays : list of ndarray of shape (n_samples, n_channels)
        The sessions.
    n_embeddings : int
        Rows that a row sees, odd.
    edges : {"reflect", "edge", "zero"}
        How a session is continued before its start and after its end.

    Returns
    -------
    mean : ndarray of shape (n_channels * n_embeddings,)
        In the order of `TimeDelayEmbedder`.
    covariance : ndarray of shape (n_channels * n_embeddings, n_channels * n_embeddings)
        Covariance with n - 1 degrees of freedom; zero for a single row.
    """
    n_samples, n_channels = sum(map(len, arrays)), arrays[0].shape[1]
    # About the mean of the channels, so that no digits are lost to a large offset.
    centre = sum(array.sum(axis=0, dtype=np.float64) for array in arrays) / n_samples
    shape, shorter = (n_embeddings, n_channels), (n_embeddings - 1, n_channels)
    sums, products = np.zeros(shape), np.zeros(shape + shape)
    # Terms that enter and leave when both lags grow by one.
    moved_sums, moved = np.zeros(shorter), np.zeros(shorter + shorter)
    for array in arrays:
        for block in blocks(len(array), n_embeddings * n_channels):
            rows = _neighbourhood(array, block, n_embeddings, edges) - centre
            length = block.stop - block.start
            sums[0] += rows[:length].sum(axis=0)
            for lag in range(n_embeddings):
                products[0, :, lag] += rows[:length].T @ rows[lag : lag + length]
        for sign, row in [(-1, 0), (1, len(array))]:
            ends = _neighbourhood(array, slice(row, row), n_embeddings, edges) - centre
            moved_sums += sign * ends
            moved += sign * np.multiply.outer(ends, ends)
    for lag in range(n_embeddings - 1):
        sums[lag + 1] = sums[lag] + moved_sums[lag]
        products[lag + 1, :, 1:] = products[lag, :, :-1] + moved[lag]
        products[lag + 1, :, 0] = products[0, :, lag + 1].T
    # From the oldest lag first to channel by channel, the newest first.
    mean = sums[::-1].T.ravel() / n_samples
    product = products[::-1, :, ::-1].transpose(1, 0, 3, 2).reshape(len(mean), len(mean))
    covariance = (product - n_samples * np.outer(mean, mean)) / max(n_samples - 1, 1)
    return mean + np.repeat(centre, n_embeddings), covariance


def blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Blocks of rows of a wide matrix that are small enough to build.

    Parameters
    ----------
    n_rows : int
        Rows of the matrix.
    n_columns : int
        Numbers in a row.

    Yields
    ------
    slice
        The rows of a block, at least one.
    """
    length = max(1, _BLOCK_SIZE // n_columns)
    for start in range(0, n_rows, length):
        yield slice(start, min(start + length, n_rows))


def _neighbourhood(session: np.ndarray, block: slice, n_embeddings: int, edges: str) -> np.ndarray:
    """A copy of a block of rows and of half an embedding on either side, also beyond the ends."""
    half, last = n_embeddings // 2, len(session) - 1
    rows = np.arange(block.start - half, block.stop + half)
    if edges == "reflect":
        # There and back is one period; a single row is its own mirror image.
        rows %= max(2 * last, 1)
        return session[np.minimum(rows, 2 * last - rows)]
    nearest = np.clip(rows, 0, last)
    found = session[nearest]
    if edges == "zero":
        found[rows != nearest] = 0
    return found


def _embed(session: np.ndarray, block: slice, n_embeddings: int, edges: str) -> np.ndarray:
    """A block of rows of the wide matrix: channel by channel, the newest row first."""
    rows = _neighbourhood(session, block, n_embeddings, edges)
    windows = np.lib.stride_tricks.sliding_window_view(rows, n_embeddings, axis=0)
    return windows[:, :, ::-1].reshape(len(windows), -1)


def _mean_of_copies(at_lag: Callable[[int], np.ndarray], n_embeddings: int) -> np.ndarray:
    """Channels of a session from embedded ones, of which `at_lag` gives one column per channel."""
    half = n_embeddings // 2
    centre = at_lag(half)
    n_samples = len(centre)
    # Mean of differences from one copy, so that the mean of equal copies is exact.
    differences, n_copies = np.zeros_like(centre), np.zeros((n_samples, 1), dtype=centre.dtype)
    reach = min(half, n_samples - 1)
    for delay in range(-reach, reach + 1):
        # Row t holds the value of row t + delay.
        holds = slice(max(-delay, 0), n_samples - max(delay, 0))
        held = slice(holds.start + delay, holds.stop + delay)
        differences[held] += at_lag(half - delay)[holds] - centre[held]
        n_copies[held] += 1
    return centre + differences / n_copies
