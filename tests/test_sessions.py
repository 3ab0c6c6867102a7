import pickle
import re
from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from skdyn import DyNeMoEstimator, ModeMatcher, NEMSRegressor, match_modes
from skdyn.metrics import alpha_correlation
from skdyn.model_selection import BlockKFold, SessionKFold, compare_models
from skdyn.nems import Model, from_keywords
from skdyn.plotting import plot_alpha
from skdyn.preprocessing import AmplitudeEnvelope, BadSegments, SessionScaler, TimeDelayPCA
from skdyn.sessions import (
    SessionList,
    Sessions,
    check_columns,
    check_sessions,
    check_targets,
    check_weights,
)


class Recorder(BaseEstimator):
    """An estimator with checked widths and names."""


def check(X, sessions=None, estimator=None, *, reset=True, **settings):
    return check_sessions(estimator or Recorder(), X, sessions, reset=reset, **settings)


def values(n=12, width=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, width))


# Containers.


def test_one_recording_is_one_session():
    X = values()
    found = check(X)
    assert found.container == "array"
    assert found.n_samples == 12
    assert len(found.arrays) == 1
    np.testing.assert_array_equal(found.arrays[0], X)
    assert found.like_input([X]) is not None
    np.testing.assert_array_equal(found.like_input(found.arrays), X)


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_comes_back_as_a_list(kind):
    X = [values(5), values(7, seed=1), values(1, seed=2)]
    found = check(kind(X))
    assert found.container == "list"
    assert found.n_samples == 13
    back = found.like_input(found.arrays)
    assert isinstance(back, list)
    for one, other in zip(back, X, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_list_of_one_session_stays_a_list():
    back = check([values()]).like_input([np.zeros(12)])
    assert isinstance(back, list)
    assert len(back) == 1


def test_a_stack_comes_back_as_a_stack():
    X = values(12).reshape(3, 4, 3)
    found = check(X)
    assert found.container == "stack"
    assert found.n_samples == 12
    np.testing.assert_array_equal(found.like_input(found.arrays), X)
    assert found.like_input([np.zeros(4)] * 3).shape == (3, 4)


def test_labels_come_back_as_one_array():
    X = values()
    found = check(X, [0] * 5 + [1] * 7)
    assert found.container == "array"
    assert [len(one) for one in found.arrays] == [5, 7]
    np.testing.assert_array_equal(found.like_input(found.arrays), X)


def test_nested_lists_of_numbers():
    assert check(values().tolist()).container == "array"
    assert check([values(4).tolist(), values(5).tolist()]).container == "list"


# Labels.

LABELS = {
    "int": [3, 3, 1, 1, 1, 2],
    "str": ["b", "b", "a", "a", "a", "c"],
    "float": np.array([0.5, 0.5, 0.25, 0.25, 0.25, 7.0]),
    "bool": [True, True, False, False, False, True],
    "object": np.array(["b", "b", "a", "a", "a", "long name"], dtype=object),
    "series of int": pd.Series([3, 3, 1, 1, 1, 2], index=[9, 9, 9, 8, 8, 8]),
    "series of str": pd.Series(["b", "b", "a", "a", "a", "c"]),
    "categorical": pd.Series(["b", "b", "a", "a", "a", "c"], dtype="category"),
    "column of ints": np.array([3, 3, 1, 1, 1, 2], dtype=np.int8),
}


@pytest.mark.parametrize("kind", LABELS)
def test_a_run_of_one_label_is_a_session(kind):
    X = values(6)
    found = check(X, LABELS[kind])
    expected = [X[:2], X[2:5], X[5:]]
    assert len(found.arrays) == 3
    for one, other in zip(found.arrays, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_label_that_comes_again_begins_a_new_session():
    found = check(values(6), ["a", "a", "b", "a", "a", "a"])
    assert [len(one) for one in found.arrays] == [2, 1, 3]


def test_one_label_is_one_session_and_the_sessions_are_views():
    X = values(6)
    assert len(check(X, ["a"] * 6).arrays) == 1
    assert all(np.shares_memory(one, X) for one in check(X, [0, 0, 1, 1, 2, 2]).arrays)


@pytest.mark.parametrize("n", [0, 5, 7])
def test_labels_of_another_length(n):
    with pytest.raises(ValueError, match=r"labels|minimum of 1") as caught:
        check(values(6), [0] * n)
    if n:
        assert f"{n} labels" in str(caught.value)
        assert "6 rows" in str(caught.value)
        assert "one label per row" in str(caught.value)


@pytest.mark.parametrize(
    "labels", [np.zeros((6, 2)), np.zeros((6, 1, 1)), 3, [0, 0, 1, 1, np.nan, 2]]
)
def test_labels_that_make_no_sense(labels):
    with pytest.raises((ValueError, TypeError)):
        check(values(6), labels)


@pytest.mark.parametrize("X", [[values(3), values(3)], values(6).reshape(2, 3, 3)])
def test_labels_contradict_sessions_that_are_there_already(X):
    name = "a list" if isinstance(X, list) else "a 3-D array"
    with pytest.raises(ValueError, match=rf"X is {name} of sessions, but sessions= was given"):
        check(X, [0, 0, 0, 1, 1, 1])


# Values.


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_session_of_a_bad_value_is_named(bad):
    X = [values(4, seed=s) for s in range(5)]
    X[3][2, 1] = bad
    with pytest.raises(ValueError, match=r"^Session 3 of 5: Input X contains"):
        check(X)
    with pytest.raises(ValueError, match=r"^Session 3 of 5: Input X contains"):
        check(np.stack(X))


def test_a_bad_value_in_one_recording():
    X = values()
    X[2, 1] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        check(X, [0] * 6 + [1] * 6)


def test_widths_that_differ_between_sessions():
    with pytest.raises(ValueError, match=r"^Session 2 of 3: X has 4 features.*expecting 3"):
        check([values(4), values(4), values(4, width=4)])


def test_width_is_set_by_fitting_and_compared_afterwards():
    estimator = Recorder()
    check([values(4), values(5)], estimator=estimator)
    assert estimator.n_features_in_ == 3
    check(values(), estimator=estimator, reset=False)
    for X in (values(width=2), [values(width=2)], values(8, 2).reshape(2, 4, 2)):
        with pytest.raises(ValueError, match="X has 2 features"):
            check(X, estimator=estimator, reset=False)
    check(values(width=2), estimator=estimator)
    assert estimator.n_features_in_ == 2


def test_names_of_channels_are_kept_and_compared():
    estimator = Recorder()
    frame = pd.DataFrame(values(), columns=["C3", "Cz", "C4"])
    found = check([frame, frame[:4]], estimator=estimator)
    assert found.container == "list"
    assert estimator.feature_names_in_.tolist() == ["C3", "Cz", "C4"]
    with pytest.raises(ValueError, match=r"Session 1 of 2: The feature names should match"):
        check([frame, frame[["Cz", "C3", "C4"]]], estimator=estimator)
    found = check(frame, pd.Series(list("aaaaaabbbbbb")), estimator=estimator)
    np.testing.assert_array_equal(found.arrays[1], frame.to_numpy()[6:])


def in_xarray(array):
    xarray = pytest.importorskip("xarray")
    times = {"time": np.arange(array.shape[-2]) / 100, "channel": ["C3", "Cz", "C4"]}
    dims = ("session", "time", "channel")[-array.ndim :]
    return xarray.DataArray(array, coords=times, dims=dims)


@pytest.mark.parametrize("n_sessions", [1, 2, 3])
def test_arrays_with_names_of_axes_count_by_their_values(n_sessions):
    stack = values(12).reshape(3, 4, 3)
    given = in_xarray(stack)
    forms = {1: given[0], 2: [given[0], given[1]], 3: given}
    X = forms[n_sessions]
    found = check(X)
    assert found.container == {1: "array", 2: "list", 3: "stack"}[n_sessions]
    targets = check_targets(Recorder(), found, X)
    weights = check_weights(found, targets, [one**2 for one in X] if n_sessions == 2 else X**2)
    for arrays, wanted in ((found.arrays, stack), (targets, stack), (weights, stack**2)):
        assert all(type(array) is np.ndarray for array in arrays)
        np.testing.assert_array_equal(arrays, wanted[:n_sessions])


def test_labels_with_names_of_axes():
    labels = in_xarray(values(4))["channel"][[0, 0, 1, 2]]
    assert [len(array) for array in check(values(4), labels).arrays] == [2, 1, 1]


REJECTED = {
    "text": np.array([["a", "b"], ["c", "d"]]),
    "numbers as text": np.array([["1", "2"], ["3", "4"]]),
    "objects": np.array([[object(), 1], [2, 3]], dtype=object),
    "words as objects": np.array([["a", 1], [2, 3]], dtype=object),
    "complex": np.ones((3, 2)) * 1j,
    "one dimension": np.ones(5),
    "no dimension": np.array(1.0),
    "four dimensions": np.ones((2, 2, 2, 2)),
    "no rows": np.ones((0, 3)),
    "no channels": np.ones((3, 0)),
    "no sessions": [],
    "no sessions in a stack": np.ones((0, 4, 3)),
    "None": None,
    "one and two dimensions": [np.ones((3, 2)), np.ones(3)],
    "two and three dimensions": [np.ones((3, 2)), np.ones((3, 2, 2))],
    "an empty session": [np.ones((3, 2)), np.ones((0, 2))],
}


@pytest.mark.parametrize("kind", REJECTED)
def test_what_is_no_recording_is_rejected(kind):
    with pytest.raises((ValueError, TypeError)):
        check(REJECTED[kind])


def test_objects_that_are_numbers_become_numbers():
    X = values().astype(object)
    found = check(X).arrays[0]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, values())


def test_too_few_rows_are_counted_over_all_sessions():
    assert check([values(1), values(2)], min_samples=3).n_samples == 3
    for X in ([values(1), values(1)], values(2), values(2)[:, None, :]):
        with pytest.raises(ValueError, match="minimum of 3 is required"):
            check(X, min_samples=3)


# Memory.


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "float16", ">f4"])
def test_number_types_are_kept_and_nothing_is_copied(dtype):
    X = (10 * values()).astype(dtype)
    X.flags.writeable = False
    for given, labels in ((X, None), (X, [0] * 6 + [1] * 6), ([X[:5], X[5:]], None)):
        for one in check(given, labels).arrays:
            assert one.dtype == np.dtype(dtype)
            assert np.shares_memory(one, X)
            assert not one.flags.writeable


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_memory_map_stays_one(tmp_path, dtype):
    np.save(tmp_path / "x.npy", (100 * values()).astype(dtype))
    X = np.load(tmp_path / "x.npy", mmap_mode="r")
    for given, labels in (
        (X, None),
        (X, np.repeat([0, 1], 6)),
        ([X, X], None),
        (X.reshape(2, 6, 3), None),
    ):
        for one in check(given, labels).arrays:
            assert np.shares_memory(one, X)
            assert one.dtype == np.dtype(dtype)


