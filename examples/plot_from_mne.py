"""
From MNE and back: mixing coefficients as channels of the recording
===================================================================

MNE keeps recordings as channels by times; here rows are time. So a Raw goes in as
`raw.get_data().T` and Epochs as `epochs.get_data().transpose(0, 2, 1)`, a stack of sessions, and
what comes out goes back the same way. Put beside the EEG as channels, the mixing coefficients share
its times, annotations and events, and MNE can cut and average them. In this simulated recording
mode 2 answers each tone.

What is cut first is inferred without the rows around it, so it is less sure of the edges: infer
from the Raw and cut the mixing coefficients, where there is a Raw.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import softmax

from skdyn import DyNeMoEstimator, match_modes
from skdyn.metrics import alpha_correlation
from skdyn.plotting import mode_palette, plot_alpha

try:
    import mne
except ImportError:
    raise SystemExit("MNE is required; run `pip install mne`.") from None

SAMPLING_FREQUENCY = 100
CHANNELS = ["Fz", "Cz", "Pz", "Oz", "C3", "C4", "T7", "T8"]
N_MODES = 3


def simulate(n_seconds):
    """A Raw in volts with tones as annotations, and the mixing that is in it."""
    rng = np.random.default_rng(0)
    n_samples = n_seconds * SAMPLING_FREQUENCY
    tones = np.arange(2, n_seconds - 2, 2) + rng.uniform(0, 0.5, (n_seconds - 4) // 2)
    since = np.arange(n_samples)[:, None] / SAMPLING_FREQUENCY - tones - 0.4
    logits = gaussian_filter1d(rng.standard_normal((n_samples, N_MODES)), 40, axis=0)
    logits *= 1.5 / logits.std()
    logits[:, 2] = 6 * np.exp(-0.5 * (since / 0.12) ** 2).sum(axis=1) - 3
    alpha = softmax(logits, axis=1)
    maps = rng.standard_normal((N_MODES, len(CHANNELS), 3))
    covariances = maps @ maps.swapaxes(1, 2) + 0.1 * np.eye(len(CHANNELS))
    roots = np.linalg.cholesky(np.einsum("tm,mij->tij", alpha, covariances))
    volts = 1e-5 * np.einsum("tij,tj->ti", roots, rng.standard_normal((n_samples, len(CHANNELS))))
    raw = mne.io.RawArray(volts.T, mne.create_info(CHANNELS, SAMPLING_FREQUENCY, "eeg"))
    raw.set_annotations(mne.Annotations(onset=tones, duration=0, description="tone"))
    return raw, alpha


def add_alpha(raw, alpha):
    """The same Raw with a channel more for each mode."""
    names = [f"mode {mode}" for mode in range(alpha.shape[1])]
    info = mne.create_info(names, raw.info["sfreq"], "misc")
    modes = mne.io.RawArray(alpha.T, info, first_samp=raw.first_samp)
    return raw.copy().add_channels([modes], force_update_info=True)


def draw(alpha, tones, answers):
    """Draw some seconds of the recording with its tones, and the mean answer to a tone."""
    fig, (course, mean) = plt.subplots(
        1, 2, figsize=(9, 3), width_ratios=(2, 1), layout="constrained"
    )
    labels = ["Mixing in the Raw, and its tones"]
    n_samples = 15 * SAMPLING_FREQUENCY
    plot_alpha(
        alpha, n_samples=n_samples, labels=labels, sampling_frequency=SAMPLING_FREQUENCY, ax=course
    )
    for tone in tones[tones < 15]:
        course.axvline(tone, color="black", linewidth=1)
    for label, evoked in answers.items():
        style = ":" if label == "True" else "-"
        for mode, color in enumerate(mode_palette(N_MODES)):
            mean.plot(evoked.times, evoked.data[mode], style, color=color)
        mean.plot([], [], style, color="gray", label=label)
    mean.axvline(0, color="black", linewidth=1)
    mean.set_title("Mean over tones", loc="left", fontsize=10)
    mean.set(ylim=(0, 1), xlim=evoked.times[[0, -1]])
    mean.set_xlabel("Time after the tone (s)", fontsize=9)
    mean.tick_params(labelsize=8)
    mean.spines[["top", "right"]].set_visible(False)
    mean.legend(frameon=False, fontsize=9)
    return fig


def main():
    parser = argparse.ArgumentParser(description="DyNeMo on a recording of MNE.")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="folder to fill")
    parser.add_argument("--quick", action="store_true", help="little data, few epochs")
    arguments = parser.parse_args()
    mne.set_log_level("warning")

    raw, true = simulate(n_seconds=60 if arguments.quick else 240)
    effort = {"n_epochs": 4} if arguments.quick else {"n_epochs": 20}
    model = DyNeMoEstimator(n_modes=N_MODES, inference_n_units=32, random_state=0, **effort)
    # Times by channels. Volts will do: the unit does not matter.
    alpha = model.fit_transform(raw.get_data().T)
    # The modes of a fit have no order of their own: give them that of the truth.
    order = match_modes(true, alpha, return_order=True)[1]
    alpha = alpha[:, order]
    print("correlation with the truth:", alpha_correlation(true, alpha).round(2))

    # Back in MNE: the events of the Raw cut its mixing coefficients, too.
    window = {"tmin": -0.5, "tmax": 1.5, "baseline": None, "preload": True}
    events, _ = mne.events_from_annotations(raw)
    epochs, truth = (mne.Epochs(add_alpha(raw, one), events, **window) for one in (alpha, true))
    answers = {"True": truth.average("misc"), "Inferred": epochs.average("misc")}

    # Epochs go in as a stack, and come out as one.
    stack = epochs.get_data("eeg").transpose(0, 2, 1)
    from_epochs = model.transform(stack)[..., order]
    print(f"Epochs of shape {stack.shape} give mixing coefficients {from_epochs.shape}")
    differences = np.abs(from_epochs - epochs.get_data("misc").transpose(0, 2, 1)).mean(axis=(0, 2))
    print(f"from those of the Raw they differ by {differences[[0, -1]].mean():.3f} at the ends,")
    print(f"and by {differences[50:-50].mean():.3f} from half a second on")

    arguments.figures.mkdir(parents=True, exist_ok=True)
    path = arguments.figures / "from_mne.png"
    figure = draw(alpha, raw.annotations.onset, answers)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
