"""Spectra of modes from a recording and its mixing coefficients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real

import numpy as np
from joblib import Parallel, delayed
from scipy.signal import get_window
from scipy.signal.windows import dpss
from sklearn.base import BaseEstimator

from skdyn.analysis.densities import ModeSpectra
from skdyn.analysis.whittle import fit_mixture
from skdyn.analysis.windows import Windows
from skdyn.preprocessing.embedding import blocks
from skdyn.sessions import Sessions, check_sessions, like_sessions

# Shortest Fourier transform in rows, as in osl-dynamics: bins of at most 1/256 of the rate.
_SHORTEST_FFT = 256
# Relative to its mean: a regressor that varies less is constant.
_CONSTANT = 1e-10


class _Recording(BaseEstimator):
    """Holds width and names of the channels while a recording is checked."""


def mode_spectra(
    X,
    alpha=None,
    *,
    sampling_frequency,
    window_length=1.0,
    step=None,
    n_sub_windows=1,
    frequency_range=None,
    method="mixture",
    n_refinement_steps=None,
    standardize=None,
    rescale=False,
    half_bandwidth=None,
    n_tapers=None,
    sessions=None,
    n_jobs=None,
):
    """Power spectra and coherence of modes.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
            (n_sessions, n_samples, n_channels)
        The recording; rows are time.
    alpha : array-like of shape (n_samples, n_modes), or as X, default=None
        Non-negative mixing coefficients, such as those of `DyNeMoEstimator`, or the posterior of
        the states of a hidden Markov model. None for a single mode of weight 1: the static
        spectrum.
    sampling_frequency : float
        Rows per second, in Hz.
    window_length : float, default=1.0
        Length of a window in seconds. Longer windows resolve frequencies better and changes of the
        mixing worse.
    step : float, default=None
        Time between the starts of two windows, in seconds. None for a quarter of a tapered
        piece (window or sub-window), half a window with "welch", a window with "multitaper".
    n_sub_windows : int, default=1
        Pieces into which each window is cut; the spectrum of a window is the mean of theirs.
    frequency_range : (float, float), default=None
        Lowest and highest frequency in Hz, both included. None for all up to half the rate.
    method : {"mixture", "regression", "welch", "multitaper"}, default="mixture"
        Estimator of the spectra, see Notes.
    n_refinement_steps : int, default=None
        Rounds in which "mixture" raises the likelihood. None for 5.
    standardize : bool, default=None
        Whether each channel of each session is brought to mean 0 and variance 1 first, so that
        spectra are in 1/Hz rather than in squared units of X per Hz. None for False with "mixture",
        for True with the other methods, by their definitions.
    rescale : bool, default=False
        Whether "regression" multiplies the coefficients of a mode by the session's largest
        z-scored regressor of that mode. Coherence stays that of the coefficients as they are.
    half_bandwidth : float, default=None
        Half bandwidth of the tapers of "multitaper", in units of one over the length of a piece.
        None for 4.
    n_tapers : int, default=None
        Number of these tapers. None for 7.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D X: a contiguous run of one label is one session.
    n_jobs : int, default=None
        Sessions at the same time, as in joblib.

    Returns
    -------
    ModeSpectra
        `frequencies`, `psd`, `coherence`, `cross_spectra` and `weights`, with `band`, `group`,
        `peaks`, `to_frame` and `plot`. Without an axis of sessions for one 2-D X without labels.

    Raises
    ------
    ValueError
        If X or alpha are not finite, do not agree, or alpha is negative; if a session is shorter
        than a window; or if a parameter is out of its range or has no meaning with the method.

    See Also
    --------
    channel_modes : Spectra that follow from the modes of a time-delay embedded recording.
    skdyn.plotting.plot_alpha : Draw mixing coefficients.

    Notes
    -----
    "mixture" follows from the model: if the covariance of a row is ``sum_j alpha_tj D_j``,
    then the cross-spectrum of a window is ``sum_j a_j S_j(f)``, where a averages alpha over the
    window, weighted by its squared taper, since a periodogram is quadratic. Least squares over
    windows estimates S_j; negative eigenvalues are set to zero. Then S_j is refined on the Whittle
    likelihood of the Fourier transforms, ``x(f) ~ CN(0, sum_j a_j S_j(f))``, by steps of
    majorisation-minimisation that have the fixed points of EM. Spectra are positive semi-definite,
    so that power is not negative and coherence is within 0 and 1 for any alpha, and do not depend
    on the units of channels. A mode that never occurs has no power. Windows lie inside the session
    and have a sine taper; densities integrate to variances.

    "regression" is the field's definition [1]_. Windows begin half a window before the session,
    amid zeros, and there is one for each step of it. Cross-spectra with a Hann taper are regressed
    on z-scored windowed alpha, with an intercept. The density of a mode is its coefficient plus the
    intercept, and may be negative; "coherence" divides coefficients by the intercept, and may
    exceed 1.

    "welch" and "multitaper" are the spectra of X times alpha, divided by the mean of alpha squared:
    the field's definitions for hard states. Windows are as in "regression"; tapers are Hann windows
    or discrete prolate spheroidal sequences. All three double densities at 0 and at half the rate.

    Fourier transforms have at least 256 rows, with "multitaper" those of a piece.

    References
    ----------
    .. [1] Gohil, C., et al. (2022). Mixtures of large-scale dynamic functional brain network modes.
       NeuroImage 263, 119595.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.analysis import mode_spectra
    >>> seconds = np.arange(6000) / 100
    >>> slow = 0.5 + 0.5 * np.sin(2 * np.pi * seconds / 10)
    >>> alpha = np.column_stack([slow, 1 - slow])
    >>> waves = [np.sin(2 * np.pi * rate * seconds) for rate in (10, 20)]
    >>> noise = np.random.default_rng(0).standard_normal((6000, 2))
    >>> X = np.sqrt(alpha[:, [0]]) * waves[0][:, None] + np.sqrt(alpha[:, [1]]) * waves[1][:, None]
    >>> spectra = mode_spectra(X + 0.1 * noise, alpha, sampling_frequency=100)
    >>> spectra.psd.shape
    (2, 2, 129)
    >>> spectra.peaks().round()
    array([10., 20.])
    """
    recording, courses, names = _check_data(X, alpha, sessions)
    given = {
        "n_refinement_steps": n_refinement_steps,
        "rescale": rescale or None,
        "half_bandwidth": half_bandwidth,
        "n_tapers": n_tapers,
    }
    chosen = _check_method(method, given)
    if not isinstance(standardize, bool | np.bool_ | None):
        raise TypeError(
            f"standardize is {standardize!r:.50}, but True, False or None was expected."
        )
    standardize = chosen.standardize if standardize is None else bool(standardize)
    lengths = [len(one) for one in recording.arrays]
    windows = _windows(
        *(chosen, sampling_frequency, window_length, step, n_sub_windows, frequency_range, given),
        shortest=min(lengths),
    )
    single = all(one.dtype == np.float32 for one in recording.arrays)
    compute = partial(_one_session, chosen, windows, standardize, single, given)
    results = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(compute)(*one) for one in zip(recording.arrays, courses, strict=True)
    )
    has_axis = recording.container != "array" or sessions is not None
    arrays = {
        name: array if has_axis else array[0] for name, array in _stacked(results, lengths).items()
    }
    return ModeSpectra(
        frequencies=windows.bins * float(sampling_frequency) / windows.n_fft,
        weights=np.array(lengths) / sum(lengths),
        channel_names=names,
        standardized=standardize,
        **arrays,
    )


# ------------------------------------------------------------------------------------ methods


def _mixture(rows, alpha, windows, given):
    """Least squares without an intercept, refined by likelihood."""
    starts = windows.starts(len(rows))
    weights = _windowed(alpha, windows, starts, windows.tapers[0] ** 2)
    fit = np.vstack([np.linalg.pinv(weights), np.full(len(starts), 1 / len(starts))])
    sums = _sums_over_windows(rows, windows, starts, fit)

    # Windows that overlap by more than three quarters hardly differ in their mixing.
    n_close = max(1, min(windows.length // 4 // windows.step, len(starts)))
    n_units = len(starts) // n_close
    units = starts[: n_units * n_close].reshape(n_units, -1)
    weights = weights[: n_units * n_close].reshape(n_units, n_close, -1).mean(axis=1)

    def read():
        transformed = max(windows.n_fft, 2 * len(windows.bins)) * units.shape[1] * rows.shape[1]
        size = max(transformed, 2 * len(windows.bins) * rows.shape[1] ** 2)
        for block in blocks(n_units, size):
            pieces = windows.spectra(rows, units[block].ravel())
            pieces = pieces.reshape(len(windows.bins), -1, units.shape[1], rows.shape[1])
            yield block, pieces.transpose(1, 0, 3, 2)

    n_steps = given["n_refinement_steps"]
    n_steps = 5 if n_steps is None else int(n_steps)
    return {"cross_spectra": fit_mixture(sums[:-1], sums[-1], weights, read, n_steps)}


def _regression(rows, alpha, windows, given):
    """The field's regression on z-scored windowed alpha, with an intercept."""
    padded = windows.padded(alpha)
    rows = windows.padded(rows)
    starts = windows.starts(len(alpha))
    regressors = _windowed(padded, windows, starts, windows.tapers[0])
    spread = regressors.std(axis=0)
    # Padding with zeros makes a constant vary at both ends, which is no change of the mixing.
    varies = np.ptp(alpha, axis=0) > _CONSTANT * np.abs(alpha).max(axis=0)
    varies &= spread > _CONSTANT * regressors.max(axis=0)
    regressors = (regressors - regressors.mean(axis=0)) * varies / np.where(varies, spread, 1)
    design = np.column_stack([regressors, np.ones(len(regressors))])
    sums = _sums_over_windows(rows, windows, starts, np.linalg.pinv(design))
    scale = regressors.max(axis=0) * varies + ~varies if given["rescale"] else np.ones(len(varies))
    return {
        "cross_spectra": sums[:-1] * _per_mode(scale) + sums[-1],
        "intercept": sums[-1],
        "coefficient_scale": scale,
    }


