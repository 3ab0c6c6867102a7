"""First-order linear recursions along time, and the smoother made of two of them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# Rows filtered by one matrix product; the state is carried from block to block.
BLOCK = 64


def first_order_filter(series: Tensor, decay: Tensor) -> Tensor:
    """Solve y_t = decay y_t-1 + x_t along time, from y_0 = 0.

    Parameters
    ----------
    series : Tensor of shape (batch, time, n)
        x, one recursion per entry of the batch and column.
    decay : Tensor of shape (n,)
        Factor of the value before, from 0 to 1.

    Returns
    -------
    Tensor of shape (batch, time, n)
        y.
    """
    return FirstOrderFilter(decay, series.shape[1])(series)


class FirstOrderFilter:
    """The recursion y_t = decay y_t-1 + x_t for series of one length, from y_0 = 0.

    Parameters
    ----------
    decay : Tensor of shape (n,)
        Factor of the value before, from 0 to 1, for each column.
    n_rows : int
        Length of the series.
    """

    def __init__(self, decay: Tensor, n_rows: int):
        self.n_rows, self.size = n_rows, min(n_rows, BLOCK)
        self.n_blocks = -(-n_rows // self.size)
        steps = torch.arange(self.size, device=decay.device)
        lags = steps[:, None] - steps
        powers = decay[:, None, None] ** lags.clamp_min(0)
        zero = torch.zeros((), dtype=powers.dtype, device=lags.device)
        self.weights = torch.where(lags >= 0, powers, zero)
        if self.n_blocks > 1:
            # The last rows of the blocks follow the same recursion, a block at a time.
            self.ends = FirstOrderFilter(decay**self.size, self.n_blocks - 1)
            self.rises = decay[None, :] ** (steps[:, None] + 1)

    def __call__(self, series: Tensor) -> Tensor:
        """Filter series of shape (batch, n_rows, n)."""
        n_batch, _, n = series.shape
        n_more = self.n_blocks * self.size - self.n_rows
        padded = torch.nn.functional.pad(series, (0, 0, 0, n_more)) if n_more else series
        blocks = padded.reshape(n_batch, self.n_blocks, self.size, n)
        filtered = torch.einsum("nts,bksn->bktn", self.weights, blocks)
        if self.n_blocks > 1:
            ends = self.ends(filtered[:, :-1, -1])
            carried = torch.cat([torch.zeros_like(ends[:, :1]), ends], dim=1)
            filtered = filtered + carried[:, :, None] * self.rises
        return filtered.reshape(n_batch, self.n_blocks * self.size, n)[:, : self.n_rows]


def smooth(series: Tensor, decay: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Average along time with weights that fall off by a factor per row on either side.

    Parameters
    ----------
    series : Tensor of shape (batch, time, n)
        Series, one per column.
    decay : Tensor of shape (n,)
        Weight of a row relative to that of its neighbour nearer to the middle, from 0, which leaves
        the series as they are, to 1.
    lengths : Tensor of int of shape (batch,), default=None
        Number of rows of each series; those after them do not count. None counts all.

    Returns
    -------
    Tensor of shape (batch, time, n)
        Weighted means; the weights of the rows that there are sum to one everywhere.
    """
    return Smoother(decay, series.shape[1], lengths)(series)


class Smoother:
    """Averages of series of the same lengths; see `smooth`.

    Parameters
    ----------
    decay : Tensor of shape (n,)
        Weight of a row relative to that of its neighbour nearer to the middle.
    n_rows : int
        Length of the series, padding included.
    lengths : Tensor of int of shape (batch,), default=None
        Number of rows of each series; None for all.
    """

    def __init__(self, decay: Tensor, n_rows: int, lengths: Tensor | None = None):
        self.filter = FirstOrderFilter(decay, n_rows)
        shape = 1, n_rows, len(decay)
        self.counted = torch.ones(shape, dtype=decay.dtype, device=decay.device)
        if lengths is not None:
            inside = torch.arange(n_rows, device=decay.device) < lengths[:, None]
            self.counted = inside[:, :, None].to(decay.dtype).expand(-1, -1, len(decay))
        # At least 1 for rows of data; far into the padding it underflows.
        self.total = self._sums(self.counted).clamp_min(0.5)

    def __call__(self, series: Tensor) -> Tensor:
        """Smooth series of shape (batch, n_rows, n)."""
        return self._sums(series * self.counted) / self.total

    def _sums(self, series: Tensor) -> Tensor:
        forward, backward = self.filter(torch.cat([series, series.flip(1)])).chunk(2)
        return forward + backward.flip(1) - series


def limited_recursion(
    factors: Tensor, inputs: Tensor, low: float = -math.inf, high: float = math.inf
) -> Tensor:
    """Solve y_t = min(max(f_t y_t-1 + x_t, low), high) along time, from y_0 = x_0.

    Parameters
    ----------
    factors : Tensor of shape (time, ...)
        f; the first row has no effect.
    inputs : Tensor of shape (time, ...)
        x, of the same shape.
    low, high : float, default=-inf, inf
        Limits of each value.

    Returns
    -------
    Tensor of shape (time, ...)
        y. Torch can differentiate it as often as needed, and vectorise it.
    """
    return _LimitedRecursion.apply(factors, inputs, low, high)


class _LimitedRecursion(torch.autograd.Function):
    """The recursion in NumPy, row by row; its derivative is another one, backwards in time."""

    @staticmethod
    def forward(factors: Tensor, inputs: Tensor, low: float, high: float) -> Tensor:
        f, x = (values.detach().cpu().numpy() for values in (factors, inputs))
        y = np.array(x, order="C")
        f = np.ascontiguousarray(f).reshape(len(f), -1)
        rows = y.reshape(len(y), -1)
        lows, highs = (np.full(rows.shape[1:], end, dtype=y.dtype) for end in (low, high))
        is_limited = low > -math.inf or high < math.inf
        if is_limited and len(rows):
            np.clip(rows[0], lows, highs, out=rows[0])
        product = np.empty_like(lows)
        with np.errstate(all="ignore"):  # as torch does
            for factor, before, row in zip(f[1:], rows[:-1], rows[1:], strict=True):
                np.multiply(factor, before, out=product)
                np.add(row, product, out=row)
                if is_limited:
                    np.maximum(row, lows, out=row)
                    np.minimum(row, highs, out=row)
        return torch.from_numpy(y).to(inputs.device)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        factors, _, ctx.low, ctx.high = inputs
        ctx.save_for_backward(factors, output)

    @staticmethod
    def backward(ctx, slopes: Tensor):
        factors, values = ctx.saved_tensors
        # A value at a limit does not depend on earlier values.
        inside = (values > ctx.low) & (values < ctx.high)
        onwards = torch.where(inside, factors, torch.zeros_like(factors))
        shifted = torch.cat([onwards[1:], torch.zeros_like(onwards[:1])])
        total = limited_recursion(shifted.flip(0), slopes.flip(0)).flip(0)
        total = torch.where(inside, total, torch.zeros_like(total))
        before = torch.cat([torch.zeros_like(values[:1]), values[:-1]])
        return total * before, total, None, None

    @staticmethod
    def vmap(info, in_dims, factors, inputs, low, high):
        """Move the vectorised axis behind the time axis."""
        parts = [
            part.movedim(dim, 1)
            if dim is not None
            else part.unsqueeze(1).expand(len(part), info.batch_size, *part.shape[1:])
            for part, dim in zip((factors, inputs), in_dims[:2], strict=True)
        ]
        return limited_recursion(parts[0], parts[1], low, high), 1
