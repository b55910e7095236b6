# SPDX-License-Identifier: Apache-2.0
"""Whole training steps per processor second, by stage, at a fixed number of Gaussians.

    python benchmarks/training.py --source SCENE -r 270 --ruler RULER_EXECUTABLE --json OUT.json

The dataset's points3D, each repeated with a fixed jitter until there are `--gaussians`, are trained without
densification: render, loss, backward, statistics, optimiser, as `train.py` does them. Times are processor time of
this process (all its threads), medians over the steps; a stage's share is of the sum of all. The rate counts
whole steps from first to last, so that it also holds what falls between the stages. With `--ruler` the Gaussians
and a view of the trained state are written in the ruler's format and its stages are timed in the same run. With
`--opensplat PROGRAM` (again for another build) OpenSplat trains the same points on the same photos in turns with ours.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diff_gaussian_rasterization import set_threads

from arguments import Config, DataConfig, PipelineConfig, RunConfig
from benchmarks import cpu_peers
from gaussian_renderer import render
from phases.density import Events
from phases.every import Every
from phases.fastgs import FastGS
from phases.start import start
from phases.state import Step, TrainingState
from scene.cameras import Camera
from scene.dataset import Scene, open_scene
from scene.gaussian_model import GaussianModel
from scene.points import PointCloud
from utils.command import Parser, run_command
from utils.errors import UserError

LONG = 10**9
STAGES = ("photo", "render", "loss", "backward", "statistics", "optimizer")


class Steady(FastGS):
    """FastGS in its first half, with its statistics but without its events."""

    name = ""

    def events(self, state: TrainingState) -> Events:
        """Statistics at every step, densification at none."""
        return Events(densify=Every(LONG, 0, LONG))

    def sh_degree(self, state: TrainingState) -> int:
        """All bands, as in most of a real run."""
        return state.gaussians.max_sh_degree


@dataclass
class Clock:
    """Processor seconds of each stage at each step."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        begin = time.process_time()
        yield
        self.seconds[name].append(time.process_time() - begin)


def step(state: TrainingState, phase: Steady, clock: Clock) -> None:
    """`train.train_step`, stage by stage."""
    state.iteration += 1
    gaussians = state.gaussians
    gaussians.sh_degree = phase.sh_degree(state)
    ((camera, background),) = state.next_views()
    with clock.stage("photo"):
        image, mask = camera.image(), camera.mask()
    with clock.stage("render"):
        output = render(camera, gaussians, background, mult=state.mult)
    judged = Step(state.iteration, camera, image, mask, output)
    with clock.stage("loss"):
        losses = phase.loss(state, judged)
        total = torch.stack([*losses.values()]).sum()
    with clock.stage("backward"):
        total.backward()
    with clock.stage("statistics"):
        phase.after_view(state, judged)
        phase.after_step(state)
    with clock.stage("optimizer"):
        state.optimizer.step(gaussians, state.iteration, phase.windows(state), phase.rates(state))


def jittered(points: PointCloud, count: int, seed: int) -> PointCloud:
    """`count` points: the given ones, then copies moved by a normal 0.5 % of the cloud's size."""
    rng = np.random.default_rng(seed)
    row = np.arange(count) % len(points)
    spread = 0.005 * points.xyz.std(axis=0)
    noise = rng.normal(size=(count, 3)) * spread * (np.arange(count) >= len(points))[:, None]
    return PointCloud(points.xyz[row] + noise, points.rgb[row])


def prepare(args: argparse.Namespace) -> tuple[Scene, TrainingState]:
    """Scene and Gaussians before the first step; nothing is written, so there is no run folder."""
    run = RunConfig(phases="none", init="sfm", threads=args.threads)
    data, pipeline = DataConfig(source=args.source, resolution=args.resolution), PipelineConfig(mult=args.mult)
    config = Config(data=data, run=run, pipeline=pipeline)
    scene = open_scene(config.data)
    if scene.points is None:
        raise UserError(f"--source {args.source}: has no points3D to start from")
    scene = replace(scene, points=jittered(scene.points, args.gaussians, args.seed))
    return scene, start(config, scene, None)  # type: ignore[arg-type]


def measure(args: argparse.Namespace, state: TrainingState) -> dict[str, Any]:
    """Train; time the steps after the warm-up."""
    phase, clock = Steady(), Clock()
    for _ in range(args.warmup):
        step(state, phase, Clock())
    begin, wall = time.process_time(), time.perf_counter()
    for _ in range(args.steps):
        step(state, phase, clock)
    cpu, wall = time.process_time() - begin, time.perf_counter() - wall
    return {
        "gaussians": len(state.gaussians),
        "threads": args.threads,
        "mult": state.mult,
        "steps": args.steps,
        "steps_per_cpu_second": args.steps / cpu,
        "steps_per_second": args.steps / wall,
        "load": os.getloadavg()[0],
        "stages_ms": {name: 1e3 * median(clock.seconds[name]) for name in STAGES},
        "means_ms": {name: 1e3 * float(np.mean(clock.seconds[name])) for name in STAGES},
    }


