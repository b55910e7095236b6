# SPDX-License-Identifier: Apache-2.0
"""The rasterisers that benchmarks/gpu.py compares: ours, gsplat, and drop-in packages from folders."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import cache
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from diff_gaussian_rasterization import View, rasterize
from diff_gaussian_rasterization.optim import Group, adam_steps
from torch import Tensor

from utils.errors import UserError

Parameters = dict[str, Tensor]
"""means, quats, scales, opacities, sh_dc, sh_rest as a trainer stores them."""
Draw = Callable[[Parameters, View, Tensor], Tensor]
"""Parameters, view and background to the image [3, H, W], with the full footprint of each Gaussian."""

PACKAGE = "diff_gaussian_rasterization"
NEAR, FAR = 0.01, 100.0
"""Of the usual package's projection; no Gaussian is culled by them."""


def rivals(peers: Mapping[str, Path], *, on_card: bool) -> dict[str, Draw]:
    """Ours, gsplat where it imports and there is a card, and the packages in folders by the names for the tables."""
    found: dict[str, Draw] = {"ours": draw_ours}
    if on_card:
        try:
            found["gsplat"] = gsplat_draw()
        except ImportError as error:
            print(f"gsplat is left out: {error}")
    return found | {name: drop_in_draw(name, folder) for name, folder in peers.items()}


def draw_ours(p: Parameters, view: View, background: Tensor) -> Tensor:
    """Activations inside."""
    return rasterize(**p, view=view, background=background, sh_degree=3, raw=True, mult=1.0).image


def gsplat_draw() -> Draw:
    """gsplat's rasterization; ImportError where it is not there."""
    from gsplat import rasterization

    @cache
    def camera(view: View, device: torch.device) -> tuple[Tensor, Tensor]:
        intrinsics = torch.tensor([[view.fx, 0, view.cx], [0, view.fy, view.cy], [0, 0, 1]])
        return view.camera_from_world.float().to(device)[None], intrinsics.to(device)[None]

    def draw(p: Parameters, view: View, background: Tensor) -> Tensor:
        images, _, _ = rasterization(
            p["means"],
            p["quats"],
            p["scales"].exp(),
            p["opacities"].sigmoid()[:, 0],
            torch.cat([p["sh_dc"], p["sh_rest"]], 1),
            *camera(view, background.device),
            view.width,
            view.height,
            sh_degree=3,
            near_plane=view.near,
            backgrounds=background[None],
        )
        return images[0].permute(2, 0, 1)

    return draw


def drop_in_draw(name: str, folder: Path) -> Draw:
    """A package with the usual interface, whatever it adds to it; UserError where it does not load."""
    module = _package(name, folder)
    fields = module.GaussianRasterizationSettings._fields
    separate = "dc" in signature(module.GaussianRasterizer.forward).parameters
    columns = 4 if "get_flag" in fields else 3  # FastGS's gradients have absolute values behind the others

    @cache
    def settings(view: View, device: torch.device) -> Any:
        known = _usual_settings(view, device)
        return module.GaussianRasterizationSettings(**{field: known[field] for field in fields if field in known})

    def draw(p: Parameters, view: View, background: Tensor) -> Tensor:
        rasterizer = module.GaussianRasterizer(settings(view, background.device)._replace(bg=background))
        colours = {"dc": p["sh_dc"], "shs": p["sh_rest"]}
        return rasterizer(
            means3D=p["means"],
            means2D=torch.zeros(len(p["means"]), columns, device=background.device, requires_grad=True),
            opacities=p["opacities"].sigmoid(),
            scales=p["scales"].exp(),
            rotations=torch.nn.functional.normalize(p["quats"]),
            **(colours if separate else {"shs": torch.cat([p["sh_dc"], p["sh_rest"]], 1)}),
        )[0]

    return draw


def _package(name: str, folder: Path) -> ModuleType:
    """Under a name of its own: all such packages are called as ours is."""
    folder = folder / PACKAGE if (folder / PACKAGE).is_dir() else folder
    start = folder / "__init__.py"
    if not start.is_file():
        raise UserError(f"--peer {name}={folder}: no Python package in that folder; give the one with __init__.py")
    spec = importlib.util.spec_from_file_location(f"peer_{name}", start, submodule_search_locations=[str(folder)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        return module
    except ImportError as error:
        raise UserError(f"--peer {name}={folder}: does not load ({error}); build it in place for this torch") from error


def _usual_settings(view: View, device: torch.device) -> dict[str, Any]:
    """Every setting that a package of this kind has asked for so far; matrices are for row vectors."""
    tan_x, tan_y = view.width / (2 * view.fx), view.height / (2 * view.fy)
    projection = torch.zeros(4, 4)
    projection[0, 0], projection[0, 2] = 1 / tan_x, 2 * view.cx / view.width - 1
    projection[1, 1], projection[1, 2] = 1 / tan_y, 2 * view.cy / view.height - 1
    projection[2, 2], projection[2, 3], projection[3, 2] = FAR / (FAR - NEAR), -FAR * NEAR / (FAR - NEAR), 1.0
    pose = view.camera_from_world.float()
    return {
        "image_height": view.height,
        "image_width": view.width,
        "tanfovx": tan_x,
        "tanfovy": tan_y,
        "bg": torch.zeros(3, device=device),
        "scale_modifier": 1.0,
        "viewmatrix": pose.T.contiguous().to(device),
        "projmatrix": (projection @ pose).T.contiguous().to(device),
        "sh_degree": 3,
        "campos": view.position.float().to(device),
        "prefiltered": False,
        "debug": False,
        "antialiasing": False,
        "mult": 1.0,
        "get_flag": False,
        "metric_map": torch.zeros(view.height, view.width, dtype=torch.int32, device=device),
    }


class Model:
    """Gaussians that one rasteriser draws and trains."""

    def __init__(self, name: str, draw: Draw, parameters: Parameters) -> None:
        self.name, self._draw = name, draw
        self.parameters = {key: value.detach().clone().requires_grad_() for key, value in parameters.items()}
        self._moments = {key: (torch.zeros_like(v), torch.zeros_like(v)) for key, v in self.parameters.items()}
        self._steps = 0

    def draw(self, view: View, background: Tensor) -> Tensor:
        """The image [3, H, W]."""
        return self._draw(self.parameters, view, background)

    def adam(self, rates: Mapping[str, float]) -> None:
        """One step of Adam, ours or torch's fused one."""
        self._steps += 1
        if self.name == "ours":
            adam_steps([
                Group(value.detach(), value.grad, *self._moments[key], rates[key], self._steps)
                for key, value in self.parameters.items()
            ])  # fmt: skip
        else:
            self._torch_adam(rates)
        for value in self.parameters.values():
            value.grad = None

    def _torch_adam(self, rates: Mapping[str, float]) -> None:
        for key, value in self.parameters.items():
            steps = [value.new_tensor(float(self._steps))]
            lists = [value.detach()], [value.grad], *([one] for one in self._moments[key]), [], steps
            options = {"lr": rates[key], "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-15}
            torch._fused_adam_(*lists, **options, amsgrad=False, maximize=False)
