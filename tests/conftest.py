import hypothesis
import numpy as np
import pytest
import threadpoolctl
import torch

from skdyn import DyNeMoEstimator
from skdyn.simulation import MixedSineMVN

# Tests run in several processes, and most arrays are tiny: one thread each is fastest.
torch.set_num_threads(1)
threadpoolctl.threadpool_limits(1, user_api="blas")

# The same inputs are drawn each time.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("suite")


# Files that take long come first, the longest of all at the front, so that no process ends with one
# while the others wait.
LONG = (
    *("test_examples.py", "test_properties.py", "test_dask.py", "test_distributed.py"),
    *("test_inference.py", "test_processes.py", "test_common.py", "test_memory.py"),
    *("test_start.py", "test_checkpoints.py", "test_comparison.py", "test_layers.py"),
)


def pytest_collection_modifyitems(items):
    """Put the tests of long files first."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


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
    """A small standardised recording, read-only."""
    X = np.array(small_simulation.time_series)
    X.flags.writeable = False
    return X


def shorten_search(monkeypatch):
    monkeypatch.setattr("skdyn.dynemo.start.STEPS_PER_ROUND", (1, 2))
    monkeypatch.setattr("skdyn.dynemo.start.N_ROUNDS", 2)
    monkeypatch.setattr("skdyn.dynemo.training.CHECK_STEPS", 2)


@pytest.fixture
def short_search(monkeypatch):
    """Few gradient steps in the search for a start and in the final check: same path, less time.

    In this process only; comparisons with another process need the original budgets.
    """
    shorten_search(monkeypatch)


@pytest.fixture(scope="module")
def short_search_in_module():
    """The same for a whole module and its fixtures."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten_search(monkeypatch)
        yield


@pytest.fixture(scope="session")
def small_settings():
    """Parameters of estimators that train in about a second, to the end of their budget."""
    return {
        "n_modes": 2,
        "sequence_length": 50,
        "inference_n_units": 8,
        "model_n_units": 8,
        "n_epochs": 3,
        "n_init": 1,
        "n_init_epochs": 1,
        "n_iter_no_change": None,
        "n_refinement_steps": 3,
        "random_state": 0,
    }


@pytest.fixture
def small_dynemo(short_search, small_settings):
    """A maker of estimators that train in a third of a second."""
    return lambda **parameters: DyNeMoEstimator(**(small_settings | parameters))


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
