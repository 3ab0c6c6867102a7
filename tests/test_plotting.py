"""Pictures show the data that they are given, in the given axes and distinct colours."""

import subprocess
import sys
from itertools import pairwise

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from skdyn.plotting import (
    ModesDisplay,
    TrainingDisplay,
    mode_palette,
    plot_alpha,
    plot_matrices,
    plot_separate_time_series,
)


class StandInModel(BaseEstimator):
    """As much of a mode model as the Displays may use."""

    def __init__(self, n_modes=3, with_means=False):
        self.n_modes = n_modes
        self.with_means = with_means

    def fit(self, X, y=None):
        rng = np.random.default_rng(0)
        n_channels = X.shape[1]
        factors = rng.standard_normal((self.n_modes, n_channels, 2 * n_channels))
        self.covariances_ = factors @ factors.transpose(0, 2, 1) / n_channels
        self.means_ = rng.standard_normal((self.n_modes, n_channels)) * self.with_means
        self.history_ = {
            "loss": [5.0, 4.0, 3.5, 3.25],
            "ll_loss": [5.0, 3.75, 3.0, 2.5],
            "kl_loss": [0.0, 0.5, 0.5, 0.75],
            "kl_factor": [0.0, 0.5, 1.0, 1.0],
            "learning_rate": [0.01, 0.01, 0.009, 0.008],
            "seconds": [1.0, 1.0, 1.0, 1.0],
        }
        return self

    def transform(self, X, *, sessions=None):
        if isinstance(X, list):
            return [self.transform(part) for part in X]
        if np.ndim(X) == 3:
            return np.stack([self.transform(part) for part in X])
        if sessions is not None:
            assert len(sessions) == len(X)
            self.seen_sessions_ = sessions
        # Session by session another share, so that a mean over sessions weighs their lengths.
        alpha = np.full((len(X), self.n_modes), 0.1)
        alpha[:, int(X[0, 0])] = 1 - 0.1 * (self.n_modes - 1)
        return alpha


@pytest.fixture(autouse=True)
def close_figures():
    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    changed = {key for key, value in mpl.rcParams.items() if value != before[key]}
    assert not changed, f"global settings changed: {changed}"


@pytest.fixture
def alphas():
    return np.random.default_rng(0).dirichlet(np.ones(6), size=(2, 80))


@pytest.fixture
def model():
    return StandInModel().fit(np.zeros((10, 4)))


def stack_tops(panel, time):
    """Upper edge of each area of a stack at `time`."""
    tops = []
    for area in panel.collections:
        vertices = area.get_paths()[0].vertices
        tops.append([vertices[np.isclose(vertices[:, 0], now), 1].max() for now in time])
    return np.array(tops).T


def test_alpha_is_stacked(alphas):
    fig, axes = plot_alpha(*alphas, sampling_frequency=20, labels=["True", "Inferred"])
    assert isinstance(fig, plt.Figure)
    assert axes.shape == (2,)
    for panel, alpha, title in zip(axes, alphas, ["True", "Inferred"], strict=True):
        tops = stack_tops(panel, np.arange(80) / 20)
        np.testing.assert_allclose(tops, np.cumsum(alpha, axis=1), atol=1e-12)
        faces = np.concatenate([area.get_facecolor() for area in panel.collections])
        np.testing.assert_allclose(faces[:, :3], mode_palette(6))
        assert panel.get_title(loc="left") == title
        assert panel.get_ylim() == pytest.approx((0, 1))
    assert axes[0].get_shared_x_axes().joined(*axes)
    assert axes[1].get_xlabel() == "Time (s)"
    assert axes[1].get_xlim() == pytest.approx((0, 79 / 20))


def test_normalised_alpha_is_the_share_of_the_variance(alphas):
    covariances = np.arange(1, 7)[:, None, None] * np.eye(3)
    _, axes = plot_alpha(alphas[0], normalise=covariances)
    weighted = alphas[0] * np.arange(1, 7)
    shares = weighted / weighted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        stack_tops(axes[0], np.arange(80)), np.cumsum(shares, axis=1), atol=1e-12
    )
    assert axes[0].get_ylabel() == "Share of variance"
    with pytest.raises(ValueError, match="for 6 modes"):
        plot_alpha(alphas[0], normalise=covariances[:5])


