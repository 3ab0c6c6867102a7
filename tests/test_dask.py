"""Searches on a Dask cluster of two processes on this machine, one of which is killed."""

import os
import signal
import sys
import threading
import time

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, KFold

from skdyn import DyNeMoEstimator, NEMSRegressor
from skdyn.model_selection import BlockKFold, compare_models, on_dask

distributed = pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.slow,
    # Those of Dask, such as of a worker that is gone.
    pytest.mark.filterwarnings("ignore"),
]

# These tests are about where the work is done, not about initialisation.
SMALL = {
    "init_method": "random",
    "n_refinement_steps": 3,
    "n_epochs": 3,
    "sequence_length": 50,
    "inference_n_units": 8,
    "model_n_units": 8,
    "random_state": 0,
}


def test_a_cluster_that_is_not_there():
    with pytest.raises(ValueError, match="client"):
        on_dask()


def test_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'skdyn\[distributed\]'"):
        on_dask()


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            local_directory=str(tmp_path_factory.mktemp("dask")),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def _encoding_search():
    grid = {"layers": ["fir.3-lvl", "wc.x1-fir.3-relu"], "alpha": [0.0, 0.1]}
    return GridSearchCV(NEMSRegressor(random_state=0), grid, cv=KFold(3), n_jobs=2)


def _mode_search():
    grid = {"n_modes": [2, 3, 4], "learning_rate": [0.01, 0.02]}
    return GridSearchCV(DyNeMoEstimator(**SMALL), grid, cv=KFold(3), n_jobs=2)


def _fold_scores(search):
    return [search.cv_results_[f"split{fold}_test_score"] for fold in range(3)]


def _encoding_data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 3))
    return X, np.maximum(X[:, 0] + np.roll(X[:, 1], 1), 0) + 0.5 * rng.standard_normal(400)


def _compare(X, y):
    models = {"linear": NEMSRegressor("fir.3-lvl"), "bent": NEMSRegressor("wc.x1-fir.3-relu")}
    return compare_models(models, X, y, cv=BlockKFold(3), n_jobs=2)


def _encoding_scores(X, y):
    search = _encoding_search().fit(X, y)
    return np.stack([*_fold_scores(search), search.cv_results_["rank_test_score"]])


@pytest.mark.parametrize("config", [on_dask, lambda client: joblib.parallel_config("dask")])
def test_a_search_on_a_cluster_gives_the_same(client, config):
    X, y = _encoding_data()
    here = _encoding_scores(X, y)
    with config(client):
        there = _encoding_scores(X, y)
    np.testing.assert_array_equal(there, here)


def test_a_comparison_on_a_cluster_gives_the_same(client):
    X, y = _encoding_data()
    here = _compare(X, y)
    with on_dask(client):
        there = _compare(X, y)
    assert there.best_name == here.best_name
    np.testing.assert_array_equal(there.scores, here.scores)


def _mode_scores(X):
    return np.stack(_fold_scores(_mode_search().fit(X)))


def _mode_comparison(X):
    models = [DyNeMoEstimator(n_modes, **SMALL) for n_modes in (2, 3, 4, 5)]
    return compare_models(models, X, cv=BlockKFold(4), n_jobs=2).scores


@pytest.mark.parametrize("work", [_mode_scores, _mode_comparison], ids=["search", "comparison"])
def test_what_is_under_way_outlives_a_worker(client, work):
    X = np.random.default_rng(0).standard_normal((1500, 6))
    here = work(X)
    client.wait_for_workers(2, timeout=60)
    processes = client.run(os.getpid)
    killed, over = [], threading.Event()

    def kill_the_first_that_is_at_work():
        while not killed and not over.is_set():
            busy = [address for address, tasks in client.processing().items() if tasks]
            if busy:
                os.kill(processes[busy[0]], signal.SIGKILL)
                killed.append(processes[busy[0]])
            time.sleep(0.02)

    thread = threading.Thread(target=kill_the_first_that_is_at_work, daemon=True)
    thread.start()
    with on_dask(client):
        there = work(X)
    over.set()
    thread.join()
    assert killed, "no worker was at work while the search went on"
    np.testing.assert_array_equal(there, here)
    client.wait_for_workers(2, timeout=60)
    assert killed[0] not in client.run(os.getpid).values()


def test_data_that_the_caller_sends_to_all_workers_stay_there(client):
    X, y = _encoding_data()
    here = _encoding_scores(X, y)
    with on_dask(client, scatter=[X, y], n_jobs=2):
        there = _encoding_scores(X, y)
    np.testing.assert_array_equal(there, here)


def test_without_a_client_the_last_one_is_taken(client):
    with on_dask():
        there = _compare(*_encoding_data())
    np.testing.assert_array_equal(there.scores, _compare(*_encoding_data()).scores)
