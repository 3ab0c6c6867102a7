import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score

import skdyn
from skdyn.metrics import (
    alpha_correlation,
    correlation_matrix,
    correlation_score,
    dice_coefficient,
    intraclass_correlation,
    noise_corrected_correlation,
    riemannian_distance,
    rv_coefficient,
)

seeds = st.integers(0, 2**32 - 1)


def covariance(rng, n_channels=4):
    factor = rng.standard_normal((n_channels, n_channels + 2))
    return factor @ factor.T + 0.1 * np.eye(n_channels)


@settings(deadline=None)
@given(seed=seeds, n_samples=st.integers(2, 30), scale=st.sampled_from([1e-200, 1.0, 1e100]))
def test_alpha_correlation_is_that_of_numpy_and_scipy(seed, n_samples, scale):
    rng = np.random.default_rng(seed)
    alpha = rng.dirichlet(np.ones(3), n_samples)
    other = rng.dirichlet(np.ones(4), n_samples)
    found = correlation_matrix(scale * alpha, other)
    assert found.shape == (3, 4)
    expected = np.corrcoef(alpha.T, other.T)[:3, 3:]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert abs(found).max() <= 1
    matched = alpha_correlation(alpha, other[:, :3] / scale)
    for j, value in enumerate(matched):
        assert value == pytest.approx(scipy.stats.pearsonr(alpha[:, j], other[:, j])[0], abs=1e-9)


def test_alpha_correlation_of_a_constant_column_is_nan():
    rng = np.random.default_rng(0)
    alpha = rng.standard_normal((50, 3))
    alpha[:, 1] = 0.1  # its mean is not exactly 0.1
    other = rng.standard_normal((50, 3))
    other[:, 2] = 0.0
    found = correlation_matrix(alpha, other)
    np.testing.assert_array_equal(
        np.isnan(found), [[False, False, True], [True, True, True], [False, False, True]]
    )
    np.testing.assert_array_equal(np.isnan(alpha_correlation(alpha, other)), [False, True, True])


# Its accuracy of 1e-12 is enough here.
@pytest.mark.filterwarnings("ignore:logm result may be inaccurate:RuntimeWarning")
@settings(deadline=None)
@given(seed=seeds)
def test_riemannian_distance_is_the_norm_of_the_matrix_logarithm(seed):
    rng = np.random.default_rng(seed)
    first, second = covariance(rng), covariance(rng)
    # The other definition: || log(A^-1/2 B A^-1/2) ||, Frobenius.
    values, vectors = np.linalg.eigh(first)
    root = vectors / np.sqrt(values) @ vectors.T
    logarithm = scipy.linalg.logm(root @ second @ root)
    expected = np.linalg.norm(logarithm)
    assert riemannian_distance(first, second) == pytest.approx(expected, rel=1e-6)
    assert riemannian_distance(second, first) == pytest.approx(expected, rel=1e-6)
    mixing = rng.standard_normal((4, 4)) + 6 * np.eye(4)
    moved = [mixing @ matrix @ mixing.T for matrix in (first, second)]
    assert riemannian_distance(*moved) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_riemannian_distance_to_a_multiple(scale):
    matrix = scale * covariance(np.random.default_rng(1))
    assert riemannian_distance(matrix, matrix) == pytest.approx(0, abs=1e-10)
    expected = np.sqrt(4) * np.log(7)
    assert riemannian_distance(matrix, 7 * matrix) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.diag([1.0, -0.5]), "^(covariance|other) has eigenvalues"),
        (np.diag([1.0, 0.0]), "^(covariance|other) has eigenvalues"),
        (np.outer([1, 0.1], [1, 0.1]), "^(covariance|other) has eigenvalues"),
        (np.zeros((2, 2)), "^(covariance|other) has eigenvalues"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
        (np.ones((2, 3)), "square"),
        (np.eye(3), "channels"),
        (np.full((2, 2), np.nan), "NaN"),
        (np.ones(2), "2 dimensions"),
    ],
)
def test_riemannian_distance_refuses_wrong_matrices(place, matrix, message):
    pair = [np.eye(2), np.eye(2)]
    pair[place] = matrix
    with pytest.raises(ValueError, match=message):
        riemannian_distance(*pair)


