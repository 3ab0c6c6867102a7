"""
From MNE and back
=================

MNE stores recordings as channels by times; skdyn takes times by channels. Pass
``raw.get_data().T`` for a Raw and ``epochs.get_data().transpose(0, 2, 1)`` for Epochs. This example
infers mixing coefficients from a simulated Raw and adds them to it as channels. They then share its
times, annotations and events, so that MNE can cut and average them. In the simulation, mode 2
responds to each tone.

It needs MNE: ``pip install mne``.
"""

# %%
# Simulate a Raw with tones
# -------------------------

import os

import mne
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import softmax

mne.set_log_level("warning")
QUICK = os.environ.get("SKDYN_EXAMPLES") == "quick"  # less data and fewer epochs, for tests
SAMPLING_FREQUENCY = 100
CHANNELS = ["Fz", "Cz", "Pz", "Oz", "C3", "C4", "T7", "T8"]
N_MODES = 3

rng = np.random.default_rng(0)
n_seconds = 40 if QUICK else 240
n_samples = n_seconds * SAMPLING_FREQUENCY
tones = np.arange(2, n_seconds - 2, 2) + rng.uniform(0, 0.5, (n_seconds - 4) // 2)
since = np.arange(n_samples)[:, None] / SAMPLING_FREQUENCY - tones - 0.4
logits = gaussian_filter1d(rng.standard_normal((n_samples, N_MODES)), 40, axis=0)
logits *= 1.5 / logits.std()
logits[:, 2] = 6 * np.exp(-0.5 * (since / 0.12) ** 2).sum(axis=1) - 3
true = softmax(logits, axis=1)
maps = rng.standard_normal((N_MODES, len(CHANNELS), 3))
covariances = maps @ maps.swapaxes(1, 2) + 0.1 * np.eye(len(CHANNELS))
roots = np.linalg.cholesky(np.einsum("tm,mij->tij", true, covariances))
volts = 1e-5 * np.einsum("tij,tj->ti", roots, rng.standard_normal((n_samples, len(CHANNELS))))

raw = mne.io.RawArray(volts.T, mne.create_info(CHANNELS, SAMPLING_FREQUENCY, "eeg"))
raw.set_annotations(mne.Annotations(onset=tones, duration=0, description="tone"))

# %%
# Infer the mixing coefficients
# -----------------------------
#
# The unit of the recording does not matter, so volts are accepted.

from skdyn import DyNeMoEstimator, match_modes
from skdyn.metrics import alpha_correlation

model = DyNeMoEstimator(
    n_modes=N_MODES, inference_n_units=32, n_epochs=3 if QUICK else 20, random_state=0
)
alpha = model.fit_transform(raw.get_data().T)
_, order = match_modes(true, alpha, return_order=True)
alpha = alpha[:, order]
print("correlation with the truth:", alpha_correlation(true, alpha).round(2))

# %%
# Fifteen seconds, with the tones as black lines:

from skdyn.plotting import plot_alpha

fig, axes = plot_alpha(
    alpha,
    n_samples=15 * SAMPLING_FREQUENCY,
    labels=["Inferred"],
    sampling_frequency=SAMPLING_FREQUENCY,
)
for tone in tones[tones < 15]:
    axes[0].axvline(tone, color="black", linewidth=1)

# %%
# Back to MNE
# -----------
#
# The coefficients become channels of a copy of the Raw, and its events cut them.


def add_alpha(raw, alpha):
    """Return a copy of the Raw with one more channel for each mode."""
    names = [f"mode {mode}" for mode in range(alpha.shape[1])]
    info = mne.create_info(names, raw.info["sfreq"], "misc")
    modes = mne.io.RawArray(alpha.T, info, first_samp=raw.first_samp)
    return raw.copy().add_channels([modes], force_update_info=True)


window = {"tmin": -0.5, "tmax": 1.5, "baseline": None, "preload": True}
events, _ = mne.events_from_annotations(raw)
epochs = mne.Epochs(add_alpha(raw, alpha), events, **window)
truth = mne.Epochs(add_alpha(raw, true), events, **window)

# %%
# The mean over tones. Mode 2 peaks 0.4 s after each tone.

import matplotlib.pyplot as plt

from skdyn.plotting import mode_palette

fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for label, style, one in (("True", ":", truth), ("Inferred", "-", epochs)):
    evoked = one.average("misc")
    for mode, color in enumerate(mode_palette(N_MODES)):
        ax.plot(evoked.times, evoked.data[mode], style, color=color, label=f"{label}, mode {mode}")
ax.axvline(0, color="black", linewidth=1)
ax.set(ylim=(0, 1), xlim=evoked.times[[0, -1]], xlabel="Time after the tone (s)")
ax.set_ylabel("Mixing coefficient")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize=8, ncols=2)

# %%
# Epochs as input
# ---------------
#
# Epochs go in as a stack of sessions and come out as one. The network does not see the rows outside
# an epoch, so the coefficients are less certain near its ends. If you have the Raw, infer from the
# Raw and cut the coefficients.

stack = epochs.get_data("eeg").transpose(0, 2, 1)
from_epochs = model.transform(stack)[..., order]
print(stack.shape, "->", from_epochs.shape)
difference = np.abs(from_epochs - epochs.get_data("misc").transpose(0, 2, 1)).mean(axis=(0, 2))
print(f"mean difference at the ends: {difference[[0, -1]].mean():.3f}")
print(f"more than half a second inside: {difference[50:-50].mean():.3f}")

# sphinx_gallery_thumbnail_number = 2
