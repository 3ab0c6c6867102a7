"""From what an estimator is given as its layers to a model."""

from __future__ import annotations

from skdyn.nems.keywords import from_keywords
from skdyn.nems.layers.base import Layer
from skdyn.nems.layers.channels import WeightChannels, WeightChannelsGaussian
from skdyn.nems.layers.filters import STRF, FiniteImpulseResponse
from skdyn.nems.layers.nonlinearities import StaticNonlinearity
from skdyn.nems.model import Model

# A linear map of each row: which number of lags suits depends on the sampling rate.
DEFAULT_LAYERS = "wc-lvl"

# How many sizes the shapes of layers have of which the last is the number of outputs.
_SIZES_WITH_OUTPUTS: dict[type[Layer], tuple[int, ...]] = {
    WeightChannels: (2, 3),
    WeightChannelsGaussian: (2, 3),
    FiniteImpulseResponse: (3,),
    STRF: (4,),
}


def has_names(layers) -> bool:
    """Tell whether layers come with names.

    Parameters
    ----------
    layers : object
        What an estimator is given.

    Returns
    -------
    bool
        Whether it is a list of pairs of a name and something else.
    """
    return (
        isinstance(layers, list)
        and bool(layers)
        and all(
            isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) for one in layers
        )
    )


def build_model(layers, n_outputs: int) -> Model:
    """Make a model of copies of layers.

    Parameters
    ----------
    layers : str, list of Layer, list of (str, Layer) or None
        What an estimator is given.
    n_outputs : int
        How many outputs there are, for layers that leave it open.

    Returns
    -------
    Model
        Not fitted.

    Raises
    ------
    ValueError
        If it is something else, or empty.
    """
    layers = DEFAULT_LAYERS if layers is None else layers
    if isinstance(layers, str):
        model = Model(from_keywords(layers))
    else:
        named = has_names(layers)
        given = [layer for _, layer in layers] if named else list(layers)
        if not given or not all(isinstance(layer, Layer) for layer in given):
            raise ValueError(
                f"Got layers={layers!r}, expected words, a list of layers, or a list of (name, "
                "layer) pairs; give at least one."
            )
        copies = [layer.copy() for layer in given]
        if named:
            for (name, _), layer in zip(layers, copies, strict=True):
                layer.name = name
        model = Model(copies)
    _take_output_size(model, n_outputs)
    return model


def _take_output_size(model: Model, n_outputs: int) -> None:
    """Where the last layer that can change the number of outputs leaves it open, set it.

    So also in channel weights right before filters that have channels of their own.
    """
    others = [layer for layer in model.layers if not isinstance(layer, StaticNonlinearity)]
    for layer in others[::-1]:
        shape: tuple = layer.shape or ()
        sizes = next((n for kind, n in _SIZES_WITH_OUTPUTS.items() if isinstance(layer, kind)), ())
        if len(shape) not in sizes:
            return
        if shape[-1] is None:
            layer.shape = (*shape[:-1], n_outputs)
        if not (isinstance(layer, FiniteImpulseResponse) and shape[1] is not None):
            return
