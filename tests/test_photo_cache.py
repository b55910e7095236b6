# SPDX-License-Identifier: Apache-2.0
"""The cache stays within its budget whatever is asked of it, and changes nothing of what is seen."""

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from scene.dataset import load_scene
from scene.photo_cache import AHEAD, PhotoCache
from scene.photo_store import prune
from scene.photos import Photo, Pixels
from scene.summary import describe
from tests.captures import ring
from utils.errors import UserError

SIZE = 10 * 8 * 3
"""Bytes of a photo below."""


class Source:
    """Photos of one level each, and how often each was decoded."""

    def __init__(self, cache: PhotoCache, count: int) -> None:
        self.decoded = [0] * count
        self.photos = [Photo(10, 8, self.reader(i), cache=cache) for i in range(count)]

    def reader(self, index: int):
        def read(width: int, height: int) -> Pixels:
            self.decoded[index] += 1
            return Pixels(np.full((height, width, 3), index, np.uint8), None)

        return read


@pytest.mark.parametrize("budget", [0, SIZE, 4.5 * SIZE, 20 * SIZE])
def test_the_budget_holds_and_every_photo_is_itself(budget):
    cache = PhotoCache(budget)
    source = Source(cache, 20)
    for index in np.random.default_rng(0).integers(0, 20, 200):
        assert source.photos[index].image().mul(255).unique().tolist() == [index]
        assert cache.bytes <= max(budget, SIZE)


def test_a_share_as_large_as_the_budget_is_decoded_once():
    source = Source(PhotoCache(10 * SIZE), 20)
    for epoch in range(6):
        for index in np.random.default_rng(epoch).permutation(20):
            source.photos[index].image()
    # Nine stay for good and one place changes hands; a cache that dropped the oldest would decode nearly all anew.
    assert sum(source.decoded) <= 20 + 5 * 11


def test_what_fits_is_decoded_once():
    source = Source(PhotoCache(20 * SIZE), 20)
    for _ in range(3):
        for photo in source.photos:
            photo.image()
    assert source.decoded == [1] * 20


def test_released_photos_are_decoded_again():
    cache = PhotoCache()
    source = Source(cache, 2)
    source.photos[0].image()
    source.photos[0].release()
    source.photos[1].release()
    assert cache.bytes == 0
    source.photos[0].image()
    assert source.decoded == [2, 0]


def test_expected_photos_are_decoded_by_workers_and_once():
    cache = PhotoCache(threads=2)
    seen: list[str] = []
    reached = threading.Event()

    def read(width: int, height: int) -> Pixels:
        seen.append(threading.current_thread().name)
        reached.set()
        return Pixels(np.zeros((height, width, 3), np.uint8), None)

    photo = Photo(10, 8, read, cache=cache)
    cache.expect([photo])
    assert reached.wait(60)
    photo.image()
    cache.expect([photo])
    photo.image()
    assert len(seen) == 1 and seen[0].startswith("photos")


def test_no_more_is_decoded_ahead_than_allowed_and_plans_may_change():
    cache = PhotoCache(0)
    source = Source(cache, 30)
    for start in range(0, 30, 3):
        cache.expect(source.photos[start:])
        assert len(cache._coming) <= AHEAD + 1
        assert source.photos[start].image().mul(255).unique().tolist() == [start]


def test_what_goes_wrong_in_a_worker_is_told_to_whoever_asks(tmp_path):
    root = ring(9).write_dataset(tmp_path)
    scene = load_scene(root)
    for photo in (root / "images").iterdir():
        photo.unlink()
    scene.expect(scene.cameras)
    for camera in scene.cameras:
        with pytest.raises(UserError, match=r"\d\d\.png: the photo is damaged"):
            camera.image()


def test_many_threads_may_ask(tmp_path):
    cache = PhotoCache(3 * SIZE, threads=3)
    source = Source(cache, 12)
    wrong: list[int] = []

    def look(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 12, 300):
            cache.expect(source.photos[index : index + 3])
            if source.photos[index].image()[0, 0, 0] != torch.tensor(index, dtype=torch.uint8).float().div(255):
                wrong.append(index)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.bytes <= 3 * SIZE


def test_it_is_said_when_not_all_photos_can_stay(tmp_path):
    root = ring(9).write_dataset(tmp_path)
    assert any("--cache_gb" in line for line in describe(load_scene(root, cache=PhotoCache(5000))))
    assert not any("--cache_gb" in line for line in describe(load_scene(root)))


@pytest.fixture
def distorted(tmp_path) -> Path:
    """A capture through a lens, with noise in its photos and one mask."""
    capture = ring(9)
    capture.cameras[1] = ("SIMPLE_RADIAL", 40, 30, (36.0, 20.0, 15.0, 0.3))
    root = capture.write_dataset(tmp_path / "capture")
    for i, photo in enumerate(sorted((root / "images").iterdir())):
        noise = np.random.default_rng(i).integers(0, 255, (30, 40, 3), np.uint8)
        Image.fromarray(noise).save(photo)
    (root / "masks").mkdir()
    Image.new("L", (40, 30), 0).save(root / "masks" / "05.png")
    return root


def looked_at(root: Path, **options) -> list[torch.Tensor]:
    cameras = load_scene(root, **options).cameras
    return [tensor for camera in cameras for tensor in (camera.image(), camera.mask())]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_stored_photo_has_the_same_bits(distorted, tmp_path):
    store = tmp_path / "store"
    fresh = looked_at(distorted)
    assert equal(fresh, looked_at(distorted, store=store))
    assert len(list(store.glob("*.png"))) == 9
    stamps = [path.stat().st_ino for path in sorted(store.iterdir())]
    assert equal(fresh, looked_at(distorted, store=store))
    assert stamps == [path.stat().st_ino for path in sorted(store.iterdir())]  # nothing was written again


def test_a_damaged_store_is_mended(distorted, tmp_path):
    store = tmp_path / "store"
    fresh = looked_at(distorted, store=store)
    for path in store.iterdir():
        path.write_bytes(path.read_bytes()[:50])
    assert equal(fresh, looked_at(distorted, store=store))


def test_a_store_that_cannot_be_written_costs_nothing_but_time(distorted, tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert equal(looked_at(distorted), looked_at(distorted, store=tmp_path / "file" / "store"))


def test_whatever_decides_about_the_pixels_makes_another_photo(distorted, tmp_path):
    store = tmp_path / "store"
    looked_at(distorted, store=store)
    for options in ({"resolution": 20}, {"invert_masks": True}, {"masks": Path("none")}):
        assert equal(looked_at(distorted, **options), looked_at(distorted, store=store, **options))
    photo = distorted / "images" / "03.png"
    Image.fromarray(cv2.imread(str(photo))[:, ::-1].copy()).save(photo)
    assert equal(looked_at(distorted), looked_at(distorted, store=store))


def test_the_dataset_stays_clean(distorted, tmp_path):
    before = sorted(distorted.rglob("*"))
    looked_at(distorted, store=tmp_path / "store")
    assert sorted(distorted.rglob("*")) == before


def test_the_store_is_pruned_from_the_oldest(distorted, tmp_path):
    store = tmp_path / "store"
    looked_at(distorted, store=store)
    files = sorted(store.iterdir())
    for age, path in enumerate(files):
        os.utime(path, (age, age))
    newest = sum(path.stat().st_size for path in files[-3:])
    prune(store, newest)
    assert sorted(store.iterdir()) == sorted(files[-3:])
    prune(tmp_path / "nowhere")
