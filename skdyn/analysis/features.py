"""One row of features per session, for predicting differences between people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
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
from skdyn.analysis.densities import ModeSpectra
from skdyn.analysis.sessions import parts_of, pieces_of, session_modes
from skdyn.analysis.spectra import mode_spectra
from skdyn.analysis.statistics import COLUMNS, ModeStatistics, mode_statistics

Names = list[str]
Bands = list[tuple[float, float]]

# Lowest power of a mode that is a feature, relative to that of the session.
FLOOR = 1e-3


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
    spectra : callable
        Function without arguments that returns `ModeSpectra`, computed once.
    bands : list of tuple of two floats
        Ends of the bands in Hz.
    """

    statistics: ModeStatistics
    durations: np.ndarray
    modes: Callable
    spectra: Callable[[], ModeSpectra]
    bands: Bands


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


def _log_power(material: _Material) -> np.ndarray:
    """Logarithms of the power of each mode, channel and band."""
    spectra = material.spectra()
    power = np.stack([spectra.band(*band).power for band in material.bands], axis=-1)
    # A mode that a session hardly visits may have no power at all.
    weights = material.statistics.mean
    usual = np.einsum("sj,sjcb->scb", weights, power) / weights.sum(axis=1)[:, None, None]
    power = np.maximum(power, FLOOR * usual[:, np.newaxis])
    return np.log(power, out=np.zeros_like(power), where=power > 0).reshape(len(power), -1)


def _coherence(material: _Material) -> np.ndarray:
    """Coherence of each mode, pair of channels and band."""
    spectra = material.spectra()
    rows, columns = np.triu_indices(spectra.psd.shape[2], 1)
    bands = [spectra.band(*band).coherence[:, :, rows, columns] for band in material.bands]
    return np.stack(bands, axis=-1).reshape(len(bands[0]), -1)


@dataclass(frozen=True)
class _Sizes:
    """Numbers of modes, columns of the model and channels of X, and names of bands."""

    n_modes: int
    n_columns: int
    n_channels: int
    bands: Names


def _per_mode(name: str) -> Callable[[_Sizes], Names]:
    return lambda sizes: [f"{name}_mode{mode}" for mode in range(sizes.n_modes)]


def _names_of_transitions(sizes: _Sizes) -> Names:
    modes = range(sizes.n_modes)
    return [f"transition_mode{i}_mode{j}" for i in modes for j in modes]


def _names_of_tangents(sizes: _Sizes) -> Names:
    pairs = list(zip(*np.triu_indices(sizes.n_columns), strict=True))
    return [f"covariance_mode{mode}_{i}_{j}" for mode in range(sizes.n_modes) for i, j in pairs]


def _names_of_power(sizes: _Sizes) -> Names:
    modes, channels = range(sizes.n_modes), range(sizes.n_channels)
    return [
        f"power_mode{mode}_{i}_{band}" for mode in modes for i in channels for band in sizes.bands
    ]


def _names_of_coherence(sizes: _Sizes) -> Names:
    pairs = list(zip(*np.triu_indices(sizes.n_channels, 1), strict=True))
    return [
        f"coherence_mode{mode}_{i}_{j}_{band}"
        for mode in range(sizes.n_modes)
        for i, j in pairs
        for band in sizes.bands
    ]