def test_alpha_without_a_rate_counts_samples_and_stops_where_asked(alphas):
    _, axes = plot_alpha(alphas[0], n_samples=30)
    assert axes[0].get_xlabel() == "Time (samples)"
    assert axes[0].get_xlim() == (0, 29)
    assert stack_tops(axes[0], np.arange(30)).shape == (30, 6)
    assert max(area.get_paths()[0].vertices[:, 0].max() for area in axes[0].collections) == 29


@pytest.mark.parametrize("n_modes", [2, 6, 12, 16, 24])
def test_the_key_names_every_mode_without_overlap(n_modes):
    alpha = np.full((20, n_modes), 1 / n_modes)
    fig, axes = plot_alpha(alpha)
    (key,) = (panel for panel in fig.axes if panel not in axes)
    texts = [text for text in key.get_yticklabels() if text.get_text()]
    assert [text.get_text() for text in texts] == [str(mode) for mode in range(n_modes)]
    fig.canvas.draw()
    boxes = [text.get_window_extent() for text in texts]
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))


def test_alphas_of_unlike_width_and_length_share_axis_and_colours(alphas):
    fig, axes = plot_alpha(alphas[0][:50], alphas[1][:, :3], mode_labels=list("abcdef"))
    assert [len(panel.collections) for panel in axes] == [6, 3]
    assert [panel.get_xlim() for panel in axes] == [(0, 79)] * 2
    first = [panel.collections[1].get_facecolor()[0, :3] for panel in axes]
    np.testing.assert_allclose(*first)
    (key,) = (panel for panel in fig.axes if panel not in axes)
    assert [text.get_text() for text in key.get_yticklabels()] == list("abcdef")


def test_alpha_takes_what_transformers_give(alphas):
    pandas = pytest.importorskip("pandas")
    frozen = alphas[0].copy()
    frozen.flags.writeable = False
    _, axes = plot_alpha(pandas.DataFrame(frozen), frozen.tolist(), frozen)
    for panel in axes:
        np.testing.assert_allclose(stack_tops(panel, [0, 5])[:, -1], 1)


@pytest.mark.parametrize("function", [plot_alpha, plot_separate_time_series])
@pytest.mark.parametrize(
    ("arrays", "keywords", "message"),
    [
        ([], {}, "no array to draw"),
        ([np.ones(5)], {}, r"has shape \(5,\).*reshape"),
        ([np.ones((0, 3))], {}, r"shape \(0, 3\)"),
        (
            [np.ones((5, 3))],
            {"n_samples": 0},
            "n_samples must be a whole number of at least 1, but is 0",
        ),
        (
            [np.ones((5, 3))],
            {"sampling_frequency": 0},
            "sampling_frequency must be above 0 Hz, but is 0",
        ),
        ([np.ones((5, 3))], {"labels": ["a", "b"]}, "labels has 2 entries, but must have 1"),
        ([np.ones((5, 3))], {"ax": [], "fig": None}, "ax has 0 axes, but must have"),
    ],
)
def test_wrong_input_is_named(function, arrays, keywords, message):
    with pytest.raises(ValueError, match=message):
        function(*arrays, **keywords)
    assert not plt.get_fignums() or keywords, "a figure was left behind"


def test_alphas_that_cannot_be_stacked():
    with pytest.raises(ValueError, match=r"a mixing coefficient of -1.*plot_separate"):
        plot_alpha(-np.ones((5, 2)))
    with pytest.raises(ValueError, match="10 NaN or infinite values, but finite"):
        plot_alpha(np.full((5, 2), np.nan))


