# SPDX-License-Identifier: Apache-2.0
"""A new phase is one file: the page that says so is tried out."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.scenes.small_capture import write_capture

ROOT = Path(__file__).resolve().parents[1]

RUN = """
import sys
import phases
phases.__path__.append(sys.argv[1])  # as if the file lay in phases/
import train
from utils.command import run_command
sys.exit(run_command(train.main, sys.argv[2:]))
"""


def program(folder: Path, *words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", RUN, str(folder), *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_phase_of_the_page_runs_as_it_stands(tmp_path):
    page = (ROOT / "docs" / "adding-a-phase.md").read_text()
    (tmp_path / "my_idea.py").write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
    data = write_capture(tmp_path / "data")
    words = ["-s", data, "-m", tmp_path / "M", "--iterations", 12, "--phases", "main,my_idea", "--quiet"]
    process = program(tmp_path, *words, "--my_idea_gain", 3.5, "--my_idea_iterations", 5)
    assert process.returncode == 0, process.stderr
    lines = [json.loads(line) for line in (tmp_path / "M" / "log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line["phase"] for line in lines if "loss" in line)) == ["main", "my_idea", "fastgs"]
    assert json.loads((tmp_path / "M" / "config.json").read_text())["phases"]["my_idea"]["gain"] == 3.5
    assert "--my_idea_gain X" in program(tmp_path, "--help").stdout
