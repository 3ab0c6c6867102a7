"""Sessions in units of their own spread, against SciPy and scikit-learn."""

import numpy as np
import pytest
from scipy.stats import zscore
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skdyn.preprocessing import LogCompressor, RangeScaler, SessionScaler


def sessions_of(seed=0):
    rng = np.random.default_rng(seed)
    return [gain * (rng.standard_normal((n, 3)) + 4) for n, gain in [(50, 1), (30, 200), (7, 0.01)]]


def test_session_scaler_standardises_each_session():
    for found, X in zip(SessionScaler().fit_transform(sessions_of()), sessions_of(), strict=True):
        np.testing.assert_allclose(found, zscore(X), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("with_mean", [False, True])
@pytest.mark.parametrize("with_std", [False, True])
def test_session_scaler_is_scikit_learns(with_mean, with_std):
    parameters = {"with_mean": with_mean, "with_std": with_std}
    for X in sessions_of():
        expected = StandardScaler(**parameters).fit_transform(X)
        np.testing.assert_allclose(SessionScaler(**parameters).fit_transform(X), expected)


def test_session_scaler_uses_what_is_transformed():
    first, second, _ = sessions_of()
    fitted = SessionScaler().fit(first)
    np.testing.assert_allclose(fitted.transform(second), zscore(second))
    np.testing.assert_allclose(fitted.transform(first[:20]), zscore(first[:20]))
    assert not hasattr(fitted, "inverse_transform")


@pytest.mark.parametrize("given_type", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e9])
def test_session_scaler_centres_constant_channels(given_type, value):
    X = np.column_stack([np.full(49, value), np.arange(49)]).astype(given_type)
    found = SessionScaler().fit_transform(X)
    np.testing.assert_allclose(found[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(found[:, 1].std(), 1, rtol=1e-6)
    plain = SessionScaler(with_mean=False).fit_transform(X)
    np.testing.assert_array_equal(plain[:, 0], X[:, 0])


def test_session_scaler_takes_rounding_for_constant():
    X = np.array([[0.1 + 0.2], [0.3]] * 20)
    assert X.std() > 0
    assert np.abs(SessionScaler().fit_transform(X)).max() < 1e-15


def test_session_scaler_scales_faint_channels():
    X = 1e-13 * np.random.default_rng(0).standard_normal((50, 2))
    np.testing.assert_allclose(SessionScaler().fit_transform(X), zscore(X))


def test_session_scaler_takes_large_offsets_in_single_precision():
    X = (np.random.default_rng(0).standard_normal((5000, 2)) + 1e5).astype(np.float32)
    found = SessionScaler().fit_transform(X)
    np.testing.assert_allclose(found, zscore(X.astype(np.float64)), atol=1e-6)


@pytest.mark.parametrize("scale", [5e-324, 1e-320, 1e-300, 1e-160, 1e160, 1e300])
@pytest.mark.parametrize("with_mean", [False, True])
def test_scaler_takes_numbers_whose_squares_are_out_of_range(scale, with_mean):
    X = scale * np.array([[0.0, 1.0], [0.0, -3.0], [2.0, 5.0], [10.0, 2.0]])
    found = SessionScaler(with_mean=with_mean).fit_transform(X)
    integers = np.round(X / scale) if scale > 1e-310 else X / 5e-324
    expected = integers / integers.std(axis=0)
    if with_mean:
        expected = zscore(integers)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    centred = SessionScaler(with_std=False).fit_transform(X)
    np.testing.assert_allclose(centred, X - scale * (X / scale).mean(axis=0), atol=scale, rtol=1e-9)


def test_log_compression_is_its_formula():
    X = np.array([[-3.0, 0.0], [0.02, 200.0]])
    np.testing.assert_allclose(
        LogCompressor(0.5).fit_transform(X), np.sign(X) * np.log((np.abs(X) + 0.5) / 0.5)
    )
    assert LogCompressor().fit(X).offset_ == 2.0
    assert LogCompressor().fit(0 * X).offset_ == 1.0


def test_range_scaling_is_that_of_scikit_learn():
    X = np.random.default_rng(0).standard_normal((50, 3)) * [1, 10, 100] + 5
    expected = MinMaxScaler((-1, 2)).fit_transform(X)
    found = RangeScaler(low=-1, high=2).fit_transform(X, sessions=np.repeat([0, 1], 25))
    np.testing.assert_allclose(found, expected)
    joint = RangeScaler(joint=True).fit_transform(X)
    np.testing.assert_allclose(joint, (X - X.min()) / (X.max() - X.min()))
    constant = RangeScaler(low=3, high=4).fit_transform(np.full((5, 1), 7.0))
    np.testing.assert_array_equal(constant, 3.0)
    with pytest.raises(ValueError, match="low is 1, but must be below high=1"):
        RangeScaler(low=1, high=1).fit(X)
