"""The layers of a model, their parameters and sizes, and the model as an object."""

import copy
import io
import pickle

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from skdyn.nems import HalfNormal, Layer, Model, Normal, Parameter, Phi


class Sum(Layer):
    def evaluate(self, *inputs):
        return np.sum(inputs, axis=0)


class WeightedSum(Layer):
    def initial_parameters(self):
        return Phi(Parameter("a"), Parameter("b"))

    def evaluate(self, first, second):
        a, b = self.get_parameter_values("a", "b")
        return a * first + b * second


class Square(Layer):
    def evaluate(self, values):
        return values**2


class Weights(Layer):
    """Channels times a matrix, with torch."""

    def initial_parameters(self):
        return Phi(Parameter("matrix", self.shape, Normal(1, 1)))

    def evaluate(self, values):
        (matrix,) = self.get_parameter_values()
        return torch.as_tensor(values) @ torch.as_tensor(matrix)


class Halves(Layer):
    """Gives two outputs."""

    def evaluate(self, values):
        return values[:, :1], values[:, 1:]


class Joined(Layer):
    """Takes one list."""

    def evaluate(self, several):
        assert isinstance(several, list)
        return np.concatenate(several, axis=1)


class Gain(Layer):
    state_arg = "by"

    def evaluate(self, values, by=None):
        return values if by is None else values * by


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((20, 3))


@pytest.fixture
def notebook():
    return Model().add_layers(WeightedSum(input=["x", "y"]), Square())


@pytest.fixture
def xy():
    rng = np.random.default_rng(1)
    return {"x": rng.random((20, 1)), "y": rng.random((20, 1))}


def values_of(model):
    return str(model.get_parameter_values())


# ---------------------------------------------------------------------------------- layers


def test_layers_are_found_by_place_name_slice_or_list():
    layers = [Sum(), Square(name="own"), Halves(), Gain()]
    model = Model(layers)
    assert list(model.layers) == layers
    assert len(model.layers) == 4
    for key, place in {0: 0, -1: 3, "own": 1, "Halves": 2, np.int64(2): 2}.items():
        assert model.layers[key] is layers[place]
    for key, expected in [(slice(1, 3), [1, 2]), (slice(None, None, -2), [3, 1])]:
        assert [layer.name for layer in model.layers[key]] == [layers[i].name for i in expected]
    assert [layer.name for layer in model.layers[["Gain", 0, "own"]]] == ["Gain", "Sum", "own"]
    assert [layer.name for layer in model.layers["Gain", 0]] == ["Gain", "Sum"]
    assert model.layers[1:]["own"] is layers[1]
    with pytest.raises(
        KeyError, match=r"'typo'; the layers are \['Sum', 'own', 'Halves', 'Gain'\]"
    ):
        model.layers["typo"]
    with pytest.raises(IndexError):
        model.layers[4]


def test_names_that_clash_get_a_number():
    model = Model([Square(), Square(), Square(), Sum(name="fir1"), Sum(name="fir1"), Sum(name="7")])
    model.add_layers(Sum(name="7"), Square(name="Square1"))
    names = [layer.name for layer in model.layers]
    assert names[:3] == ["Square", "Square1", "Square2"]
    assert names[3:5] == ["fir1", "fir2"]
    assert len(set(names)) == 8
    assert names[5:7] == ["7", "71"]


@settings(deadline=None)
@given(names=st.lists(st.sampled_from(["", "a", "a1", "a2", "1", "11"]), max_size=12))
def test_no_two_layers_have_one_name(names):
    layers = [Sum(name=name or None) for name in names]
    model = Model(layers)
    found = [layer.name for layer in model.layers]
    assert len(set(found)) == len(names)
    for place, (name, given_name) in enumerate(zip(found, names, strict=True)):
        wanted = given_name or "Sum"
        assert name == wanted or wanted in found[:place]


@pytest.mark.parametrize(
    ("index", "expected"),
    [(0, "abxy"), (1, "xaby"), (2, "xyab"), (-1, "xaby"), (-2, "abxy"), (9, "xyab"), (-9, "abxy")],
)
def test_layers_are_put_before_one_that_is_there(index, expected):
    model = Model([Sum(name="x"), Sum(name="y")])
    assert model.insert_layers(index, Sum(name="a"), Sum(name="b")) is model
    assert "".join(layer.name for layer in model.layers) == expected


