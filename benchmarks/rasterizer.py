# SPDX-License-Identifier: Apache-2.0
"""Our rasteriser beside the ruler: forward and backward to parameter gradients, CPU milliseconds on one thread.

    python benchmarks/rasterizer.py --prototype RULER_SOURCES          # builds the ruler and makes the scenes
    python benchmarks/rasterizer.py --ruler ./ruler --scenes ./scenes --rounds 5 --json out.json

Ours runs through the drop-in interface with torch tensors in and gradients out, without the inverse depth that it adds
by default: the ruler draws none. The ruler re-lays its parameters out off its clock. Both take turns; a figure is the
median over rounds of process CPU time. The floor is that of a 4.5 GHz AVX-512 core: 20 vector instructions a
contributing pair forward and 39 backward at 14.0 G/s, 16 pairs at a time.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer, View, _native, rasterize

BAR = (1.3, 0.5)  # at most 1.3 times the ruler and 0.5 ms
FLOOR_FORWARD, FLOOR_BACKWARD = 11.2e6, 5.7e6  # contributing pairs per ms
RULER_FLAGS = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math"]
MEMORY_SCENE = "s_100000_800x600.bin"


@dataclass
class Row:
    """One scene; times in CPU milliseconds."""

    scene: str
    ruler: float
    ours: float
    forward: float
    floor: float

    @property
    def passes(self) -> bool:
        """Whether the bar is met."""
        return self.ours <= BAR[0] * self.ruler + BAR[1]


class Work:
    """One scene, ready to be drawn again and again."""

    def __init__(self, path: Path, threads: int = 1):
        header = path.read_bytes()[:28]
        count, width, height, fx, fy, cx, cy = struct.unpack("3i4f", header)
        values = torch.from_numpy(np.fromfile(path, np.float32, offset=28))
        shapes = [(4, 4), (count, 3), (count, 3), (count, 4), (count, 1), (count, 16, 3)]
        sizes = [int(np.prod(shape)) for shape in shapes]
        parts = [part.reshape(shape).clone() for part, shape in zip(values.split(sizes), shapes, strict=True)]
        matrix, means, scales, quats, opacities, shs = parts
        self.view = View(width, height, fx, fy, cx, cy, matrix)
        self.means2d = torch.zeros(count, 3, requires_grad=True)
        self.leaves = [t.requires_grad_() for t in (means, opacities, shs, scales, quats)]
        self.gradient = torch.rand(3, height, width, generator=torch.Generator().manual_seed(1)) - 0.5
        projection = torch.zeros(4, 4)
        projection[0, 0], projection[1, 1], projection[3, 2] = 2 * fx / width, 2 * fy / height, 1
        projection[0, 2], projection[1, 2] = 2 * cx / width - 1, 2 * cy / height - 1
        projection[2, 2], projection[2, 3] = 100 / 99.99, -1 / 99.99
        self.rasterizer = GaussianRasterizer(
            GaussianRasterizationSettings(
                *(height, width, width / (2 * fx), height / (2 * fy), torch.zeros(3), 1.0),
                *(matrix.T, matrix.T @ projection.T, 3, self.view.position.float(), False, False),
                return_invdepth=False,
                threads=threads,
            )
        )

    def step(self, clock=time.process_time) -> tuple[float, float]:
        """Milliseconds forward and backward."""
        means, opacities, shs, scales, quats = self.leaves
        start = clock()
        color = self.rasterizer(means, self.means2d, opacities, shs=shs, scales=scales, rotations=quats)[0]
        middle = clock()
        torch.autograd.grad(color, [*self.leaves, self.means2d], self.gradient)
        return 1e3 * (middle - start), 1e3 * (clock() - middle)

    @torch.no_grad()
    def pairs(self) -> int:
        """Contributing (pixel, Gaussian) pairs."""
        means, opacities, _, scales, quats = self.leaves
        everywhere = torch.ones(self.view.height, self.view.width)
        colors = torch.zeros_like(means)
        out = rasterize(
            *(means, quats, scales, opacities), view=self.view, background=torch.zeros(3), colors=colors,
            count_mask=everywhere,
        )  # fmt: skip
        return int(out.counts.sum())


def has_avx512() -> bool:
    """Whether this processor runs the ruler's fast kernels."""
    return "avx512dq" in Path("/proc/cpuinfo").read_text()


def build_ruler(prototype: Path, folder: Path, compiler: str) -> Path:
    """Compile the ruler as its own notes say; without AVX-512, its portable kernels at eight lanes.

    That build has one line of AVX-512 outside its kernels (adding up slots); two AVX registers stand in for it.
    """
    for source in prototype.glob("*.?pp"):
        shutil.copy(source, folder)
    flags = list(RULER_FLAGS)
    if not has_avx512():
        flags.append("-DVL=8")
        source = folder / "raster_prototype.cpp"
        text = source.read_text()
        slots = re.search(r"__m512 a=_mm512_setzero_ps\(\);for.*?_mm512_store_ps\(mm\+16ul\*g,a\);", text)
        if slots:
            halves = (
                "__m256 a=_mm256_setzero_ps(),b=a;"
                "for(uint32_t w=0;w<cnt;w++){const float*s=ent_grad.p+16ul*em_pos[o+w];"
                "a=_mm256_add_ps(a,_mm256_load_ps(s));b=_mm256_add_ps(b,_mm256_load_ps(s+8));}"
                "_mm256_store_ps(mm+16ul*g,a);_mm256_store_ps(mm+16ul*g+8,b);"
            )
            source.chmod(0o644)
            source.write_text(text.replace(slots.group(0), halves))
    ruler = folder / "ruler"
    sources = ["main.cpp", "raster_prototype.cpp"]
    subprocess.run([compiler, *flags, "-o", str(ruler), *sources], cwd=folder, check=True, capture_output=True)
    return ruler