def test_time_series_are_laid_over_each_other(alphas):
    true, inferred = alphas
    fig, axes = plot_separate_time_series(
        true, inferred[:60], sampling_frequency=10, labels=["True", "Inferred"]
    )
    assert len(axes) == len(fig.axes) == 6
    for channel, row in enumerate(axes):
        first, second = row.lines
        np.testing.assert_allclose(first.get_xydata(), np.c_[np.arange(80) / 10, true[:, channel]])
        np.testing.assert_array_equal(second.get_ydata(), inferred[:60, channel])
        assert first.get_color() != second.get_color()
        assert first.get_linestyle() != second.get_linestyle()
        assert row.get_ylabel() == f"Channel {channel}"
        assert axes[0].get_shared_x_axes().joined(axes[0], row)
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["True", "Inferred"]
    assert all(row.get_legend() is None for row in axes[1:])
    assert axes[-1].get_xlabel() == "Time (s)"


def test_time_series_of_one_channel_with_a_gap():
    values = np.arange(10.0).reshape(-1, 1)
    values[4] = np.nan
    _, axes = plot_separate_time_series(values, n_samples=8, channel_names=["Cz"])
    with pytest.raises(ValueError, match="arrays have 1 and 2 channels, but one number"):
        plot_separate_time_series(values, np.ones((5, 2)))
    assert axes.shape == (1,)
    assert axes[0].get_ylabel() == "Cz"
    np.testing.assert_array_equal(axes[0].lines[0].get_ydata(), values[:8, 0])


@pytest.mark.parametrize(
    ("n_matrices", "grid"), [(1, (1, 1)), (5, (2, 3)), (6, (2, 3)), (16, (4, 4))]
)
def test_matrices_share_a_symmetric_scale_in_a_near_square_grid(n_matrices, grid):
    matrices = np.random.default_rng(1).standard_normal((n_matrices, 5, 5))
    titles = [f"Mode {k}" for k in range(n_matrices)]
    fig, axes = plot_matrices(matrices, titles=titles)
    images = [panel.images[0] for panel in axes]
    assert axes[0].get_subplotspec().get_gridspec().get_geometry() == grid
    assert len(fig.axes) == n_matrices + 1
    for image, matrix in zip(images, matrices, strict=True):
        np.testing.assert_array_equal(image.get_array(), matrix)
        assert image.get_clim() == (-np.abs(matrices).max(), np.abs(matrices).max())
    assert [panel.get_title() for panel in axes] == titles
    middle = images[0].cmap(images[0].norm(0.0))
    assert min(middle[:3]) > 0.95


@pytest.mark.parametrize(
    ("given", "limits", "extend"),
    [
        ({"vmax": 1}, (-1, 1), "max"),
        ({"vmin": -3}, (-3, 3), "neither"),
        ({"vmin": 0.5, "vmax": 3}, (0.5, 3), "min"),
        ({"vmin": 0.5, "vmax": 1}, (0.5, 1), "both"),
    ],
)
def test_limits_that_are_given_are_kept_and_clipping_is_shown(given, limits, extend):
    _, axes = plot_matrices([[0.0, 2.0], [1.0, 0.0]], cmap="cividis", **given)
    image = axes[0].images[0]
    assert image.get_clim() == limits
    assert image.cmap.name == "cividis"
    assert image.colorbar.extend == extend


def test_matrices_of_zeros_and_of_nan_can_be_drawn():
    matrices = np.zeros((2, 3, 4))
    matrices[1] = np.nan
    _, axes = plot_matrices(matrices, colorbar=False)
    assert axes[0].images[0].get_clim() == (-1, 1)
    assert axes[0].images[0].colorbar is None
    assert axes[1].images[0].get_array().mask.all()


@pytest.mark.parametrize(
    ("matrices", "keywords", "message"),
    [
        ([np.eye(2), np.eye(3)], {}, r"matrices has shapes \[\(2, 2\), \(3, 3\)\]"),
        (np.ones((2, 2, 2, 2)), {}, "matrices has shapes"),
        (np.ones((0, 2, 2)), {}, "matrices has shapes"),
        (np.eye(2), {"vmin": 0}, "vmin must be below vmax.*Pass both"),
        (np.eye(2), {"titles": ["a", "b"]}, "titles has 2 entries, but must have 1"),
        (np.eye(2), {"n_columns": 0}, "n_columns must be a whole number of at least 1, but is 0"),
    ],
)
def test_wrong_matrices(matrices, keywords, message):
    with pytest.raises(ValueError, match=message):
        plot_matrices(matrices, **keywords)


