# SPDX-License-Identifier: Apache-2.0
"""Where a command draws and trains: on the card where that works, else on the CPU, with one line that says why."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diff_gaussian_rasterization import View, native, rasterize, resolve_threads

from utils.errors import UserError

LEAST_FREE = 1 << 30
"""Bytes of the card's memory that must be free."""
DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
"""One of them is there where an NVIDIA driver is loaded; the last in WSL."""
TOLERANCE = 1e-3
"""Of the self-check, relative: the two backends round differently."""


@dataclass(frozen=True)
class Backend:
    """The device of all tensors that meet Gaussians, and what to tell the user about it."""

    device: torch.device
    told: str


def choose_backend(asked: Literal["auto", "cpu", "cuda"], data_device: Literal["cpu", "cuda"] = "cpu") -> Backend:
    """Try the card if it may be taken.

    Args:
        asked: `--backend`.
        data_device: `--data_device`; photos can be kept on a card only if the card draws.

    Raises:
        UserError: `asked` is "cuda" and that does not work here, or photos are to be kept on a card that is not used.
    """
    reason = "--backend cpu was asked for" if asked == "cpu" else why_not_cuda()
    if reason is None:
        return Backend(torch.device("cuda", torch.cuda.current_device()), _card())
    if asked == "cuda":
        raise UserError(f"--backend cuda: {reason}; or leave it at auto")
    if data_device == "cuda":
        raise UserError(f"--data_device cuda: photos cannot be kept on a card, {reason}; or leave it at cpu")
    cpu = f"CPU, {resolve_threads(0)} threads"
    return Backend(torch.device("cpu"), cpu if asked == "cpu" else f"{cpu}; not CUDA: {reason}")


def refuse_varying_sums(asked: bool) -> None:
    """`--deterministic`: torch raises where it has no operation with a fixed order of sums; before the card is used."""
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if asked != torch.are_deterministic_algorithms_enabled():  # torch imports its compiler to set this: a second
        torch.use_deterministic_algorithms(asked)
    torch.utils.deterministic.fill_uninitialized_memory = False  # our kernels write all that they read


def why_not_cuda() -> str | None:
    """What is missing and what to do, in a few words; None where the CUDA backend works."""
    return _machine() or _build() or _memory() or _self_check()


def _machine() -> str | None:
    """Driver, torch, card."""
    if not any(Path(file).exists() for file in DRIVER_FILES):
        return "no NVIDIA driver is loaded (with a card: install one, then `make cuda`)"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a CPU build, `make cuda` installs the other"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    why = f" ({_first_line(said[0].message)})" if said else ""
    return f"torch sees no card{why}, look at `nvidia-smi` and CUDA_VISIBLE_DEVICES"


def _build() -> str | None:
    """The native module, and whether it is for this card."""
    if native.cuda is None:
        return f"{native.REASON}, `make cuda` builds it (it needs nvcc)"
    built = native.cuda.architectures
    major, minor = torch.cuda.get_device_capability()
    # Machine code runs on later cards of its generation, PTX is translated for all later ones.
    if min(int(one) for one in built.split(";")) > 10 * major + minor:
        return f"built for sm_{built}, the card is sm_{major}{minor}, `make cuda` builds for it"
    return None


def _memory() -> str | None:
    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError as error:
        return f"the card does not answer ({_first_line(error)}), look at `nvidia-smi`"
    if free < LEAST_FREE:
        return f"{free >> 20} of the card's {total >> 20} MB are free, end what uses it (`nvidia-smi`)"
    return None


def _self_check() -> str | None:
    """A small picture and its gradient, against the CPU's."""
    try:
        on_card = _drawn(torch.device("cuda"))
    except RuntimeError as error:
        return f"the self-check failed ({_first_line(error)})"
    for ours, expected in zip(on_card, _drawn(torch.device("cpu")), strict=True):
        if not (ours - expected).norm() <= TOLERANCE * expected.norm():  # NaN fails too
            return "the self-check gave another picture than the CPU: report it with the card's name"
    return None


def _drawn(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Sixteen Gaussians, 20 x 20 pixels: the image, and the gradient of the means from a sum of squares."""
    g = torch.Generator().manual_seed(0)
    means, quats, scales, opacities, colors = (torch.randn(16, n, generator=g).to(device) for n in (3, 4, 3, 1, 3))
    means = (means * 0.5 + torch.tensor([0.0, 0, 4]).to(device)).requires_grad_()
    view = View(20, 20, 20.0, 20.0, 10.0, 10.0, torch.eye(4))
    background = torch.zeros(3).to(device)
    image = rasterize(
        means, quats, scales - 2, opacities, colors=colors.abs(), raw=True, view=view, background=background
    ).image
    image.square().sum().backward()
    return image.detach().cpu(), means.grad.cpu()


def _card() -> str:
    major, minor = torch.cuda.get_device_capability()
    _, total = torch.cuda.mem_get_info()
    return f"CUDA, {torch.cuda.get_device_name()} (sm_{major}{minor}, {total / 2**30:.0f} GiB)"


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0][:200]
