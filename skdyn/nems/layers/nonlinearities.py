"""Pointwise nonlinearities."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from torch.nn.functional import softplus

from skdyn.nems.distributions import Normal
from skdyn.nems.layers.base import (
    Layer,
    check_shape,
    misfit,
    on_tensors,
)
from skdyn.nems.layers.description import WantedOutput
from skdyn.nems.parameter import Parameter, Phi
from skdyn.nems.words import Word

# Upper limit of u: exp(-exp(u)) underflows to zero far below it, and exp(u) is still finite. An
# infinite exp(kappa) would be multiplied by these zeros.
LARGEST_EXPONENT, LARGEST_KAPPA = 30.0, 100.0
# Above this, log(1 + exp(x)) equals x to machine precision.
LINEAR_FROM = 40.0
# Minimum initial slope of a smooth rectifier, as a fraction of its gain.
SMALLEST_SHARE = 1e-3
# Fraction of the range of a saturating curve that the response covers at the start.
INSIDE = 0.97


def gompertz(
    values: torch.Tensor,
    base: torch.Tensor,
    amplitude: torch.Tensor,
    shift: torch.Tensor,
    kappa: torch.Tensor,
) -> torch.Tensor:
    """Compute base + amplitude exp(-exp(-exp(kappa) (values + shift))), finite everywhere.

    Parameters
    ----------
    values : Tensor
        The argument.
    base, amplitude, shift, kappa : Tensor
        Parameters of the curve, which broadcast with the argument.

    Returns
    -------
    Tensor
        The curve, with finite derivatives.
    """
    parameters = torch.broadcast_tensors(base, amplitude, shift, kappa)
    return _Gompertz.apply(values, *parameters)[0]


class _Gompertz(torch.autograd.Function):
    """The curve with derivatives in closed form, in two thirds of the time of autograd.

    With e = exp(-exp(kappa) (x + shift)) and g = exp(-e), the derivatives of base + amplitude g by
    x and shift are amplitude exp(kappa) e g, and that by kappa is this times x + shift.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(values, base, amplitude, shift, kappa):
        shifted, decayed, curve = _gompertz_parts(values, shift, kappa)
        return torch.addcmul(base, amplitude, curve), shifted, decayed, curve

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.save_for_forward(*inputs, *output[1:])

    @staticmethod
    def jvp(ctx, by_values, by_base, by_amplitude, by_shift, by_kappa):
        _, _, amplitude, _, kappa, shifted, decayed, curve = ctx.saved_tensors
        steepness = _steepness(kappa)
        along = torch.zeros_like(curve)
        for tangent in (by_values, by_shift):
            along = along if tangent is None else along + steepness * tangent
        if by_kappa is not None:
            along = along + steepness * shifted * by_kappa * (kappa <= LARGEST_KAPPA)
        total = amplitude * decayed * curve * along
        total = total if by_amplitude is None else total + curve * by_amplitude
        return total if by_base is None else total + by_base, None, None, None

    @staticmethod
    def backward(ctx, slopes, *_):
        if slopes is None:
            return (None,) * 5
        values, _, amplitude, shift, kappa, shifted, decayed, curve = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            shifted, decayed, curve = _gompertz_parts(values, shift, kappa)
        gain = amplitude * _steepness(kappa)
        by_curve = slopes * curve
        bent = by_curve * decayed
        sums = [one.sum_to_size(kappa.shape) for one in (slopes, by_curve, bent, bent * shifted)]
        by_kappa = gain * sums[3] * (kappa <= LARGEST_KAPPA)
        return (bent * gain).sum_to_size(values.shape), sums[0], sums[1], gain * sums[2], by_kappa


def _steepness(kappa: torch.Tensor) -> torch.Tensor:
    return torch.exp(kappa.clamp(max=LARGEST_KAPPA))


