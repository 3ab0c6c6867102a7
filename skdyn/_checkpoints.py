"""Checkpoints of estimators and models: opening, closing, and the identity of a fit."""

from __future__ import annotations

import sys
from numbers import Integral
from os import PathLike
from typing import Any

from skdyn._sklearn import Interval, clone_parametrized
from skdyn._warnings import warn
from skdyn.core.checkpoint import Checkpoint, describe

__all__ = ["CHECKPOINT_CONSTRAINTS", "CheckpointMixin", "close_checkpoint", "open_checkpoint"]

CHECKPOINT_CONSTRAINTS: dict[str, list] = {
    "checkpoint": [str, PathLike, None],
    "checkpoint_every": [Interval(Integral, 1, None, closed="left")],
}

# Parameters that do not change the result of a fit.
_WITHOUT_EFFECT = ("checkpoint", "checkpoint_every", "verbose")


def _version() -> str:
    # Imported from here, the package and this file would import each other.
    return sys.modules[__package__].__version__


def open_checkpoint(
    kind: str,
    parameters: dict[str, Any],
    data: dict[str, Any],
    before: Any = None,
    *,
    is_clone: bool = False,
) -> Checkpoint | None:
    """Open the checkpoint of a fit.

    Parameters
    ----------
    kind : str
        Name of the class that is fitted.
    parameters : dict
        All parameters of the fit; `checkpoint`, the folder, and `checkpoint_every` among them.
    data : dict
        Data of the fit, by name; None if not given.
    before : object, default=None
        The fit that this one continues.
    is_clone : bool, default=False
        Whether other fits share the folder.

    Returns
    -------
    Checkpoint or None
        The checkpoint; None if the parameter `checkpoint` is None.

    Raises
    ------
    ValueError
        If fits share the folder and have no seed.
    """
    if parameters["checkpoint"] is None:
        return None
    identity = {"estimator": kind, "version of skdyn": _version()}
    identity |= {
        name: describe(value)
        for name, value in (parameters | data).items()
        if name not in _WITHOUT_EFFECT and value is not None
    }
    if before is not None:
        identity["the fit before"] = describe(before)
    name = "fit"
    if before is not None or is_clone:
        if before is None and parameters["random_state"] is None:
            raise ValueError(
                "checkpoint needs an int as random_state in searches and other clones: fits "
                "without a seed cannot be distinguished."
            )
        name = f"fit-{describe(identity).split()[-1]}"
    every = int(parameters["checkpoint_every"])
    return Checkpoint(parameters["checkpoint"], name, identity, every)


def close_checkpoint(checkpoint: Checkpoint | None, random_state: Any) -> None:
    """End a fit: warn of damaged files; without a seed, remove the files.

    Parameters
    ----------
    checkpoint : Checkpoint or None
        The checkpoint of the fit.
    random_state : object
        Parameter of the fit; without a seed, the next fit is a different one.
    """
    if checkpoint is None:
        return
    if checkpoint.problem:
        warn(checkpoint.problem, UserWarning)
    if random_state is None:
        checkpoint.remove()


class CheckpointMixin:
    """A mixin for estimators with the parameters `checkpoint` and `checkpoint_every`.

    A folder holds one fit that was called directly, and any number of fits of clones (such as those
    of a search) and of warm starts, each under a name derived from its parameters and data.
    """

    checkpoint: str | PathLike | None
    checkpoint_every: int
    random_state: Any

    def __sklearn_clone__(self):
        clone = clone_parametrized(self)
        if self.checkpoint is not None:
            clone._is_clone = True
        return clone

    def _open_checkpoint(self, before: Any = None, **data: Any) -> Checkpoint | None:
        """The checkpoint of a fit to data, or None; `before` is an earlier fit to continue."""
        parameters = self.get_params(deep=False)  # type: ignore[attr-defined]
        is_clone = getattr(self, "_is_clone", False)
        return open_checkpoint(type(self).__name__, parameters, data, before, is_clone=is_clone)

    def _close_checkpoint(self, checkpoint: Checkpoint | None) -> None:
        """End a fit; see `close_checkpoint`."""
        close_checkpoint(checkpoint, self.random_state)
