"""The epoch loop of all models that are trained by gradient descent."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from skdyn.core.distributed import (
    add_up,
    any_process,
    copy_first,
    is_first,
    share,
    sum_gradients,
)
from skdyn.core.runtime import is_host, make_adam

# Largest number of successive rollbacks of an epoch; each halves the learning rate.
MAX_HALVINGS = 10


class FitDivergedError(ArithmeticError):
    """The loss or gradient stayed non-finite after repeated halvings of the learning rate."""


class Objective(Protocol):
    """Interface of an objective that `train` minimises.

    If several processes share the training, each computes its `share` of the windows.
    """

    def training_terms(self, batch: Any, epoch: int) -> dict[str, Tensor]:
        """Return the terms of the loss; "loss" is differentiated.

        Means over the windows of a batch, or over those of this process.
        """

    def held_out_loss(self) -> float:
        """Return the loss that early stopping monitors, or this process's part of it, per epoch."""

    def begin_jitter(self) -> bool:
        """Return whether to repeat a non-finite epoch at the same learning rate, with jitter."""


class Watcher:
    """Receives a call before and after every step of a fit and can stop the training.

    The base class does nothing.
    """

    def begin(self) -> None:
        """Receive the call before a step."""

    def end(self, numbers: dict[str, float], weights: Any) -> bool:
        """Receive the result of a step.

        Parameters
        ----------
        numbers : dict of float
            The losses.
        weights : object
            Current weights, in the form in which a fit returns them. They change with the next
            step, so copy them to keep them.

        Returns
        -------
        bool
            Whether to stop after this step.
        """
        return False

    def earlier(self) -> dict[str, Any] | None:
        """Return the state of an interrupted training to resume from.

        Returns
        -------
        dict or None
            A state that `keep` received; None for a new training.
        """
        return None

    def resume(self, history: dict[str, list[float]]) -> None:
        """Receive the history of an interrupted training that is resumed.

        Parameters
        ----------
        history : dict of list
            One number per step and name.
        """

    def keep(self, state: Callable[[], dict[str, Any]], *, is_last: bool) -> None:
        """Receive the state after a step, once it is known whether the training stops.

        Parameters
        ----------
        state : callable
            Function that returns all that is needed to resume bit for bit: numbers, arrays,
            tensors, and containers of these.
        is_last : bool
            Whether the training stops after this step.
        """


