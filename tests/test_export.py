# SPDX-License-Identifier: Apache-2.0
"""`python -m utils.export` writes what was asked for, says what a format cannot hold, and the page shows the scene."""

import base64
import gzip
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from splat_tools import gaussians

from gaussian_renderer import render
from scene import export
from scene.cameras import look_at
from scene.formats import html
from scene.gaussian_model import GaussianModel
from scene.model_folder import save_gaussians, write_run_files
from scene.ply import read_gaussians, write_gaussians
from scene.points import PointCloud
from scene.splat_files import read_splats
from utils.command import run_command
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
COUNT = 240


@pytest.fixture
def model(tmp_path) -> Path:
    """A run's folder: the tiny world, a third of each label."""
    folder = tmp_path / "my <model>"
    parameters = {name: array.detach().numpy() for name, array in tiny.world().parameters().items()}
    labels, births = np.arange(COUNT) % 3, np.zeros(COUNT)
    look = {"sh_degree": 1, "mult": 0.5, "white_background": False}
    save_gaussians(folder, 30, parameters, labels=labels, births=births, **look)
    cameras = tiny.orbit(4)
    write_run_files(
        folder,
        source=tmp_path,
        images="images",
        resolution=-1,
        white_background=False,
        hold_out=True,
        sh_degree=3,
        test_cameras=cameras[:1],
        train_cameras=cameras[1:],
        start=PointCloud(np.zeros((2, 3)), np.zeros((2, 3), np.uint8)),
    )
    geometry = {"focus": [0, 0, 0], "up": [0, 0, 1], "subject_radius": 0.9}
    (folder / "geometry.json").write_text(json.dumps(geometry))
    return folder


def run(*args: object) -> None:
    export.main([str(arg) for arg in args])


