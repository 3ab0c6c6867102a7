"""Features of sessions: a pipeline over people, cross-validated with the model in the fold."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from skdyn.analysis import (
    SessionFeatures,
    mode_spectra,
    mode_statistics,
    modes_from_mixing,
    session_modes,
)
from skdyn.preprocessing import SessionScaler


class States(BaseEstimator):
    """States without memory: any model of lists of sessions is accepted, and this one is quick."""

    seen = ()

    def __init__(self, n_modes=2, random_state=0):
        self.n_modes = n_modes
        self.random_state = random_state

    def fit(self, X, y=None):
        type(self).seen = (*type(self).seen, [float(one[0, 0]) for one in X])
        mixture = GaussianMixture(self.n_modes, random_state=self.random_state)
        self.mixture_ = mixture.fit(np.concatenate(X))
        self.means_, self.covariances_ = self.mixture_.means_, self.mixture_.covariances_
        return self

    def transform(self, X):
        return [self.mixture_.predict_proba(one) for one in X]


def people(seed=0, n_people=12, n_samples=120):
    """Recordings of two groups of people with different occupancies of two states."""
    rng = np.random.default_rng(seed)
    group = np.arange(n_people) % 2
    X = []
    for one in group:
        is_on = rng.random(n_samples) < (0.3, 0.7)[one]
        X.append(rng.standard_normal((n_samples, 2)) + np.where(is_on, 3, -3)[:, None])
    return X, group


EVERYTHING = [
    *("mean", "standard_deviation", "kurtosis", "normalised_weight", "occupancy", "n_visits"),
    *("mean_lifetime", "mean_interval", "switching_rate", "fano_factor"),
    *("normalised_standard_deviation", "normalised_kurtosis"),
    *("entropy", "transitions", "covariances", "spectra", "coherence"),
]
BANDS = [(1, 4), (8, 12.5)]


def test_features_have_a_row_per_session_and_names():
    X, _ = people()
    features = SessionFeatures(States(), EVERYTHING, sampling_frequency=50.0, bands=BANDS)
    table = features.fit_transform(X)
    names = features.get_feature_names_out()
    assert table.shape == (12, len(names))
    assert len(set(names)) == len(names) == 12 * 2 + 1 + 4 + 2 * 3 + 8 + 4
    assert np.isfinite(table).all()
    assert features.n_features_in_ == 2
    alpha = features.model_.transform(X)
    statistics = mode_statistics(alpha, sampling_frequency=50.0)
    columns = dict(zip(names, table.T, strict=True))
    for name in ("mean", "occupancy", "mean_lifetime", "switching_rate"):
        np.testing.assert_allclose(columns[f"{name}_mode1"], statistics[name][:, 1])
    matrices = statistics.transition_matrix
    np.testing.assert_allclose(columns["transition_mode0_mode1"], matrices[:, 0, 1])
    np.testing.assert_allclose(columns["entropy"], statistics.entropy)


def test_features_of_covariances_are_distances_from_the_group():
    X = [(1 + number % 3) * one for number, one in enumerate(people(n_people=4, n_samples=60)[0])]
    features = SessionFeatures(States(), "covariances").fit(X)
    assert features.shrinkage_ < np.inf
    table = features.transform(X).reshape(4, 2, 3)
    assert features.shrinkage_ == session_modes(features.model_, X).shrinkage
    modes = session_modes(features.model_, X, shrinkage=features.shrinkage_)
    # The norm of the logarithm is the Riemannian distance from the identity.
    np.testing.assert_allclose(np.linalg.norm(table, axis=2), modes.distances(), rtol=1e-6)


def test_features_of_spectra_are_those_of_the_channels_of_x():
    X = people(n_people=4, n_samples=200)[0]
    model = make_pipeline(SessionScaler(), States())
    features = SessionFeatures(model, ("spectra", "coherence"), sampling_frequency=50, bands=BANDS)
    columns = dict(
        zip(features.fit(X).get_feature_names_out(), features.transform(X).T, strict=True)
    )
    spectra = mode_spectra(X, features.model_.transform(X), sampling_frequency=50)
    for name, (low, high) in [("1-4Hz", BANDS[0]), ("8-12.5Hz", BANDS[1])]:
        band = spectra.band(low, high)
        np.testing.assert_allclose(columns[f"power_mode1_0_{name}"], np.log(band.power[:, 1, 0]))
        found = columns[f"coherence_mode0_0_1_{name}"]
        np.testing.assert_allclose(found, band.coherence[:, 0, 0, 1])


def test_power_of_a_silent_mode_and_of_a_silent_channel_are_numbers():
    X = people(n_people=4, n_samples=200)[0]
    features = SessionFeatures(States(), "spectra", sampling_frequency=50, bands=[(1, 4)]).fit(X)
    rng = np.random.default_rng(0)
    silent = 0.1 * rng.standard_normal((200, 2)) + 3
    power = np.exp(features.transform([silent])[0]).reshape(2, 2)
    on = int(power[1, 0] > power[0, 0])
    np.testing.assert_allclose(power[1 - on], 1e-3 * power[on], rtol=1e-3)
    silent[:, 1] = 3
    assert np.isfinite(features.transform([silent])).all()


@pytest.mark.parametrize("bands", [[], [8, 13], [(13, 8)], [(-1, 4)], [("8", "13")], [(1, 2, 3)]])
def test_bands_are_pairs_of_ascending_frequencies(bands):
    X = people(n_people=4)[0]
    with pytest.raises(ValueError, match="bands must"):
        SessionFeatures(States(), "spectra", sampling_frequency=50, bands=bands).fit(X)


def test_bands_outside_the_spectrum_are_named():
    X = people(n_people=4)[0]
    with pytest.raises(ValueError, match="The band from 30 to 40 Hz has none of"):
        SessionFeatures(States(), "spectra", sampling_frequency=50, bands=[(30, 40)]).fit_transform(
            X
        )


def test_features_of_a_session_do_not_depend_on_the_others():
    X, _ = people()
    features = SessionFeatures(States(), EVERYTHING, sampling_frequency=50.0, bands=BANDS).fit(X)
    whole = features.transform(X)
    np.testing.assert_allclose(features.transform(X[3:5]), whole[3:5])
    np.testing.assert_allclose(features.transform(X[3]), whole[3:4])
    np.testing.assert_allclose(features.transform(np.stack(X)), whole)
    labels = np.repeat(np.arange(12), 120)
    np.testing.assert_allclose(features.transform(np.concatenate(X), sessions=labels), whole)


def test_what_is_undefined_has_a_number():
    features = SessionFeatures(States(), EVERYTHING, sampling_frequency=10.0, bands=[(1, 4)])
    X, _ = people()
    features.fit(X)
    silent = 0.1 * np.random.default_rng(0).standard_normal((50, 2)) + 3
    row = dict(zip(features.get_feature_names_out(), features.transform([silent])[0], strict=True))
    off = int(row["occupancy_mode0"] == 1)
    assert row[f"occupancy_mode{off}"] == 0
    assert row[f"mean_lifetime_mode{off}"] == 0
    assert row[f"mean_interval_mode{off}"] == 5.0
    assert np.isfinite(list(row.values())).all()


def test_folds_are_of_people_and_the_model_is_fitted_inside():
    X, group = people(n_people=20)
    pipeline = make_pipeline(SessionFeatures(States(), "occupancy"), LogisticRegression())
    States.seen = ()
    results = cross_validate(pipeline, X, group, cv=4, return_estimator=True, return_indices=True)
    assert results["test_score"].mean() > 0.9
    assert len(States.seen) == 4
    first_values = np.array([one[0, 0] for one in X])
    for seen, train in zip(States.seen, results["indices"]["train"], strict=True):
        np.testing.assert_array_equal(seen, first_values[train])
    answers = cross_val_predict(pipeline, np.stack(X), group, cv=4)
    assert (answers == group).mean() > 0.9


def test_sessions_of_different_lengths_are_cross_validated():
    X, group = people()
    X = [one[: 60 + 5 * number] for number, one in enumerate(X)]
    pipeline = make_pipeline(SessionFeatures(States(), "occupancy"), StandardScaler(), Ridge())
    scores = cross_validate(pipeline, X, group.astype(float), cv=3)["test_score"]
    assert np.isfinite(scores).all()


def test_a_search_reaches_the_model_and_the_kinds_of_features():
    X, group = people()
    pipeline = make_pipeline(SessionFeatures(States()), StandardScaler(), LogisticRegression())
    grid = {
        "sessionfeatures__model__n_modes": [2, 3],
        "sessionfeatures__what": ["occupancy", ("mean", "entropy")],
    }
    search = GridSearchCV(pipeline, grid, cv=3).fit(X, group)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_[0]
    assert best.model_.n_modes == search.best_params_["sessionfeatures__model__n_modes"]
    assert search.predict(X[:2]).shape == (2,)


def test_no_label_means_no_accuracy():
    X, _ = people(n_people=20)
    scores = []
    for seed in range(5):
        labels = np.random.default_rng(seed).permutation(np.arange(20) % 2)
        pipeline = make_pipeline(SessionFeatures(States(), "occupancy"), LogisticRegression())
        scores.append(cross_validate(pipeline, X, labels, cv=4)["test_score"].mean())
    assert 0.25 < np.mean(scores) < 0.75


def test_a_pipeline_is_a_model_too():
    X, _ = people(n_people=4, n_samples=60)
    model = make_pipeline(SessionScaler(), States())
    features = SessionFeatures(model, ["occupancy", "covariances"])
    table = features.fit_transform(X)
    scaled = SessionScaler().fit_transform(X)
    expected = SessionFeatures(States(), ["occupancy", "covariances"]).fit_transform(scaled)
    np.testing.assert_allclose(table, expected)


def test_a_frozen_model_is_kept():
    X, _ = people()
    fitted = States().fit(X)
    features = SessionFeatures(FrozenEstimator(fitted), "mean").fit(X[:3])
    np.testing.assert_array_equal(features.model_.means_, fitted.means_)


def test_clone_and_parameters_are_those_of_scikit_learn():
    features = SessionFeatures(States(3), "entropy", sampling_frequency=2.0, binarize=0.3)
    copy = clone(features)
    assert copy.get_params(deep=False).keys() == features.get_params(deep=False).keys()
    assert copy.model is not features.model
    assert copy.get_params()["model__n_modes"] == 3
    copy.set_params(model__n_modes=4, what="mean")
    assert (copy.model.n_modes, features.model.n_modes) == (4, 3)
    for check in (
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_estimators_unfitted,
        estimator_checks.check_estimator_repr,
    ):
        check("SessionFeatures", features)


@pytest.mark.parametrize("as_frame", [False, True])
def test_set_output_gives_a_frame_with_a_row_per_session(as_frame):
    pandas = pytest.importorskip("pandas")
    X, _ = people()
    features = SessionFeatures(States(), "occupancy").set_output(transform="pandas")
    frame = features.fit_transform(X)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["occupancy_mode0", "occupancy_mode1"]
    rows, labels = np.concatenate(X), np.repeat(np.arange(12), 120)
    if as_frame:
        rows = pandas.DataFrame(rows)
    flat = features.transform(rows, sessions=labels)
    np.testing.assert_allclose(flat, frame)


@pytest.mark.parametrize("what", ["weights", [], ["mean", "weights"]])
def test_unknown_features_are_refused(what):
    X, _ = people()
    with pytest.raises(ValueError, match="one or more of 'mean"):
        SessionFeatures(States(), what).fit(X)
    with pytest.raises(ValueError, match="'model' parameter"):
        SessionFeatures("states").fit(X)


def test_posteriors_of_another_model_go_through_everything():
    X, _ = people()
    states = States().fit(X)
    posteriors = states.transform(X)
    modes = modes_from_mixing(
        X, posteriors, covariances=states.covariances_, means=states.means_, shrinkage=20.0
    )
    statistics = mode_statistics(posteriors, sampling_frequency=1.0, covariances=modes.covariances)
    assert statistics.normalised_weight.shape == (12, 2)
    # The means of the Gaussian mixture are close to those of the sessions.
    np.testing.assert_allclose(np.abs(modes.means).mean(), 3, atol=0.3)
