"""Posterior, mixing coefficients and evidence lower bounds of recordings, given a network.

The posterior of a session is one Gaussian process: its means and standard deviations come from
windows that overlap by half, and can be refined by gradient steps on the bound itself. A draw of
theta is one path through the session. The prior of a row depends on at most `sequence_length`
earlier rows of that path, as in training. Every number here is therefore a lower bound of the
log-evidence of the same model, whatever the length of a session.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skdyn.core.gaussian import mixture_log_likelihood, mixture_log_prob
from skdyn.core.recursion import Smoother
from skdyn.core.runtime import make_adam
from skdyn.core.windows import WindowLoader, Windows, cut_windows, stitch
from skdyn.dynemo.network import DyNeMoNetwork
from skdyn.dynemo.objective import gaussian_kl, kl_divergence, large_batches

# Learning rate of the refinement, which falls linearly to zero.
REFINEMENT_RATE = 0.1

# Names of the weights that are modes.
MODES = ("means", "covariance_vectors")

# Rows whose posterior is refined at a time (at least one session), and the stride of the rows whose
# likelihood a step computes, because neighbours are similar.
REFINED_AT_ONCE, STRIDE = 2**15, 2

# Most rows of a session that are refined as one.
LONGEST_REFINED = 2**17

# Rows whose densities are computed at a time; fewer if there are many channels.
ROWS_AT_ONCE, LEAST_AT_ONCE, NUMBERS_AT_ONCE = 2**14, 2**8, 2**24


@dataclass(frozen=True)
class Posterior:
    """Means of theta, and standard deviations given the row before.

    Attributes
    ----------
    mean, std : list of ndarray of shape (n_rows, n_modes)
        One array per session.
    """

    mean: list[np.ndarray]
    std: list[np.ndarray]


@torch.no_grad()
def encode(network: DyNeMoNetwork, loader: WindowLoader, sequence_length: int) -> Posterior:
    """Compute the posterior of whole sessions with the inference network.

    Windows overlap by half, and each provides the rows in its middle, so that at least a quarter of
    a window on either side of a row is used, unless the session ends.

    Parameters
    ----------
    network : DyNeMoNetwork
        A network in evaluation mode.
    loader : WindowLoader
        The sessions.
    sequence_length : int
        Rows of a window.

    Returns
    -------
    Posterior
        The posterior.
    """
    n_rows = loader.n_rows
    windows = cut_windows(n_rows, sequence_length, max(1, sequence_length // 2))
    found: list = [[None] * len(windows) for _ in range(2)]
    for index in large_batches(windows):
        batch = loader(windows[index])
        for values, parts in zip(
            network.posterior(batch.rows, lengths=batch.lengths), found, strict=True
        ):
            for place, number in enumerate(index):
                parts[number] = values[place, : windows.length[number]].cpu().numpy()
    return Posterior(*(stitch(windows, parts, n_rows) for parts in found))


@torch.no_grad()
def mixing(network: DyNeMoNetwork, posterior: Posterior) -> list[np.ndarray]:
    """Compute mixing coefficients at the posterior mean of theta.

    Parameters
    ----------
    network : DyNeMoNetwork
        The network.
    posterior : Posterior
        The posterior.

    Returns
    -------
    list of ndarray of shape (n_rows, n_modes)
        One array per session.
    """
    return [network.mixing(_tensor(mean, network)).cpu().numpy() for mean in posterior.mean]


@torch.no_grad()
def draw_mixing(
    network: DyNeMoNetwork,
    posterior: Posterior,
    random_state: np.random.RandomState,
    n_draws: int,
) -> list[np.ndarray]:
    """Draw mixing coefficients from the posterior; each draw is a path through a session.

    Parameters
    ----------
    network : DyNeMoNetwork
        The network.
    posterior : Posterior
        The posterior.
    random_state : numpy.random.RandomState
        Source of the draws.
    n_draws : int
        Number of draws.

    Returns
    -------
    list of ndarray of shape (n_draws, n_rows, n_modes)
        One array per session.
    """
    draws = [
        [
            network.mixing(_tensor(mean + deviation, network)).cpu().numpy()
            for mean, deviation in zip(posterior.mean, path, strict=True)
        ]
        for path in _paths(network, posterior, random_state, n_draws)
    ]
    return [np.stack(session) for session in zip(*draws, strict=True)]


# A prior: its mean and standard deviation one row later, as a function of (batch, time, n_modes).
Prior = Callable[[Tensor], tuple[Tensor, Tensor]]


def refine(
    network: DyNeMoNetwork,
    loader: WindowLoader,
    posterior: Posterior,
    sequence_length: int,
    n_steps: int,
    prior: Prior | None = None,
) -> Posterior:
    """Improve the posterior of each row by gradient steps on the evidence lower bound.

    Modes, prior and memory of the posterior are fixed. Random numbers are the same for each
    session, so that its result does not depend on the other sessions.

    Parameters
    ----------
    network : DyNeMoNetwork
        A network in evaluation mode.
    loader : WindowLoader
        The sessions.
    posterior : Posterior
        The start, for instance from `encode`.
    sequence_length : int
        Rows over which the prior is unrolled.
    n_steps : int
        Gradient steps.
    prior : callable, default=None
        The prior; None takes that of the network.

    Returns
    -------
    Posterior
        The posterior after the last step.
    """
    if n_steps == 0:
        return posterior
    mean: list[np.ndarray] = []
    std: list[np.ndarray] = []
    for group in groups_of([len(one) for one in posterior.mean]):
        part = Posterior(posterior.mean[group], posterior.std[group])
        some = WindowLoader(
            loader.sessions[group],
            loader.scale,
            loader.device,
            loader.center,
            None if loader.weights is None else loader.weights[group],
        )
        found = _refine_group(network, some, part, sequence_length, n_steps, prior)
        mean += found.mean
        std += found.std
    return Posterior(mean, std)


def _refine_group(network, loader, posterior, sequence_length, n_steps, prior) -> Posterior:
    """Refine some sessions together, or a long one in stretches that overlap."""
    n_rows = loader.n_rows
    if max(n_rows) <= LONGEST_REFINED:
        return Refinement(network, loader, posterior, sequence_length, prior).run(n_steps)
    # A row depends on the rows within a window, so it is taken from a stretch that has them.
    windows = cut_windows(n_rows, LONGEST_REFINED, max(1, LONGEST_REFINED - 4 * sequence_length))
    parts = []
    for start, length in zip(windows.start, windows.length, strict=True):
        rows = slice(start, start + length)
        some = WindowLoader(
            [loader.sessions[0][rows]],
            loader.scale,
            loader.device,
            loader.center,
            None if loader.weights is None else [loader.weights[0][rows]],
        )
        part = Posterior([posterior.mean[0][rows]], [posterior.std[0][rows]])
        parts.append(Refinement(network, some, part, sequence_length, prior).run(n_steps))
    return Posterior(
        stitch(windows, [one.mean[0] for one in parts], n_rows),
        stitch(windows, [one.std[0] for one in parts], n_rows),
    )


def groups_of(n_rows: Sequence[int]) -> Iterator[slice]:
    """Group the sessions that are refined together, so that memory does not grow with their number.

    Parameters
    ----------
    n_rows : sequence of int
        Rows of each session.

    Yields
    ------
    slice
        Numbers of sessions, of `REFINED_AT_ONCE` rows together at most, or one.
    """
    first, total = 0, 0
    for number, n in enumerate(n_rows):
        if total and total + n > REFINED_AT_ONCE:
            yield slice(first, number)
            first, total = number, 0
        total += n
    yield slice(first, len(n_rows))


class Refinement:
    """The posterior of some sessions as free parameters.

    Parameters
    ----------
    network : DyNeMoNetwork
        The network, whose modes and memory are used.
    loader : WindowLoader
        The sessions.
    posterior : Posterior
        The start.
    sequence_length : int
        Rows over which the prior is unrolled.
    prior : callable or None
        The prior; None takes that of the network.
    """

    def __init__(self, network, loader, posterior, sequence_length, prior):
        self.network, self.length = network, sequence_length
        self.prior = network.prior if prior is None else prior
        self.has_first_prior = prior is None
        self.n_rows = loader.n_rows
        windows = cut_windows(self.n_rows, max(self.n_rows), max(self.n_rows))
        batches = [loader(windows[np.array([i])]) for i in range(len(windows))]
        self.rows = torch.cat([batch.rows[0] for batch in batches])
        # Of each row within its session, so that no session depends on the others.
        self.position = torch.cat([torch.arange(n) for n in self.n_rows]).to(self.rows.device)
        self.weight = None
        if loader.weights is not None:
            self.weight = torch.cat([batch.weight[0] for batch in batches])
        self.mean = _tensor(np.concatenate(posterior.mean), network)
        self.log_std = _tensor(np.concatenate(posterior.std), network).log()
        with torch.no_grad():
            self.modes = network.mode_means(), network.mode_covariances()
            self.memory = network.memory()
        # Sessions side by side, each padded to the longest, and their rows among these.
        places, inside = (part.to(self.rows.device) for part in _tiles(self.n_rows, None, 0))
        self.padded, self.kept = places, inside.flatten().nonzero()[:, 0]
        decay = (-1 / network.log_smoothing.detach().exp()).exp()
        lengths = torch.tensor(self.n_rows, device=self.rows.device)
        self.smoother = Smoother(torch.cat([decay, decay]), places.shape[1], lengths)

    def run(self, n_steps: int, mode_rate: float = 0.0) -> Posterior:
        """Take gradient steps.

        Parameters
        ----------
        n_steps : int
            Number of steps.
        mode_rate : float, default=0.0
            Learning rate of the modes, with the schedule of the posterior's; 0 keeps them fixed.

        Returns
        -------
        Posterior
            The posterior after the last one.
        """
        shifts = torch.zeros_like(torch.cat([self.mean, self.log_std], dim=1)).requires_grad_()
        groups: list[dict[str, Any]] = [{"params": [shifts], "rate": REFINEMENT_RATE}]
        if mode_rate > 0:
            named = self.network.named_parameters()
            modes = [w for name, w in named if name in MODES and w.requires_grad]
            groups.append({"params": modes, "rate": mode_rate})
        optimizer = make_adam(groups, betas=(0.8, 0.95))
        weights = [weight for group in groups for weight in group["params"]]
        for step in range(n_steps):
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * (1 - step / n_steps)
            if mode_rate > 0:
                self.modes = self.network.mode_means(), self.network.mode_covariances()
            loss = -self._bound(np.random.RandomState(step), shifts, step % STRIDE)
            gradients = torch.autograd.grad(loss, weights)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            optimizer.step()
        with torch.no_grad():
            self.modes = self.network.mode_means(), self.network.mode_covariances()
        with torch.no_grad():
            self.mean, self.log_std = self._shifted(shifts)
        ends = np.cumsum(self.n_rows)[:-1]
        return Posterior(
            np.split(self.mean.cpu().numpy(), ends),
            np.split(self.log_std.exp().cpu().numpy(), ends),
        )

    def _shifted(self, shifts: Tensor) -> tuple[Tensor, Tensor]:
        """Means and logarithms of standard deviations, shifted by smoothed parameters.

        Separate parameters for each row would mostly follow the noise of the draws.
        """
        padded = _taken(shifts, self.padded)
        smoothed = self.smoother(padded).flatten(0, 1).index_select(0, self.kept)
        mean, log_std = smoothed.chunk(2, dim=1)
        return self.mean + mean, self.log_std + log_std

    @torch.no_grad()
    def bound(self, n_draws: int) -> float:
        """Evidence lower bound of all rows, without the KL terms at the start of windows.

        Parameters
        ----------
        n_draws : int
            Number of draws of theta.

        Returns
        -------
        float
            Sum over rows in nats, mean over draws.
        """
        rng = np.random.RandomState(1)
        draws = [self._bound(rng) for _ in range(n_draws)]
        return float(torch.stack(draws).mean())

    def _bound(
        self,
        rng: np.random.RandomState,
        shifts: Tensor | None = None,
        phase: int | None = None,
    ) -> Tensor:
        """Bound of a draw of theta, up to the KL terms between windows.

        With a phase, from the likelihoods of one row of `STRIDE`.
        """
        mean, log_std = self.mean, self.log_std
        if shifts is not None:
            mean, log_std = self._shifted(shifts)
        std = log_std.exp()
        offset = rng.randint(self.length)
        noise = rng.standard_normal((max(self.n_rows), mean.shape[1])).astype(np.float32)
        normal = torch.from_numpy(np.concatenate([noise[:n] for n in self.n_rows])).to(mean)
        places, inside = _tiles(self.n_rows, self.length, offset)
        places, inside = places.to(mean.device), inside.to(mean.device)
        mean, std = _taken(torch.cat([mean, std], dim=1), places).chunk(2, dim=2)
        deviation = self.network.deviation(std, _taken(normal, places))
        theta = mean + deviation
        kl = kl_divergence((mean, std), self.prior(theta), self.memory * deviation)
        counted = inside if self.weight is None else inside * self.weight[places]
        here = inside > 0
        if phase is not None:
            here &= self.position[places] % STRIDE == phase
        here = here.flatten().nonzero()[:, 0]
        log_likelihood = mixture_log_likelihood(
            self.rows[places.flatten()[here]],
            self.network.mixing(theta.flatten(0, 1).index_select(0, here)),
            *self.modes,
            None if self.weight is None else counted.flatten()[here],
        )
        share = 1 if phase is None else STRIDE
        bound = share * log_likelihood - (kl * counted[:, 1:]).sum()
        return bound - self._first_cost(mean[:, 0], std[:, 0], counted[:, 0], places[:, 0])

    def _first_cost(self, mean: Tensor, std: Tensor, counted: Tensor, places: Tensor) -> Tensor:
        """KL divergence of the first rows of sessions from the network's prior of them."""
        if not self.has_first_prior:
            return mean.new_zeros(())
        network = self.network
        wide = network.stationary_std(std)
        kl = gaussian_kl(mean, wide, network.first_mean, network.first_std)
        return (kl * counted * (self.position[places] == 0)).sum()


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """Rows at places, an array of any shape; the gradient is faster than that of an index."""
    return values.index_select(0, places.flatten()).unflatten(0, places.shape)


