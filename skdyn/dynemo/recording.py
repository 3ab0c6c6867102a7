"""Checks of a recording before a fit: its scale, its noise floor, and likely mistakes."""

from __future__ import annotations

import numpy as np

from skdyn._warnings import warn

# Offsets of a channel, in its standard deviations, that are worth a warning.
LARGE_OFFSET = 0.5

# Ratio of the standard deviations of a session and of the median session worth a warning.
LARGE_GAIN = 3.0

# Distance of a row from the median, in robust standard deviations of its channel, and how much of
# the variance of a channel such rows hold, that are worth a warning.
FAR_OUT, LARGE_SHARE = 20.0, 0.1

# The floor of the modes' variances relative to the smallest variance of the whole recording in any
# direction, that where some directions hold nothing but noise, and its own limits.
FLOOR_SHARE, FLOOR_SHARE_OVER_NOISE, FLOOR_LIMITS = 0.001, 0.1, (1e-6, 1e-2)

# Variance relative to the largest one below which a direction counts as empty, the ratio of
# successive variances that may separate noise from signal, and the mean excess kurtosis above which
# directions are modulated, and hold signal.
EMPTY, GAP, GAUSSIAN = 1e-6, 30.0, 0.05

# Least size of a channel whose square is a number in full precision.
LEAST_SCALE = 1e-153

# Rows that medians and covariances are taken from, and that are squared at a time.
MAX_ROWS, ROWS_AT_ONCE = 2**17, 2**16


