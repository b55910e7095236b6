# SPDX-License-Identifier: Apache-2.0
"""HTML and SVG as values. Text is escaped by construction: only `tag` makes markup, and it escapes what is not.

The page may load nothing and run nothing: its content security policy allows data: pictures and the one
style sheet below, by hash, so even markup that slipped through could not act.
"""

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence

VOID = {"br", "circle", "img", "line", "meta", "path", "polygon", "polyline", "rect"}


class Markup(str):
    """Text that is HTML already; everything else is escaped on its way in."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Any value as text in HTML; control characters, which HTML forbids, become a replacement sign."""
    if isinstance(text, Markup):
        return text
    clean = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in str(text))
    return Markup(html.escape(clean, quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element. `class_` is written class, `stroke_width` stroke-width; a None attribute is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID and not children:
        return Markup(f"<{name}{written}>" if name in {"br", "img", "meta"} else f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Several pieces after one another."""
    return Markup("".join(escape(part) for part in parts))


def section(title: str, *children: object, note: str | None = None) -> Markup:
    """A titled part of the page; nothing when there is nothing in it."""
    if not any(children):
        return Markup("")
    lead = tag("p", note, class_="note") if note else ""
    return tag("section", tag("h2", title), lead, *children)


def table(header: Sequence[object], rows: Iterable[Sequence[object]], *, class_: str | None = None) -> Markup:
    """A table that scrolls sideways on a narrow screen; cells after the first are aligned as figures."""
    head = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in header)))
    body = tag("tbody", *(tag("tr", *(tag("td", cell) for cell in row)) for row in rows))
    return tag("div", tag("table", head, body, class_=class_), class_="scroll")


def page(title: str, *body: object) -> str:
    """The whole document."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        Markup(f"<style>{STYLE}</style>"),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", tag("main", *body)), lang="en") + "\n"


STYLE = """
:root { --paper: #fbfaf8; --card: #ffffff; --ink: #1c1d21; --soft: #6b6d76; --line: #e4e2dd; --band: #f3f1ec;
  --a: #0b6e6e; --b: #d2691e; --c: #6a51a3; --d: #4c78a8; --good: #23863a; --bad: #c2362b; }
@media (prefers-color-scheme: dark) { :root { --paper: #131417; --card: #1b1d21; --ink: #e9e8e4; --soft: #9b9ca5;
  --line: #303239; --band: #202228; --a: #4cc2b8; --b: #f0a35e; --c: #b39ddb; --d: #8ab4e0; --good: #5dc475;
  --bad: #ff7b6e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5; font-size: 16px;
  font-family: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  -webkit-text-size-adjust: 100%; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 20px 80px; }
header p { margin: 0; }
.eyebrow { color: var(--soft); font-size: 13px; letter-spacing: .08em; text-transform: uppercase; }
h1 { font-size: clamp(28px, 5vw, 42px); line-height: 1.15; letter-spacing: -.02em; margin: 4px 0 8px;
  overflow-wrap: anywhere; }
h2 { font-size: 21px; letter-spacing: -.01em; margin: 0 0 4px; }
h3 { font-size: 17px; margin: 24px 0 4px; }
h3 small { font-weight: 400; color: var(--soft); font-size: 14px; }
section { margin-top: 48px; }
.note { color: var(--soft); margin: 0 0 16px; max-width: 72ch; font-size: 15px; }
.tiles { display: flex; flex-wrap: wrap; gap: 1px; margin-top: 24px;
  background: var(--line); border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }
.tile { background: var(--card); padding: 16px 18px; flex: 1 1 145px; }
.tile b { display: block; font-size: 27px; font-weight: 600; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; line-height: 1.2; white-space: nowrap; }
.tile b small { font-size: 15px; font-weight: 500; color: var(--soft); margin-left: 3px; letter-spacing: 0; }
.tile span { color: var(--soft); font-size: 13px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: 16px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px; margin: 0;
  min-width: 0; }
.caption { margin-top: 12px; }
.card figcaption, .caption { font-size: 14px; color: var(--soft); margin-bottom: 8px; }
.card figcaption b { color: var(--ink); font-weight: 600; }
svg { display: block; width: 100%; height: auto; }
img { display: block; width: 100%; height: auto; border-radius: 6px; }
.row.tall { max-width: 780px; }
.row { display: grid; grid-template-columns: repeat(3, 1fr); gap: 8px; }
.several { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(46%, 250px), 1fr)); gap: 8px; }
.row figure, .several figure, .strip figure { margin: 0; min-width: 0; }
.row figcaption, .several figcaption, .strip figcaption { font-size: 13px; color: var(--soft); margin: 4px 0 0;
  overflow-wrap: anywhere; }
.stack > * + * { margin-top: 20px; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(46%, 230px), 1fr)); gap: 12px; }
.overlaid { position: relative; }
.overlaid svg { position: absolute; inset: 0; height: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: 13px; }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th + th, td + td { text-align: right; }
.settings td { overflow-wrap: anywhere; }
.settings td + td { text-align: left; }
.settings th + th { text-align: left; }
.settings tr.differs td { background: var(--band); }
details { border: 1px solid var(--line); border-radius: 12px; background: var(--card); padding: 0 16px;
  margin-top: 10px; }
details > :last-child { margin-bottom: 14px; }
summary { cursor: pointer; padding: 11px 0; font-size: 15px; }
summary small, .soft { color: var(--soft); font-size: 13px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--band); border-radius: 8px; padding: 10px 12px;
  font: 13px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; margin: 6px 0 12px; max-height: 320px;
  overflow-y: auto; }
ul.boxes { padding: 0; margin: 10px 0 0; list-style: none; font-size: 14px; }
ul.boxes li { padding: 4px 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 14px; margin: 0 0 14px; padding: 0;
  list-style: none; }
.legend svg { width: 22px; height: 10px; display: inline-block; margin-right: 6px; }
svg text { font-size: 12px; fill: var(--soft); font-family: inherit; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .band { fill: var(--band); } svg .band.odd { fill: none; }
svg .bandname { font-size: 11px; letter-spacing: .03em; }
svg .curve { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .event { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; }
svg .s0 { stroke: var(--a); } svg .s1 { stroke: var(--b); } svg .s2 { stroke: var(--c); } svg .s3 { stroke: var(--d); }
svg .dot { stroke-width: 5; stroke-linecap: round; fill: none; }
svg .bar.s0 { fill: var(--a); } svg .bar.s1 { fill: var(--b); } svg .bar.s2 { fill: var(--c); }
svg .bar.s3 { fill: var(--d); } svg .bar { stroke: none; }
svg .wall { fill: none; stroke: var(--b); stroke-width: 1.2; opacity: .75; }
svg .subject { fill: var(--a); fill-opacity: .16; stroke: var(--a); stroke-width: 1.5; }
svg .camera { fill: var(--ink); } svg .sight { stroke: var(--soft); stroke-width: .8; }
svg .box { fill: none; stroke-width: 2.5; vector-effect: non-scaling-stroke; }
svg .box.good { stroke: #3ddc64; } svg .box.bad { stroke: #ff5a4d; stroke-dasharray: 5 4; }
@media (max-width: 560px) { main { padding: 24px 14px 56px; } section { margin-top: 36px; }
  .row, .several { gap: 4px; } .card { padding: 10px; } .tile b { font-size: 23px; } }
@media print { details { break-inside: avoid; } }
"""
