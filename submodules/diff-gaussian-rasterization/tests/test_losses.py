# SPDX-License-Identifier: Apache-2.0
"""Loss values and gradients are those of float64 autograd through SSIM as it is defined."""

import pytest
import torch
from diff_gaussian_rasterization.losses import photometric, ssim, ssim_loss
from fused_ssim import fused_ssim
from torch.nn.functional import conv2d

SIZES = [(1, 1), (3, 5), (10, 11), (11, 11), (16, 64), (37, 53), (64, 15), (61, 130)]


def window(dtype: torch.dtype) -> torch.Tensor:
    """The 11 x 11 window of SSIM."""
    line = torch.exp(-(torch.arange(-5, 6, dtype=dtype) ** 2) / (2 * 1.5**2))
    line /= line.sum()
    return (line[:, None] * line)[None, None]


def ssim_by_definition(image: torch.Tensor, target: torch.Tensor, padding: str = "same") -> torch.Tensor:
    """Variances and covariance as moments, [C, H, W]."""

    def blur(x):
        return conv2d(x[:, None], window(x.dtype), padding=5 if padding == "same" else 0)[:, 0]

    m, t = blur(image), blur(target)
    var_image, var_target = blur(image**2) - m**2, blur(target**2) - t**2
    covariance = blur(image * target) - m * t
    luminance = (2 * m * t + 1e-4) / (m**2 + t**2 + 1e-4)
    return luminance * (2 * covariance + 9e-4) / (var_image + var_target + 9e-4)


def loss_by_definition(image, target, weight, share):
    weight = torch.ones_like(image[0]) if weight is None else weight
    l1 = (weight * (image - target).abs()).mean()
    return (1 - share) * l1 + share * (1 - (weight * ssim_by_definition(image, target)).mean())


def pair(height: int, width: int, *, noise: float = 0.3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    target = torch.rand(3, height, width, generator=rng, dtype=torch.float64)
    return target + noise * torch.randn(3, height, width, generator=rng, dtype=torch.float64), target


def value_and_gradient(loss, image):
    image = image.detach().clone().requires_grad_()
    value = loss(image)
    value.backward()
    return value.detach().double(), image.grad.double()


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_value_and_gradient_are_those_of_autograd(size, weighted, dtype, tolerance):
    image, target = pair(*size)
    weight = torch.rand(size, generator=torch.Generator().manual_seed(9), dtype=torch.float64) if weighted else None
    given = [None if x is None else x.to(dtype) for x in (target, weight)]
    exact = [None if x is None else x.double() for x in given]  # what float32 holds, not what it was rounded from
    start = image.to(dtype)
    value, gradient = value_and_gradient(lambda x: photometric(x, *given, 0.3), start)
    wanted = value_and_gradient(lambda x: loss_by_definition(x, *exact, 0.3), start.double())
    assert abs(value - wanted[0]) <= tolerance * abs(wanted[0])
    assert relative(gradient, wanted[1]) <= tolerance


@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-4])
def test_float32_stays_exact_where_the_images_nearly_agree(noise):
    image, target = (x.float() for x in pair(40, 60, noise=noise))
    _, gradient = value_and_gradient(lambda x: photometric(x, target, None, 1.0), image)
    wanted = value_and_gradient(lambda x: loss_by_definition(x, target.double(), None, 1.0), image.double())[1]
    assert relative(gradient, wanted) < 1e-4


def test_a_flat_bright_region_has_a_finite_small_gradient():
    flat = torch.full((3, 30, 30), 37.0)
    _, gradient = value_and_gradient(lambda x: photometric(x, flat + 1e-3), flat)
    assert gradient.isfinite().all()


def test_equal_images_lose_nothing_and_get_no_gradient():
    _, target = pair(20, 30)
    value, gradient = value_and_gradient(lambda x: photometric(x, target), target)
    assert abs(value) < 1e-15
    assert gradient.abs().max() < 1e-15


