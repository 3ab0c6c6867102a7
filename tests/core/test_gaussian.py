import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.distributions import MultivariateNormal
from torch.utils._python_dispatch import TorchDispatchMode

from skdyn.core import gaussian
from skdyn.core.gaussian import (
    covariances_from_vectors,
    mixture_log_likelihood,
    mixture_log_prob,
    mode_scores,
    precisions,
    safe_cholesky,
    sample_mixture,
    vectors_from_covariances,
)

KINDS = pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])
MEANS = pytest.mark.parametrize("with_means", [False, True], ids=["zero-mean", "means"])
WEIGHTS = pytest.mark.parametrize("with_weights", [False, True], ids=["plain", "weighted"])


def problem(n_rows=23, n_modes=3, n_channels=4, *, diagonal=False, with_means=True, seed=0):
    rng = np.random.default_rng(seed)
    x = 2 * rng.standard_normal((n_rows, n_channels))
    alpha = rng.dirichlet(np.ones(n_modes), n_rows)
    means = rng.standard_normal((n_modes, n_channels)) if with_means else None
    if diagonal:
        covariances = rng.uniform(0.2, 3, (n_modes, n_channels))
    else:
        roots = rng.standard_normal((n_modes, n_channels, n_channels))
        covariances = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(n_channels)
    weights = rng.uniform(0, 2, n_rows)
    return [None if a is None else torch.tensor(a) for a in (x, alpha, means, covariances, weights)]


def scipy_log_prob(x, alpha, means, covariances):
    x, alpha, covariances = x.numpy(), alpha.numpy(), covariances.numpy()
    rows = []
    for row, weight in zip(x, alpha, strict=True):
        mean, covariance = np.zeros(len(row)), 0.0
        for j, share in enumerate(weight):
            full = np.diag(covariances[j]) if covariances.ndim == 2 else covariances[j]
            covariance = covariance + share * full
            if means is not None:
                mean = mean + share * means[j].numpy()
        rows.append(multivariate_normal.logpdf(row, mean, covariance))
    return np.array(rows)


@KINDS
@MEANS
def test_log_prob_equals_scipy_row_by_row(diagonal, with_means):
    x, alpha, means, covariances, _ = problem(diagonal=diagonal, with_means=with_means)
    found = mixture_log_prob(x, alpha, means, covariances)
    expected = scipy_log_prob(x, alpha, means, covariances)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-10)


@KINDS
@MEANS
@WEIGHTS
def test_log_likelihood_equals_the_weighted_sum_of_scipys(diagonal, with_means, with_weights):
    x, alpha, means, covariances, weights = problem(diagonal=diagonal, with_means=with_means)
    rows = scipy_log_prob(x, alpha, means, covariances)
    expected = rows @ weights.numpy() if with_weights else rows.sum()
    given = weights if with_weights else None
    found = mixture_log_likelihood(x, alpha, means, covariances, given)
    np.testing.assert_allclose(float(found), expected, rtol=1e-10)


@pytest.mark.parametrize("n_channels", [1, 2])
def test_few_channels(n_channels):
    x, alpha, means, covariances, _ = problem(n_channels=n_channels)
    expected = scipy_log_prob(x, alpha, means, covariances)
    np.testing.assert_allclose(mixture_log_prob(x, alpha, means, covariances), expected, rtol=1e-10)
    total = mixture_log_likelihood(x, alpha, means, covariances)
    np.testing.assert_allclose(float(total), expected.sum(), rtol=1e-10)


@KINDS
@MEANS
@WEIGHTS
def test_gradcheck(diagonal, with_means, with_weights):
    x, alpha, means, covariances, weights = problem(
        n_rows=5, n_channels=3, diagonal=diagonal, with_means=with_means
    )
    # Symmetric perturbations only: through the parametrisation that training uses.
    vectors = vectors_from_covariances(covariances, 1e-3)

    def value(alpha, means, vectors):
        matrices = covariances_from_vectors(vectors, 3, 1e-3, diagonal=diagonal)
        given = weights if with_weights else None
        # A factor, so that the gradient that comes in is not one.
        return 0.7 * mixture_log_likelihood(x, alpha, means, matrices, given)

    variables = [None if v is None else v.clone().requires_grad_() for v in (alpha, means, vectors)]
    assert torch.autograd.gradcheck(value, variables, eps=1e-6, atol=1e-6, rtol=1e-5)


