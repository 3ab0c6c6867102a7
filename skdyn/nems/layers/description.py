"""What layers say about themselves to models and fits; the defaults are those of any layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from skdyn.nems.parameter import Parameter, Phi


@dataclass(frozen=True)
class KernelPart:
    """The part that a linear layer has in kernels of lags and channels.

    A kernel is a sum, over ranks, of channel weights times a filter. Layers that only weigh
    channels, or only filter, have one of the two.

    Attributes
    ----------
    sizes : tuple of int
        Axes of the parameters behind the first one, that of channels or lags.
    n_channels : int, default=0
        Number of channels that are weighed; 0 for filters of what comes in.
    n_lags, n_future : int
        Number of lags, and how many rows after the present the first is; below 0 if it is before.
    stride : int, default=1
        Only each of so many rows comes out.
    weights : tuple of Parameter, default=()
        What describes the channel weights.
    channel_weights : callable, default=None
        Returns the present channel weights, of shape (n_channels, *sizes).
    is_normed : bool, default=False
        Whether channel weights are divided by their root mean square.
    n_banks : int, default=1
        Channel c * n_banks + b belongs to bank b, which goes into filter b alone.
    profiles : ndarray of shape (n_channels, n_profiles), default=None
        Channel weights that can be chosen, where not every number is free.
    settings : ndarray of shape (len(weights), n_profiles), default=None
        What to set the parameters to for each profile.
    filters : Parameter, default=None
        Impulse responses, of shape (n_lags, *sizes).
    shift : Parameter, default=None
        What is added to each filter's output.
    rectifies : bool, default=False
        Whether what is below zero is cut off.
    skip : float, default=0.0
        Factor of the first channels, which are added to the outputs.
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
    """Numbers that describe what is to come out of a layer, each of shape (n_channels,).

    Attributes
    ----------
    level : ndarray
        Mean.
    low, high : ndarray
        Percentiles near both ends.
    size : ndarray
        A typical size that is positive: the standard deviation or, if that is 0, the mean or 1.
    """

    level: np.ndarray
    low: np.ndarray
    high: np.ndarray
    size: np.ndarray


