# SPDX-License-Identifier: Apache-2.0
"""Thousands of damaged and malicious inputs: each is read, or refused in one line, and nothing else happens.

    python -m tests.torture.hostile --count 10000 --seed 0        # seed 0 to 9999, one input each

A traceback, a native crash, memory beyond a bound, a minute of work, a file written or read where none should be, or a
script in a page is a failure; its seed is printed, and `--seed N --count 1` repeats it.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import train
from arguments import store
from scene.dataset import load_scene
from scene.model_folder import load_model
from scene.ply import read_points, write_points
from scene.splat_files import read_splats
from scene.viewpoints import camera_path, read_viewpoints
from tests import tiny
from tests.captures import Capture, ring, transforms
from tests.synthetic_run import write_run
from tests.torture.mutations import NAMES, Random, choice, damaged, damaged_json, hostile_value
from utils import checkpoint
from utils.checkpoint import DamagedError
from utils.command import one_line
from utils.errors import UserError
from utils.report import write_report
from utils.run_log import RunLog
from vlm.boxes import BoxFrame, parse_answer
from vlm.replay import read_records

MEMORY = 3 << 30
"""Bytes of address space that reading one input may take."""
SECONDS = 60
SIZE = (16, 12)


class EscapeError(BaseException):
    """Something reached beyond its folder; not an Exception, so that no reader swallows it."""


# --- the inputs -----------------------------------------------------------------------------------------------------


def capture(count: int = 4) -> Capture:
    """Few, tiny views."""
    tiny = ring(count)
    width, height = SIZE
    tiny.cameras = {1: ("PINHOLE", width, height, (14.0, 14.0, width / 2, height / 2))}
    return tiny


def _dataset(box: Path, shots: Capture | None = None) -> Path:
    return (shots or capture()).write_dataset(box / "data")


Read = Callable[[], Any]
"""Has the input read that was made."""


def _read_splats(path: Path) -> None:
    assert all(np.isfinite(array).all() for array in read_splats(path).parameters().values())


def _assert(holds: bool) -> None:
    assert holds


def _open(source: Path) -> None:
    scene = load_scene(source, store=source.parent / "cache")
    for camera in scene.cameras[:3]:
        image = camera.image()
        assert image.shape == (3, camera.height, camera.width) and image.isfinite().all()
        mask = camera.mask()
        assert mask is None or mask.isfinite().all()
        assert np.isfinite(camera.camera_from_world).all() and min(camera.fx, camera.fy) > 0
    assert np.isfinite(scene.extent)


def colmap_binary(rng: Random, box: Path) -> Read:
    """A COLMAP model in binary, one file or several damaged."""
    source = _dataset(box)
    files = sorted((source / "sparse" / "0").glob("*.bin"))
    for file in rng.permutation(files)[: 1 + int(rng.integers(2))]:
        Path(file).write_bytes(damaged(rng, Path(file).read_bytes()))
    return partial(_open, source)


def colmap_text(rng: Random, box: Path) -> Read:
    """The same in text."""
    source = _dataset(box)
    for file in (source / "sparse" / "0").glob("*.bin"):
        file.unlink()
    capture().write_txt(source / "sparse" / "0")
    file = choice(rng, sorted((source / "sparse" / "0").glob("*.txt")))
    file.write_bytes(damaged(rng, file.read_bytes()))
    return partial(_open, source)


def lenses(rng: Random, box: Path) -> Read:
    """Every camera model with parameters that nobody calibrated."""
    counts = {"SIMPLE_RADIAL": 4, "OPENCV": 8, "OPENCV_FISHEYE": 8, "FOV": 5, "PINHOLE": 4}
    model = choice(rng, sorted(counts))
    shots = capture()
    values = [14.0, 14.0, 8.0, 6.0, 0.1, -0.05, 0.01, 0.01][: counts[model]]
    for _ in range(int(rng.integers(1, 3))):
        values[int(rng.integers(len(values)))] = float(
            choice(rng, (1e-9, -1.0, 0.0, 5.0, -5.0, 1e6, np.nan, 1e300, 40.0))
        )
    shots.cameras = {1: (model, *SIZE, tuple(values))}
    return partial(_open, _dataset(box, shots))


def names(rng: Random, box: Path) -> Read:
    """Image names that lead elsewhere, links that do, links in a circle."""
    source = _dataset(box)
    shots = capture()
    images = source / "images"
    (images / "link_out.png").symlink_to(box / "secret.png")
    (images / "link_loop.png").symlink_to(images / "link_loop.png")
    (images / "link_folder").symlink_to(box)
    for shot in shots.shots:
        if rng.random() < 0.6:
            shot.name = str(choice(rng, NAMES)).replace("\0", "?")
    shots.write_bin(source / "sparse" / "0")
    return partial(_open, source)


def transforms_json(rng: Random, box: Path) -> Read:
    """nerfstudio's file, damaged in structure and values."""
    source = _dataset(box)
    for file in (source / "sparse" / "0").iterdir():
        file.unlink()
    content = transforms(capture())
    content |= {"applied_transform": np.eye(4)[:3].tolist(), "test_filenames": ["images/00.png"], "k1": 0.01}
    (source / "transforms.json").write_bytes(damaged_json(rng, content))
    return partial(_open, source)


