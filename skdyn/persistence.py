"""Save estimators to files that run no code when they are loaded.

A pickle can run any code. The files here are those of skops: numbers, text and the names of types,
of which only trusted ones are created. `TRUSTED_TYPES` lists the types that fitted estimators of
skdyn, searches over them and comparisons of models consist of, besides those that skops trusts:
scikit-learn's estimators, arrays, numbers and text.
"""

from __future__ import annotations

import warnings
from inspect import isclass, isfunction, signature
from io import BytesIO
from pathlib import Path
from pydoc import locate
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import sklearn.metrics
import sklearn.model_selection
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.metrics import check_scoring, make_scorer

from skdyn import __version__, analysis, metrics, model_selection, preprocessing, simulation
from skdyn.nems import (
    Beta,
    Exponential,
    FitResults,
    Gamma,
    HalfNormal,
    Layer,
    Model,
    NEMSRegressor,
    Normal,
    Parameter,
    Phi,
    Uniform,
    layers,
)
from skdyn.nems.fitting import SOLVERS
from skdyn.nems.losses import LOSSES
from skdyn.nems.penalties import PENALTIES

__all__ = ["TRUSTED_TYPES", "load", "save"]

# Each of these is created from plain values, and calls nothing that a file names. The parts of
# encoding models are those of their registries.
_PARTS_OF_MODELS = (
    *(NEMSRegressor, Model, Parameter, Phi, FitResults),
    *(Beta, Exponential, Gamma, HalfNormal, Normal, Uniform),
    *(kind for kind in layers.CLASSES if kind is not Layer),
    *LOSSES.values(),
    *PENALTIES,
    *SOLVERS.values(),
)
# Public classes of these rooms: transformers, splitters, scorers, results.
_ROOMS = (analysis, metrics, model_selection, preprocessing, simulation)
# What searches of scikit-learn hold: its splitters, scorers, and metrics of true and predicted y.
_PARTS_OF_SEARCHES = (
    *(type(check_scoring(NEMSRegressor())), type(make_scorer(sklearn.metrics.r2_score))),
    *(
        kind
        for kind in map(vars(sklearn.model_selection).get, sklearn.model_selection.__all__)
        if isclass(kind) and hasattr(kind, "get_n_splits")
    ),
    *(
        metric
        for metric in map(vars(sklearn.metrics).get, sklearn.metrics.__all__)
        if isfunction(metric) and [*signature(metric).parameters][:1] == ["y_true"]
    ),
)
# By name, as their rooms need torch, or are experimental, or not public.
_OTHERS = (
    "skdyn.analysis.features.SessionFeatures",
    "skdyn.dynemo.estimator.DyNeMoEstimator",
    "skdyn.dynemo.network.DyNeMoNetwork",
    "skdyn.matching.ModeMatcher",
    "skdyn.model_selection.evaluation.Failure",
    "skdyn.sessions.SessionList",
    "sklearn.model_selection._search_successive_halving.HalvingGridSearchCV",
    "sklearn.model_selection._search_successive_halving.HalvingRandomSearchCV",
)


def _classes_of(room) -> list[type]:
    return [kind for kind in map(vars(room).get, room.__all__) if isclass(kind)]


def _name_of(trusted) -> str:
    return trusted if isinstance(trusted, str) else f"{trusted.__module__}.{trusted.__qualname__}"


TRUSTED_TYPES = tuple(
    sorted(
        {
            *_OTHERS,
            *map(_name_of, (*_PARTS_OF_MODELS, *_PARTS_OF_SEARCHES)),
            *(_name_of(one) for room in _ROOMS for one in _classes_of(room)),
        }
    )
)

_VERSION = f"skdyn {__version__}"


