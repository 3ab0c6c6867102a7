# ruff: noqa: RUF001 - the symbols are Greek
import copy
import io
import pickle

import joblib
import numpy as np
import pytest
from scipy import stats
from sklearn.base import clone

from skdyn.nems import L2, Exponential, HalfNormal, Layer, Normal, Parameter, Phi, Uniform


class Sum(Layer):
    def evaluate(self, *inputs):
        return np.sum(inputs, axis=0)


class WeightedSum(Layer):
    def initial_parameters(self):
        return Phi(Parameter("a"), Parameter("b"))

    def evaluate(self, first, second):
        a, b = self.get_parameter_values("a", "b")
        return a * first + b * second


class Power(Layer):
    """Plain arithmetic: gain |x|^power + offset, per channel."""

    def __init__(self, shape=None, power=2, weights=None, **kwargs):
        self.power, self.weights = power, weights
        super().__init__(shape=shape, **kwargs)

    def initial_parameters(self):
        gain = Parameter("gain", self.shape, prior=HalfNormal(1), bounds=(0, np.inf))
        return Phi(gain, Parameter("offset", self.shape))

    def evaluate(self, values):
        gain, offset = self.get_parameter_values()
        return gain * abs(values) ** self.power + offset


class Other(Power):
    pass


class Positional(Layer):
    """Forwards unknown arguments."""

    def __init__(self, *args, scale=1.0, **kwargs):
        self.scale = scale
        super().__init__(*args, **kwargs)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((20, 2))


@pytest.fixture
def power():
    layer = Power(2, power=3)
    layer.set_parameter_values(gain=[1, 2], offset=[3, 4])
    return layer


def values_of(layer):
    """All values, as lists."""
    return [value.tolist() for value in layer.get_parameter_values()]


# ----------------------------------------------------------------- the notebook, as printed

SHORT = """\
WeightedSum(shape=None)
================================
Parameter(name=a, shape=())
----------------
Parameter(name=b, shape=())
================================"""

LONG = """\
WeightedSum(shape=None)
================================
.parameters:

Parameter(name=a, shape=())
----------------
.prior: HalfNormal(σ=1)
.bounds: (-inf, inf)
.is_frozen: False
.values:
0.7978845608028654
----------------
Index: 0
----------------

Parameter(name=b, shape=())
----------------
.prior: Normal(μ=0.0, σ=1.0)
.bounds: (-inf, inf)
.is_frozen: False
.values:
0.0
----------------
Index: 0
----------------

================================"""


def test_it_prints_as_in_the_notebook():
    assert repr(Sum()) == str(Sum()) == "Sum(shape=None)\n" + "=" * 32
    layer = WeightedSum(priors={"a": HalfNormal(sd=1)})
    assert repr(layer) == SHORT
    assert str(layer) == LONG


def test_it_prints_what_it_was_made_with():
    assert repr(Power((2,), power=3)).startswith("Power(shape=(2,), power=3, weights=None)\n===")
    assert repr(Positional((2, None))) == "Positional(shape=(2, None), scale=1.0)\n" + "=" * 32


def test_it_computes_what_the_notebook_shows():
    ones = np.ones((10, 1))
    np.testing.assert_array_equal(Sum().evaluate(ones, 2 * ones), np.full((10, 1), 3.0))
    layer = WeightedSum(priors={"a": HalfNormal(sd=1)})
    assert layer.get_parameter_values() == [0.7978845608028654, 0]
    np.testing.assert_allclose(layer.evaluate(ones, 2 * ones), np.full((10, 1), 0.79788456))


def test_a_layer_without_evaluate_says_so():
    class Unfinished(Layer):
        pass

    with pytest.raises(NotImplementedError, match=r"Unfinished has no evaluate\(self"):
        Unfinished().evaluate(np.ones((3, 1)))
    assert dict(Unfinished().parameters) == {}


# ------------------------------------------------------------------------------- parameters


def test_values_come_as_a_list_or_with_their_names(power):
    assert values_of(power) == [[1, 2], [3, 4]]
    offset, gain = power.get_parameter_values("offset", "gain")
    assert (gain.tolist(), offset.tolist()) == ([1, 2], [3, 4])
    named = power.get_parameter_values("offset", as_dict=True)
    assert list(named) == ["offset"]
    assert list(power.get_parameter_values(as_dict=True)) == ["gain", "offset"]
    assert power["gain"] is power.parameters["gain"]


