# SPDX-License-Identifier: Apache-2.0
"""PlayCanvas's compressed PLY: 256 Gaussians share the bounds of a chunk, within which they are quantised.

    chunk   min_x ... max_z, min_scale_x ... max_scale_z, and in newer files min_r ... max_b; float32
    vertex  packed_position 11-10-11 bits, packed_rotation 2-10-10-10, packed_scale 11-10-11, packed_color 8-8-8-8
    sh      f_rest_*, one byte each, channel by channel, from -4 to 4

Written from PlayCanvas's description of the format. It is read only.
"""

import math
from pathlib import Path

import numpy as np

from utils.errors import UserError

from ..ply_container import Header, read_tables
from ..splats import SH_C0, SplatArrays, cleaned, logit

CHUNK = 256
_PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")


def is_compressed(header: Header) -> bool:
    """Whether a PLY is one of these."""
    return "chunk" in {element.name for element in header.elements}


def read_compressed(path: Path) -> SplatArrays:
    """Read a compressed PLY.

    Raises:
        UserError: The file is damaged.
    """
    tables = read_tables(path)
    try:
        chunks, packed = tables["chunk"], tables["vertex"]
        position, rotation, scale, color = (packed[name].astype(np.uint32) for name in _PACKED)
        chunk = np.arange(len(packed)) // CHUNK
        if len(packed) > CHUNK * len(chunks):
            raise ValueError
        levels = _bytes(color)
        arrays = {
            "means": _within(_fields(position), chunks, chunk, ""),
            "log_scales": _within(_fields(scale), chunks, chunk, "scale_"),
            "quats": _rotations(rotation),
            "logit_opacities": logit(levels[:, 3:]),
            "sh_dc": ((_colors(levels[:, :3], chunks, chunk) - 0.5) / SH_C0)[:, None, :],
            "sh_rest": _higher(tables.get("sh"), len(packed)),
        }
    except (KeyError, ValueError):
        raise UserError(f"{path}: a damaged compressed PLY; convert the scene again, or to a plain PLY") from None
    return cleaned(path, arrays)


def _fields(packed: np.ndarray) -> np.ndarray:
    """Three numbers in [0, 1] of 11, 10 and 11 bits, [N, 3]."""
    return np.stack([(packed >> 21) / 2047, (packed >> 11 & 1023) / 1023, (packed & 2047) / 2047], axis=1)


def _bytes(packed: np.ndarray) -> np.ndarray:
    """Four numbers in [0, 1] of 8 bits, [N, 4]."""
    return np.stack([(packed >> shift & 255) / 255 for shift in (24, 16, 8, 0)], axis=1)


def _within(share: np.ndarray, chunks: np.ndarray, chunk: np.ndarray, prefix: str, axes: str = "xyz") -> np.ndarray:
    """Values at a share [N, 3] of the way through the bounds of their chunks."""
    low = np.stack([chunks[f"min_{prefix}{axis}"] for axis in axes], axis=1)[chunk].astype(np.float64)
    high = np.stack([chunks[f"max_{prefix}{axis}"] for axis in axes], axis=1)[chunk]
    with np.errstate(over="ignore", invalid="ignore"):  # rows with such bounds are left out
        return low + share * (high - low)


def _colors(share: np.ndarray, chunks: np.ndarray, chunk: np.ndarray) -> np.ndarray:
    return _within(share, chunks, chunk, "", "rgb") if "min_r" in chunks.dtype.names else share


def _rotations(packed: np.ndarray) -> np.ndarray:
    """Quaternions [N, 4] as (w, x, y, z): which part is the largest in 2 bits, the others in 10 bits each."""
    parts = np.stack([(packed >> shift & 1023) / 1023 for shift in (20, 10, 0)], axis=1)
    parts = (parts - 0.5) * math.sqrt(2)
    largest = np.sqrt((1 - (parts**2).sum(axis=1)).clip(0))
    index = packed >> 30
    quats = np.empty((len(packed), 4))
    for part in range(4):
        rows = index == part
        quats[rows] = np.insert(parts[rows], part, largest[rows], axis=1)
    return quats


def _higher(table: np.ndarray | None, count: int) -> np.ndarray:
    """Higher SH coefficients [N, K-1, 3]; a byte stands for the middle of its step, 0 and 255 for the ends."""
    if table is None:
        return np.zeros((count, 0, 3))
    names = [name for name in table.dtype.names if name.startswith("f_rest_")]
    if len(names) not in (0, 9, 24, 45) or len(table) != count:
        raise ValueError(names)
    stored = np.stack([table[f"f_rest_{k}"] for k in range(len(names))], axis=1).astype(np.float64)
    share = np.where(stored == 0, 0, np.where(stored == 255, 1, (stored + 0.5) / 256))
    return ((share - 0.5) * 8).reshape(count, 3, -1).transpose(0, 2, 1)
