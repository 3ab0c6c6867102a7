"""
A search on a Dask cluster
==========================

All that skdyn, and scikit-learn, do in parallel goes through joblib, and joblib's work can be sent
to a cluster of machines. Here the cluster is two processes on this machine. A real one is started
from a shell, with the same packages on each machine::

    dask scheduler                                # on one machine; it prints its address
    dask worker tcp://ADDRESS:8786 --nthreads 1   # on each of the others, once per core

and `Client("tcp://ADDRESS:8786")` connects to it. On a machine with a queue, `dask_jobqueue`
submits the workers as jobs: `SLURMCluster(cores=1, memory="4GB").scale(100)`.

Needs the packages dask and distributed: `pip install 'skdyn[distributed]'`.
"""

# sphinx_gallery_thumbnail_path = "static/cluster.svg"

import numpy as np
from distributed import Client, LocalCluster
from sklearn.model_selection import GridSearchCV

from skdyn import NEMSRegressor
from skdyn.model_selection import BlockKFold, compare_models, on_dask


def simulate(n_samples=2000):
    """A stimulus of eight channels, and a neuron that hears two of them."""
    rng = np.random.default_rng(0)
    stimulus = rng.gamma(1.0, size=(n_samples, 8))
    heard = np.convolve(stimulus[:, 2] - stimulus[:, 5], [0.0, 1.0, 0.5])[:n_samples]
    return stimulus, np.maximum(heard, 0) + 0.5 * rng.standard_normal(n_samples)


def main():
    stimulus, response = simulate()
    grid = {"layers": ["fir.4-lvl", "wc.x1-fir.4-lvl-relu"], "alpha": [0.0, 0.01, 0.1]}
    search = GridSearchCV(NEMSRegressor(random_state=0), grid, cv=BlockKFold(4))
    models = {
        "linear": NEMSRegressor("fir.4-lvl"),
        "linear-nonlinear": NEMSRegressor("wc.x1-fir.4-lvl-relu"),
    }
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        # A worker that is lost costs the tasks it was at, and they are run again elsewhere.
        on_dask(client),
    ):
        search.fit(stimulus, response)
        comparison = compare_models(models, stimulus, response, cv=BlockKFold(4))
    print(search.best_params_)
    print(comparison)


# Workers are processes of their own, which import this file.
if __name__ == "__main__":
    main()