def _of_states(rows, alpha, windows, given):
    """Mean over windows of the spectra of the recording times the mixing of each mode."""
    starts = windows.starts(len(rows))
    weights = np.full((1, len(starts)), 1 / len(starts))
    share = (alpha**2).mean(axis=0)
    spectra = [
        _sums_over_windows(windows.padded(rows * own[:, np.newaxis]), windows, starts, weights)[0]
        for own in alpha.T
    ]
    scale = np.divide(1, share, out=np.zeros_like(share), where=share > 0)
    return {"cross_spectra": np.stack(spectra) * _per_mode(scale)}


@dataclass(frozen=True)
class _Method:
    """An estimator of spectra."""

    estimate: Callable
    # Function from the rows of a piece and the given parameters to tapers.
    tapers: Callable
    # Rows of a window, or of a piece with `steps_by_piece`, per step.
    steps: float
    steps_by_piece: bool
    is_padded: bool
    standardize: bool
    shortest_fft: int
    parameters: frozenset


def _sine(n_rows, given):
    return get_window("cosine", n_rows)[np.newaxis]


def _hann(n_rows, given):
    return get_window("hann", n_rows)[np.newaxis]


def _prolate(n_rows, given):
    half_bandwidth = 4 if given["half_bandwidth"] is None else given["half_bandwidth"]
    n_tapers = 7 if given["n_tapers"] is None else given["n_tapers"]
    if not 0 < half_bandwidth < n_rows / 2 or n_tapers > n_rows:
        raise ValueError(
            f"half_bandwidth={half_bandwidth!r} and n_tapers={n_tapers!r} do not fit pieces of "
            f"{n_rows} rows, which need half_bandwidth above 0 and below {n_rows / 2:g}, and at "
            f"most {n_rows} tapers. Lengthen the windows."
        )
    return dpss(n_rows, half_bandwidth, n_tapers)


