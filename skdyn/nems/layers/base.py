"""The base class of layers, and the checks that layers share."""

from __future__ import annotations

import copy
import inspect
import math
import operator
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import wraps
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch

from skdyn.core.runtime import one_thread
from skdyn.nems.distributions import Distribution, as_generator
from skdyn.nems.layers.description import LayerDescription, check_given, check_names
from skdyn.nems.parameter import Parameter, Phi
from skdyn.nems.penalties import Penalty, check_penalties
from skdyn.nems.words import Word

RULE = "=" * 32


class Layer(LayerDescription):
    """Base class of layers, the processing steps of a model.

    To write a custom layer, subclass it: `initial_parameters` returns its parameters, and
    `evaluate` computes its output from its inputs. Arithmetic that works on both NumPy arrays and
    torch tensors is fitted with exact gradients; NumPy functions work too, but fits are slower.

    Parameters
    ----------
    shape : tuple of int, default=None
        Sizes of the parameters. A size of None is inferred from the data.
    input : str, list, dict or None, default=None
        Inputs of the layer. None is the output of the previous layer, or the data for the first
        layer; a string is the name of data or of an earlier output; a list holds names of
        positional arguments, in which a nested list is passed as a list of arrays; a dict holds
        names of keyword arguments.
    output : str, list of str or None, default=None
        Names under which the outputs are stored, for use as inputs of later layers.
    parameters : Phi, default=None
        Parameters that replace those of `initial_parameters`.
    priors : dict of Distribution, default=None
        Priors by name of the parameter, which replace the default ones; values are set to their
        means.
    bounds : dict of tuple, default=None
        Bounds by name of the parameter, which replace the default ones.
    name : str, default=None
        Name of the layer in its model; None uses the name of its class.
    l2 : float, default=None
        Weight of half the sum of squares of this layer's penalised parameters, which replaces the
        model's `alpha`; None uses `alpha`. The coefficients of filters and channels are penalised.
        All parameters of a custom layer are penalised, unless its attribute `penalised` names a
        subset.
    penalties : sequence of Penalty, default=()
        Further penalties of this layer's parameters, added to that of `l2` or `alpha`:
        `skdyn.nems.L2`, `BandedL2`, `Smooth`, `L1` and `GroupL1`.
    values : dict of array-like, default=None
        Initial values by name of the parameter, which replace the means of the priors.
    frozen : bool or tuple of str, default=()
        Names of parameters that are excluded from fitting and sampling; True for all.
    permanent : tuple of str, default=()
        Names of parameters that are frozen permanently.

    Examples
    --------
    >>> from skdyn.nems import HalfNormal, Layer, Parameter, Phi
    >>> class WeightedSum(Layer):
    ...     def initial_parameters(self):
    ...         return Phi(Parameter("a"), Parameter("b"))
    ...     def evaluate(self, *inputs):
    ...         a, b = self.get_parameter_values("a", "b")
    ...         return a * sum(inputs) + b
    >>> layer = WeightedSum(priors={"a": HalfNormal(sd=1)})
    >>> print(layer.evaluate(1.0, 2.0).round(4))
    2.3937
    """

    # Keyword of the layer, such as "fir"; "wc.g" is "wc" with the option "g".
    word: ClassVar[str | None] = None

    # Names of arguments that the repr omits if they are unset.
    quiet: ClassVar[frozenset[str]] = frozenset({"skipped"})

    def __init__(
        self,
        shape=None,
        input=None,  # noqa: A002
        output=None,
        parameters: Phi | None = None,
        priors: dict[str, Distribution] | None = None,
        bounds: dict | None = None,
        name: str | None = None,
        l2: float | None = None,
        values: dict | None = None,
        frozen: bool | tuple[str, ...] = (),
        permanent: tuple[str, ...] = (),
        penalties: Penalty | Sequence[Penalty] = (),
    ):
        self._parameters: Phi | None = None
        self._tensors: dict[str, torch.Tensor] | None = None
        self.shape = None if shape is None else plain_sizes(shape)
        self.l2 = check_penalty(l2, self)
        self.penalties = check_penalties(penalties)
        self.input, self.output = input, output
        self.name = name
        self._given: dict[str, Any] = {"parameters": parameters, "priors": priors, "bounds": bounds}
        self._given |= {"values": values, "frozen": frozen, "permanent": permanent}
        check_given(self._given, self)
        if self.is_sized:
            self._parameters = self._make_parameters()

    @property
    def shape(self):
        """Sizes of the parameters; setting a new shape resets the parameters.

        Returns
        -------
        tuple of int or None
            Sizes of None are inferred from the data.
        """
        return self._shape

    @shape.setter
    def shape(self, shape) -> None:
        if self._parameters is not None and shape != self._shape:
            self._parameters = None
        self._shape: Any = shape

    # ------------------------------------------------------------------ defined by subclasses

    def initial_parameters(self) -> Phi:
        """Return the parameters of the layer; by default none.

        Returns
        -------
        Phi
            The parameters, at the means of their priors.
        """
        return Phi()

    def evaluate(self, *inputs):
        """Compute the output; every layer implements it.

        Parameters
        ----------
        *inputs : ndarray or Tensor of shape (n_samples, ...)
            Rows of time.

        Returns
        -------
        ndarray, Tensor or list of such
            Output with the same number of rows.
        """
        raise NotImplementedError(f"{type(self).__name__} has no evaluate(self, *inputs).")

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Make the layer from a keyword.

        Parameters
        ----------
        word : Word
            Sizes and options. By default the sizes are the shape, and options are not accepted.

        Returns
        -------
        Layer
            The layer.
        """
        word.flags()
        return cls(shape=word.sizes) if word.sizes else cls()

    def word_options(self) -> list[str]:
        """Return the options that `from_word` reads, without the shape and the penalty.

        Returns
        -------
        list of str
            Empty by default.
        """
        return []

    def take_outputs(self, demand: tuple[int | None, ...]) -> tuple[int | None, ...] | None:
        """Infer missing sizes from the requirements of later layers.

        Parameters
        ----------
        demand : tuple of int or None
            Axes after time of the input of the next layer: (n_outputs,), or (n_ranks, n_filters)
            for filters with separate ranks.

        Returns
        -------
        tuple of int or None, or None
            The required axes of the previous layer's output; None, the default, if any are
            accepted.
        """
        return None

    def sizes_from(self, *shapes: tuple[int, ...]) -> tuple[int, ...] | None:
        """Complete the shape from the shapes of the inputs.

        Parameters
        ----------
        *shapes : tuple of int
            Shapes of the inputs, (n_samples, ...).

        Returns
        -------
        tuple of int or None
            The shape. By default each missing size is the width of the first input.
        """
        if self.shape is None:
            return None
        if not shapes or len(shapes[0]) < 2:
            raise ValueError(
                f"The inputs of a {type(self).__name__} of shape {self.shape} have the shapes "
                f"{list(shapes)}, but (n_samples, n_channels) was expected to take a size from. "
                "Pass array[:, None], or write the size."
            )
        return tuple(shapes[0][-1] if size is None else size for size in self.shape)

    # ---------------------------------------------------------------------------- parameters

    @property
    def is_sized(self) -> bool:
        """Whether all sizes are known, so that the parameters exist.

        Returns
        -------
        bool
            False if a size has yet to be inferred from the data.
        """
        return self.shape is None or None not in self.shape

    def resize(self, *shapes: tuple[int, ...]) -> None:
        """Infer missing sizes from the shapes of the inputs.

        Parameters
        ----------
        *shapes : tuple of int
            Shapes of the inputs, (n_samples, ...).
        """
        if not self.is_sized:
            self.shape = self.sizes_from(*shapes)
            self._parameters = self._make_parameters()

    def _make_parameters(self) -> Phi:
        given = self._given
        phi = self.initial_parameters() if given["parameters"] is None else given["parameters"]
        phi = phi.copy()
        check_names(given, phi, self)
        for name, prior in (given["priors"] or {}).items():
            phi[name].set_prior(prior)
        for name, bounds in (given["bounds"] or {}).items():
            phi[name].set_bounds(bounds)
        for name, values in (given["values"] or {}).items():
            if not (phi[name].is_permanent and np.array_equal(phi[name].values, values)):
                phi[name].update(values)
        frozen = tuple(phi) if given["frozen"] is True else given["frozen"] or ()
        for name in frozen:
            phi[name].freeze()
        for name in given["permanent"] or ():
            phi[name].make_permanent()
        return phi

    @property
    def parameters(self) -> Phi:
        """Parameters of the layer.

        Returns
        -------
        Phi
            The parameters by name.
        """
        if self._parameters is None and self.is_sized:  # sizes were set separately
            self._parameters = self._make_parameters()
        if self._parameters is None:
            raise ValueError(
                f"A {type(self).__name__} of shape {self.shape} has no parameters until the data "
                "say the sizes that are None. Evaluate or fit its model, or write them."
            )
        return self._parameters

    def __getitem__(self, name: str) -> Parameter:
        return self.parameters[name]

    def __setitem__(self, name: str, values) -> None:
        self.parameters[name].update(values)

    def get_parameter_values(self, *names: str, as_dict: bool = False):
        """Return the values of parameters.

        Parameters
        ----------
        *names : str
            Names of the parameters; without names, all parameters.
        as_dict : bool, default=False
            Whether to return a dict instead of a list.

        Returns
        -------
        list or dict of ndarray
            The values; torch tensors while a model is fitted with exact gradients.
        """
        chosen = names or tuple(self.parameters)
        values: dict = {name: self.parameters[name].values for name in chosen}
        if self._tensors is not None:
            values = {name: self._tensors[name] for name in chosen}
        return values if as_dict else list(values.values())

    def set_parameter_values(self, values=None, *, ignore_bounds: bool = False, **named) -> None:
        """Set values of parameters.

        Parameters
        ----------
        values : dict of array-like, default=None
            Values by name of the parameter.
        ignore_bounds : bool, default=False
            Whether to allow values outside their bounds.
        **named : array-like
            Further values, as keywords.
        """
        with self.parameters.all_or_none():
            for name, value in {**(values or {}), **named}.items():
                self.parameters[name].update(value, ignore_bounds=ignore_bounds)

    def _chosen(self, names: tuple[str, ...]) -> list[Parameter]:
        return [self.parameters[name] for name in names or self.parameters]

    def freeze_parameters(self, *names: str) -> None:
        """Freeze parameters: exclude them from fitting and sampling.

        Parameters
        ----------
        *names : str
            Names of the parameters; without names, all parameters.
        """
        for parameter in self._chosen(names):
            parameter.freeze()

    def unfreeze_parameters(self, *names: str) -> None:
        """Unfreeze parameters that are not permanent.

        Parameters
        ----------
        *names : str
            Names of the parameters; without names, all parameters.
        """
        for parameter in self._chosen(names):
            parameter.unfreeze()

    def set_permanent_values(self, **values) -> None:
        """Freeze parameters permanently.

        Parameters
        ----------
        **values : array-like
            Values by name of the parameter.
        """
        with self.parameters.all_or_none():
            for name, value in values.items():
                self.parameters[name].make_permanent(value)

    @property
    def priors(self) -> dict[str, Distribution]:
        """Priors of the parameters.

        Returns
        -------
        dict of Distribution
            Priors by name of the parameter.
        """
        return {name: parameter.prior for name, parameter in self.parameters.items()}

    def set_priors(self, **priors: Distribution) -> None:
        """Replace priors and set the values to their means.

        Parameters
        ----------
        **priors : Distribution
            New settings by name of the parameter.
        """
        with self.parameters.all_or_none():
            for name, prior in priors.items():
                self.parameters[name].set_prior(prior)

    @property
    def bounds(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Bounds of the parameters.

        Returns
        -------
        dict of tuple of two ndarrays
            Lower and upper bounds by name of the parameter.
        """
        return {name: parameter.bounds for name, parameter in self.parameters.items()}

    def set_bounds(self, **bounds) -> None:
        """Replace bounds; values are kept.

        Parameters
        ----------
        **bounds : tuple of two array-likes
            New settings by name of the parameter.
        """
        with self.parameters.all_or_none():
            for name, pair in bounds.items():
                self.parameters[name].set_bounds(pair)

    def sample_from_priors(self, random_state=None, *, inplace: bool = True) -> Layer:
        """Draw values from the priors, within the bounds; frozen values are kept.

        Parameters
        ----------
        random_state : int, Generator, RandomState or None, default=None
            Source of the draws; None uses fresh entropy.
        inplace : bool, default=True
            Whether to change this layer instead of a copy.

        Returns
        -------
        Layer
            The changed layer.
        """
        random = as_generator(random_state)
        layer = self if inplace else self.copy()
        for parameter in layer.parameters.values():
            parameter.sample(random)
        return layer

    def mean_of_priors(self, *, inplace: bool = True) -> Layer:
        """Set values to the means of the priors; frozen values are kept.

        Parameters
        ----------
        inplace : bool, default=True
            Whether to change this layer instead of a copy.

        Returns
        -------
        Layer
            The changed layer.
        """
        layer = self if inplace else self.copy()
        for parameter in layer.parameters.values():
            parameter.mean()
        return layer

    @property
    def parameter_info(self) -> dict[str, int]:
        """Number of parameter values.

        Returns
        -------
        dict of int
            Counts "total", "unfrozen", "frozen" and, as part of the frozen ones, "permanent".
        """
        counts = dict.fromkeys(("total", "unfrozen", "frozen", "permanent"), 0)
        for parameter in self.parameters.values():
            counts["total"] += parameter.size
            counts["frozen" if parameter.is_frozen else "unfrozen"] += parameter.size
            counts["permanent"] += parameter.size * parameter.is_permanent
        return counts

    # -------------------------------------------------------------------------- as a whole

    @contextmanager
    def tensors(self, tensors: dict[str, torch.Tensor] | None) -> Iterator[None]:
        """Make `get_parameter_values` return tensors, so that autograd can trace `evaluate`.

        Parameters
        ----------
        tensors : dict of Tensor or None
            Tensors by name of the parameter; None for the stored values.

        Yields
        ------
        None
            The previous values are restored on exit.
        """
        before, self._tensors = self._tensors, tensors
        try:
            yield
        finally:
            self._tensors = before

    @classmethod
    def _names_of_arguments(cls) -> list[str]:
        names: dict[str, None] = {}
        for kind in cls.__mro__:
            if "__init__" not in vars(kind):
                continue
            given = list(inspect.signature(vars(kind)["__init__"]).parameters.values())[1:]
            hands_on = any(one.kind is one.VAR_KEYWORD for one in given)
            variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            names.update(dict.fromkeys(one.name for one in given if one.kind not in variable))
            if not hands_on:
                break
        return list(names)

    def get_params(self, deep: bool = True) -> dict:
        """Return the arguments of the constructor, for scikit-learn's searches.

        Parameters
        ----------
        deep : bool, default=True
            Not used, because a layer has no nested estimators.

        Returns
        -------
        dict
            Arguments of the constructor by name.
        """
        names = [name for name in self._names_of_arguments() if name not in self._given]
        return {name: getattr(self, name) for name in names} | self._given_or_found()

    def _given_or_found(self) -> dict:
        """Return parameter arguments: as given until sizes are known, then the current state."""
        if self._parameters is None:
            return dict(self._given)
        default = self._blank()._make_parameters()
        changed = {
            name: parameter.values.copy()
            for name, parameter in self._parameters.items()
            if not np.array_equal(parameter.values, default[name].values)
        }
        flags = {
            key: tuple(
                name
                for name, parameter in self._parameters.items()
                if getattr(parameter, flag) and not getattr(default[name], flag)
            )
            for key, flag in (("frozen", "is_frozen"), ("permanent", "is_permanent"))
        }
        flags["frozen"] = tuple(x for x in flags["frozen"] if x not in flags["permanent"])
        given = {name: self._given[name] for name in ("parameters", "priors", "bounds")}
        for name, parameter in self._parameters.items():
            if parameter.prior != default[name].prior:
                given["priors"] = {**(given["priors"] or {}), name: parameter.prior}
            if not all(map(np.array_equal, parameter.bounds, default[name].bounds)):
                given["bounds"] = {**(given["bounds"] or {}), name: parameter.bounds}
        return {**given, "values": changed or None, **flags}

    def _blank(self) -> Layer:
        """Return a shallow copy without given values, frozen and permanent parameters."""
        blank = copy.copy(self)
        blank._given = {**self._given, "values": None, "frozen": (), "permanent": ()}
        return blank

    def set_params(self, **params) -> Layer:
        """Set arguments of the constructor.

        Parameters
        ----------
        **params
            Arguments by name. Parameters that they do not affect keep their values, and remain
            frozen or permanent; the others are reset.

        Returns
        -------
        Layer
            This layer.
        """
        unknown = sorted(set(params) - set(self._names_of_arguments()))
        if unknown:
            raise ValueError(
                f"Invalid parameter {unknown[0]!r} for {type(self).__name__}: expected one of "
                f"{self._names_of_arguments()}."
            )
        before = {k: v for k, v in self.get_params().items() if k not in _STATE}
        made = type(self)(**{**before, **params})
        if self._parameters is None or made._parameters is None:
            state = {name: self._given[name] for name in _STATE if name not in params}
            made._given |= state
        else:
            old = type(self)(**before)._blank()._make_parameters()
            made._parameters = _carried_over(
                self._parameters, old, made._blank()._make_parameters()
            )
            made._set_state({name: params[name] for name in _STATE if name in params})
        self.__dict__ = made.__dict__
        return self

    def _set_state(self, state: dict) -> None:
        """Set the values and the frozen and permanent parameters that are given."""
        parameters = self.parameters
        for name, values in (state.get("values") or {}).items():
            parameters[name].update(values)
        if "frozen" in state:
            frozen = tuple(parameters) if state["frozen"] is True else state["frozen"] or ()
            default = self._blank()._make_parameters()
            for name, parameter in parameters.items():
                parameter.unfreeze()
                if name in frozen or default[name].is_frozen:
                    parameter.freeze()
        for name in state.get("permanent") or ():
            parameters[name].make_permanent()

    def __sklearn_clone__(self) -> Layer:
        return self.copy()

    def copy(self) -> Layer:
        """Return a deep copy.

        Returns
        -------
        Layer
            A copy with its own parameters.
        """
        return copy.deepcopy(self)

    def some_outputs(self, numbers: np.ndarray) -> Layer | None:
        """Return a layer for a subset of outputs, if outputs share no parameters.

        Parameters
        ----------
        numbers : ndarray of int
            Indices of the outputs.

        Returns
        -------
        Layer or None
            A copy with these entries along the last axis of all parameters; None if a parameter has
            no such axis, or if the layer has `penalties`.
        """
        n_outputs = self.shape[-1] if self.shape else None
        if self.penalties or any(
            one.shape[-1:] != (n_outputs,) for one in self.parameters.values()
        ):
            return None
        layer = copy.copy(self)
        if self.shape:
            layer.shape = (*self.shape[:-1], len(numbers))
        layer._parameters = Phi(*(one.part(numbers) for one in self.parameters.values()))
        return layer

    def is_like(self, other: Layer) -> bool:
        """Return whether another layer has the same arguments, regardless of its values.

        Parameters
        ----------
        other : Layer
            The other layer.

        Returns
        -------
        bool
            False for a layer of another class.
        """
        return (
            type(self) is type(other)
            and (self.shape, self.input, self.output) == (other.shape, other.input, other.output)
            and (self.l2, self.penalties) == (other.l2, other.penalties)
            and all(
                is_equal(value, other._own_params()[name])
                for name, value in self._own_params().items()
            )
        )

    def __eq__(self, other) -> bool:
        return (
            isinstance(other, Layer)
            and self.is_like(other)
            and self._parameters == other._parameters
        )

    __hash__ = None  # type: ignore[assignment]

    def _own_params(self) -> dict:
        return {name: value for name, value in self.get_params().items() if name not in _ARGUMENTS}

    def _head(self) -> str:
        shown = {**self._own_params(), **({} if self.l2 is None else {"l2": self.l2})}
        shown |= {"penalties": self.penalties} if self.penalties else {}
        extra = "".join(
            f", {name}={value!r}"
            for name, value in shown.items()
            if value or name not in self.quiet
        )
        return f"{type(self).__name__}(shape={self.shape}{extra})\n{RULE}"

    def __repr__(self) -> str:
        shown = f"\n{self._parameters!r}\n{RULE}" if self._parameters else ""
        return f"{self._head()}{shown}"

    def __str__(self) -> str:
        shown = f"\n.parameters:\n\n{self._parameters}\n{RULE}" if self._parameters else ""
        return f"{self._head()}{shown}"


