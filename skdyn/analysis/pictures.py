"""Pictures of networks and maps, one panel per mode: matrices, circles of edges, heads.

MNE is imported inside a function only.
"""

from __future__ import annotations

import numpy as np

from skdyn._drawing import (
    FAINT,
    INK,
    LABEL_SIZE,
    TICK_SIZE,
    check_count,
    check_names,
    color_limits,
    draw_bar,
    draw_colorbar,
    draw_images,
    grid_edges,
    matrix_panels,
    mode_palette,
    panels,
)

# Edges of a mode that are drawn by default.
N_EDGES = 20
# Around a circle of radius 1: where names are, half the width of the panel, and in inches the
# radius, the height of a line of text, and the width of a letter.
_NAMES_AT, _REACH, _RADIUS, _LINE, _LETTER = 1.16, 1.3, 0.8, 0.115, 0.062
_NAME_SIZE = 7
# Smallest power that is drawn, relative to the largest.
_DEEPEST = 1e-6


def draw_networks(matrices, cmap, label, mode_labels, ax, fig):
    """Draw a matrix per mode, without its diagonal, below the mode's colour.

    Parameters
    ----------
    matrices : ndarray of shape (n_modes, n_channels, n_channels)
        The matrices.
    cmap : str
        Colour map: from 0 on if "viridis", else symmetric about 0.
    label : str
        Label of the colour bar.
    mode_labels : list of str or None
        Titles.
    ax, fig : object
        As in :meth:`ModeBand.plot`.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_modes,)
        The figure and its panels.
    """
    shown = np.array(matrices, dtype=float)
    check_names(mode_labels, len(shown), "mode_labels")
    shown[:, np.eye(shown.shape[-1], dtype=bool)] = np.nan
    low, high = color_limits(shown, None, None)
    low = 0 if cmap == "viridis" else low
    fig, axes = matrix_panels(len(shown), None, ax, fig)
    images = draw_images(axes, shown, cmap, low, high)
    draw_colorbar(fig, axes, images[0], shown, label)
    for panel, (bottom, left) in zip(axes, grid_edges(axes), strict=True):
        panel.set_xlabel("Channel" if bottom else "", size=LABEL_SIZE, color=INK)
        panel.set_ylabel("Channel" if left else "", size=LABEL_SIZE, color=INK)
    _name_modes(axes, mode_labels)
    return fig, axes


