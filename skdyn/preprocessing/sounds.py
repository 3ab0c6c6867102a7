"""Sounds as stimuli: level in frequency bands over time from waveforms."""

from __future__ import annotations

from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from scipy import signal
from scipy.io import wavfile
from sklearn.utils.validation import check_is_fitted

from skdyn._sklearn import Interval
from skdyn.preprocessing.rates import RateChanger, bin_starts

_POSITIVE = [Interval(Real, 0, None, closed="neither")]
# Order of gammatone filters, and their decay per equivalent rectangular bandwidth at that order.
_ORDER, _DECAY = 4, 1.018645
# Block sizes: samples to filter, and numbers of windows to transform.
_N_AT_ONCE = 2**18


def read_sound(path):
    """Read a WAV file.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    waveform : ndarray of shape (n_samples, n_channels)
        Sound pressure; integers are scaled to [-1, 1).
    sampling_frequency : float
        Samples per second, in Hz.

    Raises
    ------
    ValueError
        If the file is not a WAV file.

    Examples
    --------
    A sound file becomes the stimulus of an encoding model:

    >>> import tempfile
    >>> import numpy as np
    >>> from scipy.io import wavfile
    >>> from sklearn.pipeline import make_pipeline
    >>> from skdyn.preprocessing import (
    ...     GammatoneFilterbank, LogCompressor, RangeScaler, read_sound
    ... )
    >>> noise = np.random.default_rng(0).standard_normal(48000)
    >>> folder = tempfile.TemporaryDirectory()
    >>> wavfile.write(f"{folder.name}/noise.wav", 48000, (3000 * noise).astype(np.int16))
    >>> waveform, rate = read_sound(f"{folder.name}/noise.wav")
    >>> bands = GammatoneFilterbank(sampling_frequency=rate, new_sampling_frequency=100)
    >>> X = make_pipeline(bands, LogCompressor(), RangeScaler()).fit_transform(waveform)
    >>> X.shape
    (100, 18)
    >>> folder.cleanup()
    """
    rate, data = wavfile.read(path)
    waveform = data.reshape(len(data), -1)
    if waveform.dtype.kind == "u":
        waveform = (waveform.astype(float) - 128) / 128
    elif waveform.dtype.kind == "i":
        # SciPy shifts 24 bits to the upper end of 32.
        waveform = waveform / float(np.iinfo(waveform.dtype).max + 1)
    return waveform.astype(float), float(rate)


class _Bands(RateChanger):
    """Base class of transformers from waveforms to levels in bands that are evenly spaced in log f.

    A subclass defines `_levels`, which computes the power in each band of one waveform.
    """

    _parameter_constraints: ClassVar[dict] = {
        "n_bands": [Interval(Integral, 1, None, closed="left")],
        "low": _POSITIVE,
        "high": _POSITIVE,
        "sampling_frequency": _POSITIVE,
        "new_sampling_frequency": _POSITIVE,
    }

    def get_feature_names_out(self, input_features=None):
        """Names of the columns: those of the channels, with the centre of the band in Hz.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the channels. None for those seen in `fit`, or x0, x1, ...

        Returns
        -------
        ndarray of str
            Such as "x0 200 Hz".
        """
        check_is_fitted(self)
        names = super().get_feature_names_out(input_features)
        bands = [f"{frequency:.6g} Hz" for frequency in self.frequencies_]
        return np.array([f"{name} {band}" for name in names for band in bands], dtype=object)

    def _learn(self, arrays):
        super()._learn(arrays)
        half = self.sampling_frequency / 2
        if not self.low < self.high <= half:
            raise ValueError(
                f"low is {self.low} Hz and high is {self.high} Hz, but low < high <= {half} Hz, "
                "half the sampling frequency, was expected."
            )
        self.edges_ = np.geomspace(self.low, self.high, int(self.n_bands) + 1)
        self.frequencies_ = np.sqrt(self.edges_[:-1] * self.edges_[1:])

    def _map(self, session):
        powers = [self._powers(np.asarray(one, dtype=float)) for one in session.T]
        return np.sqrt(np.concatenate(powers, axis=1))

    def _rows(self, n_samples: int) -> np.ndarray:
        return bin_starts(n_samples, self.sampling_frequency, self.new_sampling_frequency)


