"""Comparisons: scores of cross_validate, errors by hand, and reports of failed fits."""

import time

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn
import sklearn.metrics
import threadpoolctl
import torch
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import AdaBoostRegressor
from sklearn.exceptions import FitFailedWarning, UnsetMetadataPassedError
from sklearn.linear_model import Ridge
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, KFold, LeaveOneGroupOut, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.fixes import parse_version

from skdyn import NEMSRegressor
from skdyn.metrics import (
    CorrelationScorer,
    NoiseCorrectedScorer,
    correlation_score,
    correlation_scorer,
    get_scorer,
    get_scorer_names,
)
from skdyn.model_selection import BlockKFold, SessionKFold, compare_models
from skdyn.model_selection.evaluation import Rows, evaluate

SESSIONS = np.repeat([0, 1, 2, 3], [60, 80, 40, 60])
TWICE = np.repeat([0, 1, 2, 3, 0, 1], 40)


@pytest.fixture(scope="module")
def data():
    """Three neurons that follow the row three before, with more and more noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((240, 1))
    y = np.roll(X, 3, axis=0) + [0.1, 0.5, 1.0] * rng.standard_normal((240, 3))
    X.flags.writeable = y.flags.writeable = False
    return X, y


def fir(n_lags, n_outputs=3):
    return NEMSRegressor(f"fir.{n_lags}x1x{n_outputs}")


class Failing(RegressorMixin, BaseEstimator):
    """Fails in fit, or in predict, if the data begin with a given value."""

    def __init__(self, value=None, step="fit"):
        self.value = value
        self.step = step

    def _fail(self, X, step):
        if step == self.step and self.value in (None, X[0, 0]):
            raise RuntimeError("no luck\nmore lines")

    def fit(self, X, y):
        self._fail(X, "fit")
        self.n_outputs_ = y.shape[1]
        return self

    def predict(self, X):
        self._fail(X, "predict")
        return np.tile(X, self.n_outputs_)


class Threads(BaseEstimator):
    """Scores how many threads torch and BLAS have in fit."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def fit(self, X, y=None):
        time.sleep(self.seconds)
        pools = threadpoolctl.threadpool_info()
        blas = [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]
        self.n_threads_ = max(torch.get_num_threads(), *blas)
        return self

    def score(self, X, y=None):
        return self.n_threads_


class Seeing(TransformerMixin, BaseEstimator):
    """Writes down the sessions that it is given."""

    __metadata_request__fit = {"sessions": True}  # noqa: RUF012
    __metadata_request__score = {"sessions": True}  # noqa: RUF012

    def fit(self, X, y=None, *, sessions=None):
        self.X_, self.sessions_ = np.array(X), sessions
        return self

    def score(self, X, y=None, *, sessions=None, sample_weight=None):
        self.scored_ = sessions
        return 0.0


class Undecided(Seeing):
    __metadata_request__fit = {"sessions": None}  # noqa: RUF012


# Scores.


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("pipeline", [False, True])
@pytest.mark.parametrize("cv", [BlockKFold(3, gap=2), BlockKFold(2, n_blocks=5), None, 3], ids=str)
@pytest.mark.parametrize(
    "sessions", [None, SESSIONS, TWICE], ids=["one", "several", "labels that come twice"]
)
def test_compare_models_scores_as_cross_validate(data, routing, pipeline, cv, sessions):
    if pipeline and parse_version(sklearn.__version__) < parse_version("1.8"):
        pytest.skip("scikit-learn 1.7 scores pipelines without metadata in cross_validate")
    X, y = data
    model = make_pipeline(StandardScaler(), fir(5)) if pipeline else fir(5)
    with config_context(enable_metadata_routing=routing):
        result = compare_models({"model": model}, X, y, cv=cv, sessions=sessions)
        assert get_config()["enable_metadata_routing"] is routing
    if not isinstance(cv, BlockKFold):
        maker = BlockKFold if sessions is None else SessionKFold
        cv = maker(cv or (5 if sessions is None else 4))
    if isinstance(cv, BlockKFold):
        params = {"sessions": cv.block_labels(X, sessions)}
    else:
        runs = np.cumsum(np.diff(sessions, prepend=sessions[0]) != 0)
        params = {"sessions": runs, "groups": sessions}
    with config_context(enable_metadata_routing=True):
        expected = cross_validate(model, X, y, cv=cv, params=params)
    np.testing.assert_array_equal(result.scores[0, :, 0], expected["test_score"])
    assert result.mean_score[0] == pytest.approx(expected["test_score"].mean(), abs=1e-15)


