import numpy as np
import pytest
import torch
from scipy.special import erf, expit, log_expit
from torch import nn

from skdyn.core.distributed import Draws, share
from skdyn.core.recurrent import (
    ACTIVATIONS,
    RecurrentSettings,
    RecurrentStack,
    dropout,
    initialise_linear,
)

CELLS = pytest.mark.parametrize("rnn", ["lstm", "gru"])
DIRECTIONS = pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "both-ways"])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws_for(n_windows, seed=0):
    return Draws(generator(seed), share(n_windows))


def make_stack(n_inputs=3, *, bidirectional=False, seed=0, **settings):
    settings = {"n_units": 5, "normalization": None} | settings
    stack = RecurrentStack(n_inputs, RecurrentSettings(**settings), bidirectional=bidirectional)
    stack.initialise(generator(seed))
    return stack.eval()


def make_random(stack, seed=7):
    """No weight at a special value such as zero, so that each of them shows in the output."""
    with torch.no_grad():
        for name, weight in stack.named_parameters():
            if not (stack.settings.rnn == "lstm" and "bias_hh" in name):
                weight.copy_(0.5 * torch.randn(weight.shape, generator=generator(seed)))
            seed += 1
    return stack


def inputs(batch=2, time=6, features=3, seed=1):
    return torch.randn(batch, time, features, generator=generator(seed))


# An independent NumPy network.


def run_lstm(x, w, u, b):
    """Input, forget, candidate, output gate; one bias; state zero at the start."""
    n = u.shape[1]
    h, c, out = np.zeros(n), np.zeros(n), []
    for row in x:
        z = w @ row + u @ h + b
        i, f, g, o = expit(z[:n]), expit(z[n : 2 * n]), np.tanh(z[2 * n : 3 * n]), expit(z[3 * n :])
        c = f * c + i * g
        h = o * np.tanh(c)
        out.append(h)
    return np.array(out)


def run_gru(x, w, u, b, d):
    """Reset gate applied after the recurrent product, which has a bias of its own."""
    n = u.shape[1]
    h, out = np.zeros(n), []
    for row in x:
        z, v = w @ row + b, u @ h + d
        r, k = expit(z[:n] + v[:n]), expit(z[n : 2 * n] + v[n : 2 * n])
        g = np.tanh(z[2 * n :] + r * v[2 * n :])
        h = (1 - k) * g + k * h
        out.append(h)
    return np.array(out)


def run_layer(cell, x, rnn, suffix=""):
    w, u, b, d = (
        getattr(cell, f"{name}_l0{suffix}").detach().double().numpy()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return run_lstm(x, w, u, b) if rnn == "lstm" else run_gru(x, w, u, b, d)


def run_stack(stack, x, *, bidirectional, layer_norm=False, activation=None):
    out = []
    for window in x.double().numpy():
        h = window
        for layer, (cell, norm) in enumerate(zip(stack.cells, stack.norms, strict=True)):
            forward = run_layer(cell, h, stack.settings.rnn)
            if bidirectional:
                other = stack.backward_cells[layer]
                backward = run_layer(other, h[::-1], stack.settings.rnn)[::-1]
                h = np.concatenate([forward, backward], axis=1)
            else:
                h = forward
            if layer_norm:
                deviation = h - h.mean(1, keepdims=True)
                h = deviation / np.sqrt((deviation**2).mean(1, keepdims=True) + 1e-3)
                h = h * norm.weight.detach().numpy() + norm.bias.detach().numpy()
            if activation is not None:
                h = activation(h)
        out.append(h)
    return np.array(out)


@CELLS
@DIRECTIONS
@pytest.mark.parametrize("n_layers", [1, 2])
def test_equals_the_gates_in_a_loop(rnn, bidirectional, n_layers):
    stack = make_random(make_stack(rnn=rnn, bidirectional=bidirectional, n_layers=n_layers))
    x = inputs()
    assert stack.n_outputs == (10 if bidirectional else 5)
    with torch.no_grad():
        found = stack(x)
    expected = run_stack(stack, x, bidirectional=bidirectional)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


@DIRECTIONS
def test_normalisation_comes_before_the_activation_in_every_layer(bidirectional):
    stack = make_random(
        make_stack(
            rnn="gru",
            n_layers=2,
            normalization="layer",
            activation="relu",
            bidirectional=bidirectional,
        )
    )
    x = inputs()
    expected = run_stack(
        stack,
        x,
        bidirectional=bidirectional,
        layer_norm=True,
        activation=lambda h: np.maximum(h, 0),
    )
    with torch.no_grad():
        np.testing.assert_allclose(stack(x).numpy(), expected, atol=1e-5)


def test_layer_normalisation_has_the_epsilon_of_keras():
    norm = make_stack(normalization="layer").norms[0]
    # A variance as small as epsilon: with torch's own 1e-5 the result would be near one.
    x = np.sqrt(1e-3) * np.array([1.0, -1, 1, -1, 0])
    expected = x / np.sqrt(x.var() + 1e-3)
    np.testing.assert_allclose(
        norm(torch.tensor(x).float()).detach(), expected, rtol=1e-5, atol=1e-7
    )


def test_batch_normalisation_is_over_batch_and_time():
    norm = make_stack(normalization="batch").norms[0].train()
    x = 3 + 2 * inputs(4, 7, 5)
    rows = x.double().numpy().reshape(-1, 5)
    expected = (x.numpy() - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-3)
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, atol=1e-5)
    # One update of the moving averages, which start at 0 and 1, with momentum 0.99.
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.01 * rows.mean(0), rtol=1e-5)
    moved = 0.99 + 0.01 * rows.var(0, ddof=1)
    np.testing.assert_allclose(norm.running_var.numpy(), moved, rtol=1e-5)
    norm.eval()
    expected = (x.numpy() - 0.01 * rows.mean(0)) / np.sqrt(moved + 1e-3)
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@CELLS
def test_a_causal_stack_does_not_see_the_future_and_a_bidirectional_one_does(rnn):
    x = inputs()
    changed = x.clone()
    changed[:, 4] += 1
    with torch.no_grad():
        causal = make_stack(rnn=rnn)
        assert torch.equal(causal(x)[:, :4], causal(changed)[:, :4])
        assert not torch.allclose(causal(x)[:, 4:], causal(changed)[:, 4:])
        both = make_stack(rnn=rnn, bidirectional=True)
        assert not torch.allclose(both(x)[:, :4], both(changed)[:, :4])


