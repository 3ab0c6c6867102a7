"""Windows of sessions, batches of windows, and merging of windowed results into sessions.

A window never crosses from one session into the next. No row is dropped: the last window of a
session is shifted back until it ends with the session, and a session shorter than the window is a
window of its own length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from skdyn.core.runtime import is_host

# The largest recording, in bytes of single precision, that is kept on a device other than the CPU.
RESIDENT_SIZE = 2**32

# Largest ratio of the rows of a batch, padding included, to its rows without padding.
MOST_PADDED = 1.5


@dataclass(frozen=True)
class Windows:
    """Positions of windows, with one entry per window in each array.

    Attributes
    ----------
    session : ndarray of int
        Number of the session.
    start : ndarray of int
        First row within the session.
    length : ndarray of int
        Number of rows.
    """

    session: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index: np.ndarray) -> Windows:
        return Windows(self.session[index], self.start[index], self.length[index])


def cut_windows(n_rows: Sequence[int], length: int, stride: int) -> Windows:
    """Cover every session with windows.

    Parameters
    ----------
    n_rows : sequence of int
        Rows of each session.
    length : int
        Rows of a window.
    stride : int
        Rows from the start of one window to the start of the next, at most `length`.

    Returns
    -------
    Windows
        Windows in the order of the sessions and of time.
    """
    session, start, rows = [], [], []
    for number, n in enumerate(n_rows):
        last = max(0, n - length)
        starts = [*range(0, last, stride), last]
        session += [number] * len(starts)
        start += starts
        rows += [min(length, n)] * len(starts)
    return Windows(np.array(session), np.array(start), np.array(rows))


def jitter(windows: Windows, n_rows: Sequence[int], generator: torch.Generator) -> Windows:
    """Shift each window by up to half its length, within its session.

    With fixed windows the networks overfit to where they are cut, and inference from windows at
    other positions is poor.

    Parameters
    ----------
    windows : Windows
        The windows.
    n_rows : sequence of int
        Rows of each session.
    generator : torch.Generator
        Source of the random shifts.

    Returns
    -------
    Windows
        As many windows, of the same lengths.
    """
    draw = torch.rand(
        len(windows), generator=generator, device=generator.device, dtype=torch.float32
    )
    start = windows.start + np.floor((draw.cpu().numpy() - 0.5) * windows.length).astype(int)
    last = np.asarray(n_rows)[windows.session] - windows.length
    return Windows(windows.session, np.clip(start, 0, last), windows.length)


def disjoint(windows: Windows) -> np.ndarray:
    """Find the windows that share no row with another window.

    Parameters
    ----------
    windows : Windows
        Windows in the order of the sessions and of time.

    Returns
    -------
    ndarray of bool of shape (n_windows,)
        True for windows without overlap.
    """
    same = windows.session[1:] == windows.session[:-1]
    shares = same & (windows.start[1:] < windows.start[:-1] + windows.length[:-1])
    return ~(np.append(shares, False) | np.insert(shares, 0, False))


def gaps(windows: Windows, n_rows: Sequence[int]) -> Windows:
    """Find the stretches of the sessions that lie between windows.

    Parameters
    ----------
    windows : Windows
        Windows in the order of the sessions and of time, none overlapping another.
    n_rows : sequence of int
        Rows of each session.

    Returns
    -------
    Windows
        Every row that is in no window, in stretches as long as possible.
    """
    stretches = []
    for number, n in enumerate(n_rows):
        inside = windows.session == number
        begins = [0, *(windows.start[inside] + windows.length[inside])]
        ends = [*windows.start[inside], n]
        stretches += [(number, a, b - a) for a, b in zip(begins, ends, strict=True) if a < b]
    return Windows(*np.array(stretches, dtype=int).reshape(-1, 3).T)


def kept_rows(windows: Windows) -> list[slice]:
    """Assign every row to exactly one window.

    If two windows overlap, each keeps its half of the overlap, so that every row is taken from
    the window with more context on both sides.

    Parameters
    ----------
    windows : Windows
        Windows in the order of the sessions and of time, which cover their sessions.

    Returns
    -------
    list of slice
        Rows to keep, counted within each window.
    """
    end = windows.start + windows.length
    same = windows.session[1:] == windows.session[:-1]
    seam = (windows.start[1:] + end[:-1] + 1) // 2
    first = np.insert(np.where(same, seam, 0), 0, 0)
    last = np.append(np.where(same, seam, end[:-1]), end[-1])
    return [
        slice(int(a), int(b))
        for a, b in zip(first - windows.start, last - windows.start, strict=True)
    ]


def batches(
    windows: Windows, batch_size: int, generator: torch.Generator | None = None
) -> Iterator[np.ndarray]:
    """Yield the indices of the windows of each batch.

    A batch is padded to its longest window. Windows of any length share a batch, unless that would
    need much padding; then the lengths within a batch differ by less than a factor of two.

    Parameters
    ----------
    windows : Windows
        The windows.
    batch_size : int
        Largest number of windows in a batch.
    generator : torch.Generator, default=None
        Shuffles windows and batches; without one they keep their order.

    Yields
    ------
    ndarray of int
        Indices into `windows`.
    """
    order = _permutation(len(windows), generator)
    length = windows.length[order]
    n_padded = length.max(initial=0) * len(length)
    is_alike = n_padded <= MOST_PADDED * length.sum()
    size = np.zeros_like(length) if is_alike else np.frexp(length)[1]
    chunks = []
    for one in np.unique(size):
        group = order[size == one]
        chunks += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
    for number in _permutation(len(chunks), generator):
        yield chunks[number]


def _permutation(n: int, generator: torch.Generator | None) -> np.ndarray:
    if generator is None:
        return np.arange(n)
    return torch.randperm(n, generator=generator, device=generator.device).cpu().numpy()


@dataclass(frozen=True)
class Batch:
    """Windows of a recording, padded with zeros to the longest of them.

    Attributes
    ----------
    rows : Tensor of shape (n_windows, n_rows, n_channels)
        Scaled rows; zero if their weight is zero.
    weight : Tensor of shape (n_windows, n_rows) or None
        Weight of each row, zero for padding; None if all are 1.
    lengths : Tensor of int of shape (n_windows,) or None
        Number of rows of each window; None if nothing is padded.
    """

    rows: Tensor
    weight: Tensor | None = None
    lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, windows: slice) -> Batch:
        """Some of the windows."""
        others = (self.weight, self.lengths)
        return Batch(self.rows[windows], *(None if x is None else x[windows] for x in others))


@dataclass(frozen=True)
class WindowLoader:
    """Reads windows of sessions on demand, so that sessions may be memory maps.

    A recording of up to `RESIDENT_SIZE` is copied once to a device other than the CPU, and
    windows are cut there.

    Attributes
    ----------
    sessions : list of ndarray of shape (n_rows, n_channels)
        The recordings, of any number type.
    scale : ndarray of shape (n_channels,)
        Divisor of each channel.
    device : torch.device
        Device of the batches.
    center : ndarray of shape (n_channels,) or float, default=0.0
        Offset subtracted from each channel before the division.
    weights : list of ndarray of shape (n_rows,) or None
        Weight of each row; rows of weight zero are read as zeros. None if all are 1.
    """

    sessions: list[np.ndarray]
    scale: np.ndarray
    device: torch.device
    center: np.ndarray | float = 0.0
    weights: list[np.ndarray] | None = None

    def scaled(self, session: int, rows: slice) -> np.ndarray:
        """Rows of a session, centred and scaled, in single precision."""
        return self._scaled(self.sessions[session][rows]).astype(np.float32)

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        return (rows - self.center) / self.scale if np.any(self.center) else rows / self.scale

    @property
    def n_rows(self) -> list[int]:
        """Number of rows of each session."""
        return [len(session) for session in self.sessions]

    def total_weight(self, windows: Windows) -> float:
        """Sum of the weights of all rows of some windows."""
        if self.weights is None:
            return float(windows.length.sum())
        parts = zip(windows.session, windows.start, windows.length, strict=True)
        return float(sum(self.weights[n][start : start + k].sum() for n, start, k in parts))

    def __call__(self, windows: Windows) -> Batch:
        """Gather windows.

        Parameters
        ----------
        windows : Windows
            Windows.

        Returns
        -------
        Batch
            Their rows, in single precision.
        """
        longest = int(windows.length.max())
        rows = np.zeros((len(windows), longest, len(self.scale)), np.float32)
        is_padded = bool(np.any(windows.length < longest))
        weight = None
        if is_padded or self.weights is not None:
            weight = np.zeros(rows.shape[:2], np.float32)
        places = zip(windows.session, windows.start, windows.length, strict=True)
        for number, (session, start, length) in enumerate(places):
            span = slice(start, start + length)
            rows[number, :length] = self._scaled(self.sessions[session][span])
            if weight is not None:
                weight[number, :length] = 1 if self.weights is None else self.weights[session][span]
        if self.weights is not None:
            rows[weight == 0] = 0
        return Batch(
            torch.from_numpy(rows).to(self.device),
            None if weight is None else torch.from_numpy(weight).to(self.device),
            torch.from_numpy(windows.length).to(self.device) if is_padded else None,
        )

    def read(self, windows: Windows, parts: Iterable[np.ndarray]) -> Iterator[Batch]:
        """Yield batches of windows.

        Parameters
        ----------
        windows : Windows
            Windows.
        parts : iterable of ndarray of int
            Indices of the windows of each batch.

        Yields
        ------
        Batch
            As from a call.
        """
        n_bytes = 4 * sum(self.n_rows) * len(self.scale)
        if is_host(self.device) or n_bytes > RESIDENT_SIZE or self.weights is not None:
            yield from (self(windows[part]) for part in parts)
            return
        n_rows, parts = np.array(self.n_rows), list(parts)
        # All positions are copied at once, so that no transfer occurs between two steps.
        first = (np.cumsum(n_rows) - n_rows)[windows.session] + windows.start
        places = torch.from_numpy(first[np.concatenate(parts)]).to(self.device)
        for part, starts in zip(parts, places.split([len(part) for part in parts]), strict=True):
            length = windows.length[part]
            if np.any(length != length[0]):
                yield self(windows[part])
                continue
            steps = torch.arange(int(length[0]), device=self.device)
            yield Batch(self._resident[starts[:, None] + steps])

    @cached_property
    def _resident(self) -> Tensor:
        """All rows, scaled, on the device."""
        rows = [self._scaled(session).astype(np.float32) for session in self.sessions]
        return torch.from_numpy(np.concatenate(rows)).to(self.device)


def stitch(
    windows: Windows, results: Sequence[np.ndarray], n_rows: Sequence[int]
) -> list[np.ndarray]:
    """Merge results for windows into one row of result per row of data.

    Parameters
    ----------
    windows : Windows
        Windows that cover their sessions.
    results : sequence of ndarray of shape (length, ...)
        Results for each window.
    n_rows : sequence of int
        Rows of each session.

    Returns
    -------
    list of ndarray of shape (n_rows, ...)
        One array per session.
    """
    pieces: list[list[np.ndarray]] = [[] for _ in n_rows]
    for session, kept, result in zip(windows.session, kept_rows(windows), results, strict=True):
        pieces[session].append(result[kept])
    return [np.concatenate(piece) for piece in pieces]
