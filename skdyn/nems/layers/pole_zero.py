"""Pole-zero filters, with poles, zeros, delays and gains as parameters."""

from __future__ import annotations

import numpy as np
import torch

from skdyn.core.recursion import limited_recursion
from skdyn.nems.distributions import HalfNormal, Normal
from skdyn.nems.layers.base import Layer, check_sampling_frequency, check_shape, on_tensors
from skdyn.nems.layers.filters import (
    FiniteImpulseResponse,
    _check_stride,
    _Filter,
    _stride_option,
)
from skdyn.nems.parameter import Parameter, Phi
from skdyn.nems.words import Word

# Steps of the impulse response per row of the data.
STEPS = 5
# Number of draws from which a start is chosen.
N_DRAWS = 1000
# Means of priors.
POLES, ZEROS = (0.8, -0.4, 0.1, 0.0, 0.0), (0.1, 0.1, 0.1, 0.1, 0.0)


class PoleZeroFilter(_Filter):
    """Causal filters parametrised by poles, zeros, a delay and a gain.

    The transfer function of each filter is gain prod_i (z - zeros_i) / prod_j (z - poles_j) at five
    times the sampling frequency. The coefficients of a `FiniteImpulseResponse` are its delayed
    impulse response with linear interpolation: the coefficient of lag k is the value at (k + 1) /
    sampling_frequency - delay, and 0 before the onset and after n_lags.

    Parameters
    ----------
    shape : tuple of int
        (n_lags, n_ranks) or (n_lags, n_ranks, n_filters), as for `FiniteImpulseResponse`.
    n_poles : int, default=2
        Number of poles, from 1 to 5.
    n_zeros : int, default=1
        Number of zeros, from 0 to n_poles.
    sampling_frequency : float, default=100.0
        Rows per second of the data, in Hz.
    stride : int, default=1
        Step between the rows of the output that are kept, from the first on.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    Priors of poles are normal with means of 0.8, -0.4, 0.1, 0 and 0 and a standard deviation of
    0.3; those of zeros have a mean of 0.1, or of 0 for the fifth, and a standard deviation of 0.2.
    Both are bounded by -1 and 1. Delays, in seconds, are half normal with a scale of 0.02 and at
    least 0; gains are normal with a mean of 0.1 and a standard deviation of 0.2. Poles and zeros
    are real.

    Thorson, Lienard & David (2015, PLoS Computational Biology 11, e1004628) use this
    parametrisation for receptive fields of auditory neurons.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import PoleZeroFilter
    >>> layer = PoleZeroFilter(shape=(3, 1), n_poles=1, n_zeros=0, sampling_frequency=100)
    >>> layer.set_parameter_values(poles=[[[0.9]]], gains=[[1]], delays=[[0.008]])
    >>> layer.evaluate(np.array([[1], [0], [0]])).ravel().round(3)
    array([1.   , 0.59 , 0.349])
    """

    word = "pz"
    penalised = ("gains",)
    unit_free = ("poles", "zeros", "delays")

    shape: tuple[int, ...]

    def __init__(
        self,
        shape,
        *,
        n_poles: int = 2,
        n_zeros: int = 1,
        sampling_frequency: float = 100.0,
        stride: int = 1,
        **layer_options,
    ):
        for name, number, least, most in (
            ("n_poles", n_poles, 1, len(POLES)),
            ("n_zeros", n_zeros, 0, n_poles),
        ):
            if not isinstance(number, int | np.integer) or not least <= number <= most:
                raise ValueError(
                    f"{name} must be a whole number from {least} to {most}, but is {number!r}."
                )
        self.n_poles, self.n_zeros = int(n_poles), int(n_zeros)
        self.sampling_frequency = check_sampling_frequency(sampling_frequency)
        self.stride = _check_stride(stride)
        expected = "(n_lags, n_ranks) or (n_lags, n_ranks, n_filters)"
        super().__init__(check_shape(shape, expected, (2, 3)), **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        word.flags("p#", "z#", "fs#", "s#")
        return cls(
            word.shape(2, 3),
            n_poles=word.number("p", 2),
            n_zeros=word.number("z", 1),
            sampling_frequency=word.number("fs", 100),
            stride=word.number("s", 1),
        )

    def word_options(self) -> list[str]:
        """Return the options that `from_word` reads."""
        rate = self.sampling_frequency
        rates = [] if rate == 100 else [f"fs{rate:.0f}"]
        return [f"p{self.n_poles}", f"z{self.n_zeros}", *rates, *_stride_option(self.stride)]

    def initial_parameters(self) -> Phi:
        """Return poles, zeros, delays and gains.

        Returns
        -------
        Phi
            The parameters poles (n_ranks, n_filters, n_poles), zeros (n_ranks, n_filters, n_zeros),
            delays and gains (n_ranks, n_filters).
        """
        sizes = self.shape[1], (*self.shape[2:], 1)[0]

        def places(name: str, usual: tuple[float, ...], n: int, sd: float) -> Parameter:
            prior = Normal(np.broadcast_to(usual[:n], (*sizes, n)), sd)
            return Parameter(name, (*sizes, n), prior=prior, bounds=(-1, 1))

        return Phi(
            places("poles", POLES, self.n_poles, 0.3),
            places("zeros", ZEROS, self.n_zeros, 0.2),
            Parameter("delays", sizes, prior=HalfNormal(0.02), bounds=(0, np.inf)),
            Parameter("gains", sizes, prior=Normal(0.1, 0.2)),
        )

    def take_outputs(self, demand: tuple[int | None, ...]) -> tuple[int | None, ...] | None:
        """Infer the number of filters, as `FiniteImpulseResponse` does."""
        plain = FiniteImpulseResponse(self.shape)
        before = plain.take_outputs(demand)
        self.shape = plain.shape
        return before

    def sizes_from(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """Complete the shape, as `FiniteImpulseResponse` does.

        Parameters
        ----------
        *shapes : tuple of int
            Shape of the input, (n_samples, n_ranks) or (n_samples, n_ranks, n_filters).

        Returns
        -------
        tuple of int
            The shape, with sizes from the input.
        """
        return FiniteImpulseResponse(self.shape).sizes_from(*shapes)

    @property
    def n_past(self) -> int:  # type: ignore[override]
        """Number of past rows that an output depends on.

        Returns
        -------
        int
            The number of lags minus one.
        """
        return self.shape[0] - 1

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Filter.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_ranks) or (n_samples, n_ranks, n_filters)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_filters)
            One row for each `stride` rows.
        """
        plain = FiniteImpulseResponse(self.shape, stride=self.stride, name=self.name)
        plain.n_trials = self.n_trials
        with plain.tensors({"coefficients": self.responses()}):
            return plain.evaluate(input)

    @on_tensors
    def responses(self):
        """Compute the impulse responses.

        Returns
        -------
        ndarray or Tensor of shape (n_lags, n_ranks) or (n_lags, n_ranks, n_filters)
            The impulse responses, from lag 0 on.
        """
        poles, zeros, delays, gains = self.get_parameter_values("poles", "zeros", "delays", "gains")
        n_lags = self.shape[0]
        n_steps = STEPS * n_lags + 1
        fine = self._impulse_response(poles, zeros, n_steps)
        rate = STEPS * self.sampling_frequency
        place = STEPS * torch.arange(1, n_lags + 1, dtype=delays.dtype, device=delays.device)
        place = place[:, None, None] - rate * delays
        before = place.detach().floor()
        share = place - before
        inside = (place >= 0) & (place <= n_steps - 1)
        number = before.long().clamp(0, n_steps - 1)
        ends = [fine.gather(0, one) for one in (number, (number + 1).clamp(max=n_steps - 1))]
        found = gains * ((1 - share) * ends[0] + share * ends[1])
        found = torch.where(inside, found, torch.zeros_like(found))
        return found[..., 0] if len(self.shape) == 2 else found

    def _impulse_response(
        self, poles: torch.Tensor, zeros: torch.Tensor, n_steps: int
    ) -> torch.Tensor:
        """Apply one pole and one zero after the other to an impulse, (n_steps, ranks, filters)."""
        impulse = torch.zeros(n_steps, dtype=poles.dtype, device=poles.device)
        if self.n_poles - self.n_zeros < n_steps:
            impulse[self.n_poles - self.n_zeros] = 1
        series = impulse[:, None, None].expand(n_steps, *poles.shape[:-1])
        for zero in zeros.unbind(-1):
            earlier = torch.cat([torch.zeros_like(series[:1]), series[:-1]])
            series = series - zero * earlier
        for pole in poles.unbind(-1):
            series = limited_recursion(pole.expand_as(series), series)
        return series

    def stand_in(self) -> Layer:
        """Return unconstrained filters; see `Layer`."""
        return FiniteImpulseResponse(
            self.shape, stride=self.stride, input=self.input, output=self.output, name=self.name
        )

    def resemble(self, layer: Layer, random_state: np.random.RandomState) -> None:
        """Choose the best-fitting poles, zeros and delays among many draws; see `Layer`."""
        n_lags, *_ = self.shape
        bank = PoleZeroFilter(
            (n_lags, 1, N_DRAWS),
            n_poles=self.n_poles,
            n_zeros=self.n_zeros,
            sampling_frequency=self.sampling_frequency,
            values={"gains": np.ones((1, N_DRAWS))},
            frozen=("gains",),
        )
        bank.sample_from_priors(random_state)
        drawn = np.asarray(bank.responses())[:, 0]
        wanted = layer["coefficients"].values.reshape(n_lags, -1)
        squares = np.maximum(np.sum(drawn**2, axis=0), 1e-300)
        products = wanted.T @ drawn
        best = np.argmax(products**2 / squares, axis=1)
        gains = products[range(len(best)), best] / squares[best]
        found = {name: bank[name].values[0, best] for name in ("poles", "zeros", "delays")}
        for name, values in {**found, "gains": gains}.items():
            parameter = self[name]
            if not parameter.is_frozen:
                parameter.update(np.clip(values.reshape(parameter.shape), *parameter.bounds))
