# SPDX-License-Identifier: Apache-2.0
"""The demo scene is a dataset as COLMAP writes it, and its photos show what its poses say."""

import colorsys
import importlib.util
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DEMO = Path(__file__).resolve().parents[1] / "demo"
SIZE = (256, 192)
HUES = {"red": 0.0, "yellow": 0.13, "green": 0.37, "blue": 0.61}
HIDDEN = 0.4
"""Share of views in which a ball may be hidden behind the jug, the plinth, or another ball."""


@pytest.fixture(scope="module")
def demo_module():
    """A function that imports a script of demo/, which is no package."""

    def load(name: str):
        sys.path.insert(0, str(DEMO))
        try:
            spec = importlib.util.spec_from_file_location(f"demo_{name}", DEMO / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(DEMO))
        return module

    return load


@pytest.fixture(scope="module")
def script(demo_module):
    return demo_module("make_scene")


def read_poses() -> list[tuple[str, np.ndarray]]:
    """(name, camera_from_world) of images.bin, read here from the format's description alone."""
    data = (DEMO / "sparse" / "0" / "images.bin").read_bytes()
    (count,), at, views = struct.unpack_from("<Q", data), 8, []
    for _ in range(count):
        _, w, x, y, z, *translation, camera = struct.unpack_from("<i7di", data, at)
        at += struct.calcsize("<i7di")
        end = data.index(b"\0", at)
        name, (points,) = data[at:end].decode(), struct.unpack_from("<Q", data, end + 1)
        at = end + 9 + 24 * points
        matrix = np.eye(4)
        matrix[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
        matrix[:3, 3] = translation
        assert camera == 1 and points == 0
        views.append((name, matrix))
    assert at == len(data)
    return views


def read_camera() -> tuple[float, float, float, float]:
    data = (DEMO / "sparse" / "0" / "cameras.bin").read_bytes()
    count, _, model, width, height, *intrinsics = struct.unpack("<QiiQQ4d", data)
    assert (count, model, width, height) == (1, 1, *SIZE)
    return tuple(intrinsics)


def hit_rate(views: list[tuple[str, np.ndarray]], balls: dict) -> dict[str, float]:
    """For each ball, the share of views that have its hue where its centre projects."""
    fx, fy, cx, cy = read_camera()
    hits = {name: [] for name in balls}
    for file, view in views:
        photo = np.asarray(Image.open(DEMO / "images" / file).convert("RGB")) / 255.0
        for name, (centre, _, _) in balls.items():
            x, y, z = view[:3, :3] @ centre + view[:3, 3]
            u, v = fx * x / z + cx, fy * y / z + cy
            if z > 0 and 3 <= u < SIZE[0] - 3 and 3 <= v < SIZE[1] - 3:
                patch = photo[int(v) - 1 : int(v) + 2, int(u) - 1 : int(u) + 2].mean(axis=(0, 1))
                hue, saturation, _ = colorsys.rgb_to_hsv(*patch)
                apart = abs((hue - HUES[name] + 0.5) % 1 - 0.5)
                hits[name].append(apart < 0.06 and saturation > 0.4)
    return {name: float(np.mean(seen)) for name, seen in hits.items() if len(seen) >= 5}


def test_poses_and_photos_match(script):
    rates = hit_rate(read_poses(), script.BALLS)
    assert set(rates) == set(script.BALLS)
    for name, rate in rates.items():
        assert rate > 1 - HIDDEN, name


@pytest.mark.parametrize(
    "mistake",
    [
        lambda m: np.diag([-1.0, 1, 1, 1]) @ m,
        lambda m: np.diag([1.0, -1, -1, 1]) @ m,
        lambda m: np.linalg.inv(m),
    ],
    ids=["mirrored", "OpenGL axes", "world from camera"],
)
def test_wrong_conventions_would_be_noticed(script, mistake):
    rates = hit_rate([(name, mistake(pose)) for name, pose in read_poses()], script.BALLS)
    assert np.mean([rates.get(name, 0.0) for name in script.BALLS]) < 0.4


def test_poses_are_those_of_the_script(script):
    wanted = script.poses(np.random.default_rng(11))
    for (name, pose), expected in zip(read_poses(), wanted, strict=True):
        np.testing.assert_allclose(pose, expected, atol=1e-12, err_msg=name)


def test_written_models_read_back(script, tmp_path):
    views = script.poses(np.random.default_rng(3))
    script.write_model(tmp_path, [f"{k}.jpg" for k in range(len(views))], views)
    from scene.colmap import read_model

    model = read_model(tmp_path)
    assert len(model.images) == len(views)


def test_forty_views_of_one_size_under_three_megabytes_and_no_points():
    views = read_poses()
    assert len(views) == 40 and len({name for name, _ in views}) == 40
    for name, _ in views:
        with Image.open(DEMO / "images" / name) as photo:
            assert photo.size == SIZE and photo.mode == "RGB"
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) < 3_000_000
    assert not list((DEMO / "sparse" / "0").glob("points3D*"))


