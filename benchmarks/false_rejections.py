"""
False rejections by compare_models: candidates as good as the best that are called worse.

Two linear regressions are equally good by symmetry. With inputs "useless", both have the two
inputs that drive the response, and three others each that do not. With "own", each has one of two
inputs that drive it equally. Inputs and noise are white, or autoregressive with a coefficient of
.95. Blocks of the recording are held out. A rejection is a difference of more than two plain
standard errors (as of independent folds), a p-value of a plain t test below the level, and a
`p_value` of `compare_models` below the level. "first of four" is the rate at which `simplest`
rejects the first of four equal candidates.

With --outputs, the response has ten outputs with independent or partly shared noise, and
rejections are those with `paired_over` "outputs", "folds" and "both".
"""

import argparse

import numpy as np
import scipy.stats
from processes import markdown
from scipy.signal import lfilter
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import r2_score

from skdyn.model_selection import BlockKFold, compare_models
from skdyn.model_selection.uncertainty import ERRORS, summarise

LEVEL, N_ROWS, N_OUTPUTS = 0.05, 600, 10
SERIES = {"white": 0.0, "AR(.95)": 0.95}
# Inputs that drive the response, and those that each candidate has.
CASES = {
    "useless": ([0, 1], [[0, 1, *range(2 + 3 * n, 5 + 3 * n)] for n in range(4)]),
    "own": ([0, 1, 2, 3], [[n] for n in range(4)]),
}


class Linear(RegressorMixin, BaseEstimator):
    """Least squares on some of the inputs."""

    def __init__(self, inputs):
        self.inputs = inputs

    def fit(self, X, y):
        self.weights_ = np.linalg.lstsq(self._design(X), y)[0]
        return self

    def predict(self, X):
        return self._design(X) @ self.weights_

    def _design(self, X):
        return np.column_stack([np.ones(len(X)), X[:, self.inputs]])


def draw(rng, n_columns, coefficient):
    """Stationary series (n_rows, n_columns) of unit variance."""
    noise = rng.standard_normal((N_ROWS + 200, n_columns))
    series = lfilter([np.sqrt(1 - coefficient**2)], [1, -coefficient], noise, axis=0)
    return series[200:]


def r2_of_outputs(estimator, X, y):
    return r2_score(y, estimator.predict(X), multioutput="raw_values")


def one_recording(seed, case, coefficient, n_folds, n_candidates, shared=None):
    """Compare candidates on one recording; shared is the common part of the outputs' noise."""
    rng = np.random.default_rng(seed)
    driving, inputs = CASES[case]
    X = draw(rng, 14, coefficient)
    n_outputs = 1 if shared is None else N_OUTPUTS
    noise = draw(rng, 1 + n_outputs, coefficient)
    share = shared or 0.0
    noise = np.sqrt(share) * noise[:, :1] + np.sqrt(1 - share) * noise[:, 1:]
    y = X[:, driving].sum(axis=1, keepdims=True) + noise
    models = {n: Linear(inputs[n]) for n in range(n_candidates)}
    y, scoring = (y[:, 0], None) if shared is None else (y, r2_of_outputs)
    return compare_models(models, X, y, cv=BlockKFold(n_folds), scoring=scoring)


def rate(found):
    return f"{100 * np.mean(found):.1f}"


def two_candidates(case, series, n_folds, n_draws):
    plain, student, corrected, first = [], [], [], []
    for seed in range(n_draws):
        four = one_recording(seed, case, SERIES[series], n_folds, 4)
        difference = np.subtract(*four.scores[:2, :, 0])
        ratio = abs(difference.mean()) / scipy.stats.sem(difference)
        plain.append(ratio > 2)
        student.append(2 * scipy.stats.t.sf(ratio, n_folds - 1) < LEVEL)
        corrected.append(p_of_two(four, "folds") < LEVEL)
        first.append(four.simplest(LEVEL) != 0)
    return [case, series, n_folds, *map(rate, (plain, student, corrected, first))]


def p_of_two(comparison, units):
    """The p-value of the first two candidates, as if there were no others."""
    return summarise(
        comparison.scores[:2], np.ones(2, dtype=bool), units, comparison.test_to_train
    )["p_value"].min()


def outputs(case, series, shared, n_folds, n_draws):
    found: dict = {units: [] for units in ERRORS}
    for seed in range(n_draws):
        one = one_recording(seed, case, SERIES[series], n_folds, 2, shared)
        for units, rejected in found.items():
            rejected.append(p_of_two(one, units) < LEVEL)
    return [case, series, shared, n_folds, *map(rate, found.values())]


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--draws", type=int, default=600, help="recordings")
    parser.add_argument("--folds", type=int, nargs="+", default=[2, 3, 4, 5, 7, 10])
    parser.add_argument("--outputs", action="store_true", help="several outputs")
    arguments = parser.parse_args()
    rows = []
    for case in CASES:
        for series in SERIES:
            for n_folds in arguments.folds:
                if arguments.outputs:
                    rows += [
                        outputs(case, series, shared, n_folds, arguments.draws)
                        for shared in (0.0, 0.5)
                    ]
                else:
                    rows.append(two_candidates(case, series, n_folds, arguments.draws))
                print(rows[-1], flush=True)
    heads = ["inputs", "series", "folds", "two plain standard errors", "t", "t, corrected"]
    if arguments.outputs:
        heads = ["inputs", "series", "common noise", "folds", *map("over {}".format, ERRORS)]
    markdown([*heads, *([] if arguments.outputs else ["first of four"])], rows)


if __name__ == "__main__":
    main()
