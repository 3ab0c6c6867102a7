"""
Spectra of modes: what oscillates in each, and between which channels
=====================================================================

After a fit, a mode is a covariance of components that nobody can read. A lab wants its spectrum and
its network. Here four people are simulated, with twelve channels each, of which three networks
oscillate at 6, 11 and 22 Hz, one at a time. Time-delay embedding shows the model spectra and
phases; `mode_spectra` brings the modes back to the channels: the power of each channel, and the
coherence of each pair.

The last line of the program's output compares with the truth, which a simulation has.

With recordings of your own, such as an MNE Raw, `recordings` is
``[raw.get_data(picks="data").T for raw in raws]``, and the rest stays as it is.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.signal import freqz, lfilter
from sklearn.pipeline import make_pipeline

from skdyn import DyNeMoEstimator, match_modes
from skdyn.analysis import channel_modes, mode_spectra
from skdyn.plotting import plot_alpha
from skdyn.preprocessing import TimeDelayPCA

SAMPLING_FREQUENCY = 100.0
PEAKS = (6, 11, 22)
N_CHANNELS = 12
NOISE = 0.5

# %%
# One person: a mixture that stays with a network for about half a second, and noise in each
# channel. A network is four channels that share an oscillation, at strengths and signs that are the
# same in all people.


def simulate(networks, n_samples, rng):
    states = []
    while len(states) < n_samples:
        others = [mode for mode in range(len(PEAKS)) if not states or mode != states[-1]]
        states += [rng.choice(others)] * (20 + int(rng.exponential(40)))
    kernel = np.hanning(15) / np.hanning(15).sum()
    hard = np.eye(len(PEAKS))[states[:n_samples]]
    alpha = np.column_stack([np.convolve(one, kernel, mode="same") for one in hard.T])
    # No network is ever silent.
    alpha = 0.05 + 0.85 * alpha / alpha.sum(axis=1, keepdims=True)
    X = NOISE * rng.standard_normal((n_samples, N_CHANNELS))
    for own, peak, network in zip(alpha.T, PEAKS, networks, strict=True):
        numerator, denominator = oscillator(peak)
        source = lfilter(numerator, denominator, rng.standard_normal(n_samples))
        X += np.outer(np.sqrt(own) * source, network)
    return X, alpha


def oscillator(peak):
    """A resonance at a frequency, as a filter that turns white noise into unit variance."""
    denominator = [1, -1.9 * np.cos(2 * np.pi * peak / SAMPLING_FREQUENCY), 0.9025]
    impulse = lfilter([1], denominator, np.eye(1, 1000)[0])
    return [1 / np.linalg.norm(impulse)], denominator


def draw_networks():
    """Four channels of each mode's own, and the strength and sign of each."""
    rng = np.random.default_rng(0)
    networks = np.zeros((len(PEAKS), N_CHANNELS))
    for mode, channels in enumerate(np.split(np.arange(N_CHANNELS), len(PEAKS))):
        networks[mode, channels] = rng.choice([-1, 1], 4) * rng.uniform(0.7, 1.3, 4)
    return networks


def true_density(mode, networks, frequencies):
    """Mean density over channels, in squared units of X per Hz."""
    response = np.abs(freqz(*oscillator(PEAKS[mode]), frequencies, fs=SAMPLING_FREQUENCY)[1]) ** 2
    return 2 / SAMPLING_FREQUENCY * (response * np.mean(networks[mode] ** 2) + NOISE**2)


# %%
# The picture: densities above, with the true ones, and networks below.


def draw(spectra, networks):
    fig = plt.figure(figsize=(8, 5.6), layout="constrained")
    above, below = fig.subfigures(2, 1, height_ratios=[1, 1.15])
    titles = [f"Mode {mode}, {peak:.1f} Hz" for mode, peak in enumerate(spectra.group().peaks())]
    panels = above.subplots(1, len(PEAKS), sharex=True, sharey=True)
    spectra.plot(panels, mode_labels=titles)
    for mode, panel in enumerate(panels):
        truth = true_density(mode, networks, spectra.frequencies)
        panel.plot(spectra.frequencies, truth, ":", color="0.2", lw=1.2, label="True")
    panels[-1].legend(frameon=False, fontsize=8)
    # Of each mode the band around its own peak.
    group = spectra.group()
    bands = [group.band(peak - 1, peak + 1).coherence for peak in group.peaks()]
    coherence = np.stack([band[mode] for mode, band in enumerate(bands)])
    coherence[:, np.eye(N_CHANNELS, dtype=bool)] = np.nan
    panels = below.subplots(1, len(PEAKS))
    for mode, panel in enumerate(panels):
        image = panel.imshow(coherence[mode], vmin=0, vmax=1, cmap="viridis")
        panel.set_xlabel("Channel")
        panel.set_title(f"Coherence, {group.peaks()[mode]:.1f} \N{PLUS-MINUS SIGN} 1 Hz", size=9)
    panels[0].set_ylabel("Channel")
    below.colorbar(image, ax=list(panels), label="Coherence", shrink=0.8)
    return fig


def main():
    parser = argparse.ArgumentParser(description="Spectra and networks of modes.")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="folder to fill")
    parser.add_argument("--quick", action="store_true", help="two people, few epochs")
    arguments = parser.parse_args()
    n_people, n_epochs = (2, 6) if arguments.quick else (4, 12)

    rng = np.random.default_rng(1)
    networks = draw_networks()
    simulated = [simulate(networks, 6000, rng) for _ in range(n_people)]
    recordings, truth = zip(*simulated, strict=True)

    # Embedding, components and the model are one pipeline; sessions stay apart.
    pipeline = make_pipeline(
        TimeDelayPCA(n_embeddings=11, n_components=2 * N_CHANNELS, whiten=True),
        DyNeMoEstimator(n_modes=len(PEAKS), n_epochs=n_epochs, random_state=0, verbose=1),
    )
    alphas = pipeline.fit_transform(list(recordings))
    # Modes in the order of the simulated ones.
    truth, alphas = match_modes(np.concatenate(truth), np.concatenate(alphas))
    truth, alphas = np.split(truth, n_people), np.split(alphas, n_people)

    spectra = mode_spectra(
        list(recordings),
        alphas,
        sampling_frequency=SAMPLING_FREQUENCY,
        frequency_range=(2, 40),
    )
    print(spectra)
    modes = channel_modes(pipeline, sampling_frequency=SAMPLING_FREQUENCY)
    print(modes)

    figures = {
        "alpha": plot_alpha(
            truth[0][:1000],
            alphas[0][:1000],
            labels=["True", "Inferred"],
            sampling_frequency=SAMPLING_FREQUENCY,
        )[0],
        "networks": draw(spectra, networks),
    }
    arguments.figures.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        path = arguments.figures / f"mode_spectra_{name}.png"
        figure.savefig(path, dpi=150)
        plt.close(figure)
        print(f"wrote {path}")
    peaks = ", ".join(f"{peak:.1f}" for peak in spectra.group().peaks())
    print(f"Peaks at {peaks} Hz; the true ones are at {', '.join(map(str, PEAKS))} Hz")


if __name__ == "__main__":
    main()
