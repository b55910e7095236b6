# SPDX-License-Identifier: Apache-2.0
"""SOG version 2, PlayCanvas's format: a zip of lossless WebP images, a pixel a Gaussian, and meta.json.

    means_l, means_u   low and high bytes of 16-bit positions, on a logarithmic axis between mins and maxs
    scales, sh0        bytes into a codebook of 256 log scales, of 256 f_dc; sh0's alpha is the opacity
    quats              the three smallest parts, and in alpha 252 + which of w, x, y, z is the largest
    shN_labels         16 bits a Gaussian into a palette of SH coefficients
    shN_centroids      the palette, 64 entries a row, whose numbers are bytes into a codebook

Axes are those of the PLY, as splat-transform writes them. Rows keep their order. Written from PlayCanvas's description
of the format.
"""

import io
import json
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from utils.atomic import write_bytes
from utils.errors import UserError

from ..splats import SplatArrays, cleaned, logit, sigmoid, to_bytes, unit
from .palette import codebook, palette

MAGIC = b"PK\3\4"
META = "meta.json"
PALETTE_LIMIT = 1 << 16
_PALETTE_ROW = 64
_QUAT_MODE = 252
_META_LIMIT = 1 << 24
_FILE_LIMIT = 1 << 30
_COUNT_LIMIT = 50_000_000
_SIDE_LIMIT = 16383
_BANDS = {0: 0, 3: 1, 8: 2, 15: 3}
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write(path: Path, splats: SplatArrays) -> list[str]:
    """Write a .sog file, and return what it cannot hold."""
    count = len(splats)
    shape = _image_shape(count)
    quantised, low, high = _positions(splats.means)
    scale_book, scales = codebook(splats.log_scales)
    color_book, colors = codebook(splats.sh_dc[:, 0])
    opacity = to_bytes(255 * sigmoid(splats.logit_opacities))
    images = {
        "means_l.webp": _image((quantised & 255).astype(np.uint8), shape),
        "means_u.webp": _image((quantised >> 8).astype(np.uint8), shape),
        "scales.webp": _image(scales, shape),
        "quats.webp": _image(_packed_quats(unit(splats.quats)), shape),
        "sh0.webp": _image(np.concatenate([colors, opacity], axis=1), shape),
    }
    meta: dict[str, Any] = {
        "version": 2,
        "asset": {"generator": "VLM-Instruct-FastGS"},
        "count": count,
        "means": {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": scale_book.tolist(), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": color_book.tolist(), "files": ["sh0.webp"]},
    }
    if splats.sh_rest.any():
        meta["shN"], more = _higher(splats.sh_rest, shape)
        images |= more
    write_bytes(path, _zip(images | {META: json.dumps(meta, separators=(",", ":")).encode()}))
    return []


def read(path: Path) -> SplatArrays:
    """Read a .sog file of version 2.

    Raises:
        UserError: The file is missing, damaged or of another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            meta = json.loads(_member(archive, META, _META_LIMIT))
            if meta["version"] != 2 or not 0 < meta["count"] <= _COUNT_LIMIT:
                raise ValueError("version or count")
            return cleaned(path, _arrays(archive, meta))
    except FileNotFoundError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a .sog file") from error
    except UserError:
        raise
    except (
        *(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, SyntaxError),
        *(
            zipfile.BadZipFile,
            zlib.error,
            struct.error,
            NotImplementedError,
            EOFError,
            RuntimeError,
            Image.DecompressionBombError,
        ),
    ):
        raise UserError(f"{path}: not a whole SOG file of version 2; copy or export it again") from None


def _image_shape(count: int) -> tuple[int, int]:
    """Height and width of an image with a pixel for each Gaussian; widths are multiples of 4."""
    width = 4 * math.ceil(math.sqrt(count) / 4)
    return math.ceil(count / width), width


def _image(values: np.ndarray, shape: tuple[int, int]) -> bytes:
    """Bytes [N, C], C <= 4, as a lossless image; missing channels are 0, 0, 255."""
    pixels = np.zeros((shape[0] * shape[1], 4), np.uint8)
    pixels[:, 3] = 255
    pixels[: len(values), : values.shape[1]] = values
    stream = io.BytesIO()
    Image.fromarray(pixels.reshape(*shape, 4)).save(stream, "WEBP", lossless=True, exact=True, quality=50, method=2)
    return stream.getvalue()


def _zip(files: dict[str, bytes]) -> bytes:
    """An archive without times: equal files give equal bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return stream.getvalue()


