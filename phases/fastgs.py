# SPDX-License-Identifier: Apache-2.0
"""Plain FastGS on the whole image: the baseline, and what stands in for a phase that is left out."""

from dataclasses import dataclass
from typing import ClassVar

from .base import Phase
from .density import Events
from .every import NEVER, Every
from .optimizer import StepWindows, fastgs_windows
from .state import Step, TrainingState


@dataclass(kw_only=True)
class FastGS(Phase):
    """FastGS's schedules on the iterations of the whole run, whatever came before."""

    name: ClassVar[str] = "fastgs"

    def events(self, state: TrainingState) -> Events:
        """Densification, opacity resets and late pruning as published, scaled to the run."""
        optim, total = state.config.optim, state.config.run.iterations
        until = optim.densify_until_iter
        keeps = (optim.cap_max or state.config.run.phases != "none") and not optim.fastgs_faithful
        return Events(
            densify=Every(optim.densification_interval, optim.densify_from_iter, until),
            reset_opacity=Every(optim.opacity_reset_interval, 0, until),
            late_prune=Every(optim.late_prune_interval, until, total) if total > until else NEVER,
            keep_at=round(optim.keep_at * total) if keeps else None,
        )

    def windows(self, state: TrainingState) -> StepWindows:
        """FastGS's step schedule."""
        return fastgs_windows(state.iteration, state.config)

    def after_step(self, state: TrainingState, step: Step) -> None:
        """As any phase; a white background asks for one more opacity reset when densification begins."""
        super().after_step(state, step)
        if state.config.data.white_background and step.iteration == state.config.optim.densify_from_iter:
            state.density.limit_opacity(state, 0.01)