def save(estimator, path) -> None:
    """Write an estimator to a file.

    Parameters
    ----------
    estimator : estimator, search or ModelComparison
        An estimator of skdyn, fitted or not; a pipeline with some of them; a search over one of
        these, such as GridSearchCV, with splitters and scorers of skdyn or of scikit-learn; or the
        result of `compare_models`.
    path : str or Path
        File to write; an existing one is replaced. The usual ending is ".skops".

    Raises
    ------
    ImportError
        If skops is not installed.
    ValueError
        If the file could not be loaded: the estimator holds a function or a class that is not
        defined at module level, or it refers to itself.

    See Also
    --------
    load : Load the estimator.

    Notes
    -----
    The file records the version of skdyn. It contains nothing of torch, so a network that was
    trained on a GPU can be loaded on any machine.

    A search keeps all its results. If only the best model is needed, save `best_estimator_`. Types
    that are not trusted, such as distributions of SciPy in a RandomizedSearchCV or a scoring
    function of your own, have to be named in `load(path, trusted=...)`.

    The method `set_fit_request` of scikit-learn and similar ones make an estimator refer to itself,
    which skops 0.16 cannot write. `sessions` needs no such call.
    """
    skops = _import_skops()
    try:
        content = skops.dumps(estimator, compression=ZIP_DEFLATED)
    except RecursionError:
        raise ValueError(
            f"The {type(estimator).__name__} refers to itself, which skops cannot write. "
            "set_fit_request and similar methods have that effect: call them after load, not "
            "before save."
        ) from None
    lost = [name for name in skops.get_untrusted_types(data=content) if locate(name) is None]
    if lost:
        raise ValueError(
            f"The {type(estimator).__name__} holds {lost}, which cannot be imported on load. "
            "Define it at module level."
        )
    file = BytesIO(content)
    with ZipFile(file, "a") as archive:
        archive.comment = _VERSION.encode()
    Path(path).write_bytes(file.getvalue())


def load(path, *, trusted=()):
    """Read an estimator from a file.

    Parameters
    ----------
    path : str or Path
        A file that `save`, or `skops.io.dump`, wrote.
    trusted : list of str or type, default=()
        Further types that may be created, besides `TRUSTED_TYPES`, such as layers of your own:
        types, or their names, "module.Name". Name types that you know, not those that a file asks
        for.

    Returns
    -------
    estimator
        The estimator as it was saved: its results are the same bit for bit, and it can be fitted
        further.

    Warns
    -----
    InconsistentVersionWarning
        If another version of skdyn, or of scikit-learn, wrote the file.

    Raises
    ------
    ImportError
        If skops is not installed.
    TypeError
        If the file holds types that are not trusted. Nothing is created then.
    ValueError
        If the file was not written by `save`.

    See Also
    --------
    save : Save an estimator.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from skdyn import NEMSRegressor
    >>> from skdyn.persistence import load, save
    >>> X = np.random.default_rng(0).standard_normal((100, 3))
    >>> model = NEMSRegressor("wc.x2-fir.2").fit(X, X[:, 0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, f"{folder}/model.skops")
    ...     again = load(f"{folder}/model.skops")
    >>> bool(np.all(again.predict(X) == model.predict(X)))
    True
    """
    skops = _import_skops()
    content = Path(path).read_bytes()
    names = {*TRUSTED_TYPES, *map(_name_of, trusted)}
    try:
        with ZipFile(BytesIO(content)) as archive:
            version = archive.comment.decode(errors="replace")
        unknown = sorted(set(skops.get_untrusted_types(data=content)) - names)
    except (BadZipFile, KeyError):
        raise ValueError(f"{path} was not written by save().") from None
    if unknown:
        raise TypeError(
            f"{path} holds types that are not trusted: {unknown}. If you know what they are, name "
            "them in trusted=."
        )
    if version not in ("", _VERSION):  # skops.io.dump writes none
        warnings.warn(
            InconsistentVersionWarning(
                estimator_name=Path(path).name,
                current_sklearn_version=_VERSION,
                original_sklearn_version=version,
            ),
            stacklevel=2,
        )
    return skops.loads(content, trusted=sorted(names))


def _import_skops():
    try:
        import skops.io
    except ImportError:
        raise ImportError(
            "skops is required to save and load estimators. Run `pip install 'skdyn[persistence]'`."
        ) from None
    return skops.io
