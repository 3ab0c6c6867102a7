from dataclasses import replace

import numpy as np
import pytest
import torch
from skdyn.dynemo.initialisation import METHODS, Start, random, random_subset, simplex

from skdyn.core.recurrent import RecurrentSettings
from skdyn.core.training import FitDivergedError
from skdyn.core.windows import WindowLoader
from skdyn.dynemo.network import NetworkSettings, empty_network

N_MODES, N_CHANNELS = 5, 40


def make_loader():
    X = np.random.default_rng(0).standard_normal((400, N_CHANNELS))
    return WindowLoader([X], np.ones(N_CHANNELS), torch.device("cpu"))


def make_start(
    short_training=None, seed=0, n_init=3, means=None, covariances=None, teach=None, **settings
):
    stack = RecurrentSettings(n_units=3)
    defaults = {"learn_means": True, "zero_means": False}
    network = empty_network(
        NetworkSettings(N_MODES, N_CHANNELS, stack, stack, **(defaults | settings)),
        torch.device("cpu"),
    )
    return Start(
        network,
        means,
        covariances,
        np.random.RandomState(seed),
        torch.Generator().manual_seed(seed),
        make_loader(),
        short_training,
        n_init,
        teach,
    )


def modes(start):
    network = start.network
    return (
        network.means.detach().double().numpy(),
        network.mode_covariances().detach().double().numpy(),
    )


@pytest.mark.parametrize(("diagonal", "spread"), [(False, 0.1), (True, 0.05)])
def test_random_modes_are_truncated_normals(diagonal, spread):
    start = make_start(diagonal_covariances=diagonal, covariances_epsilon=1e-6)
    random(start)
    means, covariances = modes(start)
    # A normal cut at two standard deviations keeps 0.8796 of its standard deviation.
    n = means.size
    assert 0.036 < np.abs(means).max() <= 0.04 + 1e-7
    assert abs(means.mean()) < 5 * 0.0176 / np.sqrt(n)
    assert means.std() == pytest.approx(0.8796 * 0.02, rel=5 / np.sqrt(2 * n))
    variances = covariances
    if not diagonal:
        variances = np.diagonal(covariances, axis1=1, axis2=2)
        np.testing.assert_allclose(
            covariances, variances[:, :, None] * np.eye(N_CHANNELS), atol=1e-12
        )
    assert variances.shape == (N_MODES, N_CHANNELS)
    assert 1.7 * spread < np.abs(variances - 1).max() <= 2 * spread + 1e-5
    assert variances.std() == pytest.approx(0.8796 * spread, rel=5 / np.sqrt(2 * n))


@pytest.mark.parametrize("diagonal", [False, True])
def test_modes_that_are_not_learned_are_zero_and_one(diagonal):
    start = make_start(
        learn_means=False, learn_covariances=False, diagonal_covariances=diagonal, zero_means=False
    )
    random(start)
    means, covariances = modes(start)
    assert not means.any()
    one = np.ones(N_CHANNELS) if diagonal else np.eye(N_CHANNELS)
    np.testing.assert_array_equal(covariances, np.broadcast_to(one, covariances.shape))


def given_modes():
    rng = np.random.default_rng(0)
    roots = rng.standard_normal((N_MODES, N_CHANNELS, N_CHANNELS)) / np.sqrt(N_CHANNELS)
    return (
        rng.standard_normal((N_MODES, N_CHANNELS)),
        roots @ roots.swapaxes(1, 2) + 0.5 * np.eye(N_CHANNELS),
    )


