"""For tests and doctests alike: no figure stays open for the next one."""

import sys

import pytest


@pytest.fixture(autouse=True)
def close_figures():
    """Close all figures after each test."""
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")
