# SPDX-License-Identifier: Apache-2.0
"""The metric arithmetic equals independent implementations of the protocol, and differs from its look-alikes."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.random_vgg import random_weights
from utils.errors import UserError
from utils.lpips import Lpips
from utils.metrics import psnr, ssim
from utils.pictures import to_uint8


def pair(seed: int = 0, shape: tuple[int, ...] = (3, 37, 53)) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth picture and a disturbed one, quantised to 8 bits."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[1], : shape[2]] / 20
    picture = np.stack([0.5 + 0.4 * np.sin(x + k) * np.cos(y - k) for k in range(3)])
    other = picture + rng.normal(scale=[[[0.02]], [[0.1]], [[0.25]]], size=shape)
    return tuple(torch.from_numpy(np.round(p.clip(0, 1) * 255) / 255).float() for p in (picture, other))


def plain_ssim(a: np.ndarray, b: np.ndarray, *, zero_padding: bool) -> float:
    """SSIM by its definition, one window after the other."""
    r = 5
    line = np.exp(-(np.arange(-r, r + 1) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    values = []
    for p, q in zip(a, b, strict=True):
        if zero_padding:
            p, q = np.pad(p, r), np.pad(q, r)
        for i in range(p.shape[0] - 2 * r):
            for j in range(p.shape[1] - 2 * r):
                u, v = p[i : i + 11, j : j + 11], q[i : i + 11, j : j + 11]
                mu, mv = (window * u).sum(), (window * v).sum()
                var_u, var_v = (window * u * u).sum() - mu**2, (window * v * v).sum() - mv**2
                cov = (window * u * v).sum() - mu * mv
                values.append(
                    (2 * mu * mv + 1e-4) * (2 * cov + 9e-4) / ((mu**2 + mv**2 + 1e-4) * (var_u + var_v + 9e-4))
                )
    return float(np.mean(values))


def test_psnr_is_joint_over_the_channels():
    a, b = pair()
    joint = -10 * np.log10(np.mean((a.double().numpy() - b.double().numpy()) ** 2))
    per_channel = np.mean(-10 * np.log10(((a.double().numpy() - b.double().numpy()) ** 2).mean((1, 2))))
    assert psnr(a, b) == pytest.approx(joint, abs=1e-9)
    assert per_channel - joint > 3, "the mean of per-channel figures is a different, larger number"


def test_a_constant_difference_has_the_psnr_of_its_square():
    assert psnr(torch.full((3, 5, 7), 0.3), torch.full((3, 5, 7), 0.4)) == pytest.approx(20, abs=1e-5)


def test_ssim_equals_the_definition_with_zero_padding():
    a, b = pair()
    assert ssim(a, b) == pytest.approx(plain_ssim(a.double().numpy(), b.double().numpy(), zero_padding=True), abs=1e-10)


def test_ssim_is_not_the_variant_without_padding():
    a, b = pair()
    assert abs(ssim(a, b) - plain_ssim(a.double().numpy(), b.double().numpy(), zero_padding=False)) > 1e-4


def test_ssim_equals_scipys_filter_on_a_picture_smaller_than_the_window():
    from scipy.ndimage import gaussian_filter

    a, b = pair(1, (3, 7, 9))
    blur = lambda x: gaussian_filter(x, (0, 1.5, 1.5), mode="constant", radius=(0, 5, 5))  # noqa: E731
    p, q = a.double().numpy(), b.double().numpy()
    mp, mq = blur(p), blur(q)
    numerator = (2 * mp * mq + 1e-4) * (2 * (blur(p * q) - mp * mq) + 9e-4)
    denominator = (mp**2 + mq**2 + 1e-4) * (blur(p * p) - mp**2 + blur(q * q) - mq**2 + 9e-4)
    assert ssim(a, b) == pytest.approx((numerator / denominator).mean(), abs=1e-10)


def test_equal_pictures_have_ssim_one_and_no_finite_psnr():
    a, _ = pair()
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)
    assert psnr(a, a) == float("inf")


def test_what_a_mask_hides_changes_no_figure():
    a, b = pair()
    mask = torch.ones(a.shape[1:])
    mask[5:20, 10:30] = 0
    spoiled = torch.where(mask > 0, b, torch.rand_like(b))
    assert psnr(a, b, mask) == psnr(a, spoiled, mask) != psnr(a, b)
    assert ssim(a, b, mask) == ssim(a, spoiled, mask) != ssim(a, b)


def test_a_mask_that_keeps_everything_is_no_mask():
    a, b = pair()
    everything = torch.ones(a.shape[1:])
    assert psnr(a, b, everything) == psnr(a, b)
    assert ssim(a, b, everything) == ssim(a, b)


def test_masked_psnr_is_the_psnr_of_the_kept_pixels():
    a, b = pair()
    mask = torch.zeros(a.shape[1:])
    mask[:, :25] = 1
    assert psnr(a, b, mask) == pytest.approx(psnr(a[:, :, :25], b[:, :, :25]), abs=1e-12)


def test_eight_bit_levels_round_half_up_and_clamp():
    values = torch.tensor([[-1.0, 0.0, 0.49 / 255, 0.51 / 255, 254.49 / 255, 1.0, 7.0]])
    assert to_uint8(values).tolist() == [[0, 0, 0, 1, 254, 255, 255]]


# --- LPIPS, with random weights of the right shapes ---


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("lpips") / "random_vgg.safetensors"
    save_file(random_weights(), file)
    return file


def plain_lpips(weights: dict[str, torch.Tensor], a: np.ndarray, b: np.ndarray) -> float:
    """LPIPS from its paper in numpy: im2col convolutions, pooling by reshape, unit features, weighted squares."""

    def convolve(x, kernel, bias):
        x = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        return np.maximum(np.einsum("oikl,ihwkl->ohw", kernel, patches, optimize=True) + bias[:, None, None], 0)

    def features(image):
        x = (image - np.array([-0.030, -0.088, -0.188])[:, None, None]) / np.array([0.458, 0.448, 0.450])[:, None, None]
        plan = [0, 2, "*", "P", 5, 7, "*", "P", 10, 12, 14, "*", "P", 17, 19, 21, "*", "P", 24, 26, 28, "*"]
        for step in plan:
            if step == "*":
                yield x / (np.linalg.norm(x, axis=0) + 1e-10)
            elif step == "P":
                c, h, w = x.shape
                x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(c, h // 2, 2, w // 2, 2).max((2, 4))
            else:
                x = convolve(x, w64[f"features.{step}.weight"], w64[f"features.{step}.bias"])

    w64 = {name: value.double().numpy() for name, value in weights.items()}
    return sum(
        np.tensordot(w64[f"lin{k}.weight"], (u - v) ** 2, 1).mean()
        for k, (u, v) in enumerate(zip(features(a), features(b), strict=True))
    )


def test_lpips_equals_a_plain_implementation(weights_file):
    a, b = pair(2, (3, 21, 34))
    wanted = plain_lpips(random_weights(), a.double().numpy(), b.double().numpy())
    assert Lpips(weights_file).distance(a, b) == pytest.approx(wanted, rel=1e-4)


def test_lpips_does_not_rescale_pictures(weights_file):
    a, b = pair(2, (3, 21, 34))
    lpips = Lpips(weights_file)
    assert lpips.distance(a, b) != pytest.approx(lpips.distance(2 * a - 1, 2 * b - 1), rel=0.05)
    assert lpips.distance(a, a) == 0


def test_another_network_is_refused(tmp_path):
    alex = {"features.0.weight": torch.zeros(64, 3, 11, 11), "features.0.bias": torch.zeros(64)}
    save_file(alex, tmp_path / "alex.safetensors")
    with pytest.raises(UserError, match=r"alex\.safetensors: not LPIPS with VGG16"):
        Lpips(tmp_path / "alex.safetensors")


@pytest.mark.parametrize("content", [None, b"garbage"])
def test_unreadable_weights_are_named(tmp_path, content):
    file = tmp_path / "weights.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match="--lpips_weights"):
        Lpips(file)