def test_values_are_set_by_dict_keyword_or_item(power):
    power.set_parameter_values({"gain": [5, 6]}, offset=[7, 8])
    assert values_of(power) == [[5, 6], [7, 8]]
    power["offset"] = [9, 9]
    assert values_of(power) == [[5, 6], [9, 9]]
    power.set_parameter_values()
    assert values_of(power) == [[5, 6], [9, 9]]


def test_bounds_hold_unless_they_are_ignored(power):
    for change in (
        lambda: power.set_parameter_values(gain=[-1, 1]),
        lambda: power.set_parameter_values({"gain": [-1, 1]}),
        lambda: power.__setitem__("gain", [-1, 1]),
    ):
        with pytest.raises(ValueError, match=r"'gain' are .*must be within \(0, inf\)"):
            change()
    assert values_of(power)[0] == [1, 2]
    power.set_parameter_values(gain=[-1, 1], ignore_bounds=True)
    assert values_of(power)[0] == [-1, 1]
    power.set_bounds(gain=(-2, 2))
    assert power.bounds["gain"][0].tolist() == [-2, -2]
    power.set_parameter_values(gain=[-2, 2])


@pytest.mark.parametrize(
    "ask",
    [
        lambda layer: layer["typo"],
        lambda layer: layer.__setitem__("typo", 1),
        lambda layer: layer.get_parameter_values("gain", "typo"),
        lambda layer: layer.set_parameter_values(typo=1),
        lambda layer: layer.freeze_parameters("typo"),
        lambda layer: layer.unfreeze_parameters("typo"),
        lambda layer: layer.set_permanent_values(typo=1),
        lambda layer: layer.set_priors(typo=Normal()),
        lambda layer: layer.set_bounds(typo=(0, 1)),
    ],
)
def test_an_unknown_name_tells_the_known_ones(ask, power):
    with pytest.raises(KeyError, match=r"'typo'; the parameters are \['gain', 'offset'\]"):
        ask(power)


def test_priors_and_bounds_replace_those_of_the_class():
    layer = Power(2, priors={"offset": Uniform(0, [2, 4])}, bounds={"offset": (3, 5)})
    assert layer.priors["offset"] == Uniform(0, [2, 4])
    assert values_of(layer)[1] == [1, 2]  # means, which bounds do not cut
    assert layer.bounds["offset"][0].tolist() == [3, 3]
    assert layer.bounds["gain"][0].tolist() == [0, 0]
    layer.set_priors(offset=Exponential(6))
    assert values_of(layer)[1] == [6, 6]


def test_given_parameters_replace_those_of_the_class_and_stay_the_callers():
    phi = Phi(Parameter("gain", (2,), initial_value=3), Parameter("offset", (2,)))
    before = phi.copy()
    priors, bounds = {"offset": Exponential(6)}, {"gain": (0, 9)}
    layer = Power(2, parameters=phi, priors=priors, bounds=bounds)
    layer.set_parameter_values(gain=[8, 8])
    layer.freeze_parameters()
    layer.set_bounds(offset=(0, 1))
    layer.set_priors(gain=Exponential(1))
    assert values_of(layer) == [[1, 1], [6, 6]]
    assert phi == before
    assert priors == {"offset": Exponential(6)}
    assert bounds == {"gain": (0, 9)}


# -------------------------------------------------------------------- freezing and sampling


def test_only_what_is_not_frozen_is_drawn(power):
    power.freeze_parameters("gain")
    power.sample_from_priors(0)
    gain, offset = power.get_parameter_values()
    assert gain.tolist() == [1, 2]
    assert not np.isin(offset, [3, 4]).any()
    power.mean_of_priors()
    assert values_of(power) == [[1, 2], [0, 0]]
    power.unfreeze_parameters("gain")
    power.freeze_parameters("offset")
    power.sample_from_priors(0)
    assert values_of(power)[1] == [0, 0]
    assert values_of(power)[0] != [1, 2]


def test_no_names_are_all(power):
    power.freeze_parameters()
    before = power.copy()
    power.sample_from_priors()
    power.mean_of_priors()
    assert power == before
    power.unfreeze_parameters()
    power.sample_from_priors()
    assert not set(np.ravel(values_of(power))) & {1, 2, 3, 4}


