# SPDX-License-Identifier: Apache-2.0
"""Our rasteriser beside the others on one card: the same Gaussians, forward, backward, whole step and memory.

    python benchmarks/gpu.py [--counts 100000 500000 2000000 6000000] [--size 1600x1067] [--json out.json]
                             [--peer NAME=FOLDER] [--source SCENE --iterations 7000]

Of the others gsplat takes part where it imports, and each --peer: a folder with a package that has the usual
interface (GaussianRasterizationSettings, GaussianRasterizer), built for this torch. All draw the same parameters,
activated by torch where a rasteriser wants them so; a step is the forward pass, the mean squared difference to a
photo, the backward pass and Adam (torch's fused one for the others). They take turns; a figure is the median over
rounds, of the card's own clock. Memory is the most that torch's allocator held in a step, beyond parameters and
moments. With --source each then trains the same Gaussians on a capture: the same views, loss, rates and number of
iterations, no densification. Without a card it says so and ends with code 2.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diff_gaussian_rasterization import View
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import gpu_training
from benchmarks.rivals import Draw, Model, Parameters, rivals
from gaussian_renderer.backend import choose_backend
from utils.command import Parser, run_command

COUNTS = (100_000, 500_000, 2_000_000, 6_000_000)
PIXELS_PER_SPLAT = 3.0
"""Standard deviation of a splat of the smallest scene, px; larger scenes have smaller ones, to cover as much."""


@dataclass(frozen=True)
class Row:
    """One rasteriser on one scene: milliseconds, and MiB beyond the parameters."""

    name: str
    count: int
    forward: float
    backward: float
    step: float
    memory: float


def scene(count: int, width: int, height: int, device: torch.device) -> tuple[Parameters, View]:
    """Gaussians that fill a view evenly, three to twelve units before it; parameters as a trainer stores them."""
    g = torch.Generator().manual_seed(0)
    focal = 0.9 * width
    depth = 3 + 9 * torch.rand(count, 1, generator=g)
    pixels = torch.rand(count, 2, generator=g) * torch.tensor([width, height]) - torch.tensor([width, height]) / 2
    spread = PIXELS_PER_SPLAT * math.sqrt(COUNTS[0] / max(count, COUNTS[0]))
    parameters = {
        "means": torch.cat([pixels / focal * depth, depth], 1),
        "quats": torch.randn(count, 4, generator=g),
        "scales": torch.log(spread * depth / focal) + 0.4 * torch.randn(count, 3, generator=g),
        "opacities": 1.5 * torch.randn(count, 1, generator=g),
        "sh_dc": torch.randn(count, 1, 3, generator=g),
        "sh_rest": 0.1 * torch.randn(count, 15, 3, generator=g),
    }
    view = View(width, height, focal, focal, width / 2, height / 2, torch.eye(4))
    return {name: value.to(device).requires_grad_() for name, value in parameters.items()}, view


class Work:
    """One rasteriser on one scene, ready to be timed again and again."""

    def __init__(self, name: str, draw: Draw, parameters: Parameters, view: View) -> None:
        self.model, self._view = Model(name, draw, parameters), view
        like = parameters["means"]
        self._background, self._photo = like.new_zeros(3), like.new_full((3, view.height, view.width), 0.5)
        self._rates = dict.fromkeys(parameters, 1e-5)

    def forward(self) -> Tensor:
        """The image."""
        return self.model.draw(self._view, self._background)

    def measure(self) -> tuple[float, float, float, float]:
        """Milliseconds of forward, backward and whole step, and MiB."""
        device = self._photo.device
        held = _start_of_memory(device)
        marks = [_mark(device)]
        image = self.forward()
        marks.append(_mark(device))
        (image - self._photo).square().mean().backward()
        marks.append(_mark(device))
        self.model.adam(self._rates)
        marks.append(_mark(device))
        _wait(device)
        memory = (torch.cuda.max_memory_allocated(device) - held) / 2**20 if device.type == "cuda" else math.nan
        return _between(marks[0], marks[1]), _between(marks[1], marks[2]), _between(marks[0], marks[3]), memory


def compare(draws: dict[str, Draw], count: int, size: tuple[int, int], rounds: int, device: torch.device) -> list[Row]:
    """All rasterisers on one scene, in turns; the first round warms up."""
    parameters, view = scene(count, *size, device)
    works = [Work(name, draw, parameters, view) for name, draw in draws.items()]
    images = [work.forward().detach() for work in works]
    for work, image in zip(works[1:], images[1:], strict=True):
        difference = float((image - images[0]).abs().mean())
        if difference > 0.01:
            print(f"{work.model.name} draws another picture: mean difference {difference:.3f}", file=sys.stderr)
    del images
    taken: dict[str, list[tuple[float, ...]]] = {work.model.name: [] for work in works}
    for number in range(rounds + 1):
        for work in works:
            figures = work.measure()
            if number:
                taken[work.model.name].append(figures)
    medians = {name: [statistics.median(one) for one in zip(*all_, strict=True)] for name, all_ in taken.items()}
    return [Row(name, count, *figures) for name, figures in medians.items()]


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| Gaussians | rasteriser | forward ms | backward ms | step ms | memory MiB |", "|---" * 6 + "|"]
    for row in rows:
        figures = " | ".join(f"{value:.2f}" for value in (row.forward, row.backward, row.step))
        lines.append(f"| {row.count:,} | {row.name} | {figures} | {row.memory:.0f} |")
    return "\n".join(lines)


def _mark(device: torch.device) -> "torch.cuda.Event | float":
    """A place in the card's queue, or a time of the host's."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(first: "torch.cuda.Event | float", last: "torch.cuda.Event | float") -> float:
    return 1000 * (last - first) if isinstance(first, float) else first.elapsed_time(last)


