"""What a fitted DyNeMo can say of a recording, and the recordings it can draw."""

from __future__ import annotations

import copy
from numbers import Integral

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d

from skdyn._sklearn import DocumentedMixin, SessionTransformerMixin
from skdyn.core.gaussian import sample_mixture
from skdyn.core.runtime import make_generator, one_thread
from skdyn.dynemo.fitting import make_loader
from skdyn.dynemo.network import sample_logits
from skdyn.dynemo.objective import infer_sessions
from skdyn.sessions import Sessions, check_sessions


class FittedDyNeMo(
    DocumentedMixin, ClassNamePrefixFeaturesOutMixin, SessionTransformerMixin, BaseEstimator
):
    """The methods of a `DyNeMoEstimator` that need a fitted model."""

    __metadata_request__transform = {"sessions": True}  # noqa: RUF012
    __metadata_request__predict = {"sessions": True}  # noqa: RUF012
    __metadata_request__score = {"sessions": True}  # noqa: RUF012

    def transform(self, X, *, sessions=None):
        """Mixing coefficients: how much of each mode there is in each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        ndarray of shape (n_samples, n_modes), or as X
            Non-negative, each row summing to one; at the posterior mean of theta.
        """
        return self._alpha(X, sessions)

    def predict(self, X, *, sessions=None):
        """The mode of largest weight in each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        ndarray of int of shape (n_samples,), or as X
            Numbers of modes.
        """
        recording, alpha, _ = self._infer(X, sessions)
        return recording.like_input([one.argmax(axis=1) for one in alpha])

    def score_samples(self, X, *, sessions=None):
        """Evidence lower bound of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        ndarray of shape (n_samples,), or as X
            log p(x_t | theta_t) - KL[q(theta_t) || p(theta_t | theta_<t)] in nats, theta at its
            posterior mean. The first row of a session has no KL term.
        """
        recording, _, bounds = self._infer(X, sessions, bound=True)
        return recording.like_input(bounds)

    def score(self, X, y=None, *, sessions=None, sample_weight=None):
        """Mean evidence lower bound per row; higher is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        y : None
            Ignored.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X. Without them, X counts as one session.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, all sessions one after the other.

        Returns
        -------
        float
            In nats per row.
        """
        _, _, bounds = self._infer(X, sessions, bound=True)
        bound = np.concatenate(bounds)
        if sample_weight is None:
            return float(bound.mean())
        weight = column_or_1d(sample_weight, dtype=np.float64)
        if len(weight) != len(bound) or not weight.sum() > 0:
            raise ValueError(
                f"Got sample_weight of {len(weight)} numbers with sum {weight.sum()}, expected "
                f"{len(bound)}, one per row, with a positive sum."
            )
        return float(np.average(bound, weights=weight))

    def free_energy(self, X, *, sessions=None):
        """Variational free energy per row, the negative of `score`; lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        float
            In nats per row.
        """
        return -self.score(X, sessions=sessions)

    def sample(self, n_samples=1, *, random_state=None):
        """Draw a recording from the fitted model.

        theta follows the prior network from step to step, alpha is its softmax, and each row is
        drawn from the mixture. The first `sequence_length` steps are discarded.

        Parameters
        ----------
        n_samples : int, default=1
            Rows.
        random_state : int, RandomState instance or None, default=None
            Source of randomness; None takes the estimator's own `random_state`.

        Returns
        -------
        X : ndarray of shape (n_samples, n_channels)
            The recording.
        alpha : ndarray of shape (n_samples, n_modes)
            Its mixing coefficients.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"Got n_samples={n_samples!r}, expected an integer of at least 1.")
        generator = make_generator(self._random_state(random_state), torch.device("cpu"))
        with one_thread(), torch.no_grad():
            theta = sample_logits(self.network_, int(n_samples), self.sequence_length, generator)
            alpha = self.network_.mixing(theta).double()
            X = sample_mixture(
                alpha,
                torch.from_numpy(self.means_),
                torch.from_numpy(self.covariances_),
                generator,
            )
        return X.numpy(), alpha.numpy()

    def summary(self):
        """The fitted model in words.

        Returns
        -------
        str
            A line per part: data, networks, training, and each mode's share of the variance.
        """
        check_is_fitted(self)
        n_weights = sum(w.numel() for w in self.network_.parameters() if w.requires_grad)
        last = {name: values[-1] for name, values in self.history_.items()}
        power = np.trace(self.covariances_ / np.outer(*[self.channel_scale_] * 2), axis1=1, axis2=2)
        modes = " ".join(f"{share:.2f}" for share in power / self.n_features_in_)
        stopped = "was asked to stop" if self.n_iter_ < self.n_epochs else "ran to its last epoch"
        stopped = "stopped by itself" if self.converged_ else stopped
        return "\n".join(
            [
                f"DyNeMo with {self.n_modes} modes of {self.n_features_in_} channels",
                f"  inference  {self.inference_n_layers} x {self.inference_n_units} "
                f"{self.inference_rnn}, both directions, windows of {self.sequence_length} rows",
                f"  prior      {self.model_n_layers} x {self.model_n_units} {self.model_rnn}",
                f"  weights    {n_weights} trained",
                f"  training   {self.n_iter_} of {self.n_epochs} epochs, {stopped}, "
                f"loss {last['loss']:.4f} = {last['ll_loss']:.4f} + "
                f"{last['kl_factor']:.2f} x {last['kl_loss']:.4f}",
                f"  softmax    temperature {self.alpha_temperature_:.3f}",
                f"  modes      variance relative to the data: {modes}",
            ]
        )

    @property
    def _n_features_out(self) -> int:
        return self.n_modes

    def _random_state(self, random_state=None) -> np.random.RandomState:
        given = self.random_state if random_state is None else random_state
        return np.random.RandomState() if given is None else check_random_state(given)

    def _alpha(self, X, sessions):
        recording, alpha, _ = self._infer(X, sessions)
        return recording.like_input(alpha)

    def _infer(
        self, X, sessions, *, bound: bool = False
    ) -> tuple[Sessions, list[np.ndarray], list[np.ndarray]]:
        check_is_fitted(self)
        recording = check_sessions(self, X, sessions, reset=False)
        loader = make_loader(self, recording.arrays, self.channel_scale_)
        network = self.network_
        if loader.device.type != "cpu":
            network = copy.deepcopy(network).to(loader.device)
        with one_thread():
            alpha, bounds = infer_sessions(network, loader, self.sequence_length, bound=bound)
        single = all(array.dtype == np.float32 for array in recording.arrays)
        alpha = [one.astype(np.float32 if single else np.float64) for one in alpha]
        jacobian = np.log(self.channel_scale_).sum()
        return recording, alpha, [one - jacobian for one in bounds or []]
