"""Layers that are written for torch, and take NumPy arrays as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps

import numpy as np
import torch


def on_tensors(evaluate: Callable) -> Callable:
    """Let an `evaluate` that is written for torch take and give NumPy arrays, too.

    Parameters
    ----------
    evaluate : callable
        The method of a layer. In it, inputs and values of parameters are tensors.

    Returns
    -------
    callable
        A method that gives arrays, unless an input or a parameter was a tensor.
    """

    @wraps(evaluate)
    def wrapped(self, *inputs, **named):
        given = _flat([*inputs, *named.values()])
        traced = self._tensors is not None or any(map(torch.is_tensor, given))
        values = self.get_parameter_values(as_dict=True)
        with self.tensors({name: _as_tensor(value) for name, value in values.items()}):
            output = evaluate(
                self,
                *_mapped(_as_tensor, inputs),
                **{name: _mapped(_as_tensor, value) for name, value in named.items()},
            )
        return output if traced else _mapped(lambda tensor: tensor.numpy(), output)

    return wrapped


def _as_tensor(array) -> torch.Tensor:
    if torch.is_tensor(array):
        return array.double()
    array = np.asarray(array)
    # torch takes no negative strides, and warns of what it could write to but should not.
    usable = array.flags.writeable and min(array.strides, default=0) >= 0
    return torch.from_numpy(array if usable and array.dtype == float else np.array(array, float))


def _mapped(function, values):
    if isinstance(values, list | tuple):
        return type(values)(_mapped(function, value) for value in values)
    return function(values)


def _flat(values) -> Iterator:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value
