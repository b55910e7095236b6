# SPDX-License-Identifier: Apache-2.0
"""The module as `make cuda` builds it: a wheel that loads where there is no driver, and says so when it is used."""

import os
import subprocess
import sys
import zipfile

import cuda_build as build
import pytest

PROGRAM = """
import torch
from diff_gaussian_rasterization import _cuda as m
grid = m.Grid()
grid.width = grid.height = grid.tile_width = grid.tile_height = 16
ones = torch.ones(4)
at = ones.data_ptr()
calls = {
    "project": lambda: m.project(m.Launch(0), m.Camera(), four(m.Gaussians()), m.ProjectOutputs()),
    "bin": lambda: m.bin_scratch(grid, 4, 0),
    "adam": lambda: m.adam_steps(m.Launch(0), [m.AdamArgs(4, 1, at, at, at, at, 0, 1e-3, 0.9, 0.99, 1e-8, 1)]),
    "loss": lambda: m.compare_images(m.Launch(0), 3, 4, 4, at, at, 0, 0.0, 0.0, 0, 0, at, at),
    "rows": lambda: m.gather_append(m.Launch(0), [m.RowColumn(at, 0, at, 1, 4, 0)], at, 4, 0),
}


def four(gaussians):
    gaussians.count = 4
    return gaussians


print("built", m.architectures, m.versions()[0])
for name, call in calls.items():
    try:
        call()
    except RuntimeError as error:
        print(name, error)
"""


def test_the_wheel_loads_without_a_driver_and_its_functions_answer_with_a_line(tmp_path):
    if "DGR_CUDA_ARCHITECTURES" not in os.environ:
        pytest.skip("builds the whole module: a part of `make test-cuda` only")
    if not build.nvcc():
        pytest.skip("no nvcc on this machine (PATH, CUDA_HOME, /usr/local/cuda)")
    for tool in ("scikit_build_core", "nanobind"):
        pytest.importorskip(tool, reason="builds without pip's isolation, to need no network")
    settings = {"cmake.define.CUDA_ARCHS": "90", "cmake.define.CMAKE_CUDA_COMPILER": build.nvcc()}
    settings = [f"--config-settings={name}={value}" for name, value in settings.items()]
    wheel = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path]
    build.run(sys.executable, "-m", "pip", *wheel, *settings, build.PACKAGE)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        archive.extractall(tmp_path / "package")
    env = os.environ | {"PYTHONPATH": str(tmp_path / "package"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built, *answers = done.stdout.splitlines()
    assert built.startswith("built 90 1")
    assert [line.split()[0] for line in answers] == ["project", "bin", "adam", "loss", "rows"]
    assert all(" CUDA, " in line and "; " in line for line in answers), answers
