"""Frequencies, amplitudes, averages and rates of a recording."""

from __future__ import annotations

from fractions import Fraction
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from scipy import signal
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils.validation import check_is_fitted

from skdyn._sklearn import Interval
from skdyn.preprocessing.base import SessionTransformer
from skdyn.sessions import check_sessions

_POSITIVE = [Interval(Real, 0, None, closed="neither")]
# Enough for any two rates of recorders; beyond it, float rounding could pass for a ratio.
_LARGEST_FACTOR = 10_000


class _SampledTransformer(OneToOneFeatureMixin, SessionTransformer):
    """A transformer with a sampling frequency, which names it where another word is used."""

    def __new__(cls, *args, **parameters):
        for name in parameters:
            if "sampling_rate" in name:
                right = name.replace("sampling_rate", "sampling_frequency")
                raise TypeError(f"{cls.__name__} has no parameter {name!r}. Use {right!r}.")
        return super().__new__(cls)


class BandpassFilter(_SampledTransformer):
    """Keep a band of frequencies, without shifting it in time.

    A Butterworth filter in second-order sections runs over each session forwards and backwards
    (`scipy.signal.sosfiltfilt`), so that phases stay as they are.

    Parameters
    ----------
    low : float or None, default=None
        Lower edge of the band, in Hz; None for a low-pass filter.
    high : float or None, default=None
        Upper edge, in Hz, below half the sampling frequency; None for a high-pass filter.
    sampling_frequency : float, default=1.0
        Rows per second, in Hz. With 1.0, edges are in cycles per row.
    order : int, default=5
        Order of the Butterworth filter, at least 1. As it runs twice, an edge is damped by 6 dB,
        not by 3, and the slopes are twice as steep.

    Attributes
    ----------
    sos_ : ndarray of shape (n_sections, 6)
        Second-order sections of the filter, as `scipy.signal.butter` gives them.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, where X had any.

    Notes
    -----
    At its ends a session is continued, point-reflected in its first and last row, by the number of
    rows that SciPy takes by default; a session of no more rows than that by all of its own but
    one. A band-pass filter also takes off the mean. What is filtered out cannot be put back: there
    is no inverse. A row depends on rows after it, so filter the sessions of a test set apart
    from those of the training set.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import BandpassFilter
    >>> seconds = np.arange(1000) / 250
    >>> slow, fast = (np.sin(2 * np.pi * rate * seconds) for rate in (10, 60))
    >>> X = np.column_stack([slow + fast, fast])
    >>> filtered = BandpassFilter(5, 30, sampling_frequency=250).fit_transform(X)
    >>> bool(np.abs(filtered[200:800, 0] - slow[200:800]).max() < 0.01)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "low": [*_POSITIVE, None],
        "high": [*_POSITIVE, None],
        "sampling_frequency": _POSITIVE,
        "order": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, low=None, high=None, *, sampling_frequency=1.0, order=5):
        self.low = low
        self.high = high
        self.sampling_frequency = sampling_frequency
        self.order = order

    def _learn(self, arrays):
        band, kind = self._band()
        self.sos_ = signal.butter(
            self.order, band, btype=kind, fs=self.sampling_frequency, output="sos"
        )

    def _band(self):
        """Edges of the filter and its kind, in SciPy's words."""
        low, high = self.low, self.high
        edges = [edge for edge in (low, high) if edge is not None]
        if not edges:
            raise ValueError("low and high are both None. Pass at least one edge.")
        if len(edges) == 2 and low >= high:
            raise ValueError(f"low is {low}, but has to be below high, {high}.")
        if max(edges) >= self.sampling_frequency / 2:
            raise ValueError(
                f"The band reaches {max(edges)} Hz, but has to stay below half of "
                f"sampling_frequency={self.sampling_frequency} Hz. Lower the edge, or pass the "
                "sampling frequency of X."
            )
        if len(edges) == 2:
            return edges, "bandpass"
        return edges[0], "lowpass" if low is None else "highpass"

    def _map(self, session):
        # SciPy's own length, but within what the session has.
        at_origin = min((self.sos_[:, 2] == 0).sum(), (self.sos_[:, 5] == 0).sum())
        padding = min(3 * (2 * len(self.sos_) + 1 - at_origin), len(session) - 1)
        # Floats, as the reflection of integers can overflow; sections that SciPy could write to.
        session = session.astype(np.float64, copy=False)
        return signal.sosfiltfilt(self.sos_.copy(), session, axis=0, padlen=padding)


class AmplitudeEnvelope(OneToOneFeatureMixin, SessionTransformer):
    """The amplitude of each channel over time: the modulus of its analytic signal.

    Attributes
    ----------
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, where X had any.

    See Also
    --------
    BandpassFilter : An amplitude has a meaning for a band: filter first.

    Notes
    -----
    Each session is taken alone, by `scipy.signal.hilbert` over its whole length, neither padded
    nor cut. That is a Fourier transform, which joins the end of a session to its start: the first
    and last few periods are less exact. Phases are lost: there is no inverse.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import AmplitudeEnvelope
    >>> phase = 2 * np.pi * np.arange(100) / 10
    >>> X = 3 * np.cos(phase)[:, np.newaxis]
    >>> bool(np.allclose(AmplitudeEnvelope().fit_transform(X), 3))
    True
    """

    _parameter_constraints: ClassVar[dict] = {}

    def _map(self, session):
        return np.abs(signal.hilbert(session, axis=0))


