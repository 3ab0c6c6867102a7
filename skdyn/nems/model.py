"""A stack of layers, from a stimulus to a response."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skdyn.metrics import correlation_score
from skdyn.nems.fitting import fit_model
from skdyn.nems.layers.base import Layer
from skdyn.nems.lbfgs import FitResults
from skdyn.nems.stack import LayerStack
from skdyn.nems.wiring import (
    INPUT,
    OUTPUT,
    STATE,
    arguments,
    check_rows,
    first,
    named_outputs,
    shapes,
    stacked,
    with_two_axes,
)

RULE = "~" * 64


class Model(LayerStack):
    """A stack of layers: each takes what came out of the one before, or what it names.

    Parameters
    ----------
    layers : list of Layer, default=None
        The layers, first to last.
    name : str, default="UnnamedModel"
        What the model is called.

    Attributes
    ----------
    layers : LayerList
        The layers, by place or by name.
    results : skdyn.nems.fitting.FitResults or None
        What came of the fit that this model was returned from.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems import Layer, Model
    >>> class Sum(Layer):
    ...     def evaluate(self, *inputs):
    ...         return sum(inputs)
    >>> class Square(Layer):
    ...     def evaluate(self, values):
    ...         return values ** 2
    >>> model = Model().add_layers(Sum(input=["x", "y"]), Square())
    >>> data = model.evaluate({"x": np.ones((3, 1)), "y": np.ones((3, 1))})
    >>> sorted(data)
    ['output', 'x', 'y']
    >>> data["output"].ravel()
    array([4., 4., 4.])
    """

    def __init__(self, layers=None, name: str = "UnnamedModel"):
        super().__init__(layers or ())
        self.name = name
        self.results: FitResults | None = None

    # -------------------------------------------------------------------------- evaluation

    def evaluate(self, input, state=None, *, trials: bool = False) -> dict:  # noqa: A002
        """Compute the outputs of all layers.

        Parameters
        ----------
        input : array-like of shape (n_samples, ...), or dict of such
            Rows of time; a dict gives names to several. With `trials`, arrays
            of shape (n_trials, n_samples, ...); where there is one trial, it is repeated.
        state : array-like of shape (n_samples, ...), default=None
            For layers that take a state: the same as an input of that name.
        trials : bool, default=False
            Whether the first axis is one of trials. No history goes from one to the next.

        Returns
        -------
        dict of ndarray
            What went in, every output that a layer gives a name to, and "output", that of the last
            layer. Outputs of one axis get a second one.

        Raises
        ------
        ValueError
            If numbers of samples differ, or a layer names what is not there.
        """
        data = self.check_data(input, state)
        if not trials:
            self.take_sizes(data)
            return self.run(data)
        n_trials = max(len(array) for array in data.values())
        self.take_sizes({name: array[0] for name, array in data.items()})
        outputs = [
            self.run({k: a[0 if len(a) == 1 else number] for k, a in data.items()})
            for number in range(n_trials)
        ]
        return {name: stacked([one[name] for one in outputs]) for name in outputs[0]}

    def predict(self, input, state=None, *, trials: bool = False):  # noqa: A002
        """Compute the output of the last layer alone.

        Parameters
        ----------
        input, state, trials
            As in `evaluate`.

        Returns
        -------
        ndarray of shape (n_samples, ...) or (n_trials, n_samples, ...)
            A list of such if the last layer gives several.
        """
        return self.evaluate(input, state, trials=trials)[OUTPUT]

    def check_data(self, given, state=None) -> dict[str, np.ndarray]:
        """Check what goes in.

        Parameters
        ----------
        given : array-like or dict of array-like
            As the input of `evaluate`.
        state : array-like, default=None
            As there.

        Returns
        -------
        dict of ndarray
            By name.
        """
        named = dict(given) if isinstance(given, dict) else {INPUT: given}
        if state is not None:
            named[STATE] = state
        # Copies: a layer that writes to what goes in changes nothing of the caller's.
        data = {name: np.array(array, dtype=float, order="C") for name, array in named.items()}
        check_rows(data, repeated={(1,)})
        return data

    def run(self, data: dict) -> dict:
        """Compute the outputs of all layers, of arrays or tensors, for one trial.

        Parameters
        ----------
        data : dict of ndarray or Tensor of shape (n_samples, ...)
            What goes in, by name.

        Returns
        -------
        dict of ndarray or Tensor
            As from `evaluate`.
        """
        for _ in self.steps(data := dict(data)):
            pass
        data[OUTPUT] = data.pop(OUTPUT)  # the last one
        return data

    def output(self, data: dict):
        """Compute the output of the last layer, of arrays or tensors, for one trial.

        Parameters
        ----------
        data : dict of ndarray or Tensor of shape (n_samples, ...)
            What goes in, by name.

        Returns
        -------
        ndarray, Tensor or list of such
            What comes out.
        """
        return self.run(data)[OUTPUT]

    def steps(self, data: dict, *, resize: bool = False) -> Iterator[Layer]:
        """Compute the output of one layer after the other.

        Parameters
        ----------
        data : dict of ndarray or Tensor of shape (n_samples, ...)
            What goes in, by name; outputs are added to it.
        resize : bool, default=False
            Whether layers take sizes that are open from what goes in.

        Yields
        ------
        Layer
            Which was computed.
        """
        data[OUTPUT] = first(data)
        for layer in self._layers:
            args, kwargs = arguments(layer, data, data[OUTPUT])
            if resize:
                layer.resize(*shapes([*args, *kwargs.values()]))
            output = with_two_axes(layer.evaluate(*args, **kwargs), layer)
            if layer.output is not None:
                data.update(named_outputs(layer, output))
            data[OUTPUT] = output
            yield layer

    @property
    def n_past(self) -> int:
        """How many rows before one count for its output, as far as the layers say.

        Returns
        -------
        int
            Sum of the `n_past` of all layers.
        """
        return sum(layer.n_past for layer in self._layers)

    def take_sizes(self, data: dict) -> None:
        """Let layers whose sizes are open take them from what goes in, one after the other.

        Parameters
        ----------
        data : dict of ndarray of shape (n_samples, ...)
            What goes in, by name, for one trial.

        Raises
        ------
        ValueError
            If numbers of samples differ.
        """
        check_rows(data)
        if not all(layer.is_sized for layer in self._layers):
            for _ in self.steps(dict(data), resize=True):
                pass

    # -------------------------------------------------------------------------- as a whole

    def fit(self, input, target, state=None, **options) -> Model:  # noqa: A002
        """Copy the model and fit the copy to a response.

        Parameters
        ----------
        input, state
            As in `evaluate`.
        target : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The response; with `trials`, with an axis of trials in front.
        **options
            As in `skdyn.nems.fitting.fit_model`.

        Returns
        -------
        Model
            The fitted copy, with `results`.
        """
        return fit_model(self, input, target, state, **options)

    def score(self, input, target, state=None, *, trials: bool = False):  # noqa: A002
        """Correlate the prediction with a response.

        Parameters
        ----------
        input, state, trials
            As in `evaluate`.
        target : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The response.

        Returns
        -------
        float or ndarray of shape (n_outputs,)
            Pearson correlation, of each output where there are several.
        """
        prediction = self.predict(input, state, trials=trials)
        target = np.reshape(np.asarray(target, dtype=float), prediction.shape)
        scores = correlation_score(target, prediction, multioutput="raw_values")
        return scores if len(scores) > 1 else float(scores[0])

    def __repr__(self) -> str:
        return f"Model()\n{RULE}\n{self.layers!r}\n\n{RULE}"

    def __str__(self) -> str:
        return f"Model()\n{RULE}\n.layers:\n\n{self.layers!s}\n\n{RULE}"
