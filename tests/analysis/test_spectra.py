"""Spectra of modes: the field's definitions, and properties for any mixing coefficients."""

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal
from scipy.special import softmax

from skdyn.analysis import mode_spectra

RATE = 100.0


def by_formula(number):
    """A recording of two channels and its mixing; the reference was run on the same numbers."""
    rows = np.arange(400)
    wave = 2 * np.pi * 0.1 * rows
    X = [
        np.sin(wave + 0.3 * number) + np.cos(0.011 * rows * rows / 50 + number),
        np.cos(wave) * np.sin(0.02 * rows) + np.sin(1.7 * rows + number),
    ]
    first = 0.5 + 0.5 * np.sin(2 * np.pi * rows / (130 + 20 * number))
    alpha = np.column_stack([first, 1 - first])
    return np.column_stack(X)[: 400 - 50 * number], alpha[: 400 - 50 * number]


RECORDINGS, MIXING = map(list, zip(*map(by_formula, (0, 1)), strict=True))
HARD = [(alpha.astype(np.float32) >= 0.5).astype(float) for alpha in MIXING]
COMMON = {"sampling_frequency": RATE, "window_length": 1.0, "frequency_range": (5, 20)}
REGRESSION = {**COMMON, "method": "regression", "step": 0.25, "n_sub_windows": 2}


def soft_mixing(rng, n_samples, n_modes):
    walk = signal.lfilter([0.05], [1, -0.99], rng.standard_normal((n_samples, n_modes)), axis=0)
    return softmax(10 * walk, axis=1)


# ------------------------------------------------------------------- the field's definitions


def test_regression_has_the_numbers_of_the_reference():
    # osl-dynamics 3.7.2, float32.
    spectra = mode_spectra(RECORDINGS, MIXING, **REGRESSION)
    assert spectra.frequencies[[0, 10, -1]] == pytest.approx([5.078125, 8.984375, 19.921875])
    coefficients = np.einsum("sjkkf->sjkf", spectra.coefficients).real
    expected = [
        [[0.0146838, 0.0038803], [0.0189234, 0.0230239]],
        [[0.0181717, 0.0170911], [0.0261702, 0.0317566]],
    ]
    assert coefficients[..., 10] == pytest.approx(np.array(expected), rel=1e-4)
    intercept = np.einsum("skkf->skf", spectra.intercept).real
    expected = [[0.1059838, 0.071685], [0.1151631, 0.07279]]
    assert intercept[..., 10] == pytest.approx(np.array(expected), rel=1e-4)
    assert spectra.psd == pytest.approx(coefficients + intercept[:, np.newaxis])
    expected = [[0.2717941, 0.1852467], [0.146455, 0.2267745]]
    assert spectra.coherence[:, :, 0, 1, 10] == pytest.approx(np.array(expected), rel=1e-4)
    expected = [[0.0541293, 0.3211824], [0.2347996, 0.4362762]]
    assert spectra.coherence[:, :, 1, 1, 10] == pytest.approx(np.array(expected), rel=1e-4)
    assert spectra.weights == pytest.approx([8 / 15, 7 / 15])


def test_welch_has_the_numbers_of_the_reference():
    spectra = mode_spectra(RECORDINGS, HARD, method="welch", **COMMON)
    assert spectra.frequencies[5] == pytest.approx(7.03125)
    expected = [
        [[0.0073843, 0.0023177], [0.0068651, 0.0024484]],
        [[0.0078542, 0.0013207], [0.0073123, 0.002409]],
    ]
    assert spectra.psd[..., 5] == pytest.approx(np.array(expected), rel=1e-4)
    expected = [[0.0539111, 0.0793314], [0.2607294, 0.3082892]]
    assert spectra.coherence[:, :, 0, 1, 5] == pytest.approx(np.array(expected), rel=1e-4)


