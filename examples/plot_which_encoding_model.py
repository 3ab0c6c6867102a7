"""
Which encoding model?
=====================

Does a neuron sum its inputs linearly, or is there a threshold? Does it have one filter or two? Does
it share filters with other neurons? Each answer is an architecture, written as a string of layers.
`compare_models` ranks them by the correlation of their predictions with held-out responses. Neurons
differ more than models do, so models are compared neuron by neuron.

The recordings of the second part come with the Python package nitime:
``pip install --no-deps nitime==0.12.1``.
"""

# %%
# Eight simulated neurons
# -----------------------
#
# Each neuron has one filter, over channels and time, and a threshold.

import os

import numpy as np

QUICK = os.environ.get("SKDYN_EXAMPLES") == "quick"  # less data, for tests
N_CHANNELS, N_NEURONS = 12, 8


def simulate(n_samples):
    """Return a stimulus and the noisy responses to it."""
    rng = np.random.default_rng(0)
    stimulus = rng.gamma(1.0, size=(n_samples, N_CHANNELS))
    centres = rng.uniform(2, N_CHANNELS - 2, N_NEURONS)
    tuning = np.exp(-0.5 * ((np.arange(N_CHANNELS)[:, np.newaxis] - centres) / 1.2) ** 2)
    kernels = np.array([1, 0.8, 0.3, -0.4, -0.5, -0.2]) * rng.uniform(0.7, 1.3, (N_NEURONS, 6))
    drive = np.stack(
        [
            np.convolve(channel, kernel)[:n_samples]
            for channel, kernel in zip((stimulus @ tuning).T, kernels, strict=True)
        ],
        axis=1,
    )
    drive = (drive - drive.mean(axis=0)) / drive.std(axis=0)
    return stimulus, np.maximum(drive - 0.3, 0) + 0.7 * rng.standard_normal(drive.shape)


stimulus, responses = simulate(n_samples=1000 if QUICK else 4000)

# %%
# The candidates differ in rank, in the nonlinearity, and in whether neurons share filters. In these
# words, ``wc`` weighs channels, ``fir`` filters in time, ``lvl`` adds a constant, ``relu`` is a
# threshold and ``dexp`` a sigmoid.

from skdyn import NEMSRegressor
from skdyn.model_selection import BlockKFold, compare_models

c, n = N_CHANNELS, N_NEURONS
words = {
    "linear": f"fir.8x{c}x{n}-lvl",
    "linear, rank 1": f"wc.{c}x1x{n}-fir.8x1x{n}-lvl",
    "threshold": f"wc.{c}x1x{n}-fir.8x1x{n}-lvl-relu",
    "threshold, rank 2": f"wc.{c}x2x{n}-fir.8x2x{n}-lvl-relu",
    "sigmoid": f"wc.{c}x1x{n}-fir.8x1x{n}-dexp",
    "threshold, 3 shared filters": f"wc.{c}x1x3-fir.8x1x3-wc.3x{n}-lvl-relu",
}
if QUICK:
    words = {name: words[name] for name in ("linear", "threshold")}
models = {name: NEMSRegressor(layers, random_state=0) for name, layers in words.items()}
comparison = compare_models(
    models, stimulus, responses, cv=BlockKFold(2 if QUICK else 4), scoring="correlation"
)
print(comparison)
print("best:", comparison.best_name)
comparison.plot()

# %%
# The best model against the linear one, neuron by neuron. Points above the line are neurons that
# the best model predicts better.

import matplotlib.pyplot as plt

from skdyn.plotting import mode_palette

scores = comparison.scores.mean(axis=(1, 2))  # over folds and repeats: (n_models, n_neurons)
linear, best = scores[comparison.names.index("linear")], scores[comparison.best_index]
limits = min(linear.min(), best.min()) - 0.02, max(linear.max(), best.max()) + 0.02
fig, ax = plt.subplots(figsize=(4.2, 4.0), layout="constrained")
ax.plot(limits, limits, color="0.7", lw=0.8, zorder=0)
ax.plot(linear, best, "o", color=mode_palette(1)[0], ms=6)
ax.set(xlabel="Linear", ylabel=comparison.best_name.capitalize())
ax.set(title="Held-out correlation of each neuron", xlim=limits, ylim=limits, aspect="equal")
ax.spines[["top", "right"]].set_visible(False)

# %%
# A grasshopper's auditory receptor
# ---------------------------------
#
# Two recordings of 10 s, in bins of 1 ms. The candidates also differ in their input: the amplitude
# of the sound, its level in decibels, or both. A fifth of each recording is held out at a time.

from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdyn.datasets import load_grasshopper


def level(X):
    """Return decibels relative to the largest amplitude."""
    return 20 * np.log10(X)


def both(X):
    """Return amplitude and level, side by side."""
    return np.hstack([X, level(X)])


grasshopper = load_grasshopper(bin_width=0.001)
n_rows = 1000 if QUICK else 10_000
models = {
    f"{name} of {feature}": make_pipeline(
        FunctionTransformer(function), StandardScaler(), NEMSRegressor(layers, alpha=1e-5)
    )
    for name, layers in {"linear": "fir.15-lvl", "sigmoid": "fir.15-lvl-sig"}.items()
    for feature, function in {"amplitude": None, "level": level, "both": both}.items()
}
comparison = compare_models(
    models,
    np.concatenate([sound[:n_rows] for sound in grasshopper.data]),
    np.concatenate([spikes[:n_rows] for spikes in grasshopper.target]),
    sessions=np.repeat(["slow", "fast"], n_rows),
    cv=BlockKFold(2 if QUICK else 5),
    scoring="correlation",
)
print(comparison)
comparison.plot()

# sphinx_gallery_thumbnail_number = 2
