"""Layers of encoding models."""

from skdyn.nems.layers.algebra import (
    Concatenate,
    ConcatSkip,
    Multiply,
    MultiplyByExp,
    NumPy,
    Select,
    Sum,
    SwapDims,
)
from skdyn.nems.layers.base import Layer
from skdyn.nems.layers.channels import (
    GaussianExpansion,
    WeightChannels,
    WeightChannelsGaussian,
    WeightChannelsMulti,
)
from skdyn.nems.layers.convolution import Conv2d
from skdyn.nems.layers.filters import FIR, STRF, FiniteImpulseResponse
from skdyn.nems.layers.history import ResponseHistory
from skdyn.nems.layers.nonlinearities import (
    DoubleExponential,
    Hinge,
    LevelShift,
    LogCompress,
    PowerCompress,
    PReLU,
    RectifiedLinear,
    ReLU,
    Sigmoid,
    SoftRelu,
    StaticNonlinearity,
    Tanh,
)
from skdyn.nems.layers.normalization import BatchNormalization, OutputNormalization
from skdyn.nems.layers.plasticity import ShortTermPlasticity
from skdyn.nems.layers.pole_zero import PoleZeroFilter
from skdyn.nems.layers.recurrent import GatedRecurrentUnit
from skdyn.nems.layers.state import StateDexp, StateGain, StateHinge

__all__ = [
    "FIR",
    "STRF",
    "BatchNormalization",
    "ConcatSkip",
    "Concatenate",
    "Conv2d",
    "DoubleExponential",
    "FiniteImpulseResponse",
    "GatedRecurrentUnit",
    "GaussianExpansion",
    "Hinge",
    "Layer",
    "LevelShift",
    "LogCompress",
    "Multiply",
    "MultiplyByExp",
    "NumPy",
    "OutputNormalization",
    "PReLU",
    "PoleZeroFilter",
    "PowerCompress",
    "ReLU",
    "RectifiedLinear",
    "ResponseHistory",
    "Select",
    "ShortTermPlasticity",
    "Sigmoid",
    "SoftRelu",
    "StateDexp",
    "StateGain",
    "StateHinge",
    "StaticNonlinearity",
    "Sum",
    "SwapDims",
    "Tanh",
    "WeightChannels",
    "WeightChannelsGaussian",
    "WeightChannelsMulti",
]

# All classes, each once; `skdyn.persistence` accepts them in files.
CLASSES = tuple(dict.fromkeys(globals()[name] for name in __all__))
