# SPDX-License-Identifier: Apache-2.0
"""Splats and points as PLY.

Splats are written as the field's viewers want them: float32 properties in INRIA's order and nothing else, tags as
comments, higher SH coefficients channel by channel. Reading goes by property name: any order, scalar type and byte
order; normals and further properties do not matter.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError

from .formats.compressed_ply import is_compressed, read_compressed
from .ply_container import read_header, read_vertices, write_vertices
from .points import LARGEST, PointCloud, sane_points
from .splats import SH_C0, SplatArrays, cleaned, unit

_MEANS, _NORMALS, _DC = ["x", "y", "z"], ["nx", "ny", "nz"], ["f_dc_0", "f_dc_1", "f_dc_2"]
_OPACITY, _SCALES = ["opacity"], ["scale_0", "scale_1", "scale_2"]
_QUATS, _COLORS = ["rot_0", "rot_1", "rot_2", "rot_3"], ["red", "green", "blue"]


def splat_properties(rest: int) -> list[str]:
    """Names in INRIA's order, with `rest` higher SH values: 0, 9, 24 or 45 for degrees 0 to 3."""
    return _MEANS + _NORMALS + _DC + _rest_names(rest) + _OPACITY + _SCALES + _QUATS


def write_gaussians(path: Path, arrays: Mapping[str, np.ndarray], *, tags: Mapping[str, Any] | None = None) -> None:
    """Write Gaussians as a splat PLY, atomically.

    Args:
        path: The file.
        arrays: means, sh_dc, sh_rest, logit_opacities, log_scales, quats as in `SplatArrays`; quats are normalised.
        tags: Comments for the reader: name and number, or numbers. "origin" [3] is where in the world the means'
            zero lies; float32 could not hold far places, so positions are then written as doubles of the world.
    """
    count = len(arrays["means"])
    rest = np.asarray(arrays["sh_rest"])
    columns = (
        arrays["means"],
        np.zeros((count, 3)),
        np.reshape(arrays["sh_dc"], (count, 3)),
        rest.transpose(0, 2, 1).reshape(count, 3 * rest.shape[1]),
        np.reshape(arrays["logit_opacities"], (count, 1)),
        arrays["log_scales"],
        unit(np.asarray(arrays["quats"])),
    )
    table = np.concatenate([np.asarray(column, "<f4") for column in columns], axis=1)
    names = splat_properties(3 * rest.shape[1])
    rows = np.ascontiguousarray(table).view([(name, "<f4") for name in names]).reshape(count)
    if "origin" in (tags or {}):
        rows = _in_the_world(rows, np.asarray(tags["origin"], np.float64))
    said = [f"{name}: {_said(value)}" for name, value in (tags or {}).items()]
    write_vertices(path, rows, ["SplatRenderMode: default", *said])


