"""Estimators in files that run no code when they are read.

A pickle can run anything. The files here are those of skops: numbers, text and the names of types,
of which only those are made that you trust. `TRUSTED_TYPES` are all that fitted estimators of skdyn
are made of, beside what skops trusts by itself: scikit-learn's estimators, arrays, numbers and
text.
"""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from pydoc import locate
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

from sklearn.exceptions import InconsistentVersionWarning

from skdyn import __version__
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

__all__ = ["TRUSTED_TYPES", "load", "save"]

# What is made of each of these is made of plain values, and calls nothing that a file names. The
# parts of encoding models are those of their registries.
_PARTS_OF_MODELS = (
    *(NEMSRegressor, Model, Parameter, Phi, FitResults),
    *(Beta, Exponential, Gamma, HalfNormal, Normal, Uniform),
    *(kind for kind in layers.CLASSES if kind is not Layer),
    *LOSSES.values(),
    *SOLVERS.values(),
)
_OTHERS = (
    "skdyn.analysis.features.SessionFeatures",
    "skdyn.dynemo.estimator.DyNeMoEstimator",
    "skdyn.dynemo.network.DyNeMoNetwork",
    "skdyn.matching.ModeMatcher",
    "skdyn.preprocessing.artefacts.BadSegments",
    "skdyn.preprocessing.embedding.TimeDelayEmbedder",
    "skdyn.preprocessing.embedding.TimeDelayPCA",
    "skdyn.preprocessing.filtering.AmplitudeEnvelope",
    "skdyn.preprocessing.filtering.BandpassFilter",
    "skdyn.preprocessing.filtering.Downsampler",
    "skdyn.preprocessing.filtering.MovingAverage",
    "skdyn.preprocessing.scaling.SessionScaler",
    "skdyn.preprocessing.signs.SignAligner",
)
TRUSTED_TYPES = tuple(
    sorted({*_OTHERS, *(f"{kind.__module__}.{kind.__qualname__}" for kind in _PARTS_OF_MODELS)})
)

_VERSION = f"skdyn {__version__}"


def save(estimator, path) -> None:
    """Write an estimator to a file.

    Parameters
    ----------
    estimator : estimator
        One of skdyn's, fitted or not, or a pipeline with some of them.
    path : str or Path
        Where to; a file that is there is replaced. The usual ending is ".skops".

    Raises
    ------
    ImportError
        If skops is not installed.
    ValueError
        If the file could not be read again: the estimator holds a function or a class that is not
        at the top of a module, or it refers to itself.

    See Also
    --------
    load : Read it again.

    Notes
    -----
    The version of skdyn is written, too. Of torch there is nothing in the file, and a network that
    was trained on a GPU is read on any machine.

    The method `set_fit_request` of scikit-learn, and its like, make an estimator refer to itself,
    which skops 0.16 cannot write. `sessions` needs no such call.
    """
    skops = _import_skops()
    try:
        content = skops.dumps(estimator, compression=ZIP_DEFLATED)
    except RecursionError:
        raise ValueError(
            f"Got a {type(estimator).__name__} that refers to itself, which skops cannot write; "
            "set_fit_request and its like have that effect: do call them after load, not before "
            "save."
        ) from None
    lost = [name for name in skops.get_untrusted_types(data=content) if locate(name) is None]
    if lost:
        raise ValueError(
            f"Got a {type(estimator).__name__} that holds {lost}, which nobody would find who reads"
            " the file; define it at the top of a module, with a name."
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
        What may be made beside `TRUSTED_TYPES`, such as layers of your own: types, or their names,
        "module.Name". Name what you know, not what a file asks for.

    Returns
    -------
    estimator
        As it was saved: it computes the same to the last bit, and can be fitted further.

    Warns
    -----
    InconsistentVersionWarning
        If another version of skdyn, or of scikit-learn, wrote the file.

    Raises
    ------
    ImportError
        If skops is not installed.
    TypeError
        If there is something in the file that is not trusted. Nothing has been made then.
    ValueError
        If it is no such file.

    See Also
    --------
    save : Write such a file.

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
        raise ValueError(f"Got {path}, expected a file that save() wrote.") from None
    if unknown:
        raise TypeError(
            f"Got {path} with types that are not trusted, {unknown}, expected those of skdyn, "
            "scikit-learn and NumPy alone; if you know what they are, name them in trusted=."
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


def _name_of(trusted) -> str:
    return trusted if isinstance(trusted, str) else f"{trusted.__module__}.{trusted.__name__}"


def _import_skops():
    try:
        import skops.io
    except ImportError:
        raise ImportError(
            "Files of estimators are those of the package skops, which is not installed; do "
            "pip install 'skdyn[persistence]'."
        ) from None
    return skops.io
