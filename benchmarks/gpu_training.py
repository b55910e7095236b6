# SPDX-License-Identifier: Apache-2.0
"""The second half of benchmarks/gpu.py: each rasteriser trains the same Gaussians on a real capture."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from diff_gaussian_rasterization.losses import photometric
from torch import Tensor

from arguments import Config, DataConfig, RunConfig
from benchmarks.rivals import Draw, Model
from benchmarks.training import jittered
from phases.start import start
from phases.state import TrainingState
from scene.dataset import open_scene
from utils.errors import UserError
from utils.metrics import psnr

OURS = {"means": "means", "log_scales": "scales", "quats": "quats", "logit_opacities": "opacities"}
OURS |= {"sh_dc": "sh_dc", "sh_rest": "sh_rest"}


@dataclass(frozen=True)
class Trained:
    """One rasteriser's training: seconds from the first step to the end of the last, dB on held-out views, MiB."""

    name: str
    seconds: float
    psnr: float
    memory: float


def prepare(source: Path, width: int, count: int, iterations: int, device: torch.device) -> TrainingState:
    """Capture and `count` starting Gaussians: the dataset's points3D and jittered copies, or random ones without."""
    data = DataConfig(source=source, resolution=width)
    scene = open_scene(data, device=device)
    if not scene.test_cameras:
        raise UserError(f"--source {source}: too few views to hold some out; take another capture")
    run = RunConfig(phases="none", init="random", num_points=count, iterations=iterations)
    if scene.points is not None:
        scene = replace(scene, points=jittered(scene.points, count, 0))
        run = replace(run, init="sfm")
    return start(Config(data=data, run=run), scene, None, device=device)  # type: ignore[arg-type]


def train(name: str, draw: Draw, state: TrainingState, iterations: int) -> Trained:
    """The same views in the same order, loss and rates as in a run, no densification."""
    device, views = state.device, state.scene.train_cameras
    model = Model(name, draw, {OURS[key]: value for key, value in state.gaussians.parameters().items()})
    background = torch.zeros(3, device=device)
    generator = torch.Generator().manual_seed(0)
    order = torch.cat([torch.randperm(len(views), generator=generator) for _ in range(-(-iterations // len(views)))])
    for view in views:
        view.image(device)  # decoding is nobody's
    begun = _now(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for number, index in enumerate(order[:iterations].tolist(), 1):
        image = model.draw(views[index].view, background)
        photometric(image, views[index].image(device)).backward()
        rates = state.optimizer.rates(number)
        model.adam({OURS[key]: rate for key, rate in rates.items()})
    seconds = _now(device) - begun
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else math.nan
    return Trained(name, seconds, fmean(_quality(model, state, background)), memory)


@torch.no_grad()
def _quality(model: Model, state: TrainingState, background: Tensor) -> list[float]:
    views = state.scene.test_cameras
    return [psnr(model.draw(view.view, background).clamp(0, 1), view.image(state.device)) for view in views]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def table(rows: Sequence[Trained], iterations: int) -> str:
    """Markdown."""
    lines = [f"| rasteriser | {iterations} iterations, s | held-out PSNR, dB | memory MiB |", "|---" * 4 + "|"]
    lines += [f"| {row.name} | {row.seconds:.2f} | {row.psnr:.2f} | {row.memory:.0f} |" for row in rows]
    return "\n".join(lines)
