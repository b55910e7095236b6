# SPDX-License-Identifier: Apache-2.0
"""Every setting of the project, written down once: name, type, default and help."""

from .cli import parse
from .config import Config, DataConfig, DetectorConfig, OptimConfig, PipelineConfig, RunConfig
from .fields import setting

__all__ = [
    "Config",
    "DataConfig",
    "DetectorConfig",
    "OptimConfig",
    "PipelineConfig",
    "RunConfig",
    "parse",
    "setting",
]
