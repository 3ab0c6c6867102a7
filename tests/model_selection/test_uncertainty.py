"""Standard errors and p-values, against SciPy, loops, and simulations of equal candidates."""

import numpy as np
import pytest
import scipy.stats

from skdyn.model_selection.uncertainty import summarise, units_of


def two(difference):
    """Scores of two candidates, with an axis of one repeat, that differ by the given numbers."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal(difference.shape)
    return np.expand_dims(np.stack([base, base + difference]), 2)


def summary(scores, units, test_to_train=0.0):
    return summarise(scores, np.ones(len(scores), dtype=bool), units, test_to_train)


def worse(found):
    return 1 - found["best_index"]


@pytest.mark.parametrize("n_folds", [2, 3, 10])
@pytest.mark.parametrize("test_to_train", [0.0, 0.1, 1.0])
def test_standard_error_over_folds_is_that_of_nadeau_and_bengio(n_folds, test_to_train):
    difference = np.random.default_rng(1).standard_normal(n_folds)
    found = summary(two(difference), "folds", test_to_train)
    spread = np.std(difference, ddof=1) * np.sqrt(1 / n_folds + test_to_train)
    place = worse(found)
    assert found["difference_standard_error"][place] == pytest.approx(spread)
    ratio = abs(difference.mean()) / spread
    # The probability beyond, by integration of the density.
    grid = np.linspace(0, 1, 200_001)[1:-1]
    inner = scipy.stats.t.pdf(ratio * grid, n_folds - 1).mean() * ratio
    assert found["p_value"][place] == pytest.approx(1 - 2 * inner, abs=1e-4)
    assert found["degrees_of_freedom"].tolist() == [n_folds - 1] * 2


@pytest.mark.parametrize("n_folds", [2, 4, 10])
def test_p_value_over_folds_has_its_level(n_folds):
    """Correlated by n_test / (n_test + n_train), which the correction is exact for."""
    rng = np.random.default_rng(n_folds)
    ratio = 1 / (n_folds - 1)
    own, common = rng.standard_normal((1500, n_folds)), rng.standard_normal((1500, 1))
    correlation = ratio / (1 + ratio)
    draws = np.sqrt(1 - correlation) * own + np.sqrt(correlation) * common
    rejected = [summary(two(one), "folds", ratio)["p_value"].min() < 0.05 for one in draws]
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.02)
    plain = [summary(two(one), "folds")["p_value"].min() < 0.05 for one in draws]
    assert np.mean(plain) > 0.07, "the test would not see a wrong correction"


def test_standard_error_over_outputs_is_that_of_independent_draws():
    difference = np.random.default_rng(1).standard_normal((4, 9))
    found = summary(two(difference), "outputs", 0.3)
    wanted = scipy.stats.ttest_1samp(difference.mean(axis=0), 0)
    assert found["p_value"][worse(found)] == pytest.approx(wanted.pvalue)
    spread = scipy.stats.sem(difference.mean(axis=0))
    assert found["difference_standard_error"][worse(found)] == pytest.approx(spread)


def crossed_by_hand(grid, test_to_train, n_missing=0):
    """Variance and degrees of freedom, of loops over a two-way layout."""
    n_folds, n_outputs = grid.shape
    mean, cells = grid.mean(), np.ndindex(grid.shape)
    rest_freedom = (n_folds - 1) * (n_outputs - 1) - n_missing
    folds = sum(n_outputs * (row.mean() - mean) ** 2 for row in grid) / (n_folds - 1)
    outputs = sum(n_folds * (column.mean() - mean) ** 2 for column in grid.T) / (n_outputs - 1)
    rest = sum((grid[i, j] - grid[i].mean() - grid[:, j].mean() + mean) ** 2 for i, j in cells)
    rest /= rest_freedom
    parts = [
        (folds * (1 / grid.size + test_to_train / n_outputs), n_folds - 1),
        (outputs / grid.size, n_outputs - 1),
        (-rest / grid.size, rest_freedom),
    ]
    variance = max(sum(part for part, _ in parts), parts[0][0], parts[1][0])
    return variance, variance**2 / sum(part**2 / freedom for part, freedom in parts)


@pytest.mark.parametrize("test_to_train", [0.0, 0.5])
@pytest.mark.parametrize(("fold_spread", "output_spread"), [(0, 0), (2, 0), (0, 2), (1, 1)])
def test_standard_error_over_both_is_that_of_crossed_effects(
    fold_spread, output_spread, test_to_train
):
    rng = np.random.default_rng(2)
    grid = rng.standard_normal((4, 7)) + fold_spread * rng.standard_normal((4, 1))
    grid += output_spread * rng.standard_normal(7)
    found = summary(two(grid), "both", test_to_train)
    variance, freedom = crossed_by_hand(grid, test_to_train)
    place = worse(found)
    assert found["difference_standard_error"][place] == pytest.approx(np.sqrt(variance))
    assert found["degrees_of_freedom"][place] == pytest.approx(freedom)
    ratio = abs(grid.mean()) / np.sqrt(variance)
    assert found["p_value"][place] == pytest.approx(2 * scipy.stats.t.sf(ratio, freedom))


@pytest.mark.parametrize("n_folds", [3, 10])
def test_p_value_over_both_has_its_level_with_common_noise(n_folds):
    rng = np.random.default_rng(0)
    rejected = {"outputs": [], "both": []}
    for _ in range(500):
        grid = rng.standard_normal((n_folds, 20)) + rng.standard_normal((n_folds, 1))
        for units, found in rejected.items():
            found.append(summary(two(grid), units)["p_value"].min() < 0.05)
    assert np.mean(rejected["both"]) == pytest.approx(0.05, abs=0.03)
    assert np.mean(rejected["outputs"]) > 0.3


def test_standard_error_over_both_fills_cells_by_least_squares():
    """The additive model, fitted to the known cells alone with a column per fold and output."""
    rng = np.random.default_rng(0)
    grid = rng.standard_normal((4, 6)) + rng.standard_normal((4, 1)) + rng.standard_normal(6)
    missing = rng.random((4, 6)) < 0.3
    fold, output = np.indices(grid.shape)
    design = np.hstack([np.eye(4)[fold.ravel()], np.eye(6)[output.ravel()]])
    known = ~missing.ravel()
    weights = np.linalg.lstsq(design[known], grid.ravel()[known], rcond=None)[0]
    filled = np.where(missing, (design @ weights).reshape(grid.shape), grid)
    scores = two(grid)
    scores[:, missing[:, np.newaxis]] = np.nan
    # A fold and an output without any score are left out.
    scores = np.insert(np.insert(scores, 2, np.nan, axis=1), 3, np.nan, axis=3)
    found = summary(scores, "both", 0.5)
    place = worse(found)
    variance, freedom = crossed_by_hand(filled, 0.5, missing.sum())
    assert found["difference_to_best"][place] == pytest.approx(-abs(filled.mean()))
    assert found["difference_standard_error"][place] == pytest.approx(np.sqrt(variance))
    assert found["degrees_of_freedom"][place] == pytest.approx(freedom)


@pytest.mark.parametrize("units", ["folds", "outputs"])
def test_units_are_means_over_the_scores_that_any_candidate_has(units):
    scores = np.random.default_rng(0).standard_normal((3, 4, 2, 5))
    scores[:, 0, :, 1] = np.nan
    scores[:, 2] = np.nan
    scores[:, :, :, 4] = np.nan
    complete = np.array([True, True, False])
    axis = 1 if units == "outputs" else 2
    wanted = np.nanmean(scores.mean(axis=2)[:, [0, 1, 3], :4], axis=axis)
    found = units_of(scores, complete, units)
    np.testing.assert_allclose(found[:2], wanted[:2])
    assert np.isnan(found[2]).all()
    # A candidate that has none where others have one is not complete.
    scores[1, 1, 0, 0] = np.nan
    assert np.isnan(units_of(scores, complete, units)[1]).any()
    assert np.isnan(summary(scores[:2], units)["mean_score"]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("units", "shape"),
    [("folds", (1,)), ("outputs", (3, 1)), ("both", (1, 4)), ("both", (4, 1))],
)
def test_standard_error_of_one_unit_is_nan(units, shape):
    found = summary(two(np.ones(shape)), units)
    assert np.isnan(found["difference_standard_error"]).all()
    np.testing.assert_allclose(found["difference_to_best"], [-1, 0])
    assert np.isnan(found["p_value"][0])
    assert found["p_value"][1] == 1


def test_p_value_of_equal_differences_is_zero():
    found = summary(two(np.zeros(3)), "folds")
    assert found["p_value"].tolist() == [1, 1]
    scores = np.array([[[0.0], [1.0]], [[1.0], [2.0]]])
    assert summary(scores, "folds")["p_value"].tolist() == [0, 1]


def test_rank_begins_with_the_best():
    scores = np.array([[0.2, 0.3], [0.5, 0.9], [0.4, 0.1], [np.nan, np.nan]])[..., np.newaxis]
    found = summarise(scores, np.array([True, True, True, False]), "folds", 1.0)
    assert found["rank"].tolist() == [2, 1, 3, 4]
    assert found["best_index"] == 1
    np.testing.assert_allclose(found["difference_to_best"], [-0.45, 0, -0.45, np.nan])
