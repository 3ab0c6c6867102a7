"""Trials of the data of a fit, and held-out trials."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdyn.nems import Model, from_keywords
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.trials import N_STRETCHES, Trial, check_weighted, hold_out, make_trials
from skdyn.nems.losses import SquaredError

RNG = np.random.default_rng(0)


def made(stimulus, target, weight=None, state=None, trials=False):
    return make_trials(Model(), (stimulus, state), target, weight, trials)


# Trials


@pytest.mark.parametrize("width", [(), (1,), (3,)])
def test_one_recording_is_one_trial(width):
    stimulus, target = RNG.standard_normal((20, 2)), RNG.standard_normal((20, *width))
    state = RNG.standard_normal((20, 1))
    (trial,) = made(stimulus, target, state=state)
    assert set(trial.data) == {"input", "state"}
    np.testing.assert_array_equal(trial.data["input"], stimulus)
    np.testing.assert_array_equal(trial.data["state"], state)
    np.testing.assert_array_equal(trial.target, target.reshape(20, -1))
    np.testing.assert_array_equal(trial.weight, np.ones((20, 1)))
    assert trial.held_out is None


def test_trials_come_one_by_one_and_what_is_there_once_is_repeated():
    stimulus, target = RNG.standard_normal((1, 20, 2)), RNG.standard_normal((4, 20, 3))
    state, weight = RNG.standard_normal((4, 20, 1)), RNG.uniform(0, 1, (4, 20))
    found = made({"sound": stimulus}, target, weight, state, trials=True)
    assert len(found) == 4
    for number, trial in enumerate(found):
        np.testing.assert_array_equal(trial.data["sound"], stimulus[0])
        np.testing.assert_array_equal(trial.data["state"], state[number])
        np.testing.assert_array_equal(trial.target, target[number])
        np.testing.assert_array_equal(trial.weight, weight[number, :, np.newaxis])


@pytest.mark.parametrize(
    ("target", "weight", "expected"),
    [
        ((20,), (20,), (20, 1)),
        ((20,), (20, 1), (20, 1)),
        ((20, 3), (20,), (20, 1)),
        ((20, 3), (20, 1), (20, 1)),
        ((20, 3), (20, 3), (20, 3)),
        ((20, 2, 2), (20, 2, 2), (20, 4)),
    ],
)
def test_weights_are_of_samples_or_of_numbers(target, weight, expected):
    weights = RNG.uniform(0, 1, weight)
    (trial,) = made(np.ones((20, 2)), np.ones(target), weights)
    np.testing.assert_array_equal(trial.weight, weights.reshape(expected))
    (again,) = made(np.ones((1, 20, 2)), np.ones((1, *target)), weights[None], trials=True)
    np.testing.assert_array_equal(again.weight, trial.weight)


def test_what_has_no_weight_may_be_missing():
    target, weight = RNG.standard_normal((20, 3)), np.ones((20, 3))
    target[4, 1], weight[4, 1] = np.nan, 0
    target[5, 2], weight[5, 2] = np.inf, 0
    before = target.copy()
    (trial,) = made(np.ones((20, 2)), target, weight)
    assert np.isfinite(trial.target).all()
    np.testing.assert_array_equal(trial.target[weight > 0], target[weight > 0])
    np.testing.assert_array_equal(target, before)
    # A weight per sample counts for all of its numbers.
    (trial,) = made(np.ones((20, 2)), target, 1.0 - np.isin(np.arange(20), [4, 5]))
    assert np.isfinite(trial.target).all()
    for there in ([4, 1], [5, 2]):
        spoiled = np.zeros((20, 3))
        spoiled[tuple(there)] = 1
        with pytest.raises(ValueError, match=r"NaN or infinite values.*sample_weight of 0"):
            made(np.ones((20, 2)), target, spoiled)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(19), r"shape \(19,\): expected .*\(20,\).*\(20, 3\)"),
        (np.ones((20, 2)), r"shape \(20, 2\)"),
        (np.ones((1, 20)), r"shape \(1, 20\)"),
        (-np.ones(20), "at least 0"),
        (np.full(20, np.nan), "finite weights"),
        (np.full(20, np.inf), "finite weights"),
    ],
)
def test_weights_that_cannot_be(weight, message):
    with pytest.raises(ValueError, match=message):
        made(np.ones((20, 2)), np.ones((20, 3)), weight)


def test_numbers_of_trials_and_samples_have_to_agree():
    with pytest.raises(ValueError, match="19 rows for 20 rows"):
        made(np.ones((20, 2)), np.ones(19))
    with pytest.raises(ValueError, match=r"3 trials.*\(2, 20\)"):
        made(np.ones((3, 20, 2)), np.ones((2, 20)), trials=True)


def test_something_has_to_have_weight():
    trials = made(np.ones((2, 20, 2)), np.ones((2, 20)), np.zeros((2, 20)), trials=True)
    with pytest.raises(ValueError, match="sample_weight are zero"):
        check_weighted(trials, Model(), "zeros")
    trials[1].weight[3] = 1e-9
    check_weighted(trials, Model(), "zeros")


# Held-out trials


def recording(lengths, n_weights=1, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Trial(
            {"input": rng.standard_normal((n, 2))},
            rng.standard_normal((n, 2)),
            rng.uniform(0.1, 2, (n, n_weights)),
        )
        for n in lengths
    ]


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4).filter(lambda n: sum(n) > 1),
    n_weights=st.integers(1, 2),
    share=st.floats(0.01, 0.6),
    seed=st.integers(0, 99),
)
def test_weights_go_to_one_side_or_the_other(lengths, n_weights, share, seed):
    trials = recording(lengths, n_weights)
    n_rows = sum(lengths)
    n_stretches = min(N_STRETCHES, n_rows)
    if n_stretches == max(1, round(share * n_stretches)):
        return
    parts = hold_out(trials, share, np.random.RandomState(seed))
    for trial, part in zip(trials, parts, strict=True):
        assert part.data is trial.data
        assert part.target is trial.target
        np.testing.assert_array_equal(part.weight * part.held_out, 0)
        np.testing.assert_array_equal(part.weight + part.held_out, trial.weight)
    out = np.concatenate([part.held_out.any(axis=1) for part in parts])
    # One stretch is as long as another, give or take a row.
    n_out = max(1, round(share * n_stretches))
    assert abs(out.sum() - n_out * n_rows / n_stretches) <= n_out
    edges = np.flatnonzero(np.diff(out.astype(int))) + 1
    starts = {-(-number * n_rows // n_stretches) for number in range(n_stretches)}
    assert starts.issuperset(edges)


def test_what_is_held_out_is_drawn_from_its_seed():
    trials = recording((200, 100))
    first, again, other = (
        [part.held_out for part in hold_out(trials, 0.2, np.random.RandomState(seed))]
        for seed in (0, 0, 1)
    )
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))
    assert [trial.held_out for trial in trials] == [None, None]


def test_each_side_is_counted_in_its_own_loss():
    """With the history that it has in the whole recording."""
    trials = recording((40, 30, 40), n_weights=2)
    parts = hold_out(trials, 0.3, np.random.RandomState(0))
    objective = Objective(Model(from_keywords("fir.9x2x2")), parts, SquaredError(), 5.0)
    vector = np.random.default_rng(1).standard_normal(36)
    for side, error in (("weight", objective.error), ("held_out", objective.held_out_error)):
        found, left, weight = error(vector), 0.0, 0.0
        for part in parts:
            prediction = objective.model.predict(part.data)
            left += np.sum(getattr(part, side) * (part.target - prediction) ** 2, axis=0)
            weight += getattr(part, side).sum(axis=0)
        # Outputs count by the weight that they have in the fit.
        share = sum(part.weight.sum(axis=0) for part in parts)
        assert found == pytest.approx((left / weight) @ share / share.sum(), rel=1e-12)


def test_nothing_may_be_left_on_either_side():
    with pytest.raises(ValueError, match="n_samples = 1; use at least 2 rows"):
        hold_out(recording((1,)), 0.5, np.random.RandomState(0))
    with pytest.raises(
        ValueError, match=r"validation_fraction=0\.99 of 300 rows leaves none with weight to fit"
    ):
        hold_out(recording((300,)), 0.99, np.random.RandomState(0))
    silent = recording((300,))
    for trial in silent:
        trial.weight[1:] = 0
    messages = set()
    for seed in range(40):
        with pytest.raises(ValueError, match="leaves none with weight to") as caught:
            hold_out(silent, 0.5, np.random.RandomState(seed))
        messages.add(str(caught.value).split("weight to ")[1].split(";")[0])
    assert messages == {"fit", "watch"}
