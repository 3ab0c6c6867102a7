import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from skdyn.core.distributed import Draws, share
from skdyn.core.gaussian import mode_scores
from skdyn.core.recurrent import RecurrentSettings, initialise_linear
from skdyn.dynemo.network import (
    STD_EPSILON,
    DyNeMoNetwork,
    NetworkSettings,
    empty_network,
    sample_logits,
)

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_settings(rnn="lstm", n_modes=3, n_channels=4, n_units=6, recurrent=None, **others):
    stack = RecurrentSettings(rnn=rnn, n_units=n_units, **(recurrent or {}))
    return NetworkSettings(n_modes, n_channels, inference=stack, model=stack, **others)


def make_modes(settings, seed=0):
    rng = np.random.default_rng(seed)
    shape = (settings.n_modes, settings.n_channels)
    means = rng.standard_normal(shape)
    if settings.diagonal_covariances:
        covariances = rng.uniform(0.5, 2, shape)
    else:
        roots = rng.standard_normal((*shape, settings.n_channels))
        covariances = roots @ roots.swapaxes(1, 2) + 0.5 * np.eye(settings.n_channels)
    return torch.tensor(means), torch.tensor(covariances)


def make_network(settings=None, seed=0, **others):
    settings = settings or make_settings(**others)
    network = empty_network(settings, CPU)
    network.initialise(generator(seed), *make_modes(settings))
    return network.eval()


def test_the_tutorials_model_has_the_weights_of_the_reference_and_those_of_memory():
    settings = make_settings(n_modes=6, n_channels=20, n_units=64)
    assert settings.inference.normalization == "layer"
    network = empty_network(settings, CPU)
    memory = 6 * (2 * 64 + 1) + 3 * 6  # smoothed means; smoothing, memory and persistence
    scores = 6 * 2 * 4 * 64 + 6 * 6  # inputs of both directions' four gates; of smoothed means
    n_weights = sum(w.numel() for w in network.parameters() if w.requires_grad)
    assert n_weights == 65_669 + memory + scores


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
@pytest.mark.parametrize("normalization", [None, "layer", "batch"])
@pytest.mark.parametrize("learn_covariances", [True, False])
def test_a_network_can_be_made_and_initialised_without_the_global_generator(
    rnn, normalization, learn_covariances
):
    before = torch.get_rng_state()
    recurrent = {"normalization": normalization, "n_layers": 2, "dropout": 0.2}
    network = make_network(
        rnn=rnn, recurrent=recurrent, learn_covariances=learn_covariances, learn_means=True
    )
    network.train().posterior(torch.zeros(2, 5, 4), Draws(generator(), share(2)))
    sample_logits(network.eval(), 3, 2, generator())
    assert torch.equal(before, torch.get_rng_state())
    assert all(value.device == CPU for value in network.state_dict().values())
    assert all(value.isfinite().all() for value in network.state_dict().values())


