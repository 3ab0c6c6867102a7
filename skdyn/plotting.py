"""Pictures: functions that draw arrays, and Displays that draw fitted estimators.

matplotlib is imported when something is drawn, not before. No global setting of matplotlib is
changed and nothing is shown: what is drawn comes back to the caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skdyn._drawing import (
    FAINT,
    INK,
    LABEL_SIZE,
    PALETTE,
    TICK_SIZE,
    as_arrays,
    as_stack,
    check_names,
    color_limits,
    correlation_matrices,
    draw_bar,
    draw_colorbar,
    draw_images,
    draw_legend,
    draw_mode_key,
    draw_overlay,
    draw_rows,
    draw_stack,
    limit_losses,
    matrix_panels,
    mode_palette,
    panels,
    tidy,
)

__all__ = [
    "ModesDisplay",
    "TrainingDisplay",
    "mode_palette",
    "plot_alpha",
    "plot_matrices",
    "plot_separate_time_series",
]


def plot_alpha(
    *alphas,
    sampling_frequency=None,
    n_samples=None,
    labels=None,
    mode_labels=None,
    ax=None,
    fig=None,
):
    """
    Draw mixing coefficients over time, stacked: a panel per array, on one time axis.

    Parameters
    ----------
    *alphas : array-like of shape (n_samples, n_modes)
        Non-negative mixing coefficients, one session each. A list of sessions is refused:
        pass ``*sessions`` for a panel each, or concatenate them.
    sampling_frequency : float, default=None
        In Hz; the time axis is then in seconds. With None it counts samples.
    n_samples : int, default=None
        Draw the first `n_samples` rows; with None all.
    labels : list of str, default=None
        A title per panel.
    mode_labels : list of str, default=None
        Names in the key; with None the column indices, from 0.
    ax : Axes or sequence of Axes, default=None
        Where to draw, one per array; not together with `fig`.
    fig : Figure or SubFigure, default=None
        Where to make the panels; with None a new figure.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_alphas,)
        What holds the panels, and the panels.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import plot_alpha
    >>> alpha = np.random.default_rng(0).dirichlet(np.ones(6), size=200)
    >>> fig, axes = plot_alpha(alpha, sampling_frequency=100)
    """
    courses = as_arrays(alphas, "plot_alpha", "n_modes", finite=True)
    if any((course < 0).any() for course in courses):
        lowest = min(course.min() for course in courses)
        raise ValueError(
            f"got a mixing coefficient of {lowest:.3g}, expected none below 0; "
            "plot signed courses with plot_separate_time_series"
        )
    n_modes = max(course.shape[1] for course in courses)
    colors = mode_palette(n_modes)
    height = max(0.7 + 1.5 * len(courses), 0.17 * n_modes + 0.6)
    fig, axes = panels(len(courses), ax, fig, (7.5, height), sharex=True)
    times = draw_rows(axes, courses, n_samples, sampling_frequency, labels)
    for panel, course, time in zip(axes, courses, times, strict=True):
        draw_stack(panel, time, course[: len(time)], colors)
    draw_mode_key(fig, axes, colors, mode_labels)
    return fig, axes


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
    *time_series : array-like of shape (n_samples, n_channels)
        All with the same number of channels. NaN leaves a gap.
    n_samples : int, default=None
        Draw the first `n_samples` rows; with None all.
    sampling_frequency : float, default=None
        In Hz; the time axis is then in seconds. With None it counts samples.
    labels : list of str, default=None
        A name per array, for the legend.
    channel_names : list of str, default=None
        A name per row; with None the column indices, from 0.
    ax : Axes or sequence of Axes, default=None
        Where to draw, one per channel; not together with `fig`.
    fig : Figure or SubFigure, default=None
        Where to make the rows; with None a new figure.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_channels,)
        What holds the rows, and the rows.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import plot_separate_time_series
    >>> true, inferred = np.random.default_rng(0).standard_normal((2, 200, 3))
    >>> fig, axes = plot_separate_time_series(true, inferred, labels=["True", "Inferred"])
    """
    series = as_arrays(time_series, "plot_separate_time_series", "n_channels", finite=False)
    widths = sorted({values.shape[1] for values in series})
    if len(widths) > 1:
        raise ValueError(f"got arrays of {widths} channels, expected one width; plot them apart")
    n_channels = widths[0]
    names = check_names(channel_names, n_channels, "channel_names") or range(n_channels)
    check_names(labels, len(series), "labels")
    fig, axes = panels(n_channels, ax, fig, (7.5, 0.9 + 0.62 * n_channels), sharex=True)
    times = draw_rows(axes, series, n_samples, sampling_frequency, None)
    for channel, (row, name) in enumerate(zip(axes, names, strict=True)):
        draw_overlay(row, times, [values[:, channel] for values in series], labels)
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
    colorbar_label=None,
    n_columns=None,
    ax=None,
    fig=None,
):
    """
    Draw a stack of matrices in a near-square grid, on one colour scale.

    Parameters
    ----------
    matrices : array-like of shape (n_matrices, n_rows, n_columns) or (n_rows, n_columns)
        What to draw; NaN entries are left grey.
    titles : list of str, default=None
        One per matrix.
    vmin, vmax : float, default=None
        Ends of the colour scale. By default it is symmetric about 0: with neither given out
        to the largest magnitude, with one given from it to its negative.
    cmap : str or Colormap, default="RdBu_r"
        Colour map; the default is white at the middle of the scale.
    colorbar : bool, default=True
        Whether to draw the colour bar.
    colorbar_label : str, default=None
        What the colours stand for, with the unit.
    n_columns : int, default=None
        Panels in a row; with None the square root of their number, rounded up.
    ax : Axes or sequence of Axes, default=None
        Where to draw, one per matrix; not together with `fig`.
    fig : Figure or SubFigure, default=None
        Where to make the panels; with None a new figure.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_matrices,)
        What holds the panels, and the panels.

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
    images = draw_images(axes, stack, cmap, vmin, vmax)
    for panel, title in zip(axes, titles or [], strict=bool(titles)):
        panel.set_title(title, size=LABEL_SIZE, color=INK)
    if colorbar:
        draw_colorbar(fig, axes, images[0], stack, colorbar_label)
    return fig, axes


class TrainingDisplay:
    """
    How a fit went: the loss per epoch, and the schedules that steered it.

    Build it with :meth:`from_estimator`; the picture can be drawn again with :meth:`plot`.

    Parameters
    ----------
    history : dict of str to array-like of shape (n_epochs,)
        "loss" and, as far as they were recorded, "ll_loss", "validation_loss", "kl_factor"
        and "learning_rate". Values that are not finite are left out of the curves.

    Attributes
    ----------
    history : dict of str to ndarray
        A copy of what was given, as arrays.
    figure_ : Figure or SubFigure
        What holds the picture.
    ax_ : Axes
        The loss curves.
    schedule_ax_ : Axes or None
        The slim panel below, its left scale.
    lines_ : dict of str to Line2D
        The curves, by their name in `history`.

    Examples
    --------
    >>> from skdyn.plotting import TrainingDisplay
    >>> history = {"loss": [3.0, 2.0, 1.5], "kl_factor": [0.0, 0.5, 1.0]}
    >>> display = TrainingDisplay(history=history).plot()
    >>> sorted(display.lines_)
    ['kl_factor', 'loss']
    """

    # name in the history -> (label, colour, line style); later ones are drawn on top.
    _curves = {  # noqa: RUF012
        "ll_loss": ("Training, likelihood part", FAINT, ":"),
        "loss": ("Training", PALETTE[0], "-"),
        "validation_loss": ("Held out", PALETTE[9], "--"),
    }
    _schedules = {  # noqa: RUF012
        "kl_factor": ("KL factor", PALETTE[3], "-"),
        "learning_rate": ("Learning rate", PALETTE[12], "--"),
    }

    def __init__(self, *, history):
        self.history = {key: np.asarray(values, dtype=float) for key, values in history.items()}

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, fig=None):
        """
        Draw the history of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `history_`: a dict of numbers per epoch.
        ax, fig : object
            As in :meth:`plot`.

        Returns
        -------
        TrainingDisplay
            The display, drawn.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator has no `history_`.
        """
        check_is_fitted(estimator, "history_")
        return cls(history=estimator.history_).plot(ax=ax, fig=fig)

    def plot(self, ax=None, *, fig=None):
        """
        Draw the curves.

        Parameters
        ----------
        ax : Axes or sequence of two Axes, default=None
            One for the loss curves alone, or a second for the schedules.
        fig : Figure or SubFigure, default=None
            Where to make the panels; with None a new figure.

        Returns
        -------
        TrainingDisplay
            The display itself.
        """
        loss = self.history.get("loss", np.empty(0))
        if not np.isfinite(loss).any():
            raise ValueError(
                f"got a history of {sorted(self.history)} with no finite 'loss', expected at "
                "least one epoch; fit the estimator before it is drawn"
            )
        schedules = [name for name in self._schedules if name in self.history]
        n_panels = 1 + bool(schedules) if ax is None else np.size(np.asarray(ax, dtype=object))
        self.figure_, axes = panels(
            min(n_panels, 2), ax, fig, (5.5, 3.6), sharex=True, height_ratios=[4, 1][:n_panels]
        )
        self.ax_, self.lines_ = axes[0], {}
        self.schedule_ax_: Any = axes[1] if len(axes) > 1 else None
        for name in self._curves:
            self._draw(self.ax_, name, self._curves)
        limit_losses(self.ax_, self.history)
        self.ax_.set_ylabel("Loss", size=LABEL_SIZE, color=INK)
        self.ax_.legend(frameon=False, fontsize=TICK_SIZE, labelcolor=INK)
        if self.schedule_ax_ is not None:
            self._draw_schedules(schedules)
        axes[-1].set_xlabel("Epoch", size=LABEL_SIZE, color=INK)
        axes[-1].xaxis.get_major_locator().set_params(integer=True)
        return self

    def _draw(self, panel, name, styles):
        tidy(panel)
        label, color, style = styles[name]
        values = self.history.get(name, np.empty(0))
        epochs = np.flatnonzero(np.isfinite(values))
        if len(epochs):
            marker = "o" if len(epochs) < 3 else None
            (self.lines_[name],) = panel.plot(
                epochs + 1, values[epochs], style, color=color, lw=1.5, marker=marker, label=label
            )

    def _draw_schedules(self, schedules):
        panels = [self.schedule_ax_]
        if len(schedules) > 1:
            panels.append(self.schedule_ax_.twinx())
        for panel, name in zip(panels, schedules, strict=True):
            self._draw(panel, name, self._schedules)
            label, color, _ = self._schedules[name]
            panel.set_ylabel(label.replace(" ", "\n"), size=TICK_SIZE, color=color)
            panel.tick_params(axis="y", labelcolor=color)
            panel.margins(y=0.15)
            panel.set_ylim(bottom=0)
        if len(panels) > 1:
            panels[1].spines["right"].set_visible(True)


class ModesDisplay:
    """
    What the modes are: covariance, mean and share of each.

    Build it with :meth:`from_estimator`; the picture can be drawn again with :meth:`plot`.

    Parameters
    ----------
    covariances : array-like of shape (n_modes, n_channels, n_channels)
        Covariance of each mode.
    means : array-like of shape (n_modes, n_channels), default=None
        Mean of each mode; drawn as a strip beside the matrix unless all are 0.
    weights : array-like of shape (n_modes,), default=None
        Mean mixing coefficient of each mode, for the titles.

    Attributes
    ----------
    covariances, means, weights : ndarray or None
        Copies of what was given.
    figure_ : Figure or SubFigure
        What holds the picture.
    ax_ : ndarray of Axes of shape (n_modes,)
        A panel per mode.
    images_, mean_images_ : list of AxesImage
        The matrices, and the strips of means; none of these when all means are 0.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import ModesDisplay
    >>> covariances = np.stack([np.eye(5), np.eye(5) + 1])
    >>> display = ModesDisplay(covariances=covariances, weights=[0.75, 0.25]).plot()
    >>> len(display.images_)
    2
    """

    def __init__(self, *, covariances, means=None, weights=None):
        self.covariances = np.array(covariances, dtype=float)
        self.means = None if means is None else np.array(means, dtype=float)
        self.weights = None if weights is None else np.array(weights, dtype=float)

    @classmethod
    def from_estimator(
        cls, estimator, X=None, *, sessions=None, correlations=True, ax=None, fig=None
    ):
        """
        Draw the modes of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `means_` and `covariances_`, and `transform` if `X` is given.
        X : array-like of shape (n_samples, n_channels) or list of such, default=None
            Recordings; their mean mixing coefficients go into the titles.
        sessions : array-like of shape (n_samples,), default=None
            A session label per row of `X`, passed on to `transform`.
        correlations, ax, fig : object
            As in :meth:`plot`.

        Returns
        -------
        ModesDisplay
            The display, drawn.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_is_fitted(estimator, ["means_", "covariances_"])
        if X is None and sessions is not None:
            raise ValueError("got sessions without X, expected both; pass X, or neither")
        weights = None
        if X is not None:
            keywords = {} if sessions is None else {"sessions": sessions}
            alpha = estimator.transform(X, **keywords)
            parts = alpha if isinstance(alpha, list) else [alpha]
            n_modes = len(estimator.covariances_)
            weights = np.concatenate([np.reshape(part, (-1, n_modes)) for part in parts]).mean(0)
        modes = {"covariances": estimator.covariances_, "means": estimator.means_}
        return cls(**modes, weights=weights).plot(correlations=correlations, ax=ax, fig=fig)

    def plot(self, ax=None, *, correlations=True, fig=None):
        """
        Draw the modes.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw, one per mode; not together with `fig`.
        correlations : bool, default=True
            Draw correlations, their diagonal left out, and say the mean variance over channels
            in the title: structure stays readable when few channels or modes hold most of the
            variance. With False the covariances as they are.
        fig : Figure or SubFigure, default=None
            Where to make the panels; with None a new figure.

        Returns
        -------
        ModesDisplay
            The display itself.
        """
        stack = as_stack(self.covariances)
        shown = correlation_matrices(stack) if correlations else stack
        self.figure_, self.ax_ = matrix_panels(len(stack), None, ax, fig)
        low, high = color_limits(shown, None, None)
        self.images_ = draw_images(self.ax_, shown, "RdBu_r", low, high)
        label = "Correlation" if correlations else "Covariance"
        draw_colorbar(self.figure_, self.ax_, self.images_[0], shown, label)
        self.mean_images_ = self._draw_means()
        self._draw_titles(np.trace(stack, axis1=1, axis2=2) / stack.shape[1], correlations)
        return self

    def _draw_means(self):
        if self.means is None or not self.means.any():
            return []
        strips = [panel.inset_axes([1.03, 0, 0.06, 1]) for panel in self.ax_]
        low, high = color_limits(self.means, None, None)
        images = draw_images(strips, self.means[:, :, None], "PuOr_r", low, high)
        for strip in strips:
            strip.set(xticks=[], yticks=[], aspect="auto")
        draw_colorbar(self.figure_, self.ax_, images[0], self.means, "Mean")
        return images

    def _draw_titles(self, variances, correlations):
        colors = mode_palette(len(variances))
        for mode, (panel, color) in enumerate(zip(self.ax_, colors, strict=True)):
            weight = "" if self.weights is None else f", weight {self.weights[mode]:.2f}"
            variance = f"\nvariance {variances[mode]:.2g}" if correlations else ""
            title = f"Mode {mode}{weight}{variance}"
            panel.set_title(title, size=TICK_SIZE, color=INK, pad=7, linespacing=1.3)
            draw_bar(panel, color)
