# SPDX-License-Identifier: Apache-2.0
"""Files that are either there as a whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path to write to; what is there at the end of the block takes the place of `path` in one step.

    A reader, a crash or a power cut meets the old file or the new one, never half of either. When the block raises,
    the old file stays. The parent folders are made.

    Raises:
        UserError: The disk is full, or the folder may not be written.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        _flush(unfinished)
        unfinished.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free or choose another place"
        ) from error
    finally:
        if unfinished.exists():
            unfinished.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file, or none of it."""
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """The same for text, in UTF-8."""
    write_bytes(path, content.encode())


def _flush(path: Path) -> None:
    """Wait until a file or a folder is on the disk: a rename may reach it before the content does."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
