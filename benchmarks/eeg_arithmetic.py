"""
Rest against mental arithmetic in EEG of twelve people: changes in the weight of modes.

The file has rest and task, (n_samples, n_channels) of all people concatenated, rest_lengths and
task_lengths, scale_uV, and fs in Hz. The last two seconds of each recording are nearly zero, a
larger share of the task, which is shorter, than of the rest; the last three are left out. One model
is fitted to all recordings, without condition labels. The band is 4 to 30 Hz, which excludes eye
movements and most muscle activity. Each channel has the same variance in all people, over rest and
task together. The weight of a mode is the mean share of the variance that it explains, and its
occupancy the share of rows in which it is the largest. Logarithms of weights, and occupancies, are
compared within people by sign flips and the maximum statistic over modes. The alpha mode is the one
with the weight that correlates best with the power from 8 to 13 Hz, over time within recordings.

With ``--align`` the components of each person are whitened by their covariance over rest and task
together, and given that of the group, so that no mode can describe a difference between people.
``--embedding`` has the rows of the time-delay embedding and the number of principal components, and
``--shares`` tests weights themselves instead of their logarithms. ``--bands`` tests the power in
bands instead, without a model.
"""

import argparse

import numpy as np
from processes import markdown, measured
from sklearn.pipeline import make_pipeline

from skdyn import DyNeMoEstimator
from skdyn.analysis import mode_spectra, mode_statistics, normalised_alpha, permutation_test
from skdyn.preprocessing import (
    AmplitudeEnvelope,
    BandpassFilter,
    MovingAverage,
    TimeDelayPCA,
)

# Hz, and seconds.
BAND, ALPHA_BAND, SMOOTHING, SILENT_END = (4, 30), (8, 13), 1.0, 3.0
BANDS = (4, 8), (8, 10), (10, 13), (13, 30)


def load(path):
    """Recordings in microvolts, rest and then task, their labels and people, and the rate."""
    with np.load(path) as file:
        recordings, labels, people = [], [], []
        for name in ("rest", "task"):
            lengths = file[f"{name}_lengths"]
            rows = file[name] * float(file["scale_uV"])
            silent = int(SILENT_END * float(file["fs"]))
            recordings += [one[:-silent] for one in np.split(rows, np.cumsum(lengths)[:-1])]
            labels += [name] * len(lengths)
            people += range(len(lengths))
        return recordings, np.array(labels), np.array(people), float(file["fs"])


def prepare(recordings, people, rate):
    """Recordings in the band, with one scale for all recordings of a person."""
    filtered = BandpassFilter(*BAND, sampling_frequency=rate).fit_transform(recordings)
    scales = {
        person: np.concatenate(
            [one for one, owner in zip(filtered, people, strict=True) if owner == person]
        ).std(axis=0)
        for person in np.unique(people)
    }
    return [one / scales[person] for one, person in zip(filtered, people, strict=True)]


def align(components, people):
    """Components with one covariance for each person over all their recordings, the group's."""
    group = np.cov(np.concatenate(components), rowvar=False)
    aligned = []
    for one, person in zip(components, people, strict=True):
        own = [other for other, owner in zip(components, people, strict=True) if owner == person]
        covariance = np.cov(np.concatenate(own), rowvar=False)
        aligned.append(one @ _power(covariance, -0.5) @ _power(group, 0.5))
    return aligned


def _power(covariance, exponent):
    values, axes = np.linalg.eigh(covariance)
    return (axes * values**exponent) @ axes.T


def of_bands(recordings, labels, people, rate):
    """Rows of the table of power in bands, as a share of that in the whole band."""
    spectra = mode_spectra(
        prepare(recordings, people, rate), sampling_frequency=rate, frequency_range=BAND
    )
    power = [spectra.band(*band, power="integral").power for band in (BAND, *BANDS)]
    shares = np.concatenate(power[1:], axis=1).mean(axis=2) / power[0].mean(axis=2)
    test = permutation_test(np.log(shares), labels, pairs=people)
    rest, task = (shares[labels == name].mean(axis=0) for name in ("rest", "task"))
    rows = []
    for place, (low, high) in enumerate(BANDS):
        values = rest[place], task[place], test.statistic[place], test.p_value[place]
        shown = (f"{one:.{n}f}" for one, n in zip(values, (3, 3, 2, 4), strict=True))
        rows.append([f"{low:g} to {high:g} Hz", *shown])
    return rows


