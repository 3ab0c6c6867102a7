"""Starts of the training: modes and mixing coefficients.

A method finds a `Start` from pieces of a recording. With several methods, each is fitted to most of
the pieces, and the one with the highest evidence lower bound on the others is taken. For the bound,
the modes are fixed, and the posterior of the held-out rows is refined under an autoregressive prior
of first order, the same for every method. That prior is smooth, so that a hidden Markov model whose
bound is nearly as high is taken if its exact log-likelihood is higher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from scipy.ndimage import uniform_filter1d
from scipy.sparse.linalg import ArpackError
from scipy.stats import truncnorm
from torch import Tensor

from skdyn.core.hmm import HMM, fit_hmm, log_likelihood, posteriors, sticky_transition
from skdyn.core.windows import WindowLoader, cut_windows, disjoint, gaps
from skdyn.dynemo.inference import Posterior, Refinement
from skdyn.dynemo.moments import Moments, mixing_from_moments, modes_from_moments
from skdyn.dynemo.network import (
    STARTING_MEMORY,
    STARTING_STD,
    DyNeMoNetwork,
    NetworkSettings,
    empty_network,
)
from skdyn.dynemo.settings import FitSettings

# Spread of the starting values, from osl-dynamics: normal, cut off at two standard deviations.
VARIANCE_SPREAD = 0.1
DIAGONAL_VARIANCE_SPREAD = 0.05
MEAN_SPREAD = 0.02

# Fewer rows do not determine modes.
MIN_ROWS_PER_MODE = 10

# One of this many pieces is held out to compare starts; sessions from which on these are whole
# sessions, unless that leaves less than half of the rows; and the largest number of held-out rows.
HELD_OUT_SHARE, MIN_SESSIONS, MAX_HELD_OUT = 5, 3, 4096

# Rounds of refinement and of fitting the autoregressive prior; gradient steps of each, more if
# bounds differ by less than DECISIVE nats per row; draws for the comparison; rows on which the
# modes of a start are improved, and their learning rate.
N_ROUNDS, STEPS_PER_ROUND, DECISIVE, N_DRAWS = 3, (10, 20), 0.02, 4
MAX_POLISHED, MODE_RATE = 4096, 0.02

# Nats per row by which bounds of starts may mislead: chains had .12 less from their own states than
# from soft modes, and .04 more after training.
COARSE = 0.15

# A longer recording is represented by stretches that are spread over it.
MAX_ROWS = 2**17
STRETCH = 2**10

# Iterations of expectation maximisation for a comparison, and for the chosen start.
N_ITERATIONS, MAX_ITERATIONS = 25, 100

# Smallest mixing coefficient of a pretrained encoder, and the longest smoothing of states.
SMALLEST_MIXING = 0.02
LONGEST_SMOOTHING = 25


@dataclass(frozen=True)
class Start:
    """Modes and their mixing coefficients.

    Attributes
    ----------
    name : str
        The method.
    means, covariances : ndarray or None
        The modes, scaled as the data are; None if they are zero or not known.
    mixing : list of ndarray of shape (n_rows, n_modes) or None
        Mixing coefficients of each piece; None if they are not known.
    bound : float
        Evidence lower bound of the held-out rows, in nats per row; NaN if it was not computed.
    others : dict of float
        Bounds of the methods that were not chosen.
    is_polished : bool
        Whether the modes were improved by gradient steps.
    """

    name: str
    means: np.ndarray | None = None
    covariances: np.ndarray | None = None
    mixing: list[np.ndarray] | None = None
    bound: float = np.nan
    others: dict[str, float] = field(default_factory=dict)
    is_polished: bool = False


@dataclass(frozen=True)
class Pieces:
    """Stretches of a recording without rows of weight zero, scaled.

    Attributes
    ----------
    rows : list of ndarray of shape (n_rows, n_channels)
        In single precision.
    session : list of int
        The session of each.
    """

    rows: list[np.ndarray]
    session: list[int]

    @property
    def n_rows(self) -> list[int]:
        """Number of rows of each piece."""
        return [len(rows) for rows in self.rows]


def read_pieces(loader: WindowLoader) -> Pieces:
    """Read the rows of a recording or, if it is long, stretches spread evenly over it.

    Parameters
    ----------
    loader : WindowLoader
        The recording.

    Returns
    -------
    Pieces
        Together at most about `MAX_ROWS` rows.
    """
    spans = [span for number in range(len(loader.sessions)) for span in _spans(loader, number)]
    n_rows = sum(stop - start for _, start, stop in spans)
    if n_rows > MAX_ROWS:
        spans = [
            (number, first, min(first + STRETCH, stop))
            for number, start, stop in spans
            for first in range(start, stop, STRETCH)
        ]
        n_kept = max(1, len(spans) * MAX_ROWS // n_rows)
        spans = [spans[i] for i in spread_over(len(spans), n_kept)]
    rows = [loader.scaled(number, slice(start, stop)) for number, start, stop in spans]
    return Pieces(rows, [number for number, _, _ in spans])


def _spans(loader: WindowLoader, number: int) -> list[tuple[int, int, int]]:
    """Runs of rows of a session whose weight is not zero."""
    if loader.weights is None:
        return [(number, 0, len(loader.sessions[number]))]
    counted = np.concatenate([[False], loader.weights[number] > 0, [False]])
    edges = np.flatnonzero(counted[1:] != counted[:-1])
    return [(number, int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def find_start(settings: FitSettings, pieces: Pieces, random_state: np.random.RandomState) -> Start:
    """Find modes and their mixing by the method of some settings.

    Parameters
    ----------
    settings : FitSettings
        The settings of the fit.
    pieces : Pieces
        The recording.
    random_state : numpy.random.RandomState
        Source of randomness; those of the default methods are always the same.

    Returns
    -------
    Start
        The start. Its mixing is None for "random" and "random_subset", and if a recording has
        fewer than ten rows per mode or does not change.
    """
    method = settings.init_method
    if method not in METHODS and method != "auto":
        return draw(settings, random_state)
    if sum(pieces.n_rows) < MIN_ROWS_PER_MODE * settings.network.n_modes:
        return draw(settings, random_state)
    names = [method] if method != "auto" else list(METHODS)
    if not settings.is_open:
        names = ["moments"]  # only the mixing is left to be found
    found = _compare(settings, pieces, names)
    if found is None:
        return draw(settings, random_state)
    return found


def _compare(settings: FitSettings, pieces: Pieces, names: Sequence[str]) -> Start | None:
    """The best start of some methods, or None if none is found."""
    kept, held_out = _hold_out(pieces, settings.sequence_length)
    if held_out is None or (len(names) == 1 and not settings.is_open):
        kept, held_out = pieces, None
    found = []
    for name in names if held_out is not None else names[:1]:
        # No eigenvectors, or points that are all equal: the method finds no start.
        with suppress(ArpackError, np.linalg.LinAlgError):
            found.append(METHODS[name](settings, kept))
    if not found:
        return None
    if held_out is None:
        return replace(found[0].start, mixing=found[0].mix(pieces))
    for n_steps in STEPS_PER_ROUND:
        starts = [_judged(settings, one, kept, held_out, n_steps) for one in found]
        order = sorted(range(len(starts)), key=lambda place: -starts[place].bound)
        bounds = [starts[place].bound for place in order]
        if len(bounds) < 2 or bounds[0] - bounds[1] > DECISIVE:
            break
    order.sort(key=lambda place: not _is_near(found[place], starts[place], bounds[0], held_out))
    others = {starts[place].name: starts[place].bound for place in order[1:]}
    taken = starts[order[0]]
    best = found[order[0]].again(pieces)
    start = best.start
    if taken.is_polished:
        start, _ = polish(settings, start, pieces, best.mix, n_steps)
    return replace(start, bound=taken.bound, mixing=best.mix(pieces), others=others)


def _is_near(found: Found, start: Start, best: float, held_out: Pieces) -> bool:
    """Whether a start may be better than the best one, as far as bounds of starts can say.

    Their smooth priors cost hard states most, and training closes that gap: the exact likelihood
    shows whether there is one.
    """
    if found.log_likelihood is None or best - start.bound > COARSE:
        return False
    return found.log_likelihood(held_out) > best


def _judged(
    settings: FitSettings, found: Found, kept: Pieces, held_out: Pieces, n_steps: int
) -> Start:
    """Compute the bound of a start on the held-out rows, with polished modes if that is higher."""
    variants = []
    for n_polished in (0, n_steps):
        start, prior = polish(settings, found.start, kept, found.mix, n_polished)
        bound = judge(settings, start, held_out, found.mix, prior, n_steps)
        variants.append(replace(start, bound=bound if np.isfinite(bound) else -np.inf))
    return max(variants, key=lambda one: one.bound)


def _hold_out(pieces: Pieces, length: int) -> tuple[Pieces, Pieces | None]:
    """Most pieces, and some that are held out: whole sessions if there are enough of them."""
    sessions = sorted(set(pieces.session))
    held_sessions = set(sessions[::-HELD_OUT_SHARE])
    is_held = [number in held_sessions for number in pieces.session]
    kept = _select(pieces, [not held for held in is_held])
    if len(sessions) >= MIN_SESSIONS and 2 * sum(kept.n_rows) >= sum(pieces.n_rows):
        return kept, _shortened(_select(pieces, is_held), length, MAX_HELD_OUT)
    windows = cut_windows(pieces.n_rows, length, length)
    candidates = np.flatnonzero(disjoint(windows))[HELD_OUT_SHARE - 1 :: HELD_OUT_SHARE]
    if len(candidates) == 0:
        return pieces, None
    n_taken = max(1, MAX_HELD_OUT // length)
    held = windows[candidates[spread_over(len(candidates), n_taken)]]
    return _cut(pieces, gaps(held, pieces.n_rows)), _cut(pieces, held)


def _select(pieces: Pieces, chosen: Sequence[bool]) -> Pieces:
    rows = [one for one, is_chosen in zip(pieces.rows, chosen, strict=True) if is_chosen]
    session = [one for one, is_chosen in zip(pieces.session, chosen, strict=True) if is_chosen]
    return Pieces(rows, session)


def _cut(pieces: Pieces, windows) -> Pieces:
    places = zip(windows.session, windows.start, windows.length, strict=True)
    rows = [pieces.rows[number][start : start + n] for number, start, n in places]
    return Pieces(rows, [pieces.session[number] for number in windows.session])


def _shortened(pieces: Pieces, length: int, n_rows: int) -> Pieces:
    """At most about so many rows, in windows spread over the pieces."""
    if sum(pieces.n_rows) <= n_rows:
        return pieces
    windows = cut_windows(pieces.n_rows, length, length)
    return _cut(pieces, windows[spread_over(len(windows), max(1, n_rows // length))])


def spread_over(n_all: int, n_taken: int) -> np.ndarray:
    """Choose some of the numbers below `n_all` at even distances, with the first and the last.

    Parameters
    ----------
    n_all : int
        How many there are.
    n_taken : int
        How many are chosen, at most.

    Returns
    -------
    ndarray of int
        The numbers, in rising order.
    """
    return np.unique(np.linspace(0, n_all - 1, min(n_taken, n_all)).round().astype(int))


# ------------------------------------------------------------------------------------ methods

# The mixing of pieces, given the modes of a start.
Mix = Callable[[Pieces], list[np.ndarray]]


@dataclass(frozen=True)
class Found:
    """The result of a method on some pieces.

    Attributes
    ----------
    start : Start
        The modes.
    mix : callable
        The mixing of pieces, given these modes.
    again : callable
        The same method on other pieces; it continues from this result.
    log_likelihood : callable or None
        The exact log-likelihood of pieces, in nats per row, of a model that has one.
    """

    start: Start
    mix: Mix
    again: Callable[[Pieces], Found]
    log_likelihood: Callable[[Pieces], float] | None = None


def _moments(settings: FitSettings, pieces: Pieces) -> Moments:
    network = settings.network
    return Moments(
        pieces.rows,
        means=not network.zero_means,
        covariances=network.learn_covariances or settings.covariances is not None,
        diagonal=network.diagonal_covariances,
    )


def from_moments(settings: FitSettings, pieces: Pieces) -> Found:
    """Modes at the vertices of the simplex in which the moments of short windows lie.

    Parameters
    ----------
    settings : FitSettings
        The settings of the fit; modes that are given are kept.
    pieces : Pieces
        The recording.

    Returns
    -------
    Found
        The modes.
    """
    means, covariances = settings.means, settings.covariances
    if settings.is_open:
        given = means, covariances
        moments = _moments(settings, pieces)
        means, covariances = modes_from_moments(moments, settings.network.n_modes, given)

    def mix(some: Pieces) -> list[np.ndarray]:
        return mixing_from_moments(_moments(settings, some), means, covariances)

    return Found(Start("moments", means, covariances), mix, partial(from_moments, settings))


def from_hmm(settings: FitSettings, pieces: Pieces, begin: HMM | None = None) -> Found:
    """States of a hidden Markov model, found by expectation maximisation.

    Parameters
    ----------
    settings : FitSettings
        The settings of the fit; modes that are given are kept.
    pieces : Pieces
        The recording.
    begin : HMM, default=None
        A model to continue from until convergence. None starts from several random models and from
        the modes of `from_moments`, and takes the most likely result.

    Returns
    -------
    Found
        The modes. Their mixing is the probabilities of the states, smoothed over a quarter of a
        visit.
    """
    network = settings.network
    fit = partial(
        fit_hmm,
        pieces.rows,
        network.n_modes,
        learn_means=network.learn_means,
        learn_covariances=network.learn_covariances,
        means=settings.means,
        covariances=settings.covariances,
        diagonal=network.diagonal_covariances,
        epsilon=max(network.covariances_epsilon, 1e-6),
    )
    if begin is not None:
        hmm = fit(n_iter=MAX_ITERATIONS, begin=begin).hmm
    else:
        found = [fit(n_iter=N_ITERATIONS, random_state=np.random.RandomState(0))]
        with suppress(ArpackError, np.linalg.LinAlgError):
            found.append(fit(n_iter=N_ITERATIONS, begin=_chain_of(settings, pieces)))
        hmm = max(found, key=lambda one: one.log_likelihood).hmm
    visit = 1 / max(1e-3, 1 - float(np.mean(np.diag(hmm.transition))))
    size = int(np.clip(visit / 4, 1, LONGEST_SMOOTHING))

    def mix(some: Pieces) -> list[np.ndarray]:
        return [
            uniform_filter1d(one, size, axis=0, mode="nearest")
            for one in posteriors(some.rows, hmm)
        ]

    means = None if network.zero_means else hmm.means
    covariances = _covariances_of(hmm, settings)
    again = partial(from_hmm, settings, begin=hmm)

    def of_rows(some: Pieces) -> float:
        return log_likelihood(some.rows, hmm)

    return Found(Start("hmm", means, covariances), mix, again, of_rows)


def _chain_of(settings: FitSettings, pieces: Pieces) -> HMM:
    """A chain whose states are the modes of `from_moments`, each of which stays for long."""
    network, start = settings.network, from_moments(settings, pieces).start
    n_modes, shape = network.n_modes, (network.n_modes, network.n_channels)
    means, covariances = start.means, start.covariances
    if covariances is None:
        covariances = np.ones(shape)
        if not network.diagonal_covariances:
            covariances = covariances[:, :, None] * np.eye(network.n_channels)
    return HMM(
        np.full(n_modes, 1 / n_modes),
        sticky_transition(n_modes),
        np.zeros(shape) if means is None else means,
        covariances,
    )


def _covariances_of(hmm: HMM, settings: FitSettings) -> np.ndarray | None:
    if not settings.network.learn_covariances and settings.covariances is None:
        return None
    return hmm.covariances


METHODS: dict[str, Callable[[FitSettings, Pieces], Found]] = {
    "moments": from_moments,
    "hmm": from_hmm,
}


def draw(settings: FitSettings, random_state: np.random.RandomState) -> Start:
    """Draw modes: means near zero and diagonal covariances near one, if they are learned.

    Parameters
    ----------
    settings : FitSettings
        The settings of the fit; modes that are given are kept.
    random_state : numpy.random.RandomState
        Source of randomness.

    Returns
    -------
    Start
        Modes without mixing.
    """
    means, covariances = _random_modes(settings.network, random_state)
    return Start(
        "random",
        means if settings.means is None else settings.means,
        covariances if settings.covariances is None else settings.covariances,
    )


def _random_modes(
    settings: NetworkSettings, random_state: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    shape = (settings.n_modes, settings.n_channels)
    means, variances = np.zeros(shape), np.ones(shape)
    if settings.learn_means:
        means = _truncated_normal(0.0, MEAN_SPREAD, shape, random_state)
    if settings.learn_covariances:
        diagonal = settings.diagonal_covariances
        spread = DIAGONAL_VARIANCE_SPREAD if diagonal else VARIANCE_SPREAD
        variances = _truncated_normal(1.0, spread, shape, random_state)
    if settings.diagonal_covariances:
        return means, variances
    return means, variances[:, :, None] * np.eye(settings.n_channels)


def _truncated_normal(mean, spread, shape, random_state) -> np.ndarray:
    return truncnorm.rvs(-2, 2, loc=mean, scale=spread, size=shape, random_state=random_state)


def set_modes(network: DyNeMoNetwork, start: Start, generator: torch.Generator) -> None:
    """Draw the weights of the networks, and set the modes to those of a start.

    Parameters
    ----------
    network : DyNeMoNetwork
        The network, whose weights are overwritten.
    start : Start
        The modes. Missing means are zero, and missing covariances the identity.
    generator : torch.Generator
        Source of the weights.
    """
    settings = network.settings
    means, covariances = start.means, start.covariances
    if means is None:
        means = np.zeros((settings.n_modes, settings.n_channels))
    if covariances is None:
        covariances = np.ones((settings.n_modes, settings.n_channels))
        if not settings.diagonal_covariances:
            covariances = covariances[:, :, None] * np.eye(settings.n_channels)
    device = network.means.device
    network.initialise(
        generator,
        *(torch.as_tensor(x, dtype=torch.float64, device=device) for x in (means, covariances)),
    )


def logits_of(mixing: np.ndarray, temperature: float) -> np.ndarray:
    """Logits of mixing coefficients, of mean zero over modes.

    Parameters
    ----------
    mixing : ndarray of shape (n_rows, n_modes)
        Mixing coefficients; those below `SMALLEST_MIXING` are raised to it.
    temperature : float
        The temperature of the softmax.

    Returns
    -------
    ndarray of shape (n_rows, n_modes)
        In single precision.
    """
    logits = np.log(np.maximum(mixing, min(SMALLEST_MIXING, 0.5 / mixing.shape[1])))
    logits -= logits.mean(axis=1, keepdims=True)
    return (temperature * logits).astype(np.float32)


# ---------------------------------------------------------------------------------- comparison


@dataclass
class AutoregressivePrior:
    """theta_t ~ N(level + share (theta_t-1 - level), std^2), one of each per mode."""

    level: Tensor
    share: Tensor
    std: Tensor

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation one row later."""
        mean = self.level + self.share * (theta - self.level)
        return mean, self.std.expand_as(theta)


