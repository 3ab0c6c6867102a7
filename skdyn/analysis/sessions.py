"""Session-specific modes: means and covariances of each session, given the mixing coefficients.

With the mixing coefficients fixed, the modes of a session are those of a linear covariance model

    x_t ~ N(sum_j alpha_tj mu_j, sum_j alpha_tj D_j),

whose log-likelihood has closed-form gradients (`skdyn.core.gaussian`). One session has few rows for
so many parameters, so its modes are shrunk towards the group's, G_j and m_j, by the penalty

    (nu / 2) sum_j [ log|D_j| + tr(D_j^-1 (G_j + (mu_j - m_j)(mu_j - m_j)')) ],

that is, as if the group's modes had been observed in nu further rows of each mode alone: if a mode
has all the weight in n rows, D_j = (n S_j + nu G_j) / (n + nu). A mode that a session hardly visits
stays close to the group's. The shrinkage nu is the same for all sessions and is chosen by
cross-validation: modes of half of the rows predict the other half. Mixing that was inferred with
the group's modes favours modes that are too extreme, in held-out rows as well; nu is then the
largest number that keeps 99.9 % of the best gain over the group's modes.

Mixing coefficients are not observed. Their posterior means vary less than the coefficients, and
modes fitted to them are too far apart. The likelihood is therefore averaged over draws from the
posterior, as in the training objective.

The optimisation is preconditioned: with G_j = L L' and a triangular M, D_j = L M M' L', starting
at M = I, and steps are relative to the number of rows of a mode.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from scipy.linalg import eigh
from scipy.optimize import minimize
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skdyn._drawing import INK, LABEL_SIZE, draw_points, mode_palette, panels, tidy
from skdyn.analysis.statistics import check_mixing, normalised_alpha, session_names
from skdyn.core.gaussian import mixture_log_likelihood, mixture_log_prob
from skdyn.core.runtime import one_thread
from skdyn.dynemo.training import WEIGHTS_OF
from skdyn.metrics import riemannian_distance
from skdyn.sessions import as_numbers, check_columns, container_of, like_sessions, split_sessions

# Most rows, of whole sessions, on which the shrinkage is chosen.
CHOICE_ROWS = 10_000

# Pieces into which a session is cut, of which every other one is held out.
N_PIECES = 10

# Ratio of one candidate for the shrinkage to the next, and the largest one, in rows of a session.
RATIO, LARGEST = 4.0, 8.0

# Share of the best held-out gain over the group's modes that the chosen shrinkage keeps, for
# inferred and for known mixing.
SHARE_INFERRED, SHARE_KNOWN = 0.999, 1.0

# Gain in nats below which a fit stops, when it is final and when it serves a choice.
SMALLEST_GAIN, SMALLEST_GAIN_OF_CHOICE = 0.02, 0.2


class SessionModes(Bunch):
    """The modes of each session.

    A Bunch: a dictionary whose values are also attributes, returned by `session_modes`. The axis of
    sessions is missing if X was one 2-D array without `sessions`.

    Parameters
    ----------
    **values
        The attributes below.

    Attributes
    ----------
    covariances : ndarray of shape (n_sessions, n_modes, n_channels, n_channels)
        Covariances of the modes, in squared units of X.
    means : ndarray of shape (n_sessions, n_modes, n_channels)
        Means of the modes, in units of X.
    group_covariances, group_means : ndarray of shape (n_modes, n_channels, n_channels), (n_modes, \
            n_channels)
        Those of the group, towards which they were shrunk.
    shrinkage : float
        Rows of each mode for which the group's modes count.
    candidates, held_out_score : ndarray of shape (n_candidates,)
        Values of `shrinkage` that were compared, and the mean log-likelihood of held-out rows with
        each, in nats per row; empty if `shrinkage` was given.
    log_likelihood, group_log_likelihood : ndarray of shape (n_sessions,)
        Mean log-likelihood of the rows of a session under its own modes and under the group's, in
        nats per row. The rows were fitted, so the former is too high because of
        overfitting.
    sessions : list
        Names of the sessions: their labels, or 0, 1, ...
    """

    def __repr__(self):
        sessions = f"{len(self.means)} sessions, " if np.ndim(self.means) == 3 else ""
        n_modes, n_channels = np.shape(self.means)[-2:]
        return (
            f"<SessionModes: {sessions}{n_modes} modes, {n_channels} channels, "
            f"shrinkage {self.shrinkage:.4g}>"
        )

    def distances(self):
        """Riemannian distances of the session's covariances from the group's.

        Returns
        -------
        ndarray of shape (n_sessions, n_modes)
            Affine-invariant distances, see `skdyn.metrics.riemannian_distance`.
        """
        stack = np.atleast_3d(self.covariances)
        stack = stack.reshape(-1, *self.group_covariances.shape)
        found = [
            [riemannian_distance(*pair) for pair in zip(own, self.group_covariances, strict=True)]
            for own in stack
        ]
        return np.array(found).reshape(self.covariances.shape[:-2])

    def to_frame(self):
        """Return a table with one row per session and mode.

        Returns
        -------
        pandas.DataFrame
            Indexed by session and mode: `distance` from the group's covariance (Riemannian),
            `power`, the trace of the covariance in squared units of X, and `relative_power`, that
            by the group's.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        import pandas as pd

        power = np.trace(self.covariances, axis1=-2, axis2=-1)
        group = np.trace(self.group_covariances, axis1=-2, axis2=-1)
        columns = {
            "distance": np.ravel(self.distances()),
            "power": np.ravel(power),
            "relative_power": np.ravel(power / group),
        }
        names = {"names": ["session", "mode"]}
        index = pd.MultiIndex.from_product([self.sessions, range(len(group))], **names)
        return pd.DataFrame(columns, index=index)

    def plot(self, ax=None, *, fig=None):
        """Draw the distance of the modes of each session from the group's.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw into; mutually exclusive with `fig`.
        fig : Figure or SubFigure, default=None
            Figure to add the panel to; None creates one.

        Returns
        -------
        fig, axes : Figure or SubFigure, and ndarray of Axes of shape (1,)
            The figure and its panel: a point per session, and a line at their mean.
        """
        values = np.atleast_2d(self.distances())
        fig, axes = panels(1, ax, fig, (1.5 + 0.5 * values.shape[1], 2.6))
        tidy(axes[0])
        for mode, color in enumerate(mode_palette(values.shape[1])):
            draw_points(axes[0], values[:, mode], mode, 0.3, color)
        axes[0].set_xticks(range(values.shape[1]))
        axes[0].set_ylim(0, None)
        axes[0].set_xlabel("Mode", size=LABEL_SIZE, color=INK)
        axes[0].set_ylabel("Distance from the group's", size=LABEL_SIZE, color=INK)
        return fig, axes


