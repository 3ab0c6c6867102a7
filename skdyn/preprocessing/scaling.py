"""Channels of each session in units of their own spread."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sklearn.base import OneToOneFeatureMixin

from skdyn.preprocessing.base import SessionTransformer, float_type


class SessionScaler(OneToOneFeatureMixin, SessionTransformer):
    """Standardise each session separately: every channel to mean 0 and variance 1.

    Sessions differ in gain and offset for reasons unrelated to brain activity (day, cap, subject).
    Each is therefore scaled by its own mean and standard deviation, in `fit` and in `transform`.

    Parameters
    ----------
    with_mean : bool, default=True
        Whether each channel's mean over the session is subtracted.
    with_std : bool, default=True
        Whether each channel is divided by its standard deviation over the session (n degrees of
        freedom). A channel that does not vary beyond rounding is not divided.

    Attributes
    ----------
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    See Also
    --------
    sklearn.preprocessing.StandardScaler : One mean and scale, learned in `fit`, for all rows.

    Notes
    -----
    `fit` learns no numbers: `transform` uses statistics of the sessions that it receives. A row
    therefore depends on its whole session, also on later rows; a session that is cut in two is
    scaled as two. Without labels, X is one session. The statistics are not kept, so there is no
    inverse.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import SessionScaler
    >>> X = np.array([[1.0], [3.0], [10.0], [50.0]])
    >>> SessionScaler().fit_transform(X, sessions=[0, 0, 1, 1]).ravel()
    array([-1.,  1., -1.,  1.])
    """

    _is_by_channel = True

    _parameter_constraints: ClassVar[dict] = {
        "with_mean": ["boolean"],
        "with_std": ["boolean"],
    }

    def __init__(self, *, with_mean=True, with_std=True):
        self.with_mean = with_mean
        self.with_std = with_std

    def _map(self, session):
        scaled = np.array(session, dtype=np.float64)
        # In units of the largest value, a power of two, so that no square is too small or large.
        _, exponent = np.frexp(np.abs(scaled).max(axis=0))
        scaled = np.ldexp(scaled, -exponent)
        mean = scaled.mean(axis=0)
        deviation = scaled.std(axis=0)
        is_divided = ~_is_constant(session) & self.with_std
        if self.with_mean:
            scaled -= mean
        scaled /= np.where(is_divided, deviation, 1.0)
        return np.ldexp(scaled, np.where(is_divided, 0, exponent))


def _is_constant(session: np.ndarray) -> np.ndarray:
    """Whether the values of a channel differ by no more than rounding can do."""
    lowest = session.min(axis=0).astype(np.float64)
    highest = session.max(axis=0).astype(np.float64)
    rounding = 10 * np.finfo(float_type(session)).eps
    return highest - lowest <= rounding * np.maximum(np.abs(lowest), np.abs(highest))
