"""Artefacts are found, clean rows are kept, and good segments fit like a clean recording."""

import warnings
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from skdyn import DyNeMoEstimator, match_modes
from skdyn.metrics import alpha_correlation
from skdyn.preprocessing import BadSegments
from skdyn.simulation import MixedSineMVN


def mixture(seed=0, n_samples=6000, n_modes=3, n_channels=8):
    return MixedSineMVN(
        n_samples=n_samples,
        n_modes=n_modes,
        n_channels=n_channels,
        relative_activation=[1, 0.5, 0.5, 0.25, 0.25, 0.1][:n_modes],
        amplitudes=[6, 5, 4, 5, 3, 1][:n_modes],
        frequencies=[1, 2, 3, 5, 6, 7][:n_modes],
        sampling_frequency=250,
        random_state=seed,
    ).standardize()


def white(seed=0, n_samples=6000, n_channels=8):
    return np.random.default_rng(seed).standard_normal((n_samples, n_channels))


def power_law(seed, exponent, n_samples=6000, n_channels=8):
    """Noise with power that falls with frequency."""
    frequencies = np.fft.rfftfreq(n_samples)
    frequencies[0] = np.inf
    spectrum = np.fft.rfft(white(seed, n_samples, n_channels), axis=0)
    return np.fft.irfft(spectrum * frequencies[:, None] ** (-exponent / 2), n_samples, axis=0)


def bursts(seed):
    """An alpha rhythm in noise, three times as large for a second out of every ten."""
    seconds = np.arange(10_000) / 250
    envelope = 1 + 2 * (seconds % 10 < 1)
    alpha = envelope * np.sin(2 * np.pi * 10 * seconds)
    X = power_law(seed, 1.0, 10_000)
    return 0.3 * X / X.std(axis=0) + alpha[:, None] * white(seed, 1)


def modulated(seed):
    """Noise with an amplitude that rises and falls by a factor of 16."""
    return white(seed) * 4 ** np.sin(2 * np.pi * np.arange(6000) / 1000)[:, None]


CLEAN = {
    "white": white,
    "pink": lambda seed: power_law(seed, 1.0),
    "brown": lambda seed: power_law(seed, 2.0),
    "random walk": lambda seed: white(seed).cumsum(axis=0),
    "three modes": lambda seed: mixture(seed).time_series,
    "six modes": lambda seed: mixture(seed, 10_000, 6, 20).time_series,
    "alpha bursts": bursts,
    "modulated": modulated,
    "integers": lambda seed: np.round(white(seed)).astype(np.int16),
    "sparse counts": lambda seed: np.random.default_rng(seed).poisson(0.05, (6000, 8)),
    "trigger": lambda seed: np.column_stack([white(seed), np.arange(6000) % 1000 < 20]),
    "a constant channel": lambda seed: np.column_stack([white(seed), np.full(6000, 0.1)]),
}
HEAVY = {
    "t(5)": lambda seed: np.random.default_rng(seed).standard_t(5, (20_000, 20)),
    "Laplace": lambda seed: np.random.default_rng(seed).laplace(size=(20_000, 20)),
}


def _scale(X, rows):
    X[rows] *= 30


def _scale_one_channel(X, rows):
    X[rows, 2] *= 30


def _one_row(X, rows):
    X[rows.start] = 1e4 * X.std()
    return slice(rows.start, rows.start + 1)


def _jump(X, rows):
    rows = slice(rows.start, rows.start + 10)
    X[rows, 2] += 1000 * X[:, 2].std()
    return rows


def _zeros(X, rows):
    rows = slice(rows.start, rows.start + 500)
    X[rows] = 0
    return rows


def _stuck_channel(X, rows):
    rows = slice(rows.start, rows.start + 300)
    X[rows, 1] = X[rows.start, 1]
    return rows


def _nan(X, rows):
    X[rows] = np.nan


def _infinite_channel(X, rows):
    X[rows, 3] = -np.inf


ARTEFACTS = {
    "scaled": (_scale, {"amplitude", "difference"}),
    "one channel scaled": (_scale_one_channel, {"amplitude", "difference"}),
    "one row": (_one_row, {"amplitude", "difference"}),
    "jump": (_jump, {"amplitude", "difference"}),
    "zeros": (_zeros, {"flat"}),
    "stuck": (_stuck_channel, {"flat"}),
    "NaN": (_nan, {"missing"}),
    "infinite": (_infinite_channel, {"missing"}),
}


