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
from .board import Board
from .errors import NothingToDo, UserError
from .image import save_png
from .progress import Progress
from .run_files import claim, delete_run, holds_run, keep_out_of, sweep
from .run_log import CHECKPOINT, FINISHED, RunLog
from .run_match import check_dataset, check_settings, lasting_settings
from .signals import StopRequest

EVERY = 10
"""Iterations between lines of figures and refreshes of the bar."""


class RunDir:
    """What a run writes while it goes on. `iteration` counts finished steps; lines without their own get it."""

    def __init__(self, config: Config) -> None:
        """Take over a folder that is ready; `open` is what callers want."""
        self.path = Path(config.run.model_path)
        self.iteration = 0
        self._config, self._run = config, config.run
        self._log = RunLog(self.path / "log.jsonl")
        self._progress = Progress(config.run.iterations, quiet=config.run.quiet)
        self.stop = StopRequest()
        self._release: Callable[[], object] = lambda: None
        self._closing: ExitStack | None = None
        self._board = Board(self.path)
        self._saved: checkpoint.Checkpoint | None = None
        self._about: dict[str, Any] = {"settings": lasting_settings(config)}
        self._stale = self._made = False
        self._window: list[Mapping[str, float]] = []
        self._l1: Tensor | None = None
        self._phase, self._gaussians = "", 0
        self._elapsed, self._since = 0.0, time.perf_counter()

    @classmethod
    def open(cls, config: Config) -> Self:
        """Make the run's folder, or take over the one that is there as --resume or --overwrite ask.

        Nothing in it is written or deleted before `resume`.

        Raises:
            UserError: the folder holds a run and neither was asked, it is in use, or it cannot be written.
            NothingToDo: the run to resume is finished.
        """
        run = cls(config)
        if config.data.source is not None:
            keep_out_of(config.data.source, run.path)
        run._made = not run.path.exists()
        run._release = claim(run.path, run)
        if holds_run(run.path):
            run._take_over()
        return run

    def _take_over(self) -> None:
        """Decide what becomes of the run that is there; nothing is changed yet."""
        if self._run.overwrite:
            self._stale = True
        elif not self._run.resume:
            raise UserError(f"--model_path {self.path}: already holds a run; add --resume or --overwrite")
        elif not (self.path / store.FILE_NAME).is_file():
            raise UserError(f"--model_path {self.path}: holds another program's run, which cannot be resumed")
        elif self._finished():
            raise NothingToDo(f"{self.path}: this run is finished; nothing to resume")
        else:
            self._saved = self._newest_checkpoint()
            self._stale = self._saved is None

    def _finished(self) -> bool:
        """Whether the run has ended, and no more iterations are asked for now."""
        lines = self._log.read()
        return bool(lines) and FINISHED in lines[-1] and lines[-1]["iteration"] >= self._run.iterations

    def _newest_checkpoint(self) -> checkpoint.Checkpoint | None:
        """The newest whole checkpoint; None where none was written yet."""
        found = checkpoint.checkpoints(self.path)
        for path in found.values():
            try:
                saved = checkpoint.load(path)
            except checkpoint.DamagedError as error:
                print(f"{error}; trying the one before it", file=sys.stderr)
                continue
            check_settings(path, saved.about, self._about["settings"])
            if saved.iteration > self._run.iterations:
                continue  # of a longer attempt
            self.iteration = saved.iteration
            return saved
        if found:
            raise UserError(
                f"--model_path {self.path}: none of its checkpoints can be used; put a copy back, "
                "or start anew with --overwrite"
            )
        return None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._release)  # last
            stack.enter_context(self.stop)
            stack.callback(self._progress.close)
            stack.callback(self._board.close)
            self._closing = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._closing is not None:
            self._closing.close()
            self._closing = None
            if self._made and not any(self.path.iterdir()):
                self.path.rmdir()

    def resume(self, dataset: Mapping[str, str] | None = None) -> Any:
        """Begin or go on writing; to be called once, when all that can be wrong has been looked at.

        Args:
            dataset: What `scene.fingerprint` tells of the dataset; goes into the checkpoints.

        Returns:
            The payload of the newest whole checkpoint when a run is resumed, else None.

        Raises:
            UserError: the run began with another dataset.
        """
        if dataset is not None:
            self._about["dataset"] = dict(dataset)
            check_dataset(self._config.data.source, self._saved.about if self._saved else {}, dataset)
        if self._stale:
            delete_run(self.path)
        sweep(self.path)
        settled = replace(self._config, run=replace(self._run, resume=False, overwrite=False))
        store.save(settled, self.path / store.FILE_NAME)
        self.say(f"Output folder: {self.path}")
        saved, self._saved = self._saved, None
        if saved is not None:
            checkpoint.prune(self.path, self._run.checkpoint_iterations)  # killed between a save and this
            elapsed = self._log.cut(self.iteration).get("elapsed")
            self._elapsed = elapsed if isinstance(elapsed, float) else 0.0
            self.say(f"Resuming from iteration {self.iteration}")
        elif self._run.resume:
            self.say(f"Nothing to resume in {self.path}: no checkpoint yet; starting from the beginning")
        if self._closing is not None:  # within the block, so that it is closed again
            self._board.open(self.iteration + 1)
        self._since = time.perf_counter()
        return saved.payload if saved is not None else None

    def say(self, text: str) -> None:
        """A line on stdout, unless --quiet."""
        self._progress.say(text)

    def log(self, iteration: int | None = None, **values: Any) -> None:
        """A line of log.jsonl; numbers go to TensorBoard too, under their names."""
        at = self.iteration if iteration is None else iteration
        self._log.write(at, values)
        for name, value in values.items():
            if isinstance(value, int | float) and name != "seconds":
                self._board.scalar(name, value, at)

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
        if due:
            self._write_window()
        self._progress.step(iteration, gaussians=gaussians, phase=phase, refresh=due)

    def seen(self, l1: Tensor) -> None:
        """Take note of a training view's mean absolute error, for TensorBoard; read when the window is written."""
        self._l1 = l1

    def _write_window(self) -> None:
        """Means over the iterations since the last line."""
        if not self._window:
            return
        for losses in self._window:  # read here, not at every step: a card goes on meanwhile
            self._progress.smooth(sum(losses.values()))
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        self._elapsed, self._since = self._elapsed + seconds, now
        count = len(self._window)
        terms = {name: fmean(one[name] for one in self._window if name in one) for name in self._window[-1]}
        self._window = []
        rate = {"it_per_s": round(count / seconds, 3), "elapsed": round(self._elapsed, 3)}
        total = {"phase": self._phase, "loss": sum(terms.values()), "gaussians": self._gaussians}
        self._log.write(self.iteration, total | {f"loss_{name}": value for name, value in terms.items()} | rate)
        self._board.scalar("train_loss_patches/total_loss", total["loss"], self.iteration)
        for name, value in terms.items():
            self._board.scalar(f"train_loss_patches/{name}_loss", value, self.iteration)
        if self._l1 is not None:
            self._board.scalar("train_loss_patches/l1_loss", self._l1.item(), self.iteration)
            self._l1 = None
        self._board.scalar("iter_time", 1000 * seconds / count, self.iteration)
        self._board.scalar("total_points", self._gaussians, self.iteration)

    def tested(
        self, iteration: int, *, l1: float, psnr: float, coverage: float, split: str = "test", log: bool = True
    ) -> None:
        """Write what a measurement of views gave; with `log` into log.jsonl too, as the run's own figures."""
        self._write_window()
        if log:
            self._log.write(iteration, {"split": split, "l1": l1, "psnr": psnr, "coverage": coverage})
        self.say(f"[ITER {iteration}] Evaluating {split}: L1 {l1} PSNR {psnr}")
        self._board.scalar(f"{split}/loss_viewpoint - l1_loss", l1, iteration)
        self._board.scalar(f"{split}/loss_viewpoint - psnr", psnr, iteration)

    def picture(self, tag: str, image: Tensor) -> None:
        """An image [3, H, W] for TensorBoard."""
        self._board.picture(tag, image, self.iteration)

    def histogram(self, tag: str, values: Tensor) -> None:
        """A distribution for TensorBoard."""
        self._board.histogram(tag, values, self.iteration)

    def checkpoint_if_due(self, iteration: int, snapshot: Callable[[], Any]) -> None:
        """Write a checkpoint where the settings or Ctrl-C ask for one.

        Args:
            iteration: Finished iterations.
            snapshot: Gives the payload; called only when one is due.

        Raises:
            KeyboardInterrupt: after the checkpoint that Ctrl-C asked for.
        """
        run, stopping = self._run, self.stop.asked
        due = iteration % run.checkpoint_every == 0 or iteration in (*run.checkpoint_iterations, run.iterations)
        if due or stopping:
            self._write_window()
            self._log.write(iteration, {CHECKPOINT: True})
            self.say(f"[ITER {iteration}] Saving Checkpoint")
            checkpoint.save(self.path, iteration, snapshot(), self._about)
            checkpoint.prune(self.path, run.checkpoint_iterations)
        if stopping:
            self._progress.close()  # its line ends here
            print(
                f"Stopped after iteration {iteration}. Continue with: python train.py -m {self.path} --resume",
                file=sys.stderr,
            )
            raise KeyboardInterrupt

    def finish(self) -> None:
        """All is done and written: --resume will have nothing to do."""
        self._write_window()
        self._log.write(self.iteration, {FINISHED: True})
