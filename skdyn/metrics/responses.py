"""Scores of predicted responses."""

from __future__ import annotations

import numpy as np

AVERAGES = ("uniform_average", "raw_values")


def correlation_score(y_true, y_pred, *, sample_weight=None, multioutput="uniform_average"):
    r"""Pearson correlation of a prediction with a response.

    .. math::

        r = \frac{\sum_t w_t (y_t - \bar{y}) (p_t - \bar{p})}
        {\sqrt{\sum_t w_t (y_t - \bar{y})^2 \sum_t w_t (p_t - \bar{p})^2}}

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,), (n_samples, n_outputs) or \
            (n_sessions, n_samples, n_outputs), or list of arrays with one or two axes
        Response and prediction; sessions are put one after the other. Where they
        have no weight they may be NaN.
    sample_weight : array-like of shape (n_samples,), or like y_true, default=None
        Weights; 0 leaves a sample, or a number of `y_true`, out.
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        Whether outputs are averaged, or each has its score.

    Returns
    -------
    float or ndarray of shape (n_outputs,)
        Within [-1, 1]; 0 where response or prediction is constant. An output of
        which nothing has weight has NaN, and no part in the average.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two samples, one that has weight is
        not finite, or none has weight.

    See Also
    --------
    correlation_scorer : The same, for cross-validation and searches.

    Examples
    --------
    >>> from skdyn.metrics import correlation_score
    >>> correlation_score([1, 2, 3], [2, 4, 7]).round(3)
    np.float64(0.993)
    """
    _check_average(multioutput)
    true, predicted = _rows_of_outputs(y_true, "y_true"), _rows_of_outputs(y_pred, "y_pred")
    if true.shape != predicted.shape or len(true) < 2:
        raise ValueError(
            f"Got y_true of shape {true.shape} and y_pred of shape {predicted.shape}, expected "
            "the same shape and at least two samples"
        )
    weight = _check_weight(sample_weight, true.shape)
    for name, values in (("y_true", true), ("y_pred", predicted)):
        if not np.isfinite(values[weight > 0]).all():
            raise ValueError(
                f"Got {name} with NaN or infinite values, expected finite ones; give those a "
                "sample_weight of 0 to leave them out"
            )
    columns = zip(true.T, predicted.T, weight.T, strict=True)
    return _average(np.array([_correlation(*three) for three in columns]), multioutput)


def noise_corrected_correlation(
    trials, y_pred, *, sample_weight=None, multioutput="uniform_average", floor=0.01
):
    r"""Correlation of a prediction with a response that is measured again and again.

    The mean correlation with the trials is divided by the one that the response itself would have,

    .. math::

        r = \frac{\frac{1}{n} \sum_i r(y_i, p)}
        {\sqrt{\max(\epsilon, \frac{2}{n (n - 1)} \sum_{i<j} r(y_i, y_j))}}

    Parameters
    ----------
    trials : array-like of shape (n_trials, n_samples) or (n_trials, n_samples, n_outputs)
        Responses to the same stimulus.
    y_pred : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Prediction.
    sample_weight : array-like of shape (n_samples,), or like y_pred, default=None
        Weights, the same for all trials; 0 leaves a sample out.
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        Whether outputs are averaged, or each has its score.
    floor : float, default=0.01
        The least correlation of trials that is divided by, epsilon.

    Returns
    -------
    float or ndarray of shape (n_outputs,)
        1 for a prediction as good as the response allows; chance can take it above.
        An output of which nothing has weight has NaN, and no part in the average.

    Raises
    ------
    ValueError
        If there are fewer than two trials, or `correlation_score` does not take them.

    See Also
    --------
    noise_corrected_scorer : The same, for cross-validation and searches.

    References
    ----------
    Hsu, A., Borst, A., & Theunissen, F. E. (2004). Quantifying variability in
    neural responses and its application for the validation of model predictions.
    Network, 15(2), 91-109.

    Examples
    --------
    >>> from skdyn.metrics import noise_corrected_correlation
    >>> trials = [[1, 0, 3, 2], [0, 1, 2, 3]]
    >>> noise_corrected_correlation(trials, [0, 0, 2, 2]).round(3)
    np.float64(1.155)
    """
    _check_average(multioutput)
    trials = np.asarray(trials, dtype=float)
    if trials.ndim not in (2, 3) or len(trials) < 2:
        raise ValueError(
            f"Got trials of shape {trials.shape}, expected at least two trials, (n_trials, "
            "n_samples) or (n_trials, n_samples, n_outputs)"
        )

    def mean_of(pairs):
        options = {"sample_weight": sample_weight, "multioutput": "raw_values"}
        return np.mean([correlation_score(*pair, **options) for pair in pairs], axis=0)

    accuracy = mean_of((trial, y_pred) for trial in trials)
    reliability = mean_of((one, other) for i, one in enumerate(trials) for other in trials[i + 1 :])
    return _average(accuracy / np.sqrt(np.maximum(reliability, floor)), multioutput)


def _check_average(multioutput):
    if multioutput not in AVERAGES:
        raise ValueError(
            f"Got multioutput={multioutput!r}, expected 'uniform_average' or 'raw_values'"
        )


def _average(scores, multioutput):
    return np.nanmean(scores) if multioutput == "uniform_average" else scores


def _rows_of_outputs(values, name):
    if isinstance(values, list | tuple) and all(map(_is_session, values)) and len(values):
        values = np.concatenate(values)
    array = np.asarray(values, float)
    if array.ndim not in (1, 2, 3):
        raise ValueError(f"Got {name} of shape {array.shape}, expected (n_samples, n_outputs)")
    return array[:, np.newaxis] if array.ndim == 1 else array.reshape(-1, array.shape[-1])


def _is_session(values):
    # A plain list of numbers is a row.
    return np.ndim(values) == 2 or (isinstance(values, np.ndarray) and values.ndim == 1)


def _check_weight(sample_weight, shape):
    """Weights of all numbers of a response."""
    if sample_weight is None:
        return np.ones(shape)
    weight = _rows_of_outputs(sample_weight, "sample_weight")
    usable = np.all((weight >= 0) & (weight < np.inf)) and weight.any()
    if weight.shape not in ((shape[0], 1), shape) or not usable:
        raise ValueError(
            f"Got sample_weight of shape {weight.shape} with a sum of {weight.sum()}, expected "
            f"({shape[0]},) or {shape} finite weights of at least zero, not all of them zero"
        )
    return np.broadcast_to(weight, shape)


def _correlation(true, predicted, weight):
    counts = weight > 0
    if not counts.any():
        return np.nan
    true, predicted, weight = true[counts], predicted[counts], weight[counts]
    if np.ptp(true) == 0 or np.ptp(predicted) == 0:
        return 0.0
    weight = weight / weight.sum()
    true, predicted = (_scaled(values - weight @ values) for values in (true, predicted))
    norms = np.sqrt((weight @ true**2) * (weight @ predicted**2))
    return np.clip(weight @ (true * predicted) / norms, -1, 1)


def _scaled(values):
    # Squares of very small values would vanish.
    return values / np.abs(values).max()
