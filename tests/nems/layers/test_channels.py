import numpy as np
import pytest
import torch

from skdyn.nems import HalfNormal, Normal
from skdyn.nems.layers import WeightChannels, WeightChannelsGaussian, WeightChannelsMulti

BOTH = pytest.mark.parametrize("layer_class", [WeightChannels, WeightChannelsGaussian])


@pytest.mark.parametrize(
    ("shape", "doubled"),
    [
        ((18, 1), [0]),
        ((18, 3), [0, 20, 40]),
        ((18, 1, 10), [*range(0, 180, 20)]),
        ((8, 10), [*range(0, 80, 10)]),
        ((2, 1), [0]),
    ],
)
def test_start_of_weights(shape, doubled):
    """As NEMS starts them; read off its models of these shapes."""
    parameter = WeightChannels(shape)["coefficients"]
    expected = np.full(shape, 0.01)
    expected.flat[doubled] = 0.02
    np.testing.assert_array_equal(parameter.values, expected)
    assert parameter.prior == Normal(expected, 0.1)
    assert all(np.isinf(side).all() for side in parameter.bounds)
    positive = WeightChannels(shape, positive_only=True)["coefficients"]
    assert positive.prior == HalfNormal(expected)
    np.testing.assert_allclose(positive.values, expected * np.sqrt(2 / np.pi))
    assert [np.unique(side).tolist() for side in positive.bounds] == [[0], [np.inf]]


def test_draws_of_positive_weights_are_positive():
    layer = WeightChannels((30, 20), positive_only=True).sample_from_priors(0)
    assert (layer["coefficients"].values > 0).all()


@pytest.mark.parametrize("shape", [(18, 3), (18, 2, 4)])
def test_start_of_gaussians(shape):
    layer = WeightChannelsGaussian(shape)
    n_gaussians = int(np.prod(shape[1:]))
    mean = [(j + 1) / (2 * n_gaussians + 2) + 0.25 for j in range(n_gaussians)]
    np.testing.assert_allclose(layer["mean"].values.ravel(), mean)
    assert layer["mean"].prior == Normal(np.reshape(mean, shape[1:]), 0.2)
    assert layer["sd"].prior == HalfNormal(np.full(shape[1:], 0.4))
    np.testing.assert_allclose(layer["sd"].values, 0.4 * np.sqrt(2 / np.pi))
    limits = {name: [np.unique(b).tolist() for b in pair] for name, pair in layer.bounds.items()}
    assert limits == {"mean": [[-0.1], [1.1]], "sd": [[0.05], [np.inf]]}


def test_weights_by_hand():
    random = np.random.default_rng(0)
    X, weights = random.standard_normal((7, 4)), random.standard_normal((4, 2, 3))
    layer = WeightChannels((4, 2, 3), priors={"coefficients": Normal(weights, 1)})
    expected = [[[(row * weights[:, i, j]).sum() for j in range(3)] for i in range(2)] for row in X]
    np.testing.assert_allclose(layer.evaluate(X), expected, rtol=1e-12)
    layer.set_params(norm_coefficients=True)
    scale = np.sqrt((weights**2).mean())
    np.testing.assert_allclose(layer.evaluate(X), np.array(expected) / scale, rtol=1e-12)


def test_gaussians_by_hand():
    layer = WeightChannelsGaussian((5, 2))
    layer.set_parameter_values(mean=[0.3, 0.8], sd=[0.1, 0.4])
    weights = layer.evaluate(np.eye(5))
    curves = np.exp(-((np.arange(5)[:, None] / 5 - [0.3, 0.8]) ** 2) / (2 * np.array([0.01, 0.16])))
    np.testing.assert_allclose(weights, curves / curves.sum(0), rtol=1e-12)
    np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-12)


def test_gaussians_far_from_all_channels_stay_finite():
    layer = WeightChannelsGaussian((5, 1))
    values = {"mean": torch.tensor([50.0]).double(), "sd": torch.tensor([0.05]).double()}
    for value in values.values():
        value.requires_grad_()
    with layer.tensors(values):
        weights = layer.evaluate(torch.eye(5, dtype=torch.float64))
    assert weights.argmax() == 4
    gradients = torch.autograd.grad(weights[0, 0], values.values())
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@BOTH
def test_channels_come_from_the_data(layer_class):
    layer = layer_class((None, 2, 3))
    assert not layer.is_sized
    layer.resize((100, 7))
    assert layer.shape == (7, 2, 3)
    assert layer.evaluate(np.ones((4, 7))).shape == (4, 2, 3)


