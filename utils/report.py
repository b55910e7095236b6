# SPDX-License-Identifier: Apache-2.0
"""report.html: everything about a run on one self-contained page, with other runs beside it when given.

    python -m utils.report RUN [RUN...]

The page is made of the files in the run folder; what is missing is left out. Beside config.json, log.jsonl,
results.json, per_view.json and the folders of render.py, it reads:

* geometry.json, what the cameras tell, in world coordinates and scene units:
  {"focus": [x, y, z], "up": [x, y, z], "subject_radius": r, "cameras": [[x, y, z], ...],
   "directions": [[x, y, z], ...]  (unit viewing directions, one per camera, optional)}
* the log's event line with the tube: "tube": {"center": [x, y, z], "axis": [x, y, z], "across": [two vectors],
  "semi_axes": [a, b], "half_length": h}, and its figures, "tube_hit" and so on, in a line of figures
* snapshots/<iteration>_<name>.png
* vlm/round_<k>/audit.jsonl and summary.json, as `utils.report_audit` says
* log.jsonl: "loss", "gaussians", "phase", "it_per_s", or "psnr", "coverage", "split", in lines of figures;
  "event" (a text) and perhaps "stage" and "seconds" in lines of events.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .atomic import write_text
from .command import run_command
from .errors import UserError
from .report_audit import inspections
from .report_data import Run, number, read_run
from .report_html import Markup, page, section, table, tag
from .report_pictures import FULL_ERROR, SMALL, error_map, figure, load
from .report_plots import Series, bars, card, curves, legend, scene_from_two_sides, thinned

MOST_VIEWS = 4
TUBE_FIGURES = (
    ("tube_hit", "Unexplained rays that hit the wall", "%"),
    ("tube_blocked", "Subject rays with wall in front of the subject", "%"),
    ("tube_upright_hit", "The best upright tube: rays that hit", "%"),
    ("tube_upright_blocked", "The best upright tube: rays blocked", "%"),
    ("tube_semi_axis_1", "First semi-axis, scene units", ""),
    ("tube_semi_axis_2", "Second semi-axis, scene units", ""),
    ("tube_length", "Length, scene units", ""),
)


def write_report(run: Path, others: Sequence[Path] = ()) -> Path:
    """Write report.html into a run folder.

    Args:
        run: The folder of the run that the page is about.
        others: Folders of runs to compare with; their curves and figures appear beside.

    Returns:
        Path of the page.
    """
    first, *rest = (read_run(Path(path)) for path in (run, *others))
    path = Path(run) / "report.html"
    write_text(path, report(first, rest))
    return path


def report(run: Run, others: Sequence[Run] = ()) -> str:
    """The page as text."""
    return page(
        f"{run.name} - run report",
        _header(run),
        section("Runs side by side", _comparison([run, *others])) if others else "",
        _views(run),
        _curves([run, *others]),
        _geometry(run),
        _snapshots(run),
        inspections(run),
        _timing([run, *others]),
        _settings([run, *others]),
    )


def _header(run: Run) -> Markup:
    split = run.protocol.get("split", "test")
    last = max((line["iteration"] for line in run.log), default=0)
    facts = [
        f"{last:,} iterations" if last else "",
        " → ".join(band.name for band in run.bands),
        "measured on TRAINING views: this run held none out" if split == "train" else "",
    ]
    tiles = [
        _tile("PSNR", _shown(run.figure("PSNR"), 2), "dB"),
        _tile("SSIM", _shown(run.figure("SSIM"), 4)),
        _tile("LPIPS", _shown(run.figure("LPIPS"), 4)),
        _tile("Gaussians", f"{run.gaussians:,.0f}" if run.gaussians is not None else None),
        _tile("Alpha coverage", _shown(_last(run.curve("coverage"), 100), 1), "%"),
        _tile("Time", *_duration(run.seconds)),
    ]
    return tag(
        "header",
        tag("p", "Run report", class_="eyebrow"),
        tag("h1", run.name),
        tag("p", " · ".join(fact for fact in facts if fact), class_="note"),
        tag("div", *tiles, class_="tiles") if any(tiles) else "",
    )


def _tile(name: str, value: str | None, unit: str = "") -> Markup:
    if value is None:
        return Markup("")
    return tag("div", tag("b", value, tag("small", unit) if unit else ""), tag("span", name), class_="tile")


def _comparison(runs: Sequence[Run]) -> Markup:
    header = ("Run", "PSNR", "SSIM", "LPIPS", "Gaussians", "Time")
    rows = [
        (
            run.name,
            *(_shown(run.figure(name), places) or "–" for name, places in (("PSNR", 2), ("SSIM", 4), ("LPIPS", 4))),
            f"{run.gaussians:,.0f}" if run.gaussians is not None else "–",
            " ".join(_duration(run.seconds)) if run.seconds is not None else "–",
        )
        for run in runs
    ]
    return table(header, rows)


def _views(run: Run) -> Markup:
    """Render, photo and error of the worst, the best and some views between them."""
    split, folder = run.views()
    if folder is None:
        return Markup("")
    figures = run.per_view.get(folder.name)
    psnr = figures.get("PSNR") if isinstance(figures, Mapping) else None
    psnr = psnr if isinstance(psnr, Mapping) else {}
    psnr = {name: value for name, value in psnr.items() if number(value) is not None}
    names = sorted(path.name for path in (folder / "renders").glob("*.png"))
    names.sort(key=lambda name: psnr.get(name, 0.0))
    places = sorted({round(k * (len(names) - 1) / (MOST_VIEWS - 1)) for k in range(MOST_VIEWS)})
    photos = run.photo_names(split, len(names))
    shown = [names[place] for place in places]
    rows = [_view(folder, name, psnr.get(name), photos.get(name)) for name in shown]
    order = ", from the worst PSNR to the best" if psnr else ""
    note = f"Render, photo and absolute error{order}; the brightest colour is {FULL_ERROR:g} of full scale or more."
    title = "Held-out views" if split == "test" else "Training views"
    return section(title, tag("div", *rows, class_="stack") if any(rows) else "", note=note)


def _view(folder: Path, name: str, psnr: float | None, photo_name: str | None) -> Markup:
    render, photo = load(folder / "renders" / name), load(folder / "gt" / name)
    if render is None or photo is None or render.shape != photo.shape:
        return Markup("")
    label = Path(name).stem + (f" · {psnr:.2f} dB" if psnr is not None else "")
    photo_label = f"Photo {photo_name}" if photo_name else "Photo"
    mask = load(folder / "masks" / name)
    counts = mask >= 128 if mask is not None and mask.shape == photo.shape else True
    photo = photo * counts
    error = error_map(render * counts, photo)
    return tag(
        "div",
        figure(render, f"Render {label}"),
        figure(photo, photo_label),
        figure(error, "Error"),
        class_="row tall" if render.shape[0] > render.shape[1] else "row",
    )


def _curves(runs: Sequence[Run]) -> Markup:
    bands, events = runs[0].bands, runs[0].events

    def all_of(*keys: str) -> list[Series]:
        return [Series(run.name, thinned(run.curve(*keys)), k) for k, run in enumerate(runs)]

    views = "held-out" if runs[0].tested_split == "test" else "training"
    psnr = f"PSNR of {views} views, dB"
    charts = [
        card("Loss", curves("Loss", all_of("loss"), bands, from_zero=True)),
        card(psnr, curves(psnr, all_of("psnr"), bands, dots=True)),
        card("Gaussians", curves("Gaussians", all_of("gaussians"), bands, events, from_zero=True)),
    ]
    if not any(charts):
        return Markup("")
    names = legend([run.name for run in runs]) if len(runs) > 1 else ""
    return section(
        "Course of the training",
        names,
        tag("div", *charts, class_="cards"),
        note="Over iterations; the shaded bands are phases of the first run, dotted lines are events.",
    )


def _geometry(run: Run) -> Markup:
    tube = run.last("tube")
    drawing = scene_from_two_sides({**run.geometry, "tube": tube})
    known = ((text, number(run.last(name)), unit) for name, text, unit in TUBE_FIGURES)
    rows = [
        (text, f"{value:.1%}" if unit == "%" else f"{value:.4g}") for text, value, unit in known if value is not None
    ]
    wall = " and the wall of the innermost tube (lines)" if isinstance(tube, Mapping) else ""
    note = f"Cameras (points), subject (disc){wall}; both drawings are to scale."
    return section("Where things are", drawing, table(("Tube", ""), rows) if rows and drawing else "", note=note)


def _snapshots(run: Run) -> Markup:
    phases = [band.name for band in run.bands]
    found = []
    for path in (run.path / "snapshots").glob("*.png"):
        iteration, _, name = path.stem.partition("_")
        if iteration.isdecimal() and (pixels := load(path)) is not None:
            phase = name.partition("_")[0]  # two phases meet at one iteration
            found.append((int(iteration), phases.index(phase) if phase in phases else -1, name, pixels))
    found.sort(key=lambda item: item[:3])
    pictures = [figure(pixels, f"{at:,} · {name.replace('_', ' ')}", widest=SMALL) for at, _, name, pixels in found]
    return section("Snapshots", tag("div", *pictures, class_="strip") if pictures else "")


def _timing(runs: Sequence[Run]) -> Markup:
    longest = max((seconds for run in runs for _, _, seconds in run.stages), default=0.0)
    parts = []
    for run in runs:
        rows = [
            (
                name,
                seconds,
                " ".join(_duration(seconds)) + (f" · {steps / seconds:.1f} it/s" if steps and seconds else ""),
            )
            for name, steps, seconds in run.stages
        ]
        if rows:
            parts.append(card(run.name, bars(rows, longest)))
    return section("Time by stage", tag("div", *parts, class_="cards") if parts else "")


def _settings(runs: Sequence[Run]) -> Markup:
    settings = [run.settings() for run in runs]
    names = list(dict.fromkeys(name for one in settings for name in one))
    if not names:
        return Markup("")
    rows = [(name, *(one.get(name, "–") for one in settings)) for name in names]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    header = ("Setting", *(run.name for run in runs))
    every = tag("details", tag("summary", f"All {len(rows)} settings"), table(header, rows, class_="settings"))
    return section("Configuration", table(header, differing, class_="settings") if differing else "", every)


def _shown(value: float | None, places: int) -> str | None:
    return None if value is None else f"{value:.{places}f}"


def _last(points: Sequence[tuple[float, float]], factor: float) -> float | None:
    return points[-1][1] * factor if points else None


def _duration(seconds: float | None) -> tuple[str | None, str]:
    """A time in two parts, figure and unit."""
    if seconds is None:
        return None, ""
    if seconds < 60:
        return f"{seconds:.1f}", "s"
    minutes, rest = divmod(round(seconds), 60)
    return (f"{minutes // 60}:{minutes % 60:02d}", "h") if minutes >= 60 else (f"{minutes}:{rest:02d}", "min")


def main(args: Sequence[str]) -> None:
    """Write the report of the first run, with the others beside it."""
    runs = [Path(arg) for arg in args]
    if not runs or any(arg.startswith("-") for arg in args):
        raise UserError("usage: python -m utils.report RUN [RUN...]")
    for run in runs:
        if not run.is_dir():
            raise UserError(f"{run}: no such run folder")
    print(write_report(runs[0], runs[1:]))


if __name__ == "__main__":
    sys.exit(run_command(main))
