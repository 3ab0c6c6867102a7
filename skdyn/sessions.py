"""Forms of a recording, and results in the same form.

Rows are time. Several sessions are labels per row, a list of 2-D arrays or one 3-D array.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import validate_data

# Numbers that are checked at a time.
NUMBERS_AT_ONCE = 2**20


@dataclass(frozen=True)
class Sessions:
    """A checked recording, one array per session.

    Attributes
    ----------
    arrays : list of ndarray of shape (n_samples, n_channels)
        The sessions; views of the caller's arrays if possible.
    container : {"array", "list", "stack"}
        The form of the input: one 2-D array, a list, or one 3-D array.
    """

    arrays: list[np.ndarray]
    container: Literal["array", "list", "stack"]

    @property
    def n_samples(self) -> int:
        """Rows of all sessions together."""
        return sum(len(array) for array in self.arrays)

    def like_input(self, results: list[np.ndarray]):
        """Return results, one array per session, in the form of the input.

        Parameters
        ----------
        results : list of ndarray of shape (n_samples, ...)
            One array per session.

        Returns
        -------
        ndarray or list of ndarray
            Rows of all sessions concatenated, a list, or an array with an axis of sessions.
        """
        if self.container == "list":
            return SessionList(results)
        return np.stack(results) if self.container == "stack" else join_sessions(results)

    def writer(self, out=None) -> Writer:
        """Make a writer for results of sessions, in arrays of the caller's or new ones.

        Parameters
        ----------
        out : ndarray of float, list of such, or None
            Arrays that results are written to, in the form of the input.

        Returns
        -------
        Writer
            The writer.

        Raises
        ------
        ValueError
            If out has another form, cannot be written to, or shares memory with the recording.
        """
        return Writer(self, out)


class Writer:
    """Results of sessions, in arrays of the caller's or in new ones.

    Parameters
    ----------
    recording : Sessions
        The sessions.
    out : ndarray of float, list of such, or None
        Arrays of the caller's, in the form of the input; None for new ones.
    """

    def __init__(self, recording: Sessions, out):
        self.recording, self.out = recording, out
        self.results: list[np.ndarray] = []
        self.n_rows = 0
        if out is None:
            return
        is_list = recording.container == "list"
        arrays = out if is_list and isinstance(out, list | tuple) else [out]
        if is_list != isinstance(out, list | tuple) or (
            is_list and len(arrays) != len(recording.arrays)
        ):
            raise ValueError(
                f"out is a {type(out).__name__}, but "
                + (f"a list of {len(recording.arrays)} arrays" if is_list else "an array")
                + " was expected, in the form of X."
            )
        for array in arrays:
            if not (isinstance(array, np.ndarray) and array.dtype.kind == "f"):
                raise ValueError("out must hold arrays of floats, or memory maps of them.")
            if not array.flags.writeable:
                raise ValueError("out is read-only. Open a memory map with mode 'r+' or 'w+'.")
            if any(np.may_share_memory(array, one) for one in recording.arrays):
                raise ValueError("out shares memory with X, which must stay as it is.")

    def slot(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """Return the array for the next session.

        Parameters
        ----------
        shape : tuple of int
            Rows, and the shape of a row.
        dtype : data-type
            Type of a new array.

        Returns
        -------
        ndarray
            An array to write to.
        """
        if self.out is None:
            self.results.append(np.empty(shape, dtype=dtype))
            return self.results[-1]
        number, first = len(self.results), self.n_rows
        if self.recording.container == "array":
            part = self.out[first : first + shape[0]]
        else:
            part = self.out[number] if number < len(self.out) else self.out[:0]
        if part.shape != shape:
            raise ValueError(
                f"out has the shape {part.shape} for session {number}, but {shape} was expected."
            )
        self.n_rows += shape[0]
        self.results.append(part)
        return part

    def put(self, result: np.ndarray) -> None:
        """Take the result of the next session.

        Parameters
        ----------
        result : ndarray of shape (n_rows, ...)
            The result.
        """
        if self.out is None:
            self.results.append(result)
        else:
            self.slot(result.shape, result.dtype)[...] = result

    def done(self):
        """Return all results.

        Returns
        -------
        ndarray or list of ndarray
            The arrays of out, or new arrays in the form of the input.
        """
        if self.out is None:
            return self.recording.like_input(self.results)
        if self.recording.container == "array" and self.n_rows != len(self.out):
            raise ValueError(f"out has {len(self.out)} rows, but {self.n_rows} were expected.")
        return self.out


def all_finite(array: np.ndarray) -> bool:
    """Return whether all numbers of an array are finite, in little memory.

    Parameters
    ----------
    array : ndarray of float
        Numbers.

    Returns
    -------
    bool
        True if no number is NaN or infinite.
    """
    n_rows = max(1, NUMBERS_AT_ONCE // max(1, array[:1].size))
    return all(
        bool(np.isfinite(array[start : start + n_rows]).all())
        for start in range(0, len(array), n_rows)
    )


def check_sessions(
    estimator,
    X,
    sessions=None,
    *,
    reset: bool,
    min_samples: int = 1,
    ensure_all_finite: bool = True,
) -> Sessions:
    """Check a recording as scikit-learn checks X, and split it into sessions.

    Parameters
    ----------
    estimator : estimator
        The estimator; its `n_features_in_` and `feature_names_in_` are set or compared.
    X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
            (n_sessions, n_samples, n_channels)
        The recording.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row, for a 2-D X: a contiguous run of one label is one session.
    reset : bool
        Whether the estimator is being fitted.
    min_samples : int, default=1
        Fewest rows of all sessions together.
    ensure_all_finite : bool, default=True
        Whether NaN and infinite values are errors.

    Returns
    -------
    Sessions
        The sessions.

    Raises
    ------
    ValueError
        If the values are not finite numbers, the width differs, there are too few rows, or labels
        and rows do not agree.
    """
    container = container_of(X)
    if container == "array":
        checks = {"ensure_min_samples": min_samples, "ensure_all_finite": ensure_all_finite}
        array = _validate(estimator, X, reset=reset, **checks)
        return Sessions(split_sessions(array, sessions), container)
    _refuse_labels(sessions, container)
    arrays = _validate_each(estimator, X, reset=reset, ensure_all_finite=ensure_all_finite)
    checked = Sessions(arrays, container)
    if checked.n_samples < min_samples:
        raise ValueError(
            f"Found sessions with n_samples = {checked.n_samples} in all, while a minimum of "
            f"{min_samples} is required by {type(estimator).__name__}."
        )
    return checked


def check_columns(
    X,
    sessions=None,
    *,
    n_columns: int | None,
    advice: str = "Pass an output of transform.",
    name: str = "X",
) -> Sessions:
    """Check rows of a known number of columns, and split them into sessions.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_columns), list of such, or array of shape \
            (n_sessions, n_samples, n_columns)
        Rows of time.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row, for a 2-D X.
    n_columns : int or None
        Number of columns; None for that of the first session.
    advice : str, default="Pass an output of transform."
        Last sentence of the error for another number.
    name : str, default="X"
        The name of the argument, for errors.

    Returns
    -------
    Sessions
        The sessions, of floats.

    Raises
    ------
    ValueError
        If the values are not finite numbers, the width differs, or labels and rows do not agree.
    """
    container = container_of(X, name=name)
    with naming(name):
        arrays = [
            check_array(one, dtype=[np.float64, np.float32], input_name=name)
            for one in ([X] if container == "array" else X)
        ]
    if not arrays:
        raise ValueError(f"{name} has no sessions, but at least one was expected.")
    widths = sorted({array.shape[1] for array in arrays})
    n_columns = arrays[0].shape[1] if n_columns is None else n_columns
    if widths != [n_columns]:
        found = " and ".join(map(str, widths))
        raise ValueError(f"{name} has {found} columns, but {n_columns} were expected. {advice}")
    if container == "array":
        return Sessions(split_sessions(arrays[0], sessions, name=name), container)
    _refuse_labels(sessions, container, name)
    return Sessions(arrays, container)


def _refuse_labels(sessions, container: str, name: str = "X") -> None:
    if sessions is not None:
        raise ValueError(
            f"{name} is a {'list' if container == 'list' else '3-D array'} of sessions, but "
            f"sessions= was given as well. Leave sessions out, or pass a 2-D {name}."
        )


def container_of(X, *, name: str = "X") -> Literal["array", "list", "stack"]:
    """Return the form of the input.

    Parameters
    ----------
    X : array-like or list of array-like
        A recording.
    name : str, default="X"
        The name of the argument, for errors.

    Returns
    -------
    {"array", "list", "stack"}
        One 2-D array, a list of 2-D arrays, or one 3-D array.

    Raises
    ------
    TypeError
        If X, or its first session, is an estimator, an object of MNE, or an object of pynapple
        that is not a `TsdFrame` of one epoch; or if it holds dates, or is a tensor that requires
        gradients.
    ValueError
        If values are masked.
    """
    refuse_objects(X, name=name)
    with naming(name):
        if isinstance(X, list | tuple) and len(X) and all(np.ndim(one) == 2 for one in X):
            return "list"
    if getattr(X, "ndim", None) == 3:
        return "stack"
    return "array"


def in_sessions(values, *, has_columns: bool = True, name: str = "X") -> Sessions:
    """Split rows of time into sessions, without a check of their values.

    Parameters
    ----------
    values : array-like of shape (n_samples, n_columns), list of such, or array of shape \
            (n_sessions, n_samples, n_columns)
        Rows of time, such as results of an estimator.
    has_columns : bool, default=True
        Whether a row is always an array. Otherwise rows may be single numbers, and a list of 1-D
        arrays is a list of sessions.
    name : str, default="X"
        The name of the argument, for errors.

    Returns
    -------
    Sessions
        The sessions.
    """
    container = container_of(values, name=name)
    if not has_columns and isinstance(values, list | tuple) and len(values):
        are_arrays = all(np.ndim(one) == 1 and not isinstance(one, list | tuple) for one in values)
        container = "list" if are_arrays else container
    parts = [values] if container == "array" else values
    with naming(name):
        return Sessions([np.asarray(one) for one in parts], container)


def join_sessions(arrays: list[np.ndarray]) -> np.ndarray:
    """Concatenate sessions; a single one is not copied.

    Parameters
    ----------
    arrays : list of ndarray of shape (n_samples, ...)
        The sessions.

    Returns
    -------
    ndarray of shape (n_samples, ...)
        The rows of all sessions.
    """
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


class SessionList(list):
    """A list of results, one array per session.

    Sessions of unequal length make no single array. An attempt, such as that of
    `sklearn.model_selection.cross_val_predict`, raises an error with the line to write instead.
    """

    def __array__(self, dtype=None, copy=None):
        if len({np.shape(one) for one in self}) > 1:
            raise ValueError(_NO_ARRAY)
        return np.array([*self], dtype=dtype)

    def __array_function__(self, function, types, arguments, keywords):
        if function is np.concatenate:
            lists = [one for one in arguments[0] if isinstance(one, SessionList)]
            if len({np.shape(session) for one in lists for session in one}) > 1:
                raise ValueError(_NO_ARRAY)
        keywords = {name: _plain(value) for name, value in keywords.items()}
        return function(*map(_plain, arguments), **keywords)


def _plain(value):
    """The same with plain lists instead of `SessionList`."""
    if isinstance(value, SessionList):
        return list(value)
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


_NO_ARRAY = (
    "Sessions of unequal length make no single array. Use numpy.concatenate(result) for the rows "
    "of all sessions of one result. cross_val_predict takes rows instead of a list: with labels = "
    "numpy.repeat(numpy.arange(len(X)), [len(one) for one in X]), write "
    "cross_val_predict(estimator, numpy.concatenate(X), cv=LeaveOneGroupOut(), groups=labels, "
    "params={'sessions': labels}, method='transform')."
)


def refuse_objects(X, *, n_axes: tuple[int, ...] = (2,), name: str = "X") -> None:
    """Raise an error for objects that are no arrays of numbers, with the line that makes one.

    Parameters
    ----------
    X : array-like, list of array-like, or object
        The argument that is expected to be an array.
    n_axes : tuple of int, default=(2,)
        Numbers of axes with which an object of pynapple of one epoch is taken as an array.
    name : str, default="X"
        The name of the argument, for errors.

    Raises
    ------
    TypeError
        If X, or its first element, is an estimator, an object of MNE, or another object of
        pynapple; or if an array holds dates, or is a tensor that requires gradients.
    ValueError
        If values of an array are masked.
    """
    is_list = isinstance(X, list | tuple) and len(X) > 0
    for array in X if is_list else [X]:
        _refuse_array(array, name)
    one = X[0] if is_list else X
    if all(hasattr(one, name) for name in ("info", "ch_names", "get_data")):
        kind, line = "an object of MNE", _rows_of_mne(one, is_list)
        line = f"{line}, and choose the channels by picks"
    elif all(hasattr(one, name) for name in ("restrict", "time_support")):
        pieces = [len(each.time_support) for each in (X if is_list else [X])]
        if getattr(one, "ndim", None) in n_axes and set(pieces) == {1}:
            return  # rows of one stretch of time, as an array has
        kind, line = "an object of pynapple", _rows_of_pynapple(one, is_list, max(pieces) > 1)
    elif hasattr(one, "fit") and hasattr(one, "get_params"):
        kind = "an estimator"
        line = "what its transform or predict returns"
    else:
        return
    raise TypeError(
        f"{name} is {kind}, {type(one).__name__}, but arrays whose rows are time were expected. "
        f"Pass {line.replace('X', name) if name != 'X' else line}."
    )


def as_numbers(values, name: str) -> np.ndarray:
    """Convert an argument to an array of floats, or name it in the error.

    Parameters
    ----------
    values : array-like
        Numbers.
    name : str
        The name of the argument.

    Returns
    -------
    ndarray of float
        The numbers; a copy only if necessary.

    Raises
    ------
    TypeError, ValueError
        If the values are no numbers, masked, dates, or a tensor that requires gradients.
    """
    refuse_objects(values, n_axes=(1, 2, 3), name=name)
    with naming(name):
        return np.asarray(values, dtype=np.float64)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of an argument in front of the messages of errors that do not have it.

    Parameters
    ----------
    name : str
        The name of the argument.

    Yields
    ------
    None
        The block that converts or checks the argument.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        if not re.search(rf"\b{re.escape(name)}\b|feature names", str(error)):
            error.args = (f"{name}: {error}",)
        raise


def _refuse_array(array, name: str) -> None:
    """Raise an error for masked arrays, dates, and tensors that require gradients."""
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ValueError(
            f"{name} is a masked array with {np.ma.count_masked(array)} masked values, which would "
            f"count as numbers. Pass {name}.filled(numpy.nan) where missing values are accepted, "
            "or leave rows out with skdyn.preprocessing.BadSegments; in a response, fill them and "
            "give them a sample_weight of 0."
        )
    kinds: Any = getattr(array, "dtypes", getattr(array, "dtype", None))  # of a table, or of one
    each = [*kinds] if isinstance(kinds, Iterable) else [kinds]
    dates = [str(kind) for kind in each if getattr(kind, "kind", "") in ("m", "M")]
    if dates:
        raise TypeError(
            f"{name} holds dates or durations ({dates[0]}), but numbers were expected. Pass "
            "numbers, such as seconds, or leave that column out."
        )
    if getattr(array, "requires_grad", False) is True:
        raise TypeError(
            f"{name} is a tensor that requires gradients, but an array was expected. Pass "
            f"{name}.detach()."
        )


def _rows_of_mne(one, is_list: bool) -> str:
    line = "X.get_data(picks='data').T"
    if hasattr(one, "events"):
        line = "X.get_data(picks='data').transpose(0, 2, 1)"
    if is_list:
        inner = line.replace("X", "one", 1)
        line = f"[{inner} for one in X]"
        if hasattr(one, "events"):
            line = f"[trial for one in X for trial in {inner}]"
    return line


def _rows_of_pynapple(one, is_list: bool, is_cut: bool) -> str:
    """No history crosses a gap, so that each epoch of the time support is a session."""
    n_axes = getattr(one, "ndim", None)
    name = "one" if is_list else "X"
    if n_axes is None:  # times of events
        shape = ".reshape(-1, 1)" if hasattr(one, "shape") else ""  # one series, or a group of them
        line = f"{name}.count(bin_size{', ep=epoch' if is_cut else ''}).values{shape}"
    else:
        part = f"{name}.restrict(epoch)" if is_cut else name
        shape = {1: ".reshape(-1, 1)", 2: ""}.get(n_axes, f".reshape(-1, {np.prod(one.shape[1:])})")
        line = f"{part}.values{shape}"
    loops = " for one in X" * is_list + f" for epoch in {name}.time_support" * is_cut
    return f"[{line}{loops}]" if loops else line


def _validate(estimator, X, *, reset: bool, **checks) -> np.ndarray:
    # Number types are kept, so that a memory map of integers stays one.
    try:
        with naming("X"):
            array = validate_data(estimator, X, reset=reset, **checks)
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        if "contains NaN" in reason or "contains infinity" in reason:
            raise ValueError(
                f"{reason.removesuffix('.')}. Cut such rows out with "
                "skdyn.preprocessing.BadSegments."
            ) from error
        raise
    # torch has no long doubles.
    return array.astype(np.float64) if array.dtype == np.longdouble else array


def _check_numbers(values, name: str) -> np.ndarray:
    """An array of floats, which may be NaN."""
    with naming(name):
        return check_array(
            values, ensure_2d=False, ensure_all_finite=False, dtype=float, input_name=name
        )


def _validate_each(estimator, X, *, reset: bool, **checks) -> list[np.ndarray]:
    arrays = []
    for number, one in enumerate(X):
        try:
            arrays.append(_validate(estimator, one, reset=reset and number == 0, **checks))
        except ValueError as error:
            raise ValueError(f"Session {number} of {len(X)}: {error}") from error
    return arrays


def split_sessions(array: np.ndarray, sessions, *, name: str = "X") -> list[np.ndarray]:
    """Split rows where their label changes.

    Parameters
    ----------
    array : ndarray of shape (n_samples, ...)
        Rows of time.
    sessions : array-like of shape (n_samples,) or None
        Label of each row; a contiguous run of one label is one session. None for one session.
    name : str, default="X"
        The name of the argument, for errors.

    Returns
    -------
    list of ndarray
        One per session, views.

    Raises
    ------
    ValueError
        If there are not as many labels as rows.
    """
    if sessions is None:
        return [array]
    labels = _check_labels(sessions)
    if len(labels) != len(array):
        raise ValueError(
            f"sessions has {len(labels)} labels, but {name} has {len(array)} rows. Pass one label "
            "per row."
        )
    borders = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    return np.split(array, borders)


def _check_labels(sessions) -> np.ndarray:
    """Labels of rows, none of them missing."""
    with naming("sessions"):
        is_single = isinstance(sessions, str | bytes | dict | set) or np.ndim(sessions) == 0
    if is_single:
        raise ValueError(
            f"sessions is a {type(sessions).__name__}, {sessions!r:.50}, but a label per row was "
            "expected."
        )
    if isinstance(sessions, np.ma.MaskedArray):
        _refuse_array(sessions, "sessions")
    with naming("sessions"):
        labels = check_array(sessions, ensure_2d=False, dtype=None, input_name="sessions")
        labels = column_or_1d(labels, warn=False)
    missing = np.isnat(labels) if labels.dtype.kind in "mM" else np.zeros(len(labels), dtype=bool)
    if labels.dtype == object:
        missing = np.array([one is None or one != one for one in labels])
    if missing.any():
        raise ValueError(
            f"sessions has {missing.sum()} missing labels, but a label per row was expected."
        )
    return labels


def check_targets(estimator, stimulus: Sessions, y, *, stride: int = 1) -> list[np.ndarray]:
    """Check a response, and split it as X was split.

    Parameters
    ----------
    estimator : estimator
        The estimator that the error names.
    stimulus : Sessions
        X, checked.
    y : array-like
        The response, in the form of X. It may hold NaN.
    stride : int, default=1
        A response of every stride-th row of each session is accepted, too.

    Returns
    -------
    list of ndarray of shape (n_samples,) or (n_samples, n_outputs)
        One per session, of floats.

    Raises
    ------
    ValueError
        If it is missing or does not fit X.
    """
    if y is None:
        name = type(estimator).__name__
        raise ValueError(f"{name} requires y to be passed, but the target y is None.")
    targets = like_sessions(stimulus, y, "y", stride=stride)
    widths = {target.shape[1:] for target in targets}
    if len(widths) > 1 or any(target.ndim > 2 for target in targets):
        raise ValueError(
            f"y has shapes {[target.shape for target in targets]}, but (n_samples,) or (n_samples, "
            "n_outputs) was expected, the same number of outputs in each session."
        )
    return targets


def check_weights(stimulus: Sessions, targets: list[np.ndarray], sample_weight) -> list[np.ndarray]:
    """Check weights, and split them as X was split.

    Parameters
    ----------
    stimulus : Sessions
        X, checked.
    targets : list of ndarray
        The response, checked.
    sample_weight : array-like or None
        One weight per row or per number of the response, in the form of X; None for ones.

    Returns
    -------
    list of ndarray of shape (n_samples, 1) or (n_samples, n_outputs)
        One per session.

    Raises
    ------
    ValueError
        If shapes do not agree, or a weight is negative or not finite.
    """
    if sample_weight is None:
        return [np.broadcast_to(1.0, (len(target), 1)) for target in targets]
    given = Sessions(targets, stimulus.container)
    weights = like_sessions(given, sample_weight, "sample_weight")
    for weight, target in zip(weights, targets, strict=True):
        if weight.shape not in ((len(target),), (len(target), 1), target.shape):
            raise ValueError(
                f"sample_weight has shape {weight.shape}, but y has shape {target.shape}. Pass one "
                "weight per row, or one per number of y."
            )
        if not np.all((weight >= 0) & (weight < np.inf)):
            raise ValueError("sample_weight has values below zero or not finite.")
    return [weight.reshape(len(weight), -1) for weight in weights]


def check_row_weights(recording: Sessions, sample_weight) -> list[np.ndarray] | None:
    """Check weights of rows, and split them as X was split.

    Parameters
    ----------
    recording : Sessions
        X, checked.
    sample_weight : array-like or None
        One weight per row, in the form of X or of all sessions concatenated.

    Returns
    -------
    list of ndarray of shape (n_samples,) or None
        One per session; None if all are 1.

    Raises
    ------
    ValueError
        If there is not one per row, or one is negative or not finite, or none is positive.
    """
    if sample_weight is None:
        return None
    refuse_objects(sample_weight, n_axes=(1, 2), name="sample_weight")
    lengths = [len(array) for array in recording.arrays]
    with naming("sample_weight"):
        parts = list(sample_weight) if recording.container != "array" else [sample_weight]
        if parts and np.asarray(parts[0]).ndim == 0:
            parts = [sample_weight]
        flat = np.concatenate([column_or_1d(np.asarray(part, dtype=np.float64)) for part in parts])
    if len(flat) != sum(lengths) or (len(parts) > 1 and [len(part) for part in parts] != lengths):
        raise ValueError(
            f"sample_weight has {len(flat)} numbers, but X has {sum(lengths)} rows. Pass one "
            "weight per row, in the form of X."
        )
    if not np.all((flat >= 0) & (flat < np.inf)) or not flat.any():
        raise ValueError("sample_weight has values below zero or not finite, or none above zero.")
    return np.split(flat, np.cumsum(lengths)[:-1])


def like_sessions(stimulus: Sessions, values, name: str, *, stride: int = 1) -> list[np.ndarray]:
    """Split numbers per row as X was split; they have the same form.

    Parameters
    ----------
    stimulus : Sessions
        X, checked.
    values : array-like
        Numbers, in the form of X. They may be NaN.
    name : str
        The name of the argument, for errors.
    stride : int, default=1
        Numbers of every stride-th row of each session are accepted, too.

    Returns
    -------
    list of ndarray of shape (n_samples, ...)
        One per session, of floats.
    """
    refuse_objects(values, n_axes=(1, 2), name=name)
    lengths = [len(one) for one in stimulus.arrays]
    fewer = [-(-length // stride) for length in lengths]
    if stimulus.container == "array":
        array = _check_numbers(values, name)
        if len(array) == sum(fewer):
            lengths = fewer
        if array.shape[:1] != (sum(lengths),):
            raise ValueError(
                f"X and {name} have inconsistent numbers of samples: X has {sum(lengths)} rows, "
                f"but {name} has the shape {array.shape}."
            )
        return np.split(array, np.cumsum(lengths)[:-1])
    with naming(name):
        values = list(values)
    if any(np.ndim(one) == 0 for one in values):
        raise ValueError(
            f"{name} has one number per row, but X has {len(stimulus.arrays)} sessions. Pass an "
            "array per session, in the form of X."
        )
    arrays = [_check_numbers(one, name) for one in values]
    if [len(one) for one in arrays] not in (lengths, fewer):
        raise ValueError(
            f"{name} has sessions of {[len(one) for one in arrays]} rows, but X has sessions of "
            f"{lengths} rows."
        )
    return arrays
