from functools import partial
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdyn.matching import ModeMatcher, match_modes
from skdyn.metrics import alpha_correlation, riemannian_distance, rv_coefficient

METRICS = ["correlation", "cosine", "riemannian", "rv"]
AXIS = {"correlation": 1, "cosine": 0, "riemannian": 0, "rv": 0}


def draw(metric, n_modes, rng, n_channels=5):
    if metric == "correlation":
        return rng.dirichlet(np.ones(n_modes), 60)
    if metric == "cosine":
        return rng.standard_normal((n_modes, n_channels))
    factors = rng.standard_normal((n_modes, n_channels, n_channels + 3))
    return factors @ factors.transpose(0, 2, 1)


def similarity(metric, first, second):
    """Every mode with every mode, by other code or one pair at a time."""
    if metric == "correlation":
        return np.corrcoef(first.T, second.T)[: first.shape[1], first.shape[1] :]
    if metric == "cosine":
        return cosine_similarity(first, second)
    if metric == "rv":
        return np.array([[rv_coefficient(one, two) for two in second] for one in first])
    return np.array([[-riemannian_distance(one, two) for two in second] for one in first])


@pytest.mark.parametrize("metric", METRICS)
@given(seed=st.integers(0, 2**32 - 1), n_modes=st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_a_permutation_is_undone(metric, seed, n_modes):
    rng = np.random.default_rng(seed)
    truth, axis = draw(metric, n_modes, rng), AXIS[metric]
    shuffles = [rng.permutation(n_modes) for _ in range(2)]
    found = [np.take(truth, shuffle, axis) for shuffle in shuffles]
    matched = match_modes(truth, *found, metric=metric)
    orders = match_modes(truth, *found, metric=metric, return_order=True)
    assert matched[0] is truth
    np.testing.assert_array_equal(orders[0], np.arange(n_modes))
    for i, shuffle in enumerate(shuffles, start=1):
        np.testing.assert_array_equal(orders[i], np.argsort(shuffle))
        np.testing.assert_array_equal(matched[i], truth)
        assert not np.shares_memory(matched[i], found[i - 1])
    matcher = ModeMatcher(truth, metric=metric)
    np.testing.assert_array_equal(matcher.fit_transform(found[0]), truth)
    best = 0 if metric == "riemannian" else 1
    np.testing.assert_allclose(matcher.similarity_, best, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@given(seed=st.integers(0, 2**32 - 1), n_modes=st.integers(2, 6))
@settings(max_examples=10, deadline=None)
def test_no_permutation_is_better(metric, seed, n_modes):
    rng = np.random.default_rng(seed)
    first, second = draw(metric, n_modes, rng), draw(metric, n_modes, rng)
    table = similarity(metric, first, second)
    best = max(
        sum(table[i, j] for i, j in enumerate(order)) for order in permutations(range(n_modes))
    )
    _, order = match_modes(first, second, metric=metric, return_order=True)
    assert sorted(order) == list(range(n_modes))
    assert table[np.arange(n_modes), order].sum() == pytest.approx(best, abs=1e-6)
    matcher = ModeMatcher(metric=metric, reference=first).fit(second)
    np.testing.assert_array_equal(matcher.order_, order)
    np.testing.assert_allclose(matcher.similarity_, table[np.arange(n_modes), order], atol=1e-6)


def test_the_sign_of_a_correlation_counts():
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, 500))
    truth = np.column_stack([one, two])
    # The mirror image of `one` is more alike in absolute value, and is not `one`.
    found = np.column_stack([-one, one + 2 * rng.standard_normal(500)])
    assert abs(np.corrcoef(one, found[:, 1])[0, 1]) < 0.9
    _, order = match_modes(truth, found, return_order=True)
    np.testing.assert_array_equal(order, [1, 0])


def test_a_constant_column_is_worse_than_any():
    rng = np.random.default_rng(0)
    one = rng.standard_normal(200)
    found = np.column_stack([np.full(200, 0.1), -one])
    matched = match_modes(one[:, np.newaxis], found)[1]
    np.testing.assert_array_equal(matched, found[:, [1, 0]])
    matcher = ModeMatcher(reference=one[:, np.newaxis]).fit(found)
    np.testing.assert_allclose(matcher.similarity_, [-1, np.nan])


def test_zero_means_keep_their_order():
    zeros = np.zeros((4, 3))
    orders = match_modes(zeros, zeros.copy(), metric="cosine", return_order=True)
    np.testing.assert_array_equal(orders[1], np.arange(4))