def test_fortran_order_and_strides_are_not_copied():
    for X in (np.asfortranarray(values()), values(24)[::2], values(width=6)[:, ::2]):
        assert np.shares_memory(check(X).arrays[0], X)


def test_sessions_hold_what_they_are_given():
    arrays = [values(2), values(3)]
    assert Sessions(arrays, "list").arrays is arrays


# Responses and weights, which come in the form of X.


def in_form(form, array):
    """Twelve rows of three sessions as one array, a list or a stack."""
    parts = np.split(array, 3)
    return {"array": array, "list": parts, "stack": np.stack(parts)}[form]


def recording(form):
    return check(in_form(form, values()), np.repeat([1, 0, 1], 4) if form == "array" else None)


FORMS = ["array", "list", "stack"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(12,), (12, 1), (12, 2)])
@pytest.mark.parametrize("dtype", [float, np.float32, int, object])
def test_responses_are_split_as_the_recording(form, shape, dtype):
    response = (100 * values(*shape, *[1] * (2 - len(shape)))).reshape(shape).astype(dtype)
    targets = check_targets(Recorder(), recording(form), in_form(form, response))
    assert [target.shape for target in targets] == [(4, *shape[1:])] * 3
    assert all(target.dtype == float for target in targets)
    np.testing.assert_array_equal(np.concatenate(targets), response.astype(float))


