# SPDX-License-Identifier: Apache-2.0
"""From a dataset folder to cameras, photos and points. The dataset is never written to.

scene/colmap.py, scene/transforms.py   files -> Capture: posed photos by name, points
scene/photo_files.py                   names -> files
here                                   Capture and files -> Scene
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from arguments import DataConfig
from utils.errors import UserError

from .cameras import Camera, SourceSize
from .capture import Capture, Shot
from .colmap import find_model, read_colmap
from .photo_cache import HOST, PhotoCache
from .photo_files import MaskFinder, PhotoFinder
from .photo_store import default_folder, prune, stored
from .photos import Photo, UnusablePhoto, probe, straightened, within_circle
from .points import PointCloud
from .transforms import has_transforms, read_transforms
from .undistort import check_lens

HELD_OUT_EVERY = 8
"""Names sorted as strings; index 0, 8, 16, ... is held out (Mip-NeRF 360's and 3DGS's convention)."""

FEWEST_VIEWS, SMALLEST_SHARE = 3, 0.2
"""Views, and share of the registered ones, below which a dataset with missing photos is refused."""

FAR = 1_000.0
"""Distance of the cameras from zero, in extents, from which the scene gets a zero of its own."""

WIDEST = 1600
"""Width in pixels to which `--resolution -1` limits photos."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A dataset, ready for training.

    Cameras are sorted by name. `extent` is 1.1 times the largest distance of a training camera from their mean, in
    scene units. `skipped` says of every registered photo that is not used why.
    """

    train_cameras: tuple[Camera, ...]
    test_cameras: tuple[Camera, ...]
    points: PointCloud | None
    extent: float
    source: Path | None = None
    origin: str = ""
    """What was read, in plain words."""
    zero: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """Where in the dataset's world the scene's zero lies, [3]; not its own zero where that is far away (UTM)."""
    skipped: dict[str, str] = field(default_factory=dict)
    limited: bool = False
    """Whether photos were made smaller because they are wider than 1600 pixels."""
    lenses: tuple[str, ...] = ()
    """Camera models whose distortion is undone."""
    cache: PhotoCache = field(default_factory=PhotoCache)

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """All views, held-out ones first."""
        return self.test_cameras + self.train_cameras

    @property
    def missing(self) -> int:
        """Registered photos that are not there or cannot be used."""
        return len(self.skipped)

    def expect(self, cameras: Iterable[Camera]) -> None:
        """Have the photos of views decoded that will be needed next, in this order."""
        self.cache.expect(camera.photo for camera in cameras if camera.photo is not None)


@dataclass(frozen=True, kw_only=True)
class PhotoOptions:
    """How photos are made into training images; the fields are those of `load_scene`."""

    resolution: int = -1
    white_background: bool = False
    masks: Path | None = None
    invert_masks: bool = False
    alpha_masks: bool = True
    cache: PhotoCache = field(default_factory=PhotoCache)
    store: Path | None = None


def load_scene(
    source: Path,
    *,
    images: str = "images",
    layout: str = "auto",
    sparse: int | None = None,
    resolution: int = -1,
    hold_out: bool = True,
    hold_out_first: int = 0,
    masks: Path | None = None,
    invert_masks: bool = False,
    white_background: bool = False,
    alpha: str = "auto",
    cache: PhotoCache | None = None,
    store: Path | None = None,
) -> Scene:
    """Read a dataset; photos are decoded later, when they are first used.

    Args:
        source: Folder with `sparse/0` or `transforms.json`, and the photos.
        images: Sub-folder of the photos; photos that are not there are looked for in `source` itself.
        layout: "colmap" or "transforms" where both are there; "auto" prefers COLMAP.
        sparse: Number of the COLMAP model under `sparse/`; None takes the largest.
        resolution: 1, 2, 4, 8 divide the photos' size; -1 limits the width to 1600; else the width in pixels.
        hold_out: Keep every 8th view for testing, or those that the dataset says.
        hold_out_first: Which of the sorted views is the first of every 8th.
        masks: Folder of masks, `<name>.png` or `<name without extension>.png`; black is ignored. "none" for no masks.
        invert_masks: White is ignored instead.
        white_background: What is behind transparent photos: white instead of black.
        alpha: Whether transparent pixels are ignored ("mask") or trained as background; "auto" asks the layout.
        cache: Keeps decoded photos; None keeps all.
        store: Folder outside the dataset that keeps undistorted photos; None keeps none.

    Raises:
        UserError: The dataset is damaged, incomplete or of a kind that is not read.
    """
    if resolution < 1 and resolution != -1:
        raise UserError(f"--resolution {resolution}: give 1, 2, 4, 8, a width in pixels, or -1")
    source = Path(source)
    finder = PhotoFinder(source, images)
    capture = _read_capture(source, layout, sparse, finder)
    options = PhotoOptions(
        resolution=resolution,
        white_background=white_background,
        masks=masks,
        invert_masks=invert_masks,
        alpha_masks=capture.alpha_masks if alpha == "auto" else alpha == "mask",
        cache=cache or PhotoCache(),
        store=store,
    )
    opened = _open_photos(source, images, capture, finder, options)
    zero = near_zero(opened.cameras)
    cameras = [camera.moved(zero) for camera in opened.cameras] if zero.any() else opened.cameras
    test, train = (), tuple(cameras)
    if hold_out and len(cameras) > 1:
        test, train = split(cameras, opened.held_out, hold_out_first)
    return Scene(
        train_cameras=train,
        test_cameras=test,
        points=moved_points(capture.points, zero),
        extent=extent(train),
        source=source,
        origin=capture.origin,
        zero=zero,
        skipped=opened.skipped,
        limited=opened.limited,
        lenses=tuple(sorted(opened.lenses)),
        cache=options.cache,
    )


def open_scene(data: DataConfig, threads: int = 0, device: torch.device = HOST) -> Scene:
    """The dataset that the command line names.

    Args:
        data: What it names, and how.
        threads: Workers that decode its photos; 0 takes a few.
        device: Where the photos will be wanted.
    """
    if data.source is None:
        raise UserError("--source is needed: the folder that holds images/ and sparse/0/, or transforms.json")
    store = data.photo_store or default_folder()
    prune(store)
    kept_on = HOST if data.data_device == "cpu" else device
    cache = PhotoCache(data.cache_gb * 1e9, min(threads or 2, 4), device=kept_on, wanted_on=device)
    return load_scene(
        data.source,
        images=data.images,
        layout=data.format,
        sparse=data.sparse,
        resolution=data.resolution,
        hold_out=data.eval,
        hold_out_first=data.hold_out_first,
        masks=data.masks,
        invert_masks=data.invert_masks,
        white_background=data.white_background,
        alpha=data.alpha,
        cache=cache,
        store=None if store == Path("none") else store,
    )


def kept_share(cameras: Sequence[Camera]) -> float:
    """Share of the pixels of views that count; decodes those that may have a mask."""
    kept = sum(c.width * c.height if (mask := c.mask()) is None else float(mask.sum()) for c in cameras)
    return kept / sum(camera.width * camera.height for camera in cameras)


def split(
    cameras: list[Camera], held_out: dict[str, bool | None], first: int = 0
) -> tuple[tuple[Camera, ...], tuple[Camera, ...]]:
    """(held out, training) of cameras that are sorted by name; every 8th where the dataset does not choose."""
    if any(held_out[camera.name] for camera in cameras) and not all(held_out[camera.name] for camera in cameras):
        if first:
            raise UserError(f"--hold_out_first {first}: the dataset says which views are held out; leave the flag out")
        chosen = [bool(held_out[camera.name]) for camera in cameras]
    else:
        if first >= len(cameras):
            raise UserError(f"--hold_out_first {first}: there are {len(cameras)} views; give a smaller number")
        chosen = [index % HELD_OUT_EVERY == first for index in range(len(cameras))]
    pairs = list(zip(cameras, chosen, strict=True))
    return tuple(camera for camera, out in pairs if out), tuple(camera for camera, out in pairs if not out)


def extent(cameras: tuple[Camera, ...]) -> float:
    """1.1 times the largest distance of a camera centre from their mean, in scene units."""
    centers = np.stack([camera.position for camera in cameras])
    radius = 1.1 * float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max())
    return radius or 1.0  # all cameras at one place: any length will do, zero would stop all movement


def near_zero(cameras: Sequence[Camera]) -> np.ndarray:
    """Where zero has to be so that float32 tells the scene's places apart, [3]: in most scenes, where it is.

    A round number, so that a view more or less does not move it.
    """
    center = np.mean([camera.position for camera in cameras], axis=0)
    reach = extent(tuple(cameras))
    if np.linalg.norm(center) < FAR * reach:
        return np.zeros(3)
    unit = 10.0 ** np.ceil(np.log10(10 * reach))
    return np.round(center / unit) * unit


def moved_points(points: PointCloud | None, zero: np.ndarray) -> PointCloud | None:
    """Points of the dataset's world as those of the scene."""
    return PointCloud(points.xyz - zero, points.rgb) if points is not None and zero.any() else points


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


