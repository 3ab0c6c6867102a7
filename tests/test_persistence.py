"""Files of estimators: contents, trusted types, and lossless round trips."""

import copy
import importlib
import inspect
import io
import pickle
import pkgutil
import sys
import warnings
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from sklearn import clone
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import Ridge
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    TimeSeriesSplit,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skdyn
from skdyn import DyNeMoEstimator, ModeMatcher, NEMSRegressor, analysis, preprocessing
from skdyn.analysis import SessionFeatures
from skdyn.metrics import CorrelationScorer, correlation_scorer, noise_corrected_scorer
from skdyn.model_selection import BlockKFold, SessionKFold, compare_models
from skdyn.nems import L1, L2, BandedL2, GroupL1, Layer, Smooth, distributions, layers
from skdyn.nems.fitting import SOLVERS
from skdyn.nems.layers import FiniteImpulseResponse
from skdyn.nems.losses import LOSSES
from skdyn.nems.penalties import PENALTIES
from skdyn.persistence import TRUSTED_TYPES, LoadError, load, save
from skdyn.simulation import MixedSineMVN

skops = pytest.importorskip("skops.io")

pytestmark = [
    pytest.mark.usefixtures("short_search_in_module"),
    pytest.mark.filterwarnings(
        f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__qualname__}",
        "ignore:A gated recurrent unit:UserWarning",
    ),
]

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 3))
y = np.maximum(X @ [1.0, -0.5, 0.2] + np.roll(X[:, 0], 1), 0)


def dynemo(**parameters):
    small = {"sequence_length": 20, "inference_n_units": 4, "model_n_units": 4, "n_epochs": 2}
    small |= {"n_refinement_steps": 2, "random_state": 0}
    return DyNeMoEstimator(n_modes=2, **(small | parameters))


def nems(model, **parameters):
    return NEMSRegressor(model, max_iter=3, random_state=0, **parameters)


# -------------------------------------------------------------------------------- the cases

CHANNELS = layers.WeightChannels


def after_channels(layer):
    return [CHANNELS((None, 1)), layer]


def of_two_branches(layer):
    branches = [CHANNELS((None, 2), output="one"), CHANNELS((3, 2), input="input", output="other")]
    return [*branches, layer, CHANNELS((None, 1))]


def by_the_input(kind):
    """The stimulus as the state of its own encoding."""
    return [CHANNELS((None, 1), output="drive"), kind(input=["drive", "input"])]


