"""After the fit: from mixing coefficients to statistics, spectra, maps and tests."""

from skdyn.analysis.statistics import ModeStatistics, mode_statistics, normalised_alpha

__all__ = ["ModeStatistics", "mode_statistics", "normalised_alpha"]
