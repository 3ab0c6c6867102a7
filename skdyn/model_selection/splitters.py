"""Splitters of time series: whole sessions, or contiguous blocks of a recording, are held out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from numbers import Integral
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import BaseCrossValidator, GroupKFold
from sklearn.utils import check_array, column_or_1d, indexable

from skdyn.sessions import container_of, naming, split_sessions

__all__ = ["BlockKFold", "SessionKFold"]


class _SessionSplitter(BaseCrossValidator):
    """Base class of splitters with labels in `sessions` or in `groups`."""

    # With metadata routing, labels reach the splitter without a request.
    __metadata_request__split = {"groups": True, "sessions": True}  # noqa: RUF012

    n_splits: int

    def get_n_splits(self, X=None, y=None, groups=None, *, sessions=None):
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups, sessions : object
            Not used; scikit-learn passes the arguments of `split`.

        Returns
        -------
        int
            Number of folds, `n_splits`.
        """
        return self.n_splits

    @abstractmethod
    def split(self, X, y=None, groups=None, *, sessions=None):
        """Yield the training and the test rows of each fold."""


class SessionKFold(_SessionSplitter):
    """K folds of whole sessions: scikit-learn's GroupKFold, with sessions as groups.

    No session is split. Without `shuffle`, folds have as equal numbers of rows as whole sessions
    allow; with it, as equal numbers of sessions.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2 and at most the number of sessions. As many as there are
        sessions, or subjects in `groups`, leave one out at a time.
    shuffle : bool, default=False
        Whether sessions are assigned in random order. Otherwise the longest sessions come first,
        and each is assigned to the fold with the fewest rows.
    random_state : int, RandomState instance or None, default=None
        Source of the random order, with `shuffle`. None is fresh entropy; NumPy's global generator
        is not used.

    See Also
    --------
    BlockKFold : Blocks of one recording.
    sklearn.model_selection.GroupKFold : The same folds, for labels per row given as groups.
    sklearn.model_selection.LeaveOneGroupOut : One fold per label, without a number of folds.

    Notes
    -----
    Sessions are labels per row of a 2-D X, passed as `sessions` or as `groups`. If X is a list of
    sessions or an array with a first axis of sessions, folds consist of sessions. Runs of rows with
    the same label are in the same fold, even if other sessions lie between them.

    If both are given, `groups` are kept together, such as the sessions of one subject. They have
    one label per row of a 2-D X, or one per session of a list or 3-D X. In that case, give each
    session a label of its own, because runs of one label that become neighbours in a fold are one
    session to the estimator.

    With metadata routing enabled, `sessions` reaches the splitter and the estimator's `fit` and
    `score` without a request. Without routing, scikit-learn passes labels to splitters as `groups`
    only, and to `fit` as a fit parameter; `score` receives none and treats a test fold as one
    session.

    A halving search over ``resource="n_samples"`` draws rows at random, which destroys the series.
    Use a parameter such as "n_epochs", or a list of sessions, of which whole sessions are drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.model_selection import SessionKFold
    >>> sessions = ["a", "a", "a", "b", "b", "c"]
    >>> for train, test in SessionKFold(2).split(np.zeros((6, 1)), sessions=sessions):
    ...     print(train, test)
    [3 4 5] [0 1 2]
    [0 1 2] [3 4 5]

    Leave one subject out, of three that have two sessions each. With metadata routing, labels
    reach everything that takes them:

    >>> from sklearn import config_context
    >>> from sklearn.model_selection import cross_validate
    >>> from skdyn import NEMSRegressor
    >>> X = np.random.default_rng(0).standard_normal((180, 1))
    >>> y = np.roll(X[:, 0], 2)
    >>> labels = {"sessions": np.repeat(np.arange(6), 30), "groups": np.repeat([1, 2, 3], 60)}
    >>> with config_context(enable_metadata_routing=True):
    ...     results = cross_validate(
    ...         NEMSRegressor("fir.4"), X, y, cv=SessionKFold(3), params=labels
    ...     )
    >>> results["test_score"].round(2)
    array([1., 1., 1.])

    Nested: a search on the training subjects of each fold, scored on the one left out:

    >>> from sklearn.model_selection import GridSearchCV
    >>> search = GridSearchCV(
    ...     NEMSRegressor(), {"layers": ["fir.2", "fir.4"]}, cv=SessionKFold(2)
    ... )
    >>> with config_context(enable_metadata_routing=True):
    ...     results = cross_validate(
    ...         search, X, y, cv=SessionKFold(3), params=labels, return_estimator=True
    ...     )
    >>> [one.best_params_["layers"] for one in results["estimator"]]
    ['fir.4', 'fir.4', 'fir.4']
    """

    def __init__(self, n_splits=5, *, shuffle=False, random_state=None):
        self.n_splits = _check_count(n_splits, "n_splits", at_least=2)
        if not isinstance(shuffle, bool):
            raise ValueError(f"shuffle must be True or False, but is {shuffle!r}.")
        if random_state is not None and not shuffle:
            raise ValueError(
                f"random_state={random_state!r} has no effect with shuffle=False; set "
                "shuffle=True, or leave random_state out."
            )
        self.shuffle = shuffle
        self.random_state = random_state

    def split(
        self, X, y=None, groups=None, *, sessions=None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the training and the test rows of each fold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        y : array-like, default=None
            Of the length of X.
        groups : array-like of shape (n_samples,) or (n_sessions,), default=None
            Label of the group that is kept together, per row of a 2-D X, else per session. Without
            `sessions`, the labels of sessions.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Yields
        ------
        train, test : ndarray of int
            Numbers of rows, or of sessions where X has an axis of them, in their order.

        Raises
        ------
        ValueError
            If a 2-D X has no labels, labels do not fit X, a session has rows of two groups, or
            there are fewer sessions than folds.
        """
        container_of(X)  # raises for objects that are no arrays
        with naming("X, y, groups and sessions"):
            X, y, groups, sessions = indexable(X, y, groups, sessions)
        units, n_rows = _units(X, groups, sessions)
        with naming("groups" if sessions is None else "sessions"):
            n_units = len(np.unique(units))
        if n_units < self.n_splits:
            raise ValueError(
                f"n_splits={self.n_splits} folds need at least one session each, or one of groups, "
                f"but there are {n_units}; lower n_splits, or use BlockKFold, which splits within "
                "sessions."
            )
        # None is fresh entropy, and not NumPy's global generator.
        fresh = self.shuffle and self.random_state is None
        random_state = np.random.RandomState() if fresh else self.random_state
        folds = GroupKFold(self.n_splits, shuffle=self.shuffle, random_state=random_state)
        # A session that is one entry of a list has the weight of its rows.
        rows = np.repeat(np.arange(len(units)), n_rows)
        for _, test in folds.split(rows, groups=units[rows]):
            tested = np.zeros(len(units), dtype=bool)
            tested[rows[test]] = True
            yield np.flatnonzero(~tested), np.flatnonzero(tested)


class BlockKFold(_SessionSplitter):
    """K folds of contiguous blocks of one recording, or of several.

    Every row is tested once. Blocks are as equal in length as possible, and no block crosses the
    border of two sessions.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    n_blocks : int, default=None
        Blocks of all rows together, at least `n_splits`; fold k tests the blocks k, k + n_splits
        and so on, so that each fold has rows from all of the recording. None is `n_splits`: one
        block per fold. If there are more sessions than that, each session is one block.
    gap : int, default=0
        Rows on either side of each test block that are left out of the training rows, to reduce
        leakage through slow autocorrelation. A gap ends at the border of the block's session.

    See Also
    --------
    SessionKFold : Whole sessions.
    sklearn.model_selection.TimeSeriesSplit : Training rows before the test rows only.

    Notes
    -----
    After a test block is removed, the rows before and after it are neighbours, and an estimator
    would use the former as history of the latter. If `block_labels` are passed to the estimator as
    `sessions`, scores are the same as if each block were a separate file.

    With metadata routing enabled, these labels reach `fit`, `score` and the splitter without a
    request. The splitter does not cut blocks that are passed as sessions any further, and gaps
    cross the borders of blocks of one session: labels that are not whole numbers are blocks of the
    session of their whole part. Without routing, labels reach `fit` alone, as a fit parameter. A
    test fold of one block has no seam, and its score needs no labels; with more blocks than folds,
    enable routing.

    `compare_models` does all this automatically.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.model_selection import BlockKFold
    >>> X = np.zeros((8, 1))
    >>> for train, test in BlockKFold(4, gap=1).split(X):
    ...     print(train, test)
    [3 4 5 6 7] [0 1]
    [0 5 6 7] [2 3]
    [0 1 2 7] [4 5]
    [0 1 2 3 4] [6 7]

    A response that depends on rows before, and labels that stop history at the seams:

    >>> from sklearn import config_context
    >>> from sklearn.model_selection import cross_validate
    >>> from skdyn import NEMSRegressor
    >>> X = np.random.default_rng(0).standard_normal((300, 1))
    >>> y = np.roll(X[:, 0], 3)
    >>> cv = BlockKFold(3)
    >>> with config_context(enable_metadata_routing=True):
    ...     results = cross_validate(
    ...         NEMSRegressor("fir.5"), X, y, cv=cv, params={"sessions": cv.block_labels(X)}
    ...     )
    >>> bool(results["test_score"].min() > 0.9)
    True
    """

    def __init__(self, n_splits=5, *, n_blocks=None, gap=0):
        self.n_splits = _check_count(n_splits, "n_splits", at_least=2)
        if n_blocks is not None:
            _check_count(n_blocks, "n_blocks", at_least=self.n_splits)
        self.n_blocks = n_blocks
        self.gap = _check_count(gap, "gap", at_least=0)

    def split(
        self, X, y=None, groups=None, *, sessions=None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the training and the test rows of each fold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels)
            The recording.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Of the length of X.
        groups : array-like of shape (n_samples,), default=None
            Labels whose borders no block crosses, as `sessions`.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row; a contiguous run of one label is one session.

        Yields
        ------
        train, test : ndarray of int
            Numbers of rows, in their order.

        Raises
        ------
        ValueError
            If X is a list or an array of sessions, labels do not fit it, there are fewer rows than
            blocks, or the gaps leave no row to train on.
        """
        blocks = self._blocks(X, y, groups, sessions)
        n_rows = blocks[-1].stop
        for fold in range(self.n_splits):
            tested, used = blocks[fold :: self.n_splits], np.ones(n_rows, dtype=bool)
            for block in tested:
                first, end = block.session
                used[max(block.start - self.gap, first) : min(block.stop + self.gap, end)] = False
            if not used.any():
                raise ValueError(
                    f"gap={self.gap} leaves no row to train on in fold {fold}, with {n_rows} rows "
                    f"and blocks of {tested[0].stop - tested[0].start}; lower the gap, or give "
                    "more rows."
                )
            yield np.flatnonzero(used), np.concatenate([block.rows for block in tested])

    def block_labels(self, X, sessions=None):
        """Label the blocks, so that history stops at every seam.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row; a contiguous run of one label is one session.

        Returns
        -------
        ndarray of float of shape (n_samples,)
            Label of each row's block, for the estimator's `sessions`. The whole part numbers the
            session, the fraction the block within it: 2.0, 2.25, 2.5 and 2.75 are the four blocks
            of the third session, so that splitters recognise blocks of one session.

        Raises
        ------
        ValueError
            As in `split`.
        """
        blocks = self._blocks(X, None, None, sessions)
        labels = np.empty(blocks[-1].stop)
        borders = sorted({block.session for block in blocks})
        for number, session in enumerate(borders):
            own = [block for block in blocks if block.session == session]
            for place, block in enumerate(own):
                labels[block.rows] = number + place / len(own)
        return labels

    def _blocks(self, X, y, groups, sessions) -> list[_Block]:
        """The blocks, in the order of their rows."""
        container = container_of(X)
        if container != "array":
            raise ValueError(
                f"X is a {'list' if container == 'list' else '3-D array'} of sessions, but blocks "
                "are parts of sessions and need rows (n_samples, n_channels). Concatenate the "
                "sessions with numpy.concatenate and give labels in sessions=, or use SessionKFold."
            )
        with naming("X, y, groups and sessions"):
            X, y, groups, sessions = indexable(X, y, groups, sessions)
        rows = np.arange(len(X))
        n_blocks = self.n_splits if self.n_blocks is None else self.n_blocks
        if len(rows) < n_blocks:
            raise ValueError(
                f"X has {len(rows)} rows for {n_blocks} blocks, but each needs at least one; lower "
                "n_splits or n_blocks."
            )
        given = [
            _check_labels(labels, name)
            for name, labels in (("groups", groups), ("sessions", sessions))
            if labels is not None
        ]
        parts = np.split(rows, _borders(rows, given))
        counts = _share_out(np.array([len(part) for part in parts]), n_blocks)
        ends = [0, *_borders(rows, [_whole(labels) for labels in given]), len(rows)]
        blocks = []
        for part, count in zip(parts, counts, strict=True):
            place = np.searchsorted(ends, part[0], side="right")
            session = (int(ends[place - 1]), int(ends[place]))
            cuts = np.array_split(part, count)
            blocks += [_Block(int(cut[0]), int(cut[-1]) + 1, session) for cut in cuts]
        return blocks


class _Block(NamedTuple):
    """Rows from `start` up to `stop`, in the session of the rows `session[0]` to `session[1]`."""

    start: int
    stop: int
    session: tuple[int, int]

    @property
    def rows(self) -> np.ndarray:
        return np.arange(self.start, self.stop)


def _borders(rows: np.ndarray, labels: list[np.ndarray]) -> list[int]:
    """The rows at which a new run of any of the labels begins, except the first."""
    return sorted({int(part[0]) for one in labels for part in split_sessions(rows, one)} - {0})


def _whole(labels: np.ndarray) -> np.ndarray:
    """Labels of sessions: those of `block_labels` have the block as their fraction."""
    return np.floor(labels) if labels.dtype.kind == "f" else labels


def _share_out(lengths: np.ndarray, n_blocks: int) -> np.ndarray:
    """Number of blocks per session: one, and each further block to the longest blocks.

    If there are as many sessions as blocks, each session is one block and not cut again.
    """
    counts = np.ones(len(lengths), dtype=int)
    for _ in range(n_blocks - len(lengths)):
        counts[np.argmax(lengths / counts)] += 1
    return counts


def _units(X, groups, sessions) -> tuple[np.ndarray, np.ndarray]:
    """Label of the group of each row, or session, and its number of rows."""
    container, length = container_of(X), len(X)
    if container != "array":
        if sessions is not None:
            raise ValueError(
                "sessions= cannot be given together with X as sessions; leave sessions out, or "
                "give a 2-D X."
            )
        labels = np.arange(length) if groups is None else _check_labels(groups, "groups")
        return labels, np.array([len(one) for one in X])
    if groups is None and sessions is None:
        raise ValueError(
            f"X has {length} rows, but no label per row; pass sessions= or groups=, or use "
            "BlockKFold for one recording."
        )
    given = {"sessions": sessions} if groups is None else {"groups": groups}
    ((name, values),) = given.items()
    labels = _check_labels(values, name)
    if groups is not None and sessions is not None:
        for part in split_sessions(labels, sessions):
            if np.any(part != part[0]):
                raise ValueError(
                    f"A session has rows of the groups {list(np.unique(part))}, but must be of one "
                    "group; correct the labels."
                )
    return labels, np.ones(length, dtype=int)


def _check_labels(labels, name: str) -> np.ndarray:
    with naming(name):
        return column_or_1d(check_array(labels, ensure_2d=False, dtype=None, input_name=name))


def _check_count(value, name: str, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, but is {value!r}.")
    return int(value)
