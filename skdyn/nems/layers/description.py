"""Properties of layers that models and fits rely on, with defaults for any layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from skdyn.nems.parameter import Parameter, Phi


@dataclass(frozen=True)
class KernelPart:
    """Contribution of a linear layer to kernels of lags and channels.

    A kernel is the sum over ranks of channel weights times a filter. A layer may contribute channel
    weights, a filter, or both.

    Attributes
    ----------
    sizes : tuple of int
        Sizes of the parameters' axes after the first one, which is channels or lags.
    n_channels : int, default=0
        Number of weighted channels; 0 for a layer without channel weights.
    n_lags, n_future : int
        Number of lags, and position of the first lag in rows after the present; negative if it lies
        before the present.
    stride : int, default=1
        Step between output rows.
    weights : tuple of Parameter, default=()
        Parameters of the channel weights.
    channel_weights : callable, default=None
        Function that returns the current channel weights, of shape (n_channels, *sizes).
    is_normed : bool, default=False
        Whether channel weights are divided by their root mean square.
    n_banks : int, default=1
        Number of banks. Channel c * n_banks + b belongs to bank b, the only input of filter b.
    profiles : ndarray of shape (n_channels, n_profiles), default=None
        Candidate channel weights, if the weights are constrained.
    settings : ndarray of shape (len(weights), n_profiles), default=None
        Parameter values of each profile.
    filters : Parameter, default=None
        Impulse responses, of shape (n_lags, *sizes).
    shift : Parameter, default=None
        Offset that is added to each filter's output.
    rectifies : bool, default=False
        Whether negative values are set to zero.
    skip : float, default=0.0
        Factor of the first channels, which are added to the outputs as a skip connection.
    """

    sizes: tuple[int, ...]
    n_channels: int = 0
    n_lags: int = 1
    n_future: int = 0
    stride: int = 1
    weights: tuple[Parameter, ...] = ()
    channel_weights: Callable[[], np.ndarray] | None = None
    is_normed: bool = False
    n_banks: int = 1
    profiles: np.ndarray | None = None
    settings: np.ndarray | None = None
    filters: Parameter | None = None
    shift: Parameter | None = None
    rectifies: bool = False
    skip: float = 0.0


@dataclass(frozen=True)
class WantedOutput:
    """Target statistics of a layer's output, each of shape (n_channels,).

    Attributes
    ----------
    level : ndarray
        The mean.
    low, high : ndarray
        A low and a high percentile.
    size : ndarray
        A typical positive size: the standard deviation or, if that is 0, the mean or 1.
    """

    level: np.ndarray
    low: np.ndarray
    high: np.ndarray
    size: np.ndarray


class LayerDescription:
    """Properties of a layer, with defaults that subclasses override."""

    # Properties of the computation of a class. A subclass that overrides the computation without
    # these properties falls back to the defaults.
    _OF_THE_COMPUTATION = ("level", "filter_sizes", "kernel_part", "neutral")

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if {"evaluate", "nonlinearity"} & set(vars(cls)):
            for name in set(LayerDescription._OF_THE_COMPUTATION) - set(vars(cls)):
                if hasattr(LayerDescription, name):
                    setattr(cls, name, getattr(LayerDescription, name))

    # Names of the penalised parameters; None for all.
    penalised: tuple[str, ...] | None = None

    # Names of the axes of parameters, for penalties along them: "lags", "channels".
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})

    # Names of the parameters with a scale that is independent of the units of the data.
    unit_free: tuple[str, ...] = ()

    # Whether each channel is mapped independently, so that the number of channels is kept.
    keeps_channels: ClassVar[bool] = False

    # Whether a fit starts near the identity, although channels interact.
    modulates: ClassVar[bool] = False

    # Names of parameters that describe the input. They are set at the start of a fit, even if they
    # are frozen, but not if they are permanent.
    statistics: ClassVar[tuple[str, ...]] = ()

    # Whether the number of channels is kept, although channels are not mapped independently.
    passes_outputs: ClassVar[bool] = False

    # Name of the parameter that is added to each channel, if the layer does nothing else.
    level: ClassVar[str | None] = None

    # Number of past and future rows that an output depends on; None if unknown.
    n_past: int | None = None
    n_future: int = 0

    # Lag of the first row of a filter's "coefficients", in samples; see `filter_sizes`.
    first_lag: int = 0

    # Number of concatenated trials of equal length; more than one only for layers that have
    # `joins_trials` or map each row independently.
    n_trials: int = 1
    joins_trials: ClassVar[bool] = False

    # Whether autograd is known to be exact for a class of the package; otherwise gradients are
    # compared with finite differences, as for custom classes.
    derivatives_are_sure: ClassVar[bool] = True

    # Values at which a nonlinearity neither shifts nor scales. Hidden units start from them in a
    # data-driven start; other parameters, and layers without any, keep their values.
    neutral: ClassVar[Mapping[str, float]] = MappingProxyType({})

    # Whether a nonlinearity saturates on both sides, so that inputs must lie near its centre.
    saturates: ClassVar[bool] = False

    @property
    def bends(self) -> bool:
        """Whether the layer does more than shift each channel.

        Returns
        -------
        bool
            True unless the layer has a `level`.
        """
        return self.level is None

    def filter_sizes(self) -> tuple[int, int, int] | None:
        """Return the sizes of an unconstrained linear filter of all channels.

        Returns
        -------
        tuple of int or None
            (n_lags, n_channels, n_outputs), the axes of "coefficients"; None, the default, for any
            other layer.
        """
        return None

    def kernel_part(self) -> KernelPart | None:
        """Describe the layer's contribution to linear kernels, for data-driven starts.

        Returns
        -------
        KernelPart or None
            None, the default, for a layer without such a contribution.
        """
        return None

    def start_from(
        self, random_state: np.random.RandomState, *inputs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Choose initial values from the inputs of the layer alone.

        Layers that describe kernels or keep channels have other starts, which take precedence.

        Parameters
        ----------
        random_state : RandomState
            Source of draws.
        *inputs : ndarray of shape (n_samples, ...)
            Inputs of the layer, trials concatenated.

        Returns
        -------
        dict of ndarray
            Values by name; other parameters keep theirs. Empty by default.
        """
        return {}

    def stand_in(self) -> Any:
        """Return an unconstrained layer that replaces this one in a data-driven start.

        Returns
        -------
        Layer or None
            None, the default, if no replacement is needed. Otherwise `resemble` is called
            afterwards.
        """
        return None

    def resemble(self, layer: Any, random_state: np.random.RandomState) -> None:
        """Set parameters to approximate the output of the replacement layer.

        Parameters
        ----------
        layer : Layer
            The layer that `stand_in` returned, with its values.
        random_state : RandomState
            Source of draws.
        """

    def start_values(
        self, mean: np.ndarray, spread: np.ndarray, wanted: WantedOutput
    ) -> dict[str, np.ndarray]:
        """Choose initial values of a layer that keeps channels.

        Parameters
        ----------
        mean, spread : ndarray of shape (n_channels,)
            Mean and standard deviation of the input; the latter may be 0.
        wanted : WantedOutput
            The target output.

        Returns
        -------
        dict of ndarray
            Values by name; other parameters keep theirs. Empty by default.
        """
        return {}

    def invert(self, target: np.ndarray, wanted: WantedOutput) -> np.ndarray:
        """Compute the input that yields a target output at `start_values`.

        Parameters
        ----------
        target : ndarray of shape (n_samples, n_channels)
            The target output.
        wanted : WantedOutput
            Statistics of the target output.

        Returns
        -------
        ndarray of shape (n_samples, n_channels)
            The input; by default the target itself.
        """
        return target


