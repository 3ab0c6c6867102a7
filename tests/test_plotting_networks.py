"""Circles of edges, maps of the head, and rasters show the numbers that they are given."""

import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdyn.analysis import channel_modes, mode_spectra, mode_statistics
from skdyn.analysis.pictures import _on_circle, _spread
from skdyn.plotting import mode_palette, plot_circles, plot_raster, plot_topomaps

NAMES = ["Fp1", "Fp2", "C3", "C4", "O1", "O2"]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def coherence():
    """Networks of three modes and six channels; the upper triangle counts."""
    return RNG.random((3, 6, 6))


@pytest.fixture(scope="module")
def spectra():
    X = [RNG.standard_normal((400, 6)) for _ in range(2)]
    alpha = [np.repeat(RNG.dirichlet(np.ones(2), 20), 20, axis=0) for _ in X]
    return mode_spectra(X, alpha, sampling_frequency=100)


def arcs(panel):
    """Ends of the arcs of a circle, as pairs of points, and their colours and widths."""
    (arcs,) = panel.collections
    ends = [path.vertices[[0, -1]] for path in arcs.get_paths()]
    return np.array(ends).reshape(-1, 2, 2), arcs.get_edgecolors(), arcs.get_linewidths()


def pairs_of(panel, points):
    """Pairs of channels that arcs join."""
    return [
        tuple(int(np.linalg.norm(points - end, axis=1).argmin()) for end in pair)
        for pair in arcs(panel)[0]
    ]


# ------------------------------------------------------------------------------------- circles


@pytest.mark.parametrize("signed", [False, True])
def test_circles_have_the_strongest_edges(coherence, signed):
    matrices = coherence - 0.5 if signed else coherence
    _, axes = plot_circles(matrices, n_edges=4)
    for panel, matrix in zip(axes, matrices, strict=True):
        size = {(i, j): abs(matrix[i, j]) for i in range(6) for j in range(i + 1, 6)}
        expected = sorted(size, key=size.get)[-4:]
        assert pairs_of(panel, _on_circle(None, 6)) == expected
        assert (np.diff(arcs(panel)[2]) > 0).all()


def test_circles_have_one_colour_scale_and_no_white_edges(coherence):
    fig, axes = plot_circles(coherence, n_edges=4, label="Coherence")
    bar = fig.axes[-1]
    assert bar.get_ylabel() == "Coherence"
    drawn = np.concatenate([arcs(panel)[1] for panel in axes])
    assert drawn[:, :3].min(axis=1).max() < 0.5
    # The same value has the same colour in each panel.
    again = plot_circles(np.stack([coherence[0]] * 2), n_edges=4)[1]
    np.testing.assert_array_equal(arcs(again[0])[1], arcs(again[1])[1])


def test_zeros_and_missing_values_are_no_edges():
    matrix = np.full((5, 5), np.nan)
    matrix[0, 3], matrix[1, 2], matrix[2, 4] = 0.5, -0.2, 0
    _, axes = plot_circles(matrix)
    assert pairs_of(axes[0], _on_circle(None, 5)) == [(1, 2), (0, 3)]
    for nothing in (np.zeros((2, 3, 3)), np.ones((1, 1, 1))):
        fig, axes = plot_circles(nothing)
        assert not sum(len(arcs(panel)[0]) for panel in axes)
        fig.draw_without_rendering()


def test_channels_with_edges_have_names(coherence):
    _, axes = plot_circles(coherence[:1], n_edges=2, channel_names=NAMES)
    names = {text.get_text() for text in axes[0].texts}
    assert names == {NAMES[c] for pair in pairs_of(axes[0], _on_circle(None, 6)) for c in pair}


