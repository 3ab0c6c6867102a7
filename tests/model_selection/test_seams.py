"""Scores of folds with seams: each run is scored alone, for all scorers, models and forms."""

import numpy as np
import pandas as pd
import pytest
from hmmlearn.hmm import GaussianHMM
from sklearn import clone, config_context
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.decomposition import FactorAnalysis
from sklearn.ensemble import AdaBoostRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    make_scorer,
    mean_squared_error,
    r2_score,
    roc_auc_score,
)
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skdyn import NEMSRegressor
from skdyn.metrics import correlation_score
from skdyn.model_selection import BlockKFold, SessionKFold, compare_models
from skdyn.model_selection.seams import RunByRun, fit_runs, score_of
from skdyn.preprocessing import MovingAverage, SessionScaler, TimeDelayPCA

N_ROWS, LAG = 240, 5
FOLDS = BlockKFold(2, n_blocks=8)


@pytest.fixture(scope="module")
def data():
    """Two outputs that are the stimulus some rows before, and a little noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N_ROWS, 1))
    y = np.roll(X, LAG, axis=0) + 0.1 * rng.standard_normal((N_ROWS, 2))
    X.flags.writeable = y.flags.writeable = False
    return X, y


class Lagged(RegressorMixin, BaseEstimator):
    """A regression on the rows before, that knows no sessions."""

    def fit(self, X, y):
        self.regression_ = LinearRegression().fit(self._design(X), y)
        return self

    def _design(self, X):
        X = np.asarray(X)
        return np.hstack([np.vstack([np.zeros((n, 1)), X])[: len(X)] for n in range(LAG + 1)])

    def predict(self, X):
        return self.regression_.predict(self._design(X))


class LaggedClassifier(ClassifierMixin, Lagged):
    def fit(self, X, y):
        self.regression_ = LogisticRegression().fit(self._design(X), y)
        self.classes_ = self.regression_.classes_
        return self

    def predict_proba(self, X):
        return self.regression_.predict_proba(self._design(X))


class Smoothing(TransformerMixin, BaseEstimator):
    """Means of neighbouring rows, that knows no sessions."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return (X + np.vstack([X[1:], X[-1:]])) / 2


def by_run(method, X, labels):
    """Output of a method for each run of a label alone."""
    borders = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    return np.concatenate([method(one) for one in np.split(X, borders)])


def predicted_by_run(model, X, y, method="predict"):
    """True and predicted responses of each fold, blocks being files of their own."""
    labels = FOLDS.block_labels(X)
    for train, test in FOLDS.split(X):
        fitted = clone(model)
        if isinstance(model, NEMSRegressor):
            fitted.fit(X[train], y[train], sessions=labels[train])
        else:
            fitted.fit(X[train], y[train])
        yield y[test], by_run(getattr(fitted, method), X[test], labels[test])


def r2_by_hand(estimator, X, y):
    return r2_score(y, estimator.predict(X))


METRICS = {
    "r2": r2_score,
    "neg_mean_squared_error": lambda *pair: -mean_squared_error(*pair),
    make_scorer(r2_score): r2_score,
    make_scorer(mean_squared_error, greater_is_better=False): lambda *pair: (
        -mean_squared_error(*pair)
    ),
    r2_by_hand: r2_score,
    "correlation": correlation_score,
}


def name_of(scoring):
    return getattr(scoring, "__name__", str(scoring))


@pytest.mark.parametrize("scoring", METRICS, ids=name_of)
@pytest.mark.parametrize("model", [NEMSRegressor("fir.7x1x2"), Lagged()], ids=["own", "other"])
def test_scorers_predict_each_run_alone(data, model, scoring):
    X, y = data
    wanted = [METRICS[scoring](*pair) for pair in predicted_by_run(model, X, y)]
    found = compare_models([model], X, y, cv=FOLDS, scoring=scoring).scores[0, :, 0]
    found = found.mean(axis=-1) if found.ndim == 2 else found
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    labels = FOLDS.block_labels(X)
    crossed = []
    for train, test in FOLDS.split(X):
        given = {"sessions": labels[train]} if isinstance(model, NEMSRegressor) else {}
        fitted = clone(model).fit(X[train], y[train], **given)
        crossed.append(METRICS[scoring](y[test], fitted.predict(X[test])))
    assert np.abs(np.subtract(crossed, wanted)).max() > 1e-3, "the test would not see a leak"


