"""Device, threads and seeds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


def check_device(device: str) -> torch.device:
    """The torch device of that name, if it can be used.

    Parameters
    ----------
    device : str
        "cpu", "cuda", "cuda:1", ...

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    ValueError
        If there is no such device.
    """
    try:
        found = torch.device(device)
        torch.empty(1, device=found).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device is {device!r}, which this installation of torch cannot use "
            f"({str(error).splitlines()[0]}). Use 'cpu'."
        ) from error
    return found


def is_host(device: torch.device) -> bool:
    """Return whether tensors are in host memory, so that reading their values is free.

    On other devices a condition such as `if tensor.any()` waits until all queued work is done,
    and the device is then idle until Python queues more.

    Parameters
    ----------
    device : torch.device
        The device.

    Returns
    -------
    bool
        True for the CPU.
    """
    return device.type == "cpu"


def make_generator(random_state: np.random.RandomState, device: torch.device) -> torch.Generator:
    """A generator of torch's, seeded by one draw from NumPy's.

    Parameters
    ----------
    random_state : numpy.random.RandomState
        Source of the seed.
    device : torch.device
        Device of the generator.

    Returns
    -------
    torch.Generator
        A generator of its own; torch's global one is neither read nor moved.
    """
    seed = int(random_state.randint(np.iinfo(np.int32).max))
    return torch.Generator(device=device).manual_seed(seed)


def make_adam(weights: Iterable, **options) -> torch.optim.Adam:
    """Make an optimiser, and leave the environment of the process as it is.

    The first optimiser of a process makes torch import its compiler, which sets a variable of the
    environment for a cache that nothing here uses.

    Parameters
    ----------
    weights : iterable of Tensor or of dict
        The weights, or groups of them.
    **options
        As for `torch.optim.Adam`.

    Returns
    -------
    torch.optim.Adam
        The optimiser.
    """
    before = set(os.environ)
    optimizer = torch.optim.Adam(weights, **options)
    for name in set(os.environ) - before:
        if name.startswith("TORCH"):
            os.environ.pop(name, None)
    return optimizer


@contextmanager
def one_thread() -> Iterator[None]:
    """Run a block on one thread; restore the caller's number of threads and mode of gradients.

    The matrices and networks here are small: on two threads the recurrent networks were measured
    to take 1 to 1.5 times the wall time and 2 to 3 times the CPU time of one. It also makes results
    independent of the number of threads that the caller, or a joblib worker, has set. The mode of
    gradients is restored because an interrupt that arrives while `torch.no_grad` begins or ends
    leaves gradients disabled, and every later fit of the process would fail.

    Yields
    ------
    None
        Nothing.
    """
    before, had_gradients = torch.get_num_threads(), torch.is_grad_enabled()
    if before != 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_grad_enabled(had_gradients)
        if before != 1:
            torch.set_num_threads(before)
