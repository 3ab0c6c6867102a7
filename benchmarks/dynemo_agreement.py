"""
Agreement of fits of DyNeMoEstimator from different seeds on resting-state fMRI.

The true modes of a measured recording are unknown, but every seed should find the modes that the
data determine. Data: seven subjects of the Human Connectome Project, standardised, then reduced to
whitened principal components; 8 modes, default settings. Measured: the correlations of the matched
mixing coefficients of every pair of seeds, and the CPU seconds of each fit, in a separate process
on one thread.
"""

import argparse
import itertools
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
from processes import ask_all, measured
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from skdyn import DyNeMoEstimator, match_modes
from skdyn.datasets import load_hcp_rest
from skdyn.metrics import alpha_correlation


def load(n_components):
    """Sessions of whitened components."""
    recordings = [StandardScaler().fit_transform(one) for one in load_hcp_rest().data]
    pca = PCA(n_components, whiten=True, random_state=0).fit(np.concatenate(recordings))
    return [pca.transform(one) for one in recordings]


def fit(seed, n_modes, n_components, parameters, folder):
    """Fit one seed, save its mixing coefficients in the folder, and return the result."""
    X = load(n_components)
    model = DyNeMoEstimator(n_modes=n_modes, random_state=seed, **parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, cost = measured(lambda: model.fit(X))
    path = Path(folder) / f"{seed}.npy"
    np.save(path, np.concatenate(model.transform(X)))
    return {"seed": seed, "free_energy": model.free_energy(X), "path": str(path), **cost}


def agreements(alphas):
    """Correlations of the matched modes, a row for each pair of seeds."""
    return np.array(
        [
            np.nan_to_num(alpha_correlation(one, match_modes(one, other)[1]))
            for one, other in itertools.combinations(alphas, 2)
        ]
    )


def report(fits):
    pairs = agreements([np.load(one["path"]) for one in fits])
    means = pairs.mean(axis=1)
    energies = [one["free_energy"] for one in fits]
    print(f"{len(fits)} seeds, {len(pairs)} pairs; correlation of matched mixing coefficients")
    print(f"  mean over modes: median of pairs {np.median(means):.3f}, lowest {means.min():.3f}")
    print(f"  all pairs and modes: median {np.median(pairs):.3f}, lowest {pairs.min():.3f}")
    print(f"free energy: {min(energies):.3f} to {max(energies):.3f} nats per row")
    print(f"CPU seconds: median {np.median([one['cpu_s'] for one in fits]):.1f}")
    print(f"peak memory: {max(one['peak_mb'] for one in fits):.0f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=range(10))
    parser.add_argument("--modes", type=int, default=8)
    parser.add_argument("--components", type=int, default=25)
    parser.add_argument("--parameters", type=json.loads, default={}, help="JSON, for the estimator")
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(fit(**arguments.one)))
        return
    if len(arguments.seeds) < 2:
        parser.error("agreement needs at least two --seeds")
    with tempfile.TemporaryDirectory() as folder:
        requests = [
            {
                "seed": seed,
                "n_modes": arguments.modes,
                "n_components": arguments.components,
                "parameters": arguments.parameters,
                "folder": folder,
            }
            for seed in arguments.seeds
        ]
        fits = []
        for one in ask_all(__file__, requests, arguments.jobs):
            fits.append(one)
            print(f"seed {one['seed']}: {one['free_energy']:.3f}, {one['cpu_s']:.1f} s", flush=True)
        if len(fits) < len(requests):
            raise SystemExit("not all seeds were fitted")
        report(sorted(fits, key=lambda one: one["seed"]))


if __name__ == "__main__":
    main()