def test_the_same_layer_twice_is_an_error_and_a_copy_is_not():
    layer = Square()
    model = Model([layer])
    for add in (lambda: model.add_layers(Sum(), layer), lambda: model.insert_layers(0, layer)):
        with pytest.raises(ValueError, match=r"'Square' is in this model already. Add its copy"):
            add()
    twice = Sum(name="twice")
    with pytest.raises(ValueError, match="'twice' is in this model already"):
        model.add_layers(twice, twice)
    assert list(model.layers) == [layer]
    assert [one.name for one in model.add_layers(layer.copy()).layers] == ["Square", "Square1"]


def test_a_layer_with_a_name_keeps_it():
    own, other = WeightedSum(name="own"), WeightedSum(name="own", input=["x", "y"])
    other.set_parameter_values(a=3)
    first, second = Model([own]), Model([other])
    assert first.layers["own"] is own
    first.add_layers(other)
    assert [layer.name for layer in first.layers] == ["own", "own1"]
    assert other.name == "own"
    assert second.layers["own"] is other
    assert first.layers["own1"] == other
    assert first.layers["own1"] is not other


def test_a_layer_without_a_name_gets_one():
    layers = [Square(), Square(), Sum()]
    model = Model(layers)
    assert [layer.name for layer in layers] == ["Square", "Square1", "Sum"]
    assert all(one is other for one, other in zip(model.layers, layers, strict=True))
    # Which it keeps in another model.
    assert [layer.name for layer in Model(layers[1:]).layers] == ["Square1", "Sum"]
    other = Model([Square()]).add_layers(layers[0])
    assert [layer.name for layer in other.layers] == ["Square", "Square1"]
    assert [layer.name for layer in model.layers] == ["Square", "Square1", "Sum"]


def test_what_is_no_layer_is_an_error():
    model = Model([Square()])
    for wrong in (Square, "wc.18x1", None):
        with pytest.raises(TypeError, match=r"^A Layer was expected, but .* is of type"):
            model.add_layers(Sum(), wrong)
    assert len(model.layers) == 1


# ------------------------------------------------------------------------------- parameters


def test_values_are_read_and_set_by_names(notebook):
    assert list(notebook.get_parameter_values()) == ["WeightedSum", "Square"]
    assert notebook.get_parameter_values()["Square"] == {}
    notebook.set_parameter_values({"WeightedSum": {"b": 4}})
    assert notebook.get_parameter_values()["WeightedSum"] == {"a": 0, "b": 4}
    notebook.layers[0].set_bounds(a=(0, 1))
    with pytest.raises(ValueError, match=r"'a' are .*must be within"):
        notebook.set_parameter_values({"WeightedSum": {"a": 4}})
    notebook.set_parameter_values({"WeightedSum": {"a": 4}}, ignore_bounds=True)
    assert notebook.get_parameter_values()["WeightedSum"] == {"a": 4, "b": 4}
    with pytest.raises(KeyError, match=r"'typo'; the layers are \['WeightedSum', 'Square'\]"):
        notebook.set_parameter_values({"typo": {"a": 1}})
    with pytest.raises(KeyError, match=r"'typo'; the parameters are \['a', 'b'\]"):
        notebook.set_parameter_values({"WeightedSum": {"typo": 1}})


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.set_parameter_values(
            {"WeightedSum": {"a": 5, "b": 6}, "second": {"a": 5, "b": 60}}
        ),
        lambda model: model.set_parameter_values(
            {"WeightedSum": {"a": 5}, "second": {"a": [5, 5]}}, ignore_bounds=True
        ),
        lambda model: model.set_parameter_values({"WeightedSum": {"a": 5}, "second": {"typo": 1}}),
        lambda model: model.set_parameter_values({"WeightedSum": {"a": 5}, "typo": {"a": 1}}),
        lambda model: model.set_parameter_vector([5, 6, 5, 60]),
    ],
)
def test_what_fails_half_way_changes_nothing(change):
    model = Model([WeightedSum(), WeightedSum(name="second", bounds={"b": (-9, 9)})])
    model.set_parameter_vector([1, 2, 3, 4])
    with pytest.raises((ValueError, KeyError)):
        change(model)
    assert model.get_parameter_vector().tolist() == [1, 2, 3, 4]
    model.set_parameter_vector([5, 6, 5, 60], ignore_bounds=True)
    assert model.get_parameter_vector().tolist() == [5, 6, 5, 60]


