"""Pictures of fitted models: receptive fields, tuning, layers, states and starts."""

from __future__ import annotations

import numpy as np

from skdyn._drawing import (
    FAINT,
    INK,
    LABEL_SIZE,
    PALETTE,
    TICK_SIZE,
    check_names,
    color_limits,
    draw_colorbar,
    draw_images,
    draw_points,
    grid_edges,
    mode_palette,
    name_edges,
    panels,
    tidy,
)
from skdyn._fitted import find_step
from skdyn.nems import Model
from skdyn.nems.inspection import (
    layer_contributions,
    local_receptive_fields,
    principal_subspace,
    state_effects,
    tuning_curves,
)
from skdyn.plotting.responses import plot_filters
from skdyn.sessions import in_sessions

# Default number of rows from which features are computed, and most curves with a label each.
MOST_ROWS, MOST_CURVES = 500, 8
# Panels in a row.
MOST_ACROSS = 4


class ReceptiveFieldDisplay:
    """
    Local receptive fields of one output: their principal features, and the fields at some rows.

    Build it with :meth:`from_estimator`; the picture can be drawn again with :meth:`plot`.

    Parameters
    ----------
    components : array-like of shape (n_components, n_lags, n_channels)
        Principal features, as from :func:`skdyn.nems.inspection.principal_subspace`.
    shares : array-like of shape (n_components,)
        Share of the fields that each explains.
    fields : array-like of shape (n_rows, n_lags, n_channels), default=None
        Fields at some rows; None draws the features alone.
    rows : array-like of int of shape (n_rows,), default=None
        The rows of `fields`; None counts them from 0.
    lags : array-like of int of shape (n_lags,), default=None
        Lags in samples; None counts them from 0.

    Attributes
    ----------
    components, shares, fields, rows, lags : ndarray or None
        As given.
    figure_ : Figure or SubFigure
        The figure that was drawn into.
    ax_ : ndarray of Axes
        The panels: features, then fields.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems import Model, from_keywords
    >>> from skdyn.plotting import ReceptiveFieldDisplay
    >>> X = np.random.default_rng(0).standard_normal((200, 4))
    >>> model = Model(from_keywords("wc.4x2-fir.3x1x2-relu.2-wc.2x1"))
    >>> model = model.sample_from_priors(random_state=0)
    >>> display = ReceptiveFieldDisplay.from_estimator(model, X, n_components=2, n_fields=1)
    >>> display.components.shape
    (2, 3, 4)
    """

    def __init__(self, *, components, shares, fields=None, rows=None, lags=None):
        self.components = np.array(components, dtype=float)
        self.shares = np.array(shares, dtype=float)
        self.fields = None if fields is None else np.array(fields, dtype=float)
        self.rows, self.lags = rows, lags
        check_names(self.shares, len(self.components), "shares")
        if rows is not None:
            check_names(rows, 0 if self.fields is None else len(self.fields), "rows")

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        output=0,
        n_components=3,
        n_fields=3,
        rows=None,
        layer=None,
        sessions=None,
        state=None,
        streams=None,
        ax=None,
        fig=None,
        **options,
    ):
        """
        Compute and draw local receptive fields of a fitted estimator or model.

        Parameters
        ----------
        estimator : estimator or skdyn.nems.Model
            A fitted `NEMSRegressor`, a fitted pipeline or search that holds one, or a model.
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The stimulus.
        output : int, default=0
            Output of the fields.
        n_components, n_fields : int, default=3, 3
            Number of features, and of rows with a field drawn.
        rows : array-like of int, default=None
            Rows from which features are computed; None for up to 500 that are evenly spaced.
        layer : str or int, default=None
            Name or index of the layer that has the output; None for the last.
        sessions, state, streams : object
            As in :func:`skdyn.nems.inspection.local_receptive_fields`.
        ax, fig, **options : object
            As in :meth:`plot`.

        Returns
        -------
        ReceptiveFieldDisplay
            The display, drawn.
        """
        if rows is None:
            n_rows = sum(map(len, in_sessions(X).arrays))
            model = estimator if isinstance(estimator, Model) else _model_of(estimator)
            n_rows = -(-n_rows // model.stride)
            rows = np.unique(np.linspace(0, n_rows - 1, min(n_rows, MOST_ROWS)).astype(int))
        given = {"sessions": sessions, "state": state, "streams": streams, "layer": layer}
        fields, lags = local_receptive_fields(estimator, X, rows=rows, outputs=[output], **given)
        components, shares = principal_subspace(fields)
        # Fields of ordinary size, evenly spaced in time.
        some = np.linspace(0, len(rows) - 1, n_fields + 2).astype(int)[1:-1]
        display = cls(
            components=components[:n_components, ..., 0],
            shares=shares[:n_components, 0],
            fields=fields[some, ..., 0] if n_fields else None,
            rows=np.asarray(rows)[some] if n_fields else None,
            lags=lags,
        )
        return display.plot(ax=ax, fig=fig, **options)

    def plot(
        self, ax=None, *, fig=None, sampling_frequency=None, channel_names=None, frequencies=None
    ):
        """
        Draw the features and the fields.

        Parameters
        ----------
        ax : sequence of Axes, default=None
            Axes to draw into, one per feature and field; mutually exclusive with `fig`.
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.
        sampling_frequency : float, default=None
            In Hz; lags are then in ms and rows in s. With None they count samples.
        channel_names, frequencies : sequence, default=None
            Names or frequencies of the channels, as in :func:`plot_filters`.

        Returns
        -------
        ReceptiveFieldDisplay
            The display itself.
        """
        titles = [f"Feature {k + 1}: {100 * share:.0f} %" for k, share in enumerate(self.shares)]
        n_features, n_fields = len(titles), 0 if self.fields is None else len(self.fields)
        options = {
            "lags": self.lags,
            "sampling_frequency": sampling_frequency,
            "channel_names": channel_names,
            "frequencies": frequencies,
        }
        self.figure_, self.ax_ = _rows_of_panels([n_features, n_fields], ax, fig)
        for stack, names, axes, label in (
            (self.components, titles, self.ax_[:n_features], "Weight (unit norm)"),
            (self.fields, self._row_names(sampling_frequency), self.ax_[n_features:], "Derivative"),
        ):
            if len(axes):
                filters = np.moveaxis(np.asarray(stack), 0, -1)
                plot_filters(filters, titles=names, ax=axes, colorbar_label=label, **options)
        return self

    def _row_names(self, sampling_frequency):
        if self.fields is None:
            return []
        rows = range(len(self.fields)) if self.rows is None else self.rows
        if sampling_frequency is None:
            return [f"Row {row}" for row in rows]
        return [f"{row / sampling_frequency:.2f} s" for row in rows]


class TuningDisplay:
    """
    Tuning curves: the response to each channel alone, a curve per level, a panel per output.

    Build it with :meth:`from_estimator`; the picture can be drawn again with :meth:`plot`.

    Parameters
    ----------
    curves : array-like of shape (n_levels, n_channels, n_outputs)
        Mean responses, as from :func:`skdyn.nems.inspection.tuning_curves`.
    levels : array-like of shape (n_levels,)
        The levels.

    Attributes
    ----------
    curves, levels : ndarray
        As given.
    figure_ : Figure or SubFigure
        The figure that was drawn into.
    ax_ : ndarray of Axes
        The panels, one per output.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import TuningDisplay
    >>> display = TuningDisplay(curves=np.arange(6.0).reshape(2, 3, 1), levels=[1, 2]).plot()
    >>> len(display.ax_[0].lines)
    2
    """

    def __init__(self, *, curves, levels):
        self.curves = np.array(curves, dtype=float)
        self.levels = np.array(levels, dtype=float)
        if self.curves.ndim != 3 or self.curves.shape[:1] != self.levels.shape:
            raise ValueError(
                f"curves has shape {self.curves.shape}, but ({self.levels.size}, n_channels, "
                "n_outputs) was expected, a curve for each of the levels."
            )

    @classmethod
    def from_estimator(
        cls,
        estimator,
        levels=(1.0,),
        *,
        n_channels=None,
        baseline=0.0,
        n_samples=None,
        ax=None,
        fig=None,
        **options,
    ):
        """
        Compute and draw tuning curves of a fitted estimator or model.

        Parameters
        ----------
        estimator : estimator or skdyn.nems.Model
            A fitted `NEMSRegressor`, a fitted pipeline or search that holds one, or a model.
        levels, n_channels, baseline, n_samples : object
            As in :func:`skdyn.nems.inspection.tuning_curves`.
        ax, fig, **options : object
            As in :meth:`plot`.

        Returns
        -------
        TuningDisplay
            The display, drawn.
        """
        curves = tuning_curves(
            estimator, levels, n_channels=n_channels, baseline=baseline, n_samples=n_samples
        )
        return cls(curves=curves, levels=levels).plot(ax=ax, fig=fig, **options)

    def plot(
        self,
        ax=None,
        *,
        fig=None,
        outputs=None,
        frequencies=None,
        output_names=None,
        ylabel="Response",
    ):
        """
        Draw the curves.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Axes to draw into, one per output; mutually exclusive with `fig`.
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.
        outputs : list of int, default=None
            Outputs that are drawn; with None all.
        frequencies : array-like of shape (n_channels,), default=None
            Frequencies of the channels in Hz, for a logarithmic axis; with None channels are
            counted.
        output_names : list of str, default=None
            A name for each output that is drawn.
        ylabel : str, default="Response"
            Name of the response, with the unit.

        Returns
        -------
        TuningDisplay
            The display itself.
        """
        outputs = list(range(self.curves.shape[2]) if outputs is None else outputs)
        names = check_names(output_names, len(outputs), "output_names")
        names = [f"Output {k}" for k in outputs] if names is None else names
        n_channels = self.curves.shape[1]
        places = np.arange(n_channels) if frequencies is None else np.asarray(frequencies, float)
        check_names(places, n_channels, "frequencies")
        self.figure_, self.ax_ = _grid(len(outputs), ax, fig)
        colors = _shades(len(self.levels))
        edges = grid_edges(self.ax_)
        for output, panel, name, edge in zip(outputs, self.ax_, names, edges, strict=True):
            tidy(panel)
            for curve, level, color in zip(
                self.curves[..., output], self.levels, colors, strict=True
            ):
                panel.plot(places, curve, color=color, lw=1.4, label=f"Level {level:.3g}")
            if frequencies is not None:
                panel.set_xscale("log")
                panel.minorticks_off()
            else:
                panel.xaxis.get_major_locator().set_params(nbins=4, integer=True)
            panel.yaxis.get_major_locator().set_params(nbins=4)
            panel.set_title(name, size=LABEL_SIZE, color=INK)
            name_edges(panel, edge, "Channel" if frequencies is None else "Frequency (Hz)", ylabel)
            panel.tick_params(labelleft=True)
        if 1 < len(self.levels) <= MOST_CURVES:
            _legend(self.ax_[0])
        return self


class LayersDisplay:
    """
    Contribution of each layer to the prediction: linear readout and unique contribution.

    Build it with :meth:`from_estimator`; the picture can be drawn again with :meth:`plot`.

    Parameters
    ----------
    names : list of str
        Names of the layers.
    readout, unique : array-like of shape (n_layers, n_outputs)
        As from :func:`skdyn.nems.inspection.layer_contributions`.

    Attributes
    ----------
    names, readout, unique : list or ndarray
        As given.
    figure_ : Figure or SubFigure
        The figure that was drawn into.
    ax_ : ndarray of Axes
        Two panels, each with a point per output and a line at their mean.

    Examples
    --------
    >>> from skdyn.plotting import LayersDisplay
    >>> display = LayersDisplay(names=["fir", "relu"], readout=[[0.5], [1]], unique=[[0.4], [0.5]])
    >>> len(display.plot().ax_)
    2
    """

    def __init__(self, *, names, readout, unique):
        self.names = list(names)
        self.readout, self.unique = (np.array(one, dtype=float) for one in (readout, unique))
        for what, values in (("readout", self.readout), ("unique", self.unique)):
            check_names(values, len(self.names), what)

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, sessions=None, state=None, streams=None, ax=None, fig=None
    ):
        """
        Compute and draw the contribution of each layer of a fitted estimator or model.

        Parameters
        ----------
        estimator : estimator or skdyn.nems.Model
            A fitted `NEMSRegressor`, a fitted pipeline or search that holds one, or a model.
        X, y, sessions, state, streams : object
            As in :func:`skdyn.nems.inspection.layer_contributions`.
        ax, fig : object
            As in :meth:`plot`.

        Returns
        -------
        LayersDisplay
            The display, drawn.
        """
        found = layer_contributions(
            estimator, X, y, sessions=sessions, state=state, streams=streams
        )
        return cls(names=found.names, readout=found.readout, unique=found.unique).plot(
            ax=ax, fig=fig
        )

    def plot(self, ax=None, *, fig=None):
        """
        Draw the two measures.

        Parameters
        ----------
        ax : sequence of two Axes, default=None
            Axes to draw into; mutually exclusive with `fig`.
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.

        Returns
        -------
        LayersDisplay
            The display itself.
        """
        n_layers = len(self.names)
        figsize = (max(4.0, 1.5 + 0.6 * n_layers), 5.0)
        self.figure_, self.ax_ = panels(2, ax, fig, figsize, sharex=True)
        labels = "Linear readout\n(held-out $R^2$)", "Unique\n(loss of $R^2$)"
        for panel, values, label in zip(self.ax_, (self.readout, self.unique), labels, strict=True):
            tidy(panel)
            for place, shown in enumerate(values):
                draw_points(panel, shown[np.isfinite(shown)], place, 0.2, PALETTE[0])
            panel.axhline(0, color=FAINT, lw=0.6)
            panel.set_ylabel(label, size=LABEL_SIZE, color=INK)
            panel.set_xlim(-0.6, n_layers - 0.4)
        upper, lower = self.ax_
        upper.set_xticks(range(n_layers))
        upper.tick_params(axis="x", labelbottom=False, length=0)
        lower.set_xticks(range(n_layers), labels=self.names, rotation=90 if n_layers > 4 else 0)
        lower.set_xlabel("Layer", size=LABEL_SIZE, color=INK)
        return self


