"""The evidence lower bound of DyNeMo, and the objectives of its training.

    log p(x) >= sum_t E log p(x_t | theta_t) - sum_t E KL[ q(theta_t | theta_t-1, x) ||
                                                           p(theta_t | theta_<t) ]

with theta drawn from q. The prior network's output at t is about theta at t + 1, so the first row
of a window has no KL term in training; that of a session has the prior N(first_mean, first_std^2),
see `skdyn.dynemo.inference`.

Reference: Gohil et al. (2022), NeuroImage 263, 119595.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from skdyn.core.distributed import Draws, share
from skdyn.core.gaussian import mixture_log_likelihood
from skdyn.core.runtime import is_host
from skdyn.core.windows import Batch, WindowLoader, Windows, batches
from skdyn.dynemo.network import DyNeMoNetwork

# Rows that go through the networks at once when nothing is trained.
ROWS_AT_ONCE = 2**13

# Standard deviation of the posterior to which the encoder is pretrained, and its weight in the loss
# relative to the mean.
PRETRAINED_STD = 0.3
STD_WEIGHT = 0.1


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


def gaussian_kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """KL divergence of one diagonal Gaussian from another, summed over the last axis.

    Parameters
    ----------
    mean, std : Tensor of shape (..., n)
        The first Gaussian.
    other_mean, other_std : Tensor of shape (..., n)
        The second one.

    Returns
    -------
    Tensor of shape (...)
        KL[N(mean, std^2) || N(other_mean, other_std^2)] in nats.
    """
    ratio = (std / other_std).square()
    shift = ((mean - other_mean) / other_std).square()
    return 0.5 * (ratio + shift - 1 - ratio.log()).sum(-1)


def kl_divergence(
    posterior: tuple[Tensor, Tensor], prior: tuple[Tensor, Tensor], expected: Tensor | None = None
) -> Tensor:
    """KL divergence of the posterior from the prior, row by row.

    Parameters
    ----------
    posterior : tuple of two Tensors of shape (batch, time, n_modes)
        Mean of q(theta_t), and its standard deviation given the row before.
    prior : tuple of two Tensors of shape (batch, time, n_modes)
        Mean and standard deviation of p(theta_t+1 | theta_1..t), as the prior network gives them.
    expected : Tensor of shape (batch, time, n_modes), default=None
        Deviation of theta_t+1 from its mean that the posterior expects after row t; None is zero.

    Returns
    -------
    Tensor of shape (batch, time - 1)
        Sum over modes of KL[q(theta_t | theta_t-1) || p(theta_t | theta_<t)] at t = 2, 3, ...
    """
    mean, std = (values[:, 1:] for values in posterior)
    if expected is not None:
        mean = mean + expected[:, :-1]
    return gaussian_kl(mean, std, *(values[:, :-1] for values in prior))


@dataclass(frozen=True)
class Annealing:
    """The schedule of the weight of the KL term; `n_epochs` = 0 means no annealing."""

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


ALL_ROWS = slice(None)


@dataclass(frozen=True)
class Thinning:
    """The rows whose likelihood is computed: one of `stride`, other ones in each step.

    Neighbours share most of their mixing, so that the gradient loses little, and the likelihood
    dominates a step with many channels. From the epoch `n_epochs` on, all rows count.
    """

    stride: int = 1
    n_epochs: int = 0

    def rows(self, epoch: int, step: int, n_before: int = 0) -> slice:
        """Rows of a step.

        Parameters
        ----------
        epoch, step : int
            Epoch, and step of the whole training.
        n_before : int, default=0
            Rows of the batch before the part of it that is thinned.

        Returns
        -------
        slice
            Of the rows of that part, all windows in a line.
        """
        if epoch >= self.n_epochs:
            return ALL_ROWS
        return slice((step - n_before) % self.stride, None, self.stride)


@dataclass
class FreeEnergy:
    """The negative evidence lower bound as an objective for `skdyn.core.training.train`.

    Attributes
    ----------
    network : DyNeMoNetwork
        The network that is trained.
    generator : torch.Generator
        Source of theta and dropout.
    loader : WindowLoader
        Reads the held-out windows.
    held_out : Windows
        Windows that early stopping watches.
    rows_per_window : float
        Mean sum of weights of a training window; losses are per row of that weight.
    annealing : Annealing
        Weight of the KL term in each epoch.
    thinning : Thinning
        Rows whose likelihood is computed.
    use_jitter : bool
        Whether covariances without a Cholesky factor are loaded, see `safe_cholesky`. The check
        slows devices other than the CPU down, so that it starts only after an epoch that was not
        finite, which is then repeated.
    """

    network: DyNeMoNetwork
    generator: torch.Generator
    loader: WindowLoader
    held_out: Windows
    rows_per_window: float
    annealing: Annealing = field(default_factory=Annealing)
    thinning: Thinning = field(default_factory=Thinning)
    use_jitter: bool = True
    n_steps: int = 0

    def begin_jitter(self) -> bool:
        """Load covariances that have no Cholesky factor from now on.

        Returns
        -------
        bool
            Whether this changes anything.
        """
        before, self.use_jitter = self.use_jitter, True
        return not before

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Loss of one batch and its parts.

        Parameters
        ----------
        batch : Batch
            Windows.
        epoch : int
            Epoch, from zero, for the weight of the KL term.

        Returns
        -------
        dict of Tensor
            "loss" = "ll_loss" + "kl_factor" x "kl_loss", means over the windows of this process.
        """
        own = share(len(batch))
        part, draws = batch.part(own.rows), Draws(self.generator, own)
        self.n_steps += 1
        # Every process takes rows by their place in the whole batch, so that sharing changes none.
        n_before = own.rows.start * batch.rows.shape[1]
        rows = self.thinning.rows(epoch, self.n_steps, n_before)
        log_likelihood, kl = self._terms(part, draws, rows)
        size = len(part) * self.rows_per_window
        ll_loss, kl_loss = -log_likelihood / size, kl / size
        factor = self.annealing.factor(epoch)
        return {
            "loss": ll_loss + factor * kl_loss,
            "ll_loss": ll_loss,
            "kl_loss": kl_loss,
            "kl_factor": torch.tensor(factor, dtype=torch.float64),
        }

    def _terms(self, batch: Batch, draws: Draws, rows: slice = ALL_ROWS) -> tuple[Tensor, Tensor]:
        """Log-likelihood and KL divergence of a draw of theta, summed over rows."""
        network = self.network
        in_training = draws if network.training else None
        mean, std = network.posterior(batch.rows, in_training, batch.lengths)
        deviation = network.deviation(std, draws.normal(mean))
        theta = mean + deviation
        log_likelihood = self._log_likelihood(batch, network.mixing(theta), rows)
        prior = network.prior(theta, in_training)
        kl = kl_divergence((mean, std), prior, network.memory() * deviation)
        if batch.weight is not None:
            kl = kl * batch.weight[:, 1:]
        return log_likelihood, kl.sum()

    def _log_likelihood(self, batch: Batch, alpha: Tensor, chosen: slice) -> Tensor:
        rows, alpha = batch.rows.flatten(0, 1)[chosen], alpha.flatten(0, 1)[chosen]
        weight = None if batch.weight is None else batch.weight.flatten()[chosen]
        if weight is not None and is_host(weight.device):
            counted = weight > 0
            rows, alpha, weight = rows[counted], alpha[counted], weight[counted]
        network = self.network
        total = mixture_log_likelihood(
            rows,
            alpha,
            network.mode_means(),
            network.mode_covariances(),
            weight,
            use_jitter=self.use_jitter,
        )
        return (chosen.step or 1) * total

    def held_out_loss(self) -> float:
        """Negative evidence lower bound of the held-out windows, the KL term with full weight.

        theta is drawn with the same random numbers each time, so that epochs can be compared.

        Returns
        -------
        float
            In nats per row; with several processes, the share of the windows of this one.
        """
        total = 0.0
        generator = torch.Generator(self.generator.device).manual_seed(0)
        with torch.no_grad():
            for index in large_batches(self.held_out):
                own = share(len(index))
                batch = self.loader(self.held_out[index[own.rows]])
                log_likelihood, kl = self._terms(batch, Draws(generator, own))
                total += float(kl - log_likelihood) * bool(own.n_counted)
        return total / self.loader.total_weight(self.held_out)


