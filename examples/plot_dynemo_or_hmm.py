"""
DyNeMo or a hidden Markov model?
================================

A hidden Markov model assumes that one state is active at a time; DyNeMo assumes that modes are
mixed. Held-out data show which of the two describes a recording better. This example compares them
on three simulations: a soft mixture, a chain of states, and noise without any structure in time.

It needs hmmlearn (``pip install hmmlearn``) and takes about a minute on one core.
"""

# %%
# Three recordings with known truth
# ---------------------------------
#
# Four sessions each. The states of the chain last 50 to 200 rows, 0.2 to 0.8 s.

import os
import warnings

import numpy as np

from skdyn.simulation import MixedSineMVN

QUICK = os.environ.get("SKDYN_EXAMPLES") == "quick"  # less data and fewer epochs, for tests
N_MODES, N_CHANNELS = 3, 8
N_SESSIONS, N_SAMPLES = (2, 400) if QUICK else (4, 1500)
SAMPLING_FREQUENCY = 250


def soft_mixture():
    """Return sessions of a soft mixture, and their mixing coefficients."""
    simulation = MixedSineMVN(
        n_samples=N_SESSIONS * N_SAMPLES,
        n_modes=N_MODES,
        n_channels=N_CHANNELS,
        relative_activation=np.ones(N_MODES),
        amplitudes=np.full(N_MODES, 6.0),
        frequencies=[0.6, 0.9, 1.4],
        sampling_frequency=SAMPLING_FREQUENCY,
        random_state=0,
    ).standardize()
    parts = simulation.time_series, simulation.mode_time_course
    return tuple(np.split(one, N_SESSIONS) for one in parts)


def chain_of_states():
    """Return sessions of a chain of states, and its states as columns of zeros and ones."""
    rng = np.random.default_rng(1)
    roots = rng.standard_normal((N_MODES, N_CHANNELS, N_CHANNELS)) / np.sqrt(N_CHANNELS)
    sessions, states = [], []
    for _ in range(N_SESSIONS):
        visits = rng.integers(50, 201, N_SAMPLES // 50)
        state = np.cumsum(rng.integers(1, N_MODES, len(visits))) % N_MODES
        state = np.repeat(state, visits)[:N_SAMPLES]
        noise = rng.standard_normal((N_SAMPLES, N_CHANNELS, 1))
        sessions.append((roots[state] @ noise)[..., 0] + 0.3 * noise[..., 0])
        states.append(np.eye(N_MODES)[state])
    return sessions, states


def one_covariance():
    """Return sessions of noise with one covariance."""
    rng = np.random.default_rng(2)
    root = rng.standard_normal((N_CHANNELS, N_CHANNELS))
    return [rng.standard_normal((N_SAMPLES, N_CHANNELS)) @ root for _ in range(N_SESSIONS)]


# %%
# The candidates
# --------------
#
# `compare_models` accepts hmmlearn's `GaussianHMM` and scikit-learn's `EmpiricalCovariance` beside
# `DyNeMoEstimator`. The score of a hidden Markov model is its exact log-likelihood per row. That of
# DyNeMo is a lower bound, so the comparison is conservative.

from hmmlearn.hmm import GaussianHMM
from sklearn.covariance import EmpiricalCovariance

from skdyn import DyNeMoEstimator
from skdyn.model_selection import SessionKFold, compare_models

dynemo = DyNeMoEstimator(
    N_MODES,
    n_epochs=4 if QUICK else 10,
    sequence_length=100,
    inference_n_units=32,
    model_n_units=32,
    random_state=0,
)
hmm = GaussianHMM(N_MODES, "full", n_iter=5 if QUICK else 50, random_state=0)
models = {"DyNeMo": dynemo, "hidden Markov model": hmm, "one Gaussian": EmpiricalCovariance()}
folds = SessionKFold(N_SESSIONS)

# %%
# A function that fits both models to all sessions and draws their courses beside the truth. The
# functions of `skdyn.analysis` accept posterior probabilities of states as they accept mixing
# coefficients.

from sklearn.base import clone

from skdyn import match_modes
from skdyn.analysis import mode_statistics
from skdyn.metrics import alpha_correlation
from skdyn.plotting import plot_alpha


def draw_courses(sessions, truth):
    """Draw the truth, the mixing coefficients and the states of the first session."""
    soft = clone(dynemo).fit_transform(sessions)
    fitted = clone(hmm).fit(np.concatenate(sessions), [len(one) for one in sessions])
    hard = [fitted.predict_proba(one) for one in sessions]
    courses = [truth[0]]
    for name, found in (("DyNeMo", soft), ("hidden Markov model", hard)):
        _, found = match_modes(truth, found)
        correlation = np.mean(alpha_correlation(truth, found))
        statistics = mode_statistics(found, sampling_frequency=SAMPLING_FREQUENCY)
        lifetime = np.nanmean(statistics.mean_lifetime)
        print(f"{name}: correlation {correlation:.2f}, mean lifetime {lifetime:.2f} s")
        courses.append(found[0])
    plot_alpha(
        *(course[:1500] for course in courses),
        labels=["True", "DyNeMo", "Hidden Markov model"],
        sampling_frequency=SAMPLING_FREQUENCY,
    )


# %%
# A soft mixture
# --------------
#
# DyNeMo describes new sessions better, because the modes are mixed.

sessions, truth = soft_mixture()
comparison = compare_models(models, sessions, cv=folds)
print(comparison)
draw_courses(sessions, truth)

# %%
# A chain of states
# -----------------
#
# The hidden Markov model is the true model here, so it has the higher score. The courses of both
# agree with the truth.

sessions, truth = chain_of_states()
comparison = compare_models(models, sessions, cv=folds)
print(comparison)
draw_courses(sessions, truth)

# %%
# Noise of one covariance
# -----------------------
#
# Neither model should beat a single Gaussian. DyNeMo warns that its modes gain no more than they
# would by chance.

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    comparison = compare_models(models, one_covariance(), cv=folds)
print(comparison)
print(*sorted({str(warning.message).split(":")[0] for warning in caught}), sep="\n")
comparison.plot()

# sphinx_gallery_thumbnail_number = 1