_ARGUMENTS = inspect.signature(Layer.__init__).parameters

# Arguments that set the state of parameters.
_STATE = ("values", "frozen", "permanent")


def _carried_over(current: Phi, old: Phi, new: Phi) -> Phi:
    """Return current parameters if old and new defaults agree, else carry over what is valid."""
    parameters = []
    for name, parameter in new.items():
        if name in current and old[name] == parameter:
            parameter = copy.deepcopy(current[name])
        elif name in current:
            _carry_over(current[name], old[name], parameter)
        parameters.append(parameter)
    return Phi(*parameters)


def _carry_over(current: Parameter, old: Parameter, new: Parameter) -> None:
    """Copy the state of a parameter that may differ in shape, prior or bounds."""
    for flag in ("is_frozen", "is_permanent"):
        if getattr(old, flag) == getattr(new, flag):
            setattr(new, flag, getattr(current, flag))
    values, (low, high) = current.values, new.bounds
    was_set = not np.array_equal(values, old.values)
    kept = was_set or old.prior == new.prior
    is_free = old.is_permanent == new.is_permanent
    if (
        kept
        and is_free
        and current.shape == new.shape
        and np.all((low <= values) & (values <= high))
    ):
        new.values = values.copy()


# ------------------------------------------------------------------------------ tensors


