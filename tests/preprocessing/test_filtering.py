"""Filters, envelopes, averages and rates against SciPy and against loops."""

import inspect

import numpy as np
import pytest
from scipy import signal
from sklearn.base import clone

from skdyn.preprocessing import AmplitudeEnvelope, BandpassFilter, Downsampler, MovingAverage

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
def test_the_filter_is_scipys(low, high, band, kind, order):
    X = recording()
    model = BandpassFilter(low, high, sampling_frequency=RATE, order=order)
    sections = signal.butter(order, band, btype=kind, fs=RATE, output="sos")
    expected = signal.sosfiltfilt(sections, X, axis=0)
    np.testing.assert_array_equal(model.fit_transform(X), expected)
    np.testing.assert_array_equal(model.sos_, sections)
    single = X.astype(np.float32)
    expected = signal.sosfiltfilt(sections, single.astype(np.float64), axis=0)
    np.testing.assert_array_equal(model.fit_transform(single), expected.astype(np.float32))


def test_no_row_is_shifted_and_edges_lose_half_their_amplitude():
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
def test_a_short_session_is_padded_by_what_it_has(low):
    sections = signal.butter(
        5, 30 if low is None else [low, 30], "low" if low is None else "band", fs=RATE, output="sos"
    )
    # What SciPy takes: its own limits on the number of rows.
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


def test_integers_do_not_overflow():
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
def test_bad_bands(parameters, message):
    with pytest.raises(ValueError, match=message):
        BandpassFilter(**({"sampling_frequency": RATE} | parameters)).fit(recording())


@pytest.mark.parametrize(
    ("transformer", "name"),
    [
        (BandpassFilter, "sampling_rate"),
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


# AmplitudeEnvelope


@pytest.mark.parametrize("n_samples", [1, 2, 97, 400, 401])
def test_the_envelope_is_scipys(n_samples):
    X = recording(n_samples)
    expected = np.abs(signal.hilbert(X, axis=0))
    np.testing.assert_array_equal(AmplitudeEnvelope().fit_transform(X), expected)


def test_the_envelope_of_a_modulated_wave_is_the_modulation():
    modulation = 2 + wave(1)
    found = AmplitudeEnvelope().fit_transform(modulation * wave(40))
    np.testing.assert_allclose(found, modulation, atol=1e-10)


# MovingAverage


@pytest.mark.parametrize("window", [1, 2, 3, 5, 6, 31, 1000])
def test_the_average_is_a_loop(window):
    X = recording(40)
    found = MovingAverage(window).fit_transform(X)
    for row in range(40):
        near = np.abs(np.arange(40) - row) <= window / 2
        np.testing.assert_allclose(found[row], X[near].mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize(
    ("window", "rate", "n_rows"),
    [(0.1, 250, 25), (0.1, 100, 11), (0.58, 100, 59), (1.9, 1, 1), (0.004, 250, 1), (4, 0.5, 3)],
)
def test_windows_in_seconds(window, rate, n_rows):
    model = MovingAverage(window, sampling_frequency=rate).fit(recording())
    assert model.n_window_ == n_rows
    np.testing.assert_array_equal(
        model.transform(recording()), MovingAverage(n_rows).fit_transform(recording())
    )


def test_averages_of_long_recordings_lose_no_digits():
    X = recording(200_000, 1) + 1e6
    found = MovingAverage(3).fit_transform(X)
    expected = (X[:-2] + X[1:-1] + X[2:]) / 3
    np.testing.assert_allclose(found[1:-1], expected, atol=1e-9, rtol=0)


# Downsampler


@pytest.mark.parametrize(
    ("new", "old", "up", "down"),
    [
        (125, 250, 1, 2),
        (100, 250, 2, 5),
        (256, 1000, 32, 125),
        (0.5, 1.0, 1, 2),
        (99.9, 250, 999, 2500),
    ],
)
@pytest.mark.parametrize("n_samples", [1, 2, 7, 400])
def test_the_rate_is_changed_as_by_scipy(new, old, up, down, n_samples):
    X = recording(n_samples)
    model = Downsampler(new, sampling_frequency=old)
    found = model.fit_transform(X)
    assert (model.up_, model.down_) == (up, down)
    expected = X.mean(axis=0) + signal.resample_poly(
        X - X.mean(axis=0), up, down, axis=0, padtype="edge"
    )
    np.testing.assert_array_equal(found, expected)
    assert len(found) == len(model.row_indices(X)) == -(-n_samples * up // down)


def test_what_the_new_rate_can_hold_stays_in_time_and_the_rest_goes():
    model = Downsampler(100, sampling_frequency=RATE).fit(wave(5))
    found = model.transform(wave(5))
    np.testing.assert_allclose(found, wave(5, 400, 100), atol=0.03)
    np.testing.assert_allclose(found[50:350], wave(5, 400, 100)[50:350], atol=2e-3)
    # 90 Hz would pass for 10 Hz.
    assert np.abs(model.transform(wave(90))[50:350]).max() < 1e-2


def test_a_constant_stays():
    X = np.full((333, 2), 1e6)
    np.testing.assert_array_equal(Downsampler(0.4).fit_transform(X), 1e6)


def test_the_same_rate_changes_nothing():
    np.testing.assert_allclose(Downsampler(1.0).fit_transform(recording()), recording(), rtol=1e-12)


@pytest.mark.parametrize("ratio", [(1, 1), (1, 2), (1, 3), (2, 5), (3, 4), (32, 125)])
@pytest.mark.parametrize("n_samples", [1, 2, 3, 5, 40])
def test_rows_are_the_nearest_in_time(ratio, n_samples):
    up, down = ratio
    model = Downsampler(up, sampling_frequency=down).fit(recording())
    rows = model.row_indices(recording(n_samples))
    times = np.arange(len(rows)) * down / up
    distances = np.abs(times[:, np.newaxis] - np.arange(n_samples))
    chosen = distances[np.arange(len(rows)), rows]
    np.testing.assert_allclose(chosen, distances.min(axis=1), atol=1e-9)
    assert np.all(np.diff(rows) > 0)
    if up == 1:
        np.testing.assert_array_equal(rows, times)


def test_labels_and_targets_go_with_the_rows():
    sessions = np.repeat(["a", "b", "c"], [41, 7, 52])
    X = recording(100)
    model = Downsampler(100, sampling_frequency=RATE).fit(X, sessions=sessions)
    rows = model.row_indices(X, sessions=sessions)
    found = model.transform(X, sessions=sessions)
    assert len(found) == len(rows)
    assert [(sessions[rows] == one).sum() for one in "abc"] == [17, 3, 21]
    pieces = np.split(X, [41, 48])
    as_list = model.row_indices(pieces)
    np.testing.assert_array_equal(
        rows, np.concatenate([one + start for one, start in zip(as_list, [0, 41, 48], strict=True)])
    )
    stacked = model.row_indices(np.stack([X, X]))
    np.testing.assert_array_equal(stacked, [model.row_indices(X)] * 2)


@pytest.mark.parametrize(("new", "old"), [(300, 250), (1.0001, 1.0), (np.pi, 250), (1, 20_001)])
def test_bad_rates(new, old):
    with pytest.raises(
        ValueError, match=f"new_sampling_frequency is {new} Hz, but at most .*{old} Hz"
    ):
        Downsampler(new, sampling_frequency=old).fit(recording())
