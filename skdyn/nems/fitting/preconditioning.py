"""Gauss-Newton preconditioning for L-BFGS.

The lags of a filter are as correlated as the stimulus, and the scale of a filter trades off against
that of adjacent layers, so that the loss of an encoding model is ill-conditioned. The Gauss-Newton
matrix H = J' W J (J: derivatives of the predictions, W: curvature of the loss) approximates its
curvature. The solver uses coordinates z with theta = theta_0 + R^-1 z, where R' R = H, in which the
loss is well-conditioned (Nocedal & Wright 2006, Numerical Optimization, sections 7.1, 10.3).

Most parameters of a population model belong to one neuron. H has no entries between such parameters
of different neurons, so that it is an arrow matrix: diagonal blocks, one per output, and a border
for shared parameters. Only these are computed and factored.
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
from skdyn.nems.penalties import diagonal_array

# Number of rows from which the matrix is estimated, and number of segments that contain them.
# Measured: fits take as many iterations with 300 rows as with 1000.
N_ROWS, N_PIECES = 300, 4

# Damping, relative to the diagonal (Levenberg & Marquardt). Measured: 1e-2 and 3e-2 take the fewest
# iterations, 1e-4 at least twice as many.
DAMPING = 1e-2

# Minimum assumed curvature of a parameter in units of its typical size, for a single output.
# Measured: at data-driven starts most parameters have at least ten times as much.
LEAST = 1e-2

# Number of random sign vectors for estimates of parameter sizes, and maximum size of a unit-free
# parameter, relative to its typical size.
N_PROBES, MOST_USUAL = 8, 10.0

# Maximum number of parameters in a block that is factored exactly, and number of random projections
# for larger blocks.
LARGEST_BLOCK, N_SUMS = 700, 64

# Minimum eigenvalue of a sketch, relative to the largest; and curvature outside its range, relative
# to the diagonal.
LEAST_SQUARE, REST = 1e-10, 0.3

# Number of derivatives per batch.
DIRECTIONS_AT_ONCE = 32


def scaled_coordinates(objective: Objective, vector: np.ndarray) -> Coordinates:
    """Return coordinates that scale parameters by their sizes.

    Parameters
    ----------
    objective : Objective
        The loss.
    vector : ndarray of shape (n_free,)
        Parameters at which the coordinates are zero.

    Returns
    -------
    Coordinates
        A change of variables without rotation.
    """
    return Coordinates(vector, 1 / step_sizes(objective, vector))


def round_coordinates(objective: Objective, vector: np.ndarray, boxed: np.ndarray) -> Coordinates:
    """Return Gauss-Newton coordinates, in which a loss is well-conditioned.

    Parameters
    ----------
    objective : Objective
        The loss.
    vector : ndarray of shape (n_free,)
        Parameters at which the matrix is computed and the coordinates are zero.
    boxed : ndarray of bool of shape (n_free,)
        Bounded parameters, which are only scaled.

    Returns
    -------
    Coordinates
        The coordinates; the identity if derivatives are not finite.
    """
    try:
        derivatives = _derivatives(objective, vector)
    except RuntimeError:
        # A custom layer with operations that torch can differentiate only once.
        return scaled_coordinates(objective, vector)
    coupling = objective.value_coupling
    penalty = objective.value_penalty
    if coupling is not None:
        penalty = penalty + coupling.diagonal()
        coupling = sparse.csr_array(coupling - diagonal_array(coupling.diagonal()))
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
    """Factor the diagonal blocks and the Schur complement of the shared parameters."""
    parts = derivatives.parts

    def loads(places: np.ndarray) -> np.ndarray:
        """Return the contribution of the penalty and the damping to a block."""
        block = np.diag(load[places])
        if coupling is None:
            return block
        return block + coupling[places][:, places].toarray() / np.outer(
            scale[places], scale[places]
        )

    keep = ~boxed[parts.shared]
    shared = parts.shared[keep]
    # All outputs together; scaling afterwards is cheaper.
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
    """Return A A' in double precision."""
    return (matrix @ matrix.T).astype(float)


def _low_rank(places: np.ndarray, sketch: np.ndarray) -> LowRank:
    """Return the inverse root of I + S' S, from the singular values of the sketch S."""
    squares, left = np.linalg.eigh(sketch @ sketch.T)
    kept = squares > LEAST_SQUARE * max(1.0, squares[-1])
    sizes = np.sqrt(squares[kept])
    vectors = (left[:, kept] / sizes).T @ sketch
    return LowRank(places, vectors, 1 / np.sqrt(1 + sizes**2 / REST) - 1)


