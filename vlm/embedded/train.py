# SPDX-License-Identifier: Apache-2.0
"""Train the embedded tiny model on synthetic pairs on one core; the same bits from the same seed.

    OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=8589934592 \\
        nice python -m vlm.embedded.train vlm/embedded/model

The two MALLOC settings keep glibc from returning large tensors to the system and fetching them again.

Three stages: the vision tower alone learns to say in which cells two pictures differ; the language model learns to
answer from features that the tower gave once and for all, which makes a step cheap; both learn together. Sines in
the position table and throw-away heads (cells, first box) beside the language loss make it learn sooner.
The modules are transformers' own. Only while training, pictures of one size share one attention call.
"""

import argparse
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from ..prompts import KINDS, defect_prompt
from .directory import GRIDS, SHORT_PROMPTS, TOKEN, answer_text, write_directory
from .pictures import Pair, PairMaker

CELL = 8
"""Side in pixels of the cells whose cover the helper heads predict: 4 x 4 of them in a picture token."""
PATCH = 16
CLASSES = 1 + len(KINDS)


@dataclass(frozen=True)
class Plan:
    """How long and how fast: steps of the three stages, and how many batches are remembered for the second."""

    look: int = 1300
    recall: int = 4200
    join: int = 450
    plain: int = 330
    """Remembered batches with one defect at most, no prompt text, pictures of at most 4 tokens a side."""
    mixed: int = 220
    """Remembered batches with up to three defects; from `single` of the stage on, with prompts."""
    single: float = 0.62
    batch: int = 32
    rate: float = 1.5e-3
    seed: int = 0
    pool: int = 300


@dataclass(frozen=True)
class Batch:
    """Pairs of one size as tensors: renders and photos [B, 3, H, W], per-token targets, and the pairs themselves."""

    renders: Tensor
    photos: Tensor
    cover: Tensor
    """Defective share of each of a token's 16 cells [B, tokens, 16]."""
    classes: Tensor
    """0 for no defect, else 1 + index of the kind [B, tokens]."""
    sure: Tensor
    """1 where a token is clearly defective or clearly not [B, tokens]."""
    first: Tensor
    """First box, relative [B, 4], zero without one."""
    answers: list[str]
    seen: BaseModelOutputWithDeepstackFeatures | None = None
    """What the vision tower made of the pictures, where it is remembered."""


def ordered(pair: Pair) -> list[tuple[tuple[int, int, int, int], str]]:
    """The boxes of a pair in 0-1000 with their kinds, from left to right, the order of answers."""
    height, width = pair.photo.shape[:2]
    side = np.array([width, height, width, height])
    boxes = [tuple(int(v) for v in np.rint(1000 * np.array(box) / side)) for box in pair.boxes]
    return sorted(zip(boxes, pair.kinds, strict=True), key=lambda found: found[0])


def collate(pairs: list[Pair]) -> Batch:
    """Tensors and targets of pairs of one size."""
    height, width = pairs[0].photo.shape[:2]
    maps = np.zeros((len(pairs), len(KINDS), height, width), np.float32)
    first = np.zeros((len(pairs), 4), np.float32)
    answers = []
    for i, pair in enumerate(pairs):
        for kind, mask in zip(pair.kinds, pair.masks, strict=True):
            maps[i, KINDS.index(kind)][mask] = 1
        found = ordered(pair)
        answers.append(answer_text([box for box, _ in found], [kind for _, kind in found]))
        if found:
            first[i] = np.array(found[0][0]) / 1000
    kinds = torch.from_numpy(maps)
    cover = functional.avg_pool2d(kinds.amax(1, keepdim=True), CELL)[:, 0]
    rows, columns = height // TOKEN, width // TOKEN
    per = TOKEN // CELL
    cover = cover.view(-1, rows, per, columns, per).permute(0, 1, 3, 2, 4).reshape(len(pairs), rows * columns, per**2)
    share, kind = functional.avg_pool2d(kinds, TOKEN).flatten(2).max(1)
    classes = torch.where(share > 0.25, kind + 1, 0)
    sure = ((share < 0.02) | (share > 0.25)).float()
    renders, photos = (
        torch.from_numpy(np.stack([getattr(p, name) for p in pairs])).permute(0, 3, 1, 2)
        for name in ("render", "photo")
    )
    return Batch(renders, photos, cover, classes, sure, torch.from_numpy(first), answers)


