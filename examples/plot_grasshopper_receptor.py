"""
A grasshopper's auditory receptor: from sound to spikes
=======================================================

A receptor neuron in the ear of a grasshopper was recorded twice for 10 s. The amplitude of a tone
changed at random: slowly in one recording, up to 200 Hz, and fast in the other, up to 800 Hz. The
models are fitted to the first 7 s of a recording. They predict the spikes in its last 3 s and in
the whole other recording.

The recordings come with the Python package nitime: ``pip install --no-deps nitime==0.12.1``.
"""

# %%
# Two models
# ----------
#
# The baseline is ridge regression on the amplitude of the last 20 ms.

import os

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdyn.datasets import load_grasshopper
from skdyn.metrics import correlation_score, correlation_scorer
from skdyn.nems import Model, NEMSRegressor

QUICK = os.environ.get("SKDYN_EXAMPLES") == "quick"  # one penalty and two folds, for tests
N_FITTED = 7000

grasshopper = load_grasshopper(bin_width=0.001)
X, y = grasshopper.data, grasshopper.target


def lagged(X, n_lags=20):
    """Return the last rows side by side."""
    return np.hstack([np.pad(X, ((lag, 0), (0, 0)))[: len(X)] for lag in range(n_lags)])


def make_ridge():
    """Return ridge regression on the lagged amplitude."""
    return make_pipeline(
        StandardScaler(), FunctionTransformer(lagged), RidgeCV(np.logspace(-3, 5, 17))
    )


# %%
# The encoding model filters its input over 15 ms and passes the sum through a sigmoid. The input is
# the amplitude, the level in decibels, or both; cross-validation within the 7 s chooses it, and the
# penalty too.


def amplitude(X):
    """Return the input unchanged."""
    return X


def level(X):
    """Return decibels relative to the largest amplitude."""
    return 20 * np.log10(X)


def both(X):
    """Return amplitude and level, side by side."""
    return np.hstack([amplitude(X), level(X)])


def make_encoder():
    """Return a search over the input and the penalty of the encoding model."""
    pipeline = make_pipeline(
        FunctionTransformer(), StandardScaler(), NEMSRegressor("fir.15-lvl-sig")
    )
    grid = {
        "functiontransformer__func": [amplitude, level, both],
        "nemsregressor__alpha": [1e-4] if QUICK else [3e-5, 1e-4, 3e-4],
    }
    return GridSearchCV(pipeline, grid, scoring=correlation_scorer, cv=KFold(2 if QUICK else 4))


names = ["slow", "fast"]
ridges = [make_ridge().fit(X[k][:N_FITTED], y[k][:N_FITTED]) for k in (0, 1)]
encoders = [make_encoder().fit(X[k][:N_FITTED], y[k][:N_FITTED]) for k in (0, 1)]
for name, search in zip(names, encoders, strict=True):
    chosen = search.best_params_["functiontransformer__func"].__name__
    print(f"{name} sound: {chosen}, cross-validated correlation {search.best_score_:.3f}")

# %%
# Held-out predictions
# --------------------
#
# The score is the correlation with the spikes in bins of 1 ms. A model fitted to the fast sound
# also predicts the response to the slow one. The reverse fails: a sound without energy above 200 Hz
# cannot show how the receptor filters there.

scores = {}
for fitted, predicted in ((0, 0), (1, 1), (1, 0), (0, 1)):
    same = fitted == predicted
    new = slice(N_FITTED if same else 0, None)  # of the fitted recording, only the end is new
    target = "its last 3 s" if same else f"the {names[predicted]} sound"
    scores[f"{names[fitted].title()} sound predicts {target}"] = [
        correlation_score(y[predicted][new], model[fitted].predict(X[predicted])[new])
        for model in (ridges, encoders)
    ]
for case, (ridge, encoder) in scores.items():
    print(f"{case:35} ridge {ridge:6.3f}, encoding model {encoder:6.3f}")

# %%
# The correlations, one row per case:

import matplotlib.pyplot as plt

from skdyn.plotting import mode_palette

