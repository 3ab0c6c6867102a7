"""Pictures of encoding models: filters, nonlinearities and predictions."""

from __future__ import annotations

from numbers import Integral

import numpy as np

from skdyn._drawing import (
    INK,
    LABEL_SIZE,
    PALETTE,
    TICK_SIZE,
    check_count,
    check_names,
    check_rate,
    color_limits,
    draw_borders,
    draw_colorbar,
    draw_images,
    draw_legend,
    draw_rows,
    grid_edges,
    panels,
    tidy,
    with_gaps,
)
from skdyn.metrics import correlation_score
from skdyn.plotting.filters import linear_filter
from skdyn.sessions import as_numbers, in_sessions, join_sessions, naming

# Points of a curve, and the most channels of which each has its name beside it.
N_POINTS, MOST_NAMES = 200, 12
# Colours of the measured response and of the prediction.
MEASURED, PREDICTED = "0.7", PALETTE[0]
MEASURED_MEAN = "Measured \N{PLUS-MINUS SIGN} SE"

# Ticks of an axis of lags.
MOST_TICKS = 4


def plot_filters(
    filters,
    *,
    lags=None,
    sampling_frequency=None,
    channel_names=None,
    frequencies=None,
    titles=None,
    vmin=None,
    vmax=None,
    cmap="RdBu_r",
    colorbar=True,
    colorbar_label="Weight",
    n_columns=None,
    ax=None,
    fig=None,
):
    """
    Draw filters over lag and channel, a panel each, on one colour scale.

    Parameters
    ----------
    filters : array-like of shape (n_lags, n_channels) or (n_lags, n_channels, n_filters), or \
            estimator
        Weights, such as those of :func:`linear_filter`; or a fitted `NEMSRegressor`, or a fitted
        pipeline or search that holds one. Channel 0 is drawn at the bottom.
    lags : array-like of int of shape (n_lags,), default=None
        Lags of the rows in samples, each one more than the one before; with None they count from
        0, the present, or are those of an estimator's filters.
    sampling_frequency : float, default=None
        In Hz; lags are then in ms, or in s if one is a second or more. With None they count
        samples.
    channel_names : list of str, default=None
        A name per channel; of more than 12, only some are written.
    frequencies : array-like of shape (n_channels,), default=None
        Frequency of each channel in Hz; mutually exclusive with `channel_names`.
    titles : list of str, default=None
        One per filter.
    vmin, vmax : float, default=None
        Ends of the colour scale, as in :func:`plot_matrices`: by default symmetric about 0.
    cmap : str or Colormap, default="RdBu_r"
        Colour map; the default is white at the middle of the scale.
    colorbar : bool, default=True
        Whether to draw the colour bar.
    colorbar_label : str, default="Weight"
        Label of the colour bar, with the unit.
    n_columns : int, default=None
        Panels in a row; with None up to four.
    ax : Axes or sequence of Axes, default=None
        Axes to draw into, one per filter; mutually exclusive with `fig`.
    fig : Figure or SubFigure, default=None
        Figure to add the panels to; None creates one.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_filters,)
        The figure and its panels.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import plot_filters
    >>> filters = np.random.default_rng(0).standard_normal((15, 18))
    >>> fig, axes = plot_filters(filters, sampling_frequency=100)
    """
    if hasattr(filters, "get_params"):
        filters, reach = linear_filter(filters)
        lags = reach if lags is None else lags
    stack = _check_filters(filters)
    n_filters, n_lags, n_channels = stack.shape
    lags = _check_lags(lags, n_lags)
    names, channel_label = _check_channels(channel_names, frequencies, n_channels)
    check_names(titles, n_filters, "titles")
    vmin, vmax = color_limits(stack, vmin, vmax)
    step, unit = check_rate(sampling_frequency), "samples"
    if sampling_frequency is not None:
        in_seconds = np.abs(lags).max() * step >= 1
        step, unit = (step, "s") if in_seconds else (1000 * step, "ms")
    fig, axes = _grid(n_filters, n_columns, ax, fig)
    labels = f"Lag ({unit})", channel_label
    matrices = stack.transpose(0, 2, 1)
    images = draw_images(axes, matrices, cmap, vmin, vmax, origin="lower", labels=labels)
    sides = (lags[0] - 0.5) * step, (lags[-1] + 0.5) * step
    for panel, image in zip(axes, images, strict=True):
        image.set_extent((*sides, -0.5, n_channels - 0.5))
        panel.set(aspect="auto", xlim=sides, ylim=(-0.5, n_channels - 0.5))
        _tick_lags(panel, step * lags, integer=sampling_frequency is None)
        panel.set_yticks(list(names), labels=list(names.values()))
    _draw_titles(axes, titles)
    if colorbar:
        draw_colorbar(fig, axes, images[0], stack, colorbar_label)
    return fig, axes