def draw_circles(matrices, n_edges, order, channel_names, label, mode_labels, ax, fig):
    """Draw the strongest edges of each mode as arcs between channels on a circle.

    Parameters
    ----------
    matrices : ndarray of shape (n_modes, n_channels, n_channels)
        Symmetric; the lower triangle and the diagonal are not used.
    n_edges : int
        Edges of each mode, those of largest absolute value.
    order : array-like of int of shape (n_channels,) or None
        Channels clockwise from the top.
    channel_names : sequence of str or None
        Names, drawn beside channels with edges; None for numbers.
    label : str
        Label of the colour bar.
    mode_labels : list of str or None
        Titles.
    ax, fig : object
        As in :meth:`ModeBand.plot`.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_modes,)
        The figure and its panels.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    shown = np.array(matrices, dtype=float)
    n_modes, n_channels = shown.shape[:2]
    check_count(n_edges, "n_edges")
    check_names(mode_labels, n_modes, "mode_labels")
    names = check_names(channel_names, n_channels, "channel_names")
    names = [str(name) for name in (range(n_channels) if names is None else names)]
    points = _on_circle(order, n_channels)
    edges = [_strongest(matrix, n_edges) for matrix in shown]
    heights = [_spread(points, np.unique(pairs)) for pairs, _ in edges]
    fig, axes = panels(n_modes, ax, fig, **_grid(edges, heights, names))
    values = np.concatenate([drawn for _, drawn in edges])
    low, high = color_limits(values, None, None)
    signed = (values < 0).any()
    if not signed:
        low = min(values.min(initial=high), 0.999 * high)
    # The weakest edge has the lightest colour, on white.
    mappable = ScalarMappable(Normalize(low, high), "RdBu_r" if signed else "viridis_r")
    for panel, (pairs, drawn), places in zip(axes, edges, heights, strict=True):
        panel.axis("off")
        panel.plot(*points.T, "o", ms=2 if n_channels > 40 else 3.5, mew=0, color=FAINT)
        _draw_arcs(panel, points[pairs], drawn, mappable)
        _write_names(panel, points, places, names)
        edge = max([_REACH, *(1.05 * abs(place) for place in places.values())])
        panel.set(xticks=[], yticks=[], aspect="equal", xlim=(-_REACH, _REACH), ylim=(-edge, edge))
    draw_colorbar(fig, axes, mappable, values, label)
    _name_modes(axes, mode_labels)
    return fig, axes


def draw_topomaps(values, cmap, positions, channel_names, label, mode_labels, ax, fig):
    """Draw a map of the head per mode, by MNE's function.

    Parameters
    ----------
    values : ndarray of shape (n_modes, n_channels)
        The numbers, on one colour scale.
    cmap : str
        Colour map: from the lowest to the highest number if "viridis", else symmetric about 0.
    positions : mne.Info or array-like of shape (n_channels, 2)
        Where channels are, see :meth:`ModeBand.plot_topomaps`.
    channel_names : sequence of str or None
        Names, by which channels of an Info are found.
    label : str
        Label of the colour bar.
    mode_labels : list of str or None
        Titles.
    ax, fig : object
        As in :meth:`ModeBand.plot`.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_modes,)
        The figure and its panels.
    """
    try:
        import mne
    except ImportError as error:
        raise ImportError("Maps of the head need the package mne; pip install mne.") from error
    check_names(mode_labels, len(values), "mode_labels")
    where = _positions(positions, values.shape[1], channel_names, mne)
    low, high = color_limits(values, None, None)
    if cmap == "viridis":
        low, high = values.min(), max(values.max(), values.min() + 1e-9)
    fig, axes = matrix_panels(len(values), None, ax, fig)
    options = {"cmap": cmap, "vlim": (low, high), "show": False}
    images = [
        mne.viz.plot_topomap(row, where, axes=panel, **options)[0]
        for row, panel in zip(values, axes, strict=True)
    ]
    draw_colorbar(fig, axes, images[0], values, label)
    _name_modes(axes, mode_labels)
    return fig, axes


def in_decibel(power):
    """Express power in decibels, at least 60 dB below the largest.

    Parameters
    ----------
    power : ndarray
        Not negative.

    Returns
    -------
    ndarray
        Ten times the decimal logarithm; 0 throughout if there is no power.
    """
    top = power.max()
    return 10 * np.log10(np.maximum(power, _DEEPEST * top)) if top > 0 else np.zeros(power.shape)


def _name_modes(axes, mode_labels):
    """Titles, and the colours that modes have in other pictures."""
    for mode, (panel, color) in enumerate(zip(axes, mode_palette(len(axes)), strict=True)):
        title = f"Mode {mode}" if mode_labels is None else mode_labels[mode]
        panel.set_title(title, size=TICK_SIZE, color=INK, y=1.08, pad=0)
        draw_bar(panel, color)


# ------------------------------------------------------------------------------------- circles


def _on_circle(order, n_channels):
    """Point of each channel, clockwise from the top."""
    order = np.arange(n_channels) if order is None else np.asarray(order)
    if sorted(order.tolist()) != list(range(n_channels)):
        raise ValueError(
            f"order must hold each of the numbers from 0 to {n_channels - 1} once, but is "
            f"{order.tolist()!r:.60}."
        )
    points = np.empty((n_channels, 2))
    angles = 2 * np.pi * (np.arange(n_channels) + 0.5) / n_channels
    points[order] = np.column_stack([np.sin(angles), np.cos(angles)])
    return points


def _strongest(matrix, n_edges):
    """Pairs of channels and their values, the weakest first; zeros and NaN are no edges."""
    rows, columns = np.triu_indices(len(matrix), 1)
    values = np.nan_to_num(matrix[rows, columns])
    ranks = np.argsort(np.abs(values), kind="stable")[-n_edges:]
    ranks = ranks[values[ranks] != 0]
    return np.column_stack([rows, columns])[ranks], values[ranks]


def _spread(points, channels):
    """Height of the name of each channel, apart from those of the others on its side."""
    places: dict[int, float] = {}
    gap = _LINE / _RADIUS
    for side in (points[channels, 0] >= 0, points[channels, 0] < 0):
        own = channels[side][np.argsort(points[channels[side], 1], kind="stable")]
        wanted = _NAMES_AT * points[own, 1]
        # Least squares under the smallest distance: means over runs that are in conflict.
        steps = gap * np.arange(len(own))
        runs = []
        for one in wanted - steps:
            runs.append([one, 1])
            while len(runs) > 1 and runs[-2][0] >= runs[-1][0]:
                (low, n_low), (high, n_high) = runs[-2:]
                total = n_low + n_high
                runs[-2:] = [[(n_low * low + n_high * high) / total, total]]
        apart = np.repeat([one for one, _ in runs], [count for _, count in runs]) + steps
        places |= dict(zip(own.tolist(), apart.tolist(), strict=True))
    return places


def _grid(edges, heights, names):
    """Columns and size of a figure whose panels have room for names on both sides."""
    n_panels = len(edges)
    n_columns = int(np.ceil(np.sqrt(n_panels)))
    shown = [names[channel] for places in heights for channel in places]
    longest = max(map(len, shown), default=1)
    tallest = max((abs(place) for places in heights for place in places.values()), default=0)
    width = 2 * (_REACH * _RADIUS + _LETTER * longest)
    height = 2 * _RADIUS * max(_REACH, 1.05 * tallest) + 0.35
    size = (width * n_columns + 0.9, height * -(-n_panels // n_columns))
    return {"figsize": size, "n_columns": n_columns, "layout": "compressed"}


def _draw_arcs(panel, ends, values, mappable):
    """Curves between pairs of points, bent towards the centre; wide if strong."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

    codes = [Path.MOVETO, Path.CURVE3, Path.CURVE3]
    paths = [Path([start, 0.15 * (start + end), end], codes) for start, end in ends]
    strength = np.abs(values) / np.abs(values).max(initial=1e-300)
    panel.add_collection(
        PathCollection(
            paths,
            facecolors="none",
            edgecolors=mappable.to_rgba(values),
            linewidths=0.6 + 1.6 * strength,
        )
    )