@pytest.mark.parametrize("form", FORMS)
def test_responses_may_be_missing(form):
    response = values()
    response[5, 1], response[6, 0] = np.nan, np.inf
    targets = check_targets(Recorder(), recording(form), in_form(form, response))
    np.testing.assert_array_equal(np.concatenate(targets), response)


def test_responses_of_data_frames():
    frame = pd.DataFrame(values(), index=range(20, 8, -1))
    for response in (frame, frame[0]):
        targets = check_targets(Recorder(), recording("array"), response)
        np.testing.assert_array_equal(np.concatenate(targets), response.to_numpy())
        parts = [response.iloc[rows] for rows in (slice(4), slice(4, 8), slice(8, 12))]
        targets = check_targets(Recorder(), recording("list"), parts)
        np.testing.assert_array_equal(np.concatenate(targets), response.to_numpy())


def test_responses_are_not_copied_where_they_need_not_be():
    response = values()
    response.flags.writeable = False
    for target in check_targets(Recorder(), recording("array"), response):
        assert np.shares_memory(target, response)


BAD_RESPONSES = {
    "none": ("array", None, "Recorder requires y to be passed"),
    "rows": ("array", np.ones(11), r"12 rows, but y has the shape \(11,\)"),
    "axes": ("array", np.ones((12, 2, 2)), "dim 3"),
    "axes of a stack": ("stack", np.ones((3, 4, 2, 2)), "dim 3"),
    "text": ("array", np.array(["a"] * 12), "could not convert"),
    "fewer sessions": ("list", [np.ones(4)] * 2, r"y has sessions of \[4, 4\] rows"),
    "rows of a session": ("list", [np.ones(4), np.ones(3), np.ones(4)], r"\[4, 3, 4\] rows"),
    "rows of a stack": ("stack", np.ones((3, 5)), r"\[5, 5, 5\] rows, .*\[4, 4, 4\]"),
    "widths": ("list", [np.ones(4), np.ones((4, 1)), np.ones(4)], "same number of outputs"),
    "no sessions of a list": ("list", np.ones(12), "y"),
    "no sessions of a stack": ("stack", np.ones(12), "y"),
}


