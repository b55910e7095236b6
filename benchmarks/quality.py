# SPDX-License-Identifier: Apache-2.0
"""Held-out quality of several settings on several scenes, side by side.

    python benchmarks/quality.py --scenes DIR... --methods none,all --seeds 1,2 --iterations 4000 -r 300 --out OUT

A method is a row of flags. Every run is a folder `OUT/<scene>/<method>/seed<k>`; a finished one is never
repeated, an interrupted one is resumed. Writes `results.json`, `table.md`, `report.html` and, where methods have
budgets, `budgets.svg` into OUT. Processor time and peak memory are those of the training process; nothing depends on
what else the machine does.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RATES_AND_LOSS = "--step_every 1 --rate_boost 4 --rate_rest 0.1 --lambda_square 8 --opacity_reg 0.02"
"""Rates and loss that the phases have at 4 000 iterations, for plain FastGS."""

METHODS: dict[str, str] = {
    "fastgs": "--phases none",
    "fastgs-step1": "--phases none --step_every 1",
    "fastgs-faithful": "--phases none --fastgs_faithful",
    "fastgs-rates": f"--phases none {RATES_AND_LOSS}",
    "fastgs-box2": "--phases none --init_extent 2",
    "fastgs-sfm": "--phases none --init sfm",
    "fastgs-sfm-step1": "--phases none --init sfm --step_every 1",
    "fastgs-sfm-rates": f"--phases none --init sfm {RATES_AND_LOSS}",
    "fastgs-sfm-faithful": "--phases none --init sfm --fastgs_faithful",
    "main": "--phases main",
    "ambient-noseeds": "--phases main,ambient --seeds none",
    "ambient": "--phases main,ambient",
    "all-residual": "--detector residual",
    "all-embedded": "--qwen_model_path embedded",
    "all-placebo": "--detector placebo",
    "all-none": "--detector none",
}
"""Flags of each method; a new one is a new row."""

METHODS |= {
    f"{shape}-{name}": f"--phases main,ambient --cap_max 12000 --ambient_shape {shape} --seeds {seeds}"
    for shape in ("tube", "layers", "sphere", "box", "none")
    for name, seeds in {"seeds": "all", "noseeds": "none"}.items()
}
"""Shapes at equal numbers."""

BUDGETS = (3_000, 6_000, 12_000, 24_000, 48_000)
"""Numbers at which all have our rates, loss, keeping and, from the keeping on, full footprint."""

METHODS |= {
    f"{name}@{budget}": f"{flags} --cap_max {budget}"
    for name, flags in {
        "ours": METHODS["all-residual"],
        "fastgs": METHODS["fastgs-rates"] + " --mult_final 1",
        "fastgs-sfm": METHODS["fastgs-sfm-rates"] + " --mult_final 1",
    }.items()
    for budget in BUDGETS
}

REFERENCE = "all-residual"
"""Its first inspection's regions, carried in 3D into the held-out views, are where `flagged_gain` is measured."""

FIGURES = (
    "psnr",
    "ssim",
    "lpips",
    "psnr_main",
    "psnr_surroundings",
    "flagged_gain",
    "coverage",
    "gaussians",
    "steps",
    "cpu_s",
    "peak_mb",
)


@dataclass(frozen=True)
class Run:
    """One training of one method on one scene with one seed."""

    scene: Path
    method: str
    seed: int
    folder: Path

    @property
    def result(self) -> Path:
        """Where the finished run's figures are."""
        return self.folder / "bench.json"


def all_runs(args: argparse.Namespace) -> Iterator[Run]:
    """Seeds outermost, so that every method has one result early."""
    for seed in args.seeds:
        for scene in args.scenes:
            for method in args.methods:
                yield Run(scene, method, seed, args.out / scene.name / method / f"seed{seed}")


def command(run: Run, args: argparse.Namespace) -> list[str]:
    """The training command of a run."""
    fixed = ["--source", str(run.scene), "--model_path", str(run.folder), "--seed", str(run.seed)]
    size = ["--iterations", str(args.iterations), "-r", str(args.resolution), "--threads", str(args.threads)]
    saved = ["--save_iterations", str(args.at)] if args.at else []
    return [*fixed, *size, *saved, "--resume", "--quiet", *METHODS[run.method].split(), *args.extra]


