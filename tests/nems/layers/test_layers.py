"""Properties of every layer: arrays and tensors, trials, gradients, causality, printing."""

import numpy as np
import pytest
import torch

from skdyn.nems import Model, layers
from skdyn.nems.layers import (
    FIR,
    STRF,
    BatchNormalization,
    Concatenate,
    ConcatSkip,
    Conv2d,
    DoubleExponential,
    GatedRecurrentUnit,
    GaussianExpansion,
    Hinge,
    Layer,
    LevelShift,
    LogCompress,
    Multiply,
    MultiplyByExp,
    NumPy,
    OutputNormalization,
    PoleZeroFilter,
    PowerCompress,
    ReLU,
    ResponseHistory,
    Select,
    ShortTermPlasticity,
    Sigmoid,
    SoftRelu,
    StateDexp,
    StateGain,
    StateHinge,
    StaticNonlinearity,
    Sum,
    SwapDims,
    Tanh,
    WeightChannels,
    WeightChannelsGaussian,
    WeightChannelsMulti,
)

FREE = {"no_shift": False, "no_offset": False, "no_gain": False}

# Functions that create a layer, and the shapes of its inputs without rows.
CASES = {
    "wc": (lambda: WeightChannels((4, 3)), (4,)),
    "wc ranks": (lambda: WeightChannels((4, 2, 3)), (4,)),
    "wc four axes": (lambda: WeightChannels((4, 2, 3, 2)), (4,)),
    "wc normed": (lambda: WeightChannels((4, 3), norm_coefficients=True), (4,)),
    "wc positive": (lambda: WeightChannels((4, 3), positive_only=True), (4,)),
    "gaussian": (lambda: WeightChannelsGaussian((4, 3)), (4,)),
    "gaussian ranks": (lambda: WeightChannelsGaussian((4, 2, 3)), (4,)),
    "banks": (lambda: WeightChannelsMulti((4, 3, 2)), (4, 2)),
    "banks in columns": (lambda: WeightChannelsMulti((4, 3, 2)), (8,)),
    "banks normed": (lambda: WeightChannelsMulti((4, 3, 2), norm_coefficients=True), (4, 2)),
    "banks positive": (lambda: WeightChannelsMulti((4, 3, 2), positive_only=True), (4, 2)),
    "fir": (lambda: FIR((5, 4)), (4,)),
    "fir filters": (lambda: FIR((5, 4, 2)), (4,)),
    "fir square": (lambda: FIR((5, 3, 3)), (3,)),
    "fir per channel": (lambda: FIR((5, 1, 4)), (4,)),
    "fir ranks": (lambda: FIR((5, 2, 3)), (2, 3)),
    "fir one lag": (lambda: FIR((1, 2, 3)), (2, 3)),
    "fir stride": (lambda: FIR((5, 4), stride=3), (4,)),
    "fir anticausal": (lambda: FIR((5, 4), include_anticausal=True), (4,)),
    "strf plain": (lambda: STRF((4, 5)), (4,)),
    "strf one": (lambda: STRF((4, 2, 5)), (4,)),
    "strf": (lambda: STRF((4, 2, 5, 3), activation="relu"), (4,)),
    "strf skip": (lambda: STRF((4, 2, 5, 3), skip_alpha=0.5, activation="relu", stride=2), (4,)),
    "strf skip before": (lambda: STRF((4, 2, 5, 3), skip_alpha=-0.5, activation="relu"), (4,)),
    "lvl": (lambda: LevelShift((4,)), (4,)),
    "dexp": (lambda: DoubleExponential((4,)), (4,)),
    "dexp ranks": (lambda: DoubleExponential((4,)), (2, 4)),
    "relu": (lambda: ReLU((4,), **FREE), (4,)),
    "srelu": (lambda: SoftRelu((4,), **FREE), (4,)),
    "sig": (lambda: Sigmoid((4,), **FREE), (4,)),
    "tanh": (lambda: Tanh((4,), **FREE), (4,)),
    "dlog": (lambda: LogCompress((4,)), (4,)),
    "prelu": (lambda: Hinge((4,)), (4,)),
    "cat": (lambda: Concatenate(), (4,), (2,)),
    "cat summed": (lambda: Concatenate(sum_later=True), (4,), (2,), (1,), (2,)),
    "cat last": (lambda: Concatenate(axis=-1), (4, 2), (4, 1), (4, 3)),
    "sum": (lambda: Sum(), (4,), (1,), (4,)),
    "product": (lambda: Multiply(), (4,), (4,), (1,)),
    "select": (lambda: Select([2, -1]), (4,)),
    "expansion": (lambda: GaussianExpansion((4, 6)), (4,)),
    "exp": (lambda: MultiplyByExp(), (4,), (1,)),
    "swap": (lambda: SwapDims(), (2, 3)),
    "skip": (lambda: ConcatSkip((3, 4)), (2,), (3,), (2,)),
    "numpy": (lambda: NumPy("sum", op_kwargs={"axis": 1}), (4,)),
    "sqrt": (lambda: PowerCompress(), (4,)),
    "log10x": (lambda: PowerCompress("log10x"), (4,)),
    "plain": (lambda: PowerCompress(None), (4,)),
    "poles": (lambda: PoleZeroFilter((5, 2)), (2,)),
    "poles ranks": (lambda: PoleZeroFilter((5, 2, 3), n_poles=3, n_zeros=2, stride=2), (2, 3)),
    "bn": (lambda: BatchNormalization((4,)), (4,)),
    "bn ranks": (lambda: BatchNormalization((4,)), (2, 4)),
    "norm": (lambda: OutputNormalization((4,)), (4,)),
    "gru": (lambda: GatedRecurrentUnit((4, 3)), (4,)),
    "conv2d": (lambda: Conv2d((3, 3)), (4,)),
    "conv2d planes": (lambda: Conv2d((3, 2, 2, 3), pooling="cat", padding="none"), (4, 2)),
    "conv2d strides": (
        lambda: Conv2d((3, 3, 2), pooling="stack", stride=2, channel_stride=2),
        (5,),
    ),
    "conv2d max": (lambda: Conv2d((2, 3, 3), pooling="max", padding="reflect"), (4,)),
    "conv2d min": (lambda: Conv2d((2, 3, 3), pooling="min"), (4,)),
    "conv2d product": (lambda: Conv2d((2, 3, 3), pooling="product"), (4,)),
    "conv2d std": (lambda: Conv2d((2, 3, 3), pooling="std"), (4,)),
    "conv2d sum": (lambda: Conv2d((2, 3, 3), pooling="sum"), (4,)),
    "stp": (lambda: ShortTermPlasticity((4,)), (4,)),
    "stp ranks": (lambda: ShortTermPlasticity((4,), sampling_frequency=10), (2, 4)),
    "stategain": (lambda: StateGain((2, 4)), (4,), (2,)),
    "stategain constant": (lambda: StateGain((3, 4)), (4,), (2,)),
    "stategain shared": (lambda: StateGain((2, 1)), (4,), (2,)),
    "sdexp": (lambda: StateDexp((2, 4)), (4,), (2,)),
    "statehinge": (lambda: StateHinge((2, 4)), (4,), (2,)),
    "statehinge matched": (lambda: StateHinge((3, 4), match_sign=True), (4,), (2,)),
    "history": (lambda: ResponseHistory((3, 2)), (2,), (2,)),
    "history coupled": (lambda: ResponseHistory((3, 2), coupled=True), (2,), (2,)),
}
ANTICAUSAL = ("fir anticausal",)
each = pytest.mark.parametrize("case", CASES)


