"""The network of DyNeMo: encoder, prior, mixing, modes.

    c_tj = evidence of row x_t for mode j
    x, c -> bidirectional RNN -> r_t, d_t, s_t
    m_t = smooth(r + A c)_t + d_t
    q(theta_t | theta_t-1, x) = N(m_t + phi (theta_t-1 - m_t-1), s_t^2)
    theta_<t -> RNN -> h_t, s'_t
    p(theta_t | theta_<t) = N(p theta_t-1 + h_t, s'_t^2)
    alpha_t = softmax(theta_t / temperature)
    x_t ~ N(sum_j alpha_tj mu_j, sum_j alpha_tj D_j)

The model is that of Gohil et al. (2022), "Mixtures of large-scale dynamic functional brain network
modes", NeuroImage 263, 119595, which has phi = p = 0, no c and no smoothing. A posterior with
independent rows pays a KL cost in every row for noise that a slow theta does not have. If modes
differ little, this cost exceeds their gain in likelihood, and training gives them up. Memory in the
posterior and in the prior makes the cost small. The evidence of a row for each mode, c, is a
quadratic form of all channels, which a small network does not learn from the row alone. The encoder
therefore receives it as an input: the derivative of the log-density towards the mode, see
`mode_scores`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from skdyn.core.distributed import Draws
from skdyn.core.gaussian import covariances_from_vectors, mode_scores, vectors_from_covariances
from skdyn.core.recurrent import RecurrentSettings, RecurrentStack, dropout, initialise_linear
from skdyn.core.recursion import first_order_filter, smooth
from skdyn.core.runtime import one_thread

# Scores of modes beyond this many standard deviations are compressed, so that no row dominates.
SCORE_SCALE = 3.0

# Added to every standard deviation of theta.
STD_EPSILON = 1e-6

# Starting values: the standard deviation of a row of theta given the one before, in the posterior
# and in the prior; the posterior's memory; the rows that it is smoothed over, on either side; the
# share of theta that the prior expects to stay.
STARTING_STD = 0.3
STARTING_MEMORY = 0.9
STARTING_SMOOTHING = 6.0
STARTING_PERSISTENCE = 0.95


@dataclass(frozen=True)
class NetworkSettings:
    """The settings of a DyNeMo network, named as in `DyNeMoEstimator`."""

    n_modes: int
    n_channels: int
    inference: RecurrentSettings
    model: RecurrentSettings
    learn_alpha_temperature: bool = True
    initial_alpha_temperature: float = 1.0
    learn_means: bool = False
    zero_means: bool = True
    learn_covariances: bool = True
    diagonal_covariances: bool = False
    covariances_epsilon: float = 1e-6


class DyNeMoNetwork(nn.Module):
    """The networks and modes of DyNeMo: all that has weights.

    Parameters
    ----------
    settings : NetworkSettings
        The settings.
    """

    def __init__(self, settings: NetworkSettings):
        super().__init__()
        self.settings = settings
        n_modes, n_channels = settings.n_modes, settings.n_channels
        n_inputs = n_channels + n_modes
        self.inference_rnn = RecurrentStack(n_inputs, settings.inference, bidirectional=True)
        self.smoothed_mean = nn.Linear(self.inference_rnn.n_outputs + n_modes, n_modes)
        self.posterior_mean = nn.Linear(self.inference_rnn.n_outputs, n_modes)
        self.posterior_std = nn.Linear(self.inference_rnn.n_outputs, n_modes)
        self.log_smoothing = nn.Parameter(torch.empty(n_modes))
        self.memory_logit = nn.Parameter(torch.empty(n_modes))
        self.model_rnn = RecurrentStack(n_modes, settings.model)
        self.prior_mean = nn.Linear(self.model_rnn.n_outputs, n_modes)
        self.prior_std = nn.Linear(self.model_rnn.n_outputs, n_modes)
        self.persistence = nn.Parameter(torch.empty(n_modes))
        # Of theta in the first row of a session: found at the end of training, not by gradient.
        self.first_mean = nn.Buffer(torch.empty(n_modes))
        self.first_std = nn.Buffer(torch.empty(n_modes))
        # The logarithm is trained, so that a temperature cannot reach zero.
        self.log_temperature = nn.Parameter(
            torch.empty(()), requires_grad=settings.learn_alpha_temperature
        )
        self.means = nn.Parameter(
            torch.empty(n_modes, n_channels), requires_grad=settings.learn_means
        )
        n_numbers = (
            n_channels if settings.diagonal_covariances else n_channels * (n_channels + 1) // 2
        )
        if settings.learn_covariances:
            self.covariance_vectors = nn.Parameter(torch.empty(n_modes, n_numbers))
        else:
            shape = (n_modes,) + (n_channels,) * (1 if settings.diagonal_covariances else 2)
            self.fixed_covariances = nn.Buffer(torch.empty(shape))

    def __getstate__(self) -> dict:
        # Plain arrays, which can be read without trusting or having types of torch.
        return {
            "settings": asdict(self.settings),
            "weights": {name: value.cpu().numpy() for name, value in self.state_dict().items()},
            "training": self.training,
        }

    def __setstate__(self, state: dict) -> None:
        weights = {name: np.asarray(array) for name, array in state["weights"].items()}
        settings = dict(state["settings"])
        for part in ("inference", "model"):
            settings[part] = RecurrentSettings(**settings[part])
            # Checked before a network is made, which has at least one array for each layer.
            if not 1 <= settings[part].n_layers <= len(weights):
                raise ValueError(
                    f"The network has {len(weights)} arrays of weights, but its settings have "
                    f"{settings[part].n_layers} layers."
                )
        with torch.device("meta"):  # which takes no memory, whatever the sizes
            network = DyNeMoNetwork(NetworkSettings(**settings)).float()
        given = {name: torch.tensor(one, device="cpu") for name, one in weights.items()}
        found, expected = _kinds(given), _kinds(network.state_dict())
        if found != expected:
            names = [name for name in {*found, *expected} if found.get(name) != expected.get(name)]
            raise ValueError(
                f"The weights {sorted(names)[:3]} of the network are not those of its settings."
            )
        network.load_state_dict(given, assign=True)
        self.__dict__.update(network.train(bool(state["training"])).__dict__)

    def check_attributes(self, attributes: dict) -> None:
        """Check that fitted attributes of an estimator are those of this network.

        Parameters
        ----------
        attributes : dict
            The attributes, by name.

        Raises
        ------
        ValueError
            If shapes differ.
        """
        sizes = self.settings.n_modes, self.settings.n_channels
        shapes = {
            "means_": sizes,
            "covariances_": (*sizes, sizes[1]),
            "channel_center_": sizes[1:],
            "channel_scale_": sizes[1:],
        }
        wrong = [name for name, shape in shapes.items() if np.shape(attributes[name]) != shape]
        wrong += ["n_features_in_"] * (attributes["n_features_in_"] != sizes[1])
        if wrong:
            raise ValueError(f"The attributes {wrong} do not fit the network.")

    def initialise(self, generator: torch.Generator, means: Tensor, covariances: Tensor) -> None:
        """Draw the weights of the networks anew and set the modes.

        Parameters
        ----------
        generator : torch.Generator
            Source of randomness.
        means : Tensor of shape (n_modes, n_channels)
            Mode means.
        covariances : Tensor of shape (n_modes, n_channels, n_channels) or (n_modes, n_channels)
            Mode covariances, or their diagonals.
        """
        self.inference_rnn.initialise(generator)
        self.model_rnn.initialise(generator)
        heads = self.smoothed_mean, self.posterior_std, self.prior_mean, self.prior_std
        for layer in heads:
            initialise_linear(layer, generator)
        with torch.no_grad():
            self.posterior_mean.weight.zero_()
            self.posterior_mean.bias.zero_()
            for layer in heads[1:]:
                layer.weight.mul_(0.1)
            for layer in (self.posterior_std, self.prior_std):
                layer.bias.fill_(math.log(math.expm1(STARTING_STD)))
            self.log_smoothing.fill_(math.log(STARTING_SMOOTHING))
            self.memory_logit.fill_(math.log(STARTING_MEMORY / (1 - STARTING_MEMORY)))
            self.persistence.fill_(STARTING_PERSISTENCE)
            self.first_mean.zero_()
            self.first_std.fill_(1.0)
            self.log_temperature.fill_(math.log(self.settings.initial_alpha_temperature))
            self.means.copy_(means)
            if self.settings.learn_covariances:
                epsilon = self.settings.covariances_epsilon
                self.covariance_vectors.copy_(vectors_from_covariances(covariances, epsilon))
            else:
                self.fixed_covariances.copy_(covariances)

    def posterior(
        self, data: Tensor, draws: Draws | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the mean of q(theta | x), and its standard deviation given the row before.

        Parameters
        ----------
        data : Tensor of shape (batch, time, n_channels)
            Windows.
        draws : Draws, default=None
            Source of dropout; without one nothing is dropped.
        lengths : Tensor of int of shape (batch,), default=None
            Number of rows of each window; those after them are padding.

        Returns
        -------
        mean, std : Tensor of shape (batch, time, n_modes)
            Of each logit.
        """
        with torch.no_grad():
            scores = mode_scores(data, self.mode_means(), self.mode_covariances())
        scores = SCORE_SCALE * (scores / SCORE_SCALE).asinh()
        inputs = torch.cat([data, scores], dim=-1)
        inputs = dropout(inputs, self.settings.inference.dropout, draws)
        hidden = self.inference_rnn(inputs, draws, lengths=lengths)
        decay = (-1 / self.log_smoothing.exp()).exp()
        smoothed = smooth(self.smoothed_mean(torch.cat([hidden, scores], -1)), decay, lengths)
        return smoothed + self.posterior_mean(hidden), _std(self.posterior_std(hidden))

    def memory(self) -> Tensor:
        """Share of a deviation of theta from its posterior mean that stays in the next row.

        Returns
        -------
        Tensor of shape (n_modes,)
            phi, between 0 and 1.
        """
        return torch.sigmoid(self.memory_logit)

    def deviation(self, std: Tensor, normal: Tensor) -> Tensor:
        """Draw the deviations of theta from their posterior mean.

        They are an autoregressive process of first order, stationary at the first row.

        Parameters
        ----------
        std : Tensor of shape (batch, time, n_modes)
            Standard deviation of each row given the one before.
        normal : Tensor of shape (batch, time, n_modes)
            Standard normal numbers.

        Returns
        -------
        Tensor of shape (batch, time, n_modes)
            theta - m.
        """
        first = self.stationary_std(std[:, :1])
        steps = torch.cat([first, std[:, 1:]], dim=1) * normal
        return first_order_filter(steps, self.memory())

    def stationary_std(self, std: Tensor) -> Tensor:
        """Standard deviation of theta in a row whose predecessor is not known.

        Parameters
        ----------
        std : Tensor of shape (..., n_modes)
            Standard deviation given the row before.

        Returns
        -------
        Tensor of shape (..., n_modes)
            That of a stationary autoregressive process of first order.
        """
        return std / (1 - self.memory().square()).sqrt()

    def prior(
        self,
        theta: Tensor,
        draws: Draws | None = None,
        state: list | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of p(theta_t+1 | theta_1..t) at every t.

        Parameters
        ----------
        theta : Tensor of shape (batch, time, n_modes)
            Logits.
        draws : Draws, default=None
            Source of dropout; without one nothing is dropped.
        state : list, default=None
            State of each recurrent layer, replaced in place, to continue step by step.

        Returns
        -------
        mean, std : Tensor of shape (batch, time, n_modes)
            Of each logit one step later.
        """
        inputs = dropout(theta, self.settings.model.dropout, draws)
        hidden = self.model_rnn(inputs, draws, state)
        mean = self.persistence * theta + self.prior_mean(hidden)
        return mean, _std(self.prior_std(hidden))

    def temperature(self) -> Tensor:
        """The temperature of the softmax.

        Returns
        -------
        Tensor of shape ()
            A positive number.
        """
        return self.log_temperature.exp()

    def mixing(self, theta: Tensor) -> Tensor:
        """Mixing coefficients from logits.

        Parameters
        ----------
        theta : Tensor of shape (..., n_modes)
            Logits.

        Returns
        -------
        Tensor of shape (..., n_modes)
            alpha = softmax(theta / temperature).
        """
        return torch.softmax(theta / self.temperature(), dim=-1)

    def mode_means(self) -> Tensor | None:
        """Means of the modes.

        Returns
        -------
        Tensor of shape (n_modes, n_channels) or None
            None if they are fixed at zero.
        """
        return None if self.settings.zero_means else self.means

    def mode_covariances(self) -> Tensor:
        """Covariances of the modes.

        Returns
        -------
        Tensor of shape (n_modes, n_channels, n_channels) or (n_modes, n_channels)
            Matrices, or their diagonals with diagonal_covariances.
        """
        settings = self.settings
        if not settings.learn_covariances:
            return self.fixed_covariances
        return covariances_from_vectors(
            self.covariance_vectors,
            settings.n_channels,
            settings.covariances_epsilon,
            diagonal=settings.diagonal_covariances,
        )


def _kinds(weights: dict[str, Tensor]) -> dict[str, tuple]:
    """Shapes of weights by name, and whether they are floats."""
    return {name: (*one.shape, one.is_floating_point()) for name, one in weights.items()}


def _std(raw: Tensor) -> Tensor:
    return functional.softplus(raw) + STD_EPSILON


def empty_network(settings: NetworkSettings, device: torch.device) -> DyNeMoNetwork:
    """Make a network without setting its weights.

    torch's layers draw from the global generator when they are made. Made without storage, they
    draw nothing.

    Parameters
    ----------
    settings : NetworkSettings
        The settings.
    device : torch.device
        The device of its weights.

    Returns
    -------
    DyNeMoNetwork
        To be given weights by `initialise` or `load_state_dict`.
    """
    with torch.device("meta"):
        network = DyNeMoNetwork(settings)
    # Single precision, whatever torch's default number type is set to.
    return network.float().to_empty(device=device)


@torch.no_grad()
def modes_of(
    network: DyNeMoNetwork, center: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Means and full covariances of the modes, in double precision and in the units of the data.

    Parameters
    ----------
    network : DyNeMoNetwork
        The network.
    center, scale : ndarray of shape (n_channels,)
        Shift and scale of the data that enter it.

    Returns
    -------
    means : ndarray of shape (n_modes, n_channels)
        Zero where the network has none.
    covariances : ndarray of shape (n_modes, n_channels, n_channels)
        Matrices.
    """
    with one_thread():  # threads of a process that was forked would wait for ever
        network = copy.deepcopy(network).double().requires_grad_(False)
        tensor = network.mode_covariances()
        tensor = torch.diag_embed(tensor) if tensor.ndim == 2 else tensor
    means = np.zeros(network.means.shape)
    if network.mode_means() is not None:
        means = network.means.numpy() * scale + center
    return means, tensor.numpy() * np.outer(scale, scale)


@torch.no_grad()
def sample_logits(
    network: DyNeMoNetwork, n_samples: int, n_discarded: int, generator: torch.Generator
) -> Tensor:
    """Draw theta from the prior, one step after the other.

    Parameters
    ----------
    network : DyNeMoNetwork
        A network in evaluation mode.
    n_samples : int
        Number of rows.
    n_discarded : int
        Rows drawn before them, so that the first one is forgotten.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    Tensor of shape (n_samples, n_modes)
        theta_t ~ p(theta_t | theta_<t).
    """
    n_steps = n_discarded + n_samples
    weight = network.prior_mean.weight
    noise = torch.randn(n_steps, network.settings.n_modes, generator=generator, dtype=weight.dtype)
    state: list = [None] * network.settings.model.n_layers
    theta, mean, std = [], network.first_mean[None, None], network.first_std[None, None]
    for step in noise:
        theta.append(mean + std * step)
        mean, std = network.prior(theta[-1], state=state)
    return torch.cat(theta, dim=1)[0, n_discarded:]