def read_gaussians(path: Path) -> SplatArrays:
    """Read any splat PLY, PlayCanvas's compressed one included; means are relative to the tag "origin".

    Raises:
        UserError: The file is missing, damaged, not a splat PLY, or without a single valid row.
    """
    if is_compressed(read_header(path)):
        return read_compressed(path)
    header, rows = read_vertices(path)
    tags = _tags(header.comments)
    rest = _rest_names(sum(name.startswith("f_rest_") for name in rows.dtype.names))
    _check_columns(path, rows.dtype.names, rest)
    higher = _columns(rows, rest).reshape(len(rows), 3, len(rest) // 3).transpose(0, 2, 1)
    arrays = {
        "means": _columns(rows, _MEANS, tags.get("origin", (0.0, 0.0, 0.0))),
        "sh_dc": _columns(rows, _DC).reshape(-1, 1, 3),
        "sh_rest": np.ascontiguousarray(higher),
        "logit_opacities": _columns(rows, _OPACITY),
        "log_scales": _columns(rows, _SCALES),
        "quats": _columns(rows, _QUATS),
    }
    return cleaned(path, arrays, tags)


def write_points(path: Path, xyz: np.ndarray, rgb: np.ndarray, *, doubles: bool = False) -> None:
    """Write points [M, 3] and colours uint8 [M, 3] as INRIA's `input.ply`: normals are there, and zero."""
    types = [(name, "<f8" if doubles else "<f4") for name in _MEANS] + [(name, "<f4") for name in _NORMALS]
    types += [(name, "u1") for name in _COLORS]
    rows = np.zeros(len(xyz), types)
    for i in range(3):
        rows[_MEANS[i]], rows[_COLORS[i]] = xyz[:, i], rgb[:, i]
    write_vertices(path, rows, [])


def read_points(path: Path) -> PointCloud:
    """Points of any PLY with x, y, z; colours from red, green, blue or the SH constants, else mid grey."""
    _, rows = read_vertices(path)
    if not set(_MEANS) <= set(rows.dtype.names):
        raise UserError(f"{path}: its vertices lack x, y, z; give a point cloud or a splat PLY")
    xyz = np.stack([rows[axis].astype(np.float64) for axis in _MEANS], axis=1)
    points = sane_points(xyz, _colors(rows))
    if points is None:
        raise UserError(f"{path}: holds no point; give a PLY with at least one")
    return points


def is_splat(path: Path) -> bool:
    """Whether a PLY holds Gaussians rather than bare points."""
    header = read_header(path)
    names = {column.name for element in header.elements for column in element.properties}
    return {"opacity", "scale_0", "rot_0"} <= names or is_compressed(header)


def _rest_names(count: int) -> list[str]:
    return [f"f_rest_{i}" for i in range(count)]


def _check_columns(path: Path, names: Sequence[str], rest: list[str]) -> None:
    lacking = [name for name in _MEANS + _DC + rest + _OPACITY + _SCALES + _QUATS if name not in names]
    if lacking:
        raise UserError(f"{path}: not a splat PLY, it lacks {', '.join(lacking[:5])}; export it as 3DGS PLY")
    if len(rest) not in (0, 9, 24, 45):
        raise UserError(f"{path}: {len(rest)} f_rest values are no SH degree from 0 to 3; export it with one of these")


def _in_the_world(rows: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """The same rows with positions as doubles, `origin` added."""
    moved = np.empty(len(rows), [(name, "<f8" if name in _MEANS else "<f4") for name in rows.dtype.names])
    for name in rows.dtype.names:
        moved[name] = rows[name]
    for name, offset in zip(_MEANS, origin, strict=True):
        moved[name] += offset
    return moved


def _columns(rows: np.ndarray, names: list[str], origin: Sequence[float] | None = None) -> np.ndarray:
    """Properties side by side, relative to `origin`, float32 [N, len(names)]."""
    table = np.empty((len(rows), len(names)), np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and its row is left out
        for i, name in enumerate(names):
            table[:, i] = rows[name] if origin is None else rows[name].astype(np.float64) - origin[i]
    return table


def _colors(rows: np.ndarray) -> np.ndarray:
    names = set(rows.dtype.names)
    if set(_COLORS) <= names:
        color = np.stack([rows[name] for name in _COLORS], axis=1)
        color = np.nan_to_num(color.astype(np.float64)) * _to_levels(color)
    elif set(_DC) <= names:
        color = np.nan_to_num(0.5 + SH_C0 * _columns(rows, _DC).astype(np.float64)) * 255
    else:
        color = np.full((len(rows), 3), 127.5)
    return (color + 0.5).clip(0, 255).astype(np.uint8)


def _to_levels(color: np.ndarray) -> float:
    """Factor to 0..255: bytes are that, wider integers have 16 bits, floats end at 1 or at 255."""
    if color.dtype.kind in "iu":
        return 1.0 if color.dtype.itemsize == 1 else 255 / 65535
    return 255.0 if np.nan_to_num(color, posinf=0).max(initial=0) <= 1 else 1.0


def _said(value: float | Sequence[float]) -> str:
    return " ".join(str(part) for part in np.atleast_1d(value))


def _tags(comments: list[str]) -> dict[str, Any]:
    """mult, sh_degree, background and origin, where the comments give them as sensible numbers."""
    said = {name.strip(): _numbers(value) for name, _, value in (comment.partition(":") for comment in comments)}
    tags: dict[str, Any] = {}
    match said.get("mult"):
        case [mult] if 0 < mult <= 100:
            tags["mult"] = mult
    match said.get("sh_degree"):
        case [degree] if degree in (0, 1, 2, 3):
            tags["sh_degree"] = int(degree)
    match said.get("background"):
        case [_, _, _] as levels if all(0 <= level <= 1 for level in levels):
            tags["background"] = tuple(levels)
    match said.get("origin"):
        case [_, _, _] as place if all(abs(value) <= LARGEST for value in place):
            tags["origin"] = tuple(place)
    return tags


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        return []
