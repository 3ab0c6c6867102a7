"""Scores of predicted responses."""

from __future__ import annotations

import warnings
from itertools import combinations
from numbers import Real

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning

from skdyn.metrics.rows import repeats_of, rows_of, weights_of

__all__ = ["correlation_score", "noise_corrected_correlation"]

AVERAGES = ("uniform_average", "raw_values")


def correlation_score(y_true, y_pred, *, sample_weight=None, multioutput="uniform_average"):
    r"""Pearson correlation of a prediction with a response.

    .. math::

        r = \frac{\sum_t w_t (y_t - \bar{y}) (p_t - \bar{p})}
        {\sqrt{\sum_t w_t (y_t - \bar{y})^2 \sum_t w_t (p_t - \bar{p})^2}}

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,), (n_samples, n_outputs) or \
            (n_sessions, n_samples, n_outputs), or list of arrays of shape (n_samples,) or \
            (n_samples, n_outputs)
        Response and prediction. An array with two axes is always (n_samples, n_outputs); a list
        has one array per session. The rows of all sessions are concatenated, and the correlation
        is that of all rows together. Values with a weight of zero may be NaN.
    sample_weight : array-like of shape (n_samples,), or like y_true, default=None
        Weights of rows, or of numbers of `y_true`; 0 leaves out.
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        "uniform_average" returns the mean over outputs, "raw_values" one score per output.

    Returns
    -------
    float or ndarray of shape (n_outputs,)
        Within [-1, 1]; 0 if the prediction is constant. An output with a constant response, or
        without weight, is NaN and left out of the mean.

    Raises
    ------
    ValueError
        If the shapes differ, an array has more outputs than samples (pass a list of one session
        if that is meant), there are fewer than two samples, one that has weight is not finite, or
        none has weight.

    Warns
    -----
    UndefinedMetricWarning
        If outputs are left out of the mean: how many.

    See Also
    --------
    correlation_scorer : The same, for cross-validation and searches.

    Examples
    --------
    >>> from skdyn.metrics import correlation_score
    >>> print(correlation_score([1, 2, 3], [2, 4, 7]).round(3))
    0.993
    """
    _check_average(multioutput)
    true, predicted = rows_of(y_true, "y_true"), rows_of(y_pred, "y_pred")
    if true.shape != predicted.shape or len(true) < 2:
        raise ValueError(
            f"y_true has the shape {true.shape} and y_pred the shape {predicted.shape}, but they "
            "must have the same shape and at least two samples."
        )
    weight = weights_of(sample_weight, y_true, true.shape)
    for name, values in (("y_true", true), ("y_pred", predicted)):
        if not np.isfinite(values[weight > 0]).all():
            raise ValueError(
                f"{name} has NaN or infinite values. Give them a sample_weight of 0 to leave them "
                "out."
            )
    pair = _Pair(true, predicted, weight)
    scores = np.where(pair.varies[0], pair.correlation, np.nan)
    return _average(scores, multioutput, "their response is constant or has no weight")


