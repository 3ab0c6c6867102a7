"""Conversion of keywords in the notation of published models.

Papers print models in an older grammar: "fir.25x120" denotes 120 filters of 25 lags, each with its
own channel, "fir.2x15" filters 2 channels with 15 lags, "fir.1x25x120" is equivalent to
"fir.25x120", and "conv2d.10.8x3.rep3" denotes three convolutions with 10 filters each. Words are
only rewritten if they are unambiguous, because their sizes do not match otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Words that keep the number of channels.
KEEPING = {
    *("lvl", "dexp", "dlog", "relu", "srelu", "sig", "tanh", "prelu", "stp", "bn", "norm", "pow"),
    *("stategain", "sdexp", "statehinge"),
}
CONVOLUTIONS = re.compile(r"conv2d\.(\d+)\.(\d+x\d+)(?:\.rep(\d+))?")
DENSE = re.compile(r"wcn\.(\d+|R)")
POLES = re.compile(r"fir((?:\.[^.]+)*)\.p(\d)z(\d)fs(\d+)")
SIZED = re.compile(r"(\w+)\.(\d+(?:x(?:\d+|R)?)*)((?:\..+)?)")


def in_present_words(words: Sequence[str]) -> list[str]:
    """Rewrite words of the older grammar.

    Parameters
    ----------
    words : sequence of str
        Words of a model, in order.

    Returns
    -------
    list of str
        Words of the same model; words in the current grammar are unchanged.
    """
    words = [new for word in words for new in _expanded(word.strip())]
    found: list[str] = []
    width: int | None = None  # number of output channels, if known
    for place, word in enumerate(words):
        new = _with_present_sizes(word, width, _needed(words[place + 1 :]))
        width = _width_after(new, width)
        found.append(new)
    return found


def _expanded(word: str) -> list[str]:
    """Return the words that replace an older one."""
    if found := CONVOLUTIONS.fullmatch(word):
        n_filters, size, n_repeats = found[1], found[2], int(found[3] or 1)
        made = []
        for number in range(n_repeats):
            planes = f"x{n_filters}" if number else ""
            pooling = "stack" if number < n_repeats - 1 else "cat"
            made += [f"conv2d.{size}{planes}x{n_filters}.{pooling}", "relu.s"]
        return made
    if found := DENSE.fullmatch(word):
        return [f"wc.x{found[1]}"]
    if found := POLES.fullmatch(word):
        return [f"pz{found[1]}.p{found[2]}.z{found[3]}.fs{found[4]}"]
    return [word]


def _sizes(word: str) -> tuple[str, list[int | None], str] | None:
    """Return the name, sizes and remaining options of a word that begins with sizes."""
    found = SIZED.fullmatch(word)
    if found is None:
        return None
    sizes = [int(size) if size.isdigit() else None for size in found[2].split("x")]
    return found[1], sizes, found[3]


def _needed(words: Sequence[str]) -> int | None:
    """Return the number of input channels of the following words, if known."""
    for word in words:
        parts = _sizes(word)
        if parts is not None and (parts[0] == "wc" or parts[0] in KEEPING):
            return parts[1][0]
        if word.split(".")[0] not in KEEPING:
            return None
    return None


def _width_after(word: str, width: int | None) -> int | None:
    """Return the number of output channels of a word, if known."""
    parts = _sizes(word)
    name = word.split(".")[0]
    if name in KEEPING:
        return width if parts is None else parts[1][-1]
    if parts is None or name not in ("wc", "fir"):
        return None
    sizes = parts[1]
    if name == "wc":
        return sizes[1] if len(sizes) == 2 else None
    return sizes[2] if len(sizes) == 3 else 1


def _with_present_sizes(word: str, width: int | None, needed: int | None) -> str:
    """Reorder the sizes of a filter, if they only fit in the older order."""
    parts = _sizes(word)
    if parts is None or parts[0] != "fir" or width is None or None in parts[1]:
        return word
    name, sizes, rest = parts
    if len(sizes) == 2:
        first, second = sizes
        if second == width != 1 and needed == width:
            sizes = [first, 1, second]
        elif first == width != second:
            sizes = [second, 1, first] if needed == width != 1 else [second, first]
    elif len(sizes) == 3 and sizes[0] == 1 and sizes[2] == width != sizes[1]:
        sizes = [sizes[1], 1, sizes[2]]
    return f"{name}.{'x'.join(map(str, sizes))}{rest}"
