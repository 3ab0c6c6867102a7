"""Receptive fields, tuning, contributions and state effects, against formulas and differences."""

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdyn import NEMSRegressor
from skdyn.nems import Layer, Model, from_keywords
from skdyn.nems.inspection import (
    layer_contributions,
    local_receptive_fields,
    principal_subspace,
    receptive_field,
    state_effects,
    tuning_curves,
)
from skdyn.nems.layers import CLASSES, FiniteImpulseResponse, LevelShift, RectifiedLinear
from skdyn.nems.layers.base import on_tensors
from skdyn.plotting import (
    LayersDisplay,
    ReceptiveFieldDisplay,
    StartsDisplay,
    StateDisplay,
    TuningDisplay,
    linear_filter,
)


def drawn(words, n_channels=4, seed=1):
    model = Model(from_keywords(words))
    model.evaluate(np.ones((5, n_channels)))
    return model.sample_from_priors(random_state=seed)


def stimulus(n_rows=60, n_channels=4):
    return np.random.default_rng(0).standard_normal((n_rows, n_channels))


def differences(model, X, row, n_lags, n_future=0, data=None):
    """Central differences of one row of the output."""
    data, step = data or {}, 1e-6
    lags = np.arange(-n_future, n_lags)
    ends = []
    for sign in (1, -1):
        outputs = []
        for lag in lags:
            for channel in range(X.shape[1]):
                moved, sample = X.copy(), row * model.stride - lag
                if 0 <= sample < len(X):
                    moved[sample, channel] += sign * step
                out = model.predict({"input": moved, **data})
                outputs.append(out[row].ravel())
        ends.append(np.reshape(outputs, (len(lags), X.shape[1], -1)))
    return (ends[0] - ends[1]) / (2 * step)


# ------------------------------------------------------------------------------ local fields


@pytest.mark.parametrize(
    "words", ["wc.4x2-fir.3x2-lvl", "fir.5x4x3", "strf.4x2x3x2", "fir.6x4.ac", "wc.4x1-fir.70x1"]
)
def test_fields_of_a_linear_model_are_its_filter(words):
    model, X = drawn(words), stimulus(100)
    filters, lags = linear_filter(model, 4)
    fields, found = local_receptive_fields(model, X)
    np.testing.assert_array_equal(found, lags)
    for row, field in enumerate(fields):
        inside = (row - lags >= 0) & (row - lags < len(X))
        np.testing.assert_allclose(field[inside], filters[inside], atol=1e-8)
        assert not field[~inside].any()


@pytest.mark.parametrize("curve", ["dexp", "srelu", "sig", "tanh"])
def test_fields_of_a_linear_nonlinear_model_are_filter_times_slope(curve):
    model, X = drawn(f"wc.4x2-fir.3x2-{curve}.1"), stimulus()
    filters, _ = linear_filter(model, 4)
    drive = Model([layer.copy() for layer in model.layers[:2]]).predict(X)
    step = 1e-5
    up, down = (model.layers[2].evaluate(drive + sign * step) for sign in (1, -1))
    slope = (up - down)[:, 0] / (2 * step)
    fields, _ = local_receptive_fields(model, X, rows=range(2, 60))
    np.testing.assert_allclose(fields, slope[2:, None, None, None] * filters, atol=1e-9)


def test_the_slope_of_a_double_exponential_is_that_of_the_formula():
    model, X = drawn("wc.4x1-fir.3x1-dexp.1"), stimulus()
    filters, _ = linear_filter(model, 4)
    drive = Model([layer.copy() for layer in model.layers[:2]]).predict(X)[:, 0]
    amplitude, kappa, shift = (
        model.layers["dexp"][name].values[0] for name in ("amplitude", "kappa", "shift")
    )
    inner = np.exp(-np.exp(kappa) * (drive + shift))
    slope = amplitude * np.exp(-inner) * inner * np.exp(kappa)
    fields, _ = local_receptive_fields(model, X)
    np.testing.assert_allclose(fields[2:], slope[2:, None, None, None] * filters, atol=1e-12)


DEEP = "wc.4x5-fir.3x1x5-tanh.5-wc.5x3-fir.2x1x3-srelu.3-wc.3x2-lvl.2-dexp.2"


