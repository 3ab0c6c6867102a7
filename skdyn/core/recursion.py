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
    n_batch, n_rows, n = series.shape
    size = min(n_rows, BLOCK)
    n_blocks = -(-n_rows // size)
    padded = torch.nn.functional.pad(series, (0, 0, 0, n_blocks * size - n_rows))
    blocks = padded.reshape(n_batch, n_blocks, size, n)
    steps = torch.arange(size, device=series.device)
    lags = steps[:, None] - steps
    powers = decay[:, None, None] ** lags.clamp_min(0)
    weights = torch.where(
        lags >= 0, powers, torch.zeros((), dtype=powers.dtype, device=lags.device)
    )
    filtered = torch.einsum("nts,bksn->bktn", weights, blocks)
    if n_blocks > 1:
        # The last rows of the blocks follow the same recursion, a block at a time.
        ends = first_order_filter(filtered[:, :-1, -1], decay**size)
        carried = torch.cat([torch.zeros_like(ends[:, :1]), ends], dim=1)
        rises = decay[None, :] ** (steps[:, None] + 1)
        filtered = filtered + carried[:, :, None] * rises
    return filtered.reshape(n_batch, n_blocks * size, n)[:, :n_rows]


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
    counted = torch.ones_like(series[:1])
    if lengths is not None:
        inside = torch.arange(series.shape[1], device=series.device) < lengths[:, None]
        counted = inside[:, :, None].expand_as(series).to(series.dtype)
        series = series * counted
    both = torch.cat([series, counted])
    forward, backward = first_order_filter(torch.cat([both, both.flip(1)]), decay).chunk(2)
    sums = forward + backward.flip(1) - both
    # At least 1 for rows of data; far into the padding it underflows.
    total = sums[len(series) :].clamp_min(0.5)
    return sums[: len(series)] / total


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
