"""Hidden units: chosen from a pool of candidates by how much of the responses they explain.

Units are chosen one after the other, by what their actual outputs, behind the nonlinearities,
explain of what is left of the responses, at all lags that later stages can still use. The pool has
kernels that predict main directions of the responses, mixtures of such, single inputs, and both
signs; where a nonlinearity cuts off, also units lifted by the mean of the stimulus or a shift, so
that little is cut. So no two units are alike, and none is dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from skdyn.nems.fitting import factors
from skdyn.nems.fitting.moments import lagged_sums
from skdyn.nems.fitting.stages import Given, Stage, put
from skdyn.nems.layers.base import Layer
from skdyn.nems.model import INPUT

# Rows on which candidates are compared.
N_ROWS = 2000

# Largest number of units times lags or channels that alternating least squares takes at once.
MOST_ALTERNATED = 300

# Rounds of these. Measured: fits took as many iterations after 5 as after 15 or 40.
N_JOINT_ROUNDS = 5

# Main directions of the responses that hidden units are to tell.
MOST_DIRECTIONS = 40

# Separable parts of a kernel that become candidates.
N_PARTS = 3

# Least variance of a candidate, in units of what it would be without correlations.
LEAST_VARIANCE = 1e-10

# Mean of a lifted unit in units of its standard deviation; sizes of units that saturate.
LIFTED = 1.5
SATURATING_SIZES = (0.5, 1.5)

# Least share of rows in which a unit must not be cut off.
LEAST_ALIVE = 0.05

# Size of the random part of units of which there are two, relative to their coefficients.
NOISE = 0.1

# Share of the pool that a start other than the first chooses from.
SHARE = 0.5


@dataclass
class Pool:
    """Candidates for units: kernels as factors, or in full, and shifts.

    Attributes
    ----------
    kernels : ndarray of shape (n_lags, n_channels, n)
        The kernels.
    filters, channels : ndarray or None
        Of shapes (n_lags, n) and (n_channels, n), if the kernels are their products.
    shifts : ndarray of shape (n,)
        What is added.
    numbers : ndarray of int of shape (n,) or None
        Which profiles the channels are.
    """

    kernels: np.ndarray
    filters: np.ndarray | None
    channels: np.ndarray | None
    shifts: np.ndarray
    numbers: np.ndarray | None = None

    @property
    def n_units(self) -> int:
        """Number of candidates."""
        return self.kernels.shape[2]

    @classmethod
    def of_kernels(cls, kernels: np.ndarray) -> Pool:
        """Candidates whose kernels are in full."""
        return cls(kernels, None, None, np.zeros(kernels.shape[2]))

    @classmethod
    def of_factors(cls, filters: np.ndarray, channels: np.ndarray, numbers=None) -> Pool:
        """Candidates whose kernels are products."""
        kernels = np.einsum("lk,ck->lck", filters, channels)
        return cls(kernels, filters, channels, np.zeros(kernels.shape[2]), numbers)

    @classmethod
    def joined(cls, pools: Sequence[Pool]) -> Pool:
        """All candidates of several pools of one kind."""

        def join(name):
            parts = [getattr(pool, name) for pool in pools]
            return None if parts[0] is None else np.concatenate(parts, axis=-1)

        return cls(*map(join, ("kernels", "filters", "channels", "shifts", "numbers")))

    def take(self, chosen) -> Pool:
        """Some of them."""
        filters, channels, numbers = (
            None if part is None else part[..., chosen]
            for part in (self.filters, self.channels, self.numbers)
        )
        return Pool(self.kernels[..., chosen], filters, channels, self.shifts[chosen], numbers)

    def scaled(self, sizes: np.ndarray, shifts: np.ndarray) -> Pool:
        """All of them times a size, then shifted."""
        filters = None if self.filters is None else self.filters * sizes
        return Pool(self.kernels * sizes, filters, self.channels, shifts, self.numbers)

    def outputs(self, stimulus: np.ndarray) -> np.ndarray:
        """Sums (n_samples, n) of a stimulus, before any nonlinearity."""
        n_lags = len(self.kernels)
        if self.filters is None or self.channels is None:
            return self.shifts + lagged_sums(
                stimulus, self.kernels.reshape(-1, self.n_units), n_lags
            )
        weighed, sums = stimulus @ self.channels, np.zeros((len(stimulus), self.n_units))
        for lag in range(min(n_lags, len(stimulus))):
            sums[lag:] += weighed[: len(stimulus) - lag] * self.filters[lag]
        return self.shifts + sums


def set_hidden(stage: Stage, given: Given, random_state: np.random.RandomState | None) -> bool:
    """Choose the units of a stage, which others follow, out of a pool.

    Parameters
    ----------
    stage : Stage
        The stage; its parameters change.
    given : Given
        Moments with all responses, at the lags that later stages can still use.
    random_state : RandomState or None
        Draws mixtures, and leaves candidates out; None for all, with always the same mixtures.

    Returns
    -------
    bool
        False if there are no candidates, as for a stimulus without variance.
    """
    rng = random_state or np.random.RandomState(0)
    pool = _candidates(stage, given, rng)
    pool = _variants(pool, stage, given) if stage.is_bent else _with_unit_variance(pool, given)
    if random_state is not None:
        n_left = max(int(SHARE * pool.n_units), min(stage.n_units, pool.n_units))
        pool = pool.take(np.sort(rng.permutation(pool.n_units)[:n_left]))
    if not pool.n_units:
        return False
    phi, y, is_alive = _compared(pool, stage, given)
    if np.count_nonzero(is_alive) >= stage.n_units:
        pool, phi = pool.take(np.flatnonzero(is_alive)), phi[:, is_alive]
    chosen = factors.select(phi.T @ phi, phi.T @ y, min(stage.n_units, pool.n_units))
    while len(chosen) < stage.n_units:
        chosen.append(int(rng.randint(pool.n_units)))
    _put_units(stage, _without_copies(pool.take(chosen), rng))
    return True


def _without_copies(pool: Pool, rng: np.random.RandomState) -> Pool:
    """Change units that are the same as another one, where the pool had too few."""
    flat = np.concatenate([pool.kernels.reshape(-1, pool.n_units), pool.shifts[np.newaxis]])
    _, first, group = np.unique(flat, axis=1, return_index=True, return_inverse=True)
    is_copy = first[np.ravel(group)] != np.arange(pool.n_units)

    def changed(values):
        size = NOISE * is_copy * np.sqrt(np.mean(values**2, axis=tuple(range(values.ndim - 1))))
        return values + size * rng.standard_normal(values.shape)

    if pool.filters is None or pool.channels is None:
        return replace(pool, kernels=changed(pool.kernels))
    return replace(pool, filters=changed(pool.filters), channels=changed(pool.channels))


def _compared(pool: Pool, stage: Stage, given: Given):
    """Outputs of candidates, and responses, on some rows, weighted and centred; and who is alive.

    Alive are candidates whose outputs are seldom at an end of their range, where curves cut off.
    """
    features, targets, weights, n_left = [], [], [], N_ROWS
    for trial in sorted(given.trials, key=lambda one: -np.count_nonzero(one.weight)):
        counting = np.flatnonzero(trial.weight)
        if not n_left or not len(counting):
            break
        start = max(counting[0] - stage.n_lags + 1, 0)
        rows = slice(start, counting[0] + n_left)
        stimulus = trial.data[INPUT][rows]
        features.append(_bend(stage, pool.outputs(stimulus)))
        targets.append(trial.target[rows])
        weights.append(trial.weight[rows])
        n_left = max(n_left - len(stimulus), 0)
    phi, y, weight = (np.concatenate(parts) for parts in (features, targets, weights))
    phi = np.nan_to_num(phi, posinf=0.0, neginf=0.0)
    low, high = phi.min(axis=0), phi.max(axis=0)
    margin = 1e-6 * (high - low)
    is_alive = np.mean((phi > low + margin) & (phi < high - margin), axis=0) > LEAST_ALIVE
    phi, y = (values - np.average(values, axis=0, weights=weight[:, 0]) for values in (phi, y))
    return phi * np.sqrt(weight), y * np.sqrt(weight), is_alive


def _put_units(stage: Stage, found: Pool) -> None:
    """Set the parameters of a stage to candidates, one per unit."""
    if found.filters is None or found.channels is None:
        assert stage.filters is not None
        put(stage.filters, found.kernels)
    else:
        filters, channels = found.filters, found.channels
        if stage.is_free:
            size = np.sqrt(np.linalg.norm(filters, axis=0) / np.linalg.norm(channels, axis=0))
            filters, channels = filters / size, channels * size
        numbers = None if found.numbers is None else found.numbers[np.newaxis]
        stage.put_factors(filters[:, np.newaxis], channels[:, np.newaxis], numbers)
    for curve in stage.curves:
        set_neutral(curve)
    if stage.shift is not None and stage.shift.size == found.n_units:
        put(stage.shift, found.shifts)


def set_neutral(curve: Layer) -> None:
    """Set what a nonlinearity adds, and multiplies with, to nothing, where it is free."""
    for name, value in curve.neutral.items():
        if name in curve.parameters:
            put(curve[name], np.full(curve[name].shape, value))


def _with_unit_variance(pool: Pool, given: Given) -> Pool:
    flat = pool.kernels.reshape(-1, pool.n_units)
    variance = np.sum(flat * (given.stimulus.reshape(len(flat), -1) @ flat), axis=0)
    # Against what it would be if all channels and lags were uncorrelated.
    alone = np.sum((pool.kernels * given.spread[:, np.newaxis]) ** 2, axis=(0, 1))
    usable = np.flatnonzero(variance > LEAST_VARIANCE * alone)
    return pool.take(usable).scaled(1 / np.sqrt(variance[usable]), pool.shifts[usable])


def _candidates(stage: Stage, given: Given, rng: np.random.RandomState) -> Pool:
    """Kernels that hidden units may have, without signs and shifts."""
    kernels = given.kernels()
    explained = np.einsum("lcn,lcm->nm", kernels, given.response, optimize=True)
    most = min(MOST_DIRECTIONS, max(stage.n_units, 4))
    directions = factors.main_directions((explained + explained.T) / 2, most)
    if not directions.shape[1]:
        directions = np.eye(given.response.shape[2], 1)
    response, mains = given.response @ directions, kernels @ directions
    if stage.profiles is not None:
        return _of_profiles(stage.profiles, given, response)
    mixed = rng.standard_normal((mains.shape[2], stage.n_units))
    mixed = np.concatenate([mains, kernels[..., : 2 * stage.n_units], mains @ mixed], axis=2)
    nonnegative = all(np.min(trial.data[INPUT]) >= 0 for trial in given.trials)
    singles = np.diag(1 / given.spread) if nonnegative else np.zeros((len(given.spread), 0))
    if stage.n_ranks == 0:
        return _in_full(stage, given, mixed, singles, rng)
    return _separable(stage, given, response, mixed, singles, rng)


def _in_full(stage: Stage, given: Given, mixed, singles, rng) -> Pool:
    """Kernels with a number for each lag and channel."""
    n_lags, n_channels = mixed.shape[:2]
    full = np.zeros((n_lags, n_channels, singles.shape[1] + 1))
    full[0, :, :-1] = singles
    full[:, :, -1] = (given.mean / given.spread**2)[np.newaxis]
    noise = rng.standard_normal((n_lags, n_channels, stage.n_units))
    return Pool.of_kernels(
        np.concatenate([mixed, full, noise / given.spread[:, np.newaxis]], axis=2)
    )


def _of_profiles(profiles: np.ndarray, given: Given, response: np.ndarray) -> Pool:
    """Each profile with the main filters that go with it."""
    filters, numbers = [], []
    for number, profile in enumerate(profiles.T):
        matrix = np.einsum("c,lckd,d->lk", profile, given.stimulus, profile, optimize=True)
        right = np.einsum("c,lcn->ln", profile, response)
        left, _, _ = np.linalg.svd(factors.ridge(matrix, right), full_matrices=False)
        filters.append(factors.same_sign(left[:, :N_PARTS]))
        numbers += [number] * filters[-1].shape[1]
    return Pool.of_factors(np.concatenate(filters, 1), profiles[:, numbers], np.array(numbers))


def _separable(stage: Stage, given: Given, response, mixed, singles, rng) -> Pool:
    """Kernels that are products of a filter and channel weights."""
    n_lags, n_channels, n_outputs = response.shape
    flat = given.stimulus.reshape(n_lags * n_channels, -1)
    kinds = mixed.transpose(2, 0, 1)
    parts = [factors.separable_parts(kernel, given.spread, N_PARTS) for kernel in kinds]
    filters, channels = (np.concatenate(some, axis=1) for some in zip(*parts, strict=True))
    columns = factors.products(filters, channels)
    gram, cross = columns.T @ flat @ columns, columns.T @ response.reshape(len(flat), -1)
    found = [(filters, channels)]
    for n_units in dict.fromkeys((stage.n_units, max(1, stage.n_units // 2))):
        chosen = factors.select(gram, cross, min(n_units, columns.shape[1]))
        pair = filters[:, chosen], channels[:, chosen]
        if len(chosen) * max(n_lags, n_channels) <= MOST_ALTERNATED:
            joint = factors.alternate(
                given.stimulus,
                response[np.newaxis],
                pair[0][np.newaxis],
                pair[1][np.newaxis],
                np.ones((1, len(chosen), n_outputs)),
                n_rounds=N_JOINT_ROUNDS,
            )
            pair = joint[0][0], joint[1][0]
        if not stage.is_bent and stage.is_free:
            # All of what a linear readout can make of them is in these already.
            return Pool.of_factors(*pair)
        found.insert(0, pair)
    noise = rng.standard_normal((n_channels, stage.n_units)) / given.spread[:, np.newaxis]
    found.append((filters[:, rng.randint(filters.shape[1], size=stage.n_units)], noise))
    lag_zero = np.zeros((n_lags, singles.shape[1]))
    lag_zero[0] = 1
    found.append((lag_zero, singles))
    filters, channels = (np.concatenate(some, axis=1) for some in zip(*found, strict=True))
    restrict = stage.restriction
    if restrict is not None:
        channels = np.concatenate(factors.both_signs(restrict, channels), axis=1)
        filters = np.tile(filters, 2)
    keep = channels.any(axis=0) & filters.any(axis=0)
    return Pool.of_factors(filters[:, keep], channels[:, keep])


def _variants(pool: Pool, stage: Stage, given: Given) -> Pool:
    """Candidates of unit variance, with both signs, and lifted or shifted where curves bend."""
    pool = _with_unit_variance(pool, given)
    mean = np.einsum("lck,lc->k", pool.kernels, given.lagged_mean)
    one = np.ones_like(mean)
    made = []
    for sign in (1, -1):
        if stage.shift is not None:
            pairs = [(size, 0.0) for size in SATURATING_SIZES]
            for size, lift in pairs if stage.saturates else [(1.0, 0.0), (1.0, LIFTED)]:
                made.append(pool.scaled(sign * size * one, -sign * size * mean + lift))
            continue
        size = 1 / np.maximum(1, np.abs(mean)) if stage.saturates else one
        made.append(pool.scaled(sign * size, 0 * one))
        if pool.filters is None and not stage.saturates:
            # Where the stimulus has a mean, a unit can be lifted by it.
            lifting = np.broadcast_to(given.mean / given.spread**2, pool.kernels.shape[:2])
            level = float(np.sum(lifting * given.lagged_mean))
            missing = np.maximum(LIFTED - sign * mean, 0)
            if level > 0:
                kernels = sign * pool.kernels + lifting[..., np.newaxis] * (missing / level)
                made.append(Pool.of_kernels(kernels))
    return Pool.joined(made)


def _bend(stage: Stage, values: np.ndarray) -> np.ndarray:
    """Compute what nonlinearities make of candidates (n_rows, n), which are shifted already."""
    if stage.last_part.rectifies:
        values = np.maximum(values, 0)
    for curve in stage.curves:
        wide = curve.copy()
        if wide.shape is not None:
            wide.shape = (values.shape[1],)
        try:
            set_neutral(wide)
            values = wide.evaluate(values)
        except ValueError:  # priors or bounds of another number of units
            continue
    return np.asarray(values)
