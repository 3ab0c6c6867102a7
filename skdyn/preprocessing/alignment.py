"""Alignment of the covariances of sessions."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sklearn.base import OneToOneFeatureMixin

from skdyn.preprocessing.base import SessionTransformer

# Share of the largest eigenvalue, times the number of channels, below which a direction is empty.
_EPSILON = np.finfo(np.float64).eps


class CovarianceAligner(OneToOneFeatureMixin, SessionTransformer):
    """Give all sessions the mean and covariance of the group, and keep their changes over time.

    The covariances of people differ more than those of moments, above all in fMRI, so that modes
    fitted to several people may separate people instead of moments. After this step, modes describe
    how covariances change within sessions. The difference between sessions is removed: do not use
    it where sessions are conditions whose covariances are to be compared.

    Attributes
    ----------
    covariance_ : ndarray of shape (n_channels, n_channels)
        Covariance of the group: the mean of those of the sessions of `fit`, each about its own mean
        and with n degrees of freedom, weighted by numbers of rows.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    See Also
    --------
    SessionScaler : Mean 0 and variance 1 of each channel of each session; correlations differ.
    SignAligner : Signs of channels that agree over sessions.

    Notes
    -----
    The mean of each session becomes zero. Its covariance S becomes that of the group, G, by the
    linear map that moves its rows least, the optimal transport of one Gaussian to another [1]_::

        S^(-1/2) (S^(1/2) G S^(1/2))^(1/2) S^(-1/2)

    with channels in units of their standard deviation in the group. If G is the identity, this is
    the alignment S^(-1/2) of He and Wu [2]_. Directions in which a session is empty stay empty.

    `transform` uses the covariance of the sessions that it receives, also of new ones, so a row
    depends on its whole session, and there is no inverse. A session should have many times more
    rows than channels: with fewer, its covariance is mostly noise. Reduce the number of channels
    first, with `SessionPCA` or `TimeDelayPCA`.

    References
    ----------
    .. [1] Olkin, I. and Pukelsheim, F. (1982). The distance between two random vectors with given
       dispersion matrices. Linear Algebra and its Applications, 48, 257-263.
    .. [2] He, H. and Wu, D. (2020). Transfer learning for brain-computer interfaces: a Euclidean
       space data alignment approach. IEEE Transactions on Biomedical Engineering, 67(2), 399-410.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import CovarianceAligner
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.standard_normal((500, 3)) @ rng.standard_normal((3, 3)) for _ in range(4)]
    >>> aligner = CovarianceAligner().fit(X)
    >>> covariances = [np.cov(one, rowvar=False, bias=True) for one in aligner.transform(X)]
    >>> [bool(np.allclose(one, aligner.covariance_)) for one in covariances]
    [True, True, True, True]
    """

    _parameter_constraints: ClassVar[dict] = {}

    def _learn(self, arrays):
        n_rows = sum(map(len, arrays))
        total = np.zeros((self.n_features_in_, self.n_features_in_))
        for session in arrays:
            centred = session - session.mean(axis=0, dtype=np.float64)
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                total += centred.T @ (centred / n_rows)
        variances = np.diag(total)
        varies = np.max([np.ptp(session, axis=0) > 0 for session in arrays], axis=0)
        if not np.isfinite(total).all() or (variances[varies] < np.finfo(float).tiny).any():
            raise ValueError(
                "X has channels whose variances are out of the range of floats. Use other units."
            )
        self.covariance_ = total

    def _map(self, session):
        deviations = np.sqrt(np.diag(self.covariance_))
        deviations = np.where(deviations > 0, deviations, 1.0)
        centred = (session - session.mean(axis=0, dtype=np.float64)) / deviations
        covariance = centred.T @ centred / len(centred)
        group = self.covariance_ / np.outer(deviations, deviations)
        return centred @ _transport(covariance, group) * deviations


def _transport(covariance: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the symmetric map of rows of one covariance to rows of another."""
    values, vectors = np.linalg.eigh(covariance)
    filled = values > _EPSILON * len(values) * values[-1]
    roots, vectors = np.sqrt(values[filled]), vectors[:, filled]
    middle = _root(roots[:, np.newaxis] * (vectors.T @ target @ vectors) * roots)
    return (vectors / roots) @ middle @ (vectors / roots).T


def _root(matrix: np.ndarray) -> np.ndarray:
    """Return the symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
