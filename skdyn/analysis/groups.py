"""Tests of groups and conditions, corrected for many modes, bands, channels or edges.

All tests are permutation tests with the maximum statistic. A statistic is computed for each feature
of the data and of arrangements that are equally likely under the null hypothesis: the signs of
differences are flipped, labels are shuffled, or the residuals of a regression on the covariates
are shuffled. The largest statistic over features in each arrangement forms the null distribution,
which controls the family-wise error under any dependence between features.

SciPy's `permutation_test` keeps the statistics of all features for all arrangements and has no
covariates. Here arrangements are rows of a matrix, so that one matrix product computes many.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch, check_random_state

from skdyn._drawing import FAINT, INK, LABEL_SIZE, PALETTE, panels, tidy
from skdyn.sessions import as_numbers, naming

# Most numbers of a block of statistics, and the smallest variance, relative to the squared size of
# the values, that is no rounding.
BLOCK, NEGLIGIBLE = 2**22, 1e-20

ALTERNATIVES = {"two-sided": np.abs, "greater": np.positive, "less": np.negative}


class PermutationTest(Bunch):
    """The result of a test of many features.

    A Bunch: a dictionary whose values are also attributes. Returned by `permutation_test` and
    `evoked_test`.

    Parameters
    ----------
    **values
        The attributes below.

    Attributes
    ----------
    effect : ndarray of the shape of the features
        Mean, difference of means (second label less the first), or slope, in the units of the
        values.
    statistic : ndarray of the shape of the features
        Studentised effect, without unit.
    p_value : ndarray of the shape of the features
        Corrected for all features: the share of arrangements, the observed one included, with a
        largest statistic of at least this one.
    p_uncorrected : ndarray of the shape of the features
        The same for each feature alone.
    critical_value : float
        Quantile 1 - `level` of the null distribution: statistics above it have corrected p values
        of at most `level`.
    null : ndarray of shape (n_permutations,)
        Largest statistic of each arrangement, the observed one first.
    n_permutations : int
        Number of arrangements, the observed one included.
    is_exact : bool
        Whether these are all there are.
    alternative : {"two-sided", "greater", "less"}
        Alternative hypothesis.
    level : float
        The level of `critical_value`.
    kind : {"one sample", "paired", "groups", "regression", "events"}
        Which test it is.
    labels : tuple or None
        The two labels; the effect is that of the second, less that of the first.
    """

    def __repr__(self):
        # Features with missing values have no p value.
        lowest = np.nanmin(self.p_value, initial=1.0)
        return (
            f"<PermutationTest: {self.kind}, {np.size(self.effect)} features, "
            f"{self.n_permutations} arrangements, lowest p value {lowest:.4g}>"
        )

    def to_frame(self, names=None):
        """Return a table with one row per feature.

        Parameters
        ----------
        names : sequence of str, default=None
            Names of the axes of the features, such as ("mode", "band"); None for numbers.

        Returns
        -------
        pandas.DataFrame
            Indexed by the places of the features, with effect, statistic, p_value, p_uncorrected.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        import pandas as pd

        shape = np.shape(self.effect)
        given = [f"axis {axis}" for axis in range(len(shape))] if names is None else list(names)
        if len(given) != len(shape):
            raise ValueError(
                f"names has {len(given)} names, but must have {len(shape)}, one for each axis of "
                "the features."
            )
        places = [range(size) for size in shape] or [range(1)]
        index = pd.MultiIndex.from_product(places, names=given or ["feature"])
        columns = ("effect", "statistic", "p_value", "p_uncorrected")
        return pd.DataFrame({name: np.ravel(self[name]) for name in columns}, index=index)

    def plot(self, ax=None, *, feature_names=None, fig=None):
        """Draw the statistic of each feature beside the null distribution of the largest.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw into; mutually exclusive with `fig`.
        feature_names : sequence of str, default=None
            A name per feature; None for numbers.
        fig : Figure or SubFigure, default=None
            Figure to add the panel to; None creates one.

        Returns
        -------
        fig, axes : Figure or SubFigure, and ndarray of Axes of shape (1,)
            The figure and its panel. Features beyond the dashed lines have corrected p
            values of at most `level`, and a colour.
        """
        values, p_value = np.ravel(self.statistic), np.ravel(self.p_value)
        n_features = len(values)
        fig, (panel,) = panels(1, ax, fig, (1.8 + min(6.0, 0.3 * n_features), 2.6))
        tidy(panel)
        is_beyond = p_value <= self.level
        size = 5 if n_features <= 60 else 2
        for chosen, color in [(~is_beyond, FAINT), (is_beyond, PALETTE[9])]:
            panel.vlines(np.flatnonzero(chosen), 0, values[chosen], color=color, lw=size / 4)
            panel.plot(np.flatnonzero(chosen), values[chosen], "o", ms=size, mew=0, color=color)
        sides = {"two-sided": (-1, 1), "greater": (1,), "less": (-1,)}[self.alternative]
        for side in sides:
            panel.axhline(side * self.critical_value, color=INK, ls="--", lw=0.8)
        panel.axhline(0, color=FAINT, lw=0.6)
        if feature_names is not None:
            panel.set_xticks(range(n_features), labels=list(feature_names))
        elif n_features <= 20:
            panel.set_xticks(range(n_features))
        panel.set_xlabel("Feature", size=LABEL_SIZE, color=INK)
        panel.set_ylabel("Statistic", size=LABEL_SIZE, color=INK)
        return fig, np.array([panel])


