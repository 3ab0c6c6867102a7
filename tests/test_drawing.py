"""The colours of modes, as readers with all kinds of vision see them."""

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest

from skdyn.plotting import mode_palette

# Simulated dichromacy on linear RGB, severity 1: Machado, Oliveira & Fernandes (2009), table 1.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}


def lab_colors(rgb, vision):
    """CIELAB (D65) coordinates of sRGB colours as someone with that vision sees them."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ VISION[vision].T, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = linear @ np.array(to_xyz).T / [0.9505, 1, 1.089]
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * root[:, 1] - 16, 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])], 1
    )


def smallest_distance(rgb, vision):
    lab = lab_colors(rgb, vision)
    return min(np.linalg.norm(one - other) for one, other in combinations(lab, 2))


@pytest.mark.parametrize("vision", list(VISION))
@pytest.mark.parametrize(("n_modes", "threshold"), [(8, 20), (12, 13), (16, 9)])
def test_colours_can_be_told_apart(vision, n_modes, threshold):
    assert smallest_distance(mode_palette(n_modes), vision) > threshold


def test_the_threshold_would_catch_a_palette_that_fails_colour_blind_readers():
    """Red, green and brown of matplotlib's own cycle collapse for a deuteranope."""
    tab10 = np.array(mpl.colormaps["tab10"].colors)[:8]
    assert smallest_distance(tab10, "normal") > 20 > smallest_distance(tab10, "deuteranopia")


def test_many_modes_still_get_different_colours_that_are_not_white():
    colors = mode_palette(64)
    assert colors.shape == (64, 3)
    assert ((colors >= 0) & (colors <= 1)).all()
    assert len(np.unique(colors.round(4), axis=0)) == 64
    assert (lab_colors(colors, "normal")[:, 0] < 97).all()
    np.testing.assert_array_equal(colors[:12], mode_palette(12))


@pytest.mark.parametrize("n_modes", [0, -1, 2.5, True, "six"])
def test_palette_of_a_wrong_size(n_modes):
    with pytest.raises(ValueError, match="n_modes must be a whole number of at least 1, but is"):
        mode_palette(n_modes)
