"""Models as keywords: "wc.18x3-fir.15x3-lvl.1-dexp.1".

Layers are separated by "-". The part before the first "." names the layer, and the rest are its
options. The first option made of numbers and "x" is the shape; an omitted size, as in "wc.x3" or
"lvl", is inferred from the data. `from_keywords` lists the words.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from skdyn.nems import layers as own_layers
from skdyn.nems.layers.base import Layer, is_equal
from skdyn.nems.model import free_name
from skdyn.nems.older_words import in_present_words
from skdyn.nems.words import SIZES, Word, list_of, nearest, penalty_option

# Functions that build a layer from a word, by word and by the option that selects a function.
WORDS: dict[str, dict[str, Callable[[Word], Layer | list[Layer]]]] = {}


def keyword(name: str) -> Callable:
    """Register a keyword for a layer class, or for a function that builds layers.

    Parameters
    ----------
    name : str
        The word, made of letters, digits and underscores; "wc.g" is the word "wc" with the option
        "g".

    Returns
    -------
    callable
        A decorator for a `Layer` with `from_word`, or for a function of a `Word` that returns a
        layer, or a list of layers.

    Examples
    --------
    >>> from skdyn.nems import Layer, from_keywords, keyword
    >>> @keyword("square")
    ... class Square(Layer):
    ...     def evaluate(self, values):
    ...         return values ** 2
    >>> from_keywords("wc.18x1-square")[1]
    Square(shape=None)
    ================================
    """
    if not re.fullmatch(r"[A-Za-z]\w*(\.\w+)?", name):
        raise ValueError(f"Invalid word {name!r}: use letters, digits and underscores.")

    def register(made):
        if isinstance(made, type):
            made.word = name  # type: ignore[attr-defined]
        head, _, option = name.partition(".")
        WORDS.setdefault(head, {})[option] = getattr(made, "from_word", made)
        return made

    return register


for _kind in own_layers.CLASSES:
    if vars(_kind).get("word"):
        keyword(_kind.word)(_kind)


def from_keywords(*texts: str) -> list[Layer]:
    """Build layers from keywords.

    Parameters
    ----------
    *texts : str
        Words, separated by "-" or as separate arguments.

    Returns
    -------
    list of Layer
        The layers, in order.

    Raises
    ------
    ValueError
        If a word or one of its options is unknown; the message suggests the closest one.

    Notes
    -----
    Keywords, with C channels, R ranks or sums, N filters or outputs, T lags, B banks, S states:

    =========================  =====================================================================
    wc.CxR, wc.CxRxN           `WeightChannels`; .n for norm_coefficients, .p for positive_only, .i
                               for input="input"
    wc.CxR.g, wc.CxRxN.g       `WeightChannelsGaussian`; .i
    wc.CxRxB.b                 `WeightChannelsMulti`; .n, .p, .i
    wge.CxN                    `GaussianExpansion`
    fir.TxR, fir.TxRxN         `FiniteImpulseResponse`; .s2 for stride=2, .ac for include_anticausal
    pz.TxR, pz.TxRxN           `PoleZeroFilter`; .p2 and .z1 for 2 poles and 1 zero, .fs50 for 50 Hz
                               instead of 100, .s2
    strf.CxT, strf.CxRxT,      `STRF`; .relu for the activation; .sk50 for skip_alpha=0.5, .skl50
    strf.CxRxTxN               for -0.5, which is added before the activation, .sk and .skl for 1
                               and -1; .s2 for stride=2
    conv2d.TxK, conv2d.TxKxN,  `Conv2d` over K channels, of P planes; .max, .min, .sum, .product,
    conv2d.TxKxPxN             .std, .stack, .cat for the pooling; .reflect, .nopad for the padding;
                               .s21 for strides of 2 in time and 1 over channels
    gru.CxN                    `GatedRecurrentUnit`
    stp.N                      `ShortTermPlasticity`; .fs50 for 50 Hz instead of 100
    stategain.SxN, sdexp.SxN,  `StateGain`, `StateDexp`, `StateHinge`; statehinge.m for match_sign
    statehinge.SxN
    hist.T, hist.TxN           `ResponseHistory`; .c for coupled
    lvl.N, dexp.N, dlog.N,     `LevelShift`, `DoubleExponential`, `LogCompress`, `Hinge`
    prelu.N
    relu.N, srelu.N, sig.N,    `RectifiedLinear`, `SoftRelu`, `Sigmoid`, `Tanh`; .s, .o, .g for a
    tanh.N                     shift, an offset, a gain that are fitted, .os for the first two
    bn.N, norm.N               `BatchNormalization`, `OutputNormalization`
    pow.sqrt, pow.log10x,      `PowerCompress`
    pow.none
    cat.a.b, sum.a.b,          `Concatenate`, `Sum`, `Multiply`, `MultiplyByExp` of inputs a and b
    mult.a.b, multexp.a.b      or, without names, of the previous outputs; cat.a.b.c.s for
                               sum_later
    skip.CxN.a.b               `ConcatSkip` of a and weighted sums of b
    sd.1.2                     `SwapDims`; 1.2 is the default
    np.sum.axis1               `NumPy`, with whole numbers as arguments
    LN.TxC, LN.TxCxR           `skdyn.nems.ln_strf`; .g, .lvl, .relu
    LNpop.TxCxN,               `skdyn.nems.ln_population`; .g, .i for fields of each neuron's own,
    LNpop.TxCxNxR              .lvl, .relu, .ac, .s2
    CNNpop.TxCxN, with xR or   `skdyn.nems.cnn_population` of R filters and H hidden units; .g,
    xRxH                       .lvl, .relu, .ac, .s2, .c2 for two stages of filters
    =========================  =====================================================================

    With wc (except .g), fir, strf, hist, conv2d, gru, skip and whole models, .l2:4 sets l2=10^-4;
    "d" is the decimal point, as in .l2:3d5 for 10^-3.5. In populations, .wl2:4 sets l2 of channel
    weights, but not of filters. A size of R, as in wc.120xR, is the number of outputs.

    Keywords in the notation of published models are supported, too: fir.25x120 between words of 120
    channels filters each channel separately, as fir.25x1x120; fir.2x15 after 2 channels is
    fir.15x2; fir.15x3.p2z1fs100 is pz.15x3.p2.z1.fs100; conv2d.10.8x3.rep3 is three rectified
    convolutions of 10 filters; wcn.90 weights all channels of the input.

    A second layer of the same name gets a number, as in wc1.

    Examples
    --------
    >>> from skdyn.nems import from_keywords
    >>> [type(layer).__name__ for layer in from_keywords("wc.x3-fir.15-lvl-dexp")]
    ['WeightChannels', 'FiniteImpulseResponse', 'LevelShift', 'DoubleExponential']
    """
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"text is {text!r}, but words such as 'wc.x1-lvl' were expected.")
    layers: list[Layer] = []
    for word in in_present_words([word for text in texts for word in text.split("-")]):
        for layer in _build(word):
            # Names must be unique in a model, which would otherwise copy these layers.
            layer.name = free_name(str(layer.name), layers)
            layers.append(layer)
    return layers


def _build(text: str) -> list[Layer]:
    """Return the layers of a word: one, or all layers of a whole model."""
    name, *options = text.strip().split(".")
    if name not in WORDS:
        if re.match("hrtf|applyhrtf|distanceatten", name):
            raise ValueError(
                f"The word {text!r} is of head-related transfer functions, which are not available."
            )
        raise ValueError(
            f"Unknown word {text!r}: expected one that begins with {list_of(sorted(WORDS))}."
            f"{nearest(name, WORDS)}"
        )
    if "" in options:
        raise ValueError(f"{text!r} has two points in a row, or ends with one; remove it.")
    sizes = next((option for option in options if SIZES.fullmatch(option)), None)
    if sizes is not None:
        options.remove(sizes)
    numbers = sizes and tuple(int(size) if size.isdigit() else None for size in sizes.split("x"))
    makers = WORDS[name]
    chosen = [option for option in options if option in makers]
    if len(chosen) > 1:
        raise ValueError(f"{text!r} has the options {list_of(chosen)}: at most one is possible.")
    rest = tuple(option for option in options if option not in chosen)
    variants = tuple(sorted(filter(None, makers)))
    made = makers["".join(chosen)](Word(text, name, numbers or None, rest, variants))
    if isinstance(made, Layer):
        made.name = made.name or name
        return [made]
    for layer in made:
        layer.name = layer.name or str(layer.word).partition(".")[0]
    return made


def to_keywords(layers: list[Layer]) -> str:
    """Convert layers to keywords.

    Parameters
    ----------
    layers : list of Layer
        Layers of classes with a keyword.

    Returns
    -------
    str
        Keywords from which `from_keywords` builds layers with the same shapes and options. Values
        of parameters are not included.

    Raises
    ------
    ValueError
        If keywords cannot express a layer, one of its options, inputs or outputs, its custom priors
        or bounds, or its frozen parameters.

    Examples
    --------
    >>> from skdyn.nems import to_keywords
    >>> from skdyn.nems.layers import FiniteImpulseResponse, WeightChannels
    >>> to_keywords([WeightChannels((18, 3), l2=1e-4), FiniteImpulseResponse((15, 3))])
    'wc.18x3.l2:4-fir.15x3'
    """
    return "-".join(map(_word_of, layers))


def _word_of(layer: Layer) -> str:
    word = vars(type(layer)).get("word")
    if word is None:
        known = sorted(kind.__name__ for kind in own_layers.CLASSES if vars(kind).get("word"))
        raise ValueError(
            f"A {type(layer).__name__} has no word; layers that have one are {list_of(known)}."
        )
    name, _, variant = word.partition(".")
    options = [variant, *layer.word_options(), penalty_option(layer.l2)]
    sizes = "x".join("" if size is None else str(size) for size in layer.shape or ())
    lost: list[str] = []
    # Missing sizes at the end are omitted, unless the shape has optional sizes.
    for shape in (sizes.rstrip("x") if None in (layer.shape or ()) else sizes, sizes):
        word = ".".join(filter(None, [name, shape, *options]))
        lost = _lost(layer, word)
        if not lost:
            return word
    said = {name: layer.get_params()[name] for name in lost}
    raise ValueError(
        f"A {type(layer).__name__} with {said} cannot be written as a word: {word!r} does not say "
        "that. Keep the layer itself."
    )


def _lost(layer: Layer, word: str) -> list[str]:
    """Return the names of arguments of a layer that its keyword does not express."""
    said = {k: v for k, v in layer.get_params().items() if k not in ("name", "values")}
    try:
        (made,) = from_keywords(word)
    except ValueError:
        return sorted(said)
    if layer.is_sized:
        made.set_params(shape=layer.shape)  # so that both have parameters
    found = made.get_params()
    return sorted(name for name in said if not is_equal(_plain(found[name]), _plain(said[name])))


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
