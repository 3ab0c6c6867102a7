"""Scores of predicted responses, against NumPy, SciPy and closed forms."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr
from sklearn import clone, config_context
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate

from skdyn import NEMSRegressor
from skdyn.metrics import (
    CorrelationScorer,
    NoiseCorrectedScorer,
    correlation_score,
    correlation_scorer,
    noise_corrected_correlation,
    noise_corrected_scorer,
)

RNG = np.random.default_rng(0)
TRUE, PREDICTED = RNG.standard_normal((2, 50, 3))


def test_correlation_score_is_pearsons():
    scores = correlation_score(TRUE, PREDICTED, multioutput="raw_values")
    wanted = [pearsonr(*pair)[0] for pair in zip(TRUE.T, PREDICTED.T, strict=True)]
    np.testing.assert_allclose(scores, wanted, rtol=1e-12)
    assert correlation_score(TRUE, PREDICTED) == pytest.approx(np.mean(wanted))
    assert correlation_score(TRUE[:, 0], PREDICTED[:, 0].tolist()) == pytest.approx(wanted[0])


def test_correlation_score_concatenates_sessions():
    whole = correlation_score(TRUE, PREDICTED)
    for form in (list, np.stack):
        parts = [form(np.split(one, 2)) for one in (TRUE, PREDICTED)]
        assert correlation_score(*parts) == pytest.approx(whole)


def test_correlation_score_weights_repeat_samples():
    weight = np.random.default_rng(1).integers(0, 4, 50)
    repeated = [np.repeat(one, weight, axis=0) for one in (TRUE, PREDICTED)]
    found = correlation_score(TRUE, PREDICTED, sample_weight=weight)
    assert found == pytest.approx(correlation_score(*repeated))


def test_correlation_score_takes_lists_of_one_output():
    true, predicted = TRUE[:, 0], PREDICTED[:, 0]
    parts = [np.split(one, 2) for one in (true, predicted)]
    assert correlation_score(*parts) == pytest.approx(pearsonr(true, predicted)[0])
    # Lists of numbers are rows, as for scikit-learn.
    rows = [one[:, :2].tolist() for one in (TRUE, PREDICTED)]
    assert correlation_score(*rows) == pytest.approx(
        correlation_score(TRUE[:, :2], PREDICTED[:, :2])
    )


@pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 3)])
def test_correlation_score_weights_are_those_of_the_covariance(shape):
    weight = np.random.default_rng(2).random(shape)
    scores = correlation_score(TRUE, PREDICTED, sample_weight=weight, multioutput="raw_values")
    for number, score in enumerate(scores):
        own = np.broadcast_to(weight.reshape(50, -1), (50, 3))[:, number]
        matrix = np.cov(TRUE[:, number], PREDICTED[:, number], aweights=own)
        assert score == pytest.approx(matrix[0, 1] / np.sqrt(matrix[0, 0] * matrix[1, 1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_correlation_score_ignores_values_without_weight(bad):
    true, predicted, weight = TRUE.copy(), PREDICTED.copy(), np.ones((50, 3))
    true[:10, 0], predicted[5:15, 0], weight[:15, 0] = bad, bad, 0
    scores = correlation_score(true, predicted, sample_weight=weight, multioutput="raw_values")
    wanted = [
        pearsonr(TRUE[15 * (n == 0) :, n], PREDICTED[15 * (n == 0) :, n])[0] for n in range(3)
    ]
    np.testing.assert_allclose(scores, wanted)


def test_correlation_score_leaves_outputs_without_weight_out():
    weight = np.ones((50, 3))
    weight[:, 1] = 0
    raw = correlation_score(TRUE, PREDICTED, sample_weight=weight, multioutput="raw_values")
    with pytest.warns(UndefinedMetricWarning, match="1 of 3 outputs"):
        mean = correlation_score(TRUE, PREDICTED, sample_weight=weight)
    np.testing.assert_array_equal(np.isnan(raw), [False, True, False])
    assert mean == pytest.approx(raw[[0, 2]].mean())


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e-8, 1.0, 1e150, 1e300])
def test_correlation_score_takes_extreme_units(scale):
    assert correlation_score(scale * TRUE, PREDICTED) == pytest.approx(
        correlation_score(TRUE, PREDICTED)
    )


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_correlation_score_does_not_depend_on_units(scale):
    assert correlation_score(TRUE, 2 + scale * TRUE) == pytest.approx(1.0 if scale > 1e-9 else 0.0)
    assert correlation_score(TRUE, -TRUE) == pytest.approx(-1.0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e300])
def test_correlation_score_leaves_constant_responses_out(value):
    true = TRUE.copy()
    true[:, 1] = value
    raw = correlation_score(true, PREDICTED, multioutput="raw_values")
    np.testing.assert_array_equal(np.isnan(raw), [False, True, False])
    with pytest.warns(UndefinedMetricWarning, match="1 of 3 outputs .* response is constant"):
        mean = correlation_score(true, PREDICTED)
    assert mean == pytest.approx(
        np.mean([pearsonr(TRUE[:, n], PREDICTED[:, n])[0] for n in (0, 2)])
    )
    with pytest.warns(UndefinedMetricWarning, match="1 of 1 outputs"):
        assert np.isnan(correlation_score(true[:, 1], PREDICTED[:, 1]))


def test_correlation_score_is_zero_for_constant_predictions():
    assert correlation_score(np.arange(5.0), np.full(5, 0.1)) == 0


def test_correlation_score_looks_for_constants_where_there_is_weight():
    true, weight = np.full(50, 0.1), np.ones(50)
    true[:10], weight[:10] = TRUE[:10, 0], 0
    options = {"sample_weight": weight, "multioutput": "raw_values"}
    assert np.isnan(correlation_score(true, PREDICTED[:, 0], **options))
    assert correlation_score(PREDICTED[:, 0], true, **options) == 0


def test_correlation_score_takes_two_samples():
    assert correlation_score([1, 2], [3, 5]) == pytest.approx(1)
    assert correlation_score([1, 2], [5, 3]) == pytest.approx(-1)


def test_correlation_score_refuses_stacks_of_one_output_without_their_axis():
    """`predict` returns (n_sessions, n_samples) for a stack of one output."""
    true, predicted = (one[:, 0].reshape(2, 25) for one in (TRUE, PREDICTED))
    wanted = pearsonr(true.ravel(), predicted.ravel())[0]
    with pytest.raises(ValueError, match=r"y_true\[\.\.\., np.newaxis\]"):
        correlation_score(true, predicted)
    for given in (lambda one: one[..., np.newaxis], list):
        assert correlation_score(given(true), given(predicted)) == pytest.approx(wanted)


def test_correlation_score_takes_more_outputs_than_samples_as_a_list():
    many = np.random.default_rng(0).standard_normal((2, 5, 8))
    scores = correlation_score([many[0]], [many[1]], multioutput="raw_values")
    wanted = [pearsonr(many[0, :, n], many[1, :, n])[0] for n in range(8)]
    np.testing.assert_allclose(scores, wanted)


@pytest.mark.parametrize("each", ["row", "number"])
@pytest.mark.parametrize("form", ["array", "list", "stack"])
def test_correlation_score_takes_weights_in_the_form_of_the_response(form, each):
    weight = np.random.default_rng(0).integers(0, 3, (50,) if each == "row" else (50, 3))
    wanted = correlation_score(TRUE, PREDICTED, sample_weight=weight)
    given = [TRUE, PREDICTED, weight]
    if form != "array":
        given = [
            np.split(one, 5) if form == "list" else one.reshape(5, 10, *one.shape[1:])
            for one in given
        ]
    found = correlation_score(*given[:2], sample_weight=given[2])
    assert found == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correlation_score([], []), "at least one row"),
        (lambda: correlation_score(TRUE, PREDICTED * np.inf), "y_pred.*sample_weight of 0"),
        (lambda: correlation_score(TRUE, PREDICTED, sample_weight=-TRUE), "at least zero"),
        (lambda: correlation_score(TRUE, PREDICTED, sample_weight=TRUE * np.nan), "finite, at"),
        (lambda: correlation_score(TRUE[None, None], PREDICTED), r"\(1, 1, 50, 3\)"),
        (lambda: correlation_score(TRUE.T, PREDICTED.T), r"y_true has .* \(3, 50\): more outputs"),
        (lambda: correlation_score(TRUE, PREDICTED.T), r"y_pred has .* \(3, 50\): more outputs"),
        (lambda: correlation_score([TRUE, TRUE[:, :2]], PREDICTED), "y_true .*the same outputs"),
        (lambda: correlation_score(PREDICTED, [TRUE, TRUE[:, :2]]), "y_pred .*the same outputs"),
        (lambda: correlation_score(TRUE, PREDICTED, sample_weight=[np.inf] * 50), "finite, at"),
        (lambda: correlation_score(TRUE, PREDICTED[:9]), r"\(50, 3\).*\(9, 3\)"),
        (lambda: correlation_score([1.0], [1.0]), "two samples"),
        (lambda: correlation_score(np.where(TRUE > 2, np.nan, TRUE), PREDICTED), "y_true has NaN"),
        (lambda: correlation_score(TRUE, PREDICTED, multioutput="mean"), "'mean'"),
        (lambda: correlation_score(TRUE, PREDICTED, sample_weight=np.zeros(50)), "not all"),
        (lambda: correlation_score(TRUE, PREDICTED, sample_weight=np.ones(3)), r"\(3, 1\)"),
    ],
)
def test_correlation_score_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Scorers. The model depends on earlier rows, so that sessions make a difference.

FILTER = "fir.4xx-lvl"
SESSIONS = np.repeat(list("abcdef"), 40)


@pytest.fixture(scope="module")
def recording():
    """240 rows of three channels in six sessions, two responses, and five noisy repeats of them."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((240, 3))
    y = np.column_stack([X[:, 0] + np.roll(X[:, 1], 2), X[:, 2] - np.roll(X[:, 0], 3)])
    repeats = y[..., np.newaxis] + rng.standard_normal((240, 2, 5))
    return X, repeats.mean(axis=-1), repeats