@pytest.mark.parametrize("form", ["list", "stack"])
def test_compare_models_takes_lists_and_stacks(data, form):
    X, y = data
    lengths = [60, 80, 40, 60] if form == "list" else [60] * 4
    stimuli, responses = (np.split(values, np.cumsum(lengths)[:-1]) for values in data)
    given = (np.stack(stimuli), np.stack(responses)) if form == "stack" else (stimuli, responses)
    result = compare_models([fir(5)], *given, cv=2)
    by_label = compare_models([fir(5)], X, y, cv=2, sessions=np.repeat(range(4), lengths))
    np.testing.assert_array_equal(result.scores, by_label.scores)
    assert compare_models([fir(5)], *given).scores.shape == (1, 4, 1)
    assert compare_models([fir(5)], *(one[:2] for one in given)).scores.shape == (1, 2, 1)


def test_compare_models_scores_modes_by_evidence(recording, small_dynemo):
    model = small_dynemo(n_epochs=10)
    result = compare_models([make_pipeline(StandardScaler(), model)], recording, cv=2)
    cv = BlockKFold(2)
    with config_context(enable_metadata_routing=True):
        expected = cross_validate(
            make_pipeline(StandardScaler(), model),
            recording,
            cv=cv,
            params={"sessions": cv.block_labels(recording)},
        )
    np.testing.assert_array_equal(result.scores[0, :, 0], expected["test_score"])


def test_compare_models_keeps_runs_apart(data):
    X, _ = data
    cv = KFold(3)
    result = compare_models({"it": Seeing()}, X, cv=cv, return_estimators=True)
    for (train, _), fitted in zip(cv.split(X), result.estimators[0, :, 0], strict=True):
        np.testing.assert_array_equal(fitted.X_, X[train])
        runs = np.split(train, np.flatnonzero(np.diff(fitted.sessions_)) + 1)
        assert len(runs) == 1 + (np.diff(train) > 1).sum()
        assert all(np.all(np.diff(run) == 1) for run in runs)
    assert result.estimators[0, 1, 0].scored_.tolist() == [0] * 80
    # Sessions of the same label, and blocks, stay apart, too.
    halves = compare_models({"it": Seeing()}, X, sessions=SESSIONS, cv=3, return_estimators=True)
    for fitted in halves.estimators[0, :, 0]:
        assert len(np.unique(fitted.sessions_)) >= 2


def test_compare_models_mixes_candidates_with_and_without_sessions(data):
    X, y = data
    candidates = {
        "ridge": make_pipeline(StandardScaler(), Ridge()),
        "boosting": AdaBoostRegressor(n_estimators=2, random_state=0),
        "fir": fir(5, 1),
        "search": GridSearchCV(fir(5, 1), {"alpha": [0.0, 1e3]}, cv=BlockKFold(2)),
    }
    result = compare_models(candidates, X, y[:, 0], sessions=SESSIONS, cv=2)
    for name in ("ridge", "boosting"):
        expected = cross_validate(
            candidates[name], X, y[:, 0], groups=SESSIONS, cv=SessionKFold(2)
        )["test_score"]
        np.testing.assert_allclose(result.scores[result.names.index(name), :, 0], expected)
    assert result.mean_score[2] == pytest.approx(result.mean_score[3])
    # Scoring this one fails in scikit-learn 1.9 if routing is enabled.
    assert compare_models([make_pipeline(StandardScaler(), PCA(1))], X).best_index == 0