def on_tensors(evaluate: Callable) -> Callable:
    """Make an `evaluate` that is written for torch accept and return NumPy arrays.

    Parameters
    ----------
    evaluate : callable
        The method of a layer. In it, inputs and values of parameters are tensors.

    Returns
    -------
    callable
        A method that returns arrays, unless an input or a parameter is a tensor.
    """

    @wraps(evaluate)
    def wrapped(self, *inputs, **named):
        given = _flat([*inputs, *named.values()])
        traced = self._tensors is not None or any(map(torch.is_tensor, given))
        values = self.get_parameter_values(as_dict=True)
        # One thread, as in fits, because this may run in a forked process.
        tensors = {name: _as_tensor(value) for name, value in values.items()}
        with self.tensors(tensors), nullcontext() if traced else one_thread():
            output = evaluate(
                self,
                *_mapped(_as_tensor, inputs),
                **{name: _mapped(_as_tensor, value) for name, value in named.items()},
            )
        return output if traced else _mapped(lambda tensor: tensor.numpy(), output)

    return wrapped


def _as_tensor(array) -> torch.Tensor:
    if torch.is_tensor(array):
        return array if array.is_floating_point() else array.double()
    array = np.asarray(array)
    # torch does not support negative strides, and warns about read-only arrays.
    usable = array.flags.writeable and min(array.strides, default=0) >= 0
    return torch.from_numpy(array if usable and array.dtype == float else np.array(array, float))


