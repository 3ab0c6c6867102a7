"""Common model architectures, as lists of layers, and their keywords."""

from __future__ import annotations

from functools import partial

from skdyn.nems.keywords import from_keywords, keyword
from skdyn.nems.layers.base import Layer, is_count
from skdyn.nems.words import PENALTY, WEIGHT_PENALTY, Word

# Keywords of final nonlinearities.
NONLINEARITIES = {"dexp": "dexp", "relu": "relu.s.o", "lvl": "lvl", None: ""}


def _sized(name: str, *sizes: int | None, options: str = "") -> str:
    """Return a keyword; sizes of None are omitted."""
    wrong = [size for size in sizes if not (size is None or is_count(size))]
    if wrong:
        raise ValueError(f"Sizes must be whole numbers of at least 1 or None, but are {wrong!r}.")
    return f"{name}.{'x'.join('' if size is None else str(size) for size in sizes)}{options}"


def _weights(*sizes: int | None, gaussian: bool = False) -> str:
    return _sized("wc", *sizes, options=".g" if gaussian else "")


def _filters(*sizes: int | None, stride: int = 1, include_anticausal: bool = False) -> str:
    options = (f".s{stride}" if stride != 1 else "") + (".ac" if include_anticausal else "")
    return _sized("fir", *sizes, options=options)


def _end(nonlinearity: str | None, n_outputs: int | None) -> list[str]:
    if nonlinearity not in NONLINEARITIES:
        raise ValueError(
            f"nonlinearity must be one of {list(NONLINEARITIES)}, but is {nonlinearity!r}. Add "
            "another layer to the list."
        )
    name, _, options = NONLINEARITIES[nonlinearity].partition(".")
    size = [] if n_outputs is None else [str(n_outputs)]
    return [".".join(filter(None, [name, *size, options]))] if name else []


# Keywords of layers with an l2.
PENALISED = ("wc", "fir", "gru")


def _made(words: list[str], l2: float | None, filter_l2: float | None) -> list[Layer]:
    """Build layers with separate penalties of filters and of other weights."""
    layers = from_keywords(*words)
    for layer, word in zip(layers, words, strict=True):
        penalty = filter_l2 if word.startswith("fir") else l2
        if penalty is not None and layer.word in PENALISED:
            layer.set_params(l2=penalty)
    return layers


def ln_strf(
    n_lags: int,
    n_channels: int | None = None,
    n_ranks: int | None = None,
    *,
    gaussian: bool = False,
    nonlinearity: str | None = "dexp",
    l2: float | None = None,
) -> list[Layer]:
    """Build a linear-nonlinear (LN) model of one neuron.

    Parameters
    ----------
    n_lags : int
        Number of lags of the filters.
    n_channels : int, default=None
        Number of channels of the stimulus; None infers it from the data.
    n_ranks : int, default=None
        Rank of the receptive field as a matrix of lags and channels; None for full rank.
    gaussian : bool, default=False
        Whether channel weights are Gaussian along the channel axis; requires a rank.
    nonlinearity : {"dexp", "relu", "lvl", None}, default="dexp"
        Final nonlinearity: `DoubleExponential`, `RectifiedLinear` with shift and offset,
        `LevelShift` or none.
    l2 : float, default=None
        Penalty of the receptive field; None uses the model's `alpha`.

    Returns
    -------
    list of Layer
        Layers for `NEMSRegressor` or `Model`.

    Examples
    --------
    >>> from skdyn.nems import ln_strf, to_keywords
    >>> to_keywords(ln_strf(15, 18, 2))
    'wc.18x2-fir.15x2-dexp'
    """
    end = _end(nonlinearity, None)
    if n_ranks is None:
        _refuse_gaussian(gaussian)
        return _made([_filters(n_lags, n_channels), *end], l2, l2)
    weights = _weights(n_channels, n_ranks, gaussian=gaussian)
    return _made([weights, _filters(n_lags, n_ranks), *end], l2, l2)


