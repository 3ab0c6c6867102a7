"""
How many modes?
===============

A model with more modes fits what it is fitted to better, so it is asked for rows that it has not
seen: the best number of modes is the one with the highest held-out evidence lower bound. A mode too
many does little harm, though, and chance decides whether three or four come out best. So the number
is the smallest that is not significantly worse than the best, fold by fold.

First a simulation of three modes, in which the number is known. The recording is cut into four
blocks, each of which is held out once; no row of a block is history to another's. Then seven
subjects at rest, held out in three groups: there is no true number of modes there, and with so few
groups four describe new subjects not significantly worse than twelve, but two do. What comes before
the model, a scaling of each subject and
principal components, is a part of what is fitted, and sees those of the training set only.

`--seeds 10` simulates ten times, and says how often the right number comes out.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from skdyn import DyNeMoEstimator, match_modes
from skdyn.datasets import load_hcp_rest
from skdyn.metrics import alpha_correlation
from skdyn.model_selection import BlockKFold, SessionKFold, compare_models
from skdyn.plotting import plot_alpha
from skdyn.preprocessing import SessionPCA, SessionScaler
from skdyn.simulation import MixedSineMVN

N_MODES = 3
SMALL = {"sequence_length": 100, "inference_n_units": 32, "model_n_units": 32}


def simulate(seed, n_samples):
    """Mix three modes of eight channels by sines of random frequencies."""
    frequencies = np.random.default_rng(seed).uniform(0.5, 3, N_MODES)
    return MixedSineMVN(
        n_samples=n_samples,
        n_modes=N_MODES,
        n_channels=8,
        relative_activation=np.ones(N_MODES),
        amplitudes=np.full(N_MODES, 6.0),
        frequencies=frequencies,
        sampling_frequency=250,
        random_state=seed,
    ).standardize()


def compare_on_simulation(simulation, candidates, n_folds, n_epochs, n_jobs):
    models = {
        f"{n_modes} modes": DyNeMoEstimator(n_modes, n_epochs=n_epochs, random_state=0, **SMALL)
        for n_modes in candidates
    }
    return compare_models(models, simulation.time_series, cv=BlockKFold(n_folds), n_jobs=n_jobs)


def compare_on_recordings(rest, candidates, n_subjects, n_epochs, n_jobs):
    """Compare numbers of modes on subjects that were not fitted."""
    recordings = rest.data[:n_subjects]
    subjects = np.repeat(rest.subjects[:n_subjects], [len(one) for one in recordings])
    models = {
        f"{n_modes} modes": make_pipeline(
            SessionScaler(),
            SessionPCA(20, whiten=True),
            DyNeMoEstimator(n_modes, n_epochs=n_epochs, random_state=0, **SMALL),
        )
        for n_modes in candidates
    }
    return compare_models(
        models, np.concatenate(recordings), sessions=subjects, cv=SessionKFold(3), n_jobs=n_jobs
    )


def draw_mixing(simulation, n_modes, n_epochs):
    """Draw the true mixing, and that of a model with the number of modes that was found."""
    model = DyNeMoEstimator(n_modes, n_epochs=n_epochs, random_state=0, **SMALL)
    alpha = model.fit_transform(simulation.time_series)
    truth = simulation.mode_time_course
    if n_modes == N_MODES:
        truth, alpha = match_modes(truth, alpha)
        correlations = ", ".join(f"{one:.2f}" for one in alpha_correlation(truth, alpha))
        print(f"Correlation of the mixing coefficients with the true ones: {correlations}")
    fig, _ = plot_alpha(
        truth[:1500], alpha[:1500], labels=["True", "Inferred"], sampling_frequency=250
    )
    return fig


def pick(comparison):
    """The number of modes: candidates are given with the fewest first."""
    return int(comparison.simplest().split()[0])


def main():
    parser = argparse.ArgumentParser(description="The number of modes, by held-out bound.")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="folder to fill")
    parser.add_argument("--quick", action="store_true", help="less data, fewer candidates")
    parser.add_argument("--seeds", type=int, default=1, help="how many simulations")
    parser.add_argument("--jobs", type=int, default=1, help="fits at the same time")
    arguments = parser.parse_args()
    try:
        rest = load_hcp_rest()
    except ImportError as error:
        raise SystemExit(f"{error}") from None
    n_samples, n_folds, n_epochs, n_subjects = (
        (1500, 2, 3, 3) if arguments.quick else (6000, 4, 20, 7)
    )
    few, many = ((2, 3), (2, 4)) if arguments.quick else ((2, 3, 4, 5), (2, 4, 8, 12))

    picked = []
    for seed in reversed(range(arguments.seeds)):
        simulation = simulate(seed, n_samples)
        comparison = compare_on_simulation(simulation, few, n_folds, n_epochs, arguments.jobs)
        picked.append(pick(comparison))
    print(comparison)
    n_right = sum(n_modes == N_MODES for n_modes in picked)
    print(f"{N_MODES} modes picked in {n_right} of {len(picked)} simulations")
    figures = {
        "simulation": comparison.plot()[0],
        "mixing": draw_mixing(simulation, picked[-1], n_epochs),
    }
    comparison = compare_on_recordings(rest, many, n_subjects, n_epochs, arguments.jobs)
    print(comparison)
    print(f"{pick(comparison)} modes for the recordings")
    figures["rest"] = comparison.plot()[0]

    arguments.figures.mkdir(parents=True, exist_ok=True)
    for name, fig in figures.items():
        path = arguments.figures / f"how_many_modes_{name}.png"
        fig.savefig(path, dpi=150)
        plt.close(fig)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
