# SPDX-License-Identifier: Apache-2.0
"""Our PLYs are what other people's readers expect, and theirs are read whatever their layout."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement

from scene.ply import (
    is_splat,
    read_gaussians,
    read_points,
    splat_properties,
    write_gaussians,
    write_points,
)
from scene.splats import FLAT_SCALE, FULL_OPACITY
from utils.errors import UserError

ARRAYS = ("means", "sh_dc", "sh_rest", "logit_opacities", "log_scales", "quats")
TAGS = {"mult": 0.5, "sh_degree": 3, "background": (1, 1, 1)}


def gaussians(count: int = 7, degree: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {
        "means": (count, 3),
        "sh_dc": (count, 1, 3),
        "sh_rest": (count, (degree + 1) ** 2 - 1, 3),
        "logit_opacities": (count, 1),
        "log_scales": (count, 3),
        "quats": (count, 4),
    }
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["quats"] /= np.linalg.norm(arrays["quats"], axis=1, keepdims=True)
    return arrays


@pytest.fixture
def file(tmp_path):
    write_gaussians(tmp_path / "point_cloud.ply", gaussians(), tags=TAGS)
    return tmp_path / "point_cloud.ply"


def refused(path, *words: str, read=read_gaussians) -> None:
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


def ply(header: str, body: bytes = b"") -> bytes:
    return f"ply\nformat binary_little_endian 1.0\n{header}end_header\n".encode() + body


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 100])
def test_what_is_written_is_read_bit_for_bit(tmp_path, count, degree):
    arrays = gaussians(count, degree)
    write_gaussians(tmp_path / "a.ply", arrays, tags=TAGS)
    splats = read_gaussians(tmp_path / "a.ply")
    for name in set(ARRAYS) - {"quats"}:
        np.testing.assert_array_equal(getattr(splats, name), arrays[name], err_msg=name)
        assert getattr(splats, name).dtype == np.float32
    np.testing.assert_allclose(splats.quats, arrays["quats"], atol=1e-7)
    assert splats.max_sh_degree == degree
    assert splats.kept.all()


def test_writing_twice_gives_the_same_bytes(tmp_path, file):
    splats = read_gaussians(file)
    write_gaussians(tmp_path / "again.ply", splats.parameters(), tags=splats.tags)
    first, again = read_gaussians(file), read_gaussians(tmp_path / "again.ply")
    np.testing.assert_allclose(first.quats, again.quats, atol=1e-7)
    write_gaussians(tmp_path / "third.ply", gaussians(), tags=TAGS)
    assert (tmp_path / "third.ply").read_bytes() == file.read_bytes()


def test_the_header_obeys_sibr(file):
    """SIBR reads the count from line 3 and then strides over rows of exactly 62 floats."""
    data = file.read_bytes()
    lines = data[: data.index(b"end_header\n")].decode("ascii").split("\n")
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 7"]
    properties = [line for line in lines if line.startswith("property")]
    assert properties == [f"property float {name}" for name in splat_properties(45)]
    assert len(properties) == 62
    assert len(data) - data.index(b"end_header\n") - len(b"end_header\n") == 7 * 248


def test_the_whole_header_is_pinned(tmp_path):
    write_gaussians(tmp_path / "a.ply", gaussians(2, 0), tags={"mult": 0.5, "sh_degree": 0, "background": (0, 0, 0)})
    data = (tmp_path / "a.ply").read_bytes()
    names = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    expected = "ply\nformat binary_little_endian 1.0\nelement vertex 2\ncomment SplatRenderMode: default\n"
    expected += "comment mult: 0.5\ncomment sh_degree: 0\ncomment background: 0 0 0\n"
    expected += "".join(f"property float {name}\n" for name in names.split()) + "end_header\n"
    assert data.startswith(expected.encode())
    assert len(data) == len(expected) + 2 * 17 * 4


def test_plyfile_reads_the_same_numbers(file):
    vertex = PlyData.read(file)["vertex"]
    arrays = gaussians()
    assert [p.name for p in vertex.properties] == splat_properties(45)
    assert {p.val_dtype for p in vertex.properties} == {"f4"}
    assert "SplatRenderMode: default" in vertex.comments
    for i, axis in enumerate("xyz"):
        np.testing.assert_array_equal(vertex[axis], arrays["means"][:, i])
        np.testing.assert_array_equal(vertex[f"n{axis}"], 0)
    # Channel by channel: 15 red, 15 green, 15 blue.
    for k in range(15):
        for channel in range(3):
            np.testing.assert_array_equal(vertex[f"f_rest_{15 * channel + k}"], arrays["sh_rest"][:, k, channel])
    np.testing.assert_array_equal(vertex["opacity"], arrays["logit_opacities"][:, 0])
    np.testing.assert_array_equal(vertex["scale_2"], arrays["log_scales"][:, 2])


def test_gsply_reads_the_same_numbers(file):
    gsply = pytest.importorskip("gsply", reason="gsply is not installed")
    theirs, ours = gsply.plyread(str(file)), read_gaussians(file)
    np.testing.assert_array_equal(theirs.means, ours.means)
    np.testing.assert_array_equal(theirs.scales, ours.log_scales)
    np.testing.assert_array_equal(np.ravel(theirs.opacities), ours.logit_opacities[:, 0])
    np.testing.assert_array_equal(theirs.quats, ours.quats)
    np.testing.assert_array_equal(theirs.sh0, ours.sh_dc[:, 0])
    np.testing.assert_array_equal(theirs.shN.reshape(7, 15, 3), ours.sh_rest)


def rewritten(file, path, *, drop=(), extra=(), order=None, text=False, byte_order="<", kind="f4") -> None:
    """The same splats as another tool might write them, through plyfile."""
    vertex = PlyData.read(file)["vertex"].data
    names = [name for name in (order or vertex.dtype.names) if name not in drop]
    table = np.zeros(len(vertex), [(name, kind) for name in names] + list(extra))
    for name in names:
        table[name] = vertex[name]
    PlyData([PlyElement.describe(table, "vertex")], text=text, byte_order=byte_order).write(path)


@pytest.mark.parametrize(
    "layout",
    [
        {"drop": ("nx", "ny", "nz")},
        {"order": sorted(splat_properties(45))},
        {"order": splat_properties(45)[::-1]},
        {"extra": [("label", "u1"), ("confidence", "f8")]},
        {"byte_order": ">"},
        {"text": True, "byte_order": "="},
        {"kind": "f8"},
    ],
    ids=["no normals", "sorted", "reversed", "extra", "big endian", "text", "double"],
)
def test_the_layout_of_other_tools_does_not_matter(tmp_path, file, layout):
    rewritten(file, tmp_path / "other.ply", **layout)
    ours, other = read_gaussians(file), read_gaussians(tmp_path / "other.ply")
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(other, name), getattr(ours, name), rtol=1e-6, err_msg=name)


def test_comments_before_the_element_and_windows_line_ends_are_read(tmp_path, file):
    head, body = file.read_bytes().split(b"end_header\n", 1)
    lines = head.decode().splitlines()
    lines[1:1] = ["comment Generated by a studio", "obj_info something"]
    (tmp_path / "a.ply").write_bytes("\r\n".join([*lines, "end_header\r\n"]).encode() + body)
    np.testing.assert_array_equal(read_gaussians(tmp_path / "a.ply").means, read_gaussians(file).means)


def test_elements_before_and_after_the_vertices_are_passed_over(tmp_path, file):
    vertex = PlyData.read(file)["vertex"].data
    other = np.zeros(3, [("a", "u1"), ("b", "f8")])
    elements = [PlyElement.describe(table, name) for table, name in ((other, "x"), (vertex, "vertex"), (other, "y"))]
    for text in (False, True):
        PlyData(elements, text=text).write(tmp_path / "a.ply")
        np.testing.assert_allclose(read_gaussians(tmp_path / "a.ply").means, read_gaussians(file).means, rtol=1e-6)


def test_tags_travel_with_the_file(file):
    assert read_gaussians(file).tags == {"mult": 0.5, "sh_degree": 3, "background": (1.0, 1.0, 1.0)}


def test_the_degree_to_render_with_is_the_tag_within_what_is_stored(tmp_path):
    write_gaussians(tmp_path / "a.ply", gaussians(degree=2), tags={"sh_degree": 1})
    assert read_gaussians(tmp_path / "a.ply").sh_degree == 1
    write_gaussians(tmp_path / "a.ply", gaussians(degree=2), tags={"sh_degree": 3})
    assert read_gaussians(tmp_path / "a.ply").sh_degree == 2
    write_gaussians(tmp_path / "a.ply", gaussians(degree=2))
    assert read_gaussians(tmp_path / "a.ply").sh_degree == 2


@pytest.mark.parametrize("said", ["mult: -1", "mult: nan", "mult: a", "mult: 1 2", "sh_degree: 9", "background: 1 2 3"])
def test_tags_that_make_no_sense_are_not_believed(tmp_path, file, said):
    data = file.read_bytes().replace(
        b"comment mult: 0.5\ncomment sh_degree: 3\ncomment background: 1 1 1", b"comment %b" % said.encode()
    )
    (tmp_path / "a.ply").write_bytes(data)
    assert read_gaussians(tmp_path / "a.ply").tags == {}


def test_quaternions_are_written_with_length_one_and_none_is_lost(tmp_path):
    arrays = gaussians(3)
    arrays["quats"] = np.array([[2, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], np.float32)
    write_gaussians(tmp_path / "a.ply", arrays)
    quats = read_gaussians(tmp_path / "a.ply").quats
    np.testing.assert_array_equal(quats, [[1, 0, 0, 0], [1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]])


def test_infinite_opacities_are_opaque_and_rows_beyond_reason_are_left_out(tmp_path):
    arrays = gaussians(5)
    arrays["logit_opacities"][:2, 0] = [np.inf, -np.inf]
    arrays["log_scales"][2, 1] = -np.inf
    arrays["means"][3, 0] = np.nan
    arrays["log_scales"][4, 0] = 99
    write_gaussians(tmp_path / "a.ply", arrays)
    splats = read_gaussians(tmp_path / "a.ply")
    np.testing.assert_array_equal(splats.kept, [True, True, True, False, False])
    np.testing.assert_array_equal(splats.logit_opacities[:2, 0], [FULL_OPACITY, -FULL_OPACITY])
    assert splats.log_scales[2, 1] == FLAT_SCALE
    np.testing.assert_array_equal(splats.means, arrays["means"][splats.kept])


def test_a_file_of_nothing_but_nan_is_refused(tmp_path):
    arrays = gaussians(3)
    arrays["means"][:] = np.nan
    write_gaussians(tmp_path / "a.ply", arrays)
    refused(tmp_path / "a.ply", "every row")


def test_a_file_cut_anywhere_is_refused(tmp_path, file):
    data = file.read_bytes()
    for length in [*range(0, 2000, 37), len(data) - 248, len(data) - 1]:
        (tmp_path / "a.ply").write_bytes(data[:length])
        refused(tmp_path / "a.ply")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"ply",
        b"not a ply at all\nend_header\n",
        b"ply\n" + b"x" * 100_000 + b"\nend_header\n",
        ply("element vertex 99999999999999999999\nproperty float x\n"),
        ply("element vertex 999999999999999\nproperty float x\n"),
        ply("element vertex -1\nproperty float x\n"),
        ply("element vertex many\nproperty float x\n"),
        ply("element vertex 1\n"),
        ply("element face 1\nproperty float x\n", b"\0" * 4),
        ply("property float x\n"),
        ply("element vertex 1\nproperty quaternion x\n", b"\0" * 4),
        ply("element vertex 1\nproperty float x\nproperty float x\n", b"\0" * 8),
        ply("element vertex 1\nproperty list uchar int x\n", b"\0" * 8),
        ply("element face 1\nproperty list uchar int v\nelement vertex 1\nproperty float x\n", b"\0" * 8),
        ply("element a 999999999999999999\nproperty float x\nelement vertex 1\nproperty float x\n", b"\0" * 8),
        b"ply\nformat martian 1.0\nelement vertex 0\nproperty float x\nend_header\n",
        b"ply\nformat\nelement vertex 0\nproperty float x\nend_header\n",
        b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nend_header\n1\ntwo\n",
        b"ply\nformat ascii 1.0\nelement vertex 999999999\nproperty float x\nend_header\n1\n2\n",
        b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nend_header\n1         \n",
    ],
)
@pytest.mark.parametrize("read", [read_gaussians, read_points])
def test_garbage_is_refused_in_one_line(tmp_path, content, read):
    (tmp_path / "a.ply").write_bytes(content)
    refused(tmp_path / "a.ply", read=read)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    refused(tmp_path / "nowhere.ply", "cannot be read")
    refused(tmp_path, "cannot be read")


@pytest.mark.parametrize("name", ["opacity", "f_rest_7", "rot_0", "scale_2"])
def test_what_a_file_lacks_is_named(tmp_path, file, name):
    rewritten(file, tmp_path / "a.ply", drop=(name,))
    lacking = "f_rest" if name.startswith("f_rest") else name
    refused(tmp_path / "a.ply", lacking)


def test_a_number_of_coefficients_that_is_no_degree_is_refused(tmp_path, file):
    rewritten(file, tmp_path / "a.ply", drop=[f"f_rest_{i}" for i in range(30, 45)])
    refused(tmp_path / "a.ply", "30 f_rest")


def test_a_compressed_ply_that_lacks_its_columns_is_refused(tmp_path):
    header = "element chunk 1\nproperty float min_x\nelement vertex 1\nproperty uint packed_position\n"
    (tmp_path / "a.ply").write_bytes(ply(header, b"\0" * 8))
    refused(tmp_path / "a.ply", "damaged compressed PLY")


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_flipped_byte_gives_more_than_one_line(tmp_path, file, data):
    path = tmp_path / "a.ply"
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        splats = read_gaussians(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(np.isfinite(array).all() for array in splats.parameters().values())


def test_input_ply_has_the_nine_columns_that_inria_demands(tmp_path):
    xyz, rgb = np.array([[1.5, -2, 3], [0, 0, 1e-3]]), np.array([[255, 0, 7], [1, 2, 3]], np.uint8)
    write_points(tmp_path / "input.ply", xyz, rgb)
    vertex = PlyData.read(tmp_path / "input.ply")["vertex"]
    assert [(p.name, p.val_dtype) for p in vertex.properties] == [
        *((name, "f4") for name in ("x", "y", "z", "nx", "ny", "nz")),
        *((name, "u1") for name in ("red", "green", "blue")),
    ]
    np.testing.assert_array_equal(np.c_[vertex["x"], vertex["y"], vertex["z"]], xyz.astype(np.float32))
    np.testing.assert_array_equal(np.c_[vertex["red"], vertex["green"], vertex["blue"]], rgb)


def test_points_are_read_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    xyz, rgb = rng.standard_normal((50, 3)).astype(np.float32), rng.integers(0, 256, (50, 3), dtype=np.uint8)
    write_points(tmp_path / "a.ply", xyz, rgb)
    points = read_points(tmp_path / "a.ply")
    np.testing.assert_array_equal(points.xyz, xyz)
    np.testing.assert_array_equal(points.rgb, rgb)


@pytest.mark.parametrize(
    ("kind", "value", "level"),
    [("u1", 51, 51), ("u1", 1, 1), ("u2", 0x3333, 51), ("f4", 0.2, 51), ("f8", 51.0, 51)],
)
def test_colours_of_points_come_in_bytes_words_and_floats(tmp_path, kind, value, level):
    full = {"u1": 255, "u2": 65535, "f4": 1.0, "f8": 255.0}[kind]
    columns = [(axis, "f8") for axis in "xyz"] + [(name, kind) for name in ("red", "green", "blue")]
    table = np.zeros(2, columns)
    table["red"], table["green"], table["blue"] = value, (value, full), 0
    PlyData([PlyElement.describe(table, "vertex")]).write(tmp_path / "a.ply")
    np.testing.assert_array_equal(read_points(tmp_path / "a.ply").rgb, [[level, level, 0], [level, 255, 0]])


def test_points_without_colour_are_grey_and_splats_give_theirs(tmp_path):
    (tmp_path / "a.ply").write_bytes(
        ply("element vertex 1\nproperty float x\nproperty float y\nproperty float z\n", struct.pack("<3f", 1, 2, 3))
    )
    np.testing.assert_array_equal(read_points(tmp_path / "a.ply").rgb, [[128, 128, 128]])
    arrays = gaussians(1)
    arrays["sh_dc"][:] = (0.2 - 0.5) / 0.28209479177387814
    write_gaussians(tmp_path / "b.ply", arrays)
    np.testing.assert_array_equal(read_points(tmp_path / "b.ply").rgb, [[51, 51, 51]])


def test_splats_and_points_are_told_apart(tmp_path, file):
    write_points(tmp_path / "input.ply", np.zeros((1, 3)), np.zeros((1, 3), np.uint8))
    assert is_splat(file)
    assert not is_splat(tmp_path / "input.ply")


def test_points_with_coordinates_far_away_keep_double_precision(tmp_path):
    table = np.zeros(1, [(axis, "f8") for axis in "xyz"])
    table["x"] = 4_500_000.123456
    PlyData([PlyElement.describe(table, "vertex")]).write(tmp_path / "a.ply")
    assert read_points(tmp_path / "a.ply").xyz[0, 0] == 4_500_000.123456
