# SPDX-License-Identifier: Apache-2.0
"""What the quality benchmark makes of finished runs."""

import argparse
import json
import math
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import quality
from benchmarks.quality import METHODS, REFERENCE, Run, flagged_gain, summary
from benchmarks.quality_report import budgets_drawing, report
from utils.pictures import write_png


def finished(root, method: str, error: int, view: int = 0) -> Run:
    """A run whose one held-out render is off by so many levels in its left half, and by 100 in its right half."""
    run = Run(root / "scene", method, 1, root / "scene" / method / "seed1")
    photo = np.full((4, 8, 3), 120, np.uint8)
    render = photo + np.uint8(100)
    render[:, :4] = photo[:, :4] + error
    for kind, picture in (("renders", render), ("gt", photo)):
        write_png(run.folder / "test" / "ours_5" / kind / f"{view:05d}.png", picture)
    return run


def test_the_gain_is_that_inside_the_regions_of_the_reference(tmp_path):
    args = argparse.Namespace(out=tmp_path, at=None)
    guided, unguided = finished(tmp_path, REFERENCE, 10), finished(tmp_path, "all-none", 30)
    assert flagged_gain(unguided, args) is None, "no reference yet"
    for run, error in ((guided, 20), (unguided, 30)):
        finished(tmp_path, run.method, error, 1)
    mask = np.zeros((4, 8), np.uint8)
    mask[:, :4] = 255
    first = guided.folder / "vlm" / "round_1"
    for view in (0, 1):
        write_png(first / "held_out" / f"{view:05d}.png", mask)
    before = {f"held_out 0000{view}": {"inside_squared": 0.04} for view in (0, 1)}
    (first / "summary.json").write_text(json.dumps({"before": before}))
    gains = [20 * math.log10(0.2 / (error / 255)) for error in (10, 20)]
    assert flagged_gain(guided, args) == pytest.approx(sum(gains) / 2)
    assert flagged_gain(unguided, args) == pytest.approx(20 * math.log10(0.2 / (30 / 255)))
    assert flagged_gain(finished(tmp_path, "fastgs", 10), args) is None


def test_the_table_shows_means_and_spreads(tmp_path):
    args = argparse.Namespace(scenes=[tmp_path / "a", tmp_path / "b"], methods=["fastgs"])
    results = {
        ("a", "fastgs", 1): {"psnr": 20.0},
        ("a", "fastgs", 2): {"psnr": 21.0},
        ("b", "fastgs", 1): {"psnr": 30.0},
    }
    table = summary(results, args)
    assert "20.50 ±0.71" in table and "23.67 ±5.51" in table and "mean of all scenes" in table


def test_the_table_says_how_far_the_reference_is_above_each_method(tmp_path):
    args = argparse.Namespace(scenes=[tmp_path / "a", tmp_path / "b"], methods=[REFERENCE, "fastgs"])
    results = {
        ("a", REFERENCE, 1): {"psnr": 25.0, "ssim": 0.9, "gaussians": 10},
        ("a", "fastgs", 1): {"psnr": 20.0, "ssim": 0.8, "gaussians": 40},
        ("b", REFERENCE, 1): {"psnr": 30.0, "ssim": 0.9, "gaussians": 30},
        ("b", "fastgs", 1): {"psnr": 31.0, "ssim": 0.95, "gaussians": 60},
        ("b", "fastgs", 2): {"psnr": 99.0, "ssim": 0.99, "gaussians": 60},
    }
    rows = summary(results, args).splitlines()
    assert "| fastgs | +5.00 · +0.100 · 0.25 | -1.00 · -0.050 · 0.50 | +2.00 · +0.025 · 0.40 |" in rows


def test_a_scene_that_does_not_exist_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["quality.py", "--scenes", str(tmp_path / "gone"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="2"):
        quality.main()
    assert "gone: no such folder" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_every_method_is_a_command_that_is_understood(tmp_path):
    import phases
    from arguments import parse

    for flags in METHODS.values():
        parse(["--source", str(tmp_path), "--model_path", "m", *flags.split()], phases.available())


def test_the_report_draws_a_curve_for_each_start_and_shows_renders_beside_the_photo(tmp_path):
    methods = {"fastgs": 90, "ours@3000": 30, "ours@6000": 10}
    rows = []
    for count, (method, error) in enumerate(methods.items()):
        finished(tmp_path, method, error)
        rows.append({"scene": "scene", "method": method, "seed": 1, "psnr": 20.0 + count, "gaussians": 3000 * count})
    text = report(rows, ("psnr", "gaussians"), tmp_path)
    assert text.count("<polyline") == 1, "one method has budgets"
    assert text.count("<img") == 1 + len(methods), "one view, the worst and the middle one"
    assert "21.000" in text and "6000" in text
    drawing = ElementTree.fromstring(budgets_drawing([*rows, *({**row, "scene": "<other>"} for row in rows)]))
    assert len(drawing.findall(".//{*}polyline")) == 2, "a chart for each scene"
    assert "<other>" in [text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert budgets_drawing(rows[:1]) == ""


def test_the_processor_time_of_a_run_that_had_begun_before_is_not_told(tmp_path, monkeypatch):
    for script in ("train", "render", "metrics"):
        (tmp_path / f"{script}.py").write_text("")
    monkeypatch.setattr(quality, "ROOT", tmp_path)
    run = Run(tmp_path / "scene", "fastgs", 1, tmp_path / "run")
    args = argparse.Namespace(iterations=1, resolution=1, threads=1, at=None, extra=[])
    assert quality.train(run, args)["cpu_s"] > 0
    (run.folder / "log.jsonl").write_text("")
    assert quality.train(run, args)["cpu_s"] is None
