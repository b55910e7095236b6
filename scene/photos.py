# SPDX-License-Identifier: Apache-2.0
"""Photos, decoded on demand to 8-bit RGB.

Every encoding ends as RGB: 16 bits are scaled to 8, grey is spread over the channels, CMYK and palettes are
converted, transparency is composited on the background and kept as a mask. A mask is 1 where a pixel counts.
EXIF orientation is ignored, as COLMAP does, unless only the turned photo has the camera's shape.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from utils.errors import UserError

from .lens import Lens
from .photo_cache import HOST, PhotoCache
from .undistort import undistorted

# What OpenCV says about a damaged TIFF fills a page, and a refusal is one line.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

OPAQUE = 128
"""Alpha from which a pixel of a transparent photo counts."""

SHAPE_TOLERANCE = 0.02
"""Relative difference in aspect ratio that the rounding of small, resized photos explains."""

HEIC = frozenset({".heic", ".heif", ".hif"})
"""Formats for which Pillow needs a plug-in."""

_EXIF_ORIENTATION = 0x0112
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError, cv2.error)
_ENDS = {"JPEG": (b"\xff\xd9", 0), "MPO": (b"\xff\xd9", 0), "PNG": (b"IEND", 4)}
"""What a whole file ends with, and how many bytes follow it."""


class UnusablePhoto(Exception):  # noqa: N818 - whoever asked goes on without the photo
    """Why a photo cannot be used."""


class Pixels(NamedTuple):
    """A decoded photo: rgb uint8 [H, W, 3]; kept bool [H, W], or None where every pixel counts."""

    rgb: np.ndarray
    kept: np.ndarray | None


class Photo:
    """A picture of a given size that is decoded when it is asked for.

    Args:
        width: Size in pixels.
        height: Size in pixels.
        read: Gives the pixels at a width and a height.
        masked: Whether there may be pixels that do not count.
        cache: What keeps it once it is decoded; None keeps it for good.
    """

    def __init__(
        self,
        width: int,
        height: int,
        read: Callable[[int, int], Pixels],
        *,
        masked: bool = False,
        cache: PhotoCache | None = None,
    ) -> None:
        self.width, self.height = width, height
        self.masked = masked
        self.cache = cache or PhotoCache()
        self._read = read

    @classmethod
    def in_memory(cls, rgb: np.ndarray, kept: np.ndarray | None = None) -> "Photo":
        """A photo without a file, from rgb uint8 [H, W, 3] and an optional mask [H, W]."""
        whole = Pixels(rgb, None if kept is None else kept.astype(bool))
        return cls(rgb.shape[1], rgb.shape[0], partial(_resized, whole), masked=kept is not None)

    def image(self, device: torch.device = HOST) -> Tensor:
        """RGB [3, H, W], float32 in [0, 1]; bytes go to the device, not floats."""
        rgb, _ = self.cache.on(self, device)
        return rgb.float().div_(255)

    def mask(self, device: torch.device = HOST) -> Tensor | None:
        """1 where a pixel counts and 0 where it does not, float32 [H, W]; None when all do."""
        kept = self.cache.on(self, device)[1] if self.masked else None
        return None if kept is None else kept.float()

    def resized(self, width: int, height: int) -> "Photo":
        """The same photo at another size, made from the original pixels."""
        return Photo(width, height, self._read, masked=self.masked, cache=self.cache)

    def release(self) -> None:
        """Give the decoded pixels back; the next use decodes again."""
        self.cache.release(self)

    def decode(self) -> tuple[Tensor, Tensor | None]:
        """The pixels, channels first: uint8 [3, H, W], and where they count, bool [H, W] or None."""
        rgb, kept = self._read(self.width, self.height)
        planes = torch.from_numpy(np.array(rgb.transpose(2, 0, 1), order="C"))
        return planes, None if kept is None else torch.from_numpy(np.array(kept))

    @property
    def bytes(self) -> int:
        """Memory that the decoded photo takes."""
        return self.width * self.height * (4 if self.masked else 3)


@dataclass(frozen=True)
class PhotoFile:
    """What the header of a photo tells: size as its camera sees it, whether it has transparency or was turned."""

    path: Path
    width: int
    height: int
    transparent: bool
    turned: bool

    def reader(
        self,
        *,
        white_background: bool = False,
        mask: Path | None = None,
        invert_mask: bool = False,
        alpha_masks: bool = True,
    ) -> Callable[[int, int], Pixels]:
        """What decodes the photo at a width and a height, with its mask file if it has one."""
        return partial(_read_photo, self, 255 * white_background, mask, invert_mask, alpha_masks)

    def photo(self, width: int, height: int, **options: Any) -> Photo:
        """The photo at a size; `options` as for `reader`."""
        masked = options.get("mask") is not None or (self.transparent and options.get("alpha_masks", True))
        return Photo(width, height, self.reader(**options), masked=masked)


def within_circle(read: Callable[[int, int], Pixels], lens: Lens, radius: float) -> Callable[[int, int], Pixels]:
    """A reader for which only pixels within `radius`, in pixels of the lens, of the principal point count."""

    def inside(width: int, height: int) -> Pixels:
        rgb, kept = read(width, height)
        _, _, cx, cy = lens.pinhole
        x = (np.arange(width) + 0.5) * (lens.width / width) - cx
        y = (np.arange(height) + 0.5) * (lens.height / height) - cy
        near = np.hypot(x, y[:, None]) <= radius
        return Pixels(rgb, near if kept is None else kept & near)

    return inside


def straightened(read: Callable[[int, int], Pixels], lens: Lens) -> Callable[[int, int], Pixels]:
    """A reader that undoes the lens."""

    def straight(width: int, height: int) -> Pixels:
        return Pixels(*undistorted(*read(width, height), lens))

    return straight


def probe(path: Path, shape: tuple[int, int] | None = None) -> PhotoFile:
    """Look at a photo's header and its end.

    Args:
        path: The file.
        shape: Width and height of its camera; photos may be resized exports of another size. None: as the photo is.

    Raises:
        UnusablePhoto: The file is not a picture that can be read here, or not a whole one.
        UserError: The photo's aspect ratio is not the camera's.
    """
    try:
        with _opened(path) as image:
            size, transparent = image.size, image.has_transparency_data
            sideways = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
            if not _ends_well(path, image.format):
                image.load()
    except _DAMAGED as error:
        raise UnusablePhoto(_why_not(path, error)) from error
    if min(size) < 1:
        raise UnusablePhoto("has no pixels")
    shape = shape or size
    turned = sideways and not _same_shape(size, shape) and _same_shape(size[::-1], shape)
    width, height = size[::-1] if turned else size
    if not _same_shape((width, height), shape):
        raise UserError(
            f"{shown(path)}: the photo is {width}x{height} but its camera {shape[0]}x{shape[1]}, another aspect ratio; "
            "use the photos that the model was made from, or resized copies of them"
        )
    return PhotoFile(path, width, height, transparent, turned)


def read_mask(path: Path, width: int, height: int, *, invert: bool = False) -> np.ndarray:
    """A mask file as bool [H, W], true where a pixel counts: not black, or with `invert` black."""
    try:
        with _opened(path) as image:
            black = 127 if image.format == "JPEG" else 0  # lossy black is not quite black
            grey = _grey(image).resize((width, height), Image.Resampling.NEAREST)
    except _DAMAGED as error:
        raise UserError(f"{shown(path)}: the mask cannot be read ({_reason(error)}); replace or remove it") from error
    return (np.asarray(grey) > black) != invert


def shown(path: Path) -> str:
    """A path as it can be printed on one line, whatever its name holds."""
    return str(path) if str(path).isprintable() else repr(str(path))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB, or RGBA where it has transparency."""
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image).convert("RGB")
    return image.convert("RGB")