@pytest.mark.parametrize("layer", [None, 0, "fir", "tanh", "fir1", -1])
def test_fields_of_each_layer_are_finite_differences(layer):
    model, X = drawn(DEEP), stimulus(20)
    names = [one.name for one in model.layers]
    place = len(names) - 1 if layer is None else names.index(layer) if layer in names else layer
    part = Model([one.copy() for one in model.layers[: place % len(names) + 1]])
    fields, lags = local_receptive_fields(model, X, layer=layer)
    for row in (0, 2, 3, 19):
        expected = differences(part, X, row, len(lags))
        np.testing.assert_allclose(fields[row], expected, atol=1e-8)


class Leaky(Layer):
    """A recurrent layer that does not say how far it looks back."""

    @on_tensors
    def evaluate(self, values):
        outputs = [torch.tanh(values[0])]
        for row in values[1:]:
            outputs.append(0.5 * outputs[-1] + torch.tanh(row))
        return torch.stack(outputs)


class Gain(Layer):
    state_arg = "state"
    n_past = 0

    def evaluate(self, values, state):
        return values * (1 + state[:, :1]) + 3 * state[:, :1]


class Numpy(Layer):
    n_past = 0

    def evaluate(self, values):
        return lfilter([1], [1], np.asarray(values), axis=0)


@pytest.mark.parametrize("rows", [[0, 5, 19], [19, 3, 3]])
def test_fields_of_a_layer_without_a_memory_it_states(rows):
    model, X = Model([Leaky()]), stimulus(20, 2)
    with pytest.raises(ValueError, match=r"The layers \['Leaky'\] do not say.*Pass n_lags"):
        local_receptive_fields(model, X)
    fields, lags = local_receptive_fields(model, X, rows=rows, n_lags=6)
    assert lags.tolist() == [*range(6)]
    for row, field in zip(rows, fields, strict=True):
        np.testing.assert_allclose(field, differences(model, X, row, 6), atol=1e-8)


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("include_anticausal", [False, True])
def test_fields_of_a_model_with_a_stride(stride, include_anticausal):
    first = FiniteImpulseResponse((4, 2, 2), include_anticausal=include_anticausal, name="one")
    layers = [first, LevelShift((2,)), FiniteImpulseResponse((3, 2), stride=stride)]
    model, X = Model(layers).sample_from_priors(random_state=0), stimulus(19, 2)
    fields, lags = local_receptive_fields(model, X)
    assert len(fields) == len(model.predict(X))
    for row, field in enumerate(fields):
        expected = differences(model, X, row, model.n_past + 1, model.n_future)
        np.testing.assert_allclose(field, expected, atol=1e-8)
    assert lags.tolist() == [*range(-model.n_future, model.n_past + 1)]


def test_fields_with_a_state_that_is_held():
    state = np.random.default_rng(1).random((30, 1))
    layers = [*from_keywords("wc.4x1-fir.3x1-srelu.1"), Gain(), *from_keywords("fir.2x1")]
    model, X = Model(layers).sample_from_priors(random_state=0), stimulus(30)
    fields, lags = local_receptive_fields(model, X, state=state)
    for row in (0, 3, 29):
        expected = differences(model, X, row, len(lags), data={"state": state})
        np.testing.assert_allclose(fields[row], expected, atol=1e-8)


def test_fields_with_respect_to_another_stream():
    model = Model(from_keywords("sum.one.two-tanh.2"))
    one, two = stimulus(10, 2), stimulus(10, 2) + 1
    fields, _ = local_receptive_fields(model, two, stream="two", streams={"one": one})
    layer = model.layers[1]
    slope = (layer.evaluate(one + two + 1e-6) - layer.evaluate(one + two - 1e-6)) / 2e-6
    expected = slope[:, None, :] * np.eye(2)
    np.testing.assert_allclose(fields[:, 0], expected, atol=1e-9)


def test_fields_of_sessions_rows_and_outputs():
    model, X = drawn(DEEP), stimulus(50)
    whole = np.concatenate(
        [local_receptive_fields(model, part).fields for part in (X[:20], X[20:])]
    )
    labels = np.repeat([0, 1], [20, 30])
    for given, sessions in ((X, labels), ([X[:20], X[20:]], None)):
        fields, _ = local_receptive_fields(model, given, sessions=sessions)
        np.testing.assert_allclose(fields, whole, atol=1e-12)
    rows, outputs = [21, 3, 49, 20], [1]
    fields, _ = local_receptive_fields(model, X, sessions=labels, rows=rows, outputs=outputs)
    np.testing.assert_allclose(fields, whole[rows][..., outputs], atol=1e-12)
    cut, lags = local_receptive_fields(model, X, sessions=labels, n_lags=2)
    np.testing.assert_allclose(cut, whole[:, :2], atol=1e-12)
    longer, lags = local_receptive_fields(model, X, sessions=labels, n_lags=9)
    np.testing.assert_allclose(longer[:, :4], whole, atol=1e-12)
    assert not longer[:, 4:].any()
    assert len(lags) == 9


