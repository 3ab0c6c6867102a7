"""Proximal quasi-Newton method for nonsmooth penalties such as the lasso.

Each step minimises a quadratic model of the loss, with a limited-memory BFGS matrix, plus the exact
norms, followed by a line search (Lee, Sun & Saunders 2014, SIAM J. Optim. 24, 1420-1443). The
minimum of the model is found by accelerated proximal gradient steps with restarts (Beck & Teboulle
2009, SIAM J. Imaging Sci. 2, 183-202; O'Donoghue & Candes 2015, Found. Comput. Math. 15, 715-732),
which require no pass through the data. Outputs that share no parameters have separate matrices,
steps and stopping, as in `lbfgs`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from skdyn.core.training import NO_CALLBACK, FitDivergedError, Watcher
from skdyn.nems.fitting.closed_form import is_linear, linear_curvature
from skdyn.nems.fitting.gradients import check_start, layer_not_followed
from skdyn.nems.fitting.minimum import SMALL_DECREASE, promise_at_kinks, promises
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.penalties import Norms
from skdyn.nems.fitting.preconditioning import step_sizes
from skdyn.nems.fitting.results import (
    NO_PROGRESS,
    STOPPED,
    FitResults,
    Solver,
    nothing_to_fit,
)
from skdyn.nems.fitting.settings import FitSettings

# Number of stored curvature pairs, and of iterations over which progress is averaged.
N_PAIRS, N_JUDGED = 30, 5

# Maximum number of steps to the minimum of the model, and tolerance of a step relative to the
# first.
MOST_STEPS, LAST_STEP = 500, 1e-5

# Fraction of the predicted decrease that a step must achieve, and maximum number of halvings.
SUFFICIENT, MOST_HALVED = 1e-4, 40

# Number of iterations between progress messages.
ITERATIONS_PER_LINE = 25

# Relative rounding error of a loss.
ROUNDING = 1e-14


class Proximal(Solver):
    """Proximal quasi-Newton method on all data, with exactly sparse solutions."""

    name = "proximal"
    finds_minimum = True
    handles_norms = True

    def fit(
        self,
        objective: Objective,
        settings: FitSettings,
        random_state: np.random.RandomState,
        watcher: Watcher = NO_CALLBACK,
    ) -> FitResults:
        """Fit the model of an objective in place; see `Solver`."""
        start = np.clip(
            objective.model.get_parameter_vector(), *objective.model.get_bounds_vector()
        )
        initial_error = check_start(objective, start)
        if not len(start):
            return nothing_to_fit(start, initial_error)
        name = layer_not_followed(objective, start)
        if name is not None:
            raise ValueError(
                f"solver='proximal' needs gradients, but torch cannot follow the layer {name!r}; "
                "write its evaluate in plain arithmetic or with torch."
            )
        sizes = step_sizes(objective, start)
        # With early stopping, the path of the fit matters, not only its end.
        exact = None if settings.early_stopping else _exact_curvatures(objective, sizes)
        fit = _Fit(objective, settings, watcher, sizes, exact)
        found = fit.run(start)
        converged, message = fit.verdict()
        return FitResults(
            initial_parameters=start,
            final_parameters=found,
            initial_error=initial_error,
            final_error=objective.error(found),
            n_iter=len(fit.history),
            n_evaluations=objective.n_evaluations,
            converged=converged,
            stopped=fit.reason == STOPPED,
            message=message,
            exact_gradients=True,
            history=fit.history,
            held_out_history=fit.held_out,
        )


class _Curvature:
    """Limited-memory BFGS matrix, scale I - W M W' (Byrd, Nocedal & Schnabel 1994)."""

    # Maximum number of steps to the minimum of the model with this curvature.
    most_steps = MOST_STEPS

    def __init__(self, n_values: int):
        self.pairs: deque = deque(maxlen=N_PAIRS)
        self.clear(n_values)

    def clear(self, n_values: int) -> None:
        """Delete the curvature pairs."""
        self.pairs.clear()
        self.scale, self.largest = 1.0, 1.0
        self.sides, self.middle = np.zeros((n_values, 0)), np.zeros((0, 0))

    def add(self, step: np.ndarray, change: np.ndarray) -> None:
        """Store a step and its change of the gradient, if the curvature is positive."""
        along = step @ change
        if not along > 1e-10 * (change @ change):
            return
        self.pairs.append((step, change))
        steps, changes = (np.stack(one, axis=1) for one in zip(*self.pairs, strict=True))
        products = steps.T @ changes
        self.scale = (change @ change) / along
        lower = np.tril(products, -1)
        self.sides = np.concatenate([self.scale * steps, changes], axis=1)
        inverse = np.block(
            [[self.scale * steps.T @ steps, lower], [lower.T, -np.diag(np.diag(products))]]
        )
        self.middle = np.linalg.pinv(inverse)
        inner = -self.middle @ (self.sides.T @ self.sides)
        self.largest = max(self.scale, self.scale + np.linalg.eigvals(inner).real.max())

    def apply(self, vector: np.ndarray) -> np.ndarray:
        """Multiply the matrix by a vector."""
        return self.scale * vector - self.sides @ (self.middle @ (self.sides.T @ vector))