def refused(*args: object) -> str:
    with pytest.raises(UserError) as caught:
        run(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", export.FORMATS)
def test_every_format_is_written_and_what_was_read_back_is_told(model, kind, capsys):
    run(model, "--format", kind)
    path = model / "export" / f"iteration_30.{kind}"
    said = capsys.readouterr().out
    assert f"{path}: 240 of 240 Gaussians" in said
    assert ("read back" in said) == (kind != "html")
    if kind != "html":
        assert len(read_splats(path)) == COUNT


def test_the_command_line_works_and_refuses_in_one_line_with_exit_code_2(model, tmp_path):
    command = [sys.executable, "-m", "utils.export", str(model), "--format"]
    done = subprocess.run([*command, "spz"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*command, "usdz"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "--format" in done.stderr


def test_only_gaussians_of_one_origin_are_written(model):
    for label, name in enumerate(("subject", "ambient", "refined")):
        run(model, "--format", "ply", "--only", name, "--output", model / "a.ply", "--quiet")
        expected = tiny.world().means.detach()[label::3].numpy()
        np.testing.assert_array_equal(read_gaussians(model / "a.ply").means, expected)


def test_a_ball_and_a_box_cut_out_the_subject(model):
    run(model, "--format", "ply", "--crop", 1.5, "--output", model / "a.ply", "--quiet")
    assert len(read_gaussians(model / "a.ply")) == 80
    run(model, "--format", "ply", "--crop", -1, -1, 0, 1, 1, 1, "--output", model / "a.ply", "--quiet")
    means = read_gaussians(model / "a.ply").means
    assert 0 < len(means) < 80
    assert (means[:, 2] >= 0).all()


def test_faint_gaussians_are_left_out(tmp_path):
    splats = gaussians(50)
    write_gaussians(tmp_path / "a.ply", splats.parameters())
    run(tmp_path / "a.ply", "--format", "splat", "--min_opacity", 0.5, "--quiet")
    assert len(read_splats(tmp_path / "a.splat")) == (splats.logit_opacities >= 0).sum()


def test_coefficients_above_the_degree_in_use_are_left_out_and_tags_stay(model):
    run(model, "--format", "ply", "--output", model / "a.ply", "--quiet")
    back = read_gaussians(model / "a.ply")
    assert back.max_sh_degree == 1
    assert back.tags == {"mult": 0.5, "sh_degree": 1, "background": (0, 0, 0)}


def test_what_the_target_cannot_hold_is_a_warning(tmp_path, capsys):
    splats = gaussians(10)
    splats.means[0] = 9000
    write_gaussians(tmp_path / "a.ply", splats.parameters())
    run(tmp_path / "a.ply", "--format", "spz")
    assert capsys.readouterr().err.startswith("warning: the scene reaches beyond 2048 units")


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--only", "subject", "--crop", "0.01"], "leave no Gaussian"),
        (["--crop", "1", "2"], "--crop"),
        (["--crop", "-1"], "--crop"),
        (["--crop", "1", "1", "1", "0", "2", "2"], "--crop"),
        (["--crop", "nan"], "--crop"),
        (["--min_opacity", "2"], "--min_opacity"),
        (["--only", "sky"], "--only"),
        (["--iteration", "7"], "--iteration"),
    ],
)
def test_flags_that_make_no_sense_are_refused(model, flags, word):
    assert word in refused(model, "--format", "ply", *flags)


def test_what_is_read_is_never_overwritten(tmp_path):
    write_gaussians(tmp_path / "a.ply", gaussians(3).parameters())
    before = (tmp_path / "a.ply").read_bytes()
    assert "--output" in refused(tmp_path / "a.ply", "--format", "ply")
    assert (tmp_path / "a.ply").read_bytes() == before


def test_a_strangers_model_has_neither_labels_nor_focus(tmp_path):
    write_gaussians(tmp_path / "a.ply", gaussians(3).parameters())
    assert "labels" in refused(tmp_path / "a.ply", "--format", "spz", "--only", "subject")
    assert "six numbers" in refused(tmp_path / "a.ply", "--format", "spz", "--crop", 2)
    run(tmp_path / "a.ply", "--format", "html", "--quiet")
    assert (tmp_path / "a.html").is_file()


def test_a_model_that_is_not_there_is_one_line(tmp_path, capsys):
    assert run_command(export.main, [str(tmp_path / "none"), "--format", "ply"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# The page


def page_of(model: Path) -> str:
    run(model, "--format", "html", "--output", model / "a.html", "--quiet")
    return (model / "a.html").read_text()


def test_the_page_needs_nothing_from_outside(model):
    page = page_of(model)
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)\s*=|https?://|url\(|\bimport\b|@(TITLE|SETTINGS|DATA)@", page)


def test_a_name_is_text_and_never_markup(model):
    page = page_of(model)
    assert "my &lt;model&gt;, iteration 30" in page
    assert "<model>" not in page


def test_the_data_of_the_page_are_the_gaussians(model):
    page = page_of(model)
    settings = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    data = re.search(r'id="gaussians" type="text/plain">(.*?)</script>', page, re.DOTALL)[1]
    words = np.frombuffer(gzip.decompress(base64.b64decode(data)), "<u4").reshape(COUNT, -1)
    world = tiny.world()
    assert (settings["count"], settings["degree"], settings["mult"]) == (COUNT, 1, 0.5)
    assert words.shape[1] == 4 * settings["texels"]
    np.testing.assert_array_equal(words[:, :3].view("<f4"), world.means.detach().numpy())
    low, step = settings["logScales"]
    np.testing.assert_allclose(low + step * (words[:, 4] & 65535), world.log_scales[:, 0].detach(), atol=step)
    np.testing.assert_allclose((words[:, 5] >> 16) / 65535, world.opacities[:, 0].detach(), atol=1e-5)
    np.testing.assert_allclose(settings["start"]["position"], tiny.orbit(4)[0].position)


def screenshot(page: Path, width: int, height: int) -> np.ndarray:
    """The page in a browser, [H, W, 3] in [0, 1]."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine to open the page with")
    flags = ["--headless=new", "--no-sandbox", "--hide-scrollbars", "--use-angle=swiftshader"]
    flags += ["--enable-unsafe-swiftshader", f"--window-size={width},{height}", "--virtual-time-budget=4000"]
    flags += [f"--user-data-dir={page.parent / 'browser'}", f"--screenshot={page.with_suffix('.png')}"]
    subprocess.run([browser, *flags, f"{page.as_uri()}#bare"], capture_output=True, timeout=240, check=True)
    return np.asarray(Image.open(page.with_suffix(".png")).convert("RGB")) / 255


@torch.no_grad()
def test_a_browser_shows_what_our_renderer_draws(tmp_path):
    world = tiny.world()
    generator = torch.Generator().manual_seed(3)
    world.sh_rest.copy_(0.15 * torch.randn(world.sh_rest.shape, generator=generator))
    world.log_scales.add_(0.5 * torch.randn(world.log_scales.shape, generator=generator))
    world.quats.copy_(torch.randn(world.quats.shape, generator=generator))
    world.logit_opacities.copy_(torch.randn(world.logit_opacities.shape, generator=generator))
    parameters = {name: value.numpy() for name, value in world.parameters().items()}
    write_gaussians(tmp_path / "a.ply", parameters, tags={"mult": 0.5, "background": (0.2, 0.3, 0.4)})
    splats = read_gaussians(tmp_path / "a.ply")
    view = tiny.camera((3.1, -2.2, 1.4), width=640, height=480)
    start = html.Start(view.position, np.zeros(3), np.array([0.0, 0, 1]), focal=view.fy / view.height)
    html.write(tmp_path / "a.html", splats, start=start, title="a")
    shown = screenshot(tmp_path / "a.html", 640, 480)
    pose = look_at(view.position, np.zeros(3), np.array([0.0, 0, 1]))
    model = GaussianModel({n: torch.from_numpy(a) for n, a in splats.parameters().items()}, sh_degree=3)
    image = render(replace(view, camera_from_world=pose), model, torch.tensor([0.2, 0.3, 0.4]), mult=0.5).image
    drawn = image.clamp(0, 1).permute(1, 2, 0).numpy()
    assert drawn.std() > 0.1
    assert -10 * np.log10(((shown - drawn) ** 2).mean()) > 40
