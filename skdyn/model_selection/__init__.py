"""Cross-validation of time series, and the comparison of several models on the same folds."""

from skdyn.model_selection.clusters import on_dask
from skdyn.model_selection.comparison import compare_models
from skdyn.model_selection.repeats import select_run
from skdyn.model_selection.splitters import BlockKFold, SessionKFold
from skdyn.model_selection.table import ModelComparison

__all__ = [
    "BlockKFold",
    "ModelComparison",
    "SessionKFold",
    "compare_models",
    "on_dask",
    "select_run",
]
