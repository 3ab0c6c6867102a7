import copy

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.stats import multivariate_normal, norm
from sklearn import config_context
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdyn import DyNeMoEstimator
from skdyn.core.recurrent import RecurrentSettings
from skdyn.core.windows import WindowLoader
from skdyn.dynemo.inference import Posterior, encode, log_weights, lower_bounds, refine
from skdyn.dynemo.network import NetworkSettings, empty_network

# Tiny fits explain little, and say so.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The (bound|mixing|modes):sklearn.exceptions.ConvergenceWarning"
)


@pytest.fixture(scope="module")
def trained(recording):
    """A model with modes that differ, trained well enough to have something to say."""
    return DyNeMoEstimator(
        n_modes=2,
        sequence_length=50,
        inference_n_units=8,
        model_n_units=8,
        n_epochs=40,
        batch_size=4,
        n_init=2,
        n_iter_no_change=None,
        n_refinement_steps=10,
        random_state=0,
    ).fit(recording)


def theta_and_prior(model, X):
    """Posterior and prior of one window, straight from the network."""
    x = torch.from_numpy((X / model.channel_scale_).astype(np.float32))[None]
    with torch.no_grad():
        mean, std = model.network_.posterior(x)
        prior_mean, prior_std = model.network_.prior(mean)
    return [one[0].double().numpy() for one in (mean, std, prior_mean, prior_std)]


def as_encoded(model):
    """The same model without refinement."""
    return copy.copy(model).set_params(n_refinement_steps=0)


def softmax(theta, temperature):
    weights = np.exp((theta - theta.max(axis=1, keepdims=True)) / temperature)
    return weights / weights.sum(axis=1, keepdims=True)


def test_alpha_is_the_softmax_of_the_posterior_mean(trained, recording):
    X = recording[:50]
    theta = theta_and_prior(trained, X)[0]
    alpha = as_encoded(trained).transform(X)
    np.testing.assert_allclose(alpha, softmax(theta, trained.alpha_temperature_), rtol=1e-5)
    np.testing.assert_array_equal(trained.predict(X), trained.transform(X).argmax(axis=1))


def test_free_energy_at_the_mean_against_scipy_row_by_row(trained, recording):
    X, model = recording[:50], as_encoded(trained)
    mean, std, prior_mean, prior_std = theta_and_prior(trained, X)
    alpha = model.transform(X)
    bounds = []
    for t in range(50):
        covariance = np.einsum("j,jab->ab", alpha[t], trained.covariances_)
        bound = multivariate_normal.logpdf(X[t], np.zeros(5), covariance)
        if t > 0:
            for j in range(2):
                m, s, pm, ps = mean[t, j], std[t, j], prior_mean[t - 1, j], prior_std[t - 1, j]
                bound -= np.log(ps / s) + (s**2 + (m - pm) ** 2) / (2 * ps**2) - 0.5
        bounds.append(bound)
    assert model.free_energy(X, at="mean") == pytest.approx(-np.mean(bounds), abs=1e-4)
    assert trained.free_energy(X) == -trained.score(X)


def test_a_bound_of_draws_against_the_definition(trained, recording):
    """A path of theta drawn here, with the network's random numbers, and terms by scipy."""
    X, model, network = recording[:40], as_encoded(trained), trained.network_
    mean, std, _, _ = theta_and_prior(trained, X)
    memory = network.memory().detach().double().numpy()
    seed = np.random.RandomState(3).randint(2**31 - 1)
    noise = std * np.random.RandomState(seed).standard_normal(std.shape)
    first_std = std[0] / np.sqrt(1 - memory**2)
    deviation = [noise[0] / np.sqrt(1 - memory**2)]
    for row in noise[1:]:
        deviation.append(memory * deviation[-1] + row)
    theta = mean + np.array(deviation)
    with torch.no_grad():
        prior = network.prior(torch.from_numpy(theta.astype(np.float32))[None])
    prior_mean, prior_std = (one[0].double().numpy() for one in prior)
    alpha = softmax(theta, trained.alpha_temperature_)
    bounds, exact = [], []
    for t in range(40):
        q_mean, q_std = mean[0], first_std
        p_mean, p_std = (one.double().numpy() for one in (network.first_mean, network.first_std))
        if t > 0:
            q_mean, q_std = mean[t] + memory * deviation[t - 1], std[t]
            p_mean, p_std = prior_mean[t - 1], prior_std[t - 1]
        covariance = np.einsum("j,jab->ab", alpha[t], trained.covariances_)
        likelihood = multivariate_normal.logpdf(X[t], np.zeros(5), covariance)
        ratio = (q_std**2 + (q_mean - p_mean) ** 2) / (2 * p_std**2)
        bounds.append(likelihood - np.sum(np.log(p_std / q_std) + ratio - 0.5))
        densities = norm.logpdf(theta[t], p_mean, p_std) - norm.logpdf(theta[t], q_mean, q_std)
        exact.append(likelihood + densities.sum())
    settings = {"n_draws": 1, "random_state": 3}
    np.testing.assert_allclose(model.score_samples(X, **settings), bounds, rtol=1e-3, atol=1e-3)
    weighted = model.score_samples(X, importance_weighted=True, **settings)
    np.testing.assert_allclose(weighted, exact, rtol=1e-3, atol=2e-3)


