"""Lower sampling rates of recordings."""

from __future__ import annotations

from fractions import Fraction
from numbers import Real
from typing import ClassVar

import numpy as np
from scipy import signal
from scipy.special import i0
from sklearn.utils.validation import check_is_fitted

from skdyn._sklearn import Interval
from skdyn.preprocessing.base import SampledTransformer
from skdyn.sessions import check_sessions

_POSITIVE = [Interval(Real, 0, None, closed="neither")]
# Sufficient for the rates of recording devices. Ratios of larger numbers need much longer filters.
_LARGEST_FACTOR = 10_000
# Filter of scipy.signal.resample_poly: zeros of the sinc, and beta of the Kaiser window.
_N_ZEROS, _BETA = 10, 5.0
# Numbers in a block of rows that are interpolated together: 16 MB of float64.
_BLOCK_SIZE = 2**21


class RateChanger(SampledTransformer):
    """Base class of transformers with fewer output rows per second than input rows.

    A subclass has the parameters `sampling_frequency` and `new_sampling_frequency`, both in Hz, and
    defines `_rows`, the positions of output rows in rows of a session.
    """

    def row_indices(self, X, *, sessions=None):
        """Return the row of X that is nearest in time to each row of the output.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        ndarray of int of shape (n_rows,), or as X
            Row numbers, ascending; within the session if X is a list or 3-D. If the new rate
            divides the old one, they are exact. For rows of bins, their first row of X.
        """
        check_is_fitted(self)
        recording = check_sessions(self, X, sessions, reset=False)
        lengths = [len(one) for one in recording.arrays]
        starts = np.cumsum([0, *lengths[:-1]]) * (recording.container == "array")
        return recording.like_input(
            [start + self._rows(n) for start, n in zip(starts, lengths, strict=True)]
        )

    def _learn(self, arrays):
        if self.new_sampling_frequency > self.sampling_frequency:
            raise ValueError(
                f"new_sampling_frequency is {self.new_sampling_frequency} Hz, but at most "
                f"sampling_frequency={self.sampling_frequency} Hz was expected."
            )

    def _rows(self, n_samples: int) -> np.ndarray:
        """Positions of output rows in rows of a session of that length."""
        raise NotImplementedError(f"{type(self).__name__} has no _rows(self, n_samples).")

    def _rows_that_stay(self, X, sessions):
        return X.iloc[self.row_indices(X, sessions=sessions)] if hasattr(X, "iloc") else X