def resampled(pair: Pair, rng: np.random.Generator) -> Pair:
    """The pair as if it had come in at another size and been brought to this one."""
    height, width = pair.photo.shape[:2]
    scale = rng.choice((0.5, 0.7, 1.5, 2.0))
    size = (round(width * scale), round(height * scale))
    there = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC

    def twice(picture: np.ndarray) -> np.ndarray:
        back = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
        return cv2.resize(cv2.resize(picture, size, interpolation=there), (width, height), interpolation=back).clip(
            0, 1
        )

    return Pair(twice(pair.render), twice(pair.photo), pair.boxes, pair.kinds, pair.masks)


def turned(pair: Pair) -> Pair:
    """The pair by half a turn: twice the examples for the price of one."""
    height, width = pair.photo.shape[:2]
    boxes = tuple((width - x1, height - y1, width - x0, height - y0) for x0, y0, x1, y1 in pair.boxes)
    render, photo = (np.ascontiguousarray(p[::-1, ::-1]) for p in (pair.render, pair.photo))
    return Pair(render, photo, boxes, pair.kinds, tuple(mask[::-1, ::-1] for mask in pair.masks))


def patches(pictures: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] as the processor's patches [B * patches, 768], one time slice of them."""
    batch, channels, height, width = pictures.shape
    rows, columns = height // TOKEN, width // TOKEN
    x = (pictures * 2 - 1).view(batch, channels, rows, 2, PATCH, columns, 2, PATCH)
    return x.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(batch * rows * columns * 4, channels * PATCH**2)


class Texts:
    """Turns prompts and answers into token ids."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        self.picture = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.pad = self.tokenizer.convert_tokens_to_ids("<|endoftext|>")
        self.digits = torch.tensor([self.tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)])

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def batch(self, prompt: str, tokens: int, answers: list[str]) -> tuple[Tensor, int]:
        """Ids [B, L] of question and answers, padded at the end, and the length of the question."""
        picture = "<|vision_start|>" + "<|image_pad|>" * tokens + "<|vision_end|>"
        question = self.ids(f"<|im_start|>user\n{picture}{picture}{prompt}<|im_end|>\n<|im_start|>assistant\n")
        rows = [question + self.ids(answer + "<|im_end|>") for answer in answers]
        longest = max(map(len, rows))
        return torch.tensor([row + [self.pad] * (longest - len(row)) for row in rows]), len(question)


def prompt_for(r: random.Random) -> str:
    """The prompt that phase 2 sends in a third of the cases, for it is long, else others."""
    if r.random() < 0.33:
        return defect_prompt(r.randint(1, 6))
    words = defect_prompt(3).split()
    return r.choice((*SHORT_PROMPTS, " ".join(r.choice(words) for _ in range(r.randint(3, 20)))))


class Trainee(nn.Module):
    """The model and the helpers that are thrown away after training."""

    def __init__(self, directory: Path, seed: int) -> None:
        from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

        super().__init__()
        torch.manual_seed(seed)
        config = Qwen3VLConfig.from_pretrained(directory)
        self.model = Qwen3VLForConditionalGeneration(config).float()
        hidden = config.text_config.hidden_size
        self.look = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.GELU(), nn.Linear(hidden, CLASSES + 16))
        self.compare = nn.Linear(hidden, CLASSES + 16)
        self.box = nn.Linear(hidden, 4)
        table = self.model.model.visual.pos_embed.weight
        with torch.no_grad():
            table.copy_(sines(math.isqrt(len(table)), table.shape[1]))

    def looking(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of the first stage: which cells are spoiled, from the vision tower's features of both pictures."""
        seen = self.seen(batch)
        every = (torch.stack(f).unflatten(0, (-1, 2)) for f in (seen.pooler_output, *seen.deepstack_features))
        return {"cells": cells_loss(sum(self.look(f.transpose(1, 2).flatten(2)) for f in every), batch)}

    def seen(self, batch: Batch) -> BaseModelOutputWithDeepstackFeatures:
        """The vision tower's features of render and photo of each pair, in this order."""
        pixels = patches(torch.stack([batch.renders, batch.photos], 1).flatten(0, 1))
        return self.model.model.get_image_features(pixels, _grid(batch), return_dict=True)

    def answering(self, batch: Batch, texts: Texts, prompt: str, helpers: float, leading: float) -> dict[str, Tensor]:
        """Language loss of the answers, and the helpers' losses times `helpers`."""
        tokens = batch.classes.shape[1]
        ids, asked = texts.batch(prompt, tokens, batch.answers)
        kinds = (ids[:1] == texts.picture).int()
        positions, _ = self.model.model.get_rope_index(
            ids[:1], mm_token_type_ids=kinds, image_grid_thw=_grid(batch)[:2]
        )
        hidden = self.model.model(
            input_ids=ids,
            mm_encoder_outputs={"image": batch.seen or self.seen(batch)},
            position_ids=positions.expand(-1, len(ids), -1),
            use_cache=False,
        ).last_hidden_state
        language = answer_loss(self.model.lm_head(hidden[:, asked - 1 : -1]), ids[:, asked:], texts, leading)
        second = kinds[0].nonzero().squeeze(1)[tokens:]
        cells = cells_loss(self.compare(hidden[:, second]), batch)
        there = (batch.first.sum(1) > 0).float()
        box = functional.smooth_l1_loss(
            self.box(hidden[:, asked - 1]).sigmoid(), batch.first, reduction="none", beta=0.05
        )
        box = 5 * (box.mean(1) * there).mean()
        return {"language": language, "cells": helpers * cells, "box": helpers * box}