def _mapped(function, values):
    if isinstance(values, list | tuple):
        return type(values)(_mapped(function, value) for value in values)
    return function(values)


def _flat(values) -> list:
    flat = []
    for value in values:
        flat += _flat(value) if isinstance(value, list | tuple) else [value]
    return flat


# ------------------------------------------------------------------------------- checks


def is_count(value) -> bool:
    """Return whether a value is a positive integer.

    Parameters
    ----------
    value : object
        Any object.

    Returns
    -------
    bool
        True for a positive int, including NumPy integers.
    """
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value > 0)


def plain_sizes(shape) -> tuple[int | None, ...]:
    """Convert sizes to plain ints, because a search may pass NumPy integers.

    Parameters
    ----------
    shape : int, None or sequence of such
        The sizes.

    Returns
    -------
    tuple of int or None
        The sizes.
    """
    sizes = np.atleast_1d(np.array(shape, dtype=object))
    return tuple(None if size is None else operator.index(size) for size in sizes)


def check_penalty(l2, layer: Layer) -> float | None:
    """Check the weight of a layer's penalty.

    Parameters
    ----------
    l2 : float or None
        The weight.
    layer : Layer
        The layer, which must have a penalised parameter.

    Returns
    -------
    float or None
        The weight.
    """
    if l2 is None:
        return None
    name = type(layer).__name__
    number = isinstance(l2, Real) and not isinstance(l2, bool | np.bool_)
    if not number or not math.isfinite(l2) or l2 < 0:
        raise ValueError(
            f"l2 of a {name} must be a finite number of at least 0, but is {l2!r}. Use None for "
            "the alpha of the model."
        )
    if layer.penalised == ():
        raise ValueError(
            f"l2 of a {name}, none of whose parameters is penalised, must be None, but is {l2!r}. "
            "Leave it out, or name some in a subclass's `penalised`."
        )
    return float(l2)


