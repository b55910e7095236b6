# SPDX-License-Identifier: Apache-2.0
"""Draw a trained model: its training and held-out views, or a camera path; or any splat PLY without a dataset.

    python render.py -m MODEL [--iteration N] [--skip_train] [--skip_test] [--depth] [--alpha]
    python render.py -m MODEL --trajectory ellipse|interp|FILE --video out.mp4
    python render.py --ply FILE --cameras FILE [--output DIR]

Views go to MODEL/train and MODEL/test as ours_N/renders/00000.png beside ours_N/gt, in the order of their names.
With --depth there are 16-bit PNGs in depth/, whose scale is in depth/depth.json, and a coloured preview.
"""

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    from utils.startup import quiet_imports

    quiet_imports()

import numpy as np
import torch
from diff_gaussian_rasterization import set_threads
from torch import Tensor
from tqdm import tqdm

from arguments import DataConfig, store
from gaussian_renderer import RenderOutput
from gaussian_renderer import render as render_view
from gaussian_renderer.backend import choose_backend
from scene.cameras import Camera
from scene.dataset import Scene, open_scene, training_size
from scene.gaussian_model import GaussianModel
from scene.model_folder import load_model
from scene.splat_files import read_splats
from scene.splats import SplatArrays
from scene.viewpoints import camera_path, read_viewpoints
from utils.atomic import write_text
from utils.command import Parser, run_command
from utils.errors import UserError
from utils.pictures import depth_levels, depth_preview, to_uint8, write_png
from utils.video import write_video


@dataclass(frozen=True)
class Model:
    """Gaussians and how they want to be drawn: background [3], compact-box factor; where in the world is their zero."""

    gaussians: GaussianModel
    background: Tensor
    mult: float
    zero: np.ndarray

    @torch.no_grad()
    def draw(self, camera: Camera, *, depth: bool = False) -> RenderOutput:
        """One view."""
        return render_view(camera, self.gaussians, self.background, mult=self.mult, want_depth=depth)


def main(args: Sequence[str]) -> None:
    """The command."""
    settings = parse(args)
    torch.set_num_threads(1)
    set_threads(settings.threads)
    if settings.ply is not None:
        _render_ply(settings)
    else:
        _render_run(settings)


def parse(args: Sequence[str]) -> argparse.Namespace:
    """The flags; UserError for combinations that mean nothing."""
    parser = Parser("Draw the views of a trained model, or a camera path, or any splat PLY.")
    what = parser.add_argument_group("what to draw")
    what.add_argument("-m", "--model_path", type=Path, metavar="MODEL", help="folder of a run")
    what.add_argument("--iteration", type=int, default=-1, help="which saved iteration; -1 is the last")
    what.add_argument("--ply", type=Path, metavar="FILE", help="any file of Gaussians instead: PLY, SPZ, SOG …")
    what.add_argument("--cameras", type=Path, metavar="PATH", help="for --ply: a cameras.json, or a COLMAP folder")
    what.add_argument("--skip_train", action="store_true", help="leave the training views out")
    what.add_argument("--skip_test", action="store_true", help="leave the held-out views out")
    what.add_argument("--depth", action="store_true", help="depth maps too")
    what.add_argument("--alpha", action="store_true", help="alpha maps too")
    path = parser.add_argument_group("camera path, instead of the views")
    path.add_argument("--trajectory", metavar="ellipse|interp|FILE", help="round the focus, between the views, a file")
    path.add_argument("--video", type=Path, metavar="OUT.mp4", help="write a video; without it the frames as PNGs")
    path.add_argument("--frames", type=int, default=120, help="frames of ellipse and interp")
    path.add_argument("--fps", type=float, help="frames per second; default 24, or the file's")
    data = parser.add_argument_group("the dataset; default: as the run was trained")
    data.add_argument("-s", "--source", "--source_path", type=Path, help="where the dataset is now")
    data.add_argument("-i", "--images", help="sub-folder of the photos")
    data.add_argument("-r", "--resolution", type=int, help="1, 2, 4, 8, a width in pixels, or -1")
    data.add_argument("-w", "--white_background", action="store_true", default=None, help="white behind the scene")
    data.add_argument("--eval", action="store_true", default=None, help="every 8th view is held out")
    data.add_argument("--no_eval", dest="eval", action="store_false", help="all views are training views")
    how = parser.add_argument_group("how to draw")
    how.add_argument("--mult", type=float, help="compact-box factor; default: as trained, 1 for a stranger's model")
    how.add_argument("--backend", choices=("auto", "cpu", "cuda"), default="auto", help="where to render")
    how.add_argument("--threads", type=int, default=0, help="threads; 0 takes all cores")
    how.add_argument("--output", type=Path, metavar="DIR", help="for --ply: where to write; default output/NAME")
    how.add_argument("--quiet", action="store_true", help="print nothing but errors")
    settings = parser.parse_args(args)
    _check(settings)
    return settings


