"""What comes before a model: transformers that know sessions and keep every row."""

from skdyn.preprocessing.artefacts import BadSegments
from skdyn.preprocessing.embedding import TimeDelayEmbedder, TimeDelayPCA, tde_pca
from skdyn.preprocessing.filtering import (
    AmplitudeEnvelope,
    BandpassFilter,
    Downsampler,
    MovingAverage,
)
from skdyn.preprocessing.scaling import SessionScaler
from skdyn.preprocessing.signs import SignAligner

__all__ = [
    "AmplitudeEnvelope",
    "BadSegments",
    "BandpassFilter",
    "Downsampler",
    "MovingAverage",
    "SessionScaler",
    "SignAligner",
    "TimeDelayEmbedder",
    "TimeDelayPCA",
    "tde_pca",
]
