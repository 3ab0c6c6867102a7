"""Preconditioned L-BFGS, separately for each component of a model.

The outputs of a population often share no parameters: the loss is then a sum of functions of
different parameters. They are evaluated together, but each component has separate curvature pairs,
steps and stopping (Nocedal & Wright 2006, Numerical Optimization, algorithms 3.1, 7.4 and 7.5), so
that the step of a component does not depend on other components. Bounds hold by projection
(Bertsekas 1982, SIAM J. Control Optim. 20, 221-246).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from skdyn._warnings import warn
from skdyn.core.training import NO_CALLBACK, FitDivergedError, Watcher
from skdyn.nems.fitting.gradients import check_start, layer_not_followed, single_is_enough
from skdyn.nems.fitting.minimum import SMALL_DECREASE, promise_at_kinks, promised, promises
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.parts import Part, part_of
from skdyn.nems.fitting.preconditioning import round_coordinates, scaled_coordinates
from skdyn.nems.fitting.results import (
    NO_PROGRESS,
    STOPPED,
    FitResults,
    Solver,
    nothing_to_fit,
)
from skdyn.nems.fitting.settings import FitSettings

# Number of stored curvature pairs.
N_PAIRS = 20

# Fraction of the linearly predicted decrease that a step must achieve (Armijo condition).
SUFFICIENT = 1e-4

# Consecutive backtracking steps after which a component restarts from its gradient.
MAX_SHORTENED = 20

# Number of iterations over which progress is averaged.
N_JUDGED = 5

# Number of evaluations after which coordinates are recomputed.
EVALUATIONS_PER_ROUND = 50

# Maximum number of rounds that a component ends without progress despite a large gradient.
N_FRUITLESS = 2

# Number of iterations between progress messages.
ITERATIONS_PER_LINE = 25

# Relative rounding error of a loss, in double and in single precision.
ROUNDING, SINGLE_ROUNDING = 1e-14, 1e-6


class LBFGS(Solver):
    """L-BFGS on all data, in double precision, within the bounds of the parameters."""

    name = "lbfgs"
    finds_minimum = True

    def fit(
        self,
        objective: Objective,
        settings: FitSettings,
        random_state: np.random.RandomState,
        watcher: Watcher = NO_CALLBACK,
    ) -> FitResults:
        """Fit the model of an objective in place; see `Solver`."""
        return _Fit(objective, settings, watcher).run()


# Attributes of a fit that iterations change.
_CHANGING = (
    *("in_single", "active", "n_fruitless", "promise", "errors", "recent"),
    *("history", "held_out", "best", "reason"),
)


def _joined(whole: Callable[[], dict], part: dict) -> dict:
    return {**whole(), **part}


class _Search:
    """Points, steps and curvature pairs of all components in one coordinate system."""

    def __init__(
        self, bounds: np.ndarray, component: np.ndarray, active: np.ndarray, rounding: float
    ):
        self.bounds, self.component, self.rounding = bounds, component, rounding
        self.n_components = len(active)
        self.point = np.zeros(len(component))
        self.active = active.copy()
        self.steps = np.zeros((N_PAIRS, len(component)))
        self.changes = np.zeros((N_PAIRS, len(component)))
        self.inverse = np.zeros((N_PAIRS, self.n_components))  # 1 / (s' y), 0 without a pair
        self.size = np.ones(self.n_components)
        self.n_shortened = np.zeros(self.n_components, dtype=int)

    def changing(self) -> dict[str, np.ndarray]:
        """Return the state that steps change."""
        fixed = ("bounds", "component", "n_components")
        return {name: value for name, value in vars(self).items() if name not in fixed}

    def dot(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return inner products, one per component."""
        return np.bincount(self.component, left * right, self.n_components)

    def begin(self, values: np.ndarray, gradient: np.ndarray) -> None:
        """Set the losses, the gradient and the first steps at the origin."""
        self.values, self.gradient = values.copy(), gradient.copy()
        self.direction = np.zeros_like(gradient)
        self._direct(self.active)
        # Without curvature information, the first step is short.
        self.size = 1 / np.maximum(1, np.sqrt(self.dot(self.direction, self.direction)))

    def trial(self) -> np.ndarray:
        """Return the trial point, at which each active component takes its step."""
        moved = self.point + self.size[self.component] * self.direction
        moved = np.clip(moved, self.bounds[:, 0], self.bounds[:, 1])
        return np.where(self.active[self.component], moved, self.point)

    def receive(self, trial: np.ndarray, values: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Accept sufficient steps and shorten the others; return which are accepted."""
        finite = np.isfinite(values)
        step = trial - self.point
        slope = self.dot(self.gradient, step)
        noise = self.rounding * (1 + np.abs(self.values))
        enough = values <= self.values + SUFFICIENT * slope + noise
        accepted = self.active & enough
        self._accept(accepted, trial, step, values, gradient)
        self._shorten(self.active & ~accepted, values, slope, finite)
        return accepted

    def _accept(self, accepted, trial, step, values, gradient) -> None:
        if not accepted.any():
            return
        here = accepted[self.component]
        change = np.where(here, gradient - self.gradient, 0.0)
        step = np.where(here, step, 0.0)
        curvature = self.dot(step, change)
        usable = accepted & (curvature > 1e-10 * self.dot(change, change))
        place = usable[self.component]
        for pairs, new in ((self.steps, step), (self.changes, change)):
            pairs[:-1, place] = pairs[1:, place]
            pairs[-1, place] = new[place]
        self.inverse[:-1, usable] = self.inverse[1:, usable]
        self.inverse[-1, usable] = 1 / curvature[usable]
        self.point = np.where(here, trial, self.point)
        self.values = np.where(accepted, values, self.values)
        self.gradient = np.where(here, gradient, self.gradient)
        self._direct(accepted)
        self.size = np.where(accepted, 1.0, self.size)
        self.n_shortened = np.where(accepted, 0, self.n_shortened)

    def _shorten(self, failed, values, slope, finite) -> None:
        if not failed.any():
            return
        # Minimum of the parabola through both losses with the initial slope.
        rise = values - self.values - slope
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(rise > 0, -slope / (2 * rise), 0.5)
        factor = np.where(finite, np.clip(factor, 0.1, 0.5), 0.1)
        self.size = np.where(failed, factor * self.size, self.size)
        self.n_shortened = self.n_shortened + failed
        lost = failed & (self.n_shortened == MAX_SHORTENED)
        if lost.any():  # the curvature pairs are useless
            self.inverse[:, lost] = 0
            self._direct(lost)
            norm = np.sqrt(self.dot(self.direction, self.direction))
            self.size = np.where(lost, 1 / np.maximum(1, norm), self.size)
        self.active &= self.n_shortened < 2 * MAX_SHORTENED

    def free(self) -> np.ndarray:
        """Return whether each coordinate can move against the gradient."""
        low, high = self.bounds.T
        at_low = (self.point <= low) & (self.gradient > 0)
        return ~(at_low | ((self.point >= high) & (self.gradient < 0)))

    def _direct(self, chosen: np.ndarray) -> None:
        """Set the directions of some components by the two-loop recursion."""
        free = self.free()
        rest = np.where(free, self.gradient, 0.0)
        weights = np.zeros((N_PAIRS, self.n_components))
        pairs = np.flatnonzero(self.inverse.any(axis=1))
        for pair in pairs[::-1]:
            weights[pair] = self.inverse[pair] * self.dot(self.steps[pair], rest)
            rest = rest - weights[pair][self.component] * self.changes[pair]
        length = self.dot(self.changes[-1], self.changes[-1]) * self.inverse[-1]
        rest = rest / np.where(length > 0, length, 1.0)[self.component]
        for pair in pairs:
            back = self.inverse[pair] * self.dot(self.changes[pair], rest)
            rest = rest + (weights[pair] - back)[self.component] * self.steps[pair]
        new = -np.where(free, rest, 0.0)
        uphill = self.dot(new, self.gradient) >= 0
        self.inverse[:, uphill & chosen] = 0
        new = np.where(uphill[self.component], -np.where(free, self.gradient, 0.0), new)
        self.direction = np.where(chosen[self.component], new, self.direction)

    def promise(self) -> np.ndarray:
        """Return the predicted decrease of each component from its gradient."""
        return promised(self.point, self.gradient, self.bounds, self.component, self.n_components)


@dataclass
class _Fit:
    """State of a running fit."""

    objective: Objective
    settings: FitSettings
    watcher: Watcher

    history: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    best: np.ndarray | None = None
    reason: str = ""
    begins_single: bool = False
    # State of the round in which a resumed fit was interrupted.
    earlier: dict[str, Any] | None = None

    @property
    def small(self) -> float:
        """Largest predicted decrease at a minimum."""
        return max(SMALL_DECREASE, N_JUDGED * self.settings.tol)

    def run(self) -> FitResults:
        """Iterate until no component improves."""
        objective = self.objective
        low, high = objective.model.get_bounds_vector()
        start = found = np.clip(objective.model.get_parameter_vector(), low, high)
        initial_error = check_start(objective, start)
        if not len(start):
            return nothing_to_fit(start, initial_error)
        self.exact = objective.is_exact = has_exact_gradients(objective, start)
        self._require_finite(start)
        n_components = len(objective.component_share)
        self.promise = np.zeros(n_components)
        self.errors = np.zeros(len(objective.factors))
        self.n_fruitless = np.zeros(n_components, dtype=int)
        # Losses of each component after its most recent iterations, the latest one last.
        self.recent = np.full((N_JUDGED + 1, n_components), np.inf)
        self.active = np.ones(n_components, dtype=bool)
        if self.exact and not self.settings.early_stopping:
            self.begins_single = single_is_enough(objective, start)
        self.in_single = self.begins_single
        self.earlier = self.watcher.earlier()
        if self.earlier is not None:
            self._go_on(self.earlier)
            found = self.earlier["found"]
        if self.in_single:
            with self._precision(objective):
                found = self._rounds(found)
            # Components that converged to within rounding error stay converged.
            self.active |= (self.promise > self.small) | (self.settings.tol < SINGLE_ROUNDING)
            self.in_single = False
        found = self._rounds(found)
        active = self.active
        if self.exact and not (active.any() or self.reason):
            with np.errstate(all="ignore"), self._precision(objective):
                self.promise = self._promise_at_kinks(found)  # excludes non-finite values
        return self._results(start, found, initial_error, not active.any())

    @property
    def _is_over(self) -> bool:
        return bool(self.reason) or len(self.history) >= self.settings.max_iter

    def _whole(self) -> dict[str, Any]:
        """Return the state that iterations change, except that of the round."""
        own = {name: getattr(self, name) for name in _CHANGING}
        return {**own, "n_evaluations": self.objective.n_evaluations}

    def _go_on(self, earlier: dict[str, Any]) -> None:
        for name in _CHANGING:
            setattr(self, name, earlier[name])
        self.watcher.resume(
            {"loss": self.history} | ({"validation_loss": self.held_out} if self.held_out else {})
        )

    @contextmanager
    def _precision(self, objective: Objective) -> Iterator[None]:
        """Use gradients in the initial precision for estimates."""
        before, objective.is_single = objective.is_single, self.begins_single
        try:
            yield
        finally:
            objective.is_single = before

    def _rounds(self, found: np.ndarray) -> np.ndarray:
        """Iterate until no component improves, and return the final values."""
        while self.earlier or (self.active.any() and not self._is_over):
            found, stalled = self._round(found)
            promises = self.promise > self.small
            self.n_fruitless += stalled & promises
            self.active &= ~stalled | (promises & (self.n_fruitless <= N_FRUITLESS))
        return found

    def _require_finite(self, start: np.ndarray) -> None:
        values, gradient = self._evaluate(self.objective, start)
        if not (np.isfinite(values).all() and np.isfinite(gradient).all()):
            raise FitDivergedError(
                "The gradient of the loss is not finite where the fit starts. Look for roots, "
                "logarithms or powers of zero in the layers, or for very large values of X and y."
            )

    def _evaluate(self, objective: Objective, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses of the components and the gradients of each."""
        if self.exact:
            return objective.values_and_gradient(vector)
        return self._numeric_gradient(vector)

    def _evaluate_finite(
        self, objective: Objective, vector: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate with an infinite loss for components with a non-finite loss or gradient."""
        values, gradient = self._evaluate(objective, vector)
        component = objective.component_of_value
        wrong = ~np.isfinite(values)
        wrong |= np.bincount(component, ~np.isfinite(gradient), len(values)) > 0
        return np.where(wrong, np.inf, values), np.where(wrong[component], 0.0, gradient)

    def _numeric_gradient(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        objective = self.objective
        values, component = objective.values(vector), objective.component_of_value
        errors = objective.last_errors
        low, high = objective.model.get_bounds_vector()
        gradient = np.zeros(len(vector))
        for place, value in enumerate(vector):
            step = np.cbrt(np.finfo(float).eps) * max(abs(value), 1e-3)
            ends = [min(value + step, high[place]), max(value - step, low[place])]
            losses = []
            for end in ends:
                vector[place] = end
                losses.append(objective.values(vector)[component[place]])
            vector[place] = value
            if ends[0] > ends[1]:
                gradient[place] = (losses[0] - losses[1]) / (ends[0] - ends[1])
        objective.last_errors = errors
        return values, gradient

    def _part(self, chosen: np.ndarray) -> tuple[Part, np.ndarray]:
        """Return the objective of some components, and which of its values have bounds."""
        # Held-out data are evaluated for the whole model.
        stops_early = self.settings.early_stopping
        part = Part(self.objective) if stops_early else part_of(self.objective, chosen)
        low, high = part.objective.model.get_bounds_vector()
        return part, np.isfinite(low) | np.isfinite(high)

    def _round(self, begun: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Iterate in coordinates of the start; return final values and stalled components."""
        settings, (part, boxed) = self.settings, self._part(self.active)
        objective, here = part.objective, part.components
        low, high = objective.model.get_bounds_vector()
        found, active, start = begun.copy(), self.active[here], begun[part.values]
        # The path of the fit matters for early stopping: without rotated coordinates, it first fits
        # the directions of the largest response, similar to a ridge penalty.
        if self.exact and not settings.early_stopping:
            with self._precision(objective):
                to = round_coordinates(objective, start, boxed)
        else:
            to = scaled_coordinates(objective, start)
        self.last = part, to
        bounds = np.where(boxed[:, np.newaxis], to.bounds(low, high), [-np.inf, np.inf])

        def inside(point: np.ndarray) -> np.ndarray:
            # Rounding errors of the coordinates must not move values across or off their bounds.
            vector = np.clip(to.parameters(point), low, high)
            vector = np.where(point <= bounds[:, 0], low, vector)
            return np.where(point >= bounds[:, 1], high, vector)

        rounding = SINGLE_ROUNDING if objective.is_single else ROUNDING
        search = _Search(bounds, objective.component_of_value, active, rounding)
        earlier, self.earlier = self.earlier, None
        if earlier is None:
            values, gradient = self._evaluate(objective, inside(search.point))
            errors = objective.last_errors
            search.begin(values, to.gradient(gradient))
            self.promise[here] = np.where(active, search.promise(), self.promise[here])
            stalled = active & (self.promise[here] == 0)  # nothing to improve there
            search.active &= ~stalled
        else:
            vars(search).update(earlier["search"])
            errors, stalled = earlier["errors_here"], earlier["stalled"]
            self.objective.n_evaluations = earlier["n_evaluations"]
            objective.n_evaluations = earlier["n_here"]
            found[part.values] = inside(search.point)
        first = 0 if earlier is None else earlier["n_done"]
        for number in range(first, EVALUATIONS_PER_ROUND if to.is_rotated else settings.max_iter):
            if not search.active.any() or self._is_over:
                break
            self.watcher.begin()
            trial = search.trial()
            values, gradient = self._evaluate_finite(objective, inside(trial))
            accepted = search.receive(trial, values, to.gradient(gradient))
            errors = np.where(accepted[objective.component], objective.last_errors, errors)
            self._judge(here, accepted, search.values)
            self.promise[here] = np.where(active, search.promise(), self.promise[here])
            stalled |= (accepted & self._has_stalled()[here]) | (active & ~search.active)
            found[part.values], self.errors[part.outputs] = inside(search.point), errors
            self._note(found)
            search.active &= ~stalled
            round_ = {"found": begun, "search": search.changing(), "errors_here": errors}
            round_ |= {"n_here": objective.n_evaluations}
            round_ |= {"stalled": stalled, "n_done": number + 1}
            self.watcher.keep(partial(_joined, self._whole, round_), is_last=False)
        if objective is not self.objective:
            self.objective.n_evaluations += objective.n_evaluations
        ends = np.zeros(len(self.promise), dtype=bool)
        ends[here] = stalled
        return found, ends

    def _judge(self, here, accepted: np.ndarray, values: np.ndarray) -> None:
        """Store the losses of components that took a step, and judge their progress."""
        recent = self.recent[:, here]
        recent[:-1, accepted] = recent[1:, accepted]
        recent[-1, accepted] = values[accepted]
        self.recent[:, here] = recent

    def _promise_at_kinks(self, found: np.ndarray) -> np.ndarray:
        """Return decreases predicted by gradients near the end, for losses with kinks."""
        doubtful = self.promise > self.small
        if self.settings.early_stopping or not doubtful.any():
            return self.promise
        part, to = self.last
        if np.delete(doubtful, part.components).any():
            part, boxed = self._part(doubtful)
            to = round_coordinates(part.objective, found[part.values], boxed)
        objective, end = part.objective, found[part.values]
        low, high = objective.model.get_bounds_vector()

        def gradient_at(step: np.ndarray) -> np.ndarray:
            nearby = np.clip(to.parameters(step) - to.origin + end, low, high)
            _, gradient = self._evaluate_finite(objective, nearby)
            at_bound = ((end <= low) & (gradient > 0)) | ((end >= high) & (gradient < 0))
            return to.gradient(np.where(at_bound, 0.0, gradient))

        promise, component = self.promise.copy(), objective.component_of_value
        promise[part.components] = promise_at_kinks(
            promise[part.components], self.small, component, gradient_at
        )
        return promise

    def _has_stalled(self) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            decrease = (self.recent[0] - self.recent[-1]) / N_JUDGED
        return decrease <= self.settings.tol

    def _note(self, vector: np.ndarray) -> None:
        """Record an iteration, and whether it is the last."""
        objective = self.objective
        error = float(objective.sizes.share @ self.errors)
        self.history.append(objective.with_penalty(error, vector))
        if self.settings.early_stopping:
            self._look_at_held_out(vector)
        if self.settings.verbose and len(self.history) % ITERATIONS_PER_LINE == 1:
            held_out = f", held out {self.held_out[-1]:.6g}" if self.held_out else ""
            print(f"Iteration {len(self.history)}, error {self.history[-1]:.6g}{held_out}")
        numbers = {"loss": self.history[-1]}
        if self.held_out:
            numbers["validation_loss"] = self.held_out[-1]
        if self.watcher.end(numbers, vector if self.best is None else self.best):
            self.reason = self.reason or STOPPED

    def _look_at_held_out(self, vector: np.ndarray) -> None:
        self.held_out.append(self.objective.held_out_error(vector))
        best = int(np.argmin(np.nan_to_num(self.held_out, nan=np.inf)))
        if best == len(self.held_out) - 1:
            self.best = vector.copy()
        if len(self.held_out) - 1 - best >= self.settings.n_iter_no_change:
            self.reason = "The held-out loss does not fall any more."

    def _results(
        self, start: np.ndarray, found: np.ndarray, initial_error: float, is_done: bool
    ) -> FitResults:
        objective = self.objective
        final = found if self.best is None else self.best
        converged, message = self._verdict(is_done)
        results = FitResults(
            initial_parameters=start,
            final_parameters=final,
            initial_error=initial_error,
            final_error=objective.error(final),
            n_iter=len(self.history),
            n_evaluations=objective.n_evaluations,
            converged=converged,
            stopped=self.reason == STOPPED,
            message=message,
            exact_gradients=self.exact,
            history=self.history,
            held_out_history=self.held_out,
        )
        # A nonnegative loss that is zero cannot improve.
        perfect = 0 <= results.final_error <= np.finfo(float).eps * objective.scale
        if perfect and objective.loss.has_closed_form:
            results.converged = True
        return results

    def _verdict(self, is_done: bool) -> tuple[bool, str]:
        """Return whether the fit has converged, and why it stopped."""
        if self.reason:
            return self.reason != STOPPED, self.reason
        if not is_done:
            return False, f"The loss still fell after max_iter={self.settings.max_iter} iterations"
        worst = float(self.promise.max())
        if worst <= self.small or self.settings.early_stopping:
            return True, NO_PROGRESS
        return False, f"No step makes the loss smaller, but {promises(worst)}"


def has_exact_gradients(objective: Objective, start: np.ndarray) -> bool:
    """Return whether autograd can trace all layers, and warn otherwise."""
    name = layer_not_followed(objective, start)
    if name is not None:
        warn(
            f"torch cannot follow the layer {name!r}, so gradients are numeric, which takes many "
            "times as long; write its evaluate in plain arithmetic or with torch.",
            UserWarning,
        )
    return name is None
