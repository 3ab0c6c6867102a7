"""Models written as words: "wc.18x3-fir.15x3-lvl.1-dexp.1".

Layers are separated by "-". What stands before the first "." says which layer it is, and the rest
are its options. The first option that is made of numbers and "x" is the shape; a size that is left
out, as in "wc.x3" or "lvl", is taken from the data. `from_keywords` lists the words.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from skdyn.nems.layers.algebra import Concatenate, Multiply, Sum
from skdyn.nems.layers.base import Layer
from skdyn.nems.layers.channels import (
    WeightChannels,
    WeightChannelsGaussian,
    WeightChannelsMulti,
)
from skdyn.nems.layers.filters import STRF, FiniteImpulseResponse
from skdyn.nems.layers.nonlinearities import (
    DoubleExponential,
    Hinge,
    LevelShift,
    LogCompress,
    RectifiedLinear,
    Sigmoid,
    SoftRelu,
    Tanh,
)
from skdyn.nems.stack import free_name
from skdyn.nems.wiring import INPUT
from skdyn.nems.words import PENALTY, Word, list_of, nearest, penalty_option

SIZES = re.compile(r"\d*(x\d*)*")

WORDS: dict[str, Callable[[Word], Layer]] = {}


def keyword(name: str) -> Callable:
    """Make a word of a function that builds a layer.

    Parameters
    ----------
    name : str
        The word, of letters, digits and underscores.

    Returns
    -------
    callable
        A decorator for a function of a `Word` that gives a layer.

    Examples
    --------
    >>> from skdyn.nems import Layer, from_keywords, keyword
    >>> class Square(Layer):
    ...     def evaluate(self, values):
    ...         return values ** 2
    >>> @keyword("square")
    ... def square(word):
    ...     return Square()
    >>> from_keywords("wc.18x1-square")[1]
    Square(shape=None)
    ================================
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise ValueError(f"Got the word {name!r}, expected letters, digits and underscores.")

    def register(build):
        WORDS[name] = build
        return build

    return register


def from_keywords(*texts: str) -> list[Layer]:
    """Make layers from words.

    Parameters
    ----------
    *texts : str
        Words separated by "-", or one at a time.

    Returns
    -------
    list of Layer
        In order.

    Raises
    ------
    ValueError
        If a word or one of its options is not known; it names the nearest one.

    Notes
    -----
    The words, with C channels, R ranks or sums, N filters or outputs, T lags, B banks:

    =========================  =====================================================================
    wc.CxR, wc.CxRxN           `WeightChannels`; .n for norm_coefficients, .p for positive_only, .i
                               for input="input"
    wc.CxR.g, wc.CxRxN.g       `WeightChannelsGaussian`; .i
    wc.CxRxB.b                 `WeightChannelsMulti`; .n, .p, .i
    fir.TxR, fir.TxRxN         `FiniteImpulseResponse`; .s2 for stride=2, .ac for include_anticausal
    strf.CxT, strf.CxRxT,      `STRF`; .relu for the activation; .sk50 for skip_alpha=0.5, .skl50
    strf.CxRxTxN               for -0.5, which is added before the activation, .sk and .skl for 1
                               and -1; .s2 for stride=2
    lvl.N, dexp.N, dlog.N,     `LevelShift`, `DoubleExponential`, `LogCompress`, `Hinge`
    prelu.N
    relu.N, srelu.N, sig.N,    `RectifiedLinear`, `SoftRelu`, `Sigmoid`, `Tanh`; .s, .o, .g for a
    tanh.N                     shift, an offset, a gain that are fitted, .os for the first two
    cat.a.b, sum.a.b,          `Concatenate`, `Sum`, `Multiply` of what is called a and b, or,
    mult.a.b                   without names, of what comes from before; cat.a.b.c.s for sum_later
    =========================  =====================================================================

    With wc (but for .g), fir and strf, .l2:4 sets l2=10^-4; "d" stands for the point, as in .l2:3d5
    for 10^-3.5.

    A second layer of one name gets a number, as in wc1.

    Examples
    --------
    >>> from skdyn.nems import from_keywords
    >>> [type(layer).__name__ for layer in from_keywords("wc.x3-fir.15-lvl-dexp")]
    ['WeightChannels', 'FiniteImpulseResponse', 'LevelShift', 'DoubleExponential']
    """
    layers: list[Layer] = []
    for word in (word for text in texts for word in text.split("-")):
        layer = _build(word)
        # Two of one name could not be in one model; this way it takes these very layers.
        layer.name = free_name(str(layer.name), layers)
        layers.append(layer)
    return layers


