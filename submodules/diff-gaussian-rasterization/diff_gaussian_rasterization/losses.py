# SPDX-License-Identifier: Apache-2.0
"""How unlike two images are: L1 and SSIM with their gradient, in one native pass.

Images are [C, H, W] or [B, C, H, W], float32 or float64, meant for [0, 1] but not clamped. SSIM is that of Wang et
al. 2004 with a Gaussian window of 11 x 11 px and 1.5 px, C1 = 1e-4, C2 = 9e-4, pixels outside the image being 0
(padding "same"), averaged over pixels and channels. Values and gradients do not depend on the number of threads.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import _native, checks, native
from .stages import address

RADIUS = 5
"""Of the SSIM window, px."""

Padding = Literal["same", "valid"]


def photometric(
    image: Tensor, target: Tensor, weight: Tensor | None = None, lambda_dssim: float = 0.2, *, threads: int = 0
) -> Tensor:
    """The loss of 3DGS: (1 - l) mean(w |I - G|) + l (1 - mean(w SSIM)), differentiable in the image.

    Args:
        image: The render [C, H, W].
        target: The photo [C, H, W].
        weight: Of each pixel [H, W]; default 1. Means stay means over all pixels, so weights should average 1.
        lambda_dssim: Share l of the SSIM term.
        threads: Worker threads; 0 for the package's default.

    Returns:
        Scalar of the image's dtype.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit; the message names the argument.
    """
    _check(image, target, weight, dims=3)
    return _Loss.apply(image, target, weight, _Terms(1 - lambda_dssim, lambda_dssim, image.numel()), threads)


def ssim_loss(image: Tensor, target: Tensor, padding: Padding = "same", *, threads: int = 0) -> Tensor:
    """1 - mean SSIM of [B, C, H, W] or [C, H, W], differentiable in the image.

    Args:
        image: What is judged.
        target: What it should be.
        padding: "valid" averages only over windows that lie inside the image.
        threads: Worker threads; 0 for the package's default.

    Raises:
        ValueError: As `photometric`; or the image is smaller than the window and padding is "valid".
    """
    _check(image, target, None, dims=image.dim() if image.dim() == 4 else 3)
    weight, count = _inside(image, padding)
    return _Loss.apply(image, target, weight, _Terms(0.0, 1.0, count), threads)


@torch.no_grad()
def ssim(image: Tensor, target: Tensor, padding: Padding = "same", *, threads: int = 0) -> Tensor:
    """SSIM of each pixel, [C, H, W]; with padding "valid" [C, H - 10, W - 10]. No gradient: see `ssim_loss`."""
    _check(image, target, None, dims=3)
    _inside(image, padding)
    values = torch.empty_like(image, memory_format=torch.contiguous_format)
    _compare(image, target, None, threads, similarity=values)
    return values if padding == "same" else values[:, RADIUS:-RADIUS, RADIUS:-RADIUS].contiguous()


@dataclass(frozen=True)
class _Terms:
    """Shares of the two means, and the number of values that they are means of."""

    l1: float
    dissimilarity: float
    count: int


class _Loss(torch.autograd.Function):
    """The gradient comes with the value: both need the same blurred images."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor, weight: Tensor | None, terms: _Terms, threads: int) -> Tensor:
        v_image = torch.empty_like(image, memory_format=torch.contiguous_format) if ctx.needs_input_grad[0] else None
        slopes = (terms.l1 / terms.count, -terms.dissimilarity / terms.count)
        l1, similarity = _compare(image, target, weight, threads, slopes=slopes, v_image=v_image)
        ctx.save_for_backward(v_image)
        value = terms.l1 * l1 / terms.count + terms.dissimilarity * (1 - similarity / terms.count)
        return value.to(image) if isinstance(value, Tensor) else image.new_tensor(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_loss: Tensor) -> tuple[Tensor, None, None, None, None]:
        (v_image,) = ctx.saved_tensors
        # On a GPU, looking at the value would make the host wait for it.
        whole = not v_loss.is_cuda and v_loss == 1
        return v_image if whole else v_loss * v_image, None, None, None, None


def _compare(
    image: Tensor,
    target: Tensor,
    weight: Tensor | None,
    threads: int,
    *,
    slopes: tuple[float, float] = (0.0, 0.0),
    similarity: Tensor | None = None,
    v_image: Tensor | None = None,
) -> tuple[float | Tensor, float | Tensor]:
    """Sums of weighted L1 and SSIM; fills `similarity`, and `v_image` for the slopes of the loss to the two sums.

    On a GPU the sums stay there, float64.
    """
    height, width = image.shape[-2:]
    channels = image.numel() // max(height * width, 1)
    image, target = image.contiguous(), target.contiguous()
    weight = None if weight is None else weight.contiguous()
    module = native.backend(image)
    launch, sizes = native.launch(module, threads, image.dtype), (channels, height, width)
    inputs, outputs = map(address, (image, target, weight)), map(address, (similarity, v_image))
    if module is _native:
        return module.compare_images(launch, *sizes, *inputs, *slopes, *outputs)
    sums = image.new_empty(2, dtype=torch.float64)
    scratch = image.new_empty(module.loss_scratch(*sizes), dtype=torch.uint8)
    module.compare_images(launch, *sizes, *inputs, *slopes, *outputs, address(sums), address(scratch))
    return sums[0], sums[1]


def _check(image: Tensor, target: Tensor, weight: Tensor | None, dims: int) -> None:
    checks.same_kind({"image": image, "target": target, "weight": weight}, "image")
    checks.shape("image", image, (None,) * dims)
    checks.shape("target", target, tuple(image.shape))
    checks.shape("weight", weight, tuple(image.shape[-2:]))
    if not image.numel():
        raise ValueError(f"image has no pixels: {list(image.shape)}")


def _inside(image: Tensor, padding: Padding) -> tuple[Tensor | None, int]:
    """Weight of each pixel, and the number of values to average over."""
    if padding == "same":
        return None, image.numel()
    if padding != "valid":
        raise ValueError(f'padding must be "same" or "valid", got {padding!r}')
    height, width = image.shape[-2:]
    if min(height, width) <= 2 * RADIUS:
        raise ValueError(f'image is {width} x {height}; padding "valid" needs at least 11 x 11')
    weight = image.new_zeros(height, width)
    weight[RADIUS:-RADIUS, RADIUS:-RADIUS] = 1
    return weight, image.numel() // (height * width) * (height - 2 * RADIUS) * (width - 2 * RADIUS)
