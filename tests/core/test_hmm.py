from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from skdyn import match_modes
from skdyn.core import hmm as module
from skdyn.core.hmm import HMM, fit_hmm, log_likelihood, posteriors
from skdyn.core.runtime import one_thread
from skdyn.metrics import dice_coefficient

SEEDS = st.integers(0, 2**31)


@pytest.fixture(autouse=True, scope="module")
def _on_one_thread():
    """As in estimators; on several threads small matrices take many times as long."""
    with one_thread():
        yield


def random_hmm(n_states=3, n_channels=2, seed=0, *, diagonal=False):
    rng = np.random.default_rng(seed)
    roots = rng.standard_normal((n_states, n_channels, n_channels))
    covariances = roots @ roots.swapaxes(1, 2) + 0.3 * np.eye(n_channels)
    if diagonal:
        covariances = rng.uniform(0.2, 3, (n_states, n_channels))
    transition = rng.dirichlet(np.ones(n_states), n_states) + 3 * np.eye(n_states)
    return HMM(
        rng.dirichlet(np.ones(n_states)),
        transition / transition.sum(1, keepdims=True),
        2 * rng.standard_normal((n_states, n_channels)),
        covariances,
    )


def random_sessions(lengths, n_channels=2, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n_rows, n_channels)) for n_rows in lengths]


def switching(n_rows, n_states, n_channels, seed, spread=0.5, dwell=(50, 200)):
    """A recording of states with similar covariances, and its states, one-hot."""
    rng = np.random.RandomState(seed)
    mixing = rng.normal(size=(n_channels, n_channels)) / np.sqrt(n_channels)
    common = np.linalg.cholesky(mixing @ mixing.T + 0.2 * np.eye(n_channels))
    labels, state = np.empty(0, dtype=int), 0
    while len(labels) < n_rows:
        labels = np.append(labels, np.repeat(state, rng.randint(*dwell)))
        state = (state + rng.randint(1, n_states)) % n_states if n_states > 1 else 0
    labels = labels[:n_rows]
    x = rng.standard_normal((n_rows, n_channels))
    for state in range(n_states):
        own = rng.normal(size=(n_channels, n_channels))
        values, vectors = np.linalg.eigh(own + own.T)
        scale = np.exp(0.5 * spread * values / np.abs(values).max())
        x[labels == state] @= (common @ (vectors * scale)).T
    return x / np.sqrt((x**2).mean(0)), np.eye(n_states)[labels]


def log_densities(session, hmm, weights=None):
    """By SciPy, of shape (n_rows, n_states)."""
    full = [np.diag(one) if one.ndim == 1 else one for one in hmm.covariances]
    states = zip(hmm.means, full, strict=True)
    columns = [multivariate_normal.logpdf(np.nan_to_num(session), *state) for state in states]
    found = np.stack([np.atleast_1d(column) for column in columns], axis=1)
    return found if weights is None else found * weights[:, None]


def enumerated(session, hmm, weights=None):
    """Log-likelihood and posteriors from all paths of states."""
    density = log_densities(session, hmm, weights)
    n_rows, n_states = density.shape
    paths = np.array(list(product(range(n_states), repeat=n_rows)))
    joint = np.log(hmm.start)[paths[:, 0]]
    joint = joint + np.log(hmm.transition)[paths[:, :-1], paths[:, 1:]].sum(1)
    joint = joint + density[np.arange(n_rows), paths].sum(1)
    total = logsumexp(joint)
    share = np.exp(joint - total)
    return total, np.einsum("p,ptj->tj", share, np.eye(n_states)[paths])


def looped(session, hmm, weights=None):
    """Log-likelihood, posteriors and expected transitions, row by row in logarithms."""
    density = log_densities(session, hmm, weights)
    transition = np.log(hmm.transition)
    forward, backward = density.copy(), np.zeros_like(density)
    forward[0] += np.log(hmm.start)
    for t in range(1, len(density)):
        forward[t] += logsumexp(forward[t - 1][:, None] + transition, axis=0)
    for t in range(len(density) - 2, -1, -1):
        backward[t] = logsumexp(transition + density[t + 1] + backward[t + 1], axis=1)
    total = logsumexp(forward[-1])
    pairs = forward[:-1, :, None] + transition + (density + backward)[1:, None] - total
    return total, np.exp(forward + backward - total), np.exp(pairs).sum(0)


