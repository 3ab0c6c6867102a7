"""Gains by the size of the pupil and a task, recovered through scikit-learn's tools."""

import numpy as np
import pytest
import sklearn
from scipy.signal import lfilter
from sklearn import config_context
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.fixes import parse_version

from skdyn import NEMSRegressor
from skdyn.nems import Layer, from_keywords
from skdyn.nems.layers import (
    FIR,
    DoubleExponential,
    LevelShift,
    Multiply,
    Select,
    StateGain,
    WeightChannels,
)

GAIN = np.array([0.3, 0.5])
WORDS = "wc.x1-fir.8-lvl-dexp-stategain"
FOLDS = KFold(3)
# Before, a search over a pipeline gives metadata to fit alone.
PIPELINES_ARE_TOLD = parse_version(sklearn.__version__) >= parse_version("1.8")


def simulated(n_samples=6000, seed=0):
    """Sound, states and the response of a neuron; both states increase its gain."""
    rng = np.random.default_rng(seed)
    X = np.minimum(np.repeat(rng.gamma(0.4, size=(n_samples // 5, 6)), 5, axis=0), 3)
    pupil = lfilter([0.05], [1, -0.95], rng.standard_normal(n_samples))
    task = (np.arange(n_samples) // 500) % 2
    state = np.column_stack([pupil / pupil.std(), task])
    drive = lfilter([0.2, 0.6, 0.3, -0.2, -0.1], [1], X @ rng.uniform(-0.3, 1, 6))
    rate = 1.5 / (1 + np.exp(-1.5 * (drive - 0.8)))
    y = (1 + state @ GAIN) * rate + state @ [0.1, -0.05] + 0.1 * rng.standard_normal(n_samples)
    return X, y, state


@pytest.fixture(scope="module")
def data():
    return simulated()


def relative_gains(model):
    gain = model.model_.layers[-1]["gain"].values[:, 0]
    return gain[1:] / gain[0]


def test_gains_are_recovered_and_predict_held_out_rows(data):
    X, y, state = data
    train, test = slice(0, 4500), slice(4500, None)
    model = NEMSRegressor(WORDS).fit(X[train], y[train], state=state[train])
    np.testing.assert_allclose(relative_gains(model), GAIN, rtol=0.05)
    plain = NEMSRegressor("wc.x1-fir.8-lvl-dexp").fit(X[train], y[train])
    score = model.score(X[test], y[test], state=state[test])
    assert score > plain.score(X[test], y[test]) + 0.05


def test_gains_are_recovered_through_a_pipeline_and_a_search(data):
    X, y, state = data
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), NEMSRegressor(WORDS))
        pipeline.fit(X, y, state=state)
        np.testing.assert_allclose(relative_gains(pipeline[-1]), GAIN, rtol=0.05)
        assert pipeline.score(X, y, state=state) > 0.9
        scores = cross_validate(NEMSRegressor(WORDS), X, y, cv=FOLDS, params={"state": state})
        assert scores["test_score"].min() > 0.9
        if not PIPELINES_ARE_TOLD:
            return
        grid = {"nemsregressor__alpha": [0.0, 3.0]}
        search = GridSearchCV(pipeline, grid, cv=FOLDS, refit=True)
        search.fit(X, y, state=state)
        best = search.best_estimator_
        assert search.best_params_ == {"nemsregressor__alpha": 0.0}
        np.testing.assert_allclose(relative_gains(best[-1]), GAIN, rtol=0.05)
        assert best.predict(X, state=state).shape == y.shape
        assert search.best_score_ > 0.9


def test_layers_with_names_are_searched_with_their_states(data):
    X, y, state = data
    named = [
        ("weigh", WeightChannels((None, 1))),
        ("filter", FIR((8, None))),
        ("level", LevelShift()),
        ("curve", DoubleExponential()),
        ("gain", StateGain()),
    ]
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            NEMSRegressor(named), {"filter__shape": [(1, None), (8, None)]}, cv=FOLDS
        )
        search.fit(X, y, state=state)
    assert search.best_params_["filter__shape"] == (8, None)
    np.testing.assert_allclose(relative_gains(search.best_estimator_), GAIN, rtol=0.05)


def test_states_can_be_columns_of_the_stimulus(data):
    """The plain way, which needs no routing."""
    X, y, state = data
    both = np.hstack([X, state])
    layers = [
        Select([6, 7], output="state"),
        Select(range(6), input="input"),
        *from_keywords(WORDS),
    ]
    scale = ColumnTransformer([("sound", StandardScaler(), slice(0, 6))], remainder="passthrough")
    pipeline = make_pipeline(scale, NEMSRegressor(layers))
    search = GridSearchCV(pipeline, {"nemsregressor__alpha": [0.0]}, cv=FOLDS).fit(both, y)
    assert search.best_score_ > 0.9
    np.testing.assert_allclose(relative_gains(search.best_estimator_[-1]), GAIN, rtol=0.05)


# Streams


def two_streams(n_samples=600):
    rng = np.random.default_rng(1)
    X, other = rng.standard_normal((2, n_samples, 2))
    y = (X @ [1.0, -0.5]) * (1 + 0.5 * other[:, 0])
    return X, y, other


def gated():
    return [
        WeightChannels((None, 1), input="other", output="gate"),
        LevelShift(input="gate", output="gate1"),
        WeightChannels((None, 1), input="input", output="drive"),
        Multiply(input=["drive", "gate1"]),
    ]


def test_structured_streams_are_sliced_along_with_the_stimulus():
    X, y, other = two_streams()
    streams = np.empty(len(X), dtype=[("other", float, (2,))])
    streams["other"] = other
    model = NEMSRegressor(gated(), init="prior_sample", n_init=3, random_state=0)
    by_dict = model.fit(X, y, streams={"other": other}).predict(X, streams={"other": other})
    np.testing.assert_array_equal(
        model.fit(X, y, streams=streams).predict(X, streams=streams), by_dict
    )
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), model)
        pipeline.fit(X, y, streams=streams)
        assert pipeline.score(X, y, streams=streams) > 0.99
        search = GridSearchCV(model, {"alpha": [0.0]}, cv=FOLDS).fit(X, y, streams=streams)
        assert search.best_score_ > 0.99