def permutation_test(
    values,
    labels=None,
    *,
    pairs=None,
    regressor=None,
    covariates=None,
    alternative="two-sided",
    n_permutations=10_000,
    level=0.05,
    random_state=0,
):
    """Test many features of sessions at once: groups, conditions, or a regressor.

    ==============================  =============================  ===========================
    given                           test                           arrangements
    ==============================  =============================  ===========================
    values alone                    mean against 0                 signs
    labels and pairs                mean of the differences        signs of the differences
    labels                          difference of two groups       labels shuffled
    regressor                       slope                          residuals shuffled
    covariates, with any of these   the same in a linear model     residuals, as above
    ==============================  =============================  ===========================

    Parameters
    ----------
    values : array-like of shape (n_sessions, ...)
        A row per session, or per subject, and features of any shape: modes, modes and bands, edges.
    labels : array-like of shape (n_sessions,), default=None
        Group or condition of each row, of two different values. The effect is the second one, in
        sorted order, less the first.
    pairs : array-like of shape (n_sessions,), default=None
        Which rows belong together, such as the name of the subject; each has one row per label.
    regressor : array-like of shape (n_sessions,), default=None
        Numbers, such as ages, instead of labels.
    covariates : array-like of shape (n_sessions,) or (n_sessions, n_covariates), default=None
        Nuisance variables, such as age or motion; their linear influence is removed [1]_. For
        pairs, the differences of covariates count, so that constants of a pair have no influence.
        With values alone the effect is that at covariates of 0, so centre them.
    alternative : {"two-sided", "greater", "less"}, default="two-sided"
        Whether effects of both signs count, positive ones or negative ones.
    n_permutations : int, default=10_000
        Arrangements, the observed one included. If there are not more of them, all are taken.
    level : float in (0, 1), default=0.05
        For the critical value.
    random_state : int, RandomState instance or None, default=0
        Source of the arrangements; None takes fresh entropy.

    Returns
    -------
    PermutationTest
        Effects, statistics and p values corrected by the maximum statistic [2]_; `to_frame()`
        returns a table and `plot()` draws them.

    Raises
    ------
    ValueError
        If shapes do not agree, labels and pairs are inconsistent, the regressor is a linear
        combination of covariates, or there are too few rows.

    Warns
    -----
    UserWarning
        If features have missing values: those are left out, and their results are NaN.

    See Also
    --------
    mode_statistics : Values to test.
    evoked_test : Mixing around events.

    Notes
    -----
    The statistic is Student's t, and for two groups without covariates that of Welch, so that the
    groups may differ in spread. Signs are exchangeable if differences are symmetric, labels if
    groups are alike in everything under the null hypothesis.

    References
    ----------
    .. [1] Freedman, D., & Lane, D. (1983). A nonstochastic interpretation of reported significance
       levels. Journal of Business & Economic Statistics, 1(4), 292-298.
    .. [2] Nichols, T. E., & Holmes, A. P. (2002). Nonparametric permutation tests for functional
       neuroimaging: a primer with examples. Human Brain Mapping, 15(1), 1-25.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.analysis import permutation_test
    >>> rng = np.random.default_rng(1)
    >>> occupancy = rng.standard_normal((24, 3))
    >>> occupancy[12:, 1] += 2
    >>> test = permutation_test(occupancy, ["control"] * 12 + ["patient"] * 12)
    >>> test.p_value < 0.05
    array([False,  True, False])
    """
    table = _table(values)
    shape = np.shape(values)[1:]
    check_choices(alternative, n_permutations, level)
    given = _columns(len(table), labels, pairs, regressor, covariates)
    is_complete = ~np.isnan(table).any(axis=0)
    if not is_complete.all():
        n_missing = np.count_nonzero(~is_complete)
        warnings.warn(
            f"{n_missing} of {len(is_complete)} features have missing values and are left out; "
            "leave out sessions, or choose statistics that are defined for all.",
            UserWarning,
            stacklevel=2,
        )
    if not is_complete.any():
        raise ValueError(
            "values has no feature without missing values, but at least one was expected. Leave "
            "out rows with missing values."
        )
    kind, names, design = _design(table[:, is_complete], *given)
    random_state = np.random.RandomState() if random_state is None else random_state
    found = _run(design, ALTERNATIVES[alternative], n_permutations, random_state)
    for name in ("effect", "statistic", "p_value", "p_uncorrected"):
        whole = np.full(len(is_complete), np.nan)
        whole[is_complete] = found[name]
        found[name] = whole.reshape(shape)
    return PermutationTest(
        **found,
        critical_value=float(np.quantile(found["null"], 1 - level, method="higher")),
        alternative=alternative,
        level=level,
        kind=kind,
        labels=names,
    )


