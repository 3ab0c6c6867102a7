"""Transformers of recordings that respect sessions, and functions for sounds and spikes.

Transformers keep every row, except those with a `new_sampling_frequency`.
"""

from skdyn.preprocessing.alignment import CovarianceAligner
from skdyn.preprocessing.artefacts import BadSegments
from skdyn.preprocessing.components import SessionPCA, TimeDelayPCA, tde_pca
from skdyn.preprocessing.embedding import TimeDelayEmbedder
from skdyn.preprocessing.filtering import (
    AmplitudeEnvelope,
    BandpassFilter,
    MovingAverage,
    NotchFilter,
)
from skdyn.preprocessing.rates import Downsampler
from skdyn.preprocessing.scaling import LogCompressor, RangeScaler, SessionScaler
from skdyn.preprocessing.signs import SignAligner
from skdyn.preprocessing.sounds import GammatoneFilterbank, Spectrogram, read_sound
from skdyn.preprocessing.spikes import count_spikes, spike_times

__all__ = [
    "AmplitudeEnvelope",
    "BadSegments",
    "BandpassFilter",
    "CovarianceAligner",
    "Downsampler",
    "GammatoneFilterbank",
    "LogCompressor",
    "MovingAverage",
    "NotchFilter",
    "RangeScaler",
    "SessionPCA",
    "SessionScaler",
    "SignAligner",
    "Spectrogram",
    "TimeDelayEmbedder",
    "TimeDelayPCA",
    "count_spikes",
    "read_sound",
    "spike_times",
    "tde_pca",
]
