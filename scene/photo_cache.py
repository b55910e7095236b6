# SPDX-License-Identifier: Apache-2.0
"""Decoded photos within a budget of bytes, and worker threads that decode what is needed next.

Training goes through all views again and again. When they do not all fit, the photo that was used last makes room:
it is the one that is needed again last, and so a share of the views as large as the budget is never decoded twice.
What is decoded does not depend on the cache, so neither do results.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .photo_courier import Courier

if TYPE_CHECKING:
    from .photos import Photo

Decoded = tuple[Tensor, Tensor | None]
"""uint8 [3, H, W], bool [H, W] or None."""

HOST = torch.device("cpu")

AHEAD = 4
"""Photos that are decoded ahead of their use; they come on top of the budget."""


class PhotoCache:
    """Keeps decoded photos; the one in hand always, the others as far as the budget goes.

    Args:
        budget: Bytes; infinite for everything.
        threads: Workers that decode ahead.
        device: Where photos are kept; the budget is of that memory.
        wanted_on: Where they will be wanted. For a card they are kept in host memory that the system never moves, and
            those that are expected are sent ahead.
    """

    def __init__(
        self,
        budget: float = float("inf"),
        threads: int = 1,
        *,
        device: torch.device = HOST,
        wanted_on: torch.device = HOST,
    ) -> None:
        self.budget, self._threads = budget, threads
        self._device = device
        self._courier = Courier(wanted_on) if wanted_on.type == "cuda" and device == HOST else None
        self.bytes = 0
        self._kept: dict[Photo, Decoded] = {}  # least recently used first
        self._coming: dict[Photo, Future[Decoded]] = {}
        self._lock = Lock()

    def get(self, photo: "Photo") -> Decoded:
        """The pixels of a photo, decoded now if they are not there."""
        with self._lock:
            decoded = self._kept.pop(photo, None)
            if decoded is not None:
                self._kept[photo] = decoded
                return decoded
            coming = self._coming.pop(photo, None)
        # A worker that has not begun would only make us wait.
        decoded = self._decode(photo) if coming is None or coming.cancel() else coming.result()
        with self._lock:
            self._keep(photo, decoded)
        return decoded

    def on(self, photo: "Photo", device: torch.device) -> Decoded:
        """The same on a device; the host does not wait for a card."""
        decoded = self.get(photo)
        if self._courier is not None and device.type == "cuda":
            decoded = self._courier.take(photo) or decoded
        rgb, kept = decoded
        wait = device.type != "cuda"  # what comes from a card
        return rgb.to(device, non_blocking=not wait), None if kept is None else kept.to(device, non_blocking=not wait)

    def expect(self, photos: Iterable["Photo"]) -> None:
        """Let the workers decode photos that will be asked for in this order, the one wanted now first."""
        with self._lock:
            wanted = list(dict.fromkeys(photos))[: AHEAD + 1]
            for photo in [photo for photo in self._coming if photo not in wanted]:
                self._coming.pop(photo).cancel()
            for photo in wanted:
                if photo not in self._kept and photo not in self._coming:
                    self._coming[photo] = self._workers.submit(self._decode, photo)
            if self._courier is not None:
                self._courier.send({photo: self._kept[photo] for photo in wanted if photo in self._kept})

    def release(self, photo: "Photo") -> None:
        """Give the pixels of a photo back."""
        with self._lock:
            if self._kept.pop(photo, None) is not None:
                self.bytes -= photo.bytes

    @cached_property
    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="photos")

    def _decode(self, photo: "Photo") -> Decoded:
        rgb, kept = photo.decode()
        return self._placed(rgb), None if kept is None else self._placed(kept)

    def _placed(self, plane: Tensor) -> Tensor:
        return plane.pin_memory() if self._courier is not None else plane.to(self._device)

    def _keep(self, photo: "Photo", decoded: Decoded) -> None:
        if photo in self._kept:  # two threads decoded it
            return
        self._kept[photo] = decoded
        self.bytes += photo.bytes
        while self.bytes > self.budget and len(self._kept) > 1:
            last_used = next(islice(reversed(self._kept), 1, None))
            del self._kept[last_used]
            self.bytes -= last_used.bytes
