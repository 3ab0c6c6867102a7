"""The model inside pipelines and searches, and the recording that reaches it."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler

from skdyn._fitted import ask, find_modes, find_step, fitted_steps, transform_through
from skdyn.matching import ModeMatcher
from skdyn.preprocessing import MovingAverage, SessionScaler

X = np.random.default_rng(0).standard_normal((60, 4)) * [1, 2, 3, 4]
LABELS = np.repeat([0, 1, 2], [10, 20, 30])
PARTS = [X[:10], X[10:30], X[30:]]


class Modes(TransformerMixin, BaseEstimator):
    """As much of a mode model as is asked of one: columns of X are its modes."""

    def fit(self, X, y=None):
        self.covariances_ = np.arange(4.0)[:, None, None] * np.eye(2)
        return self

    def transform(self, X):
        return np.asarray(X)


def in_search(estimator, kind=GridSearchCV, **given):
    def score(fitted, X, y=None):
        return 0.0

    return kind(estimator, {}, cv=2, scoring=score, **given)


WRAPPED = {
    "estimator": lambda: PCA(2),
    "pipeline": lambda: make_pipeline(StandardScaler(), PCA(2)),
    "nested pipeline": lambda: make_pipeline(StandardScaler(), make_pipeline(PCA(2))),
    "first pipeline": lambda: make_pipeline(make_pipeline(StandardScaler(), PCA(2)), "passthrough"),
    "search": lambda: in_search(PCA(2)),
    "search of a pipeline": lambda: in_search(make_pipeline(StandardScaler(), PCA(2))),
    "pipeline of a search": lambda: make_pipeline(StandardScaler(), in_search(PCA(2))),
    "search of a search": lambda: in_search(in_search(PCA(2)), RandomizedSearchCV, n_iter=1),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_find_step_unwraps(kind):
    given = WRAPPED[kind]()
    with pytest.raises(NotFittedError, match=f"This {type(given).__name__} instance is not fitted"):
        find_step(given, "components_")
    given.fit(X)
    before, step, after = find_step(given, "components_", "mean_")
    assert type(step) is PCA
    assert after == []
    assert [type(one) for one in before] == [StandardScaler] * (len(fitted_steps(given)) - 1)
    found = step.transform(transform_through(before, X))
    np.testing.assert_allclose(found, given.transform(X), atol=1e-12)


def test_find_step_names_what_is_missing():
    with pytest.raises(TypeError, match=r"The fitted PCA has no covariances_\. Pass an estimator"):
        find_step(PCA().fit(X), "covariances_")
    pipeline = make_pipeline(StandardScaler(), PCA()).fit(X)
    message = r"The fitted Pipeline of StandardScaler, PCA has no means_ and covariances_\."
    with pytest.raises(TypeError, match=message):
        find_step(pipeline, "means_", "covariances_")
    with pytest.raises(NotFittedError, match="refit=False"):
        find_step(in_search(PCA(), refit=False).fit(X), "components_")
    with pytest.raises(TypeError, match="not an estimator"):
        find_step(X, "components_")


def test_transform_through_keeps_sessions_apart():
    steps = [StandardScaler(), SessionScaler(), MovingAverage(3)]
    wanted, wide = [one.copy() for one in PARTS], StandardScaler().fit(X)
    wanted = [wide.transform(one) for one in wanted]
    for step in (SessionScaler(), MovingAverage(3)):
        wanted = step.fit(wanted).transform(wanted)
    rows = X
    for step in steps:
        rows = ask(step.fit(rows), "transform", rows, LABELS)
    np.testing.assert_allclose(rows, np.concatenate(wanted))
    np.testing.assert_allclose(transform_through(steps, X, LABELS), rows)
    listed = transform_through(steps[1:], [wide.transform(one) for one in PARTS])
    np.testing.assert_allclose(np.concatenate(listed), rows)


def test_ask_routes_sessions_through_a_union():
    union = FeatureUnion([("a", SessionScaler()), ("b", SessionScaler())]).fit(X)
    expected = np.concatenate(SessionScaler().fit(PARTS).transform(PARTS))
    np.testing.assert_allclose(ask(union, "transform", X, LABELS), np.c_[expected, expected])


def test_find_modes_follows_the_order_of_a_matcher():
    reference = X[:, [2, 0, 3, 1]]
    pipeline = make_pipeline(Modes(), ModeMatcher(reference)).fit(X)
    np.testing.assert_allclose(pipeline.transform(X), reference)
    assert find_modes(pipeline, "covariances_")[:, 0, 0].tolist() == [2, 0, 3, 1]
    assert find_modes(clone(pipeline[0]).fit(X), "covariances_")[:, 0, 0].tolist() == [0, 1, 2, 3]
