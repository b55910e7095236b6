# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: plain data in files that say whether they are whole.

A file is one `torch.save` of {"format", "version", "iteration", "about", "sha256", "payload"}, loadable with
`weights_only=True`; `about` tells of what run it is, `sha256` is over iteration, about and payload. Equal content
gives equal files, byte for byte, but for the number that torch gives each archive. Version 1 had no `about`, and its
`sha256` was over the payload.
"""

import hashlib
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .atomic import atomic_path
from .errors import UserError, machine_failure

FORMAT = "gaussian training checkpoint"
VERSION = 2
SIGNED = ("iteration", "about", "payload")
KEPT = 2
"""Newest checkpoints that stay."""


class DamagedError(Exception):
    """A file that is not a whole checkpoint of ours."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: finished iterations, of what run it is, everything that the next step needs."""

    iteration: int
    payload: Any
    about: Mapping[str, Any] = field(default_factory=dict)


def checkpoint_path(folder: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration is."""
    return folder / f"chkpnt{iteration}.pth"


def checkpoints(folder: Path) -> dict[int, Path]:
    """Files by iteration, the newest first."""
    found = {path: re.fullmatch(r"chkpnt(\d+)\.pth", path.name) for path in folder.glob("chkpnt*.pth")}
    return dict(sorted(((int(match[1]), path) for path, match in found.items() if match), reverse=True))


def save(folder: Path, iteration: int, payload: Any, about: Mapping[str, Any] | None = None) -> Path:
    """Write a checkpoint, whole or not at all.

    Args:
        folder: Where to.
        iteration: Finished iterations; names the file.
        payload: Nested dicts with texts or whole numbers as keys, lists and tuples of tensors, numbers, texts, None.
        about: The same, small: what lets a reader see whether the checkpoint fits.

    Raises:
        TypeError: the payload holds something else.
        UserError: the file cannot be written.
    """
    content = {"iteration": iteration, "about": dict(about or {}), "payload": payload}
    content = {name: _plain(value, name) for name, value in content.items()}
    header = _plain({"format": FORMAT, "version": VERSION, "sha256": fingerprint(content)}, "header")
    path = checkpoint_path(folder, iteration)
    try:
        with atomic_path(path) as unfinished, unfinished.open("wb") as file:
            torch.save(header | content, file)
    except RuntimeError as error:  # torch's own words on top of those of the operating system
        if not isinstance(cause := error.__context__, OSError):
            raise
        raise UserError(f"{path}: cannot be written ({cause.strerror}); free space, then --resume") from error
    return path


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        DamagedError: not a whole checkpoint that this version reads.
        MemoryError: too little memory for it.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damage leads to
        if machine_failure(error) is not None:  # an intact file must not be taken for a damaged one
            raise
        raise DamagedError(f"{path}: not a readable checkpoint") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DamagedError(f"{path}: not a checkpoint of this program")
    version = content.get("version")
    if version not in (1, VERSION):
        raise DamagedError(f"{path}: version {version!r}, but this program reads {VERSION}")
    signed = content.get("payload") if version == 1 else {name: content.get(name) for name in SIGNED}
    try:
        whole = fingerprint(signed) == content.get("sha256")
    except (RuntimeError, TypeError, ValueError):  # tensors of kinds that we never write
        whole = False
    if not whole:
        raise DamagedError(f"{path}: damaged, its content is not what was written")
    about = content.get("about", {})
    if checkpoint_path(path.parent, content.get("iteration", -1)) != path or not isinstance(about, dict):
        raise DamagedError(f"{path}: of another iteration than its name says")
    return Checkpoint(content["iteration"], content.get("payload"), about)


def prune(folder: Path, for_good: Collection[int]) -> None:
    """Delete all but the newest checkpoints and those kept for good."""
    for iteration, path in list(checkpoints(folder).items())[KEPT:]:
        if iteration not in for_good:
            path.unlink(missing_ok=True)


def fingerprint(value: Any) -> str:
    """SHA-256 over nested plain data: equal for equal data only."""
    digest = hashlib.sha256()
    _digest(value, digest)
    return digest.hexdigest()


def _digest(value: Any, digest: Any) -> None:
    if isinstance(value, Tensor):
        if value.numel() * value.itemsize > value.untyped_storage().nbytes():
            raise ValueError("a tensor larger than its data")  # which would grow without bound
        digest.update(f"tensor {value.dtype} {list(value.shape)};".encode())
        digest.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy())
    elif isinstance(value, dict):
        digest.update(f"dict {len(value)};".encode())
        for key, item in value.items():
            _digest(key, digest)
            _digest(item, digest)
    elif isinstance(value, list | tuple):
        digest.update(f"{type(value).__name__} {len(value)};".encode())
        for item in value:
            _digest(item, digest)
    else:
        text = repr(value).encode()
        digest.update(f"{type(value).__name__} {len(text)};".encode() + text)


def _plain(value: Any, where: str) -> Any:
    """The same data in a form whose pickle depends on nothing but its content.

    pickle notices when two equal texts are one object, and a tensor drags its whole storage along: so texts are
    interned, containers fresh, and tensors own exactly their elements.
    """
    if isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.itemsize
        return tensor if whole else tensor.clone()
    if isinstance(value, dict):
        return {_key(key, where): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_plain(item, f"{where}[{k}]") for k, item in enumerate(value)])
    if isinstance(value, str):
        return sys.intern(str(value))
    if value is None or type(value) in (bool, int, float):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}; checkpoints hold tensors, numbers, texts, lists and dicts")


def _key(key: Any, where: str) -> str | int:
    if type(key) is int:
        return key
    if type(key) is str:
        return sys.intern(key)
    raise TypeError(f"{where} has the key {key!r}; keys of checkpoints are texts or whole numbers")
