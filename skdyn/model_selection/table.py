"""The result of a comparison: arrays, a table, a picture."""

from __future__ import annotations

from collections import Counter
from textwrap import shorten

import numpy as np
from sklearn.utils import Bunch

from skdyn._drawing import FAINT, INK, LABEL_SIZE, PALETTE, TICK_SIZE, panels, tidy

# Most units whose scores are drawn one by one.
MOST_POINTS = 1000
# Width of a line that tells of a failure, in characters.
LINE = 140


class ModelComparison(Bunch):
    """Held-out scores of several models on the same folds, and what their fits cost.

    A Bunch: a dictionary whose values are attributes, too. `compare_models` makes it.

    Parameters
    ----------
    **values
        What is listed below.

    Attributes
    ----------
    names : list
        Names of the candidates, in the order of all arrays.
    scores : ndarray of shape (n_candidates, n_folds, n_repeats) or (n_candidates, n_folds, \
            n_repeats, n_outputs)
        Held-out scores; where a fit failed, `error_score`.
    paired_over : {"folds", "outputs"}
        What the units are over which means and standard errors are taken. Scores are averaged over
        repeats first and, if the units are outputs, over folds.
    mean_score : ndarray of shape (n_candidates,)
        Mean over units; NaN if a fit failed, unless there is a number for `error_score`.
    standard_error : ndarray of shape (n_candidates,)
        Of `mean_score`: standard deviation over units, by the square root of their number.
    difference_to_best : ndarray of shape (n_candidates,)
        Mean over units of the score less that of the best candidate in the same unit, at most 0.
    difference_standard_error : ndarray of shape (n_candidates,)
        Of `difference_to_best`; what all candidates find hard or easy is not in it.
    rank : ndarray of int of shape (n_candidates,)
        From 1, the best.
    best_index, best_name : int, object
        The candidate with the highest mean score.
    fit_seconds, score_seconds : ndarray of shape (n_candidates, n_folds, n_repeats)
        Wall time.
    peak_memory : ndarray of shape (n_candidates, n_folds, n_repeats)
        Bytes by which the resident memory of the process rose during the fit. Memory that it had
        already is not in it: what earlier fits in the same process left over, the data, libraries,
        and what lies on a GPU. Workers that are threads share one process, and are measured as one.
    agreement : ndarray of shape (n_candidates,)
        How far the modes found from different seeds agree on held-out rows, mean over pairs of
        repeats and over folds, see `select_run`; NaN for one repeat, or without modes.
    seeds : list of int or None
        `random_state` of each repeat; one None where candidates kept their own.
    failures : list
        What failed: name, fold, repeat, step ("fit" or "score"), error, message, traceback.
    estimators : ndarray of object of shape (n_candidates, n_folds, n_repeats)
        Fitted estimators, with `return_estimators` only; None where the fit failed.
    """

    def simplest(self, n_standard_errors=2.0):
        """Name the first candidate that is hardly worse than the best.

        Candidates that can do more than is needed are often as good as the one that can do just
        that, and chance decides which of them comes out best [1]_, section 7.10.

        Parameters
        ----------
        n_standard_errors : float, default=2.0
            How many standard errors of the paired difference a candidate may be below the best.

        Returns
        -------
        hashable
            Of those candidates, the name of the one that was given first: give the simplest
            first.

        Raises
        ------
        ValueError
            If the number of standard errors is negative.

        References
        ----------
        .. [1] Hastie, T., Tibshirani, R., & Friedman, J. (2009). The elements of statistical
           learning (2nd ed.). Springer.
        """
        if not n_standard_errors >= 0:
            raise ValueError(f"Got n_standard_errors={n_standard_errors!r}, expected 0 or more.")
        margin = n_standard_errors * np.nan_to_num(self.difference_standard_error)
        return self.names[int(np.flatnonzero(self.difference_to_best >= -margin)[0])]

    def to_frame(self):
        """Give a table with one row per candidate, the best first.

        Returns
        -------
        pandas.DataFrame
            Indexed by name. Seconds and bytes are medians over folds and repeats: the first fit in
            a process pays for the libraries that it loads.

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
            Where to make the panels; with None a new figure.

        Returns
        -------
        fig, axes : Figure or SubFigure, and ndarray of Axes of shape (2,)
            What holds the panels, and the panels. Candidates are in rows, the best at the top;
            small points are folds, or outputs.
        """
        order, n_rows = self._order(), len(self.names)
        figsize = (8.0, 1.2 + 0.35 * n_rows)
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
        unit = self.paired_over.removesuffix("s").capitalize()
        marks = {unit: ticks, "Mean \N{PLUS-MINUS SIGN} SE": bars}
        style = {"frameon": False, "fontsize": TICK_SIZE, "labelcolor": INK, "ncols": 2}
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
        axes[1].legend([*marks.values()], [*marks], **place, **style)
        return fig, axes

    def __repr__(self):
        n_folds, n_repeats = self.scores.shape[1:3]
        n_units = np.isfinite(self._units()[self.best_index]).sum()
        repeats = f", {n_repeats} repeats" if n_repeats > 1 else ""
        title = (
            f"{len(self.names)} candidates, {n_folds} folds{repeats}; "
            f"mean ± standard error over {n_units} {self.paired_over}"
        )
        columns = self._columns()
        rows = [self._line(columns, candidate) for candidate in self._order()]
        header = ["", "score", "difference", "fit (s)", "memory (MB)", "agreement"]
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
            _rounded(value["fit_seconds"], 2),
            _rounded(value["peak_memory"] / 1e6, 1),
            _rounded(value["agreement"], 2),
        ]

    def _columns(self):
        return {
            "mean_score": self.mean_score,
            "standard_error": self.standard_error,
            "difference_to_best": self.difference_to_best,
            "difference_standard_error": self.difference_standard_error,
            "rank": self.rank,
            "fit_seconds": _over_fits(self.fit_seconds),
            "score_seconds": _over_fits(self.score_seconds),
            "peak_memory": _over_fits(self.peak_memory),
            "agreement": self.agreement,
            "n_failures": np.array(
                [sum(one.name == name for one in self.failures) for name in self.names]
            ),
        }

    def _order(self):
        return np.argsort(self.rank)

    def _units(self):
        return units_of(self.scores, np.isfinite(self.mean_score))


