"""Fitted estimators inside pipelines and searches: the step with the model, and its data."""

from __future__ import annotations

from inspect import signature

import numpy as np
from sklearn import config_context
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import check_is_fitted


def fitted_steps(estimator) -> list:
    """Return the fitted steps of a pipeline or search in order; of another estimator, itself.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator, pipeline or search. Pipelines and searches may be nested.

    Returns
    -------
    list of estimator
        The fitted steps.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted, or a search has no `best_estimator_`.
    """
    if hasattr(estimator, "best_estimator_"):
        return fitted_steps(estimator.best_estimator_)
    check_is_fitted(estimator)
    if hasattr(estimator, "cv_results_"):  # of a search
        raise NotFittedError(
            f"This {type(estimator).__name__} was fitted with refit=False and has no "
            "best_estimator_. Set refit=True and fit it again."
        )
    if not isinstance(estimator, Pipeline):
        return [estimator]
    steps = [step for step in estimator if step not in (None, "passthrough")]
    return [one for step in steps for one in fitted_steps(step)]


def find_step(estimator, *names: str):
    """Find the last fitted step that has some attributes.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator, pipeline or search.
    *names : str
        The attributes.

    Returns
    -------
    before : list of estimator
        The steps before it.
    step : estimator
        The step.
    after : list of estimator
        The steps after it.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    TypeError
        If no step has the attributes.
    """
    steps = fitted_steps(estimator)
    for number in reversed(range(len(steps))):
        if all(hasattr(steps[number], name) for name in names):
            return steps[:number], steps[number], steps[number + 1 :]
    kinds = ", ".join(type(step).__name__ for step in steps)
    inside = "" if len(steps) == 1 and steps[0] is estimator else f" of {kinds}"
    raise TypeError(
        f"The fitted {type(estimator).__name__}{inside} has no {' and '.join(names)}. Pass an "
        "estimator that has, or a pipeline or search that holds one."
    )


def ask(estimator, method: str, X, sessions=None):
    """Call a method of a fitted estimator; labels of rows reach the steps that take them.

    Parameters
    ----------
    estimator : estimator
        A fitted one.
    method : str
        Its name, such as "transform".
    X : array-like or list of array-like
        The recording.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D X.

    Returns
    -------
    object
        The result of the method.
    """
    function = getattr(estimator, method)
    with config_context(enable_metadata_routing=True):
        routing = get_routing_for_object(estimator)
        taken = "sessions" in signature(function).parameters
        taken = taken or bool(routing.consumes(method, ["sessions"]))
        return function(X, **({"sessions": sessions} if taken and sessions is not None else {}))


def transform_through(steps, X, sessions=None):
    """Transform a recording by fitted steps, one after the other.

    Parameters
    ----------
    steps : list of estimator
        Fitted transformers.
    X : array-like or list of array-like
        The recording.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D X.

    Returns
    -------
    array-like or list of array-like
        The output of the last step; X if there are no steps.
    """
    for step in steps:
        X = ask(step, "transform", X, sessions)
    return X


def mode_order(modes, after) -> np.ndarray:
    """Order of modes after the steps that follow the model, such as a `ModeMatcher`.

    Parameters
    ----------
    modes : array-like of shape (n_modes, ...)
        The modes.
    after : list of estimator
        The steps.

    Returns
    -------
    ndarray of int of shape (n_modes,)
        The order.
    """
    order = np.arange(len(modes))
    for step in after:
        order = order[step.order_] if hasattr(step, "order_") else order
    return order


def find_modes(estimator, name: str) -> np.ndarray:
    """Get an attribute with a row per mode, in the order in which `transform` gives the modes.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator, pipeline or search. A `ModeMatcher` after the model changes the order.
    name : str
        The attribute, such as "covariances_".

    Returns
    -------
    ndarray of shape (n_modes, ...)
        The attribute.
    """
    _, step, after = find_step(estimator, name)
    values = np.asarray(getattr(step, name))
    return values[mode_order(values, after)]
