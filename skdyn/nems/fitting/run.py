"""The course of a fit: trials, initial values, solver and convergence check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral, Real

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from skdyn._checkpoints import CHECKPOINT_CONSTRAINTS, close_checkpoint, open_checkpoint
from skdyn._sklearn import Interval, StrOptions, one_blas_thread, validate_parameter_constraints
from skdyn._warnings import warn
from skdyn.core.checkpoint import Checkpoint
from skdyn.core.distributed import n_processes
from skdyn.core.runtime import check_device, one_thread
from skdyn.core.training import NO_CALLBACK, Watcher
from skdyn.nems.fitting.adam import Adam
from skdyn.nems.fitting.closed_form import is_linear, solve_linear
from skdyn.nems.fitting.lbfgs import LBFGS
from skdyn.nems.fitting.objective import Objective, Sizes
from skdyn.nems.fitting.penalties import has_norms
from skdyn.nems.fitting.proximal import Proximal
from skdyn.nems.fitting.results import FitResults, Solver
from skdyn.nems.fitting.saving import Saving
from skdyn.nems.fitting.settings import FitSettings
from skdyn.nems.fitting.start import (
    break_ties,
    start_at_data,
    start_in_two_stages,
    take_statistics,
)
from skdyn.nems.fitting.trials import (
    Trial,
    check_weighted,
    hold_out,
    make_trials,
    output_in_pieces,
)
from skdyn.nems.losses import LOSSES, Loss, make_loss
from skdyn.nems.model import Model
from skdyn.sessions import as_numbers

SOLVERS: dict[str, type[Solver]] = {kind.name: kind for kind in (LBFGS, Adam, Proximal)}

_COUNT = [Interval(Integral, 1, None, closed="left")]
_POSITIVE = [Interval(Real, 0, None, closed="neither")]

# Constraints of the parameters of a fit, in scikit-learn's notation.
CONSTRAINTS: dict[str, list] = {
    "loss": [StrOptions(set(LOSSES)), Loss, callable],
    "solver": [StrOptions(set(SOLVERS)), Solver],
    "alpha": [Interval(Real, 0, None, closed="left"), "array-like"],
    "init": [StrOptions({"auto", "two_stage", "given", "prior_mean", "prior_sample"})],
    "n_init": _COUNT,
    "n_jobs": [Integral, None],
    "max_iter": _COUNT,
    "tol": [Interval(Real, 0, None, closed="left")],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": _COUNT,
    "batch_size": [*_COUNT, StrOptions({"auto"})],
    "learning_rate": _POSITIVE,
    "history": [StrOptions({"zeros", "skip"})],
    "random_state": ["random_state"],
    "device": [str],
    "verbose": ["verbose"],
}
DEFAULTS: dict[str, object] = {
    "loss": "squared_error",
    "solver": "lbfgs",
    "alpha": 0.0,
    "init": "auto",
    "n_init": 1,
    "n_jobs": None,
    "max_iter": 1000,
    "tol": 2e-6,
    "early_stopping": False,
    "validation_fraction": 0.1,
    "n_iter_no_change": 10,
    "batch_size": "auto",
    "learning_rate": 0.01,
    "history": "skip",
    "random_state": None,
    "device": "cpu",
    "verbose": 0,
}


class Observer:
    """Receives a call before and after each start of a fit; this base class does nothing."""

    def begin(self, model: Model, trials: Sequence[Trial]) -> Watcher:
        """Receive a call before a fit.

        Parameters
        ----------
        model : Model
            The model.
        trials : sequence of Trial
            The training data.

        Returns
        -------
        Watcher
            Watcher that receives a call before and after each step.
        """
        return NO_CALLBACK

    def end(self, model: Model) -> bool:
        """Receive a call after a fit.

        Parameters
        ----------
        model : Model
            The fitted model.

        Returns
        -------
        bool
            Whether to stop after this fit.
        """
        return False


def fit_model(model: Model, input, target, given: dict, options: dict) -> None:  # noqa: A002
    """Fit a model in place; implementation of `Model.fit`.

    Parameters
    ----------
    model : Model
        The model.
    input : tuple
        Input and state, as in `Model.evaluate`.
    target : array-like
        The response.
    given : dict
        sample_weight, trials and preceding, as in `Model.fit`.
    options : dict
        Parameters of the fit.
    """
    constraints = CONSTRAINTS | CHECKPOINT_CONSTRAINTS
    unknown = sorted(set(options) - set(constraints))
    if unknown:
        raise TypeError(f"Unknown options {unknown} of fit: expected some of {list(constraints)}.")
    own = {"init": "given", "verbose": 1, "checkpoint": None, "checkpoint_every": 10}
    options = {**DEFAULTS, **own, **options}
    validate_parameter_constraints(constraints, options, "Model.fit")
    if not model.layers:
        raise ValueError("The model has no layers; add some with add_layers.")
    trials = make_trials(model, input, target, **given, history=options["history"])
    data = {"input": input[0], "state": input[1], "target": target, **given}
    # Missing sizes are inferred first, so that checkpoints recognise a model that was not copied.
    parts = {f"layer {layer.name}": layer for layer in model.layers}
    checkpoint = open_checkpoint(type(model).__name__, options, data | parts)
    fitted = fit_trials(model, trials, options, checkpoint=checkpoint)
    close_checkpoint(checkpoint, options["random_state"])
    model.set_parameter_vector(fitted.get_parameter_vector(), ignore_bounds=True)
    model.results = fitted.results
    assert fitted.results is not None


Model.fitter = staticmethod(fit_model)


def fit_trials(
    model: Model,
    trials: Sequence[Trial],
    options: dict,
    observer: Observer | None = None,
    random_state: np.random.RandomState | None = None,
    checkpoint: Checkpoint | None = None,
) -> Model:
    """Fit copies of a model from one or more starts, and return the best.

    Parameters
    ----------
    model : Model
        The model, with known sizes of all layers.
    trials : sequence of Trial
        The trials to predict.
    options : dict
        Values of all parameters in `CONSTRAINTS`.
    observer : Observer, default=None
        Receives a call before and after each start.
    random_state : RandomState, default=None
        Source of randomness; None uses the option random_state.
    checkpoint : Checkpoint, default=None
        Checkpoint to which the state is written, and from which an interrupted fit continues.

    Returns
    -------
    Model
        The best of the fitted copies, with `results`.

    Warns
    -----
    ConvergenceWarning
        If the fit did not end at a minimum.
    """
    loss, solver = make_loss(options["loss"]), make_solver(options["solver"])
    check_weighted(trials, model, options["history"])
    if has_norms(model) and not solver.handles_norms:
        raise ValueError(
            f"A layer has a penalty with kinks, such as L1, which solver={solver.name!r} cannot "
            "minimise. Use solver='proximal'."
        )
    for trial in trials:
        loss.check(trial.target[np.broadcast_to(trial.weight > 0, trial.target.shape)])
    random_state = random_state or make_random_state(options["random_state"])
    settings = make_settings(options, loss, trials[0].target.shape[1])
    observer = observer or Observer()
    together = solver.shares_processes
    saving = Saving(checkpoint, random_state, settings.device, together=together)
    if settings.early_stopping:
        trials = hold_out(trials, options["validation_fraction"], random_state)
    with one_thread(), one_blas_thread():
        objective = Objective(model, trials, loss, settings.alpha, settings.device)
        is_exact = (
            loss.has_closed_form
            and solver.finds_minimum
            and not settings.early_stopping
            and is_linear(model, trials)
            and not has_norms(model)
        )
        n_starts = 1 if is_exact else options["n_init"]
        sources = _sources(random_state, n_starts)
        fit = partial(
            _fit_start,
            model,
            trials,
            options["init"],
            solver=solver,
            is_exact=is_exact,
            sizes=objective.sizes,
            settings=settings,
        )
        if effective_n_jobs(options["n_jobs"]) > 1 and n_starts > 1:
            fit = partial(fit, settings=replace(settings, verbose=0))
            models = _fit_in_processes(
                fit, model, sources, options["n_jobs"], solver, observer, trials, saving
            )
        else:
            models = _fit_in_turn(fit, model, sources, observer, trials, saving)
        best = min(models, key=lambda one: one.results.criterion)
        best.results.starts = [replace(one.results) for one in models]
        check_fit(best, Objective(best, trials, loss, settings.alpha, settings.device))
    if settings.verbose and not solver.uses_batches:  # these show a progress bar
        results = best.results
        print(
            f"Fit successful: {results.converged}, error {results.final_error:.6g}, "
            f"{results.message}"
        )
    _warn(best.results, settings)
    return best


def _sources(random_state: np.random.RandomState, n_starts: int) -> list[np.random.RandomState]:
    """Return a source of randomness per start, independent of the order of fits."""
    if n_starts == 1:
        return [random_state]
    seeds = random_state.randint(np.iinfo(np.int32).max, size=n_starts - 1)
    return [random_state, *map(np.random.RandomState, seeds)]


def _fit_start(
    model: Model,
    trials: Sequence[Trial],
    init: str,
    number: int,
    random_state: np.random.RandomState,
    one: Model | None = None,
    watcher: Watcher = NO_CALLBACK,
    saving: Saving | None = None,
    *,
    settings: FitSettings,
    solver: Solver,
    is_exact: bool,
    sizes: Sizes,
) -> Model:
    """Fit a copy of a model from one start."""
    one = model.copy() if one is None else one
    saving = saving or Saving(None, random_state, settings.device, together=False)
    with one_thread(), one_blas_thread():
        objective = Objective(
            one, trials, settings.loss, settings.alpha, settings.device, sizes=sizes
        )
        one.results = saving.finished(number)
        if one.results is None and is_exact:
            one.results = _solve_exactly(objective, watcher)
            saving.end(one.results)
        elif one.results is None:
            how = (number, init, settings, solver, random_state)
            saving.begin(number, one, partial(set_start, objective, *how), random_state)
            one.results = solver.fit(objective, settings, random_state, saving.watch(watcher))
            saving.end(one.results)
    one.results.unit = solver.unit
    one.set_parameter_vector(one.results.final_parameters, ignore_bounds=True)
    return one


def _fit_in_turn(
    fit: Callable,
    model: Model,
    sources: Sequence[np.random.RandomState],
    observer: Observer,
    trials: Sequence[Trial],
    saving: Saving,
) -> list[Model]:
    """Fit the starts in turn, until the observer requests a stop."""
    models = []
    for number, source in enumerate(sources):
        one = model.copy()
        watcher = observer.begin(one, trials)
        models.append(fit(number, source, one, watcher, saving))
        if observer.end(one):
            break
    return models


def _fit_in_processes(
    fit: Callable,
    model: Model,
    sources: Sequence[np.random.RandomState],
    n_jobs: int | None,
    solver: Solver,
    observer: Observer,
    trials: Sequence[Trial],
    saving: Saving,
) -> list[Model]:
    """Fit the starts in parallel; the observer receives them afterwards, in order."""
    if solver.shares_processes and n_processes() > 1:
        raise ValueError(
            "n_jobs must be None or 1 where several processes share a fit: they compute each start "
            "together."
        )
    fitted = saving.models(model)
    left = list(enumerate(sources))[len(fitted) :]
    for one in Parallel(n_jobs, return_as="generator")(delayed(fit)(*start) for start in left):
        saving.end(one.results)
        fitted.append(one)
    models = []
    for one in fitted:
        observer.begin(one, trials)
        models.append(one)
        if observer.end(one):
            break
    return models


def make_random_state(random_state) -> np.random.RandomState:
    """Return a RandomState; None uses fresh entropy, not NumPy's global generator."""
    return check_random_state(np.random.RandomState() if random_state is None else random_state)


