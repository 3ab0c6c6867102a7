"""Filters of whole models against coefficients multiplied by hand; contents of displays."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.signal import lfilter
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from skdyn.nems import Layer, Model, Parameter, Phi, from_keywords
from skdyn.nems.layers import FiniteImpulseResponse
from skdyn.plotting import NEMSDisplay, linear_filter


class Smooth(Layer):
    """Written for NumPy; its response never ends."""

    def evaluate(self, values):
        return lfilter([1], [1, -0.999], np.asarray(values), axis=0)


class Power(Layer):
    def initial_parameters(self):
        return Phi(Parameter("exponent"))

    def evaluate(self, values):
        (exponent,) = self.get_parameter_values("exponent")
        return values**exponent


class Pair(Layer):
    def evaluate(self, values):
        return [values, values]


class StandInRegressor(BaseEstimator):
    """The part of an estimator that the display may use; it predicts twice its model's output."""

    def fit(self, X, y):
        self.n_features_in_ = X.shape[1]
        self.model_ = drawn("wc.4x1-fir.3x1-lvl.1-dexp.1")
        self.history_ = {"loss": [3.0, 2.0, 1.5]}
        return self

    def predict(self, X, *, sessions=None):
        if np.ndim(X) == 3 or isinstance(X, list):
            return [self.predict(one) for one in X]
        self.seen_sessions_ = sessions
        parts = [X] if sessions is None else np.split(X, np.flatnonzero(np.diff(sessions)) + 1)
        return 2 * np.concatenate([self.model_.predict(part) for part in parts])


@pytest.fixture(autouse=True)
def close_figures():
    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before, "global settings changed"


def drawn(words, *more):
    """A model with values drawn from the priors, for four channels."""
    model = Model([*(from_keywords(words) if words else []), *more])
    model.evaluate(np.zeros((5, 4)))
    return model.sample_from_priors(random_state=1)


@pytest.fixture
def stimulus():
    return np.random.default_rng(0).standard_normal((80, 4))


# ----------------------------------------------------------------------------------- filters


def test_the_filter_is_the_product_of_the_coefficients():
    model = drawn("wc.4x2-fir.3x2-lvl.1-dexp.1")
    values = model.get_parameter_values()
    filters, lags = linear_filter(model, 4)
    expected = values["fir"]["coefficients"] @ values["wc"]["coefficients"].T
    np.testing.assert_allclose(filters, expected[:, :, None], atol=1e-14)
    np.testing.assert_array_equal(lags, [0, 1, 2])


@pytest.mark.parametrize(
    ("words", "equation"),
    [
        ("wc.4x2x5-fir.3x2x5-relu.5", "cro,lro->lco"),
        ("wc.4x1x2-fir.3x1x2-wc.2x5-lvl.5-dexp.5", "crk,lrk,ko->lco"),
        ("wc.4x2-fir.3x2x5", "cr,lro->lco"),
        ("wc.4x5", "co->co"),
    ],
)
def test_filters_of_several_outputs(words, equation):
    model = drawn(words)
    factors = [
        layer["coefficients"].values for layer in model.layers if "coefficients" in layer.parameters
    ]
    expected = np.einsum(equation, *factors)
    filters, lags = linear_filter(model, 4)
    assert filters.shape == (len(lags), 4, 5)
    np.testing.assert_allclose(filters, expected.reshape(filters.shape), atol=1e-14)


def test_two_filters_in_a_row_are_convolved():
    model = drawn("wc.4x1-fir.3x1-fir.4x1")
    first, second = (layer["coefficients"].values[:, 0] for layer in model.layers[1:])
    filters, lags = linear_filter(model, 4)
    weights = model.layers["wc"]["coefficients"].values[:, 0]
    np.testing.assert_allclose(filters[:, :, 0], np.outer(np.convolve(first, second), weights))
    assert len(lags) == 6


