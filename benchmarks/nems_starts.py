"""
Optima reached by NEMSRegressor for many architectures and draws of data, with both solvers.

Each row is an architecture, with data that its kind of model can describe: filters of some rank,
applied to a gamma or Gaussian stimulus (alternating over draws), linear or rectified, with noise.
R2 is that of the training data (second number: the worst draw), compared with the linear model of
the same lags in the same draw; a fit falls short if it is more than 0.01 below. Settings are the
defaults.
"""

import argparse
import time
import warnings

import numpy as np
from processes import markdown

from skdyn import NEMSRegressor
from skdyn.nems.layers import (
    DoubleExponential,
    FiniteImpulseResponse,
    LevelShift,
    WeightChannels,
)

MARGIN = 0.01


def bounded():
    """Channel weights within bounds that are not symmetric."""
    return [
        WeightChannels((8, 1, 4), bounds={"coefficients": (-0.2, 0.5)}),
        FiniteImpulseResponse((6, 1, 4)),
        DoubleExponential((4,)),
    ]


def _fixed(shape):
    return np.random.default_rng(99).standard_normal(shape)


def frozen_channels():
    """Frozen channel weights."""
    weigh = WeightChannels((8, 3))
    weigh["coefficients"] = _fixed((8, 3))
    weigh.freeze_parameters()
    return [weigh, FiniteImpulseResponse((6, 3)), LevelShift((1,))]


def frozen_filters():
    """Frozen filters."""
    filter_ = FiniteImpulseResponse((6, 3))
    filter_["coefficients"] = _fixed((6, 3))
    filter_.freeze_parameters()
    return [WeightChannels((8, 3)), filter_, LevelShift((1,))]


