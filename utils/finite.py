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
        if isinstance(value, Tensor) and not _all_finite(value.detach()):
            bad = int((~torch.isfinite(value.detach())).sum())
            raise _stop(iteration, f"{bad} of {value.numel()} values of {name} are not finite")


def _all_finite(values: Tensor) -> bool:
    """A sum shows it at a fraction of the price; it may overflow, so it only acquits."""
    return not values.is_floating_point() or math.isfinite(values.sum()) or bool(torch.isfinite(values).all())


def _stop(iteration: int, what: str) -> UserError:
    return UserError(
        f"iteration {iteration}: {what}; stopped, the last checkpoint is intact. Lower the learning rates or "
        "try another --seed; --detect_anomaly shows where it begins"
    )
