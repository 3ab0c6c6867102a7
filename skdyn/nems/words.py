"""What stands between two dashes of a model in words: a name, sizes and options."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, localcontext
from difflib import get_close_matches

# What says a penalty, as it is listed, and the exponent that follows it, at most 99.
PENALTY, WEIGHT_PENALTY = "l2:#", "wl2:#"
EXPONENT = re.compile(r"\d{1,2}(d\d+)?")
# What the sizes look like, such as "18x3", "x3" or "18xR", where R is as many as there are outputs.
SIZES = re.compile(r"(\d*|R)(x(\d*|R))*")
# Digits that tell any two numbers apart.
N_DIGITS = 40


def list_of(names) -> str:
    """Write names in a row.

    Parameters
    ----------
    names : iterable of str
        The names.

    Returns
    -------
    str
        For an error.
    """
    return ", ".join(f"{name!r}" for name in names) or "none"


def nearest(name: str, names) -> str:
    """Ask whether another name was meant.

    Parameters
    ----------
    name : str
        What came.
    names : iterable of str
        What could have.

    Returns
    -------
    str
        For the end of an error; empty if nothing is near.
    """
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
    options : tuple of str
        What else there is, in order.
    variants : tuple of str, default=()
        Options that would pick another layer of the same name.
    """

    text: str
    name: str
    sizes: tuple[int | None, ...] | None
    options: tuple[str, ...]
    variants: tuple[str, ...] = ()

    @property
    def pieces(self) -> tuple[str, ...]:
        """What follows the name, sizes and options alike.

        Returns
        -------
        tuple of str
            In order.
        """
        return tuple(self.text.strip().split(".")[1:])

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
                f"The word {self.text!r} has {len(sizes)} sizes, but can have at most {most}."
            )
        return sizes + (None,) * (n_least - len(sizes))

    def flags(self, *names: str) -> set[str]:
        """Options, all of which must be known.

        Parameters
        ----------
        *names : str
            Options that there are; one that ends with "#" is followed by a number, and "l2:#" says
            a `penalty`.

        Returns
        -------
        set of str
            Those that are there.
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
        """Make sure that options do not come together, nor one of them twice.

        Parameters
        ----------
        *names : str
            Options of which one at most may be there.
        """
        found = [option for option in self.options if {option, _stem(option)} & {*names}]
        if len(found) > 1:
            raise ValueError(
                f"The word {self.text!r} has the options {list_of(found)}, but at most one of them "
                "is possible."
            )

    def refuse(self, pattern: str, reason: str) -> None:
        """Raise ValueError for an option that is known, and not supported.

        Parameters
        ----------
        pattern : str
            Regular expression of the option.
        reason : str
            What follows its name in the error.
        """
        for option in self.options:
            if re.fullmatch(pattern, option):
                raise ValueError(f"Option {option!r} in {self.text!r} {reason}.")

    def names(self) -> list[str]:
        """Names of data or outputs, instead of a shape and options.

        Returns
        -------
        list of str
            In order.
        """
        for name in self.pieces:
            # What begins with x, as x1 does, may well be a name.
            if name[0].isdigit() and SIZES.fullmatch(name):
                raise ValueError(
                    f"{self.text!r} has the size {name!r} where a name of data or of an output is "
                    "expected; remove it."
                )
        return list(self.pieces)

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

    @property
    def penalty(self) -> float | None:
        """Weight of the layer's own penalty, from an option such as "l2:4", for 10^-4.

        Returns
        -------
        float or None
            None if there is no such option. "l2:3d5" is 10^-3.5: "d" stands for the point.
        """
        return self._exponential(PENALTY)

    @property
    def weight_penalty(self) -> float | None:
        """Weight of the penalty of channel weights alone, from an option such as "wl2:4".

        Returns
        -------
        float or None
            None if there is no such option.
        """
        return self._exponential(WEIGHT_PENALTY)

    def known(self, size: int | None) -> int:
        """Size that must not be left out.

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
    """Put "#" for the number that an option ends with."""
    for penalty in (PENALTY, WEIGHT_PENALTY):
        if option.startswith(penalty[:-1]):
            return penalty
    return re.sub(r"\d+$", "#", option)


def from_exponent(text: str) -> float:
    """Number that a penalty says.

    Parameters
    ----------
    text : str
        Digits, with "d" for the point.

    Returns
    -------
    float
        Ten to the power of minus that.
    """
    # Floating point would miss some numbers by their last bit, and they would not round-trip.
    with localcontext(prec=N_DIGITS):
        return float(Decimal(10) ** -Decimal(text.replace("d", ".")))


def penalty_option(l2: float | None) -> str:
    """Option that says a penalty, the shortest there is.

    Parameters
    ----------
    l2 : float or None
        The weight.

    Returns
    -------
    str
        Empty if there is none, also for zero and for weights above one.
    """
    if not l2:
        return ""
    with localcontext(prec=N_DIGITS):
        exact = -Decimal(l2).log10()
        texts = [f"{exact:.{n_digits}f}".replace(".", "d") for n_digits in range(N_DIGITS)]
    fitting = [text for text in texts if EXPONENT.fullmatch(text) and from_exponent(text) == l2]
    return PENALTY[:-1] + fitting[0] if fitting else ""
