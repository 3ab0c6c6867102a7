"""Versions of skdyn and of the packages that it works with, for bug reports."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

_REQUIRED = ("scikit-learn", "numpy", "scipy", "torch", "joblib", "matplotlib", "tqdm")
_OPTIONAL = ("skops", "dask", "distributed", "mne", "xarray", "pandas", "polars", "hmmlearn")


def show_versions() -> None:
    """Print the versions of Python, skdyn and related packages.

    Please include the output in bug reports.

    Examples
    --------
    >>> import skdyn
    >>> skdyn.show_versions()
    Python        3...
    platform      ...
    CPU cores     ...
    skdyn         ...
    scikit-learn  ...
    """
    rows = {
        "Python": sys.version.split()[0],
        "platform": platform.platform(),
        "CPU cores": str(os.cpu_count()),
        "skdyn": sys.modules["skdyn"].__version__,
    }
    for package in (*_REQUIRED, *_OPTIONAL):
        try:
            rows[package] = version(package)
        except PackageNotFoundError:
            rows[package] = "not installed"
    for name, text in rows.items():
        print(f"{name:<13} {text}")
