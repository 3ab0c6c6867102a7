"""Pictures of bad segments."""

from __future__ import annotations

import numpy as np

from skdyn._drawing import (
    INK,
    LABEL_SIZE,
    PALETTE,
    check_rate,
    draw_borders,
    draw_legend,
    draw_rows,
    panels,
    with_gaps,
)
from skdyn._fitted import find_step

_COLORS = {
    "amplitude": PALETTE[1],
    "difference": PALETTE[8],
    "flat": PALETTE[2],
    "missing": PALETTE[3],
}


class BadSegmentsDisplay:
    """
    Bad segments of a recording: the score of each row, the threshold and the marked segments.

    Build it with :meth:`from_estimator`; the picture can be drawn again with :meth:`plot`.
    Sessions follow each other on one time axis.

    Parameters
    ----------
    scores : array-like of shape (n_samples,)
        Score of each row, in robust standard deviations of the log amplitude. NaN leaves a
        gap.
    segments : sequence of (start, stop, reason)
        The bad segments: the first row, the row after the last, and "amplitude", "difference",
        "flat" or "missing".
    threshold : float
        The score above which rows are bad.
    session_lengths : array-like of int of shape (n_sessions,), default=None
        Rows of each session, for lines at their borders; None for one session.

    Attributes
    ----------
    scores, session_lengths : ndarray
        Copies of the arguments, as arrays.
    segments : list of (int, int, str)
        As given.
    threshold : float
        As given.
    figure_ : Figure or SubFigure
        The figure that was drawn into.
    ax_ : Axes
        The panel.
    line_, threshold_line_ : Line2D
        Scores and threshold.
    spans_ : list of Polygon or Rectangle
        The bad segments, in their order.
    borders_ : list of Line2D
        Lines at the start of each session except the first.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import BadSegmentsDisplay
    >>> from skdyn.preprocessing import BadSegments
    >>> X = np.random.default_rng(0).standard_normal((1000, 3))
    >>> X[400:420] *= 50
    >>> bad = BadSegments().fit(X)
    >>> display = BadSegmentsDisplay.from_estimator(bad, sampling_frequency=250)
    >>> display.ax_.get_xlabel()
    'Time (s)'
    """

    def __init__(self, *, scores, segments, threshold, session_lengths=None):
        self.scores = np.array(scores, dtype=float)
        self.segments = [(int(start), int(stop), str(reason)) for start, stop, reason in segments]
        self.threshold = float(threshold)
        lengths = [len(self.scores)] if session_lengths is None else session_lengths
        self.session_lengths = np.array(lengths, dtype=int)

    @classmethod
    def from_estimator(cls, estimator, *, sampling_frequency=None, ax=None, fig=None):
        """
        Draw the results of a fitted `BadSegments`.

        Parameters
        ----------
        estimator : BadSegments
            Fitted.
        sampling_frequency, ax, fig : object
            As in :meth:`plot`.

        Returns
        -------
        BadSegmentsDisplay
            The display, drawn.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        TypeError
            If the estimator is not a `BadSegments`.
        """
        _, bad, _ = find_step(estimator, "segments_", "scores_")
        scores, lengths = bad.scores_, bad.session_lengths_
        starts = np.cumsum([0, *lengths[:-1]])
        if isinstance(scores, list) or scores.ndim > 1:  # rows are counted within sessions
            scores = np.concatenate([np.asarray(one) for one in scores])
        else:
            starts = np.zeros_like(starts)
        segments = [
            (
                starts[one["session"]] + one["start"],
                starts[one["session"]] + one["stop"],
                one["reason"],
            )
            for one in bad.segments_
        ]
        parts = {"scores": scores, "segments": segments, "session_lengths": lengths}
        display = cls(**parts, threshold=bad.threshold_)
        return display.plot(sampling_frequency=sampling_frequency, ax=ax, fig=fig)

    def plot(self, ax=None, *, sampling_frequency=None, fig=None):
        """
        Draw scores, threshold and bad segments.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw into; mutually exclusive with `fig`.
        sampling_frequency : float, default=None
            In Hz; the time axis is then in seconds. With None it counts samples.
        fig : Figure or SubFigure, default=None
            Figure to add the panel to; None creates one.

        Returns
        -------
        BadSegmentsDisplay
            The display itself.
        """
        self.figure_, axes = panels(1, ax, fig, (7.5, 2.6))
        self.ax_ = axes[0]
        (times,) = draw_rows(axes, [self.scores], None, sampling_frequency, None)
        step = check_rate(sampling_frequency)
        named: set[str] = set()
        self.spans_ = []
        for start, stop, reason in self.segments:
            label = reason.capitalize() if reason not in named else None
            named.add(reason)
            # Half a row wider at both ends, so that a single row is visible.
            ends = ((start - 0.5) * step, (stop - 0.5) * step)
            style = {"color": _COLORS[reason], "alpha": 0.35, "lw": 0.8, "label": label}
            self.spans_.append(self.ax_.axvspan(*ends, **style))
        self.borders_ = draw_borders(self.ax_, self.session_lengths, step)
        line = with_gaps(times, self.scores, self.session_lengths)
        (self.line_,) = self.ax_.plot(*line, color=PALETTE[0], lw=0.9)
        style = {"color": PALETTE[9], "lw": 1.0, "ls": "--", "label": "Threshold"}
        self.threshold_line_ = self.ax_.axhline(self.threshold, **style)
        # Silent windows have scores far below zero, which would flatten the rest.
        shown = self.scores[np.isfinite(self.scores)]
        top = max(self.threshold, shown.max(initial=0.0))
        self.ax_.set_ylim(max(shown.min(initial=0.0), -self.threshold), 1.08 * top)
        self.ax_.set_ylabel("Log amplitude\n(robust sd)", size=LABEL_SIZE, color=INK)
        draw_legend(self.ax_, len(named) + 1)
        return self
