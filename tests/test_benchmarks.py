# SPDX-License-Identifier: Apache-2.0
"""The benchmarks are commands."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = sorted(path for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.stem)
def test_a_benchmark_runs_as_its_page_says(command, tmp_path):
    told = subprocess.run([sys.executable, command, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("usage:")
