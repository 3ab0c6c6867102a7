"""The variational free energy of DyNeMo and its schedules.

    F = -sum_t log p(x_t | theta_t) + sum_t>1 KL[ q(theta_t | x) || p(theta_t | theta_<t) ]

theta is sampled from q in training and set to the mean of q elsewhere. The prior network's output
at t speaks of theta at t + 1, so the first row of a window has no KL term.

Reference: Gohil et al. (2022), NeuroImage 263, 119595, and the implementation of osl-dynamics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skdyn.core.distributed import Draws, share
from skdyn.core.gaussian import mixture_log_likelihood, mixture_log_prob
from skdyn.core.windows import WindowLoader, Windows, batches, cut_windows, stitch
from skdyn.dynemo.network import DyNeMoNetwork

# Rows that go through the networks at once when nothing is trained.
ROWS_AT_ONCE = 2**13


def kl_annealing_factor(epoch: int, curve: str, sharpness: float, n_epochs: int) -> float:
    """Weight of the KL term in an epoch of training.

    Parameters
    ----------
    epoch : int
        Epoch, from zero.
    curve : {"tanh", "linear"}
        Shape of the rise.
    sharpness : float
        Steepness of the tanh.
    n_epochs : int
        Epochs of the rise; 0 for none.

    Returns
    -------
    float
        0 in the first epoch; then tanh(sharpness (epoch - n_epochs/2) / n_epochs) / 2 + 1/2, or
        epoch / n_epochs; 1 from n_epochs on.
    """
    if epoch >= n_epochs:
        return 1.0
    if epoch == 0:
        return 0.0
    if curve == "linear":
        return epoch / n_epochs
    return 0.5 * math.tanh(sharpness * (epoch - 0.5 * n_epochs) / n_epochs) + 0.5


def kl_divergence(posterior: tuple[Tensor, Tensor], prior: tuple[Tensor, Tensor]) -> Tensor:
    """KL divergence of the posterior from the prior, KL[q || p], row by row.

    Parameters
    ----------
    posterior : tuple of two Tensors of shape (batch, time, n_modes)
        Mean and standard deviation of q(theta_t).
    prior : tuple of two Tensors of shape (batch, time, n_modes)
        Mean and standard deviation of p(theta_t+1 | theta_1..t), as the prior network gives them.

    Returns
    -------
    Tensor of shape (batch, time - 1)
        Sum over modes of KL[q(theta_t) || p(theta_t)] at t = 2, 3, ...
    """
    mean, std = (values[:, 1:] for values in posterior)
    prior_mean, prior_std = (values[:, :-1] for values in prior)
    ratio = (std / prior_std).square()
    shift = ((mean - prior_mean) / prior_std).square()
    return 0.5 * (ratio + shift - 1 - ratio.log()).sum(-1)


@dataclass(frozen=True)
class Annealing:
    """How the weight of the KL term rises; `n_epochs` = 0 for not at all."""

    curve: str = "tanh"
    sharpness: float = 10.0
    n_epochs: int = 0

    def factor(self, epoch: int) -> float:
        """Weight of the KL term.

        Parameters
        ----------
        epoch : int
            Epoch, from zero.

        Returns
        -------
        float
            Between 0 and 1.
        """
        return kl_annealing_factor(epoch, self.curve, self.sharpness, self.n_epochs)


@dataclass
class FreeEnergy:
    """The free energy as an objective for `skdyn.core.training.train`.

    Attributes
    ----------
    network : DyNeMoNetwork
        The network that is trained.
    loss_calc : {"mean", "sum"}
        Whether the terms are averaged or summed over the rows of a window.
    annealing : Annealing
        Weight of the KL term in each epoch.
    generator : torch.Generator
        Where theta and dropout are drawn from.
    loader : WindowLoader
        Reads the held-out windows.
    held_out : Windows
        What early stopping watches.
    rescue : bool
        Whether rows are rescued whose covariance has no Cholesky factor. It holds up a device other
        than the CPU; without it an epoch that needed it is not finite, and repeated with it.
    """

    network: DyNeMoNetwork
    loss_calc: str
    annealing: Annealing
    generator: torch.Generator
    loader: WindowLoader
    held_out: Windows
    rescue: bool = True

    def take_care(self) -> bool:
        """Rescue from now on what has no Cholesky factor.

        Returns
        -------
        bool
            Whether that is new.
        """
        before, self.rescue = self.rescue, True
        return not before

    def training_terms(self, batch: Tensor, epoch: int) -> dict[str, Tensor]:
        """Loss of one batch and its parts.

        Parameters
        ----------
        batch : Tensor of shape (batch, time, n_channels)
            Windows of one length.
        epoch : int
            Epoch, from zero, for the weight of the KL term.

        Returns
        -------
        dict of Tensor
            "loss" = "ll_loss" + "kl_factor" x "kl_loss", means over the windows of this process.
        """
        network, own = self.network, share(len(batch))
        batch, draws = batch[own.rows], Draws(self.generator, own)
        mean, std = network.posterior(batch, draws)
        theta = mean + std * draws.normal(mean)
        log_likelihood = mixture_log_likelihood(
            batch.flatten(0, 1),
            network.mixing(theta).flatten(0, 1),
            network.mode_means(),
            network.mode_covariances(),
            rescue=self.rescue,
        )
        kl = kl_divergence((mean, std), network.prior(theta, draws))
        per_window = 1 if self.loss_calc == "sum" else batch.shape[1]
        per_step = 1 if self.loss_calc == "sum" else max(1, kl.shape[1])
        ll_loss = -log_likelihood / (len(batch) * per_window)
        kl_loss = kl.sum() / (len(batch) * per_step)
        factor = self.annealing.factor(epoch)
        return {
            "loss": ll_loss + factor * kl_loss,
            "ll_loss": ll_loss,
            "kl_loss": kl_loss,
            "kl_factor": torch.tensor(factor, dtype=torch.float64),
        }

    def held_out_loss(self) -> float:
        """Free energy of the held-out windows in nats per row, theta at its posterior mean.

        Returns
        -------
        float
            Mean over rows, the KL term with its full weight; of several processes, what the windows
            of this one add to it.
        """
        windows, total = _own(self.held_out), 0.0
        for index in _large_batches(windows):
            _, bound = infer(self.network, self.loader(windows[index]), bound=True)
            total -= float(bound.sum())
        return total / int(self.held_out.length.sum())


@dataclass
class MixingLoss:
    """Distance of inferred from given mixing coefficients, as an objective for `train`.

    It is the cross-entropy -sum_j a_tj log softmax(E[theta_t] / temperature)_j, a mean over rows.

    Attributes
    ----------
    network : DyNeMoNetwork
        Whose inference network is trained.
    generator : torch.Generator
        Where dropout is drawn from.
    loader : WindowLoader
        Reads rows, each followed by its mixing coefficients.
    windows : Windows
        Which of them there are.
    """

    network: DyNeMoNetwork
    generator: torch.Generator
    loader: WindowLoader
    windows: Windows

    def training_terms(self, batch: Tensor, epoch: int) -> dict[str, Tensor]:
        """Loss of one batch.

        Parameters
        ----------
        batch : Tensor of shape (batch, time, n_channels + n_modes)
            Windows of rows and their mixing coefficients.
        epoch : int
            Not used.

        Returns
        -------
        dict of Tensor
            "loss" alone, the mean over the windows of this process.
        """
        own = share(len(batch))
        return {"loss": self._cross_entropy(batch[own.rows], Draws(self.generator, own))}

    def held_out_loss(self) -> float:
        """Mean over all windows.

        Returns
        -------
        float
            In nats per row; of several processes, what the windows of this one add to it.
        """
        windows, total = _own(self.windows), 0.0
        with torch.no_grad():
            for index in _large_batches(windows):
                part = windows[index]
                total += int(part.length.sum()) * float(self._cross_entropy(self.loader(part)))
        return total / int(self.windows.length.sum())

    def take_care(self) -> bool:
        """Do nothing: there is no more care to take.

        Returns
        -------
        bool
            False.
        """
        return False

    def _cross_entropy(self, batch: Tensor, draws: Draws | None = None) -> Tensor:
        data, mixing = batch.tensor_split([self.network.settings.n_channels], dim=-1)
        theta, _ = self.network.posterior(data, draws)
        # How sharp the softmax is, the likelihood shall say.
        logits = theta / self.network.temperature().detach()
        return -(mixing * logits.log_softmax(dim=-1)).sum(-1).mean()


@torch.no_grad()
def infer(network: DyNeMoNetwork, data: Tensor, *, bound: bool) -> tuple[Tensor, Tensor]:
    """Mixing coefficients of windows of data, and the evidence lower bound of each row.

    Parameters
    ----------
    network : DyNeMoNetwork
        A network in evaluation mode.
    data : Tensor of shape (batch, time, n_channels)
        Windows of one length.
    bound : bool
        Whether the bound is computed.

    Returns
    -------
    alpha : Tensor of shape (batch, time, n_modes)
        At the posterior mean of theta.
    bounds : Tensor of shape (batch, time)
        log p(x_t | theta_t) in double precision, less the KL divergence, which the first row of a
        window lacks; zeros if it is not computed.
    """
    theta, std = network.posterior(data)
    alpha = network.mixing(theta)
    if not bound:
        return alpha, alpha.new_zeros(alpha.shape[:2])
    means = network.mode_means()
    bounds = mixture_log_prob(
        data.flatten(0, 1).double(),
        alpha.flatten(0, 1).double(),
        None if means is None else means.double(),
        network.mode_covariances().double(),
    ).reshape(data.shape[:2])
    bounds[:, 1:] -= kl_divergence((theta, std), network.prior(theta))
    return alpha, bounds


def infer_sessions(
    network: DyNeMoNetwork, loader: WindowLoader, sequence_length: int, *, bound: bool
) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """Mixing coefficients of whole sessions, and the evidence lower bound of each row.

    Windows overlap by half and each answers for its middle, so that a row is inferred with at
    least a quarter of a window on both sides wherever the session has that much.

    Parameters
    ----------
    network : DyNeMoNetwork
        A network in evaluation mode.
    loader : WindowLoader
        Reads the sessions.
    sequence_length : int
        Rows of a window.
    bound : bool
        Whether the bound is computed.

    Returns
    -------
    alpha : list of ndarray of shape (n_rows, n_modes)
        One array per session.
    bounds : list of ndarray of shape (n_rows,) or None
        Evidence lower bound of each row in nats, for data scaled as the loader scales them. The
        first row of a session has no KL term.
    """
    n_rows = [len(session) for session in loader.sessions]
    windows = cut_windows(n_rows, sequence_length, max(1, sequence_length // 2))
    alphas: list = [None] * len(windows)
    bounds: list = [None] * len(windows)
    for index in _large_batches(windows):
        alpha, rows = infer(network, loader(windows[index]), bound=bound)
        for place, number in enumerate(index):
            alphas[number] = alpha[place].cpu().numpy()
            bounds[number] = rows[place].cpu().numpy()
    return stitch(windows, alphas, n_rows), stitch(windows, bounds, n_rows) if bound else None


def _own(windows: Windows) -> Windows:
    """Those that this process has to compute; there may be none."""
    own = share(len(windows))
    return windows[np.arange(len(windows))[own.rows][: own.n_counted]]


def _large_batches(windows: Windows) -> Iterator[np.ndarray]:
    return batches(windows, max(1, ROWS_AT_ONCE // int(windows.length.max(initial=1))))
