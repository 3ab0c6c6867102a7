"""
Recovery of known modes by DyNeMoEstimator, over simulations and seeds.

Measured, for each simulation and each seed, with default settings: the correlation of every matched
mixing coefficient with the true one, for hidden Markov simulations the share of rows whose largest
matched coefficient is that of the true state (Dice), the free energy, and the CPU seconds and peak
memory of the fit, which runs in a separate process on one thread.

The free energy is reported twice, in nats per row: as the negative of `DyNeMoEstimator.score`, a
bound from draws of theta, and with theta at its posterior mean, from non-overlapping windows of the
length used in training ("windows"), as in the reference implementation.

Each fit appends a line of JSON to the output file when it is done. An interrupted run resumes:
fits in the file are not repeated, so name a new file after a change of skdyn.
"""

import argparse
import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
from processes import ask_all, markdown, measured
from sklearn.exceptions import ConvergenceWarning

import skdyn
from skdyn import DyNeMoEstimator, match_modes
from skdyn.metrics import alpha_correlation, dice_coefficient
from skdyn.simulation import MixedSineMVN

N_ROWS = 25600


def mixture(n_modes, n_channels, seed, means="zero", n_rows=N_ROWS):
    """Rows of a soft mixture, and its mixing coefficients."""
    rng = np.random.RandomState(seed)
    simulation = MixedSineMVN(
        n_samples=n_rows,
        n_modes=n_modes,
        n_channels=n_channels,
        relative_activation=np.zeros(n_modes),
        amplitudes=np.full(n_modes, 6),
        frequencies=rng.uniform(0.25, 2, n_modes),
        sampling_frequency=250,
        means=means,
        random_state=seed,
    ).standardize()
    return simulation.time_series, simulation.mode_time_course


def markov(n_modes, n_channels, seed, stay):
    """Rows of a hidden Markov chain that stays or goes to any other state, and its states."""
    rng = np.random.RandomState(seed)
    flat = np.zeros(n_modes)
    drawn = MixedSineMVN(1, n_modes, n_channels, flat, flat, flat, 250, random_state=seed)
    steps = np.where(rng.uniform(size=N_ROWS) < stay, 0, rng.randint(1, n_modes, size=N_ROWS))
    steps[0] = rng.randint(n_modes)
    states = np.cumsum(steps) % n_modes
    X = rng.standard_normal((N_ROWS, n_channels))
    for state, factor in enumerate(np.linalg.cholesky(drawn.covariances)):
        X[states == state] @= factor.T
    return (X - X.mean(axis=0)) / X.std(axis=0), np.eye(n_modes)[states]


CASES = {
    "tutorial": None,  # the recording that is given
    "mixture-4x11": lambda: mixture(4, 11, 0),
    "mixture-5x80": lambda: mixture(5, 80, 1),
    "mixture-6x20": lambda: mixture(6, 20, 2),
    "mixture-8x40": lambda: mixture(8, 40, 3),
    "mixture-12x60": lambda: mixture(12, 60, 4),
    "markov-0.90": lambda: markov(5, 20, 6, stay=0.9),
    "markov-0.95": lambda: markov(5, 20, 7, stay=0.95),
    "means-5x20": lambda: mixture(5, 20, 5, means="random"),
}


def load(case, recording=None):
    """Rows of data, and the mixing coefficients that they were drawn with."""
    if case != "tutorial":
        return CASES[case]()
    arrays = np.load(recording)
    return arrays["time_series"], arrays["mode_time_course"]


