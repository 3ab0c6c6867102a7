"""
Spectra of modes: agreement with golden numbers, errors on simulations with known spectra, cost.

``--golden FILE`` compares with reference spectra in a file, which were computed in float32.
``--simulation`` estimates the spectra of three modes of five channels (AR(2) sources at 6, 11 and
22 Hz, 60,000 rows at 100 Hz) from true mixing coefficients, by each method. ``--cost`` times
regression spectra of 20 sessions of 60 s, 38 channels at 250 Hz.
"""

import argparse
import json
from functools import partial

import numpy as np
from processes import ask, markdown, measured
from scipy.signal import lfilter
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from skdyn.analysis import channel_modes, mode_spectra, mode_statistics, normalised_alpha
from skdyn.preprocessing import TimeDelayPCA

RATE = 100.0
PEAKS = (6, 11, 22)


# --------------------------------------------------------------------------------- golden numbers


def relative(found, expected):
    """Largest difference, by the largest number."""
    return np.abs(found - expected).max() / np.abs(expected).max()


def golden_rows(path):
    with np.load(path) as file:
        golden = dict(file)
    data, alpha, hard = (
        [golden[f"{name}_{k}"] for k in (0, 1)] for name in ("data", "alpha", "hard")
    )
    common = {
        "sampling_frequency": float(golden["fs"]),
        "window_length": 2.0,
        "frequency_range": (1, 45),
    }
    for n_pieces in (1, 4):
        settings = {**common, "method": "regression", "step": 0.2, "n_sub_windows": n_pieces}
        spectra = mode_spectra(data, alpha, **settings)
        rescaled = mode_spectra(data, alpha, rescale=True, **settings)
        name = f"regression, {n_pieces} sub-windows"
        psd = golden[f"regression_psd_{n_pieces}"]
        rescaled_psd = golden[f"regression_rescaled_{n_pieces}"]
        power = np.einsum("sjkkf->sjkf", spectra.coefficients).real
        yield f"{name}: frequencies", spectra.frequencies, golden[f"regression_f_{n_pieces}"]
        yield f"{name}: coefficients", power, psd[:, 0]
        yield f"{name}: intercept", np.einsum("skkf->skf", spectra.intercept).real, psd[:, 1, 0]
        yield f"{name}: coherence", spectra.coherence, golden[f"regression_coh_{n_pieces}"]
        yield f"{name}: rescaled", rescaled.psd, rescaled_psd.sum(axis=1)
        yield f"{name}: weights", spectra.weights, golden["regression_weights"]
        if n_pieces == 1:
            band, integral = spectra.band(8, 13), spectra.band(8, 13, power="integral")
            yield "band power", band.power, golden["band_power_8_13"]
            yield "band power, integral", integral.power, golden["band_power_integral_8_13"]
            yield "band coherence", band.coherence, golden["band_coherence_8_13"]
    for method in ("welch", "multitaper"):
        spectra = mode_spectra(data, hard, method=method, **common)
        yield f"{method}: frequencies", spectra.frequencies, golden[f"{method}_f"]
        yield f"{method}: densities", spectra.psd, golden[f"{method}_psd"]
        yield f"{method}: coherence", spectra.coherence, golden[f"{method}_coh"]
    yield from golden_statistics(golden, alpha)
    yield from golden_covariances(golden)


def golden_statistics(golden, alpha):
    """Statistics of the largest mode, and normalised alpha."""
    rate = float(golden["fs"])
    found = mode_statistics(alpha, sampling_frequency=rate)
    yield "occupancy", found.occupancy, golden["occupancy"]
    yield "lifetime", found.mean_lifetime, golden["lifetime"]
    yield "interval", found.mean_interval, golden["interval"]
    yield "transitions", found.transition_matrix, golden["transition"]
    # The reference does not count the mode that is active in the first row as switched on.
    first = [np.eye(3)[one[0].argmax()] * rate / len(one) for one in alpha]
    yield "switching rate, less first runs", found.switching_rate - first, golden["switching"]
    normalised = normalised_alpha(alpha, golden["reweight_covariances"])
    expected = [golden["reweighted_0"], golden["reweighted_1"]]
    yield "normalised alpha", np.concatenate(normalised), np.concatenate(expected)


class Modes(BaseEstimator):
    """Modes of given covariances, to be mapped back to channels."""

    def __init__(self, covariances):
        self.covariances = covariances

    def fit(self, X, y=None):
        self.covariances_ = self.covariances
        self.means_ = np.zeros(self.covariances.shape[:2])
        return self


def golden_covariances(golden, n_lags=3):
    """Covariances at lags of the modes of a time-delay PCA, and spectra from them."""
    rows = np.random.default_rng(0).standard_normal((200, 5))
    embedding = TimeDelayPCA(n_lags, n_components=8).fit(rows)
    embedding.mean_ = np.zeros_like(embedding.mean_)
    embedding.components_ = golden["pca_components"].T
    fitted = Modes(golden["mode_covariances"]).fit(rows)
    steps = Pipeline([("embedding", embedding), ("modes", fitted)])
    for kind in ("zero_lag", "mean"):
        modes = channel_modes(steps, sampling_frequency=float(golden["fs"]), covariance=kind)
        yield f"covariances, {kind}", modes.covariances, golden[f"raw_{kind}"]
    spectra = modes.spectra(method="autocovariance")
    yield "autocovariances", modes.autocovariances, golden["acf"]
    yield "their spectra", np.abs(spectra.cross_spectra), golden["acf_psd"]
    yield "their coherence", spectra.coherence, golden["acf_coh"]


