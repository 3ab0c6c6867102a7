"""DyNeMoEstimator with other tools: seeds, workers, pipelines, searches, files."""

import pickle
import subprocess
import sys
import textwrap

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr

from skdyn import DyNeMoEstimator, ModeMatcher, match_modes

# Tiny fits explain little, and say so.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The (bound|mixing|modes):sklearn.exceptions.ConvergenceWarning"
)

# Reproducibility


def test_the_same_seed_gives_the_same_bits_and_another_does_not(small_dynemo, recording, same_fit):
    first, second = small_dynemo().fit(recording), small_dynemo().fit(recording)
    assert same_fit(first, second)
    assert not same_fit(first, small_dynemo(random_state=1).fit(recording))
    unseeded = [small_dynemo(random_state=None).fit(recording) for _ in range(2)]
    assert not same_fit(*unseeded)


def test_the_number_of_threads_does_not_matter(small_dynemo, recording, same_fit):
    before = torch.get_num_threads()
    fits = []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            fits.append(small_dynemo().fit(recording))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    assert same_fit(fits[0], fits[1])
    assert same_fit(fits[0], fits[2])


def fit_covariances(model, X):
    return clone(model).fit(X).covariances_


@pytest.fixture(scope="module")
def whole_model(small_settings):
    """A model with the same budget of initialisation here and in other processes."""
    return DyNeMoEstimator(**small_settings)


@pytest.fixture(scope="module")
def covariances_here(whole_model, recording):
    return fit_covariances(whole_model, recording)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblib_workers_give_the_same_bits(whole_model, recording, covariances_here, backend):
    with joblib.parallel_config(backend=backend):
        there = joblib.Parallel(n_jobs=2)(
            joblib.delayed(fit_covariances)(whole_model, recording) for _ in range(2)
        )
    assert all(np.array_equal(covariances_here, one) for one in there)


def test_another_process_gives_the_same_bits(whole_model, recording, covariances_here, tmp_path):
    joblib.dump((whole_model, np.array(recording)), tmp_path / "model")
    script = textwrap.dedent(f"""
        import joblib
        model, X = joblib.load({str(tmp_path / "model")!r})
        print(joblib.hash(model.fit(X).covariances_))
    """)
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == joblib.hash(covariances_here)


def test_global_generators_are_neither_read_nor_moved(small_dynemo, recording):
    def fits():
        return [
            small_dynemo(random_state=0, inference_dropout=0.1).fit(recording),
            small_dynemo(random_state=None).fit(recording),
        ]

    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, _ = fits()
    first.sample(10)
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_before, torch.get_rng_state())


# In scikit-learn's tools


def test_grid_search_in_a_pipeline(small_dynemo, recording):
    rng = np.random.default_rng(0)
    X = recording @ rng.normal(size=(5, 12)) + 0.1 * rng.normal(size=(600, 12))
    pipeline = make_pipeline(StandardScaler(), PCA(10), small_dynemo())
    search = GridSearchCV(pipeline, {"dynemoestimator__n_modes": [2, 4]}, cv=KFold(2)).fit(X)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert search.best_estimator_[-1].n_modes == [2, 4][int(np.argmax(scores))]
    assert search.predict(X).shape == (600,)


def test_cross_validation_scores_what_was_held_out(small_dynemo, recording):
    folds = KFold(2)
    scores = cross_validate(small_dynemo(), recording, cv=folds)["test_score"]
    for score, (train, test) in zip(scores, folds.split(recording), strict=True):
        assert score == small_dynemo().fit(recording[train]).score(recording[test])


def test_matcher_is_the_last_step_of_a_pipeline(small_dynemo, recording, small_simulation):
    truth = small_simulation.mode_time_course
    pipeline = make_pipeline(small_dynemo(n_epochs=20), ModeMatcher(reference=truth))
    matched = pipeline.fit_transform(recording)
    alpha = pipeline[0].transform(recording)
    np.testing.assert_array_equal(matched, match_modes(truth, alpha)[1])
    np.testing.assert_array_equal(matched, pipeline.transform(recording))


def test_clone_and_set_params(small_dynemo, recording):
    model = small_dynemo().fit(recording)
    copy = clone(model).set_params(n_modes=4, learn_means=True)
    assert not hasattr(copy, "means_")
    assert copy.fit(recording).means_.shape == (4, 5)
    assert model.means_.shape == (2, 5)


def test_pickle_and_joblib_dump_give_the_same_model(small_dynemo, recording, tmp_path):
    model = small_dynemo(inference_normalization="batch").fit(recording)
    expected = model.transform(recording)
    joblib.dump(model, tmp_path / "model.joblib")
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib")):
        np.testing.assert_array_equal(copy.transform(recording), expected)
        assert copy.score(recording) == model.score(recording)
        assert all(weight.device.type == "cpu" for weight in copy.network_.parameters())


def test_pandas_output(small_dynemo, recording):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(recording, columns=list("abcde"), index=np.arange(600) * 0.72)
    model = small_dynemo().set_output(transform="pandas").fit(X)
    alpha = model.transform(X)
    assert list(alpha.columns) == ["dynemoestimator0", "dynemoestimator1"]
    assert (alpha.index == X.index).all()
    assert list(model.feature_names_in_) == list("abcde")
    frames = model.transform([X.iloc[:100], X.iloc[100:]])
    assert [frame.shape for frame in frames] == [(100, 2), (500, 2)]
    assert (frames[1].index == X.index[100:]).all()
    with pytest.raises(ValueError, match="feature names"):
        model.transform(X[list("edcba")])


def test_html_representation_before_and_after_fit(small_dynemo, recording):
    model = small_dynemo()
    assert "DyNeMoEstimator" in estimator_html_repr(model)
    page = estimator_html_repr(make_pipeline(StandardScaler(), model.fit(recording)))
    assert "DyNeMoEstimator" in page
    assert "sequence_length" in page
