"""Representations of results of analyses: one line, with their sizes."""

import inspect

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.mixture import GaussianMixture

from skdyn import analysis

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 300, 3))
ALPHA = RNG.dirichlet(np.ones(2), (2, 300))
COVARIANCES = np.stack([np.eye(3), 2 * np.eye(3)])
VALUES = RNG.standard_normal((5, 3))
# A mean that no change of signs exceeds, and one feature with a missing value.
CERTAIN = np.c_[np.ones(5) + 0.01 * VALUES[:, 0], VALUES[:, 1], [np.nan, 1, 2, 3, 4]]
EVENTS = [[50, 100, 150], [60, 120]]


def results(X, alpha, events):
    spectra = analysis.mode_spectra(X, alpha, sampling_frequency=100)
    window = {"sampling_frequency": 100, "window": (-0.1, 0.2)}
    return {
        "ModeSpectra": spectra,
        "ModeBand": spectra.band(5, 12.5),
        "ModeStatistics": analysis.mode_statistics(alpha, sampling_frequency=100),
        "SessionModes": analysis.modes_from_mixing(
            X, alpha, covariances=COVARIANCES, shrinkage=12.5
        ),
        "EvokedAlpha": analysis.evoked_alpha(alpha, events, **window),
    }


OF_SESSIONS = {
    "ModeSpectra": "2 sessions, 2 modes, 3 channels, 129 frequencies from 0 to 50 Hz",
    "ModeBand": "5 to 12.5 Hz, 2 sessions, 2 modes, 3 channels",
    "ModeStatistics": "2 sessions, 2 modes, at 100 Hz",
    "SessionModes": "2 sessions, 2 modes, 3 channels, shrinkage 12.5",
    "EvokedAlpha": "2 sessions, 2 modes, 5 events, -0.1 to 0.2 s",
}
OF_NO_SESSIONS = {
    "ChannelModes": "2 modes, 3 channels, 1 lags",
    "PermutationTest": "one sample, 3 features, 32 arrangements, lowest p value 0.0625",
}


def test_results_of_sessions_are_shown_in_one_line():
    for name, result in results(list(X), list(ALPHA), EVENTS).items():
        assert repr(result) == f"<{name}: {OF_SESSIONS[name]}>"


def test_results_of_one_recording_name_no_sessions():
    for name, result in results(X[0], ALPHA[0], EVENTS[0]).items():
        shown = OF_SESSIONS[name].replace("2 sessions, ", "").replace("5 events", "3 events")
        assert repr(result) == f"<{name}: {shown}>"


def test_results_without_sessions_are_shown_in_one_line():
    modes = analysis.channel_modes(GaussianMixture(2, random_state=0).fit(X[0]))
    assert repr(modes) == f"<ChannelModes: {OF_NO_SESSIONS['ChannelModes']}>"
    with pytest.warns(UserWarning, match="1 of 3 features have missing values"):
        test = analysis.permutation_test(CERTAIN)
    assert repr(test) == f"<PermutationTest: {OF_NO_SESSIONS['PermutationTest']}>"
    alone = analysis.permutation_test(VALUES[:, 0])
    assert " 1 features" in repr(alone)


def test_each_result_has_a_line():
    exported = [getattr(analysis, name) for name in analysis.__all__]
    classes = {one for one in exported if inspect.isclass(one)}
    kinds = {one.__name__ for one in classes if not issubclass(one, BaseEstimator)}
    assert kinds == {*OF_SESSIONS, *OF_NO_SESSIONS}
