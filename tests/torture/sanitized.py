# SPDX-License-Identifier: Apache-2.0
"""The native code under AddressSanitizer and UBSan: hostile Gaussians, its own tests, hostile inputs.

    python -m tests.torture.sanitized --count 300

Builds both packages with the sanitizers in a folder of its own (some minutes; needs g++), then runs Python with their
library loaded first. A report of a sanitizer ends the run; the seed in work is printed, and `--seed N` begins there.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import nanobind
import numpy as np
import torch
from diff_gaussian_rasterization import View, _native, rasterize, scatter
from diff_gaussian_rasterization.losses import photometric
from diff_gaussian_rasterization.optim import adam_step
from simple_knn import nearest

ROOT = Path(__file__).resolve().parents[2]
RASTERIZER, NEAREST = (ROOT / "submodules" / name for name in ("diff-gaussian-rasterization", "simple-knn"))
SANITIZE = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
FLAGS = ["-std=c++17", "-O1", "-g1", "-fno-omit-frame-pointer", "-fPIC", "-ffp-contract=off", "-Wno-psabi", *SANITIZE]
SETS = {"portable": []}
if platform.machine() in ("x86_64", "AMD64"):
    FLAGS.append("-DDGR_X86")
    SETS["avx2"] = ["-mavx2", "-mfma"]
    SETS["avx512"] = [*SETS["avx2"], "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"]
EXTREMES = (0.0, -0.0, 1e-30, 1e30, -1e30, 3e38, 1e-45, float("nan"), float("inf"), -float("inf"))


def build(site: Path) -> None:
    """Put both packages into a folder, their native modules built with the sanitizers."""
    for package in (RASTERIZER / "diff_gaussian_rasterization", RASTERIZER / "fused_ssim", NEAREST / "simple_knn"):
        shutil.copytree(package, site / package.name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    _link(_sources(RASTERIZER), site / "diff_gaussian_rasterization" / "_native")
    _link(_sources(NEAREST), site / "simple_knn" / "_core")


def _sources(package: Path) -> list[Path]:
    """What CMake builds for this kind of processor, without CUDA."""
    names = dict.fromkeys(re.findall(r"csrc/[\w/]+\.cpp", (package / "CMakeLists.txt").read_text()))
    own = [name for name in names if "cuda" not in name]
    return [package / name for name in own if len(SETS) > 1 or "avx" not in name]


def _link(units: list[Path], module: Path) -> None:
    """Compile sources with nanobind into an extension module."""
    binding = Path(nanobind.source_dir())
    includes = [nanobind.include_dir(), binding.parent / "ext/robin_map/include", sysconfig.get_path("include")]
    command = ["g++", *FLAGS, *(f"-I{path}" for path in includes)]
    with tempfile.TemporaryDirectory() as folder:
        objects = [Path(folder) / f"{unit.stem}.o" for unit in units]
        for unit, out in zip(units, objects, strict=True):
            sets = SETS.get(unit.stem.removeprefix("kernels_"), [])
            subprocess.run([*command, *sets, "-c", unit, "-o", out], check=True)
        own = Path(folder) / "nanobind.o"  # not ours to examine
        plain = [word for word in command if word not in SANITIZE]
        subprocess.run([*plain, "-w", "-fno-strict-aliasing", "-c", binding / "nb_combined.cpp", "-o", own], check=True)
        out = f"{module}{sysconfig.get_config_var('EXT_SUFFIX')}"
        subprocess.run(["g++", "-shared", *SANITIZE, *objects, own, "-o", out], check=True)


def sanitizing(site: Path) -> dict[str, str]:
    """The environment in which Python takes the packages of that folder."""
    names = ("libasan.so", "libubsan.so", "libstdc++.so.6")  # before Python's own; the last so that throws are seen
    printed = [subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip() for name in names]
    python_path = os.pathsep.join((str(site), str(ROOT)))
    return {
        **os.environ,
        "PYTHONPATH": python_path,
        "LD_PRELOAD": " ".join(printed),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def feed(count: int, first: int, current: Path) -> None:
    """Draw, differentiate, step, compare and search neighbours with drawn values, extremes among them."""
    torch.set_num_threads(1)
    for seed in range(first, first + count):
        current.write_text(str(seed))
        _feed(np.random.default_rng(seed))


def _feed(rng: np.random.Generator) -> None:
    share, spread = float(rng.choice([0, 0.01, 0.2])), float(rng.choice([0.1, 1, 30]))

    def drawn(*shape: int) -> torch.Tensor:
        values = rng.normal(scale=spread, size=shape)
        hit = rng.random(shape) < share
        return torch.from_numpy(np.where(hit, rng.choice(EXTREMES, shape), values).astype(np.float32))

    count = int(rng.choice([0, 1, 7, 300]))
    width, height = int(rng.choice([1, 8, 33, 300])), int(rng.choice([1, 16, 45]))
    pose = torch.eye(4)
    pose[2, 3] = float(rng.uniform(-1, 6))
    lens = {"fx": 0.9 * width, "fy": 0.9 * width, "cx": width / 2, "cy": height / 2}
    view = View(width=width, height=height, **lens, camera_from_world=pose)
    rows = [drawn(count, size).requires_grad_() for size in (3, 4, 3, 1)]
    own = {"sh_dc": drawn(count, 1, 3).requires_grad_(), "sh_rest": drawn(count, 15, 3).requires_grad_()}
    own |= {"sh_degree": int(rng.integers(4)), "features": drawn(count, 5)}
    common = {"view": view, "raw": bool(rng.random() < 0.7), "mult": float(rng.choice([0.5, 1])), "threads": 2}
    drawing = rasterize(*rows, background=torch.zeros(3), want_depth=True, want_weights=True, **own, **common)
    target = torch.from_numpy(rng.random((3, height, width), np.float32))
    weight = torch.from_numpy(rng.random((height, width), np.float32)) if rng.random() < 0.5 else None
    loss = photometric(drawing.image, target, weight, 0.2) + drawing.depth.sum() + drawing.features.square().sum()
    loss.backward()
    scatter(drawn(3, height, width), *[row.detach() for row in rows], **common)
    for row in (*rows, own["sh_rest"]):
        moments = [torch.zeros_like(row) for _ in range(2)]
        adam_step(row.detach(), row.grad, *moments, lr=1e-3, step=1, threads=2)
    points = drawn(int(rng.choice([1, 4, 200])), 3).nan_to_num()
    nearest(points, min(3, len(points) - 1), threads=2)


def examine(site: Path, count: int, seed: int) -> bool:
    """Have the packages of a folder examined; whether nothing was found."""
    current, environment = site / "seed", sanitizing(site)

    def clean(what: str, *words: object, **more: str) -> bool:
        current.unlink(missing_ok=True)
        command = [sys.executable, "-m", *map(str, words)]
        code = subprocess.run(command, env=environment | more, cwd=ROOT, check=False).returncode
        at = f" at seed {current.read_text()}" if current.exists() else ""
        print(f"{what}: {f'ended with {code}{at}' if code else 'nothing found'}", flush=True)
        return code == 0

    where = "import diff_gaussian_rasterization as d; print(d._native.__file__)"
    loaded = subprocess.check_output([sys.executable, "-c", where], env=environment, cwd=ROOT, text=True)
    assert loaded.startswith(str(site)), f"{loaded} is not the sanitized module"
    amount = ("--count", count, "--seed", seed)
    feeding = ("tests.torture.sanitized", "--feed", current, *amount)
    suites = [package / "tests" for package in (RASTERIZER, NEAREST)]
    results = [clean(f"{count} sets of Gaussians, {name}", *feeding, DGR_ISA=name) for name in SETS if _runs_here(name)]
    results.append(clean("tests of both packages", "pytest", "-p", "no:cacheprovider", *suites))
    results.append(clean(f"{count} hostile inputs", "tests.torture.hostile", *amount, "--current", current))
    return all(results)


def _runs_here(name: str) -> bool:
    try:
        _native.Launch(name, 1, False)
    except ValueError:
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    """The command; 1 when a sanitizer has found something."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="sets of Gaussians, for each instruction set")
    parser.add_argument("--seed", type=int, default=0, help="of the first")
    parser.add_argument("--feed", type=Path, help=argparse.SUPPRESS)
    settings = parser.parse_args(argv)
    if settings.feed is not None:
        feed(settings.count, settings.seed, settings.feed)
        return 0
    if shutil.which("g++") is None:
        print("skipped: g++ brings the sanitizers, and there is none")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        return int(not examine(Path(folder), settings.count, settings.seed))


if __name__ == "__main__":
    sys.exit(main())
