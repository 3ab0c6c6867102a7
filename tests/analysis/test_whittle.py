"""The likelihood refinement of modes' spectra: monotone, and at its maximum where it ends."""

import numpy as np
import pytest

from skdyn.analysis import whittle


def random_hermitian(rng, *shape, rank=None):
    size = (*shape[:-1], shape[-1] if rank is None else rank)
    factor = rng.standard_normal(size) + 1j * rng.standard_normal(size)
    return factor @ factor.conj().swapaxes(-1, -2)


def drawn_windows(seed, n_windows=300, n_modes=2, n_channels=3, n_pieces=1, n_frequencies=2):
    """Transforms drawn from the model, its weights and its spectra."""
    rng = np.random.default_rng(seed)
    true = random_hermitian(rng, n_modes, n_frequencies, n_channels, n_channels)
    weights = rng.dirichlet(np.full(n_modes, 0.5), n_windows)
    roots = np.linalg.cholesky(np.tensordot(weights, true, 1))
    size = (n_windows, n_frequencies, n_channels, n_pieces)
    noise = rng.standard_normal(size) + 1j * rng.standard_normal(size)
    # Cross-spectra are of conj(x) and x.
    return (roots @ noise / np.sqrt(2)).conj(), weights, true


def least_squares(transforms, weights):
    pieces = transforms.conj()
    products = pieces @ pieces.conj().swapaxes(-1, -2) / pieces.shape[-1]
    return np.tensordot(np.linalg.pinv(weights), products, 1), products.mean(axis=0)


def in_blocks(transforms):
    for start in range(0, len(transforms), 70):
        block = slice(start, min(start + 70, len(transforms)))
        yield block, transforms[block]


def fitted(transforms, weights, n_steps):
    read = lambda: in_blocks(transforms)  # noqa: E731
    return whittle.fit_mixture(*least_squares(transforms, weights), weights, read, n_steps)


def likelihood(spectra, transforms, weights):
    """Whittle likelihood, window by window."""
    total = 0.0
    for window, own in zip(transforms.conj(), weights, strict=True):
        for frequency, pieces in enumerate(window):
            mixture = np.einsum("j,jkl->kl", own, spectra[:, frequency])
            product = pieces @ pieces.conj().T / pieces.shape[1]
            total -= np.log(np.linalg.det(mixture).real)
            total -= np.trace(np.linalg.inv(mixture) @ product).real
    return total


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_pieces", [1, 4])
def test_refinement_never_lowers_the_likelihood(seed, n_pieces):
    transforms, weights, _ = drawn_windows(seed, n_windows=40, n_pieces=n_pieces)
    values = [likelihood(fitted(transforms, weights, n), transforms, weights) for n in range(1, 9)]
    assert np.all(np.diff(values) > -1e-6 * np.abs(values[0]))
    assert values[-1] > values[0]


@pytest.mark.parametrize("seed", range(3))
def test_refinement_ends_where_the_likelihood_is_stationary(seed):
    transforms, weights, _ = drawn_windows(seed, n_pieces=6)
    spectra = fitted(transforms, weights, 300)
    best = likelihood(spectra, transforms, weights)
    rng = np.random.default_rng(seed)
    for _ in range(10):
        # Hermitian directions of either sign: the value at a maximum has no slope.
        direction = random_hermitian(rng, *spectra.shape) - random_hermitian(rng, *spectra.shape)
        direction *= 1e-4 * np.abs(spectra).max() / np.abs(direction).max()
        ends = [likelihood(spectra + sign * direction, transforms, weights) for sign in (1, -1)]
        slope, curvature = ends[0] - ends[1], ends[0] + ends[1] - 2 * best
        assert curvature < 0
        assert abs(slope) < 0.2 * abs(curvature)


def test_refinement_approaches_the_truth_with_more_windows():
    errors = []
    for n_windows in (200, 3200):
        transforms, weights, true = drawn_windows(0, n_windows=n_windows)
        spectra = fitted(transforms, weights, 30)
        errors.append(np.linalg.norm(spectra - true) / np.linalg.norm(true))
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.1


def test_refinement_is_closer_than_least_squares():
    errors = np.zeros(2)
    for seed in range(5):
        transforms, weights, true = drawn_windows(seed, n_channels=4)
        for place, n_steps in enumerate((0, 20)):
            errors[place] += np.linalg.norm(fitted(transforms, weights, n_steps) - true)
    assert errors[1] < 0.9 * errors[0]


def test_refinement_does_not_depend_on_the_units_of_channels():
    transforms, weights, _ = drawn_windows(0, n_channels=3)
    units = np.array([1, 30, 0.1])
    spectra = fitted(transforms, weights, 5)
    other = fitted(transforms * units[:, np.newaxis], weights, 5)
    np.testing.assert_allclose(other, spectra * np.outer(units, units), rtol=1e-6)


def test_refinement_leaves_empty_directions_empty():
    transforms, weights, _ = drawn_windows(0, n_channels=3)
    mixing = np.random.default_rng(0).standard_normal((5, 3))
    spectra = fitted(mixing @ transforms, weights, 5)
    expected = mixing @ fitted(transforms, weights, 5) @ mixing.T
    np.testing.assert_allclose(spectra, expected, atol=1e-6 * np.abs(expected).max())


def test_silent_mode_has_no_power():
    transforms, weights, _ = drawn_windows(0)
    with_silent = np.column_stack([weights, np.zeros(len(weights))])
    spectra = fitted(transforms, with_silent, 4)
    assert not spectra[2].any()
    np.testing.assert_allclose(spectra[:2], fitted(transforms, weights, 4), rtol=1e-9)