def test_compare_models_requires_requests_for_sessions(data):
    with pytest.raises(UnsetMetadataPassedError, match="sessions"):
        compare_models([Undecided()], data[0])


def test_compare_models_routes_metadata(data):
    X, y = data
    weight = np.random.default_rng(1).integers(1, 5, size=240)
    with config_context(enable_metadata_routing=True):
        ridge = Ridge().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        expected = cross_validate(ridge, X, y, cv=KFold(3), params={"sample_weight": weight})
    result = compare_models([ridge], X, y, cv=KFold(3), params={"sample_weight": weight})
    np.testing.assert_array_equal(result.scores[0, :, 0], expected["test_score"])
    plain = compare_models([Ridge()], X, y, cv=KFold(3))
    assert np.abs(plain.scores - result.scores).max() > 1e-6
    with pytest.raises(TypeError, match="weights"):
        compare_models([ridge], X, y, cv=KFold(3), params={"weights": weight})
    grouped = compare_models([Ridge()], X, y, cv=SessionKFold(2), params={"groups": SESSIONS})
    assert grouped.scores.shape == (1, 2, 1)


def test_compare_models_leaves_one_group_out(data):
    X, y = data
    subjects = np.repeat([0, 1, 2], [60, 80, 100])
    found = [
        compare_models([fir(5)], X, y, cv=cv, sessions=SESSIONS, params={"groups": subjects}).scores
        for cv in (LeaveOneGroupOut(), SessionKFold(3))
    ]
    np.testing.assert_allclose(np.sort(found[0], axis=1), np.sort(found[1], axis=1))
    for fold, one in enumerate(found[0][0, :, 0]):
        train, test = subjects != fold, subjects == fold
        fitted = fir(5).fit(X[train], y[train], sessions=SESSIONS[train])
        assert one == pytest.approx(fitted.score(X[test], y[test], sessions=SESSIONS[test]))


def test_compare_models_leaves_one_session_out_without_groups(data):
    X, y = data
    lists = ([x[label == SESSIONS] for label in np.unique(SESSIONS)] for x in (X, y))
    labelled = compare_models([fir(5)], X, y, cv=LeaveOneGroupOut(), sessions=SESSIONS)
    listed = compare_models([fir(5)], *lists, cv=LeaveOneGroupOut())
    params = {"groups": SESSIONS}
    expected = compare_models(
        [fir(5)], X, y, cv=LeaveOneGroupOut(), sessions=SESSIONS, params=params
    )
    np.testing.assert_array_equal(labelled.scores, expected.scores)
    np.testing.assert_allclose(listed.scores, expected.scores)
    with pytest.raises(ValueError, match="groups"):
        compare_models([fir(5)], X, y, cv=LeaveOneGroupOut())


@pytest.mark.slow
def test_compare_models_with_two_workers_gives_the_same(data):
    X, y = data
    candidates = {n: fir(n) for n in (2, 5)}
    one, two = (compare_models(candidates, X, y, cv=3, n_jobs=n_jobs) for n_jobs in (1, 2))
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.difference_standard_error, two.difference_standard_error)


@pytest.mark.parametrize("frame", [False, True])
def test_compare_models_changes_nothing_of_the_caller(data, frame):
    X, y = (pd.DataFrame(values) if frame else np.array(values) for values in data)
    before, model = (X.copy(), y.copy()), fir(3)
    result = compare_models([model], X, y, cv=2, repeat=2, random_state=0)
    assert not hasattr(model, "model_")
    assert model.random_state is None
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])
    np.testing.assert_array_equal(
        result.scores, compare_models([model], *data, cv=2).scores[..., [0, 0]]
    )


def two_blas_threads():
    # Not those of OpenMP: torch would keep them where it calls MKL, and be slow in later tests.
    return threadpoolctl.threadpool_limits(2, user_api="blas")


