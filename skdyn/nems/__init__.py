"""Encoding models: a neural response predicted from a stimulus by a stack of fitted layers."""

from skdyn.nems.distributions import Beta, Exponential, Gamma, HalfNormal, Normal, Uniform
from skdyn.nems.estimator import NEMSRegressor
from skdyn.nems.keywords import from_keywords, keyword, to_keywords
from skdyn.nems.layers.base import Layer
from skdyn.nems.model import Model
from skdyn.nems.parameter import Parameter, Phi

__all__ = [
    "Beta",
    "Exponential",
    "Gamma",
    "HalfNormal",
    "Layer",
    "Model",
    "NEMSRegressor",
    "Normal",
    "Parameter",
    "Phi",
    "Uniform",
    "from_keywords",
    "keyword",
    "to_keywords",
]