@pytest.mark.parametrize("scoring", [None, "r2", r2_by_hand], ids=name_of)
@pytest.mark.parametrize("wrap", [False, True])
def test_models_without_sessions_are_scored_run_by_run(data, scoring, wrap):
    """By their own score, too, which asks for nothing but predictions; in pipelines as well."""
    X, y = data
    model = make_pipeline(StandardScaler(), Lagged()) if wrap else Lagged()
    wanted = [r2_score(*pair) for pair in predicted_by_run(model, X, y)]
    found = compare_models([model], X, y, cv=FOLDS, scoring=scoring)
    np.testing.assert_allclose(found.scores[0, :, 0], wanted, rtol=1e-9)


@pytest.mark.parametrize("own", [None, "r2"])
@pytest.mark.parametrize("scoring", [None, "r2"])
def test_searches_are_scored_run_by_run(data, scoring, own):
    X, y = data
    search = GridSearchCV(Lagged(), {}, scoring=own, cv=2)
    wanted = [r2_score(*pair) for pair in predicted_by_run(Lagged(), X, y)]
    found = compare_models([search], X, y, cv=FOLDS, scoring=scoring)
    np.testing.assert_allclose(found.scores[0, :, 0], wanted, rtol=1e-9)


@pytest.mark.parametrize(
    ("scoring", "metric", "method"),
    [
        (None, accuracy_score, "predict"),
        ("accuracy", accuracy_score, "predict"),
        ("neg_log_loss", lambda *pair: -log_loss(*pair), "predict_proba"),
        ("roc_auc", lambda true, found: roc_auc_score(true, found[:, 1]), "predict_proba"),
    ],
)
def test_classifiers_are_scored_run_by_run(data, scoring, metric, method):
    X, y = data[0], (data[1][:, 0] > 0).astype(int)
    wanted = [metric(*pair) for pair in predicted_by_run(LaggedClassifier(), X, y, method)]
    found = compare_models([LaggedClassifier()], X, y, cv=FOLDS, scoring=scoring)
    np.testing.assert_allclose(found.scores[0, :, 0], wanted, rtol=1e-9)


def test_steps_without_sessions_transform_each_run_alone(data):
    X, y = data
    model = make_pipeline(Smoothing(), MovingAverage(3), LinearRegression())
    found = compare_models([model], X, y, cv=FOLDS, sessions=np.zeros(N_ROWS)).scores[0, :, 0]
    labels = FOLDS.block_labels(X)
    for (train, test), score in zip(FOLDS.split(X), found, strict=True):
        means = MovingAverage(3).fit(X)
        smooth = Smoothing().transform(X[train])  # `fit` of a Pipeline has no say in it
        smooth = means.transform(smooth, sessions=labels[train])
        regression = LinearRegression().fit(smooth, y[train])
        smooth = by_run(Smoothing().transform, X[test], labels[test])
        smooth = means.transform(smooth, sessions=labels[test])
        assert score == pytest.approx(r2_score(y[test], regression.predict(smooth)))


@pytest.mark.parametrize("form", ["list", "stack"])
@pytest.mark.parametrize("scoring", ["r2", make_scorer(mean_squared_error)], ids=["r2", "mse"])
@pytest.mark.parametrize("outputs", [0, [0], [0, 1]], ids=str)
def test_standard_scorers_take_lists_and_stacks(data, form, scoring, outputs):
    X, y = data[0], data[1][:, outputs]
    model = NEMSRegressor("fir.7")
    labels = np.repeat(range(6), 40)
    wanted = compare_models(
        [model], X, y, cv=SessionKFold(3), scoring=scoring, sessions=labels
    ).scores
    given = [np.split(one, 6) for one in (X, y)]
    given = given if form == "list" else [np.stack(one) for one in given]
    found = compare_models([model], *given, cv=SessionKFold(3), scoring=scoring).scores
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_standard_scorers_take_weights_with_lists(data):
    X, y = data
    weight = np.random.default_rng(0).integers(1, 4, N_ROWS)
    model, labels = NEMSRegressor("fir.7"), np.repeat(range(6), 40)
    with config_context(enable_metadata_routing=True):
        model = model.set_fit_request(sample_weight=True)
        scorer = make_scorer(r2_score).set_score_request(sample_weight=True)
    options = {"cv": SessionKFold(3), "scoring": scorer}
    wanted = compare_models(
        [model], X, y, sessions=labels, params={"sample_weight": weight}, **options
    )
    given = [np.split(one, 6) for one in (X, y)]
    found = compare_models(
        [model], *given, params={"sample_weight": np.split(weight, 6)}, **options
    )
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-9)


