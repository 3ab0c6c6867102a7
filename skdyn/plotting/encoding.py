"""Pictures of fitted encoding models."""

from __future__ import annotations

import numpy as np

from skdyn._drawing import panels
from skdyn._fitted import ask, find_step, transform_through
from skdyn.nems import Model
from skdyn.nems.model import first
from skdyn.plotting.filters import layers_alone, linear_filter, linear_part, static_part
from skdyn.plotting.responses import plot_filters, plot_nonlinearity, plot_predictions
from skdyn.plotting.training import TrainingDisplay
from skdyn.sessions import check_sessions, container_of

# Default numbers of filters or outputs and of rows that are drawn.
MOST_OUTPUTS, MOST_SAMPLES = 4, 500
# Filters or nonlinearities in a row.
MOST_ACROSS = 4


class NEMSDisplay:
    """
    Filters, nonlinearity, prediction and loss of an encoding model.

    Build it with :meth:`from_estimator`; the picture can be drawn again with :meth:`plot`.

    Parameters
    ----------
    prediction : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Prediction of the model.
    response : array-like of the same shape, default=None
        Measured response; with None the prediction is not drawn.
    filters : array-like of shape (n_lags, n_channels, n_filters), default=None
        Impulse responses, as from :func:`linear_filter`.
    lags : array-like of int of shape (n_lags,), default=None
        Lags of `filters` in samples; with None they count from 0.
    nonlinearity : callable, default=None
        The pointwise layers at the end of the model: a function from an array of shape
        (n_points, n_outputs) to one of the same shape.
    inputs : array-like of shape (n_samples, n_outputs), default=None
        Inputs of `nonlinearity`.
    loss : array-like of shape (n_iter,), default=None
        Loss after each iteration.
    step : str, default="Iteration"
        Unit of the steps of the loss, for the label of the axis.
    session_lengths : array-like of int of shape (n_sessions,), default=None
        Rows of each session, for gaps between them; None for one session.

    Attributes
    ----------
    prediction, response, filters, lags, nonlinearity, inputs, loss, step, session_lengths : \
            ndarray, callable, str or None
        As given.
    figure_ : Figure or SubFigure
        The figure that was drawn into.
    ax_ : ndarray of Axes
        All panels: filters, nonlinearities, loss, predictions.
    filter_ax_, nonlinearity_ax_, loss_ax_, prediction_ax_ : ndarray of Axes
        The panels of each kind; empty if there are none.

    See Also
    --------
    plot_filters, plot_nonlinearity, plot_predictions, TrainingDisplay : The pictures one by one.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems import Model, from_keywords
    >>> from skdyn.plotting import NEMSDisplay
    >>> rng = np.random.default_rng(0)
    >>> stimulus = rng.standard_normal((300, 4))
    >>> response = np.maximum(stimulus[:, 1] - stimulus[:, 2], 0)
    >>> model = Model(from_keywords("wc.4x1-fir.3x1-lvl.1-relu.1"))
    >>> fitted = model.fit(stimulus, response, verbose=0)
    >>> display = NEMSDisplay.from_estimator(fitted, stimulus, response, sampling_frequency=100)
    >>> display.filters.shape
    (3, 4, 1)
    """

    def __init__(
        self,
        *,
        prediction,
        response=None,
        filters=None,
        lags=None,
        nonlinearity=None,
        inputs=None,
        loss=None,
        step="Iteration",
        session_lengths=None,
    ):
        self.prediction, self.response = _as_columns(prediction), _as_columns(response)
        self.filters, self.lags = filters, lags
        self.nonlinearity, self.inputs = nonlinearity, inputs
        self.loss = None if loss is None else np.array(loss, dtype=float)
        self.step = step
        lengths = [len(self.prediction)] if session_lengths is None else session_lengths
        self.session_lengths = np.array(lengths, dtype=int)
        if self.response is not None and self.response.shape != self.prediction.shape:
            raise ValueError(
                f"response has shape {self.response.shape}, but prediction has shape "
                f"{self.prediction.shape}. Pass one number for each."
            )

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, sessions=None, ax=None, fig=None, **options):
        """
        Draw a fitted estimator or model, and its predictions for given data.

        Parameters
        ----------
        estimator : estimator or skdyn.nems.Model
            An estimator that is fitted, with `model_`, `history_` and `predict`; a fitted pipeline
            or search that holds one; or a model.
        X : array-like of shape (n_samples, n_channels), list of such, or dict of such
            Stimulus, as the estimator, the pipeline or the search takes it. A list, or an array
            with sessions as first axis, holds several sessions, which share no history. A dict of
            arrays by name is for a model only.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Response, in sessions if the stimulus is.
        sessions : array-like of shape (n_samples,), default=None
            A session label per row of `X`, passed to the steps that take them; for an estimator
            only.
        ax, fig, **options : object
            As in :meth:`plot`.

        Returns
        -------
        NEMSDisplay
            The display, drawn.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        TypeError
            If it has no model of layers.
        """
        if isinstance(estimator, Model):
            if sessions is not None:
                raise ValueError(
                    "sessions cannot be given with a Model. Pass X as a list of sessions."
                )
            model, history = estimator, None
            parts = [X] if container_of(X) == "array" else list(X)
            prediction = [model.predict(part) for part in parts]
        else:
            before, fitted, _ = find_step(estimator, "model_")
            model, history = fitted.model_, getattr(fitted, "history_", None)
            X = transform_through(before, X, sessions)
            parts = check_sessions(fitted, X, sessions, reset=False).arrays
            prediction = ask(fitted, "predict", X, sessions)
            prediction = [prediction] if container_of(X) == "array" else prediction
        results = model.results
        if history is None:
            history = {"loss": [] if results is None else results.history}
        display = cls(
            prediction=_joined(prediction),
            response=y if y is None or container_of(X) == "array" else _joined(y),
            loss=history["loss"],
            step="Iteration" if results is None else results.unit.capitalize(),
            session_lengths=_rows_of(parts, model.stride) if len(parts) > 1 else None,
            **_parts_of(model, parts),
        )
        return display.plot(ax=ax, fig=fig, **options)

    def plot(
        self,
        ax=None,
        *,
        fig=None,
        outputs=None,
        sampling_frequency=None,
        start=0,
        n_samples=MOST_SAMPLES,
        channel_names=None,
        frequencies=None,
        output_names=None,
    ):
        """
        Draw all panels that have data.

        Parameters
        ----------
        ax : sequence of Axes, default=None
            Axes to draw into, in the order of `ax_`; mutually exclusive with `fig`.
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.
        outputs : list of int, default=None
            Outputs that are drawn; with None the first four. If there are not as many filters as
            outputs, the first four filters are.
        sampling_frequency : float, default=None
            In Hz; lags and times are then in ms and s. With None they count samples.
        start, n_samples : int, default=0, 500
            First row and number of rows of the prediction to draw; None for all. The correlation
            and the measured means are those of all rows.
        channel_names, frequencies : sequence, default=None
            Channels of the stimulus, as in :func:`plot_filters`.
        output_names : list of str, default=None
            A name for each output that is drawn; with None their indices.

        Returns
        -------
        NEMSDisplay
            The display itself.
        """
        n_outputs = self.prediction.shape[1]
        outputs = self._chosen(outputs)
        paired = self.filters is not None and self.filters.shape[2] == n_outputs
        shown = outputs if paired else range(self._n_filters)[:MOST_OUTPUTS]
        self._make_panels(len(shown) if self._n_filters else 0, len(outputs), ax, fig)
        names = output_names if output_names is not None else [f"Output {k}" for k in outputs]
        titles = names if n_outputs > 1 else None
        if len(self.filter_ax_):
            plot_filters(
                self.filters[:, :, list(shown)],
                lags=self.lags,
                sampling_frequency=sampling_frequency,
                channel_names=channel_names,
                frequencies=frequencies,
                titles=titles if paired else [f"Filter {k}" for k in shown],
                ax=self.filter_ax_,
            )
        if len(self.nonlinearity_ax_):
            # Below filters of the same outputs, these have their names already.
            named = paired and len(self.filter_ax_) and ax is None
            self._draw_nonlinearity(outputs, None if named else titles)
        if len(self.loss_ax_):
            TrainingDisplay(history={"loss": self.loss}, step=self.step).plot(self.loss_ax_)
        if len(self.prediction_ax_):
            borders = np.cumsum(self.session_lengths)[:-1]
            plot_predictions(
                np.split(self.response[:, outputs], borders),
                np.split(self.prediction[:, outputs], borders),
                sampling_frequency=sampling_frequency,
                start=start,
                n_samples=n_samples,
                output_names=names if n_outputs > 1 else output_names,
                ax=self.prediction_ax_,
            )
        return self

    @property
    def _n_filters(self):
        return 0 if self.filters is None else self.filters.shape[2]

    def _chosen(self, outputs):
        n_outputs = self.prediction.shape[1]
        chosen = list(range(n_outputs)[:MOST_OUTPUTS] if outputs is None else outputs)
        if not chosen or not all(one in range(n_outputs) for one in chosen):
            raise ValueError(
                f"outputs must be some of range({n_outputs}), but is {outputs!r}. Pass the indices "
                "of outputs."
            )
        return chosen

    def _draw_nonlinearity(self, outputs, titles):
        n_outputs = self.prediction.shape[1]

        def curves(grid):
            given = np.zeros((len(grid), n_outputs))
            given[:, outputs] = grid
            return self.nonlinearity(given)[:, outputs]

        plot_nonlinearity(
            curves,
            self.inputs[:, outputs],
            None if self.response is None else self.response[:, outputs],
            titles=titles,
            xlabel="Input of the nonlinearity",
            ax=self.nonlinearity_ax_,
        )

    def _make_panels(self, n_filters, n_outputs, ax, fig):
        counts = [
            n_filters,
            n_outputs if self.nonlinearity is not None else 0,
            int(self.loss is not None and np.isfinite(self.loss).any()),
            n_outputs if self.response is not None else 0,
        ]
        if ax is None:
            self.figure_, self.ax_ = _lay_out(counts, fig)
        else:
            self.figure_, self.ax_ = panels(sum(counts), ax, fig, None)
        parts = np.split(self.ax_, np.cumsum(counts)[:-1])
        self.filter_ax_, self.nonlinearity_ax_, self.loss_ax_, self.prediction_ax_ = parts