def noise_corrected_correlation(
    repeats,
    y_pred,
    *,
    sample_weight=None,
    multioutput="uniform_average",
    method="hsu",
    floor=None,
):
    r"""Correlation of a prediction with the response behind noisy repeats.

    The accuracy of the prediction is divided by that which the response itself would have. By
    Hsu et al. [1]_, as NEMS does, with Pearson's correlation :math:`r`:

    .. math::

        r_{corrected} = \frac{\frac{1}{n} \sum_i r(y_i, p)}
        {\sqrt{\frac{2}{n (n - 1)} \sum_{i<j} r(y_i, y_j)}}

    By Schoppe et al. [2]_, with covariances, where the denominator holds the signal power:

    .. math::

        CC_{norm} = \frac{Cov(\bar{y}, p)}{\sqrt{Var(p) \, SP}}, \qquad
        SP = \frac{Var(\sum_i y_i) - \sum_i Var(y_i)}{n (n - 1)}

    The two agree if all repeats have the same variance. A repeat with little noise counts more in
    the first, one with a large variance more in the second.

    Parameters
    ----------
    repeats : array-like of shape (n_samples, n_repeats), (n_samples, n_outputs, n_repeats) or \
            (n_sessions, n_samples, n_outputs, n_repeats), or list of arrays
        Responses to repeats of the same stimulus: the axes of `y_pred`, then that of repeats. In a
        list, sessions may have unequal numbers of repeats. NaN where nothing was recorded.
    y_pred : array-like of shape (n_samples,), (n_samples, n_outputs) or (n_sessions, n_samples, \
            n_outputs), or list of arrays
        Prediction, in the forms that `correlation_score` takes.
    sample_weight : array-like of shape (n_samples,), or like y_pred, default=None
        Weights, the same for all repeats; 0 leaves a sample out.
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        "uniform_average" returns the mean over outputs, "raw_values" one score per output.
    method : {"hsu", "schoppe"}, default="hsu"
        The formula.
    floor : float, default=None
        The least reliability of an output, which is the mean correlation of its repeats, or the
        signal power by the mean variance of a repeat with "schoppe". Below it, the denominator
        is mostly noise: the output has NaN and is left out of the mean. None is two standard
        errors of the reliability of an output that does not respond, :math:`2 / \sqrt{m}` for m
        samples of all pairs of repeats together, which holds for noise without autocorrelation;
        choose a higher one for slow signals, such as 0.1.

    Returns
    -------
    float or ndarray of shape (n_outputs,)
        1 for a prediction as good as the response allows; chance can take it above. 0 where the
        prediction is constant. NaN for an output whose repeats are not reliable, or that has no
        two repeats of the same samples.

    Raises
    ------
    ValueError
        If there are fewer than two repeats, or shapes, weights or values do not go together.

    Warns
    -----
    UndefinedMetricWarning
        If outputs are left out of the mean: how many.

    See Also
    --------
    noise_corrected_scorer : The same, for cross-validation and searches.

    Notes
    -----
    If repeats are missing, each correlation is over the samples that the two have in common,
    and means over repeats and over pairs are weighted by their number.

    References
    ----------
    .. [1] Hsu, A., Borst, A., & Theunissen, F. E. (2004). Quantifying variability in neural
       responses and its application for the validation of model predictions. Network, 15(2),
       91-109.
    .. [2] Schoppe, O., Harper, N. S., Willmore, B. D. B., King, A. J., & Schnupp, J. W. H. (2016).
       Measuring the performance of neural models. Frontiers in Computational Neuroscience, 10, 10.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.metrics import noise_corrected_correlation
    >>> rng = np.random.default_rng(0)
    >>> signal = rng.standard_normal(1000)
    >>> repeats = signal[:, np.newaxis] + rng.standard_normal((1000, 5))
    >>> print(noise_corrected_correlation(repeats, signal).round(2))
    1.0
    >>> print(noise_corrected_correlation(repeats, signal, method="schoppe").round(2))
    1.0

    A second neuron that does not respond has no score, and no part in the mean:

    >>> both = np.stack([repeats, rng.standard_normal((1000, 5))], axis=1)
    >>> prediction = np.stack([signal, signal], axis=1)
    >>> noise_corrected_correlation(both, prediction, multioutput="raw_values").round(1)
    array([ 1., nan])
    """
    _check_average(multioutput)
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method must be one of {sorted(METHODS)}, but is {method!r}.")
    if floor is not None and not (isinstance(floor, Real) and float(floor) > 0):
        raise ValueError(f"floor must be None or a number above 0, but is {floor!r}.")
    predicted = rows_of(y_pred, "y_pred")
    given = repeats_of(repeats, y_pred)
    if given.shape[-1] < 2:
        raise ValueError(f"repeats must be at least two, but there are {given.shape[-1]}.")
    weight = weights_of(sample_weight, y_pred, predicted.shape)
    known = ~np.isnan(given) & (weight > 0)[..., np.newaxis]
    if np.isinf(given[known]).any() or not np.isfinite(predicted[known.any(axis=-1)]).all():
        raise ValueError(
            "repeats have infinite values, or y_pred has NaN or infinite ones. Give them a "
            "sample_weight of 0 to leave them out."
        )
    # In units of the largest number of each output, so that no square is out of range.
    largest = np.abs(np.where(known, given, 0)).max(axis=(0, 2))
    given = np.moveaxis(given / np.where(largest > 0, largest, 1)[:, np.newaxis], -1, 0)
    accuracy, reliability, signal, smallest = METHODS[method](given, predicted, weight)
    reliable = reliability >= (smallest if floor is None else floor)
    scores = np.full(len(reliable), np.nan)
    scores[reliable] = accuracy[reliable] / np.sqrt(signal[reliable])
    reason = f"the reliability of their repeats is below {'chance' if floor is None else floor}"
    return _average(scores, multioutput, reason)


