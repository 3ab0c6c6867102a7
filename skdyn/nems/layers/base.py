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
    """One step from a stimulus to a response.

    To make one of your own, subclass it: `initial_parameters` says which parameters there are, and
    `evaluate` what comes out for what goes in. Arithmetic that works on NumPy arrays and on torch
    tensors alike is fitted with exact gradients; with calls of NumPy it still works, only slower.

    Parameters
    ----------
    shape : tuple of int, default=None
        Sizes that the parameters depend on. A size that is None is taken from the data.
    input : str, list, dict or None, default=None
        What goes in: None is what came out of the layer before, or, for the first, the data; a
        string is a name, of data or of an earlier output; a list holds names of positional
        arguments, of which one that is a list becomes a list of arrays; a dict holds names of
        keyword arguments.
    output : str, list of str or None, default=None
        What the outputs are stored as, so that later layers can name them.
    parameters : Phi, default=None
        Used in place of `initial_parameters`.
    priors : dict of Distribution, default=None
        Replace the priors of parameters of that name, whose values become their means.
    bounds : dict of tuple, default=None
        Replace the bounds of parameters of that name.
    name : str, default=None
        What the layer is called in its model; None is the name of its class.
    l2 : float, default=None
        Weight of half the sum of squares of this layer's penalised parameters when its model is
        fitted, in place of the model's `alpha`; None leaves it to `alpha`. Penalised are the
        coefficients of filters and channels, and all parameters of a layer of your own, unless its
        attribute `penalised` names those that are.
    penalties : sequence of Penalty, default=()
        Further penalties of this layer's parameters, on top of `l2` or `alpha`: `skdyn.nems.L2`,
        `BandedL2`, `Smooth`, `L1` and `GroupL1`.
    values : dict of array-like, default=None
        Values of parameters of that name, instead of the means of their priors.
    frozen : bool or tuple of str, default=()
        Names of the parameters that fits and draws leave alone; True for all.
    permanent : tuple of str, default=()
        Names of the parameters that are frozen for good.

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

    # The word that stands for the layer, such as "fir"; "wc.g" is "wc" with the option "g".
    word: ClassVar[str | None] = None

    # Names of arguments that are only shown where they are set.
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
        """Sizes that the parameters depend on; parameters are made anew if it changes.

        Returns
        -------
        tuple of int or None
            Sizes that are None are taken from the data.
        """
        return self._shape

    @shape.setter
    def shape(self, shape) -> None:
        if self._parameters is not None and shape != self._shape:
            self._parameters = None
        self._shape: Any = shape

    # ------------------------------------------------------------------ what a subclass says

    def initial_parameters(self) -> Phi:
        """Say which parameters there are; by default none.

        Returns
        -------
        Phi
            The parameters, at the means of their priors.
        """
        return Phi()

    def evaluate(self, *inputs):
        """Compute what comes out for what goes in; each layer has its own.

        Parameters
        ----------
        *inputs : ndarray or Tensor of shape (n_samples, ...)
            Rows of time.

        Returns
        -------
        ndarray, Tensor or list of such
            As many rows.
        """
        raise NotImplementedError(f"{type(self).__name__} has no evaluate(self, *inputs).")

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Make the layer from a keyword.

        Parameters
        ----------
        word : Word
            Sizes and options. By default the sizes are the shape, and there are no options.

        Returns
        -------
        Layer
            The layer.
        """
        word.flags()
        return cls(shape=word.sizes) if word.sizes else cls()

    def word_options(self) -> list[str]:
        """Write the options that `from_word` reads, without the shape and the penalty.

        Returns
        -------
        list of str
            None by default.
        """
        return []

    def take_outputs(self, demand: tuple[int | None, ...]) -> tuple[int | None, ...] | None:
        """Take sizes that were left out from what the layers behind need.

        Parameters
        ----------
        demand : tuple of int or None
            The axes behind that of time that the next layer takes: (n_outputs,), or (n_ranks,
            n_filters) of filters that each have ranks of their own.

        Returns
        -------
        tuple of int or None, or None
            The same of the layer before; None, by default, if it may be anything.
        """
        return None

    def sizes_from(self, *shapes: tuple[int, ...]) -> tuple[int, ...] | None:
        """Complete the shape, once it is known what goes in.

        Parameters
        ----------
        *shapes : tuple of int
            Shapes of the inputs, (n_samples, ...).

        Returns
        -------
        tuple of int or None
            By default each size that is missing is the width of the first input.
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
        """Whether all sizes are known, so that there are parameters.

        Returns
        -------
        bool
            False if the data are to say a size.
        """
        return self.shape is None or None not in self.shape

    def resize(self, *shapes: tuple[int, ...]) -> None:
        """Take the sizes that are missing from what goes in.

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
        """The parameters.

        Returns
        -------
        Phi
            By name.
        """
        if self._parameters is None and self.is_sized:  # sizes were set one by one
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
        """Values of parameters.

        Parameters
        ----------
        *names : str
            Which; none for all.
        as_dict : bool, default=False
            Whether they come with their names.

        Returns
        -------
        list or dict of ndarray
            While a model is fitted with exact gradients, of torch tensors.
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
            By name.
        ignore_bounds : bool, default=False
            Whether values may lie outside their bounds.
        **named : array-like
            The same, as keywords.
        """
        with self.parameters.all_or_none():
            for name, value in {**(values or {}), **named}.items():
                self.parameters[name].update(value, ignore_bounds=ignore_bounds)

    def _chosen(self, names: tuple[str, ...]) -> list[Parameter]:
        return [self.parameters[name] for name in names or self.parameters]

    def freeze_parameters(self, *names: str) -> None:
        """Keep values in fits and draws.

        Parameters
        ----------
        *names : str
            Which; none for all.
        """
        for parameter in self._chosen(names):
            parameter.freeze()

    def unfreeze_parameters(self, *names: str) -> None:
        """Let fits and draws change values, unless they are permanent.

        Parameters
        ----------
        *names : str
            Which; none for all.
        """
        for parameter in self._chosen(names):
            parameter.unfreeze()

    def set_permanent_values(self, **values) -> None:
        """Freeze parameters for good.

        Parameters
        ----------
        **values : array-like
            What to freeze them at.
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
            By name.
        """
        return {name: parameter.prior for name, parameter in self.parameters.items()}

    def set_priors(self, **priors: Distribution) -> None:
        """Replace priors; the values become their means.

        Parameters
        ----------
        **priors : Distribution
            By name of the parameter.
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
            By name.
        """
        return {name: parameter.bounds for name, parameter in self.parameters.items()}

    def set_bounds(self, **bounds) -> None:
        """Replace bounds; the values stay.

        Parameters
        ----------
        **bounds : tuple of two array-likes
            By name of the parameter.
        """
        with self.parameters.all_or_none():
            for name, pair in bounds.items():
                self.parameters[name].set_bounds(pair)

    def sample_from_priors(self, random_state=None, *, inplace: bool = True) -> Layer:
        """Draw values from the priors, within the bounds; frozen ones stay.

        Parameters
        ----------
        random_state : int, Generator, RandomState or None, default=None
            Where the randomness comes from; None takes fresh entropy.
        inplace : bool, default=True
            Whether this layer changes, or a copy.

        Returns
        -------
        Layer
            The one that has changed.
        """
        random = as_generator(random_state)
        layer = self if inplace else self.copy()
        for parameter in layer.parameters.values():
            parameter.sample(random)
        return layer

    def mean_of_priors(self, *, inplace: bool = True) -> Layer:
        """Set values to the means of the priors; frozen ones stay.

        Parameters
        ----------
        inplace : bool, default=True
            Whether this layer changes, or a copy.

        Returns
        -------
        Layer
            The one that has changed.
        """
        layer = self if inplace else self.copy()
        for parameter in layer.parameters.values():
            parameter.mean()
        return layer

    @property
    def parameter_info(self) -> dict[str, int]:
        """How many numbers there are.

        Returns
        -------
        dict of int
            total, unfrozen, frozen, and permanent ones among the frozen.
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
        """Let `get_parameter_values` give tensors, so that torch can follow `evaluate`.

        Parameters
        ----------
        tensors : dict of Tensor or None
            One per parameter; None for the parameters' own values.

        Yields
        ------
        None
            The values are put back at the end.
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
        """What the layer was made with, for scikit-learn's searches.

        Parameters
        ----------
        deep : bool, default=True
            Not used; there is nothing nested.

        Returns
        -------
        dict
            Arguments of the constructor by name.
        """
        names = [name for name in self._names_of_arguments() if name not in self._given]
        return {name: getattr(self, name) for name in names} | self._given_or_found()

    def _given_or_found(self) -> dict:
        """What says the parameters: as given until there are any, then their present state."""
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
        """A shallow copy as it was made, but for values and what is frozen."""
        blank = copy.copy(self)
        blank._given = {**self._given, "values": None, "frozen": (), "permanent": ()}
        return blank

    def set_params(self, **params) -> Layer:
        """Set arguments of the constructor.

        Parameters
        ----------
        **params
            Arguments by name. Parameters that they do not concern keep their values, and stay
            frozen or permanent; the others are made anew.

        Returns
        -------
        Layer
            This one.
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
        """Set values and what is frozen, where they are given."""
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
        """Copy, deep.

        Returns
        -------
        Layer
            With parameters of its own.
        """
        return copy.deepcopy(self)

    def some_outputs(self, numbers: np.ndarray) -> Layer | None:
        """Make a layer that computes some of the outputs, if each has parameters of its own.

        Parameters
        ----------
        numbers : ndarray of int
            Which outputs.

        Returns
        -------
        Layer or None
            A copy with these entries of the last axis of the shape and of all parameters; None if
            a parameter has no such axis, or if there are `penalties`.
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
        """Return whether another layer was made with the same arguments, whatever its values.

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

# Arguments that say the state of parameters.
_STATE = ("values", "frozen", "permanent")


def _carried_over(current: Phi, old: Phi, new: Phi) -> Phi:
    """Parameters as they are where old and new defaults agree, and otherwise as far as they can."""
    parameters = []
    for name, parameter in new.items():
        if name in current and old[name] == parameter:
            parameter = copy.deepcopy(current[name])
        elif name in current:
            _carry_over(current[name], old[name], parameter)
        parameters.append(parameter)
    return Phi(*parameters)


def _carry_over(current: Parameter, old: Parameter, new: Parameter) -> None:
    """Give a parameter the state of one that had another shape, prior or bounds."""
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
    """Let an `evaluate` that is written for torch take and give NumPy arrays, too.

    Parameters
    ----------
    evaluate : callable
        The method of a layer. In it, inputs and values of parameters are tensors.

    Returns
    -------
    callable
        A method that gives arrays, unless an input or a parameter was a tensor.
    """

    @wraps(evaluate)
    def wrapped(self, *inputs, **named):
        given = _flat([*inputs, *named.values()])
        traced = self._tensors is not None or any(map(torch.is_tensor, given))
        values = self.get_parameter_values(as_dict=True)
        # Fits run on one thread; so does this, which may be in a process that was forked.
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
    # torch takes no negative strides, and warns of what it could write to but should not.
    usable = array.flags.writeable and min(array.strides, default=0) >= 0
    return torch.from_numpy(array if usable and array.dtype == float else np.array(array, float))


def _mapped(function, values):
    if isinstance(values, list | tuple):
        return type(values)(_mapped(function, value) for value in values)
    return function(values)


def _flat(values) -> Iterator:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


# ------------------------------------------------------------------------------- checks


def is_count(value) -> bool:
    """Return whether something counts: a whole number from 1 on.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    bool
        True for an int, also of NumPy, that is positive.
    """
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value > 0)


def plain_sizes(shape) -> tuple[int | None, ...]:
    """Make plain numbers of sizes, which a search may take from an array.

    Parameters
    ----------
    shape : int, None or sequence of such
        The sizes.

    Returns
    -------
    tuple of int or None
        The same.
    """
    sizes = np.atleast_1d(np.array(shape, dtype=object))
    return tuple(None if size is None else operator.index(size) for size in sizes)


def check_penalty(l2, layer: Layer) -> float | None:
    """Check the weight of a layer's own penalty.

    Parameters
    ----------
    l2 : float or None
        The weight.
    layer : Layer
        The layer, which has to have something that is penalised.

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
    """Return whether two layers were given the same.

    Parameters
    ----------
    value, other : object
        What they were given, arrays perhaps.

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
        The number.

    Returns
    -------
    float
        The same.
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
    """Check the shape that a layer is given.

    Parameters
    ----------
    shape : int, None or sequence of such
        The sizes.
    expected : str
        How they are written, for the error.
    n_sizes : container of int
        How many there may be.

    Returns
    -------
    tuple of int or None
        The sizes; those that are None are still to come from the data.
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
    """Make the error for what does not fit into a layer.

    Parameters
    ----------
    layer : Layer
        The layer.
    shape : tuple of int
        Shape of what came in.
    expected : str
        What should have come.
    advice : str
        What to do, as a sentence without its full stop.

    Returns
    -------
    ValueError
        To be raised.
    """
    name = type(layer).__name__
    return ValueError(
        f"The input of {layer.name or name}, a {name} of shape {layer.shape}, has the shape "
        f"{tuple(shape)}, but {expected} was expected. {advice}."
    )