# Each kind of features: its numbers, (n_sessions, n_features), and their names.
FEATURES: dict[str, tuple[Callable, Callable[[_Sizes], Names]]] = {
    **{name: (_statistic(name), _per_mode(name)) for name in COLUMNS},
    "entropy": (_entropy, lambda sizes: ["entropy"]),
    "transitions": (_transitions, _names_of_transitions),
    "covariances": (_tangents, _names_of_tangents),
    "spectra": (_log_power, _names_of_power),
    "coherence": (_coherence, _names_of_coherence),
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
        "occupancy", "standard_deviation" or "fano_factor"; "entropy"; "transitions";
        "covariances", the session's own modes (`session_modes`), as the logarithm of each
        covariance in coordinates in which the group's is the identity; "spectra", the logarithm of
        the power of each mode and channel of X in each of the `bands` (`mode_spectra`); and
        "coherence", that of each pair of channels.
    sampling_frequency : float, default=1.0
        Rows per second, in Hz; lifetimes, intervals and rates are in seconds and Hz.
    binarize : {"argmax", "mixture"} or float in (0, 1), default="argmax"
        When a mode is active, see `mode_statistics`.
    bands : sequence of (float, float), default=((1, 4), (4, 8), (8, 13), (13, 30))
        Lowest and highest frequency of each band in Hz, for "spectra" and "coherence". They need
        `sampling_frequency`, and sessions of at least one second.

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
    mode_spectra : Power and coherence of the modes.

    Notes
    -----
    The features of a session do not depend on the other sessions that are transformed with it,
    except with binarize="mixture". Undefined features are replaced by numbers: the lifetime of a
    mode that is never active is 0, its interval is the length of the session, and all others are 0.
    The power of a mode counts as at least a thousandth of the session's, the mean over modes
    weighted by their mean mixing coefficients.

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
        "bands": ["array-like"],
    }

    def __init__(
        self,
        model,
        what=("normalised_weight", "mean_lifetime", "switching_rate"),
        *,
        sampling_frequency=1.0,
        binarize="argmax",
        bands=((1, 4), (4, 8), (8, 13), (13, 30)),
    ):
        self.model = model
        self.what = what
        self.sampling_frequency = sampling_frequency
        self.binarize = binarize
        self.bands = bands

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
            If a kind of features is unknown, a band is no pair of ascending frequencies or lies
            outside the spectrum, or the model raises ValueError for X.
        """
        kinds = self._kinds()
        self._bands()
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
            Such as "occupancy_mode0", "covariance_mode0_1_2", of columns 1 and 2 of the model, or
            "power_mode0_5_8-13Hz", of channel 5.
        """
        check_is_fitted(self)
        n_modes, n_columns = parts_of(self.model_)[1].covariances_.shape[:2]
        bands = [f"{low:g}-{high:g}Hz" for low, high in self._bands()]
        sizes = _Sizes(n_modes, n_columns, self.n_features_in_, bands)
        names = [FEATURES[kind][1](sizes) for kind in self._kinds()]
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

    def _bands(self) -> Bands:
        found = np.array(self.bands, dtype=object)
        is_pairs = found.ndim == 2 and found.shape[1] == 2 and len(found) > 0
        if not is_pairs or not all(isinstance(end, Real) for end in found.flat):
            raise ValueError(
                f"bands must be pairs of frequencies in Hz, such as [(8, 13)], but is "
                f"{self.bands!r:.100}."
            )
        pairs = [(float(low), float(high)) for low, high in found]
        if not all(0 <= low <= high for low, high in pairs):
            raise ValueError(
                f"bands must have ends that ascend from 0 Hz or above, but is {self.bands!r:.100}."
            )
        return pairs

    def _features(self, X, sessions) -> np.ndarray:
        check_is_fitted(self)
        pieces = pieces_of(X, sessions)
        front, last = parts_of(self.model_)
        rows = pieces if front is None else [front.transform(piece) for piece in pieces]
        alpha = [np.asarray(one) for one in last.transform(rows)]
        statistics = mode_statistics(
            alpha,
            sampling_frequency=self.sampling_frequency,
            covariances=last.covariances_,
            binarize=self.binarize,
        )
        durations = np.array([[len(piece)] for piece in pieces]) / self.sampling_frequency

        def modes():
            return session_modes(last, rows, shrinkage=self.shrinkage_)

        @cache
        def spectra():
            return mode_spectra(pieces, alpha, sampling_frequency=self.sampling_frequency)

        material = _Material(statistics, durations, modes, spectra, self._bands())
        return np.hstack([FEATURES[kind][0](material) for kind in self._kinds()])

    def _rows_that_stay(self, X, sessions):
        """None: no row of X has a row of its own in the output."""
        return
