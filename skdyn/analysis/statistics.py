"""Statistics of mixing coefficients: weight, lifetime and switching rate of each mode."""

from __future__ import annotations

from numbers import Real

import numpy as np
from scipy.special import entr, logit
from sklearn.mixture import GaussianMixture
from sklearn.utils import Bunch

from skdyn._drawing import (
    INK,
    LABEL_SIZE,
    PALETTE,
    draw_legend,
    draw_points,
    mode_palette,
    panels,
    tidy,
)
from skdyn.sessions import (
    Sessions,
    as_numbers,
    check_columns,
    container_of,
    naming,
    split_sessions,
)

# Columns of the table, and their axis labels in the figure.
COLUMNS = {
    "mean": "Mean mixing coefficient",
    "standard_deviation": "SD of mixing coefficient",
    "kurtosis": "Excess kurtosis",
    "normalised_weight": "Normalised weight",
    "normalised_standard_deviation": "SD of normalised weight",
    "normalised_kurtosis": "Excess kurtosis, normalised",
    "occupancy": "Occupancy",
    "mean_lifetime": "Mean lifetime (s)",
    "mean_interval": "Mean interval (s)",
    "switching_rate": "Switching rate (Hz)",
    "fano_factor": "Fano factor",
    "n_visits": "Visits",
}
# Largest number of values that the two Gaussians of binarize="mixture" are fitted to, and the
# smallest coefficient; logits of smaller ones are clipped.
MOST_VALUES, SMALLEST = 100_000, 1e-9

# Largest mixing coefficient for which sums of products stay finite.
LARGEST = 1e100


def normalised_alpha(alpha, covariances, *, sessions=None):
    r"""Mixing coefficients weighted by the size of the modes.

    .. math::

        a_{tj} = \frac{\alpha_{tj} \, tr(D_j)}{\sum_k \alpha_{tk} \, tr(D_k)}

    is the share of the variance at time t that mode j explains, summed over channels. A raw mixing
    coefficient is not such a share: a mode of small variance needs a larger one to explain as much.

    Parameters
    ----------
    alpha : array-like of shape (n_samples, n_modes), list of such, or array of shape \
            (n_sessions, n_samples, n_modes)
        Non-negative mixing coefficients, or posterior probabilities of states.
    covariances : array-like of shape (n_modes, n_channels, n_channels), (n_modes, n_channels) or \
            (n_sessions, n_modes, n_channels, n_channels)
        Covariances of the modes, their diagonals, or those of each session. They define the
        variance: with covariances of PCA components, shares refer to the variance of components.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D alpha. It matters for covariances of each session alone.

    Returns
    -------
    ndarray of shape (n_samples, n_modes), or as alpha
        Shares without unit, from 0 to 1; each row sums to one. A row whose modes have no variance
        gets equal shares.

    Raises
    ------
    ValueError
        If alpha is negative or not finite, or covariances do not match it.

    Examples
    --------
    >>> from skdyn.analysis import normalised_alpha
    >>> normalised_alpha([[0.5, 0.5], [0.75, 0.25]], [[[1.0]], [[3.0]]])
    array([[0.25, 0.75],
           [0.5 , 0.5 ]])
    """
    mixing = check_mixing(alpha, sessions)
    return mixing.like_input(_weighted(mixing.arrays, covariances))


def check_mixing(alpha, sessions=None) -> Sessions:
    """Check mixing coefficients and split them into sessions.

    Parameters
    ----------
    alpha : array-like of shape (n_samples, n_modes), list of such, or array of shape \
            (n_sessions, n_samples, n_modes)
        Mixing coefficients.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D alpha.

    Returns
    -------
    Sessions
        The sessions, in double precision.

    Raises
    ------
    ValueError
        If a value is negative or not finite, or sessions differ in their number of modes.
    """
    first = alpha if container_of(alpha, name="alpha") == "array" else alpha[0]
    with naming("alpha"):
        n_axes = np.ndim(first)
    if n_axes != 2:
        raise ValueError(
            f"alpha has shape {np.shape(first)}, but (n_samples, n_modes) was expected. For the "
            "states of a hidden Markov model pass its posterior probabilities, or "
            "numpy.eye(n)[states]."
        )
    checked = check_columns(alpha, sessions, n_columns=np.shape(first)[1], name="alpha")
    lowest = min(float(array.min()) for array in checked.arrays)
    if lowest < 0:
        raise ValueError(
            f"alpha has a mixing coefficient of {lowest:.3g}, but none below 0 was expected. For "
            "theta pass its softmax."
        )
    highest = max(float(array.max()) for array in checked.arrays)
    if highest > LARGEST:
        raise ValueError(
            f"alpha has a mixing coefficient of {highest:.3g}, but numbers about 1 were expected."
        )
    return Sessions([array.astype(np.float64) for array in checked.arrays], checked.container)


