"""Each estimator with each tool of scikit-learn: a cell of the table passes, or says why not."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import joblib
import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import BaggingRegressor, VotingRegressor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdyn import DyNeMoEstimator, ModeMatcher, NEMSRegressor
from skdyn.model_selection import BlockKFold, on_dask
from skdyn.preprocessing import SessionScaler

N_SAMPLES = 240
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N_SAMPLES, 3)) * np.repeat([1, 3, 1, 2], N_SAMPLES // 4)[:, np.newaxis]
Y = np.maximum(X[:, 0] + np.roll(X[:, 1], 1), 0) + 0.3 * RNG.standard_normal(N_SAMPLES)
ALPHA = RNG.dirichlet(np.ones(3), N_SAMPLES)
SESSIONS = np.repeat(["first", "second"], N_SAMPLES // 2)


@dataclass(frozen=True)
class Case:
    estimator: object
    X: np.ndarray
    y: np.ndarray | None
    method: str
    grid: dict
    resource: str = ""


# These tests are about the tools, not about initialisation.
SMALL = {
    "sequence_length": 20,
    "init_method": "random",
    "n_refinement_steps": 2,
    "inference_n_units": 4,
    "model_n_units": 4,
    "n_epochs": 2,
    "random_state": 0,
}
CASES = {
    "DyNeMoEstimator": Case(
        DyNeMoEstimator(2, **SMALL), X, None, "transform", {"n_modes": [2, 3]}, "n_epochs"
    ),
    "NEMSRegressor": Case(
        NEMSRegressor("wc.x1-fir.2-relu", max_iter=20, tol=1e-2, random_state=0),
        X,
        Y,
        "predict",
        {"alpha": [0.0, 0.1]},
        "max_iter",
    ),
    "ModeMatcher": Case(ModeMatcher(), ALPHA[:, [2, 0, 1]], ALPHA, "transform", {}),
}


# ----------------------------------------------------------------------------- the tools
# Each takes a case and metadata, and returns numbers that describe the result.


def _searched(search, case, metadata):
    search.fit(case.X, case.y, **metadata)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert set(search.best_params_) >= set(case.grid)
    return np.append(scores, search.score(case.X, case.y))


def grid_search(case, metadata, n_jobs):
    search = GridSearchCV(case.estimator, case.grid, cv=BlockKFold(3), n_jobs=n_jobs)
    return _searched(search, case, metadata)


def randomized_search(case, metadata, n_jobs):
    search = RandomizedSearchCV(
        case.estimator, case.grid, n_iter=2, cv=BlockKFold(3), n_jobs=n_jobs, random_state=0
    )
    return _searched(search, case, metadata)


def halving_search(case, metadata, n_jobs):
    # Rows as the resource would be drawn at random, and rows are time.
    search = HalvingGridSearchCV(
        case.estimator,
        case.grid,
        cv=BlockKFold(3),
        resource=case.resource,
        max_resources=4,
        min_resources=2,
        factor=2,
        n_jobs=n_jobs,
        random_state=0,
    )
    return _searched(search, case, metadata)


def validation(case, metadata, n_jobs):
    result = cross_validate(
        case.estimator, case.X, case.y, cv=BlockKFold(3), params=metadata, n_jobs=n_jobs
    )
    return result["test_score"]


def validation_with_prediction(case, metadata, n_jobs):
    return cross_val_predict(
        case.estimator,
        case.X,
        case.y,
        cv=BlockKFold(3),
        params=metadata,
        n_jobs=n_jobs,
    )


def curve_of_learning(case, metadata, n_jobs):
    _, training, held_out = learning_curve(
        case.estimator,
        case.X,
        case.y,
        cv=BlockKFold(3),
        train_sizes=[0.5, 1.0],
        params=metadata,
        n_jobs=n_jobs,
    )
    return np.stack([training, held_out])


def pipeline(case, metadata, n_jobs):
    steps = make_pipeline(StandardScaler(), clone(case.estimator)).fit(case.X, case.y)
    scaled = StandardScaler().fit_transform(case.X)
    alone = clone(case.estimator).fit(scaled, case.y)
    given = getattr(steps, case.method)(case.X)
    np.testing.assert_array_equal(given, getattr(alone, case.method)(scaled))
    return given


def voting(case, metadata, n_jobs):
    models = [("encoder", case.estimator), ("mean", DummyRegressor())]
    vote = VotingRegressor(models, n_jobs=n_jobs).fit(case.X, case.y)
    alone = clone(case.estimator).fit(case.X, case.y).predict(case.X)
    given = vote.predict(case.X)
    np.testing.assert_allclose(given, (alone + case.y.mean()) / 2)
    return given


def bagging(case, metadata, n_jobs):
    # Of each draw the channels differ, and the rows stay as they are.
    bag = BaggingRegressor(
        case.estimator,
        n_estimators=3,
        bootstrap=False,
        max_features=2,
        n_jobs=n_jobs,
        random_state=0,
    )
    return bag.fit(case.X, case.y).predict(case.X)


def cloning(case, metadata, n_jobs):
    fitted = clone(case.estimator).fit(case.X, case.y)
    again = clone(fitted)
    assert again.get_params() == case.estimator.get_params()
    assert not hasattr(again, "n_features_in_")
    given = getattr(again.fit(case.X, case.y), case.method)(case.X)
    np.testing.assert_array_equal(given, getattr(fitted, case.method)(case.X))
    return given


def output_frames(case, metadata, n_jobs):
    estimator = clone(case.estimator)
    arrays = estimator.fit(case.X, case.y).transform(case.X)
    for container in ("pandas", "polars"):
        frame = estimator.set_output(transform=container).transform(case.X)
        assert list(frame.columns) == list(estimator.get_feature_names_out())
        np.testing.assert_array_equal(frame.to_numpy(), arrays)
    return arrays


PARALLEL: dict[str, Callable] = {
    "GridSearchCV": grid_search,
    "HalvingGridSearchCV": halving_search,
    "RandomizedSearchCV": randomized_search,
    "cross_validate": validation,
    "cross_val_predict": validation_with_prediction,
    "learning_curve": curve_of_learning,
    "VotingRegressor": voting,
    "BaggingRegressor": bagging,
}
ALONE: dict[str, Callable] = {
    "Pipeline": pipeline,
    "clone": cloning,
    "set_output": output_frames,
}
NO_SCORE = "it has no score: what is found is an order of the modes, of which none is better"
NO_TARGET = "it predicts nothing: modes and their mixing are learned without a target"
EXCLUDED = {
    **{
        ("ModeMatcher", tool): NO_SCORE
        for tool in ("GridSearchCV", "HalvingGridSearchCV", "RandomizedSearchCV")
    },
    ("ModeMatcher", "cross_validate"): NO_SCORE,
    ("ModeMatcher", "learning_curve"): NO_SCORE,
    ("ModeMatcher", "cross_val_predict"): "it has no predict: it puts modes in another order",
    ("ModeMatcher", "VotingRegressor"): NO_TARGET,
    ("ModeMatcher", "BaggingRegressor"): NO_TARGET,
    ("DyNeMoEstimator", "VotingRegressor"): NO_TARGET,
    ("DyNeMoEstimator", "BaggingRegressor"): NO_TARGET,
    ("NEMSRegressor", "set_output"): "set_output is for what transforms; it predicts arrays",
}
SESSIONS_BLIND = {"VotingRegressor", "BaggingRegressor"}
BACKENDS = ["loky", "threading", "dask"]


def cells(tools):
    return [(name, tool) for name in CASES for tool in tools if (name, tool) not in EXCLUDED]


def takes_sessions(name, tool):
    return name != "ModeMatcher" and tool not in SESSIONS_BLIND


@cache
def one_after_the_other(name, tool, routing):
    """Result of a cell with n_jobs=1, equal on every call."""
    metadata = {"sessions": SESSIONS} if takes_sessions(name, tool) else {}
    with config_context(enable_metadata_routing=routing):
        return PARALLEL[tool](CASES[name], metadata, 1)


@pytest.fixture(scope="module")
def dask_client(tmp_path_factory):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            local_directory=str(tmp_path_factory.mktemp("dask")),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


pytestmark = [
    pytest.mark.slow,
    # Two iterations are deliberately too few. Dask warns of its own actions.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:::distributed"),
]


@pytest.mark.parametrize(("name", "tool"), cells(ALONE))
def test_a_tool(name, tool):
    assert np.isfinite(ALONE[tool](CASES[name], {}, 1)).all()


@pytest.mark.parametrize("routing", [False, True], ids=["routing off", "routing on"])
@pytest.mark.parametrize(("name", "tool"), cells(PARALLEL))
def test_a_tool_with_and_without_metadata_routing(name, tool, routing):
    assert np.isfinite(one_after_the_other(name, tool, routing)).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "tool"), cells(PARALLEL))
def test_a_tool_on_two_workers_gives_the_same(name, tool, backend, request):
    if backend == "dask":
        context = on_dask(request.getfixturevalue("dask_client"))
    else:
        context = joblib.parallel_config(backend=backend)
    metadata = {"sessions": SESSIONS} if takes_sessions(name, tool) else {}
    # scikit-learn passes its configuration to the workers of joblib.
    with config_context(enable_metadata_routing=True), context:
        given = PARALLEL[tool](CASES[name], metadata, 2)
    np.testing.assert_array_equal(given, one_after_the_other(name, tool, True))


@pytest.mark.parametrize("routing", [False, True], ids=["routing off", "routing on"])
@pytest.mark.parametrize("name", ["DyNeMoEstimator", "NEMSRegressor"])
def test_a_pipeline_with_sessions(name, routing):
    """With routing, sessions reach all steps that take them; otherwise steps are named."""
    case = CASES[name]
    steps = make_pipeline(SessionScaler(), clone(case.estimator))
    last = steps.steps[-1][0]
    with config_context(enable_metadata_routing=routing):
        if routing:
            steps.fit(case.X, case.y, sessions=SESSIONS)
            score = steps.score(case.X, case.y, sessions=SESSIONS)
            scaled = SessionScaler().fit_transform(case.X, sessions=SESSIONS)
            alone = clone(case.estimator).fit(scaled, case.y, sessions=SESSIONS)
            expected = alone.score(scaled, case.y, sessions=SESSIONS)
        else:
            steps.fit(case.X, case.y, **{f"{last}__sessions": SESSIONS})
            score = steps.score(case.X, case.y)
            scaled = SessionScaler().fit_transform(case.X)
            alone = clone(case.estimator).fit(scaled, case.y, sessions=SESSIONS)
            expected = alone.score(scaled, case.y)
    assert score == expected


def test_what_is_excluded_would_fail():
    """Exclusions are not out of date."""
    for name, tool in EXCLUDED:
        with pytest.raises((TypeError, ValueError, AttributeError)):
            {**PARALLEL, **ALONE}[tool](CASES[name], {}, 1)
