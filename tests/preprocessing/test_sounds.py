"""Bands of sounds against SciPy, Parseval's theorem and formulas; spikes against histograms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal
from scipy.io import wavfile
from sklearn.pipeline import make_pipeline

from skdyn import NEMSRegressor
from skdyn.preprocessing import (
    GammatoneFilterbank,
    LogCompressor,
    RangeScaler,
    Spectrogram,
    count_spikes,
    read_sound,
    spike_times,
)

RATE = 8000.0
NARROW = {"low": 200, "high": 3200, "sampling_frequency": RATE}
BOTH = [Spectrogram(8, **NARROW), GammatoneFilterbank(8, **NARROW)]
both = pytest.mark.parametrize("bands", BOTH, ids=lambda one: type(one).__name__)


def noise(n_samples=8000, n_channels=1, seed=0):
    return np.random.default_rng(seed).standard_normal((n_samples, n_channels))


def tone(frequency, n_samples=8000, amplitude=1.0):
    time = np.arange(n_samples) / RATE
    return amplitude * np.sin(2 * np.pi * frequency * time)[:, np.newaxis]


# ------------------------------------------------------------------------------------- bands


@both
def test_a_tone_is_in_its_band_with_its_level(bands):
    bands.fit(noise())
    for band, frequency in enumerate(bands.frequencies_[2:], start=2):
        levels = bands.transform(tone(frequency, amplitude=3.0))[20:80]
        assert np.argmax(levels.mean(axis=0)) == band
        np.testing.assert_allclose(levels[:, band], 3 / np.sqrt(2), rtol=0.05)


@both
def test_levels_are_proportional_and_bands_are_even_in_octaves(bands):
    X = noise()
    levels = bands.fit_transform(X)
    np.testing.assert_allclose(bands.transform(-7 * X), 7 * levels)
    np.testing.assert_allclose(np.diff(np.log2(bands.edges_)), 0.5)
    np.testing.assert_allclose(bands.frequencies_, bands.edges_[:-1] * 2**0.25)
    assert bands.get_feature_names_out()[0] == "x0 237.841 Hz"


@both
@pytest.mark.parametrize(
    ("n_samples", "new", "n_rows"),
    [(8000, 100, 100), (8001, 100, 101), (79, 100, 1), (1, 100, 1), (8000, 99.7, 100), (24, 1, 1)],
)
def test_rows_are_those_of_bins(bands, n_samples, new, n_rows):
    bands = type(bands)(8, **NARROW, new_sampling_frequency=new)
    X = noise(n_samples, 2)
    found = bands.fit_transform(X)
    assert found.shape == (n_rows, 16)
    np.testing.assert_allclose(found[:, 8:], bands.fit(X[:, 1:]).transform(X[:, 1:]))
    starts = bands.row_indices(X[:, 1:])
    bins = count_spikes(np.arange(n_samples) / RATE, sampling_frequency=new, n_samples=n_rows)
    np.testing.assert_array_equal(np.append(starts, n_samples), [0, *bins[:, 0].cumsum()])


def test_powers_of_all_bands_are_the_power_of_the_windowed_sound():
    """Parseval's theorem, with the windows that SciPy's transform takes."""
    X = noise(3000)
    low = 1e-3
    bands = Spectrogram(30, low=low, high=RATE / 2, sampling_frequency=RATE, window=0.03)
    levels = bands.fit_transform(X)
    length, hop = 240, 80
    window = signal.windows.hann(length + 2)[1:-1]
    for row in (0, 7, len(levels) - 1):
        middle = (row + 0.5) * hop
        samples = np.arange(length) + int(np.rint(middle - length / 2))
        inside = (samples >= 0) & (samples < len(X))
        piece = np.where(inside, X[np.clip(samples, 0, len(X) - 1), 0], 0)
        expected = np.sum((window * piece) ** 2) / np.sum(window**2)
        np.testing.assert_allclose(np.sum(levels[row] ** 2), expected, rtol=1e-4)


def test_levels_of_noise_follow_the_density_of_scipy():
    X = noise(80_000)
    bands = Spectrogram(8, **NARROW, window=0.05)
    levels = bands.fit_transform(X)
    frequencies, density = signal.welch(X[:, 0], RATE, nperseg=4000)
    for band in range(8):
        inside = (frequencies >= bands.edges_[band]) & (frequencies < bands.edges_[band + 1])
        expected = density[inside].sum() * (frequencies[1] - frequencies[0])
        assert np.mean(levels[:, band] ** 2) == pytest.approx(expected, rel=0.06)


def response_of(bands, band):
    """Frequencies and response of a gammatone filter, from its impulse response."""
    gain, pole = bands._resonator(band)
    click = np.zeros(2**17)
    click[0] = 1
    for _ in range(4):
        click = signal.lfilter([gain], [1, -pole], click)
    half = len(click) // 2
    return np.arange(half) * RATE / len(click), np.abs(np.fft.fft(click)[:half])


def test_gammatone_filters_have_the_bandwidth_of_hearing():
    bands = GammatoneFilterbank(6, **NARROW).fit(noise())
    np.testing.assert_allclose(bands.bandwidths_, 24.7 + 24.7 * 4.37e-3 * bands.frequencies_)
    for band in range(5):
        grid, response = response_of(bands, band)
        power = response**2
        assert power.max() == pytest.approx(1, rel=1e-3)
        assert grid[power.argmax()] == pytest.approx(bands.frequencies_[band], rel=1e-3)
        # The equivalent rectangular bandwidth is the area of the power response.
        area = power.sum() * (grid[1] - grid[0])
        assert area == pytest.approx(bands.bandwidths_[band], rel=0.02)


def test_gammatone_filters_are_those_of_scipy():
    bands = GammatoneFilterbank(6, **NARROW).fit(noise())
    for band in (1, 3):
        centre = bands.frequencies_[band]
        grid, response = response_of(bands, band)
        near = (grid > 0.6 * centre) & (grid < 1.5 * centre)
        numerator, denominator = signal.gammatone(centre, "iir", fs=RATE)
        _, expected = signal.freqz(numerator, denominator, worN=grid[near], fs=RATE)
        np.testing.assert_allclose(response[near], np.abs(expected), atol=0.02)


def test_gammatone_levels_are_those_of_the_filtered_sound():
    X = noise(4000)
    bands = GammatoneFilterbank(4, **NARROW).fit(X)
    gain, pole = bands._resonator(2)
    denominator = np.poly([pole] * 4)
    output = 2 * signal.lfilter([gain**4], denominator, X[:, 0]).real
    expected = np.sqrt(np.mean(output.reshape(-1, 80) ** 2, axis=1))
    # The envelope has no ripple within a period, which is shorter than a bin.
    assert np.corrcoef(bands.transform(X)[:, 2], expected)[0, 1] > 0.999


def test_gammatone_levels_do_not_depend_on_later_sound():
    X = noise(4000)
    bands = GammatoneFilterbank(4, **NARROW).fit(X)
    changed = X.copy()
    changed[2000:] += 5
    np.testing.assert_array_equal(bands.transform(changed)[:25], bands.transform(X)[:25])


def test_long_sounds_are_computed_in_blocks(monkeypatch):
    X = noise(5000)
    for bands in BOTH:
        whole = bands.fit_transform(X)
        monkeypatch.setattr("skdyn.preprocessing.sounds._N_AT_ONCE", 333)
        np.testing.assert_allclose(bands.transform(X), whole, rtol=1e-10)
        monkeypatch.undo()


@both
@pytest.mark.parametrize("edges", [(300, 200), (200, 5000), (200, 200)])
def test_bands_that_a_sound_cannot_have(bands, edges):
    wrong = type(bands)(low=edges[0], high=edges[1], sampling_frequency=RATE)
    with pytest.raises(ValueError, match=r"low < high <= 4000\.0 Hz"):
        wrong.fit(noise())


# ------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("kind", "scale", "offset"),
    [(np.uint8, 128, 128), (np.int16, 2**15, 0), (np.int32, 2**31, 0), (np.float32, 1, 0)],
)
def test_sound_files_of_every_type(tmp_path, kind, scale, offset):
    sound = np.round(np.clip(0.3 * noise(500, 2), -1, 0.99) * 100) / 100
    given_sound = (sound * scale + offset).astype(kind)
    wavfile.write(tmp_path / "sound.wav", 44100, given_sound)
    found, rate = read_sound(tmp_path / "sound.wav")
    assert rate == 44100.0
    assert found.shape == (500, 2)
    np.testing.assert_allclose(found, (given_sound.astype(float) - offset) / scale)
    np.testing.assert_allclose(found, sound, atol=1 / 100)


def test_a_sound_file_becomes_a_stimulus(tmp_path):
    rng = np.random.default_rng(0)
    sound = noise(16_000)[:, 0] * np.repeat(rng.random(40), 400)
    wavfile.write(tmp_path / "sound.wav", int(RATE), (3000 * sound).astype(np.int16))
    waveform, rate = read_sound(tmp_path / "sound.wav")
    bands = GammatoneFilterbank(6, low=200, high=3200, sampling_frequency=rate)
    X = make_pipeline(bands, LogCompressor(), RangeScaler()).fit_transform(waveform)
    assert X.shape == (200, 6)
    assert (X.min(), X.max()) == (0, 1)
    response = np.roll(X[:, 3], 2)
    assert NEMSRegressor("fir.4-lvl").fit(X, response).score(X, response) > 0.999


# ------------------------------------------------------------------------------------ spikes


@given(
    st.lists(st.floats(-0.5, 2.5), max_size=40),
    st.sampled_from([1.0, 7.3, 100.0, 1000.0]),
    st.sampled_from([0.0, -0.25, 1.3]),
)
@settings(max_examples=60, deadline=None)
def test_counts_are_a_histogram(times, rate, start):
    n_samples = int(1.7 * rate) + 1
    edges = start + np.arange(n_samples + 1) / rate
    inside = [one for one in times if one < edges[-1]]  # a histogram includes its last edge
    found = count_spikes(times, sampling_frequency=rate, n_samples=n_samples, start=start)
    np.testing.assert_array_equal(found[:, 0], np.histogram(inside, edges)[0])
    open_end = count_spikes(times, sampling_frequency=rate, start=start)
    assert open_end.sum() == sum(one >= start for one in times)
    assert not len(open_end) or open_end[-1] > 0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=50), st.sampled_from([1.0, 97.0, 1000.0]))
@settings(max_examples=60, deadline=None)
def test_times_of_counts_give_the_counts(counts, rate):
    (times,) = spike_times(counts, sampling_frequency=rate, start=0.7)
    assert np.all(np.diff(times) > 0)
    found = count_spikes(times, sampling_frequency=rate, n_samples=len(counts), start=0.7)
    np.testing.assert_array_equal(found[:, 0], counts)


@pytest.mark.parametrize("rate", [100.0, 1000.0, 30_000.0])
def test_times_at_the_start_of_a_bin_belong_to_it(rate):
    counts = count_spikes(np.arange(500) / rate, sampling_frequency=rate)
    np.testing.assert_array_equal(counts, np.ones((500, 1)))


def test_spikes_of_several_units():
    units = [np.array([0.05, 0.31]), np.array([]), np.array([0.3])]
    counts = count_spikes(units, sampling_frequency=10)
    np.testing.assert_array_equal(counts, [[1, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1]])
    back = spike_times(counts, sampling_frequency=10)
    assert [one.round(2).tolist() for one in back] == [[0.05, 0.35], [], [0.35]]
    assert count_spikes([], sampling_frequency=10).shape == (0, 1)
    assert count_spikes([[], []], sampling_frequency=10, n_samples=3).shape == (3, 2)


@pytest.mark.parametrize(
    ("function", "values", "rate", "message"),
    [
        (count_spikes, [0.1], 0, "sampling_frequency must be above 0 Hz, but is 0"),
        (count_spikes, [np.nan], 10, "times must be finite"),
        (count_spikes, [[[0.1]]], 10, "times must be finite numbers in an array of shape"),
        (spike_times, [1], -1, "sampling_frequency must be above 0 Hz"),
        (spike_times, [0.5], 10, "counts must be whole numbers"),
        (spike_times, [-1], 10, "counts must be whole numbers"),
        (spike_times, [[[1]]], 10, "counts must be whole numbers"),
    ],
)
def test_spikes_that_make_no_sense(function, values, rate, message):
    with pytest.raises(ValueError, match=message):
        function(values, sampling_frequency=rate)
