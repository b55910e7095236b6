# SPDX-License-Identifier: Apache-2.0
"""A checkpoint gives back exactly what was put in, says when it cannot, and is the same file for the same content."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils import checkpoint
from utils.checkpoint import DamagedError, checkpoints, fingerprint

ROOT = Path(__file__).resolve().parents[1]


def content(scale: float = 1.0) -> dict:
    generator = torch.Generator().manual_seed(3)
    return {
        "iteration": 7,
        "rows": {"means": scale * torch.randn(5, 3, generator=generator), "labels": torch.zeros(5, dtype=torch.uint8)},
        "generator": generator.get_state(),
        "none": None,
        "by_view": {0: torch.ones(2), 3: "x"},
        "phases": [{}, {"masks": ["a", "b"], "share": 0.25, "pair": (1, True)}],
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
    }


def damage(path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def test_what_was_saved_comes_back(tmp_path):
    back = checkpoint.load(checkpoint.save(tmp_path, 7, content())).payload
    assert fingerprint(back) == fingerprint(content())
    assert back["phases"] == content()["phases"] and back["rows"]["means"].shape == (5, 3)


def test_equal_content_gives_equal_bytes_however_it_came_about(tmp_path):
    first = checkpoint.save(tmp_path / "a", 7, content()).read_bytes()
    again = checkpoint.load(tmp_path / "a" / "chkpnt7.pth").payload
    assert checkpoint.save(tmp_path / "b", 7, again).read_bytes() == first
    separate = {"".join(list(key)): value for key, value in content().items()}  # equal keys, other objects
    separate["rows"]["means"] = torch.cat([separate["rows"]["means"], torch.ones(9, 3)])[:5]  # a view of more
    separate["rows"]["means"].requires_grad_()
    assert checkpoint.save(tmp_path / "c", 7, separate).read_bytes() == first


def test_a_view_does_not_drag_its_whole_storage_along(tmp_path):
    path = checkpoint.save(tmp_path, 1, {"part": torch.zeros(1_000_000)[:3]})
    assert path.stat().st_size < 10_000


@pytest.mark.parametrize("change", [1.5, -1.0])
def test_other_content_has_another_fingerprint(change):
    assert fingerprint(content(change)) != fingerprint(content())


def test_fingerprints_tell_shapes_types_and_borders_apart():
    values = [["ab"], ["a", "b"], [["a"], "b"], ("ab",), [1], [True], [1.0], ["1"], [None], {"a": "b"}, torch.zeros(2)]
    values += [torch.zeros(2, 1), torch.zeros(2, dtype=torch.int32), torch.zeros(2, dtype=torch.float64)]
    assert len({fingerprint(value) for value in values}) == len(values)


@pytest.mark.parametrize("place", [0.02, 0.3, 0.5, 0.7, 0.98])
def test_a_damaged_file_never_passes_for_another_content(tmp_path, place):
    path = checkpoint.save(tmp_path, 7, content())
    damage(path, int(place * path.stat().st_size))
    try:
        back = checkpoint.load(path).payload
    except DamagedError as error:
        assert str(path) in str(error)
    else:
        assert fingerprint(back) == fingerprint(content())  # the byte was padding


def test_a_changed_number_is_noticed(tmp_path):
    marked = content() | {"mark": torch.full((64,), 1234.5)}
    path = checkpoint.save(tmp_path, 7, marked)
    data = path.read_bytes()
    damage(path, data.index(torch.full((4,), 1234.5).numpy().tobytes()))
    with pytest.raises(DamagedError):
        checkpoint.load(path)


@pytest.mark.parametrize("length", [0, 10, 1000])
def test_a_cut_file_is_damaged(tmp_path, length):
    path = checkpoint.save(tmp_path, 7, content())
    os.truncate(path, length)
    with pytest.raises(DamagedError):
        checkpoint.load(path)


def test_a_stranger_s_checkpoint_is_not_ours(tmp_path):
    torch.save(((0, torch.zeros(3)), 30_000), tmp_path / "chkpnt30000.pth")
    with pytest.raises(DamagedError, match="not a checkpoint of this program"):
        checkpoint.load(tmp_path / "chkpnt30000.pth")


def test_a_checkpoint_says_of_what_run_it_is(tmp_path):
    found = checkpoint.load(checkpoint.save(tmp_path, 7, content(), {"settings": {"run.seed": 3}}))
    assert (found.iteration, found.about) == (7, {"settings": {"run.seed": 3}})


def test_what_it_says_of_itself_cannot_be_changed_unnoticed(tmp_path):
    path = checkpoint.save(tmp_path, 7, content(), {"mark": "MARKMARK"})
    path.write_bytes(path.read_bytes().replace(b"MARKMARK", b"KRAMKRAM"))
    with pytest.raises(DamagedError):
        checkpoint.load(path)


def test_a_renamed_checkpoint_is_not_taken_for_another_iteration_s(tmp_path):
    checkpoint.save(tmp_path, 7, content()).rename(tmp_path / "chkpnt8.pth")
    with pytest.raises(DamagedError, match="another iteration"):
        checkpoint.load(tmp_path / "chkpnt8.pth")


def test_checkpoints_of_the_first_version_are_still_read(tmp_path):
    old = {"format": checkpoint.FORMAT, "version": 1, "iteration": 7, "sha256": fingerprint(content())}
    torch.save(old | {"payload": content()}, tmp_path / "chkpnt7.pth")
    found = checkpoint.load(tmp_path / "chkpnt7.pth")
    assert found.iteration == 7 and fingerprint(found.payload) == fingerprint(content())


def test_a_tensor_that_claims_more_than_its_data_is_not_unfolded(tmp_path):
    huge = torch.zeros(1).expand(1 << 40)
    torch.save({"format": checkpoint.FORMAT, "version": 1, "payload": huge, "sha256": ""}, tmp_path / "chkpnt1.pth")
    with pytest.raises(DamagedError):
        checkpoint.load(tmp_path / "chkpnt1.pth")


def test_too_little_memory_is_not_damage(tmp_path, monkeypatch):
    path = checkpoint.save(tmp_path, 7, content())

    def fails(*_, **__):
        raise MemoryError

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(MemoryError):
        checkpoint.load(path)


@pytest.mark.parametrize("limit", [100, 5_000, 200_000])
def test_a_write_that_fails_half_way_is_one_line_and_leaves_the_old_file(tmp_path, limit):
    """A limit on the size of files fails in the middle of a write, as a full disk does."""
    before = checkpoint.save(tmp_path, 7, content()).read_bytes()
    code = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from utils import checkpoint\n"
        "from utils.command import run_command\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "sys.exit(run_command(lambda _: checkpoint.save(Path(sys.argv[1]), 7, {'a': torch.zeros(100_000)})))"
    )
    words = [sys.executable, "-c", code, str(tmp_path), str(limit)]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert f"{tmp_path / 'chkpnt7.pth'}: cannot be written (File too large); free" in process.stderr
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_pickled_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "run"),))

    torch.save({"format": checkpoint.FORMAT, "payload": Evil()}, tmp_path / "chkpnt1.pth")
    with pytest.raises(DamagedError):
        checkpoint.load(tmp_path / "chkpnt1.pth")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [{"a": {1, 2}}, {(1, 2): "a"}, {"a": [object()]}])
def test_only_plain_data_is_taken(tmp_path, value):
    with pytest.raises(TypeError, match=r"payload|keys of checkpoints"):
        checkpoint.save(tmp_path, 1, value)
    assert not list(tmp_path.iterdir())


def test_the_newest_two_and_those_for_good_stay(tmp_path):
    for iteration in (5, 10, 15, 100):
        checkpoint.save(tmp_path, iteration, content())
        checkpoint.prune(tmp_path, for_good=(5,))
    assert list(checkpoints(tmp_path)) == [100, 15, 5]
