"""Agreement of repeated measurements of the same subjects."""

from __future__ import annotations

import numpy as np

from skdyn.sessions import as_numbers

__all__ = ["intraclass_correlation"]

KINDS = ("agreement", "consistency")


def intraclass_correlation(*measurements, kind="agreement"):
    r"""Intraclass correlation of single measurements, such as test and retest.

    The share of the variance that is between subjects, by the mean squares of a two-way layout of n
    subjects and k measurements:

    .. math::

        ICC(C, 1) = \frac{MS_S - MS_E}{MS_S + (k - 1) MS_E}, \qquad
        ICC(A, 1) = \frac{MS_S - MS_E}{MS_S + (k - 1) MS_E + \frac{k}{n} (MS_M - MS_E)}

    with :math:`MS_S` of subjects, :math:`MS_M` of measurements and :math:`MS_E` of the residuals.

    Parameters
    ----------
    *measurements : array-like of shape (n_subjects, ...)
        Two or more, of the same subjects in the same order. Further axes are features, such as
        modes.
    kind : {"agreement", "consistency"}, default="agreement"
        "agreement" is ICC(A, 1), which a difference between the means of measurements lowers;
        "consistency" is ICC(C, 1), which it does not change. They are ICC(2, 1) and ICC(3, 1) of
        Shrout and Fleiss [1]_, and names are those of McGraw and Wong [2]_.

    Returns
    -------
    float or ndarray
        One number per feature: 1 for equal measurements, around 0 for unrelated ones, at least
        -1 / (k - 1) with "consistency"; NaN, without a warning, where nothing varies.

    Raises
    ------
    ValueError
        If there are fewer than two measurements or subjects, shapes differ, or values are not
        finite.

    See Also
    --------
    alpha_correlation : Agreement of mixing coefficients row by row.
    skdyn.analysis.mode_statistics : Measurements of modes.

    References
    ----------
    .. [1] Shrout, P. E., & Fleiss, J. L. (1979). Intraclass correlations: uses in assessing rater
       reliability. Psychological Bulletin, 86(2), 420-428.
    .. [2] McGraw, K. O., & Wong, S. P. (1996). Forming inferences about some intraclass correlation
       coefficients. Psychological Methods, 1(1), 30-46.

    Examples
    --------
    >>> from skdyn.metrics import intraclass_correlation
    >>> test, retest = [1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5, 4.5]
    >>> round(float(intraclass_correlation(test, retest)), 2)
    0.93
    >>> round(float(intraclass_correlation(test, retest, kind="consistency")), 2)
    1.0
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, but one of {KINDS} was expected.")
    given = [as_numbers(one, "A measurement") for one in measurements]
    shapes = [one.shape for one in given]
    if len(given) < 2 or len(set(shapes)) > 1 or not shapes[0] or shapes[0][0] < 2:
        raise ValueError(
            f"measurements have the shapes {shapes}, but two or more of the same shape "
            "(n_subjects, ...), with at least two subjects, were expected."
        )
    values = np.stack(given, axis=1)
    if not np.isfinite(values).all():
        raise ValueError(
            "measurements have NaN or infinite values, but none were expected. Leave out these "
            "subjects or features."
        )
    n_subjects, n_measurements = values.shape[:2]
    subjects, times = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    rest = values - subjects - times + values.mean(axis=(0, 1))
    between = n_measurements * subjects.var(axis=(0, 1)) * n_subjects / (n_subjects - 1)
    error = (rest**2).sum(axis=(0, 1)) / ((n_subjects - 1) * (n_measurements - 1))
    total = between + (n_measurements - 1) * error
    if kind == "agreement":
        shift = n_subjects * times.var(axis=(0, 1)) * n_measurements / (n_measurements - 1)
        total = total + n_measurements / n_subjects * (shift - error)
    spread = np.ptp(values, axis=(0, 1))
    return np.divide(between - error, total, out=np.full(total.shape, np.nan), where=spread > 0)[()]
