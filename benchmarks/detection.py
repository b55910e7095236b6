# SPDX-License-Identifier: Apache-2.0
"""Do the detectors of phase 2 find defects that are planted in a trained scene?

    python benchmarks/detection.py RUN [RUN...] --trials 100 [--detectors residual,embedded] [--json FILE]

A defect is planted in the Gaussians of one spot: they are removed, blurred, recoloured, or floaters are put before
them. The truth is the box round the pixels that change. A detector sees the damaged render and the photo, with all that
the trained scene has of errors of its own; the boxes that pass phase 2's bar are scored:

* recall: share of the defects that a box overlaps with an IoU of at least `HIT`;
* precision: share of the boxes that overlap the defect so; the scene's own errors count against it;
* IoU of the best box; *chance* is that of one box of the true size at a random place.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from arguments import DetectorConfig, store  # noqa: E402
from gaussian_renderer import render  # noqa: E402
from scene.cameras import Camera  # noqa: E402
from scene.dataset import open_scene  # noqa: E402
from scene.gaussian_model import GaussianModel  # noqa: E402
from scene.model_folder import load_model  # noqa: E402
from vlm import open_detector  # noqa: E402
from vlm.acceptance import judge, moved_at_random  # noqa: E402
from vlm.defects import Box, DefectDetector, error_map  # noqa: E402
from vlm.embedded.measure import iou  # noqa: E402

HIT = 0.2
"""Overlap from which a box has found a defect: it is refined where the two meet, and errors have no sharp edge."""
CHANGED = 0.05
"""Mean absolute change of a pixel from which it belongs to the defect."""
LEAST, MOST = 0.005, 0.2
"""Shares of the picture that a defect's box may take."""
RADIUS = 0.12
"""Half width of a defect in the picture, as a share of its width."""


@dataclass(frozen=True)
class Trial:
    """One planted defect: what a detector is shown, and where it is."""

    kind: str
    view: str
    damaged: Tensor
    photo: Tensor
    truth: Box