@pytest.mark.parametrize("form", ["list", "stack"])
def test_noise_correction_takes_lists_and_stacks_of_repeats(data, form):
    X, y = data
    repeats = y[..., np.newaxis] + np.random.default_rng(0).standard_normal((N_ROWS, 2, 4))
    model, labels = NEMSRegressor("fir.7"), np.repeat(range(6), 40)
    options = {"cv": SessionKFold(3), "scoring": "noise_corrected_correlation"}
    wanted = compare_models(
        [model], X, y, sessions=labels, params={"repeats": repeats}, **options
    ).scores
    given = [np.split(one, 6) for one in (X, y, repeats)]
    given = given if form == "list" else [np.stack(one) for one in given]
    found = compare_models([model], *given[:2], params={"repeats": given[2]}, **options)
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-9)
    if form == "list":  # a session with a repeat less
        given[2][0] = given[2][0][..., 1:]
        fewer = compare_models([model], *given[:2], params={"repeats": given[2]}, **options)
        assert 0 < np.abs(fewer.scores - wanted).max() < 0.1


def test_scorer_functions_receive_lists(data):
    seen = []
    given = [np.split(one, 6) for one in data]
    compare_models(
        [NEMSRegressor("fir.2")],
        *given,
        cv=SessionKFold(3),
        scoring=lambda model, X, y: seen.append((type(model), type(X), len(y))) or 0.0,
    )
    assert seen == [(NEMSRegressor, list, 2)] * 3


def test_scorers_of_one_run_get_the_estimator_itself(data):
    seen = []
    compare_models(
        [Lagged()], *data, cv=3, scoring=lambda model, X, y: seen.append(type(model)) or 0.0
    )
    assert seen == [Lagged] * 3


# Pipelines before density models.


DENSITIES = {
    "mixture": GaussianMixture(2, random_state=0),
    "factors": FactorAnalysis(1),
    "chain": GaussianHMM(2, random_state=0),
}


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("front", [SessionScaler(), TimeDelayPCA(3, n_components=2)], ids=str)
def test_density_models_are_scored_behind_session_aware_steps(data, name, front, routing):
    """scikit-learn's Pipeline.score fails, since it passes sample_weight on."""
    X = data[1]
    sessions = np.repeat(range(6), 40)
    model = make_pipeline(clone(front), "passthrough", clone(DENSITIES[name]))
    with config_context(enable_metadata_routing=routing):
        found = compare_models([model], X, cv=3, sessions=sessions).scores[0, :, 0]
    for (train, test), score in zip(SessionKFold(3).split(X, groups=sessions), found, strict=True):
        step, last = clone(front), clone(DENSITIES[name])
        rows = step.fit_transform(X[train], sessions=sessions[train])
        held_out = step.transform(X[test], sessions=sessions[test])
        wanted = per_row(last, rows, held_out, [40] * 4, [40] * 2)
        assert score == pytest.approx(wanted, rel=1e-9)


def per_row(model, train, test, train_lengths, test_lengths):
    """Mean log-likelihood of the rows of some sessions, by hand."""
    if isinstance(model, GaussianHMM):
        return model.fit(train, train_lengths).score(test, test_lengths) / len(test)
    return model.fit(train).score(test)


