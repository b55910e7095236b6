# SPDX-License-Identifier: Apache-2.0
"""Builds the CUDA sources for tests: with g++ to run on the host, with nvcc to see that they compile."""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1] / "submodules" / "diff-gaussian-rasterization"
CSRC = PACKAGE / "csrc"
KERNELS = sorted(CSRC.glob("cuda/*.cu"))
NEAREST = PACKAGE.parent / "simple-knn" / "csrc" / "nearest.cu"
RASTERISER = [*KERNELS, CSRC / "cuda/errors.cpp", CSRC / "bind_rasterizer.cpp", CSRC / "bind_cuda.cpp"]
SEARCH = [NEAREST, NEAREST.parent / "bind_cuda.cpp"]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
HOST = ["-std=c++17", "-DDGR_HOST_EXECUTION", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
HOST += ["-Wall", "-Wextra", f"-I{HERE}"]
DEVICE = ["-std=c++17", "-O3", "--fmad=false", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra"]


def run(*command: str | Path) -> str:
    """What a command printed, both streams; AssertionError with its end when it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{said[-3000:]}"
    return said


@functools.cache
def host_compiler() -> str | None:
    """g++, which the host execution is written for."""
    return shutil.which("g++")


@functools.cache
def nvcc() -> str | None:
    """nvcc on PATH, under CUDA_HOME, or where it is usually installed."""
    folders = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    return shutil.which("nvcc") or next(filter(None, (shutil.which(f"{f}/bin/nvcc") for f in folders if f)), None)


def build_host_module(folder: Path, units: list[Path]) -> Path:
    """The extension module `_cuda` of RASTERISER or SEARCH, its kernels executed by the host."""
    import nanobind

    source = Path(nanobind.source_dir())
    includes = [nanobind.include_dir(), source.parent / "ext/robin_map/include", sysconfig.get_path("include"), CSRC]
    flags = [*HOST, *(f"-I{path}" for path in includes), "-DDGR_CUDA", "-DNB_DOMAIN=dgr_host"]
    flags.append('-DDGR_CUDA_ARCHITECTURES=""')

    def compile_unit(unit: Path) -> Path:
        out = folder / f"{unit.stem}.o"
        extra = ["-w", "-fno-strict-aliasing", "-DNDEBUG"] if unit.parent == source else []
        run(host_compiler(), *flags, *extra, "-x", "c++", "-c", unit, "-o", out)
        return out

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_unit, [source / "nb_combined.cpp", *units]))
    module = folder / f"_cuda{SUFFIX}"
    run(host_compiler(), "-shared", *objects, "-o", module)
    return module


def load(path: Path) -> ModuleType:
    """An extension module from its file."""
    spec = importlib.util.spec_from_file_location("_cuda", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_sanitized(folder: Path) -> Path:
    """A program that runs all kernels on arrays of exact size, under AddressSanitizer."""
    flags = [*HOST[:2], "-O0", "-g0", "-fsanitize=address", "-ffp-contract=off", f"-I{HERE}", f"-I{CSRC}"]

    def compile_unit(unit: Path) -> Path:
        out = folder / f"{unit.stem}.o"
        run(host_compiler(), *flags, "-x", "c++", "-c", unit, "-o", out)
        return out

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_unit, [*KERNELS, CSRC / "cuda/errors.cpp", HERE / "sanitized.cpp"]))
    program = folder / "sanitized"
    run(host_compiler(), "-fsanitize=address", *objects, "-o", program)
    return program


def compile_device(unit: Path, architecture: str, folder: Path) -> str:
    """What nvcc and ptxas say of a source: registers, shared memory, spills."""
    verbose = ["-Xptxas", "-v,-warn-spills"] if unit.stem != "sort" else []  # CUB's kernels are CUB's affair
    return run(nvcc(), *DEVICE, *verbose, f"-arch={architecture}", "-c", unit, "-o", folder / f"{unit.stem}.o")


@dataclass(frozen=True)
class Resources:
    """What one kernel takes of a multiprocessor."""

    name: str
    registers: int
    shared: int
    spilled: int

    @property
    def threads(self) -> int:
        """Of a block, as the launchers have it."""
        return 128 if self.name.startswith(("blend_adjoint", "stats", "project", "list", "depth")) else 256

    def __str__(self) -> str:
        return f"{self.name}: {self.registers} registers, {self.shared} bytes shared, {self.spilled} spilled"


def resources(said: str) -> list[Resources]:
    """Each kernel in the output of ptxas, by its plain name and template arguments."""
    found = []
    for part in said.split("Compiling entry function '")[1:]:
        mangled = part[: part.index("'")]
        plain = re.search(r"\d+([a-z][a-z_]*_kernel)(?:I((?:Lb[01]E)+)E)?", mangled)
        arguments = "".join(re.findall(r"Lb([01])E", plain[2] or ""))
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", part)))
        shared = re.search(r"(\d+) bytes smem", part)
        registers = int(re.search(r"Used (\d+) registers", part)[1])
        name = plain[1].removesuffix("_kernel") + (f"<{arguments}>" if arguments else "")
        found.append(Resources(name, registers, int(shared[1]) if shared else 0, spilled))
    return found
