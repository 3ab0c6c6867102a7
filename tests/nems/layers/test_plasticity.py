"""Short-term plasticity against a loop in plain Python, and the meaning of its parameters."""

import time

import numpy as np
import pytest
import torch

from skdyn import NEMSRegressor
from skdyn.nems import Model, from_keywords
from skdyn.nems.layers import ShortTermPlasticity


def by_loop(x, u, tau, rate):
    """Row by row, as the class describes it."""
    strength, output = np.ones(x.shape[1]), np.empty_like(x)
    for row, values in enumerate(x):
        output[row] = values * strength
        lost = u * np.maximum(values, 0) * strength
        strength = np.clip(strength + (1 - strength) / (tau * rate) - lost, 0, 5)
    return output


def made(n_channels, u, tau, rate=100):
    values = {"u": np.broadcast_to(u, n_channels), "tau": np.broadcast_to(tau, n_channels)}
    return ShortTermPlasticity((n_channels,), sampling_frequency=rate, values=values)


@pytest.mark.parametrize("u", [0.02, 0.9, 30.0, -0.05, -2.0])
@pytest.mark.parametrize("rate", [40, 100])
def test_output_is_that_of_a_loop(u, rate):
    rng = np.random.default_rng(0)
    x = rng.gamma(1.0, size=(3000, 5)) - 0.1
    tau = rng.uniform(0.03, 0.5, 5)
    found = made(5, u, tau, rate).evaluate(x)
    np.testing.assert_allclose(found, by_loop(x, u, tau, rate), rtol=0, atol=1e-10)


def test_recovery_takes_tau_seconds_at_any_rate():
    for rate in (50, 1000):
        x = np.zeros((rate, 1))
        x[0] = 1
        strength = made(1, 0.5, 0.2, rate).strength(x)[:, 0]
        seconds = (np.arange(1, rate) - 1) / rate
        np.testing.assert_allclose(
            1 - strength[1:], 0.5 * np.exp(-seconds / 0.2), rtol=0, atol=1.5 / rate
        )


def test_steady_input_depresses_and_facilitates_to_the_fixed_point():
    x = np.ones((2000, 1))
    for u in (0.1, -0.02):
        strength = made(1, u, 0.3).strength(x)
        assert strength[-1, 0] == pytest.approx(1 / (1 + u * 30))
        assert np.all(np.diff(strength[:, 0]) * np.sign(u) <= 1e-12)


def test_trials_at_once_each_begin_at_rest():
    rng = np.random.default_rng(1)
    x = rng.gamma(1.0, size=(4, 50, 3))
    layer = made(3, 0.2, 0.1)
    expected = np.concatenate([layer.evaluate(one) for one in x])
    layer.n_trials = 4
    np.testing.assert_array_equal(layer.evaluate(x.reshape(200, 3)), expected)


def test_a_minute_of_twenty_channels_takes_less_than_a_tenth_of_a_second():
    x = torch.tensor(np.random.default_rng(0).gamma(1.0, size=(6000, 20)), requires_grad=True)
    layer = made(20, 0.025, 0.25)
    leaves = {
        name: torch.tensor(p.values, requires_grad=True) for name, p in layer.parameters.items()
    }
    spent = []
    for _ in range(3):
        start = time.process_time()
        with layer.tensors(leaves):
            layer.evaluate(x).square().sum().backward()
        spent.append(time.process_time() - start)
    assert min(spent) < 0.1


@pytest.mark.parametrize("words", ["stp-fir.6-lvl", "wc.x1.g-stp-fir.6-lvl-dexp", "fir.6-stp-lvl"])
def test_fit_recovers_a_depressing_synapse(words):
    rng = np.random.default_rng(0)
    X = np.repeat(np.minimum(rng.gamma(0.3, size=(300, 3)), 3), 10, axis=0)
    truth = Model(from_keywords(words))
    truth.take_outputs(1)
    truth.take_sizes({"input": X})
    truth = truth.sample_from_priors(random_state=3)
    layer = truth.layers["stp"]
    layer.set_parameter_values(
        u=np.linspace(0.2, 0.3, layer.shape[0]), tau=np.linspace(0.1, 0.3, layer.shape[0])
    )
    if "fir.6-stp" in words:
        truth.layers["fir"]["coefficients"] = np.abs(truth.layers["fir"]["coefficients"].values)
    clean = truth.predict(X)[:, 0]
    y = clean + 0.1 * clean.std() * rng.standard_normal(len(X))
    model = NEMSRegressor(words, random_state=0, max_iter=200, tol=1e-5).fit(X[:2000], y[:2000])
    assert np.corrcoef(model.predict(X[2000:]), clean[2000:])[0, 1] > 0.99


@pytest.mark.parametrize("rate", [0, -1, np.inf, "fast", True])
def test_sampling_frequency_must_be_positive(rate):
    with pytest.raises(ValueError, match="sampling_frequency must be a positive number"):
        ShortTermPlasticity((1,), sampling_frequency=rate)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ValueError, match=r"\(n_samples, 3\) was expected"):
        made(3, 0.1, 0.1).evaluate(np.zeros((5, 2)))