@dataclass
class EncoderPretraining:
    """Distance of the encoder's posterior from given logits, as an objective for `train`.

    It is the mean squared error of the posterior means, plus `STD_WEIGHT` times that of the
    logarithms of their standard deviations.

    Attributes
    ----------
    network : DyNeMoNetwork
        The network whose encoder is trained.
    generator : torch.Generator
        Source of dropout.
    loader : WindowLoader
        Reads rows, each followed by its logits.
    windows : Windows
        The windows.
    """

    network: DyNeMoNetwork
    generator: torch.Generator
    loader: WindowLoader
    windows: Windows

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Loss of one batch.

        Parameters
        ----------
        batch : Batch
            Windows of rows and their logits.
        epoch : int
            Not used.

        Returns
        -------
        dict of Tensor
            "loss" alone, the mean over the windows of this process.
        """
        own = share(len(batch))
        # The weight of a window is that of the whole batch, so that sharing it changes nothing.
        weight = None if batch.weight is None else batch.weight.sum() / len(batch)
        return {"loss": self._loss(batch.part(own.rows), Draws(self.generator, own), weight)}

    def held_out_loss(self) -> float:
        """Mean over all windows.

        Returns
        -------
        float
            With several processes, the share of the windows of this one.
        """
        windows, total = _own(self.windows), 0.0
        with torch.no_grad():
            for index in large_batches(windows):
                total += len(index) * float(self._loss(self.loader(windows[index])))
        return total / len(self.windows)

    def begin_jitter(self) -> bool:
        """Return False, because there is no more robust computation.

        Returns
        -------
        bool
            False.
        """
        return False

    def _loss(
        self, batch: Batch, draws: Draws | None = None, window_weight: Tensor | None = None
    ) -> Tensor:
        rows, logits = batch.rows.tensor_split([self.network.settings.n_channels], dim=-1)
        mean, std = self.network.posterior(rows, draws, batch.lengths)
        error = (mean - logits).square().mean(-1)
        error = error + STD_WEIGHT * (std / PRETRAINED_STD).log().square().mean(-1)
        if batch.weight is None:
            return error.mean()
        total = batch.weight.sum() if window_weight is None else window_weight * len(batch)
        return (error * batch.weight).sum() / total.clamp_min(1e-12)


class PriorPretraining(FreeEnergy):
    """The KL term alone with a fixed encoder, as an objective for `train`."""

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Loss of one batch; only the prior gets gradients.

        Parameters
        ----------
        batch : Batch
            Windows.
        epoch : int
            Not used.

        Returns
        -------
        dict of Tensor
            "loss" alone, the mean over the windows of this process.
        """
        own = share(len(batch))
        part, draws, network = batch.part(own.rows), Draws(self.generator, own), self.network
        with torch.no_grad():
            mean, std = network.posterior(part.rows, lengths=part.lengths)
            deviation = network.deviation(std, draws.normal(mean))
            expected = network.memory() * deviation
        kl = kl_divergence((mean, std), network.prior(mean + deviation, draws), expected)
        if part.weight is not None:
            kl = kl * part.weight[:, 1:]
        return {"loss": kl.sum() / (len(part) * self.rows_per_window)}


def _own(windows: Windows) -> Windows:
    """Those that this process has to compute; there may be none."""
    own = share(len(windows))
    return windows[np.arange(len(windows))[own.rows][: own.n_counted]]


def large_batches(windows: Windows) -> Iterator[np.ndarray]:
    """Batches of about `ROWS_AT_ONCE` rows, for computations without gradients.

    Parameters
    ----------
    windows : Windows
        The windows.

    Returns
    -------
    iterator of ndarray of int
        Indices of the windows of each batch.
    """
    return batches(windows, max(1, ROWS_AT_ONCE // int(windows.length.max(initial=1))))