def _table(values) -> np.ndarray:
    table = as_numbers(values, "values").copy()
    if table.ndim == 0 or len(table) < 2:
        raise ValueError(
            f"values has shape {table.shape}, but (n_sessions, ...) with at least 2 sessions was "
            "expected."
        )
    if np.isinf(table).any():
        raise ValueError("values has infinite values, but finite numbers or NaN were expected.")
    return table.reshape(len(table), -1)


def check_choices(alternative, n_permutations, level) -> None:
    """Check the parameters of a test.

    Parameters
    ----------
    alternative : str
        One of `ALTERNATIVES`.
    n_permutations : int
        At least 2.
    level : float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If one of them is something else.
    """
    if not isinstance(alternative, str) or alternative not in ALTERNATIVES:
        raise ValueError(
            f"alternative must be one of {', '.join(map(repr, ALTERNATIVES))}, but is "
            f"{alternative!r}."
        )
    if not isinstance(n_permutations, Integral) or n_permutations < 2:
        raise ValueError(
            f"n_permutations must be a whole number of at least 2, but is {n_permutations!r}."
        )
    if not isinstance(level, Real) or not 0 < float(level) < 1:
        raise ValueError(f"level must be a number between 0 and 1, but is {level!r}.")


def _columns(n_rows: int, labels, pairs, regressor, covariates) -> tuple:
    """Labels, pairs, regressor and covariates as arrays of the right length."""
    if labels is not None and regressor is not None:
        raise ValueError("labels and regressor were both given. Pass one of them.")
    if pairs is not None and labels is None:
        raise ValueError(
            "pairs was given without labels. Pass the condition of each row as labels."
        )
    given = {"labels": labels, "pairs": pairs, "regressor": regressor, "covariates": covariates}
    arrays: dict[str, np.ndarray | None] = {}
    for name, one in given.items():
        with naming(name):
            arrays[name] = None if one is None else np.asarray(one)
    for name, array in arrays.items():
        n_axes = (1, 2) if name == "covariates" else (1,)
        if array is not None and (array.ndim not in n_axes or len(array) != n_rows):
            raise ValueError(
                f"{name} has shape {array.shape}, but there are {n_rows} rows in values. Pass one "
                "entry per row."
            )
        if array is not None and name in ("regressor", "covariates"):
            arrays[name] = array = array.astype(np.float64)
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has values that are not finite. Leave out those rows.")
    known = arrays["covariates"]
    columns = np.empty((n_rows, 0)) if known is None else known.reshape(n_rows, -1)
    return arrays["labels"], arrays["pairs"], arrays["regressor"], columns


