"""One fit of a comparison: on which rows, how good, how long, how large, or why it failed."""

from __future__ import annotations

import mmap
import sys
import threading
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
from skdyn.metrics import CorrelationScorer, NoiseCorrectedScorer
from skdyn.model_selection.repeats import has_modes, mixing_of
from skdyn.sessions import container_of, split_sessions

# Where Linux tells how many pages a process holds.
STATM = "/proc/self/statm"
SAMPLING_SECONDS = 0.01


@dataclass(frozen=True)
class Failure:
    """Why a fit, or the scoring of one, failed.

    Attributes
    ----------
    name : hashable
        Name of the candidate.
    fold, repeat : int
        Where.
    step : {"fit", "score"}
        What failed.
    error : str
        Type of the exception.
    message : str
        What it says.
    traceback : str
        Where it was raised.
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
    """What came out of one fit.

    Attributes
    ----------
    scores : ndarray of shape (n_values,) or None
        One number, or one per output; None where fit or scoring failed.
    fit_seconds, score_seconds : float
        Wall time.
    peak_memory : float
        Rise of the resident memory during the fit, in bytes.
    failure : tuple of str or None
        Step, type, message and traceback of what failed.
    alpha : ndarray of shape (n_samples, n_modes) or None
        Mixing coefficients of the held-out rows.
    estimator : estimator or None
        The fitted one, where it is to be kept.
    """

    scores: np.ndarray | None = None
    fit_seconds: float = np.nan
    score_seconds: float = np.nan
    peak_memory: float = np.nan
    failure: tuple[str, str, str, str] | None = None
    alpha: np.ndarray | None = None
    estimator: Any = None


@dataclass(frozen=True)
class Rows:
    """The data of a comparison, of which each fit takes some rows.

    Attributes
    ----------
    X, y : array-like or list of array-like
        As the caller gave them; y may be None.
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
            Which.
        params : dict
            Metadata of all rows.

        Returns
        -------
        arguments : tuple
            X, and y if there is one.
        params : dict
            Metadata. Sessions are numbered anew, so that rows that were no neighbours are in
            different ones.
        """
        taken = {
            name: self.runs(rows) if name == "sessions" else self._of(value, rows)
            for name, value in params.items()
        }
        data = (self.X,) if self.y is None else (self.X, self.y)
        return tuple(_take(values, rows) for values in data), taken

    def _of(self, value, rows):
        length = len(value) if hasattr(value, "__len__") and not isinstance(value, str) else None
        return _take(value, rows) if length == len(self.X) else value

    def runs(self, rows: np.ndarray) -> np.ndarray | None:
        """Number the runs of rows that were neighbours, and of one session.

        Parameters
        ----------
        rows : ndarray of int
            Which.

        Returns
        -------
        ndarray of int of shape (n_rows,) or None
            None where X is not 2-D.
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
    scorer: Callable,
    data: Rows,
    split: tuple[np.ndarray, np.ndarray],
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
        Is fitted.
    scorer : callable
        Called with estimator, X, y and metadata.
    data : Rows
        All rows.
    split : tuple of ndarray of int
        Rows to fit and to score.
    fit_params, score_params : dict
        Metadata of all rows.
    want_modes, want_estimator : bool
        What goes into the result.
    may_raise : bool
        Whether an exception is raised, and not noted.

    Returns
    -------
    Evaluation
        The result.
    """
    result = Evaluation()
    train, train_params = data.take(split[0], fit_params)
    test, test_params = data.take(split[1], score_params)
    # Only where there is something to route: some pipelines cannot score with routing enabled.
    routing = (
        config_context(enable_metadata_routing=True)
        if train_params or test_params
        else nullcontext()
    )
    step = "fit"
    with routing, one_thread(), one_blas_thread():
        start = time.perf_counter()
        try:
            with MemoryRise() as memory:
                estimator.fit(*train, **train_params)
            result.fit_seconds, result.peak_memory = time.perf_counter() - start, memory.rise
            step, start = "score", time.perf_counter()
            scores = _as_values(scorer(estimator, *test, **test_params), scorer)
            result.score_seconds = time.perf_counter() - start
            if want_modes and has_modes(estimator):
                result.alpha = mixing_of(estimator, test[0], data.runs(split[1]))
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
    if isinstance(scores, dict) and isinstance(scorer, CorrelationScorer | NoiseCorrectedScorer):
        scores = list(scores.values())
    if isinstance(scores, dict) or np.ndim(scores) > 1:
        raise ValueError(
            f"Got {scores!r} from the scorer, expected one number, or one per output; compare by "
            "one metric at a time."
        )
    return np.atleast_1d(np.asarray(scores, dtype=float))


class MemoryRise:
    """How much more memory the process holds at the height of a block than at its start.

    A thread looks every 10 ms. Where the operating system does not tell what a process holds now,
    it is the rise of the most that it ever held.

    Attributes
    ----------
    rise : float
        In bytes; NaN where the operating system tells neither.
    """

    rise: float = np.nan

    def __enter__(self):
        self._start = self._most = resident_bytes()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()
        self.rise = max(self._most, resident_bytes()) - self._start

    def _watch(self):
        while not self._end.wait(SAMPLING_SECONDS):
            self._most = max(self._most, resident_bytes())


def resident_bytes() -> float:
    """Tell how much memory the process holds, or the most it ever held, or NaN.

    Returns
    -------
    float
        In bytes.
    """
    try:
        with open(STATM, "rb") as file:
            return float(int(file.read().split()[1]) * mmap.PAGESIZE)
    except OSError:
        return _most_resident_bytes()


def _most_resident_bytes() -> float:
    try:
        import resource
    except ImportError:
        return np.nan
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most if sys.platform == "darwin" else most * 1024)
