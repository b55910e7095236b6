# SPDX-License-Identifier: Apache-2.0
"""How a run begins: the starting Gaussians and the state round them."""

import json
from pathlib import Path

import numpy as np
import torch

from arguments import Config
from scene.dataset import Scene, moved_points
from scene.gaussian_model import GaussianModel
from scene.initialization import gaussians_at, random_points
from scene.photo_cache import HOST
from scene.ply import read_points
from scene.splat_files import holds_splats, read_splats
from scene.view_geometry import view_geometry
from utils.atomic import write_text
from utils.errors import UserError
from utils.run_dir import RunDir

from .density import DensityControl
from .optimizer import Optimizer
from .ranks import OneProcess
from .state import TrainingState


def start(
    config: Config, scene: Scene, run: RunDir, ranks: OneProcess | None = None, *, device: torch.device = HOST
) -> TrainingState:
    """The state before the first iteration, its Gaussians on a device."""
    generator = torch.Generator().manual_seed(config.run.seed)
    geometry = view_geometry(scene.train_cameras)
    gaussians = _starting_gaussians(config, scene, np.asarray(geometry.focus), generator, device)
    faithful = config.optim.fastgs_faithful
    scale = scene.extent if faithful else float(geometry.median_distance)
    state = TrainingState(
        config=config,
        scene=scene,
        geometry=geometry,
        gaussians=gaussians,
        optimizer=Optimizer(gaussians, config, scale),
        generator=generator,
        run=run,
        ranks=ranks or OneProcess(),
    )
    state.density = DensityControl(state)
    return state


def write_geometry(state: TrainingState) -> None:
    """geometry.json: what the cameras tell, for whoever draws the scene."""
    geometry, cameras = state.geometry, state.scene.train_cameras
    content = {
        "focus": geometry.focus.tolist(),
        "up": geometry.up.tolist(),
        "subject_radius": float(geometry.subject_radius),
        "cameras": geometry.positions.tolist(),
        "directions": [camera.viewing_direction.tolist() for camera in cameras],
    }
    write_text(state.run.path / "geometry.json", json.dumps(content))


def _starting_gaussians(
    config: Config, scene: Scene, focus: np.ndarray, generator: torch.Generator, device: torch.device
) -> GaussianModel:
    """The 100 random points, the SfM points, a PLY of points, or a file of Gaussians."""
    run, degree = config.run, config.pipeline.sh_degree
    if run.init == "random":
        center = torch.as_tensor(focus, dtype=torch.float32)
        points, colors = random_points(run.num_points, center, run.init_extent * scene.extent, generator)
    elif run.init != "sfm" and holds_splats(Path(run.init)):
        return _from_splats(Path(run.init), degree, scene.zero, device)
    else:
        cloud = scene.points if run.init == "sfm" else moved_points(read_points(Path(run.init)), scene.zero)
        if cloud is None:
            raise UserError("--init sfm: the dataset has no points3D; use --init random")
        points, colors = torch.from_numpy(cloud.xyz).float(), torch.from_numpy(cloud.rgb).float() / 255
    parameters = gaussians_at(points, colors, max_sh_degree=degree)
    return GaussianModel(parameters, max_sh_degree=degree, device=device)


def _from_splats(path: Path, degree: int, zero: np.ndarray, device: torch.device) -> GaussianModel:
    """Any file of Gaussians, its SH bands cut or padded to the run's degree."""
    splats = read_splats(path)
    offset = np.array(splats.tags.get("origin", (0.0, 0.0, 0.0))) - zero  # from the file's zero to the scene's
    count, bands = len(splats.means), (degree + 1) ** 2 - 1
    rest = np.zeros((count, bands, 3), np.float32)
    shared = min(bands, splats.sh_rest.shape[1])
    rest[:, :shared] = splats.sh_rest[:, :shared]
    parameters = {
        "means": (splats.means + offset).astype(np.float32) if offset.any() else splats.means,
        "log_scales": splats.log_scales,
        "quats": splats.quats,
        "logit_opacities": splats.logit_opacities.reshape(count, 1),
        "sh_dc": splats.sh_dc.reshape(count, 1, 3),
        "sh_rest": rest,
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in parameters.items()}
    return GaussianModel(tensors, max_sh_degree=degree, sh_degree=degree, device=device)
