# SPDX-License-Identifier: Apache-2.0
"""What a phase is: a file, a dataclass, four hooks.

A class in `phases/` that derives from `Phase` and has a name is found by itself: its fields declared with
`setting` become the flags `--<name>_<field>`, and `--phases` accepts the name.
"""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from diff_gaussian_rasterization.losses import photometric
from torch import Tensor

from arguments import setting

from .density import Events, keeping
from .dropout import usual_dropout
from .optimizer import RateFactors, StepWindows, few_views_colour, short_run_boost
from .scores import where_seen
from .state import Step, TrainingState

LEAST_MEAN_WEIGHT = 0.02
"""A view of which hardly anything counts is not blown up to a full vote."""


@dataclass(kw_only=True)
class Phase(ABC):
    """A stretch of training with its own loss and its own densification."""

    name: ClassVar[str] = ""
    share: ClassVar[float] = 0.0
    """Part of all iterations that the phase lasts when `iterations` is not given."""

    iterations: int | None = setting(None, "Length of the phase; default its share of the run.", low=0)

    start: int = field(default=1, init=False)
    """First iteration, 1-based; set by the schedule."""
    length: int = field(default=0, init=False)
    """Number of iterations; set by the schedule."""
    extra: int = field(default=0, init=False)
    """Iterations that a lengthened run goes on in its last phase, whose own events stay where they were."""

    @property
    def end(self) -> int:
        """Last iteration."""
        return self.start + self.length + self.extra - 1

    @property
    def inserts(self) -> int:
        """About how many Gaussians the phase inserts; for the estimate of memory."""
        return 0

    def on_start(self, state: TrainingState) -> None:
        """Before the first step: insert Gaussians, inspect the scene."""

    def loss(self, state: TrainingState, step: Step) -> dict[str, Tensor]:
        """Named terms; their sum is minimised, each is logged. Default: `photo_terms` and the mean opacity."""
        terms = self.photo_terms(state, step, self.pixel_weight(state, step))
        if (opacity := self.opacity_reg(state)) and len(state.gaussians):
            # Of what the photo shows only: the rest has no gradient that Adam could weigh this one against.
            counts = step.output.counts
            shown = step.output.visible if counts is None else counts > 0
            terms["opacity"] = opacity * (state.gaussians.opacities[:, 0] * shown).mean()
        return terms

    def photo_terms(self, state: TrainingState, step: Step, weight: Tensor | None) -> dict[str, Tensor]:
        """What sets a render against its photo, each pixel with its weight [H, W]: FastGS's loss, squared errors."""
        target = where_seen(step.target, step.mask, step.output.image)
        terms = {"image": photometric(step.output.image, target, weight, state.config.optim.lambda_dssim)}
        if square := self.square(state):
            squares = (step.output.image - target).square().mean(0)
            terms["squares"] = square * (squares if weight is None else squares * weight).mean()
        return terms

    def pixel_weight(self, state: TrainingState, step: Step) -> Tensor | None:
        """Weight [H, W] of each pixel in the loss, mean 1 where seen. Default: the photo's mask, if any."""
        if step.mask is None:
            return None
        return step.mask / step.mask.mean().clamp_min(1e-6)

    def events(self, state: TrainingState) -> Events:
        """Which of FastGS's events happen in this phase, and when."""
        return Events()

    def windows(self, state: TrainingState) -> StepWindows:
        """Iterations per optimiser step. Default: one, unless `--step_every` asks for more."""
        window = state.config.optim.step_every or 1
        return StepWindows(window, window)

    def rates(self, state: TrainingState) -> RateFactors:
        """Factors on the learning rates. Default: as given, else by the run's length and by the number of views."""
        given = state.config.optim.rate_boost
        boost = short_run_boost(state.config) if given is None else given
        as_given = "--highfeature_lr" in state.config.given
        colour = 1.0 if as_given else few_views_colour(len(state.scene.train_cameras))
        return RateFactors(boost, state.config.optim.rate_rest, colour)

    def square(self, state: TrainingState) -> float:
        """Weight of the mean squared error in the loss. Default: `--lambda_square`.

        Where photos disagree it asks for their mean, L1 for what most of them show. None before the keeping begins:
        densification goes by the size of gradients.
        """
        return state.config.optim.lambda_square if _keeping_begun(state) else 0.0

    def opacity_reg(self, state: TrainingState) -> float:
        """Weight of the mean opacity in the loss. Default: `--opacity_reg`, from the keeping on.

        What no photo asks for fades. Source: Kheradmand et al., 3DGS-MCMC, arXiv 2404.09591, there of all Gaussians.
        """
        return state.config.optim.opacity_reg if _keeping_begun(state) else 0.0

    def dropout(self, state: TrainingState) -> float:
        """Share of the Gaussians left out of each training view. Default: `--dropout`, else by the number of views.

        None before the keeping begins: densification would grow what the gaps seem to ask for.
        """
        if not _keeping_begun(state):
            return 0.0
        given = state.config.optim.dropout
        return usual_dropout(len(state.scene.train_cameras)) if given is None else given

    def sh_degree(self, state: TrainingState) -> int:
        """Active SH degree. Default: one more every `sh_interval` iterations of the run."""
        return state.iteration // state.config.optim.sh_interval

    def after_view(self, state: TrainingState, step: Step) -> None:
        """After each view's gradients. Default: its statistics, as long as there are densifications to come."""
        if step.iteration < self.events(state).densify.stop:
            state.density.gather(state.gaussians, step)

    def after_step(self, state: TrainingState) -> None:
        """After the gradients of all views, before the optimiser. Default: the phase's events."""
        state.density.after_step(state, self.events(state))

    def on_end(self, state: TrainingState) -> None:
        """After the last step."""

    def state_dict(self) -> dict[str, Any]:
        """What the phase must remember in a checkpoint, as plain data."""
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


def _keeping_begun(state: TrainingState) -> bool:
    return state.iteration >= keeping(state.config)[0]
