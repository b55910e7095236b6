# SPDX-License-Identifier: Apache-2.0
"""Settings as flags: what argparse must know to read and explain each."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from utils.command import Parser

from .listing import PHASE, Setting, all_settings, sections


def flag_parser(phase_classes: Mapping[str, type]) -> Parser:
    """A parser that gives the values of the flags that are there, by key."""
    parser = Parser(
        "Train Gaussians on posed photos. Iteration counts are defaults for 30000; they scale with the run."
    )
    parser.usage = "train.py --source DATASET --model_path RUN [--qwen_model_path MODEL] [flags]"
    groups = {
        section: parser.add_argument_group(_title(section), (kind.__doc__ or "").partition("\n")[0])
        for section, kind in sections(phase_classes).items()
    }
    for one in all_settings(phase_classes):
        short = [flag for flag in one.flags if not flag.startswith("--")]
        long = [one.flag, *(flag for flag in one.flags if flag.startswith("--"))]
        options = {"dest": one.key, "default": argparse.SUPPRESS} | _argument(one.kind)
        group, text = groups[one.section], _help(one) if one.supported else argparse.SUPPRESS
        off = [one.flag.replace("--", "--no_", 1)] if one.kind is bool else []
        if one.default is True:
            group.add_argument(*short, *long, *off, **options, help=text)
        else:
            group.add_argument(*short, *long, **options, help=text)
            group.add_argument(*off, **options, help=argparse.SUPPRESS) if off else None
    return parser


def _title(section: str) -> str:
    return f"phase {section.removeprefix(PHASE)}" if section.startswith(PHASE) else section


def _help(one: Setting) -> str:
    text = one.help if one.default in (None, "", ()) else f"{one.help} [{one.shown(one.default)}]"
    return text.replace("%", "%%")


def _argument(kind: Any) -> dict[str, Any]:
    """How argparse is to read a type."""
    if kind is bool:
        return {"action": _Switch}
    if get_origin(kind) is Literal:
        names = [name for name in get_args(kind) if name]
        return {"type": _choice(get_args(kind)), "metavar": "{" + ",".join(names) + "}"}
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if inner[-1] is Ellipsis:
            return {"nargs": "*", "action": _Several, "type": _reader(inner[0]), "metavar": _metavar(inner[0])}
        return {"type": _list_of(inner), "metavar": "MIN,MAX" if len(inner) == 2 else ",".join(map(_metavar, inner))}
    plain = [one for one in get_args(kind) if one is not NoneType] or [kind]
    return {"type": _reader(plain[0]), "metavar": _metavar(plain[0])}


class _Switch(argparse.Action):
    """`--name` is True, `--no_name` False."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, nargs=0, **options)

    def __call__(self, _parser: Any, namespace: Any, _values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, not str(option_string).startswith("--no_"))


class _Several(argparse.Action):
    """Any number of values, kept as a tuple."""

    def __call__(self, _parser: Any, namespace: Any, values: Any, _option_string: str | None = None) -> None:
        setattr(namespace, self.dest, tuple(values))


def _reader(kind: type) -> Callable[[str], Any]:
    return {float: _finite, Path: _path}.get(kind, kind)


def _metavar(kind: type) -> str:
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


_finite.__name__ = "number"  # argparse says "invalid number value"


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def _choice(names: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(not_one_of(text, [name for name in names if name]))
        return text

    return read


def _list_of(kinds: Sequence[type]) -> Callable[[str], tuple[Any, ...]]:
    def read(text: str) -> tuple[Any, ...]:
        parts = text.split(",")
        if len(parts) != len(kinds):
            raise argparse.ArgumentTypeError(f"{text} is not {len(kinds)} values with commas between them")
        return tuple(_reader(kind)(part) for kind, part in zip(kinds, parts, strict=True))

    read.__name__ = "list"
    return read


def not_one_of(text: str, names: Sequence[str]) -> str:
    """What is wrong with a name, and the nearest that would be right."""
    nearest = get_close_matches(text, names, n=1, cutoff=0.5)
    hint = f", did you mean {nearest[0]}" if nearest else ""
    return f"{text!r} is not one of {', '.join(names)}{hint}"