def mean_of(function, sessions, hmm):
    totals = [function(session, hmm)[0] for session in sessions]
    return sum(totals) / sum(map(len, sessions))


# ----------------------------------------------------------------- likelihood and posteriors


@pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])
@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 5, 6])
def test_likelihood_and_posteriors_equal_the_sum_over_all_paths(n_rows, diagonal):
    hmm = random_hmm(seed=n_rows, diagonal=diagonal)
    (session,) = random_sessions([n_rows], seed=n_rows)
    expected, expected_posterior = enumerated(session, hmm)
    np.testing.assert_allclose(log_likelihood([session], hmm), expected / n_rows, rtol=1e-12)
    np.testing.assert_allclose(posteriors([session], hmm)[0], expected_posterior, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(1, 5), SEEDS, st.booleans()
)
def test_sessions_of_any_length_equal_a_plain_recursion(lengths, n_states, seed, sticky):
    hmm = random_hmm(n_states, seed=seed)
    if sticky:
        hmm = replace(hmm, transition=0.001 / n_states + 0.999 * np.eye(n_states))
    sessions = random_sessions(lengths, seed=seed)
    expected = mean_of(looped, sessions, hmm)
    np.testing.assert_allclose(log_likelihood(sessions, hmm), expected, rtol=1e-10)
    for session, found in zip(sessions, posteriors(sessions, hmm), strict=True):
        np.testing.assert_allclose(found, looped(session, hmm)[1], atol=1e-10)


@pytest.mark.parametrize(("n_states", "n_channels"), [(4, 5), (70, 2)])
def test_long_sessions_equal_a_plain_recursion(n_states, n_channels):
    hmm = random_hmm(n_states, n_channels, seed=3)
    sessions = random_sessions([1500, 1, 700, 2, 331], n_channels, seed=4)
    expected = mean_of(looped, sessions, hmm)
    np.testing.assert_allclose(log_likelihood(sessions, hmm), expected, rtol=1e-11)
    for session, found in zip(sessions, posteriors(sessions, hmm), strict=True):
        np.testing.assert_allclose(found, looped(session, hmm)[1], atol=1e-9)


def test_single_precision_changes_little():
    x, _ = switching(2000, 4, 10, seed=0)
    hmm = fit_hmm([x], 4, random_state=np.random.RandomState(0), n_iter=5).hmm
    single = [x.astype(np.float32)]
    assert abs(log_likelihood(single, hmm) - log_likelihood([x], hmm)) < 1e-5
    np.testing.assert_allclose(posteriors(single, hmm)[0], posteriors([x], hmm)[0], atol=1e-3)


def test_impossible_transitions_between_distant_states_stay_finite():
    # Rows jump between states 600 standard deviations apart, which the chain rules out.
    means = np.array([[0.0], [600.0], [-600.0]])
    hmm = HMM(np.eye(3)[0], np.eye(3), means, np.ones((3, 1)))
    session = means[np.random.default_rng(0).integers(0, 3, 500)]
    assert np.isfinite(log_likelihood([session], hmm))
    np.testing.assert_allclose(posteriors([session], hmm)[0].sum(1), 1)


# ------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("pattern", ["101", "011", "110", "100010", "000"])
def test_zero_weights_marginalise_rows_out(pattern):
    weights = np.array([float(one) for one in pattern])
    hmm = random_hmm(seed=5)
    (session,) = random_sessions([len(weights)], seed=5)
    session[weights == 0] = np.nan
    expected, expected_posterior = enumerated(session, hmm, weights)
    found = log_likelihood([session], hmm, [weights]) * max(1, weights.sum())
    np.testing.assert_allclose(found, expected, atol=1e-12)
    found = posteriors([session], hmm, [weights])[0]
    np.testing.assert_allclose(found, expected_posterior, atol=1e-12)


def test_weights_are_factors_of_log_densities():
    hmm, (session,) = random_hmm(seed=6), random_sessions([6], seed=6)
    weights = np.array([0.5, 2, 0, 1, 0.1, 3])
    expected, expected_posterior = enumerated(session, hmm, weights)
    found = log_likelihood([session], hmm, [weights])
    np.testing.assert_allclose(found, expected / weights.sum(), rtol=1e-12)
    found = posteriors([session], hmm, [weights])[0]
    np.testing.assert_allclose(found, expected_posterior, atol=1e-12)


