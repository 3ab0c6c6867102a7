"""Parameters of a layer: values with priors and bounds, which can be frozen."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from skdyn.nems.distributions import Distribution, Normal

# Percentiles of the prior that are the "percentile" bounds.
TAIL = 1e-4

RULE = "-" * 16


class Parameter:
    """Array of values that can be fitted.

    Parameters
    ----------
    name : str
        Name of the parameter in its layer.
    shape : tuple of int, default=()
        Shape of the array.
    prior : Distribution, default=None
        Prior distribution; None is Normal(0, 1). A scalar prior applies to each entry.
    bounds : tuple of two array-likes, default=None
        Smallest and largest value; None uses `default_bounds`.
    default_bounds : {"infinite", "percentile"}, default="infinite"
        No bounds, or bounds that exclude a probability of 0.0001 of the prior at each end.
    zero_to_epsilon : bool, default=False
        Whether to replace a bound of zero by the machine epsilon of single precision, for
        parameters that must not be zero.
    initial_value : {"mean", "sample"} or array-like, default="mean"
        Initial value: the mean of the prior, a draw from it, or an array.
    random_state : int, Generator, RandomState or None, default=None
        Source of the draw with "sample".

    Attributes
    ----------
    values : ndarray of float of that shape
        The values.
    is_frozen : bool
        Whether the parameter is excluded from fitting and sampling.
    is_permanent : bool
        Whether the parameter is frozen permanently.

    Examples
    --------
    >>> from skdyn.nems import HalfNormal, Parameter
    >>> parameter = Parameter("gain", shape=(2,), prior=HalfNormal(sd=1), bounds=(0, np.inf))
    >>> parameter
    Parameter(name=gain, shape=(2,))
    >>> parameter.values
    array([0.79788456, 0.79788456])
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...] = (),
        prior: Distribution | None = None,
        bounds=None,
        *,
        default_bounds: str = "infinite",
        zero_to_epsilon: bool = False,
        initial_value="mean",
        random_state=None,
    ):
        if not isinstance(name, str):
            raise TypeError(f"name of a parameter is {name!r}, but a string was expected.")
        if not isinstance(zero_to_epsilon, bool | np.bool_):
            raise TypeError(
                f"zero_to_epsilon of the parameter {name!r} is {zero_to_epsilon!r}, but True or "
                "False was expected."
            )
        self.name = name
        self.shape = _check_shape(shape, name)
        self.zero_to_epsilon = zero_to_epsilon
        self.is_frozen = self.is_permanent = False
        self.prior = self._check_prior(prior)
        if not isinstance(default_bounds, str) or default_bounds not in ("infinite", "percentile"):
            raise ValueError(
                f"default_bounds of the parameter {name!r} must be 'infinite' or 'percentile', but "
                f"is {default_bounds!r}."
            )
        if bounds is None and default_bounds == "percentile":
            bounds = self.prior.percentile(TAIL), self.prior.percentile(1 - TAIL)
        self.bounds = self._check_bounds(bounds)
        if isinstance(initial_value, str) and initial_value == "sample":
            self.values = self.prior.sample(bounds=self.bounds, random_state=random_state)
        elif isinstance(initial_value, str) and initial_value == "mean":
            self.values = self.prior.mean()
        else:
            self.values = self._spread(initial_value)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        shapes = {one.shape for one in (self.values, *self.bounds, self.prior)}
        if shapes != {tuple(self.shape)}:
            raise ValueError(
                f"The values, bounds and prior of the parameter {self.name!r} have the shapes "
                f"{shapes}, but {self.shape} was expected of all."
            )

    def _check_prior(self, prior: Distribution | None) -> Distribution:
        prior = Normal() if prior is None else prior
        if not isinstance(prior, Distribution):
            raise TypeError(
                f"The prior of the parameter {self.name!r} is {prior!r}, but a distribution, such "
                "as Normal(), was expected."
            )
        if prior.shape not in ((), self.shape):
            raise ValueError(
                f"The prior of the parameter {self.name!r} has the shape {prior.shape}, but the "
                f"shape of the parameter, {self.shape}, or one number for all was expected."
            )
        return prior.expand(self.shape)

    def _check_bounds(self, bounds) -> tuple[np.ndarray, np.ndarray]:
        bounds = (-np.inf, np.inf) if bounds is None else bounds
        try:
            low, high = (np.broadcast_to(np.asarray(b, float), self.shape).copy() for b in bounds)
        except (TypeError, ValueError):
            raise ValueError(
                f"The bounds of the parameter {self.name!r} are {bounds!r}, but two numbers or "
                f"arrays that can be broadcast to {self.shape} were expected."
            ) from None
        if self.zero_to_epsilon:
            low[low == 0] = high[high == 0] = np.finfo(np.float32).eps
        if not np.all(low <= high):
            raise ValueError(
                f"The bounds of the parameter {self.name!r} are {bounds}, but the lower one was "
                "expected first."
            )
        return low, high

    def _check_values(self, values) -> np.ndarray:
        array = np.array(values, dtype=float)
        if array.shape != self.shape:
            raise ValueError(
                f"The values of the parameter {self.name!r} have the shape {array.shape}, but "
                f"{self.shape} was expected."
            )
        return array

    def _spread(self, values) -> np.ndarray:
        try:
            array = np.broadcast_to(np.asarray(values, dtype=float), self.shape).copy()
        except (TypeError, ValueError):
            array = None
        if array is None or not np.isfinite(array).all():
            raise ValueError(
                f"The values, or initial_value, of the parameter {self.name!r} are {values!r}, but "
                f"finite numbers that can be broadcast to its shape, {self.shape}, were expected."
            )
        return array

    @property
    def size(self) -> int:
        """Number of values.

        Returns
        -------
        int
            Product of the shape.
        """
        return math.prod(self.shape)

    def set_prior(self, prior: Distribution) -> None:
        """Replace the prior and set the values to its mean, unless they are permanent.

        Parameters
        ----------
        prior : Distribution
            The new prior.
        """
        self.prior = self._check_prior(prior)
        if not self.is_permanent:
            self.values = self.prior.mean()

    def set_bounds(self, bounds) -> None:
        """Replace the bounds; the values are kept.

        Parameters
        ----------
        bounds : tuple of two array-likes
            Smallest and largest value.
        """
        self.bounds = self._check_bounds(bounds)

    def update(self, values, *, ignore_bounds: bool = False) -> None:
        """Set the values, frozen or not.

        Parameters
        ----------
        values : array-like of that shape
            The new values.
        ignore_bounds : bool, default=False
            Whether to allow values outside the bounds.

        Raises
        ------
        ValueError
            If the shape differs, a value is out of bounds, or the parameter is permanent.
        """
        array = self._check_values(values)
        if self.is_permanent:
            raise ValueError(
                f"The parameter {self.name!r} is permanent, so that its values cannot be set. Make "
                "a new layer."
            )
        low, high = self.bounds
        if not ignore_bounds and not np.all((low <= array) & (array <= high)):
            raise ValueError(
                f"The values of the parameter {self.name!r} are between {array.min()} and "
                f"{array.max()}, but must be within {_bounds_text(self.bounds)}. Set other bounds, "
                "or ignore_bounds=True."
            )
        self.values = array

    def part(self, numbers: np.ndarray) -> Parameter:
        """Return a parameter with a subset of entries of the last axis.

        Parameters
        ----------
        numbers : ndarray of int
            Indices of the entries.

        Returns
        -------
        Parameter
            Parameter with their values, bounds and priors; frozen if this one is.
        """
        part = copy.copy(self)
        part.values = self.values[..., numbers]
        part.shape = part.values.shape
        part.prior = self.prior.part(numbers)
        low, high = self.bounds
        part.bounds = low[..., numbers], high[..., numbers]
        return part

    def freeze(self) -> None:
        """Freeze the parameter: exclude it from fitting and sampling."""
        self.is_frozen = True

    def unfreeze(self) -> None:
        """Unfreeze the parameter, unless it is permanent."""
        self.is_frozen = self.is_permanent

    def make_permanent(self, values=None) -> None:
        """Freeze the parameter permanently.

        Parameters
        ----------
        values : array-like, default=None
            Values of the frozen parameter; None for the current values.
        """
        if values is not None:
            self.update(self._spread(values), ignore_bounds=True)
        self.is_frozen = self.is_permanent = True

    def sample(self, random_state=None) -> None:
        """Draw the values from the prior, within the bounds, unless they are frozen.

        Parameters
        ----------
        random_state : int, Generator, RandomState or None, default=None
            Source of the draws.
        """
        if not self.is_frozen:
            self.values = self.prior.sample(bounds=self.bounds, random_state=random_state)

    def mean(self) -> None:
        """Set the values to the mean of the prior, unless they are frozen."""
        if not self.is_frozen:
            self.values = self.prior.mean()

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=dtype)

    def __eq__(self, other) -> bool:
        return (
            type(self) is type(other)
            and (self.name, self.is_frozen, self.is_permanent)
            == (other.name, other.is_frozen, other.is_permanent)
            and self.prior == other.prior
            and np.array_equal(self.values, other.values)
            and all(np.array_equal(*pair) for pair in zip(self.bounds, other.bounds, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Parameter(name={self.name}, shape={self.shape})"

    def __str__(self) -> str:
        return "\n".join(
            [
                repr(self),
                RULE,
                f".prior: {self.prior!r}",
                f".bounds: {_bounds_text(self.bounds)}",
                f".is_frozen: {self.is_frozen}",
                ".values:",
                str(self.values),
                RULE,
                "Index: 0",  # of NEMS, whose models can hold several fits
                RULE,
            ]
        )


def _check_shape(shape, name: str) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        sizes = (-1,)
    if isinstance(shape, str | bytes) or min(sizes, default=0) < 0:
        raise ValueError(
            f"shape of the parameter {name!r} is {shape!r}, but a tuple of integers of at least 0 "
            "was expected."
        )
    return sizes


def _bounds_text(bounds: tuple[np.ndarray, np.ndarray]) -> str:
    low, high = (
        f"{side.flat[0]:g}" if side.size and (side == side.flat[0]).all() else str(side.tolist())
        for side in bounds
    )
    return f"({low}, {high})"


class Phi(Mapping):
    """The parameters of a layer, by name and in order.

    Parameters
    ----------
    *parameters : Parameter
        The parameters.

    Examples
    --------
    >>> from skdyn.nems import Parameter, Phi
    >>> phi = Phi(Parameter("a"), Parameter("b", shape=(2,)))
    >>> list(phi)
    ['a', 'b']
    >>> phi.get_vector()
    array([0., 0., 0.])
    """

    def __init__(self, *parameters: Parameter):
        self._parameters = {parameter.name: parameter for parameter in parameters}
        if len(self._parameters) < len(parameters):
            names = [parameter.name for parameter in parameters]
            raise ValueError(f"The parameters have the names {names}, but each must have its own.")

    def __getitem__(self, name: str) -> Parameter:
        try:
            return self._parameters[name]
        except KeyError:
            raise KeyError(f"{name!r}; the parameters are {list(self._parameters)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def copy(self) -> Phi:
        """Return a deep copy.

        Returns
        -------
        Phi
            A copy with its own parameters.
        """
        return copy.deepcopy(self)

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Restore all parameters if an error occurs within the context.

        Yields
        ------
        None
            Changes are kept if no error occurs.
        """
        before = [(parameter, dict(vars(parameter))) for parameter in self.values()]
        try:
            yield
        except BaseException:
            for parameter, state in before:
                vars(parameter).update(state)
            raise

    @property
    def free(self) -> list[Parameter]:
        """Parameters that are not frozen.

        Returns
        -------
        list of Parameter
            The parameters, in order.
        """
        return [parameter for parameter in self.values() if not parameter.is_frozen]

    def get_vector(self) -> np.ndarray:
        """Return all values that are not frozen, concatenated.

        Returns
        -------
        ndarray of shape (n_free,)
            Copies.
        """
        return np.concatenate([np.zeros(0), *(p.values.ravel() for p in self.free)])

    def set_vector(self, vector, *, ignore_bounds: bool = False) -> None:
        """Set all values that are not frozen.

        Parameters
        ----------
        vector : array-like of shape (n_free,)
            Values in the order of `get_vector`.
        ignore_bounds : bool, default=False
            Whether to allow values outside their bounds.
        """
        vector, free = np.asarray(vector, dtype=float), self.free
        sizes = [parameter.size for parameter in free]
        if vector.shape != (sum(sizes),):
            raise ValueError(
                f"vector has the shape {vector.shape}, but ({sum(sizes)},) was expected, the "
                "number of values that are not frozen."
            )
        with self.all_or_none():
            for parameter, end in zip(free, np.cumsum(sizes), strict=True):
                part = vector[end - parameter.size : end].reshape(parameter.shape)
                parameter.update(part, ignore_bounds=ignore_bounds)

    def get_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds of all values that are not frozen.

        Returns
        -------
        low, high : ndarray of shape (n_free,)
            Bounds; infinite for unbounded values.
        """
        low, high = (
            np.concatenate([np.zeros(0), *(p.bounds[side].ravel() for p in self.free)])
            for side in (0, 1)
        )
        return low, high

    def __eq__(self, other) -> bool:
        return type(self) is type(other) and list(self.values()) == list(other.values())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"\n{RULE}\n".join(map(repr, self.values()))

    def __str__(self) -> str:
        return "\n".join(f"{parameter}\n" for parameter in self.values())