def session_modes(
    model, X, sessions=None, shrinkage="auto", *, n_draws=2, random_state=0, n_jobs=None
):
    """Modes of each session, given the mixing coefficients that a fitted model infers.

    The inference network runs once, and mixing coefficients are drawn from its posterior. Means
    (if the model's are not all zero) and covariances are then the most likely ones of the session,
    shrunk towards the model's (see Notes).

    Parameters
    ----------
    model : fitted estimator, Pipeline or search
        With `transform`, `means_` and `covariances_`, such as a `DyNeMoEstimator`; or a Pipeline
        that ends in one, with the modes of the input of its last step; or a search over one of
        these.
    X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
            (n_sessions, n_samples, n_channels)
        The recording.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D X.
    shrinkage : "auto" or float, default="auto"
        Weight of the model's modes, in rows of each mode, from 0 (maximum likelihood) to infinity
        (the model's modes). "auto" predicts one half of each session from the other and chooses
        the largest number that keeps 99.9 % of the best gain over the model's modes. The number is
        the same for all sessions; if X has more than 10,000 rows, it is chosen on some sessions.
    n_draws : int, default=2
        Draws of the mixing coefficients over which the likelihood is averaged. For a model without
        `draw_alpha`, the output of its `transform` is used instead.
    random_state : int or RandomState instance, default=0
        Source of the draws.
    n_jobs : int or None, default=None
        Sessions that are fitted at the same time, as in joblib.

    Returns
    -------
    SessionModes
        The modes, with a row per session; `to_frame()` returns a table.

    Raises
    ------
    ValueError
        If X does not match the model, or shrinkage is out of its range.
    sklearn.exceptions.NotFittedError
        If the model is not fitted.

    See Also
    --------
    modes_from_mixing : The same from arrays, for any model.
    fine_tune : Also continue the training of the inference network.

    Notes
    -----
    osl-dynamics calls this dual estimation, trains the modes for a number of epochs from the
    group's, and uses no shrinkage. Here the log-likelihood of a session is penalised as if the
    group's modes had been observed in further rows, so that modes which a session hardly visits
    stay close to the group's. If all covariances of the group are diagonal, so are those of
    sessions.

    The mixing coefficients are inferred with the group's modes. If modes are similar, a difference
    between sessions can therefore be attributed to mixing.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn import DyNeMoEstimator
    >>> from skdyn.analysis import session_modes
    >>> rng = np.random.default_rng(0)
    >>> sizes = np.repeat([1.0, 3.0], 200)[:, None] * [1.0, 0.5]
    >>> X = [gain * sizes * rng.standard_normal((400, 2)) for gain in (1.0, 1.5)]
    >>> model = DyNeMoEstimator(n_modes=2, n_epochs=20, random_state=0).fit(X)
    >>> modes = session_modes(model, X)
    >>> modes.covariances.shape
    (2, 2, 2, 2)
    """
    front, last = parts_of(model)
    check_is_fitted(last, ["means_", "covariances_"])
    pieces = pieces_of(X, sessions)
    rows = pieces if front is None else [front.transform(piece) for piece in pieces]
    if hasattr(last, "draw_alpha"):
        alpha = last.draw_alpha(rows, n_draws=n_draws, random_state=random_state)
    else:
        alpha = [one[np.newaxis] for one in last.transform(rows)]
    group = _Group.of(last.covariances_, last.means_ if np.any(last.means_) else None)
    given = [np.asarray(one) for one in rows], alpha, group, shrinkage
    found = _fit_sessions(*given, SHARE_INFERRED, n_jobs)
    is_one = container_of(X) == "array" and sessions is None
    return _record(found, group, session_names(pieces, sessions), is_one)


