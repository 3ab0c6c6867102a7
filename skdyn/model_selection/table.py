"""The result of a comparison: arrays, a table, a picture."""

from __future__ import annotations

from collections import Counter
from textwrap import shorten

import numpy as np
from sklearn.utils import Bunch

from skdyn._drawing import FAINT, INK, LABEL_SIZE, PALETTE, TICK_SIZE, panels, tidy
from skdyn.model_selection.uncertainty import units_of

# Most units whose scores are drawn one by one.
MOST_POINTS = 1000
# Width of a line that reports a failure, in characters.
LINE = 140


class ModelComparison(Bunch):
    r"""Held-out scores of several models on the same folds, and the times of their fits.

    A Bunch: a dictionary whose values are attributes, too. `compare_models` makes it.

    Parameters
    ----------
    **values
        The attributes below.

    Attributes
    ----------
    names : list
        Names of the candidates, in the order of all arrays.
    scores : ndarray of shape (n_candidates, n_folds, n_repeats) or (n_candidates, n_folds, \
            n_repeats, n_outputs)
        Held-out scores; `error_score` if a fit failed. NaN if an output has no score in a fold,
        such as the correlation of a neuron that is silent there.
    paired_over : {"folds", "outputs", "both"}
        The units over which means and standard errors are taken, see Notes.
    test_to_train : float
        Number of test rows of a fold by number of training rows.
    mean_score : ndarray of shape (n_candidates,)
        Mean over units; NaN if a fit failed, unless there is a number for `error_score`.
    standard_error : ndarray of shape (n_candidates,)
        Of `mean_score`; NaN for a single unit.
    difference_to_best : ndarray of shape (n_candidates,)
        Mean over units of the score less that of the best candidate in the same unit, at most 0.
    difference_standard_error : ndarray of shape (n_candidates,)
        Of `difference_to_best`; differences between units that all candidates share cancel.
    degrees_of_freedom : ndarray of shape (n_candidates,)
        Of `difference_standard_error`, for quantiles of Student's t.
    p_value : ndarray of shape (n_candidates,)
        Of `difference_to_best`, by Student's t, both sides; 1 for the best, NaN for a single unit.
        Not corrected for the number of candidates.
    rank : ndarray of int of shape (n_candidates,)
        From 1, the best.
    best_index, best_name : int, object
        The candidate with the highest mean score.
    fit_seconds, score_seconds : ndarray of shape (n_candidates, n_folds, n_repeats)
        Wall time.
    agreement : ndarray of shape (n_candidates,)
        Agreement of the modes of different seeds on held-out rows, mean over pairs of repeats and
        over folds, see `select_run`; NaN for one repeat, or without modes.
    seeds : list of int or None
        `random_state` of each repeat; a single None if candidates kept their own.
    failures : list
        Failures: name, fold, repeat, step ("fit" or "score"), error, message, traceback.
    estimators : ndarray of object of shape (n_candidates, n_folds, n_repeats)
        Fitted estimators, with `return_estimators` only; None if the fit failed.

    Notes
    -----
    Scores are averaged over repeats first. Then standard errors are, with `paired_over`:

    "folds"
        :math:`s \sqrt{1 / k + n_{test} / n_{train}}` for the standard deviation s over k folds,
        with k - 1 degrees of freedom. The second term is the correction of Nadeau and Bengio [1]_:
        the training sets of folds overlap, so that their scores are correlated. It is
        conservative: it calls one of two equal candidates worse less often than the level, with 10
        folds more so than with 2.
    "outputs"
        :math:`s / \sqrt{n}` for the standard deviation over n outputs, whose scores are means over
        folds, with n - 1 degrees of freedom. Outputs, such as neurons, are treated as independent,
        and the recording and its folds as fixed. The error does not include effects that neurons
        share, such as the stimulus, or variation between recordings. In simulations it called one
        of two equal candidates worse in 3 to 77 % of recordings, at a level of 5 %.
    "both"
        Outputs and folds are crossed random effects [2]_: with mean squares MS of a two-way layout
        of n outputs and k folds, the variance is
        :math:`(MS_n + MS_k - MS_{nk}) / (n k) + MS_k n_{test} / (n_{train} n)`, and the degrees of
        freedom are Satterthwaite's. Cells without a score are filled in additively [3]_.

    References
    ----------
    .. [1] Nadeau, C., & Bengio, Y. (2003). Inference for the generalization error. Machine
       Learning, 52(3), 239-281.
    .. [2] Clark, H. H. (1973). The language-as-fixed-effect fallacy. Journal of Verbal Learning
       and Verbal Behavior, 12(4), 335-359.
    .. [3] Yates, F. (1933). The analysis of replicated experiments when the field results are
       incomplete. Empire Journal of Experimental Agriculture, 1(2), 129-142.
    """

    def simplest(self, alpha=0.05):
        """Name the first candidate that is not significantly worse than the best.

        Candidates that are more flexible than necessary are often as good as the one that is just
        flexible enough, and chance decides which of them has the highest score.

        Parameters
        ----------
        alpha : float, default=0.05
            Level of the test: a candidate is worse than the best if its `p_value` is below. Few
            folds need large differences: with three, 4.3 standard errors.

        Returns
        -------
        hashable
            The name of the first such candidate in the order in which they were given; give the
            simplest first.

        Raises
        ------
        ValueError
            If the level is not between 0 and 1.
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, but is {alpha!r}.")
        return self.names[int(np.flatnonzero(self.p_value >= alpha)[0])]

    def to_frame(self):
        """Return a table with one row per candidate, the best first.

        Returns
        -------
        pandas.DataFrame
            Indexed by name. Seconds are medians over folds and repeats, because the first fit in a
            process includes the import of libraries.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        import pandas as pd

        frame = pd.DataFrame(self._columns(), index=pd.Index(self.names, name="candidate"))
        return frame.iloc[self._order()]

    def plot(self, ax=None, *, fig=None):
        """Draw scores, and differences to the best, with standard errors.

        Parameters
        ----------
        ax : sequence of two Axes, default=None
            For scores and for differences; not together with `fig`.
        fig : Figure or SubFigure, default=None
            Figure for the panels; None makes a new one.

        Returns
        -------
        fig, axes : Figure or SubFigure, and ndarray of Axes of shape (2,)
            The figure and its panels. Candidates are in rows, the best at the top; small points
            are folds, or outputs.
        """
        order, n_rows = self._order(), len(self.names)
        figsize = (8.0, 1.35 + 0.35 * n_rows)
        fig, axes = panels(2, ax, fig, figsize, n_columns=2, sharey=True)
        units = self._units()
        best = units[self.best_index]
        columns = [
            (units, self.mean_score, self.standard_error, "Held-out score"),
            (
                units - best,
                self.difference_to_best,
                self.difference_standard_error,
                "Difference to the best",
            ),
        ]
        for panel, (points, means, errors, label) in zip(axes, columns, strict=True):
            tidy(panel)
            for row, candidate in enumerate(order):
                shown = points[candidate][:MOST_POINTS]
                rows = np.full(len(shown), row)
                (ticks,) = panel.plot(shown, rows, "|", color=FAINT, ms=6, mew=0.6)
            error = np.nan_to_num(errors[order])
            style = {"fmt": "o", "color": PALETTE[0], "ms": 4.5, "elinewidth": 1.5}
            bars = panel.errorbar(means[order], np.arange(n_rows), xerr=error, **style)
            panel.locator_params(axis="x", nbins=6)
            panel.set_xlabel(label, size=LABEL_SIZE, color=INK)
        axes[1].axvline(0, color=FAINT, lw=0.6, zorder=0)
        failed = np.isnan(self.mean_score)
        names = [f"{self.names[n]}{' (failed)' if failed[n] else ''}" for n in order]
        axes[0].set_yticks(np.arange(n_rows), labels=names, size=TICK_SIZE)
        axes[0].set_ylim(n_rows - 0.5, -0.5)
        axes[0].set_ylabel("Candidate", size=LABEL_SIZE, color=INK)
        unit = "Fold" if self.paired_over == "folds" else "Output"
        marks = {unit: ticks, "Mean \N{PLUS-MINUS SIGN} SE": bars}
        style = {"frameon": False, "fontsize": TICK_SIZE, "labelcolor": INK, "ncols": 2}
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
        axes[1].legend([*marks.values()], [*marks], **place, **style)
        return fig, axes

    def __repr__(self):
        n_folds, n_repeats = self.scores.shape[1:3]
        n_units = self._units().shape[1]
        repeats = f", {n_repeats} repeats" if n_repeats > 1 else ""
        units = "outputs and folds" if self.paired_over == "both" else self.paired_over
        title = (
            f"{len(self.names)} candidates, {n_folds} folds{repeats}; "
            f"mean ± standard error over {n_units} {units}"
        )
        n_without = (self.scores.shape[3] if self.paired_over != "folds" else n_folds) - n_units
        title += f" ({n_without} without a score)" if n_without else ""
        columns = self._columns()
        rows = [self._line(columns, candidate) for candidate in self._order()]
        header = ["", "score", "difference", "p", "fit (s)", "agreement"]
        shown = 6 if np.isfinite(self.agreement).any() else 5
        lines = [row[:shown] for row in [header, *rows]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
            for line in lines
        ]
        failed = describe_failures(self.failures, n_folds * n_repeats)
        return "\n".join([title, *text, *(shorten(line, LINE) for line in failed)])

    def _line(self, columns, candidate):
        value = {name: column[candidate] for name, column in columns.items()}
        return [
            str(self.names[candidate]),
            _with_error(value["mean_score"], value["standard_error"]),
            "best"
            if candidate == self.best_index
            else _with_error(value["difference_to_best"], value["difference_standard_error"]),
            "" if candidate == self.best_index else _rounded(value["p_value"], 3),
            _rounded(value["fit_seconds"], 2),
            _rounded(value["agreement"], 2),
        ]

    def _columns(self):
        return {
            "mean_score": self.mean_score,
            "standard_error": self.standard_error,
            "difference_to_best": self.difference_to_best,
            "difference_standard_error": self.difference_standard_error,
            "p_value": self.p_value,
            "rank": self.rank,
            "fit_seconds": _over_fits(self.fit_seconds),
            "score_seconds": _over_fits(self.score_seconds),
            "agreement": self.agreement,
            "n_failures": np.array(
                [sum(one.name == name for one in self.failures) for name in self.names]
            ),
        }

    def _order(self):
        return np.argsort(self.rank)

    def _units(self):
        return units_of(self.scores, np.isfinite(self.mean_score), self.paired_over)


def describe_failures(failures, n_fits: int) -> list[str]:
    """Report failures, one line for each candidate and reason.

    Parameters
    ----------
    failures : list of Failure
        The failures.
    n_fits : int
        Fits of each candidate.

    Returns
    -------
    list of str
        The lines.
    """
    counts = Counter((one.name, one.step, one.error, one.message) for one in failures)
    return [
        f"{name}: {step} failed in {count} of {n_fits} fits: {error}: {message}"
        for (name, step, error, message), count in counts.items()
    ]


def _over_fits(values) -> np.ndarray:
    """Median over the fits that did not fail; NaN if there are none."""
    rows = [row[~np.isnan(row)] for row in values.reshape(len(values), -1)]
    return np.array([np.median(row) if len(row) else np.nan for row in rows])


def _rounded(value, n_digits) -> str:
    return "-" if np.isnan(value) else f"{value:.{n_digits}f}"


def _with_error(mean, error) -> str:
    if np.isnan(mean):
        return "failed"
    return f"{mean:.4g}" if np.isnan(error) else f"{mean:.4g} ± {error:.2g}"
