# SPDX-License-Identifier: Apache-2.0
"""What a run shows on the terminal."""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

SMOOTHING = 0.4
"""Share of the newest loss in the average that is shown."""


class Progress:
    """The bar of a training run: loss, Gaussians, phase, iterations per second."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._total, self._quiet = total, quiet
        self._bar: tqdm | None = None
        self._loss: float | None = None

    def smooth(self, loss: float) -> None:
        """Take note of the loss of an iteration."""
        self._loss = loss if self._loss is None else SMOOTHING * loss + (1 - SMOOTHING) * self._loss

    def step(self, iteration: int, *, gaussians: int, phase: str, refresh: bool) -> None:
        """Take note of a finished iteration, and show it when `refresh`."""
        if self._quiet:
            return
        with _while_someone_reads():
            if self._bar is None:
                self._bar = tqdm(total=self._total, desc="Training progress", initial=iteration - 1, dynamic_ncols=True)
            if refresh:
                figures = {"Loss": f"{self._loss:.7f}", "Gaussians": f"{gaussians}", "phase": phase}
                self._bar.set_postfix(figures, refresh=False)
                self._bar.update(iteration - self._bar.n)

    def say(self, text: str) -> None:
        """A line on stdout, above the bar."""
        if not self._quiet:
            with _while_someone_reads():
                tqdm.write(text)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            with _while_someone_reads():
                self._bar.close()


@contextmanager
def _while_someone_reads() -> Iterator[None]:
    """Where a reader has left, as after `| head -1`, the run goes on; what it prints there is lost from then on."""
    try:
        yield
    except BrokenPipeError:
        watch = select.poll()
        for stream in (1, 2):
            watch.register(stream, 0)  # errors only
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream, _ in watch.poll(0):
            os.dup2(nowhere, stream)
        os.close(nowhere)