def test_permanent_values_stay(power):
    power.set_permanent_values(gain=5)
    power.unfreeze_parameters()
    power.sample_from_priors()
    assert values_of(power)[0] == [5, 5]
    assert values_of(power)[1] != [3, 4]
    with pytest.raises(ValueError, match=r"'gain' is permanent, .*Make a new layer"):
        power.set_parameter_values(gain=[1, 1])
    power.freeze_parameters("offset")
    assert power.parameter_info == {"total": 4, "unfrozen": 0, "frozen": 4, "permanent": 2}
    power.unfreeze_parameters()
    assert power.parameter_info == {"total": 4, "unfrozen": 2, "frozen": 2, "permanent": 2}
    assert Sum().parameter_info == {"total": 0, "unfrozen": 0, "frozen": 0, "permanent": 0}


def test_permanent_values_stay_whatever_the_prior():
    class Fixed(Power):
        def initial_parameters(self):
            phi = super().initial_parameters()
            phi["gain"].make_permanent(1)
            return phi

    layer = Fixed(2, priors={"gain": Exponential(4), "offset": Exponential(4)})
    assert values_of(layer) == [[1, 1], [4, 4]]


def test_draws_follow_the_prior_within_the_bounds():
    layer = Power(5000, priors={"gain": Normal(1, 2), "offset": Normal(1, 2)})
    layer.sample_from_priors(0)
    gain, offset = layer.get_parameter_values()
    assert stats.kstest(gain, stats.truncnorm(-0.5, np.inf, loc=1, scale=2).cdf).pvalue > 1e-3
    assert stats.kstest(offset, stats.norm(1, 2).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(gain, offset)[0, 1]) < 0.06  # 4 standard errors


def test_one_seed_gives_one_draw_and_no_seed_another(power):
    def drawn(random_state):
        return str(values_of(power.sample_from_priors(random_state, inplace=False)))

    seeds = [0, np.random.default_rng(0), 1]
    assert [drawn(seed) for seed in seeds[:2]] == [drawn(0)] * 2
    assert drawn(np.random.RandomState(0)) == drawn(np.random.RandomState(0))
    assert len({drawn(seed) for seed in [0, 1, None, None, None]}) == 5


def test_the_global_generator_is_neither_read_nor_moved(power):
    drawn = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        drawn.append(values_of(power.sample_from_priors()))
        np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("change", [Power.sample_from_priors, Power.mean_of_priors])
def test_in_place_or_as_a_copy(change, power):
    changed = change(power, inplace=False)
    assert values_of(power) == [[1, 2], [3, 4]]
    assert values_of(changed) != [[1, 2], [3, 4]]
    assert change(power) is power
    assert values_of(power) != [[1, 2], [3, 4]]


# ------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("given", "expected"),
    [(2, (2,)), ((2,), (2,)), ([2, 3], (2, 3)), (np.array([2, 3]), (2, 3)), (np.int64(2), (2,))],
)
def test_a_shape_becomes_plain_numbers(given, expected):
    layer = Power(given)
    assert layer.shape == expected
    assert all(type(size) is int for size in layer.shape)
    assert layer["gain"].shape == expected


def test_a_size_that_is_no_number_is_an_error():
    for wrong in (2.5, "2x3", (1, 2.0)):
        with pytest.raises(TypeError, match="integer"):
            Power(wrong)


@pytest.mark.parametrize(
    "ask",
    [
        lambda layer: layer.parameters,
        lambda layer: layer["gain"],
        lambda layer: layer.get_parameter_values(),
        lambda layer: layer.set_parameter_values(gain=1),
        Power.freeze_parameters,
        Power.sample_from_priors,
        lambda layer: layer.parameter_info,
    ],
)
def test_before_the_data_say_its_size_a_layer_has_no_parameters(ask):
    layer = Power((None,))
    assert not layer.is_sized
    with pytest.raises(ValueError, match=r"^A Power of shape \(None,\).*Evaluate or fit its"):
        ask(layer)
    assert repr(layer) == "Power(shape=(None,), power=2, weights=None)\n" + "=" * 32
    assert layer == Power((None,)) != Power((2,))


def test_a_size_is_taken_from_the_data_once():
    layer = Power((None, 3), priors={"offset": Exponential(6)}, bounds={"gain": (0, 9)})
    layer.resize((50, 4))
    assert layer.shape == layer["gain"].shape == (4, 3)
    assert layer.is_sized
    np.testing.assert_array_equal(layer["offset"], np.full((4, 3), 6))
    np.testing.assert_array_equal(layer.bounds["gain"][1], np.full((4, 3), 9))
    layer.set_parameter_values(offset=np.full((4, 3), 7))
    layer.resize((50, 7))
    assert layer.shape == (4, 3)
    np.testing.assert_array_equal(layer["offset"], np.full((4, 3), 7))
    assert Sum().sizes_from((50, 4)) is None


