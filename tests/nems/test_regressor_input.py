"""Input of NEMSRegressor: accepted forms, errors and warnings."""

import re

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from skdyn import NEMSRegressor
from skdyn.nems.layers import FiniteImpulseResponse, LevelShift, WeightChannels

RNG = np.random.default_rng(0)
X = RNG.standard_normal((240, 3))
Y = np.column_stack([X[:, 0] + np.roll(X[:, 1], 2), X[:, 2] - np.roll(X[:, 0], 1)])
Y += 0.3 * RNG.standard_normal(Y.shape)
y = Y[:, 0]
WEIGHT = RNG.integers(0, 3, 240)
SESSIONS = np.repeat([3, 1, 2], 80)
FILTER = "fir.3xx-lvl"

TARGETS = {"1-D": y, "one column": Y[:, :1], "2-D": Y}


def in_form(form, *arrays):
    """Three sessions as one array, a list or a stack."""
    if form == "array":
        return arrays
    parts = [np.split(one, 3) for one in arrays]
    return parts if form == "list" else [np.stack(one) for one in parts]


# Forms


@pytest.mark.parametrize("form", ["list", "stack"])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_sessions_in_every_form_are_the_same(form, kind, weight):
    target = TARGETS[kind]
    labelled = NEMSRegressor(FILTER).fit(X, target, weight, sessions=SESSIONS)
    flat = labelled.predict(X, sessions=SESSIONS)
    assert flat.shape == target.shape
    stimulus, response, weights = in_form(form, X, target, WEIGHT)
    weights = None if weight is None else weights
    model = NEMSRegressor(FILTER).fit(stimulus, response, weights)
    assert model.loss_ == labelled.loss_
    predictions = model.predict(stimulus)
    assert isinstance(predictions, list if form == "list" else np.ndarray)
    assert [one.shape for one in predictions] == [one.shape for one in response]
    np.testing.assert_array_equal(np.concatenate(predictions), flat)
    # Later rows and other sessions are no history.
    for one, prediction in zip(stimulus, predictions, strict=True):
        np.testing.assert_array_equal(model.predict(one), prediction)
    assert not np.allclose(model.predict(X), flat)
    score = model.score(stimulus, response, weights)
    assert score == labelled.score(X, target, weight, sessions=SESSIONS)


def test_sessions_may_have_different_lengths():
    cuts = [20, 150, 151]
    labels = np.repeat(list("abca"), [20, 130, 1, 89])
    parts = [np.split(one, cuts) for one in (X, Y)]
    model = NEMSRegressor(FILTER).fit(*parts)
    labelled = NEMSRegressor(FILTER).fit(X, Y, sessions=labels)
    np.testing.assert_array_equal(
        np.concatenate(model.predict(parts[0])), labelled.predict(X, sessions=labels)
    )
    assert [len(one) for one in model.predict(parts[0])] == [20, 130, 1, 89]


CONVERSIONS = {
    "fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    "nested lists": lambda a: a.tolist(),
    "objects": lambda a: a.astype(object),
    "float32": lambda a: a.astype(np.float32),
    "integers": lambda a: np.round(1e4 * a).astype(np.int32),
}


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_kinds_of_arrays(kind):
    stimulus, target = map(CONVERSIONS[kind], (X, Y))
    prediction = NEMSRegressor(FILTER).fit(stimulus, target).predict(stimulus)
    assert prediction.dtype == np.float64
    as_floats = np.asarray(stimulus, float), np.asarray(target, float)
    wanted = NEMSRegressor(FILTER).fit(*as_floats).predict(as_floats[0])
    np.testing.assert_array_equal(prediction, wanted)


def test_a_memory_map_that_is_read_only(tmp_path):
    np.save(tmp_path / "x.npy", X)
    stimulus = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = NEMSRegressor(FILTER).fit(stimulus, y)
    np.testing.assert_array_equal(
        model.predict(stimulus), NEMSRegressor(FILTER).fit(X, y).predict(X)
    )