def with_artefact(X, kind, start=3000):
    X = np.array(X, dtype=float)
    rows = slice(start, start + 100)
    return X, ARTEFACTS[kind][0](X, rows) or rows


def spoilt_sessions():
    """Three sessions of very different gain and offset, each with another artefact."""
    first, _ = with_artefact(white(0, 1500, 4), "scaled", 400)
    second, _ = with_artefact(1e4 * white(1, 1500, 4) + 3e5, "NaN", 0)
    third, _ = with_artefact(1e-6 * white(2, 1500, 4), "jump", 1450)
    return [first, second, third]


# Detected and undetected artefacts


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("recording", CLEAN)
def test_clean_recordings_have_no_bad_rows(recording, seed):
    bad = BadSegments().fit(CLEAN[recording](seed))
    assert bad.n_bad_ == 0
    assert len(bad.segments_) == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("recording", HEAVY)
def test_heavy_tails_have_few_bad_rows(recording, seed):
    assert BadSegments().fit(HEAVY[recording](seed)).is_bad_.mean() < 0.01


@pytest.mark.parametrize("n_samples", [1, 2, 5, 29, 30, 61, 100])
def test_short_sessions_are_not_marked(n_samples):
    X = [white(seed, n_samples, 30) for seed in range(100)]
    bad = BadSegments().fit(X)
    assert bad.n_bad_ == 0
    assert all(np.isnan(scores).all() == (n_samples < 30) for scores in bad.scores_)


@pytest.mark.parametrize("n_samples", [61, 200])
def test_artefacts_in_short_sessions_are_found(n_samples):
    X = [white(seed, n_samples, 5) for seed in range(10)]
    X[4][30] = 1e4
    bad = BadSegments().fit(X)
    assert set(bad.segments_["session"]) == {4}
    assert bad.is_bad_[4][30]


@pytest.mark.parametrize("segment_length", [10, 50, 250])
@pytest.mark.parametrize("recording", ["white", "pink", "brown", "three modes", "six modes"])
@pytest.mark.parametrize("kind", ARTEFACTS)
def test_artefacts_are_found_whole(kind, recording, segment_length):
    X, rows = with_artefact(CLEAN[recording](1), kind)
    bad = BadSegments(segment_length).fit(X)
    assert bad.is_bad_[rows].all()
    assert bad.is_bad_[rows.start - 5 : rows.stop + 5].all()
    assert bad.n_bad_ - (rows.stop - rows.start) < 2 * segment_length + 11
    assert {*bad.segments_["reason"]} <= ARTEFACTS[kind][1]


@settings(max_examples=25, deadline=None)
@given(
    start=st.integers(0, 1990),
    length=st.integers(1, 600),
    channel=st.integers(0, 3),
    size=st.floats(100, 1e12),
)
def test_an_artefact_is_found_anywhere_and_at_any_size(start, length, channel, size):
    X = white(0, 2000, 4)
    X[start : start + length, channel] += size
    bad = BadSegments(padding=0).fit(X)
    assert bad.is_bad_[start : start + length].all()
    assert set(bad.segments_["channel"]) == {channel}


@pytest.mark.parametrize("start", range(2000, 3000, 200))
def test_an_artefact_cannot_hide_in_strong_modulation(start):
    X = modulated(0)
    X[start : start + 100] = 40 * white(1, 100)
    assert BadSegments().fit(X).is_bad_[start : start + 100].all()


def test_fast_artefacts_on_slow_signals_are_found_by_differences():
    X = power_law(0, 2.0)
    X[3000:3100] += 0.5 * X.std(axis=0) * white(1, 100)
    bad = BadSegments().fit(X)
    assert bad.is_bad_[3000:3100].all()
    assert list(bad.segments_["reason"]) == ["difference"]


@pytest.mark.parametrize("period", [3, 7])
def test_bad_segments_finds_gaps_all_over(period):
    X = white()
    X[1::period] = np.nan
    expected = np.isnan(X[:, 0])
    X[4000:4020:period] *= 1e4
    expected[4000:4020:period] = True
    bad = BadSegments(padding=0).fit(X)
    assert bad.is_bad_[expected].all()
    assert bad.n_bad_ < expected.sum() + 75  # the artefact lies in windows of at most 75 rows


