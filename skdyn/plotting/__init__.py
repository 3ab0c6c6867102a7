"""Pictures: functions that draw arrays, and Displays that draw fitted estimators.

matplotlib is imported when something is drawn, not before. No global setting of matplotlib is
changed and no window is opened: functions return the figure and its axes.
"""

from skdyn._drawing import mode_palette
from skdyn.plotting.arrays import plot_matrices, plot_separate_time_series
from skdyn.plotting.artefacts import BadSegmentsDisplay
from skdyn.plotting.encoding import NEMSDisplay
from skdyn.plotting.filters import linear_filter
from skdyn.plotting.inspection import (
    LayersDisplay,
    ReceptiveFieldDisplay,
    StartsDisplay,
    StateDisplay,
    TuningDisplay,
)
from skdyn.plotting.modes import ModesDisplay, plot_alpha, plot_raster
from skdyn.plotting.networks import plot_circles, plot_topomaps
from skdyn.plotting.responses import plot_filters, plot_nonlinearity, plot_predictions
from skdyn.plotting.training import TrainingDisplay

__all__ = [
    "BadSegmentsDisplay",
    "LayersDisplay",
    "ModesDisplay",
    "NEMSDisplay",
    "ReceptiveFieldDisplay",
    "StartsDisplay",
    "StateDisplay",
    "TrainingDisplay",
    "TuningDisplay",
    "linear_filter",
    "mode_palette",
    "plot_alpha",
    "plot_circles",
    "plot_filters",
    "plot_matrices",
    "plot_nonlinearity",
    "plot_predictions",
    "plot_raster",
    "plot_separate_time_series",
    "plot_topomaps",
]
