"""The floor of the modes' variances, from the spectrum of a recording."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from skdyn import DyNeMoEstimator, match_modes
from skdyn.dynemo.recording import floor_of_modes
from skdyn.metrics import alpha_correlation
from skdyn.simulation import MixedSineMVN

SOURCES = MixedSineMVN(
    4000, 3, 6, np.zeros(3), np.full(3, 5.0), [0.4, 0.9, 1.5], 100, random_state=1
)


def sensors(noise, referenced="first"):
    """Six sources in 24 channels, white noise of relative size, and an average reference."""
    rng = np.random.default_rng(0)
    X = SOURCES.time_series @ rng.normal(size=(6, 24))
    if referenced == "first":
        X -= X.mean(axis=1, keepdims=True)
    X = X + noise * X.std() * rng.standard_normal(X.shape)
    if referenced == "last":
        X -= X.mean(axis=1, keepdims=True)
    return X


def scaled(X):
    return X / np.sqrt(np.mean(X**2, axis=0))


@pytest.mark.parametrize("n_rows", [200, 1000, 4000])
@pytest.mark.parametrize("referenced", ["first", "last", "never"])
@pytest.mark.parametrize("noise", [0, 1e-8, 1e-6, 1e-4, 1e-3, 0.01, 0.02])
def test_directions_without_signal_raise_the_floor(noise, referenced, n_rows):
    assert floor_of_modes([scaled(sensors(noise, referenced)[:n_rows])]) == 0.01


@pytest.mark.parametrize("size", [1, 10, 100])
def test_weak_directions_with_signal_do_not(size):
    """Beside a component that all channels share, the modes are weak."""
    common = np.random.default_rng(1).standard_normal((4000, 1))
    X = scaled(SOURCES.time_series) + size * common
    smallest = np.linalg.eigvalsh(np.cov(scaled(X).T))[0]
    assert floor_of_modes([scaled(X)]) <= max(0.002 * smallest, 1e-6)


def test_a_single_channel_has_a_floor():
    assert floor_of_modes([np.random.default_rng(0).standard_normal((100, 1))]) < 0.002


def correlations(X):
    settings = {"sequence_length": 100, "n_epochs": 8, "n_refinement_steps": 10}
    alpha = DyNeMoEstimator(3, random_state=0, **settings).fit_transform(X)
    return alpha_correlation(*match_modes(SOURCES.mode_time_course[: len(X)], alpha))


@pytest.mark.parametrize(("noise", "referenced"), [(0, "first"), (0.01, "last"), (0.2, "never")])
def test_modes_of_low_rank_are_as_good_as_after_pca(noise, referenced):
    X = sensors(noise, referenced)[:2000]
    assert correlations(X).mean() > correlations(PCA(6).fit_transform(X)).mean() - 0.03
