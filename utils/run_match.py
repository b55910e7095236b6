# SPDX-License-Identifier: Apache-2.0
"""Whether what is to be continued is what was begun: same settings, same dataset."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arguments import Config
from arguments.cli import CONTINUED_WITH, LENGTHENED_BY
from arguments.listing import SECTIONS

from .errors import UserError


def lasting_settings(config: Config) -> dict[str, Any]:
    """The settings that a run cannot change while it lives, by key, as plain data for its checkpoints."""
    values = {f"{section}.{name}": v for section in SECTIONS for name, v in vars(getattr(config, section)).items()}
    values |= {f"phases.{phase}.{name}": v for phase, group in config.phases.items() for name, v in group.items()}
    lasting = {key: v for key, v in values.items() if key not in CONTINUED_WITH | LENGTHENED_BY}
    return {key: str(value) if isinstance(value, Path) else value for key, value in sorted(lasting.items())}


def check_settings(path: Path, about: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """A checkpoint must be of a run with these settings; what only one of the two knows is a newer program's.

    Raises:
        UserError: settings differ; all of them are named.
    """
    saved = about.get("settings", {})
    differing = [key for key in settings if key in saved and saved[key] != settings[key]]
    if differing:
        told = ", ".join(f"{key} {settings[key]!r} instead of {saved[key]!r}" for key in differing)
        raise UserError(
            f"{path.parent / 'config.json'}: not the settings that {path.name} was trained with ({told}); "
            "put the file back, or start anew with --overwrite"
        )


def check_dataset(source: Path | None, about: Mapping[str, Any], dataset: Mapping[str, str]) -> None:
    """The dataset must be the one that the run began with, wherever it lies now.

    Raises:
        UserError: views were added, removed or changed; how many, and one by name.
    """
    saved = about.get("dataset")
    if saved is None or saved == dataset:
        return
    sorts = {
        "added": [name for name in dataset if name not in saved],
        "missing": [name for name in saved if name not in dataset],
        "changed": [name for name in dataset if name in saved and saved[name] != dataset[name]],
    }
    told = ", ".join(f"{len(names)} {what} ({names[0]})" for what, names in sorts.items() if names)
    raise UserError(
        f"--source {source}: not the dataset that this run began with, views {told or 'in another order'}; "
        "put it back, or start anew with --overwrite"
    )
