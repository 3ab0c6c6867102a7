import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from skdyn.core.recurrent import RecurrentSettings
from skdyn.core.windows import WindowLoader, cut_windows, kept_rows
from skdyn.dynemo import objective as module
from skdyn.dynemo.network import NetworkSettings, empty_network, sample_logits
from skdyn.dynemo.objective import (
    Annealing,
    FreeEnergy,
    MixingLoss,
    infer,
    infer_sessions,
    kl_annealing_factor,
    kl_divergence,
)

CPU = torch.device("cpu")
N_MODES, N_CHANNELS = 3, 4


def make_network(rnn="lstm", *, diagonal=False, with_means=False, **settings):
    # Batch normalisation would make windows depend on each other in training.
    stack = RecurrentSettings(rnn=rnn, n_units=5)
    network = empty_network(
        NetworkSettings(
            N_MODES,
            N_CHANNELS,
            inference=settings.pop("inference", stack),
            model=settings.pop("model", stack),
            learn_means=with_means,
            zero_means=not with_means,
            diagonal_covariances=diagonal,
            initial_alpha_temperature=0.7,
            **settings,
        ),
        CPU,
    )
    rng = np.random.default_rng(0)
    roots = rng.standard_normal((N_MODES, N_CHANNELS, N_CHANNELS))
    covariances = roots @ roots.swapaxes(1, 2) + 0.5 * np.eye(N_CHANNELS)
    if diagonal:
        covariances = np.diagonal(covariances, axis1=1, axis2=2)
    means = rng.standard_normal((N_MODES, N_CHANNELS))
    network.initialise(
        torch.Generator().manual_seed(0), torch.tensor(means), torch.tensor(covariances)
    )
    with torch.no_grad():
        # A prior that is neither the posterior nor standard normal.
        network.prior_mean.bias.copy_(torch.tensor([0.5, -0.5, 0.2]))
        network.prior_std.bias.fill_(-0.3)
    return network.eval()


def make_sessions(lengths=(53, 7, 20, 1), seed=1):
    rng = np.random.default_rng(seed)
    return [2 * rng.standard_normal((n, N_CHANNELS)) for n in lengths]


def make_objective(network, loss_calc="mean", annealing=None, seed=5, sessions=None):
    sessions = make_sessions() if sessions is None else sessions
    return FreeEnergy(
        network,
        loss_calc,
        annealing or Annealing(),
        torch.Generator().manual_seed(seed),
        WindowLoader(sessions, np.ones(N_CHANNELS), CPU),
        cut_windows([len(session) for session in sessions], 10, 10),
    )


def log_likelihood(network, x, theta):
    """SciPy, row by row, in double precision."""
    temperature = network.temperature().item()
    covariances = network.mode_covariances().detach().double().numpy()
    means = network.mode_means()
    means = 0 * network.means if means is None else means
    means = means.detach().double().numpy()
    rows = np.empty(x.shape[:2])
    for b in range(len(x)):
        for t in range(x.shape[1]):
            exponents = np.exp(theta[b, t] / temperature)
            alpha = exponents / exponents.sum()
            covariance = np.tensordot(alpha, covariances, 1)
            rows[b, t] = multivariate_normal.logpdf(
                x[b, t], alpha @ means, np.diag(covariance) if covariance.ndim == 1 else covariance
            )
    return rows


def divergence(mean, std, prior_mean, prior_std):
    """One row of the posterior against the prior's word on it from the row before."""
    terms = np.zeros((mean.shape[0], mean.shape[1] - 1))
    for b in range(mean.shape[0]):
        for t in range(1, mean.shape[1]):
            for j in range(mean.shape[2]):
                s, p = std[b, t, j], prior_std[b, t - 1, j]
                shift = mean[b, t, j] - prior_mean[b, t - 1, j]
                terms[b, t - 1] += math.log(p / s) + (s**2 + shift**2) / (2 * p**2) - 0.5
    return terms


def numpy_of(*tensors):
    return [tensor.detach().double().numpy() for tensor in tensors]


# The KL divergence.