def with_last_size(layer: Layer, n_outputs: int | None) -> tuple[int | None, ...]:
    """Complete a shape whose last size is the number of channels that come out.

    Parameters
    ----------
    layer : Layer
        Whose shape.
    n_outputs : int or None
        The number of channels.

    Returns
    -------
    tuple of int or None
        The shape, whose last size is unchanged where it was known.
    """
    *sizes, last = layer.shape or (None,)
    return (*sizes, n_outputs if last is None else last)


def passed_through(layer: Layer, demand: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Let a layer from which as many channels come as go in take its last size.

    Parameters
    ----------
    layer : Layer
        Whose shape is completed, unless filters that follow may have ranks of their own.
    demand : tuple of int or None
        What the layers behind need; see `Layer.take_outputs`.

    Returns
    -------
    tuple of int or None
        The same, for the layer before.
    """
    if len(demand) == 1:
        layer.shape = with_last_size(layer, demand[0])
    return demand


def sizes_with_width(layer: Layer, shape: tuple[int, ...]) -> tuple:
    """Complete a shape that begins with the number of channels that come in.

    Parameters
    ----------
    layer : Layer
        Whose shape.
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
    """Check that what comes in has as many channels as the shape of the layer begins with.

    Parameters
    ----------
    layer : Layer
        The layer.
    shape : tuple of int
        Shape of the input, which has to be (n_samples, n_in).
    """
    n_in, *_ = layer.shape or (None,)
    if tuple(shape[1:]) != (n_in,):
        raise misfit(
            layer,
            shape,
            f"(n_samples, {n_in})",
            "Make the layer for that many channels, or name another input",
        )
