"""Checkpoints of fits from several starts, and continuation from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from skdyn.core.checkpoint import Checkpoint, Saver, load_together
from skdyn.core.training import Watcher
from skdyn.nems.fitting.results import FitResults
from skdyn.nems.model import Model


class Saving:
    """State of a fit: the finished starts and the current one.

    Parameters
    ----------
    checkpoint : Checkpoint or None
        Checkpoint to which states are written; None writes nothing.
    random_state : numpy.random.RandomState
        Source of all randomness of the fit; its state is restored if the fit continues.
    device : torch.device
        Device of the training.
    together : bool
        Whether several processes share the fit.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        random_state: np.random.RandomState,
        device: torch.device,
        *,
        together: bool,
    ):
        self.checkpoint, self.together = checkpoint, together
        if together or checkpoint is None:
            earlier = load_together(checkpoint, device)
        else:
            earlier = checkpoint.load()
        self.earlier: dict[str, Any] = earlier or {"done": [], "current": None, "training": None}
        if earlier is not None:
            random_state.set_state(earlier["random_state"])
        self.first_state = random_state.get_state(legacy=False)
        self.done: list[dict[str, Any]] = []
        self.current: dict[str, Any] | None = None

    def finished(self, number: int) -> FitResults | None:
        """Return the results of a start, if it is finished.

        Parameters
        ----------
        number : int
            Index of the start.

        Returns
        -------
        FitResults or None
            The results; None for an unfinished start.
        """
        if number >= len(self.earlier["done"]):
            return None
        one = self.earlier["done"][number]
        self.done.append(one)
        return FitResults(**one["results"])

    def models(self, model: Model) -> list[Model]:
        """Return a fitted copy of a model for each finished start.

        Parameters
        ----------
        model : Model
            The model.

        Returns
        -------
        list of Model
            The copies, with `results`.
        """
        found = []
        for number in range(len(self.earlier["done"])):
            one = model.copy()
            one.results = self.finished(number)
            assert one.results is not None
            one.set_parameter_vector(one.results.final_parameters, ignore_bounds=True)
            found.append(one)
        return found

    def begin(
        self,
        number: int,
        model: Model,
        set_start: Callable[[], None],
        source: np.random.RandomState,
    ) -> None:
        """Set the initial values of a start.

        Parameters
        ----------
        number : int
            Index of the start.
        model : Model
            The model; its values are changed.
        set_start : callable
            Function that sets initial values, called unless the checkpoint contains them.
        source : numpy.random.RandomState
            Source of randomness of this start; its state is restored if the start continues.
        """
        current = self.earlier["current"]
        if current is None or number != len(self.earlier["done"]):
            self.earlier |= {"training": None}
            set_start()
            vector = model.get_parameter_vector()
            current = {"start": vector, "random_state": source.get_state(legacy=False)}
        model.set_parameter_vector(current["start"], ignore_bounds=True)
        source.set_state(current["random_state"])
        self.current = current

    def watch(self, watcher: Watcher) -> Watcher:
        """Return a watcher that writes the state of a start and calls another watcher.

        Parameters
        ----------
        watcher : Watcher
            The other watcher.

        Returns
        -------
        Watcher
            A watcher that does both.
        """
        if self.checkpoint is None:
            return watcher
        training = self.earlier["training"]
        return Saver(watcher, self.checkpoint, training, self._whole, together=self.together)

    def end(self, results: FitResults) -> None:
        """Write the results of a start.

        Parameters
        ----------
        results : FitResults
            The results.
        """
        self.done.append({"results": vars(results)})
        self.current = None
        if self.checkpoint is not None:
            saver = Saver(Watcher(), self.checkpoint, None, self._whole, together=self.together)
            saver.write(None)

    def _whole(self, training: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "random_state": self.first_state,
            "done": self.done,
            "current": self.current,
            "training": training,
        }
