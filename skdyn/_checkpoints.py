"""Estimators that write checkpoints."""

from __future__ import annotations

import sys
from numbers import Integral
from os import PathLike
from typing import Any, ClassVar

from skdyn._sklearn import Interval, clone_parametrized
from skdyn._warnings import warn
from skdyn.core.checkpoint import Checkpoint, describe

__all__ = ["CheckpointMixin"]

# Parameters that do not change what a fit finds.
_WITHOUT_EFFECT = ("checkpoint", "checkpoint_every", "verbose")


def _version() -> str:
    # Imported from here, the package and this file would import each other.
    return sys.modules[__package__].__version__


class CheckpointMixin:
    """A mixin for estimators with the parameters `checkpoint` and `checkpoint_every`.

    A folder holds one fit that was called directly, and any number of fits of clones, such as those
    of a search, and of warm starts, each under a name made of its parameters and data.
    """

    checkpoint: str | PathLike | None
    checkpoint_every: int
    random_state: Any

    checkpoint_constraints: ClassVar[dict] = {
        "checkpoint": [str, PathLike, None],
        "checkpoint_every": [Interval(Integral, 1, None, closed="left")],
    }

    def __sklearn_clone__(self):
        clone = clone_parametrized(self)
        if self.checkpoint is not None:
            clone._is_clone = True
        return clone

    def _open_checkpoint(self, before: Any = None, **data: Any) -> Checkpoint | None:
        """The checkpoint of a fit to data, from a fit before or anew, if there is to be one."""
        if self.checkpoint is None:
            return None
        parameters = self.get_params(deep=False)  # type: ignore[attr-defined]
        identity = {"estimator": type(self).__name__, "version of skdyn": _version()}
        identity |= {
            name: describe(value)
            for name, value in (parameters | data).items()
            if name not in _WITHOUT_EFFECT and value is not None
        }
        if before is not None:
            identity["the fit before"] = describe(before)
        name = "fit"
        if before is not None or getattr(self, "_is_clone", False):
            if before is None and self.random_state is None:
                raise ValueError(
                    "checkpoint needs an int as random_state in searches and other clones: fits "
                    "without a seed cannot be told apart."
                )
            name = f"fit-{describe(identity).split()[-1]}"
        return Checkpoint(self.checkpoint, name, identity, int(self.checkpoint_every))

    def _close_checkpoint(self, checkpoint: Checkpoint | None) -> None:
        """End a fit: warn of what was damaged; without a seed, the next fit is another one."""
        if checkpoint is None:
            return
        if checkpoint.problem:
            warn(checkpoint.problem, UserWarning)
        if self.random_state is None:
            checkpoint.remove()
