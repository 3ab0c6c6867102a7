"""Time-delay embedding against loops and padding, TDE-PCA against scikit-learn's PCA."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from skdyn.preprocessing import TimeDelayEmbedder, TimeDelayPCA, embedding, tde_pca

# Names of the same padding in NumPy.
PADDING = {"reflect": "reflect", "edge": "edge", "zero": "constant"}

every_edge = pytest.mark.parametrize("edges", PADDING)


def smooth_recording(n_samples=300, n_channels=3, seed=0):
    """Correlated in time and between channels, with an offset."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n_samples + 4, n_channels))
    smooth = sum(noise[lag : lag + n_samples] * (lag + 1) for lag in range(5))
    return smooth @ rng.standard_normal((n_channels, n_channels)) + 3


def embedded_by_loops(X, n_embeddings, edges):
    half = n_embeddings // 2
    padded = np.pad(X, [(half, half), (0, 0)], mode=PADDING[edges])
    return np.array(
        [
            [
                padded[half + row + delay, channel]
                for channel in range(X.shape[1])
                for delay in range(half, -half - 1, -1)
            ]
            for row in range(len(X))
        ]
    )


# The embedding


@every_edge
@pytest.mark.parametrize("n_samples", [1, 2, 3, 4, 50])
@pytest.mark.parametrize("n_embeddings", [1, 3, 15])
def test_embedder_is_a_loop_over_a_padded_session(edges, n_samples, n_embeddings):
    X = smooth_recording(n_samples)
    found = TimeDelayEmbedder(n_embeddings, edges=edges).fit_transform(X)
    np.testing.assert_array_equal(found, embedded_by_loops(X, n_embeddings, edges))


@every_edge
def test_embedder_inverse_is_exact(edges):
    for given_type in (np.float32, np.float64):
        X = [smooth_recording(n).astype(given_type) for n in (100, 1, 2, 7)]
        embedder = TimeDelayEmbedder(9, edges=edges)
        for one, other in zip(
            embedder.inverse_transform(embedder.fit_transform(X)), X, strict=True
        ):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == given_type


def test_embedder_inverse_averages_copies():
    X = smooth_recording(20, 2)
    embedder = TimeDelayEmbedder(5).fit(X)
    wide = np.random.default_rng(0).standard_normal((20, 10))
    found = embedder.inverse_transform(wide)
    for row in range(20):
        for channel in range(2):
            copies = [
                wide[row - delay, channel * 5 + 2 - delay]
                for delay in range(-2, 3)
                if 0 <= row - delay < 20
            ]
            np.testing.assert_allclose(found[row, channel], np.mean(copies))


def test_time_delay_pca_works_in_blocks_that_do_not_show(monkeypatch):
    X = [smooth_recording(97), smooth_recording(5)]
    whole = TimeDelayPCA(7, 4).fit(X)
    wide = TimeDelayEmbedder(7).fit_transform(X)
    monkeypatch.setattr(embedding, "_BLOCK_SIZE", 21 * 4)
    pieces = TimeDelayPCA(7, 4).fit(X)
    np.testing.assert_allclose(pieces.components_, whole.components_, atol=1e-12)
    for one, other in zip(pieces.transform(X), whole.transform(X), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)
    for one, other in zip(TimeDelayEmbedder(7).fit_transform(X), wide, strict=True):
        np.testing.assert_array_equal(one, other)


# Principal components


@every_edge
@pytest.mark.parametrize("n_embeddings", [1, 3, 15])
@pytest.mark.parametrize("whiten", [False, True])
def test_time_delay_pca_is_pca_of_the_embedding(edges, n_embeddings, whiten):
    sessions = np.repeat([0, 1, 2, 3], [180, 1, 5, 114])
    X = smooth_recording()
    wide = TimeDelayEmbedder(n_embeddings, edges=edges).fit_transform(X, sessions=sessions)
    pca = PCA(3, whiten=whiten, svd_solver="full").fit(wide)
    ours = TimeDelayPCA(n_embeddings, 3, whiten=whiten, edges=edges).fit(X, sessions=sessions)
    names = ("components_", "explained_variance_", "explained_variance_ratio_", "mean_")
    for name in (*names, "singular_values_", "noise_variance_"):
        expected = getattr(pca, name)
        np.testing.assert_allclose(
            getattr(ours, name), expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max()
        )
    assert (ours.n_components_, ours.n_samples_) == (pca.n_components_, pca.n_samples_)
    expected = pca.transform(wide)
    found = ours.transform(X, sessions=sessions)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())
    new = smooth_recording(50, seed=1)
    embedder = TimeDelayEmbedder(n_embeddings, edges=edges).fit(X)
    expected = pca.transform(embedder.transform(new))
    np.testing.assert_allclose(ours.transform(new), expected, atol=1e-8 * np.abs(expected).max())
    back = embedder.inverse_transform(pca.inverse_transform(expected))
    np.testing.assert_allclose(ours.inverse_transform(expected), back, rtol=1e-8)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5).filter(lambda one: sum(one) > 1),
    half=st.integers(0, 4),
    edges=st.sampled_from(list(PADDING)),
    seed=st.integers(0, 99),
)
def test_time_delay_pca_moments_are_those_of_the_embedding(lengths, half, edges, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((n, 2)) + 100 for n in lengths]
    embedder = TimeDelayEmbedder(2 * half + 1, edges=edges)
    wide = np.concatenate(embedder.fit_transform(arrays))
    mean, covariance = embedding.embedded_moments(arrays, 2 * half + 1, edges)
    np.testing.assert_allclose(mean, wide.mean(axis=0), atol=1e-11)
    expected = np.cov(wide, rowvar=False).reshape(covariance.shape)
    np.testing.assert_allclose(covariance, expected, atol=1e-9)