def plot_nonlinearity(
    nonlinearity,
    inputs,
    response=None,
    *,
    n_bins=20,
    titles=None,
    xlabel="Input",
    ylabel="Response",
    n_columns=None,
    ax=None,
    fig=None,
):
    """
    Draw a pointwise nonlinearity as a curve over its data, a panel per channel.

    Parameters
    ----------
    nonlinearity : callable
        Function from an array of shape (n_points, n_channels) to one of the same shape, such as
        the `evaluate` of a layer.
    inputs : array-like of shape (n_samples,) or (n_samples, n_channels), or list of such
        Its inputs, all sessions together; the curve is drawn over their range.
    response : array-like of shape (n_samples,) or (n_samples, n_channels), or list of such, \
            default=None
        Measured response. Its mean and standard error are drawn in bins of the input with equal
        numbers of samples. Rows with NaN do not count.
    n_bins : int, default=20
        Number of bins.
    titles : list of str, default=None
        One per channel.
    xlabel, ylabel : str, default="Input", "Response"
        Labels of the axes, with the unit.
    n_columns : int, default=None
        Panels in a row; with None up to four.
    ax : Axes or sequence of Axes, default=None
        Axes to draw into, one per channel; mutually exclusive with `fig`.
    fig : Figure or SubFigure, default=None
        Figure to add the panels to; None creates one.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_channels,)
        The figure and its panels.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import plot_nonlinearity
    >>> rng = np.random.default_rng(0)
    >>> inputs = rng.standard_normal(1000)
    >>> response = rng.poisson(np.exp(inputs))
    >>> fig, axes = plot_nonlinearity(np.exp, inputs, response, ylabel="Spikes per bin")
    """
    inputs = join_sessions(_sessions_of(inputs, "inputs"))
    if not np.isfinite(inputs).all():
        raise ValueError(
            "inputs has NaN or infinite values, but finite numbers were expected. Remove those "
            "rows."
        )
    if response is not None:
        response = join_sessions(_sessions_of(response, "response"))
        _check_shape(response, inputs, "response")
    check_count(n_bins, "n_bins")
    n_channels = inputs.shape[1]
    check_names(titles, n_channels, "titles")
    grid = np.linspace(inputs.min(axis=0), inputs.max(axis=0), N_POINTS)
    if not callable(nonlinearity):
        raise TypeError(f"nonlinearity is {nonlinearity!r:.50}, but a function was expected.")
    with naming("nonlinearity"):
        curves = np.asarray(nonlinearity(grid), dtype=float)
    _check_shape(curves, grid, "The output of the nonlinearity")
    fig, axes = _grid(n_channels, n_columns, ax, fig)
    for channel, (panel, (bottom, left)) in enumerate(zip(axes, grid_edges(axes), strict=True)):
        tidy(panel)
        if response is not None:
            center, mean, error = _binned_means(inputs[:, channel], response[:, channel], n_bins)
            style = {"color": MEASURED, "fmt": "o", "ms": 3.5, "elinewidth": 0.8}
            panel.errorbar(center, mean, error, label=MEASURED_MEAN, **style)
        style = {"color": PREDICTED, "lw": 1.8, "zorder": 3, "label": "Model"}
        panel.plot(grid[:, channel], curves[:, channel], **style)
        panel.xaxis.get_major_locator().set_params(nbins=2)
        panel.yaxis.get_major_locator().set_params(nbins=5)
        panel.set_xlabel(xlabel if bottom else "", size=LABEL_SIZE, color=INK)
        panel.set_ylabel(ylabel if left else "", size=LABEL_SIZE, color=INK)
    if response is not None:
        axes[0].legend(frameon=False, fontsize=TICK_SIZE, labelcolor=INK, handlelength=1.2)
    _draw_titles(axes, titles)
    return fig, axes


