# SPDX-License-Identifier: Apache-2.0
"""NaN and infinity end a run at once, before they reach a checkpoint."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .errors import UserError


def check_finite(iteration: int, values: Mapping[str, Tensor | float | None]) -> None:
    """Look for NaN and infinity.

    Args:
        iteration: Where the run is.
        values: Numbers and tensors by the name that the message gives them; None is skipped.

    Raises:
        UserError: with the iteration, the name and how much of it is not finite.
    """
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _stop(iteration, f"{name} is {value}")
    tensors = {name: value.detach() for name, value in values.items() if isinstance(value, Tensor)}
    tensors = {name: value for name, value in tensors.items() if value.is_floating_point()}
    # A sum shows it at a fraction of the price; it may overflow, so it only acquits. One wait for a card.
    sums = torch.stack([value.sum().double() for value in tensors.values()]).tolist() if tensors else []
    for (name, value), total in zip(tensors.items(), sums, strict=True):
        if not math.isfinite(total) and (bad := int((~torch.isfinite(value)).sum())):
            raise _stop(iteration, f"{bad} of {value.numel()} values of {name} are not finite")


def _stop(iteration: int, what: str) -> UserError:
    return UserError(
        f"iteration {iteration}: {what}; stopped, the last checkpoint is intact. Lower the learning rates or "
        "try another --seed; --detect_anomaly shows where it begins"
    )