def test_bad_segments_of_every_other_row_missing():
    X = white(n_samples=999)
    X[1::2] = np.nan
    np.testing.assert_array_equal(BadSegments(padding=0).fit(X).is_bad_, np.isnan(X[:, 0]))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
@pytest.mark.parametrize("recording", ["white", "three modes"])
def test_medians_hold_while_most_rows_are_good(recording, share):
    X = CLEAN[recording](0)
    first = int(share * len(X))
    X[:first] *= 30
    bad = BadSegments().fit(X)
    assert bad.is_bad_[:first].all()
    assert bad.is_bad_[first + 100 :].sum() == 0


def test_bad_segments_warns_of_mostly_bad_sessions():
    X = [white(0, 500), white(1, 500)]
    X[1][:300] = np.nan
    with pytest.warns(UserWarning, match="305 of the 500 rows of session 1 are bad"):
        BadSegments().fit(X)


def test_a_channel_that_is_flat_for_most_of_a_session_marks_nothing():
    X = white()
    X[:3100, 4] = 0
    assert BadSegments().fit(X).n_bad_ == 0
    X[2000:2100] = 7.0
    assert BadSegments(padding=0).fit(X).segments_[["start", "stop"]].tolist() == [(2000, 2100)]


def test_flat_stretches_are_an_option_and_have_a_least_length():
    X, _ = with_artefact(white(), "zeros")
    assert BadSegments(flat=False).fit(X).n_bad_ == 0
    assert BadSegments(501).fit(X).n_bad_ == 0
    assert BadSegments(500, padding=0).fit(X).n_bad_ == 500


def test_a_dropout_is_flat_if_filters_leave_a_residue():
    X, rows = with_artefact(white(), "zeros")
    X[rows] += 1e-9 * white(1, 500)
    assert list(BadSegments().fit(X).segments_["reason"]) == ["flat"]


def test_a_larger_threshold_marks_less():
    X = np.random.default_rng(0).standard_t(2, (6000, 4))
    masks = [BadSegments(threshold=value).fit(X).is_bad_ for value in (3, 5, 7, 9)]
    for more, less in pairwise(masks):
        assert (more | ~less).all()
        assert more.sum() > less.sum()


def test_padding_marks_rows_within_the_session():
    X = [white(0, 200), white(1, 200)]
    X[0][198] = np.nan
    bare = BadSegments(padding=0).fit(X)
    assert bare.segments_.tolist() == [(0, 198, 199, "missing", 0)]
    padded = BadSegments(padding=20).fit(X)
    assert padded.segments_.tolist() == [(0, 178, 200, "missing", 0)]


