"""
Which encoding model?
=====================

Does a neuron add up what it hears, or is there a threshold? Does it have one filter or two, and
does it share them with others? Each answer is an architecture, written in words; the one that
predicts best what it was not fitted to is taken. Neurons differ more than models do, so models are
compared neuron by neuron: the difference counts, and its standard error over neurons and over
blocks of the recording.

First a simulation of eight neurons with one filter and a threshold each. Then the two recordings of
a grasshopper's ear, where the candidates also differ in what is filtered, the amplitude of the
sound or its level.

`--seeds 10` simulates ten times, and says how often the right architecture comes out.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdyn import NEMSRegressor
from skdyn.datasets import load_grasshopper
from skdyn.model_selection import BlockKFold, compare_models
from skdyn.plotting import mode_palette

N_CHANNELS, N_NEURONS = 12, 8
TRUTH = "threshold"
WORDS = {
    "linear": "fir.8x{c}x{n}-lvl",
    "linear, rank 1": "wc.{c}x1x{n}-fir.8x1x{n}-lvl",
    TRUTH: "wc.{c}x1x{n}-fir.8x1x{n}-lvl-relu",
    "threshold, rank 2": "wc.{c}x2x{n}-fir.8x2x{n}-lvl-relu",
    "sigmoid": "wc.{c}x1x{n}-fir.8x1x{n}-dexp",
    "threshold, 3 shared filters": "wc.{c}x1x3-fir.8x1x3-wc.3x{n}-lvl-relu",
}


def simulate(seed, n_samples):
    """Give a stimulus, and responses of neurons with a filter and a threshold each, and noise."""
    rng = np.random.default_rng(seed)
    stimulus = rng.gamma(1.0, size=(n_samples, N_CHANNELS))
    centres = rng.uniform(2, N_CHANNELS - 2, N_NEURONS)
    tuning = np.exp(-0.5 * ((np.arange(N_CHANNELS)[:, np.newaxis] - centres) / 1.2) ** 2)
    courses = np.array([1, 0.8, 0.3, -0.4, -0.5, -0.2]) * rng.uniform(0.7, 1.3, (N_NEURONS, 6))
    drive = np.stack(
        [
            np.convolve(heard, course)[:n_samples]
            for heard, course in zip((stimulus @ tuning).T, courses, strict=True)
        ],
        axis=1,
    )
    drive = (drive - drive.mean(axis=0)) / drive.std(axis=0)
    return stimulus, np.maximum(drive - 0.3, 0) + 0.7 * rng.standard_normal(drive.shape)


def compare_on_simulation(stimulus, responses, n_jobs):
    models = {
        name: NEMSRegressor(words.format(c=N_CHANNELS, n=N_NEURONS), random_state=0)
        for name, words in WORDS.items()
    }
    folds = BlockKFold(4)
    return compare_models(
        models, stimulus, responses, cv=folds, scoring="correlation", n_jobs=n_jobs
    )


def level(X):
    """Decibels below the largest amplitude."""
    return 20 * np.log10(X)


def both(X):
    return np.hstack([X, level(X)])


def compare_on_recordings(grasshopper, n_rows, n_jobs):
    """Compare filters, and what they filter, at 1 ms; a fifth at a time is held out."""
    heard, spikes = (
        np.concatenate([recording[:n_rows] for recording in recordings])
        for recordings in (grasshopper.data, grasshopper.target)
    )
    features = {"amplitude": None, "level": level, "both": both}
    models = {
        f"{words} of {name}": make_pipeline(
            FunctionTransformer(function), StandardScaler(), NEMSRegressor(layers, alpha=1e-5)
        )
        for words, layers in {"linear": "fir.15-lvl", "sigmoid": "fir.15-lvl-sig"}.items()
        for name, function in features.items()
    }
    recording = np.repeat(["slow", "fast"], n_rows)
    return compare_models(
        models,
        heard,
        spikes,
        sessions=recording,
        cv=BlockKFold(5),
        scoring="correlation",
        n_jobs=n_jobs,
    )


def draw_neurons(comparison):
    """Draw the correlation of each neuron: the best of the models against the linear one."""
    fig, ax = plt.subplots(figsize=(4.2, 4.0), layout="constrained")
    names = list(comparison.names)
    # Mean over folds, one per neuron.
    scores = comparison.scores.mean(axis=(1, 2))
    linear, best = scores[names.index("linear")], scores[comparison.best_index]
    lowest, highest = min(linear.min(), best.min()) - 0.02, max(linear.max(), best.max()) + 0.02
    ax.plot([lowest, highest], [lowest, highest], color="0.7", lw=0.8, zorder=0)
    ax.plot(linear, best, "o", color=mode_palette(1)[0], ms=6)
    ax.set(xlabel="Linear", ylabel=comparison.best_name.capitalize())
    ax.set_title("Held-out correlation of each neuron", size=10)
    ax.set(xlim=(lowest, highest), ylim=(lowest, highest), aspect="equal")
    ax.spines[["top", "right"]].set_visible(False)
    return fig


def main():
    parser = argparse.ArgumentParser(description="The architecture, by held-out correlation.")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="folder to fill")
    parser.add_argument("--quick", action="store_true", help="less data")
    parser.add_argument("--seeds", type=int, default=1, help="how many simulations")
    parser.add_argument("--jobs", type=int, default=1, help="fits at the same time")
    arguments = parser.parse_args()
    try:
        grasshopper = load_grasshopper(bin_width=0.001)
    except ImportError as error:
        raise SystemExit(f"{error}") from None
    n_samples, n_rows = (2000, 2000) if arguments.quick else (4000, 10000)

    picked = []
    for seed in reversed(range(arguments.seeds)):
        comparison = compare_on_simulation(*simulate(seed, n_samples), arguments.jobs)
        picked.append(comparison.best_name)
    print(comparison)
    print(f"{TRUTH!r} picked in {picked.count(TRUTH)} of {len(picked)} simulations")
    figures = {"simulation": comparison.plot()[0], "neurons": draw_neurons(comparison)}
    comparison = compare_on_recordings(grasshopper, n_rows, arguments.jobs)
    print(comparison)
    figures["grasshopper"] = comparison.plot()[0]

    arguments.figures.mkdir(parents=True, exist_ok=True)
    for name, fig in figures.items():
        path = arguments.figures / f"which_encoding_model_{name}.png"
        fig.savefig(path, dpi=150)
        plt.close(fig)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
