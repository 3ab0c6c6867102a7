"""Scorers of predicted responses, for cross-validation and searches."""

from __future__ import annotations

import numpy as np
from sklearn import metrics
from sklearn.base import BaseEstimator, clone
from sklearn.utils.metadata_routing import UNUSED

from skdyn.metrics.responses import correlation_score, noise_corrected_correlation
from skdyn.sessions import container_of, split_sessions

__all__ = [
    "CorrelationScorer",
    "NoiseCorrectedScorer",
    "ResponseScorer",
    "correlation_scorer",
    "get_scorer",
    "get_scorer_names",
    "noise_corrected_scorer",
]


class ResponseScorer(BaseEstimator):
    """Base class of scorers of predicted responses.

    It is an estimator, so that scikit-learn can clone it and route metadata to its `score`. A
    scorer from `make_scorer` would predict across the borders of sessions.
    """

    multioutput: str

    def __call__(self, estimator, X, y, **metadata):
        """Score an estimator; see `score`."""
        return self.score(estimator, X, y, **metadata)

    def _as_result(self, scores, name):
        if self.multioutput == "raw_values":
            return {f"{name}_{number}": float(score) for number, score in enumerate(scores)}
        return float(scores)


class CorrelationScorer(ResponseScorer):
    """Scorer by the correlation of predictions with responses.

    `correlation_scorer` is one that averages outputs.

    Parameters
    ----------
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        "uniform_average" returns the mean over outputs. "raw_values" returns a dict with
        "correlation_0", "correlation_1" and so on, which scikit-learn reports as metrics.

    See Also
    --------
    correlation_score : The formula.
    get_scorer : Scorers by name.
    NoiseCorrectedScorer : For responses to repeats of a stimulus.

    Notes
    -----
    `GridSearchCV` and `cross_validate` take it as ``scoring=correlation_scorer``, or by name as
    ``scoring=get_scorer("correlation")``; `compare_models` takes it as ``scoring="correlation"``,
    too.

    With metadata routing, `sessions` and `sample_weight` reach the scorer without a request.
    Without routing, the rows of a test set are one session, and all have weight.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import cross_validate
    >>> from skdyn import NEMSRegressor
    >>> from skdyn.metrics import CorrelationScorer
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((300, 3))
    >>> y = X[:, :2] + [0.1, 3] * rng.standard_normal((300, 2))
    >>> scorer = CorrelationScorer(multioutput="raw_values")
    >>> results = cross_validate(NEMSRegressor(), X, y, scoring=scorer, cv=3)
    >>> [round(float(results[f"test_correlation_{n}"].mean()), 1) for n in range(2)]
    [1.0, 0.3]
    """

    __metadata_request__score = {  # noqa: RUF012
        "estimator": UNUSED,
        "sample_weight": True,
        "sessions": True,
    }

    def __init__(self, multioutput="uniform_average"):
        self.multioutput = multioutput

    def score(self, estimator, X, y, *, sample_weight=None, sessions=None):
        """Score an estimator, as calling the scorer does.

        Parameters
        ----------
        estimator : estimator
            A fitted one with `predict`.
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The stimulus.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), list of such, or array of \
                shape (n_sessions, n_samples) or (n_sessions, n_samples, n_outputs)
            The response; it may be NaN if its weight is zero.
        sample_weight : array-like of shape (n_samples,), or like y, default=None
            Weights, in the form of X; 0 leaves a row, or a number of y, out.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X; no session has history of another.

        Returns
        -------
        float, or dict of float
            The score, or those of all outputs.
        """
        form = container_of(X)
        scores = correlation_score(
            _parts(y, form),
            _predicted_parts(estimator, X, sessions, form),
            sample_weight=None if sample_weight is None else _parts(sample_weight, form),
            multioutput=self.multioutput,
        )
        return self._as_result(scores, "correlation")


