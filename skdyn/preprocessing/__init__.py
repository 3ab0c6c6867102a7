"""Transformers of recordings that respect sessions; all but Downsampler keep every row."""

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
from skdyn.preprocessing.scaling import SessionScaler
from skdyn.preprocessing.signs import SignAligner

__all__ = [
    "AmplitudeEnvelope",
    "BadSegments",
    "BandpassFilter",
    "Downsampler",
    "MovingAverage",
    "NotchFilter",
    "SessionPCA",
    "SessionScaler",
    "SignAligner",
    "TimeDelayEmbedder",
    "TimeDelayPCA",
    "tde_pca",
]
