"""Filters, nonlinearities and predictions are at the right positions of their axes."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backend_bases import MouseEvent

from skdyn.plotting import plot_filters, plot_nonlinearity, plot_predictions


@pytest.fixture(autouse=True)
def close_figures():
    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before, "global settings changed"


@pytest.fixture
def filters():
    return np.random.default_rng(0).standard_normal((5, 7, 3))


def value_at(image, *place):
    """Value of the picture at a place, in the units of its axes."""
    panel = image.axes
    event = MouseEvent(
        "motion_notify_event", panel.figure.canvas, *panel.transData.transform(place)
    )
    return image.get_cursor_data(event)


def tick_labels(axis):
    axis.axes.figure.canvas.draw()
    return [label.get_text() for label in axis.get_ticklabels()]


# ----------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("rate", "step", "label"),
    [(None, 1, "Lag (samples)"), (100, 10, "Lag (ms)"), (2, 0.5, "Lag (s)")],
)
def test_each_weight_is_at_its_lag_and_channel(filters, rate, step, label):
    fig, axes = plot_filters(filters, sampling_frequency=rate, titles=list("abc"))
    fig.canvas.draw()
    assert [panel.get_title() for panel in axes] == list("abc")
    for k, panel in enumerate(axes):
        assert panel.get_xlabel() == label
        for lag in range(5):
            for channel in range(7):
                shown = value_at(panel.images[0], lag * step, channel)
                assert shown == filters[lag, channel, k]
        assert panel.images[0].get_clim() == (-np.abs(filters).max(), np.abs(filters).max())
    low, high = axes[0].get_ylim()
    assert low < high, "channel 0 is not at the bottom"


def test_lags_that_begin_before_zero(filters):
    fig, axes = plot_filters(filters[:, :, 0], lags=np.arange(-2, 3), sampling_frequency=1000)
    fig.canvas.draw()
    assert axes.shape == (1,)
    assert axes[0].get_xlim() == pytest.approx((-2.5, 2.5))
    assert value_at(axes[0].images[0], -2, 6) == filters[0, 6, 0]


def test_channels_have_names_or_frequencies():
    filters = np.ones((3, 18))
    frequencies = np.geomspace(200, 20000, 18)
    _, axes = plot_filters(filters, frequencies=frequencies)
    assert axes[0].get_ylabel() == "Frequency (kHz)"
    places, texts = axes[0].get_yticks(), tick_labels(axes[0].yaxis)
    assert texts[0] == "0.2"
    assert texts[-1] == "20"
    for place, text in zip(places, texts, strict=True):
        assert float(text) == pytest.approx(frequencies[int(place)] / 1000, rel=0.05)
    _, axes = plot_filters(filters[:, :3], frequencies=[20, 50, 800])
    assert axes[0].get_ylabel() == "Frequency (Hz)"
    assert tick_labels(axes[0].yaxis) == ["20", "50", "800"]
    _, axes = plot_filters(filters, channel_names=[f"c{k}" for k in range(18)])
    assert len(axes[0].get_yticks()) == 5
    assert tick_labels(axes[0].yaxis)[-1] == "c17"
    _, axes = plot_filters(filters[:, :3], channel_names=list("abc"))
    assert tick_labels(axes[0].yaxis) == ["a", "b", "c"]
    _, axes = plot_filters(filters)
    assert tick_labels(axes[0].yaxis) == ["0", "17"]
    assert axes[0].get_ylabel() == "Channel"


@pytest.mark.parametrize(
    ("n_filters", "grid"), [(1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (9, (3, 3))]
)
def test_labels_stand_at_the_edges_of_a_grid(n_filters, grid):
    _, axes = plot_filters(np.ones((3, 4, n_filters)))
    assert axes[0].get_subplotspec().get_gridspec().get_geometry() == grid
    for number, panel in enumerate(axes):
        below = number + grid[1] >= n_filters
        assert panel.get_xlabel() == ("Lag (samples)" if below else "")
        assert panel.get_ylabel() == ("Channel" if number % grid[1] == 0 else "")


@pytest.mark.parametrize(
    ("shape", "keywords", "message"),
    [
        ((5,), {}, r"filters has shape \(5,\), but \(n_lags, n_channels\)"),
        ((5, 0), {}, "filters has shape"),
        ((5, 4), {"lags": [0, 1, 2]}, "lags must be 5 numbers in steps of one"),
        ((5, 4), {"lags": [0, 1, 2, 3, 5]}, "lags must be 5"),
        ((5, 4), {"sampling_frequency": -1}, "sampling_frequency must be above 0 Hz, but is -1"),
        ((5, 4), {"titles": ["a", "b"]}, "titles has 2 entries, but must have 1"),
        ((5, 4), {"channel_names": ["a"]}, "channel_names has 1 entries, but must have 4"),
        ((5, 4), {"frequencies": [1, 2]}, "frequencies has 2 entries, but must have 4"),
        (
            (5, 4),
            {"frequencies": [1] * 4, "channel_names": ["a"] * 4},
            "channel_names and frequencies were both given",
        ),
    ],
)
def test_wrong_filters(shape, keywords, message):
    with pytest.raises(ValueError, match=message):
        plot_filters(np.ones(shape), **keywords)
    assert not plt.get_fignums(), "a figure was left behind"


# --------------------------------------------------------------------------- nonlinearities


def test_a_curve_goes_over_the_range_of_its_inputs():
    inputs = np.random.default_rng(0).standard_normal((50, 2)) * [1, 30]
    _, axes = plot_nonlinearity(np.tanh, inputs, xlabel="Drive", ylabel="Rate", titles=["a", "b"])
    for channel, panel in enumerate(axes):
        (curve,) = panel.lines
        x, y = curve.get_data()
        assert (x[0], x[-1]) == (inputs[:, channel].min(), inputs[:, channel].max())
        np.testing.assert_allclose(y, np.tanh(x))
        assert panel.get_xlabel() == "Drive"
        assert panel.get_title() == "ab"[channel]
    assert [panel.get_ylabel() for panel in axes] == ["Rate", ""]
    assert axes[0].get_legend() is None


def test_bins_hold_the_mean_of_the_response_and_its_error():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal(100)
    response = inputs**2 + rng.standard_normal(100)
    response[rng.permutation(100)[:40]] = np.nan
    _, axes = plot_nonlinearity(np.square, inputs, response, n_bins=6)
    (bars,) = axes[0].containers
    points, _, (lines,) = bars.lines
    known = ~np.isnan(response)
    borders = np.quantile(inputs[known], np.arange(1, 6) / 6)
    place = np.searchsorted(borders, inputs[known])
    for number in range(6):
        inside = response[known][place == number]
        assert len(inside) == 10
        x, y = points.get_xydata()[number]
        assert x == pytest.approx(inputs[known][place == number].mean())
        assert y == pytest.approx(inside.mean())
        (_, low), (_, high) = lines.get_segments()[number]
        assert (high - low) / 2 == pytest.approx(inside.std(ddof=1) / np.sqrt(10))
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == [
        "Model",
        "Measured ± SE",
    ]


def test_an_input_that_does_not_vary_and_fewer_samples_than_bins():
    _, axes = plot_nonlinearity(np.exp, np.ones(5), np.arange(5.0), n_bins=20)
    points = axes[0].containers[0].lines[0]
    np.testing.assert_array_equal(points.get_ydata(), np.arange(5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.exp, np.ones((5, 2)), np.ones(5)), r"response has shape \(5, 1\), but \(5, 2"),
        ((np.exp, [np.ones((5, 2)), np.ones((5, 3))]), r"inputs has the shape \[\(5, 2\), \(5, 3"),
        ((np.exp, np.ones((3, 40))), r"inputs has 3 rows and 40 columns, but rows are time.*list"),
        ((np.exp, [1.0, np.nan]), "inputs has NaN"),
        ((np.sum, np.ones(5)), "output of the nonlinearity has shape"),
    ],
)
def test_wrong_nonlinearities(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_nonlinearity(*arguments)
    assert not plt.get_fignums()


# ------------------------------------------------------------------------------ predictions


def test_predictions_are_drawn_over_responses():
    rng = np.random.default_rng(0)
    prediction = rng.standard_normal((60, 2))
    response = -prediction + 0.5 * rng.standard_normal((60, 2))
    fig, axes = plot_predictions(
        response, prediction, sampling_frequency=10, start=20, n_samples=30
    )
    assert isinstance(fig, plt.Figure)
    for output, panel in enumerate(axes):
        times = np.arange(20, 50) / 10
        for line, values in zip(panel.lines, (response, prediction), strict=True):
            np.testing.assert_allclose(line.get_xydata(), np.c_[times, values[20:50, output]])
        r = np.corrcoef(response[:, output], prediction[:, output])[0, 1]
        title = panel.get_title(loc="left")
        assert title == f"r = \N{MINUS SIGN}{-r:.2f}"
        assert panel.get_xlim() == pytest.approx((2, 4.9))
        assert panel.get_ylabel() == f"Output {output}"
    assert [panel.get_xlabel() for panel in axes] == ["", "Time (s)"]
    texts = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert texts == ["Response", "Prediction"]


def test_a_response_with_gaps_is_correlated_where_it_is_known():
    prediction = np.arange(10.0)
    response = prediction**2
    response[[2, 7]] = np.nan
    _, axes = plot_predictions(response, prediction)
    known = ~np.isnan(response)
    r = np.corrcoef(response[known], prediction[known])[0, 1]
    assert axes[0].get_title(loc="left") == f"r = {r:.2f}"
    np.testing.assert_array_equal(axes[0].lines[0].get_ydata(), response)
    assert axes[0].get_ylabel() == "Response"
    _, axes = plot_predictions(response * np.nan, prediction, output_names=["Unit"])
    assert axes[0].get_title(loc="left") == "r = nan"
    assert axes[0].get_ylabel() == "Unit"


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((np.ones(5), np.ones(6)), {}, r"response has the shape \(5, 1\) and prediction \(6, 1\)"),
        ((np.ones(5), np.ones((5, 2, 1))), {}, "response has the shape"),
        ((np.ones((3, 40)), np.ones((3, 40))), {}, r"prediction has 3 rows .* list\(prediction\)"),
        (
            ([np.ones(5), np.ones(4)], np.ones(8)),
            {},
            r"response has the shape \(9, 1\) and prediction \(8",
        ),
        ((np.ones(5), np.ones(5)), {"start": 5}, "start must be one of the 5 rows.*but is 5"),
        ((np.ones(5), np.ones(5)), {"start": True}, "start must be .* but is True"),
        ((np.ones(5), np.ones(5)), {"labels": ["a"]}, "labels has 1 entries, but must have 2"),
        (
            (np.ones(5), np.ones(5)),
            {"output_names": []},
            "output_names has 0 entries, but must have 1",
        ),
    ],
)
def test_wrong_predictions(arguments, keywords, message):
    with pytest.raises(ValueError, match=message):
        plot_predictions(*arguments, **keywords)
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    "draw",
    [
        lambda **where: plot_filters(np.ones((3, 4, 2)), **where),
        lambda **where: plot_nonlinearity(np.exp, np.ones((9, 2)), **where),
        lambda **where: plot_predictions(np.ones((9, 2)), np.ones((9, 2)), **where),
    ],
)
def test_pictures_go_where_they_are_sent(draw):
    fig, given = plt.subplots(1, 3, layout="constrained")
    returned, axes = draw(ax=given[1:])
    assert returned is fig
    assert list(axes) == list(given[1:])
    assert not given[0].has_data()
    loose = [fig.add_axes([0.1, 0.1, 0.2, 0.2]), fig.add_axes([0.5, 0.1, 0.2, 0.2])]
    assert list(draw(ax=loose)[1]) == loose
    with pytest.raises(ValueError, match="ax and fig were both given"):
        draw(ax=given[1:], fig=fig)
    whole = plt.figure(layout="constrained")
    left, right = whole.subfigures(1, 2)
    returned, axes = draw(fig=right)
    assert returned is right
    assert not left.axes
    assert set(axes) <= set(right.axes)
    assert plt.get_fignums() == [fig.number, whole.number]
    whole.canvas.draw()
