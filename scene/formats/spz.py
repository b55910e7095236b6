# SPDX-License-Identifier: Apache-2.0
"""SPZ, Niantic's compressed format: quantised columns, one after the other, in a gzip stream.

    header      "NGSP", version, count; SH degree, bits of the fraction, flags, 0
    positions   3 x 24 bits, fixed point          alphas   1 byte: opacity
    colours     3 bytes: 0.15 f_dc + 0.5          scales   3 bytes: (log scale + 10) * 16
    rotations   4 bytes: the smallest three parts; 3 bytes x, y, z in version 2
    SH          a byte a number, (byte - 128) / 128, coefficient by coefficient

Axes are x right, y up, z backward (RUB), where a PLY has x right, y down, z forward. Version 3 is written, which all
readers know; 2, 3 and 4 are read, version 4 (zstd streams) with the package `zstandard`. Written from Niantic's
description of the format.
"""

import math
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

from utils.atomic import write_bytes
from utils.errors import UserError

from ..splats import LARGEST_COUNT, SplatArrays, cleaned, logit, read_file, sigmoid, to_bytes, unit

MAGIC = b"NGSP"
RUB = (1, -1, -1)
FRACTION = 12
"""Bits after the binary point: steps of 1/4096, within 2048 units of the origin."""

_HEADER = struct.Struct("<4sIIBBBB")
_HEADER_4 = struct.Struct("<4sIIBBBBI12x")
_VERSION = 3
_COLOR = 0.15
_LARGEST_FIXED = (1 << 23) - 1
_DEFLATE_RATIO = 1100
"""Deflate makes nothing smaller than by this factor, so a file that promises more lies."""
_ZSTD_LIMIT = 1 << 32


def write(path: Path, splats: SplatArrays) -> list[str]:
    """Write an SPZ file, and return what it cannot hold."""
    turned = splats.in_axes(RUB)
    fraction = _fraction(turned.means)
    count, degree = len(splats), splats.max_sh_degree
    columns = (
        _fixed(turned.means, fraction),
        to_bytes(255 * sigmoid(turned.logit_opacities)),
        to_bytes(255 * (_COLOR * turned.sh_dc + 0.5)),
        to_bytes(16 * (turned.log_scales + 10)),
        _smallest_three(unit(turned.quats)),
        to_bytes(128 * turned.sh_rest + 128),
    )
    content = _HEADER.pack(MAGIC, _VERSION, count, degree, fraction, 0, 0) + b"".join(c.tobytes() for c in columns)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)  # a gzip stream without time or name
    write_bytes(path, packer.compress(content) + packer.flush())
    return _warnings(splats, fraction)


def read(path: Path) -> SplatArrays:
    """Read an SPZ file.

    Raises:
        UserError: The file is missing, damaged, or needs a package that is not installed.
    """
    data = read_file(path)
    try:
        version, count, degree, fraction, columns = _columns_4(path, data) if data[:4] == MAGIC else _columns(data)
        fields = [np.frombuffer(column, np.uint8).reshape(count, -1) for column in columns]
    except (ValueError, struct.error, zlib.error):
        raise UserError(f"{path}: a damaged SPZ file, or of an unknown version; copy or export it again") from None
    positions, alphas, colors, scales, rotations, higher = fields
    arrays = {
        "means": _from_fixed(positions, fraction),
        "logit_opacities": logit(alphas / 255),
        "sh_dc": ((colors / 255 - 0.5) / _COLOR)[:, None, :],
        "log_scales": scales / 16 - 10,
        "quats": _first_three(rotations) if version == 2 else _from_smallest_three(rotations),
        "sh_rest": (higher.reshape(count, -1, 3)[:, : (min(degree, 3) + 1) ** 2 - 1] - 128.0) / 128,
    }
    return cleaned(path, arrays).in_axes(RUB)


def _fraction(means: np.ndarray) -> int:
    """Bits after the binary point: as usual, or as many as a larger scene leaves."""
    largest = float(np.abs(means).max(initial=0))
    return max(0, min(FRACTION, math.floor(math.log2(_LARGEST_FIXED / max(largest, 1.0)))))


def _warnings(splats: SplatArrays, fraction: int) -> list[str]:
    """What the file says otherwise than the Gaussians."""
    said = []
    if fraction < FRACTION:
        reach = (_LARGEST_FIXED + 1) >> FRACTION
        said.append(
            f"the scene reaches beyond {reach} units from the origin: positions are in steps of "
            f"{2.0**-fraction:g} units here, and readers that expect 1/4096 fail; --crop leaves far Gaussians out"
        )
    log_scales = splats.log_scales
    checks = (
        ("beyond what a position can hold", (np.abs(splats.means) * 2.0**fraction > _LARGEST_FIXED + 0.5).any(1)),
        (
            "of sizes that are cut to those between exp(-10) and exp(5.94)",
            ((log_scales < -10) | (log_scales > 5.97)).any(1),
        ),
        ("of colours that are cut", (np.abs(splats.sh_dc) > 0.5 / _COLOR).any((1, 2))),
        ("of SH coefficients that are cut to [-1, 1]", (np.abs(splats.sh_rest) > 1.004).any((1, 2))),
    )
    said += [f"{rows.sum()} of {len(splats)} Gaussians are {what}" for what, rows in checks if rows.any()]
    return said


def _sizes(version: int, count: int, degree: int) -> list[int]:
    """Bytes of the six columns; ValueError for what no file holds."""
    if version not in (2, 3, 4) or degree > 4 or count > LARGEST_COUNT:
        raise ValueError(version)
    widths = (9, 1, 3, 3, 3 if version == 2 else 4, 3 * ((degree + 1) ** 2 - 1))
    return [count * width for width in widths]


