# SPDX-License-Identifier: Apache-2.0
"""Files of Gaussians other than plain PLY, one format a file: `write` and `read`."""
