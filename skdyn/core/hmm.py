"""Hidden Markov models with Gaussian states, fitted by expectation-maximisation (EM).

The hidden state s_t of a session is a Markov chain, and row x_t is drawn from N(mu_j, C_j) while
s_t = j [1]_. The forward-backward recursion is exact, and runs on all sessions and all restarts at
once. The sessions are concatenated. With P the transition matrix, pi the start probabilities and
b_t the densities of row t under all states, the forward probabilities a_t obey

    a_t' = a_(t-1)' M_t,    M_t = P diag(b_t),  or  1 pi' diag(b_t) if a session begins at row t,

so that a session's beginning is one more matrix. The chain of T rows is cut into about sqrt(T)
blocks. The products of the M_t of each block yield the probabilities at the boundaries of blocks,
and from there the rows of all blocks are visited in parallel [2]_. That takes about 5 sqrt(T) steps
in Python instead of 2 T. The matrices of a step are small: call these functions under
`runtime.one_thread`.

The M step is that of a posterior mode. Each state owns one pseudo-row spread like all rows of the
data, each row of P and pi one pseudo-count spread over all states, and every row carries noise of
variance epsilon:

    C_j = (sum_t g_tj (x_t - mu_j)(x_t - mu_j)' + S) / (sum_t g_tj + 1) + epsilon I,

with g the posterior probabilities and S the second moment of the data around mu_j. So a state that
loses all its rows returns to the mean and covariance of the data, and no transition becomes
impossible. The objective includes these terms, and no iteration lowers it.

References
----------
.. [1] Rabiner, L. R. (1989). A tutorial on hidden Markov models and selected applications in speech
   recognition. Proceedings of the IEEE, 77(2), 257-286.
.. [2] Hassan, S. S., Sarkka, S., & Garcia-Fernandez, A. F. (2021). Temporal parallelization of
   inference in hidden Markov models. IEEE Transactions on Signal Processing, 69, 4875-4887.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor

from skdyn.core.gaussian import safe_cholesky

# Rows of one random segment of a start, and the probability to stay in a state.
SEGMENT = 100
STAY = 0.98

# Share of a start's posterior probability that is spread over all states.
SOFTNESS = 0.1

# Iterations after which the worse half of the restarts is dropped, until one remains. With states
# that differ little half of all starts end in a local optimum, and most of those show it early.
HALVING_INTERVAL = 4

# Rows of each state, and transitions from each state, that are added to those of the data.
PSEUDO_COUNT = 1.0

# Transitions below this probability could underflow between two rescalings.
SMALLEST_PROBABILITY = 1e-30
RESCALING_STEPS = 8

# The largest product of matrices of the recursion, in multiplications, which OpenBLAS does not
# spread over threads; and the numbers in one block of rows x states x channels, 2 MB.
LARGEST_PRODUCT = 2**18
BLOCK_SIZE = 2**19


@dataclass(frozen=True)
class HMM:
    """Hidden Markov model with Gaussian states.

    Attributes
    ----------
    start : ndarray of shape (n_states,)
        Probabilities of the state of the first row of a session.
    transition : ndarray of shape (n_states, n_states)
        Transition probabilities; entry (i, j) leads from state i to state j.
    means : ndarray of shape (n_states, n_channels)
        State means.
    covariances : ndarray of shape (n_states, n_channels, n_channels) or (n_states, n_channels)
        State covariances, or their diagonals.
    """

    start: np.ndarray
    transition: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


@dataclass(frozen=True)
class HMMFit:
    """Result of `fit_hmm`.

    Attributes
    ----------
    hmm : HMM
        Model of the best restart.
    log_likelihood : float
        Log-likelihood of the training rows in nats per row, as `log_likelihood` returns it.
    posteriors : list of ndarray of shape (n_rows, n_states)
        Posterior probabilities of the states in each session, as `posteriors` returns them.
    history : ndarray of shape (n_init, n_iterations)
        Objective of every restart before each iteration, in nats per row: the log-likelihood with
        the terms of the prior. NaN after a restart was dropped.
    """

    hmm: HMM
    log_likelihood: float
    posteriors: list[np.ndarray]
    history: np.ndarray


def fit_hmm(
    sessions: list[np.ndarray],
    n_states: int,
    *,
    random_state: np.random.RandomState | None = None,
    learn_means: bool = False,
    learn_covariances: bool = True,
    means: np.ndarray | None = None,
    covariances: np.ndarray | None = None,
    diagonal: bool = False,
    epsilon: float = 1e-6,
    weights: list[np.ndarray] | None = None,
    n_init: int = 8,
    n_iter: int = 25,
    tol: float = 1e-5,
    begin: HMM | None = None,
) -> HMMFit:
    """Fit a hidden Markov model by EM from several random starts, or from another model.

    Each restart assigns random segments of 100 rows, or fewer in a short recording, to states.
    Every 4 iterations the worse half of the restarts is dropped, until one remains.

    Parameters
    ----------
    sessions : list of ndarray of shape (n_rows, n_channels)
        Data with a mean square near one. If all are float32, sums over channels and rows are in
        single precision; the recursion over time is always in double precision.
    n_states : int
        Number of states, at least 1.
    random_state : numpy.random.RandomState, default=None
        Source of the random starts; None draws other ones each time. Not used with `begin`.
    learn_means : bool, default=False
        Whether to learn means that are not given; otherwise they are zero.
    learn_covariances : bool, default=True
        Whether to learn covariances that are not given; otherwise they are the identity.
    means : ndarray of shape (n_states, n_channels), default=None
        Given means, which are kept.
    covariances : ndarray of shape (n_states, n_channels, n_channels) or (n_states, n_channels), \