def source():
    """Digest of the sources of skdyn, which identifies the version of a result."""
    digest = hashlib.sha256()
    for path in sorted(Path(skdyn.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def windows_free_energy(model, X):
    """Free energy at the mean from non-overlapping windows, each inferred separately."""
    length = model.sequence_length
    windows = [X[i : i + length] for i in range(0, len(X), length)]
    return model.free_energy(windows, at="mean")


def fit(case, seed, parameters=None, recording=None):
    """Fit one seed and return its result."""
    X, truth = load(case, recording)
    settings = {"learn_means": True} if case.startswith("means") else {}
    settings |= parameters or {}
    model = DyNeMoEstimator(n_modes=truth.shape[1], random_state=seed, **settings)
    digest = source()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, cost = measured(lambda: model.fit(X))
    alpha = match_modes(truth, model.transform(X))[1]
    # A constant coefficient has no correlation.
    correlations = np.nan_to_num(alpha_correlation(truth, alpha))
    return {
        "case": case,
        "seed": seed,
        "parameters": parameters or {},
        "source": digest,
        "n_modes": truth.shape[1],
        "n_channels": X.shape[1],
        "epochs": model.n_iter_,
        "correlations": correlations.tolist(),
        "dice": dice_coefficient(truth, alpha) if case.startswith("markov") else None,
        "free_energy": model.free_energy(X),
        "windows": windows_free_energy(model, X),
        **cost,
    }


def passes(row):
    """Whether one fit is good enough."""
    correlations = row["correlations"]
    if row["dice"] is not None:
        return row["dice"] >= 0.98
    if row["case"] == "tutorial":
        return np.mean(correlations) >= 0.985 and min(correlations) >= 0.94
    return np.mean(correlations) >= 0.95


def read(path, parameters):
    """The fits in a file that were made with these parameters."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for row in map(json.loads, lines) if row["parameters"] == parameters]


def summary(rows):
    """One line of the table: all seeds of one case."""
    means = [np.mean(row["correlations"]) for row in rows]
    dice = [row["dice"] for row in rows if row["dice"] is not None]
    # The worst free energy, because a median over seeds with and without the modes means little.
    return [
        rows[0]["case"],
        rows[0]["n_modes"],
        rows[0]["n_channels"],
        len(rows),
        f"{np.mean(means):.3f}",
        f"{min(means):.3f}",
        f"{min(min(row['correlations']) for row in rows):.3f}",
        f"{np.mean(dice):.3f} ({min(dice):.3f})" if dice else "",
        f"{sum(map(passes, rows))} of {len(rows)}",
        f"{max(row['free_energy'] for row in rows):.3f}",
        f"{max(row['windows'] for row in rows):.3f}",
        f"{np.median([row['cpu_s'] for row in rows]):.0f}",
        f"{max(row['peak_mb'] for row in rows):.0f}",
    ]


def print_table(rows):
    heads = ["case", "modes", "channels", "seeds", "mean correlation", "lowest seed", "lowest mode"]
    heads += ["Dice (lowest)", "pass", "highest free energy", "windows", "median CPU s", "peak MB"]
    cases = [[row for row in rows if row["case"] == case] for case in CASES]
    markdown(heads, [summary(case) for case in cases if case])
    if len(sources := {row["source"] for row in rows}) > 1:
        print(f"\nCaution: these fits are of {len(sources)} different states of skdyn's source.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--recording", help=".npz with time_series and mode_time_course: tutorial")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(10))
    parser.add_argument("--parameters", type=json.loads, default={}, help="JSON, for the estimator")
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--output", type=Path, default=Path("build/dynemo_recovery.jsonl"))
    parser.add_argument("--table", action="store_true", help="fit nothing, print the table")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(fit(**arguments.one)))
        return
    parameters, recording = arguments.parameters, arguments.recording
    rows = read(arguments.output, parameters)
    done = {(row["case"], row["seed"]) for row in rows}
    wanted = [(case, seed) for seed in arguments.seeds for case in arguments.cases]
    requests = [
        {"case": case, "seed": seed, "parameters": parameters, "recording": recording}
        for case, seed in wanted
        if (case, seed) not in done and (case != "tutorial" or recording)
    ]
    if not arguments.table:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        for row in ask_all(__file__, requests, arguments.jobs):
            with arguments.output.open("a") as file:
                file.write(json.dumps(row) + "\n")
            correlation = f"mean correlation {np.mean(row['correlations']):.3f}"
            print(
                f"{row['case']}, seed {row['seed']}: {correlation}, {row['cpu_s']:.0f} s",
                flush=True,
            )
    rows = read(arguments.output, parameters)
    print_table([row for row in rows if (row["case"], row["seed"]) in wanted])


if __name__ == "__main__":
    main()