@pytest.mark.parametrize(
    "backend", ["sequential", "threading", pytest.param("loky", marks=pytest.mark.slow)]
)
def test_compare_models_fits_on_one_thread(data, backend):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with two_blas_threads(), joblib.parallel_config(backend=backend, n_jobs=2):
            kept = threadpoolctl.threadpool_info()
            assert {one["num_threads"] for one in kept if one["user_api"] == "blas"} == {2}
            # Fits begin one after the other, and end in the order in which they began.
            result = compare_models([Threads(0.02), Threads(0.05)], data[0], cv=4)
            assert threadpoolctl.threadpool_info() == kept
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert np.all(result.scores == 1)


def test_compare_models_in_a_worker_has_one_thread():
    everything = Rows(np.zeros((4, 1)), None, None), (np.arange(3), np.arange(3, 4)), {}, {}
    options = {"want_modes": False, "want_estimator": False, "may_raise": True}
    with two_blas_threads():
        found = evaluate(Threads(), None, *everything, **options)
    assert found.scores == 1


# Errors.


def test_differences_over_folds_are_paired(data):
    X, y = data
    result = compare_models({n: fir(n) for n in (5, 2, 4)}, X, y, cv=4)
    scores = result.scores[:, :, 0]
    best = scores.mean(axis=1).argmax()
    assert result.paired_over == "folds"
    assert (result.best_index, result.best_name) == (best, [5, 2, 4][best])
    for place in range(3):
        spread = np.std(scores[place], ddof=1) * np.sqrt(1 / 4 + 1 / 3)  # Nadeau and Bengio
        assert result.standard_error[place] == pytest.approx(spread)
        if place == best:
            assert result.difference_to_best[place] == 0
            assert result.difference_standard_error[place] == 0
            assert result.p_value[place] == 1
            continue
        mean = result.difference_to_best[place]
        test = scipy.stats.ttest_rel(scores[place], scores[best])
        ratio = test.statistic / np.sqrt(1 + 4 / 3)
        assert mean / result.difference_standard_error[place] == pytest.approx(ratio)
        assert result.p_value[place] == pytest.approx(2 * scipy.stats.t.sf(abs(ratio), 3))
    assert result.rank.tolist() == scipy.stats.rankdata(-result.mean_score).tolist()


def test_compare_models_compares_neurons(data):
    X, y = data
    result = compare_models(
        {n: fir(n) for n in (2, 5)}, X, y, cv=3, scoring="correlation", paired_over="outputs"
    )
    assert result.scores.shape == (2, 3, 1, 3)
    labels = BlockKFold(3).block_labels(X)
    for fold, (train, test) in enumerate(BlockKFold(3).split(X)):
        fitted = fir(5).fit(X[train], y[train], sessions=labels[train])
        expected = correlation_score(y[test], fitted.predict(X[test]), multioutput="raw_values")
        np.testing.assert_allclose(result.scores[1, fold, 0], expected, atol=1e-12)
    neurons = result.scores[:, :, 0].mean(axis=1)
    test = scipy.stats.ttest_rel(neurons[0], neurons[1])
    np.testing.assert_allclose(result.mean_score, neurons.mean(axis=1))
    np.testing.assert_allclose(result.standard_error, scipy.stats.sem(neurons, axis=1))
    ratio = result.difference_to_best[0] / result.difference_standard_error[0]
    assert ratio == pytest.approx(test.statistic)
    assert result.p_value[0] == pytest.approx(test.pvalue)


@pytest.mark.parametrize("scoring", [correlation_scorer, CorrelationScorer("raw_values")])
def test_compare_models_takes_the_same_scorers_as_a_search(data, scoring):
    X, y = data
    options = {"cv": BlockKFold(3)}
    named = compare_models([fir(2), fir(5)], X, y, scoring="correlation", **options)
    given = compare_models([fir(2), fir(5)], X, y, scoring=scoring, **options)
    np.testing.assert_array_equal(given.scores, named.scores)
    assert given.paired_over == "both"
    scorer = get_scorer("correlation")
    search = GridSearchCV(fir(2), {"layers": ["fir.2x1x3", "fir.5x1x3"]}, scoring=scorer, **options)
    labels = BlockKFold(3).block_labels(X)
    with config_context(enable_metadata_routing=True):
        search.fit(X, y, sessions=labels)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], named.mean_score)


