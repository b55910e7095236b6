# SPDX-License-Identifier: Apache-2.0
"""LPIPS with the VGG16 network: how different two pictures look to a network trained on photos.

The weights are data that the user supplies (`make lpips`, or any file of the same layout): safetensors with
`features.<i>.weight` and `.bias` under torchvision's names, and `lin<k>.weight`, the v0.1 heads. Another
network under these names is refused; there is no substitute.

Source:
    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.
"""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from .errors import UserError

STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Indices of VGG16's convolutions between two poolings; the last ReLU of each stage is compared."""
CHANNELS = (64, 128, 256, 512, 512)
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)

LPIPS_PROTOCOL = "VGG16, v0.1 heads, pictures in [0, 1] not rescaled to [-1, 1], mean over views"


class Lpips:
    """The metric; `distance` compares two pictures that are on its device."""

    net = "vgg16"

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        try:
            self._weights = {name: weight.to(device) for name, weight in load_file(path).items()}
            self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        except (OSError, SafetensorError) as error:
            raise UserError(f"--lpips_weights {path}: {error}; `make lpips` fetches weights") from error
        self._refuse_other_networks(path)

    def _refuse_other_networks(self, path: Path) -> None:
        inputs = (3, *CHANNELS[:-1])
        for stage, layers in enumerate(STAGES):
            for layer in layers:
                source = inputs[stage] if layer == layers[0] else CHANNELS[stage]
                self._expect(path, f"features.{layer}.weight", (CHANNELS[stage], source, 3, 3))
                self._expect(path, f"features.{layer}.bias", (CHANNELS[stage],))
            self._expect(path, f"lin{stage}.weight", (CHANNELS[stage],))

    def _expect(self, path: Path, name: str, shape: tuple[int, ...]) -> None:
        found = tuple(self._weights[name].shape) if name in self._weights else "nothing"
        if found != shape:
            raise UserError(f"--lpips_weights {path}: not LPIPS with VGG16, {name} is {found}, not {shape}")

    @torch.no_grad()
    def distance(self, image: Tensor, target: Tensor) -> float:
        """LPIPS of two pictures [3, H, W] in [0, 1], at least 16 x 16; 0 for equal ones."""
        total = 0.0
        for stage, (a, b) in enumerate(zip(self._features(image), self._features(target), strict=True)):
            head = self._weights[f"lin{stage}.weight"].view(-1, 1, 1)
            total += float((head * (a - b).square()).sum(0).double().mean())
        return total

    def _features(self, image: Tensor) -> list[Tensor]:
        """Unit feature vectors [C, h, w] at the end of each stage."""
        x = image.float()
        x = (x - x.new_tensor(SHIFT).view(3, 1, 1)) / x.new_tensor(SCALE).view(3, 1, 1)
        features = []
        for stage, layers in enumerate(STAGES):
            if stage:
                x = functional.max_pool2d(x, 2)
            for layer in layers:
                kernel = self._weights[f"features.{layer}.weight"]
                x = functional.conv2d(x[None], kernel, self._weights[f"features.{layer}.bias"], padding=1)[0]
                x = functional.relu(x)
            features.append(x / (x.square().sum(0, keepdim=True).sqrt() + 1e-10))
        return features