def _design(table, labels, pairs, regressor, covariates):
    """Kind of the test, its labels, and its design."""
    ones = np.ones(len(table))
    if labels is None and regressor is None:
        return "one sample", None, _LinearModel(table, ones, covariates, has_signs=True)
    if labels is None:
        nuisance = np.column_stack([ones, covariates])
        return "regression", None, _LinearModel(table, regressor, nuisance, has_signs=False)
    names = np.unique(labels)
    if len(names) != 2:
        raise ValueError(
            f"labels has {len(names)} different labels, but two were expected. Compare more groups "
            "two by two, and pass numbers as regressor."
        )
    pair_of_names = tuple(names.tolist())
    is_second = labels == names[1]
    if pairs is not None:
        first, second = _matched(pairs, is_second)
        difference = table[second] - table[first]
        changes = covariates[second] - covariates[first]
        model = _LinearModel(difference, ones[: len(first)], changes, has_signs=True)
        return "paired", pair_of_names, model
    if covariates.shape[1]:
        nuisance = np.column_stack([ones, covariates])
        model = _LinearModel(table, is_second.astype(float), nuisance, has_signs=False)
        return "groups", pair_of_names, model
    return "groups", pair_of_names, _TwoGroups(table, is_second)


def _matched(pairs, is_second) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the first and of the second label, pair by pair."""
    rows = []
    for side in (~is_second, is_second):
        places = np.flatnonzero(side)
        rows.append(places[np.argsort(pairs[places], kind="stable")])
    sorted_pairs = [pairs[places] for places in rows]
    repeated = [len(np.unique(names)) < len(names) for names in sorted_pairs]
    if any(repeated) or not np.array_equal(*sorted_pairs):
        raise ValueError(
            "pairs must have one row of each label in each pair. Average repeated rows, and leave "
            "out pairs with a missing row."
        )
    return rows[0], rows[1]


class _LinearModel:
    """Student's t of a regressor, beside others, with residuals rearranged (Freedman-Lane)."""

    def __init__(self, table, regressor, nuisance, *, has_signs: bool):
        n_rows = len(table)
        left, sizes, _ = np.linalg.svd(nuisance, full_matrices=False)
        is_used = sizes > 1e-10 * max(1.0, sizes.max(initial=0.0))
        self.nuisance = left[:, is_used]
        own = regressor - self.nuisance @ (self.nuisance.T @ regressor)
        if not own @ own > 1e-16 * (regressor @ regressor):
            raise ValueError(
                "The regressor or labels are constant or a combination of the covariates. Pass "
                "some that vary independently of the covariates, or leave covariates out."
            )
        self.n_degrees = n_rows - self.nuisance.shape[1] - 1
        if self.n_degrees < 1:
            raise ValueError(
                f"There are {n_rows} rows or pairs, but a model of {n_rows - self.n_degrees} "
                "columns needs more. Pass more rows or fewer covariates."
            )
        self.regressor = own / np.sqrt(own @ own)
        self.scale = np.sqrt(own @ own)
        residual = table - self.nuisance @ (self.nuisance.T @ table)
        self.sizes = np.abs(table).max(axis=0)
        self.residual = residual / np.where(self.sizes > 0, self.sizes, 1)
        self.total = (self.residual**2).sum(axis=0)
        self.has_signs, self.n_rows = has_signs, n_rows

    @property
    def effect(self) -> np.ndarray:
        return self.regressor @ self.residual * self.sizes / self.scale

    @property
    def n_arrangements(self) -> int:
        return 2**self.n_rows if self.has_signs else math.factorial(self.n_rows)

    def all(self) -> Iterator[np.ndarray]:
        if self.has_signs:
            return map(np.array, itertools.product((1.0, -1.0), repeat=self.n_rows))
        return map(np.array, itertools.permutations(range(self.n_rows)))

    def draw(self, random_state) -> np.ndarray:
        if self.has_signs:
            return 1.0 - 2.0 * random_state.randint(2, size=self.n_rows)
        return random_state.permutation(self.n_rows)

    def identity(self) -> np.ndarray:
        return np.ones(self.n_rows) if self.has_signs else np.arange(self.n_rows)

    def statistics(self, arrangements: np.ndarray) -> np.ndarray:
        """Student's t of each arrangement and feature."""
        if self.has_signs:
            regressor = arrangements * self.regressor
            nuisance = arrangements[:, :, np.newaxis] * self.nuisance
        else:
            regressor, nuisance = self.regressor[arrangements], self.nuisance[arrangements]
        product = regressor @ self.residual
        explained = product**2
        for column in range(nuisance.shape[2]):
            explained += (nuisance[:, :, column] @ self.residual) ** 2
        variance = np.maximum(self.total - explained, 0) / self.n_degrees
        return _ratio(product, variance, self.n_rows * self.total / self.n_degrees)


