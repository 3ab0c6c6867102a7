"""Filters of poles and zeros against SciPy's discrete systems."""

import numpy as np
import pytest
from scipy.signal import dimpulse, lfilter

from skdyn import NEMSRegressor
from skdyn.nems import from_keywords
from skdyn.nems.layers import FIR, PoleZeroFilter


def by_scipy(poles, zeros, gain, delay, n_lags, rate):
    """Impulse response at five times the rate, later by the delay, interpolated."""
    times = np.arange(5 * n_lags + 1) / (5 * rate)
    _, (response,) = dimpulse((zeros, poles, gain, 1 / (5 * rate)), t=times)
    wanted = (np.arange(n_lags) + 1) / rate - delay
    return np.interp(wanted, times, response[:, 0], left=0, right=0)


@pytest.mark.parametrize(("n_poles", "n_zeros"), [(1, 0), (2, 1), (3, 3), (5, 2)])
def test_responses_are_those_of_scipy(n_poles, n_zeros):
    layer = PoleZeroFilter((8, 2, 3), n_poles=n_poles, n_zeros=n_zeros, sampling_frequency=50)
    layer.sample_from_priors(0)
    p = layer.get_parameter_values(as_dict=True)
    found = layer.responses()
    for rank, unit in np.ndindex(2, 3):
        at = rank, unit
        expected = by_scipy(p["poles"][at], p["zeros"][at], p["gains"][at], p["delays"][at], 8, 50)
        np.testing.assert_allclose(found[:, rank, unit], expected, rtol=1e-9, atol=1e-12)
    x = np.random.default_rng(0).standard_normal((40, 2, 3))
    plain = FIR((8, 2, 3), values={"coefficients": found})
    np.testing.assert_allclose(layer.evaluate(x), plain.evaluate(x))


@pytest.mark.parametrize("words", ["pz.15-lvl", "wc.x1-pz.15x1.p2.z1-lvl"])
def test_fit_recovers_an_exponential_response(words):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1500, 2))
    y = 2 * lfilter([1.0], [1, -0.6], X @ [1.0, -0.5])
    model = NEMSRegressor(words, random_state=0, max_iter=200, tol=1e-5).fit(X[:1000], y[:1000])
    assert np.corrcoef(model.predict(X[1000:]), y[1000:])[0, 1] > 0.99


def test_word_says_poles_zeros_and_rate():
    (layer,) = from_keywords("pz.15x3.p3.z2.fs50.s2")
    assert (layer.n_poles, layer.n_zeros, layer.sampling_frequency, layer.stride) == (3, 2, 50, 2)


@pytest.mark.parametrize(
    "options", [{"n_poles": 6}, {"n_poles": 0}, {"n_zeros": 3}, {"n_zeros": 1.5}]
)
def test_impossible_numbers_are_refused(options):
    with pytest.raises(ValueError, match="must be a whole number from"):
        PoleZeroFilter((5, 1), **options)
