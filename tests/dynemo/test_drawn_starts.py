"""Modes that are drawn, and the best of several draws."""

import numpy as np
import pytest
import torch

from skdyn import DyNeMoEstimator
from skdyn.core.training import FitDivergedError, Training
from skdyn.dynemo import training
from skdyn.dynemo.network import empty_network
from skdyn.dynemo.settings import make_settings
from skdyn.dynemo.start import draw, set_modes

N_MODES, N_CHANNELS = 5, 40


def settings_of(**parameters):
    model = DyNeMoEstimator(**({"n_modes": N_MODES, "learn_means": True} | parameters))
    zeros, ones = np.zeros(N_CHANNELS), np.ones(N_CHANNELS)
    return make_settings(model.get_params(deep=False), zeros, ones, 1e-6)


def drawn(seed=0, **parameters):
    return draw(settings_of(**parameters), np.random.RandomState(seed))


@pytest.mark.parametrize(("diagonal", "spread"), [(False, 0.1), (True, 0.05)])
def test_drawn_modes_are_truncated_normals(diagonal, spread):
    start = drawn(diagonal_covariances=diagonal)
    means, covariances = start.means, start.covariances
    # A normal cut at two standard deviations keeps 0.8796 of its standard deviation.
    n = means.size
    assert 0.036 < np.abs(means).max() <= 0.04 + 1e-7
    assert abs(means.mean()) < 5 * 0.0176 / np.sqrt(n)
    assert means.std() == pytest.approx(0.8796 * 0.02, rel=5 / np.sqrt(2 * n))
    variances = covariances
    if not diagonal:
        variances = np.diagonal(covariances, axis1=1, axis2=2)
        np.testing.assert_array_equal(covariances, variances[:, :, None] * np.eye(N_CHANNELS))
    assert variances.shape == (N_MODES, N_CHANNELS)
    assert 1.7 * spread < np.abs(variances - 1).max() <= 2 * spread + 1e-5
    assert variances.std() == pytest.approx(0.8796 * spread, rel=5 / np.sqrt(2 * n))
    assert start.mixing is None


def given_modes():
    rng = np.random.default_rng(0)
    roots = rng.standard_normal((N_MODES, N_CHANNELS, N_CHANNELS)) / np.sqrt(N_CHANNELS)
    return (
        rng.standard_normal((N_MODES, N_CHANNELS)),
        roots @ roots.swapaxes(1, 2) + 0.5 * np.eye(N_CHANNELS),
    )


@pytest.mark.parametrize("learned", [True, False])
def test_given_modes_are_kept_and_set(learned):
    means, covariances = given_modes()
    settings = settings_of(
        initial_means=means,
        initial_covariances=covariances,
        learn_means=learned,
        learn_covariances=learned,
    )
    network = empty_network(settings.network, torch.device("cpu"))
    start = draw(settings, np.random.RandomState(0))
    set_modes(network, start, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(network.means.detach(), means, rtol=1e-5)
    found = network.mode_covariances().detach()
    np.testing.assert_allclose(found, covariances, rtol=1e-4, atol=1e-5)


def test_one_of_the_two_may_be_given():
    means, covariances = given_modes()
    start = drawn(initial_means=means)
    np.testing.assert_array_equal(start.means, means)
    assert np.abs(np.diagonal(start.covariances, axis1=1, axis2=2) - 1).max() <= 0.2 + 1e-5
    start = drawn(initial_covariances=covariances)
    assert np.abs(start.means).max() <= 0.04 + 1e-7
    np.testing.assert_allclose(start.covariances, covariances, rtol=1e-12)


def test_draws_come_from_random_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(drawn(3).means, drawn(3).means)
    assert not np.array_equal(drawn(3).means, drawn(4).means)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def fit_subset(monkeypatch, recording, losses):
    """A fit whose trainings of draws give losses from a list, or diverge; the weights of each."""
    seen = []

    def short(network, objective, epoch_batches, settings):
        number = len(seen)
        if settings.label != "start":
            return Training({"loss": [0.0]})
        with torch.no_grad():
            network.log_temperature.fill_(number)
        seen.append({name: w.clone() for name, w in network.state_dict().items()})
        if losses[number] is None:
            raise FitDivergedError(f"start {number}")
        return Training({"loss": [losses[number]]})

    monkeypatch.setattr(training, "train", short)
    monkeypatch.setattr(training, "set_first_row", lambda *_: None)
    monkeypatch.setattr(training.Trainer, "_collapse", lambda self, *found: "")
    model = DyNeMoEstimator(
        2, init_method="random_subset", n_init=len(losses), sequence_length=50, random_state=0
    )
    return seen, model.fit(recording).network_.state_dict()


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
def test_the_draw_of_lowest_loss_stays_with_what_it_learned(monkeypatch, recording, losses, best):
    seen, kept = fit_subset(monkeypatch, recording, losses)
    assert len(seen) == len(losses)
    assert same(kept, seen[best])
    for number, other in enumerate(seen):
        assert number == best or not same(kept, other)
    for name in ("covariance_vectors", "prior_mean.weight"):
        assert len({tuple(one[name].flatten().tolist()) for one in seen}) == len(seen)


def test_if_all_draws_diverge_the_fit_has(monkeypatch, recording):
    with pytest.raises(FitDivergedError, match="start 2"):
        fit_subset(monkeypatch, recording, [None, None, None])
