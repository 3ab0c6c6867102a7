import numpy as np
import pytest
import torch
from scipy.special import expit

from skdyn.nems import Normal, Parameter, Phi
from skdyn.nems.layers import (
    DoubleExponential,
    Hinge,
    LevelShift,
    LogCompress,
    PReLU,
    RectifiedLinear,
    ReLU,
    Sigmoid,
    SoftRelu,
    StaticNonlinearity,
    Tanh,
)
from skdyn.nems.layers.nonlinearities import gompertz

SCALED = (RectifiedLinear, SoftRelu, Sigmoid, Tanh)
ALL = (LevelShift, DoubleExponential, Hinge, LogCompress, *SCALED)
FREE = {"no_shift": False, "no_offset": False, "no_gain": False}
scaled = pytest.mark.parametrize("layer_class", SCALED)
each = pytest.mark.parametrize("layer_class", ALL)

VALUES = {
    "shift": np.array([0.3, -0.2]),
    "offset": np.array([1.5, -0.5]),
    "gain": np.array([2.0, -3.0]),
    "base": np.array([0.1, -0.4]),
    "amplitude": np.array([2.0, -1.0]),
    "kappa": np.array([-1.0, 1.0]),
    "alpha": np.array([0.5, 20.0]),
}


def made(layer_class, **options):
    """A layer of two channels, all of its parameters free and away from where they start."""
    layer = layer_class((2,), **(FREE if layer_class in SCALED else {}), **options)
    layer.set_parameter_values({name: VALUES[name] for name in layer.parameters})
    return layer


def by_hand(layer_class, x):
    """The same curves, as they are written in books, of SciPy where it has them."""
    v = VALUES
    z = x + v["shift"]
    return {
        LevelShift: lambda: z,
        DoubleExponential: lambda: (
            v["base"] + v["amplitude"] * np.exp(-np.exp(-np.exp(v["kappa"]) * z))
        ),
        Hinge: lambda: np.maximum(z, 0) + v["alpha"] / 10 * np.minimum(z, 0),
        LogCompress: lambda: np.log(x + 10 ** v["shift"]) - np.log(10 ** v["shift"]),
        RectifiedLinear: lambda: v["offset"] + v["gain"] * np.maximum(z, 0),
        SoftRelu: lambda: v["offset"] + v["gain"] * np.logaddexp(0, z),
        Sigmoid: lambda: v["offset"] + v["gain"] * expit(z),
        Tanh: lambda: v["offset"] + v["gain"] * np.tanh(z),
    }[layer_class]()


def gradients(layer, x):
    """The output, and the gradients of its sum by the input and each free parameter."""
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    values = {name: torch.tensor(p.values) for name, p in layer.parameters.items()}
    free = {n: v.requires_grad_() for n, v in values.items() if not layer[n].is_permanent}
    with layer.tensors(values):
        output = layer.evaluate(x)
    found = torch.autograd.grad(output.sum(), [x, *free.values()])
    return output.detach(), dict(zip(["input", *free], found, strict=True))


# ------------------------------------------------------------------------------------ curves


@each
def test_curve(layer_class):
    x = np.linspace(0.01, 8, 60).reshape(30, 2) - (0 if layer_class is LogCompress else 4)
    found = made(layer_class).evaluate(x)
    np.testing.assert_allclose(found, by_hand(layer_class, x), rtol=1e-12, atol=1e-14)


@each
@pytest.mark.parametrize("size", [50.0, 800.0, 1e6, 1e300])
def test_large_numbers_have_finite_outputs_and_gradients(layer_class, size):
    x = np.array([[size, size], [0 if layer_class is LogCompress else -size, 1.0]])
    output, found = gradients(made(layer_class), x)
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(gradient).all() for gradient in found.values()), found