class _ExactCurvature(_Curvature):
    """Exact second derivatives of a quadratic loss; the first step then finds the minimum."""

    most_steps = 20 * MOST_STEPS

    def __init__(self, matrix: np.ndarray):
        self.matrix = matrix
        self.pairs = deque()
        self.largest = max(np.linalg.eigvalsh(matrix)[-1], np.finfo(float).tiny)

    def clear(self, n_values: int) -> None:
        """Do nothing, because the matrix is exact."""

    def add(self, step: np.ndarray, change: np.ndarray) -> None:
        """Do nothing, because the matrix is exact."""

    def apply(self, vector: np.ndarray) -> np.ndarray:
        """Multiply the matrix by a vector."""
        return self.matrix @ vector


def _exact_curvatures(objective: Objective, sizes: np.ndarray) -> list[_ExactCurvature] | None:
    """Return second derivatives of a linear model's loss per component; None if nonlinear."""
    is_linear_model = objective.loss.has_closed_form and is_linear(
        objective.model, objective.trials
    )
    if not is_linear_model or len(objective.component_share) != objective.n_outputs:
        return None
    found: list = [None] * objective.n_outputs
    for output, given in enumerate(linear_curvature(objective)):
        matrix = objective.factors[output] * given.matrix
        matrix = matrix + np.diag(objective.value_penalty[given.places])
        if objective.value_coupling is not None:
            matrix += objective.value_coupling[given.places][:, given.places].toarray()
        order = np.argsort(given.places)
        matrix = matrix * np.outer(sizes[given.places], sizes[given.places])
        found[objective.component[output]] = _ExactCurvature(matrix[np.ix_(order, order)])
    return found


