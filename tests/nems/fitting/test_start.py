"""Starts at the data: properties that hold for all architectures of the benchmark."""

import importlib
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from skdyn import NEMSRegressor
from skdyn.nems import Layer, Model, Parameter, Phi, from_keywords
from skdyn.nems.fitting.lbfgs import LBFGS
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.settings import FitSettings
from skdyn.nems.fitting.stages import find_stages, run_first
from skdyn.nems.fitting.start import break_ties, start_at_data
from skdyn.nems.fitting.trials import Trial, make_trials
from skdyn.nems.layers import LevelShift, StaticNonlinearity, WeightChannels
from skdyn.nems.losses import Poisson, SquaredError

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
N_ROWS = 600


def _benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("nems_starts")
    finally:
        sys.path.remove(str(BENCHMARKS))


STARTS = _benchmark()
ROWS = list(STARTS.ROWS)
# Rows in which a sigmoid between 0 and 1, or X added to the output, fixes the size of X or y.
NOT_SCALED = {"fir.5x8-lvl-sig", "strf.8x3x6.sk50", "strf.8x2x6x3.relu.sk50"}
WIDE = {name for name in ROWS if "18x12-relu" in name or name.count("relu") > 1}


def data_of(name, seed=0):
    X, y = STARTS.draw(name, seed)
    return X[:N_ROWS], y.reshape(len(y), -1)[:N_ROWS]


def model_of(name):
    layers = STARTS.layers_of(name)
    return Model(from_keywords(layers) if isinstance(layers, str) else layers)


def started(model, X, y, weight=None, *, loss=None, random_state=None, history="zeros"):
    model = model.copy()
    trials = make_trials(model, (X, None), y, weight, False, history=history)
    return started_on(model, trials, loss=loss, random_state=random_state)


def started_on(model, trials, *, loss=None, random_state=None):
    model.take_outputs(trials[0].target.shape[1])
    model.take_sizes(trials[0].data)
    loss = loss or SquaredError()
    settings = FitSettings(loss=loss)
    objective = Objective(model, trials, loss, 0.0, settings.device)
    start_at_data(objective, settings, LBFGS(), random_state)
    return model