def test_no_size_is_taken_from_the_number_of_samples():
    for shapes in [[(50,)], []]:
        layer = Power((None,))
        with pytest.raises(ValueError, match=r"but \(n_samples, n_channels\).*array\[:, None"):
            layer.resize(*shapes)
        assert not layer.is_sized


# ------------------------------------------------------------------------------- as objects


def through_joblib(layer):
    file = io.BytesIO()
    joblib.dump(layer, file)
    file.seek(0)
    return joblib.load(file)


COPIES = {
    "copy": lambda layer: layer.copy(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "joblib": through_joblib,
    "clone": clone,
    "clone of pairs": lambda layer: clone([("name", layer)], safe=False)[0][1],
}


@pytest.mark.parametrize("made_again", COPIES.values(), ids=COPIES)
def test_copies_keep_everything_and_share_nothing(made_again, power, x):
    power.name = "square"
    power.freeze_parameters("gain")
    power.set_bounds(offset=(0, 9))
    power.l2 = 0.5
    again = made_again(power)
    assert again is not power
    assert again == power
    assert (again.name, again.power, again.l2) == ("square", 3, 0.5)
    assert again["gain"].is_frozen
    np.testing.assert_array_equal(again.evaluate(x), power.evaluate(x))
    again["offset"].values[:] = 7
    again["gain"].unfreeze()
    assert values_of(power) == [[1, 2], [3, 4]]
    assert power["gain"].is_frozen
    assert again != power


def test_equal_are_layers_that_compute_the_same():
    same = {"shape": (2,), "power": 3, "weights": np.ones(2), "input": "x", "output": ["y"]}
    assert Power(**same) == Power(**{**same, "weights": np.ones(2)})
    for name, value in {
        "shape": (3,),
        "power": 4,
        "weights": np.zeros(2),
        "input": "z",
        "output": None,
        "priors": {"gain": Exponential(1)},
        "bounds": {"gain": (0, 1)},
        "l2": 1.0,
    }.items():
        assert Power(**same) != Power(**{**same, name: value}), name
    assert Power(**{**same, "weights": None}) != Power(**same)
    assert Power(2) != Other(2)
    assert Power(2) != 2
    moved = Power(2)
    moved["offset"] = [0, 1]
    assert moved != Power(2)


def test_params_are_what_it_was_made_with():
    given = {
        "shape": (2,),
        "power": 5,
        "weights": None,
        "input": ["x"],
        "output": "y",
        "parameters": None,
        "priors": {"gain": HalfNormal(2)},
        "bounds": {"gain": (0, 3)},
        "name": "own",
        "l2": 0.5,
        "values": None,
        "frozen": (),
        "permanent": (),
        "penalties": (L2(0.1),),
    }
    layer = Power(**given)
    assert layer.get_params() == given
    assert layer.get_params(deep=False) == given
    assert Power(**layer.get_params()) == layer


def test_params_are_found_where_a_class_hands_them_on():
    layer = Positional((2,), "x", scale=3.0)
    assert layer.get_params() == {
        **dict.fromkeys(["output", "parameters", "priors", "bounds", "name", "l2", "values"]),
        "frozen": (),
        "permanent": (),
        "penalties": (),
        "scale": 3.0,
        "shape": (2,),
        "input": "x",
    }
    layer.set_params(scale=4.0, output="y")
    assert (layer.scale, layer.shape, layer.input, layer.output) == (4.0, (2,), "x", "y")


def test_set_params_makes_it_anew():
    layer = Power((None,), power=3, priors={"gain": HalfNormal(2)}, name="own")
    assert layer.set_params(shape=(3,), power=4) is layer
    assert layer.shape == layer["gain"].shape == (3,)
    assert layer.power == 4
    assert layer.priors["gain"] == HalfNormal([2, 2, 2])
    assert layer.name == "own"
    assert layer.set_params().shape == (3,)


def test_an_unknown_param_tells_the_known_ones(power):
    before = power.copy()
    with pytest.raises(
        ValueError, match=r"Invalid parameter 'typo' for Power: expected .*'power'.*'name'"
    ):
        power.set_params(power=9, typo=1)
    assert power == before
    assert power.power == 3
