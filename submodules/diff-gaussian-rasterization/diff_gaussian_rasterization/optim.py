# SPDX-License-Identifier: Apache-2.0
"""Adam, natively and in place: one pass over the parameter, its gradient and its two moments."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import _native, checks, native
from .stages import address


@dataclass(frozen=True)
class Group:
    """A parameter with what its step needs; see `adam_step`."""

    param: Tensor
    grad: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    lr: float | Tensor
    step: int

    @property
    def row_rates(self) -> Tensor | None:
        """`lr` where each row has its own."""
        return self.lr if isinstance(self.lr, Tensor) and self.lr.dim() else None

    def check(self) -> None:
        """ValueError unless all tensors fit the parameter."""
        tensors = {"param": self.param, "grad": self.grad, "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}
        checks.same_kind(tensors | {"lr": self.row_rates}, "param")
        for name, tensor in tensors.items():
            checks.shape(name, tensor, tuple(self.param.shape))
            if name != "grad" and not tensor.is_contiguous():
                raise ValueError(f"{name} is changed in place and must be contiguous")
        checks.shape("lr", self.row_rates, tuple(self.param.shape[:1]))
        if self.step < 1:
            raise ValueError(f"step counts from 1, got {self.step}")

    def contiguous(self) -> "Group":
        """The same with gradient and rates in one piece."""
        lr = self.lr if self.row_rates is None else self.row_rates.contiguous()
        return replace(self, grad=self.grad.contiguous(), lr=lr)

    def arguments(self) -> tuple[int | float, ...]:
        """Rows, columns, addresses and the common rate, for the native step."""
        rows = len(self.param) if self.param.dim() else 1
        tensors = (self.param, self.grad, self.exp_avg, self.exp_avg_sq, self.row_rates)
        rate = float(self.lr) if self.row_rates is None else 0.0
        return rows, self.param.numel() // rows, *map(address, tensors), rate


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
    adam_steps([Group(param, grad, exp_avg, exp_avg_sq, lr, step)], betas=betas, eps=eps, threads=threads)


@torch.no_grad()
def adam_steps(
    groups: Sequence[Group], *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-15, threads: int = 0
) -> None:
    """`adam_step` of each group, at most 8 of one dtype and device; on a card in one launch.

    Raises:
        ValueError: As `adam_step`.
    """
    for group in groups:
        group.check()
    groups = [group.contiguous() for group in groups if group.param.numel()]
    if not groups:
        return
    module = native.backend(groups[0].param)
    launch = native.launch(module, threads, groups[0].param.dtype)
    steps = [(*group.arguments(), *betas, eps, group.step) for group in groups]
    if module is _native:
        for step in steps:
            module.adam_step(launch, *step)
    else:
        module.adam_steps(launch, [module.AdamArgs(*step) for step in steps])
