"""Modes mapped back to channels through the steps before the model."""

import numpy as np
import pytest
from scipy import signal
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PowerTransformer, StandardScaler

from skdyn import DyNeMoEstimator
from skdyn.analysis import channel_modes, mode_spectra
from skdyn.preprocessing import (
    BandpassFilter,
    MovingAverage,
    SessionScaler,
    TimeDelayEmbedder,
    TimeDelayPCA,
)


class OneMode(BaseEstimator):
    """A model of one mode: mean and covariance of its input."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        self.means_ = X.mean(axis=0)[np.newaxis]
        self.covariances_ = np.cov(X.T, ddof=0).reshape(1, X.shape[1], X.shape[1])
        return self

    def transform(self, X):
        return np.ones((len(X), 1))


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    rows = signal.lfilter([1], [1, -1.2, 0.8], rng.standard_normal((3000, 4)), axis=0)
    return rows @ rng.standard_normal((4, 4)) * [1, 10, 0.1, 3] + [5, -2, 0, 1]


@pytest.mark.parametrize(
    "before",
    [
        [],
        [StandardScaler()],
        [PCA(whiten=True)],
        [StandardScaler(), PCA(), StandardScaler()],
        [make_pipeline(StandardScaler(), PCA(whiten=True)), "passthrough"],
    ],
    ids=str,
)
def test_channel_modes_undoes_linear_steps(before, X):
    modes = channel_modes(make_pipeline(*before, OneMode()).fit(X))
    np.testing.assert_allclose(modes.means[0], X.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(modes.covariances[0], np.cov(X.T, ddof=0), rtol=1e-9)
    np.testing.assert_allclose(modes.correlations[0], np.corrcoef(X.T), rtol=1e-9)


def test_channel_modes_projects_on_the_components_that_were_kept(X):
    pca = PCA(2).fit(X)
    modes = channel_modes(make_pipeline(PCA(2), OneMode()).fit(X))
    expected = np.cov(pca.inverse_transform(pca.transform(X)).T, ddof=0)
    np.testing.assert_allclose(modes.covariances[0], expected, atol=1e-9 * expected.max())


@pytest.mark.parametrize(
    "embed",
    [
        [TimeDelayEmbedder(5)],
        [TimeDelayEmbedder(5), PCA(whiten=True)],
        [TimeDelayPCA(5)],
        [TimeDelayPCA(5, whiten=True), StandardScaler()],
    ],
    ids=str,
)
def test_channel_modes_undoes_time_delays(embed, X):
    pipeline = make_pipeline(StandardScaler(), *map(clone, embed), OneMode()).fit(X)
    modes = channel_modes(pipeline, sampling_frequency=50)
    np.testing.assert_allclose(modes.lags, np.arange(-4, 5) / 50)
    embedded = TimeDelayEmbedder(5).fit_transform(X)
    expected = np.cov(embedded.T, ddof=0)
    np.testing.assert_allclose(modes.embedded_covariances[0], expected, atol=1e-8 * expected.max())
    middle = expected[2::5, 2::5]
    np.testing.assert_allclose(modes.covariances[0], middle, atol=1e-8 * expected.max())
    np.testing.assert_allclose(modes.means[0], X.mean(axis=0), rtol=0.05, atol=0.01)
    # Covariances at lags, directly; edges of the recording count in the embedding.
    centred = X - X.mean(axis=0)
    for lag in range(5):
        direct = centred[lag:].T @ centred[: len(X) - lag] / len(X)
        found = modes.autocovariances[0, ..., 4 + lag]
        np.testing.assert_allclose(found, direct, atol=0.03 * np.abs(direct).max())
        back = modes.autocovariances[0, ..., 4 - lag].T
        np.testing.assert_allclose(found, back, atol=1e-9 * np.abs(back).max())


def test_block_means_are_the_definition_of_the_field(X):
    pipeline = make_pipeline(TimeDelayEmbedder(3), OneMode()).fit(X)
    modes = channel_modes(pipeline, covariance="mean")
    embedded = np.cov(TimeDelayEmbedder(3).fit_transform(X).T, ddof=0)
    for one in range(4):
        for other in range(4):
            block = embedded[3 * one : 3 * one + 3, 3 * other : 3 * other + 3]
            expected = np.diagonal(block).mean() if one == other else block.mean()
            assert modes.covariances[0, one, other] == pytest.approx(expected)


def test_partial_correlations_are_those_of_regression(X):
    modes = channel_modes(OneMode().fit(X))
    for one, other in [(0, 1), (2, 3), (1, 3)]:
        rest = np.delete(X, [one, other], axis=1)
        rest = np.column_stack([rest, np.ones(len(X))])
        left = X[:, [one, other]]
        left = left - rest @ np.linalg.lstsq(rest, left, rcond=None)[0]
        expected = np.corrcoef(left.T)[0, 1]
        assert modes.partial_correlations[0, one, other] == pytest.approx(expected, rel=1e-6)
    assert np.all(np.diagonal(modes.partial_correlations[0]) == 1)


def test_correlations_of_constant_channels_are_zero():
    X = np.random.default_rng(0).standard_normal((50, 3)) * [1, 0, 2]
    modes = channel_modes(OneMode().fit(X))
    for matrix in (modes.correlations[0], modes.partial_correlations[0]):
        assert np.all(matrix[1] == 0)
        assert np.all(matrix[:, 1] == 0)
        assert matrix[0, 0] == matrix[2, 2] == 1


def test_embedding_spectra_are_spectra(X):
    modes = channel_modes(
        make_pipeline(TimeDelayPCA(9, 6), OneMode()).fit(X), sampling_frequency=50
    )
    spectra = modes.spectra()
    assert np.all(spectra.psd >= 0)
    assert np.all((spectra.coherence >= 0) & (spectra.coherence <= 1))
    # Densities are the embedded covariance along complex exponentials.
    place = 9
    wave = np.exp(2j * np.pi * spectra.frequencies[place] / 50 * np.arange(9))
    waves = np.kron(np.eye(4), wave[:, np.newaxis])
    expected = waves.conj().T @ modes.embedded_covariances[0] @ waves * 2 / 50 / 9
    found = spectra.cross_spectra[0, ..., place]
    np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())
    integral = spectra.band(0, 25, power="integral").power
    np.testing.assert_allclose(
        integral, np.diagonal(modes.autocovariances[..., 8], 0, 1, 2), rtol=0.1
    )


def test_embedding_spectra_have_the_phases_of_the_recording():
    source = np.random.default_rng(0).standard_normal(4003)
    delayed = np.column_stack([source[3:], source[:-3]])  # the second channel is 3 rows late
    pipeline = make_pipeline(TimeDelayEmbedder(15), OneMode()).fit(delayed)
    modes = channel_modes(pipeline, sampling_frequency=1.0)
    direct = mode_spectra(delayed, sampling_frequency=1.0, window_length=256.0)
    found, expected = (
        np.interp(0.08, one.frequencies, np.unwrap(np.angle(one.cross_spectra[0, 0, 1])))
        for one in (modes.spectra(), direct)
    )
    assert expected == pytest.approx(-2 * np.pi * 0.08 * 3, abs=0.1)
    assert found == pytest.approx(expected, abs=0.1)


def test_autocovariance_spectra_are_the_definition_of_the_field(X):
    modes = channel_modes(
        make_pipeline(TimeDelayPCA(5, 8), OneMode()).fit(X), sampling_frequency=50
    )
    spectra = modes.spectra(method="autocovariance")
    expected = np.abs(np.fft.fft(modes.autocovariances, 64))[..., :33] / 64**2
    np.testing.assert_allclose(np.abs(spectra.cross_spectra), expected, rtol=1e-9, atol=1e-15)
    power = np.einsum("jkkf->jkf", expected)
    coherence = expected / np.sqrt(power[:, :, np.newaxis] * power[:, np.newaxis])
    np.testing.assert_allclose(spectra.coherence, coherence, rtol=1e-3)
    assert spectra.frequencies[-1] == 25


def test_channel_modes_of_models_of_other_packages(X):
    mixture = GaussianMixture(2, random_state=0).fit(X)
    np.testing.assert_allclose(channel_modes(mixture).covariances, mixture.covariances_)
    markov = OneMode().fit(X)
    markov.covars_ = markov.covariances_
    del markov.covariances_
    np.testing.assert_allclose(channel_modes(markov).covariances, markov.covars_)


def test_channel_modes_of_dynemo_in_a_longer_pipeline(recording, small_dynemo):
    pipeline = make_pipeline(
        SessionScaler(),
        TimeDelayPCA(3, 6),
        StandardScaler(),
        small_dynemo(n_epochs=15),
        MovingAverage(),
    ).fit(recording)
    modes = channel_modes(pipeline)
    assert modes.covariances.shape == (2, 5, 5)
    assert np.all(np.linalg.eigvalsh(modes.covariances) > -1e-9)
    assert repr(modes) == "<ChannelModes: 2 modes, 5 channels, 3 lags>"
    model = pipeline[-2]
    scale = pipeline[2].scale_
    expected = pipeline[1].components_.T * scale
    expected = expected @ model.covariances_ @ expected.swapaxes(-1, -2)
    np.testing.assert_allclose(modes.embedded_covariances, expected, rtol=1e-6, atol=1e-9)


def test_channel_modes_stops_at_steps_without_inverse(X):
    filtered = BandpassFilter(0.1, 0.3).fit_transform(X)
    modes = channel_modes(
        make_pipeline(StandardScaler(), BandpassFilter(0.1, 0.3), PCA(), OneMode()).fit(X)
    )
    expected = np.corrcoef(filtered.T)
    np.testing.assert_allclose(modes.correlations[0], expected, atol=1e-6)
    assert modes.covariances[0, 0, 0] < 1.1  # of standardised channels


def test_names_of_channels_come_from_the_first_step(X):
    import pandas as pd

    frame = pd.DataFrame(X, columns=["Fz", "Cz", "Pz", "Oz"])
    pipeline = make_pipeline(StandardScaler(), TimeDelayPCA(3), OneMode()).fit(frame)
    assert channel_modes(pipeline).channel_names.tolist() == ["Fz", "Cz", "Pz", "Oz"]
    pipeline = make_pipeline(SessionScaler(), PCA(), OneMode()).fit(frame)
    assert channel_modes(pipeline).channel_names.tolist() == ["Fz", "Cz", "Pz", "Oz"]
    assert channel_modes(OneMode().fit(X)).channel_names.tolist() == ["x0", "x1", "x2", "x3"]


class Halves(BaseEstimator):
    """A step that makes other columns of channels, without an inverse."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X[:, ::2]