@pytest.mark.parametrize("words", ["strf.4x2x3x5-relu.5", "lvl.4-wc.4x1.g-fir.5x1", "fir.3x4"])
def test_the_filter_gives_what_the_layers_give(words, stimulus):
    model = drawn(words)
    linear = Model(list(drawn(words).layers[:-1] if "relu" in words else drawn(words).layers))
    filters, lags = linear_filter(model, 4)
    rest = linear.predict(0 * stimulus)
    expected = sum(
        np.vstack([np.zeros((lag, filters.shape[2])), (stimulus @ filters[lag])[: 80 - lag]])
        for lag in lags
    )
    np.testing.assert_allclose(linear.predict(stimulus) - rest, expected, atol=1e-12)


def test_a_filter_follows_what_bends_each_channel(stimulus):
    model = drawn("dlog.4-wc.4x1-fir.3x1-relu.1")
    filters, _ = linear_filter(model, 4)
    alone = Model([layer.copy() for layer in model.layers[1:3]])
    np.testing.assert_array_equal(filters, linear_filter(alone, 4)[0])


@pytest.mark.parametrize("kind", ["relu", "srelu", "sig", "tanh", "dexp", "dlog", "prelu"])
def test_what_is_not_linear_ends_the_filter(kind):
    model = drawn(f"wc.4x2-{kind}.2-fir.3x2")
    filters, lags = linear_filter(model, 4)
    np.testing.assert_allclose(filters[0], model.layers["wc"]["coefficients"].values)
    assert len(lags) == 1


def test_a_filter_that_ends_with_zeros_keeps_its_length():
    model = drawn("wc.4x1-fir.15x1")
    model.layers["fir"]["coefficients"] = np.eye(15)[:, :1]
    assert linear_filter(model, 4)[0].shape == (15, 4, 1)
    model.layers["fir"]["coefficients"] = np.zeros((15, 1))
    filters, _ = linear_filter(model, 4, n_lags=20)
    np.testing.assert_array_equal(filters, np.zeros((20, 4, 1)))
    assert linear_filter(model, 4, n_lags=2)[0].shape == (2, 4, 1)


def test_a_long_filter():
    model = drawn("fir.700x4")
    filters, lags = linear_filter(model, 4)
    np.testing.assert_allclose(filters[:, :, 0], model.layers[0]["coefficients"].values)
    assert len(lags) == 700


def test_a_filter_that_looks_ahead():
    model = drawn("fir.6x4.ac")
    filters, lags = linear_filter(model, 4)
    np.testing.assert_array_equal(lags, [-3, -2, -1, 0, 1, 2])
    np.testing.assert_allclose(filters[:, :, 0], model.layers[0]["coefficients"].values)


def test_a_layer_of_a_users_own():
    model = drawn("wc.4x1", Smooth())
    with pytest.raises(ValueError, match=r"not ended after 4096 rows.*Pass n_lags"):
        linear_filter(model, 4)
    filters, _ = linear_filter(model, 4, n_lags=50)
    weights = model.layers["wc"]["coefficients"].values[:, 0]
    np.testing.assert_allclose(filters[:, :, 0], np.outer(0.999 ** np.arange(50), weights))


def test_the_model_stays_as_it_is():
    model = drawn("wc.4x1-fir.3x1-dexp.1")
    model.layers[0].input = "sound"
    before = model.copy()
    linear_filter(model, 4)
    assert model == before


@pytest.mark.parametrize("model", [Model([Power()]), Model([Pair()]), Model([Power(input=["x"])])])
def test_models_without_a_linear_layer(model):
    with pytest.raises(ValueError, match=r"model has the layers .*linear ones were expected"):
        linear_filter(model, 4)


# ----------------------------------------------------------------------------------- display


def curves_of(display):
    return [panel.lines[-1].get_xydata() for panel in display.nonlinearity_ax_]


