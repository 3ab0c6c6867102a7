"""
A full analysis of a recording: time-delay PCA, DyNeMo, spectra of modes.

Without ``--recording``: simulated sources. Each of three modes is a network of four of twelve
channels that share an oscillation at 6, 11 or 22 Hz, with noise; the mixing is a soft chain.
Reported for the fitted modes: the distance of the spectral peak from the true one, in bins, and the
edges with a coherence at the peak above half of the largest; no edge may join different networks.

With ``--recording FILE``: EEG with eyes_open and eyes_closed, (n_samples, n_channels) each, fs and
ch_names. The question is whether a mode has a peak from 8 to 13 Hz, is strongest over occipital
channels, and has a larger weight with eyes closed. ``--figure FILE`` draws it.
"""

import argparse
import warnings

import numpy as np
from processes import markdown, measured
from scipy.signal import lfilter
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline

from skdyn import DyNeMoEstimator, match_modes
from skdyn.analysis import mode_spectra
from skdyn.plotting import mode_palette
from skdyn.preprocessing import BandpassFilter, TimeDelayPCA

RATE = 100.0
PEAKS = (6.0, 11.0, 22.0)
N_CHANNELS = 12
OCCIPITAL = {"O1", "Oz", "O2", "POz", "PO3", "PO4"}


# -------------------------------------------------------------------------------------- simulation


def soft_chain(rng, n_samples, n_modes):
    """Mixing coefficients that stay with a mode for about half a second, and fade over."""
    states = []
    while len(states) < n_samples:
        other = [mode for mode in range(n_modes) if not states or mode != states[-1]]
        states += [rng.choice(other)] * (20 + int(rng.exponential(40)))
    hard = np.eye(n_modes)[states[:n_samples]]
    kernel = np.hanning(15)[:, np.newaxis]
    soft = np.apply_along_axis(np.convolve, 0, hard, (kernel / kernel.sum()).ravel(), mode="same")
    # Every network has some weight at all times.
    return 0.05 + 0.85 * soft / soft.sum(axis=1, keepdims=True)


def simulate(seed, n_samples):
    """A recording, its mixing, and the channels of each mode's network."""
    rng = np.random.default_rng(seed)
    alpha = soft_chain(rng, n_samples, len(PEAKS))
    X = 0.5 * rng.standard_normal((n_samples, N_CHANNELS))
    members = rng.permutation(N_CHANNELS).reshape(len(PEAKS), -1)
    for own, peak, channels in zip(alpha.T, PEAKS, members, strict=True):
        polynomial = [1, -2 * 0.95 * np.cos(2 * np.pi * peak / RATE), 0.95**2]
        source = lfilter([1], polynomial, rng.standard_normal(n_samples))
        loadings = rng.choice([-1, 1], len(channels)) * rng.uniform(0.7, 1.3, len(channels))
        X[:, channels] += np.outer(np.sqrt(own) * source / source.std(), loadings)
    return X, alpha, members


def edges(coherence):
    """Pairs of channels whose coherence is above half of the largest."""
    above = np.triu(coherence, 1)
    return set(map(tuple, np.argwhere(above > 0.5 * above.max())))