def made(case, n_samples=30, seed=0):
    """A layer with random values, and inputs between 0 and 1."""
    make, *widths = CASES[case]
    random = np.random.default_rng(seed)
    layer = make().sample_from_priors(random)
    return layer, [random.uniform(size=(n_samples, *width)) for width in widths]


def test_every_layer_is_here():
    tested = {type(make()) for make, *_ in CASES.values()}
    exported = {getattr(layers, name) for name in layers.__all__}
    assert tested == exported - {Layer, StaticNonlinearity}


@each
def test_arrays_and_tensors_give_the_same(case):
    layer, inputs = made(case)
    array = layer.evaluate(*inputs)
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float64
    tensor = layer.evaluate(*map(torch.tensor, inputs))
    assert torch.is_tensor(tensor)
    np.testing.assert_array_equal(tensor.numpy(), array)
    with layer.tensors({k: torch.tensor(p.values) for k, p in layer.parameters.items()}):
        traced = layer.evaluate(*inputs)
    assert torch.is_tensor(traced)
    np.testing.assert_array_equal(traced.numpy(), array)


@each
@pytest.mark.parametrize("kind", ["read-only", "float32", "Fortran", "reversed", "sliced", "int"])
def test_every_kind_of_array_is_taken_and_not_changed(case, kind):
    layer, inputs = made(case)
    given = []
    for array in inputs:
        if kind in ("float32", "int"):
            array = (8 * array).astype(np.float32 if kind == "float32" else int)
        elif kind == "Fortran":
            array = np.asfortranarray(array)
        elif kind == "reversed":
            array = array[::-1, ::-1]
        elif kind == "sliced":
            array = np.repeat(array, 2, axis=0)[::2]
        given.append(array)
    for array in given if kind == "read-only" else []:
        array.flags.writeable = False
    plain = [np.array(array, float, order="C") for array in given]
    before = [array.copy() for array in given]
    found, values = layer.evaluate(*given), layer.get_parameter_values(as_dict=True)
    np.testing.assert_allclose(found, layer.evaluate(*plain), rtol=1e-13, atol=1e-15)
    # The output is writeable, and writing to it changes neither the input nor a parameter.
    kept = {name: value.copy() for name, value in values.items()}
    found += 1
    assert all(map(np.array_equal, given, before))
    assert all(np.array_equal(value, kept[name]) for name, value in values.items())


