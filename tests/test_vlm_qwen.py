# SPDX-License-Identifier: Apache-2.0
"""The path of a real Qwen3-VL, walked by the embedded tiny model; broken directories, a broken torchvision."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from arguments import DetectorConfig
from utils.errors import UserError
from vlm import check_detector, embedded, open_detector
from vlm.directory import check_directory, clamped, pixel_range
from vlm.embedded.measure import iou, tally
from vlm.embedded.pictures import PairMaker
from vlm.qwen import PIXELS, TOKEN, open_qwen, token_size

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = DetectorConfig(qwen_model_path="embedded")


@pytest.fixture(scope="module")
def detector():
    check_detector(EMBEDDED)
    with open_detector(EMBEDDED, round_number=1, max_boxes=3, pixels=PIXELS, seed=0) as opened:
        yield opened


@pytest.fixture
def maker():
    """Of each test its own: the same pairs whatever ran before."""
    cv2.setNumThreads(1)
    return PairMaker(seed=777, pool=12)


@pytest.fixture
def directory(tmp_path):
    """A copy of the embedded model that a test may damage."""
    return shutil.copytree(embedded.MODEL_DIR, tmp_path / "model")


def tensors(pair):
    return [torch.from_numpy(picture).permute(2, 0, 1).contiguous() for picture in (pair.render, pair.photo)]


def test_the_model_ships_within_four_megabytes_and_is_called_what_it_is(detector):
    assert sum(file.stat().st_size for file in embedded.MODEL_DIR.iterdir()) < 4_000_000
    assert detector.name == "qwen" and detector.model == "embedded tiny model"


def test_answers_are_readable_json(detector, maker):
    for size in ((96, 128), (128, 96), (200, 300), (40, 33)):
        result = detector.detect("a", *tensors(maker.pair(*size, 1)))
        assert not result.failed and not result.dropped, result.raw_answer
        for finding in result.findings:
            assert 0 <= finding.box.x0 < finding.box.x1 <= size[1] and 0 <= finding.box.y0 < finding.box.y1 <= size[0]


def test_answers_do_not_change(detector, maker):
    pictures = tensors(maker.pair(96, 128, 2))
    assert detector.detect("a", *pictures) == detector.detect("b", *pictures)


def test_planted_defects_are_boxed_and_named(detector, maker):
    found = tally(detector, (maker.pair(96, 128, 1) for _ in range(24)))
    every = np.concatenate([np.array(values) for values in found.best.values()])
    assert every.mean() > 0.48 > 2 * np.mean(found.chance)
    assert (every >= 0.5).mean() > 0.6
    assert found.labels > 0.6 * len(every)


def test_two_defects_are_told_apart(detector, maker):
    found = tally(detector, (maker.pair(128, 128, 2) for _ in range(20)))
    every = np.concatenate([np.array(values) for values in found.best.values()])
    assert every.mean() > 0.35 and found.boxes > 0.7 * len(every)


def test_clean_pairs_are_left_alone(detector, maker):
    assert tally(detector, (maker.pair(128, 96, 0) for _ in range(24))).boxes <= 1


def test_both_pictures_are_looked_at(detector, maker):
    pairs = [tensors(maker.pair(96, 128, 1)) for _ in range(12)]
    told = [detector.detect("a", render, photo).raw_answer for render, photo in pairs]
    alike = [detector.detect("a", photo, photo).raw_answer for _, photo in pairs]
    assert told.count("[]") <= 2 and alike.count("[]") >= 11


def test_overlap_is_that_of_areas():
    assert iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0


def test_the_model_is_gone_after_use(directory):
    with open_qwen(directory) as opened:
        assert opened.model == "model"
    assert opened._model is None and opened._processor is None


def test_the_pixel_budget_stays_within_what_the_model_was_trained_for():
    own = pixel_range(embedded.MODEL_DIR)
    assert clamped(PIXELS, own) == own
    assert clamped(PIXELS, (65536, 16777216)) == PIXELS
    assert clamped(PIXELS, (65536, 1_500_000)) == (PIXELS[0], 1_500_000)
    assert clamped((1000, 5_000_000), (65536, 1_500_000)) == (65536, 1_500_000)
    assert clamped(PIXELS, None) == PIXELS


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (30, 40), (100, 100), (400, 1000), (3000, 4000)])
@pytest.mark.parametrize("budget", [PIXELS, (12 * 1024, 16 * 1024)])
def test_pictures_are_whole_tokens_within_the_budget(size, budget):
    height, width = token_size(*size, *budget)
    assert height % TOKEN == width % TOKEN == 0
    assert height * width <= budget[1]
    assert height * width >= 0.6 * budget[0]
    assert height / width == pytest.approx(size[0] / size[1], rel=0.35)


def cut_weights(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pointer_for_weights(path):
    (path / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 4255140312\n"
    )


def other_architecture(path):
    config = json.loads((path / "config.json").read_text()) | {"model_type": "qwen2_5_vl"}
    (path / "config.json").write_text(json.dumps(config))


def missing_shard(path):
    (path / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


DAMAGES = {
    "weights cut": cut_weights,
    "pointer": pointer_for_weights,
    "other model": other_architecture,
    "missing shard": missing_shard,
    "no weights": lambda path: (path / "model.safetensors").unlink(),
    "no config": lambda path: (path / "config.json").unlink(),
    "config cut": lambda path: (path / "config.json").write_text('{"model_type": '),
    "config a list": lambda path: (path / "config.json").write_text("[]"),
    "no preprocessor": lambda path: (path / "preprocessor_config.json").unlink(),
    "no tokenizer": lambda path: (path / "tokenizer_config.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_broken_directory_is_found_before_training(directory, damage):
    check_directory(directory)
    damage(directory)
    with pytest.raises(UserError) as told:
        check_detector(DetectorConfig(qwen_model_path=str(directory)))
    assert "\n" not in str(told.value) and str(directory) in str(told.value)


def test_the_check_does_not_import_transformers():
    code = (
        "import sys; from vlm import check_detector; from arguments import DetectorConfig; "
        "check_detector(DetectorConfig(qwen_model_path='embedded')); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_broken_torchvision_is_survived(tmp_path):
    """It is installed, as transformers sees it, and its import raises what a wheel for another torch raises."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    (tmp_path / "torchvision-0.28.0.dist-info").mkdir()
    (tmp_path / "torchvision-0.28.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n"
    )
    code = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import torch
        from vlm import embedded
        from vlm.qwen import open_qwen
        with open_qwen(embedded.MODEL_DIR) as detector:
            picture = torch.rand(3, 96, 128)
            assert not detector.detect("a", picture, picture).failed
        assert sys.modules["torchvision"] is None
        """
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True)
