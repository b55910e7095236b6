# SPDX-License-Identifier: Apache-2.0
"""Photos and masks are found by names that differ a little, and several COLMAP models by number."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scene.dataset import load_scene
from scene.photo_files import MaskFinder, PhotoFinder
from scene.summary import describe
from tests.captures import Capture, ring
from utils.errors import UserError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.jpg", "images/a.jpg"),
        ("a.jpg", "a.jpg"),
        ("a.jpg", "images/A.JPG"),
        ("IMG_1.JPG", "images/IMG_1.jpg"),
        ("sub/a b.v2.jpg", "images/sub/a b.v2.jpg"),
        ("Größe 雪.jpg", f"images/{unicodedata.normalize('NFD', 'Größe 雪')}.jpg"),
        ("r_0", "r_0.png"),
        ("train/r_0", "train/r_0.png"),
        ("v1.5/r_0.25", "v1.5/r_0.25.png"),
        ("a.jpg", "images/a.png"),
        ("a.jpg", "images/a.HEIC"),
        ("sub\\a.jpg", "images/sub/a.jpg"),
    ],
)
def test_names_find_their_file(tmp_path, name, file):
    touch(tmp_path / "images" / "z.jpg")
    path = touch(tmp_path / file)
    assert PhotoFinder(tmp_path, "images").find(name) == path


def test_the_exact_name_wins_and_images_before_the_root(tmp_path):
    for file in ("images/a.JPG", "images/a.jpg", "a.jpg", "images/a.png"):
        touch(tmp_path / file)
    assert PhotoFinder(tmp_path, "images").find("a.jpg") == tmp_path / "images" / "a.jpg"


@pytest.mark.parametrize("name", ["a.jpg", "a", "images", "b.jpg.png"])
def test_what_is_not_there_is_none(tmp_path, name):
    touch(tmp_path / "images" / "b.jpg")
    assert PhotoFinder(tmp_path, "images").find(name) is None


def test_a_similar_name_may_not_leave_the_dataset_either(tmp_path):
    outside = touch(tmp_path / "outside.jpg")
    (tmp_path / "d" / "images").mkdir(parents=True)
    (tmp_path / "d" / "images" / "A.jpg").symlink_to(outside)
    with pytest.raises(UserError, match="link"):
        PhotoFinder(tmp_path / "d", "images").find("a.JPG")


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("a.jpg", "a.jpg.png"),
        ("a.jpg", "a.png"),
        ("a.jpg", "a.mask.png"),
        ("a.png", "a.png"),
        ("s/a.JPG", "s/a.JPG.png"),
        ("images/a.jpg", "a.png"),
    ],
)
def test_masks_beside_the_photos_are_used_without_being_asked_for(tmp_path, name, mask):
    path = touch(tmp_path / "masks" / mask)
    assert MaskFinder(tmp_path, "images", None).find(name) == path
    assert MaskFinder(tmp_path, "images", Path("none")).find(name) is None


def test_a_capture_with_its_own_masks_says_what_they_keep(tmp_path):
    root = ring(9).write_dataset(tmp_path)
    (root / "masks").mkdir()
    for photo in (root / "images").iterdir():
        mask = np.zeros((30, 40), np.uint8)
        mask[:, :20] = 255
        Image.fromarray(mask).save(root / "masks" / photo.name)
    assert "Masks: 50.0% of the pixels are kept" in describe(load_scene(root))


def test_a_jpeg_mask_has_no_quite_black_black(tmp_path):
    root = ring(9).write_dataset(tmp_path)
    mask = np.full((30, 40), 9, np.uint8)
    mask[:, :20] = 240
    Image.fromarray(mask).save(tmp_path / "m.jpg", format="JPEG", quality=95)
    (root / "masks").mkdir()
    (tmp_path / "m.jpg").rename(root / "masks" / "03.png.png")
    masks = {camera.name: camera.mask() for camera in load_scene(root).cameras}
    assert masks["03.png"].mean() == 0.5


def several(root: Path, *counts: int) -> Path:
    for number, count in enumerate(counts):
        ring(count).write_bin(root / "sparse" / str(number))
    ring(max(counts)).write_dataset(root / "photos")
    (root / "photos" / "images").rename(root / "images")
    return root


def test_the_largest_of_several_models_is_taken_and_it_is_said(tmp_path):
    root = several(tmp_path, 4, 12, 7)
    scene = load_scene(root)
    assert len(scene.cameras) == 12
    assert (
        "COLMAP model sparse/1 (also there: 0 with 4 images, 2 with 7 images; --sparse N takes another)"
        in (describe(scene)[0])
    )
    assert len(load_scene(root, sparse=2).cameras) == 7
    with pytest.raises(UserError, match="sparse/9"):
        load_scene(root, sparse=9)


def test_text_models_are_counted_too(tmp_path):
    root = several(tmp_path, 4, 6)
    ring(12).write_txt(root / "sparse" / "10")
    Capture(cameras=ring().cameras, shots=ring(12).shots).write_dataset(root / "more")
    for photo in (root / "more" / "images").iterdir():
        photo.replace(root / "images" / photo.name)
    assert len(load_scene(root).cameras) == 12


def test_too_small_a_share_of_the_photos_is_refused_with_a_reason(tmp_path):
    root = ring(30).write_dataset(tmp_path)
    photos = sorted((root / "images").iterdir())
    for photo in photos[:24]:
        photo.unlink()
    assert load_scene(root).missing == 24  # 20 % is enough
    photos[24].write_bytes(b"")
    with pytest.raises(UserError, match=r"25 of 30 registered photos cannot be used \('00.png' is not there\)"):
        load_scene(root)


def test_photos_that_nobody_registered_do_no_harm(tmp_path):
    root = ring(9).write_dataset(tmp_path)
    touch(root / "images" / "Thumbs.db")
    Image.new("RGB", (7, 7)).save(root / "images" / "extra.png")
    (root / "sparse" / "0" / "project.ini").write_text("x")
    assert len(load_scene(root).cameras) == 9
