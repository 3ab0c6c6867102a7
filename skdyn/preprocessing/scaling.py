"""Channels in other units: their own spread, their range, or the logarithm of their level."""

from __future__ import annotations

from numbers import Real
from typing import ClassVar

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils.validation import check_is_fitted

from skdyn._sklearn import Interval
from skdyn.preprocessing.base import SessionTransformer, float_type
from skdyn.sessions import check_columns


class SessionScaler(OneToOneFeatureMixin, SessionTransformer):
    """Standardise each session separately: every channel to mean 0 and variance 1.

    Sessions differ in gain and offset for reasons unrelated to brain activity (day, cap, subject).
    Each is therefore scaled by its own mean and standard deviation, in `fit` and in `transform`.

    Parameters
    ----------
    with_mean : bool, default=True
        Whether each channel's mean over the session is subtracted.
    with_std : bool, default=True
        Whether each channel is divided by its standard deviation over the session (n degrees of
        freedom). A channel that does not vary beyond rounding is not divided.

    Attributes
    ----------
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    See Also
    --------
    sklearn.preprocessing.StandardScaler : One mean and scale, learned in `fit`, for all rows.

    Notes
    -----
    `fit` learns no numbers: `transform` uses statistics of the sessions that it receives. A row
    therefore depends on its whole session, also on later rows; a session that is cut in two is
    scaled as two. Without labels, X is one session. The statistics are not kept, so there is no
    inverse.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import SessionScaler
    >>> X = np.array([[1.0], [3.0], [10.0], [50.0]])
    >>> SessionScaler().fit_transform(X, sessions=[0, 0, 1, 1]).ravel()
    array([-1.,  1., -1.,  1.])
    """

    _is_by_channel = True

    _parameter_constraints: ClassVar[dict] = {
        "with_mean": ["boolean"],
        "with_std": ["boolean"],
    }

    def __init__(self, *, with_mean=True, with_std=True):
        self.with_mean = with_mean
        self.with_std = with_std

    def _map(self, session):
        scaled = np.array(session, dtype=np.float64)
        # In units of the largest value, a power of two, so that no square is too small or large.
        _, exponent = np.frexp(np.abs(scaled).max(axis=0))
        scaled = np.ldexp(scaled, -exponent)
        mean = scaled.mean(axis=0)
        deviation = scaled.std(axis=0)
        is_divided = ~_is_constant(session) & self.with_std
        if self.with_mean:
            scaled -= mean
        scaled /= np.where(is_divided, deviation, 1.0)
        return np.ldexp(scaled, np.where(is_divided, 0, exponent))


def _is_constant(session: np.ndarray) -> np.ndarray:
    """Whether the values of a channel differ by rounding only."""
    lowest = session.min(axis=0).astype(np.float64)
    highest = session.max(axis=0).astype(np.float64)
    rounding = 10 * np.finfo(float_type(session)).eps
    return highest - lowest <= rounding * np.maximum(np.abs(lowest), np.abs(highest))


class _Invertible(OneToOneFeatureMixin, SessionTransformer):
    """Base class of maps of each number; a subclass defines `_map` and its inverse, `_invert`."""

    __metadata_request__inverse_transform = {"sessions": True}  # noqa: RUF012

    def inverse_transform(self, X, *, sessions=None):
        """Map back.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            Rows as `transform` returns them.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        ndarray of shape (n_samples, n_channels), or as X
            In the units of the recording that was transformed.
        """
        check_is_fitted(self)
        recording = check_columns(X, sessions, n_columns=self.n_features_in_)
        return recording.like_input([self._invert(one) for one in recording.arrays])


class LogCompressor(_Invertible):
    """Compress levels by a logarithm that is linear near zero.

    The output is y = sign(x) log(1 + abs(x) / offset): about x / offset for levels far below the
    offset, and the logarithm of x / offset far above it.

    Parameters
    ----------
    offset : float, default=None
        Level at which compression begins, in units of X. None for a hundredth of the largest
        magnitude in `fit`.

    Attributes
    ----------
    offset_ : float
        The offset.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    See Also
    --------
    skdyn.nems.layers.LogCompress : A layer whose offset is fitted with the model.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import LogCompressor
    >>> X = np.array([[0.0], [0.01], [1.0]])
    >>> compressor = LogCompressor(0.01).fit(X)
    >>> compressor.transform(X).ravel().round(2)
    array([0.  , 0.69, 4.62])
    >>> compressor.inverse_transform(compressor.transform(X)).ravel()
    array([0.  , 0.01, 1.  ])
    """

    _parameter_constraints: ClassVar[dict] = {
        "offset": [None, Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, offset=None):
        self.offset = offset

    def _learn(self, arrays):
        self.offset_ = self.offset
        if self.offset is None:
            self.offset_ = float(max(np.abs(one).max() for one in arrays)) / 100 or 1.0

    def _map(self, session):
        session = np.asarray(session, dtype=float)
        return np.sign(session) * np.log1p(np.abs(session) / self.offset_)

    def _invert(self, compressed):
        return np.sign(compressed) * self.offset_ * np.expm1(np.abs(compressed))


class RangeScaler(_Invertible):
    """Scale channels linearly, so that those of `fit` range from 0 to 1.

    Parameters
    ----------
    low, high : float, default=0.0, 1.0
        The range.
    joint : bool, default=False
        Whether all channels are scaled by one range, which keeps their relations.

    Attributes
    ----------
    minimum_, maximum_ : ndarray of shape (n_channels,)
        Range of each channel over all sessions of `fit`, or that of all channels.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    See Also
    --------
    sklearn.preprocessing.MinMaxScaler : The same for one 2-D array.
    SessionScaler : Each session in units of its own spread.

    Notes
    -----
    Values outside the range of `fit` lie outside the range. A channel that is constant in `fit` is
    moved to `low` and not scaled.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import RangeScaler
    >>> X = [np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 9.0]])]
    >>> RangeScaler().fit_transform(X)
    [array([[0., 0.],
           [1., 0.]]), array([[0.5, 1. ]])]
    """

    _parameter_constraints: ClassVar[dict] = {
        "low": [Real],
        "high": [Real],
        "joint": ["boolean"],
    }

    def __init__(self, *, low=0.0, high=1.0, joint=False):
        self.low = low
        self.high = high
        self.joint = joint

    def _learn(self, arrays):
        if not self.low < self.high:
            raise ValueError(f"low is {self.low}, but must be below high={self.high}.")
        self.minimum_ = np.min([one.min(axis=0) for one in arrays], axis=0).astype(float)
        self.maximum_ = np.max([one.max(axis=0) for one in arrays], axis=0).astype(float)
        if self.joint:
            self.minimum_ = np.full_like(self.minimum_, self.minimum_.min())
            self.maximum_ = np.full_like(self.maximum_, self.maximum_.max())

    @property
    def _factor(self) -> np.ndarray:
        extent = self.maximum_ - self.minimum_
        return np.where(extent > 0, extent, self.high - self.low) / (self.high - self.low)

    def _map(self, session):
        return self.low + (np.asarray(session, dtype=float) - self.minimum_) / self._factor

    def _invert(self, scaled):
        return self.minimum_ + (scaled - self.low) * self._factor