@pytest.mark.parametrize("words", [None, "wc.x2-fir.2-relu.s"])
@pytest.mark.parametrize("parameters", [{}, {"early_stopping": True}], ids=str)
def test_nothing_of_the_callers_is_changed(words, parameters):
    given = [np.array(one) for one in (X, np.where(WEIGHT > 0, y, np.nan), WEIGHT, SESSIONS)]
    for one in given:
        one.flags.writeable = False
    before = joblib.hash(given)
    stimulus, target, weight, sessions = given
    model = NEMSRegressor(words, random_state=0, **parameters)
    model.fit(stimulus, target, weight, sessions=sessions)
    model.predict(stimulus, preceding=stimulus)[:] = 0
    model.score(stimulus, target, weight, sessions=sessions)
    assert joblib.hash(given) == before


FRAME = pd.DataFrame(X, np.arange(240) / 100, columns=["low", "middle", "high"])


def test_data_frames():
    labels, weight = pd.Series(SESSIONS.astype(str)), pd.Series(WEIGHT, index=FRAME.index)
    response = pd.DataFrame(Y, columns=["first", "second"])
    model = NEMSRegressor(FILTER).fit(FRAME, response, weight, sessions=labels)
    assert model.feature_names_in_.tolist() == ["low", "middle", "high"]
    plain = NEMSRegressor(FILTER).fit(X, Y, WEIGHT, sessions=SESSIONS)
    wanted = plain.predict(X, sessions=SESSIONS)
    np.testing.assert_array_equal(model.predict(FRAME, sessions=labels), wanted)
    score = model.score(FRAME, response, weight, sessions=labels)
    assert score == plain.score(X, Y, WEIGHT, sessions=SESSIONS)
    parts = [FRAME.iloc[:80], FRAME.iloc[80:160]]
    for one, rows in zip(model.predict(parts), (slice(80), slice(80, 160)), strict=True):
        np.testing.assert_array_equal(one, wanted[rows])
    tail = model.predict(FRAME.iloc[100:], preceding=FRAME.iloc[:100])
    np.testing.assert_allclose(tail, model.predict(FRAME)[100:], rtol=1e-12)
    names = FRAME.columns[[1, 0, 2]]
    for call in (model.predict, lambda one: model.score(one, response)):
        with pytest.raises(ValueError, match="feature names should match"):
            call(FRAME[names])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)


# Errors


def missing(array, value=np.nan):
    array = np.array(array)
    array.flat[17] = value
    return array


PARTS = [X[:100], X[100:]]
BAD_FITS = {
    "nan in X": (missing(X), y, {}, "Input X contains NaN"),
    "inf in X": (missing(X, np.inf), y, {}, "Input X contains infinity"),
    "nan in y": (X, missing(y), {}, "response, y or target, contains NaN .* sample_weight of 0"),
    "nan in y where there is weight": (
        X,
        missing(y),
        {"sample_weight": np.ones(240)},
        "contains NaN",
    ),
    "one axis": (X[:, 0], y, {}, "Expected 2D array, got 1D array"),
    "four axes": (X[None, None], y, {}, "dim 4"),
    "no rows": (X[:0], y[:0], {}, r"0 sample\(s\)"),
    "no channels": (X[:, :0], y, {}, r"0 feature\(s\)"),
    "text": (X.astype(str), y, {}, "numeric"),
    "no y": (X, None, {}, "requires y to be passed"),
    "text in y": (X, np.array(["a"] * 240), {}, "could not convert"),
    "short y": (X, y[1:], {}, r"inconsistent numbers of samples: X has 240 rows, but y .*239"),
    "three axes in y": (X, Y[..., None], {}, "dim 3"),
    "short weight": (
        X,
        y,
        {"sample_weight": np.ones(3)},
        r"samples: X has 240 rows, but sample_weight .*\(3,\)",
    ),
    "wide weight": (X, Y, {"sample_weight": np.ones((240, 3))}, r"\(240, 3\), but y has"),
    "negative weight": (X, y, {"sample_weight": -WEIGHT}, "below zero"),
    "infinite weight": (X, y, {"sample_weight": missing(np.ones(240), np.inf)}, "not finite"),
    "nan weight": (X, y, {"sample_weight": missing(np.ones(240))}, "not finite"),
    "no weight": (X, y, {"sample_weight": np.zeros(240)}, "sample_weight are zero"),
    "short labels": (X, y, {"sessions": SESSIONS[1:]}, "239 labels, but X has 240 rows"),
    "labels and list": (PARTS, [y], {"sessions": SESSIONS}, "sessions= was given as well"),
    "labels and stack": (X[None], y[None], {"sessions": SESSIONS}, "sessions= was given as well"),
    "fewer y": (PARTS, [y[:100]], {}, r"but X has sessions of \[100, 140\]"),
    "shorter y": (PARTS, [y[:100], y[:139]], {}, r"\[100, 139\] .*\[100, 140\]"),
    "y of a list in one": (PARTS, y, {}, "y"),
    "y of a stack in one": (X.reshape(3, 80, 3), y, {}, "y"),
    "no y of a list": (PARTS, None, {}, "requires y to be passed"),
    "widths of y": (PARTS, [y[:100], Y[100:]], {}, "same number of outputs"),
    "widths of X": ([X[:100], X[100:, :2]], [y[:100], y[100:]], {}, "Session 1 of 2: X has 2"),
    "nan in a session": ([X[:100], missing(X[100:])], [y[:100], y[100:]], {}, "Session 1 of 2"),
}