class _Pair:
    """Moments of the columns of two arrays over the rows that have weight and are not NaN."""

    def __init__(self, first, second, weight):
        weight = np.where(np.isnan(first) | np.isnan(second), 0.0, weight)
        self.total = weight.sum(axis=0)
        square = (weight**2).sum(axis=0)
        # Effective number of rows: rows of equal weight with as much information.
        self.n_rows = np.divide(self.total**2, square, out=np.zeros_like(square), where=square > 0)
        self._share = weight / np.where(self.total > 0, self.total, 1)
        self._centred = [self._centre(values) for values in (first, second)]
        self.varies = [np.any(values != 0, axis=0) for values in self._centred]

    def _centre(self, values):
        counts = self._share > 0
        values = np.where(counts, values, 0)
        lowest, highest = (
            pick(np.where(counts, values, last), axis=0)
            for pick, last in ((np.min, np.inf), (np.max, -np.inf))
        )
        centred = values - (self._share * values).sum(axis=0)
        return np.where(counts & (lowest < highest), centred, 0)

    def covariance(self, first=0, second=1):
        return (self._share * self._centred[first] * self._centred[second]).sum(axis=0)

    @property
    def correlation(self):
        """Pearson's, 0 where one of the two is constant."""
        # Squares of very small values would vanish.
        first, second = (
            values / np.where(vary, np.abs(values).max(axis=0), 1)
            for values, vary in zip(self._centred, self.varies, strict=True)
        )
        roots = np.sqrt(self._share)
        first, second = (
            np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
            for values in (roots * first, roots * second)
            for norms in [np.sqrt((values**2).sum(axis=0))]
        )
        sign = np.where((first * second).sum(axis=0) < 0, -1.0, 1.0)
        # Of unit vectors, r = 1 - |u - v|^2 / 2, which is exact where the two are nearly equal.
        ratio = sign * (1 - 0.5 * ((first - sign * second) ** 2).sum(axis=0))
        return np.where(first.any(axis=0) & second.any(axis=0), ratio, 0.0)


def _by_correlations(repeats, predicted, weight):
    """Accuracy, reliability, squared denominator and smallest reliability, by Hsu et al."""
    accuracy, _ = _weighted_mean(
        (pair.correlation, pair.n_rows)
        for pair in (_Pair(one, predicted, weight) for one in repeats)
    )
    reliability, n_rows = _weighted_mean(
        (pair.correlation, pair.n_rows)
        for pair in (_Pair(*two, weight) for two in combinations(repeats, 2))
    )
    return accuracy, reliability, reliability, _chance(n_rows)


def _by_covariances(repeats, predicted, weight):
    """The same, by Schoppe et al.; the signal power is the mean covariance of two repeats."""
    pairs = [_Pair(one, predicted, weight) for one in repeats]
    accuracy, _ = _weighted_mean(
        (
            pair.correlation * np.sqrt(pair.covariance(0, 0)),  # Cov(y_i, p) / sd(p)
            pair.n_rows,
        )
        for pair in pairs
    )
    power, _ = _weighted_mean((pair.covariance(0, 0), pair.n_rows) for pair in pairs)
    signal, n_rows = _weighted_mean(
        (pair.covariance(), pair.n_rows)
        for pair in (_Pair(*two, weight) for two in combinations(repeats, 2))
    )
    reliability = np.divide(signal, power, out=np.zeros_like(power), where=power > 0)
    return accuracy, reliability, signal, _chance(n_rows)


METHODS = {"hsu": _by_correlations, "schoppe": _by_covariances}


def _weighted_mean(values_and_weights):
    """Mean over pairs by their numbers of rows, NaN where there is none, and those numbers."""
    values, weights = (np.array(one) for one in zip(*values_and_weights, strict=True))
    total = weights.sum(axis=0)
    sums = (values * weights).sum(axis=0)
    return np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0), total


def _chance(n_rows):
    return np.divide(2, np.sqrt(n_rows), out=np.full(n_rows.shape, np.inf), where=n_rows > 0)


def _check_average(multioutput):
    if not isinstance(multioutput, str) or multioutput not in AVERAGES:
        raise ValueError(f"multioutput must be one of {AVERAGES}, but is {multioutput!r}.")


def _average(scores, multioutput, reason):
    """Mean over the outputs that have a score, with a warning of those that have none."""
    if multioutput == "raw_values":
        return scores
    missing = np.isnan(scores)
    if missing.any():
        warnings.warn(
            f"{missing.sum()} of {len(scores)} outputs have no score and are left out of the mean: "
            f"{reason}.",
            UndefinedMetricWarning,
            stacklevel=3,
        )
    return np.mean(scores[~missing]) if not missing.all() else np.float64(np.nan)