def test_streams_of_another_form_are_refused():
    X, y, other = two_streams()
    with pytest.raises(TypeError, match="must be a dict of arrays, or a structured array"):
        NEMSRegressor(gated()).fit(X, y, streams=other)


def test_several_streams_reach_sessions_one_by_one():
    X, y, other = two_streams()
    model = NEMSRegressor(gated(), init="prior_sample", n_init=3, random_state=0)
    parts = [list(one.reshape(3, 200, -1)) for one in (X, other)]
    model.fit(parts[0], list(y.reshape(3, 200)), streams={"other": parts[1]})
    predicted = model.predict(parts[0], streams={"other": parts[1]})
    assert [len(one) for one in predicted] == [200] * 3
    assert model.score(X, y, streams={"other": other}) > 0.99


def test_state_is_needed_where_a_layer_takes_one():
    X, y, _ = simulated(600)
    with pytest.raises(ValueError, match="'state'"):
        NEMSRegressor(WORDS).fit(X, y)


def test_layers_of_a_user_can_modulate_by_states(data):
    """The start initialises the earlier layers as if there were no states."""

    class ByTask(Layer):
        n_past = 0
        modulates = True
        state_arg = "state"

        def evaluate(self, values, state):
            return values * (1 + 0.5 * state[:, 1:])

    X, y, state = data
    layers = [*from_keywords("wc.x1-fir.8-lvl-dexp"), ByTask()]
    model = NEMSRegressor(layers).fit(X, y, state=state)
    plain = NEMSRegressor("wc.x1-fir.8-lvl-dexp").fit(X, y)
    assert model.score(X, y, state=state) > plain.score(X, y) + 0.02
