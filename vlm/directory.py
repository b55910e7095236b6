# SPDX-License-Identifier: Apache-2.0
"""Is a folder a usable Qwen3-VL directory? Asked before training starts, without importing transformers."""

import json
from pathlib import Path
from typing import Any

from utils.errors import UserError

ADVICE = "--qwen_model_path wants the folder of a Qwen3-VL model (config.json, tokenizer, weights), or embedded"


def check_directory(path: Path) -> None:
    """Raise a UserError unless all files are there, belong to the architecture, and are whole."""
    if not path.is_dir():
        raise UserError(f"--qwen_model_path {path}: no such folder; {ADVICE}")
    config = _json(path, "config.json")
    if config.get("model_type") != "qwen3_vl":
        raise UserError(f"{path / 'config.json'}: model_type is {config.get('model_type')!r}, not 'qwen3_vl'; {ADVICE}")
    _json(path, "preprocessor_config.json")
    _json(path, "tokenizer_config.json")
    if not (path / "tokenizer.json").is_file():
        _json(path, "vocab.json")
    templates = (path / name for name in ("chat_template.jinja", "chat_template.json"))
    if "chat_template" not in _json(path, "tokenizer_config.json") and not any(file.is_file() for file in templates):
        raise UserError(f"{path}: has no chat template; {ADVICE}")
    for weights in weight_files(path):
        _check_safetensors(weights)


def weight_files(path: Path) -> list[Path]:
    """The safetensors files that the directory's weights are in."""
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    if not (path / "model.safetensors.index.json").is_file():
        raise UserError(f"{path}: no model.safetensors; download the weights too")
    shards = _json(path, "model.safetensors.index.json").get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{path / 'model.safetensors.index.json'}: names no weights; download it again")
    return [path / name for name in sorted({Path(str(value)).name for value in shards.values()})]


def pixel_range(path: Path) -> tuple[int, int] | None:
    """Least and most pixels of a picture that the directory's own processor takes, if it says."""
    size = _json(path, "preprocessor_config.json").get("size")
    if not isinstance(size, dict):
        return None
    least, most = size.get("shortest_edge"), size.get("longest_edge")
    return (least, most) if isinstance(least, int) and isinstance(most, int) and 0 < least <= most else None


def clamped(wanted: tuple[int, int], own: tuple[int, int] | None) -> tuple[int, int]:
    """The wanted pixel range inside the model's own; where they do not meet, the model's own.

    A model that was never shown pictures of such sizes would be blind to them. Equal bounds are avoided: rounding
    to whole tokens then leaves no size that fits.
    """
    if own is None:
        return wanted
    least, most = max(wanted[0], own[0]), min(wanted[1], own[1])
    return (least, most) if least < most else own


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((path / name).read_text())
    except FileNotFoundError as error:
        raise UserError(f"--qwen_model_path {path}: has no {name}; {ADVICE}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path / name}: not readable ({error}); download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path / name}: not a JSON object; download it again")
    return content


def _check_safetensors(path: Path) -> None:
    """The header says how long the file must be: a download that broke off, or a pointer in its place, shows."""
    again = "download it again"
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= min(size - 8, 100_000_000):
                raise UserError(f"{path}: not a safetensors file; {again}")
            header = json.loads(file.read(length))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; {again}") from error
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not a safetensors file ({type(error).__name__}); {again}") from error
    if not ends or not all(isinstance(end, int) for end in ends) or size != 8 + length + max(ends):
        raise UserError(f"{path}: {size} bytes, which is not what its header says; {again}")
