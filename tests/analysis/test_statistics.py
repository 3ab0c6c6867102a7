"""Statistics of mixing coefficients, against SciPy, brute force and numbers of osl-dynamics."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit
from scipy.stats import kurtosis

from skdyn.analysis import mode_statistics, normalised_alpha

RATE = 50.0


def courses(seed, n_samples=400, n_modes=3):
    """Slow mixing coefficients."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((n_samples, n_modes)).cumsum(axis=0) * 0.3
    weights = np.exp(steps - steps.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def runs(course):
    """First and last rows of the runs of ones, by brute force."""
    found, start = [], None
    for row, is_on in enumerate(course):
        if is_on and start is None:
            start = row
        if not is_on and start is not None:
            found.append((start, row))
            start = None
    return found if start is None else [*found, (start, len(course))]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 5), st.floats(0.05, 0.9))
def test_statistics_of_runs_equal_brute_force(seed, n_samples, n_modes, threshold):
    alpha = courses(seed, n_samples, n_modes)
    for binarize in ("argmax", threshold):
        found = mode_statistics(
            alpha, sampling_frequency=RATE, binarize=binarize, fano_window=5 / RATE
        )
        largest = alpha.argmax(axis=1)
        for mode in range(n_modes):
            active = largest == mode if binarize == "argmax" else alpha[:, mode] > threshold
            pairs = runs(active)
            lengths = [(end - start) / RATE for start, end in pairs]
            gaps = [(b[0] - a[1]) / RATE for a, b in pairwise(pairs)]
            assert found.occupancy[mode] == pytest.approx(active.mean())
            assert found.n_visits[mode] == len(pairs)
            np.testing.assert_allclose(found.lifetimes[mode], lengths)
            np.testing.assert_allclose(found.intervals[mode], gaps)
            mean = np.mean(lengths) if lengths else np.nan
            np.testing.assert_allclose(found.mean_lifetime[mode], mean)
            assert found.switching_rate[mode] == pytest.approx(len(pairs) * RATE / n_samples)
            starts = [start for start, _ in pairs if start > 0]
            counts = [
                sum(first <= start < first + 5 for start in starts)
                for first in range(0, n_samples - n_samples % 5, 5)
            ]
            if len(counts) > 1 and sum(counts):
                ratio = np.var(counts) / np.mean(counts)
                assert found.fano_factor[mode] == pytest.approx(ratio)
            else:
                assert np.isnan(found.fano_factor[mode])


# Two sessions of states, as states and lengths of their runs in rows at 100 Hz, and what
# osl-dynamics 3.7.2 computes from them: (session, mode), for Fano factors (window, mode).
STATES = "2101202102012020210210120101"
LENGTHS = [
    *(6, 66, 42, 142, 142, 7, 101, 191, 78, 185, 153, 143, 74, 186, 132, 53, 55, 191, 124, 185),
    *(1, 106, 143, 121, 153, 191, 17, 12),
]
REFERENCE = {
    "occupancy": [[0.30633333, 0.36, 0.33366667], [0.29924091, 0.34918098, 0.35157811]],
    "mean_lifetime": [[0.919, 1.2, 1.11222222], [0.93625, 1.24857143, 1.1]],
    "mean_interval": [[2.21888889, 2.3925, 2.0325], [2.20285714, 2.705, 1.96571429]],
}
REFERENCE_FANO = {
    1.0: [[0.66666667, 0.7, 0.73333333], [0.68, 0.72, 0.72]],
    2.0: [[0.33333333, 0.84444444, 0.46666667], [0.33333333, 0.98809524, 0.41666667]],
    5.0: [[0.13333333, 0.16666667, 0.16666667], [0.15, 0.17142857, 0.17142857]],
}
REFERENCE_SWITCHING = [[0.33333333, 0.3, 0.26666667], [0.31961646, 0.2796644, 0.2796644]]
REFERENCE_TRANSITION = [
    [0.98911861, 0.0054407, 0.0054407],
    [0.00463392, 0.99258573, 0.00278035],
    [0.004995, 0.003996, 0.99100899],
]


