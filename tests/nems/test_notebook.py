"""The walk through the objects that newcomers take, with its numbers."""

import numpy as np
import pytest
from scipy.signal import gausspulse

from skdyn.nems import HalfNormal, Layer, Model, Parameter, Phi

RULE, LONG_RULE = "=" * 32, "~" * 64


class Sum(Layer):
    def evaluate(self, *inputs):
        return sum(inputs)


class WeightedSum(Layer):
    def initial_parameters(self):
        return Phi(Parameter("a"), Parameter("b"))

    def evaluate(self, *inputs):
        a, b = self.get_parameter_values("a", "b")
        return a * sum(inputs) + b


class Square(Layer):
    def evaluate(self, values):
        return values**2


class WeightChannels(Layer):
    """Written for NumPy alone."""

    def initial_parameters(self):
        return Phi(Parameter("coefficients", shape=self.shape))

    def evaluate(self, spectrogram):
        return np.squeeze(spectrogram @ self.get_parameter_values(), axis=0)


@pytest.fixture(scope="module")
def pulses():
    """Two channels of a pulse, of which the response takes three tenths of the second."""
    times = np.linspace(-1, 1, 200, endpoint=False)
    pulse = gausspulse(times, fc=5)
    spectrogram = np.stack([pulse, np.roll(pulse, 60)], axis=1)
    return spectrogram, 0.3 * spectrogram[:, 1]


def test_layers_print():
    assert repr(Sum()) == f"Sum(shape=None)\n{RULE}"
    parts = ["Parameter(name=a, shape=())", "-" * 16, "Parameter(name=b, shape=())"]
    assert repr(WeightedSum()) == "\n".join(["WeightedSum(shape=None)", RULE, *parts, RULE])
    text = str(WeightedSum())
    assert text.startswith(f"WeightedSum(shape=None)\n{RULE}\n.parameters:")
    for piece in (".prior: Normal(μ=0.0, σ=1.0)", ".bounds:", ".is_frozen: False", "Index: 0"):  # noqa: RUF001
        assert text.count(piece) == 2


def test_values_are_the_means_of_the_priors():
    plain, half = WeightedSum(), WeightedSum(priors={"a": HalfNormal(sd=1)})
    assert plain.get_parameter_values() == [0.0, 0.0]
    assert half.get_parameter_values("a") == [0.7978845608028654]
    ones, twos = np.ones((10, 1)), 2 * np.ones((10, 1))
    np.testing.assert_array_equal(Sum().evaluate(ones, twos), 3 * ones)
    np.testing.assert_allclose(half.evaluate(ones, 0 * twos), 0.79788456 * ones, rtol=1e-8)


def test_models_connect_layers():
    model = Model().add_layers(WeightedSum(input=["x", "y"]), Square())
    head, first, second = f"Model()\n{LONG_RULE}", repr(WeightedSum()), repr(Square())
    assert repr(model) == f"{head}\n{first}\n\n{second}\n\n{LONG_RULE}"
    assert str(model).startswith(f"{head}\n.layers:\n\nWeightedSum")
    data = {"x": np.ones((20, 1)), "y": 2 * np.ones((20, 1))}
    everything = model.evaluate(data)
    assert set(everything) == {"x", "y", "output"}
    np.testing.assert_array_equal(model.predict(data), np.zeros((20, 1)))
    drawn = model.sample_from_priors(random_state=0)
    values = drawn.get_parameter_values()["WeightedSum"]
    assert set(values) == {"a", "b"}
    assert values["a"] != values["b"]
    np.testing.assert_allclose(
        drawn.predict(data), (3 * values["a"] + values["b"]) ** 2 + 0 * data["x"]
    )


def test_a_layer_written_for_numpy_is_fitted_with_numeric_gradients(pulses, capsys):
    spectrogram, response = pulses
    model = Model(layers=[WeightChannels(shape=(2, 1))]).sample_from_priors(random_state=0)
    before = model.get_parameter_vector()
    with pytest.warns(UserWarning, match="cannot follow the layer 'WeightChannels'") as caught:
        fitted = model.fit(spectrogram, response)
    assert len(caught) == 1
    np.testing.assert_array_equal(model.get_parameter_vector(), before)
    np.testing.assert_allclose(fitted.get_parameter_vector(), [0.0, 0.3], atol=1e-8)
    assert fitted.results.converged
    assert not fitted.results.exact_gradients
    printed = capsys.readouterr().out
    assert "Iteration 1, error" in printed
    assert "Fit successful: True" in printed
    assert fitted.score(spectrogram, response) == pytest.approx(1.0, abs=1e-12)


def test_perfect_fits_are_reported_as_successful(pulses):
    spectrogram, response = pulses
    for seed in range(20):
        model = Model(layers=[WeightChannels(shape=(2, 1))]).sample_from_priors(random_state=seed)
        with pytest.warns(UserWarning):
            fitted = model.fit(spectrogram, response, verbose=0)
        assert fitted.results.converged
        np.testing.assert_allclose(fitted.get_parameter_vector(), [0.0, 0.3], atol=1e-5)
