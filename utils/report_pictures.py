# SPDX-License-Identifier: Apache-2.0
"""Pictures inside the page: small JPEGs as data: addresses, error maps, boxes drawn over them."""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .report_html import Markup, tag

WIDEST = 720
"""Pixels of a picture at the head of the page."""
SMALL = 420
"""Pixels of one among many, so that a page of a hundred stays a few megabytes."""
FULL_ERROR = 0.25
"""Mean absolute difference of the channels that the error map shows as its brightest colour."""


def load(path: Path) -> np.ndarray | None:
    """A picture as uint8 RGB [H, W, 3], or None when it cannot be read."""
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError):
        return None


def error_map(render: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Where two uint8 pictures of one size differ: black through red to bright yellow."""
    error = np.abs(render.astype(np.float32) - photo.astype(np.float32)).mean(2) / 255
    levels = (np.clip(error / FULL_ERROR, 0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def picture(pixels: np.ndarray, description: str, widest: int = WIDEST) -> Markup:
    """uint8 RGB as an element of the page."""
    image = Image.fromarray(pixels)
    image.thumbnail((widest, 4 * widest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=86, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = pixels.shape[:2]
    return tag("img", src=f"data:image/jpeg;base64,{data}", alt=description, width=width, height=height)


def figure(pixels: np.ndarray, caption: object, *overlay: Markup, widest: int = WIDEST) -> Markup:
    """A picture with its caption and, in the picture's own pixels, an SVG over it."""
    body = picture(pixels, re.sub("<[^>]*>", "", str(caption)), widest)
    if overlay:
        height, width = pixels.shape[:2]
        drawing = tag("svg", *overlay, viewBox=f"0 0 {width} {height}", preserveAspectRatio="none")
        body = tag("div", body, drawing, class_="overlaid")
    return tag("figure", body, tag("figcaption", caption))


def boxes(found: Iterable[tuple[Sequence[float], bool, str]]) -> list[Markup]:
    """Rectangles (x1, y1, x2, y2 in pixels; accepted; text shown on hovering) for `figure`."""
    return [
        tag(
            "rect",
            tag("title", text),
            x=f"{min(x1, x2):.1f}",
            y=f"{min(y1, y2):.1f}",
            width=f"{abs(x2 - x1):.1f}",
            height=f"{abs(y2 - y1):.1f}",
            class_="box good" if accepted else "box bad",
        )
        for (x1, y1, x2, y2), accepted, text in found
    ]
