# SPDX-License-Identifier: Apache-2.0
"""Binary glTF with the extension KHR_gaussian_splatting: points whose attributes are the Gaussians, in float32.

Scales and opacities are activated, rotations are (x, y, z, w), SH coefficients one attribute each; COLOR_0 shows
something in viewers that know only points. glTF has x left, y up, z forward. Written from the Khronos specification.
"""

import json
import struct
from pathlib import Path

import numpy as np

from utils.atomic import write_bytes
from utils.errors import UserError

from ..splats import LARGEST_COUNT, SH_C0, SplatArrays, cleaned, logit, read_file, sigmoid, to_bytes, unit

MAGIC = b"glTF"
LUF = (-1, -1, 1)
NAME = "KHR_gaussian_splatting"
EXTENSION = {
    "kernel": "ellipse",
    "colorSpace": "srgb_rec709_display",
    "sortingMethod": "cameraDistance",
    "projection": "perspective",
}
_FLOAT, _BYTE = 5126, 5121
_ARRAY_BUFFER = 34962
_KINDS = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
_WIDTHS = {kind: width for width, kind in _KINDS.items()}
_CHUNK = struct.Struct("<I4s")
_JSON, _BINARY = b"JSON", b"BIN\0"
_LIMIT = (1 << 32) - (1 << 20)
"""Bytes above which glTF's 32-bit lengths end."""


def write(path: Path, splats: SplatArrays) -> list[str]:
    """Write a .glb file; it holds everything."""
    columns = _attributes(splats.in_axes(LUF))
    binary = b"".join(column.tobytes() for column in columns.values())
    if len(binary) > _LIMIT:
        raise UserError(f"{path}: {len(splats)} Gaussians are more than a .glb can hold; use --crop or another format")
    text = json.dumps(_document(columns, len(binary)), separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 2 * _CHUNK.size + len(text) + len(binary)
    head = MAGIC + struct.pack("<II", 2, total) + _CHUNK.pack(len(text), _JSON)
    write_bytes(path, head + text + _CHUNK.pack(len(binary), _BINARY) + binary)
    return []


def read(path: Path) -> SplatArrays:
    """Read the first primitive with Gaussians of a .glb file; quantised attributes are not known.

    Raises:
        UserError: The file is missing, damaged, or holds no Gaussians in float32.
    """
    data = read_file(path)
    try:
        size, _ = _CHUNK.unpack_from(data, 12)
        document = json.loads(data[20 : 20 + size])
        binary = data[20 + size + _CHUNK.size :]
        primitives = [p for mesh in document["meshes"] for p in mesh["primitives"] if NAME in p.get("extensions", {})]
        names = primitives[0]["attributes"]
        columns = {name: _column(document, binary, number) for name, number in names.items() if name != "COLOR_0"}
        higher = [columns[name] for name in _higher_names() if name in columns]
        arrays = {
            "means": columns["POSITION"],
            "log_scales": _log(columns[f"{NAME}:SCALE"]),
            "quats": columns[f"{NAME}:ROTATION"][:, [3, 0, 1, 2]],
            "logit_opacities": logit(columns[f"{NAME}:OPACITY"].astype(np.float64).clip(0, 1)),
            "sh_dc": columns[_sh_name(0, 0)][:, None, :],
            "sh_rest": np.stack(higher, axis=1) if higher else np.zeros((len(columns["POSITION"]), 0, 3)),
        }
        shapes = {name: array.shape[1:] for name, array in arrays.items() if name != "sh_rest"}
        if len({len(a) for a in arrays.values()}) > 1 or len(higher) not in (0, 3, 8, 15) or shapes != _SHAPES:
            raise ValueError(shapes)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, struct.error):
        raise UserError(f"{path}: holds no Gaussians in float32 as {NAME} has them; export it again") from None
    return cleaned(path, arrays).in_axes(LUF)


_SHAPES = {"means": (3,), "log_scales": (3,), "quats": (4,), "logit_opacities": (1,), "sh_dc": (1, 3)}


def _sh_name(degree: int, number: int) -> str:
    return f"{NAME}:SH_DEGREE_{degree}_COEF_{number}"


def _higher_names() -> list[str]:
    return [_sh_name(degree, number) for degree in (1, 2, 3) for number in range(2 * degree + 1)]


def _attributes(splats: SplatArrays) -> dict[str, np.ndarray]:
    """Columns by attribute name."""
    opacity = sigmoid(splats.logit_opacities)
    color = np.concatenate([0.5 + SH_C0 * splats.sh_dc[:, 0], opacity], axis=1)
    columns = {
        "POSITION": splats.means,
        "COLOR_0": to_bytes(255 * color),
        f"{NAME}:ROTATION": unit(splats.quats)[:, [1, 2, 3, 0]],
        f"{NAME}:SCALE": np.exp(splats.log_scales.astype(np.float64)),
        f"{NAME}:OPACITY": opacity,
        _sh_name(0, 0): splats.sh_dc[:, 0],
    }
    columns |= dict(zip(_higher_names(), splats.sh_rest.transpose(1, 0, 2), strict=False))
    return {name: np.ascontiguousarray(c if c.dtype == np.uint8 else c.astype("<f4")) for name, c in columns.items()}


def _document(columns: dict[str, np.ndarray], size: int) -> dict:
    """The JSON: one node, one mesh, a view and an accessor for each column."""
    views, accessors, start = [], [], 0
    for name, column in columns.items():
        views.append({"buffer": 0, "byteOffset": start, "byteLength": column.nbytes, "target": _ARRAY_BUFFER})
        start += column.nbytes
        whole = column.dtype == np.uint8
        accessor = {"bufferView": len(accessors), "componentType": _BYTE if whole else _FLOAT, "count": len(column)}
        accessor |= {"type": _KINDS[column.shape[1]]} | ({"normalized": True} if whole else {})
        if name == "POSITION":
            accessor |= {"min": column.min(0).tolist(), "max": column.max(0).tolist()}
        accessors.append(accessor)
    primitive = {
        "attributes": {name: number for number, name in enumerate(columns)},
        "mode": 0,
        "extensions": {NAME: EXTENSION},
    }
    return {
        "asset": {"version": "2.0", "generator": "VLM-Instruct-FastGS"},
        "extensionsUsed": [NAME],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": size}],
    }


def _column(document: dict, binary: bytes, number: int) -> np.ndarray:
    """The float32 column [N, C] of an accessor."""
    accessor = document["accessors"][number]
    view = document["bufferViews"][accessor["bufferView"]]
    width, count = _WIDTHS[accessor["type"]], accessor["count"]
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    plain = view.get("byteStride", 4 * width) == 4 * width and view["buffer"] == 0
    if accessor["componentType"] != _FLOAT or not plain or not 0 < count <= LARGEST_COUNT or start < 0:
        raise ValueError(accessor)
    return np.frombuffer(binary, "<f4", count * width, start).reshape(count, width)


def _log(scales: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(scales.astype(np.float64))
