"""Sessions and weights passed through scikit-learn's tools, with and without metadata routing.

With routing, `sessions` reaches all methods automatically. Without, it reaches `fit` only, and the
input of `predict` and `score` counts as one session.
"""

import numpy as np
import pytest
import sklearn
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, UnsetMetadataPassedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_val_predict,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.fixes import parse_version

from skdyn import DyNeMoEstimator, ModeMatcher, NEMSRegressor

RNG = np.random.default_rng(0)
X = RNG.standard_normal((240, 3)).cumsum(axis=0)
# Each session is centred, as modes without means want it.
X -= np.repeat(X.reshape(12, 20, 3).mean(axis=1), 20, axis=0)
y = X @ [1.0, -0.5, 0.2] + np.roll(X[:, 0], 1) + RNG.standard_normal(240)
SESSIONS = np.repeat(np.arange(12), 20)
WEIGHT = RNG.integers(0, 3, 240).astype(float)
FOLDS = KFold(2)

DYNEMO = DyNeMoEstimator(
    n_modes=2,
    sequence_length=20,
    inference_n_units=3,
    model_n_units=3,
    n_epochs=1,
    init_method="random",
    n_refinement_steps=3,
    random_state=0,
)
NEMS = NEMSRegressor("fir.4-lvl")
# Metadata of X, and a parameter to search with its values.
WINGS = {
    "dynemo": (DYNEMO, None, "n_modes", [2, 3]),
    "nems": (NEMS, y, "alpha", [0.0, 10.0]),
}

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__qualname__}"
)
# Before scikit-learn 1.8, searches and cross-validation pass no metadata to the score method of a
# pipeline.
PIPELINES_ARE_TOLD = parse_version(sklearn.__version__) >= parse_version("1.8")

routing_on_and_off = pytest.mark.parametrize("routing", [True, False], ids=["on", "off"])
both_wings = pytest.mark.parametrize("wing", WINGS)
bare_or_last = pytest.mark.parametrize("in_pipeline", [False, True], ids=["bare", "pipeline"])


def case(wing, in_pipeline):
    model, target, name, values = WINGS[wing]
    prefix = f"{type(model).__name__.lower()}__" if in_pipeline else ""
    routed = make_pipeline(StandardScaler(), model) if in_pipeline else model
    return routed, target, {prefix + name: values}, prefix


def is_routed(routing, prefix):
    return routing and (PIPELINES_ARE_TOLD or not prefix)


def metadata(prefix, routing, **given):
    """Without routing, fit parameters of a pipeline have the name of a step as prefix."""
    return given if routing else {prefix + name: value for name, value in given.items()}


def by_hand(model, target, rows, prefix):
    """Fit, then predict and score with and without sessions."""
    train, test = rows
    labels = {prefix + "sessions": SESSIONS[train]}
    part = None if target is None else target[train]
    held_out = () if target is None else (target[test],)
    fitted = clone(model).fit(X[train], part, **labels)
    step, stimulus = fitted, X[test]
    if prefix:
        step, stimulus = fitted[-1], fitted[:-1].transform(X[test])
    return (
        step.score(stimulus, *held_out, sessions=SESSIONS[test]),
        step.score(stimulus, *held_out),
        step.predict(stimulus),
    )


def halving_search(model, grid):
    # Not of "n_samples", which are drawn at random and lose their order in time.
    (name,) = grid
    budget = "n_epochs" if name.endswith("n_modes") else "max_iter"
    resource = name.removesuffix("n_modes").removesuffix("alpha") + budget
    return HalvingGridSearchCV(
        model, grid, cv=FOLDS, resource=resource, min_resources=1, max_resources=2, factor=2
    )


SEARCHES = {
    "grid": lambda model, grid: GridSearchCV(model, grid, cv=FOLDS),
    "random": lambda model, grid: RandomizedSearchCV(model, grid, n_iter=2, cv=FOLDS),
    "halving": halving_search,
}


@routing_on_and_off
@bare_or_last
@both_wings
@pytest.mark.parametrize("kind", SEARCHES)
def test_searches(kind, wing, in_pipeline, routing):
    model, target, grid, prefix = case(wing, in_pipeline)
    with config_context(enable_metadata_routing=routing):
        search = SEARCHES[kind](model, grid)
        search.fit(X, target, **metadata(prefix, routing, sessions=SESSIONS))
    for number, parameters in enumerate(search.cv_results_["params"]):
        for fold, rows in enumerate(FOLDS.split(X)):
            with_metadata, without, _ = by_hand(
                clone(model).set_params(**parameters), target, rows, prefix
            )
            assert with_metadata != pytest.approx(without)
            found = search.cv_results_[f"split{fold}_test_score"][number]
            assert found == pytest.approx(with_metadata if is_routed(routing, prefix) else without)


