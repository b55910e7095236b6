# SPDX-License-Identifier: Apache-2.0
"""From the settings to a detector; what is wrong with them is found before training starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arguments import DetectorConfig
from utils.errors import UserError

from . import embedded
from .defects import DefectDetector
from .directory import check_directory
from .endpoint import EndpointDetector
from .placebo import PlaceboDetector
from .replay import ReplayDetector, audit_file, read_records
from .residual import ResidualDetector

EMBEDDED = "embedded"


def detector_kind(config: DetectorConfig) -> str:
    """The value of --detector, or what the other flags imply."""
    if config.detector:
        return config.detector
    return _implied(config)


def check_detector(config: DetectorConfig) -> None:
    """Find out now what would otherwise end a run at its last phase.

    Raises:
        UserError: the model directory, the server or the recorded run is missing or broken.
    """
    kind = detector_kind(config)
    if kind == "placebo":  # another detector gives the sizes
        kind = _implied(config)
    if kind == "qwen":
        check_directory(_model_path(config)[0])
    elif kind == "endpoint":
        if not config.vlm_endpoint:
            raise UserError("--detector endpoint: needs --vlm_endpoint URL, such as http://localhost:8000/v1")
        EndpointDetector(config.vlm_endpoint, config.vlm_endpoint_model, timeout=20).check()
    elif kind == "replay":
        if config.vlm_replay is None:
            raise UserError("--detector replay: needs --vlm_replay RUN, a run whose phase 2 has been recorded")
        read_records(audit_file(config.vlm_replay, 1))


@contextmanager
def open_detector(
    config: DetectorConfig, *, round_number: int, max_boxes: int, pixels: tuple[int, int], seed: int
) -> Iterator[DefectDetector | None]:
    """The detector of one inspection for as long as the block lasts; None for `none`.

    Args:
        config: The settings.
        round_number: Which inspection, from 1; a replay needs it.
        max_boxes: Most boxes wanted of a view.
        pixels: Least and most pixels of the pictures that a local model is shown.
        seed: Of the placebo's places.
    """
    kind = detector_kind(config)
    if kind == "placebo":
        with _open(_implied(config), config, round_number, max_boxes, pixels) as other:
            yield None if other is None else PlaceboDetector(other, seed + round_number)
    else:
        with _open(kind, config, round_number, max_boxes, pixels) as detector:
            yield detector


@contextmanager
def _open(
    kind: str, config: DetectorConfig, round_number: int, max_boxes: int, pixels: tuple[int, int]
) -> Iterator[DefectDetector | None]:
    if kind == "qwen":
        from .qwen import open_qwen

        path, name = _model_path(config)
        with open_qwen(path, name=name, max_boxes=max_boxes, pixels=pixels) as detector:
            yield detector
    elif kind == "endpoint":
        yield EndpointDetector(config.vlm_endpoint, config.vlm_endpoint_model, max_boxes=max_boxes)
    elif kind == "replay":
        yield ReplayDetector(Path(config.vlm_replay or ""), round_number)
    elif kind == "residual":
        yield ResidualDetector(max_boxes)
    else:
        yield None


def _implied(config: DetectorConfig) -> str:
    """What the flags beside --detector ask for; a placebo takes the sizes of its boxes from it."""
    if config.qwen_model_path:
        return "qwen"
    if config.vlm_endpoint or config.vlm_endpoint_model:
        return "endpoint"
    return "replay" if config.vlm_replay else "residual"


def _model_path(config: DetectorConfig) -> tuple[Path, str]:
    """The model directory, and what the audit calls it."""
    if not config.qwen_model_path:
        raise UserError("--detector qwen: needs --qwen_model_path, the folder of a Qwen3-VL model, or embedded")
    if config.qwen_model_path == EMBEDDED:
        return embedded.MODEL_DIR, embedded.NAME
    path = Path(config.qwen_model_path)
    return path, path.resolve().name
