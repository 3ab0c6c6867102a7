"""Parts of the pictures of `plotting`: colours, axes, scales, keys and checks.

matplotlib is imported inside functions only.
"""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np

from skdyn.sessions import as_numbers, in_sessions, join_sessions, naming

# Colours of Okabe & Ito and of Paul Tol's bright, muted, light and dark schemes, in an order in
# which each is far (CIELAB) from those before it, also as deuteranopes and protanopes see them.
PALETTE = (
    *("#0072B2", "#E69F00", "#44BB99", "#225555", "#66CCEE", "#117733", "#EEDD88", "#332288"),
    *("#EE6677", "#D55E00", "#EE8866", "#FFAABB", "#AA3377", "#CC79A7", "#56B4E9", "#009E73"),
)
INK = "0.25"
FAINT = "0.55"
BLANK = "0.90"
LABEL_SIZE = 9
TICK_SIZE = 8


def mode_palette(n_modes):
    """
    Return colours for modes that colour-blind readers can distinguish as well.

    Parameters
    ----------
    n_modes : int
        Number of colours, at least 1. The first 16 are hues; later ones are lighter and
        darker tones of those.

    Returns
    -------
    ndarray of shape (n_modes, 3)
        Red, green and blue, each in [0, 1].

    Examples
    --------
    >>> from skdyn.plotting import mode_palette
    >>> mode_palette(12).shape
    (12, 3)
    """
    check_count(n_modes, "n_modes")
    base = np.array([[int(hue[i : i + 2], 16) / 255 for i in (1, 3, 5)] for hue in PALETTE])
    cycle, position = np.divmod(np.arange(n_modes), len(base))
    # Odd cycles go towards white, even ones towards black, each further than the last.
    towards = (cycle % 2)[:, None].astype(float)
    step = (cycle + 1) // 2
    share = (0.5 * step / (step + 0.25))[:, None]
    return (1 - share) * base[position] + share * towards


def check_count(value, name):
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, but is {value!r}.")
    return value


def check_names(names, n_expected, what):
    if names is not None and len(names) != n_expected:
        raise ValueError(
            f"{what} has {len(names)} entries, but must have {n_expected}. Pass one for each."
        )
    return names


def as_arrays(arrays, columns, *, finite, name):
    """Check time series, each an array or in sessions; return 2-D float arrays."""
    if not arrays:
        raise ValueError(
            f"There is no array to draw. Pass at least one of shape (n_samples, {columns})."
        )
    return [
        _check_rows(in_sessions(values, name=name).arrays, columns, finite, name)
        for values in arrays
    ]


def _check_rows(sessions, columns, finite, name):
    for array in sessions:
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(
                f"{name} has shape {array.shape}, but (n_samples, {columns}) was expected. Reshape "
                "a single course with .reshape(-1, 1)."
            )
    widths = sorted({array.shape[1] for array in sessions})
    if len(widths) > 1:
        raise ValueError(
            f"The sessions of {name} have {' and '.join(map(str, widths))} columns, but one number "
            "of columns was expected. Plot them separately."
        )
    with naming(name):
        rows = join_sessions(sessions).astype(float, copy=False)
    if finite and not np.isfinite(rows).all():
        n_wrong = np.count_nonzero(~np.isfinite(rows))
        raise ValueError(
            f"{name} has {n_wrong} NaN or infinite values, but finite numbers were expected. "
            "Remove them."
        )
    return rows


def session_lengths(values):
    """Count the rows of each session."""
    return [len(one) for one in in_sessions(values).arrays]


def with_gaps(time, values, lengths, *, start=0):
    """Insert NaN between sessions, so that no line connects them."""
    borders = np.cumsum(lengths)[:-1] - start
    borders = borders[(borders > 0) & (borders < len(values))]
    between = (time[borders - 1] + time[borders]) / 2
    return np.insert(time, borders, between), np.insert(values, borders, np.nan, axis=0)


def draw_borders(panel, lengths, step, *, color=FAINT, linewidth=0.6, linestyle=":"):
    """Draw a line at the start of each session except the first."""
    low, high = panel.get_xlim()
    places = (np.cumsum(lengths)[:-1] - 0.5) * step
    style = {"color": color, "lw": linewidth, "ls": linestyle}
    return [panel.axvline(place, **style) for place in places[(places > low) & (places < high)]]


