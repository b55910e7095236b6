# SPDX-License-Identifier: Apache-2.0
"""The report is one page that needs nothing else, shows what is there, and trusts no text."""

import base64
import hashlib
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.synthetic_run import HOSTILE, geometry, write_run
from utils.report import main, write_report
from utils.report_data import read_run
from utils.report_html import STYLE, escape, tag
from utils.report_plots import Band, Series, compact, curves, scene_from_two_sides, thinned

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Every element of a page, and whether each was closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.elements)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "garden")


@pytest.fixture(scope="module")
def page(run) -> str:
    return write_report(run).read_text()


def test_every_part_of_a_full_run_is_shown(page):
    words = Page(page).words
    for title in (
        "Held-out views",
        "Course of the training",
        "Where things are",
        "Snapshots",
        "Inspections of phase 2",
        "Time by stage",
        "Configuration",
    ):
        assert title in words
    assert "3,000 iterations · main → ambient → vlm" in words


def test_each_shown_view_has_render_photo_and_error(page):
    images = [attributes for name, attributes in Page(page).elements if name == "img"]
    views, snapshots, audited = 4 * 3, 4, 2 * (2 * 3 + 2)
    assert len(images) == views + snapshots + audited
    assert all(image["alt"] for image in images)


def test_what_a_mask_hides_is_no_error(tmp_path):
    run = write_run(tmp_path / "run")
    folder = run / "test" / "ours_3000"
    (folder / "masks").mkdir()
    for photo in (folder / "gt").iterdir():
        with Image.open(photo) as image:
            Image.new("L", image.size, 0).save(folder / "masks" / photo.name)
    images = [attributes for name, attributes in Page(write_report(run).read_text()).elements if name == "img"]
    errors = [image["src"].partition("base64,")[2] for image in images if image["alt"] == "Error"]
    assert errors
    for data in errors:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert max(high for _, high in image.getextrema()) < 16


def test_the_worst_view_comes_first_and_the_best_last(page, run):
    psnr = json.loads((run / "per_view.json").read_text())["ours_3000"]["PSNR"]
    shown = [float(value) for value in re.findall(r"Render \d{5} · ([\d.]+) dB</figcaption>", page)]
    assert shown[0] == pytest.approx(min(psnr.values()), abs=0.01)
    assert shown[-1] == pytest.approx(max(psnr.values()), abs=0.01)
    assert shown == sorted(shown)


def test_a_round_tells_its_rate_beside_chance_and_the_errors_on_both_sides(page):
    words = Page(page).words
    assert "4 views, 6 boxes, 2 accepted (33%), 1 call failed, " in words
    assert "of boxes of the same area at random places 21% would be accepted" in words
    assert "Held-out views, inside the masks0.12000.0600-50%" in words
    assert "error inside 0.120 → 0.060 (-50%)" in words


def test_views_with_boxes_come_first_and_a_failed_call_is_not_a_clean_view(page):
    words = Page(page).words
    first = words.index("Round 1")
    assert first < words.index("a/0 blurred", first) < words.index("failed: timed out") < words.index("nothing marked")
    assert "1 view with nothing marked" in words
    assert words.count("Asked of every view") == 2


def test_snapshots_of_one_iteration_follow_the_phases(page):
    assert page.index("400 · main end") < page.index("400 · ambient insertion") < page.index("2,000 · ambient end")


def test_nothing_is_loaded_from_anywhere(page):
    for name, attributes in Page(page).elements:
        assert name not in {"script", "link", "iframe", "object", "embed", "base", "form", "use"}
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in {"src", "href", "srcset", "data", "style"}:
                assert key == "src" and value.startswith("data:image/jpeg;base64,")
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page).replace("http-equiv", "")
    assert "url(" not in page and "@import" not in page


