# SPDX-License-Identifier: Apache-2.0
"""Posed photos in, Gaussians out: `python train.py --source S --model_path M [--qwen_model_path Q]`."""

import sys
from collections.abc import Mapping, Sequence

if __name__ == "__main__":
    from utils.startup import quiet_imports

    quiet_imports()

import torch
from diff_gaussian_rasterization import set_threads

import phases
from arguments import parse
from gaussian_renderer.backend import choose_backend, refuse_varying_sums
from phases.base import Phase
from phases.milestones import Milestones
from phases.optimizer import GEOMETRY
from phases.ranks import OneProcess, joined
from phases.schedule import schedule
from phases.start import start
from phases.state import Step, TrainingState
from phases.watch import Numbers
from scene.dataset import open_scene
from scene.summary import describe, expectations
from utils.command import run_command
from utils.run_dir import EVERY
from vlm import check_detector


def train_step(state: TrainingState, phase: Phase) -> Mapping[str, float]:
    """Render the next views, let the phase judge each and react, move the Gaussians; returns the mean losses."""
    state.iteration += 1
    gaussians = state.gaussians
    gaussians.sh_degree = max(gaussians.sh_degree, min(gaussians.max_sh_degree, phase.sh_degree(state)))

    judged = []
    for camera, background in state.ranks.each(state.next_views(), gaussians.rows):
        count_seen = phase.opacity_reg(state) > 0
        output = state.draw(camera, background, dropout=phase.dropout(state), count_seen=count_seen)
        step = Step(state.iteration, camera, *state.photo(camera), output)
        losses = phase.loss(state, step)
        terms = torch.stack([*losses.values()])
        judged.append(Numbers(losses, terms))
        state.watch.losses(state.iteration, judged[-1])
        terms.sum().backward()
        phase.after_view(state, step)
        if state.iteration % EVERY == 0:
            state.run.seen(step.l1)
    state.watch.gradients(state.iteration, {name: gaussians.rows[name].grad for name in GEOMETRY})

    state.ranks.lead(phase.after_step, state, phase)
    state.optimizer.step(gaussians, state.iteration, phase.windows(state), phase.rates(state))
    return state.ranks.mean(judged, state.run.stop)


def main(argv: Sequence[str]) -> None:
    """Train as the command line says."""
    with joined() as ranks:
        _train(argv, ranks)


def _train(argv: Sequence[str], ranks: OneProcess) -> None:
    kinds = phases.available()
    config = parse(argv, kinds)
    torch.set_num_threads(1)  # torch's own reductions depend on its threads; ours do not
    torch.autograd.set_detect_anomaly(config.run.detect_anomaly)
    set_threads(ranks.threads(config.run.threads))
    refuse_varying_sums(config.run.deterministic)
    backend = choose_backend(config.run.backend, config.data.data_device)
    ranks.check(config, backend.device)

    with ranks.open_run(config) as run:
        check_detector(config.detector)
        scene = open_scene(config.data, config.run.threads, backend.device)
        plan = schedule(config, kinds)
        inserted = sum(phase.inserts for phase in plan.phases)
        expected = expectations(scene, config.run.iterations, inserted) if backend.device.type == "cpu" else []
        for line in (*describe(scene), *expected, f"Backend: {backend.told}"):
            run.say(line)
        state = start(config, scene, run, ranks, device=backend.device)
        milestones = Milestones(state, plan)
        for phase in plan.steps(state):
            losses = train_step(state, phase)
            milestones.after_step(phase, losses)
        milestones.finish()


if __name__ == "__main__":
    sys.exit(run_command(main))
