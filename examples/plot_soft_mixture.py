"""
Soft mixtures: how much of each mode, at each moment
====================================================

Six modes are mixed by sinusoids, so that at every moment several are active at once. A model that
switches between states cannot describe that; DyNeMo infers how much of each mode there is. Here
the truth is known, and what was inferred is drawn beside it. All six modes are found, also the
weakest, mode 5, of which there is 0.05 on average and never more than 0.51.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

from skdyn import DyNeMoEstimator, match_modes
from skdyn.metrics import alpha_correlation, riemannian_distance
from skdyn.plotting import (
    TrainingDisplay,
    plot_alpha,
    plot_matrices,
    plot_separate_time_series,
)
from skdyn.simulation import MixedSineMVN

SAMPLING_FREQUENCY = 250
LABELS = ["True", "Inferred"]


def simulate(n_samples):
    """Six modes of 20 channels; the later ones weaker and faster."""
    return MixedSineMVN(
        n_samples=n_samples,
        n_modes=6,
        n_channels=20,
        relative_activation=[1, 0.5, 0.5, 0.25, 0.25, 0.1],
        amplitudes=[6, 5, 4, 3, 2, 1],
        frequencies=[1, 2, 3, 4, 6, 8],
        sampling_frequency=SAMPLING_FREQUENCY,
        means="zero",
        covariances="random",
        random_state=0,
    ).standardize()


def print_table(simulation, alpha, covariances):
    """Compare the modes one by one."""
    correlations = alpha_correlation(simulation.mode_time_course, alpha)
    print("mode  weight: true  inferred  correlation  distance of covariances")
    for mode, correlation in enumerate(correlations):
        true, inferred = simulation.mode_time_course[:, mode].mean(), alpha[:, mode].mean()
        distance = riemannian_distance(simulation.covariances[mode], covariances[mode])
        print(f"{mode:4}  {true:12.2f}  {inferred:8.2f}  {correlation:11.2f}  {distance:23.2f}")


def draw(simulation, model, alpha, covariances):
    """Yield the pictures by name."""
    true = simulation.mode_time_course
    section = {"n_samples": 2000, "sampling_frequency": SAMPLING_FREQUENCY}
    yield "alpha", plot_alpha(true, alpha, labels=LABELS, **section)[0]
    names = [f"Mode {mode}" for mode in range(model.n_modes)]
    fig, _ = plot_separate_time_series(true, alpha, labels=LABELS, channel_names=names, **section)
    yield "time_courses", fig
    fig, _ = plot_matrices(
        [*simulation.covariances, *covariances],
        titles=[f"{label}, mode {mode}" for label in LABELS for mode in range(model.n_modes)],
        n_columns=model.n_modes,
        colorbar_label="Covariance",
    )
    yield "covariances", fig
    yield "training", TrainingDisplay.from_estimator(model).figure_


def main():
    parser = argparse.ArgumentParser(description="DyNeMo on a soft mixture with known truth.")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="folder to fill")
    parser.add_argument("--quick", action="store_true", help="little data, few epochs")
    arguments = parser.parse_args()

    simulation = simulate(n_samples=3000 if arguments.quick else 25600)
    effort = {"n_epochs": 4} if arguments.quick else {}
    model = DyNeMoEstimator(n_modes=6, random_state=0, verbose=1, **effort)
    alpha = model.fit_transform(simulation.time_series)
    print(model.summary())

    # The modes of a fit have no order of their own: give them that of the truth.
    _, order = match_modes(simulation.mode_time_course, alpha, return_order=True)
    alpha, covariances = alpha[:, order], model.covariances_[order]
    print_table(simulation, alpha, covariances)

    arguments.figures.mkdir(parents=True, exist_ok=True)
    for name, figure in draw(simulation, model, alpha, covariances):
        path = arguments.figures / f"soft_mixture_{name}.png"
        figure.savefig(path, dpi=150, bbox_inches="tight")
        plt.close(figure)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