def _gompertz_parts(values, shift, kappa) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return x + shift, e = exp(-exp(kappa) (x + shift)), and exp(-e)."""
    shifted = values + shift
    # Without the limit, the gradient is zero times infinity in the flat part of the curve.
    decayed = torch.exp((shifted * -_steepness(kappa)).clamp(max=LARGEST_EXPONENT))
    return shifted, decayed, torch.exp(-decayed)


class StaticNonlinearity(Layer):
    """Base class of pointwise nonlinearities, applied to each channel.

    To write a custom nonlinearity, subclass it: `initial_parameters` returns its parameters, and
    `nonlinearity` computes the output in torch. If the layer is skipped, only a parameter named
    shift is applied.

    Parameters
    ----------
    shape : tuple of int, default=None
        (n_channels,), the last axis of the input. None is inferred from the data.
    skipped : bool, default=False
        Whether the layer only adds its shift; its other parameters are then not fitted.
    **layer_options
        Arguments of `Layer`.

    Attributes
    ----------
    is_skipped : bool
        Whether only the shift is applied.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems import Parameter, Phi
    >>> from skdyn.nems.layers import StaticNonlinearity
    >>> class Power(StaticNonlinearity):
    ...     def initial_parameters(self):
    ...         return Phi(Parameter("exponent", self.shape, initial_value=2.0))
    ...     def nonlinearity(self, input):
    ...         (exponent,) = self.get_parameter_values("exponent")
    ...         return input ** exponent
    >>> Power(shape=(1,)).evaluate(np.array([[1], [3]])).ravel()
    array([1., 9.])
    """

    penalised: tuple[str, ...] = ()
    keeps_channels = True
    n_past = 0

    shape: tuple[int, ...]

    def __init__(self, shape=None, *, skipped: bool = False, **layer_options):
        self.skipped = skipped
        self._frozen_before: tuple[str, ...] = ()
        super().__init__(check_shape(shape, "(n_channels,)", (1,)), **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        word.flags()
        return cls(word.shape(1))

    def nonlinearity(self, input):  # noqa: A002
        """Apply the nonlinearity; here y = x + shift, and subclasses override it.

        Parameters
        ----------
        input : Tensor of shape (n_samples, ..., n_channels)
            Rows of time.

        Returns
        -------
        Tensor of shape (n_samples, ..., n_channels)
            The output.
        """
        return input + self.get_parameter_values(as_dict=True).get("shift", 0.0)

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Apply the nonlinearity or, if the layer is skipped, only the shift.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, ..., n_channels)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ..., n_channels)
            Output of the same shape.
        """
        if input.ndim < 2 or input.shape[-1:] != self.shape:
            raise misfit(
                self,
                input.shape,
                f"(n_samples, {self.shape[0]})",
                "Make the layer for that many channels, or name another input",
            )
        if self.skipped:
            return StaticNonlinearity.nonlinearity(self, input)
        return self.nonlinearity(input)

    @property
    def bends(self) -> bool:
        """Whether the layer does more than shift each channel; see `Layer`."""
        return not self.skipped and super().bends

    def start_values(
        self, mean: np.ndarray, spread: np.ndarray, wanted: WantedOutput
    ) -> dict[str, np.ndarray]:
        """Choose initial values; see `Layer`. Subclasses define `_start_values`."""
        if self.skipped:
            return {"shift": wanted.level - mean} if "shift" in self.parameters else {}
        return self._start_values(mean, spread, wanted)

    def invert(self, target: np.ndarray, wanted: WantedOutput) -> np.ndarray:
        """Compute the input of a target output; see `Layer`. Subclasses define `_invert`."""
        return target if self.skipped else self._invert(target, wanted)

    def _start_values(self, mean, spread, wanted: WantedOutput) -> dict[str, np.ndarray]:
        """Shift the input to the target level, if the layer has a neutral shift."""
        if "shift" not in self.neutral:
            return {}
        shape = wanted.level.shape
        neutral = {name: np.full(shape, value) for name, value in self.neutral.items()}
        return {**neutral, "shift": wanted.level - mean}

    def _invert(self, target: np.ndarray, wanted: WantedOutput) -> np.ndarray:
        return target

    @property
    def is_skipped(self) -> bool:
        """Whether only the shift is applied.

        Returns
        -------
        bool
            The argument `skipped`.
        """
        return self.skipped

    def _make_parameters(self) -> Phi:
        phi = super()._make_parameters()
        if self.skipped:
            self._freeze_curve(phi)
        return phi

    def _freeze_curve(self, phi: Phi) -> None:
        self._frozen_before = tuple(name for name, p in phi.items() if p.is_frozen)
        for name, parameter in phi.items():
            if name != "shift":
                parameter.freeze()

    def skip_nonlinearity(self) -> None:
        """Set y = x + shift, and freeze all parameters except shift.

        A model is often fitted with skipped nonlinearities first.
        """
        if not self.skipped:
            self.skipped = True
            if self.is_sized:
                self._freeze_curve(self.parameters)

    def unskip_nonlinearity(self) -> None:
        """Restore the nonlinearity and unfreeze the parameters that were not frozen before."""
        if self.skipped:
            self.skipped = False
            for name, parameter in self.parameters.items() if self.is_sized else ():
                if name not in self._frozen_before:
                    parameter.unfreeze()


