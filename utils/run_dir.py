# SPDX-License-Identifier: Apache-2.0
"""The folder of a run while it is written: log, TensorBoard, snapshots, checkpoints, terminal.

with RunDir.open(config) as run:
    saved = run.resume()
    ...                     run.step(...), run.checkpoint_if_due(...) after each iteration
    run.finish()
"""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from arguments import Config, store

from . import checkpoint
from .errors import NothingToDo, UserError
from .image import save_png
from .progress import Progress
from .run_files import claim, delete_run, holds_run, keep_out_of
from .run_log import CHECKPOINT, FINISHED, RunLog
from .signals import StopRequest

EVERY = 10
"""Iterations between lines of figures and refreshes of the bar."""


class RunDir:
    """What a run writes while it goes on. `iteration` counts finished steps; lines without their own get it."""

    def __init__(self, config: Config) -> None:
        """Take over a folder that is ready; `open` is what callers want."""
        self.path = Path(config.run.model_path)
        self.iteration = self._begun_at = 0
        self._run = config.run
        self._log = RunLog(self.path / "log.jsonl")
        self._progress = Progress(config.run.iterations, quiet=config.run.quiet)
        self._stop = StopRequest()
        self._release: Callable[[], object] = lambda: None
        self._closing: ExitStack | None = None
        self._board: Any = None
        self._saved: Any = None
        self._window: list[Mapping[str, float]] = []
        self._phase, self._gaussians = "", 0
        self._elapsed, self._since = 0.0, time.perf_counter()

    @classmethod
    def open(cls, config: Config) -> Self:
        """Make the run's folder, or take over the one that is there as --resume or --overwrite ask.

        Raises:
            UserError: the folder holds a run and neither was asked, it is in use, or it cannot be written.
            NothingToDo: the run to resume is finished.
        """
        folder = Path(config.run.model_path)
        if config.data.source is not None:
            keep_out_of(config.data.source, folder)
        run = cls(config)
        run._release = claim(folder, run)
        if holds_run(folder):
            run._take_over()
        elif config.run.resume:
            run.say(f"Nothing to resume in {folder}; starting from the beginning")
        settled = replace(config, run=replace(config.run, resume=False, overwrite=False))
        store.save(settled, folder / store.FILE_NAME)
        run.say(f"Output folder: {folder}")
        return run

    def _take_over(self) -> None:
        """Decide what becomes of the run that is there."""
        if self._run.overwrite:
            delete_run(self.path)
        elif not self._run.resume:
            raise UserError(f"--model_path {self.path}: already holds a run; add --resume or --overwrite")
        elif not (self.path / store.FILE_NAME).is_file():
            raise UserError(f"--model_path {self.path}: holds another program's run, which cannot be resumed")
        elif (lines := self._log.read()) and lines[-1].get("event") == FINISHED:
            raise NothingToDo(f"{self.path}: this run is finished; nothing to resume")
        else:
            self._continue()

    def _continue(self) -> None:
        """Take the newest whole checkpoint, or else begin again."""
        for iteration, path in checkpoint.checkpoints(self.path).items():
            try:
                self._saved = checkpoint.load(path)
            except checkpoint.DamagedError as error:
                print(f"{error}; trying the one before it", file=sys.stderr)
                continue
            self.iteration = self._begun_at = iteration
            self._elapsed = self._log.cut(iteration).get("elapsed") or 0.0
            self.say(f"Resuming from iteration {iteration}")
            return
        delete_run(self.path)
        self.say(f"Nothing to resume in {self.path}; starting from the beginning")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._release)
            stack.enter_context(self._stop)
            stack.callback(self._progress.close)
            self._closing = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._closing is not None:
            self._closing.close()
            self._closing = None

    def resume(self) -> Any:
        """The payload of the checkpoint to continue from, once; None at the beginning of a run."""
        saved, self._saved = self._saved, None
        return saved

    def say(self, text: str) -> None:
        """A line on stdout, unless --quiet."""
        self._progress.say(text)

    def log(self, iteration: int | None = None, **values: Any) -> None:
        """A line of log.jsonl; numbers go to TensorBoard too, under their names."""
        at = self.iteration if iteration is None else iteration
        self._log.write(at, values)
        for name, value in values.items():
            if isinstance(value, int | float) and name != "seconds":
                self._scalar(name, value, at)

    def event(self, text: str, **values: Any) -> None:
        """Something that happened: a line on the terminal and one of log.jsonl.

        Args:
            text: What happened.
            **values: More about it; `stage` and `seconds` count its time apart from training's.
        """
        self._since += values.get("seconds", 0.0)
        self._log.write(self.iteration, {"event": text} | values)
        self.say(f"[ITER {self.iteration}] {text}")

    def snapshot(self, name: str, image: Tensor) -> Path:
        """Keep an image [3, H, W] of how things stand, as snapshots/<iteration>_<name>.png."""
        path = self.path / "snapshots" / f"{self.iteration}_{name}.png"
        save_png(path, image)
        return path

    def step(self, iteration: int, *, phase: str, losses: Mapping[str, float], gaussians: int) -> None:
        """Take note of a finished iteration; every tenth and the last of a phase write what has gathered."""
        if phase != self._phase:
            self._write_window()
        self.iteration, self._phase, self._gaussians = iteration, phase, gaussians
        self._window.append(losses)
        due = iteration % EVERY == 0 or iteration == self._run.iterations
        self._progress.step(iteration, loss=sum(losses.values()), gaussians=gaussians, phase=phase, refresh=due)
        if due:
            self._write_window()

    def _write_window(self) -> None:
        """Means over the iterations since the last line."""
        if not self._window:
            return
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        self._elapsed, self._since = self._elapsed + seconds, now
        count = len(self._window)
        terms = {name: fmean(one[name] for one in self._window if name in one) for name in self._window[-1]}
        self._window = []
        rate = {"it_per_s": round(count / seconds, 3), "elapsed": round(self._elapsed, 3)}
        total = {"phase": self._phase, "loss": sum(terms.values()), "gaussians": self._gaussians}
        self._log.write(self.iteration, total | {f"loss_{name}": value for name, value in terms.items()} | rate)
        self._scalar("train_loss_patches/total_loss", total["loss"])
        for name, value in terms.items():
            self._scalar(f"train_loss_patches/{name}_loss", value)
        self._scalar("iter_time", 1000 * seconds / count)
        self._scalar("total_points", self._gaussians)

    def tested(self, iteration: int, *, l1: float, psnr: float, coverage: float, split: str = "test") -> None:
        """Write what a measurement of views gave."""
        self._write_window()
        self._log.write(iteration, {"split": split, "l1": l1, "psnr": psnr, "coverage": coverage})
        self.say(f"[ITER {iteration}] Evaluating {split}: L1 {l1} PSNR {psnr}")
        self._scalar(f"{split}/loss_viewpoint - l1_loss", l1)
        self._scalar(f"{split}/loss_viewpoint - psnr", psnr)

    def picture(self, tag: str, image: Tensor) -> None:
        """An image [3, H, W] for TensorBoard."""
        if (board := self._tensorboard()) is not None:
            board.add_image(tag, image.detach().clamp(0, 1), self.iteration)

    def histogram(self, tag: str, values: Tensor) -> None:
        """A distribution for TensorBoard."""
        if (board := self._tensorboard()) is not None and values.numel():
            board.add_histogram(tag, values.detach().numpy(), self.iteration)

    def checkpoint_if_due(self, iteration: int, snapshot: Callable[[], Any]) -> None:
        """Write a checkpoint where the settings or Ctrl-C ask for one.

        Args:
            iteration: Finished iterations.
            snapshot: Gives the payload; called only when one is due.

        Raises:
            KeyboardInterrupt: after the checkpoint that Ctrl-C asked for.
        """
        run, stopping = self._run, self._stop.asked
        due = iteration % run.checkpoint_every == 0 or iteration in (*run.checkpoint_iterations, run.iterations)
        if due or stopping:
            self._write_window()
            self._log.write(iteration, {"event": CHECKPOINT})
            self.say(f"[ITER {iteration}] Saving Checkpoint")
            checkpoint.save(self.path, iteration, snapshot())
            checkpoint.prune(self.path, run.checkpoint_iterations)
        if stopping:
            print(
                f"Stopped after iteration {iteration}. Continue with: python train.py -m {self.path} --resume",
                file=sys.stderr,
            )
            raise KeyboardInterrupt

    def finish(self) -> None:
        """All is done and written: --resume will have nothing to do."""
        self._write_window()
        self._log.write(self.iteration, {"event": FINISHED})

    def _scalar(self, tag: str, value: float, iteration: int | None = None) -> None:
        if (board := self._tensorboard()) is not None:
            board.add_scalar(tag, value, self.iteration if iteration is None else iteration)

    def _tensorboard(self) -> Any:
        """The writer of this run's events, opened when first needed within the block."""
        if self._board is None and self._closing is not None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._board = SummaryWriter(str(self.path), purge_step=self._begun_at + 1 if self._begun_at else None)
            self._closing.callback(self._board.close)
        return self._board
