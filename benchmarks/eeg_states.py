"""
Eyes open or closed, from EEG: a pipeline that ends in a linear classifier on mixing coefficients.

The file has eyes_open and eyes_closed, (n_samples, n_channels) each, and fs, the sampling rate in
Hz. Each recording is cut into one block per fold; a fold holds out one block of
each state, with a gap of one second on both sides, and no step of the pipeline sees rows across a
seam. The classifier receives the mixing coefficients, averaged over a window around each row.
Accuracy is the share of held-out rows that are classified correctly; both states have equally many.

The baseline has no modes: the power in the alpha band of each channel, from 8 to 13 Hz, averaged
over the same window, with the same classifier. That band is known to differ between the states.
"""

import argparse

import numpy as np
from processes import markdown, measured
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdyn import DyNeMoEstimator
from skdyn.model_selection import BlockKFold
from skdyn.preprocessing import AmplitudeEnvelope, BandpassFilter, MovingAverage, TimeDelayPCA

WINDOWS = (1.0, 2.0)
N_FOLDS = 5


def load(path):
    """EEG in microvolts, the state of each row, and the sampling rate."""
    with np.load(path) as file:
        states = [file[name].astype(float) for name in ("eyes_open", "eyes_closed")]
        rate = float(file["fs"])
    return np.concatenate(states), np.repeat(["open", "closed"], [len(one) for one in states]), rate


def modes(window, rate, n_modes, seed):
    return make_pipeline(
        TimeDelayPCA(n_embeddings=11, n_components=20),
        StandardScaler(),
        DyNeMoEstimator(n_modes, n_epochs=20, random_state=seed),
        MovingAverage(window, sampling_frequency=rate),
        LogisticRegression(C=100, max_iter=1000),
    )


def alpha_power(window, rate):
    return make_pipeline(
        BandpassFilter(8, 13, sampling_frequency=rate),
        AmplitudeEnvelope(),
        FunctionTransformer(np.square),
        MovingAverage(window, sampling_frequency=rate),
        FunctionTransformer(np.log),
        StandardScaler(),
        LogisticRegression(max_iter=1000),
    )


def accuracies(pipeline, X, y, rate):
    """Accuracy of each fold."""
    folds = BlockKFold(N_FOLDS, n_blocks=2 * N_FOLDS, gap=int(rate))
    # The blocks are sessions of their own to all steps.
    sessions = folds.block_labels(X, sessions=y)
    with config_context(enable_metadata_routing=True):
        return cross_validate(pipeline, X, y, cv=folds, params={"sessions": sessions})["test_score"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--recording", help="the .npz file")
    parser.add_argument("--modes", type=int, nargs="+", default=[4, 6, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    if arguments.recording is None:
        parser.error("which recording? name the file with --recording, or make's RECORDING=")
    X, y, rate = load(arguments.recording)
    rows = []
    for window in WINDOWS:
        candidates = {"power in 8 to 13 Hz": alpha_power(window, rate)}
        for n_modes in arguments.modes:
            for seed in arguments.seeds:
                name = f"{n_modes} modes, seed {seed}"
                candidates[name] = modes(window, rate, n_modes, seed)
        for name, pipeline in candidates.items():
            scores, cost = measured(lambda pipeline=pipeline: accuracies(pipeline, X, y, rate))
            folds = " ".join(f"{score:.2f}" for score in scores)
            seconds = f"{cost['cpu_s']:.0f}"
            rows.append([name, f"{window:g} s", f"{scores.mean():.3f}", folds, seconds])
    markdown(["classified", "window", "accuracy", "folds", "CPU s"], rows)


if __name__ == "__main__":
    main()