def _check(settings: argparse.Namespace) -> None:
    if (settings.ply is None) == (settings.model_path is None):
        raise UserError("give either -m MODEL, the folder of a run, or --ply FILE with --cameras FILE")
    if settings.ply is not None and settings.cameras is None:
        raise UserError("--ply needs --cameras: a cameras.json, or a folder with a COLMAP model")
    if settings.video is not None and settings.trajectory is None:
        raise UserError("--video needs --trajectory: ellipse, interp or a file")
    for name in ("frames", "fps", "mult"):
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name} {value}: must be positive")


def _render_run(settings: argparse.Namespace) -> None:
    """A run's folder: its views, or a path among them."""
    trained = load_model(settings.model_path, settings.iteration)
    data = data_settings(settings, trained.settings)
    model = _model(trained.splats, data.white_background, settings.mult, _device(settings))
    name = f"ours_{trained.iteration}"
    scene = open_scene(data)
    if settings.trajectory is not None:
        _render_path(settings, model, list(scene.train_cameras), settings.model_path / "trajectory" / name)
        return
    for split, cameras in _splits(settings, scene).items():
        _write_views(settings, model, cameras, settings.model_path / split / name)


def _splits(settings: argparse.Namespace, scene: Scene) -> dict[str, tuple[Camera, ...]]:
    """The views that were asked for, by the folder they go to."""
    if not scene.test_cameras and not settings.quiet:
        print("This run held no views out (--no_eval): there are training views only.")
    asked = {
        "train": () if settings.skip_train else scene.train_cameras,
        "test": () if settings.skip_test else scene.test_cameras,
    }
    return {split: cameras for split, cameras in asked.items() if cameras}


def _render_ply(settings: argparse.Namespace) -> None:
    """A PLY from anywhere, seen from given places."""
    splats = read_splats(settings.ply)
    model = _model(splats, settings.white_background, settings.mult, _device(settings))
    cameras = [camera.moved(model.zero) for camera in read_viewpoints(settings.cameras)]
    if settings.resolution is not None:
        sizes = [training_size(camera.width, camera.height, settings.resolution) for camera in cameras]
        cameras = [camera.scaled(width) for camera, (width, _) in zip(cameras, sizes, strict=True)]
    output = settings.output or Path("output") / settings.ply.stem
    if settings.trajectory is not None:
        _render_path(settings, model, cameras, output)
    else:
        _write_views(settings, model, cameras, output)


def data_settings(settings: argparse.Namespace, cfg_args: dict[str, Any]) -> DataConfig:
    """The dataset's settings: flags, else config.json, else a stranger's cfg_args."""
    file = settings.model_path / store.FILE_NAME
    data = store.load(file).data if file.is_file() else _strangers_data(cfg_args)
    names = ("source", "images", "resolution", "white_background", "eval")
    given = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    return replace(data, **given)


def _strangers_data(cfg_args: dict[str, Any]) -> DataConfig:
    """What a cfg_args says of the dataset; values of the wrong kind are as good as absent."""
    kinds = {"images": str, "resolution": int, "white_background": bool, "eval": bool}
    known = {name: cfg_args[name] for name, kind in kinds.items() if type(cfg_args.get(name)) is kind}
    source = cfg_args.get("source_path")
    return DataConfig(source=Path(source) if isinstance(source, str) and source else None, **known)


def _device(settings: argparse.Namespace) -> torch.device:
    """Where to draw."""
    backend = choose_backend(settings.backend)
    if not settings.quiet:
        print(f"Backend: {backend.told}")
    return backend.device


