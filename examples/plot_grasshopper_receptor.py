"""
A grasshopper's ear: from sound to spikes
=========================================

A cell in the ear of a grasshopper was recorded twice for 10 s, while a tone went up and down at
random: slowly, up to 200 Hz, then fast, up to 800 Hz. What was heard in the last milliseconds
predicts how many spikes there are in the next one. Models are fitted to the first 7 s of a
recording, and predict its last 3 s and the whole of the other.

The floor is ridge regression on the amplitude of the last 20 ms. The encoding model filters the
amplitude and the level (in decibels), adds the two up and bends the sum. That it is given both, and
how much it is penalised, is chosen by cross-validation within the 7 s. On the last 3 s its
correlation is 0.47 for the slow sound, where the floor is at 0.35, and 0.38 for the fast, with a
floor of 0.32; ridge regression on both gets to 0.38 and 0.33. What was learned from the fast sound
holds for the slow: 0.38, the floor 0.27. The other way round nothing does, since a sound without
anything above 200 Hz cannot tell how the cell filters there.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdyn.datasets import load_grasshopper
from skdyn.metrics import correlation_score, correlation_scorer
from skdyn.nems import Model, NEMSRegressor
from skdyn.plotting import linear_filter, mode_palette, plot_nonlinearity

N_FITTED = 7000
RECORDINGS = ["slow", "fast"]
BLUE, ORANGE, GREEN = mode_palette(3)


def amplitude(X):
    return X


def level(X):
    """Decibels below the largest amplitude."""
    return 20 * np.log10(X)


def both(X):
    return np.hstack([amplitude(X), level(X)])


def lagged(X, n_lags=20):
    """Put what was heard in the last milliseconds side by side."""
    return np.hstack([np.pad(X, ((lag, 0), (0, 0)))[: len(X)] for lag in range(n_lags)])


def floor():
    """Ridge regression on the lagged amplitude."""
    steps = {
        "scale": StandardScaler(),
        "lags": FunctionTransformer(lagged),
        "ridge": RidgeCV(np.logspace(-3, 5, 17)),
    }
    return Pipeline(list(steps.items()))


def encoder(n_folds, alphas):
    """Filters of 15 ms and a curve from 0 to 1; what is filtered is chosen by blocks of time."""
    steps = {
        "features": FunctionTransformer(),
        "scale": StandardScaler(),
        "nems": NEMSRegressor("fir.15-lvl-sig"),
    }
    return GridSearchCV(
        Pipeline(list(steps.items())),
        {"features__func": [amplitude, level, both], "nems__alpha": alphas},
        scoring=correlation_scorer,
        # Blocks of time. What is left is put together, with a seam that is as long as the filters.
        cv=KFold(n_folds),
    )


def print_choice(searches):
    print("Cross-validated correlation within the first 7 s, by what is filtered:")
    for name, search in zip(RECORDINGS, searches, strict=True):
        functions = search.cv_results_["param_features__func"]
        scores = search.cv_results_["mean_test_score"]
        best = [max(scores[functions == function]) for function in (amplitude, level, both)]
        print(f"  {name} sound: amplitude {best[0]:.3f}, level {best[1]:.3f}, both {best[2]:.3f}")


def compare(models, X, y):
    """Correlate predictions with counts that were not fitted, and give them by case and model."""
    scores = {}
    for fitted, predicted in ((0, 0), (1, 1), (1, 0), (0, 1)):
        itself = fitted == predicted
        # Of the recording that was fitted only the end is new.
        new = slice(N_FITTED if itself else 0, None)
        target = "its last 3 s" if itself else f"the {RECORDINGS[predicted]}"
        scores[f"{RECORDINGS[fitted].title()} sound, predicts {target}"] = {
            name: correlation_score(y[predicted][new], pair[fitted].predict(X[predicted])[new])
            for name, pair in models.items()
        }
    print("Correlation with the spikes per millisecond, by the sound that was fitted:")
    for case, row in scores.items():
        print(f"  {case:33} ridge {row['ridge']:6.3f}, encoding model {row['encoder']:6.3f}")
    return scores


def tidy(*axes):
    """Make axes look like those of skdyn.plotting."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color("0.55")
        ax.tick_params(color="0.55", labelcolor="0.25", labelsize=8)
        for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
            text.set(size=9, color="0.25")


