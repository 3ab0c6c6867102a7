"""One epoch loop for every model that is trained by gradient steps."""

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

# How often in a row an epoch may be undone, its learning rate halved each time.
MAX_HALVINGS = 10


class FitDivergedError(ArithmeticError):
    """Training gave non-finite numbers again and again, at ever smaller learning rates."""


class Objective(Protocol):
    """What is minimised.

    Where several processes share the training, each computes its `share` of the windows.
    """

    def training_terms(self, batch: Any, epoch: int) -> dict[str, Tensor]:
        """Terms of the loss, with "loss" among them, to be differentiated.

        Means over the windows of a batch, or over those of this process.
        """

    def held_out_loss(self) -> float:
        """What early stopping watches, or what this process adds to it; called after each epoch."""

    def take_care(self) -> bool:
        """Tell, after an epoch that was not finite, if it is worth repeating at the same rate."""


class Watcher:
    """Who is told of each step of a fit, and may end it. This one never does."""

    def begin(self) -> None:
        """Hear that a step begins."""

    def end(self, numbers: dict[str, float], weights: Any) -> bool:
        """Hear what a step gave.

        Parameters
        ----------
        numbers : dict of float
            The losses.
        weights : object
            What would remain if this step was the last. It changes with the fit: who keeps it
            copies it.

        Returns
        -------
        bool
            Whether this step is to be the last.
        """
        return False

    def earlier(self) -> dict[str, Any] | None:
        """Give the state of an interrupted training to go on from.

        Returns
        -------
        dict or None
            What `keep` received; None to begin anew.
        """
        return None

    def resume(self, history: dict[str, list[float]]) -> None:
        """Take the history of the steps of an interrupted training that goes on.

        Parameters
        ----------
        history : dict of list
            One number per step and name.
        """

    def keep(self, state: Callable[[], dict[str, Any]], *, is_last: bool) -> None:
        """Receive the state after a step, once its end is decided.

        Parameters
        ----------
        state : callable
            Gives all that a training needs to go on to the same bits: numbers, arrays, tensors, and
            containers of these.
        is_last : bool
            Whether the training ends.
        """


NOBODY = Watcher()