def _tiles(n_rows: Sequence[int], length: int | None, offset: int) -> tuple[Tensor, Tensor]:
    """Rows of windows that tile the sessions from an offset, and which of them are no padding."""
    length = max(n_rows) if length is None else length
    first, starts, sizes = 0, [], []
    for n in n_rows:
        edges = np.unique(np.clip(np.arange(offset - length, n + length, length), 0, n))
        starts.append(first + edges[:-1])
        sizes.append(np.diff(edges))
        first += n
    start, size = np.concatenate(starts), np.concatenate(sizes)
    steps = np.arange(size.max())
    inside = steps < size[:, None]
    places = np.minimum(start[:, None] + steps, start[:, None] + size[:, None] - 1)
    return torch.from_numpy(places), torch.from_numpy(inside.astype(np.float32))


@torch.no_grad()
def lower_bounds(
    network: DyNeMoNetwork,
    loader: WindowLoader,
    posterior: Posterior,
    sequence_length: int,
    random_state: np.random.RandomState,
    n_draws: int = 1,
) -> list[np.ndarray]:
    """Evidence lower bounds of rows, each of one draw of theta.

    Parameters
    ----------
    network : DyNeMoNetwork
        A network in evaluation mode.
    loader : WindowLoader
        The sessions.
    posterior : Posterior
        The distribution of theta.
    sequence_length : int
        Rows over which the prior is unrolled.
    random_state : numpy.random.RandomState
        Source of the draws.
    n_draws : int, default=1
        Number of draws.

    Returns
    -------
    list of ndarray of shape (n_draws, n_rows)
        log p(x_t | theta_t) - KL[q(theta_t | theta_t-1) || p(theta_t | theta_<t)] in nats, of data
        scaled as the loader scales them.
    """
    draws = [
        _bounds_of(network, loader, posterior, sequence_length, path, exact=False)
        for path in _paths(network, posterior, random_state, n_draws)
    ]
    return [np.stack(session) for session in zip(*draws, strict=True)]


