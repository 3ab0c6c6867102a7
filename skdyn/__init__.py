"""Dynamic network modes and neural encoding models as scikit-learn estimators."""

from skdyn.core.training import FitDivergedError
from skdyn.dynemo.estimator import DyNeMoEstimator
from skdyn.matching import ModeMatcher, match_modes
from skdyn.nems.regressor import NEMSRegressor

__version__ = "0.1.0"

__all__ = ["DyNeMoEstimator", "FitDivergedError", "ModeMatcher", "NEMSRegressor", "match_modes"]