class _Part:
    """Scaled values of one component: the current point and the next step."""

    def __init__(
        self,
        places: np.ndarray,
        norms: Norms | None,
        bounds: np.ndarray,
        curvature: _Curvature | None = None,
    ):
        self.places, self.norms, self.bounds = places, norms, bounds
        self.curvature = _Curvature(len(places)) if curvature is None else curvature
        self.recent: deque = deque(maxlen=N_JUDGED + 1)
        self.is_active = True

    def begin(self, point: np.ndarray, value: float, gradient: np.ndarray) -> None:
        """Set a point, its loss without the norms, and the gradient of this loss."""
        self.point, self.value, self.gradient = point, value + self.sum_of_norms(point), gradient
        self.recent.append(self.value)
        self._direct()

    def sum_of_norms(self, point: np.ndarray) -> float:
        """Return the contribution of the norms to the loss."""
        return 0.0 if self.norms is None else float(self.norms.values(point).sum())

    def trial(self) -> np.ndarray:
        """Return the trial point."""
        return self.point + self.size * self.direction

    def receive(self, value: float, gradient: np.ndarray, tol: float) -> bool:
        """Accept the trial point if it is sufficient, or shorten the step; return which."""
        trial = self.trial()
        value = value + self.sum_of_norms(trial)
        enough = self.value + SUFFICIENT * self.size * self.promised
        if np.isfinite(value) and np.isfinite(gradient).all() and value <= enough:
            self.curvature.add(trial - self.point, gradient - self.gradient)
            self.point, self.value, self.gradient = trial, value, gradient
            self.recent.append(value)
            decrease = (self.recent[0] - value) / N_JUDGED
            self.is_active = len(self.recent) <= N_JUDGED or decrease > tol
            self._direct()
            return True
        self.size /= 2
        self.n_halved += 1
        if self.n_halved == MOST_HALVED:
            self._start_again()
        return False

    def _start_again(self) -> None:
        """Reset the curvature; without curvature, no step decreases the loss."""
        self.is_active &= bool(self.curvature.pairs)
        self.curvature.clear(len(self.point))
        if self.is_active:
            self._direct()

    def _direct(self) -> None:
        """Compute the next step."""
        self.size, self.n_halved = 1.0, 0
        self.direction = self._minimum_of_model() - self.point
        end = self.point + self.direction
        change = self.sum_of_norms(end) - self.sum_of_norms(self.point)
        self.promised = self.gradient @ self.direction + change
        if not self.promised < -ROUNDING * (1 + abs(self.value)):
            self._start_again()

    def shrunk(self, point: np.ndarray, step: float) -> np.ndarray:
        """Apply the proximal map of the norms, within the bounds."""
        shrunk = point if self.norms is None else self.norms.shrunk(point, step)
        return np.clip(shrunk, *self.bounds)

    def _minimum_of_model(self) -> np.ndarray:
        """Minimise g' d + d' B d / 2 plus the norms by accelerated steps."""
        rate = 1 / self.curvature.largest
        current = ahead = self.point
        momentum, first = 1.0, 0.0
        for number in range(self.curvature.most_steps):
            slope = self.gradient + self.curvature.apply(ahead - self.point)
            new = self.shrunk(ahead - rate * slope, rate)
            moved = new - current
            length = float(np.linalg.norm(moved))
            first = length if number == 0 else first
            if length <= LAST_STEP * first:
                return new
            if (ahead - new) @ moved > 0:  # the momentum points uphill
                momentum = 1.0
            following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            ahead = new + (momentum - 1) / following * moved
            current, momentum = new, following
        return current


