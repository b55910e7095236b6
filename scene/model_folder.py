# SPDX-License-Identifier: Apache-2.0
"""The model folder that the tools of the INRIA family know.

    cfg_args                     the dataset's settings, one line
    cameras.json                 all views, held-out ones first
    input.ply                    the points a run began with
    exposure.json                identity for every photo: exposure is not trained here
    point_cloud/iteration_<N>/   point_cloud.ply, and beside it point_cloud.extra.npz: labels and births, row by row

What others wrote is data: `cfg_args` is read as literals and never evaluated.
"""

import ast
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.atomic import write_bytes, write_text
from utils.errors import UserError

from .cameras import Camera, SourceSize, pose
from .ply import SplatArrays, read_gaussians, write_gaussians, write_points
from .points import LARGEST, PointCloud, sane

ORIGIN = np.zeros(3)
"""The world's zero, where most scenes have theirs."""

CFG_LIMIT = 1 << 20
"""Bytes above which no cfg_args is parsed."""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """Gaussians as a run left them.

    labels uint8 [N] and births int32 [N] are None in a stranger's folder. `settings` is what cfg_args says.
    """

    splats: SplatArrays
    labels: np.ndarray | None
    births: np.ndarray | None
    iteration: int
    settings: dict[str, Any]


def save_gaussians(
    model_path: Path,
    iteration: int,
    arrays: Mapping[str, np.ndarray],
    *,
    labels: np.ndarray,
    births: np.ndarray,
    sh_degree: int,
    mult: float,
    white_background: bool,
    origin: np.ndarray = ORIGIN,
) -> Path:
    """Write the Gaussians of an iteration, and return the PLY's path.

    Args:
        model_path: The model folder.
        iteration: Names the sub-folder.
        arrays: Stored-space parameters, as `scene.ply.write_gaussians` takes them.
        labels: Origin of each row, uint8 [N].
        births: Iteration at which each row appeared, int32 [N].
        sh_degree: Degree to render with.
        mult: Compact-box factor to render with.
        white_background: What was behind the scene.
        origin: Where in the world the Gaussians' zero lies, [3].
    """
    folder = _iteration_folder(model_path, iteration)
    extra = io.BytesIO()
    np.savez(extra, labels=np.asarray(labels, np.uint8), births=np.asarray(births, np.int32))
    write_bytes(folder / "point_cloud.extra.npz", extra.getvalue())
    tags = {"mult": mult, "sh_degree": sh_degree, "background": (int(white_background),) * 3}
    tags |= {"origin": tuple(map(float, origin))} if np.any(origin) else {}
    path = folder / "point_cloud.ply"
    write_gaussians(path, arrays, tags=tags)  # last: a folder with a PLY is complete
    return path


def saved_iterations(model_path: Path) -> list[int]:
    """Iterations of which the folder holds a PLY, in ascending order."""
    folders = Path(model_path).glob("point_cloud/iteration_*")
    found = (re.fullmatch(r"iteration_(\d{1,12})", folder.name) for folder in folders)
    numbers = {int(match[1]) for match in found if match}
    return sorted(n for n in numbers if (_iteration_folder(model_path, n) / "point_cloud.ply").is_file())


def load_model(model_path: Path, iteration: int = -1) -> TrainedModel:
    """Read the Gaussians of an iteration; -1 takes the last that is there.

    Raises:
        UserError: There is no such iteration, or its PLY is damaged.
    """
    model_path = Path(model_path)
    known = saved_iterations(model_path)
    if not known:
        raise UserError(f"--model_path {model_path}: no point_cloud/iteration_N/point_cloud.ply; train a model first")
    number = known[-1] if iteration == -1 else iteration
    if number not in known:
        raise UserError(f"--iteration {iteration}: {model_path} holds {', '.join(map(str, known))}")
    folder = _iteration_folder(model_path, number)
    splats = read_gaussians(folder / "point_cloud.ply")
    extra = _read_extra(folder / "point_cloud.extra.npz", splats.kept)
    cfg = model_path / "cfg_args"
    return TrainedModel(
        splats=splats,
        labels=extra.get("labels"),
        births=extra.get("births"),
        iteration=number,
        settings=read_cfg_args(cfg) if cfg.is_file() else {},
    )


def write_run_files(
    model_path: Path,
    *,
    source: Path,
    images: str,
    resolution: int,
    white_background: bool,
    hold_out: bool,
    sh_degree: int,
    test_cameras: Sequence[Camera],
    train_cameras: Sequence[Camera],
    start: PointCloud,
    origin: np.ndarray = ORIGIN,
) -> None:
    """Write everything that does not change during a run: cfg_args, cameras.json, exposure.json, input.ply."""
    model_path = Path(model_path)
    settings = {
        "sh_degree": sh_degree,
        "source_path": str(Path(source).absolute()),
        "model_path": str(model_path),
        "images": images,
        "depths": "",
        "resolution": resolution,
        "white_background": white_background,
        "train_test_exp": False,
        "data_device": "cpu",
        "eval": hold_out,
    }
    write_text(model_path / "cfg_args", cfg_args(settings))
    cameras = [*test_cameras, *train_cameras]
    write_text(model_path / "cameras.json", json.dumps([_camera_entry(i, c, origin) for i, c in enumerate(cameras)]))
    identity = np.eye(3, 4).tolist()
    write_text(model_path / "exposure.json", json.dumps({camera.name: identity for camera in cameras}, indent=2))
    write_points(model_path / "input.ply", start.xyz + origin, start.rgb, doubles=bool(np.any(origin)))


