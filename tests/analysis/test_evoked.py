"""Mixing around events against loops, and the false positive rate of its test."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdyn.analysis import evoked_alpha, evoked_test, permutation_test

RATE = 20.0


def courses(rng, n_samples=600, n_modes=3, smooth=15):
    """Mixing coefficients that vary slowly."""
    noise = rng.standard_normal((n_samples + smooth - 1, n_modes))
    theta = np.stack([np.convolve(column, np.ones(smooth), "valid") for column in noise.T], axis=1)
    weights = np.exp(theta / 2)
    return weights / weights.sum(axis=1, keepdims=True)


def onsets(rng, n_samples=600):
    events = np.cumsum(rng.integers(15, 50, 40))
    return events[events < n_samples]


def brute_force(alpha, events, first, last, baseline=None):
    epochs = np.stack(
        [
            alpha[e + first : e + last + 1]
            for e in events
            if e + first >= 0 and e + last < len(alpha)
        ]
    )
    if baseline is not None:
        part = epochs[:, baseline[0] - first : baseline[1] - first + 1]
        epochs = epochs - part.mean(axis=1, keepdims=True)
    return epochs


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_evoked_alpha_is_the_mean_of_epochs(seed, has_baseline):
    rng = np.random.default_rng(seed)
    alpha, events = courses(rng), onsets(rng)
    baseline = (-0.5, -0.1) if has_baseline else None
    found = evoked_alpha(alpha, events, sampling_frequency=RATE, baseline=baseline)
    epochs = brute_force(alpha, events, -10, 30, (-10, -2) if has_baseline else None)
    np.testing.assert_allclose(found.mean, epochs.mean(axis=0))
    expected = epochs.std(axis=0, ddof=1) / np.sqrt(len(epochs))
    np.testing.assert_allclose(found.standard_error, expected)
    assert found.n_events == len(epochs)
    np.testing.assert_allclose(found.times, np.arange(-10, 31) / RATE)


def test_events_and_sessions_come_in_every_form():
    rng = np.random.default_rng(0)
    parts, events = [courses(rng) for _ in range(3)], [onsets(rng) for _ in range(3)]
    options = {"sampling_frequency": RATE}
    listed = evoked_alpha(parts, events, **options)
    stacked = evoked_alpha(np.stack(parts), events, **options)
    rows = np.concatenate([one + 600 * number for number, one in enumerate(events)])
    labels = np.repeat(["x", "y", "z"], 600)
    flat = evoked_alpha(np.concatenate(parts), rows, sessions=labels, **options)
    assert listed.mean.shape == (3, 41, 3)
    assert flat.sessions == ["x", "y", "z"]
    for other in (stacked, flat):
        np.testing.assert_array_equal(other.mean, listed.mean)
        np.testing.assert_array_equal(other.n_events, listed.n_events)
    tests = [
        evoked_test(parts, events, n_permutations=50, **options),
        evoked_test(np.concatenate(parts), rows, sessions=labels, n_permutations=50, **options),
    ]
    np.testing.assert_array_equal(tests[0].null, tests[1].null)


def test_evoked_test_moves_events_as_a_loop_does():
    rng = np.random.default_rng(1)
    alpha, events = courses(rng, n_samples=80), np.array([12, 30, 41])
    options = {"sampling_frequency": RATE, "window": (-0.2, 0.3), "n_permutations": 30}
    test = evoked_test(alpha, events, random_state=3, **options)
    shifts = np.append(0, np.random.RandomState(3).randint(80, size=29))
    means = np.stack(
        [np.mean([alpha[(e + s + np.arange(-4, 7)) % 80] for e in events], axis=0) for s in shifts]
    )
    scores = np.abs(means - means.mean(axis=0)) / means.std(axis=0)
    np.testing.assert_allclose(np.abs(test.statistic), scores[0], atol=1e-9)
    np.testing.assert_allclose(test.null, scores.max(axis=(1, 2)))
    expected = (scores.max(axis=(1, 2))[:, None, None] >= scores[0] - 1e-9).mean(axis=0)
    np.testing.assert_allclose(test.p_value, expected)
    np.testing.assert_allclose(test.effect, means[0] - means.mean(axis=0), atol=1e-12)


def test_evoked_test_finds_a_mode_that_follows_events():
    rng = np.random.default_rng(2)
    alpha, events = courses(rng, 3000), onsets(rng, 3000)
    for event in events:
        alpha[event + 8 : event + 14, 1] += 1.5
    alpha /= alpha.sum(axis=1, keepdims=True)
    test = evoked_test(alpha, events, sampling_frequency=RATE, n_permutations=300)
    times = np.arange(-10, 31)
    is_answer = (times >= 8) & (times < 14)
    assert test.p_value[is_answer, 1].max() < 0.02
    assert test.effect[is_answer, 1].min() > 0
    assert test.p_value[times < 0].min() > 0.05


def test_under_the_null_one_in_twenty_tests_of_events_rejects():
    found = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        parts, events = [courses(rng, 400) for _ in range(2)], [onsets(rng, 400) for _ in range(2)]
        options = {"sampling_frequency": RATE, "n_permutations": 100, "random_state": seed}
        test = evoked_test(parts, events, baseline=(-0.5, 0), **options)
        found += bool(test.p_value.min() <= 0.05)
    assert abs(found / 200 - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 200)


def test_evoked_means_of_people_go_into_the_permutation_test():
    rng = np.random.default_rng(3)
    parts, events = [courses(rng) for _ in range(8)], [onsets(rng) for _ in range(8)]
    evoked = evoked_alpha(parts, events, sampling_frequency=RATE, baseline=(-0.5, 0))
    test = permutation_test(evoked.mean)
    assert test.p_value.shape == (41, 3)
    assert test.is_exact


def test_a_constant_mode_has_no_statistic():
    alpha = np.tile([0.25, 0.75], (100, 1))
    test = evoked_test(alpha, [30, 60], sampling_frequency=RATE, n_permutations=20)
    np.testing.assert_array_equal(test.statistic, 0)
    np.testing.assert_array_equal(test.p_value, 1)


def test_plot_draws_a_line_per_mode():
    rng = np.random.default_rng(4)
    parts, events = [courses(rng) for _ in range(3)], [onsets(rng) for _ in range(3)]
    for one in ((parts, events), (parts[:1], events[:1]), (parts[0], events[0])):
        _, axes = evoked_alpha(*one, sampling_frequency=RATE).plot(mode_labels=list("abc"))
        labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
        assert labels == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"events": [700]}, "from 700 to 700, but rows from 0 to 599"),
        ({"events": [0.5]}, "numbers of rows"),
        ({"events": [2]}, "no event whose window is within it"),
        ({"window": (1, 0)}, "window must be"),
        ({"baseline": (-3, 0)}, "baseline must be within window"),
        ({"sampling_frequency": 0}, "above 0 Hz"),
    ],
)
def test_evoked_alpha_refuses_what_makes_no_sense(options, message):
    given = {"events": [100], "sampling_frequency": RATE} | options
    with pytest.raises(ValueError, match=message):
        evoked_alpha(courses(np.random.default_rng(0)), given.pop("events"), **given)


def test_evoked_test_checks_its_choices():
    given = courses(np.random.default_rng(0)), [100]
    with pytest.raises(ValueError, match=r"n_permutations must be .* but is 0"):
        evoked_test(*given, sampling_frequency=RATE, n_permutations=0)
    with pytest.raises(ValueError, match=r"level must be .* but is 2"):
        evoked_test(*given, sampling_frequency=RATE, level=2)


def test_events_of_a_list_are_a_list():
    parts = [courses(np.random.default_rng(0))] * 2
    with pytest.raises(ValueError, match="events of each session"):
        evoked_alpha(parts, [100, 200], sampling_frequency=RATE)