def test_get_scorer_knows_the_names_of_both_packages():
    assert isinstance(get_scorer("noise_corrected_correlation"), NoiseCorrectedScorer)
    assert get_scorer("correlation") is not correlation_scorer
    assert repr(get_scorer("r2")) == repr(sklearn.metrics.get_scorer("r2"))
    assert get_scorer(np.mean) is np.mean
    names = get_scorer_names()
    assert names == sorted(names)
    assert {"r2", "correlation", "noise_corrected_correlation"} <= set(names)
    with pytest.raises(ValueError, match=r"'correlaton' is no scorer.*get_scorer_names"):
        get_scorer("correlaton")


@pytest.mark.parametrize("units", ["outputs", "folds", "both"])
def test_compare_models_pairs_over_outputs_folds_or_both(data, units):
    X, y = data
    result = compare_models(
        {n: fir(n) for n in (2, 5)}, X, y, cv=3, scoring="correlation", paired_over=units
    )
    assert result.paired_over == units
    assert result.test_to_train == 0.5
    scores = result.scores[:, :, 0]
    np.testing.assert_allclose(result.mean_score, scores.mean(axis=(1, 2)))
    freedom = {"outputs": 2, "folds": 2}.get(units, result.degrees_of_freedom[0])
    assert result.degrees_of_freedom[0] == pytest.approx(freedom)
    if units == "folds":
        test = scipy.stats.ttest_rel(*scores.mean(axis=2))
        ratio = result.difference_to_best[0] / result.difference_standard_error[0]
        assert ratio == pytest.approx(test.statistic / np.sqrt(1 + 3 * 0.5))
    shown = {"outputs": "3 outputs", "folds": "3 folds", "both": "3 outputs and folds"}
    assert repr(result).split("\n")[0].endswith(f"standard error over {shown[units]}")


def test_compare_models_leaves_neurons_without_a_score_out(data):
    X, y = data

    def scorer(estimator, X, y):
        found = correlation_score(y, estimator.predict(X), multioutput="raw_values")
        return np.where([X[0, 0] == data[0][0, 0], True, False], np.nan, found)

    result = compare_models([fir(5), fir(2)], X, y, cv=3, scoring=scorer, paired_over="outputs")
    scores = result.scores[:, :, 0]
    assert np.isnan(scores).tolist() == [[[True, True, False], *[[False, True, False]] * 2]] * 2
    neurons = np.stack([scores[:, 1:, 0].mean(axis=1), scores[:, :, 2].mean(axis=1)], axis=1)
    np.testing.assert_allclose(result.mean_score, neurons.mean(axis=1))
    np.testing.assert_allclose(result.standard_error, scipy.stats.sem(neurons, axis=1))


@pytest.mark.parametrize("scoring", ["r2", make_scorer(r2_score), lambda model, X, y: 0.5])
def test_compare_models_takes_any_scorer_of_one_number(data, scoring):
    X, y = data
    result = compare_models([Ridge()], X, y, cv=KFold(3), scoring=scoring)
    expected = cross_validate(Ridge(), X, y, cv=KFold(3), scoring=scoring)["test_score"]
    np.testing.assert_allclose(result.scores[0, :, 0], expected, atol=1e-12)


def as_masks(folds, n_rows):
    return [tuple(np.isin(np.arange(n_rows), rows) for rows in fold) for fold in folds]


