# SPDX-License-Identifier: Apache-2.0
"""Gaussians of any file that we know, told apart by what is in it and not by its name."""

from pathlib import Path

from utils.errors import UserError

from .formats import checkpoint, glb, sog, splat, spz
from .ply import is_splat, read_gaussians
from .splats import SplatArrays

_GZIP = b"\x1f\x8b"
_PLY = b"ply"


def read_splats(path: Path) -> SplatArrays:
    """Read Gaussians: PLY (plain or compressed), SPZ, SOG, .splat, .glb, or a checkpoint of the INRIA family.

    Raises:
        UserError: The file is missing, damaged, or of none of these formats.
    """
    head = _head(path)
    if head.startswith(_PLY):
        return read_gaussians(path)
    if head.startswith((_GZIP, spz.MAGIC)):
        return spz.read(path)
    if head.startswith(glb.MAGIC):
        return glb.read(path)
    if head.startswith(sog.MAGIC):
        return checkpoint.read(path) if checkpoint.is_checkpoint(path) else sog.read(path)
    if Path(path).suffix.lower() == ".splat":
        return splat.read(path)
    raise UserError(f"{path}: of no known format; give a PLY, SPZ, SOG, .splat, .glb, or a checkpoint of 3DGS")


def holds_splats(path: Path) -> bool:
    """Whether a file holds Gaussians rather than a PLY's bare points."""
    return is_splat(path) if _head(path).startswith(_PLY) else True


def _head(path: Path) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a file of Gaussians") from error