def test_values_of_rows_of_weight_zero_do_not_change_a_fit():
    x, _ = switching(600, 2, 3, seed=1)
    weights = np.ones(600)
    weights[100:180] = weights[::7] = 0
    fits = []
    for value in (np.nan, 1e3):
        changed = x.copy()
        changed[weights == 0] = value
        fits.append(fit_hmm([changed], 2, weights=[weights], random_state=np.random.RandomState(0)))
    assert_same(*fits)


# ---------------------------------------------------------------------------------- the fit


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 80), min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(1, 4),
    SEEDS,
    st.sampled_from([0.1, 1e-3]),
    *[st.booleans()] * 4,
)
def test_no_iteration_lowers_the_objective(
    lengths, n_states, n_channels, seed, epsilon, learn_means, learn_covariances, diagonal, weigh
):
    rng = np.random.default_rng(seed)
    # Some rows vary less than the noise of variance epsilon.
    sessions = [
        one * rng.choice([0.01, 0.1, 1], (len(one), 1))
        for one in random_sessions(lengths, n_channels, seed)
    ]
    fit = fit_hmm(
        sessions,
        n_states,
        learn_means=learn_means,
        learn_covariances=learn_covariances,
        diagonal=diagonal,
        epsilon=epsilon,
        weights=[rng.choice([0, 0.3, 1, 2], len(one)) for one in sessions] if weigh else None,
        random_state=np.random.RandomState(seed),
        n_iter=15,
        tol=-np.inf,
    )
    best = fit.history[np.isfinite(fit.history[:, -1])]
    assert len(best) == 1
    assert best.shape[1] == 15
    gains = np.diff(fit.history)
    assert np.nanmin(gains) > -1e-10 * max(1, np.nanmax(np.abs(fit.history)))


def test_fit_ends_where_the_m_step_changes_nothing():
    # The M step from posteriors of a plain recursion, as the module describes it.
    x, _ = switching(900, 3, 2, seed=2, spread=2.0)
    sessions = [x[:300] + 1, x[300:301], x[301:]]
    fit = fit_hmm(
        sessions,
        3,
        learn_means=True,
        epsilon=1e-9,
        n_iter=1000,
        tol=-np.inf,
        random_state=np.random.RandomState(0),
    )
    results = [looped(session, fit.hmm) for session in sessions]
    g = np.concatenate([result[1] for result in results])
    chain = np.concatenate(sessions)
    counts = 1 / 3 + sum(result[2] for result in results)
    start = 1 / 3 + sum(result[1][0] for result in results)
    np.testing.assert_allclose(fit.hmm.transition, counts / counts.sum(1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(fit.hmm.start, start / start.sum(), atol=1e-6)
    for j in range(3):
        rows = np.concatenate([chain, chain])
        share = np.concatenate([g[:, j], np.full(len(chain), 1 / len(chain))])
        mean = np.average(rows, axis=0, weights=share)
        covariance = np.cov(rows, rowvar=False, ddof=0, aweights=share)
        np.testing.assert_allclose(fit.hmm.means[j], mean, atol=1e-6)
        np.testing.assert_allclose(fit.hmm.covariances[j], covariance, atol=1e-6)


@pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])
def test_a_fit_goes_on_from_another_model(diagonal):
    x, _ = switching(700, 3, 2, seed=4)
    sessions = [x[:300] + 1, x[300:]]
    options = {
        "learn_means": True,
        "diagonal": diagonal,
        "tol": -np.inf,
        "n_init": 1,
        "epsilon": 0.0,
    }
    draw = np.random.RandomState
    half = fit_hmm(sessions, 3, n_iter=6, random_state=draw(0), **options)
    rest = fit_hmm(sessions, 3, n_iter=6, random_state=draw(1), begin=half.hmm, **options)
    whole = fit_hmm(sessions, 3, n_iter=12, random_state=draw(0), **options)
    np.testing.assert_allclose(rest.hmm.covariances, whole.hmm.covariances, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(rest.hmm.means, whole.hmm.means, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(rest.hmm.transition, whole.hmm.transition, atol=1e-9)


@pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])
def test_result_is_that_of_its_model(diagonal):
    x, _ = switching(800, 3, 4, seed=3)
    sessions = [x[:500], x[500:]]
    fit = fit_hmm(
        sessions, 3, diagonal=diagonal, random_state=np.random.RandomState(0), epsilon=0.01
    )
    assert fit.hmm.covariances.ndim == (2 if diagonal else 3)
    np.testing.assert_allclose(fit.log_likelihood, log_likelihood(sessions, fit.hmm), rtol=1e-12)
    assert [len(one) for one in fit.posteriors] == [500, 300]
    for found, expected in zip(fit.posteriors, posteriors(sessions, fit.hmm), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fit_recovers_states_whose_covariances_differ_little(dtype):
    x, states = switching(6000, 4, 10, seed=0)
    fit = fit_hmm([x.astype(dtype)], 4, random_state=np.random.RandomState(0))
    matched = match_modes(states, fit.posteriors[0])
    assert dice_coefficient(*matched) >= 0.95
    # Nearly as likely as under the true states, each with its own covariance.
    weighted = zip(states.T, fit.hmm.covariances, strict=True)
    true = [np.cov(x.T, ddof=0, aweights=state) for state, _ in weighted]
    truth = HMM(np.full(4, 0.25), np.full((4, 4), 0.008 / 3), np.zeros((4, 10)), np.array(true))
    np.fill_diagonal(truth.transition, 0.992)
    assert fit.log_likelihood > log_likelihood([x], truth) - 0.005


def test_fit_recovers_means():
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 3, 40), 50)
    means = np.array([[0, 100], [3, 100], [0, 103.0]])
    x = means[labels] + rng.standard_normal((2000, 2))
    fit = fit_hmm(
        [x], 3, learn_means=True, learn_covariances=False, random_state=np.random.RandomState(0)
    )
    order = np.argsort(fit.hmm.means @ [1, 2])
    np.testing.assert_allclose(fit.hmm.means[order], means, atol=0.15)
    np.testing.assert_array_equal(fit.hmm.covariances, np.tile(np.eye(2), (3, 1, 1)))


