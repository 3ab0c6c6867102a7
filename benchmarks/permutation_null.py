"""
False positive rates of the tests of skdyn.analysis under the null, at a level of 5 %.

Each test is repeated on newly drawn data with heavy tails, dependent features, groups of unequal
size, and covariates that correlate with both the values and the tested variable. The mixing around
events is slow and independent of the events.
"""

import argparse

import numpy as np
from processes import markdown, measured
from scipy.stats import binom

from skdyn.analysis import evoked_test, permutation_test

LEVEL = 0.05


def noise(rng, n_rows):
    """Six features with heavy tails that depend on each other."""
    return rng.standard_t(4, (n_rows, 6)) + rng.standard_t(4, (n_rows, 1))


def one_sample(rng):
    return {"values": noise(rng, 16)}


def paired(rng):
    labels, pairs = np.tile(["a", "b"], 16), np.repeat(np.arange(16), 2)
    return {"values": noise(rng, 32), "labels": labels, "pairs": pairs}


def groups(rng):
    return {"values": noise(rng, 20), "labels": ["a"] * 7 + ["b"] * 13}


def with_covariate(rng, name):
    covariate = rng.standard_normal(24)
    tested = covariate + rng.standard_normal(24)
    values = noise(rng, 24) + 2 * covariate[:, np.newaxis]
    if name == "labels":
        tested = tested > np.median(tested)
    return {"values": values, name: tested, "covariates": covariate}


def paired_with_covariate(rng):
    given = paired(rng)
    motion = rng.standard_normal(32)
    return given | {"values": given["values"] + motion[:, np.newaxis], "covariates": motion}


def events(rng, n_samples=1000, smooth=15):
    """Two sessions of mixing that changes within 15 rows, and events every 15 to 50 rows."""
    alpha, rows = [], []
    for _ in range(2):
        white = rng.standard_normal((n_samples + smooth - 1, 3))
        slow = [np.convolve(column, np.ones(smooth), "valid") for column in white.T]
        weights = np.exp(np.stack(slow, axis=1) / 2)
        alpha.append(weights / weights.sum(axis=1, keepdims=True))
        onsets = np.cumsum(rng.integers(15, 50, n_samples // 15))
        rows.append(onsets[onsets < n_samples])
    return {"alpha": alpha, "events": rows, "sampling_frequency": 20, "baseline": (-0.5, 0)}


CASES = {
    "mean against 0": one_sample,
    "pairs": paired,
    "pairs, covariate": paired_with_covariate,
    "two groups": groups,
    "two groups, covariate": lambda rng: with_covariate(rng, "labels"),
    "regressor, covariate": lambda rng: with_covariate(rng, "regressor"),
    "events": events,
}


def rejections(make, n_tests, n_permutations, seed):
    found = 0
    for number in range(n_tests):
        given = make(np.random.default_rng([seed, number]))
        function = evoked_test if "events" in given else permutation_test
        test = function(**given, n_permutations=n_permutations, random_state=number)
        found += bool(test.p_value.min() <= LEVEL)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--tests", type=int, default=1000, help="tests of each kind")
    parser.add_argument("--permutations", type=int, default=1000, help="arrangements of each")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    low, high = binom.interval(0.95, arguments.tests, LEVEL)
    rows = []
    for name, make in CASES.items():
        found, cost = measured(
            lambda make=make: rejections(
                make, arguments.tests, arguments.permutations, arguments.seed
            )
        )
        rows.append([name, str(found), f"{low:.0f} to {high:.0f}", f"{cost['cpu_s']:.0f}"])
        print(rows[-1], flush=True)
    markdown(["test", f"rejections of {arguments.tests}", "95 % of binomial", "CPU s"], rows)


if __name__ == "__main__":
    main()
