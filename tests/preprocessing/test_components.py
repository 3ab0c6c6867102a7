"""Principal components of sessions against scikit-learn's PCA, and components without variance."""

import warnings

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from skdyn.preprocessing import SessionPCA, SessionScaler, TimeDelayEmbedder, TimeDelayPCA

ATTRIBUTES = (
    *("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_"),
    *("mean_", "noise_variance_", "n_components_", "n_samples_"),
)


def sessions_of(n_channels=4, rank=None, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((rank or n_channels, n_channels))
    return [
        (rng.standard_normal((n, len(mixing))) @ mixing + 3).astype(dtype) for n in (150, 150, 150)
    ]


@pytest.mark.parametrize("n_components", [None, 1, 3, 4, 0.5, 0.95])
@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("form", ["rows", "list", "stack"])
def test_session_pca_is_scikit_learns(n_components, whiten, form):
    X = sessions_of()
    rows = np.concatenate(X)
    pca = PCA(n_components, whiten=whiten, svd_solver="full").fit(rows)
    given = {"rows": rows, "list": X, "stack": np.stack(X)}[form]
    ours = SessionPCA(n_components, whiten=whiten).fit(given)
    for name in ATTRIBUTES:
        np.testing.assert_allclose(getattr(ours, name), getattr(pca, name), rtol=1e-9, atol=1e-12)
    found = np.concatenate([*np.atleast_2d(ours.transform(given))])
    expected = pca.transform(rows)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-10)
    back = np.concatenate([*ours.inverse_transform(ours.transform(X))])
    np.testing.assert_allclose(back, pca.inverse_transform(expected), atol=1e-10)


def test_session_pca_is_one_lag_of_time_delay_pca():
    X = sessions_of()
    one, other = SessionPCA(3).fit(X), TimeDelayPCA(1, 3).fit(X)
    for name in ATTRIBUTES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_session_pca_takes_sessions_in_a_pipeline():
    X = sessions_of()
    found = make_pipeline(SessionScaler(), SessionPCA(2)).fit_transform(X)
    assert [one.shape for one in found] == [(150, 2)] * 3


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("n_embeddings", [None, 3])
def test_whitened_components_without_variance_are_zero(dtype, rank, n_embeddings):
    """As leakage correction and average references leave them."""
    n_channels = 5
    X = sessions_of(n_channels, rank, dtype=dtype)
    if n_embeddings is None:
        model, n_varying, n_all = SessionPCA(whiten=True), rank, n_channels
    else:
        model = TimeDelayPCA(n_embeddings, whiten=True)
        n_varying, n_all = rank * n_embeddings, n_channels * n_embeddings
    message = f"{n_all - n_varying} of {n_all} components have no .* set n_components={n_varying}"
    with pytest.warns(UserWarning, match=message):
        model.fit(X)
    scores = model.transform(X)
    np.testing.assert_allclose(np.concatenate(scores)[:, :n_varying].std(axis=0), 1, rtol=0.01)
    np.testing.assert_array_equal(np.concatenate(scores)[:, n_varying:], 0)
    atol = 1e-10 if dtype == np.float64 else 1e-4
    for one, other in zip(model.inverse_transform(scores), X, strict=True):
        np.testing.assert_allclose(one, other, atol=atol)
    kept = type(model)(**(model.get_params() | {"n_components": n_varying})).fit(X)
    expected = np.concatenate(scores)[:, :n_varying]
    np.testing.assert_allclose(np.concatenate(kept.transform(X)), expected, atol=atol)


@pytest.mark.parametrize("rank", [2, 4])
def test_inverse_components_are_embedded_rows(rank):
    X = sessions_of(rank=rank)[0]
    wide = TimeDelayEmbedder(5).fit_transform(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = TimeDelayPCA(5, whiten=True).fit(X)
    scores = model.transform(X)
    np.testing.assert_allclose(model.inverse_components(scores), wide, atol=1e-9)
    np.testing.assert_allclose(model.inverse_components(scores[40:41]), wide[40:41], atol=1e-9)
    with pytest.raises(ValueError, match="X has 2 columns, but 20 were expected"):
        model.inverse_components(scores[:, :2])


@pytest.mark.parametrize("ratio", [1e-3, 1e-5])
def test_whitened_weak_components_are_kept(ratio):
    X = [one * [1, 1, 1, ratio] for one in sessions_of()]
    scores = np.concatenate(SessionPCA(whiten=True).fit_transform(X))
    np.testing.assert_allclose(scores.std(axis=0, ddof=1), 1, rtol=1e-3)


def test_components_of_a_constant_recording_are_refused():
    with pytest.raises(ValueError, match="X has no channel that varies"):
        SessionPCA().fit(np.full((50, 3), 0.1))
    with pytest.raises(ValueError, match="n_components is 4, but 50 rows of 3 channels have"):
        SessionPCA(4).fit(np.ones((50, 3)))
