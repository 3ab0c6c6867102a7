"""Properties of every transformer of recordings."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline, make_pipeline

from skdyn import DyNeMoEstimator, preprocessing
from skdyn.preprocessing import (
    AmplitudeEnvelope,
    BadSegments,
    BandpassFilter,
    CovarianceAligner,
    Downsampler,
    GammatoneFilterbank,
    LogCompressor,
    MovingAverage,
    NotchFilter,
    RangeScaler,
    SessionPCA,
    SessionScaler,
    SignAligner,
    Spectrogram,
    TimeDelayEmbedder,
    TimeDelayPCA,
)

TRANSFORMERS = [
    TimeDelayEmbedder(5),
    TimeDelayPCA(5, 4),
    SessionPCA(2),
    SessionScaler(),
    BandpassFilter(0.05, 0.3),
    NotchFilter(0.2, width=0.05),
    AmplitudeEnvelope(),
    MovingAverage(5),
    SignAligner(3, random_state=0),
    CovarianceAligner(),
    Downsampler(0.4),
    Downsampler(1 / np.e),
    LogCompressor(),
    RangeScaler(),
    Spectrogram(3, low=0.05, high=0.4, sampling_frequency=1.0, new_sampling_frequency=0.4),
    GammatoneFilterbank(
        2,
        low=0.05,
        high=0.3,
        sampling_frequency=1.0,
        new_sampling_frequency=1 / np.e,
        relative_bandwidth=0.3,
    ),
]
INVERTIBLE = [
    TimeDelayEmbedder(5),
    TimeDelayPCA(5),
    TimeDelayPCA(5, whiten=True),
    SessionPCA(),
    SessionPCA(whiten=True),
    LogCompressor(),
    RangeScaler(joint=True),
]
# These map each row independently, or a session by numbers that hold for all of its rows.
OF_ROWS = (SessionPCA, SignAligner, LogCompressor, RangeScaler)
# Their output has units of its own.
UNIT_FREE = (SessionScaler, LogCompressor, RangeScaler)
LENGTHS = [60, 1, 4, 35]

every_transformer = pytest.mark.parametrize("transformer", TRANSFORMERS, ids=repr)


def sessions_of(lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((3, 3))
    return [rng.standard_normal((n, 3)) @ mixing + 5 for n in lengths]


def labels(lengths=LENGTHS):
    return np.repeat([f"subject {number}" for number in range(len(lengths))], lengths)


# Sessions


@every_transformer
def test_transformers_give_the_same_in_every_form(transformer):
    X = sessions_of([30, 30, 30])
    as_list = transformer.fit_transform(X)
    as_stack = transformer.fit_transform(np.stack(X))
    as_rows = transformer.fit_transform(np.concatenate(X), sessions=labels([30, 30, 30]))
    assert isinstance(as_list, list)
    np.testing.assert_array_equal(np.stack(as_list), as_stack)
    np.testing.assert_array_equal(np.concatenate(as_list), as_rows)


@every_transformer
def test_transformers_treat_sessions_alone(transformer):
    X = sessions_of()
    fitted = transformer.fit(X)
    rows = fitted.transform(np.concatenate(X), sessions=labels())
    alone = [fitted.transform(one) for one in X]
    np.testing.assert_array_equal(rows, np.concatenate(alone))
    for one, other in zip(fitted.transform(X), alone, strict=True):
        np.testing.assert_array_equal(one, other)


@every_transformer
def test_transformers_see_nothing_across_a_seam(transformer):
    first, second, third = sessions_of([40, 30, 40])
    fitted = transformer.fit([first, second, third])
    before = fitted.transform([first, second, third])
    after = fitted.transform([first * -7 + 3, second, third[::-1]])
    np.testing.assert_array_equal(before[1], after[1])
    sessions = labels([40, 30, 40])
    joined = [np.concatenate(X) for X in ([first, second], [first * -7 + 3, second])]
    rows = [len(one) for one in before]
    for X in joined:
        found = fitted.transform(X, sessions=sessions[: len(X)])
        np.testing.assert_array_equal(found[rows[0] :], before[1])


@every_transformer
def test_transformers_without_labels_have_one_session(transformer):
    X = sessions_of([40, 40])
    fitted = transformer.fit(X)
    apart, together = np.concatenate(fitted.transform(X)), fitted.transform(np.concatenate(X))
    assert apart.shape == together.shape
    if not isinstance(transformer, OF_ROWS):
        assert not np.allclose(apart, together)


@every_transformer
def test_transformers_take_sessions_of_one_row(transformer):
    found = transformer.fit(sessions_of()).transform(np.array([[1.0, 2.0, 3.0]]))
    assert len(found) == 1
    assert np.isfinite(found).all()


# Types and names


@every_transformer
@pytest.mark.parametrize("given", [np.float32, np.float64, np.int16, np.float16])
def test_transformers_keep_types(transformer, given):
    X = (1000 * sessions_of([80])[0]).astype(given)
    found = transformer.fit_transform(X)
    assert found.dtype == (np.float32 if given == np.float32 else np.float64)
    precise = transformer.fit_transform(X.astype(np.float64))
    np.testing.assert_allclose(found, precise, rtol=1e-4, atol=1e-4 * np.abs(precise).max())


@every_transformer
def test_transformers_change_nothing_of_the_caller(transformer):
    X = np.asfortranarray(np.concatenate(sessions_of()))
    given = X.copy()
    X.flags.writeable = False
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    clone(transformer).fit(X, sessions=labels()).transform(X, sessions=labels())
    np.testing.assert_array_equal(X, given)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@every_transformer
def test_transformers_take_memory_maps(transformer, tmp_path):
    X = np.concatenate(sessions_of())
    np.save(tmp_path / "recording.npy", X)
    mapped = np.load(tmp_path / "recording.npy", mmap_mode="r")
    expected = transformer.fit_transform(X, sessions=labels())
    found = transformer.fit_transform(mapped, sessions=labels())
    np.testing.assert_array_equal(found, expected)


@every_transformer
def test_transformers_keep_names_and_times_of_frames(transformer):
    times = pd.Index(np.arange(100) / 250, name="seconds")
    X = pd.DataFrame(np.concatenate(sessions_of()), columns=["Fz", "Cz", "Pz"], index=times)
    transformer = clone(transformer).set_output(transform="pandas")
    frame = transformer.fit_transform(X, sessions=labels())
    assert list(transformer.feature_names_in_) == ["Fz", "Cz", "Pz"]
    assert list(frame.columns) == list(transformer.get_feature_names_out())
    kept = slice(None)
    if hasattr(transformer, "row_indices"):
        kept = transformer.row_indices(X, sessions=labels())
    assert frame.index.equals(times[kept])
    plain = transformer.set_output(transform="default").transform(X, sessions=labels())
    np.testing.assert_array_equal(frame, plain)


@every_transformer
def test_transformers_give_a_frame_per_session(transformer):
    X = [pd.DataFrame(one, columns=["a", "b", "c"]) for one in sessions_of([30, 40])]
    frames = clone(transformer).set_output(transform="pandas").fit_transform(X)
    arrays = clone(transformer).fit_transform(X)
    for frame, array in zip(frames, arrays, strict=True):
        assert isinstance(frame, pd.DataFrame)
        np.testing.assert_array_equal(frame, array)
    polars = clone(transformer).set_output(transform="polars").fit_transform(X[0])
    assert isinstance(polars, pl.DataFrame)


@pytest.mark.parametrize(
    ("transformer", "names"),
    [
        (TimeDelayEmbedder(3), ["Fz(t+1)", "Fz(t)", "Fz(t-1)", "Cz(t+1)", "Cz(t)", "Cz(t-1)"]),
        (TimeDelayPCA(3, 2), ["timedelaypca0", "timedelaypca1"]),
        (SessionPCA(1), ["sessionpca0"]),
        (SessionScaler(), ["Fz", "Cz"]),
        (NotchFilter(0.2, width=0.05), ["Fz", "Cz"]),
    ],
    ids=repr,
)
def test_transformers_name_their_columns(transformer, names):
    X = pd.DataFrame(np.random.default_rng(0).standard_normal((20, 2)), columns=["Fz", "Cz"])
    assert list(transformer.fit(X).get_feature_names_out()) == names


# Bad input


@every_transformer
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.full((20, 3), np.nan), "NaN"),
        (np.ones(20), "2D array"),
        (np.empty((0, 3)), "0 sample"),
        ([np.ones((20, 3)), np.ones((20, 2))], "Session 1 of 2.*2 features"),
    ],
)
def test_transformers_refuse_bad_recordings(transformer, X, message):
    with pytest.raises(ValueError, match=message):
        clone(transformer).fit(X)


@every_transformer
def test_transformers_refuse_bad_use(transformer):
    X = sessions_of([30, 30])
    with pytest.raises(NotFittedError):
        clone(transformer).transform(X)
    with pytest.raises(ValueError, match="but sessions= was given as well"):
        clone(transformer).fit(X, sessions=labels([30, 30]))
    with pytest.raises(ValueError, match="59 labels, but X has 60 rows"):
        clone(transformer).fit(np.concatenate(X), sessions=np.zeros(59))
    with pytest.raises(ValueError, match="2 features"):
        clone(transformer).fit(X).transform(X[0][:, :2])


# Missing rows and artefacts, as models take them


@every_transformer
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_transformers_answer_missing_rows_with_bad_segments(transformer, value):
    X = sessions_of()
    X[3][10, 1] = value
    message = r"Session 3 of 4: Input X contains .*\. Cut such rows out with .*BadSegments\."
    with pytest.raises(ValueError, match=message):
        clone(transformer).fit(X)
    fitted = transformer.fit(sessions_of())
    with pytest.raises(ValueError, match=message):
        fitted.transform(X)


@every_transformer
@pytest.mark.parametrize("form", ["rows", "list", "stack"])
def test_good_segments_are_sessions(transformer, form):
    X = sessions_of([300, 300])
    X[0][100] = np.nan
    X[1][200:210] *= 1000
    X = {"rows": X[0], "list": X, "stack": np.stack(X)}[form]
    bad = BadSegments().fit(X)
    segments = bad.good_segments(X)
    found = transformer.fit_transform(segments)
    assert len(segments) > 1
    for one, segment in zip(found, segments, strict=True):
        np.testing.assert_array_equal(one, transformer.transform(segment))
    if not hasattr(transformer, "row_indices"):
        restored = np.concatenate([*np.atleast_3d(bad.restore(found))])
        is_bad = np.concatenate([*np.atleast_2d(bad.is_bad_)])
        if form == "rows":
            restored, is_bad = bad.restore(found), bad.is_bad_
        np.testing.assert_array_equal(np.isnan(restored).any(axis=1), is_bad)


@every_transformer
@pytest.mark.parametrize("scale", [2.0**-460, 2.0**460])
def test_transformers_do_not_depend_on_units(transformer, scale):
    """Powers of two change no digit; scores and filters follow, standardised values stay."""
    X = sessions_of([60, 40])
    plain = transformer.fit_transform(X)
    found = clone(transformer).fit_transform([scale * one for one in X])
    factor = 1 if isinstance(transformer, UNIT_FREE) else scale
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one, factor * other, rtol=1e-9, atol=1e-12 * factor)


# Inverses


@pytest.mark.parametrize("transformer", INVERTIBLE, ids=repr)
def test_inverses_know_sessions(transformer):
    X = sessions_of()
    wide = transformer.fit_transform(X)
    back = transformer.inverse_transform(wide)
    for one, other in zip(back, X, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)
    rows = transformer.inverse_transform(np.concatenate(wide), sessions=labels())
    np.testing.assert_array_equal(rows, np.concatenate(back))
    stack = transformer.inverse_transform(np.stack([wide[0]] * 2))
    np.testing.assert_array_equal(stack, np.stack([back[0]] * 2))


@pytest.mark.parametrize("transformer", INVERTIBLE, ids=repr)
def test_inverses_refuse_bad_input(transformer):
    X = sessions_of()
    wide = transformer.fit_transform(X)
    n_columns = wide[0].shape[1]
    with pytest.raises(ValueError, match=f"X has 2 columns, but {n_columns} were expected"):
        transformer.inverse_transform([one[:, :2] for one in X])
    with pytest.raises(ValueError, match="but sessions= was given as well"):
        transformer.inverse_transform(wide, sessions=labels())
    with pytest.raises(ValueError, match="99 labels"):
        transformer.inverse_transform(np.concatenate(wide), sessions=np.zeros(99))
    with pytest.raises(NotFittedError):
        clone(transformer).inverse_transform(wide)


# In the hands of scikit-learn


@every_transformer
def test_transformers_route_labels(transformer):
    X, sessions = np.concatenate(sessions_of()), labels()
    expected = clone(transformer).fit_transform(X, sessions=sessions)
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(clone(transformer))
        np.testing.assert_array_equal(pipeline.fit_transform(X, sessions=sessions), expected)
        np.testing.assert_array_equal(pipeline.transform(X, sessions=sessions), expected)


def test_labels_reach_each_step_that_is_named_without_routing():
    X = sessions_of()
    steps = TimeDelayPCA(5, 4), MovingAverage(5), SessionScaler()
    expected = np.concatenate(make_pipeline(*map(clone, steps)).fit_transform(X))
    given = {f"{type(step).__name__.lower()}__sessions": labels() for step in steps}
    found = make_pipeline(*map(clone, steps)).fit_transform(np.concatenate(X), **given)
    np.testing.assert_allclose(found, expected)
    del given["timedelaypca__sessions"]
    found = make_pipeline(*map(clone, steps)).fit_transform(np.concatenate(X), **given)
    assert not np.allclose(found, expected)


@pytest.mark.parametrize("transformer", INVERTIBLE, ids=repr)
def test_labels_route_to_inverses(transformer):
    X, sessions = np.concatenate(sessions_of()), labels()
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(clone(transformer)).fit(X, sessions=sessions)
        wide = pipeline.transform(X, sessions=sessions)
        back = pipeline.inverse_transform(wide, sessions=sessions)
    np.testing.assert_allclose(back, X, rtol=1e-10)


def small_pipeline():
    model = DyNeMoEstimator(
        n_modes=2, sequence_length=20, inference_n_units=4, model_n_units=4, n_epochs=1
    )
    return Pipeline(
        [
            ("filter", BandpassFilter(low=0.02)),
            ("pca", TimeDelayPCA(5, 4)),
            ("scale", SessionScaler()),
            ("model", model.set_params(random_state=0)),
        ]
    )


# A tiny fit says that it explains nothing.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_pipeline_up_to_the_model_is_its_steps():
    X, sessions = np.concatenate(sessions_of([60, 80])), labels([60, 80])
    pipeline = small_pipeline()
    with config_context(enable_metadata_routing=True):
        alpha = pipeline.fit(X, sessions=sessions).transform(X, sessions=sessions)
        assert np.isfinite(pipeline.score(X, sessions=sessions))
    scores = X
    for _, step in small_pipeline().steps:
        scores = step.fit_transform(scores, sessions=sessions)
    np.testing.assert_array_equal(alpha, scores)
    # With routing off, or as well: sessions in a list.
    as_list = small_pipeline().fit_transform([X[:60], X[60:]])
    np.testing.assert_array_equal(np.concatenate(as_list), alpha)


# A tiny fit says that it explains nothing.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_parameters_of_a_step_can_be_searched():
    X, sessions = np.concatenate(sessions_of([60, 80])), labels([60, 80])
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(small_pipeline(), {"pca__n_embeddings": [1, 3]}, cv=KFold(2))
        search.set_params(estimator__pca__n_components=2).fit(X, sessions=sessions)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


CLASSES = [
    one
    for one in (getattr(preprocessing, name) for name in preprocessing.__all__)
    if hasattr(one, "fit")
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_transformers_validate_every_parameter(kind):
    assert set(kind._parameter_constraints) == set(kind._get_param_names())
