"""The parameters of a model, fitted to a response."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from skdyn._sklearn import one_blas_thread
from skdyn.core.runtime import one_thread
from skdyn.core.training import NOBODY, Watcher
from skdyn.nems.adam import fit_adam
from skdyn.nems.initialisation import adapt_others, start_from_data
from skdyn.nems.lbfgs import FitResults, fit_lbfgs
from skdyn.nems.linear import is_linear, solve_linear
from skdyn.nems.objective import CPU, LOSSES, Objective, Trial, squared_error
from skdyn.nems.trials import check_weighted, make_trials

if TYPE_CHECKING:
    from skdyn.nems.model import Model

# What it takes to fit an output nonlinearity alone well enough for a start.
START_ITERATIONS, START_TOL = 60, 1e-4


@dataclass(frozen=True)
class FitSettings:
    """How a model is fitted.

    Attributes
    ----------
    loss : callable
        Of response, prediction and weight, as `skdyn.nems.objective.squared_error`.
    alpha : float
        Weight of the penalty.
    solver : {"lbfgs", "adam"}
        Which solver.
    max_iter : int
        Most iterations of L-BFGS-B, or epochs of Adam.
    tol : float
        When progress is too small, relative to the loss of a constant prediction.
    early_stopping : bool
        Whether the loss of what is held out ends the fit.
    n_iter_no_change : int
        Iterations or epochs without progress that end it.
    batch_size : int or "auto"
        Windows in a step of Adam.
    learning_rate : float
        Step size of Adam.
    device : torch.device
        Where gradients are computed.
    verbose : int
        Whether progress is shown.
    """

    loss: Callable = squared_error
    alpha: float = 0.0
    solver: str = "lbfgs"
    max_iter: int = 1000
    tol: float = 2e-6
    early_stopping: bool = False
    n_iter_no_change: int = 10
    batch_size: int | str = "auto"
    learning_rate: float = 0.01
    device: torch.device = CPU
    verbose: int = 0


def fit_trials(
    model: Model,
    trials: Sequence[Trial],
    settings: FitSettings,
    random_state: np.random.RandomState | None = None,
    watcher: Watcher = NOBODY,
) -> FitResults:
    """Fit a model in place, from its present values.

    A model that is linear in its parameters is solved in closed form, unless the solver is Adam or
    the fit is to be stopped early.

    Parameters
    ----------
    model : Model
        The model; its layers know their sizes.
    trials : sequence of Trial
        What it is to predict.
    settings : FitSettings
        How.
    random_state : RandomState, default=None
        Order of Adam's batches; L-BFGS-B needs none.
    watcher : Watcher, default=NOBODY
        Who is told of each iteration or epoch, and may end the fit. What is solved in closed form
        counts as one.

    Returns
    -------
    FitResults
        What came of it.
    """
    objective = Objective(model, trials, settings.loss, settings.alpha, settings.device)
    if settings.solver == "adam":
        return fit_adam(
            objective,
            trials,
            max_iter=settings.max_iter,
            tol=settings.tol,
            n_iter_no_change=settings.n_iter_no_change,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            random_state=random_state or np.random.RandomState(),
            verbose=settings.verbose,
            watcher=watcher,
        )
    start = model.get_parameter_vector()
    if has_closed_form(model, trials, settings):
        watcher.begin()
        solve_linear(objective, trials)
        results = _closed_form(objective, start, settings.verbose)
        watcher.end({"loss": results.history[0]}, results.final_parameters)
        return results
    return fit_lbfgs(
        objective,
        max_iter=settings.max_iter,
        tol=settings.tol,
        n_iter_no_change=settings.n_iter_no_change if settings.early_stopping else None,
        verbose=settings.verbose,
        watcher=watcher,
    )


def has_closed_form(model: Model, trials: Sequence[Trial], settings: FitSettings) -> bool:
    """Tell whether a fit ends at the same point wherever it starts.

    Parameters
    ----------
    model : Model
        The model.
    trials : sequence of Trial
        What it is to predict.
    settings : FitSettings
        How.

    Returns
    -------
    bool
        Whether it is solved in closed form.
    """
    return (
        settings.loss is squared_error
        and settings.solver == "lbfgs"
        and not settings.early_stopping
        and is_linear(model, trials)
    )


def _closed_form(objective: Objective, start: np.ndarray, verbose: int) -> FitResults:
    found = objective.model.get_parameter_vector()
    initial_error, final_error = objective.error(start), objective.error(found)
    results = FitResults(
        initial_parameters=start,
        final_parameters=found,
        initial_error=initial_error,
        final_error=final_error,
        n_iter=1,
        n_evaluations=objective.n_evaluations,
        converged=True,
        message="Solved in closed form.",
        exact_gradients=True,
        history=[final_error + 0.5 * float(objective.penalty @ found**2)],
    )
    if verbose:
        print(f"Fit successful: True, error {results.final_error:.6g}, {results.message}")
    return results


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
    tol: float = 2e-6,
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
    tol : float, default=2e-6
        Decrease of the loss per iteration, relative to the loss of a constant prediction and as a
        mean over five, below which the fit has converged.
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
    if init not in (None, "auto"):
        raise ValueError(f"Got init={init!r}, expected None or 'auto'.")
    if not model.layers:
        raise ValueError("Got a model without layers, expected some; do use add_layers.")
    fitted = model if in_place else model.copy()
    made = make_trials(fitted, (input, state), target, sample_weight, trials)
    check_weighted(made)
    check_counts(loss, made)
    fitted.take_sizes(made[0].data)
    settings = FitSettings(
        loss=loss if callable(loss) else LOSSES[loss],
        alpha=alpha,
        max_iter=max_iter,
        tol=tol,
        verbose=verbose,
    )
    with one_thread(), one_blas_thread():
        if init == "auto" and not has_closed_form(fitted, made, settings):
            start_at_data(fitted, made)
        fitted.results = fit_trials(fitted, made, settings)
    return fitted


def check_counts(loss: str | Callable, trials: Sequence[Trial]) -> None:
    """Check that a response can be what a loss is for.

    Parameters
    ----------
    loss : str or callable
        The loss.
    trials : sequence of Trial
        The response.

    Raises
    ------
    ValueError
        If the loss is that of counts, and the response is negative.
    """
    if loss == "poisson" and any(np.any((t.target < 0) & (t.weight > 0)) for t in trials):
        raise ValueError("Got a response below zero, expected counts for loss='poisson'.")


def start_at_data(model: Model, trials: Sequence[Trial]) -> None:
    """Set the linear layers from the data, then fit what comes after them to their output.

    Parameters
    ----------
    model : Model
        The model; its values change if it begins with such layers, and what comes out is finite.
    trials : sequence of Trial
        What it is to predict.
    """
    before = model.get_parameter_vector()
    n_linear = start_from_data(model, trials)
    others = model.layers[n_linear:]
    alone = all(layer.input is None and not hasattr(layer, "state_arg") for layer in others)
    if n_linear and len(others) and alone:
        outputs = adapt_others(model, trials, n_linear)
        if not all(np.isfinite(model.output(trial.data)).all() for trial in trials):
            # Such as the logarithm of less than zero; the values of before may do better.
            model.set_parameter_vector(before, ignore_bounds=True)
            return
        rest = type(model)([layer.copy() for layer in others])
        with warnings.catch_warnings():
            # The fit itself says which layer torch cannot follow.
            warnings.simplefilter("ignore", UserWarning)
            settings = FitSettings(max_iter=START_ITERATIONS, tol=START_TOL)
            fit_trials(rest, outputs, settings)
        for layer, fitted in zip(others, rest.layers, strict=True):
            for name, parameter in fitted.parameters.items():
                layer[name].values = parameter.values