def check_given(given: Mapping[str, Any], layer: object) -> None:
    """Check the types of a layer's parameter arguments.

    Parameters
    ----------
    given : mapping
        parameters, priors, bounds, values, frozen and permanent.
    layer : Layer
        The layer; errors name its class.

    Raises
    ------
    TypeError
        If an argument has an invalid type.
    """
    kinds = {
        "parameters": (Phi, "a Phi"),
        **dict.fromkeys(("priors", "bounds", "values"), (Mapping, "a dict by name")),
        "frozen": (tuple | list | set | bool, "a tuple of names or a bool"),
        "permanent": (tuple | list | set, "a tuple of names"),
    }
    for name, (kind, words) in kinds.items():
        value = given[name]
        names = value if isinstance(value, list | tuple | set) else ()
        if value is not None and (
            not isinstance(value, kind) or not all(isinstance(one, str) for one in names)
        ):
            raise TypeError(
                f"{name} of a {type(layer).__name__} is {value!r}, but {words} was expected."
            )


def check_names(given: Mapping[str, Any], phi: Phi, layer: object) -> None:
    """Check that parameter arguments name existing parameters.

    Parameters
    ----------
    given : mapping
        priors, bounds, values, frozen and permanent.
    phi : Phi
        The parameters.
    layer : Layer
        The layer; errors name its class.

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    for option in ("priors", "bounds", "values", "frozen", "permanent"):
        names = given[option] or ()
        unknown = [] if isinstance(names, bool) else [one for one in names if one not in phi]
        if unknown:
            raise ValueError(
                f"{option} of a {type(layer).__name__} has the name {unknown[0]!r}, but its "
                f"parameters are {list(phi)}."
            )