def train(run: Run, args: argparse.Namespace) -> dict[str, float | None]:
    """Train in a process of its own; its processor seconds, None where an earlier one had begun, and peak memory."""
    begun = (run.folder / "log.jsonl").exists()
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / "bench.log").open("ab") as log:
        child = subprocess.Popen([sys.executable, "train.py", *command(run, args)], cwd=ROOT, stdout=log, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise RuntimeError(f"{run.folder}: training ended with {child.returncode}; see bench.log there")
        drawn = ["--skip_train", "--iteration", str(args.at or -1)]
        for script, options in (("render.py", drawn), ("metrics.py", [])):
            whole = [sys.executable, script, "-m", str(run.folder), *options]
            subprocess.run(whole, cwd=ROOT, stdout=log, stderr=log, check=True)
    return {"cpu_s": None if begun else usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1024}


def figures(run: Run, args: argparse.Namespace, usage: dict[str, float | None]) -> dict[str, Any]:
    """Everything that the table shows of a finished run."""
    measured = next(iter(json.loads((run.folder / "results.json").read_text()).values()))
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    last = {key: value for line in lines if line["iteration"] <= (args.at or math.inf) for key, value in line.items()}
    split = split_psnr(run, args)
    return {
        "psnr": measured["PSNR"],
        "ssim": measured["SSIM"],
        "lpips": measured["LPIPS"],
        "coverage": last.get("coverage"),
        "gaussians": last.get("gaussians"),
        "steps": last.get("optimizer_steps"),
        **split,
        **usage,
    }


def split_psnr(run: Run, args: argparse.Namespace) -> dict[str, float]:
    """PSNR inside and outside the projected main region (1.2 subject radii round the focus), mean over views."""
    from scene.view_geometry import view_geometry

    scene = _scene(run, args)
    geometry = view_geometry(scene.train_cameras)
    pictures = next(iter((run.folder / "test").glob("ours_*")))
    inside, outside = [], []
    for index, camera in enumerate(scene.test_cameras):
        render, photo = (_pixels(pictures / kind / f"{index:05d}.png") for kind in ("renders", "gt"))
        squared = ((render - photo) ** 2).mean(2)
        mask = main_region(camera, np.asarray(geometry.focus), 1.2 * float(geometry.subject_radius))
        for values, part in ((inside, mask), (outside, ~mask)):
            if part.any():
                values.append(-10 * np.log10(max(squared[part].mean(), 1e-10)))
    return {
        "psnr_main": float(np.mean(inside)) if inside else float("nan"),
        "psnr_surroundings": float(np.mean(outside)) if outside else float("nan"),
    }


def flagged_gain(run: Run, args: argparse.Namespace) -> float | None:
    """Gain in PSNR, in dB, inside the regions that the reference's first inspection found, mean over held-out views.

    Runs of all phases with one seed are equal up to that inspection. None without a finished reference.
    """
    first = args.out / run.scene.name / REFERENCE / f"seed{run.seed}" / "vlm" / "round_1"
    if args.at or not (first / "summary.json").is_file() or not run.method.startswith("all-"):
        return None
    before = json.loads((first / "summary.json").read_text())["before"]
    pictures = next(iter((run.folder / "test").glob("ours_*")))
    gains = []
    for mask in sorted((first / "held_out").glob("*.png")):
        if f"held_out {mask.stem}" not in before:  # of an older version
            return None
        render, photo = (_pixels(pictures / kind / mask.name) for kind in ("renders", "gt"))
        error = np.average(np.square(render - photo).mean(2), weights=_pixels(mask)[..., 0])
        gains.append(10 * math.log10(before[f"held_out {mask.stem}"]["inside_squared"] / error))
    return mean(gains) if gains else None


def _scene(run: Run, args: argparse.Namespace) -> Any:
    """The views as the run had them."""
    from scene.dataset import load_scene

    data = json.loads((run.folder / "config.json").read_text())["data"]
    return load_scene(run.scene, resolution=args.resolution, hold_out_first=data.get("hold_out_first", 0))


def main_region(camera: Any, focus: np.ndarray, radius: float) -> np.ndarray:
    """Pixels [H, W] whose ray passes the focus point within `radius`."""
    v, u = np.mgrid[: camera.height, : camera.width] + 0.5
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    rotation, translation = camera.camera_from_world[:3, :3], camera.camera_from_world[:3, 3]
    centre = rotation @ focus + translation
    along = np.maximum(rays @ centre, 0)
    return np.linalg.norm(centre - along[..., None] * rays, axis=-1) < radius


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.float64) / 255