def make_solver(solver: str | Solver) -> Solver:
    """Return a solver by name, or the given instance."""
    return solver if isinstance(solver, Solver) else SOLVERS[solver]()


def make_settings(options: dict, loss: Loss, n_outputs: int) -> FitSettings:
    """Build the settings of a fit from its options.

    Parameters
    ----------
    options : dict
        Values of all parameters in `CONSTRAINTS`.
    loss : Loss
        The loss to minimise.
    n_outputs : int
        Number of outputs.

    Returns
    -------
    FitSettings
        The settings.

    Raises
    ------
    ValueError
        If alpha is neither one number nor one per output.
    """
    alpha = as_numbers(options["alpha"], "alpha")
    if alpha.shape not in ((), (n_outputs,)) or not (np.isfinite(alpha) & (alpha >= 0)).all():
        raise ValueError(
            f"alpha={options['alpha']!r} must be a number of at least 0, or one for each of the "
            f"{n_outputs} outputs."
        )
    names = ("max_iter", "tol", "early_stopping", "n_iter_no_change", "batch_size")
    return FitSettings(
        loss=loss,
        alpha=tuple(np.broadcast_to(alpha, (n_outputs,)).tolist()),
        learning_rate=options["learning_rate"],
        device=check_device(options["device"]),
        verbose=options["verbose"],
        **{name: options[name] for name in names},
    )