@pytest.mark.parametrize("form", ["labels", "list", "unequal", "stack"])
@pytest.mark.parametrize("name", DENSITIES)
def test_models_without_sessions_are_given_rows(data, name, form):
    X = data[1]
    labels = np.repeat(range(6), 40)
    if form == "unequal":
        labels = np.repeat(range(6), [30, 50, 45, 35, 20, 60])
    sessions = [X[labels == label] for label in range(6)]
    given = {"labels": X, "stack": np.stack(sessions) if form == "stack" else None}.get(
        form, sessions
    )
    routed = {"sessions": labels} if form == "labels" else {}
    cv = SessionKFold(3)
    found = compare_models([DENSITIES[name]], given, cv=cv, **routed).scores[0, :, 0]
    numbers = np.arange(6)
    split = list(cv.split(given, **({"groups": labels} if form == "labels" else {})))
    for (train, test), score in zip(split, found, strict=True):
        if form == "labels":
            train, test = (np.unique(labels[rows]) for rows in (train, test))
        parts = [[sessions[n] for n in numbers[which]] for which in (train, test)]
        lengths = [[len(one) for one in part] for part in parts]
        wanted = per_row(clone(DENSITIES[name]), *map(np.concatenate, parts), *lengths)
        assert score == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    "model",
    [
        Pipeline([("only", GaussianMixture(2, random_state=0))]),
        make_pipeline(None, GaussianMixture(2, random_state=0)),
        make_pipeline(make_pipeline("passthrough"), GaussianMixture(2, random_state=0)),
        make_pipeline("passthrough", make_pipeline(GaussianMixture(2, random_state=0))),
    ],
    ids=["one step", "None", "nested first", "nested last"],
)
def test_pipelines_of_every_kind_score_as_their_last_step(data, model):
    X = data[1]
    wanted = compare_models([GaussianMixture(2, random_state=0)], X, cv=FOLDS).scores
    np.testing.assert_array_equal(compare_models([model], X, cv=FOLDS).scores, wanted)


# The proxy.

RUNS = np.array([0, 0, 0, 1, 1, 2])


def test_run_by_run_refuses_other_rows(data):
    X, y = data[0][:6], data[1][:6]
    proxy = RunByRun(LinearRegression().fit(X, y), RUNS)
    np.testing.assert_allclose(proxy.predict(X), LinearRegression().fit(X, y).predict(X))
    with pytest.raises(ValueError, match=r"5 rows, but the fold has 6.*score some of them"):
        proxy.predict(X[1:])


def test_run_by_run_delegates_and_joins_tuples(data):
    class Two(BaseEstimator):
        def predict(self, X, return_std=False):
            numbers = np.arange(len(X))
            return (numbers, numbers + 1) if return_std else numbers

        def predict_proba(self, X):
            return np.arange(len(X))[:, np.newaxis] * [1, 2]

        kept = 3

    proxy = RunByRun(Two(), RUNS)
    X = pd.DataFrame(data[0][:6], index=range(10, 16))
    assert proxy.predict(X).tolist() == [0, 1, 2, 0, 1, 0]
    mean, spread = proxy.predict(X, return_std=True)
    assert (mean.tolist(), spread.tolist()) == ([0, 1, 2, 0, 1, 0], [1, 2, 3, 1, 2, 1])
    assert proxy.predict_proba(X)[:, 1].tolist() == [0, 2, 4, 0, 2, 0]
    assert proxy.kept == 3
    assert not hasattr(proxy, "transform")
    with pytest.raises(AttributeError):
        RunByRun.__new__(RunByRun).predict  # noqa: B018


