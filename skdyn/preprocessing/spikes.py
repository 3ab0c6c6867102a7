"""Conversion between spike times and counts in bins."""

from __future__ import annotations

import numpy as np


def count_spikes(times, *, sampling_frequency, n_samples=None, start=0.0):
    """Count spikes in bins.

    Bin k holds the times from start + k / sampling_frequency, which belongs to it, to the start of
    the next bin, which does not.

    Parameters
    ----------
    times : array-like of shape (n_spikes,), or list of such
        Spike times of one unit, or of each of several units, in seconds, in any order.
    sampling_frequency : float
        Bins per second, in Hz.
    n_samples : int, default=None
        Number of bins; None for the bins up to the last spike.
    start : float, default=0.0
        Time at which bin 0 starts, in seconds, such as the onset of a trial.

    Returns
    -------
    ndarray of int of shape (n_samples, n_units)
        Number of spikes in each bin. Spikes before the first bin, or after the last, do not count.

    Raises
    ------
    ValueError
        If the sampling frequency is not above 0, or times are not finite or not in 1-D arrays.

    See Also
    --------
    spike_times : The inverse.

    Examples
    --------
    >>> from skdyn.preprocessing import count_spikes
    >>> count_spikes([[0.01, 0.012, 0.035], [0.02]], sampling_frequency=100, n_samples=4).T
    array([[0, 2, 0, 1],
           [0, 0, 1, 0]])
    """
    _check_rate(sampling_frequency)
    several = len(times) > 0 and np.ndim(times[0]) > 0
    units = [np.asarray(unit, dtype=float) for unit in (times if several else [times])]
    if any(unit.ndim != 1 or not np.isfinite(unit).all() for unit in units):
        raise ValueError(
            "times must be finite numbers in an array of shape (n_spikes,), or a list of such "
            "arrays, one for each unit."
        )
    if n_samples is None:
        last = max((unit.max(initial=-np.inf) for unit in units), default=-np.inf)
        most = max(int((last - start) * sampling_frequency), -1) + 2 if last >= start else 0
        starts = start + np.arange(most) / sampling_frequency
        n_samples = int(np.searchsorted(starts, last, side="right"))
    # Starts of bins are divided, so that times that are multiples of a bin are found in their own.
    starts = start + np.arange(n_samples + 1) / sampling_frequency
    counts = np.zeros((n_samples, len(units)), dtype=int)
    for number, unit in enumerate(units):
        places = np.searchsorted(starts, unit, side="right") - 1
        inside = places[(places >= 0) & (places < n_samples)]
        counts[:, number] = np.bincount(inside, minlength=n_samples)
    return counts


def spike_times(counts, *, sampling_frequency, start=0.0):
    """Spread the spikes of each bin evenly over it; the inverse of `count_spikes`.

    Parameters
    ----------
    counts : array-like of int of shape (n_samples,) or (n_samples, n_units)
        Number of spikes in each bin.
    sampling_frequency : float
        Bins per second, in Hz.
    start : float, default=0.0
        Time at which bin 0 starts, in seconds.

    Returns
    -------
    list of ndarray of shape (n_spikes,)
        Spike times of each unit in seconds, ascending: the only spike of a bin lies in its middle,
        and n of them at (k + 1/2) / n of it. `count_spikes` restores the counts.

    Raises
    ------
    ValueError
        If counts are not whole numbers of at least 0.

    Examples
    --------
    >>> from skdyn.preprocessing import spike_times
    >>> spike_times([0, 2, 1], sampling_frequency=10)
    [array([0.125, 0.175, 0.25 ])]
    """
    _check_rate(sampling_frequency)
    array = np.asarray(counts)
    array = array[:, np.newaxis] if array.ndim == 1 else array
    if (
        array.ndim != 2
        or array.dtype.kind not in "uifb"
        or not np.all((array >= 0) & (array == np.floor(array)) & np.isfinite(array))
    ):
        raise ValueError(
            "counts must be whole numbers of at least 0, of shape (n_samples,) or (n_samples, "
            f"n_units), but has shape {array.shape} and type {array.dtype}."
        )
    units = []
    for column in array.astype(int).T:
        bins = np.repeat(np.arange(len(column)), column)
        within = np.arange(len(bins)) - np.repeat(np.cumsum(column) - column, column)
        units.append(start + (bins + (within + 0.5) / column[bins]) / sampling_frequency)
    return units


def _check_rate(sampling_frequency) -> None:
    if not sampling_frequency > 0:
        raise ValueError(f"sampling_frequency must be above 0 Hz, but is {sampling_frequency!r}.")
