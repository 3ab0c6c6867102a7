"""Scores and distances: of modes, and of predicted responses, as functions and as scorers."""

from skdyn.metrics.modes import (
    alpha_correlation,
    correlation_matrix,
    dice_coefficient,
    riemannian_distance,
    rv_coefficient,
)
from skdyn.metrics.reliability import intraclass_correlation
from skdyn.metrics.responses import correlation_score, noise_corrected_correlation
from skdyn.metrics.scorers import (
    CorrelationScorer,
    NoiseCorrectedScorer,
    correlation_scorer,
    get_scorer,
    get_scorer_names,
    noise_corrected_scorer,
)

__all__ = [
    "CorrelationScorer",
    "NoiseCorrectedScorer",
    "alpha_correlation",
    "correlation_matrix",
    "correlation_score",
    "correlation_scorer",
    "dice_coefficient",
    "get_scorer",
    "get_scorer_names",
    "intraclass_correlation",
    "noise_corrected_correlation",
    "noise_corrected_scorer",
    "riemannian_distance",
    "rv_coefficient",
]