def _refuse_gaussian(gaussian: bool) -> None:
    if gaussian:
        raise ValueError("gaussian=True needs a number of ranks or filters; set it.")


def ln_population(
    n_lags: int,
    n_outputs: int | None = None,
    n_channels: int | None = None,
    n_ranks: int | None = None,
    *,
    shared: bool = True,
    gaussian: bool = False,
    nonlinearity: str | None = "dexp",
    stride: int = 1,
    include_anticausal: bool = False,
    l2: float | None = None,
    filter_l2: float | None = None,
) -> list[Layer]:
    """Build a linear-nonlinear (LN) model of a population of neurons.

    Parameters
    ----------
    n_lags : int
        Number of lags of the filters.
    n_outputs : int, default=None
        Number of neurons; None infers it from the data.
    n_channels : int, default=None
        Number of channels of the stimulus; None infers it from the data.
    n_ranks : int, default=None
        Number of filters that all neurons share, or rank of each receptive field; None for full
        rank.
    shared : bool, default=True
        Whether all neurons share the filters, with separate weights of their outputs.
    gaussian : bool, default=False
        Whether channel weights are Gaussian along the channel axis.
    nonlinearity : {"dexp", "relu", "lvl", None}, default="dexp"
        As in `ln_strf`.
    stride : int, default=1
        Step between predicted rows.
    include_anticausal : bool, default=False
        Whether lags include future rows.
    l2, filter_l2 : float, default=None
        Penalties of weights and of filters; None uses the model's `alpha`.

    Returns
    -------
    list of Layer
        Layers for `NEMSRegressor` or `Model`.

    Examples
    --------
    >>> from skdyn.nems import ln_population, to_keywords
    >>> to_keywords(ln_population(15, 60, 18, 12))
    'wc.18x1x12-fir.15x1x12-wc.12x60-dexp.60'
    >>> to_keywords(ln_population(15, 60, 18, 2, shared=False))
    'wc.18x2x60-fir.15x2x60-dexp.60'
    """
    filters = partial(_filters, n_lags, stride=stride, include_anticausal=include_anticausal)
    if n_ranks is None:
        _refuse_gaussian(gaussian)
        words = [filters(n_channels, n_outputs)]
    elif shared:
        words = [
            _weights(n_channels, 1, n_ranks, gaussian=gaussian),
            filters(1, n_ranks),
            _weights(n_ranks, n_outputs),
        ]
    else:
        words = [
            _weights(n_channels, n_ranks, n_outputs, gaussian=gaussian),
            filters(n_ranks, n_outputs),
        ]
    return _made([*words, *_end(nonlinearity, n_outputs)], l2, filter_l2)


def cnn_population(
    n_lags: int,
    n_outputs: int | None = None,
    n_channels: int | None = None,
    n_filters: int = 70,
    n_hidden: int | None = None,
    *,
    n_repeats: int = 1,
    gaussian: bool = False,
    nonlinearity: str | None = "dexp",
    stride: int = 1,
    include_anticausal: bool = False,
    l2: float | None = None,
    filter_l2: float | None = None,
) -> list[Layer]:
    """Build a convolutional network for a population of neurons.

    Parameters
    ----------
    n_lags : int
        Number of lags of the filters of each stage.
    n_outputs : int, default=None
        Number of neurons; None infers it from the data.
    n_channels : int, default=None
        Number of channels of the stimulus; None infers it from the data.
    n_filters : int, default=70
        Number of rectified filters of each stage.
    n_hidden : int, default=None
        Number of rectified units between the last filters and the neurons; None for no hidden
        layer.
    n_repeats : int, default=1
        Number of successive stages of filters.
    gaussian : bool, default=False
        Whether the first channel weights are Gaussian along the channel axis.
    nonlinearity : {"dexp", "relu", "lvl", None}, default="dexp"
        As in `ln_strf`.
    stride : int, default=1
        Step between output rows of the last filters.
    include_anticausal : bool, default=False
        Whether lags include future rows.
    l2, filter_l2 : float, default=None
        Penalties of weights and of filters; None uses the model's `alpha`.

    Returns
    -------
    list of Layer
        Layers for `NEMSRegressor` or `Model`.

    Notes
    -----
    After the 1-D networks of Pennington & David (2023, PLoS Computational Biology 19, e1011110).

    Examples
    --------
    >>> from skdyn.nems import cnn_population, to_keywords
    >>> to_keywords(cnn_population(15, 60, 18, 70, 80))
    'wc.18x1x70-fir.15x1x70-relu.70.s-wc.70x80-relu.80.s-wc.80x60-dexp.60'
    """
    if not is_count(n_repeats):
        raise ValueError(f"n_repeats must be a whole number of at least 1, but is {n_repeats!r}.")
    words = []
    for number in range(n_repeats):
        is_last = number == n_repeats - 1
        words += [
            _weights(
                n_filters if number else n_channels, 1, n_filters, gaussian=gaussian and not number
            ),
            _filters(
                n_lags,
                1,
                n_filters,
                stride=stride if is_last else 1,
                include_anticausal=include_anticausal,
            ),
            f"relu.{n_filters}.s",
        ]
    if n_hidden is not None:
        words += [_weights(n_filters, n_hidden), f"relu.{n_hidden}.s"]
    words.append(_weights(n_filters if n_hidden is None else n_hidden, n_outputs))
    return _made([*words, *_end(nonlinearity, n_outputs)], l2, filter_l2)


