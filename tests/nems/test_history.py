"""Filters of the past response: against sums, SciPy, recovery of known filters, and leaks."""

import numpy as np
import pytest
from scipy.signal import lfilter
from sklearn.linear_model import LinearRegression

from skdyn import NEMSRegressor
from skdyn.nems import Model, from_keywords, to_keywords
from skdyn.nems.layers import FiniteImpulseResponse, ResponseHistory, Sum

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1200, 3))


def history(n_lags, n_outputs, coupled, seed=1):
    layer = ResponseHistory((n_lags, n_outputs), coupled=coupled)
    shape = layer["coefficients"].shape
    layer["coefficients"] = 0.3 * np.random.default_rng(seed).standard_normal(shape)
    values = layer["coefficients"].values
    own = np.einsum("lk,jk->ljk", values, np.eye(n_outputs)) if not coupled else values
    return layer, own


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("n_rows", [1, 3, 40])
def test_history_is_the_sum_over_the_past(coupled, n_rows):
    layer, filters = history(5, 3, coupled)
    drive, response = RNG.standard_normal((2, n_rows, 3))
    expected = drive.copy()
    for row in range(n_rows):
        for lag in range(1, min(5, row) + 1):
            expected[row] += response[row - lag] @ filters[lag - 1]
    np.testing.assert_allclose(layer.evaluate(drive, response=response), expected, atol=1e-12)
    response[0] = np.nan
    missing = layer.evaluate(drive, response=response)
    np.testing.assert_allclose(missing, layer.evaluate(drive, response=np.nan_to_num(response)))


def test_feedback_of_predictions_is_a_recursive_filter():
    layer, filters = history(4, 1, False)
    model = Model([*from_keywords("wc.3x1"), layer])
    model.layers["wc"]["coefficients"] = [[1], [2], [-1]]
    drive = X @ [1, 2, -1]
    expected = lfilter([1], [1, *-filters[:, 0, 0]], drive)
    np.testing.assert_allclose(model.simulate(X)[:, 0], expected, atol=1e-10)


@pytest.mark.parametrize("coupled", [False, True])
def test_one_step_fits_are_regressions_on_the_past(coupled):
    Y = np.abs(RNG.standard_normal((1200, 2))).cumsum(axis=0) % 3
    past = np.hstack([np.vstack([np.zeros((lag, 2)), Y[:-lag]]) for lag in (1, 2)])
    words = "wc.x-lvl-hist.2.c" if coupled else "wc.x-lvl-hist.2"
    model = NEMSRegressor(words, history="zeros", tol=1e-10).fit(X, Y)
    predicted = model.predict(X, streams={"response": Y})
    for output in range(2):
        seen = past if coupled else past[:, output::2]
        design = np.hstack([X, seen])
        expected = LinearRegression().fit(design, Y[:, output]).predict(design)
        np.testing.assert_allclose(predicted[:, output], expected, atol=1e-4)
    left = np.mean((predicted - Y) ** 2, axis=0) / Y.var(axis=0)
    assert model.score(X, Y) == pytest.approx(np.mean(1 - left))
    np.testing.assert_allclose(model.predict(X), model.model_.simulate(X), atol=1e-12)


def test_filters_of_simulated_spikes_are_recovered():
    truth = Model(from_keywords("wc.3x2-lvl.2-hist.3x2.c-srelu.2"))
    filters = np.zeros((3, 2, 2))
    filters[:, 0, 0], filters[:, 1, 1], filters[:, 0, 1] = [-2, -1, -0.3], [-1, 0, 0], [0.8, 0.4, 0]
    truth.evaluate({"input": X, "response": np.zeros((1200, 2))})
    truth.set_parameter_values({"hist": {"coefficients": filters}, "lvl": {"shift": [0.3, -0.2]}})
    stimulus = np.random.default_rng(3).standard_normal((8000, 3))
    Y = truth.simulate(stimulus, n_draws=1, random_state=0)[0]
    model = NEMSRegressor("wc.x-lvl-hist.3.c-srelu", loss="poisson").fit(stimulus, Y)
    found = model.model_.layers["hist"]["coefficients"].values
    np.testing.assert_allclose(found, filters, atol=0.2)
    again = model.simulate(stimulus[:2000], n_draws=3, random_state=0)
    assert len(again) == 3
    assert again[0].shape == (2000, 2)
    rates = np.mean([one.mean(axis=0) for one in again], axis=0)
    np.testing.assert_allclose(rates, Y.mean(axis=0), rtol=0.1)
    same = model.simulate(stimulus[:2000], n_draws=3, random_state=0)
    np.testing.assert_array_equal(again, same)


