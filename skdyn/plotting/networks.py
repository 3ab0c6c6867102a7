"""Pictures of networks of channels and of maps of the head."""

from __future__ import annotations

import numpy as np

from skdyn._drawing import as_stack
from skdyn.analysis.pictures import N_EDGES, draw_circles, draw_topomaps
from skdyn.sessions import as_numbers


def plot_circles(
    matrices,
    *,
    n_edges=N_EDGES,
    channel_names=None,
    order=None,
    label="Value",
    mode_labels=None,
    ax=None,
    fig=None,
):
    """
    Draw the strongest edges of networks as arcs between channels on a circle, one per mode.

    Parameters
    ----------
    matrices : array-like of shape (n_modes, n_channels, n_channels) or (n_channels, n_channels)
        Coherence, correlations or the like. The upper triangle is used; zeros and NaN are no edges.
    n_edges : int, default=20
        Edges of each mode: those of largest absolute value.
    channel_names : list of str, default=None
        Names; with None the numbers of channels. Channels without an edge have no name in the
        picture.
    order : array-like of int of shape (n_channels,), default=None
        Channels clockwise from the top, the first half on the right; with None as they are.
    label : str, default="Value"
        Label of the colour bar.
    mode_labels : list of str, default=None
        Titles; with None "Mode 0", "Mode 1" and so on.
    ax : Axes or sequence of Axes, default=None
        Axes to draw into, one per mode; mutually exclusive with `fig`.
    fig : Figure or SubFigure, default=None
        Figure to add the panels to; None creates one, with room for the names.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_modes,)
        The figure and its panels. Strong edges are dark and wide; colours have one scale.

    See Also
    --------
    skdyn.analysis.ModeBand.plot_circles : Coherence of the modes in a band.
    skdyn.analysis.ChannelModes.plot_circles : Correlations of the modes.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import plot_circles
    >>> coherence = np.random.default_rng(0).random((2, 8, 8))
    >>> fig, axes = plot_circles(coherence, n_edges=5, label="Coherence")
    """
    stack = as_stack(matrices)
    if stack.shape[1] != stack.shape[2]:
        raise ValueError(
            f"matrices has shape {stack.shape}, but (n_modes, n_channels, n_channels) was expected."
        )
    return draw_circles(stack, n_edges, order, channel_names, label, mode_labels, ax, fig)


def plot_topomaps(
    values, positions, *, channel_names=None, label="Value", mode_labels=None, ax=None, fig=None
):
    """
    Draw maps of the head by MNE's `plot_topomap`, one per mode, on one colour scale.

    Parameters
    ----------
    values : array-like of shape (n_modes, n_channels) or (n_channels,)
        One number per channel.
    positions : mne.Info or array-like of shape (n_channels, 2)
        An Info with a montage, or x and y of each channel.
    channel_names : list of str, default=None
        Names, by which the channels are found in an Info; with None it has the same channels in the
        same order.
    label : str, default="Value"
        Label of the colour bar, with the unit.
    mode_labels : list of str, default=None
        Titles; with None "Mode 0", "Mode 1" and so on.
    ax : Axes or sequence of Axes, default=None
        Axes to draw into, one per mode; mutually exclusive with `fig`.
    fig : Figure or SubFigure, default=None
        Figure to add the panels to; None creates one.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_modes,)
        The figure and its panels. Colours are symmetric about 0 if values have both signs.

    Raises
    ------
    ImportError
        If MNE is not installed.
    ValueError
        If values are not finite, or positions do not match them.

    See Also
    --------
    skdyn.analysis.ModeBand.plot_topomaps : Power of the modes in a band.

    Examples
    --------
    >>> import mne
    >>> import numpy as np
    >>> from skdyn.plotting import plot_topomaps
    >>> names = ["Fp1", "Fp2", "C3", "C4", "O1", "O2"]
    >>> info = mne.create_info(names, 100, "eeg").set_montage("biosemi32")
    >>> fig, axes = plot_topomaps(np.eye(2, 6), info)
    """
    numbers = np.atleast_2d(as_numbers(values, "values"))
    if numbers.ndim != 2 or 0 in numbers.shape or not np.isfinite(numbers).all():
        raise ValueError(
            f"values has shape {numbers.shape}, but (n_modes, n_channels) of finite numbers was "
            "expected."
        )
    cmap = "RdBu_r" if numbers.min() < 0 < numbers.max() else "viridis"
    return draw_topomaps(numbers, cmap, positions, channel_names, label, mode_labels, ax, fig)