def gaussian_data(n_outputs=3, n_rows=400, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.gamma(1.0, size=(n_rows, 6))
    drive = X @ rng.standard_normal((6, n_outputs))
    y = np.maximum(drive - drive.mean(axis=0), 0)
    return X, y + 0.1 * rng.standard_normal(y.shape)


def parameters_of(model):
    return {
        (layer.name, name): parameter
        for layer in model.layers
        for name, parameter in layer.parameters.items()
    }


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("again", [False, True])
def test_start_has_no_dead_or_equal_units(name, again):
    X, y = data_of(name)
    before = model_of(name)
    before.take_outputs(y.shape[1])
    before.take_sizes({"input": X})
    random_state = np.random.RandomState(3) if again else None
    model = started(before, X, y, random_state=random_state)
    for key, parameter in parameters_of(model).items():
        low, high = parameter.bounds
        assert np.isfinite(parameter.values).all()
        assert ((low <= parameter.values) & (parameter.values <= high)).all()
        if parameter.is_frozen and key[1] not in model.layers[key[0]].statistics:
            np.testing.assert_array_equal(parameter.values, parameters_of(before)[key].values)
    for stage in find_stages(model, {"input": X}):
        units = run_first(model, {"input": X}, stage.end)["output"]
        size = units.std(axis=0)
        assert (size > 1e-6 * size.max()).all()
        # A unit that is cut off at nearly all rows has next to no gradient.
        assert (np.abs(np.diff(units, axis=0)) > 0).mean(axis=0).min() > 0.02
        if units.shape[1] > 1:
            alike = np.abs(np.corrcoef(units.T) - np.eye(units.shape[1]))
            assert alike.max() < 1 - 1e-6
        for parameter in stage.parameters if stage.n_ranks > 1 else []:
            values = np.reshape(parameter.values, (parameter.shape[0], -1))
            assert len(np.unique(values, axis=1).T) == values.shape[1]


@pytest.mark.parametrize("name", [name for name in ROWS if name not in WIDE])
def test_fit_reaches_the_linear_model(name):
    X, y = data_of(name)
    model = NEMSRegressor(STARTS.layers_of(name), max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
    # Of the rows that were fitted: those without history are left out.
    n_past = model.model_.n_past
    predicted = model.predict(X).reshape(y.shape)[n_past:]
    left = ((predicted - y[n_past:]) ** 2).mean(axis=0)
    r2 = np.mean(1 - left / y[n_past:].var(axis=0))
    assert r2 > STARTS.linear_r2(X, y, STARTS.ROWS[name][1]) - 0.015


@pytest.mark.parametrize("name", [name for name in ROWS if name not in NOT_SCALED])
@pytest.mark.parametrize(("of_x", "of_y"), [(1e9, 1e-13), (1e-13, 1e9)])
def test_start_follows_units(name, of_x, of_y):
    if name == "wc.8x3-fir.6x3-tanh.osg" or "sig" not in name:
        X, y = data_of(name)
        model = model_of(name)
        plain = started(model, X, y).predict(X)
        scaled = started(model, of_x * X, of_y * y).predict(of_x * X) / of_y
        assert np.abs(scaled - plain).max() < 1e-6 * np.abs(plain).max()


@pytest.mark.parametrize("words", ["wc.6x1x{n}-fir.4x1x{n}-lvl-dexp", "strf.6x2x4x{n}-dexp"])
def test_start_of_an_output_ignores_its_neighbours(words):
    X, y = gaussian_data(5)
    weight = np.ones_like(y)
    weight[50:120, 3] = 0  # a neighbour that was not recorded all the time
    alone = started(Model(from_keywords(words.format(n=3))), X, y[:, :3])
    wider = started(Model(from_keywords(words.format(n=5))), X, 10.0 ** np.arange(5) * y, weight)
    expected, found = alone.predict(X), wider.predict(X)[:, :3] / 10.0 ** np.arange(3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "words",
    [
        "wc.6x1x3-fir.4x1x3-lvl-dexp",
        "wc.6x2-fir.4x2x3-lvl",
        "wc.6x4-fir.4x1x4-relu-wc.4x3-lvl",
        "fir.4x6x3-sig.os.g",
    ],
)
def test_rows_without_weight_do_not_count(words):
    X, y = gaussian_data()
    rng = np.random.default_rng(1)
    plain = Model(from_keywords(words))
    without = Trial({"input": 100 * rng.random((300, 6))}, np.zeros((300, 3)), np.zeros((300, 1)))
    rows = Trial({"input": X}, y, np.ones((len(y), 1)))
    expected = started_on(plain.copy(), [rows]).predict(X)
    found = started_on(plain.copy(), [rows, without]).predict(X)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_unrecorded_part_of_an_output_does_not_count():
    X, y = gaussian_data(2, n_rows=1000)
    y = y + 100
    weight = np.ones_like(y)
    weight[300:, 0] = 0
    y[300:, 0] = 0
    model = Model(from_keywords("wc.6x1x2-fir.3x1x2-lvl.2-dexp.2"))
    found = started(model, X, y, weight).predict(X)[:, 0]
    assert np.abs(found[:300] - y[:300, 0]).mean() < 0.5 * y[:300, 0].std()


@pytest.mark.parametrize("words", ["fir.6x6.s2-lvl", "wc.6x2-fir.6x2.s3-lvl-dexp"])
def test_strided_models_start_at_the_data(words):
    X, y = gaussian_data(1)
    model = Model(from_keywords(words))
    found = started(model, X, y)
    rows = y[:: model.stride]
    left = (found.predict(X) - rows).var()
    assert left < 0.4 * rows.var()


def test_strided_hidden_units_start_alive():
    X, y = gaussian_data(2)
    model = started(Model(from_keywords("fir.4x6x5.s2-relu.s-wc.5x2-lvl")), X, y)
    left = (model.predict(X) - y[::2]).var(axis=0)
    assert (left < 0.6 * y[::2].var(axis=0)).all()


LAST = ["lvl", "dexp", "lvl-dexp", "relu.s", "sig.os.g", "tanh.o.g", "prelu"]


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize(
    "case", ["constant X", "constant y", "silent", "short", "constant channel"]
)
@pytest.mark.parametrize("first", ["wc.6x1x3-fir.5x1x3", "fir.5x6x4-relu-wc.4x3"])
def test_start_is_finite_for_poor_data(first, last, case):
    X, y = gaussian_data()
    if case == "constant X":
        X = np.full_like(X, 3.7)
    elif case == "constant y":
        y = np.full_like(y, 2.5)
    elif case == "silent":
        y = np.zeros_like(y)
    elif case == "short":
        X, y = X[:10], y[:10]
    else:
        X[:, 2] = 1e6
    for loss in (SquaredError(), Poisson()):
        with np.errstate(all="raise", under="ignore"):
            model = started(Model(from_keywords(f"{first}-{last}")), X, np.abs(y), loss=loss)
        assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_start_of_a_rare_spike_is_no_saddle(loss):
    rng = np.random.default_rng(0)
    X, y = rng.gamma(1.0, size=(1000, 4)), np.zeros(1000)
    y[500] = 1
    X[499] += 3
    model = Model(from_keywords("wc.4x1-fir.3x1-dexp.1"))
    losses = {"squared_error": SquaredError(), "poisson": Poisson()}
    found = started(model, X, y, loss=losses[loss])
    assert abs(found.layers["dexp"]["amplitude"].values[0]) > 0.1 * y.std()
    assert found.predict(X).std() > 0


def test_free_kernel_is_ridge_regression():
    X, y = gaussian_data(2)
    found = started(Model(from_keywords("fir.3x6x2-lvl.2")), X, y)
    design = STARTS.lagged(X, 3)
    coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
    expected = coefficients[:-1].reshape(3, 6, 2)
    values = found.layers["fir"]["coefficients"].values
    np.testing.assert_allclose(values, expected, atol=0.02 * np.abs(expected).max())


def test_layers_of_users_keep_their_values():
    class Power(StaticNonlinearity):
        def initial_parameters(self):
            return Phi(Parameter("shift", (1,)), Parameter("exponent", (1,), initial_value=1.5))

        def nonlinearity(self, values):
            shift, exponent = self.get_parameter_values("shift", "exponent")
            return (values + shift).abs() ** exponent

    class Gain(Layer):
        keeps_channels = True

        def initial_parameters(self):
            return Phi(Parameter("gain", (), initial_value=3.0))

        def evaluate(self, values):
            (gain,) = self.get_parameter_values("gain")
            return gain * values

    X, y = gaussian_data(1)
    for layers in ([*from_keywords("wc.6x1-fir.3x1"), Power((1,)), Gain(), LevelShift((1,))],):
        model = started(Model(layers), X, y)
        assert model.layers["Power"]["exponent"].values[0] == 1.5
        assert model.layers["Power"]["shift"].values[0] == 0
        assert model.layers["Gain"]["gain"].values == 3


# --------------------------------------------------------------------------- starts that are given


def test_ties_are_broken_within_bounds():
    layer = WeightChannels((4, 3, 2), positive_only=True)
    layer["coefficients"] = np.zeros((4, 3, 2))
    model = Model(layer)
    again = model.copy()
    break_ties(model)
    break_ties(again)
    values = model.layers[0]["coefficients"].values
    assert (values >= 0).all()
    assert len(np.unique(values.reshape(4, 6), axis=1).T) == 6
    assert values.max() < 0.5
    assert model == again


def test_values_without_ties_are_kept():
    model = Model(from_keywords("wc.4x2-fir.3x2-lvl.1"))
    for layer in model.layers:
        layer.sample_from_priors(0)
    before = model.copy()
    break_ties(model)
    assert model == before
    frozen = Model(from_keywords("fir.3x2-lvl.1"))
    frozen.freeze_layers()
    before = frozen.copy()
    break_ties(frozen)
    assert frozen == before


@pytest.mark.parametrize("init", ["given", "prior_mean"])
def test_prior_means_reach_three_ranks(init):
    X, y = STARTS.draw("strf.8x3x6", 0)
    model = NEMSRegressor("strf.8x3x6", init=init).fit(X, y)
    assert model.score(X, y) > STARTS.linear_r2(X, y, 6) - 0.01


def test_later_starts_differ_and_depend_on_the_seed():
    X, y = gaussian_data()
    for words in ("wc.6x4-fir.4x1x4-relu-wc.4x3-lvl", "wc.6x1x3-fir.4x1x3-dexp"):
        model = Model(from_keywords(words))
        first = started(model, X, y)
        others = [
            started(model, X, y, random_state=np.random.RandomState(seed)) for seed in (0, 0, 1)
        ]
        assert others[0] == others[1]
        assert others[0] != others[2]
        assert others[0] != first