_FIELD = {"is_padded": True, "standardize": True}
_METHODS = {
    "mixture": _Method(
        estimate=_mixture,
        tapers=_sine,
        steps=4,
        steps_by_piece=True,
        is_padded=False,
        standardize=False,
        shortest_fft=_SHORTEST_FFT,
        parameters=frozenset({"n_refinement_steps"}),
    ),
    "regression": _Method(
        estimate=_regression,
        tapers=_hann,
        steps=4,
        steps_by_piece=True,
        shortest_fft=_SHORTEST_FFT,
        parameters=frozenset({"rescale"}),
        **_FIELD,
    ),
    "welch": _Method(
        estimate=_of_states,
        tapers=_hann,
        steps=2,
        steps_by_piece=False,
        shortest_fft=_SHORTEST_FFT,
        parameters=frozenset(),
        **_FIELD,
    ),
    "multitaper": _Method(
        estimate=_of_states,
        tapers=_prolate,
        steps=1,
        steps_by_piece=False,
        shortest_fft=1,
        parameters=frozenset({"half_bandwidth", "n_tapers"}),
        **_FIELD,
    ),
}


def _one_session(method, windows, standardize, single, given, session, alpha):
    """Cross-spectra of the modes in one session, channels and frequencies in public order."""
    rows = np.array(session, dtype=np.float64)
    rows -= rows.mean(axis=0)
    deviation = rows.std(axis=0)
    largest = np.abs(session).max(axis=0).astype(np.float64)
    deviation[deviation <= 10 * np.finfo(np.float64).eps * largest] = 0
    # The result must not depend on the units of channels; a constant channel has no power.
    rows *= np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    rows = rows.astype(np.float32 if single else np.float64, copy=False)
    found = method.estimate(rows, alpha, windows, given)
    scale = np.ones_like(deviation) if standardize else deviation
    unit = np.multiply.outer(scale, scale)
    kind = np.complex64 if single else np.complex128
    for name in {"cross_spectra", "intercept"} & set(found):
        found[name] = np.moveaxis(found[name] * unit, -3, -1).astype(kind)
    return found


