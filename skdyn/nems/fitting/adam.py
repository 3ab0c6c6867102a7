"""Adam on batches of windows of trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skdyn.core.distributed import gathered, n_processes, share
from skdyn.core.runtime import make_generator
from skdyn.core.training import (
    NO_CALLBACK,
    Training,
    TrainingSettings,
    Watcher,
    linear_decay,
    train,
)
from skdyn.nems.fitting.gradients import check_start, layer_not_followed, single_is_enough
from skdyn.nems.fitting.minimum import SMALL_DECREASE, promise_at_kinks, promised, promises
from skdyn.nems.fitting.objective import Group, Objective, tensors_of
from skdyn.nems.fitting.preconditioning import step_sizes
from skdyn.nems.fitting.results import (
    NO_PROGRESS,
    STOPPED,
    FitResults,
    Solver,
    nothing_to_fit,
)
from skdyn.nems.fitting.settings import FitSettings
from skdyn.nems.fitting.trials import cut_windows

# Number of windows per batch of predictions.
AT_ONCE = 64

# Number of windows per batch of losses without gradients.
WATCHED_AT_ONCE = 2048

# Largest size of inputs, in numbers, that are kept as tensors; others are read batch by batch.
KEPT_INPUTS = 2**24

ADVICE = "Try a smaller learning_rate, or look for channels of very different size."


class Adam(Solver):
    """Adam on batches of windows, with steps relative to typical sizes of the parameters."""

    name = "adam"
    unit = "epoch"
    shares_processes = True
    uses_batches = True

    def fit(
        self,
        objective: Objective,
        settings: FitSettings,
        random_state: np.random.RandomState,
        watcher: Watcher = NO_CALLBACK,
    ) -> FitResults:
        """Fit the model of an objective in place; see `Solver`."""
        model = objective.model
        start = np.clip(model.get_parameter_vector(), *model.get_bounds_vector())
        initial_error = check_start(objective, start)
        if not len(start):
            return nothing_to_fit(start, initial_error)
        windows = _windows(objective, start)
        values = _Values(start, step_sizes(objective, start), objective.device)
        training = _Training(windows, values, settings)
        generator = make_generator(random_state, torch.device("cpu"))
        options = TrainingSettings(
            n_epochs=settings.max_iter,
            learning_rate=lambda epoch: linear_decay(
                epoch, settings.learning_rate, settings.max_iter, 0
            ),
            n_iter_no_change=settings.n_iter_no_change,
            tol=0.5,  # in epochs with progress
            verbose=settings.verbose,
            advice=ADVICE,
            report=training.report,
            watcher=_Translator(watcher, training, generator),
        )
        training.held_out_loss()  # so that no component ends with a higher loss than at the start
        objective.__dict__.pop("groups", None)  # a copy of the response, recreated at the end
        done = train(values, training, lambda: training.batches(generator), options)
        found = training.best()
        converged, message, advice = training.verdict(done)
        return FitResults(
            initial_parameters=start,
            final_parameters=found,
            initial_error=initial_error,
            final_error=objective.error(found),
            n_iter=len(done.history["loss"]),
            n_evaluations=objective.n_evaluations + training.n_steps,
            converged=converged,
            stopped=done.stopped,
            message=message,
            advice=advice,
            exact_gradients=True,
            history=done.history["loss"],
            held_out_history=done.history.get("validation_loss", []),
        )


def _windows(objective: Objective, start: np.ndarray) -> Objective:
    """Return the objective on windows of the trials, if autograd can trace the model."""
    windows = Objective(
        objective.model,
        cut_windows(objective.model, objective.trials),
        objective.loss,
        objective.alpha,
        objective.device,
        sizes=objective.sizes,
        reach=objective.reach,
    )
    few = copy(windows)
    few.groups = [group.part(range(min(2, len(group.target)))) for group in windows.groups]
    name = layer_not_followed(few, start)
    if name is not None:
        raise ValueError(
            f"solver='adam' needs gradients, but torch cannot follow the layer {name!r}; use "
            "solver='lbfgs', or write its evaluate in plain arithmetic or with torch."
        )
    windows.is_looped = objective.is_looped = few.is_looped
    if single_is_enough(few, start):
        windows.groups = [group.of_type(torch.float32) for group in windows.groups]
        windows.held_out = [group.of_type(torch.float32) for group in windows.held_out]
    _keep_inputs(windows.groups)
    return windows


def _keep_inputs(groups: list[Group]) -> None:
    """Convert small inputs to tensors once, instead of once per batch."""
    given = [array for group in groups for data in group.given for array in data.values()]
    if sum(array.size for array in given) <= KEPT_INPUTS:
        for group in groups:
            _ = group.data  # which is cached


@dataclass(frozen=True)
class _Batch:
    """A batch of windows of equal length."""

    group: Group
    windows: list[int]

    def __len__(self) -> int:
        return len(self.windows)


class _Values(nn.Module):
    """The fitted values, in units of their sizes, as weights of a torch module."""

    def __init__(self, values: np.ndarray, sizes: np.ndarray, device: torch.device):
        super().__init__()
        self.origin = torch.tensor(values, dtype=torch.float64, device=device)
        self.sizes = torch.tensor(sizes, dtype=torch.float64, device=device)
        self.steps = nn.Parameter(torch.zeros_like(self.origin))

    def theta(self) -> Tensor:
        """The values."""
        return self.origin + self.sizes * self.steps

    def vector(self, steps: Tensor | None = None) -> np.ndarray:
        """The values as an array."""
        steps = self.steps if steps is None else steps
        return (self.origin + self.sizes * steps.detach()).cpu().numpy()


class _Bounds:
    """Bounds of the steps, for those values that have any."""

    def __init__(self, values: _Values, low: np.ndarray, high: np.ndarray):
        places = np.flatnonzero(np.isfinite(low) | np.isfinite(high))
        device = values.origin.device
        self.places = torch.from_numpy(places).to(device)
        ends = [torch.from_numpy(end[places]).to(device) for end in (low, high)]
        origin, sizes = values.origin[self.places], values.sizes[self.places]
        self.ends = [(end - origin) / sizes for end in ends]

    @torch.no_grad()
    def project(self, steps: Tensor) -> None:
        """Project steps onto their bounds, in place."""
        if len(self.places):
            steps[self.places] = steps[self.places].clamp(*self.ends)


class _Translator(Watcher):
    """Translates calls for a watcher that takes losses and parameter vectors."""

    def __init__(self, watcher: Watcher, training: _Training, generator: torch.Generator):
        self.watcher, self.training, self.generator = watcher, training, generator

    def begin(self) -> None:
        self.watcher.begin()

    def end(self, numbers: dict[str, float], weights: dict[str, Tensor]) -> bool:
        losses = {name: value for name, value in numbers.items() if name.endswith("loss")}
        return self.watcher.end(losses, self.training.best())

    def earlier(self) -> dict[str, Any] | None:
        earlier = self.watcher.earlier()
        if earlier is None:
            return None
        self.training.go_on(earlier["own"])
        self.generator.set_state(earlier["generator"])
        return earlier["loop"]

    def resume(self, history: dict[str, list[float]]) -> None:
        self.watcher.resume({n: values for n, values in history.items() if n.endswith("loss")})

    def keep(self, state: Callable[[], dict[str, Any]], *, is_last: bool) -> None:
        self.watcher.keep(
            lambda: {
                "own": self.training.whole(),
                "generator": self.generator.get_state(),
                "loop": state(),
            },
            is_last=is_last,
        )


_CHANGING = ("n_steps", "best_values", "best_steps", "n_stale", "n_improved", "watched_loss")


class _Training:
    """The objective of core's training loop; losses are relative to their size.

    Each component keeps the values of its own best epoch, and stops once it has made no progress
    for `n_iter_no_change` epochs, so that it does not depend on other components.
    """

    def __init__(self, objective: Objective, values: _Values, settings: FitSettings):
        self.objective, self.values, self.settings = objective, values, settings
        self.n_steps = 0
        self.n_windows = sum(len(group.target) for group in objective.groups)
        device = values.origin.device
        self.bounds = _Bounds(values, *objective.model.get_bounds_vector())
        self.penalty = torch.from_numpy(objective.value_penalty).to(device)
        self.raw_penalty = torch.from_numpy(objective.penalty).to(device)
        self.is_penalised = bool(objective.penalty.any()) or objective.coupling is not None
        self.coupling = _on_device(objective.value_coupling, device)
        self.raw_coupling = _on_device(objective.coupling, device)
        self.factors = torch.from_numpy(objective.factors).to(device)
        self.share = torch.from_numpy(objective.sizes.share).to(device)
        n_components = len(objective.component_share)
        self.best_values = np.full(n_components, np.inf)
        self.best_steps = values.steps.detach().clone()
        self.n_stale = np.zeros(n_components, dtype=int)
        self.n_improved = 0
        self.watched_loss = np.nan

    def whole(self) -> dict[str, Any]:
        """Return the complete state of the training."""
        own = {name: getattr(self, name) for name in _CHANGING}
        return {**own, "n_evaluations": self.objective.n_evaluations}

    def go_on(self, earlier: dict[str, Any]) -> None:
        """Restore a state returned by `whole`."""
        for name in _CHANGING:
            setattr(self, name, earlier[name])
        self.best_steps = self.best_steps.to(self.values.origin.device)
        self.objective.n_evaluations = earlier["n_evaluations"]

    def best(self) -> np.ndarray:
        """Return the values of the best epoch of each component."""
        low, high = self.objective.model.get_bounds_vector()
        return np.clip(self.values.vector(self.best_steps), low, high)

    def batches(self, generator: torch.Generator) -> Iterator[_Batch]:
        """Yield the batches of an epoch in random order."""
        size = self.settings.batch_size
        size = min(max(self.n_windows // 8, 1), 64) if size == "auto" else int(size)
        chosen = [
            _Batch(group, part.tolist())
            for group in self.objective.groups
            for part in torch.randperm(len(group.target), generator=generator).split(size)
        ]
        for number in torch.randperm(len(chosen), generator=generator).tolist():
            yield chosen[number]

    def report(self, terms: dict[str, float]) -> dict[str, float]:
        """Return the losses of an epoch in the units of the response."""
        if self.settings.early_stopping:
            return {"loss": terms["raw_loss"], "validation_loss": self.watched_loss}
        return {"loss": self.watched_loss}

    def project(self) -> None:
        """Project values onto their bounds."""
        self.bounds.project(self.values.steps)

    def training_terms(self, batch: _Batch, epoch: int) -> dict[str, Tensor]:
        """Return the loss of a batch with the penalty, summed over components."""
        self.project()
        self.n_steps += 1
        group, chosen = batch.group, batch.windows
        # So that the batches of an epoch together have the weights of the whole.
        part = group.part(chosen, group.share * self.n_windows / len(group.target))
        theta = self.values.theta()
        losses = self._losses(part, theta)
        loss, raw = self.factors @ losses, self.share @ losses.detach()
        if self.is_penalised:
            loss = loss + _squares(theta, self.penalty, self.coupling)
            raw = raw + _squares(theta.detach(), self.raw_penalty, self.raw_coupling)
        return {"loss": loss, "raw_loss": raw}

    def _watched_losses(self, group: Group) -> Tensor:
        """Return the losses of all windows, in batches if they are means over windows."""
        n_windows, theta = len(group.target), self.values.theta()
        if not self.objective.loss.is_per_output or n_processes() > 1:
            return self._losses(group, theta)
        parts = [
            range(first, min(first + WATCHED_AT_ONCE, n_windows))
            for first in range(0, n_windows, WATCHED_AT_ONCE)
        ]
        return torch.stack(
            [self._losses(group.part(p, group.share * len(p) / n_windows), theta) for p in parts]
        ).sum(dim=0)

    def _losses(self, group: Group, theta: Tensor) -> Tensor:
        """Return the losses of all windows, which need not be means over windows."""
        own = share(len(group.target))
        numbers = range(len(group.target))[own.rows]
        with tensors_of(self.objective.model, theta.to(group.target.dtype)):
            parts = [
                self.objective.predict(group.part(numbers[first : first + AT_ONCE]).data)
                for first in range(0, len(numbers), AT_ONCE)
            ]
            prediction = gathered(torch.cat(parts) if len(parts) > 1 else parts[0], own)
        return self.objective.losses(group, prediction).double()

    def held_out_loss(self) -> float:
        """Return minus the number of epochs with progress, for the patience of the loop.

        Progress refers to the held-out loss or, without held-out data, to the training loss with
        the penalty. In distributed training, each process adds its part.
        """
        self.project()
        objective = self.objective
        watched = objective.held_out or objective.groups
        with torch.no_grad():
            tensor = torch.as_tensor(sum(self._watched_losses(group) for group in watched))
            vector = self.values.vector() * (not objective.held_out)
        losses = tensor.cpu().numpy()
        error = float(objective.sizes.share @ losses)
        self.watched_loss = objective.with_penalty(error, vector)
        n_components = len(self.best_values)
        values = np.bincount(objective.component, objective.factors * losses, n_components)
        squares = objective.squares(vector)
        values += np.bincount(objective.component_of_value, squares, n_components)
        if not np.isfinite(values).all():
            return np.inf
        self._keep_best(values)
        return -self.n_improved / n_processes()

    def _keep_best(self, values: np.ndarray) -> None:
        is_open = self.n_stale < self.settings.n_iter_no_change
        better = is_open & (values < self.best_values)
        improved = is_open & (values < self.best_values - self.settings.tol)
        self.n_stale = np.where(improved, 0, self.n_stale + 1)
        self.n_improved += bool(improved.any())
        self.best_values = np.where(better, values, self.best_values)
        chosen = torch.from_numpy(better[self.objective.component_of_value])
        chosen = chosen.to(self.best_steps.device)
        self.best_steps = torch.where(chosen, self.values.steps.detach(), self.best_steps)

    def begin_jitter(self) -> bool:
        """Return False: an epoch that is not finite is repeated at half the learning rate."""
        return False

    def verdict(self, done: Training) -> tuple[bool, str, str]:
        """Return whether the fit has converged, why it stopped, and advice."""
        if done.stopped:
            return False, STOPPED, ""
        if not done.converged:
            return False, f"The loss still fell after max_iter={self.settings.max_iter} epochs", ""
        if self.settings.early_stopping:
            return True, NO_PROGRESS, ""
        small = max(SMALL_DECREASE, self.settings.n_iter_no_change * self.settings.tol)
        worst = float(self._promise(small).max())
        if worst <= small:
            return True, NO_PROGRESS, ""
        message = f"No epoch makes the loss smaller, but {promises(worst)}"
        return False, message, f"lower learning_rate={self.settings.learning_rate}"

    def _promise(self, small: float) -> np.ndarray:
        """Return the decrease of each component's loss that gradients predict."""
        objective, found = self.objective, self.best()
        bounds = np.stack(objective.model.get_bounds_vector(), axis=-1)
        sizes = step_sizes(objective, found)[:, np.newaxis]
        ends = (bounds - found[:, np.newaxis]) / sizes
        origin, component = np.zeros(len(found)), objective.component_of_value

        def gradient_at(step: np.ndarray) -> np.ndarray:
            gradient = self._gradient(np.clip(found + sizes[:, 0] * step, *bounds.T))
            at_bound = ((ends[:, 0] >= 0) & (gradient > 0)) | ((ends[:, 1] <= 0) & (gradient < 0))
            return np.where(at_bound, 0.0, gradient * sizes[:, 0])

        gradient = gradient_at(origin)
        promise = promised(origin, gradient, ends, component, len(self.best_values))
        return promise_at_kinks(promise, small, component, gradient_at)

    def _gradient(self, vector: np.ndarray) -> np.ndarray:
        """Return the gradient of the losses of all windows with the penalty, in batches."""
        objective = self.objective
        values = torch.from_numpy(vector).to(self.penalty.device)
        total = torch.from_numpy(objective.penalty_gradient(vector)).to(values.device)
        theta = values.requires_grad_()
        for group in objective.groups:
            parts = [part.tolist() for part in torch.arange(len(group.target)).split(AT_ONCE)]
            values = theta.detach().to(group.target.dtype)
            with torch.no_grad(), tensors_of(objective.model, values):
                pieces = [objective.predict(group.part(part).data) for part in parts]
                prediction = torch.cat(pieces)
            prediction.requires_grad_()
            losses = self.factors @ objective.losses(group, prediction).double()
            (slopes,) = torch.autograd.grad(losses, prediction)
            for part, slope in zip(parts, slopes.split(AT_ONCE), strict=True):
                with tensors_of(objective.model, theta.to(group.target.dtype)):
                    predicted = objective.predict(group.part(part).data)
                (gradient,) = torch.autograd.grad(predicted, theta, slope)
                total = total + gradient
        return total.detach().cpu().numpy()


def _on_device(matrix, device: torch.device) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return rows, columns and entries of a sparse matrix as tensors."""
    if matrix is None:
        return None
    found = matrix.tocoo()
    rows, columns = (torch.from_numpy(one.astype(np.int64)) for one in (found.row, found.col))
    return rows.to(device), columns.to(device), torch.from_numpy(found.data).to(device)


def _squares(
    theta: Tensor, penalty: Tensor, coupling: tuple[Tensor, Tensor, Tensor] | None
) -> Tensor:
    """Return the penalised squares of a loss."""
    squares = 0.5 * penalty @ theta**2
    if coupling is None:
        return squares
    rows, columns, entries = coupling
    return squares + 0.5 * (entries * theta[rows] * theta[columns]).sum()
