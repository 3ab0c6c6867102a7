"""After the fit: spectra of modes, and modes in channels."""

from skdyn.analysis.densities import ModeBand, ModeSpectra
from skdyn.analysis.spectra import mode_spectra

__all__ = ["ModeBand", "ModeSpectra", "mode_spectra"]
