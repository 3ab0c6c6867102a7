"""Runs from different seeds: agreement of their modes, and the most central run."""

import itertools

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdyn.model_selection import BlockKFold, compare_models, select_run


class Drawn(TransformerMixin, BaseEstimator):
    """Mixing coefficients that are nothing but the seed's."""

    __metadata_request__transform = {"sessions": True}  # noqa: RUF012

    def __init__(self, random_state=None, n_modes=3):
        self.random_state = random_state
        self.n_modes = n_modes

    def fit(self, X, y=None):
        self.covariances_ = np.ones((self.n_modes, 1, 1))
        return self

    def transform(self, X, *, sessions=None):
        self.sessions_ = sessions
        rng = np.random.default_rng(self.random_state)
        return rng.dirichlet(np.ones(self.n_modes), size=len(X))

    def score(self, X, y=None):
        return float(self.random_state or 0)


def agreement_by_hand(alpha, other):
    """The best of all orders, with NumPy's correlation."""
    n_modes = alpha.shape[1]
    matrix = np.corrcoef(alpha.T, other.T)[:n_modes, n_modes:]
    orders = itertools.permutations(range(n_modes))
    return max(np.mean([matrix[i, order[i]] for i in range(n_modes)]) for order in orders)


def runs_around(n_runs, noise, seed=0):
    """Shuffled modes of one truth, with more or less noise."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet(np.ones(3), size=50)
    return [
        (truth + scale * rng.standard_normal(truth.shape))[:, rng.permutation(3)]
        for scale in np.resize(noise, n_runs)
    ]


# Which run.


@pytest.mark.parametrize("seed", range(5))
def test_select_run_chooses_the_run_nearest_to_the_others(seed):
    runs = runs_around(5, [0.4, 0.3, 0.2, 0.1, 0.5], seed)
    index, agreement = select_run(runs, return_agreement=True)
    for i, j in itertools.product(range(5), repeat=2):
        assert agreement[i, j] == pytest.approx(agreement_by_hand(runs[i], runs[j]), abs=1e-12)
    others = [np.mean([agreement[i, j] for j in range(5) if j != i]) for i in range(5)]
    assert index == np.argmax(others) == 3
    assert select_run(runs) == index


def test_select_run_chooses_the_first_of_equal_runs():
    truth = runs_around(1, [0.0])[0]
    index, agreement = select_run([truth, truth[:, [1, 2, 0]], truth], return_agreement=True)
    assert index == 0
    np.testing.assert_allclose(agreement, 1, atol=1e-12)


def test_agreement_counts_modes_without_partner_as_zero():
    truth = runs_around(1, [0.0])[0]
    flat = truth.copy()
    flat[:, 1] = 0.2
    _, agreement = select_run([truth, flat, truth[:, [2, 0]]], return_agreement=True)
    assert agreement[0, 1] == pytest.approx(2 / 3)
    assert agreement[0, 2] == agreement[2, 0] == pytest.approx(2 / 3)
    assert agreement[1, 1] == pytest.approx(2 / 3)


def test_select_run_transforms_by_estimators():
    X, sessions = np.zeros((40, 2)), np.repeat([0, 1], 20)
    runs = [make_pipeline(StandardScaler(), Drawn(seed)).fit(X) for seed in (1, 2, 3)]
    alphas = [np.random.default_rng(seed).dirichlet(np.ones(3), size=40) for seed in (1, 2, 3)]
    expected, matrix = select_run(alphas, return_agreement=True)
    found, agreement = select_run(runs, X, sessions=sessions, return_agreement=True)
    assert found == expected
    np.testing.assert_allclose(agreement, matrix)
    np.testing.assert_array_equal(runs[0][-1].sessions_, sessions)
    with config_context(enable_metadata_routing=True):
        assert select_run(runs, X) == expected
    assert runs[0][-1].sessions_ is None


# A tiny fit says that it explains nothing.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_select_run_takes_dynemo_and_lists(recording, small_dynemo):
    parts = [recording[:200], recording[200:]]
    runs = [small_dynemo(n_epochs=1, random_state=seed).fit(parts) for seed in (0, 1, 0)]
    index, agreement = select_run(runs, parts, return_agreement=True)
    assert index == 0
    assert agreement[0, 2] == pytest.approx(1, abs=1e-6)
    by_label = select_run(
        runs, recording, sessions=np.repeat([0, 1], [200, 400]), return_agreement=True
    )
    np.testing.assert_allclose(by_label[1], agreement)


@pytest.mark.parametrize(
    ("runs", "given", "message"),
    [
        ([np.ones((5, 2))], {}, "at least two, but there are 1"),
        ([np.ones((5, 2))] * 2, {"X": np.ones((5, 2))}, "mixing coefficients and X"),
        ([np.ones((5, 2))] * 2, {"sessions": np.ones(5)}, "sessions was given with mixing"),
        ([Drawn(), Drawn()], {}, "estimators and no X"),
        ([np.eye(5, 2), np.eye(6, 2)], {}, "5 and 6 samples"),
    ],
)
def test_select_run_says_what_is_wrong(runs, given, message):
    with pytest.raises(ValueError, match=message):
        select_run(runs, **given)


@pytest.mark.parametrize("seed", range(3))
def test_select_run_takes_sessions_of_each_run(seed):
    """Runs as lists of sessions, as stacks, and as rows give the same agreement."""
    runs = runs_around(4, [0.4, 0.3, 0.2, 0.1], seed)
    wanted = select_run(runs, return_agreement=True)
    forms = [
        [np.split(run, [10, 35]) for run in runs],
        [run.reshape(2, 25, 3) for run in runs],
        np.stack(runs).reshape(4, 5, 10, 3),
    ]
    for form in forms:
        index, agreement = select_run(form, return_agreement=True)
        assert index == wanted[0]
        np.testing.assert_allclose(agreement, wanted[1])
    with pytest.raises(ValueError, match="the same sessions were expected in each"):
        select_run([np.split(runs[0], [10]), np.split(runs[1], [40])])


def test_select_run_unwraps_searches():
    X, sessions = np.zeros((40, 2)), np.repeat([0, 1], 20)
    drawn = [make_pipeline(StandardScaler(), Drawn(seed)) for seed in (1, 2, 3)]
    searches = [GridSearchCV(run, {}, cv=2).fit(X) for run in drawn]
    wanted = select_run([run.fit(X) for run in drawn], X, return_agreement=True)
    found = select_run(searches, X, sessions=sessions, return_agreement=True)
    assert found[0] == wanted[0]
    np.testing.assert_array_equal(found[1], wanted[1])
    np.testing.assert_array_equal(searches[0].best_estimator_[-1].sessions_, sessions)
    with pytest.raises(NotFittedError, match="This GridSearchCV instance is not fitted yet"):
        select_run([GridSearchCV(run, {}) for run in drawn], X)


# Repeats in a comparison.


def test_agreement_is_the_mean_over_pairs_and_folds():
    X = np.zeros((60, 1))
    result = compare_models([Drawn(), Ridge()][:1], X, cv=3, repeat=3, random_state=0)
    values = []
    for _, test in BlockKFold(3).split(X):
        alphas = [
            np.random.default_rng(seed).dirichlet(np.ones(3), size=len(test))
            for seed in result.seeds
        ]
        values += [agreement_by_hand(*pair) for pair in itertools.combinations(alphas, 2)]
    assert result.agreement[0] == pytest.approx(np.mean(values))
    assert "agreement" in repr(result)
    np.testing.assert_array_equal(result.scores[0], np.tile(result.seeds, (3, 1)))
    assert result.mean_score[0] == pytest.approx(np.mean(result.seeds))


def test_repeats_set_random_state_of_every_step():
    X = np.zeros((30, 1))
    inner = make_pipeline(StandardScaler(), Drawn(7))
    options = {"cv": 2, "repeat": 2, "return_estimators": True}
    first, again, other = (
        compare_models([make_pipeline(inner)], X, random_state=seed, **options)
        for seed in (0, 0, 1)
    )
    assert first.seeds == again.seeds
    assert first.seeds != other.seeds
    assert len(set(first.seeds)) == 2
    for fold, number in np.ndindex(2, 2):
        fitted = first.estimators[0, fold, number]
        assert fitted[-1][-1].random_state == first.seeds[number]
    assert inner[-1].random_state == 7
    kept = compare_models([inner], X, cv=2)
    assert kept.seeds == [None]
    assert np.all(kept.scores == 7)
    assert compare_models([inner], X, cv=2, random_state=0).scores[0, 0, 0] == first.seeds[0]


# A tiny fit says that it explains nothing.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_repeats_find_the_same_modes_with_the_same_seed(recording, small_dynemo):
    model = make_pipeline(StandardScaler(), small_dynemo(n_epochs=1))
    options = {"cv": 2, "repeat": 2, "return_estimators": True}
    result = compare_models([model], recording, random_state=0, **options)
    assert -1 <= result.agreement[0] < 1 - 1e-6
    for fold, (train, test) in enumerate(BlockKFold(2).split(recording)):
        for number, seed in enumerate(result.seeds):
            again = clone(model).set_params(dynemoestimator__random_state=seed)
            again.fit(recording[train])
            np.testing.assert_array_equal(
                again.transform(recording[test]),
                result.estimators[0, fold, number].transform(recording[test]),
            )
            assert again.score(recording[test]) == result.scores[0, fold, number]

    class Fixed(np.random.RandomState):
        def randint(self, *args, size=None, **kwargs):
            return np.full(size, 5)

    same = compare_models([model], recording, random_state=Fixed(), **options)
    assert same.agreement[0] == pytest.approx(1, abs=1e-6)


def test_agreement_needs_modes_and_repeats():
    X = np.random.default_rng(0).standard_normal((60, 1))
    with_modes, without, mixture = Drawn(), StandardScaler(), GaussianMixture()
    once = compare_models([with_modes], X, cv=2)
    assert np.isnan(once.agreement).all()
    assert "agreement" not in repr(once)

    def one(model, X, y=None):
        return 1.0

    twice = compare_models(
        [with_modes, without, mixture], X, cv=2, repeat=2, random_state=0, scoring=one
    )
    assert np.isfinite(twice.agreement).tolist() == [True, False, False]


def test_standard_errors_are_of_means_over_repeats():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 1))

    def noisy(model, X, y=None):
        return model.random_state / 2**31 + X.mean()

    result = compare_models([Drawn()], X, cv=4, repeat=3, random_state=0, scoring=noisy)
    folds = result.scores[0].mean(axis=1)
    assert result.scores.shape == (1, 4, 3)
    spread = folds.std(ddof=1) * np.sqrt(1 / 4 + 1 / 3)
    assert result.standard_error[0] == pytest.approx(spread)


def test_repeats_leave_the_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    compare_models([Drawn()], np.zeros((20, 1)), cv=2, repeat=2)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