# Name: layers, channels, lags, outputs, rank of the truth per output, kind, and options: "shared"
# filters for all outputs, "positive" or "gaussian" channel weights, "banks", and "channels" or
# "filters" that are frozen.
ROWS = {
    "strf.8x6": (8, 6, 1, 3, "linear", ""),
    "strf.8x3x6": (8, 6, 1, 3, "linear", ""),
    "strf.8x2x6x3": (8, 6, 3, 2, "linear", ""),
    "strf.8x3x6.relu": (8, 6, 1, 3, "relu", ""),
    "strf.8x3x6.sk50": (8, 6, 1, 2, "linear", ""),
    "strf.8x2x6x3.relu.sk50": (8, 6, 3, 2, "relu", ""),
    "strf.8x3x6-lvl-relu": (8, 6, 1, 3, "relu", ""),
    "strf.8x3x6-dexp": (8, 6, 1, 3, "relu", ""),
    "strf.8x2x6x3-lvl-dexp": (8, 6, 3, 2, "relu", ""),
    "wc.8x3-fir.6x3": (8, 6, 1, 3, "linear", "centred"),
    "wc.8x3.n-fir.6x3-lvl": (8, 6, 1, 3, "linear", ""),
    "wc.8x1x4.p-fir.6x1x4-dexp": (8, 6, 4, 1, "relu", "positive"),
    "wc.8x2.p-fir.6x2-lvl": (8, 6, 1, 2, "linear", "positive"),
    "wc.8x1x4.g-fir.6x1x4-lvl": (8, 6, 4, 1, "linear", "gaussian"),
    "wc.8x2.g-fir.6x2-lvl": (8, 6, 1, 2, "linear", "gaussian"),
    "wc.4x1x2.b-fir.6x1x2-lvl": (8, 6, 2, 1, "linear", "banks"),
    "wc.8x2x4-fir.6x2x4-dexp": (8, 6, 4, 2, "relu", ""),
    "wc.8x3-fir.6x3x4-lvl": (8, 6, 4, 3, "linear", "shared"),
    "wc.8x1x4-fir.6x1x4-wc.4x6-lvl": (8, 6, 6, 4, "linear", "shared"),
    "wc.18x1x8.p-fir.15x1x8-wc.8x10-dexp": (18, 15, 10, 4, "relu", "shared positive"),
    "wc.18x1x8.g-fir.15x1x8-wc.8x10-dexp": (18, 15, 10, 4, "relu", "shared gaussian"),
    "wc.18x12.g-fir.15x1x12-wc.12x10-lvl-dexp": (18, 15, 10, 4, "relu", "shared gaussian"),
    "fir.5x8x8-relu-wc.8x3-lvl": (8, 5, 3, 2, "linear", "shared"),
    "fir.5x8x8-relu.s-wc.8x3-lvl": (8, 5, 3, 2, "relu", ""),
    "wc.8x10-fir.5x1x10-relu-wc.10x4-lvl-dexp": (8, 5, 4, 2, "relu", "shared"),
    "wc.18x10.g-fir.5x1x10-relu-wc.10x12-relu-wc.12x4-lvl-dexp": (
        18,
        5,
        4,
        2,
        "relu",
        "shared gaussian",
    ),
    "wc.18x7-fir.5x1x7-relu-wc.7x8-fir.5x1x8-relu-wc.8x10-relu-wc.10x10-lvl-dexp": (
        18,
        9,
        10,
        2,
        "relu",
        "shared",
    ),
    "fir.5x18x12-relu-wc.12x12-relu-wc.12x10-lvl": (18, 5, 10, 4, "linear", "shared"),
    "fir.5x18x12-relu.s-wc.12x12-relu.s-wc.12x10-lvl": (18, 5, 10, 4, "relu", "shared"),
    "fir.5x8x6-sig-wc.6x3-lvl": (8, 5, 3, 2, "linear", "shared"),
    "fir.5x8x6-tanh-wc.6x3-lvl": (8, 5, 3, 2, "linear", "shared"),
    "fir.5x8x6-srelu-wc.6x3-lvl": (8, 5, 3, 2, "linear", "shared"),
    "fir.5x8x6-prelu-wc.6x3-lvl": (8, 5, 3, 2, "linear", "shared"),
    "fir.5x8-lvl-sig": (8, 5, 1, 3, "sigmoid", ""),
    "wc.8x3-fir.6x3-tanh.osg": (8, 6, 1, 3, "sigmoid", ""),
    "stp.8-wc.8x3-fir.6x3-lvl": (8, 6, 1, 3, "linear", ""),
    "wc.8x4-fir.6x1x4-stp.4-wc.4x2-lvl": (8, 6, 2, 3, "linear", "shared"),
    "conv2d.5x3x4.cat-relu.s-wc.32x3-lvl": (8, 5, 3, 2, "linear", "shared"),
    "wc.8x6-fir.5x1x6-bn-relu-wc.6x3-lvl": (8, 5, 3, 2, "linear", "shared"),
    "bn.8-fir.5x8x8-relu.s-norm.8-wc.8x3-lvl": (8, 5, 3, 2, "relu", ""),
    "wc.8x3-fir.6x1x3-wge.3x9-wc.9x4-lvl": (8, 6, 4, 3, "linear", "shared"),
    "bounded": (8, 6, 4, 1, "relu", ""),
    "frozen_channels": (8, 6, 1, 3, "linear", "channels"),
    "frozen_filters": (8, 6, 1, 3, "linear", "filters"),
}
BUILT = {"bounded": bounded, "frozen_channels": frozen_channels, "frozen_filters": frozen_filters}
WORDS = {"wc.8x3-fir.6x3-tanh.osg": "wc.8x3-fir.6x3-tanh.os.g"}