def modes_from_mixing(
    X, alpha, *, covariances, means=None, sessions=None, shrinkage="auto", n_jobs=None
):
    """Modes of each session, given mixing coefficients and the group's modes as arrays.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
            (n_sessions, n_samples, n_channels)
        The recording.
    alpha : array-like of shape (n_samples, n_modes), or as X
        Mixing coefficients, or posterior probabilities of states, of any model. They are used as
        known.
    covariances : array-like of shape (n_modes, n_channels, n_channels)
        Covariances of the group's modes, positive definite.
    means : array-like of shape (n_modes, n_channels), default=None
        Means of the group's modes. None for means of zero, in sessions, too.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D X.
    shrinkage, n_jobs : object
        As in `session_modes`; "auto" takes the number of the best held-out prediction.

    Returns
    -------
    SessionModes
        The modes, with a row per session.

    Raises
    ------
    ValueError
        If shapes do not agree, a covariance is not positive definite, or shrinkage is out of its
        range.

    See Also
    --------
    session_modes : The same for a fitted model.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.analysis import modes_from_mixing
    >>> rng = np.random.default_rng(0)
    >>> X = [gain * rng.standard_normal((300, 2)) for gain in (1.0, 2.0)]
    >>> alpha = [np.ones((300, 1))] * 2
    >>> modes = modes_from_mixing(X, alpha, covariances=[2.5 * np.eye(2)], shrinkage=0)
    >>> np.allclose(modes.covariances[1, 0], X[1].T @ X[1] / 300, atol=0.05)
    True
    """
    group = _Group.of(covariances, means)
    advice = "Pass covariances of as many channels as X has."
    recording = check_columns(X, sessions, n_columns=group.n_channels, advice=advice)
    # Checks the values; then their form is compared with that of X.
    check_mixing(alpha, sessions)
    mixing = like_sessions(recording, alpha, "alpha")
    if mixing[0].shape[1] != len(group.factors):
        raise ValueError(
            f"alpha has {mixing[0].shape[1]} modes, but there are {len(group.factors)} "
            "covariances. Pass one covariance for each mode."
        )
    draws = [one[np.newaxis] for one in mixing]
    found = _fit_sessions(recording.arrays, draws, group, shrinkage, SHARE_KNOWN, n_jobs)
    is_one = recording.container == "array" and sessions is None
    return _record(found, group, session_names(recording.arrays, sessions), is_one)


