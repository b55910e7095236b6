# SPDX-License-Identifier: Apache-2.0
"""Qwen3-VL through transformers, from any local directory: 2B, 4B, 8B, or the tiny one that ships here.

transformers is imported when a model is opened, and nowhere else. torchvision is not needed: the processor is
built of its picture half alone, since the video half is what asks for it.
"""

import ctypes
import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from utils.errors import UserError
from utils.pictures import to_uint8

from .boxes import BoxFrame, parse_answer
from .defects import DetectionResult
from .directory import check_directory, clamped, pixel_range, weight_files
from .prompts import defect_prompt

TOKEN = 32
"""Side in pixels of a picture token."""
PIXELS = (1024 * TOKEN**2, 2048 * TOKEN**2)
"""Qwen's advice for boxes: 1024 to 2048 tokens a picture."""
MOST_TOKENS = 512
"""Of an answer; a model that loops is cut off."""
SMALL = 500_000_000
"""Bytes of weights up to which float32 costs nothing worth saving."""


@contextmanager
def open_qwen(
    path: Path, *, name: str = "", max_boxes: int = 3, pixels: tuple[int, int] = PIXELS, device: str = ""
) -> Iterator["QwenDetector"]:
    """A detector for as long as the block lasts; afterwards the model's memory is given back.

    Args:
        path: The model directory.
        name: What the audit calls the model; default the folder's name.
        max_boxes: Most boxes asked for.
        pixels: Least and most pixels of a picture; clamped into the directory's own range.
        device: Default: an NVIDIA GPU if torch sees one, else the CPU.
    """
    check_directory(path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    detector = QwenDetector(path, name or path.name, max_boxes, clamped(pixels, pixel_range(path)), device)
    try:
        yield detector
    finally:
        detector.close()
        del detector
        give_memory_back()


class QwenDetector:
    """A loaded model and its processor."""

    name = "qwen"
    judged = True

    def __init__(self, path: Path, name: str, max_boxes: int, pixels: tuple[int, int], device: str) -> None:
        hide_broken_torchvision()
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        try:
            from transformers import Qwen3VLForConditionalGeneration
            from transformers.utils import logging

            logging.disable_progress_bar()
            self._model: Any = Qwen3VLForConditionalGeneration.from_pretrained(
                path, dtype=sensible_dtype(path, device), local_files_only=True
            )
            self._model.to(device).eval()
            self._processor: Any = picture_processor(path)
        except (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise UserError(f"--qwen_model_path {path}: cannot be loaded ({reason}); download it again") from error
        self._pixels = pixels
        self._prompt = defect_prompt(max_boxes)
        self.model = name

    def views(self) -> None:
        """No wish."""

    def detect(self, view: str, render: Tensor, photo: Tensor) -> DetectionResult:
        """Ask about one view, greedily; running out of memory is the result's error."""
        height, width = render.shape[1:]
        shown_height, shown_width = token_size(height, width, *self._pixels)
        frame = BoxFrame(width, height, shown_width, shown_height)
        pictures = [
            Image.fromarray(to_uint8(image)).resize((shown_width, shown_height), Image.Resampling.BICUBIC)
            for image in (render, photo)
        ]
        try:
            text = self._ask(pictures)
        except (RuntimeError, MemoryError) as error:
            reason = str(error).strip().partition("\n")[0]
            return DetectionResult(prompt=self._prompt, error=f"{type(error).__name__}: {reason}")
        return parse_answer(text, frame).result(self._prompt, text)

    @torch.inference_mode()
    def _ask(self, pictures: list[Image.Image]) -> str:
        content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": self._prompt}]
        question = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        # The pictures have their size already; the processor must not round it once more.
        inputs = self._processor(
            text=[question], images=pictures, images_kwargs={"do_resize": False}, return_tensors="pt"
        ).to(self._model.device)
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        tokens = self._model.generate(**inputs, max_new_tokens=MOST_TOKENS, **greedy)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return self._processor.batch_decode(new, skip_special_tokens=True)[0]

    def close(self) -> None:
        """Let go of the model."""
        self._model = self._processor = None


def token_size(height: int, width: int, least: int, most: int) -> tuple[int, int]:
    """Height and width in whole tokens, their product within `least` to `most` pixels, the shape about kept.

    qwen-vl-utils' own function where that package imports, else the same rule.
    """
    with suppress(Exception):  # it imports torchvision, which fails in many ways
        from qwen_vl_utils.vision_process import smart_resize

        return smart_resize(height, width, factor=TOKEN, min_pixels=least, max_pixels=most)
    rows, columns = max(1, round(height / TOKEN)), max(1, round(width / TOKEN))
    if rows * columns * TOKEN**2 > most:
        shrink = (height * width / most) ** 0.5
        rows, columns = max(1, int(height / shrink / TOKEN)), max(1, int(width / shrink / TOKEN))
    elif rows * columns * TOKEN**2 < least:
        grow = (least / (height * width)) ** 0.5
        rows, columns = -int(-height * grow // TOKEN), -int(-width * grow // TOKEN)
    return rows * TOKEN, columns * TOKEN


def sensible_dtype(path: Path, device: str) -> torch.dtype:
    """bfloat16 for real models, half the memory; float32 for tiny ones on a CPU, where it is the faster."""
    small = sum(file.stat().st_size for file in weight_files(path)) < SMALL
    return torch.float32 if small and device == "cpu" else torch.bfloat16


def hide_broken_torchvision() -> None:
    """Make a torchvision that is installed but does not import look as if it were absent.

    transformers only asks whether it is installed; next to another build of torch it then fails to import even
    the model class.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except Exception:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]


def picture_processor(path: Path) -> Any:
    """Tokenizer and picture processor as a Qwen3VLProcessor that knows of no videos."""
    from transformers import AutoTokenizer, Qwen3VLProcessor

    class PictureProcessor(Qwen3VLProcessor):
        attributes = ("image_processor", "tokenizer")  # transformers 4.57 reads this

        @classmethod
        def get_attributes(cls) -> list[str]:  # transformers 5 reads this
            return list(cls.attributes)

    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    pictures = _pil_class().from_pretrained(path, local_files_only=True)
    return PictureProcessor(pictures, tokenizer, chat_template=_chat_template(path, tokenizer))


def _pil_class() -> Any:
    """The picture processor over PIL and numpy; its name has changed."""
    try:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    except ImportError:  # transformers up to 5.3
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

        return Qwen2VLImageProcessor
    return Qwen2VLImageProcessorPil


def _chat_template(path: Path, tokenizer: Any) -> str:
    if tokenizer.chat_template:
        return tokenizer.chat_template
    if (path / "chat_template.jinja").is_file():
        return (path / "chat_template.jinja").read_text()
    return json.loads((path / "chat_template.json").read_text())["chat_template"]


def give_memory_back() -> None:
    """Return what a model held to the GPU and to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # glibc keeps freed memory unless told; others have no such function
        ctypes.CDLL("libc.so.6").malloc_trim(0)
