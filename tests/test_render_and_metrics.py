# SPDX-License-Identifier: Apache-2.0
"""render.py and metrics.py, from a model folder to pictures and figures, by their command lines."""

import json
import math
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import metrics
import render
from arguments import Config, DataConfig, PipelineConfig, RunConfig, store
from scene.dataset import load_scene
from scene.model_folder import save_gaussians, write_run_files
from scene.points import PointCloud
from tests.random_vgg import random_weights
from utils.command import run_command

WIDTH, HEIGHT, FOCAL = 40, 30, 36.0
VIEWS = 9
ITERATION = 50


def write_dataset(folder: Path) -> Path:
    """Photos of noise round the origin, and their COLMAP model as text."""
    from scene.cameras import look_at

    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text(f"1 PINHOLE {WIDTH} {HEIGHT} {FOCAL} {FOCAL} {WIDTH / 2} {HEIGHT / 2}\n")
    lines = []
    for k in range(VIEWS):
        name = f"{k:02d}.png"
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        angle = 2 * math.pi * k / VIEWS
        pose = look_at([4 * math.cos(angle), -1.0, 4 * math.sin(angle)], [0, 0, 0], [0, -1, 0])
        quaternion = rotation_to_quaternion(pose[:3, :3])
        numbers = " ".join(repr(float(value)) for value in (*quaternion, *pose[:3, 3]))
        lines.append(f"{k + 1} {numbers} 1 {name}\n\n")
    (model / "images.txt").write_text("".join(lines))
    return folder


