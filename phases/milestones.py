# SPDX-License-Identifier: Apache-2.0
"""What a run writes while it goes on: figures, pictures, PLYs, checkpoints."""

from collections.abc import Sequence
from typing import Any

import torch

from scene.cameras import Camera
from scene.fingerprint import fingerprint
from scene.gaussian_model import SH_C0
from scene.model_folder import save_gaussians, write_run_files
from scene.points import PointCloud
from utils.finite import check_finite
from utils.metrics import hide
from utils.report import write_report
from utils.run_dir import EVERY

from .base import Phase
from .evaluation import evaluate
from .schedule import PhaseSchedule
from .start import write_geometry
from .state import TrainingState


class Milestones:
    """Keeps the run folder up to date, and continues from it on `--resume`."""

    def __init__(self, state: TrainingState, plan: PhaseSchedule) -> None:
        self._state, self._plan = state, plan
        run = state.config.run
        self._last = run.iterations
        self._tests = {*run.test_iterations, self._last}
        self._saves = {*run.save_iterations, self._last}
        if state.ranks.first:
            self._open()
        state.ranks.share(state, plan)

    def _open(self) -> None:
        """Begin or go on writing."""
        state, plan, data = self._state, self._plan, self._state.config.data
        folders = [] if data.source is None else [data.source / data.images, data.source]
        saved = state.run.resume(fingerprint(state.scene.cameras, folders))
        if saved is None:
            self._begin()
        else:
            state.load_state_dict(saved["state"])
            plan.load_state_dict(saved["phases"])

    def _begin(self) -> None:
        """What the folder holds before the first iteration."""
        state, data = self._state, self._state.config.data
        write_geometry(state)
        colors = (0.5 + SH_C0 * state.gaussians.sh_dc.detach().cpu().squeeze(1)).clamp(0, 1)
        write_run_files(
            state.run.path,
            source=data.source,
            images=data.images,
            resolution=data.resolution,
            white_background=data.white_background,
            hold_out=data.eval,
            sh_degree=state.config.pipeline.sh_degree,
            test_cameras=state.scene.test_cameras,
            train_cameras=state.scene.train_cameras,
            origin=state.scene.zero,
            start=PointCloud(
                state.gaussians.means.detach().cpu().double().numpy(), (colors * 255).round().to(torch.uint8).numpy()
            ),
        )

    def after_step(self, phase: Phase, losses: dict[str, float]) -> None:
        """Log the step, and whatever else is due at this iteration; only one of several processes does."""
        state, iteration = self._state, self._state.iteration
        if not state.ranks.first:
            if state.run.stop.asked:
                raise KeyboardInterrupt
            return
        state.run.step(iteration, phase=phase.name, losses=losses, gaussians=len(state.gaussians))
        if iteration % EVERY == 0:
            self._check()
        if iteration < self._last:  # what the last phase does at its end belongs to the result
            self._measure_and_save(iteration)
        state.run.checkpoint_if_due(iteration, self._snapshot)

    def finish(self) -> None:
        """Measure and save the result, write the report; the run is over."""
        if not self._state.ranks.first:
            return
        self._state.run.log(optimizer_steps=self._state.optimizer.steps["means"])
        self._measure_and_save(self._last)
        page = write_report(self._state.run.path)
        self._state.run.say(f"Report: {page}")
        self._state.run.finish()

    def _measure_and_save(self, iteration: int) -> None:
        if iteration in self._tests:
            self._test()
        if iteration in self._saves:
            self._save()

    def _check(self) -> None:
        """What is broken is neither trained on nor written."""
        self._state.watch.settle()
        rows = self._state.gaussians.rows
        check_finite(self._state.iteration, {name: rows[name] for name in rows})

    def _snapshot(self) -> dict[str, Any]:
        self._check()
        return {"state": self._state.state_dict(), "phases": self._plan.state_dict()}

    def _test(self) -> None:
        """Measure the held-out views, and five training views beside them."""
        scene = self._state.scene
        train = scene.train_cameras
        if scene.test_cameras:
            self._measure("test", scene.test_cameras, log=True)
            self._measure("train", [train[k % len(train)] for k in range(5, 30, 5)], log=False)
        else:
            self._measure("train", train, log=True)
        self._state.run.histogram("scene/opacity_histogram", self._state.gaussians.opacities)

    @torch.no_grad()
    def _measure(self, split: str, views: Sequence[Camera], *, log: bool) -> None:
        state = self._state
        result = evaluate(state, views)
        state.run.tested(
            state.iteration, l1=result.l1, psnr=result.psnr, coverage=result.coverage, split=split, log=log
        )
        for view in views[:5]:
            state.run.picture(f"{split}_view_{view.name}/render", state.render(view).image)
            state.run.picture(f"{split}_view_{view.name}/ground_truth", hide(view.image(), view.mask()))

    @torch.no_grad()
    def _save(self) -> None:
        state = self._state
        self._check()
        state.run.say(f"[ITER {state.iteration}] Saving Gaussians")
        save_gaussians(
            state.run.path,
            state.iteration,
            {name: value.detach().cpu().numpy() for name, value in state.gaussians.parameters().items()},
            labels=state.gaussians.labels.cpu().numpy(),
            births=state.gaussians.births.cpu().numpy(),
            sh_degree=state.gaussians.sh_degree,
            mult=state.mult,
            white_background=state.config.data.white_background,
            origin=state.scene.zero,
        )
