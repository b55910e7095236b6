# SPDX-License-Identifier: Apache-2.0
"""Losses and finite gradients, without the host waiting for a card: it looks when the numbers have come anyway."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import torch
from diff_gaussian_rasterization.later import Fetched
from torch import Tensor

from utils.finite import check_finite


class Numbers(Mapping[str, float]):
    """Numbers [n] by their names; reading them waits until a card has computed them."""

    def __init__(self, names: Iterable[str], values: Tensor) -> None:
        self._names = tuple(names)
        self._fetched = Fetched(values)

    @cached_property
    def _read(self) -> dict[str, float]:
        return dict(zip(self._names, self._fetched.tolist(), strict=True))

    def __getitem__(self, name: str) -> float:
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Watch:
    """Ends a run whose numbers are not finite: on the CPU at once, on a card in the next step.

    There the next picture needs a number from the card, behind which all numbers of the step before have come.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_card = device.type == "cuda"
        self._open: list[tuple[int, str, Numbers]] = []

    def losses(self, iteration: int, losses: Numbers) -> None:
        """Of one view."""
        self._look(iteration, "loss", losses)

    def gradients(self, iteration: int, gradients: Mapping[str, Tensor | None]) -> None:
        """Of all views of a step."""
        if not self._on_card:
            check_finite(iteration, {f"gradient of {name}": value for name, value in gradients.items()})
            return
        # A float64 sum of float32 is finite exactly where all of them are.
        sums = {name: g.sum(dtype=torch.float64) for name, g in gradients.items() if g is not None}
        if sums:
            self._look(iteration, "gradient of", Numbers(sums, torch.stack([*sums.values()])))

    def settle(self, before: float = float("inf")) -> None:
        """Look at all that is open from iterations `before` one; to be called before anything is written."""
        while self._open and self._open[0][0] < before:
            iteration, what, numbers = self._open.pop(0)
            check_finite(iteration, {f"{what} {name}": value for name, value in numbers.items()})

    def _look(self, iteration: int, what: str, numbers: Numbers) -> None:
        self._open.append((iteration, what, numbers))
        self.settle(iteration if self._on_card else float("inf"))
