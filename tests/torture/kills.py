# SPDX-License-Identifier: Apache-2.0
"""Runs killed at random moments, then resumed: the result must be that of a run that nobody disturbed, byte for byte.

    python -m tests.torture.kills --count 200 --seed 0

A third of the kills comes at a random moment of the process's time, a third when it is about to open, rename or
delete a file, a third in the middle of a write (a limit on the size of files strikes at a random byte). Every second
run is killed a second time while it resumes.
"""

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch.utils.tensorboard  # noqa: F401 - once here, not in every child

import train
from tests.scenes.small_capture import write_capture
from utils.command import run_command

COMMON = ("--threads", "1", "--iterations", "16", "--checkpoint_every", "3", "--num_points", "40", "--quiet")
PLAIN = ("--phases", "none", "--random_background", "--densification_interval", "4", "--densify_from_iter", "2")
RUNS = (PLAIN, PLAIN, PLAIN, ("--vlm_views", "2"))
"""Plain ones are quicker; every fourth run has all phases."""

WRITES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
TICK = 1 / os.sysconf("SC_CLK_TCK")

Prepare = Callable[[], Any]


def child(argv: list[str], prepare: Prepare = lambda: None) -> int:
    """Start train.py in a process that need not import anything; returns its number."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    prepare()
    os._exit(run_command(train.main, argv))


def finished(process: int) -> tuple[int, float]:
    """Exit code, negative for a signal, and the seconds of processor time it took."""
    _, status, usage = os.wait4(process, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def result(folder: Path) -> dict[str, bytes]:
    """The files that must not depend on how a run came about."""
    paths = [*folder.glob("point_cloud/**/*.*"), *folder.glob("chkpnt*.pth"), *folder.glob("vlm/**/audit.jsonl")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _count_writes(strike_at: int, told: int | None = None) -> None:
    """In a child: kill it at a certain event, or write the number of events so far to a descriptor."""
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in WRITES or (event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        count += 1
        if told is not None:
            os.pwrite(told, f"{count:9}".encode(), 0)
        if count == strike_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _limit_files(size: int) -> None:
    """In a child: the write that reaches beyond this size ends the process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _kill_after(process: int, seconds: float) -> None:
    """SIGKILL when the process has used so much processor time."""
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        if (int(fields[11]) + int(fields[12])) * TICK >= seconds:
            os.kill(process, signal.SIGKILL)
            return
        time.sleep(0.002)


class Torture:
    """Undisturbed runs to compare with, and what is known of them."""

    def __init__(self, base: Path, seed: int) -> None:
        self.base, self.data = base, write_capture(base / "data")
        self.rng = np.random.default_rng(seed)
        self.counts: Counter[str] = Counter()
        self.whole: dict[tuple[str, ...], tuple[dict[str, bytes], float, int, int]] = {}

    def words(self, folder: Path, options: tuple[str, ...]) -> list[str]:
        """The command line of a run."""
        return ["-s", str(self.data), "-m", str(folder), *COMMON, *options]

    def undisturbed(self, options: tuple[str, ...]) -> tuple[dict[str, bytes], float, int, int]:
        """Result, processor time, number of writes and size of the largest file of a run that nobody disturbs."""
        if options not in self.whole:
            folder = self.base / f"whole{len(self.whole)}"
            with (self.base / "count").open("w+b") as told:
                number = told.fileno()
                code, seconds = finished(child(self.words(folder, options), lambda: _count_writes(-1, number)))
                assert code == 0, f"the undisturbed run ended with {code}"
                writes = int(os.pread(number, 9, 0))
            largest = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            self.whole[options] = result(folder), seconds, writes, largest
        return self.whole[options]

    def disturbed(self, number: int) -> str | None:
        """Kill a run once or twice, resume it, compare; what differs, or None."""
        options = RUNS[number % len(RUNS)]
        wanted, *_ = self.undisturbed(options)
        folder = self.base / f"M{number}"
        words = self.words(folder, options)
        for _ in range(1 + number % 2):
            self._strike([*words, "--resume"], options)
        self.counts["left unfinished files"] += any(folder.rglob(".*.part"))
        self.counts["had no checkpoint yet"] += not any(folder.glob("chkpnt*.pth"))
        code, _ = finished(child([*words, "--resume"]))
        found = result(folder)
        left = [path.name for path in folder.rglob(".*.part")]
        shutil.rmtree(folder)
        if code or left:
            return f"resuming ended with {code}, left behind: {left}"
        differing = [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
        return f"differ: {', '.join(sorted(differing))}" if differing else None

    def _strike(self, words: list[str], options: tuple[str, ...]) -> None:
        _, seconds, writes, largest = self.undisturbed(options)
        way = int(self.rng.integers(3))
        if way == 0:
            process = child(words)
            _kill_after(process, float(self.rng.uniform(0, seconds)))
        elif way == 1:
            at = int(self.rng.integers(1, writes + 1))
            process = child(words, lambda: _count_writes(at))
        else:
            size = int(self.rng.integers(1, largest))
            process = child(words, lambda: _limit_files(size))
        code, _ = finished(process)
        names = {-signal.SIGKILL: ("at a random moment", "before a write")[way % 2], -signal.SIGXFSZ: "within a write"}
        self.counts[f"killed {names[code]}" if code in names else f"ended with {code} before the kill"] += 1


def main(argv: list[str] | None = None) -> int:
    """The command; 1 when a resumed run differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="runs")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args(argv)
    failures = done = 0
    with tempfile.TemporaryDirectory() as folder:
        torture = Torture(Path(folder), settings.seed)
        try:
            for number in range(settings.count):
                wrong = torture.disturbed(number)
                done += 1
                if wrong:
                    failures += 1
                    print(f"run {number} of seed {settings.seed}: {wrong}", flush=True)
        except KeyboardInterrupt:
            print("interrupted; so far:")
    for name, count in sorted(torture.counts.items()):
        print(f"{name:40} {count:6}")
    print(f"{done} runs killed and resumed, {done - failures} byte-equal")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
