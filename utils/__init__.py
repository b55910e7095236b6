# SPDX-License-Identifier: Apache-2.0
"""Small helpers that belong to no single part of the method."""
