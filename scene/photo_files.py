# SPDX-License-Identifier: Apache-2.0
"""Finds the photos and masks of a dataset by name, and only where they may be."""

import unicodedata
from pathlib import Path

from utils.errors import UserError

from .capture import safe_name
from .photos import HEIC, shown

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", *sorted(HEIC))
"""Extensions that a name may lack, or have instead of its own; the first that is there is taken."""

MASKS = "masks"
"""Folder of the dataset whose masks are used without being asked for."""


class PhotoFinder:
    """Photos of a dataset: under its sub-folder of photos, then under the dataset itself."""

    def __init__(self, source: Path, images: str) -> None:
        # A folder that is a link itself is the user's own doing; where it leads is inside.
        self._source, self._roots = source, [source / images, source]
        self._inside = [root.resolve() for root in self._roots]
        self._listings: dict[Path, dict[str, Path]] = {}

    def find(self, name: str) -> Path | None:
        """The file of an image name.

        Where none is called exactly so, one that differs in upper and lower case, in the way accents are written, or
        in the kind of picture will do.

        Raises:
            UserError: The name or a link leads out of the dataset.
        """
        names = [name] if "\\" not in name else [name, name.replace("\\", "/")]
        candidates = [root / safe_name(one) for one in names for root in self._roots]
        path = next((path for path in candidates if _is_file(path)), None)
        path = path or next((similar for path in candidates if (similar := self._similar(path))), None)
        if path is not None and not any(path.resolve().is_relative_to(inside) for inside in self._inside):
            raise UserError(f"{shown(path)}: a link that leaves the dataset; put the photo itself there")
        return path

    def name_of(self, path: Path) -> str:
        """How a dataset would call a file: its path from the dataset's root."""
        return path.relative_to(self._source).as_posix()

    def _similar(self, path: Path) -> Path | None:
        listing = self._listing(path.parent)
        same = listing.get(_folded(path.name))
        if same is not None:
            return same
        stem = path.stem if path.suffix.lower() in PICTURES else path.name
        return next((listing[other] for end in PICTURES if (other := _folded(stem + end)) in listing), None)

    def _listing(self, folder: Path) -> dict[str, Path]:
        """Files of a folder by folded name; of several the first in order."""
        if folder not in self._listings:
            try:
                files = sorted(path for path in folder.iterdir() if path.is_file())
            except OSError:
                files = []
            self._listings[folder] = {_folded(path.name): path for path in reversed(files)}
        return self._listings[folder]


class MaskFinder:
    """Masks of photos, and how many there were.

    Args:
        source: Folder of the dataset.
        images: Its sub-folder of photos, which names may begin with.
        folder: As the user gave it, from anywhere or from the dataset; "none" for no masks, None for what is there.
    """

    def __init__(self, source: Path, images: str, folder: Path | None) -> None:
        self.found = 0
        self._images = images
        self._source, self._named = source, folder is not None
        self._ignored = folder == Path("none")
        self._folder = source / MASKS if folder is None else folder
        if self._named and not self._ignored and not self._folder.is_dir():
            self._folder = source / folder
            if not self._folder.is_dir():
                raise UserError(f"--masks {folder}: no such folder; give the folder of the masks, or none")

    def find(self, name: str, named: str | None = None) -> Path | None:
        """The mask of an image name, if it has one; `named` is the file that the dataset says it is."""
        if self._ignored:
            return None
        relative = safe_name(name)
        if len(relative.parts) > 1 and relative.parts[0] == self._images:
            relative = relative.relative_to(self._images)
        ends = (f"{relative.name}.png", f"{relative.stem}.png", f"{relative.stem}.mask.png", relative.name)
        candidates = [self._folder / relative.with_name(end) for end in ends]
        if named is not None and not self._named:
            candidates.insert(0, self._source / safe_name(named))
        path = next((path for path in candidates if _is_file(path)), None)
        self.found += path is not None
        return path

    def check_used(self) -> None:
        """Complain about a folder that was asked for and holds no mask."""
        if self._named and not self._ignored and not self.found:
            raise UserError(
                f"--masks {self._folder}: no mask for any photo; masks are called <photo name>.png, "
                "for example a.jpg.png or a.png"
            )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