class LevelShift(StaticNonlinearity):
    """Constant offset of each channel: y = x + shift.

    Parameters
    ----------
    shape : tuple of int, default=None
        (n_channels,). None is inferred from the data.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    The prior of shift is normal with a mean of 0 and a standard deviation of 0.01.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import LevelShift
    >>> layer = LevelShift(shape=(2,))
    >>> layer["shift"] = [1, -1]
    >>> layer.evaluate(np.zeros((1, 2)))
    array([[ 1., -1.]])
    """

    word = "lvl"
    level = "shift"
    neutral = MappingProxyType({"shift": 0.0})

    def initial_parameters(self) -> Phi:
        """Return the parameter.

        Returns
        -------
        Phi
            The parameter shift.
        """
        return Phi(Parameter("shift", self.shape, prior=Normal(0, 0.01)))


class DoubleExponential(StaticNonlinearity):
    """Double-exponential sigmoid (Gompertz curve), which rises fast and saturates slowly.

    The output is y = base + amplitude exp(-exp(-exp(kappa) (x + shift))).

    Parameters
    ----------
    shape : tuple of int, default=None
        (n_channels,). None is inferred from the data.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    All priors are normal, with a mean of -0.1 and a standard deviation of 0.02 for base, 0.5 and
    0.2 for amplitude, 0 and 0.1 for shift, and 0.2 and 0.1 for kappa. kappa is penalised, too:
    otherwise a steeper curve would compensate the shrinkage of filters.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import DoubleExponential
    >>> layer = DoubleExponential(shape=(1,))
    >>> layer.set_parameter_values(base=[0], amplitude=[1], shift=[0], kappa=[0])
    >>> layer.evaluate(np.array([[-1000], [0], [1000]])).ravel().round(3)
    array([0.   , 0.368, 1.   ])
    """

    word = "dexp"
    unit_free = ("kappa",)
    penalised = ("kappa",)
    neutral = MappingProxyType({"base": 0.0, "amplitude": 1.0, "shift": 0.0, "kappa": 0.0})

    def initial_parameters(self) -> Phi:
        """Return the parameters.

        Returns
        -------
        Phi
            The parameters base, amplitude, shift and kappa.
        """
        return Phi(
            Parameter("base", self.shape, prior=Normal(-0.1, 0.02)),
            Parameter("amplitude", self.shape, prior=Normal(0.5, 0.2)),
            Parameter("shift", self.shape, prior=Normal(0, 0.1)),
            Parameter("kappa", self.shape, prior=Normal(0.2, 0.1)),
        )

    def nonlinearity(self, input):  # noqa: A002
        """Apply the nonlinearity.

        Parameters
        ----------
        input : Tensor of shape (n_samples, ..., n_channels)
            Rows of time.

        Returns
        -------
        Tensor of shape (n_samples, ..., n_channels)
            Between base and base + amplitude.
        """
        base, amplitude, shift, kappa = self.get_parameter_values(
            "base", "amplitude", "shift", "kappa"
        )
        return gompertz(input, base, amplitude, shift, kappa)

    def _start_values(self, mean, spread, wanted: WantedOutput) -> dict[str, np.ndarray]:
        """Span the low to high percentiles, with the steep part at the input."""
        return {
            "base": wanted.low,
            # Not 0 for a nearly constant response, because the filters would have no gradient.
            "amplitude": np.maximum(wanted.high - wanted.low, wanted.size),
            "shift": -mean,
            "kappa": -np.log(np.where(spread > 0, spread, 1.0)),
        }


