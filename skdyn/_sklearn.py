"""The only file that imports private names of scikit-learn."""

from __future__ import annotations

from functools import wraps

import numpy as np
from sklearn.base import TransformerMixin, _fit_context
from sklearn.utils._param_validation import HasMethods, Hidden, Interval, StrOptions
from sklearn.utils._set_output import _wrap_data_with_container

__all__ = [
    "HasMethods",
    "Hidden",
    "Interval",
    "SessionTransformerMixin",
    "StrOptions",
    "_fit_context",
]


class SessionTransformerMixin(TransformerMixin):
    """A TransformerMixin whose `set_output` also holds for several sessions.

    scikit-learn turns what `transform` returns into one DataFrame. Where several sessions come
    back, as a list or as a 3-D array, each becomes a DataFrame of its own, in a list.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name in ("transform", "fit_transform"):
            if name in cls.__dict__ and hasattr(cls.__dict__[name], "__wrapped__"):
                setattr(cls, name, _wrap_each_session(cls.__dict__[name].__wrapped__))


def _wrap_each_session(method):
    @wraps(method)
    def wrapped(self, X, *args, **kwargs):
        output = method(self, X, *args, **kwargs)
        if not isinstance(output, list) and output.ndim < 3:
            return _wrap_data_with_container("transform", output, X, self)
        frames = [
            _wrap_data_with_container("transform", one, given, self)
            for one, given in zip(output, X, strict=True)
        ]
        # Where no container was asked for, what came as one array goes back as one.
        return output if all(isinstance(frame, np.ndarray) for frame in frames) else frames

    return wrapped
