"""Filters, envelopes and averages against SciPy and against loops."""

import inspect

import numpy as np
import pytest
from scipy import signal
from sklearn.base import clone

from skdyn.preprocessing import (
    AmplitudeEnvelope,
    BandpassFilter,
    Downsampler,
    MovingAverage,
    NotchFilter,
)

RATE = 250


def recording(n_samples=400, n_channels=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n_samples, n_channels)) + 2


def wave(frequency, n_samples=1000, rate=RATE):
    return np.sin(2 * np.pi * frequency * np.arange(n_samples) / rate)[:, np.newaxis]


# BandpassFilter


@pytest.mark.parametrize(
    ("low", "high", "band", "kind"),
    [
        (4, 30, [4, 30], "bandpass"),
        (None, 30, 30, "lowpass"),
        (0.5, None, 0.5, "highpass"),
    ],
)
@pytest.mark.parametrize("order", [1, 2, 5])
def test_bandpass_filter_is_scipys(low, high, band, kind, order):
    X = recording()
    model = BandpassFilter(low, high, sampling_frequency=RATE, order=order)
    sections = signal.butter(order, band, btype=kind, fs=RATE, output="sos")
    expected = signal.sosfiltfilt(sections, X, axis=0)
    np.testing.assert_array_equal(model.fit_transform(X), expected)
    np.testing.assert_array_equal(model.sos_, sections)
    single = X.astype(np.float32)
    expected = signal.sosfiltfilt(sections, single.astype(np.float64), axis=0)
    np.testing.assert_array_equal(model.fit_transform(single), expected.astype(np.float32))


def test_bandpass_filter_shifts_nothing_and_halves_edges():
    model = BandpassFilter(8, 13, sampling_frequency=RATE)
    inside = slice(300, 700)
    kept = model.fit_transform(wave(10))
    np.testing.assert_allclose(kept[inside], wave(10)[inside], atol=0.01)
    for edge in (8, 13):
        found = model.fit_transform(wave(edge, 2000))[700:1300]
        np.testing.assert_allclose(found, wave(edge, 2000)[700:1300] / 2, atol=0.02)
    assert np.abs(model.fit_transform(wave(40))[inside]).max() < 1e-3
    assert np.abs(model.fit_transform(wave(1))[inside]).max() < 1e-3


@pytest.mark.parametrize("low", [None, 4])
def test_bandpass_filter_pads_short_sessions_by_what_they_have(low):
    sections = signal.butter(
        5, 30 if low is None else [low, 30], "low" if low is None else "band", fs=RATE, output="sos"
    )
    # The smallest number of rows that SciPy accepts.
    at_origin = min((sections[:, 2] == 0).sum(), (sections[:, 5] == 0).sum())
    padding = 3 * (2 * len(sections) + 1 - at_origin)
    model = BandpassFilter(low, 30, sampling_frequency=RATE)
    long = recording(padding + 1)
    np.testing.assert_array_equal(
        model.fit_transform(long), signal.sosfiltfilt(sections, long, axis=0)
    )
    for n_samples in (padding, padding // 2, 2, 1):
        short = recording(n_samples)
        with pytest.raises(ValueError, match="padlen"):
            signal.sosfiltfilt(sections, short, axis=0)
        expected = signal.sosfiltfilt(sections, short, axis=0, padlen=n_samples - 1)
        np.testing.assert_array_equal(model.fit_transform(short), expected)


def test_bandpass_filter_takes_integers():
    X = (30_000 * wave(10)).astype(np.int16)
    model = BandpassFilter(1, 30, sampling_frequency=RATE)
    np.testing.assert_array_equal(model.fit_transform(X), model.fit_transform(X.astype(np.float64)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "low and high are both None"),
        ({"low": 30, "high": 4}, "low is 30, but has to be below high, 4"),
        ({"low": 4, "high": 4}, "low is 4, but has to be below high, 4"),
        (
            {"low": 4, "high": 125},
            "reaches 125 Hz, but has to stay below half of sampling_frequency=250 Hz",
        ),
        ({"low": 200}, "reaches 200 Hz"),
        ({"low": 4, "sampling_frequency": 1.0}, "pass the sampling frequency of X"),
        ({"low": 0}, "'low'"),
        ({"high": 4, "order": 0}, "'order'"),
        ({"high": 4, "sampling_frequency": 0}, "'sampling_frequency'"),
    ],
)
def test_bandpass_filter_refuses_bad_bands(parameters, message):
    with pytest.raises(ValueError, match=message):
        BandpassFilter(**({"sampling_frequency": RATE} | parameters)).fit(recording())