class MovingAverage(_SampledTransformer):
    """The mean of each channel over a window centred on each row.

    Parameters
    ----------
    window : float, default=5
        Length of the window, in seconds: a row is averaged with the rows of its session that are
        no further than half of it away. That is always an odd number of rows.
    sampling_frequency : float, default=1.0
        Rows per second, in Hz. With 1.0, `window` counts rows.

    Attributes
    ----------
    n_window_ : int
        Rows of the window.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, where X had any.

    Notes
    -----
    Every row is kept: near the start and the end of a session, the mean is over what there is of
    the window. There is no inverse.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import MovingAverage
    >>> X = np.array([[0.0], [3.0], [6.0], [0.0]])
    >>> MovingAverage(window=3).fit_transform(X).ravel()
    array([1.5, 3. , 3. , 3. ])
    """

    _parameter_constraints: ClassVar[dict] = {
        "window": _POSITIVE,
        "sampling_frequency": _POSITIVE,
    }

    def __init__(self, window=5, *, sampling_frequency=1.0):
        self.window = window
        self.sampling_frequency = sampling_frequency

    def _learn(self, arrays):
        # Rounded, so that 0.58 s at 100 Hz reach 29 rows, not 28.999999999999996.
        self.n_window_ = 2 * int(round(self.window * self.sampling_frequency / 2, 6)) + 1

    def _map(self, session):
        n_samples, half = len(session), self.n_window_ // 2
        # About the mean, so that sums of many rows stay small and lose no digits.
        mean = session.mean(axis=0, dtype=np.float64)
        sums = np.zeros((n_samples + 1, session.shape[1]))
        np.cumsum(session - mean, axis=0, out=sums[1:])
        start = np.maximum(np.arange(n_samples) - half, 0)
        stop = np.minimum(np.arange(n_samples) + half + 1, n_samples)
        return (sums[stop] - sums[start]) / (stop - start)[:, np.newaxis] + mean


class Downsampler(_SampledTransformer):
    """Fewer rows per second, free of aliases.

    A linear-phase filter takes off what the new rate cannot hold, then rows are picked, or
    interpolated where the rates have no whole ratio (`scipy.signal.resample_poly`): nothing is
    shifted in time, any ratio of whole numbers will do, and sessions may be of any length.

    Parameters
    ----------
    new_sampling_frequency : float, default=0.5
        Rows per second of the output, in Hz, at most `sampling_frequency`.
    sampling_frequency : float, default=1.0
        Rows per second of X, in Hz. With 1.0, `new_sampling_frequency` is the share of rows that
        stay.

    Attributes
    ----------
    up_, down_ : int
        The ratio of the rates in lowest terms: `down_` rows become `up_`.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, where X had any.

    Notes
    -----
    This is the one transformer here that does not keep every row: a session of n gives
    ceil(n * up_ / down_). Row k of the output is at the time of row k * down_ / up_ of its
    session; `row_indices` gives the nearest rows, by which to pick labels and other things that
    go with X::

        rows = downsampler.row_indices(X, sessions=sessions)
        X, y, sessions = downsampler.transform(X, sessions=sessions), y[rows], sessions[rows]

    A Pipeline changes neither y nor sessions, so where there are any, downsample before the
    pipeline. With sessions as a list or a 3-D array and no y it can be a step.

    Beyond its ends a session is taken to stay at its first and last row. The filter is SciPy's
    default: it damps half the new rate by 6 dB. There is no inverse.

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

    def row_indices(self, X, *, sessions=None):
        """Give the row of X that is nearest in time to each row of the output.

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
            Row numbers, ascending; of the session, where X is a list or 3-D. If the new rate
            divides the old one, they are exact. Of two that are equally near, the later one.
        """
        check_is_fitted(self)
        recording = check_sessions(self, X, sessions, reset=False)
        lengths = [len(one) for one in recording.arrays]
        starts = np.cumsum([0, *lengths[:-1]]) * (recording.container == "array")
        return recording.like_input(
            [start + self._rows(n) for start, n in zip(starts, lengths, strict=True)]
        )

    def _learn(self, arrays):
        ratio = self.new_sampling_frequency / self.sampling_frequency
        terms = Fraction(ratio).limit_denominator(_LARGEST_FACTOR)
        if ratio > 1 or abs(terms - Fraction(ratio)) > 1e-9 * ratio:
            raise ValueError(
                f"new_sampling_frequency is {self.new_sampling_frequency} Hz, but at most "
                f"sampling_frequency={self.sampling_frequency} Hz was expected, and a ratio of "
                f"whole numbers up to {_LARGEST_FACTOR}."
            )
        self.up_, self.down_ = terms.numerator, terms.denominator

    def _rows(self, n_samples: int) -> np.ndarray:
        n_rows = -(-n_samples * self.up_ // self.down_)
        nearest = (2 * np.arange(n_rows) * self.down_ + self.up_) // (2 * self.up_)
        return np.minimum(nearest, n_samples - 1)

    def _map(self, session):
        # About the mean: between two rows, SciPy's filter keeps a constant to three digits only.
        mean = session.mean(axis=0, dtype=np.float64)
        centred = session - mean
        return mean + signal.resample_poly(centred, self.up_, self.down_, axis=0, padtype="edge")

    def _rows_that_stay(self, X, sessions):
        return X.iloc[self.row_indices(X, sessions=sessions)] if hasattr(X, "iloc") else X
