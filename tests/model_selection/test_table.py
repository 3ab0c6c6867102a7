"""The table, the text and the picture of a comparison."""

import pickle

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import Ridge

from skdyn import NEMSRegressor
from skdyn.model_selection import ModelComparison, compare_models


@pytest.fixture(scope="module")
def data():
    """Three neurons that follow the row three before, with more and more noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((240, 1))
    y = np.roll(X, 3, axis=0) + [0.1, 0.5, 1.0] * rng.standard_normal((240, 3))
    return X, y


def fir(n_lags):
    return NEMSRegressor(f"fir.{n_lags}x1x3")


class Failing(Ridge):
    def fit(self, X, y):
        raise RuntimeError("no luck")


def test_comparison_names_candidates_by_type(data):
    X, y = data
    assert compare_models([Ridge(), fir(2), Ridge(2)], X, y, cv=2).names == [
        "ridge-1",
        "nemsregressor",
        "ridge-2",
    ]
    assert compare_models([("b", Ridge()), ("a", fir(2))], X, y, cv=2).names == ["b", "a"]
    assert compare_models({1: Ridge()}, X, y, cv=2).best_name == 1


@pytest.fixture(scope="module")
def result(data):
    return compare_models({n: fir(n) for n in (2, 5, 4)}, *data, cv=3, scoring="correlation")


def test_to_frame_has_the_best_candidate_first(result):
    frame = result.to_frame()
    assert frame.index.tolist() == [result.names[n] for n in np.argsort(-result.mean_score)]
    for n, name in enumerate(result.names):
        assert frame.loc[name, "mean_score"] == result.mean_score[n]
        assert frame.loc[name, "fit_seconds"] == np.median(result.fit_seconds[n])
        assert frame.loc[name, "p_value"] == result.p_value[n]
    lines = repr(result).splitlines()
    assert lines[0] == "3 candidates, 3 folds; mean ± standard error over 3 outputs and folds"
    assert [line.split()[0] for line in lines[2:]] == [str(name) for name in frame.index]
    assert "best" in lines[2]
    assert lines[1].split() == ["score", "difference", "p", "fit", "(s)"]
    worst = np.argmin(result.mean_score)
    assert f"  {result.p_value[worst]:.3f}  " in lines[-1]


def test_comparison_is_a_bunch_that_pickles(result):
    assert isinstance(result, ModelComparison)
    copy = pickle.loads(pickle.dumps(result))
    assert isinstance(copy, ModelComparison)
    assert repr(copy) == repr(result)
    assert copy["scores"] is copy.scores
    assert (result.fit_seconds > 0).all()
    assert (result.score_seconds > 0).all()


def test_plot_shows_means_errors_and_units(result):
    before = dict(mpl.rcParams)
    fig, axes = result.plot()
    fig.canvas.draw()
    order = np.argsort(result.rank)
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert names == [str(result.names[n]) for n in order]
    low, high = axes[0].get_ylim()
    assert low > high, "the best is not at the top"
    shown = [
        (axes[0], result.mean_score, result.standard_error),
        (axes[1], result.difference_to_best, result.difference_standard_error),
    ]
    for panel, means, errors in shown:
        points, _, (bars,) = panel.containers[0]
        np.testing.assert_allclose(points.get_xdata(), means[order])
        widths = [np.ptp(segment[:, 0]) / 2 for segment in bars.get_segments()]
        np.testing.assert_allclose(widths, errors[order], atol=1e-12)
    units = np.stack([line.get_xdata() for line in axes[0].lines[:3]])
    np.testing.assert_allclose(units, result.scores[order, :, 0].mean(axis=1))
    labels = [panel.get_xlabel() for panel in axes]
    assert labels == ["Held-out score", "Difference to the best"]
    assert axes[0].get_ylabel() == "Candidate"
    assert any(list(line.get_xdata()) == [0, 0] for line in axes[1].lines)
    texts = [text.get_text() for text in axes[1].get_legend().get_texts()]
    assert texts == ["Output", "Mean ± SE"]
    given = plt.figure().subplots(1, 2)
    assert result.plot(ax=given)[1][0] is given[0]
    plt.close("all")
    assert dict(mpl.rcParams) == before


def test_plot_names_failed_candidates(data):
    with pytest.warns(FitFailedWarning):
        result = compare_models({"bad": Failing(), "good": Ridge()}, *data, cv=3)
    _, axes = result.plot()
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["good", "bad (failed)"]
    plt.close("all")


# The simplest.


@pytest.mark.parametrize(
    ("alpha", "expected"), [(0.5, "four"), (0.2, "three"), (0.05, "three"), (0.001, "two")]
)
def test_simplest_is_the_first_that_is_not_significantly_worse(alpha, expected):
    comparison = ModelComparison(
        names=["failed", "two", "three", "four", "five"],
        p_value=np.array([np.nan, 0.02, 0.2, 1.0, 0.9]),
    )
    assert comparison.simplest(alpha) == expected


def test_simplest_of_a_single_fold_is_the_best(data):
    X, y = data
    rows = np.arange(len(X))
    folds = [(rows[:160], rows[160:])]
    comparison = compare_models({n: fir(n) for n in (2, 4)}, X, y, cv=folds)
    assert comparison.simplest() == comparison.best_name == 4
    for alpha in (0, 1):
        with pytest.raises(ValueError, match=f"between 0 and 1, but is {alpha}"):
            comparison.simplest(alpha)
