"""Coordinates in which a loss is round where a fit starts, so that the fit is short.

A filter's lags are as correlated as the stimulus, and the size of a filter trades against that of
what comes before and after it, so that the loss of an encoding model is a long narrow valley in its
parameters. The Gauss-Newton matrix H = J' W J (J: derivatives of the predictions, W: curvature of
the loss) knows the valley; the solver goes in coordinates z with theta = theta_0 + R^-1 z, where
R' R = H, in which it is round (Nocedal & Wright 2006, Numerical Optimization, sections 7.1, 10.3).

Most parameters of a population model belong to one neuron. H has no entries between two such
parameters of different neurons, which makes it an arrow: blocks on the diagonal, one per output,
and a border for what outputs share. Only these are ever computed or factored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse
from scipy.linalg import cholesky, solve_triangular
from torch import Tensor

from skdyn.nems.fitting.coordinates import Block, Coordinates, LowRank
from skdyn.nems.fitting.objective import (
    Group,
    Objective,
    batched_gradients,
    parameter_slices,
    tensors_of,
)
from skdyn.nems.model import Model

# Rows from which the matrix is estimated, and pieces that these are in. Measured: fits take as
# many iterations with 300 as with 1000.
N_ROWS, N_PIECES = 300, 4

# Added to the diagonal, relative to it (Levenberg & Marquardt). Measured: 1e-2 and 3e-2 take
# the fewest iterations, 1e-4 twice as many or more.
DAMPING = 1e-2

# Least curvature that a parameter is taken to have in units of its usual size, if it belongs to the
# only output. Measured: at starts that are found from the data most have ten times as much or more.
LEAST = 1e-2

# Random signs from which sizes of parameters are estimated, and the largest size of a parameter
# without a unit, relative to what is usual.
N_PROBES, MOST_USUAL = 8, 10.0

# Most parameters in a block that is computed and factored as it is, and random sums from which
# larger ones are known.
LARGEST_BLOCK, N_SUMS = 700, 64

# Eigenvalues of a sketch that count, relative to the largest; and curvature of what it does not
# see, relative to the diagonal.
LEAST_SQUARE, REST = 1e-10, 0.3

# How many derivatives are computed at a time.
DIRECTIONS_AT_ONCE = 32


def scaled_coordinates(objective: Objective, vector: np.ndarray) -> Coordinates:
    """Coordinates that are the parameters in units of their sizes.

    Parameters
    ----------
    objective : Objective
        The loss.
    vector : ndarray of shape (n_free,)
        Where they are zero.

    Returns
    -------
    Coordinates
        A change of variables without rotation.
    """
    return Coordinates(vector, 1 / step_sizes(objective, vector))


def round_coordinates(objective: Objective, vector: np.ndarray, boxed: np.ndarray) -> Coordinates:
    """Coordinates in which a loss is round.

    Parameters
    ----------
    objective : Objective
        The loss.
    vector : ndarray of shape (n_free,)
        Where it is to be round, and where the coordinates are zero.
    boxed : ndarray of bool of shape (n_free,)
        Parameters that are only scaled, since they have bounds.

    Returns
    -------
    Coordinates
        Those; the parameters themselves where derivatives are not finite.
    """
    try:
        derivatives = _derivatives(objective, vector)
    except RuntimeError:
        # A layer of the user's whose operations torch can derive once only.
        return scaled_coordinates(objective, vector)
    coupling = objective.value_coupling
    penalty = objective.value_penalty
    if coupling is not None:
        penalty = penalty + coupling.diagonal()
        coupling = sparse.csr_array(coupling - sparse.diags_array(coupling.diagonal()))
    known = derivatives.diagonal + penalty
    if not np.isfinite(known).all():
        return scaled_coordinates(objective, vector)
    scale = np.sqrt(np.maximum(known, _least_curvature(objective, vector, known)))
    load = penalty / scale**2 + np.maximum(1 - known / scale**2, 0) + DAMPING
    blocks, shared, corner = _arrow(derivatives, scale, load, boxed, coupling)
    large = [
        _low_rank(places[free], derivatives.sketch[:, places[free]] / scale[places[free]])
        for places in derivatives.parts.large
        if (free := ~boxed[places]).any()
    ]
    return Coordinates(vector, scale, blocks, shared, corner, large)


def _arrow(
    derivatives: _Derivatives,
    scale: np.ndarray,
    load: np.ndarray,
    boxed: np.ndarray,
    coupling: sparse.csr_array | None,
) -> tuple[list[Block], np.ndarray, np.ndarray]:
    """Factor the blocks on the diagonal, one after the other, and the corner that they leave."""
    parts = derivatives.parts

    def loads(places: np.ndarray) -> np.ndarray:
        """The part of the penalty and the damping in a block."""
        block = np.diag(load[places])
        if coupling is None:
            return block
        return block + coupling[places][:, places].toarray() / np.outer(
            scale[places], scale[places]
        )

    keep = ~boxed[parts.shared]
    shared = parts.shared[keep]
    # All outputs at once; scaled afterwards, which is less work.
    border = derivatives.border if keep.all() else derivatives.border[keep]
    corner = _square(border.reshape(len(shared), border[0].size if len(shared) else 0))
    corner /= np.outer(scale[shared], scale[shared])
    blocks = []
    for output, (places, own) in enumerate(zip(parts.own, derivatives.own, strict=True)):
        free = ~boxed[places]
        mine = places[free]
        if not len(mine):
            continue
        own = own[free] / scale[mine, np.newaxis].astype(own.dtype)
        inverse = _inverse_factor(_square(own) + loads(mine))
        edge = inverse.T @ (own @ border[:, output].T / scale[shared])
        blocks.append(Block(mine, inverse, edge))
    if blocks and len(shared):
        corner -= _square(np.concatenate([block.border for block in blocks]).T)
    return blocks, shared, _inverse_factor(corner + loads(shared))


def _square(matrix: np.ndarray) -> np.ndarray:
    """A A' in double precision."""
    return (matrix @ matrix.T).astype(float)


