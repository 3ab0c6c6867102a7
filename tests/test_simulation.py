import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from skdyn import simulation as simulation_module
from skdyn.simulation import MixedSineMVN, phase_randomized


def simulate(n_samples=400, n_modes=3, n_channels=4, random_state=0, **changes):
    arguments = {
        "relative_activation": np.linspace(1, 0.1, int(n_modes)),
        "amplitudes": np.linspace(4, 1, int(n_modes)),
        "frequencies": np.linspace(1, 6, int(n_modes)),
        "sampling_frequency": 100.0,
    } | changes
    return MixedSineMVN(n_samples, n_modes, n_channels, random_state=random_state, **arguments)


def mixture(simulation, weights=None):
    """Mean and covariance of every sample, noise included."""
    weights = simulation.mode_time_course if weights is None else weights
    noise = np.broadcast_to(simulation.observation_error, simulation.n_channels) ** 2
    covariances = np.einsum("tj,jkl->tkl", weights, simulation.covariances) + np.diag(noise)
    return np.einsum("tj,jk->tk", weights, simulation.means), covariances


def whiten(simulation, weights=None):
    """Residuals that are standard normal if the truth is the truth, by eigenvalues."""
    means, covariances = mixture(simulation, weights)
    values, vectors = np.linalg.eigh(covariances)
    projected = np.einsum("tkl,tk->tl", vectors, simulation.time_series - means)
    return projected / np.sqrt(values)


def log_density(simulation, n_samples=50):
    means, covariances = mixture(simulation)
    return np.array(
        [
            multivariate_normal.logpdf(simulation.time_series[t], means[t], covariances[t])
            for t in range(n_samples)
        ]
    )