def correlations_with_alpha(recordings, weights, rate):
    """Correlation of each mode's weight with alpha power, mean over recordings."""
    envelope = make_pipeline(
        BandpassFilter(*ALPHA_BAND, sampling_frequency=rate), AmplitudeEnvelope()
    )
    smooth = MovingAverage(SMOOTHING, sampling_frequency=rate)
    amplitude = envelope.fit_transform(recordings)
    power = smooth.fit_transform([(one**2).mean(axis=1, keepdims=True) for one in amplitude])
    slow = smooth.fit_transform(weights)
    pairs = [np.hstack(pair) for pair in zip(power, slow, strict=True)]
    return np.mean([np.corrcoef(pair, rowvar=False)[0, 1:] for pair in pairs], axis=0)


def analyse(recordings, labels, people, rate, settings, seed):
    """Rows of the table for one fit."""
    recordings = prepare(recordings, people, rate)
    n_embeddings, n_components = settings.embedding
    embedder = TimeDelayPCA(n_embeddings=n_embeddings, n_components=n_components)
    components = embedder.fit_transform(recordings)
    components = align(components, people) if settings.align else components
    model = DyNeMoEstimator(settings.modes, n_epochs=settings.epochs, random_state=seed)
    model.fit(components)
    alpha = model.transform(components)
    # Axes of principal components are orthonormal: traces are those of embedded channels.
    weights = normalised_alpha(alpha, model.covariances_)
    statistics = mode_statistics(alpha, sampling_frequency=rate, covariances=model.covariances_)
    follows = correlations_with_alpha(recordings, weights, rate)
    shares = statistics.normalised_weight
    measures = shares if settings.shares else np.log(shares), statistics.occupancy
    tests = [permutation_test(values, labels, pairs=people) for values in measures]
    shown = [shares, statistics.occupancy]
    rest, task = ([one[labels == name].mean(axis=0) for one in shown] for name in ("rest", "task"))
    rows = []
    for mode in range(settings.modes):
        name = f"{mode}{' (alpha)' if mode == follows.argmax() else ''}"
        rows.append([f"{seed}", name, f"{follows[mode]:.2f}"])
        for place, test in enumerate(tests):
            rows[-1] += [f"{rest[place][mode]:.3f}", f"{task[place][mode]:.3f}"]
            rows[-1] += [f"{test.statistic[mode]:.2f}", f"{test.p_value[mode]:.4f}"]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--recording", help="the .npz file")
    parser.add_argument("--modes", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--embedding", type=int, nargs=2, default=[15, 20], help="and components")
    parser.add_argument("--align", action="store_true", help="one covariance for all people")
    parser.add_argument("--shares", action="store_true", help="of the variance, not logarithms")
    parser.add_argument("--bands", action="store_true", help="test bands of power, no model")
    arguments = parser.parse_args()
    if arguments.recording is None:
        parser.error("which recording? name the file with --recording, or make's RECORDING=")
    data = load(arguments.recording)
    if arguments.bands:
        markdown(["band", "share: rest", "task", "t", "corrected p"], of_bands(*data))
        return
    rows = []
    for seed in arguments.seeds:
        found, cost = measured(lambda seed=seed: analyse(*data, arguments, seed))
        rows += found
        print(f"seed {seed}: {cost['cpu_s']:.0f} s of CPU time\n", flush=True)
    header = ["seed", "mode", "follows alpha"]
    for name in ("weight", "occupancy"):
        header += [f"{name}: rest", "task", "t", "corrected p"]
    markdown(header, rows)


if __name__ == "__main__":
    main()
