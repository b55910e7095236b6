# SPDX-License-Identifier: Apache-2.0
"""The model folder is what the INRIA family's tools look for, and a stranger's is data, never code."""

import argparse
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene.cameras import Camera, SourceSize, look_at
from scene.model_folder import (
    cfg_args,
    holds_out_views,
    load_model,
    read_cameras,
    read_cfg_args,
    save_gaussians,
    saved_iterations,
    write_run_files,
)
from scene.points import PointCloud
from utils.errors import UserError

SETTINGS = {"mult": 0.5, "sh_degree": 3, "white_background": True}


def arrays(count: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(count)
    shapes = {"means": (3,), "sh_dc": (1, 3), "sh_rest": (15, 3), "logit_opacities": (1,), "log_scales": (3,)}
    made = {name: rng.standard_normal((count, *shape)).astype(np.float32) for name, shape in shapes.items()}
    return made | {"quats": np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1))}


def save(folder, iteration: int = 30, count: int = 6):
    labels, births = np.arange(count) % 3, 100 * np.arange(count)
    return save_gaussians(folder, iteration, arrays(count), labels=labels, births=births, **SETTINGS)


def camera(i: int) -> Camera:
    """Trained at half the size of its photo."""
    position = np.array([np.cos(i), np.sin(i), 1.0]) * 3
    return Camera(
        name=f"sub/{i}.v1.jpg",
        width=40,
        height=30,
        fx=35.0,
        fy=36.0,
        cx=20.0,
        cy=15.0,
        camera_from_world=look_at(position, np.zeros(3), np.array([0.0, 0, 1])),
        source=SourceSize(80, 60, 70.0, 72.0),
    )


@pytest.fixture
def folder(tmp_path):
    write_run_files(
        tmp_path,
        source=tmp_path / "capture",
        images="images",
        resolution=-1,
        white_background=False,
        hold_out=True,
        sh_degree=3,
        test_cameras=[camera(0), camera(8)],
        train_cameras=[camera(1), camera(2)],
        start=PointCloud(np.zeros((2, 3)), np.zeros((2, 3), np.uint8)),
    )
    return tmp_path