@settings(deadline=None)
@given(seed=seeds, scale=st.sampled_from([1e-100, 1.0, 1e100]))
def test_rv_coefficient_is_the_ratio_of_traces(seed, scale):
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((5, 3)), rng.standard_normal((5, 4))
    product, other = first @ first.T, second @ second.T
    expected = np.trace(product @ other) / np.sqrt(
        np.trace(product @ product) * np.trace(other @ other)
    )
    rotation = scipy.stats.ortho_group.rvs(3, random_state=rng)
    assert rv_coefficient(scale * first @ rotation, second) == pytest.approx(expected, rel=1e-9)
    assert rv_coefficient(second, first) == pytest.approx(expected, rel=1e-9)
    assert rv_coefficient(first, first) == pytest.approx(1)


def test_rv_coefficient_of_single_columns_is_the_squared_correlation():
    rng = np.random.default_rng(3)
    first, second = rng.standard_normal((2, 40))
    expected = scipy.stats.pearsonr(first, second)[0] ** 2
    columns = [(values - values.mean())[:, np.newaxis] for values in (first, second)]
    assert rv_coefficient(*columns) == pytest.approx(expected)


def test_rv_coefficient_of_a_zero_matrix_is_nan():
    assert np.isnan(rv_coefficient(np.zeros((2, 2)), np.eye(2)))


@settings(deadline=None)
@given(seed=seeds, n_samples=st.integers(1, 40))
def test_dice_coefficient_is_the_accuracy(seed, n_samples):
    rng = np.random.default_rng(seed)
    labels, other = rng.integers(0, 3, (2, n_samples))
    expected = accuracy_score(labels, other)
    assert dice_coefficient(labels, other) == pytest.approx(expected)
    weights = 0.2 * rng.random((n_samples, 3)) + np.eye(3)[labels]
    assert dice_coefficient(weights, other) == pytest.approx(expected)
    assert dice_coefficient(other, weights) == pytest.approx(expected)


def test_metrics_change_nothing_of_the_caller():
    rng = np.random.default_rng(0)
    courses = rng.standard_normal((2, 20, 3))
    matrices = np.stack([covariance(rng), covariance(rng)])
    labels = rng.integers(0, 3, (2, 20))
    for array in (courses, matrices, labels):
        array.setflags(write=False)
    alpha_correlation(*courses)
    correlation_matrix(*courses)
    riemannian_distance(*matrices)
    rv_coefficient(*matrices)
    dice_coefficient(*labels)


@pytest.mark.parametrize(
    ("function", "first", "second", "message"),
    [
        (alpha_correlation, np.eye(3), np.eye(3)[:, :2], "3 and 2 modes"),
        (alpha_correlation, np.eye(3), np.eye(3)[:2], "3 and 2 samples"),
        (correlation_matrix, np.eye(3), np.eye(3)[:2], "3 and 2 samples"),
        (correlation_matrix, np.ones((1, 2)), np.ones((1, 2)), "1 sample"),
        (correlation_matrix, np.ones(3), np.eye(3), "2 dimensions"),
        (correlation_matrix, np.eye(3), np.full((3, 3), np.inf), "infinite"),
        (correlation_matrix, np.ones((3, 0)), np.eye(3), "none empty"),
        (rv_coefficient, np.eye(3), np.eye(2), "3 channels and other 2"),
        (rv_coefficient, np.eye(3), np.ones(3), "2 dimensions"),
        (dice_coefficient, [0, 1], [0, 1, 2], "2 and 3 samples"),
        (dice_coefficient, [0.5, 1.0], [0, 1], "float64"),
        (dice_coefficient, [], [], r"\(0,\)"),
        (dice_coefficient, np.full((2, 2), np.nan), [0, 1], "NaN"),
    ],
)
def test_metrics_say_which_argument_is_wrong(function, first, second, message):
    with pytest.raises(ValueError, match=message) as error:
        function(first, second)
    assert "expected" in str(error.value)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_sessions_are_those_of_their_rows(seed):
    rng = np.random.default_rng(seed)
    alpha, other = rng.dirichlet(np.ones(3), size=(2, 4, 25))
    rows, others = alpha.reshape(100, 3), other.reshape(100, 3)
    unequal = [np.split(one, [10, 40]) for one in (rows, others)]
    for function in (alpha_correlation, correlation_matrix, dice_coefficient):
        wanted = function(rows, others)
        for pair in ((alpha, other), (list(alpha), list(other)), unequal, (unequal[0], others)):
            np.testing.assert_allclose(function(*pair), wanted, rtol=1e-12)
    states = alpha.argmax(axis=2), other.argmax(axis=2)
    wanted = np.mean(states[0] == states[1])
    unequal = [np.split(one.ravel(), [10, 40]) for one in states]
    assert dice_coefficient(*unequal) == pytest.approx(wanted)
    assert dice_coefficient(*states) == pytest.approx(wanted)
    assert dice_coefficient(list(states[0]), other) == pytest.approx(wanted)
    one_hot = np.eye(3, dtype=int)[states[0].ravel()]
    assert dice_coefficient(one_hot, states[1].ravel()) == pytest.approx(wanted)