@pytest.mark.filterwarnings("ignore:The fit has not converged")
def test_a_display_of_a_fitted_model(stimulus):
    response = np.maximum(stimulus[:, 1] - stimulus[:, 2], 0)
    fitted = drawn("wc.4x1-fir.3x1-lvl.1-relu.1").fit(stimulus, response, verbose=0, max_iter=7)
    before = fitted.copy()
    display = NEMSDisplay.from_estimator(fitted, stimulus, response, sampling_frequency=100)
    panels = ["filter_ax_", "nonlinearity_ax_", "loss_ax_", "prediction_ax_"]
    assert [len(getattr(display, name)) for name in panels] == [1, 1, 1, 1]
    assert list(display.ax_) == [getattr(display, name)[0] for name in panels]
    shown = display.filter_ax_[0].images[0].get_array()
    np.testing.assert_array_equal(shown, linear_filter(fitted, 4)[0][:, :, 0].T)
    assert display.filter_ax_[0].get_xlabel() == "Lag (ms)"
    (curve,) = curves_of(display)
    drive = Model([layer.copy() for layer in fitted.layers[:2]]).predict(stimulus)
    assert curve[0, 0] == pytest.approx(drive.min())
    shift = fitted.layers["lvl"]["shift"].values
    np.testing.assert_allclose(curve[:, 1], np.maximum(curve[:, 0] + shift, 0), atol=1e-12)
    loss = display.loss_ax_[0].lines[0]
    np.testing.assert_array_equal(loss.get_ydata(), fitted.results.history)
    assert display.loss_ax_[0].get_xlabel() == "Iteration"
    measured, predicted = display.prediction_ax_[0].lines
    np.testing.assert_array_equal(measured.get_ydata(), response)
    np.testing.assert_array_equal(predicted.get_ydata(), fitted.predict(stimulus)[:, 0])
    r = fitted.score(stimulus, response)
    assert display.prediction_ax_[0].get_title(loc="left") == f"r = {r:.2f}"
    assert fitted == before
    display.figure_.canvas.draw()


def test_a_display_of_several_outputs(stimulus):
    model = drawn("wc.4x1x2-fir.3x1x2-wc.2x6-lvl.6-dexp.6")
    response = model.predict(stimulus) + np.arange(6)
    display = NEMSDisplay.from_estimator(model, stimulus, response)
    assert [len(p) for p in (display.filter_ax_, display.nonlinearity_ax_)] == [4, 4]
    assert len(display.loss_ax_) == 0
    display = NEMSDisplay.from_estimator(
        model, stimulus, response, outputs=[5, 1], output_names=["five", "one"], n_samples=10
    )
    assert [panel.get_title() for panel in display.filter_ax_] == ["five", "one"]
    assert [panel.get_ylabel() for panel in display.prediction_ax_] == ["five", "one"]
    filters, _ = linear_filter(model, 4)
    drive = Model([layer.copy() for layer in model.layers[:3]]).predict(stimulus)
    for place, output in enumerate([5, 1]):
        shown = display.filter_ax_[place].images[0].get_array()
        np.testing.assert_array_equal(shown, filters[:, :, output].T)
        row = display.prediction_ax_[place].lines[0]
        np.testing.assert_array_equal(row.get_ydata(), response[:10, output])
        curve = curves_of(display)[place]
        order = np.argsort(drive[:, output])
        expected = np.interp(
            curve[:, 0], drive[order, output], model.predict(stimulus)[order, output]
        )
        assert curve[0, 1] == pytest.approx(expected[0])
        assert curve[-1, 1] == pytest.approx(expected[-1])
    for outputs in ([6], [], [-1]):
        with pytest.raises(ValueError, match=r"outputs must be some of range\(6\), but is"):
            display.plot(outputs=outputs)


def test_filters_that_are_not_those_of_the_outputs(stimulus):
    model = drawn("wc.4x5-fir.3x1x5-relu.5-wc.5x2-relu.2")
    display = NEMSDisplay.from_estimator(model, stimulus, model.predict(stimulus))
    assert [panel.get_title() for panel in display.filter_ax_] == [f"Filter {k}" for k in range(4)]
    assert [panel.get_title() for panel in display.nonlinearity_ax_] == ["Output 0", "Output 1"]
    display.figure_.canvas.draw()


@pytest.mark.parametrize("model", [Model([Power(name="one")]), drawn("wc.4x1-fir.3x1")])
def test_models_that_have_less_to_show(model, stimulus):
    n_outputs = model.predict(stimulus).shape[1]
    display = NEMSDisplay.from_estimator(model, stimulus, np.ones((80, n_outputs)))
    with_filter = len(model.layers) > 1
    assert len(display.filter_ax_) == with_filter
    assert len(display.nonlinearity_ax_) == (0 if with_filter else 4)
    assert len(display.prediction_ax_) == n_outputs


