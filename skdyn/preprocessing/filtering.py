"""Frequencies, amplitudes and averages of a recording."""

from __future__ import annotations

from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from scipy import signal
from sklearn.base import OneToOneFeatureMixin

from skdyn._sklearn import Interval
from skdyn.preprocessing.base import SampledTransformer, SessionTransformer

# In Hz; a higher rate is a typing error, and would need as many notches.
MOST_RATE = 1e9


def check_rate(sampling_frequency: float) -> None:
    """Raise ValueError if a sampling frequency is implausibly high.

    Parameters
    ----------
    sampling_frequency : float
        In Hz.
    """
    if sampling_frequency > MOST_RATE:
        raise ValueError(
            f"sampling_frequency is {sampling_frequency} Hz, but at most {MOST_RATE:g} Hz was "
            "expected. Pass that of X."
        )


_POSITIVE = [Interval(Real, 0, None, closed="neither")]
# Rows beyond that make no difference to any recording.
_LONGEST_WINDOW = 2.0**40


class BandpassFilter(SampledTransformer):
    """Keep a band of frequencies, without shifting it in time.

    A Butterworth filter in second-order sections runs over each session forwards and backwards
    (`scipy.signal.sosfiltfilt`), so that phases do not change.

    Parameters
    ----------
    low : float or None, default=None
        Lower edge of the band, in Hz; None for a low-pass filter.
    high : float or None, default=None
        Upper edge, in Hz, below half the sampling frequency; None for a high-pass filter.
    sampling_frequency : float, default=1.0
        Rows per second, in Hz. With 1.0, edges are in cycles per row.
    order : int, default=5
        Order of the Butterworth filter, at least 1. Because it runs twice, edges are damped by 6 dB
        instead of 3, and slopes are twice as steep.

    Attributes
    ----------
    sos_ : ndarray of shape (n_sections, 6)
        Second-order sections of the filter, as returned by `scipy.signal.butter`.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    Notes
    -----
    Before filtering, a session is continued at both ends by point reflection, by SciPy's default
    number of rows, or by all rows but one if it is shorter. A band-pass filter also removes the
    mean. There is no inverse. A row depends on later rows, so filter the sessions of a test set
    separately from those of the training set.

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

    _is_by_channel = True

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
        check_rate(self.sampling_frequency)
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
                f"The band from low={low} to high={high} reaches {max(edges)} Hz, but has to stay "
                f"below half of sampling_frequency={self.sampling_frequency} Hz. Lower the edge, "
                "or pass the sampling frequency of X."
            )
        if len(edges) == 2:
            return edges, "bandpass"
        return edges[0], "lowpass" if low is None else "highpass"

    def _map(self, session):
        return _filter_twice(self.sos_, session)


class NotchFilter(SampledTransformer):
    """Remove line noise: a mains frequency and its harmonics, without shifting anything in time.

    A notch filter of second order for each frequency (`scipy.signal.iirnotch`) runs over each
    session forwards and backwards (`scipy.signal.sosfiltfilt`), so that phases stay as they are.

    Parameters
    ----------
    frequency : float, default=50.0
        Frequency to remove, in Hz, such as 50 or 60 for mains.
    n_harmonics : int or None, default=None
        Number of multiples of `frequency` to remove, itself included. None removes all whose band
        lies below half the sampling frequency.
    width : float, default=2.0
        Width of each removed band, in Hz, less than `frequency`. At its edges, width / 2 from the
        notch, amplitudes are halved.
    sampling_frequency : float, default=1.0
        Rows per second, in Hz.

    Attributes
    ----------
    frequencies_ : ndarray of shape (n_notches,)
        Frequencies that are removed, in Hz.
    sos_ : ndarray of shape (n_notches, 6)
        Second-order sections of the filter, one for each frequency.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    See Also
    --------
    BandpassFilter : Keep a band of frequencies; no notch is needed outside of it.

    Notes
    -----
    At an offset d from a notch, an amplitude is multiplied by d^2 / (d^2 + (width / 2)^2). Choose
    `width` larger if the line frequency wanders, and smaller to lose less of the signal. A filter
    of width w rings for about 1 / w seconds.

    A session is continued at its ends, so that line noise is removed up to the first and the last
    row: the sinusoids that fit the 3 / width seconds there best are continued, and the remainder is
    point-reflected in the first or last row. A session shorter than 1 / width seconds is
    point-reflected only, because line noise and signal cannot be separated in it. There is no
    inverse.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import NotchFilter
    >>> seconds = np.arange(1000) / 250
    >>> brain, mains = (np.sin(2 * np.pi * rate * seconds) for rate in (10, 50))
    >>> notch = NotchFilter(50, sampling_frequency=250)
    >>> cleaned = notch.fit_transform((brain + mains)[:, np.newaxis])[:, 0]
    >>> notch.frequencies_
    array([ 50., 100.])
    >>> bool(np.abs(cleaned - brain).max() < 0.05)
    True
    """

    _is_by_channel = True

    _parameter_constraints: ClassVar[dict] = {
        "frequency": _POSITIVE,
        "n_harmonics": [Interval(Integral, 1, None, closed="left"), None],
        "width": _POSITIVE,
        "sampling_frequency": _POSITIVE,
    }

    def __init__(self, frequency=50.0, n_harmonics=None, *, width=2.0, sampling_frequency=1.0):
        self.frequency = frequency
        self.n_harmonics = n_harmonics
        self.width = width
        self.sampling_frequency = sampling_frequency

    def _learn(self, arrays):
        self.frequencies_ = float(self.frequency) * np.arange(1, self._n_notches() + 1)
        designs = [
            signal.iirnotch(one, one / self.width, fs=self.sampling_frequency)
            for one in self.frequencies_
        ]
        self.sos_ = np.concatenate([signal.tf2sos(*design) for design in designs])

    def _n_notches(self) -> int:
        if self.width >= self.frequency:
            raise ValueError(
                f"width is {self.width} Hz, but has to be less than frequency={self.frequency} Hz."
            )
        check_rate(self.sampling_frequency)
        below = (self.sampling_frequency / 2 - self.width / 2) / self.frequency
        most = max(int(np.ceil(below)) - 1, 0)
        if most < (self.n_harmonics or 1):
            last = self.frequency * (self.n_harmonics or 1)
            raise ValueError(
                f"frequency={self.frequency}: the band around {last} Hz has to stay below half of "
                f"sampling_frequency={self.sampling_frequency} Hz. "
                + (f"Use n_harmonics={most}, or None." if most else "Pass that of X.")
            )
        return self.n_harmonics or most

    def _map(self, session):
        session = session.astype(np.float64, copy=False)
        n_rows = min(len(session), int(np.ceil(3 * self.sampling_frequency / self.width)))
        before = self._continued(session[:n_rows])[::-1]
        after = self._continued(session[::-1][:n_rows])
        longer = np.concatenate([before, session, after])
        return _filter_twice(self.sos_, longer)[len(before) : len(before) + len(session)]

    def _continued(self, rows: np.ndarray) -> np.ndarray:
        """Rows before the first, the nearest first: line noise and a point reflection."""
        seconds = np.arange(1 - len(rows), len(rows))[:, np.newaxis] / self.sampling_frequency
        phases = 2 * np.pi * self.frequencies_ * seconds
        waves = np.hstack([np.cos(phases), np.sin(phases)])
        line = np.zeros((len(phases), rows.shape[1]))
        if len(rows) >= self.sampling_frequency / self.width:
            # Fitted with a mean and a trend, which would otherwise leak into the sinusoids.
            inside = np.hstack([waves, seconds**0, seconds])[len(rows) - 1 :]
            fitted = np.linalg.lstsq(inside, rows, rcond=None)[0]
            line = waves @ fitted[: waves.shape[1]]
        rest = rows - line[len(rows) - 1 :]
        return 2 * rest[0] - rest[1:] + line[: len(rows) - 1][::-1]


def _filter_twice(sos: np.ndarray, session: np.ndarray) -> np.ndarray:
    """Filter forwards and backwards, with SciPy's own padding as far as the session has it."""
    at_origin = min((sos[:, 2] == 0).sum(), (sos[:, 5] == 0).sum())
    padding = min(3 * (2 * len(sos) + 1 - at_origin), len(session) - 1)
    # Floats, as the reflection of integers can overflow; sections that SciPy could write to.
    session = session.astype(np.float64, copy=False)
    return signal.sosfiltfilt(sos.copy(), session, axis=0, padlen=padding)