def _read_photo(
    file: PhotoFile, background: int, mask: Path | None, invert_mask: bool, alpha_masks: bool, w: int, h: int
) -> Pixels:
    try:
        with _opened(file.path) as image:
            image.load()
            # Pillow weighs colours by alpha when it resizes, so transparent pixels do not bleed.
            picture = to_rgb(ImageOps.exif_transpose(image) if file.turned else image)
            picture = picture if picture.size == (w, h) else picture.resize((w, h), Image.Resampling.BICUBIC)
    except _DAMAGED as error:
        raise UserError(f"{shown(file.path)}: the photo is damaged ({_reason(error)}); replace or remove it") from error
    rgb, kept = _composited(np.asarray(picture), background)
    kept = kept if alpha_masks else None
    if mask is not None:
        from_file = read_mask(mask, w, h, invert=invert_mask)
        kept = from_file if kept is None else kept & from_file
    return Pixels(rgb, kept)


def _composited(picture: np.ndarray, background: int) -> Pixels:
    """RGB as it is; RGBA over a grey level, with the pixels that are more there than not."""
    if picture.shape[2] == 3:
        return Pixels(picture, None)
    alpha = picture[..., 3]
    if (alpha == 255).all():
        return Pixels(picture[..., :3], None)
    share = alpha[..., None].astype(np.float32) / 255
    mixed = picture[..., :3] * share + background * (1 - share)
    return Pixels((mixed + 0.5).astype(np.uint8), alpha >= OPAQUE)


