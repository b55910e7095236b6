# SPDX-License-Identifier: Apache-2.0
"""The `.splat` format of antimatter15's viewer: 32 bytes a Gaussian, no header, no view-dependent colour.

    position 3 x float32, scale 3 x float32 (not its logarithm),
    red, green, blue, opacity, and rotation w, x, y, z as 128 q + 128, one byte each

Axes are those of the PLY. Viewers show what comes first while they load, so files begin with what is large and opaque.
"""

from pathlib import Path

import numpy as np

from utils.atomic import write_bytes
from utils.errors import UserError

from ..splats import SH_C0, SplatArrays, cleaned, logit, read_file, sigmoid, to_bytes, unit

_ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])


def viewing_order(splats: SplatArrays) -> np.ndarray:
    """Row numbers by falling volume times opacity, as `write` expects them."""
    log_opacity = -np.logaddexp(0, -splats.logit_opacities[:, 0].astype(np.float64))
    weight = splats.log_scales.sum(1, dtype=np.float64) + log_opacity
    return np.argsort(-weight, kind="stable")


def write(path: Path, splats: SplatArrays) -> list[str]:
    """Write a .splat file, and return what it cannot hold."""
    rows = np.empty(len(splats), _ROW)
    rows["means"] = splats.means
    rows["scales"] = np.exp(splats.log_scales)
    colors = 0.5 + SH_C0 * splats.sh_dc[:, 0]
    rows["rgba"][:, :3] = to_bytes(255 * colors)
    rows["rgba"][:, 3:] = to_bytes(255 * sigmoid(splats.logit_opacities))
    rows["quats"] = to_bytes(128 * unit(splats.quats) + 128)
    write_bytes(path, rows.tobytes())
    return ["view-dependent colour is dropped: .splat holds none"] if splats.sh_rest.any() else []


def read(path: Path) -> SplatArrays:
    """Read a .splat file.

    Raises:
        UserError: The file is missing or not made of whole rows.
    """
    data = read_file(path)
    if len(data) % _ROW.itemsize or not data:
        raise UserError(f"{path}: {len(data)} bytes are no whole rows of .splat; copy or export it again")
    rows = np.frombuffer(data, _ROW)
    with np.errstate(divide="ignore", invalid="ignore"):
        arrays = {
            "means": rows["means"],
            "log_scales": np.log(rows["scales"]),
            "quats": (rows["quats"] - 128.0) / 128,
            "logit_opacities": logit(rows["rgba"][:, 3:] / 255),
            "sh_dc": ((rows["rgba"][:, :3] / 255 - 0.5) / SH_C0)[:, None, :],
            "sh_rest": np.zeros((len(rows), 0, 3)),
        }
    return cleaned(path, arrays)
