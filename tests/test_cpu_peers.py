# SPDX-License-Identifier: Apache-2.0
"""The training benchmark lets another trainer take turns with ours: a stand-in that takes OpenSplat's flags."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from benchmarks import cpu_peers, training
from scene.dataset import Scene, load_scene
from scene.points import PointCloud
from tests.captures import Capture
from tests.scenes.small_capture import write_capture
from utils.command import run_command

STAND_IN = f"""#!{sys.executable} -IS
import os, struct, sys, time
source, flags = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))
assert os.environ["OMP_WAIT_POLICY"] == "passive" and flags["--num-downscales"] == "0"
assert flags["--warmup-length"] == flags["-n"], "it densifies"
count = struct.unpack("<Q", open(source + "/sparse/0/points3D.bin", "rb").read(8))[0]
while time.process_time() < 0.01 * int(flags["-n"]):
    pass
names = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3".split()
lines = ["ply", "format binary_little_endian 1.0", f"element vertex {{count}}"]
lines += ["property float " + name for name in names] + ["end_header", ""]
with open(flags["-o"], "wb") as file:
    file.write("\\n".join(lines).encode() + struct.pack("<f", 1) * (len(names) * count))
"""


def program(path: Path, text: str = STAND_IN) -> Path:
    """An executable file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def scene_with_points() -> Scene:
    """The tiny scene, and 50 points."""
    rng = np.random.default_rng(0)
    return replace(tiny.scene(4), points=PointCloud(rng.normal(size=(50, 3)), rng.integers(0, 256, (50, 3), np.uint8)))


def test_a_peer_gets_our_training_views_at_their_size_and_our_points(tmp_path):
    scene = scene_with_points()
    cpu_peers.write_dataset(tmp_path, scene)
    read = load_scene(tmp_path, hold_out=False)
    assert np.array_equal(read.points.xyz, scene.points.xyz) and np.array_equal(read.points.rgb, scene.points.rgb)
    assert len(read.train_cameras) == len(scene.train_cameras)
    for theirs, camera in zip(read.train_cameras, scene.train_cameras, strict=True):
        numbers = ("width", "height", "fx", "fy", "cx", "cy")
        assert [getattr(theirs, name) for name in numbers] == [getattr(camera, name) for name in numbers]
        assert theirs.camera_from_world == pytest.approx(camera.camera_from_world, abs=1e-12)
        assert (theirs.image() == camera.image()).all()


def test_an_iteration_costs_what_the_longer_run_takes_more_and_ratios_are_of_one_turn(tmp_path, monkeypatch):
    clock = iter([0.0, 3.0, 10.0, 23.0, 30.0, 34.0, 40.0, 64.0])  # runs of 3 s and 13 s, then of 4 s and 24 s
    monkeypatch.setattr(cpu_peers, "children_seconds", lambda: next(clock))
    ours = iter([60.0, 50.0])
    binary = program(tmp_path / "build" / "peer")
    mine, peer = cpu_peers.opensplat([binary], scene_with_points(), lambda: next(ours), (5, 25), 2)
    assert mine == cpu_peers.Peer("ours", 50, 55.0, 1.0, (1.0, 1.0))
    assert peer == cpu_peers.Peer("build/peer", 50, 1.5, 40.0, (30.0, 50.0))
    assert "build/peer" in cpu_peers.table([peer]) and "40.0x" in cpu_peers.table([peer])


def test_the_benchmark_has_a_row_for_each_build_and_leaves_the_dataset_alone(tmp_path, capsys):
    capture = write_capture(tmp_path / "capture")
    points = Capture(points=[(xyz, (128, 90, 60), ()) for xyz in np.random.default_rng(1).normal(size=(30, 3))])
    (capture / "sparse" / "0" / "points3D.bin").write_bytes(points.points_bin())
    before = {path: path.stat().st_mtime_ns for path in capture.rglob("*")}
    builds = [program(tmp_path / name / "peer") for name in ("own", "tuned")]
    words = ["--source", capture, "-r", 24, "--gaussians", 40, "--steps", 2, "--warmup", 1, "--rounds", 1]
    words += [word for build in builds for word in ("--opensplat", build)] + ["--json", tmp_path / "out.json"]
    assert run_command(training.main, [str(word) for word in words]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())["peers"]
    assert [(row["name"], row["gaussians"]) for row in rows] == [("ours", 40), ("own/peer", 40), ("tuned/peer", 40)]
    assert all(row["ratio"] > 0 for row in rows)
    assert "tuned/peer" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in capture.rglob("*")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not a program", "does not start"),
        ("#!/bin/sh\necho too bad >&2; exit 3", "code 3 and without a model; it said: too bad"),
        ("#!/bin/sh\nexit 0", "it said: nothing"),
    ],
)
def test_a_peer_that_does_not_train_is_told_in_a_line(tmp_path, capsys, text, said):
    ours = program(tmp_path / "build" / "peer", text)
    compare = [[ours], scene_with_points(), lambda: 50.0, (5, 25), 1]
    assert run_command(lambda _: cpu_peers.opensplat(*compare), []) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_runs_whose_difference_tells_nothing_are_refused(tmp_path, monkeypatch, capsys):
    binary = program(tmp_path / "build" / "peer")
    monkeypatch.setattr(cpu_peers, "children_seconds", lambda: 0.0)
    for iterations, said in (((25, 5), "give the shorter run"), ((1, 2), "took no longer")):
        compare = [[binary], scene_with_points(), lambda: 50.0, iterations, 1]
        assert run_command(lambda _, words=compare: cpu_peers.opensplat(*words), []) == 2
        assert said in capsys.readouterr().err
