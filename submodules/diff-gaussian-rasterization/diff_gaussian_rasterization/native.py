# SPDX-License-Identifier: Apache-2.0
"""Which native module runs an operation: that of the device on which its tensors are."""

from types import ModuleType

import torch

from . import _native

try:
    from . import _cuda
except ImportError as error:
    _cuda = None
    REASON = f"this build has the CPU backend only ({error}): move tensors to the CPU with .cpu()"
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
    if _cuda is None:
        raise ValueError(REASON)
    current = torch.cuda.current_device()
    if tensor.device.index != current:
        raise ValueError(f"tensors are on {tensor.device}, the current device is cuda:{current}: torch.cuda.set_device")
    return _cuda


def launch(module: ModuleType, threads: int, dtype: torch.dtype) -> object:
    """How a call of the module runs: on a pool of threads, or on torch's current stream."""
    if module is _native:
        return _native.Launch("", threads, dtype == torch.float64)
    return module.Launch(torch.cuda.current_stream().cuda_stream if torch.cuda.is_available() else 0)
