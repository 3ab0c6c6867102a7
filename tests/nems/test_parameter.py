# ruff: noqa: RUF001 - the symbols are Greek
import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from skdyn.nems import Exponential, HalfNormal, Normal, Parameter, Phi, Uniform

EPSILON = 2.0**-23  # of single precision


# --------------------------------------------------------------------------- one parameter


def test_by_default_it_is_at_the_mean_of_a_standard_normal():
    parameter = Parameter("a")
    assert parameter.prior == Normal(0, 1)
    assert parameter.values == 0
    assert parameter.shape == parameter.values.shape == ()
    assert parameter.bounds == (-np.inf, np.inf)
    assert not parameter.is_frozen
    assert not parameter.is_permanent


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_a_prior_of_one_number_holds_for_each_entry(shape):
    parameter = Parameter("a", shape, prior=HalfNormal(sd=1))
    np.testing.assert_array_equal(parameter.values, np.full(shape, 0.7978845608028654))
    assert parameter.prior.shape == parameter.values.shape == shape
    assert parameter.size == np.prod(shape)


def test_a_prior_of_another_shape_is_an_error():
    assert Parameter("a", (2,), prior=Normal([1, 2])).values.tolist() == [1, 2]
    for shape in [(3,), (1, 2), ()]:
        with pytest.raises(
            ValueError, match=r"prior of the parameter 'a' has the shape \(2,\), but"
        ):
            Parameter("a", shape, prior=Normal([1, 2]))


@pytest.mark.parametrize(("given", "expected"), [(5, [5, 5]), ([1, 2], [1, 2]), ((3,), [3, 3])])
def test_it_may_start_from_numbers(given, expected):
    assert Parameter("a", (2,), initial_value=given).values.tolist() == expected


def test_it_may_start_from_a_draw_within_its_bounds():
    starts = [
        Parameter("a", (500,), bounds=(0.5, np.inf), initial_value="sample", random_state=seed)
        for seed in (0, 0, 1, None, None)
    ]
    first, same, *others = (one.values for one in starts)
    np.testing.assert_array_equal(first, same)
    assert all(not np.array_equal(first, one) for one in others)
    assert not np.array_equal(others[1], others[2])
    assert stats.kstest(first, stats.truncnorm(0.5, np.inf).cdf).pvalue > 1e-3


@pytest.mark.parametrize("wrong", [[1, 2, 3], [[1, 2], [3, 4]], "typo"])
def test_a_start_that_does_not_fit_is_an_error(wrong):
    message = r"'a' are .*numbers that can be broadcast to its shape, \(2,\)"
    with pytest.raises(ValueError, match=message):
        Parameter("a", (2,), initial_value=wrong)
    with pytest.raises(ValueError, match=message):
        Parameter("a", (2,)).make_permanent(wrong)


# --------------------------------------------------------------------------------- bounds


def test_percentile_bounds_leave_out_the_tails():
    low, high = Parameter("a", (2,), Normal(1, 2), default_bounds="percentile").bounds
    for side, share in [(low, 0.0001), (high, 0.9999)]:
        np.testing.assert_allclose(side, [stats.norm(1, 2).ppf(share)] * 2)
    given = Parameter("a", bounds=(0, 1), default_bounds="percentile").bounds
    assert given == (0, 1)
    with pytest.raises(ValueError, match=r"default_bounds .*'a' must be 'infinite' or .*'typo'"):
        Parameter("a", default_bounds="typo")


def test_zero_may_become_a_small_number():
    low, high = Parameter("a", bounds=(0, 1), zero_to_epsilon=True).bounds
    assert (low, high) == (EPSILON, 1)
    low, high = Parameter("a", (2,), bounds=(-1, [0, 2]), zero_to_epsilon=True).bounds
    assert (low.tolist(), high.tolist()) == ([-1, -1], [EPSILON, 2])
    assert Parameter("a", bounds=(0, 1)).bounds == (0, 1)


