# SPDX-License-Identifier: Apache-2.0
"""The phases of the method, one per file; a new file with a `Phase` in it is a new phase."""

import importlib
import pkgutil
from collections.abc import Iterator

from .base import Phase


def available() -> dict[str, type[Phase]]:
    """All phases of this folder by name.

    Raises:
        ValueError: two phases have one name.
    """
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    found: dict[str, type[Phase]] = {}
    for kind in _descendants(Phase):
        if vars(kind).get("name", "") in ("", "fastgs"):  # what others derive from, and the baseline
            continue
        if kind.name in found:
            raise ValueError(f"two phases are called {kind.name}: {found[kind.name]} and {kind}")
        found[kind.name] = kind
    return dict(sorted(found.items(), key=lambda item: ORDER.get(item[0], len(ORDER))))


def _descendants(kind: type[Phase]) -> Iterator[type[Phase]]:
    for heir in kind.__subclasses__():
        yield heir
        yield from _descendants(heir)


ORDER = {"main": 0, "ambient": 1, "vlm": 2}
"""Order in the help; other phases follow."""