@pytest.mark.parametrize(
    "made_again",
    [copy.copy, copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))],
    ids=["copy", "deepcopy", "pickle"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("learned", [True, False])
def test_a_copy_keeps_everything_and_shares_nothing(made_again, dtype, learned):
    network = make_network(
        recurrent={"normalization": "batch", "n_layers": 2},
        learn_covariances=learned,
        learn_means=learned,
        learn_alpha_temperature=learned,
    )
    network.to(dtype).train(learned)
    before = torch.get_rng_state()
    again = made_again(network)
    assert torch.equal(before, torch.get_rng_state())
    assert again.settings == network.settings
    assert {m.training for m in again.modules()} == {learned}
    ours, theirs = dict(again.named_parameters()), dict(network.named_parameters())
    assert [(n, w.requires_grad) for n, w in ours.items()] == [
        (n, w.requires_grad) for n, w in theirs.items()
    ]
    assert list(again.state_dict()) == list(network.state_dict())
    for name, value in network.state_dict().items():
        assert again.state_dict()[name].dtype == value.dtype, name
        assert torch.equal(again.state_dict()[name], value), name
    # The weights are those that the recurrent layers compute with.
    data = torch.randn(2, 5, 4, generator=generator(), dtype=dtype)
    wanted = network.eval().posterior(data)
    assert torch.equal(again.eval().posterior(data)[0], wanted[0])
    with torch.no_grad():
        for weight in again.parameters():
            weight.fill_(0.1)
    assert torch.equal(network.posterior(data)[0], wanted[0])
    assert not torch.equal(again.posterior(data)[0], wanted[0])


def test_the_same_generator_gives_the_same_weights():
    one, again, other = make_network(seed=1), make_network(seed=1), make_network(seed=2)
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(one.prior_mean.weight, other.prior_mean.weight)
    assert not torch.equal(one.prior_mean.weight, one.prior_std.weight)


@pytest.mark.parametrize("learn_covariances", [True, False])
@pytest.mark.parametrize("diagonal", [True, False])
def test_modes_are_the_ones_given(learn_covariances, diagonal):
    settings = make_settings(
        learn_covariances=learn_covariances,
        diagonal_covariances=diagonal,
        zero_means=False,
        covariances_epsilon=0.01,
    )
    network = make_network(settings)
    means, covariances = make_modes(settings)
    assert torch.equal(network.mode_means().detach(), means.float())
    found = network.mode_covariances().detach().double()
    torch.testing.assert_close(found, covariances, rtol=1e-5, atol=1e-6)
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert ("covariance_vectors" in trained) == learn_covariances
    assert "means" not in trained


def test_means_that_are_zero_for_good_are_not_computed_with():
    assert make_network(zero_means=True).mode_means() is None
    settings = make_settings(zero_means=False, learn_means=True)
    assert make_network(settings).mode_means().requires_grad


def test_epsilon_is_a_floor_under_the_eigenvalues():
    network = make_network(covariances_epsilon=0.3)
    with torch.no_grad():
        # Rows of a triangle: diagonals at 0, 2, 5 and 9, where softplus gives nothing.
        network.covariance_vectors.fill_(0.5)
        network.covariance_vectors[:, [0, 2, 5, 9]] = -100.0
    smallest = torch.linalg.eigvalsh(network.mode_covariances().detach().double()).min()
    assert 0.3 - 1e-6 <= smallest <= 0.3 + 1e-6


@pytest.mark.parametrize("temperature", [0.05, 1.0, 7.0])
@pytest.mark.parametrize("learned", [True, False])
def test_the_temperature_starts_where_it_is_told(temperature, learned):
    network = make_network(initial_alpha_temperature=temperature, learn_alpha_temperature=learned)
    assert network.temperature().item() == pytest.approx(temperature, rel=1e-6)
    assert network.log_temperature.requires_grad == learned
    theta = torch.randn(2, 5, 3, generator=generator())
    exponents = np.exp(theta.double().numpy() / temperature)
    expected = exponents / exponents.sum(-1, keepdims=True)
    np.testing.assert_allclose(network.mixing(theta).detach().numpy(), expected, rtol=1e-4)


def test_no_step_makes_the_temperature_negative():
    network = make_network()
    with torch.no_grad():
        for value in (-80.0, -5.0, 80.0):
            network.log_temperature.fill_(value)
            assert network.temperature() > 0
            assert network.temperature().isfinite()


def test_posterior_and_prior_are_linear_and_softplus_of_their_stacks():
    network = make_network()
    x = torch.randn(2, 7, 4, generator=generator(1))
    theta = torch.randn(2, 7, 3, generator=generator(2))
    with torch.no_grad():
        initialise_linear(network.posterior_mean, generator(3))
        network.persistence.fill_(0.7)
        scores = mode_scores(x, network.mode_means(), network.mode_covariances())
        scores = 3 * (scores / 3).asinh()
        encoded = network.inference_rnn(torch.cat([x, scores], dim=-1))
        pairs = [
            (network.posterior(x), encoded, "posterior"),
            (network.prior(theta), network.model_rnn(theta), "prior"),
        ]
    for (mean, std), hidden, name in pairs:
        heads = [getattr(network, f"{name}_{which}") for which in ("mean", "std")]
        raw = [
            hidden.double().numpy() @ head.weight.detach().double().numpy().T
            + head.bias.detach().double().numpy()
            for head in heads
        ]
        other = 0.7 * theta
        if name == "posterior":
            smoothed = network.smoothed_mean(torch.cat([hidden, scores], dim=-1)).detach()
            decay = np.exp(-1 / network.log_smoothing.detach().exp().numpy())
            weight = decay ** np.abs(np.subtract.outer(np.arange(7), np.arange(7)))[..., None]
            weight = weight / weight.sum(axis=1, keepdims=True)
            other = np.einsum("tsj,bsj->btj", weight, smoothed.numpy())
        np.testing.assert_allclose(mean.numpy(), raw[0] + np.asarray(other), atol=1e-5)
        np.testing.assert_allclose(std.numpy(), np.log1p(np.exp(raw[1])) + 1e-6, rtol=1e-5)


def test_a_standard_deviation_never_reaches_zero():
    network = make_network()
    with torch.no_grad():
        network.posterior_std.bias.fill_(-1e4)
        _, std = network.posterior(torch.zeros(1, 3, 4))
    torch.testing.assert_close(std, torch.full_like(std, STD_EPSILON))
    assert STD_EPSILON == 1e-6


def test_the_prior_is_causal_and_the_posterior_is_not():
    network = make_network()
    x = torch.randn(1, 8, 4, generator=generator(1))
    with torch.no_grad():
        mean, _ = network.posterior(x)
        x[:, 5] += 1
        changed, _ = network.posterior(x)
        assert not torch.allclose(mean[:, :5], changed[:, :5])
        theta = torch.randn(1, 8, 3, generator=generator(2))
        mean, _ = network.prior(theta)
        theta[:, 5] += 1
        changed, _ = network.prior(theta)
        assert torch.equal(mean[:, :5], changed[:, :5])
        assert not torch.allclose(mean[:, 5], changed[:, 5])


@pytest.mark.parametrize("name", ["inference", "model"])
def test_dropout_acts_on_the_inputs_too(name):
    stack = RecurrentSettings(n_units=6, dropout=0.5)
    network = make_network(replace(make_settings(), **{name: stack}))
    run = {"inference": network.posterior, "model": network.prior}[name]
    values = torch.ones(1, 4, 4 if name == "inference" else 3)
    seen = []
    rnn = {"inference": network.inference_rnn, "model": network.model_rnn}[name]
    rnn.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        run(values, Draws(generator(3), share(1)))
        run(values)
    dropped = seen[0] == 0
    assert dropped.any() and not dropped.all()
    assert torch.equal(seen[0], torch.where(dropped, 0, 2 * seen[1]))
    assert torch.equal(seen[1][..., : values.shape[-1]], values)


def test_weights_travel_by_state_dict():
    network = make_network(learn_covariances=False)
    other = empty_network(network.settings, CPU)
    other.load_state_dict(network.state_dict())
    x = torch.randn(2, 7, 4, generator=generator(1))
    with torch.no_grad():
        assert torch.equal(network.posterior(x)[0], other.eval().posterior(x)[0])
    assert torch.equal(network.mode_covariances(), other.mode_covariances())


# Sampling from the prior.


def silence_prior(network):
    with torch.no_grad():
        for layer in (network.prior_mean, network.prior_std):
            layer.weight.zero_()
            layer.bias.zero_()
        network.persistence.zero_()
    return network


def test_logits_of_a_prior_without_memory():
    # softplus(0) = log 2. Five standard errors.
    n = 1000
    theta = sample_logits(silence_prior(make_network()), n, 10, generator()).double().numpy()
    std = np.log(2) + 1e-6
    assert theta.shape == (n, 3)
    assert (np.abs(theta.mean(0)) < 5 * std / np.sqrt(n)).all()
    assert (np.abs(theta.std(0) - std) < 5 * std / np.sqrt(2 * n)).all()
    correlation = np.corrcoef(theta[1:].T, theta[:-1].T) - np.eye(6)
    assert (np.abs(correlation) < 5 / np.sqrt(n)).all()


def test_the_first_logit_has_its_own_prior_and_the_next_ones_the_networks():
    network = silence_prior(make_network())
    first = torch.cat([sample_logits(network, 2, 0, generator(s)) for s in range(200)])
    first = first.reshape(200, 2, 3).double()
    n = 200 * 3
    assert abs(first[:, 0].std() - 1) < 5 / np.sqrt(2 * n)
    assert abs(first[:, 1].std() - np.log(2)) < 5 * np.log(2) / np.sqrt(2 * n)


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
def test_logits_follow_the_prior_of_the_whole_window(rnn):
    network = make_network(rnn=rnn, recurrent={"n_layers": 2})
    with torch.no_grad():
        network.prior_mean.bias.copy_(torch.tensor([2.0, -1.0, 0.0]))
    theta = sample_logits(network, 12, 0, generator(4))
    noise = torch.randn(12, 3, generator=generator(4))
    with torch.no_grad():
        mean, std = network.prior(theta[None])
    torch.testing.assert_close(theta[0], noise[0])
    expected = mean[0, :-1] + std[0, :-1] * noise[1:]
    torch.testing.assert_close(theta[1:], expected, rtol=1e-4, atol=1e-5)


def test_what_is_discarded_is_the_start():
    network = make_network()
    whole = sample_logits(network, 10, 0, generator(1))
    assert torch.equal(sample_logits(network, 6, 4, generator(1)), whole[4:])
    assert not whole.requires_grad


def test_settings_that_differ_give_networks_that_differ():
    # Settings that warm_start compares.
    assert make_settings() == make_settings()
    assert make_settings() != make_settings(n_units=7)
    assert isinstance(make_network(), DyNeMoNetwork)
