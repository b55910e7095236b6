# SPDX-License-Identifier: Apache-2.0
"""Small inline SVG drawings: curves over iterations with phase bands, and a scene from two sides."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .report_html import Markup, escape, tag

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 22, 24
COLORS = 4


@dataclass(frozen=True)
class Series:
    """One curve: points (iteration, value), sorted by iteration; `color` picks from the page's palette."""

    label: str
    points: Sequence[tuple[float, float]]
    color: int = 0


@dataclass(frozen=True)
class Band:
    """A phase: iterations from `start` to `end`."""

    name: str
    start: float
    end: float


def compact(value: float) -> str:
    """A number in few characters: 950, 12.3k, 0.042."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def thinned(points: Sequence[tuple[float, float]], most: int = 120) -> list[tuple[float, float]]:
    """At most `most` points, each the mean of its share of the curve; short curves stay as they are."""
    if len(points) <= most:
        return list(points)
    return [tuple(part.mean(0)) for part in np.array_split(np.asarray(points, dtype=np.float64), most)]


def card(title: str, drawing: Markup) -> Markup:
    """A drawing under its title; nothing without a drawing."""
    return tag("figure", tag("figcaption", tag("b", title)), drawing, class_="card") if drawing else drawing


def curves(
    title: str,
    series: Sequence[Series],
    bands: Sequence[Band] = (),
    events: Sequence[tuple[float, str]] = (),
    *,
    from_zero: bool = False,
    dots: bool = False,
) -> Markup:
    """Curves over iterations as SVG of WIDTH x HEIGHT; nothing when no series has a point.

    Args:
        title: What the vertical axis shows, with its unit.
        series: Curves, one per run.
        bands: Phases of the first run, drawn behind.
        events: (iteration, text) marks; the text shows on hovering.
        from_zero: Let the vertical axis begin at 0.
        dots: Mark each point: few, separate measurements.
    """
    series = [one for one in series if one.points]
    if not series:
        return Markup("")
    xs, ys = zip(*(point for one in series for point in one.points), strict=True)
    last = max(max(xs), max((band.end for band in bands), default=0), 1)
    low, high, ticks = _ticks(0.0 if from_zero else min(ys), max(ys))
    x = _axis(0, last, LEFT, WIDTH - RIGHT)
    y = _axis(low, high, HEIGHT - BOTTOM, TOP)
    parts = [
        *_bands(bands, x),
        *(_grid(value, y) for value in ticks),
        *(_iteration_label(value, x) for value in _ticks(0, last, count=4)[2] if value <= last),
        *(_event(at, text, x) for at, text in events),
        *(_curve(one, x, y, dots=dots) for one in reversed(series)),  # the first run on top
    ]
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)


def legend(labels: Sequence[str]) -> Markup:
    """Which colour is which run."""
    items = []
    for k, label in enumerate(labels):
        line = tag("line", x1=1, x2=21, y1=5, y2=5, class_=f"curve s{k % COLORS}")
        items.append(tag("li", tag("svg", line, viewBox="0 0 22 10"), label))
    return tag("ul", *items, class_="legend")


def bars(rows: Sequence[tuple[str, float, str]], longest: float) -> Markup:
    """Horizontal bars: (name, value, text beside it); `longest` is the value that fills the width."""
    parts = []
    for k, (name, value, text) in enumerate(rows):
        top = 4 + 40 * k
        length = max(1.0, 396 * value / max(longest, 1e-12))
        parts += [
            tag("text", name, x=2, y=top + 12),
            tag("text", text, x=398, y=top + 12, text_anchor="end"),
            tag("rect", x=2, y=top + 18, width=f"{length:.1f}", height=10, rx=3, class_=f"bar s{k % COLORS}"),
        ]
    return tag("svg", *parts, viewBox=f"0 0 400 {40 * len(rows)}", role="img", aria_label="time by stage")


def scene_from_two_sides(geometry: Mapping[str, Any]) -> Markup:
    """Cameras, subject and wall, seen from the side and from above; the format is in `utils.report`."""
    focus = _vectors(geometry.get("focus"), 1)
    up = _vectors(geometry.get("up"), 1)
    if focus is None or up is None:
        return Markup("")
    cameras = _vectors(geometry.get("cameras"))
    cameras = np.zeros((0, 3)) if cameras is None else cameras - focus
    directions = _vectors(geometry.get("directions"))
    tube = geometry.get("tube")
    tube = tube if isinstance(tube, Mapping) else {}
    walls = [line - focus for line in _wall(tube)]
    across, beside, up = _frame(up[0], _vectors(tube.get("axis"), 1), cameras)
    radius = _number(geometry.get("subject_radius"))
    if directions is not None and len(directions) != len(cameras):
        directions = None
    sides = (("From the side", np.stack([across, up])), ("From above", np.stack([across, beside])))
    return tag("div", *(_side(name, axes, cameras, directions, walls, radius) for name, axes in sides), class_="cards")


def _wall(tube: Mapping[str, Any], rings: int = 5, lines: int = 8) -> list[np.ndarray]:
    """Polylines [n, 3] of an elliptic cylinder's wall: rings round it and lines along it."""
    center, axis = _vectors(tube.get("center"), 1), _vectors(tube.get("axis"), 1)
    across, length = _vectors(tube.get("across"), 2), _number(tube.get("half_length"))
    semi_axes = tube.get("semi_axes")
    if center is None or axis is None or across is None or not isinstance(semi_axes, list) or len(semi_axes) != 2:
        return []
    turn = np.linspace(0, 2 * np.pi, 8 * lines + 1)
    u, v = (_number(size) * way for size, way in zip(semi_axes, across, strict=True))
    ring = center + np.outer(np.cos(turn), u) + np.outer(np.sin(turn), v)
    along = length * axis
    return [ring + share * along for share in np.linspace(-1, 1, rings)] + [
        np.concatenate([point - along, point + along]) for point in ring[:-1:8]
    ]