@pytest.mark.parametrize("bounds", [(1, 0), (np.nan, 1), (0, np.nan), (0, [1, -1])])
def test_bounds_that_nothing_lies_between_are_an_error(bounds):
    for make in (lambda: Parameter("a", (2,), bounds=bounds), Parameter("a", (2,)).set_bounds):
        with pytest.raises(
            ValueError, match=r"bounds of the parameter 'a' are .*the lower one was"
        ):
            make(bounds) if make.__name__ == "set_bounds" else make()


def test_a_mean_may_lie_outside_the_bounds():
    parameter = Parameter("a", prior=Normal(5, 1), bounds=(0, 1))
    assert parameter.values == 5
    parameter.set_bounds((-1, 0))
    assert parameter.values == 5
    parameter.update(0)
    parameter.mean()
    assert parameter.values == 5
    parameter.sample(random_state=0)
    assert -1 <= parameter.values <= 0


def test_bounds_outside_the_support_are_an_error_not_a_loop():
    parameter = Parameter("a", prior=HalfNormal(), bounds=(-2, -1))
    with pytest.raises(ValueError, match=r"^bounds are .* HalfNormal.*Widen the bounds"):
        parameter.sample()
    with pytest.raises(ValueError, match=r"^bounds are .* HalfNormal.*Widen the bounds"):
        Parameter("a", prior=HalfNormal(), bounds=(-2, -1), initial_value="sample")


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, -np.inf])
def test_bounds_hold_for_what_is_set(value):
    parameter = Parameter("gain", (2,), bounds=(0, 1))
    message = r"'gain' are between .*, but must be within \(0, 1\)\. Set other bounds"
    with pytest.raises(ValueError, match=message):
        parameter.update([0.5, value])
    assert parameter.values.tolist() == [0, 0]
    parameter.update([0.5, value], ignore_bounds=True)
    np.testing.assert_array_equal(parameter.values, [0.5, value])
    parameter.update([0, 1])  # the bounds themselves are allowed
    assert parameter.values.tolist() == [0, 1]


def test_bounds_may_differ_between_entries():
    parameter = Parameter("a", (2,), bounds=([0, 10], [1, 11]))
    parameter.update([0.5, 10.5])
    with pytest.raises(ValueError, match=r"within \(\[0.0, 10.0\], \[1.0, 11.0\]\)"):
        parameter.update([10.5, 0.5])


@pytest.mark.parametrize("wrong", [0, [1], [1, 2, 3], [[1, 2]]])
def test_what_is_set_has_the_shape(wrong):
    with pytest.raises(ValueError, match=r"parameter 'a' have the shape .*but \(2,\) was"):
        Parameter("a", (2,)).update(wrong)


# ------------------------------------------------------------------------------- freezing


def test_frozen_values_stay_in_draws_and_means():
    parameter = Parameter("a", (2,))
    parameter.update([3, 4])
    parameter.freeze()
    parameter.sample()
    parameter.mean()
    assert parameter.values.tolist() == [3, 4]
    parameter.update([5, 6])  # said so in words
    assert parameter.values.tolist() == [5, 6]
    parameter.unfreeze()
    parameter.mean()
    assert parameter.values.tolist() == [0, 0]
    parameter.sample(random_state=0)
    assert (parameter.values != 0).all()


def test_permanent_values_stay_for_good():
    parameter = Parameter("a", (2,), bounds=(0, 1))
    parameter.make_permanent(7)  # bounds are those of fits
    assert parameter.is_frozen
    assert parameter.is_permanent
    parameter.unfreeze()
    assert parameter.is_frozen
    parameter.sample()
    parameter.mean()
    parameter.set_prior(Exponential(3))
    for change in (parameter.update, parameter.make_permanent):
        with pytest.raises(ValueError, match=r"'a' is permanent, .*Make a new layer"):
            change([1, 1])
    with pytest.raises(ValueError, match="permanent"):
        parameter.update([1, 1], ignore_bounds=True)
    assert parameter.values.tolist() == [7, 7]
    parameter.make_permanent()
    assert parameter.values.tolist() == [7, 7]