def set_start(
    objective: Objective,
    number: int,
    init: str,
    settings: FitSettings,
    solver: Solver,
    random_state: np.random.RandomState,
) -> None:
    """Set the initial values of a fit.

    Parameters
    ----------
    objective : Objective
        The loss; the values of its model are changed.
    number : int
        Index of the start. Starts after the first are draws from the priors or, with "auto" and
        "two_stage", other data-driven starts.
    init : {"auto", "two_stage", "given", "prior_mean", "prior_sample"}
        Method of initialisation.
    settings : FitSettings
        Settings of the fit.
    solver : Solver
        The solver of the fit.
    random_state : RandomState
        Source of draws.
    """
    model = objective.model
    if init in ("auto", "two_stage"):
        start = start_at_data if init == "auto" else start_in_two_stages
        start(objective, settings, solver, random_state if number else None)
        return
    if number or init == "prior_sample":
        for layer in model.layers:
            layer.sample_from_priors(random_state)
    elif init == "prior_mean":
        for layer in model.layers:
            layer.mean_of_priors()
    break_ties(model)
    if number or init != "given":
        take_statistics(model, objective.trials)


def _solve_exactly(objective: Objective, watcher: Watcher) -> FitResults:
    watcher.begin()
    results = solve_linear(objective)
    watcher.end({"loss": results.history[0]}, results.final_parameters)
    return results


