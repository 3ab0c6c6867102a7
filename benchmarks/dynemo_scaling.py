"""
Time per epoch and memory of DyNeMoEstimator.fit as functions of the number of rows.

Measured, each in a separate process on one thread: the CPU seconds of an epoch, as the difference
of a longer and a shorter fit, which cancels imports and initialisation; the peak memory of the
longer one, relative to the run with the fewest rows and to the size of the data; and the CPU
seconds of the initialisation, as the difference of one epoch from "moments" and from "random".
Every fit is repeated and the smallest value counts. The script also draws the figures.
"""

import argparse
import json
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from dynemo_recovery import mixture
from processes import ask, markdown, measured
from sklearn.base import clone

from skdyn import DyNeMoEstimator

FACTORS = (1, 4, 16)


def draw_data(path, n_rows, n_modes, n_channels):
    """Write a recording; in a separate process, so that a fit does not include its memory."""
    np.save(path, mixture(n_modes, n_channels, seed=2, n_rows=n_rows)[0])
    return {}


def fit(path, n_modes, n_epochs, init_method):
    """Fit once and return the cost."""
    X = np.load(path)
    model = DyNeMoEstimator(
        n_modes=n_modes,
        n_epochs=n_epochs,
        init_method=init_method,
        batch_size=16,
        n_iter_no_change=None,
        random_state=0,
    )
    # Exclude the parts of torch that are loaded on first use.
    clone(model).set_params(n_epochs=1).fit(X[:400])
    _, cost = measured(lambda: model.fit(X))
    return cost


def measure(n_rows, arguments, folder):
    """Everything about one number of rows."""
    path = str(Path(folder) / f"{n_rows}.npy")
    size = {"n_rows": n_rows, "n_modes": arguments.modes, "n_channels": arguments.channels}
    ask(__file__, path=path, **size)

    def least(n_epochs, init_method):
        request = {"path": path, "n_modes": arguments.modes}
        request |= {"n_epochs": n_epochs, "init_method": init_method}
        costs = [ask(__file__, **request) for _ in range(arguments.repeats)]
        return {name: min(cost[name] for cost in costs) for name in ("cpu_s", "peak_mb")}

    few, many = sorted(arguments.epochs)
    short, long = least(few, "random"), least(many, "random")
    start = least(1, "moments")["cpu_s"] - least(1, "random")["cpu_s"]
    return {
        "n_rows": n_rows,
        "data_mb": n_rows * arguments.channels * 8 / 2**20,
        "epoch_s": (long["cpu_s"] - short["cpu_s"]) / (many - few),
        "peak_mb": long["peak_mb"],
        "start_s": start,
    }


def print_table(rows):
    heads = [
        "rows",
        "data MB",
        "CPU s per epoch",
        "times the least rows",
        "start, CPU s",
        "peak MB",
    ]
    heads += ["more than with the least rows, MB", "more data, MB"]
    first = rows[0]
    markdown(
        heads,
        [
            [
                row["n_rows"],
                f"{row['data_mb']:.1f}",
                f"{row['epoch_s']:.3f}",
                f"{row['epoch_s'] / first['epoch_s']:.2f}",
                f"{row['start_s']:.2f}",
                f"{row['peak_mb']:.0f}",
                f"{row['peak_mb'] - first['peak_mb']:.1f}",
                f"{row['data_mb'] - first['data_mb']:.1f}",
            ]
            for row in rows
        ],
    )


def plot(rows, path):
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.5), layout="constrained")
    n_rows, seconds = (np.array([row[name] for row in rows]) for name in ("n_rows", "epoch_s"))
    left.loglog(n_rows, seconds, "o-", label="measured")
    left.loglog(n_rows, seconds[0] * n_rows / n_rows[0], "k--", linewidth=1, label="slope one")
    left.set(xlabel="Rows", ylabel="CPU seconds per epoch")
    left.legend(frameon=False)
    left.set_xticks(n_rows, [f"{count}" for count in n_rows])
    left.minorticks_off()
    data, peak = (np.array([row[name] for row in rows]) for name in ("data_mb", "peak_mb"))
    right.plot(data, peak, "o-", label="measured")
    right.plot(
        data, peak[0] + data - data[0], "k--", linewidth=1, label="growing by the data alone"
    )
    right.set(xlabel="Data (MB)", ylabel="Peak memory of the process (MB)")
    right.set_ylim(0, 1.2 * peak.max())
    right.legend(frameon=False, loc="lower right")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--base", type=int, default=6400, help="the least rows; then x4 and x16")
    parser.add_argument("--modes", type=int, default=6)
    parser.add_argument("--channels", type=int, default=20)
    parser.add_argument("--epochs", type=int, nargs=2, default=[2, 4], help="of the two fits")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--figure", type=Path, default=Path(__file__).with_suffix(".png"))
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        answer = draw_data if "n_rows" in arguments.one else fit
        print(json.dumps(answer(**arguments.one)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(arguments.base * factor, arguments, folder) for factor in FACTORS]
    print_table(rows)
    plot(rows, arguments.figure)
    print(f"wrote {arguments.figure}")


if __name__ == "__main__":
    main()
