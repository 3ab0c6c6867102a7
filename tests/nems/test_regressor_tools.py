"""NEMSRegressor with other tools: parameters of layers, searches, pipelines, files."""

import pickle

import joblib
import numpy as np
import pytest
import sklearn
from sklearn import clone, config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, KFold, LeaveOneGroupOut, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr
from sklearn.utils.fixes import parse_version

from skdyn import NEMSRegressor
from skdyn.nems import from_keywords
from skdyn.nems.layers import FiniteImpulseResponse, LevelShift, WeightChannels

RNG = np.random.default_rng(0)
X = RNG.standard_normal((240, 3))
# Of rank one, with two lags.
SOURCE = X @ [1.0, -0.5, 0.2]
y = SOURCE + 0.7 * np.roll(SOURCE, 1) + 0.5 * RNG.standard_normal(240) + 3
SESSIONS = np.repeat(list("abcdef"), 40)

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__qualname__}"
)


def pairs():
    return [
        ("weights", WeightChannels((None, 1))),
        ("filter", FiniteImpulseResponse((2, None))),
        ("level", LevelShift()),
    ]


FORMS = {
    "words": lambda: "wc.x1-fir.2-lvl",
    "list": lambda: from_keywords("wc.x1-fir.2-lvl"),
    "layers": lambda: [layer for _, layer in pairs()],
    "tuple of layers": lambda: tuple(layer for _, layer in pairs()),
    "pairs": pairs,
}


# Layers and their parameters


def test_layers_in_all_forms_are_the_same_model():
    predictions = {kind: NEMSRegressor(make()).fit(X, y).predict(X) for kind, make in FORMS.items()}
    for prediction in predictions.values():
        np.testing.assert_array_equal(prediction, predictions["words"])
    model = NEMSRegressor(pairs()).fit(X, y).model_
    assert [layer.name for layer in model.layers] == ["weights", "filter", "level"]


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("parameters", [{}, {"warm_start": True}, {"init": "prior_mean"}], ids=str)
def test_layers_of_the_callers_are_never_changed(kind, parameters):
    layers = FORMS[kind]()
    before = joblib.hash(layers)
    model = NEMSRegressor(layers, max_iter=2, **parameters)
    assert model.layers is layers
    model.fit(X, y).fit(X, y)
    copy = clone(model).set_params(max_iter=3)
    if kind == "pairs":
        copy.set_params(filter__shape=(4, None), level=LevelShift((1,)))
        assert copy.layers[1][1].shape == (4, None)
        assert copy.layers[2][1].shape == (1,)
        # Replacing a layer does not change the caller's list.
        model.set_params(level=LevelShift((1,)))
        assert model.layers is not layers
    copy.fit(X, y)
    assert joblib.hash(layers) == before


def test_parameters_of_layers_with_names():
    model = NEMSRegressor(pairs(), alpha=0.5)
    parameters = model.get_params()
    assert parameters["filter__shape"] == (2, None)
    assert parameters["filter"] is model.layers[1][1]
    assert parameters["alpha"] == 0.5
    assert set(model.get_params(deep=False)) == set(NEMSRegressor().get_params())
    assert model.set_params(filter__shape=(3, None), weights__shape=(None, 2)) is model
    assert model.get_params()["filter__shape"] == (3, None)
    shapes = [layer.shape for layer in model.fit(X, y).model_.layers]
    assert shapes == [(3, 2), (3, 2), (1,)]
    other = FiniteImpulseResponse((5, None))
    model.set_params(filter=other, alpha=0.0, level__l2=None)
    assert model.get_params()["filter"] is other
    model.set_params(layers="wc-lvl")
    assert "filter" not in model.get_params()
    model.set_params(layers=pairs(), filter__shape=(7, None))
    assert model.get_params()["filter__shape"] == (7, None)
    for name in ("nonsense", "filter__nonsense", "nonsense__shape"):
        with pytest.raises(ValueError, match="nonsense"):
            model.set_params(**{name: 1})


