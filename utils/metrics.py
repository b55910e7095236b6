# SPDX-License-Identifier: Apache-2.0
"""PSNR and SSIM of the protocol that the numbers in the 3DGS literature come from (INRIA's `metrics.py`).

Images are [3, H, W] in [0, 1], read back from 8-bit files. A mask is [H, W]: where it is 0, nothing counts.
Arithmetic is float64, so that a figure does not depend on the order of a sum.
"""

import torch
from torch import Tensor
from torch.nn import functional

WINDOW = 11
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2

PSNR_PROTOCOL = "10 log10(1 / MSE), MSE over all three channels jointly, then the mean over views"
SSIM_PROTOCOL = (
    "11x11 Gaussian window, sigma 1.5, zero padding, C1 0.01^2, C2 0.03^2, "
    "mean over pixels and channels, then the mean over views"
)
MASK_PROTOCOL = (
    "pixels whose mask is black are left out: PSNR and SSIM average over kept pixels only, "
    "and for SSIM and LPIPS both pictures are black where the mask is"
)


def psnr(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures, NaN where a mask keeps no pixel."""
    squared = (image.double() - target.double()).square()
    if mask is not None:
        squared = squared[:, mask > 0]
    return float(-10 * squared.mean().log10())


def ssim(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Structural similarity, 1 for equal pictures.

    Source:
        Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", TIP 2004.
    """
    image, target = hide(image.double(), mask), hide(target.double(), mask)
    similarity = ssim_map(image, target)
    return float(similarity.mean() if mask is None else similarity[:, mask > 0].mean())


def ssim_map(image: Tensor, target: Tensor) -> Tensor:
    """SSIM of the window round each pixel [3, H, W]; outside the picture everything is 0."""
    mean_a, mean_b = _blur(image), _blur(target)
    var_a = _blur(image * image) - mean_a * mean_a
    var_b = _blur(target * target) - mean_b * mean_b
    covariance = _blur(image * target) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a * mean_a + mean_b * mean_b + C1)
    return luminance * (2 * covariance + C2) / (var_a + var_b + C2)


def hide(image: Tensor, mask: Tensor | None) -> Tensor:
    """The picture with ignored pixels black, so that what is there cannot matter."""
    return image if mask is None else image * (mask > 0)


def _blur(image: Tensor) -> Tensor:
    """The Gaussian window is a product of two lines: blur columns, then rows. [3, H, W] to the same."""
    offsets = torch.arange(WINDOW, dtype=image.dtype, device=image.device) - WINDOW // 2
    line = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    line = line / line.sum()
    columns = functional.conv2d(image[:, None], line.view(1, 1, -1, 1), padding=(WINDOW // 2, 0))
    return functional.conv2d(columns, line.view(1, 1, 1, -1), padding=(0, WINDOW // 2))[:, 0]
