"""Encoding models, which predict a neural response from a stimulus with fitted layers."""

from skdyn.nems.architectures import (
    cnn_population,
    ln_population,
    ln_strf,
    reconstruction,
    statenet_gru,
)
from skdyn.nems.distributions import Beta, Exponential, Gamma, HalfNormal, Normal, Uniform
from skdyn.nems.fitting import FitResults, Solver
from skdyn.nems.keywords import from_keywords, keyword, to_keywords
from skdyn.nems.layers.base import Layer
from skdyn.nems.losses import Loss
from skdyn.nems.model import Model
from skdyn.nems.parameter import Parameter, Phi
from skdyn.nems.penalties import L1, L2, BandedL2, GroupL1, Penalty, Smooth
from skdyn.nems.regressor import NEMSRegressor

__all__ = [
    "L1",
    "L2",
    "BandedL2",
    "Beta",
    "Exponential",
    "FitResults",
    "Gamma",
    "GroupL1",
    "HalfNormal",
    "Layer",
    "Loss",
    "Model",
    "NEMSRegressor",
    "Normal",
    "Parameter",
    "Penalty",
    "Phi",
    "Smooth",
    "Solver",
    "Uniform",
    "cnn_population",
    "from_keywords",
    "keyword",
    "ln_population",
    "ln_strf",
    "reconstruction",
    "statenet_gru",
    "to_keywords",
]
