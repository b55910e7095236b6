# SPDX-License-Identifier: Apache-2.0
"""When something happens, as a value."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Every:
    """The iterations strictly between `start` and `stop` whose distance from `origin` `interval` divides."""

    interval: int
    start: int = 0
    stop: int = 1 << 60
    origin: int = 0

    def __contains__(self, iteration: int) -> bool:
        return self.start < iteration < self.stop and (iteration - self.origin) % self.interval == 0


NEVER = Every(1, start=1 << 60)
