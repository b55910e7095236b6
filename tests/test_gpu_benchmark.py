# SPDX-License-Identifier: Apache-2.0
"""The benchmark of rasterisers on a card, tried at toy size on the CPU."""

import json

import pytest
import torch

from benchmarks import gpu, rivals
from tests.scenes.small_capture import write_capture
from utils.command import run_command

PEERS = {
    "late": "from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer",
    "early": """
from collections import namedtuple
import diff_gaussian_rasterization as ours

GaussianRasterizationSettings = namedtuple("Settings", ours.GaussianRasterizationSettings._fields[:12])

class GaussianRasterizer:
    def __init__(self, settings):
        self.settings = ours.GaussianRasterizationSettings(*settings)

    def forward(self, means3D, means2D, opacities, shs, scales, rotations):
        rest = {"shs": shs, "scales": scales, "rotations": rotations}
        return ours.GaussianRasterizer(self.settings)(means3D, means2D, opacities, **rest)[:2]

    __call__ = forward
""",
}
"""What the usual packages looked like at first, and FastGS's later; both draw by ours."""
TOY = ["--counts", "50", "80", "--size", "40x30", "--rounds", "2"]


def test_a_table_and_figures_come_out(tmp_path, capsys):
    assert run_command(gpu.main, [*TOY, "--backend", "cpu", "--json", str(tmp_path / "out.json")]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["name"], row["count"]) for row in rows] == [("ours", 50), ("ours", 80)]
    assert all(min(row["forward"], row["backward"], row["step"]) > 0 for row in rows)
    assert "| 80 | ours | " in capsys.readouterr().out


def test_without_a_card_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr("gaussian_renderer.backend.why_not_cuda", lambda: "no NVIDIA driver is loaded")
    assert run_command(gpu.main, TOY) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err == "--backend cuda: no NVIDIA driver is loaded; or leave it at auto\n"


def test_both_kinds_of_adam_take_the_same_steps_and_another_picture_is_noticed(capsys):
    device = torch.device("cpu")
    parameters, view = gpu.scene(60, 40, 30, device)
    works = [gpu.Work(name, rivals.draw_ours, parameters, view) for name in ("ours", "theirs")]
    for work in works * 3:
        work.measure()
    for name, value in works[0].model.parameters.items():
        torch.testing.assert_close(value, works[1].model.parameters[name], rtol=1e-5, atol=1e-7)
        assert not torch.equal(value, parameters[name])
    draws = {"ours": rivals.draw_ours, "theirs": lambda *scene: 1 - rivals.draw_ours(*scene)}
    rows = gpu.compare(draws, 60, (40, 30), 1, device)
    assert [row.name for row in rows] == ["ours", "theirs"]
    assert "theirs draws another picture" in capsys.readouterr().err


def test_drop_in_packages_take_part_beside_ours_and_all_train_a_capture_alike(tmp_path, capsys):
    for name, content in PEERS.items():
        (tmp_path / name / "diff_gaussian_rasterization").mkdir(parents=True)
        (tmp_path / name / "diff_gaussian_rasterization" / "__init__.py").write_text("from .inner import *")
        (tmp_path / name / "diff_gaussian_rasterization" / "inner.py").write_text(content)
    peers = [word for name in PEERS for word in ("--peer", f"{name}={tmp_path / name}")]
    words = [*TOY, "--backend", "cpu", "--json", tmp_path / "out.json", *peers]
    capture = write_capture(tmp_path / "capture")
    training = ["--source", capture, "-r", 24, "--gaussians", 40, "--iterations", 12]
    assert run_command(gpu.main, [str(word) for word in (*words, *training)]) == 0
    assert "draws another picture" not in capsys.readouterr().err
    figures = json.loads((tmp_path / "out.json").read_text())
    assert [row["name"] for row in figures["rows"]] == ["ours", *PEERS] * 2
    ours, *others = figures["training"]
    assert ours["psnr"] > 5 and [other["name"] for other in others] == [*PEERS]
    assert all(other["psnr"] == pytest.approx(ours["psnr"], abs=0.05) for other in others)


@pytest.mark.parametrize(("init", "said"), [(None, "no Python package"), ("import nothing_such", "does not load")])
def test_a_package_that_does_not_load_is_refused_in_a_line(tmp_path, capsys, init, said):
    if init:
        (tmp_path / "__init__.py").write_text(init)
    assert run_command(gpu.main, [*TOY, "--backend", "cpu", "--peer", f"usual={tmp_path}"]) == 2
    assert said in capsys.readouterr().err


def test_splats_get_smaller_as_they_get_more():
    scenes = [gpu.scene(count, 160, 107, torch.device("cpu"))[0] for count in (100_000, 400_000)]
    sizes = [parameters["scales"].detach().exp().mean().item() for parameters in scenes]
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=0.02)
