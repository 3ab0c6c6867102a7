"""L-BFGS-B, in coordinates that fit the loss, with exact gradients where torch can follow."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize

from skdyn.core.training import NOBODY, Watcher
from skdyn.nems.curvature import plain_coordinates, round_coordinates
from skdyn.nems.objective import Objective, tensors_of

if TYPE_CHECKING:
    from skdyn.nems.model import Model

# Largest relative error of a gradient along a direction that counts as rounding.
GRADIENT_TOLERANCE = 1e-4

# The number of evaluations is not limited, only that of iterations; a loss that does not fall any
# more ends the fit, and no size of a gradient. That is decided here, not by the solver, since it
# takes a single small step for the end.
SOLVER_OPTIONS = {"maxcor": 20, "maxfun": np.iinfo(np.int32).max, "gtol": 0.0, "ftol": 0.0}

# What a loss is taken for that is not a number, in units of its scale.
HUGE = 1e10

# Iterations over which progress is judged.
N_JUDGED = 5

# Iterations after which coordinates are found anew. Measured: where a fit takes hundreds, 50 was
# better than never; 30 to 75 did alike.
ITERATIONS_PER_ROUND = 50

# How often progress is told.
ITERATIONS_PER_LINE = 25

STOPPED = "It was asked to stop."


@dataclass
class FitResults:
    """What came of a fit.

    Attributes
    ----------
    initial_parameters, final_parameters : ndarray of shape (n_parameters,)
        Values that are not frozen, before and after.
    initial_error, final_error : float
        Loss, without the penalty.
    n_iter : int
        Iterations.
    n_evaluations : int
        How often the loss was computed, with its gradient.
    converged : bool
        Whether the solver stopped by itself.
    message : str
        Why it stopped.
    exact_gradients : bool
        Whether torch could follow all layers.
    history : list of float
        Loss with the penalty, after each iteration.
    held_out_history : list of float
        Loss of what was held out, after each iteration; empty if nothing was.
    stopped : bool
        Whether a watcher ended the fit.
    """

    initial_parameters: np.ndarray
    final_parameters: np.ndarray
    initial_error: float
    final_error: float
    n_iter: int
    n_evaluations: int
    converged: bool
    message: str
    exact_gradients: bool
    history: list[float] = field(default_factory=list)
    held_out_history: list[float] = field(default_factory=list)
    stopped: bool = False

    @property
    def n_parameters(self) -> int:
        """How many values were fitted.

        Returns
        -------
        int
            Those that are not frozen.
        """
        return len(self.final_parameters)

    @property
    def criterion(self) -> float:
        """What tells which of several fits is the best.

        Returns
        -------
        float
            The smallest held-out loss or, if nothing was held out, the loss with the penalty.
        """
        looked_at = self.held_out_history or self.history or [self.final_error]
        return float(np.min(np.nan_to_num(looked_at, nan=np.inf)))


def layer_not_followed(model: Model, objective: Objective, vector: np.ndarray) -> str | None:
    """Name of the first layer through which torch finds no gradient, or a wrong one.

    Layers that are not the package's own are compared with finite differences along a direction,
    since what they compute may leave torch without an error.

    Parameters
    ----------
    model : Model
        The model.
    objective : Objective
        Its loss.
    vector : ndarray of shape (n_free,)
        Where to look.

    Returns
    -------
    str or None
        None if gradients are exact.
    """
    theta = torch.tensor(vector, dtype=torch.float64, device=objective.device, requires_grad=True)
    data = objective.groups[0].data
    reached: list[str] = []
    with tensors_of(model, theta), warnings.catch_warnings():
        # torch warns of what is about to be found out.
        warnings.simplefilter("ignore")
        try:
            # Those before an error stay in the list.
            steps = model.steps({name: values[0] for name, values in data.items()})
            reached.extend(str(layer.name) for layer in steps)
            objective.predict(data)
        except Exception:
            # Whatever it is that tensors cannot do; arrays have been through all layers already.
            return str(model.layers[min(len(reached), len(model.layers) - 1)].name)
    own = [layer for layer in model.layers if not type(layer).__module__.startswith("skdyn.")]
    if not own:
        return None
    try:
        _, gradient = objective.value_and_gradient(vector)
    except RuntimeError:
        return str(own[0].name)
    direction = np.random.default_rng(0).standard_normal(len(vector))
    step = 1e-5 * max(1.0, float(np.abs(vector).max()))
    ends = [objective.value(vector + sign * step * direction) for sign in (1, -1)]
    objective.model.set_parameter_vector(vector, ignore_bounds=True)
    numeric = (ends[0] - ends[1]) / (2 * step)
    scale = np.abs(gradient) @ np.abs(direction) + abs(numeric)
    rounding = 1e-10 * max(map(abs, ends)) / step
    wrong = abs(numeric - gradient @ direction) > GRADIENT_TOLERANCE * scale + rounding
    return str(own[0].name) if wrong else None


def fit_lbfgs(
    objective: Objective,
    *,
    max_iter: int = 1000,
    tol: float = 2e-6,
    n_iter_no_change: int | None = None,
    verbose: int = 0,
    watcher: Watcher = NOBODY,
) -> FitResults:
    """Fit the model of an objective in place with SciPy's L-BFGS-B, within its bounds.

    Parameters
    ----------
    objective : Objective
        The loss; its model is fitted from its present values.
    max_iter : int, default=1000
        Most iterations.
    tol : float, default=2e-6
        Decrease of the loss per iteration, relative to the loss of a constant prediction and as a
        mean over five, below which the fit has converged.
    n_iter_no_change : int, default=None
        Iterations without a smaller loss of what is held out, after which the fit stops; the best
        values stay. None does not look at it.
    verbose : int, default=0
        Whether progress is printed.
    watcher : Watcher, default=NOBODY
        Who is told of each iteration, and may end the fit; the weights are a vector of parameters.
        The last iteration has no end if no smaller loss was found.

    Returns
    -------
    FitResults
        What came of it.
    """
    model = objective.model
    low, high = model.get_bounds_vector()
    start = np.clip(model.get_parameter_vector(), low, high)
    initial_error = objective.error(start)
    exact = _has_exact_gradients(model, objective, start)
    watch = _Watch(objective, tol, n_iter_no_change, verbose, watcher)
    found = OptimizeResult(x=start, nit=0, status=0, message="There is nothing to fit.")
    # Where a fit is stopped early, its path counts: that of the parameters themselves goes first
    # where the response is largest, as a ridge penalty does.
    is_round = exact and n_iter_no_change is None
    while len(start) and len(watch.history) < max_iter:
        n_before = len(watch.history)
        found = _one_round(objective, found.x, watch, exact, is_round, max_iter)
        if not (is_round or watch.met_nonsense) and len(watch.history) == n_before:
            watch.reason = "No step makes the loss smaller."
        if watch.reason or found.status == 0:
            break
        # Coordinates that lead nowhere were those of another place.
        is_round = is_round and found.nit >= ITERATIONS_PER_ROUND
    results = FitResults(
        initial_parameters=start,
        final_parameters=found.x if watch.best is None else watch.best,
        initial_error=initial_error,
        final_error=0.0,
        n_iter=len(watch.history),
        n_evaluations=objective.n_evaluations,
        converged=bool(found.status == 0 or watch.reason) and watch.reason != STOPPED,
        stopped=watch.reason == STOPPED,
        message=watch.reason or str(found.message),
        exact_gradients=exact,
        history=watch.history,
        held_out_history=watch.held_out,
    )
    results.final_error = objective.error(results.final_parameters)
    # A line search that finds nothing better because nothing is left to improve has succeeded.
    perfect = results.final_error <= np.finfo(float).eps * objective.scale
    results.converged = bool(results.converged or perfect)
    if verbose:
        error = f"error {results.final_error:.6g}"
        print(f"Fit successful: {results.converged}, {error}, {results.message}")
    return results


class _Watch:
    """What is noted after each iteration, and whether to stop for it."""

    def __init__(
        self,
        objective: Objective,
        tol: float,
        patience: int | None,
        verbose: int,
        watcher: Watcher,
    ):
        self.objective, self.tol, self.patience = objective, tol, patience
        self.verbose, self.watcher = verbose, watcher
        # Whether an iteration is under way.
        self.is_open = False
        self.history: list[float] = []
        self.held_out: list[float] = []
        self.best: np.ndarray | None = None
        self.reason = ""
        # Whether the loss was not a number somewhere in the present round.
        self.met_nonsense = False

    def begin(self) -> None:
        """Note that something is computed: an iteration is under way."""
        if not self.is_open:
            self.is_open = True
            self.watcher.begin()

    def note(self, value: float, vector: np.ndarray) -> None:
        """Note one iteration; raises StopIteration, which SciPy takes as a wish to stop."""
        self.history.append(self.objective.scale * value)
        if self.patience is not None:
            self._look_at_held_out(vector, self.patience)
        if self.verbose and len(self.history) % ITERATIONS_PER_LINE == 1:
            held_out = f", held out {self.held_out[-1]:.6g}" if self.held_out else ""
            print(f"Iteration {len(self.history)}, error {self.history[-1]:.6g}{held_out}")
        judged = self.history[-N_JUDGED - 1 :]
        if len(judged) > N_JUDGED:
            decrease = (judged[0] - judged[-1]) / N_JUDGED
            if decrease <= self.tol * self.objective.scale:
                self.reason = "The loss does not fall any more."
        self._tell(vector if self.best is None else self.best)
        if self.reason:
            raise StopIteration

    def _tell(self, vector: np.ndarray) -> None:
        numbers = {"loss": self.history[-1]}
        if self.held_out:
            numbers["validation_loss"] = self.held_out[-1]
        self.is_open = False
        if self.watcher.end(numbers, vector) and not self.reason:
            self.reason = STOPPED

    def _look_at_held_out(self, vector: np.ndarray, patience: int) -> None:
        self.held_out.append(self.objective.held_out_error(vector))
        best = int(np.argmin(np.nan_to_num(self.held_out, nan=np.inf)))
        if best == len(self.held_out) - 1:
            self.best = vector.copy()
        if len(self.held_out) - 1 - best >= patience:
            self.reason = "The held-out loss does not fall any more."


def _one_round(
    objective: Objective,
    start: np.ndarray,
    watch: _Watch,
    exact: bool,
    is_round: bool,
    max_iter: int,
) -> OptimizeResult:
    """Iterate in the coordinates that suit the start, or in the parameters themselves."""
    low, high = objective.model.get_bounds_vector()
    boxed = np.isfinite(low) | np.isfinite(high)
    to = round_coordinates(objective, start, boxed) if is_round else plain_coordinates(start)
    bounds = np.where(boxed[:, np.newaxis], to.bounds(low, high), [-np.inf, np.inf])

    def inside(point: np.ndarray) -> np.ndarray:
        # Rounding in the coordinates must not carry values over their bounds, or off them.
        vector = np.clip(to.parameters(point), low, high)
        vector = np.where(point <= bounds[:, 0], low, vector)
        return np.where(point >= bounds[:, 1], high, vector)

    watch.met_nonsense = False

    def is_sound(*numbers) -> bool:
        sound = all(np.isfinite(one).all() for one in numbers)
        watch.met_nonsense |= not sound
        return sound

    def value_and_gradient(point):
        watch.begin()
        value, gradient = objective.value_and_gradient(inside(point))
        if is_sound(value, gradient):
            return value, to.gradient(gradient)
        # The step was too long: a wall, which rises away from where the round began.
        return HUGE, HUGE * np.nan_to_num(point)

    def value_alone(point):
        watch.begin()
        value = objective.value(inside(point))
        return value if is_sound(value) else HUGE

    def note(intermediate_result):
        if intermediate_result.fun >= HUGE:
            raise StopIteration
        watch.note(float(intermediate_result.fun), inside(intermediate_result.x))

    n_left = max_iter - len(watch.history)
    if is_round:
        n_left = min(n_left, ITERATIONS_PER_ROUND)
    found = minimize(
        value_and_gradient if exact else value_alone,
        np.zeros(len(start)),
        jac=True if exact else "3-point",
        method="L-BFGS-B",
        bounds=bounds,
        callback=note,
        options={"maxiter": n_left, **SOLVER_OPTIONS},
    )
    if found.fun < HUGE and np.isfinite(found.x).all():
        found.x = inside(found.x)
    else:
        found.x, found.nit, found.status = start, 0, 2
    return found


def _has_exact_gradients(model: Model, objective: Objective, start: np.ndarray) -> bool:
    """Tell whether torch can follow all layers, and warn if it cannot."""
    name = layer_not_followed(model, objective, start) if len(start) else None
    if name is not None:
        warnings.warn(
            f"torch cannot follow the layer {name!r}, so gradients are numeric, which takes many "
            "times as long; write its evaluate in plain arithmetic or with torch.",
            UserWarning,
            stacklevel=4,
        )
    return name is None