def in_form(form, *arrays):
    """Six sessions as one array, a list or a stack."""
    if form == "array":
        return arrays
    parts = [np.split(one, 6) for one in arrays]
    return parts if form == "list" else [np.stack(one) for one in parts]


def fold_scores(score, X, form="array", cv=3):
    """Scores of each fold, by hand."""
    folds = KFold(cv).split(X)
    take = (lambda a, i: [a[n] for n in i]) if form == "list" else (lambda a, i: a[i])
    return [score(take, train, test) for train, test in folds]


@pytest.mark.parametrize("form", ["array", "list", "stack"])
@pytest.mark.parametrize("outputs", [0, [0], [0, 1]], ids=str)
def test_scorers_take_sessions_in_every_form(recording, form, outputs):
    X, y, repeats = (one if n == 0 else one[:, outputs] for n, one in enumerate(recording))
    sessions = SESSIONS if form == "array" else None
    model = NEMSRegressor(FILTER).fit(X, y, sessions=SESSIONS)
    prediction = model.predict(X, sessions=SESSIONS)
    given = in_form(form, X, y, repeats)
    plain = correlation_scorer(model, given[0], given[1], sessions=sessions)
    corrected = noise_corrected_scorer(
        model, given[0], given[1], repeats=given[2], sessions=sessions
    )
    assert type(plain) is type(corrected) is float
    assert plain == pytest.approx(correlation_score(y, prediction), rel=1e-12)
    assert corrected == pytest.approx(noise_corrected_correlation(repeats, prediction), rel=1e-12)
    assert corrected > plain
    # No session has history of another.
    assert plain != correlation_scorer(model, X, y)