def perform(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of a run, trained now unless that was done before with the same flags."""
    signature = {"flags": METHODS[run.method], "iterations": args.iterations, "resolution": args.resolution}
    signature |= {"extra": args.extra, "seed": run.seed, "scene": run.scene.name}
    signature |= {"at": args.at} if args.at else {}
    if run.result.is_file():
        saved = json.loads(run.result.read_text())
        if saved["signature"] == signature:
            return saved["figures"]
    found = figures(run, args, train(run, args))
    run.result.write_text(json.dumps({"signature": signature, "figures": found}, indent=1))
    return found


def summary(results: dict[tuple[str, str, int], dict[str, Any]], args: argparse.Namespace) -> str:
    """A table per scene and one of the means, in Markdown."""
    text = []
    scenes = [scene.name for scene in args.scenes]
    for scene in [*scenes, *(["mean of all scenes"] if len(scenes) > 1 else [])]:
        text += [f"\n### {scene}\n", "| method | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 1) + "|"]
        for method in args.methods:
            rows = [r for (s, m, _), r in results.items() if m == method and (s == scene or scene not in scenes)]
            if rows:
                text.append(f"| {method} | " + " | ".join(_cell(rows, figure) for figure in FIGURES) + " |")
    return "\n".join([*text, *differences(results, args)]) + "\n"


def differences(results: dict[tuple[str, str, int], dict[str, Any]], args: argparse.Namespace) -> list[str]:
    """What the reference has more than each other method, in Markdown: the claim. Seeds that both have count."""
    scenes = [scene.name for scene in args.scenes]
    text = [f"\n### {REFERENCE} against each: PSNR, SSIM, share of its Gaussians\n"]
    text += ["| method | " + " | ".join([*scenes, "mean"]) + " |", "|---" * (len(scenes) + 2) + "|"]
    for method in args.methods:
        pairs = [
            (scene, ours, other)
            for (scene, name, seed), other in results.items()
            if name == method != REFERENCE and (ours := results.get((scene, REFERENCE, seed)))
        ]
        if pairs:
            columns = [[pair[1:] for pair in pairs if pair[0] == scene] for scene in scenes]
            columns.append([pair for column in columns for pair in column])
            text.append(f"| {method} | " + " | ".join(map(_difference, columns)) + " |")
    return text if len(text) > 3 else []


def _difference(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    if not pairs:
        return "–"
    psnr, ssim = (mean(ours[figure] - other[figure] for ours, other in pairs) for figure in ("psnr", "ssim"))
    ours, others = (sum(run["gaussians"] for run in runs) for runs in zip(*pairs, strict=True))
    return f"{psnr:+.2f} · {ssim:+.3f} · {ours / others:.2f}"


def _cell(rows: Sequence[dict[str, Any]], figure: str) -> str:
    values = [row[figure] for row in rows if row.get(figure) is not None]
    if not values:
        return "–"
    whole = figure in ("gaussians", "steps", "cpu_s", "peak_mb")
    digits = 0 if whole else 3 if figure in ("ssim", "lpips", "coverage") else 2
    spread = f" ±{stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def main() -> None:
    """Run what is missing, then write the table."""
    from benchmarks.quality_report import budgets_drawing, report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", type=Path, required=True)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[1])
    parser.add_argument("--iterations", type=int, default=4000)
    parser.add_argument("-r", "--resolution", type=int, default=300)
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "quality")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--at", type=int, help="figures of this iteration, not of the last; with an --out of its own")
    parser.add_argument("extra", nargs="*", help="flags for every run, after --")
    args = parser.parse_args()
    args.scenes = [scene.resolve() for scene in args.scenes]
    if unknown := set(args.methods) - set(METHODS):
        parser.error(f"unknown methods {sorted(unknown)}; there are {', '.join(METHODS)}")
    if missing := [str(scene) for scene in args.scenes if not scene.is_dir()]:
        parser.error(f"--scenes {', '.join(missing)}: no such folder; give folders of datasets")
    runs = list(all_runs(args))
    results: dict[tuple[str, str, int], dict[str, Any]] = {}
    with ThreadPoolExecutor(args.jobs) as pool:
        found = pool.map(lambda run: perform(run, args), runs)
        for run, figures_ in tqdm(zip(runs, found, strict=True), total=len(runs)):
            results[(run.scene.name, run.method, run.seed)] = figures_ | {"flagged_gain": flagged_gain(run, args)}
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / "table.md").write_text(summary(results, args))
            rows = [{"scene": s, "method": m, "seed": k, **r} for (s, m, k), r in results.items()]
            (args.out / "results.json").write_text(json.dumps(rows, indent=1))
            (args.out / "report.html").write_text(report(rows, FIGURES, args.out), encoding="utf-8")
            if drawing := budgets_drawing(rows):
                (args.out / "budgets.svg").write_text(drawing, encoding="utf-8")
    sys.stdout.write(summary(results, args))


if __name__ == "__main__":
    main()
