# SPDX-License-Identifier: Apache-2.0
"""What a machine may do to a run, and that nothing is lost by it.

    python -m tests.torture.machine

A full disk, folders that cannot be written, a dataset that vanishes, memory that ends, a second run in the folder, a
reader of the output that leaves, a clock that jumps: each run ends well, or with one line and exit code 2, and then
--resume leads to the bytes of a run that nobody disturbed. Small and read-only disks are real ones, mounted in a
namespace of their own; where that is not permitted, a limit on the size of files takes the place of the small disk.
"""

import argparse
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch.utils.tensorboard  # noqa: F401 - once here, not in every child

import train
from tests.scenes.small_capture import write_capture
from tests.torture.kills import COMMON, PLAIN, Prepare, child, finished, result

AT = 10
"""The step before which it happens; checkpoints come every third."""
ENTER = ("unshare", "--map-root-user", "--mount")


class Wrong(Exception):  # noqa: N818 - the word that is printed
    """A run did not end as it should."""


class Box:
    """A dataset, an undisturbed run, and a folder for what follows."""

    def __init__(self, base: Path, *, mounts: bool) -> None:
        self.base, self.data, self.mounts = base, write_capture(base / "data"), mounts
        self.folder = base / "M"
        self.options: tuple[str, ...] = ("--quiet",)
        self.ends(0, self.run())
        self.whole = result(self.folder)
        self.clear()

    def start(self, prepare: Prepare = lambda: None, *more: str) -> int:
        """Start training; `prepare` is called first in the new process. Its stderr goes to a file."""

        def prepared() -> None:
            os.dup2(os.open(self.base / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            prepare()

        common = [word for word in COMMON if word != "--quiet"]
        words = ["-s", str(self.data), "-m", str(self.folder), *common, *PLAIN, *self.options, *more]
        return child(words, prepared)

    def run(self, prepare: Prepare = lambda: None, *more: str) -> int:
        """Train, and wait for the exit code."""
        return finished(self.start(prepare, *more))[0]

    def ends(self, wanted: int, code: int, word: str = "") -> None:
        """Look at an exit code; with one that is not 0 goes one line."""
        said = (self.base / "said").read_text()
        if code != wanted or (code and (said.count("\n") != 1 or word not in said)):
            raise Wrong(f"ended with {code} and said: {said}")

    def is_whole(self) -> None:
        """Whether the folder holds what an undisturbed run leaves."""
        found = result(self.folder)
        if found != self.whole:
            names = [name for name in found.keys() | self.whole.keys() if found.get(name) != self.whole.get(name)]
            raise Wrong(f"differ: {', '.join(sorted(names))}")

    def resumes(self) -> None:
        """Whether the run goes on from a checkpoint to the bytes of an undisturbed one."""
        if not any(self.folder.glob("chkpnt*.pth")):
            raise Wrong("has left no checkpoint")
        self.ends(0, self.run(lambda: None, "--resume"))
        self.is_whole()

    def mount(self, *words: str | Path) -> None:
        """Mount in this process's namespace."""
        subprocess.run(["mount", *map(str, words)], check=True)

    def clear(self) -> None:
        """Forget the run."""
        subprocess.run(["umount", "-q", self.folder], check=False) if self.mounts else None
        shutil.rmtree(self.folder, ignore_errors=True)
        self.options = ("--quiet",)


def at_step(action: Callable[[], object], number: int = AT) -> None:
    """In a child: let something happen before a step."""
    original = train.train_step

    def step(state, *rest):
        if state.iteration == number - 1:
            action()
        return original(state, *rest)

    train.train_step = step


def full_disk(box: Box) -> None:
    """No space is left in the middle of a run."""
    filler = box.folder / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 12)):
                pass

    def is_full() -> None:
        try:
            fill()
        except OSError:
            return

    if box.mounts:
        box.folder.mkdir()
        box.mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", box.folder)
        code = box.run(partial(at_step, is_full))
    else:
        code = box.run(partial(at_step, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, -1))))
    box.ends(2, code, "cannot be written")
    filler.unlink(missing_ok=True)
    box.resumes()


