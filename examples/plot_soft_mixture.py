"""
How much of each mode, at each moment
=====================================

A recording of brain activity is rarely in a single state: several networks are active at once, each
to a degree that changes over time. `DyNeMoEstimator` infers these degrees, the mixing coefficients.
This example simulates a mixture of six modes, so that the truth is known, and compares the inferred
coefficients with it.
"""

# %%
# Simulate a soft mixture
# -----------------------
#
# Six modes of 20 channels are mixed by sinusoids. The later modes are weaker and change faster: the
# last one has a mean weight of 0.05 and never exceeds 0.51.

import os

from skdyn.simulation import MixedSineMVN

QUICK = os.environ.get("SKDYN_EXAMPLES") == "quick"  # less data and fewer epochs, for tests
SAMPLING_FREQUENCY = 250

simulation = MixedSineMVN(
    n_samples=3000 if QUICK else 25_600,
    n_modes=6,
    n_channels=20,
    relative_activation=[1, 0.5, 0.5, 0.25, 0.25, 0.1],
    amplitudes=[6, 5, 4, 3, 2, 1],
    frequencies=[1, 2, 3, 4, 6, 8],
    sampling_frequency=SAMPLING_FREQUENCY,
    random_state=0,
).standardize()
X = simulation.time_series
print(X.shape)

# %%
# Fit the model
# -------------
#
# `fit_transform` returns one row of mixing coefficients per row of the recording; each row sums
# to one.

from skdyn import DyNeMoEstimator

model = DyNeMoEstimator(n_modes=6, n_epochs=2 if QUICK else 24, random_state=0)
alpha = model.fit_transform(X)
print(model.summary())

# %%
# Compare with the truth
# ----------------------
#
# The modes of a fit are in arbitrary order. `match_modes` finds the order in which they agree best
# with the true ones.

from skdyn import match_modes
from skdyn.metrics import alpha_correlation, riemannian_distance

true = simulation.mode_time_course
_, order = match_modes(true, alpha, return_order=True)
alpha, covariances = alpha[:, order], model.covariances_[order]

print("mode  weight: true  inferred  correlation  distance of covariances")
for mode, correlation in enumerate(alpha_correlation(true, alpha)):
    distance = riemannian_distance(simulation.covariances[mode], covariances[mode])
    weights = f"{true[:, mode].mean():12.2f}  {alpha[:, mode].mean():8.2f}"
    print(f"{mode:4}  {weights}  {correlation:11.2f}  {distance:23.2f}")

# %%
# All six modes are found, the weakest included. The first eight seconds:

from skdyn.plotting import plot_alpha, plot_separate_time_series

labels = ["True", "Inferred"]
section = {"n_samples": 2000, "sampling_frequency": SAMPLING_FREQUENCY}
plot_alpha(true, alpha, labels=labels, **section)

# %%
# The same coefficients, mode by mode:

names = [f"Mode {mode}" for mode in range(model.n_modes)]
plot_separate_time_series(true, alpha, labels=labels, channel_names=names, **section)

# %%
# Each mode is a covariance of the channels. The true ones are above, the inferred ones below.

from skdyn.plotting import plot_matrices

plot_matrices(
    [*simulation.covariances, *covariances],
    titles=[f"{label}, mode {mode}" for label in labels for mode in range(model.n_modes)],
    n_columns=model.n_modes,
    colorbar_label="Covariance",
)

# %%
# The loss of each epoch shows whether the training has converged.

from skdyn.plotting import TrainingDisplay

TrainingDisplay.from_estimator(model)