def test_draws_are_reproducible_and_their_error_is_told(trained, recording):
    few, again = (trained.evidence(recording[:100]) for _ in range(2))
    assert few.score == again.score
    assert few.score != trained.score(recording[:100], random_state=1)
    many = trained.evidence(recording[:100], n_draws=200)
    assert many.standard_error == pytest.approx(many.draws.std(ddof=1) / np.sqrt(200))
    assert abs(few.score - many.score) < 5 * many.draws.std() / 2
    assert np.isnan(trained.evidence(recording[:100], n_draws=1).standard_error)


def test_more_importance_draws_make_a_tighter_bound(trained, recording):
    X = recording[:20]
    settings = {"importance_weighted": True}
    one, many = (trained.score(X, n_draws=n, **settings) for n in (1, 200))
    assert many > np.mean(
        [trained.score(X, n_draws=1, random_state=s, **settings) for s in range(20)]
    )
    assert np.isfinite(one)


def test_refinement_raises_the_bound(trained, recording):
    bounds = [
        copy.copy(trained).set_params(n_refinement_steps=n).evidence(recording, n_draws=20).score
        for n in (0, 10, 40)
    ]
    assert bounds[0] < bounds[1] < bounds[2] + 0.01


def tiny_network(n_channels):
    """Two modes of which one is narrow and one is wide, as training would begin with them."""
    stack = RecurrentSettings(n_units=4)
    settings = NetworkSettings(2, n_channels, inference=stack, model=stack)
    network = empty_network(settings, torch.device("cpu"))
    covariances = torch.tensor([0.25, 4.0])[:, None, None] * torch.eye(n_channels)
    network.initialise(
        torch.Generator().manual_seed(0), torch.zeros(2, n_channels), covariances.double()
    )
    return network.eval()


def test_bounds_of_single_rows_are_those_of_a_density():
    """Quadrature: exp(bound) integrates to less than one, importance weights to one."""
    network = tiny_network(1)
    # Steps of one standard deviation of the narrow mode: exact to 1e-8 for a Gaussian.
    grid = np.linspace(-14, 14, 57)
    sessions = list(grid[:, None, None])
    loader = WindowLoader(sessions, np.ones(1), torch.device("cpu"))
    # Wider at the first row than the prior, so that the weights have a variance.
    spread = 1.1 * np.sqrt(1 - network.memory().detach().numpy() ** 2)
    mean = [np.full((1, 2), 0.1 * np.sign(x), dtype=np.float32) for x in grid]
    posterior = Posterior(mean, [spread[None].astype(np.float32)] * len(grid))
    arguments = network, loader, posterior, 10
    bounds, weights = (
        np.stack([one[:, 0] for one in function(*arguments, np.random.RandomState(0), 200)])
        for function in (lower_bounds, log_weights)
    )
    assert 0.5 < trapezoid(np.exp(bounds.mean(axis=1)), grid) < 1
    assert trapezoid(np.exp(weights).mean(axis=1), grid) == pytest.approx(1, abs=0.03)


def test_a_short_session_is_refined_beside_a_long_one_as_it_is_alone():
    network, rng = tiny_network(3), np.random.default_rng(0)
    sessions = [rng.standard_normal((n, 3)) for n in (1000, 60)]
    found = []
    for some in (sessions, sessions[1:]):
        loader = WindowLoader(some, np.ones(3), torch.device("cpu"))
        found.append(refine(network, loader, encode(network, loader, 50), 50, 3))
    assert all(np.isfinite(one).all() for one in found[0].mean + found[0].std)
    np.testing.assert_allclose(found[0].mean[1], found[1].mean[0], rtol=1e-3, atol=1e-3)


def test_score_is_higher_for_data_of_the_model(trained, recording):
    shuffled = np.random.default_rng(0).permutation(recording.ravel()).reshape(recording.shape)
    assert trained.score(recording) > trained.score(shuffled) + 0.5