def test_several_streams_in_a_dict(stimulus):
    model = Model(from_keywords("sum.one.two-relu.4"))
    data = {"one": stimulus, "two": stimulus}
    display = NEMSDisplay.from_estimator(model, data, np.maximum(2 * stimulus, 0))
    assert len(display.filter_ax_) == 0
    np.testing.assert_allclose(display.inputs, 2 * stimulus)


def test_without_a_response(stimulus):
    display = NEMSDisplay.from_estimator(drawn("wc.4x1-relu.1"), stimulus)
    assert len(display.prediction_ax_) == 0
    assert len(display.nonlinearity_ax_[0].containers) == 0
    with pytest.raises(ValueError, match="nothing to draw"):
        NEMSDisplay(prediction=np.ones(5)).plot()


def test_sessions_have_no_history_in_common(stimulus):
    model = drawn("wc.4x1-fir.3x1-dexp.1")
    parts = [stimulus[:50], stimulus[50:]]
    expected = np.concatenate([model.predict(part) for part in parts])
    drive = Model([layer.copy() for layer in model.layers[:2]])
    for X in (parts, np.stack([stimulus[:40], stimulus[40:]])):
        display = NEMSDisplay.from_estimator(model, X, [np.ones(len(one)) for one in X])
        expected = np.concatenate([model.predict(one) for one in X])
        np.testing.assert_array_equal(display.prediction, expected)
        np.testing.assert_allclose(display.inputs, np.concatenate([drive.predict(x) for x in X]))
    with pytest.raises(ValueError, match="sessions cannot be given with a Model"):
        NEMSDisplay.from_estimator(model, stimulus, sessions=np.zeros(80))


def test_sessions_of_a_model_with_a_stride(stimulus):
    model = Model([FiniteImpulseResponse((3, 4), stride=2)])
    model.evaluate(stimulus)
    parts = [stimulus[:51], stimulus[51:]]
    responses = [model.predict(part) for part in parts]
    display = NEMSDisplay.from_estimator(model, parts, responses)
    assert display.session_lengths.tolist() == [len(one) for one in responses] == [26, 15]


def test_a_display_of_an_estimator(stimulus):
    model = StandInRegressor()
    with pytest.raises(NotFittedError):
        NEMSDisplay.from_estimator(model, stimulus)
    model.fit(stimulus, None)
    labels = np.repeat([0, 1], 40)
    display = NEMSDisplay.from_estimator(model, stimulus, np.ones(80), sessions=labels)
    assert model.seen_sessions_ is labels
    halves = [model.model_.predict(half) for half in (stimulus[:40], stimulus[40:])]
    np.testing.assert_allclose(display.prediction, 2 * np.concatenate(halves))
    np.testing.assert_array_equal(display.loss, [3, 2, 1.5])
    listed = NEMSDisplay.from_estimator(model, list(np.split(stimulus, 2)), np.ones((2, 40)))
    np.testing.assert_array_equal(listed.prediction, display.prediction)
    np.testing.assert_array_equal(listed.inputs, display.inputs)


def test_a_display_goes_where_it_is_sent(stimulus):
    model = drawn("wc.4x1-fir.3x1-dexp.1")
    fig, axes = plt.subplots(1, 3)
    display = NEMSDisplay.from_estimator(model, stimulus, np.ones(80), ax=axes)
    assert list(display.ax_) == list(axes)
    assert display.figure_ is fig
    with pytest.raises(ValueError, match="ax has 2 axes, but must have 3"):
        display.plot(ax=axes[:2])
    whole = plt.figure(layout="constrained")
    left, right = whole.subfigures(1, 2)
    assert display.plot(fig=right) is display
    assert display.figure_ is right
    assert not left.axes
    whole.canvas.draw()


def test_a_response_of_another_shape(stimulus):
    with pytest.raises(ValueError, match=r"response has shape \(79, 1\), but prediction"):
        NEMSDisplay.from_estimator(drawn("wc.4x1"), stimulus, np.ones(79))
    assert not plt.get_fignums()