@pytest.mark.parametrize("case", [case for case in CASES if case != "gru"])
def test_trials_at_once_are_those_one_by_one(case):
    layer, _ = made(case)
    trials = [made(case, seed=seed)[1] for seed in range(3)]
    stacked = [torch.tensor(np.stack(parts)) for parts in zip(*trials, strict=True)]
    found = torch.func.vmap(layer.evaluate)(*stacked)
    expected = np.stack([layer.evaluate(*inputs) for inputs in trials])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-14)


@each
def test_joined_trials_are_those_one_by_one(case):
    layer, _ = made(case)
    if not layer.joins_trials and (layer.n_past != 0 or layer.n_future != 0):
        pytest.skip("its trials are computed one by one")
    trials = [made(case, seed=seed)[1] for seed in range(3)]
    joined = [np.concatenate(parts) for parts in zip(*trials, strict=True)]
    expected = np.concatenate([layer.evaluate(*inputs) for inputs in trials])
    layer.n_trials = 3
    np.testing.assert_allclose(layer.evaluate(*joined), expected, rtol=1e-12, atol=1e-14)


def as_function(case, n_samples=9):
    """A layer as a function of inputs and parameters, and values of these."""
    layer, inputs = made(case, n_samples)
    names = list(layer.parameters)

    def evaluate(*values):
        named = dict(zip(names, values[len(inputs) :], strict=True))
        with layer.tensors(named):
            return layer.evaluate(*values[: len(inputs)])

    # Centred, so that rectifiers have both sides; a logarithm needs what is positive.
    shift = 0 if isinstance(layer, LogCompress) else 0.5
    values = [one - shift for one in inputs] + layer.get_parameter_values()
    return evaluate, tuple(torch.tensor(value, requires_grad=True) for value in values)


@each
def test_gradients_are_those_of_finite_differences(case):
    function, values = as_function(case)
    assert torch.autograd.gradcheck(function, values)
    assert torch.autograd.gradgradcheck(function, values)


@each
def test_functional_gradients_are_those_of_autograd(case):
    function, values = as_function(case)
    weights = torch.linspace(-1, 1, function(*values).numel(), dtype=torch.float64)

    def loss(*values):
        return (function(*values).reshape(-1) * weights).sum()

    numbers = tuple(range(len(values)))
    found = torch.func.grad(loss, argnums=numbers)(*(value.detach() for value in values))
    expected = torch.autograd.grad(loss(*values), values)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@each
