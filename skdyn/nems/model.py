"""A stack of layers: wiring, evaluation and parameters."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import numpy as np

from skdyn.metrics import correlation_score
from skdyn.nems.distributions import as_generator
from skdyn.nems.layers.base import Layer
from skdyn.sessions import as_numbers, naming

INPUT, STATE, RESPONSE, OUTPUT = "input", "state", "response", "output"

RULE = "~" * 64

# Number of rows used to infer sizes.
SIZING_ROWS = 256


def free_name(name: str, layers: Iterable[Layer]) -> str:
    """Return a name that no layer has.

    Parameters
    ----------
    name : str
        The preferred name.
    layers : iterable of Layer
        Layers with names.

    Returns
    -------
    str
        The preferred name, or the same stem with another number.
    """
    # "model" is the key of the whole model in `parameter_info`.
    taken = {layer.name for layer in layers} | {"model"}
    if name not in taken:
        return name
    stem = re.sub(r"\d+$", "", name) or name
    return next(n for n in (f"{stem}{i}" for i in range(1, len(taken) + 2)) if n not in taken)


@contextmanager
def _all_or_none(layers: Iterable[Layer]) -> Iterator[None]:
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.parameters.all_or_none())
        yield


class LayerList(Sequence):
    """Layers of a model, accessible by index or by name.

    Parameters
    ----------
    layers : list of Layer
        The layers, with unique names.
    """

    def __init__(self, layers: list[Layer]):
        self._layers = layers

    def __getitem__(self, key):
        if isinstance(key, str):
            names = [layer.name for layer in self._layers]
            if key not in names:
                raise KeyError(f"{key!r}; the layers are {names}")
            return self._layers[names.index(key)]
        if isinstance(key, slice):
            return LayerList(self._layers[key])
        if isinstance(key, list | tuple):
            return LayerList([self[one] for one in key])
        return self._layers[key]

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self._layers))

    def __str__(self) -> str:
        return "\n\n".join(map(str, self._layers))


class Model:
    """A stack of layers; each takes the output of the previous one, or named inputs.

    Parameters
    ----------
    layers : Layer or list of Layer, default=None
        The layers, first to last.
    name : str, default="UnnamedModel"
        The name of the model.

    Attributes
    ----------
    layers : LayerList
        The layers, by index or by name.
    results : skdyn.nems.fitting.FitResults or None
        The result of the fit that returned this model.

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
        self.name = name
        self.results: Any = None
        self._layers: list[Layer] = []
        self.add_layers(*([layers] if isinstance(layers, Layer) else layers or ()))

    # ------------------------------------------------------------------------------ layers

    @property
    def layers(self) -> LayerList:
        """The layers, by index or by name.

        Returns
        -------
        LayerList
            First to last.
        """
        return LayerList(self._layers)

    def add_layers(self, *layers: Layer) -> Model:
        """Append layers.

        Parameters
        ----------
        *layers : Layer
            Layers to append. A layer without a name gets the name of its class, with a number if
            that is taken. A layer whose own name is taken is added as a copy with another name, so
            that the original, and any other model that contains it, remain unchanged; `layers`
            contains the copy.

        Returns
        -------
        Model
            This one.
        """
        return self.insert_layers(len(self._layers), *layers)

    def insert_layers(self, index: int, *layers: Layer) -> Model:
        """Insert layers before an index.

        Parameters
        ----------
        index : int
            Index of the first inserted layer.
        *layers : Layer
            Layers, as in `add_layers`.

        Returns
        -------
        Model
            This one.
        """
        # All layers are checked first, so that an error leaves the model unchanged.
        for number, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(
                    f"A Layer was expected, but {layer!r} is of type {type(layer).__name__}."
                )
            if any(layer is other for other in (*self._layers, *layers[:number])):
                raise ValueError(
                    f"The layer {layer.name!r} is in this model already. Add its copy()."
                )
        for place, layer in enumerate(layers, start=len(self._layers[:index])):
            name = free_name(layer.name or type(layer).__name__, self._layers)
            own = layer.copy() if layer.name and layer.name != name else layer
            own.name = name
            self._layers.insert(place, own)
        return self

    # -------------------------------------------------------------------------- parameters

    def get_parameter_values(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the values of all parameters.

        Returns
        -------
        dict of dict of ndarray
            Values by name of the layer, then of the parameter.
        """
        return {str(x.name): x.get_parameter_values(as_dict=True) for x in self._layers}

    def set_parameter_values(self, values: dict, *, ignore_bounds: bool = False) -> None:
        """Set values of parameters.

        Parameters
        ----------
        values : dict of dict of array-like
            Values by name of the layer, then of the parameter.
        ignore_bounds : bool, default=False
            Whether to allow values outside their bounds.
        """
        with _all_or_none(self.layers[name] for name in values):
            for name, named in values.items():
                self.layers[name].set_parameter_values(named, ignore_bounds=ignore_bounds)

    def get_parameter_vector(self) -> np.ndarray:
        """Return all values that are not frozen, concatenated.

        Returns
        -------
        ndarray of shape (n_free,)
            Copies.
        """
        return np.concatenate([np.zeros(0), *(x.parameters.get_vector() for x in self._layers)])

    def set_parameter_vector(self, vector, *, ignore_bounds: bool = False) -> None:
        """Set all values that are not frozen.

        Parameters
        ----------
        vector : array-like of shape (n_free,)
            Values in the order of `get_parameter_vector`.
        ignore_bounds : bool, default=False
            Whether to allow values outside their bounds.
        """
        vector = np.asarray(vector, dtype=float)
        sizes = [len(layer.parameters.get_vector()) for layer in self._layers]
        if vector.shape != (sum(sizes),):
            raise ValueError(
                f"vector has the shape {vector.shape}, but ({sum(sizes)},) was expected, the "
                "number of values that are not frozen."
            )
        parts = np.split(vector, np.cumsum(sizes)[:-1])
        with _all_or_none(self._layers):
            for layer, part in zip(self._layers, parts, strict=True):
                layer.parameters.set_vector(part, ignore_bounds=ignore_bounds)

    def get_bounds_vector(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds of all values that are not frozen.

        Returns
        -------
        low, high : ndarray of shape (n_free,)
            Bounds; infinite for unbounded values.
        """
        pairs = [layer.parameters.get_bounds() for layer in self._layers]
        low, high = (
            np.concatenate([np.zeros(0), *(pair[side] for pair in pairs)]) for side in (0, 1)
        )
        return low, high

    def sample_from_priors(self, n_copies: int | None = None, random_state=None):
        """Return a copy with values drawn from the priors; frozen values are kept.

        Parameters
        ----------
        n_copies : int, default=None
            Number of copies; None returns one model instead of a list.
        random_state : int, Generator, RandomState or None, default=None
            Source of the draws; None uses fresh entropy.

        Returns
        -------
        Model or list of Model
            The copies.
        """
        random = as_generator(random_state)
        models = [self.copy() for _ in range(1 if n_copies is None else n_copies)]
        for model in models:
            for layer in model.layers:
                layer.sample_from_priors(random)
        return models[0] if n_copies is None else models

    def mean_of_priors(self) -> Model:
        """Return a copy with values at the prior means; frozen values are kept.

        Returns
        -------
        Model
            The copy.
        """
        model = self.copy()
        for layer in model.layers:
            layer.mean_of_priors()
        return model

    def freeze_layers(self, *names: str) -> None:
        """Freeze layers: exclude their parameters from fitting and sampling.

        Parameters
        ----------
        *names : str
            Names of the layers; without names, all layers.
        """
        for layer in self._chosen(names):
            layer.freeze_parameters()

    def unfreeze_layers(self, *names: str) -> None:
        """Unfreeze layers: let fits and draws change values that are not permanent.

        Parameters
        ----------
        *names : str
            Names of the layers; without names, all layers.
        """
        for layer in self._chosen(names):
            layer.unfreeze_parameters()

    def _chosen(self, names: tuple[str, ...]) -> list[Layer]:
        return [self.layers[name] for name in names] if names else self._layers

    @property
    def parameter_info(self) -> dict[str, dict[str, int]]:
        """Number of parameter values.

        Returns
        -------
        dict of dict of int
            Counts "total", "unfrozen", "frozen" and "permanent" for each layer, by name, and for
            the whole model, under the key "model".
        """
        info = {str(layer.name): layer.parameter_info for layer in self._layers}
        keys = ("total", "unfrozen", "frozen", "permanent")
        return {**info, "model": {key: sum(one[key] for one in info.values()) for key in keys}}

    def copy(self):
        """Return a deep copy.

        Returns
        -------
        Model
            A copy with its own layers.
        """
        return copy.deepcopy(self)

    def __sklearn_clone__(self):
        return self.copy()

    def __eq__(self, other) -> bool:
        return type(self) is type(other) and self._layers == other._layers

    __hash__ = None  # type: ignore[assignment]

    # -------------------------------------------------------------------------- evaluation

    def evaluate(self, input, state=None, *, trials: bool = False) -> dict:  # noqa: A002
        """Compute the outputs of all layers.

        Parameters
        ----------
        input : array-like of shape (n_samples, ...), or dict of such
            Rows are time. A dict holds several named inputs. With `trials`, arrays have the shape
            (n_trials, n_samples, ...); a single trial is repeated.
        state : array-like of shape (n_samples, ...), default=None
            Input of layers that take a state; equivalent to an input named "state".
        trials : bool, default=False
            Whether the first axis is trials. History does not extend across trials.

        Returns
        -------
        dict of ndarray
            The inputs, every named output of a layer, and "output", the output of the last layer.
            One-dimensional outputs get a second axis.

        Raises
        ------
        ValueError
            If numbers of samples differ, or the named input of a layer is missing.
        """
        data = self.check_data(input, state)
        trials = _check_flag(trials, "trials")
        if not trials:
            self.take_sizes(data)
            return self.run(data)
        n_trials = max(len(array) for array in data.values())
        with naming("trials"):
            self.take_sizes({name: array[0] for name, array in data.items()})
            outputs = [
                self.run({k: a[0 if len(a) == 1 else number] for k, a in data.items()})
                for number in range(n_trials)
            ]
        return {name: stacked([one[name] for one in outputs]) for name in outputs[0]}

    def predict(self, input, state=None, *, trials: bool = False, preceding=None):  # noqa: A002
        """Compute the output of the last layer.

        Parameters
        ----------
        input, state, trials
            As in `evaluate`.
        preceding : array-like or dict of array-like, default=None
            Rows immediately before the input, used as history; None uses zeros.

        Returns
        -------
        ndarray of shape (n_samples, ...) or (n_trials, n_samples, ...)
            The output, or a list if the last layer has several outputs.
        """
        if preceding is None:
            return self.evaluate(input, state, trials=trials)[OUTPUT]
        data, before = self.check_data(input, state), self.check_data(preceding)
        if not trials:
            data, n_before = self.with_preceding(data, before)
            return self.evaluate(data)[OUTPUT][n_before // self.stride :]
        n_trials = max(map(len, data.values()))
        outputs = []
        for number in range(n_trials):
            one, rows = (
                {name: array[number % len(array)] for name, array in arrays.items()}
                for arrays in (data, before)
            )
            outputs.append(self.predict(one, preceding=rows))
        return stacked(outputs)

    def check_data(self, given, state=None) -> dict[str, np.ndarray]:
        """Check the inputs.

        Parameters
        ----------
        given : array-like or dict of array-like
            Input, as in `evaluate`.
        state : array-like, default=None
            State, as in `evaluate`.

        Returns
        -------
        dict of ndarray
            By name.
        """
        named = dict(given) if isinstance(given, dict) else {INPUT: given}
        if state is not None:
            named[STATE] = state
        # Copies, so that a layer that modifies its input does not change the caller's arrays.
        data = {name: np.array(as_numbers(array, name), order="C") for name, array in named.items()}
        check_rows(data, repeated={(1,)})
        return data

    def run(self, data: dict) -> dict:
        """Compute the outputs of all layers for one trial of arrays or tensors.

        Parameters
        ----------
        data : dict of ndarray or Tensor of shape (n_samples, ...)
            Inputs by name.

        Returns
        -------
        dict of ndarray or Tensor
            Inputs and outputs, as from `evaluate`.
        """
        for _ in self.steps(data := dict(data)):
            pass
        data[OUTPUT] = data.pop(OUTPUT)  # the last one
        return data

    def output(self, data: dict):
        """Compute the output of the last layer for one trial of arrays or tensors.

        Parameters
        ----------
        data : dict of ndarray or Tensor of shape (n_samples, ...)
            Inputs by name.

        Returns
        -------
        ndarray, Tensor or list of such
            The output of the last layer.
        """
        return self.run(data)[OUTPUT]

    def steps(self, data: dict, *, resize: bool = False) -> Iterator[Layer]:
        """Compute the outputs layer by layer.

        Parameters
        ----------
        data : dict of ndarray or Tensor of shape (n_samples, ...)
            Inputs by name; outputs are added.
        resize : bool, default=False
            Whether layers infer missing sizes from their inputs.

        Returns
        -------
        iterator of Layer
            The layers; the output of each is computed when it is its turn.
        """
        data[OUTPUT] = first(data)

        def step(layer: Layer) -> Layer:
            args, kwargs = arguments(layer, data, data[OUTPUT])
            if resize:
                layer.resize(*shapes([*args, *kwargs.values()]))
            output = with_two_axes(layer.evaluate(*args, **kwargs), layer)
            if layer.output is not None:
                data.update(named_outputs(layer, output))
            data[OUTPUT] = output
            return layer

        # Not a generator: Python drops an interrupt that arrives while an unfinished one is closed.
        return map(step, self._layers)

    @property
    def stride(self) -> int:
        """Number of rows of the data per row of the output.

        Returns
        -------
        int
            The product of the strides of all layers.
        """
        return math.prod(getattr(layer, "stride", 1) for layer in self._layers)

    @property
    def n_past(self) -> int | None:
        """Number of past rows that an output depends on.

        Returns
        -------
        int or None
            None if a layer has no known limit.
        """
        return self._n_rows("n_past")

    @property
    def n_future(self) -> int:
        """Number of future rows that an output depends on, as far as known.

        Returns
        -------
        int
            0 for causal models.
        """
        return self._n_rows("n_future") or 0

    def _n_rows(self, name: str) -> int | None:
        total, rate = 0, 1
        for layer in self._layers:
            n_rows = getattr(layer, name)
            if n_rows is None:
                return None
            total += rate * n_rows
            rate *= getattr(layer, "stride", 1)
        return total

    @property
    def joins_trials(self) -> bool:
        """Whether trials can be computed as one array, without history across their borders.

        Returns
        -------
        bool
            True if every layer maps rows independently or supports trials.
        """
        return all(
            layer.joins_trials or (layer.n_past == 0 and layer.n_future == 0)
            for layer in self._layers
        )

    @contextmanager
    def joined(self, n_trials: int) -> Iterator[None]:
        """Set the number of concatenated trials in all layers.

        Parameters
        ----------
        n_trials : int
            The number of trials, of equal lengths.

        Yields
        ------
        None
            The number is reset to one on exit.
        """
        for layer in self._layers:
            layer.n_trials = n_trials
        try:
            yield
        finally:
            for layer in self._layers:
                layer.n_trials = 1

    def with_preceding(
        self, data: dict[str, np.ndarray], preceding: dict[str, np.ndarray] | None
    ) -> tuple[dict[str, np.ndarray], int]:
        """Prepend preceding rows to the data, as many as the model depends on.

        Parameters
        ----------
        data : dict of ndarray of shape (n_samples, ...)
            Inputs by name.
        preceding : dict of ndarray of shape (n_preceding, ...) or None
            Rows immediately before the data.

        Returns
        -------
        data : dict of ndarray
            The concatenated rows.
        n_before : int
            Number of prepended rows, a multiple of the stride.

        Raises
        ------
        ValueError
            If names or numbers of channels differ.
        """
        if preceding is None:
            return data, 0
        if set(preceding) != set(data):
            raise ValueError(
                f"preceding has {sorted(preceding)}, but the data have {sorted(data)}; give rows "
                "of each."
            )
        for name, rows in preceding.items():
            if rows.shape[1:] != data[name].shape[1:]:
                raise ValueError(
                    f"preceding has rows of {name!r} of shape {rows.shape[1:]}, but those of the "
                    f"data have the shape {data[name].shape[1:]}."
                )
        n_rows = min(map(len, preceding.values()))
        n_usable = n_rows
        if self.n_past is not None:
            n_usable = min(n_rows, -(-self.n_past // self.stride) * self.stride)
        n_usable -= n_usable % self.stride
        joined = {
            name: np.concatenate([preceding[name][n_rows - n_usable :], data[name]])
            for name in data
        }
        return joined, n_usable

    def has_history(self, n_rows: int, n_before: int = 0) -> np.ndarray:
        """Return which rows of the output have a complete history.

        Parameters
        ----------
        n_rows : int
            Number of rows of the output.
        n_before : int, default=0
            Number of rows that precede the data.

        Returns
        -------
        ndarray of bool of shape (n_rows,)
            False at the start and, for anticausal filters, at the end. All True if `n_past` is
            None.
        """
        n_first = -(-max((self.n_past or 0) - n_before, 0) // self.stride)
        n_last = -(-self.n_future // self.stride)
        row = np.arange(n_rows)
        return (row >= n_first) & (row < n_rows - n_last)

    def at_rate(self, values: np.ndarray, n_samples: int) -> np.ndarray:
        """Return the rows of a response at the rate of the output.

        Parameters
        ----------
        values : ndarray of shape (n_samples, ...) or (ceil(n_samples / stride), ...)
            Response at the rate of the data, or of the output.
        n_samples : int
            Number of samples of the data.

        Returns
        -------
        ndarray of shape (ceil(n_samples / stride), ...)
            Response at the rate of the output.

        Raises
        ------
        ValueError
            If the number of rows is neither.
        """
        n_rows = -(-n_samples // self.stride)
        if len(values) == n_rows:
            return values
        if len(values) == n_samples:
            return values[:: self.stride]
        either = f" or {n_rows}" if self.stride > 1 else ""
        raise ValueError(
            f"The response, y or target, has {len(values)} rows for {n_samples} rows of input, but "
            f"{n_samples}{either} were expected."
        )

    def take_outputs(self, n_outputs: int) -> None:
        """Infer missing sizes of layers from the number of outputs.

        Parameters
        ----------
        n_outputs : int
            The number of outputs. It sets the size of the last layer that can change the number of
            channels. Channel weights right before filters get separate ranks for each filter.
        """
        demand: tuple[int | None, ...] | None = (n_outputs,)
        is_first = True
        for layer in self._layers[::-1]:
            if (layer.keeps_channels or layer.passes_outputs) and is_first:
                continue
            if demand is None or layer.keeps_channels:
                break
            demand, is_first = layer.take_outputs(demand), False

    def take_sizes(self, data: dict) -> None:
        """Infer missing sizes of layers from the inputs, layer by layer.

        Parameters
        ----------
        data : dict of ndarray of shape (n_samples, ...)
            Inputs by name, for one trial.

        Raises
        ------
        ValueError
            If numbers of samples differ.
        """
        check_rows(data)
        if not all(layer.is_sized for layer in self._layers):
            few = {name: array[:SIZING_ROWS] for name, array in data.items()}
            for _ in self.steps(few, resize=True):
                pass

    # ---------------------------------------------------------------------------- feedback

    @property
    def sees_response(self) -> bool:
        """Whether a layer takes the past of the response as input.

        Returns
        -------
        bool
            False for a model of a stimulus alone.
        """
        return any(map(takes_response, self._layers))

    def with_response(self, data: dict, target: np.ndarray) -> dict:
        """Add the response to the inputs, for layers that take its past.

        Parameters
        ----------
        data : dict of ndarray of shape (n_samples, ...)
            Inputs by name.
        target : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            The response; it may contain NaN.

        Returns
        -------
        dict of ndarray
            The data, unchanged if no layer takes the response or if they contain it.

        Raises
        ------
        ValueError
            If a layer takes the response at lag 0, which is the value to predict, or the model has
            a stride.
        """
        if not self.sees_response or RESPONSE in data:
            return data
        for layer in self._layers:
            if takes_response(layer) and layer.first_lag < 1:
                raise ValueError(
                    f"The layer {layer.name!r} takes the response at lag {layer.first_lag}, which "
                    "is what the model predicts. Use a filter of lags from 1 on."
                )
        if self.stride > 1:
            raise ValueError(
                "A layer takes the response, which has not the rate of the data in a model with a "
                "stride. Remove the stride."
            )
        return {**data, RESPONSE: np.nan_to_num(target.reshape(len(target), -1))}

    def simulate(
        self,
        input,  # noqa: A002
        state=None,
        *,
        n_outputs: int | None = None,
        n_draws: int | None = None,
        random_state=None,
    ) -> np.ndarray:
        """Simulate a response with feedback: each row depends on the simulated rows before.

        Parameters
        ----------
        input, state
            As in `evaluate`.
        n_outputs : int, default=None
            Number of outputs; None uses that of the layers that take the response.
        n_draws : int, default=None
            Number of simulations with Poisson counts; the rate is the prediction, clipped at 0.
            None returns one simulation in which the predictions themselves are fed back.
        random_state : int, Generator, RandomState or None, default=None
            Source of the counts; None uses fresh entropy.

        Returns
        -------
        ndarray of shape (n_samples, n_outputs) or (n_draws, n_samples, n_outputs)
            Predictions, or counts.

        Raises
        ------
        ValueError
            If a layer depends on future rows, or the number of outputs is not known.
        """
        data = self.check_data(input, state)
        if n_outputs is None:
            sizes = [one.shape[-1] for one in self._layers if takes_response(one) and one.shape]
            if not sizes or sizes[0] is None:
                raise ValueError("n_outputs is not known from the layers. Pass n_outputs.")
            n_outputs = sizes[0]
        nothing = np.zeros((len(next(iter(data.values()))), n_outputs))
        self.take_sizes({**data, RESPONSE: nothing})
        if n_draws is None:
            return self._fed_back(data, nothing, lambda rate: rate)
        random = as_generator(random_state)
        draws = [
            self._fed_back(data, nothing, lambda rate: random.poisson(np.maximum(rate, 0.0)))
            for _ in range(n_draws)
        ]
        return np.stack(draws)

    def _fed_back(self, data: dict, nothing: np.ndarray, draw: Callable) -> np.ndarray:
        """Simulate row by row, after the layers before the first one with feedback."""
        number = next((i for i, one in enumerate(self._layers) if takes_response(one)), None)
        if number is None or self.n_future or self.stride > 1:
            raise ValueError(
                "simulate is for models with a layer that takes the past of the response, and none "
                "that looks ahead or has a stride."
            )
        rows = {**data, RESPONSE: nothing.copy()}
        previous, steps = first(rows), self.steps(rows)
        for _ in range(number):
            next(steps)
            previous = rows[OUTPUT]
        rows.pop(OUTPUT, None)
        rest = self._layers[number:]
        known = [layer.n_past for layer in rest if layer.n_past is not None]
        n_past = sum(known) if len(known) == len(rest) else len(nothing)
        for row in range(len(nothing)):
            # Rows that this row depends on; all rows if a layer has no known limit.
            begin = max(0, row - n_past)
            window = {name: array[begin : row + 1] for name, array in rows.items()}
            output = previous[begin : row + 1]
            for layer in rest:
                args, named = arguments(layer, window, output)
                output = with_two_axes(layer.evaluate(*args, **named), layer)
                if layer.output is not None:
                    window.update(named_outputs(layer, output))
            rows[RESPONSE][row] = draw(output[-1])
        return rows[RESPONSE]

    # -------------------------------------------------------------------------- as a whole

    # Implementation of `fit`; `skdyn.nems.fitting` sets it, because it imports this module.
    fitter: ClassVar[Callable]

    def fit(
        self,
        input,  # noqa: A002
        target,
        state=None,
        *,
        sample_weight=None,
        trials: bool = False,
        preceding=None,
        in_place: bool = False,
        **options,
    ) -> Model:
        """Fit a copy of the model to a response.

        Parameters
        ----------
        input, state
            As in `evaluate`.
        target : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The response, NaN where nothing was recorded. With `trials`, its first axis is trials; a
            single trial of the input is repeated for all trials of the response.
        sample_weight : array-like of shape (n_samples,) or like the target, default=None
            Weights; 0 excludes an entry of the response.
        trials : bool, default=False
            Whether the first axis is trials.
        preceding : array-like or dict of array-like, default=None
            Rows immediately before the input, used as history.
        in_place : bool, default=False
            Whether to fit the model itself instead of a copy.
        **options
            Parameters of `NEMSRegressor`: loss, solver, alpha, init, n_init, n_jobs, max_iter, tol,
            early_stopping, validation_fraction, n_iter_no_change, batch_size, learning_rate,
            history, random_state, device, verbose, checkpoint and checkpoint_every. Their defaults
            are the same, except init="given", the current values of the model, and verbose=1.

        Returns
        -------
        Model
            The fitted model, with `results`.

        Raises
        ------
        ValueError
            If shapes do not match, values are missing, or an option is not valid.
        FitDivergedError
            If the loss or its gradient is not finite.
        """
        trials = _check_flag(trials, "trials")
        fitted = self if in_place else self.copy()
        given = {"sample_weight": sample_weight, "trials": trials, "preceding": preceding}
        Model.fitter(fitted, (input, state), target, given, options)
        return fitted

    def score(
        self,
        input,  # noqa: A002
        target,
        state=None,
        *,
        trials: bool = False,
        preceding=None,
    ):
        """Return the correlation of the prediction with a response.

        Parameters
        ----------
        input, state, trials, preceding
            As in `predict`.
        target : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The response, NaN where nothing was recorded. With `trials`, its first axis is trials; a
            single trial of the input is repeated for all of them.

        Returns
        -------
        float or ndarray of shape (n_outputs,)
            Pearson correlation, one per output if there are several; NaN for a constant response.
        """
        prediction = self.predict(input, state, trials=trials, preceding=preceding)
        target = np.asarray(target, dtype=float)
        if not trials:
            prediction, target = prediction[None], target[None]
        prediction = np.broadcast_to(prediction, (len(target), *prediction.shape[1:]))
        n_samples = target.shape[1]
        if n_samples != prediction.shape[1]:
            target = np.stack([self.at_rate(one, n_samples) for one in target])
        target = target.reshape(-1, *prediction.shape[2:])
        recorded = np.isfinite(target)
        # Lists of one session, because a list may have more outputs than rows.
        scores = correlation_score(
            [np.where(recorded, target, 0.0)],
            [prediction.reshape(target.shape)],
            sample_weight=None if recorded.all() else [recorded.astype(float)],
            multioutput="raw_values",
        )
        return scores if len(scores) > 1 else float(scores[0])

    def __repr__(self) -> str:
        return f"Model()\n{RULE}\n{self.layers!r}\n\n{RULE}"

    def __str__(self) -> str:
        return f"Model()\n{RULE}\n.layers:\n\n{self.layers!s}\n\n{RULE}"


# ------------------------------------------------------------------------------ wiring


def _check_flag(value, name: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r:.50}, but True or False was expected.")
    return bool(value)


def check_rows(data: dict, repeated: Set[tuple[int, ...]] = frozenset()) -> None:
    """Check that arrays have the same number of rows.

    Parameters
    ----------
    data : dict of ndarray of shape (n_samples, ...)
        Inputs by name.
    repeated : set of tuple of int, default=frozenset()
        Numbers of rows that are compatible with any other, as 1-tuples.

    Raises
    ------
    ValueError
        If numbers of rows differ, or an array has no rows.
    """
    rows = {name: array.shape[:1] for name, array in data.items()}
    different = set(rows.values())
    if not different or different & {(), (0,)}:
        raise ValueError(
            f"The input has the rows {rows}, but arrays with a row per moment, in each trial if "
            "there are trials, were expected."
        )
    if len(different - repeated) > 1:
        raise ValueError(
            f"The input has {rows} rows, but the same number was expected in each. Cut them to one "
            "length."
        )


def takes_response(layer: Layer) -> bool:
    """Return whether a layer takes the response.

    Parameters
    ----------
    layer : Layer
        The layer.

    Returns
    -------
    bool
        True if its `input` names the response, or its class takes it.
    """
    wanted = layer.input
    if wanted is None:
        return getattr(layer, "response_arg", None) is not None
    names = list(wanted.values()) if isinstance(wanted, dict) else wanted
    return RESPONSE in ([names] if isinstance(names, str) else names)


def shapes(inputs: list) -> Iterator[tuple[int, ...]]:
    """Yield the shapes of arrays, including those in nested lists.

    Parameters
    ----------
    inputs : list of ndarray, or of lists of such
        Inputs of a layer.

    Yields
    ------
    tuple of int
        The shape of each array.
    """
    for one in inputs:
        if isinstance(one, list):
            yield from shapes(one)
        else:
            yield np.shape(one)


def first(data: dict):
    """Return the input of a first layer without named inputs.

    Parameters
    ----------
    data : dict of ndarray or Tensor
        Data by name.

    Returns
    -------
    ndarray, Tensor or None
        The data named "input", or the only data other than the state; None if ambiguous.
    """
    others = [name for name in data if name != STATE]
    return data[INPUT] if INPUT in data else data[others[0]] if len(others) == 1 else None


def arguments(layer: Layer, data: dict, previous) -> tuple[list, dict]:
    """Collect the arguments of a layer.

    Parameters
    ----------
    layer : Layer
        The layer; its `input` names the arguments.
    data : dict of ndarray or Tensor
        Data and named outputs.
    previous : ndarray, Tensor, list of such or None
        Output of the previous layer.

    Returns
    -------
    args : list
        Positional arguments.
    kwargs : dict
        Keyword arguments.

    Raises
    ------
    ValueError
        If a name is missing, or the default input is ambiguous.
    """
    known = sorted(name for name in data if name != OUTPUT)

    def find(name):
        if isinstance(name, list | tuple):
            return [find(one) for one in name]
        if name not in known:
            raise ValueError(
                f"The layer {layer.name!r} has the input {name!r}, but one of {known} was "
                "expected. Give it in the data, or as the output of a layer before."
            )
        return data[name]

    wanted = layer.input
    if isinstance(wanted, dict):
        return [], {argument: find(name) for argument, name in wanted.items()}
    if isinstance(wanted, str):
        return [find(wanted)], {}
    if wanted is not None:
        return [find(name) for name in wanted], {}
    if previous is None:
        raise ValueError(
            f"The first layer {layer.name!r} has input=None, but the name of one of the data "
            f"{known} was expected. Say which of them it takes."
        )
    fed = {"state_arg": STATE, "response_arg": RESPONSE}
    taken = {getattr(layer, kind, None): name for kind, name in fed.items()}
    return [previous], {argument: find(name) for argument, name in taken.items() if argument}


def with_two_axes(output, layer: Layer):
    """Add a second axis to one-dimensional outputs.

    Parameters
    ----------
    output : ndarray, Tensor or list of such
        Output of a layer.
    layer : Layer
        The layer, named in errors.

    Returns
    -------
    ndarray, Tensor or list of such
        Output of shape (n_samples, ...), with at least two axes.

    Raises
    ------
    TypeError
        If the output is neither an array nor a list of arrays.
    """
    if isinstance(output, list | tuple):
        return [with_two_axes(one, layer) for one in output]
    if not getattr(output, "ndim", 0):
        raise TypeError(
            f"evaluate of the layer {layer.name!r} returned {output!r}, but an array with a row "
            "per moment, or a list of such arrays, was expected."
        )
    return output[:, None] if output.ndim == 1 else output


def named_outputs(layer: Layer, output) -> dict:
    """Return the outputs of a layer by name.

    Parameters
    ----------
    layer : Layer
        The layer; its `output` holds the names.
    output : ndarray, Tensor or list of such
        Output of the layer.

    Returns
    -------
    dict of ndarray or Tensor
        One entry per output; with a single name, outputs after the first get the suffixes ".1",
        ".2", ...

    Raises
    ------
    ValueError
        If the number of names differs from the number of outputs.
    """
    several = output if isinstance(output, list) else [output]
    names = layer.output
    if isinstance(names, str):
        names = [names] + [f"{names}.{number}" for number in range(1, len(several))]
    if len(names) != len(several):
        raise ValueError(
            f"The layer {layer.name!r} gives {len(several)} outputs, but has "
            f"output={layer.output}. Give a name for each."
        )
    return dict(zip(names, several, strict=True))


def stacked(outputs: list):
    """Stack the outputs of several trials into one array.

    Parameters
    ----------
    outputs : list of ndarray, or of lists of ndarray
        One entry per trial.

    Returns
    -------
    ndarray of shape (n_trials, n_samples, ...), or list of such
        Outputs with trials as the first axis.
    """
    if isinstance(outputs[0], list):
        return [np.stack(parts) for parts in zip(*outputs, strict=True)]
    return np.stack(outputs)