@pytest.mark.parametrize(
    ("draw", "n_panels"),
    [
        (lambda **where: plot_alpha(np.full((9, 4), 0.25), np.full((9, 4), 0.25), **where), 2),
        (lambda **where: plot_separate_time_series(np.ones((9, 3)), **where), 3),
        (lambda **where: plot_matrices(np.ones((4, 2, 2)), **where), 4),
    ],
)
def test_pictures_go_where_they_are_sent(draw, n_panels):
    fig, given = plt.subplots(1, n_panels + 1, layout="constrained")
    returned, axes = draw(ax=given[1:])
    assert returned is fig
    assert list(axes) == list(given[1:])
    with pytest.raises(ValueError, match="ax and fig were both given"):
        draw(ax=given[1:], fig=fig)
    assert not given[0].has_data()
    assert all(panel.has_data() for panel in axes)

    whole = plt.figure(layout="constrained")
    left, right = whole.subfigures(1, 2)
    returned, axes = draw(fig=right)
    assert returned is right
    assert not left.axes
    assert set(axes) <= set(right.axes)
    assert plt.get_fignums() == [fig.number, whole.number]
    fig.canvas.draw()
    whole.canvas.draw()


def test_training_display_draws_the_history(model):
    kept = {key: list(values) for key, values in model.history_.items()}
    display = TrainingDisplay.from_estimator(model)
    assert sorted(display.lines_) == ["kl_factor", "learning_rate", "ll_loss", "loss"]
    for name, line in display.lines_.items():
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
        np.testing.assert_array_equal(line.get_ydata(), model.history_[name])
    assert display.lines_["loss"].axes is display.ax_
    assert display.lines_["kl_factor"].axes is display.schedule_ax_
    assert display.lines_["learning_rate"].axes is not display.schedule_ax_
    assert display.ax_.get_shared_x_axes().joined(display.ax_, display.schedule_ax_)
    assert display.schedule_ax_.get_xlabel() == "Epoch"
    display.figure_.canvas.draw()
    heights = [panel.get_position().height for panel in (display.ax_, display.schedule_ax_)]
    assert heights[0] > 3 * heights[1]
    assert model.history_ == kept


def test_training_display_leaves_out_epochs_without_a_held_out_loss(model):
    model.history_["validation_loss"] = [np.nan, 4.5, np.nan, 3.75]
    display = TrainingDisplay.from_estimator(model)
    held_out = display.lines_["validation_loss"]
    np.testing.assert_array_equal(held_out.get_xydata(), [[2, 4.5], [4, 3.75]])
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert "Held out" in texts
    model.history_["validation_loss"] = [np.nan] * 4
    assert "validation_loss" not in TrainingDisplay.from_estimator(model).lines_


def test_training_display_in_given_axes(model):
    display = TrainingDisplay.from_estimator(model)
    fig, (one, upper, lower) = plt.subplots(3)
    display.plot(one)
    assert display.ax_ is one
    assert display.figure_ is fig
    assert display.schedule_ax_ is None
    assert sorted(display.lines_) == ["ll_loss", "loss"]
    assert not lower.has_data()
    assert display.plot([upper, lower]) is display
    assert display.schedule_ax_ is lower
    with pytest.raises(ValueError, match="ax has 3 axes, but must have 2"):
        display.plot([one, upper, lower])


def test_training_display_of_little_history():
    display = TrainingDisplay(history={"loss": [2.0]}).plot()
    assert display.schedule_ax_ is None
    assert display.lines_["loss"].get_marker() == "o"
    with pytest.raises(ValueError, match=r"history of \['loss'\] has no finite 'loss'"):
        TrainingDisplay(history={"loss": []}).plot()


@pytest.mark.parametrize("display", [TrainingDisplay, ModesDisplay])
def test_displays_of_an_estimator_that_is_not_fitted(display):
    with pytest.raises(NotFittedError):
        display.from_estimator(StandInModel())
    assert not plt.get_fignums()