def plot_predictions(
    response,
    prediction,
    *,
    sampling_frequency=None,
    start=0,
    n_samples=None,
    labels=("Response", "Prediction"),
    output_names=None,
    ax=None,
    fig=None,
):
    """
    Draw a response and its prediction over time, a row per output, with their correlation.

    Parameters
    ----------
    response : array-like of shape (n_samples,) or (n_samples, n_outputs), list of such, or array \
            of shape (n_sessions, n_samples, n_outputs)
        Measured response. NaN leaves a gap. Sessions follow each other, with a line between them.
    prediction : array-like of shape (n_samples,) or (n_samples, n_outputs), list of such, or \
            array of shape (n_sessions, n_samples, n_outputs)
        Prediction of a model.
    sampling_frequency : float, default=None
        In Hz; the time axis is then in seconds. With None it counts samples.
    start : int, default=0
        Row that the picture begins with.
    n_samples : int, default=None
        Number of rows to draw; with None all that follow.
    labels : sequence of two str, default=("Response", "Prediction")
        Names in the legend.
    output_names : list of str, default=None
        A name per row, with the unit. With None "Response" for one output, and "Output 0", "Output
        1" and so on for several.
    ax : Axes or sequence of Axes, default=None
        Axes to draw into, one per output; mutually exclusive with `fig`.
    fig : Figure or SubFigure, default=None
        Figure to add the rows to; None creates one.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_outputs,)
        The figure and its rows. Above each is Pearson's correlation over all samples
        that were given, those that are not drawn too.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import plot_predictions
    >>> prediction = np.sin(np.arange(1000) / 20)
    >>> response = prediction + 0.5 * np.random.default_rng(0).standard_normal(1000)
    >>> fig, axes = plot_predictions(response, prediction, sampling_frequency=100, n_samples=300)
    >>> axes[0].get_title(loc="left")
    'r = 0.83'
    """
    parts, others = _sessions_of(prediction, "prediction"), _sessions_of(response, "response")
    predicted, measured = join_sessions(parts), join_sessions(others)
    if measured.shape != predicted.shape:
        raise ValueError(
            f"response has the shape {measured.shape} and prediction {predicted.shape}, but equal "
            "shapes were expected. Pass the same rows and columns."
        )
    lengths = [len(one) for one in max(parts, others, key=len)]
    if (
        isinstance(start, bool)
        or not isinstance(start, Integral)
        or start not in range(len(predicted))
    ):
        raise ValueError(
            f"start must be one of the {len(predicted)} rows, counted from 0, but is {start!r}."
        )
    n_outputs = predicted.shape[1]
    check_names(labels, 2, "labels")
    names = check_names(output_names, n_outputs, "output_names")
    names = names or [f"Output {k}" for k in range(n_outputs)]
    names = ["Response"] if n_outputs == 1 and output_names is None else names
    fig, axes = panels(n_outputs, ax, fig, (7.5, 1.0 + 1.15 * n_outputs), sharex=True)
    shown = [values[start:] for values in (measured, predicted)]
    times = draw_rows(axes, shown, n_samples, sampling_frequency, None, start=start)
    edges = grid_edges(axes)
    for output, (panel, name, (bottom, _)) in enumerate(zip(axes, names, edges, strict=True)):
        styles = [{"color": MEASURED, "lw": 2.4}, {"color": PREDICTED, "lw": 1.1}]
        for time, values, label, style in zip(times, shown, labels, styles, strict=True):
            line = with_gaps(time, values[: len(time), output], lengths, start=start)
            panel.plot(*line, label=label, **style)
        draw_borders(panel, lengths, check_rate(sampling_frequency))
        panel.yaxis.get_major_locator().set_params(nbins=3)
        panel.spines["bottom"].set_visible(bottom)
        panel.set_ylabel(f"{name}", size=LABEL_SIZE, color=INK)
        title = f"r = {_correlation(measured[:, output], predicted[:, output]):.2f}"
        title = title.replace("-", "\N{MINUS SIGN}")
        panel.set_title(title, loc="left", size=LABEL_SIZE, color=INK)
    draw_legend(axes[0], 2)
    return fig, axes


# ------------------------------------------------------------------------------------ checks


