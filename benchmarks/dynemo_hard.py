"""
Recovery by DyNeMoEstimator of modes that are hard to find, over draws of the simulation.

Default settings, one fit per draw. Measured: the mean and the lowest correlation of matched mixing
coefficients with the true ones; for chains of states the share of rows whose largest matched
coefficient is that of the true state (Dice), compared with a hidden Markov model fitted by
expectation maximisation (the best of eight starts by likelihood); the evidence lower bounds of the
fit and of its starts, in nats per row; warnings of the fit; CPU seconds of fit and transform.

Each fit runs in a separate process on one thread, and appends a line of JSON to the output file. An
interrupted run resumes from that file: name a new file after a change of skdyn.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from dynemo_recovery import read, source
from processes import ask_all, markdown, measured

from skdyn import DyNeMoEstimator, match_modes
from skdyn.core.hmm import fit_hmm
from skdyn.metrics import alpha_correlation, dice_coefficient
from skdyn.simulation import MixedSineMVN

N_ROWS = 25600


def near_covariances(n_modes, n_channels, rng, epsilon):
    """Covariances whose ratios to a common one have log eigenvalues within epsilon of zero."""
    factor = rng.normal(size=(n_channels, n_channels)) / np.sqrt(n_channels)
    root = np.linalg.cholesky(factor @ factor.T + 0.2 * np.eye(n_channels))
    found = []
    for _ in range(n_modes):
        drawn = rng.normal(size=(n_channels, n_channels))
        values, vectors = np.linalg.eigh((drawn + drawn.T) / 2)
        own = (vectors * np.exp(epsilon * values / np.abs(values).max())) @ vectors.T
        found.append(root @ own @ root.T)
    return np.array(found)


def standardised(X):
    return (X - X.mean(axis=0)) / X.std(axis=0)


def near_states(draw, epsilon):
    """A chain of eight states of 30 channels, each of 50 to 200 rows at a time."""
    rng = np.random.RandomState(draw)
    roots = np.linalg.cholesky(near_covariances(8, 30, rng, epsilon))
    states, state = [], rng.randint(8)
    while len(states) < N_ROWS:
        states += [state] * rng.randint(50, 201)
        state = (state + rng.randint(1, 8)) % 8
    states = np.array(states[:N_ROWS])
    X = rng.standard_normal((N_ROWS, 30))
    for number, root in enumerate(roots):
        X[states == number] @= root.T
    return standardised(X), np.eye(8)[states]


def mixture(draw, offsets, amplitudes, frequencies, n_channels, covariances="random"):
    """Rows of a soft mixture, and its mixing coefficients."""
    simulation = MixedSineMVN(
        n_samples=N_ROWS,
        n_modes=len(offsets),
        n_channels=n_channels,
        relative_activation=offsets,
        amplitudes=amplitudes,
        frequencies=frequencies,
        sampling_frequency=250,
        covariances=covariances,
        random_state=draw,
    )
    return standardised(simulation.time_series), simulation.mode_time_course


def drawn(draw, n_modes, low, high):
    return np.random.RandomState(draw).uniform(low, high, n_modes)


def near_modes(draw, epsilon):
    """A soft mixture of six modes of 20 channels that differ little."""
    covariances = near_covariances(6, 20, np.random.RandomState(draw), epsilon)
    frequencies = drawn(draw, 6, 0.25, 2)
    return mixture(draw, np.zeros(6), np.full(6, 6.0), frequencies, 20, covariances)


def uneven(draw):
    """A mixture of six modes of 20 channels, some seldom and weak."""
    return mixture(
        draw, [1, 0.5, 0.5, 0.25, 0.25, 0.1], [6, 2, 4, 5, 3, 1], drawn(draw, 6, 1, 8), 20
    )


def graded(draw):
    """A mixture of eight modes of 40 channels, evenly from frequent and slow to rare and fast."""
    return mixture(draw, np.linspace(1, 0.2, 8), np.linspace(6, 2, 8), np.linspace(1, 8, 8), 40)


def twelve(draw):
    """A mixture of twelve modes of 24 channels with weights of about .04 to .13."""
    offsets = np.log(np.linspace(0.04, 0.13, 12))
    return mixture(draw, offsets, np.full(12, 6.0), drawn(draw, 12, 0.25, 2), 24)


CASES = {
    "states-1.0": lambda draw: near_states(draw, 1.0),
    "states-0.7": lambda draw: near_states(draw, 0.7),
    "states-0.5": lambda draw: near_states(draw, 0.5),
    "states-0.3": lambda draw: near_states(draw, 0.3),
    "modes-1.0": lambda draw: near_modes(draw, 1.0),
    "modes-0.5": lambda draw: near_modes(draw, 0.5),
    "uneven-6x20": uneven,
    "graded-8x40": graded,
    "rare-12x24": twelve,
}


def dice_of_em(X, truth):
    """Dice coefficient of the states of a hidden Markov model, the best of eight random starts."""
    fitted = fit_hmm([X], truth.shape[1], random_state=np.random.RandomState(0), n_iter=100)
    return dice_coefficient(*match_modes(truth, fitted.posteriors[0]))


def fit(case, draw, parameters=None):
    """Fit one draw and return its result."""
    X, truth = CASES[case](draw)
    model = DyNeMoEstimator(n_modes=truth.shape[1], random_state=0, **(parameters or {}))
    digest = source()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, cost = measured(lambda: model.fit(X))
    found, inferring = measured(lambda: model.transform(X))
    alpha = match_modes(truth, found)[1]
    bound = model.evidence(X)
    return {
        "case": case,
        "draw": draw,
        "parameters": parameters or {},
        "source": digest,
        "correlations": np.nan_to_num(alpha_correlation(truth, alpha)).tolist(),
        "dice": dice_coefficient(truth, alpha) if case.startswith("states") else None,
        "dice_of_em": dice_of_em(X, truth) if case.startswith("states") else None,
        "starts": model.starts_,
        "bound": bound.score,
        "standard_error": bound.standard_error,
        "problem": model.problem_,
        "transform_s": inferring["cpu_s"],
        **cost,
    }


def summary(rows):
    """One line of the table: all draws of one case."""
    means = [np.mean(row["correlations"]) for row in rows]
    dice = [row["dice"] for row in rows if row["dice"] is not None]
    em = [row["dice_of_em"] for row in rows if row["dice_of_em"] is not None]
    starts = [next(iter(row["starts"])) for row in rows]
    return [
        rows[0]["case"],
        len(rows),
        f"{np.median(means):.3f} ({min(means):.3f})",
        f"{min(min(row['correlations']) for row in rows):.3f}",
        f"{np.median(dice):.3f} ({min(dice):.3f})" if dice else "",
        f"{np.median(em):.3f} ({min(em):.3f})" if em else "",
        ", ".join(f"{starts.count(name)} {name}" for name in sorted(set(starts))),
        sum(bool(row["problem"]) for row in rows),
        f"{np.median([row['cpu_s'] for row in rows]):.0f}",
        f"{np.median([row['transform_s'] for row in rows]):.1f}",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--draws", type=int, nargs="+", default=range(1, 11))
    parser.add_argument("--parameters", type=json.loads, default={}, help="JSON, for the estimator")
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--output", type=Path, default=Path("build/dynemo_hard.jsonl"))
    parser.add_argument("--table", action="store_true", help="fit nothing, print the table")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(fit(**arguments.one)))
        return
    parameters = arguments.parameters
    done = {(row["case"], row["draw"]) for row in read(arguments.output, parameters)}
    wanted = [(case, draw) for draw in arguments.draws for case in arguments.cases]
    requests = [
        {"case": case, "draw": draw, "parameters": parameters}
        for case, draw in wanted
        if (case, draw) not in done
    ]
    if not arguments.table:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        for row in ask_all(__file__, requests, arguments.jobs):
            with arguments.output.open("a") as file:
                file.write(json.dumps(row) + "\n")
            dice = "" if row["dice"] is None else f", Dice {row['dice']:.3f}"
            print(
                f"{row['case']}, draw {row['draw']}: mean correlation "
                f"{np.mean(row['correlations']):.3f}, lowest {min(row['correlations']):.3f}{dice}, "
                f"{row['cpu_s']:.0f} s. {row['problem']}",
                flush=True,
            )
    rows = [
        row for row in read(arguments.output, parameters) if (row["case"], row["draw"]) in wanted
    ]
    heads = ["case", "draws", "mean correlation (lowest)", "lowest mode", "Dice (lowest)", "of EM"]
    heads += ["start", "warned", "fit, CPU s", "transform, CPU s"]
    cases = [[row for row in rows if row["case"] == case] for case in CASES]
    markdown(heads, [summary(case) for case in cases if case])
    if len(sources := {row["source"] for row in rows}) > 1:
        print(f"\nCaution: these fits are of {len(sources)} different states of skdyn's source.")


if __name__ == "__main__":
    main()