@pytest.mark.parametrize("kind", BAD_RESPONSES)
def test_responses_that_do_not_go_with_the_recording(kind):
    form, response, message = BAD_RESPONSES[kind]
    with pytest.raises(ValueError, match=message):
        check_targets(Recorder(), recording(form), response)


def weights_of(form, weight, n_outputs=2):
    stimulus = recording(form)
    targets = check_targets(Recorder(), stimulus, in_form(form, values(12, n_outputs)))
    return check_weights(stimulus, targets, weight)


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_split_as_the_recording(form):
    for width in (None, 2):
        weight = np.abs(values(12, width or 1)) > 0.5
        given = in_form(form, weight if width else weight[:, 0])
        found = weights_of(form, given)
        assert [one.shape for one in found] == [(4, width or 1)] * 3
        np.testing.assert_array_equal(np.concatenate(found), weight.astype(float))
    np.testing.assert_array_equal(weights_of(form, None), np.ones((3, 4, 1)))


BAD_WEIGHTS = {
    "rows": ("array", np.ones(11), r"12 rows, but sample_weight has the shape \(11,\)"),
    "outputs": ("array", np.ones((12, 3)), r"3\), but y has shape \(\d+, 2\)"),
    "rows of a session": ("list", [np.ones(4), np.ones(4), np.ones(5)], r"sample_weight .*5\]"),
    "negative": ("stack", -np.ones((3, 4)), "below zero"),
    "nan": ("array", np.full(12, np.nan), "not finite"),
    "infinite": ("array", np.full(12, np.inf), "not finite"),
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_weights_that_make_no_sense(kind):
    form, weight, message = BAD_WEIGHTS[kind]
    with pytest.raises(ValueError, match=message):
        weights_of(form, weight)


# Outputs of transformers


def test_columns_come_back_in_the_form_of_sessions():
    X = values()
    assert [len(one) for one in check_columns(X, [0] * 5 + [1] * 7, n_columns=3).arrays] == [5, 7]
    found = check_columns([X[:5], X[5:].astype(np.float32)], n_columns=3)
    assert found.container == "list"
    assert [one.dtype for one in found.arrays] == [np.float64, np.float32]
    assert check_columns(X.reshape(3, 4, 3), n_columns=3).container == "stack"


@pytest.mark.parametrize(
    ("X", "sessions", "message"),
    [
        (values(), None, "X has 3 columns, but 4 were expected"),
        ([values(), values(width=4)], None, "X has 3 and 4 columns, but 4 were expected"),
        (np.full((5, 4), np.nan), None, "NaN"),
        (values(width=4), np.zeros(5), "5 labels, but X has 12 rows"),
        ([values(width=4)], np.zeros(12), "but sessions= was given as well"),
    ],
)
def test_bad_columns(X, sessions, message):
    with pytest.raises(ValueError, match=message):
        check_columns(X, sessions, n_columns=4)


class FakeRaw:
    """Imitation of a Raw object of MNE: its methods, and data of (channels, times)."""

    info: ClassVar[dict] = {"sfreq": 100.0}
    ch_names = ("Fz", "Cz", "Pz")

    def __init__(self, *shape):
        self.data = np.random.default_rng(0).standard_normal(shape)

    def get_data(self, picks=None):
        assert picks == "data"
        return self.data

    def __len__(self):
        return self.data.shape[-1]

    def __getitem__(self, item):
        raise AssertionError("no element of it is looked at")


class FakeEpochs(FakeRaw):
    events = ()


class FakeEvoked(FakeRaw):
    __len__ = None


@pytest.mark.parametrize(
    "X",
    [FakeRaw(3, 60), [FakeRaw(3, 60), FakeRaw(3, 50)], FakeEpochs(4, 3, 60), [FakeEpochs(4, 3, 9)]],
)
def test_objects_of_mne_are_answered_with_the_line_that_gives_their_rows(X):
    estimator = Recorder()
    with pytest.raises(TypeError, match="object of MNE, Fake") as caught:
        check_sessions(estimator, X, reset=True)
    line = re.search("Pass (.*), and", str(caught.value))[1]
    sessions = check_sessions(estimator, eval(line, {"X": X}), reset=True)
    assert {array.shape[1] for array in sessions.arrays} == {3}


class FakeSeries:
    """Time series of pynapple by its methods: rows with times, in epochs."""

    def __init__(self, *shape, epochs=((0, None),)):
        self.values = np.random.default_rng(0).standard_normal(shape)
        self.shape, self.ndim, self.time_support = shape, len(shape), epochs

    def restrict(self, epoch):
        part = FakeSeries(*self.shape)
        part.values = self.values[slice(*epoch)]
        return part

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype=dtype)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, item):
        return self.values[item]