def _sessions_of(values, what):
    """Check columns over time, in sessions; a single column gets an axis of its own."""
    with naming(what):
        given = in_sessions(values, has_columns=False, name=what).arrays
        arrays = [np.asarray(one, dtype=float) for one in given]
    arrays = [one[:, None] if one.ndim == 1 else one for one in arrays]
    shapes = [one.shape for one in arrays]
    if any(one.ndim != 2 or 0 in one.shape for one in arrays) or len({w for _, w in shapes}) > 1:
        raise ValueError(
            f"{what} has the shape {shapes[0] if len(shapes) == 1 else shapes}, but (n_samples,) "
            "or (n_samples, n_columns) was expected, or a list of such with one number of columns."
        )
    n_rows, n_columns = shapes[0]
    if len(arrays) == 1 and n_rows < n_columns:
        raise ValueError(
            f"{what} has {n_rows} rows and {n_columns} columns, but rows are time. Pass {what}.T "
            f"if columns are time, and list({what}) if each row is a session of one output."
        )
    return arrays


def _check_shape(array, other, what):
    if array.shape != other.shape:
        raise ValueError(
            f"{what} has shape {array.shape}, but {other.shape} was expected. Pass the same rows "
            "and columns."
        )


def _check_filters(filters):
    array = as_numbers(filters, "filters")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            f"filters has shape {array.shape}, but (n_lags, n_channels) or (n_lags, n_channels, "
            "n_filters) was expected. Reshape a single course with .reshape(-1, 1)."
        )
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _check_lags(lags, n_lags):
    checked = np.arange(n_lags) if lags is None else np.asarray(lags)
    if checked.shape != (n_lags,) or (np.diff(checked) != 1).any():
        raise ValueError(
            f"lags must be {n_lags} numbers in steps of one sample, but is {lags!r}. Pass None to "
            "count them from 0."
        )
    return checked


def _check_channels(channel_names, frequencies, n_channels):
    """Return the tick labels of channels, and the label of their axis."""
    if channel_names is not None and frequencies is not None:
        raise ValueError("channel_names and frequencies were both given. Pass one of them.")
    if channel_names is not None:
        check_names(channel_names, n_channels, "channel_names")
        places = range(n_channels) if n_channels <= MOST_NAMES else _some(n_channels)
        return {place: str(channel_names[place]) for place in places}, "Channel"
    if frequencies is None:
        return {place: str(place) for place in sorted({0, n_channels - 1})}, "Channel"
    check_names(frequencies, n_channels, "frequencies")
    values = np.asarray(frequencies, dtype=float)
    divisor, unit = (1000, "kHz") if values.max() >= 1000 else (1, "Hz")
    labels = {place: values[place] / divisor for place in _some(n_channels)}
    texts = {p: f"{v:.0f}" if v >= 10 else f"{v:.2g}" for p, v in labels.items()}
    return texts, f"Frequency ({unit})"


def _some(n_channels):
    return np.unique(np.linspace(0, n_channels - 1, 5).round().astype(int)).tolist()


# ----------------------------------------------------------------------------------- drawing


def _grid(n_panels, n_columns, ax, fig):
    # Up to four in a row, and as many in each row as can be.
    n_columns = -(-n_panels // -(-n_panels // 4)) if n_columns is None else n_columns
    n_columns = min(check_count(n_columns, "n_columns"), n_panels)
    figsize = (2.2 * n_columns + 1.2, 2.1 * -(-n_panels // n_columns) + 0.5)
    return panels(n_panels, ax, fig, figsize, n_columns=n_columns)


def _tick_lags(panel, places, *, integer):
    from matplotlib.ticker import FixedLocator, MaxNLocator

    # draw_images has set ticks at the first and last column. Few columns have one each.
    few = len(places) <= MOST_TICKS
    locator = FixedLocator(places) if few else MaxNLocator(nbins=MOST_TICKS, integer=integer)
    panel.xaxis.set_major_locator(locator)


def _draw_titles(axes, titles):
    for panel, title in zip(axes, titles or [], strict=bool(titles)):
        panel.set_title(title, size=LABEL_SIZE, color=INK)


def _binned_means(inputs, response, n_bins):
    """Mean input, mean response and its standard error in bins of as many samples each."""
    inputs, response = inputs[~np.isnan(response)], response[~np.isnan(response)]
    order = np.argsort(inputs, kind="stable")
    bins = [rows for rows in np.array_split(order, n_bins) if len(rows)]
    center, mean = (np.array([v[rows].mean() for rows in bins]) for v in (inputs, response))
    error = [response[rows].std() / np.sqrt(max(len(rows) - 1, 1)) for rows in bins]
    return center, mean, np.array(error)


def _correlation(measured, predicted):
    known = np.isfinite(measured) & np.isfinite(predicted)
    if known.sum() < 2:
        return np.nan
    return correlation_score(measured[known], predicted[known], multioutput="raw_values")[0]
