# SPDX-License-Identifier: Apache-2.0
"""One page on a quality benchmark: per scene the table, quality over the number of Gaussians, pictures side by side."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.report_html import STYLE, Markup, page, section, table, tag
from utils.report_pictures import figure, load
from utils.report_plots import HEIGHT, LEFT, WIDTH, Series, card, curves, legend

VIEWS = (0.0, 0.5)
"""Which held-out views are shown, as quantiles of the first method's PSNR: its worst and its middle one."""
BUDGETS_TITLE = "PSNR over thousands of Gaussians, dB"
HEAD = 56
"""Height of title and legend above the charts."""


def report(results: Sequence[Mapping[str, Any]], columns: Sequence[str], out: Path) -> str:
    """The page.

    Args:
        results: A row for each run: scene, method, seed and the figures.
        columns: The figures that the tables show.
        out: Folder of the benchmark, `<scene>/<method>/seed<k>` below it.
    """
    scenes = list(dict.fromkeys(row["scene"] for row in results))
    parts = [_scene(name, [row for row in results if row["scene"] == name], columns, out) for name in scenes]
    return page("Quality on held-out views", tag("h1", "Quality on held-out views"), *parts)


def _scene(name: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], out: Path) -> Markup:
    cells = [[f"{row['method']}, seed {row['seed']}", *(_cell(row.get(column)) for column in columns)] for row in rows]
    first = [row for row in rows if row["seed"] == rows[0]["seed"]]
    return section(name, table(["method", *columns], cells), _budgets(rows), _strips(first, out))


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}"


def budgets_drawing(results: Sequence[Mapping[str, Any]]) -> str:
    """An SVG file of its own: a chart for each scene, two beside each other; empty without budgets."""
    scenes = dict.fromkeys(row["scene"] for row in results)
    charts = {}
    for name in scenes:
        series = _by_budget([row for row in results if row["scene"] == name])
        if drawn := curves(BUDGETS_TITLE, series, dots=True):
            charts[name] = drawn, series
    if not charts:
        return ""
    parts = [tag("rect", width="100%", height="100%", fill="var(--paper)"), tag("text", BUDGETS_TITLE, x=LEFT, y=20)]
    for k, (name, (drawn, _)) in enumerate(charts.items()):
        x, y = k % 2 * WIDTH, HEAD + k // 2 * HEIGHT
        parts += [tag("svg", drawn, x=x, y=y, width=WIDTH, height=HEIGHT), tag("text", name, x=x + LEFT, y=y + 14)]
    for k, one in enumerate(next(iter(charts.values()))[1]):
        x = LEFT + 150 * k
        parts += [
            tag("line", x1=x, x2=x + 20, y1=38, y2=38, class_=f"curve s{one.color}"),
            tag("text", one.label, x=x + 26, y=42),
        ]
    size = f"0 0 {2 * WIDTH} {HEAD + -(-len(charts) // 2) * HEIGHT}"
    font = "ui-sans-serif, system-ui, sans-serif"
    return tag(
        "svg", Markup(f"<style>{STYLE}</style>"), *parts, viewBox=size, font_family=font,
        xmlns="http://www.w3.org/2000/svg",
    )  # fmt: skip


def _budgets(rows: Sequence[Mapping[str, Any]]) -> Markup:
    series = _by_budget(rows)
    drawn = card(BUDGETS_TITLE, curves(BUDGETS_TITLE, series, dots=True))
    return tag("div", legend([one.label for one in series]), drawn) if drawn else Markup("")


def _by_budget(rows: Sequence[Mapping[str, Any]]) -> list[Series]:
    """PSNR over thousands of Gaussians: a curve for each method with several budgets (`<method>@<cap>`)."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        name, budget, _ = row["method"].partition("@")
        if budget:
            groups.setdefault(name, []).append((row["gaussians"] / 1000, row["psnr"]))
    return [Series(name, sorted(points), k) for k, (name, points) in enumerate(groups.items())]


def _strips(rows: Sequence[Mapping[str, Any]], out: Path) -> Markup:
    """The photo and each method's render of it."""
    folders = {row["method"]: _pictures(out, row) for row in rows}
    folders = {method: folder for method, folder in folders.items() if folder}
    if not folders:
        return Markup("")
    names = _chosen(next(iter(folders.values())))
    strips = []
    for name in names:
        photo = load(next(iter(folders.values())) / "gt" / name)
        renders = [(method, load(folder / "renders" / name)) for method, folder in folders.items()]
        shown = (figure(image, title) for title, image in [("photo", photo), *renders] if image is not None)
        strips.append(tag("div", *shown, class_="strip"))
    return tag("div", *strips)


def _pictures(out: Path, row: Mapping[str, Any]) -> Path | None:
    folder = out / row["scene"] / row["method"] / f"seed{row['seed']}" / "test"
    return next(iter(sorted(folder.glob("ours_*"))), None)


def _chosen(folder: Path) -> Iterable[str]:
    """File names of the views at the quantiles `VIEWS` of the PSNR in a folder."""
    errors = {}
    for path in (folder / "renders").glob("*.png"):
        render, photo = load(path), load(folder / "gt" / path.name)
        errors[path.name] = float(np.square(render.astype(np.float64) - photo).mean())
    order = sorted(errors, key=errors.__getitem__, reverse=True)
    return dict.fromkeys(order[int(share * (len(order) - 1))] for share in VIEWS)