@settings(deadline=None)
@given(
    frozen=st.lists(st.booleans(), min_size=4, max_size=4),
    numbers=st.lists(st.floats(-10, 10), min_size=10, max_size=10),
)
def test_vectors_go_around_in_the_order_of_the_layers(frozen, numbers):
    layers = [Weights((2, 3)), Square(), WeightedSum(), Weights((2,))]
    model = Model(layers)
    places = [(0, "matrix"), (2, "a"), (2, "b"), (3, "matrix")]
    start, expected = 0, []
    for (place, name), is_frozen in zip(places, frozen, strict=True):
        parameter = layers[place][name]
        part = numbers[start : start + parameter.size]
        parameter.update(np.reshape(part, parameter.shape))
        start += parameter.size
        if is_frozen:
            parameter.freeze()
        else:
            expected += part
    assert model.get_parameter_vector().tolist() == expected
    before = model.copy()
    model.set_parameter_vector(np.array(expected) + 1)
    assert model.get_parameter_vector().tolist() == [number + 1 for number in expected]
    for (place, name), is_frozen in zip(places, frozen, strict=True):
        moved = layers[place][name].values - before.layers[place][name].values
        np.testing.assert_allclose(moved, 0 if is_frozen else 1, atol=1e-12)
    model.set_parameter_vector(expected)
    assert model == before
    with pytest.raises(ValueError, match=rf"but \({len(expected)},\) was expected, the number of"):
        model.set_parameter_vector(np.zeros(len(expected) + 1))


def test_bounds_go_with_the_vector():
    model = Model([Weights((2,), bounds={"matrix": (0, [1, 2])}), Square(), WeightedSum()])
    model.layers["WeightedSum"].freeze_parameters("a")
    low, high = model.get_bounds_vector()
    assert low.tolist() == [0, 0, -np.inf]
    assert high.tolist() == [1, 2, np.inf]
    with pytest.raises(ValueError, match=r"'matrix' are .*must be within"):
        model.set_parameter_vector([0, 3, 0])
    model.set_parameter_vector([0, 3, 0], ignore_bounds=True)
    assert model.get_parameter_vector().tolist() == [0, 3, 0]


def test_draws_differ_from_call_to_call_and_agree_for_one_seed(notebook, xy):
    """In the notebook two cells show the same two numbers."""
    before = notebook.copy()
    drawn = [notebook.sample_from_priors() for _ in range(3)]
    again = drawn[0].sample_from_priors()
    assert len({values_of(model) for model in (notebook, *drawn, again)}) == 5
    assert notebook == before
    assert drawn[0].predict(xy).std() > 0
    seeds = (0, np.random.default_rng(0))
    first, second = (notebook.sample_from_priors(random_state=seed) for seed in seeds)
    assert first == second != notebook.sample_from_priors(random_state=1)
    (a, b) = first.layers[0].get_parameter_values()
    assert a != b


def test_several_draws_are_several_models(notebook):
    models = notebook.sample_from_priors(4, random_state=0)
    assert len({values_of(model) for model in models}) == len(models) == 4
    assert models == notebook.sample_from_priors(4, random_state=0)
    assert models[0] == notebook.sample_from_priors(random_state=0)
    assert len(notebook.sample_from_priors(1)) == 1
    assert notebook.sample_from_priors(0) == []


def test_the_global_generator_is_neither_read_nor_moved(notebook, xy):
    drawn = set()
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        model = notebook.sample_from_priors()
        model.predict(xy)
        drawn.add(values_of(model))
        np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert len(drawn) == 2


def test_means_of_the_priors_are_a_copy(notebook):
    notebook.layers[0].set_priors(a=HalfNormal(1))
    drawn = notebook.sample_from_priors()
    means = drawn.mean_of_priors()
    assert means.get_parameter_values()["WeightedSum"] == {"a": 0.7978845608028654, "b": 0}
    assert drawn != means == notebook


