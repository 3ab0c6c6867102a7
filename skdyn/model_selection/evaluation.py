"""One fit of a comparison: its rows, score and time, or its failure.

`cross_validate` reports neither the step nor the type of a failure, and passes neither `lengths` to
hidden Markov models nor runs to pipelines whose last step takes none. An adapter for it would be
longer than `evaluate` of this file.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import config_context

from skdyn._sklearn import one_blas_thread
from skdyn.core.runtime import one_thread
from skdyn.metrics.scorers import ResponseScorer
from skdyn.model_selection.repeats import has_modes, mixing_of
from skdyn.model_selection.seams import as_rows, fit_runs, score_of
from skdyn.sessions import container_of, split_sessions


@dataclass(frozen=True)
class Failure:
    """The failure of a fit, or of its scoring.

    Attributes
    ----------
    name : hashable
        Name of the candidate.
    fold, repeat : int
        Number of the fold and of the repeat.
    step : {"fit", "score"}
        The step that failed.
    error : str
        Type of the exception.
    message : str
        Text of the exception.
    traceback : str
        Traceback of the exception.
    """

    name: Any
    fold: int
    repeat: int
    step: str
    error: str
    message: str
    traceback: str


@dataclass
class Evaluation:
    """The result of one fit.

    Attributes
    ----------
    scores : ndarray of shape (n_values,) or None
        One number, or one per output; None if fit or scoring failed.
    fit_seconds, score_seconds : float
        Wall time.
    failure : tuple of str or None
        Step, type, message and traceback of the failure.
    alpha : ndarray of shape (n_samples, n_modes) or None
        Mixing coefficients of the held-out rows.
    estimator : estimator or None
        The fitted estimator, if it is to be kept.
    """

    scores: np.ndarray | None = None
    fit_seconds: float = np.nan
    score_seconds: float = np.nan
    failure: tuple[str, str, str, str] | None = None
    alpha: np.ndarray | None = None
    estimator: Any = None


@dataclass(frozen=True)
class Rows:
    """The data of a comparison, of which each fit takes some rows.

    Attributes
    ----------
    X, y : array-like or list of array-like
        The arguments of the caller; y may be None.
    labels : array-like of shape (n_samples,) or None
        Session of each row of a 2-D X; None for one recording, and for X as sessions.
    """

    X: Any
    y: Any
    labels: Any

    @property
    def are_rows(self) -> bool:
        """Whether X is 2-D, so that folds are of rows and not of sessions."""
        return container_of(self.X) == "array"

    def take(self, rows: np.ndarray, params: dict) -> tuple[tuple, dict]:
        """Some rows, and the metadata that goes with them.

        Parameters
        ----------
        rows : ndarray of int
            Numbers of the rows.
        params : dict
            Metadata of all rows.

        Returns
        -------
        arguments : tuple
            X, and y if there is one.
        params : dict
            Metadata. Sessions are renumbered, so that rows that were no neighbours are in
            different sessions.
        """
        taken = {
            name: self.runs(rows) if name == "sessions" else self._of(value, rows)
            for name, value in params.items()
        }
        data = (self.X,) if self.y is None else (self.X, self.y)
        return tuple(_take(values, rows) for values in data), taken

    def test_to_train(self, folds) -> float:
        """Ratio of the numbers of rows to score and to fit, over all folds together.

        Parameters
        ----------
        folds : list of tuple of ndarray of int
            Rows, or sessions, to fit and to score.

        Returns
        -------
        float
            The ratio.
        """
        one_each = np.ones(len(self.X), dtype=int)
        lengths = one_each if self.are_rows else np.array([len(one) for one in self.X])
        train, test = (sum(lengths[fold[which]].sum() for fold in folds) for which in (0, 1))
        return float(test / train) if train else np.nan

    def _of(self, value, rows):
        length = len(value) if hasattr(value, "__len__") and not isinstance(value, str) else None
        return _take(value, rows) if length == len(self.X) else value

    def runs(self, rows: np.ndarray) -> np.ndarray | None:
        """Number the runs of rows that were neighbours, and of one session.

        Parameters
        ----------
        rows : ndarray of int
            Numbers of the rows.

        Returns
        -------
        ndarray of int of shape (n_rows,) or None
            None if X is not 2-D.
        """
        if not self.are_rows:
            return None
        sessions = split_sessions(np.arange(len(self.X)), self.labels)
        number = np.repeat(np.arange(len(sessions)), [len(one) for one in sessions])[rows]
        starts = (np.diff(rows) != 1) | (np.diff(number) != 0)
        return np.concatenate([[0], np.cumsum(starts)])


def _take(values, rows):
    if isinstance(values, list | tuple):
        return [values[row] for row in rows]
    return getattr(values, "iloc", values)[rows]


def evaluate(
    estimator,
    scorer: Callable | None,
    data: Rows,
    fold: tuple[np.ndarray, np.ndarray],
    fit_params: dict,
    score_params: dict,
    *,
    want_modes: bool,
    want_estimator: bool,
    may_raise: bool,
) -> Evaluation:
    """Fit on some rows and score on others, on one thread.

    Parameters
    ----------
    estimator : estimator
        The estimator to fit.
    scorer : callable or None
        Called with estimator, X, y and metadata; None for the estimator's own `score`.
    data : Rows
        All rows.
    fold : tuple of ndarray of int
        Rows to fit and to score.
    fit_params, score_params : dict
        Metadata of all rows.
    want_modes, want_estimator : bool
        Contents of the result.
    may_raise : bool
        Whether exceptions are raised instead of recorded.

    Returns
    -------
    Evaluation
        The result.
    """
    result = Evaluation()
    step = "fit"
    try:
        train, train_params = data.take(fold[0], fit_params)
        test, test_params = data.take(fold[1], score_params)
        (X, y), (X_test, y_test) = ((*taken, None)[:2] for taken in (train, test))
        X, y, train_params, train_runs = as_rows(estimator, X, y, train_params, "fit")
        X_test, y_test, test_params, runs = as_rows(estimator, X_test, y_test, test_params, "score")
        if data.are_rows:
            train_runs, runs = data.runs(fold[0]), data.runs(fold[1])
        # Only if there is something to route, because other fits may not support routing.
        needed = bool(train_params or test_params)
        routing = config_context(enable_metadata_routing=True) if needed else nullcontext()
        with routing, one_thread(), one_blas_thread():
            start = time.perf_counter()
            fit_runs(estimator, X, y, train_runs, train_params)
            result.fit_seconds = time.perf_counter() - start
            step, start = "score", time.perf_counter()
            found = score_of(scorer, estimator, X_test, y_test, runs, test_params)
            scores = _as_values(found, scorer)
            result.score_seconds = time.perf_counter() - start
            if want_modes and has_modes(estimator):
                result.alpha = mixing_of(estimator, X_test, runs)
            result.scores = scores
    except Exception as error:
        if may_raise:
            raise
        # The exception itself might not survive the way back from another process.
        result.failure = (step, type(error).__name__, str(error), traceback.format_exc())
    result.estimator = estimator if want_estimator and step == "score" else None
    return result


def _as_values(scores, scorer) -> np.ndarray:
    """One number, or one per output."""
    if isinstance(scores, dict) and isinstance(scorer, ResponseScorer):
        scores = list(scores.values())
    if isinstance(scores, dict) or np.ndim(scores) > 1:
        raise ValueError(
            f"The scorer gave {scores!r}, but one number, or one per output, is needed; compare by "
            "one metric at a time."
        )
    return np.atleast_1d(np.asarray(scores, dtype=float))
