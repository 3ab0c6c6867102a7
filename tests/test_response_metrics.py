"""Scores of predicted responses, against NumPy, SciPy and closed forms."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from skdyn.metrics import correlation_score, noise_corrected_correlation

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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correlation_score(TRUE, PREDICTED[:9]), r"\(50, 3\).*\(9, 3\)"),
        (lambda: correlation_score([1.0], [1.0]), "two samples"),
        (lambda: correlation_score(TRUE * np.nan, PREDICTED), "y_true.*finite"),
        (lambda: correlation_score(TRUE, PREDICTED, multioutput="mean"), "'mean'"),
        (lambda: correlation_score(TRUE, PREDICTED, sample_weight=np.zeros(50)), "not all"),
        (lambda: correlation_score(TRUE, PREDICTED, sample_weight=np.ones(3)), r"\(3,\)"),
        (lambda: noise_corrected_correlation(TRUE[:1, :, None], PREDICTED), "two trials"),
        (lambda: noise_corrected_correlation(TRUE.T, PREDICTED[:9, 0]), r"\(50, 1\).*\(9, 1\)"),
    ],
)
def test_errors_say_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()
