"""Scorers of predicted responses, for cross-validation and searches."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNUSED

from skdyn.metrics.responses import correlation_score, noise_corrected_correlation
from skdyn.sessions import container_of, split_sessions

__all__ = [
    "CorrelationScorer",
    "NoiseCorrectedScorer",
    "correlation_scorer",
    "noise_corrected_scorer",
]


class _ResponseScorer(BaseEstimator):
    """What scorers have in common: they are called, and metadata that they know come by themselves.

    Made as an estimator, since that is what scikit-learn clones and asks for metadata; they are
    those of `score`. A scorer from `make_scorer` would predict across the borders of sessions.
    """

    def __call__(self, estimator, X, y, **metadata):
        """Score an estimator; see `score`."""
        return self.score(estimator, X, y, **metadata)

    def _as_result(self, scores, name):
        if self.multioutput == "raw_values":
            return {f"{name}_{number}": float(score) for number, score in enumerate(scores)}
        return float(scores)


class CorrelationScorer(_ResponseScorer):
    """Scorer by the correlation of predictions with responses.

    `correlation_scorer` is one that averages outputs.

    Parameters
    ----------
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        Whether outputs are averaged, or each has its score: a dict of "correlation_0",
        "correlation_1" and so on, which scikit-learn takes for as many metrics.

    See Also
    --------
    correlation_score : The formula.
    NoiseCorrectedScorer : For responses that were measured again and again.

    Notes
    -----
    With metadata routing, `sessions` and `sample_weight` reach the scorer without being requested.
    Without, the rows of a test set are one session, and all have weight.

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
            The response. Where it has no weight it may be NaN.
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
            _rows(y, form),
            _predicted_rows(estimator, X, sessions, form),
            sample_weight=None if sample_weight is None else _rows(sample_weight, form),
            multioutput=self.multioutput,
        )
        return self._as_result(scores, "correlation")


class NoiseCorrectedScorer(_ResponseScorer):
    """Scorer by the correlation of predictions with the response behind noisy repeats.

    `noise_corrected_scorer` is one that averages outputs. The repeats go along with the rows, as
    metadata: an array with the axes of y, and one more, of repeats, at the end. y itself, what the
    model is fitted to, is usually their mean.

    Parameters
    ----------
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        Whether outputs are averaged, or each has its score: a dict of
        "noise_corrected_correlation_0" and so on, which scikit-learn takes for as many metrics.
    floor : float, default=0.01
        The least correlation of repeats that is divided by.

    See Also
    --------
    noise_corrected_correlation : The formula.

    Notes
    -----
    Metadata routing has to be enabled. `repeats`, `sessions` and `sample_weight` then reach the
    scorer without being requested.

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

    def __init__(self, multioutput="uniform_average", floor=0.01):
        self.multioutput = multioutput
        self.floor = floor

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
            The responses to each repeat of the stimulus: the axes of y, then that of repeats.
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
                "Got no repeats, expected them with an axis of repeats behind those of y; enable "
                "scikit-learn's metadata routing, and pass them as params={'repeats': ...}"
            )
        form = container_of(X)
        target, trials = _rows(y, form), _rows(repeats, form)
        if trials.shape[:-1] != target.shape:
            raise ValueError(
                f"Got repeats of shape {trials.shape} for y of shape {target.shape}, all sessions "
                f"together, expected {(*target.shape, 'n_repeats')}; the last axis is that of "
                "repeats"
            )
        scores = noise_corrected_correlation(
            np.moveaxis(trials, -1, 0),
            _predicted_rows(estimator, X, sessions, form),
            sample_weight=None if sample_weight is None else _rows(sample_weight, form),
            multioutput=self.multioutput,
            floor=self.floor,
        )
        return self._as_result(scores, "noise_corrected_correlation")


correlation_scorer = CorrelationScorer()
noise_corrected_scorer = NoiseCorrectedScorer()


def _rows(values, form):
    """Put the rows of all sessions one below the other, with no axis of sessions."""
    if form == "list":
        return np.concatenate([np.asarray(one, dtype=float) for one in values])
    array = np.asarray(values, dtype=float)
    return array.reshape(-1, *array.shape[2:]) if form == "stack" else array


def _predicted_rows(estimator, X, sessions, form):
    """Predict each session by itself, so that nothing but `predict(X)` is asked for."""
    if form != "array" or sessions is None:
        return _rows(estimator.predict(X), form)
    rows = getattr(X, "iloc", X)
    parts = split_sessions(np.arange(len(X)), sessions)
    return np.concatenate([estimator.predict(rows[one[0] : one[-1] + 1]) for one in parts])
