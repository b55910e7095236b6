# SPDX-License-Identifier: Apache-2.0
"""Answers of language models are read with tolerance and never trusted; boxes keep their place in every frame."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm.boxes import LONGEST, MOST, BoxFrame, parse_answer
from vlm.defects import Box

FRAME = BoxFrame.of(1000, 1000)
ONE = [(100, 200, 300, 400)]
READABLE = {
    '[{"bbox_2d": [100, 200, 300, 400], "label": "blur"}]': ONE,
    '```json\n[\n\t{"bbox_2d": [100, 200, 300, 400], "label": "blur"}\n]\n```': ONE,
    'Here it is:\n{"bbox_2d": [100, 200, 300, 400]}\nI hope this helps [1].': ONE,
    '[{"bbox": [100, 200, 300, 400]}]': ONE,
    '{"defects": [{"bbox_2d": [100, 200, 300, 400]}]}': ONE,
    "[{'bbox_2d': [100, 200, 300, 400], 'label': 'blur'},]": ONE,
    "[[100, 200, 300, 400]]": ONE,
    "[100, 200, 300, 400]": ONE,
    '<think>[{"bbox_2d": [1, 2, 3, 4]}] maybe?</think>[{"bbox_2d": [100, 200, 300, 400]}]': ONE,
    '[{"bbox_2d": [300, 400, 100, 200]}]': ONE,
    '[{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [5, 6, 700, 80': ONE,
    '[{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [100, 200, 300, 400]}]': ONE,
    '[{"bbox_2d": [900, 900, 1050, 1020]}]': [(900, 900, 1000, 1000)],
    '[{"bbox_2d": [1e2, 2.0E2, 300.0, 400]}]': ONE,
    "[]": [],
    "```json\n[]\n```": [],
    '{"defects": []}': [],
    "Everything looks fine, so: []": [],
    '[{"bbox_2d": [500, 500, 500, 600]}]': [],
    '[{"bbox_2d": [1, 2, "a", 4]}]': [],
    '[{"bbox_2d": [1, 2, 3]}, {"bbox_2d": null}, {"label": "blur"}]': [],
    '[{"bbox_2d": [NaN, 2, 3, 4]}]': [],
    '[{"bbox_2d": [1, 2, Infinity, 4]}]': [],
    '[{"bbox_2d": [true, false, true, true]}]': [],
    '[{"bbox_2d": [100, 200, 30000, 40000]}]': [],
    f'[{{"bbox_2d": [1, 2, 1{"0" * 400}, 4]}}]': [],
}
NO_ANSWER = [
    "",
    "I'm sorry, but I cannot help with that.",
    "There are no visible defects.",
    "[" * 5000,
    '{"a":' * 5000,
    "[[1, 2], [3, 4]]",
    "```",
    "\x00\ud800",
    "<think>[] hm",
]


@pytest.mark.parametrize(("text", "expected"), READABLE.items(), ids=range(len(READABLE)))
def test_what_models_write_is_read(text, expected):
    answer = parse_answer(text, FRAME)
    assert answer.readable
    assert [finding.box.corners() for finding in answer.findings] == expected


@pytest.mark.parametrize("text", NO_ANSWER, ids=range(len(NO_ANSWER)))
def test_a_refusal_is_no_empty_list(text):
    answer = parse_answer(text, FRAME)
    assert not answer.readable and not answer.findings


def test_what_is_dropped_has_a_reason():
    text = '[{"bbox_2d": [1, 2, 3]}, {"bbox_2d": [5, 5, 5, 9]}, {"bbox_2d": [0, 0, 9999, 9]}]'
    reasons = parse_answer(text, FRAME).dropped
    assert [reason.partition(":")[0] for reason in reasons] == ["not four numbers", "empty", "outside 0-1000"]


def test_a_model_that_loops_is_cut_off():
    boxes = [{"bbox_2d": [k, 0, k + 10, 10]} for k in range(300)]
    answer = parse_answer(json.dumps(boxes), FRAME)
    assert len(answer.findings) == MOST and "more than" in answer.dropped[-1]
    parse_answer("[" * (10 * LONGEST), FRAME)


def test_label_and_severity_are_kept_within_reason():
    text = json.dumps([{"bbox_2d": [1, 2, 3, 4], "label": "x" * 500, "severity": 99}, {"bbox": [5, 6, 7, 8]}])
    first, second = parse_answer(text, FRAME).findings
    assert len(first.label) == 80 and first.severity == 3
    assert second.label == "" and second.severity == 1
    assert parse_answer('[{"bbox": [1, 2, 3, 4], "severity": "2"}]', FRAME).findings[0].severity == 2
    assert parse_answer('[{"bbox": [1, 2, 3, 4], "severity": [7], "label": {}}]', FRAME).findings[0].severity == 1


@given(st.text(max_size=300))
def test_no_text_raises(text):
    parse_answer(text, FRAME)


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["bbox_2d", "bbox", "label", "severity", "x"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON_LIKE, st.integers(1, 300), st.integers(1, 300), st.integers(0, 60))
def test_boxes_of_any_answer_lie_in_the_picture(value, width, height, cut):
    text = json.dumps(value)
    for body in (text, text[: len(text) - cut], f"```json\n{text}"):
        for finding in parse_answer(body, BoxFrame.of(width, height)).findings:
            box = finding.box
            assert 0 <= box.x0 < box.x1 <= width * (1 + 1e-9)
            assert 0 <= box.y0 < box.y1 <= height * (1 + 1e-9)


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4), st.sampled_from(["```json\n%s\n```", "So: %s.", "%s"]))
def test_a_written_box_comes_back(corners, frame):
    text = frame % json.dumps([{"bbox_2d": corners, "label": "blur"}])
    x0, x1 = sorted((corners[0], corners[2]))
    y0, y1 = sorted((corners[1], corners[3]))
    found = parse_answer(text, FRAME).findings
    expected = [(x0, y0, x1, y1)] if x0 < x1 and y0 < y1 else []
    assert [finding.box.corners() for finding in found] == expected


@pytest.mark.parametrize(
    ("size", "resized"),
    [((640, 480), (1184, 896)), ((300, 533), (96, 160)), ((17, 9), (160, 96)), ((4000, 3000), (1472, 1088))],
)
def test_frames_are_converted_into_one_another(size, resized):
    frame = BoxFrame(*size, *resized)
    whole = frame.from_relative(Box(0, 0, 1000, 1000))
    assert whole.corners() == pytest.approx((0, 0, *size))
    assert frame.to_resized(whole).corners() == pytest.approx((0, 0, *resized))
    quarter = Box(size[0] / 2, 0, size[0], size[1] / 2)
    assert frame.to_relative(quarter).corners() == pytest.approx((500, 0, 1000, 500))
    assert frame.from_resized(frame.to_resized(quarter)).corners() == pytest.approx(quarter.corners())


def test_a_box_in_a_tiny_image_still_covers_a_pixel():
    rows, columns = Box(2.9, 0.0, 3.0, 0.1).cut(3, 3)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (0, 1, 2, 3)