def fine_tune(model, X, *, sessions=None, n_epochs=None):
    """Continue the training of a DyNeMo on another recording, with its prior network frozen.

    The inference network, the modes and the temperature of the softmax are trained further at a
    tenth of the learning rate, if the model learns them. The prior network, which describes the
    temporal dynamics, keeps the weights of the group, so that a single session is enough.

    Parameters
    ----------
    model : DyNeMoEstimator, Pipeline or search
        A fitted model; a fitted Pipeline that ends in one, which is trained; or a fitted search,
        for which `best_estimator_` is used.
    X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
            (n_sessions, n_samples, n_channels)
        The recording.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D X.
    n_epochs : int, default=None
        Most passes over X; None for the `n_epochs` of the model.

    Returns
    -------
    DyNeMoEstimator, Pipeline or search
        A fitted copy; the model that was given is as before. `history_` is continued.

    Raises
    ------
    TypeError
        If the model has no network.
    sklearn.exceptions.NotFittedError
        If the model is not fitted.

    See Also
    --------
    session_modes : Modes of each session at fixed mixing, without training.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn import DyNeMoEstimator
    >>> from skdyn.analysis import fine_tune
    >>> rng = np.random.default_rng(0)
    >>> sizes = np.repeat([1.0, 3.0], 200)[:, None] * [1.0, 0.5]
    >>> X = [gain * sizes * rng.standard_normal((400, 2)) for gain in (1.0, 1.5)]
    >>> model = DyNeMoEstimator(n_modes=2, n_epochs=20, random_state=0).fit(X)
    >>> tuned = fine_tune(model, X[1], n_epochs=2)
    >>> len(tuned.history_["loss"]) - len(model.history_["loss"])
    2
    """
    tuned = copy.deepcopy(model)
    front, last = parts_of(tuned)
    check_is_fitted(last)
    if not hasattr(last, "network_"):
        raise TypeError(
            f"The model is a {type(last).__name__}, but a DyNeMoEstimator or a Pipeline that ends "
            "in one was expected. Use session_modes for other models."
        )
    rows: Any = X
    if front is not None:
        rows, sessions = [front.transform(piece) for piece in pieces_of(X, sessions)], None
    before = last.get_params(deep=False)
    network = last.network_
    prior = [w for name, w in network.named_parameters() if name.startswith(WEIGHTS_OF["prior"])]
    first_rows = copy.deepcopy(network.first_mean), copy.deepcopy(network.first_std)
    for weight in prior:
        weight.requires_grad_(False)
    budget = {} if n_epochs is None else {"n_epochs": n_epochs}
    last.set_params(warm_start=True, **budget).fit(rows, sessions=sessions)
    last.set_params(warm_start=before["warm_start"], n_epochs=before["n_epochs"])
    # The first row of a session has a prior, too.
    with one_thread(), torch.no_grad():
        last.network_.first_mean.copy_(first_rows[0])
        last.network_.first_std.copy_(first_rows[1])
    # A copy has the flags of a new network.
    last.network_ = copy.deepcopy(last.network_)
    return tuned


def parts_of(model) -> tuple[Any, Any]:
    """Split a pipeline, or the best one of a search, into its last step and the steps before it.

    Parameters
    ----------
    model : estimator, Pipeline or search
        Fitted.

    Returns
    -------
    front : Pipeline or None
        All steps but the last; None for an estimator.
    last : estimator
        The last step, or the estimator.
    """
    if hasattr(model, "best_estimator_"):
        return parts_of(model.best_estimator_)
    if not hasattr(model, "steps"):
        return None, model
    return (model[:-1] if len(model.steps) > 1 else None), model[-1]


