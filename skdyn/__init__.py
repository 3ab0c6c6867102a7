"""Dynamic network modes and neural encoding models as scikit-learn estimators."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skdyn._versions import show_versions
    from skdyn.core.training import FitDivergedError
    from skdyn.dynemo.estimator import DyNeMoEstimator
    from skdyn.matching import ModeMatcher, match_modes
    from skdyn.nems.regressor import NEMSRegressor

__version__ = "0.1.0"

__all__ = [
    "DyNeMoEstimator",
    "FitDivergedError",
    "ModeMatcher",
    "NEMSRegressor",
    "match_modes",
    "show_versions",
]

# Each name is imported when it is first used, so that filters and metrics need no torch.
HOMES = {
    "DyNeMoEstimator": "skdyn.dynemo.estimator",
    "FitDivergedError": "skdyn.core.training",
    "ModeMatcher": "skdyn.matching",
    "NEMSRegressor": "skdyn.nems.regressor",
    "match_modes": "skdyn.matching",
    "show_versions": "skdyn._versions",
}


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    if name in __dir__() and not name.startswith("_"):
        return import_module(f"skdyn.{name}")
    raise AttributeError(f"module 'skdyn' has no attribute {name!r}")


def __dir__() -> list[str]:
    rooms = [room.name for room in iter_modules(__path__)]
    return sorted({*__all__, "__version__", *(room for room in rooms if room[0] != "_")})
