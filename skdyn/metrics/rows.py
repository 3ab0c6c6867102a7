"""Responses of all sessions as rows, from any form of the input.

One meaning everywhere: an array with two axes is (n_samples, n_outputs), one with three is
(n_sessions, n_samples, n_outputs), and a list of arrays has a session each.
"""

from __future__ import annotations

import numpy as np

from skdyn.sessions import as_numbers, refuse_objects

__all__ = ["repeats_of", "rows_of", "weights_of"]


def rows_of(values, name: str) -> np.ndarray:
    """Concatenate the rows of all sessions.

    Parameters
    ----------
    values : array-like of shape (n_samples,), (n_samples, n_outputs) or (n_sessions, n_samples, \
            n_outputs), or list of arrays of shape (n_samples,) or (n_samples, n_outputs)
        Numbers per row.
    name : str
        Name of the argument, for errors.

    Returns
    -------
    ndarray of shape (n_rows, n_outputs)
        The rows, as floats.

    Raises
    ------
    ValueError
        If the shape is another, or an array has more outputs than samples.
    """
    refuse_objects(values, n_axes=(1, 2), name=name)
    if _is_list(values):
        parts = [as_numbers(one, name) for one in values]
        parts = [one[:, np.newaxis] if one.ndim == 1 else one for one in parts]
        if len({one.shape[1:] for one in parts}) > 1 or parts[0].ndim != 2:
            raise ValueError(
                f"{name} has sessions of shapes {[one.shape for one in parts]}, but all must be "
                "(n_samples,) or (n_samples, n_outputs), with the same outputs."
            )
        return np.concatenate(parts)
    array = as_numbers(values, name)
    if array.ndim not in (1, 2, 3):
        raise ValueError(
            f"{name} has the shape {array.shape}, but must be (n_samples,), (n_samples, n_outputs) "
            "or (n_sessions, n_samples, n_outputs)."
        )
    if 0 in array.shape:
        raise ValueError(f"{name} has the shape {array.shape}, but at least one row was expected.")
    if array.ndim == 2 and len(array) < array.shape[1]:
        raise ValueError(
            f"{name} has the shape {array.shape}: more outputs than samples. Pass sessions of one "
            f"output as a list or with a third axis, {name}[..., np.newaxis]; if the rows are "
            f"samples, pass a list of one session, [{name}]."
        )
    return array[:, np.newaxis] if array.ndim == 1 else array.reshape(-1, array.shape[-1])


def weights_of(sample_weight, values, shape: tuple[int, int]) -> np.ndarray:
    """Weight of every number of a response.

    Parameters
    ----------
    sample_weight : array-like or None
        One weight per row, in the form of `values` or of all sessions concatenated, or one per
        number. None for ones.
    values : array-like or list of array-like
        The response.
    shape : tuple of int
        Rows and outputs of the response.

    Returns
    -------
    ndarray of shape (n_rows, n_outputs)
        The weights.

    Raises
    ------
    ValueError
        If shapes do not agree, a weight is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return np.ones(shape)
    refuse_objects(sample_weight, n_axes=(1, 2), name="sample_weight")
    given = sample_weight
    if not _is_list(given):
        array = as_numbers(given, "sample_weight")
        if array.ndim == 3:
            array = array.reshape(-1, array.shape[-1])
        elif getattr(values, "ndim", 0) == 3 and array.shape == values.shape[:2]:
            array = array.ravel()
        given = [array]
    weight = rows_of(given, "sample_weight")
    if weight.shape not in ((shape[0], 1), shape):
        raise ValueError(
            f"sample_weight has the shape {weight.shape}, but must have one weight per row, "
            f"({shape[0]},), or one per number, {shape}."
        )
    if not np.all((weight >= 0) & (weight < np.inf)) or not weight.any():
        raise ValueError("sample_weight must be finite, at least zero, and not all zero.")
    return np.broadcast_to(weight, shape)


def repeats_of(repeats, predicted) -> np.ndarray:
    """Concatenate the repeats of all sessions, which may have unequal numbers of repeats.

    Parameters
    ----------
    repeats : array-like or list of array-like
        Responses, of the shape of the prediction and one more axis, of repeats, at the end.
    predicted : array-like or list of array-like
        The prediction.

    Returns
    -------
    ndarray of shape (n_rows, n_outputs, n_repeats)
        The repeats; NaN where a session has fewer than others.

    Raises
    ------
    ValueError
        If shapes do not agree.
    """
    refuse_objects(repeats, n_axes=(2, 3), name="repeats")
    if not _is_list(predicted):
        predicted = as_numbers(predicted, "y_pred")
    if isinstance(predicted, list | tuple):
        pairs = [(as_numbers(one, "repeats"), np.shape(p)) for one, p in _zip(repeats, predicted)]
    else:
        pairs = [(as_numbers(repeats, "repeats"), np.shape(predicted))]
    for one, shape in pairs:
        if one.shape[:-1] != shape or one.ndim != len(shape) + 1:
            raise ValueError(
                f"repeats have the shape {one.shape}, but y_pred, the prediction, has the shape "
                f"{shape}; repeats must be {(*shape, 'n_repeats')}, with the axis of repeats at "
                "the end."
            )
    most = max(one.shape[-1] for one, _ in pairs)
    parts = []
    for one, shape in pairs:
        width = shape[-1] if len(shape) > 1 else 1
        rows = one.reshape(-1, width, one.shape[-1])
        missing = ((0, 0), (0, 0), (0, most - one.shape[-1]))
        parts.append(np.pad(rows, missing, constant_values=np.nan))
    return np.concatenate(parts)


def _zip(repeats, predicted):
    if not isinstance(repeats, list | tuple) or len(repeats) != len(predicted):
        raise ValueError(
            f"repeats must be a list of {len(predicted)} sessions, as y_pred, the prediction, is."
        )
    return zip(repeats, predicted, strict=True)


def _is_list(values) -> bool:
    """Whether it is a list of sessions; a list of numbers or of lists of numbers is an array."""
    return isinstance(values, list | tuple) and len(values) > 0 and all(map(_is_session, values))


def _is_session(values) -> bool:
    return np.ndim(values) == 2 or getattr(values, "ndim", 0) == 1
