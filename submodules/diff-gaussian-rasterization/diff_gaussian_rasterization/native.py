# SPDX-License-Identifier: Apache-2.0
"""Which native module runs an operation: that of the device on which its tensors are."""

from importlib import import_module
from types import ModuleType

import torch

from . import _native

cuda: ModuleType | None
try:
    cuda = import_module("._cuda", __package__)
except ModuleNotFoundError:
    cuda, REASON = None, "the rasteriser was built without CUDA"
except ImportError as error:
    cuda, REASON = None, f"the rasteriser's CUDA module does not load ({error})"
else:
    REASON = ""


def backend(tensor: torch.Tensor) -> ModuleType:
    """The native module for a tensor.

    Raises:
        ValueError: there is none for its device; the line says what to do.
    """
    if tensor.device.type == "cpu":
        return _native
    if tensor.device.type != "cuda":
        raise ValueError(f"tensors on {tensor.device} cannot be drawn: move them to the CPU or to a CUDA device")
    if cuda is None:
        raise ValueError(f"{REASON}: move tensors to the CPU with .cpu(), or build it with `make cuda`")
    current = torch.cuda.current_device()
    if tensor.device.index != current:
        raise ValueError(f"tensors are on {tensor.device}, the current device is cuda:{current}: torch.cuda.set_device")
    return cuda


def launch(module: ModuleType, threads: int, dtype: torch.dtype) -> object:
    """How a call of the module runs: on a pool of threads, or on torch's current stream."""
    if module is _native:
        return _native.Launch("", threads, dtype == torch.float64)
    return module.Launch(torch.cuda.current_stream().cuda_stream if torch.cuda.is_available() else 0)