# Each layer as part of a model; a new layer must be added here, and be trusted.
STACKS = {
    "Concatenate": lambda: of_two_branches(layers.Concatenate(input=["one", "other"])),
    "DoubleExponential": lambda: after_channels(layers.DoubleExponential()),
    "FiniteImpulseResponse": lambda: after_channels(layers.FIR((3, None))),
    "Hinge": lambda: after_channels(layers.Hinge()),
    "BatchNormalization": lambda: after_channels(layers.BatchNormalization()),
    "ConcatSkip": lambda: of_two_branches(layers.ConcatSkip((None, 1), input=["one", "other"])),
    "Conv2d": lambda: [layers.Conv2d((2, 2, 3), pooling="cat"), CHANNELS((None, 1))],
    "GatedRecurrentUnit": lambda: [layers.GatedRecurrentUnit((None, 2)), CHANNELS((None, 1))],
    "GaussianExpansion": lambda: [layers.GaussianExpansion((None, 4)), CHANNELS((None, 1))],
    "MultiplyByExp": lambda: of_two_branches(layers.MultiplyByExp(input=["one", "other"])),
    "NumPy": lambda: [CHANNELS((None, 2)), layers.NumPy("sum", op_kwargs={"axis": 1})],
    "OutputNormalization": lambda: [
        layers.RectifiedLinear(),
        layers.OutputNormalization(),
        CHANNELS((None, 1)),
    ],
    "PoleZeroFilter": lambda: after_channels(layers.PoleZeroFilter((3, None))),
    "PowerCompress": lambda: [layers.PowerCompress(), CHANNELS((None, 1))],
    "ShortTermPlasticity": lambda: [layers.ShortTermPlasticity(), CHANNELS((None, 1))],
    "StateDexp": lambda: by_the_input(layers.StateDexp),
    "StateGain": lambda: by_the_input(layers.StateGain),
    "StateHinge": lambda: by_the_input(layers.StateHinge),
    "SwapDims": lambda: [
        CHANNELS((None, 2, 1)),
        layers.SwapDims(),
        layers.NumPy("sum", op_kwargs={"axis": 1}),
        CHANNELS((None, 1)),
    ],
    "LevelShift": lambda: after_channels(layers.LevelShift(bounds={"shift": (0, 9)})),
    "LogCompress": lambda: [layers.RectifiedLinear(), *after_channels(layers.LogCompress())],
    "Multiply": lambda: of_two_branches(layers.Multiply(input=["one", "other"])),
    "RectifiedLinear": lambda: after_channels(layers.RectifiedLinear(no_shift=True)),
    "ResponseHistory": lambda: after_channels(layers.ResponseHistory((2, None))),
    "STRF": lambda: [layers.STRF((None, 2, 3), activation="relu")],
    "Select": lambda: [layers.Select(channels=[2, 0]), CHANNELS((None, 1), l2=0.1)],
    "Sigmoid": lambda: after_channels(layers.Sigmoid()),
    "SoftRelu": lambda: after_channels(layers.SoftRelu()),
    "StaticNonlinearity": lambda: after_channels(layers.StaticNonlinearity()),
    "Sum": lambda: of_two_branches(layers.Sum(input=["one", "other"])),
    "Tanh": lambda: after_channels(layers.Tanh()),
    "WeightChannels": lambda: [CHANNELS((None, 1), norm_coefficients=True)],
    "WeightChannelsGaussian": lambda: [layers.WeightChannelsGaussian((None, 1))],
    "WeightChannelsMulti": lambda: [
        layers.WeightChannelsMulti((1, 1, 3)),
        layers.FIR((2, 1, 3)),
        CHANNELS((None, 1)),
    ],
}
LAYERS = sorted({getattr(layers, name).__name__ for name in layers.__all__} - {"Layer"})
PRIORS = [
    name
    for name, kind in inspect.getmembers(distributions, inspect.isclass)
    if issubclass(kind, distributions.Distribution) and name != "Distribution"
]


def with_prior(name):
    level = layers.LevelShift((1,), priors={"shift": getattr(distributions, name)()})
    level.freeze_parameters()
    return after_channels(level)


def named_frame(pandas):
    times = pandas.date_range("2026-01-01", periods=len(X), freq="10ms")
    return pandas.DataFrame(X, columns=["Fz", "Cz", "Pz"], index=times)


def search(kind=GridSearchCV, cv=2, y=y, **options):
    pipeline = make_pipeline(StandardScaler(), nems("wc-lvl-relu"))
    return kind(pipeline, {"nemsregressor__alpha": [0.0, 1.0]}, cv=cv, **options).fit(X, y)


def comparison(**options):
    models = {"nems": nems("wc-lvl-relu"), "ridge": Ridge()}
    return compare_models(models, X, np.stack([y, y**2], axis=1), cv=BlockKFold(3), **options)


def comparison_with_failures():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = {"nems": nems("wc-lvl-relu"), "broken": Ridge(solver="none")}
        return compare_models(models, X, y, cv=BlockKFold(2))


TRANSFORMERS = {
    name: getattr(preprocessing, name)()
    for name in preprocessing.__all__
    if inspect.isclass(getattr(preprocessing, name))
}
TRANSFORMERS["BandpassFilter"].set_params(low=0.1, high=0.3)
TRANSFORMERS["NotchFilter"].set_params(frequency=0.2, width=0.05)

