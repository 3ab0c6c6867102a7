"""Scores of held-out rows that come in several runs: no prediction crosses a seam."""

from __future__ import annotations

from functools import wraps
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import process_routing

from skdyn.metrics.scorers import ResponseScorer
from skdyn.sessions import container_of, split_sessions

__all__ = ["RunByRun", "score_of"]

# Methods that give a result per row.
ROW_METHODS = frozenset(
    {
        *("predict", "predict_proba", "predict_log_proba", "decision_function"),
        *("transform", "score_samples"),
    }
)
# Their `score` asks for nothing but predictions, or a fitted search for its best estimator.
SCORES_BY_PREDICTIONS = (RegressorMixin.score, ClassifierMixin.score, GridSearchCV.score)


class RunByRun:
    """A fitted estimator that predicts each run of neighbouring rows alone.

    It is given to scorers that do not take `sessions`. All but the methods with a result per row,
    and `score`, is that of the estimator.

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
        return self._by_run(found) if name in ROW_METHODS else found

    def _by_run(self, method):
        @wraps(method)  # scorers of scikit-learn look at the name
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

    def score(self, X, y=None, **params):
        """Score as the estimator does, from predictions run by run where it asks for those.

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
        return _own_score(self._estimator, X, y, self._runs, params)


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
        Metadata. With `sessions` among them, it is the scorer that keeps runs apart, as are those
        of this package with sessions in a list or stack.

    Returns
    -------
    float, array-like or dict
        What the scorer returns.
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
    """Call `score`, with predictions run by run where it takes no sessions."""
    if isinstance(estimator, Pipeline):
        return _pipeline_score(estimator, X, y, runs, params)
    arguments = (X,) if y is None else (X, y)
    method = getattr(type(estimator), "score", None)
    if _has_seams(runs) and "sessions" not in params and method in SCORES_BY_PREDICTIONS:
        return method(RunByRun(estimator, runs), *arguments, **params)
    return estimator.score(*arguments, **params)


def _pipeline_score(pipeline, X, y, runs, params):
    """Score the last step of a pipeline on what the others make of X.

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
        # A step that drops rows leaves none that could be told apart.
        runs = runs if runs is None or len(X) == len(runs) else None
    return _own_score(scored, X, y, runs, routed[last].score)


def _has_seams(runs) -> bool:
    return runs is not None and runs[0] != runs[-1]


def _concatenated(values, lengths):
    """Rows of all sessions, if there are as many in each as there should be."""
    per_session = hasattr(values, "__len__") and len(values) == len(lengths)
    if per_session and [len(np.atleast_1d(one)) for one in values] == lengths:
        return np.concatenate([np.asarray(one) for one in values])
    return values