NO_CALLBACK = Watcher()


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of `train`.

    Attributes
    ----------
    n_epochs : int
        Largest number of epochs.
    learning_rate : callable
        Learning-rate schedule: a function of the epoch, counted from zero.
    gradient_clip : float or None
        Largest norm of the gradient of each weight tensor.
    n_iter_no_change : int or None
        Epochs without progress after which training stops; None trains for all epochs without
        a held-out loss.
    tol : float
        Smallest decrease of the held-out loss that counts as progress.
    first_watched_epoch : int
        First epoch whose held-out loss counts.
    verbose : int
        Whether a progress bar is shown.
    label : str
        Label of the progress bar.
    advice : str
        Advice in the error message if training diverges.
    report : callable
        Function from the terms of an epoch to the numbers that are shown, recorded and passed to
        the watcher.
    watcher : Watcher
        Receives a call before and after every epoch; the weights are a state dict.
    """

    n_epochs: int
    learning_rate: Callable[[int], float]
    gradient_clip: float | None = None
    n_iter_no_change: int | None = None
    tol: float = 0.0
    first_watched_epoch: int = 0
    verbose: int = 0
    label: str = "fit"
    advice: str = "Try a smaller learning_rate."
    report: Callable[[dict[str, float]], dict[str, float]] = dict
    watcher: Watcher = NO_CALLBACK


@dataclass
class Training:
    """The result of the training.

    Attributes
    ----------
    history : dict of list
        One number per epoch and term, with "learning_rate" and "seconds".
    converged : bool
        Whether the held-out loss stopped improving within the budget.
    stopped : bool
        Whether the watcher stopped the training.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    converged: bool = False
    stopped: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the training ended before its budget."""
        return self.converged or self.stopped

    @property
    def n_epochs(self) -> int:
        """Number of epochs so far."""
        return max(map(len, self.history.values()), default=0)

    def append(self, **numbers: float) -> None:
        """Add one epoch.

        Parameters
        ----------
        **numbers : float
            One number per term.
        """
        for name, number in numbers.items():
            self.history.setdefault(name, []).append(float(number))


def exponential_decay(
    epoch: int, learning_rate: float, lr_decay: float, n_constant_epochs: int = 0
) -> float:
    """Learning rate that is held and then decays.

    Parameters
    ----------
    epoch : int
        Epoch, from zero.
    learning_rate : float
        Rate at the start.
    lr_decay : float
        Decay per epoch.
    n_constant_epochs : int, default=0
        Epochs before the decay begins.

    Returns
    -------
    float
        learning_rate exp(-lr_decay (epoch - n_constant_epochs + 1)), or learning_rate before.
    """
    if epoch < n_constant_epochs:
        return learning_rate
    return learning_rate * math.exp(-lr_decay * (epoch - n_constant_epochs + 1))


def linear_decay(epoch: int, learning_rate: float, n_epochs: int, n_constant_epochs: int) -> float:
    """Learning rate that is held and then falls in equal steps, to zero after the last epoch.

    Parameters
    ----------
    epoch : int
        Epoch, from zero.
    learning_rate : float
        Rate at the start.
    n_epochs : int
        Epochs in all.
    n_constant_epochs : int
        Epochs before the fall begins.

    Returns
    -------
    float
        learning_rate (n_epochs - epoch) / (n_epochs - n_constant_epochs), or learning_rate before.
    """
    if epoch <= n_constant_epochs:
        return learning_rate
    return learning_rate * (n_epochs - epoch) / (n_epochs - n_constant_epochs)


def train(
    module: nn.Module,
    objective: Objective,
    epoch_batches: Callable[[], Iterable[Sized]],
    settings: TrainingSettings,
) -> Training:
    """Minimise an objective with Adam.

    An epoch with a non-finite loss or gradient is rolled back, weights and optimiser state alike,
    and repeated at half the learning rate, or at the same rate if the objective adds jitter. With
    `n_iter_no_change`, the weights with the best held-out loss are restored at the end, also if a
    watcher stops the training.

    Processes that share the training (see `skdyn.core.distributed`) start from the weights of the
    first process, take the same steps and end with the same weights.

    Parameters
    ----------
    module : torch.nn.Module
        Module with the weights; trained in place and left in evaluation mode.
    objective : Objective
        Computes the loss of a batch and the held-out loss.
    epoch_batches : callable
        Function that returns the batches of one epoch; the length of a batch is its number of
        windows.
    settings : TrainingSettings
        Settings of the training.

    Returns
    -------
    Training
        The history, and whether training converged.

    Raises
    ------
    FitDivergedError
        If an epoch stays non-finite after 10 halvings of the learning rate.
    """
    run, watcher = _Run(module, objective, epoch_batches, settings), settings.watcher
    progress = _Progress()
    earlier = watcher.earlier()
    if earlier is not None:
        run.go_on(earlier["run"])
        progress = _Progress(**{**earlier["progress"], "training": Training(**earlier["training"])})
        watcher.resume(progress.training.history)
    training = progress.training
    silent = not settings.verbose or not is_first()
    with tqdm(
        total=settings.n_epochs,
        desc=settings.label,
        unit="epoch",
        disable=silent,
        initial=training.n_epochs,
    ) as bar:
        for epoch in range(training.n_epochs, settings.n_epochs):
            if training.is_over:
                break
            watcher.begin()
            start = time.perf_counter()
            terms = run.epoch(epoch)
            if settings.n_iter_no_change is not None:
                terms["validation_loss"] = run.held_out_loss()
            seconds = time.perf_counter() - start
            numbers = settings.report(terms)
            bar.set_postfix({name: f"{value:.4g}" for name, value in numbers.items()})
            bar.update()
            numbers |= {"learning_rate": run.learning_rate, "seconds": seconds}
            training.append(**numbers)
            progress.look_at(epoch, terms, module, settings)
            asked = watcher.end(numbers, progress.best_weights or module.state_dict())
            asked = any_process(asked, run.device)
            training.stopped = asked and not training.converged
            is_last = training.is_over or epoch + 1 == settings.n_epochs
            watcher.keep(lambda: {"run": run.whole(), **progress.whole()}, is_last=is_last)
    best_weights = progress.best_weights
    if best_weights is not None:
        module.load_state_dict(best_weights)
    elif not run.is_finite():
        run.restore(run.last_finite)
    copy_first(module)
    module.eval()
    return training


@dataclass
class _Progress:
    """State of early stopping."""

    training: Training = field(default_factory=Training)
    n_stale: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] | None = None

    def look_at(
        self, epoch: int, terms: dict[str, float], module: nn.Module, settings: TrainingSettings
    ) -> None:
        """Count epochs without progress, and keep the best weights."""
        patience = settings.n_iter_no_change
        if patience is None or epoch < settings.first_watched_epoch:
            return
        loss = terms["validation_loss"]
        self.n_stale = 0 if loss < self.best_loss - settings.tol else self.n_stale + 1
        if loss < self.best_loss:
            self.best_loss, self.best_weights = loss, _snapshot(module)
        self.training.converged = self.n_stale >= patience

    def whole(self) -> dict[str, Any]:
        """The whole state, as plain numbers and tensors."""
        own = {name: value for name, value in vars(self).items() if name != "training"}
        return {"progress": own, "training": vars(self.training)}


def _snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


# Numbers of a run that change from epoch to epoch.
_NUMBERS = ("n_halvings", "learning_rate", "last_loss")


class _Run:
    """A training in progress, which can roll back to the last finite state.

    Weights count as finite once an epoch that started from them was finite throughout; the
    weights after the last step of an epoch have not been checked yet.
    """

    def __init__(self, module, objective, epoch_batches, settings):
        self.module = module
        self.objective = objective
        self.epoch_batches = epoch_batches
        self.settings = settings
        self.weights = [w for w in module.parameters() if w.requires_grad]
        self.device = self.weights[0].device
        copy_first(module)
        # Keras' epsilon, not torch's 1e-8.
        self.optimizer = make_adam(self.weights, eps=1e-7, fused=True)
        self.n_halvings = 0
        self.learning_rate = settings.learning_rate(0)
        self.last_loss = math.nan
        self.last_finite = self._state()

    def _state(self):
        return _snapshot(self.module), copy.deepcopy(self.optimizer.state_dict())

    def restore(self, state) -> None:
        """Restore earlier weights and optimiser state."""
        weights, moments = state
        self.module.load_state_dict(weights)
        self.optimizer.load_state_dict(copy.deepcopy(moments))

    def whole(self) -> dict[str, Any]:
        """State from which another run can resume."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return {"state": self._state(), "last_finite": self.last_finite, **numbers}

    def go_on(self, earlier: dict[str, Any]) -> None:
        """Resume from the state of another run."""
        self.restore(earlier["state"])
        self.last_finite = earlier["last_finite"]
        for name in _NUMBERS:
            setattr(self, name, earlier[name])

    def held_out_loss(self) -> float:
        """Return the loss that early stopping monitors."""
        self.module.eval()
        return add_up([self.objective.held_out_loss()], self.device)[0]

    def is_finite(self) -> bool:
        """Return whether the loss at the current weights is finite."""
        return math.isfinite(self.held_out_loss())

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train for one epoch; roll back and repeat at half the rate if it is not finite."""
        start = self._state()
        for _ in range(MAX_HALVINGS + 1):
            self.learning_rate = self.settings.learning_rate(epoch) / 2**self.n_halvings
            terms = self._attempt(epoch)
            if terms is not None:
                self.last_finite, self.last_loss = start, terms["loss"]
                return terms
            self.restore(start)
            if not self.is_finite():
                # The last step of the previous epoch had already diverged.
                start = self.last_finite
                self.restore(start)
            self.n_halvings += not self.objective.begin_jitter()
        losses = "No epoch was finite"
        if math.isfinite(self.last_loss):
            losses = f"The last finite loss was {self.last_loss:.6g}"
        raise FitDivergedError(
            f"Training diverged in epoch {epoch}: the loss or its gradient is not finite even at "
            f"a learning rate of {self.learning_rate:.3g}. {losses}. {self.settings.advice}"
        )

    def _attempt(self, epoch: int) -> dict[str, float] | None:
        """Mean of each term over the windows of an epoch, or None if anything was not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.module.train()
        sums: dict[str, Tensor] = {}
        n_windows, finite = 0, None
        for batch in self.epoch_batches():
            own = share(len(batch))
            terms = self.objective.training_terms(batch, epoch)
            ok = self._step(terms["loss"], own.weight)
            if is_host(ok.device) and not bool(ok):
                return None
            finite = ok if finite is None else finite & ok
            n_windows += len(batch)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.detach() * own.n_counted
        if finite is not None and not bool(finite):
            return None
        totals = add_up(sums.values(), self.device)
        return {name: total / n_windows for name, total in zip(sums, totals, strict=True)}

    def _step(self, loss: Tensor, weight: float) -> Tensor:
        """Take one step; return whether the loss and its gradients were finite."""
        self.optimizer.zero_grad()
        loss.backward()
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        loss = sum_gradients(loss.detach(), gradients, weight)
        norms = torch.stack([gradient.norm() for gradient in gradients])
        if self.settings.gradient_clip is not None:
            # A limit beyond single precision has no effect.
            largest = min(self.settings.gradient_clip, torch.finfo(norms.dtype).max)
            _clip(gradients, norms, largest)
        self.optimizer.step()
        return torch.isfinite(loss) & torch.isfinite(norms).all()


def _clip(gradients: list[Tensor], norms: Tensor, largest: float) -> None:
    """Scale each weight tensor's own gradient, as Keras' clipnorm does."""
    for gradient, norm in zip(gradients, norms, strict=True):
        gradient.mul_(largest / norm.clamp_min(largest))
