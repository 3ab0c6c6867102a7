"""Splitters of time series: whole sessions, or contiguous blocks of a recording, are held out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from numbers import Integral

import numpy as np
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_array, check_random_state, column_or_1d, indexable

from skdyn.sessions import container_of, split_sessions

__all__ = ["BlockKFold", "SessionKFold"]


class _SessionSplitter(BaseCrossValidator):
    """What the splitters have in common: labels come as `sessions` or as `groups`."""

    # With metadata routing, labels reach the splitter without being requested.
    __metadata_request__split = {"groups": True, "sessions": True}  # noqa: RUF012

    n_splits: int

    def get_n_splits(self, X=None, y=None, groups=None, *, sessions=None):
        """Tell how many folds there are.

        Parameters
        ----------
        X, y, groups, sessions : object
            Not looked at; here because scikit-learn passes what it passes to `split`.

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
    """K folds of whole sessions.

    No session is split, and folds have as equal numbers of rows as whole sessions allow.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2 and at most the number of sessions.
    shuffle : bool, default=False
        Whether sessions are dealt out in random order, and not the longest first. Each goes to the
        fold that has the fewest rows.
    random_state : int, RandomState instance or None, default=None
        Source of the random order, with `shuffle`.

    See Also
    --------
    BlockKFold : Blocks of one recording.
    sklearn.model_selection.GroupKFold : The same folds of groups, for labels per row.

    Notes
    -----
    Sessions come as labels per row of a 2-D X, by the name of `sessions` or of `groups`, or X is a
    list of sessions or an array with an axis of them in front, and the folds are then of sessions.
    Runs of rows that have the same label are in the same fold, also if other sessions lie between.

    Where there are both, `groups` says what stays together, such as the sessions of one subject.
    It has one label per row of a 2-D X, and one per session of a list or 3-D X. Let sessions have
    different labels then: runs of one label that a fold makes neighbours are one session to the
    estimator.

    With metadata routing enabled, `sessions` goes to the splitter, and to the estimator's `fit` and
    `score`, by itself. Without, scikit-learn passes labels on to splitters as `groups` only, and to
    `fit` as a fit parameter; `score` has none, and takes the sessions of a test fold for one.

    A halving search over ``resource="n_samples"`` draws rows at random and leaves no series; use
    a parameter such as "n_epochs", or a list of sessions, of which whole ones are drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.model_selection import SessionKFold
    >>> sessions = ["a", "a", "a", "b", "b", "c"]
    >>> for train, test in SessionKFold(2).split(np.zeros((6, 1)), sessions=sessions):
    ...     print(train, test)
    [3 4 5] [0 1 2]
    [0 1 2] [3 4 5]

    Sessions reach everything that asks for them:

    >>> from sklearn import config_context
    >>> from sklearn.model_selection import cross_validate
    >>> from skdyn import NEMSRegressor
    >>> X = np.random.default_rng(0).standard_normal((90, 2))
    >>> y = X[:, 0] - X[:, 1]
    >>> sessions = np.repeat([1, 2, 3], 30)
    >>> with config_context(enable_metadata_routing=True):
    ...     results = cross_validate(
    ...         NEMSRegressor(), X, y, cv=SessionKFold(3), params={"sessions": sessions}
    ...     )
    >>> results["test_score"].round(3)
    array([1., 1., 1.])
    """

    def __init__(self, n_splits=5, *, shuffle=False, random_state=None):
        self.n_splits = _check_count(n_splits, "n_splits", at_least=2)
        if not isinstance(shuffle, bool):
            raise ValueError(f"Got shuffle={shuffle!r}, expected True or False.")
        if random_state is not None and not shuffle:
            raise ValueError(
                f"Got random_state={random_state!r} with shuffle=False, where nothing is random; "
                "set shuffle=True, or leave random_state out."
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
            Label of what stays together, per row of a 2-D X, else per session. Without `sessions`,
            the labels of sessions.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Yields
        ------
        train, test : ndarray of int
            Numbers of rows, or of sessions where X has an axis of them, in their order.

        Raises
        ------
        ValueError
            If there are no labels for a 2-D X, they do not go with X, a session has rows of two
            groups, or there are fewer sessions than folds.
        """
        X, y, groups, sessions = indexable(X, y, groups, sessions)
        units, n_rows = _units(X, groups, sessions)
        sizes = np.bincount(units, weights=n_rows)
        if len(sizes) < self.n_splits:
            raise ValueError(
                f"Got {len(sizes)} sessions or groups for n_splits={self.n_splits}, expected at "
                "least one per fold; lower n_splits, or use BlockKFold, which splits within "
                "sessions."
            )
        fold_of = self._deal(sizes)[units]
        for fold in range(self.n_splits):
            yield np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)

    def _deal(self, sizes: np.ndarray) -> np.ndarray:
        """The fold of each unit; each in turn goes where the fewest rows are."""
        order = np.argsort(-sizes, kind="stable")
        if self.shuffle:
            # None is fresh entropy, and not NumPy's global generator.
            given = np.random.RandomState() if self.random_state is None else self.random_state
            order = check_random_state(given).permutation(len(sizes))
        folds, filled = np.empty(len(sizes), dtype=int), np.zeros(self.n_splits)
        for unit in order:
            folds[unit] = filled.argmin()
            filled[folds[unit]] += sizes[unit]
        return folds


class BlockKFold(_SessionSplitter):
    """K folds of contiguous blocks of one recording, or of several.

    Every row is tested once. Blocks are as equally long as can be, and none goes across the border
    of two sessions.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    n_blocks : int, default=None
        Blocks of all rows together, at least `n_splits`; fold k tests the blocks k, k + n_splits
        and so on, so that each fold has rows from all of the recording. None is `n_splits`: one
        block per fold. Where there are more sessions than that, each session is one block.
    gap : int, default=0
        Rows on either side of each test block that are left out of the training rows, so that
        what varies slowly does not tell of the test block.

    See Also
    --------
    SessionKFold : Whole sessions.
    sklearn.model_selection.TimeSeriesSplit : Training rows before the test rows only.

    Notes
    -----
    Once rows of a test block are taken out, those before and after it are neighbours, and an
    estimator would use the ones as history of the others. `block_labels` gives labels that stop it:
    given to the estimator as `sessions`, scores are those of blocks in files of their own.

    With metadata routing enabled, these labels go to `fit`, `score` and the splitter by themselves;
    blocks that are given as sessions are not cut any further. Without, they go to `fit` alone, as a
    fit parameter. A test fold of one block has no seam, and its score needs none; with more blocks
    than folds, enable routing.

    `compare_models` takes care of all this by itself.

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
            Labels that no block goes across, as `sessions`.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row; a contiguous run of one label is one session.

        Yields
        ------
        train, test : ndarray of int
            Numbers of rows, in their order.

        Raises
        ------
        ValueError
            If X is a list or an array of sessions, labels do not go with it, there are fewer rows
            than blocks, or the gaps leave no row to train on.
        """
        blocks = self._blocks(X, y, groups, sessions)
        n_rows = sum(map(len, blocks))
        for fold in range(self.n_splits):
            tested, used = blocks[fold :: self.n_splits], np.ones(n_rows, dtype=bool)
            for block in tested:
                used[max(block[0] - self.gap, 0) : block[-1] + self.gap + 1] = False
            if not used.any():
                raise ValueError(
                    f"Got gap={self.gap} for blocks of {len(tested[0])} of {n_rows} rows, which "
                    f"leaves none to train on in fold {fold}; lower the gap, or give more rows."
                )
            yield np.flatnonzero(used), np.concatenate(tested)

    def block_labels(self, X, sessions=None):
        """Number the blocks: labels with which history stops at every seam.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row; a contiguous run of one label is one session.

        Returns
        -------
        ndarray of int of shape (n_samples,)
            Number of each row's block, for the estimator's `sessions`.

        Raises
        ------
        ValueError
            As in `split`.
        """
        lengths = [len(block) for block in self._blocks(X, None, None, sessions)]
        return np.repeat(np.arange(len(lengths)), lengths)

    def _blocks(self, X, y, groups, sessions) -> list[np.ndarray]:
        """The rows of each block."""
        container = container_of(X)
        if container != "array":
            raise ValueError(
                f"Got X as a {'list' if container == 'list' else '3-D array'} of sessions, "
                "expected rows (n_samples, n_channels), since blocks are parts of sessions; put "
                "the sessions one below the other with numpy.concatenate and give labels in "
                "sessions=, or use SessionKFold."
            )
        X, y, groups, sessions = indexable(X, y, groups, sessions)
        rows = np.arange(len(X))
        n_blocks = self.n_splits if self.n_blocks is None else self.n_blocks
        if len(rows) < n_blocks:
            raise ValueError(
                f"Got X with {len(rows)} rows for {n_blocks} blocks, expected at least one row "
                "each; lower n_splits or n_blocks."
            )
        given = [labels for labels in (groups, sessions) if labels is not None]
        starts = {int(part[0]) for labels in given for part in split_sessions(rows, labels)}
        runs = np.split(rows, sorted(starts - {0}))
        counts = _share_out(np.array([len(run) for run in runs]), n_blocks)
        return [
            block
            for run, count in zip(runs, counts, strict=True)
            for block in np.array_split(run, count)
        ]


def _share_out(lengths: np.ndarray, n_blocks: int) -> np.ndarray:
    """Number of blocks per session: one, and each further one where blocks are the longest.

    What was cut already is not cut again: of as many sessions as blocks, each has one.
    """
    counts = np.ones(len(lengths), dtype=int)
    for _ in range(n_blocks - len(lengths)):
        counts[np.argmax(lengths / counts)] += 1
    return counts


def _units(X, groups, sessions) -> tuple[np.ndarray, np.ndarray]:
    """Number of what each row, or session, stays together with, and how many rows it stands for."""
    container, length = container_of(X), len(X)
    if container != "array":
        if sessions is not None:
            raise ValueError(
                "Got sessions= together with X as sessions, expected one of the two; leave "
                "sessions out, or give a 2-D X."
            )
        labels = np.arange(length) if groups is None else _check_labels(groups)
        return _number(labels), np.array([len(one) for one in X], dtype=float)
    if groups is None and sessions is None:
        raise ValueError(
            f"Got X with {length} rows and no sessions, expected a label per row; pass sessions= "
            "or groups=, or use BlockKFold for one recording."
        )
    labels = _check_labels(sessions if groups is None else groups)
    if groups is not None and sessions is not None:
        for part in split_sessions(labels, sessions):
            if np.any(part != part[0]):
                raise ValueError(
                    f"Got a session with rows of the groups {list(np.unique(part))}, expected one "
                    "group per session; correct the labels."
                )
    return _number(labels), np.ones(length)


def _number(labels: np.ndarray) -> np.ndarray:
    """Number labels in the order in which they appear."""
    _, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers]


def _check_labels(labels) -> np.ndarray:
    return column_or_1d(check_array(labels, ensure_2d=False, dtype=None))


def _check_count(value, name: str, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"Got {name}={value!r}, expected a whole number of at least {at_least}.")
    return int(value)