def is_equal(value, other) -> bool:
    """Return whether two arguments of layers are equal.

    Parameters
    ----------
    value, other : object
        Arguments of the two layers, possibly arrays.

    Returns
    -------
    bool
        For arrays, whether all entries are equal.
    """
    if isinstance(value, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(value, other)
    return bool(value == other)


def check_sampling_frequency(sampling_frequency) -> float:
    """Check that a sampling frequency is a positive number of Hz.

    Parameters
    ----------
    sampling_frequency : float
        The sampling frequency in Hz.

    Returns
    -------
    float
        The sampling frequency.
    """
    is_number = isinstance(sampling_frequency, Real) and not isinstance(
        sampling_frequency, bool | np.bool_
    )
    if not is_number or not 0 < sampling_frequency < math.inf:
        raise ValueError(
            f"sampling_frequency must be a positive number of Hz, but is {sampling_frequency!r}."
        )
    return sampling_frequency


def check_shape(shape, expected: str, n_sizes: Container[int]) -> tuple:
    """Check the shape of a layer.

    Parameters
    ----------
    shape : int, None or sequence of such
        The sizes.
    expected : str
        Description of the sizes, for the error.
    n_sizes : container of int
        Allowed numbers of sizes.

    Returns
    -------
    tuple of int or None
        The sizes; those that are None have yet to be inferred from the data.
    """
    sizes = np.atleast_1d(np.array(shape, dtype=object))
    counts = all(size is None or is_count(size) for size in sizes.flat)
    if sizes.ndim > 1 or len(sizes) not in n_sizes or not counts:
        raise ValueError(
            f"shape is {shape!r}, but {expected} of whole numbers of at least 1 was expected. "
            "Write None for a size to take from the data."
        )
    return tuple(None if size is None else int(size) for size in sizes)


def misfit(layer: Layer, shape, expected: str, advice: str) -> ValueError:
    """Return the error for an input that does not fit the layer.

    Parameters
    ----------
    layer : Layer
        The layer.
    shape : tuple of int
        Shape of the input.
    expected : str
        Description of the expected input.
    advice : str
        Advice to the user, as a sentence without its full stop.

    Returns
    -------
    ValueError
        The error to raise.
    """
    name = type(layer).__name__
    return ValueError(
        f"The input of {layer.name or name}, a {name} of shape {layer.shape}, has the shape "
        f"{tuple(shape)}, but {expected} was expected. {advice}."
    )


def with_last_size(layer: Layer, n_outputs: int | None) -> tuple[int | None, ...]:
    """Complete a shape with the number of output channels as its last size.

    Parameters
    ----------
    layer : Layer
        The layer.
    n_outputs : int or None
        The number of channels.

    Returns
    -------
    tuple of int or None
        The shape; a known last size is unchanged.
    """
    *sizes, last = layer.shape or (None,)
    return (*sizes, n_outputs if last is None else last)


def passed_through(layer: Layer, demand: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Infer the last size of a layer that keeps the number of channels.

    Parameters
    ----------
    layer : Layer
        The layer; its shape is completed unless filters with separate ranks follow.
    demand : tuple of int or None
        Requirements of later layers; see `Layer.take_outputs`.

    Returns
    -------
    tuple of int or None
        The same demand, for the previous layer.
    """
    if len(demand) == 1:
        layer.shape = with_last_size(layer, demand[0])
    return demand


def sizes_with_width(layer: Layer, shape: tuple[int, ...]) -> tuple:
    """Complete a shape with the number of input channels as its first size.

    Parameters
    ----------
    layer : Layer
        The layer.
    shape : tuple of int
        Shape of the input, (n_samples, n_in).

    Returns
    -------
    tuple of int
        All sizes.
    """
    n_in, *others = layer.shape or (None,)
    if len(shape) != 2 or None in others:
        raise misfit(
            layer,
            shape,
            "(n_samples, n_in) with only n_in left open",
            "Write the other sizes, or check what goes in",
        )
    return (shape[1] if n_in is None else n_in, *others)


def check_width(layer: Layer, shape: tuple[int, ...]) -> None:
    """Check the number of input channels against the first size of the layer's shape.

    Parameters
    ----------
    layer : Layer
        The layer.
    shape : tuple of int
        Shape of the input, which must be (n_samples, n_in).
    """
    n_in, *_ = layer.shape or (None,)
    if tuple(shape[1:]) != (n_in,):
        raise misfit(
            layer,
            shape,
            f"(n_samples, {n_in})",
            "Make the layer for that many channels, or name another input",
        )
