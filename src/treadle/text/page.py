"""The frame of the report: its look, its one small script, and a policy that lets nothing else run or load."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256

from treadle.text.chart import text

REGION_COLORS = 9


def section(title: str, *parts: str, intro: str = "") -> str:
    """One card with an anchor of its title's; empty when there is nothing in it."""
    inside = "".join(parts)
    if not inside:
        return ""
    said = f'<p class="intro">{intro}</p>' if intro else ""
    return f'<section id="{anchor(title)}"><h2>{text(title)}</h2>{said}{inside}</section>'


def titled(title: str, picture: str) -> str:
    """A part of a card with a heading; empty without a picture."""
    return f"<div><h3>{text(title)}</h3>{picture}</div>" if picture else ""


def beside(*parts: str) -> str:
    """Parts next to each other where there is room."""
    there = [part for part in parts if part]
    return f'<div class="beside">{"".join(there)}</div>' if there else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[int] = frozenset()) -> str:
    """Rows of HTML cells; columns in ``numbers`` are aligned to the right."""
    if not rows:
        return ""
    names = "".join(f'<th scope="col"{_right(n, numbers)}>{text(name)}</th>' for n, name in enumerate(head))
    lines = "".join(
        "<tr>" + "".join(f"<td{_right(n, numbers)}>{cell}</td>" for n, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table class="rows"><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def anchor(name: str) -> str:
    """A name as it stands in an address."""
    return re.sub(r"[^\w.-]+", "-", name.casefold()).strip("-") or "part"


def rule_anchor(rule: str) -> str:
    """Where in the page a rule is explained."""
    return "rule-" + re.sub(r"[^\w.-]", "-", rule)


def page(title: str, subtitle: str, tiles: str, sections: Sequence[str]) -> str:
    """The whole file."""
    there = [part for part in sections if part]
    links = []
    for part in there:
        found = re.match(r'<section id="([^"]+)"><h2>(.*?)</h2>', part)
        if found:
            links.append(f'<a href="#{found[1]}">{found[2]}</a>')
    return _PAGE.format(
        title=text(title),
        subtitle=text(subtitle),
        links="".join(links),
        tiles=tiles,
        body="\n".join(there),
        style=_STYLE,
        script=_SCRIPT,
        hash=b64encode(sha256(_SCRIPT.encode()).digest()).decode(),
    )


def _right(column: int, numbers: frozenset[int]) -> str:
    return ' class="n"' if column in numbers else ""


_STYLE = """
:root{color-scheme:light dark;--paper:#f6f5f2;--card:#fff;--ink:#1f2329;--soft:#5a606b;--line:#e4e2dd;--faint:#f1f0ec;
--accent:#2b6cb0;--second:#b8651b;--third:#2f7d5b;--warn:#b23c3c;--mark:#ffe08a;--markink:#3d2c00;
--c0:#2b6cb0;--c1:#d0722a;--c2:#2f8f68;--c3:#b5487d;--c4:#7559b8;--c5:#a88a13;--c6:#1d93a8;--c7:#8c5a3c;--c8:#68707c}
@media (prefers-color-scheme:dark){:root{--paper:#121417;--card:#1a1d22;--ink:#e8e7e3;--soft:#a3a9b4;--line:#2f343c;
--faint:#22262c;--accent:#69a9e6;--second:#e2a05f;--third:#6fc09a;--warn:#e98282;--mark:#6b5200;--markink:#fff0c2;
--c0:#69a9e6;--c1:#eb9a5a;--c2:#66c49b;--c3:#e283b0;--c4:#ab93e8;--c5:#d8bd55;--c6:#5cc5d8;--c7:#c79673;--c8:#a3a9b4}}
*{box-sizing:border-box}html{scroll-behavior:smooth;scroll-padding-top:16px}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
a{color:var(--accent);text-underline-offset:2px}a:focus-visible,summary:focus-visible,[tabindex]:focus-visible,
input:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:4px}
.skip{position:absolute;left:-999px}.skip:focus{left:12px;top:8px;background:var(--card);padding:6px 10px}
header,main{max-width:1020px;margin:0 auto;padding:0 24px}
header{padding-top:36px}h1{font-size:30px;line-height:1.2;letter-spacing:-.015em;margin:0}
header p{color:var(--soft);margin:6px 0 18px;overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:6px;margin:18px 0 4px}
nav a{font-size:13px;text-decoration:none;color:var(--ink);background:var(--card);border:1px solid var(--line);
border-radius:999px;padding:3px 11px}nav a:hover{border-color:var(--accent);color:var(--accent)}
main{padding-bottom:64px}
@media (min-width:1340px){header,main{margin-left:max(270px,calc(50vw - 430px))}
nav{position:fixed;top:36px;left:max(24px,calc(50vw - 660px));width:190px;flex-direction:column;gap:1px;margin:0}
nav a{background:none;border:0;border-left:2px solid var(--line);border-radius:0;padding:4px 12px;color:var(--soft)}}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:22px 26px;margin:18px 0}
h2{font-size:19px;letter-spacing:-.01em;margin:0 0 10px}
h3{font-size:12px;font-weight:600;text-transform:uppercase;letter-spacing:.05em;margin:14px 0 6px;color:var(--soft)}
p{margin:6px 0}.intro,.note{color:var(--soft);max-width:72ch}.note{font-size:13.5px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(116px,1fr));gap:12px}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:13px 14px}
.tiles b{display:block;font-size:24px;line-height:1.25;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:13px}
.beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,270px),1fr));gap:8px 34px}
.beside>div{min-width:0}
.scroll{overflow-x:auto}table{border-collapse:collapse}caption{position:absolute;width:1px;height:1px;overflow:hidden;
clip-path:inset(50%)}th{font-weight:400;text-align:left}
.bars{width:100%;font-size:14px;position:relative}.bars th{width:1%;max-width:270px;padding:2px 12px 2px 0;
white-space:nowrap;
overflow:hidden;text-overflow:ellipsis}.bars .bar{min-width:60px;white-space:nowrap;line-height:0}
.bars .bar i{display:inline-block;height:14px;min-width:2px;vertical-align:middle;border-radius:2px}
.bars .n{width:1%;padding:2px 0 2px 10px;font-size:13px;color:var(--soft);white-space:nowrap}
.n{text-align:right!important;font-variant-numeric:tabular-nums}
i.accent{background:var(--accent)}i.second{background:var(--second)}i.third{background:var(--third)}
i.warn{background:var(--warn)}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;list-style:none;padding:0;margin:6px 0;font-size:13px;
color:var(--soft)}
.legend i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:6px}
ul.plain{list-style:none;padding:0;margin:6px 0;color:var(--soft)}ul.plain b{color:var(--ink);font-weight:600}
svg{display:block;width:100%;height:auto;margin:4px 0;overflow:visible}svg.small{max-width:310px}
svg text{font-size:12px;fill:var(--soft);font-variant-numeric:tabular-nums}svg .name{fill:var(--ink)}
svg .rule{stroke:var(--line);stroke-width:1}svg .hit{fill:transparent}svg .hit:hover{fill:var(--ink);fill-opacity:.07}
svg .plane{fill:var(--faint)}svg .line{fill:none;stroke-width:2;stroke-linejoin:round}
svg .area{opacity:.13;stroke:none}
svg .accent{stroke:var(--accent)}svg .second{stroke:var(--second)}svg .third{stroke:var(--third)}
svg .warn{stroke:var(--warn)}
svg .area.accent,svg .fill.accent{fill:var(--accent);stroke:none}svg .area.second{fill:var(--second)}
svg .area.third{fill:var(--third)}svg .area.warn{fill:var(--warn)}
.rows{width:100%;font-size:14px}.rows td,.rows th{vertical-align:top;padding:6px 14px 6px 0;
border-top:1px solid var(--line);
overflow-wrap:anywhere}.rows thead th{border-top:0;color:var(--soft);font-size:13px;white-space:nowrap}
.rows td:last-child,.rows th:last-child{padding-right:0}
.grid{font-size:12.5px;position:relative;margin:6px 0;font-variant-numeric:tabular-nums}.grid td{text-align:center;
width:42px;
height:30px;border:1px solid var(--card);background:var(--faint)}.grid tr:first-of-type td{background:none}
.grid th[scope=row]{padding-right:10px;white-space:nowrap}
.grid th[scope=col]{vertical-align:bottom;height:112px;padding:0}
.grid th[scope=col] span{display:block;writing-mode:vertical-rl;transform:rotate(180deg);margin:0 auto;
white-space:nowrap;
padding-top:6px}
details{margin:6px 0}summary{cursor:pointer;padding:2px 0}details.numbers{font-size:13px;color:var(--soft)}
details.numbers table{margin:4px 0;font-variant-numeric:tabular-nums}
details.numbers td,details.numbers th{padding:1px 16px 1px 0}
.rule{scroll-margin-top:16px}details.rule{border-top:1px solid var(--line);margin:0;padding:8px 0}
details.rule:first-of-type{border-top:0}details.rule:target{background:var(--faint);margin:0 -12px;padding:8px 12px;
border-radius:10px}details.rule summary b{font-weight:600}details.rule summary span{color:var(--soft)}
details.rule .sample{border-left:3px solid var(--line);padding:2px 0 2px 12px;margin:10px 0}
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,380px),1fr));gap:0 24px}
.sample p{margin:2px 0;overflow-wrap:anywhere;font-size:14px}.sample small{color:var(--soft);overflow-wrap:anywhere}
mark{background:var(--mark);color:var(--markink);border-radius:3px;padding:0 2px;box-decoration-break:clone}
code{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
pre{background:var(--faint);border-radius:8px;padding:8px 12px;overflow-x:auto;margin:8px 0}
.map{position:relative}.map svg{background:var(--faint);border-radius:12px;touch-action:manipulation}
.map circle{opacity:.78;cursor:default}.map circle.dim{opacity:.07}
.map circle.here{opacity:1;stroke:var(--ink);stroke-width:2}
.map .label{font-size:15px;font-weight:600;fill:var(--ink);paint-order:stroke;stroke:var(--faint);stroke-width:5px;
stroke-linejoin:round;pointer-events:none}
.tip{position:absolute;z-index:2;max-width:340px;background:var(--card);border:1px solid var(--line);
border-radius:10px;
padding:9px 12px;font-size:13px;line-height:1.45;box-shadow:0 6px 24px rgb(0 0 0/.18);pointer-events:none;
overflow-wrap:anywhere}.tip b{display:block;font-weight:600}.tip i{color:var(--soft);font-style:normal;display:block}
.tools label{display:inline-flex;gap:8px;align-items:center}
.tools{display:flex;flex-wrap:wrap;gap:8px 16px;align-items:center;margin:8px 0;font-size:13.5px;color:var(--soft)}
input[type=search]{font:inherit;color:var(--ink);background:var(--card);border:1px solid var(--line);
border-radius:8px;
padding:5px 10px;width:min(280px,100%)}[hidden]{display:none!important}
.diverge{width:100%;font-size:14px;position:relative}.diverge th{padding:2px 12px 2px 0;white-space:nowrap;width:1%}
.diverge td{padding:2px 0}
.diverge td i{display:inline-block;height:14px;border-radius:2px;vertical-align:middle;min-width:2px}
.diverge .n{color:var(--soft);font-size:13px;white-space:nowrap;padding-left:10px;width:1%}
@media (max-width:600px){header,main{padding-left:14px;padding-right:14px}section{padding:16px}
.bars th{max-width:130px}}
@media print{body{background:#fff}nav,.tools{display:none}section{break-inside:avoid;border:0;padding:0}}
""" + "".join(f".r{n}{{fill:var(--c{n})}}" for n in range(REGION_COLORS))

# Without it the page says the same: points carry their texts as titles, and rules are opened by hand.
_SCRIPT = """
"use strict";
const opened = () => { const part = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (part && part.tagName === "DETAILS") { part.open = true; part.scrollIntoView(); } };
addEventListener("hashchange", opened); opened();
for (const map of document.querySelectorAll(".map")) {
  const svg = map.querySelector("svg"), tools = map.querySelector(".tools"), tip = document.createElement("div");
  const points = [...svg.querySelectorAll("circle")].map(node => {
    const title = node.querySelector("title"), said = title.textContent; title.remove();
    return {node, said, low: said.toLowerCase(), x: +node.getAttribute("cx"), y: +node.getAttribute("cy")}; });
  const known = new Map(points.map(point => [point.node, point]));
  tip.className = "tip"; tip.hidden = true; tip.setAttribute("role", "status"); map.append(tip); tools.hidden = false;
  let here = null;
  const show = point => {
    if (here) here.node.classList.remove("here");
    here = point; tip.hidden = !point; if (!point) return;
    point.node.classList.add("here"); tip.replaceChildren();
    point.said.split("\\n").forEach((line, place) => {
      const part = document.createElement(place === 0 ? "b" : place === 1 ? "i" : "span"); part.textContent = line;
      tip.append(part); });
    const spot = point.node.getBoundingClientRect(), box = map.getBoundingClientRect();
    const x = spot.left - box.left, right = x > box.width / 2;
    tip.style.left = right ? "auto" : x + 16 + "px"; tip.style.right = right ? box.width - x + 8 + "px" : "auto";
    const low = spot.top > innerHeight * 0.6;
    tip.style.top = low ? "auto" : spot.top - box.top + 14 + "px";
    tip.style.bottom = low ? box.bottom - spot.top + 8 + "px" : "auto"; };
  const place = event => { const at = svg.getScreenCTM().inverse();
    return new DOMPoint(event.clientX, event.clientY).matrixTransform(at); };
  svg.addEventListener("pointermove", event => {
    const at = place(event); let best = null, least = 18 * 18;
    for (const point of points) { if (point.node.classList.contains("dim")) continue;
      const gap = (point.x - at.x) ** 2 + (point.y - at.y) ** 2; if (gap < least) { least = gap; best = point; } }
    if (best !== here) show(best); });
  svg.addEventListener("pointerleave", () => show(null));
  svg.addEventListener("blur", () => show(null));
  svg.addEventListener("keydown", event => {
    const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (event.key === "Escape") show(null);
    if (!step) return; event.preventDefault();
    const lit = points.filter(point => !point.node.classList.contains("dim"));
    if (!here) { show(lit[0] || null); return; }
    let best = null, least = Infinity;
    for (const point of lit) { if (point === here) continue;
      const along = (point.x - here.x) * step[0] + (point.y - here.y) * step[1];
      const across = Math.abs((point.x - here.x) * step[1]) + Math.abs((point.y - here.y) * step[0]);
      if (along > 0 && along + 2 * across < least) { least = along + 2 * across; best = point; } }
    if (best) show(best); });
  const search = map.querySelector("input"), count = map.querySelector("output");
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase(); let lit = 0;
    for (const point of points) { const fits = !wanted || point.low.includes(wanted); lit += fits;
      point.node.classList.toggle("dim", !fits); }
    count.textContent = wanted ? lit + " of " + points.length : ""; show(null); });
}
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
script-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'">
<link rel="icon" href="data:,">
<title>{title}</title><style>{style}</style></head>
<body><a class="skip" href="#content">To the content</a>
<header><h1>{title}</h1><p>{subtitle}</p>{tiles}<nav aria-label="Sections">{links}</nav></header>
<main id="content">
{body}
</main><script>{script}</script></body></html>
"""
