"""The parameters of a model, fitted to a response."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize

from skdyn.nems.initialisation import adapt_nonlinearities, start_from_data
from skdyn.nems.objective import LOSSES, Objective, Trial, squared_error, tensors_of

if TYPE_CHECKING:
    from skdyn.nems.model import Model

# Largest relative error of a gradient along a direction that counts as rounding.
GRADIENT_TOLERANCE = 1e-4

# The number of evaluations is not limited, only that of iterations; a loss that does not fall any
# more ends the fit, and no size of a gradient.
SOLVER_OPTIONS = {"maxcor": 20, "maxfun": np.iinfo(np.int32).max, "gtol": 0.0}

# What it takes to fit an output nonlinearity alone well enough for a start.
START_ITERATIONS, START_TOL = 60, 1e-6

# How often progress is told.
ITERATIONS_PER_LINE = 25


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

    @property
    def n_parameters(self) -> int:
        """How many values were fitted.

        Returns
        -------
        int
            Those that are not frozen.
        """
        return len(self.final_parameters)


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
    theta = torch.tensor(vector, dtype=torch.float64, requires_grad=True)
    data, _, _ = objective.groups[0]
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
    model: Model,
    trials: Sequence[Trial],
    *,
    loss: Callable = squared_error,
    alpha: float = 0.0,
    max_iter: int = 1000,
    tol: float = 1e-9,
    verbose: int = 0,
) -> FitResults:
    """Fit a model in place with SciPy's L-BFGS-B, within the bounds of its parameters.

    Parameters
    ----------
    model : Model
        The model; fitted from its present values.
    trials : sequence of Trial
        What it is to predict.
    loss : callable, default=squared_error
        Of response, prediction and weight.
    alpha : float, default=0.0
        Weight of the penalty.
    max_iter : int, default=1000
        Most iterations.
    tol : float, default=1e-9
        Decrease of the loss in one iteration, relative to the loss of a constant prediction, below
        which the fit has converged.
    verbose : int, default=0
        Whether progress is printed.

    Returns
    -------
    FitResults
        What came of it.
    """
    objective = Objective(model, trials, loss, alpha)
    low, high = model.get_bounds_vector()
    start = np.clip(model.get_parameter_vector(), low, high)
    initial_error = objective.error(start)
    exact = _has_exact_gradients(model, objective, start)
    history: list[float] = []

    def note(intermediate_result):
        history.append(objective.scale * float(intermediate_result.fun))
        if verbose and len(history) % ITERATIONS_PER_LINE == 1:
            print(f"Iteration {len(history)}, error {history[-1]:.6g}")

    found = OptimizeResult(x=start, nit=0, status=0, message="There is nothing to fit.")
    if len(start):
        found = minimize(
            objective.value_and_gradient if exact else objective.value,
            start,
            jac=True if exact else "3-point",
            method="L-BFGS-B",
            bounds=np.column_stack([low, high]),
            callback=note,
            options={"maxiter": max_iter, "ftol": tol, **SOLVER_OPTIONS},
        )
    results = FitResults(
        initial_parameters=start,
        final_parameters=found.x,
        initial_error=initial_error,
        final_error=objective.error(found.x),
        n_iter=int(found.nit),
        n_evaluations=objective.n_evaluations,
        converged=bool(found.status == 0),
        message=str(found.message),
        exact_gradients=exact,
        history=history,
    )
    # A line search that finds nothing better because nothing is left to improve has succeeded.
    perfect = results.final_error <= np.finfo(float).eps * objective.scale
    results.converged = bool(results.converged or perfect)
    if verbose:
        error = f"error {results.final_error:.6g}"
        print(f"Fit successful: {results.converged}, {error}, {results.message}")
    return results


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


def fit_model(
    model: Model,
    input,  # noqa: A002
    target,
    state=None,
    *,
    loss: str | Callable = "squared_error",
    alpha: float = 0.0,
    sample_weight=None,
    trials: bool = False,
    max_iter: int = 1000,
    tol: float = 1e-9,
    init: str | None = None,
    verbose: int = 1,
    in_place: bool = False,
) -> Model:
    """Fit a model.

    Parameters
    ----------
    model : Model
        The model.
    input, state
        As in `Model.evaluate`.
    target : array-like of shape (n_samples,) or (n_samples, n_outputs)
        The response; with `trials`, with an axis of trials in front.
    loss : {"squared_error", "poisson"} or callable, default="squared_error"
        What is minimised, a function of response, prediction and weight.
    alpha : float, default=0.0
        Weight of half the sum of squares of the coefficients of filters and channels, and of all
        parameters of a user's layers; a layer's attribute `penalised` names those that count.
    sample_weight : array-like of shape (n_samples,) or like the target, default=None
        Weights; 0 leaves a number of the response out.
    trials : bool, default=False
        Whether the first axis is one of trials.
    max_iter : int, default=1000
        Most iterations.
    tol : float, default=1e-9
        Decrease of the loss in one iteration, relative to the loss of a constant prediction, below
        which the fit has converged.
    init : {None, "auto"}, default=None
        Where to start: None at the values that the model has. "auto" at a linear filter of the
        model's ranks that is found from the data, and an output nonlinearity that goes with it;
        a model that does not begin with such layers starts at its values.
    verbose : int, default=1
        Whether progress is printed.
    in_place : bool, default=False
        Whether the model itself is fitted, and not a copy.

    Returns
    -------
    Model
        The fitted one, with `results`.
    """
    if not callable(loss) and loss not in LOSSES:
        raise ValueError(
            f"Got loss={loss!r}, expected one of {', '.join(map(repr, LOSSES))}, or a function."
        )
    fitted = model if in_place else model.copy()
    made = _make_trials(fitted, (input, state), target, sample_weight, trials)
    if loss == "poisson" and min(trial.target.min() for trial in made) < 0:
        raise ValueError("Got a response below zero, expected counts for loss='poisson'.")
    fitted.take_sizes(made[0].data)
    if init not in (None, "auto"):
        raise ValueError(f"Got init={init!r}, expected None or 'auto'.")
    if init == "auto":
        _start(fitted, made)
    fitted.results = fit_lbfgs(
        fitted,
        made,
        loss=loss if callable(loss) else LOSSES[loss],
        alpha=alpha,
        max_iter=max_iter,
        tol=tol,
        verbose=verbose,
    )
    return fitted


def _start(model: Model, trials: list[Trial]) -> None:
    """Set the linear layers from the data, then fit what comes after them to their output."""
    n_linear = start_from_data(model, trials)
    others = model.layers[n_linear:]
    alone = all(layer.input is None and not hasattr(layer, "state_arg") for layer in others)
    if n_linear and len(others) and alone:
        outputs = adapt_nonlinearities(model, trials, n_linear)
        rest = type(model)([layer.copy() for layer in others])
        with warnings.catch_warnings():
            # The fit itself says which layer torch cannot follow.
            warnings.simplefilter("ignore", UserWarning)
            fit_lbfgs(rest, outputs, max_iter=START_ITERATIONS, tol=START_TOL)
        for layer, fitted in zip(others, rest.layers, strict=True):
            for name, parameter in fitted.parameters.items():
                layer[name].values = parameter.values


def _make_trials(model: Model, given, target, sample_weight, trials: bool) -> list[Trial]:
    data, target = model.check_data(*given), np.asarray(target, dtype=float)
    weight = _check_weight(sample_weight, target, n_axes=2 if trials else 1)
    if not trials:
        data = {name: array[None] for name, array in data.items()}
        target, weight = target[None], weight[None]
    n_trials, n_samples = (max(np.shape(a)[axis] for a in data.values()) for axis in (0, 1))
    if target.shape[:2] != (n_trials, n_samples):
        raise ValueError(
            f"Got {n_trials} trials of {n_samples} samples, and a response of {target.shape[:2]}, "
            "expected as many."
        )
    if not np.isfinite(target).all():
        raise ValueError(
            "Got a response with NaN or infinite values, expected numbers; set them to 0 and give "
            "them a sample_weight of 0."
        )
    return [
        Trial(
            {name: array[0 if len(array) == 1 else number] for name, array in data.items()},
            target[number].reshape(n_samples, -1),
            weight[number],
        )
        for number in range(n_trials)
    ]


def _check_weight(sample_weight, target: np.ndarray, n_axes: int) -> np.ndarray:
    """Weights, with an axis of outputs behind those of trials and samples."""
    samples = target.shape[:n_axes]
    weight = np.ones(samples) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    if weight.shape not in (samples, target.shape) or np.any(weight < 0):
        raise ValueError(
            f"Got sample_weight of shape {weight.shape}, expected weights of at least zero, one "
            f"per sample, {samples}, or one per number of the response, {target.shape}."
        )
    return weight.reshape(*samples, -1)
