"""Means, standard errors and paired differences of scores over folds, over outputs, or both."""

from __future__ import annotations

import numpy as np
import scipy.stats

__all__ = ["summarise", "units_of"]

# Rounds in which missing cells are filled in; each halves the error if half are missing.
N_FILLS = 100


def units_of(scores, complete, paired_over) -> np.ndarray:
    """Scores of the units over which candidates are compared.

    Parameters
    ----------
    scores : ndarray of shape (n_candidates, n_folds, n_repeats) or (n_candidates, n_folds, \
            n_repeats, n_outputs)
        Scores.
    complete : ndarray of bool of shape (n_candidates,)
        Whether a candidate has all scores.
    paired_over : {"folds", "outputs", "both"}
        The units; "both" returns those of outputs.

    Returns
    -------
    ndarray of shape (n_candidates, n_units)
        Means over repeats and over outputs or folds. Cells in which no candidate has a score are
        left out, and units without any score, too. NaN for candidates that are not complete, or
        lack a score that others have.
    """
    cells, known = _cells(scores, complete)
    axis = 1 if paired_over == "folds" else 0
    count = known.sum(axis=axis)
    total = np.where(known, cells, 0).sum(axis=axis + 1)
    return total[:, count > 0] / count[count > 0]


def _cells(scores, complete):
    """Means over repeats (n_candidates, n_folds, n_outputs), and a mask of those that exist."""
    cells = scores.mean(axis=2)
    cells = cells[..., np.newaxis] if cells.ndim == 2 else cells
    cells = np.where(complete[:, np.newaxis, np.newaxis], cells, np.nan)
    return cells, ~np.isnan(cells).all(axis=0)


def summarise(scores, complete, paired_over, test_to_train) -> dict:
    """Means, standard errors, differences to the best, and ranks.

    Parameters
    ----------
    scores : ndarray of shape (n_candidates, n_folds, n_repeats) or (n_candidates, n_folds, \
            n_repeats, n_outputs)
        Scores.
    complete : ndarray of bool of shape (n_candidates,)
        Whether a candidate has all scores; at least one has.
    paired_over : {"folds", "outputs", "both"}
        The units of means and standard errors.
    test_to_train : float
        Number of test rows by number of training rows.

    Returns
    -------
    dict
        Entries of `ModelComparison`, whose Notes have the formulas.
    """
    cells, known = _cells(scores, complete)
    if paired_over == "both":
        grid, missing = _completed(cells, known)
        mean = grid.mean(axis=(1, 2)) if grid.size else np.full(len(cells), np.nan)
    else:
        grid, missing = units_of(scores, complete, paired_over), 0
        mean = grid.mean(axis=1) if grid.size else np.full(len(cells), np.nan)
    order = np.argsort(-mean, kind="stable")  # NaN comes last
    best = int(order[0])
    error = ERRORS[paired_over]
    difference = mean - mean[best]
    spread, freedom = error(grid - grid[best], test_to_train, missing)
    return {
        "paired_over": paired_over,
        "test_to_train": test_to_train,
        "mean_score": mean,
        "standard_error": error(grid, test_to_train, missing)[0],
        "difference_to_best": difference,
        "difference_standard_error": spread,
        "degrees_of_freedom": freedom,
        "p_value": _p_value(difference, spread, freedom),
        "rank": np.argsort(order) + 1,
        "best_index": best,
    }


def _completed(cells, known):
    """Cells without a score are filled in by folds and outputs, as Yates does, and their number.

    With the additive fit in the missing cells, mean squares are those of the known ones.
    """
    folds, outputs = known.any(axis=1), known.any(axis=0)
    cells, known = cells[:, folds][..., outputs], known[folds][:, outputs]
    grid = np.where(known, cells, 0.0)
    for _ in range(N_FILLS if cells.size and not known.all() else 0):
        means = [grid.mean(axis=axis, keepdims=True) for axis in (1, 2, (1, 2))]
        grid = np.where(known, cells, means[0] + means[1] - means[2])
    return grid, int(known.size - known.sum())


def _over_folds(units, test_to_train, n_missing=0):
    """Standard error of the mean over folds, by Nadeau and Bengio, and degrees of freedom."""
    n_folds = units.shape[1]
    if n_folds < 2:
        return _unknown(units)
    spread = units.std(axis=1, ddof=1) * np.sqrt(1 / n_folds + test_to_train)
    return spread, np.full(len(units), n_folds - 1.0)


def _over_outputs(units, test_to_train, n_missing=0):
    """Standard error of the mean over outputs, as of independent ones."""
    return _over_folds(units, 0.0)


def _over_both(grid, test_to_train, n_missing=0):
    """Standard error of the mean over crossed random folds and outputs.

    Mean squares of a two-way layout, with Satterthwaite's degrees of freedom.
    """
    n_folds, n_outputs = grid.shape[1:]
    if min(n_folds, n_outputs) < 2:
        return _unknown(grid)
    n_cells, rest = n_folds * n_outputs, max((n_folds - 1.0) * (n_outputs - 1.0) - n_missing, 1.0)
    folds, outputs, mean = grid.mean(axis=2), grid.mean(axis=1), grid.mean(axis=(1, 2))
    squares = np.stack(
        [
            n_outputs * folds.var(axis=1, ddof=1),
            n_folds * outputs.var(axis=1, ddof=1),
            np.sum(
                (
                    grid
                    - folds[:, :, np.newaxis]
                    - outputs[:, np.newaxis]
                    + mean[:, np.newaxis, np.newaxis]
                )
                ** 2,
                axis=(1, 2),
            )
            / rest,
        ]
    )
    weights = np.array([1 / n_cells + test_to_train / n_outputs, 1 / n_cells, -1 / n_cells])
    parts = weights[:, np.newaxis] * squares
    # At least the error over either alone, because the estimate can be negative.
    variance = np.maximum(parts.sum(axis=0), parts[:2].max(axis=0))
    down = np.sum(parts**2 / [[n_folds - 1.0], [n_outputs - 1.0], [rest]], axis=0)
    found = np.divide(variance**2, down, out=np.full(len(grid), np.nan), where=down > 0)
    return np.sqrt(variance), found


ERRORS = {"outputs": _over_outputs, "folds": _over_folds, "both": _over_both}


def _unknown(units):
    return np.full(len(units), np.nan), np.full(len(units), np.nan)


def _p_value(difference, spread, freedom):
    """Two-sided, by Student's t; 1 if there is no difference."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p_value = 2 * scipy.stats.t.sf(np.abs(difference) / spread, freedom)
    return np.where(difference == 0, 1.0, p_value)
