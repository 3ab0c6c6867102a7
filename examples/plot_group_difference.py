"""
Two groups: which modes do patients have less of?
=================================================

Twelve controls and twelve patients, simulated: three modes of eight channels are mixed in each
person's own way, and patients have less of mode 1. One model is fitted to all of them, without
labels. How much of each mode a person has is the mean share of the variance that it explains, since
raw mixing coefficients do not weigh modes by their size. Then labels are shuffled, and the largest
statistic over three measures of three modes gives p values that are corrected for all nine.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from skdyn import DyNeMoEstimator, match_modes
from skdyn.analysis import mode_statistics, permutation_test
from skdyn.plotting import plot_alpha

SAMPLING_FREQUENCY = 100
MEASURES = {
    "normalised_weight": "weight",
    "mean_lifetime": "lifetime",
    "switching_rate": "switching",
}


def simulate(n_people, n_samples, rng):
    """Recordings of controls and patients in turn, their mixing, and their labels."""
    # Modes of random shape and different size.
    covariances = []
    for size in (3.0, 1.0, 0.5):
        axes, _ = np.linalg.qr(rng.standard_normal((8, 8)))
        covariances.append(size * (axes * np.exp(rng.uniform(-1.5, 1.5, 8))) @ axes.T)
    times = np.arange(n_samples) / SAMPLING_FREQUENCY
    recordings, mixing = [], []
    labels = np.array(["control", "patient"] * (n_people // 2))
    for label in labels:
        # Amounts differ from person to person, and that of mode 1 between the groups.
        amount = 0.3 * rng.standard_normal(3)
        amount[1] -= 1.2 * (label == "patient")
        phase = np.outer(times, [0.4, 0.6, 0.9]) + rng.random(3)
        weights = np.exp(3 * np.sin(2 * np.pi * phase) + amount)
        alpha = weights / weights.sum(axis=1, keepdims=True)
        mixed = np.einsum("tj,jcd->tcd", alpha, covariances)
        noise = rng.standard_normal((n_samples, 8))
        recordings.append(np.einsum("tcd,td->tc", np.linalg.cholesky(mixed), noise))
        mixing.append(alpha)
    return recordings, mixing, labels


def draw(alphas, covariances, statistics, test, labels):
    """One figure: mixing of two people, amounts by group, and the test."""
    figure = plt.figure(figsize=(9, 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1)
    plot_alpha(
        *alphas[:2],
        labels=["A control", "A patient"],
        sampling_frequency=SAMPLING_FREQUENCY,
        normalise=covariances,
        fig=above,
    )
    left, right = below.subfigures(1, 2, width_ratios=(2, 1.6))
    statistics.plot(["normalised_weight", "mean_lifetime"], groups=labels, fig=left)
    n_modes = len(covariances)
    names = [f"{measure} {mode}" for measure in MEASURES.values() for mode in range(n_modes)]
    _, (panel,) = test.plot(fig=right, feature_names=names)
    panel.tick_params(axis="x", rotation=90)
    panel.set(xlabel="", ylabel="Patients less controls (t)")
    return figure


def main():
    parser = argparse.ArgumentParser(description="Modes of two groups, and a permutation test.")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="folder to fill")
    parser.add_argument("--quick", action="store_true", help="little data, few epochs")
    arguments = parser.parse_args()

    n_people, n_samples = (12, 300) if arguments.quick else (24, 800)
    recordings, mixing, labels = simulate(n_people, n_samples, np.random.default_rng(0))
    n_epochs = 3 if arguments.quick else 10
    model = DyNeMoEstimator(n_modes=3, n_epochs=n_epochs, random_state=0)
    alphas = model.fit_transform(recordings)

    # The modes of a fit have no order of their own: give them that of the truth.
    truth, found = np.concatenate(mixing), np.concatenate(alphas)
    order = match_modes(truth, found, return_order=True)[1]
    alphas, covariances = [alpha[:, order] for alpha in alphas], model.covariances_[order]

    statistics = mode_statistics(
        alphas, sampling_frequency=SAMPLING_FREQUENCY, covariances=covariances
    )
    # A mode that a person never visits has no lifetime: nought.
    values = np.stack([np.nan_to_num(statistics[name]) for name in MEASURES], axis=1)
    test = permutation_test(values, labels)
    print("measure    mode   effect      t  corrected p")
    for place, p_value in np.ndenumerate(test.p_value):
        measure = list(MEASURES.values())[place[0]]
        effect, statistic = test.effect[place], test.statistic[place]
        print(f"{measure:10} {place[1]:4}  {effect:+.3f}  {statistic:+.2f}  {p_value:11.4f}")

    arguments.figures.mkdir(parents=True, exist_ok=True)
    path = arguments.figures / "group_difference.png"
    figure = draw(alphas, covariances, statistics, test, labels)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