# -------------------------------------------------------------------------------------- simulation


def simulate(seed, n_samples=60_000, noise=0.3, radius=0.955):
    """A recording of three modes, their mixing, and the true cross-spectra as a function of Hz."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(n_samples) / RATE
    rates, phases = rng.uniform(0.1, 0.4, 3), rng.uniform(0, 2 * np.pi, 3)
    alpha = softmax(3 * np.sin(2 * np.pi * np.outer(seconds, rates) + phases), axis=1)
    X = np.zeros((n_samples, 5))
    networks = rng.standard_normal((3, 5))
    polynomials = [[1, -2 * radius * np.cos(2 * np.pi * peak / RATE), radius**2] for peak in PEAKS]
    scales = []
    for own, network, polynomial in zip(alpha.T, networks, polynomials, strict=True):
        source = lfilter([1], polynomial, rng.standard_normal(n_samples + 500))[500:]
        scales.append(_gain(polynomial, np.linspace(0, RATE, 10_001)[:-1]).mean())
        source /= np.sqrt(scales[-1])
        own_rows = np.outer(source, network) + noise * rng.standard_normal((n_samples, 5))
        X += np.sqrt(own)[:, np.newaxis] * own_rows

    def truth(frequencies):
        return np.stack(
            [
                np.multiply.outer(
                    np.outer(network, network), _gain(polynomial, frequencies) / scale
                )
                + noise**2 * np.eye(5)[..., np.newaxis]
                for network, polynomial, scale in zip(networks, polynomials, scales, strict=True)
            ]
        ) * (2 / RATE)

    return X, alpha, truth


def _gain(polynomial, frequencies):
    powers = np.exp(-2j * np.pi * np.outer(np.arange(3), frequencies) / RATE)
    return 1 / np.abs(polynomial @ powers) ** 2


def errors(spectra, truth):
    """Relative error of the densities, and mean absolute error of coherence."""
    true = truth(spectra.frequencies)
    psd = np.einsum("jkkf->jkf", true)
    coherence = np.abs(true) / np.sqrt(psd[:, :, np.newaxis] * psd[:, np.newaxis])
    pairs = ~np.eye(psd.shape[1], dtype=bool)
    difference = np.abs(spectra.coherence - coherence)[:, pairs]
    return np.linalg.norm(spectra.psd - psd) / np.linalg.norm(psd), difference.mean()


METHODS = {
    "mixture": {},
    "mixture, least squares alone": {"n_refinement_steps": 0},
    "regression": {"method": "regression", "standardize": False},
    "regression, rescaled": {"method": "regression", "standardize": False, "rescale": True},
}


def simulation_rows(seeds):
    for name, options in METHODS.items():
        found, seconds = [], []
        for seed in seeds:
            X, alpha, truth = simulate(seed)
            settings = {"sampling_frequency": RATE, "frequency_range": (2, 40), **options}
            spectra, cost = measured(partial(mode_spectra, X, alpha, **settings))
            found.append(errors(spectra, truth))
            seconds.append(cost["cpu_s"])
        psd, coherence = np.transpose(found)
        ends = [f"{one.min():.3f} to {one.max():.3f}" for one in (psd, coherence)]
        yield [
            name,
            f"{psd.mean():.3f} ({ends[0]})",
            f"{coherence.mean():.3f} ({ends[1]})",
            f"{np.mean(seconds):.1f}",
        ]


# -------------------------------------------------------------------------------------------- cost


def cost(n_sub_windows, method, n_sessions=20, n_modes=6):
    rng = np.random.default_rng(0)
    X = [rng.standard_normal((15_000, 38)).astype(np.float32) for _ in range(n_sessions)]
    walks = [np.cumsum(rng.standard_normal((15_000, n_modes)), axis=0) / 30 for _ in X]
    alpha = [softmax(walk, axis=1).astype(np.float32) for walk in walks]
    settings = {"sampling_frequency": 250, "frequency_range": (1, 45), "window_length": 4.0}
    settings |= {"n_sub_windows": n_sub_windows, "method": method}
    if method == "regression":
        settings["step"] = 20 / 250
    spectra, spent = measured(lambda: mode_spectra(X, alpha, **settings))
    return {"shape": spectra.cross_spectra.shape, **spent}


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--golden", help="a file of the reference's numbers")
    parser.add_argument("--simulation", action="store_true", help="errors on known spectra")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--cost", action="store_true", help="seconds and memory")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(cost(**json.loads(arguments.one))))
        return
    if arguments.golden:
        rows = [[name, f"{relative(*pair):.1e}"] for name, *pair in golden_rows(arguments.golden)]
        markdown(["number", "largest relative difference"], rows)
    if arguments.simulation:
        header = ["method", "error of densities (range)", "error of coherence (range)", "CPU s"]
        markdown(header, list(simulation_rows(arguments.seeds)))
    if arguments.cost:
        rows = []
        for method in ("regression", "mixture"):
            for n_pieces in (8, 1):
                spent = ask(__file__, n_sub_windows=n_pieces, method=method)
                sizes = [f"{spent[name]:.1f}" for name in ("cpu_s", "peak_mb")]
                rows.append([method, str(n_pieces), *sizes])
        markdown(["method", "sub-windows", "CPU s", "peak MB"], rows)


if __name__ == "__main__":
    main()