def as_stack(matrices):
    if hasattr(matrices, "get_params"):
        raise TypeError(
            f"matrices is an estimator, {type(matrices).__name__}, but arrays were expected. Pass "
            "its covariances_, or draw it with ModesDisplay.from_estimator."
        )
    with naming("matrices"):
        parts = [as_numbers(part, "matrices") for part in matrices]
    shapes = sorted({part.shape for part in parts})
    if len(shapes) == 1 and len(shapes[0]) == 1:
        return as_stack([parts])
    if len(shapes) != 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        raise ValueError(
            f"matrices has shapes {shapes}, but one shape (n_rows, n_columns) was expected. Plot "
            "matrices of different shapes separately."
        )
    return np.stack(parts)


def color_limits(values, vmin, vmax):
    finite = np.abs(values[np.isfinite(values)])
    if vmin is None and vmax is None:
        # An all-zero stack still needs a scale of some width.
        vmax = (finite.max() if finite.size else 0.0) or 1.0
    vmin = -vmax if vmin is None else vmin
    vmax = -vmin if vmax is None else vmax
    if not vmin < vmax:
        raise ValueError(f"vmin must be below vmax, but they are {vmin} and {vmax}. Pass both.")
    return vmin, vmax


def correlation_matrices(covariances):
    """Correlations with a blank diagonal; constant channels are blank too."""
    deviations = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    scale = deviations[:, :, None] * deviations[:, None, :]
    blank = np.full_like(covariances, np.nan)
    result = np.divide(covariances, scale, out=blank, where=scale > 0)
    result[:, np.eye(result.shape[1], dtype=bool)] = np.nan
    return result