def test_fields_change_nothing_of_the_model():
    model, X = drawn(DEEP), stimulus()
    before, given = model.copy(), X.copy()
    local_receptive_fields(model, X)
    assert model == before
    np.testing.assert_array_equal(X, given)
    assert all(layer.n_trials == 1 for layer in model.layers)


def test_fields_of_an_estimator_in_a_pipeline():
    X = stimulus(200) * [1, 2, 3, 4]
    y = np.maximum(X[:, 0] + np.roll(X[:, 1], 1), 0)
    pipeline = make_pipeline(StandardScaler(), NEMSRegressor("wc.x1-fir.2-srelu", random_state=0))
    pipeline.fit(X, y)
    fields, _ = local_receptive_fields(pipeline, X, rows=[5, 60])
    scaled = pipeline[0].transform(X)
    expected, _ = local_receptive_fields(pipeline[-1].model_, scaled, rows=[5, 60])
    np.testing.assert_array_equal(fields, expected)


BAD = {
    "rows must be whole numbers from 0 to 59": {"rows": [60]},
    "rows must be": {"rows": [0.5]},
    "outputs must be whole numbers from 0 to 1": {"outputs": [2]},
    "layer is 'fri', but one of": {"layer": "fri"},
    "layer is 9, but one of": {"layer": 9},
    "n_lags must be": {"n_lags": 0},
}


@pytest.mark.parametrize("message", BAD)
def test_fields_of_what_is_not_there(message):
    with pytest.raises(ValueError, match=message):
        local_receptive_fields(drawn(DEEP), stimulus(), **BAD[message])


@pytest.mark.parametrize("place", [0, 1])
def test_a_layer_that_torch_cannot_follow_is_named(place):
    layers = [RectifiedLinear((4,))]
    layers.insert(place, Numpy())
    with pytest.raises(ValueError, match=r"torch cannot follow .*'Numpy'"):
        local_receptive_fields(Model(layers), stimulus())


class Detached(Layer):
    n_past = 0

    def evaluate(self, values):
        return values.detach() if torch.is_tensor(values) else values


@pytest.mark.parametrize("words", ["", "fir.2x4"])
def test_an_output_without_derivatives_is_refused(words):
    model = Model([Detached(), *(from_keywords(words) if words else [])])
    with pytest.raises(ValueError, match="does not depend on 'input' by operations that torch"):
        local_receptive_fields(model, stimulus())


SINGLE = {
    "WeightChannels": ((4, 2), {}),
    "WeightChannelsGaussian": ((4, 2), {}),
    "WeightChannelsMulti": ((2, 2, 2), {}),
    "FiniteImpulseResponse": ((3, 4, 2), {}),
    "STRF": ((4, 2, 3, 2), {"activation": "relu"}),
}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_fields_of_every_layer(kind):
    """Layers of one input give finite differences; the others take names."""
    if kind is Layer:
        return
    shape, options = SINGLE.get(kind.__name__, (None, {}))
    try:
        layer = kind(shape=shape, **options) if shape else kind()
        model, X = Model([layer]), np.abs(stimulus(12)) + 0.1
        model.evaluate(X)
    except (TypeError, ValueError):
        pytest.skip("needs arguments, or inputs with names")
    model = model.sample_from_priors(random_state=0)
    n_lags = 12 if model.n_past is None else model.n_past + 1
    fields, _ = local_receptive_fields(model, X, n_lags=n_lags)
    for row in (0, 5, 11):
        expected = differences(model, X, row, n_lags, model.n_future)
        np.testing.assert_allclose(fields[row], expected, atol=1e-6)


# --------------------------------------------------------------------------- means, subspaces


def test_receptive_field_is_the_mean_of_local_fields():
    model, X = drawn(DEEP), stimulus()
    fields, _ = local_receptive_fields(model, X)
    field, _ = receptive_field(model, X)
    np.testing.assert_allclose(field, fields.mean(axis=0), atol=1e-12)
    weight = np.arange(60.0)
    field, _ = receptive_field(model, X, sample_weight=weight, outputs=[1])
    np.testing.assert_allclose(field[..., 0], np.average(fields[..., 1], axis=0, weights=weight))
    with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\)"):
        receptive_field(model, X, sample_weight=np.ones(3))