def _side(
    name: str,
    axes: np.ndarray,
    cameras: np.ndarray,
    directions: np.ndarray | None,
    walls: Sequence[np.ndarray],
    radius: float,
) -> Markup:
    """One drawing: everything projected on two unit vectors `axes` [2, 3], first to the right, second up."""
    flat = np.array([[1, 0], [0, -1]]) @ axes
    everything = [np.array([[-radius, -radius], [radius, radius]]), cameras @ flat.T, *(w @ flat.T for w in walls)]
    reach = np.concatenate(everything)
    low, high = reach.min(0), reach.max(0)
    scale = 260 / max(float((high - low).max()), 1e-9)
    place = lambda points: (points @ flat.T - (low + high) / 2) * scale + [200, 145]  # noqa: E731
    parts = [tag("polyline", points=_points(place(line)), class_="wall") for line in walls]
    center = place(np.zeros((1, 3)))[0]
    parts.append(
        tag("circle", cx=_short(center[0]), cy=_short(center[1]), r=_short(max(radius * scale, 3)), class_="subject")
    )
    dots = place(cameras)
    if directions is not None:
        ends = dots + 10 * directions @ flat.T
        for a, b in zip(dots, ends, strict=True):
            parts.append(
                tag("line", x1=_short(a[0]), y1=_short(a[1]), x2=_short(b[0]), y2=_short(b[1]), class_="sight")
            )
    parts += [tag("circle", cx=_short(x), cy=_short(y), r=2, class_="camera") for x, y in dots]
    drawing = tag("svg", *parts, viewBox="0 0 400 290", role="img", aria_label=name)
    return card(name, drawing)


