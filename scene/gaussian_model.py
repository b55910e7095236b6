# SPDX-License-Identifier: Apache-2.0
"""The Gaussians of a scene: stored parameters, activations, origin labels.

Stored space is in the name: `log_scales` (natural log, scene units), `logit_opacities`, `quats` (w, x, y, z,
not normalised), `sh_dc` and `sh_rest` (colour = 0.5 + sum of basis times coefficient).
"""

from collections.abc import Mapping
from enum import IntEnum

import torch
from simple_knn import along_a_curve
from torch import Tensor

from .rows import Rows

PARAMETERS = ("means", "log_scales", "quats", "logit_opacities", "sh_dc", "sh_rest")
SH_C0 = 0.28209479177387814


class Label(IntEnum):
    """Where a Gaussian, or its ancestor, was born."""

    SUBJECT = 0
    AMBIENT = 1
    REFINED = 2


class GaussianModel:
    """Parameters as leaves [N, ...] inside `rows`, plus the active SH degree."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        max_sh_degree: int = 3,
        sh_degree: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rows = Rows(device)
        for name in PARAMETERS:
            self.rows.add(name, parameters[name].float(), requires_grad=True)
        self.rows.add("label", dtype=torch.uint8)
        self.rows.add("birth", dtype=torch.int32)
        self.max_sh_degree = max_sh_degree
        self.sh_degree = sh_degree

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def device(self) -> torch.device:
        """Where everything that has a row per Gaussian is, and where they are drawn."""
        return self.rows.device

    @property
    def means(self) -> Tensor:
        """Centres [N, 3], world frame, scene units."""
        return self.rows["means"]

    @property
    def log_scales(self) -> Tensor:
        """Natural log of the standard deviations [N, 3]."""
        return self.rows["log_scales"]

    @property
    def quats(self) -> Tensor:
        """Rotations [N, 4] as (w, x, y, z), of any length but zero."""
        return self.rows["quats"]

    @property
    def logit_opacities(self) -> Tensor:
        """Logit of the opacity [N, 1]."""
        return self.rows["logit_opacities"]

    @property
    def sh_dc(self) -> Tensor:
        """Constant SH coefficient [N, 1, 3]."""
        return self.rows["sh_dc"]

    @property
    def sh_rest(self) -> Tensor:
        """Higher SH coefficients [N, (max degree + 1)^2 - 1, 3]."""
        return self.rows["sh_rest"]

    @property
    def labels(self) -> Tensor:
        """Origin of each Gaussian as `Label`, uint8 [N]."""
        return self.rows["label"]

    @property
    def births(self) -> Tensor:
        """Iteration at which each row appeared, int32 [N]; clones and splits keep their ancestor's."""
        return self.rows["birth"]

    @property
    def scales(self) -> Tensor:
        """Standard deviations [N, 3], scene units."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """Opacities [N, 1] in (0, 1)."""
        return self.logit_opacities.sigmoid()

    def parameters(self) -> dict[str, Tensor]:
        """The stored parameters by name."""
        return {name: self.rows[name] for name in PARAMETERS}

    def keep(self, keep: Tensor) -> None:
        """Keep only the rows of a boolean mask [N]."""
        self.rows.gather_append(keep.nonzero().squeeze(1))

    def arrange(self) -> None:
        """Bring rows that are near in space near in memory: drawing and its gradients find them sooner."""
        self.rows.gather_append(along_a_curve(self.means.detach()).argsort(stable=True))

    def append(self, parameters: Mapping[str, Tensor], *, label: Label, birth: int) -> None:
        """Add new Gaussians; `parameters` are stored-space rows, as `scene.initialization` makes them."""
        count = len(parameters["means"])
        fresh = dict(parameters)
        fresh["label"] = torch.full((count,), int(label), dtype=torch.uint8)
        fresh["birth"] = torch.full((count,), birth, dtype=torch.int32)
        self.rows.gather_append(torch.arange(len(self)), fresh)