def test_order_goes_clockwise_from_the_top(coherence):
    order = [3, 1, 0, 5, 4, 2]
    points = _on_circle(order, 6)
    angles = np.arctan2(*points[order].T) % (2 * np.pi)
    np.testing.assert_allclose(angles, (np.arange(6) + 0.5) * np.pi / 3)
    plain = plot_circles(coherence, n_edges=4)[1]
    moved = plot_circles(coherence, n_edges=4, order=order)[1]
    for one, other in zip(plain, moved, strict=True):
        assert pairs_of(one, _on_circle(None, 6)) == pairs_of(other, points)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_names_are_apart_in_the_order_of_their_channels(heights):
    y = np.array(heights)
    x = np.where(np.arange(len(y)) % 2, -1, 1) * np.sqrt(1 - y**2)
    channels = np.arange(len(y))
    places = _spread(np.column_stack([x, y]), channels)
    for side in (x >= 0, x < 0):
        own = channels[side][np.argsort(y[side], kind="stable")]
        found = np.array([places[channel] for channel in own.tolist()])
        assert (np.diff(found) > 0.1).all()
        # Names that are apart anyway stay beside their channels.
        if (np.diff(y[own]) > 0.2).all():
            np.testing.assert_allclose(found, 1.16 * y[own], atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_edges": 0}, "n_edges must be a whole number of at least 1"),
        ({"order": [0, 1, 2, 3, 4, 4]}, "order must hold each of the numbers from 0 to 5 once"),
        ({"channel_names": NAMES[:4]}, "channel_names has 4 entries, but must have 6"),
        ({"mode_labels": ["alpha"]}, "mode_labels has 1 entries, but must have 3"),
    ],
)
def test_circles_refuse_what_does_not_fit(coherence, changes, message):
    with pytest.raises(ValueError, match=message):
        plot_circles(coherence, **changes)
    with pytest.raises(ValueError, match="n_channels, n_channels"):
        plot_circles(coherence[:, :4])
    assert not plt.get_fignums()


def test_results_draw_their_own_circles(spectra, recording, small_dynemo):
    band = spectra.band(8, 20)
    fig, axes = band.plot_circles(n_edges=3, mode_labels=["slow", "fast"])
    plain = plot_circles(band.coherence.mean(axis=0), n_edges=3)[1]
    for one, other in zip(axes, plain, strict=True):
        np.testing.assert_array_equal(arcs(one)[0], arcs(other)[0])
    assert [panel.get_title() for panel in axes] == ["slow", "fast"]
    assert fig.axes[-1].get_ylabel() == "Coherence, 8 to 20 Hz"
    group = spectra.group().band(8, 20).plot_circles()[1]
    assert {text.get_text() for text in group[0].texts} == {f"x{channel}" for channel in range(6)}
    modes = channel_modes(small_dynemo().fit(recording))
    for partial, matrices in [(False, modes.correlations), (True, modes.partial_correlations)]:
        axes = modes.plot_circles(partial=partial, n_edges=3)[1]
        plain = plot_circles(matrices, n_edges=3)[1]
        np.testing.assert_array_equal(arcs(axes[0])[0], arcs(plain[0])[0])


# ---------------------------------------------------------------------------------------- maps


@pytest.fixture
def info():
    mne = pytest.importorskip("mne")
    return mne.create_info(NAMES, 100, "eeg").set_montage("biosemi32")


def test_topomaps_have_one_scale(info):
    values = np.abs(RNG.standard_normal((3, 6)))
    fig, axes = plot_topomaps(values, info, label="Power (dB)")
    for panel in axes:
        image = panel.images[0]
        assert image.get_clim() == (values.min(), values.max())
        assert image.get_cmap().name == "viridis"
    assert fig.axes[-1].get_ylabel() == "Power (dB)"
    _, axes = plot_topomaps([1.0, -3, 0, 0, 0, 0], info)
    assert axes[0].images[0].get_clim() == (-3, 3)
    assert axes[0].images[0].get_cmap().name == "RdBu_r"
    plot_topomaps(np.ones((1, 6)), info)[0].draw_without_rendering()


def test_topomaps_find_channels_by_name(info):
    import mne

    values = RNG.standard_normal((1, 6))
    more = mne.create_info(["Pz", *NAMES[::-1]], 100, "eeg").set_montage("biosemi32")
    images = [
        plot_topomaps(values, where, channel_names=names)[1][0].images[0].get_array()
        for where, names in [(info, None), (info, NAMES), (more, NAMES)]
    ]
    np.testing.assert_allclose(images[1], images[0])
    # The outline of the head is that of all channels of an Info, hence a tolerance.
    inside = ~np.ma.getmaskarray(images[0])
    assert np.corrcoef(images[2][inside], images[0][inside])[0, 1] > 0.99
    with pytest.raises(ValueError, match="7 channels, but lacks EEG1"):
        plot_topomaps(values, more, channel_names=["EEG1", *NAMES[1:]])
    with pytest.raises(ValueError, match="positions has 7 channels"):
        plot_topomaps(values, more)