def test_soft_rectifier_is_exact_everywhere():
    x = np.concatenate([np.linspace(-60, 60, 481), [-700.0, 700.0]])[:, None]
    found, slopes = gradients(SoftRelu((1,)), x)
    np.testing.assert_allclose(found, np.logaddexp(0, x), rtol=1e-14, atol=0)
    np.testing.assert_allclose(slopes["input"], expit(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kappa", [5.0, 200.0, 800.0])
def test_steep_double_exponential_is_a_step(kappa):
    layer = DoubleExponential((1,))
    layer.set_parameter_values(base=[1], amplitude=[2], shift=[-1], kappa=[kappa])
    output, found = gradients(layer, [[-1e3], [0.0], [0.9], [1.1], [1e3]])
    np.testing.assert_allclose(output.ravel(), [1, 1, 1, 3, 3], atol=1e-6)
    assert all(torch.isfinite(gradient).all() for gradient in found.values())


def test_double_exponential_is_not_changed_by_its_limits():
    """The plain formula to the last bit, also where its gradient is not a number."""
    layer = DoubleExponential((1,))
    layer.set_parameter_values(base=[0], amplitude=[1], shift=[0], kappa=[0])
    x = np.concatenate([np.linspace(-40, 40, 801), [-1e4, 1e4]])[:, None]
    with np.errstate(over="ignore"):
        plain = np.exp(-np.exp(-x))
    np.testing.assert_allclose(layer.evaluate(x), plain, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("shift", "exponent"), [(1.9, 1.9), (-2, -2), (4.5, 2.05), (-52.0, -3.0), (2.5, 2.01)]
)
def test_compression_limits_its_exponent(shift, exponent):
    layer = LogCompress((1,))
    layer.set_parameter_values(shift=[shift])
    x = np.array([[0.0], [0.5], [100.0]])
    expected = np.log((x + 10.0**exponent) / 10.0**exponent)
    np.testing.assert_allclose(layer.evaluate(x), expected, rtol=1e-12)


def test_short_names():
    assert ReLU is RectifiedLinear
    assert PReLU is Hinge


# ------------------------------------------------------------------------------------- start


def test_priors_and_bounds():
    def two(mean, sd):
        return Normal(np.full(2, float(mean)), sd)

    common = {"shift": two(0.05, 0.01), "offset": two(-0.05, 0.01), "gain": two(1, 0.01)}
    expected = {
        LevelShift: {"shift": two(0, 0.01)},
        DoubleExponential: {
            "base": two(-0.1, 0.02),
            "amplitude": two(0.5, 0.2),
            "shift": two(0, 0.1),
            "kappa": two(0.2, 0.1),
        },
        Hinge: {"shift": two(0.05, 0.01), "alpha": two(0.1, 0.05)},
        LogCompress: {"shift": two(0, 0.02)},
        **dict.fromkeys(SCALED, common),
    }
    for layer_class in ALL:
        layer = layer_class((2,), **(FREE if layer_class in SCALED else {}))
        assert layer.priors == expected[layer_class]
        for name, parameter in layer.parameters.items():
            np.testing.assert_array_equal(parameter.values, parameter.prior.mean())
            least = 0 if name == "alpha" else -np.inf
            assert [b.tolist() for b in parameter.bounds] == [[least] * 2, [np.inf] * 2]


@scaled
@pytest.mark.parametrize("left_out", [(), ("shift",), ("offset", "gain")])
def test_what_is_left_out_is_permanent(layer_class, left_out):
    names = ("shift", "offset", "gain")
    layer = layer_class((2,), **{f"no_{name}": name in left_out for name in names})
    layer.unfreeze_parameters()
    layer.sample_from_priors(0)
    for name, neutral in zip(names, (0, 0, 1), strict=True):
        assert layer[name].is_permanent == layer[name].is_frozen == (name in left_out)
        assert (layer[name].values == neutral).all() == (name in left_out)


@scaled
def test_everything_is_left_out_by_default(layer_class):
    assert layer_class((2,)).parameter_info["permanent"] == 6
    assert layer_class((2,)).parameter_info["unfrozen"] == 0


# ---------------------------------------------------------------------------------- skipping


@each
def test_skipping_leaves_the_shift(layer_class):
    x = np.random.default_rng(0).uniform(1, 2, (9, 2))
    layer = made(layer_class)
    before = layer.evaluate(x)
    assert layer.is_skipped is False
    layer.skip_nonlinearity()
    assert layer.is_skipped is True
    np.testing.assert_array_equal(layer.evaluate(x), x + VALUES["shift"])
    assert layer.copy().is_skipped
    free = [name for name, parameter in layer.parameters.items() if not parameter.is_frozen]
    assert free == ["shift"]
    layer.unskip_nonlinearity()
    assert layer.is_skipped is False
    np.testing.assert_array_equal(layer.evaluate(x), before)
    assert layer.parameter_info["frozen"] == 0


def test_skipping_keeps_what_was_frozen_before():
    layer = Sigmoid((2,), no_offset=False, no_gain=False)
    layer.freeze_parameters("gain")
    for _ in range(2):  # twice is as good as once
        layer.skip_nonlinearity()
    layer.unskip_nonlinearity()
    layer.unskip_nonlinearity()
    frozen = {name: parameter.is_frozen for name, parameter in layer.parameters.items()}
    assert frozen == {"shift": True, "offset": False, "gain": True}
    assert layer["shift"].is_permanent


def test_layer_can_be_skipped_before_its_sizes_are_known():
    layer = DoubleExponential()
    layer.skip_nonlinearity()
    layer.resize((5, 2))
    assert layer.is_skipped
    assert layer.parameter_info["frozen"] == 6
    layer.unskip_nonlinearity()
    assert layer.parameter_info["frozen"] == 0


class Power(StaticNonlinearity):
    def initial_parameters(self):
        return Phi(Parameter("exponent", self.shape, initial_value=2.0))

    def nonlinearity(self, input):  # noqa: A002
        (exponent,) = self.get_parameter_values("exponent")
        return input**exponent


def test_one_of_your_own_without_shift():
    layer, x = Power((2,)), np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(layer.evaluate(x), x**2)
    layer.skip_nonlinearity()
    np.testing.assert_array_equal(layer.evaluate(x), x)
    assert layer["exponent"].is_frozen


# ------------------------------------------------------------------------------ sizes, errors


@each
def test_channels_come_from_the_data(layer_class):
    for layer in (layer_class(), layer_class((None,))):
        assert layer.shape == (None,)
        layer.resize((10, 3, 5))
        assert layer.shape == layer["shift"].shape == (5,)
        assert layer.evaluate(np.ones((10, 3, 5))).shape == (10, 3, 5)


@each
@pytest.mark.parametrize("shape", [(2, 3), (0,), 1.5, (True,), "2"])
def test_shapes_that_are_none(layer_class, shape):
    with pytest.raises(ValueError, match=r"^shape is .*but \(n_channels,\) of whole numbers"):
        layer_class(shape)


@each
@pytest.mark.parametrize("shape", [(10, 3), (10, 1), (2,), (10, 2, 3), ()])
def test_input_that_does_not_fit(layer_class, shape):
    with pytest.raises(ValueError, match=r"but \(n_samples, 2\) was expected\. Make"):
        layer_class((2,)).evaluate(np.ones(shape))


# Derivatives in closed form

# Of torch itself, when it differentiates forwards.
compiled = pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")


def _curve_by_torch(values, base, amplitude, shift, kappa):
    return base + amplitude * torch.exp(-torch.exp(-torch.exp(kappa) * (values + shift)))


def _arguments_of_a_curve(shape=(3,)):
    generator = torch.Generator().manual_seed(0)
    values = 2 * torch.randn(7, 3, generator=generator, dtype=torch.double)
    parameters = torch.randn(4, *shape, generator=generator, dtype=torch.double)
    return [one.requires_grad_() for one in (values, *parameters)]


@compiled
@pytest.mark.filterwarnings("ignore:Please use `torch.vmap`:FutureWarning")  # of torch 2.6
@pytest.mark.parametrize("shape", [(3,), (1,), (), (2, 1, 3)])
def test_derivatives_of_the_double_exponential_are_exact(shape):
    arguments = _arguments_of_a_curve(shape)
    checks = {"check_forward_ad": True, "check_batched_grad": True}
    assert torch.autograd.gradcheck(gompertz, arguments, **checks)
    assert torch.autograd.gradgradcheck(gompertz, arguments)


@compiled
def test_second_derivatives_of_the_double_exponential_are_those_of_torch():
    values, *parameters = (one.detach() for one in _arguments_of_a_curve())
    stacked = torch.stack(parameters)
    hessians = [
        torch.func.hessian(lambda p, curve=curve: curve(values, *p).square().sum())(stacked)
        for curve in (gompertz, _curve_by_torch)
    ]
    torch.testing.assert_close(*hessians)
    rows = torch.func.vmap(lambda row: gompertz(row, *parameters))(values)
    torch.testing.assert_close(rows, _curve_by_torch(values, *parameters))
