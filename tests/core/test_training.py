import math

import numpy as np
import pytest
import torch
from torch import nn

from skdyn.core.training import (
    MAX_HALVINGS,
    FitDivergedError,
    TrainingSettings,
    exponential_decay,
    linear_decay,
    train,
)
from skdyn.dynemo import training


class Weights(nn.Module):
    """Two tensors of weights, one that is not trained, and a buffer that moves."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.small = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=dtype))
        self.large = nn.Parameter(torch.tensor([[30.0, -40.0]], dtype=dtype))
        self.fixed = nn.Parameter(torch.ones(2, dtype=dtype), requires_grad=False)
        self.moved = nn.Buffer(torch.zeros(()))

    def vector(self):
        return torch.cat([self.small.detach(), self.large.detach().flatten()]).clone()


class Quadratic:
    """A badly scaled quadratic; a batch shifts its minimum."""

    def __init__(self, module, held_out=()):
        self.module = module
        self.held_out = list(held_out)
        self.seen = []
        self.epochs = []
        self.after_epoch = []

    def loss(self, batch):
        module = self.module
        scale = torch.tensor([1.0, 10.0, 0.1], dtype=module.small.dtype)
        shift = batch.mean().to(module.small.dtype)
        return (scale * (module.small - shift) ** 2).sum() + (module.large + shift).square().sum()

    def training_terms(self, batch, epoch):
        self.seen.append(self.module.vector())
        self.epochs.append(epoch)
        assert self.module.training
        loss = self.loss(batch)
        return {"loss": loss, "part": 0.25 * loss}

    def begin_jitter(self):
        return False

    def held_out_loss(self):
        assert not self.module.training
        self.after_epoch.append(self.module.vector())
        if not self.held_out:
            return float(self.loss(torch.zeros(1)).detach())
        return self.held_out[len(self.after_epoch) - 1]


BATCHES = [torch.full((4, 1), 0.3), torch.full((2, 1), -1.0), torch.full((1, 1), 2.0)]


def two_batches():
    return BATCHES[:2]


def constant(rate):
    return lambda epoch: rate


# Schedules.


@pytest.mark.parametrize("n_constant", [0, 1, 7])
def test_exponential_decay_against_the_loop_of_the_reference(n_constant):
    rate, factor = 0.01, math.exp(-0.07)
    current = rate
    for epoch in range(30):
        # The rate is held during annealing and falls by one factor an epoch from there on.
        if epoch >= n_constant:
            current *= factor
        found = exponential_decay(epoch, rate, 0.07, n_constant)
        assert found == pytest.approx(current, rel=1e-12, abs=0)


def test_first_epoch_has_decayed_once_without_annealing():
    assert exponential_decay(0, 1.0, 0.1) == pytest.approx(math.exp(-0.1), rel=1e-15)
    assert exponential_decay(5, 1.0, 0.0) == 1.0


@pytest.mark.parametrize(("n_epochs", "n_constant"), [(1, 0), (10, 0), (10, 4), (10, 9), (10, 10)])
def test_linear_decay_is_held_and_then_falls_in_equal_steps_to_zero(n_epochs, n_constant):
    rates = [linear_decay(epoch, 0.02, n_epochs, n_constant) for epoch in range(n_epochs)]
    assert rates[: n_constant + 1] == [0.02] * min(n_constant + 1, n_epochs)
    if n_constant < n_epochs:
        steps = -np.diff([*rates[n_constant:], 0.0])
        np.testing.assert_allclose(steps, 0.02 / (n_epochs - n_constant), rtol=1e-12)
    assert min(rates) > 0


def test_the_schedule_is_what_trains_and_what_is_recorded():
    rates = [0.1, 0.05, 0.2, 0.0]
    module = Weights()
    objective = Quadratic(module)
    training = train(
        module, objective, lambda: BATCHES[:1], TrainingSettings(4, learning_rate=rates.__getitem__)
    )
    assert training.history["learning_rate"] == rates
    # Adam's first step is the rate itself, against the sign of the gradient.
    first = objective.seen[1] - objective.seen[0]
    torch.testing.assert_close(first.abs(), torch.full((5,), 0.1).double(), rtol=1e-4, atol=0)
    assert torch.equal(module.vector(), objective.seen[3])


# Steps.


def reference_steps(clip, rates, batches):
    """Adam as in Kingma and Ba, with Keras' epsilon, each tensor's gradient clipped alone."""
    module = Weights()
    objective = Quadratic(module)
    tensors = [module.small, module.large]
    first = [np.zeros(t.shape) for t in tensors]
    second = [np.zeros(t.shape) for t in tensors]
    step = 0
    for rate in rates:
        for batch in batches:
            step += 1
            gradients = torch.autograd.grad(objective.loss(batch), tensors)
            for k, (tensor, gradient) in enumerate(zip(tensors, gradients, strict=True)):
                g = gradient.numpy()
                norm = np.sqrt((g**2).sum())
                if clip is not None and norm > clip:
                    g = g * clip / norm
                first[k] = 0.9 * first[k] + 0.1 * g
                second[k] = 0.999 * second[k] + 0.001 * g**2
                m, v = first[k] / (1 - 0.9**step), second[k] / (1 - 0.999**step)
                with torch.no_grad():
                    tensor -= torch.tensor(rate * m / (np.sqrt(v) + 1e-7))
    return module


@pytest.mark.parametrize("clip", [None, 1e-6, 3.0, 1e6])
def test_steps_are_adams_with_each_tensor_clipped_alone(clip):
    rates = [0.1, 0.05, 0.02, 0.01]
    module = Weights()
    train(
        module,
        Quadratic(module),
        two_batches,
        TrainingSettings(4, learning_rate=rates.__getitem__, gradient_clip=clip),
    )
    expected = reference_steps(clip, rates, two_batches())
    torch.testing.assert_close(module.vector(), expected.vector(), rtol=1e-9, atol=1e-9)
    assert torch.equal(module.fixed, torch.ones(2).double())


def test_steps_equal_torchs_adam_on_a_quadratic():
    module, other = Weights(), Weights()
    train(module, Quadratic(module), two_batches, TrainingSettings(20, constant(0.1)))
    optimizer = torch.optim.Adam(
        [other.small, other.large], lr=0.1, eps=1e-7, foreach=False, fused=False
    )
    for _ in range(20):
        for batch in two_batches():
            optimizer.zero_grad()
            Quadratic(other).loss(batch).backward()
            optimizer.step()
    torch.testing.assert_close(module.vector(), other.vector(), rtol=1e-9, atol=1e-9)


def test_weights_that_get_no_gradient_are_left_alone():
    module = Weights()
    before = module.large.detach().clone()

    class Partial(Quadratic):
        def loss(self, batch):
            return self.module.small.square().sum()

    train(
        module, Partial(module), two_batches, TrainingSettings(2, constant(0.1), gradient_clip=1.0)
    )
    assert torch.equal(module.large, before)
    assert not torch.equal(module.small, Weights().small)


# The record.


def test_the_record_has_one_number_per_epoch_and_weighs_batches_by_their_windows():
    module = Weights()
    objective = Quadratic(module)
    training = train(module, objective, lambda: iter(BATCHES), TrainingSettings(3, constant(0.0)))
    assert set(training.history) == {"loss", "part", "learning_rate", "seconds"}
    assert all(len(numbers) == 3 for numbers in training.history.values())
    assert all(type(n) is float for numbers in training.history.values() for n in numbers)
    assert all(seconds > 0 for seconds in training.history["seconds"])
    losses = [objective.loss(batch).item() for batch in BATCHES]
    expected = (4 * losses[0] + 2 * losses[1] + 1 * losses[2]) / 7
    assert training.history["loss"] == pytest.approx([expected] * 3, rel=1e-12)
    assert training.history["part"] == pytest.approx([expected / 4] * 3, rel=1e-12)
    assert objective.epochs == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert not training.converged
    assert not module.training


def test_single_precision_trains():
    module = Weights(torch.float32)
    training = train(module, Quadratic(module), two_batches, TrainingSettings(5, constant(0.1)))
    assert training.history["loss"][-1] < training.history["loss"][0]


@pytest.mark.parametrize("patience", [None, 2])
def test_nothing_is_printed_unless_asked_for(capfd, patience):
    module = Weights()
    objective = Quadratic(module, [3.0, 2, 1])
    train(
        module,
        objective,
        two_batches,
        TrainingSettings(3, constant(0.1), n_iter_no_change=patience),
    )
    assert capfd.readouterr() == ("", "")


def test_a_bar_is_shown_when_asked_for(capfd):
    module = Weights()
    train(
        module,
        Quadratic(module),
        two_batches,
        TrainingSettings(3, constant(0.1), verbose=1, label="the label"),
    )
    out, err = capfd.readouterr()
    assert out == ""
    assert "the label" in err
    assert "3/3" in err
    assert "loss=" in err


# Early stopping.


def stopped(held_out, **settings):
    module = Weights()
    objective = Quadratic(module, held_out)
    settings = {"n_epochs": len(held_out), "n_iter_no_change": 2} | settings
    training = train(
        module, objective, two_batches, TrainingSettings(learning_rate=constant(0.1), **settings)
    )
    assert (
        training.history["validation_loss"]
        == [float(n) for n in held_out][: len(training.history["loss"])]
    )
    return module, objective, training


def test_early_stopping_keeps_the_best_weights():
    module, objective, training = stopped([5, 3, 4, 3.5, 0, 0])
    assert training.converged
    assert len(training.history["loss"]) == 4
    assert torch.equal(module.vector(), objective.after_epoch[1])
    assert not torch.equal(objective.after_epoch[1], objective.after_epoch[3])


def test_best_weights_are_kept_though_the_budget_ends_first():
    module, objective, training = stopped([5, 1, 4], n_iter_no_change=5)
    assert not training.converged
    assert torch.equal(module.vector(), objective.after_epoch[1])


def test_progress_starts_the_count_anew():
    module, objective, training = stopped([5, 6, 4, 6, 3, 7, 8, 0])
    assert len(training.history["loss"]) == 7
    assert torch.equal(module.vector(), objective.after_epoch[4])


def test_a_decrease_below_tol_is_no_progress_but_its_weights_are_kept():
    module, objective, training = stopped([5, 4.95, 4.92, 0], tol=0.1)
    assert training.converged
    assert len(training.history["loss"]) == 3
    assert torch.equal(module.vector(), objective.after_epoch[2])


def test_epochs_before_the_first_watched_one_do_not_count():
    module, objective, training = stopped([0, 1, 2, 3, 9, 8, 9, 9, 0], first_watched_epoch=4)
    assert training.converged
    assert len(training.history["loss"]) == 8
    assert torch.equal(module.vector(), objective.after_epoch[5])


def test_a_non_finite_held_out_loss_is_never_the_best():
    module, objective, _ = stopped([5, math.nan, 4])
    assert torch.equal(module.vector(), objective.after_epoch[2])
    module, objective, _ = stopped([5, math.inf, math.inf])
    assert torch.equal(module.vector(), objective.after_epoch[0])


def test_without_patience_nothing_is_watched():
    module = Weights()
    objective = Quadratic(module)
    training = train(module, objective, two_batches, TrainingSettings(4, constant(0.1)))
    # Only the last step is looked at, which no later one would find out to have gone wrong.
    assert len(objective.after_epoch) == 1
    assert "validation_loss" not in training.history
    assert len(training.history["loss"]) == 4


# The divergence guard.


class Fragile(Quadratic):
    """Not finite as soon as a weight has moved by more than 0.2 within an epoch."""

    def training_terms(self, batch, epoch):
        if len(self.epochs) == 0 or self.epochs[-1] != epoch or batch is BATCHES[0]:
            self.origin = self.module.vector()
        terms = super().training_terms(batch, epoch)
        self.module.moved += 1
        if (self.module.vector() - self.origin).abs().max() > 0.2:
            return {name: term * math.nan for name, term in terms.items()}
        return terms


def test_a_diverged_epoch_is_undone_and_the_rate_halved():
    module = Weights()
    start = module.vector()
    objective = Fragile(module)
    training = train(module, objective, two_batches, TrainingSettings(3, constant(1.0)))
    # 1, 0.5 and 0.25 go too far; 0.125 does not, and stays.
    assert training.history["learning_rate"] == [0.125] * 3
    assert all(math.isfinite(loss) for loss in training.history["loss"])
    assert objective.epochs == [0] * 8 + [1, 1, 2, 2]
    for attempt in range(4):
        assert torch.equal(objective.seen[2 * attempt], start)
    # Buffers are undone as well: six batches count, not twelve.
    assert int(module.moved) == 6


class Cliff(Quadratic):
    """Falls off where a weight is larger than 60: a step may end there without being noticed."""

    def loss(self, batch):
        return super().loss(batch) + (60 - self.module.large).log().sum() * 0


@pytest.mark.parametrize("n_epochs", [1, 2, 3])
def test_a_last_step_that_went_too_far_is_found_and_undone(n_epochs):
    module = Weights()
    start = module.vector()
    # One batch an epoch: the first step goes from 30 to beyond 60.
    far = TrainingSettings(n_epochs, constant(-40.0))
    training = train(module, Cliff(module), lambda: BATCHES[:1], far)
    assert all(math.isfinite(loss) for loss in training.history["loss"])
    assert math.isfinite(Cliff(module).loss(BATCHES[0]).item())
    if n_epochs == 1:
        assert torch.equal(module.vector(), start)
    else:
        assert training.history["learning_rate"][1] > -40.0


def spoiled(attempts, how):
    """A quadratic with a non-finite second batch of epoch 2 in that many attempts."""

    class Spoiled(Quadratic):
        left = attempts

        def training_terms(self, batch, epoch):
            terms = super().training_terms(batch, epoch)
            if epoch == 2 and batch is BATCHES[1] and self.left:
                self.left -= 1
                terms["loss"] = how(terms["loss"], self.module)
            return terms

    return Spoiled


SPOILS = {
    "nan": lambda loss, module: loss * math.nan,
    "inf": lambda loss, module: loss + math.inf,
    # The loss is finite; its gradient is not.
    "gradient": lambda loss, module: (
        loss + (module.small - module.small.detach()).abs().sqrt().sum()
    ),
}


@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_after_an_undone_epoch_training_goes_on_as_if_it_had_not_been(how, clip):
    module, other = Weights(), Weights()
    training = train(
        module,
        spoiled(2, SPOILS[how])(module),
        two_batches,
        TrainingSettings(5, constant(0.4), gradient_clip=clip),
    )
    rates = [0.4, 0.4, 0.1, 0.1, 0.1]
    assert training.history["learning_rate"] == rates
    expected = train(
        other,
        Quadratic(other),
        two_batches,
        TrainingSettings(5, rates.__getitem__, gradient_clip=clip),
    )
    # Weights and moments of the optimiser alike.
    assert torch.equal(module.vector(), other.vector())
    assert training.history["loss"] == expected.history["loss"]


@pytest.mark.parametrize("how", SPOILS)
def test_endless_divergence_is_an_error_that_says_what_to_try(how):
    module = Weights()
    objective = spoiled(math.inf, SPOILS[how])(module)
    reached = []

    class Noting(type(objective)):
        def training_terms(self, batch, epoch):
            if epoch == 2 and batch is BATCHES[0]:
                reached.append(self.module.vector())
            return super().training_terms(batch, epoch)

    objective.__class__ = Noting
    with pytest.raises(FitDivergedError) as caught:
        train(module, objective, two_batches, TrainingSettings(5, constant(0.4)))
    assert len(reached) == MAX_HALVINGS + 1
    assert torch.equal(module.vector(), reached[0])
    expected = Weights()
    training = train(expected, Quadratic(expected), two_batches, TrainingSettings(2, constant(0.4)))
    message = str(caught.value)
    assert "in epoch 2" in message
    assert f"last finite loss was {training.history['loss'][-1]:.6g}" in message
    assert f"{0.4 / 2**MAX_HALVINGS:.3g}" in message
    assert message.endswith("Try a smaller learning_rate.")
    assert torch.equal(expected.vector(), reached[0])


def test_divergence_from_the_first_epoch_on_says_that_none_was_finite():
    class Hopeless(Quadratic):
        def loss(self, batch):
            return super().loss(batch) * math.nan

    module = Weights()
    with pytest.raises(FitDivergedError, match=r"epoch 0: .* No epoch was finite"):
        train(module, Hopeless(module), two_batches, TrainingSettings(5, constant(0.4)))
    assert torch.equal(module.vector(), Weights().vector())
    assert issubclass(FitDivergedError, ArithmeticError)


def test_what_to_try_is_what_the_caller_says():
    module = Weights()
    settings = TrainingSettings(5, constant(0.4), advice="Sit down and think.")
    with pytest.raises(FitDivergedError, match=r"\. Sit down and think\.$"):
        train(module, spoiled(math.inf, SPOILS["nan"])(module), two_batches, settings)


def test_dynemo_says_what_to_try(small_dynemo, recording, monkeypatch):
    def diverge(module, objective, epoch_batches, settings):
        raise FitDivergedError(settings.advice)

    monkeypatch.setattr(training, "train", diverge)
    with pytest.raises(FitDivergedError) as caught:
        small_dynemo().fit(recording)
    for remedy in ("learning_rate", "gradient_clip", "covariances_epsilon", "duplicated channels"):
        assert remedy in str(caught.value)


def test_an_objective_that_can_take_more_care_keeps_its_rate():
    class Careful(Quadratic):
        careful = False

        def training_terms(self, batch, epoch):
            terms = super().training_terms(batch, epoch)
            broken = epoch == 2 and not self.careful
            return {name: term * np.nan if broken else term for name, term in terms.items()}

        def begin_jitter(self):
            before, self.careful = self.careful, True
            return not before

    plain, careful = Weights(), Weights()
    settings = TrainingSettings(n_epochs=5, learning_rate=lambda epoch: 0.1)
    first = train(plain, Quadratic(plain), lambda: [torch.ones(2)], settings)
    second = train(careful, Careful(careful), lambda: [torch.ones(2)], settings)
    assert first.history["loss"] == second.history["loss"]
    assert second.history["learning_rate"] == [0.1] * 5
