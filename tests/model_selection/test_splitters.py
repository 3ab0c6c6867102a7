"""Folds hold out whole sessions or blocks, and labels of blocks stop history at every seam."""

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    cross_val_predict,
    cross_validate,
    learning_curve,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdyn import NEMSRegressor
from skdyn.model_selection import BlockKFold, SessionKFold

X = np.random.default_rng(0).standard_normal((60, 2))
LABELS = np.repeat([3, 1, 2, 0, 7], [20, 5, 10, 13, 12])


def splits(cv, *args, **kwargs):
    return [(train.tolist(), test.tolist()) for train, test in cv.split(*args, **kwargs)]


def check_partition(cv, length, *args, **kwargs):
    """Test sets are all rows, once; training sets have none of their fold's, and are in order."""
    folds = list(cv.split(*args, **kwargs))
    assert len(folds) == cv.get_n_splits(*args, **kwargs) == cv.n_splits
    tested = np.concatenate([test for _, test in folds])
    np.testing.assert_array_equal(np.sort(tested), np.arange(length))
    for train, test in folds:
        assert not set(train) & set(test)
        assert np.all(np.diff(train) > 0)
        assert np.all(np.diff(test) > 0)
    return folds


# Sessions.


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_session_kfold_is_group_kfold(seed, shuffle):
    """In folds and in their order, also where sessions are equally long."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(9, size=200)
    labels = labels if seed % 2 else np.sort(labels)
    options = {"shuffle": shuffle, "random_state": seed if shuffle else None}
    theirs = splits(GroupKFold(4, **options), labels, groups=labels)
    Z = np.zeros((200, 1))
    assert splits(SessionKFold(4, **options), Z, sessions=labels) == theirs
    assert splits(SessionKFold(4, **options), Z, groups=labels) == theirs
    # A list has an entry per session, with the weight of its rows.
    sizes = rng.choice([10, 20, 30], size=9)
    labels = np.repeat(np.arange(9), sizes)
    theirs = splits(GroupKFold(4, **options), labels, groups=labels)
    ours = splits(
        SessionKFold(4, **options), np.split(np.zeros((sum(sizes), 1)), np.cumsum(sizes)[:-1])
    )
    assert [test for _, test in ours] == [np.unique(labels[test]).tolist() for _, test in theirs]


@pytest.mark.parametrize("shuffle", [False, True])
def test_session_kfold_holds_whole_sessions_out(shuffle):
    cv = SessionKFold(3, shuffle=shuffle, random_state=0 if shuffle else None)
    folds = check_partition(cv, 60, X, sessions=LABELS)
    for train, test in folds:
        assert not set(LABELS[train]) & set(LABELS[test])
    sizes = [len(test) for _, test in folds]
    if not shuffle:
        assert max(sizes) - min(sizes) <= 20, "more than the longest session apart"


def test_session_kfold_leaves_one_subject_out():
    subjects = np.repeat([1, 0, 2], [20, 15, 25])
    theirs = splits(LeaveOneGroupOut(), X, groups=subjects)
    ours = splits(SessionKFold(3), X, groups=subjects, sessions=LABELS)
    assert sorted(ours) == sorted(theirs)


def test_session_kfold_shuffles_by_its_seed():
    labels = np.arange(60)
    fixed = splits(SessionKFold(3), X, sessions=labels)
    drawn = [
        splits(SessionKFold(3, shuffle=True, random_state=seed), X, sessions=labels)
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert drawn[0] != fixed


def test_session_kfold_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    splits(SessionKFold(2, shuffle=True), X, sessions=LABELS)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_session_kfold_joins_runs_of_one_label():
    labels = np.array(list("aabbaaccbb"))
    for train, test in check_partition(SessionKFold(3), 10, X[:10], sessions=labels):
        assert not set(labels[train]) & set(labels[test])


def test_session_kfold_keeps_groups_together():
    subjects = np.repeat([0, 1, 2], [20, 15, 25])  # sessions 3 | 1, 2 | 0, 7
    for train, test in check_partition(SessionKFold(3), 60, X, groups=subjects, sessions=LABELS):
        assert not set(subjects[train]) & set(subjects[test])
    with pytest.raises(ValueError, match=r"session has rows of the groups.*correct the labels"):
        splits(SessionKFold(2), X, groups=np.repeat([0, 1], [10, 50]), sessions=LABELS)


@pytest.mark.parametrize("frame", [pd.Series, list, np.asarray])
def test_session_kfold_takes_any_labels(frame):
    words = np.array([f"session {label}" for label in LABELS])
    expected = splits(SessionKFold(3), X, sessions=LABELS)
    assert splits(SessionKFold(3), pd.DataFrame(X), sessions=frame(words)) == expected


def test_session_kfold_splits_lists_and_stacks():
    sessions = np.split(X, np.cumsum([20, 5, 10, 13]))
    for train, test in check_partition(SessionKFold(3), 5, sessions):
        rows = [np.flatnonzero(np.isin(LABELS, [3, 1, 2, 0, 7][k])) for k in test]
        expected = splits(SessionKFold(3), X, sessions=LABELS)
        assert np.concatenate(rows).tolist() in [test for _, test in expected]
        assert len(train) + len(test) == 5
    stack = X.reshape(6, 10, 2)
    assert sorted(test for _, test in splits(SessionKFold(3), stack)) == [[0, 3], [1, 4], [2, 5]]
    subjects = [0, 0, 1, 1, 2, 2]
    found = splits(SessionKFold(3), stack, groups=subjects)
    assert sorted(found) == [([0, 1, 2, 3], [4, 5]), ([0, 1, 4, 5], [2, 3]), ([2, 3, 4, 5], [0, 1])]


@pytest.mark.parametrize(
    ("cv", "arguments", "message"),
    [
        (SessionKFold(2), {"X": X}, "60 rows, but no label per row"),
        (SessionKFold(6), {"X": X, "sessions": LABELS}, "n_splits=6 .* there are 5"),
        (SessionKFold(2), {"X": X, "sessions": LABELS[1:]}, "inconsistent numbers"),
        (SessionKFold(2), {"X": [X, X], "sessions": [0, 1]}, "together with X as sessions"),
        (SessionKFold(3), {"X": [X, X]}, "use BlockKFold"),
        (BlockKFold(2), {"X": [X, X]}, "numpy.concatenate"),
        (BlockKFold(2), {"X": X.reshape(6, 10, 2)}, "3-D array"),
        (BlockKFold(5), {"X": X[:4]}, "4 rows for 5 blocks"),
        (BlockKFold(2, gap=30), {"X": X}, "lower the gap"),
        (BlockKFold(2), {"X": X, "sessions": LABELS[1:]}, "inconsistent numbers"),
    ],
)
def test_splitters_say_what_cannot_be_split(cv, arguments, message):
    with pytest.raises(ValueError, match=message):
        splits(cv, **arguments)


@pytest.mark.parametrize(
    ("maker", "parameters", "message"),
    [
        (SessionKFold, {"n_splits": 1}, "n_splits .* at least 2, but is 1"),
        (SessionKFold, {"n_splits": 2.0}, "but is 2.0"),
        (SessionKFold, {"shuffle": 1}, "shuffle .* but is 1"),
        (SessionKFold, {"random_state": 0}, "set shuffle=True"),
        (BlockKFold, {"n_splits": True}, "n_splits .* but is True"),
        (BlockKFold, {"n_blocks": 4}, "n_blocks .* at least 5, but is 4"),
        (BlockKFold, {"gap": -1}, "gap .* but is -1"),
    ],
)
def test_splitters_say_which_parameter_is_wrong(maker, parameters, message):
    with pytest.raises(ValueError, match=message):
        maker(**parameters)


def test_splitters_have_a_repr():
    assert repr(BlockKFold(3, gap=2)) == "BlockKFold(gap=2, n_blocks=None, n_splits=3)"
    assert repr(SessionKFold()) == "SessionKFold(n_splits=5, random_state=None, shuffle=False)"
    assert clone(BlockKFold(3, gap=2), safe=False).gap == 2


# Blocks.


def test_block_kfold_with_one_block_per_fold_is_kfold():
    assert splits(BlockKFold(7), X) == splits(KFold(7), X)


@pytest.mark.parametrize("n_blocks", [None, 6, 7, 11])
@pytest.mark.parametrize("sessions", [None, LABELS])
@pytest.mark.parametrize("gap", [0, 2])
def test_block_kfold_interleaves_blocks_within_sessions(n_blocks, sessions, gap):
    cv = BlockKFold(3, n_blocks=n_blocks, gap=gap)
    labels = cv.block_labels(X, sessions)
    numbers = np.cumsum(np.diff(labels, prepend=labels[0]) != 0)
    n_found = numbers[-1] + 1
    assert len(np.unique(labels)) == n_found, "a run per label"
    assert n_found == max(n_blocks or 3, 1 if sessions is None else 5)
    runs = np.zeros(60) if sessions is None else np.cumsum(np.diff(LABELS, prepend=3) != 0)
    np.testing.assert_array_equal(np.floor(labels), runs)
    sizes = np.bincount(numbers)
    if sessions is None:
        assert np.ptp(sizes) <= 1
    folds = check_partition(cv, 60, X, sessions=sessions)
    for fold, (train, test) in enumerate(folds):
        assert set(numbers[test]) == set(range(fold, n_found, 3))
        distance = np.abs(np.subtract.outer(np.arange(60), test))
        distance[runs[:, np.newaxis] != runs[test]] = 60  # time does not go on in other sessions
        np.testing.assert_array_equal(train, np.flatnonzero(distance.min(axis=1) > gap))


def test_block_kfold_ends_gaps_at_borders_of_sessions():
    sessions = np.repeat(np.arange(10), 100)
    Z = np.zeros((1000, 1))
    assert [len(train) for train, _ in BlockKFold(10, gap=80).split(Z, sessions=sessions)] == [
        900
    ] * 10
    cv = BlockKFold(2, n_blocks=20, gap=30)
    for train, test in cv.split(Z, sessions=sessions):
        assert (len(train), len(test)) == (10 * 20, 500)
    # The labels of these blocks are no sessions, and gaps cross their borders.
    assert splits(cv, Z, sessions=cv.block_labels(Z, sessions)) == splits(cv, Z, sessions=sessions)


@pytest.mark.parametrize("labels", [np.arange(4.0), list("abab"), [0, 0.5, 1, 1.5]], ids=str)
def test_block_kfold_tells_blocks_from_sessions_by_the_fraction(labels):
    """0 and 0.5 are blocks of one session, so that a gap extends across their border."""
    lost = 2 if isinstance(labels[1], float) and labels[1] == 0.5 else 0
    found = BlockKFold(4, gap=2).split(np.zeros((40, 1)), sessions=np.repeat(labels, 10))
    assert [40 - len(train) - len(test) for train, test in found] == [lost] * 4


@pytest.mark.parametrize("seed", range(10))
def test_block_kfold_splits_any_recording(seed):
    """Sessions down to one row, as many blocks as rows, gaps that reach far."""
    rng = np.random.default_rng(seed)
    n_rows, gap = int(rng.integers(2, 12)), int(rng.integers(4))
    sessions = np.sort(rng.integers(3, size=n_rows))
    n_blocks = n_rows if seed % 2 else int(rng.integers(2, n_rows + 1))
    cv = BlockKFold(2, n_blocks=n_blocks, gap=gap)
    labels = cv.block_labels(np.zeros((n_rows, 1)), sessions)
    blocks = np.unique(labels, return_inverse=True)[1]
    assert blocks[-1] + 1 == max(n_blocks, len(np.unique(sessions)))
    found = cv.split(np.zeros((n_rows, 1)), sessions=sessions)
    for fold in range(2):
        tested = np.flatnonzero(blocks % 2 == fold)
        far = [
            row
            for row in range(n_rows)
            if all(abs(row - one) > gap or sessions[row] != sessions[one] for one in tested)
        ]
        if not far:
            with pytest.raises(ValueError, match=f"gap={gap} leaves no row"):
                next(found)
            return
        train, test = next(found)
        assert train.tolist() == far
        assert test.tolist() == tested.tolist()


def test_block_kfold_keeps_gaps_in_nested_splits():
    """The rows of an outer training set, in an inner splitter that gets the outer labels."""
    Z = np.zeros((120, 1))
    outer = BlockKFold(4)
    train, _ = next(iter(outer.split(Z)))
    labels = outer.block_labels(Z)[train]
    for inner, test in BlockKFold(3, gap=5).split(Z[train], sessions=labels):
        gap = np.setdiff1d(np.arange(90), [*inner, *test])
        inside = sum(edge not in (0, 90) for edge in (test[0], test[-1] + 1))
        assert len(gap) == 5 * inside


@pytest.mark.parametrize("sessions", [None, LABELS])
@pytest.mark.parametrize("n_blocks", [None, 4, 9])
def test_block_kfold_keeps_blocks_given_as_sessions(sessions, n_blocks):
    cv = BlockKFold(3, n_blocks=n_blocks, gap=1)
    labels = cv.block_labels(X, sessions)
    np.testing.assert_array_equal(cv.block_labels(X, labels), labels)
    assert splits(cv, X, sessions=labels) == splits(cv, X, sessions=sessions)
    assert splits(cv, X, groups=labels) == splits(cv, X, sessions=sessions)


def test_block_kfold_cuts_the_longest_session_first():
    labels = BlockKFold(2, n_blocks=7).block_labels(X, LABELS)
    # 20, 5, 10, 13, 12 rows: 20 becomes 10 + 10, then 13 becomes 7 + 6.
    assert np.unique(labels, return_counts=True)[1].tolist() == [10, 10, 5, 10, 7, 6, 12]


def test_block_labels_differ_at_every_seam():
    cv = BlockKFold(3)
    labels = cv.block_labels(X)
    train, _ = list(cv.split(X))[1]
    seam = np.flatnonzero(np.diff(train) > 1)
    assert len(seam) == 1
    assert labels[train[seam[0]]] != labels[train[seam[0] + 1]]


# In scikit-learn.


def series(n=240, lag=3, seed=0):
    """A response that is the stimulus some rows before."""
    stimulus = np.random.default_rng(seed).standard_normal((n, 1))
    return stimulus, np.roll(stimulus[:, 0], lag)


def scores_of_files(estimator, X, y, cv, labels):
    """Results if each block is a separate file, and files are passed as lists."""
    scores = []
    for train, test in cv.split(X, sessions=labels):

        def files(values, rows):
            return [values[rows[labels[rows] == k]] for k in np.unique(labels[rows])]

        fitted = clone(estimator)
        if y is None:
            scores.append(fitted.fit(files(X, train)).score(files(X, test)))
        else:
            fitted.fit(files(X, train), files(y, train))
            scores.append(fitted.score(files(X, test), files(y, test)))
    return np.array(scores)


@pytest.mark.parametrize("n_blocks", [None, 6])
def test_encoding_models_see_nothing_across_a_seam(n_blocks):
    X, y = series()
    cv, model = BlockKFold(3, n_blocks=n_blocks), NEMSRegressor("fir.5")
    labels = cv.block_labels(X)
    with config_context(enable_metadata_routing=True):
        apart = cross_validate(model, X, y, cv=cv, params={"sessions": labels})["test_score"]
        joined = cross_validate(model, X, y, cv=cv)["test_score"]
    expected = scores_of_files(model, X, y, cv, labels)
    np.testing.assert_allclose(apart, expected, rtol=0, atol=1e-12)
    assert np.abs(joined - expected).max() > 1e-6, "the test would not see a leak"


# A tiny fit says that it explains nothing.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_dynemo_sees_nothing_across_a_seam(recording, small_dynemo):
    cv, model = BlockKFold(3), small_dynemo(n_epochs=1)
    labels = cv.block_labels(recording)
    with config_context(enable_metadata_routing=True):
        apart = cross_validate(model, recording, cv=cv, params={"sessions": labels})["test_score"]
    joined = cross_validate(model, recording, cv=cv)["test_score"]
    expected = scores_of_files(model, recording, None, cv, labels)
    np.testing.assert_array_equal(apart, expected)
    assert abs(joined[1] - expected[1]) > 1e-6, "the test would not see a leak"


def test_block_labels_reach_fit_without_routing():
    X, y = series()
    cv, model = BlockKFold(3), NEMSRegressor("fir.5")
    labels = cv.block_labels(X)
    results = cross_validate(model, X, y, cv=cv, params={"sessions": labels})
    expected = scores_of_files(model, X, y, cv, labels)
    np.testing.assert_allclose(results["test_score"], expected, rtol=0, atol=1e-12)


def test_session_kfold_takes_sessions_or_groups_by_routing():
    X, y = series()
    sessions = np.repeat([0, 1, 2, 3], 60)
    cv, model = SessionKFold(2), NEMSRegressor("fir.5")
    with config_context(enable_metadata_routing=True):
        routed = cross_validate(model, X, y, cv=cv, params={"sessions": sessions})["test_score"]
    by_hand = cross_validate(model, X, y, cv=cv, groups=sessions, params={"sessions": sessions})
    expected = scores_of_files(model, X, y, cv, sessions)
    np.testing.assert_allclose(routed, expected, rtol=0, atol=1e-12)
    # Here, score takes the two sessions of a test fold for one.
    assert 1e-6 < np.abs(by_hand["test_score"] - expected).max() < 0.1


def test_session_kfold_cross_validates_lists():
    X, y = series()
    rows = np.split(np.arange(240), [40, 100, 190])
    labels = np.repeat([0, 1, 2, 3], [40, 60, 90, 50])
    stimuli, responses = [X[row] for row in rows], [y[row] for row in rows]
    found = cross_validate(NEMSRegressor("fir.5"), stimuli, responses, cv=SessionKFold(2))
    expected = scores_of_files(NEMSRegressor("fir.5"), X, y, SessionKFold(2), labels)
    np.testing.assert_allclose(found["test_score"], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cv", [SessionKFold(2), BlockKFold(2, n_blocks=4)], ids=str)
def test_splitters_nest_in_a_search(cv):
    X, y = series()
    sessions = np.repeat([0, 1, 2, 3], 60)
    pipeline = make_pipeline(StandardScaler(), NEMSRegressor("fir.5"))
    grid = {"nemsregressor__layers": ["fir.2", "fir.5"]}
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(pipeline, grid, cv=cv)
        results = cross_validate(
            search, X, y, cv=cv, params={"sessions": sessions}, return_estimator=True
        )
    assert results["test_score"].min() > 0.8
    assert [one.best_params_["nemsregressor__layers"] for one in results["estimator"]] == [
        "fir.5"
    ] * 2


@pytest.mark.parametrize("cv", [SessionKFold(2), BlockKFold(2)], ids=str)
def test_splitters_work_in_a_halving_search(cv):
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingGridSearchCV

    X, y = series()
    model = NEMSRegressor("fir.5-dexp", tol=0.1, random_state=0)
    search = HalvingGridSearchCV(
        model,
        {"alpha": [0.0, 100.0]},
        cv=cv,
        resource="max_iter",
        min_resources=20,
        max_resources=40,
        factor=2,
    )
    with config_context(enable_metadata_routing=True):
        search.fit(X, y, sessions=np.repeat([0, 1, 2, 3], 60))
    assert search.best_params_["alpha"] == 0.0


def test_splitters_work_in_learning_curve_and_cross_val_predict():
    X, y = series()
    sessions = np.repeat([0, 1, 2, 3], 60)
    with config_context(enable_metadata_routing=True):
        sizes, _, tested = learning_curve(
            NEMSRegressor("fir.5"),
            X,
            y,
            cv=SessionKFold(2),
            params={"sessions": sessions},
            train_sizes=[40, 120],
        )
        predicted = cross_val_predict(
            NEMSRegressor("fir.5"),
            X,
            y,
            cv=SessionKFold(4),
            params={"sessions": sessions},
        )
    assert sizes.tolist() == [40, 120]
    assert tested.shape == (2, 2)
    within = np.arange(240) % 60 >= 3
    np.testing.assert_allclose(predicted[within], y[within], atol=0.1)


def test_session_kfold_takes_groups_with_and_without_routing():
    y = X[:, 0]
    expected = [len(test) for _, test in SessionKFold(3).split(X, groups=LABELS)]
    off = cross_validate(Ridge(), X, y, cv=SessionKFold(3), groups=LABELS, return_indices=True)
    with config_context(enable_metadata_routing=True):
        on = cross_validate(
            Ridge(), X, y, cv=SessionKFold(3), params={"groups": LABELS}, return_indices=True
        )
    for results in (off, on):
        assert [len(test) for test in results["indices"]["test"]] == expected