def test_given_modes_are_kept():
    hmm = random_hmm(3, 2, seed=1)
    sessions = random_sessions([200, 100], seed=1)
    rng = np.random.RandomState(0)
    kept = fit_hmm(
        sessions, 3, means=hmm.means, covariances=hmm.covariances, learn_means=True,
        random_state=rng,
    ).hmm  # fmt: skip
    np.testing.assert_allclose(kept.means, hmm.means, atol=1e-14)
    np.testing.assert_array_equal(kept.covariances, hmm.covariances)
    diagonal = fit_hmm(sessions, 3, covariances=np.ones((3, 2)), diagonal=True, random_state=rng)
    np.testing.assert_array_equal(diagonal.hmm.covariances, np.ones((3, 2)))
    np.testing.assert_allclose(diagonal.hmm.means, 0, atol=1e-14)
    free = fit_hmm(sessions, 3, means=hmm.means, random_state=rng).hmm
    np.testing.assert_allclose(free.means, hmm.means, atol=1e-14)
    assert np.linalg.norm(free.covariances - hmm.covariances) > 0.1


def test_diagonal_fit_has_the_variances_of_its_states():
    x, _ = switching(1500, 2, 3, seed=5, spread=3.0)
    fit = fit_hmm(
        [x], 2, diagonal=True, epsilon=1e-9, n_iter=300, random_state=np.random.RandomState(0),
        tol=-np.inf,
    )  # fmt: skip
    g = fit.posteriors[0]
    expected = (g.T @ x**2 + (x**2).mean(0)) / (g.sum(0)[:, None] + 1)
    np.testing.assert_allclose(fit.hmm.covariances, expected, rtol=1e-6)


def test_state_without_rows_has_the_covariance_of_the_data():
    (session,) = random_sessions([400], seed=2)
    means = np.array([[0.0, 0], [1e4, 0]])
    fit = fit_hmm([session], 2, means=means, epsilon=1e-3, random_state=np.random.RandomState(0))
    assert fit.posteriors[0][:, 1].max() < 1e-3
    offset = session - means[1]
    expected = offset.T @ offset / 400 + 1e-3 * np.eye(2)
    np.testing.assert_allclose(fit.hmm.covariances[1], expected, rtol=1e-2)


