"""Checks of what layers are made for, and of what goes into them."""

from __future__ import annotations

import math
import operator
from collections.abc import Container
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from skdyn.nems.layers.base import Layer


def is_count(value) -> bool:
    """Tell whether something counts: a whole number from 1 on.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    bool
        True for an int, also of NumPy, that is positive.
    """
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value > 0)


def plain_sizes(shape) -> tuple[int | None, ...]:
    """Make plain numbers of sizes, which a search may take from an array.

    Parameters
    ----------
    shape : int, None or sequence of such
        The sizes.

    Returns
    -------
    tuple of int or None
        The same.
    """
    sizes = np.atleast_1d(np.array(shape, dtype=object))
    return tuple(None if size is None else operator.index(size) for size in sizes)


def check_penalty(l2, layer: Layer) -> float | None:
    """Check the weight of a layer's own penalty.

    Parameters
    ----------
    l2 : float or None
        The weight.
    layer : Layer
        The layer, which has to have something that is penalised.

    Returns
    -------
    float or None
        The weight.
    """
    if l2 is None:
        return None
    name = type(layer).__name__
    number = isinstance(l2, Real) and not isinstance(l2, bool | np.bool_)
    if not number or not math.isfinite(l2) or l2 < 0:
        raise ValueError(
            f"Got l2={l2!r} for a {name}, expected a number from 0 on; do use None for the alpha "
            "of the model."
        )
    if layer.penalised == ():
        raise ValueError(
            f"Got l2={l2!r} for a {name}, none of whose parameters is penalised, expected None; do "
            "leave it out, or name some in a subclass's `penalised`."
        )
    return float(l2)


def is_equal(value, other) -> bool:
    """Tell whether two layers were given the same.

    Parameters
    ----------
    value, other : object
        What they were given, arrays perhaps.

    Returns
    -------
    bool
        For arrays, whether all entries are equal.
    """
    if isinstance(value, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(value, other)
    return bool(value == other)


def check_shape(shape, expected: str, n_sizes: Container[int]) -> tuple:
    """Check the shape that a layer is given.

    Parameters
    ----------
    shape : int, None or sequence of such
        The sizes.
    expected : str
        How they are written, for the error.
    n_sizes : container of int
        How many there may be.

    Returns
    -------
    tuple of int or None
        The sizes; those that are None are still to come from the data.
    """
    sizes = np.atleast_1d(np.array(shape, dtype=object))
    counts = all(size is None or is_count(size) for size in sizes.flat)
    if sizes.ndim > 1 or len(sizes) not in n_sizes or not counts:
        raise ValueError(
            f"Got shape={shape!r}, expected shape={expected} of whole numbers from 1 on; do write "
            "None for one that the data shall say."
        )
    return tuple(None if size is None else int(size) for size in sizes)


def misfit(layer: Layer, shape, expected: str, advice: str) -> ValueError:
    """Make the error for what does not fit into a layer.

    Parameters
    ----------
    layer : Layer
        The layer.
    shape : tuple of int
        Shape of what came in.
    expected : str
        What should have come.
    advice : str
        What to do.

    Returns
    -------
    ValueError
        To be raised.
    """
    name = type(layer).__name__
    return ValueError(
        f"Got an input of shape {tuple(shape)} for {layer.name or name}, a {name} of shape "
        f"{layer.shape}, expected {expected}; do {advice}."
    )


def sizes_with_width(layer: Layer, shape: tuple[int, ...]) -> tuple:
    """Complete a shape that begins with the number of channels that come in.

    Parameters
    ----------
    layer : Layer
        Whose shape.
    shape : tuple of int
        Shape of the input, (n_samples, n_in).

    Returns
    -------
    tuple of int
        All sizes.
    """
    n_in, *others = layer.shape or (None,)
    if len(shape) != 2 or None in others:
        raise misfit(
            layer,
            shape,
            "(n_samples, n_in), and only n_in left open",
            "write the other sizes, or check what goes in",
        )
    return (shape[1] if n_in is None else n_in, *others)


def check_width(layer: Layer, shape: tuple[int, ...]) -> None:
    """Check that what comes in has as many channels as the shape of the layer begins with.

    Parameters
    ----------
    layer : Layer
        The layer.
    shape : tuple of int
        Shape of the input, which has to be (n_samples, n_in).
    """
    n_in, *_ = layer.shape or (None,)
    if tuple(shape[1:]) != (n_in,):
        raise misfit(
            layer,
            shape,
            f"(n_samples, {n_in})",
            "make the layer for that many channels, or name another input",
        )
