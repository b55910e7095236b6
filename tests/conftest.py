# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several test files share."""

import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

SHARED = Path(__file__).resolve().parents[2] / "shared"

torch.set_num_threads(1)

# Where the tests are started in the background, Ctrl-C is ignored, and so it would be in the commands they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test measures time, and every run tries the same examples.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")


@pytest.fixture(scope="session")
def shared_scenes() -> Path:
    """Folder of real captures that lies beside the project on the developers' machines."""
    scenes = SHARED / "scenes"
    if not scenes.is_dir():
        pytest.skip("real captures are not on this machine (no shared/scenes beside the project)")
    return scenes


@pytest.fixture
def rng() -> torch.Generator:
    """A fresh generator with a fixed seed."""
    return torch.Generator().manual_seed(0)