def test_statistics_agree_with_the_reference_but_for_the_switching_rate():
    states = np.repeat([int(state) for state in STATES], LENGTHS)
    # The second session is shorter.
    alpha = [np.eye(3)[states], np.eye(3)[states[:2503]]]
    for window, expected in REFERENCE_FANO.items():
        found = mode_statistics(alpha, sampling_frequency=100, fano_window=window)
        np.testing.assert_allclose(found.fano_factor, expected, rtol=1e-4)
    for name, expected in REFERENCE.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4)
    np.testing.assert_allclose(found.transition_matrix[0], REFERENCE_TRANSITION, rtol=1e-4)
    # Both sessions start in mode 2; the reference does not count its first run.
    durations = np.array([30.0, 25.03])
    missing = np.outer(1 / durations, [0, 0, 1])
    np.testing.assert_allclose(found.switching_rate - missing, REFERENCE_SWITCHING, rtol=1e-4)
    np.testing.assert_allclose(found.switching_rate * durations[:, None], found.n_visits)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_moments_are_those_of_scipy(seed):
    alpha, sizes = courses(seed), np.random.default_rng(seed).uniform(0.1, 10, 3)
    covariances = sizes[:, None, None] * np.eye(4)
    found = mode_statistics(alpha, sampling_frequency=RATE, covariances=covariances)
    weighted = alpha * sizes / (alpha @ sizes)[:, None]
    for values, names in [
        (alpha, ("mean", "standard_deviation", "kurtosis")),
        (weighted, ("normalised_weight", "normalised_standard_deviation", "normalised_kurtosis")),
    ]:
        expected = values.mean(axis=0), values.std(axis=0), kurtosis(values, axis=0)
        for name, numbers in zip(names, expected, strict=True):
            np.testing.assert_allclose(found[name], numbers, rtol=1e-8, atol=1e-10)


def test_entropy_and_transitions_have_closed_forms():
    alpha = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0.5, 0.5], [0, 0, 1]])
    found = mode_statistics(alpha, sampling_frequency=1.0)
    assert found.entropy == pytest.approx((np.log(3) + np.log(2)) / 4)
    # States 0, 0, 1, 2: the third mode is never left.
    expected = [[0.5, 0.5, 0], [0, 0, 1], [np.nan] * 3]
    np.testing.assert_allclose(found.transition_matrix, expected)


def test_a_mode_that_is_never_active_has_no_lifetime():
    alpha = np.column_stack([np.ones(50), np.zeros(50)])
    found = mode_statistics(alpha, sampling_frequency=RATE, covariances=np.ones((2, 3)))
    np.testing.assert_array_equal(found.occupancy, [1, 0])
    np.testing.assert_array_equal(found.n_visits, [1, 0])
    np.testing.assert_allclose(found.mean_lifetime, [1.0, np.nan])
    assert np.isnan(found.mean_interval).all()
    assert np.isnan(found.kurtosis).all()
    np.testing.assert_allclose(found.normalised_weight, [1, 0])


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_mixture_finds_the_two_levels_of_a_mode(shift):
    rng = np.random.default_rng(0)
    is_high = np.repeat(rng.random(40) < 0.4, 50)
    theta = np.where(is_high, 2.0, -2.0) + 0.3 * rng.standard_normal(len(is_high)) - shift
    alpha = 1 / (1 + np.exp(-theta))
    alpha = np.column_stack([alpha, 1 - alpha])
    np.testing.assert_allclose(logit(alpha[:, 0]), theta)
    parts = [alpha[:700], alpha[700:]]
    found = mode_statistics(parts, sampling_frequency=RATE, binarize="mixture")
    expected = [is_high[:700].mean(), is_high[700:].mean()]
    np.testing.assert_allclose(found.occupancy[:, 0], expected)
    np.testing.assert_allclose(found.occupancy.sum(axis=1), 1)


def test_mixture_takes_coefficients_of_zero_and_constants():
    alpha = np.eye(3)[[0, 0, 1, 1, 0, 0, 0, 1]]
    found = mode_statistics(alpha, sampling_frequency=1.0, binarize="mixture")
    np.testing.assert_allclose(found.occupancy, [0.625, 0.375, 0])
    few = mode_statistics(alpha[:2], sampling_frequency=1.0, binarize="mixture")
    np.testing.assert_allclose(few.occupancy, 0)


def test_sessions_come_in_every_form():
    parts = [courses(seed) for seed in range(3)]
    options = {"sampling_frequency": RATE, "covariances": np.ones((3, 2)), "binarize": 0.4}
    labels = np.repeat(["b", "a", "c"], 400)
    rows = np.concatenate(parts)
    forms = [
        mode_statistics(parts, **options),
        mode_statistics(np.stack(parts), **options),
        mode_statistics(rows, sessions=labels, **options),
    ]
    alone = [mode_statistics(part, **options) for part in parts]
    for name, values in alone[0].items():
        if name in ("sessions", "sampling_frequency", "fano_window"):
            continue
        for form in forms:
            assert len(form[name]) == 3
            if name in ("lifetimes", "intervals"):
                np.testing.assert_array_equal(form[name][0][1], values[1])
            else:
                np.testing.assert_allclose(form[name], [one[name] for one in alone])
    assert forms[0].sessions == [0, 1, 2]
    assert forms[2].sessions == ["b", "a", "c"]


