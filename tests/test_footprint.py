# SPDX-License-Identifier: Apache-2.0
"""How far a Gaussian reaches: the compact box while they grow, in full once what stays is being chosen."""

from dataclasses import replace

import pytest
import tiny

from arguments import Config, PipelineConfig


def footprints(settings: Config) -> tuple[float, float]:
    """Factors right before the first keeping, at 40 of 100 iterations, and at it."""
    state = tiny.state(settings.run.model_path, settings)
    state.iteration = 39
    growing = state.mult
    state.iteration = 40
    return growing, state.mult


@pytest.mark.parametrize(
    ("run", "optim", "pipeline", "given", "wanted"),
    [
        ({}, {}, {}, (), (0.5, 1.0)),
        ({"phases": "none"}, {}, {}, (), (0.5, 0.5)),
        ({}, {"fastgs_faithful": True}, {}, (), (0.5, 0.5)),
        ({}, {}, {"mult": 0.7}, ("--mult",), (0.7, 0.7)),
        ({}, {}, {"mult": 0.7}, (), (0.7, 1.0)),
        ({"phases": "none"}, {}, {"mult_final": 0.8}, ("--mult_final",), (0.5, 0.8)),
    ],
    ids=["phases", "plain", "as published", "given", "preset", "final given"],
)
def test_only_phases_end_with_the_full_footprint_unless_told_otherwise(tmp_path, run, optim, pipeline, given, wanted):
    settings = tiny.config(tmp_path / "run", optim=optim, **run)
    assert footprints(replace(settings, pipeline=PipelineConfig(**pipeline), given=given)) == wanted