def panels(
    n_panels, ax, fig, figsize, *, n_columns=1, height_ratios=None, layout="constrained", **sharing
):
    """Return the axes to draw into: the caller's, or new ones in the caller's or a new figure."""
    if ax is not None:
        axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
        if fig is not None:
            raise ValueError("ax and fig were both given. Pass ax alone.")
        wrong = [one for one in axes if not hasattr(one, "figure")]
        if wrong:
            raise TypeError(f"ax is {wrong[0]!r:.50}, but Axes of matplotlib were expected.")
        if len(axes) != n_panels:
            raise ValueError(
                f"ax has {len(axes)} axes, but must have {n_panels}, one for each panel. Pass as "
                "many, or fig."
            )
        return axes[0].figure, axes
    if fig is not None and not hasattr(fig, "subplots"):
        raise TypeError(f"fig is {fig!r:.50}, but a Figure of matplotlib was expected.")
    if fig is None:
        import matplotlib.pyplot as plt

        fig = plt.figure(figsize=figsize, layout=layout)
    n_rows = -(-n_panels // n_columns)
    axes = fig.subplots(n_rows, n_columns, squeeze=False, height_ratios=height_ratios, **sharing)
    for spare in axes.ravel()[n_panels:]:
        spare.remove()
    return fig, axes.ravel()[:n_panels]


def matrix_panels(n_panels, n_columns, ax, fig):
    n_columns = int(np.ceil(np.sqrt(n_panels))) if n_columns is None else n_columns
    check_count(n_columns, "n_columns")
    n_columns = min(n_columns, n_panels)
    n_rows = -(-n_panels // n_columns)
    figsize = (1.85 * n_columns + 1.3, 2.25 * n_rows + 0.4)
    # Square panels leave empty space beside or above them, which this layout removes.
    return panels(n_panels, ax, fig, figsize, n_columns=n_columns, layout="compressed")


def tidy(panel):
    """Light axes: two thin spines, small quiet ticks."""
    for side, spine in panel.spines.items():
        spine.set(visible=side in ("left", "bottom"), linewidth=0.6, color=FAINT)
    panel.tick_params(labelsize=TICK_SIZE, labelcolor=INK, color=FAINT, width=0.6, length=3)


def check_rate(sampling_frequency):
    """Check a sampling frequency; return the time from one sample to the next."""
    if sampling_frequency is None:
        return 1
    is_number = isinstance(sampling_frequency, Real) and not isinstance(sampling_frequency, bool)
    if not is_number or not 0 < sampling_frequency < np.inf:
        raise ValueError(
            f"sampling_frequency must be above 0 Hz, but is {sampling_frequency!r}. Pass None for "
            "a time axis in samples."
        )
    return 1 / sampling_frequency


def grid_edges(axes):
    """Yield for each panel whether no other is below it, and whether no other is left of it.

    Axes that are on no grid are at both edges.
    """
    places = [panel.get_subplotspec() for panel in axes]
    for own in places:
        others = [] if own is None else [(o.rowspan, o.colspan) for o in places if o is not None]
        below = any(c[0] == own.colspan[0] and r[0] > own.rowspan[0] for r, c in others)
        before = any(r[0] == own.rowspan[0] and c[0] < own.colspan[0] for r, c in others)
        yield not below, not before


def draw_rows(axes, arrays, n_samples, sampling_frequency, labels, *, start=0):
    """Set up rows on one time axis; returns the times of each array, of which `start` is first."""
    check_names(labels, len(axes), "labels")
    if n_samples is not None:
        check_count(n_samples, "n_samples")
    step = check_rate(sampling_frequency)
    times = [(start + np.arange(len(values[:n_samples]))) * step for values in arrays]
    for row, panel in enumerate(axes):
        tidy(panel)
        panel.set_xlim(start * step, max(max(time[-1] for time in times), (start + 1) * step))
        if labels is not None:
            panel.set_title(labels[row], loc="left", size=LABEL_SIZE, color=INK)
    unit = "samples" if sampling_frequency is None else "s"
    for panel, (bottom, _) in zip(axes, grid_edges(axes), strict=True):
        panel.tick_params(axis="x", labelbottom=bottom, length=3 if bottom else 0)
        panel.set_xlabel(f"Time ({unit})" if bottom else "", size=LABEL_SIZE, color=INK)
    return times


def draw_stack(panel, time, course, colors):
    # Edges in the colour of the face close the hairlines that antialiasing leaves.
    areas = panel.stackplot(time, course.T, colors=colors[: course.shape[1]], linewidth=0.2)
    for area in areas:
        area.set_edgecolor("face")
    panel.set_ylim(0, course.sum(axis=1).max() or 1.0)
    panel.set_ylabel("Mixing coefficient", size=LABEL_SIZE, color=INK)
    panel.yaxis.get_major_locator().set_params(nbins=2)
    panel.spines["bottom"].set_visible(False)


def draw_runs(panel, active, step, colors):
    """Draw a bar over the runs of rows in which each column is true, the first column on top."""
    n_modes = active.shape[1]
    edges = np.diff(np.pad(active.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    for mode, color in enumerate(colors[:n_modes]):
        starts, ends = np.flatnonzero(edges[:, mode] == 1), np.flatnonzero(edges[:, mode] == -1)
        # A row reaches from the middle between it and the last to the middle between it and the
        # next, as borders of sessions do. Edges keep short runs in sight.
        spans = np.column_stack([starts - 0.5, ends - starts]) * step
        panel.broken_barh(spans, (mode - 0.4, 0.8), facecolor=color, edgecolor=color, lw=0.3)
    panel.set_ylim(len(colors) - 0.4, -0.6)
    panel.set_axisbelow(True)
    panel.grid(axis="y", color=BLANK, lw=0.6)
    panel.tick_params(axis="y", length=0)
    panel.spines[["left", "bottom"]].set_visible(False)


def draw_overlay(row, lines, labels, *, bottom):
    """One channel of every array: later arrays thinner and dashed, so that both are seen."""
    colors = [PALETTE[0], PALETTE[9], *PALETTE[1:9], *PALETTE[10:]]
    styles = ["-", (0, (4, 1.5)), "-.", ":"]
    for k, (time, course) in enumerate(lines):
        label = None if labels is None else labels[k]
        style = {"color": colors[k % len(colors)], "ls": styles[k % len(styles)], "label": label}
        row.plot(time, course, lw=1.2 if k == 0 else 1.0, **style)
    row.yaxis.get_major_locator().set_params(nbins=2)
    row.spines["bottom"].set_visible(bottom)


def draw_legend(panel, n_columns):
    panel.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1.02),
        ncols=n_columns,
        frameon=False,
        fontsize=TICK_SIZE,
        labelcolor=INK,
        borderaxespad=0,
    )


def draw_mode_key(fig, axes, colors, mode_labels):
    """Draw a column of colours in the order of the stack, mode 0 at the bottom."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    names = check_names(mode_labels, len(colors), "mode_labels")
    edges = np.arange(len(colors) + 1) - 0.5
    mappable = ScalarMappable(BoundaryNorm(edges, len(colors)), ListedColormap(colors))
    key = fig.colorbar(mappable, ax=list(axes), drawedges=True, aspect=25, pad=0.02)
    key.set_ticks(np.arange(len(colors)), labels=range(len(colors)) if names is None else names)
    key.minorticks_off()
    key.ax.tick_params(length=0, labelsize=TICK_SIZE, labelcolor=INK)
    key.outline.set_visible(False)
    key.dividers.set(color="white", linewidth=1.5)
    key.set_label("Mode", size=LABEL_SIZE, color=INK)


def draw_points(panel, shown, place, width, color):
    """Draw numbers side by side above a place, with their mean, and their outline if many."""
    if len(shown) == 0:
        return
    if len(shown) >= 5 and np.ptp(shown) > 0:
        (body,) = panel.violinplot([shown], [place], widths=2.4 * width, showextrema=False)[
            "bodies"
        ]
        body.set(facecolor=color, alpha=0.25, linewidth=0)
    # The order of points side by side does not depend on their values.
    steps = (np.arange(len(shown)) * 0.618034) % 1 - 0.5
    panel.plot(place + steps * width, shown, "o", ms=2.5, mew=0, color=color, alpha=0.8)
    panel.plot([place - width, place + width], [shown.mean()] * 2, color=INK, lw=1.2)


def draw_images(axes, stack, cmap, vmin, vmax, *, origin="upper", labels=("", "")):
    """Draw matrices on one colour scale, with the labels of x and y at the edges of the grid."""
    from matplotlib import colormaps

    colors = colormaps.get_cmap(cmap).with_extremes(bad=BLANK)
    n_rows, n_columns = stack.shape[1:]
    aspect = "equal" if 0.25 <= n_rows / n_columns <= 4 else "auto"
    images = []
    for panel, matrix, edges in zip(axes, stack, grid_edges(axes), strict=True):
        scale = {"vmin": vmin, "vmax": vmax, "cmap": colors, "origin": origin}
        images.append(panel.imshow(matrix, aspect=aspect, interpolation="nearest", **scale))
        tidy(panel)
        panel.tick_params(length=2)
        panel.set_xticks(sorted({0, n_columns - 1}))
        panel.set_yticks(sorted({0, n_rows - 1}))
        name_edges(panel, edges, *labels)
        for spine in panel.spines.values():
            spine.set_visible(False)
    return images


def name_edges(panel, edges, xlabel, ylabel):
    """Write tick labels and axis labels on the panels at the bottom and left edges."""
    bottom, left = edges
    panel.tick_params(labelbottom=bottom, labelleft=left)
    panel.set_xlabel(xlabel if bottom else "", size=LABEL_SIZE, color=INK)
    panel.set_ylabel(ylabel if left else "", size=LABEL_SIZE, color=INK)


def draw_bar(panel, color):
    """Draw the colour of a mode in plot_alpha above its panel."""
    from matplotlib.patches import Rectangle

    bar = Rectangle((0, 1.015), 1, 0.03, transform=panel.transAxes, color=color, lw=0)
    panel.add_patch(bar).set_clip_on(False)


def draw_colorbar(fig, axes, image, values, label):
    finite = values[np.isfinite(values)]
    below, above = (finite < image.norm.vmin).any(), (finite > image.norm.vmax).any()
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
    bar = fig.colorbar(image, ax=list(axes), extend=extend, aspect=30, shrink=0.8, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=TICK_SIZE, labelcolor=INK, color=FAINT, width=0.6, length=3)
    if label:
        bar.set_label(label, size=LABEL_SIZE, color=INK)
    return bar


def limit_losses(panel, history):
    """Let the held-out loss run off the top while the KL term is still being raised.

    It has the full term from the start, which the training loss has not, and would flatten all
    that comes later.
    """
    held_out, factor = history.get("validation_loss"), history.get("kl_factor")
    if held_out is None or factor is None or not (factor > 0.99).any():
        return
    others = [history[name] for name in ("loss", "ll_loss") if name in history]
    shown = np.concatenate([*others, held_out[factor > 0.99]])
    low, high = np.nanmin(shown), np.nanmax(shown)
    panel.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