def check_scale(sessions: list[np.ndarray], *, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """Compute the shift and the scale of each channel before it enters the network.

    Parameters
    ----------
    sessions : list of ndarray of shape (n_samples, n_channels)
        The recording.
    centred : bool
        Whether the mean is subtracted.

    Returns
    -------
    center, scale : ndarray of shape (n_channels,)
        The mean of each channel over all sessions, or zero; the root mean square about it.

    Raises
    ------
    ValueError
        If a channel does not vary.
    """
    low = np.min([session.min(axis=0) for session in sessions], axis=0)
    high = np.max([session.max(axis=0) for session in sessions], axis=0)
    constant = np.flatnonzero(low == high)
    if len(constant):
        raise ValueError(
            f"Channels {constant.tolist()} of X do not vary. Remove them, for example with "
            "sklearn.feature_selection.VarianceThreshold."
        )
    n_rows = sum(map(len, sessions))
    # Dividing by the largest value first keeps squares within the range of the number type.
    largest = np.maximum(np.abs(low.astype(np.float64)), np.abs(high.astype(np.float64)))
    center = np.zeros_like(largest)
    if centred:
        sums = sum((session / largest).sum(axis=0, dtype=np.float64) for session in sessions)
        center = largest * sums / n_rows
        largest = np.maximum(high - center, center - low)
    squares = sum(_sum_of_squares(session, center, largest) for session in sessions)
    scale = largest * np.sqrt(squares / n_rows)
    if not (scale.min() > LEAST_SCALE and scale.max() < 1 / LEAST_SCALE):
        raise ValueError(
            f"X has channels of root mean squares from {scale.min():.3g} to {scale.max():.3g}, "
            "whose squares are out of the range of floats. Use other units."
        )
    return center, scale


def check_orientation(sessions: list[np.ndarray]) -> None:
    """Check that a recording has at least as many rows as columns.

    Parameters
    ----------
    sessions : list of ndarray of shape (n_samples, n_channels)
        The recording.

    Raises
    ------
    ValueError
        If it has fewer, and is likely transposed.
    """
    n_rows, n_channels = sum(map(len, sessions)), sessions[0].shape[1]
    if n_rows < n_channels:
        raise ValueError(
            f"X has {n_rows} rows and {n_channels} columns, but at least as many rows "
            "as columns were expected: rows are time, columns are channels. Pass X.T if channels "
            "are in rows."
        )


def _sum_of_squares(session: np.ndarray, center: np.ndarray, largest: np.ndarray) -> np.ndarray:
    spans = range(0, len(session), ROWS_AT_ONCE)
    blocks = ((session[i : i + ROWS_AT_ONCE] - center) / largest for i in spans)
    return sum(np.einsum("tc,tc->c", block, block, dtype=np.float64) for block in blocks)


def some_rows(sessions: list[np.ndarray], center, scale) -> list[np.ndarray]:
    """Take at most about `MAX_ROWS` rows, spread over the sessions, and scale them.

    Parameters
    ----------
    sessions : list of ndarray of shape (n_samples, n_channels)
        The recording.
    center, scale : ndarray of shape (n_channels,)
        Shift and scale of each channel.

    Returns
    -------
    list of ndarray of shape (n_rows, n_channels)
        Of each session.
    """
    step = 1 + sum(map(len, sessions)) // MAX_ROWS
    return [(session[::step] - center) / scale for session in sessions]


def floor_of_modes(rows: list[np.ndarray]) -> float:
    """Choose the floor of the modes' variances for a recording.

    It is a small share of the least variance of the recording in any direction. A recording of low
    rank, as after an average reference or a Maxfilter, or of few sources in many channels with some
    white noise, has directions without any signal. In these, modes would seem to differ by rounding
    or by an error in the size of the noise. The floor is then a larger share of the least variance
    above such directions. Weak signal differs from noise by its kurtosis, because it is modulated.

    Parameters
    ----------
    rows : list of ndarray of shape (n_rows, n_channels)
        Rows of the scaled recording.

    Returns
    -------
    float
        In units of the scaled data, from 1e-6 to 1e-2.
    """
    stacked = np.concatenate(rows)
    values, vectors = np.linalg.eigh(stacked.T @ stacked / len(stacked))
    empty = EMPTY * values[-1]
    values = np.maximum(values, empty / GAP)
    gaps = np.flatnonzero(values[1:] > GAP * values[:-1])
    floor = FLOOR_SHARE * values[0]
    for gap in gaps:
        filled = vectors[:, : gap + 1][:, values[: gap + 1] > empty]
        if not _is_noise(stacked @ filled):
            break
        floor = FLOOR_SHARE_OVER_NOISE * values[gap + 1]
    return float(np.clip(floor, *FLOOR_LIMITS))


def _is_noise(values: np.ndarray) -> bool:
    """Whether columns of zero mean have no more kurtosis than Gaussian noise."""
    if not values.size:
        return True
    squares = values**2
    kurtosis = np.mean((squares**2).mean(axis=0) / squares.mean(axis=0) ** 2) - 3
    # The standard error of a Gaussian's is the root of 24 over the number of values.
    return bool(kurtosis < max(GAUSSIAN, 3 * np.sqrt(24 / values.size)))


def warn_of_recording(rows: list[np.ndarray], *, learn_means: bool) -> None:
    """Warn of offsets, gains and artefacts that modes would describe.

    Parameters
    ----------
    rows : list of ndarray of shape (n_rows, n_channels)
        Rows of each session of the scaled recording.
    learn_means : bool
        Whether modes have means.
    """
    message = _offsets(rows, learn_means=learn_means) or _gains(rows)
    for text in (message, _artefacts(rows)):
        if text:
            warn(text, UserWarning)


def warn_of_cells(cells: set[str], device: str) -> None:
    """Warn of recurrent cells that are slow on a device.

    Parameters
    ----------
    cells : set of str
        Cells of the networks.
    device : str
        Device of the training.
    """
    if "gru" in cells and device == "cpu":
        warn(
            "A gated recurrent unit takes several times as long as an LSTM on the CPU, where "
            "torch has no fast implementation of its training; use rnn='lstm'.",
            UserWarning,
        )


def _offsets(rows: list[np.ndarray], *, learn_means: bool) -> str:
    total = np.concatenate(rows)
    spread = np.where(total.std(axis=0) > 0, total.std(axis=0), 1.0)
    offsets = np.array([one.mean(axis=0) for one in rows if len(one) > 1]).reshape(-1, len(spread))
    if learn_means:
        offsets = offsets - total.mean(axis=0)
    else:
        offsets = np.vstack([offsets, total.mean(axis=0)])
    # The mean of a short session varies by chance.
    sizes = np.array([len(one) for one in rows if len(one) > 1] + [len(total)] * (not learn_means))
    offsets = np.abs(offsets) / spread - (3 / np.sqrt(sizes))[:, np.newaxis] * (len(rows) > 1)
    if not offsets.size or offsets.max() <= LARGE_OFFSET:
        return ""
    channels = np.flatnonzero(offsets.max(axis=0) > LARGE_OFFSET).tolist()
    if learn_means:
        return (
            f"Sessions differ by up to {offsets.max():.2g} standard deviations in the mean of the "
            f"channels {_some(channels)}, which modes would have to explain; centre each session, "
            "for example with skdyn.preprocessing.SessionScaler."
        )
    return (
        f"The means of the channels {_some(channels)} lie up to {offsets.max():.2g} standard "
        "deviations from zero, and modes have zero mean; centre the channels of each session, for "
        "example with skdyn.preprocessing.SessionScaler, or set learn_means=True."
    )


def _gains(rows: list[np.ndarray]) -> str:
    spreads = np.array([one.std(axis=0) for one in rows if len(one) >= 50])
    if len(spreads) < 2:
        return ""
    middle = np.median(spreads, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.median(spreads / middle, axis=1)
    ratio = np.where(ratio < 1, 1 / np.maximum(ratio, 1e-12), ratio)
    worst = int(np.argmax(np.nan_to_num(ratio)))
    if not ratio[worst] > LARGE_GAIN:
        return ""
    return (
        f"Sessions have very different gain: the channels of session {worst} differ from those of "
        f"the median session by a factor of about {ratio[worst]:.2g}, which modes would have to "
        "explain; scale each session, for example with skdyn.preprocessing.SessionScaler."
    )


def _artefacts(rows: list[np.ndarray]) -> str:
    largest, n_far, share = 0.0, 0, 0.0
    for one in rows:
        if len(one) < 50:
            continue
        distance = np.abs(one - np.median(one, axis=0))
        spread = 1.4826 * np.median(distance, axis=0)
        usable = spread > 0
        if not usable.any():
            continue
        ratio = distance[:, usable] / spread[usable]
        far = ratio > FAR_OUT
        power = (distance[:, usable] ** 2).sum(axis=0)
        share = max(share, float(np.max((distance[:, usable] ** 2 * far).sum(axis=0) / power)))
        n_far += int(far.any(axis=1).sum())
        largest = max(largest, float(ratio.max()))
    if share <= LARGE_SHARE:
        return ""
    return (
        f"{n_far} rows lie more than {FAR_OUT:.0f} robust standard deviations from the median, "
        f"up to {largest:.3g}, and hold {share:.0%} of the variance of a channel: artefacts would "
        "take over the modes. Find them with skdyn.preprocessing.BadSegments, and leave them out "
        "or give them a sample_weight of 0."
    )


def _some(channels: list[int]) -> str:
    return str(channels) if len(channels) <= 6 else f"{str(channels[:6])[:-1]}, ...]"