def test_different_lengths_are_compared_where_they_overlap():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.ones(3), 100)
    longer = np.concatenate([truth[:, [2, 0, 1]], 50 * rng.random((300, 3))])
    shorter = truth[:40, [1, 2, 0]]
    matched = match_modes(truth, longer, shorter)
    np.testing.assert_array_equal(matched[1], longer[:, [1, 2, 0]])
    np.testing.assert_array_equal(matched[2], truth[:40])
    assert matched[0] is truth


@pytest.mark.parametrize("metric", METRICS)
def test_different_numbers_of_modes(metric):
    axis = AXIS[metric]
    modes = draw(metric, 5, np.random.default_rng(2))
    three, five = np.take(modes, [4, 0, 2], axis), modes
    orders = match_modes(three, five, metric=metric, return_order=True)
    np.testing.assert_array_equal(orders[1], [4, 0, 2, 1, 3])
    few = np.take(modes, [3, 1, 2], axis)
    matched = match_modes(five, few, metric=metric)
    orders = match_modes(five, few, metric=metric, return_order=True)
    np.testing.assert_array_equal(orders[1], [1, 2, 0])
    np.testing.assert_array_equal(matched[1], np.take(modes, [1, 2, 3], axis))
    matcher = ModeMatcher(reference=three, metric=metric).fit(five)
    np.testing.assert_array_equal(matcher.order_, [4, 0, 2, 1, 3])
    np.testing.assert_array_equal(np.isnan(matcher.similarity_), [False] * 3 + [True] * 2)


def test_types_and_layouts_are_kept_and_nothing_is_modified():
    truth = np.asfortranarray(np.random.default_rng(0).random((30, 3)).astype(np.float32))
    found = truth[:, [1, 2, 0]].copy()
    copies = truth.copy(), found.copy()
    for array in (truth, found):
        array.setflags(write=False)
    matched = match_modes(truth, found)[1]
    assert matched.dtype == ModeMatcher(truth).fit_transform(found).dtype == np.float32
    matched[:] = 0
    np.testing.assert_array_equal(truth, copies[0])
    np.testing.assert_array_equal(found, copies[1])
    assert match_modes(found)[0] is found


@pytest.mark.parametrize(
    ("arrays", "metric", "message"),
    [
        ((), "correlation", "modes has no arrays"),
        ((np.eye(3), np.ones(3)), "correlation", r"^Array 1 has the shape \(3,\), but"),
        ((np.eye(3), np.ones((2, 3, 3))), "correlation", "metric='riemannian'"),
        ((np.eye(3), np.ones((2, 3, 3, 3))), "correlation", r"\(n_samples, n_modes\)"),
        (([np.eye(4, 3), np.eye(4, 3)],), "correlation", r"match_modes\(\*runs\)"),
        ((np.eye(4, 3), np.ones((2, 4, 3))), "correlation", r"\[1, 2\] sessions with \[4, 8\]"),
        (([np.eye(4, 3), np.eye(4, 2)],) * 2, "correlation", r"sessions of \[2, 3\] modes"),
        ((np.eye(3), np.full((3, 3), np.nan)), "correlation", "^Array 1 has NaN"),
        ((np.full((3, 3), np.inf),), "correlation", "^Array 0 has NaN or infinite"),
        ((np.ones((1, 2)), np.eye(2)), "correlation", "at least 2"),
        ((np.eye(3), np.array([["a"] * 3] * 3)), "correlation", "type <U1"),
        ((np.eye(3), np.eye(2)), "cosine", "3 channels and array 1 has 2"),
        ((np.eye(3)[np.newaxis], np.eye(2)[np.newaxis]), "rv", "3 channels and array 1 has 2"),
        ((np.eye(3), np.eye(3)), "riemannian", "n_channels, n_channels"),
        ((np.ones((2, 3, 4)),), "rv", "square"),
        ((np.eye(3)[np.newaxis], -np.eye(3)[np.newaxis]), "riemannian", "positive definite"),
        ((np.eye(3), np.eye(3)), "euclidean", "metric is 'euclidean', but one of"),
    ],
)
def test_wrong_arguments_are_told(arrays, metric, message):
    with pytest.raises(ValueError, match=message) as error:
        match_modes(*arrays, metric=metric)
    assert "expected" in str(error.value)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("as_target", ["reference", "y"])
