# SPDX-License-Identifier: Apache-2.0
"""Train the embedded tiny model on synthetic pairs on one core; the same bits from the same seed.

    OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=8589934592 \\
        nice python -m vlm.embedded.train vlm/embedded/model

The two MALLOC settings keep glibc from returning large tensors to the system and fetching them again.

Two stages. First the model looks: throw-away heads learn from it which cells of a picture are spoiled, where a token
lies, and the first box, without an answer. Then it also answers, first about one defect, then about several. To learn
to answer at once spoils the features: all tokens become alike, and none finds its place in the other picture.
Three things help a token find it: sines in the position table, a head that asks for them (what looks like its place in
the other picture and knows the same place), and queries that start as keys, so that like attends to like.
The modules are transformers' own. Only while training, pictures of one size share one attention call.
"""

import argparse
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from ..prompts import KINDS, defect_prompt
from .directory import GRIDS, SHORT_PROMPTS, TOKEN, answer_text, write_directory
from .evened import Evened
from .pictures import Box, Pair, PairMaker

CELL = 8
"""Side in pixels of the cells whose cover the helper heads predict: 4 x 4 of them in a picture token."""
PATCH = 16
CLASSES = 1 + len(KINDS)
PLACE = 32
"""Channels in which a helper head says where a token lies."""
MIDDLE = 2
"""Layers of the language model after which a token must know what differs; the others read it."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast."""

    look: int = 900
    """Steps without answers."""
    answer: int = 3000
    """Steps with answers."""
    single: float = 0.55
    """Share of these with one defect at most, and only the question that phase 2 asks."""
    batch: int = 32
    even_rate: float = 0.02
    """Learning rate of the layers' matrices, by `Evened`."""
    rate: float = 2e-3
    """Learning rate of everything else, by AdamW."""
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


def ordered(pair: Pair) -> list[tuple[tuple[int, int, int, int], str]]:
    """The boxes of a pair in 0-1000 with their kinds, from left to right, the order of answers.

    In steps of 10, a pixel of the pictures: what is finer could only be learnt by heart.
    """
    height, width = pair.photo.shape[:2]
    side = np.array([width, height, width, height])
    boxes = [tuple(int(v) for v in 10 * np.rint(100 * np.array(box) / side)) for box in pair.boxes]
    return sorted(zip(boxes, pair.kinds, strict=True), key=lambda found: found[0])


