"""
Spectra and networks of modes
=============================

The modes of a fit are covariances of components, which are hard to read. `mode_spectra` brings them
back to the channels and returns the power spectrum of each channel and the coherence of each pair
of channels. The recordings are simulated: three networks of four channels each oscillate at 6, 11
and 22 Hz, one at a time.

With your own recordings, such as MNE Raw objects, set ``recordings`` to
``[raw.get_data(picks="data").T for raw in raws]``; the rest of the code stays the same.
"""

# %%
# Simulate four people
# --------------------
#
# The active network changes about twice a second, and all channels have noise. The strength and
# sign of an oscillation in each channel are the same for everyone.

import os

import numpy as np
from scipy.signal import freqz, lfilter

QUICK = os.environ.get("SKDYN_EXAMPLES") == "quick"  # less data and fewer epochs, for tests
SAMPLING_FREQUENCY = 100.0
PEAKS = (6, 11, 22)
N_CHANNELS, NOISE = 12, 0.5
n_people, n_samples = (2, 2000) if QUICK else (4, 6000)

rng = np.random.default_rng(0)
networks = np.zeros((len(PEAKS), N_CHANNELS))
for mode, channels in enumerate(np.split(np.arange(N_CHANNELS), len(PEAKS))):
    networks[mode, channels] = rng.choice([-1, 1], 4) * rng.uniform(0.7, 1.3, 4)


def oscillator(peak):
    """Return a filter with a resonance at `peak` Hz and unit variance for white noise."""
    denominator = [1, -1.9 * np.cos(2 * np.pi * peak / SAMPLING_FREQUENCY), 0.9025]
    impulse = lfilter([1], denominator, np.eye(1, 1000)[0])
    return [1 / np.linalg.norm(impulse)], denominator


def simulate(rng):
    """Return a recording and its mixing coefficients."""
    states = []
    while len(states) < n_samples:
        others = [mode for mode in range(len(PEAKS)) if not states or mode != states[-1]]
        states += [rng.choice(others)] * (20 + int(rng.exponential(40)))
    kernel = np.hanning(15) / np.hanning(15).sum()
    hard = np.eye(len(PEAKS))[states[:n_samples]]
    alpha = np.column_stack([np.convolve(one, kernel, mode="same") for one in hard.T])
    alpha = 0.05 + 0.85 * alpha / alpha.sum(axis=1, keepdims=True)  # no network is ever silent
    X = NOISE * rng.standard_normal((n_samples, N_CHANNELS))
    for weight, peak, network in zip(alpha.T, PEAKS, networks, strict=True):
        source = lfilter(*oscillator(peak), rng.standard_normal(n_samples))
        X += np.outer(np.sqrt(weight) * source, network)
    return X, alpha


rng = np.random.default_rng(1)
recordings, truth = zip(*(simulate(rng) for _ in range(n_people)), strict=True)
recordings, truth = list(recordings), list(truth)

# %%
# Time-delay embedding and the model
# ----------------------------------
#
# Embedding shows the model spectra and phases, because it adds delayed copies of the channels.

from sklearn.pipeline import make_pipeline

from skdyn import DyNeMoEstimator, match_modes
from skdyn.preprocessing import TimeDelayPCA

pipeline = make_pipeline(
    TimeDelayPCA(n_embeddings=11, n_components=2 * N_CHANNELS, whiten=True),
    DyNeMoEstimator(n_modes=len(PEAKS), n_epochs=2 if QUICK else 12, random_state=0),
)
alphas = pipeline.fit_transform(recordings)
truth, alphas = match_modes(truth, alphas)

# %%
# Ten seconds of one person:

from skdyn.plotting import plot_alpha

plot_alpha(
    truth[0][:1000],
    alphas[0][:1000],
    labels=["True", "Inferred"],
    sampling_frequency=SAMPLING_FREQUENCY,
)

# %%
# Spectra of the modes
# --------------------
#
# Dotted lines are the true mean densities.

from skdyn.analysis import mode_spectra

spectra = mode_spectra(
    recordings, alphas, sampling_frequency=SAMPLING_FREQUENCY, frequency_range=(2, 40)
)
print(spectra)
group = spectra.group()
found = ", ".join(f"{peak:.1f}" for peak in group.peaks())
print(f"Peaks at {found} Hz; the true ones are at {', '.join(map(str, PEAKS))} Hz")

import matplotlib.pyplot as plt

fig, axes = plt.subplots(1, len(PEAKS), figsize=(8, 2.8), layout="constrained", sharey=True)
spectra.plot(
    axes, mode_labels=[f"Mode {mode}, {peak:.1f} Hz" for mode, peak in enumerate(group.peaks())]
)
for mode, ax in enumerate(axes):
    response = np.abs(
        freqz(*oscillator(PEAKS[mode]), spectra.frequencies, fs=SAMPLING_FREQUENCY)[1]
    )
    power = 2 / SAMPLING_FREQUENCY * (response**2 * np.mean(networks[mode] ** 2) + NOISE**2)
    ax.plot(spectra.frequencies, power, ":", color="0.2", lw=1.2, label="True")
axes[-1].legend(frameon=False, fontsize=8)

# %%
# Networks
# --------
#
# The coherence of each mode in a band of 2 Hz around its peak:

fig, axes = plt.subplots(1, len(PEAKS), figsize=(8, 3), layout="constrained", sharey=True)
for mode, (ax, peak) in enumerate(zip(axes, group.peaks(), strict=True)):
    coherence = group.band(peak - 1, peak + 1).coherence[mode]
    coherence[np.eye(N_CHANNELS, dtype=bool)] = np.nan
    image = ax.imshow(coherence, vmin=0, vmax=1, cmap="viridis")
    ax.set_title(f"Coherence, {peak:.1f} \N{PLUS-MINUS SIGN} 1 Hz", size=9)
    ax.set_xlabel("Channel")
axes[0].set_ylabel("Channel")
fig.colorbar(image, ax=list(axes), label="Coherence", shrink=0.8)

# %%
# `channel_modes` returns the modes as covariances and correlations of the channels, without
# recomputing anything from the recordings.

from skdyn.analysis import channel_modes

print(channel_modes(pipeline, sampling_frequency=SAMPLING_FREQUENCY))

# sphinx_gallery_thumbnail_number = 3