def fit_autoregressive(posterior: Posterior, memory: float) -> AutoregressivePrior:
    """The autoregressive prior that is nearest to a posterior.

    Parameters
    ----------
    posterior : Posterior
        The posterior.
    memory : float
        Its memory, see `DyNeMoNetwork.memory`.

    Returns
    -------
    AutoregressivePrior
        The least squares fit of each row to the one before, over draws of theta.
    """
    mean = np.concatenate(posterior.mean)
    variance = np.mean(np.concatenate(posterior.std) ** 2, axis=0) / (1 - memory**2)
    level = mean.mean(axis=0)
    pairs = [(one[:-1] - level, one[1:] - level) for one in posterior.mean]
    if max(map(len, posterior.mean)) == 1:  # no row follows another one
        pairs = [(one - level, one - level) for one in posterior.mean]
    before, after = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    power = np.mean(before**2, axis=0) + variance
    product = np.mean(before * after, axis=0) + memory * variance
    share = np.clip(product / power, 0.0, 1.0)
    later = np.mean(after**2, axis=0) + variance
    left = later - 2 * share * product + share**2 * power
    return AutoregressivePrior(
        *(
            torch.as_tensor(x, dtype=torch.float32)
            for x in (level, share, np.sqrt(np.maximum(left, 1e-6)))
        )
    )


