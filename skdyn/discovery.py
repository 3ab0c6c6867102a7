"""List the estimators of the package, as `sklearn.utils.discovery` does for scikit-learn."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from pkgutil import walk_packages
from types import ModuleType

from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin

__all__ = ["all_estimators"]

KINDS: dict[str, type] = {"regressor": RegressorMixin, "transformer": TransformerMixin}


def all_estimators(type_filter: str | None = None) -> list[tuple[str, type]]:
    """List all public estimators of skdyn.

    Parameters
    ----------
    type_filter : {"regressor", "transformer"}, default=None
        Kind of estimator to list. None lists all.

    Returns
    -------
    list of tuple (str, type)
        Names and classes, sorted by name.

    Raises
    ------
    ValueError
        If `type_filter` is no known kind.

    Examples
    --------
    >>> from skdyn.discovery import all_estimators
    >>> [name for name, _ in all_estimators("regressor")]
    ['NEMSRegressor']
    """
    if type_filter is not None and type_filter not in KINDS:
        raise ValueError(
            f"type_filter must be one of {sorted(KINDS)} or None, but it is {type_filter!r}."
        )
    kind = BaseEstimator if type_filter is None else KINDS[type_filter]
    found = {
        name: one
        for module in _modules()
        for name, one in inspect.getmembers(module, inspect.isclass)
        if name in getattr(module, "__all__", ())
        and issubclass(one, BaseEstimator)
        and issubclass(one, kind)
        and hasattr(one, "fit")
    }
    return sorted(found.items())


def _modules() -> Iterator[ModuleType]:
    """Import the package and its public modules that state their names in `__all__`."""
    package = import_module("skdyn")
    yield package
    for info in walk_packages(package.__path__, "skdyn."):
        if not any(part.startswith("_") for part in info.name.split(".")):
            yield import_module(info.name)
