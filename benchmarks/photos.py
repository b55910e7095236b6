# SPDX-License-Identifier: Apache-2.0
"""Memory and rate of the photo cache: many photos, random order, a budget.

    python benchmarks/photos.py --photos 2000 --size 1600x1067 --cache_gb 1 --step_ms 200
    python benchmarks/photos.py --photos 40 --size 640x427 --cache_gb 1 --compare 20

Makes JPEGs once (in --folder, or a temporary one), goes through them as training does, and prints how long a step
waits for its photo and how much memory the process has, quarter by quarter.

With --compare the same steps are made with the cache and with all photos as tensors in memory, in alternating blocks,
and the ratio of their processor times is printed: other programs on the machine touch both alike. A step is the loss
alone here, a fraction of a training step, so the cache's share is rather larger than in training.
"""

import argparse
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diff_gaussian_rasterization import set_threads
from diff_gaussian_rasterization.losses import photometric
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scene.photo_cache import AHEAD, PhotoCache
from scene.photos import Photo, probe


def make_photos(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """JPEGs with smooth and fine content, hard links of a few different ones."""
    folder.mkdir(parents=True, exist_ok=True)
    originals = []
    for index in range(min(count, 16)):
        path = folder / f"original_{index:02}.jpg"
        if not path.is_file():
            rng = np.random.default_rng(index)
            coarse = Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).resize((width, height))
            fine = rng.normal(0, 8, (height, width, 1))
            Image.fromarray(np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8)).save(path, quality=92)
        originals.append(path)
    paths = [folder / f"{index:05}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        if not path.is_file():
            path.hardlink_to(originals[index % len(originals)])
    return paths


def resident() -> float:
    """MiB of memory that the process has."""
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def work(milliseconds: float) -> None:
    """What training does meanwhile: native code that leaves the interpreter to others."""
    time.sleep(milliseconds / 1000)


def walk(photos: list[Photo], cache: PhotoCache, steps: int, step_ms: float, ahead: bool) -> tuple[np.ndarray, list]:
    """Seconds that each step waited for its photo, and memory after each quarter."""
    waited, memory, order = np.zeros(steps), [], []
    rng = np.random.default_rng(0)
    for step in range(steps):
        if len(order) <= AHEAD:
            order = rng.permutation(len(photos)).tolist() + order
        photo = photos[order.pop()]
        if ahead:
            cache.expect([photo, *(photos[i] for i in reversed(order[-AHEAD:]))])
        begin = time.perf_counter()
        photo.image()
        waited[step] = time.perf_counter() - begin
        work(step_ms)
        if (step + 1) % (steps // 4) == 0:
            memory.append(resident())
    return waited, memory


def compare(photos: list[Photo], cache: PhotoCache, blocks: int) -> np.ndarray:
    """Processor time of `blocks` rounds through all photos with the cache, over that without, [blocks]."""
    target = torch.rand(3, photos[0].height, photos[0].width)
    kept = [photo.decode()[0] for photo in photos]
    rng = np.random.default_rng(0)

    def with_cache(order: list[int]) -> None:
        for step, index in enumerate(order):
            cache.expect(photos[k] for k in order[step : step + AHEAD + 1])
            photometric(photos[index].image(), target)

    def without(order: list[int]) -> None:
        for index in order:
            photometric(kept[index].float().div_(255), target)

    seconds = np.zeros((blocks, 2))
    with_cache(list(range(len(photos))))  # decoded once, as in the first round of a training
    for block in range(blocks):
        order = rng.permutation(len(photos)).tolist()
        ways = (with_cache, without) if block % 2 else (without, with_cache)
        for way in ways:
            begin = time.process_time()
            way(order)
            seconds[block, int(way is without)] = time.process_time() - begin
    return seconds[:, 0] / seconds[:, 1]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--size", default="1600x1067")
    parser.add_argument("--cache_gb", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=0, help="default: twice through all photos")
    parser.add_argument("--step_ms", type=float, default=200.0, help="length of the rest of a training step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no_ahead", action="store_true", help="decode nothing ahead of its use")
    parser.add_argument("--compare", type=int, default=0, metavar="BLOCKS", help="against all photos in memory")
    parser.add_argument("--folder", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    set_threads(1)
    width, height = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as temporary:
        paths = make_photos(args.folder or Path(temporary), args.photos, width, height)
        cache = PhotoCache(args.cache_gb * 1e9, args.threads)
        before, begin = resident(), time.perf_counter()
        photos = [Photo(width, height, probe(path).reader(), cache=cache) for path in paths]
        print(f"{len(photos)} photos opened in {time.perf_counter() - begin:.1f} s, {before:.0f} MiB before")
        if args.compare:
            low, ratio, high = np.quantile(compare(photos, cache, args.compare), [0.25, 0.5, 0.75])
            print(f"processor time with the cache over that without: {ratio:.3f} (quartiles {low:.3f} and {high:.3f})")
            return
        steps = args.steps or 2 * len(photos)
        waited, memory = walk(photos, cache, steps, args.step_ms, not args.no_ahead)
        quarters = [0, *(steps // 4 * (k + 1) for k in range(4))]
        for (start, end), mib in zip(pairwise(quarters), memory, strict=True):
            wait = 1000 * waited[start:end].mean()
            print(f"steps {start}..{end}: {mib:.0f} MiB, a step waits {wait:.1f} ms of {args.step_ms + wait:.1f}")


if __name__ == "__main__":
    main()
