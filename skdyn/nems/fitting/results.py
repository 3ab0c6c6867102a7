"""The result of a fit, and what a solver is."""

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
        Values that are not frozen, before and after.
    initial_error, final_error : float
        Loss, without the penalty.
    n_iter : int
        Iterations or epochs.
    n_evaluations : int
        Number of evaluations of the loss, with its gradient.
    converged : bool
        Whether the fit ended at a minimum, as far as can be told.
    message : str
        Why it stopped.
    exact_gradients : bool
        Whether torch could follow all layers.
    history : list of float
        Loss with the penalty, after each iteration.
    held_out_history : list of float
        Loss of what was held out, after each iteration; empty if nothing was.
    stopped : bool
        Whether a callback ended the fit.
    advice : str
        What to do if it has not converged; empty if the solver knows nothing special.
    unit : {"iteration", "epoch"}
        What a step of the history is called, see `Solver`.
    starts : list of FitResults
        The results of all starts of a fit with `n_init`, in order, without starts of their own.
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
            Those that are not frozen.
        """
        return len(self.final_parameters)

    @property
    def criterion(self) -> float:
        """The number by which the best of several fits is chosen; lower is better.

        Returns
        -------
        float
            The smallest held-out loss or, if nothing was held out, the loss with the penalty.
        """
        looked_at = self.held_out_history or self.history or [self.final_error]
        return float(np.min(np.nan_to_num(looked_at, nan=np.inf)))


def nothing_to_fit(start: np.ndarray, error: float) -> FitResults:
    """The result of a fit of a model all of whose parameters are frozen.

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

    To write one, subclass it, define `fit`, and pass an instance as `solver=`.

    Attributes
    ----------
    name : str
        The name of the solver in messages.
    unit : {"iteration", "epoch"}
        What a step is called.
    finds_minimum : bool
        Whether a closed form may stand in for the solver, where there is one.
    shares_processes : bool
        Whether processes of torch.distributed share a fit.
    uses_batches : bool
        Whether a step sees some of the data only.
    handles_norms : bool
        Whether the penalties `L1` and `GroupL1`, which have kinks, are minimised.
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
        """Fit the model of an objective in place, from its present values.

        Parameters
        ----------
        objective : Objective
            The loss; `objective.model` holds the values.
        settings : FitSettings
            Number of iterations, tolerance and so on.
        random_state : RandomState
            Source of randomness.
        watcher : Watcher, default=NO_CALLBACK
            Called before and after each step; it may end the fit.

        Returns
        -------
        FitResults
            The result; its final parameters are those of the model.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define fit.")
