# SPDX-License-Identifier: Apache-2.0
"""From a dataset folder to cameras, photos and points. The dataset is never written to.

A dataset is a folder with photos (`images/`) and a COLMAP model of pinhole cameras (`sparse/0`), points3D optional.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from arguments import DataConfig
from utils.errors import UserError

from .cameras import Camera, SourceSize, pose
from .colmap import ColmapCamera, ColmapImage, find_model, read_model
from .photos import Photo, PhotoFile, probe, shown
from .points import PointCloud

HELD_OUT_EVERY = 8
"""Names sorted as strings; index 0, 8, 16, ... is held out (Mip-NeRF 360's and 3DGS's convention)."""

FEWEST_VIEWS = 3
"""Views below which a dataset with missing photos is refused."""

WIDEST = 1600
"""Width in pixels to which `--resolution -1` limits photos."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A dataset, ready for training.

    Cameras are sorted by name. `extent` is 1.1 times the largest distance of a training camera from their mean, in
    scene units. `missing` photos are registered but not there, or cannot be read.
    """

    train_cameras: tuple[Camera, ...]
    test_cameras: tuple[Camera, ...]
    points: PointCloud | None
    extent: float
    source: Path | None = None
    missing: int = 0
    limited: bool = False
    """Whether photos were made smaller because they are wider than 1600 pixels."""

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """All views, held-out ones first."""
        return self.test_cameras + self.train_cameras


def load_scene(
    source: Path,
    *,
    images: str = "images",
    resolution: int = -1,
    hold_out: bool = True,
    masks: Path | None = None,
    invert_masks: bool = False,
    white_background: bool = False,
) -> Scene:
    """Read a dataset; photos are decoded later, when they are first used.

    Args:
        source: Folder with `sparse/0` and the photos.
        images: Sub-folder of the photos; photos that are not there are looked for in `source` itself.
        resolution: 1, 2, 4, 8 divide the photos' size; -1 limits the width to 1600; else the width in pixels.
        hold_out: Keep every 8th view for testing.
        masks: Folder of masks, `<name>.png` or `<name without extension>.png`; black is ignored.
        invert_masks: White is ignored instead.
        white_background: What is behind transparent photos: white instead of black.

    Raises:
        UserError: The dataset is damaged, incomplete or of a kind that is not read.
    """
    if resolution < 1 and resolution != -1:
        raise UserError(f"--resolution {resolution}: give 1, 2, 4, 8, a width in pixels, or -1")
    source = Path(source)
    folder = _model_folder(source)
    model = read_model(folder)
    photos = _PhotoFinder(source, images)
    mask_of = _MaskFinder(source, masks)
    cameras, limited = [], False
    for image in sorted(_unique(model.images, folder), key=lambda image: image.name):
        intrinsics = model.cameras[image.camera_id]
        file = photos.find(image.name, intrinsics)
        if file is None:
            continue
        size = training_size(file.width, file.height, resolution)
        limited |= resolution == -1 and size[0] < file.width
        photo = file.photo(
            *size, white_background=white_background, mask=mask_of.find(image.name), invert_mask=invert_masks
        )
        cameras.append(_camera(image, intrinsics, photo))
    missing = len(model.images) - len(cameras)
    _check_enough(source, images, len(cameras), missing)
    mask_of.check_used()
    test, train = split(cameras) if hold_out and len(cameras) > 1 else ((), tuple(cameras))
    return Scene(
        train_cameras=train,
        test_cameras=test,
        points=model.points,
        extent=extent(train),
        source=source,
        missing=missing,
        limited=limited,
    )


def open_scene(data: DataConfig) -> Scene:
    """The dataset that the command line names."""
    if data.source is None:
        raise UserError("--source is needed: the folder that holds images/ and sparse/0/")
    return load_scene(
        data.source,
        images=data.images,
        resolution=data.resolution,
        hold_out=data.eval,
        masks=data.masks,
        invert_masks=data.invert_masks,
        white_background=data.white_background,
    )


def describe(scene: Scene) -> list[str]:
    """What was found, in plain words, a line each."""
    train, test = scene.train_cameras, scene.test_cameras
    lines = [f"Dataset: {scene.source}", f"Photos: {len(train) + len(test)}, {_sizes(scene.cameras)}"]
    if scene.limited:
        lines.append(f"Photos wider than {WIDEST} pixels are made smaller; --resolution 1 keeps their size")
    if scene.missing:
        lines.append(f"Photos that are missing or cannot be read: {scene.missing}, skipped")
    lines.append(f"Views: {len(train)} for training, {len(test)} held out for testing")
    lines.append(f"Points: {len(scene.points)}" if scene.points else "Points: none in the dataset")
    if any(camera.photo.masked for camera in scene.cameras):
        lines.append(f"Masks: {kept_share(scene):.1%} of the pixels are kept")
    lines.append(f"Camera extent: {scene.extent:.4g} scene units")
    lines.append(f"Memory for photos: {sum(camera.photo.bytes for camera in scene.cameras) / 2**20:.0f} MiB")
    return lines


def kept_share(scene: Scene) -> float:
    """Share of all photos' pixels that masks leave; decodes every masked photo."""
    kept = sum(c.width * c.height if (mask := c.mask()) is None else float(mask.sum()) for c in scene.cameras)
    return kept / sum(camera.width * camera.height for camera in scene.cameras)


def split(cameras: list[Camera]) -> tuple[tuple[Camera, ...], tuple[Camera, ...]]:
    """(held out, training) of cameras that are sorted by name."""
    held_out = tuple(cameras[::HELD_OUT_EVERY])
    return held_out, tuple(camera for i, camera in enumerate(cameras) if i % HELD_OUT_EVERY)


