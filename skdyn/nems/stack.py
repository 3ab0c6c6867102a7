"""Layers in order, and their parameters all together."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Self

import numpy as np

from skdyn.nems.distributions import as_generator
from skdyn.nems.layers.base import Layer


def free_name(name: str, layers: Iterable[Layer]) -> str:
    """Find a name that no layer has.

    Parameters
    ----------
    name : str
        The name that is wanted.
    layers : iterable of Layer
        Layers that have names.

    Returns
    -------
    str
        That name, or with another number at its end.
    """
    # In what is told of all layers, "model" stands for all of them.
    taken = {layer.name for layer in layers} | {"model"}
    if name not in taken:
        return name
    stem = re.sub(r"\d+$", "", name) or name
    return next(n for n in (f"{stem}{i}" for i in range(1, len(taken) + 2)) if n not in taken)


@contextmanager
def _all_or_none(layers: Iterable[Layer]) -> Iterator[None]:
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.parameters.all_or_none())
        yield


class LayerList(Sequence):
    """The layers of a model, by place or by name.

    Parameters
    ----------
    layers : list of Layer
        The layers, each with a name of its own.
    """

    def __init__(self, layers: list[Layer]):
        self._layers = layers

    def __getitem__(self, key):
        if isinstance(key, str):
            names = [layer.name for layer in self._layers]
            if key not in names:
                raise KeyError(f"{key!r}; the layers are {names}")
            return self._layers[names.index(key)]
        if isinstance(key, slice):
            return LayerList(self._layers[key])
        if isinstance(key, list | tuple):
            return LayerList([self[one] for one in key])
        return self._layers[key]

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self._layers))

    def __str__(self) -> str:
        return "\n\n".join(map(str, self._layers))


class LayerStack:
    """Layers in order.

    Parameters
    ----------
    layers : iterable of Layer
        The layers, first to last.

    Attributes
    ----------
    layers : LayerList
        The layers, by place or by name.
    """

    def __init__(self, layers=()):
        self._layers: list[Layer] = []
        self.add_layers(*layers)

    # ------------------------------------------------------------------------------ layers

    @property
    def layers(self) -> LayerList:
        """The layers, by place or by name.

        Returns
        -------
        LayerList
            First to last.
        """
        return LayerList(self._layers)

    def add_layers(self, *layers: Layer) -> Self:
        """Put layers at the end.

        Parameters
        ----------
        *layers : Layer
            Layers, which become part of the model. One without a name gets that of its class, with
            a number if another has it. One whose own name is taken goes in as a copy of another
            name, so that what you hold, and a model that it is in already, stay as they are; the
            copy is among `layers`.

        Returns
        -------
        LayerStack
            This one.
        """
        return self.insert_layers(len(self._layers), *layers)

    def insert_layers(self, index: int, *layers: Layer) -> Self:
        """Put layers before one that is there.

        Parameters
        ----------
        index : int
            Place of the first of them.
        *layers : Layer
            Layers, as in `add_layers`.

        Returns
        -------
        LayerStack
            This one.
        """
        # All are looked at first, so that an error leaves the model as it was.
        for number, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(
                    f"Got {layer!r} of type {type(layer).__name__} as a layer, expected a Layer."
                )
            if any(layer is other for other in (*self._layers, *layers[:number])):
                raise ValueError(
                    f"Got the layer {layer.name!r}, which is in this model already; add a copy()."
                )
        for place, layer in enumerate(layers, start=len(self._layers[:index])):
            name = free_name(layer.name or type(layer).__name__, self._layers)
            own = layer.copy() if layer.name and layer.name != name else layer
            own.name = name
            self._layers.insert(place, own)
        return self

    # -------------------------------------------------------------------------- parameters

    def get_parameter_values(self) -> dict[str, dict[str, np.ndarray]]:
        """Values of all parameters.

        Returns
        -------
        dict of dict of ndarray
            By name of the layer, then of the parameter.
        """
        return {str(x.name): x.get_parameter_values(as_dict=True) for x in self._layers}

    def set_parameter_values(self, values: dict, *, ignore_bounds: bool = False) -> None:
        """Set values of parameters.

        Parameters
        ----------
        values : dict of dict of array-like
            By name of the layer, then of the parameter.
        ignore_bounds : bool, default=False
            Whether values may lie outside their bounds.
        """
        with _all_or_none(self.layers[name] for name in values):
            for name, named in values.items():
                self.layers[name].set_parameter_values(named, ignore_bounds=ignore_bounds)

    def get_parameter_vector(self) -> np.ndarray:
        """All values that are not frozen, one after the other.

        Returns
        -------
        ndarray of shape (n_free,)
            Copies.
        """
        return np.concatenate([np.zeros(0), *(x.parameters.get_vector() for x in self._layers)])

    def set_parameter_vector(self, vector, *, ignore_bounds: bool = False) -> None:
        """Set all values that are not frozen.

        Parameters
        ----------
        vector : array-like of shape (n_free,)
            As `get_parameter_vector` gives it.
        ignore_bounds : bool, default=False
            Whether values may lie outside their bounds.
        """
        vector = np.asarray(vector, dtype=float)
        sizes = [len(layer.parameters.get_vector()) for layer in self._layers]
        if vector.shape != (sum(sizes),):
            raise ValueError(
                f"Got a vector of shape {vector.shape}, expected ({sum(sizes)},), the number of "
                "values that are not frozen."
            )
        parts = np.split(vector, np.cumsum(sizes)[:-1])
        with _all_or_none(self._layers):
            for layer, part in zip(self._layers, parts, strict=True):
                layer.parameters.set_vector(part, ignore_bounds=ignore_bounds)

    def get_bounds_vector(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of all values that are not frozen.

        Returns
        -------
        low, high : ndarray of shape (n_free,)
            Infinite where there is none.
        """
        pairs = [layer.parameters.get_bounds() for layer in self._layers]
        low, high = (
            np.concatenate([np.zeros(0), *(pair[side] for pair in pairs)]) for side in (0, 1)
        )
        return low, high

    def sample_from_priors(self, n_copies: int | None = None, random_state=None):
        """Copy the model, with values drawn from the priors; frozen ones stay.

        Parameters
        ----------
        n_copies : int, default=None
            How many copies; None for one.
        random_state : int, Generator, RandomState or None, default=None
            Where the randomness comes from; None takes fresh entropy.

        Returns
        -------
        LayerStack or list of LayerStack
            The copies.
        """
        random = as_generator(random_state)
        models = [self.copy() for _ in range(1 if n_copies is None else n_copies)]
        for model in models:
            for layer in model.layers:
                layer.sample_from_priors(random)
        return models[0] if n_copies is None else models

    def mean_of_priors(self) -> Self:
        """Copy the model, with values at the means of the priors; frozen ones stay.

        Returns
        -------
        LayerStack
            The copy.
        """
        model = self.copy()
        for layer in model.layers:
            layer.mean_of_priors()
        return model

    def freeze_layers(self, *names: str) -> None:
        """Keep all values of some layers in fits and draws.

        Parameters
        ----------
        *names : str
            Which; none for all.
        """
        for layer in self._chosen(names):
            layer.freeze_parameters()

    def unfreeze_layers(self, *names: str) -> None:
        """Let fits and draws change the values of some layers, unless they are permanent.

        Parameters
        ----------
        *names : str
            Which; none for all.
        """
        for layer in self._chosen(names):
            layer.unfreeze_parameters()

    def _chosen(self, names: tuple[str, ...]) -> list[Layer]:
        return [self.layers[name] for name in names] if names else self._layers

    @property
    def parameter_info(self) -> dict[str, dict[str, int]]:
        """How many numbers there are.

        Returns
        -------
        dict of dict of int
            total, unfrozen, frozen and permanent, by name of the layer, and all together, "model".
        """
        info = {str(layer.name): layer.parameter_info for layer in self._layers}
        keys = ("total", "unfrozen", "frozen", "permanent")
        return {**info, "model": {key: sum(one[key] for one in info.values()) for key in keys}}

    def copy(self):
        """Copy, deep.

        Returns
        -------
        LayerStack
            With layers of its own.
        """
        return copy.deepcopy(self)

    def __sklearn_clone__(self):
        return self.copy()

    def __eq__(self, other) -> bool:
        return type(self) is type(other) and self._layers == other._layers

    __hash__ = None  # type: ignore[assignment]