class AmplitudeEnvelope(OneToOneFeatureMixin, SessionTransformer):
    """The amplitude of each channel over time: the modulus of its analytic signal.

    Attributes
    ----------
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    See Also
    --------
    BandpassFilter : An amplitude has a meaning for a band: filter first.

    Notes
    -----
    `scipy.signal.hilbert` is applied to the whole length of each session, neither padded nor cut.
    That is a Fourier transform, which joins the end of a session to its start: the first
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

    _is_by_channel = True

    _parameter_constraints: ClassVar[dict] = {}

    def _map(self, session):
        return np.abs(signal.hilbert(session, axis=0))


class MovingAverage(SampledTransformer):
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
        Names of the channels, if X has any.

    Notes
    -----
    Every row is kept: near the start and the end of a session, the mean is over the part of the
    window that lies within the session. There is no inverse.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import MovingAverage
    >>> X = np.array([[0.0], [3.0], [6.0], [0.0]])
    >>> MovingAverage(window=3).fit_transform(X).ravel()
    array([1.5, 3. , 3. , 3. ])
    """

    _is_by_channel = True

    _parameter_constraints: ClassVar[dict] = {
        "window": _POSITIVE,
        "sampling_frequency": _POSITIVE,
    }

    def __init__(self, window=5, *, sampling_frequency=1.0):
        self.window = window
        self.sampling_frequency = sampling_frequency

    def _learn(self, arrays):
        # Rounded, so that 0.58 s at 100 Hz reach 29 rows, not 28.999999999999996.
        half = min(self.window * self.sampling_frequency / 2, _LONGEST_WINDOW)
        self.n_window_ = 2 * int(round(half, 6)) + 1

    def _map(self, session):
        n_samples, half = len(session), self.n_window_ // 2
        # About the mean, so that sums of many rows stay small and lose no digits.
        mean = session.mean(axis=0, dtype=np.float64)
        sums = np.zeros((n_samples + 1, session.shape[1]))
        np.cumsum(session - mean, axis=0, out=sums[1:])
        start = np.maximum(np.arange(n_samples) - half, 0)
        stop = np.minimum(np.arange(n_samples) + half + 1, n_samples)
        return (sums[stop] - sums[start]) / (stop - start)[:, np.newaxis] + mean
