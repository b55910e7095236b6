# SPDX-License-Identifier: Apache-2.0
"""A run folder made of formulas, for tests and for looking at the report: python -m tests.synthetic_run FOLDER."""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HOSTILE = "</script><img src=x onerror=alert(1)><script src='http://evil.example/x.js'>\x07&\"'"
PHASES = (("main", 400), ("ambient", 1600), ("vlm", 1000))


def write_run(path: Path, *, seed: int = 0, text: str = "blurred leaves", size: tuple[int, int] = (96, 128)) -> Path:
    """Write every file that the report reads; `text` goes wherever text from outside can stand."""
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True, exist_ok=True)
    _json(path / "config.json", {"format": 1, "run": {"iterations": 3000, "seed": seed, "note": text}, "eval": True})
    _log(path / "log.jsonl", rng, text)
    _views(path, rng, size, text)
    _json(path / "geometry.json", geometry())
    (path / "snapshots").mkdir(exist_ok=True)
    for iteration, name in ((400, "main_end"), (400, "ambient_insertion"), (1400, "ambient_1"), (2000, "ambient_end")):
        _png(path / "snapshots" / f"{iteration}_{name}.png", scene(size, rng, 3000 / (iteration + 300)))
    for k in (1, 2):
        _round(path / "vlm" / f"round_{k}", rng, size, text)
    return path


