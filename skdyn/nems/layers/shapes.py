"""Checks of what layers are made for, and of what goes into them."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

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
