"""The objective of some components: equal to the whole there, and only where layers come apart."""

import numpy as np
import pytest
import torch

from skdyn.nems import Layer, Model, Parameter, Phi, from_keywords
from skdyn.nems.fitting import lbfgs
from skdyn.nems.fitting.lbfgs import LBFGS
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.parts import Part, part_of
from skdyn.nems.fitting.settings import FitSettings
from skdyn.nems.fitting.trials import Trial
from skdyn.nems.losses import LOSSES, FunctionLoss

N_OUTPUTS = 5

APART = [
    "wc.6x1x5-fir.3x1x5-dexp.5",
    "wc.6x2x5-fir.3x2x5-relu.5",
    "wc.6x5-fir.3x1x5-lvl-sig.5.s.g",
    "wc.6x1x5.g-fir.3x1x5-lvl.5",
    "fir.3x6x5-relu.5.s-lvl",
    "strf.6x2x3x5.relu",
]
TOGETHER = [
    "wc.6x3-fir.3x1x3-wc.3x5-dexp",  # shared filters
    "wc.6x1x5.n-fir.3x1x5-lvl",  # weights are divided by the size of all
    "strf.6x2x3x5.sk50",  # channel k is added to output k
]


def make_objective(text, weight_axis=1, loss="squared_error", n_trials=2):
    rng = np.random.default_rng(0)
    model = Model(from_keywords(text)) if isinstance(text, str) else Model(text)
    trials = []
    for _ in range(n_trials):
        X = rng.gamma(1.0, size=(120, 6))
        y = rng.poisson(2.0, (120, N_OUTPUTS)).astype(float)
        weight = rng.integers(0, 3, (120, weight_axis)).astype(float)
        trials.append(Trial({"input": X}, y, weight))
    model.take_outputs(N_OUTPUTS)
    model.take_sizes(trials[0].data)
    model = model.sample_from_priors(random_state=1)
    loss = LOSSES[loss]() if isinstance(loss, str) else loss
    return Objective(model, trials, loss, np.arange(N_OUTPUTS) / 10)


def chosen(objective, numbers):
    mask = np.zeros(len(objective.component_share), dtype=bool)
    mask[list(numbers)] = True
    return mask


@pytest.mark.parametrize("weight_axis", [1, N_OUTPUTS])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("text", APART)
def test_part_has_the_losses_and_gradients_of_the_whole(text, loss, weight_axis):
    objective = make_objective(text, weight_axis, loss)
    assert len(objective.component_share) == N_OUTPUTS
    vector = objective.model.get_parameter_vector()
    values, gradient = objective.values_and_gradient(vector)
    for numbers in ([0], [3, 1], [0, 2, 4]):
        part = part_of(objective, chosen(objective, numbers))
        assert part.objective.n_outputs == len(numbers)
        of_part, slope = part.objective.values_and_gradient(vector[part.values])
        np.testing.assert_allclose(of_part, values[part.components], rtol=1e-12)
        np.testing.assert_allclose(slope, gradient[part.values], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(
            part.objective.last_errors, objective.last_errors[part.outputs], rtol=1e-12
        )
        bounds = objective.model.get_bounds_vector(), part.objective.model.get_bounds_vector()
        for whole, own in zip(*bounds, strict=True):
            np.testing.assert_array_equal(own, whole[part.values])


def test_part_of_a_model_keeps_frozen_parameters():
    objective = make_objective("wc.6x1x5-fir.3x1x5-dexp.5")
    objective.model.layers[1].freeze_parameters()
    objective.model.layers[2].freeze_parameters("base")
    objective = Objective(objective.model, objective.trials, objective.loss, objective.alpha)
    vector = objective.model.get_parameter_vector()
    part = part_of(objective, chosen(objective, [1, 3]))
    assert len(part.values) == 2 * (6 + 3)
    found = part.objective.values_and_gradient(vector[part.values])
    expected = objective.values_and_gradient(vector)
    np.testing.assert_allclose(found[0], expected[0][[1, 3]], rtol=1e-12)
    np.testing.assert_allclose(found[1], expected[1][part.values], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("text", TOGETHER)
def test_layers_that_do_not_come_apart_stay_whole(text):
    objective = make_objective(text)
    last = len(objective.component_share) - 1
    assert part_of(objective, chosen(objective, [last])) == Part(objective)


class Numbered(Layer):
    """Adds something to each channel that depends on how many there are."""

    def initial_parameters(self):
        return Phi(Parameter("gain", self.shape))

    def added(self):
        return np.arange(*self.shape)[::-1].copy()

    def evaluate(self, input):  # noqa: A002
        (gain,) = self.get_parameter_values("gain")
        return gain * input + (
            torch.from_numpy(self.added()) if torch.is_tensor(input) else self.added()
        )


class Fixed(Numbered):
    """Fails for another number of channels."""

    def added(self):
        return np.arange(N_OUTPUTS)

    def evaluate(self, input):  # noqa: A002
        return super().evaluate(input)


class Swapped(Numbered):
    """Output k is made of channel -k."""

    def evaluate(self, input):  # noqa: A002
        (gain,) = self.get_parameter_values("gain")
        return gain * input[:, list(range(len(gain)))[::-1]]


@pytest.mark.parametrize("layer", [Numbered, Fixed, Swapped])
def test_layer_of_a_user_stays_whole_if_fewer_channels_make_a_difference(layer):
    objective = make_objective([*from_keywords("wc.6x5"), layer(shape=(N_OUTPUTS,))])
    assert len(objective.component_share) == N_OUTPUTS
    assert part_of(objective, chosen(objective, [0, 1])) == Part(objective)


def test_loss_of_all_outputs_together_stays_whole():
    loss = FunctionLoss(lambda target, prediction, weight: (target - prediction).square().mean())
    objective = make_objective(APART[0], loss=loss)
    assert part_of(objective, np.ones(1, dtype=bool)) == Part(objective)


def test_fit_of_parts_takes_the_steps_of_the_whole(monkeypatch):
    """As long as rounding does not matter."""
    settings = FitSettings(max_iter=1000, tol=1e-9)

    def fitted():
        objective = make_objective("wc.6x1x5-fir.3x1x5-dexp.5")
        return LBFGS().fit(objective, settings, np.random.RandomState(0))

    sizes = []

    def counted(objective, active):
        part = part_of(objective, active)
        sizes.append(part.objective.n_outputs)
        return part

    monkeypatch.setattr(lbfgs, "part_of", counted)
    found = fitted()
    assert min(sizes) < N_OUTPUTS
    monkeypatch.setattr(lbfgs, "part_of", lambda objective, active: Part(objective))
    expected = fitted()
    assert found.n_evaluations == pytest.approx(expected.n_evaluations, rel=0.2)
    assert found.final_error == pytest.approx(expected.final_error, rel=1e-3)
    np.testing.assert_allclose(found.history[:40], expected.history[:40], rtol=1e-9)