def _frame(up: np.ndarray, axis: np.ndarray | None, cameras: np.ndarray) -> tuple[np.ndarray, ...]:
    """Unit vectors: the way the tube leans (else where the cameras spread most), beside it, up."""
    up = up / max(float(np.linalg.norm(up)), 1e-12)
    lean = axis[0] - up * (axis[0] @ up) if axis is not None else np.zeros(3)
    if np.linalg.norm(lean) < 1e-6:
        flat = cameras - np.outer(cameras @ up, up)
        lean = np.linalg.svd(flat - flat.mean(0))[2][0] if len(cameras) > 1 else np.roll(up, 1)
        lean = lean - up * (lean @ up)
    lean = lean / max(float(np.linalg.norm(lean)), 1e-12)
    return lean, np.cross(up, lean), up


def _vectors(value: Any, count: int | None = None) -> np.ndarray | None:
    """[n, 3] finite numbers, or None: the file may come from anywhere."""
    try:
        rows = np.asarray(value, dtype=np.float64).reshape(-1, 3)
    except (TypeError, ValueError, OverflowError):
        return None
    return rows if (np.abs(rows) < 1e30).all() and len(rows) and (count is None or len(rows) == count) else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e30 else 0.0


def _ticks(low: float, high: float, count: int = 5) -> tuple[float, float, list[float]]:
    """A round range that holds low..high, and its round ticks."""
    if high - low < 1e-9 * max(abs(high), 1e-9):
        low, high = low - max(abs(low) * 0.05, 0.5), high + max(abs(high) * 0.05, 0.5)
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * nice for nice in (1, 2, 2.5, 5, 10) if size * nice >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, last * step, [k * step for k in range(first, last + 1)]


def _axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (end - start) * (value - low) / (high - low)


def _bands(bands: Sequence[Band], x: Callable[[float], float]) -> list[Markup]:
    parts = []
    for k, band in enumerate(bands):
        left, right = x(band.start), x(band.end)
        parts.append(
            tag(
                "rect",
                x=_short(left),
                y=TOP,
                width=_short(max(right - left, 0)),
                height=HEIGHT - TOP - BOTTOM,
                class_="band" if k % 2 == 0 else "band odd",
            )
        )
        if right - left > 6 * len(band.name):  # else the name would run into the next
            parts.append(
                tag("text", band.name, x=_short((left + right) / 2), y=14, text_anchor="middle", class_="bandname")
            )
    return parts


def _grid(value: float, y: Callable[[float], float]) -> Markup:
    at = _short(y(value))
    line = tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="grid")
    return tag("g", line, tag("text", compact(value), x=LEFT - 6, y=_short(y(value) + 4), text_anchor="end"))


def _iteration_label(value: float, x: Callable[[float], float]) -> Markup:
    # the outermost label would stick out to the right if it were centred
    anchor = "end" if x(value) > WIDTH - 30 else "middle"
    return tag("text", compact(value), x=_short(x(value)), y=HEIGHT - 6, text_anchor=anchor)


def _event(at: float, text: str, x: Callable[[float], float]) -> Markup:
    line = tag("line", x1=_short(x(at)), x2=_short(x(at)), y1=TOP, y2=HEIGHT - BOTTOM, class_="event")
    return tag("g", tag("title", f"{at:g}: {text}"), line)


def _curve(one: Series, x: Callable[[float], float], y: Callable[[float], float], *, dots: bool) -> Markup:
    places = [(x(a), y(b)) for a, b in one.points]
    color = f"s{one.color % COLORS}"
    parts = [tag("title", one.label), tag("polyline", points=_points(places), class_=f"curve {color}")]
    if dots or len(places) == 1:
        for (a, b), (iteration, value) in zip(places, one.points, strict=True):
            tip = tag("title", f"{one.label}, {iteration:g}: {value:.5g}")
            parts.append(tag("path", tip, d=f"M{_short(a)} {_short(b)}h0", class_=f"dot {color}"))
    return tag("g", *parts)


def _points(places: Any) -> Markup:
    return escape(" ".join(f"{_short(x)},{_short(y)}" for x, y in places))


def _short(value: float) -> str:
    return f"{value:.1f}"