def _build(text: str) -> Layer:
    name, *options = text.strip().split(".")
    if name not in WORDS:
        raise ValueError(
            f"Got the word {text!r}, expected one that begins with {list_of(sorted(WORDS))}."
            f"{nearest(name, WORDS)}"
        )
    if "" in options:
        raise ValueError(
            f"Got the word {text!r}, expected something after each point; do take one of them out."
        )
    sizes = next((option for option in options if SIZES.fullmatch(option)), None)
    if sizes is not None:
        options.remove(sizes)
    numbers = sizes and tuple(int(size) if size else None for size in sizes.split("x"))
    layer = WORDS[name](Word(text, name, numbers or None, tuple(options)))
    if layer.name is None:
        layer.name = name
    return layer


# ------------------------------------------------------------------------------ the words


def _refuse(word: Word, pattern: str, reason: str) -> None:
    for option in word.options:
        if re.fullmatch(pattern, option):
            raise ValueError(f"Got the option {option!r} in the word {word.text!r}, {reason}.")


@keyword("wc")
def _weight_channels(word: Word) -> Layer:
    flags = word.flags("g", "n", "p", "i", "b", PENALTY)
    options = {"input": INPUT if "i" in flags else None, "l2": word.penalty}
    if "g" in flags:
        for other in ("n", "p", "b", PENALTY):
            word.exclude("g", other)
        return WeightChannelsGaussian(word.shape(2, 3), input=options["input"])
    kind = WeightChannelsMulti if "b" in flags else WeightChannels
    shape = word.shape(3) if "b" in flags else word.shape(2, 3)
    return kind(shape, norm_coefficients="n" in flags, positive_only="p" in flags, **options)


@keyword("fir")
def _finite_impulse_response(word: Word) -> Layer:
    _refuse(
        word,
        r"[pz]\d.*",
        "which asks for filters made of poles and zeros, expected one whose coefficients are free, "
        "as there are no others here; do leave it out",
    )
    flags = word.flags("s#", "ac", PENALTY)
    return FiniteImpulseResponse(
        word.shape(2, 3),
        stride=word.number("s", 1),
        include_anticausal="ac" in flags,
        l2=word.penalty,
    )


@keyword("strf")
def _strf(word: Word) -> Layer:
    flags = word.flags("relu", "sk", "sk#", "skl", "skl#", "s#", PENALTY)
    word.exclude("sk", "sk#", "skl", "skl#")
    after = 100 if "sk" in flags else word.number("sk", 0)
    before = 100 if "skl" in flags else word.number("skl", 0)
    return STRF(
        word.shape(2, 4),
        skip_alpha=(after - before) / 100,
        activation="relu" if "relu" in flags else None,
        stride=word.number("s", 1),
        l2=word.penalty,
    )


_PLAIN = {"lvl": LevelShift, "dexp": DoubleExponential, "dlog": LogCompress, "prelu": Hinge}
_SCALED = {"relu": RectifiedLinear, "srelu": SoftRelu, "sig": Sigmoid, "tanh": Tanh}


def _plain(kind: type[Layer]) -> Callable[[Word], Layer]:
    def build(word: Word) -> Layer:
        word.flags()
        return kind(word.shape(1))

    return build


def _scaled(kind: Callable[..., Layer]) -> Callable[[Word], Layer]:
    def build(word: Word) -> Layer:
        _refuse(
            word, "n", "which NEMS reads and drops, expected none of that name; do leave it out"
        )
        letters = set("".join(word.flags("s", "o", "os", "g")))
        fixed = {"no_shift": "s", "no_offset": "o", "no_gain": "g"}
        options = {name: letter not in letters for name, letter in fixed.items()}
        return kind(word.shape(1), **options)

    return build


for _name, _kind in _PLAIN.items():
    keyword(_name)(_plain(_kind))
for _name, _other in _SCALED.items():
    keyword(_name)(_scaled(_other))


def _of_streams(kind: Callable[..., Layer]) -> Callable[[Word], Layer]:
    def build(word: Word) -> Layer:
        names, options = list(word.pieces), {}
        for name in names:
            # What begins with x, as x1 does, may well be a name.
            if name[0].isdigit() and SIZES.fullmatch(name):
                raise ValueError(
                    f"Got the size {name!r} in the word {word.text!r}, expected names of data or "
                    "outputs; do leave it out."
                )
        if kind is Concatenate and names[-1:] == ["s"]:
            names, options = names[:-1], {"sum_later": True}
        return kind(input=names or None, **options)

    return build