def _start_of_memory(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text}: give WIDTHxHEIGHT")
    return int(width), int(height)


def _peer(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not (name.isidentifier() and folder):
        raise argparse.ArgumentTypeError(f"{text}: give NAME=FOLDER, NAME of letters and digits")
    return name, Path(folder)


def main(args: Sequence[str]) -> None:
    """The command."""
    parser = Parser("Rasterisers on one card, side by side.")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="Gaussians of each scene")
    parser.add_argument("--size", type=_size, default=(1600, 1067), metavar="WxH", help="of the image")
    parser.add_argument("--rounds", type=int, default=20, help="medians over so many")
    parser.add_argument("--backend", choices=("cuda", "cpu"), default="cuda", help="cpu only to try the script")
    parser.add_argument("--peer", type=_peer, action="append", default=[], metavar="NAME=FOLDER", help="a package")
    parser.add_argument("--source", type=Path, help="capture to train on as well")
    parser.add_argument("-r", "--resolution", type=int, default=1600, help="of its photos, width in pixels")
    parser.add_argument("--gaussians", type=int, default=500_000, help="to train")
    parser.add_argument("--iterations", type=int, default=7000, help="of that training")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    settings = parser.parse_args(args)
    backend = choose_backend(settings.backend)
    print(f"{backend.told}, torch {torch.__version__}, {settings.size[0]} x {settings.size[1]}")
    draws = rivals(dict(settings.peer), on_card=backend.device.type == "cuda")
    rows = []
    for count in settings.counts:
        rows += compare(draws, count, settings.size, settings.rounds, backend.device)
    print(table(rows))
    trained = []
    if settings.source:
        sizes = (settings.resolution, settings.gaussians, settings.iterations)
        state = gpu_training.prepare(settings.source, *sizes, backend.device)
        trained = [gpu_training.train(name, draw, state, settings.iterations) for name, draw in draws.items()]
        print(gpu_training.table(trained, settings.iterations))
    if settings.json:
        content = {"machine": backend.told, "size": settings.size, "rows": [asdict(row) for row in rows]}
        content["training"] = [asdict(row) for row in trained]
        settings.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    sys.exit(run_command(main))
