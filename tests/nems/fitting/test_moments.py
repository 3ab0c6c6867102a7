"""Second moments at several lags, against the matrix of all lags, written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdyn.nems.fitting import moments
from skdyn.nems.fitting.moments import lagged_moments, lagged_products, lagged_sums
from skdyn.nems.fitting.trials import Trial

# Shapes of weights, of one trial of n rows and k outputs.
WEIGHTS = {
    "one": lambda rng, n, k: np.ones((n, 1)),
    "the same": lambda rng, n, k: np.full((n, 1), 2.5),
    "varied": lambda rng, n, k: rng.uniform(0.1, 2, (n, 1)),
    "often zero": lambda rng, n, k: rng.integers(0, 2, (n, 1)).astype(float),
    "per output": lambda rng, n, k: rng.uniform(0, 2, (n, k)),
}


def written_out(stimulus, n_lags):
    """Row t holds x[t], x[t - 1], ..., one after the other."""
    n_samples, n_channels = stimulus.shape
    design = np.zeros((n_samples, n_lags, n_channels))
    for row in range(n_samples):
        for lag in range(min(n_lags, row + 1)):
            design[row, lag] = stimulus[row - lag]
    return design.reshape(n_samples, -1)


def make_trials(lengths, n_channels=2, n_outputs=1, kind="one", seed=0, name="input"):
    rng = np.random.default_rng(seed)
    return [
        Trial(
            {name: 1 + rng.standard_normal((n, n_channels))},
            rng.standard_normal((n, n_outputs)) - 2,
            WEIGHTS[kind](rng, n, n_outputs),
        )
        for n in lengths
    ]


def check(trials, n_lags, centred=True, **options):
    found = lagged_moments(trials, n_lags, centred=centred, **options)
    name = options.get("name", "input")
    design = np.concatenate([written_out(trial.data[name], n_lags) for trial in trials])
    target = np.concatenate([trial.target for trial in trials])
    weight = np.concatenate([trial.weight.mean(axis=1) for trial in trials])
    means = [np.average(part, axis=0, weights=weight) * centred for part in (design, target)]
    left, right = design - means[0], target - means[1]
    close = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(found.stimulus, (left.T * weight) @ left / weight.sum(), **close)
    np.testing.assert_allclose(found.response, (left.T * weight) @ right / weight.sum(), **close)
    np.testing.assert_allclose(found.stimulus_mean, means[0], **close)
    np.testing.assert_allclose(found.response_mean, means[1], **close)
    assert found.n_lags == n_lags


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    n_lags=st.integers(1, 8),
    n_channels=st.integers(1, 3),
    n_outputs=st.integers(1, 2),
    kind=st.sampled_from([kind for kind in WEIGHTS if kind != "often zero"]),
    centred=st.booleans(),
)
def test_moments_are_those_of_the_lags_written_out(
    lengths, n_lags, n_channels, n_outputs, kind, centred
):
    check(make_trials(lengths, n_channels, n_outputs, kind), n_lags, centred)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_long_trials_go_in_pieces(kind, monkeypatch):
    trials = make_trials((70, 3, 41), n_outputs=2, kind=kind)
    for most in (1, 50, 4_000_000):
        monkeypatch.setattr(moments, "NUMBERS_AT_ONCE", most)
        check(trials, 5)


def test_a_stimulus_has_the_name_that_it_is_given():
    check(make_trials((20, 9), kind="varied", name="sound"), 4, name="sound")


def test_trials_of_one_weight_each_that_differ_are_told_apart():
    low, high = make_trials((30, 30))
    check([low, Trial(high.data, high.target, 3 * high.weight)], 4)
    # The first row of no weight is no reason to take all for weightless.
    check([Trial(low.data, low.target, 0 * low.weight), high], 4)


@settings(max_examples=50, deadline=None)
@given(n_samples=st.integers(1, 12), n_lags=st.integers(1, 8), seed=st.integers(0, 99))
def test_sums_are_a_filter_and_products_their_transpose(n_samples, n_lags, seed):
    rng = np.random.default_rng(seed)
    stimulus, response = rng.standard_normal((n_samples, 2)), rng.standard_normal((n_samples, 3))
    coefficients = rng.standard_normal((2 * n_lags, 3))
    design = written_out(stimulus, n_lags)
    sums = lagged_sums(stimulus, coefficients, n_lags)
    products = lagged_products(stimulus, response, n_lags)
    np.testing.assert_allclose(sums, design @ coefficients, atol=1e-12)
    np.testing.assert_allclose(products, design.T @ response, atol=1e-12)
    assert np.sum(sums * response) == pytest.approx(np.sum(coefficients * products), abs=1e-10)
