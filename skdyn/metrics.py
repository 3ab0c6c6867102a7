"""Scores and distances between mixing coefficients, covariances and state sequences."""

import numpy as np
import scipy.linalg

__all__ = [
    "alpha_correlation",
    "correlation_matrix",
    "correlation_score",
    "dice_coefficient",
    "noise_corrected_correlation",
    "riemannian_distance",
    "rv_coefficient",
]


def alpha_correlation(alpha, other):
    r"""Pearson correlation of matched columns.

    .. math::

        r_j = \frac{\sum_t (a_{tj} - \bar{a}_j)(b_{tj} - \bar{b}_j)}
        {\sqrt{\sum_t (a_{tj} - \bar{a}_j)^2 \sum_t (b_{tj} - \bar{b}_j)^2}}

    Parameters
    ----------
    alpha : array-like of shape (n_samples, n_modes)
        Mixing coefficients.
    other : array-like of shape (n_samples, n_modes)
        Mixing coefficients to compare with, modes in the same order.

    Returns
    -------
    ndarray of shape (n_modes,)
        Correlation of column j with column j, within [-1, 1]; NaN, without a
        warning, where one of the two is constant.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two samples, or a value is not
        finite.

    See Also
    --------
    correlation_matrix : Every column with every column.
    skdyn.matching.match_modes : Put modes in one order.

    Examples
    --------
    >>> from skdyn.metrics import alpha_correlation
    >>> alpha = [[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]]
    >>> other = [[0.1, 0.1], [0.4, 0.4], [0.8, 0.8]]
    >>> alpha_correlation(alpha, other).round(6)
    array([ 1., -1.])
    """
    alpha, other = _check_courses(alpha, other)
    if alpha.shape[1] != other.shape[1]:
        raise ValueError(
            f"got {alpha.shape[1]} and {other.shape[1]} modes, expected equal numbers; "
            "match the modes first, or use correlation_matrix"
        )
    correlation = np.einsum("tj,tj->j", _unit_columns(alpha), _unit_columns(other))
    return np.clip(correlation, -1, 1)


def correlation_matrix(alpha, other):
    """Pearson correlation of every column with every column.

    Parameters
    ----------
    alpha : array-like of shape (n_samples, n_modes)
        Mixing coefficients.
    other : array-like of shape (n_samples, n_other_modes)
        Mixing coefficients to compare with.

    Returns
    -------
    ndarray of shape (n_modes, n_other_modes)
        Entry (i, j) is the correlation of column i of `alpha` with column j of
        `other`, within [-1, 1]; NaN, without a warning, where one of the two is
        constant.

    Raises
    ------
    ValueError
        If the numbers of samples differ, there are fewer than two, or a value is
        not finite.

    See Also
    --------
    alpha_correlation : Matched columns only, and the formula.

    Examples
    --------
    >>> from skdyn.metrics import correlation_matrix
    >>> alpha = [[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]]
    >>> other = [[0.8], [0.5], [0.1]]
    >>> correlation_matrix(alpha, other).round(6)
    array([[-1.],
           [ 1.]])
    """
    alpha, other = _check_courses(alpha, other)
    return np.clip(_unit_columns(alpha).T @ _unit_columns(other), -1, 1)


def riemannian_distance(covariance, other):
    r"""Affine-invariant distance of two covariance matrices.

    .. math::

        d(A, B) = \sqrt{\textstyle\sum_i \log^2 \lambda_i},
        \qquad A v_i = \lambda_i B v_i

    It is symmetric, zero only for equal matrices, and the same after any
    invertible linear change of the channels.

    Parameters
    ----------
    covariance : array-like of shape (n_channels, n_channels)
        Symmetric positive definite matrix.
    other : array-like of shape (n_channels, n_channels)
        Symmetric positive definite matrix to compare with.

    Returns
    -------
    float
        Distance, at least 0.

    Raises
    ------
    ValueError
        If a matrix is not square, not finite, not symmetric or, to the precision
        of float64, not positive definite, or if the shapes differ.

    References
    ----------
    .. [1] W. Förstner and B. Moonen, "A metric for covariance matrices", in
       Geodesy: The Challenge of the 3rd Millennium, 2003.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.metrics import riemannian_distance
    >>> round(riemannian_distance(np.diag([1.0, np.e**3]), np.diag([np.e**4, 1.0])), 6)
    5.0
    """
    return float(_riemannian_matrix(*_check_one_pair(covariance, other))[0, 0])


