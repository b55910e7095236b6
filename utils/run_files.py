# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: whose it is, what in it is ours, and that only one process writes it."""

import fcntl
import os
import re
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

from .errors import UserError

WITNESSES = ("config.json", "cfg_args", "log.jsonl", "point_cloud/iteration_*", "chkpnt*.pth")
"""Any of these says that a folder holds a run, ours or that of another trainer of the family."""

WRITTEN = (
    *("cfg_args", "cameras.json", "input.ply", "exposure.json", "geometry.json", "depth.npz"),
    *("log.jsonl", "results.json", "per_view.json", "metrics_protocol.json", "report.html", "chkpnt*.pth"),
    *("events.out.tfevents.*", ".*.part", "point_cloud/iteration_*", "snapshots/*.png", "vlm/round_*"),
    *("train/ours_*", "test/ours_*", "trajectory/ours_*"),
    "config.json",
)
"""All that our entry points write; nothing else is ever deleted. In this order: while there is a config.json, a run
that was killed in the middle of it is still known as ours."""


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return any(next(folder.glob(pattern), None) is not None for pattern in WITNESSES)


def delete_run(folder: Path) -> None:
    """Delete what a run has written, and folders that are empty then; leave everything else."""
    for pattern in WRITTEN:
        for path in folder.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for name in {pattern.partition("/")[0] for pattern in WRITTEN if "/" in pattern}:
        if (folder / name).is_dir() and not any((folder / name).iterdir()):
            (folder / name).rmdir()


def sweep(folder: Path) -> None:
    """Delete unfinished files of processes that were killed while they wrote; those of living ones stay."""
    places = {"", *(pattern.rpartition("/")[0] for pattern in WRITTEN), "vlm/round_*", "point_cloud/iteration_*"}
    for place in places:
        for path in folder.glob(f"{place}/.*.part".lstrip("/")):
            match = re.fullmatch(r"\..+\.(\d+)\.part", path.name)
            if match and path.is_file() and not _alive(int(match[1])):
                path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return process != os.getpid()


def claim(folder: Path, owner: object) -> Callable[[], None]:
    """Make the folder and lock it for as long as `owner` lives; a killed process gives it back at once.

    Returns:
        What gives the folder back earlier.

    Raises:
        UserError: the folder cannot be made or written, or another process writes it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"--model_path {folder}: cannot be made ({error.strerror}); choose another place") from error
    release = weakref.finalize(owner, os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"--model_path {folder}: another process is training there; wait or choose another") from error
    except OSError:
        pass  # a file system without locks
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--model_path {folder}: may not be written; choose another place")
    return release


def keep_out_of(source: Path, folder: Path) -> None:
    """The dataset is never written to, so a run may not live in it, nor be deleted round it.

    Raises:
        UserError: one of the two folders is within the other.
    """
    data, run = source.resolve(), folder.resolve()
    if data.is_relative_to(run) or run.is_relative_to(data):
        raise UserError(f"--model_path {folder}: shares a folder with the dataset {source}; choose another place")