def run_ruler(ruler: Path, scene: Path, repetitions: int) -> float:
    """CPU milliseconds of all five stages, of its faster kernel."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [str(ruler), str(scene), str(repetitions)], env=environment, capture_output=True, text=True, check=True
    )
    stages = re.findall(r"cpu ms: ([\d. ]+)", done.stdout)
    return min(sum(map(float, line.split())) for line in stages)


def compare(ruler: Path, scene: Path, rounds: int, repetitions: int) -> Row:
    """Alternate ruler and ours."""
    work = Work(scene)
    work.step(), work.step()
    theirs, ours = [], []
    for _ in range(rounds):
        theirs.append(run_ruler(ruler, scene, repetitions))
        work.step(), work.step()  # the ruler warms up twice as well
        ours += [work.step() for _ in range(repetitions)]
    pairs = work.pairs()
    floor = pairs / FLOOR_FORWARD + pairs / FLOOR_BACKWARD
    totals, forwards = [sum(t) for t in ours], [t[0] for t in ours]
    return Row(scene.stem, statistics.median(theirs), statistics.median(totals), statistics.median(forwards), floor)


def scaling(scene: Path, rounds: int) -> dict[str, float]:
    """Smallest wall time with one and two threads, taking turns, and the machine's load."""
    works = {threads: Work(scene, threads) for threads in (1, 2)}
    best = {1: float("inf"), 2: float("inf")}
    for _ in range(rounds):
        for threads, work in works.items():
            best[threads] = min(best[threads], sum(work.step(time.perf_counter)))
    return {"one": best[1], "two": best[2], "ratio": best[1] / best[2], "load": os.getloadavg()[0]}


def memory_growth(scene: Path) -> float:
    """Megabytes by which resident memory peaks over what parameters and libraries hold; fresh process, Linux."""
    script = f"""
import re, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch; torch.set_num_threads(1)
from pathlib import Path
import rasterizer
small = torch.zeros(1, requires_grad=True); (small * 1).sum().backward()
work = rasterizer.Work(Path({str(scene)!r}))
def kilobytes(name): return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of loading, is forgotten
before = kilobytes("VmRSS")
for _ in range(3): work.step()
print((kilobytes("VmHWM") - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout)


def machine(compiler: str) -> dict[str, str]:
    """What the figures depend on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    launch = _native.Launch("", 1, False)
    return {"cpu": model.group(1) if model else platform.machine(), "isa": launch.isa, "compiler": version}


def print_table(rows: list[Row]) -> None:
    """One line for each scene."""
    print(f"{'scene':<20}{'ruler':>9}{'ours':>9}{'ratio':>8}{'forward':>9}{'floor':>8}  bar")
    for row in rows:
        verdict = "met" if row.passes else "MISSED"
        figures = f"{row.ruler:9.2f}{row.ours:9.2f}{row.ours / row.ruler:8.2f}{row.forward:9.2f}{row.floor:8.2f}"
        print(f"{row.scene:<20}{figures}  {verdict}", flush=True)


def main() -> None:
    """Build what is missing, compare, print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ruler", type=Path, help="the ruler, built")
    parser.add_argument("--prototype", type=Path, help="its sources: built when --ruler is not given")
    parser.add_argument("--scenes", type=Path, help="scene files; made from --prototype when not given")
    parser.add_argument("--only", default="*", help="scenes to run, a file pattern")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--scaling_rounds", type=int, default=60, help="0 leaves two threads out")
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.prototype is None and (args.ruler is None or args.scenes is None):
        parser.error("give --prototype, or both --ruler and --scenes")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ruler = args.ruler.resolve() if args.ruler else build_ruler(args.prototype.resolve(), folder, args.compiler)
        scenes = args.scenes
        if scenes is None:
            maker = args.prototype.resolve() / "make_scenes.py"
            subprocess.run([sys.executable, str(maker)], cwd=folder, check=True)
            scenes = folder / "scenes"
        chosen = sorted(scenes.glob(args.only), key=lambda p: [int(n) for n in re.findall(r"\d+", p.stem)])
        rows = [compare(ruler, scene, args.rounds, args.repetitions) for scene in chosen]
        print_table(rows)
        result = {"machine": machine(args.compiler), "scenes": [asdict(r) | {"passes": r.passes} for r in rows]}
        largest = scenes / MEMORY_SCENE
        if args.scaling_rounds and largest in chosen:
            result["threads"] = scaling(largest, args.scaling_rounds)
            result["memory_mb"] = memory_growth(largest)
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