def _write_names(panel, points, places, names):
    """Names beside the circle, with a line to their channel."""
    for channel, height in places.items():
        x, y = points[channel]
        side = 1 if x >= 0 else -1
        knee = side * max(np.sqrt(max(_NAMES_AT**2 - height**2, 0)), 0.35)
        panel.plot([1.03 * x, knee], [1.03 * y, height], color=FAINT, lw=0.4, clip_on=False)
        panel.text(
            *(knee + 0.03 * side, height, names[channel]),
            ha="left" if side > 0 else "right",
            va="center",
            size=_NAME_SIZE,
            color=INK,
        )


# ---------------------------------------------------------------------------------------- maps


def _positions(positions, n_channels, channel_names, mne):
    """Positions as MNE's function takes them, in the order of the values."""
    if not isinstance(positions, mne.Info):
        found = np.asarray(positions, dtype=float)
        if found.shape != (n_channels, 2):
            raise ValueError(
                f"positions has shape {found.shape}, but ({n_channels}, 2) was expected: x and y "
                "of each channel. Or pass an Info of MNE with a montage."
            )
        return found
    names = list(positions["ch_names"])
    wanted = [] if channel_names is None else [str(name) for name in channel_names]
    if wanted and set(wanted) <= set(names):
        return mne.pick_info(positions, [names.index(name) for name in wanted])
    if len(names) != n_channels or set(wanted) & set(names):
        missing = [name for name in wanted if name not in names]
        raise ValueError(
            f"positions has {len(names)} channels, but lacks {', '.join(missing[:5])} of the "
            f"{n_channels}. Pick the channels of the data, or pass channel_names."
        )
    return positions