def test_no_row_sees_the_present_or_the_future_of_the_response():
    Y = RNG.poisson(1.0, (300, 2)).astype(float)
    model = NEMSRegressor("wc.x-hist.3.c-srelu").fit(X[:300], Y)
    before = model.predict(X[:300], streams={"response": Y})
    changed = Y.copy()
    changed[100:] += 5
    after = model.predict(X[:300], streams={"response": changed})
    np.testing.assert_array_equal(after[:101], before[:101])
    assert (after[101] != before[101]).all()


def test_sessions_have_no_past_in_common():
    Y = RNG.poisson(1.0, (300, 2)).astype(float)
    parts = [X[:120], X[120:300]], [Y[:120], Y[120:]]
    model = NEMSRegressor("wc.x-hist.3-srelu", history="zeros").fit(*parts)
    alone = [model.predict(one) for one in parts[0]]
    for one, other in zip(model.predict(parts[0]), alone, strict=True):
        np.testing.assert_array_equal(one, other)
    labels = np.repeat([0, 1], [120, 180])
    np.testing.assert_array_equal(model.predict(X[:300], sessions=labels), np.concatenate(alone))
    assert [one.shape for one in model.simulate(parts[0], 2)[1]] == [(120, 2), (180, 2)]


def test_a_filter_with_a_range_of_lags_takes_the_response_too():
    y = lfilter([1], [1, -0.6], X[:, 0])
    past = FiniteImpulseResponse(
        (None, 1), tmin=1, tmax=2, sampling_frequency=1, input="response", output="past"
    )
    layers = [*from_keywords("wc.3x1"), past, Sum(input=["drive", "past"])]
    layers[0].output = "drive"
    model = NEMSRegressor(layers, tol=1e-10).fit(X, y)
    found = model.model_.layers[1]["coefficients"].values.ravel()
    np.testing.assert_allclose(found, [0.6, 0], atol=1e-3)
    np.testing.assert_allclose(model.predict(X)[100:], y[100:], atol=1e-2)
    leaking = FiniteImpulseResponse((2, 1), input="response")
    with pytest.raises(ValueError, match="takes the response at lag 0, which is what the model"):
        NEMSRegressor([leaking]).fit(X, y)


def test_model_fit_takes_the_response_from_the_target():
    y = lfilter([1], [1, -0.6], X[:, 0])
    fitted = Model(from_keywords("wc.x1-hist.1")).fit(X, y, verbose=0, tol=1e-10, init="auto")
    assert fitted.layers["hist"]["coefficients"].values[0, 0] == pytest.approx(0.6, abs=1e-3)


def test_what_feedback_cannot_do():
    y = X[:, 0]
    with pytest.raises(ValueError, match="simulate is for models with a layer that takes the past"):
        NEMSRegressor("wc-lvl").fit(X, y).simulate(X)
    with pytest.raises(ValueError, match="model with a stride"):
        NEMSRegressor("fir.3.s2-hist.2").fit(X, y)
    with pytest.raises(ValueError, match="preceding has rows of X alone"):
        NEMSRegressor("wc-hist.2").fit(X, y, preceding=X[:5])
    with pytest.raises(ValueError, match="Give a response for each output"):
        history(2, 3, True)[0].evaluate(X, response=X[:, :2])
    with pytest.raises(ValueError, match="n_outputs is not known"):
        Model([ResponseHistory((2, None))]).simulate(X)
    assert to_keywords(from_keywords("hist.20x3.c.l2:2")) == "hist.20x3.c.l2:2"
