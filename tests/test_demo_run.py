# SPDX-License-Identifier: Apache-2.0
"""The demo compares the method with plain FastGS on equal terms, through the commands that users have."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import train
from scene.model_folder import save_gaussians
from utils.command import run_command

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def demo(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("demo_run", ROOT / "demo" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def write_results(folder: Path, iteration: int, lpips: float | None, count: int = 7) -> None:
    arrays = {
        "means": np.zeros((count, 3)),
        "sh_dc": np.zeros((count, 1, 3)),
        "sh_rest": np.zeros((count, 15, 3)),
        "logit_opacities": np.zeros((count, 1)),
        "log_scales": np.zeros((count, 3)),
        "quats": np.tile([1.0, 0, 0, 0], (count, 1)),
    }
    rows = {"labels": np.zeros(count), "births": np.zeros(count)}
    save_gaussians(folder, iteration, arrays, **rows, sh_degree=3, mult=0.5, white_background=False)
    figures = {"SSIM": 0.81234, "PSNR": 24.567, "LPIPS": lpips}
    (folder / "results.json").write_text(json.dumps({f"ours_{iteration}": figures}))


def run(demo, monkeypatch, tmp_path, capsys, *, lpips: float | None):
    """The demo with the product's commands replaced by what they would leave behind; (commands, what was printed)."""
    calls = []

    def command(*arguments: str) -> float:
        calls.append(arguments)
        if arguments[0] == "train.py":
            write_results(tmp_path / arguments[arguments.index("--model_path") + 1], 50, lpips)
        return 12.0

    monkeypatch.setattr(demo, "command", command)
    monkeypatch.setattr("sys.argv", ["run.py", "--iterations", "50"])
    demo.main()
    return calls, capsys.readouterr().out


def test_both_methods_start_over_with_equal_iterations_and_are_rendered_and_measured(
    demo, monkeypatch, tmp_path, capsys
):
    calls, _ = run(demo, monkeypatch, tmp_path, capsys, lpips=None)
    trainings = [call for call in calls if call[0] == "train.py"]
    assert len(trainings) == 2
    for call in trainings:
        assert "--overwrite" in call and call[call.index("--iterations") + 1] == "50"
    assert trainings[0][-2:] == ("--qwen_model_path", "embedded")
    assert trainings[1][-2:] == ("--phases", "none")
    assert [call[0] for call in calls] == ["train.py", "render.py", "metrics.py"] * 2 + ["-m"]


def test_the_table_has_all_figures_and_the_report_is_named(demo, monkeypatch, tmp_path, capsys):
    _, text = run(demo, monkeypatch, tmp_path, capsys, lpips=0.1234)
    line = next(line for line in text.splitlines() if line.startswith("three phases"))
    assert line.split()[2:] == ["24.57", "0.812", "0.123", "7", "12", "s"]
    assert str(tmp_path / "output" / "demo" / "report.html") in text.splitlines()[-1]
    assert "make lpips" not in text


def test_without_weights_lpips_is_a_dash_and_the_way_to_them_is_said(demo, monkeypatch, tmp_path, capsys):
    _, text = run(demo, monkeypatch, tmp_path, capsys, lpips=None)
    line = next(line for line in text.splitlines() if line.startswith("plain FastGS"))
    assert line.split()[4] == "-" and "make lpips" in text


def test_a_command_that_fails_ends_the_demo_with_its_exit_code(demo, tmp_path):
    (tmp_path / "train.py").write_text("import sys; sys.exit(2)")
    with pytest.raises(SystemExit) as end:
        demo.command("train.py")
    assert end.value.code == 2


def test_a_few_hundred_iterations_lift_the_held_out_views_and_the_phases_far_more(tmp_path):
    """The demo's scene at 64 pixels: about 13 dB, after 300 iterations of plain FastGS 15, of all phases 22."""
    gains = {}
    for phases in ("none", "main,ambient,vlm"):
        folder = tmp_path / phases
        words = ("-s", ROOT / "demo", "-m", folder, "-r", 64, "--iterations", 300, "--phases", phases, "--quiet")
        assert run_command(train.main, [str(word) for word in (*words, "--test_iterations", 10, 300)]) == 0
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        first, last = (line["psnr"] for line in lines if line.get("split") == "test")
        gains[phases] = last - first
    assert gains["none"] > 1
    assert gains["main,ambient,vlm"] > gains["none"] + 3