def test_multitaper_has_the_numbers_of_the_reference():
    spectra = mode_spectra(RECORDINGS, HARD, method="multitaper", **COMMON)
    assert spectra.frequencies == pytest.approx(np.arange(5.0, 21.0))
    expected = [
        [[0.0603823, 0.0219954], [0.0533515, 0.048321]],
        [[0.0640678, 0.0332674], [0.0545493, 0.0496611]],
    ]
    assert spectra.psd[..., 5] == pytest.approx(np.array(expected), rel=1e-4)
    expected = [[0.065176, 0.1048761], [0.0287981, 0.4072096]]
    assert spectra.coherence[:, :, 0, 1, 5] == pytest.approx(np.array(expected), rel=1e-4)


def direct_regression(X, alpha, length, step, n_pieces, low, high):
    """Coefficients and intercept, window by window, as the definition has them."""
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    zeros = np.zeros((length // 2, 1))
    X = np.vstack([zeros + 0 * X[0], X, zeros + 0 * X[0]])
    padded = np.vstack([zeros + 0 * alpha[0], alpha, zeros + 0 * alpha[0]])
    piece = length // n_pieces
    taper = signal.get_window("hann", piece)
    n_fft = max(256, piece)
    densities, regressors = [], []
    for start in range(0, step * (len(alpha) // step), step):
        density, regressor = 0, 0
        for first in range(start, start + n_pieces * piece, piece):
            rows = slice(first, first + piece)
            transform = np.fft.rfft(X[rows] * taper[:, np.newaxis], n_fft, axis=0)
            density = density + np.einsum("fk,fl->klf", transform.conj(), transform) / n_pieces
            regressor = regressor + (padded[rows] * taper[:, np.newaxis]).mean(axis=0) / n_pieces
        densities.append(density * 2 / (RATE * (taper**2).sum()))
        regressors.append(regressor)
    design = np.array(regressors)
    design = (design - design.mean(axis=0)) / design.std(axis=0)
    design = np.column_stack([design, np.ones(len(design))])
    flat = np.array(densities).reshape(len(design), -1)
    fitted = np.linalg.lstsq(design, flat, rcond=None)[0].reshape(-1, *densities[0].shape)
    frequencies = np.fft.rfftfreq(n_fft, 1 / RATE)
    return fitted[..., (frequencies >= low) & (frequencies <= high)], design.max(axis=0)


@settings(max_examples=15, deadline=None)
@given(
    length=st.integers(20, 300), n_pieces=st.integers(1, 4), step=st.integers(1, 20), data=st.data()
)
def test_regression_is_the_definition(length, n_pieces, step, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    X, alpha = rng.standard_normal((400, 2)) * [3, 0.1] + 5, soft_mixing(rng, 400, 3)
    expected, largest = direct_regression(X, alpha, length, step, n_pieces, 2, 45)
    options = {
        "sampling_frequency": RATE,
        "window_length": length / RATE,
        "step": step / RATE,
        "n_sub_windows": n_pieces,
        "frequency_range": (2, 45),
        "method": "regression",
    }
    spectra = mode_spectra(X, alpha, **options)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(spectra.coefficients, expected[:-1], atol=1e-8 * scale)
    np.testing.assert_allclose(spectra.intercept, expected[-1], atol=1e-8 * scale)
    rescaled = mode_spectra(X, alpha, rescale=True, **options)
    times = largest[:-1, np.newaxis, np.newaxis, np.newaxis]
    np.testing.assert_allclose(rescaled.coefficients, expected[:-1] * times, atol=1e-7 * scale)
    np.testing.assert_allclose(rescaled.coherence, spectra.coherence, rtol=1e-6)


@pytest.mark.parametrize("n_fft_rows", [100, 300])
def test_static_mixture_is_the_spectrum_of_scipy(n_fft_rows):
    # One mode of weight 1: the mean over windows, refined or not.
    X = np.random.default_rng(0).standard_normal((1000, 2)).cumsum(axis=0) * 0.1
    X += np.random.default_rng(1).standard_normal((1000, 2))
    taper = signal.get_window("cosine", n_fft_rows)
    options = {"fs": RATE, "window": taper, "noverlap": n_fft_rows - n_fft_rows // 4}
    frequencies, expected = signal.csd(
        *(X - X.mean(axis=0)).T, detrend=False, nfft=max(256, n_fft_rows), **options
    )
    spectra = mode_spectra(X, sampling_frequency=RATE, window_length=n_fft_rows / RATE)
    assert spectra.cross_spectra.shape == (1, 2, 2, len(frequencies))
    np.testing.assert_allclose(spectra.frequencies, frequencies)
    scale = np.abs(spectra.psd).mean()
    np.testing.assert_allclose(spectra.cross_spectra[0, 0, 1], expected, atol=1e-5 * scale)


def test_static_spectrum_integrates_to_the_variance():
    X = np.random.default_rng(0).standard_normal((20_000, 3)) * [1, 10, 1e-12]
    band = mode_spectra(X, sampling_frequency=250).band(0, 125, power="integral")
    assert band.power[0] == pytest.approx(X.var(axis=0), rel=0.02)


def test_static_regression_has_coefficients_of_zero():
    X = np.random.default_rng(0).standard_normal((500, 2))
    spectra = mode_spectra(X, sampling_frequency=RATE, method="regression", rescale=True)
    assert np.all(spectra.psd == np.einsum("kkf->kf", spectra.intercept).real)
    assert np.all(spectra.coherence == 0)


# -------------------------------------------------------------------------- the default method


def known_modes(seed, n_samples=12_000):
    """Three modes of four channels with known spectra, and their mixing."""
    rng = np.random.default_rng(seed)
    alpha = soft_mixing(rng, n_samples, 3)
    X, polynomials = np.zeros((n_samples, 4)), []
    networks = rng.standard_normal((3, 4))
    for mode, peak in enumerate((8, 15, 30)):
        polynomials.append([1, -1.8 * np.cos(2 * np.pi * peak / RATE), 0.81])
        source = signal.lfilter([0.2], polynomials[-1], rng.standard_normal(n_samples))
        own = np.outer(source, networks[mode]) + 0.1 * rng.standard_normal((n_samples, 4))
        X += np.sqrt(alpha[:, [mode]]) * own

    def truth(frequencies):
        return np.stack(
            [
                np.multiply.outer(
                    np.outer(network, network),
                    np.abs(signal.freqz([0.2], one, frequencies, fs=RATE)[1]) ** 2,
                )
                + 0.01 * np.eye(4)[..., np.newaxis]
                for network, one in zip(networks, polynomials, strict=True)
            ]
        ) * (2 / RATE)

    return X, alpha, truth


@pytest.mark.parametrize("seed", [0, 1])
def test_mixture_finds_known_spectra(seed):
    X, alpha, truth = known_modes(seed)
    spectra = mode_spectra(X, alpha, sampling_frequency=RATE, frequency_range=(2, 40))
    true = truth(spectra.frequencies)
    psd = np.einsum("jkkf->jkf", true)
    assert np.linalg.norm(spectra.psd - psd) < 0.25 * np.linalg.norm(psd)
    coherence = np.abs(true) / np.sqrt(psd[:, :, np.newaxis] * psd[:, np.newaxis])
    assert np.abs(spectra.coherence - coherence).mean() < 0.1
    assert np.abs(spectra.peaks() - [8, 15, 30]).max() < 1
    # The field's regression does not come near.
    other = mode_spectra(
        X,
        alpha,
        sampling_frequency=RATE,
        frequency_range=(2, 40),
        method="regression",
        standardize=False,
    )
    assert np.linalg.norm(other.psd - psd) > 0.4 * np.linalg.norm(psd)


def test_refinement_improves_coherence():
    X, alpha, truth = known_modes(2)
    options = {"sampling_frequency": RATE, "frequency_range": (2, 40)}
    errors = []
    for n_steps in (0, 5):
        spectra = mode_spectra(X, alpha, n_refinement_steps=n_steps, **options)
        true = truth(spectra.frequencies)
        psd = np.einsum("jkkf->jkf", true)
        coherence = np.abs(true) / np.sqrt(psd[:, :, np.newaxis] * psd[:, np.newaxis])
        errors.append(np.abs(spectra.coherence - coherence).mean())
    assert errors[1] < 0.9 * errors[0]


MIXINGS = {
    "soft": lambda rng, n: soft_mixing(rng, n, 3),
    "hard": lambda rng, n: np.eye(3)[np.repeat(rng.integers(0, 3, n // 50), 50)],
    "constant": lambda rng, n: np.full((n, 3), 1 / 3),
    "silent mode": lambda rng, n: np.column_stack([soft_mixing(rng, n, 2), np.zeros(n)]),
    "one row of a mode": lambda rng, n: np.eye(3)[np.r_[2, rng.integers(0, 2, n - 1)]],
    "rows of zeros": lambda rng, n: soft_mixing(rng, n, 3) * (np.arange(n) < n // 3)[:, None],
    "all zeros": lambda rng, n: np.zeros((n, 2)),
    "more modes than windows": lambda rng, n: soft_mixing(rng, n, 30),
    "any size": lambda rng, n: 1e-9 * rng.exponential(size=(n, 2)) ** 3,
}
CHANNELS = {
    "independent": np.eye(4),
    "average reference": np.eye(4) - 1 / 4,
    "one source": np.ones((4, 4)),
    "a constant channel": np.diag([1.0, 1, 0, 1]),
    "all constant": np.zeros((4, 4)),
    "units": np.diag([1e-13, 1, 1e6, 1e-5]),
}


@pytest.mark.parametrize(
    ("kind", "n_steps"), [(np.float64, 3), (np.float32, 3), (np.float64, 0)], ids=str
)
@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_mixture_is_a_spectrum_for_any_mixing(channels, mixing, n_steps, kind):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 4)) @ CHANNELS[channels] + 1
    alpha = MIXINGS[mixing](rng, 300)
    spectra = mode_spectra(
        X.astype(kind), alpha, sampling_frequency=RATE, n_refinement_steps=n_steps
    )
    assert np.isfinite(spectra.cross_spectra).all()
    assert np.all(spectra.psd >= 0)
    assert np.all((spectra.coherence >= 0) & (spectra.coherence <= 1))
    assert np.array_equal(spectra.cross_spectra, spectra.cross_spectra.conj().swapaxes(1, 2))
    # Positive semi-definite: of the spectra with unit power, as units differ.
    power = spectra.psd[:, :, np.newaxis] * spectra.psd[:, np.newaxis]
    unit = np.divide(
        spectra.cross_spectra, np.sqrt(power), out=np.zeros(power.shape, complex), where=power > 0
    )
    assert np.linalg.eigvalsh(np.moveaxis(unit, -1, 1)).min() > (
        -1e-5 if kind is np.float32 else -1e-9
    )
    silent = ~alpha.any(axis=0)
    assert np.all(spectra.psd[silent] == 0)


@pytest.mark.parametrize("method", ["mixture", "regression", "welch", "multitaper"])
def test_mode_spectra_does_not_depend_on_offsets_units_or_order(method):
    rng = np.random.default_rng(0)
    X, alpha = rng.standard_normal((800, 3)) @ rng.standard_normal((3, 3)), soft_mixing(rng, 800, 2)
    options = {"sampling_frequency": RATE, "method": method, "standardize": False}
    spectra = mode_spectra(X, alpha, **options).cross_spectra
    units, order = np.array([1e-12, 1, 1e5]), [2, 0, 1]
    other = mode_spectra(X[:, order] * units + 10 * units, alpha[:, ::-1], **options).cross_spectra
    other = other / np.outer(units, units)[..., np.newaxis]
    expected = spectra[::-1][:, order][:, :, order]
    np.testing.assert_allclose(other, expected, atol=1e-6 * np.abs(expected).max())


def test_standardized_spectra_are_those_of_standardized_channels():
    rng = np.random.default_rng(0)
    X, alpha = rng.standard_normal((500, 2)) * [5, 0.1], soft_mixing(rng, 500, 2)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    spectra = mode_spectra(X, alpha, sampling_frequency=RATE, standardize=True)
    expected = mode_spectra(scaled, alpha, sampling_frequency=RATE)
    np.testing.assert_allclose(spectra.psd, expected.psd, rtol=1e-8)
    assert spectra.standardized
    assert not expected.standardized


@pytest.mark.parametrize(
    ("method", "step"),
    [("mixture", 0.25), ("regression", 0.25), ("welch", 0.5), ("multitaper", 1.0)],
)
def test_step_has_a_default_per_method(method, step):
    rng = np.random.default_rng(0)
    X, alpha = rng.standard_normal((500, 2)), soft_mixing(rng, 500, 2)
    options = {"sampling_frequency": RATE, "method": method}
    default = mode_spectra(X, alpha, **options).cross_spectra
    assert np.array_equal(default, mode_spectra(X, alpha, step=step, **options).cross_spectra)
    if method in ("mixture", "regression"):
        halves = mode_spectra(X, alpha, n_sub_windows=2, **options).cross_spectra
        options |= {"n_sub_windows": 2, "step": step / 2}
        assert np.allclose(halves, mode_spectra(X, alpha, **options).cross_spectra)


def test_mixture_depends_little_on_the_step():
    X, alpha, _ = known_modes(0, 6000)
    options = {"sampling_frequency": RATE, "frequency_range": (5, 35)}
    coarse = mode_spectra(X, alpha, **options)
    for step, n_pieces in [(0.05, 1), (0.05, 2)]:
        length = {"window_length": 1.0 * n_pieces, "n_sub_windows": n_pieces}
        fine = mode_spectra(X, alpha, step=step, **length, **options)
        error = np.linalg.norm(fine.cross_spectra - coarse.cross_spectra)
        assert error < 0.15 * np.linalg.norm(coarse.cross_spectra)


# ---------------------------------------------------------------------------- data in and out


def as_containers(X, alpha):
    """The same two sessions in each form: X, alpha, and keywords."""
    labels = np.repeat(["a", "b"], 300)
    yield X, alpha, {"sessions": labels}
    yield [X[:300], X[300:]], [alpha[:300], alpha[300:]], {}
    yield X.reshape(2, 300, -1), alpha.reshape(2, 300, -1), {}
    yield pd.DataFrame(X, columns=["Fz", "Cz"]), alpha, {"sessions": labels}
    yield np.asfortranarray(X), alpha.astype(np.float32).astype(float), {"sessions": labels}


@pytest.mark.parametrize("method", ["mixture", "regression", "welch", "multitaper"])
def test_sessions_are_apart_in_every_form(method):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 2))
    alpha = soft_mixing(rng, 600, 3).astype(np.float32).astype(float)
    X.flags.writeable = alpha.flags.writeable = False
    options = {"sampling_frequency": RATE, "method": method}
    alone = [mode_spectra(X[rows], alpha[rows], **options) for rows in np.split(np.arange(600), 2)]
    expected = np.stack([one.cross_spectra for one in alone])
    assert alone[0].psd.ndim == 3
    for recording, mixing, keywords in as_containers(X, alpha):
        with joblib.parallel_config("threading"):
            spectra = mode_spectra(recording, mixing, n_jobs=2, **options, **keywords)
        np.testing.assert_allclose(spectra.cross_spectra, expected, rtol=1e-6, atol=1e-9)
        assert spectra.psd.shape[:3] == (2, 3, 2)
        assert spectra.coherence.shape[:4] == (2, 3, 2, 2)
        assert spectra.weights.tolist() == [0.5, 0.5]
    assert mode_spectra(X, alpha, **options, sessions=np.zeros(600)).psd.shape[:2] == (1, 3)


def test_names_of_channels_come_from_the_frame():
    X = pd.DataFrame(np.random.default_rng(0).standard_normal((300, 2)), columns=["Fz", "Cz"])
    assert mode_spectra(X, sampling_frequency=RATE).channel_names.tolist() == ["Fz", "Cz"]
    assert mode_spectra(X.values, sampling_frequency=RATE).channel_names.tolist() == ["x0", "x1"]


def test_single_precision_gives_single_precision():
    rng = np.random.default_rng(0)
    X, alpha = rng.standard_normal((800, 3)), soft_mixing(rng, 800, 2)
    for method in ("mixture", "regression", "welch", "multitaper"):
        options = {"sampling_frequency": RATE, "method": method}
        double = mode_spectra(X, alpha, **options)
        single = mode_spectra(X.astype(np.float32), alpha.astype(np.float32), **options)
        assert double.cross_spectra.dtype == np.complex128
        assert single.cross_spectra.dtype == np.complex64
        assert single.psd.dtype == single.coherence.dtype == np.float32
        np.testing.assert_allclose(single.psd, double.psd, rtol=2e-2, atol=2e-5 * double.psd.max())


def test_integers_and_memory_maps_are_accepted(tmp_path):
    counts = np.random.default_rng(0).integers(-3000, 3000, (400, 2)).astype(np.int16)
    np.save(tmp_path / "X.npy", counts)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    expected = mode_spectra(counts.astype(float), sampling_frequency=RATE)
    np.testing.assert_allclose(mode_spectra(mapped, sampling_frequency=RATE).psd, expected.psd)


X, ALPHA = np.random.default_rng(0).standard_normal((300, 2)), np.full((300, 2), 0.5)
WRONG = {
    "unknown method": ({"method": "fourier"}, "method must be one of 'mixture', 'regression'"),
    "not a name": ({"method": ["welch"]}, "method must be one of 'mixture'"),
    "foreign parameter": ({"rescale": True}, "parameter of method='regression'"),
    "foreign tapers": ({"n_tapers": 3, "method": "welch"}, "parameter of method='multitaper'"),
    "foreign steps": ({"n_refinement_steps": 3, "method": "welch"}, "method='mixture'"),
    "rounds": (
        {"n_refinement_steps": -1},
        "n_refinement_steps must be a whole number of at least 0",
    ),
    "tapers": ({"n_tapers": 0, "method": "multitaper"}, "whole number of at least 1"),
    "bandwidth": ({"half_bandwidth": 80, "method": "multitaper"}, "need half_bandwidth above 0"),
    "rate": ({"sampling_frequency": 0}, "must be a number above 0"),
    "length": ({"window_length": -1.0}, "must be a number above 0"),
    "short": ({"window_length": 0.02}, "at least 4 rows"),
    "pieces": ({"n_sub_windows": 1.5}, "whole number of at least 1"),
    "step": ({"step": 0.001}, "at least one row"),
    "long step": ({"step": 2.0}, "step must be at most window_length"),
    "range": ({"frequency_range": (60, 70)}, "at least one of the bins"),
    "range above": ({"frequency_range": (10, 70)}, "within 0 and 50 Hz"),
    "session": ({"window_length": 4.0}, "session of 300 rows, but a window has 400"),
    "negative": ({"alpha": -ALPHA}, "not finite or below 0"),
    "missing": ({"alpha": ALPHA * np.nan}, "not finite or below 0"),
    "flat": ({"alpha": ALPHA[:, 0]}, "\\(n_samples, n_modes\\) was expected"),
    "rows": ({"alpha": ALPHA[:-1]}, "inconsistent numbers of samples"),
    "modes": ({"X": [X, X], "alpha": [ALPHA, ALPHA[:, :1]]}, "the same modes in each session"),
    "labels": ({"sessions": [0, 1]}, "Pass one label per row"),
    "both": ({"X": [X], "alpha": [ALPHA], "sessions": [0]}, "sessions= was given as well"),
    "infinite": ({"X": X * np.inf}, "contains"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mode_spectra_refuses(case):
    changes, message = WRONG[case]
    given = {"X": X, "alpha": ALPHA, "sampling_frequency": RATE} | changes
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
        mode_spectra(given.pop("X"), given.pop("alpha"), **given)
