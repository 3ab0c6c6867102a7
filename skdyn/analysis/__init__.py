"""After the fit: from mixing coefficients to statistics, spectra, maps and tests."""

from skdyn.analysis.evoked import EvokedAlpha, evoked_alpha, evoked_test
from skdyn.analysis.features import SessionFeatures
from skdyn.analysis.groups import PermutationTest, permutation_test
from skdyn.analysis.sessions import SessionModes, fine_tune, modes_from_mixing, session_modes
from skdyn.analysis.statistics import ModeStatistics, mode_statistics, normalised_alpha

__all__ = [
    "EvokedAlpha",
    "ModeStatistics",
    "PermutationTest",
    "SessionFeatures",
    "SessionModes",
    "evoked_alpha",
    "evoked_test",
    "fine_tune",
    "mode_statistics",
    "modes_from_mixing",
    "normalised_alpha",
    "permutation_test",
    "session_modes",
]