@torch.no_grad()
def log_weights(
    network: DyNeMoNetwork,
    loader: WindowLoader,
    posterior: Posterior,
    sequence_length: int,
    random_state: np.random.RandomState,
    n_draws: int,
) -> list[np.ndarray]:
    """Logarithms of importance weights, row by row.

    Parameters
    ----------
    network, loader, posterior, sequence_length, random_state, n_draws
        As in `lower_bounds`.

    Returns
    -------
    list of ndarray of shape (n_draws, n_rows)
        log p(x_t, theta_t | theta_<t) - log q(theta_t | theta_t-1) at a draw of theta, of data
        scaled as the loader scales them.
    """
    draws = [
        _bounds_of(network, loader, posterior, sequence_length, path, exact=True)
        for path in _paths(network, posterior, random_state, n_draws)
    ]
    return [np.stack(session) for session in zip(*draws, strict=True)]


def over_draws(terms: list[np.ndarray], *, importance_weighted: bool) -> list[np.ndarray]:
    """Bounds of rows from those of several draws.

    Parameters
    ----------
    terms : list of ndarray of shape (n_draws, n_rows)
        From `lower_bounds`, or from `log_weights`.
    importance_weighted : bool
        Whether to return increments of the log of the mean importance weight, row by row, instead
        of means over draws.

    Returns
    -------
    list of ndarray of shape (n_rows,)
        One array per session.
    """
    if not importance_weighted:
        return [one.mean(axis=0) for one in terms]
    so_far = [
        np.logaddexp.reduce(np.cumsum(one, axis=1), axis=0) - np.log(len(one)) for one in terms
    ]
    return [np.diff(one, prepend=0.0) for one in so_far]


