# SPDX-License-Identifier: Apache-2.0
"""Adam over the rows of the Gaussians, with FastGS's step schedule.

Moments live in the rows, so that they move with their Gaussians. Gradients gather in `.grad` between steps;
ours steps with their mean, FastGS as published with their sum over iterations (`--fastgs_faithful`).
"""

from dataclasses import dataclass
from math import exp, log
from typing import Any

import torch
from diff_gaussian_rasterization.optim import Group, adam_steps

from arguments import Config
from arguments.fields import FULL_RUN
from scene.gaussian_model import PARAMETERS, GaussianModel

GEOMETRY = ("means", "log_scales", "quats", "logit_opacities", "sh_dc")
COLOUR = ("sh_rest",)

MOST_BOOST = 4.0
"""More makes Gaussians overshoot."""
ENOUGH_VIEWS = 39
"""Of fewer photos, view-dependent colour would learn each by heart."""


@dataclass(frozen=True)
class StepWindows:
    """Iterations that share one step of the geometry (with the SH constant) and of the higher SH bands."""

    geometry: int
    colour: int


@dataclass(frozen=True)
class RateFactors:
    """Factors on the learning rates.

    boost: at the start of the run; positions, which come to rest anyway, keep it, the others fall to their own.
    rest: share of the run, at its end, over which all but the positions' fall to nothing.
    colour: on the higher SH bands, throughout.
    """

    boost: float = 1.0
    rest: float = 0.0
    colour: float = 1.0


PUBLISHED = RateFactors()


def fastgs_windows(iteration: int, config: Config) -> StepWindows:
    """FastGS's schedule, scaled to the run: (1, 16), after densification (32, 32), in the last third (64, 64)."""
    if config.optim.step_every:
        return StepWindows(config.optim.step_every, config.optim.step_every)
    total = config.run.planned

    def scaled(window: int) -> int:
        return max(1, round(window * total / FULL_RUN))

    if iteration <= config.optim.densify_until_iter:
        return StepWindows(1, scaled(16))
    window = scaled(32) if iteration <= total * 2 // 3 else scaled(64)
    return StepWindows(window, window)


def short_run_boost(config: Config) -> float:
    """How much higher the rates of a short run begin: fewer steps have the same way to go. 1 for a full run."""
    return min(MOST_BOOST, max(1.0, (FULL_RUN / config.run.planned) ** (2 / 3)))


def few_views_colour(views: int) -> float:
    """Factor on the rate of the higher SH bands when training on so many views."""
    return min(1.0, views / ENOUGH_VIEWS)


class Optimizer:
    """Learning rates, moments and step counts of all parameters."""

    def __init__(self, gaussians: GaussianModel, config: Config, extent: float) -> None:
        self._config = config.optim
        self._views = config.optim.views_per_step
        self._faithful = config.optim.fastgs_faithful
        self._extent = extent
        self._last = config.run.iterations
        self._planned = config.run.planned
        self.steps = {name: 0 for name in PARAMETERS}
        self._gathered = {name: 0 for name in PARAMETERS}
        for name in PARAMETERS:
            shape = tuple(gaussians.rows[name].shape[1:])
            gaussians.rows.add(f"{name}.exp_avg", shape=shape)
            gaussians.rows.add(f"{name}.exp_avg_sq", shape=shape)
        gaussians.rows.add("reach", fill=1.0)

    def position_rate(self, iteration: int) -> float:
        """Log-linear decay from the first to the last position rate, times the scene's size."""
        c = self._config
        u = min(iteration / c.position_lr_max_steps, 1.0)
        return self._extent * exp((1 - u) * log(c.position_lr_init) + u * log(c.position_lr_final))

    def rates(self, iteration: int, factors: RateFactors = PUBLISHED) -> dict[str, float]:
        """Learning rate of each parameter at an iteration."""
        c = self._config
        u = min(iteration / self._planned, 1.0)
        left = (self._planned if iteration <= self._planned else self._last) - iteration + 1
        fall = factors.boost ** (1 - u) * min(left / max(factors.rest * self._planned, 1.0), 1.0)
        return {
            "means": factors.boost * self.position_rate(iteration),
            "log_scales": fall * c.scaling_lr,
            "quats": fall * c.rotation_lr,
            "logit_opacities": fall * c.opacity_lr,
            "sh_dc": fall * c.lowfeature_lr,
            "sh_rest": fall * factors.colour * c.highfeature_lr / 20,
        }

    @torch.no_grad()
    def step(
        self, gaussians: GaussianModel, iteration: int, windows: StepWindows, factors: RateFactors = PUBLISHED
    ) -> None:
        """Step the groups whose window ends here; `rows["reach"]` scales each row's position rate."""
        if self._faithful and iteration == self._last:
            return
        due = GEOMETRY if iteration % windows.geometry == 0 else ()
        due += COLOUR if iteration % windows.colour == 0 else ()
        rates = self.rates(iteration, factors)
        for name in PARAMETERS:
            self._gathered[name] += 1
        adam_steps([group for name in due if (group := self._group(gaussians, name, rates[name]))])
        for name in due:
            gaussians.rows[name].grad = None

    def _group(self, gaussians: GaussianModel, name: str, rate: float) -> Group | None:
        """A parameter's step with the mean of what has gathered; None where nothing has."""
        rows = gaussians.rows
        parameter, gathered = rows[name], self._gathered[name]
        self._gathered[name] = 0
        if parameter.grad is None:
            return None
        summed = self._views * (1 if self._faithful else gathered)
        if summed > 1:
            parameter.grad /= summed
        self.steps[name] += 1
        lr = rate * rows["reach"] if name == "means" else rate
        moments = rows[f"{name}.exp_avg"], rows[f"{name}.exp_avg_sq"]
        return Group(parameter.detach(), parameter.grad, *moments, lr, self.steps[name])

    @torch.no_grad()
    def forget(self, gaussians: GaussianModel, name: str) -> None:
        """Zero the moments of one parameter, after it was set from outside."""
        gaussians.rows[f"{name}.exp_avg"].zero_()
        gaussians.rows[f"{name}.exp_avg_sq"].zero_()

    def drop_gradients(self, gaussians: GaussianModel) -> None:
        """Lose what was gathered since the last step, as FastGS does at every densification."""
        for name in PARAMETERS:
            gaussians.rows[name].grad = None
            self._gathered[name] = 0

    def state_dict(self) -> dict[str, Any]:
        """Step counts and the lengths of open windows."""
        return {"steps": dict(self.steps), "gathered": dict(self._gathered)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.steps, self._gathered = dict(saved["steps"]), dict(saved["gathered"])
