# SPDX-License-Identifier: Apache-2.0
"""Weights of LPIPS's shapes without its content, so that its arithmetic can be tested without a download."""

import torch

from utils.lpips import CHANNELS, STAGES


def random_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Kernels that keep the size of their input on average; the same for the same seed."""
    rng = torch.Generator().manual_seed(seed)
    weights, source = {}, 3
    for stage, layers in enumerate(STAGES):
        for layer in layers:
            kernel = torch.randn(CHANNELS[stage], source, 3, 3, generator=rng)
            weights[f"features.{layer}.weight"] = kernel * (2 / (9 * source)) ** 0.5
            weights[f"features.{layer}.bias"] = 0.1 * torch.randn(CHANNELS[stage], generator=rng)
            source = CHANNELS[stage]
        weights[f"lin{stage}.weight"] = torch.rand(source, generator=rng)
    return weights
