# SPDX-License-Identifier: Apache-2.0
"""Every defect that is planted in a sound capture is found and named, and nothing else is."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from scene.check import check, main
from scene.dataset import load_scene
from scene.summary import expectations
from tests.scenes.rigs import RigCamera, look, moved, ring
from tests.scenes.small_capture import write_capture
from utils.command import run_command

COUNT = 12


def sized(cameras: list[RigCamera]) -> list[RigCamera]:
    size = {"width": 200, "height": 150, "fx": 190.0, "fy": 190.0, "cx": 100.0, "cy": 75.0}
    return [replace(camera, **size) for camera in cameras]


def arc(**options) -> list[RigCamera]:
    """Views that overlap well: a quarter of a circle at one height."""
    return sized(ring(COUNT, radius=3.0, heights=(0.8, 1.2, 1.6), arc=0.9, **options))


def written(folder: Path, cameras: list[RigCamera], seen_from: list[RigCamera] | None = None) -> Path:
    """A capture whose photos were taken by `seen_from` while its model says `cameras`."""
    write_capture(folder, seen_from or cameras, finest=(7.0, 4.0))
    if seen_from is not None:
        write_capture(folder / "other", cameras, finest=None)
        shutil.rmtree(folder / "sparse")
        (folder / "other" / "sparse").rename(folder / "sparse")
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("sound") / "capture", arc())


@pytest.fixture
def capture(sound, tmp_path) -> Path:
    return shutil.copytree(sound, tmp_path / "capture")


def found(folder: Path, **options) -> dict[str, tuple[str, ...]]:
    return {doubt.kind: doubt.views for doubt in check(load_scene(folder, **options))}


def photo(folder: Path, index: int) -> Path:
    return folder / "images" / f"{index:02}.png"


def change(folder: Path, index: int, how) -> None:
    with Image.open(photo(folder, index)) as image:
        changed = how(image)
    changed.save(photo(folder, index))


def test_a_sound_capture_raises_no_doubt(sound):
    assert found(sound) == {}


def test_few_views(tmp_path):
    assert "few views" in found(written(tmp_path / "few", arc()[:6]))


def test_missing_and_damaged_photos(capture):
    photo(capture, 3).unlink()
    photo(capture, 5).write_bytes(photo(capture, 5).read_bytes()[:1000])
    assert found(capture) == {"skipped": ("03.png", "05.png")}


def test_two_groups_that_show_different_places(tmp_path):
    there = sized(ring(8, radius=3.0, heights=(1.0, 1.1), arc=0.7))
    elsewhere = sized([look((0.1 * k, 0.0, 2.5), (0.1 * k + 1, 9.0, 1.5)) for k in range(6)])
    kinds = found(written(tmp_path / "two", there + elsewhere))
    assert kinds["groups"] == tuple(f"{k:02}.png" for k in range(8, 14))


def test_a_view_whose_pose_is_wrong(tmp_path):
    cameras = arc()
    turned = [*cameras]
    turned[6] = moved([cameras[6]], offset=(0.0, 0.0, 0.9))[0]
    kinds = found(written(tmp_path / "wrong", turned, seen_from=cameras))
    assert kinds["poses"] == ("06.png",)


def test_two_views_whose_poses_are_exchanged(tmp_path):
    cameras = arc()
    exchanged = [*cameras]
    exchanged[3], exchanged[8] = cameras[8], cameras[3]
    kinds = found(written(tmp_path / "exchanged", exchanged, seen_from=cameras))
    assert set(kinds["poses"]) == {"03.png", "08.png"}


def test_blur(capture):
    change(capture, 7, lambda image: image.filter(ImageFilter.GaussianBlur(2.5)))
    assert found(capture)["blur"] == ("07.png",)


def test_a_jump_of_the_exposure(capture):
    change(capture, 8, lambda image: image.point(lambda level: level * 0.5))
    assert found(capture) == {"exposure": ("08.png",)}


def test_views_that_do_not_overlap(tmp_path):
    outwards = [look((0.0, 0.0, 0.0), (np.cos(a), np.sin(a), 0.0)) for a in np.arange(5) * 2 * np.pi / 5]
    assert "no overlap" in found(written(tmp_path / "apart", sized(outwards)))


def test_a_camera_far_from_all_others(tmp_path):
    cameras = arc()
    far = [*cameras]
    far[2] = moved([cameras[2]], offset=(500.0, 0.0, 0.0))[0]
    assert found(written(tmp_path / "far", far, seen_from=cameras))["extent"] == ("02.png",)


def test_all_cameras_at_one_place(tmp_path):
    turning = [look((0.0, 0.0, 1.0), (3 * np.cos(a), 3 * np.sin(a), 0.5)) for a in np.linspace(0, 0.8, 9)]
    assert "one place" in found(written(tmp_path / "place", sized(turning)))


def test_photos_that_show_nothing(capture):
    change(capture, 4, lambda image: Image.new("RGB", image.size, (3, 3, 3)))
    change(capture, 9, lambda image: Image.new("RGB", image.size, (200, 200, 200)))
    assert found(capture)["empty"] == ("04.png", "09.png")


def test_masks_the_wrong_way_round(capture):
    (capture / "masks").mkdir()
    mask = np.zeros((150, 200), np.uint8)
    mask[:5] = 255
    for index in range(COUNT):
        Image.fromarray(mask).save(capture / "masks" / f"{index:02}.png")
    assert len(found(capture)["masks"]) == COUNT
    assert found(capture, invert_masks=True) == {}


def test_one_photo_under_two_names(capture):
    shutil.copy(photo(capture, 9), photo(capture, 11))
    assert found(capture)["twins"] == ("11.png",)


def test_the_command_tells_what_will_be_held_out_and_what_it_takes(capture, capsys):
    assert run_command(main, [str(capture)]) == 0
    text = capsys.readouterr().out
    for words in ("Photos: 12, 200x150", "Held out: '00.png', '08.png'", "Expected, roughly:", "Nothing doubtful"):
        assert words in text


def test_the_command_ends_with_2_where_nothing_can_be_trained(tmp_path, capsys):
    assert run_command(main, [str(tmp_path)]) == 2
    assert run_command(main, [str(tmp_path), "--imagse", "x"]) == 2
    assert "no sparse/0" in capsys.readouterr().err


def test_more_pixels_and_more_iterations_take_longer(sound):
    def hours(**options) -> float:
        line = expectations(load_scene(sound, **options), 300_000)[0]
        return float(line.split(" hours")[0].split()[-1])

    assert hours() > 1.5 * hours(resolution=100)


def test_what_is_inserted_takes_memory_however_small_the_photos_are(sound):
    few, many = (expectations(load_scene(sound, resolution=16), inserted=count)[0] for count in (0, 18_500))
    assert int(many.split(" with ")[1].split(" Gaussians")[0].replace(",", "")) > 18_500
    assert int(few.split(" with ")[1].split(" Gaussians")[0].replace(",", "")) < 1_000