# Invariances


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 100),
    gains=st.lists(st.integers(-40, 40), min_size=3, max_size=3),
    offsets=st.lists(st.integers(-1000, 1000), min_size=3, max_size=3),
)
def test_bad_segments_do_not_depend_on_gain_offset_or_order(seed, gains, offsets):
    rng = np.random.default_rng(seed)
    X = [with_artefact(white(seed, 1000, 4), kind, 300)[0] for kind in ("scaled", "jump", "NaN")]
    order = rng.permutation(4)
    # In units of the gain, where sums of whole numbers and gains that are powers of two are exact.
    X = [np.round(one * 2.0**10) for one in X]
    Y = [
        2.0**gain * (one[:, order] + offset)
        for one, gain, offset in zip(X, gains, offsets, strict=True)
    ]
    first, second = BadSegments().fit(X), BadSegments().fit(Y)
    for one, other in zip(first.is_bad_, second.is_bad_, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(first.scores_, second.scores_, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_bad_segments_of_a_session_do_not_depend_on_others():
    X = spoilt_sessions()
    together = BadSegments().fit(X)
    for number, one in enumerate(X):
        np.testing.assert_array_equal(together.is_bad_[number], BadSegments().fit(one).is_bad_)


# Containers


def test_bad_segments_are_the_same_in_every_form():
    X = spoilt_sessions()
    labels = np.repeat(["a", "b", "a"], 1500)
    as_list, as_stack = BadSegments().fit(X), BadSegments().fit(np.stack(X))
    as_rows = BadSegments().fit(np.concatenate(X), sessions=labels)
    for name in ("is_bad_", "sample_weight_", "sessions_", "scores_"):
        of_list, of_stack = getattr(as_list, name), getattr(as_stack, name)
        assert isinstance(of_list, list)
        assert of_stack.shape == (3, 1500)
        np.testing.assert_array_equal(np.stack(of_list), of_stack)
        np.testing.assert_array_equal(np.concatenate(of_list), getattr(as_rows, name))
    np.testing.assert_array_equal(as_list.segments_, as_stack.segments_)
    starts = 1500 * as_rows.segments_["session"]
    np.testing.assert_array_equal(as_rows.segments_["start"], as_list.segments_["start"] + starts)
    assert as_list.n_bad_ == as_stack.n_bad_ == as_rows.n_bad_ == as_rows.is_bad_.sum()
    assert list(as_list.segments_["session"]) == [0, 1, 2]


@pytest.mark.parametrize("form", ["list", "stack", "rows"])
def test_labels_weights_segments_and_good_segments_agree(form):
    sessions = spoilt_sessions()
    X = {"list": sessions, "stack": np.stack(sessions), "rows": np.concatenate(sessions)}[form]
    labels = np.repeat([0, 1, 2], 1500) if form == "rows" else None
    bad = BadSegments().fit(X, sessions=labels)
    flat_labels, mask = (
        np.concatenate([*bad.sessions_] if form != "rows" else [bad.sessions_]),
        (np.ravel(bad.is_bad_)),
    )
    np.testing.assert_array_equal(flat_labels == -1, mask)
    np.testing.assert_array_equal(np.ravel(bad.sample_weight_), ~mask)
    good = bad.good_segments(X)
    assert len(good) == flat_labels.max() + 1 == 5
    for number, segment in enumerate(good):
        np.testing.assert_array_equal(segment, np.concatenate(sessions)[flat_labels == number])
        assert len({*np.flatnonzero(flat_labels == number) // 1500}) == 1
    assert np.isfinite(np.concatenate(good)).all()
    found = np.zeros(4500, dtype=bool)
    for session, start, stop, *_ in bad.segments_.tolist():
        first = 0 if form == "rows" else 1500 * session
        found[first + start : first + stop] = True
    np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize("form", ["list", "stack", "rows"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_restore_puts_results_back_in_their_rows(form, dtype):
    sessions = spoilt_sessions()
    X = {"list": sessions, "stack": np.stack(sessions), "rows": np.concatenate(sessions)}[form]
    labels = np.repeat([0, 1, 2], 1500) if form == "rows" else None
    bad = BadSegments().fit(X, sessions=labels)
    results = [np.full((len(one), 2), k, dtype=dtype) for k, one in enumerate(bad.good_segments(X))]
    restored = bad.restore(results)
    assert type(restored) is type(X)
    flat, labels = np.reshape(restored, (-1, 2)), np.ravel(bad.sessions_)
    expected = np.where(labels == -1, np.nan, labels)
    np.testing.assert_array_equal(flat, np.stack([expected] * 2, axis=1))
    assert flat.dtype == (np.float32 if dtype == np.float32 else np.float64)
    filled = bad.restore(results, fill_value=-1)
    assert np.reshape(filled, -1).dtype == dtype
    courses = bad.restore([one[:, 0] for one in results])
    np.testing.assert_array_equal(np.ravel(courses), expected)


def test_good_segments_cut_what_goes_with_the_rows():
    X, _ = with_artefact(white(), "scaled")
    bad = BadSegments().fit(X)
    frame = pd.DataFrame(X, index=np.arange(6000) / 250)
    times = bad.good_segments(np.arange(6000) / 250)
    for part, time in zip(bad.good_segments(frame), times, strict=True):
        np.testing.assert_array_equal(part.index, time)
    assert all(np.shares_memory(one, X) for one in bad.good_segments(X))
    assert [len(one) for one in bad.good_segments(list(range(6000)))] == [len(t) for t in times]


@pytest.mark.parametrize("given_type", [np.float32, np.float64, np.int16])
def test_bad_segments_change_nothing_of_the_caller(given_type):
    X, rows = with_artefact(100 * white(), "scaled")
    X = np.asfortranarray(X.astype(given_type))
    before = X.copy()
    X.flags.writeable = False
    bad = BadSegments().fit(X)
    np.testing.assert_array_equal(X, before)
    assert bad.is_bad_[rows].all()
    assert all(one.dtype == given_type for one in bad.good_segments(X))
    expected = BadSegments().fit(X.astype(np.float64))
    np.testing.assert_array_equal(bad.is_bad_, expected.is_bad_)
    assert bad.sample_weight_.dtype == np.float64


def test_good_segments_of_memory_maps_are_views(tmp_path):
    X, _ = with_artefact(white(), "scaled")
    np.save(tmp_path / "recording.npy", X)
    mapped = np.load(tmp_path / "recording.npy", mmap_mode="r")
    bad = BadSegments().fit(mapped)
    np.testing.assert_array_equal(bad.is_bad_, BadSegments().fit(X).is_bad_)
    assert all(isinstance(one, np.memmap) for one in bad.good_segments(mapped))


def test_bad_segments_take_frames_with_missing_values():
    X, _ = with_artefact(white(), "NaN")
    frame = pd.DataFrame(X, columns=[f"E{k}" for k in range(8)])
    bad = BadSegments().fit(frame)
    assert list(bad.feature_names_in_) == list(frame.columns)
    np.testing.assert_array_equal(bad.is_bad_, BadSegments().fit(X).is_bad_)


def test_bad_segments_become_a_table():
    table = pd.DataFrame(BadSegments().fit(spoilt_sessions()).segments_)
    assert list(table.columns) == ["session", "start", "stop", "reason", "channel"]


# Use


def test_bad_segments_route_labels():
    X, labels = np.concatenate(spoilt_sessions()), np.repeat([0, 1, 2], 1500)
    with config_context(enable_metadata_routing=True):
        request = BadSegments().get_metadata_routing()
    assert request.fit.requests["sessions"] is True
    assert clone(BadSegments(20, threshold=5.0)).fit(X, sessions=labels).threshold_ == 5.0


def test_bad_segments_take_segments_of_two_rows():
    X = white(0, 100)
    assert len(BadSegments(segment_length=2).fit(X).is_bad_) == 100
    for parameters in ({"segment_length": 1}, {"threshold": 0}, {"padding": -1}, {"flat": 1.5}):
        with pytest.raises(ValueError, match=f"'{next(iter(parameters))}' parameter"):
            BadSegments(**parameters).fit(X)


def test_bad_segments_say_what_is_wrong():
    X = [white(0, 100), white(1, 200)]
    with pytest.raises(NotFittedError):
        BadSegments().good_segments(X)
    with pytest.raises(NotFittedError):
        BadSegments().restore(X)
    bad = BadSegments().fit(X)
    with pytest.raises(ValueError, match=r"X has 1 parts, but 2 were expected. Call fit with this"):
        bad.good_segments(X[:1])
    with pytest.raises(ValueError, match="Part 1 of X has 199 rows, but 200 were expected"):
        bad.good_segments([X[0], X[1][1:]])
    with pytest.raises(ValueError, match="Part 0 of segments has 99 rows, but 100 were expected"):
        bad.restore([X[0][1:], X[1]])
    with pytest.raises(ValueError, match="but sessions= was given as well"):
        BadSegments().fit(X, sessions=np.zeros(300))
    with pytest.raises(ValueError, match="segment_length"):
        BadSegments(1).fit(X)


def test_bad_segments_refuse_a_recording_without_good_rows():
    X = np.full((40, 3), np.nan)
    with pytest.warns(UserWarning, match="40 of the 40 rows"):
        bad = BadSegments().fit(X)
    with pytest.raises(ValueError, match="No row of X is good"):
        bad.good_segments(X)
    np.testing.assert_array_equal(bad.restore([]), np.full(40, np.nan))


@pytest.mark.slow
def test_good_segments_are_fitted_like_a_clean_recording():
    simulation = mixture()
    clean, truth = simulation.time_series, simulation.mode_time_course
    spoilt = clean.copy()
    spoilt[3000:3100] *= 30
    bad = BadSegments().fit(spoilt)
    good = ~bad.is_bad_

    def correlations(alpha):
        return alpha_correlation(*match_modes(truth[good], alpha[good]))

    model = DyNeMoEstimator(n_modes=3, n_epochs=20, random_state=0)
    expected = correlations(clone(model).fit(clean).transform(clean))
    segments = bad.good_segments(spoilt)
    found = correlations(bad.restore(model.fit(segments).transform(segments)))
    assert expected.min() > 0.9
    assert (found > expected - 0.02).all()
    # Labels cut alike; rows that are left out do not shift the session borders.
    short = clone(model).set_params(n_epochs=1, init_method="random")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of one epoch
        rows = clone(short).fit(spoilt[good], sessions=bad.sessions_[good])
        short.fit(segments)
    np.testing.assert_array_equal(rows.covariances_, short.covariances_)
