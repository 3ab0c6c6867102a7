"""Bad inputs: each public callable with one argument replaced by something that is drawn."""

import contextlib
import copy
import datetime
import inspect
import os
import random
import re
import signal
import warnings
from collections import Counter
from functools import partial

import numpy as np
import scipy.sparse
import torch
from sklearn.base import clone

from skdyn import (
    ModeMatcher,
    NEMSRegressor,
    analysis,
    match_modes,
    metrics,
    model_selection,
    nems,
    plotting,
    preprocessing,
    simulation,
)
from skdyn.core.training import FitDivergedError
from skdyn.nems import distributions, layers
from tests.torture.children import Died, in_child
from tests.torture.models import dynemo, recording
from tests.torture.models import nems as encoder

SECONDS = 20
X, Y = recording(120, 3)
ALPHA = np.random.default_rng(1).dirichlet(np.ones(2), len(X))
COVARIANCES = np.stack([np.eye(3), np.diag([1.0, 2.0, 3.0])])
LABELS = np.repeat([0, 1], len(X) // 2)
# Other names of arguments in messages.
SYNONYMS = {
    "random_state": ["seed"],
    "text": ["word"],
    "*": ["alpha", "modes", "array 0", "time_series"],
}


# --------------------------------------------------------------------------------- bad values


def _pandas(**columns):
    pandas = __import__("pandas")
    return pandas.DataFrame(columns)


def _twins():
    frame = _pandas(a=X[:, 0], b=X[:, 1], c=X[:, 2])
    frame.columns = ["a", "a", "b"]
    return frame


ARRAYS = {
    "masked": lambda x: np.ma.masked_array(x, mask=np.arange(x.size).reshape(x.shape) % 7 == 0),
    "not masked": np.ma.masked_array,
    "datetime": lambda x: (x * 100).astype("datetime64[s]"),
    "timedelta": lambda x: (x * 100).astype("timedelta64[s]"),
    "text": lambda x: x.astype(str).astype(object) + "x",
    "objects": lambda x: np.full(x.shape, None),
    "object numbers": lambda x: x.astype(object),
    "complex": lambda x: x + 1j,
    "nan": lambda x: np.where(x > np.median(x), np.nan, x),
    "inf": lambda x: np.where(x > np.median(x), np.inf, x),
    "huge": lambda x: x * 1e160,
    "largest": lambda x: np.sign(x) * np.finfo(float).max,
    "tiny": lambda x: x * 1e-200,
    "subnormal": lambda x: x * 1e-310,
    "single subnormal": lambda x: (x * 1e-40).astype(np.float32),
    "half": lambda x: x.astype(np.float16),
    "long": lambda x: x.astype(np.longdouble),
    "integers": lambda x: (10 * x).astype(int),
    "unsigned": lambda x: np.abs(10 * x).astype(np.uint8),
    "booleans": lambda x: x > 0,
    "constant": np.ones_like,
    "zeros": np.zeros_like,
    "one constant column": lambda x: x * (np.arange(x.shape[-1]) > 0),
    "equal columns": lambda x: np.repeat(x[..., :1], x.shape[-1], axis=-1),
    "one row": lambda x: x[:1],
    "no rows": lambda x: x[:0],
    "no columns": lambda x: x[..., :0],
    "few rows": lambda x: x[:3],
    "one less row": lambda x: x[:-1],
    "more columns": lambda x: np.concatenate([x, x], axis=-1),
    "flat": np.ravel,
    "scalar": lambda x: x.ravel()[0],
    "deep": lambda x: x[None, None, None],
    "stack": lambda x: np.stack([x, x]),
    "list": lambda x: [x[:50], x[50:]],
    "list of unequal widths": lambda x: [x, x[..., :-1]],
    "list with an empty one": lambda x: [x, x[:0]],
    "list of lists": lambda x: x.tolist(),
    "ragged": lambda x: [[1.0], [1.0, 2.0]],
    "empty list": lambda x: [],
    "reversed": lambda x: x[::-1],
    "fortran": np.asfortranarray,
    "swapped bytes": lambda x: x.astype(x.dtype.newbyteorder()),
    "structured": lambda x: np.zeros(len(x), dtype=[("a", float)]),
    "sparse": lambda x: scipy.sparse.csr_matrix(np.atleast_2d(x)),
    "tensor": lambda x: torch.tensor(np.ascontiguousarray(x)),
    "tensor with gradient": lambda x: torch.tensor(np.ascontiguousarray(x), requires_grad=True),
    "twin columns": lambda x: _twins(),
    "table of text": lambda x: _pandas(a=["x"] * len(x)),
    "table": lambda x: _pandas(a=np.atleast_2d(x)[:, 0]),
    "nullable": lambda x: __import__("pandas").array([1, None] * (len(x) // 2)),
    "none": lambda x: None,
    "string": lambda x: "some text",
    "bytes": lambda x: b"bytes",
    "dict": lambda x: {"a": 1},
    "set": lambda x: {1, 2},
    "generator": lambda x: (row for row in x),
    "function": lambda x: len,
    "class": lambda x: dict,
    "estimator": lambda x: encoder(),
    "negative": lambda x: -np.abs(x) - 1,
}
VALUES = {
    **{repr(one): one for one in (None, True, False, -1, 0, 1, 2, 1.5, 1e300, -1e-300, "", "x")},
    **{repr(one): one for one in ([], [1], (), (1, 2), {}, {"a": 1}, set(), b"x", 1j, 0.5)},
    "nan": np.nan,
    "inf": np.inf,
    "-inf": -np.inf,
    "object": object(),
    "function": len,
    "class": dict,
    "array": np.ones((2, 2)),
    "empty array": np.zeros(0),
    "nan array": np.full(3, np.nan),
    "numpy integer": np.int64(3),
    "numpy text": np.str_("x"),
    "date": datetime.date(2026, 1, 1),
    "masked": np.ma.masked,
    "NaT": np.datetime64("NaT"),
    "range": range(3),
    "module": np,
    "large array": np.full((3, 3), 1e200),
    "text list": ["a", "b"],
    "nested": [[1, [2]]],
}


# ------------------------------------------------------------------------------------ targets


def _estimators():
    made = {
        name: getattr(preprocessing, name)()
        for name in preprocessing.__all__
        if inspect.isclass(getattr(preprocessing, name))
    }
    made["BandpassFilter"].set_params(low=0.1, high=0.3)
    made["NotchFilter"].set_params(frequency=0.2, width=0.05)
    made["TimeDelayEmbedder"].set_params(n_embeddings=3)
    made["TimeDelayPCA"].set_params(n_embeddings=3, n_components=2)
    made["DyNeMoEstimator"] = dynemo(n_epochs=2)
    made["NEMSRegressor"] = encoder("wc.x1-fir.2-lvl", max_iter=5)
    made["NEMSRegressor with adam"] = encoder("wc.x1-fir.2-relu", solver="adam", max_iter=2)
    made["ModeMatcher"] = ModeMatcher(reference=X[:, ::-1])
    made["SessionFeatures"] = analysis.SessionFeatures(dynemo(n_epochs=2))
    return made


ESTIMATORS = _estimators()
# Values that are legal and take long, for counts.
LEGAL = {"checkpoint": {"'x'", "numpy text", "b'x'"}, "verbose": set(VALUES), "n_jobs": set(VALUES)}


def fit(estimator, **data):
    given = {"X": X, **({"y": Y} if _needs_y(estimator) else {}), **data}
    if isinstance(estimator, analysis.SessionFeatures) and "X" not in data:
        given["X"] = [X[:60], X[60:]]
    return estimator.fit(**given)


def _needs_y(estimator):
    return isinstance(estimator, NEMSRegressor)


def _with_parameter(name, parameter):
    def call(value):
        estimator = clone(ESTIMATORS[name])
        setattr(estimator, parameter, value)  # as a constructor does
        estimator = fit(estimator)
        method = getattr(estimator, "transform", getattr(estimator, "predict", None))
        return estimator if method is None else method(X)

    return call


_FITTED = {}


def _fitted(name):
    if name not in _FITTED:
        _FITTED[name] = fit(clone(ESTIMATORS[name]))
    return copy.deepcopy(_FITTED[name])


def _with_data(name, method, argument):
    def call(value):
        if method == "fit":
            estimator = fit(clone(ESTIMATORS[name]), **{argument: value})
            found = {k: v for k, v in vars(estimator).items() if k.endswith("_")}
            return [v for v in found.values() if isinstance(v, np.ndarray | float)]
        function = getattr(_fitted(name), method)
        given = {"X": X, **({"y": Y} if method == "score" and _needs_y(ESTIMATORS[name]) else {})}
        return function(**{**given, argument: value})

    return call


def _with_argument(function, given, argument):
    def call(value):
        if argument == "*":
            return function(value, **{k: v for k, v in given.items() if k != "*"})
        positional = [given["*"]] * 2 if "*" in given else []
        keywords = {k: v for k, v in given.items() if k != "*"}
        return function(*positional, **{**keywords, argument: value})

    return call


def _values_of_layer(kind, **given):
    return kind(**given).get_parameter_values()


def _mean_of(kind, **given):
    return kind(**given).mean()


HZ = {"sampling_frequency": 50.0}
# Functions, with arguments that are right; those that are arrays by name.
FUNCTIONS = {
    "match_modes": (match_modes, {"*": ALPHA, "metric": "correlation", "return_order": False}),
    "mode_statistics": (
        *(analysis.mode_statistics,),
        {"alpha": ALPHA, "sessions": LABELS, "covariances": COVARIANCES, "fano_window": 0.5, **HZ},
    ),
    "normalised_alpha": (
        *(analysis.normalised_alpha,),
        {"alpha": ALPHA, "covariances": COVARIANCES, "sessions": LABELS},
    ),
    "permutation_test": (
        *(analysis.permutation_test,),
        {"values": X[:20], "labels": LABELS[::6], "n_permutations": 50, "level": 0.05}
        | {"alternative": "two-sided", "random_state": 0, "covariates": None},
    ),
    "mode_spectra": (
        *(analysis.mode_spectra,),
        {"X": X, "alpha": ALPHA, "window_length": 0.5, "step": None, "n_sub_windows": 1, **HZ}
        | {"method": "mixture", "n_refinement_steps": 1, "standardize": None, "rescale": False}
        | {"frequency_range": None, "sessions": LABELS},
    ),
    "modes_from_mixing": (
        *(analysis.modes_from_mixing,),
        {"X": X, "alpha": ALPHA, "covariances": COVARIANCES, "sessions": LABELS}
        | {"means": None, "shrinkage": 0.5},
    ),
    "evoked_alpha": (
        *(analysis.evoked_alpha,),
        {"alpha": ALPHA, "events": [30, 60, 90], "window": (-0.1, 0.2), "baseline": None, **HZ},
    ),
    "evoked_test": (
        *(analysis.evoked_test,),
        {"alpha": ALPHA, "events": [30, 60, 90], "window": (-0.1, 0.2), "n_permutations": 20, **HZ},
    ),
    "alpha_correlation": (metrics.alpha_correlation, {"alpha": ALPHA, "other": ALPHA}),
    "correlation_matrix": (metrics.correlation_matrix, {"alpha": ALPHA, "other": ALPHA}),
    "correlation_score": (
        *(metrics.correlation_score,),
        {"y_true": X, "y_pred": X[:, ::-1], "sample_weight": None, "multioutput": "raw_values"},
    ),
    "dice_coefficient": (metrics.dice_coefficient, {"labels": LABELS, "other": LABELS}),
    "noise_corrected_correlation": (
        *(metrics.noise_corrected_correlation,),
        {"repeats": np.stack([X, X + 0.1 * X[::-1]], axis=-1), "y_pred": X, "method": "hsu"},
    ),
    "riemannian_distance": (
        *(metrics.riemannian_distance,),
        {"covariance": COVARIANCES[0], "other": COVARIANCES[1]},
    ),
    "rv_coefficient": (metrics.rv_coefficient, {"matrix": X, "other": X[:, :2]}),
    "get_scorer": (metrics.get_scorer, {"scoring": "correlation"}),
    "select_run": (model_selection.select_run, {"runs": [ALPHA, ALPHA]}),
    "tde_pca": (
        *(preprocessing.tde_pca,),
        {"X": X, "n_components": 2, "n_embeddings": 3, "whiten": False, "edges": "reflect"}
        | {"sessions": LABELS},
    ),
    "MixedSineMVN": (
        lambda **given: simulation.MixedSineMVN(**given).time_series,
        {"n_samples": 50, "n_modes": 2, "n_channels": 3, "relative_activation": [1, 1]}
        | {"amplitudes": [1, 1], "frequencies": [1, 2], "means": "zero", **HZ}
        | {"covariances": "random", "observation_error": 0.0, "random_state": 0},
    ),
    "mode_palette": (plotting.mode_palette, {"n_modes": 3}),
    "plot_alpha": (plotting.plot_alpha, {"*": ALPHA, "n_samples": 20, "ax": None, **HZ}),
    "plot_matrices": (plotting.plot_matrices, {"matrices": COVARIANCES, "ax": None, "fig": None}),
    "plot_filters": (plotting.plot_filters, {"filters": X[:5], "ax": None, "lags": None}),
    "plot_nonlinearity": (
        *(plotting.plot_nonlinearity,),
        {"nonlinearity": np.tanh, "inputs": X[:, 0], "response": None, "n_bins": 5},
    ),
    "plot_predictions": (
        *(plotting.plot_predictions,),
        {"response": Y, "prediction": Y, "start": 0, "n_samples": None, **HZ},
    ),
    "plot_separate_time_series": (plotting.plot_separate_time_series, {"*": X, "n_samples": 20}),
    "ModesDisplay": (
        lambda **given: plotting.ModesDisplay(**given).plot(),
        {"covariances": COVARIANCES, "means": None, "weights": None},
    ),
    "TrainingDisplay": (
        lambda **given: plotting.TrainingDisplay(**given).plot(),
        {"history": {"loss": [2.0, 1.0]}, "step": "Epoch", "unit": None},
    ),
    "Model.fit": (
        lambda **given: (
            nems.Model(layers.WeightChannels((3, 1)))
            .fit(verbose=0, **given)
            .results.final_parameters
        ),
        {"input": X, "target": Y, "sample_weight": None, "trials": False, "preceding": None}
        | {"alpha": 0.0, "tol": 1e-3, "max_iter": 5, "init": "given", "history": "skip"},
    ),
    "Model.evaluate": (
        lambda **given: nems.Model(layers.WeightChannels((3, 1))).evaluate(**given)["output"],
        {"input": X, "state": None, "trials": False},
    ),
    "Parameter": (
        lambda **given: nems.Parameter(**given).values,
        {"name": "a", "shape": (2,), "prior": None, "bounds": None, "zero_to_epsilon": False}
        | {"default_bounds": "infinite", "initial_value": "mean", "random_state": 0},
    ),
    **{
        f"layers.{name}": (
            partial(_values_of_layer, getattr(layers, name)),
            {"shape": shape, "l2": None, "priors": None, "bounds": None, "values": None}
            | {"frozen": (), "permanent": (), "parameters": None, "name": None, "input": None},
        )
        for name, shape in {
            "WeightChannels": (3, 1),
            "FIR": (3, 1),
            "STRF": (2, 3, 1),
            "WeightChannelsGaussian": (3, 1),
            "LevelShift": (1,),
            "DoubleExponential": (1,),
            "RectifiedLinear": (1,),
        }.items()
    },
    **{
        name: (partial(_mean_of, getattr(distributions, name)), given)
        for name, given in {
            "Normal": {"mean": 0.0, "sd": 1.0},
            "HalfNormal": {"sd": 1.0},
            "Gamma": {"alpha": 1.0, "beta": 1.0},
            "Beta": {"alpha": 1.0, "beta": 1.0},
            "Exponential": {"beta": 1.0},
            "Uniform": {"lower": 0.0, "upper": 1.0},
        }.items()
    },
    "from_keywords": (
        lambda text: [str(one.shape) for one in nems.from_keywords(text)],
        {"text": "wc.x1"},
    ),
    "BlockKFold": (
        lambda **given: list(model_selection.BlockKFold(**given).split(X)),
        {"n_splits": 3, "n_blocks": None, "gap": 0},
    ),
    "SessionKFold": (
        lambda groups=LABELS, **given: list(
            model_selection.SessionKFold(**given).split(X, groups=groups)
        ),
        {"n_splits": 2, "shuffle": False, "random_state": None, "groups": LABELS},
    ),
}


def targets():
    """Return callables of one value by name of the target and the argument, and a right value."""
    found = {}
    for name, estimator in ESTIMATORS.items():
        for parameter in estimator.get_params(deep=False):
            found[name, parameter] = _with_parameter(name, parameter), None
        methods = ["fit", *(m for m in ("transform", "predict", "score") if hasattr(estimator, m))]
        for method in methods:
            arguments = inspect.signature(getattr(estimator, method)).parameters
            rights = {"X": X, "y": Y, "sample_weight": np.ones(len(X)), "sessions": LABELS}
            rights |= {"preceding": X[:3], "state": Y}
            for argument, right in rights.items():
                if argument in arguments and (argument != "y" or _needs_y(estimator)):
                    key = f"{name}.{method}", argument
                    found[key] = _with_data(name, method, argument), right
    for name, (function, given) in FUNCTIONS.items():
        for argument, right in given.items():
            found[name, argument] = _with_argument(function, given, argument), right
    return found


def draw(rng, right):
    """Draw a bad value; where an array is right, an array mostly."""
    is_array = isinstance(right, np.ndarray)
    if is_array and rng.random() < 0.85:
        names = list(ARRAYS)
        name = names[rng.integers(len(names))]
        return name, ARRAYS[name](right)
    names = list(VALUES)
    name = names[rng.integers(len(names))]
    return name, VALUES[name]


# ----------------------------------------------------------------------------------- outcomes


class _TooLong(BaseException):
    pass


def _state():
    state = np.random.get_state()  # noqa: NPY002
    return (
        state[1].tobytes(),
        state[2],
        random.getstate(),
        torch.get_rng_state().numpy().tobytes(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        dict(os.environ),
        os.getcwd(),
        repr(np.geterr()),
        [str(one) for one in warnings.filters],
    )


def _floats(result):
    """Return all floats of a result."""
    if isinstance(result, torch.Tensor):
        result = result.detach().numpy()
    if isinstance(result, float):
        return np.array([result])
    if isinstance(result, np.ndarray):
        return result.ravel() if result.dtype.kind in "fc" else np.zeros(0)
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, list | tuple):
        return np.concatenate([np.zeros(0), *map(_floats, result)])
    return np.zeros(0)


def outcome(call, value, key):
    """Call a target, and return the outcome."""
    kept = copy.deepcopy(value) if isinstance(value, np.ndarray) else None
    before = _state()
    # Of the processor: on a busy machine an alarm by the clock stops imports half-way.
    signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"), _no_output():
            warnings.simplefilter("ignore")
            result = call(value)
            finite = np.isfinite(_floats(result)).all()
        said = "result" if finite or _may_be_nan(key, value) else "NOT FINITE"
    except (ValueError, TypeError, FitDivergedError) as error:
        said = "named" if _is_named(str(error), key[1]) else "not named"
    except _TooLong:
        said = "TOO LONG"
    except Exception as error:
        said = f"ESCAPED {type(error).__name__}: {str(error)[:80]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        import matplotlib.pyplot as plt

        plt.close("all")
    if _state() != before:
        return "STATE TOUCHED"
    if kept is not None and kept.dtype != object and not _same(kept, value):
        return "DATA TOUCHED"
    return said


def _may_be_nan(key, value):
    """Whether documentation says that this result can be NaN."""
    name, _ = key
    if name.startswith("Model.") or name in ("rv_coefficient", "mode_statistics"):
        return True  # layers take what they are given; a zero matrix has no coefficient
    if name.startswith(("BadSegments", "ModeMatcher", "evoked_", "permutation_test")):
        return True  # missing and infinite values are accepted, or have no statistic
    if key == ("modes_from_mixing", "shrinkage"):
        return True  # infinity is a legal value
    return "correlation" in name  # of constant courses


def _same(one, two):
    return np.asarray(one).tobytes() == np.asarray(two).tobytes()


def _stop(*_):
    raise _TooLong


@contextlib.contextmanager
def _no_output():
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _is_named(message, argument):
    text = message.lower()
    names = [argument.strip("*").lower(), *SYNONYMS.get(argument, ())]
    return any(name and re.search(rf"\b{re.escape(name)}", text) for name in names)


def _try(cases):
    found, known = [], targets()
    for key, seed in cases:
        call, right = known[key]
        try:
            name, value = draw(np.random.default_rng(seed), right)
        except Exception:  # an array that this one cannot be made of
            name, value = "none", None
        if name in LEGAL.get(key[1], ()):
            found.append((key, name, "legal"))
            continue
        found.append((key, name, outcome(call, value, key)))
    return found


def run(n_inputs, *, seed=0, per_child=250, only=None):
    """Draw inputs; return counts by outcome, and the cases that are not as promised."""
    rng = np.random.default_rng(seed)
    keys = [key for key in targets() if only is None or only in key[0]]
    counts, wrong = Counter(), []
    for first in range(0, n_inputs, per_child):
        n = min(per_child, n_inputs - first)
        cases = [(keys[rng.integers(len(keys))], int(rng.integers(2**31))) for _ in range(n)]
        try:
            found = in_child(_try, cases, seconds=SECONDS * 20)
        except Died as error:
            found = [(("?", "?"), str(cases[0]), f"ESCAPED {error}")]
        counts.update(said.partition(" ")[0] if said[0] == "E" else said for *_, said in found)
        wrong += [case for case in found if case[2].split(" ")[0].isupper()]
    return counts, wrong