class Downsampler(RateChanger):
    """Fewer rows per second, free of aliases.

    A linear-phase filter removes frequencies that the new rate cannot represent. Then rows are
    picked or interpolated (`scipy.signal.resample_poly`). Nothing is shifted in time. Any two rates
    are accepted, and sessions may have any length.

    Parameters
    ----------
    new_sampling_frequency : float, default=0.5
        Rows per second of the output, in Hz, at most `sampling_frequency`.
    sampling_frequency : float, default=1.0
        Rows per second of X, in Hz. With 1.0, `new_sampling_frequency` is the share of rows that
        stay.

    Attributes
    ----------
    ratio_ : float
        Rows of the output per row of X, at most 1.
    up_, down_ : int or None
        The ratio of the rates in lowest terms: `down_` rows become `up_`. None if it is not a
        ratio of whole numbers up to 10000.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    Notes
    -----
    Rows are fewer than those of X. Row k of the output is at
    k / new_sampling_frequency seconds after the first row of its session, for every k before the
    session's end: n rows become ceil(n * new_sampling_frequency / sampling_frequency).
    `row_indices` returns the nearest rows, to select labels and other values of rows of X::

        rows = downsampler.row_indices(X, sessions=sessions)
        X, y, sessions = downsampler.transform(X, sessions=sessions), y[rows], sessions[rows]

    A Pipeline changes neither y nor sessions, so with either, downsample before the
    pipeline. With sessions as a list or a 3-D array and no y it can be a step.

    Before its start and after its end a session is continued by its first and last row. The filter
    is SciPy's default, a sinc with 10 zeros on either side in a Kaiser window with beta = 5; it
    damps half the new rate by 6 dB. If the rates have no ratio of whole numbers up to 10000, such
    as 250 and 99.97 * sqrt(2), the same filter is evaluated at the time of each row. There is no
    inverse.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import Downsampler
    >>> X = np.sin(2 * np.pi * 2 * np.arange(500) / 250)[:, np.newaxis]
    >>> downsampler = Downsampler(100, sampling_frequency=250).fit(X)
    >>> downsampler.transform(X).shape
    (200, 1)
    >>> downsampler.row_indices(X)[:5]
    array([ 0,  3,  5,  8, 10])
    """

    _parameter_constraints: ClassVar[dict] = {
        "new_sampling_frequency": _POSITIVE,
        "sampling_frequency": _POSITIVE,
    }

    def __init__(self, new_sampling_frequency=0.5, *, sampling_frequency=1.0):
        self.new_sampling_frequency = new_sampling_frequency
        self.sampling_frequency = sampling_frequency

    def _learn(self, arrays):
        super()._learn(arrays)
        self.ratio_ = self.new_sampling_frequency / self.sampling_frequency
        terms = Fraction(self.ratio_).limit_denominator(_LARGEST_FACTOR)
        is_exact = abs(terms - Fraction(self.ratio_)) <= 1e-12 * self.ratio_
        self.up_: int | None = terms.numerator if is_exact else None
        self.down_: int | None = terms.denominator if is_exact else None

    def _times(self, n_samples: int) -> np.ndarray:
        """Times of the rows of the output, in rows of a session."""
        if self.up_ is None or self.down_ is None:
            return np.arange(int(np.ceil(n_samples * self.ratio_))) / self.ratio_
        return np.arange(-(-n_samples * self.up_ // self.down_)) * self.down_ / self.up_

    def _rows(self, n_samples: int) -> np.ndarray:
        nearest = np.floor(self._times(n_samples) + 0.5).astype(int)
        return np.minimum(nearest, n_samples - 1)

    def _map(self, session):
        # About the mean: between two rows, SciPy's filter keeps a constant to three digits only.
        mean = session.mean(axis=0, dtype=np.float64)
        centred = session - mean
        if self.up_ is None:
            return mean + _interpolate(centred, self._times(len(session)), self.ratio_)
        return mean + signal.resample_poly(centred, self.up_, self.down_, axis=0, padtype="edge")


def _interpolate(session: np.ndarray, times: np.ndarray, ratio: float) -> np.ndarray:
    """Rows at given times, by the low-pass filter of `scipy.signal.resample_poly`."""
    reach = _N_ZEROS / ratio
    offsets = np.arange(-int(reach), int(reach) + 2)
    values = np.empty((len(times), session.shape[1]))
    length = max(1, _BLOCK_SIZE // (len(offsets) * session.shape[1]))
    for start in range(0, len(times), length):
        some = times[start : start + length]
        rows = np.floor(some).astype(int)[:, np.newaxis] + offsets
        weights = _kernel(rows - some[:, np.newaxis], ratio)
        near = session[np.clip(rows, 0, len(session) - 1)]
        values[start : start + length] = np.einsum("rt,rtc->rc", weights, near)
    return values


def _kernel(delays: np.ndarray, ratio: float) -> np.ndarray:
    """Weights of rows at some delays, in rows; each set of weights sums to one."""
    shares = np.minimum(np.abs(delays) * ratio / _N_ZEROS, 1)
    weights = np.sinc(delays * ratio) * i0(_BETA * np.sqrt(1 - shares**2))
    weights[shares == 1] = 0
    return weights / weights.sum(axis=1, keepdims=True)


def bin_starts(n_samples: int, sampling_frequency: float, new_sampling_frequency: float):
    """First row of each bin of 1 / new_sampling_frequency seconds.

    Parameters
    ----------
    n_samples : int
        Rows of a session.
    sampling_frequency, new_sampling_frequency : float
        Rows and bins per second, in Hz.

    Returns
    -------
    ndarray of int of shape (n_bins,)
        Row numbers of the bins that hold rows. The last one may hold fewer than the others.
    """
    ratio = new_sampling_frequency / sampling_frequency
    n_most = int(np.ceil(n_samples * ratio * (1 - 1e-12)))
    starts = np.ceil(np.arange(n_most) / ratio * (1 - 1e-12)).astype(int)
    return starts[starts < n_samples]