def _inverse_factor(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse of the Cholesky factor R of a well-conditioned matrix R' R."""
    if not len(matrix):  # SciPy before 1.14 does not support empty matrices
        return np.zeros((0, 0))
    return solve_triangular(cholesky(matrix), np.eye(len(matrix)))


def _least_curvature(objective: Objective, vector: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return a lower limit of the curvature, which limits steps of insensitive parameters.

    For unit-free parameters, it follows from their typical sizes; for parameters in units of X and
    y, from the curvature of entries of the same parameter.
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
    """Return typical sizes of parameters.

    Parameters
    ----------
    objective : Objective
        The loss of the model.
    vector : ndarray of shape (n_free,)
        Values of the parameters.

    Returns
    -------
    ndarray of shape (n_free,)
        Root mean square over the values of a parameter that the same outputs depend on. For
        unit-free parameters, and if all values are 0, the standard deviation of the prior if that
        is larger; 1 if the result is not positive.
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
    """Return whether each value belongs to a parameter that is independent of units of X and y."""
    parts = [np.zeros(0, dtype=bool)]
    for layer in model.layers:
        for name, parameter in layer.parameters.items():
            if not parameter.is_frozen:
                parts.append(np.full(parameter.size, name in layer.unit_free))
    return np.concatenate(parts)


@dataclass(frozen=True)
class _Parts:
    """Partition of the parameters into blocks of H.

    Indices of the parameters of each output, of the shared parameters, and of larger sets of either
    kind, for which blocks are approximated by a sketch.
    """

    own: list[np.ndarray]
    shared: np.ndarray
    large: list[np.ndarray]

    @classmethod
    def of(cls, objective: Objective) -> _Parts:
        """Partition the parameters of a model."""
        owner, nothing = objective.owner, np.zeros(0, dtype=int)
        sets = [np.flatnonzero(owner == number) for number in range(objective.n_outputs + 1)]
        large = [places for places in sets if len(places) > LARGEST_BLOCK]
        small = [places if len(places) <= LARGEST_BLOCK else nothing for places in sets]
        return cls(small[:-1], small[-1], large)


@dataclass(frozen=True)
class _Derivatives:
    """Derivatives of predictions at some rows, times the root of the curvature of the loss.

    Derivatives with respect to each output's own parameters have the shape (n_own, n_rows), those
    with respect to shared parameters (n_shared, n_outputs, n_rows). `sketch` S, of shape (n_sums,
    n_free), contains sums over rows and outputs with random signs, so that S' S approximates H, and
    `diagonal` is the diagonal of H.
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
    """Return products of the derivatives with random signs; S' S is H in expectation."""
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
    """Return derivatives (n_own, n_rows) per output, and (n_shared, n_outputs, n_rows)."""
    # The backward pass is linear in its starting vector; its derivatives with respect to that
    # vector are forward-mode derivatives of the predictions.
    starts = torch.ones_like(prediction, requires_grad=True)
    (backwards,) = torch.autograd.grad(prediction, theta, starts, create_graph=True)

    def along(sets: list[np.ndarray]) -> np.ndarray:
        """Return derivatives (n_directions, n_outputs, n_rows) along one value of each set."""
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

    # Parameters of different outputs do not interact, so that one direction covers one of each.
    alone, border = along(parts.own), along([parts.shared])
    return [alone[: len(own), output] for output, own in enumerate(parts.own)], border


def _pieces(objective: Objective, n_needed: int) -> Group:
    """Return evenly spaced segments of the recording, without history before them."""
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
    """Return the size of each parameter array that affects the predictions notably.

    Random changes of all entries of an array by its size change the predictions of dependent
    outputs by about the standard deviation of the responses. The sum of squares of the derivatives
    is estimated from products of the Jacobian with random signs (Hutchinson 1990, Communications in
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
        Positive sizes; `usual_sizes` for arrays without an effect on predictions.
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
    # Unit-free parameters have little effect in flat parts of a curve, and keep their typical size.
    return np.where(_unit_free(objective.model), np.minimum(sizes, MOST_USUAL * usual), sizes)


def _squared_derivatives(objective: Objective, vector: np.ndarray) -> np.ndarray | None:
    """Return mean squared derivatives, relative to typical responses, summed over outputs."""
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
            # Separate signs of rows and outputs, so that those of an output do not depend on the
            # others.
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
