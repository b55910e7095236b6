# SPDX-License-Identifier: Apache-2.0
"""Frames into an MP4, with the encoder that comes with OpenCV."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from .errors import UserError


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Encode uint8 RGB frames [H, W, 3] of one size as MPEG-4 and return their number.

    An odd side is extended by its last row or column, because the codec knows even sizes only.

    Raises:
        UserError: The file is not named .mp4, or OpenCV cannot write it.
    """
    if path.suffix.lower() != ".mp4":
        raise UserError(f"--video {path}: only .mp4 is written")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.part.mp4")
    writer, count = None, 0
    try:
        for frame in frames:
            frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
            writer = writer or _open(unfinished, frame.shape[1], frame.shape[0], fps)
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            count += 1
        if writer is None:
            raise UserError(f"--video {path}: no frames to write")
        writer.release()
        unfinished.replace(path)
    finally:
        if writer is not None:
            writer.release()
        unfinished.unlink(missing_ok=True)
    return count


def _open(path: Path, width: int, height: int, fps: float) -> cv2.VideoWriter:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
    if not writer.isOpened():
        raise UserError(f"--video {path}: OpenCV cannot write MPEG-4 there; is the folder writable?")
    return writer