@pytest.mark.parametrize(
    "form",
    [
        list,
        iter,
        lambda folds: as_masks(folds, 240),
        lambda folds: [tuple(map(list, fold)) for fold in folds],
        lambda folds: [tuple(map(pd.Series, fold)) for fold in as_masks(folds, 240)],
        lambda folds: (fold for fold in as_masks(folds, 240)),
    ],
)
@pytest.mark.parametrize("as_sessions", [False, True])
def test_compare_models_takes_folds_in_every_form(data, form, as_sessions):
    X, y = data
    if as_sessions:
        X, y = ([one.reshape(-1, one.shape[-1])] * 240 for one in (X[:4], y[:4]))
    folds = list(KFold(3).split(np.zeros(240)))
    expected = compare_models([fir(2)], X, y, cv=KFold(3)).scores
    found = compare_models([fir(2)], X, y, cv=form(folds))
    np.testing.assert_array_equal(found.scores, expected)


def test_evaluate_reports_errors_of_rows_that_do_not_exist(data):
    options = {"want_modes": False, "want_estimator": False}
    everything = Rows(*data, None), (np.arange(3), np.array([999])), {}, {}
    found = evaluate(Ridge(), None, *everything, may_raise=False, **options)
    assert found.failure[:2] == ("fit", "IndexError")
    with pytest.raises(IndexError):
        evaluate(Ridge(), None, *everything, may_raise=True, **options)


def test_compare_models_leaves_a_fold_out_in_which_nothing_has_a_score(data):
    """A neuron that is silent in a test block has no correlation there."""
    X, y = data[0], data[1][:, 0].copy()
    y[80:160] = 0
    result = compare_models([fir(5, 1), fir(2, 1)], X, y, cv=3, scoring="correlation")
    assert np.isnan(result.scores[:, 1]).all()
    np.testing.assert_allclose(result.mean_score, result.scores[:, [0, 2], 0].mean(axis=1))
    assert repr(result).split("\n")[0].endswith("over 2 folds (1 without a score)")


def test_compare_models_compares_one_neuron_over_folds(data):
    X, y = data
    result = compare_models([fir(5, 1)], X, y[:, 0], scoring="correlation", cv=3)
    assert result.scores.shape == (1, 3, 1)
    assert result.paired_over == "folds"


def test_compare_models_takes_repeats(data):
    X, y = data
    repeats = y[:, :, np.newaxis] + np.random.default_rng(0).standard_normal((240, 3, 4))
    options = {"cv": 3, "params": {"repeats": repeats}}
    raw = compare_models([fir(5)], X, y, cv=3, scoring="correlation")
    corrected = compare_models([fir(5)], X, y, scoring="noise_corrected_correlation", **options)
    assert corrected.scores.shape == raw.scores.shape
    assert corrected.mean_score[0] > 0.5


def test_compare_models_of_one_fold_or_output_has_no_error(data):
    X, y = data
    split = [(np.arange(200), np.arange(200, 240))]
    neurons = compare_models([fir(5), fir(2)], X, y, cv=split, scoring="correlation")
    assert neurons.paired_over == "outputs"
    assert np.isfinite(neurons.standard_error).all()
    result = compare_models([fir(5), fir(2)], X, y, cv=split)
    assert np.isnan(result.standard_error).all()
    assert result.difference_to_best[1] < 0
    assert "±" not in repr(result).split("\n", 1)[1]


# Failures.


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_compare_models_reports_a_failing_candidate(data, n_jobs):
    X, y = data
    with pytest.warns(FitFailedWarning, match=r"(?s)3 of 9.*bad: fit failed in 3 of 3.*no luck"):
        result = compare_models(
            {"bad": Failing(), "fir": fir(5), "ridge": Ridge()}, X, y, cv=3, n_jobs=n_jobs
        )
    assert result.best_name == "fir"
    assert result.rank.tolist() == [3, 1, 2]
    assert np.isnan(result.mean_score[0])
    assert [(one.name, one.fold, one.step, one.error) for one in result.failures] == [
        ("bad", fold, "fit", "RuntimeError") for fold in range(3)
    ]
    assert "_fail" in result.failures[0].traceback
    without = compare_models([fir(5), Ridge()], X, y, cv=3)
    np.testing.assert_array_equal(result.scores[1:], without.scores)
    np.testing.assert_array_equal(result.difference_to_best[1:], without.difference_to_best)
    assert result.to_frame().loc["bad", "n_failures"] == 3
    assert "bad: fit failed in 3 of 3 fits: RuntimeError: no luck" in repr(result)