def check_fit(model: Model, objective: Objective) -> None:
    """Check the predictions of a fitted model, and record failed convergence.

    Parameters
    ----------
    model : Model
        The model; its `results` are changed.
    objective : Objective
        The loss of the model.
    """
    results = model.results
    assert results is not None
    problem = _problem(model, objective)
    if problem:
        results.converged = False
        results.message = problem


def _problem(model: Model, objective: Objective) -> str:
    target, weight, prediction = [], [], []
    for trial in objective.trials:
        target.append(trial.target)
        weight.append(np.broadcast_to(trial.weight, trial.target.shape))
        prediction.append(output_in_pieces(model, trial.data))
    y, w, p = (np.concatenate(parts) for parts in (target, weight, prediction))
    counted = w > 0
    if not np.isfinite(p[counted]).all():
        return "Predictions are not finite"
    largest = np.max(np.abs(y), initial=0, where=counted, axis=0)
    too_large = np.max(np.abs(p), initial=0, where=counted, axis=0) > 1e6 * largest
    if np.any(too_large & (largest > 0)):
        outputs = np.flatnonzero(too_large & (largest > 0)).tolist()
        return f"Predictions of the outputs {outputs} are more than 1e6 times the response"
    if any(p.size for layer in model.layers for p in layer.parameters.free):
        varies = _spread(y, counted) > 0
        constant = _spread(p, counted) <= 1e-9 * _spread(y, counted)
        if np.any(varies & constant):
            outputs = np.flatnonzero(varies & constant).tolist()
            return f"Predictions of the outputs {outputs} are constant, but the response is not"
    return ""


def _spread(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the range of each column where its weight is positive; 0 if all weights are zero."""
    low = np.min(values, initial=np.inf, where=counted, axis=0)
    high = np.max(values, initial=-np.inf, where=counted, axis=0)
    return np.where(np.isfinite(low) & np.isfinite(high), high - low, 0.0)


def _warn(results: FitResults, settings: FitSettings) -> None:
    if results.converged or results.stopped:
        return
    advice = results.advice
    if not advice and results.n_iter >= settings.max_iter:
        advice = f"raise max_iter={settings.max_iter} or tol={settings.tol}"
    elif not advice:
        advice = "try init='prior_sample' with n_init=5, or another model"
    warn(
        f"The fit has not converged after {results.n_iter} iterations: {results.message}; "
        f"{advice}.",
        ConvergenceWarning,
    )