class Spectrogram(_Bands):
    """Level of a sound in frequency bands, from short-time Fourier transforms.

    Row k is the root mean square of the waveform in each band around the middle of bin k, from k to
    k + 1 in units of 1 / new_sampling_frequency seconds. Bins are those of `count_spikes`.

    Parameters
    ----------
    n_bands : int, default=18
        Number of bands, of equal width on a logarithmic axis.
    low, high : float, default=200.0, 20000.0
        Lower edge of the first band and upper edge of the last, in Hz.
    sampling_frequency : float, default=44100.0
        Samples per second of X, in Hz; at least 2 high.
    new_sampling_frequency : float, default=100.0
        Rows per second of the output, in Hz.
    window : float, default=None
        Length of the Hann window in seconds; None for two bins. A longer one resolves lower
        frequencies. Half of it is before the middle of the bin and half after, so that a row
        depends on (window - bin) / 2 seconds after its bin.

    Attributes
    ----------
    frequencies_ : ndarray of shape (n_bands,)
        Centres of the bands in Hz, the geometric means of their edges.
    edges_ : ndarray of shape (n_bands + 1,)
        Edges of the bands in Hz.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    See Also
    --------
    GammatoneFilterbank : A causal filterbank with the bandwidths of hearing.
    LogCompressor : Compress levels, as hearing does.

    Notes
    -----
    The power at each Fourier frequency counts in a band by the share of its interval that lies in
    the band, so that powers of bands that cover all frequencies sum to that of the windowed sound.
    Beyond its ends a session is silent. Bands of the first channel come first.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import Spectrogram
    >>> time = np.arange(44100) / 44100
    >>> tone = np.sin(2 * np.pi * 2000 * time)[:, np.newaxis]
    >>> spectrogram = Spectrogram(3, low=250, high=16000)
    >>> spectrogram.fit_transform(tone)[50].round(2)
    array([0.  , 0.71, 0.  ])
    >>> spectrogram.frequencies_
    array([ 500., 2000., 8000.])
    """

    _parameter_constraints: ClassVar[dict] = {
        **_Bands._parameter_constraints,
        "window": [None, *_POSITIVE],
    }

    def __init__(
        self,
        n_bands=18,
        *,
        low=200.0,
        high=20000.0,
        sampling_frequency=44100.0,
        new_sampling_frequency=100.0,
        window=None,
    ):
        self.n_bands = n_bands
        self.low = low
        self.high = high
        self.sampling_frequency = sampling_frequency
        self.new_sampling_frequency = new_sampling_frequency
        self.window = window

    def _powers(self, waveform):
        rate, new_rate = self.sampling_frequency, self.new_sampling_frequency
        length = max(round((2 / new_rate if self.window is None else self.window) * rate), 1)
        taper = signal.windows.hann(length + 2)[1:-1]
        frequencies = np.fft.rfftfreq(length, 1 / rate)
        shares = _shares(frequencies, self.edges_, rate / length)
        # Frequencies below zero count as well.
        shares *= np.where((frequencies > 0) & (frequencies < rate / 2), 2.0, 1.0)[:, np.newaxis]
        shares /= length * np.sum(taper**2)
        n_rows = len(self._rows(len(waveform)))
        # First samples of the windows, in a waveform with silence before and after it.
        middles = (np.arange(n_rows) + 0.5) * rate / new_rate
        starts = np.rint(middles - length / 2).astype(int) + length
        padded = np.pad(waveform, (length, 2 * length + int(rate / new_rate)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, length)
        powers = np.empty((n_rows, len(self.frequencies_)))
        step = max(_N_AT_ONCE // length, 1)
        for first in range(0, n_rows, step):
            spectra = np.fft.rfft(windows[starts[first : first + step]] * taper, axis=1)
            powers[first : first + step] = np.abs(spectra) ** 2 @ shares
        return powers


class GammatoneFilterbank(_Bands):
    """Level of a sound in the bands of gammatone filters, as the cochlea has.

    Each band is a gammatone filter of order 4: its impulse response is a tone at the centre of the
    band with the envelope of a gamma density. Row k is the root mean square of its output in bin k,
    from k to k + 1 in units of 1 / new_sampling_frequency seconds; it depends on nothing later.
    Bins are those of `count_spikes`.

    Parameters
    ----------
    n_bands : int, default=18
        Number of bands, with centres that are evenly spaced on a logarithmic axis.
    low, high : float, default=200.0, 20000.0
        The centres lie in the middle of n_bands intervals of equal width, on a logarithmic axis,
        between these, in Hz.
    sampling_frequency : float, default=44100.0
        Samples per second of X, in Hz; at least 2 high.
    new_sampling_frequency : float, default=100.0
        Rows per second of the output, in Hz.
    relative_bandwidth : float, default=None
        Equivalent rectangular bandwidth of a filter divided by its centre; None for that of human
        hearing, 24.7 + 0.108 f Hz.

    Attributes
    ----------
    frequencies_ : ndarray of shape (n_bands,)
        Centres of the bands in Hz.
    edges_ : ndarray of shape (n_bands + 1,)
        Edges of the intervals around the centres in Hz.
    bandwidths_ : ndarray of shape (n_bands,)
        Equivalent rectangular bandwidths in Hz.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    See Also
    --------
    Spectrogram : Bands without gaps or overlap.
    LogCompressor : Compress levels, as hearing does.

    Notes
    -----
    A filter is four equal complex resonators in series, with a gain of one at the centre (Hohmann
    2002, Acta Acustica 88, 433-442; bandwidths of Glasberg & Moore 1990, Hearing Research 47,
    103-138). A tone at the centre with amplitude A gives A / sqrt(2). The envelope peaks
    3 / (6.4 bandwidth) seconds after a click: 10 ms at 200 Hz. Before its start a session is
    silent. Bands of the first channel come first.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import GammatoneFilterbank
    >>> time = np.arange(44100) / 44100
    >>> tone = np.sin(2 * np.pi * 2000 * time)[:, np.newaxis]
    >>> filterbank = GammatoneFilterbank(3, low=250, high=16000)
    >>> filterbank.fit_transform(tone)[50].round(2)
    array([0.  , 0.71, 0.  ])
    """

    _parameter_constraints: ClassVar[dict] = {
        **_Bands._parameter_constraints,
        "relative_bandwidth": [None, *_POSITIVE],
    }

    def __init__(
        self,
        n_bands=18,
        *,
        low=200.0,
        high=20000.0,
        sampling_frequency=44100.0,
        new_sampling_frequency=100.0,
        relative_bandwidth=None,
    ):
        self.n_bands = n_bands
        self.low = low
        self.high = high
        self.sampling_frequency = sampling_frequency
        self.new_sampling_frequency = new_sampling_frequency
        self.relative_bandwidth = relative_bandwidth

    def _learn(self, arrays):
        super()._learn(arrays)
        centres, share = self.frequencies_, self.relative_bandwidth
        self.bandwidths_ = 24.7 * (1 + 4.37e-3 * centres) if share is None else share * centres

    def _powers(self, waveform):
        starts = self._rows(len(waveform))
        bins = np.searchsorted(starts, np.arange(len(waveform)), side="right") - 1
        counts = np.bincount(bins)
        powers = np.zeros((len(starts), len(self.frequencies_)))
        for band in range(len(self.frequencies_)):
            gain, pole = self._resonator(band)
            states = [np.zeros(1, dtype=complex) for _ in range(_ORDER)]
            for first in range(0, len(waveform), _N_AT_ONCE):
                rows = slice(first, first + _N_AT_ONCE)
                values = waveform[rows]
                for stage in range(_ORDER):
                    values, states[stage] = signal.lfilter(
                        [gain], [1, -pole], values, zi=states[stage]
                    )
                # The real output is twice the real part, with half the power of its envelope.
                powers[:, band] += np.bincount(bins[rows], 2 * np.abs(values) ** 2, len(starts))
        return powers / counts[:, np.newaxis]

    def _resonator(self, band: int) -> tuple[float, complex]:
        """Gain and pole of one of the resonators of a band."""
        decay = 2 * np.pi * _DECAY * self.bandwidths_[band] / self.sampling_frequency
        angle = 2 * np.pi * self.frequencies_[band] / self.sampling_frequency
        return 1 - np.exp(-decay), np.exp(-decay + 1j * angle)


def _shares(frequencies: np.ndarray, edges: np.ndarray, spacing: float) -> np.ndarray:
    """Share of the interval around each Fourier frequency that lies in each band."""
    below, above = frequencies - spacing / 2, frequencies + spacing / 2
    below, above = np.maximum(below, 0), np.minimum(above, frequencies[-1])
    width = np.where(above > below, above - below, 1.0)
    upper = np.minimum(above[:, np.newaxis], edges[1:])
    lower = np.maximum(below[:, np.newaxis], edges[:-1])
    return np.maximum(upper - lower, 0) / width[:, np.newaxis]