def test_the_future_changes_nothing(case):
    layer, inputs = made(case, 100)
    changed = [array.copy() for array in inputs]
    for array in changed:
        array[60:] += 1
    before, after = layer.evaluate(*inputs), layer.evaluate(*changed)
    kept = 60 // getattr(layer, "stride", 1)
    assert np.array_equal(before[:kept], after[:kept]) == (case not in ANTICAUSAL)
    assert not np.array_equal(before[kept:], after[kept:])


@each
def test_copies_and_printing_keep_options(case):
    layer, inputs = made(case)
    twin = layer.__sklearn_clone__()
    np.testing.assert_array_equal(twin.evaluate(*inputs), layer.evaluate(*inputs))
    params = layer.get_params()
    again = type(layer)(**params)
    assert again == layer
    assert repr(again) == repr(layer)
    own = set(params) - set(Layer().get_params()) - layer.quiet
    assert all(f"{name}={params[name]!r}" in repr(layer) for name in own)
    layer.set_params(name="other")
    assert layer == again
    assert layer.name == "other"


@each
def test_a_penalty_of_its_own(case):
    layer, _ = made(case)
    params = layer.get_params()
    if type(layer).penalised == ():
        with pytest.raises(ValueError, match=r"none of whose parameters is penalised, must be Non"):
            type(layer)(**{**params, "l2": 0.5})
    else:
        again = type(layer)(**{**params, "l2": 0.5})
        layer.set_params(l2=0.5)
        assert again == layer
        layer.set_params(l2=None)
        head, *others = repr(again).splitlines()
        assert head.endswith(", l2=0.5)")
        assert [head.replace(", l2=0.5", ""), *others] == repr(layer).splitlines()


def test_options_are_printed():
    printed = repr(STRF((4, 2, 5, 3), skip_alpha=0.5, activation="relu", stride=2))
    head = "STRF(shape=(4, 2, 5, 3), skip_alpha=0.5, activation='relu', stride=2)\n"
    assert printed.startswith(head)
    assert repr(Select([2, 0])).startswith("Select(shape=None, channels=[2, 0])\n")
    assert repr(FIR((5, 4))).startswith(
        "FiniteImpulseResponse(shape=(5, 4), stride=1, include_anticausal=False)\n"
    )


def test_a_model_completes_sizes_and_runs():
    random = np.random.default_rng(0)
    model = Model(
        layers=[
            WeightChannels((None, 2, 3)),
            FIR((5, None, None)),
            ReLU(no_shift=False),
            WeightChannelsGaussian((None, 2)),
            FIR((4, 1, None)),
            DoubleExponential(),
        ]
    )
    output = model.predict(random.uniform(size=(40, 7)))
    assert output.shape == (40, 2)
    shapes = [(7, 2, 3), (5, 2, 3), (3,), (3, 2), (4, 1, 2), (2,)]
    assert [layer.shape for layer in model.layers] == shapes


def test_banks_are_filtered_each_by_its_own_filter():
    """As one model of each bank, side by side."""
    random = np.random.default_rng(0)
    X = random.uniform(size=(40, 5, 2))
    layers = [WeightChannelsMulti((None, 3, None)), FIR((4, None, None)), DoubleExponential()]
    model = Model(layers)
    model.take_sizes({"input": X})
    assert [layer.shape for layer in model.layers] == [(5, 3, 2), (4, 3, 2), (2,)]
    model = model.sample_from_priors(random_state=0)
    for bank in range(2):
        alone = Model([WeightChannels((5, 3)), FIR((4, 3)), DoubleExponential((1,))])
        for one, both in zip(alone.layers, model.layers, strict=True):
            for name, parameter in both.parameters.items():
                one[name] = parameter.values[..., bank].reshape(one[name].shape)
        expected = alone.predict(X[:, :, bank])
        np.testing.assert_allclose(model.predict(X)[:, [bank]], expected, rtol=1e-12)


def test_a_model_gives_several_inputs():
    data = {"a": np.full((4, 2), 3.0), "b": np.full((4, 2), 2.0)}
    positional = Model(layers=[Multiply(input=["a", "b"])])
    as_one_list = Model(layers=[Multiply(input=[["a", "b"]])])
    np.testing.assert_array_equal(positional.predict(data), np.full((4, 2), 6.0))
    np.testing.assert_array_equal(as_one_list.predict(data), np.full((4, 2), 6.0))