@BOTH
@pytest.mark.parametrize("shape", [(None, None), (4, None)])
def test_outputs_do_not_come_from_the_data(layer_class, shape):
    with pytest.raises(ValueError, match=r"only n_in left open was.*\. Write the other sizes"):
        layer_class(shape).resize((100, 4))
    with pytest.raises(ValueError, match=r"has the shape \(100, 4, 2\), but"):
        layer_class((None, 2)).resize((100, 4, 2))


@BOTH
@pytest.mark.parametrize(
    "shape", [(4,), None, (), (4, 0), (4, -1), (4, 2.0), (4, True), ("4", 2), [[4, 2]]]
)
def test_shapes_that_are_none(layer_class, shape):
    with pytest.raises(ValueError, match=r"^shape is .*, but \(n_in, n_out\)"):
        layer_class(shape)


@BOTH
@pytest.mark.parametrize("shape", [(5, 3), (5,), (4,), (5, 4, 1), (5, 3, 4), ()])
def test_input_that_does_not_fit(layer_class, shape):
    layer = layer_class((4, 2), name="first")
    with pytest.raises(ValueError, match=r"of first, a Weight.*but \(n_samples, 4\) was"):
        layer.evaluate(np.ones(shape))


# ---------------------------------------------------------------------------------- banks


def test_banks_by_hand():
    random = np.random.default_rng(0)
    X, weights = random.standard_normal((7, 4, 2)), random.standard_normal((4, 3, 2))
    layer = WeightChannelsMulti((4, 3, 2), priors={"coefficients": Normal(weights, 1)})
    expected = np.stack([X[:, :, bank] @ weights[:, :, bank] for bank in range(2)], axis=2)
    np.testing.assert_allclose(layer.evaluate(X), expected, rtol=1e-12)
    np.testing.assert_allclose(layer.evaluate(X.reshape(7, 8)), expected, rtol=1e-12)
    layer.set_params(norm_coefficients=True)
    scale = np.sqrt((weights**2).mean())
    np.testing.assert_allclose(layer.evaluate(X), expected / scale, rtol=1e-12)


@pytest.mark.parametrize("positive_only", [False, True])
def test_banks_start_as_weights_do(positive_only):
    shape, options = (6, 3, 2), {"positive_only": positive_only}
    banks, weights = WeightChannelsMulti(shape, **options), WeightChannels(shape, **options)
    assert banks.parameters == weights.parameters


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        ((None, 3, None), (9, 4, 2), (4, 3, 2)),
        ((None, 3, 2), (9, 4, 2), (4, 3, 2)),
        ((4, 3, None), (9, 4, 2), (4, 3, 2)),
        ((None, 3, 2), (9, 8), (4, 3, 2)),
        ((4, 3, None), (9, 8), (4, 3, 2)),
        ((4, 3, None), (9, 4), (4, 3, 1)),
    ],
)
def test_sizes_of_banks_come_from_the_data(shape, given, expected):
    layer = WeightChannelsMulti(shape)
    layer.resize(given)
    assert layer.shape == expected
    assert layer.evaluate(np.ones(given)).shape == (9, *expected[1:])


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        ((None, 3, None), (9, 8)),
        ((None, None, 2), (9, 8)),
        ((4, None, 2), (9, 4, 2)),
        ((3, 3, None), (9, 8)),
        ((None, 3, 3), (9, 8)),
        ((None, 3, 2), (9,)),
        ((None, 3, 2), (9, 4, 2, 1)),
        ((9, 3, None), (9, 8)),
    ],
)
def test_sizes_of_banks_that_cannot_be_told(shape, given):
    layer = WeightChannelsMulti(shape, name="ears")
    with pytest.raises(ValueError, match=r"of ears, .*one of them known, was .*Write the sizes"):
        layer.resize(given)
    assert not layer.is_sized


@pytest.mark.parametrize("shape", [(9, 4), (9, 2, 4), (9, 4, 1), (9, 9), (9,), (9, 4, 2, 1)])
def test_input_that_are_no_such_banks(shape):
    with pytest.raises(ValueError, match=r"but \(n_samples, 4, 2\) or \(n_samples, 8\) was"):
        WeightChannelsMulti((4, 3, 2)).evaluate(np.ones(shape))


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 1), None, (4, 3, 0)])
def test_shapes_that_are_no_banks(shape):
    with pytest.raises(ValueError, match=r"but \(n_in, n_out, n_banks\) of whole"):
        WeightChannelsMulti(shape)


def test_numpy_sizes_print_as_numbers():
    assert repr(WeightChannels(np.array([4, 2]))).startswith("WeightChannels(shape=(4, 2), norm")
