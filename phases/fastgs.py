# SPDX-License-Identifier: Apache-2.0
"""Plain FastGS on the whole image: the baseline, and what stands in for a phase that is left out."""

from dataclasses import dataclass
from typing import ClassVar

from arguments.fields import FULL_RUN

from .base import Phase
from .density import Events, keeping, last_reset
from .every import NEVER, Every
from .optimizer import RateFactors, StepWindows, fastgs_windows
from .state import TrainingState

LAST_RESET = 0.8
"""Share of the densification after which no opacity is reset: the late pruning would take what has not recovered."""


@dataclass(kw_only=True)
class FastGS(Phase):
    """FastGS's schedules on the iterations of the whole run, whatever came before."""

    name: ClassVar[str] = "fastgs"

    def events(self, state: TrainingState) -> Events:
        """Densification, opacity resets and late pruning as published, scaled to the run."""
        optim, total = state.config.optim, state.config.run.planned
        until, keep = optim.densify_until_iter, _keeping(state)
        reset_end = min(round(LAST_RESET * until), last_reset(state.config) if keep else total) + 1
        return Events(
            densify=Every(optim.densification_interval, optim.densify_from_iter, until),
            reset_opacity=Every(_reset_interval(state), 0, reset_end),
            late_prune=Every(optim.late_prune_interval, until, total) if total > until else NEVER,
            keep=keep,
        )

    def windows(self, state: TrainingState) -> StepWindows:
        """FastGS's step schedule; after the keeping every iteration, so that what is kept is fine-tuned."""
        kept = _keeping(state)
        if kept and state.iteration >= kept[-1] and not state.config.optim.step_every:
            return StepWindows(1, 1)
        return fastgs_windows(state.iteration, state.config)

    def rates(self, state: TrainingState) -> RateFactors:
        """As published, unless `--rate_boost` or `--rate_rest` asks for others."""
        optim = state.config.optim
        return RateFactors(optim.rate_boost or 1.0, optim.rate_rest if "--rate_rest" in state.config.given else 0.0)

    def square(self, state: TrainingState) -> float:
        """As published, unless `--lambda_square` asks for some."""
        return super().square(state) if "--lambda_square" in state.config.given else 0.0

    def opacity_reg(self, state: TrainingState) -> float:
        """As published, unless `--opacity_reg` asks for some."""
        return super().opacity_reg(state) if "--opacity_reg" in state.config.given else 0.0

    def dropout(self, state: TrainingState) -> float:
        """As published, unless `--dropout` asks for some."""
        return super().dropout(state) if state.config.optim.dropout else 0.0

    def after_step(self, state: TrainingState) -> None:
        """As any phase; a white background asks for one more opacity reset when densification begins."""
        super().after_step(state)
        if state.config.data.white_background and state.iteration == state.config.optim.densify_from_iter:
            state.density.limit_opacity(state, 0.01)


def _keeping(state: TrainingState) -> tuple[int, ...]:
    """When what is needed is kept and the rest goes: in runs with phases or a cap; never as published."""
    optim, run = state.config.optim, state.config.run
    keeps = (optim.cap_max or run.phases != "none") and not optim.fastgs_faithful
    return keeping(state.config) if keeps else ()


def _reset_interval(state: TrainingState) -> int:
    """As given; as published it scales with the run like everything else."""
    optim, config = state.config.optim, state.config
    if not optim.fastgs_faithful or "--opacity_reset_interval" in config.given:
        return optim.opacity_reset_interval
    return max(1, round(optim.opacity_reset_interval * config.run.planned / FULL_RUN))