def test_a_pixel_of_weight_zero_still_shapes_its_neighbours_windows():
    image, target = pair(20, 20)
    weight = torch.ones(20, 20, dtype=torch.float64)
    weight[8:12, 8:12] = 0
    _, gradient = value_and_gradient(lambda x: photometric(x, target, weight, 1.0), image)
    assert gradient[:, 10, 10].abs().min() > 0
    _, gradient = value_and_gradient(lambda x: photometric(x, target, weight, 0.0), image)
    assert not gradient[:, 8:12, 8:12].any()


def test_the_upstream_gradient_scales_ours():
    image, target = pair(12, 17)
    one = value_and_gradient(lambda x: photometric(x, target), image)[1]
    three = value_and_gradient(lambda x: 3 * photometric(x, target), image)[1]
    torch.testing.assert_close(three, 3 * one, rtol=1e-15, atol=0)


def test_backward_twice_gives_the_same_twice():
    image, target = pair(12, 17)
    image.requires_grad_()
    loss = photometric(image, target)
    loss.backward(retain_graph=True)
    once = image.grad.clone()
    loss.backward()
    assert torch.equal(image.grad, 2 * once)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_map_is_ssim_by_definition(padding):
    image, target = pair(25, 31)
    found = ssim(image, target, padding)
    torch.testing.assert_close(found, ssim_by_definition(image, target, padding), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_fused_ssim_is_the_mean_over_a_batch_with_its_gradient(padding):
    pairs = [pair(13, 19, seed=seed) for seed in range(3)]
    images, targets = (torch.stack(both) for both in zip(*pairs, strict=True))

    def by_definition(x):
        maps = [ssim_by_definition(i, t, padding) for i, t in zip(x, targets, strict=True)]
        return torch.stack(maps).mean()

    value, gradient = value_and_gradient(lambda x: fused_ssim(x, targets, padding), images)
    wanted = value_and_gradient(by_definition, images)
    torch.testing.assert_close(value, wanted[0], rtol=1e-13, atol=0)
    assert relative(gradient, wanted[1]) < 1e-12


def test_fused_ssim_without_train_leaves_no_graph():
    image, target = pair(13, 19)
    assert not fused_ssim(image[None].requires_grad_(), target[None], train=False).requires_grad


def test_ssim_is_symmetric_and_at_most_one():
    image, target = pair(30, 40)
    torch.testing.assert_close(ssim(image, target), ssim(target, image), rtol=1e-12, atol=1e-14)
    assert ssim(image, target).max() <= 1


@pytest.mark.parametrize("size", [(7, 9), (150, 33), (270, 48)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_threads_gives_the_same_bits(size, dtype):
    image, target = (x.to(dtype) for x in pair(*size))
    weight = torch.rand(size, dtype=dtype, generator=torch.Generator().manual_seed(4))

    def run(threads):
        return value_and_gradient(lambda x: photometric(x, target, weight, threads=threads), image)

    alone = run(1)
    for threads in (2, 3, 4, 7):
        together = run(threads)
        assert torch.equal(alone[0], together[0])
        assert torch.equal(alone[1], together[1])


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_every_instruction_set_agrees(isa, monkeypatch):
    monkeypatch.setenv("DGR_ISA", isa)
    image, target = (x.float() for x in pair(33, 70))
    try:
        found = value_and_gradient(lambda x: photometric(x, target), image)
    except ValueError as refused:
        pytest.skip(str(refused))
    wanted = value_and_gradient(lambda x: loss_by_definition(x, target.double(), None, 0.2), image.double())
    assert abs(found[0] - wanted[0]) < 1e-6
    assert relative(found[1], wanted[1]) < 1e-5


def test_strided_images_are_read_as_they_are_meant():
    image, target = pair(20, 24)
    turned = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(photometric(turned, target), photometric(image, target))


def test_what_does_not_fit_is_refused_by_name():
    image, target = pair(20, 24)
    with pytest.raises(ValueError, match="target must have shape"):
        photometric(image, target[:, :10])
    with pytest.raises(ValueError, match=r"weight must have shape \[20, 24\]"):
        photometric(image, target, torch.ones(24, 20, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"target is torch\.float32"):
        photometric(image, target.float())
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim_loss(image[:, :10], target[:, :10], "valid")
    with pytest.raises(ValueError, match="padding must be"):
        ssim_loss(image, target, "reflect")