def test_receptive_field_for_noise_is_what_regression_finds():
    """Price's theorem: for a Gaussian stimulus, mean slope and best linear filter agree."""
    model, X = drawn("wc.4x1-fir.3x1-dexp.1"), stimulus(40_000)
    field, _ = receptive_field(model, X, rows=range(2, 40_000, 4))
    lagged = np.stack([X[2:], X[1:-1], X[:-2]], axis=1).reshape(len(X) - 2, -1)
    regression = LinearRegression().fit(lagged, model.predict(X)[2:, 0])
    error = np.abs(field.ravel() - regression.coef_).max()
    assert error < 0.03 * np.abs(regression.coef_).max()


def test_subspace_is_spanned_by_hidden_filters():
    model, X = drawn("fir.3x4x2-srelu.2-wc.2x1"), stimulus()
    fields, _ = local_receptive_fields(model, X, rows=range(2, 60))
    components, shares = principal_subspace(fields)
    assert shares[2:].max() < 1e-25
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    found = components[:2, ..., 0].reshape(2, -1)
    np.testing.assert_allclose(found @ found.T, np.eye(2), atol=1e-12)
    hidden = model.layers[0]["coefficients"].values.reshape(12, 2)
    np.testing.assert_allclose(found.T @ (found @ hidden), hidden, atol=1e-10)
    assert (found @ fields.mean(axis=0).ravel() >= 0).all()


def test_subspace_of_no_fields_and_of_wrong_shapes():
    components, shares = principal_subspace(np.zeros((5, 2, 3)), 2)
    assert components.shape == (2, 2, 3, 1)
    assert not shares.any()
    with pytest.raises(ValueError, match=r"fields has shape \(5, 2\)"):
        principal_subspace(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="n_components must be a whole number from 1 to 5"):
        principal_subspace(np.zeros((5, 2, 3)), 6)


# ------------------------------------------------------------------------------------ tuning


def test_tuning_curves_of_a_filter_are_means_of_its_sums():
    model = drawn("fir.3x4x2-lvl.2")
    filters = model.layers[0]["coefficients"].values
    curves = tuning_curves(model, [1.0, -2.0], n_channels=4, baseline=0.5, n_samples=5)
    sums = np.concatenate([filters.cumsum(axis=0), [filters.sum(axis=0)] * 2]).mean(axis=0)
    np.testing.assert_allclose(curves, np.array([0.5, -2.5])[:, None, None] * sums, atol=1e-12)
    ready = tuning_curves(model, n_channels=4)
    np.testing.assert_allclose(ready[0], filters.cumsum(axis=0).mean(axis=0), atol=1e-12)


def test_tuning_curves_of_an_estimator():
    X = stimulus(300)
    model = NEMSRegressor("wc-lvl").fit(X, X @ [1, 2, 3, 4])
    np.testing.assert_allclose(tuning_curves(model)[0, :, 0], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="n_channels must be given"):
        tuning_curves(model.model_)
    with pytest.raises(ValueError, match="pass n_samples"):
        tuning_curves(Model([Leaky()]), n_channels=1)
    steady = tuning_curves(Model([Leaky()]), [0.3], n_channels=1, n_samples=200)
    np.testing.assert_allclose(steady, 2 * np.tanh(0.3), rtol=1e-2)


# ----------------------------------------------------------------------------- contributions


def test_contributions_are_those_of_regressions():
    X = stimulus(600)
    model = Model(from_keywords("fir.2x4-relu.1"))
    model.set_parameter_values({"fir": {"coefficients": [[1, -1, 0, 2], [2, 0, 1, 0]]}})
    drive, y = model.layers[0].evaluate(X), model.predict(X)
    found = layer_contributions(model, X, y)
    assert found.names == ["fir", "relu"]
    # Replaced by a line, the rectifier leaves what regression on the drive explains.
    line = LinearRegression().fit(drive, y)
    np.testing.assert_allclose(found.unique[1, 0], 1 - line.score(drive[1:], y[1:]), atol=1e-10)
    now = LinearRegression().fit(X, drive).predict(X)
    residual = np.sum((y - np.maximum(now, 0))[1:] ** 2) / np.sum((y[1:] - y[1:].mean()) ** 2)
    np.testing.assert_allclose(found.unique[0, 0], residual, atol=1e-10)
    np.testing.assert_allclose(found.readout[0, 0], line.score(drive, y), atol=0.02)
    assert found.readout[1, 0] > 1 - 1e-6