def from_sources(seed, n_samples):
    X, true, members = simulate(seed, n_samples)
    model = make_pipeline(
        TimeDelayPCA(n_embeddings=11, n_components=2 * N_CHANNELS, whiten=True),
        DyNeMoEstimator(len(PEAKS), random_state=seed),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        alpha, cost = measured(lambda: model.fit_transform(X))
    _, alpha = match_modes(true, alpha)
    spectra = mode_spectra(X, alpha, sampling_frequency=RATE, frequency_range=(2, 40))
    truth = mode_spectra(X, true, sampling_frequency=RATE, frequency_range=(2, 40))
    resolution = spectra.frequencies[1] - spectra.frequencies[0]
    bins, wrong, missing = [], 0, 0
    for mode, peak in enumerate(PEAKS):
        bins.append(abs(spectra.peaks()[mode] - peak) / resolution)
        place = np.abs(spectra.frequencies - spectra.peaks()[mode]).argmin()
        found = edges(spectra.coherence[mode, ..., place])
        wanted = {(a, b) for a in members[mode] for b in members[mode] if a < b}
        wrong, missing = wrong + len(found - wanted), missing + len(wanted - found)
    error = np.linalg.norm(spectra.psd - truth.psd) / np.linalg.norm(truth.psd)
    shown = [f"{value:.1f}" for value in bins]
    return [str(seed), *shown, str(wrong), str(missing), f"{error:.2f}", f"{cost['cpu_s']:.0f}"]


# --------------------------------------------------------------------------------------------- EEG


def load(path):
    """EEG of both states in microvolts, names of channels in their usual spelling, and the rate."""
    usual = {"FP": "Fp", "Z": "z"}
    with np.load(path) as file:
        names = [str(name).upper() for name in file["ch_names"]]
        for old, new in usual.items():
            names = [name.replace(old, new) for name in names]
        scale = float(file["scale_uV"]) if "scale_uV" in file else 1.0
        states = [file[name] * scale for name in ("eyes_open", "eyes_closed")]
        return states, names, float(file["fs"])


def from_eeg(path, seed, n_modes):
    """Spectra of the modes, their mixing in both states, and the names of the channels."""
    states, names, rate = load(path)
    states = [BandpassFilter(1, 45, sampling_frequency=rate).fit_transform(one) for one in states]
    model = make_pipeline(
        TimeDelayPCA(n_embeddings=11, n_components=30, whiten=True),
        DyNeMoEstimator(n_modes, random_state=seed),
    )
    alpha = model.fit_transform(states)
    settings = {"sampling_frequency": rate, "frequency_range": (2, 40)}
    return mode_spectra(states, alpha, **settings).group(), alpha, names


def alpha_mode(spectra, alpha):
    """The mode that carries most of the power from 8 to 13 Hz, and its power there by channel."""
    power = spectra.band(8, 13).power
    mode = (power.mean(axis=1) * np.concatenate(alpha).mean(axis=0)).argmax()
    return mode, power[mode]


def eeg_row(seed, spectra, alpha, names):
    mode, power = alpha_mode(spectra, alpha)
    places = np.argsort(-power)[:10]
    strongest = [names[channel] for channel in places]
    weights = [one[:, mode].mean() for one in alpha]
    among = sorted(OCCIPITAL & set(strongest))
    return [
        str(seed),
        str(mode),
        f"{spectra.peaks(channels=places)[mode]:.1f}",
        " ".join(strongest),
        f"{len(among)} of {len(OCCIPITAL)}",
        *(f"{weight:.3f}" for weight in weights),
    ]


def draw_eeg(spectra, alpha, names, rate):
    """Densities of the modes, where the alpha mode is, and its mixing in both states."""
    import matplotlib.pyplot as plt
    import mne

    mode, power = alpha_mode(spectra, alpha)
    color = mode_palette(len(spectra.psd))[mode]
    fig = plt.figure(figsize=(10, 5), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=[1.6, 1])
    spectra.plot(fig=left, channels=[names.index(name) for name in sorted(OCCIPITAL)])
    left.suptitle("Mean over occipital channels")
    top, bottom = right.subplots(2, 1, height_ratios=[1.3, 1])
    info = mne.create_info(names, rate, "eeg")
    with warnings.catch_warnings():
        # Newer versions use another name for the same positions.
        warnings.simplefilter("ignore", FutureWarning)
        info.set_montage("standard_1020", on_missing="ignore")
    decibel = 10 * np.log10(power)
    limits = (decibel.min(), decibel.max())
    image, _ = mne.viz.plot_topomap(
        decibel, info, axes=top, vlim=limits, cmap="viridis", show=False
    )
    right.colorbar(image, ax=top, shrink=0.8, label="Power, 8 to 13 Hz (dB re 1 uV\u00b2/Hz)")
    top.set_title(f"Mode {mode}")
    for label, one, style in zip(("Eyes open", "Eyes closed"), alpha, ("--", "-"), strict=True):
        values = np.sort(one[:, mode])
        share = np.linspace(1, 0, len(values))
        bottom.plot(values, share, style, color=color, label=f"{label}, mean {values.mean():.2f}")
    bottom.set(xlabel=f"Mixing coefficient of mode {mode}", ylabel="Share of rows above")
    bottom.spines[["top", "right"]].set_visible(False)
    bottom.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 1.08))
    return fig


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--rows", type=int, default=60_000, help="rows of a simulation")
    parser.add_argument("--recording", help="an .npz file of EEG")
    parser.add_argument("--modes", type=int, default=6, help="modes of the EEG")
    parser.add_argument("--figure", help="where to draw the modes of the EEG")
    arguments = parser.parse_args()
    if arguments.recording is None:
        header = ["seed", *(f"{peak:g} Hz: bins off" for peak in PEAKS)]
        header += ["wrong edges", "missing edges", "density against true mixing", "fit, CPU s"]
        markdown(header, [from_sources(seed, arguments.rows) for seed in arguments.seeds])
        return
    header = ["seed", "mode", "peak of these, Hz", "ten strongest channels", "occipital"]
    rows = []
    for seed in arguments.seeds:
        found = from_eeg(arguments.recording, seed, arguments.modes)
        rows.append(eeg_row(seed, *found))
        if arguments.figure and seed == arguments.seeds[0]:
            rate = load(arguments.recording)[-1]
            draw_eeg(*found, rate).savefig(arguments.figure, dpi=130)
    markdown([*header, "weight, eyes open", "eyes closed"], rows)


if __name__ == "__main__":
    main()