def _per_mode(numbers):
    """A number per mode, to multiply cross-spectra with."""
    return numbers[:, np.newaxis, np.newaxis, np.newaxis]


def _stacked(results, lengths) -> dict[str, np.ndarray]:
    """Arrays of all sessions, each filled as soon as its session is there."""
    stacked: dict[str, np.ndarray] = {}
    for number, found in enumerate(results):
        for name, array in found.items():
            if name not in stacked:
                stacked[name] = np.empty((len(lengths), *array.shape), dtype=array.dtype)
            stacked[name][number] = array
    return stacked


def _windowed(alpha, windows, starts, weights):
    """Mean alpha of each window."""
    means = windows.means(alpha, starts.ravel(), weights)
    return means.reshape(*starts.shape, -1).mean(axis=1)


def _sums_over_windows(rows, windows, starts, weights):
    """Weighted sums over windows of their cross-spectra; each piece is transformed once."""
    flat, places = np.unique(starts.ravel(), return_inverse=True)
    each = np.repeat(weights / starts.shape[1], starts.shape[1], axis=1)
    weights = np.stack([np.bincount(places.ravel(), one, len(flat)) for one in each])
    return windows.weighted_sums(rows, flat, weights)


# ------------------------------------------------------------------------------------- checks


def _check_data(X, alpha, sessions) -> tuple[Sessions, list[np.ndarray], np.ndarray]:
    """The recording, mixing coefficients per session, and names of the channels."""
    reader = _Recording()
    recording = check_sessions(reader, X, sessions, reset=True)
    n_channels = recording.arrays[0].shape[1]
    numbered = [f"x{channel}" for channel in range(n_channels)]
    names = np.array(getattr(reader, "feature_names_in_", numbered), dtype=object)
    if alpha is None:
        return recording, [np.ones((len(one), 1)) for one in recording.arrays], names
    courses = like_sessions(recording, alpha, "alpha")
    shapes = {one.shape[1:] for one in courses}
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        raise ValueError(
            f"alpha has shapes {[one.shape for one in courses]}, but (n_samples, n_modes) was "
            "expected, the same modes in each session."
        )
    lowest = min(one.min() for one in courses)
    if not (all(np.isfinite(one).all() for one in courses) and lowest >= 0):
        raise ValueError(
            f"alpha has values that are not finite or below 0 (the lowest is {lowest:.3g}), but "
            "mixing coefficients were expected. Pass an output of transform."
        )
    return recording, courses, names