@pytest.mark.parametrize("kind", FORMS)
def test_clone_pickle_and_joblib(kind, tmp_path):
    model = NEMSRegressor(FORMS[kind](), random_state=0)
    fresh = clone(model)
    fresh.fit(X, y)
    assert not hasattr(model, "model_")
    model.fit(X, y, sessions=SESSIONS)
    assert not hasattr(clone(model), "model_")
    joblib.dump(model, tmp_path / "model.joblib")
    wanted = model.predict(X)
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib")):
        np.testing.assert_array_equal(copy.predict(X), wanted)
        assert copy.history_ == model.history_
        np.testing.assert_array_equal(copy.fit(X, y).predict(X), fresh.predict(X))
    np.testing.assert_array_equal(model.predict(X), wanted)


@pytest.mark.parametrize("kind", FORMS)
def test_representations(kind):
    model = NEMSRegressor(FORMS[kind]())
    assert "NEMSRegressor" in repr(model)
    assert "NEMSRegressor" in estimator_html_repr(model)
    page = estimator_html_repr(make_pipeline(StandardScaler(), model.fit(X, y)))
    assert "NEMSRegressor" in page


# Searches and pipelines


def by_hand(models, folds, score):
    """Mean score over folds of each model."""
    return [
        np.mean([score(clone(model), train, test) for train, test in folds]) for model in models
    ]


def plain_score(model, train, test):
    return model.fit(X[train], y[train]).score(X[test], y[test])


GRIDS = {
    "words": (None, "layers", ["lvl.3-wc.x1", "wc-lvl", "fir.2-lvl", "wc.x1-fir.2-lvl"]),
    "shapes of filters": (pairs(), "filter__shape", [(1, None), (2, None), (9, None)]),
    "shapes of weights": (pairs(), "weights__shape", [(None, 1), (None, 2), (3, 3)]),
    "layers": (pairs(), "level", [LevelShift(), LevelShift((1,))]),
    "alpha": ("fir.9-lvl", "alpha", [0.0, 0.1, 100.0]),
    "loss": (None, "loss", ["squared_error"]),
}


@pytest.mark.parametrize("kind", GRIDS)
def test_searches(kind):
    layers, name, values = GRIDS[kind]
    model, folds = NEMSRegressor(layers), list(KFold(3).split(X))
    before = joblib.hash(model)
    search = GridSearchCV(model, {name: values}, cv=folds).fit(X, y)
    models = [clone(model).set_params(**{name: value}) for value in values]
    wanted = by_hand(models, folds, plain_score)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], wanted)
    best = models[int(np.argmax(wanted))]
    np.testing.assert_array_equal(search.predict(X), best.fit(X, y).predict(X))
    assert joblib.hash(model) == before


def test_a_search_finds_the_lags():
    search = GridSearchCV(
        NEMSRegressor(pairs()), {"filter__shape": [(n, None) for n in (1, 2, 30)]}
    )
    search.fit(X, y)
    assert search.best_params_ == {"filter__shape": (2, None)}
    assert search.best_estimator_.model_.layers["filter"].shape == (2, 1)


@pytest.mark.slow
def test_workers_give_the_same_bits():
    search = GridSearchCV(
        NEMSRegressor("wc.x1-fir.2-sig.s.o.g", max_iter=5, random_state=0),
        {"init": ["auto", "prior_sample"], "solver": ["lbfgs", "adam"]},
        cv=2,
    )
    results = []
    for options in ({"n_jobs": None}, {"n_jobs": 2}):
        search.set_params(**options).fit(X, y)
        results.append([search.cv_results_[f"split{n}_test_score"] for n in range(2)])
    np.testing.assert_array_equal(*results)