def test_frozen_values_stay_when_drawn():
    model = Model([WeightedSum(name="one"), WeightedSum(name="two"), WeightedSum(name="three")])
    model.freeze_layers("one")
    model.layers["two"].freeze_parameters("b")
    model.layers["three"].set_permanent_values(a=5)
    values = model.sample_from_priors().get_parameter_values()
    assert values["one"] == {"a": 0, "b": 0}
    assert values["two"]["a"] != 0 == values["two"]["b"]
    assert values["three"]["a"] == 5 != values["three"]["b"] != 0
    assert len(model.get_parameter_vector()) == 2
    model.freeze_layers()
    assert model.sample_from_priors() == model == model.mean_of_priors()
    model.unfreeze_layers("two", "three")
    info = {"unfrozen": 3, "frozen": 3, "permanent": 1}
    assert model.parameter_info["model"] == {"total": 6} | info
    model.unfreeze_layers()
    assert model.parameter_info == {
        "one": {"total": 2, "unfrozen": 2, "frozen": 0, "permanent": 0},
        "two": {"total": 2, "unfrozen": 2, "frozen": 0, "permanent": 0},
        "three": {"total": 2, "unfrozen": 1, "frozen": 1, "permanent": 1},
        "model": {"total": 6, "unfrozen": 5, "frozen": 1, "permanent": 1},
    }
    for change in (model.freeze_layers, model.unfreeze_layers):
        with pytest.raises(KeyError, match=r"'typo'; the layers are \['one', 'two', 'three'\]"):
            change("typo")


# ------------------------------------------------------------------------- sizes from data


def test_sizes_are_taken_from_the_data_layer_by_layer(x):
    model = Model([Weights((None, 4)), Weights((None, 2)), Square(), Weights((None, None))])
    for ask in (model.get_parameter_values, model.sample_from_priors, model.get_parameter_vector):
        with pytest.raises(ValueError, match=r"Weights of shape \(None, 4\).*Evaluate or fit"):
            ask()
    output = model.predict(x)
    assert [layer.shape for layer in model.layers] == [(3, 4), (4, 2), None, (2, 2)]
    np.testing.assert_allclose(output, np.repeat((x.sum(1) * 4)[:, None] ** 2 * 2, 2, axis=1))
    with pytest.raises((ValueError, RuntimeError)):
        model.predict(x[:, :2])


@pytest.mark.parametrize("state_in", ["argument", "dict"])
def test_sizes_are_taken_from_what_goes_in_by_name_and_from_trials(state_in, x):
    model = Model([Gain(output="scaled"), Weights((None, 1), input="x")])
    data, state = {"input": x, "x": x[:, :2]}, np.ones((20, 1))
    if state_in == "dict":
        data, state = {**data, "state": state}, None
    assert model.copy().evaluate(data, state)["output"].shape == (20, 1)
    trials = {name: np.stack([array] * 2) for name, array in data.items()}
    model.evaluate(trials, None if state is None else state[None], trials=True)
    assert model.layers[1].shape == (2, 1)


def test_the_other_layers_may_take_lists_of_several_widths(x):
    model = Model([Halves(), Joined(), Weights((None, 1))])
    assert model.predict(x).shape == (20, 1)
    assert model.layers[2].shape == (3, 1)


# ----------------------------------------------------------------------------- as objects


def through_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


COPIES = {
    "copy": Model.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "joblib": through_joblib,
    "clone": clone,
}


@pytest.mark.parametrize("made_again", COPIES.values(), ids=COPIES)
def test_copies_keep_everything_and_share_nothing(made_again, xy):
    model = Model([WeightedSum(input=["x", "y"]), Square(name="own")], name="neuron")
    model = model.sample_from_priors(random_state=0)
    model.layers[0].freeze_parameters("b")
    again = made_again(model)
    assert again is not model
    assert again == model
    assert again.name == "neuron"
    assert [layer.name for layer in again.layers] == ["WeightedSum", "own"]
    assert len(again.get_parameter_vector()) == 1
    np.testing.assert_array_equal(again.predict(xy), model.predict(xy))
    before = model.copy()
    again.set_parameter_vector([9.0])
    again.unfreeze_layers()
    again.add_layers(Sum())
    assert model == before != again


def test_equal_are_those_of_equal_layers():
    assert Model() == Model(name="other")
    assert Model([Sum(), Square()]) == Model([Sum(), Square()])
    assert Model([Sum(), Square()]) != Model([Square(), Sum()])
    assert Model([Sum()]) != Model([Sum(), Sum()])
    assert Model([Sum(input="x")]) != Model([Sum()])
    assert Model() != []