def pieces_of(X, sessions) -> list:
    """Split a recording into sessions, DataFrames as they are.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
            (n_sessions, n_samples, n_channels)
        The recording.
    sessions : array-like of shape (n_samples,) or None
        Label of each row of a 2-D X.

    Returns
    -------
    list of array-like
        One per session.
    """
    if container_of(X) != "array":
        return list(X)
    if sessions is None:
        return [X]
    places = split_sessions(np.arange(len(X)), sessions)
    return [X.iloc[one] if hasattr(X, "iloc") else np.asarray(X)[one] for one in places]


def _record(found: dict, group: _Group, names: list, is_one: bool) -> SessionModes:
    own = "covariances", "means", "log_likelihood", "group_log_likelihood"
    return SessionModes(
        **{key: value[0] if is_one and key in own else value for key, value in found.items()},
        group_covariances=group.covariances.numpy(),
        group_means=group.means.numpy(),
        sessions=names,
    )


@dataclass(frozen=True)
class _Group:
    """Modes of the group."""

    covariances: Tensor
    means: Tensor
    factors: Tensor
    has_means: bool
    is_diagonal: bool

    @property
    def n_channels(self) -> int:
        return self.covariances.shape[-1]

    @classmethod
    def of(cls, covariances, means) -> _Group:
        values = torch.from_numpy(as_numbers(covariances, "covariances").copy())
        if values.ndim != 3 or values.shape[1] != values.shape[2]:
            raise ValueError(
                f"covariances has shape {tuple(values.shape)}, but (n_modes, n_channels, "
                "n_channels) was expected."
            )
        with one_thread():  # threads of a process that was forked would wait for ever
            factors, failed = torch.linalg.cholesky_ex(values)
            is_usable = bool(values.isfinite().all()) and not bool(failed.any())
            is_diagonal = bool((values == torch.diag_embed(values.diagonal(0, 1, 2))).all())
        if not is_usable:
            raise ValueError(
                "covariances has a matrix that is not positive definite. Add a small multiple of "
                "the identity."
            )
        shape = tuple(values.shape[:2])
        centers = np.zeros(shape) if means is None else as_numbers(means, "means").copy()
        if centers.shape != shape:
            raise ValueError(f"means has shape {centers.shape}, but {shape} was expected.")
        return cls(values, torch.from_numpy(centers), factors, means is not None, is_diagonal)


