"""
Encoding models: from a layer of one's own to a neuron's filter
===============================================================

An encoding model predicts a response from a stimulus. It is a stack of layers; each has parameters
with priors, and says in a few lines what comes out for what goes in. This example makes layers,
puts them together, draws their values from priors and fits them: first a layer of one's own,
written for NumPy, then the package's layers, written as words. Both find what the response was made
of. The last model finds the filter and the nonlinearity of a simulated neuron.
"""

import argparse
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.signal import gausspulse

from skdyn import NEMSRegressor
from skdyn.metrics import correlation_score
from skdyn.nems import HalfNormal, Layer, Model, Parameter, Phi, from_keywords
from skdyn.plotting import NEMSDisplay, plot_predictions, plot_separate_time_series

SAMPLING_FREQUENCY = 100


class Sum(Layer):
    """A layer without parameters: all it needs is `evaluate`."""

    def evaluate(self, *inputs):
        return sum(inputs)


class WeightedSum(Layer):
    """A layer with two parameters, which have standard normal priors unless others are named."""

    def initial_parameters(self):
        return Phi(Parameter("a"), Parameter("b"))

    def evaluate(self, *inputs):
        a, b = self.get_parameter_values("a", "b")
        return a * sum(inputs) + b


class Square(Layer):
    def evaluate(self, values):
        return values**2


class WeightChannels(Layer):
    """Weights of channels, computed by NumPy in a way that torch cannot follow."""

    def initial_parameters(self):
        return Phi(Parameter("coefficients", shape=self.shape))

    def evaluate(self, spectrogram):
        (coefficients,) = self.get_parameter_values()
        return np.dot(np.asarray(spectrogram), coefficients)


def make_layers():
    """Show layers: what they print, what they hold, what they compute."""
    print(Sum(), "", WeightedSum(), sep="\n")
    # A value starts at the mean of its prior; that of the half normal is sqrt(2 / pi).
    layer = WeightedSum(priors={"a": HalfNormal(sd=1)})
    print("\nvalues at the means of the priors:", layer.get_parameter_values(as_dict=True))
    ones, twos = np.ones((10, 1)), 2 * np.ones((10, 1))
    print("sum of 1 and 2:", Sum().evaluate(ones, twos)[0], end=", ")
    print("weighted:", layer.evaluate(ones, twos)[0].round(4))


def connect_layers():
    """Show a model: it passes on what comes out of one layer to the next."""
    model = Model().add_layers(WeightedSum(input=["x", "y"]), Square())
    print("", repr(model), sep="\n")
    data = {"x": np.ones((20, 1)), "y": 2 * np.ones((20, 1))}
    print("evaluate gives", sorted(model.evaluate(data)), end=", ")
    print("predict the last of them:", model.predict(data)[0])
    drawn = model.sample_from_priors(random_state=0)
    print("drawn from the priors:", drawn.get_parameter_values()["WeightedSum"])


def make_pulses():
    """Two channels with a pulse in each; the response is three tenths of the second one."""
    times = np.linspace(-1, 1, 2 * SAMPLING_FREQUENCY, endpoint=False)
    pulse = gausspulse(times, fc=5)
    spectrogram = np.stack([pulse, np.roll(pulse, 60)], axis=1)
    return spectrogram, 0.3 * spectrogram[:, 1]


def fit_pulses(spectrogram, response):
    """Fit the layer that is written for NumPy, then the package's own; give the former's models."""
    model = Model([WeightChannels(shape=(2, 1))]).sample_from_priors(random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = model.fit(spectrogram, response)
    print("it warned:", *(warning.message for warning in caught))
    report(fitted, spectrogram, response)
    words = Model(from_keywords("wc.2x1")).sample_from_priors(random_state=0)
    report(words.fit(spectrogram, response), spectrogram, response)
    return model, fitted


def report(fitted, stimulus, response):
    """Say what a fit has found, and at what price."""
    results = fitted.results
    print(f"weights {fitted.get_parameter_vector().round(6) + 0.0}", end=", ")
    print(f"correlation {fitted.score(stimulus, response):.6f}", end=", ")
    gradients = "exact" if results.exact_gradients else "numeric"
    print(f"{results.n_evaluations} evaluations with {gradients} gradients\n")


def simulate_neuron(n_samples):
    """Spikes of a neuron that likes one band, and a little later dislikes the one above."""
    rng = np.random.default_rng(0)
    frequencies = np.geomspace(200, 16000, 18)
    octaves, milliseconds = np.log2(frequencies), 10 * np.arange(15)

    def bump(frequency, width, delay, duration):
        band = np.exp(-(((octaves - np.log2(frequency)) / width) ** 2) / 2)
        return np.outer(np.exp(-(((milliseconds - delay) / duration) ** 2) / 2), band)

    true = bump(2000, 0.6, 30, 10) - 0.7 * bump(3500, 0.8, 60, 15)
    spectrogram = rng.gamma(0.5, size=(n_samples, 18))
    drive = sum(np.convolve(spectrogram[:, c], true[:, c])[:n_samples] for c in range(18))
    return spectrogram, rng.poisson(np.maximum(drive - drive.mean(), 0)), frequencies


def draw_pulses(spectrogram, response, before, after):
    """Yield pictures of the pulses, and of the models before and after the fit."""
    data = np.column_stack([spectrogram, response])
    names = ["Channel 0", "Channel 1", "Response"]
    rate = {"sampling_frequency": SAMPLING_FREQUENCY}
    yield "pulses", plot_separate_time_series(data, channel_names=names, **rate)[0]
    predictions = np.column_stack([model.predict(spectrogram) for model in (before, after)])
    names = ["Before the fit", "After"]
    measured = np.column_stack([response, response])
    yield "fit", plot_predictions(measured, predictions, output_names=names, **rate)[0]


def main():
    parser = argparse.ArgumentParser(description="Layers, models and fits, one after the other.")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="folder to fill")
    parser.add_argument("--quick", action="store_true", help="little data")
    arguments = parser.parse_args()

    make_layers()
    connect_layers()
    spectrogram, response = make_pulses()
    print("\nthe layer that is written for NumPy, then the package's own:")
    before, after = fit_pulses(spectrogram, response)
    figures = list(draw_pulses(spectrogram, response, before, after))

    n_train = 3000 if arguments.quick else 10000
    sound, spikes, frequencies = simulate_neuron(n_train + 2000)
    # The same as an estimator of scikit-learn; sizes are taken from the data.
    fitted = NEMSRegressor("wc.x2-fir.15-lvl-relu").fit(sound[:n_train], spikes[:n_train])
    held_out = sound[n_train:], spikes[n_train:]
    correlation = correlation_score(held_out[1], fitted.predict(held_out[0]))
    print(f"the neuron: correlation {correlation:.3f} with what was held out")
    scale = {"sampling_frequency": SAMPLING_FREQUENCY, "frequencies": frequencies}
    display = NEMSDisplay.from_estimator(fitted, *held_out, n_samples=400, **scale)
    figures.append(("neuron", display.figure_))

    arguments.figures.mkdir(parents=True, exist_ok=True)
    for name, figure in figures:
        path = arguments.figures / f"nems_introduction_{name}.png"
        figure.savefig(path, dpi=150, bbox_inches="tight")
        plt.close(figure)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