@pytest.mark.parametrize("function", [alpha_correlation, correlation_matrix, dice_coefficient])
def test_metrics_refuse_sessions_that_differ(function):
    rows = np.random.default_rng(0).dirichlet(np.ones(3), size=30)
    parts, others = np.split(rows, [10]), np.split(rows, [20])
    with pytest.raises(ValueError, match=r"sessions of \[10, 20\] and \[20, 10\] samples"):
        function(parts, others)
    with pytest.raises(TypeError, match=r"is an estimator, PCA, .*transform"):
        function(PCA(), rows)


@pytest.mark.parametrize("function", [alpha_correlation, correlation_matrix])
def test_correlations_refuse_sessions_with_different_modes(function):
    rows = np.random.default_rng(0).dirichlet(np.ones(3), size=30)
    parts = [rows[:10], rows[10:, :2]]
    with pytest.raises(ValueError, match=r"alpha has sessions of \[2, 3\] modes"):
        function(parts, rows)
    with pytest.raises(ValueError, match=r"other has sessions of \[2, 3\] modes"):
        function(rows, parts)


class FakeRaw:
    """Attributes of a Raw object of MNE."""

    info = ch_names = get_data = ()


NUMBERS = np.arange(6.0)
TAKEN = {
    "alpha": lambda X: alpha_correlation(X, X),
    "labels": lambda X: dice_coefficient(X, X),
    "y_true": lambda X: correlation_score(X, NUMBERS),
    "y_pred": lambda X: correlation_score(NUMBERS, X),
    "sample_weight": lambda X: correlation_score(NUMBERS, NUMBERS, sample_weight=X),
    "repeats": lambda X: noise_corrected_correlation(X, NUMBERS),
    "A measurement": lambda X: intraclass_correlation(X, NUMBERS),
}


@pytest.mark.parametrize("form", [FakeRaw(), [FakeRaw(), FakeRaw()]], ids=["one", "list"])
@pytest.mark.parametrize("name", TAKEN)
def test_metrics_answer_objects_of_mne(name, form):
    with pytest.raises(TypeError, match=f"^{name} is an object of MNE, FakeRaw, but"):
        TAKEN[name](form)


class FakeSeries:
    """Attributes of a pynapple series with one epoch; its rows are those of an array."""

    time_support, restrict = ((0, 1),), None

    def __init__(self, values):
        self.values, self.ndim, self.shape = values, values.ndim, values.shape

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype=dtype)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, item):
        return self.values[item]


@pytest.mark.parametrize("n_outputs", [(), (2,)])
def test_metrics_of_responses_take_series_of_pynapple(n_outputs):
    rng = np.random.default_rng(0)
    y, predicted = rng.standard_normal((2, 30, *n_outputs))
    weight, repeats = rng.random(y.shape), y[..., None] + rng.standard_normal((*y.shape, 3))
    for function, arrays in [
        (lambda *one: correlation_score(*one[:2], sample_weight=one[2]), (y, predicted, weight)),
        (noise_corrected_correlation, (repeats, predicted + 2 * y)),
    ]:
        wanted = function(*arrays)
        assert np.isfinite(wanted)
        assert function(*map(FakeSeries, arrays)) == wanted


