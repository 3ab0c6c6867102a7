from itertools import product

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from skdyn.core.simplex import furthest_sum, minimum_volume_simplex


def mixtures(n_dims, n_points=2000, concentration=0.8, largest_first=1.0, seed=0):
    """Random vertices and points among them; the first vertex has at most so much weight."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(n_dims + 1, concentration), 20 * n_points)
    weights = weights[weights[:, 0] <= largest_first][:n_points]
    vertices = 3 * rng.standard_normal((n_dims + 1, n_dims)) + 10
    return vertices, weights @ vertices


def in_weights(found, vertices):
    """Weights of the found vertices in the true ones, in their order: ideally the identity."""
    ones = np.ones((len(vertices), 1))
    weights = np.hstack([found, ones]) @ np.linalg.inv(np.hstack([vertices, ones]))
    return weights[linear_sum_assignment(-weights.T)[1]]


# The furthest sum


@pytest.mark.parametrize("n_corners", [2, 3, 6])
def test_furthest_sum_finds_the_corners_among_points_of_a_simplex(n_corners):
    rng = np.random.default_rng(0)
    points = rng.dirichlet(np.ones(n_corners), 500) + 3
    corners = rng.choice(500, n_corners, replace=False)
    points[corners] = np.eye(n_corners) + 3
    assert set(furthest_sum(points, n_corners)) == set(corners)


@pytest.mark.parametrize(("n_points", "n_corners"), [(1, 1), (20, 1), (6, 6), (7, 6), (40, 12)])
def test_furthest_sum_gives_as_many_distinct_points_as_asked_for(n_points, n_corners):
    points = np.random.default_rng(0).standard_normal((n_points, 2))
    before = points.copy()
    chosen = furthest_sum(points, n_corners)
    assert chosen.dtype.kind == "i"
    assert len(set(chosen)) == len(chosen) == n_corners
    assert chosen.min() >= 0
    assert chosen.max() < n_points
    np.testing.assert_array_equal(points, before)


def test_furthest_sum_tells_equal_points_apart():
    assert len(set(furthest_sum(np.zeros((9, 3)), 5))) == 5


# The smallest simplex


@pytest.mark.parametrize("n_dims", [1, 2, 5, 9])
@pytest.mark.parametrize("seed", [0, 1])
def test_vertices_of_mixtures_are_recovered(n_dims, seed):
    vertices, points = mixtures(n_dims, seed=seed)
    before = points.copy()
    found = minimum_volume_simplex(points)
    assert found.shape == (n_dims + 1, n_dims)
    np.testing.assert_allclose(in_weights(found, vertices), np.eye(n_dims + 1), atol=0.15)
    np.testing.assert_array_equal(points, before)


@pytest.mark.parametrize("n_dims", [5, 9])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_vertex_that_no_point_comes_near_is_recovered(n_dims, seed):
    vertices, points = mixtures(n_dims, largest_first=0.55, seed=seed)
    weights = in_weights(minimum_volume_simplex(points), vertices)
    np.testing.assert_allclose(weights, np.eye(n_dims + 1), atol=0.15)
    assert weights[0, 0] > 0.85


def test_noise_moves_the_vertices_little():
    vertices, points = mixtures(3, n_points=4000)
    noise = np.random.default_rng(1).dirichlet(np.ones(4), len(points)) - 1 / 4
    # A standard deviation of 0.02 in each weight.
    noisy = points + 0.1 * noise @ vertices
    weights = in_weights(minimum_volume_simplex(noisy), vertices)
    np.testing.assert_allclose(weights, np.eye(4), atol=0.15)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_vertices_move_with_the_points(unit):
    rng = np.random.default_rng(3)
    _, points = mixtures(4)
    axes, shift = unit * rng.standard_normal((4, 4)), unit * rng.standard_normal(4)
    weights = in_weights(
        minimum_volume_simplex(points @ axes + shift), minimum_volume_simplex(points) @ axes + shift
    )
    np.testing.assert_allclose(weights, np.eye(5), atol=1e-4)


def test_the_order_of_the_points_does_not_matter():
    _, points = mixtures(4)
    shuffled = np.random.default_rng(1).permutation(points)
    weights = in_weights(minimum_volume_simplex(shuffled), minimum_volume_simplex(points))
    np.testing.assert_allclose(weights, np.eye(5), atol=1e-4)


def test_points_in_fewer_dimensions_are_refused():
    _, points = mixtures(2)
    flat = np.column_stack([points, np.zeros(len(points))])
    with pytest.raises(np.linalg.LinAlgError):
        minimum_volume_simplex(flat)


@pytest.mark.parametrize("n_dims", [1, 2, 3, 4])
def test_a_uniform_cube_is_no_simplex_but_has_one_around_it(n_dims):
    points = np.random.default_rng(0).random((2000, n_dims))
    found = minimum_volume_simplex(points)
    inside = np.hstack([points, np.ones((2000, 1))]) @ np.linalg.inv(
        np.hstack([found, np.ones((n_dims + 1, 1))])
    )
    assert np.mean(inside > -0.05) > 0.9
    assert np.abs(found).max() < 5


@pytest.mark.parametrize("n_repeats", [1, 50])
def test_corners_of_a_cube_have_a_simplex_around_them(n_repeats):
    points = np.repeat(np.array(list(product([0.0, 1.0], repeat=3))), n_repeats, axis=0)
    assert np.isfinite(minimum_volume_simplex(points)).all()


def test_repeated_points_do_no_harm():
    points = np.vstack([*(40 * np.eye(5)[:2]), -40 * np.eye(5)[0], np.zeros(5)])
    points = np.vstack([points, np.random.default_rng(0).standard_normal((200, 5))])
    found = minimum_volume_simplex(np.repeat(points, 2, axis=0))
    assert np.isfinite(found).all()
    matrix = np.hstack([found, np.ones((6, 1))])
    weights = np.hstack([points, np.ones((len(points), 1))]) @ np.linalg.inv(matrix)
    assert np.mean(weights > -0.05) > 0.9
