"""After the fit: spectra of modes, and modes in channels."""

from skdyn.analysis.channels import ChannelModes, channel_modes
from skdyn.analysis.densities import ModeBand, ModeSpectra
from skdyn.analysis.spectra import mode_spectra

__all__ = ["ChannelModes", "ModeBand", "ModeSpectra", "channel_modes", "mode_spectra"]