def draw(name, seed):
    """Stimulus and responses."""
    n_channels, n_lags, n_outputs, rank, kind, options = ROWS[name]
    rng = np.random.default_rng([seed, len(name)])
    n_samples = int(rng.integers(1500, 2501))
    gamma = seed % 2 == 0 and "centred" not in options
    size = (n_samples, n_channels)
    X = rng.gamma(0.5, size=size) if gamma else rng.standard_normal(size)
    n_filters = rank if "shared" in options else rank * n_outputs
    # Filters that rise and fall, so that lags have different weights.
    lags = np.arange(n_lags)[:, np.newaxis]
    peak, width = rng.uniform(0, n_lags / 2, n_filters), rng.uniform(0.7, 2, n_filters)
    filters = np.exp(-np.abs(lags - peak) / width) * rng.standard_normal((n_lags, n_filters))
    channels = rng.standard_normal((n_channels, n_filters))
    if "positive" in options:
        channels = np.maximum(channels, 0) + 0.05
    if "gaussian" in options:
        places = np.arange(n_channels)[:, np.newaxis] / n_channels
        means, sds = rng.uniform(0.1, 0.9, n_filters), rng.uniform(0.1, 0.25, n_filters)
        channels = np.exp(-(((places - means) / sds) ** 2) / 2)
    if "banks" in options:
        channels *= np.arange(n_channels)[:, np.newaxis] % n_outputs == np.arange(n_outputs)
    if "channels" in options:
        channels = _fixed((8, 3))
    if "filters" in options:
        filters = _fixed((6, 3))
    weighed = X @ channels
    made = np.zeros((n_samples, n_filters))
    for lag, weights in enumerate(filters):
        made[lag:] += weighed[: n_samples - lag] * weights
    made = made / made.std(axis=0)
    if "shared" in options:
        drive = made @ rng.standard_normal((rank, n_outputs))
    else:
        drive = made.reshape(n_samples, n_outputs, rank).sum(axis=2)
    drive = drive / drive.std(axis=0)
    y = {
        "linear": lambda z: z,
        "relu": lambda z: np.maximum(z - z.mean(axis=0), 0),
        "sigmoid": lambda z: 1 / (1 + np.exp(-2 * (z - z.mean(axis=0)))),
    }[kind](drive)
    if "sk50" in name:
        y = y + 0.5 * X[:, :n_outputs]
    y = y + 0.1 * y.std(axis=0) * rng.standard_normal(y.shape)
    return X, y if n_outputs > 1 else y[:, 0]


def lagged(X, n_lags):
    """Stimulus at all lags, and ones."""
    columns = [np.pad(X, ((lag, 0), (0, 0)))[: len(X)] for lag in range(n_lags)]
    return np.concatenate([*columns, np.ones((len(X), 1))], axis=1)


def linear_r2(X, y, n_lags):
    """R2 of the linear model, with a level."""
    design, y = lagged(X, n_lags), y.reshape(len(y), -1)
    left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return float(np.mean(1 - left.var(axis=0) / y.var(axis=0)))


def layers_of(name):
    """Layers that are passed to an estimator."""
    return BUILT[name]() if name in BUILT else WORDS.get(name, name)


def one(name, solver, n_draws):
    """Fit all draws: gaps to the linear model, R2, references, iterations, CPU seconds."""
    rows = []
    for seed in range(n_draws):
        X, y = draw(name, seed)
        model = NEMSRegressor(layers_of(name), solver=solver, random_state=seed)
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(X, y)
        rows.append(
            (
                model.score(X, y),
                linear_r2(X, y, ROWS[name][1]),
                model.n_iter_,
                time.process_time() - start,
            )
        )
    return np.array(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--solvers", nargs="+", default=["lbfgs", "adam"])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--only", nargs="+", default=list(ROWS))
    arguments = parser.parse_args()
    table = []
    for name in arguments.only:
        row = [name]
        for solver in arguments.solvers:
            found = one(name, solver, arguments.draws)
            worst = np.argmin(found[:, 0] - found[:, 1])
            short = int(np.sum(found[:, 0] < found[:, 1] - MARGIN))
            row += [
                f"{found[worst, 0]:.3f} / {found[worst, 1]:.3f}",
                f"{short} of {len(found)}",
                f"{np.median(found[:, 2]):.0f}",
                f"{np.median(found[:, 3]):.2f}",
            ]
        print(*row, sep=" | ", flush=True)
        table.append(row)
    heads = ["layers"]
    for solver in arguments.solvers:
        heads += [f"{solver}: worst R2 / linear", "short", "iterations", "CPU s"]
    markdown(heads, table)


if __name__ == "__main__":
    main()