class _ScaledNonlinearity(StaticNonlinearity):
    """y = offset + gain * curve(x + shift), with optional shift, offset and gain."""

    neutral = MappingProxyType({"shift": 0.0, "offset": 0.0, "gain": 1.0})

    def __init__(
        self,
        shape=None,
        *,
        no_shift: bool = True,
        no_offset: bool = True,
        no_gain: bool = True,
        **layer_options,
    ):
        self.no_shift, self.no_offset, self.no_gain = no_shift, no_offset, no_gain
        super().__init__(shape, **layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        word.refuse("n", "has no effect in NEMS and is not supported; remove it")
        letters = set("".join(word.flags("s", "o", "os", "g")))
        word.exclude("s", "os")
        word.exclude("o", "os")
        fixed = {"no_shift": "s", "no_offset": "o", "no_gain": "g"}
        return cls(word.shape(1), **{name: one not in letters for name, one in fixed.items()})

    def word_options(self) -> list[str]:
        """Return the options that `from_word` reads."""
        flags = {"s": self.no_shift, "o": self.no_offset, "g": self.no_gain}
        return [name for name, is_fixed in flags.items() if not is_fixed]

    def initial_parameters(self) -> Phi:
        """Return the parameters.

        Returns
        -------
        Phi
            The parameters shift, offset and gain; omitted ones are permanent, at 0, 0 and 1.
        """
        phi = Phi(
            Parameter("shift", self.shape, prior=Normal(0.05, 0.01)),
            Parameter("offset", self.shape, prior=Normal(-0.05, 0.01)),
            Parameter("gain", self.shape, prior=Normal(1, 0.01)),
        )
        for name, neutral in self.neutral.items():
            if getattr(self, f"no_{name}"):
                phi[name].make_permanent(neutral)
        return phi

    def nonlinearity(self, input):  # noqa: A002
        """Apply the nonlinearity.

        Parameters
        ----------
        input : Tensor of shape (n_samples, ..., n_channels)
            Rows of time.

        Returns
        -------
        Tensor of shape (n_samples, ..., n_channels)
            The output.
        """
        values = self.get_parameter_values(as_dict=True)
        # Parameters without effect, most often all three, would take most of the time.
        if tuple(input.shape[-1:]) == self.shape:
            values = {name: one for name, one in values.items() if not self._is_neutral(name)}
        output = self._curve(input + values["shift"] if "shift" in values else input)
        output = output * values["gain"] if "gain" in values else output
        return output + values["offset"] if "offset" in values else output

    def _is_neutral(self, name: str) -> bool:
        parameter = self[name]
        return parameter.is_permanent and bool((parameter.values == self.neutral[name]).all())

    def _curve(self, argument: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no _curve(self, argument).")


class RectifiedLinear(_ScaledNonlinearity):
    """Rectified linear unit: y = offset + gain max(x + shift, 0).

    Parameters
    ----------
    shape : tuple of int, default=None
        (n_channels,). None is inferred from the data.
    no_shift, no_offset, no_gain : bool, default=True
        Whether shift and offset are fixed at 0, and gain at 1.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    All priors are normal with a standard deviation of 0.01 and means of 0.05 for shift, -0.05 for
    offset and 1 for gain.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import RectifiedLinear
    >>> RectifiedLinear(shape=(1,)).evaluate(np.array([[-1], [2]])).ravel()
    array([0., 2.])
    """

    word = "relu"

    def _curve(self, argument: torch.Tensor) -> torch.Tensor:
        return torch.relu(argument)


ReLU = RectifiedLinear


class SoftRelu(_ScaledNonlinearity):
    """Smooth rectifier: y = offset + gain log(1 + exp(x + shift)).

    The priors are those of `RectifiedLinear`.

    Parameters
    ----------
    shape : tuple of int, default=None
        (n_channels,). None is inferred from the data.
    no_shift, no_offset, no_gain : bool, default=True
        Whether shift and offset are fixed at 0, and gain at 1.
    **layer_options
        Arguments of `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import SoftRelu
    >>> SoftRelu(shape=(1,)).evaluate(np.array([[-1000], [0], [30]])).ravel().round(3)
    array([ 0.   ,  0.693, 30.   ])
    """

    word = "srelu"

    def _start_values(self, mean, spread, wanted: WantedOutput) -> dict[str, np.ndarray]:
        """Map the mean input to the target level."""
        offset, gain = self._offset_and_gain(wanted)
        return {"offset": offset, "gain": gain, "shift": self._usual_input(wanted) - mean}

    def _invert(self, target: np.ndarray, wanted: WantedOutput) -> np.ndarray:
        """Invert linearly around the usual input, because the inverse curve is steep near zero."""
        _, gain = self._offset_and_gain(wanted)
        return (target - wanted.level) / gain + self._usual_input(wanted)

    def _usual_input(self, wanted: WantedOutput) -> np.ndarray:
        """Return the input that yields the target level."""
        offset, gain = self._offset_and_gain(wanted)
        share = np.maximum((wanted.level - offset) / gain, SMALLEST_SHARE)
        return share + np.log(-np.expm1(-share))

    def _offset_and_gain(self, wanted: WantedOutput) -> tuple[np.ndarray, np.ndarray]:
        offset, gain = self["offset"].values, self["gain"].values
        if not self["gain"].is_frozen:
            gain = wanted.size
        if not self["offset"].is_frozen:
            offset = np.minimum(wanted.low, wanted.level - wanted.size)
        return offset, np.where(gain == 0, 1.0, gain)

    def _curve(self, argument: torch.Tensor) -> torch.Tensor:
        return softplus(argument, threshold=LINEAR_FROM)


class _Saturating(_ScaledNonlinearity):
    """y = offset + gain (lowest + (1 - lowest) / (1 + exp(-steepness (x + shift))))."""

    saturates = True
    lowest: ClassVar[float]
    steepness: ClassVar[float]

    def _start_values(self, mean, spread, wanted: WantedOutput) -> dict[str, np.ndarray]:
        """Place the response range inside the curve, with the usual input at its mean."""
        offset, gain = self._offset_and_gain(wanted)
        middle = self._invert(wanted.level[np.newaxis], wanted)[0]
        return {"offset": offset, "gain": gain, "shift": middle - mean}

    def _invert(self, target: np.ndarray, wanted: WantedOutput) -> np.ndarray:
        offset, gain = self._offset_and_gain(wanted)
        share = ((target - offset) / gain - self.lowest) / (1 - self.lowest)
        share = np.clip(share, 1 - INSIDE, INSIDE)
        return np.log(share / (1 - share)) / self.steepness

    def _offset_and_gain(self, wanted: WantedOutput) -> tuple[np.ndarray, np.ndarray]:
        offset, gain = self["offset"].values, self["gain"].values
        if not self["gain"].is_frozen:
            gain = (wanted.high - wanted.low) / ((1 - self.lowest) * (2 * INSIDE - 1))
            gain = np.maximum(gain, wanted.size)
        if not self["offset"].is_frozen:
            offset = (wanted.low + wanted.high) / 2 - gain * (1 + self.lowest) / 2
        return offset, np.where(gain == 0, 1.0, gain)


class Sigmoid(_Saturating):
    """Logistic curve: y = offset + gain / (1 + exp(-(x + shift))).

    The priors are those of `RectifiedLinear`.

    Parameters
    ----------
    shape : tuple of int, default=None
        (n_channels,). None is inferred from the data.
    no_shift, no_offset, no_gain : bool, default=True
        Whether shift and offset are fixed at 0, and gain at 1.
    **layer_options
        Arguments of `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import Sigmoid
    >>> Sigmoid(shape=(1,)).evaluate(np.array([[-1000], [0], [1000]])).ravel()
    array([0. , 0.5, 1. ])
    """

    word = "sig"
    lowest, steepness = 0.0, 1.0

    def _curve(self, argument: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(argument)


class Tanh(_Saturating):
    """Hyperbolic tangent: y = offset + gain tanh(x + shift).

    The priors are those of `RectifiedLinear`.

    Parameters
    ----------
    shape : tuple of int, default=None
        (n_channels,). None is inferred from the data.
    no_shift, no_offset, no_gain : bool, default=True
        Whether shift and offset are fixed at 0, and gain at 1.
    **layer_options
        Arguments of `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import Tanh
    >>> Tanh(shape=(1,)).evaluate(np.array([[-1000], [0], [1000]])).ravel()
    array([-1., 0., 1.])
    """

    word = "tanh"
    lowest, steepness = -1.0, 2.0  # tanh(x) = -1 + 2 / (1 + exp(-2 x))

    def _curve(self, argument: torch.Tensor) -> torch.Tensor:
        return torch.tanh(argument)


class Hinge(StaticNonlinearity):
    """Leaky rectifier: y = z above zero and alpha z / 10 below, with z = x + shift.

    Parameters
    ----------
    shape : tuple of int, default=None
        (n_channels,). None is inferred from the data.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    Priors are normal, with a mean of 0.05 and a standard deviation of 0.01 for shift, and 0.1 and
    0.05 for alpha, within the bounds (0, inf).

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import Hinge
    >>> layer = Hinge(shape=(1,))
    >>> layer.set_parameter_values(shift=[0], alpha=[5])
    >>> layer.evaluate(np.array([[-2], [2]])).ravel()
    array([-1., 2.])
    """

    word = "prelu"
    unit_free = ("alpha",)
    neutral = MappingProxyType({"shift": 0.0})

    def initial_parameters(self) -> Phi:
        """Return the parameters.

        Returns
        -------
        Phi
            The parameters shift and alpha.
        """
        alpha = Parameter("alpha", self.shape, prior=Normal(0.1, 0.05), bounds=(0, np.inf))
        return Phi(Parameter("shift", self.shape, prior=Normal(0.05, 0.01)), alpha)

    def nonlinearity(self, input):  # noqa: A002
        """Apply the nonlinearity.

        Parameters
        ----------
        input : Tensor of shape (n_samples, ..., n_channels)
            Rows of time.

        Returns
        -------
        Tensor of shape (n_samples, ..., n_channels)
            The output.
        """
        shift, alpha = self.get_parameter_values("shift", "alpha")
        moved = input + shift
        return torch.where(moved > 0, moved, alpha / 10 * moved)


PReLU = Hinge


class LogCompress(StaticNonlinearity):
    """Logarithmic compression: y = log((x + d) / d), with d = 10^s.

    Here s equals shift between -2 and 2, and continues with a slope of 1 / 50 outside.

    Parameters
    ----------
    shape : tuple of int, default=None
        (n_channels,). None is inferred from the data.
    **layer_options
        Arguments of `Layer`.

    Notes
    -----
    The prior of shift is normal with a mean of 0 and a standard deviation of 0.02. The input must
    be larger than -d, as powers and amplitudes are; the output is NaN otherwise.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import LogCompress
    >>> LogCompress(shape=(1,)).evaluate(np.array([[0], [np.e - 1]])).ravel()
    array([0., 1.])
    """

    word = "dlog"
    unit_free = ("shift",)

    def initial_parameters(self) -> Phi:
        """Return the parameter.

        Returns
        -------
        Phi
            The parameter shift.
        """
        return Phi(Parameter("shift", self.shape, prior=Normal(0, 0.02)))

    def nonlinearity(self, input):  # noqa: A002
        """Compress.

        Parameters
        ----------
        input : Tensor of shape (n_samples, ..., n_channels)
            Rows of time.

        Returns
        -------
        Tensor of shape (n_samples, ..., n_channels)
            The output.
        """
        (shift,) = self.get_parameter_values("shift")
        within = shift.clamp(-2.0, 2.0)
        return torch.log1p(input / 10 ** (within + (shift - within) / 50))


class PowerCompress(Layer):
    """Fixed compression of magnitudes, such as the envelopes of a sound.

    Parameters
    ----------
    mode : {"sqrt", "log10x", None}, default="sqrt"
        "sqrt" is y = sqrt(abs(x)); "log10x" is y = log(1 + 10 max(x, 0)) / 2; None is y = x.
    **layer_options
        Arguments of `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.nems.layers import PowerCompress
    >>> PowerCompress("sqrt").evaluate(np.array([[4, 9]]))
    array([[2., 3.]])
    """

    word = "pow"
    n_past = 0
    keeps_channels = True

    def __init__(self, mode: str | None = "sqrt", **layer_options):
        if mode not in ("sqrt", "log10x", None):
            raise ValueError(f"mode must be 'sqrt', 'log10x' or None, but is {mode!r}.")
        if layer_options.get("shape") is not None:
            raise ValueError("PowerCompress has no parameters, so that it takes no shape.")
        self.mode = mode
        super().__init__(**layer_options)

    @classmethod
    def from_word(cls, word: Word) -> Layer:
        """Build the layer from a keyword; see `skdyn.nems.from_keywords`."""
        flags = word.flags("sqrt", "log10x", "none")
        word.exclude("sqrt", "log10x", "none")
        return cls("log10x" if "log10x" in flags else None if "none" in flags else "sqrt")

    def word_options(self) -> list[str]:
        """Return the mode."""
        return [self.mode or "none"]

    @on_tensors
    def evaluate(self, input):  # noqa: A002
        """Compress.

        Parameters
        ----------
        input : ndarray or Tensor of shape (n_samples, ...)
            Rows of time.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, ...)
            Output of the same shape.
        """
        if self.mode == "log10x":
            return torch.log1p(10 * torch.relu(input)) / 2
        if self.mode is None:
            return input.clone()
        size = input.abs()
        # The infinite slope at zero is replaced by zero.
        is_zero = size == 0
        return torch.where(is_zero, size, torch.where(is_zero, torch.ones_like(size), size).sqrt())
