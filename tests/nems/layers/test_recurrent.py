"""Gated recurrent units against NumPy and torch's own layer."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skdyn import NEMSRegressor
from skdyn.nems.layers import GatedRecurrentUnit


def logistic(values):
    return 1 / (1 + np.exp(-values))


def by_numpy(layer, x):
    w, u, b, c = layer.get_parameter_values()
    h, rows = np.zeros(u.shape[0]), []
    for row in x:
        r, z = (logistic(row @ w[:, g] + h @ u[:, g] + b[g]) for g in (0, 1))
        n = np.tanh(row @ w[:, 2] + r * (h @ u[:, 2] + c) + b[2])
        h = (1 - z) * n + z * h
        rows.append(h)
    return np.array(rows)


def test_output_is_that_of_numpy_and_torch():
    rng = np.random.default_rng(0)
    layer, x = GatedRecurrentUnit((4, 5)).sample_from_priors(0), rng.standard_normal((50, 4))
    found = layer.evaluate(x)
    np.testing.assert_allclose(found, by_numpy(layer, x), rtol=1e-12, atol=1e-14)
    w, u, b, c = map(torch.from_numpy, layer.get_parameter_values())
    own = torch.nn.GRU(4, 5, dtype=torch.float64)
    with torch.no_grad():
        own.weight_ih_l0.copy_(w.flatten(1).T)
        own.weight_hh_l0.copy_(u.flatten(1).T)
        own.bias_ih_l0.copy_(b.flatten())
        own.bias_hh_l0.copy_(torch.cat([torch.zeros(10), c]))
        expected, _ = own(torch.from_numpy(x)[:, None])
    np.testing.assert_allclose(found, expected[:, 0].numpy(), rtol=1e-12, atol=1e-14)


def test_start_follows_the_units_of_the_input():
    x = np.random.default_rng(0).gamma(1.0, size=(200, 3))
    outputs = []
    for size in (1.0, 1e6):
        layer = GatedRecurrentUnit((3, 4))
        layer.set_parameter_values(layer.start_from(np.random.RandomState(0), size * x))
        outputs.append(layer.evaluate(size * x))
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-9)
    assert np.abs(np.corrcoef(outputs[0].T) - np.eye(4)).max() < 0.99


def test_fit_learns_a_response_that_adapts():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.gamma(0.5, size=(200, 1)), 5, axis=0)
    strength, y = 1.0, np.empty(1000)
    for row, value in enumerate(X[:, 0]):
        y[row] = value * strength
        strength += 0.1 * (1 - strength) - 0.2 * value * strength
        strength = max(strength, 0)
    X, y = X.reshape(10, 100, 1), y.reshape(10, 100)
    model = NEMSRegressor("gru.x6-wc-lvl", random_state=0, max_iter=60, history="zeros")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X[:7], y[:7])
    linear = NEMSRegressor("fir.20-lvl", history="zeros").fit(X[:7], y[:7])
    assert model.score(X[7:], y[7:]) > max(0.9, linear.score(X[7:], y[7:]) + 0.02)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match=r"\(n_in, n_units\)"):
        GatedRecurrentUnit((3,))