def rv_coefficient(matrix, other):
    r"""RV coefficient of two matrices whose rows are the same channels.

    .. math::

        RV(M, N) = \frac{tr(A B)}{\sqrt{tr(A^2) \, tr(B^2)}},
        \qquad A = M M^T, \quad B = N N^T

    The matrices are taken as they are: to compare data matrices, remove the
    mean of every column before. Covariance matrices are passed as M and N, as
    osl-dynamics does to match modes, so it is their squares that are compared.

    Parameters
    ----------
    matrix : array-like of shape (n_channels, n_columns)
        First matrix, M.
    other : array-like of shape (n_channels, n_other_columns)
        Second matrix, N.

    Returns
    -------
    float
        Coefficient within [0, 1]: 1 if A and B are proportional, 0 if every
        column of M is orthogonal to every column of N; NaN, without a warning,
        if one of the matrices is zero.

    Raises
    ------
    ValueError
        If a matrix is not 2-D or not finite, or the numbers of rows differ.

    References
    ----------
    .. [1] P. Robert and Y. Escoufier, "A unifying tool for linear multivariate
       statistical methods: the RV-coefficient", Applied Statistics 25, 1976.

    Examples
    --------
    >>> from skdyn.metrics import rv_coefficient
    >>> rv_coefficient([[1, 0], [0, 0]], [[3, 0], [0, 0]])
    1.0
    >>> rv_coefficient([[1, 0], [0, 0]], [[0, 0], [0, 5]])
    0.0
    """
    return float(_rv_matrix(*_check_one_pair(matrix, other))[0, 0])


def dice_coefficient(labels, other):
    r"""Dice coefficient of two state sequences.

    .. math::

        D(a, b) = 2 \, |\{t : a_t = b_t\}| / (n_a + n_b)

    with n the lengths of the sequences, which have to be equal: it is then the
    share of samples whose states agree. Unlike the correlation, it depends on
    the names of the states, so match the modes first.

    Parameters
    ----------
    labels : array-like of shape (n_samples,) or (n_samples, n_modes)
        State of each sample as an integer, or mixing coefficients, of which the
        largest of each sample is its state (the first of equal ones).
    other : array-like of shape (n_samples,) or (n_samples, n_modes)
        States or mixing coefficients to compare with.

    Returns
    -------
    float
        Coefficient within [0, 1].

    Raises
    ------
    ValueError
        If the lengths differ, a sequence is empty, labels are not integers, or a
        value is not finite.

    References
    ----------
    .. [1] L. R. Dice, "Measures of the amount of ecologic association between
       species", Ecology 26, 1945.

    Examples
    --------
    >>> from skdyn.metrics import dice_coefficient
    >>> dice_coefficient([0, 1, 1, 0], [0, 1, 1, 1])
    0.75
    >>> dice_coefficient([[0.9, 0.1], [0.3, 0.7]], [0, 1])
    1.0
    """
    labels, other = _check_labels(labels), _check_labels(other)
    if len(labels) != len(other):
        raise ValueError(
            f"got {len(labels)} and {len(other)} samples, expected equal numbers; "
            "cut both to the samples they share"
        )
    return float(2 * np.count_nonzero(labels == other) / (len(labels) + len(other)))