CASES = {
    **{name: lambda name=name: nems(STACKS[name]()).fit(X, y) for name in LAYERS},
    **{name: lambda name=name: nems(with_prior(name)).fit(X, y) for name in PRIORS},
    "words": lambda: nems("wc.x2-fir.3-lvl-dexp").fit(X, y),
    "pairs": lambda: nems([("weights", CHANNELS((None, 1))), ("bend", layers.ReLU())]).fit(X, y),
    "poisson": lambda: nems("wc-lvl-relu", loss="poisson", solver="adam").fit(X, y.round()),
    "early stopping": lambda: nems("wc-dexp", early_stopping=True).fit(X, y),
    "many outputs": lambda: nems("wc-dexp").fit(X, np.stack([y, X[:, 0]], axis=1)),
    "sessions of nems": lambda: nems("wc-lvl-relu").fit([X[:50], X[50:]], [y[:50], y[50:]]),
    "dynemo": lambda: dynemo().fit(X),
    "other networks": lambda: dynemo(
        inference_rnn="gru",
        model_n_layers=2,
        inference_normalization="batch",
        model_normalization=None,
        model_activation="elu",
        learn_means=True,
        diagonal_covariances=True,
        learn_alpha_temperature=False,
    ).fit(X),
    "fixed covariances": lambda: dynemo(
        learn_covariances=False, initial_covariances=np.stack([np.eye(3), 2 * np.eye(3)])
    ).fit(X),
    "list": lambda: dynemo().fit([X[:50], X[50:]]),
    "stack": lambda: dynemo().fit(X.reshape(3, 40, 3)),
    "names": lambda: dynemo().fit(named_frame(pytest.importorskip("pandas"))),
    "frame out": lambda: dynemo().set_output(transform="default").fit(X),
    "from a fit": lambda: dynemo(init_method=dynemo().fit(X)).fit(X),
    "pipeline": lambda: make_pipeline(StandardScaler(), PCA(2), dynemo()).fit(X),
    "best of a search": lambda: search().best_estimator_,
    "search": lambda: search(),
    "search over blocks": lambda: search(cv=BlockKFold(2), scoring=correlation_scorer),
    "search with scikit-learn's": lambda: search(
        RandomizedSearchCV, TimeSeriesSplit(2), scoring="neg_mean_squared_error", n_iter=2
    ),
    "search with several scores": lambda: search(
        scoring={"r2": "r2", "correlation": CorrelationScorer()}, refit="r2"
    ),
    "search that halves": lambda: search(
        HalvingGridSearchCV, resource="nemsregressor__max_iter", max_resources=3, min_resources=1
    ),
    "splitters and scorers": lambda: FunctionTransformer(
        kw_args={
            "all": [BlockKFold(3), SessionKFold(2), correlation_scorer, noise_corrected_scorer]
        }
    ),
    "simulation": lambda: MixedSineMVN(50, 2, 3, [0, 0], [1, 1], [1, 2], 100, random_state=0),
    "comparison": lambda: comparison(return_estimators=True),
    "comparison over outputs": lambda: comparison(scoring="correlation"),
    "comparison with a failure": lambda: comparison_with_failures(),
    "matcher": lambda: ModeMatcher(reference=X[:, ::-1]).fit(X),
    "matcher of means": lambda: ModeMatcher(metric="cosine").fit(X[:3], X[2::-1]),
    **{name: lambda name=name: TRANSFORMERS[name].fit([X[:60], X[60:]]) for name in TRANSFORMERS},
    "features": lambda: SessionFeatures(dynemo(), "mean").fit([X[:60], X[60:]]),
    "artefact": lambda: preprocessing.BadSegments().fit(
        [X[:60], np.where(np.arange(60)[:, np.newaxis] == 30, 1e4, X[60:])]
    ),
}


@pytest.fixture(scope="module")
def estimators(short_search_in_module):
    return {name: make() for name, make in CASES.items()}


def results(estimator):
    """All that an estimator gives for a recording, as numbers."""
    if isinstance(estimator, dict):  # a comparison
        given = {name: one for name, one in estimator.items() if name != "estimators"}
        models = [*np.ravel(estimator.get("estimators", []))]
        return [np.array(repr(given)), estimator.scores, *(model.predict(X) for model in models)]
    if isinstance(estimator, FunctionTransformer):
        return [np.array(repr(estimator))]
    if isinstance(estimator, MixedSineMVN):
        return [estimator.time_series, estimator.mode_time_course]
    if hasattr(estimator, "cv_results_"):
        return [*results(estimator.best_estimator_), estimator.cv_results_["mean_fit_time"]]
    recording = X[:3] if getattr(estimator, "metric", "") == "cosine" else X
    if hasattr(estimator, "feature_names_in_"):
        recording = named_frame(pytest.importorskip("pandas"))
    if hasattr(estimator, "segments_"):
        return [estimator.segments_, np.concatenate(estimator.scores_)]
    return [
        np.asarray(getattr(estimator, method)(recording))
        for method in ("transform", "predict", "score_samples")
        if hasattr(estimator, method)
    ]


def saved_and_loaded(estimator, folder, **options):
    save(estimator, folder / "model.skops")
    return load(folder / "model.skops", **options)


