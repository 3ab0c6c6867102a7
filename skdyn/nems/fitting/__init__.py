"""Fitting: trials, initial values, solvers and convergence checks."""

from skdyn.nems.fitting.results import FitResults, Solver
from skdyn.nems.fitting.run import SOLVERS
from skdyn.nems.fitting.settings import FitSettings
from skdyn.nems.fitting.trials import Trial

__all__ = ["SOLVERS", "FitResults", "FitSettings", "Solver", "Trial"]