def refused(read, path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_model_comes_back_with_its_labels_row_by_row(tmp_path):
    assert save(tmp_path) == tmp_path / "point_cloud" / "iteration_30" / "point_cloud.ply"
    model = load_model(tmp_path)
    assert model.iteration == 30
    np.testing.assert_array_equal(model.splats.means, arrays()["means"])
    np.testing.assert_array_equal(model.labels, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(model.births, [0, 100, 200, 300, 400, 500])
    assert (model.labels.dtype, model.births.dtype) == (np.uint8, np.int32)
    assert model.splats.tags == {"mult": 0.5, "sh_degree": 3, "background": (1.0, 1.0, 1.0)}


def test_saving_twice_gives_the_same_bytes(tmp_path):
    first, second = save(tmp_path / "a"), save(tmp_path / "b")
    for one in first.parent.iterdir():
        assert one.read_bytes() == (second.parent / one.name).read_bytes()
    assert sorted(path.name for path in first.parent.iterdir()) == ["point_cloud.extra.npz", "point_cloud.ply"]


def test_the_last_iteration_is_the_largest_number_not_the_last_name(tmp_path):
    for iteration in (7000, 30000, 900):
        save(tmp_path, iteration)
    (tmp_path / "point_cloud" / "iteration_99999").mkdir()
    (tmp_path / "point_cloud" / "iteration_best").mkdir()
    assert saved_iterations(tmp_path) == [900, 7000, 30000]
    assert load_model(tmp_path).iteration == 30000
    assert load_model(tmp_path, 900).iteration == 900


def test_an_iteration_that_is_not_there_names_those_that_are(tmp_path):
    refused(load_model, tmp_path, "train a model first")
    save(tmp_path, 900)
    refused(lambda path: load_model(path, 901), tmp_path, "--iteration 901", "900")


def test_a_strangers_model_has_no_labels(tmp_path):
    (save(tmp_path).parent / "point_cloud.extra.npz").unlink()
    model = load_model(tmp_path)
    assert model.labels is None
    assert model.births is None
    assert model.settings == {}


def test_labels_stay_with_their_rows_when_others_are_left_out(tmp_path):
    broken = arrays()
    broken["means"][1] = np.nan
    labels = np.arange(6)
    save_gaussians(tmp_path, 1, broken, labels=labels, births=labels, **SETTINGS)
    np.testing.assert_array_equal(load_model(tmp_path).labels, [0, 2, 3, 4, 5])


def test_labels_of_another_model_are_refused(tmp_path):
    extra = save(tmp_path / "other", count=5).parent / "point_cloud.extra.npz"
    path = save(tmp_path).parent / "point_cloud.extra.npz"
    whole = path.read_bytes()
    path.write_bytes(extra.read_bytes())
    refused(load_model, tmp_path, "another point_cloud.ply")
    path.write_bytes(whole[: len(whole) // 2])
    refused(load_model, tmp_path, "extra.npz", "damaged")
    np.savez(path, labels=np.array([object()] * 6), births=np.zeros(6), allow_pickle=True)
    refused(load_model, tmp_path, "extra.npz", "damaged")


def test_cfg_args_is_the_line_that_inria_evaluates(folder):
    text = (folder / "cfg_args").read_text()
    assert "\n" not in text
    expected = argparse.Namespace(
        sh_degree=3,
        source_path=str(folder / "capture"),
        model_path=str(folder),
        images="images",
        depths="",
        resolution=-1,
        white_background=False,
        train_test_exp=False,
        data_device="cpu",
        eval=True,
    )
    assert text == repr(expected)


def test_cfg_args_obeys_sibr(folder):
    """SIBR searches the first line for these, and cuts the path out between single quotes."""
    line = (folder / "cfg_args").read_text().split("\n")[0]
    assert "sh_degree=3" in line
    assert re.search(r"source_path='([^']*)'", line)[1] == str(folder / "capture")
    assert "white_background=False" in line


@pytest.mark.parametrize(
    "path", ["/a/it's here", '/a/"quoted"', "/a/'both\"", "/a/back\\slash'", "/a/line\nbreak", "/a/雪"]
)
def test_awkward_paths_stay_one_line_in_single_quotes_and_come_back(tmp_path, path):
    line = cfg_args({"source_path": path, "white_background": True})
    assert line.startswith("Namespace(source_path='/a/")
    assert "\n" not in line
    (tmp_path / "cfg_args").write_text(line, encoding="utf-8")
    assert read_cfg_args(tmp_path / "cfg_args") == {"source_path": path, "white_background": True}


literals = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=50)
@given(st.dictionaries(st.text("xyz_", min_size=1, max_size=6), literals, max_size=4))
def test_every_literal_comes_back(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "cfg_args"
    path.write_text(cfg_args(values), encoding="utf-8")
    assert read_cfg_args(path) == values


def test_a_strangers_cfg_args_is_never_evaluated(tmp_path):
    proof = tmp_path / "proof"
    (tmp_path / "cfg_args").write_text(
        f"Namespace(sh_degree=2, source_path=__import__('pathlib').Path({str(proof)!r}).touch(), "
        "data_device=device(type='cuda'), eval=True)"
    )
    assert read_cfg_args(tmp_path / "cfg_args") == {"sh_degree": 2, "eval": True}
    assert not proof.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Namespace",
        "Namespace(",
        "print('hello')",
        "[1, 2]",
        "a.Namespace(x=1)",
        "(" * 10_000,
        "x" * 2_000_000,
        "\0",
    ],
    ids=range(9),
)
def test_what_is_no_namespace_is_refused(tmp_path, text):
    (tmp_path / "cfg_args").write_text(text)
    refused(read_cfg_args, tmp_path / "cfg_args", "Namespace")


def test_cfg_args_that_is_not_there_is_refused(tmp_path):
    refused(read_cfg_args, tmp_path / "cfg_args", "cannot be read")


def test_whether_views_were_held_out_is_in_cfg_args(folder, tmp_path):
    assert holds_out_views(folder)
    (folder / "cfg_args").write_text("Namespace(eval=False)")
    assert not holds_out_views(folder)
    assert holds_out_views(tmp_path / "nowhere")


def test_cameras_json_lists_test_views_first_with_the_eight_keys(folder):
    text = (folder / "cameras.json").read_text()
    assert "\n" not in text
    entries = json.loads(text)
    assert [entry["img_name"] for entry in entries] == [f"sub/{i}.v1.jpg" for i in (0, 8, 1, 2)]
    assert [entry["id"] for entry in entries] == [0, 1, 2, 3]
    for entry in entries:
        assert list(entry) == ["id", "img_name", "width", "height", "position", "rotation", "fy", "fx"]
        assert (entry["width"], entry["height"], entry["fx"], entry["fy"]) == (80, 60, 70.0, 72.0)


def test_cameras_json_says_where_a_camera_stands_and_how_it_is_turned(folder):
    entry, view = json.loads((folder / "cameras.json").read_text())[1], camera(8)
    np.testing.assert_allclose(entry["position"], view.position)
    world_from_camera = np.array(entry["rotation"])
    np.testing.assert_allclose(world_from_camera @ [0, 0, 1], view.viewing_direction)
    np.testing.assert_allclose(world_from_camera @ [0, -1, 0], view.up)


def test_cameras_json_comes_back_as_cameras(folder):
    views = read_cameras(folder / "cameras.json")
    assert [view.name for view in views] == [f"sub/{i}.v1.jpg" for i in (0, 8, 1, 2)]
    for view, i in zip(views, (0, 8, 1, 2), strict=True):
        np.testing.assert_allclose(view.camera_from_world, camera(i).camera_from_world, atol=1e-12)
        assert (view.width, view.height, view.fx, view.fy, view.cx, view.cy) == (80, 60, 70.0, 72.0, 40.0, 30.0)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        "[1]",
        "[" * 100_000,
        '[{"id": 0}]',
        '[{"width": 8, "height": 8, "fx": 1, "fy": 1, "position": [0, 0], "rotation": [[1,0,0],[0,1,0],[0,0,1]]}]',
        '[{"width": 8, "height": 8, "fx": 1, "fy": 1, "position": [0, 0, 0], "rotation": [[2,0,0],[0,1,0],[0,0,1]]}]',
        '[{"width": 8, "height": 8, "fx": 1, "fy": 1, "position": [0, 0, NaN], "rotation": [[1,0,0],[0,1,0],[0,0,1]]}]',
        '[{"width": 1e999, "height": 8, "fx": 1, "fy": 1, "position": [0,0,0], "rotation": [[1,0,0],[0,1,0],[0,0,1]]}]',
        '[{"width": 1e9, "height": 8, "fx": 1, "fy": 1, "position": [0,0,0], "rotation": [[1,0,0],[0,1,0],[0,0,1]]}]',
        '[{"width": 8, "height": 8, "fx": 0, "fy": 1, "position": [0,0,0], "rotation": [[1,0,0],[0,1,0],[0,0,1]]}]',
        '[{"width": 8, "height": 8, "fx": 1, "fy": 1, "position": "here", "rotation": null}]',
    ],
    ids=range(13),
)
def test_a_cameras_file_that_makes_no_sense_is_refused(tmp_path, content):
    (tmp_path / "cameras.json").write_text(content)
    refused(read_cameras, tmp_path / "cameras.json", "cameras.json")


def test_a_cameras_file_that_is_not_there_is_refused(tmp_path):
    refused(read_cameras, tmp_path / "cameras.json", "cannot be read")


def test_exposure_is_the_identity_for_every_photo(folder):
    exposure = json.loads((folder / "exposure.json").read_text())
    assert len(exposure) == 4
    np.testing.assert_array_equal(exposure["sub/8.v1.jpg"], np.eye(3, 4))
