"""Pictures of any time series, and of any matrices."""

from __future__ import annotations

from skdyn._drawing import (
    INK,
    LABEL_SIZE,
    as_arrays,
    as_stack,
    check_names,
    check_rate,
    color_limits,
    draw_borders,
    draw_colorbar,
    draw_images,
    draw_legend,
    draw_overlay,
    draw_rows,
    grid_edges,
    matrix_panels,
    panels,
    session_lengths,
    with_gaps,
)


def plot_separate_time_series(
    *time_series,
    n_samples=None,
    sampling_frequency=None,
    labels=None,
    channel_names=None,
    ax=None,
    fig=None,
):
    """
    Draw channels in rows on one time axis; several arrays are laid over each other.

    Parameters
    ----------
    *time_series : array-like of shape (n_samples, n_channels), list of such, or array of shape \
            (n_sessions, n_samples, n_channels)
        All with the same number of channels. NaN leaves a gap. Sessions follow each other, with a
        line between them.
    n_samples : int, default=None
        Draw the first `n_samples` rows; with None all.
    sampling_frequency : float, default=None
        In Hz; the time axis is then in seconds. With None it counts samples.
    labels : list of str, default=None
        A name per array, for the legend.
    channel_names : list of str, default=None
        A name per row, with the unit; with None "Channel 0", "Channel 1" and so on.
    ax : Axes or sequence of Axes, default=None
        Axes to draw into, one per channel; mutually exclusive with `fig`.
    fig : Figure or SubFigure, default=None
        Figure to add the rows to; None creates one.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_channels,)
        The figure and its rows.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import plot_separate_time_series
    >>> true, inferred = np.random.default_rng(0).standard_normal((2, 200, 3))
    >>> fig, axes = plot_separate_time_series(true, inferred, labels=["True", "Inferred"])
    """
    series = as_arrays(time_series, "n_channels", finite=False, name="time_series")
    widths = sorted({values.shape[1] for values in series})
    if len(widths) > 1:
        raise ValueError(
            f"The arrays have {' and '.join(map(str, widths))} channels, but one number of "
            "channels was expected. Plot them separately."
        )
    n_channels = widths[0]
    names = check_names(channel_names, n_channels, "channel_names")
    names = [f"Channel {k}" for k in range(n_channels)] if names is None else names
    check_names(labels, len(series), "labels")
    fig, axes = panels(n_channels, ax, fig, (7.5, 0.9 + 0.62 * n_channels), sharex=True)
    times = draw_rows(axes, series, n_samples, sampling_frequency, None)
    lengths = [session_lengths(given) for given in time_series]
    lines = [
        with_gaps(time, values[: len(time)], own)
        for time, values, own in zip(times, series, lengths, strict=True)
    ]
    edges = grid_edges(axes)
    for channel, (row, name, (bottom, _)) in enumerate(zip(axes, names, edges, strict=True)):
        courses = [(time, values[:, channel]) for time, values in lines]
        draw_overlay(row, courses, labels, bottom=bottom)
        draw_borders(row, max(lengths, key=len), check_rate(sampling_frequency))
        row.set_ylabel(f"{name}", size=LABEL_SIZE, color=INK, rotation=0, ha="right", va="center")
        row.yaxis.set_label_coords(-0.065, 0.5)
    if labels is not None:
        draw_legend(axes[0], len(labels))
    return fig, axes


def plot_matrices(
    matrices,
    *,
    titles=None,
    vmin=None,
    vmax=None,
    cmap="RdBu_r",
    colorbar=True,
    colorbar_label="Value",
    xlabel="Channel",
    ylabel="Channel",
    n_columns=None,
    ax=None,
    fig=None,
):
    """
    Draw a stack of matrices in a near-square grid, on one colour scale.

    Parameters
    ----------
    matrices : array-like of shape (n_matrices, n_rows, n_columns) or (n_rows, n_columns)
        The matrices; NaN entries are grey.
    titles : list of str, default=None
        One per matrix.
    vmin, vmax : float, default=None
        Ends of the colour scale. By default it is symmetric about 0: up to the largest
        magnitude if neither is given, or from the given one to its negative.
    cmap : str or Colormap, default="RdBu_r"
        Colour map; the default is white at the middle of the scale.
    colorbar : bool, default=True
        Whether to draw the colour bar.
    colorbar_label : str, default="Value"
        Label of the colour bar, with the unit.
    xlabel, ylabel : str, default="Channel"
        Labels of columns and rows.
    n_columns : int, default=None
        Panels in a row; with None the square root of their number, rounded up.
    ax : Axes or sequence of Axes, default=None
        Axes to draw into, one per matrix; mutually exclusive with `fig`.
    fig : Figure or SubFigure, default=None
        Figure to add the panels to; None creates one.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_matrices,)
        The figure and its panels.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import plot_matrices
    >>> fig, axes = plot_matrices(np.eye(4)[None], titles=["Identity"], vmax=1)
    """
    stack = as_stack(matrices)
    check_names(titles, len(stack), "titles")
    vmin, vmax = color_limits(stack, vmin, vmax)
    fig, axes = matrix_panels(len(stack), n_columns, ax, fig)
    images = draw_images(axes, stack, cmap, vmin, vmax, labels=(xlabel, ylabel))
    for panel, title in zip(axes, titles or [], strict=bool(titles)):
        panel.set_title(title, size=LABEL_SIZE, color=INK)
    if colorbar:
        draw_colorbar(fig, axes, images[0], stack, colorbar_label)
    return fig, axes