def polish(
    settings: FitSettings, start: Start, pieces: Pieces, mix: Mix, n_steps: int
) -> tuple[Start, AutoregressivePrior]:
    """Improve modes together with the posterior of some rows.

    Parameters
    ----------
    settings : FitSettings
        The settings of the fit.
    start : Start
        The modes.
    pieces : Pieces
        The recording.
    mix : callable
        The mixing of pieces, at which their posterior starts.
    n_steps : int
        Gradient steps of a round; 0 leaves the modes as they are.

    Returns
    -------
    start : Start
        The improved modes; those that are not learned are unchanged.
    prior : AutoregressivePrior
        The prior that fits them.
    """
    some = _shortened(pieces, settings.sequence_length, MAX_POLISHED)
    network, posterior, loader = _free_posterior(settings, start, some, mix)
    for _ in range(N_ROUNDS if n_steps else 0):
        prior = fit_autoregressive(posterior, STARTING_MEMORY)
        refinement = Refinement(network, loader, posterior, settings.sequence_length, prior)
        posterior = refinement.run(n_steps, MODE_RATE)
        means, covariances = (
            None if modes is None else modes.detach().double().numpy() for modes in refinement.modes
        )
        learned = settings.network
        start = replace(
            start,
            means=means if learned.learn_means else start.means,
            covariances=covariances if learned.learn_covariances else start.covariances,
            is_polished=True,
        )
    return start, fit_autoregressive(posterior, STARTING_MEMORY)