def correlation_score(y_true, y_pred, *, sample_weight=None, multioutput="uniform_average"):
    r"""Pearson correlation of a prediction with a response.

    .. math::

        r = \frac{\sum_t w_t (y_t - \bar{y}) (p_t - \bar{p})}
        {\sqrt{\sum_t w_t (y_t - \bar{y})^2 \sum_t w_t (p_t - \bar{p})^2}}

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,), (n_samples, n_outputs) or \
            (n_sessions, n_samples, n_outputs), or list of (n_samples, n_outputs)
        Response and prediction; sessions are put one after the other.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights; 0 leaves a sample out.
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        Whether outputs are averaged, or each has its score.

    Returns
    -------
    float or ndarray of shape (n_outputs,)
        Within [-1, 1]; 0 where response or prediction is constant.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two samples, or one is not finite.

    Examples
    --------
    >>> from skdyn.metrics import correlation_score
    >>> correlation_score([1, 2, 3], [2, 4, 7]).round(3)
    np.float64(0.993)
    """
    if multioutput not in ("uniform_average", "raw_values"):
        raise ValueError(
            f"got multioutput={multioutput!r}, expected 'uniform_average' or 'raw_values'"
        )
    true, predicted = _rows_of_outputs(y_true, "y_true"), _rows_of_outputs(y_pred, "y_pred")
    if true.shape != predicted.shape or len(true) < 2:
        raise ValueError(
            f"got y_true of shape {true.shape} and y_pred of shape {predicted.shape}, expected "
            "the same shape and at least two samples"
        )
    weight = np.asarray(np.ones(len(true)) if sample_weight is None else sample_weight, float)
    if weight.shape != (len(true),) or weight.min() < 0 or weight.sum() == 0:
        raise ValueError(
            f"got sample_weight of shape {weight.shape} with a sum of {weight.sum()}, expected "
            f"({len(true)},) weights of at least zero, not all of them zero"
        )
    scores = np.array(
        [_correlation(*pair, weight) for pair in zip(true.T, predicted.T, strict=True)]
    )
    return scores.mean() if multioutput == "uniform_average" else scores


def noise_corrected_correlation(trials, y_pred, *, multioutput="uniform_average", floor=0.01):
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
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        Whether outputs are averaged, or each has its score.
    floor : float, default=0.01
        The least correlation of trials that is divided by, epsilon.

    Returns
    -------
    float or ndarray of shape (n_outputs,)
        1 for a prediction as good as the response allows; chance can take it above.

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
    trials = np.asarray(trials, dtype=float)
    if trials.ndim not in (2, 3) or len(trials) < 2:
        raise ValueError(
            f"got trials of shape {trials.shape}, expected at least two trials, (n_trials, "
            "n_samples) or (n_trials, n_samples, n_outputs)"
        )
    pairs = [(one, other) for i, one in enumerate(trials) for other in trials[i + 1 :]]
    reliability, accuracy = (
        np.mean([correlation_score(*two, multioutput="raw_values") for two in some], axis=0)
        for some in (pairs, [(trial, y_pred) for trial in trials])
    )
    scores = accuracy / np.sqrt(np.maximum(reliability, floor))
    return scores.mean() if multioutput == "uniform_average" else scores


def _rows_of_outputs(values, name):
    if isinstance(values, list | tuple) and np.ndim(values[0]) == 2:
        values = np.concatenate(values)
    array = np.asarray(values, float)
    if array.ndim not in (1, 2, 3) or not np.isfinite(array).all():
        raise ValueError(
            f"got {name} of shape {array.shape}, expected finite values (n_samples, n_outputs)"
        )
    return array[:, np.newaxis] if array.ndim == 1 else array.reshape(-1, array.shape[-1])


def _correlation(true, predicted, weight):
    if any(np.ptp(values[weight > 0]) == 0 for values in (true, predicted)):
        return 0.0
    weight = weight / weight.sum()
    true, predicted = (values - weight @ values for values in (true, predicted))
    norms = np.sqrt((weight @ true**2) * (weight @ predicted**2))
    return np.clip(weight @ (true * predicted) / norms, -1, 1)


def _unit_columns(courses):
    """Centre every column and give it unit length; a constant one becomes NaN."""
    constant = np.ptp(courses, axis=0) == 0
    # The spread first, then the length: squares of very small weights would vanish.
    centered = courses - courses.mean(axis=0)
    spread = np.abs(centered).max(axis=0)
    centered /= np.where(constant, 1.0, spread)
    length = np.sqrt(np.einsum("tj,tj->j", centered, centered))
    return centered / np.where(constant, np.nan, length)


