# SPDX-License-Identifier: Apache-2.0
"""Exact nearest neighbours of a point cloud in itself, on the CPU or, where the module is built, on a card.

Distances are squared, in the units of the points. Computed in float64 whatever the dtype of the points, so that
a cloud far from the origin loses nothing; the same bits for any number of threads.
"""

import torch
from torch import Tensor

from . import _core

try:
    from . import _cuda
except ImportError:  # not built, or not loadable: points on a card are searched on the CPU
    _cuda = None

__all__ = ["along_a_curve", "distCUDA2", "nearest"]


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
    on_card = points.is_cuda and _cuda is not None
    exact = points.detach().to(points.device if on_card else "cpu", torch.float64).contiguous()
    if not exact.isfinite().all():
        raise ValueError("points: some coordinates are not finite")
    indices = torch.empty(count, k, dtype=torch.int64, device=exact.device)
    squared = torch.empty(count, k, dtype=torch.float64, device=exact.device)
    if indices.numel() and on_card:
        _search_on_card(exact, k, indices, squared)
    elif indices.numel():
        _core.nearest(exact.data_ptr(), count, k, threads, indices.data_ptr(), squared.data_ptr())
    return indices.to(points.device), squared.to(points.device, dtype or points.dtype)


def _search_on_card(points: Tensor, k: int, indices: Tensor, squared: Tensor) -> None:
    """Fill both outputs; torch sorts, the module searches."""
    count, boxes = len(points), -(-len(points) // _cuda.BOX)
    order = along_a_curve(points).argsort(stable=True)
    ordered = points[order]
    padded = torch.cat([ordered, ordered[-1:].expand(boxes * _cuda.BOX - count, 3)]).view(boxes, _cuda.BOX, 3)
    corners = torch.cat([padded.amin(1), padded.amax(1)], dim=1)
    arrays = (tensor.data_ptr() for tensor in (ordered, corners, order))
    stream = torch.cuda.current_stream(points.device).cuda_stream
    _cuda.nearest(stream, *arrays, count, k, indices.data_ptr(), squared.data_ptr())


def along_a_curve(points: Tensor) -> Tensor:
    """Morton code int64 [N] of points [N, 3]: 21 bits of each coordinate in their bounding cube, interleaved.

    In the order of the codes, what is near in memory is near in space.
    """
    if not len(points):
        return points.new_zeros(0, dtype=torch.int64)
    low, high = points.amin(0), points.amax(0)
    cells = ((points - low) / (high - low).amax().clamp_min(torch.finfo(points.dtype).tiny) * (2**21 - 1)).long()
    for shift, mask in (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        cells = (cells | cells << shift) & mask
    return cells[:, 0] | cells[:, 1] << 1 | cells[:, 2] << 2