@pytest.mark.parametrize(
    ("transformer", "name"),
    [
        (BandpassFilter, "sampling_rate"),
        (NotchFilter, "sampling_rate"),
        (MovingAverage, "sampling_rate"),
        (Downsampler, "sampling_rate"),
        (Downsampler, "new_sampling_rate"),
    ],
)
def test_sampling_rate_is_answered_with_the_right_name(transformer, name):
    right = name.replace("rate", "frequency")
    with pytest.raises(TypeError, match=rf"{transformer.__name__} .*'{name}'. Use '{right}'"):
        transformer(**{name: 250})
    with pytest.raises(TypeError, match="unexpected keyword argument 'rate'"):
        transformer(rate=250)
    assert list(inspect.signature(transformer).parameters) == sorted(
        transformer().get_params(), key=list(inspect.signature(transformer).parameters).index
    )
    assert right in transformer().get_params()
    assert clone(transformer(**{right: 250})).get_params()[right] == 250


# NotchFilter


def mains(frequency, n_samples, rate=RATE, phase=0.3, n_harmonics=2):
    seconds = np.arange(n_samples)[:, np.newaxis] / rate
    waves = [np.cos(2 * np.pi * k * frequency * seconds + k * phase) / k for k in (1, 2, 3)]
    return sum(waves[:n_harmonics])


@pytest.mark.parametrize(
    ("frequency", "rate", "n_harmonics", "expected"),
    [
        (50, 250, None, [50, 100]),
        (60, 250, None, [60, 120]),
        (50, 250, 1, [50]),
        (50, 200, None, [50]),  # 100 Hz is half the sampling frequency
        (50, 300, None, [50, 100]),
        (50, 302, None, [50, 100]),  # the band around 150 Hz ends at half
        (50, 302.1, None, [50, 100, 150]),
        (16.7, 100, None, [16.7, 33.4]),
    ],
)
def test_notches_are_harmonics_below_half_the_sampling_frequency(
    frequency, rate, n_harmonics, expected
):
    model = NotchFilter(frequency, n_harmonics, sampling_frequency=rate).fit(recording())
    np.testing.assert_allclose(model.frequencies_, expected)
    assert model.sos_.shape == (len(expected), 6)