@torch.no_grad()
def bounds_at_mean(
    network: DyNeMoNetwork, loader: WindowLoader, posterior: Posterior, sequence_length: int
) -> list[np.ndarray]:
    """Compute the terms of the bound at the posterior mean of theta, as osl-dynamics does.

    This is no bound, because it uses log p(x | E theta) instead of E log p(x | theta).

    Parameters
    ----------
    network, loader, posterior, sequence_length
        As in `lower_bounds`.

    Returns
    -------
    list of ndarray of shape (n_rows,)
        Nats; the first row of a session has no KL term.
    """
    path = [np.zeros_like(mean) for mean in posterior.mean]
    return _bounds_of(network, loader, posterior, sequence_length, path, exact=False, first=False)


def _paths(network, posterior, random_state, n_draws) -> Iterator[list[np.ndarray]]:
    """Draws of the deviations of theta from its mean, one array per session.

    The random numbers are the same for each session, so that its bound does not depend on others.
    """
    lengths = np.array([len(std) for std in posterior.std])
    same_length = [np.flatnonzero(lengths == n) for n in np.unique(lengths)]
    n_modes = posterior.std[0].shape[1]
    for seed in random_state.randint(2**31 - 1, size=n_draws):
        noise = np.random.RandomState(seed).standard_normal((lengths.max(), n_modes))
        path: list[np.ndarray] = [np.empty(0)] * len(lengths)
        for group in same_length:
            std = _tensor(np.stack([posterior.std[i] for i in group]), network)
            deviation = network.deviation(std, _tensor(noise[: std.shape[1]], network))
            for i, one in zip(group, deviation.cpu().numpy(), strict=True):
                path[i] = one
        yield path


