# SPDX-License-Identifier: Apache-2.0
"""The weights' converter reads arrays and nothing else, and puts them where LPIPS looks for them."""

import io
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.random_vgg import random_weights
from tools.fetch_lpips import CONVOLUTIONS, ArrayUnpickler, convert
from utils.lpips import Lpips


def as_flax(weights: dict[str, torch.Tensor]) -> dict:
    """The tree that the package holds: kernels (h, w, in, out), heads (1, 1, C, 1)."""
    backbone = {
        f"Conv_{k}": {
            "kernel": weights[f"features.{index}.weight"].permute(2, 3, 1, 0).numpy(),
            "bias": weights[f"features.{index}.bias"].numpy(),
        }
        for k, index in enumerate(CONVOLUTIONS)
    }
    heads = {
        f"NetLinLayer_{k}": {"Conv_0": {"kernel": weights[f"lin{k}.weight"].reshape(1, 1, -1, 1).numpy()}}
        for k in range(5)
    }
    return {"VGG16_0": backbone, **heads}


def test_converted_weights_are_the_ones_that_went_in(tmp_path):
    weights = random_weights()
    converted = convert(io.BytesIO(pickle.dumps(as_flax(weights))))
    assert converted.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(converted[name], value.numpy())
    save_file(converted, tmp_path / "vgg.safetensors")
    Lpips(tmp_path / "vgg.safetensors")


class Malicious:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize("content", [Malicious(), np.float32, {"a": [os.getcwd]}])
def test_anything_but_arrays_is_refused(content):
    with pytest.raises(pickle.UnpicklingError, match="only arrays"):
        ArrayUnpickler(io.BytesIO(pickle.dumps(content))).load()
