"""Adam, on batches of trials or of windows of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
from skdyn.nems.layers.base import Layer
from skdyn.nems.lbfgs import STOPPED, FitResults, layer_not_followed
from skdyn.nems.objective import Group, Objective, Trial, tensors_of

if TYPE_CHECKING:
    from skdyn.nems.model import Model

# Rows of a window that count in its loss.
WINDOW = 256

ADVICE = "Try a smaller learning_rate, or look for channels of very different size."


def cut_windows(model: Model, trials: Sequence[Trial]) -> list[Trial]:
    """Cut trials into windows of one length, in which each row counts once.

    Rows that come before those of a window go in with it, without weight, as the history that
    filters see. Trials stay whole if the history of a layer is not known, or the future counts.

    Parameters
    ----------
    model : Model
        Whose layers say how far back they look.
    trials : sequence of Trial
        A recording.

    Returns
    -------
    list of Trial
        The windows.
    """
    if not all(map(_says_its_past, model.layers)):
        return list(trials)
    size = model.n_past + WINDOW
    windows = []
    for trial in trials:
        n_samples = len(trial.target)
        if n_samples <= size:
            windows.append(trial)
            continue
        done = 0
        while done < n_samples:
            start = max(0, min(done - model.n_past, n_samples - size))
            rows = slice(start, start + size)
            counts = (np.arange(n_samples)[rows] >= done)[:, np.newaxis]
            windows.append(
                replace(
                    trial,
                    data={name: array[rows] for name, array in trial.data.items()},
                    target=trial.target[rows],
                    weight=counts * trial.weight[rows],
                    held_out=None if trial.held_out is None else counts * trial.held_out[rows],
                )
            )
            done = start + size
    return windows


def _says_its_past(layer: Layer) -> bool:
    own = type(layer).__module__.startswith("skdyn.") or type(layer).n_past is not Layer.n_past
    return own and not getattr(layer, "include_anticausal", False)


@dataclass(frozen=True)
class _Batch:
    """Some windows of one length."""

    group: Group
    windows: Tensor

    def __len__(self) -> int:
        return len(self.windows)


class _Values(nn.Module):
    """The values that are fitted, as weights of a torch module."""

    def __init__(self, values: np.ndarray, device: torch.device):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(values, dtype=torch.float64, device=device))


class _Translator(Watcher):
    """Tells another watcher, who knows losses and vectors of parameters."""

    def __init__(self, watcher: Watcher):
        self.watcher = watcher

    def begin(self) -> None:
        self.watcher.begin()

    def end(self, numbers: dict[str, float], weights: dict[str, Tensor]) -> bool:
        losses = {name: value for name, value in numbers.items() if name.endswith("loss")}
        return self.watcher.end(losses, weights["theta"].cpu().numpy())


class _Training:
    """What core's loop asks for; losses are in units of the objective's scale."""

    def __init__(self, objective: Objective, values: _Values):
        self.objective, self.values = objective, values
        self.n_steps = 0
        self.n_windows = sum(len(group.target) for group in objective.groups)
        bounds = objective.model.get_bounds_vector()
        self.bounds = [torch.from_numpy(end).to(values.theta) for end in bounds]
        self.penalty = torch.from_numpy(objective.penalty).to(values.theta)

    def project(self) -> None:
        """Put values back into their bounds."""
        with torch.no_grad():
            self.values.theta.clamp_(*self.bounds)

    def training_terms(self, batch: _Batch, epoch: int) -> dict[str, Tensor]:
        """Loss of a batch, with the penalty."""
        self.project()
        self.n_steps += 1
        group, chosen = batch.group, batch.windows
        part = Group(
            {name: array[chosen] for name, array in group.data.items()},
            group.target[chosen],
            group.weight[chosen],
        )
        # So that all batches together weigh each number as the whole does.
        share = group.share * self.n_windows / len(group.target)
        return {"loss": share * self._loss(part) + self._penalty()}

    def _loss(self, group: Group) -> Tensor:
        """Loss of all windows, which is not always a mean over them."""
        own = share(len(group.target))
        data = {name: array[own.rows] for name, array in group.data.items()}
        with tensors_of(self.objective.model, self.values.theta):
            prediction = gathered(self.objective.predict(data), own)
        return self.objective.loss_of(group, prediction) / self.objective.scale

    def _penalty(self) -> Tensor:
        return 0.5 * (self.penalty * self.values.theta**2).sum() / self.objective.scale

    def held_out_loss(self) -> float:
        """Loss of what is held out, or of everything, with the penalty, if nothing is.

        All processes that share the training compute it, so each adds its part.
        """
        self.project()
        watched = self.objective.held_out or self.objective.groups
        with torch.no_grad():
            total = sum(float(group.share * self._loss(group)) for group in watched)
            total += 0.0 if self.objective.held_out else float(self._penalty())
        return total / n_processes()

    def take_care(self) -> bool:
        """An epoch that is not finite is repeated at half the rate."""
        return False


def fit_adam(
    objective: Objective,
    trials: Sequence[Trial],
    *,
    max_iter: int,
    tol: float,
    n_iter_no_change: int,
    batch_size: int | str,
    learning_rate: float,
    random_state: np.random.RandomState,
    verbose: int = 0,
    watcher: Watcher = NOBODY,
) -> FitResults:
    """Fit the model of an objective in place with Adam, within its bounds.

    Parameters
    ----------
    objective : Objective
        The loss; its model is fitted from its present values.
    trials : sequence of Trial
        What it was made of.
    max_iter : int
        Most epochs, over which the learning rate falls to zero.
    tol : float
        Smallest decrease that counts as progress, relative to the loss of a constant prediction.
    n_iter_no_change : int
        Epochs without progress, on what is held out or, if nothing is, on everything, after which
        the fit stops. The best values stay.
    batch_size : int or "auto"
        Windows per step; "auto" is an eighth of them, but from 1 to 64.
    learning_rate : float
        Step size at the start.
    random_state : RandomState
        Order of the windows.
    verbose : int, default=0
        Whether a progress bar is shown.
    watcher : Watcher, default=NOBODY
        Who is told of each epoch, and may end the fit; the weights are a vector of parameters.

    Returns
    -------
    FitResults
        What came of it.
    """
    model, device = objective.model, objective.device
    low, high = model.get_bounds_vector()
    start = np.clip(model.get_parameter_vector(), low, high)
    initial_error = objective.error(start)
    _require_gradients(model, objective, start)
    windows = Objective(model, cut_windows(model, trials), objective.loss, objective.alpha, device)
    values = _Values(start, device)
    training = _Training(windows, values)
    generator = make_generator(random_state, torch.device("cpu"))
    size = min(max(training.n_windows // 8, 1), 64) if batch_size == "auto" else int(batch_size)

    def batches() -> Iterator[_Batch]:
        chosen = [
            _Batch(group, part.to(device))
            for group in windows.groups
            for part in torch.randperm(len(group.target), generator=generator).split(size)
        ]
        for number in torch.randperm(len(chosen), generator=generator).tolist():
            yield chosen[number]

    def report(terms: dict[str, float]) -> dict[str, float]:
        loss, watched = (objective.scale * terms[name] for name in ("loss", "validation_loss"))
        return (
            {"loss": loss, "validation_loss": watched} if objective.held_out else {"loss": watched}
        )

    settings = TrainingSettings(
        n_epochs=max_iter,
        learning_rate=lambda epoch: linear_decay(epoch, learning_rate, max_iter, 0),
        n_iter_no_change=n_iter_no_change,
        tol=tol,
        verbose=verbose,
        advice=ADVICE,
        report=report,
        watcher=_Translator(watcher),
    )
    done = train(values, training, batches, settings)
    training.project()
    found = values.theta.detach().cpu().numpy()
    return FitResults(
        initial_parameters=start,
        final_parameters=found,
        initial_error=initial_error,
        final_error=objective.error(found),
        n_iter=len(done.history["loss"]),
        n_evaluations=objective.n_evaluations + training.n_steps,
        converged=done.converged,
        stopped=done.stopped,
        message=_why(done),
        exact_gradients=True,
        history=done.history["loss"],
        held_out_history=done.history.get("validation_loss", []),
    )


def _why(done: Training) -> str:
    if done.converged:
        return "The loss does not fall any more."
    return STOPPED if done.stopped else "Out of epochs."


def _require_gradients(model: Model, objective: Objective, start: np.ndarray) -> None:
    name = layer_not_followed(model, objective, start)
    if name is not None:
        raise ValueError(
            f"Got solver='adam' and the layer {name!r}, which torch cannot follow, expected layers "
            "with gradients; use solver='lbfgs', or write evaluate in plain arithmetic or with "
            "torch."
        )