@CELLS
@pytest.mark.parametrize("n_layers", [1, 2])
def test_step_by_step_equals_the_whole_window(rnn, n_layers):
    stack = make_random(make_stack(rnn=rnn, n_layers=n_layers, normalization="layer"))
    x = inputs(time=9)
    state = [None] * n_layers
    with torch.no_grad():
        whole = stack(x)
        steps = [stack(x[:, t : t + 1], state=state) for t in range(4)]
        rest = stack(x[:, 4:], state=state)
    torch.testing.assert_close(torch.cat([*steps, rest], dim=1), whole, rtol=1e-5, atol=1e-6)


REFERENCE = {
    "elu": lambda h: np.where(h > 0, h, np.expm1(h)),
    "gelu": lambda h: h * 0.5 * (1 + erf(h / np.sqrt(2))),
    "relu": lambda h: np.maximum(h, 0),
    "selu": lambda h: 1.0507009873554805 * np.where(h > 0, h, 1.6732632423543772 * np.expm1(h)),
    "sigmoid": expit,
    "softplus": lambda h: -log_expit(-h),
    "swish": lambda h: h * expit(h),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations(name):
    x = inputs()
    with torch.no_grad():
        plain = make_stack(activation=None)(x)
        found = make_stack(activation=name)(x)
    assert (plain < 0).any()
    assert (plain > 0).any()
    np.testing.assert_allclose(
        found.numpy(), REFERENCE[name](plain.double().numpy()), rtol=1e-5, atol=1e-6
    )


# Initial values.


def test_lstm_biases():
    stack = make_stack(rnn="lstm", n_layers=2, bidirectional=True)
    biases = {name: weight for name, weight in stack.named_parameters() if "bias" in name}
    assert len(biases) == 8
    for name, bias in biases.items():
        expected = torch.zeros(20)
        if "bias_ih" in name:
            expected[5:10] = 1
        assert torch.equal(bias.detach(), expected), name
        assert bias.requires_grad == ("bias_ih" in name)


def test_gru_biases_are_both_zero_and_both_trained():
    biases = [w for name, w in make_stack(rnn="gru").named_parameters() if "bias" in name]
    assert len(biases) == 2
    assert all(b.requires_grad and torch.count_nonzero(b) == 0 for b in biases)


def test_the_second_lstm_bias_gets_no_gradient_and_stays_zero():
    stack = make_stack(rnn="lstm", bidirectional=True).train()
    weights = [w for w in stack.parameters() if w.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        stack(inputs()).square().sum().backward()
        optimizer.step()
    for name, weight in stack.named_parameters():
        if "bias_hh" in name:
            assert weight.grad is None
            assert torch.count_nonzero(weight) == 0
        else:
            assert torch.count_nonzero(weight.grad) > 0


@CELLS
@DIRECTIONS
def test_kernels_are_glorot_uniform_and_recurrent_kernels_orthogonal(rnn, bidirectional):
    n_gates = {"lstm": 4, "gru": 3}[rnn]
    stack = make_stack(30, rnn=rnn, n_units=32, n_layers=2, bidirectional=bidirectional)
    kernels = dict(stack.named_parameters())
    for layer, width in enumerate([30, 64 if bidirectional else 32]):
        for cells in ["cells", "backward_cells"] if bidirectional else ["cells"]:
            kernel = kernels[f"{cells}.{layer}.weight_ih_l0"].detach().double()
            assert kernel.shape == (32 * n_gates, width)
            limit = np.sqrt(6 / (width + 32 * n_gates))
            assert 0.99 * limit < kernel.abs().max() <= limit
            # The standard deviation of a uniform draw, to five of its standard errors
            # (its kurtosis is 1.8).
            error = 5 * limit / np.sqrt(3) * np.sqrt(0.8 / (4 * kernel.numel()))
            assert abs(kernel.std() - limit / np.sqrt(3)) < error
            recurrent = kernels[f"{cells}.{layer}.weight_hh_l0"].detach()
            torch.testing.assert_close(recurrent.T @ recurrent, torch.eye(32), rtol=1e-5, atol=1e-5)
    if bidirectional:
        forward, backward = (
            kernels[f"{cells}.0.weight_ih_l0"] for cells in ("cells", "backward_cells")
        )
        assert not torch.equal(forward, backward)


def test_linear_layers_are_glorot_uniform():
    layer = nn.Linear(60, 40, device="meta").to_empty(device="cpu")
    initialise_linear(layer, generator())
    limit = np.sqrt(6 / 100)
    assert 0.99 * limit < layer.weight.abs().max() <= limit
    assert torch.count_nonzero(layer.bias) == 0


@CELLS
@pytest.mark.parametrize("normalization", ["layer", "batch"])
def test_initialise_forgets_everything_and_follows_its_generator(rnn, normalization):
    settings = {"rnn": rnn, "normalization": normalization, "n_layers": 2}
    stack = make_stack(seed=1, **settings).train()
    expected = {k: v.clone() for k, v in make_stack(seed=0, **settings).state_dict().items()}
    with torch.no_grad():
        stack(inputs())
    make_random(stack)
    stack.initialise(generator(0))
    found = stack.state_dict()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name
    stack.initialise(generator(1))
    assert not torch.equal(
        stack.state_dict()["cells.0.weight_ih_l0"], expected["cells.0.weight_ih_l0"]
    )


def test_storage_that_was_never_set_is_set_by_initialise():
    with torch.device("meta"):
        stack = RecurrentStack(3, RecurrentSettings(n_layers=2, normalization="batch"))
    stack.to_empty(device="cpu")
    with torch.no_grad():
        for value in stack.state_dict().values():
            value.fill_(torch.nan if value.is_floating_point() else -7)
    stack.initialise(generator())
    assert all(
        value.isfinite().all() and (value != -7).all() for value in stack.state_dict().values()
    )
    assert [n for n, w in stack.named_parameters() if not w.requires_grad] == [
        "cells.0.bias_hh_l0",
        "cells.1.bias_hh_l0",
    ]


# Dropout.


def test_dropout_keeps_the_expectation():
    n, probability = 200_000, 0.3
    values = dropout(torch.ones(n), probability, draws_for(n))
    kept = values[values != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.7))
    # Five standard errors of a binomial share.
    assert abs(len(kept) / n - 0.7) < 5 * np.sqrt(0.3 * 0.7 / n)
    assert abs(float(values.mean()) - 1) < 5 * np.sqrt(0.3 / 0.7 / n)


def test_dropout_scales_the_gradient_as_it_scales_the_values():
    x = torch.randn(1000, generator=generator(1)).requires_grad_()
    values = dropout(x, 0.5, draws_for(1000))
    values.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), values.detach())


