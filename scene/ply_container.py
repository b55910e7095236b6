# SPDX-License-Identifier: Apache-2.0
"""The PLY container: a header in words, then rows of numbers, binary in either byte order or text.

Files are data from outside: the header is bounded, and the rows it promises are checked against the bytes there are.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.atomic import write_bytes
from utils.errors import UserError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_NAMES = {"f4": "float", "f8": "double", "u1": "uchar"}
_LIST = "list"
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}

_HEADER_LIMIT = 1 << 16
_COUNT_DIGITS = 18
_TEXT_NUMBER = 2
"""Bytes that a number in a text file takes at least: a digit and a blank."""


class Property(NamedTuple):
    """A column: its name, and numpy's code of its type or "list"."""

    name: str
    kind: str


class Element(NamedTuple):
    """A table of the file."""

    name: str
    count: int
    properties: list[Property]

    def has_lists(self) -> bool:
        """Whether rows differ in length."""
        return any(kind == _LIST for _, kind in self.properties)

    def dtype(self, order: str) -> np.dtype:
        """The type of a row in a byte order."""
        return np.dtype([(name, np.dtype(kind).newbyteorder(order)) for name, kind in self.properties])


@dataclass(frozen=True)
class Header:
    """What the words say: format, tables, comments; and at which byte the rows begin."""

    format: str
    elements: list[Element]
    comments: list[str]
    end: int


def write_vertices(path: Path, rows: np.ndarray, comments: list[str]) -> None:
    """Write a structured array (float32, float64 and uint8 fields) as the one element `vertex`, atomically.

    Comments stand after the element's line: SIBR reads the count from the third line.
    """
    kinds = {name: _NAMES[rows.dtype[name].str[1:]] for name in rows.dtype.names}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(rows)}",
        *(f"comment {comment}" for comment in comments),
        *(f"property {kind} {name}" for name, kind in kinds.items()),
        "end_header\n",
    ]
    write_bytes(path, "\n".join(header).encode() + rows.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes())


def read_vertices(path: Path) -> tuple[Header, np.ndarray]:
    """The header, and the element `vertex` as a structured array.

    Raises:
        UserError: The file is missing, damaged, cut off, or of no known layout.
    """
    data = _bytes(path)
    header = _parse(path, data)
    if header.format not in _ORDERS:
        raise UserError(f"{path}: PLY format {header.format!r} is not known; export the file again")
    before, vertices = _split(path, header.elements)
    if header.format == "ascii":
        skip = sum(element.count * len(element.properties) for element in before)
        return header, _text_rows(path, data[header.end :], skip, vertices)
    order = _ORDERS[header.format]
    start = header.end + sum(element.count * element.dtype(order).itemsize for element in before)
    dtype = vertices.dtype(order)
    if start + vertices.count * dtype.itemsize > len(data):
        raise _cut_off(path, vertices.count)
    return header, np.frombuffer(data[start:], dtype, vertices.count) if vertices.count else np.zeros(0, dtype)


def read_tables(path: Path) -> dict[str, np.ndarray]:
    """All elements of a binary file without lists, by name, as structured arrays.

    Raises:
        UserError: The file is missing, damaged, cut off, or has text or lists.
    """
    data = _bytes(path)
    header = _parse(path, data)
    order, start = _ORDERS.get(header.format, "="), header.end
    distinct = all(len({column.name for column in e.properties}) == len(e.properties) > 0 for e in header.elements)
    if order == "=" or not distinct or any(element.has_lists() for element in header.elements):
        raise UserError(f"{path}: its elements are not plain binary tables; export the file again")
    tables = {}
    for element in header.elements:
        dtype = element.dtype(order)
        if start + element.count * dtype.itemsize > len(data):
            raise _cut_off(path, element.count)
        tables[element.name] = np.frombuffer(data, dtype, element.count, start) if element.count else np.zeros(0, dtype)
        start += element.count * dtype.itemsize
    return tables


def read_header(path: Path) -> Header:
    """Only the header."""
    return _parse(path, _bytes(path, _HEADER_LIMIT))


def _bytes(path: Path, limit: int = -1) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a PLY file") from error


def _parse(path: Path, data: bytes) -> Header:
    match = re.search(rb"\nend_header[ \t\r]*\n", data[:_HEADER_LIMIT])
    if not data.startswith(b"ply") or match is None:
        raise UserError(f"{path}: not a PLY file; give a splat PLY or a point cloud in that format")
    kind, elements, comments, line = "", [], [], ""
    try:
        for line in data[: match.start()].decode("utf-8", "replace").split("\n")[1:]:
            word, _, rest = line.strip().partition(" ")
            if word == "format":
                kind = rest.split()[0]
            elif word in ("comment", "obj_info"):
                comments.append(rest.strip())
            elif word == "element":
                name, count = rest.split()
                elements.append(Element(name, _natural(count), []))
            elif word == "property":
                elements[-1].properties.append(_property(rest.split()))
    except (ValueError, IndexError, KeyError):
        raise UserError(f"{path}: the header is damaged at {line.strip()[:60]!r}; export the file again") from None
    return Header(kind, elements, comments, match.end())


def _property(words: list[str]) -> Property:
    if words[0] == _LIST:
        return Property(words[3], _LIST)
    kind, name = words
    return Property(name, _TYPES[kind])


def _natural(word: str) -> int:
    if not word.isdecimal() or len(word) > _COUNT_DIGITS:
        raise ValueError(word)
    return int(word)


def _split(path: Path, elements: list[Element]) -> tuple[list[Element], Element]:
    """The elements before the vertices, and the vertices."""
    names = [element.name for element in elements]
    if "vertex" not in names:
        raise UserError(f"{path}: has no vertices; give a splat PLY or a point cloud")
    place = names.index("vertex")
    before, vertices = elements[:place], elements[place]
    columns = [column.name for column in vertices.properties]
    if (
        not columns
        or len(set(columns)) != len(columns)
        or any(element.has_lists() for element in elements[: place + 1])
    ):
        raise UserError(f"{path}: its vertices have no, repeated or list properties; export plain vertices first")
    if any(len({c.name for c in element.properties}) != len(element.properties) for element in before):
        raise UserError(f"{path}: an element has repeated properties; export the file again")
    return before, vertices


def _text_rows(path: Path, text: bytes, skip: int, vertices: Element) -> np.ndarray:
    names = [name for name, _ in vertices.properties]
    needed = vertices.count * len(names)
    if (skip + needed) * _TEXT_NUMBER > len(text) + 1:
        raise _cut_off(path, vertices.count)
    words = text.split(maxsplit=skip + needed)[skip : skip + needed]
    if len(words) < needed:
        raise _cut_off(path, vertices.count)
    try:
        table = np.array(words, np.bytes_).astype(np.float64).reshape(vertices.count, len(names))
    except ValueError:
        raise UserError(f"{path}: holds a vertex that is not made of numbers; export the file again") from None
    dtype = vertices.dtype("=")
    rows = np.empty(vertices.count, dtype)
    for i, name in enumerate(names):
        rows[name] = _within(table[:, i], dtype[name])
    return rows


def _within(column: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Numbers of a text file as their type can hold them."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.nan_to_num(column).clip(limits.min, limits.max)
    with np.errstate(over="ignore"):
        return column.astype(dtype)


def _cut_off(path: Path, count: int) -> UserError:
    return UserError(f"{path}: says {count} rows, but the file ends before; it is cut off, copy it again")
