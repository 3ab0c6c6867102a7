# ruff: noqa: RUF001 - the symbols are Greek
import copy
import math
import pickle

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from skdyn.nems import Beta, Exponential, Gamma, HalfNormal, Normal, Uniform

# Each with its name in SciPy.
CASES = {
    "normal": (Normal(mean=-2.0, sd=3.0), stats.norm(-2.0, 3.0)),
    "half normal": (HalfNormal(sd=0.4), stats.halfnorm(scale=0.4)),
    "exponential": (Exponential(beta=2.5), stats.expon(scale=2.5)),
    "uniform": (Uniform(lower=-1.0, upper=4.0), stats.uniform(-1.0, 5.0)),
    "beta": (Beta(alpha=2.0, beta=5.0), stats.beta(2.0, 5.0)),
    "gamma": (Gamma(alpha=3.0, beta=0.5), stats.gamma(3.0, scale=2.0)),
}
MEANS = {
    "normal": -2.0,
    "half normal": 0.4 * math.sqrt(2 / math.pi),
    "exponential": 2.5,
    "uniform": 1.5,
    "beta": 2 / 7,
    "gamma": 6.0,
}
positive = st.floats(0.01, 100.0)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def fits(draws, cdf):
    """Whether a Kolmogorov-Smirnov test finds nothing against the distribution."""
    return stats.kstest(np.ravel(draws), cdf).pvalue > 1e-3


# --------------------------------------------------------------------------------- moments


@pytest.mark.parametrize("name", CASES)
def test_the_mean_is_the_closed_form(name):
    assert CASES[name][0].mean() == pytest.approx(MEANS[name], rel=1e-14)


def test_the_mean_of_a_half_normal_is_that_of_the_notebook():
    assert HalfNormal(sd=1).mean() == 0.7978845608028654


@pytest.mark.parametrize("share", [0.0001, 0.3, 0.5, 0.9999])
def test_a_percentile_leaves_its_share_below(case, share):
    ours, scipy = case
    found = ours.percentile(share)
    assert scipy.cdf(found) == pytest.approx(share, rel=1e-9)
    assert isinstance(found, np.ndarray)


@settings(deadline=None)
@given(mean=positive, sd=positive)
def test_a_gamma_distribution_has_the_moments_that_it_is_made_from(mean, sd):
    gamma = Gamma.from_moments(mean, sd)
    shape, rate = gamma.parameters["alpha"], gamma.parameters["beta"]
    assert gamma.mean() == pytest.approx(mean, rel=1e-9)
    assert math.sqrt(shape) / rate == pytest.approx(sd, rel=1e-9)


def test_moments_may_be_arrays():
    gamma = Gamma.from_moments([1, 2], sd=2)
    np.testing.assert_allclose(gamma.mean(), [1, 2])
    np.testing.assert_allclose(gamma.parameters["alpha"], [0.25, 1])
    np.testing.assert_allclose(gamma.parameters["beta"], [0.25, 0.5])


# ----------------------------------------------------------------------------------- draws


def test_draws_follow_the_distribution(case):
    ours, scipy = case
    draws = ours.sample(5000, random_state=1)
    assert draws.shape == (5000,)
    assert fits(draws, scipy.cdf)


@pytest.mark.parametrize("shares", [(0.0, 0.2), (0.4, 0.6), (0.45, 0.99), (0.9, 1.0)])
def test_draws_within_bounds_follow_what_is_left_of_the_distribution(case, shares):
    ours, scipy = case
    low, high = scipy.ppf(shares)
    draws = ours.sample(5000, bounds=(low, high), random_state=2)
    assert low <= draws.min()
    assert draws.max() <= high
    assert fits(draws, lambda x: (scipy.cdf(x) - shares[0]) / (shares[1] - shares[0]))


@pytest.mark.parametrize("bounds", [(8.0, 8.5), (-8.5, -8.0), (8.0, np.inf), (10.0, 11.0)])
def test_draws_far_out_in_a_tail(bounds):
    """Where one minus the share below is a number of few digits, or none."""
    draws = Normal().sample(5000, bounds=bounds, random_state=3)
    assert fits(draws, stats.truncnorm(*bounds).cdf)


def test_bounds_around_the_support_change_nothing(case):
    ours, scipy = case
    low, high = scipy.support()
    draws = ours.sample(50, bounds=(low - 1, high + 1), random_state=4)
    np.testing.assert_allclose(draws, ours.sample(50, random_state=4), rtol=1e-12)


@pytest.mark.parametrize(
    ("prior", "bounds"),
    [
        (HalfNormal(), (-2, -1)),
        (Uniform(0, 1), (2, 3)),
        (Beta(), (1, 2)),
        (Exponential(), (-1, 0)),
        (Normal(), (2, 1)),
        (Normal(), (1, 1)),
        (Normal(), (np.nan, 1)),
        (HalfNormal([1, 1]), ([0, -2], [1, -1])),
    ],
    ids=str,
)
def test_bounds_that_leave_nothing_are_an_error(prior, bounds):
    with pytest.raises(ValueError, match=r"^bounds are .* some of \w+\(.*Widen the bounds or cha"):
        prior.sample(bounds=bounds)