def draw_responses(models, X, grasshopper, start=7.3, duration=0.2):
    """Draw the sound, the spikes and what was predicted, for a piece that was not fitted."""
    layout = {"height_ratios": [1, 0.25, 1.6], "hspace": 0.04}
    fig, axes = plt.subplots(3, 2, figsize=(10, 4.6), layout="constrained", gridspec_kw=layout)
    rate = grasshopper.sampling_frequency
    bins = np.arange(int(start * rate), int((start + duration) * rate))
    samples = np.arange(int(start * 20000), int((start + duration) * 20000))
    for number, (sound, spikes, prediction) in enumerate(axes.T):
        heard = grasshopper.stimulus[number][samples]
        sound.fill_between(1000 * (samples / 20000 - start), -heard, heard, color="0.6", lw=0)
        cutoff = grasshopper.cutoff_frequency[number]
        sound.set_title(f"{RECORDINGS[number].title()} sound, up to {cutoff:.0f} Hz")
        spikes.vlines(1000 * (grasshopper.spike_times[number] - start), 0, 1, color="0.1", lw=1.2)
        time = 1000 * ((bins + 0.5) / rate - start)
        ridge, encoding = (
            rate * np.ravel(pair[number].predict(X[number]))[bins] for pair in models.values()
        )
        prediction.axhline(0, color="0.8", lw=0.8)
        prediction.plot(time, ridge, color=ORANGE, lw=1.2, label="Ridge regression")
        prediction.fill_between(time, encoding, color=BLUE, alpha=0.2, lw=0)
        prediction.plot(time, encoding, color=BLUE, lw=1.6, label="Encoding model")
        prediction.set(xlabel=f"Time after {start:g} s (ms)", ylim=(-150, 900))
        tidy(sound, spikes, prediction)
        for ax in (sound, spikes):
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    for ax in axes.flat:
        ax.set_xlim(0, 1000 * duration)
    for ax, label in zip(axes[:2, 0], ("Sound", "Spikes"), strict=True):
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
    axes[2, 0].set_ylabel("Spikes per second")
    axes[2, 1].legend(frameon=False, fontsize=9, loc="upper right", bbox_to_anchor=(1, 1.1))
    return fig


def draw_filters(searches, X, y):
    """Draw what each recording taught: filters on the left, curves on the right."""
    fig, axes = plt.subplots(2, 2, figsize=(9, 5), layout="constrained")
    for name, search, sound, counts, (ax, curve) in zip(
        RECORDINGS, searches, X, y, axes, strict=True
    ):
        model = search.best_estimator_[-1].model_
        features = search.best_estimator_[:-1].transform(sound[:N_FITTED])
        filters, lags = linear_filter(model, features.shape[1])
        chosen = search.best_params_["features__func"].__name__
        labels = ["amplitude", "level"] if chosen == "both" else [chosen]
        ax.axhline(0, color="0.8", lw=0.8)
        for weights, label in zip(filters[:, :, 0].T, labels, strict=True):
            color = {"amplitude": GREEN, "level": BLUE}[label]
            ax.plot(lags, weights, "o-", ms=3.5, color=color, label=f"Filter of the {label}")
        ax.set(xlabel="Before the spikes (ms)", ylabel="Weight", title=f"{name.title()} sound")
        tidy(ax)
        # The first layer filters; the others go from what it gives to the response.
        filtered = Model([model.layers[0].copy()]).predict(features)
        others = Model([layer.copy() for layer in model.layers[1:]])
        plot_nonlinearity(
            lambda values, others=others: 1000 * others.predict(values),
            filtered,
            1000 * counts[:N_FITTED],
            xlabel="Sum of what was filtered",
            ylabel="Spikes per second",
            ax=[curve],
        )
    axes[0, 0].legend(frameon=False, fontsize=8)
    fig.get_layout_engine().set(wspace=0.06, hspace=0.08)
    return fig


def draw_scores(scores):
    """Draw the correlations, a row per case."""
    fig, ax = plt.subplots(figsize=(7.5, 2.8), layout="constrained")
    places = np.arange(len(scores))
    ridge, encoding = (
        np.array([row[name] for row in scores.values()]) for name in ("ridge", "encoder")
    )
    ax.axvline(0, color="0.8", lw=0.8)
    ax.hlines(places, ridge, encoding, color="0.85", lw=4)
    for values, color, label in (
        (ridge, ORANGE, "Ridge regression"),
        (encoding, BLUE, "Encoding model"),
    ):
        ax.scatter(values, places, s=60, color=color, label=label, zorder=3)
    for place, pair in zip(places, np.sort([ridge, encoding], axis=0).T, strict=True):
        for value, side, gap in zip(pair, ("right", "left"), (-0.012, 0.012), strict=True):
            ax.text(value + gap, place, f"{value:.2f}", size=8, color="0.25", ha=side, va="center")
    ax.set(yticks=places, yticklabels=list(scores), ylim=(len(scores) - 0.5, -0.5))
    ax.set(xlabel="Correlation with the spikes per millisecond", xlim=(-0.13, 0.55))
    tidy(ax)
    ax.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return fig


def main():
    parser = argparse.ArgumentParser(description="Encoding models of a grasshopper's receptor.")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="folder to fill")
    parser.add_argument("--quick", action="store_true", help="two folds, one penalty")
    arguments = parser.parse_args()
    try:
        grasshopper = load_grasshopper(bin_width=0.001)
    except ImportError as error:
        raise SystemExit(f"{error}") from None
    X, y = grasshopper.data, grasshopper.target

    n_folds, alphas = (2, [1e-4]) if arguments.quick else (4, [3e-5, 1e-4, 3e-4])
    models = {
        "ridge": [floor() for _ in X],
        "encoder": [encoder(n_folds, alphas) for _ in X],
    }
    for pair in models.values():
        for model, sound, counts in zip(pair, X, y, strict=True):
            model.fit(sound[:N_FITTED], counts[:N_FITTED])
    print_choice(models["encoder"])
    scores = compare(models, X, y)

    figures = {
        "responses": draw_responses(models, X, grasshopper),
        "filters": draw_filters(models["encoder"], X, y),
        "scores": draw_scores(scores),
    }
    arguments.figures.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        path = arguments.figures / f"grasshopper_receptor_{name}.png"
        figure.savefig(path, dpi=150, bbox_inches="tight")
        plt.close(figure)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
