"""Noise-corrected correlations, against SciPy, the formulas of the papers, and known truth."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.exceptions import UndefinedMetricWarning

from skdyn import NEMSRegressor
from skdyn.metrics import (
    NoiseCorrectedScorer,
    correlation_score,
    noise_corrected_correlation,
    noise_corrected_scorer,
)

METHODS = ["hsu", "schoppe"]


def recorded(n_samples=400, n_outputs=3, n_repeats=4, noise=1.0, seed=0):
    """Predictions and repeats of outputs that are as reliable as the noise lets them."""
    rng = np.random.default_rng(seed)
    response = rng.standard_normal((n_samples, n_outputs))
    drawn = rng.standard_normal((n_samples, n_outputs, n_repeats))
    prediction = response + 0.5 * rng.standard_normal((n_samples, n_outputs))
    return response[..., np.newaxis] + noise * drawn, prediction


def hsu(repeats, predicted):
    """Of one output, with SciPy: mean correlations."""
    accuracy = np.mean([pearsonr(one, predicted)[0] for one in repeats.T])
    return accuracy / np.sqrt(np.mean([pearsonr(*two)[0] for two in combinations(repeats.T, 2)]))


def schoppe(repeats, predicted):
    """Of one output, as equations 1, 4 and 8 of the paper have it."""
    n = repeats.shape[1]
    power = (np.var(repeats.sum(axis=1)) - np.var(repeats, axis=0).sum()) / (n * (n - 1))
    covariance = np.cov(repeats.mean(axis=1), predicted, ddof=0)[0, 1]
    return covariance / np.sqrt(np.var(predicted) * power)


BY_HAND = {"hsu": hsu, "schoppe": schoppe}


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
@pytest.mark.parametrize("n_repeats", [2, 5])
@pytest.mark.parametrize("method", METHODS)
def test_noise_correction_is_that_of_the_papers(method, n_repeats, scale):
    repeats, predicted = recorded(n_repeats=n_repeats)
    repeats = repeats * np.linspace(0.5, 2, n_repeats)  # repeats differ in their variance
    found = noise_corrected_correlation(
        scale * repeats, scale * predicted, method=method, multioutput="raw_values"
    )
    wanted = [BY_HAND[method](repeats[:, n], predicted[:, n]) for n in range(3)]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    mean = noise_corrected_correlation(repeats, predicted, method=method)
    assert mean == pytest.approx(np.mean(wanted))
    one = noise_corrected_correlation(repeats[:, 0], predicted[:, 0], method=method)
    assert one == pytest.approx(wanted[0])


@pytest.mark.parametrize("method", METHODS)
def test_noise_correction_recovers_the_correlation_without_noise(method):
    rng = np.random.default_rng(0)
    response, other = rng.standard_normal((2, 20_000))
    repeats = response[:, np.newaxis] + 2 * rng.standard_normal((20_000, 10))
    prediction = response + 0.5 * other
    wanted = np.corrcoef(response, prediction)[0, 1]
    found = noise_corrected_correlation(repeats, prediction, method=method)
    assert found == pytest.approx(wanted, abs=0.02)
    assert correlation_score(repeats[:, 0], prediction) < 0.6 * wanted


@pytest.mark.parametrize("method", METHODS)
def test_noise_correction_weights_repeat_samples(method):
    repeats, predicted = recorded()
    weight = np.random.default_rng(1).integers(0, 3, 400)
    wanted = noise_corrected_correlation(
        np.repeat(repeats, weight, axis=0), np.repeat(predicted, weight, axis=0), method=method
    )
    for value in (np.nan, np.inf, 1.0):  # nothing of weight zero counts
        repeats[weight == 0], predicted[weight == 0] = value, np.inf
        found = noise_corrected_correlation(repeats, predicted, sample_weight=weight, method=method)
        assert found == pytest.approx(wanted)


@pytest.mark.parametrize("method", METHODS)
def test_noise_correction_leaves_unreliable_outputs_out(method):
    repeats, predicted = recorded(n_outputs=20, n_repeats=5)
    rng = np.random.default_rng(1)
    repeats[:, 10:] = rng.standard_normal((400, 10, 5))  # ten outputs do not respond
    raw = noise_corrected_correlation(repeats, predicted, multioutput="raw_values", method=method)
    assert not np.isnan(raw[:10]).any()
    n_missing = np.isnan(raw[10:]).sum()
    assert n_missing >= 9
    with pytest.warns(UndefinedMetricWarning, match=f"{n_missing} of 20 outputs .* below chance"):
        mean = noise_corrected_correlation(repeats, predicted, method=method)
    assert mean == pytest.approx(np.nanmean(raw))


def test_noise_correction_finds_outputs_without_response_unreliable():
    """By chance 2.3 % of the outputs are above two standard errors."""
    rng = np.random.default_rng(0)
    repeats = rng.standard_normal((300, 2000, 3))
    scores = noise_corrected_correlation(
        [repeats], [rng.standard_normal((300, 2000))], multioutput="raw_values"
    )
    assert 0.01 < np.mean(~np.isnan(scores)) < 0.04


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("margin", [-1e-6, 1e-6])
def test_noise_correction_compares_reliability_with_the_floor(method, margin):
    repeats, predicted = recorded(n_outputs=1)
    repeats, predicted = repeats[:, 0], predicted[:, 0]
    pairs = list(combinations(repeats.T, 2))
    reliability = np.mean([pearsonr(*two)[0] for two in pairs])
    if method == "schoppe":
        reliability = np.mean([np.cov(*two, ddof=0)[0, 1] for two in pairs])
        reliability /= np.var(repeats, axis=0).mean()
    score = noise_corrected_correlation(
        repeats, predicted, method=method, floor=reliability + margin, multioutput="raw_values"
    )
    assert np.isnan(score[0]) == (margin > 0)


@pytest.mark.parametrize("method", METHODS)
def test_noise_correction_of_a_constant_prediction_is_zero(method):
    repeats, _ = recorded()
    scores = noise_corrected_correlation(
        repeats, np.zeros((400, 3)), multioutput="raw_values", method=method
    )
    np.testing.assert_array_equal(scores, 0)
    silent = np.where([True, False, False], 0, np.moveaxis(repeats, 1, -1))
    scores = noise_corrected_correlation(
        np.moveaxis(silent, -1, 1), np.zeros((400, 3)), multioutput="raw_values", method=method
    )
    np.testing.assert_array_equal(scores, [np.nan, 0, 0])


@pytest.mark.parametrize("method", METHODS)
def test_noise_correction_leaves_missing_samples_out(method):
    """Each pair of repeats has its own samples, and counts by their number."""
    repeats, predicted = (one[:, 0] for one in recorded(n_repeats=3))
    repeats[:100, 0] = repeats[300:, 2] = np.nan
    counts, scores = [], []
    for one in repeats.T:
        known = ~np.isnan(one)
        score = pearsonr(one[known], predicted[known])[0]
        counts.append(known.sum())
        scores.append(score if method == "hsu" else score * np.std(one[known]))
    accuracy = np.average(scores, weights=counts)
    counts, scores = [], []
    for two in combinations(repeats.T, 2):
        both = np.stack(two)[:, ~np.isnan(np.stack(two)).any(axis=0)]
        scores.append(pearsonr(*both)[0] if method == "hsu" else np.cov(both, ddof=0)[0, 1])
        counts.append(both.shape[1])
    wanted = accuracy / np.sqrt(np.average(scores, weights=counts))
    assert noise_corrected_correlation(repeats, predicted, method=method) == pytest.approx(wanted)


@pytest.mark.parametrize("method", METHODS)
def test_noise_correction_takes_unequal_numbers_of_repeats(method):
    repeats, predicted = recorded(n_repeats=4)
    repeats[:150, :, 2:] = np.nan
    wanted = noise_corrected_correlation(repeats, predicted, method=method)
    sessions = [repeats[:150, :, :2], repeats[150:]]
    found = noise_corrected_correlation(sessions, np.split(predicted, [150]), method=method)
    assert found == pytest.approx(wanted, rel=1e-12)
    X = predicted  # a model that predicts the stimulus
    model = NEMSRegressor("fir.1x3x3").fit(X, X)
    scored = NoiseCorrectedScorer(method=method)(
        model, np.split(X, [150]), np.split(X, [150]), repeats=sessions
    )
    assert scored == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("form", "n_outputs"), [("list", 0), ("list", 1), ("list", 3), ("stack", 1), ("stack", 3)]
)
def test_noise_correction_means_the_same_in_every_form(form, n_outputs):
    repeats, predicted = recorded(n_outputs=max(n_outputs, 1))
    if n_outputs == 0:
        repeats, predicted = repeats[:, 0], predicted[:, 0]
    wanted = noise_corrected_correlation(repeats, predicted)
    given = [np.split(one, 4) for one in (repeats, predicted)]
    given = given if form == "list" else [np.stack(one) for one in given]
    assert noise_corrected_correlation(*given) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_noise_correction_does_not_depend_on_units(method):
    """Not on those of outputs beside each other, nor on those of weights."""
    repeats, predicted = recorded()
    weight = np.random.default_rng(0).random(400)
    options = {"multioutput": "raw_values", "method": method}
    wanted = noise_corrected_correlation(repeats, predicted, sample_weight=weight, **options)
    units = np.array([1e-200, 1.0, 1e200])
    found = noise_corrected_correlation(
        repeats * units[:, np.newaxis], predicted * units, sample_weight=1e-4 * weight, **options
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_noise_correction_counts_rows_of_unequal_weight_by_their_effective_number():
    """In the mean over pairs, and in the reliability that is due to chance."""
    repeats, predicted = (one[:, 0] for one in recorded(n_repeats=3))
    weight = np.random.default_rng(0).random(400) ** 3
    repeats[200:, 0] = np.nan
    known = ~np.isnan(repeats)

    def weighted(first, second, rows):
        own = weight[rows]
        matrix = np.cov(first[rows], second[rows], aweights=own)
        correlation = matrix[0, 1] / np.sqrt(matrix[0, 0] * matrix[1, 1])
        return correlation, own.sum() ** 2 / (own**2).sum()

    accuracy = [
        weighted(one, predicted, rows) for one, rows in zip(repeats.T, known.T, strict=True)
    ]
    pairs = [
        weighted(repeats[:, i], repeats[:, j], known[:, i] & known[:, j])
        for i, j in combinations(range(3), 2)
    ]
    (scores, rows), (between, shared) = np.transpose(accuracy), np.transpose(pairs)
    reliability = np.average(between, weights=shared)
    found = noise_corrected_correlation(repeats, predicted, sample_weight=weight)
    assert found == pytest.approx(np.average(scores, weights=rows) / np.sqrt(reliability))
    # As much noise as leaves a reliability just above, or just below, two standard errors.
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(repeats.shape)
    chance = 2 / np.sqrt(shared.sum())
    for margin in (0.98, 1.02):
        low, high = 0.0, 1e3
        for _ in range(60):  # bisection of the noise
            middle = (low + high) / 2
            noisy = repeats + middle * noise
            between = [
                weighted(noisy[:, i], noisy[:, j], known[:, i] & known[:, j])[0]
                for i, j in combinations(range(3), 2)
            ]
            above = np.average(between, weights=shared) > margin * chance
            low, high = (middle, high) if above else (low, middle)
        score = noise_corrected_correlation(
            repeats + low * noise, predicted, sample_weight=weight, multioutput="raw_values"
        )
        assert np.isnan(score[0]) == (margin < 1)


def test_noise_correction_ignores_predictions_where_nothing_was_recorded():
    repeats, predicted = recorded()
    wanted = noise_corrected_correlation(repeats[10:], predicted[10:])
    repeats[:10], predicted[:10] = np.nan, np.nan
    assert noise_corrected_correlation(repeats, predicted) == pytest.approx(wanted)
    repeats[5, :, 0] = 1.0  # one of the repeats was
    with pytest.raises(ValueError, match="y_pred has NaN"):
        noise_corrected_correlation(repeats, predicted)
    predicted[:10], repeats[7, 1, 2] = 0.0, np.inf
    with pytest.raises(ValueError, match="repeats have infinite values"):
        noise_corrected_correlation(repeats, predicted)


def test_noise_correction_needs_two_repeats_of_the_same_samples():
    repeats, predicted = recorded(n_outputs=2, n_repeats=2)
    repeats[::2, 0, 0] = repeats[1::2, 0, 1] = np.nan
    scores = noise_corrected_correlation(repeats, predicted, multioutput="raw_values")
    np.testing.assert_array_equal(np.isnan(scores), [True, False])


REPEATS, GUESS = recorded(50)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise_corrected_correlation(REPEATS[..., :1], GUESS), "two, but there are 1"),
        (lambda: noise_corrected_correlation(REPEATS.T, GUESS), r"\(4, 3, 50\).*\(50, 3, 'n_rep"),
        (lambda: noise_corrected_correlation(REPEATS[:9], GUESS), r"\(9, 3, 4\).*\(50, 3\)"),
        (lambda: noise_corrected_correlation(GUESS, GUESS), r"\(50, 3\).*\(50, 3, 'n_repeats'\)"),
        (lambda: noise_corrected_correlation(REPEATS, [GUESS]), "list of 1 sessions"),
        (lambda: noise_corrected_correlation(REPEATS * np.inf, GUESS), "sample_weight of 0"),
        (lambda: noise_corrected_correlation(REPEATS, GUESS * np.nan), "sample_weight of 0"),
        (lambda: noise_corrected_correlation(REPEATS, GUESS, multioutput="mean"), "'mean'"),
        (lambda: noise_corrected_correlation(REPEATS, GUESS, method="me"), "'hsu', 'schoppe'"),
        (lambda: noise_corrected_correlation(REPEATS, GUESS, floor=0), "above 0, but is 0"),
        (lambda: noise_corrected_correlation(REPEATS, GUESS, floor="low"), "but is 'low'"),
        (lambda: noise_corrected_scorer(None, GUESS, GUESS), "repeats are missing"),
    ],
)
def test_noise_correction_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
