"""The only file that imports private names of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.base import TransformerMixin, _fit_context
from sklearn.utils._param_validation import (
    HasMethods,
    Hidden,
    Interval,
    RealNotInt,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils._set_output import _wrap_data_with_container
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.parallel import _get_threadpool_controller

from skdyn.core.training import Watcher

__all__ = [
    "CallbackSupportMixin",
    "DocumentedMixin",
    "FitTask",
    "HasMethods",
    "Hidden",
    "Interval",
    "RealNotInt",
    "SessionTransformerMixin",
    "StepWatcher",
    "StrOptions",
    "_BaseComposition",
    "_fit_context",
    "one_blas_thread",
    "validate_parameter_constraints",
]


class _NoContext:
    """A task of a fit that nobody is told of."""

    def subcontext(self, **task) -> _NoContext:
        return self

    def call_on_fit_task_begin(self, **given) -> _NoContext:
        return self

    def call_on_fit_task_end(self, **given) -> bool:
        return False


class _NoCallbacks:
    """In place of scikit-learn's mixin, where there is none: no callbacks can be set."""

    def _init_callback_context(self, **task) -> _NoContext:
        return _NoContext()


try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn 1.7 and 1.8
    CallbackSupportMixin = _NoCallbacks


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run a block with NumPy's and SciPy's matrix products on one thread.

    Where cores are busy, threads of small products wait for each other: a product of 1 ms was
    measured to take 90.

    Yields
    ------
    None
        The caller's setting is put back at the end.
    """
    with _get_threadpool_controller().limit(limits=1, user_api="blas"):
        yield


class SessionTransformerMixin(TransformerMixin):
    """A TransformerMixin whose `set_output` also holds for several sessions.

    scikit-learn turns what `transform` returns into one DataFrame. Where several sessions come
    back, as a list or as a 3-D array, each becomes a DataFrame of its own, in a list.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name in ("transform", "fit_transform"):
            # Also what is inherited: scikit-learn has wrapped its own fit_transform.
            method = getattr(getattr(cls, name, None), "__wrapped__", None)
            if method is not None:
                setattr(cls, name, _wrap_each_session(method))

    def _rows_that_stay(self, X, sessions):
        """The rows of a DataFrame whose index the output takes; a downsampler drops some."""
        return X


def _wrap_each_session(method):
    @wraps(method)
    def wrapped(self, X, *args, **kwargs):
        output = method(self, X, *args, **kwargs)
        if not isinstance(output, list) and getattr(output, "ndim", 2) < 3:
            given = self._rows_that_stay(X, kwargs.get("sessions"))
            return _wrap_data_with_container("transform", output, given, self)
        frames = [
            _wrap_data_with_container("transform", one, self._rows_that_stay(given, None), self)
            for one, given in zip(output, X, strict=True)
        ]
        # Where no container was asked for, what came as one array goes back as one.
        return output if all(isinstance(frame, np.ndarray) for frame in frames) else frames

    return wrapped


class DocumentedMixin:
    """The HTML diagram shows what each parameter is, as its docstring says.

    scikit-learn shows the text where the name of a parameter links to a page of documentation. The
    link leads to where the text is, the diagram itself.
    """

    _doc_link_module = "skdyn"
    _doc_link_template = "#{estimator_name}"


class FitTask:
    """A task of a fit that scikit-learn's callbacks are told of: all of it, a start, an epoch.

    Parameters
    ----------
    estimator : estimator
        With a `CallbackSupportMixin`.
    context : CallbackContext
        What scikit-learn knows the task by.
    given : dict
        X, y and metadata, as callbacks get them.
    """

    def __init__(self, estimator, context, given: dict[str, Any]):
        self.estimator, self.context, self.given = estimator, context, given
        context.call_on_fit_task_begin(estimator=estimator, **given)

    @classmethod
    def of(cls, estimator, n_subtasks: int, X, y=None, *, sessions=None, **metadata) -> FitTask:
        """Begin the task that is the whole fit.

        Parameters
        ----------
        estimator : estimator
            Which is fitted.
        n_subtasks : int
            Most tasks that it has.
        X, y : array-like
            What it is fitted to.
        sessions : array-like, default=None
            Labels of rows. Callbacks get them with metadata routing alone: without, no scorer can
            take them.
        **metadata
            More that goes along with X.

        Returns
        -------
        FitTask
            The task.
        """
        if get_config()["enable_metadata_routing"]:
            metadata["sessions"] = sessions
        metadata = {name: value for name, value in metadata.items() if value is not None}
        context = estimator._init_callback_context(max_subtasks=n_subtasks)
        return cls(estimator, context, {"X": X, "y": y, "metadata": metadata})

    def subtask(self, name: str, n_subtasks: int = 0) -> FitTask:
        """Begin a task that is a part of this one.

        Parameters
        ----------
        name : str
            What it is called.
        n_subtasks : int, default=0
            Most tasks that it has.

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
            What makes a copy of the estimator a fitted one, or what gives that where a callback
            asks for it. None if there is nothing to be fitted yet.

        Returns
        -------
        bool
            Whether a callback wants tasks like this to stop.
        """
        return self.context.call_on_fit_task_end(
            estimator=self.estimator, reconstruction_attributes=attributes, **self.given
        )


class StepWatcher(Watcher):
    """Makes tasks of the steps of a training.

    Parameters
    ----------
    task : FitTask
        What the steps are part of.
    name : str
        What a step is called.
    restore : callable
        From the history so far, a dict of lists with a number per step, and weights that it must
        copy, to the attributes of a fitted estimator.
    """

    def __init__(self, task: FitTask, name: str, restore: Callable[[dict, Any], dict]):
        self.task, self.name, self.restore = task, name, restore
        self.history: dict[str, list[float]] = {}
        self.step: FitTask | None = None

    def begin(self) -> None:
        """Begin a step."""
        self.step = self.task.subtask(self.name)

    def end(self, numbers: dict[str, float], weights: Any) -> bool:
        """End a step; see `Watcher`."""
        for name, number in numbers.items():
            self.history.setdefault(name, []).append(float(number))
        step, self.step = self.step, None
        assert step is not None
        return step.end(
            lambda: self.restore({name: [*all_] for name, all_ in self.history.items()}, weights)
        )

    def close(self) -> None:
        """End a step that came to nothing, such as one that found no smaller loss."""
        if self.step is not None:
            self.step.end()
            self.step = None
