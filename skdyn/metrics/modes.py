"""Scores and distances between mixing coefficients, covariances and state sequences."""

import numpy as np

from skdyn.sessions import as_numbers, in_sessions, join_sessions
from skdyn.similarity import check_positive_definite, riemannian_matrix, rv_matrix


def alpha_correlation(alpha, other):
    r"""Pearson correlation of matched columns.

    .. math::

        r_j = \frac{\sum_t (a_{tj} - \bar{a}_j)(b_{tj} - \bar{b}_j)}
        {\sqrt{\sum_t (a_{tj} - \bar{a}_j)^2 \sum_t (b_{tj} - \bar{b}_j)^2}}

    Parameters
    ----------
    alpha : array-like of shape (n_samples, n_modes), list of such, or array of shape \
            (n_sessions, n_samples, n_modes)
        Mixing coefficients. Sessions are concatenated, so that means are those
        over all rows.
    other : array-like of shape (n_samples, n_modes), list of such, or array of shape \
            (n_sessions, n_samples, n_modes)
        Mixing coefficients to compare with, of the same rows; modes in the same
        order.

    Returns
    -------
    ndarray of shape (n_modes,)
        Correlation of column j with column j over the rows of all sessions, within
        [-1, 1]; NaN, without a warning, if one of the two is constant.

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
            f"alpha and other have {alpha.shape[1]} and {other.shape[1]} modes, but equal numbers "
            "were expected. Match the modes first, or use correlation_matrix."
        )
    correlation = np.einsum("tj,tj->j", _unit_columns(alpha), _unit_columns(other))
    return np.clip(correlation, -1, 1)


def correlation_matrix(alpha, other):
    """Pearson correlation of every column with every column.

    Parameters
    ----------
    alpha : array-like of shape (n_samples, n_modes), list of such, or array of shape \
            (n_sessions, n_samples, n_modes)
        Mixing coefficients. Sessions are concatenated.
    other : array-like of shape (n_samples, n_other_modes), list of such, or array of shape \
            (n_sessions, n_samples, n_other_modes)
        Mixing coefficients to compare with, of the same rows.

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
    return float(riemannian_matrix(*_check_pair(covariance, other, "covariance"))[0, 0])


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
    return float(rv_matrix(*_check_pair(matrix, other, "matrix"))[0, 0])


