"""CovarianceAligner: covariances of sessions before and after."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from skdyn.preprocessing import CovarianceAligner, SessionScaler


def covariance(rows):
    return np.cov(rows, rowvar=False, bias=True)


@pytest.fixture
def X():
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal((n, 4)) @ rng.standard_normal((4, 4)) * [1, 10, 0.1, 3] + rng.normal()
        for n in (300, 500, 200)
    ]


def test_covariance_aligner_gives_sessions_the_covariance_of_the_group(X):
    aligner = CovarianceAligner().fit(X)
    expected = np.average([covariance(one) for one in X], axis=0, weights=[300, 500, 200])
    np.testing.assert_allclose(aligner.covariance_, expected)
    for session in aligner.transform(X):
        np.testing.assert_allclose(covariance(session), expected, atol=1e-9 * expected.max())
        np.testing.assert_allclose(session.mean(axis=0), 0, atol=1e-9)


def test_covariance_aligner_is_the_optimal_transport_of_scipy_roots(X):
    scale = np.sqrt(np.diag(CovarianceAligner().fit(X).covariance_))
    own, group = covariance(X[0] / scale), CovarianceAligner().fit(X).covariance_
    group = group / np.outer(scale, scale)
    root = sqrtm(own)
    inverse = np.linalg.inv(root)
    transport = inverse @ sqrtm(root @ group @ root) @ inverse
    expected = (X[0] - X[0].mean(axis=0)) / scale @ transport * scale
    np.testing.assert_allclose(CovarianceAligner().fit(X).transform(X[0]), expected, rtol=1e-6)


def test_covariance_aligner_moves_rows_less_than_a_rotated_alignment(X):
    aligner = CovarianceAligner().fit(X)
    aligned = aligner.transform(X[0])
    factor = np.linalg.cholesky(aligner.covariance_) @ np.linalg.inv(
        np.linalg.cholesky(covariance(X[0]))
    )
    centred, scale = X[0] - X[0].mean(axis=0), np.sqrt(np.diag(aligner.covariance_))
    other = centred @ factor.T
    np.testing.assert_allclose(covariance(other), covariance(aligned), atol=1e-6)
    assert np.square((aligned - centred) / scale).sum() < np.square((other - centred) / scale).sum()


def test_covariance_aligner_aligns_a_session_that_it_has_not_seen(X):
    aligner = CovarianceAligner().fit(X[:2])
    found = covariance(aligner.transform(X[2]))
    np.testing.assert_allclose(found, aligner.covariance_, atol=1e-9 * found.max())


def test_covariance_aligner_leaves_a_single_session_as_it_is(X):
    aligned = CovarianceAligner().fit_transform(X[0])
    np.testing.assert_allclose(aligned, X[0] - X[0].mean(axis=0), atol=1e-9)


def test_covariance_aligner_keeps_empty_directions_empty(X):
    referenced = [one - one.mean(axis=1, keepdims=True) for one in X]
    aligner = CovarianceAligner().fit(referenced)
    for session in aligner.transform(referenced):
        largest = np.abs(session).max()
        np.testing.assert_allclose(session.sum(axis=1), 0, atol=1e-9 * largest)
        found = covariance(session)
        np.testing.assert_allclose(found, aligner.covariance_, atol=1e-9 * found.max())
    X[1][:, 2] = 0.5  # a channel that is constant in one session stays so in this one
    aligned = CovarianceAligner().fit_transform(X)
    np.testing.assert_allclose(aligned[1][:, 2], 0, atol=1e-9)


@pytest.mark.parametrize("unit", [1e-13, 1e9])
def test_covariance_aligner_does_not_depend_on_units_of_channels(X, unit):
    units = np.array([unit, 1, 1, 1])
    aligned = CovarianceAligner().fit_transform([one * units for one in X])
    for found, expected in zip(aligned, CovarianceAligner().fit_transform(X), strict=True):
        np.testing.assert_allclose(found, expected * units, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-160, 1e160])
def test_covariance_aligner_refuses_variances_out_of_the_range_of_floats(X, size):
    with pytest.raises(ValueError, match="variances are out of the range"):
        CovarianceAligner().fit([one * size for one in X])


def test_correlations_differ_after_scaling_but_not_after_alignment(X):
    scaled = [covariance(one) for one in SessionScaler().fit_transform(X)]
    assert np.abs(scaled[0] - scaled[1]).max() > 0.3
