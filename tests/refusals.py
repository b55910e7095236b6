# SPDX-License-Identifier: Apache-2.0
"""What is refused, with which words: docs/refusals.md is made of it, and a test repeats all of it.

python -m tests.refusals      # writes docs/refusals.md
"""

import contextlib
import io
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import metrics
import render
import train
from tests.captures import ring
from utils.command import run_command

PAGE = Path(__file__).resolve().parents[1] / "docs" / "refusals.md"

INTRODUCTION = """# What is refused, and with which words

Written by `python -m tests.refusals`, which runs every line of it; a test holds the page against the program.

Every refusal is one line on stderr that names the file or flag, what is wrong and what to do; the exit code is 2.
`S` is a dataset, `M` the folder of a run. Ctrl-C, SIGTERM and a terminal that closes finish the step, write a
checkpoint and end with 130. Too little memory, a full disk and a value that is not finite are such a line too;
`--resume` goes on from the last checkpoint. Whoever reads the output may leave (`| head -1`): the run goes on.

| command | situation | what it says |
|---|---|---|
"""

Prepare = Callable[[Path], object]
MAIN = {"train.py": train.main, "render.py": render.main, "metrics.py": metrics.main}


def nothing(_: Path) -> None:
    """The dataset as it is."""


def _write(name: str, content: bytes) -> Prepare:
    def prepare(base: Path) -> None:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(content)

    return prepare


def _cut(name: str, size: int) -> Prepare:
    return lambda base: os.truncate(base / name, size)


def _without(name: str) -> Prepare:
    return lambda base: shutil.rmtree(base / name) if (base / name).is_dir() else (base / name).unlink()


def _renamed(old: bytes, new: bytes) -> Prepare:
    def prepare(base: Path) -> None:
        path = base / "S/sparse/0/images.bin"
        path.write_bytes(path.read_bytes().replace(old, new))

    return prepare


TRAIN = "train.py -s S -m M"
REFUSALS: tuple[tuple[str, str, Prepare], ...] = (
    ("train.py", "no dataset", nothing),
    ("train.py -s NONE -m M", "a folder that is not there", nothing),
    ("train.py -s EMPTY -m M", "a folder without a model", lambda base: (base / "EMPTY").mkdir()),
    ("train.py -s S -m S/out", "a run within its dataset", nothing),
    ("train.py -s S -m FILE", "a file in the place of the folder", _write("FILE", b"")),
    (f"{TRAIN} --iteration 5", "a flag that is not known", nothing),
    (f"{TRAIN} --iterations 0", "a number out of range", nothing),
    (f"{TRAIN} --iterations many", "something else than a number", nothing),
    (f"{TRAIN} --detector qwn", "a word that is not known", nothing),
    (f"{TRAIN} --detector qwen", "a detector without its model", nothing),
    (f"{TRAIN} --qwen_model_path NONE", "a model that is not there", nothing),
    (f"{TRAIN} --antialiasing", "what is not supported yet", nothing),
    (f"{TRAIN} --phases vlm,main", "phases in another order", nothing),
    (f"{TRAIN} --iterations 10 --main_iterations 11", "phases longer than the run", nothing),
    (f"{TRAIN} --iterations 10 --schedule_iterations 11", "a schedule longer than the run", nothing),
    (f"{TRAIN} --resume --overwrite", "flags that contradict each other", nothing),
    (f"{TRAIN} --init NONE.ply", "a PLY that is not there", nothing),
    (f"{TRAIN} --init FILE", "a file that is no PLY", _write("FILE", b"hello")),
    (f"{TRAIN} --masks NONE", "a folder of masks that is not there", nothing),
    (TRAIN, "a model cut in the middle", _cut("S/sparse/0/images.bin", 300)),
    (TRAIN, "a count that cannot be", _write("S/sparse/0/images.bin", struct.pack("<Q", 2**63))),
    (TRAIN, "a name that leads out of the dataset", _renamed(b"00.png", b"../a.p")),
    (TRAIN, "the same name twice", _renamed(b"00.png", b"01.png")),
    (TRAIN, "no photos", _without("S/images")),
    (TRAIN, "another program's run", _write("M/cfg_args", b"Namespace()")),
    (f"{TRAIN} --resume", "the same, to be resumed", _write("M/cfg_args", b"Namespace()")),
    ("train.py -m M --resume", "settings that are none", _write("M/config.json", b"[]")),
    ("train.py -m M --resume", "settings with an unknown name", _write("M/config.json", b'{"format": 1, "runs": {}}')),
    ("render.py -m M", "no model to render", nothing),
    ("render.py --ply FILE --cameras FILE", "no splat PLY", _write("FILE", b"hello")),
    ("metrics.py -m M", "nothing to measure", nothing),
)
"""Command line, the situation in words, and what makes it."""


def refusal(command: str, prepare: Prepare, base: Path) -> tuple[int, str]:
    """Exit code and words of a command in a folder of its own, with its paths as the page has them."""
    ring().write_dataset(base / "S")
    prepare(base)
    before = Path.cwd()
    os.chdir(base)
    said = io.StringIO()
    try:
        name, *words = command.split()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = run_command(MAIN[name], words)
    finally:
        os.chdir(before)
    return code, said.getvalue().replace(f"{base.resolve()}/", "").replace(f"{base}/", "")


def page() -> str:
    """docs/refusals.md."""
    rows = []
    for command, situation, prepare in REFUSALS:
        with tempfile.TemporaryDirectory() as folder:
            code, said = refusal(command, prepare, Path(folder))
        if code != 2 or said.count("\n") != 1:
            raise AssertionError(f"{command} ({situation}): exit code {code}, {said!r}")
        words = said.strip().replace("|", "\\|").replace("<", "&lt;")
        rows.append(f"| `{command}` | {situation} | {words} |")
    return INTRODUCTION + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.exit(0)
