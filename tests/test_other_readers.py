# SPDX-License-Identifier: Apache-2.0
"""The model folder as other programs read it: by fixed strides, by property names, by gsplat and splat-transform."""

import json

import numpy as np
import pytest
import torch
from plyfile import PlyData
from splat_tools import gaussians, splat_transform

from scene.export import deviations
from scene.model_folder import load_model, save_gaussians
from scene.ply import read_gaussians, write_gaussians, write_points

COUNT = 300


@pytest.fixture
def ply(tmp_path):
    """The PLY of a saved model, tags and all."""
    labels, births = np.zeros(COUNT, np.uint8), np.zeros(COUNT, np.int32)
    look = {"sh_degree": 3, "mult": 0.5, "white_background": False}
    return save_gaussians(tmp_path / "m", 7, gaussians(COUNT).parameters(), labels=labels, births=births, **look)


def test_a_reader_that_strides_over_fixed_rows_finds_every_number(ply):
    """SIBR: the count is on line 3; after the header come rows of 62 floats, read as one block."""
    splats = gaussians(COUNT)
    with ply.open("rb") as file:
        lines = [file.readline() for _ in range(3)]
        count = int(lines[2].split()[2])
        while file.readline() != b"end_header\n":
            pass
        rows = np.frombuffer(file.read(), "<f4").reshape(count, 62)
    quats = splats.quats / np.linalg.norm(splats.quats.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_array_equal(rows[:, :3], splats.means)
    np.testing.assert_array_equal(rows[:, 3:6], 0)
    np.testing.assert_array_equal(rows[:, 6:9], splats.sh_dc[:, 0])
    np.testing.assert_array_equal(rows[:, 9:54].reshape(count, 3, 15), splats.sh_rest.transpose(0, 2, 1))
    np.testing.assert_array_equal(rows[:, 54:55], splats.logit_opacities)
    np.testing.assert_array_equal(rows[:, 55:58], splats.log_scales)
    np.testing.assert_allclose(rows[:, 58:], quats, atol=1e-7)


def test_a_reader_by_names_that_asserts_the_number_of_coefficients_is_content(ply):
    """INRIA and those who follow it: names sorted by their numbers, 3 (degree + 1)^2 - 3 of them."""
    vertex = PlyData.read(ply).elements[0]
    names = sorted(
        (p.name for p in vertex.properties if p.name.startswith("f_rest_")), key=lambda name: int(name.split("_")[-1])
    )
    assert len(names) == 3 * (3 + 1) ** 2 - 3
    rest = np.stack([vertex[name] for name in names], axis=1).reshape(COUNT, 3, 15)
    np.testing.assert_array_equal(rest.transpose(0, 2, 1), gaussians(COUNT).sh_rest)


def test_the_bytes_of_input_ply_are_pinned(tmp_path):
    write_points(tmp_path / "input.ply", np.array([[1.0, -2.0, 0.5]]), np.array([[1, 2, 255]], np.uint8))
    names = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    colors = "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex 1\n{names}{colors}end_header\n"
    row = np.array([1, -2, 0.5, 0, 0, 0], "<f4").tobytes() + bytes([1, 2, 255])
    assert (tmp_path / "input.ply").read_bytes() == header.encode() + row


def test_what_other_tools_leave_beside_the_ply_is_of_no_concern(ply, tmp_path):
    (ply.parent / "point_cloud.splat").write_bytes(b"theirs")
    assert len(load_model(tmp_path / "m").splats) == COUNT


def test_a_ply_as_gsplat_describes_it_is_read(tmp_path):
    """59 columns: no normals; the rest as ours."""
    splats = gaussians(20)
    write_gaussians(tmp_path / "a.ply", splats.parameters())
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"].data
    names = [name for name in vertex.dtype.names if name not in ("nx", "ny", "nz")]
    assert len(names) == 59
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 20\n"
    header += "".join(f"property float {name}\n" for name in names) + "end_header\n"
    table = np.stack([vertex[name] for name in names], axis=1).astype("<f4")
    (tmp_path / "b.ply").write_bytes(header.encode() + table.tobytes())
    assert max(deviations(splats, read_gaussians(tmp_path / "b.ply")).values()) < 1e-4


@pytest.mark.filterwarnings("ignore")
def test_gsplats_exporter_writes_the_same_columns_bit_for_bit(tmp_path, ply):
    gsplat = pytest.importorskip("gsplat", reason="gsplat is not installed here")
    mine = read_gaussians(ply)
    tensors = {name: torch.from_numpy(array) for name, array in mine.parameters().items()}
    data = gsplat.export_splats(
        means=tensors["means"],
        scales=tensors["log_scales"],
        quats=tensors["quats"],
        opacities=tensors["logit_opacities"][:, 0],
        sh0=tensors["sh_dc"],
        shN=tensors["sh_rest"],
        format="ply",
    )
    (tmp_path / "theirs.ply").write_bytes(data)
    theirs, ours = PlyData.read(tmp_path / "theirs.ply")["vertex"], PlyData.read(ply)["vertex"]
    for column in theirs.properties:
        np.testing.assert_array_equal(theirs[column.name], ours[column.name])
    back = read_gaussians(tmp_path / "theirs.ply")
    for name, array in mine.parameters().items():
        np.testing.assert_array_equal(back.parameters()[name], array)


def test_splat_transform_copies_our_ply_without_a_change(tmp_path, ply):
    splat_transform("-q", ply, tmp_path / "b.ply")
    assert max(deviations(read_gaussians(ply), read_gaussians(tmp_path / "b.ply")).values()) < 1e-4


def test_the_names_that_supersplat_imports_are_in_cameras_json(tmp_path):
    from test_model_folder import camera

    from scene.model_folder import write_run_files
    from scene.points import PointCloud

    start = PointCloud(np.zeros((2, 3)), np.zeros((2, 3), np.uint8))
    shared = {"source": tmp_path, "images": "images", "resolution": -1, "white_background": False, "hold_out": True}
    write_run_files(tmp_path, sh_degree=3, test_cameras=[camera(0)], train_cameras=[camera(1)], start=start, **shared)
    kinds = {"id": int, "img_name": str, "width": int, "height": int, "position": list, "rotation": list}
    for entry in json.loads((tmp_path / "cameras.json").read_text()):
        assert {name: type(value) for name, value in entry.items()} == kinds | {"fy": float, "fx": float}
        assert np.array(entry["rotation"]).shape == (3, 3)
        assert np.linalg.det(entry["rotation"]) == pytest.approx(1)