class StateDisplay:
    """
    Effect of the state on predictions: gain and offset against each column of the state.

    Build it with :meth:`from_estimator`; the picture can be drawn again with :meth:`plot`.

    Parameters
    ----------
    values : array-like of shape (n_states, n_values)
        Values of each column of the state.
    gain, offset : array-like of shape (n_states, n_values, n_outputs)
        As from :func:`skdyn.nems.inspection.state_effects`.

    Attributes
    ----------
    values, gain, offset : ndarray
        As given.
    figure_ : Figure or SubFigure
        The figure that was drawn into.
    ax_ : ndarray of Axes
        Gains above and offsets below, a panel per column of the state, a line per output.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.plotting import StateDisplay
    >>> gain = np.array([0.5, 1, 1.5]).reshape(1, 3, 1)
    >>> display = StateDisplay(values=[[0, 1, 2]], gain=gain, offset=0 * gain).plot()
    >>> len(display.ax_)
    2
    """

    def __init__(self, *, values, gain, offset):
        self.values, self.gain, self.offset = (
            np.array(one, dtype=float) for one in (values, gain, offset)
        )
        for what, array in (("gain", self.gain), ("offset", self.offset)):
            if array.ndim != 3 or array.shape[:2] != self.values.shape:
                raise ValueError(
                    f"{what} has shape {array.shape}, but {(*self.values.shape, 'n_outputs')} was "
                    "expected."
                )

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        state,
        *,
        n_values=5,
        percentiles=(5, 95),
        sessions=None,
        streams=None,
        ax=None,
        fig=None,
        **options,
    ):
        """
        Compute and draw effects of the state on a fitted estimator or model.

        Parameters
        ----------
        estimator : estimator or skdyn.nems.Model
            A fitted `NEMSRegressor`, a fitted pipeline or search that holds one, or a model.
        X, state, n_values, percentiles, sessions, streams : object
            As in :func:`skdyn.nems.inspection.state_effects`.
        ax, fig, **options : object
            As in :meth:`plot`.

        Returns
        -------
        StateDisplay
            The display, drawn.
        """
        found = state_effects(
            estimator,
            X,
            state,
            n_values=n_values,
            percentiles=percentiles,
            sessions=sessions,
            streams=streams,
        )
        return cls(values=found.values, gain=found.gain, offset=found.offset).plot(
            ax=ax, fig=fig, **options
        )

    def plot(self, ax=None, *, fig=None, state_names=None, output_names=None):
        """
        Draw gains and offsets.

        Parameters
        ----------
        ax : sequence of Axes, default=None
            Axes to draw into: gains of all columns, then offsets; mutually exclusive with `fig`.
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.
        state_names, output_names : list of str, default=None
            A name per column of the state, with the unit, and per output.

        Returns
        -------
        StateDisplay
            The display itself.
        """
        n_states, n_outputs = len(self.values), self.gain.shape[2]
        names = check_names(state_names, n_states, "state_names")
        names = names or (["State"] if n_states == 1 else [f"State {k}" for k in range(n_states)])
        labels = check_names(output_names, n_outputs, "output_names")
        labels = labels or [f"Output {k}" for k in range(n_outputs)]
        figsize = (2.4 * n_states + 1.4, 4.4)
        self.figure_, self.ax_ = panels(2 * n_states, ax, fig, figsize, n_columns=n_states)
        colors = mode_palette(n_outputs)
        for place, panel in enumerate(self.ax_):
            column, is_gain = place % n_states, place < n_states
            tidy(panel)
            curves = (self.gain if is_gain else self.offset)[column]
            for curve, color, label in zip(curves.T, colors, labels, strict=True):
                panel.plot(self.values[column], curve, "-o", ms=3, lw=1.3, color=color, label=label)
            panel.axhline(float(is_gain), color=FAINT, lw=0.6, zorder=0)
            for axis in (panel.xaxis, panel.yaxis):
                axis.get_major_locator().set_params(nbins=3)
            panel.set_xlabel("" if is_gain else names[column], size=LABEL_SIZE, color=INK)
            panel.tick_params(labelbottom=not is_gain)
            title = "Gain" if is_gain else "Offset"
            panel.set_ylabel(title if column == 0 else "", size=LABEL_SIZE, color=INK)
        if 1 < n_outputs <= MOST_CURVES:
            _legend(self.ax_[0])
        return self


