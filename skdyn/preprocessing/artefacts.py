"""Detection of bad segments of a recording by robust statistics, and their removal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from skdyn._sklearn import DocumentedMixin, Interval, fit_context
from skdyn._warnings import warn
from skdyn.sessions import check_sessions

_SEGMENT = [("session", int), ("start", int), ("stop", int), ("reason", "<U10"), ("channel", int)]
# Bounds of the spread of the log amplitude. With a tiny spread every change would be an outlier;
# with a huge one almost nothing would be.
_LEAST_SPREAD, _MOST_SPREAD = 0.3, 0.5
# A Gaussian row exceeds this multiple of the window's root mean square once in two million.
_ROW_FACTOR = 5.0
# An artefact ends when rows no longer reach this share of the limit of its window.
_EDGE_FACTOR = 0.5
# Largest step in a flat stretch, as a share of the median step: filters leave a residue.
_FLAT_TOLERANCE = 1e-3
# Smallest numbers of rows and of half windows for a reliable median.
_FEWEST_ROWS, _FEWEST_WINDOWS = 30, 20
# Columns read together, because those of a memory map share pages.
_COLUMNS_AT_ONCE = 16


class BadSegments(DocumentedMixin, BaseEstimator):
    """Find artefacts and missing rows, and cut recordings there.

    Each session is compared with itself. Windows whose amplitude in any channel is far above the
    session's median are bad, and so are flat stretches and rows with NaN or infinite values. A
    model is then fitted to the good segments, each as a session of its own, so that no history
    crosses an artefact.

    Parameters
    ----------
    segment_length : int, default=50
        Rows of the windows whose amplitudes are compared, at least 2. Sessions shorter than ten
        windows get shorter ones. Also the fewest rows of a flat stretch.
    threshold : float, default=6.0
        Threshold of bad windows in robust standard deviations of the log amplitude. The default
        marks amplitudes above 6 times the session's median if amplitudes hardly vary, and above
        20 times if they vary much. Larger values mark fewer rows.
    padding : int, default=5
        Rows before and after each bad segment that are marked as well.
    flat : bool, default=True
        Whether to mark stretches of at least `segment_length` rows in which a channel does not
        change.

    Attributes
    ----------
    is_bad_ : ndarray of bool of shape (n_samples,), or as X
        Whether a row is bad.
    sample_weight_ : ndarray of shape (n_samples,), or as X
        0 for bad rows, 1 for good ones.
    sessions_ : ndarray of int of shape (n_samples,), or as X
        Session labels that cut at bad rows: the number of the good segment that a row belongs to,
        counted over all sessions, and -1 for bad rows.
    scores_ : ndarray of shape (n_samples,), or as X
        Outlier score of a row or its window in its worst channel, in robust standard deviations
        of the log amplitude. NaN for rows that are missing or flat, and in sessions of fewer than
        30 good rows, which are too few to compare.
    segments_ : ndarray of shape (n_segments,)
        The bad segments, one record each: "session"; "start" and "stop", the first row and the row
        after the last, counted as in X (within the session if X is a list or 3-D); "reason", one
        of "missing", "flat", "amplitude" and "difference"; and "channel", the channel with the
        highest score.
    n_bad_ : int
        Number of bad rows.
    session_lengths_ : ndarray of int of shape (n_sessions,)
        Rows of each session.
    threshold_ : float
        The threshold that `scores_` were compared with.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    See Also
    --------
    skdyn.plotting.BadSegmentsDisplay : Draw the bad segments.
    SessionScaler : Standardise sessions; apply it after bad rows are cut out.

    Notes
    -----
    In each channel, two series are examined: the distance from the session's median, and the first
    difference, which shows fast artefacts on slow signals. Windows overlap by half. The score of a
    window is the log of its root mean square, less the session's median over windows, divided by
    1.4826 times the median absolute deviation of those logs, which is taken as at least 0.3 and at
    most 0.5. In a window with a score above `threshold`, rows are marked from the first to the last
    that reaches half of the limit. A single row is marked if it exceeds five times the limit. The
    statistics, standard deviations of segments and of their differences, are those of
    osl-ephys; medians replace its test of outliers from the mean.

    A session's gain and offset do not matter, and neither does the order of channels. Medians hold
    while fewer than half of the rows of a session are bad; if more are, `fit` warns. An artefact
    that covers a whole session cannot be seen, so pass the recording that trials were cut from,
    not the trials. A channel that does not change in more than half of a session is a bad channel
    rather than a bad segment: it marks rows only if all channels are flat at once. Amplitudes of
    20 times the session's median are marked even if they are brain activity, as in burst
    suppression; raise `threshold` for such recordings.

    The result applies to the recording of `fit`; call `fit` again for another one.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import BadSegments
    >>> X = np.random.default_rng(0).standard_normal((1000, 3))
    >>> X[400:420] *= 50
    >>> X[700] = np.nan
    >>> bad = BadSegments().fit(X)
    >>> bad.segments_[["start", "stop", "reason"]].tolist()
    [(395, 426, 'amplitude'), (695, 706, 'missing')]
    >>> [len(segment) for segment in bad.good_segments(X)]
    [395, 269, 294]

    The segments are sessions of any estimator: ``model.fit(bad.good_segments(X))``. Results come
    back with a row for every row of X: ``bad.restore(model.transform(bad.good_segments(X)))``.
    """

    _parameter_constraints: ClassVar[dict] = {
        "segment_length": [Interval(Integral, 2, None, closed="left")],
        "threshold": [Interval(Real, 0, None, closed="neither")],
        "padding": [Interval(Integral, 0, None, closed="left")],
        "flat": ["boolean"],
    }
    __metadata_request__fit = {"sessions": True}  # noqa: RUF012

    def __init__(self, segment_length=50, *, threshold=6.0, padding=5, flat=True):
        self.segment_length = segment_length
        self.threshold = threshold
        self.padding = padding
        self.flat = flat

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, sessions=None):
        """Find the bad segments of a recording.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording; rows are time. It may hold NaN and infinite values.
        y : None
            Ignored.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X: a contiguous run of one label is one session.

        Returns
        -------
        BadSegments
            The fitted estimator.

        Raises
        ------
        ValueError
            If X is not a recording of numbers.

        Warns
        -----
        UserWarning
            If more than half of the rows of a session are bad.
        """
        recording = check_sessions(self, X, sessions, reset=True, ensure_all_finite=False)
        self.threshold_ = float(self.threshold)
        found = [
            _Session(one, self.segment_length, self.threshold_, self.padding, self.flat)
            for one in recording.arrays
        ]
        _warn_if_mostly_bad(found)
        self.is_bad_ = recording.like_input([one.is_bad for one in found])
        self.sample_weight_ = recording.like_input([1.0 - one.is_bad for one in found])
        self.sessions_ = recording.like_input(_labels([one.is_bad for one in found]))
        self.scores_ = recording.like_input([one.scores for one in found])
        lengths = [len(one) for one in recording.arrays]
        starts = np.cumsum([0, *lengths[:-1]]) * (recording.container == "array")
        segments = [
            (number, start + first, start + last, *one.worst(first, last))
            for number, (one, start) in enumerate(zip(found, starts, strict=True))
            for first, last in _runs(one.is_bad)
        ]
        self.segments_ = np.array(segments, dtype=_SEGMENT)
        self.n_bad_ = int(sum(one.is_bad.sum() for one in found))
        self.session_lengths_ = np.array(lengths)
        return self

    def good_segments(self, X):
        """Cut a recording, or another array with the same rows, into the good segments.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), list of such, or array of shape \
                (n_sessions, n_samples, ...)
            The recording of `fit`, or an array with the same rows, such as a response or times,
            in the same form.

        Returns
        -------
        list of ndarray or DataFrame
            The rows of each good segment, in order; views, if X consists of arrays.

        Raises
        ------
        ValueError
            If X does not have the rows of the recording of `fit`, or if no row is good.
        """
        check_is_fitted(self)
        labels = self._labels_of_sessions()
        parts = [X] if self._is_one_array() else list(X)
        parts = [one if hasattr(one, "shape") else np.asarray(one) for one in parts]
        _check_rows("X", parts, labels, "Call fit with this recording first.")
        segments = [
            getattr(part, "iloc", part)[start:stop]
            for part, one in zip(parts, labels, strict=True)
            for start, stop in _good_runs(one)
        ]
        if not segments:
            raise ValueError(
                "No row of X is good. Leave out channels that are bad throughout, which "
                "segments_['channel'] names, or raise threshold."
            )
        return segments

    def restore(self, segments, *, fill_value=np.nan):
        """Merge results for the good segments into an array with all rows.

        Parameters
        ----------
        segments : list of array-like of shape (n_rows, ...)
            One for each array that `good_segments` returns, with as many rows.
        fill_value : float, default=nan
            Value of bad rows.

        Returns
        -------
        ndarray of shape (n_samples, ...), or as the X of `fit`
            A row for each row of the recording.

        Raises
        ------
        ValueError
            If there are not as many segments, or not as many rows in each.
        """
        check_is_fitted(self)
        labels = self._labels_of_sessions()
        places = [(k, *run) for k, one in enumerate(labels) for run in _good_runs(one)]
        given = [np.asarray(one) for one in segments]
        expected = [range(start, stop) for _, start, stop in places]
        _check_rows("segments", given, expected, "Pass one array for each good segment.")
        dtype = np.result_type(*given, fill_value)
        shape = given[0].shape[1:] if given else ()
        restored = [np.full((len(one), *shape), fill_value, dtype=dtype) for one in labels]
        for (k, start, stop), one in zip(places, given, strict=True):
            restored[k][start:stop] = one
        if self._is_one_array():
            return restored[0]
        return restored if isinstance(self.sessions_, list) else np.stack(restored)

    def _is_one_array(self) -> bool:
        """Whether the recording of `fit` was one 2-D array."""
        return not isinstance(self.sessions_, list) and self.sessions_.ndim == 1

    def _labels_of_sessions(self) -> list[np.ndarray]:
        return [self.sessions_] if self._is_one_array() else list(self.sessions_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        return tags


class _Session:
    """Result for one session: bad rows, with their reason and channel."""

    def __init__(self, session, segment_length, threshold, padding, flat):
        n_samples, self.n_channels = session.shape
        self.is_bad = np.zeros(n_samples, dtype=bool)
        self.scores = np.full(n_samples, np.nan)
        # Severity, reason and channel of the worst finding in each row.
        self._rank = np.full(n_samples, -np.inf)
        self._reason = np.full(n_samples, "", dtype="<U10")
        self._channel = np.zeros(n_samples, dtype=int)
        self._find_missing(session)
        if flat:
            self._find_flat(session, segment_length)
        self._find_outliers(session, segment_length, threshold)
        self.is_bad = _dilated(self.is_bad, padding)

    def worst(self, start: int, stop: int) -> tuple[str, int]:
        """Reason and channel of the worst row of a stretch."""
        row = start + self._rank[start:stop].argmax()
        return str(self._reason[row]), int(self._channel[row])

    def _note(self, rank: np.ndarray, reason: str, channel: int) -> None:
        worse = rank > self._rank
        self._rank[worse] = rank[worse]
        self._reason[worse] = reason
        self._channel[worse] = channel

    def _mark(self, is_bad: np.ndarray, rank: float, reason: str, channel: int) -> None:
        self._note(np.where(is_bad, rank, -np.inf), reason, channel)
        self.is_bad |= is_bad

    def _find_missing(self, session):
        for channel, values in _columns(session):
            self._mark(~np.isfinite(values), np.inf, "missing", channel)

    def _find_flat(self, session, segment_length):
        n_flat = np.zeros(len(session), dtype=int)
        highest = np.finfo(np.float64).max
        for channel, values in _columns(session):
            is_flat = _is_flat(values, segment_length)
            n_flat += is_flat
            if is_flat.mean() <= 0.5:
                self._mark(is_flat, highest, "flat", channel)
        self._mark(n_flat == self.n_channels, highest, "flat", 0)

    def _find_outliers(self, session, segment_length, threshold):
        usable = ~self.is_bad
        if usable.sum() < _FEWEST_ROWS:
            return
        half_window = max(1, min(segment_length // 2, usable.sum() // _FEWEST_WINDOWS))
        follows = usable & np.append(False, usable[:-1])
        for channel, values in _columns(session):
            values = np.where(usable, values - np.median(values[usable]), 0.0)
            for reason, series, rows in [
                ("amplitude", values, usable),
                ("difference", np.diff(values, prepend=values[:1]), follows),
            ]:
                scores, is_bad = _outliers(series, rows, half_window, threshold)
                self._note(scores, reason, channel)
                self.is_bad |= is_bad
        judged = usable & (self._rank > -np.inf)
        self.scores[judged] = self._rank[judged]


def _columns(session: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Channel by channel, in float64, each a copy."""
    for first in range(0, session.shape[1], _COLUMNS_AT_ONCE):
        columns = session[:, first : first + _COLUMNS_AT_ONCE]
        yield from enumerate(np.array(columns.T, dtype=np.float64, order="C"), start=first)


