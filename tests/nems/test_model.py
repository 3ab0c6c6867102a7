import numpy as np
import pytest
import torch

from skdyn.nems import Layer, Model, Normal, Parameter, Phi


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


class Flat(Layer):
    """Gives outputs of one axis, as many as there are channels."""

    def evaluate(self, values):
        columns = [values[:, j] for j in range(values.shape[1])]
        return columns if len(columns) > 1 else columns[0]


class Gain(Layer):
    state_arg = "by"

    def evaluate(self, values, by=None):
        return values if by is None else values * by


class Receiver(Layer):
    """Records its arguments."""

    def evaluate(self, *args, **kwargs):
        self.given = args, kwargs
        return np.zeros((3, 1))


class Writer(Layer):
    """Writes to its input, which is an error."""

    def evaluate(self, values):
        values *= 2
        return values


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


# ----------------------------------------------------------------- the notebook, as printed

SHORT = f"""\
Model()
{"~" * 64}
WeightedSum(shape=None)
{"=" * 32}
Parameter(name=a, shape=())
{"-" * 16}
Parameter(name=b, shape=())
{"=" * 32}

Square(shape=None)
{"=" * 32}

{"~" * 64}"""


def test_it_prints_as_in_the_notebook(notebook):
    assert repr(notebook) == SHORT
    weighted, square = notebook.layers
    assert str(notebook) == (
        f"Model()\n{'~' * 64}\n.layers:\n\n{weighted}\n\n{square}\n\n{'~' * 64}"
    )
    assert ".values:\n0.0\n" in str(notebook)
    assert repr(notebook.layers) == f"{weighted!r}\n\n{square!r}"


def test_it_computes_what_the_notebook_shows(notebook, xy):
    assert list(notebook.evaluate(xy)) == ["x", "y", "output"]
    np.testing.assert_array_equal(notebook.predict(xy), np.zeros((20, 1)))
    notebook.set_parameter_values({"WeightedSum": {"a": 2, "b": -3}})
    expected = (2 * xy["x"] - 3 * xy["y"]) ** 2
    np.testing.assert_allclose(notebook.predict(xy), expected)
    np.testing.assert_array_equal(notebook.evaluate(xy)["output"], notebook.predict(xy))


# -------------------------------------------------------------------------------- input


@pytest.mark.parametrize(
    ("wanted", "args", "kwargs"),
    [
        (None, ["out"], {}),
        ("x", ["x"], {}),
        (["x"], ["x"], {}),
        (["y", "x"], ["y", "x"], {}),
        (("y", "x"), ["y", "x"], {}),
        ([["x", "y"], "x"], [["x", "y"], "x"], {}),
        ({"one": "y", "two": ["x", "mid"]}, [], {"one": "y", "two": ["x", "mid"]}),
    ],
    ids=str,
)
def test_a_layer_gets_what_its_input_names(wanted, args, kwargs):
    receiver = Receiver(input=wanted)
    data = {"x": np.full((3, 1), 1.0), "y": np.full((3, 1), 2.0)}
    model = Model([Sum(input=["x"] * 10, output="mid"), Square(), receiver])
    known = {**data, "mid": np.full((3, 1), 10.0), "out": np.full((3, 1), 100.0)}

    def found(given):
        names = [name for name, array in known.items() if np.array_equal(array, given)]
        return [found(one) for one in given] if isinstance(given, list) else names[0]

    model.evaluate(data)
    assert [found(one) for one in receiver.given[0]] == args
    assert {name: found(one) for name, one in receiver.given[1].items()} == kwargs


def test_an_array_is_called_input_and_goes_into_the_first_layer(x):
    data = Model([Square(), Sum(input=[["input", "input"]])]).evaluate(x)
    assert list(data) == ["input", "output"]
    np.testing.assert_allclose(Model([Square()]).predict(x.tolist()), x**2)


def test_of_several_the_first_layer_takes_the_one_called_input(x):
    model = Model([Square()])
    for data in ({"input": x, "z": 5 * x}, {"z": x}, {"z": x, "state": 5 * x}):
        np.testing.assert_allclose(model.predict(data), x**2)
    with pytest.raises(
        ValueError, match=r"first layer 'Square' has input=None, but .*\['x', 'z'\]"
    ):
        model.predict({"x": x, "z": x})