def describe_failures(failures, n_fits: int) -> list[str]:
    """Tell what failed, a line for each candidate and reason.

    Parameters
    ----------
    failures : list of Failure
        What failed.
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


def units_of(scores, complete) -> np.ndarray:
    """Scores of the units over which candidates are compared.

    Parameters
    ----------
    scores : ndarray of shape (n_candidates, n_folds, n_repeats) or (n_candidates, n_folds, \
            n_repeats, n_outputs)
        Scores.
    complete : ndarray of bool of shape (n_candidates,)
        Which candidates have them all.

    Returns
    -------
    ndarray of shape (n_candidates, n_units)
        Of folds, means over repeats. Of outputs, means over repeats and the folds in which they
        have a score; outputs that have none in any are left out. NaN for who is not complete.
    """
    if scores.ndim == 3:
        units = scores.mean(axis=2)
    else:
        known = ~np.isnan(scores)
        total = np.where(known, scores, 0).sum(axis=(1, 2))
        count = known.sum(axis=(1, 2))
        units = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        units = units[:, ~np.isnan(units[complete]).all(axis=0)]
    return np.where(complete[:, np.newaxis], units, np.nan)


def summarise(scores, complete) -> dict:
    """Means, standard errors, differences to the best, and ranks.

    Parameters
    ----------
    scores : ndarray of shape (n_candidates, n_folds, n_repeats) or (n_candidates, n_folds, \
            n_repeats, n_outputs)
        Scores.
    complete : ndarray of bool of shape (n_candidates,)
        Which candidates have them all; at least one has.

    Returns
    -------
    dict
        Entries of `ModelComparison`.
    """
    units = units_of(scores, complete)
    mean = units.mean(axis=1)
    order = np.argsort(-mean, kind="stable")  # NaN comes last
    best = int(order[0])
    difference = units - units[best]
    return {
        "paired_over": "folds" if scores.ndim == 3 else "outputs",
        "mean_score": mean,
        "standard_error": _standard_error(units),
        "difference_to_best": difference.mean(axis=1),
        "difference_standard_error": _standard_error(difference),
        "rank": np.argsort(order) + 1,
        "best_index": best,
    }


def _standard_error(units) -> np.ndarray:
    n_units = units.shape[1]
    if n_units < 2:
        return np.full(len(units), np.nan)
    return units.std(axis=1, ddof=1) / np.sqrt(n_units)


def _over_fits(values) -> np.ndarray:
    """Median over the fits that there are; NaN where there are none."""
    rows = [row[~np.isnan(row)] for row in values.reshape(len(values), -1)]
    return np.array([np.median(row) if len(row) else np.nan for row in rows])


def _rounded(value, n_digits) -> str:
    return "-" if np.isnan(value) else f"{value:.{n_digits}f}"


def _with_error(mean, error) -> str:
    if np.isnan(mean):
        return "failed"
    return f"{mean:.4g}" if np.isnan(error) else f"{mean:.4g} ± {error:.2g}"
