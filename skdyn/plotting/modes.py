"""Pictures of modes and of mixing coefficients over time."""

from __future__ import annotations

import numpy as np

from skdyn._drawing import (
    INK,
    LABEL_SIZE,
    TICK_SIZE,
    as_arrays,
    as_stack,
    check_names,
    check_rate,
    color_limits,
    correlation_matrices,
    draw_bar,
    draw_borders,
    draw_colorbar,
    draw_images,
    draw_mode_key,
    draw_rows,
    draw_runs,
    draw_stack,
    matrix_panels,
    mode_palette,
    panels,
    session_lengths,
)
from skdyn._fitted import find_step, mode_order, transform_through
from skdyn.analysis.channels import channel_modes
from skdyn.analysis.statistics import active_modes, normalised_alpha
from skdyn.sessions import as_numbers, in_sessions


def plot_alpha(
    *alphas,
    sampling_frequency=None,
    n_samples=None,
    labels=None,
    mode_labels=None,
    normalise=None,
    ax=None,
    fig=None,
):
    """
    Draw mixing coefficients over time, stacked: a panel per array, on one time axis.

    Parameters
    ----------
    *alphas : array-like of shape (n_samples, n_modes), list of such, or array of shape \
            (n_sessions, n_samples, n_modes)
        Non-negative mixing coefficients. Sessions of one argument follow each other in one panel,
        with a line between them; pass ``*sessions`` for a panel each.
    sampling_frequency : float, default=None
        In Hz; the time axis is then in seconds. With None it counts samples.
    n_samples : int, default=None
        Draw the first `n_samples` rows; with None all.
    labels : list of str, default=None
        A title per panel.
    mode_labels : list of str, default=None
        Names in the key; with None the column indices, from 0.
    normalise : array-like of shape (n_modes, n_channels, n_channels), default=None
        Covariances of the modes. If given, the share of the variance that each mode explains is
        drawn, see `skdyn.analysis.normalised_alpha`. With None the raw coefficients are drawn,
        which do not measure power if modes differ in variance.
    ax : Axes or sequence of Axes, default=None
        Axes to draw into, one per array; mutually exclusive with `fig`.
    fig : Figure or SubFigure, default=None
        Figure to add the panels to; None creates one.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_alphas,)
        The figure and its panels.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import plot_alpha
    >>> alpha = np.random.default_rng(0).dirichlet(np.ones(6), size=200)
    >>> fig, axes = plot_alpha(alpha, sampling_frequency=100)
    """
    courses = _as_courses(alphas)
    if normalise is not None:
        courses = [normalised_alpha(course, normalise) for course in courses]
    n_modes = max(course.shape[1] for course in courses)
    colors = mode_palette(n_modes)
    height = max(0.7 + 1.5 * len(courses), 0.17 * n_modes + 0.6)
    fig, axes = panels(len(courses), ax, fig, (7.5, height), sharex=True)
    times = draw_rows(axes, courses, n_samples, sampling_frequency, labels)
    gap = {"color": "white", "linewidth": 1.5, "linestyle": "-"}
    for panel, given, course, time in zip(axes, alphas, courses, times, strict=True):
        draw_stack(panel, time, course[: len(time)], colors)
        draw_borders(panel, session_lengths(given), check_rate(sampling_frequency), **gap)
        if normalise is not None:
            panel.set_ylabel("Share of variance", size=LABEL_SIZE, color=INK)
    draw_mode_key(fig, axes, colors, mode_labels)
    return fig, axes


def plot_raster(
    *alphas,
    binarize="argmax",
    sampling_frequency=None,
    n_samples=None,
    labels=None,
    mode_labels=None,
    ax=None,
    fig=None,
):
    """
    Draw when each mode is active: a panel per array, with a row per mode, on one time axis.

    Parameters
    ----------
    *alphas : array-like of shape (n_samples, n_modes), list of such, or array of shape \
            (n_sessions, n_samples, n_modes)
        Non-negative mixing coefficients, or posterior probabilities of states. Sessions of one
        argument follow each other in one panel, with a line between them; pass ``*sessions`` for a
        panel each.
    binarize : {"argmax", "mixture"} or float in (0, 1), default="argmax"
        Criterion for an active mode, see `skdyn.analysis.mode_statistics`.
    sampling_frequency : float, default=None
        In Hz; the time axis is then in seconds. With None it counts samples.
    n_samples : int, default=None
        Draw the first `n_samples` rows; with None all.
    labels : list of str, default=None
        A title per panel.
    mode_labels : list of str, default=None
        Names of the rows; with None the column indices, from 0.
    ax : Axes or sequence of Axes, default=None
        Axes to draw into, one per array; mutually exclusive with `fig`.
    fig : Figure or SubFigure, default=None
        Figure to add the panels to; None creates one.

    Returns
    -------
    fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_alphas,)
        The figure and its panels. Modes have the colours of `plot_alpha`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import plot_raster
    >>> alpha = np.random.default_rng(0).dirichlet(np.ones(6), size=200)
    >>> fig, axes = plot_raster(alpha, sampling_frequency=100)
    """
    courses = _as_courses(alphas)
    n_modes = max(course.shape[1] for course in courses)
    names = check_names(mode_labels, n_modes, "mode_labels")
    active = [active_modes([course], binarize)[0] for course in courses]
    height = 0.7 + len(courses) * (0.4 + 0.16 * n_modes)
    fig, axes = panels(len(courses), ax, fig, (7.5, height), sharex=True)
    times = draw_rows(axes, courses, n_samples, sampling_frequency, labels)
    step = check_rate(sampling_frequency)
    for panel, given, course, time in zip(axes, alphas, active, times, strict=True):
        draw_runs(panel, course[: len(time)], step, mode_palette(n_modes))
        draw_borders(panel, session_lengths(given), step)
        panel.set_yticks(range(n_modes), labels=range(n_modes) if names is None else names)
        panel.set_ylabel("Mode", size=LABEL_SIZE, color=INK)
    return fig, axes