def test_a_new_prior_sets_the_values_to_its_mean():
    parameter = Parameter("a", (2,))
    parameter.set_prior(Uniform(0, [2, 4]))
    assert parameter.values.tolist() == [1, 2]
    parameter.set_prior(Exponential(3))
    assert parameter.values.tolist() == [3, 3]
    with pytest.raises(ValueError, match=r"The prior .* has the shape \(3,\)"):
        parameter.set_prior(Normal([1, 2, 3]))


# ----------------------------------------------------------------------------- as objects


def test_one_seed_one_draw():
    drawn = []
    for random_state in (0, np.random.default_rng(0), 1, None, None):
        parameter = Parameter("a")
        parameter.sample(random_state)
        assert isinstance(parameter.values, np.ndarray)
        drawn.append(float(parameter.values))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4


def test_nothing_of_the_callers_is_changed():
    values, low = np.ones(2), np.zeros(2)
    for array in (values, low):
        array.flags.writeable = False
    parameter = Parameter("a", (2,), Normal(values), bounds=(low, np.inf), initial_value=values)
    parameter.update(values)
    parameter.values[0] = 5
    parameter.bounds[0][0] = 5
    assert values.tolist() == [1, 1]
    assert low.tolist() == [0, 0]
    given = np.ones(2)
    parameter.update(given * 6)
    parameter.update(given, ignore_bounds=True)
    given += 1
    assert parameter.values.tolist() == [1, 1]


def test_it_goes_into_arrays_as_a_copy():
    parameter = Parameter("a", (2,), initial_value=[0, 1])
    np.testing.assert_allclose(np.exp(parameter), [1, np.e])
    assert np.asarray(parameter, dtype=np.float32).dtype == np.float32
    np.asarray(parameter)[0] = 9
    assert parameter.values.tolist() == [0, 1]


def test_equal_are_those_of_one_name_prior_bounds_and_values():
    def changed(change):
        parameter = Parameter("a", (2,))
        change(parameter)
        return parameter

    assert Parameter("a", (2,)) == Parameter("a", (2,))
    different = [
        Parameter("b", (2,)),
        Parameter("a", (3,)),
        Parameter("a", (2,), Normal(0, 2)),
        Parameter("a", (2,), bounds=(0, np.inf)),
        Parameter("a", (2,), bounds=(-np.inf, 0)),
        Parameter("a", (2,), initial_value=1),
        changed(Parameter.freeze),
        changed(Parameter.make_permanent),
        np.zeros(2),
    ]
    for one in different:
        assert not Parameter("a", (2,)) == one  # noqa: SIM201


def test_it_prints_as_in_the_notebook():
    parameter = Parameter("a", prior=HalfNormal(sd=1))
    assert repr(parameter) == "Parameter(name=a, shape=())"
    assert str(parameter) == (
        "Parameter(name=a, shape=())\n"
        "----------------\n"
        ".prior: HalfNormal(σ=1)\n"
        ".bounds: (-inf, inf)\n"
        ".is_frozen: False\n"
        ".values:\n"
        "0.7978845608028654\n"
        "----------------\n"
        "Index: 0\n"
        "----------------"
    )
    wide = Parameter("b", (2,), bounds=([0, 1], 2))
    wide.freeze()
    assert ".bounds: ([0.0, 1.0], 2)\n.is_frozen: True\n.values:\n[0. 0.]" in str(wide)
    assert ".bounds: (0, 1)" in str(Parameter("c", (2,), bounds=(0, 1)))


# ------------------------------------------------------------------------------------ phi


@st.composite
def phis(draw):
    """Up to four parameters, some frozen, with values and bounds drawn at random."""
    parameters = []
    for name in "abcd"[: draw(st.integers(0, 4))]:
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))
        numbers = hnp.arrays(float, shape, elements=st.floats(-10, 10))
        values, below, above = draw(numbers), draw(numbers), draw(numbers)
        bounds = values - abs(below), values + abs(above)
        parameters.append(Parameter(name, shape, bounds=bounds, initial_value=values))
        if draw(st.booleans()):
            parameters[-1].freeze()
    return Phi(*parameters)


