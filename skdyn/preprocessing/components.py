"""Principal components of recordings, also embedded, without forming the embedded matrix."""

from __future__ import annotations

from numbers import Integral
from typing import ClassVar

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.utils.extmath import svd_flip
from sklearn.utils.validation import check_is_fitted

from skdyn._sklearn import Interval, RealNotInt, fit_context
from skdyn._warnings import warn
from skdyn.preprocessing.base import SessionTransformer, float_type
from skdyn.preprocessing.embedding import (
    TimeDelayEmbedder,
    _embed,
    _mean_of_copies,
    blocks,
    check_odd,
    embedded_moments,
)
from skdyn.sessions import check_columns, check_sessions

_CONSTRAINTS: dict = {
    "n_components": [
        Interval(Integral, 1, None, closed="left"),
        Interval(RealNotInt, 0, 1, closed="neither"),
        None,
    ],
    "whiten": ["boolean"],
}


class _PrincipalComponents(ClassNamePrefixFeaturesOutMixin, SessionTransformer):
    """Base class: principal components of embedded rows; a subclass defines the embedding."""

    __metadata_request__inverse_transform = {"sessions": True}  # noqa: RUF012

    @property
    def _embedding(self) -> tuple[int, str]:
        """`n_embeddings` and `edges`."""
        raise NotImplementedError(f"{type(self).__name__} does not define _embedding.")

    @fit_context(prefer_skip_nested_validation=True)
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
        estimator
            The fitted transformer.

        Raises
        ------
        ValueError
            If X is not a finite, varying recording of two rows or more, n_embeddings is even, or
            there are fewer columns or rows than components.

        Warns
        -----
        UserWarning
            If `whiten` is True and some components have no variance beyond rounding.
        """
        n_embeddings, edges = self._embedding
        check_odd(n_embeddings)
        recording = check_sessions(self, X, sessions, reset=True, min_samples=2)
        self.n_samples_ = recording.n_samples
        largest = min(self.n_samples_, self.n_features_in_ * n_embeddings)
        if isinstance(self.n_components, Integral) and self.n_components > largest:
            at_lags = f" at {n_embeddings} lags" if n_embeddings > 1 else ""
            raise ValueError(
                f"n_components is {self.n_components}, but {self.n_samples_} rows of "
                f"{self.n_features_in_} channels{at_lags} have at most {largest} components."
            )
        self.mean_, covariance = embedded_moments(recording.arrays, n_embeddings, edges)
        variance, axes = np.linalg.eigh(covariance)
        # Rounding can make zeros negative.
        variance = np.maximum(variance[::-1], 0)
        _, axes = svd_flip(None, axes.T[::-1].copy(), u_based_decision=False)
        if variance[0] <= (10 * np.finfo(np.float64).eps * np.abs(self.mean_).max()) ** 2:
            raise ValueError("X has no channel that varies.")
        share = variance / variance.sum()
        self.n_components_ = self._n_components(share, largest)
        self.components_ = axes[: self.n_components_].copy()
        self.explained_variance_ = variance[: self.n_components_]
        self.explained_variance_ratio_ = share[: self.n_components_]
        self.singular_values_ = np.sqrt((self.n_samples_ - 1) * self.explained_variance_)
        left_out = variance[self.n_components_ : largest]
        self.noise_variance_ = float(left_out.mean()) if len(left_out) else 0.0
        self._n_whitened = self._count_varying(variance, recording.arrays[0])
        return self

    def inverse_transform(self, X, *, sessions=None):
        """Reconstruct the channels from the components.

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
            The channels. After an embedding, each value is the mean of the estimates that the rows
            of its session hold of it.
        """
        check_is_fitted(self)
        recording = check_columns(X, sessions, n_columns=self.n_components_)
        return recording.like_input(
            [self._invert(scores).astype(scores.dtype, copy=False) for scores in recording.arrays]
        )

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

    def _count_varying(self, variance: np.ndarray, example: np.ndarray) -> int:
        """Count the components that vary beyond the rounding of sums and of the recording."""
        sums = len(variance) * np.finfo(np.float64).eps * variance[0]
        size = np.abs(self.mean_).max() + np.sqrt(variance[0])
        recorded = (10 * np.finfo(float_type(example)).eps * size) ** 2
        n_varying = int(np.sum(self.explained_variance_ > max(sums, recorded)))
        n_null = self.n_components_ - n_varying
        if self.whiten and n_null:
            warn(
                f"{n_null} of {self.n_components_} components have no variance beyond rounding, "
                "because channels are linear combinations of others or rows are few. Whitened, "
                f"these components are zero; set n_components={n_varying} to leave them out.",
                UserWarning,
            )
        return n_varying

    def _deviation(self) -> np.ndarray:
        """Standard deviations of components if scores are whitened, 0 for those without any."""
        if not self.whiten:
            return np.ones(self.n_components_)
        deviation = np.sqrt(self.explained_variance_)
        deviation[self._n_whitened :] = 0
        return deviation

    def _map(self, session):
        n_embeddings, edges = self._embedding
        deviation = self._deviation()
        axes = self.components_.T / np.where(deviation > 0, deviation, np.inf)
        scores: np.ndarray = np.empty((len(session), self.n_components_), dtype=float_type(session))
        for block in blocks(len(session), len(axes)):
            wide = _embed(session, block, n_embeddings, edges)
            scores[block] = (wide - self.mean_) @ axes
        return scores

    def _invert(self, scores):
        n_embeddings, _ = self._embedding
        axes = self.components_ * self._deviation()[:, np.newaxis]

        def at_lag(lag):
            columns = slice(lag, None, n_embeddings)
            return scores @ axes[:, columns] + self.mean_[columns]

        return _mean_of_copies(at_lag, n_embeddings)


class SessionPCA(_PrincipalComponents):
    """Principal components of recordings, learned from all sessions together.

    The results equal those of scikit-learn's PCA, signs included. Sessions are accepted in every
    form: labels, a list, or a 3-D array. Rows are mapped one by one, so that sessions do not mix.

    Parameters
    ----------
    n_components : int, float in (0, 1) or None, default=None
        Number of components. A float keeps as few as explain more than that share of the
        variance; None keeps all.
    whiten : bool, default=False
        Whether scores are divided by their standard deviation in the training data. Components
        without variance beyond rounding then become zero, with a warning.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_channels)
        Principal axes, by decreasing variance; the largest loading of each is positive.
    explained_variance_ : ndarray of shape (n_components_,)
        Variance along each axis, of n - 1 degrees of freedom, in squared units of X.
    explained_variance_ratio_ : ndarray of shape (n_components_,)
        The same as a share of the variance of all channels.
    singular_values_ : ndarray of shape (n_components_,)
        Square roots of n - 1 times `explained_variance_`, in units of X.
    noise_variance_ : float
        Mean variance of the components that are left out; 0 if there are none.
    mean_ : ndarray of shape (n_channels,)
        Mean of each channel, in units of X.
    n_components_ : int
        Number of components.
    n_samples_ : int
        Number of rows of `fit`.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    See Also
    --------
    TimeDelayPCA : The same of rows with their neighbours in time.
    SessionScaler : Standardise sessions first, so that none counts for more than another.
    sklearn.decomposition.PCA : For a single 2-D array.

    Notes
    -----
    The mean is that of all rows, so offsets that differ between sessions become variance. Remove
    them with `SessionScaler(with_std=False)` first.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import SessionPCA
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.standard_normal((100, 5)), rng.standard_normal((80, 5))]
    >>> [scores.shape for scores in SessionPCA(n_components=2).fit_transform(X)]
    [(100, 2), (80, 2)]
    """

    _parameter_constraints: ClassVar[dict] = _CONSTRAINTS

    def __init__(self, n_components=None, *, whiten=False):
        self.n_components = n_components
        self.whiten = whiten

    @property
    def _embedding(self):
        return 1, "reflect"


class TimeDelayPCA(_PrincipalComponents):
    """Principal components of a time-delay embedded recording (TDE-PCA).

    Equal to ``make_pipeline(TimeDelayEmbedder(...), PCA(...))``, signs included, but the wide
    matrix is never built: the covariance is computed from products of the channels at two lags,
    and the scores in blocks of rows.

    Parameters
    ----------
    n_embeddings : int, default=15
        Number of rows in the window around each row, itself included: odd.
    n_components : int, float in (0, 1) or None, default=None
        Number of components. A float keeps as few as explain more than that share of the
        variance; None keeps all. Twice the number of channels or more is common.
    whiten : bool, default=False
        Whether scores are divided by their standard deviation in the training data. Components
        without variance beyond rounding then become zero, with a warning.
    edges : {"reflect", "edge", "zero"}, default="reflect"
        How a session is continued before its start and after its end, see `TimeDelayEmbedder`.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_channels * n_embeddings)
        Principal axes, by decreasing variance. Columns are ordered as in `TimeDelayEmbedder`; the
        largest loading of each axis is positive, as in scikit-learn's PCA.
    explained_variance_ : ndarray of shape (n_components_,)
        Variance along each axis, of n - 1 degrees of freedom, in squared units of X.
    explained_variance_ratio_ : ndarray of shape (n_components_,)
        The same as a share of the variance of all columns.
    singular_values_ : ndarray of shape (n_components_,)
        Square roots of n - 1 times `explained_variance_`, in units of X.
    noise_variance_ : float
        Mean variance of the components that are left out; 0 if there are none.
    mean_ : ndarray of shape (n_channels * n_embeddings,)
        Mean of each column, in units of X.
    n_components_ : int
        Number of components.
    n_samples_ : int
        Number of rows of `fit`.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    See Also
    --------
    SessionPCA : The same of single rows.
    tde_pca : The same as a function.
    SessionScaler : Standardise first, so that no channel or session counts for more than another.

    Notes
    -----
    A product of lags j and k summed over a session differs from that of lags j + 1 and k + 1 only
    by the first and the last row. So only n_embeddings of the n_embeddings**2 matrix products are
    computed. All sums are float64, also for float32 data.

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

    _parameter_constraints: ClassVar[dict] = {
        **TimeDelayEmbedder._parameter_constraints,
        **_CONSTRAINTS,
    }

    def __init__(self, n_embeddings=15, n_components=None, *, whiten=False, edges="reflect"):
        self.n_embeddings = n_embeddings
        self.n_components = n_components
        self.whiten = whiten
        self.edges = edges

    def inverse_components(self, X):
        """Reconstruct the embedded columns of each row from the components.

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
        """
        check_is_fitted(self)
        (scores,) = check_columns(X, n_columns=self.n_components_).arrays
        return scores @ (self.components_ * self._deviation()[:, np.newaxis]) + self.mean_

    @property
    def _embedding(self):
        return self.n_embeddings, self.edges


def tde_pca(X, *, n_components=None, n_embeddings=15, whiten=False, edges="reflect", sessions=None):
    """Scores of a recording on the principal components of its time-delay embedding.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
            (n_sessions, n_samples, n_channels)
        The recording; rows are time.
    n_components : int, float in (0, 1) or None, default=None
        Number of components; a float is a share of the variance, None keeps all.
    n_embeddings : int, default=15
        Number of rows in the window around each row, itself included: odd.
    whiten : bool, default=False
        Whether scores are divided by their standard deviation.
    edges : {"reflect", "edge", "zero"}, default="reflect"
        How a session is continued before its start and after its end, see `TimeDelayEmbedder`.
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