BLUE, ORANGE, GREEN = mode_palette(3)
fig, ax = plt.subplots(figsize=(7.5, 2.8), layout="constrained")
places = np.arange(len(scores))
ridge, encoder = np.array(list(scores.values())).T
ax.axvline(0, color="0.8", lw=0.8)
ax.hlines(places, ridge, encoder, color="0.85", lw=4)
ax.scatter(ridge, places, s=60, color=ORANGE, label="Ridge regression", zorder=3)
ax.scatter(encoder, places, s=60, color=BLUE, label="Encoding model", zorder=3)
ax.set(yticks=places, yticklabels=list(scores), ylim=(len(scores) - 0.5, -0.5))
ax.set(xlabel="Correlation with the spikes per millisecond")
ax.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)

# %%
# Sound, spikes and predictions
# -----------------------------
#
# A fifth of a second that neither model was fitted to.

start, duration = 7.3, 0.2
layout = {"height_ratios": [1, 0.25, 1.6], "hspace": 0.04}
fig, axes = plt.subplots(3, 2, figsize=(10, 4.6), layout="constrained", gridspec_kw=layout)
bins = np.arange(int(start * 1000), int((start + duration) * 1000))
samples = np.arange(int(start * 20_000), int((start + duration) * 20_000))
for number, (sound, spikes, prediction) in enumerate(axes.T):
    heard = grasshopper.stimulus[number][samples]
    sound.fill_between(1000 * (samples / 20_000 - start), -heard, heard, color="0.6", lw=0)
    sound.set_title(
        f"{names[number].title()} sound, up to {grasshopper.cutoff_frequency[number]:.0f} Hz"
    )
    spikes.vlines(1000 * (grasshopper.spike_times[number] - start), 0, 1, color="0.1", lw=1.2)
    time = 1000 * ((bins + 0.5) / 1000 - start)
    for model, color, label in (
        (ridges, ORANGE, "Ridge regression"),
        (encoders, BLUE, "Encoding model"),
    ):
        rate = 1000 * np.ravel(model[number].predict(X[number]))[bins]
        prediction.plot(time, rate, color=color, lw=1.4, label=label)
    prediction.set(xlabel=f"Time after {start:g} s (ms)", ylim=(-150, 900))
    for ax in (sound, spikes):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax in (sound, spikes, prediction):
        ax.set_xlim(0, 1000 * duration)
for ax, label in zip(axes[:2, 0], ("Sound", "Spikes"), strict=True):
    ax.set_ylabel(label, rotation=0, ha="right", va="center")
axes[2, 0].set_ylabel("Spikes per second")
axes[2, 1].legend(frameon=False, fontsize=9, loc="upper right")

# %%
# Filters and nonlinearities
# --------------------------
#
# `linear_filter` returns the filter of a fitted model. The layers after it are the nonlinearity,
# drawn over the mean response to each value of the filtered input.

from skdyn.plotting import linear_filter, plot_nonlinearity

fig, axes = plt.subplots(2, 2, figsize=(9, 5), layout="constrained")
for name, search, sound, counts, (ax, curve) in zip(names, encoders, X, y, axes, strict=True):
    model = search.best_estimator_[-1].model_
    features = search.best_estimator_[:-1].transform(sound[:N_FITTED])
    filters, lags = linear_filter(model, features.shape[1])
    chosen = search.best_params_["functiontransformer__func"].__name__
    labels = ["amplitude", "level"] if chosen == "both" else [chosen]
    ax.axhline(0, color="0.8", lw=0.8)
    for weights, label in zip(filters[:, :, 0].T, labels, strict=True):
        color = {"amplitude": GREEN, "level": BLUE}[label]
        ax.plot(lags, weights, "o-", ms=3.5, color=color, label=f"Filter of the {label}")
    ax.set(xlabel="Before the spikes (ms)", ylabel="Weight", title=f"{name.title()} sound")
    ax.legend(frameon=False, fontsize=8)
    filtered = Model([model.layers[0].copy()]).predict(features)
    others = Model([layer.copy() for layer in model.layers[1:]])
    plot_nonlinearity(
        lambda values, others=others: 1000 * others.predict(values),
        filtered,
        1000 * counts[:N_FITTED],
        xlabel="Filtered input",
        ylabel="Spikes per second",
        ax=[curve],
    )

# sphinx_gallery_thumbnail_number = 2
