"""Bands, groups, tables and pictures of spectra."""

import numpy as np
import pytest

from skdyn.analysis import channel_modes, mode_spectra
from skdyn.analysis.densities import ModeSpectra
from skdyn.plotting import mode_palette


@pytest.fixture(scope="module")
def spectra():
    """Three sessions, two modes, three channels; the second mode is silent in the last session."""
    rng = np.random.default_rng(0)
    X = [rng.standard_normal((length, 3)) for length in (300, 600, 300)]
    alpha = [np.repeat(rng.dirichlet(np.ones(2), len(one) // 20), 20, axis=0) for one in X]
    alpha[2] = np.eye(2)[np.zeros(300, dtype=int)]
    return mode_spectra(X, alpha, sampling_frequency=100, frequency_range=(1, 40))


def test_band_has_both_ends(spectra):
    inside = (spectra.frequencies >= 8) & (spectra.frequencies <= 12.5)
    assert 12.5 in spectra.frequencies
    band = spectra.band(8, 12.5)
    np.testing.assert_allclose(band.power, spectra.psd[..., inside].mean(axis=-1))
    np.testing.assert_allclose(band.coherence, spectra.coherence[..., inside].mean(axis=-1))
    sums = spectra.band(8, 12.5, power="sum").power
    np.testing.assert_allclose(sums, spectra.psd[..., inside].sum(axis=-1))
    integral = spectra.band(8, 12.5, power="integral").power
    np.testing.assert_allclose(integral, sums * 100 / 256)


def test_band_refuses_what_is_not_there(spectra):
    with pytest.raises(ValueError, match="none of the frequencies from 1"):
        spectra.band(41, 45)
    with pytest.raises(ValueError, match="power must be one of 'mean', 'sum', 'integral'"):
        spectra.band(8, 12, power="total")


def test_group_weighs_sessions_by_rows_and_leaves_silent_modes_out(spectra):
    group = spectra.group()
    expected = np.average(spectra.cross_spectra[:, 0], axis=0, weights=[300, 600, 300])
    np.testing.assert_allclose(group.cross_spectra[0], expected)
    expected = np.average(spectra.cross_spectra[:2, 1], axis=0, weights=[300, 600])
    np.testing.assert_allclose(group.cross_spectra[1], expected)
    assert group.psd.shape == (2, 3, len(spectra.frequencies))
    assert group.group() is group


def test_group_of_regressions_keeps_coherence(spectra):
    X = np.random.default_rng(0).standard_normal((500, 2))
    alpha = np.repeat(np.random.default_rng(1).dirichlet(np.ones(2), 25), 20, axis=0)
    options = {"sampling_frequency": 100, "method": "regression", "rescale": True}
    one = mode_spectra(X, alpha, **options)
    two = mode_spectra([X, X], [alpha, alpha], **options).group()
    np.testing.assert_allclose(two.psd, one.psd)
    np.testing.assert_allclose(two.coherence, one.coherence, rtol=1e-6)
    np.testing.assert_allclose(two.coefficients, one.coefficients)
    assert spectra.coefficients is None


def test_peaks_are_the_frequencies_of_most_power(spectra):
    peaks = spectra.peaks()
    assert peaks.shape == (3, 2)
    mean = spectra.psd[1, 0].mean(axis=0)
    assert peaks[1, 0] == spectra.frequencies[mean.argmax()]
    assert np.isnan(peaks[2, 1])
    mean = spectra.psd[1, 0, [0, 2]].mean(axis=0)
    found = spectra.peaks(channels=["x0", "x2"])
    assert found[1, 0] == spectra.frequencies[mean.argmax()]


def test_tables_have_a_row_per_element(spectra):
    frame = spectra.to_frame()
    assert list(frame.columns) == ["session", "mode", "channel", "frequency", "psd"]
    assert len(frame) == spectra.psd.size
    row = frame[(frame.session == 1) & (frame["mode"] == 0) & (frame.channel == "x2")].iloc[7]
    assert row.frequency == spectra.frequencies[7]
    assert row.psd == spectra.psd[1, 0, 2, 7]
    band = spectra.band(8, 12).to_frame()
    assert list(band.columns) == ["session", "mode", "channel", "power"]
    assert len(band) == 3 * 2 * 3
    group = spectra.group()
    assert set(group.to_frame().session) == {0}
    assert len(group.band(8, 12).to_frame()) == 2 * 3


def test_repr_says_what_there_is(spectra):
    expected = "3 sessions, 2 modes, 3 channels, 100 frequencies from 1.172 to 39.84 Hz"
    assert repr(spectra) == f"<ModeSpectra: {expected}>"
    assert "sessions" not in repr(spectra.group())


def test_spectra_plot_draws_means_and_their_spread(spectra):
    fig, axes = spectra.plot()
    assert len(axes) == 2
    for mode, panel in enumerate(axes):
        line = panel.lines[-1]
        # The last session does not count where the mode is silent.
        heard = slice(None, None if mode == 0 else 2)
        each, weights = spectra.psd[heard, mode].mean(axis=1), spectra.weights[heard]
        mean = np.average(each, axis=0, weights=weights)
        np.testing.assert_allclose(line.get_ydata(), mean)
        np.testing.assert_allclose(line.get_color(), mode_palette(2)[mode])
        (spread,) = panel.collections
        edges = spread.get_paths()[0].vertices[:, 1]
        deviation = np.sqrt(np.average((each - mean) ** 2, axis=0, weights=weights))
        assert edges.max() == pytest.approx((mean + deviation).max(), rel=1e-6)
        assert panel.get_title() == f"Mode {mode}"
    assert axes[0].get_ylabel() == "Density (X²/Hz)"
    assert axes[0].get_xlabel() == "Frequency (Hz)"
    assert axes[0].get_yscale() == "log"
    fig.draw_without_rendering()


def test_spectra_plot_takes_channels_by_name_or_number(spectra):
    panels = [spectra.plot(channels=one, log=False)[1][0] for one in (["x0", "x2"], [0, 2])]
    curves = [panel.lines[-1].get_ydata() for panel in panels]
    expected = np.average(spectra.psd[:, 0, [0, 2]].mean(axis=1), axis=0, weights=spectra.weights)
    for curve in curves:
        np.testing.assert_allclose(curve, expected)
    assert panels[0].get_yscale() == "linear"
    with pytest.raises(ValueError, match="names among x0, x1, x2"):
        spectra.plot(channels=["Fz"])
    with pytest.raises(ValueError, match="mode_labels has 1 entries"):
        spectra.plot(mode_labels=["alpha"])


def test_spectra_plot_has_room_for_twelve_modes():
    psd = np.random.default_rng(0).random((12, 1, 1, 30)) + 0.1
    spectra = ModeSpectra(np.arange(30.0), psd.astype(complex), np.ones(1), np.array(["Cz"]), True)
    fig, axes = spectra.plot()
    fig.draw_without_rendering()
    boxes = [panel.get_tightbbox() for panel in axes]
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])
    assert axes[0].get_ylabel() == "Density (1/Hz)"


def test_spectra_without_power_can_be_drawn():
    spectra = mode_spectra(np.ones((200, 2)), sampling_frequency=100)
    fig, _ = spectra.plot()
    fig.draw_without_rendering()
    fig, _ = spectra.band(8, 12).plot()
    fig.draw_without_rendering()


def test_networks_are_drawn_without_their_diagonal(spectra, recording, small_dynemo):
    band = spectra.band(8, 12)
    _, axes = band.plot(mode_labels=["slow", "fast"])
    assert [panel.get_title() for panel in axes] == ["slow", "fast"]
    assert axes[0].get_xlabel() == axes[0].get_ylabel() == axes[1].get_xlabel() == "Channel"
    assert axes[1].get_ylabel() == ""
    shown = axes[0].images[0].get_array()
    expected = band.coherence[:, 0].mean(axis=0)
    pairs = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(shown[pairs], expected[pairs])
    assert np.ma.getmaskarray(shown).diagonal().all()
    modes = channel_modes(small_dynemo().fit(recording))
    for partial, expected in [(False, modes.correlations), (True, modes.partial_correlations)]:
        _, axes = modes.plot(partial=partial)
        pairs = ~np.eye(5, dtype=bool)
        np.testing.assert_allclose(axes[1].images[0].get_array()[pairs], expected[1][pairs])