@MEANS
@WEIGHTS
def test_gradients_equal_autograd_through_multivariate_normal(with_means, with_weights):
    x, alpha, means, covariances, weights = problem(n_rows=40, with_means=with_means)

    def plain(alpha, means, covariances):
        mean = torch.zeros_like(x) if means is None else torch.einsum("tj,jc->tc", alpha, means)
        matrices = torch.einsum("tj,jab->tab", alpha, covariances)
        rows = MultivariateNormal(mean, covariance_matrix=matrices).log_prob(x)
        return (weights * rows).sum() if with_weights else rows.sum()

    def ours(alpha, means, covariances):
        given = weights if with_weights else None
        return mixture_log_likelihood(x, alpha, means, covariances, given)

    def gradients(function):
        variables = [
            None if v is None else v.clone().requires_grad_() for v in (alpha, means, covariances)
        ]
        there = [v for v in variables if v is not None]
        return torch.autograd.grad(3 * function(*variables), there)

    for found, expected in zip(gradients(ours), gradients(plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_gradient_flows_only_to_what_asks_for_it_and_nothing_is_modified():
    given = problem()
    x, alpha, means, covariances, weights = (v.clone() for v in given)
    covariances.requires_grad_()
    mixture_log_likelihood(x, alpha, means, covariances, weights).backward()
    assert covariances.grad is not None
    assert alpha.grad is None
    assert means.grad is None
    for before, after in zip(given, (x, alpha, means, covariances.detach(), weights), strict=True):
        assert torch.equal(before, after)


def test_alpha_may_be_one_row_seen_many_times():
    x, alpha, means, covariances, _ = problem()
    row = alpha[:1].clone().requires_grad_()
    spread = row.expand(len(x), -1)
    value = mixture_log_likelihood(x, spread, means, covariances)
    value.backward()
    copied = alpha[:1].repeat(len(x), 1).requires_grad_()
    mixture_log_likelihood(x, copied, means, covariances).backward()
    torch.testing.assert_close(row.grad, copied.grad.sum(0, keepdim=True), rtol=1e-10, atol=1e-10)


@MEANS
def test_result_does_not_depend_on_the_block_size(monkeypatch, with_means):
    def everything():
        x, alpha, means, covariances, weights = problem(with_means=with_means)
        variables = [v.requires_grad_() for v in (alpha, means, covariances) if v is not None]
        total = mixture_log_likelihood(x, alpha, means, covariances, weights)
        rows = mixture_log_prob(x, alpha.detach(), means, covariances.detach())
        generator = torch.Generator().manual_seed(1)
        drawn = sample_mixture(
            alpha.detach(), None if means is None else means.detach(), covariances, generator
        )
        return total.detach(), rows, drawn, *torch.autograd.grad(total, variables)

    expected = everything()
    # One row at a time; 3 rows at a time with a remainder; fewer numbers than one matrix.
    for size in (25, 3 * 25, 1):
        monkeypatch.setattr(gaussian, "BLOCK_SIZE", size)
        assert len(gaussian._blocks(torch.zeros(23, 4))) == (8 if size == 75 else 23)
        for found, wanted in zip(everything(), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation gives."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, torch.Tensor):
                self.largest = max(self.largest, one.untyped_storage().nbytes())
        return result


def test_nothing_larger_than_a_block_is_formed(monkeypatch):
    n_rows, n_modes, n_channels = 600, 7, 6
    monkeypatch.setattr(gaussian, "BLOCK_SIZE", 3_600)
    x, alpha, means, covariances, weights = problem(n_rows, n_modes, n_channels)
    for variable in (alpha, means, covariances):
        variable.requires_grad_()
    bound = 8 * max(n_rows * n_modes, 3_600, n_modes * n_channels**2)
    with LargestTensor() as seen:
        mixture_log_likelihood(x, alpha, means, covariances, weights).backward()
        mixture_log_prob(x, alpha, means, covariances)
    assert 0 < seen.largest <= bound < 8 * n_rows * n_channels**2
    # The measure does see the tensor that the reference forms.
    with LargestTensor() as seen:
        (alpha[:, :, None, None] * covariances).sum(1)
    assert seen.largest == 8 * n_rows * n_modes * n_channels**2


@KINDS
def test_single_precision_is_close_to_double(diagonal):
    x, alpha, means, covariances, weights = problem(n_rows=300, n_channels=8, diagonal=diagonal)

    def gradients(dtype):
        xs, *variables, w = (v.to(dtype) for v in (x, alpha, means, covariances, weights))
        variables = [v.requires_grad_() for v in variables]
        value = mixture_log_likelihood(xs, *variables, w)
        return value.detach().double(), *(g.double() for g in torch.autograd.grad(value, variables))

    for single, double in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        assert (single - double).norm() <= 1e-4 * double.norm()


def test_rows_of_zero_weight_are_as_if_absent():
    x, alpha, means, covariances, weights = problem()
    weights[::3] = 0
    kept = weights > 0

    def value_and_gradients(rows):
        there = [v.clone().requires_grad_() for v in (alpha[rows], means, covariances)]
        value = mixture_log_likelihood(x[rows], *there, weights[rows])
        return value.detach(), *torch.autograd.grad(value, there)

    value, d_alpha, d_means, d_covariances = value_and_gradients(torch.ones_like(kept))
    fewer, d_alpha_kept, d_means_kept, d_covariances_kept = value_and_gradients(kept)
    torch.testing.assert_close(value, fewer)
    torch.testing.assert_close(d_alpha[kept], d_alpha_kept)
    torch.testing.assert_close(d_means, d_means_kept)
    torch.testing.assert_close(d_covariances, d_covariances_kept)
    assert torch.count_nonzero(d_alpha[~kept]) == 0


def test_non_finite_data_give_a_non_finite_likelihood():
    x, alpha, means, covariances, _ = problem()
    x[3, 1] = torch.nan
    rows = mixture_log_prob(x, alpha, means, covariances)
    assert rows.isnan().nonzero().tolist() == [[3]]
    assert mixture_log_likelihood(x, alpha, means, covariances).isnan()


# The covariance parametrisation.


def test_covariances_from_vectors_against_a_loop():
    rng = np.random.default_rng(1)
    n_modes, n_channels, epsilon = 3, 4, 0.01
    vectors = 3 * rng.standard_normal((n_modes, 10))
    expected = np.empty((n_modes, n_channels, n_channels))
    for j in range(n_modes):
        factor, place = np.zeros((n_channels, n_channels)), 0
        for row in range(n_channels):
            for column in range(row + 1):
                value = vectors[j, place]
                factor[row, column] = np.log1p(np.exp(value)) + 1e-5 if row == column else value
                place += 1
        expected[j] = factor @ factor.T + epsilon * np.eye(n_channels)
    found = covariances_from_vectors(torch.tensor(vectors), n_channels, epsilon)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_diagonals_from_vectors():
    vectors = torch.tensor([[-50.0, 0.0, 3.0, 40.0]], dtype=torch.float64)
    found = covariances_from_vectors(vectors, 4, 0.01, diagonal=True)
    expected = [0.01 + np.log1p(np.exp(v)) for v in vectors[0].tolist()]
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@KINDS
def test_round_trip(diagonal, scale):
    covariances = scale * problem(n_channels=5, diagonal=diagonal)[3]
    vectors = vectors_from_covariances(covariances, 1e-6)
    assert vectors.shape == (3, 5 if diagonal else 15)
    again = covariances_from_vectors(vectors, 5, 1e-6, diagonal=diagonal)
    torch.testing.assert_close(again, covariances, rtol=1e-8, atol=1e-8 * scale)


@KINDS
def test_vectors_are_recovered(diagonal):
    vectors = torch.randn(2, 4 if diagonal else 10, generator=torch.Generator().manual_seed(0))
    vectors = vectors.double()
    covariances = covariances_from_vectors(vectors, 4, 1e-4, diagonal=diagonal)
    torch.testing.assert_close(vectors_from_covariances(covariances, 1e-4), vectors)


@KINDS
def test_unreachable_covariances_give_finite_neighbours(diagonal):
    # Variances below epsilon: the parametrisation cannot get there.
    small = torch.full((1, 3), 1e-4, dtype=torch.float64)
    given = small if diagonal else torch.diag_embed(small)
    vectors = vectors_from_covariances(given, 1e-3)
    assert vectors.isfinite().all()
    again = covariances_from_vectors(vectors, 3, 1e-3, diagonal=diagonal)
    assert (again - given).abs().max() <= 1.2e-3
    if not diagonal:
        assert torch.linalg.eigvalsh(again).min() > 0


# Factors and inverses by parts.


@pytest.mark.parametrize("n_channels", [1, 24, 25, 49, 80, 131])
def test_precisions_and_determinants_equal_numpys(n_channels):
    matrices = problem(n_modes=5, n_channels=n_channels)[3]
    inverses, log_diagonals = precisions(matrices)
    np.testing.assert_allclose(inverses, np.linalg.inv(matrices.numpy()), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(2 * log_diagonals, np.linalg.slogdet(matrices)[1], rtol=1e-10)


def test_inverses_by_parts_are_as_accurate_as_lapacks():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((50, 80, 80)))[0]
    exact = torch.tensor(axes * np.logspace(0, -5, 80) @ axes.swapaxes(1, 2))
    exact = (exact + exact.mT) / 2
    matrices = exact.float()
    true = torch.linalg.inv(matrices.double())
    lapack = torch.cholesky_inverse(torch.linalg.cholesky(matrices))
    errors = [(found - true).norm(dim=(1, 2)) for found in (precisions(matrices)[0], lapack)]
    assert errors[0].max() < 3 * errors[1].max()


def test_gradcheck_by_parts():
    x, alpha, _, covariances, _ = problem(n_rows=3, n_modes=2, n_channels=27)
    alpha, covariances = alpha.requires_grad_(), (covariances + torch.eye(27)).requires_grad_()
    x, symmetric = x / 10, lambda matrix: (matrix + matrix.mT) / 2
    torch.autograd.gradcheck(
        lambda a, d: mixture_log_likelihood(x, a, None, symmetric(d)), (alpha, covariances)
    )


def test_a_bad_matrix_is_loaded_by_parts_too_and_spoils_no_other():
    good = problem(n_modes=2, n_channels=40)[3].float()
    row = torch.randn(1, 40, generator=torch.Generator().manual_seed(0))
    singular, hopeless = (row.T @ row)[None], -torch.eye(40)[None]
    inverses, log_diagonals = precisions(torch.cat([good, singular, hopeless]))
    assert torch.equal(inverses[:2], precisions(good)[0])
    factor = safe_cholesky(singular)
    torch.testing.assert_close(log_diagonals[2:3], factor.diagonal(dim1=1, dim2=2).log().sum(-1))
    torch.testing.assert_close(inverses[2:3], torch.cholesky_inverse(factor), rtol=1e-2, atol=1e-2)
    assert inverses[3].isnan().any() and log_diagonals[3].isnan()


# The one policy for bad matrices.


def test_good_matrices_are_factored_exactly():
    matrices = problem(n_channels=6)[3].float()
    assert torch.equal(safe_cholesky(matrices), torch.linalg.cholesky(matrices))


def test_only_the_bad_matrix_is_loaded_and_no_more_than_it_needs():
    # Eigenvalues 2 and -1e-8 times 4; the first of the loads 10 eps, 100 eps, ... of the mean
    # diagonal above 1e-8 is 10^8 eps.
    bad = 4 * torch.tensor([[1, 1 + 1e-8], [1 + 1e-8, 1]], dtype=torch.float64)
    good = problem(n_channels=2)[3]
    matrices = torch.stack([good[0], bad, good[1]])
    before = matrices.clone()
    factors = safe_cholesky(matrices)
    assert torch.equal(matrices, before)
    assert torch.equal(factors[[0, 2]], torch.linalg.cholesky(good[:2]))
    added = factors[1] @ factors[1].T - bad
    load = 1e8 * torch.finfo(torch.float64).eps * 4
    torch.testing.assert_close(added, load * torch.eye(2).double(), rtol=1e-6, atol=1e-14)
    assert torch.linalg.cholesky_ex(bad + 0.1 * load * torch.eye(2))[1] > 0


def test_a_singular_matrix_in_single_precision_gets_a_factor():
    row = torch.randn(1, 20, generator=torch.Generator().manual_seed(0))
    matrix = (row.T @ row)[None]
    assert torch.linalg.cholesky_ex(matrix)[1] > 0
    factor = safe_cholesky(matrix)
    assert factor.isfinite().all()
    mean_diagonal = matrix.diagonal(dim1=1, dim2=2).mean()
    assert (factor @ factor.mT - matrix).abs().max() <= 1e-2 * mean_diagonal


def test_hopeless_matrices_give_nan_and_spoil_no_other():
    nan = torch.nan
    good = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    hopeless = torch.tensor(
        [
            [[1.0, 0.0], [0.0, -1.0]],
            [[-1.0, 0.0], [0.0, -1.0]],
            [[0.0, 0.0], [0.0, 0.0]],
            [[nan, 0.0], [0.0, 1.0]],
            [[1.0, nan], [nan, 1.0]],
            [[1.0, torch.inf], [torch.inf, 1.0]],
        ]
    )
    factors = safe_cholesky(torch.cat([hopeless, good[None]]))
    assert factors[:-1].isnan().all()
    assert torch.equal(factors[-1], torch.linalg.cholesky(good))


def test_an_infinite_variance_never_gives_a_finite_log_density():
    covariances = torch.eye(2)[None].clone()
    covariances[0, 0, 0] = torch.inf
    assert not mixture_log_prob(torch.zeros(1, 2), torch.ones(1, 1), None, covariances).isfinite()


# Sampling.


@KINDS
@MEANS
def test_samples_have_the_mean_and_covariance_of_their_row(diagonal, with_means):
    # Two kinds of rows, interleaved: each must have its own moments. Five standard errors.
    _, alpha, means, covariances, _ = problem(diagonal=diagonal, with_means=with_means)
    n = 40_000
    drawn = sample_mixture(
        alpha[:2].repeat(n, 1), means, covariances, torch.Generator().manual_seed(3)
    )
    for kind in range(2):
        rows = drawn[kind::2]
        mean = torch.zeros(4).double() if means is None else alpha[kind] @ means
        full = torch.diag_embed(covariances) if diagonal else covariances
        covariance = torch.einsum("j,jab->ab", alpha[kind], full)
        variance = covariance.diagonal()
        error = (rows.mean(0) - mean).abs()
        assert (error <= 5 * (variance / n).sqrt()).all()
        centred = rows - mean
        error = (centred.T @ centred / n - covariance).abs()
        assert (error <= 5 * ((torch.outer(variance, variance) + covariance**2) / n).sqrt()).all()


def test_samples_depend_on_the_generator_alone():
    _, alpha, means, covariances, _ = problem()
    state = torch.get_rng_state()

    def draw(seed):
        return sample_mixture(alpha, means, covariances, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("n_channels", [4, 40])
def test_without_a_rescue_what_has_no_factor_is_not_a_number(n_channels):
    rng = np.random.default_rng(0)
    roots = torch.tensor(rng.standard_normal((3, n_channels, n_channels + 2)))
    matrices = roots @ roots.mT
    matrices[1] = -matrices[1]
    inverses, log_diagonals = gaussian.precisions(matrices, use_jitter=False)
    assert log_diagonals.isnan().tolist() == [False, True, False]
    wanted, logs = gaussian.precisions(matrices[[0, 2]])
    torch.testing.assert_close(inverses[[0, 2]], wanted)
    torch.testing.assert_close(log_diagonals[[0, 2]], logs)
    data, alpha = torch.ones(3, n_channels, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    assert mixture_log_likelihood(data, alpha, None, matrices, use_jitter=False).isnan()
    good = alpha[[0, 2]]
    torch.testing.assert_close(
        mixture_log_likelihood(data[:2], good, None, matrices, use_jitter=False),
        mixture_log_likelihood(data[:2], good, None, matrices),
    )


def test_precisions_lie_in_rows():
    """Whatever LAPACK makes of them: flattening copies otherwise."""
    for n_channels in (4, 40):
        matrices = torch.eye(n_channels).expand(3, -1, -1).clone()
        assert gaussian.precisions(matrices)[0].is_contiguous()


@KINDS
@MEANS
def test_mode_scores_are_standardised_derivatives_towards_each_mode(diagonal, with_means):
    x, _, means, covariances, _ = problem(4, diagonal=diagonal, with_means=with_means)
    found = mode_scores(x, means, covariances).numpy()
    average = covariances.mean(0).numpy()
    average = np.diag(average) if diagonal else average
    root = np.linalg.cholesky(average)
    normal = np.random.default_rng(1).standard_normal((100_000, 4))
    drawn = torch.tensor(normal @ root.T)
    drawn = drawn if means is None else drawn + means.mean(0)
    scores = mode_scores(drawn, means, covariances)
    np.testing.assert_allclose(scores.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(scores.std(0), 1, atol=0.02)

    step = 1e-5
    for j in range(3):
        towards = np.full(3, -1 / 3)
        towards[j] += 1
        ends = [
            scipy_log_prob(
                x, torch.tensor(np.tile(1 / 3 + e * towards, (4, 1))), means, covariances
            )
            for e in (-step, step)
        ]
        derivative = (ends[1] - ends[0]) / (2 * step)
        # Equal up to one positive factor for all rows.
        factor = derivative / found[:, j]
        np.testing.assert_allclose(factor, factor[0], rtol=1e-5)
        assert factor[0] > 0


@KINDS
@MEANS
def test_mode_scores_do_not_depend_on_the_units_of_channels(diagonal, with_means):
    x, _, means, covariances, _ = problem(diagonal=diagonal, with_means=with_means)
    units = torch.tensor([1e-3, 1.0, 7.0, 1e4])
    squared = units**2 if diagonal else units * units[:, None]
    other = mode_scores(x * units, None if means is None else means * units, covariances * squared)
    torch.testing.assert_close(other, mode_scores(x, means, covariances), rtol=1e-5, atol=1e-6)


@KINDS
def test_mode_scores_of_equal_modes_are_zero(diagonal):
    x, _, _, covariances, _ = problem(diagonal=diagonal)
    equal = covariances[:1].expand_as(covariances)
    assert mode_scores(x, None, equal).abs().max() < 1e-6
