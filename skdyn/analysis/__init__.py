"""After the fit: from mixing coefficients to statistics, spectra, maps and tests."""

from skdyn.analysis.sessions import SessionModes, fine_tune, modes_from_mixing, session_modes
from skdyn.analysis.statistics import ModeStatistics, mode_statistics, normalised_alpha

__all__ = [
    "ModeStatistics",
    "SessionModes",
    "fine_tune",
    "mode_statistics",
    "modes_from_mixing",
    "normalised_alpha",
    "session_modes",
]
