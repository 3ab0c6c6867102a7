"""Fits and scores of rows that come in several runs: nothing crosses a seam.

Estimators of this package take sessions. Others receive a list of sessions as rows. An estimator
whose `fit` takes `lengths`, such as hmmlearn's models, receives the length of each run.
"""

from __future__ import annotations

from functools import wraps
from inspect import ismethod, signature
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object, process_routing

from skdyn.metrics.scorers import ResponseScorer
from skdyn.sessions import container_of, split_sessions

__all__ = ["RunByRun", "as_rows", "fit_runs", "score_of"]

# Methods that give a result per row.
ROW_METHODS = frozenset(
    {
        *("predict", "predict_proba", "predict_log_proba", "decision_function"),
        *("transform", "score_samples"),
    }
)
# Their `score` needs only predictions, or the best estimator of a fitted search.
SCORES_BY_PREDICTIONS = (RegressorMixin.score, ClassifierMixin.score, GridSearchCV.score)


class RunByRun:
    """A fitted estimator that predicts each run of neighbouring rows alone.

    It is given to scorers that do not take `sessions`. Methods with a result per row are called
    for each run; other methods that take `sessions`, such as `score`, receive the runs. Everything
    else is that of the estimator.

    Parameters
    ----------
    estimator : estimator
        A fitted one.
    runs : ndarray of shape (n_samples,)
        Number of each row's run.
    """

    def __init__(self, estimator, runs):
        self._estimator, self._runs = estimator, runs

    def __sklearn_is_fitted__(self):
        return True

    def __getattr__(self, name: str) -> Any:
        if name in ("_estimator", "_runs"):  # of a copy that is being made
            raise AttributeError(name)
        found = getattr(self._estimator, name)
        if name == "best_estimator_":
            return RunByRun(found, self._runs)
        if name in ROW_METHODS:
            return self._by_run(found)
        takes_sessions = ismethod(found) and "sessions" in signature(found).parameters
        return self._with_sessions(found) if takes_sessions else found

    def _by_run(self, method):
        @wraps(method)  # scorers of scikit-learn use the name
        def call(X, *args, **params):
            if len(X) != len(self._runs):
                raise ValueError(
                    f"The scorer asks for predictions of {len(X)} rows, but the fold has "
                    f"{len(self._runs)}, in several runs; predict all, and score some of them."
                )
            rows = getattr(X, "iloc", X)
            numbers = split_sessions(np.arange(len(X)), self._runs)
            parts = [method(rows[one[0] : one[-1] + 1], *args, **params) for one in numbers]
            if isinstance(parts[0], tuple):
                return tuple(np.concatenate(one) for one in zip(*parts, strict=True))
            return np.concatenate(parts)

        return call

    def _with_sessions(self, method):
        @wraps(method)
        def call(*args, **params):
            return method(*args, **{"sessions": self._runs, **params})

        return call

    def score(self, X, y=None, **params):
        """Score as the estimator does, each run alone if it takes sessions or predicts.

        Parameters
        ----------
        X, y : array-like
            The rows.
        **params
            Metadata for the estimator's `score`.

        Returns
        -------
        float
            The score.
        """
        if _consumes(self._estimator, "score"):
            params = {"sessions": self._runs, **params}
        with config_context(enable_metadata_routing=True):
            return _own_score(self._estimator, X, y, self._runs, params)


def _consumes(estimator, method: str) -> bool:
    """Whether sessions are routed to a method; to nothing in estimators without routing."""
    try:
        return bool(get_routing_for_object(estimator).consumes(method, ["sessions"]))
    except NotImplementedError:
        return False


def takes(model, name: str) -> bool:
    """Whether the `fit` of an estimator, or of the last of its steps, has an argument."""
    while isinstance(model, Pipeline) or hasattr(model, "refit"):  # or a search
        model = model[-1] if isinstance(model, Pipeline) else model.estimator
    fit = getattr(model, "fit", None)
    return fit is not None and name in signature(fit).parameters


def as_rows(estimator, X, y, params, method: str):
    """Rows of a list of sessions, for an estimator that takes rows only.

    Parameters
    ----------
    estimator : estimator
        The estimator to fit or score.
    X, y : array-like or list of array-like
        The rows, or sessions; y may be None.
    params : dict
        Metadata; values per session are joined as X is.
    method : {"fit", "score"}
        The use of the metadata: `sessions` are added if a step requests them.

    Returns
    -------
    X, y : array-like
        Rows; the arguments themselves if the estimator takes sessions or X is 2-D.
    params : dict
        Metadata.
    runs : ndarray of shape (n_samples,) or None
        Number of the session of each row; None if X was not changed.
    """
    if container_of(X) == "array" or takes(estimator, "sessions"):
        return X, y, params, None
    lengths = [len(one) for one in X]
    X, y, *values = (_concatenated(one, lengths) for one in (X, y, *params.values()))
    params = dict(zip(params, values, strict=True))
    runs = np.repeat(np.arange(len(lengths)), lengths)
    if _consumes(estimator, method):
        params["sessions"] = runs
    return X, y, params, runs