class StartsDisplay:
    """
    Fits of one model from several starts: loss by iteration, and the values that each start found.

    Build it with :meth:`from_estimator`; the picture can be drawn again with :meth:`plot`.

    Parameters
    ----------
    losses : list of array-like of shape (n_iter,)
        Loss after each iteration, of each start.
    parameters : array-like of shape (n_starts, n_parameters)
        Fitted values at the end of each start.
    best : int
        Index of the start that the values of the model come from.
    step : str, default="Iteration"
        The unit of a step of the loss.

    Attributes
    ----------
    losses, parameters, best, step : list, ndarray, int or str
        As given.
    figure_ : Figure or SubFigure
        The figure that was drawn into.
    ax_ : ndarray of Axes
        Losses above, values below: a row per start, a column per parameter, each parameter divided
        by its root mean square over starts.

    Examples
    --------
    >>> from skdyn.plotting import StartsDisplay
    >>> losses, parameters = [[3, 2, 1], [3, 1.5]], [[1.0, 2.0], [1.1, 1.9]]
    >>> display = StartsDisplay(losses=losses, parameters=parameters, best=0).plot()
    >>> len(display.ax_[0].lines)
    2
    """

    def __init__(self, *, losses, parameters, best, step="Iteration"):
        self.losses = [np.array(one, dtype=float) for one in losses]
        self.parameters = np.array(parameters, dtype=float)
        self.best, self.step = best, step
        check_names(self.parameters, len(self.losses), "parameters")

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, fig=None):
        """
        Draw the starts of a fitted estimator or model.

        Parameters
        ----------
        estimator : estimator or skdyn.nems.Model
            A `NEMSRegressor` fitted with n_init of at least 1, a fitted pipeline or search that
            holds one, or a model that `fit` returned.
        ax, fig : object
            As in :meth:`plot`.

        Returns
        -------
        StartsDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If a model was not fitted, or has nothing to fit.
        """
        model = estimator if isinstance(estimator, Model) else _model_of(estimator)
        if model.results is None or not model.results.n_parameters:
            raise ValueError("The model has no fitted values. Fit it before it is drawn.")
        starts = model.results.starts
        display = cls(
            losses=[one.history for one in starts],
            parameters=[one.final_parameters for one in starts],
            best=int(np.argmin([one.criterion for one in starts])),
            step=model.results.unit.capitalize(),
        )
        return display.plot(ax=ax, fig=fig)

    def plot(self, ax=None, *, fig=None):
        """
        Draw losses and values.

        Parameters
        ----------
        ax : sequence of two Axes, default=None
            Axes to draw into; mutually exclusive with `fig`.
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.

        Returns
        -------
        StartsDisplay
            The display itself.
        """
        n_starts = len(self.losses)
        self.figure_, self.ax_ = panels(2, ax, fig, (6.0, 4.0 + 0.12 * n_starts))
        upper, lower = self.ax_
        tidy(upper)
        for number, loss in enumerate(self.losses):
            is_best = number == self.best
            style = {"color": PALETTE[0] if is_best else FAINT, "lw": 1.8 if is_best else 0.9}
            label = "Best start" if is_best else "Other starts"
            style |= {"zorder": 3 if is_best else 2, "label": label}
            marker = "o" if len(loss) < 3 else None
            upper.plot(np.arange(1, len(loss) + 1), loss, marker=marker, **style)
        handles, labels = upper.get_legend_handles_labels()
        shown = dict(zip(labels, handles, strict=True))
        style = {"frameon": False, "fontsize": TICK_SIZE, "labelcolor": INK}
        upper.legend(shown.values(), shown, **style)
        upper.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)
        upper.yaxis.get_offset_text().set(size=TICK_SIZE, color=INK)
        upper.xaxis.get_major_locator().set_params(integer=True)
        upper.set_xlabel(self.step, size=LABEL_SIZE, color=INK)
        upper.set_ylabel("Loss", size=LABEL_SIZE, color=INK)
        size = np.sqrt(np.mean(self.parameters**2, axis=0))
        shown_values = self.parameters / np.where(size > 0, size, 1.0)
        vmin, vmax = color_limits(shown_values, None, None)
        labels = "Fitted value", "Start"
        (image,) = draw_images([lower], shown_values[None], "RdBu_r", vmin, vmax, labels=labels)
        lower.set_aspect("auto")
        draw_colorbar(self.figure_, [lower], image, shown_values, "Value / RMS")
        return self


