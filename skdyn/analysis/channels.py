"""Modes of components and embedded columns, mapped back to channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from skdyn._drawing import correlation_matrices
from skdyn._fitted import fitted_steps
from skdyn.analysis.densities import ModeSpectra
from skdyn.analysis.pictures import N_EDGES, draw_circles, draw_networks
from skdyn.preprocessing import TimeDelayEmbedder, TimeDelayPCA

_COVARIANCES = ("zero_lag", "mean")
_METHODS = ("embedding", "autocovariance")
# Shortest Fourier transform of autocovariances, as in osl-dynamics.
_SHORTEST_FFT = 64


def channel_modes(model, *, sampling_frequency=None, covariance="zero_lag"):
    """Modes of a fitted model in channels, mapped back through the preprocessing steps.

    The covariances and means of the modes are transformed back by the inverses of the steps of the
    pipeline: scalers, principal components, and time-delay embedding with or without components.

    Parameters
    ----------
    model : estimator, Pipeline or search
        Fitted; with `means_` and `covariances_`, such as `DyNeMoEstimator`, or a Pipeline or search
        that holds it. Steps after it do not matter. A hidden Markov model with `means_` and
        `covars_` is accepted, too.
    sampling_frequency : float, default=None
        Rows per second, in Hz, of the input of the embedding; lags are then in seconds. With None
        they are in rows.
    covariance : {"zero_lag", "mean"}, default="zero_lag"
        Covariance of two channels if rows are embedded: the covariance at lag zero in the middle
        row, or the mean over all pairs of lags (within a channel: over equal lags), as in
        osl-dynamics.

    Returns
    -------
    ChannelModes
        `means`, `covariances`, `correlations`, `partial_correlations`, `autocovariances` and
        `lags`, with `spectra` and `plot`.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    TypeError
        If no step has modes.
    ValueError
        If a step before the model has no inverse and does not keep channels, or if its inverse is
        not linear.

    See Also
    --------
    mode_spectra : Spectra of modes from the recording, which resolve frequencies better.

    Notes
    -----
    With an inverse ``x = W z + b``, a covariance D becomes ``W D W^T`` and a mean m becomes
    ``W m + b``. Steps that keep each channel a channel and cannot be inverted, such as
    `SessionScaler`, filters and `SignAligner`, are not undone: the modes are those of the output of
    the last such step, and no earlier step is undone either.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.pipeline import make_pipeline
    >>> from skdyn.analysis import channel_modes
    >>> from skdyn.preprocessing import TimeDelayPCA
    >>> X = np.random.default_rng(0).standard_normal((400, 5))
    >>> pipeline = make_pipeline(TimeDelayPCA(3, 8), GaussianMixture(2, random_state=0))
    >>> modes = channel_modes(pipeline.fit(X), sampling_frequency=100)
    >>> modes.covariances.shape
    (2, 5, 5)
    >>> modes.lags
    array([-0.02, -0.01,  0.  ,  0.01,  0.02])
    """
    if covariance not in _COVARIANCES:
        raise ValueError(
            f"covariance must be one of {', '.join(map(repr, _COVARIANCES))}, but is "
            f"{covariance!r}."
        )
    before, owner = _find_modes(fitted_steps(model))
    means = np.array(owner.means_, dtype=np.float64)
    covariances = np.array(_covariances(owner), dtype=np.float64)
    n_lags, names = 1, getattr(owner, "feature_names_in_", None)
    for step in reversed(before):
        if _keeps_channels(step):
            names = getattr(step, "feature_names_in_", None)
            break
        inverse = _inverse(step)
        if inverse is not None:
            matrix, offset = inverse
            # Columns are channel-major: each channel at all lags.
            matrix = np.kron(matrix, np.eye(n_lags))
            means = means @ matrix + np.repeat(offset, n_lags)
            covariances = matrix.T @ covariances @ matrix
        if isinstance(step, TimeDelayEmbedder | TimeDelayPCA):
            _refuse_second_embedding(n_lags)
            n_lags = means.shape[1] // step.n_features_in_
        names = getattr(step, "feature_names_in_", None)
    n_channels = means.shape[1] // n_lags
    if names is None:
        names = [f"x{channel}" for channel in range(n_channels)]
    return ChannelModes(
        means=means.reshape(-1, n_channels, n_lags).mean(axis=2),
        covariances=_covariance_of_channels(covariances, n_lags, covariance),
        embedded_covariances=covariances,
        n_lags=n_lags,
        channel_names=np.array(names, dtype=object),
        sampling_frequency=sampling_frequency,
    )


@dataclass(frozen=True)
class ChannelModes:
    """Modes in channels: means, covariances, autocovariances and spectra.

    Returned by `channel_modes`.

    Parameters
    ----------
    means : ndarray of shape (n_modes, n_channels)
        Means of the modes, in units of the channels.
    covariances : ndarray of shape (n_modes, n_channels, n_channels)
        Covariances of the modes, in squared units of the channels.
    embedded_covariances : ndarray of shape (n_modes, n_channels * n_lags, n_channels * n_lags)
        The same for each channel at each lag, channel by channel, the newest row first.
    n_lags : int
        Rows of the embedding; 1 without one.
    channel_names : ndarray of str of shape (n_channels,)
        Names of the channels.
    sampling_frequency : float or None
        Rows per second, in Hz.

    Attributes
    ----------
    correlations : ndarray of shape (n_modes, n_channels, n_channels)
        Correlations, 0 for constant channels.
    partial_correlations : ndarray of shape (n_modes, n_channels, n_channels)
        Correlations of two channels given all others, from the pseudo-inverse of `correlations`:
        after PCA, these have a rank below the number of channels.
    lags : ndarray of shape (2 * n_lags - 1,)
        In seconds, or in rows without `sampling_frequency`.
    autocovariances : ndarray of shape (n_modes, n_channels, n_channels, 2 * n_lags - 1)
        Entry (k, l, i) is the covariance of channel k at t + lags[i] with channel l at t, the mean
        over the pairs of embedded rows that are so far apart.
    """

    means: np.ndarray
    covariances: np.ndarray
    embedded_covariances: np.ndarray
    n_lags: int
    channel_names: np.ndarray
    sampling_frequency: float | None = None

    @property
    def correlations(self) -> np.ndarray:
        """Correlations of channels, per mode."""
        return _filled(correlation_matrices(self.covariances), self._variances > 0)

    @property
    def partial_correlations(self) -> np.ndarray:
        """Partial correlations of channels, per mode."""
        precision = np.linalg.pinv(self.correlations, hermitian=True)
        return _filled(-correlation_matrices(precision), self._variances > 0)

    @property
    def lags(self) -> np.ndarray:
        """Lags of `autocovariances`."""
        return np.arange(1 - self.n_lags, self.n_lags) / (self.sampling_frequency or 1)

    @property
    def autocovariances(self) -> np.ndarray:
        """Covariances of channels at lags, per mode."""
        lagged = self._by_lag()
        counts = self.n_lags - np.abs(np.arange(1 - self.n_lags, self.n_lags))
        return lagged / counts

    def spectra(self, *, method="embedding", n_fft=None):
        """Spectra of the modes, from their covariances alone.

        Parameters
        ----------
        method : {"embedding", "autocovariance"}, default="embedding"
            "embedding": the power of the embedded covariance along complex exponentials, which is
            the transform of the autocovariance under a triangular window: never negative, with
            coherence within 0 and 1, a one-sided density in squared units per Hz.
            "autocovariance": the field's absolute value of the transform without a window, divided
            by the squared length of the transform, which has side lobes and hides negative power.
        n_fft : int, default=None
            Length of the transform; None for the next power of two, from 64.

        Returns
        -------
        ModeSpectra
            Without an axis of sessions. With n lags, the frequency resolution is at best the rate
            divided by n.

        Raises
        ------
        ValueError
            If rows were not embedded, the rate is not known, or an argument is out of range.
        """
        if self.sampling_frequency is None:
            raise ValueError(
                "The modes have no sampling frequency, which spectra in Hz need. Pass "
                "sampling_frequency to channel_modes."
            )
        if self.n_lags == 1:
            raise ValueError(
                "The modes have no lags, but spectra need a TimeDelayEmbedder or a TimeDelayPCA "
                "before the model. Estimate spectra from the recording with mode_spectra."
            )
        if method not in _METHODS:
            raise ValueError(
                f"method must be one of {', '.join(map(repr, _METHODS))}, but is {method!r}."
            )
        n_lagged = 2 * self.n_lags - 1
        if n_fft is None:
            n_fft = max(_SHORTEST_FFT, 2 ** int(np.ceil(np.log2(n_lagged))))
        if n_fft < n_lagged:
            raise ValueError(f"n_fft must be at least the {n_lagged} lags, but is {n_fft}.")
        rate = float(self.sampling_frequency)
        if method == "embedding":
            density = self._transform(self._by_lag() / self.n_lags, n_fft)
            doubled = np.full(density.shape[-1], 2.0)
            doubled[[0, -1] if n_fft % 2 == 0 else [0]] = 1
            density = density * doubled / rate
        else:
            density = self._transform(self.autocovariances, n_fft) / n_fft**2
            channels = np.arange(density.shape[1])
            density[:, channels, channels] = np.abs(density[:, channels, channels])
        return ModeSpectra(
            frequencies=np.arange(n_fft // 2 + 1) * rate / n_fft,
            cross_spectra=density,
            weights=np.ones(1),
            channel_names=self.channel_names,
        )

    def plot(self, ax=None, *, partial=False, mode_labels=None, fig=None):
        """Draw the correlations of each mode.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Axes to draw into, one per mode; mutually exclusive with `fig`.
        partial : bool, default=False
            Whether partial correlations are drawn.
        mode_labels : list of str, default=None
            Titles; None for "Mode 0", "Mode 1", ...
        fig : Figure or SubFigure, default=None
            Figure to add the panels to; None creates one.

        Returns
        -------
        fig, axes : Figure or SubFigure, and ndarray of Axes of shape (n_modes,)
            The figure and its panels.
        """
        matrices, label = self._shown(partial)
        return draw_networks(matrices, "RdBu_r", label, mode_labels, ax, fig)

    def plot_circles(
        self, ax=None, *, partial=False, n_edges=N_EDGES, order=None, mode_labels=None, fig=None
    ):
        """Draw the pairs of channels of largest correlation of each mode, of either sign.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Axes to draw into, one per mode; mutually exclusive with `fig`.
        partial : bool, default=False
            Whether partial correlations are drawn.
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
        matrices, label = self._shown(partial)
        return draw_circles(
            matrices, n_edges, order, self.channel_names, label, mode_labels, ax, fig
        )

    def __repr__(self):
        n_modes, n_channels = self.means.shape
        return f"<ChannelModes: {n_modes} modes, {n_channels} channels, {self.n_lags} lags>"

    @property
    def _variances(self) -> np.ndarray:
        return np.diagonal(self.covariances, axis1=1, axis2=2)

    def _shown(self, partial: bool) -> tuple[np.ndarray, str]:
        """Correlations to draw, and their name."""
        if partial:
            return self.partial_correlations, "Partial correlation"
        return self.correlations, "Correlation"

    def _by_lag(self) -> np.ndarray:
        """Sums over the diagonals of each block: (n_modes, n_channels, n_channels, lags)."""
        n_lags, n_channels = self.n_lags, self.means.shape[1]
        parts = self.embedded_covariances.reshape(-1, n_channels, n_lags, n_channels, n_lags)
        return np.stack(
            [np.trace(parts, lag, axis1=2, axis2=4) for lag in range(1 - n_lags, n_lags)], axis=-1
        )

    def _transform(self, lagged: np.ndarray, n_fft: int) -> np.ndarray:
        """Fourier transforms over lags, lag 0 at the origin."""
        # Entry (k, l) is to be the density of conj(x_k) x_l.
        at_origin = np.zeros((*lagged.shape[:-1], n_fft))
        at_origin[..., np.arange(1 - self.n_lags, self.n_lags)] = lagged
        return np.fft.rfft(at_origin, axis=-1).conj()


