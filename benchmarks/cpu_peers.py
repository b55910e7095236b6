# SPDX-License-Identifier: Apache-2.0
"""OpenSplat beside our trainer on the processor: the same photos, cameras and points, by its command line alone.

An iteration costs what a longer run takes more than a shorter one, so that start, loading and saving do not count.
Neither run densifies. Ours and theirs take turns; a ratio is of one turn.
"""

import os
import resource
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from scene.dataset import Scene
from scene.ply import read_gaussians
from scene.points import PointCloud
from scene.shells import quaternions
from utils.errors import UserError

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
"""Threads that wait actively would count as work."""


@dataclass(frozen=True)
class Peer:
    """A row of the table: medians over the turns, and the ratio of ours to it in each."""

    name: str
    gaussians: int
    iterations_per_cpu_second: float
    ratio: float
    ratios: tuple[float, ...]


def opensplat(
    binaries: Sequence[Path], scene: Scene, ours: Callable[[], float], iterations: tuple[int, int], rounds: int
) -> list[Peer]:
    """Let builds of OpenSplat take turns with ours, whose row is the first.

    Args:
        binaries: The builds; a row is called by the last two parts of its path.
        scene: Training views and points; the points are the Gaussians that each starts from.
        ours: Trains on for a while and returns its iterations per CPU second.
        iterations: Of the shorter and of the longer run.
        rounds: Turns.
    """
    if not 0 < iterations[0] < iterations[1]:
        raise UserError(f"--iterations {iterations[0]} {iterations[1]}: give the shorter run, then the longer")
    turns: dict[Path, list[tuple[float, float, int]]] = {binary: [] for binary in binaries}
    own_rates = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        write_dataset(source, scene)
        for _ in range(rounds):
            own_rates.append(own := ours())
            for binary, turn in turns.items():
                rate, gaussians = _rate(binary, source, iterations)
                turn.append((rate, own / rate, gaussians))
    mine = Peer("ours", len(scene.points or ()), median(own_rates), 1.0, (1.0,) * rounds)
    return [mine, *(_row(binary, turn) for binary, turn in turns.items())]


def table(peers: Sequence[Peer]) -> str:
    """A line each."""
    lines = [f"{'trainer':<28}{'steps per CPU second':>21}{'ours':>8}{'Gaussians':>11}"]
    for peer in peers:
        lines.append(f"{peer.name:<28}{peer.iterations_per_cpu_second:21.2f}{peer.ratio:7.1f}x{peer.gaussians:11}")
    return "\n".join(lines)


def write_dataset(folder: Path, scene: Scene) -> None:
    """The training views at their training size and the points, as a binary COLMAP dataset."""
    model, images = folder / "sparse" / "0", folder / "images"
    model.mkdir(parents=True)
    images.mkdir()
    cameras = scene.train_cameras
    lenses, shots = [struct.pack("<Q", len(cameras))], [struct.pack("<Q", len(cameras))]
    rotations = quaternions(np.stack([camera.camera_from_world[:3, :3] for camera in cameras]))
    for number, (camera, rotation) in enumerate(zip(cameras, rotations, strict=True), 1):
        name = f"{number:04}.png"
        pixels = (camera.image().permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(images / name)
        intrinsics = (camera.fx, camera.fy, camera.cx, camera.cy)
        lenses.append(struct.pack("<IiQQ4d", number, 1, camera.width, camera.height, *intrinsics))
        pose = (*rotation, *camera.camera_from_world[:3, 3])
        shots.append(struct.pack("<I7dI", number, *pose, number) + name.encode() + b"\0" + struct.pack("<Q", 0))
    (model / "cameras.bin").write_bytes(b"".join(lenses))
    (model / "images.bin").write_bytes(b"".join(shots))
    (model / "points3D.bin").write_bytes(_points(scene.points))


def _points(points: PointCloud) -> bytes:
    record = np.dtype([("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("track", "<u8")])
    rows = np.zeros(len(points), record)
    rows["id"], rows["xyz"], rows["rgb"] = np.arange(1, len(points) + 1), points.xyz, points.rgb
    return struct.pack("<Q", len(points)) + rows.tobytes()


def _row(binary: Path, turns: Sequence[tuple[float, float, int]]) -> Peer:
    rates, ratios, gaussians = zip(*turns, strict=True)
    return Peer("/".join(binary.parts[-2:]), max(gaussians), median(rates), median(ratios), ratios)


def _rate(binary: Path, source: Path, iterations: tuple[int, int]) -> tuple[float, int]:
    """Iterations per CPU second and Gaussians at the end; UserError where there is none."""
    (short, _), (long, gaussians) = (_run(binary, source, count) for count in iterations)
    if long <= short:
        raise UserError(f"--opensplat {binary}: {iterations[1]} iterations took no longer than {iterations[0]}")
    return (iterations[1] - iterations[0]) / (long - short), gaussians


def _run(binary: Path, source: Path, iterations: int) -> tuple[float, int]:
    """CPU seconds of a whole run, and the Gaussians it ends with."""
    result = source / "result.ply"
    words = [source, "-o", result, "-n", iterations, "--num-downscales", 0, "--sh-degree-interval", 1]
    words += ["--warmup-length", iterations]  # it densifies only after these
    result.unlink(missing_ok=True)
    before = children_seconds()
    try:
        done = subprocess.run(
            [binary.resolve(), *map(str, words)], capture_output=True, text=True, env=os.environ | ONE_THREAD
        )
    except OSError as error:
        raise UserError(f"--opensplat {binary}: does not start ({error.strerror}); give the program itself") from error
    seconds = children_seconds() - before
    if done.returncode or not result.is_file():
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise UserError(f"--opensplat {binary}: ended with code {done.returncode} and without a model; it said: {said}")
    return seconds, len(read_gaussians(result).means)


def children_seconds() -> float:
    """CPU seconds of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
