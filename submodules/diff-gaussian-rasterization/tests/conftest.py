# SPDX-License-Identifier: Apache-2.0
"""Small random scenes, one for each seed, and every instruction set that runs here."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from diff_gaussian_rasterization import View, _native

torch.set_num_threads(1)


@dataclass
class Scene:
    """Float64 parameters as a trainer stores them, features, a background and a view."""

    tensors: dict[str, torch.Tensor]
    background: torch.Tensor
    view: View

    def leaves(self, dtype: torch.dtype = torch.float32, activate: bool = False) -> dict[str, torch.Tensor]:
        """Fresh leaves; activated if asked for, as the drop-in interface takes them."""
        out = dict(self.tensors)
        if activate:
            out["quats"] = torch.nn.functional.normalize(out["quats"], dim=-1)
            out["scales"], out["opacities"] = out["scales"].exp(), out["opacities"].sigmoid()
        return {name: value.to(dtype).clone().requires_grad_() for name, value in out.items()}


def tilted_camera() -> torch.Tensor:
    """A rigid motion that mixes all axes, [4, 4] float64."""
    skew = torch.tensor([[0, -0.1, 0.3], [0.1, 0, 0.2], [-0.3, -0.2, 0]], dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.linalg.matrix_exp(skew)
    matrix[:3, 3] = torch.tensor([0.1, -0.2, 0.3])
    return matrix


def make_scene(count: int = 120, width: int = 67, height: int = 45, seed: int = 0, size: float = 0.06) -> Scene:
    """Gaussians in front of a tilted off-centre camera, some beside and some behind it."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    odd = count // 20
    z = 2 + 6 * uniform(count)
    z[:odd] *= -1  # behind
    slopes = torch.stack([1.4 * uniform(count) - 0.7, 1.2 * uniform(count) - 0.6], 1)
    slopes[odd : 2 * odd] *= 3  # beside
    matrix = tilted_camera()
    points = torch.cat([slopes * z[:, None], z[:, None]], 1)
    tensors = {
        "means": (points - matrix[:3, 3]) @ matrix[:3, :3],
        "quats": normal(count, 4),
        "scales": torch.log(size * z.abs()[:, None] * torch.exp(0.5 * normal(count, 3))),
        "opacities": 1.7 * normal(count, 1),
        "sh_dc": 3 * uniform(count, 1, 3) - 1.5,
        "sh_rest": 0.12 * normal(count, 15, 3),
        "features": normal(count, 5),
    }
    focal = 0.9 * width
    view = View(width, height, focal, 1.05 * focal, width / 2 + 1.3, height / 2 - 2.1, matrix)
    return Scene(tensors, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), view)


@pytest.fixture
def scene_of() -> Callable[..., Scene]:
    """`make_scene`."""
    return make_scene


def runs_here(isa: str) -> bool:
    """Whether this processor has the instruction set."""
    try:
        _native.Launch(isa, 1, False)
    except ValueError:
        return False
    return True


@pytest.fixture(params=[name for name in ("portable", "avx2", "avx512") if runs_here(name)])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set that runs here, forced through the environment."""
    monkeypatch.setenv("DGR_ISA", request.param)
    return request.param
