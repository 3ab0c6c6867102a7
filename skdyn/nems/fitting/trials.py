"""Training data: checks, and division into trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from skdyn.nems.model import Model
from skdyn.sessions import as_numbers, naming

# Number of segments, some of which are held out.
N_STRETCHES = 20

# Number of rows of a window that enter its loss.
WINDOW = 256

# Maximum number of input values per evaluation of a model, and minimum number of rows.
NUMBERS_AT_ONCE, LEAST_ROWS = 2**20, 1024


@dataclass(frozen=True)
class Trial:
    """One continuous segment of data, with zeros as the history before it.

    Attributes
    ----------
    data : dict of ndarray of shape (n_samples, ...)
        Inputs of the model by name.
    target : ndarray of shape (n_rows, n_outputs)
        The response; fewer rows than samples if the model has a stride.
    weight : ndarray of shape (n_rows, 1) or (n_rows, n_outputs)
        Weight of each entry of the response; 0 excludes it.
    held_out : ndarray like weight, default=None
        Weight of held-out entries, for which `weight` is 0.
    """

    data: dict[str, np.ndarray]
    target: np.ndarray
    weight: np.ndarray
    held_out: np.ndarray | None = None


def make_trial(
    model: Model,
    data: dict[str, np.ndarray],
    target: np.ndarray,
    weight: np.ndarray,
    preceding: dict[str, np.ndarray] | None = None,
    history: str = "zeros",
) -> Trial:
    """Build a trial from data, preceding rows, and a response.

    Parameters
    ----------
    model : Model
        The model, with known sizes of all layers.
    data : dict of ndarray of shape (n_samples, ...)
        Inputs by name.
    target : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        The response or, for a model with a stride, every stride-th row of it.
    weight : ndarray of shape (n_samples, 1) or like target
        Weights.
    preceding : dict of ndarray of shape (n_preceding, ...), default=None
        Rows immediately before the data.
    history : {"zeros", "skip"}, default="zeros"
        Whether rows with an incomplete history are zero-padded or excluded.

    Returns
    -------
    Trial
        The trial, with one row of the response per row of the model's output.
    """
    stride = model.stride
    n_samples = _n_samples(data)
    data, n_before = model.with_preceding(data, preceding)
    target = model.at_rate(target.reshape(len(target), -1), n_samples)
    weight = model.at_rate(weight, n_samples)
    counts = np.broadcast_to(weight > 0, target.shape)
    if (~np.isfinite(target) & counts).any():
        raise ValueError(
            "The response, y or target, contains NaN or infinite values where it has weight; give "
            "those a sample_weight of 0 to leave them out."
        )
    # C order, because matrix products of slices in other layouts are many times slower.
    target = np.ascontiguousarray(target if counts.all() else np.where(counts, target, 0.0))
    if history == "skip":
        weight = np.where(model.has_history(len(target), n_before)[:, np.newaxis], weight, 0.0)
    empty = n_before // stride
    if empty:
        target = np.concatenate([np.zeros((empty, target.shape[1])), target])
        weight = np.concatenate([np.zeros((empty, weight.shape[1])), weight])
    return Trial(data, target, weight)


def some_rows(model: Model, trials: Sequence[Trial], most: int) -> list[Trial]:
    """Take a segment in the middle of each trial, to limit the total number of rows.

    Parameters
    ----------
    model : Model
        The model. Rows without a complete history in the segment get zero weight.
    trials : sequence of Trial
        A recording.
    most : int
        Maximum number of rows in all trials together.

    Returns
    -------
    list of Trial
        The unchanged trials if they have no more rows; otherwise views of segments.
    """
    total = sum(len(trial.target) for trial in trials)
    if total <= most:
        return list(trials)
    some = []
    for trial in trials:
        n_rows = len(trial.target)
        length = max(-(-n_rows * most // total), 1)
        start = (n_rows - length) // 2
        rows = slice(start, start + length)
        samples = slice(start * model.stride, (start + length) * model.stride)
        weight = trial.weight[rows]
        if start:
            weight = np.where(model.has_history(length)[:, np.newaxis], weight, 0.0)
        data = {name: array[samples] for name, array in trial.data.items()}
        some.append(Trial(data, trial.target[rows], weight))
    return some if any(one.weight.any() for one in some) else list(trials)


def output_in_pieces(
    model: Model, data: dict[str, np.ndarray], *, copies: bool = False
) -> np.ndarray:
    """Compute the output of a model for one trial, in pieces if it is long.

    Parameters
    ----------
    model : Model
        The model.
    data : dict of ndarray of shape (n_samples, ...)
        Inputs by name.
    copies : bool, default=False
        Whether layers receive writable copies in double precision.

    Returns
    -------
    ndarray of shape (n_rows, n_outputs)
        The output. The memory of the computation does not grow with n_samples.
    """
    given = _of_doubles if copies else dict
    n_samples, past = _n_samples(data), model.n_past
    widest = max(array.size // max(len(array), 1) for array in data.values())
    size = max(NUMBERS_AT_ONCE // max(widest, 1), LEAST_ROWS, 4 * (past or 0))
    if past is None or model.n_future or model.stride > 1 or n_samples <= size:
        return np.asarray(model.output(given(data)))
    parts = []
    for start in range(0, n_samples, size):
        first = max(0, start - past)
        rows = {name: array[first : start + size] for name, array in data.items()}
        parts.append(np.asarray(model.output(given(rows)))[start - first :])
    return np.concatenate(parts)


def _of_doubles(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return writable copies in double precision."""
    return {name: np.array(array, dtype=float, order="C") for name, array in data.items()}


