# SPDX-License-Identifier: Apache-2.0
"""Differentiable Gaussian splatting on CPUs: exact, deterministic, vectorised."""

from ._native import resolve_threads
from ._native import set_default_threads as set_threads
from .dropin import GaussianRasterizationSettings, GaussianRasterizer
from .ops import Rasterized, rasterize, scatter
from .view import View

__all__ = [
    "GaussianRasterizationSettings",
    "GaussianRasterizer",
    "Rasterized",
    "View",
    "rasterize",
    "resolve_threads",
    "scatter",
    "set_threads",
]
