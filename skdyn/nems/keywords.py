"""Models written as words: "wc.18x3-fir.15x3-lvl.1-dexp.1".

Layers are separated by "-". What stands before the first "." says which layer it is, and the rest
are its options. The first option that is made of numbers and "x" is the shape; a size that is left
out, as in "wc.x3" or "lvl", is taken from the data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from skdyn.nems.layers.algebra import Concatenate, Multiply, Sum
from skdyn.nems.layers.base import Layer
from skdyn.nems.layers.channels import WeightChannels, WeightChannelsGaussian
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
from skdyn.nems.wiring import INPUT

SIZES = re.compile(r"\d*(x\d*)*")


def _list_of(names) -> str:
    return ", ".join(f"{name!r}" for name in names) or "none"


def _nearest(name: str, names) -> str:
    close = get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Word:
    """What stands between two dashes.

    Attributes
    ----------
    text : str
        All of it.
    name : str
        Which layer it is.
    sizes : tuple of int or None, or None
        Sizes, None for those left out; None if there are none at all.
    options : list of str
        What else there is, in order.
    """

    text: str
    name: str
    sizes: tuple[int | None, ...] | None
    options: tuple[str, ...]

    def shape(self, n_least: int, n_most: int | None = None) -> tuple[int | None, ...]:
        """Sizes, of which there are enough.

        Parameters
        ----------
        n_least : int
            Sizes that the layer needs; those that are not there at all are left open.
        n_most : int, default=None
            Most sizes; None for no more than it needs.

        Returns
        -------
        tuple of int or None
            The shape.
        """
        sizes = self.sizes or ()
        most = n_least if n_most is None else n_most
        if len(sizes) > most:
            raise ValueError(
                f"Got the word {self.text!r} with {len(sizes)} sizes, expected at most {most}."
            )
        return sizes + (None,) * (n_least - len(sizes))

    def flags(self, *names: str) -> set[str]:
        """Options, all of which must be known.

        Parameters
        ----------
        *names : str
            Options that there are; one that ends with "#" is followed by a number.

        Returns
        -------
        set of str
            Those that are there.
        """
        for option in self.options:
            stem = re.sub(r"\d+$", "#", option)
            if option not in names and stem not in names:
                raise ValueError(
                    f"Got the option {option!r} in the word {self.text!r}, expected "
                    f"{_list_of(names)}.{_nearest(option, names)}"
                )
        return set(self.options)

    def exclude(self, *names: str) -> None:
        """Make sure that options do not come together.

        Parameters
        ----------
        *names : str
            Options of which one at most may be there.
        """
        found = [name for name in names if name in self.options]
        if len(found) > 1:
            raise ValueError(
                f"Got the options {_list_of(found)} in the word {self.text!r}, expected one."
            )

    def number(self, name: str, default: int) -> int:
        """Number that follows an option.

        Parameters
        ----------
        name : str
            The option.
        default : int
            What there is without it.

        Returns
        -------
        int
            The number.
        """
        found = [option for option in self.options if re.fullmatch(rf"{name}\d+", option)]
        return int(found[0][len(name) :]) if found else default


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

    Examples
    --------
    >>> from skdyn.nems import from_keywords
    >>> [type(layer).__name__ for layer in from_keywords("wc.x3-fir.15-lvl-dexp")]
    ['WeightChannels', 'FiniteImpulseResponse', 'LevelShift', 'DoubleExponential']
    """
    words = [word for text in texts for word in text.split("-")]
    return [_build(word) for word in words]


def _build(text: str) -> Layer:
    name, *options = text.strip().split(".")
    if name not in WORDS:
        raise ValueError(
            f"Got the word {text!r}, expected one that begins with {_list_of(sorted(WORDS))}."
            f"{_nearest(name, WORDS)}"
        )
    sizes = next((option for option in options if option and SIZES.fullmatch(option)), None)
    if sizes is not None:
        options.remove(sizes)
    numbers = sizes and tuple(int(size) if size else None for size in sizes.split("x"))
    layer = WORDS[name](Word(text, name, numbers or None, tuple(options)))
    if layer.name is None:
        layer.name = name
    return layer