def test_a_name_that_is_not_there_tells_the_known_ones(xy):
    model = Model([Square(input="x", output="mid"), Sum(input=["mid", ["typo"]])])
    with pytest.raises(ValueError, match=r"'Sum' has the input 'typo', .* \['mid', 'x', 'y'\]"):
        model.evaluate(xy)
    late = Model([Square(input="mid"), Square(output="mid")])
    with pytest.raises(ValueError, match=r"'Square' has the input 'mid', .* \['x', 'y'\]"):
        late.evaluate(xy)


def test_a_state_goes_into_layers_that_take_one(x):
    model, state = Model([Square(), Gain()]), 3 * np.ones((20, 1))
    np.testing.assert_allclose(model.predict(x, state), 3 * x**2)
    np.testing.assert_allclose(model.predict({"x": x, "state": state}), 3 * x**2)
    assert list(model.evaluate(x, state)) == ["input", "state", "output"]
    np.testing.assert_allclose(Model([Gain(input="input")]).predict(x, state), x)
    with pytest.raises(ValueError, match=r"'Gain' has the input 'state', but .* \['input'\] was"):
        model.predict(x)


# ------------------------------------------------------------------------------- output


def test_outputs_are_stored_by_name(x):
    data = Model([Square(output="squared"), Sum(input=["input", "squared"])]).evaluate(x)
    assert list(data) == ["input", "squared", "output"]
    np.testing.assert_allclose(data["squared"], x**2)
    np.testing.assert_allclose(data["output"], x + x**2)


@pytest.mark.parametrize(
    ("output", "names"), [("half", ["half", "half.1"]), (["left", "right"], ["left", "right"])]
)
def test_several_outputs_have_several_names(output, names, x):
    data = Model([Halves(output=output), Joined(input=[names[::-1]])]).evaluate(x)
    assert list(data) == ["input", *names, "output"]
    np.testing.assert_array_equal(data[names[0]], x[:, :1])
    np.testing.assert_array_equal(data[names[1]], x[:, 1:])
    np.testing.assert_array_equal(data["output"], x[:, [1, 2, 0]])


def test_three_outputs_of_one_name_are_counted(x):
    assert list(Model([Flat(output="y")]).evaluate(x)) == ["input", "y", "y.1", "y.2", "output"]


@pytest.mark.parametrize("names", [["one"], ["one", "two", "three"], []])
def test_more_or_fewer_names_than_outputs_are_an_error(names, x):
    with pytest.raises(ValueError, match=r"'Halves' gives 2 outputs, but has output=.*Give a name"):
        Model([Halves(output=names)]).evaluate(x)


def test_a_list_of_outputs_goes_on_as_one_list(x):
    np.testing.assert_array_equal(Model([Halves(), Joined()]).predict(x), x)


def test_the_last_layer_may_give_several(x):
    left, right = Model([Halves()]).predict(x)
    np.testing.assert_array_equal(left, x[:, :1])
    np.testing.assert_array_equal(right, x[:, 1:])


def test_outputs_of_one_axis_get_a_second(x):
    data = Model([Flat(input="x", output="flat")]).evaluate({"x": x[:, :1]})
    assert data["flat"].shape == data["output"].shape == (20, 1)
    assert [one.shape for one in Model([Flat()]).predict(x)] == [(20, 1)] * 3
    np.testing.assert_array_equal(Model([Flat(), Joined()]).predict(x), x)


def test_a_layer_without_evaluate_is_named(x):
    class Unfinished(Layer):
        pass

    with pytest.raises(NotImplementedError, match="Unfinished has no evaluate"):
        Model([Square(), Unfinished()]).predict(x)


def test_no_layers_change_nothing(x):
    np.testing.assert_array_equal(Model().predict(x), x)


# --------------------------------------------------------------------------------- trials


def test_trials_are_computed_one_by_one():
    trials = np.random.default_rng(2).standard_normal((3, 20, 2))
    model = Model([Square(output="squared"), Weights((2, 4))])
    data = model.evaluate(trials, trials=True)
    np.testing.assert_allclose(data["squared"], trials**2)
    assert data["output"].shape == (3, 20, 4)
    for trial, output in zip(trials, data["output"], strict=True):
        np.testing.assert_allclose(model.predict(trial), output)


