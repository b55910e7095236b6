# SPDX-License-Identifier: Apache-2.0
"""Argument checks: every message names the argument, says what came and what was expected."""

from collections.abc import Mapping

import torch

DTYPES = (torch.float32, torch.float64)


def same_kind(arguments: Mapping[str, torch.Tensor | None], like: str) -> None:
    """Raise ValueError unless all given tensors have the dtype and device of the one called `like`."""
    first = arguments[like]
    if first.dtype not in DTYPES:
        raise ValueError(f"{like} must be float32 or float64, got {first.dtype}")
    if first.device.type == "cuda" and first.dtype != torch.float32:
        raise ValueError(
            f"{like} is {first.dtype}; the CUDA backend takes float32: use .float(), or move it with .cpu()"
        )
    for name, value in arguments.items():
        if value is None:
            continue
        if value.device != first.device:
            raise ValueError(f"{name} is on {value.device}, {like} on {first.device}: put them on one device")
        if value.dtype != first.dtype:
            raise ValueError(f"{name} is {value.dtype}, {like} is {first.dtype}: use one dtype")


def shape(name: str, value: torch.Tensor | None, expected: tuple[int | None, ...]) -> None:
    """Raise ValueError unless `value` is None or has the expected shape; None in `expected` is any length."""
    if value is None:
        return
    fits = value.dim() == len(expected) and all(
        want is None or have == want for have, want in zip(value.shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in expected)
        raise ValueError(f"{name} must have shape [{wanted}], got {list(value.shape)}")


def one_of(**alternatives: bool) -> None:
    """Raise ValueError unless exactly one of the alternatives is given."""
    if sum(alternatives.values()) != 1:
        names = " or ".join(alternatives)
        given = ", ".join(name for name, there in alternatives.items() if there) or "none"
        raise ValueError(f"give exactly one of {names}; got {given}")