def judge(
    settings: FitSettings,
    start: Start,
    pieces: Pieces,
    mix: Mix,
    prior: AutoregressivePrior,
    n_steps: int,
) -> float:
    """Evidence lower bound of pieces, given modes and a prior.

    Parameters
    ----------
    settings : FitSettings
        The settings of the fit.
    start : Start
        The modes.
    pieces : Pieces
        Rows that the modes were not fitted to.
    mix : callable
        Their mixing, at which the refinement of their posterior starts.
    prior : AutoregressivePrior
        The prior.
    n_steps : int
        Gradient steps of a round.

    Returns
    -------
    float
        Nats per row.
    """
    network, posterior, loader = _free_posterior(settings, start, pieces, mix)
    refinement = Refinement(network, loader, posterior, settings.sequence_length, prior)
    refinement.run(N_ROUNDS * n_steps)
    return refinement.bound(N_DRAWS) / sum(loader.n_rows)


def _free_posterior(
    settings: FitSettings, start: Start, pieces: Pieces, mix: Mix
) -> tuple[DyNeMoNetwork, Posterior, WindowLoader]:
    """A network with the modes of a start, and the posterior of pieces at their mixing."""
    network = empty_network(settings.network, torch.device("cpu")).eval()
    set_modes(network, start, torch.Generator().manual_seed(0))
    mean = [logits_of(a, settings.network.initial_alpha_temperature) for a in mix(pieces)]
    posterior = Posterior(mean, [np.full_like(one, STARTING_STD) for one in mean])
    scale = np.ones(pieces.rows[0].shape[1])
    return network, posterior, WindowLoader(pieces.rows, scale, torch.device("cpu"))
