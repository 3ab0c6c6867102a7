"""
Resting-state fMRI: seven subjects, one set of modes
====================================================

Seven subjects of the Human Connectome Project at rest, 14 minutes each. One model is fitted to all
of them at once: the modes are shared, how they are mixed from moment to moment is each subject's
own. No history crosses from one subject to the next.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.covariance import EmpiricalCovariance
from sklearn.pipeline import make_pipeline

from skdyn import DyNeMoEstimator
from skdyn.analysis import normalised_alpha
from skdyn.datasets import load_hcp_rest
from skdyn.plotting import TrainingDisplay, mode_palette, plot_alpha, plot_matrices
from skdyn.preprocessing import SessionPCA, SessionScaler


def covariances_of_regions(covariances, pca):
    """Bring the modes' covariances from the components back to the regions."""
    # What undoes the whitening, too.
    mixing = pca.components_ * np.sqrt(pca.explained_variance_)[:, None]
    return mixing.T @ covariances @ mixing


def correlations_of(covariances):
    """Correlations of the regions in each mode."""
    deviations = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    return covariances / (deviations[:, :, None] * deviations[:, None, :])


def draw_subjects(alphas, covariances, subjects):
    """Draw how the variance of each subject is shared by the modes, on average, as one bar."""
    fig, ax = plt.subplots(figsize=(7.5, 3), layout="constrained")
    means = np.array([one.mean(axis=0) for one in normalised_alpha(alphas, covariances)])
    starts = np.cumsum(means, axis=1) - means
    for mode, color in enumerate(mode_palette(means.shape[1])):
        ax.barh(subjects, means[:, mode], left=starts[:, mode], color=color, label=f"{mode}")
    ax.set(xlim=(0, 1), xlabel="Mean share of the variance", ylabel="Subject")
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(title="Mode", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return fig


def draw(model, alphas, rest, pca):
    """Yield the pictures by name."""
    # The mode that there is most of comes first.
    order = np.argsort(np.concatenate(alphas).mean(axis=0))[::-1]
    alphas = [alpha[:, order] for alpha in alphas]
    titles = [f"Subject {subject}" for subject in rest.subjects]
    fig, _ = plot_alpha(*alphas[:2], labels=titles[:2], sampling_frequency=rest.sampling_frequency)
    yield "alpha", fig
    covariances = covariances_of_regions(model.covariances_[order], pca)
    yield "subjects", draw_subjects(alphas, covariances, rest.subjects)
    # Regions of the left hemisphere, then those of the right: they alternate in the atlas.
    sides = np.argsort([name.endswith("_R") for name in rest.feature_names], kind="stable")
    correlations = correlations_of(covariances)
    fig, _ = plot_matrices(
        correlations[:, sides][:, :, sides],
        titles=[f"Mode {mode}" for mode in range(model.n_modes)],
        colorbar_label="Correlation",
        xlabel="Region, left then right",
        ylabel="Region, left then right",
    )
    yield "modes", fig
    yield "training", TrainingDisplay.from_estimator(model).figure_


def main():
    parser = argparse.ArgumentParser(description="DyNeMo on resting-state fMRI.")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="folder to fill")
    parser.add_argument("--quick", action="store_true", help="two subjects, few epochs")
    arguments = parser.parse_args()
    try:
        rest = load_hcp_rest()
    except ImportError as error:
        raise SystemExit(f"{error}") from None
    if arguments.quick:
        rest = load_hcp_rest(subjects=rest.subjects[:2])

    preparation = make_pipeline(SessionScaler(), SessionPCA(n_components=25, whiten=True))
    components = preparation.fit_transform(rest.data)
    pca = preparation[-1]
    print(f"25 components hold {pca.explained_variance_ratio_.sum():.0%} of the variance")

    effort = {"n_epochs": 4} if arguments.quick else {}
    model = DyNeMoEstimator(n_modes=6, random_state=0, verbose=1, **effort)
    alphas = model.fit_transform(components)
    print(model.summary())
    rows = np.concatenate(components)
    static = EmpiricalCovariance().fit(rows).score(rows)
    print(f"log-likelihood of one Gaussian for all time: {static:.2f} nats per row")
    print(f"evidence lower bound of the mixture:         {model.score(components):.2f}")

    arguments.figures.mkdir(parents=True, exist_ok=True)
    for name, figure in draw(model, alphas, rest, pca):
        path = arguments.figures / f"resting_state_{name}.png"
        figure.savefig(path, dpi=150, bbox_inches="tight")
        plt.close(figure)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
