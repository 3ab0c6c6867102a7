"""Windows of a session, their spectra, and weighted sums of these, in blocks of windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from skdyn.preprocessing.embedding import blocks


@dataclass(frozen=True)
class Windows:
    """Layout of windows in a session, and of tapered pieces in a window.

    Attributes
    ----------
    length : int
        Rows of a window.
    step : int
        Rows from the start of a window to that of the next.
    n_pieces : int
        Pieces of a window; a remainder at its end is not used.
    tapers : ndarray of shape (n_tapers, length // n_pieces)
        Weights of the rows of a piece, of unit energy.
    n_fft : int
        Rows of a Fourier transform, at least those of a piece.
    bins : ndarray of int of shape (n_frequencies,)
        Bins that are kept.
    scale : ndarray of shape (n_frequencies,)
        Factors from squared moduli to densities, in 1/Hz.
    is_padded : bool
        Whether sessions are padded with half a window of zeros at both ends, with windows from
        the first zero on for as many steps as the session has; otherwise windows are inside.
    """

    length: int
    step: int
    n_pieces: int
    tapers: np.ndarray
    n_fft: int
    bins: np.ndarray
    scale: np.ndarray
    is_padded: bool

    def padded(self, session: np.ndarray) -> np.ndarray:
        """The rows that `starts` counts.

        Parameters
        ----------
        session : ndarray of shape (n_samples, n_columns)
            Rows of time.

        Returns
        -------
        ndarray of shape (n_rows, n_columns)
            With zeros at both ends if windows reach beyond the session.
        """
        half = self.length // 2
        return np.pad(session, ((half, half), (0, 0))) if self.is_padded else session

    def starts(self, n_samples: int) -> np.ndarray:
        """First row of each piece of each window.

        Parameters
        ----------
        n_samples : int
            Rows of the session.

        Returns
        -------
        ndarray of int of shape (n_windows, n_pieces)
            Indices into the rows returned by `padded`.
        """
        inside = (n_samples - self.length) // self.step + 1
        n_windows = n_samples // self.step if self.is_padded else inside
        piece = self.tapers.shape[1]
        return np.add.outer(np.arange(n_windows) * self.step, np.arange(self.n_pieces) * piece)

    def spectra(self, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Fourier transforms of tapered pieces.

        Parameters
        ----------
        rows : ndarray of shape (n_rows, n_channels)
            Rows returned by `padded`.
        starts : ndarray of int of shape (n_starts,)
            First rows of the pieces.

        Returns
        -------
        ndarray of shape (n_frequencies, n_starts * n_tapers, n_channels)
            Complex, scaled so that squared moduli are densities; in single precision if the
            rows are.
        """
        n_tapers, piece = self.tapers.shape
        # With the transformed axis first, frequencies are apart without a further copy.
        cut = rows[np.add.outer(np.arange(piece), starts)]
        tapers = self.tapers.T[:, np.newaxis, :, np.newaxis].astype(rows.dtype)
        transformed = fft.rfft(cut[:, :, np.newaxis] * tapers, self.n_fft, axis=0)[self.bins]
        transformed *= np.sqrt(self.scale).astype(rows.dtype)[:, np.newaxis, np.newaxis, np.newaxis]
        return transformed.reshape(len(self.bins), len(starts) * n_tapers, rows.shape[1])

    def means(self, values: np.ndarray, starts: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted means over the rows of pieces.

        Parameters
        ----------
        values : ndarray of shape (n_rows, n_columns)
            Rows returned by `padded`.
        starts : ndarray of int of shape (n_starts,)
            First rows of the pieces.
        weights : ndarray of shape (length // n_pieces,)
            Weights of the rows.

        Returns
        -------
        ndarray of shape (n_starts, n_columns)
            The means.
        """
        result = np.empty((len(starts), values.shape[1]))
        view = np.lib.stride_tricks.sliding_window_view(values, len(weights), axis=0)
        for block in blocks(len(starts), values.shape[1] * len(weights)):
            result[block] = view[starts[block]] @ (weights / weights.sum())
        return result

    def weighted_sums(
        self, rows: np.ndarray, starts: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """Weighted sums over pieces of their cross-spectra, means over tapers.

        Parameters
        ----------
        rows : ndarray of shape (n_rows, n_channels)
            Rows returned by `padded`.
        starts : ndarray of int of shape (n_starts,)
            First rows of the pieces.
        weights : ndarray of shape (n_sums, n_starts)
            Real weights, of either sign.

        Returns
        -------
        ndarray of shape (n_sums, n_frequencies, n_channels, n_channels)
            Entry (k, l) sums ``conj(x_k) * x_l``, as `scipy.signal.csd` has it.
        """
        n_sums, n_tapers = len(weights), len(self.tapers)
        n_channels, n_frequencies = rows.shape[1], len(self.bins)
        sums = np.zeros((n_frequencies, n_channels, n_sums * n_channels), dtype=complex)
        wide = max(4 * n_frequencies, 2 * self.n_fft) * n_channels * n_tapers
        for block in blocks(len(starts), wide):
            spectra = self.spectra(rows, starts[block])
            each = np.repeat(weights[:, block].T / n_tapers, n_tapers, axis=0).astype(rows.dtype)
            # One frequency at a time stays in the processor's cache.
            for total, own in zip(sums, spectra, strict=True):
                weighted = own.view(rows.dtype)[:, np.newaxis] * each[:, :, np.newaxis]
                total += own.conj().T @ weighted.reshape(len(own), -1).view(own.dtype)
        sums = sums.reshape(n_frequencies, n_channels, n_sums, n_channels)
        return sums.transpose(2, 0, 1, 3)
