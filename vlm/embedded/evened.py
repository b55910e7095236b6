# SPDX-License-Identifier: Apache-2.0
"""An optimiser for weight matrices."""

import torch
from torch import Tensor, nn


class Evened(torch.optim.Optimizer):
    """Momentum whose step has about the same singular value in all directions: the optimiser "Muon".

    What the loss seldom asks for is learnt about as fast as what it always asks for. In float32: torch's own Muon works
    in bfloat16, which takes ten times as long on processors without it.
    """

    def __init__(self, matrices: list[nn.Parameter], momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": 0.0, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """One step of each matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in (p for p in group["params"] if p.grad is not None):
                mean = self.state[matrix].setdefault("mean", torch.zeros_like(matrix))
                mean.lerp_(matrix.grad, 1 - group["momentum"])
                ahead = matrix.grad.lerp(mean, group["momentum"])
                high, wide = matrix.shape
                matrix.sub_(evened(ahead), alpha=group["lr"] * max(1, high / wide) ** 0.5)


def evened(matrix: Tensor) -> Tensor:
    """A matrix with the same singular vectors, and singular values between about 0.7 and 1.2."""
    if matrix.shape[0] > matrix.shape[1]:
        return evened(matrix.T).T
    x = matrix / (matrix.norm() + 1e-7)
    for _ in range(5):  # Newton-Schulz; the usual coefficients
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=-4.775, alpha=2.0315), x, beta=3.4445)
    return x
