# SPDX-License-Identifier: Apache-2.0
"""Photos on their way to a card: the next ones travel while this one is drawn."""

from collections.abc import Hashable, Mapping

import torch
from torch import Tensor

Planes = tuple[Tensor | None, ...]


class Courier:
    """Copies on a stream of its own, from host memory that the system never moves.

    Args:
        device: The card.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._sent: dict[Hashable, tuple[Planes, torch.cuda.Event]] = {}

    def send(self, wanted: Mapping[Hashable, Planes]) -> None:
        """Let what is wanted set off; forget what is no longer wanted."""
        self._sent = {name: self._sent.get(name) or self._copied(planes) for name, planes in wanted.items()}

    def take(self, name: Hashable) -> Planes | None:
        """What was sent, for work that is queued from now on; None where nothing was."""
        if name not in self._sent:
            return None
        planes, arrived = self._sent[name]
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(arrived)
        for plane in planes:
            if plane is not None:
                plane.record_stream(stream)  # its memory is not given to the next copy before that work is done
        return planes

    def _copied(self, planes: Planes) -> tuple[Planes, torch.cuda.Event]:
        with torch.cuda.stream(self._stream):
            copies = tuple(None if plane is None else plane.to(self._device, non_blocking=True) for plane in planes)
            arrived = torch.cuda.Event()
            arrived.record()
        return copies, arrived