class _Likelihood:
    """Penalised log-likelihood of one session, as a function of unconstrained numbers.

    It is the mean over draws of alpha. The numbers are, by mode, the lower triangle of M, the
    logarithm of its diagonal instead of that, and the mean in units of L; all times the root of the
    rows that the mode has.
    """

    def __init__(self, rows: np.ndarray, alpha: np.ndarray, group: _Group):
        n_draws = len(alpha)
        self.size = len(rows)
        self.rows = torch.from_numpy(np.tile(np.asarray(rows, dtype=np.float64), (n_draws, 1)))
        self.alpha = torch.from_numpy(np.concatenate(alpha).astype(np.float64))
        self.weights = torch.full((len(self.rows),), 1 / n_draws, dtype=torch.float64)
        self.group = group
        n_modes, size = len(group.factors), group.n_channels
        places = torch.arange(size)
        self.places = (places, places) if group.is_diagonal else torch.tril_indices(size, size)
        self.shape = (n_modes, len(self.places[0]) + (size if group.has_means else 0))
        self.n_rows = _rows_of_modes(self.alpha, group) / n_draws

    def modes(self, numbers: Tensor, shrinkage: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Triangular M, means in units of L, and the modes: means and covariances."""
        size = self.group.n_channels
        steps = numbers / (self.n_rows + shrinkage + 1).sqrt()[:, None]
        n_entries = len(self.places[0])
        raw = numbers.new_zeros(len(steps), size, size)
        raw[:, self.places[0], self.places[1]] = steps[:, :n_entries]
        inner = raw.tril(-1) + torch.diag_embed(raw.diagonal(0, 1, 2).exp())
        shift = steps[:, n_entries:] if self.group.has_means else steps.new_zeros(len(steps), size)
        halves = self.group.factors @ inner
        means = self.group.means + (self.group.factors @ shift[:, :, None])[:, :, 0]
        return inner, shift, means, halves @ halves.mT

    def value(self, numbers: Tensor, shrinkage: float) -> Tensor:
        """Log-likelihood less the penalty, in nats."""
        inner, shift, means, covariances = self.modes(numbers, shrinkage)
        modes = self.used(means, covariances)
        found = mixture_log_likelihood(self.rows, self.alpha, *modes, self.weights)
        if shrinkage == 0:
            return found
        eye = torch.eye(inner.shape[-1], dtype=inner.dtype).expand_as(inner)
        inverse = torch.linalg.solve_triangular(inner, eye, upper=False)
        quadratic = inverse.square().sum() + (inverse @ shift[:, :, None]).square().sum()
        log_det = 2 * inner.diagonal(0, 1, 2).log().sum()
        return found - 0.5 * shrinkage * (log_det + quadratic)

    def used(self, means: Tensor, covariances: Tensor) -> tuple[Tensor | None, Tensor]:
        """Modes in the core's form: None for zero means, diagonals for diagonal covariances."""
        if self.group.is_diagonal:
            covariances = covariances.diagonal(0, 1, 2)
        return means if self.group.has_means else None, covariances

    def score(self, means: Tensor, covariances: Tensor) -> float:
        """Log-likelihood of all rows, in nats."""
        with torch.no_grad():
            modes = self.used(means, covariances)
            return float(self.weights @ mixture_log_prob(self.rows, self.alpha, *modes))

    def fit(self, shrinkage: float, start: np.ndarray | None, gain: float) -> np.ndarray:
        """Numbers of the modes that are most likely."""
        if start is None:
            start = np.zeros(self.shape)

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            numbers = torch.from_numpy(flat.reshape(self.shape)).requires_grad_()
            value = -self.value(numbers, shrinkage)
            (gradient,) = torch.autograd.grad(value, numbers)
            return float(value.detach()), gradient.numpy().ravel()

        first = abs(loss(start.ravel())[0])
        options = {"ftol": gain / max(first, 1.0), "gtol": 0.0, "maxiter": 200}
        return minimize(
            loss, start.ravel(), jac=True, method="L-BFGS-B", options=options
        ).x.reshape(self.shape)


def _rows_of_modes(alpha: Tensor, group: _Group) -> Tensor:
    """Rows for which a mode counts: the sum of squares of its share of the variance.

    The Fisher information on D_j is half the sum of a_tj^2 (P_t x P_t), with P_t = C_t^-1.
    """
    mean = torch.einsum("j,jcd->cd", alpha.mean(dim=0), group.covariances).numpy()
    sizes = np.stack([eigh(one, mean, eigvals_only=True) for one in group.covariances.numpy()])
    return torch.from_numpy((normalised_alpha(alpha.numpy(), sizes) ** 2).sum(axis=0))


def _fit_sessions(
    rows: Sequence[np.ndarray],
    alpha: Sequence[np.ndarray],
    group: _Group,
    shrinkage,
    share: float,
    n_jobs,
) -> dict[str, Any]:
    """Attributes of `SessionModes`, from lists of sessions; alpha has an axis of draws in front."""
    candidates, scores = np.empty(0), np.empty(0)
    if isinstance(shrinkage, str):
        if shrinkage != "auto":
            raise ValueError(
                f"shrinkage must be 'auto' or a number of at least 0, but is {shrinkage!r}."
            )
        with one_thread():
            candidates, scores = _choose(rows, alpha, group, share)
        shrinkage = _largest_good(candidates, scores, share)
    is_number = isinstance(shrinkage, Real) and not isinstance(shrinkage, bool)
    if not is_number or not shrinkage >= 0:
        raise ValueError(
            f"shrinkage must be 'auto' or a number of at least 0, but is {shrinkage!r}."
        )
    found = Parallel(n_jobs=n_jobs)(
        delayed(_fit_session)(*pair, group, float(shrinkage))
        for pair in zip(rows, alpha, strict=True)
    )
    names = "means", "covariances", "log_likelihood", "group_log_likelihood"
    arrays = {
        name: np.stack(values) for name, values in zip(names, zip(*found, strict=True), strict=True)
    }
    if not all(np.isfinite(one).all() for one in arrays.values()):
        raise ValueError(
            "X has values so large, beside the group's covariances, that modes of sessions are not "
            "finite. Use the units of the group's modes."
        )
    return arrays | {
        "shrinkage": float(shrinkage),
        "candidates": candidates,
        "held_out_score": scores,
    }


def _fit_session(rows, alpha, group: _Group, shrinkage: float) -> tuple[np.ndarray, ...]:
    """Means, covariances, and log-likelihoods per row under these and the group's."""
    with one_thread():
        session = _Likelihood(rows, alpha, group)
        means, covariances = group.means, group.covariances
        if shrinkage < np.inf:
            numbers = torch.from_numpy(session.fit(shrinkage, None, SMALLEST_GAIN))
            means, covariances = session.modes(numbers, shrinkage)[2:]
        scores = session.score(means, covariances), session.score(group.means, group.covariances)
        per_row = [np.array(score / len(rows)) for score in scores]
        return means.numpy(), covariances.numpy(), *per_row


def _choose(rows, alpha, group: _Group, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Shrinkages, and the held-out log-likelihood per row with each of them."""
    chosen = _some([len(one) for one in rows])
    folds = [fold for number in chosen for fold in _folds(rows[number], alpha[number], group)]
    n_rows = sum(test.size for _, test in folds)
    candidates = [np.inf]
    scores = [sum(test.score(group.means, group.covariances) for _, test in folds) / n_rows]
    numbers: list[np.ndarray | None] = [None] * len(folds)
    size = float(np.mean([train.size for train, _ in folds]))
    shrinkage = LARGEST * size
    # From strong to weak shrinkage, with warm starts, until the gain is small.
    while len(scores) < 3 or scores[-1] - scores[-2] > (1 - share) * (max(scores) - scores[0]):
        before, total = candidates[-1], 0.0
        for place, (train, test) in enumerate(folds):
            start = numbers[place]
            if start is not None:
                scale = ((train.n_rows + shrinkage + 1) / (train.n_rows + before + 1)).sqrt()
                start = start * scale.numpy()[:, np.newaxis]
            numbers[place] = found = train.fit(shrinkage, start, SMALLEST_GAIN_OF_CHOICE)
            total += test.score(*train.modes(torch.from_numpy(found), shrinkage)[2:])
        candidates.append(shrinkage)
        scores.append(total / n_rows)
        if shrinkage == 0:
            break
        shrinkage = shrinkage / RATIO if shrinkage > 1 else 0.0
    return np.array(candidates), np.array(scores)


def _largest_good(candidates: np.ndarray, scores: np.ndarray, share: float) -> float:
    """The largest shrinkage that keeps a share of the best gain over the group's modes."""
    gains = scores - scores[0]
    target = share * gains.max()
    if target <= 0:
        return float(candidates[0])
    first = int(np.flatnonzero(gains >= target)[0])
    right, left = candidates[first], candidates[first - 1]
    if right == 0 or left == np.inf:
        return float(right)
    rise = (target - gains[first - 1]) / (gains[first] - gains[first - 1])
    return float(left * (right / left) ** rise)


def _some(n_rows: list[int]) -> np.ndarray:
    """Sessions on which the shrinkage is chosen, spread over all."""
    n_taken = int(np.clip(CHOICE_ROWS * len(n_rows) // max(1, sum(n_rows)), 1, len(n_rows)))
    return np.linspace(0, len(n_rows) - 1, n_taken).round().astype(int)


def _folds(rows, alpha, group: _Group) -> list[tuple[_Likelihood, _Likelihood]]:
    """Every other piece of a session, to fit and to test, and the reverse."""
    piece = np.arange(len(rows)) * N_PIECES // max(1, len(rows)) % 2
    halves = [
        _Likelihood(rows[piece == part], alpha[:, piece == part], group)
        for part in (0, 1)
        if np.any(piece == part)
    ]
    return list(zip(halves, halves[::-1], strict=True))
