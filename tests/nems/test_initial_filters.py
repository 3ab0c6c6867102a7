"""Starts from the data: against brute force, and filters that are known."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from skdyn.nems import Layer, Model, from_keywords
from skdyn.nems.fitting import start_at_data
from skdyn.nems.initialisation import RIDGE, factor, start_from_data
from skdyn.nems.layers import Sum
from skdyn.nems.moments import lagged_moments
from skdyn.nems.objective import Trial

N_LAGS, N_CHANNELS = 5, 6


def stimulus(n_samples, seed=0):
    """Smooth in time and over channels, as spectrograms are."""
    noise = np.random.default_rng(seed).gamma(1.0, size=(n_samples, N_CHANNELS + 2))
    smooth = noise[:, :-2] + noise[:, 1:-1] + noise[:, 2:]
    return smooth + 0.5 * np.vstack([np.zeros(N_CHANNELS), smooth[:-1]])


def lagged(x):
    rows = [np.vstack([np.zeros((lag, N_CHANNELS)), x[: len(x) - lag]]) for lag in range(N_LAGS)]
    return np.stack(rows, axis=1)


def responses(x, kernels, seed=1, noise=0.1):
    y = np.einsum("tlc,nlc->tn", lagged(x), kernels)
    return y + noise * y.std() * np.random.default_rng(seed).standard_normal(y.shape)


def kernels_of(n_outputs, n_shared, seed=2):
    """Mixtures of shared separable filters."""
    rng = np.random.default_rng(seed)
    filters, channels = rng.standard_normal((N_LAGS, n_shared)), rng.standard_normal((6, n_shared))
    weights = (
        np.eye(n_shared) if n_outputs == n_shared else rng.standard_normal((n_shared, n_outputs))
    )
    return np.einsum("lk,ck,kn->nlc", filters, channels, weights)


def trials_of(kernels, lengths=(3000, 1000), **options):
    made = []
    for number, n in enumerate(lengths):
        x = stimulus(n, seed=number)
        y = responses(x, kernels, seed=10 + number, **options)
        made.append(Trial({"input": x}, y, np.ones((n, 1))))
    return made


def kernels_found(model, n_outputs):
    """Filters of a linear model, from its response to pulses."""
    found = np.empty((n_outputs, N_LAGS, N_CHANNELS))
    for channel in range(N_CHANNELS):
        pulse = np.zeros((N_LAGS, N_CHANNELS))
        pulse[0, channel] = 1
        found[:, :, channel] = model.predict(pulse).T
    return found


@pytest.mark.parametrize(("n_outputs", "n_shared"), [(1, 1), (1, 2), (4, 4), (8, 3), (2, 4)])
def test_shared_filters_are_found(n_outputs, n_shared):
    kernels = kernels_of(n_outputs, n_shared)
    moments = lagged_moments(trials_of(kernels), N_LAGS)
    filters, channels, weights = factor(moments, n_shared)
    assert filters.shape == (N_LAGS, n_shared)
    assert channels.shape == (N_CHANNELS, n_shared)
    assert weights.shape == (n_shared, n_outputs)
    found = np.einsum("lk,ck,kn->nlc", filters, channels, weights)
    for one, other in zip(found, kernels, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.97


@pytest.mark.parametrize(
    ("text", "n_outputs", "n_shared", "n_layers"),
    [
        ("fir.5x6-lvl.1", 1, 2, 1),
        ("fir.5x6x3", 3, 3, 1),
        ("wc.6x2-fir.5x2-lvl.1-dexp.1", 1, 2, 2),
        ("wc.6x1x4-fir.5x1x4-dexp.4", 4, 4, 2),
        ("wc.6x1x3-fir.5x1x3-wc.3x8-relu.8", 8, 3, 3),
    ],
)
def test_models_start_near_the_filters(text, n_outputs, n_shared, n_layers):
    kernels = kernels_of(n_outputs, n_shared)
    model = Model(from_keywords(text))
    assert start_from_data(model, trials_of(kernels)) == n_layers
    found = kernels_found(Model([layer.copy() for layer in model.layers[:n_layers]]), n_outputs)
    for one, other in zip(found, kernels, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.97
        # Of their size, too.
        assert one.ravel() @ other.ravel() == pytest.approx(np.sum(other**2), rel=0.1)


@pytest.mark.parametrize(("text", "n_lags"), [("wc.6x2-lvl.2-dexp.2", 1), ("fir.5x6x2", 5)])
def test_what_sees_all_channels_starts_at_a_ridge(text, n_lags):
    trials, model = trials_of(kernels_of(2, 2), lengths=(500, 100)), Model(from_keywords(text))
    assert start_from_data(model, trials) == 1
    design = np.concatenate(
        [lagged(t.data["input"])[:, :n_lags].reshape(-1, 6 * n_lags) for t in trials]
    )
    target = np.concatenate([t.target for t in trials])
    load = RIDGE * design.var(axis=0).mean() * len(design)
    expected = Ridge(load).fit(design, target).coef_
    found = model.layers[0]["coefficients"].values.reshape(-1, 2)
    np.testing.assert_allclose(found, expected.T, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "text",
    [
        "lvl.6-wc.6x1",
        "wc.6x1.n-fir.5x1",
        "wc.6x1.p-fir.5x1",
        "wc.6x1-fir.5x1.s2",
        "wc.6x1-fir.5x1.ac",
        "wc.6x2.g-fir.5x2",
        "wc.6x3-fir.5x1x3",
        "fir.5x6x2",
        "wc.6x1x2-fir.5x1x2",
        "wc.6x1x3-fir.5x1x3-wc.3x2",
        "wc.6x4-relu.4-fir.5x4",
    ],
)
def test_other_models_are_left_as_they_are(text):
    model = Model(from_keywords(text))
    before = model.copy()
    assert start_from_data(model, trials_of(kernels_of(1, 1), lengths=(100,))) == 0
    assert model == before


def test_frozen_layers_are_left_as_they_are():
    model = Model(from_keywords("wc.6x1-fir.5x1"))
    model.layers["fir"].freeze_parameters()
    before = model.copy()
    assert start_from_data(model, trials_of(kernels_of(1, 1), lengths=(100,))) == 0
    assert model == before


def test_a_fit_from_the_data_ends_sooner_and_no_worse():
    x = stimulus(3000)
    linear = responses(x, kernels_of(8, 3), noise=0)
    y = np.maximum(linear - linear.mean(0), 0) / linear.std(0)
    y += 0.2 * np.random.default_rng(5).standard_normal(y.shape)
    model = Model(from_keywords("wc.6x1x3-fir.5x1x3-wc.3x8-lvl.8-dexp.8"))
    plain, started = (model.fit(x, y, init=init, verbose=0, max_iter=60) for init in (None, "auto"))
    assert started.results.initial_error < 0.5 * plain.results.initial_error
    assert started.results.final_error < plain.results.final_error
    assert started.results.final_error < 0.06
    again = model.fit(x, y, init="auto", verbose=0, max_iter=60)
    assert again == started


def test_filters_before_a_rectifier_span_those_of_the_responses():
    kernels = kernels_of(8, 3)
    trials = trials_of(kernels)
    model = Model(from_keywords("wc.6x1x3-fir.5x1x3-relu.3.s-wc.3x8-lvl.8"))
    assert start_from_data(model, trials) == 2
    front = Model([layer.copy() for layer in model.layers[:2]])
    found = np.reshape(kernels_found(front, 3), (3, -1))
    weights, *_ = np.linalg.lstsq(found.T, np.reshape(kernels, (8, -1)).T, rcond=None)
    for one, other in zip(weights.T @ found, np.reshape(kernels, (8, -1)), strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.97
    outputs = np.concatenate([front.predict(trial.data) for trial in trials])
    np.testing.assert_allclose(outputs.std(axis=0), 1, rtol=0.05)
    # With the sign that more of the responses have.
    assert (weights.sum(axis=1) > 0).all()


@pytest.mark.parametrize("last", ["lvl.8", "dexp.8"])
def test_a_fit_of_rectified_filters_begins_lower_and_ends_no_higher(last):
    x = stimulus(3000)
    hidden = np.maximum(responses(x, kernels_of(3, 3), noise=0), 0)
    y = hidden @ np.random.default_rng(6).uniform(0, 1, (3, 8))
    y += 0.1 * np.random.default_rng(5).standard_normal(y.shape)
    model = Model(from_keywords(f"wc.6x1x3-fir.5x1x3-relu.3.s-wc.3x8-{last}"))
    plain, started = (model.fit(x, y, init=init, verbose=0) for init in (None, "auto"))
    # Where weights all began alike, a double exponential was led to where it is flat.
    assert started.results.initial_error < 0.5 * y.var()
    assert started.results.initial_error < 0.5 * plain.results.initial_error
    assert started.results.final_error < 1.001 * plain.results.final_error
    assert started.results.n_iter < plain.results.n_iter


@pytest.mark.parametrize(
    ("name", "bounds"),
    [("wc", {"coefficients": (-0.1, 0.1)}), ("dexp", {"amplitude": (0, 1), "kappa": (-1, 0)})],
)
def test_a_start_keeps_within_bounds(name, bounds):
    x = stimulus(300)
    y = 20 * np.maximum(responses(x, kernels_of(1, 1)), 0)
    model = Model(from_keywords("wc.6x1-fir.5x1-dexp.1"))
    model.layers[name].set_bounds(**bounds)
    start_at_data(model, [Trial({"input": x}, y, np.ones((300, 1)))])
    for parameter, (low, high) in bounds.items():
        values = model.layers[name][parameter].values
        assert ((values >= low) & (values <= high)).all()


def test_a_start_that_gives_no_numbers_is_not_taken():
    x = stimulus(300)
    y = responses(x, kernels_of(1, 1))
    # Filters of either sign, and a logarithm of what they give.
    model = Model(from_keywords("fir.5x6-dlog.1-lvl.1-dexp.1"))
    before = model.copy()
    with np.errstate(invalid="ignore"):
        start_at_data(model, [Trial({"input": x}, y, np.ones((300, 1)))])
    assert model == before


def test_data_without_variance_do_not_break_the_start():
    x, y = np.ones((50, 6)), np.ones((50, 1))
    model = Model(from_keywords("wc.6x1-fir.5x1-lvl.1-dexp.1"))
    fitted = model.fit(x, y, init="auto", verbose=0, max_iter=20)
    assert np.isfinite(fitted.predict(x)).all()


def test_starts_that_are_not_known():
    model = Model(from_keywords("wc.6x1"))
    with pytest.raises(ValueError, match="init='ridge', expected None or 'auto'"):
        model.fit(np.ones((9, 6)), np.ones(9), init="ridge")


def test_data_of_other_names_and_streams_can_be_fitted_all_the_same():
    x = stimulus(300)
    y = responses(x, kernels_of(1, 1))
    model = Model(from_keywords("wc.6x1-fir.5x1-lvl.1"))
    named = model.fit({"sound": x}, y, init="auto", verbose=0, max_iter=5)
    assert named == model.fit({"sound": x}, y, verbose=0, max_iter=5)
    # What comes after the linear layers takes more than their output.
    streams = Model([*from_keywords("wc.6x1-fir.5x1"), Sum(input=["first", "input"])])
    streams.layers["fir"].output = "first"
    wide = np.repeat(y, 6, axis=1)
    assert np.isfinite(streams.fit(x, wide, init="auto", verbose=0, max_iter=5).results.final_error)


def test_a_stimulus_of_another_width_is_told_by_the_layer():
    model = Model(from_keywords("wc.6x1-fir.5x1"))
    with pytest.raises(ValueError, match=r"input of shape \(9, 4\) for wc"):
        model.fit(np.ones((9, 4)), np.ones(9), init="auto", verbose=0)


def test_a_layer_that_torch_cannot_follow_is_told_once():
    class InNumPy(Layer):
        def evaluate(self, values):
            return np.interp(values, [-99, 99], [-99, 99])

    x = stimulus(300)
    model = Model([*from_keywords("wc.6x1-fir.5x1-lvl.1"), InNumPy()])
    with pytest.warns(UserWarning, match="cannot follow the layer 'InNumPy'") as caught:
        model.fit(x, responses(x, kernels_of(1, 1)), init="auto", verbose=0, max_iter=3)
    assert len(caught) == 1