def test_contributions_of_a_population_with_gaps_sessions_and_a_state():
    rng = np.random.default_rng(0)
    X, state = stimulus(300), rng.random((300, 1))
    layers = [*from_keywords("wc.4x3-fir.2x1x3"), Gain()]
    model = Model(layers).sample_from_priors(random_state=0)
    y = model.predict(X, state)
    y[:50, 0] = np.nan
    labels = np.repeat([0, 1, 2], 100)
    found = layer_contributions(model, X, y, state=state, sessions=labels)
    assert found.readout.shape == found.unique.shape == (3, 3)
    assert np.isfinite(found.readout).all()
    np.testing.assert_allclose(found.unique[0], 0, atol=1e-10)  # weights are affine
    assert (found.unique[2] > 0).all()
    assert (found.readout[2] > 0.99).all()


# ----------------------------------------------------------------------------------- states


def test_state_effects_are_the_gains_and_offsets_of_the_layer():
    rng = np.random.default_rng(0)
    X, pupil = rng.random((200, 1)), rng.random((200, 2))
    model = Model([Gain()])
    found = state_effects(model, X, pupil, n_values=3, percentiles=(0, 100))
    low, high = pupil.min(axis=0), pupil.max(axis=0)
    np.testing.assert_allclose(found.values, np.stack([low, (low + high) / 2, high], axis=-1))
    mean = 1 + pupil[:, 0].mean()
    gain = (1 + found.values[0]) / mean
    np.testing.assert_allclose(found.gain[0, :, 0], gain)
    offset = 3 * found.values[0] - gain * 3 * (mean - 1)
    np.testing.assert_allclose(found.offset[0, :, 0], offset, atol=1e-12)
    np.testing.assert_allclose(found.gain[1], 1)  # which the layer does not read
    np.testing.assert_allclose(found.offset[1], 0, atol=1e-12)
    parts = state_effects(model, [X[:90], X[90:]], [pupil[:90], pupil[90:]])
    np.testing.assert_allclose(parts.gain, state_effects(model, X, pupil).gain)


# ---------------------------------------------------------------------------------- pictures


def test_displays_hold_what_inspection_computes():
    rng = np.random.default_rng(0)
    X, y = stimulus(120), rng.standard_normal(120)
    estimator = NEMSRegressor("wc.x2-fir.2x1x2-relu-wc.2x1", n_init=3, max_iter=3, random_state=0)
    with pytest.warns(match="has not converged"):
        estimator.fit(X, y)
    fields, lags = local_receptive_fields(estimator, X)
    components, shares = principal_subspace(fields, 2)
    shown = ReceptiveFieldDisplay.from_estimator(estimator, X, n_components=2, n_fields=1)
    np.testing.assert_allclose(shown.components, components[..., 0])
    np.testing.assert_allclose(shown.shares, shares[:, 0])
    np.testing.assert_allclose(shown.fields[0], fields[shown.rows[0], ..., 0])
    np.testing.assert_array_equal(shown.lags, lags)
    assert len(shown.ax_) == 3
    curves = TuningDisplay.from_estimator(estimator, [1, 2])
    np.testing.assert_array_equal(curves.curves, tuning_curves(estimator, [1, 2]))
    layers = LayersDisplay.from_estimator(estimator, X, y)
    np.testing.assert_array_equal(layers.unique, layer_contributions(estimator, X, y).unique)
    state = StateDisplay.from_estimator(Model([Gain()]), X, rng.random((120, 1)))
    assert state.gain.shape == (1, 5, 4)
    starts = StartsDisplay.from_estimator(estimator)
    results = estimator.model_.results
    assert len(starts.losses) == len(results.starts) == 3
    np.testing.assert_array_equal(starts.parameters[starts.best], results.final_parameters)
    ends = [min(one) for one in starts.losses]
    assert ends[starts.best] == min(ends)
    with pytest.raises(ValueError, match="no fitted values"):
        StartsDisplay.from_estimator(Model(from_keywords("wc.4x1")))


@pytest.mark.parametrize(
    ("display", "given"),
    [
        (ReceptiveFieldDisplay, {"components": np.ones((2, 3, 4)), "shares": [1]}),
        (TuningDisplay, {"curves": np.ones((2, 3, 1)), "levels": [1]}),
        (LayersDisplay, {"names": ["a"], "readout": [[1], [2]], "unique": [[1]]}),
        (StateDisplay, {"values": [[1]], "gain": [[1]], "offset": [[1]]}),
        (StartsDisplay, {"losses": [[1]], "parameters": [[1], [2]], "best": 0}),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_displays_refuse_shapes_that_do_not_match(display, given):
    with pytest.raises(ValueError, match=r"expected|must have"):
        display(**given)
