import numpy as np
import pytest
import torch
from sklearn.utils.validation import check_array

from skdyn.core.windows import WindowLoader, gaps, jitter
from skdyn.dynemo import fitting


def loader_of(sessions):
    return WindowLoader(sessions, np.ones(sessions[0].shape[1]), torch.device("cpu"))


@pytest.mark.parametrize("unit", [1e-150, 1e-6, 1.0, 1e150])
def test_scale_is_the_root_mean_square(unit):
    sessions = [np.random.default_rng(seed).normal(2, 3, (50 + seed, 4)) for seed in range(3)]
    scale = fitting.check_scale([unit * session for session in sessions])
    expected = unit * np.sqrt(np.mean(np.concatenate(sessions) ** 2, axis=0))
    np.testing.assert_allclose(scale, expected, rtol=1e-12)


def test_scale_of_integers_and_single_precision():
    X = np.random.default_rng(0).integers(-(2**15), 2**15 - 1, (5000, 3), dtype=np.int16)
    expected = np.sqrt(np.mean(X.astype(float) ** 2, axis=0))
    np.testing.assert_allclose(fitting.check_scale([X]), expected, rtol=1e-12)
    single = (X * np.float32(1e30)).astype(np.float32)
    np.testing.assert_allclose(fitting.check_scale([single]), 1e30 * expected, rtol=1e-6)


def test_a_channel_may_be_constant_in_one_session_only():
    X = np.random.default_rng(0).normal(size=(20, 2))
    flat = np.column_stack([X[:, 0], np.full(20, 3.0)])
    assert np.isfinite(fitting.check_scale([X, flat])).all()
    with pytest.raises(ValueError, match=r"channels \[1\] do not vary"):
        fitting.check_scale([flat, flat])


def test_held_out_windows_and_training_rows_share_nothing(small_dynemo):
    sessions = [
        np.arange(n, dtype=float)[:, None] + 10_000 * i for i, n in enumerate([500, 230, 30])
    ]
    model = small_dynemo(n_iter_no_change=1, validation_fraction=0.4)
    loader = loader_of(sessions)
    rest, held_out = fitting._hold_out(loader, model, np.random.RandomState(0))
    rows = {float(row) for session in rest.sessions for row in session[:, 0]}
    watched = {
        float(row)
        for session, start, length in zip(
            held_out.session, held_out.start, held_out.length, strict=True
        )
        for row in sessions[session][start : start + length, 0]
    }
    assert not rows & watched
    assert rows | watched == {float(row) for session in sessions for row in session[:, 0]}
    assert len(held_out) == round(0.4 * 16)
    # The end of the second session is covered by a window that overlaps its neighbour.
    assert 10_229.0 in rows


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_iter_no_change": None},
        {"n_iter_no_change": 3, "validation_fraction": None},
        {"n_iter_no_change": 3, "validation_fraction": 0.01},
    ],
    ids=str,
)
def test_without_windows_to_spare_the_training_windows_are_watched(small_dynemo, parameters):
    loader = loader_of([np.zeros((230, 1))])
    model = small_dynemo(**parameters)
    rest, held_out = fitting._hold_out(loader, model, np.random.RandomState(0))
    assert rest is loader
    assert list(held_out.start) == [0, 50, 100, 150, 180]


def test_given_modes_are_scaled_as_the_data_are(small_dynemo):
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(2, 3, 3))
    covariances, means = factors @ factors.swapaxes(1, 2), rng.normal(size=(2, 3))
    scale = np.array([1e-3, 1.0, 50.0])
    model = small_dynemo(initial_means=means, initial_covariances=covariances)
    scaled_means, scaled_covariances = fitting.starting_modes(model, scale)
    X = rng.multivariate_normal(means[0], covariances[0], 200_000)
    np.testing.assert_allclose(scaled_means[0], (X / scale).mean(axis=0), rtol=0.05)
    np.testing.assert_allclose(scaled_covariances[0], np.cov((X / scale).T), rtol=0.05)
    assert check_array(model.initial_means) is not scaled_means


def test_gaps_and_windows_make_up_the_sessions():
    n_rows = [400, 100, 250]
    held_out = fitting.cut_windows(n_rows, 50, 50)[np.array([0, 3, 4, 8, 10])]
    rest = gaps(held_out, n_rows)
    covered = [np.zeros(n, dtype=int) for n in n_rows]
    for windows in (held_out, rest):
        for session, start, length in zip(
            windows.session, windows.start, windows.length, strict=True
        ):
            covered[session][start : start + length] += 1
    assert all((one == 1).all() for one in covered)
    assert [(s, a, n) for s, a, n in zip(*vars(rest).values(), strict=True)] == [
        (0, 50, 100),
        (0, 250, 150),
        (1, 50, 50),
        (2, 50, 200),
    ]


def test_jittered_windows_stay_in_their_session_and_reach_every_row():
    n_rows = [230, 50, 20]
    windows = fitting.cut_windows(n_rows, 50, 50)
    generator = torch.Generator().manual_seed(0)
    covered = [np.zeros(n, dtype=bool) for n in n_rows]
    starts = set()
    for _ in range(2000):
        moved = jitter(windows, n_rows, generator)
        assert np.array_equal(moved.length, windows.length)
        assert np.array_equal(moved.session, windows.session)
        assert (moved.start >= 0).all()
        assert (moved.start + moved.length <= np.array(n_rows)[moved.session]).all()
        assert (np.abs(moved.start - windows.start) <= 25).all()
        starts |= set(moved.start[moved.session == 0].tolist())
        for session, start, length in zip(*vars(moved).values(), strict=True):
            covered[session][start : start + length] = True
    assert all(one.all() for one in covered)
    assert starts == set(range(181))
