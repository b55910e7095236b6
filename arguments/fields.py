# SPDX-License-Identifier: Apache-2.0
"""One function that declares a setting; the command line, the help, the docs and config.json come from it."""

from dataclasses import field
from typing import Any

FULL_RUN = 30_000
"""Iterations for which the defaults of scaled settings are given."""


def setting(
    default: Any,
    help: str,
    *,
    flags: tuple[str, ...] = (),
    scaled: bool = False,
    supported: bool = True,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A dataclass field that is also a command-line flag.

    Args:
        default: Value when the flag is absent; an immutable one.
        help: One line for --help and the docs.
        flags: Further spellings, such as ``-s``.
        scaled: The default is an iteration count for a run of 30 000; it scales with ``--iterations``
            unless the user gives a value.
        supported: False for a flag of the INRIA family that we only accept at its default.
        low: Smallest value allowed.
        high: Largest value allowed.
    """
    metadata = {"help": help, "flags": flags, "scaled": scaled, "supported": supported, "low": low, "high": high}
    return field(default=default, metadata=metadata)
