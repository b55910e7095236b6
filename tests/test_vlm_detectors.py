# SPDX-License-Identifier: Apache-2.0
"""What counts as a finding: the bar, the masks, the detectors without a model, and settings that cannot work."""

import json

import numpy as np
import pytest
import torch

from arguments import DetectorConfig
from utils.errors import UserError
from vlm import check_detector, detector_kind, open_detector
from vlm.acceptance import judge, random_acceptance
from vlm.audit import AuditRound
from vlm.defects import Box, DetectionResult, Finding, error_map
from vlm.masks import soft_mask
from vlm.placebo import PlaceboDetector
from vlm.replay import ReplayDetector
from vlm.residual import ResidualDetector

HEIGHT, WIDTH = 90, 120
DEFECT = Box(30, 20, 70, 50)


def spoiled(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A photo, and a render of it with a little error everywhere and much inside DEFECT."""
    g = torch.Generator().manual_seed(seed)
    photo = torch.rand(3, HEIGHT, WIDTH, generator=g)
    render = photo + 0.02 * torch.randn(3, HEIGHT, WIDTH, generator=g)
    render[:, 20:50, 30:70] += 0.4 * torch.rand(3, 30, 40, generator=g)
    return render.clamp(0, 1), photo


def trained_like(seed: int) -> np.ndarray:
    """An error map as trained scenes have: skewed, in patches, with much low error."""
    rng = np.random.default_rng(seed)
    import cv2

    patches = cv2.GaussianBlur(rng.normal(size=(HEIGHT, WIDTH)), (0, 0), 6)
    return np.exp(1.2 * patches / patches.std()) * rng.exponential(size=(HEIGHT, WIDTH)) * 0.02


def iou(a: Box, b: Box) -> float:
    width = max(0.0, min(a.x1, b.x1) - max(a.x0, b.x0))
    height = max(0.0, min(a.y1, b.y1) - max(a.y0, b.y0))
    return width * height / (a.area + b.area - width * height)


def test_a_box_round_the_defect_is_accepted_and_one_elsewhere_is_not():
    error = error_map(*spoiled()).numpy()
    good, bad = judge([Finding(DEFECT), Finding(Box(80, 60, 110, 80))], error)
    assert good.accepted and "above" in good.reason
    assert not bad.accepted and "not above" in bad.reason


@pytest.mark.parametrize("box", [Box(0, 0, WIDTH, HEIGHT), Box(40, 30, 41, 31), Box(0, 0, WIDTH, 60)])
def test_boxes_of_an_absurd_size_are_rejected_for_it(box):
    (judged,) = judge([Finding(box)], error_map(*spoiled()).numpy())
    assert not judged.accepted and judged.reason.startswith("area")


def test_pixels_that_do_not_count_do_not_lower_the_bar():
    error = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (100, 1))
    error[:, :50] = np.nan
    middling, worst, masked = (Finding(Box(x, 0, x + 10, 100)) for x in (72, 88, 20))
    assert judge([middling], np.nan_to_num(error))[0].accepted, "as if the masked half were right"
    assert [verdict.accepted for verdict in judge([middling, worst, masked], error)] == [False, True, False]
    assert judge([masked], error)[0].reason == "masked out in the photo"
    assert not judge([worst], np.full_like(error, np.nan))[0].accepted


def test_where_nothing_is_worse_nothing_is_accepted():
    flat = np.full((HEIGHT, WIDTH), 0.1)
    assert not judge([Finding(DEFECT)], flat)[0].accepted


@pytest.mark.parametrize("side", [12, 25, 45])
def test_random_boxes_are_accepted_less_than_two_times_in_five(side):
    boxes = [Box(0, 0, side, side)] * 20
    rates = [random_acceptance(boxes, trained_like(k), np.random.default_rng(k)) for k in range(5)]
    assert np.mean(rates) < 0.4


def test_no_boxes_have_no_rate():
    assert random_acceptance([], trained_like(0), np.random.default_rng(0)) is None


def test_masks_leave_good_pixels_inside_a_box_alone():
    error = np.zeros((HEIGHT, WIDTH), np.float32)
    error[20:50, 30:50] = 0.3
    mask = soft_mask([DEFECT], error)
    assert mask[25:45, 32:45].min() > 0.9
    assert mask[20:50, 58:70].max() < 0.05
    assert mask[:20].max() == mask[:, 70:].max() == 0 and mask.max() <= 1


def test_the_residual_detector_boxes_the_defect_and_nothing_on_equal_pictures():
    render, photo = spoiled()
    best = ResidualDetector(3).detect("a", render, photo).findings[0]
    assert iou(best.box, DEFECT) > 0.7
    assert not ResidualDetector(3).detect("a", photo, photo).findings


def test_a_placebo_has_the_same_sizes_elsewhere_every_time_alike():
    render, photo = spoiled()
    other = ResidualDetector(2)
    placebo = PlaceboDetector(other, seed=5)
    moved, again = (placebo.detect("a", render, photo).findings for _ in range(2))
    meant = [
        j.finding.box
        for j in judge(other.detect("a", render, photo).findings, error_map(render, photo).numpy())
        if j.accepted
    ]
    assert [round(f.box.area) for f in moved] == [round(box.area) for box in meant]
    assert moved == again
    assert [f.box for f in moved] != meant
    assert placebo.detect("b", render, photo).findings != moved
    assert not placebo.judged


def recorded(folder, detector=None) -> DetectionResult:
    """A run with one inspection of one view."""
    render, photo = spoiled()
    detector = detector or ResidualDetector(2)
    result = detector.detect("a/b.jpg", render, photo)
    audit = AuditRound(folder / "vlm" / "round_1")
    audit.add(
        "a/b.jpg",
        (detector.name, detector.model),
        result,
        judge(result.findings, error_map(render, photo).numpy()),
        render,
        photo,
    )
    audit.write()
    return result


def test_a_replay_says_exactly_what_was_recorded(tmp_path):
    result = recorded(tmp_path)
    replay = ReplayDetector(tmp_path, 1)
    assert replay.views() == ["a/b.jpg"]
    assert replay.detect("a/b.jpg", *spoiled(1)).findings == result.findings
    assert replay.detect("other.jpg", *spoiled()).failed


def test_a_replayed_placebo_stays_one(tmp_path):
    recorded(tmp_path, PlaceboDetector(ResidualDetector(2), 0))
    assert not ReplayDetector(tmp_path, 1).judged


@pytest.mark.parametrize(
    "line",
    ["", "nonsense", "[]", '{"view": 3}', '{"view": "a", "boxes": [{"bbox": [1, 2, 3]}]}',
     '{"view": "a", "boxes": [{"bbox": [3, 2, 1, 9]}]}', '{"view": "a", "boxes": [{"bbox": [1, 2, NaN, 9]}]}'],
)  # fmt: skip
def test_a_damaged_recording_is_one_line(tmp_path, line):
    recorded(tmp_path)
    path = tmp_path / "vlm" / "round_1" / "audit.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"audit.jsonl") as told:
        check_detector(DetectorConfig(vlm_replay=tmp_path))
    assert "\n" not in str(told.value)


def test_the_audit_has_pictures_before_and_after(tmp_path):
    recorded(tmp_path)
    folder = tmp_path / "vlm" / "round_1"
    audit = AuditRound.read(folder)
    audit.finish({"a/b.jpg": spoiled()[1]}, {"a/b.jpg": {"before": {"inside": 0.3}, "after": {"inside": 0.1}}})
    (record,) = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    assert {"view", "detector", "model", "prompt", "raw_answer", "boxes"} <= set(record)
    assert all({"bbox", "accepted", "reason"} <= set(box) for box in record["boxes"])
    assert set(record["pictures"]) == {"render", "photo", "overlay", "after", "crops"}
    assert all((folder / name).stat().st_size for name in record["pictures"].values())
    assert record["errors"]["after"]["inside"] == 0.1


def test_a_picture_that_was_deleted_during_the_round_costs_its_crops_only(tmp_path):
    recorded(tmp_path)
    folder = tmp_path / "vlm" / "round_1"
    audit = AuditRound.read(folder)
    (folder / audit.records[0]["pictures"]["photo"]).unlink()
    audit.finish({"a/b.jpg": spoiled()[1]}, {"a/b.jpg": {"after": {"inside": 0.1}}})
    (record,) = AuditRound.read(folder).records
    assert "crops" not in record["pictures"] and record["errors"]["after"]["inside"] == 0.1


@pytest.mark.parametrize(
    ("flags", "kind"),
    [({}, "residual"), ({"qwen_model_path": "x"}, "qwen"), ({"vlm_endpoint": "http://x"}, "endpoint"),
     ({"vlm_replay": "x"}, "replay"), ({"detector": "none", "qwen_model_path": "x"}, "none")],
)  # fmt: skip
def test_flags_imply_their_detector(flags, kind):
    assert detector_kind(DetectorConfig(**flags)) == kind


@pytest.mark.parametrize(
    "flags",
    [
        {"qwen_model_path": "no/such/folder"},
        {"detector": "qwen"},
        {"detector": "endpoint"},
        {"vlm_endpoint_model": "mine"},
        {"detector": "replay"},
        {"vlm_endpoint": "file:///etc/passwd"},
        {"vlm_endpoint": "http://127.0.0.1:1"},
        {"vlm_endpoint": "http://127.0.0.1:1", "vlm_endpoint_model": "mine"},
        {"detector": "placebo", "qwen_model_path": "no/such/folder"},
    ],
)
def test_settings_that_cannot_work_are_one_line_before_training(flags):
    with pytest.raises(UserError) as told:
        check_detector(DetectorConfig(**flags))
    assert "\n" not in str(told.value) and "--" in str(told.value)


@pytest.mark.parametrize("kind", ["residual", "none", "placebo"])
def test_detectors_without_a_model_need_nothing(kind):
    config = DetectorConfig(detector=kind)
    check_detector(config)
    with open_detector(config, round_number=1, max_boxes=3, pixels=(1, 2), seed=0) as detector:
        assert (detector is None) == (kind == "none")
        assert detector is None or detector.name == kind
