# SPDX-License-Identifier: Apache-2.0
"""Gaussians of a checkpoint of the INRIA family: torch.save of (a tuple of 12, the iteration).

The tuple begins with the SH degree in use, then centres, f_dc, f_rest, log scales, rotations, logits; statistics and
the optimiser's state follow and are not looked at.

Such files are pickles, and their tuples hold numpy numbers that torch.load(weights_only=True) refuses. Nothing is
unpickled here: `pickletools` lists the instructions, and an interpreter that knows tuples, lists, dicts, numbers and
texts follows them. It calls nothing: what the file wants called is noted as a name with arguments, of which only
tensors are understood.
"""

import math
import pickletools
import struct
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError

from ..splats import SplatArrays, cleaned

_PICKLE = "data.pkl"
_PICKLE_LIMIT = 1 << 24
_MEMBERS = 1 << 16
_COLUMNS = ("means", "sh_dc", "sh_rest", "log_scales", "quats", "logit_opacities")
_KINDS = {"torch FloatStorage": "<f4", "torch DoubleStorage": "<f8", "torch HalfStorage": "<f2"}
_TENSOR, _PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
_ERRORS = (
    *(ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError, OSError, EOFError),
    *(zipfile.BadZipFile, NotImplementedError, MemoryError, RuntimeError, struct.error),
)


@dataclass(frozen=True)
class _Name:
    """A function or a class that the file names."""

    name: str


@dataclass(frozen=True, eq=False)
class _Call:
    """What the file would have called, with what."""

    name: str
    arguments: tuple


@dataclass(frozen=True, eq=False)
class _Storage:
    """The numbers of a tensor: how torch calls their type, and their file in the archive."""

    kind: str
    key: str


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a torch.save archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _root(archive) is not None
    except _ERRORS:
        return False


def read(path: Path) -> SplatArrays:
    """Read the Gaussians of a checkpoint.

    Raises:
        UserError: The file is missing, damaged, or no such checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive)
            with warnings.catch_warnings(action="ignore"):  # of odd escapes in damaged texts
                content = _understood(_member(archive, f"{root}{_PICKLE}", _PICKLE_LIMIT))
            if isinstance(content, dict):
                raise UserError(f"{path}: a checkpoint of another layout; give the point_cloud.ply of its run instead")
            captured, _ = content
            degree, *tensors = captured[:7]
            arrays = {name: _array(archive, root, tensor) for name, tensor in zip(_COLUMNS, tensors, strict=True)}
    except FileNotFoundError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a checkpoint that exists") from error
    except _ERRORS:
        raise UserError(
            f"{path}: not a checkpoint with the tuple of 12 of 3DGS; give its point_cloud.ply instead"
        ) from None
    _check(path, arrays)
    tags = {"sh_degree": degree} if type(degree) is int and 0 <= degree <= 3 else {}
    return cleaned(path, arrays, tags)


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    count = len(arrays["means"])
    shapes = {"means": (3,), "sh_dc": (1, 3), "log_scales": (3,), "quats": (4,), "logit_opacities": (1,)}
    fits = all(arrays[name].shape == (count, *shape) for name, shape in shapes.items())
    if not fits or arrays["sh_rest"].shape not in [(count, number, 3) for number in (0, 3, 8, 15)]:
        found = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise UserError(f"{path}: its tensors are not those of 3DGS ({found}); give its point_cloud.ply instead")


def _root(archive: zipfile.ZipFile) -> str | None:
    """The folder inside the archive that everything is in."""
    names = archive.namelist()
    found = [name for name in names[:_MEMBERS] if name.endswith(f"/{_PICKLE}") and name.count("/") == 1]
    return found[0].removesuffix(_PICKLE) if len(found) == 1 else None


def _member(archive: zipfile.ZipFile, name: str, limit: int | None = None) -> bytes:
    """A file of the archive; torch compresses none, so none is larger than the archive."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or (limit is not None and info.file_size > limit):
        raise ValueError(name)
    return archive.read(info)


def _array(archive: zipfile.ZipFile, root: str, tensor: Any) -> np.ndarray:
    """The numbers of a tensor in its shape."""
    while isinstance(tensor, _Call) and tensor.name == _PARAMETER:
        tensor = tensor.arguments[0]
    if not isinstance(tensor, _Call) or tensor.name != _TENSOR:
        raise ValueError("no tensor")
    storage, start, shape, strides = tensor.arguments[:4]
    numbers = np.frombuffer(_member(archive, f"{root}data/{storage.key}"), _KINDS[storage.kind])
    if min((start, *shape, *strides), default=0) < 0 or math.prod(shape) > len(numbers):
        raise ValueError("shape")
    if math.prod(shape) == 0:
        return np.zeros(shape, np.float32)
    last = start + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= len(numbers):
        raise ValueError("outside of its numbers")
    step = numbers.itemsize
    return np.lib.stride_tricks.as_strided(numbers[start:], shape, [step * s for s in strides]).copy()


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_SHORT_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _understood(program: bytes) -> Any:
    """The value that a pickle describes, with calls left as what they are."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for operation, argument, _ in pickletools.genops(program):
        name = operation.name
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            _step(name, argument, stack)
    raise ValueError("no end")


def _step(name: str, argument: Any, stack: list[Any]) -> None:
    """An instruction that makes or fills a container, or names something."""
    match name:
        case "MARK":
            stack.append(_MARK)
        case "EMPTY_LIST":
            stack.append([])
        case "EMPTY_DICT":
            stack.append({})
        case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
            size = _SHORT_TUPLES[name]
            stack[len(stack) - size :] = [tuple(stack[len(stack) - size :])]
        case "TUPLE":
            stack.append(tuple(_to_mark(stack)))
        case "APPEND":
            value = stack.pop()
            stack[-1].append(value)
        case "APPENDS":
            values = _to_mark(stack)
            stack[-1].extend(values)
        case "SETITEM":
            value, key = stack.pop(), stack.pop()
            _fill(stack[-1], [key, value])
        case "SETITEMS":
            values = _to_mark(stack)
            _fill(stack[-1], values)
        case "GLOBAL":
            stack.append(_Name(argument))
        case "STACK_GLOBAL":
            last, module = stack.pop(), stack.pop()
            stack.append(_Name(f"{module} {last}"))
        case "REDUCE" | "NEWOBJ":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_Call(function.name, arguments))
        case "BUILD":
            stack.pop()
        case "BINPERSID":
            _, kind, key, *_ = stack.pop()
            stack.append(_Storage(kind.name, key))
        case _:
            raise ValueError(name)


def _to_mark(stack: list[Any]) -> list[Any]:
    """What lies on the stack above the last mark."""
    place = max(i for i, value in enumerate(stack) if value is _MARK)
    values = stack[place + 1 :]
    del stack[place:]
    return values


def _fill(target: Any, values: list[Any]) -> None:
    """Keys and values into a dict; an OrderedDict is a call here, and nobody needs what is in it."""
    if isinstance(target, dict):
        target.update(zip(values[::2], values[1::2], strict=True))
