"""Put the modes of several runs, or of a run and the truth, in one order."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skdyn._fitted import find_modes
from skdyn._sklearn import (
    DocumentedMixin,
    SessionTransformerMixin,
    StrOptions,
    fit_context,
)
from skdyn.metrics import correlation_matrix
from skdyn.sessions import (
    Sessions,
    check_sessions,
    container_of,
    in_sessions,
    join_sessions,
    naming,
)
from skdyn.similarity import cosine_matrix, riemannian_matrix, rv_matrix

__all__ = ["ModeMatcher", "match_modes"]


class _Metric(NamedTuple):
    """A metric: the similarity of modes, and the arrays that it compares."""

    similarity: Callable  # (modes, other modes) -> matrix, the larger the more alike
    shape: tuple  # of the arrays that hold the modes
    axis: int  # along which the modes lie
    attribute: str | None = None  # of a fitted estimator that holds them


_METRICS = {
    "correlation": _Metric(correlation_matrix, ("n_samples", "n_modes"), 1),
    "cosine": _Metric(cosine_matrix, ("n_modes", "n_channels"), 0, "means_"),
    "riemannian": _Metric(
        lambda stack, others: -riemannian_matrix(stack, others),
        ("n_modes", "n_channels", "n_channels"),
        0,
        "covariances_",
    ),
    "rv": _Metric(rv_matrix, ("n_modes", "n_channels", "n_channels"), 0, "covariances_"),
}


def match_modes(*modes, metric="correlation", return_order=False):
    """Put the modes of every array in the order of the first.

    Each array is matched with the first by the one-to-one assignment of modes
    that has the largest sum of similarities [1]_.

    Parameters
    ----------
    *modes : array-like, list of array-like, or estimator
        Modes of two or more runs; the metric says in which shape. One array
        alone is returned as it is. Mixing coefficients may be sessions, as
        `transform` returns them: a list of arrays, or (n_sessions, n_samples,
        n_modes). Of a fitted estimator, pipeline or search, the means or
        covariances are used.
    metric : {"correlation", "cosine", "riemannian", "rv"}, default="correlation"
        The compared quantity:

        - "correlation": mixing coefficients (n_samples, n_modes), by Pearson
          correlation. Its sign counts: a mode is never matched with its mirror
          image if there is a better one. A constant column is worse than any.
        - "cosine": mean vectors (n_modes, n_channels), by the cosine of their
          angle. A zero vector is worse than any. Of an estimator, `means_`.
        - "riemannian": covariances (n_modes, n_channels, n_channels), by their
          affine-invariant distance. Of an estimator, `covariances_`.
        - "rv": covariances (n_modes, n_channels, n_channels), by RV coefficient.
          Of an estimator, `covariances_`.
    return_order : bool, default=False
        Whether to return the orders instead of the arrays.

    Returns
    -------
    list of ndarray, or of lists of ndarray
        The first array as it is, and reordered copies of the others; sessions in
        the form of the input. With
        `return_order`, the order of each array instead, as integers: the i-th
        array reordered is ``modes[i][:, orders[i]]`` with the metric
        "correlation" and ``modes[i][orders[i]]`` with the others.

    Raises
    ------
    ValueError
        If there is no array, an array has the wrong number of dimensions, is
        empty or not finite, the numbers of channels differ, or sessions do not
        match.
    TypeError
        If an estimator is given for mixing coefficients, which it does not hold,
        or does not have the modes that are compared.

    See Also
    --------
    ModeMatcher : The same as a scikit-learn transformer.

    Notes
    -----
    Mixing coefficients may have different lengths. All are taken to start at
    the same sample and are compared over the length of the shortest; the whole
    of each is returned. Sessions are compared one by one in this way. Runs with
    unequal numbers of sessions, such as a list and the same rows as one array, are
    compared if they have equally many rows in all.

    Numbers of modes may differ. Modes that found no partner in the first array
    come after the matched ones, in their own order. An array with fewer modes
    than the first is ordered by the positions of its partners there, without
    gaps.

    References
    ----------
    .. [1] D. F. Crouse, "On implementing 2D rectangular assignment algorithms",
       IEEE Transactions on Aerospace and Electronic Systems 52, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.matching import match_modes
    >>> truth = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]])
    >>> found = truth[:, [2, 0, 1]]
    >>> _, matched = match_modes(truth, found)
    >>> bool(np.all(matched == truth))
    True
    >>> _, order = match_modes(truth, found, return_order=True)
    >>> order
    array([1, 2, 0])
    """
    if not isinstance(metric, str) or metric not in _METRICS:
        raise ValueError(f"metric is {metric!r}, but one of {list(_METRICS)} was expected.")
    if not isinstance(return_order, bool | np.bool_):
        raise TypeError(f"return_order is {return_order!r}, but True or False was expected.")
    if not modes:
        raise ValueError(
            "modes has no arrays, but at least one was expected. Pass the modes of two runs."
        )
    runs = [_modes_of(one, metric, f"Array {i}") for i, one in enumerate(modes)]
    if len(runs) == 1 and runs[0].container != "array":
        raise ValueError(
            f"modes has {len(runs[0].arrays)} sessions of one run, but two or more runs were "
            "expected. If they are runs, call match_modes(*runs)."
        )
    for i, run in enumerate(runs[1:], start=1):
        _check_channels(runs[0].arrays[0], run.arrays[0], metric, "Array 0", f"array {i}")
    compared = _shared_rows(runs) if metric == "correlation" else [run.arrays[0] for run in runs]
    axis = _METRICS[metric].axis
    orders = [np.arange(compared[0].shape[axis])]
    orders += [_best_order(compared[0], other, metric)[0] for other in compared[1:]]
    if return_order:
        return orders
    first = np.asarray(modes[0]) if runs[0].container == "stack" else runs[0].arrays
    return [first[0] if runs[0].container == "array" else first] + [
        run.like_input([np.take(array, order, axis=axis) for array in run.arrays])
        for run, order in zip(runs[1:], orders[1:], strict=True)
    ]


def _modes_of(given, metric, name) -> Sessions:
    """The modes of a run; mixing coefficients may be sessions."""
    attribute = _METRICS[metric].attribute
    if hasattr(given, "get_params"):
        if attribute is None:
            raise TypeError(
                f"{name} is an estimator, {type(given).__name__}, but its mixing coefficients were "
                "expected. Pass estimator.transform(X), or compare covariances with "
                "metric='riemannian'."
            )
        given = find_modes(given, attribute)
    if attribute is not None:
        return Sessions([_check_modes(given, metric, name)], "array")
    run = in_sessions(given)
    arrays = [_check_modes(one, metric, name) for one in run.arrays]
    _check_widths(arrays, name)
    if run.container != "array" and all(_is_symmetric(one) for one in arrays):
        raise ValueError(
            f"{name} has symmetric matrices, but sessions of shape (n_samples, n_modes) were "
            "expected. Match covariances with metric='riemannian' or 'rv'."
        )
    return Sessions(arrays, run.container)


def _is_symmetric(array) -> bool:
    return array.shape[0] == array.shape[1] and np.array_equal(array, array.T)


def _shared_rows(runs: list[Sessions]) -> list[np.ndarray]:
    """The rows of each run that are compared, of all sessions."""
    if len({len(run.arrays) for run in runs}) == 1:
        shared = [min(map(len, parts)) for parts in zip(*[run.arrays for run in runs], strict=True)]
        return [
            join_sessions([one[:n] for one, n in zip(run.arrays, shared, strict=True)])
            for run in runs
        ]
    if len({run.n_samples for run in runs}) > 1:
        raise ValueError(
            f"The runs have {[len(run.arrays) for run in runs]} sessions with "
            f"{[run.n_samples for run in runs]} rows, but the same sessions, or equally many rows, "
            "were expected. Pass the sessions of each run."
        )
    return [join_sessions(run.arrays) for run in runs]


class ModeMatcher(
    DocumentedMixin, ClassNamePrefixFeaturesOutMixin, SessionTransformerMixin, BaseEstimator
):
    """Put the modes of a run in the order of a reference.

    The modes of a fit have no order of their own: two runs, or two folds of a
    cross-validation, number them differently. As the last step of a pipeline,
    after the model, this transformer gives them the numbers of the reference.

    Parameters
    ----------
    reference : array-like or list of array-like, default=None
        Modes in the desired order, shaped like `X` in `fit`. With None,
        the `y` given to `fit` is the reference.
    metric : {"correlation", "cosine", "riemannian", "rv"}, default="correlation"
        The compared quantity, see `match_modes`.

    Attributes
    ----------
    order_ : ndarray of shape (n_modes,)
        Mode of the input at each position of the output.
    similarity_ : ndarray of shape (n_modes,)
        Similarity of each mode of the output with its partner in the reference:
        correlation, cosine, RV coefficient, or minus the Riemannian distance.
        NaN for a mode without a partner, and for a constant one.
    n_features_in_ : int
        Number of modes seen by `fit`; of channels, if the metric is not
        "correlation".
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of `X`, if they are all strings.

    See Also
    --------
    match_modes : The same for arrays, of different lengths too.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.matching import ModeMatcher
    >>> truth = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]])
    >>> matcher = ModeMatcher(reference=truth).fit(truth[:, [2, 0, 1]])
    >>> matcher.order_
    array([1, 2, 0])
    >>> bool(np.all(matcher.transform(truth[:, [2, 0, 1]]) == truth))
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "reference": ["array-like", None],
        "metric": [StrOptions(set(_METRICS))],
    }

    def __init__(self, reference=None, metric="correlation"):
        self.reference = reference
        self.metric = metric

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the order.

        Parameters
        ----------
        X : array-like or list of array-like
            With the metric "correlation", mixing coefficients: (n_samples, n_modes), a
            list of such sessions, or (n_sessions, n_samples, n_modes). Mean vectors
            (n_modes, n_channels) with "cosine"; covariances (n_modes, n_channels,
            n_channels) with "riemannian" and "rv".
        y : array-like or list of array-like, default=None
            The reference, shaped like `X`, if the parameter `reference` is None.
            Cross-validation slices it together with `X`. A 1-D `y`, or a single
            column if `X` has several, cannot hold modes: it is meant for
            another step of the pipeline, and ignored. If no reference is left there
            is nothing to match, and the order is kept.

        Returns
        -------
        ModeMatcher
            The fitted transformer.

        Raises
        ------
        ValueError
            If `X` or the reference has the wrong number of dimensions, is empty or not
            finite, or if their sessions, samples or channels differ.
        """
        if self.metric == "correlation":
            sessions = check_sessions(self, X, reset=True).arrays
            modes = np.concatenate(sessions)
        else:
            modes = self._validate(X, reset=True)
        self._n_features_out = self.n_features_in_
        target, name = self.reference, "reference"
        if target is None and not _is_unrelated(y, self.n_features_in_, self.metric):
            target, name = y, "y"
        if target is None:
            self.order_, self.similarity_ = _kept_order(modes, self.metric)
            return self
        if self.metric == "correlation":
            target = _check_target(target, sessions, name)
        else:
            target = _check_modes(target, self.metric, name)
            _check_channels(modes, target, self.metric, "X", name)
        self.order_, self.similarity_ = _best_order(target, modes, self.metric)
        return self

    def transform(self, X):
        """Put the modes in the order learned by `fit`.

        Parameters
        ----------
        X : array-like or list of array-like
            Modes, in a shape that `fit` takes.

        Returns
        -------
        ndarray, DataFrame or list of these
            A reordered copy: 2-D, list or 3-D as `X` is. After
            ``set_output(transform="pandas")`` a 2-D result is a DataFrame with the
            index of `X`, and a list or 3-D one is a list of DataFrames.

        Raises
        ------
        ValueError
            If `X` has another number of modes or channels than in `fit`, is empty or
            not finite.
        """
        check_is_fitted(self)
        if self.metric == "correlation":
            sessions = check_sessions(self, X, reset=False)
            return sessions.like_input(
                [np.take(session, self.order_, axis=1) for session in sessions.arrays]
            )
        modes = self._validate(X, reset=False)
        if len(modes) != len(self.order_):
            raise ValueError(
                f"X has {len(modes)} modes, but {len(self.order_)} were expected, as in fit. Fit "
                "again."
            )
        return np.take(modes, self.order_, axis=0)

    def _validate(self, X, reset):
        """Check the parameters of modes."""
        dtypes = [np.float64, np.float32]
        with naming("X"):
            X = validate_data(self, X, reset=reset, dtype=dtypes, allow_nd=True)
        return _check_modes(X, self.metric, "X")


def _best_order(target, modes, metric):
    """Order that puts `modes` where their partners in `target` are, and the similarities."""
    similarity = _METRICS[metric].similarity(target, modes)
    n_modes = similarity.shape[1]
    # Only metrics bounded by -1 give NaN, so -2 is worse than any.
    comparable = np.where(np.isnan(similarity), -2.0, similarity)
    positions, partners = linear_sum_assignment(comparable, maximize=True)
    order = np.concatenate([partners, np.setdiff1d(np.arange(n_modes), partners)])
    scores = np.full(n_modes, np.nan)
    scores[: len(partners)] = similarity[positions, partners]
    return order, scores


def _kept_order(modes, metric):
    """Keep the order, and compare every mode with itself."""
    if (
        metric == "correlation" and len(modes) < 2
    ):  # none exists, and none is needed to keep the order
        return np.arange(modes.shape[1]), np.full(modes.shape[1], np.nan)
    similarity = _METRICS[metric].similarity(modes, modes)
    return np.arange(len(similarity)), np.diagonal(similarity).copy()


def _shape(array):
    # Unlike numpy.shape, this accepts objects with __array__ alone.
    return array.shape if hasattr(array, "shape") else np.asarray(array).shape


def _is_unrelated(y, n_columns, metric):
    """Whether `y` cannot hold modes: it is absent, labels, or one column for several modes."""
    if y is None:
        return True
    shape = _shape(y if container_of(y) == "array" else y[0])
    return len(shape) < 2 or (metric == "correlation" and shape[1] == 1 < n_columns)


def _check_target(target, sessions, name):
    """Mixing coefficients of the target, joined, if they have the sessions and samples of X."""
    given = [target] if container_of(target) == "array" else list(target)
    given = [_check_modes(session, "correlation", name) for session in given]
    lengths = [len(session) for session in sessions]
    if [len(session) for session in given] != lengths:
        raise ValueError(
            f"{name} has sessions of {[len(session) for session in given]} samples, but {lengths} "
            "were expected, as in X. Pass the same samples. In a cross-validation, pass the "
            "reference as y, which is sliced with X, not as a parameter."
        )
    _check_widths(given, name)
    return np.concatenate(given)


def _check_widths(sessions, name):
    widths = sorted({session.shape[1] for session in sessions})
    if len(widths) > 1:
        raise ValueError(
            f"{name} has sessions of {widths} modes, but one number of modes was expected. Pass "
            "the same modes for every session."
        )


def _check_modes(array, metric, name):
    array = np.asarray(array)
    shape = _METRICS[metric].shape
    wanted = f"({', '.join(shape)})"
    if array.ndim != len(shape) or array.size == 0:
        raise ValueError(
            f"{name} has the shape {array.shape}, but {wanted} was expected for metric={metric!r}. "
            "Pass such an array, or choose the metric that fits it."
        )
    if len(shape) == 3 and array.shape[1] != array.shape[2]:
        raise ValueError(
            f"{name} has the shape {array.shape}, but {wanted} was expected. Pass square matrices."
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} has the type {array.dtype}, but real numbers were expected. Convert it."
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name} has NaN or infinite values, but none were expected. Remove those samples."
        )
    return array


def _check_channels(array, other, metric, name, other_name):
    if _METRICS[metric].axis == 0 and array.shape[1:] != other.shape[1:]:
        raise ValueError(
            f"{name} has {array.shape[1]} channels and {other_name} has {other.shape[1]}, but "
            "equal numbers were expected. Pass modes of the same channels."
        )