@settings(deadline=None)
@given(phi=phis(), seed=st.integers(0, 100))
def test_vectors_go_around(phi, seed):
    before, (low, high) = phi.copy(), phi.get_bounds()
    vector = phi.get_vector()
    free = [one for one in phi.values() if not one.is_frozen]
    assert vector.shape == low.shape == high.shape == (sum(one.values.size for one in free),)
    assert vector.tolist() == [float(x) for one in free for x in one.values.flat]
    phi.set_vector(vector)
    assert phi == before

    moved = np.random.default_rng(seed).uniform(low, high)
    phi.set_vector(moved)
    np.testing.assert_array_equal(phi.get_vector(), moved)
    for name, parameter in phi.items():
        assert parameter.values.shape == parameter.shape
        if parameter.is_frozen:
            assert parameter == before[name]
    expected = moved.copy()
    moved += 1  # neither way is it a view
    phi.get_vector()[:] = 0
    np.testing.assert_array_equal(phi.get_vector(), expected)


@settings(deadline=None)
@given(phi=phis())
def test_a_vector_of_another_length_is_an_error(phi):
    n_free = len(phi.get_vector())
    for wrong in (np.zeros(n_free + 1), np.zeros((n_free, 1)), 0.0):
        with pytest.raises(ValueError, match=rf"but \({n_free},\) was expected, the number of"):
            phi.set_vector(wrong)


def test_bounds_hold_for_vectors_unless_they_are_ignored():
    phi = Phi(Parameter("a", (2,), bounds=(0, 1)), Parameter("b"))
    low, high = phi.get_bounds()
    assert low.tolist() == [0, 0, -np.inf]
    assert high.tolist() == [1, 1, np.inf]
    with pytest.raises(ValueError, match=r"'a' are .*must be within"):
        phi.set_vector([0, 2, 3])
    phi.set_vector([0, 2, 3], ignore_bounds=True)
    assert phi.get_vector().tolist() == [0, 2, 3]


def test_it_is_a_mapping_in_the_order_given():
    phi = Phi(Parameter("b"), Parameter("a", (2,)))
    assert list(phi) == ["b", "a"]
    assert len(phi) == 2
    assert phi["a"].shape == (2,)
    assert "c" not in phi
    with pytest.raises(KeyError, match=r"'c'; the parameters are \['b', 'a'\]"):
        phi["c"]
    with pytest.raises(ValueError, match=r"\['a', 'b', 'a'\], but each must have its own"):
        Phi(Parameter("a"), Parameter("b"), Parameter("a"))


@pytest.mark.parametrize(
    "made_again", [Phi.copy, copy.deepcopy, lambda phi: pickle.loads(pickle.dumps(phi))]
)
def test_copies_are_equal_and_share_nothing(made_again):
    phi = Phi(Parameter("a", (2,), bounds=(0, 1)), Parameter("b"))
    phi["b"].make_permanent(3)
    again = made_again(phi)
    assert again == phi
    assert again["b"].is_permanent
    again["a"].values[0] = 0.5
    again["a"].bounds[0][0] = 0.25
    assert phi["a"].values.tolist() == phi["a"].bounds[0].tolist() == [0, 0]
    assert again != phi


def test_equal_are_those_of_equal_parameters_in_one_order():
    assert Phi() == Phi()
    assert Phi(Parameter("a"), Parameter("b")) != Phi(Parameter("b"), Parameter("a"))
    assert Phi(Parameter("a")) != Phi(Parameter("a"), Parameter("b"))
    assert Phi(Parameter("a")) != {"a": Parameter("a")}


def test_phi_prints_its_parameters():
    phi = Phi(Parameter("a"), Parameter("b", (2,)))
    assert repr(phi) == (
        "Parameter(name=a, shape=())\n----------------\nParameter(name=b, shape=(2,))"
    )
    assert str(phi) == f"{phi['a']}\n\n{phi['b']}\n"
    assert repr(Phi()) == str(Phi()) == ""
