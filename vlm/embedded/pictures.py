# SPDX-License-Identifier: Apache-2.0
"""Synthetic render/photo pairs with known defects.

Photos are "dead leaves": opaque textured shapes of all sizes over one another, which have the edges and the
spectrum of photographs. A render is its photo, slightly soft, shifted and off in colour as splat renderings are,
with up to three defects such as 3D Gaussian Splatting makes. Pictures are float32 [H, W, 3] in [0, 1]; boxes are
(x0, y0, x1, y1) in pixels, right and bottom exclusive.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from ..prompts import KINDS

Box = tuple[int, int, int, int]
POOL_SIDE = 288
SHARES = (0.32, 0.2, 0.16, 0.2, 0.12)
"""How often each of `KINDS` is tried: blur most, because it often does not show and is then left out."""


@dataclass(frozen=True)
class Pair:
    """A rendering [H, W, 3], its photo [H, W, 3], and the defects as boxes, kinds and masks [H, W] in {0, 1}."""

    render: np.ndarray
    photo: np.ndarray
    boxes: tuple[Box, ...]
    kinds: tuple[str, ...]
    masks: tuple[np.ndarray, ...]


def power_noise(rng: np.random.Generator, height: int, width: int, exponent: float) -> np.ndarray:
    """Noise [H, W] with an amplitude spectrum of 1 / f^exponent, mean 0, deviation 1."""
    f = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    amplitude = 1 / np.maximum(f, 1) ** exponent
    amplitude[0, 0] = 0
    phase = rng.uniform(0, 2 * np.pi, amplitude.shape)
    noise = np.fft.irfft2(amplitude * np.exp(1j * phase), (height, width))
    return (noise / noise.std()).astype(np.float32)


def dead_leaves(rng: np.random.Generator, side: int = POOL_SIDE, leaves: int = 160) -> np.ndarray:
    """An invented photo, uint8 [side, side, 3]."""
    bank = [power_noise(rng, side, side, e) for e in rng.uniform(0.3, 1.8, 4)]
    grey, tint = rng.uniform(0, 1, (8, 1)), rng.uniform(-1, 1, (8, 3)) * rng.uniform(0.05, 0.45)
    palette = (grey + tint).clip(0, 1)
    picture = np.zeros((side, side, 3), np.float32)
    everything = np.ones((side, side), np.float32)
    _paint(rng, picture, everything, 0, 0, palette, bank)
    for radius in np.sort(side / rng.uniform(1 / 0.4, 1 / 0.012, leaves))[::-1]:
        mask, x, y = _leaf(rng, float(radius), side)
        _paint(rng, picture, mask, x, y, palette, bank)
    picture *= (1 + 0.15 * power_noise(rng, side, side, 2.5))[..., None]
    return (picture.clip(0, 1) * 255).astype(np.uint8)


def _leaf(rng: np.random.Generator, radius: float, side: int) -> tuple[np.ndarray, int, int]:
    """An ellipse or a polygon as a mask of its own size, and where it lies (left, top; may be outside)."""
    reach = int(radius * 1.3) + 2
    mask = np.zeros((2 * reach, 2 * reach), np.uint8)
    if rng.random() < 0.5:
        axes = (int(radius) + 1, int(radius * rng.uniform(0.2, 1)) + 1)
        cv2.ellipse(mask, (reach, reach), axes, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
        corners = reach + radius * np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(0.4, 1.2, 2)
        cv2.fillPoly(mask, [corners.astype(np.int32)], 255, cv2.LINE_AA)
    x, y = rng.integers(-reach, side - reach, 2)
    return mask.astype(np.float32) / 255, int(x), int(y)


def _paint(
    rng: np.random.Generator, picture: np.ndarray, mask: np.ndarray, x: int, y: int, palette: np.ndarray, bank: list
) -> None:
    """Lay a leaf with a colour, a texture and some shading over the picture, in place."""
    side = len(picture)
    top, left = max(0, -y), max(0, -x)
    mask = mask[top : side - y, left : side - x]
    height, width = mask.shape
    if not (height and width):
        return
    where = np.s_[y + top : y + top + height, x + left : x + left + width]
    v, u = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
    texture = bank[rng.integers(len(bank))][v : v + height, u : u + width]
    slope = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(rng.normal(0, 0.06))
    colour = (palette[rng.integers(len(palette))] + rng.normal(0, 0.04, 3)).astype(np.float32)
    strength = np.float32(rng.choice((0.02, 0.08, 0.16)) * rng.random())
    leaf = colour + (texture * strength + slope)[..., None] * rng.uniform(0.7, 1, 3).astype(np.float32)
    picture[where] += mask[..., None] * (leaf - picture[where])


class PairMaker:
    """Draws pairs from a pool of invented photos; a given seed gives the same pairs in the same order."""

    def __init__(self, seed: int, pool: int = 600) -> None:
        self.rng = np.random.default_rng(seed)
        self.pool = [dead_leaves(self.rng) for _ in range(pool)]

    def photo(self, height: int, width: int) -> np.ndarray:
        """A crop of an invented photo: mirrored, turned, at some scale, its colours changed."""
        rng = self.rng
        scale = rng.uniform(0.7, 1.4)
        h, w = (min(POOL_SIDE, round(v * scale)) for v in (height, width))
        y, x = rng.integers(0, POOL_SIDE - h + 1), rng.integers(0, POOL_SIDE - w + 1)
        crop = self.pool[rng.integers(len(self.pool))][y : y + h, x : x + w, rng.permutation(3)]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if rng.random() < 0.5:
            crop = crop[::-1]
        crop = cv2.resize(np.ascontiguousarray(crop), (width, height), interpolation=cv2.INTER_AREA)
        photo = crop.astype(np.float32) / 255
        if rng.random() < 0.2:
            photo = np.repeat(photo.mean(2, keepdims=True), 3, 2)
        return ((photo - 0.5) * np.float32(rng.uniform(0.5, 1.2)) + np.float32(rng.uniform(0.3, 0.7))).clip(0, 1)

    def pair(self, height: int, width: int, defects: int | None = None) -> Pair:
        """A pair of a size with so many defects; by default 0 to 3 of them, mostly one or two."""
        photo = self.photo(height, width)
        return self.spoil(photo, int(self.rng.choice(4, p=(0.15, 0.45, 0.3, 0.1))) if defects is None else defects)

    def spoil(self, photo: np.ndarray, defects: int, kind: str | None = None) -> Pair:
        """A rendering of a photo [H, W, 3] with so many defects, of one kind if given.

        A defect that would hardly show, such as blur on a plain wall, is drawn anew a few times and then left out.
        """
        render = imperfect(self.rng, photo)
        rest = float(np.abs(render - photo).mean())
        found: list[tuple[Box, str, np.ndarray]] = []
        for _ in range(defects):
            name = kind or KINDS[self.rng.choice(len(KINDS), p=SHARES)]
            for _ in range(6):
                mask, box = blob(self.rng, *photo.shape[:2])
                if any(_overlap(box, other) for other, _, _ in found):
                    continue
                spoiled = _spoiled(self.rng, name, render, mask, box)
                hard = mask > 0.5
                if float(np.abs(spoiled - photo)[hard].mean()) > max(0.035, 1.8 * rest):
                    render = spoiled
                    found.append((box, name, hard))
                    break
        boxes, kinds, masks = zip(*found, strict=True) if found else ((), (), ())
        return Pair(_quantised(render), _quantised(photo), boxes, kinds, masks)


def imperfect(rng: np.random.Generator, photo: np.ndarray) -> np.ndarray:
    """What a good splat rendering does to a photo: a little soft, shifted, and off in brightness and colour."""
    height, width = photo.shape[:2]
    render = photo
    if rng.random() < 0.8:
        render = cv2.GaussianBlur(render, (0, 0), rng.uniform(0.3, 1.1))
    shift = np.float32([[1, 0, rng.normal(0, 0.3)], [0, 1, rng.normal(0, 0.3)]])
    render = cv2.warpAffine(render, shift, (width, height), borderMode=cv2.BORDER_REFLECT)
    drift = cv2.resize(
        rng.normal(0, 0.02, (3, 3, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return (render * np.float32(rng.uniform(0.95, 1.05)) + drift * np.float32(rng.random())).clip(0, 1)


def blob(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, Box]:
    """A soft mask [H, W] of a rectangle, an ellipse or a lump, and the box round its inside (mask > 1/2)."""
    w, h = round(rng.uniform(0.17, 0.55) * width), round(rng.uniform(0.17, 0.55) * height)
    x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
    mask = np.zeros((height, width), np.float32)
    shape = rng.random()
    if shape < 0.3:
        mask[y : y + h, x : x + w] = 1
    elif shape < 0.65:
        cv2.ellipse(mask, (int(x + w / 2), int(y + h / 2)), (max(2, w // 2), max(2, h // 2)), 0, 0, 360, 1, -1)
    else:
        lump = power_noise(rng, max(h, 4), max(w, 4), 2.0)
        v, u = np.mgrid[-1 : 1 : max(h, 4) * 1j, -1 : 1 : max(w, 4) * 1j]
        part = (lump * 0.25 + 1.05 - np.hypot(u, v) > 0.1).astype(np.float32)[:h, :w]
        mask[y : y + part.shape[0], x : x + part.shape[1]] = part
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.4, 2.0))
    ys, xs = np.nonzero(mask > 0.5)
    if not len(ys):
        return blob(rng, height, width)
    return mask, (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)


def _spoiled(rng: np.random.Generator, name: str, render: np.ndarray, mask: np.ndarray, box: Box) -> np.ndarray:
    """The render with one more defect; only its neighbourhood is worked on."""
    margin = 14
    x0, y0 = max(0, box[0] - margin), max(0, box[1] - margin)
    where = np.s_[y0 : box[3] + margin, x0 : box[2] + margin]
    inner = (box[0] - x0, box[1] - y0, box[2] - x0, box[3] - y0)
    spoiled = render.copy()
    spoiled[where] = DEFECTS[name](rng, render[where], mask[where], inner)
    return spoiled


def _blur(rng: np.random.Generator, render: np.ndarray, mask: np.ndarray, box: Box) -> np.ndarray:
    """Few large Gaussians instead of many small ones: a wide blur, mostly stretched along some direction."""
    long, short = rng.uniform(3, 8), rng.uniform(2, 4)
    angle = rng.uniform(0, np.pi)
    reach = 12
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    a, b = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    kernel = np.exp(-0.5 * ((a / long) ** 2 + (b / short) ** 2))
    return _blend(render, cv2.filter2D(render, -1, kernel / kernel.sum()), mask)


def _floater(rng: np.random.Generator, render: np.ndarray, mask: np.ndarray, box: Box) -> np.ndarray:
    """Something that is not there, in front: a foreign colour, nearly opaque, little texture."""
    colour = _foreign(rng, render, mask)
    texture = rng.normal(0, 0.05, (*mask.shape, 1)).astype(np.float32)
    return _blend(render, colour + cv2.GaussianBlur(texture, (0, 0), 1.5)[..., None], mask * rng.uniform(0.7, 1))


def _hole(rng: np.random.Generator, render: np.ndarray, mask: np.ndarray, box: Box) -> np.ndarray:
    """Nothing there: the background colour shows, mostly black."""
    background = np.float32(rng.choice((0.0, 0.03, 1.0, rng.random()), p=(0.5, 0.2, 0.2, 0.1)))
    return _blend(render, np.full_like(render, background), mask * rng.uniform(0.85, 1))


def _needles(rng: np.random.Generator, render: np.ndarray, mask: np.ndarray, box: Box) -> np.ndarray:
    """Long thin splats, mostly of one direction, in colours of the picture."""
    height, width = mask.shape
    layer = cv2.GaussianBlur(render, (0, 0), 2.0)
    angle = rng.uniform(0, np.pi)
    x0, y0, x1, y1 = box
    size = max(x1 - x0, y1 - y0)
    for _ in range(int(rng.integers(10, 26))):
        centre = np.array([rng.uniform(x0, x1), rng.uniform(y0, y1)])
        turn = angle + rng.normal(0, 0.35)
        half = 0.5 * size * rng.uniform(0.3, 0.9) * np.array([np.cos(turn), np.sin(turn)])
        colour = render[rng.integers(height), rng.integers(width)] * np.float32(rng.uniform(0.6, 1.6))
        ends = [(int(p[0]), int(p[1])) for p in (centre - half, centre + half)]
        cv2.line(layer, *ends, colour.clip(0, 1).tolist(), int(rng.integers(1, 5)), cv2.LINE_8)
    return _blend(render, cv2.GaussianBlur(layer, (0, 0), 0.7), mask)


def _noise(rng: np.random.Generator, render: np.ndarray, mask: np.ndarray, box: Box) -> np.ndarray:
    """Small splats of wrong colours."""
    noise = rng.normal(0, 1, render.shape).astype(np.float32)
    if rng.random() < 0.3:
        noise = np.repeat(noise[..., :1], 3, 2)
    noise = cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.3, 1.6))
    return _blend(render, render + noise / noise.std() * np.float32(rng.uniform(0.12, 0.35)), mask)


DEFECTS = {"blur": _blur, "floater": _floater, "hole": _hole, "needles": _needles, "noise": _noise}


def _blend(render: np.ndarray, other: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return (render + mask[..., None].astype(np.float32) * (other - render)).clip(0, 1).astype(np.float32)


def _foreign(rng: np.random.Generator, render: np.ndarray, mask: np.ndarray) -> np.ndarray:
    here = render[mask > 0.5].mean(0)
    colour = rng.uniform(0, 1, 3)
    for _ in range(8):
        if np.abs(colour - here).mean() > 0.2:
            break
        colour = rng.uniform(0, 1, 3)
    return colour.astype(np.float32)


def _overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share more than a tenth of the smaller one."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    smaller = min((r[2] - r[0]) * (r[3] - r[1]) for r in (a, b))
    return width * height > 0.1 * smaller


def _quantised(picture: np.ndarray) -> np.ndarray:
    return ((picture * 255).round() / 255).astype(np.float32)