def _as_columns(values):
    if values is None:
        return None
    array = np.array(values, dtype=float)
    return array[:, None] if array.ndim == 1 else array


def _rows_of(sessions, stride):
    """Rows of the output of each session."""
    return [-(-len(one) // stride) for one in sessions]


def _joined(sessions):
    return np.concatenate([np.reshape(one, (len(one), -1)) for one in sessions])


def _parts_of(model, sessions):
    """Find the filters and the nonlinearity of a model, and the inputs of the latter."""
    stages = [_stages(model, one) for one in sessions]
    stimulus, n_layers = stages[0][0], len(model.layers)
    n_before = static_part(model, stages[0])
    found = {}
    if np.ndim(stimulus) == 2:
        begin, end = linear_part(model, stimulus.shape[1])
        if begin < min(end, n_before):
            found["filters"], found["lags"] = linear_filter(model, stimulus.shape[1])
    if n_before < n_layers:
        found["nonlinearity"] = layers_alone(model, n_before, n_layers).predict
        found["inputs"] = np.concatenate([stage[n_before] for stage in stages])
    return found


def _stages(model, session):
    """Inputs of each layer, and the output of the last."""
    data = model.check_data(session)
    name = model.layers[0].input
    stages = [data[name] if isinstance(name, str) else first(data)]
    stages.extend(data["output"] for _ in model.steps(data))
    return stages


def _lay_out(counts, fig):
    """Filters, nonlinearities and loss above, predictions below."""
    n_filters, n_curves, n_losses, n_rows = counts
    if not sum(counts):
        raise ValueError("There is nothing to draw, neither filters nor a response. Pass y.")
    # One filter and one curve are side by side with the loss, more are in blocks of rows.
    is_single = max(n_filters, n_curves) <= 1
    n_across = n_filters + n_curves if is_single else min(max(n_filters, n_curves), MOST_ACROSS)
    rows = [min(n_filters + n_curves, 1)] if is_single else []
    rows = rows or [-(-count // n_across) for count in (n_filters, n_curves)]
    n_above = max(sum(rows), n_losses)
    heights = [2.4 * n_above] * bool(n_above) + [0.6 + 0.9 * n_rows] * bool(n_rows)
    if fig is None:
        import matplotlib.pyplot as plt

        width = max(9.0, 2.4 * (n_across + n_losses))
        fig = plt.figure(figsize=(width, sum(heights)), layout="constrained")
    parts = fig.add_gridspec(len(heights), 1, height_ratios=heights)
    places = []
    if n_above:
        top = parts[0].subgridspec(n_above, n_across + n_losses, wspace=0.12, hspace=0.06)
        if is_single:
            places += [top[0, column] for column in range(n_filters + n_curves)]
        else:
            places += [top[divmod(number, n_across)] for number in range(n_filters)]
            curves = (divmod(number, n_across) for number in range(n_curves))
            places += [top[rows[0] + row, column] for row, column in curves]
        places += [top[0, -1]] * n_losses
    if n_rows:
        places += list(parts[-1].subgridspec(n_rows, 1))
    return fig, np.array([fig.add_subplot(place) for place in places], dtype=object)
