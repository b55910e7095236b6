# SPDX-License-Identifier: Apache-2.0
"""The phases of the method, one per file; a new file with a `Phase` in it is a new phase."""

import importlib
import pkgutil

from .base import Phase


def available() -> dict[str, type[Phase]]:
    """All phases of this folder by name.

    Raises:
        ValueError: two phases have one name.
    """
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    found: dict[str, type[Phase]] = {}
    for kind in Phase.__subclasses__():
        if kind.name == "fastgs":
            continue
        if kind.name in found:
            raise ValueError(f"two phases are called {kind.name}: {found[kind.name]} and {kind}")
        found[kind.name] = kind
    return dict(sorted(found.items(), key=lambda item: ORDER.get(item[0], len(ORDER))))


ORDER = {"main": 0, "ambient": 1, "vlm": 2}
"""Order in the help; other phases follow."""