def _weighted(arrays: list[np.ndarray], covariances) -> list[np.ndarray]:
    """`normalised_alpha` of each session."""
    sizes = _sizes(covariances, len(arrays), arrays[0].shape[1])
    weighted = []
    for array, size in zip(arrays, sizes, strict=True):
        product = array * size
        total = product.sum(axis=1, keepdims=True)
        equal = np.full_like(product, 1 / product.shape[1])
        weighted.append(np.divide(product, total, out=equal, where=total > 0))
    return weighted


def _sizes(covariances, n_sessions: int, n_modes: int) -> np.ndarray:
    """Traces of the modes of each session."""
    values = as_numbers(covariances, "covariances")
    expected = {2: (n_modes,), 3: (n_modes,), 4: (n_sessions, n_modes)}.get(values.ndim)
    is_square = values.ndim == 2 or values.shape[-1:] == values.shape[-2:-1]
    if expected is None or values.shape[: len(expected)] != expected or not is_square:
        raise ValueError(
            f"covariances has shape {values.shape} for {n_modes} modes and {n_sessions} sessions, "
            "but (n_modes, n_channels, n_channels), (n_modes, n_channels) or (n_sessions, n_modes, "
            "n_channels, n_channels) was expected."
        )
    traces = values.sum(axis=1) if values.ndim == 2 else np.trace(values, axis1=-2, axis2=-1)
    if not (np.isfinite(traces).all() and (traces >= 0).all()):
        raise ValueError(
            "covariances has a trace that is below 0 or not finite, but variances were expected."
        )
    return np.broadcast_to(traces, (n_sessions, n_modes))


