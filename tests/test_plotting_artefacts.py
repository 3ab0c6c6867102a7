"""The picture of bad segments shows scores, threshold and segments where they are."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from skdyn.plotting import BadSegmentsDisplay
from skdyn.preprocessing import BadSegments


@pytest.fixture(autouse=True)
def close_figures():
    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before, "global settings changed"


@pytest.fixture
def sessions():
    X = list(np.random.default_rng(0).standard_normal((3, 400, 4)))
    X[0][100:120] *= 100
    X[1][390:] = np.nan
    X[2][200:300] = 0
    return X


@pytest.mark.parametrize("form", ["list", "stack", "rows"])
@pytest.mark.parametrize("rate", [None, 250])
def test_bad_segments_are_drawn_where_they_are(sessions, form, rate):
    X = {"list": sessions, "stack": np.stack(sessions), "rows": np.concatenate(sessions)}[form]
    labels = np.repeat([0, 1, 2], 400) if form == "rows" else None
    bad = BadSegments().fit(X, sessions=labels)
    display = BadSegmentsDisplay.from_estimator(bad, sampling_frequency=rate)
    step = 1 if rate is None else 1 / rate
    times, scores = (np.delete(values, [400, 801]) for values in display.line_.get_data())
    np.testing.assert_allclose(times, np.arange(1200) * step)
    np.testing.assert_array_equal(scores, np.ravel(bad.scores_))
    shaded = np.zeros(1200, dtype=bool)
    for span in display.spans_:
        box = span.get_path().get_extents(span.get_patch_transform())
        shaded |= (times > box.x0) & (times < box.x1)
    np.testing.assert_array_equal(shaded, np.ravel(bad.is_bad_))
    assert [reason for *_, reason in display.segments] == list(bad.segments_["reason"])
    borders = [line.get_xdata()[0] for line in display.borders_]
    np.testing.assert_allclose(borders, np.array([399.5, 799.5]) * step)
    assert set(display.threshold_line_.get_ydata()) == {bad.threshold_}
    assert display.ax_.get_xlabel() == ("Time (samples)" if rate is None else "Time (s)")
    assert display.ax_.get_ylabel() == "Log amplitude\n(robust sd)"
    low, high = display.ax_.get_ylim()
    assert low <= 0
    assert high > np.nanmax(scores)


def test_each_reason_is_named_once(sessions):
    X = [*sessions, *sessions]
    display = BadSegmentsDisplay.from_estimator(BadSegments().fit(X))
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    reasons = [reason.capitalize() for *_, reason in display.segments]
    assert len(display.spans_) == len(reasons) > len(texts) - 1
    assert texts == [*dict.fromkeys(reasons), "Threshold"]


def test_a_clean_or_short_recording_is_drawn():
    X = np.random.default_rng(0).standard_normal((400, 4))
    for rows in (X, X[:10]):
        display = BadSegmentsDisplay.from_estimator(BadSegments().fit(rows))
        assert display.spans_ == []
        assert display.ax_.get_ylim()[1] > 6


def test_bad_segments_in_given_axes(sessions):
    bad = BadSegments().fit(sessions)
    fig, axes = plt.subplots(2)
    display = BadSegmentsDisplay.from_estimator(bad, ax=axes[1])
    assert display.figure_ is fig
    assert not axes[0].has_data()
    with pytest.raises(ValueError, match="ax has 2 axes, but must have 1"):
        display.plot(axes)
    with pytest.raises(NotFittedError):
        BadSegmentsDisplay.from_estimator(BadSegments())
