"""One row of features per session, for predicting differences between people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from skdyn._sklearn import (
    DocumentedMixin,
    HasMethods,
    Interval,
    SessionTransformerMixin,
    fit_context,
)
from skdyn.analysis.sessions import parts_of, pieces_of, session_modes
from skdyn.analysis.statistics import COLUMNS, ModeStatistics, mode_statistics

Names = list[str]


@dataclass(frozen=True)
class _Material:
    """Input of the feature functions.

    Attributes
    ----------
    statistics : ModeStatistics
        Statistics of all sessions, with the axis of sessions.
    durations : ndarray of shape (n_sessions, 1)
        Duration of each session in seconds.
    modes : callable
        Function without arguments that returns `SessionModes`; called by features that need them.
    """

    statistics: ModeStatistics
    durations: np.ndarray
    modes: Callable


def _statistic(name: str) -> Callable[[_Material], np.ndarray]:
    def values(material: _Material) -> np.ndarray:
        found = material.statistics[name]
        # The interval of a mode without a second visit is the whole session.
        missing = material.durations if name == "mean_interval" else 0.0
        return np.where(np.isnan(found), missing, found)

    return values


def _transitions(material: _Material) -> np.ndarray:
    matrices = material.statistics.transition_matrix
    return np.nan_to_num(matrices.reshape(len(matrices), -1))


def _entropy(material: _Material) -> np.ndarray:
    return material.statistics.entropy[:, np.newaxis]


def _tangents(material: _Material) -> np.ndarray:
    """Logarithms of the session's covariances, in coordinates in which the group's are 1."""
    modes = material.modes()
    rows, columns = np.triu_indices(modes.group_covariances.shape[-1])
    weights = np.where(rows == columns, 1.0, np.sqrt(2))
    vectors = []
    for own in modes.covariances:
        for covariance, group in zip(own, modes.group_covariances, strict=True):
            factor = cholesky(group, lower=True)
            half = solve_triangular(factor, covariance, lower=True)
            white = solve_triangular(factor, half.T, lower=True)
            values, axes = np.linalg.eigh((white + white.T) / 2)
            logarithm = (axes * np.log(values)) @ axes.T
            vectors.append(logarithm[rows, columns] * weights)
    return np.reshape(vectors, (len(modes.covariances), -1))


def _per_mode(name: str) -> Callable[[int, int], Names]:
    return lambda n_modes, n_channels: [f"{name}_mode{mode}" for mode in range(n_modes)]


def _names_of_transitions(n_modes: int, n_channels: int) -> Names:
    return [f"transition_mode{i}_mode{j}" for i in range(n_modes) for j in range(n_modes)]


def _names_of_tangents(n_modes: int, n_channels: int) -> Names:
    pairs = list(zip(*np.triu_indices(n_channels), strict=True))
    return [f"covariance_mode{mode}_{i}_{j}" for mode in range(n_modes) for i, j in pairs]


# Each kind of features: its numbers, (n_sessions, n_features), and their names.
FEATURES: dict[str, tuple[Callable, Callable]] = {
    **{name: (_statistic(name), _per_mode(name)) for name in COLUMNS},
    "entropy": (_entropy, lambda n_modes, n_channels: ["entropy"]),
    "transitions": (_transitions, _names_of_transitions),
    "covariances": (_tangents, _names_of_tangents),
}


class SessionFeatures(DocumentedMixin, SessionTransformerMixin, BaseEstimator):
    """One row of features per session, from a model that is fitted to the training sessions.

    Put it before a classifier or a regressor in a Pipeline, and cross-validate with a list of
    sessions, one per person, as X and one number per person as y: folds then split people, and the
    model of each fold is fitted to its training people only.

    Parameters
    ----------
    model : estimator
        With `fit`, `transform`, `means_` and `covariances_`, for lists of sessions, such as a
        `DyNeMoEstimator`, or a Pipeline that ends in one. `fit` clones and fits it; pass
        ``FrozenEstimator(model)`` to use a fitted model.
    what : str or sequence of str, default=("normalised_weight", "mean_lifetime", "switching_rate")
        Kinds of features, in their order: columns of the table of `mode_statistics`, such as
        "occupancy", "standard_deviation" or "fano_factor"; "entropy"; "transitions"; and
        "covariances", the session's own modes (`session_modes`), as the logarithm of each
        covariance in coordinates in which the group's is the identity.
    sampling_frequency : float, default=1.0
        Rows per second, in Hz; lifetimes, intervals and rates are in seconds and Hz.
    binarize : {"argmax", "mixture"} or float in (0, 1), default="argmax"
        When a mode is active, see `mode_statistics`.

    Attributes
    ----------
    model_ : estimator
        The fitted model.
    shrinkage_ : float
        Rows for which the group's covariances count in those of a session, chosen in `fit`; only
        with "covariances".
    n_features_in_ : int
        Number of channels.

    See Also
    --------
    mode_statistics : The statistics.
    session_modes : A session's own modes.

    Notes
    -----
    The features of a session do not depend on the other sessions that are transformed with it,
    except with binarize="mixture". Undefined features are replaced by numbers: the lifetime of a
    mode that is never active is 0, its interval is the length of the session, and all others are 0.

    X may also be an array (n_sessions, n_samples, n_channels), or one 2-D array with `sessions`,
    which cannot be cross-validated together with one y per session.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skdyn import DyNeMoEstimator
    >>> from skdyn.analysis import SessionFeatures
    >>> rng = np.random.default_rng(0)
    >>> shares = [0.2, 0.8] * 4  # of the time in which the second channel is the stronger one
    >>> def record(share):
    ...     is_on = np.repeat(rng.random((10, 1)) < share, 20, axis=0)
    ...     return rng.standard_normal((200, 2)) * np.where(is_on, [1, 4], [4, 1])
    >>> X = [record(share) for share in shares]
    >>> model = DyNeMoEstimator(n_modes=2, n_epochs=2, n_refinement_steps=0, random_state=0)
    >>> pipeline = make_pipeline(
    ...     SessionFeatures(model, "occupancy"), StandardScaler(), LogisticRegression())
    >>> pipeline.fit(X, np.array(shares) > 0.5).predict(X[:2])
    array([False,  True])
    """

    __metadata_request__fit = {"sessions": True}  # noqa: RUF012
    __metadata_request__transform = {"sessions": True}  # noqa: RUF012

    _parameter_constraints: dict = {  # noqa: RUF012
        "model": [HasMethods(["fit", "transform"])],
        "what": [str, list, tuple],
        "sampling_frequency": [Interval(Real, 0, None, closed="neither")],
        "binarize": [str, Real],
    }

    def __init__(
        self,
        model,
        what=("normalised_weight", "mean_lifetime", "switching_rate"),
        *,
        sampling_frequency=1.0,
        binarize="argmax",
    ):
        self.model = model
        self.what = what
        self.sampling_frequency = sampling_frequency
        self.binarize = binarize

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, *, sessions=None):
        """Fit a clone of the model to all sessions.

        Parameters
        ----------
        X : list of array-like of shape (n_samples, n_channels), array of shape (n_sessions, \
                n_samples, n_channels), or array-like of shape (n_samples, n_channels)
            The sessions.
        y : None
            Ignored.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X, which is one session without.

        Returns
        -------
        SessionFeatures
            The fitted transformer.

        Raises
        ------
        ValueError
            If a kind of features is unknown, or the model raises ValueError for X.
        """
        kinds = self._kinds()
        pieces = pieces_of(X, sessions)
        self.model_ = clone(self.model).fit(pieces, None)
        self.n_features_in_ = np.shape(pieces[0])[1]
        if "covariances" in kinds:
            self.shrinkage_ = session_modes(self.model_, pieces).shrinkage
        return self

    def transform(self, X, *, sessions=None):
        """Compute the features of each session.

        Parameters
        ----------
        X : list of array-like of shape (n_samples, n_channels), array of shape (n_sessions, \
                n_samples, n_channels), or array-like of shape (n_samples, n_channels)
            The sessions.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        ndarray of shape (n_sessions, n_features)
            Finite numbers, see `get_feature_names_out`.
        """
        return self._features(X, sessions)

    def fit_transform(self, X, y=None, *, sessions=None):
        """Fit, and compute the features of the same sessions.

        Parameters
        ----------
        X : list of array-like of shape (n_samples, n_channels), array of shape (n_sessions, \
                n_samples, n_channels), or array-like of shape (n_samples, n_channels)
            The sessions.
        y : None
            Ignored.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        ndarray of shape (n_sessions, n_features)
            Finite numbers.
        """
        self.fit(X, y, sessions=sessions)
        return self._features(X, sessions)

    def get_feature_names_out(self, input_features=None):
        """Names of the features.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        ndarray of str
            Such as "occupancy_mode0" or "covariance_mode0_1_2", of channels 1 and 2.
        """
        check_is_fitted(self)
        n_modes, n_channels = parts_of(self.model_)[1].covariances_.shape[:2]
        names = [FEATURES[kind][1](n_modes, n_channels) for kind in self._kinds()]
        return np.array([name for part in names for name in part], dtype=object)

    def _kinds(self) -> list[str]:
        kinds = [self.what] if isinstance(self.what, str) else list(self.what)
        unknown = [kind for kind in kinds if kind not in FEATURES]
        if unknown or not kinds:
            raise ValueError(
                f"what must be one or more of {', '.join(map(repr, FEATURES))}, but is "
                f"{self.what!r}."
            )
        return kinds

    def _features(self, X, sessions) -> np.ndarray:
        check_is_fitted(self)
        pieces = pieces_of(X, sessions)
        front, last = parts_of(self.model_)
        rows = pieces if front is None else [front.transform(piece) for piece in pieces]
        statistics = mode_statistics(
            [np.asarray(one) for one in last.transform(rows)],
            sampling_frequency=self.sampling_frequency,
            covariances=last.covariances_,
            binarize=self.binarize,
        )
        durations = np.array([[len(piece)] for piece in pieces]) / self.sampling_frequency

        def modes():
            return session_modes(last, rows, shrinkage=self.shrinkage_)

        material = _Material(statistics, durations, modes)
        return np.hstack([FEATURES[kind][0](material) for kind in self._kinds()])

    def _rows_that_stay(self, X, sessions):
        """None: no row of X has a row of its own in the output."""
        return