class FakeTimes:
    """Times of events of a group of units: they have to be counted in bins."""

    time_support = ((0, 7), (7, 20))

    def restrict(self, epoch):
        raise AssertionError("counted, not restricted")

    def count(self, bin_size, ep=None):
        assert bin_size == 0.5
        return FakeSeries(ep[1] - ep[0], 3)


CUT = ((0, 7), (7, 20))


@pytest.mark.parametrize(
    ("X", "lengths"),
    [
        (FakeSeries(20, 3, epochs=CUT), [7, 13]),
        (FakeSeries(20, 3, 1, epochs=CUT), [7, 13]),
        (FakeSeries(20, 3, 1), [20]),
        ([FakeSeries(20, 3, epochs=CUT), FakeSeries(5, 3)], [7, 13, 5]),
        ([FakeSeries(20, 1, 3)], [20]),
        (FakeTimes(), [7, 13]),
    ],
)
def test_check_sessions_answers_pynapple_with_the_line_that_gives_sessions(X, lengths):
    with pytest.raises(TypeError, match="object of pynapple, Fake") as caught:
        check_sessions(Recorder(), X, reset=True)
    line = re.search(r"Pass (.*)\.$", str(caught.value))[1]
    sessions = check_sessions(Recorder(), eval(line, {"X": X, "bin_size": 0.5}), reset=True)
    assert [array.shape for array in sessions.arrays] == [(length, 3) for length in lengths]


def test_check_sessions_answers_pynapple_of_one_series():
    X = FakeSeries(20, epochs=CUT)
    with pytest.raises(TypeError, match=r"\[X\.restrict\(epoch\)\.values\.reshape\(-1, 1\) f"):
        check_sessions(Recorder(), X, reset=True)
    target = FakeSeries(12)
    (found,) = check_targets(Recorder(), check(values()), target)
    np.testing.assert_array_equal(found, target.values)
    for response in (FakeSeries(12, epochs=CUT), FakeRaw(3, 12)):
        with pytest.raises(TypeError, match="arrays whose rows are time were expected"):
            check_targets(Recorder(), check(values()), response)


