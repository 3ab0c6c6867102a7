"""Filters of the past response: spike history and coupling of neurons."""

from __future__ import annotations

from types import MappingProxyType

import torch

from skdyn.nems.distributions import Normal
from skdyn.nems.layers.base import Layer, check_shape, misfit, on_tensors
from skdyn.nems.layers.filters import filter_in_time
from skdyn.nems.parameter import Parameter, Phi
from skdyn.nems.words import PENALTY, Word


class ResponseHistory(Layer):
    """Filters of the past response, added to each output: spike history and coupling.

    The output is y[t, k] = x[t, k] + sum_{l=1..n_lags} sum_j r[t - l, j] h[l, j, k], where r is the
    response; without coupling only j = k counts. The present and future response are never used.
    `NEMSRegressor.fit` and `score` pass y to the layer, so that they evaluate one-step predictions;
    `predict` passes streams={"response": ...} or, without it, its own predictions.

    Parameters
    ----------
    shape : tuple of int
        (n_lags, n_outputs). An n_outputs of None is inferred from the data.
    coupled : bool, default=False
        Whether each output depends on the past of all outputs instead of only its own.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    Row 0 of the coefficients h is lag 1. Their shape is (n_lags, n_outputs), or (n_lags, n_outputs,
    n_outputs) with coupling: lag, source output, target output. Their prior is normal with mean 0
    and a standard deviation of 1 / n_lags. Missing values of the response are treated as 0.

    Followed by a positive nonlinearity, and fitted with loss="poisson", this is the generalised
    linear model of Truccolo et al. (2005, J. Neurophysiol. 93, 1074-1089) and Pillow et al. (2008,
    Nature 454, 995-999).

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import ResponseHistory
    >>> layer = ResponseHistory((2, 1))
    >>> layer["coefficients"] = [[-4], [-1]]
    >>> drive, response = np.zeros((4, 1)), np.array([[0], [1], [0], [0]])
    >>> layer.evaluate(drive, response=response).ravel()
    array([ 0.,  0., -4., -1.])
    """

    word = "hist"
    penalised = ("coefficients",)
    axes = MappingProxyType({"coefficients": ("lags", "channels")})
    joins_trials = True
    passes_outputs = True
    response_arg = "response"
    first_lag = 1

    shape: tuple[int, ...]

    def __init__(self, shape, *, coupled: bool = False, **layer_options):
        self.coupled = coupled
        super().__init__(check_shape(shape, "(n_lags, n_outputs)", (2,)), **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        flags = word.flags("c", PENALTY)
        return cls(word.shape(2), coupled="c" in flags, l2=word.penalty)

    def word_options(self) -> list[str]:
        """Return the options that `from_word` reads."""
        return ["c"] if self.coupled else []

    @property
    def n_past(self) -> int:  # type: ignore[override]
        """Number of past rows that an output depends on.

        Returns
        -------
        int
            The number of lags.
        """
        return self.shape[0]

    def sizes_from(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """Complete the shape.

        Parameters
        ----------
        *shapes : tuple of int
            Shapes of the inputs, (n_samples, n_outputs) each.

        Returns
        -------
        tuple of int
            The shape, with n_outputs from the input.
        """
        n_lags, n_outputs = self.shape
        if n_lags is None or len(shapes[0]) != 2:
            raise misfit(self, shapes[0], "(n_samples, n_outputs)", "Write the number of lags")
        return (n_lags, shapes[0][1] if n_outputs is None else n_outputs)

    def initial_parameters(self) -> Phi:
        """Return the filters.

        Returns
        -------
        Phi
            The parameter coefficients.
        """
        n_lags, n_outputs = self.shape
        shape = (n_lags, n_outputs, n_outputs) if self.coupled else (n_lags, n_outputs)
        return Phi(Parameter("coefficients", shape, prior=Normal(0, 1 / n_lags)))

    @on_tensors
    def evaluate(self, input, response):  # noqa: A002
        """Add the filtered past of the response.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_outputs)
            The drive of each output.
        response : ndarray or Tensor of shape (n_samples,) or (n_samples, n_outputs)
            The response.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_outputs)
            The drive plus the filtered response.
        """
        response = response.unsqueeze(-1) if response.ndim == 1 else response
        n_outputs = self.shape[1]
        for array in (input, response):
            if tuple(array.shape[1:]) != (n_outputs,):
                expected = f"(n_samples, {n_outputs})"
                raise misfit(self, array.shape, expected, "Give a response for each output")
        (coefficients,) = self.get_parameter_values("coefficients")
        response = torch.where(torch.isnan(response), 0.0, response)
        if not self.coupled:
            coefficients, response = coefficients.unsqueeze(1), response.unsqueeze(1)
        filtered = filter_in_time(response, coefficients, -self.first_lag, self.n_trials)
        return input + filtered