def _columns(data: bytes) -> tuple[int, int, int, int, list[bytes]]:
    """Version, count, SH degree, bits of the fraction and the columns of a gzip stream."""
    unpacker = zlib.decompressobj(31)
    magic, version, count, degree, fraction, _, _ = _HEADER.unpack(unpacker.decompress(data, _HEADER.size))
    sizes = _sizes(version, count, degree)
    if magic != MAGIC or version == 4 or sum(sizes) > _DEFLATE_RATIO * len(data):
        raise ValueError(magic)
    content = unpacker.decompress(unpacker.unconsumed_tail, max(sum(sizes), 1))
    ends = np.cumsum(sizes).tolist()
    more = unpacker.decompress(unpacker.unconsumed_tail, 1)  # nothing, but the stream's check sum is looked at
    if len(content) < ends[-1] or not (more or unpacker.eof):
        raise ValueError("cut off")
    return version, count, degree, fraction, [content[e - s : e] for s, e in zip(sizes, ends, strict=True)]


def _columns_4(path: Path, data: bytes) -> tuple[int, int, int, int, list[bytes]]:
    """The same of version 4: a table of sizes, then a zstd stream for each column."""
    _, version, count, degree, fraction, _, streams, place = _HEADER_4.unpack_from(data)
    sizes = _sizes(version, count, degree)
    if version != 4 or not 5 <= streams <= 6:
        raise ValueError(version)
    table = struct.unpack_from(f"<{2 * streams}Q", data, place)
    start = place + 16 * streams
    columns = []
    for size, packed in zip(sizes, [*table[::2], 0], strict=False):
        columns.append(_unzstd(path, data[start : start + packed], size))
        start += packed
    return version, count, degree, fraction, columns


def _unzstd(path: Path, data: bytes, size: int) -> bytes:
    """The `size` bytes that a zstd stream holds."""
    if size == 0:
        return b""
    if size > _ZSTD_LIMIT:
        raise ValueError(size)
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd

            content = zstd.ZstdDecompressor().decompress(data, size)
        else:
            import zstandard as zstd

            content = zstd.ZstdDecompressor().stream_reader(data).read(size)
    except ImportError:
        raise UserError(
            f"{path}: SPZ version 4 needs the package zstandard; pip install zstandard, or export version 3"
        ) from None
    except zstd.ZstdError:
        raise ValueError("damaged") from None
    if len(content) != size:
        raise ValueError("cut off")
    return content


def _fixed(means: np.ndarray, fraction: int) -> np.ndarray:
    """Positions as 24-bit integers, low byte first: [N, 9] bytes."""
    steps = np.rint(means.astype(np.float64) * 2**fraction).clip(-_LARGEST_FIXED - 1, _LARGEST_FIXED)
    return np.ascontiguousarray(steps.astype("<i4").reshape(-1, 3, 1).view(np.uint8)[..., :3])


def _from_fixed(stored: np.ndarray, fraction: int) -> np.ndarray:
    wide = np.zeros((len(stored), 3, 4), np.uint8)
    wide[..., 1:] = stored.reshape(-1, 3, 3)  # in the upper bytes, so that the sign is in its place
    return (wide.view("<i4")[..., 0] >> 8) / 2.0**fraction


def _smallest_three(quats: np.ndarray) -> np.ndarray:
    """Unit quaternions (w, x, y, z) in 32 bits: which of x, y, z, w is the largest, the others as sign and 9 bits."""
    xyzw = quats[:, [1, 2, 3, 0]]
    largest = np.abs(xyzw).argmax(axis=1)
    rows = np.arange(len(xyzw))
    xyzw = xyzw * np.where(xyzw[rows, largest] < 0, -1, 1)[:, None]
    others = _others(largest)
    parts = np.take_along_axis(xyzw, others, axis=1)
    sizes = np.floor(511 * np.abs(parts) * math.sqrt(2) + 0.5).clip(0, 511).astype(np.uint32)
    words = sizes | ((parts < 0).astype(np.uint32) << 9)
    packed = (largest.astype(np.uint32) << 30) | (words[:, 0] << 20) | (words[:, 1] << 10) | words[:, 2]
    return packed.astype("<u4")


def _from_smallest_three(stored: np.ndarray) -> np.ndarray:
    """Quaternions [N, 4] as (w, x, y, z)."""
    packed = np.ascontiguousarray(stored).view("<u4")[:, 0]
    largest = (packed >> 30).astype(np.int64)
    words = np.stack([packed >> shift & 1023 for shift in (20, 10, 0)], axis=1)
    parts = (words & 511) / (511 * math.sqrt(2)) * np.where(words & 512, -1, 1)
    xyzw = np.empty((len(packed), 4))
    np.put_along_axis(xyzw, _others(largest), parts, axis=1)
    np.put_along_axis(xyzw, largest[:, None], np.sqrt((1 - (parts**2).sum(1)).clip(0))[:, None], axis=1)
    return xyzw[:, [3, 0, 1, 2]]


def _others(largest: np.ndarray) -> np.ndarray:
    """The three indices of 0 to 3 that are left, in order, [N, 3]."""
    return np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]


def _first_three(stored: np.ndarray) -> np.ndarray:
    """Quaternions of version 2: x, y, z in a byte each, w what is missing to length 1."""
    xyz = stored / 127.5 - 1
    return np.concatenate([np.sqrt((1 - (xyz**2).sum(1, keepdims=True)).clip(0)), xyz], axis=1)