def test_check_sessions_takes_one_epoch_of_pynapple():
    X = FakeSeries(20, 3)
    (array,) = check(X).arrays
    np.testing.assert_array_equal(array, X.values)
    assert check([X, FakeSeries(5, 3)]).container == "list"


TAKERS = {
    "DyNeMo": lambda X: DyNeMoEstimator(2).fit(X),
    "NEMS": lambda X: NEMSRegressor().fit(X, np.ones(20)),
    "NEMS model": lambda X: Model(from_keywords("fir.2x3")).predict(X),
    "envelope": lambda X: AmplitudeEnvelope().fit_transform(X),
    "scaling": lambda X: SessionScaler().fit_transform(X),
    "embedding": lambda X: TimeDelayPCA(3).fit(X),
    "bad segments": lambda X: BadSegments().fit(X),
    "matcher": lambda X: ModeMatcher().fit(X),
    "comparison": lambda X: compare_models([PCA()], X),
    "matching": lambda X: match_modes(X, X),
    "metric": lambda X: alpha_correlation(X, X),
    "plot": plot_alpha,
    "blocks": lambda X: next(BlockKFold(2).split(X)),
    "splitter": lambda X: next(SessionKFold(2).split(X)),
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(
    "X",
    [FakeRaw(3, 20), FakeEvoked(3, 20), FakeSeries(20, 3, epochs=CUT), [FakeRaw(3, 20)]],
    ids=["raw", "evoked", "series", "list"],
)
def test_objects_are_answered_wherever_a_recording_is_taken(taker, X):
    with pytest.raises(TypeError, match=r"arrays whose rows are time were expected\. Pass"):
        TAKERS[taker](X)


# Lists of results.


@pytest.mark.parametrize("n_folds", [2, 4])
def test_cross_val_predict_of_lists_is_answered_with_the_line_to_write(n_folds):
    rng = np.random.default_rng(0)
    X = [rng.standard_normal((length, 2)) for length in (20, 25, 30, 35)]
    y = [one @ [1, 0.5] + np.roll(one[:, 0], 1) for one in X]
    estimator = NEMSRegressor("fir.2")
    with pytest.raises(ValueError, match="Sessions of unequal length make no") as caught:
        cross_val_predict(estimator, X, y, cv=n_folds)
    labels, line = re.search(r"with labels = (.*), write (.*)\.$", str(caught.value)).groups()
    names = {"numpy": np, "X": X, "LeaveOneGroupOut": LeaveOneGroupOut, "estimator": estimator}
    names["labels"] = eval(labels, names)
    names["cross_val_predict"] = partial(cross_val_predict, y=np.concatenate(y))
    found = eval(line.replace("method='transform'", "method='predict'"), names)
    for number, session in enumerate(np.split(found, np.cumsum([20, 25, 30])[:3])):
        others = [n for n in range(4) if n != number]
        estimator.fit([X[n] for n in others], [y[n] for n in others])
        np.testing.assert_array_equal(session, estimator.predict(X[number]))


def test_session_list_is_a_list_for_numpy_where_lengths_are_equal():
    parts = [values(4), values(4, seed=1)]
    back = check(parts).like_input(parts)
    assert isinstance(back, SessionList)
    np.testing.assert_array_equal(np.asarray(back), np.stack(parts))
    np.testing.assert_array_equal(np.asarray(back, dtype=np.float32), np.float32(parts))
    np.testing.assert_array_equal(np.concatenate([back, back]), np.concatenate([parts, parts]))
    np.testing.assert_array_equal(np.concatenate(back, axis=1), np.concatenate(parts, axis=1))
    assert np.mean(back) == np.mean(parts)
    assert np.shape(back) == (2, 4, 3)
    again = pickle.loads(pickle.dumps(back))
    assert type(again) is SessionList
    assert repr(again) == repr(parts)


def test_session_list_of_unequal_lengths_concatenates_its_rows():
    parts = [values(4), values(7)]
    back = check(parts).like_input(parts)
    np.testing.assert_array_equal(np.concatenate(back), np.concatenate(parts))
    for function in (np.asarray, lambda given: np.concatenate([given, given])):
        with pytest.raises(ValueError, match=r"Use numpy\.concatenate\(result\)"):
            function(back)
