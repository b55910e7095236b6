# SPDX-License-Identifier: Apache-2.0
"""Who names the defects: detectors, boxes, acceptance, masks, choice of views, audit.

Tensors in, masks out: this package knows no cameras and no Gaussians.
"""

from .detectors import check_detector, detector_kind, open_detector

__all__ = ["check_detector", "detector_kind", "open_detector"]