def _read_capture(source: Path, layout: str, sparse: int | None, finder: PhotoFinder) -> Capture:
    """The dataset by the reader that was asked for, else by the first that finds something."""
    if not source.is_dir():
        raise UserError(f"--source {source}: no such folder; give the folder of a dataset")
    if layout == "colmap" or sparse is not None or (layout == "auto" and find_model(source) is not None):
        return read_colmap(source, sparse)
    if layout == "transforms" or has_transforms(source):
        return read_transforms(source, _sizes_of(finder))
    raise UserError(
        f"--source {source}: no sparse/0/cameras.bin and no transforms.json; run COLMAP, or point --source at the "
        "folder that holds images/ and sparse/0/"
    )


def _sizes_of(finder: PhotoFinder) -> Callable[[str], tuple[str, tuple[int, int]] | None]:
    """What tells a reader a photo's full name and size."""

    def size_of(name: str) -> tuple[str, tuple[int, int]] | None:
        path = finder.find(name)
        try:
            file = path and probe(path)
        except UnusablePhoto:
            return None
        return (finder.name_of(path), (file.width, file.height)) if file else None

    return size_of


@dataclass
class _Opened:
    """Views whose photos are there, and what became of the others."""

    cameras: list[Camera] = field(default_factory=list)
    held_out: dict[str, bool | None] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    lenses: set[str] = field(default_factory=set)
    limited: bool = False


