"""Lower sampling rates against SciPy, waves and time grids."""

import numpy as np
import pytest
from scipy import signal

from skdyn.preprocessing import Downsampler, rates

RATE = 250


def recording(n_samples=400, n_channels=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n_samples, n_channels)) + 2


def wave(frequency, n_samples=1000, rate=RATE):
    return np.sin(2 * np.pi * frequency * np.arange(n_samples) / rate)[:, np.newaxis]


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
def test_downsampler_is_scipys(new, old, up, down, n_samples):
    X = recording(n_samples)
    model = Downsampler(new, sampling_frequency=old)
    found = model.fit_transform(X)
    assert (model.up_, model.down_) == (up, down)
    expected = X.mean(axis=0) + signal.resample_poly(
        X - X.mean(axis=0), up, down, axis=0, padtype="edge"
    )
    np.testing.assert_array_equal(found, expected)
    assert len(found) == len(model.row_indices(X)) == -(-n_samples * up // down)


def test_downsampler_keeps_slow_waves_and_removes_fast_ones():
    model = Downsampler(100, sampling_frequency=RATE).fit(wave(5))
    found = model.transform(wave(5))
    np.testing.assert_allclose(found, wave(5, 400, 100), atol=0.03)
    np.testing.assert_allclose(found[50:350], wave(5, 400, 100)[50:350], atol=2e-3)
    # 90 Hz would pass for 10 Hz.
    assert np.abs(model.transform(wave(90))[50:350]).max() < 1e-2


def test_downsampler_keeps_constants():
    X = np.full((333, 2), 1e6)
    np.testing.assert_array_equal(Downsampler(0.4).fit_transform(X), 1e6)


def test_downsampler_with_the_same_rate_changes_nothing():
    np.testing.assert_allclose(Downsampler(1.0).fit_transform(recording()), recording(), rtol=1e-12)


@pytest.mark.parametrize("ratio", [(1, 1), (1, 2), (1, 3), (2, 5), (3, 4), (32, 125)])
@pytest.mark.parametrize("n_samples", [1, 2, 3, 5, 40])
def test_downsampler_names_the_nearest_rows(ratio, n_samples):
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


def test_downsampler_takes_labels_and_targets_along():
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


@pytest.mark.parametrize(("new", "old"), [(300, 250), (1.0001, 1.0), (250, np.e)])
def test_downsampler_refuses_higher_rates(new, old):
    with pytest.raises(
        ValueError, match=f"new_sampling_frequency is {new} Hz, but at most .*{old} Hz"
    ):
        Downsampler(new, sampling_frequency=old).fit(recording())


IRRATIONAL = [(100 / np.sqrt(2), 250), (np.e, np.pi), (99.999_999, 250), (30 * np.pi, 1000)]


@pytest.mark.parametrize(("new", "old"), IRRATIONAL)
@pytest.mark.parametrize("n_samples", [1, 2, 7, 1000])
def test_downsampler_of_irrational_rates_has_rows_at_the_new_period(new, old, n_samples):
    X = recording(n_samples)
    model = Downsampler(new, sampling_frequency=old).fit(X)
    assert model.up_ is None
    assert model.down_ is None
    times = np.arange(n_samples * 2) / new
    times = times[times < n_samples / old]
    rows = model.row_indices(X)
    assert len(model.transform(X)) == len(rows) == len(times)
    np.testing.assert_array_equal(rows, np.minimum(np.round(times * old), n_samples - 1))


@pytest.mark.parametrize(("new", "old"), IRRATIONAL)
def test_downsampler_of_irrational_rates_removes_fast_waves(new, old):
    n_samples = 2000
    inside = slice(40, -40)
    waves = [(0.2 * new, 1), (0.7 * new, 0)]
    for frequency, kept in waves[: 2 if 0.7 * new < old / 2 else 1]:
        found = Downsampler(new, sampling_frequency=old).fit_transform(
            wave(frequency, n_samples, old)
        )
        expected = kept * wave(frequency, len(found), new)
        np.testing.assert_allclose(found[inside], expected[inside], atol=0.005)
    constant = np.full((333, 2), 1e6)
    np.testing.assert_array_equal(Downsampler(1 / np.e).fit_transform(constant), 1e6)


@pytest.mark.parametrize("ratio", [(2, 5), (32, 125), (1, 3), (99, 100)])
def test_downsampler_is_continuous_in_the_rate(ratio):
    up, down = ratio
    X = recording(1000)
    rational = Downsampler(up, sampling_frequency=down).fit_transform(X)
    near = Downsampler(up * (1 + 1e-10), sampling_frequency=down).fit(X)
    assert near.up_ is None
    found = near.transform(X)[: len(rational)]
    # SciPy's filter does not keep sums of weights equal between the rows.
    np.testing.assert_allclose(found, rational, atol=2e-3)


def test_downsampler_interpolates_in_blocks_that_do_not_show(monkeypatch):
    X, model = recording(500), Downsampler(1 / np.e)
    whole = model.fit_transform(X)
    monkeypatch.setattr(rates, "_BLOCK_SIZE", 1000)
    np.testing.assert_allclose(model.transform(X), whole, rtol=1e-12)


def test_downsampler_takes_long_ratios():
    X = wave(0.001, 60_000, 250)
    found = Downsampler(1, sampling_frequency=20_001).fit_transform(X)
    assert found.shape == (3, 1)
    assert np.isfinite(found).all()