def test_to_frame_has_a_row_per_session_and_mode():
    pytest.importorskip("pandas")
    parts = [courses(seed) for seed in range(2)]
    found = mode_statistics(parts, sampling_frequency=RATE)
    frame = found.to_frame()
    assert frame.index.names == ["session", "mode"]
    assert len(frame) == 6
    assert {"occupancy", "mean_lifetime", "mean_interval", "switching_rate"} <= set(frame)
    assert "normalised_weight" not in frame
    assert frame.loc[(1, 2), "occupancy"] == found.occupancy[1, 2]
    assert frame.loc[(1, 2), "entropy"] == found.entropy[1]
    alone = mode_statistics(parts[1], sampling_frequency=RATE).to_frame()
    np.testing.assert_allclose(alone.loc[0], frame.loc[1])


def test_plot_draws_a_panel_per_statistic():
    parts = [courses(seed) for seed in range(12)]
    found = mode_statistics(parts, sampling_frequency=RATE, covariances=np.ones((3, 2)))
    _, axes = found.plot()
    assert [panel.get_ylabel() for panel in axes][:2] == ["Normalised weight", "Occupancy"]
    _, axes = found.plot(["fano_factor"], groups=["a", "b"] * 6)
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["a", "b"]
    with pytest.raises(ValueError, match="Pass some of mean"):
        found.plot(["nothing"])
    with pytest.raises(ValueError, match="one label per session"):
        found.plot(groups=["a"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_normalised_alpha_does_not_depend_on_the_unit_of_the_covariances(seed, factor):
    alpha = courses(seed)
    halves = np.random.default_rng(seed).standard_normal((3, 4, 4))
    covariances = halves @ halves.swapaxes(1, 2)
    found = normalised_alpha(alpha, covariances)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found, normalised_alpha(alpha, factor * covariances))
    np.testing.assert_allclose(found, normalised_alpha(alpha, np.diagonal(covariances, 0, 1, 2)))
    # The share of the trace of the mixture.
    mixed = np.einsum("tj,jcd->tcd", alpha, covariances)
    power = alpha[:, 1] * np.trace(covariances[1]) / np.trace(mixed, axis1=1, axis2=2)
    np.testing.assert_allclose(found[:, 1], power)


def test_normalised_alpha_takes_covariances_of_each_session():
    parts = [courses(seed) for seed in range(2)]
    own = np.random.default_rng(0).uniform(1, 5, (2, 3, 1, 1)) * np.eye(2)
    found = normalised_alpha(parts, own)
    assert isinstance(found, list)
    for part, covariances, values in zip(parts, own, found, strict=True):
        np.testing.assert_allclose(values, normalised_alpha(part, covariances))
    silent = normalised_alpha(parts[0], np.zeros((3, 2)))
    np.testing.assert_allclose(silent, 1 / 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": [[0.5, -0.5]]}, "below 0"),
        ({"alpha": [0.5, 0.5]}, "n_samples, n_modes"),
        ({"alpha": [[np.nan, 1]]}, "NaN"),
        ({"binarize": "largest"}, "binarize must be 'argmax', 'mixture'"),
        ({"binarize": 1.5}, "between 0 and 1"),
        ({"sampling_frequency": 0}, "above 0, in Hz"),
        ({"fano_window": -1}, "above 0, in seconds"),
        ({"covariances": np.ones((3, 2, 2))}, "for 2 modes and 1 sessions"),
        ({"covariances": np.ones((2, 2, 3))}, "for 2 modes"),
        ({"covariances": np.ones((2, 2, 2, 2))}, "for 2 modes and 1 sessions"),
        ({"covariances": -np.ones((2, 2))}, "trace that is below 0"),
    ],
)
def test_statistics_refuse_what_makes_no_sense(options, message):
    given = {"alpha": [[0.5, 0.5], [0.2, 0.8]], "sampling_frequency": 1.0} | options
    with pytest.raises(ValueError, match=message):
        mode_statistics(given.pop("alpha"), **given)
