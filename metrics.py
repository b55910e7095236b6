# SPDX-License-Identifier: Apache-2.0
"""Measure rendered views against the photos: results.json, per_view.json, metrics_protocol.json.

    python metrics.py -m MODEL [MODEL...] [--lpips_weights FILE]

The protocol is INRIA's, so that figures can stand beside published ones; metrics_protocol.json declares it.
"""

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

if __name__ == "__main__":
    from utils.startup import quiet_imports

    quiet_imports()

import torch

from gaussian_renderer.backend import choose_backend
from scene.model_folder import holds_out_views
from utils.atomic import write_text
from utils.command import Parser, run_command
from utils.errors import UserError
from utils.lpips import LPIPS_PROTOCOL, Lpips
from utils.metrics import MASK_PROTOCOL, PSNR_PROTOCOL, SSIM_PROTOCOL, hide, psnr, ssim
from utils.pictures import read_mask, read_picture
from utils.report import write_report

LPIPS_WEIGHTS = Path(__file__).resolve().parent / "weights" / "lpips_vgg.safetensors"


@dataclass
class Figures:
    """One method's metrics by picture name; None where a figure does not exist."""

    SSIM: dict[str, float | None] = field(default_factory=dict)
    PSNR: dict[str, float | None] = field(default_factory=dict)
    LPIPS: dict[str, float | None] = field(default_factory=dict)
    masked: int = 0
    """Views of which a mask hid a part."""

    def means(self) -> dict[str, float | None]:
        """Mean over views of each metric, in the order that consumers of results.json know."""
        return {name: _mean(getattr(self, name).values()) for name in ("SSIM", "PSNR", "LPIPS")}

    def per_view(self) -> dict[str, dict[str, float | None]]:
        """The entry of per_view.json."""
        return {name: getattr(self, name) for name in ("SSIM", "PSNR", "LPIPS")}


def measure(folder: Path, lpips: Lpips | None, device: torch.device) -> Figures:
    """Compare `folder`/renders with `folder`/gt, minding `folder`/masks where there is one; computed on a device."""
    figures = Figures()
    for render in sorted((folder / "renders").glob("*.png")):
        image, photo = (read_picture(file).to(device) for file in (render, folder / "gt" / render.name))
        if image.shape != photo.shape:
            raise UserError(f"{render}: size differs from its photo in gt/; run render.py again")
        mask_file = folder / "masks" / render.name
        mask = read_mask(mask_file).to(device) if mask_file.is_file() else None
        figures.masked += mask is not None
        figures.SSIM[render.name] = _finite(ssim(image, photo, mask))
        figures.PSNR[render.name] = _finite(psnr(image, photo, mask))
        figures.LPIPS[render.name] = lpips and _finite(lpips.distance(hide(image, mask), hide(photo, mask)))
    return figures


def methods(model: Path) -> tuple[str, list[Path]]:
    """The split that is measured, "test" unless the run held nothing out, and its rendered folders."""
    if not model.is_dir():
        raise UserError(f"--model_path {model}: no such folder; train.py writes one")
    split = "test" if holds_out_views(model) else "train"
    folders = sorted(path.parent for path in model.glob(f"{split}/[!.]*/renders") if any(path.glob("*.png")))
    if not folders:
        raise UserError(f"--model_path {model}: no rendered {split} views; run render.py -m {model} first")
    return split, folders


def protocol(split: str, measured: dict[str, Figures], lpips: Lpips | None) -> dict[str, object]:
    """What the figures mean, for the file beside them."""
    return {
        "split": split,
        "views": {name: len(figures.PSNR) for name, figures in measured.items()},
        "pictures": "8-bit PNGs of renders and photos, read back",
        "SSIM": SSIM_PROTOCOL,
        "PSNR": PSNR_PROTOCOL,
        "LPIPS": lpips and {"net": lpips.net, "definition": LPIPS_PROTOCOL, "weights_sha256": lpips.sha256},
        "masks": MASK_PROTOCOL if any(figures.masked for figures in measured.values()) else "none",
        "null": "no figure: LPIPS without weights, PSNR of equal pictures, or a mask that keeps nothing",
    }


def evaluate(model: Path, lpips: Lpips | None, device: torch.device, *, quiet: bool) -> None:
    """Measure one model folder, write its three files and complete its report."""
    split, folders = methods(model)
    measured = {folder.name: measure(folder, lpips, device) for folder in folders}
    _write_json(model / "results.json", {name: figures.means() for name, figures in measured.items()})
    _write_json(model / "per_view.json", {name: figures.per_view() for name, figures in measured.items()})
    _write_json(model / "metrics_protocol.json", protocol(split, measured, lpips))
    report = write_report(model)
    if not quiet:
        _print_results(model, split, measured)
        print(f"Report: {report}")


def load_lpips(file: Path | None, device: torch.device, *, quiet: bool) -> Lpips | None:
    """The network of --lpips_weights, else of `make lpips`, else none and a notice that says so."""
    if file is not None:
        return Lpips(file, device)
    if LPIPS_WEIGHTS.is_file():
        return Lpips(LPIPS_WEIGHTS, device)
    if not quiet:
        print("LPIPS is null: no weights. `make lpips` fetches them, or give --lpips_weights FILE.")
    return None


def main(args: Sequence[str]) -> None:
    """The command."""
    parser = Parser("Measure rendered views against the photos, by INRIA's protocol.")
    parser.add_argument("-m", "--model_path", "--model_paths", type=Path, nargs="+", required=True, metavar="MODEL")
    parser.add_argument("--lpips_weights", type=Path, metavar="FILE", help="safetensors of LPIPS with VGG16")
    parser.add_argument("--backend", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    settings = parser.parse_args(args)
    for model in settings.model_path:
        methods(model)  # a wrong folder is found before the first is measured
    device = choose_backend(settings.backend).device
    lpips = load_lpips(settings.lpips_weights, device, quiet=settings.quiet)
    for model in settings.model_path:
        evaluate(model, lpips, device, quiet=settings.quiet)


def _print_results(model: Path, split: str, measured: dict[str, Figures]) -> None:
    print(f"Scene: {model}")
    if split == "train":
        print("This run held no views out (--no_eval): these are figures of its TRAINING views.")
    for name, figures in measured.items():
        print(f"Method: {name} ({len(figures.PSNR)} {split} views)")
        for metric, value in figures.means().items():
            print(f"  {metric:5}: {'null' if value is None else f'{value:12.7f}'}")


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _finite(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if math.isfinite(value) else None


def _write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=1))


if __name__ == "__main__":
    sys.exit(run_command(main))