def _outliers(series, usable, half_window, threshold):
    """Score rows in robust sds of the log amplitude, and find the bad ones."""
    is_bad = np.zeros(len(series), dtype=bool)
    starts = np.arange(0, len(series), half_window)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # no rows, zeros, 1e200
        squares = np.add.reduceat(np.where(usable, series, 0.0) ** 2, starts)
        counts = np.add.reduceat(usable.astype(float), starts)
        windows = np.log((squares[:-1] + squares[1:]) / (counts[:-1] + counts[1:])) / 2
        rows = np.where(usable, np.log(np.abs(series)), -np.inf)
    filled = ~np.isnan(windows)
    center = np.median(windows[filled]) if filled.any() else np.nan
    if not np.isfinite(center):  # most windows do not vary
        return np.full(len(series), -np.inf), is_bad
    spread = 1.4826 * np.median(np.abs(windows[filled] - center))
    spread = np.clip(spread, _LEAST_SPREAD, _MOST_SPREAD)
    windows = np.where(filled, (windows - center) / spread, -np.inf)
    in_row = (rows - center - np.log(_ROW_FACTOR)) / spread
    is_bad |= in_row > threshold
    is_edge = (rows - center - np.log(_EDGE_FACTOR)) / spread > threshold
    for window in np.flatnonzero(windows > threshold):
        inside = slice(starts[window], starts[window] + 2 * half_window)
        edges = np.flatnonzero(is_edge[inside]) + inside.start
        is_bad[edges[0] : edges[-1] + 1] = True
    halves = np.maximum(np.append(windows, -np.inf), np.append(-np.inf, windows))
    scores = np.maximum(np.repeat(halves, np.diff([*starts, len(series)])), in_row)
    return np.where(usable, scores, -np.inf), is_bad