@pytest.mark.parametrize("n_modes", [1, 6, 16])
def test_modes_display_draws_correlations(n_modes):
    model = StandInModel(n_modes=n_modes).fit(np.zeros((10, 5)))
    display = ModesDisplay.from_estimator(model)
    off_diagonal = ~np.eye(5, dtype=bool)
    limits = {image.get_clim() for image in display.images_}
    assert len(limits) == 1
    assert len(display.ax_) == len(display.images_) == n_modes
    assert display.mean_images_ == []
    for mode, (panel, image) in enumerate(zip(display.ax_, display.images_, strict=True)):
        covariance = model.covariances_[mode]
        deviation = np.sqrt(np.diag(covariance))
        drawn = image.get_array()
        expected = covariance / np.outer(deviation, deviation)
        np.testing.assert_allclose(drawn[off_diagonal], expected[off_diagonal])
        assert drawn.mask[~off_diagonal].all()
        title = panel.get_title().split("\n")
        assert title[0] == f"Mode {mode}"
        assert float(title[1].split()[-1]) == pytest.approx(np.diag(covariance).mean(), rel=0.05)
        np.testing.assert_allclose(panel.patches[0].get_facecolor()[:3], mode_palette(16)[mode])


def test_modes_display_draws_covariances_and_means():
    model = StandInModel(with_means=True).fit(np.zeros((10, 4)))
    display = ModesDisplay.from_estimator(model, correlations=False)
    drawn = [image.get_array() for image in display.images_]
    np.testing.assert_array_equal(drawn, model.covariances_)
    means = [image.get_array()[:, 0] for image in display.mean_images_]
    np.testing.assert_array_equal(means, model.means_)
    limit = np.abs(model.means_).max()
    assert {image.get_clim() for image in display.mean_images_} == {(-limit, limit)}
    assert "variance" not in display.ax_[0].get_title()


@pytest.mark.parametrize("as_list", [True, False])
def test_modes_display_weighs_sessions_by_their_length(model, as_list):
    long, short = np.zeros((30, 4)), np.ones((10, 4))
    X = [long, short] if as_list else np.stack([short, short])
    expected = np.array([0.8, 0.1, 0.1]) * 0.75 + np.array([0.1, 0.8, 0.1]) * 0.25
    expected = expected if as_list else np.array([0.1, 0.8, 0.1])
    display = ModesDisplay.from_estimator(model, X)
    np.testing.assert_allclose(display.weights, expected)
    for mode, panel in enumerate(display.ax_):
        assert f"weight {display.weights[mode]:.2f}" in panel.get_title()


def test_modes_display_passes_sessions_on(model):
    sessions = np.repeat([0, 1], 5)
    ModesDisplay.from_estimator(model, np.zeros((10, 4)), sessions=sessions)
    assert model.seen_sessions_ is sessions
    with pytest.raises(ValueError, match="sessions was given without X"):
        ModesDisplay.from_estimator(model, sessions=sessions)


def test_modes_display_in_given_axes_keeps_its_own_copy(model):
    fig, axes = plt.subplots(2, 2, layout="constrained")
    display = ModesDisplay.from_estimator(model, ax=axes.ravel()[:3])
    assert display.figure_ is fig
    assert not axes[1, 1].has_data()
    with pytest.raises(ValueError, match="ax has 4 axes, but must have 3"):
        display.plot(axes)
    assert not np.shares_memory(display.covariances, model.covariances_)


def test_a_channel_without_variance_is_left_blank():
    covariances = np.ones((1, 3, 3)) + np.eye(3)
    covariances[:, 1] = covariances[:, :, 1] = 0
    display = ModesDisplay(covariances=covariances).plot()
    mask = display.images_[0].get_array().mask
    assert mask[1].all()
    assert not mask[0, 2]


def test_importing_the_module_does_not_import_matplotlib():
    code = "import sys, skdyn.plotting; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_loss_axis_shows_what_comes_after_the_kl_term_has_risen():
    history = {
        "loss": [26.0, 25.0, 24.5, 24.4],
        "kl_factor": [0.0, 0.5, 1.0, 1.0],
        "validation_loss": [50.0, 30.0, 24.9, 24.8],
    }
    low, high = TrainingDisplay(history=history).plot().ax_.get_ylim()
    assert 24 < low < 24.4
    assert 26 < high < 27
