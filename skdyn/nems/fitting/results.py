"""Results of fits, and the base class of solvers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from skdyn.core.training import NO_CALLBACK, Watcher
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.settings import FitSettings

STOPPED = "A callback asked to stop."
NO_PROGRESS = "The loss does not fall any more."


@dataclass
class FitResults:
    """The result of a fit.

    Attributes
    ----------
    initial_parameters, final_parameters : ndarray of shape (n_parameters,)
        Values that are not frozen, before and after the fit.
    initial_error, final_error : float
        Loss, without the penalty.
    n_iter : int
        Number of iterations or epochs.
    n_evaluations : int
        Number of evaluations of the loss, with its gradient.
    converged : bool
        Whether the fit ended at a minimum, according to the convergence check.
    message : str
        Reason for the end of the fit.
    exact_gradients : bool
        Whether autograd traced all layers.
    history : list of float
        Loss with the penalty, after each iteration.
    held_out_history : list of float
        Held-out loss after each iteration; empty without held-out data.
    stopped : bool
        Whether a callback ended the fit.
    advice : str
        Advice if the fit has not converged; empty without advice of the solver.
    unit : {"iteration", "epoch"}
        Name of a step of the history, see `Solver`.
    starts : list of FitResults
        The results of all starts of a fit with `n_init`, in order; their own `starts` are empty.
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
    advice: str = ""
    unit: str = "iteration"
    starts: list[FitResults] = field(default_factory=list)

    @property
    def n_parameters(self) -> int:
        """Number of fitted values.

        Returns
        -------
        int
            The number of values that are not frozen.
        """
        return len(self.final_parameters)

    @property
    def criterion(self) -> float:
        """Criterion that selects the best of several fits; lower is better.

        Returns
        -------
        float
            The smallest held-out loss or, without held-out data, the loss with the penalty.
        """
        looked_at = self.held_out_history or self.history or [self.final_error]
        return float(np.min(np.nan_to_num(looked_at, nan=np.inf)))


def nothing_to_fit(start: np.ndarray, error: float) -> FitResults:
    """Return the result of a fit of a model with frozen parameters only.

    Parameters
    ----------
    start : ndarray of shape (0,)
        The values that are not frozen.
    error : float
        The loss.

    Returns
    -------
    FitResults
        The result.
    """
    return FitResults(
        initial_parameters=start,
        final_parameters=start,
        initial_error=error,
        final_error=error,
        n_iter=0,
        n_evaluations=1,
        converged=True,
        message="There is nothing to fit.",
        exact_gradients=True,
    )


class Solver:
    """Base class of solvers.

    To write a custom solver, subclass it, define `fit`, and pass an instance as `solver=`.

    Attributes
    ----------
    name : str
        The name of the solver in messages.
    unit : {"iteration", "epoch"}
        Name of a step.
    finds_minimum : bool
        Whether a closed-form solution may replace the solver, if one exists.
    shares_processes : bool
        Whether the solver supports distributed training with torch.distributed.
    uses_batches : bool
        Whether a step uses a batch of the data.
    handles_norms : bool
        Whether the nonsmooth penalties `L1` and `GroupL1` are supported.
    """

    name: ClassVar[str] = "solver"
    unit: ClassVar[str] = "iteration"
    finds_minimum: ClassVar[bool] = False
    shares_processes: ClassVar[bool] = False
    uses_batches: ClassVar[bool] = False
    handles_norms: ClassVar[bool] = False

    def fit(
        self,
        objective: Objective,
        settings: FitSettings,
        random_state: np.random.RandomState,
        watcher: Watcher = NO_CALLBACK,
    ) -> FitResults:
        """Fit the model of an objective in place, from its current values.

        Parameters
        ----------
        objective : Objective
            The loss; `objective.model` holds the values.
        settings : FitSettings
            Settings such as the number of iterations and the tolerance.
        random_state : RandomState
            Source of randomness.
        watcher : Watcher, default=NO_CALLBACK
            Receives a call before and after each step; it can stop the fit.

        Returns
        -------
        FitResults
            The result; the model has its final parameters.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define fit.")