def _as_courses(alphas):
    """Mixing coefficients, checked; each array of sessions as rows."""
    courses = as_arrays(alphas, "n_modes", finite=True, name="alphas")
    if any((course < 0).any() for course in courses):
        lowest = min(course.min() for course in courses)
        raise ValueError(
            f"alphas has a mixing coefficient of {lowest:.3g}, but none below 0 was expected. Plot "
            "signed courses with plot_separate_time_series."
        )
    return courses


class ModesDisplay:
    """
    Covariance, mean and share of each mode.

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
        Copies of the arguments.
    figure_ : Figure or SubFigure
        The figure that was drawn into.
    ax_ : ndarray of Axes of shape (n_modes,)
        A panel per mode.
    images_, mean_images_ : list of AxesImage
        The matrices, and the strips of means; no strips if all means are 0.

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
        self.covariances = as_numbers(covariances, "covariances").copy()
        self.means = None if means is None else as_numbers(means, "means").copy()
        self.weights = None if weights is None else as_numbers(weights, "weights").copy()
        n_modes, n_channels = (*self.covariances.shape, 0, 0)[:2]
        shapes = {
            "covariances": (n_modes, n_channels, n_channels),
            "means": (n_modes, n_channels),
            "weights": (n_modes,),
        }
        for name, shape in shapes.items():
            given = getattr(self, name)
            if given is not None and given.shape != shape:
                raise ValueError(f"{name} has the shape {given.shape}, but {shape} was expected.")

    @classmethod
    def from_estimator(
        cls, estimator, X=None, *, sessions=None, correlations=True, ax=None, fig=None
    ):
        """
        Draw the modes of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `means_` and `covariances_`, and `transform` if `X` is given; or a fitted
            pipeline or search that holds such a model. Its modes are then drawn in channels, see
            `skdyn.analysis.channel_modes`, in the order of a `ModeMatcher` after the model. The
            model alone, such as ``pipeline[-1]``, is drawn in the columns of its own input.
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels), default=None
            Recordings as the estimator, the pipeline or the search takes them; their mean mixing
            coefficients are shown in the titles.
        sessions : array-like of shape (n_samples,), default=None
            A session label per row of `X`, passed to the steps that take them.
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
        TypeError
            If it has no modes.
        ValueError
            If a step of a pipeline cannot be undone.
        """
        before, model, after = find_step(estimator, "means_", "covariances_")
        if X is None and sessions is not None:
            raise ValueError("sessions was given without X. Pass X as well, or leave sessions out.")
        order = mode_order(model.covariances_, after)
        weights = None
        if X is not None:
            alpha = in_sessions(transform_through([*before, model], X, sessions))
            weights = np.concatenate(alpha.arrays).mean(axis=0)[order]
        found = channel_modes(estimator)
        modes = {"covariances": found.covariances[order], "means": found.means[order]}
        return cls(**modes, weights=weights).plot(correlations=correlations, ax=ax, fig=fig)

    def plot(self, ax=None, *, correlations=True, fig=None):
        """
        Draw the modes.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Axes to draw into, one per mode; mutually exclusive with `fig`.
        correlations : bool, default=True
            Draw correlations without their diagonal, and show the mean variance over channels in
            the title, so that structure stays readable when few channels or modes have most of
            the variance. With False, draw the covariances.
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.

        Returns
        -------
        ModesDisplay
            The display itself.
        """
        stack = as_stack(self.covariances)
        shown = correlation_matrices(stack) if correlations else stack
        self.figure_, self.ax_ = matrix_panels(len(stack), None, ax, fig)
        low, high = color_limits(shown, None, None)
        self.images_ = draw_images(
            self.ax_, shown, "RdBu_r", low, high, labels=("Channel", "Channel")
        )
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
            panel.set_title(title, size=TICK_SIZE, color=INK, pad=9, linespacing=1.3)
            draw_bar(panel, color)
