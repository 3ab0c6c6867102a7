"""First-order linear recursions along time, and the smoother made of two of them."""

from __future__ import annotations

import torch
from torch import Tensor

# Rows that one matrix product filters; what comes before them is carried from block to block.
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
    # At least 1 where there are rows; far into the padding it underflows.
    total = sums[len(series) :].clamp_min(0.5)
    return sums[: len(series)] / total
