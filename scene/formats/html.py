# SPDX-License-Identifier: Apache-2.0
"""One page that shows the Gaussians: offline, nothing but a browser with WebGL 2.

The page (viewer.html) draws as our renderer does, SH, compact box and all. Its data are a gzip stream in base64, a row
of 16-byte words a Gaussian:

    position 3 x float32, rotation 2-10-10-10 bits
    log scales, opacity, f_dc: 16 bits each between bounds that the settings name, 16 bits spare
    higher SH coefficients: a byte each, times the largest of their degree; 0 to 3 words
"""

import base64
import html
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.atomic import write_text

from ..splats import SplatArrays, sigmoid, to_bytes, unit

_PAGE = Path(__file__).with_name("viewer.html")
_ROW = np.dtype([("means", "<f4", 3), ("quats", "<u4"), ("scales", "<u2", 3), ("opacity", "<u2"), ("dc", "<u2", 4)])
_WORDS = (0, 1, 2, 3)
"""16-byte words of higher SH coefficients by degree."""
_DEGREES = (0, 3, 8, 15)
_NEAR = 0.2


@dataclass(frozen=True)
class Start:
    """Where the page looks from: eye, target and up [3] in the world, focal length in picture heights."""

    position: np.ndarray
    target: np.ndarray
    up: np.ndarray
    focal: float = 1.0


def write(path: Path, splats: SplatArrays, *, start: Start, title: str) -> list[str]:
    """Write the page, and return what it cannot hold."""
    degree = splats.max_sh_degree
    rows, bounds = _rows(splats)
    words, largest = _higher(splats.sh_rest, degree)
    table = np.concatenate([rows, words], axis=1)
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    data = base64.b64encode(packer.compress(table.tobytes()) + packer.flush()).decode()
    settings = bounds | {
        "count": len(splats),
        "degree": degree,
        "texels": 2 + _WORDS[degree],
        "higher": largest,
        "mult": splats.tags.get("mult", 1.0),
        "background": list(splats.tags.get("background", (0, 0, 0))),
        "start": _start(start),
    }
    said = json.dumps(settings).replace("<", "\\u003c")
    page = _PAGE.read_text(encoding="utf-8").replace("@TITLE@", html.escape(title)).replace("@SETTINGS@", said)
    write_text(path, page.replace("@DATA@", data))
    return []


def _start(start: Start) -> dict[str, Any]:
    vectors = {name: np.asarray(getattr(start, name), float).tolist() for name in ("position", "target", "up")}
    return vectors | {"focal": float(start.focal), "near": _NEAR}


def _rows(splats: SplatArrays) -> tuple[np.ndarray, dict[str, list[float]]]:
    """The first 32 bytes of each Gaussian, and lowest value and step of its 16-bit numbers."""
    rows = np.zeros(len(splats), _ROW)
    rows["means"] = splats.means
    rows["quats"] = _packed(unit(splats.quats))
    rows["opacity"] = np.rint(65535 * sigmoid(splats.logit_opacities[:, 0]))
    scales, scale_bounds = _steps(splats.log_scales)
    constants, constant_bounds = _steps(splats.sh_dc[:, 0])
    rows["scales"], rows["dc"][:, :3] = scales, constants
    return rows.view(np.uint8).reshape(len(rows), -1), {"logScales": scale_bounds, "constants": constant_bounds}


def _steps(values: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Numbers as 65536 even steps from the lowest to the highest."""
    low, high = float(values.min()), float(values.max())
    step = max(high - low, 1e-9) / 65535
    return np.rint((values.astype(np.float64) - low) / step), [low, step]


def _higher(rest: np.ndarray, degree: int) -> tuple[np.ndarray, list[float]]:
    """Higher SH coefficients as bytes [N, 16 words], coefficient by coefficient, and the largest of each degree."""
    words = np.full((len(rest), 16 * _WORDS[degree]), 128, np.uint8)
    largest = [1.0, 1.0, 1.0]
    for band in range(1, degree + 1):
        first, last = _DEGREES[band - 1], _DEGREES[band]
        values = rest[:, first:last].astype(np.float64)
        largest[band - 1] = float(np.abs(values).max()) or 1.0
        words[:, 3 * first : 3 * last] = to_bytes(127 * values / largest[band - 1] + 128).reshape(len(rest), -1)
    return words, largest


def _packed(quats: np.ndarray) -> np.ndarray:
    """Unit quaternions (w, x, y, z) in 32 bits."""
    largest = np.abs(quats).argmax(axis=1)
    rows = np.arange(len(quats))
    signed = quats * np.where(quats[rows, largest] < 0, -1, 1)[:, None]
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    share = np.take_along_axis(signed, others, axis=1) * math.sqrt(0.5) + 0.5
    steps = np.rint(1023 * share).clip(0, 1023).astype(np.uint32)
    return (largest.astype(np.uint32) << 30) | (steps[:, 0] << 20) | (steps[:, 1] << 10) | steps[:, 2]
