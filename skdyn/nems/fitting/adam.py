"""Adam, on batches of trials or of windows of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from skdyn.core.distributed import gathered, n_processes, share
from skdyn.core.runtime import make_generator
from skdyn.core.training import (
    NOBODY,
    Training,
    TrainingSettings,
    Watcher,
    linear_decay,
    train,
)
from skdyn.nems.fitting.gradients import layer_not_followed
from skdyn.nems.fitting.objective import Group, Objective, tensors_of
from skdyn.nems.fitting.preconditioning import step_sizes
from skdyn.nems.fitting.results import NO_PROGRESS, STOPPED, FitResults, Solver
from skdyn.nems.fitting.settings import FitSettings
from skdyn.nems.fitting.trials import cut_windows

ADVICE = "Try a smaller learning_rate, or look for channels of very different size."


class Adam(Solver):
    """Adam on batches of windows, in steps relative to the usual sizes of the parameters."""

    name = "adam"
    unit = "epoch"
    shares_processes = True
    uses_batches = True

    def fit(
        self,
        objective: Objective,
        settings: FitSettings,
        random_state: np.random.RandomState,
        watcher: Watcher = NOBODY,
    ) -> FitResults:
        """Fit the model of an objective in place; see `Solver`."""
        model = objective.model
        low, high = model.get_bounds_vector()
        start = np.clip(model.get_parameter_vector(), low, high)
        initial_error = objective.error(start)
        _require_gradients(objective, start)
        windows = Objective(
            model,
            cut_windows(model, objective.trials),
            objective.loss,
            objective.alpha,
            objective.device,
            sizes=objective.sizes,
            reach=objective.reach,
        )
        windows.is_looped = objective.is_looped
        values = _Values(start, step_sizes(objective, start), objective.device)
        training = _Training(windows, values)
        generator = make_generator(random_state, torch.device("cpu"))
        n_windows = training.n_windows
        size = settings.batch_size
        size = min(max(n_windows // 8, 1), 64) if size == "auto" else int(size)

        def batches() -> Iterator[_Batch]:
            chosen = [
                _Batch(group, part.to(objective.device))
                for group in windows.groups
                for part in torch.randperm(len(group.target), generator=generator).split(size)
            ]
            for number in torch.randperm(len(chosen), generator=generator).tolist():
                yield chosen[number]

        def report(terms: dict[str, float]) -> dict[str, float]:
            if settings.early_stopping:
                return {"loss": terms["raw_loss"], "validation_loss": training.watched}
            return {"loss": training.watched}

        options = TrainingSettings(
            n_epochs=settings.max_iter,
            learning_rate=lambda epoch: linear_decay(
                epoch, settings.learning_rate, settings.max_iter, 0
            ),
            n_iter_no_change=settings.n_iter_no_change,
            tol=settings.tol,
            verbose=settings.verbose,
            advice=ADVICE,
            report=report,
            watcher=_Translator(watcher, values),
        )
        done = train(values, training, batches, options)
        training.project()
        found = values.vector()
        return FitResults(
            initial_parameters=start,
            final_parameters=found,
            initial_error=initial_error,
            final_error=objective.error(found),
            n_iter=len(done.history["loss"]),
            n_evaluations=objective.n_evaluations + training.n_steps,
            converged=done.converged,
            stopped=done.stopped,
            message=_why(done, settings.max_iter),
            exact_gradients=True,
            history=done.history["loss"],
            held_out_history=done.history.get("validation_loss", []),
        )


@dataclass(frozen=True)
class _Batch:
    """Some windows of one length."""

    group: Group
    windows: Tensor

    def __len__(self) -> int:
        return len(self.windows)


class _Values(nn.Module):
    """The values that are fitted, in units of their sizes, as weights of a torch module."""

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


class _Translator(Watcher):
    """Calls another watcher, which takes losses and vectors of parameters."""

    def __init__(self, watcher: Watcher, values: _Values):
        self.watcher, self.values = watcher, values

    def begin(self) -> None:
        self.watcher.begin()

    def end(self, numbers: dict[str, float], weights: dict[str, Tensor]) -> bool:
        losses = {name: value for name, value in numbers.items() if name.endswith("loss")}
        return self.watcher.end(losses, self.values.vector(weights["steps"]))


class _Training:
    """The objective of core's training loop; losses are relative to their size."""

    def __init__(self, objective: Objective, values: _Values):
        self.objective, self.values = objective, values
        self.n_steps = 0
        self.n_windows = sum(len(group.target) for group in objective.groups)
        device = values.origin.device
        ends = [torch.from_numpy(end).to(device) for end in objective.model.get_bounds_vector()]
        self.bounds = [(end - values.origin) / values.sizes for end in ends]
        self.penalty = torch.from_numpy(objective.value_penalty).to(device)
        self.raw_penalty = torch.from_numpy(objective.penalty).to(device)
        # A mean over components, so that `tol` is relative to the loss of one.
        weight = objective.component_share
        self.factors = torch.from_numpy(objective.factors * weight[objective.component]).to(device)
        self.penalty *= torch.from_numpy(weight[objective.component_of_value]).to(device)
        self.share = torch.from_numpy(objective.sizes.share).to(device)
        self.watched = np.nan

    def project(self) -> None:
        """Put values back into their bounds."""
        with torch.no_grad():
            self.values.steps.clamp_(*self.bounds)

    def training_terms(self, batch: _Batch, epoch: int) -> dict[str, Tensor]:
        """Loss of a batch, with the penalty."""
        self.project()
        self.n_steps += 1
        group, chosen = batch.group, batch.windows
        # So that all batches together weigh each number as the whole does.
        part = Group(
            {name: array[chosen] for name, array in group.data.items()},
            group.target[chosen],
            group.weight[chosen],
            group.share * self.n_windows / len(group.target),
        )
        losses, theta = self._losses(part), self.values.theta()
        with torch.no_grad():
            raw = self.share @ losses + 0.5 * (self.raw_penalty * theta**2).sum()
        loss = self.factors @ losses + 0.5 * (self.penalty * theta**2).sum()
        return {"loss": loss, "raw_loss": raw}

    def _losses(self, group: Group) -> Tensor:
        """Losses of all windows, which are not always means over them."""
        own = share(len(group.target))
        data = {name: array[own.rows] for name, array in group.data.items()}
        with tensors_of(self.objective.model, self.values.theta()):
            prediction = gathered(self.objective.predict(data), own)
        return self.objective.losses(group, prediction)

    def held_out_loss(self) -> float:
        """Loss of what is held out, or of everything, with the penalty, if nothing is.

        All processes that share the training compute it, so each adds its part.
        """
        self.project()
        watched = self.objective.held_out or self.objective.groups
        with torch.no_grad():
            losses = sum(self._losses(group) for group in watched)
            squares = self.values.theta() ** 2 * (not self.objective.held_out)
            total = self.factors @ losses + 0.5 * self.penalty @ squares
            self.watched = float(self.share @ losses + 0.5 * self.raw_penalty @ squares)
        return float(total) / n_processes()

    def take_care(self) -> bool:
        """An epoch that is not finite is repeated at half the rate."""
        return False


def _why(done: Training, max_iter: int) -> str:
    if done.converged:
        return NO_PROGRESS
    return STOPPED if done.stopped else f"The loss still fell after max_iter={max_iter} epochs"


def _require_gradients(objective: Objective, start: np.ndarray) -> None:
    name = layer_not_followed(objective, start)
    if name is not None:
        raise ValueError(
            f"solver='adam' needs gradients, but torch cannot follow the layer {name!r}; use "
            "solver='lbfgs', or write its evaluate in plain arithmetic or with torch."
        )
