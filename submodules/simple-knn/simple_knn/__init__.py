# SPDX-License-Identifier: Apache-2.0
"""Exact nearest neighbours of a point cloud in itself, on the CPU.

Distances are squared, in the units of the points. Computed in float64 whatever the dtype of the points, so that
a cloud far from the origin loses nothing; the same bits for any number of threads.
"""

import torch
from torch import Tensor

from . import _core

__all__ = ["distCUDA2", "nearest"]


@torch.no_grad()
def distCUDA2(points: Tensor, *, threads: int = 0) -> Tensor:  # noqa: N802 the name that 3DGS code knows
    """Mean squared distance of each point to its three nearest other points.

    Fewer than four points: the mean over the others that exist; a single point: 0.

    Args:
        points: Centres [N, 3], finite.
        threads: Worker threads; 0 for all cores.

    Returns:
        [N], of the points' dtype and device.

    Raises:
        ValueError: `points` is not [N, 3] or not finite.
    """
    count = len(points)
    _, squared = nearest(points, min(3, max(count - 1, 0)), threads=threads, dtype=torch.float64)
    if count < 2:
        return points.new_zeros(count)
    return squared.mean(dim=1).to(points)


@torch.no_grad()
def nearest(points: Tensor, k: int, *, threads: int = 0, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest other points of each point, nearest first.

    A duplicate of a point is a neighbour at distance 0. Equally distant points come in a fixed order.

    Args:
        points: Centres [N, 3], finite.
        k: Neighbours of each point, 0 <= k < N.
        threads: Worker threads; 0 for all cores.
        dtype: Of the distances; default that of the points.

    Returns:
        Indices int64 [N, k] and squared distances [N, k].

    Raises:
        ValueError: `points` is not [N, 3] or not finite, or k is out of range.
    """
    count = len(points)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points: expected [N, 3], got {list(points.shape)}")
    most = max(0, min(count - 1, _core.MOST_NEIGHBOURS))
    if not 0 <= k <= most:
        raise ValueError(f"k: expected 0 to {most} for {count} points, got {k}")
    exact = points.detach().to("cpu", torch.float64).contiguous()
    if not exact.isfinite().all():
        raise ValueError("points: some coordinates are not finite")
    indices = torch.empty(count, k, dtype=torch.int64)
    squared = torch.empty(count, k, dtype=torch.float64)
    if indices.numel():
        _core.nearest(exact.data_ptr(), count, k, threads, indices.data_ptr(), squared.data_ptr())
    return indices.to(points.device), squared.to(points.device, dtype or points.dtype)
