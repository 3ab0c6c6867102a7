"""Keywords of layers, separated by dashes: a name, sizes and options."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, localcontext
from difflib import get_close_matches

# Penalty option in listings, and pattern of its exponent, at most 99.
PENALTY, WEIGHT_PENALTY = "l2:#", "wl2:#"
EXPONENT = re.compile(r"\d{1,2}(d\d+)?")
# Pattern of sizes, such as "18x3", "x3" or "18xR", where R is the number of outputs.
SIZES = re.compile(r"(\d*|R)(x(\d*|R))*")
# Digits that distinguish any two numbers.
N_DIGITS = 40


def list_of(names) -> str:
    """Format a list of names.

    Parameters
    ----------
    names : iterable of str
        The names.

    Returns
    -------
    str
        Text for an error message.
    """
    return ", ".join(f"{name!r}" for name in names) or "none"


def nearest(name: str, names) -> str:
    """Suggest the closest name.

    Parameters
    ----------
    name : str
        The unknown name.
    names : iterable of str
        The known names.

    Returns
    -------
    str
        Text for the end of an error message; empty without a close name.
    """
    close = get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Word:
    """Keyword of a layer, the text between two dashes.

    Attributes
    ----------
    text : str
        The whole keyword.
    name : str
        Name of the layer.
    sizes : tuple of int or None, or None
        Sizes, with None for omitted ones; None without any sizes.
    options : tuple of str
        Further options, in order.
    variants : tuple of str, default=()
        Options that select another layer of the same name.
    """

    text: str
    name: str
    sizes: tuple[int | None, ...] | None
    options: tuple[str, ...]
    variants: tuple[str, ...] = ()

    @property
    def pieces(self) -> tuple[str, ...]:
        """All parts after the name, both sizes and options.

        Returns
        -------
        tuple of str
            The parts, in order.
        """
        return tuple(self.text.strip().split(".")[1:])

    def shape(self, n_least: int, n_most: int | None = None) -> tuple[int | None, ...]:
        """Return the sizes, after a check of their number.

        Parameters
        ----------
        n_least : int
            Number of required sizes; missing ones are None.
        n_most : int, default=None
            Maximum number of sizes; None for the number of required ones.

        Returns
        -------
        tuple of int or None
            The shape.
        """
        sizes = self.sizes or ()
        most = n_least if n_most is None else n_most
        if len(sizes) > most:
            raise ValueError(
                f"The word {self.text!r} has {len(sizes)} sizes, but can have at most {most}."
            )
        return sizes + (None,) * (n_least - len(sizes))

    def flags(self, *names: str) -> set[str]:
        """Return the options, after a check that all are known.

        Parameters
        ----------
        *names : str
            Known options; one that ends with "#" is followed by a number, and "l2:#" is a
            `penalty`.

        Returns
        -------
        set of str
            The options of this word.
        """
        for option in self.options:
            if not {option, _stem(option)} & {*names}:
                known = (*names, *self.variants)
                raise ValueError(
                    f"Unknown option {option!r} in {self.text!r}: expected {list_of(known)}."
                    f"{nearest(option, known)}"
                )
        for name in names:
            self.exclude(name)
        return set(self.options)

    def exclude(self, *names: str) -> None:
        """Check that options are mutually exclusive and not repeated.

        Parameters
        ----------
        *names : str
            Mutually exclusive options.
        """
        found = [option for option in self.options if {option, _stem(option)} & {*names}]
        if len(found) > 1:
            raise ValueError(
                f"The word {self.text!r} has the options {list_of(found)}, but at most one of them "
                "is possible."
            )

    def refuse(self, pattern: str, reason: str) -> None:
        """Raise ValueError for a known but unsupported option.

        Parameters
        ----------
        pattern : str
            Regular expression of the option.
        reason : str
            Reason, which follows the option in the error.
        """
        for option in self.options:
            if re.fullmatch(pattern, option):
                raise ValueError(f"Option {option!r} in {self.text!r} {reason}.")

    def names(self) -> list[str]:
        """Return names of data or outputs, for words without a shape and options.

        Returns
        -------
        list of str
            The names, in order.
        """
        for name in self.pieces:
            # A part that begins with x, such as x1, may be a name.
            if name[0].isdigit() and SIZES.fullmatch(name):
                raise ValueError(
                    f"{self.text!r} has the size {name!r} where a name of data or of an output is "
                    "expected; remove it."
                )
        return list(self.pieces)

    def number(self, name: str, default: int) -> int:
        """Return the number that follows an option.

        Parameters
        ----------
        name : str
            The option.
        default : int
            Value without the option.

        Returns
        -------
        int
            The number.
        """
        found = [option for option in self.options if re.fullmatch(rf"{name}\d+", option)]
        return int(found[0][len(name) :]) if found else default

    @property
    def penalty(self) -> float | None:
        """Return the l2 of the layer, from an option such as "l2:4", for 10^-4.

        Returns
        -------
        float or None
            The weight; None without such an option. "l2:3d5" is 10^-3.5: "d" is the decimal point.
        """
        return self._exponential(PENALTY)

    @property
    def weight_penalty(self) -> float | None:
        """Return the penalty of channel weights only, from an option such as "wl2:4".

        Returns
        -------
        float or None
            The weight; None without such an option.
        """
        return self._exponential(WEIGHT_PENALTY)

    def known(self, size: int | None) -> int:
        """Return a required size.

        Parameters
        ----------
        size : int or None
            One of the sizes.

        Returns
        -------
        int
            The same.
        """
        if size is None:
            raise ValueError(f"The word {self.text!r} must say the number of lags, its first size.")
        return size

    def _exponential(self, name: str) -> float | None:
        for option in self.options:
            if _stem(option) == name:
                exponent = option.removeprefix(name[:-1])
                if not EXPONENT.fullmatch(exponent):
                    raise ValueError(
                        f"The option {option!r} in the word {self.text!r} must have a number from "
                        "0 to 99. Write 'l2:4' for 10^-4, or 'l2:3d5' for 10^-3.5."
                    )
                return from_exponent(exponent)
        return None


def _stem(option: str) -> str:
    """Replace the number at the end of an option by "#"."""
    for penalty in (PENALTY, WEIGHT_PENALTY):
        if option.startswith(penalty[:-1]):
            return penalty
    return re.sub(r"\d+$", "#", option)


def from_exponent(text: str) -> float:
    """Return the weight of a penalty from its exponent.

    Parameters
    ----------
    text : str
        Digits, with "d" as the decimal point.

    Returns
    -------
    float
        Ten to the power of minus the exponent.
    """
    # Floating-point powers would be off by one bit for some numbers and not round-trip.
    with localcontext(prec=N_DIGITS):
        return float(Decimal(10) ** -Decimal(text.replace("d", ".")))


def penalty_option(l2: float | None) -> str:
    """Return the shortest option for a penalty.

    Parameters
    ----------
    l2 : float or None
        The weight.

    Returns
    -------
    str
        The option; empty if none exists, as for zero and for weights above one.
    """
    if not l2:
        return ""
    with localcontext(prec=N_DIGITS):
        exact = -Decimal(l2).log10()
        texts = [f"{exact:.{n_digits}f}".replace(".", "d") for n_digits in range(N_DIGITS)]
    fitting = [text for text in texts if EXPONENT.fullmatch(text) and from_exponent(text) == l2]
    return PENALTY[:-1] + fitting[0] if fitting else ""
