# SPDX-License-Identifier: Apache-2.0
"""The benchmark of rasterisers on a card, tried at toy size on the CPU."""

import json

import pytest
import torch

from benchmarks import gpu
from utils.command import run_command

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
    works = [gpu.Work(name, gpu.draw_ours, parameters, view) for name in ("ours", "theirs")]
    for work in works * 3:
        work.measure()
    for name, value in works[0].parameters.items():
        torch.testing.assert_close(value, works[1].parameters[name], rtol=1e-5, atol=1e-7)
        assert not torch.equal(value, parameters[name])
    draws = {"ours": gpu.draw_ours, "theirs": lambda *scene: 1 - gpu.draw_ours(*scene)}
    rows = gpu.compare(draws, 60, (40, 30), 1, device)
    assert [row.name for row in rows] == ["ours", "theirs"]
    assert "theirs draws another picture" in capsys.readouterr().err


def test_splats_get_smaller_as_they_get_more():
    scenes = [gpu.scene(count, 160, 107, torch.device("cpu"))[0] for count in (100_000, 400_000)]
    sizes = [parameters["scales"].detach().exp().mean().item() for parameters in scenes]
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=0.02)
