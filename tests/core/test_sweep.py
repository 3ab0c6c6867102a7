"""Small matrices, swept all together, against LAPACK's."""

import numpy as np
import pytest
import torch

from skdyn.core import gaussian
from skdyn.core.gaussian import mixture_log_likelihood, sweep


def covariances_of(n_modes, n_channels, condition=100.0, seed=0):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((n_modes, n_channels, n_channels)))[0]
    values = np.geomspace(1, 1 / condition, n_channels)
    return torch.tensor((axes * values) @ axes.swapaxes(1, 2))


def mixture(n_rows, n_modes, n_channels, condition=100.0):
    rng = np.random.default_rng(1)
    covariances = covariances_of(n_modes, n_channels, condition)
    alpha = torch.tensor(rng.dirichlet(np.ones(n_modes), n_rows))
    mixed = torch.einsum("tj,jab->tab", alpha, covariances)
    noise = torch.tensor(rng.standard_normal((n_rows, n_channels, 1)))
    return (torch.linalg.cholesky(mixed) @ noise)[..., 0], alpha, covariances


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_a_bordered_matrix_is_swept_into_its_inverse(size):
    matrices = covariances_of(7, size).numpy()
    border = np.random.default_rng(1).standard_normal((7, size))
    bordered = np.zeros((7, size + 1, size + 1))
    bordered[:, :-1, :-1] = matrices
    bordered[:, -1, :-1] = bordered[:, :-1, -1] = border
    swept = torch.tensor(np.moveaxis(bordered, 0, -1).copy())
    pivots = sweep(swept)
    swept = np.moveaxis(swept.numpy(), -1, 0)
    inverses = np.linalg.inv(matrices)
    z = np.einsum("tab,tb->ta", inverses, border)
    np.testing.assert_allclose(swept[:, :-1, :-1], -inverses, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(swept[:, -1, :-1], z, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(swept[:, :-1, -1], z, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(swept[:, -1, -1], -np.sum(z * border, axis=1), rtol=1e-9)
    assert pivots.shape == (size, 7)
    np.testing.assert_allclose(pivots.numpy().prod(axis=0), np.linalg.det(matrices), rtol=1e-9)


def everything(n_channels, dtype=torch.float64, condition=100.0):
    """Value and gradients, with means and weights."""
    data, alpha, covariances = mixture(30, 3, n_channels, condition)
    means = torch.tensor(np.random.default_rng(2).standard_normal((3, n_channels)))
    weights = torch.linspace(0, 2, 30, dtype=torch.float64)
    data, weights = data.to(dtype), weights.to(dtype)
    variables = [v.to(dtype).requires_grad_() for v in (alpha, means, covariances)]
    value = mixture_log_likelihood(data, *variables, weights)
    return value.detach(), *torch.autograd.grad(value, variables)


@pytest.mark.parametrize("n_channels", [1, 3, 20, 40])
def test_swept_and_factored_agree(monkeypatch, n_channels):
    swept = everything(n_channels)
    monkeypatch.setattr(gaussian, "LARGEST_SWEPT", 0)
    for one, other in zip(swept, everything(n_channels), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_which_matrices_are_swept(monkeypatch):
    swept = []
    monkeypatch.setattr(gaussian, "sweep", lambda m: swept.append(len(m)) or sweep(m))
    everything(40)
    everything(41)
    assert swept == [41]


@pytest.mark.parametrize("condition", [1e2, 1e5, 1e6])
def test_sweeping_rounds_no_worse_than_factoring(monkeypatch, condition):
    exact = everything(20, condition=condition)

    def errors():
        found = everything(20, torch.float32, condition)
        return [float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]

    swept = errors()
    monkeypatch.setattr(gaussian, "LARGEST_SWEPT", 0)
    for one, other in zip(swept, errors(), strict=True):
        assert one < 3 * other + 1e-5


def test_a_row_that_cannot_be_swept_is_rescued_and_spoils_no_other(monkeypatch):
    data, alpha, covariances = mixture(6, 3, 5)
    # A mode of rank one; the second row has nothing else.
    covariances[0] = torch.ones(5, 5)
    alpha[1] = torch.tensor([1.0, 0.0, 0.0])

    def values(rows, **options):
        part = alpha[rows].clone().requires_grad_()
        total = mixture_log_likelihood(data[rows], part, None, covariances, **options)
        return total.detach(), torch.autograd.grad(total, part)[0]

    total, gradient = values(slice(None))
    assert total.isfinite()
    assert gradient.isfinite().all()
    good, good_gradient = values([0, 2, 3, 4, 5])
    torch.testing.assert_close(gradient[[0, 2, 3, 4, 5]], good_gradient, rtol=1e-9, atol=1e-9)
    bad, _ = values([1])
    torch.testing.assert_close(total, good + bad)
    assert values(slice(None), use_jitter=False)[0].isnan()
    assert values([0, 2, 3], use_jitter=False)[0].isfinite()
    # The use_jitter is the one of larger matrices.
    monkeypatch.setattr(gaussian, "LARGEST_SWEPT", 0)
    torch.testing.assert_close(values([1])[0], bad)
