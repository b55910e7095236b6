# SPDX-License-Identifier: Apache-2.0
"""The native core compiles where it is meant to, and no code is shared between instruction sets."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[1] / "csrc"
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Wno-psabi", "-ffp-contract=off", "-fPIC"]
X86 = platform.machine() in ("x86_64", "AMD64")
SETS = {
    "portable": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"],
}


def compiler(*names):
    for name in names:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no {names[0]} on this machine")


def build(cxx, source, out, *flags):
    command = [cxx, *FLAGS, *flags, "-c", str(CSRC / source), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


CORE = [
    *("choose.cpp", "bin.cpp", "blend.cpp", "project.cpp", "loss.cpp", "adam.cpp"),
    *("thread_pool.cpp", "kernels_portable.cpp"),
]


@pytest.mark.parametrize("source", CORE)
def test_the_core_cross_compiles_for_aarch64(source, tmp_path):
    cxx = compiler("aarch64-linux-gnu-g++")
    build(cxx, f"cpu/{source}", tmp_path / "a.o", "-O0")


CLANG = ("clang++", "clang++-16", "clang++-15", "clang++-17", "clang++-18", "clang++-19")


@pytest.mark.parametrize("source", CORE)
def test_the_core_compiles_with_clang(source, tmp_path):
    build(compiler(*CLANG), f"cpu/{source}", tmp_path / "a.o", "-O0")


@pytest.mark.skipif(not X86, reason="x86 only")
@pytest.mark.parametrize("isa", list(SETS))
def test_each_instruction_set_compiles_with_clang(isa, tmp_path):
    cxx = compiler(*CLANG)
    build(cxx, f"cpu/kernels_{isa}.cpp", tmp_path / "a.o", "-O0", "-DDGR_X86", *SETS[isa])


@pytest.mark.skipif(not X86, reason="x86 only")
@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_code_of_an_instruction_set_stays_in_its_own_namespace(isa, tmp_path):
    """A weak function that the linker may take from this object for another one would crash older processors."""
    cxx = compiler("g++", "c++")
    nm = compiler("nm")
    built = build(cxx, f"cpu/kernels_{isa}.cpp", tmp_path / "a.o", "-DDGR_X86", "-O1", *SETS[isa])
    listed = subprocess.run([nm, "-C", "--defined-only", str(built)], capture_output=True, text=True, check=True)
    shared = [line for line in listed.stdout.splitlines() if " W " in line and f"dgr::{isa}::" not in line]
    assert not shared


def test_the_native_core_knows_neither_torch_nor_openmp_nor_cuda():
    for path in [*CSRC.rglob("*.h"), *CSRC.rglob("*.cpp")]:
        text = path.read_text()
        assert "torch/" not in text
        assert "omp.h" not in text and "#pragma omp" not in text
        if "nanobind" in text:
            assert path.name.startswith("bind"), path
