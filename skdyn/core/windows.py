"""Sessions cut into windows, windows gathered into batches, results stitched back to sessions.

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


@dataclass(frozen=True)
class Windows:
    """Where windows lie, one entry per window in each array.

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

    A network that sees a recording cut at the same places in every epoch learns the pieces by
    heart, and infers badly from windows that begin elsewhere.

    Parameters
    ----------
    windows : Windows
        The windows.
    n_rows : sequence of int
        Rows of each session.
    generator : torch.Generator
        Where the shifts are drawn from.

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
    """Which windows share no row with another window.

    Parameters
    ----------
    windows : Windows
        Windows in the order of the sessions and of time.

    Returns
    -------
    ndarray of bool of shape (n_windows,)
        True where a window stands alone.
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
    """The rows that each window answers for, so that every row belongs to exactly one window.

    Where two windows overlap, the seam lies in the middle of the overlap: no row is taken from
    the edge of a window while another window sees more on both of its sides.

    Parameters
    ----------
    windows : Windows
        Windows in the order of the sessions and of time, which cover their sessions.

    Returns
    -------
    list of slice
        Rows within each window.
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
    """Indices of the windows of each batch; windows of one batch have one length.

    Parameters
    ----------
    windows : Windows
        The windows.
    batch_size : int
        Most windows in a batch.
    generator : torch.Generator, default=None
        Shuffles windows and batches; without one they keep their order.

    Yields
    ------
    ndarray of int
        Indices into `windows`.
    """
    order = _permutation(len(windows), generator)
    chunks = []
    for length in np.unique(windows.length):
        group = order[windows.length[order] == length]
        chunks += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
    for number in _permutation(len(chunks), generator):
        yield chunks[number]


def _permutation(n: int, generator: torch.Generator | None) -> np.ndarray:
    if generator is None:
        return np.arange(n)
    return torch.randperm(n, generator=generator, device=generator.device).cpu().numpy()


@dataclass(frozen=True)
class WindowLoader:
    """Reads windows out of sessions, as needed, so that sessions may be memory maps.

    On a device other than the CPU a recording of up to `RESIDENT_SIZE` is sent there once, and
    windows are cut there.

    Attributes
    ----------
    sessions : list of ndarray of shape (n_rows, n_channels)
        The recordings, of any number type.
    scale : ndarray of shape (n_channels,)
        What each channel is divided by.
    device : torch.device
        Where the windows are sent.
    """

    sessions: list[np.ndarray]
    scale: np.ndarray
    device: torch.device

    def __call__(self, windows: Windows) -> Tensor:
        """Gather windows of one length.

        Parameters
        ----------
        windows : Windows
            Windows of one length.

        Returns
        -------
        Tensor of shape (n_windows, length, n_channels)
            Scaled rows, in single precision.
        """
        rows = [
            self.sessions[session][start : start + length]
            for session, start, length in zip(
                windows.session, windows.start, windows.length, strict=True
            )
        ]
        scaled = np.stack(rows) / self.scale
        return torch.from_numpy(scaled.astype(np.float32)).to(self.device)

    def read(self, windows: Windows, parts: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Gather batches, one after the other.

        Parameters
        ----------
        windows : Windows
            Windows.
        parts : iterable of ndarray of int
            Which windows are in each batch; those of one batch have one length.

        Yields
        ------
        Tensor of shape (n_windows, length, n_channels)
            As from a call.
        """
        n_rows = np.array([len(session) for session in self.sessions])
        n_bytes = 4 * n_rows.sum() * len(self.scale)
        if is_host(self.device) or n_bytes > RESIDENT_SIZE:
            yield from (self(windows[part]) for part in parts)
            return
        parts = list(parts)
        # All places are sent at once, so that nothing is sent between two steps.
        first = (np.cumsum(n_rows) - n_rows)[windows.session] + windows.start
        places = torch.from_numpy(first[np.concatenate(parts)]).to(self.device)
        for part, starts in zip(parts, places.split([len(part) for part in parts]), strict=True):
            steps = torch.arange(int(windows.length[part[0]]), device=self.device)
            yield self._resident[starts[:, None] + steps]

    @cached_property
    def _resident(self) -> Tensor:
        """All rows, scaled, on the device."""
        rows = [(session / self.scale).astype(np.float32) for session in self.sessions]
        return torch.from_numpy(np.concatenate(rows)).to(self.device)


def stitch(
    windows: Windows, results: Sequence[np.ndarray], n_rows: Sequence[int]
) -> list[np.ndarray]:
    """Put what was computed on windows back together, a row of result for each row of data.

    Parameters
    ----------
    windows : Windows
        Windows that cover their sessions.
    results : sequence of ndarray of shape (length, ...)
        What came out for each window.
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