def _check_method(method, given) -> _Method:
    chosen = _METHODS.get(method) if isinstance(method, str) else None
    if chosen is None:
        raise ValueError(
            f"method must be one of {', '.join(map(repr, _METHODS))}, but is {method!r}."
        )
    for name, value in given.items():
        if value is not None and name not in chosen.parameters:
            owner = next(one for one, other in _METHODS.items() if name in other.parameters)
            raise ValueError(
                f"{name}={value!r} has no effect with method={method!r}, because it is a parameter "
                f"of method={owner!r}. Leave it out."
            )
    for name in ("n_refinement_steps", "n_tapers"):
        least = int(name == "n_tapers")
        value = given[name]
        if value is not None and not (_is_count(value) and value >= least):
            raise ValueError(
                f"{name} must be a whole number of at least {least}, but is {value!r}."
            )
    return chosen


def _windows(
    method, rate, length, step, n_pieces, frequency_range, given, *, shortest: int
) -> Windows:
    """Windows in rows, from seconds and Hz."""
    for name, value in [("sampling_frequency", rate), ("window_length", length)]:
        if not (isinstance(value, Real) and 0 < float(value) < np.inf):
            raise ValueError(f"{name} must be a number above 0, but is {value!r}.")
    if not (_is_count(n_pieces) and n_pieces >= 1):
        raise ValueError(
            f"n_sub_windows must be a whole number of at least 1, but is {n_pieces!r}."
        )
    n_rows, rate = round(length * rate), float(rate)
    piece = n_rows // int(n_pieces)
    if piece < 4:
        raise ValueError(
            f"window_length={length} s at sampling_frequency={rate:g} Hz is {n_rows} rows, too few "
            f"for {n_pieces} pieces of at least 4 rows. Lengthen window_length."
        )
    if shortest < n_rows:
        raise ValueError(
            f"X has a session of {shortest} rows, but a window has {n_rows}. Shorten "
            "window_length, or leave the session out."
        )
    rows_of_step = max(1, int((piece if method.steps_by_piece else n_rows) // method.steps))
    if step is not None:
        if not (isinstance(step, Real) and 0 < float(step) < np.inf) or round(step * rate) < 1:
            raise ValueError(
                f"step must be at least one row, {1 / rate:g} s at {rate:g} Hz, but is {step!r} s."
            )
        rows_of_step = round(step * rate)
    if rows_of_step > n_rows:
        raise ValueError(
            f"step must be at most window_length={length} s, so that no row is left out, but is "
            f"{step!r} s."
        )
    n_fft = max(method.shortest_fft, piece)
    frequencies = np.arange(n_fft // 2 + 1) * rate / n_fft
    bins = _bins(frequencies, frequency_range)
    tapers = method.tapers(piece, given)
    tapers = tapers / np.linalg.norm(tapers, axis=1, keepdims=True)
    doubled = np.full(len(bins), 2.0)
    if not method.is_padded:
        # The bins at 0 and at half the rate have no negative counterpart.
        doubled[(bins == 0) | (2 * bins == n_fft)] = 1
    sizes = {"length": n_rows, "step": rows_of_step, "n_pieces": int(n_pieces), "n_fft": n_fft}
    return Windows(
        **sizes, tapers=tapers, bins=bins, scale=doubled / rate, is_padded=method.is_padded
    )


def _bins(frequencies, frequency_range):
    """Numbers of the bins within a range."""
    if frequency_range is None:
        return np.arange(len(frequencies))
    ends = np.asarray(frequency_range)
    low, high = ends if ends.shape == (2,) and ends.dtype.kind in "iuf" else (np.nan, np.nan)
    inside = np.flatnonzero((frequencies >= low) & (frequencies <= high))
    if not len(inside) or high > frequencies[-1] * (1 + 1e-9):
        raise ValueError(
            f"frequency_range must be (low, high) within 0 and {frequencies[-1]:g} Hz, with at "
            f"least one of the bins, {frequencies[1]:.4g} Hz apart, but is {frequency_range!r}."
        )
    return inside


def _is_count(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
