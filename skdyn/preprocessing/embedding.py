"""Time-delay embedding, and its principal components without the wide matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Integral
from typing import ClassVar

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, OneToOneFeatureMixin
from sklearn.utils.extmath import svd_flip
from sklearn.utils.validation import check_is_fitted

from skdyn._sklearn import Interval, RealNotInt, StrOptions, _fit_context
from skdyn.preprocessing.base import SessionTransformer, float_type
from skdyn.sessions import check_columns, check_sessions

# Numbers in a block of the wide matrix: 16 MB of float64.
_BLOCK_SIZE = 2**21


class TimeDelayEmbedder(OneToOneFeatureMixin, SessionTransformer):
    """Put each row's neighbours in time beside it, as columns of their own.

    A model of the covariance of such rows sees spectra, and phases between channels. Row t of a
    channel becomes ``x[t + half], ..., x[t], ..., x[t - half]``, the newest first, with
    ``half = n_embeddings // 2``, one channel after the other.

    Parameters
    ----------
    n_embeddings : int, default=15
        Rows that a row sees, itself in the middle: an odd number. In the field, 15 at 250 Hz and
        7 at 100 Hz are common.
    edges : {"reflect", "edge", "zero"}, default="reflect"
        What stands before the start and after the end of a session, so that every row is kept.
        "reflect": the session mirrored in its first and last row, which keeps its spectrum.
        "edge": the first or last row, again and again. "zero": zeros.

    Attributes
    ----------
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, where X had any.

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
        """Give back the channels.

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
            Each value is the mean of the copies that the rows of its session hold of it; what was
            embedded comes back to the bit.
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


class TimeDelayPCA(ClassNamePrefixFeaturesOutMixin, SessionTransformer):
    """Principal components of a time-delay embedded recording (TDE-PCA).

    Equal to ``make_pipeline(TimeDelayEmbedder(...), PCA(...))``, signs included, but the wide
    matrix is never built: the covariance comes from products of the channels at two lags, the
    scores come in blocks of rows.

    Parameters
    ----------
    n_embeddings : int, default=15
        Rows that a row sees, itself in the middle: an odd number.
    n_components : int, float in (0, 1) or None, default=None
        How many components are kept. A float keeps as few as explain more than that share of the
        variance; None keeps all. In the field, twice the number of channels or more is common.
    whiten : bool, default=False
        Whether scores are divided by their standard deviation in the training data.
    edges : {"reflect", "edge", "zero"}, default="reflect"
        What stands before the start and after the end of a session, see `TimeDelayEmbedder`.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_channels * n_embeddings)
        Principal axes, by decreasing variance. Columns are ordered as in `TimeDelayEmbedder`; the
        largest loading of each axis is positive, as in scikit-learn's PCA.
    explained_variance_ : ndarray of shape (n_components_,)
        Variance along each axis, of n - 1 degrees of freedom, in squared units of X.
    explained_variance_ratio_ : ndarray of shape (n_components_,)
        The same as a share of the variance of all columns.
    mean_ : ndarray of shape (n_channels * n_embeddings,)
        Mean of each column, in units of X.
    n_components_ : int
        Number of components.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, where X had any.

    See Also
    --------
    tde_pca : The same as a function.
    SessionScaler : Put before, so that no channel or session counts for more than another.

    Notes
    -----
    A product of lags j and k summed over a session differs from that of lags j + 1 and k + 1 by
    the first and the last row alone. So only one lag is multiplied with all others: of
    n_embeddings^2 products of matrices n_embeddings are left. All sums are float64, also for
    float32 data.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import TimeDelayPCA
    >>> X = np.random.default_rng(0).standard_normal((200, 3))
    >>> model = TimeDelayPCA(n_embeddings=5, n_components=4)
    >>> model.fit_transform(X).shape
    (200, 4)
    >>> model.components_.shape
    (4, 15)
    """

    __metadata_request__inverse_transform = {"sessions": True}  # noqa: RUF012

    _parameter_constraints: ClassVar[dict] = {
        **TimeDelayEmbedder._parameter_constraints,
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            None,
        ],
        "whiten": ["boolean"],
    }

    def __init__(self, n_embeddings=15, n_components=None, *, whiten=False, edges="reflect"):
        self.n_embeddings = n_embeddings
        self.n_components = n_components
        self.whiten = whiten
        self.edges = edges

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, sessions=None):
        """Learn the components.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording; rows are time.
        y : None
            Ignored.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X: a contiguous run of one label is one session.

        Returns
        -------
        TimeDelayPCA
            The fitted transformer.

        Raises
        ------
        ValueError
            If X is not a finite, varying recording of two rows or more, n_embeddings is even, or
            there are fewer columns or rows than components.
        """
        check_odd(self.n_embeddings)
        recording = check_sessions(self, X, sessions, reset=True, min_samples=2)
        largest = min(recording.n_samples, self.n_features_in_ * self.n_embeddings)
        if isinstance(self.n_components, Integral) and self.n_components > largest:
            raise ValueError(
                f"Got n_components={self.n_components} for {recording.n_samples} rows of "
                f"{self.n_features_in_} channels at {self.n_embeddings} lags, expected at most "
                f"{largest}; ask for fewer, or give more data."
            )
        self.mean_, covariance = embedded_moments(recording.arrays, self.n_embeddings, self.edges)
        variance, axes = np.linalg.eigh(covariance)
        # Rounding can put what is zero below it.
        variance = np.maximum(variance[::-1], 0)
        _, axes = svd_flip(None, axes.T[::-1].copy(), u_based_decision=False)
        if variance[0] <= (10 * np.finfo(np.float64).eps * np.abs(self.mean_).max()) ** 2:
            raise ValueError("Got X in which no channel varies, expected one that does.")
        share = variance / variance.sum()
        self.n_components_ = self._n_components(share, largest)
        self.components_ = axes[: self.n_components_].copy()
        self.explained_variance_ = variance[: self.n_components_]
        self.explained_variance_ratio_ = share[: self.n_components_]
        return self

    def inverse_transform(self, X, *, sessions=None):
        """Give back the channels, as far as the components hold them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components), list of such, or array of shape \
                (n_sessions, n_samples, n_components)
            Scores.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        ndarray of shape (n_samples, n_channels), or as X
            Each value is the mean of what the rows of its session say of it.
        """
        check_is_fitted(self)
        recording = check_columns(X, sessions, n_columns=self.n_components_)
        return recording.like_input(
            [self._invert(scores).astype(scores.dtype, copy=False) for scores in recording.arrays]
        )

    def inverse_components(self, X):
        """Give back the embedded columns of each row, as far as the components hold them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Scores.

        Returns
        -------
        ndarray of shape (n_samples, n_channels * n_embeddings)
            Columns as in `TimeDelayEmbedder`. A row depends on its own scores alone, unlike that of
            `inverse_transform`, which takes means over neighbouring rows.

        Raises
        ------
        ValueError
            If the width differs, or a value is not finite.

        See Also
        --------
        skdyn.analysis.channel_modes : Modes of scores as modes of channels.
        """
        check_is_fitted(self)
        (scores,) = check_columns(X, n_columns=self.n_components_).arrays
        return scores @ (self.components_ * self._deviation()[:, np.newaxis]) + self.mean_

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def _n_components(self, share: np.ndarray, largest: int) -> int:
        if self.n_components is None:
            return largest
        if isinstance(self.n_components, Integral):
            return int(self.n_components)
        # As in PCA: the fewest whose sum exceeds the share.
        return int(np.searchsorted(share.cumsum(), self.n_components, side="right")) + 1

    def _deviation(self) -> np.ndarray:
        """What scores are divided by, kept off zero as in PCA."""
        if not self.whiten:
            return np.ones(self.n_components_)
        return np.maximum(np.sqrt(self.explained_variance_), np.finfo(np.float64).eps)

    def _map(self, session):
        axes = self.components_.T / self._deviation()
        scores: np.ndarray = np.empty((len(session), self.n_components_), dtype=float_type(session))
        for block in blocks(len(session), len(axes)):
            wide = _embed(session, block, self.n_embeddings, self.edges)
            scores[block] = (wide - self.mean_) @ axes
        return scores

    def _invert(self, scores):
        axes = self.components_ * self._deviation()[:, np.newaxis]

        def at_lag(lag):
            columns = slice(lag, None, self.n_embeddings)
            return scores @ axes[:, columns] + self.mean_[columns]

        return _mean_of_copies(at_lag, self.n_embeddings)


def tde_pca(X, *, n_components=None, n_embeddings=15, whiten=False, edges="reflect", sessions=None):
    """Scores of a recording on the principal components of its time-delay embedding.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
            (n_sessions, n_samples, n_channels)
        The recording; rows are time.
    n_components : int, float in (0, 1) or None, default=None
        How many components are kept; a float is a share of the variance, None keeps all.
    n_embeddings : int, default=15
        Rows that a row sees, itself in the middle: an odd number.
    whiten : bool, default=False
        Whether scores are divided by their standard deviation.
    edges : {"reflect", "edge", "zero"}, default="reflect"
        What stands before the start and after the end of a session, see `TimeDelayEmbedder`.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D X.

    Returns
    -------
    ndarray of shape (n_samples, n_components), or as X
        The scores, in units of X, or without one if whitened.

    Raises
    ------
    ValueError
        As `TimeDelayPCA.fit`.

    See Also
    --------
    TimeDelayPCA : The same as a transformer, for recordings that were not seen in `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import tde_pca
    >>> X = np.random.default_rng(0).standard_normal((200, 3))
    >>> tde_pca(X, n_embeddings=5, n_components=4).shape
    (200, 4)
    """
    model = TimeDelayPCA(n_embeddings, n_components, whiten=whiten, edges=edges)
    return model.fit_transform(X, sessions=sessions)


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
            f"Got n_embeddings={n_embeddings}, expected an odd number, so that a row has as many "
            "neighbours before it as after it; add one."
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
        What stands before the start and after the end of a session.

    Returns
    -------
    mean : ndarray of shape (n_channels * n_embeddings,)
        In the order of `TimeDelayEmbedder`.
    covariance : ndarray of shape (n_channels * n_embeddings, n_channels * n_embeddings)
        Of n - 1 degrees of freedom; zero for a single row.
    """
    n_samples, n_channels = sum(map(len, arrays)), arrays[0].shape[1]
    # About the mean of the channels, so that no digits are lost to a large offset.
    centre = sum(array.sum(axis=0, dtype=np.float64) for array in arrays) / n_samples
    shape, shorter = (n_embeddings, n_channels), (n_embeddings - 1, n_channels)
    sums, products = np.zeros(shape), np.zeros(shape + shape)
    # What is gained and lost as both lags grow by one.
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
    # Of differences from one copy, so that equal copies give themselves, to the bit.
    differences, n_copies = np.zeros_like(centre), np.zeros((n_samples, 1), dtype=centre.dtype)
    reach = min(half, n_samples - 1)
    for delay in range(-reach, reach + 1):
        # Row t holds what is at row t + delay.
        holds = slice(max(-delay, 0), n_samples - max(delay, 0))
        held = slice(holds.start + delay, holds.stop + delay)
        differences[held] += at_lag(half - delay)[holds] - centre[held]
        n_copies[held] += 1
    return centre + differences / n_copies
