"""
Encoding models of 60 units of ferret auditory cortex: linear, linear-nonlinear, shared, networks.

The file has spike counts of units, sounds, repeats and 5 ms bins, the sounds' spectrograms of 34
bands, and the sounds to hold out, test_idx. Bins are joined to 10 ms, bands standardised on the
sounds that are not held out. Each candidate is fitted to the mean response over repeats. Its
penalty, and its number of shared filters, are those with the highest mean correlation in
cross-validation over four groups of the sounds that are not held out; then it is fitted to all of
these, and scored on the others: by the mean over units of the correlation with the mean response,
and of the one with single repeats, corrected for noise. Models joined by " + " have their
predictions averaged. The baseline is Ridge of scikit-learn on 15 lags. Each sound begins after
silence, hence history="zeros".
"""

import argparse
import json
import warnings

import numpy as np
from processes import ask_all, markdown, measured
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge

from skdyn import NEMSRegressor
from skdyn.metrics import correlation_score, noise_corrected_correlation

N_LAGS, N_FOLDS = 15, 4
RIDGE, LINEAR, LN = "ridge (scikit-learn)", "linear", "LN, each neuron"
NETWORK = "-".join(
    [
        "wc.34x70-fir.15x1x70-relu.70",
        "wc.70x80-fir.10x1x80-relu.80",
        "wc.80x100-relu.100-wc.100x60-lvl-dexp",
    ]
)
WIDE = "-".join(
    [
        "wc.34x120-fir.15x1x120-relu.120",
        "wc.120x140-fir.10x1x140-relu.140",
        "wc.140x160-relu.160-wc.160x60-lvl-dexp",
    ]
)
CONVOLUTIONS = "-".join(
    [
        "conv2d.8x3x10.stack.s12-relu.10.s",
        "conv2d.4x3x10x10.stack.s12-relu.10.s",
        "conv2d.4x3x10x10.cat-relu.90.s",
        "wc.90x60-relu.60.s-wc.60x60-dexp.60",
    ]
)
RECURRENT = "wc.34x1x20-fir.5x1x20-relu.20.s-gru.20x60-wc.60x60-dexp.60"
# Further settings of models fitted by Adam with early stopping.
NETWORKS = {NETWORK: {}, WIDE: {}, CONVOLUTIONS: {}, RECURRENT: {"learning_rate": 0.004}}


def own(n):
    return f"wc.34x{n}x60-fir.15x{n}x60-dexp.60"


def shared(n):
    return f"wc.34x1x{n}-fir.15x1x{n}-wc.{n}x60-dexp.60"


def rectified(n):
    return f"wc.34x1x{n}-fir.15x1x{n}-relu.{n}.s-wc.{n}x60-dexp.60"


def depressing(n):
    """Synapses of each band; their input is counted from its least value on."""
    return f"stp.34-{rectified(n)}"


def three_of(name, words, alphas, chosen):
    """A network from three seeds, and the mean of the three, at the penalty that seed 0 chooses."""
    alphas = {0: alphas, 1: [chosen], 2: [chosen]}
    return {
        **{f"{name}, seed {seed}": ([[(words, seed)]], alphas[seed]) for seed in alphas},
        f"{name}, mean of three": ([[(words, seed) for seed in alphas]], [chosen]),
    }


# The models of a candidate to choose among, each a list of keywords and seeds; and penalties, in
# units of the variance of the responses, or for linear models those of Ridge.
CANDIDATES = {
    RIDGE: ([[("", 0)]], [3e2, 1e3, 3e3]),
    LINEAR: ([[("fir.15x34x60-lvl", 0)]], [3e2, 1e3, 3e3]),
    LN: ([[(own(1), 0)]], [0.02, 0.06, 0.2]),
    "LN, shared filters": ([[(shared(n), 0)] for n in (6, 12)], [1e-3, 3e-3, 1e-2]),
    "LN, shared rectified filters": ([[(rectified(n), 0)] for n in (8, 12)], [1e-3, 3e-3]),
    # Models of different sizes have different errors, so that averaging their predictions helps.
    "LN, shared rectified filters, mean of three": (
        [[(rectified(n), 0) for n in (8, 10, 12)]],
        [1e-3, 3e-3],
    ),
    "LN with plasticity": ([[(depressing(n), 0)] for n in (8, 12)], [1e-3, 3e-3]),
    "LN with plasticity, mean of three": ([[(depressing(n), 0) for n in (8, 10, 12)]], [3e-3]),
    **three_of("1-D x 2 network", NETWORK, [0.0, 1e-3, 2e-3, 4e-3], 2e-3),
    **three_of("1-D x 2 network, wide", WIDE, [2e-3, 4e-3], 2e-3),
    **three_of("2-D network", CONVOLUTIONS, [1e-3, 2e-3], 2e-3),
    **three_of("recurrent network", RECURRENT, [1e-3, 2e-3], 2e-3),
}


class LaggedRidge(Ridge):
    """Ridge on the lags of each sound."""

    def fit(self, X, y):
        return super().fit(lagged(X), np.concatenate(list(y)))

    def predict(self, X):
        return super().predict(lagged(X)).reshape(len(X), X.shape[1], -1)


class MeanRegressor(BaseEstimator):
    """Mean of the predictions of several models."""

    def __init__(self, estimators):
        self.estimators = estimators

    def fit(self, X, y):
        self.fitted_ = [clone(estimator).fit(X, y) for estimator in self.estimators]
        self.n_iter_ = sum(estimator.n_iter_ for estimator in self.fitted_)
        return self

    def predict(self, X):
        return np.mean([estimator.predict(X) for estimator in self.fitted_], axis=0)