def collate(pairs: list[Pair]) -> Batch:
    """Tensors and targets of pairs of one size."""
    height, width = pairs[0].photo.shape[:2]
    cells = np.zeros((len(pairs), len(KINDS), height // CELL, width // CELL), np.float32)
    first = np.zeros((len(pairs), 4), np.float32)
    answers = []
    for i, pair in enumerate(pairs):
        for kind, mask in zip(pair.kinds, pair.masks, strict=True):
            share = cv2.resize(mask.astype(np.float32), cells.shape[:1:-1], interpolation=cv2.INTER_AREA)
            np.maximum(share, cells[i, KINDS.index(kind)], out=cells[i, KINDS.index(kind)])
        found = ordered(pair)
        answers.append(answer_text([box for box, _ in found], [kind for _, kind in found]))
        if found:
            first[i] = np.array(found[0][0]) / 1000
    kinds = torch.from_numpy(cells)
    rows, columns = height // TOKEN, width // TOKEN
    per = TOKEN // CELL
    cover = kinds.amax(1).view(-1, rows, per, columns, per).permute(0, 1, 3, 2, 4)
    cover = cover.reshape(len(pairs), rows * columns, per**2)
    share, kind = functional.avg_pool2d(kinds, per).flatten(2).max(1)
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


def mirrored(pair: Pair) -> list[Pair]:
    """The pair as it is, mirrored either way, and by half a turn: four examples for the price of one."""
    return [pair, _flipped(pair, True, False), _flipped(pair, False, True), _flipped(pair, True, True)]


def _flipped(pair: Pair, across: bool, down: bool) -> Pair:
    height, width = pair.photo.shape[:2]
    where = np.s_[:: -1 if down else 1, :: -1 if across else 1]

    def moved(box: Box) -> Box:
        x0, y0, x1, y1 = box
        x0, x1 = (width - x1, width - x0) if across else (x0, x1)
        y0, y1 = (height - y1, height - y0) if down else (y0, y1)
        return x0, y0, x1, y1

    masks = tuple(np.ascontiguousarray(mask[where]) for mask in pair.masks)
    return Pair(pair.render[where], pair.photo[where], tuple(moved(box) for box in pair.boxes), pair.kinds, masks)


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
    """Mostly what phase 2 asks, else other questions or random words."""
    if r.random() < 0.6:
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
        self.place = nn.Linear(hidden, PLACE)
        self.box = nn.Linear(hidden, 4)
        table = self.model.model.visual.pos_embed.weight
        with torch.no_grad():
            table.copy_(sines(math.isqrt(len(table)), table.shape[1]))
            for layer in self.model.model.language_model.layers:
                layer.self_attn.q_proj.weight.copy_(layer.self_attn.k_proj.weight)

    def seen(self, batch: Batch) -> BaseModelOutputWithDeepstackFeatures:
        """The vision tower's features of render and photo of each pair, in this order."""
        pixels = patches(torch.stack([batch.renders, batch.photos], 1).flatten(0, 1))
        return self.model.model.get_image_features(pixels, _grid(batch), return_dict=True)

    def losses(self, batch: Batch, texts: Texts, prompt: str, leading: float = 0.0) -> dict[str, Tensor]:
        """Losses of the helpers and, with a weight `leading` of leading digits, of the answers."""
        tokens = batch.classes.shape[1]
        ids, asked = texts.batch(prompt, tokens, batch.answers)
        if not leading:
            ids = ids[:, :asked]
        kinds = (ids[:1] == texts.picture).int()
        grid = _grid(batch)
        positions, _ = self.model.model.get_rope_index(ids[:1], mm_token_type_ids=kinds, image_grid_thw=grid[:2])
        seen = self.seen(batch)
        told = self.model.model(
            input_ids=ids,
            mm_encoder_outputs={"image": seen},
            position_ids=positions.expand(-1, len(ids), -1),
            use_cache=False,
            output_hidden_states=True,
        )
        hidden, middle = told.last_hidden_state, told.hidden_states[MIDDLE]
        second = kinds[0].nonzero().squeeze(1)[tokens:]
        losses = {
            **self.looking(seen, batch),
            "compare": cells_loss(self.compare(middle[:, second]), batch),
            "box": box_loss(self.box(hidden[:, asked - 1]).sigmoid(), batch),
        }
        if leading:
            logits = self.model.lm_head(hidden[:, asked - 1 : -1])
            losses["language"] = answer_loss(logits, ids[:, asked:], texts, leading)
        return losses

    def looking(self, seen: BaseModelOutputWithDeepstackFeatures, batch: Batch) -> dict[str, Tensor]:
        """Losses of what the vision tower's features tell: the spoiled cells, from both pictures, and the place."""
        last, *earlier = (torch.stack(f).unflatten(0, (-1, 2)) for f in (seen.pooler_output, *seen.deepstack_features))
        cells = sum(self.look(f.transpose(1, 2).flatten(2)) for f in (last, *earlier))
        place = functional.mse_loss(self.place(last), places(batch).expand(*last.shape[:3], -1))
        return {"look": cells_loss(cells, batch), "place": 10 * place}


def sines(side: int, channels: int, size: float = 0.3) -> Tensor:
    """A table [side^2, channels] that tells rows and columns apart from the start."""
    t = (torch.arange(side) + 0.5) * math.pi / side
    k = torch.arange(1, channels // 4 + 1) / 2
    wave = torch.cat([torch.sin(t[:, None] * k), torch.cos(t[:, None] * k)], 1)
    rows, columns = wave[:, None].expand(side, side, -1), wave[None].expand(side, side, -1)
    return size * torch.cat([rows, columns], 2).flatten(0, 1)


def places(batch: Batch) -> Tensor:
    """Where the tokens of a picture lie, as sines [tokens, PLACE]."""
    height, width = batch.renders.shape[2:]
    table = sines(8, PLACE).view(8, 8, PLACE).permute(2, 0, 1)[None]
    size = height // TOKEN, width // TOKEN
    return functional.interpolate(table, size=size, mode="bilinear", align_corners=True)[0].flatten(1).T


def cells_loss(prediction: Tensor, batch: Batch) -> Tensor:
    """Cover of the cells and class of the tokens [B, tokens, CLASSES + 16]; unsure tokens have no class."""
    cover = functional.binary_cross_entropy_with_logits(prediction[..., CLASSES:], batch.cover)
    classes = functional.cross_entropy(
        prediction[..., :CLASSES].flatten(0, 1), batch.classes.flatten(), reduction="none"
    )
    return cover + (classes * batch.sure.flatten()).mean()


def box_loss(prediction: Tensor, batch: Batch) -> Tensor:
    """Distance of first boxes [B, 4] from the true ones, where there are any."""
    far = functional.smooth_l1_loss(prediction, batch.first, reduction="none", beta=0.05)
    there = (batch.first.sum(1) > 0).float()
    return 5 * (far.mean(1) * there).mean()


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
    """A training in progress: data, optimisers, and the running means that are printed."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        write_directory(directory)
        self.directory, self.plan = directory, plan
        self.texts = Texts(directory)
        self.trainee = Trainee(directory, plan.seed).train()
        self.maker = PairMaker(plan.seed + 1, plan.pool)
        self.random = random.Random(plan.seed + 2)
        model = self.trainee.model.model
        layers = (*model.language_model.layers.parameters(), *model.visual.blocks.parameters())
        self.even = Evened([p for p in layers if p.ndim == 2])
        evened = {id(p) for p in self.even.param_groups[0]["params"]}
        others = [p for p in self.trainee.parameters() if id(p) not in evened]
        self.others = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)
        self.average: dict[str, float] = {}

    def batch(self, most: int, again: bool = False) -> Batch:
        """Pairs of one size with `most` defects, a few without; `again`: as if they had been brought to this size."""
        rows, columns = self.random.choice(GRIDS)
        pairs = []
        for _ in range(self.plan.batch // 4):
            pair = self.maker.pair(rows * TOKEN, columns * TOKEN, most * (self.random.random() > 0.15))
            pairs += mirrored(resampled(pair, self.maker.rng) if again else pair)
        return collate(pairs)

    def step(self, losses: dict[str, Tensor], share: float, helpers: float = 1.0) -> None:
        """One step at a share of the learning rates; all losses but the language's count `helpers` times."""
        sum(loss * (1.0 if name == "language" else helpers) for name, loss in losses.items()).backward()
        nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        for optimizer, rate in ((self.even, self.plan.even_rate), (self.others, self.plan.rate)):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for name, loss in losses.items():
            self.average[name] = 0.98 * self.average.get(name, loss.item()) + 0.02 * loss.item()

    def stage(self, name: str, steps: int) -> Iterator[tuple[float, float]]:
        """Share done and share of the learning rates of each step; says how it goes, keeps the weights."""
        self.average = {}
        for step in range(steps):
            done = step / steps
            yield done, min(1.0, (step + 1) / 100, 1.02 - done)
            if step % 50 == 0 or step == steps - 1:
                parts = "  ".join(f"{key} {value:.4f}" for key, value in self.average.items())
                print(f"{name} {step}  {parts}  {time.process_time():.0f} s of one core", flush=True)
        save_weights(self.trainee.model, self.directory)


def train(directory: Path, plan: Plan) -> None:
    """Write a trained model directory."""
    course = Course(directory, plan)
    trainee, texts, r = course.trainee, course.texts, course.random
    with one_attention_call():
        for _, share in course.stage("look", plan.look):
            course.step(trainee.losses(course.batch(1), texts, ""), share)
        for done, share in course.stage("answer", plan.answer):
            if done < plan.single:
                losses = trainee.losses(course.batch(1), texts, defect_prompt(r.randint(1, 6)), leading=4.0)
                course.step(losses, share)
            else:
                batch = course.batch(r.choice((1, 1, 2, 2, 3)), again=r.random() < 0.4)
                course.step(trainee.losses(batch, texts, prompt_for(r), leading=2.0), share, helpers=0.3)


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
