# SPDX-License-Identifier: Apache-2.0
"""The torture of `make torture` in short: hundreds of hostile inputs, a handful of kills, all that a machine may do."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.hostile import KINDS
from tests.torture.machine import ANYWHERE, MOUNTED

ROOT = Path(__file__).resolve().parents[1]


def run(module: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tests.torture.{module}", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_hostile_inputs_are_read_or_refused_in_a_line_and_do_nothing_else(tmp_path):
    process = run("hostile", "--count", 20 * len(KINDS), "--current", tmp_path / "seed")
    seed = (tmp_path / "seed").read_text()
    assert process.returncode == 0, f"{process.stdout}{process.stderr}at seed {seed}"
    table = dict(line.split(maxsplit=1) for line in process.stdout.splitlines())
    assert all(f"{20} inputs" in table[kind.__name__] for kind in KINDS)
    refused = sum(int(line.split()[2]) for line in table.values() if "refused" in line)
    assert 0.3 * 20 * len(KINDS) < refused < 0.9 * 20 * len(KINDS), "the damage is neither too little nor too much"


@pytest.mark.parametrize(
    "breach", ["open(box / '../out.txt', 'w')", "open(box / 'secret.png', 'rb')", "os.system('true')"]
)
def test_the_guard_notices_what_reaches_out(breach):
    code = (
        "import os, tempfile\n"
        "from pathlib import Path\n"
        "from tests.torture import hostile\n"
        f"def kind(rng, box): return lambda: {breach}\n"
        "hostile.KINDS = (kind,)\n"
        "print(hostile.attempt(0)[1])"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "EscapeError" in process.stdout, process.stderr


def test_killed_runs_resume_to_the_same_bytes():
    process = run("kills", "--count", 4, "--seed", 1)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "4 runs killed and resumed, 4 byte-equal" in process.stdout


def test_nothing_that_a_machine_does_costs_a_run():
    process = run("machine")
    assert process.returncode == 0, process.stdout + process.stderr
    kept = [line for line in process.stdout.splitlines() if line.endswith(": nothing is lost")]
    assert len(kept) == len(ANYWHERE) + (len(MOUNTED) if "tmpfs" in process.stdout else 0)