def test_weights_of_samples(trained, recording):
    bounds = trained.score_samples(recording)
    assert trained.score(recording, sample_weight=None) == pytest.approx(bounds.mean())
    for weight in (np.ones(600), np.full(600, 2)):
        score = trained.score(recording, sample_weight=weight)
        assert score == pytest.approx(bounds.mean(), abs=0.02)
    for bad in (np.ones(599), np.zeros(600), np.full(600, -1)):
        with pytest.raises(ValueError, match="sample_weight"):
            trained.score(recording, sample_weight=bad)


def test_rows_of_weight_zero_are_not_seen(trained, recording):
    weight = np.r_[np.ones(250), np.zeros(50), np.ones(300)]
    garbage = recording.copy()
    garbage[250:300] = 1e6
    score = trained.score(recording, sample_weight=weight)
    assert trained.score(garbage, sample_weight=weight) == score


@pytest.mark.parametrize("method", ["transform", "predict", "score_samples"])
def test_what_goes_in_as_sessions_comes_out_so(trained, recording, method):
    call = getattr(trained, method)
    stack = recording.reshape(3, 200, 5)
    labels = np.repeat([1, 2, 3], 200)
    flat, listed, stacked = call(recording, sessions=labels), call(list(stack)), call(stack)
    assert isinstance(listed, list)
    assert len(flat) == 600
    np.testing.assert_array_equal(np.concatenate(listed), flat)
    np.testing.assert_array_equal(np.stack(listed), stacked)
    for one, expected in zip(stack, listed, strict=True):
        # Batches of another size round differently.
        np.testing.assert_allclose(call(one), expected, rtol=1e-3, atol=1e-4)


def test_score_with_sessions_counts_every_row_once(trained, recording):
    parts = [recording[:37], recording[37:400], recording[400:]]
    bounds = [trained.score_samples(part) for part in parts]
    assert trained.score(parts) == pytest.approx(np.concatenate(bounds).mean(), abs=1e-4)


@pytest.mark.parametrize("n_samples", [1, 2, 49, 50, 51, 99, 100, 101, 137, 600])
def test_every_row_has_its_row(trained, recording, n_samples):
    X = recording[:n_samples]
    alpha = trained.transform(X)
    assert alpha.shape == (n_samples, 2)
    assert np.isfinite(trained.score_samples(X)).all()
    np.testing.assert_allclose(alpha.sum(axis=1), 1, rtol=1e-5)


def test_dtype_is_kept(trained, recording):
    assert trained.transform(recording).dtype == np.float64
    assert trained.transform(recording.astype(np.float32)).dtype == np.float32


def test_rows_are_inferred_with_context_on_both_sides(trained, recording):
    """An interior row hardly depends on where the windows happen to lie."""

    def seams(alpha_of):
        whole, shifted = alpha_of(recording), alpha_of(recording[13:])
        return np.abs(whole[13:] - shifted)[60:-60].max()

    def in_pieces(X):
        pieces = [X[i : i + 50] for i in range(0, len(X), 50)]
        return np.concatenate(trained.transform(pieces))

    assert seams(trained.transform) < 0.5 * seams(in_pieces)


def test_each_row_has_a_quarter_of_a_window_on_both_sides(trained, recording):
    """A change of one row is felt, if at all, at most a window away."""
    changed, model = recording.copy(), as_encoded(trained)
    changed[300] = 5
    moved = np.flatnonzero(
        np.abs(model.transform(changed) - model.transform(recording)).max(axis=1) > 1e-12
    )
    assert 300 in moved
    assert moved.min() > 300 - 50
    assert moved.max() < 300 + 50
    assert set(range(300 - 12, 300 + 12)) <= set(moved)


def test_no_history_crosses_a_session(trained, recording):
    labels = np.arange(600) >= 300
    changed = recording.copy()
    changed[300:] = 3
    before = trained.transform(recording, sessions=labels)
    np.testing.assert_array_equal(trained.transform(changed, sessions=labels)[:300], before[:300])
    assert np.abs(trained.transform(changed)[:300] - trained.transform(recording)[:300]).max() > 0


def test_a_sample_has_the_covariance_that_its_weights_say(trained):
    X, alpha = trained.sample(20_000, random_state=1)
    assert X.shape == (20_000, 5)
    np.testing.assert_allclose(alpha.sum(axis=1), 1)
    mixed = np.einsum("tj,jab->tab", alpha, trained.covariances_)
    white = np.linalg.solve(np.linalg.cholesky(mixed), X[:, :, None])[:, :, 0]
    np.testing.assert_allclose(np.cov(white.T), np.eye(5), atol=0.05)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=0.03)


def test_a_sample_moves_like_what_the_model_was_fitted_to(trained, recording):
    def lag_one(alpha):
        return np.corrcoef(alpha[1:, 0], alpha[:-1, 0])[0, 1]

    fitted = trained.transform(recording)
    sampled = trained.sample(5000, random_state=0)[1]
    assert lag_one(sampled) == pytest.approx(lag_one(fitted), abs=0.2)
    assert np.ptp(sampled[:, 0]) > 0.3


