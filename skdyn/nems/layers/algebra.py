"""Layers that put several inputs together, or take them apart; they have no parameters."""

from __future__ import annotations

import math

import numpy as np
import torch

from skdyn.nems.layers.base import Layer, on_tensors
from skdyn.nems.words import Word


class _Joining(Layer):
    """Base class of layers that join several inputs."""

    n_past = 0

    def __init__(self, **layer_options):
        _refuse_shape(type(self), layer_options)
        super().__init__(**layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Make the layer from a keyword; see `skdyn.nems.from_keywords`."""
        return cls(input=word.names() or None)

    def word_options(self) -> list[str]:
        """Write the names of the inputs."""
        names = [self.input] if isinstance(self.input, str) else self.input or []
        return list(map(str, names))


class Concatenate(_Joining):
    """Put inputs beside each other.

    Parameters
    ----------
    axis : int, default=1
        Along which axis; not that of time.
    sum_later : bool, default=False
        Whether all inputs but the first are added up, entry by entry, and stand beside it as one.
    **layer_options
        As for `Layer`; `input` names what goes in.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import Concatenate
    >>> layer = Concatenate(input=["stimulus", "pupil"])
    >>> layer.evaluate(np.ones((3, 4)), np.ones((3, 1))).shape
    (3, 5)
    """

    word = "cat"

    def __init__(self, *, axis: int = 1, sum_later: bool = False, **layer_options):
        if not isinstance(axis, int | np.integer) or isinstance(axis, bool) or axis == 0:
            raise ValueError(
                "axis must be the number of an axis other than 0, which is time, but is "
                f"{axis!r}. Use 1 for channels."
            )
        self.axis, self.sum_later = int(axis), sum_later
        super().__init__(**layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Make the layer from a keyword; see `skdyn.nems.from_keywords`."""
        names = word.names()
        sums = names[-1:] == ["s"]
        return cls(input=(names[:-1] if sums else names) or None, sum_later=sums)

    def word_options(self) -> list[str]:
        """Write the names of the inputs, and whether the later ones are summed."""
        return [*super().word_options(), *(["s"] if self.sum_later else [])]

    @on_tensors
    def evaluate(self, *inputs):
        """Put the inputs beside each other.

        Parameters
        ----------
        *inputs : ndarray or Tensor of shape (n_samples, ...), or one list of such
            Of equal shapes but for that axis; those that are added up, as for `Sum`.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ...)
            All of them, in order.
        """
        parts = _one_by_one(self, inputs)
        if self.sum_later and len(parts) > 2:
            parts = [parts[0], torch.as_tensor(sum(_same_axes(self, parts[1:])))]
        n_axes = parts[0].ndim
        axis = self.axis % n_axes if -n_axes <= self.axis < n_axes else 0
        others = {(p.ndim, p.shape[:axis], p.shape[axis + 1 :]) for p in parts}
        if axis == 0 or len(others) > 1:
            raise _mismatch(
                self, parts, f"equal shapes except along axis {self.axis}, which must not be 0,"
            )
        return torch.cat(parts, dim=axis)


class Sum(_Joining):
    """Add inputs, entry by entry.

    Parameters
    ----------
    **layer_options
        As for `Layer`; `input` names what goes in.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import Sum
    >>> Sum(input=["left", "right"]).evaluate(np.ones((1, 2)), np.array([[1, 2]]))
    array([[2., 3.]])
    """

    word = "sum"

    @on_tensors
    def evaluate(self, *inputs):
        """Add the inputs.

        Parameters
        ----------
        *inputs : ndarray or Tensor of shape (n_samples, ...), or one list of such
            Of equal shapes; where an axis has one entry it is repeated.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ...)
            Their sum.
        """
        return sum(_same_axes(self, _one_by_one(self, inputs)))


class Multiply(_Joining):
    """Multiply inputs, entry by entry.

    Parameters
    ----------
    **layer_options
        As for `Layer`; `input` names what goes in.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import Multiply
    >>> Multiply(input=["drive", "gain"]).evaluate(np.full((1, 2), 3), np.array([[1, 2]]))
    array([[3., 6.]])
    """

    word = "mult"

    @on_tensors
    def evaluate(self, *inputs):
        """Multiply the inputs.

        Parameters
        ----------
        *inputs : ndarray or Tensor of shape (n_samples, ...), or one list of such
            Of equal shapes; where an axis has one entry it is repeated.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ...)
            Their product.
        """
        return math.prod(_same_axes(self, _one_by_one(self, inputs)))


class Select(Layer):
    """Pick channels.

    Parameters
    ----------
    channels : int or sequence of int
        Which, along axis 1, in the order in which they come out; negative ones count from the end.
    **layer_options
        As for `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import Select
    >>> Select(channels=[2, 0]).evaluate(np.array([[10, 11, 12]]))
    array([[12., 10.]])
    """

    n_past = 0

    def __init__(self, channels, **layer_options):
        numbers = np.atleast_1d(channels)
        if numbers.ndim != 1 or not numbers.size or numbers.dtype.kind not in "iu":
            raise ValueError(
                "channels must be the number of a channel, or a list of such numbers, but is "
                f"{channels!r}. Turn a mask into numbers with np.flatnonzero."
            )
        self.channels = channels
        _refuse_shape(Select, layer_options)
        super().__init__(**layer_options)

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Pick the channels.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_channels, ...)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_picked, ...)
            A copy; also of one channel the axis stays.
        """
        numbers = np.atleast_1d(self.channels)
        n_channels = input.shape[1] if input.ndim > 1 else 0
        if numbers.min() < -n_channels or numbers.max() >= n_channels:
            raise ValueError(
                f"The input of {self.name or 'Select'} has the shape {tuple(input.shape)}, but "
                f"(n_samples, n_channels) with the channels {numbers.tolist()} was expected. Pick "
                "others, or name another input."
            )
        return input[:, numbers.tolist()]


def _refuse_shape(kind: type[Layer], options: dict) -> None:
    if options.get("shape") is not None:
        raise ValueError(f"{kind.__name__} has no parameters, so that it takes no shape.")


def _one_by_one(layer: Layer, inputs) -> list[torch.Tensor]:
    if len(inputs) == 1 and isinstance(inputs[0], list | tuple):
        inputs = inputs[0]
    if not inputs:
        raise ValueError(
            f"{layer.name or type(layer).__name__} has no input, but at least one was expected. "
            "Name the inputs with input=[...]."
        )
    return list(inputs)


def _same_axes(layer: Layer, parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Check that parts go together entry by entry; (n,) and (n, 1) would make (n, n)."""
    sizes = [{*lengths} - {1} for lengths in zip(*(p.shape for p in parts), strict=False)]
    if len({part.ndim for part in parts}) > 1 or any(len(lengths) > 1 for lengths in sizes):
        raise _mismatch(layer, parts, "equal shapes, or axes with one entry to repeat,")
    return parts


def _mismatch(layer: Layer, parts: list[torch.Tensor], expected: str) -> ValueError:
    return ValueError(
        f"The inputs of {layer.name or type(layer).__name__} have the shapes "
        f"{[tuple(part.shape) for part in parts]}, but {expected} were expected. Check what "
        "input= names."
    )