def reconstruction(
    n_lags: int,
    n_outputs: int | None = None,
    n_neurons: int | None = None,
    n_filters: int | None = None,
    n_hidden: int | None = None,
    *,
    nonlinearity: str | None = "lvl",
    l2: float | None = None,
) -> list[Layer]:
    """Build a decoder that reconstructs a stimulus from neural responses.

    Parameters
    ----------
    n_lags : int
        Number of lags of the filters, centred around the present.
    n_outputs : int, default=None
        Number of channels of the reconstructed stimulus; None infers it from the data.
    n_neurons : int, default=None
        Number of neurons of the input; None infers it from the data.
    n_filters : int, default=None
        Number of filters that all channels share; None for one filter per pair of neuron and
        channel.
    n_hidden : int, default=None
        Number of rectified units between rectified filters and channels; None for a linear map.
    nonlinearity : {"dexp", "relu", "lvl", None}, default="lvl"
        As in `ln_strf`.
    l2 : float, default=None
        Penalty of all weights and filters; None uses the model's `alpha`.

    Returns
    -------
    list of Layer
        Layers for `NEMSRegressor` or `Model`, with responses as X and the stimulus as y.

    Examples
    --------
    >>> from skdyn.nems import reconstruction, to_keywords
    >>> to_keywords(reconstruction(10, 18, 60))
    'fir.10x60x18.ac-lvl.18'
    """
    if n_filters is None:
        if n_hidden is not None:
            raise ValueError("n_hidden needs n_filters, whose outputs the hidden units weigh.")
        return ln_population(
            n_lags,
            n_outputs,
            n_neurons,
            nonlinearity=nonlinearity,
            include_anticausal=True,
            filter_l2=l2,
        )
    if n_hidden is None:
        return ln_population(
            n_lags,
            n_outputs,
            n_neurons,
            n_filters,
            nonlinearity=nonlinearity,
            include_anticausal=True,
            l2=l2,
            filter_l2=l2,
        )
    return cnn_population(
        n_lags,
        n_outputs,
        n_neurons,
        n_filters,
        n_hidden,
        nonlinearity=nonlinearity,
        include_anticausal=True,
        l2=l2,
        filter_l2=l2,
    )


