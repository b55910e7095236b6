# SPDX-License-Identifier: Apache-2.0
"""Moving rows when their number changes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _native, native
from .stages import address

BITS = {1: torch.uint8, 4: torch.int32}


@torch.no_grad()
def gather_append(columns: Sequence[Tensor], keep: Tensor, fresh: Sequence[Tensor | float], count: int) -> list[Tensor]:
    """The rows `keep` of each column, in that order, followed by `count` new ones; on a card in one launch.

    Args:
        columns: [N, ...] each, contiguous, on one device; elements of 1 or 4 bytes.
        keep: Row indices int64 [M], 0 to N - 1, on that device; an index may occur more than once.
        fresh: For each column its new rows [count, ...], of its dtype, or the number that fills them.
        count: Number of new rows.

    Returns:
        New tensors [M + count, ...].
    """
    module = native.backend(keep)
    if module is _native:
        return [torch.cat([old[keep], _rows(old, new, count)]) for old, new in zip(columns, fresh, strict=True)]
    moved = [old.new_empty(len(keep) + count, *old.shape[1:]) for old in columns]
    keep = keep.contiguous()
    fresh = [new.contiguous() if isinstance(new, Tensor) else new for new in fresh]
    table = [_column(module, *one) for one in zip(columns, fresh, moved, strict=True)]
    module.gather_append(native.launch(module, 0, torch.float32), table, address(keep), len(keep), count)
    return moved


def _rows(old: Tensor, new: Tensor | float, count: int) -> Tensor:
    return new if isinstance(new, Tensor) else old.new_full((count, *old.shape[1:]), new)


def _column(module: object, old: Tensor, new: Tensor | float, to: Tensor) -> object:
    width, size = old.shape[1:].numel(), old.element_size()
    if isinstance(new, Tensor):
        return module.RowColumn(address(old), address(new), address(to), width, size, 0)
    bits = int(torch.full((1,), new, dtype=old.dtype).view(BITS[size])) & 0xFFFFFFFF
    return module.RowColumn(address(old), 0, address(to), width, size, bits)
