"""Prior distributions of parameters.

Each class wraps a distribution of `scipy.stats`, with one distribution per entry of an array.
"""

from __future__ import annotations

import copy
from functools import cached_property

import numpy as np
from scipy import stats

from skdyn.sessions import as_numbers

_SYMBOLS = {"mean": "μ", "sd": "σ", "alpha": "α", "beta": "β"}  # noqa: RUF001


def as_generator(random_state) -> np.random.RandomState | np.random.Generator:
    """Return a source of randomness from a seed or an existing generator.

    Parameters
    ----------
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None
        None uses fresh entropy.

    Returns
    -------
    numpy.random.RandomState or numpy.random.Generator
        The given generator, or a new one.
    """
    if isinstance(random_state, np.random.RandomState | np.random.Generator):
        return random_state
    return np.random.default_rng(random_state)


class Distribution:
    """Base class of distributions of independent entries of an array.

    A subclass passes its parameters, which are broadcast against each other, and a constructor of
    the distribution of `scipy.stats` to this constructor.

    Parameters
    ----------
    frozen : callable
        Function that returns the distribution of `scipy.stats` for the broadcast parameters.
    **parameters : array-like
        Parameters of the distribution.
    """

    def __init__(self, frozen, **parameters):
        arrays = np.broadcast_arrays(*(as_numbers(p, name) for name, p in parameters.items()))
        self.parameters = {
            name: array.copy() for name, array in zip(parameters, arrays, strict=True)
        }
        # Integer parameters are displayed as integers.
        self._integers = {
            name: int(p)
            for name, p in parameters.items()
            if isinstance(p, int | np.integer) and not isinstance(p, bool)
        }
        with np.errstate(all="ignore"):
            self._scipy = frozen(*self.parameters.values())
            ends = self._scipy.support()  # NaN for parameters that SciPy rejects
        finite = all(np.isfinite(array).all() for array in arrays)
        if not finite or any(np.isnan(end).any() for end in ends):
            names = " or ".join(self.parameters)
            raise ValueError(
                f"{self!r} has parameters that scipy.stats does not allow: look at {names}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a draw.

        Returns
        -------
        tuple of int
            Shape of the broadcast parameters.
        """
        return next(iter(self.parameters.values())).shape

    def expand(self, shape: tuple[int, ...]) -> Distribution:
        """Broadcast the distribution to a larger array.

        Parameters
        ----------
        shape : tuple of int
            Shape to which the distribution is broadcast.

        Returns
        -------
        Distribution
            Distribution of that shape.
        """
        if shape == self.shape:
            return self
        return type(self)(**{k: np.broadcast_to(v, shape) for k, v in self.parameters.items()})

    def part(self, numbers: np.ndarray) -> Distribution:
        """Return the distribution of a subset of entries of the last axis.

        Parameters
        ----------
        numbers : ndarray of int
            Indices of the entries.

        Returns
        -------
        Distribution
            Distribution of these entries.
        """
        part = copy.copy(self)
        part.parameters = {name: v[..., numbers] for name, v in self.parameters.items()}
        part._integers = {}
        del part._scipy  # created on demand, because that takes milliseconds
        return part

    @cached_property
    def _scipy(self):
        """The distribution of SciPy, created on first access."""
        return type(self)(**self.parameters)._scipy

    def mean(self) -> np.ndarray:
        """Return the expected values.

        Returns
        -------
        ndarray
            Values of the shape of a draw.
        """
        return np.broadcast_to(self._scipy.mean(), self.shape).copy()

    def sd(self) -> np.ndarray:
        """Return the standard deviations.

        Returns
        -------
        ndarray
            Values of the shape of the distribution.
        """
        return np.broadcast_to(self._scipy.std(), self.shape).copy()

    def percentile(self, probability) -> np.ndarray:
        """Return percentiles.

        Parameters
        ----------
        probability : float in [0, 1]
            Probability of a value below the percentile.

        Returns
        -------
        ndarray
            Values of the shape of a draw.
        """
        return np.broadcast_to(self._scipy.ppf(probability), self.shape).copy()

    def sample(self, size=None, *, bounds=None, random_state=None) -> np.ndarray:
        """Draw random values.

        Parameters
        ----------
        size : int, default=None
            Number of draws; None for one draw, without an axis of draws.
        bounds : tuple of two array-likes, default=None
            Smallest and largest value, at which the distribution is truncated.
        random_state : int, numpy.random.Generator, numpy.random.RandomState or None, default=None
            Source of the draws; None uses fresh entropy.

        Returns
        -------
        ndarray of shape (size, ...), or of the shape of a draw
            The draws.

        Raises
        ------
        ValueError
            If the probability within the bounds is zero.
        """
        random = as_generator(random_state)
        shares = random.uniform(size=self.shape if size is None else (size, *self.shape))
        if bounds is None:
            return np.asarray(self._scipy.ppf(shares))
        # Above the median, upper tail probabilities are used, because lower ones would round to 1.
        low, high = (np.asarray(bound, dtype=float) for bound in bounds)
        above = low > self._scipy.median()
        first = np.where(above, self._scipy.sf(high), self._scipy.cdf(low))
        last = np.where(above, self._scipy.sf(low), self._scipy.cdf(high))
        if not np.all(first < last):
            raise ValueError(
                f"bounds are {bounds}, but some of {self!r} was expected within them. Widen the "
                "bounds or change the prior."
            )
        shares = first + shares * (last - first)
        draws = np.where(above, self._scipy.isf(shares), self._scipy.ppf(shares))
        return np.asarray(np.clip(draws, low, high))

    def __getstate__(self) -> dict[str, np.ndarray]:
        # The SciPy distribution is excluded, because it references NumPy's global generator.
        return dict(self.parameters)

    def __setstate__(self, state: dict[str, np.ndarray]) -> None:
        self.__dict__ = type(self)(**state).__dict__

    def __eq__(self, other) -> bool:
        return (
            type(self) is type(other)
            and self.shape == other.shape
            and all(
                np.array_equal(value, other.parameters[name])
                for name, value in self.parameters.items()
            )
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = {name: _short(value) for name, value in self.parameters.items()}
        if not self.shape:
            shown |= {name: str(number) for name, number in self._integers.items()}
        given = ", ".join(f"{_SYMBOLS.get(name, name)}={value}" for name, value in shown.items())
        return f"{type(self).__name__}({given})"


def _short(value: np.ndarray) -> str:
    """Return a scalar itself, or the shape of an array."""
    if value.size == 1 and value.ndim == 0:
        return str(float(value))
    return f"array(shape=({', '.join(map(str, value.shape))}))"


class Normal(Distribution):
    """Normal distribution.

    Parameters
    ----------
    mean : array-like, default=0.0
        Mean.
    sd : array-like, default=1.0
        Standard deviation.

    Examples
    --------
    >>> from skdyn.nems import Normal
    >>> Normal(mean=0.0, sd=1.0)
    Normal(μ=0.0, σ=1.0)
    """

    def __init__(self, mean=0.0, sd=1.0):
        super().__init__(stats.norm, mean=mean, sd=sd)


class HalfNormal(Distribution):
    """Absolute value of a normal variable of mean zero.

    Parameters
    ----------
    sd : array-like, default=1.0
        Standard deviation of the normal variable. The mean is sd sqrt(2 / pi).
    """

    def __init__(self, sd=1.0):
        super().__init__(lambda sd: stats.halfnorm(scale=sd), sd=sd)


class Exponential(Distribution):
    """Exponential distribution.

    Parameters
    ----------
    beta : array-like, default=1.0
        Mean.
    """

    def __init__(self, beta=1.0):
        super().__init__(lambda beta: stats.expon(scale=beta), beta=beta)


class Uniform(Distribution):
    """Uniform distribution.

    Parameters
    ----------
    lower, upper : array-like, default=0.0, 1.0
        Least and largest value.
    """

    def __init__(self, lower=0.0, upper=1.0):
        super().__init__(
            lambda lower, upper: stats.uniform(lower, upper - lower), lower=lower, upper=upper
        )


class Beta(Distribution):
    """Beta distribution, between 0 and 1.

    Parameters
    ----------
    alpha, beta : array-like, default=1.0
        Shape parameters. The mean is alpha / (alpha + beta).
    """

    def __init__(self, alpha=1.0, beta=1.0):
        super().__init__(stats.beta, alpha=alpha, beta=beta)


class Gamma(Distribution):
    """Gamma distribution.

    Parameters
    ----------
    alpha : array-like, default=1.0
        Shape parameter.
    beta : array-like, default=1.0
        Rate. The mean is alpha / beta.
    """

    def __init__(self, alpha=1.0, beta=1.0):
        super().__init__(
            lambda alpha, beta: stats.gamma(alpha, scale=1 / beta), alpha=alpha, beta=beta
        )

    @classmethod
    def from_moments(cls, mean, sd) -> Gamma:
        """Return the gamma distribution with a given mean and standard deviation.

        Parameters
        ----------
        mean, sd : array-like
            Mean and standard deviation, both positive.

        Returns
        -------
        Gamma
            Distribution with the shape mean^2 / sd^2 and the rate mean / sd^2.
        """
        mean, sd = np.asarray(mean, dtype=float), np.asarray(sd, dtype=float)
        if not (np.all(mean > 0) and np.all(sd > 0)):
            raise ValueError(f"mean and sd must be above 0, but are {mean} and {sd}.")
        return cls(alpha=mean**2 / sd**2, beta=mean / sd**2)