@pytest.mark.parametrize("learned", [True, False])
def test_given_modes_are_kept(learned):
    means, covariances = given_modes()
    before = means.copy(), covariances.copy()
    start = make_start(
        means=means, covariances=covariances, learn_means=learned, learn_covariances=learned
    )
    random(start)
    found = modes(start)
    np.testing.assert_allclose(found[0], means, rtol=1e-6)
    np.testing.assert_allclose(found[1], covariances, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(means, before[0])
    np.testing.assert_array_equal(covariances, before[1])


def test_one_of_the_two_may_be_given():
    means, covariances = given_modes()
    start = make_start(means=means)
    random(start)
    found = modes(start)
    np.testing.assert_allclose(found[0], means, rtol=1e-6)
    assert np.abs(np.diagonal(found[1], axis1=1, axis2=2) - 1).max() <= 0.2 + 1e-5
    start = make_start(covariances=covariances)
    random(start)
    found = modes(start)
    assert np.abs(found[0]).max() <= 0.04 + 1e-7
    np.testing.assert_allclose(found[1], covariances, rtol=1e-4, atol=1e-5)


class ShortTraining:
    """Gives losses from a list, or diverges; leaves a mark in the weights and remembers them."""

    def __init__(self, losses):
        self.losses, self.seen, self.network = list(losses), [], None

    def __call__(self):
        number = len(self.seen)
        with torch.no_grad():
            self.network.log_temperature.fill_(number)
        self.seen.append({k: v.clone() for k, v in self.network.state_dict().items()})
        loss = self.losses[number]
        if loss is None:
            raise FitDivergedError(f"start {number}")
        return loss


def run_subset(losses, seed=0, **settings):
    short = ShortTraining(losses)
    start = make_start(short, n_init=len(losses), seed=seed, **settings)
    short.network = start.network
    random_subset(start)
    return short, start.network.state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([3.0, 1.0, 2.0], 1),
        ([1.0], 0),
        ([-1.0, -3.0, -2.0, -4.0], 3),
        ([2.0, 2.0], 0),
        ([None, 5.0, None, 4.0, None], 3),
        ([7.0, None], 0),
    ],
)
@pytest.mark.parametrize("learn_covariances", [True, False])
def test_random_subset_keeps_the_start_of_lowest_loss_with_what_it_learned(
    losses, best, learn_covariances
):
    short, kept = run_subset(losses, learn_covariances=learn_covariances)
    assert len(short.seen) == len(losses)
    assert same(kept, short.seen[best])
    for number, other in enumerate(short.seen):
        assert number == best or not same(kept, other)


def test_every_start_is_a_new_draw():
    short, _ = run_subset([1.0, 2.0, 3.0])
    for name in ("means", "covariance_vectors", "posterior_mean.weight", "prior_mean.weight"):
        drawn = [seen[name] for seen in short.seen]
        assert not torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[1], drawn[2])


def test_if_all_starts_diverge_the_fit_has():
    with pytest.raises(FitDivergedError, match="start 2"):
        run_subset([None, None, None])


def test_other_errors_are_not_hidden():
    def fails():
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        random_subset(make_start(fails))


class Lessons:
    """Remembers what it was given to teach, and which modes the network had by then."""

    def __init__(self):
        self.given, self.start = [], None

    def __call__(self, rows, mixing):
        self.given.append((rows, mixing, modes(self.start)))


def run_simplex(**settings):
    lessons = Lessons()
    lessons.start = start = make_start(teach=lessons, **settings)
    simplex(start)
    return lessons.given, start


@pytest.mark.parametrize("given", [False, True])
def test_the_mixing_of_the_modes_is_taught_after_they_are_set(given):
    means, covariances = given_modes() if given else (None, None)
    taught, start = run_simplex(means=means, covariances=covariances)
    (((rows,), (mixing,), then),) = taught
    np.testing.assert_allclose(rows, start.loader.sessions[0], rtol=1e-6)
    assert mixing.shape == (400, N_MODES)
    np.testing.assert_array_equal(then[0], modes(start)[0])
    np.testing.assert_array_equal(then[1], modes(start)[1])
    if given:
        np.testing.assert_allclose(then[0], means, rtol=1e-6)
        np.testing.assert_allclose(then[1], covariances, rtol=1e-4, atol=1e-5)


def test_too_few_rows_teach_nothing():
    lessons = Lessons()
    lessons.start = start = make_start(teach=lessons)
    for n_rows, n_taught in ((49, 0), (50, 1)):
        loader = replace(start.loader, sessions=[start.loader.sessions[0][:n_rows]])
        simplex(replace(start, loader=loader))
        assert len(lessons.given) == n_taught


@pytest.mark.parametrize("name", sorted(METHODS))
def test_seeds_reproduce(name):
    def weights(seed, generator_seed=None):
        short = ShortTraining([1.0, 2.0, 3.0])
        start = make_start(short, seed=seed, teach=lambda rows, mixing: None)
        if generator_seed is not None:
            start = replace(start, generator=torch.Generator().manual_seed(generator_seed))
        short.network = start.network
        METHODS[name](start)
        return start.network.state_dict()

    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert same(weights(0), weights(0))
    # The modes come from random_state, the networks from the generator.
    changed = weights(0, generator_seed=1)
    assert torch.equal(changed["means"], weights(0)["means"])
    assert not torch.equal(changed["prior_mean.weight"], weights(0)["prior_mean.weight"])
    # Those of the simplex come from the recording alone.
    assert torch.equal(weights(1)["means"], weights(0)["means"]) == (name == "simplex")
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
