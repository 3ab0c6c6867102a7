import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from skdyn.core.recurrent import RecurrentSettings
from skdyn.core.windows import Batch, WindowLoader, Windows, cut_windows
from skdyn.dynemo.network import NetworkSettings, empty_network, sample_logits
from skdyn.dynemo.objective import (
    PRETRAINED_STD,
    STD_WEIGHT,
    Annealing,
    EncoderPretraining,
    FreeEnergy,
    PriorPretraining,
    Thinning,
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


def make_objective(network, annealing=None, seed=5, sessions=None, weights=None, **settings):
    sessions = make_sessions() if sessions is None else sessions
    return FreeEnergy(
        network,
        torch.Generator().manual_seed(seed),
        WindowLoader(sessions, np.ones(N_CHANNELS), CPU, weights=weights),
        cut_windows([len(session) for session in sessions], 10, 10),
        rows_per_window=settings.pop("rows_per_window", 10.0),
        annealing=annealing or Annealing(),
        **settings,
    )


def path(network, std, noise):
    """Deviations of theta from its mean, by their recursion."""
    memory = network.memory().detach()
    steps = [std[:, 0] * noise[:, 0] / (1 - memory**2).sqrt()]
    for t in range(1, std.shape[1]):
        steps.append(memory * steps[-1] + std[:, t] * noise[:, t])
    return torch.stack(steps, dim=1)


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


def test_kl_of_a_posterior_with_memory_equals_torchs_and_that_of_draws():
    posterior, prior = pairs()
    expected = pairs(seed=1)[0][0]
    found = kl_divergence(posterior, prior, expected)
    now = Normal(posterior[0][:, 1:] + expected[:, :-1], posterior[1][:, 1:])
    foretold = Normal(prior[0][:, :-1], prior[1][:, :-1])
    torch.testing.assert_close(found, torch_kl(now, foretold).sum(-1), rtol=1e-12, atol=1e-12)
    noise = torch.randn(20_000, 2, 5, 3, generator=torch.Generator().manual_seed(2)).double()
    theta = now.mean + now.stddev * noise
    ratio = (now.log_prob(theta) - foretold.log_prob(theta)).sum(-1)
    assert ((ratio.mean(0) - found).abs() < 5 * ratio.std(0) / math.sqrt(20_000)).all()


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


def explicit_terms(network, batch, noise):
    """Log-likelihoods and KL divergences of rows, from the formulas."""
    with torch.no_grad():
        mean, std = network.posterior(batch)
        deviation = path(network, std, noise)
        theta = mean + deviation
        prior = network.prior(theta)
    rows = log_likelihood(network, batch.double().numpy(), theta.double().numpy())
    given = mean.clone()
    given[:, 1:] += network.memory().detach() * deviation[:, :-1]
    return rows, divergence(*numpy_of(given, std, *prior))


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("with_means", [False, True])
def test_training_terms_against_an_explicit_loop(diagonal, with_means):
    network = make_network(diagonal=diagonal, with_means=with_means)
    objective = make_objective(network, Annealing("linear", 1.0, 4), rows_per_window=9.0)
    batch = torch.tensor(np.stack([make_sessions()[0][i : i + 9] for i in (0, 9, 20)])).float()
    terms = objective.training_terms(Batch(batch), 1)
    noise = torch.randn(3, 9, N_MODES, generator=torch.Generator().manual_seed(5))
    rows, kl = explicit_terms(network, batch, noise)
    assert kl.shape == (3, 8)
    ll_loss, kl_loss = -rows.sum() / (3 * 9), kl.sum() / (3 * 9)
    assert terms["ll_loss"].item() == pytest.approx(ll_loss, rel=1e-5)
    assert terms["kl_loss"].item() == pytest.approx(kl_loss, rel=1e-5)
    assert terms["kl_factor"].item() == 0.25
    assert terms["loss"].item() == pytest.approx(ll_loss + 0.25 * kl_loss, rel=1e-5)
    assert set(terms) == {"loss", "ll_loss", "kl_loss", "kl_factor"}


def test_padding_changes_nothing():
    """Windows of two lengths, together and separately, with the same draws."""
    network = make_network()
    sessions = [make_sessions()[0][:9], make_sessions()[0][20:26]]
    objective = make_objective(network, sessions=sessions)
    windows = Windows(np.array([0, 1]), np.zeros(2, int), np.array([9, 6]))
    batch = objective.loader(windows)
    terms = objective.training_terms(batch, 0)
    noise = torch.randn(2, 9, N_MODES, generator=torch.Generator().manual_seed(5))
    parts = [
        explicit_terms(network, torch.tensor(one).float()[None], noise[[i], : len(one)])
        for i, one in enumerate(sessions)
    ]
    assert terms["ll_loss"].item() == pytest.approx(
        -sum(rows.sum() for rows, _ in parts) / 20, rel=1e-5
    )
    assert terms["kl_loss"].item() == pytest.approx(sum(kl.sum() for _, kl in parts) / 20, rel=1e-5)


def test_a_short_window_beside_a_long_one_has_a_finite_loss_and_gradient():
    network = make_network()
    with torch.no_grad():
        network.log_smoothing.fill_(0.0)
    objective = make_objective(network, sessions=make_sessions((300, 3)))
    batch = objective.loader(Windows(np.array([0, 1]), np.zeros(2, int), np.array([300, 3])))
    loss = objective.training_terms(batch, 0)["loss"]
    loss.backward()
    assert loss.isfinite()
    for name, weight in network.named_parameters():
        assert weight.grad is None or weight.grad.isfinite().all(), name


def test_rows_of_weight_zero_are_not_seen():
    network = make_network()
    weight = np.r_[np.ones(4), 0, 0, np.ones(4)]
    values = []
    for scale in (1.0, 1e6):
        X = make_sessions()[0][:10].copy()
        X[4:6] *= scale
        objective = make_objective(network, sessions=[X], weights=[weight])
        batch = objective.loader(Windows(np.array([0]), np.array([0]), np.array([10])))
        values.append({k: v.item() for k, v in objective.training_terms(batch, 0).items()})
    assert values[0] == values[1]


def test_thinned_likelihoods_are_those_of_all_rows_in_the_mean():
    network = make_network()
    batch = Batch(torch.tensor(make_sessions()[0][None, :40]).float())
    whole = make_objective(network).training_terms(batch, 0)
    found = []
    for step in range(4):
        objective = make_objective(network, thinning=Thinning(4, 2))
        objective.n_steps = step
        found.append(objective.training_terms(batch, 0)["ll_loss"].item())
        assert objective.training_terms(batch, 1)["kl_loss"].isfinite()
    assert np.mean(found) == pytest.approx(whole["ll_loss"].item(), rel=1e-5)
    assert len(set(found)) == 4
    late = make_objective(network, thinning=Thinning(4, 2)).training_terms(batch, 2)
    assert late["ll_loss"].item() == whole["ll_loss"].item()


def test_each_call_draws_anew():
    objective = make_objective(make_network())
    batch = Batch(torch.ones(2, 6, N_CHANNELS))
    first, second = (objective.training_terms(batch, 0)["loss"].item() for _ in range(2))
    again = make_objective(objective.network).training_terms(batch, 0)["loss"].item()
    assert first == again != second


def test_windows_of_one_row_have_a_likelihood_and_no_kl():
    terms = make_objective(make_network()).training_terms(Batch(torch.ones(2, 1, 4)), 0)
    assert terms["kl_loss"].item() == 0
    assert terms["loss"].isfinite()
    terms["loss"].backward()


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
@pytest.mark.parametrize("diagonal", [False, True])
def test_the_gradient_reaches_every_trained_weight(rnn, diagonal):
    stack = RecurrentSettings(rnn=rnn, n_layers=2, n_units=5, dropout=0.1, activation="elu")
    network = make_network(diagonal=diagonal, with_means=True, inference=stack, model=stack)
    batch = torch.tensor(make_sessions()[0][None, :30]).float()
    make_objective(network).training_terms(Batch(batch), 0)["loss"].backward()
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
    objective.training_terms(Batch(torch.ones(2, 6, N_CHANNELS)), 0)["loss"].backward()
    for name, weight in network.named_parameters():
        if weight.requires_grad and name.startswith(("prior", "model_rnn", "persis")):
            assert torch.count_nonzero(weight.grad) == 0, name
    assert torch.count_nonzero(network.covariance_vectors.grad) > 0


def test_the_loss_is_finite_where_single_precision_is_hard():
    # A mode that all but repeats a channel, and data far out.
    network = make_network()
    with torch.no_grad():
        network.covariance_vectors.fill_(1.0)
        network.covariance_vectors[:, [2, 5, 9]] = -20.0
    batch = Batch(100 * torch.ones(2, 6, N_CHANNELS))
    terms = make_objective(network).training_terms(batch, 0)
    terms["loss"].backward()
    assert terms["loss"].isfinite()
    assert network.covariance_vectors.grad.isfinite().all()


@pytest.fixture
def number_type():
    """A setter of torch's default number type, undone after the test."""
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


def loss_and_sample():
    stack = RecurrentSettings(n_units=5, dropout=0.2)
    network = make_network(inference=stack, model=stack)
    batch = torch.tensor(make_sessions()[0][None, :30], dtype=torch.float32)
    terms = make_objective(network).training_terms(Batch(batch), 0)
    drawn = sample_logits(network, 4, 2, torch.Generator().manual_seed(0))
    return terms["loss"].detach(), drawn, *network.state_dict().values()


def test_results_do_not_depend_on_torchs_default_number_type(number_type):
    wanted = loss_and_sample()
    number_type(torch.float64)
    for found, expected in zip(loss_and_sample(), wanted, strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


# Held-out loss of early stopping


def test_held_out_loss_is_the_mean_over_rows_of_windows_of_any_length():
    network = make_network()
    objective = make_objective(network, annealing=Annealing("tanh", 10.0, 5))
    windows = objective.held_out
    assert len(set(windows.length)) == 3
    n_rows = windows.length.sum()
    found = objective.held_out_loss()
    assert found == objective.held_out_loss()
    # Draws over paths: the loss is one of them.
    totals = []
    rng = torch.Generator().manual_seed(1)
    for _ in range(30):
        total = 0.0
        for s, start, n in zip(windows.session, windows.start, windows.length, strict=True):
            window = torch.tensor(make_sessions()[s][start : start + n]).float()[None]
            noise = torch.randn(1, n, N_MODES, generator=rng)
            rows, kl = explicit_terms(network, window, noise)
            total += kl.sum() - rows.sum()
        totals.append(total / n_rows)
    assert abs(found - np.mean(totals)) < 5 * np.std(totals)


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


# Pretraining of the inference network


def make_pretraining(network, seed=5):
    rng = np.random.default_rng(2)
    sessions = [
        np.hstack([rows, rng.standard_normal((len(rows), N_MODES))]) for rows in make_sessions()
    ]
    loader = WindowLoader(sessions, np.ones(N_CHANNELS + N_MODES), CPU)
    windows = cut_windows([len(session) for session in sessions], 10, 10)
    return EncoderPretraining(network, torch.Generator().manual_seed(seed), loader, windows)


def distance(network, batch):
    """The mean over rows, from the formula."""
    rows, logits = batch[..., :N_CHANNELS], batch[..., N_CHANNELS:].double().numpy()
    with torch.no_grad():
        mean, std = numpy_of(*network.posterior(rows))
    spread = np.log(std / PRETRAINED_STD) ** 2
    return np.mean((mean - logits) ** 2) + STD_WEIGHT * np.mean(spread)


def test_pretraining_is_the_distance_from_the_logits():
    network = make_network()
    objective = make_pretraining(network)
    batch = objective.loader(objective.windows[np.arange(3)])
    terms = objective.training_terms(batch, 0)
    assert set(terms) == {"loss"}
    assert terms["loss"].item() == pytest.approx(distance(network, batch.rows), rel=1e-5)


def test_pretraining_reaches_the_posterior_alone():
    network = make_network(with_means=True)
    objective = make_pretraining(network)
    batch = objective.loader(objective.windows[np.arange(3)])
    objective.training_terms(batch, 0)["loss"].backward()
    names = ("inference_rnn", "posterior", "smoothed_mean", "log_smoothing")
    for name, weight in network.named_parameters():
        reached = weight.grad is not None and torch.count_nonzero(weight.grad) > 0
        assert reached == (weight.requires_grad and name.startswith(names)), name


def test_dropout_applies_to_what_is_pretrained():
    network = make_network(inference=RecurrentSettings(n_units=5, dropout=0.5))
    objective = make_pretraining(network)
    batch = objective.loader(objective.windows[np.arange(3)])
    first, second = (objective.training_terms(batch, 0)["loss"].item() for _ in range(2))
    assert first != second
    assert objective.held_out_loss() == objective.held_out_loss()


def test_pretraining_of_the_prior_is_the_kl_term_and_reaches_the_prior_alone():
    network = make_network()
    whole = make_objective(network)
    objective = PriorPretraining(
        network, torch.Generator().manual_seed(5), whole.loader, whole.held_out, 10.0
    )
    batch = Batch(torch.tensor(make_sessions()[0][None, :30]).float())
    loss = objective.training_terms(batch, 0)["loss"]
    assert loss.item() == pytest.approx(whole.training_terms(batch, 0)["kl_loss"].item(), rel=1e-5)
    loss.backward()
    for name, weight in network.named_parameters():
        reached = weight.grad is not None and torch.count_nonzero(weight.grad) > 0
        wanted = name.startswith(("model_rnn", "prior", "persistence"))
        assert reached == (weight.requires_grad and wanted), name