@pytest.mark.parametrize("kind", BAD_FITS)
def test_bad_data(kind):
    stimulus, target, options, message = BAD_FITS[kind]
    model = NEMSRegressor()
    with pytest.raises(ValueError, match=message):
        model.fit(stimulus, target, **options)
    assert not hasattr(model, "model_")
    assert model.fit(X, y).predict(X).shape == (240,)


TWO = WeightChannels((3, 2))
BAD_PARAMETERS = {
    "no layers": ({"layers": []}, "with at least one layer"),
    "no words": ({"layers": ""}, "Unknown word ''"),
    "unknown word": ({"layers": "wc-lvl-dxp"}, "Did you mean 'dexp'"),
    "words in a list": ({"layers": ["wc", "lvl"]}, "expected words, a layer"),
    "words in pairs": ({"layers": [("weights", "wc")]}, "expected words, a layer"),
    "classes": ({"layers": [WeightChannels]}, "expected words, a layer"),
    "some names": ({"layers": [("weights", TWO), LevelShift()]}, "expected words, a layer"),
    "a number": ({"layers": 3}, "'layers' parameter"),
    "name twice": ({"layers": [("one", TWO), ("one", LevelShift())]}, "not unique"),
    "name of a parameter": ({"layers": [("alpha", TWO)]}, "conflict with constructor"),
    "name of two words": ({"layers": [("a__b", TWO)]}, "must not contain __"),
    "outputs": (
        {"layers": "wc.x2-lvl"},
        r"has the shape \(240, 2\), but the response has \(240, 1\)",
    ),
    "channels": ({"layers": "wc.4x1"}, r"\(4, 1\).* \(240, 3\)"),
    "loss": ({"loss": "absolute"}, "'loss' parameter"),
    "loss of counts": ({"loss": "poisson"}, "requires counts of at least 0"),
    "solver": ({"solver": "sgd"}, "'solver' parameter"),
    "alpha": ({"alpha": -1.0}, "'alpha' parameter"),
    "init": ({"init": "zeros"}, "'init' parameter"),
    "n_init": ({"n_init": 0}, "'n_init' parameter"),
    "max_iter": ({"max_iter": 1.5}, "'max_iter' parameter"),
    "share": ({"validation_fraction": 1.0}, "'validation_fraction' parameter"),
    "batch": ({"batch_size": "all"}, "'batch_size' parameter"),
    "rate": ({"learning_rate": 0.0}, "'learning_rate' parameter"),
    "device": ({"device": "nonsense"}, "Use 'cpu'"),
    "device without index": ({"device": "cuda:99"}, "Use 'cpu'"),
}


