"""Save estimators to files that cannot execute code on loading.

A pickle can execute any code. Files are written in the format of skops: numbers, text and the names
of types, of which only trusted ones are created. `TRUSTED_TYPES` lists the types in fitted
estimators of skdyn, searches over them and comparisons of models, in addition to those that skops
trusts: scikit-learn's estimators, arrays, numbers and text.
"""

from __future__ import annotations

import warnings
from inspect import isclass, isfunction, signature
from pathlib import Path
from pydoc import locate
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile

import sklearn.metrics
import sklearn.model_selection
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.metrics import check_scoring, make_scorer

from skdyn import __version__, analysis, metrics, model_selection, preprocessing, simulation
from skdyn._archive import check_archive, check_members, check_types, read_schema, seal, unseal
from skdyn.core.files import write_atomically
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

__all__ = ["TRUSTED_TYPES", "LoadError", "load", "save"]

# Each of these is created from plain values and calls nothing that is named in a file. The parts
# of encoding models are those of their registries.
_PARTS_OF_MODELS = (
    *(NEMSRegressor, Model, Parameter, Phi, FitResults),
    *(Beta, Exponential, Gamma, HalfNormal, Normal, Uniform),
    *(kind for kind in layers.CLASSES if kind is not Layer),
    *LOSSES.values(),
    *PENALTIES,
    *SOLVERS.values(),
)
# Public classes of these modules: transformers, splitters, scorers, results.
_ROOMS = (analysis, metrics, model_selection, preprocessing, simulation)
# Parts of searches of scikit-learn: splitters, scorers, and metrics of true and predicted y.
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
# By name, because their modules need torch, are experimental, or are not public.
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

# Parts of searches that skops itself trusts from a later version on: plain numbers and text.
_PARTS_OF_OTHERS = (
    *("numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"),
    "sklearn.utils._metadata_requests.MetadataRequest",
    "sklearn.utils._metadata_requests.MethodMetadataRequest",
)

_VERSION = f"skdyn {__version__}"


class LoadError(ValueError):
    """A file was not written by `save`, is damaged, or holds types that are not trusted."""


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
    OSError
        If the file cannot be written. An existing file is not changed.
    ValueError
        If the file could not be loaded: the estimator holds a function or a class that is not
        defined at module level, it refers to itself, or its attributes hide methods.

    See Also
    --------
    load : Load the estimator.

    Notes
    -----
    The file is written beside its path and then renamed, so that the path holds the old file or
    the new one at every moment, also if the disk is full or the process is killed. It records the
    version of skdyn and a digest of its content, which `load` checks. It contains nothing of torch,
    so a network that was trained on a GPU can be loaded on any machine.

    A search keeps all its results. If only the best model is needed, save `best_estimator_`. Types
    that are not trusted, such as distributions of SciPy in a RandomizedSearchCV or a custom
    scoring function, must be named in `load(path, trusted=...)`.

    The method `set_fit_request` of scikit-learn and similar ones make an estimator refer to itself,
    which skops 0.16 cannot write. `sessions` needs no such call.
    """
    skops = _import_skops()
    name = type(estimator).__name__
    try:
        content = skops.dumps(estimator, compression=ZIP_DEFLATED)
    except RecursionError:
        raise ValueError(
            f"The {name} refers to itself, which skops cannot write. "
            "set_fit_request and similar methods have that effect: call them after load, not "
            "before save."
        ) from None
    lost = [found for found in skops.get_untrusted_types(data=content) if locate(found) is None]
    if lost:
        raise ValueError(
            f"The {name} holds {lost}, which cannot be imported on load. Define it at module level."
        )
    try:
        check_archive(content)
    except ValueError:  # arrays that compress like nothing a file may hold, such as zeros
        content = skops.dumps(estimator, compression=ZIP_STORED)
    try:
        check_archive(content)
        schema = read_schema(content)
        check_members(content, schema)
        check_types(schema, frozenset(TRUSTED_TYPES))
    except ValueError as error:
        raise ValueError(f"The {name} could not be loaded from a file: {error}.") from None
    write_atomically(path, seal(content, _VERSION))


def load(path, *, trusted=()):
    """Read an estimator from a file.

    Parameters
    ----------
    path : str or Path
        A file written by `save` or `skops.io.dump`.
    trusted : list of str or type, default=()
        Types that may be created in addition to `TRUSTED_TYPES`, such as custom layers: types, or
        their names, "module.Name". Name only types that you know, not every type that a file
        needs.

    Returns
    -------
    estimator
        The estimator as it was saved: its results are bit-identical, and training can continue.

    Warns
    -----
    InconsistentVersionWarning
        If the file was written by another version of skdyn or scikit-learn.

    Raises
    ------
    ImportError
        If skops is not installed.
    LoadError
        If the file was not written by `save`, is damaged, holds types that are not trusted, needs
        far more memory than its size suggests, or has attributes that hide methods. It is a
        ValueError, names the file, and is raised before any object is created, except if objects
        that were created are inconsistent.
    OSError
        If the file cannot be read.

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
    names = {*TRUSTED_TYPES, *_PARTS_OF_OTHERS, *map(_name_of, trusted)}
    try:
        version = _check(content, skops, names)
    except LoadError as error:
        raise LoadError(f"{path} {error}") from None
    except BadZipFile:
        raise LoadError(f"{path} was not written by save().") from None
    except Exception as error:
        raise LoadError(f"{path} was not written by save(), or is damaged: {error}.") from error
    if version not in ("", _VERSION):  # skops.io.dump writes none
        warnings.warn(
            InconsistentVersionWarning(
                estimator_name=Path(path).name,
                current_sklearn_version=_VERSION,
                original_sklearn_version=version,
            ),
            stacklevel=2,
        )
    try:
        return skops.loads(content, trusted=sorted(names))
    except Warning:  # one that the caller has turned into an error
        raise
    except Exception as error:
        raise LoadError(f"{path} holds parts that do not go together: {error}.") from error


def _check(content: bytes, skops, names: set[str]) -> str:
    """Check a file before any object is created; return the version that wrote it."""
    version = unseal(content)
    check_archive(content)
    schema = read_schema(content)
    check_members(content, schema)
    unknown = sorted(set(skops.get_untrusted_types(data=content)) - names)
    if unknown:
        raise LoadError(
            f"holds types that are not trusted: {unknown}. If you know what they are, name them in "
            "trusted=."
        )
    check_types(schema, frozenset(TRUSTED_TYPES))
    return version


def _import_skops():
    try:
        import skops.io
    except ImportError:
        raise ImportError(
            "skops is required to save and load estimators. Run `pip install 'skdyn[persistence]'`."
        ) from None
    return skops.io
