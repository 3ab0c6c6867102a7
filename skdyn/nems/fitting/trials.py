"""What a model is fitted to: checked, and cut into trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from skdyn.nems.model import Model
from skdyn.sessions import as_numbers, naming

# Stretches of which some are held out.
N_STRETCHES = 20

# Rows of a window that count in its loss.
WINDOW = 256

# Numbers that go into a model at a time, and rows that do so at least.
NUMBERS_AT_ONCE, LEAST_ROWS = 2**20, 1024


@dataclass(frozen=True)
class Trial:
    """One stretch of time, with zeros as the history before it.

    Attributes
    ----------
    data : dict of ndarray of shape (n_samples, ...)
        What goes into the model, by name.
    target : ndarray of shape (n_rows, n_outputs)
        The response; fewer rows than samples if the model has a stride.
    weight : ndarray of shape (n_rows, 1) or (n_rows, n_outputs)
        Weight of each number of the response; 0 leaves it out.
    held_out : ndarray like weight, default=None
        Weight of those numbers that a fit is watched on and that have no weight in it.
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
    """Make a trial of data, what precedes them, and a response.

    Parameters
    ----------
    model : Model
        The model; its layers know their sizes.
    data : dict of ndarray of shape (n_samples, ...)
        What goes in, by name.
    target : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        The response, or, where the model has a stride, every stride-th row of it.
    weight : ndarray of shape (n_samples, 1) or like target
        Weights.
    preceding : dict of ndarray of shape (n_preceding, ...), default=None
        Rows right before the data.
    history : {"zeros", "skip"}, default="zeros"
        Whether rows whose history is incomplete count as if there had been zeros, or not at all.

    Returns
    -------
    Trial
        With a row of the response for each row that the model gives.
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
    # In one order in memory: matrix products of slices of others are many times as slow.
    target = np.ascontiguousarray(target if counts.all() else np.where(counts, target, 0.0))
    if history == "skip":
        weight = np.where(model.has_history(len(target), n_before)[:, np.newaxis], weight, 0.0)
    empty = n_before // stride
    if empty:
        target = np.concatenate([np.zeros((empty, target.shape[1])), target])
        weight = np.concatenate([np.zeros((empty, weight.shape[1])), weight])
    return Trial(data, target, weight)


def some_rows(model: Model, trials: Sequence[Trial], most: int) -> list[Trial]:
    """Take a stretch in the middle of each trial, so that there are not too many rows in all.

    Parameters
    ----------
    model : Model
        The model. Rows of a stretch whose history it leaves out have no weight.
    trials : sequence of Trial
        A recording.
    most : int
        The most rows in all trials together.

    Returns
    -------
    list of Trial
        The trials as they are if they have no more rows; otherwise views of stretches.
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
    """Compute what comes out of a model for one trial, of a long one in pieces.

    Parameters
    ----------
    model : Model
        The model.
    data : dict of ndarray of shape (n_samples, ...)
        What goes in, by name.
    copies : bool, default=False
        Whether layers get copies in double precision, which they may write to.

    Returns
    -------
    ndarray of shape (n_rows, n_outputs)
        The output. What the pieces need in memory does not grow with n_samples.
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
    """Copies in double precision, which layers may write to."""
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
    """Check what a model is to be fitted to, and cut it into trials.

    Parameters
    ----------
    model : Model
        The model; it takes sizes that are open from the data.
    given : tuple
        Input and state, as in `Model.evaluate`.
    target : array-like of shape (n_samples,) or (n_samples, n_outputs)
        The response; with `trials`, with an axis of trials in front. Where it has no weight it may
        be NaN; and, with `trials`, where nothing was recorded.
    sample_weight : array-like of shape (n_samples,) or like the target, or None
        Weights; None for one each.
    trials : bool
        Whether the first axis is one of trials.
    preceding : array-like or dict of array-like, default=None
        Rows right before the input, of each trial if there are trials.
    history : {"zeros", "skip"}, default="zeros"
        What becomes of rows whose history is incomplete.

    Returns
    -------
    list of Trial
        At least one.

    Raises
    ------
    ValueError
        If shapes do not agree, or numbers are missing.
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
    """Weights, with an axis of outputs behind those of trials and samples."""
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
    """Raise ValueError if nothing has weight.

    Parameters
    ----------
    trials : sequence of Trial
        What a model is to predict.
    model : Model
        The model.
    history : {"zeros", "skip"}
        What becomes of rows whose history is incomplete.
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
    """Take the weight from some stretches of a recording, to watch a fit on them.

    Stretches stay where they are: what follows them keeps its history.

    Parameters
    ----------
    trials : sequence of Trial
        The recording.
    share : float in (0, 1)
        Which share of the rows to hold out, at least one stretch.
    random_state : RandomState
        Draws the stretches, out of 20 of equal length in all trials together, or as many as there
        are rows.

    Returns
    -------
    list of Trial
        With weights that are held out.

    Raises
    ------
    ValueError
        If nothing with weight is left on either side.
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
    """Cut trials into windows of one length, in which each row counts once.

    Rows that come before those of a window go in with it, without weight, as the history that
    filters see. Trials stay whole if the history of a layer is not known, or the future counts.

    Parameters
    ----------
    model : Model
        Whose layers say how far back they look.
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
