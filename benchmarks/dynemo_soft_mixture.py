"""
DyNeMoEstimator on a recording whose mixing is known, seed by seed.

The recording is an .npz file with `time_series` (n_samples, n_channels) and `mode_time_course`
(n_samples, n_modes), or, without one, a soft mixture drawn by `MixedSineMVN`. Each seed is fitted
in a process of its own, so that its CPU seconds and its peak memory are its own.

The free energy is given twice: as `DyNeMoEstimator.free_energy` defines it, every row inferred with
context on both sides, and as the reference implementation does, from windows that do not overlap.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skdyn import DyNeMoEstimator, match_modes
from skdyn.metrics import alpha_correlation
from skdyn.simulation import MixedSineMVN


def load(path):
    """Rows of data, and the mixing coefficients that they were drawn with."""
    if path:
        recording = np.load(path)
        return recording["time_series"], recording["mode_time_course"]
    simulation = MixedSineMVN(
        n_samples=25600,
        n_modes=6,
        n_channels=20,
        relative_activation=[1, 0.5, 0.5, 0.25, 0.25, 0.1],
        amplitudes=[6, 5, 4, 3, 2, 1],
        frequencies=[1, 2, 3, 4, 6, 8],
        sampling_frequency=250,
        random_state=123,
    ).standardize()
    return simulation.time_series, simulation.mode_time_course


def fit(path, seed, parameters):
    """Fit one seed and say how it went."""
    X, truth = load(path)
    start = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = DyNeMoEstimator(n_modes=truth.shape[1], random_state=seed, **parameters).fit(X)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    length = model.sequence_length
    windows = [X[i : i + length] for i in range(0, len(X), length)]
    bounds = np.array([model.score_samples(window).sum() for window in windows])
    matched = alpha_correlation(truth, match_modes(truth, model.transform(X))[1])
    return {
        "seed": seed,
        "epochs": model.n_iter_,
        "free_energy": model.free_energy(X),
        "free_energy_windows": -bounds.sum() / len(X),
        "correlation": float(matched.mean()),
        "lowest": float(matched.min()),
        "wall_s": wall,
        "cpu_s": cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("recording", nargs="?", help=".npz; without it a mixture is drawn")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parameters", type=json.loads, default={}, help="JSON, for the estimator")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(fit(arguments.recording, arguments.one, arguments.parameters)))
        return
    rows = []
    for seed in arguments.seeds:
        command = [sys.executable, __file__, "--one", str(seed)]
        command += ["--parameters", json.dumps(arguments.parameters)]
        command += [arguments.recording] if arguments.recording else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout))
        if len(rows) == 1:
            print(" | ".join(rows[0]))
        print(
            " | ".join(
                f"{value:.4g}" if value < 20 else f"{value:.6g}" for value in rows[-1].values()
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