def make_trials(
    model: Model,
    given: tuple,
    target,
    sample_weight,
    trials: bool,
    preceding=None,
    history: str = "zeros",
) -> list[Trial]:
    """Check training data and divide them into trials.

    Parameters
    ----------
    model : Model
        The model; missing sizes are inferred from the data.
    given : tuple
        Input and state, as in `Model.evaluate`.
    target : array-like of shape (n_samples,) or (n_samples, n_outputs)
        The response; with `trials`, its first axis is trials. It may be NaN where its weight is 0
        and, with `trials`, where nothing was recorded.
    sample_weight : array-like of shape (n_samples,) or like the target, or None
        Weights; None for weights of one.
    trials : bool
        Whether the first axis is trials.
    preceding : array-like or dict of array-like, default=None
        Rows immediately before the input, or before each trial.
    history : {"zeros", "skip"}, default="zeros"
        Treatment of rows with an incomplete history.

    Returns
    -------
    list of Trial
        At least one trial.

    Raises
    ------
    ValueError
        If shapes do not match, or values are missing.
    """
    data, target = model.check_data(*given), as_numbers(target, "target")
    weight = _check_weight(sample_weight, target, n_axes=2 if trials else 1)
    with naming("preceding"):
        before = None if preceding is None else model.check_data(preceding)
    if 0 in target.shape:
        raise ValueError(f"target has the shape {target.shape}, but has to have rows and outputs.")
    if not trials:
        data = {name: array[None] for name, array in data.items()}
        before = before and {name: array[None] for name, array in before.items()}
        target, weight = target[None], weight[None]
    else:
        missing = ~np.isfinite(target.reshape(*target.shape[:2], -1))
        if missing.any():
            weight = np.where(missing, 0.0, np.broadcast_to(weight, missing.shape))
    n_trials = max(len(array) for array in data.values())
    if target.ndim < 2 or (n_trials not in (1, len(target))):
        raise ValueError(
            f"The input has {n_trials} trials, but the target, the response, has the shape "
            f"{target.shape}: their first axes must match, unless all repeat one trial of the "
            "input."
        )
    model.take_outputs(int(np.prod(target.shape[2:])))
    few = {name: array[0] for name, array in data.items()}
    model.take_sizes(model.with_response(few, target[0]))

    def of(arrays, number):
        return {name: array[0 if len(array) == 1 else number] for name, array in arrays.items()}

    return [
        make_trial(
            model,
            model.with_response(of(data, number), target[number]),
            target[number],
            weight[number],
            before and of(before, number),
            history,
        )
        for number in range(len(target))
    ]


def _n_samples(data: dict[str, np.ndarray]) -> int:
    return len(next(iter(data.values())))