def test_without_draws_or_a_probability_nothing_is_dropped_or_drawn():
    x = inputs()
    assert torch.equal(dropout(x, 0.9, None), x)
    source = draws_for(len(x))
    before = source.generator.get_state()
    assert torch.equal(dropout(x, 0.0, source), x)
    assert torch.equal(before, source.generator.get_state())


def test_the_stack_drops_after_every_layer_only_with_draws():
    stack = make_stack(n_layers=2, dropout=0.5)
    x = inputs(8, 20)
    with torch.no_grad():
        plain = make_stack(n_layers=2, dropout=0.0)(x)
        assert torch.equal(stack(x), plain)
        dropped = stack(x, draws_for(8, seed=3))
        assert torch.equal(dropped, stack(x, draws_for(8, seed=3)))
    zero = dropped == 0
    assert abs(float(zero.float().mean()) - 0.5) < 5 * np.sqrt(0.25 / zero.numel())
    # The kept values are not simply doubled, because the first layer has dropout too.
    assert not torch.allclose(dropped[~zero], 2 * plain[~zero])


def test_the_global_generator_of_torch_is_left_alone():
    before = torch.get_rng_state()
    with torch.device("meta"):
        stack = RecurrentStack(3, RecurrentSettings(dropout=0.5), bidirectional=True)
    stack.to_empty(device="cpu").initialise(generator())
    stack.train()(inputs(8, 20), draws_for(8, seed=1)).sum().backward()
    assert torch.equal(before, torch.get_rng_state())


@CELLS
@DIRECTIONS
def test_padded_windows_give_what_each_gives_alone(rnn, bidirectional):
    stack = make_random(make_stack(rnn=rnn, n_layers=2, bidirectional=bidirectional))
    x, lengths = inputs(), torch.tensor([3, 1])
    x = x[:2]
    with torch.no_grad():
        found = stack(x, lengths=lengths)
        for window, (rows, length) in enumerate(zip(x, lengths.tolist(), strict=True)):
            alone = stack(rows[None, :length])[0]
            torch.testing.assert_close(found[window, :length], alone, rtol=1e-5, atol=1e-6)
