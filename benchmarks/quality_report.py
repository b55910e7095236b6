# SPDX-License-Identifier: Apache-2.0
"""One page on a quality benchmark: per scene the table, quality over the number of Gaussians, pictures side by side."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.report_html import Markup, page, section, table, tag
from utils.report_pictures import figure, load
from utils.report_plots import Series, curves, legend

VIEWS = (0.0, 0.5)
"""Which held-out views are shown, as quantiles of the first method's PSNR: its worst and its middle one."""


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


def _budgets(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """PSNR over thousands of Gaussians: a curve for each method with several budgets (`<method>@<cap>`)."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        name, budget, _ = row["method"].partition("@")
        if budget:
            groups.setdefault(name, []).append((row["gaussians"] / 1000, row["psnr"]))
    series = [Series(name, sorted(points), k) for k, (name, points) in enumerate(groups.items())]
    drawn = curves("PSNR over thousands of Gaussians, dB", series, dots=True)
    return tag("div", legend([one.label for one in series]), drawn) if drawn else Markup("")


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