@pytest.mark.parametrize("kind", BAD_PARAMETERS)
def test_bad_parameters(kind):
    parameters, message = BAD_PARAMETERS[kind]
    model = NEMSRegressor(**parameters)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)
    model.set_params(**NEMSRegressor().get_params())
    assert model.fit(X, y).n_iter_ == 1


def test_one_row():
    assert NEMSRegressor().fit(X[:1], y[:1]).predict(X[:1]) == pytest.approx(y[:1])
    with pytest.raises(ValueError, match="n_samples = 1; use at least 2 rows"):
        NEMSRegressor(early_stopping=True).fit(X[:1], y[:1])


def test_what_is_watched_needs_weight():
    weight = np.zeros(240)
    weight[5] = 1.0
    with pytest.raises(ValueError, match=r"none with weight .* early_stopping=False"):
        NEMSRegressor(early_stopping=True).fit(X, y, weight)


BAD_PREDICTIONS = {
    "width": ((X[:, :2],), {}, "X has 2 features, but NEMSRegressor is expecting 3"),
    "width in a list": (([X, X[:, :2]],), {}, "Session 1 of 2: X has 2 features"),
    "nan": ((missing(X),), {}, "contains NaN"),
    "one axis": ((X[:, 0],), {}, "Expected 2D array"),
    "no rows": ((X[:0],), {}, r"0 sample\(s\)"),
    "labels": ((X,), {"sessions": SESSIONS[:-1]}, "239 labels"),
    "width before": ((X,), {"preceding": X[:, :2]}, "X has 2 features"),
    "nan before": ((X,), {"preceding": missing(X)}, "contains NaN"),
    "fewer before": ((PARTS,), {"preceding": [X]}, "for 1 sessions, but X has 2"),
    "before labels": ((X,), {"sessions": SESSIONS, "preceding": X}, "for 1 sessions, but X has 3"),
}


@pytest.mark.parametrize("kind", BAD_PREDICTIONS)
def test_bad_predictions(kind):
    args, options, message = BAD_PREDICTIONS[kind]
    model = NEMSRegressor().fit(X, Y)
    with pytest.raises(ValueError, match=message):
        model.predict(*args, **options)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((X, y[1:]), r"240 rows, but y has the shape \(239,\)"),
        ((X, y), r"1 outputs, but the model was fitted with 2"),
        ((X, np.column_stack([Y, y])), r"outputs|\(240, 3\)|expected"),
        ((X, missing(Y)), "NaN"),
        ((X, Y, np.zeros(240)), "zero"),
        ((PARTS, Y), "y"),
        ((X, None), "requires y"),
    ],
    ids=["rows", "fewer outputs", "more outputs", "nan", "no weight", "list", "none"],
)
def test_bad_scores(args, message):
    model = NEMSRegressor().fit(X, Y)
    with pytest.raises(ValueError, match=message):
        model.score(*args)


def test_what_is_not_fitted_cannot_predict():
    for call in (lambda: NEMSRegressor().predict(X), lambda: NEMSRegressor().score(X, y)):
        with pytest.raises(NotFittedError):
            call()


class NotFollowed(LevelShift):
    """A layer with arithmetic outside torch."""

    def evaluate(self, stimulus):
        (shift,) = self.get_parameter_values("shift")
        return np.asarray(stimulus) + np.asarray(shift)


@pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning")
def test_a_layer_that_torch_cannot_follow_is_named():
    layers = [("filter", FiniteImpulseResponse((2, None))), ("own", NotFollowed())]
    with pytest.warns(UserWarning, match="torch cannot follow the layer 'own'"):
        model = NEMSRegressor(layers).fit(X, y)
    wanted = NEMSRegressor("fir.2-lvl").fit(X, y)
    assert model.score(X, y) == pytest.approx(wanted.score(X, y), abs=1e-3)
    with pytest.raises(ValueError, match=re.escape("torch cannot follow the layer 'own'")):
        NEMSRegressor(layers, solver="adam").fit(X, y)
