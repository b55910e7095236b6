# SPDX-License-Identifier: Apache-2.0
"""What every reader of datasets makes of its files: posed photos by name, and points."""

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from utils.errors import UserError

from .lens import Lens
from .points import PointCloud


@dataclass(frozen=True, kw_only=True, eq=False)
class Shot:
    """One posed photo.

    `camera_from_world` is float64 [4, 4], in the coordinates of the dataset. `mask` names its mask file, if the
    dataset does. `held_out` is None where the dataset leaves the choice to us. Pixels farther than `radius` from the
    principal point, in pixels of the lens, do not count.
    """

    name: str
    lens: Lens
    camera_from_world: np.ndarray
    mask: str | None = None
    held_out: bool | None = None
    radius: float = float("inf")


@dataclass(frozen=True, kw_only=True, eq=False)
class Capture:
    """A dataset as its files tell it; photos are not opened yet.

    `origin` says in plain words what was read. `without_photo` names shots that only their
    missing photo could complete.
    """

    origin: str
    shots: tuple[Shot, ...]
    points: PointCloud | None = None
    without_photo: tuple[str, ...] = ()
    alpha_masks: bool = True
    """Whether transparent pixels do not count; else they are background, to be trained as such."""


def check_names(shots: tuple[Shot, ...], origin: str) -> None:
    """Every name once.

    Raises:
        UserError: A name is there twice, or leads out of the dataset.
    """
    seen: set[str] = set()
    for shot in shots:
        safe_name(shot.name)
        if shot.name in seen:
            raise UserError(f"{origin}: image {shot.name!r} is registered twice; export the model again")
        seen.add(shot.name)


def safe_name(name: str) -> PurePosixPath:
    """An image name as a path that stays where it is put.

    Raises:
        UserError: The name is absolute, climbs with .., or holds a null byte.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise UserError(f"image name {name!r} leads out of the dataset; such a model is not opened")
    return path