def test_the_policy_allows_the_one_style_sheet_and_data_pictures_only(page):
    (policy,) = (a["content"] for name, a in Page(page).elements if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert policy.split("; ")[:3] == ["default-src 'none'", "img-src data:", f"style-src 'sha256-{digest}'"]
    assert f"<style>{STYLE}</style>" in page


def test_hostile_text_stays_text(tmp_path):
    run = write_run(tmp_path / "<b>run", text=HOSTILE)
    page = write_report(run).read_text()
    parsed = Page(page)
    assert parsed.count("script") == 0
    assert parsed.count("b") == Page(write_report(write_run(tmp_path / "calm")).read_text()).count("b")
    assert all("onerror" not in attributes for _, attributes in parsed.elements)
    assert HOSTILE.replace("\x07", "\ufffd") in parsed.words, "and it can be read"
    assert "\x07" not in page


def test_audit_pictures_come_from_the_audits_own_folder_only(tmp_path):
    run = write_run(tmp_path / "run")
    before = Page(write_report(run).read_text()).count("img")
    audit = run / "vlm" / "round_1" / "audit.jsonl"
    record = json.loads(audit.read_text().splitlines()[1])
    record["pictures"] = {"render": "../../snapshots/400_main_end.png", "photo": "/etc/passwd"}
    audit.write_text(json.dumps(record) + "\n")
    assert Page(write_report(run).read_text()).count("img") == before - (2 * 3 + 2)


@pytest.mark.parametrize(
    "missing",
    ["config.json", "log.jsonl", "results.json", "per_view.json", "geometry.json", "test", "snapshots", "vlm", "*"],
)
def test_a_missing_part_is_left_out(run, tmp_path, missing):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for path in copy.glob(missing):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    parsed = Page(write_report(copy).read_text())
    assert parsed.count("h1") == 1
    assert parsed.count("h2") == 0 if missing == "*" else parsed.count("h2") >= 5


@pytest.mark.parametrize(
    "content", ["", "garbage", "[1, 2]", '{"a": NaN, "ours_1": 3, "tube": [], "focus": "x"}', "\x00\xff"]
)
def test_damaged_files_do_not_stop_the_report(run, tmp_path, content):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for path in [*copy.rglob("*.json"), *copy.rglob("*.jsonl"), *copy.rglob("*.png")]:
        path.write_text(content)
    assert Page(write_report(copy).read_text()).count("img") == 0


def test_another_run_stands_beside_it(run, tmp_path):
    other = write_run(tmp_path / "plain_fastgs", seed=1)
    parsed = Page(write_report(run, [other]).read_text())
    assert "Runs side by side" in parsed.words
    curves_drawn = [a for name, a in parsed.elements if name == "polyline" and "curve" in (a.get("class") or "")]
    assert len(curves_drawn) == 3 * 2
    assert "run.seed01" in parsed.words, "settings that differ are shown"


def test_writing_twice_gives_equal_bytes(run):
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_the_command_names_a_folder_that_is_not_there(tmp_path):
    from utils.errors import UserError

    for arguments in ([], ["--help-me"], [str(tmp_path / "nowhere")]):
        with pytest.raises(UserError):
            main(arguments)


# --- the parts ---


def test_escaping_happens_once_and_to_everything_that_is_not_markup():
    assert tag("p", "a<b", title='"&') == '<p title="&quot;&amp;">a&lt;b</p>'
    assert tag("p", tag("b", "<")) == "<p><b>&lt;</b></p>"
    assert tag("p", tag("b") + "<i>") == "<p>&lt;b&gt;&lt;/b&gt;&lt;i&gt;</p>", "a sum is text again"
    assert escape(None) == "None"


def test_curves_end_at_their_data():
    drawing = curves("y", [Series("run", [(0, 0.0), (100, 1.0)])])
    assert 'points="46.0,226.0 390.0,22.0"' in drawing


def test_a_constant_curve_and_a_single_point_can_be_drawn():
    assert "nan" not in curves("y", [Series("run", [(1, 5.0), (2, 5.0)])])
    assert "dot" in curves("y", [Series("run", [(0, 0.0)])])
    assert curves("y", [Series("run", [])]) == ""


def test_thinning_keeps_the_mean():
    points = [(float(k), float(k % 7)) for k in range(1200)]
    thin = thinned(points)
    assert len(thin) == 120
    np.testing.assert_allclose(np.mean(thin, 0), np.mean(points, 0))


def test_numbers_are_short():
    assert [compact(v) for v in (0, 0.05, 950, 12_340, 3_000_000)] == ["0", "0.05", "950", "12.3k", "3M"]


def test_phases_are_bands_that_join(run):
    assert read_run(run).bands == [Band("main", 0, 400), Band("ambient", 400, 2000), Band("vlm", 2000, 3000)]


def test_time_adds_up_over_the_stages(run):
    data = read_run(run)
    trained = data.curve("elapsed")[-1][1]
    assert data.seconds == pytest.approx(trained + 3 * 4.2, rel=1e-6)
    assert dict((name, seconds) for name, _, seconds in data.stages)["seeds"] == pytest.approx(3 * 4.2)


def test_the_side_view_has_up_upwards_and_the_tube_leaning():
    """With up = -y of the world, a camera above the focus is drawn above it."""
    plan = {"focus": [1, 1, 1], "up": [0, -1, 0], "subject_radius": 1, "cameras": [[1, -3, 1]]}
    side, above = re.findall(r"<svg.*?</svg>", scene_from_two_sides(plan))
    center, camera = (float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', side))
    assert camera < center
    center, camera = (float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', above))
    assert camera == center


def test_the_wall_is_drawn_as_rings_and_lines_on_the_ellipse():
    """Seen from above, the rings of an upright tube fall on one another: its ellipse, to scale with the subject."""
    upright = {"center": [0, 0, 0], "axis": [0, 0, 1], "across": [[1, 0, 0], [0, 1, 0]], "semi_axes": [4, 2]}
    plan = {"focus": [0, 0, 0], "up": [0, 0, 1], "subject_radius": 1, "cameras": [[3, 0, 0], [-3, 0, 0], [0, 1, 0]]}
    _, above = re.findall(r"<svg.*?</svg>", scene_from_two_sides({**plan, "tube": {**upright, "half_length": 7}}))
    walls = [
        np.array([p.split(",") for p in line.split()], float) for line in re.findall(r'polyline points="(.*?)"', above)
    ]
    assert len(walls) == 5 + 8
    radius = float(re.search(r'r="([\d.]+)" class="subject"', above)[1])
    center = np.array(re.search(r'cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+" class="subject"', above).groups(), float)
    for ring in walls[:5]:
        place = (ring - center) / radius
        np.testing.assert_allclose((place[:, 0] / 4) ** 2 + (place[:, 1] / 2) ** 2, 1, atol=0.02)


def test_pictures_carry_the_names_of_their_photos(page):
    assert "Photo a/05 blurred leaves.jpg" in Page(page).words


def test_an_unusable_geometry_draws_nothing():
    assert scene_from_two_sides({}) == ""
    assert scene_from_two_sides({"focus": [0, 0], "up": [0, 0, 1]}) == ""
    assert "svg" in scene_from_two_sides({**geometry(), "cameras": "none", "tube": {"center": 3}})
