# SPDX-License-Identifier: Apache-2.0
"""Gaussians to export, and other people's tools to read them with."""

import functools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from scene.splats import SplatArrays

SPLAT_TRANSFORM = "@playcanvas/splat-transform@3.7.0"


def gaussians(count: int = 300, degree: int = 3, seed: int = 0) -> SplatArrays:
    """Random Gaussians of a scene of size one, with values as training leaves them."""
    rng = np.random.default_rng(seed)
    quats = rng.standard_normal((count, 4))
    arrays = {
        "means": rng.standard_normal((count, 3)),
        "sh_dc": rng.uniform(-1.7, 1.7, (count, 1, 3)),
        "sh_rest": rng.uniform(-0.5, 0.5, (count, (degree + 1) ** 2 - 1, 3)),
        "logit_opacities": rng.uniform(-4, 4, (count, 1)),
        "log_scales": rng.uniform(-7, -1, (count, 3)),
        "quats": quats / np.linalg.norm(quats, axis=1, keepdims=True),
    }
    return SplatArrays(**{name: array.astype(np.float32) for name, array in arrays.items()})


def covariances(splats: SplatArrays) -> np.ndarray:
    """R S S R^T [N, 3, 3]: what log scales and rotation mean, whatever their signs."""
    w, x, y, z = (splats.quats / np.linalg.norm(splats.quats, axis=1, keepdims=True)).astype(np.float64).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    factor = np.moveaxis(np.array(rows), 2, 0) * np.exp(splats.log_scales.astype(np.float64))[:, None, :]
    return factor @ factor.transpose(0, 2, 1)


def in_order_of(splats: SplatArrays, like: SplatArrays) -> SplatArrays:
    """The rows that are nearest to those of another."""
    distances = ((splats.means[None] - like.means[:, None]) ** 2).sum(2)
    nearest = distances.argmin(axis=1)
    assert len(set(nearest.tolist())) == len(like)
    return splats.rows(nearest)


@functools.cache
def _splat_transform() -> tuple[str, ...] | str:
    """The command, or why there is none."""
    if shutil.which("npm") is None:
        return "npm is not on this machine"
    where = ["npm", "exec", "--yes", f"--package={SPLAT_TRANSFORM}", "-c", "command -v splat-transform"]
    try:
        tried = subprocess.run(where, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        return f"npm did not bring {SPLAT_TRANSFORM} in time"
    return (tried.stdout.split()[-1],) if tried.stdout.strip() else f"npm has no {SPLAT_TRANSFORM}"


def splat_transform(*arguments: str | Path) -> None:
    """Run splat-transform; the test is skipped where there is none."""
    command = _splat_transform()
    if isinstance(command, str):
        pytest.skip(command)
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
