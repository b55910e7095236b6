# SPDX-License-Identifier: Apache-2.0
"""The name under which 3DGS code imports SSIM; see `diff_gaussian_rasterization.losses`."""

from diff_gaussian_rasterization.losses import Padding, ssim_loss
from torch import Tensor

__all__ = ["fused_ssim"]


def fused_ssim(img1: Tensor, img2: Tensor, padding: Padding = "same", train: bool = True) -> Tensor:
    """Mean SSIM of two batches [B, C, H, W], differentiable in `img1`.

    Args:
        img1: What is judged.
        img2: What it should be; receives no gradient.
        padding: "valid" averages only over windows that lie inside the image.
        train: False computes the value alone.
    """
    return 1 - ssim_loss(img1 if train else img1.detach(), img2.detach(), padding)