def test_channel_modes_refuses_what_it_cannot_undo(X):
    with pytest.raises(ValueError, match="Halves before the model, which has no inverse"):
        channel_modes(make_pipeline(Halves(), OneMode()).fit(X))
    with pytest.raises(ValueError, match="inverse is not linear"):
        channel_modes(make_pipeline(PowerTransformer(), OneMode()).fit(X))
    with pytest.raises(ValueError, match="two time-delay embeddings"):
        channel_modes(make_pipeline(TimeDelayPCA(3), TimeDelayPCA(3), OneMode()).fit(X))
    with pytest.raises(ValueError, match="two time-delay embeddings"):
        channel_modes(make_pipeline(TimeDelayEmbedder(3), TimeDelayEmbedder(3), OneMode()).fit(X))
    with pytest.raises(TypeError, match="StandardScaler has no means_"):
        channel_modes(make_pipeline(StandardScaler()).fit(X))
    with pytest.raises(NotFittedError):
        channel_modes(DyNeMoEstimator())
    with pytest.raises(ValueError, match="must be one of"):
        channel_modes(OneMode().fit(X), covariance="middle")


def test_channel_spectra_refuse_wrong_arguments(X):
    pipeline = make_pipeline(TimeDelayPCA(5), OneMode()).fit(X)
    modes = channel_modes(pipeline, sampling_frequency=100)
    with pytest.raises(ValueError, match="modes have no lags"):
        channel_modes(OneMode().fit(X), sampling_frequency=100).spectra()
    with pytest.raises(ValueError, match="Pass sampling_frequency to channel_modes"):
        channel_modes(pipeline).spectra()
    with pytest.raises(ValueError, match="must be one of"):
        modes.spectra(method="welch")
    with pytest.raises(ValueError, match="at least the 9 lags"):
        modes.spectra(n_fft=8)


def test_identity_steps_are_undone(X):
    modes = channel_modes(
        make_pipeline(FunctionTransformer(feature_names_out="one-to-one"), OneMode()).fit(X)
    )
    np.testing.assert_allclose(modes.covariances[0], np.cov(X.T, ddof=0), rtol=1e-9)
