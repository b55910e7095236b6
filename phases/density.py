# SPDX-License-Identifier: Apache-2.0
"""How many Gaussians, and which: FastGS's multi-view densification and pruning, and keeping what is needed.

Limits of size and position rates are relative to a Gaussian's distance from the nearest training camera, d / D
with D the median distance of the cameras to the focus point; `--fastgs_faithful` takes the scene extent e for
all. Sources: Ren et al., FastGS, arXiv 2511.04283; Ye et al., AbsGS, arXiv 2404.10484.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from arguments import Config
from scene.gaussian_model import PARAMETERS, GaussianModel

from .every import NEVER, Every
from .scores import removal_costs, score_gaussians

if TYPE_CHECKING:
    from .state import Step, TrainingState

STATISTICS = ("grad_sum", "abs_grad_sum", "seen", "blame")
INHERITED = (*PARAMETERS, "label", "birth", "reach")

MIN_OPACITY = 0.005
CAP_OPACITY = 0.8
RESET_OPACITY = 0.01
LATE_MIN_OPACITY = 0.1
LATE_MAX_BLAME = 0.9
SPLIT_SHRINK = 1.6
KEEPINGS = 4
RECOVERY = 1_000
"""Iterations after an opacity reset in which nobody can tell what is needed; as many in a short run."""
RESERVE = 0.6
"""What is kept beyond the final number, in parts of it, until an inspection has said where it is needed."""
FULL_SIZE_PIXELS = 6.2e6
"""`dense` holds as it is at this many pixels; it grows as the pixels get larger (0.01 at 62 000)."""


@dataclass(frozen=True)
class Events:
    """What happens to the number of Gaussians in a phase, and when (global iterations)."""

    densify: Every = NEVER
    reset_opacity: Every = NEVER
    late_prune: Every = NEVER
    keep: tuple[int, ...] = ()
    """Iterations at which what is needed most is kept and the rest goes; after the last one as many as shall stay."""
    importance: Callable[[GaussianModel], Tensor] | None = None
    """Factor [N] on the multi-view importance, such as 'lies in the main region'."""


def keeping(config: Config) -> tuple[int, ...]:
    """Iterations of the keeping: in steps the gaps heal that each one leaves."""
    optim, total = config.optim, config.run.planned
    last = round(optim.keep_at * total)
    first = min(last, round(optim.keep_from * total))
    return tuple(sorted({first + (last - first) * step // (KEEPINGS - 1) for step in range(KEEPINGS)}))


def last_reset(config: Config) -> int:
    """Iteration after which no opacity is reset, in a run that keeps what is needed."""
    return keeping(config)[0] - RECOVERY


def _inspected(config: Config) -> bool:
    """Whether phase 2 is to come."""
    return "vlm" in config.run.phases.split(",") and config.phases.get("vlm", {}).get("iterations") != 0


class DensityControl:
    """Gathers the statistics of densification and carries out its events."""

    def __init__(self, state: TrainingState) -> None:
        self._optim = state.config.optim
        self._extent = state.scene.extent
        self._median_distance = float(state.geometry.median_distance)
        self._cameras = torch.from_numpy(state.geometry.positions).float().to(state.device)
        pixels = state.scene.train_cameras[0].width * state.scene.train_cameras[0].height
        given = self._optim.preset or "--dense" in state.config.given
        self._dense = self._optim.dense * (1.0 if given else max(1.0, (FULL_SIZE_PIXELS / pixels) ** 0.5))
        self.full: int | None = None
        self.target: int | None = None
        self.reserve = RESERVE if _inspected(state.config) else 0.0
        for name in STATISTICS:
            state.gaussians.rows.add(name)
        self.update_reach(state.gaussians)

    # -- limits ------------------------------------------------------------------------------------------

    def relative_distance(self, means: Tensor) -> Tensor:
        """Distance of points [N, 3] to the nearest training camera over the median camera distance, [N]."""
        if self._optim.fastgs_faithful:
            return means.new_ones(len(means))
        if not len(means):
            return means.new_zeros(0)
        nearest = [
            torch.cdist(part, self._cameras, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
            for part in means.split(1 << 15)  # all pairs at once are too many in a large scene
        ]
        return torch.cat(nearest) / self._median_distance

    @torch.no_grad()
    def update_reach(self, gaussians: GaussianModel) -> None:
        """Give each row the factor on its position rate."""
        gaussians.rows["reach"].copy_(self.relative_distance(gaussians.means).clamp(0.2, 100))

    def _small(self, gaussians: GaussianModel) -> Tensor:
        dense = self._optim.dense if self._optim.fastgs_faithful else self._dense
        limit = dense * self._extent * self.relative_distance(gaussians.means)
        return gaussians.scales.amax(1) <= limit

    def _oversized(self, gaussians: GaussianModel) -> Tensor:
        largest = gaussians.scales.amax(1)
        if self._optim.fastgs_faithful:
            return largest > 0.1 * self._extent
        return largest > 0.5 * self._median_distance * self.relative_distance(gaussians.means)

    def room(self, gaussians: GaussianModel) -> int | None:
        """How many Gaussians may be added: to twice `--cap_max` before the keeping, none above its number after."""
        if self.target is not None:
            return max(0, self.target - len(gaussians))
        if self._optim.cap_max:
            return max(0, 2 * self._optim.cap_max - len(gaussians))
        return None

    # -- events ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def after_step(self, state: TrainingState, events: Events) -> None:
        """Whatever is due."""
        iteration = state.iteration
        if iteration in events.densify:
            self.densify(state, importance=events.importance)
        if iteration in events.reset_opacity:
            self.limit_opacity(state, RESET_OPACITY)
        if iteration in events.late_prune:
            self.late_prune(state)
        if iteration in events.keep:
            self.keep_needed(state, (events.keep.index(iteration) + 1) / len(events.keep))

    @torch.no_grad()
    def gather(self, gaussians: GaussianModel, step: Step) -> None:
        """Add a view to the statistics, whatever the number of views in a step: none is divided by it."""
        gradient, visible = step.output.means2d.grad, step.output.visible
        if gradient is None:
            return
        rows = gaussians.rows
        x, y, abs_x, abs_y = gradient.unbind(1)
        rows["grad_sum"].add_(_length(x, y) * visible)
        rows["abs_grad_sum"].add_(_length(abs_x, abs_y) * visible)
        rows["seen"].add_(visible)

    def densify(self, state: TrainingState, *, importance: Callable[[GaussianModel], Tensor] | None = None) -> None:
        """Clone and split what the views' errors ask for, prune what is faint or blamed."""
        gaussians, rows = state.gaussians, state.gaussians.rows
        scores = score_gaussians(state, self._optim.score_views)
        weight = 1.0 if importance is None else importance(gaussians)
        wanted = (scores.importance * weight).floor() > self._optim.importance
        before = len(gaussians)
        rows["blame"].copy_(scores.blame)
        self.grow(state, wanted)
        self._prune(state, scores.blame, before)
        self.limit_opacity(state, CAP_OPACITY)
        self.finish(state)

    def grow(self, state: TrainingState, wanted: Tensor) -> None:
        """Clone the small and split the large ones of the `wanted` rows [N] whose gradients call for it."""
        gaussians, rows = state.gaussians, state.gaussians.rows
        seen = rows["seen"].clamp_min(1)
        gradient, absolute = rows["grad_sum"] / seen, rows["abs_grad_sum"] / seen
        small = self._small(gaussians)
        clone = wanted & small & (gradient >= self._optim.grad_thresh)
        split = wanted & ~small & (absolute >= self._optim.grad_abs_thresh)
        urgency = torch.maximum(gradient / self._optim.grad_thresh, absolute / self._optim.grad_abs_thresh)
        clone, split = self._within_room(gaussians, clone, split, urgency)
        clones = {name: rows[name].detach()[clone] for name in INHERITED}
        children = self._children(state, split)
        fresh = {name: torch.cat([clones[name], children[name]]) for name in INHERITED}
        rows.gather_append((~split).nonzero().squeeze(1), fresh)

    def _within_room(
        self, gaussians: GaussianModel, clone: Tensor, split: Tensor, urgency: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both clone and split add one row each; when there is too little room the most urgent go first."""
        room, chosen = self.room(gaussians), clone | split
        if room is None or int(chosen.sum()) <= room:
            return clone, split
        order = torch.where(chosen, urgency, torch.full_like(urgency, -1)).argsort(descending=True, stable=True)
        allowed = torch.zeros_like(chosen)
        allowed[order[:room]] = True
        return clone & allowed, split & allowed

    def _children(self, state: TrainingState, split: Tensor) -> dict[str, Tensor]:
        """Two per parent, drawn from the parent, 1.6 times smaller."""
        rows = state.gaussians.rows
        twice = split.nonzero().squeeze(1).repeat(2)
        children = {name: rows[name].detach()[twice] for name in INHERITED}
        noise = torch.randn(len(twice), 3, generator=state.generator).to(state.device)
        offsets = rotate(children["quats"], noise * children["log_scales"].exp())
        children["means"] = children["means"] + offsets
        children["log_scales"] = children["log_scales"] - torch.log(torch.tensor(SPLIT_SHRINK))
        return children

    def _prune(self, state: TrainingState, blame: Tensor, before: int) -> None:
        """Of the faint and the oversized, remove the half with the larger blame; of equals the fainter."""
        gaussians = state.gaussians
        candidates = self._faint(state, MIN_OPACITY)
        if state.iteration > self._optim.size_prune_from:
            candidates |= self._oversized(gaussians)
        budget = int(candidates.sum()) // 2
        if not budget:
            return
        if self._optim.fastgs_faithful:
            drawn = self._draw_as_published(state, blame, before, budget)
            gaussians.keep(~(candidates & drawn))
            return
        fainter = gaussians.logit_opacities.detach().squeeze(1).argsort(stable=True)
        order = torch.where(candidates, gaussians.rows["blame"], -1.0)[fainter].argsort(descending=True, stable=True)
        keep = torch.ones_like(candidates)
        keep[fainter[order[:budget]]] = False
        gaussians.keep(keep)

    def _draw_as_published(self, state: TrainingState, blame: Tensor, before: int, budget: int) -> Tensor:
        """FastGS's draw over all rows, with the scores of the rows as they stood before splitting."""
        weights = torch.zeros(len(state.gaussians))
        count = min(before, len(weights))
        weights[:count] = 1 / (1e-6 + 1 - blame[:count].cpu())
        drawn = torch.zeros(len(weights), dtype=torch.bool)
        drawn[torch.multinomial(weights, min(budget, count), generator=state.generator)] = True
        return drawn.to(state.device)

    def _faint(self, state: TrainingState, opacity: float) -> Tensor:
        """Less opaque than that, and old enough to have become more."""
        faint = state.gaussians.opacities.squeeze(1) < opacity
        if self._optim.fastgs_faithful:
            return faint
        return faint & (state.gaussians.births <= state.iteration - self._optim.grace)

    def late_prune(self, state: TrainingState) -> None:
        """After densification has ended: the faint and the most blamed go."""
        blame = score_gaussians(state, self._optim.score_views).blame
        state.gaussians.keep(~(self._faint(state, LATE_MIN_OPACITY) | (blame > LATE_MAX_BLAME)))
        self.finish(state)

    def keep_needed(self, state: TrainingState, done: float = 1.0) -> None:
        """Keep the rows that the training views need most; `done` is how far down the number then is."""
        if self.full is None:
            self.full = max(1, len(state.gaussians))
        last = max(1, round((1 + self.reserve) * (self._optim.cap_max or self._optim.keep_share * self.full)))
        self.keep_largest(state, removal_costs(state), round(self.full * (last / self.full) ** done))
        self.target = last if done == 1 else None
        self.finish(state)

    def spend_reserve(self, state: TrainingState, regions: Mapping[int, Tensor], weight: float) -> None:
        """Down to the final number, if the keeping is over: the regions' pixels (`removal_costs`) have more to say."""
        reserve, self.reserve = self.reserve, 0.0
        if self.target is None or not reserve:
            return
        self.target = max(1, round(self.target / (1 + reserve)))
        self.keep_largest(state, removal_costs(state, regions, weight), self.target)
        self.finish(state)

    @staticmethod
    def keep_largest(state: TrainingState, values: Tensor, count: int) -> None:
        """Keep the `count` rows of the largest values [N], in their order."""
        if len(values) > count:
            order = values.argsort(descending=True, stable=True)
            state.gaussians.rows.gather_append(order[:count].sort().values)

    def limit_opacity(self, state: TrainingState, opacity: float) -> None:
        """No Gaussian more opaque than this; the opacities' moments start anew."""
        limit = torch.logit(torch.tensor(opacity)).item()
        state.gaussians.logit_opacities.detach().clamp_(max=limit)
        state.optimizer.forget(state.gaussians, "logit_opacities")

    def finish(self, state: TrainingState) -> None:
        """After the rows have changed: they are arranged, statistics start anew, distances are taken again."""
        state.gaussians.arrange()
        self.update_reach(state.gaussians)
        for name in STATISTICS:
            state.gaussians.rows[name].zero_()
        if self._optim.fastgs_faithful:
            state.optimizer.drop_gradients(state.gaussians)

    def state_dict(self) -> dict[str, Any]:
        """How many there were when the keeping began, and may be since it ended (None before); what is in reserve."""
        return {"full": self.full, "target": self.target, "reserve": self.reserve}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        # Older checkpoints have "peak", and nothing in reserve.
        self.full, self.target = saved.get("full", saved.get("peak")), saved["target"]
        self.reserve = saved.get("reserve", 0.0)


def _length(x: Tensor, y: Tensor) -> Tensor:
    """Lengths of 2D vectors, never 0: torch's root of zeros, as its norm, takes twenty times as long."""
    return (x * x + y * y).clamp_min(torch.finfo(x.dtype).tiny).sqrt()


def rotate(quats: Tensor, vectors: Tensor) -> Tensor:
    """Vectors [N, 3] turned by quaternions [N, 4] (w, x, y, z), which need not be normalised."""
    q = torch.nn.functional.normalize(quats, dim=1)
    w, u = q[:, :1], q[:, 1:]
    crossed = 2 * torch.linalg.cross(u, vectors)
    return vectors + w * crossed + torch.linalg.cross(u, crossed)
