# SPDX-License-Identifier: Apache-2.0
"""Everything of the model directory but the weights: configuration, tokenizer, chat template, picture sizes.

The file set and the key names are those of a published Qwen3-VL directory, so that the embedded model is loaded
by exactly the code that loads the real one.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from ..prompts import KINDS, defect_prompt

VOCABULARY = 768
TOKEN = 32
"""Side in pixels of the square that becomes one picture token: 2 x 2 patches of 16."""
GRIDS = ((3, 4), (4, 3), (4, 4), (3, 5), (5, 3))
"""Rows and columns of picture tokens that training shows; what the picture sizes below lead to."""
LEAST_PIXELS, MOST_PIXELS = 12 * TOKEN**2, 16 * TOKEN**2
PIECES = ('[{"bbox_2d": [', '], "label": "', '"}, {"bbox_2d": [', '"}]', ", ", *defect_prompt(7).split("7"))
"""Fixed parts of answers and of what phase 2 asks, a token each: short texts train faster."""

SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
"""Qwen's special tokens, in Qwen's order."""

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}
{%- endfor %}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen's tokenizer cuts text before merging; digits stay single, which coordinates need."""

SHORT_PROMPTS = (
    "Compare the rendering with the photo. Locate defects. Output JSON only.",
    "Image 1 is a rendering, image 2 is the photo. Report bbox coordinates of every defect in JSON format.",
    "Find artifacts. Answer with a JSON list of bbox_2d and label.",
    "What is wrong here?",
)


def answer_text(boxes: list[tuple[int, int, int, int]], kinds: list[str]) -> str:
    """The answer for boxes in 0-1000, as Qwen3-VL writes it."""
    return json.dumps([{"bbox_2d": list(box), "label": kind} for box, kind in zip(boxes, kinds, strict=True)])


def write_directory(out: Path) -> None:
    """Write all files but the weights into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(out)
    _write_json(out / "config.json", _model_config(ids))
    pictures = {
        "size": {"shortest_edge": LEAST_PIXELS, "longest_edge": MOST_PIXELS},
        **{"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2},
        **{"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        **{"processor_class": "Qwen3VLProcessor", "image_processor_type": "Qwen2VLImageProcessorFast"},
    }
    _write_json(out / "preprocessor_config.json", pictures)
    ends = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    _write_json(
        out / "generation_config.json",
        {"bos_token_id": ends[1], "pad_token_id": ends[1], "eos_token_id": ends, "do_sample": False},
    )
    _write_json(out / "chat_template.json", {"chat_template": TEMPLATE})


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _corpus() -> Iterator[str]:
    """Text from which the merges are learned: prompts and answers."""
    r = random.Random(0)
    for _ in range(500):
        box = tuple(r.randrange(1001) for _ in range(4))
        yield answer_text([box, box], r.sample(KINDS, 2))
        yield defect_prompt(r.randrange(1, 7))
        yield from (*SHORT_PROMPTS, "user", "assistant")


def _write_tokenizer(out: Path) -> dict[str, int]:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = VOCABULARY - len(SPECIALS) - len(PIECES)
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    tokenizer.add_tokens([AddedToken(s, normalized=False) for s in PIECES])
    tokenizer.save(str(out / "tokenizer.json"))
    tokenizer.model.save(str(out))
    ids = {s: tokenizer.token_to_id(s) for s in (*SPECIALS, *PIECES)}
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    _write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "added_tokens_decoder": {str(i): {"content": s, **plain, "special": s in SPECIALS} for s, i in ids.items()},
            "additional_special_tokens": list(SPECIALS[1:]),
            **{"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None},
            **{"add_prefix_space": False, "clean_up_tokenization_spaces": False, "errors": "replace"},
            **{"model_max_length": 8192, "chat_template": TEMPLATE},
        },
    )
    return ids


def _model_config(ids: dict[str, int]) -> dict:
    """The architecture. Qwen's large rope_theta lets like attend to like wherever they lie, which is how to compare."""
    text = {
        "model_type": "qwen3_vl_text",
        **{"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 256, "hidden_act": "silu"},
        **{"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32, "attention_bias": False},
        **{"attention_dropout": 0.0, "rms_norm_eps": 1e-6, "initializer_range": 0.05, "vocab_size": VOCABULARY},
        "rope_theta": 5_000_000,
        "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [6, 5, 5]},
        **{"max_position_embeddings": 8192, "tie_word_embeddings": True, "use_cache": True, "dtype": "bfloat16"},
        **{"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]},
    }
    vision = {
        "model_type": "qwen3_vl",
        **{"hidden_size": 96, "depth": 2, "num_heads": 3, "intermediate_size": 256, "out_hidden_size": 128},
        **{"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3},
        **{"num_position_embeddings": 64, "deepstack_visual_indexes": [0], "initializer_range": 0.05},
        "hidden_act": "gelu_pytorch_tanh",
    }
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": True,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