def _check_weight(sample_weight, target: np.ndarray, n_axes: int) -> np.ndarray:
    """Return weights with an axis of outputs after those of trials and samples."""
    samples = target.shape[:n_axes]
    weight = np.ones(samples)
    if sample_weight is not None:
        weight = as_numbers(sample_weight, "sample_weight")
    usable = np.all((weight >= 0) & (weight < np.inf))
    if weight.shape not in (samples, (*samples, 1), target.shape) or not usable:
        raise ValueError(
            f"sample_weight has the shape {weight.shape}: expected finite weights of at least 0, "
            f"one per sample, {samples}, or one per number of the response, {target.shape}."
        )
    return weight.reshape(*samples, -1)


def check_weighted(trials: Sequence[Trial], model: Model, history: str) -> None:
    """Raise ValueError if all weights are zero.

    Parameters
    ----------
    trials : sequence of Trial
        The trials to predict.
    model : Model
        The model.
    history : {"zeros", "skip"}
        Treatment of rows with an incomplete history.
    """
    if any(trial.weight.any() for trial in trials):
        return
    longest = max(_n_samples(trial.data) for trial in trials)
    if history == "skip" and longest <= (model.n_past or 0) + model.n_future:
        raise ValueError(
            f"The model looks back {model.n_past} rows, but n_samples = {longest} in the longest "
            "session, so that no row has a complete history. Use fewer lags, or history='zeros'."
        )
    raise ValueError("All numbers of sample_weight are zero; at least one must be positive.")


def hold_out(
    trials: Sequence[Trial], share: float, random_state: np.random.RandomState
) -> list[Trial]:
    """Hold out segments of a recording, by moving their weights.

    Segments stay in place, so that rows after them keep their history.

    Parameters
    ----------
    trials : sequence of Trial
        The recording.
    share : float in (0, 1)
        Fraction of the rows to hold out, at least one segment.
    random_state : RandomState
        Source of the draw of segments, out of 20 of equal length in all trials together, or one per
        row if there are fewer rows.

    Returns
    -------
    list of Trial
        Trials with held-out weights.

    Raises
    ------
    ValueError
        If the held-out or the remaining weights are all zero.
    """
    ends = np.cumsum([len(trial.target) for trial in trials])
    n_stretches = min(N_STRETCHES, int(ends[-1]))
    if n_stretches < 2:
        raise ValueError("early_stopping holds rows out, but n_samples = 1; use at least 2 rows.")
    n_chosen = max(1, round(share * n_stretches))
    chosen = np.zeros(n_stretches, dtype=bool)
    chosen[random_state.permutation(n_stretches)[:n_chosen]] = True
    rows = chosen[np.arange(ends[-1]) * n_stretches // ends[-1], np.newaxis]
    parts = [
        Trial(trial.data, trial.target, np.where(out, 0, trial.weight), out * trial.weight)
        for trial, out in zip(trials, np.split(rows, ends[:-1]), strict=True)
    ]
    for side in ("weight", "held_out"):
        if not any(getattr(part, side).any() for part in parts):
            raise ValueError(
                f"validation_fraction={share} of {ends[-1]} rows leaves none with weight to "
                f"{'fit' if side == 'weight' else 'watch'}; change it, or set early_stopping=False."
            )
    return parts


def cut_windows(model: Model, trials: Sequence[Trial]) -> list[Trial]:
    """Cut trials into windows of equal length, in which each row counts once.

    Each window includes the rows before it with zero weight, as history for filters. Trials are not
    cut if the memory of a layer is unlimited, or if an output depends on future rows.

    Parameters
    ----------
    model : Model
        The model, which determines the length of the history.
    trials : sequence of Trial
        A recording.

    Returns
    -------
    list of Trial
        The windows; views of the trials.
    """
    if model.n_past is None or model.n_future or model.stride > 1:
        return list(trials)
    size = model.n_past + WINDOW
    windows = []
    for trial in trials:
        n_samples = len(trial.target)
        if n_samples <= size:
            windows.append(trial)
            continue
        done = 0
        while done < n_samples:
            start = max(0, min(done - model.n_past, n_samples - size))
            rows = slice(start, start + size)
            counts = (np.arange(rows.start, min(rows.stop, n_samples)) >= done)[:, np.newaxis]
            windows.append(
                replace(
                    trial,
                    data={name: array[rows] for name, array in trial.data.items()},
                    target=trial.target[rows],
                    weight=counts * trial.weight[rows],
                    held_out=None if trial.held_out is None else counts * trial.held_out[rows],
                )
            )
            done = start + size
    return windows
