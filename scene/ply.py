# SPDX-License-Identifier: Apache-2.0
"""Splats and points as PLY.

Splats are written as the field's viewers want them: float32 properties in INRIA's order and nothing else, tags as
comments, higher SH coefficients channel by channel. Reading goes by property name: any order, scalar type and byte
order; normals and further properties do not matter.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError

from .ply_container import Header, read_header, read_vertices, write_vertices
from .points import PointCloud, sane, sane_points

SH_C0 = 0.28209479177387814

SHORTEST = 1e-8
"""Length below which a quaternion says nothing."""

FULL_OPACITY, FLAT_SCALE = 20.0, -30.0
"""Logit and log that stand for an opacity of 1 and a scale of 0, whose own values are infinite."""

LARGEST_LOG_SCALE = 30.0
"""Above it the covariance is about to leave float32."""

_MEANS, _NORMALS, _DC = ["x", "y", "z"], ["nx", "ny", "nz"], ["f_dc_0", "f_dc_1", "f_dc_2"]
_OPACITY, _SCALES = ["opacity"], ["scale_0", "scale_1", "scale_2"]
_QUATS, _COLORS = ["rot_0", "rot_1", "rot_2", "rot_3"], ["red", "green", "blue"]


@dataclass(frozen=True, eq=False)
class SplatArrays:
    """Gaussians in stored space, float32, and what their file says about them.

    means [N, 3]; sh_dc [N, 1, 3]; sh_rest [N, K-1, 3] with K = 1, 4, 9, 16; logit_opacities [N, 1]; log_scales [N, 3];
    quats [N, 4] as (w, x, y, z), of any length but zero. `tags` holds what the comments say: mult, sh_degree,
    background. `kept` bool [rows of the file] tells which rows these are: rows with NaN or absurd values are left out.
    """

    means: np.ndarray
    sh_dc: np.ndarray
    sh_rest: np.ndarray
    logit_opacities: np.ndarray
    log_scales: np.ndarray
    quats: np.ndarray
    tags: dict[str, Any] = field(default_factory=dict)
    kept: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.means)

    @property
    def max_sh_degree(self) -> int:
        """The degree that the stored coefficients allow."""
        return math.isqrt(self.sh_rest.shape[1] + 1) - 1

    @property
    def sh_degree(self) -> int:
        """The degree to render with: the file's tag where it has one, else all that is stored."""
        return min(self.tags.get("sh_degree", self.max_sh_degree), self.max_sh_degree)

    def parameters(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        names = ("means", "log_scales", "quats", "logit_opacities", "sh_dc", "sh_rest")
        return {name: getattr(self, name) for name in names}


def splat_properties(rest: int) -> list[str]:
    """Names in INRIA's order, with `rest` higher SH values: 0, 9, 24 or 45 for degrees 0 to 3."""
    return _MEANS + _NORMALS + _DC + _rest_names(rest) + _OPACITY + _SCALES + _QUATS


def write_gaussians(path: Path, arrays: Mapping[str, np.ndarray], *, tags: Mapping[str, Any] | None = None) -> None:
    """Write Gaussians as a splat PLY, atomically.

    Args:
        path: The file.
        arrays: means, sh_dc, sh_rest, logit_opacities, log_scales, quats as in `SplatArrays`; quats are normalised.
        tags: Comments for the reader: name and number, or numbers.
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
        _unit(np.asarray(arrays["quats"])),
    )
    table = np.concatenate([np.asarray(column, "<f4") for column in columns], axis=1)
    names = splat_properties(3 * rest.shape[1])
    rows = np.ascontiguousarray(table).view([(name, "<f4") for name in names]).reshape(count)
    said = [f"{name}: {_said(value)}" for name, value in (tags or {}).items()]
    write_vertices(path, rows, ["SplatRenderMode: default", *said])


def read_gaussians(path: Path) -> SplatArrays:
    """Read any splat PLY.

    Raises:
        UserError: The file is missing, damaged, not a splat PLY, or without a single valid row.
    """
    header, rows = read_vertices(path)
    rest = _rest_names(sum(name.startswith("f_rest_") for name in rows.dtype.names))
    _check_columns(path, header, rows.dtype.names, rest)
    means, dc, higher, opacity, log_scales, quats = (
        _columns(rows, names) for names in (_MEANS, _DC, rest, _OPACITY, _SCALES, _QUATS)
    )
    opacity = np.nan_to_num(opacity, nan=np.nan, posinf=FULL_OPACITY, neginf=-FULL_OPACITY)
    log_scales = np.nan_to_num(log_scales, nan=np.nan, posinf=np.nan, neginf=FLAT_SCALE)
    quats[(np.abs(quats) <= SHORTEST).all(axis=1)] = (1, 0, 0, 0)
    kept = sane(np.concatenate([means, dc, higher, opacity, log_scales, quats], axis=1))
    kept &= (log_scales <= LARGEST_LOG_SCALE).all(axis=1)
    if len(rows) and not kept.any():
        raise UserError(f"{path}: every row holds NaN or values beyond reason; the file is damaged")
    higher = higher.reshape(len(rows), 3, len(rest) // 3).transpose(0, 2, 1)
    return SplatArrays(
        means=means[kept],
        sh_dc=dc[kept].reshape(-1, 1, 3),
        sh_rest=np.ascontiguousarray(higher[kept]),
        logit_opacities=opacity[kept],
        log_scales=log_scales[kept],
        quats=quats[kept],
        tags=_tags(header.comments),
        kept=kept,
    )


def write_points(path: Path, xyz: np.ndarray, rgb: np.ndarray) -> None:
    """Write points [M, 3] and colours uint8 [M, 3] as INRIA's `input.ply`: normals are there, and zero."""
    types = [(name, "<f4") for name in _MEANS + _NORMALS] + [(name, "u1") for name in _COLORS]
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
    names = {column.name for element in read_header(path).elements for column in element.properties}
    return {"opacity", "scale_0", "rot_0"} <= names


def _rest_names(count: int) -> list[str]:
    return [f"f_rest_{i}" for i in range(count)]


def _check_columns(path: Path, header: Header, names: Sequence[str], rest: list[str]) -> None:
    lacking = [name for name in _MEANS + _DC + rest + _OPACITY + _SCALES + _QUATS if name not in names]
    if lacking and any(element.name == "chunk" for element in header.elements):
        raise UserError(f"{path}: compressed PLY is not read yet; convert it to plain PLY with splat-transform")
    if lacking:
        raise UserError(f"{path}: not a splat PLY, it lacks {', '.join(lacking[:5])}; export it as 3DGS PLY")
    if len(rest) not in (0, 9, 24, 45):
        raise UserError(f"{path}: {len(rest)} f_rest values are no SH degree from 0 to 3; export it with one of these")


def _columns(rows: np.ndarray, names: list[str]) -> np.ndarray:
    """Properties side by side, float32 [N, len(names)]."""
    table = np.empty((len(rows), len(names)), np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and its row is left out
        for i, name in enumerate(names):
            table[:, i] = rows[name]
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


def _unit(quats: np.ndarray) -> np.ndarray:
    """Quaternions of length 1; no rotation where the length is zero."""
    length = np.linalg.norm(quats.astype(np.float64), axis=1, keepdims=True)
    return np.where(length > SHORTEST, quats / np.maximum(length, SHORTEST), (1.0, 0, 0, 0))


def _said(value: float | Sequence[float]) -> str:
    return " ".join(str(part) for part in np.atleast_1d(value))


def _tags(comments: list[str]) -> dict[str, Any]:
    """mult, sh_degree and background, where the comments give them as sensible numbers."""
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
    return tags


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        return []