@dataclass
class _Fit:
    """State of a running fit, in scaled values."""

    objective: Objective
    settings: FitSettings
    watcher: Watcher
    sizes: np.ndarray
    curvatures: list[_ExactCurvature] | None = None

    history: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    best: np.ndarray | None = None
    promise: np.ndarray = field(init=False)
    reason: str = ""
    is_done: bool = False

    def __post_init__(self):
        objective = self.objective
        bounds = np.stack(objective.model.get_bounds_vector()) / self.sizes
        norms = objective.norms
        if norms is not None:
            bounded = np.isfinite(bounds).any(axis=0)
            if np.any(bounded[norms.places] & norms.is_shared):
                raise ValueError(
                    "A parameter with bounds has a penalty on groups of its values; remove one of "
                    "them, or use L1."
                )
            norms = norms.scaled(objective.to_values, self.sizes)
        self.parts = []
        for number in range(len(objective.component_share)):
            places = np.flatnonzero(objective.component_of_value == number)
            own = None if norms is None else norms.within(places)
            curvature = None if self.curvatures is None else self.curvatures[number]
            self.parts.append(_Part(places, own, bounds[:, places], curvature))

    @property
    def small(self) -> float:
        """Largest predicted decrease at a minimum."""
        return max(SMALL_DECREASE, N_JUDGED * self.settings.tol)

    def run(self, start: np.ndarray) -> np.ndarray:
        """Iterate until no component improves; return the values."""
        objective, point = self.objective, start / self.sizes
        values, gradient = self._evaluate(point)
        if not (np.isfinite(values).all() and np.isfinite(gradient).all()):
            raise FitDivergedError(
                "The gradient of the loss is not finite where the fit starts. Look for roots, "
                "logarithms or powers of zero in the layers, or for very large values of X and y."
            )
        errors = objective.last_errors
        for part, value in zip(self.parts, values, strict=True):
            part.begin(point[part.places], value, gradient[part.places])
        while not self.reason and len(self.history) < self.settings.max_iter:
            active = [part.is_active for part in self.parts]
            if not any(active):
                break
            self.watcher.begin()
            values, gradient = self._evaluate(self._joined(point, _Part.trial, active))
            accepted = np.array(
                [
                    is_active and part.receive(value, gradient[part.places], self.settings.tol)
                    for is_active, part, value in zip(active, self.parts, values, strict=True)
                ]
            )
            point = self._joined(point, lambda part: part.point, active)
            errors = np.where(accepted[objective.component], objective.last_errors, errors)
            self._note(point, errors)
        self.is_done = not any(part.is_active for part in self.parts)
        point = self._finished(point)
        return point * self.sizes if self.best is None else self.best

    def _joined(self, point: np.ndarray, of: Callable[[_Part], np.ndarray], chosen) -> np.ndarray:
        """Return the values of all components with those of some replaced."""
        joined = point.copy()
        for is_chosen, part in zip(chosen, self.parts, strict=True):
            if is_chosen:
                joined[part.places] = of(part)
        return joined

    def _evaluate(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses of the components without the norms, and their gradients."""
        values, gradient = self.objective.values_and_gradient(point * self.sizes)
        return values, gradient * self.sizes

    def _finished(self, point: np.ndarray) -> np.ndarray:
        """Take a final proximal gradient step for exact zeros; also return predicted decreases."""
        everything = [True] * len(self.parts)

        def stepped(part: _Part) -> np.ndarray:
            rate = 1 / part.curvature.largest
            return part.shrunk(part.point - rate * part.gradient, rate)

        trial = self._joined(point, stepped, everything)
        values, gradient = self._evaluate(trial)
        for part, value in zip(self.parts, values, strict=True):
            new, slope = trial[part.places], gradient[part.places]
            is_finite = np.isfinite(slope).all()
            if is_finite and value + part.sum_of_norms(new) <= part.value:
                part.point, part.gradient = new, slope
        point = self._joined(point, lambda part: part.point, everything)

        def residual(part: _Part, at: np.ndarray, slope: np.ndarray) -> np.ndarray:
            return at - part.shrunk(at - slope, 1.0)

        left = self._joined(
            point, lambda part: residual(part, part.point, part.gradient), everything
        )
        component = self.objective.component_of_value
        self.promise = 0.5 * np.bincount(component, left**2, len(self.parts))

        def nearby(step: np.ndarray) -> np.ndarray:
            at = point + step
            _, slopes = self._evaluate(at)
            return self._joined(
                at,
                lambda part: residual(part, at[part.places], slopes[part.places]),
                everything,
            )

        if self.is_done and not self.settings.early_stopping:
            self.promise = promise_at_kinks(self.promise, self.small, component, nearby)
        return point

    def _note(self, point: np.ndarray, errors: np.ndarray) -> None:
        """Record an iteration, and whether it is the last."""
        objective, vector = self.objective, point * self.sizes
        error = float(objective.sizes.share @ errors)
        self.history.append(objective.with_penalty(error, vector))
        numbers = {"loss": self.history[-1]}
        if self.settings.early_stopping:
            self.held_out.append(objective.held_out_error(vector))
            numbers["validation_loss"] = self.held_out[-1]
            best = int(np.argmin(np.nan_to_num(self.held_out, nan=np.inf)))
            self.best = vector if best == len(self.held_out) - 1 else self.best
            if len(self.held_out) - 1 - best >= self.settings.n_iter_no_change:
                self.reason = "The held-out loss does not fall any more."
        if self.settings.verbose and len(self.history) % ITERATIONS_PER_LINE == 1:
            print(f"Iteration {len(self.history)}, error {self.history[-1]:.6g}")
        if self.watcher.end(numbers, vector if self.best is None else self.best):
            self.reason = self.reason or STOPPED

    def verdict(self) -> tuple[bool, str]:
        """Return whether the fit has converged, and why it stopped."""
        if self.reason:
            return self.reason != STOPPED, self.reason
        if not self.is_done:
            return False, f"The loss still fell after max_iter={self.settings.max_iter} iterations"
        worst = float(self.promise.max())
        if worst <= self.small or self.settings.early_stopping:
            return True, NO_PROGRESS
        return False, f"No step makes the loss smaller, but {promises(worst)}"
