"""One training that several processes share, over `torch.distributed`.

A training is shared if its process belongs to a process group, which the caller has initialised:
nothing here starts one, or reads the environment. All processes go through the same batches with
the same random numbers. Each computes its own windows of a batch, and gradients and losses are
summed, so that all take the step that one process alone would take. The batch itself is the same
as in one process, however many share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

Anything = TypeVar("Anything")

# How far numbers may lie apart that several processes have computed from the same data.
ROUNDING = 1e-6

# Parameters that each process may have its own of.
MAY_DIFFER = ("random_state", "verbose")


def n_processes() -> int:
    """How many processes share a training.

    Returns
    -------
    int
        Size of the default process group; 1 where none is initialised.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def is_first() -> bool:
    """Whether this process is the one that speaks for all.

    Returns
    -------
    bool
        True for rank 0, and without a process group.
    """
    return n_processes() == 1 or distributed.get_rank() == 0


@dataclass(frozen=True)
class Share:
    """Which windows of a batch this process computes.

    A process that has none, because there are fewer windows than processes, computes the first one
    like the process that it belongs to, and it does not count. So no network sees an empty batch.

    Attributes
    ----------
    rows : slice
        Windows that are computed, at least one.
    n_counted : int
        How many of them count: all, or none.
    n_windows : int
        Windows of the whole batch.
    """

    rows: slice
    n_counted: int
    n_windows: int

    @property
    def weight(self) -> float:
        """Share of the windows of the batch; those of all processes have sum one."""
        return self.n_counted / self.n_windows


def share(n_windows: int) -> Share:
    """Divide a batch among the processes, as evenly as possible.

    Parameters
    ----------
    n_windows : int
        Windows of the batch, at least 1.

    Returns
    -------
    Share
        What falls to this process; everything, where it is alone.
    """
    size = n_processes()
    if size == 1:
        return Share(slice(0, n_windows), n_windows, n_windows)
    rank = distributed.get_rank()
    least, n_larger = divmod(n_windows, size)
    n_own = least + (rank < n_larger)
    first = rank * least + min(rank, n_larger) if n_own else 0
    return Share(slice(first, first + max(1, n_own)), n_own, n_windows)


@dataclass(frozen=True)
class Draws:
    """Random numbers for windows of a batch: those that they get if one process computes it all.

    Attributes
    ----------
    generator : torch.Generator
        Where they are drawn from, as many as the whole batch needs.
    windows : Share
        Which of them are given out.
    """

    generator: torch.Generator
    windows: Share

    def normal(self, like: Tensor) -> Tensor:
        """Draw from the standard normal distribution.

        Parameters
        ----------
        like : Tensor of shape (n_own_windows, ...)
            Whose shape, device and number type the numbers have.

        Returns
        -------
        Tensor of shape (n_own_windows, ...)
            Numbers.
        """
        draw = torch.randn(
            self._shape(like), generator=self.generator, device=like.device, dtype=like.dtype
        )
        return draw[self.windows.rows]

    def uniform(self, like: Tensor) -> Tensor:
        """Draw from the uniform distribution on [0, 1).

        Parameters
        ----------
        like : Tensor of shape (n_own_windows, ...)
            Whose shape, device and number type the numbers have.

        Returns
        -------
        Tensor of shape (n_own_windows, ...)
            Numbers.
        """
        draw = torch.rand(
            self._shape(like), generator=self.generator, device=like.device, dtype=like.dtype
        )
        return draw[self.windows.rows]

    def _shape(self, like: Tensor) -> tuple[int, ...]:
        return (self.windows.n_windows, *like.shape[1:])


def sum_gradients(loss: Tensor, gradients: Sequence[Tensor], weight: float) -> Tensor:
    """Add up what all processes have computed, in one message.

    A number that is not finite in one process is not finite in the sum, in any of them.

    Parameters
    ----------
    loss : Tensor of shape ()
        Mean over the windows of this process.
    gradients : sequence of Tensor
        Its gradients; overwritten by their sum.
    weight : float
        What this process' numbers are multiplied by before.

    Returns
    -------
    Tensor of shape ()
        Sum of the losses.
    """
    if n_processes() == 1:
        return loss
    parts = [loss.to(gradients[0].dtype), *gradients]
    flat = torch.cat([part.reshape(-1) for part in parts]).mul_(weight)
    distributed.all_reduce(flat)
    total, *sums = flat.split([part.numel() for part in parts])
    for gradient, summed in zip(gradients, sums, strict=True):
        gradient.copy_(summed.view_as(gradient))
    return total[0]


