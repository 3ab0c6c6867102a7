"""Input of DyNeMoEstimator: accepted forms, errors and warnings."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from skdyn import DyNeMoEstimator

# Tiny fits explain little, and say so.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The (bound|mixing|modes):sklearn.exceptions.ConvergenceWarning"
)


@pytest.mark.parametrize(
    "convert",
    [
        np.asfortranarray,
        lambda X: X.astype(np.float32),
        lambda X: X.tolist(),
        lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    ],
    ids=["fortran", "float32", "nested lists", "strided"],
)
def test_kinds_of_arrays(small_dynemo, recording, convert):
    X = convert(np.array(recording))
    alpha = small_dynemo().fit(X).transform(X)
    expected = small_dynemo().fit(recording).transform(recording)
    np.testing.assert_allclose(alpha, expected, atol=1e-3)


def test_memory_map_of_integers(small_dynemo, recording, tmp_path):
    whole = np.memmap(tmp_path / "x.dat", dtype=np.int16, mode="w+", shape=recording.shape)
    whole[:] = np.round(recording * 1000)
    whole.flush()
    X = np.memmap(tmp_path / "x.dat", dtype=np.int16, mode="r", shape=recording.shape)
    model = small_dynemo().fit(X)
    np.testing.assert_array_equal(
        model.transform(X), small_dynemo().fit(X.astype(float)).transform(X.astype(float))
    )


def test_nothing_of_the_callers_is_changed(small_dynemo, recording):
    X, covariances = np.array(recording), np.stack([np.eye(5)] * 2)
    before = X.copy(), covariances.copy()
    model = small_dynemo(initial_covariances=covariances)
    model.fit(X)
    model.transform(X)
    assert np.array_equal(X, before[0])
    assert np.array_equal(covariances, before[1])
    assert model.initial_covariances is covariances


def spoilt(value):
    def spoil(X):
        X[17, 2] = value
        return X

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoilt(np.nan), "NaN"),
        (spoilt(np.inf), "infinity"),
        (lambda X: X[:, 0], "Expected 2D array, got 1D array"),
        (lambda X: X[:0], "0 sample"),
        (lambda X: X[:1], "1 sample"),
        (lambda X: X[:, :0], "0 feature"),
        (lambda X: X[:3], r"3 sample\(s\).* while a minimum of 4 is required"),
        (lambda X: X.astype(str), "numeric"),
        (lambda X: X * [1, 1, 0, 1, 1], r"Channels \[2\] of X do not vary"),
        (lambda X: [X[:300], X[300:, :4]], "Session 1 of 2"),
        (lambda X: [X[:300], spoilt(np.nan)(X[300:])], "Session 1 of 2.*NaN"),
    ],
    ids=[
        "nan",
        "inf",
        "1-d",
        "empty",
        "one row",
        "no channels",
        "few rows",
        "text",
        "constant channel",
        "widths differ",
        "nan in a session",
    ],
)
def test_bad_recordings(small_dynemo, recording, spoil, message):
    model = small_dynemo(n_modes=4, init_method="random")
    with pytest.raises(ValueError, match=message):
        model.fit(spoil(np.array(recording)))
    assert model.fit(recording).transform(recording).shape == (600, 4)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_modes": 0}, "'n_modes' parameter"),
        ({"n_modes": 2.5}, "'n_modes' parameter"),
        ({"sequence_length": 1}, "'sequence_length' parameter"),
        ({"inference_rnn": "transformer"}, "'inference_rnn' parameter"),
        ({"learn_covariances": False}, "all modes would stay equal"),
        (
            {"do_kl_annealing": True, "n_kl_annealing_epochs": 4},
            "n_kl_annealing_epochs is 4, but must be at most n_epochs=3",
        ),
        ({"initial_covariances": np.eye(5)}, r"shape \(5, 5\), but \(2, 5, 5\) was expected"),
        ({"initial_covariances": -np.stack([np.eye(5)] * 2)}, "eigenvalue of -1"),
        ({"initial_covariances": np.triu(np.ones((2, 5, 5)))}, "not symmetric"),
        (
            {
                "initial_covariances": np.eye(5) + 0.1 * np.ones((2, 5, 5)),
                "diagonal_covariances": True,
            },
            "off the diagonal",
        ),
        (
            {"initial_covariances": np.zeros((2, 5)), "diagonal_covariances": True},
            "has the variance 0.0, but must be above 0",
        ),
        ({"initial_means": np.zeros((5, 2))}, r"but \(2, 5\) was expected"),
        ({"initial_means": np.full((2, 5), np.nan)}, "NaN"),
        ({"device": "nonsense"}, "Use 'cpu'"),
    ],
    ids=str,
)
def test_bad_parameters(small_dynemo, recording, parameters, message):
    model = small_dynemo(**parameters)
    with pytest.raises(ValueError, match=message):
        model.fit(recording)
    model.set_params(**small_dynemo(init_method="random").get_params())
    assert model.fit(recording).n_iter_ == 3


def test_bad_sessions(small_dynemo, recording):
    model = small_dynemo()
    with pytest.raises(ValueError, match="599 labels, but X has 600 rows"):
        model.fit(recording, sessions=np.zeros(599))
    with pytest.raises(ValueError, match="but sessions= was given as well"):
        model.fit([recording], sessions=np.zeros(600))
    assert model.fit(recording, sessions=np.zeros(600)).n_iter_ == 3


def test_unfitted(recording):
    for method in ("transform", "predict", "score", "score_samples", "free_energy"):
        with pytest.raises(NotFittedError):
            getattr(DyNeMoEstimator(), method)(recording)
    with pytest.raises(NotFittedError):
        DyNeMoEstimator().sample()
    with pytest.raises(NotFittedError):
        DyNeMoEstimator().summary()


def test_wrong_width_after_fit(small_dynemo, recording):
    model = small_dynemo().fit(recording)
    with pytest.raises(ValueError, match="4 features, but DyNeMoEstimator is expecting 5"):
        model.transform(recording[:, :4])
    assert model.transform(recording).shape == (600, 2)


# Warnings of a fit


def sinusoids(n_rows=2000, n_channels=4):
    rng = np.random.default_rng(0)
    power = 1 + 0.8 * np.sin(np.arange(n_rows) / 40)[:, None] * np.array([1, -1, 1, -1])
    return power[:, :n_channels] * rng.standard_normal((n_rows, n_channels))


def offset(X):
    return X + np.array([0, 3, 0, 0])


def gain(X):
    return [X[:1000], 10 * X[1000:]]


def artefact(X):
    X = X.copy()
    X[500:520] *= 60
    return X


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (offset, r"The means of the channels \[1\].*SessionScaler.*learn_means=True"),
        (gain, "different gain.*SessionScaler"),
        (artefact, "robust standard deviations.*BadSegments.*sample_weight"),
    ],
)
def test_what_is_likely_not_meant_is_told_with_what_mends_it(small_dynemo, change, message):
    with pytest.warns(UserWarning, match=message):
        small_dynemo(n_epochs=1).fit(change(sinusoids()))


def test_rows_fewer_than_channels_are_answered_with_the_transpose(small_dynemo):
    with pytest.raises(ValueError, match=r"Pass X\.T"):
        small_dynemo().fit(sinusoids(3, 4))


def test_with_means_learned_an_offset_changes_nothing_but_the_means(small_dynemo):
    X, shift = sinusoids(), np.array([0, 3, -50, 1e3])
    plain = small_dynemo(learn_means=True).fit(X)
    moved = small_dynemo(learn_means=True).fit(X + shift)
    np.testing.assert_allclose(moved.means_ - shift, plain.means_, atol=1e-3)
    np.testing.assert_allclose(moved.covariances_, plain.covariances_, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(moved.transform(X + shift), plain.transform(X), atol=1e-3)


def test_weights_of_one_are_no_weights(small_dynemo, recording):
    plain = small_dynemo().fit(recording)
    weighted = small_dynemo().fit(recording, sample_weight=np.ones(600))
    np.testing.assert_allclose(weighted.covariances_, plain.covariances_, rtol=1e-3, atol=1e-4)


def test_rows_of_weight_zero_do_not_matter(small_dynemo, recording):
    weight = np.r_[np.ones(300), np.zeros(40), np.ones(260)]
    garbage = recording.copy()
    garbage[300:340] = 1e5
    plain, other = (small_dynemo().fit(X, sample_weight=weight) for X in (recording, garbage))
    np.testing.assert_array_equal(plain.covariances_, other.covariances_)
    alpha = (small_dynemo().fit_transform(X, sample_weight=weight) for X in (recording, garbage))
    np.testing.assert_array_equal(*alpha)
