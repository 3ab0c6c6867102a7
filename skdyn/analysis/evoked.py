"""Mixing around events: mean over events, and a test of whether mixing follows them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from sklearn.utils import Bunch, check_random_state

from skdyn._drawing import FAINT, INK, LABEL_SIZE, TICK_SIZE, mode_palette, panels, tidy
from skdyn.analysis.groups import PermutationTest, check_choices, corrected
from skdyn.analysis.statistics import check_mixing, session_names
from skdyn.sessions import Sessions, naming

# Variance over arrangements, relative to the squared mean, below which mixing does not vary.
NEGLIGIBLE = 1e-20

# Above any rate at which brains are recorded.
MOST_RATE = 1e9


class EvokedAlpha(Bunch):
    """Mean mixing around events.

    A Bunch: a dictionary whose values are also attributes, returned by `evoked_alpha`. The axis of
    sessions is missing if alpha was one 2-D array without `sessions`.

    Parameters
    ----------
    **values
        The attributes below.

    Attributes
    ----------
    times : ndarray of shape (n_times,)
        Seconds after the event.
    mean : ndarray of shape (n_sessions, n_times, n_modes)
        Mean mixing coefficients over events, less those of the baseline if there is one.
    standard_error : ndarray of shape (n_sessions, n_times, n_modes)
        Standard error of `mean` over events; NaN for a single event.
    n_events : ndarray of int of shape (n_sessions,)
        Number of events with the window inside the session.
    baseline : tuple of float or None
        As given, in seconds.
    sessions : list
        Names of the sessions: their labels, or 0, 1, ...
    """

    def __repr__(self):
        sessions = f"{len(self.mean)} sessions, " if np.ndim(self.mean) == 3 else ""
        return (
            f"<EvokedAlpha: {sessions}{np.shape(self.mean)[-1]} modes, {np.sum(self.n_events)} "
            f"events, {self.times[0]:.4g} to {self.times[-1]:.4g} s>"
        )

    def plot(self, ax=None, *, mode_labels=None, fig=None):
        """Draw the mean over sessions, with its standard error.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw into; mutually exclusive with `fig`.
        mode_labels : sequence of str, default=None
            A name per mode; None for numbers.
        fig : Figure or SubFigure, default=None
            Figure to add the panel to; None creates one.

        Returns
        -------
        fig, axes : Figure or SubFigure, and ndarray of Axes of shape (1,)
            The figure and its panel. The standard error is that over sessions, and of
            one session that over events.
        """
        mean, error = self.mean, self.standard_error
        if mean.ndim == 3 and len(mean) > 1:
            mean, error = mean.mean(axis=0), mean.std(axis=0, ddof=1) / np.sqrt(len(mean))
        elif mean.ndim == 3:
            mean, error = mean[0], error[0]
        fig, (panel,) = panels(1, ax, fig, (5.0, 2.8))
        tidy(panel)
        names = range(mean.shape[1]) if mode_labels is None else mode_labels
        for mode, (color, name) in enumerate(zip(mode_palette(mean.shape[1]), names, strict=True)):
            low, high = mean[:, mode] - error[:, mode], mean[:, mode] + error[:, mode]
            panel.fill_between(self.times, low, high, color=color, alpha=0.25, lw=0)
            panel.plot(self.times, mean[:, mode], color=color, lw=1.4, label=f"{name}")
        panel.axvline(0, color=FAINT, lw=0.8)
        panel.set_xlim(self.times[0], self.times[-1])
        panel.set_xlabel("Time after the event (s)", size=LABEL_SIZE, color=INK)
        less = "" if self.baseline is None else ", less baseline"
        panel.set_ylabel(f"Mixing coefficient{less}", size=LABEL_SIZE, color=INK)
        key = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False}
        legend = panel.legend(title="Mode", fontsize=TICK_SIZE, labelcolor=INK, **key)
        legend.get_title().set(size=TICK_SIZE, color=INK)
        return fig, np.array([panel])


def evoked_alpha(
    alpha, events, *, sampling_frequency, window=(-0.5, 1.5), baseline=None, sessions=None
):
    """Mean mixing coefficients around events.

    Parameters
    ----------
    alpha : array-like of shape (n_samples, n_modes), list of such, or array of shape \
            (n_sessions, n_samples, n_modes)
        Mixing coefficients, or posterior probabilities of states, of any model; also normalised.
    events : array-like of int of shape (n_events,), or one such per session
        Row indices of the events. For a 2-D alpha they count its rows, with or without sessions;
        for a list or 3-D alpha, a list of arrays that count the rows of each session.
    sampling_frequency : float
        Rows per second, in Hz.
    window : tuple of two floats, default=(-0.5, 1.5)
        First and last time of the average, in seconds after the event.
    baseline : tuple of two floats, default=None
        First and last time of the baseline, within the window, in seconds; its mean is subtracted
        from each event's course. None subtracts nothing.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D alpha.

    Returns
    -------
    EvokedAlpha
        Means, with their standard errors; `plot()` draws them.

    Raises
    ------
    ValueError
        If an event is outside its session, a session has no event with the window inside it, or
        times are in the wrong order.

    See Also
    --------
    evoked_test : Whether mixing follows the events at all.
    permutation_test : The same question over people: pass `mean`, with a baseline.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.analysis import evoked_alpha
    >>> alpha = np.tile(np.repeat([[1.0, 0.0], [0.0, 1.0]], 5, axis=0), (4, 1))
    >>> evoked = evoked_alpha(alpha, [5, 15, 25], sampling_frequency=10, window=(-0.2, 0.2))
    >>> evoked.mean
    array([[1., 0.], [1., 0.], [0., 1.], [0., 1.], [0., 1.]])
    """
    mixing = check_mixing(alpha, sessions)
    span = _Span.of(window, baseline, sampling_frequency)
    used = _used_events(mixing, events, span)
    means, errors = [], []
    for array, rows in zip(mixing.arrays, used, strict=True):
        epochs = span.corrected(array[rows[:, np.newaxis] + span.lags])
        means.append(epochs.mean(axis=0))
        spread = epochs.std(axis=0, ddof=1) if len(rows) > 1 else np.full_like(means[-1], np.nan)
        errors.append(spread / np.sqrt(len(rows)))
    is_one = mixing.container == "array" and sessions is None
    values = np.stack(means), np.stack(errors), np.array([len(rows) for rows in used])
    mean, error, n_events = (one[0] for one in values) if is_one else values
    return EvokedAlpha(
        times=span.lags / sampling_frequency,
        mean=mean,
        standard_error=error,
        n_events=n_events,
        baseline=baseline,
        sessions=session_names(mixing.arrays, sessions),
    )


def evoked_test(
    alpha,
    events,
    *,
    sampling_frequency,
    window=(-0.5, 1.5),
    baseline=None,
    sessions=None,
    n_permutations=2000,
    level=0.05,
    random_state=0,
):
    """Test whether mixing coefficients follow events, at any time and in any mode.

    Under the null, all events of a session are shifted circularly by the same random number of
    rows. This keeps the intervals between events and the dynamics of the mixing, and removes the
    relation between them. One session is enough. For inference about people rather than these
    sessions, pass `evoked_alpha(...).mean` to `permutation_test`.

    Parameters
    ----------
    alpha : array-like of shape (n_samples, n_modes), list of such, or array of shape \
            (n_sessions, n_samples, n_modes)
        Mixing coefficients, of any model.
    events, sampling_frequency, window, baseline, sessions : object
        As in `evoked_alpha`.
    n_permutations : int, default=2000
        Arrangements, the observed one included.
    level : float in (0, 1), default=0.05
        For the critical value.
    random_state : int, RandomState instance or None, default=0
        Source of the shifts; None takes fresh entropy.

    Returns
    -------
    PermutationTest
        Features are times and modes, (n_times, n_modes). `effect` is the mean mixing over all
        events, less its mean over arrangements; `statistic` is that by its standard deviation over
        arrangements. p values are corrected for times and modes by the maximum statistic.

    Raises
    ------
    ValueError
        As in `evoked_alpha`.

    See Also
    --------
    evoked_alpha : The mean mixing itself.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.analysis import evoked_test
    >>> rng = np.random.default_rng(0)
    >>> events = np.cumsum(rng.integers(20, 60, 50))
    >>> theta = rng.standard_normal((2500, 2))
    >>> theta[events + 5, 0] += 2
    >>> alpha = np.exp(theta) / np.exp(theta).sum(axis=1, keepdims=True)
    >>> test = evoked_test(alpha, events, sampling_frequency=10, window=(0, 1))
    >>> test.p_value[:, 0] < 0.05
    array([False, False, False, False, False,  True, False, False, False,
           False, False])
    """
    check_choices("two-sided", n_permutations, level)
    mixing = check_mixing(alpha, sessions)
    span = _Span.of(window, baseline, sampling_frequency)
    used = _used_events(mixing, events, span)
    random_state = np.random.RandomState() if random_state is None else random_state
    rng = check_random_state(random_state)
    n_total = sum(len(rows) for rows in used)
    means = np.zeros((int(n_permutations), len(span.lags), mixing.arrays[0].shape[1]))
    for array, rows in zip(mixing.arrays, used, strict=True):
        shifts = np.append(0, rng.randint(len(array), size=len(means) - 1))
        places = (shifts[:, np.newaxis] + span.lags) % len(array)
        means += span.corrected(_after_events(array, rows)[places]) * (len(rows) / n_total)
    center, variance = means.mean(axis=0), means.var(axis=0)
    scale = np.sqrt(np.where(variance > NEGLIGIBLE * (1 + center**2), variance, np.inf))
    statistics = (means - center) / scale
    null = np.abs(statistics).max(axis=(1, 2))
    observed = np.abs(statistics[0])
    return PermutationTest(
        effect=(means - center)[0],
        statistic=statistics[0],
        p_value=corrected(observed, null),
        p_uncorrected=(np.abs(statistics) >= observed * (1 - 1e-9)).mean(axis=0),
        null=null,
        critical_value=float(np.quantile(null, 1 - level, method="higher")),
        n_permutations=len(null),
        is_exact=False,
        alternative="two-sided",
        level=level,
        kind="events",
        labels=None,
    )


@dataclass(frozen=True)
class _Span:
    """Rows of a window relative to an event, and which of them are the baseline."""

    lags: np.ndarray
    is_baseline: np.ndarray

    @classmethod
    def of(cls, window, baseline, rate: float) -> _Span:
        lags = _rows_between(window, rate, "window")
        if baseline is None:
            return cls(lags, np.zeros(len(lags), dtype=bool))
        rows = _rows_between(baseline, rate, "baseline")
        if not np.isin(rows, lags).all():
            raise ValueError(f"baseline must be within window={window!r}, but is {baseline!r}.")
        return cls(lags, np.isin(lags, rows))

    def corrected(self, courses: np.ndarray) -> np.ndarray:
        """Courses of shape (..., n_times, n_modes), less the mean of their baseline."""
        if not self.is_baseline.any():
            return courses
        return courses - courses[..., self.is_baseline, :].mean(axis=-2, keepdims=True)


def _rows_between(times, rate: float, name: str) -> np.ndarray:
    is_number = np.ndim(rate) == 0 and np.asarray(rate).dtype.kind in "iuf"
    if not is_number or not 0 < rate < MOST_RATE:
        raise ValueError(
            f"sampling_frequency must be above 0 Hz and below {MOST_RATE:g} Hz, but is {rate!r}."
        )
    with naming(name):
        numbers = np.asarray(times)
    is_pair = numbers.shape == (2,) and numbers.dtype.kind in "iuf" and np.isfinite(numbers).all()
    if not is_pair or not times[0] <= times[1]:
        raise ValueError(
            f"{name} must be a first and a later last time in seconds, but is {times!r}."
        )
    return np.arange(round(times[0] * rate), round(times[1] * rate) + 1)


def _used_events(mixing: Sessions, events, span: _Span) -> list[np.ndarray]:
    """Rows of the events of each session that have the window inside it."""
    lengths = np.array([len(array) for array in mixing.arrays])
    if mixing.container == "array":
        edges = np.cumsum([0, *lengths])
        rows = _whole(events, edges[-1])
        parts = [rows[(rows >= first) & (rows < last)] - first for first, last in pairwise(edges)]
    else:
        with naming("events"):
            fits = len(events) == len(lengths) and all(np.ndim(one) == 1 for one in events)
        if not fits:
            raise ValueError(
                f"events has {len(events)} parts, but alpha has {len(lengths)} sessions. Pass a "
                "list with the rows of the events of each session."
            )
        parts = [_whole(*pair) for pair in zip(events, lengths, strict=True)]
    used = [
        rows[(rows + span.lags[0] >= 0) & (rows + span.lags[-1] < length)]
        for rows, length in zip(parts, lengths, strict=True)
    ]
    for number, rows in enumerate(used):
        if len(rows) == 0:
            raise ValueError(
                f"events: session {number} of {len(used)} has no event whose window is within it. "
                "Leave the session out, or shorten the window."
            )
    return used


def _whole(events, n_rows: int) -> np.ndarray:
    with naming("events"):
        rows = np.asarray(events)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise ValueError(
            f"events has shape {rows.shape} and type {rows.dtype}, but whole numbers of rows were "
            "expected. Multiply times by the sampling frequency and round."
        )
    if rows.size and (rows.min() < 0 or rows.max() >= n_rows):
        raise ValueError(
            f"events has rows from {rows.min()} to {rows.max()}, but rows from 0 to {n_rows - 1} "
            "of alpha were expected. Subtract the number of the first sample."
        )
    return rows.astype(int)


def _after_events(alpha: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean of alpha over events at each lag: the circular cross-correlation with the event train.

    Computed by Fourier transforms.
    """
    train = np.bincount(rows, minlength=len(alpha)) / len(rows)
    product = np.fft.rfft(alpha, axis=0) * np.fft.rfft(train).conj()[:, np.newaxis]
    return np.fft.irfft(product, len(alpha), axis=0)