def _bounds_of(
    network, loader, posterior, sequence_length, path, *, exact: bool, first: bool = True
) -> list[np.ndarray]:
    """Terms of each row for one path; `exact` takes log q - log p, not its expectation."""
    n_rows = loader.n_rows
    deviation = _tensor(np.concatenate(path), network)
    mean, std = (_tensor(np.concatenate(x), network) for x in (posterior.mean, posterior.std))
    theta = mean + deviation
    prior_mean, prior_std = _prior_of_rows(network, theta, n_rows, sequence_length)
    expected = network.memory() * torch.cat([torch.zeros_like(deviation[:1]), deviation[:-1]])
    starts = np.cumsum([0, *n_rows[:-1]])
    std = std.clone()
    std[starts] = network.stationary_std(std[starts])
    expected[starts] = 0
    if exact:
        cost = _log_density(theta, mean + expected, std) - _log_density(
            theta, prior_mean, prior_std
        )
    else:
        cost = gaussian_kl(mean + expected, std, prior_mean, prior_std)
    if not first:
        cost[starts] = 0
    bounds = _log_prob(network, loader, network.mixing(theta)) - cost.double()
    return np.split(bounds.cpu().numpy(), starts[1:])


def _log_density(values: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return torch.distributions.Normal(mean, std, validate_args=False).log_prob(values).sum(-1)


def _log_prob(network: DyNeMoNetwork, loader: WindowLoader, alpha: Tensor) -> Tensor:
    """Log-density of each row, in double precision."""
    means, covariances = network.mode_means(), network.mode_covariances().double()
    parts, first = [], 0
    size = max(LEAST_AT_ONCE, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // covariances[0].numel()))
    for some in _stretches(loader.n_rows, size):
        batch = loader(some)
        rows = batch.rows.flatten(0, 1)
        if batch.lengths is not None:
            steps = torch.arange(batch.rows.shape[1], device=rows.device)
            rows = batch.rows[steps < batch.lengths[:, None]]
        parts.append(
            mixture_log_prob(
                rows.double(),
                alpha[first : first + len(rows)].double(),
                None if means is None else means.double(),
                covariances,
            )
        )
        first += len(rows)
    return torch.cat(parts)


def _stretches(n_rows: Sequence[int], size: int) -> Iterator[Windows]:
    """All rows once, in stretches of sessions; together at most so many rows, padding included."""
    spans = [
        (number, start, min(size, n - start))
        for number, n in enumerate(n_rows)
        for start in range(0, n, size)
    ]
    group, longest = [spans[0]], spans[0][2]
    for span in spans[1:]:
        longest = max(longest, span[2])
        if longest * (len(group) + 1) > size:
            yield Windows(*map(np.array, zip(*group, strict=True)))
            group, longest = [], span[2]
        group.append(span)
    yield Windows(*map(np.array, zip(*group, strict=True)))


def _prior_of_rows(
    network: DyNeMoNetwork, theta: Tensor, n_rows: Sequence[int], sequence_length: int
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the prior of each row, given the rows before it.

    The prior network restarts every half window, and provides the half window after the first.
    """
    half = max(1, sequence_length // 2)
    mean, std = torch.empty_like(theta), torch.empty_like(theta)
    origin = 0
    spans = []  # first row of input, first row of output, end
    for n in n_rows:
        mean[origin], std[origin] = network.first_mean, network.first_std
        edges = [0, *range(2 * half, n, half), n] if n > 2 * half else [0, n]
        for begin, end in itertools.pairwise(edges):
            spans.append((origin + max(0, begin - half), origin + max(1, begin), origin + end))
        origin += n
    spans = [span for span in spans if span[1] < span[2]]
    longest = max((end - seen for seen, _, end in spans), default=0)
    for some in _chunks(spans, max(1, 2**15 // max(1, longest))):
        size = max(end - seen for seen, _, end in some)
        seen = torch.tensor([span[0] for span in some], device=theta.device)
        places = (seen[:, None] + torch.arange(size, device=theta.device)).clamp_max(len(theta) - 1)
        found = network.prior(theta[places])
        begin, answered, end = (np.array(edge)[:, None] for edge in zip(*some, strict=True))
        rows = begin + 1 + np.arange(size)
        wanted = (rows >= answered) & (rows < end)
        into, where = (torch.from_numpy(x).to(theta.device) for x in (rows[wanted], wanted))
        mean[into], std[into] = (values[where] for values in found)
    return mean, std


def _chunks(items: list, size: int) -> Iterator[list]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _tensor(values: np.ndarray, network: DyNeMoNetwork) -> Tensor:
    weight = network.prior_mean.weight
    return torch.as_tensor(values, dtype=weight.dtype, device=weight.device)