def test_where_there_is_one_trial_it_is_repeated():
    rng = np.random.default_rng(3)
    many, one = rng.standard_normal((3, 20, 1)), rng.standard_normal((1, 20, 1))
    model = Model([Sum(input=["x", "y"]), Gain()])
    for data in ({"x": many, "y": one}, {"x": one, "y": many}):
        found = model.evaluate(data, 2 * one, trials=True)
        np.testing.assert_allclose(found["output"], (many + one) * 2 * one)
        np.testing.assert_array_equal(found["state"], np.repeat(2 * one, 3, axis=0))


def test_several_outputs_of_trials():
    trials = np.random.default_rng(4).standard_normal((3, 20, 2))
    left, right = Model([Halves()]).predict(trials, trials=True)
    np.testing.assert_array_equal(left, trials[:, :, :1])
    np.testing.assert_array_equal(right, trials[:, :, 1:])


@pytest.mark.parametrize(
    ("data", "trials"),
    [
        ({"x": np.ones((20, 1)), "y": np.ones((19, 1))}, False),
        ({"x": np.ones((20, 1)), "y": np.ones((1, 1))}, False),
        ({"x": np.ones((3, 20, 1)), "y": np.ones((2, 20, 1))}, True),
        ({"x": np.ones((3, 20, 1)), "y": np.ones((3, 19, 1))}, True),
        ({"x": np.ones((3, 20, 1)), "y": np.ones((1, 1, 1))}, True),
    ],
)
def test_numbers_of_samples_that_differ_are_an_error(data, trials):
    with pytest.raises(ValueError, match=r"input has \{'x': .*'y': .*\} rows, but the same"):
        Model([Sum(input=["x", "y"])]).evaluate(data, trials=trials)


def test_a_state_of_another_length_is_an_error(x):
    with pytest.raises(ValueError, match=r"'input': \(20,\), 'state': \(19,\)\} rows, but the"):
        Model([Gain()]).evaluate(x, np.ones((19, 1)))


@pytest.mark.parametrize(
    ("data", "trials"),
    [
        (3.0, False),
        ({}, False),
        (np.ones((0, 2)), False),
        (np.ones((0, 5, 2)), True),
        (np.ones(5), True),
    ],
)
def test_data_without_rows_are_an_error(data, trials):
    with pytest.raises(ValueError, match=r"The input has the rows \{.*\}, but arrays with a row"):
        Model([Square(input="input")]).evaluate(data, trials=trials)


# --------------------------------------------------------------------- arguments are kept


def test_nothing_of_the_callers_is_changed(x):
    data, state = {"x": x.copy(), "y": 2 * x}, np.ones((20, 1))
    for array in (*data.values(), state):
        array.flags.writeable = False
    kept = dict(data)
    found = Model([Writer(input="x", output="mid"), Gain()]).evaluate(data, state)
    assert list(data) == ["x", "y"]
    assert all(data[name] is kept[name] for name in data)
    np.testing.assert_array_equal(data["x"], x)
    np.testing.assert_array_equal(found["output"], 2 * x)


@pytest.mark.parametrize("trials", [False, True])
def test_what_comes_out_is_not_what_went_in(trials, x):
    given = x[None] if trials else x
    before = given.copy()
    for array in Model([Gain(input="input")]).evaluate(given, trials=trials).values():
        array += 1
    np.testing.assert_array_equal(given, before)


# --------------------------------------------------------------------------------- tensors


def test_tensors_go_through_all_layers(x):
    model = Model([Weights((3, 2), output="mid"), Square()])
    leaf = torch.tensor(x, requires_grad=True)
    data = model.run(given := {"input": leaf})
    assert list(given) == ["input"]
    assert list(data) == ["input", "mid", "output"]
    np.testing.assert_allclose(data["output"].detach(), model.predict(x))
    (gradient,) = torch.autograd.grad(data["output"].sum(), leaf)
    np.testing.assert_allclose(gradient, np.repeat(4 * x.sum(1)[:, None], 3, axis=1))


@pytest.mark.parametrize("output", [None, 3.0, np.float64(3)])
def test_a_layer_that_gives_no_rows_is_named(output):
    class Odd(Layer):
        def evaluate(self, values):
            return output

    with pytest.raises(TypeError, match=r"evaluate of the layer 'Odd' returned .*, but an array"):
        Model([Odd()]).predict(np.ones((3, 1)))


def test_no_layer_is_called_model():
    layer = WeightedSum(name="model")
    assert Model([layer]).layers[0].name == "model1"