class ModeStatistics(Bunch):
    """Statistics of the modes of each session.

    A Bunch: a dictionary whose values are also attributes, returned by `mode_statistics`. The
    axis of sessions is missing everywhere if alpha was one 2-D array without `sessions`.

    Parameters
    ----------
    **values
        The attributes below.

    Attributes
    ----------
    mean, standard_deviation, kurtosis : ndarray of shape (n_sessions, n_modes)
        Moments of the mixing coefficients over rows; excess kurtosis, 0 for a Gaussian, NaN for a
        constant.
    normalised_weight, normalised_standard_deviation, normalised_kurtosis : ndarray of shape \
            (n_sessions, n_modes)
        The same of `normalised_alpha`; only with covariances. `normalised_weight` is the mean
        share of the variance.
    occupancy : ndarray of shape (n_sessions, n_modes)
        Share of the rows in which the mode is active, from 0 to 1.
    n_visits : ndarray of int of shape (n_sessions, n_modes)
        Runs of rows in which the mode is active, those at the first and the last row included.
    mean_lifetime : ndarray of shape (n_sessions, n_modes)
        Mean length of these runs, in seconds; NaN without runs.
    mean_interval : ndarray of shape (n_sessions, n_modes)
        Mean length of the gaps between runs, in seconds; NaN with fewer than two runs.
    switching_rate : ndarray of shape (n_sessions, n_modes)
        Runs per second, in Hz. A run that starts in the first row counts.
    fano_factor : ndarray of shape (n_sessions, n_modes)
        Variance of the number of runs that start in a window of `fano_window` seconds, by its
        mean: 1 if they start at random, 0 if regularly. The start of a run that is active in the
        first row was not observed and does not count. NaN if no run starts, or with fewer than
        two windows.
    lifetimes, intervals : list of list of ndarray
        All of them in seconds, for each session and mode.
    transition_matrix : ndarray of shape (n_sessions, n_modes, n_modes)
        Probability that row t + 1 has mode j as its largest if row t has mode i; rows sum to one,
        and are NaN for a mode that is never left. It refers to the largest mode for any `binarize`.
    entropy : ndarray of shape (n_sessions,)
        Mean over rows of -sum_j a_j log a_j, in nats, of coefficients divided by their sum: 0 if
        each row is one mode alone, log(n_modes) if all modes have equal weight throughout.
    sessions : list
        Names of the sessions: their labels, or 0, 1, ...
    sampling_frequency, fano_window : float
        As given, in Hz and seconds.
    """

    def __repr__(self):
        sessions = f"{len(self.occupancy)} sessions, " if np.ndim(self.occupancy) == 2 else ""
        n_modes = np.shape(self.occupancy)[-1]
        return f"<ModeStatistics: {sessions}{n_modes} modes, at {self.sampling_frequency:g} Hz>"

    def to_frame(self):
        """Return a table with one row per session and mode.

        Returns
        -------
        pandas.DataFrame
            Indexed by session and mode, in the units of the arrays. `entropy` is that of the
            session.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        import pandas as pd

        names = [name for name in COLUMNS if name in self]
        columns = {name: np.ravel(self[name]) for name in names}
        n_modes = np.shape(self.occupancy)[-1]
        columns["entropy"] = np.repeat(np.ravel(self.entropy), n_modes)
        index = pd.MultiIndex.from_product(
            [self.sessions, range(n_modes)], names=["session", "mode"]
        )
        return pd.DataFrame(columns, index=index)

    def plot(self, names=None, *, groups=None, ax=None, fig=None):
        """Draw statistics by mode: a point per session, and a line at their mean.

        Parameters
        ----------
        names : sequence of str, default=None
            Columns of the table to draw, a panel each. None draws the weight, normalised where
            covariances were given, the occupancy, the lifetime and the switching rate.
        groups : array-like of shape (n_sessions,), default=None
            Label of each session: sessions of one label get one colour, and the outline of their
            distribution where there are at least five.
        ax : Axes or sequence of Axes, default=None
            Axes to draw into, one per statistic; mutually exclusive with `fig`.
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.

        Returns
        -------
        fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_statistics,)
            The figure and its panels.

        Raises
        ------
        ValueError
            If a statistic is unknown, or labels and sessions do not agree.
        """
        weight = "normalised_weight" if "normalised_weight" in self else "mean"
        names = [weight, "occupancy", "mean_lifetime", "switching_rate"] if names is None else names
        unknown = [name for name in names if name not in COLUMNS or name not in self]
        if unknown:
            known = ", ".join(name for name in COLUMNS if name in self)
            raise ValueError(f"names has unknown statistics {unknown}. Pass some of {known}.")
        n_sessions, n_modes = np.atleast_2d(self.occupancy).shape
        labels = None if groups is None else np.asarray(groups)
        if labels is not None and labels.shape != (n_sessions,):
            raise ValueError(
                f"groups has shape {labels.shape}, but there are {n_sessions} sessions. Pass one "
                "label per session."
            )
        width = max(2.2, 0.45 * n_modes + 0.9)
        n_columns = min(len(names), 4 if n_modes <= 6 else 2)
        size = (width * n_columns, 2.3 * -(-len(names) // n_columns))
        fig, axes = panels(len(names), ax, fig, size, n_columns=n_columns)
        for panel, name in zip(axes, names, strict=True):
            _draw_statistic(panel, np.atleast_2d(self[name]), labels)
            panel.set_ylabel(COLUMNS[name], size=LABEL_SIZE, color=INK)
            panel.set_xlabel("Mode", size=LABEL_SIZE, color=INK)
        if labels is not None:
            # Above the panel, where it cannot lie on data.
            draw_legend(axes[0], len(set(labels.tolist())))
        return fig, axes


def mode_statistics(
    alpha,
    *,
    sampling_frequency,
    sessions=None,
    covariances=None,
    binarize="argmax",
    fano_window=5.0,
):
    """Occupancy, lifetimes, switching and more of mixing coefficients.

    Parameters
    ----------
    alpha : array-like of shape (n_samples, n_modes), list of such, or array of shape \
            (n_sessions, n_samples, n_modes)
        Non-negative mixing coefficients, or posterior probabilities of states, of any model.
    sampling_frequency : float
        Rows per second, in Hz.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D alpha: a contiguous run of one label is one session.
    covariances : array-like of shape (n_modes, n_channels, n_channels), (n_modes, n_channels) or \
            (n_sessions, n_modes, n_channels, n_channels), default=None
        Covariances of the modes, for the normalised weights, see `normalised_alpha`.
    binarize : {"argmax", "mixture"} or float in (0, 1), default="argmax"
        Criterion for an active mode. "argmax": it is the largest of its row, the first of equal
        ones. "mixture": the larger component of a mixture of two Gaussians, fitted to the logits
        of its coefficients in all sessions, is more likely. A number: its coefficient exceeds that
        threshold. Except with "argmax", several modes or none can be active at the same time.
    fano_window : float, default=5.0
        Length of the windows of the Fano factor, in seconds.

    Returns
    -------
    ModeStatistics
        Arrays with a row per session; `to_frame()` returns a table, `plot()` draws them.

    Raises
    ------
    ValueError
        If alpha is negative or not finite, covariances do not match it, or a parameter is out of
        its range.

    See Also
    --------
    normalised_alpha : Mixing coefficients weighted by the size of the modes.
    permutation_test : Compare groups or conditions by these statistics.

    Notes
    -----
    Occupancy, lifetime, interval and Fano factor are defined as in osl-dynamics, with equal
    results. The switching rate differs: in osl-dynamics a run that is active in the first row of a
    session is not a switch, so that the rate of this mode is too low by one run per session. Here
    it counts, so that the rate times the duration is the number of runs. In both, runs cut short by
    the ends of a session count with their observed length.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.analysis import mode_statistics
    >>> alpha = np.eye(2)[[0, 0, 1, 1, 1, 0, 0, 0, 0, 1]]
    >>> statistics = mode_statistics(alpha, sampling_frequency=10)
    >>> statistics.occupancy
    array([0.6, 0.4])
    >>> statistics.mean_lifetime
    array([0.3, 0.2])
    >>> statistics.switching_rate
    array([2., 2.])
    """
    _check_positive(sampling_frequency, "sampling_frequency", "Hz")
    _check_positive(fano_window, "fano_window", "seconds")
    mixing = check_mixing(alpha, sessions)
    window = max(1, round(fano_window * sampling_frequency))
    active = active_modes(mixing.arrays, binarize)
    found = [
        _of_alpha(array, "mean", "standard_deviation", "kurtosis")
        | _of_courses(course, sampling_frequency, window)
        | {"transition_matrix": _transitions(array), "entropy": _entropy(array)}
        for array, course in zip(mixing.arrays, active, strict=True)
    ]
    if covariances is not None:
        names = "normalised_weight", "normalised_standard_deviation", "normalised_kurtosis"
        for values, array in zip(found, _weighted(mixing.arrays, covariances), strict=True):
            values |= _of_alpha(array, *names)
    is_one = mixing.container == "array" and sessions is None
    lists = {name: [one[name] for one in found] for name in found[0]}
    kept = {
        name: values if name in ("lifetimes", "intervals") else np.array(values)
        for name, values in lists.items()
    }
    return ModeStatistics(
        **{name: values[0] if is_one else values for name, values in kept.items()},
        sessions=session_names(mixing.arrays, sessions),
        sampling_frequency=float(sampling_frequency),
        fano_window=float(fano_window),
    )


def session_names(parts: list, sessions=None) -> list:
    """Names of sessions in tables.

    Parameters
    ----------
    parts : list
        The sessions.
    sessions : array-like of shape (n_samples,), default=None
        Labels of rows that the sessions were split by.

    Returns
    -------
    list
        The label of each session, or 0, 1, ... without labels or if two sessions share one.
    """
    numbers = list(range(len(parts)))
    if sessions is None:
        return numbers
    labels = np.asarray(sessions)
    names = [part[0] for part in split_sessions(labels, labels)]
    return names if len(set(names)) == len(names) else numbers


def _check_positive(value, name: str, unit: str) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and 0 < float(value) < np.inf):
        raise ValueError(f"{name} must be a number above 0, in {unit}, but is {value!r}.")


def _of_alpha(alpha: np.ndarray, *names: str) -> dict[str, np.ndarray]:
    """Mean, standard deviation and excess kurtosis over rows, by name."""
    is_varying = np.ptp(alpha, axis=0) > 0
    centred = alpha - alpha.mean(axis=0)
    variance, fourth = (centred**2).mean(axis=0), (centred**4).mean(axis=0)
    undefined = np.full(alpha.shape[1], np.nan)
    peaks = np.divide(fourth, variance**2, out=undefined, where=is_varying & (variance > 0)) - 3
    moments = alpha.mean(axis=0), np.sqrt(variance), peaks
    return dict(zip(names, moments, strict=True))


def active_modes(arrays: list[np.ndarray], binarize) -> list[np.ndarray]:
    """Find the active modes of each row.

    Parameters
    ----------
    arrays : list of ndarray of shape (n_samples, n_modes)
        Mixing coefficients of sessions.
    binarize : {"argmax", "mixture"} or float in (0, 1)
        As in `mode_statistics`.

    Returns
    -------
    list of ndarray of bool of shape (n_samples, n_modes)
        Whether a mode is active.

    Raises
    ------
    ValueError
        If binarize is something else.
    """
    if isinstance(binarize, str) and binarize == "argmax":
        return [np.eye(array.shape[1], dtype=bool)[array.argmax(axis=1)] for array in arrays]
    if isinstance(binarize, str) and binarize == "mixture":
        rows = np.concatenate(arrays)
        columns = np.stack([_above_mixture(column) for column in rows.T], axis=1)
        return np.split(columns, np.cumsum([len(array) for array in arrays])[:-1])
    if isinstance(binarize, Real) and 0 < float(binarize) < 1:
        return [array > float(binarize) for array in arrays]
    raise ValueError(
        f"binarize must be 'argmax', 'mixture' or a number between 0 and 1, but is {binarize!r}."
    )


def _above_mixture(values: np.ndarray) -> np.ndarray:
    """Whether the larger of two Gaussians, fitted to the logits, is the likelier; never if flat."""
    logits = logit(np.clip(values, SMALLEST, 1 - SMALLEST))
    if np.ptp(logits) == 0:
        return np.zeros(len(values), dtype=bool)
    logits = (logits - logits.mean()) / logits.std()
    some = logits[:: 1 + len(logits) // MOST_VALUES, np.newaxis]
    if len(some) < 2 or np.ptp(some) == 0:
        return logits > 0
    low, high = np.percentile(some, [25, 75])
    means = [[low], [high if high > low else float(some.max())]]
    mixture = GaussianMixture(2, means_init=means, random_state=0, tol=1e-5, max_iter=1000)
    mixture.fit(some)
    upper = int(mixture.means_[:, 0].argmax())
    between = mixture.predict(logits[:, np.newaxis]) == upper
    # Of two Gaussians, the wider one is the likelier far out on both sides.
    lowest, highest = np.sort(mixture.means_[:, 0])
    return (between & (logits > lowest)) | (logits > highest)


def _of_courses(active: np.ndarray, rate: float, window: int) -> dict:
    """Statistics of the runs of each mode; `active` is (n_samples, n_modes), the window in rows."""
    n_rows = len(active)
    edges = np.diff(np.pad(active.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    starts = [np.flatnonzero(column == 1) for column in edges.T]
    ends = [np.flatnonzero(column == -1) for column in edges.T]
    pairs = list(zip(starts, ends, strict=True))
    lifetimes = [(end - start) / rate for start, end in pairs]
    intervals = [(start[1:] - end[:-1]) / rate for start, end in pairs]
    n_visits = np.array([len(start) for start in starts])
    return {
        "occupancy": active.mean(axis=0),
        "n_visits": n_visits,
        "mean_lifetime": _means(lifetimes),
        "mean_interval": _means(intervals),
        "switching_rate": n_visits * rate / n_rows,
        "fano_factor": np.array([_fano_factor(start, n_rows, window) for start in starts]),
        "lifetimes": lifetimes,
        "intervals": intervals,
    }


def _means(values: list[np.ndarray]) -> np.ndarray:
    return np.array([one.mean() if len(one) else np.nan for one in values])


def _fano_factor(starts: np.ndarray, n_rows: int, window: int) -> float:
    n_windows = n_rows // window
    seen = starts[(starts > 0) & (starts < n_windows * window)]
    if n_windows < 2 or len(seen) == 0:
        return np.nan
    counts = np.bincount(seen // window, minlength=n_windows)
    return float(counts.var() / counts.mean())


def _transitions(alpha: np.ndarray) -> np.ndarray:
    states, n_modes = alpha.argmax(axis=1), alpha.shape[1]
    pairs = np.bincount(states[:-1] * n_modes + states[1:], minlength=n_modes**2)
    counts = pairs.reshape(n_modes, n_modes).astype(np.float64)
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


def _entropy(alpha: np.ndarray) -> float:
    total = alpha.sum(axis=1, keepdims=True)
    shares = np.divide(alpha, total, out=np.zeros_like(alpha), where=total > 0)
    return float(entr(shares).sum(axis=1).mean())


def _draw_statistic(panel, values: np.ndarray, labels: np.ndarray | None) -> None:
    """Points of sessions by mode, in the colours of modes or of groups."""
    tidy(panel)
    n_modes = values.shape[1]
    names = [None] if labels is None else list(dict.fromkeys(labels.tolist()))
    offsets = (np.arange(len(names)) - (len(names) - 1) / 2) * 0.8 / len(names)
    for group, (name, offset) in enumerate(zip(names, offsets, strict=True)):
        rows = values if name is None else values[labels == name]
        colors = (
            mode_palette(n_modes) if name is None else [PALETTE[group % len(PALETTE)]] * n_modes
        )
        for mode, color in enumerate(colors):
            shown = rows[:, mode][np.isfinite(rows[:, mode])]
            draw_points(panel, shown, mode + offset, 0.3 / len(names), color)
        if name is not None:
            panel.plot([], [], "o", ms=4, color=colors[0], label=str(name))
    panel.set_xticks(range(n_modes))
    panel.set_xlim(-0.6, n_modes - 0.4)
    panel.yaxis.get_major_locator().set_params(nbins=5)
