"""
DyNeMo or a hidden Markov model?
================================

A hidden Markov model says that one state is active at a time; DyNeMo, that modes are mixed. Which
of the two describes a recording better is a question to rows that neither has seen: the
log-likelihood per row of a hidden Markov model is exact, that of DyNeMo at least its lower bound.

Three recordings with known truth: a soft mixture, a chain of states that stay for 50 to 200 rows,
and noise of one covariance, in which there is nothing to find. hmmlearn's `GaussianHMM` stands
beside `DyNeMoEstimator` in `compare_models`, and its posterior probabilities go through the same
functions after the fit.
"""

import argparse
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.covariance import EmpiricalCovariance
from sklearn.exceptions import ConvergenceWarning

from skdyn import DyNeMoEstimator, match_modes
from skdyn.analysis import mode_statistics
from skdyn.metrics import alpha_correlation
from skdyn.model_selection import SessionKFold, compare_models
from skdyn.plotting import plot_alpha
from skdyn.simulation import MixedSineMVN

N_MODES, N_CHANNELS, N_SESSIONS = 3, 8, 5
SAMPLING_FREQUENCY = 250
SMALL = {"sequence_length": 100, "inference_n_units": 32, "model_n_units": 32}


def mixture(n_samples, seed):
    """Sessions of a soft mixture, and its mixing coefficients."""
    simulation = MixedSineMVN(
        n_samples=N_SESSIONS * n_samples,
        n_modes=N_MODES,
        n_channels=N_CHANNELS,
        relative_activation=np.ones(N_MODES),
        amplitudes=np.full(N_MODES, 6.0),
        frequencies=[0.6, 0.9, 1.4],
        sampling_frequency=SAMPLING_FREQUENCY,
        random_state=seed,
    ).standardize()
    parts = simulation.time_series, simulation.mode_time_course
    return tuple(np.split(one, N_SESSIONS) for one in parts)


def chain(n_samples, seed):
    """Sessions of a chain of states with the same covariances, and the states."""
    rng = np.random.default_rng(seed)
    roots = rng.standard_normal((N_MODES, N_CHANNELS, N_CHANNELS)) / np.sqrt(N_CHANNELS)
    sessions, states = [], []
    for _ in range(N_SESSIONS):
        visits = rng.integers(50, 201, n_samples // 50)
        state = np.cumsum(rng.integers(1, N_MODES, len(visits))) % N_MODES
        state = np.repeat(state, visits)[:n_samples]
        noise = rng.standard_normal((n_samples, N_CHANNELS, 1))
        sessions.append((roots[state] @ noise)[..., 0] + 0.3 * noise[..., 0])
        states.append(np.eye(N_MODES)[state])
    return sessions, states


def nothing(n_samples, seed):
    """Sessions of noise of one covariance."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((N_CHANNELS, N_CHANNELS))
    return [rng.standard_normal((n_samples, N_CHANNELS)) @ root for _ in range(N_SESSIONS)], None


RECORDINGS = {"soft mixture": mixture, "chain of states": chain, "one covariance": nothing}


def candidates(n_epochs):
    """The models to compare."""
    from hmmlearn.hmm import GaussianHMM

    return {
        "DyNeMo": DyNeMoEstimator(N_MODES, n_epochs=n_epochs, random_state=0, **SMALL),
        "hidden Markov model": GaussianHMM(N_MODES, "full", n_iter=50, random_state=0),
        "one Gaussian": EmpiricalCovariance(),
    }


def draw_courses(sessions, truth, models):
    """What the two models say of one session, beside the truth, and how long visits last."""
    dynemo, hmm, _ = (clone(model) for model in models.values())
    soft = dynemo.fit_transform(sessions)
    hmm.fit(np.concatenate(sessions), [len(one) for one in sessions])
    hard = [hmm.predict_proba(one) for one in sessions]
    matched = [match_modes(truth, found) for found in (soft, hard)]
    for name, (true, found) in zip(models, matched, strict=False):
        table = mode_statistics(found, sampling_frequency=SAMPLING_FREQUENCY).to_frame()
        print(
            f"{name}: correlation with the truth "
            f"{np.mean(alpha_correlation(true, found)):.2f}, "
            f"mean lifetime {table['mean_lifetime'].mean():.2f} s"
        )
    courses = [truth, *(found for _, found in matched)]
    fig, _ = plot_alpha(
        *(one[0][:1500] for one in courses),
        labels=["True", *list(models)[:2]],
        sampling_frequency=SAMPLING_FREQUENCY,
    )
    return fig


def main():
    parser = argparse.ArgumentParser(description="DyNeMo beside a hidden Markov model.")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="folder to fill")
    parser.add_argument("--quick", action="store_true", help="less data, fewer epochs")
    arguments = parser.parse_args()
    try:
        models = candidates(n_epochs=3 if arguments.quick else 20)
    except ImportError as error:
        raise SystemExit(f"This example needs hmmlearn, 'pip install hmmlearn': {error}") from None
    n_samples = 400 if arguments.quick else 1500

    figures = {}
    for number, (name, simulate) in enumerate(RECORDINGS.items()):
        sessions, truth = simulate(n_samples, seed=number)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", ConvergenceWarning)
            comparison = compare_models(
                models, sessions, cv=SessionKFold(2 if arguments.quick else 5)
            )
        print(f"\n{name}\n{comparison}")
        if told:  # of noise of one covariance DyNeMo says that no modes are there
            print(f"Told in {len(told)} folds: {str(told[0].message).split(':')[0]}")
        figures[name] = comparison.plot()[0]
        if truth is not None:
            figures[f"{name} courses"] = draw_courses(sessions, truth, models)

    arguments.figures.mkdir(parents=True, exist_ok=True)
    for name, fig in figures.items():
        path = arguments.figures / f"dynemo_or_hmm_{name.replace(' ', '_')}.png"
        fig.savefig(path, dpi=150)
        plt.close(fig)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
