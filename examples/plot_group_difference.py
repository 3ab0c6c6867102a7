"""
Do two groups differ in their modes?
====================================

Twelve controls and twelve patients are simulated. Three modes of eight channels are mixed
differently in each person, and patients have less of mode 1. One model is fitted to everyone,
without the labels. A permutation test then compares the groups on three measures of each mode, and
corrects for all nine comparisons.
"""

# %%
# Simulate two groups
# -------------------

import os

import numpy as np

QUICK = os.environ.get("SKDYN_EXAMPLES") == "quick"  # less data and fewer epochs, for tests
SAMPLING_FREQUENCY = 100
n_people, n_samples = (12, 300) if QUICK else (24, 800)
rng = np.random.default_rng(0)
labels = np.array(["control", "patient"] * (n_people // 2))

# Modes of random shape and different size.
true_covariances = []
for size in (3.0, 1.0, 0.5):
    axes, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    true_covariances.append(size * (axes * np.exp(rng.uniform(-1.5, 1.5, 8))) @ axes.T)

times = np.arange(n_samples) / SAMPLING_FREQUENCY
recordings, mixing = [], []
for label in labels:
    # Amounts differ from person to person, and that of mode 1 differs between the groups.
    amount = 0.3 * rng.standard_normal(3)
    amount[1] -= 1.2 * (label == "patient")
    phase = np.outer(times, [0.4, 0.6, 0.9]) + rng.random(3)
    weights = np.exp(3 * np.sin(2 * np.pi * phase) + amount)
    alpha = weights / weights.sum(axis=1, keepdims=True)
    mixed = np.einsum("tj,jcd->tcd", alpha, true_covariances)
    noise = rng.standard_normal((n_samples, 8))
    recordings.append(np.einsum("tcd,td->tc", np.linalg.cholesky(mixed), noise))
    mixing.append(alpha)

# %%
# Fit one model to everyone
# -------------------------
#
# A list goes in, and a list of mixing coefficients comes out. The true mixing gives the modes their
# order, so that mode 1 here is the mode 1 of the simulation.

from skdyn import DyNeMoEstimator, match_modes

model = DyNeMoEstimator(n_modes=3, n_epochs=2 if QUICK else 10, random_state=0)
alphas = model.fit_transform(recordings)
_, order = match_modes(mixing, alphas, return_order=True)
alphas, covariances = [alpha[:, order] for alpha in alphas], model.covariances_[order]

# %%
# Mixing of a control and a patient. `normalise` draws each mode's share of the variance, because
# raw mixing coefficients do not account for the size of a mode.

from skdyn.plotting import plot_alpha

plot_alpha(
    *alphas[:2],
    labels=["A control", "A patient"],
    sampling_frequency=SAMPLING_FREQUENCY,
    normalise=covariances,
)

# %%
# Measures of each person
# -----------------------

from skdyn.analysis import mode_statistics

statistics = mode_statistics(alphas, sampling_frequency=SAMPLING_FREQUENCY, covariances=covariances)
statistics.plot(["normalised_weight", "mean_lifetime"], groups=labels)

# %%
# Test the difference
# -------------------
#
# The test shuffles the labels and records the largest statistic over all features; that controls
# the family-wise error rate. A mode that a person never visits has no lifetime, which counts as
# zero.

from skdyn.analysis import permutation_test

measures = {
    "normalised_weight": "weight",
    "mean_lifetime": "lifetime",
    "switching_rate": "switching",
}
values = np.stack([np.nan_to_num(statistics[name]) for name in measures], axis=1)
test = permutation_test(values, labels)
print("measure    mode   effect      t  corrected p")
for (row, mode), p_value in np.ndenumerate(test.p_value):
    name = list(measures.values())[row]
    effect, statistic = test.effect[row, mode], test.statistic[row, mode]
    print(f"{name:10} {mode:4}  {effect:+.3f}  {statistic:+.2f}  {p_value:11.4f}")

# %%
# Patients have less of mode 1, and mode 0 takes its place. They also enter mode 1 less often.

names = [f"{measure} {mode}" for measure in measures.values() for mode in range(3)]
fig, (ax,) = test.plot(feature_names=names)
ax.tick_params(axis="x", rotation=90)
ax.set(xlabel="", ylabel="Patients minus controls (t)")

# sphinx_gallery_thumbnail_number = 2
