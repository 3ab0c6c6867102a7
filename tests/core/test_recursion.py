"""Linear recursions against SciPy's filter and plain weights."""

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from skdyn.core.recursion import first_order_filter, smooth

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
