import warnings

import numpy as np
import pytest
import torch

from skdyn.nems import Model, from_keywords
from skdyn.nems.layers import (
    Concatenate,
    ConcatSkip,
    Multiply,
    MultiplyByExp,
    NumPy,
    Select,
    Sum,
    SwapDims,
)

ENTRYWISE = pytest.mark.parametrize(
    ("layer", "ufunc"), [(Sum(), np.add), (Multiply(), np.multiply)]
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@ENTRYWISE
@pytest.mark.parametrize(
    "shapes",
    [
        [(9, 3)],
        [(9, 3), (9, 3)],
        [(9, 3), (9, 1), (9, 3)],
        [(9, 1), (9, 3)],
        [(9, 2, 1), (9, 1, 3)],
        [(1, 3), (9, 3)],
        [(9,), (9,)],
        [(), (), ()],
    ],
)
def test_entry_by_entry(layer, ufunc, shapes):
    inputs = [normal(*shape, seed=number) for number, shape in enumerate(shapes)]
    expected = inputs[0]
    for one in inputs[1:]:
        expected = ufunc(expected, one)
    np.testing.assert_allclose(layer.evaluate(*inputs), expected, rtol=1e-13)
    np.testing.assert_allclose(layer.evaluate(inputs), expected, rtol=1e-13)
    np.testing.assert_allclose(layer.evaluate(tuple(inputs)), expected, rtol=1e-13)


@ENTRYWISE
@pytest.mark.parametrize(
    "shapes", [[(9, 3), (9, 2)], [(9,), (9, 1)], [(9, 3), (8, 3)], [(9, 2), (9, 2, 1)]]
)
def test_shapes_that_do_not_go_together(layer, ufunc, shapes):
    with pytest.raises(ValueError, match=r"have the shapes \[.*but equal shapes, or axes"):
        layer.evaluate(*(np.ones(shape) for shape in shapes))


@pytest.mark.parametrize("axis", [1, 2, -1, -2])
def test_concatenation_is_that_of_numpy(axis):
    shapes = [[9, 3, 2], [9, 3, 2], [9, 3, 2]]
    for number, shape in enumerate(shapes):
        shape[axis] = number + 1
    inputs = [normal(*shape) for shape in shapes]
    layer = Concatenate(axis=axis)
    np.testing.assert_array_equal(layer.evaluate(*inputs), np.concatenate(inputs, axis))
    np.testing.assert_array_equal(layer.evaluate(inputs), np.concatenate(inputs, axis))


@pytest.mark.parametrize(
    ("axis", "shapes"),
    [
        (1, [(9, 3), (8, 3)]),
        (1, [(9, 3), (9, 3, 1)]),
        (1, [(9, 3, 1), (9, 3, 2)]),
        (2, [(9, 3), (9, 3)]),
        (-2, [(9, 3), (9, 3)]),
        (-3, [(9, 3), (9, 3)]),
        (1, [(9,), (9,)]),
    ],
)
def test_concatenation_that_cannot_be(axis, shapes):
    with pytest.raises(ValueError, match=r"have the shapes \[.*but equal shapes except along"):
        Concatenate(axis=axis).evaluate(*(np.ones(shape) for shape in shapes))


def test_later_inputs_may_be_summed_first():
    first, second, third = normal(9, 3), normal(9, 2, seed=1), normal(9, 1, seed=2)
    layer = Concatenate(sum_later=True)
    expected = np.concatenate([first, second + third], axis=1)
    np.testing.assert_allclose(layer.evaluate(first, second, third), expected, rtol=1e-13)
    np.testing.assert_allclose(layer.evaluate([first, second, third]), expected, rtol=1e-13)
    for inputs in ([first], [first, second]):
        np.testing.assert_array_equal(layer.evaluate(*inputs), Concatenate().evaluate(*inputs))
    with pytest.raises(ValueError, match=r"have the shapes \[\(9, 2\), \(9, 4\)\], but"):
        layer.evaluate(first, second, normal(9, 4))


@pytest.mark.parametrize("axis", [0, None, 1.0, True, "1"])
def test_axis_that_is_none(axis):
    with pytest.raises(
        ValueError, match=r"^axis must be the number of an axis other than 0.*but is"
    ):
        Concatenate(axis=axis)


@pytest.mark.parametrize("layer", [Concatenate(), Sum(), Multiply()])
def test_nothing_goes_in(layer):
    for inputs in ((), ([],)):
        with pytest.raises(ValueError, match=r"has no input, but .*Name the inputs with input="):
            layer.evaluate(*inputs)


@pytest.mark.parametrize("layer", [Concatenate(), Sum(), Multiply()])
def test_tensors_in_a_list_give_a_tensor(layer):
    first, second = torch.ones(3, 2).double().requires_grad_(), np.ones((3, 2))
    output = layer.evaluate([first, second])
    output.sum().backward()
    assert torch.equal(first.grad, torch.ones(3, 2).double())


@pytest.mark.parametrize(
    ("channels", "columns"),
    [
        (0, [0]),
        (-1, [3]),
        ([2], [2]),
        ([3, 0, 0], [3, 0, 0]),
        ((1, -4), [1, 0]),
        (np.array([1, 2]), [1, 2]),
        (np.int64(2), [2]),
        (range(2), [0, 1]),
    ],
)
@pytest.mark.parametrize("others", [(), (2,)])
def test_channels_are_picked(channels, columns, others):
    X = normal(9, 4, *others)
    np.testing.assert_array_equal(Select(channels).evaluate(X), X[:, columns])


@pytest.mark.parametrize("channels", [None, [], 1.0, [True, False], "a", [[0, 1]], [0.5]])
def test_channels_that_are_no_numbers(channels):
    with pytest.raises(ValueError, match=r"^channels must be .*but is .*Turn a mask into numbers"):
        Select(channels)


@pytest.mark.parametrize("channels", [4, -5, [0, 4]])
def test_channels_that_are_not_there(channels):
    with pytest.raises(ValueError, match=r"The input of third has the shape \(9, 4\), but"):
        Select(channels, name="third").evaluate(np.ones((9, 4)))
    with pytest.raises(ValueError, match=r"has the shape \(9,\), but"):
        Select(channels).evaluate(np.ones(9))


@pytest.mark.parametrize("layer", [Concatenate(), Sum(), Multiply(), Select(0)])
def test_there_is_nothing_to_fit(layer):
    assert dict(layer.parameters) == {}
    assert layer.is_sized


@pytest.fixture
def x():
    return normal(60, 3)


def test_multiply_by_exp_is_that_of_numpy(x):
    found = MultiplyByExp().evaluate(x, x[:, :1])
    np.testing.assert_allclose(found, x * np.exp(x[:, :1]))
    with pytest.raises(ValueError, match="two inputs"):
        MultiplyByExp().evaluate(x, x, x)


def test_swap_dims_swaps_axes():
    x = np.random.default_rng(0).standard_normal((5, 2, 3, 4))
    np.testing.assert_array_equal(SwapDims(1, 3).evaluate(x), np.swapaxes(x, 1, 3))
    np.testing.assert_array_equal(SwapDims(1, -2).evaluate(x), np.swapaxes(x, 1, 2))
    with pytest.raises(ValueError, match="axes 1 and 2"):
        SwapDims().evaluate(x[:, 0, 0])
    with pytest.raises(ValueError, match="which is time"):
        SwapDims(0, 1)


def test_skip_weighs_what_comes_later(x):
    rng = np.random.default_rng(0)
    layer = ConcatSkip((3, 4), values={"coefficients": rng.standard_normal((3, 4))})
    w = layer["coefficients"].values
    later = rng.standard_normal((len(x), 3)), rng.standard_normal((len(x), 2))
    expected = np.hstack([x, later[0] @ w[:, :2], later[1] @ w[:2, 2:]])
    np.testing.assert_allclose(layer.evaluate(x, *later), expected)
    with pytest.raises(ValueError, match="divides 4"):
        layer.evaluate(x, *later, later[0])
    model = Model(from_keywords("wc.x2-relu-skip.x3.hidden.input-wc.x1"))
    model.layers[1].output = "hidden"
    assert model.predict(x).shape == (len(x), 1)
    assert model.layers[2].shape == (x.shape[1], 3)


def test_numpy_applies_a_function(x):
    layer = NumPy("linalg.norm", op_kwargs={"axis": 1})
    np.testing.assert_allclose(layer.evaluate(x), np.linalg.norm(x, axis=1))
    layer = NumPy("clip", op_args=(0, 1))
    np.testing.assert_allclose(layer.evaluate(x), np.clip(x, 0, 1))
    for name in ("no_such", "ndarray", "lib.__doc__", "pi"):
        with pytest.raises(ValueError, match="is not a function of numpy"):
            NumPy(name)


@pytest.mark.parametrize(
    ("word", "is_exact"), [("np.exp", True), ("np.std.axis1", False), ("np.cbrt", False)]
)
def test_numpy_is_followed_where_torch_computes_the_same(x, word, is_exact):
    """The standard deviation of torch divides by n - 1."""
    layers = from_keywords(f"wc.{x.shape[1]}x2", word, *(["wc.2x1"] if "std" not in word else []))
    layers[0].sample_from_priors(0)
    model = Model(layers)
    y = np.abs(x).sum(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = model.fit(x, y, verbose=0, max_iter=3)
    assert fitted.results.exact_gradients is is_exact


@pytest.mark.parametrize("word", ["np", "np.sum.axis", "np.sum.axis1d5", "sd.1", "sd.a.b"])
def test_words_with_other_arguments_are_refused(word):
    with pytest.raises(ValueError, match="must have"):
        from_keywords(word)
