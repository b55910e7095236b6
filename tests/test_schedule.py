# SPDX-License-Identifier: Apache-2.0
"""Phases have lengths; a run has exactly the iterations it was asked for."""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import phases
from arguments import Config, RunConfig
from phases.base import Phase
from phases.every import NEVER, Every
from phases.ranks import OneProcess
from phases.schedule import PhaseSchedule, schedule
from utils.errors import UserError

AVAILABLE = MappingProxyType(phases.available())


def run(names: str, iterations: int, **lengths: int) -> PhaseSchedule:
    config = Config(run=RunConfig(phases=names, iterations=iterations))
    values = {name: {"iterations": length} for name, length in lengths.items()}
    return schedule(replace(config, phases=values), AVAILABLE)


@given(
    st.sampled_from(["none", "main", "main,ambient", "main,ambient,vlm"]),
    st.integers(min_value=1, max_value=40_000),
)
def test_every_choice_of_phases_has_exactly_the_iterations_asked_for(names, iterations):
    plan = run(names, iterations)
    covered = [i for phase in plan.phases for i in (phase.start, phase.end)]
    assert covered[0] == 1 and covered[-1] == iterations
    for before, after in zip(plan.phases, plan.phases[1:], strict=False):
        assert after.start == before.end + 1


def test_the_full_run_has_the_lengths_of_the_method():
    lengths = {phase.name: phase.length for phase in run("main,ambient,vlm", 30_000).phases}
    assert lengths == {"main": 4_000, "ambient": 16_000, "vlm": 10_000}


def test_what_is_left_out_trains_as_plain_fastgs():
    lengths = [(phase.name, phase.length) for phase in run("main", 30_000).phases]
    assert lengths == [("main", 4_000), ("fastgs", 26_000)]
    assert [phase.name for phase in run("none", 100).phases] == ["fastgs"]


def test_a_given_length_is_kept_and_the_others_share_the_rest():
    lengths = {phase.name: phase.length for phase in run("main,ambient,vlm", 1_000, main=100).phases}
    assert lengths["main"] == 100 and sum(lengths.values()) == 1_000


def test_lengths_that_exceed_the_run_are_refused():
    with pytest.raises(UserError, match="--iterations 10"):
        run("main,ambient,vlm", 10, main=11)


class _State:
    """As much of a state as the schedule touches."""

    def __init__(self, iteration: int = 0) -> None:
        self.iteration = iteration
        self.ranks = OneProcess()


def _hooked(calls: list[str], lengths: list[int]) -> PhaseSchedule:
    @dataclass(kw_only=True)
    class Hooked:
        name: str
        start: int
        length: int
        end: int

        def on_start(self, state):
            calls.append(f"start {self.name}")

        def on_end(self, state):
            calls.append(f"end {self.name}")

    plan, start = [], 1
    for name, length in zip("abc", lengths, strict=False):
        plan.append(Hooked(name=name, start=start, length=length, end=start + length - 1))
        start += length
    return PhaseSchedule(plan)


def _drive(plan: PhaseSchedule, state: _State, calls: list[str]) -> None:
    for phase in plan.steps(state):
        state.iteration += 1
        calls.append(f"{phase.name}{state.iteration}")


def test_hooks_bracket_the_steps_of_their_phase():
    calls: list[str] = []
    _drive(_hooked(calls, [2, 1]), _State(), calls)
    assert calls == ["start a", "a1", "a2", "end a", "start b", "b3", "end b"]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_resumed_anywhere_does_what_is_left_and_nothing_twice(stop):
    whole: list[str] = []
    _drive(_hooked(whole, [2, 2]), _State(), whole)
    rest: list[str] = []
    _drive(_hooked(rest, [2, 2]), _State(stop), rest)
    assert rest == whole[whole.index(f"{'a' if stop <= 2 else 'b'}{stop}") + 1 :]


def test_every_is_strictly_between_its_ends():
    assert [i for i in range(12) if i in Every(3, start=3, stop=9)] == [6]
    assert [i for i in range(12) if i in Every(3, start=3, origin=1)] == [4, 7, 10]
    assert not any(i in NEVER for i in range(1000))


def test_a_file_with_a_phase_in_it_is_a_phase():
    @dataclass(kw_only=True)
    class MyIdea(Phase):
        name: ClassVar[str] = "my_idea"
        share: ClassVar[float] = 0.1

    try:
        assert phases.available()["my_idea"] is MyIdea
        with pytest.raises(ValueError, match="two phases are called my_idea"):
            _same_name_again()
    finally:
        import gc

        del MyIdea
        gc.collect()


def test_a_phase_may_derive_from_another_and_needs_a_length():
    @dataclass(kw_only=True)
    class Base(Phase):
        gain: float = 1.0

    @dataclass(kw_only=True)
    class Heir(Base):
        name: ClassVar[str] = "heir"

    try:
        kinds = phases.available()
        assert kinds["heir"] is Heir and "" not in kinds
        config = Config(run=RunConfig(iterations=30, phases="main,heir"))
        with pytest.raises(UserError, match="heir has no length of its own; give --heir_iterations"):
            schedule(config, kinds)
        longer = replace(config, phases={"heir": {"iterations": 10}})
        assert [phase.length for phase in schedule(longer, kinds).phases if phase.name == "heir"] == [10]
    finally:
        import gc

        del Base, Heir, kinds
        gc.collect()


def _same_name_again() -> None:
    @dataclass(kw_only=True)
    class Again(Phase):
        name: ClassVar[str] = "my_idea"

    phases.available()
