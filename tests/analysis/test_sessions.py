"""A session's own modes, against closed forms, SciPy and known truth; fine tuning."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdyn import DyNeMoEstimator
from skdyn.analysis import fine_tune, modes_from_mixing, session_modes
from skdyn.metrics import riemannian_distance

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__qualname__}"
)


def random_covariances(rng, n_modes, n_channels):
    halves = rng.standard_normal((n_modes, n_channels, 2 * n_channels))
    return halves @ halves.swapaxes(1, 2) / n_channels


def perturbed(rng, covariances, spread):
    """Covariances at random places around others, in coordinates in which those are 1."""
    found = np.empty_like(covariances)
    for mode, covariance in enumerate(covariances):
        step = spread * rng.standard_normal(covariance.shape)
        values, axes = np.linalg.eigh((step + step.T) / 2)
        half = np.linalg.cholesky(covariance)
        found[mode] = half @ (axes * np.exp(values)) @ axes.T @ half.T
    return found


def courses(rng, n_samples, n_modes, smooth=40):
    noise = rng.standard_normal((n_samples + smooth - 1, n_modes))
    theta = np.stack([np.convolve(column, np.ones(smooth), "valid") for column in noise.T], axis=1)
    weights = np.exp(theta / 2)
    return weights / weights.sum(axis=1, keepdims=True)


def draw(rng, alpha, covariances, means=None):
    mixed = np.einsum("tj,jcd->tcd", alpha, covariances)
    noise = rng.standard_normal((len(alpha), covariances.shape[1]))
    rows = np.einsum("tcd,td->tc", np.linalg.cholesky(mixed), noise)
    return rows if means is None else rows + alpha @ means


def group_of_sessions(seed, n_sessions, n_samples, n_channels=4, n_modes=2, spread=0.4):
    rng = np.random.default_rng(seed)
    group = random_covariances(rng, n_modes, n_channels)
    own = np.stack([perturbed(rng, group, spread) for _ in range(n_sessions)])
    alpha = [courses(rng, n_samples, n_modes) for _ in range(n_sessions)]
    X = [draw(rng, *pair) for pair in zip(alpha, own, strict=True)]
    return X, alpha, group, own


def error(found, truth):
    pairs = zip(
        found.reshape(-1, *found.shape[-2:]), truth.reshape(-1, *truth.shape[-2:]), strict=True
    )
    return np.mean([riemannian_distance(*pair) for pair in pairs])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 7.0, 300.0, np.inf]))
def test_states_have_the_closed_form_of_shrunk_covariances(seed, shrinkage):
    rng = np.random.default_rng(seed)
    group = random_covariances(rng, 2, 3)
    alpha = np.eye(2)[rng.permutation([0] * 150 + [1] * 50)]
    X = draw(rng, alpha, perturbed(rng, group, 0.5))
    found = modes_from_mixing(X, alpha, covariances=group, shrinkage=shrinkage)
    for mode, n_rows in enumerate([150, 50]):
        rows = X[alpha[:, mode] == 1]
        if shrinkage == np.inf:
            expected = group[mode]
        else:
            expected = (rows.T @ rows + shrinkage * group[mode]) / (n_rows + shrinkage)
        assert riemannian_distance(found.covariances[mode], expected) < 0.1
    np.testing.assert_array_equal(found.means, 0)


def test_states_with_means_have_the_closed_form_of_conjugate_priors():
    rng = np.random.default_rng(0)
    group, centers = random_covariances(rng, 2, 3), rng.standard_normal((2, 3))
    alpha = np.eye(2)[rng.permutation([0] * 150 + [1] * 50)]
    X = draw(rng, alpha, group, centers + 0.5)
    found = modes_from_mixing(X, alpha, covariances=group, means=centers, shrinkage=20.0)
    for mode, n_rows in enumerate([150, 50]):
        rows = X[alpha[:, mode] == 1]
        mean = (rows.sum(axis=0) + 20 * centers[mode]) / (n_rows + 20)
        scatter = (rows - mean).T @ (rows - mean)
        prior = group[mode] + np.outer(mean - centers[mode], mean - centers[mode])
        expected = (scatter + 20 * prior) / (n_rows + 20)
        np.testing.assert_allclose(found.means[mode], mean, atol=0.05)
        assert riemannian_distance(found.covariances[mode], expected) < 0.1


def test_mixtures_have_the_likelihood_that_a_search_without_gradients_finds():
    X, (alpha,), group, _ = group_of_sessions(1, 1, 200, n_channels=2)
    found = modes_from_mixing(X[0], alpha, covariances=group, shrinkage=0.0)

    def log_likelihood(covariances):
        mixed = np.einsum("tj,jcd->tcd", alpha, covariances)
        pairs = zip(X[0], mixed, strict=True)
        return sum(multivariate_normal(cov=one).logpdf(row) for row, one in pairs)

    def loss(numbers):
        factors = np.zeros((2, 2, 2))
        factors[:, [0, 1, 1], [0, 0, 1]] = numbers.reshape(2, 3)
        mixed = np.einsum("tj,jcd->tcd", alpha, factors @ factors.swapaxes(1, 2))
        _, log_det = np.linalg.slogdet(mixed)
        solved = np.linalg.solve(mixed, X[0][:, :, None])[:, :, 0]
        return 0.5 * (log_det + (X[0] * solved).sum(axis=1)).sum()

    start = np.linalg.cholesky(group)[:, [0, 1, 1], [0, 0, 1]].ravel()
    best = -minimize(loss, start, method="Powell", options={"maxiter": 50}).fun
    best -= 200 * np.log(2 * np.pi)
    own = log_likelihood(found.covariances)
    assert own == pytest.approx(best, abs=0.3)
    assert found.log_likelihood == pytest.approx(own / 200)
    assert found.group_log_likelihood == pytest.approx(log_likelihood(group) / 200)


@pytest.mark.parametrize("n_samples", [300, 1500])
def test_shrinkage_makes_errors_smaller_than_those_of_either_end(n_samples):
    X, alpha, group, own = group_of_sessions(2, 5, n_samples)
    found = modes_from_mixing(X, alpha, covariances=group)
    alone = modes_from_mixing(X, alpha, covariances=group, shrinkage=0.0)
    of_group = error(np.broadcast_to(group, own.shape), own)
    assert error(found.covariances, own) < error(alone.covariances, own)
    assert error(found.covariances, own) < of_group / (2 if n_samples == 1500 else 1.3)
    assert 0 < found.shrinkage < np.inf
    assert found.candidates[0] == np.inf
    gains = found.held_out_score - found.held_out_score[0]
    assert gains.max() > 0


def test_sessions_that_do_not_differ_get_the_modes_of_the_group():
    X, alpha, group, own = group_of_sessions(3, 4, 400, spread=0.0)
    found = modes_from_mixing(X, alpha, covariances=group)
    alone = modes_from_mixing(X, alpha, covariances=group, shrinkage=0.0)
    assert error(found.covariances, own) < error(alone.covariances, own) / 3


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31))
def test_units_of_channels_do_not_matter(seed):
    X, alpha, group, _ = group_of_sessions(seed, 1, 100)
    scales = 10.0 ** np.random.default_rng(seed).uniform(-4, 4, 4)
    plain = modes_from_mixing(X, alpha, covariances=group, shrinkage=5.0)
    scaled = modes_from_mixing(
        [X[0] * scales], alpha, covariances=group * np.outer(scales, scales), shrinkage=5.0
    )
    found = scaled.covariances / np.outer(scales, scales)
    assert error(found, plain.covariances) < 0.05


def test_diagonal_modes_stay_diagonal():
    rng = np.random.default_rng(4)
    group = np.stack([np.diag([1.0, 4.0]), np.diag([4.0, 1.0])])
    alpha = np.eye(2)[[0, 1] * 100]
    X = draw(rng, alpha, 2 * group)
    found = modes_from_mixing(X, alpha, covariances=group, shrinkage=0.0)
    for mode in range(2):
        expected = (X[mode::2] ** 2).mean(axis=0)
        np.testing.assert_allclose(np.diag(found.covariances[mode]), expected, rtol=0.05)
        assert found.covariances[mode][0, 1] == 0


def test_sessions_come_in_every_form():
    X, alpha, group, _ = group_of_sessions(5, 2, 120)
    options = {"covariances": group, "shrinkage": 10.0}
    listed = modes_from_mixing(X, alpha, **options)
    stacked = modes_from_mixing(np.stack(X), np.stack(alpha), **options)
    labels = np.repeat(["b", "a"], 120)
    flat = modes_from_mixing(np.concatenate(X), np.concatenate(alpha), sessions=labels, **options)
    alone = modes_from_mixing(X[1], alpha[1], **options)
    for other in (stacked, flat):
        np.testing.assert_array_equal(other.covariances, listed.covariances)
    np.testing.assert_array_equal(alone.covariances, listed.covariances[1])
    assert flat.sessions == ["b", "a"]
    np.testing.assert_allclose(alone.distances(), listed.distances()[1])


def test_to_frame_and_plot_show_distances_from_the_group():
    pytest.importorskip("pandas")
    X, alpha, group, _ = group_of_sessions(6, 3, 120)
    found = modes_from_mixing(X, alpha, covariances=group, shrinkage=10.0)
    frame = found.to_frame()
    assert frame.index.names == ["session", "mode"]
    expected = riemannian_distance(found.covariances[2, 1], group[1])
    assert frame.loc[(2, 1), "distance"] == pytest.approx(expected)
    power = np.trace(found.covariances[2, 1])
    assert frame.loc[(2, 1), "relative_power"] == pytest.approx(power / np.trace(group[1]))
    _, axes = found.plot()
    assert axes[0].get_xlabel() == "Mode"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shrinkage": "much"}, "shrinkage must be 'auto'"),
        ({"shrinkage": -1.0}, "shrinkage must be 'auto'"),
        ({"covariances": np.eye(4)}, "but \\(n_modes"),
        ({"covariances": np.zeros((2, 4, 4))}, "not positive definite"),
        ({"covariances": np.tile(np.eye(4), (3, 1, 1))}, "alpha has 2 modes, but there are 3"),
        (
            {"covariances": np.tile(np.eye(3), (2, 1, 1))},
            "but 3 were expected. Pass covariances",
        ),
        ({"means": np.zeros(4)}, "means has shape"),
        ({"alpha": np.ones((99, 2))}, "99"),
    ],
)
def test_modes_from_mixing_refuses_what_does_not_go_together(options, message):
    X, (alpha,), group, _ = group_of_sessions(7, 1, 100)
    given = {"alpha": alpha, "covariances": group} | options
    with pytest.raises(ValueError, match=message):
        modes_from_mixing(X[0], given.pop("alpha"), **given)


# --------------------------------------------------------------------- of a fitted model


@pytest.fixture(scope="module")
def sessions_of_people():
    return group_of_sessions(8, 3, 150)[0]


@pytest.fixture(scope="module")
def model(sessions_of_people):
    options = {"sequence_length": 50, "inference_n_units": 8, "model_n_units": 8}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return DyNeMoEstimator(2, n_epochs=2, n_refinement_steps=5, random_state=0, **options).fit(
            sessions_of_people
        )


def test_draws_of_alpha_scatter_around_transform(model, sessions_of_people):
    one = sessions_of_people[0]
    draws = model.draw_alpha(one, n_draws=40)
    assert draws.shape == (40, 150, 2)
    np.testing.assert_allclose(draws.sum(axis=2), 1, rtol=1e-5)
    alpha = model.transform(one)
    errors = np.abs(draws.mean(axis=0) - alpha).max()
    assert 0 < errors < 4 * draws.std(axis=0).max()
    listed = model.draw_alpha(sessions_of_people, n_draws=2)
    assert [part.shape for part in listed] == [(2, 150, 2)] * 3
    stacked = model.draw_alpha(np.stack(sessions_of_people), n_draws=2)
    np.testing.assert_array_equal(np.stack(listed, axis=1), stacked)
    with pytest.raises(ValueError, match="n_draws is 0"):
        model.draw_alpha(one, n_draws=0)


def test_session_modes_are_those_of_the_mixing_that_the_model_draws(model, sessions_of_people):
    found = session_modes(model, sessions_of_people, shrinkage=10.0, n_draws=1)
    draws = [one[0] for one in model.draw_alpha(sessions_of_people)]
    expected = modes_from_mixing(
        sessions_of_people, draws, covariances=model.covariances_, shrinkage=10.0
    )
    np.testing.assert_allclose(found.covariances, expected.covariances)
    labels = np.repeat([1, 2, 3], 150)
    flat = session_modes(
        model, np.concatenate(sessions_of_people), labels, shrinkage=10.0, n_draws=1
    )
    np.testing.assert_allclose(flat.covariances, expected.covariances)
    assert flat.sessions == [1, 2, 3]


def test_session_modes_of_a_pipeline_are_those_of_its_last_step(model, sessions_of_people):
    scaler = StandardScaler(with_mean=False).fit(np.concatenate(sessions_of_people))
    rows = [scaler.transform(one) for one in sessions_of_people]
    found = session_modes(make_pipeline(scaler, model), sessions_of_people, shrinkage=10.0)
    expected = session_modes(model, rows, shrinkage=10.0)
    np.testing.assert_allclose(found.covariances, expected.covariances)
    alone = session_modes(make_pipeline(model), rows, shrinkage=10.0)
    np.testing.assert_allclose(alone.covariances, expected.covariances)


def test_session_modes_take_a_model_without_draws(model, sessions_of_people):
    class Other(BaseEstimator):
        means_, covariances_ = model.means_, model.covariances_

        def fit(self, X):
            return self

        def transform(self, X):
            return model.transform(X)

    found = session_modes(Other(), sessions_of_people, shrinkage=10.0)
    expected = modes_from_mixing(
        sessions_of_people,
        model.transform(sessions_of_people),
        covariances=model.covariances_,
        shrinkage=10.0,
    )
    np.testing.assert_allclose(found.covariances, expected.covariances)
    with pytest.raises(NotFittedError):
        session_modes(DyNeMoEstimator(2), sessions_of_people)


PRIOR = ("model_rnn", "prior", "persistence", "first_")


def test_fine_tuning_leaves_the_prior_and_the_given_model_as_they_are(model, sessions_of_people):
    before = {name: one.clone() for name, one in model.network_.state_dict().items()}
    parameters, n_losses = model.get_params(), len(model.history_["loss"])
    tuned = fine_tune(model, sessions_of_people[0], n_epochs=2)
    for name, value in model.network_.state_dict().items():
        assert torch.equal(value, before[name])
    assert model.get_params() == parameters == tuned.get_params()
    assert len(model.history_["loss"]) == n_losses
    changed = {
        name
        for name, value in tuned.network_.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert not [name for name in changed if name.startswith(PRIOR)]
    assert {"covariance_vectors", "posterior_mean.weight"} <= changed
    # A later fit trains everything again.
    assert all(
        own.requires_grad == given.requires_grad
        for own, given in zip(tuned.network_.parameters(), model.network_.parameters(), strict=True)
    )


def test_fine_tuning_fits_its_session_better(model, sessions_of_people):
    one = 1.5 * sessions_of_people[0]
    tuned = fine_tune(model, one, n_epochs=6)
    assert tuned.score(one) > model.score(one)
    scaler = StandardScaler(with_mean=False).fit(one)
    pipeline = fine_tune(make_pipeline(scaler, model), one, n_epochs=2)
    alone = fine_tune(model, scaler.transform(one), n_epochs=2)
    np.testing.assert_array_equal(pipeline[-1].covariances_, alone.covariances_)


def test_fine_tuning_needs_a_network():
    with pytest.raises(TypeError, match="but a DyNeMoEstimator"):
        fine_tune(StandardScaler().fit(np.eye(3)), np.eye(3))


def test_a_fitted_search_stands_for_its_best_estimator(model, sessions_of_people):
    search = GridSearchCV(model, {"n_epochs": [model.n_epochs]}, cv=3).fit(sessions_of_people)
    best = search.best_estimator_
    found, expected = (session_modes(one, sessions_of_people) for one in (search, best))
    np.testing.assert_array_equal(found.covariances, expected.covariances)
    before = best.covariances_.copy()
    tuned = fine_tune(search, sessions_of_people[0], n_epochs=1)
    np.testing.assert_array_equal(best.covariances_, before)
    again = fine_tune(best, sessions_of_people[0], n_epochs=1)
    np.testing.assert_array_equal(tuned.best_estimator_.covariances_, again.covariances_)
    with pytest.raises(NotFittedError, match="GridSearchCV"):
        session_modes(GridSearchCV(model, {}), sessions_of_people)
