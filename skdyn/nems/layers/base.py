"""What all layers have in common."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from skdyn.nems.distributions import Distribution, as_generator
from skdyn.nems.layers.shapes import check_penalty, is_equal, plain_sizes
from skdyn.nems.parameter import Parameter, Phi

RULE = "=" * 32


class Layer:
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

    # Names of the parameters that count in a penalty; None for all.
    penalised: tuple[str, ...] | None = None

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
    ):
        self.shape = None if shape is None else plain_sizes(shape)
        self.l2 = check_penalty(l2, self)
        self.input, self.output = input, output
        self.name = name
        self._given_parameters, self._given_priors = parameters, priors
        self._given_bounds = bounds
        self._tensors: dict[str, torch.Tensor] | None = None
        self._parameters = self._make_parameters() if self.is_sized else None

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

    @property
    def n_past(self) -> int:
        """How many rows before one count for its output; a filter of one's own says it here.

        Returns
        -------
        int
            0 unless a subclass says otherwise.
        """
        return 0

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
                f"Got inputs of shapes {list(shapes)} for a {type(self).__name__} of shape "
                f"{self.shape}, expected (n_samples, n_channels) to take a size from; give it "
                "array[:, None], or name the size."
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
        given = self._given_parameters
        phi = self.initial_parameters() if given is None else given.copy()
        for name, prior in (self._given_priors or {}).items():
            phi[name].set_prior(prior)
        for name, bounds in (self._given_bounds or {}).items():
            phi[name].set_bounds(bounds)
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
                f"Got a {type(self).__name__} of shape {self.shape}, which has no parameters until "
                "the data say the sizes that are None; evaluate or fit its model, or name them."
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
        own = list(inspect.signature(cls.__init__).parameters.values())[1:]
        names = [a.name for a in own if a.kind not in (a.VAR_POSITIONAL, a.VAR_KEYWORD)]
        if len(names) < len(own):
            names += [name for name in list(_ARGUMENTS)[1:] if name not in names]
        return names

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
        given = {"parameters", "priors", "bounds"}
        return {
            name: getattr(self, f"_given_{name}" if name in given else name)
            for name in self._names_of_arguments()
        }

    def set_params(self, **params) -> Layer:
        """Make the layer anew, with other arguments.

        Parameters
        ----------
        **params
            Arguments of the constructor by name.

        Returns
        -------
        Layer
            This one; its parameters are as they are before a fit.
        """
        unknown = sorted(set(params) - set(self._names_of_arguments()))
        if unknown:
            raise ValueError(
                f"Got {unknown} for {type(self).__name__}, expected some of "
                f"{self._names_of_arguments()}."
            )
        made = type(self)(**{**self.get_params(), **params})
        self.__dict__ = made.__dict__
        return self

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

    def __eq__(self, other) -> bool:
        return (
            type(self) is type(other)
            and (self.shape, self.input, self.output) == (other.shape, other.input, other.output)
            and self.l2 == other.l2
            and self._parameters == other._parameters
            and all(
                is_equal(value, other._own_params()[name])
                for name, value in self._own_params().items()
            )
        )

    __hash__ = None  # type: ignore[assignment]

    def _own_params(self) -> dict:
        return {name: value for name, value in self.get_params().items() if name not in _ARGUMENTS}

    def _head(self) -> str:
        shown = {**self._own_params(), **({} if self.l2 is None else {"l2": self.l2})}
        extra = "".join(f", {name}={value!r}" for name, value in shown.items())
        return f"{type(self).__name__}(shape={self.shape}{extra})\n{RULE}"

    def __repr__(self) -> str:
        shown = f"\n{self._parameters!r}\n{RULE}" if self._parameters else ""
        return f"{self._head()}{shown}"

    def __str__(self) -> str:
        shown = f"\n.parameters:\n\n{self._parameters}\n{RULE}" if self._parameters else ""
        return f"{self._head()}{shown}"


_ARGUMENTS = inspect.signature(Layer.__init__).parameters
