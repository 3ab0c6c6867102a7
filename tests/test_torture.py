"""A short form of `make torture`; files and inputs are in test_files.py and test_bad_input.py."""

import os

import pytest

from tests.torture import kills

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]


def test_killed_fits_go_on_to_the_same_bits():
    same, _, _ = kills.run_kills(3, seed=1)
    assert same == 3


def test_interrupted_fits_leave_the_old_fit_or_none():
    good, _ = kills.run_interrupts(6, seed=1)
    assert good == 6


def test_full_disk_loses_nothing():
    with kills.small_disk() as folder:
        if folder is None:
            pytest.skip("no file system can be mounted here")
        assert kills.run_full_disk(2, folder, seed=1)[0] == 2