def statenet_gru(
    n_outputs: int | None = None,
    n_channels: int | None = None,
    n_filters: int = 20,
    n_units: int = 40,
    *,
    n_lags: int = 5,
    nonlinearity: str | None = "dexp",
    l2: float | None = None,
) -> list[Layer]:
    """Build a recurrent network of gated units (GRU) for a population of neurons.

    Parameters
    ----------
    n_outputs : int, default=None
        Number of neurons; None infers it from the data.
    n_channels : int, default=None
        Number of channels of the stimulus; None infers it from the data.
    n_filters : int, default=20
        Number of rectified filters, the input of the recurrent units.
    n_units : int, default=40
        Number of recurrent units, see `GatedRecurrentUnit`.
    n_lags : int, default=5
        Number of lags of the filters.
    nonlinearity : {"dexp", "relu", "lvl", None}, default="dexp"
        As in `ln_strf`.
    l2 : float, default=None
        Penalty of all weights and filters; None uses the model's `alpha`.

    Returns
    -------
    list of Layer
        Layers for `NEMSRegressor` or `Model`.

    Notes
    -----
    The sequence of filters, recurrent units and a readout is that of the StateNet models of
    deepSTRF (https://deepstrf.readthedocs.io); sizes and details differ.

    Examples
    --------
    >>> from skdyn.nems import statenet_gru, to_keywords
    >>> to_keywords(statenet_gru(60, 34))
    'wc.34x1x20-fir.5x1x20-relu.20.s-gru.20x40-wc.40x60-dexp.60'
    """
    words = [
        _weights(n_channels, 1, n_filters),
        _filters(n_lags, 1, n_filters),
        f"relu.{n_filters}.s",
        _sized("gru", n_filters, n_units),
        _weights(n_units, n_outputs),
    ]
    return _made([*words, *_end(nonlinearity, n_outputs)], l2, l2)


# ---------------------------------------------------------------------------------- words


def _nonlinearity(word: Word, flags: set[str]) -> str:
    word.exclude("lvl", "dexp", "relu")
    return next((name for name in ("lvl", "relu") if name in flags), "dexp")


def _weight_penalty(word: Word) -> float | None:
    """Return the penalty of weights; .wl2:4 sets it without that of filters."""
    return word.penalty if word.weight_penalty is None else word.weight_penalty


@keyword("LN")
def _ln(word: Word) -> list[Layer]:
    flags = word.flags("g", "lvl", "dexp", "relu", PENALTY)
    n_lags, n_channels, n_ranks = _padded(word.shape(2, 3), 3)
    return ln_strf(
        word.known(n_lags),
        n_channels,
        n_ranks,
        gaussian="g" in flags,
        nonlinearity=_nonlinearity(word, flags),
        l2=word.penalty,
    )


@keyword("LNpop")
def _ln_population(word: Word) -> list[Layer]:
    flags = word.flags("g", "i", "lvl", "dexp", "relu", "ac", "s#", PENALTY, WEIGHT_PENALTY)
    n_lags, n_channels, n_outputs, n_ranks = _padded(word.shape(3, 4), 4)
    return ln_population(
        word.known(n_lags),
        n_outputs,
        n_channels,
        n_ranks,
        shared="i" not in flags,
        gaussian="g" in flags,
        nonlinearity=_nonlinearity(word, flags),
        stride=word.number("s", 1),
        include_anticausal="ac" in flags,
        l2=_weight_penalty(word),
        filter_l2=word.penalty,
    )


@keyword("CNNpop")
def _cnn_population(word: Word) -> list[Layer]:
    flags = word.flags("g", "lvl", "dexp", "relu", "ac", "c#", "s#", PENALTY, WEIGHT_PENALTY)
    n_lags, n_channels, n_outputs, n_filters, n_hidden = _padded(word.shape(3, 5), 5)
    return cnn_population(
        word.known(n_lags),
        n_outputs,
        n_channels,
        70 if n_filters is None else n_filters,
        n_hidden,
        n_repeats=word.number("c", 1),
        gaussian="g" in flags,
        nonlinearity=_nonlinearity(word, flags),
        stride=word.number("s", 1),
        include_anticausal="ac" in flags,
        l2=_weight_penalty(word),
        filter_l2=word.penalty,
    )


def _padded(sizes: tuple[int | None, ...], n: int) -> tuple[int | None, ...]:
    return (*sizes, *[None] * (n - len(sizes)))
