"""Warnings that name the line of the caller's code."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import sklearn

__all__ = ["warn"]

# Frames between a warning and the caller: methods of skdyn and their wrappers.
_BETWEEN = (*map(str, (Path(__file__).parent, *sklearn.__path__)),)


def warn(message: str, category: type[Warning]) -> None:
    """Warn of something at the line that called the package.

    Parameters
    ----------
    message : str
        The message.
    category : type
        The class of the warning.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_BETWEEN):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