@pytest.mark.parametrize("seed", range(20))
def test_correlations_of_proportional_columns_are_at_most_one(seed):
    alpha = np.random.default_rng(seed).standard_normal((7, 4))
    for other in (0.3 * alpha, -0.7 * alpha):
        for found in (alpha_correlation(alpha, other), correlation_matrix(alpha, other)):
            assert np.abs(found).max() <= 1


# Six subjects by four raters, of Shrout and Fleiss (1979), with the coefficients printed there.
RATINGS = np.transpose(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
)


def test_intraclass_correlation_is_that_of_the_paper():
    assert intraclass_correlation(*RATINGS) == pytest.approx(0.29, abs=0.005)
    assert intraclass_correlation(*RATINGS, kind="consistency") == pytest.approx(0.71, abs=0.005)


@settings(deadline=None)
@given(seed=seeds, n_subjects=st.integers(2, 8), n_measurements=st.integers(2, 4))
def test_intraclass_correlation_is_a_ratio_of_covariances(seed, n_subjects, n_measurements):
    """Mean covariance of two measurements by mean variance, and by mean squared deviation."""
    values = np.random.default_rng(seed).standard_normal((n_measurements, n_subjects))
    covariances = np.cov(values)
    variance = np.trace(covariances) / n_measurements
    shared = (covariances.sum() - np.trace(covariances)) / n_measurements / (n_measurements - 1)
    found = intraclass_correlation(*values, kind="consistency")
    assert found == pytest.approx(shared / variance, abs=1e-9)
    shift = values.mean(axis=1).var(ddof=1) - (variance - shared) / n_subjects
    found = intraclass_correlation(*values)
    assert found == pytest.approx(shared / (variance + shift), abs=1e-9)


def test_intraclass_correlation_recovers_shares_of_the_variance():
    rng = np.random.default_rng(0)
    subjects = 2 * rng.standard_normal((4000, 1, 1))
    values = subjects + rng.standard_normal((4000, 3, 2)) + [[0], [0.0], [3]]
    test, retest, shifted = np.moveaxis(values, 1, 0)
    np.testing.assert_allclose(intraclass_correlation(test, retest), 0.8, atol=0.02)
    np.testing.assert_allclose(
        intraclass_correlation(test, shifted, kind="consistency"), 0.8, atol=0.02
    )
    np.testing.assert_allclose(intraclass_correlation(test, shifted), 4 / (5 + 4.5), atol=0.02)


def test_intraclass_correlation_of_what_does_not_vary():
    test = np.array([[1.0, 1.0], [2.0, 1.0]])
    np.testing.assert_array_equal(intraclass_correlation(test, test), [1, np.nan])
    assert intraclass_correlation([1, 2], [2, 1], kind="consistency") == -1
    assert intraclass_correlation([1.0, 1], [2.0, 2]) == 0


@pytest.mark.parametrize(
    ("measurements", "options", "message"),
    [
        ([], {}, "two or more"),
        ([[1, 2]], {}, "two or more"),
        ([[1], [2]], {}, "at least two subjects"),
        ([1, 2], {}, r"\[\(\), \(\)\]"),
        ([[1, 2], [1, 2, 3]], {}, r"shapes \[\(2,\), \(3,\)\]"),
        ([[1, 2], [1, np.nan]], {}, "NaN"),
        ([[1, 2], [1, 2]], {"kind": "both"}, "kind is 'both'"),
    ],
)
def test_intraclass_correlation_says_what_is_wrong(measurements, options, message):
    with pytest.raises(ValueError, match=message):
        intraclass_correlation(*measurements, **options)


def test_metrics_import_no_torch():
    """The package itself does, so it is replaced by an empty one with the same files."""
    program = (
        "import sys, types; package = types.ModuleType('skdyn'); package.__path__ = sys.argv[1:]\n"
        "sys.modules['skdyn'] = package; import skdyn.metrics; print('torch' in sys.modules)"
    )
    folder = str(Path(skdyn.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", program, folder], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]