def _is_flat(values: np.ndarray, shortest: int) -> np.ndarray:
    """Rows of runs, at least `shortest` long, in which a channel does not change."""
    with np.errstate(invalid="ignore"):  # missing rows
        steps = np.abs(np.diff(values))
    changes = steps[(steps > 0) & np.isfinite(steps)]
    tolerance = _FLAT_TOLERANCE * np.median(changes) if len(changes) else 0.0
    repeats = steps <= tolerance
    is_flat = np.zeros(len(values), dtype=bool)
    for start, stop in _runs(repeats):
        if stop - start + 1 >= shortest:
            is_flat[start : stop + 1] = True
    # Counts and triggers repeat all the time.
    others = repeats[~is_flat[1:]]
    return is_flat & (2 * others.sum() <= len(others))


def _dilated(mask: np.ndarray, n_rows: int) -> np.ndarray:
    wider = mask.copy()
    for start, stop in _runs(mask):
        wider[max(start - n_rows, 0) : stop + n_rows] = True
    return wider


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """First row, and row after the last, of each run of True."""
    borders = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]])))
    return list(zip(borders[::2].tolist(), borders[1::2].tolist(), strict=True))


def _labels(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Number the good runs over all sessions; -1 for bad rows."""
    labels, n_runs = [np.full(len(mask), -1) for mask in masks], 0
    for one, mask in zip(labels, masks, strict=True):
        for start, stop in _runs(~mask):
            one[start:stop] = n_runs
            n_runs += 1
    return labels


def _good_runs(labels: np.ndarray) -> list[tuple[int, int]]:
    """First row, and row after the last, of each run of one label that is not -1."""
    borders = np.flatnonzero(np.diff(labels)) + 1
    edges = [0, *borders.tolist(), len(labels)]
    return [(start, stop) for start, stop in pairwise(edges) if labels[start] >= 0]


def _check_rows(name: str, given: list, expected: list, remedy: str) -> None:
    lengths, needed = [len(one) for one in given], [len(one) for one in expected]
    if len(lengths) != len(needed):
        raise ValueError(
            f"{name} has {len(lengths)} parts, but {len(needed)} were expected. {remedy}"
        )
    for number, (length, need) in enumerate(zip(lengths, needed, strict=True)):
        if length != need:
            raise ValueError(
                f"Part {number} of {name} has {length} rows, but {need} were expected. {remedy}"
            )


def _warn_if_mostly_bad(found: list[_Session]) -> None:
    shares = [one.is_bad.mean() for one in found]
    worst = int(np.argmax(shares))
    if shares[worst] > 0.5:
        is_bad = found[worst].is_bad
        warn(
            f"{is_bad.sum()} of the {len(is_bad)} rows of session {worst} are bad. Above one half, "
            "the medians that rows are compared with can be those of artefacts. Draw "
            "plotting.BadSegmentsDisplay, and leave out channels that are bad throughout: "
            "segments_['channel'] names them.",
            UserWarning,
        )