def pairs(time=6, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def pair():
        mean = torch.randn(2, time, 3, generator=generator, dtype=torch.float64)
        return mean, 0.1 + torch.rand(2, time, 3, generator=generator, dtype=torch.float64)

    return pair(), pair()


def test_kl_equals_torchs_with_the_prior_one_step_behind():
    posterior, prior = pairs()
    found = kl_divergence(posterior, prior)
    assert found.shape == (2, 5)
    for t in range(1, 6):
        now = Normal(posterior[0][:, t], posterior[1][:, t])
        foretold = Normal(prior[0][:, t - 1], prior[1][:, t - 1])
        expected = torch_kl(now, foretold).sum(-1)
        torch.testing.assert_close(found[:, t - 1], expected, rtol=1e-12, atol=1e-12)


def test_kl_is_zero_where_the_prior_foretells_the_posterior():
    posterior, _ = pairs()
    shifted = tuple(torch.roll(values, -1, dims=1) for values in posterior)
    torch.testing.assert_close(
        kl_divergence(posterior, shifted), torch.zeros(2, 5).double(), rtol=0, atol=1e-14
    )
    assert (kl_divergence(posterior, posterior) > 0).all()


def test_a_single_row_has_no_kl():
    assert kl_divergence(*pairs(time=1)).shape == (2, 0)


# Annealing.


@pytest.mark.parametrize("curve", ["tanh", "linear"])
@pytest.mark.parametrize(("n_epochs", "sharpness"), [(20, 10.0), (7, 3.0), (2, 10.0), (1, 5.0)])
def test_annealing_equals_the_callback_of_the_reference(curve, n_epochs, sharpness):
    factor, n_cycles = 0.0, 1
    per_cycle = n_epochs // n_cycles
    for epoch in range(n_epochs + 5):
        found = kl_annealing_factor(epoch, curve, sharpness, n_epochs)
        assert found == pytest.approx(factor, abs=1e-12)
        assert Annealing(curve, sharpness, n_epochs).factor(epoch) == found
        # At the end of the epoch.
        done = epoch + 1
        if done < n_epochs:
            place = done % per_cycle
            if curve == "tanh":
                argument = sharpness * (place - 0.5 * per_cycle) / per_cycle
                factor = 0.5 * np.tanh(argument) + 0.5
            else:
                factor = place / per_cycle
        else:
            factor = 1.0


def test_no_annealing_is_the_full_weight_from_the_start():
    assert [Annealing().factor(epoch) for epoch in range(3)] == [1.0, 1.0, 1.0]


# The training loss.


@pytest.mark.parametrize("loss_calc", ["mean", "sum"])
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("with_means", [False, True])
def test_training_terms_against_an_explicit_loop(loss_calc, diagonal, with_means):
    network = make_network(diagonal=diagonal, with_means=with_means)
    annealing = Annealing("linear", 1.0, 4)
    objective = make_objective(network, loss_calc, annealing)
    batch = torch.tensor(np.stack([make_sessions()[0][i : i + 9] for i in (0, 9, 20)])).float()
    terms = objective.training_terms(batch, 1)

    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        mean, std = network.posterior(batch)
        theta = mean + std * torch.randn(3, 9, N_MODES, generator=generator)
        prior = network.prior(theta)
    rows = log_likelihood(network, batch.double().numpy(), theta.double().numpy())
    kl = divergence(*numpy_of(mean, std, *prior))
    assert kl.shape == (3, 8)
    if loss_calc == "mean":
        ll_loss, kl_loss = -rows.sum() / (3 * 9), kl.sum() / (3 * 8)
    else:
        ll_loss, kl_loss = -rows.sum() / 3, kl.sum() / 3
    assert terms["ll_loss"].item() == pytest.approx(ll_loss, rel=1e-5)
    assert terms["kl_loss"].item() == pytest.approx(kl_loss, rel=1e-5)
    assert terms["kl_factor"].item() == 0.25
    assert terms["loss"].item() == pytest.approx(ll_loss + 0.25 * kl_loss, rel=1e-5)
    assert set(terms) == {"loss", "ll_loss", "kl_loss", "kl_factor"}


def test_each_call_draws_anew():
    objective = make_objective(make_network())
    batch = torch.ones(2, 6, N_CHANNELS)
    first, second = (objective.training_terms(batch, 0)["loss"].item() for _ in range(2))
    again = make_objective(objective.network).training_terms(batch, 0)["loss"].item()
    assert first == again != second


@pytest.mark.parametrize("loss_calc", ["mean", "sum"])
def test_windows_of_one_row_have_a_likelihood_and_no_kl(loss_calc):
    terms = make_objective(make_network(), loss_calc).training_terms(torch.ones(2, 1, 4), 0)
    assert terms["kl_loss"].item() == 0
    assert terms["loss"].isfinite()
    terms["loss"].backward()


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
@pytest.mark.parametrize("diagonal", [False, True])
def test_the_gradient_reaches_every_trained_weight(rnn, diagonal):
    stack = RecurrentSettings(rnn=rnn, n_layers=2, n_units=5, dropout=0.1, activation="elu")
    network = make_network(diagonal=diagonal, with_means=True, inference=stack, model=stack)
    batch = torch.tensor(make_sessions()[0][None, :30]).float()
    make_objective(network).training_terms(batch, 0)["loss"].backward()
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            assert weight.grad.isfinite().all(), name
            assert torch.count_nonzero(weight.grad) > 0, name
        else:
            assert "bias_hh" in name
            assert weight.grad is None


def test_the_prior_does_not_learn_while_the_kl_has_no_weight():
    network = make_network()
    objective = make_objective(network, annealing=Annealing("tanh", 10.0, 5))
    objective.training_terms(torch.ones(2, 6, N_CHANNELS), 0)["loss"].backward()
    for name, weight in network.named_parameters():
        if weight.requires_grad and name.startswith(("prior", "model_rnn")):
            assert torch.count_nonzero(weight.grad) == 0, name
    assert torch.count_nonzero(network.covariance_vectors.grad) > 0


def test_the_loss_is_finite_where_single_precision_is_hard():
    # A mode that all but repeats a channel, and data far out.
    network = make_network()
    with torch.no_grad():
        network.covariance_vectors.fill_(1.0)
        network.covariance_vectors[:, [2, 5, 9]] = -20.0
    terms = make_objective(network).training_terms(100 * torch.ones(2, 6, N_CHANNELS), 0)
    terms["loss"].backward()
    assert terms["loss"].isfinite()
    assert network.covariance_vectors.grad.isfinite().all()


@pytest.fixture
def number_type():
    """A setter of torch's default number type, undone after the test."""
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


def loss_bound_and_sample():
    stack = RecurrentSettings(n_units=5, dropout=0.2)
    network = make_network(inference=stack, model=stack)
    batch = torch.tensor(make_sessions()[0][None, :30], dtype=torch.float32)
    terms = make_objective(network).training_terms(batch, 0)
    _, bound = infer(network, batch, bound=True)
    drawn = sample_logits(network, 4, 2, torch.Generator().manual_seed(0))
    return terms["loss"].detach(), bound, drawn, *network.state_dict().values()


def test_results_do_not_depend_on_torchs_default_number_type(number_type):
    wanted = loss_bound_and_sample()
    number_type(torch.float64)
    for found, expected in zip(loss_bound_and_sample(), wanted, strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


# Inference.


@pytest.mark.parametrize("with_means", [False, True])
@pytest.mark.parametrize("diagonal", [False, True])
def test_infer_against_an_explicit_loop(with_means, diagonal):
    network = make_network(with_means=with_means, diagonal=diagonal)
    x = torch.tensor(make_sessions()[0][:20].reshape(2, 10, N_CHANNELS)).float()
    alpha, bound = infer(network, x, bound=True)
    assert bound.dtype == torch.float64
    assert not alpha.requires_grad
    with torch.no_grad():
        mean, std = network.posterior(x)
        prior = network.prior(mean)
    expected = log_likelihood(network, x.double().numpy(), mean.double().numpy())
    expected[:, 1:] -= divergence(*numpy_of(mean, std, *prior))
    np.testing.assert_allclose(bound.numpy(), expected, rtol=1e-5, atol=1e-5)
    exponents = np.exp(mean.double().numpy() / network.temperature().item())
    np.testing.assert_allclose(
        alpha.numpy(), exponents / exponents.sum(-1, keepdims=True), rtol=1e-5
    )
    same, zeros = infer(network, x, bound=False)
    assert torch.equal(same, alpha)
    assert zeros.shape == (2, 10)
    assert not zeros.any()


@pytest.mark.parametrize("length", [2, 3, 10, 11, 100])
def test_infer_sessions_against_a_loop_over_windows(length):
    network = make_network(with_means=True)
    sessions = make_sessions()
    scale = np.array([1.0, 2.0, 0.5, 4.0])
    loader = WindowLoader(sessions, scale, CPU)
    alphas, bounds = infer_sessions(network, loader, length, bound=True)
    windows = cut_windows([len(session) for session in sessions], length, length // 2)
    covered = [np.zeros(len(session), dtype=int) for session in sessions]
    for s, start, n, kept in zip(
        windows.session, windows.start, windows.length, kept_rows(windows), strict=True
    ):
        window = torch.tensor(sessions[s][start : start + n] / scale).float()[None]
        alpha, bound = infer(network, window, bound=True)
        rows = slice(start + kept.start, start + kept.stop)
        covered[s][rows] += 1
        np.testing.assert_allclose(alphas[s][rows], alpha[0][kept].numpy(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(bounds[s][rows], bound[0][kept].numpy(), rtol=1e-4, atol=1e-5)
    assert all((count == 1).all() for count in covered)
    assert [len(alpha) for alpha in alphas] == [53, 7, 20, 1]
    assert all(alpha.shape[1] == N_MODES for alpha in alphas)
    for alpha in alphas:
        np.testing.assert_allclose(alpha.sum(1), 1, rtol=1e-5)


def test_without_the_bound_only_alpha_is_given():
    loader = WindowLoader(make_sessions(), np.ones(4), CPU)
    network = make_network()
    alphas, bounds = infer_sessions(network, loader, 10, bound=False)
    assert bounds is None
    for one, other in zip(alphas, infer_sessions(network, loader, 10, bound=True)[0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_the_first_row_of_a_session_lacks_a_kl(monkeypatch):
    # All of the bound but the KL is taken away; the KL itself is made one.
    network = make_network()
    monkeypatch.setattr(module, "mixture_log_prob", lambda x, *_: torch.zeros(len(x)).double())
    monkeypatch.setattr(
        module, "kl_divergence", lambda posterior, _: torch.ones_like(posterior[0][:, 1:, 0])
    )
    loader = WindowLoader(make_sessions(), np.ones(4), CPU)
    for length in (2, 3, 5, 10, 53, 60):
        _, bounds = infer_sessions(network, loader, length, bound=True)
        for bound in bounds:
            assert bound[0] == 0
            assert (bound[1:] == -1).all()


@pytest.mark.parametrize("rows_at_once", [1, 25, 2**15])
def test_results_do_not_depend_on_how_much_goes_through_at_once(monkeypatch, rows_at_once):
    network = make_network()
    objective = make_objective(network)
    expected = infer_sessions(network, objective.loader, 10, bound=True)
    loss = objective.held_out_loss()
    monkeypatch.setattr(module, "ROWS_AT_ONCE", rows_at_once)
    found = infer_sessions(network, objective.loader, 10, bound=True)
    for kind in range(2):
        for one, other in zip(found[kind], expected[kind], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert objective.held_out_loss() == pytest.approx(loss, rel=1e-6)


def test_held_out_loss_is_the_mean_over_rows_of_windows_of_any_length():
    network = make_network()
    objective = make_objective(network, annealing=Annealing("tanh", 10.0, 5))
    total, n_rows = 0.0, 0
    windows = objective.held_out
    assert len(set(windows.length)) == 3
    for s, start, n in zip(windows.session, windows.start, windows.length, strict=True):
        window = torch.tensor(make_sessions()[s][start : start + n]).float()[None]
        with torch.no_grad():
            mean, std = network.posterior(window)
            prior = network.prior(mean)
        total += log_likelihood(network, window.double().numpy(), mean.double().numpy()).sum()
        total -= divergence(*numpy_of(mean, std, *prior)).sum()
        n_rows += n
    assert objective.held_out_loss() == pytest.approx(-total / n_rows, rel=1e-5)


def test_held_out_loss_draws_nothing_and_only_sees_its_windows():
    network = make_network()
    objective = make_objective(network)
    before = objective.generator.get_state(), torch.get_rng_state()
    loss = objective.held_out_loss()
    assert torch.equal(before[0], objective.generator.get_state())
    assert torch.equal(before[1], torch.get_rng_state())
    sessions = make_sessions()
    sessions[0][:10] += 100
    held_out = objective.held_out[np.arange(1, len(objective.held_out))]
    assert held_out.start[0] == 10
    changed = make_objective(network, sessions=sessions)
    unseen = replace(changed, held_out=held_out).held_out_loss()
    assert unseen == replace(objective, held_out=held_out).held_out_loss()
    assert changed.held_out_loss() > loss + 100


# What the inference network is taught before


def make_mixing_loss(network, seed=5):
    rng = np.random.default_rng(2)
    sessions = [
        np.hstack([rows, rng.dirichlet(np.ones(N_MODES), len(rows))]) for rows in make_sessions()
    ]
    loader = WindowLoader(sessions, np.ones(N_CHANNELS + N_MODES), CPU)
    windows = cut_windows([len(session) for session in sessions], 10, 10)
    return MixingLoss(network, torch.Generator().manual_seed(seed), loader, windows)


def cross_entropy(network, batch):
    """The mean over rows, from the formula."""
    rows, mixing = batch[..., :N_CHANNELS], batch[..., N_CHANNELS:].double().numpy()
    with torch.no_grad():
        (theta,) = numpy_of(network.posterior(rows)[0])
    exponents = np.exp(theta / network.temperature().item())
    inferred = exponents / exponents.sum(axis=-1, keepdims=True)
    return np.mean(-np.sum(mixing * np.log(inferred), axis=-1))


def test_mixing_loss_is_the_cross_entropy():
    network = make_network()
    objective = make_mixing_loss(network)
    batch = objective.loader(objective.windows[np.arange(3)])
    terms = objective.training_terms(batch, 0)
    assert set(terms) == {"loss"}
    assert terms["loss"].item() == pytest.approx(cross_entropy(network, batch), rel=1e-5)


def test_mixing_loss_of_all_windows_is_the_mean_over_their_rows():
    network = make_network()
    objective = make_mixing_loss(network)
    assert len(set(objective.windows.length)) == 3
    total = sum(
        cross_entropy(network, objective.loader(objective.windows[[i]])) * n
        for i, n in enumerate(objective.windows.length)
    )
    expected = total / objective.windows.length.sum()
    assert objective.held_out_loss() == pytest.approx(expected, rel=1e-5)


def test_mixing_loss_reaches_the_mean_of_the_posterior_alone():
    network = make_network(with_means=True)
    objective = make_mixing_loss(network)
    batch = objective.loader(objective.windows[np.arange(3)])
    objective.training_terms(batch, 0)["loss"].backward()
    for name, weight in network.named_parameters():
        reached = weight.grad is not None and torch.count_nonzero(weight.grad) > 0
        wanted = weight.requires_grad and name.startswith(("inference_rnn", "posterior_mean"))
        assert reached == wanted, name


def test_dropout_applies_to_what_is_taught():
    network = make_network(inference=RecurrentSettings(n_units=5, dropout=0.5))
    objective = make_mixing_loss(network)
    batch = objective.loader(objective.windows[np.arange(3)])
    first, second = (objective.training_terms(batch, 0)["loss"].item() for _ in range(2))
    assert first != second
    assert objective.held_out_loss() == objective.held_out_loss()