def _low_rank(places: np.ndarray, sketch: np.ndarray) -> LowRank:
    """The inverse root of I + S' S, from the singular values of the sketch S."""
    squares, left = np.linalg.eigh(sketch @ sketch.T)
    kept = squares > LEAST_SQUARE * max(1.0, squares[-1])
    sizes = np.sqrt(squares[kept])
    vectors = (left[:, kept] / sizes).T @ sketch
    return LowRank(places, vectors, 1 / np.sqrt(1 + sizes**2 / REST) - 1)


def _inverse_factor(matrix: np.ndarray) -> np.ndarray:
    """Inverse of the upper triangular R for which R' R is a matrix; it is well conditioned."""
    if not len(matrix):  # which SciPy before 1.14 does not solve
        return np.zeros((0, 0))
    return solve_triangular(cholesky(matrix), np.eye(len(matrix)))


def _least_curvature(objective: Objective, vector: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Curvature that what hardly matters here is taken to have, so that it does not go too far.

    That of a parameter that has no unit follows from its usual size; that of others, whose sizes
    are those of X and y, from what entries of the same parameter have.
    """
    n_outputs = np.bincount(objective.component)[objective.component_of_value]
    least = LEAST / n_outputs / usual_sizes(objective, vector) ** 2
    free = _unit_free(objective.model)
    for place, alike in zip(parameter_slices(objective.model), objective.alike, strict=True):
        mean = np.bincount(alike, known[place]) / np.bincount(alike)
        relative = LEAST * mean[alike]
        least[place] = np.where(free[place] | (relative <= 0), least[place], relative)
    return least


def usual_sizes(objective: Objective, vector: np.ndarray) -> np.ndarray:
    """How large parameters usually are.

    Parameters
    ----------
    objective : Objective
        The loss, whose model they belong to.
    vector : ndarray of shape (n_free,)
        Their values.

    Returns
    -------
    ndarray of shape (n_free,)
        The root mean square of the values of a parameter that the same outputs depend on or, of
        parameters without a unit and where all values are 0, the standard deviation of the prior
        if that is more; 1 where it is not a positive number.
    """
    model = objective.model
    sizes = np.ones(len(vector))
    free = [p for layer in model.layers for p in layer.parameters.free if p.size]
    unit_free = _unit_free(model)
    places = parameter_slices(model)
    for parameter, place, alike in zip(free, places, objective.alike, strict=True):
        squares = np.bincount(alike, vector[place] ** 2) / np.bincount(alike)
        size = np.sqrt(squares)[alike]
        prior = parameter.prior.sd().ravel()
        sizes[place] = np.where((size == 0) | unit_free[place], np.maximum(prior, size), size)
    return np.where((sizes > 0) & (sizes < np.inf), sizes, 1.0)


def _unit_free(model: Model) -> np.ndarray:
    """Whether each value belongs to a parameter whose size has nothing to do with X and y."""
    parts = [np.zeros(0, dtype=bool)]
    for layer in model.layers:
        for name, parameter in layer.parameters.items():
            if not parameter.is_frozen:
                parts.append(np.full(parameter.size, name in layer.unit_free))
    return np.concatenate(parts)


@dataclass(frozen=True)
class _Parts:
    """Which parameters make a block of H each.

    Per output the places of the parameters that only it depends on; those that outputs share; and
    larger sets, of either kind, whose blocks are only known by a sketch.
    """

    own: list[np.ndarray]
    shared: np.ndarray
    large: list[np.ndarray]

    @classmethod
    def of(cls, objective: Objective) -> _Parts:
        """Sort the parameters of a model."""
        owner, nothing = objective.owner, np.zeros(0, dtype=int)
        sets = [np.flatnonzero(owner == number) for number in range(objective.n_outputs + 1)]
        large = [places for places in sets if len(places) > LARGEST_BLOCK]
        small = [places if len(places) <= LARGEST_BLOCK else nothing for places in sets]
        return cls(small[:-1], small[-1], large)


@dataclass(frozen=True)
class _Derivatives:
    """Derivatives of predictions at some rows, times the root of the curvature of the loss there.

    Per output those with respect to its own parameters, (n_own, n_rows); and to what outputs share,
    (n_shared, n_outputs, n_rows). `sketch` has sums over rows and outputs with random signs, so
    that S' S is about H (n_sums, n_free), and `diagonal` is that of H.
    """

    parts: _Parts
    own: list[np.ndarray]
    border: np.ndarray
    sketch: np.ndarray
    diagonal: np.ndarray


def _derivatives(objective: Objective, vector: np.ndarray) -> _Derivatives:
    parts = _Parts.of(objective)
    theta = torch.tensor(vector, dtype=objective.dtype, device=objective.device, requires_grad=True)
    piece = _pieces(objective, max(*map(len, parts.own), len(parts.shared) // objective.n_outputs))
    with tensors_of(objective.model, theta):
        piece = piece.of_type(objective.dtype)
        prediction = objective.predict(piece.data)
    root = objective.curvature(piece, prediction).sqrt()
    sketch = np.zeros((0, len(vector)))
    if parts.large:
        sketch = _sketch(prediction, theta, root)
    own, border = _exact(prediction.flatten(0, 1), theta, root.flatten(0, 1), parts)
    diagonal = np.sum(sketch**2, axis=0)
    for places in (*parts.own, parts.shared):
        diagonal[places] = 0
    for places, mine in zip(parts.own, own, strict=True):
        diagonal[places] = np.einsum("pt,pt->p", mine, mine)
    diagonal[parts.shared] = np.einsum("pnt,pnt->p", border, border)
    return _Derivatives(parts, own, border, sketch, diagonal)


def _sketch(prediction: Tensor, theta: Tensor, root: Tensor) -> np.ndarray:
    """Products of the derivatives with random signs, each the root of H in the mean."""
    rng = np.random.RandomState(0)
    sums = np.empty((N_SUMS, len(theta)))
    for number in range(N_SUMS):
        signs = torch.as_tensor(rng.choice([-1.0, 1.0], prediction.shape)).to(prediction)
        (found,) = torch.autograd.grad(prediction, theta, signs * root, retain_graph=True)
        sums[number] = found.cpu().numpy() / np.sqrt(N_SUMS)
    return sums


def _exact(
    prediction: Tensor, theta: Tensor, root: Tensor, parts: _Parts
) -> tuple[list[np.ndarray], np.ndarray]:
    """Derivatives (n_own, n_rows) per output, and (n_shared, n_outputs, n_rows)."""
    # What goes backwards is linear in where it starts; its derivatives with respect to that are
    # those of the predictions, in forward mode.
    starts = torch.ones_like(prediction, requires_grad=True)
    (backwards,) = torch.autograd.grad(prediction, theta, starts, create_graph=True)

    def along(sets: list[np.ndarray]) -> np.ndarray:
        """Derivatives (n_directions, n_outputs, n_rows), each along one value of each set."""
        n_directions = max(map(len, sets))
        derivatives = torch.empty((n_directions, *root.T.shape), dtype=root.dtype)
        for first in range(0, n_directions, DIRECTIONS_AT_ONCE):
            columns = slice(first, min(first + DIRECTIONS_AT_ONCE, n_directions))
            part = torch.zeros((columns.stop - first, len(theta))).to(theta)
            for places in sets:
                part[range(len(places[columns])), places[columns]] = 1.0
            found = batched_gradients(backwards, starts, part)
            derivatives[columns] = (found * root).transpose(1, 2)
        return derivatives.numpy()

    # Parameters of different outputs do not get into each other's way, so one direction does for
    # one of each.
    alone, border = along(parts.own), along([parts.shared])
    return [alone[: len(own), output] for output, own in enumerate(parts.own)], border


def _pieces(objective: Objective, n_needed: int) -> Group:
    """Pieces of the recording, evenly spaced, with no history before them."""
    past, stride = objective.model.n_past or 0, objective.model.stride
    group = max(objective.groups, key=lambda one: one.target.shape[0] * one.target.shape[1])
    n_trials, n_samples = group.target.shape[:2]
    n_rows = max(N_ROWS, 2 * n_needed)
    if n_trials * n_samples <= n_rows:
        return replace(group, share=1.0)
    length = min(n_samples, max(n_rows // N_PIECES, 2 * past // stride, 1))
    n_pieces = min(max(1, n_rows // length), max(1, n_trials * n_samples // length))
    places = (np.arange(n_pieces) + 0.5) / n_pieces * n_trials
    starts = [int(place % 1 * (n_samples - length + 1)) for place in places]

    pairs = [(int(place), start) for place, start in zip(places, starts, strict=True)]

    def cut(array: Tensor) -> Tensor:
        return torch.stack([array[place, start : start + length] for place, start in pairs])

    given = [
        {
            name: array[stride * start : stride * (start + length)]
            for name, array in group.given[place].items()
        }
        for place, start in pairs
    ]
    return Group(given, cut(group.target), cut(group.weight))


def step_sizes(objective: Objective, vector: np.ndarray) -> np.ndarray:
    """Sizes of the parameters that matter to the predictions, one for each parameter array.

    If all entries of an array change at random by that size, the predictions of the outputs that it
    reaches change by about as much as the responses vary. The sum of squares of the derivatives is
    estimated from products of the Jacobian with random signs (Hutchinson 1990, Communications in
    Statistics 19, 433-450).

    Parameters
    ----------
    objective : Objective
        The loss.
    vector : ndarray of shape (n_free,)
        Values.

    Returns
    -------
    ndarray of shape (n_free,)
        Positive. Where predictions do not depend on an array, its `usual_sizes`.
    """
    usual = usual_sizes(objective, vector)
    squares = _squared_derivatives(objective, vector) if objective.is_exact else None
    if squares is None:
        return usual
    sizes, n_reached = usual.copy(), objective.reach.sum(axis=0)
    for place, alike in zip(parameter_slices(objective.model), objective.alike, strict=True):
        total = np.bincount(alike, squares[place])
        reached = np.bincount(alike, n_reached[place]) / np.bincount(alike)
        with np.errstate(divide="ignore"):
            found = np.sqrt(2 * np.maximum(reached, 1) / total)
        sizes[place] = np.where(total > 0, found, 0)[alike] + (total <= 0)[alike] * usual[place]
    # Parameters without a unit hardly count where a curve is flat, and stay near what is usual.
    return np.where(_unit_free(objective.model), np.minimum(sizes, MOST_USUAL * usual), sizes)


def _squared_derivatives(objective: Objective, vector: np.ndarray) -> np.ndarray | None:
    """Mean over rows of squared derivatives, relative to typical responses, summed over outputs."""
    piece = _pieces(objective, 0)
    theta = torch.tensor(vector, dtype=torch.float64, device=objective.device, requires_grad=True)
    try:
        with tensors_of(objective.model, theta):
            prediction = objective.predict(piece.data)
        row_rng, output_rng = np.random.RandomState(0), np.random.RandomState(1)
        n_rows = prediction.shape[0] * prediction.shape[1]
        typical = torch.as_tensor(objective.sizes.typical).to(prediction)
        squares = torch.zeros_like(theta)
        for probe in range(N_PROBES):
            # Signs of rows and of outputs, so that those of one output do not depend on the others.
            rows = row_rng.choice([-1.0, 1.0], (*prediction.shape[:2], 1))
            outputs = output_rng.choice([-1.0, 1.0], prediction.shape[2:])
            signs = torch.as_tensor(rows * outputs).to(prediction)
            (found,) = torch.autograd.grad(
                prediction, theta, signs / typical, retain_graph=probe < N_PROBES - 1
            )
            squares += found**2 / (N_PROBES * n_rows)
    except RuntimeError:
        return None
    found_squares = squares.detach().cpu().numpy()
    return found_squares if np.isfinite(found_squares).all() else None
