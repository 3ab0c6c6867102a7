import numpy as np
import pytest
import torch

from skdyn import DyNeMoEstimator
from skdyn.simulation import MixedSineMVN


@pytest.fixture(scope="session")
def small_simulation():
    """Two modes, five channels, 600 rows."""
    simulation = MixedSineMVN(
        n_samples=600,
        n_modes=2,
        n_channels=5,
        relative_activation=[1, 1],
        amplitudes=[4, 4],
        frequencies=[1, 2],
        sampling_frequency=100,
        random_state=0,
    )
    simulation.standardize()
    return simulation


@pytest.fixture(scope="session")
def recording(small_simulation):
    """A small standardised recording that nobody can change."""
    X = np.array(small_simulation.time_series)
    X.flags.writeable = False
    return X


@pytest.fixture
def small_dynemo():
    """A maker of estimators that train in well under a second, to the end of their budget."""

    def make(**parameters):
        settings = {
            "n_modes": 2,
            "sequence_length": 50,
            "inference_n_units": 8,
            "model_n_units": 8,
            "n_epochs": 3,
            "n_init": 1,
            "n_init_epochs": 1,
            "n_iter_no_change": None,
            "random_state": 0,
        }
        return DyNeMoEstimator(**(settings | parameters))

    return make


@pytest.fixture
def same_fit():
    """A test of whether two fitted estimators are equal to the last bit."""

    def compare(first, second):
        ours, theirs = first.network_.state_dict(), second.network_.state_dict()
        return (
            np.array_equal(first.covariances_, second.covariances_)
            and np.array_equal(first.means_, second.means_)
            and first.history_["loss"] == second.history_["loss"]
            and all(torch.equal(ours[name], theirs[name]) for name in ours)
        )

    return compare