@routing_on_and_off
@bare_or_last
@both_wings
def test_cross_validation(wing, in_pipeline, routing):
    model, target, _, prefix = case(wing, in_pipeline)
    with config_context(enable_metadata_routing=routing):
        given = metadata(prefix, routing, sessions=SESSIONS)
        scores = cross_validate(model, X, target, cv=FOLDS, params=given)["test_score"]
        predicted = cross_val_predict(model, X, target, cv=FOLDS, params=given)
    for score, rows in zip(scores, FOLDS.split(X), strict=True):
        with_metadata, without, prediction = by_hand(model, target, rows, prefix)
        assert score == pytest.approx(with_metadata if is_routed(routing, prefix) else without)
        # scikit-learn gives no metadata to predict here, with routing or without.
        np.testing.assert_allclose(predicted[rows[1]], prediction)


# Pipelines


def parts(wing):
    model, target, _, _ = WINGS[wing]
    pipeline = make_pipeline(StandardScaler(), clone(model))
    return pipeline, clone(model), StandardScaler().fit_transform(X), () if target is None else (y,)


@both_wings
def test_a_pipeline_passes_sessions_on(wing):
    pipeline, model, scaled, target = parts(wing)
    given = {"sessions": SESSIONS}
    model.fit(scaled, *target, **given)
    with config_context(enable_metadata_routing=True):
        pipeline.fit(X, *target, **given)
        np.testing.assert_allclose(pipeline.predict(X, **given), model.predict(scaled, **given))
        assert pipeline.score(X, *target, **given) == pytest.approx(
            model.score(scaled, *target, **given)
        )
        assert pipeline.score(X, *target) == pytest.approx(model.score(scaled, *target))
        if wing == "dynemo":
            wanted = model.transform(scaled, **given)
            np.testing.assert_allclose(pipeline.transform(X, **given), wanted)
            np.testing.assert_allclose(pipeline.fit_transform(X, **given), wanted)


@both_wings
def test_a_pipeline_without_routing(wing):
    pipeline, model, scaled, target = parts(wing)
    given = {"sessions": SESSIONS}
    name = type(model).__name__.lower()
    pipeline.fit(X, *target, **{f"{name}__sessions": SESSIONS})
    model.fit(scaled, *target, **given)
    np.testing.assert_allclose(pipeline.predict(X), model.predict(scaled))
    # Metadata of predict reach the last step, so that sessions need no prefix here.
    np.testing.assert_allclose(pipeline.predict(X, **given), model.predict(scaled, **given))
    one_session = pytest.approx(model.score(scaled, *target))
    assert pipeline.score(X, *target) == one_session
    # scikit-learn silently drops the metadata of score.
    assert pipeline.score(X, *target, **given) == one_session


@routing_on_and_off
def test_a_step_in_the_middle_gets_its_sessions(routing):
    pipeline = make_pipeline(StandardScaler(), DYNEMO, ModeMatcher())
    model = clone(DYNEMO)
    scaled = StandardScaler().fit_transform(X)
    model.fit(scaled, sessions=SESSIONS)
    with config_context(enable_metadata_routing=routing):
        pipeline.fit(X, **metadata("dynemoestimator__", routing, sessions=SESSIONS))
        routed = {"sessions": SESSIONS} if routing else {}
        np.testing.assert_allclose(
            pipeline.transform(X, **routed), model.transform(scaled, **routed)
        )


# Weights


@routing_on_and_off
@both_wings
def test_weights_of_a_score(wing, routing):
    """With routing, scikit-learn gives every score a sample_weight, also where it is None."""
    pipeline, model, scaled, target = parts(wing)
    with config_context(enable_metadata_routing=routing):
        if routing:
            pipeline[-1].set_score_request(sample_weight=True)
        pipeline.fit(X, *target)
        weighted = pipeline.score(X, *target, sample_weight=WEIGHT)
        plain = pipeline.score(X, *target)
    model.fit(scaled, *target)
    assert weighted == pytest.approx(model.score(scaled, *target, sample_weight=WEIGHT))
    assert plain == pytest.approx(model.score(scaled, *target))
    assert weighted != pytest.approx(plain)


@both_wings
def test_weights_that_nobody_asked_for_are_an_error(wing):
    pipeline, _, _, target = parts(wing)
    with config_context(enable_metadata_routing=True):
        pipeline.fit(X, *target)
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            pipeline.score(X, *target, sample_weight=WEIGHT)
        if wing == "nems":
            with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
                pipeline.fit(X, *target, sample_weight=WEIGHT)


@routing_on_and_off
def test_weights_of_a_fit(routing):
    pipeline, model, scaled, target = parts("nems")
    with config_context(enable_metadata_routing=routing):
        if routing:
            pipeline[0].set_fit_request(sample_weight=False)
            pipeline[-1].set_fit_request(sample_weight=True)
        pipeline.fit(X, *target, **metadata("nemsregressor__", routing, sample_weight=WEIGHT))
        predicted = pipeline.predict(X)
    np.testing.assert_allclose(predicted, model.fit(scaled, y, WEIGHT).predict(scaled))
    assert not np.allclose(predicted, model.fit(scaled, y).predict(scaled))