@pytest.mark.parametrize("n_components", [0.3, 0.9, 0.9999, 4, None])
@pytest.mark.parametrize("n_samples", [10, 200])
def test_time_delay_pca_counts_components_as_pca(n_components, n_samples):
    X = smooth_recording(n_samples)
    pca = PCA(n_components, svd_solver="full").fit(TimeDelayEmbedder(5).fit_transform(X))
    ours = TimeDelayPCA(5, n_components).fit(X)
    assert ours.n_components_ == pca.n_components_
    np.testing.assert_allclose(ours.noise_variance_, pca.noise_variance_, rtol=1e-6, atol=1e-12)
    assert ours.transform(X).shape == (n_samples, pca.n_components_)
    assert len(ours.get_feature_names_out()) == pca.n_components_


def test_time_delay_pca_exceeds_a_share_of_the_variance():
    X = smooth_recording()
    shares = TimeDelayPCA(5).fit(X).explained_variance_ratio_.cumsum()
    assert TimeDelayPCA(5, float(shares[2])).fit(X).n_components_ == 4


def test_time_delay_pca_takes_large_offsets():
    X = smooth_recording()
    ours, far = TimeDelayPCA(7, 5).fit(X), TimeDelayPCA(7, 5).fit(X + 1e6)
    np.testing.assert_allclose(far.explained_variance_, ours.explained_variance_, rtol=1e-8)
    np.testing.assert_allclose(far.transform(X + 1e6), ours.transform(X), atol=1e-7)


def test_time_delay_pca_sums_in_double_precision():
    X = smooth_recording(2000).astype(np.float32)
    ours = TimeDelayPCA(7, 5).fit(X)
    precise = TimeDelayPCA(7, 5).fit(X.astype(np.float64))
    np.testing.assert_allclose(ours.components_, precise.components_, atol=1e-10)


def test_time_delay_pca_inverse_of_all_components_is_exact():
    X = smooth_recording()
    model = TimeDelayPCA(7, whiten=True)
    np.testing.assert_allclose(model.inverse_transform(model.fit_transform(X)), X, rtol=1e-9)


def test_time_delay_pca_keeps_slow_signals():
    seconds = np.arange(1000) / 250
    slow = np.sin(2 * np.pi * 5 * seconds)[:, np.newaxis]
    noisy = slow + 0.5 * np.random.default_rng(0).standard_normal((1000, 1))
    model = TimeDelayPCA(31, 2)
    cleaned = model.inverse_transform(model.fit_transform(noisy))
    assert np.mean((cleaned - slow) ** 2) < 0.1 * np.mean((noisy - slow) ** 2)


def test_tde_pca_is_the_transformer():
    X = smooth_recording()
    sessions = np.repeat([0, 1], 150)
    parameters = {"n_embeddings": 7, "n_components": 0.9, "whiten": True, "edges": "zero"}
    expected = TimeDelayPCA(**parameters).fit_transform(X, sessions=sessions)
    np.testing.assert_array_equal(tde_pca(X, **parameters, sessions=sessions), expected)
    with pytest.raises(ValueError, match="at most 63"):
        tde_pca(X, n_components=64, n_embeddings=21)


def test_time_delay_pca_never_builds_the_embedding():
    X = np.random.default_rng(0).standard_normal((20_000, 20))

    def peak(model):
        tracemalloc.start()
        try:
            model.fit(X).transform(X)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    wide_size = X.nbytes * 15
    wide = make_pipeline(TimeDelayEmbedder(15), PCA(5, svd_solver="covariance_eigh"))
    assert peak(wide) > wide_size
    # A block, the product before the mean is taken off, the scores.
    assert peak(TimeDelayPCA(15, 5)) < 0.9 * wide_size


# Bad input


@pytest.mark.parametrize("model", [TimeDelayEmbedder(4), TimeDelayPCA(4)], ids=repr)
def test_embedder_refuses_even_numbers(model):
    with pytest.raises(ValueError, match="n_embeddings is 4, but an odd number was expected"):
        model.fit(smooth_recording())


@pytest.mark.parametrize(
    ("parameters", "n_samples", "message"),
    [
        ({"n_components": 22}, 300, "n_components is 22, but .* at most 21"),
        ({"n_components": 11}, 10, "n_components is 11, but 10 rows .* at most 10"),
        ({"n_components": 1.5}, 300, "n_components"),
        ({"edges": "wrap"}, 300, "edges"),
        ({}, 1, "1 sample"),
    ],
)
def test_time_delay_pca_refuses_bad_parameters(parameters, n_samples, message):
    with pytest.raises(ValueError, match=message):
        TimeDelayPCA(7, **({"n_components": 2} | parameters)).fit(smooth_recording(n_samples))


def test_time_delay_pca_refuses_constants():
    with pytest.raises(ValueError, match="X has no channel that varies"):
        TimeDelayPCA(3, 2).fit(np.full((50, 3), 0.1))
