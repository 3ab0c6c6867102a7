"""Initial hidden units, chosen from a pool of candidates by explained variance.

Units are chosen greedily, by the residual variance of the responses that their outputs after the
nonlinearities explain, at all lags that later stages can use. The pool contains kernels that
predict the main directions of the responses, mixtures of these kernels, single inputs, and both
signs. For rectifying nonlinearities it also contains units that the mean of the stimulus or a shift
lifts, so that little of their output is rectified. Therefore no two units are equal, and none is
dead.
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

# Number of rows on which candidates are compared.
N_ROWS = 2000

# Maximum number of units times lags or channels for alternating least squares.
MOST_ALTERNATED = 300

# Number of rounds. Measured: fits took as many iterations after 5 rounds as after 15 or 40.
N_JOINT_ROUNDS = 5

# Number of main directions of the responses to predict.
MOST_DIRECTIONS = 40

# Number of separable components of a kernel in the pool.
N_PARTS = 3

# Minimum variance of a candidate, relative to that of an uncorrelated stimulus.
LEAST_VARIANCE = 1e-10

# Mean of a lifted unit in standard deviations; sizes of saturating units.
LIFTED = 1.5
SATURATING_SIZES = (0.5, 1.5)

# Minimum fraction of rows in which a unit is not saturated.
LEAST_ALIVE = 0.05

# Size of the random part of duplicate units, relative to their coefficients.
NOISE = 0.1

# Fraction of the pool from which starts after the first choose.
SHARE = 0.5


@dataclass
class Pool:
    """Candidates for units: kernels, as factors or in full, and shifts.

    Attributes
    ----------
    kernels : ndarray of shape (n_lags, n_channels, n)
        The kernels.
    filters, channels : ndarray or None
        Factors of shapes (n_lags, n) and (n_channels, n), if the kernels are products.
    shifts : ndarray of shape (n,)
        Shifts that are added.
    numbers : ndarray of int of shape (n,) or None
        Indices of the profiles that form the channel weights.
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
        """Return candidates from full kernels."""
        return cls(kernels, None, None, np.zeros(kernels.shape[2]))

    @classmethod
    def of_factors(cls, filters: np.ndarray, channels: np.ndarray, numbers=None) -> Pool:
        """Return candidates from factors of kernels."""
        kernels = np.einsum("lk,ck->lck", filters, channels)
        return cls(kernels, filters, channels, np.zeros(kernels.shape[2]), numbers)

    @classmethod
    def joined(cls, pools: Sequence[Pool]) -> Pool:
        """Concatenate pools of the same kind."""

        def join(name):
            parts = [getattr(pool, name) for pool in pools]
            return None if parts[0] is None else np.concatenate(parts, axis=-1)

        return cls(*map(join, ("kernels", "filters", "channels", "shifts", "numbers")))

    def take(self, chosen) -> Pool:
        """Return a subset of the candidates."""
        filters, channels, numbers = (
            None if part is None else part[..., chosen]
            for part in (self.filters, self.channels, self.numbers)
        )
        return Pool(self.kernels[..., chosen], filters, channels, self.shifts[chosen], numbers)

    def scaled(self, sizes: np.ndarray, shifts: np.ndarray) -> Pool:
        """Return the candidates, scaled and then shifted."""
        filters = None if self.filters is None else self.filters * sizes
        return Pool(self.kernels * sizes, filters, self.channels, shifts, self.numbers)

    def outputs(self, stimulus: np.ndarray) -> np.ndarray:
        """Return linear outputs (n_samples, n), before any nonlinearity."""
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
    """Choose the units of a hidden stage from a pool.

    Parameters
    ----------
    stage : Stage
        The stage; its parameters are changed.
    given : Given
        Moments with all responses, at the lags that later stages can use.
    random_state : RandomState or None
        Source of random mixtures and of the subset of candidates; None uses all candidates, with
        fixed mixtures.

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
    """Perturb duplicate units, which occur if the pool is too small."""
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
    """Return centred outputs and responses on some rows, and which candidates are alive.

    A candidate is alive if its outputs are rarely at a saturated end of their range.
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
    """Set the parameters of a stage to one candidate per unit."""
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
    """Set free shifts, offsets and gains of a nonlinearity to neutral values."""
    for name, value in curve.neutral.items():
        if name in curve.parameters:
            put(curve[name], np.full(curve[name].shape, value))


def _with_unit_variance(pool: Pool, given: Given) -> Pool:
    flat = pool.kernels.reshape(-1, pool.n_units)
    variance = np.sum(flat * (given.stimulus.reshape(len(flat), -1) @ flat), axis=0)
    # Relative to the variance for uncorrelated channels and lags.
    alone = np.sum((pool.kernels * given.spread[:, np.newaxis]) ** 2, axis=(0, 1))
    usable = np.flatnonzero(variance > LEAST_VARIANCE * alone)
    return pool.take(usable).scaled(1 / np.sqrt(variance[usable]), pool.shifts[usable])


def _candidates(stage: Stage, given: Given, rng: np.random.RandomState) -> Pool:
    """Return candidate kernels of hidden units, without signs and shifts."""
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
    """Return full kernels, with a value for each lag and channel."""
    n_lags, n_channels = mixed.shape[:2]
    full = np.zeros((n_lags, n_channels, singles.shape[1] + 1))
    full[0, :, :-1] = singles
    full[:, :, -1] = (given.mean / given.spread**2)[np.newaxis]
    noise = rng.standard_normal((n_lags, n_channels, stage.n_units))
    return Pool.of_kernels(
        np.concatenate([mixed, full, noise / given.spread[:, np.newaxis]], axis=2)
    )


def _of_profiles(profiles: np.ndarray, given: Given, response: np.ndarray) -> Pool:
    """Combine each profile with its main filters."""
    filters, numbers = [], []
    for number, profile in enumerate(profiles.T):
        matrix = np.einsum("c,lckd,d->lk", profile, given.stimulus, profile, optimize=True)
        right = np.einsum("c,lcn->ln", profile, response)
        left, _, _ = np.linalg.svd(factors.ridge(matrix, right), full_matrices=False)
        filters.append(factors.same_sign(left[:, :N_PARTS]))
        numbers += [number] * filters[-1].shape[1]
    return Pool.of_factors(np.concatenate(filters, 1), profiles[:, numbers], np.array(numbers))


def _separable(stage: Stage, given: Given, response, mixed, singles, rng) -> Pool:
    """Return kernels that are products of a filter and channel weights."""
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
            # These already span all kernels that a linear readout can produce from them.
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
    """Return candidates of unit variance, with both signs and shifts for nonlinearities."""
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
            # A nonzero mean of the stimulus can lift a unit.
            lifting = np.broadcast_to(given.mean / given.spread**2, pool.kernels.shape[:2])
            level = float(np.sum(lifting * given.lagged_mean))
            missing = np.maximum(LIFTED - sign * mean, 0)
            if level > 0:
                kernels = sign * pool.kernels + lifting[..., np.newaxis] * (missing / level)
                made.append(Pool.of_kernels(kernels))
    return Pool.joined(made)


def _bend(stage: Stage, values: np.ndarray) -> np.ndarray:
    """Apply the nonlinearities to outputs (n_rows, n), which include the shifts."""
    if stage.last_part.rectifies:
        values = np.maximum(values, 0)
    for curve in stage.curves:
        wide = curve.copy()
        if wide.shape is not None:
            wide.shape = (values.shape[1],)
        try:
            set_neutral(wide)
            values = wide.evaluate(values)
        except ValueError:  # priors or bounds for a different number of units
            continue
    return np.asarray(values)
