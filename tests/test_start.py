# SPDX-License-Identifier: Apache-2.0
"""A run may begin from anybody's points."""

import numpy as np
import pytest
import tiny
import torch

from scene.gaussian_model import SH_C0
from scene.ply import write_points
from utils.errors import UserError


def test_a_point_cloud_becomes_gaussians_at_its_points(tmp_path, rng):
    xyz = torch.randn(20, 3, generator=rng).double().numpy()
    rgb = torch.randint(0, 256, (20, 3), generator=rng).to(torch.uint8).numpy()
    write_points(tmp_path / "cloud.ply", xyz, rgb)
    model = tiny.state(tmp_path / "run", tiny.config(tmp_path / "run", init=str(tmp_path / "cloud.ply"))).gaussians
    np.testing.assert_allclose(model.means.detach().numpy(), xyz, rtol=1e-6)
    colors = 0.5 + SH_C0 * model.sh_dc.detach().squeeze(1).numpy()
    np.testing.assert_allclose(colors, rgb / 255, atol=1e-6)


def test_sfm_points_that_are_not_there_are_asked_for_in_one_line(tmp_path):
    with pytest.raises(UserError, match="--init sfm"):
        tiny.state(tmp_path / "run", tiny.config(tmp_path / "run", init="sfm"))
