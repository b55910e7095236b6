# SPDX-License-Identifier: Apache-2.0
"""Which part of a view phase 2 draws once more: round one of its regions.

Four parts, each half as wide and high as its view, are as many pixels as one view, but four photos say what is wrong.
"""

from zlib import crc32

import torch
from torch import Tensor

PART = 0.5
"""Width and height of a part over those of the view."""


def part_round_region(mask: Tensor, seed: str) -> tuple[slice, slice]:
    """Rows and columns round a pixel drawn in proportion to a mask uint8 [H, W] that is not empty.

    `seed` names the draw; it depends on nothing else, whatever the process or the resumed run.
    """
    generator = torch.Generator().manual_seed(crc32(seed.encode()))
    row = int(torch.multinomial(mask.sum(1).double(), 1, generator=generator))
    column = int(torch.multinomial(mask[row].double(), 1, generator=generator))
    return _centred(row, mask.shape[0]), _centred(column, mask.shape[1])


def _centred(at: int, size: int) -> slice:
    """`PART` of a side, as near to centred there as fits."""
    length = max(1, round(PART * size))
    start = min(max(0, at - length // 2), size - length)
    return slice(start, start + length)
