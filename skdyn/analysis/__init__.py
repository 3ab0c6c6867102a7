"""After the fit: spectra, statistics, maps and tests of modes and their mixing coefficients."""

from skdyn.analysis.channels import ChannelModes, channel_modes
from skdyn.analysis.densities import ModeBand, ModeSpectra
from skdyn.analysis.evoked import EvokedAlpha, evoked_alpha, evoked_test
from skdyn.analysis.features import SessionFeatures
from skdyn.analysis.groups import PermutationTest, permutation_test
from skdyn.analysis.sessions import SessionModes, fine_tune, modes_from_mixing, session_modes
from skdyn.analysis.spectra import mode_spectra
from skdyn.analysis.statistics import ModeStatistics, mode_statistics, normalised_alpha

__all__ = [
    "ChannelModes",
    "EvokedAlpha",
    "ModeBand",
    "ModeSpectra",
    "ModeStatistics",
    "PermutationTest",
    "SessionFeatures",
    "SessionModes",
    "channel_modes",
    "evoked_alpha",
    "evoked_test",
    "fine_tune",
    "mode_spectra",
    "mode_statistics",
    "modes_from_mixing",
    "normalised_alpha",
    "permutation_test",
    "session_modes",
]
