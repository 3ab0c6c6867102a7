"""What a model is fitted to: checked, and cut into trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from skdyn.nems.objective import Trial

if TYPE_CHECKING:
    from skdyn.nems.model import Model

# Stretches of which some are held out.
N_STRETCHES = 20


def make_trials(model: Model, given, target, sample_weight, trials: bool) -> list[Trial]:
    """Check what a model is to be fitted to, and cut it into trials.

    Parameters
    ----------
    model : Model
        The model.
    given : tuple
        Input and state, as in `Model.evaluate`.
    target : array-like of shape (n_samples,) or (n_samples, n_outputs)
        The response; with `trials`, with an axis of trials in front. Where it has no weight it may
        be NaN.
    sample_weight : array-like of shape (n_samples,) or like the target, or None
        Weights; None for one each.
    trials : bool
        Whether the first axis is one of trials.

    Returns
    -------
    list of Trial
        At least one.

    Raises
    ------
    ValueError
        If shapes do not agree, or numbers are missing.
    """
    data, target = model.check_data(*given), np.asarray(target, dtype=float)
    weight = _check_weight(sample_weight, target, n_axes=2 if trials else 1)
    if not trials:
        data = {name: array[None] for name, array in data.items()}
        target, weight = target[None], weight[None]
    n_trials, n_samples = (max(np.shape(a)[axis] for a in data.values()) for axis in (0, 1))
    if target.shape[:2] != (n_trials, n_samples):
        raise ValueError(
            f"Got {n_trials} trials of {n_samples} samples, and a response of {target.shape[:2]}, "
            "expected as many."
        )
    counts = np.broadcast_to(weight > 0, (n_trials, n_samples, max(target[0, 0].size, 1)))
    missing = ~np.isfinite(target).reshape(counts.shape)
    if (missing & counts).any():
        raise ValueError(
            "Got a response with NaN or infinite values, expected numbers; give those a "
            "sample_weight of 0 to leave them out."
        )
    # In one order in memory: matrix products of slices of others are many times as slow.
    target = np.ascontiguousarray(np.where(missing.reshape(target.shape), 0.0, target))
    return [
        Trial(
            {name: array[0 if len(array) == 1 else number] for name, array in data.items()},
            target[number].reshape(n_samples, -1),
            weight[number],
        )
        for number in range(n_trials)
    ]


def _check_weight(sample_weight, target: np.ndarray, n_axes: int) -> np.ndarray:
    """Weights, with an axis of outputs behind those of trials and samples."""
    samples = target.shape[:n_axes]
    weight = np.ones(samples) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    usable = np.all((weight >= 0) & (weight < np.inf))
    if weight.shape not in (samples, (*samples, 1), target.shape) or not usable:
        raise ValueError(
            f"Got sample_weight of shape {weight.shape}, expected finite weights of at least zero, "
            f"one per sample, {samples}, or one per number of the response, {target.shape}."
        )
    return weight.reshape(*samples, -1)


def check_weighted(trials: Sequence[Trial]) -> None:
    """Make sure that something has weight.

    Parameters
    ----------
    trials : sequence of Trial
        What a model is to predict.

    Raises
    ------
    ValueError
        If all weights are zero.
    """
    if not any(trial.weight.any() for trial in trials):
        raise ValueError("Got sample weights that are all zero, expected some above zero.")


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
        raise ValueError(
            "Got n_samples = 1, expected at least 2 to hold some out; do not stop early."
        )
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
                f"Got {ends[-1]} rows, of which a share of {share} leaves none with weight to "
                f"{'fit' if side == 'weight' else 'watch'}, expected some; change "
                "validation_fraction, or do not stop early."
            )
    return parts
