"""Normalisation: statistics are taken where a fit starts, and stay."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skdyn import NEMSRegressor
from skdyn.nems import Model, from_keywords
from skdyn.nems.layers import BatchNormalization, OutputNormalization


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = 5 + 3 * rng.standard_normal((400, 3))
    return X, np.maximum(X @ [1.0, -1.0, 0.5] - 2, 0)


def test_outputs_are_those_of_numpy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 2))
    mean, sd, gain, offset = rng.uniform(1, 2, (4, 2))
    layer = BatchNormalization((2,))
    layer.set_parameter_values(mean=mean, sd=sd, gain=gain, offset=offset)
    np.testing.assert_allclose(layer.evaluate(x), gain * (x - mean) / sd + offset)
    layer = OutputNormalization((2,), values={"sd": sd})
    np.testing.assert_allclose(layer.evaluate(x), x / sd)


@pytest.mark.parametrize("init", ["auto", "prior_mean", "prior_sample"])
@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_statistics_are_those_of_what_goes_in(data, init, solver):
    X, y = data
    model = NEMSRegressor("bn-wc.x1-lvl", init=init, solver=solver, max_iter=5, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    layer = model.model_.layers[0]
    np.testing.assert_allclose(layer["mean"].values, X.mean(axis=0))
    np.testing.assert_allclose(layer["sd"].values, X.std(axis=0))
    # One row at a time is the same as all at once.
    np.testing.assert_allclose(model.predict(X)[7], model.predict(X[7:8])[0])


def test_values_that_are_given_or_permanent_stay(data):
    X, y = data
    layers = from_keywords("bn.3-wc.3x1-lvl.1")
    layers[0].set_parameter_values(mean=[1, 2, 3], sd=[4, 5, 6])
    fitted = Model(layers).fit(X, y, verbose=0, init="given")
    assert fitted.layers[0]["mean"].values.tolist() == [1, 2, 3]
    layers[0].set_permanent_values(mean=[1, 2, 3], sd=[4, 5, 6])
    fitted = Model(layers).fit(X, y, verbose=0, init="auto")
    assert fitted.layers[0]["sd"].values.tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    "words",
    ["wc.x1-bn-lvl", "wc.x4-bn-relu-wc-lvl", "wc.x4-relu.s-norm-wc-lvl", "wc.x2-bn-wc-lvl-dexp"],
)
def test_start_and_fit_are_as_good_as_without(data, words):
    X, y = data
    plain = words.replace("-bn", "").replace("-norm", "")
    scores = [
        NEMSRegressor(one, random_state=0, max_iter=150).fit(X, y).score(X, y)
        for one in (words, plain)
    ]
    assert scores[0] > scores[1] - 0.01


def test_predictions_do_not_change_where_the_layer_takes_its_statistics(data):
    X, _ = data
    rng = np.random.default_rng(1)
    layer = BatchNormalization((3,))
    layer.set_parameter_values(gain=rng.uniform(1, 2, 3), offset=rng.standard_normal(3))
    before = layer.evaluate(X)
    layer.set_parameter_values(layer.start_from(None, X))
    np.testing.assert_allclose(layer.evaluate(X), before, rtol=1e-12)
    assert (layer.parameters["mean"].is_frozen, layer["sd"].is_frozen) == (True, True)


def test_channels_without_variance_keep_their_size():
    layer = OutputNormalization((2,))
    found = layer.start_from(None, np.column_stack([np.ones(10), np.arange(10.0)]))
    assert found["sd"][0] == 1
