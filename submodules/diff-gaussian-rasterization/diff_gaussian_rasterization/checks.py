# SPDX-License-Identifier: Apache-2.0
"""Argument checks: every message names the argument, says what came and what was expected."""

from collections.abc import Mapping

import torch

DTYPES = (torch.float32, torch.float64)


def same_kind(arguments: Mapping[str, torch.Tensor | None], like: str, names: Mapping[str, str] | None = None) -> None:
    """Raise ValueError unless all tensors have the dtype and device of `like`; `names` are the caller's for them."""
    first = arguments[like]
    dtype, device = first.dtype, first.device
    names = {name: name for name in arguments} | dict(names or {})
    like = names[like]
    if dtype not in DTYPES:
        raise ValueError(f"{like} must be float32 or float64, got {dtype}")
    if dtype != torch.float32 and device.type == "cuda":
        raise ValueError(f"{like} is {dtype}; the CUDA backend takes float32: use .float(), or move it with .cpu()")
    same_device({names[name]: value for name, value in arguments.items()}, like, first)
    for name, value in arguments.items():
        if value is not None and value.dtype != dtype:
            raise ValueError(f"{names[name]} is {value.dtype}, {like} is {dtype}: use one dtype")


def same_device(arguments: Mapping[str, torch.Tensor | None], like: str, first: torch.Tensor) -> None:
    """Raise ValueError unless all tensors are where `first` is, which the caller knows as `like`."""
    for name, value in arguments.items():
        if value is not None and value.device != first.device:
            raise ValueError(f"{name} is on {value.device}, {like} on {first.device}: put them on one device")


def shape(name: str, value: torch.Tensor | None, expected: tuple[int | None, ...]) -> None:
    """Raise ValueError unless `value` is None or has the expected shape; None in `expected` is any length."""
    if value is None or value.shape == expected:
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