def cfg_args(settings: Mapping[str, Any]) -> str:
    """Settings as the line that INRIA's tools evaluate and SIBR searches: `Namespace(name=value, ...)`.

    SIBR looks for `source_path='`, so a path with an apostrophe keeps its single quotes and the apostrophe is escaped.
    """
    return f"Namespace({', '.join(f'{name}={_literal(value)}' for name, value in settings.items())})"


def read_cfg_args(path: Path) -> dict[str, Any]:
    """The literals of a cfg_args; a value that is anything else is left out, and nothing is evaluated.

    Raises:
        UserError: The file is not the text of a Namespace.
    """
    try:
        data = Path(path).read_bytes()
        text = data.decode("utf-8", "surrogateescape") if len(data) <= CFG_LIMIT else ""
        call = ast.parse(text.strip(), mode="eval").body
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give the model folder of a training run"
        ) from error
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Namespace"):
        raise UserError(f"{path}: is not the text of a Namespace(...); restore it or give the settings as flags")
    values = ((keyword.arg, _value_of(keyword.value)) for keyword in call.keywords)
    return {name: value for name, value in values if name is not None and value is not _NOT_LITERAL}


def holds_out_views(model_path: Path) -> bool:
    """Whether the run of a folder kept test views; cfg_args says so, and without one we take it that it did."""
    cfg = Path(model_path) / "cfg_args"
    return bool(read_cfg_args(cfg).get("eval", True)) if cfg.is_file() else True


def read_cameras(path: Path) -> list[Camera]:
    """Views of a cameras.json, without photos; the principal point, of which the file says nothing, is central.

    Raises:
        UserError: The file is not such a list of views.
    """
    try:
        entries = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a cameras.json") from error
    except (ValueError, RecursionError):
        raise UserError(f"{path}: is not JSON; give a cameras.json as training runs write it") from None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: holds no list of views; give a cameras.json as training runs write it")
    return [_camera_of(path, i, entry) for i, entry in enumerate(entries)]


_NOT_LITERAL = object()


def _iteration_folder(model_path: Path, iteration: int) -> Path:
    return Path(model_path) / "point_cloud" / f"iteration_{iteration}"


def _read_extra(path: Path, kept: np.ndarray) -> dict[str, np.ndarray]:
    """The sidecar's columns for the rows that were kept; nothing when it is absent or of another model."""
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in ("labels", "births")}
    except Exception as error:  # numpy and zipfile raise whatever comes to them when a file is damaged
        raise UserError(f"{path}: is damaged ({type(error).__name__}); delete it to go on without labels") from error
    if any(column.shape != kept.shape or column.dtype.kind not in "iu" for column in columns.values()):
        raise UserError(f"{path}: belongs to another point_cloud.ply; delete it to go on without labels")
    return {"labels": columns["labels"][kept].astype(np.uint8), "births": columns["births"][kept].astype(np.int32)}


def _literal(value: Any) -> str:
    if not isinstance(value, str):
        return repr(value)
    text = repr(value)
    # Python prefers double quotes round an apostrophe.
    return text if text.startswith("'") else "'" + text[1:-1].replace("'", "\\'") + "'"


def _value_of(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _NOT_LITERAL


def _camera_entry(index: int, camera: Camera, origin: np.ndarray) -> dict[str, Any]:
    size = camera.source
    return {
        "id": index,
        "img_name": camera.name,
        "width": size.width,
        "height": size.height,
        "position": (camera.position + origin).tolist(),
        "rotation": camera.camera_from_world[:3, :3].T.tolist(),
        "fy": size.fy,
        "fx": size.fx,
    }


def _camera_of(path: Path, index: int, entry: Any) -> Camera:
    try:
        rotation = np.array(entry["rotation"], np.float64).reshape(3, 3).T
        position = np.array(entry["position"], np.float64).reshape(3)
        size = SourceSize(int(entry["width"]), int(entry["height"]), float(entry["fx"]), float(entry["fy"]))
        name = str(entry.get("img_name", index))
    except (TypeError, KeyError, ValueError, OverflowError, AttributeError):
        raise UserError(f"{path}: view {index} lacks its size, pose or focal lengths; write the file again") from None
    turned = sane(rotation).all() and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3)
    possible = (
        0 < size.width <= 1 << 16
        and 0 < size.height <= 1 << 16
        and 0 < min(size.fx, size.fy) <= max(size.fx, size.fy) < LARGEST
    )
    if not (turned and possible and sane(position[None]).all()):
        raise UserError(f"{path}: view {index} has an impossible size, pose or focal length; write the file again")
    return Camera(
        name=name,
        width=size.width,
        height=size.height,
        fx=size.fx,
        fy=size.fy,
        cx=size.width / 2,
        cy=size.height / 2,
        camera_from_world=pose(rotation, -rotation @ position),
        source=size,
    )