def extent(cameras: tuple[Camera, ...]) -> float:
    """1.1 times the largest distance of a camera centre from their mean, in scene units."""
    centers = np.stack([camera.position for camera in cameras])
    radius = 1.1 * float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max())
    return radius or 1.0  # all cameras at one place: any length will do, zero would stop all movement


def training_size(width: int, height: int, resolution: int) -> tuple[int, int]:
    """Size in pixels at which a photo is used; see `load_scene` for `resolution`."""
    if resolution in (1, 2, 4, 8):
        size = round(width / resolution), round(height / resolution)
    elif resolution == -1 and width <= WIDEST:
        size = width, height
    else:
        target = WIDEST if resolution == -1 else resolution
        size = target, height * target // width
    return max(1, size[0]), max(1, size[1])


def _camera(image: ColmapImage, intrinsics: ColmapCamera, photo: Photo) -> Camera:
    fx, fy, cx, cy = intrinsics.pinhole()
    x, y = photo.width / intrinsics.width, photo.height / intrinsics.height
    return Camera(
        name=image.name,
        width=photo.width,
        height=photo.height,
        fx=fx * x,
        fy=fy * y,
        cx=cx * x,
        cy=cy * y,
        camera_from_world=pose(image.rotation, image.translation),
        source=SourceSize(intrinsics.width, intrinsics.height, fx, fy),
        photo=photo,
    )


def _model_folder(source: Path) -> Path:
    if not source.is_dir():
        raise UserError(f"--source {source}: no such folder")
    folder = find_model(source)
    if folder is not None:
        return folder
    if any(source.glob("transforms*.json")):
        raise UserError(
            f"--source {source}: a transforms.json dataset is not read yet; give a COLMAP model in sparse/0"
        )
    raise UserError(
        f"--source {source}: no sparse/0/cameras.bin; run COLMAP, or point --source at the folder that holds "
        "images/ and sparse/0/"
    )


def _unique(images: list[ColmapImage], folder: Path) -> list[ColmapImage]:
    seen: set[str] = set()
    for image in images:
        if image.name in seen:
            raise UserError(f"{folder}: image {image.name!r} is registered twice; export the model again")
        seen.add(image.name)
    return images


def _check_enough(source: Path, images: str, found: int, missing: int) -> None:
    if found == 0 and missing == 0:
        raise UserError(f"--source {source}: the COLMAP model has no registered image")
    if missing and found < FEWEST_VIEWS:
        raise UserError(
            f"--source {source}: {missing} of {found + missing} registered photos are not in {images}/ or cannot be "
            "read; put them there, or name their folder with --images"
        )


class _PhotoFinder:
    """Finds registered photos, and only inside the dataset."""

    def __init__(self, source: Path, images: str) -> None:
        # A folder that is a link itself is the user's own doing; where it leads is inside.
        self._roots = [source / images, source]
        self._inside = [root.resolve() for root in self._roots]

    def find(self, name: str, intrinsics: ColmapCamera) -> PhotoFile | None:
        """The photo of an image name; None when it is missing or cannot be read."""
        if intrinsics.pinhole() is None:
            raise UserError(
                f"image {name!r}: its camera model {intrinsics.model} is not read yet; undistort the photos with "
                "'colmap image_undistorter'"
            )
        path = self._path(name)
        return None if path is None else probe(path, (intrinsics.width, intrinsics.height))

    def _path(self, name: str) -> Path | None:
        relative = safe_name(name)
        for root in self._roots:
            path = root / relative
            if _is_file(path):
                if not any(path.resolve().is_relative_to(inside) for inside in self._inside):
                    raise UserError(f"{shown(path)}: a link that leaves the dataset; put the photo itself there")
                return path
        return None


class _MaskFinder:
    """Finds the masks of photos, and remembers whether there was any."""

    def __init__(self, source: Path, folder: Path | None) -> None:
        if folder is not None and not folder.is_dir():
            inside = source / folder
            if not inside.is_dir():
                raise UserError(f"--masks {folder}: no such folder")
            folder = inside
        self._folder, self._found = folder, 0

    def find(self, name: str) -> Path | None:
        """The mask of an image name, if it has one."""
        if self._folder is None:
            return None
        relative = safe_name(name)
        candidates = (relative.with_name(end) for end in (f"{relative.name}.png", f"{relative.stem}.png"))
        path = next((path for end in candidates if _is_file(path := self._folder / end)), None)
        self._found += path is not None
        return path

    def check_used(self) -> None:
        """Complain about a folder without any mask."""
        if self._folder is not None and not self._found:
            raise UserError(
                f"--masks {self._folder}: no mask for any photo; masks are called <photo name>.png, "
                "for example a.jpg.png or a.png"
            )


def safe_name(name: str) -> PurePosixPath:
    """An image name as a path that stays where it is put.

    Raises:
        UserError: The name is absolute, climbs with .., or holds a null byte.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise UserError(f"image name {name!r} leads out of the dataset; such a model is not opened")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def _sizes(cameras: tuple[Camera, ...]) -> str:
    sizes = sorted({(camera.width, camera.height) for camera in cameras})
    if len(sizes) == 1:
        return f"{sizes[0][0]}x{sizes[0][1]} pixels"
    return f"{len(sizes)} sizes from {sizes[0][0]}x{sizes[0][1]} to {sizes[-1][0]}x{sizes[-1][1]} pixels"