# ------------------------------------------------------------------------------ the words


@keyword("wc")
def _weight_channels(word: Word) -> Layer:
    shape, flags = word.shape(2, 3), word.flags("g", "n", "p", "i")
    options = {"input": INPUT} if "i" in flags else {}
    if "g" in flags:
        word.exclude("g", "n", "p")
        return WeightChannelsGaussian(shape, **options)
    return WeightChannels(
        shape, norm_coefficients="n" in flags, positive_only="p" in flags, **options
    )


@keyword("fir")
def _finite_impulse_response(word: Word) -> Layer:
    flags = word.flags("s#", "ac")
    return FiniteImpulseResponse(
        word.shape(2, 3), stride=word.number("s", 1), include_anticausal="ac" in flags
    )


@keyword("strf")
def _strf(word: Word) -> Layer:
    flags = word.flags("relu", "sk", "sk#", "s#")
    return STRF(
        word.shape(2, 4),
        skip_alpha=1.0 if "sk" in flags else word.number("sk", 0) / 100,
        activation="relu" if "relu" in flags else None,
        stride=word.number("s", 1),
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
        word.shape(0)
        return kind(input=list(word.options) or None)

    return build


for _name, _joins in {"cat": Concatenate, "sum": Sum, "mult": Multiply}.items():
    keyword(_name)(_of_streams(_joins))


# ------------------------------------------------------------------------- back to words


def _letters(**flags: bool) -> list[str]:
    return [name for name, is_set in flags.items() if is_set]


def _number(name: str, value, default) -> list[str]:
    return [] if value == default else [f"{name}{round(value)}"]


def _write_scaled(layer) -> list[str]:
    return _letters(s=not layer.no_shift, o=not layer.no_offset, g=not layer.no_gain)


def _write_strf(layer) -> list[str]:
    skip = _number("sk", 100 * layer.skip_alpha, 0)
    return [*_letters(relu=layer.activation == "relu"), *skip, *_number("s", layer.stride, 1)]


_WRITERS: dict[type, tuple[str, Callable[..., list[str]]]] = {
    WeightChannels: (
        "wc",
        lambda x: _letters(n=x.norm_coefficients, p=x.positive_only, i=x.input == INPUT),
    ),
    WeightChannelsGaussian: ("wc", lambda x: _letters(g=True, i=x.input == INPUT)),
    FiniteImpulseResponse: (
        "fir",
        lambda x: [*_number("s", x.stride, 1), *_letters(ac=x.include_anticausal)],
    ),
    STRF: ("strf", _write_strf),
    **{kind: (name, lambda layer: []) for name, kind in _PLAIN.items()},
    **{kind: (name, _write_scaled) for name, kind in _SCALED.items()},
    Concatenate: ("cat", lambda layer: layer.input or []),
    Sum: ("sum", lambda layer: layer.input or []),
    Multiply: ("mult", lambda layer: layer.input or []),
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
        From which `from_keywords` makes layers with the same shapes and options.

    Raises
    ------
    ValueError
        If there is no word for a layer.
    """
    return "-".join(map(_word_of, layers))


def _word_of(layer: Layer) -> str:
    if type(layer) not in _WRITERS:
        raise ValueError(
            f"Got a layer of type {type(layer).__name__}, expected one of "
            f"{_list_of(kind.__name__ for kind in _WRITERS)}."
        )
    name, options_of = _WRITERS[type(layer)]
    options = options_of(layer)
    shape = layer.shape or ()
    sizes = "x".join("" if size is None else str(size) for size in shape)
    return ".".join(filter(None, [name, sizes.rstrip("x") if None in shape else sizes, *options]))