default=None
        Given covariances, or their diagonals, which are kept.
    diagonal : bool, default=False
        Whether covariances are diagonal.
    epsilon : float, default=1e-6
        Variance added to the diagonal of learned covariances, at least 0.
    weights : list of ndarray of shape (n_rows,), default=None
        Non-negative weight of each row, the factor of its log-density. The density of a row of
        weight zero is one under all states and its values are ignored, but time passes.
    n_init : int, default=8
        Number of restarts, at least 1.
    n_iter : int, default=25
        Largest number of iterations, at least 1.
    tol : float, default=1e-5
        EM stops when no remaining restart gains more than this, in nats per row.
    begin : HMM, default=None
        A model to go on from, with the means and covariances that are kept. There are no random
        starts then.

    Returns
    -------
    HMMFit
        Model of the restart with the largest objective, and its posterior.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.core.hmm import fit_hmm
    >>> rng = np.random.RandomState(0)
    >>> session = rng.standard_normal((600, 2)) * np.repeat([1, 3, 1], 200)[:, None]
    >>> fit = fit_hmm([session], 2, random_state=rng)
    >>> np.sort(np.sqrt(fit.hmm.covariances[:, 0, 0])).round()
    array([1., 3.])
    """
    rows = _Rows.from_sessions(sessions, n_states, weights)
    prior = _Prior.from_rows(
        rows,
        n_states,
        means,
        covariances,
        learn_means=learn_means,
        learn_covariances=learn_covariances,
        diagonal=diagonal,
        epsilon=epsilon,
    )
    if begin is None:
        random_state = np.random.RandomState() if random_state is None else random_state
        parameters = _random_start(rows, n_states, n_init, prior, random_state)
    else:
        parameters, n_init = _Parameters.from_hmm(begin, rows.center), 1
    kept = np.arange(n_init)
    scores = np.full((n_init, n_iter), np.nan)
    for iteration in range(n_iter):
        messages = _forward(rows, parameters, prior.epsilon)
        objective = messages.log_likelihood + prior.log_density(parameters)
        scores[kept, iteration] = objective / rows.total_weight
        gains = scores[kept, iteration] - scores[kept, iteration - 1]
        if iteration and gains.max() <= tol:
            break
        if iteration and iteration % HALVING_INTERVAL == 0 and len(kept) > 1:
            best = np.sort(np.argsort(-objective, kind="stable")[: len(kept) // 2])
            kept, parameters, messages = kept[best], parameters.take(best), messages.take(best)
        posterior, transitions = _backward(rows, parameters, messages)
        parameters = _maximise(rows, posterior, transitions, prior)
    winner = parameters.take(np.argmax(scores[kept, iteration], keepdims=True))
    # Densities without noise, as rows that were not used in the fit have them.
    messages = _forward(rows, winner, 0.0)
    posterior, _ = _backward(rows, winner, messages)
    covariances = winner.covariances[0]
    return HMMFit(
        HMM(
            winner.start[0],
            winner.transition[0],
            winner.means[0] + rows.center,
            np.diagonal(covariances, axis1=1, axis2=2).copy() if diagonal else covariances,
        ),
        float(messages.log_likelihood[0] / rows.total_weight),
        rows.to_sessions(posterior[0]),
        scores[:, : iteration + 1],
    )


def log_likelihood(
    sessions: list[np.ndarray], hmm: HMM, weights: list[np.ndarray] | None = None
) -> float:
    """Mean log-likelihood of the rows of some sessions.

    Parameters
    ----------
    sessions : list of ndarray of shape (n_rows, n_channels)
        Data.
    hmm : HMM
        The model.
    weights : list of ndarray of shape (n_rows,), default=None
        Weight of each row, as in `fit_hmm`.

    Returns
    -------
    float
        Log-likelihood in nats, divided by the number of rows, or by the sum of the weights.
    """
    rows = _Rows.from_sessions(sessions, len(hmm.start), weights)
    messages = _forward(rows, _Parameters.from_hmm(hmm, rows.center), 0.0)
    return float(messages.log_likelihood[0] / rows.total_weight)


def posteriors(
    sessions: list[np.ndarray], hmm: HMM, weights: list[np.ndarray] | None = None
) -> list[np.ndarray]:
    """Posterior probabilities of the states, given all rows of a session.

    Parameters
    ----------
    sessions : list of ndarray of shape (n_rows, n_channels)
        Data.
    hmm : HMM
        The model.
    weights : list of ndarray of shape (n_rows,), default=None
        Weight of each row, as in `fit_hmm`.

    Returns
    -------
    list of ndarray of shape (n_rows, n_states)
        Probabilities; each row sums to one.
    """
    rows = _Rows.from_sessions(sessions, len(hmm.start), weights)
    parameters = _Parameters.from_hmm(hmm, rows.center)
    posterior, _ = _backward(rows, parameters, _forward(rows, parameters, 0.0))
    return rows.to_sessions(posterior[0])


@dataclass(frozen=True)
class _Rows:
    """All sessions in one chain of n_blocks blocks of n_steps rows.

    Column `step * n_blocks + block` holds row `block * n_steps + step` of the chain, so that the
    rows that are visited together are adjacent.
    """

    data: Tensor  # (n_channels + 1, n_steps * n_blocks): centred channels, and ones
    center: np.ndarray  # (n_channels,)
    weights: np.ndarray  # (n_steps, n_blocks); zero for padding
    resets: list[np.ndarray]  # for each step, the blocks in which a session or padding begins
    columns: np.ndarray  # (n_rows,): position of each row of the chain
    lengths: np.ndarray  # (n_sessions,)

    @classmethod
    def from_sessions(
        cls, sessions: list[np.ndarray], n_states: int, weights: list[np.ndarray] | None
    ) -> _Rows:
        chain = np.concatenate(sessions)
        lengths = np.array([len(session) for session in sessions])
        n_rows, n_channels = chain.shape
        row_weights = np.ones(n_rows) if weights is None else np.concatenate(weights).astype(float)
        chain = np.where(row_weights[:, None] > 0, chain, 0)
        total = row_weights.sum()
        center = row_weights @ chain / (total if total > 0 else 1)
        n_blocks = max(1, min(math.isqrt(n_rows), LARGEST_PRODUCT // n_states**3))
        n_steps = -(-n_rows // n_blocks)
        step, block = np.arange(n_rows) % n_steps, np.arange(n_rows) // n_steps
        columns = step * n_blocks + block
        dtype = torch.float32 if chain.dtype == np.float32 else torch.float64
        data = torch.zeros(n_channels + 1, n_steps * n_blocks, dtype=dtype)
        data[:-1, columns] = torch.from_numpy((chain - center).T).to(dtype)
        data[-1] = 1
        padded_weights = np.zeros(n_steps * n_blocks)
        padded_weights[columns] = row_weights
        first = np.ones(n_steps * n_blocks, dtype=bool)
        first[columns] = False
        first[columns[_beginnings(lengths)]] = True
        resets = [np.flatnonzero(blocks) for blocks in first.reshape(n_steps, n_blocks)]
        shape = n_steps, n_blocks
        return cls(data, center, padded_weights.reshape(shape), resets, columns, lengths)

    @property
    def total_weight(self) -> float:
        """Sum of the weights, or one if no row counts."""
        return self.weights.sum() or 1.0

    @property
    def beginnings(self) -> np.ndarray:
        """Columns of the first row of each session."""
        return self.columns[_beginnings(self.lengths)]

    def slices(self, n_numbers: int) -> list[slice]:
        """Number of columns per block, given the numbers that each column needs."""
        size = max(1, BLOCK_SIZE // n_numbers)
        return [slice(one, one + size) for one in range(0, self.data.shape[1], size)]

    def to_sessions(self, values: np.ndarray) -> list[np.ndarray]:
        """One array for each session, from values of shape (n_states, n_steps, n_blocks)."""
        chain = values.reshape(len(values), -1)[:, self.columns].T
        parts = np.split(chain, np.cumsum(self.lengths)[:-1])
        return [np.ascontiguousarray(part) for part in parts]


def _beginnings(lengths: np.ndarray) -> np.ndarray:
    """Rows of the chain at which sessions begin that have rows."""
    return (np.cumsum(lengths) - lengths)[lengths > 0]


@dataclass(frozen=True)
class _Batch:
    """Arrays with the restart as first axis."""

    def take(self, kept: np.ndarray) -> Self:
        """Keep some restarts."""
        return type(self)(*(getattr(self, one.name)[kept] for one in fields(self)))


@dataclass(frozen=True)
class _Parameters(_Batch):
    """Models of all restarts; the means are those of centred data."""

    start: np.ndarray
    transition: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @classmethod
    def from_hmm(cls, hmm: HMM, center: np.ndarray) -> _Parameters:
        start = np.maximum(hmm.start, SMALLEST_PROBABILITY)
        transition = np.maximum(hmm.transition, SMALLEST_PROBABILITY)
        means, covariances = hmm.means - center, _full(hmm.covariances)
        return cls(start[None], transition[None], means[None], covariances[None])


@dataclass(frozen=True)
class _Messages(_Batch):
    """Results of the forward recursion that the backward recursion needs."""

    log_likelihood: np.ndarray  # (n_restarts,)
    densities: np.ndarray  # (n_restarts, n_states, n_steps, n_blocks), largest of a row 1
    forward: np.ndarray  # the same shape
    starts: np.ndarray  # (n_restarts, n_states, n_blocks): the row before each block
    products: np.ndarray  # (n_restarts, n_states after, n_states before, n_blocks)
    scales: np.ndarray  # (n_restarts, n_steps, n_blocks): divisors of the forward probabilities


@dataclass(frozen=True)
class _Prior:
    """Prior of the parameters, and those that are fixed."""

    n_states: int
    moments: np.ndarray  # (n_channels + 1, n_channels + 1): of one row of the data and a one
    means: np.ndarray | None  # fixed ones of centred data
    covariances: np.ndarray | None
    diagonal: bool
    epsilon: float

    @classmethod
    def from_rows(
        cls,
        rows: _Rows,
        n_states: int,
        means: np.ndarray | None,
        covariances: np.ndarray | None,
        *,
        learn_means: bool,
        learn_covariances: bool,
        diagonal: bool,
        epsilon: float,
    ) -> _Prior:
        n_channels = len(rows.center)
        moments = _moments(rows, np.ones((1, 1, *rows.weights.shape)))[0, 0] / rows.total_weight
        moments[-1, -1] = 1
        if means is None and not learn_means:
            means = np.zeros((n_states, n_channels))
        if covariances is None and not learn_covariances:
            covariances = np.ones((n_states, n_channels))
        return cls(
            n_states,
            moments,
            None if means is None else means - rows.center,
            None if covariances is None else _full(covariances),
            diagonal,
            epsilon if covariances is None else 0.0,
        )

    def log_density(self, parameters: _Parameters) -> np.ndarray:
        """Logarithm of the prior of each restart, up to a constant."""
        share = PSEUDO_COUNT / self.n_states
        density = share * np.log(parameters.start).sum(-1)
        density += share * np.log(parameters.transition).sum((-2, -1))
        if self.means is None or self.covariances is None:
            whitening, constants = _whitening(parameters, self.epsilon)
            squares = np.einsum("rjcd,de,rjce->rj", whitening, self.moments, whitening)
            density += PSEUDO_COUNT * (constants - 0.5 * squares).sum(-1)
        return density


def sticky_transition(n_states: int) -> np.ndarray:
    """Transition probabilities of a chain that stays in its state with probability `STAY`.

    Parameters
    ----------
    n_states : int
        Number of states.

    Returns
    -------
    ndarray of shape (n_states, n_states)
        All other states are equally likely.
    """
    transition = np.full((n_states, n_states), (1 - STAY) / max(1, n_states - 1))
    np.fill_diagonal(transition, STAY if n_states > 1 else 1.0)
    return transition


def _full(covariances: np.ndarray) -> np.ndarray:
    """Matrices from matrices or diagonals."""
    if covariances.ndim == 3:
        return covariances
    return covariances[:, :, None] * np.eye(covariances.shape[1])


def _random_start(
    rows: _Rows,
    n_states: int,
    n_init: int,
    prior: _Prior,
    random_state: np.random.RandomState,
) -> _Parameters:
    """States from random segments, and a chain that stays in its state."""
    n_rows = len(rows.columns)
    segment = int(np.clip(n_rows // (10 * n_states), 1, SEGMENT))
    labels = random_state.randint(n_states, size=(n_init, -(-n_rows // segment)))
    labels = np.repeat(labels, segment, axis=1)[:, None, :n_rows]
    hard = labels == np.arange(n_states)[:, None]
    flat = np.zeros((n_init, n_states, rows.weights.size))
    flat[:, :, rows.columns] = (1 - SOFTNESS) * hard + SOFTNESS / n_states
    transitions = np.zeros((n_init, n_states, n_states))
    found = _maximise(rows, flat.reshape(n_init, n_states, *rows.weights.shape), transitions, prior)
    start = np.full((n_init, n_states), 1 / n_states)
    transition = np.tile(sticky_transition(n_states), (n_init, 1, 1))
    return _Parameters(start, transition, found.means, found.covariances)


def _maximise(
    rows: _Rows, posterior: np.ndarray, transitions: np.ndarray, prior: _Prior
) -> _Parameters:
    """M step, from posterior probabilities and expected numbers of transitions."""
    n_restarts, n_states = posterior.shape[:2]
    share = PSEUDO_COUNT / n_states
    flat = posterior.reshape(n_restarts, n_states, -1)
    start = flat[:, :, rows.beginnings].sum(-1) + share
    transition = transitions + share
    start /= start.sum(-1, keepdims=True)
    transition /= transition.sum(-1, keepdims=True)
    shape = n_restarts, n_states, len(rows.center)
    means, covariances = prior.means, prior.covariances
    if means is None or covariances is None:
        moments = _moments(rows, posterior) + PSEUDO_COUNT * prior.moments
        moments /= moments[..., -1:, -1:]
        first = moments[..., :-1, -1]
        means = first if means is None else means
        if covariances is None:
            # Around the means that are taken: E xx' - m m' + (m - mu)(m - mu)'.
            offset = first - means
            covariances = moments[..., :-1, :-1] - first[..., :, None] * first[..., None, :]
            covariances += offset[..., :, None] * offset[..., None, :]
            covariances = 0.5 * (covariances + covariances.swapaxes(-1, -2))
            eye = np.eye(shape[-1])
            covariances = covariances * eye if prior.diagonal else covariances
            # Rounding may leave a variance of nothing below zero.
            variances = np.diagonal(covariances, axis1=-2, axis2=-1)
            covariances += eye * (prior.epsilon + np.maximum(-variances, 0))[..., None]
    means = np.array(np.broadcast_to(means, shape))
    covariances = np.array(np.broadcast_to(covariances, (*shape, shape[-1])))
    return _Parameters(start, transition, means, covariances)


def _moments(rows: _Rows, posterior: np.ndarray) -> np.ndarray:
    """Weighted sums of the outer products of each row and a one, for each restart and state."""
    n_restarts, n_states = posterior.shape[:2]
    size = len(rows.data)
    flat = torch.from_numpy(posterior.reshape(n_restarts * n_states, 1, -1))
    weights = torch.from_numpy(rows.weights.reshape(-1))
    total = torch.zeros(n_restarts * n_states * size, size, dtype=torch.float64)
    for some in rows.slices(len(total)):
        share = (flat[..., some] * weights[some]).to(rows.data.dtype)
        weighted = (rows.data[:, some] * share).flatten(0, 1)
        total += weighted @ rows.data[:, some].T
    return total.reshape(n_restarts, n_states, size, size).numpy()


def _whitening(parameters: _Parameters, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrices [W, -W mu] with W C W' = I, and the logarithms of the largest densities.

    The expected log-density of a row with noise of variance epsilon is lower by
    epsilon tr(C^-1) / 2.
    """
    n_channels = parameters.means.shape[-1]
    covariances = torch.from_numpy(parameters.covariances.reshape(-1, n_channels, n_channels))
    factors = safe_cholesky(covariances)
    eye = torch.eye(n_channels, dtype=factors.dtype).expand_as(factors)
    inverse = torch.linalg.solve_triangular(factors, eye, upper=False).numpy()
    inverse = inverse.reshape(parameters.covariances.shape)
    logarithms = np.log(np.diagonal(inverse, axis1=-2, axis2=-1)).sum(-1)
    noise = epsilon * np.square(inverse).sum((-2, -1))
    constants = logarithms - 0.5 * (n_channels * math.log(2 * math.pi) + noise)
    return np.concatenate([inverse, -inverse @ parameters.means[..., None]], -1), constants


