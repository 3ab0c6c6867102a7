"""The only file that imports private names of scikit-learn."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature

import numpy as np
from sklearn.base import TransformerMixin, _fit_context
from sklearn.base import _clone_parametrized as clone_parametrized
from sklearn.utils._param_validation import (
    HasMethods,
    Hidden,
    Interval,
    RealNotInt,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils._set_output import _wrap_data_with_container
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.metaestimators import _BaseComposition as BaseComposition
from sklearn.utils.parallel import _get_threadpool_controller

__all__ = [
    "UNUSED",
    "BaseComposition",
    "DocumentedMixin",
    "FitInterrupted",
    "HasMethods",
    "Hidden",
    "Interval",
    "RealNotInt",
    "SessionTransformerMixin",
    "StrOptions",
    "clone_parametrized",
    "fit_context",
    "one_blas_thread",
    "validate_parameter_constraints",
]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run a block with NumPy's and SciPy's matrix products on one thread.

    On busy cores, threads of small products wait for each other: a product of 1 ms was measured to
    take 90 ms.

    Yields
    ------
    None
        The caller's setting is restored at the end.
    """
    with _get_threadpool_controller().limit(limits=1, user_api="blas"):
        yield


class FitInterrupted(KeyboardInterrupt):
    """An interrupt of a fit that has a usable result.

    Parameters
    ----------
    message : str
        Description of the result.
    attributes : dict
        Attributes of the fitted estimator.
    """

    def __init__(self, message: str, attributes: dict):
        super().__init__(message)
        self.attributes = attributes


def fit_context(*, prefer_skip_nested_validation: bool):
    """Validate parameters before a fit, and never leave an estimator partly fitted.

    If a fit ends early, an estimator that was fitted before keeps that fit, and one that was not
    fitted stays unfitted. Only `FitInterrupted` sets the attributes that it carries.

    Parameters
    ----------
    prefer_skip_nested_validation : bool
        Whether to skip the validation of parameters of inner estimators and functions, as in
        scikit-learn's decorator.

    Returns
    -------
    callable
        A decorator of `fit`.
    """
    validated = _fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)

    def decorate(fit):
        inner = validated(fit)

        @wraps(fit)
        def whole(estimator, *args, **kwargs):
            before = dict(vars(estimator))
            try:
                return inner(estimator, *args, **kwargs)
            except BaseException as error:
                attributes = error.attributes if isinstance(error, FitInterrupted) else {}
                estimator.__dict__ = before | attributes  # at once: no interrupt comes between
                raise

        return whole

    return decorate


class SessionTransformerMixin(TransformerMixin):
    """A TransformerMixin whose `set_output` also holds for several sessions.

    scikit-learn converts the output of `transform` to one DataFrame. If it holds several sessions,
    as a list or a 3-D array, each becomes a separate DataFrame, in a list. Sessions may be passed
    as one 3-D array, and single precision is kept.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name in ("transform", "fit_transform"):
            # Inherited methods too: scikit-learn has wrapped its own fit_transform.
            method = getattr(getattr(cls, name, None), "__wrapped__", None)
            if method is not None:
                setattr(cls, name, _wrap_each_session(method))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _rows_that_stay(self, X, sessions):
        """Rows of a DataFrame that provide the output's index; a downsampler drops some."""
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
        # Without a requested container, one input array results in one output array.
        return output if all(isinstance(frame, np.ndarray) for frame in frames) else frames

    return wrapped


class DocumentedMixin:
    """The HTML diagram shows the docstring's text of each parameter, without links.

    scikit-learn shows the text only if the name of a parameter links to a documentation page, so
    the tables are made with a link, which is then removed.
    """

    def _get_params_html(self, *args, **kwargs):
        return _without_links(super()._get_params_html, *args, **kwargs)  # type: ignore[misc]

    def _get_fitted_attr_html(self, *args, **kwargs):
        return _without_links(super()._get_fitted_attr_html, *args, **kwargs)  # type: ignore[misc]


def _without_links(make_table, *args, **kwargs):
    if "doc_link" not in signature(make_table).parameters:  # scikit-learn 1.7
        return make_table(*args, **kwargs)
    given = signature(make_table).bind(*args, **kwargs).arguments
    table = make_table(**given | {"doc_link": "#"})
    render = table._repr_html_inner
    table._repr_html_inner = lambda: re.sub(
        r'\s*rel="noreferrer" target="_blank" href="[^"]*"', "", render()
    )
    return table
