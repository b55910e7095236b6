# SPDX-License-Identifier: Apache-2.0
"""TensorBoard events of a run, in the model folder as INRIA's trainer has them."""

from pathlib import Path
from typing import Any

from torch import Tensor


class Board:
    """Writes nothing before `open`; the events file is made when the first value comes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open, self._purge = False, None
        self._writer: Any = None

    def open(self, first_iteration: int) -> None:
        """Begin to write; what an earlier attempt wrote from `first_iteration` on is hidden."""
        self._open, self._purge = True, first_iteration if first_iteration > 1 else None

    def scalar(self, tag: str, value: float, iteration: int) -> None:
        """A number."""
        if self._open:
            self._events().add_scalar(tag, value, iteration)

    def picture(self, tag: str, image: Tensor, iteration: int) -> None:
        """An image [3, H, W] in [0, 1]."""
        if self._open:
            self._events().add_image(tag, image.detach().cpu().clamp(0, 1), iteration)

    def histogram(self, tag: str, values: Tensor, iteration: int) -> None:
        """A distribution."""
        if self._open and values.numel():
            self._events().add_histogram(tag, values.detach().cpu().numpy(), iteration)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
        self._open, self._writer = False, None

    def _events(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._writer = SummaryWriter(str(self._path), purge_step=self._purge)
        return self._writer
