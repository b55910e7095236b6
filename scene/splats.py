# SPDX-License-Identifier: Apache-2.0
"""Gaussians as arrays: what every file format is read into and written from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError

from .points import sane

SH_C0 = 0.28209479177387814

SHORTEST = 1e-8
"""Length below which a quaternion says nothing."""

FULL_OPACITY, FLAT_SCALE = 20.0, -30.0
"""Logit and log that stand for an opacity of 1 and a scale of 0, whose own values are infinite."""

LARGEST_LOG_SCALE = 30.0
"""Above it the covariance is about to leave float32."""

LARGEST_COUNT = 100_000_000
"""Gaussians that no file holds, but damaged files promise."""

PARAMETERS = ("means", "log_scales", "quats", "logit_opacities", "sh_dc", "sh_rest")

_PARITY = ("y", "z", "x", "xy", "yz", "", "xz", "", "y", "xyz", "y", "z", "x", "z", "x")
"""Axes in which the higher SH functions of degrees 1 to 3 are odd, in their stored order."""


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
        return {name: getattr(self, name) for name in PARAMETERS}

    def rows(self, index: np.ndarray) -> "SplatArrays":
        """Some of the Gaussians: a mask [N], or row numbers."""
        return replace(self, kept=None, **{name: array[index] for name, array in self.parameters().items()})

    def in_axes(self, signs: tuple[int, int, int]) -> "SplatArrays":
        """The same scene with some axes reversed: two of them, which is half a turn about the third.

        Covariances and colours turn with the centres. The way back is the same turn again.
        """
        turn = np.array(signs, np.float32)
        parity = {"x": signs[0], "y": signs[1], "z": signs[2]}
        odd = [math.prod(parity[axis] for axis in axes) for axes in _PARITY[: self.sh_rest.shape[1]]]
        return replace(
            self,
            means=self.means * turn,
            quats=self.quats * np.concatenate([np.ones(1, np.float32), turn]),
            sh_rest=self.sh_rest * np.array(odd, np.float32).reshape(-1, 1),
        )


def cleaned(path: Path, arrays: Mapping[str, np.ndarray], tags: Mapping[str, Any] | None = None) -> SplatArrays:
    """What a file held, without the rows that say nothing.

    Infinite opacities become opaque or clear, scales of zero very flat, quaternions of zero no rotation; rows with NaN
    or absurd values are left out.

    Args:
        path: Names the file in errors.
        arrays: The parameters by name, in the shapes of `SplatArrays`.
        tags: What the file says about them.

    Raises:
        UserError: Not a single row is valid.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and its row is left out
        whole = {name: np.array(arrays[name], np.float32) for name in PARAMETERS}
    opacity = np.nan_to_num(whole["logit_opacities"], nan=np.nan, posinf=FULL_OPACITY, neginf=-FULL_OPACITY)
    whole["logit_opacities"] = opacity
    whole["log_scales"] = np.nan_to_num(whole["log_scales"], nan=np.nan, posinf=np.nan, neginf=FLAT_SCALE)
    whole["quats"][(np.abs(whole["quats"]) <= SHORTEST).all(axis=1)] = (1, 0, 0, 0)
    count = len(whole["means"])
    kept = (whole["log_scales"] <= LARGEST_LOG_SCALE).all(axis=1)
    for array in whole.values():
        kept &= sane(array.reshape(count, math.prod(array.shape[1:])))
    if count and not kept.any():
        raise UserError(f"{path}: every row holds NaN or values beyond reason; the file is damaged")
    return SplatArrays(**{name: array[kept] for name, array in whole.items()}, tags=dict(tags or {}), kept=kept)


def unit(quats: np.ndarray) -> np.ndarray:
    """Quaternions [N, 4] of length 1, float64; no rotation where the length is zero."""
    length = np.linalg.norm(quats.astype(np.float64), axis=1, keepdims=True)
    return np.where(length > SHORTEST, quats / np.maximum(length, SHORTEST), (1.0, 0, 0, 0))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Opacities of logits."""
    return np.exp(-np.logaddexp(0, -logits.astype(np.float64)))


def logit(opacities: np.ndarray) -> np.ndarray:
    """Logits of opacities; 0 and 1 give infinities, which `cleaned` knows."""
    with np.errstate(divide="ignore"):
        return np.log(opacities) - np.log1p(-np.asarray(opacities, np.float64))


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Numbers as the nearest of 0 to 255."""
    return np.floor(values + 0.5).clip(0, 255).astype(np.uint8)


def read_file(path: Path) -> bytes:
    """The bytes of a file of Gaussians, or the line that says why not."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a file of Gaussians") from error
