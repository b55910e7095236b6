# SPDX-License-Identifier: Apache-2.0
"""Phases have lengths, so they can neither overlap nor leave a gap."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from arguments import Config
from utils.errors import UserError

from .base import Phase
from .fastgs import FastGS
from .state import TrainingState

METHOD = ("main", "ambient", "vlm")
"""The phases of the method; what is left out of a run trains as plain FastGS for as long."""


@dataclass
class PhaseSchedule:
    """The phases of a run in order, each with its place on the axis of iterations."""

    phases: list[Phase]

    def steps(self, state: TrainingState) -> Iterator[Phase]:
        """The phase of each step still to do, with its hooks called at its borders.

        A checkpoint that was written on a border belongs to the old phase: its `on_end` is still to run.
        """
        for phase in self.phases:
            if phase.end < state.iteration:
                continue
            if phase.start == state.iteration + 1:
                state.ranks.lead(phase.on_start, state, phase)
            while state.iteration < phase.end:
                yield phase
            state.ranks.lead(phase.on_end, state, phase)

    def state_dict(self) -> list[dict[str, Any]]:
        """What the phases remember, in order."""
        return [phase.state_dict() for phase in self.phases]

    def load_state_dict(self, saved: list[dict[str, Any]]) -> None:
        """Give every phase back what it remembered."""
        for phase, remembered in zip(self.phases, saved, strict=True):
            phase.load_state_dict(remembered)


def schedule(config: Config, available: Mapping[str, type[Phase]]) -> PhaseSchedule:
    """The phases of `--phases`, their lengths summing to `--iterations` exactly.

    Raises:
        UserError: the given lengths exceed the run.
    """
    wanted = [] if config.run.phases == "none" else config.run.phases.split(",")
    phases = [_make(available[name], config.phases.get(name, {})) for name in wanted]
    if not set(METHOD) <= set(wanted):
        phases.append(FastGS())
    _set_lengths(phases, config.run.planned, available)
    phases = [phase for phase in phases if phase.length]
    phases[-1].extra = config.run.iterations - config.run.planned
    return PhaseSchedule(phases)


def _make(kind: type[Phase], values: Mapping[str, Any]) -> Phase:
    known = {field.name for field in fields(kind) if field.init}
    return kind(**{name: value for name, value in values.items() if name in known})


def _set_lengths(phases: list[Phase], total: int, available: Mapping[str, type[Phase]]) -> None:
    given = sum(phase.iterations or 0 for phase in phases)
    if given > total:
        raise UserError(f"--iterations {total}: the phases' own lengths sum to {given}; give fewer or more")
    open_phases = [phase for phase in phases if phase.iterations is None]
    for phase in open_phases:
        if not (phase.share or isinstance(phase, FastGS)):
            raise UserError(f"--phases: {phase.name} has no length of its own; give --{phase.name}_iterations")
    shares = [_share(phase, phases, available) for phase in open_phases]
    lengths = _split(total - given, shares)
    if not open_phases and given < total:
        raise UserError(f"--iterations {total}: the phases' own lengths sum to only {given}")
    start = 1
    for phase in phases:
        phase.start = start
        phase.length = phase.iterations if phase.iterations is not None else lengths.pop(0)
        start += phase.length


def _share(phase: Phase, phases: list[Phase], available: Mapping[str, type[Phase]]) -> float:
    """The share of a phase; plain FastGS takes those of the phases that it stands for."""
    if not isinstance(phase, FastGS):
        return phase.share
    present = {other.name for other in phases}
    return sum(available[name].share for name in METHOD if name in available and name not in present) or 1.0


def _split(total: int, shares: list[float]) -> list[int]:
    """Whole numbers in the proportion of `shares` that sum to `total`."""
    whole = sum(shares) or 1.0
    edges = [round(total * sum(shares[: k + 1]) / whole) for k in range(len(shares))]
    return [edge - before for before, edge in zip([0, *edges], edges, strict=False)]