# -------------------------------------------------------------------------------------- pipelines


def _find_modes(steps: list[Any]) -> tuple[list[Any], Any]:
    """The steps before the last step with modes, and that step."""
    for place in reversed(range(len(steps))):
        step = steps[place]
        if hasattr(step, "means_") and _covariances(step) is not None:
            return steps[:place], step
    names = ", ".join(type(step).__name__ for step in steps)
    raise TypeError(
        f"{names} has no means_ and covariances_. Pass a fitted model of modes, or a Pipeline or "
        "search that holds one."
    )


def _covariances(step) -> np.ndarray | None:
    for name in ("covariances_", "covars_"):
        found = np.asarray(getattr(step, name, np.nan))
        if found.ndim == 3:
            return found
    return None


def _keeps_channels(step) -> bool:
    """Whether a step has no inverse and its output columns are its input channels."""
    if hasattr(step, "inverse_transform") or isinstance(step, TimeDelayEmbedder | TimeDelayPCA):
        return False
    names = [f"x{channel}" for channel in range(step.n_features_in_)]
    names = list(getattr(step, "feature_names_in_", names))
    describe = getattr(step, "get_feature_names_out", None)
    if describe is None or list(describe()) != names:
        raise ValueError(
            f"The pipeline has {type(step).__name__} before the model, which has no "
            "inverse_transform and does not keep channels. Call channel_modes with the model alone."
        )
    return True