@pytest.mark.parametrize("form", ["array", "list", "stack"])
@pytest.mark.parametrize("each", ["row", "number"])
def test_scorers_take_weights_in_every_form(recording, form, each):
    X, y, repeats = recording
    sessions = SESSIONS if form == "array" else None
    model = NEMSRegressor(FILTER).fit(X, y, sessions=SESSIONS)
    prediction = model.predict(X, sessions=SESSIONS)
    weight = np.random.default_rng(0).integers(0, 3, (240,) if each == "row" else (240, 2))
    missing = weight.reshape(240, -1) == 0
    y, repeats = np.where(missing, np.nan, y), np.where(missing[..., None], np.nan, repeats)
    X, response, weights, trials = in_form(form, X, y, weight, repeats)
    options = {"sample_weight": weights, "sessions": sessions}
    plain = correlation_scorer(model, X, response, **options)
    assert plain == pytest.approx(correlation_score(y, prediction, sample_weight=weight))
    corrected = noise_corrected_scorer(model, X, response, repeats=trials, **options)
    assert corrected == pytest.approx(
        noise_corrected_correlation(repeats, prediction, sample_weight=weight)
    )


@pytest.mark.parametrize("outputs", [0, [0, 1]], ids=str)
def test_correlation_scorer_cross_validates(recording, outputs):
    X, y = recording[0], recording[1][:, outputs]
    wanted = fold_scores(
        lambda take, train, test: correlation_score(
            y[test], Ridge().fit(X[train], y[train]).predict(X[test])
        ),
        X,
    )
    found = cross_val_score(Ridge(), X, y, scoring=correlation_scorer, cv=KFold(3))
    np.testing.assert_allclose(found, wanted)


