"""Callbacks of scikit-learn: reporting the steps of a fit to them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sklearn import get_config

from skdyn._sklearn import FitInterrupted
from skdyn.core.training import Watcher

__all__ = ["CallbackSupportMixin", "FitTask", "StepWatcher"]


class _NoContext:
    """Null callback context, used when scikit-learn has no callbacks."""

    def subcontext(self, **task) -> _NoContext:
        return self

    def call_on_fit_task_begin(self, **given) -> _NoContext:
        return self

    def call_on_fit_task_end(self, **given) -> bool:
        return False


class _NoCallbacks:
    """Replaces scikit-learn's mixin in versions without callbacks; none can be set."""

    def _init_callback_context(self, **task) -> _NoContext:
        return _NoContext()


try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn 1.7 and 1.8
    CallbackSupportMixin = _NoCallbacks


class FitTask:
    """A task that is reported to scikit-learn's callbacks: a whole fit, a start or an epoch.

    Parameters
    ----------
    estimator : estimator
        With a `CallbackSupportMixin`.
    context : CallbackContext
        Context of the task in scikit-learn.
    given : dict
        X, y and metadata that callbacks receive.
    """

    def __init__(self, estimator, context, given: dict[str, Any]):
        self.estimator, self.context, self.given = estimator, context, given
        context.call_on_fit_task_begin(estimator=estimator, **given)

    @classmethod
    def of(
        cls,
        estimator,
        n_subtasks: int,
        X,
        y=None,
        *,
        sessions=None,
        state=None,
        streams=None,
        **metadata,
    ) -> FitTask:
        """Begin the task that is the whole fit.

        Parameters
        ----------
        estimator : estimator
            The estimator that is fitted.
        n_subtasks : int
            Largest number of its subtasks.
        X, y : array-like
            Data of the fit.
        sessions, state, streams : array-like, default=None
            Labels of rows, states, and further data. Callbacks receive them only if metadata
            routing is enabled, because no scorer accepts them otherwise.
        **metadata
            Further metadata of X.

        Returns
        -------
        FitTask
            The task.
        """
        if get_config()["enable_metadata_routing"]:
            metadata |= {"sessions": sessions, "state": state, "streams": streams}
        metadata = {name: value for name, value in metadata.items() if value is not None}
        context = estimator._init_callback_context(max_subtasks=n_subtasks)
        return cls(estimator, context, {"X": X, "y": y, "metadata": metadata})

    def subtask(self, name: str, n_subtasks: int = 0) -> FitTask:
        """Begin a task that is a part of this one.

        Parameters
        ----------
        name : str
            Name of the task.
        n_subtasks : int, default=0
            Largest number of its subtasks.

        Returns
        -------
        FitTask
            The task.
        """
        context = self.context.subcontext(task_name=name, max_subtasks=n_subtasks)
        return FitTask(self.estimator, context, self.given)

    def end(self, attributes: dict | Callable[[], dict] | None = None) -> bool:
        """End the task.

        Parameters
        ----------
        attributes : dict or callable, default=None
            Attributes that make a copy of the estimator a fitted one, or a function that returns
            them when a callback asks. None if there are none yet.

        Returns
        -------
        bool
            Whether a callback asks to stop the training.
        """
        return self.context.call_on_fit_task_end(
            estimator=self.estimator, reconstruction_attributes=attributes, **self.given
        )


def _names_of(estimator) -> dict:
    """Attributes of an estimator that describe its data before it is fitted."""
    names = ("n_features_in_", "feature_names_in_")
    return {name: value for name, value in vars(estimator).items() if name in names}


class StepWatcher(Watcher):
    """Reports each step of a training as a task.

    Parameters
    ----------
    task : FitTask
        The task that the steps belong to.
    name : str
        Name of a step.
    restore : callable
        Function of the history so far, a dict of lists with a number per step, and of weights,
        which it must copy. It returns the attributes of the fitted estimator.
    keep_last : bool, default=False
        Whether an interrupt leaves a fitted estimator, see `kept`.
    """

    def __init__(
        self,
        task: FitTask,
        name: str,
        restore: Callable[[dict, Any], dict],
        *,
        keep_last: bool = False,
    ):
        self.task, self.name, self.restore, self.keep_last = task, name, restore, keep_last
        self.history: dict[str, list[float]] = {}
        self.step: FitTask | None = None
        self.last: Any = None

    def begin(self) -> None:
        """Begin a step."""
        self.step = self.task.subtask(self.name)

    def end(self, numbers: dict[str, float], weights: Any) -> bool:
        """End a step; see `Watcher`."""
        for name, number in numbers.items():
            self.history.setdefault(name, []).append(float(number))
        if self.keep_last:
            self.last = copy.deepcopy(weights)
        step, self.step = self.step, None
        assert step is not None
        return step.end(lambda: self._restored(weights))

    def _restored(self, weights: Any) -> dict:
        return self.restore({name: [*all_] for name, all_ in self.history.items()}, weights)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Convert an interrupt of a block into `FitInterrupted` with the last step's attributes.

        Yields
        ------
        None
            Nothing.

        Raises
        ------
        FitInterrupted
            If the block is interrupted after a step, and steps are kept.
        """
        try:
            yield
        except KeyboardInterrupt as error:
            if self.last is None:
                raise
            n_steps = max(map(len, self.history.values()))
            raise FitInterrupted(
                f"The fit was interrupted after {n_steps} {self.name}s, and the estimator is as it "
                "would be if it had ended there.",
                {**_names_of(self.task.estimator), **self._restored(self.last)},
            ) from error

    def resume(self, history: dict[str, list[float]]) -> None:
        """Receive the history of the earlier steps; see `Watcher`."""
        self.history = {name: [*numbers] for name, numbers in history.items()}

    def close(self) -> None:
        """End a step without a result, such as one that found no smaller loss."""
        if self.step is not None:
            self.step.end()
            self.step = None
