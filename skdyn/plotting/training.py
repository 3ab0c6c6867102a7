"""Pictures of the training history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from skdyn._drawing import (
    FAINT,
    INK,
    LABEL_SIZE,
    PALETTE,
    TICK_SIZE,
    limit_losses,
    panels,
    tidy,
)
from skdyn._fitted import find_step


class TrainingDisplay:
    """
    Training history: the loss per step, and the schedules of the training.

    Build it with :meth:`from_estimator`; the picture can be drawn again with :meth:`plot`.

    Parameters
    ----------
    history : dict of str to array-like of shape (n_epochs,)
        "loss" and, as far as they were recorded, "ll_loss", "validation_loss", "kl_factor"
        and "learning_rate". Values that are not finite are left out of the curves.
    step : str, default="Epoch"
        Unit of the steps of the loss, for the label of the axis.
    unit : str, default=None
        Unit of the loss, for the label of the axis.

    Attributes
    ----------
    history : dict of str to ndarray
        A copy of the argument, as arrays.
    step, unit : str
        As given.
    figure_ : Figure or SubFigure
        The figure that was drawn into.
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

    def __init__(self, *, history, step="Epoch", unit=None):
        if not isinstance(history, Mapping):
            raise TypeError(
                f"history is {history!r:.50}, but a dict of numbers per epoch was expected."
            )
        self.step = step
        self.unit = unit
        self.history = {key: np.asarray(values, dtype=float) for key, values in history.items()}

    @classmethod
    def from_estimator(cls, estimator, *, step=None, ax=None, fig=None):
        """
        Draw the history of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `history_`: a dict of numbers per epoch; or a fitted pipeline or search
            that holds such a model.
        step : str, default=None
            Unit of the steps of the loss; with None "Iteration" for an encoding model with an
            iterative solver, and "Epoch" otherwise.
        ax, fig : object
            As in :meth:`plot`.

        Returns
        -------
        TrainingDisplay
            The display, drawn.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        TypeError
            If it has no `history_`.
        """
        _, model, _ = find_step(estimator, "history_")
        if step is None:
            results = getattr(getattr(model, "model_", None), "results", None)
            step = getattr(results, "unit", "epoch").capitalize()
        # A bound on the log-evidence has a likelihood part.
        unit = "nats" if "ll_loss" in model.history_ else None
        return cls(history=model.history_, step=step, unit=unit).plot(ax=ax, fig=fig)

    def plot(self, ax=None, *, fig=None):
        """
        Draw the curves.

        Parameters
        ----------
        ax : Axes or sequence of two Axes, default=None
            One for the loss curves alone, or a second for the schedules.
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.

        Returns
        -------
        TrainingDisplay
            The display itself.
        """
        loss = self.history.get("loss", np.empty(0))
        if not np.isfinite(loss).any():
            raise ValueError(
                f"The history of {sorted(self.history)} has no finite 'loss', but at least one "
                f"{self.step.lower()} was expected. Fit the estimator before it is drawn."
            )
        schedules = [name for name in self._schedules if name in self.history]
        n_panels = 1 + bool(schedules) if ax is None else np.size(np.asarray(ax, dtype=object))
        self.figure_, axes = panels(
            min(n_panels, 2), ax, fig, (5.5, 3.6), sharex=True, height_ratios=[4, 1][:n_panels]
        )
        self.ax_ = axes[0]
        self.lines_: dict[str, Any] = {}
        self.schedule_ax_: Any = axes[1] if len(axes) > 1 else None
        for name in self._curves:
            self._draw(self.ax_, name, self._curves)
        limit_losses(self.ax_, self.history)
        label = "Loss" if self.unit is None else f"Loss ({self.unit})"
        self.ax_.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)
        self.ax_.yaxis.get_offset_text().set(size=TICK_SIZE, color=INK)
        self.ax_.set_ylabel(label, size=LABEL_SIZE, color=INK)
        if len(self.lines_) > 1:
            self.ax_.legend(frameon=False, fontsize=TICK_SIZE, labelcolor=INK)
        if self.schedule_ax_ is not None:
            self._draw_schedules(schedules)
        axes[-1].set_xlabel(self.step, size=LABEL_SIZE, color=INK)
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
