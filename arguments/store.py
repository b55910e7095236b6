# SPDX-License-Identifier: Apache-2.0
"""A run's settings as config.json: readable, strict, never code."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

from utils.atomic import write_text
from utils.errors import UserError

from .config import Config
from .listing import PHASE, SECTIONS, all_settings, build

FILE_NAME = "config.json"
FORMAT = 1
"""Raised whenever a reader of the former number could misunderstand."""

NO_PHASES: Mapping[str, type] = MappingProxyType({})


def save(config: Config, path: Path) -> None:
    """Write all settings, grouped as in Config, with the commit of the program."""
    content: dict[str, Any] = {"format": FORMAT, "commit": program_commit(), "given": list(config.given)}
    content |= {section: _plain(vars(getattr(config, section))) for section in SECTIONS}
    content["phases"] = {name: _plain(values) for name, values in config.phases.items()}
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def load(path: Path, phase_classes: Mapping[str, type] = NO_PHASES) -> Config:
    """Read settings back; what the file lacks has its default.

    Args:
        path: The file.
        phase_classes: Phases whose settings are wanted; those of others are left out. None: only the run's own.

    Raises:
        UserError: not such a file, an unknown name, or a value of the wrong type.
    """
    content = _read(path)
    given = content.get("given", [])
    if not (isinstance(given, list) and all(isinstance(flag, str) for flag in given)):
        raise UserError(f"{path}: given must be a list of flags")
    _check_names(path, "", content, ["format", "commit", "given", "phases", *SECTIONS])
    groups = {section: content.get(section, {}) for section in SECTIONS}
    phases = content.get("phases", {})
    _check_object(path, "phases", phases)
    groups |= {PHASE + name: values for name, values in phases.items() if name in phase_classes}
    return build(_values(path, groups, phase_classes), phase_classes, tuple(given))


@cache
def program_commit() -> str | None:
    """The git commit that the program's files are of, if git's own files tell."""
    git = Path(__file__).resolve().parents[1] / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        reference = head.removeprefix("ref: ")
        if (git / reference).is_file():
            return (git / reference).read_text().strip()
        packed = (line.split() for line in (git / "packed-refs").read_text().splitlines())
        return next(words[0] for words in packed if words[1:] == [reference])
    except (OSError, StopIteration):
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); is this the folder of a run?") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); restore the file or start anew") from error
    _check_object(path, "the file", content)
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: format {content.get('format')!r}, but this version reads {FORMAT}")
    return content


def _values(path: Path, groups: Mapping[str, Any], phase_classes: Mapping[str, type]) -> dict[str, Any]:
    """Values by key, each as its setting's type."""
    known = {one.key: one for one in all_settings(phase_classes)}
    values: dict[str, Any] = {}
    for section, group in groups.items():
        _check_object(path, section, group)
        names = [one.name for one in known.values() if one.section == section]
        _check_names(path, f"{section}.", group, names)
        for name, value in group.items():
            key = f"{section}.{name}"
            try:
                values[key] = _typed(value, known[key].kind)
            except TypeError as error:
                raise UserError(f"{path}: {key} is {value!r}, which is not {error}") from error
    return values


def _check_object(path: Path, what: str, content: Any) -> None:
    if not isinstance(content, dict):
        raise UserError(f"{path}: {what} must be an object with names")


def _check_names(path: Path, prefix: str, content: Mapping[str, Any], known: list[str]) -> None:
    for name in content:
        if name not in known:
            nearest = get_close_matches(name, known, n=1, cutoff=0)
            hint = f", did you mean {prefix}{nearest[0]}" if nearest else ""
            raise UserError(f"{path}: {prefix}{name} is not known{hint}; restore the file or start anew")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _typed(value: Any, kind: Any) -> Any:
    """A JSON value as the type that the setting declares; TypeError names the type."""
    if get_origin(kind) is Literal:
        return _checked(value, value in get_args(kind), f"one of {', '.join(map(repr, get_args(kind)))}")
    if get_origin(kind) is tuple:
        return _typed_tuple(value, get_args(kind))
    kinds = get_args(kind) or (kind,)
    if value is None:
        return _checked(None, type(None) in kinds, "a value")
    if kinds[0] is Path:
        return Path(_checked(value, isinstance(value, str), "a path"))
    if kinds[0] is float:
        return float(_checked(value, isinstance(value, int | float) and not isinstance(value, bool), "a number"))
    words = {bool: "true or false", int: "a whole number", str: "text"}
    return _checked(value, type(value) is kinds[0], words[kinds[0]])


def _typed_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    _checked(value, isinstance(value, list), "a list")
    if kinds[-1] is Ellipsis:
        return tuple(_typed(one, kinds[0]) for one in value)
    _checked(value, len(value) == len(kinds), f"a list of {len(kinds)}")
    return tuple(_typed(one, kind) for one, kind in zip(value, kinds, strict=True))


def _checked(value: Any, fits: bool, wanted: str) -> Any:
    if not fits:
        raise TypeError(wanted)
    return value
