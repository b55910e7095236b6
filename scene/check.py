# SPDX-License-Identifier: Apache-2.0
"""Looks a dataset over before it is trained: `python -m scene.check S`.

Prints what was found, what is doubtful, and what training will take. The exit code is 0, or 2 when the dataset cannot
be trained.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from arguments import DataConfig
from utils.command import Parser, run_command

from .dataset import Scene, open_scene
from .doubts import Doubt, doubts, named
from .overlap import Look, Pair, accused, compare, groups, look_at_all
from .summary import describe, expectations

LOOKED_AT = 200
"""Views that are compared; of more, every second, third, ... is taken."""

BLURRED = 0.25
"""Share of the usual fine detail below which a view is blurred."""

STOPS = 0.6
"""Difference in brightness, in stops, from the views beside it that is a jump."""

DARK, FLAT = 8.0, 2.0
"""Mean level and standard deviation, of 255, below which a photo shows nothing."""

TELLING = 200
"""Features from which it says something that a view matches no other one; thumbnails have fewer, photos a thousand."""

MOSTLY_MASKED = 0.05
"""Share of kept pixels below which a view says little."""


def check(scene: Scene, threads: int = 2) -> list[Doubt]:
    """Everything doubtful about a dataset; decodes up to `LOOKED_AT` photos."""
    cameras = scene.cameras[:: -(-len(scene.cameras) // LOOKED_AT)]
    looks = look_at_all(sorted(cameras, key=lambda camera: camera.name), threads)
    pairs = compare(looks) if len(looks) > 1 else []
    found = [*doubts(scene), *_single_photos(looks), _twins(looks), *_overlap(looks, pairs)]
    found += [_poses(looks, pairs), _blur(looks, pairs), _exposure(looks, pairs)]
    return [doubt for doubt in found if doubt is not None]


def _single_photos(looks: Sequence[Look]) -> list[Doubt]:
    """Photos that show nothing, and photos that are masked."""
    empty, masked = [], []
    for look in looks:
        levels = look.grey if look.kept is None else look.grey[look.kept]
        if levels.size < MOSTLY_MASKED * look.grey.size:
            masked.append(look.camera.name)
        elif levels.std() < FLAT or np.quantile(levels, 0.99) < DARK:
            empty.append(look.camera.name)
    found = []
    if empty:
        found.append(Doubt("empty", f"{len(empty)} photos show nothing: {named(empty)}; remove them", tuple(empty)))
    if masked:
        text = f"{len(masked)} photos are masked nearly everywhere: {named(masked)}; if the masks are the other way "
        found.append(Doubt("masks", text + "round, use --invert_masks", tuple(masked)))
    return found


def _twins(looks: Sequence[Look]) -> Doubt | None:
    """One photo under two names."""
    seen: dict[bytes, str] = {}
    twins = []
    for look in looks:
        first = seen.setdefault(
            cv2.resize(look.grey, (32, 32), interpolation=cv2.INTER_AREA).tobytes(), look.camera.name
        )
        if first != look.camera.name and look.grey.std() >= FLAT:
            twins.append(look.camera.name)
    if not twins:
        return None
    return Doubt("twins", f"{len(twins)} photos are there under another name too: {named(twins)}", tuple(twins))


def _overlap(looks: Sequence[Look], pairs: Sequence[Pair]) -> list[Doubt]:
    """Groups of views that share nothing with each other, and views that share nothing with any."""
    if len(looks) < 2:
        return []
    together = groups(len(looks), pairs)
    telling = [group for group in together if any(len(looks[index].places) >= TELLING for index in group)]
    alone = [looks[group[0]].camera.name for group in telling if len(group) == 1]
    islands = [group for group in telling if len(group) > 1]
    if len(alone) > len(looks) / 2:
        text = (
            f"{len(alone)} of {len(looks)} views show nothing that was found in another one: take photos that overlap"
        )
        return [Doubt("no overlap", text, tuple(alone))]
    found = []
    if len(islands) > 1:
        sizes = " and ".join(str(len(group)) for group in islands)
        others = tuple(looks[index].camera.name for group in islands[1:] for index in group)
        text = f"{len(islands)} groups of views ({sizes}) show nothing in common: {named(others)} are not with"
        found.append(Doubt("groups", f"{text} the largest; add the photos between them", others))
    if alone:
        text = f"{len(alone)} views show nothing that was found in another one: {named(alone)}"
        found.append(Doubt("alone", text, tuple(alone)))
    return found


def _poses(looks: Sequence[Look], pairs: Sequence[Pair]) -> Doubt | None:
    wrong = tuple(looks[index].camera.name for index in accused(pairs))
    if not wrong:
        return None
    text = f"the poses of {len(wrong)} views disagree with what they show: {named(wrong)}; remove or pose them again"
    return Doubt("poses", text, wrong)


def _blur(looks: Sequence[Look], pairs: Sequence[Pair]) -> Doubt | None:
    """Views with much less fine detail than those that show the same things."""
    detail = np.array([_detail(look) for look in looks])
    beside = _beside(len(looks), pairs)
    usual = np.array([np.median(detail[others]) if others else np.median(detail) for others in beside])
    blurred = tuple(
        look.camera.name
        for look, own, other in zip(looks, detail, np.minimum(usual, np.median(detail)), strict=True)
        if 0 < own < BLURRED * other
    )
    if not blurred:
        return None
    return Doubt("blur", f"{len(blurred)} photos are blurred: {named(blurred)}; remove them", blurred)


def _detail(look: Look) -> float:
    """Energy of the finest detail over that of the whole photo."""
    fine = cv2.Laplacian(look.grey, cv2.CV_64F)
    kept = np.ones(look.grey.shape, bool) if look.kept is None else look.kept
    total = look.grey[kept].var() if kept.any() else 0.0
    return float((fine[kept] ** 2).mean() / total) if total > FLAT**2 else 0.0


def _exposure(looks: Sequence[Look], pairs: Sequence[Pair]) -> Doubt | None:
    """Views that show the same things much brighter or darker than the views beside them."""
    stops: dict[int, list[float]] = {}
    for pair in pairs:
        if pair.verdict != "nothing":
            stops.setdefault(pair.first, []).append(pair.brighter)
            stops.setdefault(pair.second, []).append(-pair.brighter)
    jumps = {index: float(np.median(values)) for index, values in stops.items() if abs(np.median(values)) > STOPS}
    if not jumps:
        return None
    names = tuple(looks[index].camera.name for index in sorted(jumps))
    largest = max(jumps.values(), key=abs)
    text = f"the exposure of {len(names)} photos jumps, by up to {abs(largest):.1f} stops: {named(names)}; fix the"
    return Doubt("exposure", f"{text} camera's exposure, or remove them", names)


def _beside(count: int, pairs: Sequence[Pair]) -> list[list[int]]:
    beside: list[list[int]] = [[] for _ in range(count)]
    for pair in pairs:
        if pair.verdict != "nothing":
            beside[pair.first].append(pair.second)
            beside[pair.second].append(pair.first)
    return beside


def main(argv: Sequence[str]) -> None:
    """Print what a dataset is and what is doubtful about it."""
    parser = Parser("Look a dataset over before it is trained.")
    parser.add_argument("source", type=Path, metavar="S", help="folder of the dataset")
    parser.add_argument("-i", "--images", default="images", help="sub-folder of the photos")
    parser.add_argument("--format", choices=("auto", "colmap", "transforms"), default="auto", help="which description")
    parser.add_argument("--sparse", type=int, default=None, metavar="N", help="number of the COLMAP model")
    parser.add_argument("-r", "--resolution", type=int, default=-1, help="as for train.py")
    parser.add_argument("--masks", type=Path, default=None, help="folder of masks")
    parser.add_argument("--invert_masks", action="store_true", help="white is ignored")
    parser.add_argument("--no_eval", dest="eval", action="store_false", help="train on all views")
    scene = open_scene(DataConfig(**vars(parser.parse_args(argv))))
    held_out = [camera.name for camera in scene.test_cameras]
    for line in (*describe(scene), *expectations(scene)):
        print(line)
    if held_out:
        print(f"Held out: {named(held_out)}")
    found = check(scene)
    for doubt in found:
        print(f"Doubtful: {doubt.text}")
    print(f"{len(found)} doubts" if found else "Nothing doubtful found")


if __name__ == "__main__":
    sys.exit(run_command(main))
