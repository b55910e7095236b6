# SPDX-License-Identifier: Apache-2.0
"""A trained model, or any file of Gaussians, in the format that another tool wants.

    python -m utils.export MODEL --format ply|splat|spz|sog|glb|html [--output FILE]
    python -m utils.export MODEL --format spz --only subject --crop 2 --min_opacity 0.02

What was written is read again, and how far it is from the model is said.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.command import Parser
from utils.errors import UserError

from .cameras import Camera
from .formats import glb, html, sog, splat, spz
from .gaussian_model import Label
from .model_folder import load_model, read_cameras
from .ply import write_gaussians
from .points import sane
from .splat_files import read_splats
from .splats import SH_C0, SplatArrays, sigmoid

FORMATS = ("ply", "splat", "spz", "sog", "glb", "html")
_BACKWARD = 3.0
"""Without cameras, the page looks from this many radii of the scene."""


@dataclass(frozen=True)
class Source:
    """What is exported: the Gaussians, their labels uint8 [N] or None, and the folder of the run or None."""

    splats: SplatArrays
    labels: np.ndarray | None
    folder: Path | None
    name: str


def main(args: Sequence[str]) -> None:
    """The command."""
    settings = parse(args)
    source = open_source(settings.model, settings.iteration)
    output = settings.output or _default_output(settings, source)
    if output.resolve() == settings.model.resolve():
        raise UserError(f"--output {output}: is the file that is read; choose another name")
    kept = selection(source, only=settings.only, crop=settings.crop, min_opacity=settings.min_opacity)
    if not kept.any():
        raise UserError("--only, --crop and --min_opacity leave no Gaussian; choose wider ones")
    splats = _trimmed(source.splats.rows(kept))
    said = export(output, splats, settings.format, start=starting_view(source), title=source.name)
    for warning in said:
        print(f"warning: {warning}", file=sys.stderr)
    if not settings.quiet:
        size = output.stat().st_size / 1e6
        print(
            f"{output}: {len(splats):,} of {len(kept):,} Gaussians, {size:.2f} MB{_read_back(settings, output, splats)}"
        )


def parse(args: Sequence[str]) -> argparse.Namespace:
    """The flags."""
    parser = Parser("Write a trained model, or any file of Gaussians, in another format.")
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of a run, or a file of Gaussians")
    parser.add_argument("--format", choices=FORMATS, required=True, help="what to write")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: MODEL/export/iteration_N.FORMAT")
    parser.add_argument("--iteration", type=int, default=-1, help="which saved iteration; -1 is the last")
    parser.add_argument("--only", choices=[label.name.lower() for label in Label], help="Gaussians of this origin")
    parser.add_argument(
        "--crop",
        type=float,
        nargs="+",
        metavar="X",
        help="six numbers: a box, its lowest x y z and its highest; or one: a ball round the cameras' focus, in radii "
        "of the subject",
    )
    parser.add_argument("--min_opacity", type=float, default=0.0, metavar="O", help="leave fainter ones out, 0 to 1")
    parser.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    settings = parser.parse_args(args)
    if not 0 <= settings.min_opacity <= 1:
        raise UserError(f"--min_opacity {settings.min_opacity}: must be from 0 to 1")
    _check_crop(settings.crop)
    return settings


def open_source(model: Path, iteration: int = -1) -> Source:
    """The Gaussians of a run's folder or of a file.

    Raises:
        UserError: There is neither.
    """
    if model.is_dir():
        trained = load_model(model, iteration)
        return Source(trained.splats, trained.labels, model, f"{model.resolve().name}, iteration {trained.iteration}")
    return Source(read_splats(model), None, None, model.name)


def selection(source: Source, *, only: str | None, crop: Sequence[float] | None, min_opacity: float) -> np.ndarray:
    """Which Gaussians to keep, bool [N].

    Args:
        source: The model.
        only: Name of a label, lower case.
        crop: A box as six numbers, or a ball as one, in subject radii round the focus of the run's cameras.
        min_opacity: Smallest opacity.

    Raises:
        UserError: The model does not know its labels, or its focus.
    """
    kept = sigmoid(source.splats.logit_opacities[:, 0]) >= min_opacity
    if only is not None:
        if source.labels is None:
            raise UserError(f"--only {only}: this model has no labels (point_cloud.extra.npz); leave the flag out")
        kept &= source.labels == Label[only.upper()]
    if crop is not None:
        kept &= _in_box(source.splats, crop) if len(crop) == 6 else _in_ball(source, crop[0])
    return kept


def export(path: Path, splats: SplatArrays, kind: str, *, start: html.Start, title: str) -> list[str]:
    """Write Gaussians in a format of `FORMATS`, and return what it cannot hold, a line each."""
    writers: dict[str, Callable[[Path, SplatArrays], list[str]]] = {
        "ply": _write_ply,
        "splat": lambda path, splats: splat.write(path, splats.rows(splat.viewing_order(splats))),
        "spz": spz.write,
        "sog": sog.write,
        "glb": glb.write,
        "html": lambda path, splats: html.write(path, splats, start=start, title=title),
    }
    said = writers[kind](path, splats)
    if kind not in ("ply", "html") and _origin(splats).any():
        x, y, z = (f"{value:.15g}" for value in _origin(splats))
        said.append(f"{kind} has no doubles: positions are relative to {x} {y} {z} in the dataset's coordinates")
    return said


def deviations(splats: SplatArrays, other: SplatArrays) -> dict[str, float]:
    """The largest differences between the same Gaussians, row by row.

    `position` in scene units, `scale` of the logarithms, `opacity` and `color` in [0, 1] (colour: the constant part),
    `sh` of the higher coefficients that both have, `rotation` in degrees.
    """
    number = min(splats.sh_rest.shape[1], other.sh_rest.shape[1])
    cosine = np.abs((_unit(splats.quats) * _unit(other.quats)).sum(1)).clip(0, 1)
    pairs = {
        "position": (splats.means, other.means),
        "scale": (splats.log_scales, other.log_scales),
        "opacity": (sigmoid(splats.logit_opacities), sigmoid(other.logit_opacities)),
        "color": (SH_C0 * splats.sh_dc, SH_C0 * other.sh_dc),
        "sh": (splats.sh_rest[:, :number], other.sh_rest[:, :number]),
    }
    largest = {name: float(np.abs(a - b).max(initial=0)) for name, (a, b) in pairs.items()}
    return largest | {"rotation": float(np.degrees(2 * np.arccos(cosine)).max(initial=0))}


def starting_view(source: Source) -> html.Start:
    """Where to look from: the run's first camera at the focus of all, else from outside at the middle."""
    cameras, geometry = _cameras(source), _geometry(source.folder)
    if cameras and geometry:
        return html.Start(
            position=cameras[0].position,
            target=np.array(geometry["focus"]),
            up=np.array(geometry["up"]),
            focal=cameras[0].fy / cameras[0].height,
        )
    middle = np.median(source.splats.means, axis=0).astype(np.float64)
    radius = float(np.median(np.linalg.norm(source.splats.means - middle, axis=1))) or 1.0
    up = np.array([0.0, -1.0, 0.0])  # as the axes of a PLY are meant: y down, z forward
    return html.Start(position=middle - np.array([0, 0, _BACKWARD * radius]), target=middle, up=up)


