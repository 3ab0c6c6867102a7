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
from scipy.linalg import cholesky, solve_triangular
from torch import Tensor

from skdyn.nems.fitting.objective import Group, Objective, parameter_slices, tensors_of
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

# Random signs from which sizes of parameters are estimated.
N_PROBES = 8

# How many derivatives are computed at a time.
DIRECTIONS_AT_ONCE = 64


@dataclass(frozen=True)
class Coordinates:
    """A linear map between parameters and what the solver sees.

    Attributes
    ----------
    origin : ndarray of shape (n_free,)
        Parameters where the new coordinates are zero.
    scale : ndarray of shape (n_free,)
        What each parameter is divided by first.
    blocks : list of tuple of (ndarray, ndarray, ndarray)
        Per output: places of its own parameters, the inverse of the upper triangular factor of
        their block, and its border (n_own, n_shared) with what is shared, divided by that factor.
    shared : ndarray of int
        Places of the parameters that outputs share.
    corner : ndarray of shape (n_shared, n_shared)
        Inverse of the upper triangular factor of what is left of their block.
    """

    origin: np.ndarray
    scale: np.ndarray
    blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    shared: np.ndarray
    corner: np.ndarray

    def parameters(self, point: np.ndarray) -> np.ndarray:
        """Go back to parameters.

        Parameters
        ----------
        point : ndarray of shape (n_free,)
            Coordinates.

        Returns
        -------
        ndarray of shape (n_free,)
            theta_0 + R^-1 z.
        """
        step = point.copy()
        if len(self.shared):
            step[self.shared] = self.corner @ point[self.shared]
        for own, inverse, border in self.blocks:
            step[own] = inverse @ (point[own] - border @ step[self.shared])
        return self.origin + step / self.scale

    def gradient(self, gradient: np.ndarray) -> np.ndarray:
        """Turn a gradient with respect to parameters into one with respect to coordinates.

        Parameters
        ----------
        gradient : ndarray of shape (n_free,)
            Derivatives.

        Returns
        -------
        ndarray of shape (n_free,)
            R^-T times them.
        """
        turned = gradient / self.scale
        rest = turned[self.shared]
        for own, inverse, border in self.blocks:
            turned[own] = inverse.T @ turned[own]
            rest = rest - border.T @ turned[own]
        if len(self.shared):
            turned[self.shared] = self.corner.T @ rest
        return turned

    def bounds(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Turn bounds of parameters into bounds of coordinates.

        Parameters
        ----------
        low, high : ndarray of shape (n_free,)
            Bounds; parameters that have any are not mixed with others.

        Returns
        -------
        ndarray of shape (n_free, 2)
            The same, of the coordinates.
        """
        return np.column_stack([(end - self.origin) * self.scale for end in (low, high)])


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
    none = np.zeros(0, dtype=int)
    sizes = step_sizes(objective, vector)
    return Coordinates(vector, 1 / sizes, [], none, np.zeros((0, 0)))


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
        jacobian = _jacobian(objective, vector)
    except RuntimeError:
        # A layer of the user's whose operations torch can derive once only.
        return scaled_coordinates(objective, vector)
    if not all(np.isfinite(part).all() for part in (*jacobian.own, *jacobian.border)):
        return scaled_coordinates(objective, vector)
    penalty = objective.value_penalty
    known = jacobian.diagonal(len(vector)) + penalty
    # What hardly matters here, as where a curve is flat, is not to go far beyond its usual size.
    n_outputs = np.bincount(objective.component)[objective.component_of_value]
    least = LEAST / n_outputs / usual_sizes(objective.model, vector) ** 2
    scale = np.sqrt(np.maximum(known, least))
    load = penalty / scale**2 + np.maximum(1 - known / scale**2, 0) + DAMPING
    keep = ~boxed[jacobian.shared]
    shared = jacobian.shared[keep]
    blocks, corner = [], np.diag(load[shared])
    for places, own, border in zip(jacobian.places, jacobian.own, jacobian.border, strict=True):
        free = ~boxed[places]
        mine = places[free]
        own, border = own[:, free] / scale[mine], border[:, keep] / scale[shared]
        corner += border.T @ border
        if len(mine):
            inverse = _inverse_factor(own.T @ own + np.diag(load[mine]))
            edge = inverse.T @ (own.T @ border)
            corner -= edge.T @ edge
            blocks.append((mine, inverse, edge))
    return Coordinates(vector, scale, blocks, shared, _inverse_factor(corner))


def _inverse_factor(matrix: np.ndarray) -> np.ndarray:
    """Inverse of the upper triangular R for which R' R is a matrix; it is well conditioned."""
    return solve_triangular(cholesky(matrix), np.eye(len(matrix)))


def usual_sizes(model: Model, vector: np.ndarray) -> np.ndarray:
    """How large parameters usually are.

    Parameters
    ----------
    model : Model
        The model.
    vector : ndarray of shape (n_free,)
        Its values that are not frozen.

    Returns
    -------
    ndarray of shape (n_free,)
        The standard deviation of the prior or, if that is more, the root mean square of the values
        of the whole parameter; 1 where it is not a positive number.
    """
    free = [
        parameter
        for layer in model.layers
        for parameter in layer.parameters.values()
        if not parameter.is_frozen
    ]
    values = np.split(vector, np.cumsum([parameter.size for parameter in free])[:-1])
    sizes = np.concatenate(
        [
            np.maximum(parameter.prior.sd().ravel(), np.sqrt(np.mean(part**2)))
            for parameter, part in zip(free, values, strict=True)
        ]
    )
    return np.where((sizes > 0) & (sizes < np.inf), sizes, 1.0)


@dataclass(frozen=True)
class _Jacobian:
    """Derivatives of predictions at some rows, times the root of the curvature of the loss there.

    Per output: places of the parameters that only it depends on, derivatives (n_rows, n_own) with
    respect to these, and (n_rows, n_shared) with respect to what outputs share.
    """

    places: list[np.ndarray]
    own: list[np.ndarray]
    shared: np.ndarray
    border: list[np.ndarray]

    def diagonal(self, n_parameters: int) -> np.ndarray:
        """Give the diagonal of H."""
        diagonal = np.zeros(n_parameters)
        for places, own, border in zip(self.places, self.own, self.border, strict=True):
            diagonal[places] += np.sum(own**2, axis=0)
            diagonal[self.shared] += np.sum(border**2, axis=0)
        return diagonal


def _jacobian(objective: Objective, vector: np.ndarray) -> _Jacobian:
    theta = torch.tensor(vector, dtype=torch.float64, device=objective.device, requires_grad=True)
    piece = _pieces(objective, len(vector))
    with tensors_of(objective.model, theta):
        prediction = objective.predict(piece.data)
    root = objective.curvature(piece, prediction).sqrt().flatten(0, 1)
    prediction = prediction.flatten(0, 1)
    n_outputs = prediction.shape[-1]
    owner = _owners(objective.reach)
    places = [np.flatnonzero(owner == output) for output in range(n_outputs)]
    shared = np.flatnonzero(owner == n_outputs)
    # What goes backwards is linear in where it starts; its derivatives with respect to that are
    # those of the predictions, in forward mode.
    starts = torch.ones_like(prediction, requires_grad=True)
    (backwards,) = torch.autograd.grad(prediction, theta, starts, create_graph=True)

    def along(directions: np.ndarray) -> np.ndarray:
        """Derivatives (n_rows, n_outputs, n_directions)."""
        derivatives = np.zeros((*prediction.shape, len(directions)))
        for first in range(0, len(directions), DIRECTIONS_AT_ONCE):
            part = torch.from_numpy(directions[first : first + DIRECTIONS_AT_ONCE]).to(theta)
            (found,) = torch.autograd.grad(
                backwards, starts, part, retain_graph=True, is_grads_batched=True
            )
            columns = slice(first, first + len(part))
            derivatives[..., columns] = (found * root).movedim(0, -1).cpu().numpy()
        return derivatives

    # Parameters of different outputs do not get into each other's way, so one direction does for
    # one of each.
    directions = np.zeros((max(map(len, places)), len(vector)))
    for own in places:
        directions[np.arange(len(own)), own] = 1.0
    alone, border = along(directions), along(np.eye(len(vector))[shared])
    return _Jacobian(
        places,
        [alone[:, output, : len(own)] for output, own in enumerate(places)],
        shared,
        [border[:, output] for output in range(n_outputs)],
    )


def _owners(reach: np.ndarray) -> np.ndarray:
    """For each value the one output that depends on it; n_outputs if several do, -1 if none."""
    n_reached = reach.sum(axis=0)
    owner = np.where(n_reached > 1, len(reach), reach.argmax(axis=0))
    return np.where(n_reached > 0, owner, -1)


def _pieces(objective: Objective, n_parameters: int) -> Group:
    """Pieces of the recording, evenly spaced, with no history before them."""
    past, stride = objective.model.n_past or 0, objective.model.stride
    group = max(objective.groups, key=lambda one: one.target.shape[0] * one.target.shape[1])
    n_trials, n_samples, n_outputs = group.target.shape
    n_rows = max(N_ROWS, 2 * n_parameters // n_outputs)
    if n_trials * n_samples <= n_rows:
        return replace(group, share=1.0)
    length = min(n_samples, max(n_rows // N_PIECES, 2 * past // stride, 1))
    n_pieces = min(max(1, n_rows // length), max(1, n_trials * n_samples // length))
    places = (np.arange(n_pieces) + 0.5) / n_pieces * n_trials
    starts = [int(place % 1 * (n_samples - length + 1)) for place in places]

    def cut(array: Tensor, rate: int) -> Tensor:
        pairs = zip(places, starts, strict=True)
        return torch.stack(
            [array[int(place), rate * start : rate * (start + length)] for place, start in pairs]
        )

    data = {name: cut(array, stride) for name, array in group.data.items()}
    return Group(data, cut(group.target, 1), cut(group.weight, 1))


def step_sizes(objective: Objective, vector: np.ndarray) -> np.ndarray:
    """Sizes of the parameters that matter to the predictions, one for each parameter array.

    If all entries of an array change at random by that size, the predictions of the outputs that it
    reaches change by about as much as the responses vary. The sum of squares of the derivatives is
    estimated from products of the Jacobian with random signs (Hutchinson 1990, Commun. Stat. Simul.
    Comput. 19, 433-450).

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
    sizes = usual_sizes(objective.model, vector)
    squares = _squared_derivatives(objective, vector) if objective.is_exact else None
    if squares is None:
        return sizes
    # Entries that reach the same outputs have one size.
    marks = np.random.RandomState(0).random_sample(objective.n_outputs) @ objective.reach
    for place in parameter_slices(objective.model):
        _, group = np.unique(marks[place], return_inverse=True)
        total = np.bincount(group, squares[place])
        n_each = np.bincount(group)
        n_reached = np.bincount(group, objective.reach[:, place].sum(axis=0)) / n_each
        with np.errstate(divide="ignore"):
            found = np.sqrt(np.maximum(n_reached, 1) / total)
        sizes[place] = np.where(total > 0, found, 0)[group] + (total <= 0)[group] * sizes[place]
    return sizes


def _squared_derivatives(objective: Objective, vector: np.ndarray) -> np.ndarray | None:
    """Mean over rows of squared derivatives, relative to typical responses, summed over outputs."""
    piece = _pieces(objective, 0)
    theta = torch.tensor(vector, dtype=torch.float64, device=objective.device, requires_grad=True)
    try:
        with tensors_of(objective.model, theta):
            prediction = objective.predict(piece.data)
        rng = np.random.RandomState(0)
        n_rows = prediction.shape[0] * prediction.shape[1]
        typical = torch.as_tensor(objective.sizes.typical).to(prediction)
        squares = torch.zeros_like(theta)
        for probe in range(N_PROBES):
            signs = torch.as_tensor(rng.choice([-1.0, 1.0], prediction.shape)).to(prediction)
            (found,) = torch.autograd.grad(
                prediction, theta, signs / typical, retain_graph=probe < N_PROBES - 1
            )
            squares += found**2 / (N_PROBES * n_rows)
    except RuntimeError:
        return None
    squares = squares.detach().cpu().numpy()
    return squares if np.isfinite(squares).all() else None
