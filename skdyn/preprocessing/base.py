"""Base classes of transformers of recordings, which map each session separately."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin
from sklearn.utils.validation import check_is_fitted

from skdyn._sklearn import UNUSED, DocumentedMixin, SessionTransformerMixin, fit_context
from skdyn.sessions import all_finite, check_sessions

# Block size, in numbers, if the channels of a session can be mapped independently.
NUMBERS_AT_ONCE = 2**22


class SessionTransformer(DocumentedMixin, SessionTransformerMixin, BaseEstimator):
    """Base class of transformers that map each session separately.

    No information crosses a session's start or end. A subclass defines `_learn`, which learns from
    the sessions of `fit`, if needed, and `_map`, which transforms one session.
    """

    __metadata_request__fit = {"sessions": True}  # noqa: RUF012
    __metadata_request__transform = {"sessions": True, "out": UNUSED}  # noqa: RUF012

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, sessions=None):
        """Check the parameters, and learn from the sessions if needed.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording; rows are time.
        y : None
            Ignored.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X: a contiguous run of one label is one session.

        Returns
        -------
        SessionTransformer
            The fitted transformer.

        Raises
        ------
        ValueError
            If X is not a finite recording, or parameters contradict each other or X.
        """
        self._learn(check_sessions(self, X, sessions, reset=True).arrays)
        return self

    def transform(self, X, *, sessions=None, out=None):
        """Transform each session separately.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.
        out : ndarray of float, or list of such, default=None
            Array or memory map that results are written to, in the form of X. None makes new ones.

        Returns
        -------
        ndarray of shape (n_samples, n_columns), or as X
            In float32 if X is, otherwise in float64; `out` if it was given.
        """
        return self._transform(X, sessions, out)

    def fit_transform(self, X, y=None, *, sessions=None):
        """Fit, then transform the same recording.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        y : None
            Ignored.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        ndarray of shape (n_samples, n_columns), or as X
            In float32 if X is, otherwise in float64.
        """
        return self.fit(X, y, sessions=sessions)._transform(X, sessions)

    def _learn(self, arrays: list[np.ndarray]) -> None:
        """Learn from the sessions; by default nothing."""

    def _map(self, session: np.ndarray) -> np.ndarray:
        """Transform one session."""
        raise NotImplementedError(f"{type(self).__name__} has no _map(self, session).")

    # Whether `_map` maps channels independently and keeps the number of rows, so that a large
    # session can be mapped in blocks of channels.
    _is_by_channel = False

    def _transform(self, X, sessions, out=None):
        check_is_fitted(self)
        recording = check_sessions(self, X, sessions, reset=False)
        writer = recording.writer(out)
        for session in recording.arrays:
            with np.errstate(over="ignore", invalid="ignore"):  # looked at below
                if self._is_by_channel and session.size > NUMBERS_AT_ONCE:
                    result = writer.slot(session.shape, float_type(session))
                    n_channels = max(1, NUMBERS_AT_ONCE // len(session))
                    for first in range(0, session.shape[1], n_channels):
                        channels = slice(first, first + n_channels)
                        result[:, channels] = self._map(session[:, channels])
                else:
                    result = self._map(session).astype(float_type(session), copy=False)
                    writer.put(result)
            if not all_finite(result):
                raise ValueError(
                    "X has values so large that the result is not finite. Use larger units."
                )
        return writer.done()


class SampledTransformer(OneToOneFeatureMixin, SessionTransformer):
    """A transformer with a sampling frequency; the error for `sampling_rate` names it."""

    def __new__(cls, *args, **parameters):
        """Raise a helpful TypeError for another name of the sampling frequency."""
        for name in parameters:
            if "sampling_rate" in name:
                right = name.replace("sampling_rate", "sampling_frequency")
                raise TypeError(f"{cls.__name__} has no parameter {name!r}. Use {right!r}.")
        return super().__new__(cls)


def float_type(array: np.ndarray) -> type:
    """Type of the results for an array.

    Parameters
    ----------
    array : ndarray
        Numbers.

    Returns
    -------
    type
        float32 for float32, otherwise float64.
    """
    return np.float32 if array.dtype == np.float32 else np.float64
