"""Permutation tests against SciPy and least squares, and their false positive rate."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from skdyn.analysis import permutation_test

FEW = {"n_permutations": 200}


def welch(first, second, axis=-1):
    return stats.ttest_ind(first, second, axis=axis, equal_var=False).statistic


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 12), st.floats(-50, 50))
def test_one_sample_is_students_t_of_scipy(seed, n_rows, offset):
    values = np.random.default_rng(seed).standard_normal((n_rows, 2, 3)) + offset
    test = permutation_test(values, **FEW)
    expected = stats.ttest_1samp(values, 0)
    np.testing.assert_allclose(test.statistic, expected.statistic, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(test.effect, values.mean(axis=0), rtol=1e-9, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 12), st.integers(3, 12))
def test_two_groups_are_welchs_t_of_scipy(seed, n_first, n_second):
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((n_first, 4)), 3 * rng.standard_normal((n_second, 4)) + 1
    labels = ["a"] * n_first + ["b"] * n_second
    order = rng.permutation(n_first + n_second)
    values = np.concatenate([first, second])[order]
    test = permutation_test(values, np.array(labels)[order], **FEW)
    np.testing.assert_allclose(test.statistic, welch(second, first, axis=0), rtol=1e-7)
    np.testing.assert_allclose(test.effect, second.mean(axis=0) - first.mean(axis=0))
    assert test.labels == ("a", "b")


def test_exact_p_values_are_those_of_scipy():
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((5, 3)), rng.standard_normal((4, 3)) + np.arange(3)
    labels = [0] * 5 + [1] * 4
    test = permutation_test(np.concatenate([first, second]), labels)
    assert test.is_exact
    assert test.n_permutations == 126
    kinds = {"permutation_type": "independent", "n_resamples": np.inf, "vectorized": True}
    theirs = stats.permutation_test((second, first), welch, axis=0, **kinds)
    # SciPy's p value doubles the smaller tail; that of the absolute statistic is counted here.
    null = np.abs(theirs.null_distribution)
    observed = np.abs(theirs.statistic)
    np.testing.assert_allclose(test.p_uncorrected, (null >= observed - 1e-9).mean(axis=0))
    largest = null.max(axis=1)
    np.testing.assert_allclose(np.sort(test.null), np.sort(largest), rtol=1e-7)
    expected = (largest[:, None] >= observed - 1e-9).mean(axis=0)
    np.testing.assert_allclose(test.p_value, expected)
    assert test.critical_value == pytest.approx(np.quantile(largest, 0.95, method="higher"))


def test_exact_signs_are_those_of_scipy():
    differences = np.random.default_rng(2).standard_normal((8, 3)) + np.arange(3) / 2
    test = permutation_test(differences, alternative="greater")
    assert test.n_permutations == 256

    def statistic(values, axis=-1):
        return stats.ttest_1samp(values, 0, axis=axis).statistic

    kinds = {"permutation_type": "samples", "n_resamples": np.inf, "vectorized": True}
    theirs = stats.permutation_test(
        (differences,), statistic, axis=0, alternative="greater", **kinds
    )
    np.testing.assert_allclose(test.p_uncorrected, theirs.pvalue)
    np.testing.assert_allclose(
        np.sort(test.null), np.sort(theirs.null_distribution.max(axis=1)), rtol=1e-7
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_regression_is_least_squares(seed, n_covariates):
    rng = np.random.default_rng(seed)
    ages, covariates = rng.uniform(20, 80, 15), rng.standard_normal((15, n_covariates))
    values = rng.standard_normal((15, 4)) + 0.05 * ages[:, None] + covariates[:, :1]
    test = permutation_test(values, regressor=ages, covariates=covariates, **FEW)
    design = np.column_stack([ages, np.ones(15), covariates])
    weights, squares, _, _ = np.linalg.lstsq(design, values, rcond=None)
    errors = np.sqrt(np.linalg.inv(design.T @ design)[0, 0] * squares / (15 - design.shape[1]))
    np.testing.assert_allclose(test.effect, weights[0], rtol=1e-7)
    np.testing.assert_allclose(test.statistic, weights[0] / errors, rtol=1e-7)


def test_shuffled_residuals_are_regressed_as_freedman_and_lane_do():
    rng = np.random.default_rng(3)
    regressor, covariate = rng.standard_normal((2, 5))
    values = rng.standard_normal((5, 2))
    test = permutation_test(values, regressor=regressor, covariates=covariate)
    assert test.n_permutations == 120
    nuisance = np.column_stack([np.ones(5), covariate])
    fitted = nuisance @ np.linalg.lstsq(nuisance, values, rcond=None)[0]
    residual = values - fitted
    design = np.column_stack([regressor, nuisance])
    inverse = np.linalg.inv(design.T @ design)
    largest = []

    for order in itertools.permutations(range(5)):
        shuffled = fitted + residual[list(order)]
        weights = inverse @ design.T @ shuffled
        squares = ((shuffled - design @ weights) ** 2).sum(axis=0)
        largest.append(np.abs(weights[0] / np.sqrt(inverse[0, 0] * squares / 2)).max())
    np.testing.assert_allclose(np.sort(test.null), np.sort(largest), rtol=1e-6)


def test_pairs_are_matched_whatever_the_order_of_rows():
    rng = np.random.default_rng(4)
    rest, task = rng.standard_normal((2, 9, 3))
    motion = rng.standard_normal(18)
    values = np.concatenate([rest, task])
    labels, people = np.repeat(["rest", "task"], 9), np.tile(np.arange(9), 2)
    plain = permutation_test(values, labels, pairs=people, **FEW)
    np.testing.assert_allclose(plain.statistic, stats.ttest_rel(task, rest).statistic)
    assert plain.kind == "paired"
    order = rng.permutation(18)
    moved = permutation_test(values[order], labels[order], pairs=people[order], **FEW)
    np.testing.assert_allclose(moved.null, plain.null)
    adjusted = permutation_test(values, labels, pairs=people, covariates=motion, **FEW)
    design = np.column_stack([np.ones(9), motion[9:] - motion[:9]])
    weights = np.linalg.lstsq(design, task - rest, rcond=None)[0]
    np.testing.assert_allclose(adjusted.effect, weights[0])
    # A covariate that is equal in both conditions has no influence.
    age = permutation_test(values, labels, pairs=people, covariates=np.tile(np.arange(9.0), 2))
    np.testing.assert_allclose(age.statistic, plain.statistic)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_units_and_offsets_do_not_matter(seed, factor):
    rng = np.random.default_rng(seed)
    values, labels = rng.standard_normal((10, 3)), [0] * 5 + [1] * 5
    plain = permutation_test(values, labels, **FEW)
    scaled = permutation_test(factor * values, labels, **FEW)
    np.testing.assert_allclose(scaled.p_value, plain.p_value)
    np.testing.assert_allclose(scaled.effect, factor * plain.effect)
    shifted = permutation_test(values + 1000, labels, **FEW)
    np.testing.assert_allclose(shifted.statistic, plain.statistic, rtol=1e-5)


def test_values_that_do_not_vary_have_defined_results():
    values = np.zeros((10, 3))
    values[:, 1] = 1.0
    values[5:, 2] = 1.0
    labels = [0] * 5 + [1] * 5
    test = permutation_test(values, labels)
    np.testing.assert_array_equal(test.statistic, [0, 0, np.inf])
    # 2 of 252 arrangements separate the groups.
    np.testing.assert_allclose(test.p_value, [1, 1, 2 / 252])
    one = permutation_test(values[:, :2])
    np.testing.assert_array_equal(one.statistic, [0, np.inf])
    np.testing.assert_allclose(one.p_value, [1, 2 / 1024])


@pytest.mark.parametrize("n_rows", [5, 6, 7, 9, 10, 11])
def test_constant_values_have_p_values_without_rounding(n_rows):
    constants = np.array([1.0, 0.1, 1 / 3, 1e-7, 12345.678, -np.pi])
    one = permutation_test(np.tile(constants, (n_rows, 1)))
    np.testing.assert_array_equal(one.statistic, np.copysign(np.inf, constants))
    np.testing.assert_allclose(one.p_value, 2 / 2**n_rows)
    first = n_rows // 2
    values = np.concatenate([np.tile(constants, (first, 1)), np.tile(0.3 * constants, (4, 1))])
    two = permutation_test(values, [0] * first + [1] * 4)
    assert np.isinf(two.statistic).all()
    beyond = 1 + (first == 4)  # with unequal groups, only the arrangement itself separates them
    np.testing.assert_allclose(two.p_value, beyond / math.comb(first + 4, 4))


def test_features_with_missing_values_are_left_out():
    values = np.random.default_rng(5).standard_normal((9, 2, 2))
    values[3, 1, 0] = np.nan
    with pytest.warns(UserWarning, match="1 of 4 features have missing values"):
        test = permutation_test(values, **FEW)
    assert test.p_value.shape == (2, 2)
    assert np.isnan(test.p_value[1, 0])
    rest = permutation_test(values.reshape(9, 4)[:, [0, 1, 3]], **FEW)
    np.testing.assert_allclose(test.p_value.ravel()[[0, 1, 3]], rest.p_value)


def test_same_random_state_gives_the_same_result():
    values = np.random.default_rng(6).standard_normal((20, 3))
    first, second = (permutation_test(values, n_permutations=300, random_state=7) for _ in range(2))
    np.testing.assert_array_equal(first.null, second.null)
    assert first.null[0] == np.abs(first.statistic).max()
    other = permutation_test(values, n_permutations=300, random_state=8)
    assert not np.array_equal(first.null, other.null)


def rejections(make, n_tests=200, **options):
    """Share of tests with an effect of chance that are below .05."""
    found = 0
    for seed in range(n_tests):
        values, given = make(np.random.default_rng(seed))
        test = permutation_test(values, n_permutations=100, random_state=seed, **given, **options)
        found += bool(test.p_value.min() <= 0.05)
    return found / n_tests


def noise(rng, n_rows=14):
    """Features that depend on each other, with heavy tails."""
    return rng.standard_t(4, (n_rows, 5)) + rng.standard_t(4, (n_rows, 1))


NULLS = {
    "one sample": lambda rng: (noise(rng), {}),
    "paired": lambda rng: (
        noise(rng, 28),
        {"labels": np.tile([0, 1], 14), "pairs": np.repeat(np.arange(14), 2)},
    ),
    "groups": lambda rng: (noise(rng), {"labels": [0] * 5 + [1] * 9}),
    "covariates": lambda rng: _with_covariate(rng, "labels"),
    "regression": lambda rng: _with_covariate(rng, "regressor"),
}


def _with_covariate(rng, name):
    """A covariate that correlates with the values and with the tested variable."""
    covariate = rng.standard_normal(20)
    tested = covariate + rng.standard_normal(20)
    if name == "labels":
        tested = tested > np.median(tested)
    return noise(rng, 20) + 2 * covariate[:, None], {name: tested, "covariates": covariate}


@pytest.mark.parametrize("kind", NULLS)
def test_under_the_null_one_in_twenty_tests_rejects(kind):
    share = rejections(NULLS[kind])
    # Three standard errors of a binomial of 200.
    assert abs(share - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 200)


def test_a_covariate_left_out_is_taken_for_an_effect():
    def make(rng):
        values, given = _with_covariate(rng, "regressor")
        return values, {"regressor": given["regressor"]}

    assert rejections(make, n_tests=20) > 0.5


def test_to_frame_and_plot_show_every_feature():
    pytest.importorskip("pandas")
    values = np.random.default_rng(8).standard_normal((12, 3, 2))
    values[:, 1, 0] += 3
    test = permutation_test(values, n_permutations=500)
    frame = test.to_frame(["mode", "band"])
    assert frame.index.names == ["mode", "band"]
    assert frame.loc[(1, 0), "p_value"] == test.p_value[1, 0]
    assert len(frame) == 6
    with pytest.raises(ValueError, match="names has 1 names, but must have"):
        test.to_frame(["mode"])
    _, axes = test.plot(feature_names=list("abcdef"))
    assert [text.get_text() for text in axes[0].get_xticklabels()] == list("abcdef")
    single = permutation_test(values[:, 0, 0], **FEW)
    assert single.p_value.shape == ()
    assert len(single.to_frame()) == 1


VALUES = np.random.default_rng(9).standard_normal((6, 2))
LABELS = [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0] * 6}, "1 different labels"),
        ({"labels": [0, 1, 2] * 2}, "3 different labels"),
        ({"labels": [0, 1]}, r"labels has shape \(2,\), but there are 6 rows"),
        ({"labels": [0] * 5 + [1]}, "groups have 5 and 1 rows"),
        ({"labels": LABELS, "regressor": LABELS}, "labels and regressor were both given"),
        ({"pairs": [0, 1, 2] * 2}, "pairs was given without labels"),
        ({"labels": LABELS, "pairs": [0, 1, 2, 0, 1, 3]}, "one row of each label"),
        ({"labels": LABELS, "pairs": [0, 0, 1, 0, 0, 1]}, "one row of each label"),
        ({"regressor": np.ones(6)}, "constant or a combination"),
        ({"regressor": LABELS, "covariates": LABELS}, "constant or a combination"),
        ({"regressor": [np.nan] * 6}, "not finite"),
        ({"labels": LABELS, "covariates": np.eye(6)[:, :5]}, "needs more|combination"),
        ({"alternative": "both"}, "alternative must be .* but is 'both'"),
        ({"n_permutations": 1}, "n_permutations must be .* but is 1"),
        ({"level": 5}, "level must be .* but is 5"),
    ],
)
def test_permutation_test_refuses_what_makes_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        permutation_test(VALUES, **options)


def test_permutation_test_refuses_values_without_rows():
    with pytest.raises(ValueError, match="at least 2 sessions"):
        permutation_test([1.0])
    with pytest.raises(ValueError, match="infinite"):
        permutation_test([[1.0], [np.inf]])
    with (
        pytest.raises(ValueError, match="without missing values"),
        pytest.warns(UserWarning, match="missing"),
    ):
        permutation_test([[np.nan], [1.0]])
