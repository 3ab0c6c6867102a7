"""Spectra of modes: arrays, a table, a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from skdyn._drawing import (
    INK,
    LABEL_SIZE,
    check_names,
    draw_bar,
    grid_edges,
    mode_palette,
    panels,
    tidy,
)
from skdyn.analysis.pictures import N_EDGES, draw_circles, draw_networks, draw_topomaps, in_decibel

# Summaries of the bins of a band.
_SUMMARIES = ("mean", "sum", "integral")
# Largest excess of a coherence over 1 by rounding in single precision.
_ROUNDING = 1e-4
# Smallest density drawn, relative to the largest of the figure.
_DEEPEST = 1e-6


@dataclass(frozen=True)
class ModeSpectra:
    """Cross-spectral densities of modes, per session.

    Returned by `mode_spectra` and `ChannelModes.spectra`. The axis of sessions is missing for one
    2-D recording without session labels and for a group.

    Parameters
    ----------
    frequencies : ndarray of shape (n_frequencies,)
        In Hz.
    cross_spectra : ndarray of shape (n_sessions, n_modes, n_channels, n_channels, n_frequencies)
        Complex; entry (k, l) is the density of ``conj(x_k) * x_l``, one-sided, in squared units of
        X per Hz.
    weights : ndarray of shape (n_sessions,)
        Share of each session in all rows.
    channel_names : ndarray of str of shape (n_channels,)
        Names of the channels.
    standardized : bool
        Whether channels were brought to variance 1 first, so that densities are in 1/Hz.
    intercept : ndarray of shape (n_sessions, n_channels, n_channels, n_frequencies) or None
        With ``method="regression"``, the density at mean mixing, which each mode's contains.
    coefficient_scale : ndarray of shape (n_sessions, n_modes) or None
        With ``method="regression"``, factors that the coefficients were multiplied by.

    Attributes
    ----------
    psd : ndarray of shape (n_sessions, n_modes, n_channels, n_frequencies)
        Power spectral density: the diagonal of `cross_spectra`.
    coherence : ndarray of shape (n_sessions, n_modes, n_channels, n_channels, n_frequencies)
        ``|S_kl| / sqrt(S_kk S_ll)``, not squared, 0 where a channel has no power. With
        ``method="regression"``, the field's ``|coefficient_kl| / sqrt(intercept_kk
        intercept_ll)``, which can exceed 1.
    coefficients : ndarray or None
        With ``method="regression"``, `cross_spectra` less `intercept`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.analysis import mode_spectra
    >>> X = np.random.default_rng(0).standard_normal((2000, 3))
    >>> spectra = mode_spectra(X, sampling_frequency=100)
    >>> alpha_band = spectra.band(8, 13)
    >>> alpha_band.power.shape
    (1, 3)
    """

    frequencies: np.ndarray
    cross_spectra: np.ndarray
    weights: np.ndarray
    channel_names: np.ndarray
    standardized: bool = False
    intercept: np.ndarray | None = None
    coefficient_scale: np.ndarray | None = None

    @property
    def psd(self) -> np.ndarray:
        """Power spectral density of each mode and channel."""
        return _diagonal(self.cross_spectra)

    @property
    def coefficients(self) -> np.ndarray | None:
        """Coefficients of the regression."""
        if self.intercept is None:
            return None
        return self.cross_spectra - np.expand_dims(self.intercept, -4)

    @cached_property
    def coherence(self) -> np.ndarray:
        """Coherence of each pair of channels, in each mode."""
        coefficients = self.coefficients
        if coefficients is not None:
            power = np.expand_dims(_diagonal(self.intercept), -3)
            sizes = np.abs(coefficients)
            assert self.coefficient_scale is not None
            sizes /= self.coefficient_scale[..., np.newaxis, np.newaxis, np.newaxis]
            return _normalised(sizes, power)
        coherence = _normalised(np.abs(self.cross_spectra), self.psd)
        # Rounding can lift a coherence of 1 above 1.
        return np.where(coherence < 1 + _ROUNDING, np.minimum(coherence, 1), coherence)

    def group(self):
        """Average over sessions.

        Returns
        -------
        ModeSpectra
            Without an axis of sessions: means of `cross_spectra`, each session weighted by its
            rows. Sessions in which a mode has no power are left out of that mode's mean. For the
            field's mean of coherences, average `coherence` with `weights`.
        """
        if not self._has_sessions:
            return self
        mean = _over_sessions(self.cross_spectra, self._shares())
        changes = {"cross_spectra": mean, "weights": np.ones(1)}
        if self.intercept is not None:
            for name in ("intercept", "coefficient_scale"):
                changes[name] = np.tensordot(self.weights, getattr(self, name), 1)
        return replace(self, **changes)

    def band(self, low, high, *, power="mean"):
        """Power and coherence in a band.

        Parameters
        ----------
        low, high : float
            Ends of the band in Hz; bins at both are in it.
        power : {"mean", "sum", "integral"}, default="mean"
            Mean or sum of the densities of the bins, or the sum times their distance: the variance
            in the band, in squared units of X.

        Returns
        -------
        ModeBand
            Power of each channel, and mean coherence of each pair.

        Raises
        ------
        ValueError
            If no bin lies in the band, or `power` is none of the names.
        """
        inside = (self.frequencies >= low) & (self.frequencies <= high)
        if not inside.any():
            raise ValueError(
                f"The band from {low:g} to {high:g} Hz has none of the frequencies from "
                f"{self.frequencies[0]:.4g} to {self.frequencies[-1]:.4g} Hz in steps of "
                f"{self._resolution:.4g} Hz. Widen the band."
            )
        if power not in _SUMMARIES:
            raise ValueError(
                f"power must be one of {', '.join(map(repr, _SUMMARIES))}, but is {power!r}."
            )
        densities = self.psd[..., inside]
        summary = densities.mean(axis=-1) if power == "mean" else densities.sum(axis=-1)
        return ModeBand(
            low=low,
            high=high,
            power=summary * (self._resolution if power == "integral" else 1),
            coherence=self.coherence[..., inside].mean(axis=-1),
            channel_names=self.channel_names,
        )

    def peaks(self, *, channels=None):
        """Frequency at which each mode has most power.

        Parameters
        ----------
        channels : array-like of int or str, default=None
            Numbers or names of the channels that are averaged; None for all.

        Returns
        -------
        ndarray of shape (n_sessions, n_modes)
            In Hz, of the mean density over channels; NaN for modes without power. Spectra that rise
            towards 0 Hz have it at their lowest frequency: estimate them above.
        """
        psd = self.psd
        if channels is not None:
            psd = psd[..., _numbers(channels, self.channel_names), :]
        mean = psd.mean(axis=-2)
        peaks = self.frequencies[mean.argmax(axis=-1)]
        return np.where((mean > 0).any(axis=-1), peaks, np.nan)

    def to_frame(self):
        """Return a table with a row per session, mode, channel and frequency.

        Returns
        -------
        pandas.DataFrame
            Columns "session" and "mode" (numbers from 0), "channel" (names), "frequency" in Hz,
            and "psd".

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        psd = self.psd if self._has_sessions else self.psd[np.newaxis]
        names = ["session", "mode", "channel", "frequency"]
        values = [np.arange(psd.shape[0]), np.arange(psd.shape[1])]
        return long_table(names, [*values, self.channel_names, self.frequencies], {"psd": psd})

    def plot(self, ax=None, *, channels=None, mode_labels=None, log=True, fig=None):
        """Draw the density of each mode, mean over channels, with its spread over sessions.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Axes to draw into, one per mode; mutually exclusive with `fig`.
        channels : array-like of int or str, default=None
            Numbers or names of the channels that are averaged; None for all.
        mode_labels : list of str, default=None
            Titles; None for "Mode 0", "Mode 1", ...
        log : bool, default=True
            Whether densities are on a logarithmic scale.
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.

        Returns
        -------
        fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_modes,)
            The figure and its panels. Each has its mode in colour, the mean over
            sessions weighted by rows, within one standard deviation over sessions, and the other
            modes in grey. Sessions in which a mode has no power do not count.
        """
        mean, low, high = self._curves(channels)
        n_modes = len(mean)
        titles = check_names(mode_labels, n_modes, "mode_labels")
        n_columns = int(np.ceil(np.sqrt(n_modes)))
        figsize = (2.3 * n_columns + 0.9, 1.75 * -(-n_modes // n_columns) + 0.6)
        sharing = {"n_columns": n_columns, "sharex": True, "sharey": True}
        fig, axes = panels(n_modes, ax, fig, figsize, **sharing)
        colors = mode_palette(n_modes)
        unit = "1/Hz" if self.standardized else "X²/Hz"
        for mode, (panel, (bottom, left)) in enumerate(zip(axes, grid_edges(axes), strict=True)):
            tidy(panel)
            panel.plot(self.frequencies, np.delete(mean, mode, axis=0).T, color="0.85", lw=0.7)
            panel.fill_between(
                self.frequencies, low[mode], high[mode], color=colors[mode], alpha=0.3, lw=0
            )
            panel.plot(self.frequencies, mean[mode], color=colors[mode], lw=1.6)
            title = f"Mode {mode}" if titles is None else titles[mode]
            panel.set_title(title, size=LABEL_SIZE, color=INK, y=1.08, pad=0)
            draw_bar(panel, colors[mode])
            # With shared axes, labels of ticks are at the lowest panel of the first column alone.
            panel.tick_params(labelbottom=bottom, labelleft=left)
            panel.set_xlabel("Frequency (Hz)" if bottom else "", size=LABEL_SIZE, color=INK)
            panel.set_ylabel(f"Density ({unit})" if left else "", size=LABEL_SIZE, color=INK)
        if log:
            _log_scale(axes, mean)
        axes[0].set_xlim(self.frequencies[0], self.frequencies[-1])
        return fig, axes

    def __repr__(self):
        sessions = f"{len(self.cross_spectra)} sessions, " if self._has_sessions else ""
        n_modes, n_channels = self.cross_spectra.shape[-4:-2]
        return (
            f"<ModeSpectra: {sessions}{n_modes} modes, {n_channels} channels, "
            f"{len(self.frequencies)} frequencies from {self.frequencies[0]:.4g} to "
            f"{self.frequencies[-1]:.4g} Hz>"
        )

    @property
    def _has_sessions(self) -> bool:
        return self.cross_spectra.ndim == 5

    @property
    def _resolution(self) -> float:
        """Distance of two bins in Hz, 0 if there is one."""
        return float(np.diff(self.frequencies[:2]).sum())

    def _curves(self, channels):
        """Mean density of each mode, and both ends of its spread over sessions."""
        psd = self.psd if self._has_sessions else self.psd[np.newaxis]
        if channels is not None:
            psd = psd[:, :, _numbers(channels, self.channel_names)]
        each, shares = psd.mean(axis=2), self._shares()
        mean = _over_sessions(each, shares)
        spread = np.sqrt(_over_sessions((each - mean) ** 2, shares))
        return mean, mean - spread, mean + spread

    def _shares(self) -> np.ndarray:
        """Weight of each session in the mean of each mode: 0 if the mode has no power."""
        psd = self.psd if self._has_sessions else self.psd[np.newaxis]
        shares = self.weights[:, np.newaxis] * (psd > 0).any(axis=(2, 3))
        total = shares.sum(axis=0)
        return np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)


@dataclass(frozen=True)
class ModeBand:
    """Power and coherence of modes in a band of frequencies.

    `ModeSpectra.band` makes it. Without an axis of sessions if the spectra have none.

    Parameters
    ----------
    low, high : float
        Ends of the band in Hz.
    power : ndarray of shape (n_sessions, n_modes, n_channels)
        Power, in the units of the spectra or, if integrated, in squared units of X.
    coherence : ndarray of shape (n_sessions, n_modes, n_channels, n_channels)
        Mean coherence over the bins of the band.
    channel_names : ndarray of str of shape (n_channels,)
        Names of the channels.
    """

    low: float
    high: float
    power: np.ndarray
    coherence: np.ndarray
    channel_names: np.ndarray

    def __repr__(self):
        sessions = f"{len(self.power)} sessions, " if self.power.ndim == 3 else ""
        n_modes, n_channels = self.power.shape[-2:]
        return (
            f"<ModeBand: {self.low:g} to {self.high:g} Hz, {sessions}{n_modes} modes, "
            f"{n_channels} channels>"
        )

    def to_frame(self):
        """Return a table with a row per session, mode and channel.

        Returns
        -------
        pandas.DataFrame
            Columns "session" and "mode" (numbers from 0), "channel" (names), and "power".

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        power = self.power if self.power.ndim == 3 else self.power[np.newaxis]
        values = [np.arange(power.shape[0]), np.arange(power.shape[1]), self.channel_names]
        return long_table(["session", "mode", "channel"], values, {"power": power})

    def plot(self, ax=None, *, mode_labels=None, fig=None):
        """Draw the coherence of each mode, the mean over sessions, as a matrix.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Axes to draw into, one per mode; mutually exclusive with `fig`.
        mode_labels : list of str, default=None
            Titles; None for "Mode 0", "Mode 1", ...
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.

        Returns
        -------
        fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_modes,)
            The figure and its panels.
        """
        return draw_networks(
            self._mean(self.coherence), "viridis", self._label("Coherence"), mode_labels, ax, fig
        )

    def plot_circles(self, ax=None, *, n_edges=N_EDGES, order=None, mode_labels=None, fig=None):
        """Draw the pairs of channels of largest coherence of each mode, the mean over sessions.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Axes to draw into, one per mode; mutually exclusive with `fig`.
        n_edges : int, default=20
            Number of edges of each mode.
        order : array-like of int of shape (n_channels,), default=None
            Channels clockwise from the top; None for the order that they have.
        mode_labels : list of str, default=None
            Titles; None for "Mode 0", "Mode 1", ...
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.

        Returns
        -------
        fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_modes,)
            The figure and its panels.

        See Also
        --------
        skdyn.plotting.plot_circles : The same from arrays.
        """
        edges = self._mean(self.coherence), n_edges, order, self.channel_names
        return draw_circles(*edges, self._label("Coherence"), mode_labels, ax, fig)

    def plot_topomaps(self, positions, ax=None, *, mode_labels=None, fig=None):
        """Draw the power of each mode over the head, the mean over sessions, by MNE's function.

        Parameters
        ----------
        positions : mne.Info or array-like of shape (n_channels, 2)
            An Info with a montage, whose channels are matched by name, or by order if it has none
            of the names; or x and y of each channel.
        ax : Axes or sequence of Axes, default=None
            Axes to draw into, one per mode; mutually exclusive with `fig`.
        mode_labels : list of str, default=None
            Titles; None for "Mode 0", "Mode 1", ...
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.

        Returns
        -------
        fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_modes,)
            The figure and its panels, on one scale in decibels.

        Raises
        ------
        ImportError
            If MNE is not installed.
        ValueError
            If positions do not match the channels.

        See Also
        --------
        skdyn.plotting.plot_topomaps : The same from arrays.
        """
        power, label = in_decibel(self._mean(self.power)), self._label("Power", " (dB)")
        where = positions, self.channel_names
        return draw_topomaps(power, "viridis", *where, label, mode_labels, ax, fig)

    def _mean(self, values) -> np.ndarray:
        """Mean over sessions, if there is an axis of them."""
        return values.mean(axis=0) if self.power.ndim == 3 else values

    def _label(self, quantity: str, unit: str = "") -> str:
        return f"{quantity}, {self.low:g} to {self.high:g} Hz{unit}"


def long_table(names, values, columns):
    """Make a table with a row per element of arrays.

    Parameters
    ----------
    names : list of str
        Names of the axes, for the first columns.
    values : list of array-like
        Labels of the positions along each axis.
    columns : dict of str to ndarray
        The arrays, all with these axes.

    Returns
    -------
    pandas.DataFrame
        The last axis runs fastest.
    """
    import pandas as pd

    grid = np.meshgrid(*(np.arange(len(value)) for value in values), indexing="ij")
    table = {
        name: np.asarray(value)[places.ravel()]
        for name, value, places in zip(names, values, grid, strict=True)
    }
    return pd.DataFrame(table | {name: array.ravel() for name, array in columns.items()})


def _over_sessions(arrays, shares):
    """Weighted means over sessions, per mode."""
    return np.einsum("sj,sj...->j...", shares, arrays)


def _diagonal(matrices):
    """Real diagonals of (..., n_channels, n_channels, n_frequencies)."""
    return np.einsum("...kkf->...kf", matrices).real


def _normalised(sizes, power):
    """Divide by the root of the power of both channels; 0 if either has no power."""
    root = np.sqrt(np.maximum(power, 0))
    product = root[..., :, np.newaxis, :] * root[..., np.newaxis, :, :]
    return np.divide(sizes, product, out=np.zeros_like(sizes), where=product > 0)


def _numbers(channels, names):
    """Numbers of channels that are given by number or name."""
    known = {name: number for number, name in enumerate(names)}
    wanted = [channels] if np.ndim(channels) == 0 else list(channels)
    unknown = [one for one in wanted if isinstance(one, str) and one not in known]
    if unknown:
        raise ValueError(
            f"channels has the unknown names {unknown}. Pass numbers, or names among "
            f"{', '.join(names)}."
        )
    return [known[one] if isinstance(one, str) else one for one in wanted]


def _log_scale(axes, mean):
    """Set a logarithmic scale down to the smallest density drawn."""
    top = mean.max()
    if not top > 0:
        return
    positive = mean[mean > _DEEPEST * top]
    axes[0].set_yscale("log")
    axes[0].set_ylim(0.5 * positive.min(), 2.5 * top)