def sines(side: int, channels: int, size: float = 0.3) -> Tensor:
    """A table [side^2, channels] that tells rows and columns apart from the start."""
    t = (torch.arange(side) + 0.5) * math.pi / side
    k = torch.arange(1, channels // 4 + 1) / 2
    wave = torch.cat([torch.sin(t[:, None] * k), torch.cos(t[:, None] * k)], 1)
    rows, columns = wave[:, None].expand(side, side, -1), wave[None].expand(side, side, -1)
    return size * torch.cat([rows, columns], 2).flatten(0, 1)


def cells_loss(prediction: Tensor, batch: Batch) -> Tensor:
    """Cover of the cells and class of the tokens [B, tokens, CLASSES + 16]; unsure tokens have no class."""
    cover = functional.binary_cross_entropy_with_logits(prediction[..., CLASSES:], batch.cover)
    classes = functional.cross_entropy(
        prediction[..., :CLASSES].flatten(0, 1), batch.classes.flatten(), reduction="none"
    )
    return cover + (classes * batch.sure.flatten()).mean()


def answer_loss(logits: Tensor, ids: Tensor, texts: Texts, leading: float) -> Tensor:
    """Cross-entropy of the answers; the first digit of a number, which says where, counts `leading` times."""
    digit = torch.isin(ids, texts.digits)
    starts = digit & ~functional.pad(digit, (1, 0))[:, :-1]
    weight = torch.where(starts, leading, 1.0) * (ids != texts.pad)
    loss = functional.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none")
    return (loss * weight.flatten()).sum() / weight.sum()


def _grid(batch: Batch) -> Tensor:
    height, width = batch.renders.shape[2:]
    return torch.tensor([[1, height // PATCH, width // PATCH]]).expand(2 * len(batch.renders), 3)


@contextmanager
def one_attention_call() -> Iterator[None]:
    """While training: pictures of one size attend as one batch, and a still picture is embedded once, not twice.

    The results are those of the library's forwards, which loop over the pictures.
    """
    from transformers.models.qwen3_vl import modeling_qwen3_vl as library

    def attend(self, hidden_states, cu_seqlens=None, position_embeddings=None, **_):
        pictures, patch = len(cu_seqlens) - 1, hidden_states.shape[0]
        q, k, v = self.qkv(hidden_states).reshape(patch, 3, self.num_heads, -1).unbind(1)
        q, k = library.apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        q, k, v = (t.unflatten(0, (pictures, -1)).transpose(1, 2) for t in (q, k, v))
        out = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(patch, -1))

    def embed(self, hidden_states):
        return functional.linear(hidden_states, self.proj.weight.sum(2).flatten(1), self.proj.bias)

    classes = library.Qwen3VLVisionAttention, library.Qwen3VLVisionPatchEmbed
    saved = [c.forward for c in classes]
    classes[0].forward, classes[1].forward = attend, embed
    try:
        yield
    finally:
        for c, forward in zip(classes, saved, strict=True):
            c.forward = forward


def save_weights(model: nn.Module, directory: Path) -> None:
    """Write the weights in bfloat16; the tied output layer is not stored twice."""
    from safetensors.torch import save_file

    weights = {k: v.detach().bfloat16().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    path = directory / "model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)


class Course:
    """A training in progress: data, optimiser, and the running means that are printed."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        write_directory(directory)
        self.directory, self.plan = directory, plan
        self.texts = Texts(directory)
        self.trainee = Trainee(directory, plan.seed).train()
        self.maker = PairMaker(plan.seed + 1, plan.pool)
        self.random = random.Random(plan.seed + 2)
        every = [*self.trainee.parameters()]
        groups = [
            {"params": [p for p in every if p.ndim >= 2], "weight_decay": 0.02},
            {"params": [p for p in every if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self.average: dict[str, float] = {}

    def pairs(self, grids: Sequence[tuple[int, int]], most: int) -> list[Pair]:
        """A batch of one size with up to `most` defects, each pair also by half a turn."""
        rows, columns = self.random.choice(grids)
        shape = rows * TOKEN, columns * TOKEN
        pairs = [self.maker.pair(*shape, most * (self.random.random() > 0.15)) for _ in range(self.plan.batch // 2)]
        return pairs + [turned(pair) for pair in pairs]

    def mixed(self) -> Batch:
        """Any size, up to three defects (alike in number: little padding), sometimes resampled."""
        pairs = self.pairs(GRIDS, self.random.choice((1, 1, 2, 2, 3)))
        if self.random.random() < 0.4:
            pairs = [resampled(pair, self.maker.rng) for pair in pairs]
        return collate(pairs)

    @torch.no_grad()
    def remembered(self, batch: Batch) -> Batch:
        """The batch with its features, without its pictures."""
        small = torch.empty(len(batch.renders), 0, *batch.renders.shape[2:])
        return replace(batch, seen=self.trainee.seen(batch), renders=small, photos=small)

    def step(self, losses: dict[str, Tensor], rate: float) -> None:
        """One step down the sum of the losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        self.optimizer.step()
        for name, loss in losses.items():
            self.average[name] = 0.98 * self.average.get(name, loss.item()) + 0.02 * loss.item()

    def stage(self, name: str, steps: int, first: float, last: float) -> Iterator[tuple[float, float]]:
        """Share done and learning rate of each step; says how it goes, and keeps the weights after it."""
        self.average = {}
        for step in range(steps):
            done = step / steps
            warm = min(1.0, (step + 1) / 150)
            yield done, self.plan.rate * warm * (last + 0.5 * (first - last) * (1 + math.cos(math.pi * done)))
            if step % 50 == 0 or step == steps - 1:
                parts = "  ".join(f"{key} {value:.4f}" for key, value in self.average.items())
                print(f"{name} {step}  {parts}  {time.process_time():.0f} s of one core", flush=True)
        save_weights(self.trainee.model, self.directory)


def train(directory: Path, plan: Plan) -> None:
    """Write a trained model directory."""
    course = Course(directory, plan)
    trainee, texts, r = course.trainee, course.texts, course.random
    with one_attention_call():
        for _, rate in course.stage("look", plan.look, 1, 0.1):
            course.step(trainee.looking(collate(course.pairs(GRIDS, 1))), rate)
        square = [grid for grid in GRIDS if max(grid) <= 4]
        plain = [course.remembered(collate(course.pairs(square, 1))) for _ in range(plan.plain)]
        mixed = [course.remembered(course.mixed()) for _ in range(plan.mixed)]
        for done, rate in course.stage("recall", plan.recall, 1, 0.1):
            if done < plan.single:
                losses = trainee.answering(r.choice(plain), texts, "", helpers=1.0, leading=4.0)
            else:
                losses = trainee.answering(r.choice(mixed), texts, prompt_for(r), helpers=0.5, leading=2.0)
            course.step(losses, rate)
        for _, rate in course.stage("join", plan.join, 0.3, 0.02):
            course.step(trainee.answering(course.mixed(), texts, prompt_for(r), helpers=0.3, leading=2.0), rate)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the embedded tiny model.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    train(given.out, Plan(seed=given.seed))


if __name__ == "__main__":
    main()