for _name, _joins in {"cat": Concatenate, "sum": Sum, "mult": Multiply}.items():
    keyword(_name)(_of_streams(_joins))


# ------------------------------------------------------------------------- back to words


def _letters(**flags: bool) -> list[str]:
    return [name for name, is_set in flags.items() if is_set]


def _stride(layer) -> str:
    return f"s{layer.stride}" if layer.stride > 1 else ""


def _write_weights(layer) -> list[str]:
    return _letters(
        g=isinstance(layer, WeightChannelsGaussian),
        b=isinstance(layer, WeightChannelsMulti),
        n=getattr(layer, "norm_coefficients", False),
        p=getattr(layer, "positive_only", False),
        i=layer.input == INPUT,
    )


def _write_scaled(layer) -> list[str]:
    return _letters(s=not layer.no_shift, o=not layer.no_offset, g=not layer.no_gain)


def _write_strf(layer) -> list[str]:
    name = "sk" if layer.skip_alpha > 0 else "skl"
    skip = f"{name}{abs(round(100 * layer.skip_alpha))}" if layer.skip_alpha else ""
    return [*_letters(relu=layer.activation == "relu"), skip, _stride(layer)]


def _write_streams(layer) -> list[str]:
    streams = [layer.input] if isinstance(layer.input, str) else layer.input or []
    return [*map(str, streams), *_letters(s=getattr(layer, "sum_later", False))]


_WRITERS: dict[type, tuple[str, Callable[..., list[str]]]] = {
    WeightChannels: ("wc", _write_weights),
    WeightChannelsGaussian: ("wc", _write_weights),
    WeightChannelsMulti: ("wc", _write_weights),
    FiniteImpulseResponse: (
        "fir",
        lambda layer: [_stride(layer), *_letters(ac=layer.include_anticausal)],
    ),
    STRF: ("strf", _write_strf),
    **{kind: (name, lambda layer: []) for name, kind in _PLAIN.items()},
    **{kind: (name, _write_scaled) for name, kind in _SCALED.items()},
    Concatenate: ("cat", _write_streams),
    Sum: ("sum", _write_streams),
    Multiply: ("mult", _write_streams),
}


def to_keywords(layers: list[Layer]) -> str:
    """Write layers as words.

    Parameters
    ----------
    layers : list of Layer
        Layers of the package's own classes.

    Returns
    -------
    str
        From which `from_keywords` makes layers with the same shapes and options, but with the
        priors and bounds that their classes have.

    Raises
    ------
    ValueError
        If there is no word for a layer, or for one of its options, inputs or outputs.

    Examples
    --------
    >>> from skdyn.nems import to_keywords
    >>> from skdyn.nems.layers import FiniteImpulseResponse, WeightChannels
    >>> to_keywords([WeightChannels((18, 3), l2=1e-4), FiniteImpulseResponse((15, 3))])
    'wc.18x3.l2:4-fir.15x3'
    """
    return "-".join(map(_word_of, layers))


def _word_of(layer: Layer) -> str:
    if type(layer) not in _WRITERS:
        raise ValueError(
            f"Got a layer of type {type(layer).__name__}, expected one of "
            f"{list_of(kind.__name__ for kind in _WRITERS)}."
        )
    name, options_of = _WRITERS[type(layer)]
    options = [*options_of(layer), penalty_option(layer.l2)]
    sizes = "x".join("" if size is None else str(size) for size in layer.shape or ())
    lost: list[str] = []
    # Open sizes at the end go without saying, unless there are more of them than there have to be.
    for shape in (sizes.rstrip("x") if None in (layer.shape or ()) else sizes, sizes):
        word = ".".join(filter(None, [name, shape, *options]))
        lost = _lost(layer, word)
        if not lost:
            return word
    said = {name: getattr(layer, name) for name in lost}
    raise ValueError(
        f"Got a {type(layer).__name__} with {said}, which {word!r} does not say, expected what a "
        "word can say; do keep the layer itself."
    )


def _lost(layer: Layer, word: str) -> list[str]:
    """Names of what a layer was made with that a word does not say."""
    told = set(layer.get_params()) - {"name", "parameters", "priors", "bounds"}
    try:
        (made,) = from_keywords(word)
    except ValueError:
        return sorted(told)
    return sorted(name for name in told if _plain_value(made, name) != _plain_value(layer, name))


def _plain_value(layer: Layer, name: str):
    value = getattr(layer, name)
    return list(value) if isinstance(value, tuple) else value