def test_the_last_step_of_a_pipeline():
    pipeline = Pipeline([("scale", StandardScaler()), ("model", NEMSRegressor(pairs()))])
    far = 100 * X + 7
    pipeline.fit(far, y)
    scaled = StandardScaler().fit_transform(far)
    model = NEMSRegressor(pairs()).fit(scaled, y)
    np.testing.assert_allclose(pipeline.predict(far), model.predict(scaled), rtol=1e-9)
    assert pipeline.score(far, y) == pytest.approx(model.score(scaled, y))
    search = GridSearchCV(pipeline, {"model__filter__shape": [(1, None), (2, None)]}, cv=3)
    assert search.fit(far, y).best_params_ == {"model__filter__shape": (2, None)}
    with config_context(enable_metadata_routing=True):
        assert pipeline.fit(far, y).score(far, y) == pytest.approx(model.score(scaled, y))
        pipeline.fit(far, y, sessions=SESSIONS)
        labelled = pipeline.predict(far, sessions=SESSIONS)
        score = pipeline.score(far, y, sessions=SESSIONS)
    model.fit(scaled, y, sessions=SESSIONS)
    np.testing.assert_allclose(labelled, model.predict(scaled, sessions=SESSIONS), rtol=1e-9)
    assert score == pytest.approx(model.score(scaled, y, sessions=SESSIONS))


# Metadata


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_sessions_flow_through_cross_validation(in_pipeline):
    if in_pipeline and parse_version(sklearn.__version__) < parse_version("1.8"):
        pytest.skip("scikit-learn 1.7 scores pipelines without metadata")
    model = NEMSRegressor("fir.4-lvl")
    routed = make_pipeline(StandardScaler(), model) if in_pipeline else model
    folds = list(LeaveOneGroupOut().split(X, groups=np.repeat([0, 1, 2], 80)))
    with config_context(enable_metadata_routing=True):
        scores = cross_validate(routed, X, y, params={"sessions": SESSIONS}, cv=folds)
    for score, (train, test) in zip(scores["test_score"], folds, strict=True):
        scaler = StandardScaler().fit(X[train]) if in_pipeline else None
        stimulus = scaler.transform(X) if in_pipeline else X
        model.fit(stimulus[train], y[train], sessions=SESSIONS[train])
        own = model.score(stimulus[test], y[test], sessions=SESSIONS[test])
        assert score == pytest.approx(own)
        assert own != model.score(stimulus[test], y[test])


def test_weights_flow_when_they_are_requested():
    weight = np.random.default_rng(1).integers(0, 2, 240)
    missing = np.where(weight > 0, y, np.nan)
    folds = list(KFold(3).split(X))
    with config_context(enable_metadata_routing=True):
        model = NEMSRegressor("fir.2-lvl").set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=True)
        search = GridSearchCV(model, {"alpha": [0.0, 1.0]}, cv=folds)
        search.fit(X, missing, sample_weight=weight, sessions=SESSIONS)

    def weighted_score(model, train, test):
        model.fit(X[train], missing[train], weight[train], sessions=SESSIONS[train])
        return model.score(X[test], missing[test], weight[test], sessions=SESSIONS[test])

    models = [NEMSRegressor("fir.2-lvl", alpha=alpha) for alpha in (0.0, 1.0)]
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], by_hand(models, folds, weighted_score)
    )


@pytest.mark.parametrize("form", [list, np.stack], ids=["list", "stack"])
def test_sessions_are_what_is_held_out(form):
    stimulus, target = (form(np.split(one, 6)) for one in (X, y))
    model, folds = NEMSRegressor("fir.2-lvl"), KFold(3)
    scores = cross_validate(model, stimulus, target, cv=folds)["test_score"]
    for score, (train, test) in zip(scores, folds.split(stimulus), strict=True):
        parts = [
            [values[n] for n in rows] for rows in (train, test) for values in (stimulus, target)
        ]
        assert score == model.fit(*parts[:2]).score(*parts[2:])
