"""Layers on NumPy arrays and on torch tensors: the same numbers, and gradients where asked."""

import numpy as np
import pytest
import torch

from skdyn.nems import Layer, Parameter, Phi
from skdyn.nems.layers.base import on_tensors


class Plain(Layer):
    """gain |x|^3 + offset, per channel, in plain arithmetic."""

    def initial_parameters(self):
        gain = Parameter("gain", self.shape, initial_value=[1, 2], bounds=(0, np.inf))
        return Phi(gain, Parameter("offset", self.shape, initial_value=[3, 4]))

    def evaluate(self, values):
        gain, offset = self.get_parameter_values()
        return gain * abs(values) ** 3 + offset


class ByNumPy(Plain):
    def evaluate(self, values):
        gain, offset = (np.asarray(value) for value in self.get_parameter_values())
        return np.multiply(gain, np.power(np.abs(values), 3)) + offset


class ByTorch(Plain):
    @on_tensors
    def evaluate(self, values):
        gain, offset = self.get_parameter_values("gain", "offset")
        assert all(map(torch.is_tensor, (values, gain, offset)))
        return torch.addcmul(offset, gain, torch.pow(torch.abs(values), 3))


class Nested(ByTorch):
    @on_tensors
    def evaluate(self, values):
        assert torch.is_tensor(values)
        return torch.neg(super().evaluate(values))


class Several(Layer):
    """Takes a list of arrays and a keyword, and returns a list."""

    @on_tensors
    def evaluate(self, several, gain):
        assert all(map(torch.is_tensor, (*several, gain)))
        return [gain * one for one in several]


KINDS = [Plain, ByNumPy, ByTorch]


def made(kind=Plain):
    return kind(2)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((20, 2))


def expected(x):
    return np.array([1.0, 2.0]) * np.abs(np.asarray(x, dtype=float)) ** 3 + np.array([3.0, 4.0])


# ------------------------------------------------------------------------ array input


@pytest.mark.parametrize("kind", KINDS)
def test_a_users_layer_takes_arrays(kind, x):
    found = made(kind).evaluate(x)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected(x), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[::-1],
        lambda x: x[::-1, ::-1],
        lambda x: x[::3],
        lambda x: x[:0],
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(np.float32),
        lambda x: x.astype(">f8"),
        lambda x: (10 * x).astype(int),
        lambda x: np.broadcast_to(x[:1], (20, 2)),
    ],
    ids=["reversed", "twice", "strided", "empty", "fortran", "single", "big-endian", "int", "view"],
)
def test_arrays_of_all_kinds_go_in_and_stay_as_they_are(kind, change, x):
    values = change(x)
    before = values.copy()
    np.testing.assert_allclose(made(kind).evaluate(values), expected(values), rtol=1e-5)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("kind", KINDS)
def test_read_only_arrays_and_values_will_do(kind, x):
    x.flags.writeable = False
    layer = made(kind)
    for parameter in layer.parameters.values():  # as in a process that joblib has started
        parameter.values.flags.writeable = False
    np.testing.assert_allclose(layer.evaluate(x), expected(x), rtol=1e-12)


def test_lists_and_keywords_go_in_and_lists_come_out(x):
    first, second = Several().evaluate([x, x[:, :1]], gain=2 * x[:, :1])
    assert isinstance(first, np.ndarray)
    np.testing.assert_allclose(first, 2 * x[:, :1] * x)
    np.testing.assert_allclose(second, 2 * x[:, :1] ** 2)


@pytest.mark.parametrize("where", ["in the list", "as a keyword"])
def test_one_tensor_among_arrays_is_followed(where, x):
    leaf = torch.tensor(x, requires_grad=True)
    inputs = ([leaf, x], x) if where == "in the list" else ([x, x], leaf)
    first, _ = Several().evaluate(inputs[0], gain=inputs[1])
    (gradient,) = torch.autograd.grad(first.sum(), leaf)
    np.testing.assert_array_equal(gradient, x)


def test_a_layer_may_use_that_of_another(x):
    found = made(Nested).evaluate(x)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, -expected(x))
    tensors = made(Nested).evaluate(torch.from_numpy(x))
    np.testing.assert_array_equal(tensors, found)


# ----------------------------------------------------------------------- tensor input


@pytest.mark.parametrize("kind", [ByTorch, Nested])
def test_tensors_go_in_and_come_out(kind, x):
    found = made(kind).evaluate(torch.from_numpy(x))
    assert torch.is_tensor(found)
    np.testing.assert_array_equal(found, made(kind).evaluate(x))


@pytest.mark.parametrize("kind", [Plain, ByTorch])
def test_gradients_with_respect_to_parameters_are_exact(kind, x):
    """Checked by torch's gradcheck, that is with finite differences."""
    layer, values = made(kind), torch.from_numpy(x)

    def evaluated(gain, offset):
        with layer.tensors({"gain": gain, "offset": offset}):
            return layer.evaluate(values)

    leaves = [torch.tensor(v, requires_grad=True) for v in layer.get_parameter_values()]
    assert torch.autograd.gradcheck(evaluated, leaves)
    assert all(isinstance(value, np.ndarray) for value in layer.get_parameter_values())


def test_arrays_are_followed_too_while_values_are_tensors(x):
    layer = made(ByTorch)
    offset = torch.zeros(2, dtype=float, requires_grad=True)
    with layer.tensors({"gain": torch.ones(2, dtype=float), "offset": offset}):
        layer.evaluate(x).sum().backward()
    assert offset.grad.tolist() == [20, 20]


# ------------------------------------------------------------ tensors instead of values


def test_tensors_stand_in_for_values():
    layer = made()
    gain, offset = torch.ones(2), torch.zeros(2)
    with layer.tensors({"gain": gain, "offset": offset}):
        assert layer.get_parameter_values("offset", "gain") == [offset, gain]
        assert layer.get_parameter_values("gain", as_dict=True)["gain"] is gain
        assert layer["gain"].values.tolist() == [1, 2]
        with layer.tensors(None):
            assert layer.get_parameter_values()[0].tolist() == [1, 2]
            assert isinstance(layer.get_parameter_values()[0], np.ndarray)
        assert layer.get_parameter_values("gain") == [gain]
    assert isinstance(layer.get_parameter_values()[0], np.ndarray)


def test_values_are_back_after_an_error(x):
    layer, tensors = made(), {"gain": torch.ones(2), "offset": torch.zeros(2)}
    with pytest.raises(ZeroDivisionError), layer.tensors(tensors):
        raise ZeroDivisionError
    np.testing.assert_allclose(layer.evaluate(x), expected(x))

    class Broken(ByTorch):
        @on_tensors
        def evaluate(self, values):
            raise ZeroDivisionError

    broken = made(Broken)
    with pytest.raises(ZeroDivisionError):
        broken.evaluate(x)
    assert all(isinstance(value, np.ndarray) for value in broken.get_parameter_values())


def test_the_decorator_keeps_name_and_docstring():
    class Documented(Layer):
        @on_tensors
        def evaluate(self, values):
            """Say what it does."""
            return values

    assert Documented.evaluate.__name__ == "evaluate"
    assert Documented.evaluate.__doc__ == "Say what it does."
