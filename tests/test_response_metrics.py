"""Scores of predicted responses, against NumPy, SciPy and closed forms."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr
from sklearn import clone, config_context
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


def test_each_output_has_pearsons_correlation():
    scores = correlation_score(TRUE, PREDICTED, multioutput="raw_values")
    wanted = [pearsonr(*pair)[0] for pair in zip(TRUE.T, PREDICTED.T, strict=True)]
    np.testing.assert_allclose(scores, wanted, rtol=1e-12)
    assert correlation_score(TRUE, PREDICTED) == pytest.approx(np.mean(wanted))
    assert correlation_score(TRUE[:, 0], PREDICTED[:, 0].tolist()) == pytest.approx(wanted[0])


def test_sessions_are_put_one_after_the_other():
    whole = correlation_score(TRUE, PREDICTED)
    for form in (list, np.stack):
        parts = [form(np.split(one, 2)) for one in (TRUE, PREDICTED)]
        assert correlation_score(*parts) == pytest.approx(whole)


def test_weights_repeat_samples_and_zeros_leave_them_out():
    weight = np.random.default_rng(1).integers(0, 4, 50)
    repeated = [np.repeat(one, weight, axis=0) for one in (TRUE, PREDICTED)]
    found = correlation_score(TRUE, PREDICTED, sample_weight=weight)
    assert found == pytest.approx(correlation_score(*repeated))


def test_the_predictions_of_a_list_of_one_output_are_sessions():
    true, predicted = TRUE[:, 0], PREDICTED[:, 0]
    parts = [np.split(one, 2) for one in (true, predicted)]
    assert correlation_score(*parts) == pytest.approx(pearsonr(true, predicted)[0])
    # Lists of numbers are rows, as for scikit-learn.
    rows = [one[:, :2].tolist() for one in (TRUE, PREDICTED)]
    assert correlation_score(*rows) == pytest.approx(
        correlation_score(TRUE[:, :2], PREDICTED[:, :2])
    )


@pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 3)])
def test_weights_are_those_of_the_covariance(shape):
    weight = np.random.default_rng(2).random(shape)
    scores = correlation_score(TRUE, PREDICTED, sample_weight=weight, multioutput="raw_values")
    for number, score in enumerate(scores):
        own = np.broadcast_to(weight.reshape(50, -1), (50, 3))[:, number]
        matrix = np.cov(TRUE[:, number], PREDICTED[:, number], aweights=own)
        assert score == pytest.approx(matrix[0, 1] / np.sqrt(matrix[0, 0] * matrix[1, 1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_what_has_no_weight_may_be_anything(bad):
    true, predicted, weight = TRUE.copy(), PREDICTED.copy(), np.ones((50, 3))
    true[:10, 0], predicted[5:15, 0], weight[:15, 0] = bad, bad, 0
    scores = correlation_score(true, predicted, sample_weight=weight, multioutput="raw_values")
    wanted = [
        pearsonr(TRUE[15 * (n == 0) :, n], PREDICTED[15 * (n == 0) :, n])[0] for n in range(3)
    ]
    np.testing.assert_allclose(scores, wanted)


def test_an_output_without_weight_has_no_score_and_no_part_in_the_average():
    weight = np.ones((50, 3))
    weight[:, 1] = 0
    raw, mean = (
        correlation_score(TRUE, PREDICTED, sample_weight=weight, multioutput=kind)
        for kind in ("raw_values", "uniform_average")
    )
    np.testing.assert_array_equal(np.isnan(raw), [False, True, False])
    assert mean == pytest.approx(raw[[0, 2]].mean())


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e-8, 1.0, 1e150, 1e300])
def test_the_smallest_and_largest_units(scale):
    assert correlation_score(scale * TRUE, PREDICTED) == pytest.approx(
        correlation_score(TRUE, PREDICTED)
    )


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_units_do_not_matter_and_a_perfect_prediction_has_one(scale):
    assert correlation_score(TRUE, 2 + scale * TRUE) == pytest.approx(1.0 if scale > 1e-9 else 0.0)
    assert correlation_score(TRUE, -TRUE) == pytest.approx(-1.0)


def test_a_constant_has_no_correlation():
    assert correlation_score(np.ones(5), np.arange(5.0)) == 0
    assert correlation_score(np.arange(5.0), np.full(5, 0.1)) == 0


def test_the_correlation_with_the_response_behind_the_noise_is_recovered():
    rng = np.random.default_rng(0)
    response, other = rng.standard_normal((2, 20_000))
    trials = response + 2 * rng.standard_normal((10, 20_000))
    prediction = response + 0.5 * other
    wanted = np.corrcoef(response, prediction)[0, 1]
    assert noise_corrected_correlation(trials, prediction) == pytest.approx(wanted, abs=0.02)
    assert correlation_score(trials[0], prediction) < 0.6 * wanted
    both = np.stack([trials, 3 * trials[::-1]], axis=-1)
    scores = noise_corrected_correlation(
        both, np.column_stack([prediction, prediction]), multioutput="raw_values"
    )
    np.testing.assert_allclose(scores, wanted, atol=0.02)


def test_noise_correction_by_hand():
    trials, prediction = TRUE.T, PREDICTED[:, 0]
    accuracy = np.mean([pearsonr(trial, prediction)[0] for trial in trials])
    pairs = [pearsonr(trials[i], trials[j])[0] for i, j in ((0, 1), (0, 2), (1, 2))]
    found = noise_corrected_correlation(trials, prediction, floor=1e-9)
    assert found == pytest.approx(accuracy / np.sqrt(max(np.mean(pairs), 1e-9)))
    # Trials that have nothing in common are divided by the floor.
    opposite = np.stack([trials[0], -trials[0], trials[1]])
    assert abs(noise_corrected_correlation(opposite, prediction, floor=0.25)) <= 2


def test_noise_correction_with_weights_repeats_samples():
    weight = np.random.default_rng(1).integers(0, 3, 50)
    trials, prediction = TRUE.T.copy(), PREDICTED[:, 0]
    wanted = noise_corrected_correlation(
        np.repeat(trials, weight, axis=1), np.repeat(prediction, weight)
    )
    trials[:, weight == 0] = np.nan
    found = noise_corrected_correlation(trials, prediction, sample_weight=weight)
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correlation_score([], []), "two samples"),
        (lambda: correlation_score(TRUE, PREDICTED * np.inf), "y_pred.*sample_weight of 0"),
        (lambda: correlation_score(TRUE, PREDICTED, sample_weight=-TRUE), "at least zero"),
        (lambda: correlation_score(TRUE, PREDICTED, sample_weight=TRUE * np.nan), "finite weights"),
        (lambda: correlation_score(TRUE[None, None], PREDICTED), r"\(1, 1, 50, 3\)"),
        (lambda: noise_corrected_correlation(TRUE.T, TRUE[:, 0], multioutput="mean"), "'mean'"),
        (lambda: correlation_score(TRUE, PREDICTED[:9]), r"\(50, 3\).*\(9, 3\)"),
        (lambda: correlation_score([1.0], [1.0]), "two samples"),
        (lambda: correlation_score(TRUE * np.nan, PREDICTED), "y_true.*finite"),
        (lambda: correlation_score(TRUE, PREDICTED, multioutput="mean"), "'mean'"),
        (lambda: correlation_score(TRUE, PREDICTED, sample_weight=np.zeros(50)), "not all"),
        (lambda: correlation_score(TRUE, PREDICTED, sample_weight=np.ones(3)), r"\(3, 1\)"),
        (lambda: noise_corrected_correlation(TRUE[:1, :, None], PREDICTED), "two trials"),
        (lambda: noise_corrected_correlation(TRUE.T, PREDICTED[:9, 0]), r"\(50, 1\).*\(9, 1\)"),
    ],
)
def test_errors_say_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Scorers. The model sees what came before, so sessions make a difference.

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
    trials = np.stack([repeats[..., n] for n in range(5)])
    assert corrected == pytest.approx(noise_corrected_correlation(trials, prediction), rel=1e-12)
    assert corrected > plain
    # No session has history of another.
    assert plain != correlation_scorer(model, X, y)


@pytest.mark.parametrize("form", ["array", "list", "stack"])
@pytest.mark.parametrize("each", ["row", "number"])
def test_weights_reach_the_score_in_every_form(recording, form, each):
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
    trials = np.moveaxis(repeats, -1, 0)
    assert corrected == pytest.approx(
        noise_corrected_correlation(trials, prediction, sample_weight=weight)
    )


@pytest.mark.parametrize("outputs", [0, [0, 1]], ids=str)
def test_cross_validation_by_correlation(recording, outputs):
    X, y = recording[0], recording[1][:, outputs]
    wanted = fold_scores(
        lambda take, train, test: correlation_score(
            y[test], Ridge().fit(X[train], y[train]).predict(X[test])
        ),
        X,
    )
    found = cross_val_score(Ridge(), X, y, scoring=correlation_scorer, cv=KFold(3))
    np.testing.assert_allclose(found, wanted)


def test_each_output_is_a_metric_of_its_own(recording):
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
    scorer = NoiseCorrectedScorer("raw_values", floor=2.0)
    both = scorer(model.fit(X, y), X, y, repeats=repeats)
    assert list(both) == ["noise_corrected_correlation_0", "noise_corrected_correlation_1"]
    wanted = noise_corrected_correlation(
        np.moveaxis(repeats, -1, 0), model.predict(X), multioutput="raw_values", floor=2.0
    )
    np.testing.assert_allclose(list(both.values()), wanted)


@pytest.mark.parametrize("form", ["array", "list", "stack"])
def test_repeats_go_along_with_the_rows(recording, form):
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
        trials = np.moveaxis(trials, -1, 0)
        return correlation_score(target, prediction), noise_corrected_correlation(
            trials, prediction
        )

    wanted = np.array(fold_scores(by_hand, X, form))
    np.testing.assert_allclose(found["test_plain"], wanted[:, 0])
    np.testing.assert_allclose(found["test_corrected"], wanted[:, 1])


def test_missing_responses_are_left_out_of_cross_validation(recording):
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


def test_a_search_by_correlation_in_a_cross_validation(recording):
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
    # With such labels of rows, a slice goes by label.
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
    ) == pytest.approx(
        noise_corrected_correlation(np.moveaxis(repeats, -1, 0), model.predict(frame))
    )


@pytest.mark.parametrize(
    "scorer", [CorrelationScorer("raw_values"), NoiseCorrectedScorer("raw_values", floor=0.5)]
)
def test_scorers_can_be_cloned_pickled_and_asked_for_their_requests(recording, scorer):
    X, y, repeats = recording
    model = NEMSRegressor().fit(X, y)
    options = {"repeats": repeats} if "floor" in scorer.get_params() else {}
    wanted = scorer(model, X, y, **options)
    with config_context(enable_metadata_routing=True):
        scorer = clone(scorer).set_score_request(sample_weight="weights")
    for copy in (clone(scorer), pickle.loads(pickle.dumps(scorer))):
        assert copy.get_params() == scorer.get_params()
        assert copy(model, X, y, **options) == wanted
        requests = copy.get_metadata_routing().score.requests
        assert requests == {"sample_weight": "weights", "sessions": True} | dict.fromkeys(
            options, True
        )
    assert correlation_scorer.get_metadata_routing().score.requests["sample_weight"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Got no repeats.*enable scikit-learn's metadata routing"),
        ({"repeats": np.ones((240, 5))}, r"\(240, 5\) for y of shape \(240, 2\)"),
        ({"repeats": np.ones((5, 240, 2))}, r"expected \(240, 2, 'n_repeats'\)"),
        ({"repeats": np.ones((240, 2, 1))}, "two trials"),
        ({"repeats": np.ones((240, 2, 3)), "sessions": SESSIONS[1:]}, "239 labels"),
    ],
)
def test_scorers_say_what_is_wrong(recording, options, message):
    X, y, _ = recording
    with pytest.raises(ValueError, match=message):
        noise_corrected_scorer(NEMSRegressor().fit(X, y), X, y, **options)