def test_samples_are_reproducible(trained):
    X, alpha = trained.sample(7)
    again, alpha_again = trained.sample(7)
    np.testing.assert_array_equal(X, again)
    np.testing.assert_array_equal(alpha, alpha_again)
    assert not np.array_equal(X, trained.sample(7, random_state=5)[0])
    for bad in (0, 2.5, "many"):
        with pytest.raises(ValueError, match="but an integer of at least 1 was expected"):
            trained.sample(bad)


def test_learned_means_are_sampled(small_dynemo, recording):
    model = small_dynemo(
        learn_covariances=False,
        initial_covariances=np.stack([1e-6 * np.eye(5)] * 2),
        initial_means=np.stack([np.full(5, 2.0), np.full(5, -1.0)]),
    ).fit(recording)
    X, alpha = model.sample(100)
    np.testing.assert_allclose(X, alpha @ model.means_, atol=0.01)


def test_summary_tells_what_was_fitted(trained):
    text = trained.summary()
    for fact in ("2 modes of 5 channels", "40 of 40 epochs", "lstm", "temperature"):
        assert fact in text


def test_feature_names_out(trained):
    names = trained.get_feature_names_out()
    assert list(names) == ["dynemoestimator0", "dynemoestimator1"]


@pytest.mark.parametrize("routing", [True, False])
def test_sessions_reach_a_search_with_and_without_routing(small_dynemo, recording, routing):
    labels = np.repeat(np.arange(6), 100)
    with config_context(enable_metadata_routing=routing):
        search = GridSearchCV(small_dynemo(), {"n_modes": [2]}, cv=KFold(3))
        search.fit(recording, sessions=labels)
        for fold, (train, test) in enumerate(KFold(3).split(recording)):
            model = small_dynemo().fit(recording[train], sessions=labels[train])
            routed = {"sessions": labels[test]} if routing else {}
            score = model.score(recording[test], **routed)
            assert search.cv_results_[f"split{fold}_test_score"][0] == score


def test_routing_through_a_pipeline(small_dynemo, recording):
    labels = np.repeat(np.arange(6), 100)
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), small_dynemo())
        alpha = pipeline.fit(recording, sessions=labels).transform(recording, sessions=labels)
        score = pipeline.score(recording, sessions=labels)
    scaled = StandardScaler().fit_transform(recording)
    model = small_dynemo().fit(scaled, sessions=labels)
    np.testing.assert_array_equal(alpha, model.transform(scaled, sessions=labels))
    assert score == model.score(scaled, sessions=labels)


@pytest.mark.parametrize(
    ("n_rows", "n_points", "n_draws", "error"), [(1, 41, 400, 0.05), (2, 17, 300, 0.15)]
)
def test_scores_are_those_of_a_density(n_rows, n_points, n_draws, error):
    """Quadrature over all recordings of one channel: at most one, and about one by importance."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 1)) * np.where(np.arange(400) % 80 < 40, 0.5, 2)[:, None]
    model = DyNeMoEstimator(
        2, sequence_length=40, inference_n_units=4, model_n_units=4, n_epochs=10, random_state=0
    ).fit(X)
    axis = np.linspace(-7, 7, n_points)
    grid = np.stack(np.meshgrid(*[axis] * n_rows), axis=-1).reshape(-1, n_rows, 1)
    cell = (axis[1] - axis[0]) ** n_rows
    found = [
        cell * np.exp(model.score_samples(grid, n_draws=n_draws, **more).sum(axis=1)).sum()
        for more in ({}, {"importance_weighted": True})
    ]
    # Above 1 by no more than the error of the draws.
    assert 0.5 < found[0] < 1.05
    assert found[1] == pytest.approx(1, abs=error)


@pytest.mark.parametrize("n_rows", [1, 2, 5, 20, 100])
def test_refinement_raises_the_bound_of_short_sessions(trained, recording, n_rows):
    X = recording[: 600 // n_rows * n_rows].reshape(-1, n_rows, 5)[:100]
    encoded, refined = (m.score(X, n_draws=50) for m in (as_encoded(trained), trained))
    assert refined > encoded


def test_draws_of_a_session_are_those_it_has_alone(trained, recording):
    sessions = [recording[:70], recording[70:80], recording[80:150], recording[150:151]]
    together = trained.score_samples(sessions, n_draws=3)
    for session, found in zip(sessions, together, strict=True):
        alone = trained.score_samples(session, n_draws=3)
        np.testing.assert_allclose(found, alone, rtol=1e-3, atol=1e-3)