@dataclass(frozen=True)
class TrainingSettings:
    """How an objective is minimised.

    Attributes
    ----------
    n_epochs : int
        Most epochs.
    learning_rate : callable
        Learning rate of an epoch, counted from zero.
    gradient_clip : float or None
        Largest norm of the gradient of each weight tensor.
    n_iter_no_change : int or None
        Epochs without progress after which training stops; None trains for all epochs and looks
        at nothing.
    tol : float
        Smallest decrease of the held-out loss that counts as progress.
    first_watched_epoch : int
        Epoch from which on the held-out loss counts.
    verbose : int
        Whether a progress bar is shown.
    label : str
        What the progress bar is called.
    advice : str
        What to try if training diverges.
    report : callable
        What is shown, recorded and told of an epoch, made of its terms.
    watcher : Watcher
        Who is told of each epoch; the weights are a state dict.
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
    watcher: Watcher = NOBODY


@dataclass
class Training:
    """What came of a training run.

    Attributes
    ----------
    history : dict of list
        One number per epoch and term, with "learning_rate" and "seconds".
    converged : bool
        Whether the held-out loss stopped moving within the budget.
    stopped : bool
        Whether the watcher ended it before that.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    converged: bool = False
    stopped: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it ended before its budget."""
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

    An epoch that meets a non-finite loss or gradient is undone, weights and optimiser alike, and
    repeated at half the learning rate, or at the same rate if the objective can take more care.
    With `n_iter_no_change`, the weights of the best held-out loss are the ones that remain, also
    where a watcher ends the training.

    Processes that share the training, see `skdyn.core.distributed`, start from the weights of the
    first, take the same steps, and end with the same weights.

    Parameters
    ----------
    module : torch.nn.Module
        Holds the weights; trained in place and left in evaluation mode.
    objective : Objective
        Gives the loss of a batch and the held-out loss.
    epoch_batches : callable
        Gives the batches of one epoch, each as long as it has windows.
    settings : TrainingSettings
        How to train.

    Returns
    -------
    Training
        The history, and whether training stopped by itself.

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
            told = settings.report(terms)
            bar.set_postfix({name: f"{value:.4g}" for name, value in told.items()})
            bar.update()
            told |= {"learning_rate": run.learning_rate, "seconds": seconds}
            training.append(**told)
            progress.look_at(epoch, terms, module, settings)
            asked = watcher.end(told, progress.best_weights or module.state_dict())
            asked = any_process(asked, run.device)
            training.stopped = asked and not training.converged
            is_last = training.is_over or epoch + 1 == settings.n_epochs
            watcher.keep(lambda: {"run": run.whole(), **progress.whole()}, is_last=is_last)
    best_weights = progress.best_weights
    if best_weights is not None:
        module.load_state_dict(best_weights)
    elif not run.stands():
        run.restore(run.good)
    copy_first(module)
    module.eval()
    return training


@dataclass
class _Progress:
    """What early stopping has seen of a training."""

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
        """All of it, as plain numbers and tensors."""
        own = {name: value for name, value in vars(self).items() if name != "training"}
        return {"progress": own, "training": vars(self.training)}


def _snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


# Numbers of a run that change from epoch to epoch.
_NUMBERS = ("n_halvings", "learning_rate", "last_loss")


class _Run:
    """A training under way, which can go back to weights that are known to be good.

    Weights are known to be good once an epoch that started from them was finite throughout; those
    that the last step of an epoch leaves behind are not, yet.
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
        self.good = self._state()

    def _state(self):
        return _snapshot(self.module), copy.deepcopy(self.optimizer.state_dict())

    def restore(self, state) -> None:
        """Go back to earlier weights and moments."""
        weights, moments = state
        self.module.load_state_dict(weights)
        self.optimizer.load_state_dict(copy.deepcopy(moments))

    def whole(self) -> dict[str, Any]:
        """All that another run needs to go on from here."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return {"state": self._state(), "good": self.good, **numbers}

    def go_on(self, earlier: dict[str, Any]) -> None:
        """Go on from where another run was."""
        self.restore(earlier["state"])
        self.good = earlier["good"]
        for name in _NUMBERS:
            setattr(self, name, earlier[name])

    def held_out_loss(self) -> float:
        """Give the loss that early stopping watches."""
        self.module.eval()
        return add_up([self.objective.held_out_loss()], self.device)[0]

    def stands(self) -> bool:
        """Tell whether the weights as they are give a finite loss."""
        return math.isfinite(self.held_out_loss())

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train for one epoch; if it is not finite, undo it and repeat it, at half the rate."""
        start = self._state()
        for _ in range(MAX_HALVINGS + 1):
            self.learning_rate = self.settings.learning_rate(epoch) / 2**self.n_halvings
            terms = self._attempt(epoch)
            if terms is not None:
                self.good, self.last_loss = start, terms["loss"]
                return terms
            self.restore(start)
            if not self.stands():
                # The last step of the epoch before had gone too far already.
                start = self.good
                self.restore(start)
            self.n_halvings += not self.objective.take_care()
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
        """Take one step and tell whether the loss and its gradients were finite."""
        self.optimizer.zero_grad()
        loss.backward()
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        loss = sum_gradients(loss.detach(), gradients, weight)
        norms = torch.stack([gradient.norm() for gradient in gradients])
        if self.settings.gradient_clip is not None:
            # A limit beyond single precision limits nothing.
            largest = min(self.settings.gradient_clip, torch.finfo(norms.dtype).max)
            _clip(gradients, norms, largest)
        self.optimizer.step()
        return torch.isfinite(loss) & torch.isfinite(norms).all()


def _clip(gradients: list[Tensor], norms: Tensor, largest: float) -> None:
    """Scale each weight tensor's own gradient, as Keras' clipnorm does."""
    for gradient, norm in zip(gradients, norms, strict=True):
        gradient.mul_(largest / norm.clamp_min(largest))