def rate(state: TrainingState, steps: int) -> float:
    """Train on; steps per CPU second."""
    phase, begin = Steady(), time.process_time()
    for _ in range(steps):
        step(state, phase, Clock())
    return steps / (time.process_time() - begin)


def write_ruler_scene(path: Path, gaussians: GaussianModel, camera: Camera) -> None:
    """Header, view and activated parameters in the ruler's binary format."""
    sh = torch.cat([gaussians.sh_dc, gaussians.sh_rest], 1)
    quats = torch.nn.functional.normalize(gaussians.quats)
    tensors = (gaussians.means, gaussians.scales, quats, gaussians.opacities, sh)
    with path.open("wb") as file:
        np.array([len(gaussians), camera.width, camera.height], np.int32).tofile(file)
        np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float32).tofile(file)
        camera.camera_from_world.astype(np.float32).tofile(file)
        for tensor in tensors:
            tensor.detach().contiguous().numpy().tofile(file)


def run_ruler(executable: Path, state: TrainingState) -> dict[str, float] | str:
    """Processor milliseconds of the ruler's forward and backward, medians over a few views; or why there are none."""
    views = state.scene.train_cameras[:: max(1, len(state.scene.train_cameras) // 5)]
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for camera in views:
            path = Path(folder) / "view.bin"
            write_ruler_scene(path, state.gaussians, camera)
            environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
            done = subprocess.run([executable, path, "11"], capture_output=True, text=True, env=environment)
            found = re.search(r"cpu ms: ([\d. ]+)", done.stdout)
            if not found:
                return f"the ruler did not run here (exit code {done.returncode})"
            times.append([float(number) for number in found[1].split()])
    project, bins, forward, backward, parameters = np.median(times, axis=0)
    return {"render": float(project + bins + forward), "backward": float(backward + parameters)}


def report(result: dict[str, Any]) -> str:
    """The table."""
    total = sum(result["stages_ms"].values())
    ruler = result.get("ruler_ms")
    lines = [f"{'stage':<12}{'ms':>8}{'share':>8}{'ruler ms':>10}{'ratio':>7}"]
    for name, value in result["stages_ms"].items():
        line = f"{name:<12}{value:8.2f}{value / total:8.1%}"
        if isinstance(ruler, dict) and name in ruler:
            line += f"{ruler[name]:10.2f}{value / ruler[name]:7.2f}"
        lines.append(line)
    if isinstance(ruler, str):
        lines.append(ruler)
    lines.append(
        f"{result['steps_per_cpu_second']:.1f} steps per CPU second, {result['steps_per_second']:.1f} per second "
        f"({result['gaussians']} Gaussians, {result['threads']} threads, mult {result['mult']}, "
        f"load {result['load']:.1f})"
    )
    return "\n".join(lines)


def main(words: Sequence[str]) -> None:
    """Prepare, measure, print."""
    parser = Parser("Whole training steps per processor second, by stage.")
    parser.add_argument("--source", type=Path, required=True, help="dataset with points3D")
    parser.add_argument("-r", "--resolution", type=int, default=270, help="width in pixels")
    parser.add_argument("--gaussians", type=int, default=27_000)
    parser.add_argument("--steps", type=int, default=300, help="timed steps")
    parser.add_argument("--warmup", type=int, default=200, help="steps before them")
    parser.add_argument("--mult", type=float, default=0.5, help="compact box; the ruler's work is that of 1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the jitter")
    parser.add_argument("--ruler", type=Path, help="the ruler's executable")
    parser.add_argument("--opensplat", type=Path, action="append", metavar="PROGRAM", help="OpenSplat's CPU build")
    parser.add_argument("--rounds", type=int, default=3, help="turns that ours and OpenSplat take")
    parser.add_argument("--iterations", type=int, nargs=2, default=(5, 25), help="of each of OpenSplat's two runs")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    set_threads(args.threads)
    scene, state = prepare(args)
    result = measure(args, state)
    if args.ruler:
        result["ruler_ms"] = run_ruler(args.ruler, state)
    print(report(result))
    if args.opensplat:
        ours = partial(rate, state, max(1, args.steps // args.rounds))
        peers = cpu_peers.opensplat(args.opensplat, scene, ours, args.iterations, args.rounds)
        result["peers"] = [asdict(peer) for peer in peers]
        print(cpu_peers.table(peers))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(run_command(main))