def test_topomaps_take_plain_positions(spectra):
    pytest.importorskip("mne")
    where = RNG.uniform(-0.5, 0.5, (6, 2))
    band = spectra.band(8, 20)
    fig, axes = band.plot_topomaps(where)
    power = 10 * np.log10(band.power.mean(axis=0))
    assert axes[0].images[0].get_clim() == pytest.approx((power.min(), power.max()))
    assert fig.axes[-1].get_ylabel() == "Power, 8 to 20 Hz (dB)"
    np.testing.assert_allclose(
        axes[1].images[0].get_array(), plot_topomaps(power, where)[1][1].images[0].get_array()
    )
    with pytest.raises(ValueError, match=r"positions has shape \(5, 2\), but \(6, 2\)"):
        band.plot_topomaps(where[:5])
    for wrong in (np.full((2, 6), np.nan), np.ones((2, 3, 6)), np.ones((0, 6))):
        with pytest.raises(ValueError, match="of finite numbers was expected"):
            plot_topomaps(wrong, where)


def test_topomaps_draw_modes_without_power(info):
    X = RNG.standard_normal((300, 6))
    alpha = np.eye(2)[np.zeros(300, dtype=int)]
    band = mode_spectra(X, alpha, sampling_frequency=100).band(8, 12)
    _, axes = band.plot_topomaps(info)
    low, high = axes[0].images[0].get_clim()
    assert high - low == pytest.approx(60)
    mode_spectra(np.ones((300, 6)), sampling_frequency=100).band(8, 12).plot_topomaps(info)


def test_topomaps_name_the_package_that_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "mne", None)
    with pytest.raises(ImportError, match="pip install mne"):
        plot_topomaps(np.ones((1, 6)), RNG.random((6, 2)))


# ------------------------------------------------------------------------------------- rasters


def bars(panel):
    """Spans of the bars of each row that has any, and its colour."""
    found = {}
    for bars in panel.collections:
        boxes = [path.get_extents() for path in bars.get_paths()]
        if boxes:
            (row,) = {round((box.y0 + box.y1) / 2) for box in boxes}
            found[row] = [(box.x0, box.x1) for box in boxes], bars.get_facecolor()[0, :3]
    return found


@pytest.mark.parametrize("binarize", ["argmax", "mixture", 0.4])
def test_raster_bars_are_the_runs_of_modes(binarize):
    alpha = RNG.dirichlet(np.ones(4), size=90).repeat(4, axis=0)
    _, (panel,) = plot_raster(alpha, binarize=binarize, sampling_frequency=20)
    statistics = mode_statistics(alpha, sampling_frequency=20, binarize=binarize)
    found = bars(panel)
    for mode in range(4):
        spans, color = found[mode]
        assert len(spans) == statistics.n_visits[mode]
        lengths = np.diff(spans, axis=1).ravel()
        np.testing.assert_allclose(lengths, statistics.lifetimes[mode])
        np.testing.assert_allclose(color, mode_palette(4)[mode])
    assert panel.get_xlabel() == "Time (s)"


def test_raster_rows_begin_between_samples():
    _, (panel,) = plot_raster(np.eye(3)[[0, 0, 2, 2, 0]], mode_labels=["a", "b", "c"])
    found = {row: spans for row, (spans, _) in bars(panel).items()}
    assert found == {0: [(-0.5, 1.5), (3.5, 4.5)], 2: [(1.5, 3.5)]}
    assert [label.get_text() for label in panel.get_yticklabels()] == ["a", "b", "c"]
    # The first mode is on top.
    assert panel.get_ylim()[0] > panel.get_ylim()[1]


def test_raster_stops_where_asked_and_refuses_what_it_cannot_draw():
    alpha = np.eye(2)[np.arange(60) % 2]
    _, (panel,) = plot_raster(alpha, n_samples=10)
    assert sum(len(spans) for spans, _ in bars(panel).values()) == 10
    with pytest.raises(ValueError, match="none below 0 was expected"):
        plot_raster(-alpha)
    with pytest.raises(ValueError, match="binarize must be"):
        plot_raster(alpha, binarize="largest")
    with pytest.raises(ValueError, match="mode_labels has 1 entries"):
        plot_raster(alpha, mode_labels=["a"])
    assert len(plt.get_fignums()) == 1


def test_pictures_of_networks_change_no_global_settings(coherence):
    before = dict(mpl.rcParams)
    plot_circles(coherence)
    plot_raster(np.eye(2)[[0, 1]])
    assert dict(mpl.rcParams) == before