def _model(splats: SplatArrays, white_background: bool | None, mult: float | None, device: torch.device) -> Model:
    """What flags leave open comes from the PLY's comments, else it is as in plain 3DGS: black, full footprint."""
    parameters = {name: torch.from_numpy(array) for name, array in splats.parameters().items()}
    degrees = {"max_sh_degree": splats.max_sh_degree, "sh_degree": splats.sh_degree}
    background = splats.tags.get("background", (0.0, 0.0, 0.0))
    if white_background is not None:
        background = (float(white_background),) * 3
    return Model(
        gaussians=GaussianModel(parameters, **degrees, device=device),
        background=torch.tensor(background, dtype=torch.float32, device=device),
        mult=float(mult or splats.tags.get("mult", 1.0)),
        zero=np.array(splats.tags.get("origin", (0.0, 0.0, 0.0))),
    )


def _write_views(settings: argparse.Namespace, model: Model, cameras: Sequence[Camera], folder: Path) -> None:
    """Pictures of all views, put in place together once they are all there."""
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    scales: dict[str, float] = {}
    seconds = 0.0
    try:
        for index, camera in enumerate(_progress(cameras, settings)):
            name = f"{index:05d}.png"
            began = time.perf_counter()
            drawn = model.draw(camera, depth=settings.depth)
            image = to_uint8(drawn.image)  # waits for a card
            seconds += time.perf_counter() - began
            write_png(unfinished / "renders" / name, image)
            if settings.alpha:
                write_png(unfinished / "alpha" / name, to_uint8(drawn.alpha))
            if settings.depth:
                levels, scales[name] = depth_levels(drawn.depth, drawn.alpha)
                write_png(unfinished / "depth" / name, levels)
                write_png(unfinished / "depth_preview" / name, depth_preview(levels))
            _write_photo(unfinished, name, camera)
        if scales:
            unit = "scene units along the optical axis per level; level 0: nothing there"
            write_text(unfinished / "depth" / "depth.json", json.dumps({"unit": unit, "scale": scales}, indent=1))
        _replace_folders(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if not settings.quiet:
        print(f"{len(cameras)} views in {folder / 'renders'}, drawn at {len(cameras) / max(seconds, 1e-9):.1f} FPS")


def _write_photo(folder: Path, name: str, camera: Camera) -> None:
    """The photo that the view is to be compared with, and where it counts."""
    if camera.photo is None:
        return
    write_png(folder / "gt" / name, to_uint8(camera.image()))
    mask = camera.mask()
    if mask is not None:
        write_png(folder / "masks" / name, to_uint8(mask))
    camera.photo.release()


def _replace_folders(source: Path, target: Path) -> None:
    """Move the pictures in `source` to `target`; older ones of ours go first, masks too, and no other file."""
    names = {path.name for path in source.iterdir()}
    for name in names | ({"masks"} if "gt" in names else set()):
        for old in (target / name).glob("[0-9][0-9][0-9][0-9][0-9].png"):
            old.unlink()
    for path in source.glob("*/*"):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)


def _render_path(settings: argparse.Namespace, model: Model, cameras: Sequence[Camera], folder: Path) -> None:
    """A camera path, as a video or as pictures."""
    path, own_fps = camera_path(settings.trajectory, cameras, settings.frames, model.zero)
    fps = settings.fps or own_fps or 24.0
    if settings.video is None:
        _write_views(settings, model, path, folder)
        return
    sizes = {(camera.width, camera.height) for camera in path}
    if len(sizes) > 1:
        raise UserError(f"--trajectory {settings.trajectory}: a video needs frames of one size, here are {sizes}")
    count = write_video(settings.video, _frames(settings, model, path), fps)
    if not settings.quiet:
        print(f"{count} frames in {settings.video}")


def _frames(settings: argparse.Namespace, model: Model, path: Sequence[Camera]) -> Iterator[np.ndarray]:
    for camera in _progress(path, settings):
        yield to_uint8(model.draw(camera).image)


def _progress(cameras: Sequence[Camera], settings: argparse.Namespace) -> Iterator[Camera]:
    return iter(tqdm(cameras, desc="Rendering progress", disable=settings.quiet))


if __name__ == "__main__":
    sys.exit(run_command(main))
