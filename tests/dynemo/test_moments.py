import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from scipy.optimize import linear_sum_assignment

from skdyn import DyNeMoEstimator
from skdyn.core.recurrent import RecurrentSettings
from skdyn.core.windows import WindowLoader
from skdyn.dynemo import moments
from skdyn.dynemo import start as start_module
from skdyn.dynemo.moments import (
    Moments,
    hann_window,
    leading_directions,
    mixing_from_moments,
    modes_from_moments,
)
from skdyn.dynemo.network import NetworkSettings
from skdyn.dynemo.start import read_pieces
from skdyn.simulation import MixedSineMVN

N_MODES, N_CHANNELS = 4, 8
MEANS_LEARNED = {"learn_means": True, "zero_means": False}
KINDS = [
    {"means": means, "covariances": covariances, "diagonal": diagonal}
    for means, covariances in ((False, True), (True, False), (True, True))
    for diagonal in (False, True)
]


def simulate(n_samples=8000, seed=2, **parameters):
    return MixedSineMVN(
        n_samples,
        N_MODES,
        N_CHANNELS,
        relative_activation=[0] * N_MODES,
        amplitudes=[4] * N_MODES,
        frequencies=[0.5, 1.2, 2, 3],
        sampling_frequency=250,
        random_state=seed,
        **parameters,
    )


def diagonal_matrices():
    """Each mode is strong in two channels of its own."""
    strong = np.random.default_rng(0).uniform(3, 5, (N_MODES, N_CHANNELS))
    variances = 0.3 + strong * np.repeat(np.eye(N_MODES), 2, axis=1)
    return variances[:, :, None] * np.eye(N_CHANNELS)


def loader_of(sessions):
    scale = np.sqrt(np.mean(np.concatenate(sessions) ** 2, axis=0))
    return WindowLoader(sessions, scale, torch.device("cpu"))


def find_modes(sessions, n_modes=N_MODES, given=(None, None), **settings):
    """Modes in units of the recording, also those that are given."""
    sessions = sessions if isinstance(sessions, list) else [sessions]
    loader, stack = loader_of(sessions), RecurrentSettings(n_units=3)
    settings = NetworkSettings(n_modes, len(loader.scale), stack, stack, **settings)
    squared = np.outer(loader.scale, loader.scale)
    squared = loader.scale**2 if settings.diagonal_covariances else squared
    units = loader.scale, squared
    known = tuple(
        None if one is None else one / unit for one, unit in zip(given, units, strict=True)
    )
    some = Moments(
        read_pieces(loader).rows,
        means=not settings.zero_means,
        covariances=settings.learn_covariances or known[1] is not None,
        diagonal=settings.diagonal_covariances,
    )
    found = modes_from_moments(some, n_modes, known)
    return [None if one is None else one * unit for one, unit in zip(found, units, strict=True)]


def matched_correlations(truth, found):
    truth, found = (np.reshape(one, (len(one), -1)) for one in (truth, found))
    pairs = np.corrcoef(truth, found)[: len(truth), len(truth) :]
    return pairs[linear_sum_assignment(-pairs)]


def assert_positive_definite(covariances, n_modes, n_channels):
    assert covariances.shape == (n_modes, n_channels, n_channels)
    assert np.isfinite(covariances).all()
    np.testing.assert_allclose(covariances, covariances.swapaxes(1, 2), rtol=1e-10, atol=1e-12)
    assert np.linalg.eigvalsh(covariances).min() > 0


# Moments as vectors


def correlated_rows(lengths=(70, 1, 129), n_channels=3):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((sum(lengths), 3)) @ rng.standard_normal((3, n_channels))
    return [piece + 0.3 for piece in np.split(rows.astype(np.float32), np.cumsum(lengths)[:-1])]