def _inverse(step) -> tuple[np.ndarray, np.ndarray] | None:
    """Inverse of a step, ``z @ matrix + offset``; None if the step leaves rows unchanged."""
    if isinstance(step, TimeDelayEmbedder):
        return None
    undo = step.inverse_components if isinstance(step, TimeDelayPCA) else step.inverse_transform
    n_columns = len(step.get_feature_names_out())
    points = np.vstack([np.zeros(n_columns), np.eye(n_columns)])
    offset, *rows = np.asarray(undo(points), dtype=np.float64)
    matrix = np.array(rows) - offset
    twice = np.asarray(undo(2 * points), dtype=np.float64)[1:] - offset
    scale = np.abs(matrix).max() + np.abs(offset).max()
    if not np.allclose(twice, 2 * matrix, rtol=1e-6, atol=1e-9 * scale):
        raise ValueError(
            f"The pipeline has {type(step).__name__} before the model, whose inverse is not "
            "linear. Call channel_modes with the model alone."
        )
    return matrix, offset


def _refuse_second_embedding(n_lags: int) -> None:
    if n_lags > 1:
        raise ValueError(
            "The pipeline has two time-delay embeddings, but at most one was expected. Leave one "
            "out."
        )


# --------------------------------------------------------------------------------------- matrices


def _covariance_of_channels(embedded, n_lags, kind):
    """Covariances of channels from those of channels at lags."""
    n_channels = embedded.shape[1] // n_lags
    parts = embedded.reshape(-1, n_channels, n_lags, n_channels, n_lags)
    middle = n_lags // 2
    if kind == "zero_lag":
        return parts[:, :, middle, :, middle].copy()
    means = parts.mean(axis=(2, 4))
    channels = np.arange(n_channels)
    means[:, channels, channels] = np.einsum("jcncn->jc", parts) / n_lags
    return means


def _filled(correlations, varies):
    """Correlations with their diagonal: 1 for channels that vary, 0 for constant ones."""
    channels = np.arange(correlations.shape[1])
    both = varies[:, :, np.newaxis] & varies[:, np.newaxis]
    filled = np.where(both, np.clip(np.nan_to_num(correlations), -1, 1), 0)
    filled[:, channels, channels] = varies
    return filled
