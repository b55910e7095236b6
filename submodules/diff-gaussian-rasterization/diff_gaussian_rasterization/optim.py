# SPDX-License-Identifier: Apache-2.0
"""Adam, natively and in place: one pass over the parameter, its gradient and its two moments."""

import torch
from torch import Tensor

from . import _native, checks, native
from .stages import address


@torch.no_grad()
def adam_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    lr: float | Tensor,
    step: int,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-15,
    threads: int = 0,
) -> None:
    """One step of Adam as `torch.optim.Adam` makes it, to rounding.

    Args:
        param: Changed in place, [N, ...], contiguous.
        grad: Its gradient, same shape.
        exp_avg: First moment, same shape, changed in place; zero before the first step.
        exp_avg_sq: Second moment, likewise.
        lr: Learning rate, or one of each row [N].
        step: 1 for the first; decides the bias correction.
        betas: Decay of the two moments.
        eps: Added to the square root of the second moment.
        threads: Worker threads; 0 for the package's default. The result does not depend on them.

    Raises:
        ValueError: Shapes, dtypes, devices or `step` do not fit; the message names the argument.
    """
    row_rates = lr if isinstance(lr, Tensor) and lr.dim() else None
    tensors = {"param": param, "grad": grad, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    checks.same_kind(tensors | {"lr": row_rates}, "param")
    for name, tensor in tensors.items():
        checks.shape(name, tensor, tuple(param.shape))
        if name != "grad" and not tensor.is_contiguous():
            raise ValueError(f"{name} is changed in place and must be contiguous")
    checks.shape("lr", row_rates, tuple(param.shape[:1]))
    if step < 1:
        raise ValueError(f"step counts from 1, got {step}")
    if not param.numel():
        return
    grad = grad.contiguous()
    rates = None if row_rates is None else row_rates.contiguous()
    rows = len(param) if param.dim() else 1
    module = native.backend(param)
    launch = native.launch(module, threads, param.dtype)
    arrays = map(address, (param, grad, exp_avg, exp_avg_sq, rates))
    numbers = (0.0 if rates is not None else float(lr), *betas, eps, step)
    if module is _native:
        module.adam_step(launch, rows, param.numel() // rows, *arrays, *numbers)
    else:
        module.adam_steps(launch, [module.AdamArgs(rows, param.numel() // rows, *arrays, *numbers)])