def brute_force(some):
    """The vector of moments of each row, one after the other."""
    vectors = []
    for row, rest in zip(some.rows, some.residual, strict=True):
        products = rest**2 if some.diagonal else np.outer(rest, rest).ravel()
        parts = [np.sqrt(2) * row] * some.means + [products] * some.covariances
        vectors.append(np.concatenate(parts))
    return np.array(vectors, dtype=np.float64)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_projections_and_combinations_are_those_of_explicit_products(kind):
    some = Moments(correlated_rows(), **kind)
    vectors = brute_force(some)
    assert vectors.shape == (200, some.n_features)
    assert np.linalg.matrix_rank(vectors, tol=1e-4) == some.n_distinct
    np.testing.assert_allclose(some.average, vectors.mean(axis=0), atol=1e-5)
    rng = np.random.default_rng(1)
    directions, weights = rng.standard_normal((4, some.n_features)), rng.standard_normal(200)
    projections = some.project(directions)
    expected = (vectors - vectors.mean(axis=0)) @ directions.T
    np.testing.assert_allclose(projections, expected, atol=1e-4)
    np.testing.assert_allclose(some.combine(weights), weights @ vectors, atol=1e-3)
    # One is the transpose of the other.
    weights -= weights.mean()
    np.testing.assert_allclose(
        projections.T @ weights, directions @ some.combine(weights), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("diagonal", [False, True])
def test_rows_are_white_and_can_be_brought_back(diagonal):
    pieces = correlated_rows()
    some = Moments(pieces, means=False, covariances=True, diagonal=diagonal)
    second = some.rows.T @ some.rows / 200
    wanted = second if diagonal else np.eye(3)
    np.testing.assert_allclose(np.diag(second), 1, rtol=1e-4)
    np.testing.assert_allclose(second, wanted, atol=1e-4)
    np.testing.assert_allclose(some.rows @ some.unwhiten, np.concatenate(pieces), atol=1e-4)


@pytest.mark.parametrize("diagonal", [False, True])
def test_the_average_stands_for_the_second_moment_of_all_rows(diagonal):
    pieces = correlated_rows()
    some = Moments(pieces, means=False, covariances=True, diagonal=diagonal)
    means, covariances = some.modes(np.zeros((1, some.n_features)))
    assert means is None
    wanted = np.concatenate(pieces).T @ np.concatenate(pieces) / 200
    np.testing.assert_allclose(
        covariances[0], np.diag(wanted) if diagonal else wanted, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("diagonal", [False, True])
def test_the_average_stands_for_the_mean_and_the_covariance_where_both_count(diagonal):
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((3, 3))
    rows = rng.standard_normal((20_000, 3)) @ (np.diag([1, 2, 3]) if diagonal else mixing)
    shift = np.array([0.1, 0.2, -0.3])
    some = Moments([rows + shift], means=True, covariances=True, diagonal=diagonal)
    means, covariances = some.modes(np.zeros((1, some.n_features)))
    np.testing.assert_allclose(means[0], rows.mean(axis=0) + shift, atol=1e-3)
    wanted = np.diag(rows.T @ rows) if diagonal else rows.T @ rows
    np.testing.assert_allclose(20_000 * covariances[0], wanted, atol=0.03 * wanted.max())


# Within stretches


def test_filters_match_a_loop_that_stays_within_its_stretch():
    pieces = correlated_rows((70, 1, 129))
    some = Moments(pieces, means=False, covariances=True, diagonal=False)
    series = np.random.default_rng(1).standard_normal((200, 2))
    lagged, smooth = some.lagged(series), some.smooth(series, 24)
    window = hann_window(24)
    for start, stop in [(0, 70), (70, 71), (71, 200)]:
        for row in range(start, stop):
            near = [
                other
                for other in range(row - moments.N_LAGS, row + moments.N_LAGS + 1)
                if start <= other < stop and other != row
            ]
            np.testing.assert_allclose(lagged[row], series[near].sum(axis=0), atol=1e-12)
            # The ends of a stretch are repeated beyond it.
            around = np.clip(np.arange(row - 12, row + 13), start, stop - 1)
            np.testing.assert_allclose(smooth[row], window @ series[around], atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 8, 13, 256])
def test_hann_window(length):
    window = hann_window(length)
    assert len(window) == 2 * (length // 2) + 1
    assert window.sum() == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(window, window[::-1], rtol=1e-12)
    assert window.min() > 0
    assert window.argmax() == length // 2


@pytest.mark.parametrize("n_pieces", [1, 8])
def test_the_window_grows_with_the_time_scale(n_pieces):
    rng = np.random.default_rng(0)
    some = Moments(
        np.split(rng.standard_normal((8000, 1)), n_pieces),
        means=True,
        covariances=False,
        diagonal=False,
    )
    lengths = []
    for dwell in (10, 100, 1000):
        states = np.cumsum(rng.random(8000) < 1 / dwell) % 2
        noisy = states - 0.5 + rng.standard_normal(8000)
        lengths.append(some.window_length(noisy[:, np.newaxis]))
    assert lengths[0] < lengths[1] < lengths[2]
    assert set(lengths) <= set(moments.WINDOW_LENGTHS)


def test_the_window_grows_with_the_noise():
    rng = np.random.default_rng(0)
    some = Moments([np.ones((8000, 1))], means=True, covariances=False, diagonal=False)
    signal = np.sin(2 * np.pi * np.arange(8000) / 100)
    lengths = [
        some.window_length((signal + noise * rng.standard_normal(8000))[:, np.newaxis])
        for noise in (0.1, 1, 5)
    ]
    assert lengths[0] < lengths[1] < lengths[2]


# Directions


def test_directions_are_the_same_from_the_whole_matrix_and_from_products_with_it():
    some = Moments([simulate(3000).time_series], means=False, covariances=True, diagonal=False)
    assert some.n_features > 2 * (N_MODES - 1)
    lanczos, dense = (leading_directions(some, n) for n in (N_MODES - 1, some.n_distinct))
    assert lanczos.shape == (N_MODES - 1, N_CHANNELS**2)
    assert dense.shape == (some.n_distinct, N_CHANNELS**2)
    for found in (lanczos, dense):
        np.testing.assert_allclose(found @ found.T, np.eye(len(found)), atol=1e-6)
        matrices = found[: N_MODES - 1].reshape(-1, N_CHANNELS, N_CHANNELS)
        np.testing.assert_allclose(matrices, matrices.swapaxes(1, 2), atol=1e-3)
    cosines = np.abs(np.sum(lanczos * dense[: N_MODES - 1], axis=1))
    np.testing.assert_allclose(cosines, 1, atol=0.01)


@pytest.mark.parametrize("seed", [0, 1])
def test_directions_are_those_in_which_the_modes_differ(seed):
    simulation = simulate(10_000, seed=seed)
    some = Moments([simulation.time_series], means=False, covariances=True, diagonal=False)
    whiten = np.linalg.inv(some.unwhiten)
    modes = (whiten @ simulation.covariances @ whiten).reshape(N_MODES, -1)
    truth = (modes - modes.mean(axis=0))[1:]
    angles = subspace_angles(leading_directions(some, N_MODES - 1).T, truth.T)
    assert np.cos(angles).min() > 0.9


def test_no_more_directions_than_there_are():
    some = Moments(correlated_rows(n_channels=2), means=True, covariances=True, diagonal=False)
    assert leading_directions(some, 9).shape == (2 + 3, 2 + 4)


# Modes


@pytest.mark.parametrize("seed", [2, 3])
def test_covariances_of_a_soft_mixture_are_found(seed):
    simulation = simulate(seed=seed)
    means, covariances = find_modes(simulation.time_series)
    assert means is None
    assert_positive_definite(covariances, N_MODES, N_CHANNELS)
    assert matched_correlations(simulation.covariances, covariances).min() > 0.95
    size = np.trace(covariances, axis1=1, axis2=2).sum()
    assert size == pytest.approx(np.trace(simulation.covariances, axis1=1, axis2=2).sum(), rel=0.2)


@pytest.mark.parametrize("seed", [2, 3])
def test_means_and_covariances_of_a_soft_mixture_are_found(seed):
    simulation = simulate(seed=seed, means="random")
    means, covariances = find_modes(simulation.time_series, **MEANS_LEARNED)
    assert_positive_definite(covariances, N_MODES, N_CHANNELS)
    assert matched_correlations(simulation.means, means).min() > 0.95
    assert matched_correlations(simulation.covariances, covariances).min() > 0.95


def test_means_alone_are_found():
    truth = 3 * np.random.default_rng(0).standard_normal((N_MODES, N_CHANNELS))
    simulation = simulate(means=truth, covariances=diagonal_matrices())
    means, covariances = find_modes(
        simulation.time_series, learn_covariances=False, **MEANS_LEARNED
    )
    assert covariances is None
    assert matched_correlations(truth, means).min() > 0.95


def test_diagonal_covariances_are_found():
    simulation = simulate(covariances=diagonal_matrices())
    _, variances = find_modes(simulation.time_series, diagonal_covariances=True)
    assert variances.shape == (N_MODES, N_CHANNELS)
    assert variances.min() > 0
    truth = np.diagonal(simulation.covariances, axis1=1, axis2=2)
    assert matched_correlations(truth, variances).min() > 0.95


def test_units_and_rotations_of_the_channels_do_not_matter():
    X = simulate().time_series
    axes = np.random.default_rng(0).standard_normal((N_CHANNELS, N_CHANNELS))
    plain, turned = find_modes(X)[1], find_modes(X @ axes)[1]
    pairs = matched_correlations(axes.T @ plain @ axes, turned)
    assert pairs.min() > 0.999


def test_the_same_bits_every_time():
    X = simulate(3000).time_series
    first, second = (find_modes(X, **MEANS_LEARNED) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("order", [[2, 0, 3, 1], [3, 2, 1, 0]])
def test_what_is_given_says_the_order_of_what_is_found(order):
    simulation = simulate(means="random", seed=3)
    X, means, covariances = simulation.time_series, simulation.means, simulation.covariances
    kept, found = find_modes(X, given=(means[order], None), **MEANS_LEARNED)
    np.testing.assert_allclose(kept, means[order], rtol=1e-12)
    for one, other in zip(found, covariances[order], strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95
    found, kept = find_modes(X, given=(None, covariances[order]), **MEANS_LEARNED)
    np.testing.assert_allclose(kept, covariances[order], rtol=1e-12)
    for one, other in zip(found, means[order], strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.95


def test_given_covariances_order_the_means_also_if_they_are_fixed():
    simulation = simulate(means="random", seed=3)
    given = (None, simulation.covariances[::-1])
    means, _ = find_modes(
        simulation.time_series, given=given, learn_covariances=False, **MEANS_LEARNED
    )
    for one, other in zip(means, simulation.means[::-1], strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.95


# Mixing


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_modes_and_their_moments_are_two_forms_of_one_thing(kind):
    rng = np.random.default_rng(0)
    roots = rng.standard_normal((4, 3, 3))
    covariances = np.eye(3) + roots @ roots.swapaxes(1, 2)
    if kind["diagonal"]:
        covariances = np.diagonal(covariances, axis1=1, axis2=2)
    some = Moments(correlated_rows(), **kind)
    vertices = some.vertices(rng.standard_normal((4, 3)), covariances)
    assert vertices.shape == (4, some.n_features)
    again = some.vertices(*some.modes(vertices))
    np.testing.assert_allclose(again, vertices, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("means", ["zero", "random"])
def test_the_mixing_of_known_modes_is_seen(means):
    simulation, counted = simulate(means=means), means == "random"
    pieces = np.split(simulation.time_series, [3000, 3001])
    some = Moments(pieces, means=counted, covariances=True, diagonal=False)
    mixing = mixing_from_moments(some, simulation.means, simulation.covariances)
    assert [one.shape for one in mixing] == [(3000, 4), (1, 4), (4999, 4)]
    mixing = np.concatenate(mixing)
    np.testing.assert_allclose(mixing.sum(axis=1), 1, rtol=1e-5)
    pairs = zip(simulation.mode_time_course.T, mixing.T, strict=True)
    assert min(np.corrcoef(*columns)[0, 1] for columns in pairs) > 0.75


def test_a_mode_that_stays_has_nearly_all_the_weight():
    variances, states = np.array([[1, 1, 9.0], [9, 1, 1]]), np.arange(4000) // 1000 % 2
    rows = np.random.default_rng(0).standard_normal((4000, 3)) * np.sqrt(variances[states])
    some = Moments([rows], means=False, covariances=True, diagonal=True)
    (mixing,) = mixing_from_moments(some, None, variances)
    inside = np.abs(np.arange(4000) % 1000 - 500) < 350
    assert mixing[np.arange(4000), states][inside].mean() > 0.95
    # One that is never there keeps a little.
    assert mixing.min() == pytest.approx(moments.SMALLEST_COEFFICIENT, rel=0.5)


def test_equal_modes_have_equal_weights():
    some = Moments(correlated_rows(), means=False, covariances=True, diagonal=False)
    mixing = mixing_from_moments(some, None, np.stack([np.eye(3)] * 4))
    np.testing.assert_allclose(np.concatenate(mixing), 0.25, rtol=1e-6)


# Recordings of other shapes


def test_sessions_count_together():
    simulation = simulate(seed=3)
    X = simulation.time_series
    sessions = [X[:3000], X[3000:3010], X[3010:3011], X[3011:]]
    covariances = find_modes(sessions)[1]
    assert matched_correlations(simulation.covariances, covariances).min() > 0.95


@pytest.mark.parametrize("settings", [{}, MEANS_LEARNED], ids=["zero means", "means"])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_more_modes_than_dimensions(n_channels, settings):
    X = simulate(2000).time_series[:, :n_channels]
    covariances = find_modes(X, n_modes=6, **settings)[1]
    assert_positive_definite(covariances, 6, n_channels)
    assert len(np.unique(covariances[:, 0, 0])) == 6


@pytest.mark.parametrize("settings", [{}, MEANS_LEARNED], ids=["zero means", "means"])
def test_duplicated_channels(settings):
    X = simulate(2000).time_series
    covariances = find_modes(np.column_stack([X, X[:, :3], -X[:, :2]]), n_modes=6, **settings)[1]
    assert_positive_definite(covariances, 6, 13)


def test_as_few_rows_as_the_start_asks_for():
    X = np.random.default_rng(0).standard_normal((60, 5))
    assert_positive_definite(find_modes(X, n_modes=6)[1], 6, 5)
    assert_positive_definite(find_modes(X, n_modes=6, **MEANS_LEARNED)[1], 6, 5)


@pytest.mark.parametrize(
    "change",
    [
        lambda X: np.where(np.arange(2000)[:, None] == 700, 1e4, X),
        lambda X: X * (np.arange(2000) % 100 == 0)[:, None],
        lambda X: np.round(X),
        lambda X: np.sign(X),
        lambda X: np.sin(np.arange(2000) / 50)[:, None] + 0 * X,
        lambda X: np.repeat([[1, 2, 3.0], [-3, 1, 2]], 1000, axis=0),
    ],
    ids=["outlier", "mostly zero", "integers", "signs", "one sine", "two values"],
)
def test_odd_recordings(change):
    X = change(np.random.default_rng(0).standard_normal((2000, 3)))
    assert_positive_definite(find_modes(X)[1], N_MODES, 3)


def test_a_long_recording_is_represented_by_stretches(monkeypatch):
    monkeypatch.setattr(start_module, "MAX_ROWS", 2048)
    monkeypatch.setattr(start_module, "STRETCH", 128)
    rng = np.random.default_rng(0)
    sessions = [rng.standard_normal((n, 2)) for n in (3000, 50, 2950)]
    loader = loader_of(sessions)
    pieces = read_pieces(loader).rows
    assert all(piece.dtype == np.float32 for piece in pieces)
    assert 1500 < sum(map(len, pieces)) <= 2048
    scaled = [(session / loader.scale).astype(np.float32) for session in sessions]
    places = []
    for piece in pieces:
        # Every value occurs once.
        (session, start), *others = [
            (number, int(np.flatnonzero(one[:, 0] == piece[0, 0])[0]))
            for number, one in enumerate(scaled)
            if piece[0, 0] in one[:, 0]
        ]
        assert not others
        np.testing.assert_array_equal(scaled[session][start : start + len(piece)], piece)
        places.append(start + [0, 3000, 3050][session])
    assert places[0] == 0
    assert np.diff(places).min() >= 50
    assert np.diff(places).max() < 1000
    assert places[-1] > 5500


def test_a_short_recording_is_taken_whole():
    sessions = [np.random.default_rng(n).standard_normal((n, 2)) for n in (3000, 1, 50)]
    loader = loader_of(sessions)
    for piece, session in zip(read_pieces(loader).rows, sessions, strict=True):
        np.testing.assert_allclose(piece, session / loader.scale, rtol=1e-6)


@pytest.mark.parametrize("settings", [{}, MEANS_LEARNED], ids=["zero means", "means"])
def test_a_long_recording_that_repeats_itself(monkeypatch, settings):
    monkeypatch.setattr(start_module, "MAX_ROWS", 4096)
    monkeypatch.setattr(start_module, "STRETCH", 512)
    X = simulate(2000).time_series
    covariances = find_modes([X] * 5, n_modes=6, **settings)[1]
    assert_positive_definite(covariances, 6, N_CHANNELS)


def test_a_recording_with_outliers_that_repeats_itself():
    for seed in range(10):
        X = np.random.default_rng(seed).standard_t(1.5, size=(2048, 5))
        assert_positive_definite(find_modes([X] * 4, n_modes=6)[1], 6, 5)


@pytest.mark.filterwarnings(
    "ignore:(The (bound|mixing|modes)|Training ended):sklearn.exceptions.ConvergenceWarning"
)
@pytest.mark.filterwarnings("ignore:The means of the channels")
@pytest.mark.parametrize(
    ("sessions", "settings"),
    [
        ([np.array([[1.0 * n, 1 - n, n % 3]]) for n in range(100)], {}),
        (np.random.default_rng(0).choice([-1.0, 1.0], (500, 7)), {"diagonal_covariances": True}),
        (np.random.default_rng(0).choice([-1.0, 1.0], (500, 3)), {"diagonal_covariances": True}),
        (np.random.default_rng(0).choice([-1.0, 1.0], (500, 1)), {}),
    ],
    ids=["sessions of one row", "equal squares", "few equal squares", "one channel"],
)
def test_where_moments_do_not_move_modes_start_at_random(sessions, settings):
    with pytest.raises(np.linalg.LinAlgError):
        find_modes(sessions, **settings)
    model = DyNeMoEstimator(3, n_epochs=1, random_state=0, **settings).fit(sessions)
    assert np.isfinite(model.covariances_).all()