@pytest.mark.parametrize("width", [1, 4])
def test_notch_filter_multiplies_by_scipys_squared_response(width):
    """An impulse in the middle of a session sees no end, and its spectrum is the response."""
    n_samples = 8 * RATE
    impulse = np.zeros((n_samples, 1))
    impulse[n_samples // 2] = 1
    found = NotchFilter(50, width=width, sampling_frequency=RATE).fit_transform(impulse)[:, 0]
    frequencies = np.fft.rfftfreq(n_samples, 1 / RATE)
    expected = np.ones(len(frequencies))
    for line in (50, 100):
        notch = signal.iirnotch(line, line / width, fs=RATE)
        expected *= np.abs(signal.freqz(*notch, worN=frequencies, fs=RATE)[1]) ** 2
    spectrum = np.fft.rfft(np.roll(found, -(n_samples // 2)))
    np.testing.assert_allclose(spectrum.real, expected, atol=2e-4)
    np.testing.assert_allclose(spectrum.imag, 0, atol=2e-4)
    edge = np.searchsorted(frequencies, 50 + width / 2)
    assert spectrum.real[edge] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("frequency", "rate"), [(50, 250), (60, 250), (50, 1000), (50, 199.3)])
@pytest.mark.parametrize("n_seconds", [1.6, 8])
def test_notch_filter_removes_mains_up_to_the_ends(frequency, rate, n_seconds):
    n_samples = int(n_seconds * rate)
    n_harmonics = len(NotchFilter(frequency, sampling_frequency=rate).fit([[1.0]]).frequencies_)
    noise = mains(frequency, n_samples, rate, n_harmonics=min(n_harmonics, 3))
    trend = np.linspace(-1, 4, n_samples)[:, np.newaxis]
    found = NotchFilter(frequency, sampling_frequency=rate).fit_transform(trend + 5 * noise)
    np.testing.assert_allclose(found, trend, atol=0.01)


def test_notch_filter_is_better_at_the_ends_than_scipys_padding():
    """Mains that is not quite at 50 Hz, over pink noise."""
    rng = np.random.default_rng(0)
    n_samples, spectrum = 2500, np.zeros(5001, dtype=complex)
    spectrum[1:] = np.exp(2j * np.pi * rng.random(5000)) / np.sqrt(np.arange(1, 5001))
    pink = np.fft.irfft(spectrum)[:n_samples, np.newaxis]
    pink /= pink.std()
    X = pink + 3 * mains(50.03, n_samples)
    model = NotchFilter(50, sampling_frequency=RATE).fit(X)
    ends = np.r_[:50, n_samples - 50 : n_samples]
    error = (model.transform(X) - pink)[ends].std()
    assert error < 0.5 * (signal.sosfiltfilt(model.sos_, X, axis=0) - pink)[ends].std()


@pytest.mark.parametrize("n_samples", [1, 2, 3, 50, 124, 125, 400])
def test_notch_filter_keeps_constants_in_sessions_of_any_length(n_samples):
    X = np.full((n_samples, 2), [1e6, -3.0])
    found = NotchFilter(sampling_frequency=RATE).fit_transform(X)
    np.testing.assert_allclose(found, X, rtol=1e-12)


def test_short_session_is_point_reflected_before_a_notch():
    X = recording(100)
    model = NotchFilter(sampling_frequency=RATE).fit(X)
    longer = np.concatenate([2 * X[0] - X[:0:-1], X, 2 * X[-1] - X[-2::-1]])
    expected = signal.sosfiltfilt(model.sos_, longer, axis=0)[99:199]
    np.testing.assert_allclose(model.transform(X), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"frequency": 0}, "'frequency'"),
        ({"n_harmonics": 0}, "'n_harmonics'"),
        ({"n_harmonics": 1.0}, "'n_harmonics'"),
        ({"width": 0}, "'width'"),
        ({"sampling_frequency": -1}, "'sampling_frequency'"),
        ({"width": 50}, "width is 50 Hz, but has to be less than frequency=50.0 Hz"),
        ({"frequency": 125}, "band around 125 Hz has to stay below half of .*=250 Hz. Pass that"),
        ({"frequency": 124}, "band around 124 Hz has to stay below half"),
        ({"n_harmonics": 3}, r"band around 150.0 Hz .* Use n_harmonics=2, or None"),
        ({"sampling_frequency": 1.0}, "below half of sampling_frequency=1.0 Hz. Pass that of X"),
    ],
)
def test_notch_filter_refuses_bad_notches(parameters, message):
    with pytest.raises(ValueError, match=message):
        NotchFilter(**({"sampling_frequency": RATE} | parameters)).fit(recording())


# AmplitudeEnvelope


@pytest.mark.parametrize("n_samples", [1, 2, 97, 400, 401])
def test_envelope_is_scipys(n_samples):
    X = recording(n_samples)
    expected = np.abs(signal.hilbert(X, axis=0))
    np.testing.assert_array_equal(AmplitudeEnvelope().fit_transform(X), expected)


def test_envelope_of_a_modulated_wave_is_the_modulation():
    modulation = 2 + wave(1)
    found = AmplitudeEnvelope().fit_transform(modulation * wave(40))
    np.testing.assert_allclose(found, modulation, atol=1e-10)


# MovingAverage


@pytest.mark.parametrize("window", [1, 2, 3, 5, 6, 31, 1000])
def test_moving_average_is_a_loop(window):
    X = recording(40)
    found = MovingAverage(window).fit_transform(X)
    for row in range(40):
        near = np.abs(np.arange(40) - row) <= window / 2
        np.testing.assert_allclose(found[row], X[near].mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize(
    ("window", "rate", "n_rows"),
    [(0.1, 250, 25), (0.1, 100, 11), (0.58, 100, 59), (1.9, 1, 1), (0.004, 250, 1), (4, 0.5, 3)],
)
def test_moving_average_takes_seconds(window, rate, n_rows):
    model = MovingAverage(window, sampling_frequency=rate).fit(recording())
    assert model.n_window_ == n_rows
    np.testing.assert_array_equal(
        model.transform(recording()), MovingAverage(n_rows).fit_transform(recording())
    )


def test_moving_average_of_long_recordings_loses_no_digits():
    X = recording(200_000, 1) + 1e6
    found = MovingAverage(3).fit_transform(X)
    expected = (X[:-2] + X[1:-1] + X[2:]) / 3
    np.testing.assert_allclose(found[1:-1], expected, atol=1e-9, rtol=0)
