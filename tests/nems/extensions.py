"""A layer, a loss and a solver that a user might write, in a module that files can name."""

import numpy as np

from skdyn.nems import FitResults, Layer, Loss, Normal, Parameter, Phi, Solver, keyword


@keyword("halve")
class Halve(Layer):
    """Half the slope above a knee, and slope one below."""

    n_past = 0
    keeps_channels = True

    def __init__(self, shape=(1,), *, knee=0.0, **layer_options):
        self.knee = knee
        super().__init__(shape, **layer_options)

    @classmethod
    def from_word(cls, word):
        word.flags("k#")
        return cls(word.shape(1), knee=word.number("k", 0))

    def word_options(self):
        return [f"k{self.knee:g}"] if self.knee else []

    def initial_parameters(self):
        return Phi(Parameter("gain", self.shape, prior=Normal(1, 0.1)))

    def evaluate(self, values):
        (gain,) = self.get_parameter_values("gain")
        above = (values > self.knee) * (values - self.knee)
        return gain * (values - 0.5 * above)


class LogCosh(Loss):
    """Logarithm of the hyperbolic cosine of errors: squares of small ones, sizes of large ones."""

    name = "log_cosh"

    def pointwise(self, target, prediction, typical):
        size = ((prediction - target) / typical).abs()
        return size + (1 + (-2 * size).exp()).log() - np.log(2)


class GradientDescent(Solver):
    """Steepest descent with halved steps."""

    name = "descent"

    def __init__(self, step=1.0):
        self.step = step

    def fit(self, objective, settings, random_state, watcher=None):
        start = vector = objective.model.get_parameter_vector()
        initial = objective.error(vector)
        value, step, history = objective.value(vector), self.step, []
        for _ in range(settings.max_iter):
            _, gradient = objective.values_and_gradient(vector)
            while objective.value(vector - step * gradient) > value and step > 1e-12:
                step /= 2
            before, vector = value, vector - step * gradient
            value, step = objective.value(vector), 2 * step
            history.append(objective.error(vector))
            if before - value <= settings.tol:
                break
        return FitResults(
            initial_parameters=start,
            final_parameters=vector,
            initial_error=initial,
            final_error=objective.error(vector),
            n_iter=len(history),
            n_evaluations=objective.n_evaluations,
            converged=len(history) < settings.max_iter,
            message="Descended.",
            exact_gradients=True,
            history=history,
        )