def test_worse_half_of_the_restarts_is_dropped_until_one_remains():
    x, _ = switching(1000, 3, 4, seed=4)
    fit = fit_hmm([x], 3, n_init=7, tol=-np.inf, random_state=np.random.RandomState(1))
    assert fit.history.shape == (7, 25)
    remaining = np.isfinite(fit.history)
    every = module.HALVING_INTERVAL
    expected = np.repeat([7, 3, 1], [every + 1, every, 24 - 2 * every])
    np.testing.assert_array_equal(remaining.sum(0), expected)
    for last in (every, 2 * every):
        before, after = fit.history[:, last], remaining[:, last + 1]
        assert before[after].min() >= np.nanmax(before[~after])


def test_result_is_that_of_the_best_restart():
    x, _ = switching(2000, 3, 4, seed=4, spread=3.0)
    fit = fit_hmm([x], 3, n_iter=3, random_state=np.random.RandomState(0))
    last = fit.history[:, -1]
    assert last.max() - last.min() > 0.1
    # An M step and the terms of the prior lie between.
    assert fit.log_likelihood > last.max()


# -------------------------------------------------------------------------- degenerate data


def duplicated(n_rows):
    (session,) = random_sessions([n_rows], 2)
    return [session[:, [0, 1, 0, 1]]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("n_states", [1, 3])
@pytest.mark.parametrize(
    "sessions",
    [
        random_sessions([2], 5),
        random_sessions([1], 5),
        random_sessions([1] * 7, 3),
        random_sessions([12], 20),
        duplicated(300),
        [np.zeros((50, 3))],
        [np.ones((50, 3))],
        [np.ones((50, 1)), np.empty((0, 1))],
    ],
    ids=["two", "one", "trials", "short", "duplicated", "zero", "constant", "empty"],
)
def test_degenerate_data_give_finite_results(sessions, n_states, diagonal, dtype):
    sessions = [session.astype(dtype) for session in sessions]
    for learn_means in (False, True):
        fit = fit_hmm(
            sessions,
            n_states,
            learn_means=learn_means,
            diagonal=diagonal,
            random_state=np.random.RandomState(0),
        )
        for field in fields(HMM):
            assert np.isfinite(getattr(fit.hmm, field.name)).all()
        assert np.isfinite(fit.log_likelihood)
        assert [len(one) for one in fit.posteriors] == [len(one) for one in sessions]
        for posterior in fit.posteriors:
            np.testing.assert_allclose(posterior.sum(1), 1)
        np.testing.assert_allclose(fit.hmm.transition.sum(1), 1)
        np.testing.assert_allclose(fit.hmm.start.sum(), 1)
        assert np.isfinite(log_likelihood(sessions, fit.hmm))


def test_duplicated_channels_need_no_epsilon():
    fit = fit_hmm(duplicated(300), 2, epsilon=0, random_state=np.random.RandomState(0))
    assert np.isfinite(fit.history[:, 0]).all()
    assert np.isfinite(fit.log_likelihood)


def test_no_weight_at_all_gives_finite_results():
    fit = fit_hmm(
        random_sessions([30]), 2, weights=[np.zeros(30)], random_state=np.random.RandomState(0)
    )
    assert abs(fit.log_likelihood) < 1e-12
    assert np.isfinite(fit.hmm.covariances).all()


# ------------------------------------------------------------------------------ determinism


def assert_same(one, other):
    for field in fields(HMM):
        np.testing.assert_array_equal(getattr(one.hmm, field.name), getattr(other.hmm, field.name))
    np.testing.assert_array_equal(one.history, other.history)
    np.testing.assert_array_equal(one.posteriors[0], other.posteriors[0])


def test_one_seed_gives_the_same_bits_and_global_state_stays():
    x, _ = switching(1200, 3, 4, seed=6)
    before = np.random.get_state(), torch.get_rng_state(), torch.get_num_threads()  # noqa: NPY002
    copied = x.copy()
    fits = [fit_hmm([x], 3, random_state=np.random.RandomState(seed)) for seed in (0, 0, 1)]
    after = np.random.get_state(), torch.get_rng_state(), torch.get_num_threads()  # noqa: NPY002
    np.testing.assert_array_equal(x, copied)
    np.testing.assert_array_equal(before[0][1], after[0][1])
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]
    assert_same(*fits[:2])
    assert not np.array_equal(fits[0].history, fits[2].history)