def _model_of(estimator):
    _, fitted, _ = find_step(estimator, "model_")
    return fitted.model_


def _shades(n_colors):
    """One hue from light to dark."""
    dark = mode_palette(1)[0]
    shares = np.linspace(0.35, 1.0, n_colors) if n_colors > 1 else np.ones(1)
    return [tuple(1 - share * (1 - dark)) for share in shares]


def _legend(panel):
    panel.legend(frameon=False, fontsize=TICK_SIZE, labelcolor=INK, handlelength=1.2)


def _grid(n_panels, ax, fig):
    n_columns = -(-n_panels // -(-n_panels // MOST_ACROSS))
    figsize = (2.4 * n_columns + 0.8, 2.0 * -(-n_panels // n_columns) + 0.5)
    return panels(n_panels, ax, fig, figsize, n_columns=n_columns)


def _rows_of_panels(counts, ax, fig):
    """Panels in blocks below each other, each block in rows of four."""
    if ax is not None:
        return panels(sum(counts), ax, fig, None)
    n_columns = min(max(counts), MOST_ACROSS)
    heights = [-(-count // n_columns) for count in counts if count]
    if fig is None:
        import matplotlib.pyplot as plt

        width = 2.2 * n_columns + 1.4
        fig = plt.figure(figsize=(width, 2.2 * sum(heights) + 0.4), layout="constrained")
    grid = fig.add_gridspec(sum(heights), n_columns)
    places, top = [], 0
    for count in filter(None, counts):
        within = (divmod(number, n_columns) for number in range(count))
        places += [grid[top + row, column] for row, column in within]
        top += -(-count // n_columns)
    return fig, np.array([fig.add_subplot(place) for place in places], dtype=object)