def test_cameras_ring_the_subject_at_two_heights():
    centres = np.array([-pose[:3, :3].T @ pose[:3, 3] for _, pose in read_poses()])
    low, high = centres[:20, 2], centres[20:, 2]
    assert high.min() - low.max() > 0.4
    angles = np.sort(np.arctan2(centres[:20, 1], centres[:20, 0]))
    assert np.diff(angles).max() < np.radians(25)
    forward = np.array([pose[2, :3] for _, pose in read_poses()])
    towards = np.array([0, 0, 0.72]) - centres
    assert ((forward * towards).sum(1) / np.linalg.norm(towards, axis=1)).min() > np.cos(np.radians(4))


def test_photos_look_like_a_place_not_a_test_pattern():
    """Properties of photos: full range, many colours, texture nearly everywhere, no dead or burnt areas."""
    for name, _ in read_poses()[::5]:
        photo = np.asarray(Image.open(DEMO / "images" / name).convert("RGB")).astype(float)
        grey = photo.mean(axis=2)
        low, high = np.percentile(grey, (2, 98))
        assert high - low > 110
        assert len(np.unique((photo // 16).reshape(-1, 3), axis=0)) > 200
        assert (photo.max(axis=2) < 4).mean() < 0.05 and (photo.min(axis=2) > 251).mean() < 0.1
        blocks = grey.reshape(24, 8, 32, 8).std(axis=(1, 3))
        assert np.median(blocks) > 4 and (blocks > 1.5).mean() > 0.85


def test_textures_repeat_without_a_seam(demo_module):
    """A repeating texture's last and first rows differ no more than any two neighbours."""
    textures = demo_module("textures")
    rng = np.random.default_rng(0)
    picture = textures.cobbles(rng, 6, size=(192, 192)).astype(float)
    for axis in (0, 1):
        rows = np.moveaxis(picture, axis, 0)
        seam = np.abs(rows[0] - rows[-1]).mean()
        usual = np.abs(np.diff(rows, axis=0)).mean(axis=(1, 2))
        assert seam <= usual.max()


def test_textures_come_out_the_same_each_time(demo_module):
    textures = demo_module("textures")
    once, again = (textures.glaze(np.random.default_rng(5), size=(64, 128)) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_meshes_have_triangles_with_area_and_valid_indices(demo_module):
    meshes = demo_module("meshes")
    rng = np.random.default_rng(0)
    for mesh in (
        meshes.lathe([(0.0, 0.0), (0.2, 0.0), (0.2, 0.4)], smooth=1),
        meshes.box((0, 0, 0), (1, 2, 3)),
        meshes.bush((0, 0, 1), (1, 1, 1), 20, 0.2, rng),
        meshes.joined(meshes.panel((0, 0, 0), (1, 0, 0), (0, 1, 0)), meshes.box((0, 0, 0), (1, 1, 1))),
    ):
        vertices, coordinates, triangles = mesh
        assert len(vertices) == len(coordinates) and triangles.min() == 0 and triangles.max() == len(vertices) - 1
        a, b, c = (vertices[triangles[:, k]] for k in range(3))
        assert (np.linalg.norm(np.cross(b - a, c - a), axis=1) > 0).all()
