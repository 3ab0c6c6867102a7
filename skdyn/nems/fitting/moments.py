"""Covariances of a lagged stimulus, the sufficient statistics of linear filters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from skdyn.nems.fitting.trials import Trial
from skdyn.nems.model import INPUT

# Maximum number of entries of an explicit lagged stimulus in memory.
NUMBERS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class LaggedMoments:
    """Second moments of a lagged stimulus and a response.

    Attributes
    ----------
    stimulus : ndarray of shape (n_lags * n_channels, n_lags * n_channels)
        Second moments of the lagged stimulus.
    response : ndarray of shape (n_lags * n_channels, n_outputs)
        Cross moments with each output.
    n_lags : int
        Number of lags; lag 0 comes first.
    stimulus_mean : ndarray of shape (n_lags * n_channels,)
        Mean that was subtracted from the stimulus.
    response_mean : ndarray of shape (n_outputs,)
        Mean that was subtracted from the response.
    """

    stimulus: np.ndarray
    response: np.ndarray
    n_lags: int
    stimulus_mean: np.ndarray
    response_mean: np.ndarray


def lagged_moments(
    trials: Sequence[Trial], n_lags: int, name: str = INPUT, *, centred: bool = True
) -> LaggedMoments:
    """Compute second moments of a lagged stimulus.

    Parameters
    ----------
    trials : sequence of Trial
        Stimulus and response, with zeros before each trial. Weights per output are averaged over
        outputs.
    n_lags : int
        Number of lags.
    name : str, default="input"
        Name of the stimulus in the data.
    centred : bool, default=True
        Whether the mean of each variable is subtracted.

    Returns
    -------
    LaggedMoments
        The weighted moments.
    """
    weights = [trial.weight.mean(axis=1) for trial in trials]
    total = sum(weight.sum() for weight in weights)
    stimuli = [trial.data[name] for trial in trials]
    responses = [trial.target for trial in trials]
    # Most rows usually share one weight; only the other rows need a correction.
    common = float(np.median(np.concatenate(weights)))
    others = [weight - common for weight in weights]
    if 2 * sum(np.count_nonzero(weight) for weight in others) < sum(map(len, weights)):
        sums = [common * part for part in _products(stimuli, responses, n_lags)]
    else:
        sums, others = None, weights
    for one in zip(stimuli, responses, others, strict=True):
        if one[2].any() or sums is None:
            parts = _weighted_products(*one, n_lags)
            sums = parts if sums is None else [a + b for a, b in zip(sums, parts, strict=True)]
    assert sums is not None
    matrix, response, stimulus_mean, response_mean = (part / total for part in sums)
    if centred:
        matrix = matrix - np.outer(stimulus_mean, stimulus_mean)
        response = response - np.outer(stimulus_mean, response_mean)
    else:
        stimulus_mean, response_mean = 0 * stimulus_mean, 0 * response_mean
    return LaggedMoments(matrix, response, n_lags, stimulus_mean, response_mean)


def lagged_products(stimulus: np.ndarray, response: np.ndarray, n_lags: int) -> np.ndarray:
    """Compute sums of products of a lagged stimulus with a response.

    Parameters
    ----------
    stimulus : ndarray of shape (n_samples, n_channels)
        Rows of time, with zeros before them.
    response : ndarray of shape (n_samples, n_outputs)
        Response with the same number of rows.
    n_lags : int
        Number of lags.

    Returns
    -------
    ndarray of shape (n_lags * n_channels, n_outputs)
        sum_t x[t - l, c] y[t, n].
    """
    n_samples = len(stimulus)
    return np.concatenate(
        [stimulus[: max(n_samples - lag, 0)].T @ response[lag:] for lag in range(n_lags)]
    )


def lagged_sums(stimulus: np.ndarray, coefficients: np.ndarray, n_lags: int) -> np.ndarray:
    """Filter a stimulus linearly.

    Parameters
    ----------
    stimulus : ndarray of shape (n_samples, n_channels)
        Rows of time, with zeros before them.
    coefficients : ndarray of shape (n_lags * n_channels, n_outputs)
        Impulse responses.
    n_lags : int
        Number of lags.

    Returns
    -------
    ndarray of shape (n_samples, n_outputs)
        sum_{l, c} x[t - l, c] h[l, c, n].
    """
    output = np.zeros((len(stimulus), coefficients.shape[1]))
    for lag, part in enumerate(np.split(coefficients, n_lags)[: len(stimulus)]):
        output[lag:] += stimulus[: len(stimulus) - lag] @ part
    return output


def join(arrays: Sequence[np.ndarray], n_lags: int) -> np.ndarray:
    """Concatenate trials, each followed by zero padding for the lags.

    Parameters
    ----------
    arrays : sequence of ndarray of shape (n_samples, n_columns)
        Rows of time.
    n_lags : int
        Number of lags.

    Returns
    -------
    ndarray of shape (n_rows, n_columns)
        All rows, with n_lags rows of zeros after each trial.
    """
    if len(arrays) == 1:
        return arrays[0]
    gap = np.zeros((n_lags, arrays[0].shape[1]))
    return np.concatenate([part for array in arrays for part in (array, gap)])


def _products(stimuli, responses, n_lags: int) -> list[np.ndarray]:
    """Compute sums over time without an explicit lagged stimulus.

    The products of lags l and k differ from those of l - 1 and k - 1 only by one row at the end of
    each trial.
    """
    n_channels, n_outputs = stimuli[0].shape[1], responses[0].shape[1]
    matrix = np.zeros((n_lags, n_channels, n_lags, n_channels))
    products = np.zeros((n_lags, n_channels, n_outputs))
    sums = np.zeros(n_channels)
    for rows, response in _blocks(stimuli, responses, n_lags):
        present = rows[n_lags - 1 :]
        sums += present.sum(axis=0)
        for lag in range(min(n_lags, len(rows))):
            past = rows[n_lags - 1 - lag : len(rows) - lag]
            matrix[0, :, lag] += present.T @ past
            products[lag] += past.T @ response
    # Last rows of each trial in reverse order, padded with zeros.
    ends = np.zeros((len(stimuli), n_lags, n_channels))
    for end, stimulus in zip(ends, stimuli, strict=True):
        end[: len(stimulus)] = stimulus[::-1][:n_lags]
    for lag in range(1, n_lags):
        lost = ends[:, lag - 1].T @ ends[:, lag - 1 : -1].reshape(len(ends), -1)
        lost = lost.reshape(n_channels, n_lags - lag, n_channels)
        matrix[lag, :, lag:] = matrix[lag - 1, :, lag - 1 : -1] - lost
    for lag in range(1, n_lags):
        matrix[lag, :, :lag] = matrix[:lag, :, lag].transpose(2, 0, 1)
    totals = np.concatenate([sums[np.newaxis], -ends[:, :-1].sum(axis=0)])
    size = n_lags * n_channels
    return [
        matrix.reshape(size, size),
        products.reshape(size, n_outputs),
        np.cumsum(totals, axis=0).ravel(),
        np.sum([response.sum(axis=0) for response in responses], axis=0),
    ]


def _blocks(stimuli, responses, n_lags: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of rows in double precision, with n_lags - 1 previous rows, and responses.

    Long trials are split into several blocks, and short ones are joined, separated by zeros.
    """
    n_before = n_lags - 1
    size = max(NUMBERS_AT_ONCE // stimuli[0].shape[1], 4 * n_lags)
    waiting: list[int] = []
    for number, stimulus in enumerate(stimuli):
        if len(stimulus) <= size:
            waiting.append(number)
        else:
            for start in range(0, len(stimulus), size):
                rows = np.zeros((n_before + min(size, len(stimulus) - start), stimulus.shape[1]))
                known = stimulus[max(start - n_before, 0) : start + size]
                rows[len(rows) - len(known) :] = known
                yield rows, responses[number][start : start + size]
        is_last = number == len(stimuli) - 1
        if waiting and (is_last or sum(len(stimuli[one]) for one in waiting) >= size):
            gap = np.zeros((n_before, stimulus.shape[1]))
            yield (
                np.concatenate([gap, join([stimuli[one] for one in waiting], n_lags)]),
                join([responses[one] for one in waiting], n_lags),
            )
            waiting = []


def _weighted_products(stimulus, response, weight, n_lags: int) -> list[np.ndarray]:
    """Compute sums over rows with nonzero weight, in batches."""
    n_channels = stimulus.shape[1]
    size = n_lags * n_channels
    sums = [np.zeros((size, size)), np.zeros((size, response.shape[1])), np.zeros(size)]
    lags = np.arange(n_lags)
    counting = np.flatnonzero(weight)
    step = max(1, NUMBERS_AT_ONCE // size)
    for start in range(0, len(counting), step):
        rows = counting[start : start + step]
        places = rows[:, np.newaxis] - lags
        design = stimulus[np.maximum(places, 0)].astype(float)
        design[places < 0] = 0
        design = design.reshape(len(rows), size)
        weighted = design * weight[rows, np.newaxis]
        for total, new in zip(
            sums, (weighted.T @ design, weighted.T @ response[rows], weighted.sum(0)), strict=True
        ):
            total += new
    return [*sums, weight @ response]