def test_scorers_give_a_metric_per_output(recording):
    X, y, _ = recording
    model = NEMSRegressor(FILTER)
    found = cross_validate(model, X, y, scoring=CorrelationScorer("raw_values"), cv=KFold(3))
    wanted = fold_scores(
        lambda take, train, test: correlation_score(
            y[test],
            clone(model).fit(X[train], y[train]).predict(X[test]),
            multioutput="raw_values",
        ),
        X,
    )
    for number in range(2):
        np.testing.assert_allclose(found[f"test_correlation_{number}"], np.array(wanted)[:, number])
    repeats = recording[2]
    scorer = NoiseCorrectedScorer("raw_values", floor=0.3)
    both = scorer(model.fit(X, y), X, y, repeats=repeats)
    assert list(both) == ["noise_corrected_correlation_0", "noise_corrected_correlation_1"]
    wanted = noise_corrected_correlation(
        repeats, model.predict(X), multioutput="raw_values", floor=0.3
    )
    np.testing.assert_allclose(list(both.values()), wanted)


@pytest.mark.parametrize("form", ["array", "list", "stack"])
def test_noise_corrected_scorer_takes_repeats_with_the_rows(recording, form):
    X, y, repeats = in_form(form, *recording)
    model, labels = NEMSRegressor(FILTER), {"sessions": SESSIONS} if form == "array" else {}
    with config_context(enable_metadata_routing=True):
        found = cross_validate(
            model,
            X,
            y,
            scoring={"plain": correlation_scorer, "corrected": noise_corrected_scorer},
            params={"repeats": repeats, **labels},
            cv=KFold(3),
        )

    def by_hand(take, train, test):
        own = {
            name: {key: value[rows] for key, value in labels.items()}
            for name, rows in (("train", train), ("test", test))
        }
        fitted = clone(model).fit(take(X, train), take(y, train), **own["train"])
        prediction = fitted.predict(take(X, test), **own["test"])
        target, trials = take(y, test), take(repeats, test)
        if form != "array":
            prediction, target, trials = map(np.concatenate, (prediction, target, trials))
        return correlation_score(target, prediction), noise_corrected_correlation(
            trials, prediction
        )

    wanted = np.array(fold_scores(by_hand, X, form))
    np.testing.assert_allclose(found["test_plain"], wanted[:, 0])
    np.testing.assert_allclose(found["test_corrected"], wanted[:, 1])


def test_scorers_leave_missing_responses_out(recording):
    X, y, _ = recording
    weight = (np.random.default_rng(0).random(y.shape) < 0.7).astype(float)
    missing = np.where(weight > 0, y, np.nan)
    with config_context(enable_metadata_routing=True):
        model = NEMSRegressor(FILTER).set_fit_request(sample_weight=True)
        found = cross_val_score(
            model,
            X,
            missing,
            scoring=correlation_scorer,
            params={"sample_weight": weight, "sessions": SESSIONS},
            cv=KFold(3),
        )
    wanted = fold_scores(
        lambda take, train, test: correlation_score(
            missing[test],
            NEMSRegressor(FILTER)
            .fit(X[train], missing[train], weight[train], sessions=SESSIONS[train])
            .predict(X[test], sessions=SESSIONS[test]),
            sample_weight=weight[test],
        ),
        X,
    )
    np.testing.assert_allclose(found, wanted)


