# SPDX-License-Identifier: Apache-2.0
"""A file is there as a whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.atomic import atomic_path, write_bytes, write_text
from utils.errors import UserError


def test_content_arrives_and_folders_are_made(tmp_path):
    write_bytes(tmp_path / "a" / "b" / "c", b"\0\xff")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"\0\xff"
    write_text(tmp_path / "a" / "t", "雪\n")
    assert (tmp_path / "a" / "t").read_bytes() == "雪\n".encode()


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_bytes(tmp_path / "file", b"old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "file") as unfinished:
        unfinished.write_bytes(b"half")
        raise RuntimeError
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_nothing_is_seen_before_the_end(tmp_path):
    with atomic_path(tmp_path / "file") as unfinished:
        unfinished.write_bytes(b"new")
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_folder_in_the_way_is_one_line(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(UserError, match="file: cannot be written"):
        write_bytes(tmp_path / "file", b"new")


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be written"):
        write_bytes(tmp_path / "file" / "inner", b"new")


def test_a_full_disk_is_one_line():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with (
        pytest.raises(UserError, match="No space left"),
        atomic_path(Path("/dev/shm/never")),
        full.open("wb", 0) as file,
    ):
        file.write(b"x")


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    write_bytes(tmp_path / "file", b"old")
    code = (
        "import os, pathlib, sys; sys.path.insert(0, sys.argv[1])\n"
        "from utils.atomic import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[2])) as path:\n"
        "    path.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).resolve().parents[1]
    killed = subprocess.run([sys.executable, "-c", code, root, tmp_path / "file"], env=os.environ, check=False)
    assert killed.returncode == -9
    assert (tmp_path / "file").read_bytes() == b"old"