def rotation_to_quaternion(rotation: np.ndarray) -> np.ndarray:
    """(w, x, y, z) as the eigenvector of the symmetric matrix that any quaternion of the rotation maximises."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    k = [[a + e + i, h - f, c - g, d - b], [h - f, a - e - i, b + d, c + g]]
    k += [[c - g, b + d, e - a - i, f + h], [d - b, c + g, f + h, i - a - e]]
    return np.linalg.eigh(np.array(k))[1][:, -1]


def gaussians(count: int = 60, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "means": rng.uniform(-1, 1, (count, 3)).astype(np.float32),
        "log_scales": np.full((count, 3), -1.5, np.float32),
        "quats": np.tile(np.float32([1, 0, 0, 0]), (count, 1)),
        "logit_opacities": np.full((count, 1), 2.0, np.float32),
        "sh_dc": rng.normal(size=(count, 1, 3)).astype(np.float32),
        "sh_rest": np.zeros((count, 15, 3), np.float32),
    }


def write_model(folder: Path, source: Path, *, hold_out: bool = True, own: bool = True, **data) -> Path:
    """A model folder as training leaves it, or with own=False as another trainer does."""
    scene = load_scene(source, hold_out=hold_out)
    write_run_files(
        folder,
        source=source,
        images="images",
        resolution=-1,
        white_background=False,
        hold_out=hold_out,
        sh_degree=3,
        test_cameras=scene.test_cameras,
        train_cameras=scene.train_cameras,
        start=PointCloud(np.zeros((1, 3)), np.zeros((1, 3), np.uint8)),
    )
    arrays = gaussians()
    extra = {"labels": np.zeros(60, np.uint8), "births": np.zeros(60, np.int32), "sh_degree": 0, "mult": 0.5}
    save_gaussians(folder, ITERATION, arrays, white_background=False, **extra)
    if own:
        config = Config(
            data=DataConfig(source=source, eval=hold_out, **data),
            run=RunConfig(model_path=folder, iterations=ITERATION),
            pipeline=PipelineConfig(),
        )
        store.save(config, folder / "config.json")
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "scene")


@pytest.fixture
def model(dataset, tmp_path) -> Path:
    return write_model(tmp_path / "model", dataset)


def run_render(*args: object) -> int:
    return run_command(render.main, [*map(str, args), "--quiet"])


def run_metrics(*args: object) -> int:
    return run_command(metrics.main, list(map(str, args)))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_views_lie_where_the_field_looks_for_them(model, dataset):
    assert run_render("-m", model) == 0
    held_out, training = [0, 8], [1, 2, 3, 4, 5, 6, 7]
    for split, views in (("test", held_out), ("train", training)):
        folder = model / split / f"ours_{ITERATION}"
        assert sorted(path.name for path in folder.iterdir()) == ["gt", "renders"]
        for index, view in enumerate(views):
            name = f"{index:05d}.png"
            np.testing.assert_array_equal(pixels(folder / "gt" / name), pixels(dataset / "images" / f"{view:02d}.png"))
            assert pixels(folder / "renders" / name).shape == (HEIGHT, WIDTH, 3)
        assert len(list((folder / "renders").iterdir())) == len(views)


def test_a_picture_is_the_render_in_eight_bits(model, dataset):
    from gaussian_renderer import render as draw
    from scene.gaussian_model import GaussianModel

    assert run_render("-m", model, "--skip_train") == 0
    camera = load_scene(dataset).test_cameras[1]
    parameters = {name: torch.from_numpy(array) for name, array in gaussians().items()}
    with torch.no_grad():
        image = draw(camera, GaussianModel(parameters), torch.zeros(3), mult=0.5).image
    wanted = (255 * image.permute(1, 2, 0).double().numpy() + 0.5).clip(0, 255).astype(np.uint8)
    got = pixels(model / "test" / f"ours_{ITERATION}" / "renders" / "00001.png")
    assert np.abs(got.astype(int) - wanted.astype(int)).max() <= 1
    assert (got == wanted).mean() > 0.999
    assert not (model / "train").exists()


def test_the_background_and_the_box_travel_with_the_model(model, tmp_path):
    run_render("-m", model, "--skip_train")
    black = pixels(model / "test" / f"ours_{ITERATION}" / "renders" / "00000.png")
    run_render("-m", model, "--skip_train", "-w")
    white = pixels(model / "test" / f"ours_{ITERATION}" / "renders" / "00000.png")
    assert black[0, 0].tolist() == [0, 0, 0] and white[0, 0].tolist() == [255, 255, 255]
    ply = model / "point_cloud" / f"iteration_{ITERATION}" / "point_cloud.ply"
    run_render("--ply", ply, "--cameras", model / "cameras.json", "--output", tmp_path / "alone")
    np.testing.assert_array_equal(pixels(tmp_path / "alone" / "renders" / "00000.png"), black)


def test_a_colmap_folder_serves_as_cameras(model, dataset, tmp_path):
    ply = model / "point_cloud" / f"iteration_{ITERATION}" / "point_cloud.ply"
    assert run_render("--ply", ply, "--cameras", dataset, "--output", tmp_path / "a") == 0
    assert run_render("--ply", ply, "--cameras", model, "--output", tmp_path / "b") == 0
    for k in range(VIEWS):
        a, b = (pixels(tmp_path / one / "renders" / f"{k:05d}.png").astype(int) for one in "ab")
        assert np.abs(a - b).max() <= 1


def test_a_strangers_folder_is_read_by_its_cfg_args(dataset, tmp_path):
    model = write_model(tmp_path / "stranger", dataset, hold_out=False, own=False)
    assert run_render("-m", model) == 0
    assert len(list((model / "train" / f"ours_{ITERATION}" / "renders").iterdir())) == VIEWS
    assert not (model / "test").exists()
    assert run_render("-m", model, "--eval", "-r", 20) == 0, "what is given wins"
    assert pixels(model / "test" / f"ours_{ITERATION}" / "renders" / "00001.png").shape == (15, 20, 3)


def test_pictures_of_an_earlier_call_go_and_other_files_stay(model):
    folder = model / "test" / f"ours_{ITERATION}"
    for name in ("renders/00007.png", "masks/00000.png", "renders/notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old")
    assert run_render("-m", model, "--skip_train") == 0
    assert sorted(path.name for path in (folder / "renders").iterdir()) == ["00000.png", "00001.png", "notes.txt"]
    assert not list((folder / "masks").iterdir())
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing unfinished is left"


def test_depth_and_alpha_maps_say_how_far_and_how_much(tmp_path):
    """A dense flat wall across the axis, 5 units away: its depth map is 5 where it covers."""
    x, y = np.meshgrid(np.linspace(-1, 1, 15), np.linspace(-1, 1, 15))
    wall = gaussians(225)
    wall["means"] = np.stack([x.ravel(), y.ravel(), np.full(225, 5.0)], 1).astype(np.float32)
    wall["log_scales"] = np.tile(np.log(np.float32([0.15, 0.15, 0.001])), (225, 1))
    wall["logit_opacities"][:] = 4
    from scene.ply import write_gaussians

    write_gaussians(tmp_path / "wall.ply", wall)
    view = {"id": 0, "img_name": "a", "width": 60, "height": 50, "position": [0, 0, 0]}
    view |= {"rotation": np.eye(3).tolist(), "fy": 100.0, "fx": 100.0}
    (tmp_path / "cameras.json").write_text(json.dumps([view]))
    out = tmp_path / "out"
    args = ("--cameras", tmp_path / "cameras.json", "--output", out, "--depth", "--alpha")
    assert run_render("--ply", tmp_path / "wall.ply", *args) == 0
    scale = json.loads((out / "depth" / "depth.json").read_text())["scale"]["00000.png"]
    depth = pixels(out / "depth" / "00000.png")
    alpha = pixels(out / "alpha" / "00000.png")
    assert depth.dtype == np.uint16 and alpha.dtype == np.uint8
    np.testing.assert_allclose(depth[20:30, 20:40] * scale, 5.0, rtol=1e-3)
    assert alpha[25, 30] > 250 and alpha[0, 0] < 100
    assert depth[alpha < 127].max(initial=0) == 0
    assert pixels(out / "depth_preview" / "00000.png").shape == (50, 60, 3)


@pytest.mark.parametrize("kind", ["ellipse", "interp", "file"])
def test_a_path_becomes_a_video(model, tmp_path, kind):
    path = kind
    if kind == "file":
        path = tmp_path / "path.json"
        frames = [{"position": [0, 0, -4 - k], "look_at": [0, 0, 0]} for k in range(4)]
        path.write_text(json.dumps({"fps": 5, "width": 32, "frames": frames}))
    video_file = tmp_path / "out.mp4"
    assert run_render("-m", model, "--trajectory", path, "--video", video_file, "--frames", 4) == 0
    video = cv2.VideoCapture(str(video_file))
    size = (32, 24) if kind == "file" else (WIDTH, HEIGHT)
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == size
    assert video.get(cv2.CAP_PROP_FPS) == (5 if kind == "file" else 24)
    frames = []
    while (got := video.read())[0]:
        frames.append(got[1])
    assert len(frames) == 4
    assert all(frame.max() > 60 for frame in frames), "the Gaussians are in sight"
    assert not (model / "test").exists()


def test_without_a_video_a_path_becomes_pictures(model):
    assert run_render("-m", model, "--trajectory", "ellipse", "--frames", 3) == 0
    assert len(list((model / "trajectory" / f"ours_{ITERATION}" / "renders").glob("*.png"))) == 3


def test_results_are_in_the_fields_format(model, tmp_path, capsys):
    save_file(random_weights(), tmp_path / "vgg.safetensors")
    assert run_render("-m", model) == 0
    assert run_metrics("-m", model, "--lpips_weights", tmp_path / "vgg.safetensors") == 0
    text = (model / "results.json").read_text()
    results, views = json.loads(text), json.loads((model / "per_view.json").read_text())
    name = f"ours_{ITERATION}"
    assert list(results) == list(views) == [name]
    assert list(results[name]) == list(views[name]) == ["SSIM", "PSNR", "LPIPS"]
    assert text.startswith(f'{{\n "{name}": {{\n  "SSIM": '), "an indent of one blank"
    for metric, mean in results[name].items():
        assert list(views[name][metric]) == ["00000.png", "00001.png"]
        assert mean == pytest.approx(np.mean(list(views[name][metric].values())))
    protocol = json.loads((model / "metrics_protocol.json").read_text())
    assert protocol["split"] == "test" and protocol["LPIPS"]["net"] == "vgg16" and protocol["masks"] == "none"
    assert "Held-out views" in (model / "report.html").read_text()
    assert f"PSNR : {results[name]['PSNR']:12.7f}" in capsys.readouterr().out


def test_psnr_is_that_of_the_written_files(model):
    run_render("-m", model)
    run_metrics("-m", model, "--quiet")
    folder = model / "test" / f"ours_{ITERATION}"
    a, b = (pixels(folder / one / "00000.png") / 255.0 for one in ("renders", "gt"))
    views = json.loads((model / "per_view.json").read_text())[folder.name]
    assert views["PSNR"]["00000.png"] == pytest.approx(-10 * np.log10(((a - b) ** 2).mean()), abs=1e-5)


def test_without_weights_lpips_is_null_and_that_is_said(model, monkeypatch, capsys):
    monkeypatch.setattr(metrics, "LPIPS_WEIGHTS", Path("/nowhere/lpips.safetensors"))
    run_render("-m", model)
    assert run_metrics("-m", model) == 0
    assert json.loads((model / "results.json").read_text())[f"ours_{ITERATION}"]["LPIPS"] is None
    assert json.loads((model / "metrics_protocol.json").read_text())["LPIPS"] is None
    assert "LPIPS is null" in capsys.readouterr().out


def test_a_run_without_held_out_views_is_measured_on_training_views_and_says_so(dataset, tmp_path, capsys):
    model = write_model(tmp_path / "all", dataset, hold_out=False)
    assert run_command(render.main, ["-m", str(model)]) == 0
    assert "held no views out" in capsys.readouterr().out
    assert run_metrics("-m", model) == 0
    assert "TRAINING views" in capsys.readouterr().out
    assert json.loads((model / "metrics_protocol.json").read_text())["split"] == "train"
    assert len(json.loads((model / "per_view.json").read_text())[f"ours_{ITERATION}"]["PSNR"]) == VIEWS


def test_masked_pixels_count_in_no_figure(dataset, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    kept = np.full((HEIGHT, WIDTH), 255, np.uint8)
    kept[:, :15] = 0
    for k in range(VIEWS):
        Image.fromarray(kept).save(masks / f"{k:02d}.png.png")
    model = write_model(tmp_path / "masked", dataset, masks=masks)
    assert run_render("-m", model) == 0
    assert run_metrics("-m", model, "--quiet") == 0
    before = (model / "per_view.json").read_text()
    assert "left out" in json.loads((model / "metrics_protocol.json").read_text())["masks"]
    photo = model / "test" / f"ours_{ITERATION}" / "gt" / "00000.png"
    spoiled = pixels(photo).copy()
    spoiled[:, :15] = 7
    Image.fromarray(spoiled).save(photo)
    run_metrics("-m", model, "--quiet")
    assert (model / "per_view.json").read_text() == before
    spoiled[:, 15:20] = 7
    Image.fromarray(spoiled).save(photo)
    run_metrics("-m", model, "--quiet")
    assert (model / "per_view.json").read_text() != before


def test_an_unmeasurable_folder_is_named(model, capsys):
    assert run_metrics("-m", model) == 2
    assert "no rendered test views; run render.py" in capsys.readouterr().err
    assert run_render("-m", model, "--skip_test") == 0
    assert run_metrics("-m", model) == 2, "training views never stand in for held-out ones"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-m", "MODEL", "--skip_tset"], "--skip_test"),
        (["-m", "MODEL", "--skip"], "not known"),
        (["-m", "nowhere"], "nowhere"),
        (["-m", "MODEL", "--iteration", "7"], "50"),
        (["-m", "MODEL", "--iteration", "x"], "--iteration"),
        ([], "--ply"),
        (["--ply", "a.ply"], "--cameras"),
        (["--ply", "nowhere.ply", "--cameras", "nowhere.json"], "nowhere.ply"),
        (["-m", "MODEL", "--video", "a.mp4"], "--trajectory"),
        (["-m", "MODEL", "--trajectory", "nowhere.json"], "nowhere.json"),
        (["-m", "MODEL", "--trajectory", "ellipse", "--video", "a.gif"], "mp4"),
        (["-m", "MODEL", "-s", "nowhere"], "nowhere"),
        (["-m", "MODEL", "--frames", "0"], "--frames"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(model, capsys, args, words):
    assert run_command(render.main, [str(model) if arg == "MODEL" else arg for arg in args]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert len(error.splitlines()) == 1


def test_the_command_itself_ends_with_code_two_and_no_traceback():
    root = Path(__file__).parents[1]
    for script in ("render.py", "metrics.py"):
        done = subprocess.run(
            [sys.executable, root / script, "-m", "nowhere"], capture_output=True, text=True, cwd=root
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert "nowhere" in done.stderr and "Traceback" not in done.stderr


def test_the_smoke_scene_renders_from_its_own_points(shared_scenes, tmp_path):
    """Gaussians at the SfM points look more like the photos than a black picture does."""
    from scene.model_folder import save_gaussians as save

    source = shared_scenes / "smoke"
    model = write_model(tmp_path / "smoke", source)
    points = load_scene(source).points
    count = len(points)
    arrays = gaussians(count)
    arrays["means"] = points.xyz.astype(np.float32)
    arrays["sh_dc"] = ((points.rgb[:, None] / 255 - 0.5) / 0.2820948).astype(np.float32)
    arrays["log_scales"][:] = np.log(np.ptp(points.xyz, 0).max() / 100)
    extra = {"labels": np.zeros(count, np.uint8), "births": np.zeros(count, np.int32), "sh_degree": 0, "mult": 0.5}
    save(model, 60, arrays, white_background=False, **extra)
    assert run_render("-m", model, "--skip_train") == 0
    assert run_metrics("-m", model, "--quiet") == 0
    folder = model / "test" / "ours_60"
    measured = json.loads((model / "results.json").read_text())["ours_60"]["PSNR"]
    photos = [pixels(path) / 255.0 for path in sorted((folder / "gt").iterdir())]
    assert measured > np.mean([-10 * np.log10((photo**2).mean()) for photo in photos])
