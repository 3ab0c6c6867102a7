"""Alignment of the signs of channels over sessions."""

from __future__ import annotations

from numbers import Integral
from typing import ClassVar

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils import check_array, check_random_state

from skdyn._sklearn import Interval
from skdyn.preprocessing.base import SessionTransformer
from skdyn.preprocessing.embedding import check_odd, embedded_moments
from skdyn.sessions import naming

_EPSILON = np.finfo(np.float64).eps


class SignAligner(OneToOneFeatureMixin, SessionTransformer):
    """Flip channels so that correlations between channels agree over sessions.

    The sign of a source that is estimated per session is arbitrary, such as that of a beamformer's
    dipole or of an independent component. Correlations of channels then differ in sign between
    sessions, and a model of all sessions would find modes that separate sessions.

    Parameters
    ----------
    n_embeddings : int, default=1
        Number of rows in the window around each row, itself included: odd. With more than one,
        correlations at all lags within the window are compared. This is needed if correlations at
        lag zero were removed, as by leakage correction.
    template : array-like of shape (n_channels * n_embeddings, n_channels * n_embeddings), \
            default=None
        Correlations to align to, columns as in `TimeDelayEmbedder`, such as another aligner's
        `template_`. None finds them in the sessions of `fit`.
    n_init : int, default=10
        Number of random starts of each search, besides two that are not random: no flips, and the
        signs of the leading eigenvector of the agreement of pairs. The best result is kept.
    random_state : int, RandomState instance or None, default=None
        Source of the random starts. None takes fresh entropy; NumPy's global generator is not
        read. A fitted aligner always finds the same signs for the same session.

    Attributes
    ----------
    template_ : ndarray of shape (n_channels * n_embeddings, n_channels * n_embeddings)
        Mean correlations of the aligned sessions of `fit`, or those of `template`. Zero within a
        channel, which no flip changes.
    signs_ : ndarray of int of shape (n_sessions, n_channels)
        Signs, 1 or -1, of the channels of each session of `fit`.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has any.

    Notes
    -----
    The agreement of two sessions is the cosine between their correlations, over all pairs of
    channels and all lags. For signs f, and the products M of each pair's correlations in session
    and template, it is proportional to ``f @ M @ f``. The search for the largest value flips one
    channel at a time as long as the agreement grows, from several starts.

    The first template is the session whose correlations, regardless of sign, agree most with those
    of all others (the medoid; osl-dynamics takes the session of median agreement, and stops
    there). Then all sessions are aligned to the template and the template becomes their mean, in
    turns, until no sign changes. No turn lowers the agreement.

    Flipping all channels of a session changes no correlation. One sign per session is therefore
    arbitrary, as is one per group of channels that correlate with no others: of two equal
    solutions, the one that flips fewer channels is taken. `transform` flips a session by its own
    correlations, so there is no inverse.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.preprocessing import SignAligner
    >>> rng = np.random.default_rng(0)
    >>> mixing = rng.standard_normal((3, 3))
    >>> X = [rng.standard_normal((500, 3)) @ mixing for _ in range(4)]
    >>> X[2][:, 1] *= -1
    >>> aligner = SignAligner(random_state=0).fit(X)
    >>> aligner.signs_
    array([[ 1,  1,  1],
           [ 1,  1,  1],
           [ 1, -1,  1],
           [ 1,  1,  1]])
    """

    _parameter_constraints: ClassVar[dict] = {
        "n_embeddings": [Interval(Integral, 1, None, closed="left")],
        "template": ["array-like", None],
        "n_init": [Interval(Integral, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(self, n_embeddings=1, *, template=None, n_init=10, random_state=None):
        self.n_embeddings = n_embeddings
        self.template = template
        self.n_init = n_init
        self.random_state = random_state

    def _learn(self, arrays):
        check_odd(self.n_embeddings)
        given = self.random_state
        random = np.random.RandomState() if given is None else check_random_state(given)
        self._starts = random.choice([-1, 1], size=(self.n_init, self.n_features_in_))
        correlations = [_correlations(one, self.n_embeddings) for one in arrays]
        if self.template is None:
            self.template_ = self._find_template(correlations)
        else:
            self.template_ = self._check_template()
        self.signs_ = np.array([self._signs(one, self.template_) for one in correlations])

    def _map(self, session):
        return session * self._signs(_correlations(session, self.n_embeddings), self.template_)

    def _check_template(self) -> np.ndarray:
        with naming("template"):
            template = check_array(self.template, dtype=np.float64, copy=True)
        width = self.n_features_in_ * self.n_embeddings
        if template.shape != (width, width):
            raise ValueError(
                f"template has shape {template.shape}, but {(width, width)} was expected for "
                f"{self.n_features_in_} channels at {self.n_embeddings} lags."
            )
        return template

    def _find_template(self, correlations: list[np.ndarray]) -> np.ndarray:
        """The mean correlations of sessions that are aligned to it."""
        template = _medoid(correlations)
        signs = [self._signs(one, template) for one in correlations]
        while True:
            template = np.mean([_flip(*p) for p in zip(correlations, signs, strict=True)], axis=0)
            before = signs
            signs = [
                self._signs(one, template, start)
                for one, start in zip(correlations, before, strict=True)
            ]
            if np.array_equal(before, signs):
                return template

    def _signs(self, correlations: np.ndarray, template: np.ndarray, first=None) -> np.ndarray:
        """The signs that agree most with a template; ties are resolved by the start `first`."""
        n_channels = self.n_features_in_
        first = np.ones(n_channels, dtype=int) if first is None else first
        agreement = (correlations * template).reshape([n_channels, self.n_embeddings] * 2)
        agreement = agreement.sum(axis=(1, 3))
        np.fill_diagonal(agreement, 0)
        leading = np.linalg.eigh(agreement)[1][:, -1]
        starts = np.vstack([first, np.where(leading < 0, -1, 1), self._starts])
        ends = np.array([_climb(agreement, start) for start in starts])
        values = np.einsum("ic,cd,id->i", ends, agreement, ends)
        best = values.argmax()
        # Keep the first solution if another one is better by rounding only.
        signs = ends[best if values[best] - values[0] > _rounding(agreement) else 0]
        # A channel without any agreement, such as a constant one, is not flipped.
        heard = agreement.any(axis=1)
        return np.where(heard, signs * _fewest_turn(signs[heard]), 1)


def _correlations(session: np.ndarray, n_embeddings: int) -> np.ndarray:
    """Correlations between channels at all lags; zero within a channel, and for constant ones."""
    mean, covariance = embedded_moments([session], n_embeddings, "reflect")
    deviation = np.sqrt(np.maximum(np.diagonal(covariance), 0))
    varies = deviation > 10 * _EPSILON * np.abs(mean)
    inverse = np.divide(1, deviation, out=np.zeros_like(deviation), where=varies)
    within = np.kron(np.eye(session.shape[1]), np.ones([n_embeddings] * 2))
    return covariance * np.outer(inverse, inverse) * (1 - within)


def _flip(correlations: np.ndarray, signs: np.ndarray) -> np.ndarray:
    of_columns = np.repeat(signs, len(correlations) // len(signs))
    return correlations * np.outer(of_columns, of_columns)


def _medoid(correlations: list[np.ndarray]) -> np.ndarray:
    """The correlations that agree most with all others, signs apart."""
    sizes = np.array([np.abs(one).ravel() for one in correlations])
    norms = np.linalg.norm(sizes, axis=1, keepdims=True)
    sizes = np.divide(sizes, norms, out=sizes, where=norms > 0)
    return correlations[np.argmax(sizes @ sizes.sum(axis=0))]


def _climb(agreement: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Flip the sign that raises ``signs @ agreement @ signs`` most, for as long as one does."""
    signs = signs.copy()
    while True:
        gains = -signs * (agreement @ signs)
        best = gains.argmax()
        if gains[best] <= _rounding(agreement):
            return signs
        signs[best] *= -1


def _rounding(agreement: np.ndarray) -> float:
    return 10 * _EPSILON * np.abs(agreement).sum()


def _fewest_turn(signs: np.ndarray) -> int:
    """-1 if fewer channels are flipped with all signs turned, or as many, but not the first."""
    flips = 2 * (signs < 0).sum()
    return -1 if flips > len(signs) or (flips == len(signs) and np.any(signs[:1] < 0)) else 1
