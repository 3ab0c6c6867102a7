"""Data-parallel training over `torch.distributed`.

A training is shared if the caller has initialised a process group. This module does not start
one and does not read the environment. All processes iterate over the same batches with the same
random numbers. Each process computes its own windows of a batch; gradients and losses are summed,
so that every process takes the step of a single-process training. The batch size does not depend
on the number of processes.
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

# Relative tolerance between results of several processes for the same data.
ROUNDING = 1e-6

# Parameters that may differ between processes.
MAY_DIFFER = ("random_state", "verbose")


def n_processes() -> int:
    """Return the number of processes that share a training.

    Returns
    -------
    int
        Size of the default process group; 1 if none is initialised.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def is_first() -> bool:
    """Return whether this process is the first, which prints and writes files.

    Returns
    -------
    bool
        True for rank 0, and without a process group.
    """
    return n_processes() == 1 or distributed.get_rank() == 0


@dataclass(frozen=True)
class Share:
    """The windows of a batch that this process computes.

    A process left without windows recomputes the first window with weight zero, so that no network
    gets an empty batch.

    Attributes
    ----------
    rows : slice
        Computed windows, at least one.
    n_counted : int
        Number of computed windows that count: all or none.
    n_windows : int
        Number of windows of the whole batch.
    """

    rows: slice
    n_counted: int
    n_windows: int

    @property
    def weight(self) -> float:
        """Share of the windows of the batch; the weights of all processes sum to one."""
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
        The share of this process; the whole batch without a process group.
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
    """Random numbers for windows of a batch, equal to those of a single-process training.

    Attributes
    ----------
    generator : torch.Generator
        Source of the random numbers; every process draws those of the whole batch.
    windows : Share
        Windows whose numbers are returned.
    """

    generator: torch.Generator
    windows: Share

    def normal(self, like: Tensor) -> Tensor:
        """Draw from the standard normal distribution.

        Parameters
        ----------
        like : Tensor of shape (n_own_windows, ...)
            Template for the shape, device and number type of the result.

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
            Template for the shape, device and number type of the result.

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
    """Sum loss and gradients over all processes in one all-reduce.

    A number that is not finite in one process is not finite in the sum of any process.

    Parameters
    ----------
    loss : Tensor of shape ()
        Mean over the windows of this process.
    gradients : sequence of Tensor
        Its gradients; overwritten by their sum.
    weight : float
        Factor of this process's numbers in the sum.

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
        Device of the training.

    Returns
    -------
    list of float
        Sums, bit-identical in all processes.
    """
    own = [float(number) for number in numbers]
    if n_processes() == 1:
        return own
    sums = torch.tensor(own, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return sums.tolist()


def any_process(asked: bool, device: torch.device) -> bool:
    """Return whether a flag is set in any of the processes.

    Parameters
    ----------
    asked : bool
        The flag of this process.
    device : torch.device
        Device of the training.

    Returns
    -------
    bool
        The same in all processes.
    """
    return add_up([asked], device)[0] > 0


def gathered(own: Tensor, windows: Share) -> Tensor:
    """Gather the results of all processes for the windows of a batch, with gradients.

    A loss of the result may combine windows freely. If all processes compute the same loss, the sum
    of their gradients, weighted by their shares, is its gradient.

    Parameters
    ----------
    own : Tensor of shape (n_own_windows, ...)
        Results of this process.
    windows : Share
        The windows of this process.

    Returns
    -------
    Tensor of shape (n_windows, ...)
        Results for all windows; gradients flow to those of this process.
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
        # The gradient is later multiplied by the share's weight; uncounted windows get none.
        rows = gradient[ctx.windows.rows]
        return rows * (ctx.windows.n_windows / len(rows)), None


def by_first(compute: Callable[[], Anything], device: torch.device) -> Anything:
    """Compute something in the first process and broadcast the result.

    Parameters
    ----------
    compute : callable
        Function that returns a picklable object; called in the first process only.
    device : torch.device
        Device of the training.

    Returns
    -------
    object
        The result, in all processes.
    """
    if n_processes() == 1:
        return compute()
    objects = [compute() if is_first() else None]
    distributed.broadcast_object_list(objects, src=0, device=device)
    return objects[0]  # type: ignore[return-value]


def copy_first(module: nn.Module) -> None:
    """Broadcast the weights and buffers of the first process.

    Parameters
    ----------
    module : torch.nn.Module
        A module of the same architecture in each process; changed in place.
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
    """Check that all processes begin the same training, and synchronise their random state.

    Parameters
    ----------
    parameters : mapping
        Parameters of the training, by name. Numbers are compared, except random_state and
        verbose.
    data : sequence of float
        Numbers that describe the data of this process.
    random_state : numpy.random.RandomState
        Set to the state of the first process.
    device : torch.device
        Device of the training.

    Raises
    ------
    ValueError
        In all processes, if their parameters or data differ, or if the process group cannot send
        tensors of the device.
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
