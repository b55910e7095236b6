# SPDX-License-Identifier: Apache-2.0
"""docs/settings.md, made of the same declarations as the command line."""

from collections.abc import Mapping, Sequence

from .listing import PHASE, Setting, all_settings, sections

INTRODUCTION = """# Settings

Written by `python tools/settings_page.py` from the dataclasses in `arguments/config.py` and `phases/`; edit those.

Every setting is a flag, a phase's with the name of the phase before it. A switch `--x` has a `--no_x`. Abbreviations
are refused. Defaults marked ↔ are iteration counts for a run of 30 000; they scale with `--iterations`, values that
you give do not. What a run used is in its `config.json`, scaled. `--preset` fills in FastGS's per-scene values, which
give way to what the command line says.

`--resume` takes all settings from the run's `config.json`. Only what does not change the result may be given anew:
`--source` (the dataset has moved; another one is noticed and refused), `--threads`, `--backend`, `--quiet`,
`--data_device`, `--checkpoint_every`, `--checkpoint_iterations`. Any other flag that differs is named and refused. A
larger `--iterations` keeps the schedule of the first run and lengthens its last phase, after its end too; the rates
rise again and come to rest at the new end.
"""

NOT_YET = """## Accepted at their default only

Known to users of the INRIA family; another value than the default ends with "not supported yet" and exit code 2.
"""


def settings_page(phase_classes: Mapping[str, type]) -> str:
    """The page as Markdown."""
    settings = all_settings(phase_classes)
    parts = [INTRODUCTION]
    for section, kind in sections(phase_classes).items():
        rows = [one for one in settings if one.section == section and one.supported]
        summary = (kind.__doc__ or "").strip().partition("\n")[0]
        parts.append(f"## {_title(section)}\n\n{summary}\n\n{_table(rows)}")
    parts.append(f"{NOT_YET}\n{_table([one for one in settings if not one.supported])}")
    return "\n".join(parts)


def _title(section: str) -> str:
    return f"Phase `{section.removeprefix(PHASE)}`" if section.startswith(PHASE) else f"`{section}`"


def _table(rows: Sequence[Setting]) -> str:
    lines = ["| flag | default | |", "|---|---|---|"]
    for one in rows:
        flags = ", ".join(f"`{flag}`" for flag in (*one.flags, one.flag))
        default = f"{one.shown(one.default)}{' ↔' if one.scaled else ''}"
        lines.append(f"| {flags} | {default} | {one.help.replace('|', '&#124;').replace('<', '&lt;')} |")
    return "\n".join(lines) + "\n"