def lagged(X):
    design = np.zeros((*X.shape[:2], N_LAGS, X.shape[2]))
    for lag in range(N_LAGS):
        design[:, lag:, lag] = X[:, : X.shape[1] - lag]
    return design.reshape(-1, N_LAGS * X.shape[2])


def load(path):
    """Spectrograms (sound, time, band), counts (sound, repeat, time, unit); the held out, too."""
    with np.load(path) as file:
        counts = file["counts"].astype(float)
        spectrogram = file["spec_db"].astype(float)
        held_out = file["test_idx"]
    counts = counts.reshape(*counts.shape[:3], -1, 2).sum(-1).transpose(1, 2, 3, 0)
    spectrogram = spectrogram.reshape(len(spectrogram), -1, 2, spectrogram.shape[-1]).mean(2)
    others = np.setdiff1d(np.arange(len(counts)), held_out)
    mean, sd = (getattr(spectrogram[others], name)(axis=(0, 1)) for name in ("mean", "std"))
    X = (spectrogram - mean) / sd
    return X[others], counts[others], X[held_out], counts[held_out]


def estimator(name, parts, alpha, y):
    if name == RIDGE:
        return LaggedRidge(alpha=alpha)
    unit = 2 / y[..., 0].size if name == LINEAR else y.var()
    models = [one_model(words, seed, alpha * unit) for words, seed in parts]
    return models[0] if len(models) == 1 else MeanRegressor(models)


def one_model(words, seed, alpha):
    model = NEMSRegressor(words, alpha=alpha, history="zeros", tol=1e-5, random_state=seed)
    if words in NETWORKS:
        model.set_params(solver="adam", early_stopping=True, n_iter_no_change=20)
        model.set_params(**NETWORKS[words])
    return model


def flat(array):
    return np.asarray(array).reshape(-1, array.shape[-1])


def choose(name, settings, X, y):
    """The setting with the highest correlation on sounds that were not fitted."""
    folds = np.arange(len(X)) % N_FOLDS
    scores = []
    for parts, alpha in settings:
        predictions = np.empty_like(y)
        for fold in range(N_FOLDS):
            model = estimator(name, parts, alpha, y[folds != fold])
            model.fit(X[folds != fold], y[folds != fold])
            predictions[folds == fold] = model.predict(X[folds == fold])
        scores.append(correlation_score(flat(y), flat(predictions)))
    return settings[int(np.argmax(scores))], max(scores)


def one(path, name):
    """Choose, fit and score one candidate."""
    X, counts, X_test, counts_test = load(path)
    y = counts.mean(axis=1)
    models, alphas = CANDIDATES[name]
    if any(words.startswith("stp") for parts in models for words, _ in parts):
        least = X.min(axis=(0, 1))
        X, X_test = X - least, X_test - least
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        settings = [(parts, alpha) for parts in models for alpha in alphas]
        ((parts, alpha), validated), search = measured(lambda: choose(name, settings, X, y))
        model = estimator(name, parts, alpha, y)
        _, cost = measured(lambda: model.fit(X, y))
    prediction = flat(model.predict(X_test))
    # (sounds, repeats, bins, units) -> (sounds, bins, units, repeats)
    repeats = np.moveaxis(counts_test, 1, -1).reshape(-1, y.shape[-1], counts_test.shape[1])
    return {
        "name": name,
        "words": " + ".join(words for words, _ in parts),
        "alpha": alpha,
        "validated": validated,
        "r": float(correlation_score(flat(counts_test.mean(axis=1)), prediction)),
        "corrected": float(noise_corrected_correlation(repeats, prediction)),
        "by_unit": correlation_score(
            flat(counts_test.mean(axis=1)), prediction, multioutput="raw_values"
        ).tolist(),
        "n_iter": getattr(model, "n_iter_", None),
        "search_cpu_s": search["cpu_s"],
        **cost,
    }


def gain(by_unit, baseline):
    """Mean difference over units, and its standard error."""
    if baseline is None or by_unit == baseline:
        return ""
    difference = np.subtract(by_unit, baseline)
    return f"{difference.mean():.3f} ({difference.std(ddof=1) / np.sqrt(len(difference)):.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--recording", help="the .npz file")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, metavar="NAME", help="candidates")
    parser.add_argument("--jobs", type=int, default=1, help="candidates at a time")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(one(**arguments.one)))
        return
    if arguments.recording is None:
        parser.error("which recording? name the file with --recording, or make's RECORDING=")
    names = [name for name in CANDIDATES if name in (arguments.only or CANDIDATES)]
    requests = [{"path": arguments.recording, "name": name} for name in names]
    answers = sorted(
        ask_all(__file__, requests, arguments.jobs), key=lambda answer: names.index(answer["name"])
    )
    baseline = {answer["name"]: answer["by_unit"] for answer in answers}.get(LN)
    rows = [
        [
            answer["name"],
            f"`{answer['words']}`" if answer["words"] else "",
            f"{answer['alpha']:.0e}" if answer["alpha"] else "",
            f"{answer['validated']:.4f}",
            f"{answer['r']:.4f}",
            f"{answer['corrected']:.4f}",
            gain(answer["by_unit"], baseline),
            f"{answer['cpu_s']:.2f}",
            f"{answer['search_cpu_s']:.0f}",
            answer["n_iter"] or "",
        ]
        for answer in answers
    ]
    heads = ["model", "words", "alpha", "validated r", "held-out r", "corrected r", "above LN"]
    markdown([*heads, "CPU s", "search CPU s", "iterations"], rows)


if __name__ == "__main__":
    main()
