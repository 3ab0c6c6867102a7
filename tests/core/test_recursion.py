"""Linear recursions against SciPy's filter and plain weights."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from skdyn.core.recursion import first_order_filter, limited_recursion, smooth

DECAY = torch.tensor([0.0, 0.3, 0.99, 1.0], dtype=torch.float64)
LENGTHS = [1, 2, 63, 64, 65, 200, 5000]


def draw(n_rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, n_rows, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n_rows", LENGTHS)
def test_first_order_filter_is_scipys(n_rows):
    series = draw(n_rows)
    found = first_order_filter(series, DECAY)
    for column, decay in enumerate(DECAY.tolist()):
        wanted = lfilter([1], [1, -decay], series[..., column].numpy(), axis=1)
        np.testing.assert_allclose(found[..., column].numpy(), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n_rows", [1, 2, 70, 200])
def test_smooth_is_a_weighted_mean(n_rows):
    series = draw(n_rows)
    lags = np.abs(np.subtract.outer(np.arange(n_rows), np.arange(n_rows)))
    for column, decay in enumerate(DECAY.tolist()):
        weights = decay**lags
        weights /= weights.sum(axis=1, keepdims=True)
        wanted = np.einsum("ts,bs->bt", weights, series[..., column].numpy())
        np.testing.assert_allclose(
            smooth(series, DECAY)[..., column].numpy(), wanted, rtol=1e-9, atol=1e-12
        )


def test_gradients_are_those_of_finite_differences():
    series = draw(70)[:1].requires_grad_()
    decay = DECAY[1:3].clone().requires_grad_()
    for function in (first_order_filter, smooth):
        assert torch.autograd.gradcheck(function, (series[..., :2], decay))


def test_rows_after_the_length_do_not_count():
    series, lengths = draw(70), torch.tensor([70, 1, 33])
    found = smooth(series, DECAY, lengths)
    for number, length in enumerate(lengths.tolist()):
        alone = smooth(series[number : number + 1, :length], DECAY)[0]
        np.testing.assert_allclose(found[number, :length], alone, rtol=1e-9, atol=1e-12)


def test_padding_far_beyond_the_length_is_finite_and_has_no_gradient():
    """The weights that reach it underflow in single precision."""
    series = draw(1000).float().requires_grad_()
    decay = DECAY.float().requires_grad_()
    found = smooth(series, decay, torch.tensor([1000, 1, 100]))
    assert found.isfinite().all()
    loss = found[0].sum() + found[1, :1].sum() + found[2, :100].sum()
    for gradient in torch.autograd.grad(loss, (series, decay)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("limits", [(-np.inf, np.inf), (-0.3, 0.5), (0.0, np.inf)])
def test_limited_recursion_is_that_of_a_loop(limits):
    factors, inputs = draw(90)[0], draw(90, seed=1)[0]
    found = limited_recursion(factors, inputs, *limits)
    row = np.clip(inputs[0].numpy(), *limits)
    for number in range(90):
        if number:
            row = np.clip(factors[number].numpy() * row + inputs[number].numpy(), *limits)
        np.testing.assert_allclose(found[number].numpy(), row, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("limits", [(-np.inf, np.inf), (-0.3, 0.5)])
def test_limited_recursion_has_derivatives_of_all_orders(limits):
    values = [draw(9, seed)[0][:, :2].requires_grad_() for seed in (0, 1)]
    function = partial(limited_recursion, low=limits[0], high=limits[1])
    assert torch.autograd.gradcheck(function, values)
    assert torch.autograd.gradgradcheck(function, values)


def test_limited_recursion_can_be_vectorised():
    factors, inputs = draw(30), draw(30, seed=1)
    function = partial(limited_recursion, low=0.0, high=1.0)
    found = torch.func.vmap(function)(factors, inputs)
    expected = torch.stack([function(f, x) for f, x in zip(factors, inputs, strict=True)])
    torch.testing.assert_close(found, expected)
    leaf = factors[0].clone().requires_grad_()
    output = function(leaf, inputs[0])
    starts = torch.eye(output.numel(), dtype=output.dtype).reshape(-1, *output.shape)
    rows = torch.func.vmap(
        lambda start: torch.autograd.grad(output, leaf, start, retain_graph=True)[0]
    )(starts)
    one_by_one = [torch.autograd.grad(output, leaf, s, retain_graph=True)[0] for s in starts]
    torch.testing.assert_close(rows, torch.stack(one_by_one))
    shared = torch.func.vmap(function, in_dims=(None, 1), out_dims=1)(factors[0, :, 0], inputs[0])
    alone = [function(factors[0, :, 0], one) for one in inputs[0].unbind(1)]
    torch.testing.assert_close(shared, torch.stack(alone, 1))
