"""Layers of encoding models."""

from skdyn.nems.layers.algebra import Concatenate, Multiply, Select, Sum
from skdyn.nems.layers.base import Layer
from skdyn.nems.layers.channels import (
    WeightChannels,
    WeightChannelsGaussian,
    WeightChannelsMulti,
)
from skdyn.nems.layers.filters import FIR, STRF, FiniteImpulseResponse
from skdyn.nems.layers.history import ResponseHistory
from skdyn.nems.layers.nonlinearities import (
    DoubleExponential,
    Hinge,
    LevelShift,
    LogCompress,
    PReLU,
    RectifiedLinear,
    ReLU,
    Sigmoid,
    SoftRelu,
    StaticNonlinearity,
    Tanh,
)

__all__ = [
    "FIR",
    "STRF",
    "Concatenate",
    "DoubleExponential",
    "FiniteImpulseResponse",
    "Hinge",
    "Layer",
    "LevelShift",
    "LogCompress",
    "Multiply",
    "PReLU",
    "ReLU",
    "RectifiedLinear",
    "ResponseHistory",
    "Select",
    "Sigmoid",
    "SoftRelu",
    "StaticNonlinearity",
    "Sum",
    "Tanh",
    "WeightChannels",
    "WeightChannelsGaussian",
    "WeightChannelsMulti",
]

# All classes, each once; files that `skdyn.persistence` reads may hold them.
CLASSES = tuple(dict.fromkeys(globals()[name] for name in __all__))