def fit_runs(estimator, X, y, runs, params):
    """Fit an estimator, with the lengths of runs if it takes `lengths`.

    Parameters
    ----------
    estimator : estimator
        The estimator to fit.
    X, y : array-like or list of array-like
        The rows, or sessions; y may be None.
    runs : ndarray of shape (n_samples,) or None
        Number of the run of each row of a 2-D X.
    params : dict
        Metadata.
    """
    arguments = (X,) if y is None else (X, y)
    if runs is None or not takes(estimator, "lengths"):
        estimator.fit(*arguments, **params)
    elif not isinstance(estimator, Pipeline):
        estimator.fit(X, lengths=_lengths(runs), **params)
    else:
        if len(estimator) > 1:
            n_rows = len(X)
            X = estimator[:-1].fit_transform(*arguments, **params)
            params = {}
            # After a step that drops rows, runs cannot be distinguished.
            runs = runs if len(X) == n_rows else None
        fit_runs(estimator[-1], X, None, runs, params)


def score_of(scorer, estimator, X, y, runs, params):
    """Score a fitted estimator on held-out rows.

    Parameters
    ----------
    scorer : callable or None
        Called with estimator, X, y and metadata; None for the estimator's own `score`.
    estimator : estimator
        A fitted one.
    X, y : array-like or list of array-like
        The rows, or sessions; y may be None.
    runs : ndarray of shape (n_samples,) or None
        Number of the run of each row of a 2-D X.
    params : dict
        Metadata. If they include `sessions`, the scorer keeps runs apart. Scorers of this package
        also do so with sessions in a list or stack.

    Returns
    -------
    float, array-like or dict
        The result of the scorer.
    """
    if scorer is None:
        return _own_score(estimator, X, y, runs, params)
    if "sessions" not in params and not isinstance(scorer, ResponseScorer):
        if container_of(X) != "array" and hasattr(scorer, "set_score_request"):
            # One of scikit-learn's, whose metrics know rows only.
            lengths = [len(one) for one in X]
            X, y, *values = (_concatenated(one, lengths) for one in (X, y, *params.values()))
            params = dict(zip(params, values, strict=True))
            runs = np.repeat(np.arange(len(lengths)), lengths)
        if _has_seams(runs):
            estimator = RunByRun(estimator, runs)
    return scorer(estimator, X, **params) if y is None else scorer(estimator, X, y, **params)


def _own_score(estimator, X, y, runs, params):
    """Call `score`, with predictions run by run if it takes no sessions."""
    if isinstance(estimator, Pipeline):
        return _pipeline_score(estimator, X, y, runs, params)
    arguments = (X,) if y is None else (X, y)
    method = getattr(type(estimator), "score", None)
    if _has_seams(runs) and "sessions" not in params and method in SCORES_BY_PREDICTIONS:
        return method(RunByRun(estimator, runs), *arguments, **params)
    if y is None and takes(estimator, "lengths"):
        # That of hmmlearn's models is the sum over rows.
        lengths = [len(X)] if runs is None else _lengths(runs)
        return estimator.score(X, lengths=lengths, **params) / len(X)
    return estimator.score(*arguments, **params)


def _pipeline_score(pipeline, X, y, runs, params):
    """Score the last step of a pipeline on the output of the other steps.

    With metadata routing, `Pipeline.score` of scikit-learn fails if the score of the last step
    takes no sample_weight.
    """
    routed = process_routing(pipeline, "score", **params)
    *steps, (last, scored) = pipeline.named_steps.items()
    for name, step in steps:
        if step in (None, "passthrough"):
            continue
        given = routed[name].transform
        apart = _has_seams(runs) and "sessions" not in given
        X = (RunByRun(step, runs) if apart else step).transform(X, **given)
        # After a step that drops rows, runs cannot be distinguished.
        runs = runs if runs is None or len(X) == len(runs) else None
    return _own_score(scored, X, y, runs, routed[last].score)


def _lengths(runs: np.ndarray) -> list[int]:
    """Number of rows of each run, in order."""
    ends = np.flatnonzero(np.diff(runs)) + 1
    return np.diff([0, *ends, len(runs)]).tolist()


def _has_seams(runs) -> bool:
    return runs is not None and runs[0] != runs[-1]


def _concatenated(values, lengths):
    """Rows of all sessions, if each has the expected number."""
    per_session = hasattr(values, "__len__") and len(values) == len(lengths)
    if per_session and [len(np.atleast_1d(one)) for one in values] == lengths:
        return np.concatenate([np.asarray(one) for one in values])
    return values