def analysed():
    """A result of each kind of analysis."""
    rng = np.random.default_rng(0)
    alpha = rng.dirichlet(np.ones(2), len(X))
    covariances = np.stack([np.eye(3), 2 * np.eye(3)])
    mixture = GaussianMixture(2, random_state=0).fit(X)
    spectra = analysis.mode_spectra(X, alpha, sampling_frequency=100)
    events = [20, 50, 80]
    return {
        "spectra": spectra,
        "band": spectra.band(5, 20),
        "channels": analysis.channel_modes(mixture),
        "statistics": analysis.mode_statistics(alpha, sampling_frequency=100),
        "modes": analysis.modes_from_mixing(X, alpha, covariances=covariances),
        "test": analysis.permutation_test(rng.standard_normal((8, 3)), random_state=0),
        "evoked": analysis.evoked_alpha(alpha, events, sampling_frequency=100, window=(-0.1, 0.2)),
    }


def untrusted(estimator):
    return set(skops.get_untrusted_types(data=skops.dumps(estimator)))


# --------------------------------------------------------------------------------- the same


def test_each_layer_and_each_prior_stands_in_a_case():
    assert sorted(STACKS) == LAYERS
    assert len(PRIORS) >= 6


@pytest.mark.parametrize("name", CASES)
def test_what_is_loaded_computes_the_same_to_the_last_bit(estimators, name, tmp_path):
    estimator = estimators[name]
    again = saved_and_loaded(estimator, tmp_path)
    assert type(again) is type(estimator)
    assert sorted(vars(again)) == sorted(vars(estimator))
    expected = results(estimator)
    assert expected
    for ours, theirs in zip(results(again), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_results_of_analysis_are_loaded_as_they_were_saved(tmp_path):
    for result in analysed().values():
        again = saved_and_loaded(result, tmp_path)
        assert type(again) is type(result)
        held, expected = (
            dict(one) if isinstance(one, dict) else vars(one) for one in (again, result)
        )
        assert held.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_equal(held[name], values)


@pytest.mark.parametrize("name", [*LAYERS, *PRIORS, "words", "pairs", "poisson"])
def test_a_loaded_model_is_equal_and_its_fit_goes_on_alike(estimators, name, tmp_path):
    estimator = estimators[name]
    again = saved_and_loaded(estimator, tmp_path)
    assert again.model_ == estimator.model_
    assert again.model_.name == estimator.model_.name
    assert vars(again.model_.results).keys() == vars(estimator.model_.results).keys()
    assert again.history_ == estimator.history_
    before = copy.deepcopy(estimator).set_params(warm_start=True).fit(X, y)
    again.set_params(warm_start=True).fit(X, y)
    np.testing.assert_array_equal(again.predict(X), before.predict(X))
    fresh = clone(again).set_params(warm_start=False).fit(X, y)
    np.testing.assert_array_equal(fresh.predict(X), clone(estimator).fit(X, y).predict(X))


@pytest.mark.parametrize("name", ["dynemo", "other networks", "fixed covariances"])
def test_a_loaded_network_is_trained_on_alike(estimators, name, tmp_path, same_fit):
    estimator = estimators[name]
    again = saved_and_loaded(estimator, tmp_path)
    assert same_fit(again, estimator)
    assert again.network_.settings == estimator.network_.settings
    before = copy.deepcopy(estimator).set_params(warm_start=True).fit(X)
    assert same_fit(again.set_params(warm_start=True).fit(X), before)
    assert same_fit(clone(again).set_params(warm_start=False).fit(X), clone(estimator).fit(X))
    drawn = [one.sample(9, random_state=0)[0] for one in (again, before)]
    np.testing.assert_array_equal(*drawn)


def test_parameters_are_kept_without_a_fit(tmp_path):
    for estimator in (dynemo(tol=0.5), nems("wc-dexp"), dynemo(batch_size=np.int64(3))):
        assert repr(saved_and_loaded(estimator, tmp_path)) == repr(estimator)


def test_a_random_state_goes_on_where_it_was(tmp_path):
    estimator = NEMSRegressor("wc-dexp", n_init=2, max_iter=3)
    estimator.set_params(random_state=np.random.RandomState(3))
    again = saved_and_loaded(estimator, tmp_path)
    for _ in range(2):
        ours, theirs = again.fit(X, y), estimator.fit(X, y)
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


def test_names_of_channels_are_kept(estimators, tmp_path):
    again = saved_and_loaded(estimators["names"], tmp_path)
    assert list(again.feature_names_in_) == ["Fz", "Cz", "Pz"]
    pandas = pytest.importorskip("pandas")
    frame = named_frame(pandas)
    alpha = again.set_output(transform="pandas").transform(frame)
    assert alpha.index.equals(frame.index)
    with pytest.raises(ValueError, match="feature names"):
        again.transform(frame.rename(columns={"Fz": "Oz"}))


def test_nothing_of_torch_is_stored(estimators):
    """So that reading a file needs no device."""
    for name in ("dynemo", "other networks", "words"):
        assert b"torch" not in pickle.dumps(estimators[name])
        with ZipFile(io.BytesIO(skops.dumps(estimators[name]))) as archive:
            assert b"torch" not in archive.read("schema.json")


def test_a_file_is_small(estimators, tmp_path):
    for name in ("dynemo", "words"):
        save(estimators[name], tmp_path / name)
        assert (tmp_path / name).stat().st_size < 50_000


# -------------------------------------------------------------------------------- the trust


def test_own_types_of_the_list_are_those_that_estimators_hold(estimators):
    chosen = [NEMSRegressor(loss=kind()) for kind in LOSSES.values()]
    chosen += [NEMSRegressor(solver=kind()) for kind in SOLVERS.values()]
    penalties = [L2(1), BandedL2([1, 2], [1, 2]), Smooth(1), L1([1, 2]), GroupL1(1)]
    assert {type(one) for one in penalties} == set(PENALTIES)
    chosen.append(NEMSRegressor([FiniteImpulseResponse((3, None), penalties=penalties)]))
    found = set().union(*map(untrusted, [*estimators.values(), *chosen, *analysed().values()]))
    # Older versions of skops do not trust the parts of scikit-learn's searches; `load` does.
    found -= {one for one in found if one.startswith("sklearn.utils._metadata_requests.")}
    assert found <= set(TRUSTED_TYPES)
    assert {one for one in TRUSTED_TYPES if one.startswith("skdyn.")} <= found
    assert sorted(TRUSTED_TYPES) == list(TRUSTED_TYPES)


def test_types_of_scikit_learn_in_the_list_are_splitters_searches_and_metrics():
    others = [one for one in TRUSTED_TYPES if not one.startswith("skdyn.")]
    for one in others:
        module, _, name = one.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        assert (
            hasattr(found, "get_n_splits")
            or "Scorer" in name
            or name.startswith("Halving")
            or next(iter(inspect.signature(found).parameters)) == "y_true"
        )
        # No function that reads, writes or runs anything can be reached by way of them.
        assert module.startswith(("sklearn.metrics.", "sklearn.model_selection."))
    assert len(others) > 40


# Classes that are not saved in files: base classes, pictures, and parts of a fit.
NOT_KEPT = {
    "Penalty",
    *("BadSegmentsDisplay", "ModesDisplay", "NEMSDisplay", "TrainingDisplay", "LayersDisplay"),
    *("ReceptiveFieldDisplay", "StartsDisplay", "StateDisplay", "TuningDisplay"),
    *("Layer", "Loss", "Solver", "FitSettings", "Trial", "ResponseScorer", "RunByRun"),
}


def test_every_public_class_is_trusted():
    found = {}
    for room in pkgutil.walk_packages(skdyn.__path__, "skdyn."):
        module = importlib.import_module(room.name)
        if any(part.startswith("_") for part in room.name.split(".")):
            continue
        for name in getattr(module, "__all__", []):
            kind = getattr(module, name)
            if inspect.isclass(kind) and not issubclass(kind, Exception):
                found[kind.__name__] = f"{kind.__module__}.{kind.__qualname__}"
    assert set(found) >= NOT_KEPT
    missing = {name for name, path in found.items() if path not in TRUSTED_TYPES}
    assert missing == NOT_KEPT


def test_the_list_is_short_for_one_model(estimators):
    assert untrusted(estimators["dynemo"]) == {
        "skdyn.dynemo.estimator.DyNeMoEstimator",
        "skdyn.dynemo.network.DyNeMoNetwork",
    }
    assert len(untrusted(estimators["words"])) <= 10


def test_every_estimator_of_the_package_is_trusted():
    rooms = [
        importlib.import_module(room.name)
        for room in pkgutil.walk_packages(skdyn.__path__, "skdyn.")
    ]
    found = {
        f"{kind.__module__}.{name}"
        for room in rooms
        for name, kind in inspect.getmembers(room, inspect.isclass)
        if issubclass(kind, BaseEstimator) and hasattr(kind, "fit") and not name.startswith("_")
        # Base classes are not estimators themselves.
        if kind.__module__.startswith("skdyn.") and not kind.__subclasses__()
    }
    assert {f"skdyn.matching.{ModeMatcher.__name__}"} < found
    assert found <= set(TRUSTED_TYPES)


def test_skops_itself_takes_the_list(estimators):
    again = skops.loads(skops.dumps(estimators["pipeline"]), trusted=TRUSTED_TYPES)
    np.testing.assert_array_equal(again.transform(X), estimators["pipeline"].transform(X))


class Touch:
    """Malicious content of a file: leaves a trace as soon as it is created."""

    def __init__(self, path):
        self.path = path
        Path(path).touch()

    def __reduce__(self):
        return Touch, (self.path,)


def test_what_is_not_trusted_is_refused_before_it_is_made(tmp_path):
    trace, file = tmp_path / "trace", tmp_path / "model.skops"
    estimator = dynemo().fit(X)
    estimator.network_.__dict__["touch"] = estimator.verbose = Touch(str(trace))
    save(estimator, file)
    trace.unlink()
    with pytest.raises(LoadError, match=rf"not trusted: \['{Touch.__module__}.Touch'\]"):
        load(file)
    assert not trace.exists()
    # Or this test would pass with a file that does no harm.
    assert load(file, trusted=[Touch]).verbose.path == str(trace)
    assert trace.exists()


@pytest.mark.parametrize("function", [eval, importlib.import_module, io.open_code])
def test_functions_are_not_trusted(function, tmp_path):
    save(nems("wc", loss=function), tmp_path / "model.skops")
    with pytest.raises(LoadError, match=function.__name__):
        load(tmp_path / "model.skops")


class Halve(Layer):
    def evaluate(self, values):
        return values / 2


@pytest.mark.parametrize("trusted", [[Halve], [f"{Halve.__module__}.Halve"]], ids=["type", "name"])
def test_a_layer_of_ones_own_is_named_by_its_reader(trusted, tmp_path):
    model = nems(after_channels(Halve())).fit(X, y)
    with pytest.raises(LoadError, match=r"Halve.*trusted="):
        saved_and_loaded(model, tmp_path)
    again = saved_and_loaded(model, tmp_path, trusted=trusted)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


# -------------------------------------------------------------------------------- the files


def test_what_could_not_be_found_again_is_not_written(tmp_path):
    class Local(Halve):
        pass

    file = tmp_path / "model.skops"
    with pytest.raises(ValueError, match=r"Local'\].*module level"):
        save(nems(after_channels(Local())).fit(X, y), file)
    with pytest.raises(ValueError, match="<lambda>"):
        save(nems("wc", loss=lambda response, prediction, weight: 0), file)
    assert not file.exists()


def test_what_refers_to_itself_is_not_written(tmp_path):
    estimator = nems("wc")
    estimator.verbose = estimator
    with pytest.raises(ValueError, match="refers to itself"):
        save(estimator, tmp_path / "model.skops")
    assert not list(tmp_path.iterdir())


def test_another_version_is_told(tmp_path, monkeypatch):
    file = tmp_path / "model.skops"
    save(nems("wc"), file)
    monkeypatch.setattr("skdyn.persistence._VERSION", "skdyn 99.0")
    with pytest.warns(InconsistentVersionWarning, match=r"skdyn 0\.1.*skdyn 99\.0") as caught:
        load(file)
    assert caught[0].filename == __file__
    skops.dump(nems("wc"), file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(file)


def test_what_is_no_such_file_is_refused(tmp_path):
    file = tmp_path / "model.skops"
    with pytest.raises(FileNotFoundError):
        load(file)
    file.write_bytes(pickle.dumps(nems("wc")))
    with pytest.raises(LoadError, match="not written by save"):
        load(file)
    with ZipFile(file, "w") as archive:
        archive.writestr("other.json", "{}")
    with pytest.raises(LoadError, match="not written by save"):
        load(str(file))
    save(nems("wc"), file)
    assert load(str(file)).layers == "wc"


def test_without_skops_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ImportError, match=r"skdyn\[persistence\]"):
        save(nems("wc"), tmp_path / "model.skops")
    with pytest.raises(ImportError, match=r"skdyn\[persistence\]"):
        load(tmp_path / "model.skops")
