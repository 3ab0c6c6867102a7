"""
Throughput of a search over small fits: two joblib workers against one, their threads and memory.

Each round searches with one worker and then with two; the workers are already running and have
fitted once. A throughput is fits per second of wall time. CPU seconds per second of a fit measure
the number of busy threads: with one per worker there is no oversubscription. Memory is the peak
resident memory of a worker, libraries included, and of one that has only imported skdyn.
"""

import argparse
import os
import resource
import statistics
import time

import joblib
import numpy as np
from processes import markdown
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skdyn import DyNeMoEstimator, NEMSRegressor
from skdyn.model_selection import BlockKFold


def searches():
    """Estimator, grid and data by name."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, 10))
    X[::2] *= 2
    y = np.maximum(X[:, 0] + np.roll(X[:, 1], 1), 0) + 0.5 * rng.standard_normal(len(X))
    modes = DyNeMoEstimator(n_epochs=5, sequence_length=100, random_state=0)
    encoder = NEMSRegressor("wc.x2-fir.10-lvl-relu", random_state=0)
    alphas = [0.0, 1e-4, 1e-3, 1e-2, 3e-2, 0.1]
    return {
        "DyNeMoEstimator": (modes, {"n_modes": [2, 3, 4, 5]}, X, None),
        "NEMSRegressor": (encoder, {"alpha": alphas * 4}, X, y),
    }


def fits_per_second(model, grid, X, y, n_jobs):
    """Wall time of a search, its refit left out."""
    search = GridSearchCV(model, grid, cv=BlockKFold(4), n_jobs=n_jobs, refit=False)
    start = time.perf_counter()
    search.fit(X, y)
    return len(search.cv_results_["params"]) * 4 / (time.perf_counter() - start)


def fit_in_worker(model, X, y):
    """CPU seconds per second of a fit, and the worker's memory in MB."""
    wall, cpu = time.perf_counter(), time.process_time()
    clone(model).fit(X, y)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return os.getpid(), cpu / wall, resident()


def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def import_alone():
    import skdyn

    return os.getpid(), len(skdyn.__all__), resident()


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    workers = joblib.Parallel(n_jobs=2)
    bare = max(worker[-1] for worker in workers(joblib.delayed(import_alone)() for _ in range(4)))
    rows = []
    for name, (model, grid, X, y) in searches().items():
        seen = workers(joblib.delayed(fit_in_worker)(model, X, y) for _ in range(8))
        fit_in_worker(model, X, y)
        ratios, alone, together = [], [], []
        for _ in range(arguments.rounds):
            alone.append(fits_per_second(model, grid, X, y, 1))
            together.append(fits_per_second(model, grid, X, y, 2))
            ratios.append(together[-1] / alone[-1])
        rows.append(
            [
                name,
                f"{statistics.median(alone):.2f}",
                f"{statistics.median(together):.2f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{max(share for _, share, _ in seen):.2f}",
                f"{max(memory for *_, memory in seen):.0f} (bare {bare:.0f})",
            ]
        )
    heads = [
        "model",
        "fits/s, 1 worker",
        "2 workers",
        "ratio",
        "threads per worker",
        "MB per worker",
    ]
    markdown(heads, rows)


if __name__ == "__main__":
    main()
