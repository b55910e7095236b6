# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: plain data in files that say whether they are whole.

A file is one `torch.save` of {"format", "version", "iteration", "sha256", "payload"}, loadable with
`weights_only=True`; `sha256` is over the payload. Equal payloads give equal files, byte for byte.
"""

import hashlib
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .atomic import atomic_path

FORMAT = "gaussian training checkpoint"
VERSION = 1
KEPT = 2
"""Newest checkpoints that stay."""


class DamagedError(Exception):
    """A file that is not a whole checkpoint of ours."""


def checkpoint_path(folder: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration is."""
    return folder / f"chkpnt{iteration}.pth"


def checkpoints(folder: Path) -> dict[int, Path]:
    """Files by iteration, the newest first."""
    found = {path: re.fullmatch(r"chkpnt(\d+)\.pth", path.name) for path in folder.glob("chkpnt*.pth")}
    return dict(sorted(((int(match[1]), path) for path, match in found.items() if match), reverse=True))


def save(folder: Path, iteration: int, payload: Any) -> Path:
    """Write a checkpoint, whole or not at all.

    Args:
        folder: Where to.
        iteration: Finished iterations; names the file.
        payload: Nested dicts with texts or whole numbers as keys, lists and tuples of tensors, numbers, texts, None.

    Raises:
        TypeError: the payload holds something else.
        UserError: the file cannot be written.
    """
    plain = _plain(payload, "payload")
    header = {"format": FORMAT, "version": VERSION, "iteration": iteration, "sha256": fingerprint(plain)}
    path = checkpoint_path(folder, iteration)
    with atomic_path(path) as unfinished, unfinished.open("wb") as file:
        torch.save(_plain(header, "header") | {"payload": plain}, file)
    return path


def load(path: Path) -> Any:
    """The payload of a checkpoint.

    Raises:
        DamagedError: not a whole checkpoint that this version reads.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damage leads to
        raise DamagedError(f"{path}: not a readable checkpoint") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DamagedError(f"{path}: not a checkpoint of this program")
    if content.get("version") != VERSION:
        raise DamagedError(f"{path}: version {content.get('version')}, but this program reads {VERSION}")
    if "payload" not in content or fingerprint(content["payload"]) != content.get("sha256"):
        raise DamagedError(f"{path}: damaged, its content is not what was written")
    return content["payload"]


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
