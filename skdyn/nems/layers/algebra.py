"""Layers that combine several inputs or rearrange one."""

from __future__ import annotations

import math
import re

import numpy as np
import torch

from skdyn.nems.distributions import Normal
from skdyn.nems.layers.base import Layer, check_shape, misfit, on_tensors
from skdyn.nems.parameter import Parameter, Phi
from skdyn.nems.words import Word


class _Joining(Layer):
    """Base class of layers that join several inputs."""

    n_past = 0

    def __init__(self, **layer_options):
        _refuse_shape(type(self), layer_options)
        super().__init__(**layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        return cls(input=word.names() or None)

    def word_options(self) -> list[str]:
        """Return the names of the inputs."""
        names = [self.input] if isinstance(self.input, str) else self.input or []
        return list(map(str, names))


class Concatenate(_Joining):
    """Concatenate inputs.

    Parameters
    ----------
    axis : int, default=1
        Axis of the concatenation; 0, which is time, is not allowed.
    sum_later : bool, default=False
        Whether all inputs except the first are summed, entry by entry, before the concatenation.
    **layer_options
        Arguments of `Layer`; `input` names the inputs.

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
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        names = word.names()
        sums = names[-1:] == ["s"]
        return cls(input=(names[:-1] if sums else names) or None, sum_later=sums)

    def word_options(self) -> list[str]:
        """Return the names of the inputs, and the option of `sum_later`."""
        return [*super().word_options(), *(["s"] if self.sum_later else [])]

    @on_tensors
    def evaluate(self, *inputs):
        """Concatenate the inputs.

        Parameters
        ----------
        *inputs : ndarray or Tensor of shape (n_samples, ...), or one list of such
            Inputs of equal shapes except along the axis; inputs that are summed, as for `Sum`.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ...)
            The inputs, in order.
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
        Arguments of `Layer`; `input` names the inputs.

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
            Inputs of equal or broadcastable shapes.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ...)
            The sum of the inputs.
        """
        return sum(_same_axes(self, _one_by_one(self, inputs)))


class Multiply(_Joining):
    """Multiply inputs, entry by entry.

    Parameters
    ----------
    **layer_options
        Arguments of `Layer`; `input` names the inputs.

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
            Inputs of equal or broadcastable shapes.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ...)
            The product of the inputs.
        """
        return math.prod(_same_axes(self, _one_by_one(self, inputs)))


class Select(Layer):
    """Select channels.

    Parameters
    ----------
    channels : int or sequence of int
        Indices along axis 1, in the order of the output; negative ones count from the end.
    **layer_options
        Arguments of `Layer`.

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
        """Select the channels.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_channels, ...)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_picked, ...)
            A copy; the axis is kept for a single channel.
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


class MultiplyByExp(_Joining):
    """Multiply one input by the exponential of another, which acts as a positive gain.

    Parameters
    ----------
    **layer_options
        Arguments of `Layer`; `input` names the two inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import MultiplyByExp
    >>> MultiplyByExp(input=["drive", "gain"]).evaluate(np.full((1, 2), 3), np.array([[0, 1]]))
    array([[3.        , 8.15484549]])
    """

    word = "multexp"

    @on_tensors
    def evaluate(self, *inputs):
        """Multiply.

        Parameters
        ----------
        *inputs : ndarray or Tensor of shape (n_samples, ...), or one list of such
            Two inputs of equal or broadcastable shapes.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ...)
            The first one times the exponential of the second one.
        """
        parts = _same_axes(self, _one_by_one(self, inputs))
        if len(parts) != 2:
            raise _mismatch(self, parts, "two inputs")
        return parts[0] * torch.exp(parts[1])


class SwapDims(Layer):
    """Swap two axes.

    Parameters
    ----------
    first, second : int, default=1, 2
        The axes; not 0, which is time.
    **layer_options
        Arguments of `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import SwapDims
    >>> SwapDims().evaluate(np.zeros((100, 18, 2))).shape
    (100, 2, 18)
    """

    word = "sd"
    n_past = 0

    def __init__(self, first: int = 1, second: int = 2, **layer_options):
        for axis in (first, second):
            if not isinstance(axis, int | np.integer) or isinstance(axis, bool) or axis == 0:
                raise ValueError(
                    "first and second must be numbers of axes other than 0, which is time, but are "
                    f"{first!r} and {second!r}."
                )
        self.first, self.second = int(first), int(second)
        _refuse_shape(type(self), layer_options)
        super().__init__(**layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        if not (len(word.pieces) in (0, 2) and all(map(str.isdigit, word.pieces))):
            raise ValueError(f"{word.text!r} must have two numbers of axes, as in 'sd.1.2'.")
        return cls(*map(int, word.pieces))

    def word_options(self) -> list[str]:
        """Return the axes."""
        axes = [self.first, self.second]
        return [] if axes == [1, 2] else list(map(str, axes))

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Swap the axes.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, ...)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ...)
            A copy.
        """
        axes = [axis + input.ndim * (axis < 0) for axis in (self.first, self.second)]
        if not all(0 < axis < input.ndim for axis in axes):
            raise ValueError(
                f"The input of {self.name or 'SwapDims'} has the shape {tuple(input.shape)}, but "
                f"axes {self.first} and {self.second}, other than that of time, were expected."
            )
        return input.transpose(*axes).clone()


class ConcatSkip(Layer):
    """Concatenate an input with weighted sums of the channels of earlier outputs.

    The output is the first input, followed by x_i @ w_i for each later input x_i. The coefficients
    contain w_1, w_2, ... concatenated along columns; w_i uses as many of the first rows as x_i has
    channels.

    Parameters
    ----------
    shape : tuple of int
        (n_in, n_out): number of channels of the widest later input, and total number of sums,
        divided equally among the later inputs. An n_in of None is inferred from the data.
    **layer_options
        Arguments of `Layer`; `input` names the inputs, with "input" for the data.

    Notes
    -----
    The prior of the coefficients is normal around zero with a standard deviation of 0.1.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import ConcatSkip
    >>> layer = ConcatSkip(shape=(4, 2), input=["hidden", "input"]).sample_from_priors(0)
    >>> layer.evaluate(np.ones((10, 3)), np.ones((10, 4))).shape
    (10, 5)
    """

    word = "skip"
    penalised = ("coefficients",)
    n_past = 0

    shape: tuple[int, ...]

    def __init__(self, shape, **layer_options):
        super().__init__(check_shape(shape, "(n_in, n_out)", (2,)), **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        names = [option for option in word.options if not option.startswith("l2:")]
        for name in names:
            if name[0].isdigit():
                raise ValueError(f"{word.text!r} has {name!r} where a name is expected.")
        return cls(word.shape(2), input=names or None, l2=word.penalty)

    def word_options(self) -> list[str]:
        """Return the names of the inputs."""
        names = [self.input] if isinstance(self.input, str) else self.input or []
        return list(map(str, names))

    def sizes_from(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """Complete the shape.

        Parameters
        ----------
        *shapes : tuple of int
            Shapes of the inputs.

        Returns
        -------
        tuple of int
            The shape, with n_in from the later inputs.
        """
        n_in, n_out = self.shape
        if len(shapes) < 2 or n_out is None:
            raise misfit(
                self,
                shapes[0] if shapes else (),
                "one input and others",
                "Name two or more with input=, and write n_out",
            )
        return (n_in or max(shape[1] for shape in shapes[1:]), n_out)

    def initial_parameters(self) -> Phi:
        """Return the weights.

        Returns
        -------
        Phi
            The parameter coefficients, of the shape of the layer.
        """
        return Phi(Parameter("coefficients", self.shape, prior=Normal(0, 0.1)))

    def start_from(
        self, random_state: np.random.RandomState, *inputs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Draw weights, scaled to the inputs; see `Layer`."""
        drawn = self.sample_from_priors(random_state, inplace=False)["coefficients"].values
        later = inputs[1:]
        share = self.shape[1] // max(len(later), 1)
        for number, one in enumerate(later):
            size = np.std(one @ drawn[: one.shape[1], number * share : (number + 1) * share])
            if 0 < size < np.inf:
                drawn[:, number * share : (number + 1) * share] /= size
        return {"coefficients": drawn}

    @on_tensors
    def evaluate(self, *inputs):
        """Weight the later inputs and concatenate them with the first one.

        Parameters
        ----------
        *inputs : ndarray or Tensor of shape (n_samples, n_channels), or one list of such
            At least two inputs.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_channels + n_out)
            The first input, followed by the sums.
        """
        (coefficients,) = self.get_parameter_values("coefficients")
        first, *later = _one_by_one(self, inputs)
        n_in, n_out = self.shape
        fits = later and n_out % len(later) == 0
        if not fits or any(one.ndim != 2 or one.shape[1] > n_in for one in (*later, first[:, :0])):
            raise _mismatch(
                self,
                [first, *later],
                f"two or more of shape (n_samples, n_channels), the later ones with at most {n_in} "
                f"channels, in a number that divides {n_out},",
            )
        weights = coefficients.split(n_out // len(later), dim=1)
        sums = [one @ own[: one.shape[1]] for one, own in zip(later, weights, strict=True)]
        return torch.cat([first, *sums], dim=1)


class NumPy(Layer):
    """Apply a function of NumPy.

    Parameters
    ----------
    operation : str
        Name of the function, such as "sum" or "linalg.norm".
    op_args : tuple, default=()
        Positional arguments after the inputs.
    op_kwargs : dict, default=None
        Keyword arguments.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    If torch has a function with this name and these arguments, models with this layer are fitted
    with exact gradients; otherwise with numeric ones, if there are parameters before it. An output
    may depend on all rows, so that `n_past` is None.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import NumPy
    >>> NumPy("sum", op_kwargs={"axis": 1}).evaluate(np.array([[1, 2], [3, 4]]))
    array([3., 7.])
    """

    word = "np"
    derivatives_are_sure = False

    def __init__(
        self, operation: str, *, op_args: tuple = (), op_kwargs: dict | None = None, **layer_options
    ):
        self.operation, self.op_args, self.op_kwargs = operation, op_args, op_kwargs
        _function(np, operation)
        _refuse_shape(type(self), layer_options)
        super().__init__(**layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        operation, *options = word.pieces or ("",)
        found = [re.fullmatch(r"([A-Za-z]*)(-?\d+)", option) for option in options]
        if not operation or not all(found):
            raise ValueError(
                f"{word.text!r} must have the name of a function, then whole numbers, with names "
                "or without, as in 'np.sum.axis1'. Use the layer itself for other arguments."
            )
        pairs = [(one[1], int(one[2])) for one in found if one]
        named = {name: value for name, value in pairs if name}
        return cls(
            operation,
            op_args=tuple(value for name, value in pairs if not name),
            op_kwargs=named or None,
        )

    def word_options(self) -> list[str]:
        """Return the function and its arguments."""
        named = (self.op_kwargs or {}).items()
        return [self.operation, *map(str, self.op_args), *(f"{k}{v}" for k, v in named)]

    def evaluate(self, *inputs):
        """Apply the function.

        Parameters
        ----------
        *inputs : ndarray or Tensor of shape (n_samples, ...)
            The first arguments of the function.

        Returns
        -------
        ndarray, Tensor or list of such
            The result of the function.
        """
        named = self.op_kwargs or {}
        if self._tensors is not None or any(map(torch.is_tensor, inputs)):
            tensors = [torch.as_tensor(one) for one in inputs]
            return _function(torch, self.operation)(*tensors, *self.op_args, **named)
        arrays = [np.asarray(array, dtype=float) for array in inputs]
        return _function(np, self.operation)(*arrays, *self.op_args, **named)


def _function(module, name: str):
    """Return a function of NumPy or torch by its dotted name."""
    found = module
    for part in name.split("."):
        found = getattr(found, part, None) if not part.startswith("_") else None
    if not callable(found) or isinstance(found, type):
        raise ValueError(f"operation={name!r} is not a function of {module.__name__}.")
    return found


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
    """Check that inputs have equal numbers of axes; (n,) and (n, 1) would broadcast to (n, n)."""
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
