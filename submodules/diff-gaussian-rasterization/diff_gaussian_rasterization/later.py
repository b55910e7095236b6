# SPDX-License-Identifier: Apache-2.0
"""Numbers that a card is still computing, on their way to the host while both go on."""

import torch
from torch import Tensor


class Fetched:
    """A tensor's values for the host: what the host has is there, what a card has comes when the card gets to it."""

    def __init__(self, values: Tensor) -> None:
        self._values = values.detach().to("cpu", non_blocking=True)
        self._there = None
        if values.is_cuda:
            self._there = torch.cuda.Event()
            self._there.record()

    def tolist(self) -> list:
        """The values; waits until the card has computed them."""
        if self._there is not None:
            self._there.synchronize()
        return self._values.tolist()
