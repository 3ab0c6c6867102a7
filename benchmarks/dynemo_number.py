"""
The number of modes that the held-out bound picks, on simulations whose number is known.

Ten recordings of 12,000 rows of 12 channels: chains of states that are held for 50 to 200 rows, and
soft mixtures, of 2 to 6 modes each. The covariances of odd ones are random; those of even ones
differ little (log eigenvalues of their ratios to a common covariance within .7 for chains, 1 for
mixtures). `compare_models` compares default fits of one mode, of the true number, of one less and
of one and two more in three blocks. Reported are the number with the highest bound, and that of
`simplest`: the fewest modes that are not significantly worse than the best at .05.

Each recording is a separate process on one thread and prints a line of JSON to the output file. An
interrupted run resumes from that file: name a new file after a change of skdyn.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from dynemo_hard import near_covariances, standardised
from processes import ask_all, markdown, measured

from skdyn import DyNeMoEstimator
from skdyn.model_selection import BlockKFold, compare_models
from skdyn.simulation import MixedSineMVN

N_ROWS, N_CHANNELS = 12_000, 12
CASES = {
    f"{kind}-{distance}-{n_modes}": (kind, distance, n_modes)
    for kind in ("chain", "mixture")
    for n_modes, distance in zip(range(2, 7), ("far", "near", "far", "near", "far"), strict=True)
}


def recording(kind, distance, n_modes):
    """Draw the rows of a recording."""
    rng = np.random.RandomState(n_modes)
    epsilon = {"far": 2.0, "near": 0.7 if kind == "chain" else 1.0}[distance]
    covariances = near_covariances(n_modes, N_CHANNELS, rng, epsilon)
    if kind == "mixture":
        simulation = MixedSineMVN(
            n_samples=N_ROWS,
            n_modes=n_modes,
            n_channels=N_CHANNELS,
            relative_activation=np.zeros(n_modes),
            amplitudes=np.full(n_modes, 6.0),
            frequencies=rng.uniform(0.25, 2, n_modes),
            sampling_frequency=250,
            covariances=covariances,
            random_state=n_modes,
        )
        return standardised(simulation.time_series)
    states, state = [], 0
    while len(states) < N_ROWS:
        states += [state] * rng.randint(50, 201)
        state = (state + rng.randint(1, n_modes)) % n_modes
    roots = np.linalg.cholesky(covariances)[states[:N_ROWS]]
    return standardised(np.einsum("tij,tj->ti", roots, rng.standard_normal((N_ROWS, N_CHANNELS))))


def one(case):
    """Compare numbers of modes on one recording."""
    kind, distance, true = CASES[case]
    X = recording(kind, distance, true)
    numbers = sorted({1, true - 1, true, true + 1, true + 2})
    models = {number: DyNeMoEstimator(number, random_state=0) for number in numbers}
    found, cost = measured(lambda: compare_models(models, X, cv=BlockKFold(3)))
    return {
        "case": case,
        "true": true,
        "numbers": numbers,
        "scores": [round(float(score), 4) for score in found.mean_score],
        "best": found.best_name,
        "simplest": found.simplest(),
        "cpu_s": cost["cpu_s"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--output", type=Path, default=Path("dynemo_number.jsonl"))
    parser.add_argument("--jobs", type=int, default=1, help="recordings at a time")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(one(**arguments.one)))
        return
    lines = arguments.output.read_text().splitlines() if arguments.output.exists() else []
    answers = {answer["case"]: answer for answer in map(json.loads, lines)}
    requests = [{"case": case} for case in arguments.cases if case not in answers]
    for answer in ask_all(__file__, requests, arguments.jobs):
        answers[answer["case"]] = answer
        with arguments.output.open("a") as file:
            print(json.dumps(answer), file=file)
    rows = [
        [
            case,
            answers[case]["true"],
            answers[case]["best"],
            answers[case]["simplest"],
            ", ".join(
                f"{number}: {score:.3f}"
                for number, score in zip(
                    answers[case]["numbers"], answers[case]["scores"], strict=True
                )
            ),
            f"{answers[case]['cpu_s']:.0f}",
        ]
        for case in arguments.cases
        if case in answers
    ]
    markdown(["recording", "modes", "highest bound", "simplest", "bounds", "CPU s"], rows)


if __name__ == "__main__":
    main()
