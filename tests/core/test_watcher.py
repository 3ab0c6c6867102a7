"""Watchers of a training: calls at each epoch, and stopping of the training."""

import pytest
import torch
from torch import nn

from skdyn.core.training import NO_CALLBACK, TrainingSettings, Watcher, train


class Slope:
    """A loss that falls in a straight line, and held-out losses as they are given."""

    def __init__(self, module, held_out=()):
        self.module, self.held_out = module, iter(held_out)

    def training_terms(self, batch, epoch):
        return {"loss": self.module.weight.sum(), "part": 2 * self.module.weight.sum()}

    def held_out_loss(self):
        return next(self.held_out, 0.0)

    def begin_jitter(self):
        return False


class Notes(Watcher):
    """Records the numbers that it receives, and stops the training after some epoch."""

    def __init__(self, stop_after=None):
        self.stop_after, self.received, self.weights = stop_after, [], []

    def begin(self):
        assert len(self.weights) == len(self.received)
        self.received.append(None)

    def end(self, numbers, weights):
        assert self.received[-1] is None
        self.received[-1] = numbers
        self.weights.append(weights["weight"].item())
        return len(self.received) == self.stop_after


def run(watcher, held_out=(), **settings):
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    patience = len(held_out) or None
    settings = {"n_epochs": 5, "n_iter_no_change": patience} | settings
    settings = TrainingSettings(learning_rate=lambda epoch: 1.0, watcher=watcher, **settings)
    return module, train(module, Slope(module, held_out), lambda: [torch.zeros(1)], settings)


def test_every_epoch_is_told_as_it_is_recorded():
    notes = Notes()
    _, training = run(notes)
    for number, numbers in enumerate(notes.received):
        assert numbers == {name: values[number] for name, values in training.history.items()}
    assert len(notes.received) == 5
    # Each step of Adam is as long as its rate.
    assert notes.weights == pytest.approx([-1, -2, -3, -4, -5], rel=1e-5)
    assert not training.stopped
    assert not training.converged


def test_what_is_told_is_what_the_settings_make_of_it():
    notes = Notes()
    _, training = run(notes, report=lambda terms: {"half": terms["part"] / 4})
    assert set(notes.received[0]) == {"half", "learning_rate", "seconds"} == set(training.history)
    assert training.history["half"] == pytest.approx([0, -0.5, -1, -1.5, -2], abs=1e-5)


def test_a_watcher_ends_a_training():
    notes = Notes(stop_after=2)
    module, training = run(notes)
    assert training.stopped
    assert not training.converged
    assert len(notes.received) == len(training.history["loss"]) == 2
    assert module.weight.item() == pytest.approx(-2, rel=1e-5)
    assert not module.training


def test_the_best_weights_are_those_that_are_told_and_stay():
    notes = Notes(stop_after=3)
    module, training = run(notes, held_out=[2.0, 1.0, 3.0, 3.0])
    assert training.stopped
    assert notes.weights == pytest.approx([-1, -2, -2], rel=1e-5)
    assert module.weight.item() == pytest.approx(-2, rel=1e-5)


def test_a_training_that_ends_by_itself_was_not_stopped():
    notes = Notes(stop_after=2)
    _, training = run(notes, held_out=[1.0, 2.0, 2.0], n_iter_no_change=1)
    assert training.converged
    assert not training.stopped
    assert len(notes.received) == 2


def test_nobody_asks_for_nothing():
    _, training = run(NO_CALLBACK)
    assert len(training.history["loss"]) == 5
    assert NO_CALLBACK.begin() is None
    assert NO_CALLBACK.end({}, None) is False