def add_up(numbers: Iterable[Tensor | float], device: torch.device) -> list[float]:
    """Sum numbers over the processes.

    Parameters
    ----------
    numbers : iterable of Tensor of shape () or float
        Numbers of this process.
    device : torch.device
        Where the training runs.

    Returns
    -------
    list of float
        Sums, the same to the bit in all processes.
    """
    own = [float(number) for number in numbers]
    if n_processes() == 1:
        return own
    sums = torch.tensor(own, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return sums.tolist()


def any_process(asked: bool, device: torch.device) -> bool:
    """Tell whether something is asked for in any of the processes.

    Parameters
    ----------
    asked : bool
        Whether it is in this one.
    device : torch.device
        Where the training runs.

    Returns
    -------
    bool
        The same in all processes.
    """
    return add_up([asked], device)[0] > 0


def gathered(own: Tensor, windows: Share) -> Tensor:
    """What all processes have computed for the windows of a batch.

    A loss of it may combine windows at will. If all processes compute the same loss, and their
    gradients are added up with the weights of their shares, the sum is its gradient.

    Parameters
    ----------
    own : Tensor of shape (n_own_windows, ...)
        What this process has computed.
    windows : Share
        For which windows.

    Returns
    -------
    Tensor of shape (n_windows, ...)
        For all windows; gradients flow to those of this process.
    """
    return own if n_processes() == 1 else _Gathered.apply(own, windows)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, own, windows):
        ctx.windows = windows
        whole = own.new_zeros(windows.n_windows, *own.shape[1:])
        if windows.n_counted:
            whole[windows.rows] = own
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx, gradient):
        # The share's weight will multiply it; no windows but those that are counted get there.
        rows = gradient[ctx.windows.rows]
        return rows * (ctx.windows.n_windows / len(rows)), None


def by_first(compute: Callable[[], Anything], device: torch.device) -> Anything:
    """Let the first process compute something for all.

    Parameters
    ----------
    compute : callable
        Gives something that can be pickled; called in the first process alone.
    device : torch.device
        Where the training runs.

    Returns
    -------
    object
        What it gave, in all processes.
    """
    if n_processes() == 1:
        return compute()
    objects = [compute() if is_first() else None]
    distributed.broadcast_object_list(objects, src=0, device=device)
    return objects[0]  # type: ignore[return-value]


def copy_first(module: nn.Module) -> None:
    """Give all processes the weights and buffers of the first.

    Parameters
    ----------
    module : torch.nn.Module
        A module of the same make in each process; changed in place.
    """
    if n_processes() > 1:
        for values in module.state_dict().values():
            distributed.broadcast(values, src=0)


def start_together(
    parameters: Mapping[str, Any],
    data: Sequence[float],
    random_state: np.random.RandomState,
    device: torch.device,
) -> None:
    """Check that all processes begin the same training, and give them the same random numbers.

    Parameters
    ----------
    parameters : mapping
        Those of the training, by name. The ones that are numbers are compared, but for
        random_state and verbose.
    data : sequence of float
        Numbers that describe the data of this process.
    random_state : numpy.random.RandomState
        Set to the state of the first process.
    device : torch.device
        Where the training runs.

    Raises
    ------
    ValueError
        In all processes, if what they bring differs, or if the process group cannot send what lies
        on the device.
    """
    if n_processes() == 1:
        return
    backend = distributed.get_backend_config()
    if device.type not in backend:
        raise ValueError(
            f"The process group has the backend {backend!r}, which does not serve devices of type "
            f"{device.type!r}. Use init_process_group('gloo') for 'cpu', or 'nccl' for 'cuda'."
        )
    numbers = [
        *(
            float(value)
            for name, value in sorted(parameters.items())
            if isinstance(value, Real) and name not in MAY_DIFFER
        ),
        *map(float, data),
    ]
    first, state = by_first(lambda: (numbers, random_state.get_state()), device)
    same = len(first) == len(numbers) and np.allclose(first, numbers, rtol=ROUNDING, atol=0)
    n_different = int(add_up([not same], device)[0])
    if n_different:
        raise ValueError(
            f"Data or parameters of {n_different} of {n_processes()} processes differ from those "
            "of the first. Pass each process the whole recording, which fit divides among them, "
            "and the same parameters."
        )
    random_state.set_state(state)