def dice_coefficient(labels, other):
    r"""Dice coefficient of two state sequences.

    .. math::

        D(a, b) = 2 \, |\{t : a_t = b_t\}| / (n_a + n_b)

    with n the lengths of the sequences, which must be equal: it is then the
    share of samples whose states agree. Unlike the correlation, it depends on
    the names of the states, so match the modes first.

    Parameters
    ----------
    labels : array-like of shape (n_samples,) or (n_samples, n_modes), list of such, or array of \
            shape (n_sessions, n_samples) or (n_sessions, n_samples, n_modes)
        State of each sample as an integer, or mixing coefficients, of which the
        largest of each sample is its state (the first of equal ones). Sessions are
        concatenated. A 2-D array of integers is one-hot if each row is 0 except for a
        single 1, and holds a session of states per row otherwise.
    other : array-like of shape (n_samples,) or (n_samples, n_modes), list of such, or array of \
            shape (n_sessions, n_samples) or (n_sessions, n_samples, n_modes)
        States or mixing coefficients of the same rows to compare with.

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
    labels, other = _sessions_of_labels(labels, "labels"), _sessions_of_labels(other, "other")
    _check_same_sessions(labels, other)
    labels, other = join_sessions(labels), join_sessions(other)
    if len(labels) != len(other):
        raise ValueError(
            f"labels and other have {len(labels)} and {len(other)} samples, but equal numbers were "
            "expected. Cut both to the samples they share."
        )
    return float(2 * np.count_nonzero(labels == other) / (len(labels) + len(other)))


def _unit_columns(courses):
    """Centre every column and give it unit length; a constant one becomes NaN."""
    constant = np.ptp(courses, axis=0) == 0
    # The spread first, then the length: squares of very small weights would vanish.
    centered = courses - courses.mean(axis=0)
    spread = np.abs(centered).max(axis=0)
    centered /= np.where(constant, 1.0, spread)
    length = np.sqrt(np.einsum("tj,tj->j", centered, centered))
    return centered / np.where(constant, np.nan, length)


def _check_finite(name, values, ndim):
    array = as_numbers(values, name)
    if array.ndim != ndim or array.size == 0:
        raise ValueError(
            f"{name} has the shape {array.shape}, but {ndim} dimensions, none empty, were "
            f"expected. Pass an array with {ndim} axes."
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name} has NaN or infinite values, but none were expected. Remove those samples."
        )
    return array


def _check_courses(alpha, other):
    alpha, other = in_sessions(alpha, name="alpha"), in_sessions(other, name="other")
    for name, one in [("alpha", alpha), ("other", other)]:
        if any(array.ndim == 0 for array in one.arrays):
            raise ValueError(
                f"{name} is a single value, but an array (n_samples, n_modes) was expected."
            )
    _check_same_sessions(alpha.arrays, other.arrays)
    alpha, other = _check_rows("alpha", alpha.arrays), _check_rows("other", other.arrays)
    if len(alpha) != len(other):
        raise ValueError(
            f"alpha and other have {len(alpha)} and {len(other)} samples, but equal numbers were "
            "expected. Cut both to the samples they share."
        )
    if len(alpha) < 2:
        raise ValueError(
            "alpha has 1 sample, but at least 2 were expected. Pass a longer recording."
        )
    return alpha, other


def _check_rows(name, arrays):
    """Check sessions, and concatenate them."""
    arrays = [_check_finite(name, one, 2) for one in arrays]
    widths = sorted({one.shape[1] for one in arrays})
    if len(widths) > 1:
        raise ValueError(
            f"{name} has sessions of {widths} modes, but equal numbers were expected. Pass the "
            "same modes for every session."
        )
    return join_sessions(arrays)


def _check_same_sessions(arrays, others):
    """Check that sessions are the same if both arguments have sessions."""
    lengths = [[len(one) for one in side] for side in (arrays, others)]
    if min(map(len, lengths)) > 1 and lengths[0] != lengths[1]:
        raise ValueError(
            f"The arguments have sessions of {lengths[0]} and {lengths[1]} samples, but equal "
            "numbers were expected. Pass the same sessions in the same order."
        )


def _check_pair(matrix, other, name):
    matrix, other = _check_finite(name, matrix, 2), _check_finite("other", other, 2)
    if len(matrix) != len(other):
        raise ValueError(
            f"{name} has {len(matrix)} channels and other {len(other)}, but equal numbers were "
            "expected. Pass matrices of the same channels."
        )
    if name == "covariance":
        for one, called in ((matrix, name), (other, "other")):
            check_positive_definite(one, called)
    return matrix[np.newaxis], other[np.newaxis]


def _sessions_of_labels(labels, name):
    """The states of each session."""
    given = in_sessions(labels, has_columns=False, name=name)
    if given.container != "array":
        return [_check_labels(one, name) for one in given.arrays]
    array = given.arrays[0]
    if array.ndim == 2 and array.size and array.dtype.kind in "biu" and not _is_one_hot(array):
        return [_check_labels(row, name) for row in array]
    return [_check_labels(array, name)]


def _is_one_hot(array):
    return ((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all()


def _check_labels(array, name):
    if array.ndim == 2:
        return _check_finite(name, array, 2).argmax(axis=1)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "biu":
        raise ValueError(
            f"{name} has the shape {array.shape} and the type {array.dtype}, but integers of shape "
            "(n_samples,) or weights of shape (n_samples, n_modes) were expected. Pass one of them."
        )
    return array
