# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N999
"""The name under which existing 3DGS code imports `distCUDA2`."""

from . import distCUDA2

__all__ = ["distCUDA2"]
