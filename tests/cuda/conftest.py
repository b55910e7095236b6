# SPDX-License-Identifier: Apache-2.0
"""The CUDA backend executed on the host, as a module and in place of the CPU's."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import cuda_build as build
import pytest
import torch
from diff_gaussian_rasterization import View, native


@pytest.fixture(scope="session")
def cuda_on_host(request: pytest.FixtureRequest) -> ModuleType:
    """The rasteriser's extension `_cuda` built by g++."""
    return host_module(request, "rasteriser", build.RASTERISER)


@pytest.fixture(scope="session")
def search_on_host(request: pytest.FixtureRequest) -> ModuleType:
    """The extension `_cuda` of simple-knn built by g++."""
    return host_module(request, "search", build.SEARCH)


def host_module(request: pytest.FixtureRequest, kind: str, units: list[Path]) -> ModuleType:
    """A module that is kept in pytest's cache until a source changes."""
    if not build.host_compiler():
        pytest.skip("no g++ on this machine: kernels are executed on the host through it")
    pytest.importorskip("nanobind", reason="no nanobind in this environment: the module is bound with it")
    digest = hashlib.sha256()
    for path in sorted([*units[-1].parent.rglob("*.*"), *build.HERE.glob("*.h"), build.HERE / "cuda_build.py"]):
        digest.update(path.read_bytes())
    folder = Path(request.config.cache.mkdir(f"{kind}-on-host"))
    name = f"_cuda-{digest.hexdigest()[:16]}{build.SUFFIX}"
    if not (folder / name).is_file():
        for old in folder.iterdir():
            old.unlink()
        with tempfile.TemporaryDirectory() as built:
            shutil.copy(build.build_host_module(Path(built), units), folder / f"{name}.part")
        (folder / f"{name}.part").rename(folder / name)
    return build.load(folder / name)


@pytest.fixture
def on_cuda(cuda_on_host: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable], object]:
    """Calls a function with the CUDA backend in place of the CPU's."""

    def call(function: Callable) -> object:
        with monkeypatch.context() as patched:
            patched.setattr(native, "backend", lambda tensor: cuda_on_host)
            return function()

    return call


@dataclass
class Scene:
    """Float64 parameters as a trainer stores them, and a view."""

    tensors: dict[str, torch.Tensor]
    features: torch.Tensor
    background: torch.Tensor
    view: View

    def leaves(self, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
        """Fresh leaves."""
        return {name: value.to(dtype).clone().requires_grad_() for name, value in self.tensors.items()}


def make_scene(count: int, width: int, height: int, size: float, seed: int, opaque: float = 0) -> Scene:
    """Gaussians before a tilted, off-centre camera; a twentieth of them behind it."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    skew = torch.tensor([[0, -0.1, 0.3], [0.1, 0, 0.2], [-0.3, -0.2, 0]], dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.linalg.matrix_exp(skew)
    matrix[:3, 3] = torch.tensor([0.1, -0.2, 0.3])
    z = 2 + 6 * uniform(count)
    z[: count // 20] *= -1
    slopes = torch.stack([1.4 * uniform(count) - 0.7, 1.2 * uniform(count) - 0.6], 1)
    points = torch.cat([slopes * z[:, None], z[:, None]], 1)
    tensors = {
        "means": (points - matrix[:3, 3]) @ matrix[:3, :3],
        "quats": normal(count, 4),
        "scales": torch.log(size * z.abs()[:, None] * torch.exp(0.5 * normal(count, 3))),
        "opacities": 1.7 * normal(count, 1) + opaque,
        "sh_dc": 3 * uniform(count, 1, 3) - 1.5,
        "sh_rest": 0.12 * normal(count, 15, 3),
    }
    view = View(width, height, 0.9 * width, 0.945 * width, width / 2 + 1.3, height / 2 - 2.1, matrix)
    background = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    return Scene(tensors, normal(count, 5), background, view)


@pytest.fixture
def scene_of() -> Callable[..., Scene]:
    """`make_scene`."""
    return make_scene