def _cosine_matrix(vectors, others):
    """Cosine of every row with every row; NaN where one of the two is zero."""

    def unit_rows(rows):
        spread = np.abs(rows).max(axis=1, keepdims=True)
        scaled = rows / np.where(spread == 0, np.nan, spread)
        return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)

    return np.clip(unit_rows(vectors) @ unit_rows(others).T, -1, 1)


def _riemannian_matrix(stack, others):
    """Affine-invariant distance of every matrix of one stack to every one of another."""
    for matrix in (*stack, *others):
        _check_positive_definite(matrix)
    distances = np.empty((len(stack), len(others)))
    for row, matrix in enumerate(stack):
        for column, other in enumerate(others):
            ratios = scipy.linalg.eigh(matrix, other, eigvals_only=True)
            if ratios[0] <= 0:
                raise ValueError(_indefinite("a pair of matrices", ratios))
            distances[row, column] = np.sqrt(np.sum(np.log(ratios) ** 2))
    return distances


def _rv_matrix(stack, others):
    """RV coefficient of every matrix of one stack with every one of another."""

    def inner(first, second):  # tr(M M^T N N^T) is the squared Frobenius norm of M^T N
        return np.sum((first.T @ second) ** 2)

    def scaled(matrices):  # the coefficient does not change, and fourth powers stay in range
        return [matrix / (np.abs(matrix).max() or np.nan) for matrix in matrices]

    stack, others = scaled(stack), scaled(others)
    overlap = np.array([[inner(matrix, other) for other in others] for matrix in stack])
    size = [np.array([inner(matrix, matrix) for matrix in side]) for side in (stack, others)]
    return np.clip(overlap / np.sqrt(np.outer(*size)), 0, 1)


def _check_positive_definite(matrix, name="a matrix"):
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"got {name} of shape {matrix.shape}, expected a square one; pass a covariance"
        )
    if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-6 * np.abs(matrix).max()):
        raise ValueError(
            f"got {name} that is not symmetric, expected a covariance; "
            "pass (C + C.T) / 2 if the difference is rounding"
        )
    eigenvalues = np.linalg.eigvalsh(matrix)
    # An eigenvalue below this is rounding: its logarithm would be noise.
    if eigenvalues[0] <= len(matrix) * np.finfo(np.float64).eps * eigenvalues[-1]:
        raise ValueError(_indefinite(name, eigenvalues))


def _indefinite(name, eigenvalues):
    return (
        f"got {name} with eigenvalues from {eigenvalues[0]:.3g} to {eigenvalues[-1]:.3g}, expected "
        "a positive definite one; add a small multiple of the identity, or estimate it from "
        "more samples"
    )


def _check_finite(name, values, ndim):
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or array.size == 0:
        raise ValueError(
            f"got {name} of shape {array.shape}, expected {ndim} dimensions, none empty; "
            f"pass an array with {ndim} axes"
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"got {name} with NaN or infinite values, expected none; remove those samples"
        )
    return array


def _check_courses(alpha, other):
    alpha, other = _check_finite("alpha", alpha, 2), _check_finite("other", other, 2)
    if len(alpha) != len(other):
        raise ValueError(
            f"got {len(alpha)} and {len(other)} samples, expected equal numbers; "
            "cut both to the samples they share"
        )
    if len(alpha) < 2:
        raise ValueError("got 1 sample, expected at least 2; pass a longer recording")
    return alpha, other


def _check_one_pair(matrix, other):
    matrix, other = _check_finite("the first matrix", matrix, 2), _check_finite("other", other, 2)
    if len(matrix) != len(other):
        raise ValueError(
            f"got matrices with {len(matrix)} and {len(other)} channels, expected equal numbers; "
            "pass matrices of the same channels"
        )
    return matrix[np.newaxis], other[np.newaxis]


def _check_labels(labels):
    array = np.asarray(labels)
    if array.ndim == 2:
        return _check_finite("mixing coefficients", array, 2).argmax(axis=1)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "biu":
        raise ValueError(
            f"got labels of shape {array.shape} and type {array.dtype}, expected integers of shape "
            "(n_samples,) or weights of shape (n_samples, n_modes); pass one of them"
        )
    return array
