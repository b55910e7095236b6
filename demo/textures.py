# SPDX-License-Identifier: Apache-2.0
"""Procedural surfaces of the demo scene: every function returns an sRGB picture, uint8 [H, W, 3].

Everything is drawn from numbers, so that the scene is wholly ours and comes out the same each time. `rng` is a
`numpy.random.Generator`; textures repeat seamlessly unless said otherwise.
"""

import numpy as np

Colour = tuple[float, float, float]


def noise(size: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth value noise in [0, 1] that repeats at the borders, float [H, W]."""
    grid = rng.random(cells)
    axes = []
    for length, count in zip(size, cells, strict=True):
        t = np.arange(length) * count / length
        low = t.astype(int)
        fraction = t - low
        axes.append((low % count, (low + 1) % count, fraction * fraction * (3 - 2 * fraction)))
    (y0, y1, fy), (x0, x1, fx) = axes
    top = grid[y0][:, x0] * (1 - fx) + grid[y0][:, x1] * fx
    bottom = grid[y1][:, x0] * (1 - fx) + grid[y1][:, x1] * fx
    return top * (1 - fy[:, None]) + bottom * fy[:, None]


def clouds(size: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator, octaves: int = 5) -> np.ndarray:
    """Sum of noises, each twice as fine and 0.55 times as strong as the one before; mean near 0.5, [H, W]."""
    total, weight = np.zeros(size), 0.0
    for octave in range(octaves):
        count = tuple(min(c << octave, s) for c, s in zip(cells, size, strict=True))
        total += 0.55**octave * noise(size, count, rng)
        weight += 0.55**octave
    return total / weight


def to_picture(colour: np.ndarray) -> np.ndarray:
    """Colours in [0, 1] as bytes."""
    return (np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8)


def mix(low: Colour, high: Colour, amount: np.ndarray) -> np.ndarray:
    """Colours between two, by an amount in [0, 1] per pixel."""
    t = np.clip(amount, 0, 1)[..., None]
    return np.asarray(low) * (1 - t) + np.asarray(high) * t


def bricks(
    rng: np.random.Generator, *, rows: int, columns: int, low: Colour, high: Colour, size=(768, 768)
) -> np.ndarray:
    """Courses of bricks, every second one shifted by half a brick, in pale mortar."""
    y = np.arange(size[0])[:, None] * rows / size[0]
    row = y.astype(int)
    x = np.arange(size[1])[None] * columns / size[1] + 0.5 * (row % 2)
    wobble = 0.06 * (clouds(size, (24, 24), rng, 3) - 0.5)
    in_x, in_y = (x + wobble) % 1, (y + wobble) % 1
    edge = np.minimum(np.minimum(in_x, 1 - in_x) * 2.6, np.minimum(in_y, 1 - in_y))  # a brick is 2.6 x as wide as high
    shade = rng.random((rows, columns))[row, x.astype(int) % columns]
    grain = clouds(size, (48, 48), rng)
    colour = mix(low, high, 0.75 * shade + 0.5 * (grain - 0.25))
    mortar = mix((0.52, 0.49, 0.44), (0.74, 0.71, 0.65), grain)
    stain = 0.72 + 0.5 * clouds(size, (3, 3), rng)
    return to_picture(np.where((edge < 0.09)[..., None], mortar, colour) * stain[..., None])


def cells(rng: np.random.Generator, count: int, size: tuple[int, int], jitter: float = 0.85):
    """Nearest of count x count scattered points, repeating: their index [H, W] and the distance to the border."""
    y, x = np.mgrid[: size[0], : size[1]]
    y, x = y * count / size[0], x * count / size[1]
    offset = 0.5 + jitter * (rng.random((count, count, 2)) - 0.5)
    first, second = np.full(size, np.inf), np.full(size, np.inf)
    owner = np.zeros(size, int)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            cy, cx = y.astype(int) + dy, x.astype(int) + dx
            shift = offset[cy % count, cx % count]
            d = np.hypot(cy + shift[..., 0] - y, cx + shift[..., 1] - x)
            owner = np.where(d < first, (cy % count) * count + cx % count, owner)
            second = np.minimum(second, np.maximum(first, d))
            first = np.minimum(first, d)
    return owner, second - first


def cobbles(rng: np.random.Generator, count: int, size=(1536, 1536)) -> np.ndarray:
    """Rounded stones in sandy joints with some moss."""
    owner, border = cells(rng, count, size)
    tone = rng.random((count * count, 1))
    warm = rng.random((count * count, 1))
    stone = 0.36 + 0.34 * tone + (warm - 0.25) * np.array([0.20, 0.09, -0.08])
    grain = clouds(size, (96, 96), rng)
    colour = stone[owner] * (0.7 + 0.6 * grain[..., None])
    dome = np.clip(border / 0.35, 0, 1) ** 0.4
    moss = np.clip(3 * clouds(size, (5, 5), rng) - 1.25, 0, 1)[..., None]
    joint = (1 - moss) * np.array([0.40, 0.34, 0.26]) + moss * np.array([0.26, 0.36, 0.13])
    joint = joint * (0.6 + 0.8 * grain[..., None])
    stain = 0.7 + 0.6 * clouds(size, (4, 4), rng, 4)[..., None]
    return to_picture(np.where((border < 0.09)[..., None], joint, colour * dome[..., None]) * stain)


def planks(
    rng: np.random.Generator, *, count: int, low: Colour, high: Colour, size=(512, 512), knots: int = 5
) -> np.ndarray:
    """Boards side by side along y, with grain, knots and dark gaps."""
    x = np.arange(size[1])[None] * count / size[1]
    board = np.broadcast_to(x.astype(int), size)
    y = np.arange(size[0])[:, None] / size[0]
    bend = 0.8 * clouds(size, (4, 4 * count), rng, 3)
    for _ in range(knots):
        cy, cx = rng.random(), rng.random() * count
        bend = bend + 1.2 * np.exp(-((y - cy) ** 2 / 0.0016 + (x - cx) ** 2 / 0.02))
    shift = rng.random(count)[board]
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (5 * (x % 1) + 4 * bend + 7 * shift))
    fibres = clouds(size, (6, 64 * max(1, count // 4)), rng, 3)
    colour = mix(low, high, 0.35 * rings + 0.45 * fibres + 0.5 * shift - 0.15)
    gap = np.minimum(x % 1, 1 - x % 1) < 0.035
    return to_picture(np.where(gap[..., None], colour * 0.25, colour))


def plaster(rng: np.random.Generator, low: Colour, high: Colour, size=(768, 768)) -> np.ndarray:
    """Old render: blotches, grain and fine cracks, with patches where the brick underneath shows."""
    blotches = clouds(size, (5, 5), rng, 6)
    colour = mix(low, high, 1.8 * (blotches - 0.2)) * (0.82 + 0.36 * clouds(size, (96, 96), rng, 3))[..., None]
    _, border = cells(rng, 6, size, jitter=1.0)
    crack = (border + 0.10 * (clouds(size, (24, 24), rng) - 0.5) < 0.012) & (blotches > 0.5)
    colour = np.where(crack[..., None], colour * 0.45, colour)
    under = bricks(rng, rows=28, columns=10, low=(0.45, 0.24, 0.17), high=(0.66, 0.40, 0.28), size=size) / 255.0
    fallen = clouds(size, (4, 4), rng, 6) > 0.64
    return to_picture(np.where(fallen[..., None], under, colour))


def stone(rng: np.random.Generator, low: Colour, high: Colour, size=(512, 512)) -> np.ndarray:
    """Speckled sandstone with faint layers."""
    layers = 0.5 + 0.5 * np.sin(40 * np.arange(size[0])[:, None] / size[0] + 9 * clouds(size, (4, 4), rng))
    specks = rng.random(size) ** 6
    return to_picture(mix(low, high, 0.55 * clouds(size, (12, 12), rng) + 0.25 * layers + 0.3 * specks))


def painted_tiles(rng: np.random.Generator, repeats: tuple[int, int], pixels: int = 64) -> np.ndarray:
    """Blue and white wall tiles, fourfold symmetric, a few designs, some of them faded; [rows * pixels, ...]."""
    t = (np.arange(pixels) + 0.5) / pixels * 2 - 1
    x, y = np.meshgrid(t, t)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    designs = []
    for k in range(4):
        petals = np.cos((4 + 4 * (k % 2)) * angle) * 0.22 + 0.5 + 0.08 * k
        corner = np.hypot(np.abs(x) - 1, np.abs(y) - 1)
        blue = (np.abs(r - petals) < 0.09) | (r < 0.16) | (np.abs(corner - 0.42) < 0.07) | (corner < 0.14)
        yellow = (np.abs(r - 0.30) < 0.06) | (np.abs(corner - 0.25) < 0.05)
        tile = np.where(blue[..., None], (0.12, 0.25, 0.58), (0.90, 0.89, 0.83))
        tile = np.where((yellow & ~blue)[..., None], (0.85, 0.63, 0.16), tile)
        designs.append(np.where((np.maximum(np.abs(x), np.abs(y)) > 0.955)[..., None], (0.55, 0.52, 0.47), tile))
    rows, columns = repeats
    grid = rng.integers(0, 4, repeats)
    wall = np.concatenate([np.concatenate([designs[k] for k in row], axis=1) for row in grid], axis=0)
    wear = 0.78 + 0.4 * clouds(wall.shape[:2], (rows, columns), rng, 5)
    return to_picture(wall * wear[..., None])


def landscape(rng: np.random.Generator, hue: int, size=(256, 320)) -> np.ndarray:
    """A framed little painting: sky, sun, ranges of hills, a foreground of dabs."""
    y = np.arange(size[0])[:, None] / size[0] * np.ones(size)
    sky = [((0.95, 0.72, 0.45), (0.35, 0.45, 0.70)), ((0.80, 0.90, 0.95), (0.30, 0.55, 0.85))][hue % 2]
    picture = mix(sky[1], sky[0], y * 1.6)
    sun = np.hypot(np.arange(size[1])[None] / size[1] - 0.3 - 0.3 * (hue % 2), (y - 0.3) * 0.8) < 0.07
    picture = np.where(sun[..., None], (1.0, 0.9, 0.6), picture)
    for k in range(4):
        ridge = 0.42 + 0.14 * k - 0.22 * clouds((8, size[1]), (2, 4), rng, 5)[0]
        ground = rng.uniform(0.15, 0.75, 3) * (1 - 0.12 * k)
        dabs = 0.7 + 0.6 * clouds(size, (32, 40), rng, 3)
        picture = np.where((y > ridge[None])[..., None], ground * dabs[..., None], picture)
    border = 0.07
    x = np.linspace(0, 1, size[1])[None]
    frame = np.minimum(np.minimum(y, 1 - y), np.minimum(x, 1 - x)) < border
    gilt = mix((0.35, 0.22, 0.08), (0.75, 0.55, 0.25), clouds(size, (16, 20), rng))
    return to_picture(np.where(frame[..., None], gilt, picture))


def window(rng: np.random.Generator, size=(320, 224)) -> np.ndarray:
    """A window of six panes with a painted frame; curtains and a dim room behind the glass."""
    y = np.arange(size[0])[:, None] / size[0] * np.ones(size)
    x = np.arange(size[1])[None] / size[1] * np.ones(size)
    room = mix((0.10, 0.11, 0.14), (0.45, 0.50, 0.58), clouds(size, (5, 4), rng, 4) - 0.2 * y)
    folds = 0.5 + 0.5 * np.sin(70 * np.abs(x - 0.5) + 3 * np.sin(3 * y))
    curtain = mix((0.55, 0.20, 0.16), (0.86, 0.50, 0.36), folds)
    glass = np.where((np.abs(x - 0.5) > 0.24 + 0.16 * y**2)[..., None], curtain, room)
    bars = (np.abs(x - 0.5) < 0.025) | (np.abs(y * 3 % 1 - 0.5) > 0.465)
    bars |= np.minimum(np.minimum(x, 1 - x) * 0.7, np.minimum(y, 1 - y)) < 0.045
    paint = mix((0.16, 0.30, 0.26), (0.30, 0.48, 0.40), clouds(size, (12, 60), rng))
    return to_picture(np.where(bars[..., None], paint, glass))


def door(rng: np.random.Generator, size=(448, 224)) -> np.ndarray:
    """A boarded door with iron straps and nails."""
    boards = planks(rng, count=5, low=(0.10, 0.24, 0.30), high=(0.28, 0.50, 0.55), size=size, knots=8) / 255.0
    y = np.arange(size[0])[:, None] / size[0] * np.ones(size)
    x = np.arange(size[1])[None] / size[1] * np.ones(size)
    iron = (np.abs(y - 0.2) < 0.025) | (np.abs(y - 0.8) < 0.025)
    nails = iron & (np.hypot((x * 8 % 1) - 0.5, (np.abs(y - 0.5) - 0.3) * 16) < 0.25)
    metal = mix((0.08, 0.08, 0.09), (0.22, 0.20, 0.19), clouds(size, (20, 10), rng))
    boards = np.where(iron[..., None], metal, boards)
    boards = np.where(nails[..., None], (0.55, 0.52, 0.48), boards)
    ring = np.abs(np.hypot((x - 0.82) * 0.5, y - 0.5) - 0.035) < 0.008
    boards = np.where(ring[..., None], (0.75, 0.60, 0.25), boards)
    return to_picture(np.where((np.minimum(x * 0.5, (1 - x) * 0.5) < 0.02)[..., None], boards * 0.4, boards))


def glaze(rng: np.random.Generator, size=(512, 1024)) -> np.ndarray:
    """Painted pottery, v from the foot (bottom row) to the rim: bands of waves, leaves, dots and triangles."""
    v = 1 - (np.arange(size[0])[:, None] + 0.5) / size[0] * np.ones(size)
    u = (np.arange(size[1])[None] + 0.5) / size[1] * np.ones(size)
    wobble = 0.006 * (clouds(size, (8, 16), rng, 3) - 0.5)
    v, u = v + wobble, u + wobble
    cream, cobalt, rust, teal, gold = (
        (0.93, 0.88, 0.76),
        (0.10, 0.17, 0.45),
        (0.68, 0.24, 0.12),
        (0.07, 0.42, 0.42),
        (0.88, 0.62, 0.15),
    )
    picture = np.broadcast_to(np.asarray(cream), (*size, 3)).copy()

    def paint(where: np.ndarray, colour: Colour) -> None:
        picture[where] = colour

    paint(v < 0.12, cobalt)
    paint((v < 0.12) & (np.abs(u * 24 % 1 - 0.5) * 0.12 < v - 0.03) & (v > 0.03), gold)
    paint((v > 0.15) & (v < 0.30) & (np.abs(v - 0.225 - 0.045 * np.sin(2 * np.pi * 10 * u)) < 0.017), teal)
    paint((v > 0.15) & (v < 0.30) & (np.abs(v - 0.225 + 0.045 * np.sin(2 * np.pi * 10 * u)) < 0.017), rust)
    paint((np.abs(v - 0.14) < 0.009) | (np.abs(v - 0.31) < 0.009), cobalt)
    # the belly: eight medallions with different flowers
    k = (u * 8).astype(int) % 8
    x, y = (u * 8 % 1 - 0.5) * 1.0, (v - 0.49) * 3.3
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    petals = 0.24 + 0.11 * np.cos((5 + k % 4) * angle + k)
    paint((v > 0.33) & (v < 0.65) & (np.abs(r - 0.44) < 0.03), cobalt)
    paint((v > 0.33) & (v < 0.65) & (r < petals), rust)
    paint((v > 0.33) & (v < 0.65) & (r < petals) & (k % 2 == 1), cobalt)
    paint((v > 0.33) & (v < 0.65) & (r < 0.45 * petals), gold)
    paint((v > 0.33) & (v < 0.65) & (np.hypot(np.abs(x) - 0.46, np.abs(y) - 0.40) < 0.09), teal)
    paint((v > 0.67) & (v < 0.70), cobalt)
    paint((v > 0.71) & (v < 0.79) & (np.hypot((u * 36 % 1 - 0.5) * 0.5, (v - 0.75) * 9) < 0.17), rust)
    paint((v > 0.80) & (v < 0.83), teal)
    paint((v > 0.84) & (v < 0.95) & (np.abs(u * 20 % 1 - 0.5) * 0.22 < 0.95 - v), cobalt)
    paint(v > 0.96, rust)
    return to_picture(picture * (0.85 + 0.3 * clouds(size, (16, 32), rng))[..., None])


def foliage(rng: np.random.Generator, low: Colour, high: Colour, size=(256, 256)) -> np.ndarray:
    """A sheet of 8 x 8 leaf colours with veins; a leaf takes one square of it."""
    y, x = np.mgrid[: size[0], : size[1]] / (size[0] / 8)
    tone = rng.random((8, 8))[y.astype(int), x.astype(int)]
    colour = mix(low, high, tone * 0.9 + 0.4 * (clouds(size, (32, 32), rng) - 0.5))
    vein = (np.abs(x % 1 - 0.5) < 0.05) | (np.abs((y % 1 + np.abs(x % 1 - 0.5)) * 5 % 1 - 0.5) < 0.10)
    return to_picture(np.where(vein[..., None], colour * 1.25, colour))


def cloth(rng: np.random.Generator, colours: tuple[Colour, ...], stripes: int = 14, size=(256, 256)) -> np.ndarray:
    """Woven stripes of uneven width."""
    x = np.arange(size[1]) / size[1] * stripes
    which = rng.integers(0, len(colours), stripes)[x.astype(int)]
    colour = np.asarray(colours)[which][None] * np.ones((*size, 1))
    weave = 0.85 + 0.15 * np.sin(np.arange(size[0]) * 1.2)[:, None] * np.sin(np.arange(size[1]) * 1.2)[None]
    return to_picture(colour * weave[..., None] * (0.8 + 0.4 * clouds(size, (8, 8), rng))[..., None])


def sky(rng: np.random.Generator, sun: np.ndarray, size=(256, 512)) -> np.ndarray:
    """Linear radiance of a partly cloudy sky, float32 [H, W, 3]; latitude-longitude, top row is the zenith.

    Args:
        sun: unit vector towards the sun in the sky's own axes (y up).
    """
    theta = (np.arange(size[0])[:, None] + 0.5) / size[0] * np.pi * np.ones(size)
    phi = (np.arange(size[1])[None] + 0.5) / size[1] * 2 * np.pi * np.ones(size)
    direction = np.stack([np.sin(phi) * np.sin(theta), np.cos(theta), -np.cos(phi) * np.sin(theta)], -1)
    height = direction[..., 1]
    colour = mix((0.86, 0.89, 0.92), (0.30, 0.48, 0.76), np.clip(height * 1.3, 0, 1) ** 0.6)
    cover = np.clip((clouds(size, (6, 8), rng, 6) - 0.47) * 6, 0, 1) * np.clip(height * 6, 0, 1)
    shade = 0.65 + 0.5 * clouds(size, (10, 14), rng, 5)
    colour = colour * (1 - cover[..., None]) + (cover * shade)[..., None] * np.array([1.05, 1.02, 1.0])
    # a sun of some six degrees: bright enough for shadows, large enough for soft ones
    near = direction @ sun
    colour = colour + 90 * np.exp((near - 1) / 0.0035)[..., None] * np.array([1.0, 0.90, 0.74])
    colour = np.where((height < 0)[..., None], (0.20, 0.19, 0.16), colour)
    return colour.astype(np.float32)
