"""Layers that modulate the response with the animal's state, such as arousal or a task."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from skdyn.nems.distributions import Normal
from skdyn.nems.layers.base import Layer, check_shape, misfit, on_tensors, passed_through
from skdyn.nems.layers.nonlinearities import gompertz
from skdyn.nems.parameter import Parameter, Phi
from skdyn.nems.words import Word

# Size of parameters that the identity does not determine, at the start of a fit.
SMALL = 0.01
# Amplitude of curves of the state at the start of a fit.
SMALL_AMPLITUDE = 0.1


class StateModulation(Layer):
    """Base class of layers with a state-dependent gain and offset, y = g(state) x + d(state).

    To write a custom layer, subclass it and define `initial_parameters`, `modulation` and
    `values_at_identity`.

    Parameters
    ----------
    shape : tuple of int, default=(None, None)
        (n_states, n_channels). If n_states exceeds the number of columns of the state by one, row 0
        belongs to a constant state of 1. An n_states of None is the number of columns plus one. An
        n_channels of None is inferred from the data; 1 means one gain and offset for all channels.
    **layer_options
        Arguments of `Layer`. Without `input` the layer takes the output of the previous layer and
        the data named "state".
    """

    penalised: tuple[str, ...] | None = ()
    n_past = 0
    modulates = True
    # The argument of `evaluate` that receives the data named "state".
    state_arg: ClassVar[str] = "state"

    shape: tuple[int, ...]

    def __init__(self, shape=(None, None), **layer_options):
        super().__init__(check_shape(shape, "(n_states, n_channels)", (2,)), **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        word.flags()
        return cls(word.shape(2))

    def take_outputs(self, demand: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Infer the number of channels, which the layer keeps."""
        return passed_through(self, demand)

    def sizes_from(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """Complete the shape.

        Parameters
        ----------
        *shapes : tuple of int
            Shapes of the input, (n_samples, n_channels), and of the state, (n_samples, n_columns)
            or (n_samples,).

        Returns
        -------
        tuple of int
            The shape, with a constant state of 1 before the columns of the state.
        """
        n_states, n_channels = self.shape
        if len(shapes) != 2 or len(shapes[0]) < 2:
            raise misfit(
                self,
                shapes[0] if shapes else (),
                "(n_samples, n_channels) and a state",
                "Pass state=, or name both with input=",
            )
        n_columns = shapes[1][1] if len(shapes[1]) > 1 else 1
        return (n_states or n_columns + 1, n_channels or shapes[0][-1])

    @on_tensors
    def evaluate(self, input, state):  # noqa: A002
        """Apply the gain and the offset.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, n_channels)
            Rows of time.
        state : ndarray or Tensor of shape (n_samples, n_columns) or (n_samples,)
            The state in each row, with n_states or n_states - 1 columns.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_channels)
            g(state) input + d(state).
        """
        states = self._with_constant(state)
        if input.ndim != 2 or (self.shape[1] != 1 and input.shape[1] != self.shape[1]):
            raise misfit(
                self,
                input.shape,
                f"(n_samples, {self.shape[1]})",
                "Make the layer for that many channels, or name another input",
            )
        gain, offset = self.modulation(states)
        return gain * input + offset

    def modulation(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute gains and offsets; subclasses implement it.

        Parameters
        ----------
        states : Tensor of shape (n_samples, n_states)
            The state; its first column is 1 if the shape has a row for it.

        Returns
        -------
        gain, offset : Tensor of shape (n_samples, n_channels)
            Factor and offset of the input.
        """
        raise NotImplementedError(f"{type(self).__name__} has no modulation(self, states).")

    @on_tensors
    def gain_and_offset(self, state):
        """Compute the gain and the offset of each channel.

        Parameters
        ----------
        state : ndarray or Tensor of shape (n_samples, n_columns) or (n_samples,)
            The state in each row.

        Returns
        -------
        list of two ndarrays or Tensors of shape (n_samples, n_channels)
            Gain and offset.
        """
        return list(self.modulation(self._with_constant(state)))

    def start_from(
        self, random_state: np.random.RandomState, *inputs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Choose values near the identity; see `Layer`."""
        states = self._with_constant(torch.as_tensor(inputs[1])).numpy()
        return self.values_at_identity(states)

    def values_at_identity(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """Choose values at which gains are about 1 and offsets about 0.

        Parameters
        ----------
        states : ndarray of shape (n_samples, n_states)
            The state; its first column is 1 if the shape has a row for it.

        Returns
        -------
        dict of ndarray
            Values by name of the parameter.
        """
        return {}

    def _with_constant(self, state: torch.Tensor) -> torch.Tensor:
        states = state[:, None] if state.ndim == 1 else state
        n_states = self.shape[0]
        if states.ndim == 2 and states.shape[1] == n_states - 1:
            states = torch.cat([states.new_ones((len(states), 1)), states], dim=1)
        if states.ndim != 2 or states.shape[1] != n_states:
            raise ValueError(
                f"The state of {self.name or type(self).__name__}, of shape {self.shape}, has the "
                f"shape {tuple(state.shape)}, but (n_samples, {n_states}), or one column less, was "
                "expected. Make the layer for that many columns, or pass another state."
            )
        return states


def _weights_of_one(states: np.ndarray) -> np.ndarray:
    """Return the weights of states whose sum is closest to one."""
    return np.linalg.lstsq(states, np.ones(len(states)), rcond=None)[0][:, np.newaxis]


class StateGain(StateModulation):
    """Gain and offset that are weighted sums of states.

    The output is y = (s @ gain) x + s @ offset, for states s of shape (n_samples, n_states).

    Parameters
    ----------
    shape : tuple of int, default=(None, None)
        (n_states, n_channels). If n_states exceeds the number of columns of the state by one, row 0
        belongs to a constant state of 1. An n_states of None is the number of columns plus one. An
        n_channels of None is inferred from the data; 1 means one gain and offset for all channels.
    **layer_options
        Arguments of `Layer`. Without `input` the layer takes the output of the previous layer and
        the data named "state".

    Notes
    -----
    Priors are normal with a standard deviation of 0.05 and a mean of 1 for row 0 of gain and of 0
    for the rest.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import StateGain
    >>> layer = StateGain(shape=(2, 1))
    >>> layer.set_parameter_values(gain=[[1], [0.5]], offset=[[0], [2]])
    >>> layer.evaluate(np.array([[10], [10]]), state=np.array([[0], [1]])).ravel()
    array([10., 17.])
    """

    word = "stategain"

    def initial_parameters(self) -> Phi:
        """Return the weights of the states.

        Returns
        -------
        Phi
            The parameters gain and offset, of the shape of the layer.
        """
        mean = np.zeros(self.shape)
        mean[0] = 1
        return Phi(
            Parameter("gain", self.shape, prior=Normal(mean, 0.05)),
            Parameter("offset", self.shape, prior=Normal(0, 0.05)),
        )

    def modulation(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute weighted sums of the states.

        Parameters
        ----------
        states : Tensor of shape (n_samples, n_states)
            The states.

        Returns
        -------
        gain, offset : Tensor of shape (n_samples, n_channels)
            Weighted sums of states.
        """
        gain, offset = self.get_parameter_values("gain", "offset")
        return states @ gain, states @ offset

    def values_at_identity(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """Choose the weights whose sum of states is closest to one.

        Parameters
        ----------
        states : ndarray of shape (n_samples, n_states)
            The states.

        Returns
        -------
        dict of ndarray
            Gain and offset.
        """
        return {
            "gain": np.broadcast_to(_weights_of_one(states), self.shape),
            "offset": np.zeros(self.shape),
        }


class StateDexp(StateModulation):
    """Gain and offset that are sigmoids of states.

    The output is y = g x + d, where g = sum_s [base_g + amp_g exp(-exp(-exp(kappa_g) (state_s -
    offset_g)))] over states s, with separate parameters for each state and channel, and d likewise.

    Parameters
    ----------
    shape : tuple of int, default=(None, None)
        (n_states, n_channels). If n_states exceeds the number of columns of the state by one, row 0
        belongs to a constant state of 1. An n_states of None is the number of columns plus one. An
        n_channels of None is inferred from the data; 1 means one gain and offset for all channels.
    **layer_options
        Arguments of `Layer`. Without `input` the layer takes the output of the previous layer and
        the data named "state".

    Notes
    -----
    Priors are normal with a mean of 0, except 1 for row 0 of amp_g. The standard deviation is 1 for
    base_g and base_d, and 0.1 for the others. There are no bounds, so that gains can also decrease.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import StateDexp
    >>> layer = StateDexp(shape=(1, 1))
    >>> layer.set_parameter_values(base_g=[[1]], amp_g=[[2]], kappa_g=[[3]])
    >>> layer.evaluate(np.array([[10], [10]]), state=np.array([-5, 5])).ravel().round(3)
    array([10., 30.])
    """

    word = "sdexp"
    unit_free = ("kappa_g", "kappa_d")

    def initial_parameters(self) -> Phi:
        """Return the parameters of the curves.

        Returns
        -------
        Phi
            The parameters base, amp, kappa and offset, each for gain (_g) and offset (_d), of the
            shape of the layer.
        """
        first = np.zeros(self.shape)
        first[0] = 1
        return Phi(
            *(
                Parameter(
                    f"{name}_{end}",
                    self.shape,
                    prior=Normal(
                        first if (name, end) == ("amp", "g") else 0.0,
                        1.0 if name == "base" else 0.1,
                    ),
                )
                for end in ("g", "d")
                for name in ("base", "amp", "kappa", "offset")
            )
        )

    def modulation(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum the curves of the states.

        Parameters
        ----------
        states : Tensor of shape (n_samples, n_states)
            The states.

        Returns
        -------
        gain, offset : Tensor of shape (n_samples, n_channels)
            Sums over states.
        """

        def curve(end: str) -> torch.Tensor:
            names = (f"{name}_{end}" for name in ("base", "amp", "kappa", "offset"))
            base, amplitude, kappa, offset = self.get_parameter_values(*names)
            return gompertz(states[:, :, None], base, amplitude, -offset, kappa).sum(1)

        return curve("g"), curve("d")

    def values_at_identity(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """Choose small curves, centred on each state, and a mean gain of one.

        Parameters
        ----------
        states : ndarray of shape (n_samples, n_states)
            The states.

        Returns
        -------
        dict of ndarray
            All parameters.
        """
        middle, spread = states.mean(axis=0), states.std(axis=0)
        varies = spread > 0
        kappa = -np.log(np.where(varies, spread, 1.0))
        amplitude = np.where(varies, SMALL_AMPLITUDE, 0.0)
        curve = np.exp(-np.exp(-np.exp(kappa) * (states - middle))).mean(axis=0)
        base = 1 / self.shape[0] - amplitude * curve
        found = {"base_g": base, "amp_g": amplitude, "base_d": 0 * base, "amp_d": 0 * base}
        found |= dict.fromkeys(("kappa_g", "kappa_d"), kappa)
        found |= dict.fromkeys(("offset_g", "offset_d"), middle)
        return {name: np.broadcast_to(v[:, np.newaxis], self.shape) for name, v in found.items()}


class StateHinge(StateModulation):
    """Gain and offset that are piecewise linear in states, with a knee.

    The output is y = g x + d, where g = sum_s [min(z_s, 0) gain1 + max(z_s, 0) gain2] over states
    s, with z_s = state_s - x0 and separate parameters for each state and channel, and d likewise
    with offset1 and offset2.

    Parameters
    ----------
    shape : tuple of int, default=(None, None)
        (n_states, n_channels). If n_states exceeds the number of columns of the state by one, row 0
        belongs to a constant state of 1. An n_states of None is the number of columns plus one. An
        n_channels of None is inferred from the data; 1 means one gain and offset for all channels.
    match_sign : bool, default=False
        Whether gain2 and offset2 take the signs of gain1 and offset1.
    **layer_options
        Arguments of `Layer`. Without `input` the layer takes the output of the previous layer and
        the data named "state".

    Notes
    -----
    Priors are normal. Gains have a standard deviation of 0.05 and a mean of 1 in row 0 and of 0 in
    the others; offsets and x0 have a mean of 0 and a standard deviation of 1.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import StateHinge
    >>> layer = StateHinge(shape=(2, 1))
    >>> layer.set_parameter_values(gain1=[[0], [0]], gain2=[[1], [0.5]], x0=[[0], [1]])
    >>> layer.evaluate(np.full((3, 1), 10), state=np.array([0, 1, 3])).ravel()
    array([10., 10., 20.])
    """

    word = "statehinge"

    def __init__(self, shape=(None, None), *, match_sign: bool = False, **layer_options):
        self.match_sign = match_sign
        super().__init__(shape, **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        flags = word.flags("m")
        return cls(word.shape(2), match_sign="m" in flags)

    def word_options(self) -> list[str]:
        """Return the options that `from_word` reads."""
        return ["m"] if self.match_sign else []

    def initial_parameters(self) -> Phi:
        """Return slopes and knees.

        Returns
        -------
        Phi
            The parameters gain1, gain2, offset1, offset2 and x0, of the shape of the layer.
        """
        first = np.zeros(self.shape)
        first[0] = 1
        return Phi(
            Parameter("gain1", self.shape, prior=Normal(first, 0.05)),
            Parameter("gain2", self.shape, prior=Normal(first, 0.05)),
            *(
                Parameter(name, self.shape, prior=Normal(0, 1))
                for name in ("offset1", "offset2", "x0")
            ),
        )

    def modulation(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute gains and offsets from the states below and above the knees.

        Parameters
        ----------
        states : Tensor of shape (n_samples, n_states)
            The states.

        Returns
        -------
        gain, offset : Tensor of shape (n_samples, n_channels)
            Sums over states.
        """
        (x0,) = self.get_parameter_values("x0")
        z = states[:, :, None] - x0
        below, above = torch.clamp(z, max=0), torch.clamp(z, min=0)

        def slopes(name: str) -> torch.Tensor:
            first, second = self.get_parameter_values(f"{name}1", f"{name}2")
            if self.match_sign:
                second = torch.where(first < 0, -second.abs(), second.abs())
            return (below * first + above * second).sum(1)

        return slopes("gain"), slopes("offset")

    def values_at_identity(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """Choose knees in the middle of each varying state, and gains near one.

        Parameters
        ----------
        states : ndarray of shape (n_samples, n_states)
            The states.

        Returns
        -------
        dict of ndarray
            All parameters.
        """
        varies = np.ptp(states, axis=0) > 0
        knees = np.where(varies, states.mean(axis=0), 0.0)
        gains = np.where(varies, SMALL, _weights_of_one(states)[:, 0])
        found = {"gain1": gains, "gain2": gains}
        if varies.all() and not self.match_sign:  # no constant state
            gains = np.linalg.lstsq(np.abs(states - knees), np.ones(len(states)), rcond=None)[0]
            found = {"gain1": -gains, "gain2": gains}
        size = SMALL * varies
        found |= {"x0": knees, "offset1": size, "offset2": size}
        return {name: np.broadcast_to(v[:, np.newaxis], self.shape) for name, v in found.items()}