@pytest.mark.parametrize("step", ["fit", "predict"])
@pytest.mark.parametrize("scoring", [None, "correlation"])
def test_compare_models_ranks_a_candidate_that_fails_once_last(data, step, scoring):
    X, y = data
    value = X[80, 0]  # first row of the training set of fold 0, and of the test set of fold 1
    with pytest.warns(FitFailedWarning, match="1 of 6"):
        result = compare_models(
            {"bad": Failing(value, step), "worse": Ridge()}, X, y, cv=3, scoring=scoring
        )
    fold = {"fit": 0, "predict": 1}[step]
    assert result.failures[0].fold == fold
    assert result.failures[0].step == {"fit": "fit", "predict": "score"}[step]
    missing = np.isnan(result.scores[0].reshape(3, -1)).all(axis=1)
    assert np.flatnonzero(missing).tolist() == [fold]
    assert result.rank.tolist() == [2, 1]
    assert np.isnan(result.difference_to_best[0])


def test_compare_models_takes_a_number_as_error_score(data):
    X, y = data
    with pytest.warns(FitFailedWarning):
        result = compare_models([Failing(X[80, 0]), Ridge()], X, y, cv=3, error_score=-7)
    assert result.scores[0, 0, 0] == -7
    assert result.mean_score[0] == pytest.approx(result.scores[0].mean())


def test_compare_models_raises_if_all_fits_fail(data):
    X, y = data
    with pytest.raises(ValueError, match=r"(?s)All 6 fits failed.*no luck"):
        compare_models({"one": Failing(), "other": Failing(step="predict")}, X, y, cv=3)
    with (
        pytest.warns(FitFailedWarning),
        pytest.raises(ValueError, match="No candidate has a score in all folds"),
    ):
        compare_models([Failing(X[80, 0])], X, y, cv=3)
    with pytest.raises(RuntimeError, match="no luck"):
        compare_models([Failing(), Ridge()], X, y, cv=3, error_score="raise")
    fine = compare_models([Ridge()], X, y, cv=3, error_score="raise")
    assert np.isfinite(fine.scores).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"estimators": Ridge()}, "put it in a list"),
        ({"estimators": []}, "at least one"),
        ({"estimators": [("a", Ridge()), ("a", Ridge())]}, "different names"),
        ({"estimators": {"a": Ridge}}, "an estimator with fit"),
        ({"estimators": {"a": 3}}, "an estimator with fit"),
        ({"repeat": 0}, "repeat must .* is 0"),
        ({"error_score": "warn"}, "error_score must .* is 'warn'"),
        ({"scoring": ["r2"]}, "one metric at a time"),
        ({"scoring": "r3"}, "'r3' is no scorer"),
        ({"paired_over": "neurons"}, "'neurons'"),
        ({"scoring": lambda model, X, y: {"a": 1.0}, "error_score": "raise"}, "one metric"),
        ({"sessions": [0, 1]}, "inconsistent numbers"),
        ({"params": {"sessions": SESSIONS}}, "pass them as sessions="),
        ({"cv": SessionKFold(2)}, "no label per row"),
    ],
)
def test_compare_models_says_which_argument_is_wrong(data, arguments, message):
    X, y = data
    arguments = {"estimators": [Ridge()], "X": X, "y": y} | arguments
    with pytest.raises(ValueError, match=message):
        compare_models(**arguments)


def test_compare_models_refuses_sessions_twice(data):
    X, y = data
    with pytest.raises(ValueError, match="together with X as sessions"):
        compare_models([fir(5)], [X, X], [y, y], sessions=[0, 1])
    with pytest.raises(ValueError, match=r"there are 1; .*use BlockKFold"):
        compare_models([fir(5)], [X], [y])