def _opened(path: Path) -> Image.Image:
    """The file as a Pillow image."""
    if path.suffix.lower() in HEIC:
        with suppress(ImportError):
            from pillow_heif import register_heif_opener

            register_heif_opener()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large photos are no attack
        try:
            return Image.open(path)
        except Image.UnidentifiedImageError:
            return _tiff(path)


def _tiff(path: Path) -> Image.Image:
    """A TIFF that Pillow does not know, such as one of 16-bit colours, as 8-bit RGB or RGBA."""
    data = np.fromfile(path, np.uint8)
    if bytes(data[:4]) not in (b"II*\0", b"MM\0*"):
        raise Image.UnidentifiedImageError
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None or picture.ndim != 3 or picture.dtype.kind not in "uf":
        raise Image.UnidentifiedImageError
    full = 1.0 if picture.dtype.kind == "f" else np.iinfo(picture.dtype).max
    levels = (np.clip(picture / full, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(levels[..., [2, 1, 0, 3][: picture.shape[2]]]))  # from BGRA


def _ends_well(path: Path, kind: str | None) -> bool:
    """Whether the file ends as a whole one does; where that cannot be told, decoding must."""
    if kind is None:
        return True  # OpenCV has decoded it already
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if kind == "WEBP":
            file.seek(4)
            return int.from_bytes(file.read(4), "little") + 8 <= size
        mark, after = _ENDS.get(kind, (b"", 0))
        file.seek(max(0, size - len(mark) - after))
        return mark != b"" and file.read(len(mark)) == mark


def _why_not(path: Path, error: Exception) -> str:
    if path.suffix.lower() in HEIC and isinstance(error, Image.UnidentifiedImageError):
        return "HEIC needs a plug-in: pip install pillow-heif, or convert the photos to JPEG"
    if isinstance(error, Image.UnidentifiedImageError):
        return "is no picture that can be read here"
    return f"is damaged ({_reason(error)})"


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float grey as 8-bit grey."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    top = values.max(initial=0.0)
    # Float pictures use [0, 1]; integers 16 bits, even where Pillow stores them in 32.
    full = 1.0 if image.mode.startswith("F") and top <= 1 else 255.0 if top <= 255 and image.mode == "F" else 65535.0
    return Image.fromarray((np.clip(values / full, 0, 1) * 255 + 0.5).astype(np.uint8))


def _grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray((np.asarray(image) > 0).astype(np.uint8))
    return (image.convert("RGB") if image.mode.startswith("P") else image).convert("L")


def _resized(whole: Pixels, width: int, height: int) -> Pixels:
    if whole.rgb.shape[:2] == (height, width):
        return whole
    rgb = np.asarray(Image.fromarray(whole.rgb).resize((width, height), Image.Resampling.BICUBIC))
    if whole.kept is None:
        return Pixels(rgb, None)
    kept = Image.fromarray(whole.kept.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    return Pixels(rgb, np.asarray(kept) > 0)


def _same_shape(size: tuple[int, int], shape: tuple[int, int]) -> bool:
    expected = size[0] * shape[1] / shape[0]
    return abs(size[1] - expected) <= max(1.0, SHAPE_TOLERANCE * expected)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