def blender_json(rng: Random, box: Path) -> Read:
    """Blender's files."""
    source = _dataset(box)
    for file in (source / "sparse" / "0").iterdir():
        file.unlink()
    frames = [{**frame, "file_path": f"./{frame['file_path']}"} for frame in transforms(capture())["frames"]]
    for split, own in (("train", frames[1:]), ("test", frames[:1])):
        content = {"camera_angle_x": 0.8, "frames": own}
        (source / f"transforms_{split}.json").write_bytes(damaged_json(rng, content))
    return partial(_open, source)


def photos(rng: Random, box: Path) -> Read:
    """Pictures of every kind that are not what their header says."""
    source = _dataset(box)
    pixels = rng.integers(0, 256, (SIZE[1], SIZE[0], 4), dtype=np.uint8)
    kinds = (("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("TIFF", "RGB"), ("WEBP", "RGBA"),
             ("BMP", "RGB"), ("GIF", "P"), ("PNG", "I;16"), ("TIFF", "F"))  # fmt: skip
    for name in ("00.png", "01.png"):
        kind, mode = choice(rng, kinds)
        buffer = io.BytesIO()
        _picture(pixels, mode).save(buffer, format=kind)
        (source / "images" / name).write_bytes(damaged(rng, buffer.getvalue()))
    if rng.random() < 0.3:
        (source / "images" / "02.png").write_bytes(_bomb(rng))
    return partial(_open, source)


def _picture(pixels: np.ndarray, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    if mode == "F":
        return Image.fromarray(pixels[..., 0].astype(np.float32))
    return Image.fromarray(pixels).convert(mode)


def _bomb(rng: Random) -> bytes:
    """A PNG header that promises far more pixels than there are."""
    buffer = io.BytesIO()
    Image.new("RGB", SIZE).save(buffer, format="PNG")
    data = bytearray(buffer.getvalue())
    side = int(choice(rng, (20_000, 60_000, 2**31 - 1)))
    data[16:24] = np.array([side, side * 3 // 4], ">u4").tobytes()
    data[29:33] = np.array([zlib.crc32(data[12:29])], ">u4").tobytes()
    return bytes(data)


def masks(rng: Random, box: Path) -> Read:
    """Damaged masks beside sound photos."""
    source = _dataset(box)
    (source / "masks").mkdir()
    for k in range(4):
        buffer = io.BytesIO()
        Image.new(choice(rng, ("L", "1", "RGBA", "P")), SIZE, 1).save(buffer, format="PNG")
        data = buffer.getvalue()
        (source / "masks" / f"{k:02}.png").write_bytes(damaged(rng, data) if rng.random() < 0.5 else data)
    return partial(_open, source)


def splat_ply(rng: Random, box: Path) -> Read:
    """A splat PLY whose header or rows are damaged."""
    from scene.ply import write_gaussians

    count = 5
    arrays = {"means": (count, 3), "sh_dc": (count, 1, 3), "sh_rest": (count, 3, 3), "logit_opacities": (count, 1)}
    arrays |= {"log_scales": (count, 3), "quats": (count, 4)}
    path = box / "data" / "a.ply"
    write_gaussians(path, {name: rng.normal(size=shape).astype(np.float32) for name, shape in arrays.items()})
    path.write_bytes(damaged(rng, path.read_bytes()))
    return partial(_read_splats, path)


def other_splats(rng: Random, box: Path) -> Read:
    """The formats of other tools."""
    from scene.formats import glb, sog, splat, spz
    from tests.splat_tools import gaussians

    kind, module = choice(rng, (("spz", spz), ("splat", splat), ("glb", glb), ("sog", sog)))
    path = box / "data" / f"a.{kind}"
    path.parent.mkdir()
    module.write(path, gaussians(8, degree=int(rng.integers(3))))
    path.write_bytes(damaged(rng, path.read_bytes()))
    return partial(_read_splats, path)


def point_ply(rng: Random, box: Path) -> Read:
    """A point cloud for --init, binary or text."""
    path = box / "data" / "a.ply"
    write_points(path, rng.normal(size=(9, 3)), rng.integers(0, 256, (9, 3), dtype=np.uint8))
    if rng.random() < 0.4:
        rows = "\n".join(" ".join(map(str, row)) for row in rng.normal(size=(4, 3)).round(3).tolist())
        head = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
        path.write_text(f"{head}end_header\n{rows}\n")
    path.write_bytes(damaged(rng, path.read_bytes()))
    return lambda: _assert(np.isfinite(read_points(path).xyz).all())


def config_json(rng: Random, box: Path) -> Read:
    """A run's settings, edited by an enemy; then --resume on them."""
    folder = box / "out"
    folder.mkdir()
    settings = train.parse(["-s", str(_dataset(box)), "-m", str(folder), "--quiet"], train.phases.available())
    store.save(settings, folder / "config.json")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_bytes(damaged_json(rng, content))

    def read() -> None:
        again = train.parse(["-m", str(folder), "--resume"], train.phases.available())
        store.save(again, folder / "config.json")

    return read


def checkpoints(rng: Random, box: Path) -> Read:
    """A checkpoint with flipped bits, or of strange content under the right words."""
    payload = {
        "state": {"iteration": 3, "rows": {"means": torch.randn(4, 3)}},
        "phases": [{"masks": {0: torch.ones(2)}}],
    }
    path = checkpoint.save(box / "data", 3, payload, {"settings": {"run.seed": 0}})
    if rng.random() < 0.3:
        content = {
            "format": checkpoint.FORMAT,
            "version": choice(rng, (1, 2, None, "2")),
            "iteration": hostile_value(rng),
        }
        content |= {"about": hostile_value(rng), "payload": hostile_value(rng), "sha256": hostile_value(rng)}
        with contextlib.suppress(RecursionError, OverflowError):
            torch.save(content, path)
    else:
        path.write_bytes(damaged(rng, path.read_bytes()))

    def read() -> None:
        with contextlib.suppress(DamagedError):
            checkpoint.load(path)

    return read


ANSWER = '[{"bbox_2d": [100, 200, 300, 400], "label": "blur", "severity": 2}, {"bbox_2d": [0, 0, 1000, 1000]}]'


def answers(rng: Random, box: Path) -> Read:
    """Whatever a language model may say."""
    content = json.loads(ANSWER)
    text = damaged_json(rng, content).decode("utf-8", "replace")
    wrapped = choice(rng, ("{}", "```json\n{}\n```", "<think>{}</think>[]", "I see: {} and {}")).replace("{}", text)

    def read() -> None:
        for finding in parse_answer(wrapped, BoxFrame.of(64, 48)).findings:
            x0, y0, x1, y1 = finding.box.corners()
            assert 0 <= x0 < x1 <= 64 and 0 <= y0 < y1 <= 48

    return read


def audits(rng: Random, box: Path) -> Read:
    """A recorded inspection that is to be replayed."""
    record = {"view": "a.png", "detector": "qwen", "boxes": [{"bbox": [1, 2, 3, 4], "label": "x", "severity": 1}]}
    path = box / "data" / "audit.jsonl"
    path.parent.mkdir()
    path.write_bytes(damaged_json(rng, record) + b"\n" + json.dumps(record).encode() + b"\n")
    return partial(read_records, path)


def model_folder(rng: Random, box: Path) -> Read:
    """cfg_args, cameras.json, sidecars of a model folder that came from the net."""
    from scene.ply import write_gaussians

    folder = box / "out"
    place = folder / "point_cloud" / "iteration_7"
    arrays = {"means": (3, 3), "sh_dc": (3, 1, 3), "sh_rest": (3, 0, 3), "logit_opacities": (3, 1)}
    arrays |= {"log_scales": (3, 3), "quats": (3, 4)}
    write_gaussians(place / "point_cloud.ply", {k: np.ones(shape, np.float32) for k, shape in arrays.items()})
    np.savez(place / "point_cloud.extra.npz", labels=np.zeros(3, np.uint8), births=np.zeros(3, np.int32))
    words = f"Namespace(sh_degree=3, source_path={str(box / 'data')!r}, white_background=False, eval=True)"
    (folder / "cfg_args").write_text(words)
    camera = {"id": 0, "img_name": "a", "width": 16, "height": 12, "position": [0, 0, 0], "fx": 14, "fy": 14}
    camera["rotation"] = np.eye(3).tolist()
    (folder / "cameras.json").write_bytes(damaged_json(rng, [camera, camera]))
    for file in (place / "point_cloud.extra.npz", folder / "cfg_args"):
        if rng.random() < 0.5:
            file.write_bytes(damaged(rng, file.read_bytes()))

    def read() -> None:
        load_model(folder)
        read_viewpoints(folder / "cameras.json")

    return read


def paths(rng: Random, box: Path) -> Read:
    """A camera path."""
    frame = {"world_from_camera": np.eye(4).tolist(), "width": 16, "height": 12, "fx": 14.0, "fy": 14.0}
    own = {"fps": 24, "width": 16, "height": 12, "fx": 14, "fy": 14, "cx": 8, "cy": 6, "frames": [frame, frame]}
    pose = np.eye(4)[:3].ravel().tolist()
    neutral = {"format": "nerfbaselines-v1", "image_size": [16, 12], "fps": 10, "frames": [
        {"pose": pose, "intrinsics": [14, 14, 8, 6]}]}  # fmt: skip
    path = box / "data" / "path.json"
    path.parent.mkdir()
    path.write_bytes(damaged_json(rng, choice(rng, (own, neutral))))
    view = tiny.camera((0, -3, 1))

    def read() -> None:
        cameras, _ = camera_path(str(path), [view], 2)
        assert all(np.isfinite(camera.camera_from_world).all() for camera in cameras)

    return read


def reports(rng: Random, box: Path) -> Read:
    """A run folder with hostile words and numbers everywhere; its page must hold no script."""
    folder = write_run(box / "out", seed=0, size=(12, 16))
    for file in rng.permutation(sorted([*folder.glob("*.json"), *folder.glob("vlm/*/*.json*")]))[:3]:
        raw = Path(file).read_text()
        lines = [json.loads(line) for line in (raw.splitlines() if str(file).endswith("l") else [raw])]
        Path(file).write_bytes(b"\n".join(damaged_json(rng, line) for line in lines))
    log = folder / "log.jsonl"
    lines = log.read_text().splitlines()[:20]
    log.write_bytes(b"\n".join(damaged_json(rng, json.loads(line)) for line in lines if line.endswith("}")))

    def read() -> None:
        RunLog(log).read()
        _check_page(write_report(folder).read_text())

    return read


class _Page(HTMLParser):
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "iframe", "object", "embed", "link", "base", "form"}, f"the page has a <{tag}>"
        for name, value in attrs:
            assert not name.startswith("on"), f"the page has {name}={value!r}"
            if name in ("src", "href", "xlink:href", "action"):
                assert str(value).startswith(("data:image/", "#")), f"the page loads {value!r}"


def _check_page(text: str) -> None:
    _Page().feed(text)


KINDS: tuple[Callable[[Random, Path], Read], ...] = (
    *(colmap_binary, colmap_text, lenses, names, transforms_json, blender_json, photos, masks, splat_ply, other_splats),
    *(point_ply, config_json, checkpoints, answers, audits, model_folder, paths, reports),
)


# --- the guard ------------------------------------------------------------------------------------------------------


class Guard:
    """Watches what the interpreter opens, deletes and starts while an input is read."""

    def __init__(self) -> None:
        self.box: Path | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.box is None:
            return
        if event == "open":
            path, mode, flags = args
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else "r" not in str(mode)
            self._check(event, path, writes=bool(writes))
        elif event in ("os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink", "os.chmod", "shutil.rmtree"):
            self._check(event, args[0], writes=True)
        elif event == "os.rename":
            self._check(event, args[0], writes=True)
            self._check(event, args[1], writes=True)
        elif event in ("subprocess.Popen", "os.system", "os.exec", "socket.connect"):
            self._alarm(event, args)

    def _check(self, event: str, path: Any, *, writes: bool) -> None:
        if isinstance(path, int) or path is None or self.box is None:
            return
        text = os.path.realpath(os.fsdecode(path))
        inside = text.startswith(f"{self.box}{os.sep}")
        secret = text in (f"{self.box}/secret.png", "/etc/passwd")
        dataset = text.startswith(f"{self.box}/data") and (self.box / "data" / "sparse").is_dir()
        if secret or (writes and (not inside or dataset) and text != os.devnull):
            self._alarm(event, path)

    def _alarm(self, event: str, what: Any) -> None:
        self.box = None
        raise EscapeError(f"{event} of {what!r}")


GUARD = Guard()


@contextlib.contextmanager
def _within_a_minute() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise EscapeError(f"more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Libraries that write to stderr themselves make more than one line of a refusal."""
    with tempfile.TemporaryFile() as said:
        before = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            said.seek(0)
            lines = [line for line in said if not line.startswith(b"TIFF")]  # Pillow's libtiff cannot be silenced
            if lines:
                raise EscapeError(f"said on stderr: {lines[0][:200]!r}")


# --- the run --------------------------------------------------------------------------------------------------------


def attempt(seed: int) -> tuple[str, str | None, bool]:
    """Make the input of a seed and have it read.

    Returns:
        Its kind; what went wrong or None; whether it was refused.
    """
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    with tempfile.TemporaryDirectory() as folder:
        box = Path(os.path.realpath(folder))
        Image.new("RGB", SIZE).save(box / "secret.png")
        try:
            with _within_a_minute(), _silent(), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read = kind(rng, box)
                GUARD.box = box
                read()
        except UserError as error:
            return kind.__name__, _badly_told(one_line(str(error))), True
        except (Exception, EscapeError) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return kind.__name__, f"{type(error).__name__}: {error} at {where.filename}:{where.lineno}", False
        finally:
            GUARD.box = None
    return kind.__name__, None, False


def _badly_told(message: str) -> str | None:
    """A refusal names something and says more than that."""
    if len(message) < 20 or not ("/" in message or "--" in message or "image" in message):
        return f"badly told: {message[:300]!r}"
    return None


def main(argv: list[str] | None = None) -> int:
    """The command; 1 when an input did harm."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    parser.add_argument("--current", type=Path, help="file that names the seed in work, for crashes")
    settings = parser.parse_args(argv)
    torch.set_num_threads(1)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    done, refused, failures = Counter(), Counter(), 0
    for seed in range(settings.seed, settings.seed + settings.count):
        if settings.current:
            settings.current.write_text(str(seed))
        kind, wrong, no = attempt(seed)
        done[kind] += 1
        refused[kind] += no
        if wrong:
            failures += 1
            print(f"seed {seed} ({kind}): {wrong}", flush=True)
    for kind, count in sorted(done.items()):
        print(f"{kind:16} {count:6} inputs, {refused[kind]:6} refused")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{sum(done.values())} inputs, {failures} failures, peak {peak} MiB")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