def scene(size: tuple[int, int], rng: np.random.Generator, noise: float = 0.0, turn: float = 0.0) -> np.ndarray:
    """A ball on a plain under a sky, uint8 [H, W, 3]."""
    y, x = np.mgrid[: size[0], : size[1]] / size[0] - 0.5
    x = x - 0.17
    sky = np.stack([0.55 + 0.3 * y, 0.7 + 0.2 * y, 0.95 + 0.1 * y], 2)
    checks = 0.1 * np.sign(np.sin(6 / (y + 0.51) + turn) * np.sin(9 * x / (y + 0.3) + turn))
    plain = np.stack([0.45 + checks, 0.42 + checks, 0.3 + checks], 2)
    picture = np.where((y > 0.08)[..., None], plain, sky)
    z2 = 0.08 - x**2 - y**2
    shade = 0.2 + 2.4 * np.sqrt(np.maximum(z2, 0)) * (1 - y + 0.5 * np.sin(14 * x + turn) ** 2) * 0.8
    picture = np.where((z2 > 0)[..., None], shade[..., None] * [0.9, 0.35, 0.2], picture)
    picture = picture + rng.normal(scale=0.02 * noise, size=picture.shape)
    return (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def geometry() -> dict:
    """Two orbits round a subject."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    cameras = [[2.5 * np.cos(a), -0.6 - 0.7 * (k % 2), 2.5 * np.sin(a)] for k, a in enumerate(angles)]
    directions = [(-np.array(c) / np.linalg.norm(c)).tolist() for c in cameras]
    basics = {"focus": [0, 0, 0], "up": [0, -1, 0], "subject_radius": 0.9}
    return {**basics, "cameras": cameras, "directions": directions}


def tube() -> dict:
    """A tube that leans by 0.8 radians."""
    s, c = float(np.sin(0.8)), float(np.cos(0.8))
    axis, across = [s, -c, 0.0], [[c, s, 0.0], [0.0, 0.0, 1.0]]
    return {"center": [0, 0, 0], "axis": axis, "across": across, "semi_axes": [4.2, 3.6], "half_length": 5.0}


def _log(path: Path, rng: np.random.Generator, text: str) -> None:
    lines, start, count, elapsed = [], 0, 100, 0.0
    lines.append({"iteration": 0, "event": f"tube: {text}", "tube": tube()})
    lines.append({"iteration": 0, "tube_hit": 0.973, "tube_blocked": 0.004, "tube_upright_hit": 0.91})
    for phase, length in PHASES:
        lines.append({"iteration": start, "event": f"{phase} begins: {text}", "stage": "seeds", "seconds": 4.2})
        for iteration in range(start + 10, start + length + 1, 10):
            rate = 80 - iteration / 60
            elapsed += 10 / rate
            count = int(count * 1.01 + 20) if iteration < 2000 else count
            count = count // 2 if iteration == 2250 else count
            loss = 0.06 + 0.3 * np.exp(-iteration / 500) + rng.normal(scale=0.01)
            line = {"iteration": iteration, "phase": phase, "loss": loss, "gaussians": count, "it_per_s": rate}
            if iteration % 500 == 0:
                line |= {"psnr": 27 - 12 * np.exp(-iteration / 600) + rng.normal(scale=0.1), "coverage": 0.95}
            lines.append({**line, "elapsed": elapsed})
        start += length
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"iteration": 30')


def _views(path: Path, rng: np.random.Generator, size: tuple[int, int], text: str) -> None:
    psnr = {}
    for k in range(6):
        name = f"{k:05d}.png"
        render, photo = scene(size, rng, 1 + 2 * k, turn=k), scene(size, rng, turn=k)
        _png(path / "test" / "ours_3000" / "renders" / name, render)
        _png(path / "test" / "ours_3000" / "gt" / name, photo)
        psnr[name] = float(-10 * np.log10(((render / 255.0 - photo / 255.0) ** 2).mean()))
    mean = sum(psnr.values()) / len(psnr)
    names = [f"a/{k:02d} {text}.jpg" for k in range(8)]
    _json(path / "cameras.json", [{"id": k, "img_name": name} for k, name in enumerate(names)])
    _json(path / "results.json", {"ours_3000": {"SSIM": 0.8731, "PSNR": mean, "LPIPS": None}})
    _json(path / "per_view.json", {"ours_3000": {"SSIM": {}, "PSNR": psnr, "LPIPS": {}}})
    _json(path / "metrics_protocol.json", {"split": "test"})


def _round(folder: Path, rng: np.random.Generator, size: tuple[int, int], text: str) -> None:
    records = []
    for k in range(2):
        for what, noise in (("render", 4), ("photo", 0), ("after", 2)):
            _png(folder / f"view{k}_{what}.png", scene(size, rng, noise, turn=k))
        found = [
            {"bbox": [20, 30, 70, 80], "accepted": True, "label": text, "reason": "median error 0.12 above 0.08"},
            {"bbox": [90, 5, 120, 30.5], "accepted": False, "label": text, "reason": f"below the bar {text}"},
            {"bbox": "nonsense", "accepted": False, "reason": "not four numbers"},
        ]
        pictures = {what: f"view{k}_{what}.png" for what in ("render", "photo", "after")}
        record = {"view": f"a/{k} {text}.jpg", "detector": "qwen", "model": "tiny model of the Qwen3-VL architecture"}
        record |= {"prompt": f"Compare. {text}", "raw_answer": f"```json [{text}]```", "boxes": found}
        errors = {"before": {"inside": 0.12, "outside": 0.03}, "after": {"inside": 0.06, "outside": 0.031}}
        records.append({**record, "pictures": pictures, "errors": errors})
    calm = {"view": "calm.jpg", "detector": "qwen", "prompt": f"Compare. {text}", "raw_answer": "[]", "boxes": []}
    calm["pictures"] = {"render": "view0_photo.png", "photo": "view0_photo.png"}
    failed = {"view": "x.jpg", "detector": "qwen", "prompt": f"Compare. {text}", "error": f"timed out {text}"}
    figures = {"views": 4, "random_acceptance": 0.21, "covered_need": 0.8}
    sides = {side: {"train": error, "held_out": error} for side, error in errors.items()}
    _json(folder / "summary.json", {"detector": "qwen", "inspection": figures, **sides})
    (folder / "audit.jsonl").write_text("".join(json.dumps(record) + "\n" for record in [calm, *records, failed]))


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def _png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


if __name__ == "__main__":
    from utils.report import write_report

    folder = Path(sys.argv[1])
    runs = [write_run(folder / name, seed=k, size=(192, 256)) for k, name in enumerate(("garden", "garden_fastgs"))]
    print(write_report(runs[0]), write_report(runs[1], runs[:1]))
