"""
Encoding models: from a layer to a neuron's filter
==================================================

An encoding model predicts a response from a stimulus. It is a stack of layers, each with parameters
that have priors. This example defines layers, connects them, draws their parameters from the priors
and fits them: first a custom layer written for NumPy, then the layers of the package. The last
model recovers the filter and the nonlinearity of a simulated neuron.
"""

# %%
# Layers
# ------
#
# A layer needs an `evaluate` method. If it has parameters, `initial_parameters` lists them; their
# priors are standard normal unless you choose others.

import os
import warnings

import numpy as np

from skdyn.nems import HalfNormal, Layer, Model, Parameter, Phi

QUICK = os.environ.get("SKDYN_EXAMPLES") == "quick"  # less data, for tests
SAMPLING_FREQUENCY = 100


class Sum(Layer):
    """The sum of its inputs."""

    def evaluate(self, *inputs):
        return sum(inputs)


class WeightedSum(Layer):
    """a times the sum of its inputs, plus b."""

    def initial_parameters(self):
        return Phi(Parameter("a"), Parameter("b"))

    def evaluate(self, *inputs):
        a, b = self.get_parameter_values("a", "b")
        return a * sum(inputs) + b


class Square(Layer):
    """The square of its input."""

    def evaluate(self, values):
        return values**2


print(Sum(), WeightedSum(), sep="\n")

# %%
# Parameters start at the mean of their prior; the mean of a half-normal prior is sqrt(2 / pi).

layer = WeightedSum(priors={"a": HalfNormal(sd=1)})
ones, twos = np.ones((10, 1)), 2 * np.ones((10, 1))
print(layer.get_parameter_values(as_dict=True))
print(Sum().evaluate(ones, twos)[0], layer.evaluate(ones, twos)[0].round(4))

# %%
# Models
# ------
#
# A model passes the output of each layer to the next. `evaluate` returns all outputs, `predict` the
# last one. `sample_from_priors` draws the parameters.

model = Model().add_layers(WeightedSum(input=["x", "y"]), Square())
data = {"x": np.ones((20, 1)), "y": 2 * np.ones((20, 1))}
print(model)
print(sorted(model.evaluate(data)), model.predict(data)[0])
print(model.sample_from_priors(random_state=0).get_parameter_values()["WeightedSum"])

# %%
# Fit a custom layer
# ------------------
#
# Two channels with one pulse each. The response is three tenths of the second channel.

from scipy.signal import gausspulse

from skdyn.plotting import plot_predictions, plot_separate_time_series

times = np.linspace(-1, 1, 2 * SAMPLING_FREQUENCY, endpoint=False)
pulse = gausspulse(times, fc=5)
spectrogram = np.stack([pulse, np.roll(pulse, 60)], axis=1)
response = 0.3 * spectrogram[:, 1]
plot_separate_time_series(
    np.column_stack([spectrogram, response]),
    channel_names=["Channel 0", "Channel 1", "Response"],
    sampling_frequency=SAMPLING_FREQUENCY,
)

# %%
# This layer calls `np.dot`, which torch cannot differentiate. The fit warns once and uses numeric
# gradients.


class WeightChannels(Layer):
    """Weighted sums of the channels, computed by NumPy."""

    def initial_parameters(self):
        return Phi(Parameter("coefficients", shape=self.shape))

    def evaluate(self, spectrogram):
        (coefficients,) = self.get_parameter_values()
        return np.dot(np.asarray(spectrogram), coefficients)


def report(model):
    """Print the weights of a fitted model, and what the fit cost."""
    gradients = "exact" if model.results.exact_gradients else "numeric"
    print("weights", model.get_parameter_vector().round(6) + 0.0, end=", ")
    print(f"correlation {model.score(spectrogram, response):.6f}", end=", ")
    print(f"{model.results.n_evaluations} evaluations with {gradients} gradients")


before = Model([WeightChannels(shape=(2, 1))]).sample_from_priors(random_state=0)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    after = before.fit(spectrogram, response)
print(*(warning.message for warning in caught))
report(after)

# %%
# The layer of the package gives the same weights with exact gradients. ``wc.2x1`` is its word:
# weights of channels, two in and one out.

from skdyn.nems import from_keywords

words = Model(from_keywords("wc.2x1")).sample_from_priors(random_state=0)
report(words.fit(spectrogram, response))

# %%
# Predictions before and after the fit:

plot_predictions(
    np.column_stack([response, response]),
    np.column_stack([one.predict(spectrogram) for one in (before, after)]),
    output_names=["Before the fit", "After"],
    sampling_frequency=SAMPLING_FREQUENCY,
)

# %%
# A simulated neuron
# ------------------
#
# The neuron is excited by sound around 2 kHz and, 30 ms later, suppressed by sound around 3.5 kHz.
# Its spikes follow a Poisson distribution.

n_fitted = 2000 if QUICK else 10_000
n_samples = n_fitted + 2000
rng = np.random.default_rng(0)
frequencies = np.geomspace(200, 16000, 18)
octaves, milliseconds = np.log2(frequencies), 10 * np.arange(15)


def bump(frequency, width, delay, duration):
    """Return a Gaussian over octaves and time."""
    band = np.exp(-(((octaves - np.log2(frequency)) / width) ** 2) / 2)
    return np.outer(np.exp(-(((milliseconds - delay) / duration) ** 2) / 2), band)


true_filter = bump(2000, 0.6, 30, 10) - 0.7 * bump(3500, 0.8, 60, 15)
sound = rng.gamma(0.5, size=(n_samples, 18))
drive = sum(np.convolve(sound[:, c], true_filter[:, c])[:n_samples] for c in range(18))
spikes = rng.poisson(np.maximum(drive - drive.mean(), 0))

# %%
# `NEMSRegressor` is the same model as a scikit-learn estimator. It takes the sizes of the layers
# from the data: here two weighted sums of the channels, a filter of 15 lags, a level and a
# rectifier.

from skdyn import NEMSRegressor
from skdyn.metrics import correlation_score
from skdyn.plotting import NEMSDisplay

regressor = NEMSRegressor("wc.x2-fir.15-lvl-relu").fit(sound[:n_fitted], spikes[:n_fitted])
held_out = sound[n_fitted:], spikes[n_fitted:]
correlation = correlation_score(held_out[1], regressor.predict(held_out[0]))
print(f"correlation with held-out spikes: {correlation:.3f}")

# %%
# The display shows the filter, the nonlinearity and the predicted response.

NEMSDisplay.from_estimator(
    regressor,
    *held_out,
    n_samples=400,
    sampling_frequency=SAMPLING_FREQUENCY,
    frequencies=frequencies,
)

# sphinx_gallery_thumbnail_number = 3