@settings(max_examples=25, deadline=None)
@given(
    n_samples=st.integers(1, 50),
    n_modes=st.integers(1, 7),
    n_channels=st.integers(1, 9),
    n_covariances_act=st.integers(1, 3),
    means=st.sampled_from(["zero", "random"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_shapes_and_weights(n_samples, n_modes, n_channels, n_covariances_act, means, seed):
    simulation = simulate(
        n_samples, n_modes, n_channels, seed, means=means, n_covariances_act=n_covariances_act
    )
    assert simulation.time_series.shape == (n_samples, n_channels)
    assert simulation.logits.shape == simulation.mode_time_course.shape == (n_samples, n_modes)
    assert simulation.means.shape == (n_modes, n_channels)
    assert simulation.covariances.shape == (n_modes, n_channels, n_channels)
    assert simulation.time_series.dtype == simulation.mode_time_course.dtype == np.float64
    assert np.isfinite(simulation.time_series).all()
    assert (simulation.mode_time_course >= 0).all()
    np.testing.assert_allclose(simulation.mode_time_course.sum(axis=1), 1, rtol=1e-12)
    assert ((simulation.phases >= 0) & (simulation.phases < 2 * np.pi)).all()
    assert np.linalg.eigvalsh(simulation.covariances).min() > 0.9e-6


def test_logits_and_weights_follow_the_formula():
    simulation = simulate(n_samples=300)
    for t in (0, 1, 17, 299):
        logits = [
            offset + amplitude * np.sin(2 * np.pi * frequency * t / 100.0 + phase)
            for offset, amplitude, frequency, phase in zip(
                [1, 0.55, 0.1], [4, 2.5, 1], [1, 3.5, 6], simulation.phases, strict=True
            )
        ]
        np.testing.assert_allclose(simulation.logits[t], logits, rtol=1e-10)
        np.testing.assert_allclose(
            simulation.mode_time_course[t], np.exp(logits) / np.exp(logits).sum(), rtol=1e-10
        )


@pytest.mark.parametrize("observation_error", [0.0, 0.3])
@pytest.mark.parametrize("means", ["zero", "random"])
def test_residuals_are_white_under_the_truth(observation_error, means):
    n_samples = 20_000
    simulation = simulate(n_samples, n_channels=5, means=means, observation_error=observation_error)
    residuals = whiten(simulation)
    assert abs(residuals.mean(axis=0)).max() < 5 / np.sqrt(n_samples)
    # The standard errors of the entries are at most sqrt(2 / n_samples).
    np.testing.assert_allclose(
        residuals.T @ residuals / n_samples, np.eye(5), atol=5 * np.sqrt(2 / n_samples)
    )
    # The same weights half a recording late are wrong, and it shows.
    late = np.roll(simulation.mode_time_course, n_samples // 2 + 30, axis=0)
    wrong = whiten(simulation, late)
    assert abs(wrong.T @ wrong / n_samples - np.eye(5)).max() > 10 * np.sqrt(2 / n_samples)


def test_constant_weights_give_the_mixed_moments():
    n_samples = 40_000
    activation = np.log([0.5, 0.3, 0.2])
    simulation = simulate(
        n_samples, relative_activation=activation, amplitudes=np.zeros(3), means="random"
    )
    truth = np.tensordot([0.5, 0.3, 0.2], simulation.covariances, axes=1)
    found = np.cov(simulation.time_series, rowvar=False)
    scale = np.sqrt(np.diag(truth))
    np.testing.assert_allclose(
        found / np.outer(scale, scale),
        truth / np.outer(scale, scale),
        atol=5 * np.sqrt(2 / n_samples),
    )
    np.testing.assert_allclose(
        simulation.time_series.mean(axis=0) / scale,
        [0.5, 0.3, 0.2] @ simulation.means / scale,
        atol=5 / np.sqrt(n_samples),
    )


@pytest.mark.parametrize(
    ("n_covariances_act", "expected", "tolerance"),
    # 16 entries of variance 0.01; one row of 4 shifted by strength / 4. Two strengths, 1 and 5,
    # meet in one row with probability 1/4, where they add before they are squared.
    [(1, 0.16 + 1 / 4, 0.03), (2, 0.16 + 0.75 * 26 / 4 + 0.25 * 36 / 4, 0.3)],
)
def test_random_covariances_have_the_expected_trace(n_covariances_act, expected, tolerance):
    simulation = simulate(2, 400, 4, n_covariances_act=n_covariances_act)
    trace = np.trace(simulation.covariances, axis1=1, axis2=2).mean()
    assert trace == pytest.approx(expected, abs=tolerance)


def test_random_means_have_the_expected_spread():
    means = simulate(2, 100, 50, means="random").means
    assert means.std() == pytest.approx(0.2, rel=0.05)
    assert means.mean() == pytest.approx(0, abs=0.02)


def test_samples_do_not_depend_on_the_chunks(monkeypatch):
    whole = simulate(observation_error=0.1)
    monkeypatch.setattr(simulation_module, "_CHUNK_FLOATS", 7 * 16)
    pieces = simulate(observation_error=0.1)
    np.testing.assert_allclose(pieces.time_series, whole.time_series, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", [int, np.random.RandomState, np.random.default_rng])
def test_same_seed_same_bits(make):
    first, second, other = (
        simulate(means="random", observation_error=0.1, random_state=make(seed))
        for seed in (5, 5, 6)
    )
    for name in ("time_series", "mode_time_course", "means", "covariances", "phases"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_no_seed_differs_every_time():
    first, second = simulate(random_state=None), simulate(random_state=None)
    assert not np.array_equal(first.time_series, second.time_series)


@pytest.mark.parametrize("random_state", [None, 0])
def test_the_global_generator_is_neither_read_nor_moved(random_state):
    before = np.random.get_state()  # noqa: NPY002
    simulate(means="random", observation_error=0.1, random_state=random_state)
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    with pytest.raises(ValueError, match="global generator"):
        simulate(random_state=np.random)


def test_given_arrays_are_used_and_kept():
    means = np.arange(12.0).reshape(3, 4)
    covariances = np.stack([np.eye(4), 2 * np.eye(4), 3 * np.eye(4)])
    for array in (means, covariances):
        array.setflags(write=False)
    simulation = simulate(means=means, covariances=covariances)
    np.testing.assert_array_equal(simulation.means, means)
    np.testing.assert_array_equal(simulation.covariances, covariances)
    simulation.standardize()
    simulation.means[:] = 0
    simulation.covariances[:] = 0
    np.testing.assert_array_equal(means, np.arange(12.0).reshape(3, 4))
    np.testing.assert_array_equal(covariances[2], 3 * np.eye(4))


@pytest.mark.parametrize("observation_error", [0.0, 0.5])
def test_standardize_keeps_the_truth_true(observation_error):
    simulation = simulate(means="random", observation_error=observation_error)
    recording = simulation.time_series
    before, scale = log_density(simulation), recording.std(axis=0)
    copy = recording.copy()
    assert simulation.standardize() is simulation
    np.testing.assert_allclose(simulation.time_series.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(simulation.time_series.std(axis=0), 1, rtol=1e-12)
    # z = (x - m) / s has the density of x times the product of s.
    np.testing.assert_allclose(log_density(simulation), before + np.log(scale).sum(), rtol=1e-9)
    np.testing.assert_array_equal(recording, copy)


def test_standardize_needs_channels_that_vary():
    with pytest.raises(ValueError, match=r"Channels \[0, 1, 2, 3\] are constant"):
        simulate(n_samples=1).standardize()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_samples": 0}, "n_samples is 0"),
        ({"n_modes": 2.0}, "n_modes is 2.0"),
        ({"n_channels": True}, "n_channels is True"),
        ({"n_covariances_act": 0}, "n_covariances_act is 0"),
        (
            {"relative_activation": [1, 2]},
            r"relative_activation has shape \(2,\), but \(3,\) was expected",
        ),
        ({"amplitudes": [1, 2, np.nan]}, "amplitudes has NaN"),
        ({"frequencies": 1.0}, r"frequencies has shape \(\), but \(3,\) was expected"),
        ({"sampling_frequency": 0}, "sampling_frequency is 0"),
        ({"sampling_frequency": np.inf}, "sampling_frequency is inf"),
        ({"observation_error": -1.0}, "observation_error is -1.0"),
        ({"observation_error": "none"}, "observation_error is 'none'"),
        ({"means": "ones"}, "means is 'ones'"),
        ({"means": np.zeros((4, 3))}, r"means has shape \(4, 3\), but \(3, 4\) was expected"),
        ({"covariances": "zero"}, "covariances is 'zero'"),
        ({"covariances": np.zeros((3, 4))}, r"covariances has shape \(3, 4\)"),
        ({"covariances": -np.stack([np.eye(4)] * 3)}, r"covariances\[0\] has eigenvalues"),
        ({"covariances": np.triu(np.ones((3, 4, 4)))}, r"covariances\[0\] is not symmetric"),
    ],
)
def test_wrong_arguments_are_told(changes, message):
    with pytest.raises(ValueError, match=message):
        simulate(**changes)


# Surrogates


def cross_spectra(X):
    transform = np.fft.rfft(X, axis=0)
    return transform[:, :, None] * transform[:, None, :].conj()


@pytest.mark.parametrize("n_rows", [1, 2, 3, 200, 201])
def test_phase_randomized_keeps_cross_spectra(n_rows):
    X = np.cumsum(np.random.default_rng(0).standard_normal((n_rows, 3)), axis=0) + 5
    before = X.copy()
    surrogate = phase_randomized(X, random_state=0)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_allclose(cross_spectra(surrogate), cross_spectra(X), atol=1e-8 * n_rows**2)
    np.testing.assert_allclose(surrogate.mean(axis=0), X.mean(axis=0))
    if n_rows > 2:
        assert np.abs(surrogate - X).max() > 0.1
    np.testing.assert_array_equal(surrogate, phase_randomized(X, random_state=0))


def test_phase_randomized_makes_a_recording_stationary():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, 2)) * np.where(np.arange(4000) < 2000, 0.2, 2)[:, None]
    halves = np.split(phase_randomized(X, random_state=0), 2)
    np.testing.assert_allclose(halves[0].std(axis=0), halves[1].std(axis=0), rtol=0.1)


def test_phase_randomized_takes_sessions_in_every_form():
    X = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    sessions = np.repeat([0, 1, 2], 20)
    parts = np.split(X, 3)
    labelled = phase_randomized(X, sessions, random_state=0)
    listed, stacked = (phase_randomized(one, random_state=0) for one in (parts, np.stack(parts)))
    assert isinstance(listed, list) and stacked.shape == (3, 20, 3)
    assert labelled.dtype == np.float32
    np.testing.assert_array_equal(labelled, np.concatenate(listed))
    np.testing.assert_array_equal(labelled, np.concatenate(stacked))
    same = phase_randomized([parts[0]] * 2, random_state=0)
    assert np.abs(same[0] - same[1]).max() > 0.1  # each session has its own phases


def test_phase_randomized_refuses_what_is_no_recording():
    X = np.zeros((10, 2))
    with pytest.raises(ValueError, match="NaN"):
        phase_randomized(np.full((10, 2), np.nan))
    for bad in ([], [[]], np.zeros(5), 3.0, None, "a", np.zeros((0, 2)), np.zeros((0, 5, 2))):
        with pytest.raises((TypeError, ValueError), match="X"):
            phase_randomized(bad)
    with pytest.raises(ValueError, match="All sessions must have the same channels"):
        phase_randomized([X, X[:, :1]])
    with pytest.raises(ValueError, match=r"numpy\.random"):
        phase_randomized(X, random_state=np.random)