def _open_photos(source: Path, images: str, capture: Capture, finder: PhotoFinder, options: PhotoOptions) -> _Opened:
    opened = _Opened(skipped=dict.fromkeys(capture.without_photo, "is not there"))
    masks = MaskFinder(source, images, options.masks)
    for shot in sorted(capture.shots, key=lambda shot: shot.name):
        path = finder.find(shot.name)
        try:
            if path is None:
                raise UnusablePhoto("is not there")
            photo, limited = _photo(shot, path, masks.find(shot.name, shot.mask), options)
        except UnusablePhoto as reason:
            opened.skipped[shot.name] = str(reason)
            continue
        opened.cameras.append(_camera(shot, photo))
        opened.held_out[shot.name] = shot.held_out
        opened.limited |= limited
        if shot.lens.distorted:
            opened.lenses.add(shot.lens.model)
    _check_enough(source, images, len(opened.cameras), opened.skipped)
    masks.check_used()
    return opened


def _photo(shot: Shot, path: Path, mask: Path | None, options: PhotoOptions) -> tuple[Photo, bool]:
    """The photo of a view, and whether it was made smaller without being asked to."""
    lens = shot.lens
    file = probe(path, (lens.width, lens.height))
    width, height = training_size(file.width, file.height, options.resolution)
    decides = {
        "white_background": options.white_background,
        "invert_mask": options.invert_masks,
        "alpha_masks": options.alpha_masks,
    }
    read = file.reader(mask=mask, **decides)
    masked = mask is not None or (file.transparent and options.alpha_masks)
    if shot.radius < np.inf:
        read, masked = within_circle(read, lens, shot.radius), True
    if lens.distorted:
        check_lens(lens, shot.name)
        read, masked = straightened(read, lens), True
        if options.store is not None:
            files = (path,) if mask is None else (path, mask)
            read = stored(options.store, files, (lens, shot.radius, file.turned, decides), read)
    photo = Photo(width, height, read, masked=masked, cache=options.cache)
    return photo, options.resolution == -1 and width < file.width


def _camera(shot: Shot, photo: Photo) -> Camera:
    fx, fy, cx, cy = shot.lens.pinhole
    x, y = photo.width / shot.lens.width, photo.height / shot.lens.height
    return Camera(
        name=shot.name,
        width=photo.width,
        height=photo.height,
        fx=fx * x,
        fy=fy * y,
        cx=cx * x,
        cy=cy * y,
        camera_from_world=shot.camera_from_world,
        source=SourceSize(shot.lens.width, shot.lens.height, fx, fy),
        photo=photo,
    )


def _check_enough(source: Path, images: str, found: int, skipped: dict[str, str]) -> None:
    registered = found + len(skipped)
    if registered == 0:
        raise UserError(f"--source {source}: the dataset has no registered image")
    if skipped and (found < FEWEST_VIEWS or found < SMALLEST_SHARE * registered):
        name, reason = next(iter(skipped.items()))
        raise UserError(
            f"--source {source}: {len(skipped)} of {registered} registered photos cannot be used ({name!r} {reason}); "
            f"put them into {images}/, or name their folder with --images"
        )
