# SPDX-License-Identifier: Apache-2.0
"""All settings as one flat list, phases included: what the command line, config.json and the docs go through."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_args, get_type_hints

from .config import Config, DataConfig, DetectorConfig, OptimConfig, PipelineConfig, RunConfig

SECTIONS = {
    "data": DataConfig,
    "run": RunConfig,
    "pipeline": PipelineConfig,
    "optim": OptimConfig,
    "detector": DetectorConfig,
}
"""Settings classes by the name of their field in Config."""

PHASE = "phases."
"""Before a phase's name, the section that holds its settings."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One field declared with `setting`, and where it lives."""

    section: str
    name: str
    kind: Any
    default: Any
    help: str
    flags: tuple[str, ...]
    scaled: bool
    supported: bool
    low: float | None
    high: float | None

    @property
    def key(self) -> str:
        """Section and name; unique."""
        return f"{self.section}.{self.name}"

    @property
    def flag(self) -> str:
        """Its long flag; that of a phase's setting begins with the phase's name."""
        return f"--{self.key.removeprefix(PHASE).replace('.', '_')}" if self.of_phase else f"--{self.name}"

    @property
    def of_phase(self) -> bool:
        """Whether it belongs to a phase."""
        return self.section.startswith(PHASE)

    @property
    def is_range(self) -> bool:
        """Whether it is a MIN,MAX."""
        return get_args(self.kind) in ((int, int), (float, float))

    def shown(self, value: Any) -> str:
        """A value as the command line has it."""
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, tuple):
            return (" " if Ellipsis in get_args(self.kind) else ",").join(map(str, value)) or "none"
        return str(value) if value not in (None, "") else "none"


def sections(phase_classes: Mapping[str, type]) -> dict[str, type]:
    """Settings classes by section, those of the phases last."""
    return SECTIONS | {PHASE + name: kind for name, kind in phase_classes.items()}


def all_settings(phase_classes: Mapping[str, type]) -> list[Setting]:
    """Every setting in the order of --help."""
    return [one for section, kind in sections(phase_classes).items() for one in _settings_of(section, kind)]


def flatten(config: Config, phase_classes: Mapping[str, type]) -> dict[str, Any]:
    """The values of a configuration by key."""
    values: dict[str, Any] = {}
    for one in all_settings(phase_classes):
        if one.of_phase:
            values[one.key] = config.phases.get(one.section.removeprefix(PHASE), {}).get(one.name, one.default)
        else:
            values[one.key] = getattr(getattr(config, one.section), one.name)
    return values


def build(values: Mapping[str, Any], phase_classes: Mapping[str, type], given: tuple[str, ...] = ()) -> Config:
    """The configuration with these values by key, defaults where there is none."""
    parts: dict[str, dict[str, Any]] = {section: {} for section in sections(phase_classes)}
    for one in all_settings(phase_classes):
        parts[one.section][one.name] = values.get(one.key, one.default)
    groups = {section: kind(**parts[section]) for section, kind in SECTIONS.items()}
    return Config(**groups, phases={name: parts[PHASE + name] for name in phase_classes}, given=given)


@cache
def _settings_of(section: str, kind: type) -> tuple[Setting, ...]:
    return tuple(_settings(section, kind))


def _settings(section: str, kind: type) -> Iterator[Setting]:
    kinds = get_type_hints(kind)
    for field in fields(kind):
        if "help" in field.metadata:
            known = dict(field.metadata)
            yield Setting(section=section, name=field.name, kind=kinds[field.name], default=field.default, **known)