def test_sessions_come_out_as_they_go_in(as_target):
    truth = np.random.default_rng(0).dirichlet(np.ones(3), 60).reshape(3, 20, 3)
    found = truth[:, :, [2, 0, 1]]
    target = {"reference": (truth, None), "y": (None, truth)}[as_target]
    stacked = ModeMatcher(target[0]).fit_transform(found, target[1])
    assert isinstance(stacked, np.ndarray)
    np.testing.assert_array_equal(stacked, truth)

    truth_list, found_list = [truth[0], truth[1, :7]], [found[0], found[1, :7]]
    target = {"reference": (truth_list, None), "y": (None, truth_list)}[as_target]
    matcher = ModeMatcher(target[0]).fit(found_list, target[1])
    sessions = matcher.transform(found_list)
    assert isinstance(sessions, list)
    for session, expected in zip(sessions, truth_list, strict=True):
        np.testing.assert_array_equal(session, expected)
    np.testing.assert_array_equal(matcher.transform(found[2]), truth[2])


def test_sessions_are_matched_as_one_recording():
    rng = np.random.default_rng(4)
    truth, found = rng.random((2, 3, 30, 4))
    joined = ModeMatcher(truth.reshape(-1, 4)).fit(found.reshape(-1, 4))
    matcher = ModeMatcher(truth).fit(found)
    np.testing.assert_array_equal(matcher.order_, joined.order_)
    np.testing.assert_allclose(matcher.similarity_, joined.similarity_)


def test_an_unrelated_y_is_ignored():
    found = np.random.default_rng(0).random((20, 3))
    for y in (None, np.arange(20), found[:, [0]], ["a"] * 20, pd.Series(np.arange(20.0))):
        matcher = ModeMatcher().fit(found, y)
        np.testing.assert_array_equal(matcher.order_, [0, 1, 2])
        np.testing.assert_allclose(matcher.similarity_, 1)
    truth = found[:, [1, 0, 2]]
    np.testing.assert_array_equal(ModeMatcher(truth).fit(found, found).order_, [1, 0, 2])
    single = ModeMatcher().fit(found[:, [0]], -found[:, [0]])
    np.testing.assert_allclose(single.similarity_, -1)


def test_frames_come_out_where_they_are_asked_for():
    truth = np.random.default_rng(0).random((20, 3))
    found = pd.DataFrame(truth[:, [1, 2, 0]], columns=list("abc"), index=range(5, 25))
    matcher = ModeMatcher().set_output(transform="pandas").fit(found, truth)
    names = ["modematcher0", "modematcher1", "modematcher2"]
    expected = pd.DataFrame(truth, columns=names, index=found.index)
    pd.testing.assert_frame_equal(matcher.transform(found), expected)
    first, second = matcher.transform([found, found.iloc[:4]])
    pd.testing.assert_frame_equal(first, expected)
    pd.testing.assert_frame_equal(second, expected.iloc[:4])


class ShuffledSoftmax(TransformerMixin, BaseEstimator):
    """Stands for a model: right, but its modes come in an order that the training data decide."""

    def fit(self, X, y=None):
        seed = int(abs(X).sum() * 1000)
        self.shuffle_ = np.random.default_rng(seed).permutation(X.shape[1])
        return self

    def transform(self, X):
        return softmax(X, axis=1)[:, self.shuffle_]


def mean_correlation(estimator, X, y):
    return alpha_correlation(estimator.transform(X), y).mean()


def test_a_pipeline_ends_in_the_order_of_the_reference():
    logits = np.random.default_rng(0).standard_normal((100, 5))
    truth = softmax(logits, axis=1)
    shuffled = logits[:, [3, 1, 4, 0, 2]]
    model = FunctionTransformer(partial(softmax, axis=1))
    pipeline = make_pipeline(model, ModeMatcher(reference=truth))
    np.testing.assert_allclose(clone(pipeline).fit_transform(shuffled), truth)
    np.testing.assert_allclose(pipeline.fit(shuffled).transform(shuffled[:10]), truth[:10])


def test_cross_validation_slices_the_reference_given_as_y():
    logits = np.random.default_rng(1).standard_normal((120, 5))
    truth = softmax(logits, axis=1)
    scored = {"cv": KFold(4), "scoring": mean_correlation, "return_estimator": True}
    pipeline = make_pipeline(ShuffledSoftmax(), ModeMatcher())
    scores = cross_validate(pipeline, logits, truth, error_score="raise", **scored)
    np.testing.assert_allclose(scores["test_score"], 1)
    orders = {tuple(fitted[-1].order_) for fitted in scores["estimator"]}
    assert len(orders) > 1  # or nothing was there to be matched
    pipeline.set_params(modematcher__reference=truth)
    with pytest.raises(ValueError, match="pass the reference as y"):
        cross_validate(pipeline, logits, truth, error_score="raise", **scored)


