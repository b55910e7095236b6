# SPDX-License-Identifier: Apache-2.0
"""Damage, drawn from a generator: in bytes, in JSON, in lines of text, in names."""

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

Random = np.random.Generator

SCRIPT = "</script></style><img src=x onerror=alert(1)><script>alert(2)</script>\"'`"
NAMES = (
    *("../../secret.png", "/etc/passwd", "..\\..\\secret.png", "a/../../secret.png", "", ".", "..", "\0", "a\0b.png"),
    *("x" * 5000, "\n", "con", "é雪.png", "\x1b[2J.png", "images/../../../secret.png", "~root/.ssh/id", SCRIPT),
    *("link_out.png", "link_loop.png", "link_folder/secret.png", "file:///etc/passwd", "//server/share/a.png"),
)
NUMBERS = (
    *(0, -1, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64, 10**400, -(10**30)),
    *(float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 1e-320, 1e39, 0.5, -0.0),
)
FLOATS = (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e308, 1e39, 1e-320, -1.0, 1e15)
INTEGERS = (0, 1, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**63, 2**64 - 1)


def choice(rng: Random, values: Any) -> Any:
    """One of them, as it is."""
    return values[int(rng.integers(len(values)))]


def damaged(rng: Random, data: bytes) -> bytes:
    """Bytes with up to four kinds of damage."""
    for _ in range(int(choice(rng, (0, 1, 1, 1, 1, 2, 2, 4)))):
        data = choice(rng, BYTES)(rng, data)[: 1 << 22]
    return data


def _place(rng: Random, data: bytes) -> int:
    """Headers are hit as often as all the rest."""
    limit = len(data) if rng.random() < 0.5 else min(len(data), 200)
    return int(rng.integers(limit + 1))


def _flip(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if changed:
            changed[min(_place(rng, data), len(changed) - 1)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut(rng: Random, data: bytes) -> bytes:
    return data[: _place(rng, data)]


def _remove(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + int(rng.integers(1, 64)) :]


def _insert(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at:]


def _repeat(rng: Random, data: bytes) -> bytes:
    at, length = _place(rng, data), int(rng.integers(1, 256))
    return data[:at] + data[at : at + length] * int(rng.integers(2, 20)) + data[at + length :]


def _overwrite(rng: Random, data: bytes, raw: bytes) -> bytes:
    at = _place(rng, data)
    at -= at % choice(rng, (1, 4, 8))
    return data[:at] + raw + data[at + len(raw) :]


def _integer(rng: Random, data: bytes) -> bytes:
    layout = choice(rng, ("<Q", ">Q", "<I", ">I"))
    limit = 2**64 if "Q" in layout else 2**32
    return _overwrite(rng, data, struct.pack(layout, choice(rng, INTEGERS) % limit))


def _float(rng: Random, data: bytes) -> bytes:
    value, layout = choice(rng, FLOATS), choice(rng, ("<d", "<f"))
    if layout == "<f":
        return _overwrite(rng, data, np.array(value).astype("<f4").tobytes())
    return _overwrite(rng, data, struct.pack(layout, value))


def _word(rng: Random, data: bytes) -> bytes:
    """A number or a name of a text file becomes another."""
    words = data.split(b" ")
    words[int(rng.integers(len(words)))] = str(choice(rng, NUMBERS + NAMES)).encode()
    return b" ".join(words)


def _line(rng: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    at = int(rng.integers(len(lines)))
    lines[at] = choice(rng, (b"", lines[int(rng.integers(len(lines)))], lines[at][: len(lines[at]) // 2], b"\xff\xfe"))
    return b"\n".join(lines)


BYTES: tuple[Callable[[Random, bytes], bytes], ...] = (
    *(_flip, _cut, _remove, _insert, _repeat, _integer, _float, _word, _line),
)


def hostile_value(rng: Random, depth: int = 0) -> Any:
    """A value that no reader hopes for."""
    kind = int(rng.integers(8))
    if kind == 0:
        return choice(rng, (None, True, False, [], {}, "", [None], [[]], {"": None}))
    if kind in (1, 2):
        return choice(rng, NUMBERS)
    if kind == 3:
        return choice(rng, NAMES)
    if kind == 4:
        return SCRIPT
    if kind == 5 and depth < 3:
        return [hostile_value(rng, depth + 1) for _ in range(int(rng.integers(6)))]
    if kind == 6 and depth < 3:
        return {str(choice(rng, NAMES)): hostile_value(rng, depth + 1) for _ in range(int(rng.integers(4)))}
    nested: Any = 0
    for _ in range(int(choice(rng, (3, 60)))):
        nested = [nested]
    return nested


def damaged_json(rng: Random, content: Any) -> bytes:
    """A JSON text in which values, names and structure have been replaced; sometimes it is not even JSON."""
    if rng.random() < 0.03:
        return choice(rng, (b"[" * 200_000, b'{"a":' * 50_000, b"\xff\xfe{\0}\0", b"", b"NaN", b"9" * 5000))
    for _ in range(int(choice(rng, (0, 1, 1, 2)))):
        content = _replaced(rng, content, float(choice(rng, (0.01, 0.03, 0.1, 0.4))))
    text = json.dumps(content, ensure_ascii=bool(rng.integers(2))).encode("utf-8", "surrogatepass")
    return damaged(rng, text) if rng.random() < 0.15 else text


def _replaced(rng: Random, value: Any, share: float) -> Any:
    if rng.random() < share:
        return hostile_value(rng)
    if isinstance(value, dict):
        items = [(k, _replaced(rng, v, share)) for k, v in value.items() if rng.random() > share / 4]
        renamed = [(str(choice(rng, NAMES)) if rng.random() < share / 4 else key, item) for key, item in items]
        return dict(renamed)
    if isinstance(value, list):
        items = [_replaced(rng, item, share) for item in value if rng.random() > share / 4]
        return items * 2 if rng.random() < share / 4 else items
    return value