@dataclass(frozen=True)
class World:
    """A trained run."""

    gaussians: GaussianModel
    cameras: tuple[Camera, ...]
    background: Tensor
    mult: float

    @torch.no_grad()
    def draw(self, camera: Camera, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """A view [3, H, W], with other parameters than the trained ones if there are any."""
        gaussians = self.gaussians
        if parameters is not None:
            degrees = {"max_sh_degree": gaussians.max_sh_degree, "sh_degree": gaussians.sh_degree}
            gaussians = GaussianModel(parameters, **degrees)
        return render(camera, gaussians, self.background, mult=self.mult).image.clamp(0, 1)


def open_world(run: Path) -> World:
    """Read a finished run; its dataset must be where it was."""
    data, splats = store.load(run / store.FILE_NAME).data, load_model(run).splats
    parameters = {name: torch.from_numpy(array) for name, array in splats.parameters().items()}
    gaussians = GaussianModel(parameters, max_sh_degree=splats.max_sh_degree, sh_degree=splats.sh_degree)
    background = torch.full((3,), float(data.white_background))
    return World(gaussians, open_scene(data).train_cameras, background, splats.tags.get("mult", 1.0))


# -- defects: all parameters, changed where the spot [N] is true --------------------------------------------------


def removed(rows: dict[str, Tensor], spot: Tensor, camera: Camera, generator: torch.Generator) -> dict[str, Tensor]:
    """They are gone."""
    return {name: value[~spot] for name, value in rows.items()}


def blurred(rows: dict[str, Tensor], spot: Tensor, camera: Camera, generator: torch.Generator) -> dict[str, Tensor]:
    """Three times larger, round, in their mean colour."""
    rows["log_scales"][spot] = rows["log_scales"][spot].amax(1, keepdim=True) + float(np.log(3))
    rows["sh_dc"][spot] = rows["sh_dc"][spot].mean(0, keepdim=True)
    rows["sh_rest"][spot] = 0
    return rows


def recoloured(rows: dict[str, Tensor], spot: Tensor, camera: Camera, generator: torch.Generator) -> dict[str, Tensor]:
    """Another hue."""
    rows["sh_dc"][spot] += 1.2 * torch.randn(1, 1, 3, generator=generator).sign()
    return rows


def floaters(rows: dict[str, Tensor], spot: Tensor, camera: Camera, generator: torch.Generator) -> dict[str, Tensor]:
    """A cloud of copies of Gaussians from elsewhere, half way between the camera and the spot."""
    count = 20
    chosen = torch.randint(len(spot), (count,), generator=generator)
    added = {name: value[chosen] for name, value in rows.items()}
    position = torch.from_numpy(camera.position).float()
    center = (position + rows["means"][spot].mean(0)) / 2
    size = float((center - position).norm()) * RADIUS * camera.width / camera.fx
    added["means"] = center + 0.5 * size * torch.randn(count, 3, generator=generator)
    added["log_scales"] = torch.full((count, 3), float(np.log(0.3 * size)))
    added["logit_opacities"] = torch.full((count, 1), 1.0)
    return {name: torch.cat([value, added[name]]) for name, value in rows.items()}


KINDS = {kind.__name__: kind for kind in (removed, blurred, recoloured, floaters)}


# -- trials --------------------------------------------------------------------------------------------------------


def plant(world: World, count: int, seed: int) -> Iterator[Trial]:
    """Defects of all kinds in turn, in random views at random visible spots."""
    generator = torch.Generator().manual_seed(seed)
    kinds, done = list(KINDS), 0
    for _ in range(20 * count):
        camera = world.cameras[int(torch.randint(len(world.cameras), (1,), generator=generator))]
        spot = _spot(world, camera, generator)
        kind = kinds[done % len(kinds)]
        rows = {name: value.detach().clone() for name, value in world.gaussians.parameters().items()}
        damaged = world.draw(camera, KINDS[kind](rows, spot, camera, generator))
        truth = _changed(damaged, world.draw(camera))
        if truth is None:
            continue
        yield Trial(kind, camera.name, damaged, camera.image(), truth)
        done += 1
        if done == count:
            return


@torch.no_grad()
def _spot(world: World, camera: Camera, generator: torch.Generator) -> Tensor:
    """Gaussians near the surface at a random pixel, bool [N]."""
    drawn = render(camera, world.gaussians, world.background, mult=world.mult, want_depth=True)
    row, column = (int(torch.randint(size, (1,), generator=generator)) for size in drawn.alpha.shape)
    depth = float(drawn.depth[row, column] / drawn.alpha[row, column].clamp_min(1e-3))
    pose = torch.from_numpy(camera.camera_from_world).float()
    center = depth * torch.tensor([(column + 0.5 - camera.cx) / camera.fx, (row + 0.5 - camera.cy) / camera.fy, 1.0])
    seen = world.gaussians.means @ pose[:3, :3].T + pose[:3, 3]
    return (seen - center).norm(dim=1) < RADIUS * depth * camera.width / camera.fx


def _changed(damaged: Tensor, before: Tensor) -> Box | None:
    """The box round 96 % of what has changed, in either direction; None where that is too little or too much."""
    change = (error_map(damaged, before) > CHANGED).numpy()
    if not change.any():
        return None
    edges = [np.quantile(np.nonzero(change)[axis], (0.02, 0.98)) for axis in (1, 0)]
    box = Box(edges[0][0], edges[1][0], edges[0][1] + 1, edges[1][1] + 1)
    return box if LEAST <= box.area / change.size <= MOST else None


def score(detector: DefectDetector, trials: list[Trial], seed: int) -> dict[str, Any]:
    """Recall, precision and IoU over all trials, and the recall of each kind."""
    generator = np.random.default_rng(seed)
    best, chance, boxes, hits = [], [], 0, 0
    for trial in trials:
        found = detector.detect(trial.view, trial.damaged, trial.photo).findings
        judged = judge(found, error_map(trial.damaged, trial.photo).numpy())
        overlaps = [iou(one.finding.box.corners(), trial.truth.corners()) for one in judged if one.accepted]
        boxes, hits = boxes + len(overlaps), hits + sum(overlap >= HIT for overlap in overlaps)
        best.append(max(overlaps, default=0.0))
        guess = moved_at_random(trial.truth, tuple(trial.photo.shape[1:]), generator)
        chance.append(iou(guess.corners(), trial.truth.corners()))
    overlap = np.array(best)
    kinds = np.array([trial.kind for trial in trials])
    return {
        "trials": len(trials),
        "boxes": boxes,
        "recall": float((overlap >= HIT).mean()),
        "precision": hits / max(boxes, 1),
        "iou": float(overlap.mean()),
        "chance": float(np.mean(chance)),
        **{f"recall, {kind}": float((overlap[kinds == kind] >= HIT).mean()) for kind in KINDS if kind in kinds},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--trials", type=int, default=100, help="defects for each run")
    parser.add_argument("--detectors", default="residual,embedded", help="residual, embedded, or a model's directory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for run in args.runs:
        trials = list(plant(open_world(run), args.trials, args.seed))
        for name in args.detectors.split(","):
            config = DetectorConfig(detector="residual") if name == "residual" else DetectorConfig(qwen_model_path=name)
            with open_detector(config, round_number=1, max_boxes=3, pixels=(1 << 20, 1 << 21), seed=0) as detector:
                rows.append({"run": str(run), "detector": name, **score(detector, trials, args.seed)})
            print(json.dumps(rows[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