def test_scorers_work_in_nested_searches(recording):
    # The predict of a search takes no sessions; the scorer does not ask it to.
    X, y, repeats = recording
    scorers = {"plain": correlation_scorer, "corrected": noise_corrected_scorer}
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            NEMSRegressor(),
            {"layers": ["wc-lvl", FILTER]},
            scoring=scorers,
            refit="corrected",
            cv=KFold(2),
        )
        found = cross_validate(
            search,
            X,
            y,
            scoring=noise_corrected_scorer,
            params={"repeats": repeats, "sessions": SESSIONS},
            cv=KFold(2),
            return_estimator=True,
        )
    assert found["test_score"].min() > 0.9
    for fitted in found["estimator"]:
        assert fitted.best_params_ == {"layers": FILTER}
        assert fitted.best_score_ > fitted.cv_results_["mean_test_plain"][1]


def test_scorers_take_data_frames(recording):
    X, y, repeats = recording
    # With such labels of rows, slicing is by label.
    index = np.arange(240) / 2
    frame = pd.DataFrame(X, index, columns=list("abc"))
    response = pd.DataFrame(y, index=range(7, 247))
    model = NEMSRegressor(FILTER).fit(frame, response)
    labels = pd.Series(SESSIONS, index=range(240, 0, -1))
    assert correlation_scorer(model, frame, response, sessions=labels) == pytest.approx(
        correlation_score(y, model.predict(frame, sessions=SESSIONS))
    )
    weight = pd.Series(np.ones(240))
    assert noise_corrected_scorer(
        model, frame, response, repeats=repeats, sample_weight=weight
    ) == pytest.approx(noise_corrected_correlation(repeats, model.predict(frame)))


@pytest.mark.parametrize(
    "scorer", [CorrelationScorer("raw_values"), NoiseCorrectedScorer("raw_values", floor=0.5)]
)
def test_scorers_are_cloned_pickled_and_routed(recording, scorer):
    X, y, repeats = recording
    model = NEMSRegressor().fit(X, y)
    options = {"repeats": repeats} if "floor" in scorer.get_params() else {}
    wanted = scorer(model, X, y, **options)
    with config_context(enable_metadata_routing=True):
        scorer = clone(scorer).set_score_request(sample_weight="weights")
    for copy in (clone(scorer), pickle.loads(pickle.dumps(scorer))):
        assert copy.get_params() == scorer.get_params()
        assert copy(model, X, y, **options) == wanted
        assert type(scorer)().get_metadata_routing().score.requests["sample_weight"] is True
        requests = copy.get_metadata_routing().score.requests
        assert requests == {"sample_weight": "weights", "sessions": True} | dict.fromkeys(
            options, True
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "repeats are missing. Enable scikit-learn's metadata routing"),
        ({"repeats": np.ones((240, 5))}, r"\(240, 5\), but y has the shape \(240, 2\)"),
        ({"repeats": np.ones((5, 240, 2))}, r"must be \(240, 2, 'n_repeats'\)"),
        ({"repeats": np.ones((240, 2, 1))}, "at least two"),
        ({"repeats": np.ones((240, 2, 3)), "sessions": SESSIONS[1:]}, "239 labels"),
    ],
)
def test_scorers_say_what_is_wrong(recording, options, message):
    X, y, _ = recording
    with pytest.raises(ValueError, match=message):
        noise_corrected_scorer(NEMSRegressor().fit(X, y), X, y, **options)


def test_noise_corrected_scorer_needs_repeats_of_every_session(recording):
    X, y, repeats = (np.split(one, 2) for one in recording)
    with pytest.raises(ValueError, match="repeats must be a list of 2 sessions"):
        noise_corrected_scorer(NEMSRegressor().fit(X, y), X, y, repeats=repeats[:1])


@pytest.mark.parametrize("factor", [1.0, 0.3, -7.1])
def test_correlation_score_of_a_line_is_exact(factor):
    for seed in range(50):
        y = np.random.default_rng(seed).standard_normal(10 + 17 * seed)
        assert correlation_score(y, factor * y + 0.1) == np.sign(factor)