class NoiseCorrectedScorer(ResponseScorer):
    """Scorer by the correlation of predictions with the response behind noisy repeats.

    `noise_corrected_scorer` is one that averages outputs. The repeats are passed as metadata, an
    array with the axes of y and a last axis of repeats. y itself, to which the model is fitted, is
    usually their mean.

    Parameters
    ----------
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        "uniform_average" returns the mean over outputs. "raw_values" returns a dict with
        "noise_corrected_correlation_0" and so on, which scikit-learn reports as metrics.
    floor : float, default=None
        The least reliability of an output; below it, the output has no score. None is that of
        chance, see `noise_corrected_correlation`.
    method : {"hsu", "schoppe"}, default="hsu"
        The formula, see `noise_corrected_correlation`.

    See Also
    --------
    noise_corrected_correlation : The formula.

    Notes
    -----
    Metadata routing must be enabled. `repeats`, `sessions` and `sample_weight` then reach the
    scorer without a request.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn import config_context
    >>> from sklearn.model_selection import cross_validate
    >>> from skdyn import NEMSRegressor
    >>> from skdyn.metrics import correlation_scorer, noise_corrected_scorer
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((3000, 3))
    >>> repeats = X[:, :1] + rng.standard_normal((3000, 4))
    >>> scorers = {"plain": correlation_scorer, "corrected": noise_corrected_scorer}
    >>> with config_context(enable_metadata_routing=True):
    ...     results = cross_validate(
    ...         NEMSRegressor(),
    ...         X,
    ...         repeats.mean(axis=-1),
    ...         scoring=scorers,
    ...         params={"repeats": repeats},
    ...         cv=3,
    ...     )
    >>> print(results["test_plain"].mean().round(2), results["test_corrected"].mean().round(2))
    0.9 1.0
    """

    __metadata_request__score = {  # noqa: RUF012
        "estimator": UNUSED,
        "repeats": True,
        "sample_weight": True,
        "sessions": True,
    }

    def __init__(self, multioutput="uniform_average", floor=None, method="hsu"):
        self.multioutput = multioutput
        self.floor = floor
        self.method = method

    def score(self, estimator, X, y, *, repeats=None, sample_weight=None, sessions=None):
        """Score an estimator, as calling the scorer does.

        Parameters
        ----------
        estimator : estimator
            A fitted one with `predict`.
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The stimulus.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), list of such, or array of \
                shape (n_sessions, n_samples) or (n_sessions, n_samples, n_outputs)
            The response, of which only the shape counts.
        repeats : array-like of shape (n_samples, n_repeats) or (n_samples, n_outputs, \
                n_repeats), or list of such, or array with an axis of sessions in front
            The responses to each repeat of the stimulus: the axes of y, then that of repeats. NaN
            where nothing was recorded; sessions of a list may have unequal numbers of repeats.
        sample_weight : array-like of shape (n_samples,), or like y, default=None
            Weights, in the form of X; 0 leaves a row, or a number of y, out.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X; no session has history of another.

        Returns
        -------
        float, or dict of float
            The score, or those of all outputs.

        Raises
        ------
        ValueError
            If there are no repeats, or their shape is not that of y with one more axis.
        """
        if repeats is None:
            raise ValueError(
                "repeats are missing. Enable scikit-learn's metadata routing, and pass them as "
                "params={'repeats': ...}, with the axes of y and that of repeats at the end."
            )
        form = container_of(X)
        targets, trials = _parts(y, form), _parts(repeats, form)
        # Unequal numbers of sessions raise an error below.
        for target, one in zip(targets, trials, strict=False):
            if one.shape[:-1] != target.shape:
                raise ValueError(
                    f"repeats have the shape {one.shape}, but y has the shape {target.shape}; they "
                    f"must be {(*target.shape, 'n_repeats')}, with the axis of repeats at the end."
                )
        scores = noise_corrected_correlation(
            trials,
            _predicted_parts(estimator, X, sessions, form),
            sample_weight=None if sample_weight is None else _parts(sample_weight, form),
            multioutput=self.multioutput,
            method=self.method,
            floor=self.floor,
        )
        return self._as_result(scores, "noise_corrected_correlation")


correlation_scorer = CorrelationScorer()
noise_corrected_scorer = NoiseCorrectedScorer()
SCORERS = {
    "correlation": correlation_scorer,
    "noise_corrected_correlation": noise_corrected_scorer,
}


def get_scorer(scoring):
    """Get a scorer by name: those of this package, and those of scikit-learn.

    Parameters
    ----------
    scoring : str or callable
        "correlation", "noise_corrected_correlation", or a name of scikit-learn's, such as "r2". A
        callable is returned as it is.

    Returns
    -------
    callable
        A scorer, called with an estimator, X and y, for `scoring` of `GridSearchCV`,
        `cross_validate` and `compare_models`.

    Raises
    ------
    ValueError
        If there is no scorer of that name.

    See Also
    --------
    get_scorer_names : The names.
    sklearn.metrics.get_scorer : Those of scikit-learn.

    Notes
    -----
    `compare_models(..., scoring="correlation")` takes the names themselves. scikit-learn has no
    way to add a name to those that `GridSearchCV` takes, so give it the scorer.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skdyn import NEMSRegressor
    >>> from skdyn.metrics import get_scorer
    >>> search = GridSearchCV(
    ...     NEMSRegressor(),
    ...     {"layers": ["fir.5-lvl", "fir.10-lvl"]},
    ...     scoring=get_scorer("correlation"),
    ... )
    """
    if isinstance(scoring, str) and scoring in SCORERS:
        return clone(SCORERS[scoring])
    try:
        return metrics.get_scorer(scoring)
    except ValueError as error:
        raise ValueError(
            f"scoring={scoring!r} is no scorer; skdyn.metrics.get_scorer_names() lists them."
        ) from error


def get_scorer_names():
    """List the names that `get_scorer` takes.

    Returns
    -------
    list of str
        In alphabetic order.

    Examples
    --------
    >>> from skdyn.metrics import get_scorer_names
    >>> [name for name in get_scorer_names() if "corr" in name and "matthews" not in name]
    ['correlation', 'noise_corrected_correlation']
    """
    return sorted([*SCORERS, *metrics.get_scorer_names()])


def _parts(values, form):
    """Arrays of all sessions; a 2-D X is one."""
    return [np.asarray(one, dtype=float) for one in ([values] if form == "array" else values)]


def _predicted_parts(estimator, X, sessions, form):
    """Predict each session alone, so that only `predict(X)` is needed."""
    if form != "array" or sessions is None:
        return _parts(estimator.predict(X), form)
    rows = getattr(X, "iloc", X)
    parts = split_sessions(np.arange(len(X)), sessions)
    predicted = [estimator.predict(rows[one[0] : one[-1] + 1]) for one in parts]
    return [np.concatenate(predicted)]
