import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skdyn.core.windows import WindowLoader, cut_windows, gaps, jitter
from skdyn.dynemo import training
from skdyn.dynemo.recording import check_scale
from skdyn.dynemo.settings import make_settings
from skdyn.preprocessing import CovarianceAligner


def loader_of(sessions):
    return WindowLoader(sessions, np.ones(sessions[0].shape[1]), torch.device("cpu"))


def settings_of(model, n_channels=1):
    parameters = model.get_params(deep=False)
    return make_settings(parameters, np.zeros(n_channels), np.ones(n_channels), 1e-6)


def scale_of(sessions):
    center, scale = check_scale(sessions, centred=False)
    assert not center.any()
    return scale


@pytest.mark.parametrize("unit", [1e-150, 1e-6, 1.0, 1e150])
def test_scale_is_the_root_mean_square(unit):
    sessions = [np.random.default_rng(seed).normal(2, 3, (50 + seed, 4)) for seed in range(3)]
    scale = scale_of([unit * session for session in sessions])
    expected = unit * np.sqrt(np.mean(np.concatenate(sessions) ** 2, axis=0))
    np.testing.assert_allclose(scale, expected, rtol=1e-12)


def test_scale_of_integers_and_single_precision():
    X = np.random.default_rng(0).integers(-(2**15), 2**15 - 1, (5000, 3), dtype=np.int16)
    expected = np.sqrt(np.mean(X.astype(float) ** 2, axis=0))
    np.testing.assert_allclose(scale_of([X]), expected, rtol=1e-12)
    single = (X * np.float32(1e30)).astype(np.float32)
    np.testing.assert_allclose(scale_of([single]), 1e30 * expected, rtol=1e-6)


def test_a_channel_may_be_constant_in_one_session_only():
    X = np.random.default_rng(0).normal(size=(20, 2))
    flat = np.column_stack([X[:, 0], np.full(20, 3.0)])
    assert np.isfinite(scale_of([X, flat])).all()
    with pytest.raises(ValueError, match=r"Channels \[1\] of X do not vary"):
        scale_of([flat, flat])


def test_held_out_windows_and_training_rows_share_nothing(small_dynemo):
    sessions = [
        np.arange(n, dtype=float)[:, None] + 10_000 * i for i, n in enumerate([500, 230, 30])
    ]
    model = small_dynemo(n_iter_no_change=1, validation_fraction=0.4)
    loader = loader_of(sessions)
    rest, held_out = training._hold_out(loader, settings_of(model), np.random.RandomState(0))
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
    ],
    ids=str,
)
def test_without_windows_to_spare_the_training_windows_are_watched(small_dynemo, parameters):
    loader = loader_of([np.zeros((230, 1))])
    model = small_dynemo(**parameters)
    rest, held_out = training._hold_out(loader, settings_of(model), np.random.RandomState(0))
    assert rest is loader
    assert list(held_out.start) == [0, 50, 100, 150, 180]


def test_given_modes_are_scaled_as_the_data_are(small_dynemo):
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(2, 3, 3))
    covariances, means = factors @ factors.swapaxes(1, 2), rng.normal(size=(2, 3))
    scale = np.array([1e-3, 1.0, 50.0])
    model = small_dynemo(initial_means=means, initial_covariances=covariances)
    center = np.array([1.0, 0.0, 3.0])
    scaled = make_settings(model.get_params(deep=False), center, scale, 1e-6)
    X = (rng.multivariate_normal(means[0], covariances[0], 200_000) - center) / scale
    np.testing.assert_allclose(scaled.means[0], X.mean(axis=0), rtol=0.05)
    np.testing.assert_allclose(scaled.covariances[0], np.cov(X.T), rtol=0.05)


def test_gaps_and_windows_make_up_the_sessions():
    n_rows = [400, 100, 250]
    held_out = cut_windows(n_rows, 50, 50)[np.array([0, 3, 4, 8, 10])]
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
    windows = cut_windows(n_rows, 50, 50)
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


def test_centred_scale_is_the_standard_deviation():
    X = np.random.default_rng(0).normal(1e3, 2, (500, 3))
    center, scale = check_scale([X[:100], X[100:]], centred=True)
    np.testing.assert_allclose(center, X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scale, X.std(axis=0), rtol=1e-8)


# The check of a fit


def easy(n_rows=3000, n_channels=4):
    rng = np.random.default_rng(0)
    power = np.exp(1.5 * np.sin(np.arange(n_rows) / 60)[:, None] * np.array([1, -1, 1, -1]))
    return power[:, :n_channels] * rng.standard_normal((n_rows, n_channels))


def test_a_training_that_loses_its_start_is_undone(small_dynemo, monkeypatch):
    X, states = easy(), []
    train = training.Trainer.train

    def ruin(self, watcher, **settings):
        states.append({name: w.clone() for name, w in self.network.state_dict().items()})
        done = train(self, watcher, **settings)
        with torch.no_grad():
            self.network.covariance_vectors.fill_(1.0)
        return done

    monkeypatch.setattr(training.Trainer, "train", ruin)
    with pytest.warns(ConvergenceWarning, match="below that of its start"):
        model = small_dynemo(n_epochs=6).fit(X)
    kept = model.network_.state_dict()["covariance_vectors"]
    assert torch.equal(kept, states[0]["covariance_vectors"])
    assert "below that of its start" in model.summary()


@pytest.mark.parametrize("learn_means", [False, True])
@pytest.mark.parametrize(("n_channels", "n_modes"), [(3, 3), (6, 2), (8, 4)])
def test_rows_of_one_gaussian_show_no_modes(small_dynemo, n_channels, n_modes, learn_means):
    rng = np.random.default_rng(n_channels)
    X = rng.standard_normal((2000, n_channels)) @ rng.standard_normal((n_channels, n_channels))
    model = small_dynemo(n_modes=n_modes, learn_means=learn_means, n_epochs=6)
    with pytest.warns(ConvergenceWarning, match="not above|hardly"):
        model.fit(X)


def test_rows_of_modes_that_are_there_raise_no_alarm(small_dynemo):
    model = small_dynemo(n_epochs=8).fit(easy())
    assert not model.problem_


def sessions_with_own_covariance(n_sessions, n_rows, change):
    """Sessions that differ in their covariance, and in which the power of a channel changes."""
    rng = np.random.default_rng(0)
    X = []
    for number in range(n_sessions):
        rows = rng.standard_normal((n_rows, 4))
        rows[:, 0] *= 1 + change * (np.arange(n_rows) // 40 % 2)
        rotation = np.linalg.qr(rng.standard_normal((4, 4)))[0]
        X.append(rows @ (rotation * [3, 1, 1, 0.3]) @ rotation.T if number else rows)
    return X


def test_modes_of_sessions_are_reported_and_alignment_mends_them(small_dynemo):
    X = sessions_with_own_covariance(4, 1000, 1)
    model = small_dynemo(n_modes=4, n_epochs=4)
    with pytest.warns(ConvergenceWarning, match="is between sessions.*CovarianceAligner"):
        model.fit(X)
    assert "is between sessions" in model.summary()
    model.fit(CovarianceAligner().fit_transform(X))
    assert "between sessions" not in model.problem_


@pytest.mark.parametrize("n_rows", [100, 500])
def test_sessions_with_the_same_modes_raise_no_alarm(small_dynemo, n_rows):
    X = easy()
    model = small_dynemo(n_epochs=8).fit(np.array_split(X, len(X) // n_rows))
    assert not model.problem_
