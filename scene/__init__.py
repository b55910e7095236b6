# SPDX-License-Identifier: Apache-2.0
"""What there is: cameras, photos, points, Gaussians, and the files they live in."""