def _densities(
    rows: _Rows, parameters: _Parameters, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Densities under each state, divided by the largest, and the log of that of each row."""
    n_restarts, n_states, n_channels = parameters.means.shape
    whitening, constants = _whitening(parameters, epsilon)
    matrix = torch.from_numpy(whitening).flatten(0, 2).to(rows.data.dtype)
    squares = torch.empty(n_restarts * n_states, rows.data.shape[1], dtype=torch.float64)
    for some in rows.slices(len(matrix)):
        white = (matrix @ rows.data[:, some]).square_()
        squares[:, some] = white.view(len(squares), n_channels, -1).sum(1).double()
    logarithms = squares.numpy().reshape(n_restarts, n_states, *rows.weights.shape)
    logarithms *= -0.5
    logarithms += constants[..., None, None]
    logarithms *= rows.weights
    largest = logarithms.max(1)
    logarithms -= largest[:, None]
    return np.exp(logarithms, out=logarithms), largest


def _forward(rows: _Rows, parameters: _Parameters, epsilon: float) -> _Messages:
    """Forward recursion in all blocks, from the products of whole blocks."""
    densities, largest = _densities(rows, parameters, epsilon)
    n_restarts, n_states, _, n_blocks = densities.shape
    products = np.empty((n_restarts, n_states, n_states, n_blocks))
    products[:] = np.eye(n_states)[..., None]
    starts = np.full((n_restarts, n_states, n_blocks), 1 / n_states)
    if n_blocks > 1:
        products = _propagate(rows, parameters, densities, products)[0]
        for block in range(1, n_blocks):
            before = starts[:, :, block - 1, None]
            after = (products[:, :, :, block - 1] @ before)[..., 0]
            starts[:, :, block] = after / after.sum(1, keepdims=True)
    forward = np.empty_like(densities)
    last, scales = _propagate(rows, parameters, densities, starts[:, :, None], forward)
    total = largest.sum((1, 2)) + np.log(scales).sum((1, 2))
    total += np.log(last[:, :, 0].sum(1)).sum(-1)
    return _Messages(total, densities, forward, starts, products, scales)


def _propagate(
    rows: _Rows,
    parameters: _Parameters,
    densities: np.ndarray,
    values: np.ndarray,
    kept: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Carry probabilities of shape (n_restarts, n_states, any, n_blocks) through all blocks.

    Returns the last ones, and the scale of shape (n_restarts, n_steps, n_blocks) by which those of
    each step were divided. `kept` receives those of all steps, if there is one of each block.
    """
    n_restarts, n_states, n_steps, n_blocks = densities.shape
    scales = np.ones((n_restarts, n_steps, n_blocks))
    transposed = np.ascontiguousarray(parameters.transition.swapaxes(1, 2))
    start = parameters.start[:, :, None, None]
    flat = n_restarts, n_states, -1
    for step, reset in enumerate(rows.resets):
        after = (transposed @ values.reshape(flat)).reshape(values.shape)
        if len(reset):
            after[..., reset] = start * values[..., reset].sum(1, keepdims=True)
        after *= densities[:, :, step, None]
        if step % RESCALING_STEPS == RESCALING_STEPS - 1:
            # One scale for all columns of a product.
            scales[:, step] = after.sum(1).max(1)
            after /= scales[:, None, None, step]
        if kept is not None:
            kept[:, :, step] = after[:, :, 0]
        values = after
    return values, scales


def _backward(
    rows: _Rows, parameters: _Parameters, messages: _Messages
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior probabilities, which replace `messages.forward`, and expected transitions.

    Backward probabilities are scaled such that their products with the forward ones sum to one.
    """
    forward, densities = messages.forward, messages.densities
    n_restarts, n_states, n_steps, n_blocks = forward.shape
    values = np.ones((n_restarts, n_states, n_blocks))
    for block in range(n_blocks - 1, 0, -1):
        before = (values[:, None, :, block] @ messages.products[..., block])[:, 0]
        values[:, :, block - 1] = before / before.max(1, keepdims=True)
    values /= (forward[:, :, -1] * values).sum(1, keepdims=True)
    transitions = np.zeros((n_restarts, n_states, n_states))
    for step in range(n_steps - 1, -1, -1):
        forward[:, :, step] *= values
        reset = rows.resets[step]
        values = densities[:, :, step] * values
        if step % RESCALING_STEPS == RESCALING_STEPS - 1:
            values /= messages.scales[:, None, step]
        before = parameters.transition @ values
        if len(reset):
            begun = parameters.start[:, :, None] * values[..., reset]
            before[..., reset] = begun.sum(1, keepdims=True)
            values[..., reset] = 0
        previous = forward[:, :, step - 1] if step else messages.starts
        transitions += previous @ values.swapaxes(1, 2)
        values = before
    return forward, transitions * parameters.transition