class LayerDescription:
    """What a layer says about itself; each subclass overrides what it knows better."""

    # What is said of the computation of a class; a subclass that computes something else, and does
    # not say these anew, has the defaults.
    _OF_THE_COMPUTATION = ("level", "filter_sizes", "kernel_part", "neutral")

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if {"evaluate", "nonlinearity"} & set(vars(cls)):
            for name in set(LayerDescription._OF_THE_COMPUTATION) - set(vars(cls)):
                if hasattr(LayerDescription, name):
                    setattr(cls, name, getattr(LayerDescription, name))

    # Names of the parameters that count in a penalty; None for all.
    penalised: tuple[str, ...] | None = None

    # Names of the axes of parameters, for penalties along them: "lags", "channels".
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})

    # Names of the parameters whose usual size has nothing to do with the units of the data.
    unit_free: tuple[str, ...] = ()

    # Whether each channel is mapped on its own, so that as many come out as go in.
    keeps_channels: ClassVar[bool] = False

    # Whether a fit starts where about what goes in comes out, though others matter, too.
    modulates: ClassVar[bool] = False

    # Names of parameters that describe what goes in, and are set where a fit starts, also if they
    # are frozen, but not if they are permanent.
    statistics: ClassVar[tuple[str, ...]] = ()

    # Whether as many channels come out as go in, although they are not all mapped on their own.
    passes_outputs: ClassVar[bool] = False

    # Name of the parameter that is added to each channel, of a layer that does nothing else.
    level: ClassVar[str | None] = None

    # How many rows of the past and of the future count for an output; None if that is not known.
    n_past: int | None = None
    n_future: int = 0

    # Lag of the first row of a filter's "coefficients", in samples; see `filter_sizes`.
    first_lag: int = 0

    # How many trials of equal length come as one array; only layers that have `joins_trials`, or
    # that map each row by itself, are ever given more than one.
    n_trials: int = 1
    joins_trials: ClassVar[bool] = False

    # Whether torch finds the right derivatives of what a class of the package computes; otherwise
    # they are compared with finite differences, as those of other classes are.
    derivatives_are_sure: ClassVar[bool] = True

    # Values at which a nonlinearity neither moves nor scales. Hidden units get these where a fit
    # starts at the data; other parameters, and layers without any, stay as they are.
    neutral: ClassVar[Mapping[str, float]] = MappingProxyType({})

    # Whether a nonlinearity is flat on both sides, so that inputs must not be far from its middle.
    saturates: ClassVar[bool] = False

    @property
    def bends(self) -> bool:
        """Whether the layer is more than a shift of each channel.

        Returns
        -------
        bool
            True unless the layer has a `level`.
        """
        return self.level is None

    def filter_sizes(self) -> tuple[int, int, int] | None:
        """Sizes of the layer, if it is one linear filter of all channels that may take any values.

        Returns
        -------
        tuple of int or None
            (n_lags, n_channels, n_outputs); then "coefficients" are the impulse responses, in
            that order. None, by default, for a layer of another kind.
        """
        return None

    def kernel_part(self) -> KernelPart | None:
        """Describe the part that the layer has in linear kernels, for starts at the data.

        Returns
        -------
        KernelPart or None
            None, by default, for a layer that has none.
        """
        return None

    def start_from(
        self, random_state: np.random.RandomState, *inputs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Choose values to start a fit from, by what goes into the layer alone.

        Layers that describe kernels or keep channels have other starts, which come before.

        Parameters
        ----------
        random_state : RandomState
            Source of draws.
        *inputs : ndarray of shape (n_samples, ...)
            What goes into the layer, trials one after the other.

        Returns
        -------
        dict of ndarray
            By name; parameters that are left out keep their values. By default empty.
        """
        return {}

    def stand_in(self) -> Any:
        """Make a layer of free values that stands in for this one where a fit starts at the data.

        Returns
        -------
        Layer or None
            None, by default, if none is needed. Otherwise `resemble` follows.
        """
        return None

    def resemble(self, layer: Any, random_state: np.random.RandomState) -> None:
        """Set parameters so that about the same comes out as of the layer that stood in.

        Parameters
        ----------
        layer : Layer
            What `stand_in` made, with its values.
        random_state : RandomState
            Source of draws.
        """

    def start_values(
        self, mean: np.ndarray, spread: np.ndarray, wanted: WantedOutput
    ) -> dict[str, np.ndarray]:
        """Choose values of the parameters to start a fit from, of a layer that keeps channels.

        Parameters
        ----------
        mean, spread : ndarray of shape (n_channels,)
            Mean and standard deviation of what comes in; the latter may be 0.
        wanted : WantedOutput
            What is to come out.

        Returns
        -------
        dict of ndarray
            By name; parameters that are left out keep their values. By default empty.
        """
        return {}

    def invert(self, target: np.ndarray, wanted: WantedOutput) -> np.ndarray:
        """Compute what should come in, of a layer that starts at `start_values`.

        Parameters
        ----------
        target : ndarray of shape (n_samples, n_channels)
            What is to come out.
        wanted : WantedOutput
            Numbers that describe it.

        Returns
        -------
        ndarray of shape (n_samples, n_channels)
            By default the same.
        """
        return target


def check_given(given: Mapping[str, Any], layer: object) -> None:
    """Check the types of what a layer is given for its parameters.

    Parameters
    ----------
    given : mapping
        parameters, priors, bounds, values, frozen and permanent.
    layer : Layer
        Its class is named in errors.

    Raises
    ------
    TypeError
        If one has another type than it may have.
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
    """Check that what a layer is given names its parameters.

    Parameters
    ----------
    given : mapping
        priors, bounds, values, frozen and permanent.
    phi : Phi
        The parameters.
    layer : Layer
        Its class is named in errors.

    Raises
    ------
    ValueError
        If there is no parameter of a name.
    """
    for option in ("priors", "bounds", "values", "frozen", "permanent"):
        names = given[option] or ()
        unknown = [] if isinstance(names, bool) else [one for one in names if one not in phi]
        if unknown:
            raise ValueError(
                f"{option} of a {type(layer).__name__} has the name {unknown[0]!r}, but its "
                f"parameters are {list(phi)}."
            )