def test_score_of_an_unsupervised_model_has_no_y(data):
    X = data[1]
    model = GaussianMixture(2, random_state=0).fit(X)
    runs = np.repeat([0, 1], N_ROWS // 2)
    assert score_of(lambda one, X: one.score(X), model, X, None, runs, {}) == model.score(X)
    assert score_of(None, model, X, None, runs, {}) == model.score(X)
    mean = score_of(lambda one, X: one.score_samples(X).mean(), model, X, None, runs, {})
    assert mean == pytest.approx(model.score(X))


def test_shuffled_rows_are_runs_of_one(data):
    X, y = data
    cv = KFold(2, shuffle=True, random_state=0)
    found = compare_models([LinearRegression()], X, y, cv=cv, scoring="r2").scores[0, :, 0]
    for (train, test), score in zip(cv.split(X), found, strict=True):
        fitted = LinearRegression().fit(X[train], y[train])
        assert score == pytest.approx(r2_score(y[test], fitted.predict(X[test])))


@pytest.mark.parametrize("n_first", [1, 120, N_ROWS - 1])
def test_score_of_finds_seams_next_to_the_ends(data, n_first):
    X, y = data
    model = Lagged().fit(X, y)
    runs = np.repeat([0, 1], [n_first, N_ROWS - n_first])
    wanted = r2_score(y, by_run(model.predict, X, runs))
    assert score_of(None, model, X, y, runs, {}) == pytest.approx(wanted, rel=1e-12)
    assert score_of(r2_by_hand, model, X, y, runs, {}) == pytest.approx(wanted, rel=1e-12)
    assert wanted != pytest.approx(model.score(X, y), rel=1e-6)


class Strict(BaseEstimator):
    """A model with a score of its own, which is that of the class itself."""

    def fit(self, X, y=None):
        return self

    def score(self, X, y=None):
        return float(type(self) is Strict) * len(X)


def test_scores_of_their_own_get_all_rows_at_once(data):
    found = compare_models([Strict(), make_pipeline(Strict())], data[0], cv=FOLDS)
    np.testing.assert_array_equal(found.scores, N_ROWS / 2)


class EverySecond(Smoothing):
    def transform(self, X):
        return X[::2]


def test_steps_that_drop_rows_come_before_others(data):
    X = data[1]
    model = make_pipeline(EverySecond(), Smoothing(), GaussianMixture(random_state=0))
    found = compare_models([model], X, cv=FOLDS).scores[0, :, 0]
    for (train, test), score in zip(FOLDS.split(X), found, strict=True):
        fitted = clone(model).fit(X[train])
        labels = FOLDS.block_labels(X)[test]
        rest = Smoothing().transform(by_run(EverySecond().transform, X[test], labels))
        assert score == pytest.approx(fitted[-1].score(rest))


def r2_to_a_power(true, predicted, power=1):
    return r2_score(true, predicted) ** power


def test_standard_scorers_take_metadata_that_are_no_rows_with_lists(data):
    """As they are, such as a number, or a list that is as long as there are sessions."""
    X, y = ([one[:40] for _ in range(4)] for one in data)
    with config_context(enable_metadata_routing=True):
        scorer = make_scorer(r2_to_a_power).set_score_request(power=True)
    options = {"cv": SessionKFold(2), "scoring": scorer}
    one, two = (
        compare_models([NEMSRegressor("fir.7")], X, y, params={"power": power}, **options).scores
        for power in (1, 2)
    )
    np.testing.assert_allclose(one**2, two)


# Scorers that call `score`, or another method that takes sessions.


SEEING = {
    "alone": NEMSRegressor("fir.7x1x2"),
    "in a pipeline": make_pipeline(StandardScaler(), NEMSRegressor("fir.7x1x2")),
    "in a search": GridSearchCV(NEMSRegressor("fir.7x1x2"), {}, cv=2),
}


@pytest.mark.parametrize("model", SEEING.values(), ids=SEEING)
def test_scorers_that_call_score_give_the_scores_of_the_model(data, model):
    X, y = data
    own = compare_models([model], X, y, cv=FOLDS).scores
    found = compare_models([model], X, y, cv=FOLDS, scoring=lambda one, X, y: one.score(X, y))
    np.testing.assert_array_equal(found.scores, own)
    assert own.min() > 0.95  # across seams it is .5


def test_run_by_run_gives_runs_to_methods_that_take_sessions(data):
    class Asked(BaseEstimator):
        def evidence(self, X, *, sessions=None):
            return sessions

        def summary(self, X):
            return len(X)

    proxy = RunByRun(Asked(), RUNS)
    assert proxy.evidence(data[0][:6]).tolist() == RUNS.tolist()
    assert proxy.evidence(data[0][:6], sessions="theirs") == "theirs"
    assert proxy.summary(data[0][:6]) == 6


@pytest.mark.parametrize("scoring", [None, "r2", lambda one, X, y: one.score(X, y)])
def test_models_without_metadata_routing_are_given_rows(data, scoring):
    X, y = data[0], data[1][:, 0]
    model = AdaBoostRegressor(random_state=0, n_estimators=3)
    forms = [X, y], [np.split(X, 3), np.split(y, 3)], [X.reshape(3, -1, 1), y.reshape(3, -1)]
    cv = [(np.arange(160), np.arange(160, 240)), ([0, 1], [2]), ([0, 1], [2])]
    found = [
        compare_models([model], *form, cv=[folds], scoring=scoring).scores
        for form, folds in zip(forms, cv, strict=True)
    ]
    assert found[0] == found[1] == found[2]


def test_models_that_take_lengths_receive_metadata_too(data):
    class Chain(BaseEstimator):
        def fit(self, X, y=None, lengths=None, scale=1):
            self.fitted_ = lengths, scale
            return self

        def score(self, X, y=None, lengths=None, scale=1):
            return scale * sum(lengths)

    model = Chain()
    fit_runs(model, data[0][:6], None, RUNS, {"scale": 2})
    assert model.fitted_ == ([3, 2, 1], 2)
    assert score_of(None, model, data[0][:6], None, RUNS, {"scale": 3}) == 3