class _TwoGroups:
    """Welch's t of two groups, with labels shuffled."""

    def __init__(self, table, is_second):
        self.n_rows, self.n_second = len(table), int(is_second.sum())
        if min(self.n_second, self.n_rows - self.n_second) < 2:
            raise ValueError(
                f"The groups have {self.n_rows - self.n_second} and {self.n_second} rows, but at "
                "least 2 were expected in each."
            )
        centred = table - table.mean(axis=0)
        self.sizes = np.abs(table).max(axis=0)
        self.values = centred / np.where(self.sizes > 0, self.sizes, 1)
        self.is_second = is_second

    @property
    def effect(self) -> np.ndarray:
        groups = self.values[self.is_second], self.values[~self.is_second]
        return (groups[0].mean(axis=0) - groups[1].mean(axis=0)) * self.sizes

    @property
    def n_arrangements(self) -> int:
        return math.comb(self.n_rows, self.n_second)

    def all(self) -> Iterator[np.ndarray]:
        for places in itertools.combinations(range(self.n_rows), self.n_second):
            yield self._marked(list(places))

    def draw(self, random_state) -> np.ndarray:
        return self._marked(random_state.permutation(self.n_rows)[: self.n_second])

    def _marked(self, places) -> np.ndarray:
        marks = np.zeros(self.n_rows)
        marks[places] = 1
        return marks

    def identity(self) -> np.ndarray:
        return self.is_second.astype(float)

    def statistics(self, arrangements: np.ndarray) -> np.ndarray:
        """Welch's t of each arrangement and feature."""
        squares = self.values**2
        moments = []
        for marks in (arrangements, 1 - arrangements):
            n_rows = marks[0].sum()
            mean = marks @ self.values / n_rows
            spread = np.maximum(marks @ squares / n_rows - mean**2, 0) / (n_rows - 1)
            moments.append((mean, spread))
        effect, variance = moments[0][0] - moments[1][0], moments[0][1] + moments[1][1]
        return _ratio(effect, variance, 2 * squares.max(axis=0))


def _ratio(effect: np.ndarray, variance: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Effects by their standard errors; if nothing varies, 0 without an effect, else infinite.

    Variances are differences of sums of squares; `size` bounds the rounding errors of the sums.
    """
    is_varying = variance > np.maximum(NEGLIGIBLE, 4 * np.finfo(float).eps * size)
    certain = np.where(effect**2 > NEGLIGIBLE, np.copysign(np.inf, effect), 0.0)
    return np.divide(effect, np.sqrt(variance), out=certain, where=is_varying)


def _run(design, alternative, n_permutations: int, random_state) -> dict:
    """Statistics of the observed arrangement and of others, and their p values."""
    rng = check_random_state(random_state)
    is_exact = design.n_arrangements <= n_permutations
    n_total = design.n_arrangements if is_exact else int(n_permutations)
    observed = design.statistics(design.identity()[np.newaxis])[0]
    shown = alternative(observed)
    if is_exact:
        others = (one for one in design.all() if not np.array_equal(one, design.identity()))
    else:
        others = (design.draw(rng) for _ in range(n_total - 1))
    null, n_beyond = [np.array([shown.max()])], np.ones(len(shown))
    limit = shown - _tolerance(shown)
    size = max(1, BLOCK // max(len(shown), design.n_rows))
    while block := list(itertools.islice(others, size)):
        found = alternative(design.statistics(np.stack(block)))
        null.append(found.max(axis=1))
        n_beyond += (found >= limit).sum(axis=0)
    largest = np.concatenate(null)
    return {
        "effect": design.effect,
        "statistic": observed,
        "p_value": corrected(shown, largest),
        "p_uncorrected": n_beyond / n_total,
        "null": largest,
        "n_permutations": n_total,
        "is_exact": is_exact,
    }


def corrected(statistic: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Share of a null distribution that is at least as large, with a tolerance for rounding.

    Parameters
    ----------
    statistic : ndarray
        Statistics of which large ones count.
    null : ndarray of shape (n_arrangements,)
        Largest statistic of each arrangement, the observed one included.

    Returns
    -------
    ndarray of the shape of statistic
        P values, from 1 / n_arrangements to 1.
    """
    below = np.searchsorted(np.sort(null), statistic - _tolerance(statistic), side="left")
    return 1 - below / len(null)


def _tolerance(statistic: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(statistic), 1e-9 * (1 + np.abs(statistic)), 0.0)