def _positions(means: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """16-bit places [N, 3] between bounds of sign(x) log(1 + |x|), and these bounds [3]."""
    logs = np.sign(means) * np.log1p(np.abs(means.astype(np.float64)))
    low, high = logs.min(axis=0), logs.max(axis=0)
    share = (logs - low) / np.maximum(high - low, 1e-12)
    return np.rint(65535 * share).astype(np.uint16), low, high


def _packed_quats(quats: np.ndarray) -> np.ndarray:
    """Unit quaternions as bytes [N, 4]."""
    largest = np.abs(quats).argmax(axis=1)
    rows = np.arange(len(quats))
    quats = quats * np.where(quats[rows, largest] < 0, -1, 1)[:, None]
    parts = np.take_along_axis(quats, _OTHERS[largest], axis=1)
    share = parts * math.sqrt(0.5) + 0.5
    return np.concatenate([to_bytes(255 * share), (_QUAT_MODE + largest[:, None]).astype(np.uint8)], axis=1)


_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def _higher(rest: np.ndarray, shape: tuple[int, int]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The entry shN and its images."""
    numbers = rest.shape[1]
    entries, labels = palette(rest.reshape(len(rest), -1), PALETTE_LIMIT)
    book, places = codebook(entries)
    rows = math.ceil(len(entries) / _PALETTE_ROW)
    pixels = np.zeros((rows * _PALETTE_ROW * numbers, 3), np.uint8)
    pixels[: len(entries) * numbers] = places.reshape(-1, 3)
    low_high = np.stack([labels & 255, labels >> 8], axis=1).astype(np.uint8)
    names = ("shN_centroids.webp", "shN_labels.webp")
    images = (_image(pixels, (rows, _PALETTE_ROW * numbers)), _image(low_high, shape))
    entry = {"count": len(entries), "bands": _BANDS[numbers], "codebook": book.tolist(), "files": list(names)}
    return entry, dict(zip(names, images, strict=True))


def _arrays(archive: zipfile.ZipFile, meta: dict[str, Any]) -> dict[str, np.ndarray]:
    """The parameters by name; any error of Python's for damaged files."""
    count = meta["count"]
    low, high = (_pixels(archive, name, count).astype(np.uint16) for name in meta["means"]["files"][:2])
    mins, maxs = (np.array(meta["means"][name], np.float64).reshape(3) for name in ("mins", "maxs"))
    with np.errstate(over="ignore", invalid="ignore"):
        logs = mins + (maxs - mins) * ((high[:, :3] << 8 | low[:, :3]) / 65535)
        means = np.sign(logs) * np.expm1(np.abs(logs))
    color = _pixels(archive, meta["sh0"]["files"][0], count)
    scales = _pixels(archive, meta["scales"]["files"][0], count)
    return {
        "means": means,
        "log_scales": _book(meta["scales"])[scales[:, :3]],
        "quats": _unpacked_quats(_pixels(archive, meta["quats"]["files"][0], count)),
        "logit_opacities": logit(color[:, 3:] / 255),
        "sh_dc": _book(meta["sh0"])[color[:, None, :3]],
        "sh_rest": _unpacked_higher(archive, meta["shN"], count) if "shN" in meta else np.zeros((count, 0, 3)),
    }


def _unpacked_quats(stored: np.ndarray) -> np.ndarray:
    """Quaternions [N, 4] as (w, x, y, z)."""
    largest = stored[:, 3].astype(np.int64) - _QUAT_MODE
    if len(largest) and largest.min() < 0:
        raise ValueError("quats")
    parts = (stored[:, :3] / 255 - 0.5) * math.sqrt(2)
    quats = np.empty((len(stored), 4))
    np.put_along_axis(quats, _OTHERS[largest], parts, axis=1)
    np.put_along_axis(quats, largest[:, None], np.sqrt((1 - (parts**2).sum(1)).clip(0))[:, None], axis=1)
    return quats


def _unpacked_higher(archive: zipfile.ZipFile, entry: dict[str, Any], count: int) -> np.ndarray:
    """Higher SH coefficients [N, K-1, 3]."""
    numbers = (entry["bands"] + 1) ** 2 - 1
    if numbers not in _BANDS or not 0 < entry["count"] <= PALETTE_LIMIT:
        raise ValueError("shN")
    centroids, labels = entry["files"][:2]
    entries = _pixels(archive, centroids, entry["count"] * numbers)[:, :3].reshape(-1, numbers, 3)
    places = _pixels(archive, labels, count).astype(np.int64)
    return _book(entry)[entries[places[:, 0] | places[:, 1] << 8]]


def _book(entry: dict[str, Any]) -> np.ndarray:
    return np.array(entry["codebook"], np.float64).reshape(256)


def _pixels(archive: zipfile.ZipFile, name: str, count: int) -> np.ndarray:
    """The first pixels of an image, uint8 [count, 4]."""
    with Image.open(io.BytesIO(_member(archive, name, _FILE_LIMIT))) as image:
        width, height = image.size
        if max(width, height) > _SIDE_LIMIT or not count <= width * height <= 4 * count + (1 << 22):
            raise ValueError(name)
        return np.asarray(image.convert("RGBA")).reshape(-1, 4)[:count]


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > limit:
        raise ValueError(name)
    return archive.read(info)