def _default_output(settings: argparse.Namespace, source: Source) -> Path:
    if source.folder is None:
        return settings.model.with_suffix(f".{settings.format}")
    return source.folder / "export" / f"iteration_{source.name.rpartition(' ')[2]}.{settings.format}"


def _check_crop(crop: Sequence[float] | None) -> None:
    if crop is None:
        return
    ball = len(crop) == 1 and 0 < crop[0] < np.inf
    box = (
        len(crop) == 6 and sane(np.array([crop])).all() and all(a < b for a, b in zip(crop[:3], crop[3:], strict=True))
    )
    if not (ball or box):
        raise UserError(
            f"--crop {' '.join(map(str, crop))}: give a radius, or x y z of the lowest and the highest corner"
        )


def _in_box(splats: SplatArrays, box: Sequence[float]) -> np.ndarray:
    low, high = np.reshape(box, (2, 3)) - _origin(splats)
    return ((splats.means >= low) & (splats.means <= high)).all(axis=1)


def _origin(splats: SplatArrays) -> np.ndarray:
    """Where in the world the zero of the means lies, [3]."""
    return np.array(splats.tags.get("origin", (0.0, 0.0, 0.0)))


def _in_ball(source: Source, radii: float) -> np.ndarray:
    geometry = _geometry(source.folder)
    if not geometry:
        raise UserError("--crop with one number: this model has no geometry.json; give the six numbers of a box")
    distances = np.linalg.norm(source.splats.means - np.array(geometry["focus"]), axis=1)
    return distances <= radii * geometry["subject_radius"]


def _trimmed(splats: SplatArrays) -> SplatArrays:
    """Without SH coefficients above the degree to render with."""
    return replace(splats, sh_rest=splats.sh_rest[:, : (splats.sh_degree + 1) ** 2 - 1])


def _write_ply(path: Path, splats: SplatArrays) -> list[str]:
    write_gaussians(path, splats.parameters(), tags=splats.tags)
    return []


def _read_back(settings: argparse.Namespace, path: Path, splats: SplatArrays) -> str:
    """How far what was written is from what was to be written."""
    if settings.format == "html":
        return ""
    if settings.format == "splat":
        splats = splats.rows(splat.viewing_order(splats))
    back = read_splats(path)
    if len(back) != len(splats):
        raise UserError(f"{path}: {len(back)} Gaussians were read back instead of {len(splats)}; please report this")
    figures = ", ".join(f"{name} {value:.2g}" for name, value in deviations(splats, back).items())
    return f"; read back, largest deviations: {figures} degrees"


def _cameras(source: Source) -> list[Camera]:
    """Views of a run's cameras.json as the means have their zero, held-out ones first; none where there is no file."""
    path = source.folder / "cameras.json" if source.folder is not None else None
    found = read_cameras(path) if path is not None and path.is_file() else []
    return [camera.moved(_origin(source.splats)) for camera in found]


def _geometry(folder: Path | None) -> dict:
    """focus, up and subject_radius of a run's geometry.json; nothing where it does not hold them."""
    try:
        content = json.loads((folder / "geometry.json").read_bytes()) if folder is not None else {}
        vectors = np.array([content["focus"], content["up"]], np.float64).reshape(2, 3)
        radius = float(content["subject_radius"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return {}
    return {"focus": vectors[0], "up": vectors[1], "subject_radius": radius} if sane(vectors).all() else {}


def _unit(quats: np.ndarray) -> np.ndarray:
    return quats / np.linalg.norm(quats.astype(np.float64), axis=1, keepdims=True)