@pytest.mark.parametrize(
    ("X", "y", "metric", "message"),
    [
        (np.eye(4), np.eye(4)[:3], "correlation", r"sessions of \[3\] samples, but \[4\]"),
        (np.eye(4), [np.eye(4)[:2]] * 2, "correlation", r"\[2, 2\] samples, but \[4\] were"),
        ([np.eye(4)] * 2, [np.eye(4), np.eye(4)[:, :3]], "correlation", r"of \[3, 4\] modes"),
        (np.eye(4), np.full((4, 4), np.nan), "correlation", "^y has NaN"),
        (np.eye(4), np.eye(3), "cosine", "X has 4 channels and y has 3"),
        (np.eye(4), np.eye(4), "rv", r"X has the shape \(4, 4\)"),
        (np.ones((2, 3, 4)), None, "rv", "square"),
        (np.ones((2, 3, 4)), None, "cosine", r"X has the shape \(2, 3, 4\)"),
    ],
)
def test_fit_tells_wrong_arguments(X, y, metric, message):
    with pytest.raises(ValueError, match=message) as error:
        ModeMatcher(metric=metric).fit(X, y)
    assert "expected" in str(error.value)
    assert str(error.value).endswith(".")


def test_transform_tells_another_number_of_modes():
    with pytest.raises(ValueError, match="5 features"):
        ModeMatcher().fit(np.eye(4)).transform(np.eye(5))
    with pytest.raises(ValueError, match="5 modes, but 4 were expected"):
        ModeMatcher(metric="cosine").fit(np.eye(4)).transform(np.ones((5, 4)))


# ------------------------------------------------------------------- modes of estimators


def cut(array, lengths):
    return np.split(array, np.cumsum(lengths)[:-1])


@pytest.mark.parametrize("seed", range(4))
def test_match_modes_of_sessions_is_that_of_their_rows(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 40, size=3)
    truth = rng.dirichlet(np.ones(4), size=lengths.sum())
    found = (truth + 0.1 * rng.standard_normal(truth.shape))[:, rng.permutation(4)]
    _, wanted = match_modes(truth, found)
    for first in (truth, cut(truth, lengths)):
        for other in (found, cut(found, lengths), tuple(cut(found, lengths))):
            matched = match_modes(first, other)
            for put, back in zip((first, other), matched, strict=True):
                assert isinstance(back, np.ndarray if isinstance(put, np.ndarray) else list)
            rows = np.concatenate(matched[1]) if isinstance(matched[1], list) else matched[1]
            np.testing.assert_array_equal(rows, wanted)
            order = match_modes(first, other, return_order=True)[1]
            np.testing.assert_array_equal(found[:, order], wanted)


def test_match_modes_takes_and_returns_stacks():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.ones(3), size=(4, 30))
    first, matched = match_modes(truth, truth[:, :, [2, 0, 1]])
    assert first is truth
    np.testing.assert_array_equal(matched, truth)
    listed = match_modes(list(truth), truth[:, :20, [1, 2, 0]])[1]
    np.testing.assert_array_equal(listed, truth[:, :20])


class Modes(BaseEstimator):
    """A fitted model of modes."""

    def __init__(self, order):
        self.order = order

    def fit(self, X, y=None):
        rng = np.random.default_rng(0)
        factors = rng.standard_normal((3, 4, 8))
        self.covariances_ = (factors @ factors.transpose(0, 2, 1))[self.order]
        self.means_ = rng.standard_normal((3, 4))[self.order]
        return self

    def transform(self, X):
        return np.asarray(X)

    def score(self, X, y=None):
        return 0.0


@pytest.mark.parametrize("metric", ["riemannian", "rv", "cosine"])
def test_match_modes_of_fitted_estimators_pipelines_and_searches(metric):
    X = np.random.default_rng(0).standard_normal((20, 4))
    models = [
        Modes([0, 1, 2]),
        make_pipeline(StandardScaler(), Modes([2, 0, 1])),
        GridSearchCV(make_pipeline(StandardScaler(), Modes([1, 2, 0])), {}, cv=2),
    ]
    with pytest.raises(NotFittedError, match="This Modes instance is not fitted"):
        match_modes(*models, metric=metric)
    for model in models:
        model.fit(X)
    first, *others = match_modes(*models, metric=metric)
    name = "means_" if metric == "cosine" else "covariances_"
    np.testing.assert_array_equal(first, getattr(models[0], name))
    for other in others:
        np.testing.assert_array_equal(other, first)
    orders = match_modes(first, *models[1:], metric=metric, return_order=True)
    assert [order.tolist() for order in orders] == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    with pytest.raises(TypeError, match=r"mixing coefficients were expected. Pass estimator.tra"):
        match_modes(*models)
    with pytest.raises(TypeError, match=f"The fitted StandardScaler has no {name}"):
        match_modes(models[0], StandardScaler().fit(X), metric=metric)