def test_each_entry_has_its_own_distribution_and_bounds():
    means, sds = np.array([[-5.0, 0.0, 50.0]]), np.array([[1.0], [4.0]])
    low = np.array([[-5.0, -np.inf, 50.0], [-6.0, 0.0, 40.0]])
    normal = Normal(means, sds)
    assert normal.shape == normal.mean().shape == (2, 3)
    draws = normal.sample(2000, bounds=(low, np.inf), random_state=5)
    assert draws.shape == (2000, 2, 3)
    for i, j in np.ndindex(2, 3):
        mean, sd = means[0, j], sds[i, 0]
        left = stats.truncnorm((low[i, j] - mean) / sd, np.inf, loc=mean, scale=sd)
        assert fits(draws[:, i, j], left.cdf)
    flat = draws.reshape(2000, 6)
    off_diagonal = np.corrcoef(flat.T) - np.eye(6)
    assert abs(off_diagonal).max() < 0.1  # about 4.5 standard errors


@settings(deadline=None)
@given(shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=3), size=st.integers(0, 4))
def test_shapes(shape, size):
    uniform = Uniform(np.zeros(shape), 2.0)
    assert uniform.shape == shape
    drawn = [uniform.sample(random_state=0, bounds=bounds) for bounds in (None, (1, 2))]
    for array in (uniform.mean(), uniform.percentile(0.5), *drawn):
        assert isinstance(array, np.ndarray)
        assert array.dtype == float
        assert array.shape == shape
    assert uniform.sample(size, random_state=0).shape == (size, *shape)


# -------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize("make", [int, np.random.default_rng, np.random.RandomState])
def test_one_seed_gives_the_same_draws(case, make):
    ours, _ = case
    first, second = (ours.sample(5, random_state=make(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, ours.sample(5, random_state=make(8)))


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_a_generator_moves_on(make):
    generator = make(0)
    first, second = (Normal().sample(random_state=generator) for _ in range(2))
    assert first != second


def test_no_seed_is_fresh_and_leaves_the_global_generator_alone(case):
    ours, _ = case
    drawn = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        drawn.append(ours.sample(3))
        drawn.append(ours.sample(3, bounds=(0.1, 0.9)))
        ours.mean(), ours.percentile(0.1), copy.deepcopy(ours)
        np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert not np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[1], drawn[3])


# ---------------------------------------------------------------------------- as objects


def test_it_prints_as_in_the_notebook():
    assert repr(Normal()) == "Normal(μ=0.0, σ=1.0)"
    assert repr(HalfNormal(sd=1)) == "HalfNormal(σ=1)"
    assert repr(Gamma(2, 3)) == "Gamma(α=2, β=3)"
    assert repr(Uniform(0, 2)) == "Uniform(lower=0, upper=2)"
    assert repr(Normal([0, 1], 1)) == "Normal(μ=array(shape=(2)), σ=array(shape=(2)))"
    assert repr(Exponential(np.ones((2, 3)))) == "Exponential(β=array(shape=(2, 3)))"


def test_equal_are_those_of_one_kind_with_the_same_numbers():
    assert Normal(0, 1) == Normal()
    assert Normal([0, 1], 1) == Normal([0, 1], [1, 1])
    different = [Normal(1), Normal(0, 2), Normal([0, 0]), Beta(), Gamma(), 0.0]
    assert all(Normal() != one for one in different)
    assert Beta(1, 1) != Gamma(1, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Normal(0, -1),
        lambda: Normal(0, 0),
        lambda: Normal(0, np.inf),
        lambda: Normal(np.nan, 1),
        lambda: Normal([0, 0], [1, -1]),
        lambda: HalfNormal(0),
        lambda: Exponential(-1),
        lambda: Uniform(1, 0),
        lambda: Uniform(1, 1),
        lambda: Uniform(0, np.inf),
        lambda: Beta(0, 1),
        lambda: Beta([1, 1], [1, -1]),
        lambda: Gamma(1, 0),
        lambda: Gamma(1, -1),
    ],
)
def test_parameters_that_make_no_distribution_are_an_error(make):
    with pytest.raises(ValueError, match=r"^\w+\(.*\) has parameters that scipy"):
        make()


@pytest.mark.parametrize(
    "moments", [(1, 0), (1, -1), (-1, 1), (0, 1), (np.nan, 1), ([1, 1], [1, 0])]
)
def test_moments_that_no_gamma_distribution_has_are_an_error(moments):
    with pytest.raises(ValueError, match=r"^mean and sd must be above 0, but are .* and "):
        Gamma.from_moments(*moments)


def test_parameters_are_copied():
    mean = np.zeros(2)
    normal = Normal(mean, 1)
    mean += 5
    np.testing.assert_array_equal(normal.mean(), [0, 0])
    moved = normal.mean()
    moved += 5
    np.testing.assert_array_equal(normal.mean(), [0, 0])
    frozen = np.ones(2)
    frozen.flags.writeable = False
    np.testing.assert_array_equal(Exponential(frozen).mean(), [1, 1])


def test_expand_repeats_it():
    expanded = Normal([1.0, 2.0], 0.1).expand((3, 2))
    np.testing.assert_array_equal(expanded.mean(), [[1, 2]] * 3)
    assert len(np.unique(expanded.sample(random_state=0))) == 6


@pytest.mark.parametrize(
    "made_again",
    [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy, copy.copy],
    ids=["pickle", "deepcopy", "copy"],
)
def test_a_copy_is_equal_and_draws_the_same(case, made_again):
    ours, _ = case
    again = made_again(ours)
    assert again == ours
    np.testing.assert_array_equal(
        again.sample(4, bounds=(0.1, 0.9), random_state=0),
        ours.sample(4, bounds=(0.1, 0.9), random_state=0),
    )


def test_what_is_stored_does_not_depend_on_the_global_generator(case):
    """Or a cache that goes by content would compute the same thing anew."""
    ours, _ = case
    stored = set()
    for seed in range(3):
        np.random.seed(seed)  # noqa: NPY002
        stored.add((pickle.dumps(ours), joblib.hash(ours)))
    assert len(stored) == 1