def read_only_folder(box: Box) -> None:
    """A run is to go on where nothing can be written."""
    box.ends(0, box.run())
    before = result(box.folder)
    box.mount("--bind", box.folder, box.folder)
    box.mount("-o", "remount,bind,ro", box.folder)
    for more in (("--resume", "--iterations", "20"), ("--overwrite",)):
        box.ends(2, box.run(lambda: None, *more), "may not be written")
    if result(box.folder) != before:
        raise Wrong("the folder has changed")


def read_only_dataset(box: Box) -> None:
    """The dataset lies on a disk that cannot be written."""
    box.mount("--bind", box.data, box.data)
    box.mount("-o", "remount,bind,ro", box.data)
    try:
        box.ends(0, box.run())
    finally:
        subprocess.run(["umount", box.data], check=True)
    box.is_whole()


def vanished_dataset(box: Box) -> None:
    """The dataset's disk is pulled out while photos are decoded again and again."""
    box.options = ("--quiet", "--cache_gb", "0")
    away = box.base / "away"
    code = box.run(partial(at_step, lambda: box.data.rename(away)))
    away.rename(box.data)
    box.ends(2, code, ".png")
    box.resumes()


def no_memory(box: Box) -> None:
    """Something else takes all the memory that the process may have."""
    taken = []

    def take_all() -> None:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (16 << 20), -1))
        for piece in (1 << 20, 1 << 14, 1 << 10):
            try:
                while True:
                    taken.append(bytearray(piece))
            except MemoryError:
                continue

    box.ends(2, box.run(partial(at_step, take_all)), "out of memory")
    box.resumes()


def two_runs(box: Box) -> None:
    """A second run in the folder of one that is at work."""
    reached, go = box.base / "reached", box.base / "go"

    def wait() -> None:
        reached.touch()
        while not go.exists():
            time.sleep(0.01)

    first = box.start(partial(at_step, wait))
    while not reached.exists():
        time.sleep(0.01)
    for more in ("--resume", "--overwrite", "--quiet"):
        box.ends(2, box.run(lambda: None, more), "another process")
    go.touch()
    if finished(first)[0]:
        raise Wrong("the first run ended, too")
    box.is_whole()


def closed_output(box: Box) -> None:
    """Whoever read the output, of both kinds, leaves: `train.py 2>&1 | head -1`."""
    box.options = ()

    def leave() -> None:
        reader, writer = os.pipe()
        for stream in (1, 2):
            os.dup2(writer, stream)
        os.close(writer)
        sys.stdout = os.fdopen(1, "w", buffering=1)
        at_step(partial(os.close, reader))

    box.ends(0, box.run(leave))
    box.is_whole()


def clock_jumps(box: Box) -> None:
    """The time of day jumps by thirty years, forwards and backwards, whenever it is asked for."""

    def jump() -> None:
        now, calls = time.time, itertools.count()
        time.time = lambda: now() + 1e9 * (next(calls) % 3 - 1)

    box.ends(0, box.run(jump))
    box.is_whole()


ANYWHERE = (full_disk, vanished_dataset, no_memory, two_runs, closed_output, clock_jumps)
MOUNTED = (read_only_folder, read_only_dataset)


def may_mount() -> bool:
    """Whether this user gets a namespace with mounts of its own."""
    if shutil.which(ENTER[0]) is None:
        return False
    probe = [*ENTER, "sh", "-c", "mount -t tmpfs -o size=4k tmpfs /mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def main(argv: list[str] | None = None) -> int:
    """The command; 1 when something was lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    inside = parser.parse_args(argv).inside
    if not inside and may_mount():
        return subprocess.run(
            [*ENTER, sys.executable, "-m", "tests.torture.machine", "--inside"], check=False
        ).returncode
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        box = Box(Path(folder), mounts=inside)
        for scenario in (*ANYWHERE, *(MOUNTED if inside else ())):
            try:
                scenario(box)
            except Wrong as wrong:
                failures += 1
                print(f"{scenario.__name__}: {wrong}", flush=True)
            else:
                print(f"{scenario.__name__}: nothing is lost", flush=True)
            box.clear()
    print("small disk: a tmpfs of 4 MiB" if inside else "small disk: a limit on files; no read-only disks", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
