"""The page that shows a dataset: where texts came from, how long they are, what was dropped and why, how it was split.

One HTML file that needs nothing else: no script, no network, light and dark by the reader's own setting. Every
text that came from a source is escaped. Dropped texts are shown as the accounting sampled them, cut and masked.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from treadle.text import chart
from treadle.text.dataset import SPLITS, Example
from treadle.text.detectors import RULES
from treadle.text.document import Document

_SHOWN_EXAMPLES = 4
_SHOWN_QUARANTINED = 20
_SHOWN_CHARACTERS = 320
_FATES = {"kept": chart.ACCENT, "dropped": chart.SECOND, "quarantined": chart.WARN}
_MARKS = "\n\t\u00a0\u200c\u200d"  # not printable by themselves, and harmless: spaces and joiners


@dataclass(slots=True)
class Overview:
    """What is counted over documents as they stream by; holds no text."""

    documents: int = 0
    characters: list[int] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    origins: Counter[str] = field(default_factory=Counter)
    months: Counter[str] = field(default_factory=Counter)

    def add(self, document: Document) -> None:
        """Count one more."""
        self.documents += 1
        self.characters.append(len(document.text))
        self.sources[document.source] += 1
        self.licenses[document.license or "not recorded"] += 1
        self.origins[document.origin] += 1
        if document.time and re.match(r"\d{4}-\d{2}", document.time):
            self.months[document.time[:7]] += 1


def overview_of(batches: Iterable[Sequence[Document]]) -> Overview:
    """The overview of all documents of a corpus."""
    overview = Overview()
    for batch in batches:
        for document in batch:
            overview.add(document)
    return overview


def render_report(
    *,
    title: str,
    stages: Mapping[str, Mapping[str, Any]],
    collected: Overview,
    kept: Overview | None = None,
    splits: Mapping[str, Sequence[Example]] | None = None,
    tokens: Mapping[str, Sequence[int]] | None = None,
) -> str:
    """The page as HTML.

    ``stages`` maps a stage to its accounting as JSON (``in``, ``kept``, ``dropped``, ``quarantined``, ``notes``,
    ``samples``), in order. ``collected`` and ``kept`` are documents before and after cleaning, ``tokens`` the tokens of
    each example by split.
    """
    splits = splits or {}
    parts = [
        _tiles(stages, collected, splits, tokens or {}),
        _what_became(stages),
        _dropped(stages),
        _lengths(collected, kept, tokens or {}),
        _origins(collected),
        _splits(splits),
        _duplicates_and_people(stages),
        _quarantined(stages),
    ]
    body = "\n".join(part for part in parts if part)
    return _PAGE.format(title=_text(title), body=body, style=_STYLE + chart.COLOR_CSS)


def _tiles(
    stages: Mapping[str, Mapping[str, Any]],
    collected: Overview,
    splits: Mapping[str, Sequence[Example]],
    tokens: Mapping[str, Sequence[int]],
) -> str:
    facts: list[tuple[str, int]] = []
    if stages:
        first, last = next(iter(stages.values())), list(stages.values())[-1]
        facts += [("documents in", int(first["in"])), ("documents kept", int(last["kept"]))]
    else:
        facts.append(("documents", collected.documents))
    facts += [(f"{name} examples", len(splits[name])) for name in SPLITS if splits.get(name)]
    facts += [(f"{name} tokens", sum(tokens[name])) for name in ("train",) if tokens.get(name)]
    tiles = "".join(f"<div><b>{count:,}</b><span>{_text(name)}</span></div>" for name, count in facts)
    return f'<div class="tiles">{tiles}</div>'


def _what_became(stages: Mapping[str, Mapping[str, Any]]) -> str:
    if not stages:
        return ""
    parts = {
        name: {
            "kept": int(counts["kept"]),
            "dropped": sum(counts["dropped"].values()),
            "quarantined": len(counts["quarantined"]),
        }
        for name, counts in stages.items()
    }
    lines = "".join(
        f"<li><b>{_text(name)}</b>: {int(stages[name]['in']):,} in = {part['kept']:,} kept"
        f" + {part['dropped']:,} dropped + {part['quarantined']:,} quarantined</li>"
        for name, part in parts.items()
    )
    picture = chart.stacked(parts, title="what became", series=_FATES)
    return _section("What became of every document", picture, f"<ul>{lines}</ul>")


def _dropped(stages: Mapping[str, Mapping[str, Any]]) -> str:
    counts: Counter[str] = Counter()
    shown = []
    for accounting in stages.values():
        counts.update(accounting["dropped"])
    samples = {rule: found for each in stages.values() for rule, found in (each.get("samples") or {}).items()}
    if not counts:
        return ""
    for rule, count in counts.most_common():
        rows = "".join(_sample(sample) for sample in samples.get(rule, ()))
        inside = f"<table>{rows}</table>" if rows else "<p>No sample is kept of texts about people.</p>"
        shown.append(f"<details><summary><code>{_text(rule)}</code> {count:,}</summary>{inside}</details>")
    picture = chart.bars(counts, title="dropped by rule", color=chart.SECOND)
    return _section("What was dropped, and why", picture, "".join(shown))


def _lengths(collected: Overview, kept: Overview | None, tokens: Mapping[str, Sequence[int]]) -> str:
    series: dict[str, Sequence[float]] = {"collected": collected.characters}
    if kept is not None:
        series["kept"] = kept.characters
    pictures = chart.histogram(series, title="characters", unit="characters in a document")
    words = _quartiles("characters in a document", (kept or collected).characters)
    by_split = {name: tokens[name] for name in SPLITS if tokens.get(name)}
    if by_split:
        pictures += chart.histogram(by_split, title="tokens", unit="tokens in an example")
        words += "".join(_quartiles(f"tokens in a {name} example", found) for name, found in by_split.items())
    return _section("Lengths", pictures, f"<ul>{words}</ul>")


def _origins(collected: Overview) -> str:
    pictures = _titled("Sources", chart.bars(collected.sources, title="sources"))
    pictures += _titled("Licenses", chart.bars(collected.licenses, title="licenses", color=chart.THIRD))
    if len(collected.origins) > 1:
        pictures += _titled("Origins", chart.bars(collected.origins, title="origins"))
    dated = sum(collected.months.values())
    if dated:
        many = len(collected.months) > 36
        counts = Counter[str]()
        for month, count in collected.months.items():
            counts[month[:4] if many else month] += count
        pictures += _titled("Time", chart.columns(counts, title="time"))
    undated = collected.documents - dated
    note = f"{undated:,} of {collected.documents:,} documents carry no time of their own." if undated else ""
    return _section("Where it comes from", pictures, f"<p>{note}</p>" if note else "")


def _splits(splits: Mapping[str, Sequence[Example]]) -> str:
    if not any(splits.values()):
        return ""
    sizes = {name: len(splits[name]) for name in SPLITS if splits.get(name)}
    rows, shown = [], []
    for name in sizes:
        groups = Counter(example.group for example in splits[name])
        largest = ", ".join(f"{group} {count:,}" for group, count in groups.most_common(5))
        if len(groups) == sizes[name] or any(group.startswith("doc:") for group in groups):
            largest = "each example is a group of its own" if len(groups) == sizes[name] else "-"
        rows.append(
            f"<tr><td>{name}</td><td>{sizes[name]:,}</td><td>{len(groups):,}</td><td>{_text(largest)}</td></tr>"
        )
        shown += [_example(name, example) for example in splits[name][:_SHOWN_EXAMPLES]]
    head = "<tr><th>split</th><th>examples</th><th>groups</th><th>largest groups</th></tr>"
    labels = Counter(example.label for name in sizes for example in splits[name] if example.label is not None)
    pictures = chart.bars(sizes, title="splits")
    if labels:
        pictures += _titled(
            "Labels", chart.bars({str(k): v for k, v in labels.items()}, title="labels", color=chart.THIRD)
        )
    examples = f"<details><summary>Examples</summary><table>{''.join(shown)}</table></details>"
    return _section("Splits: no group is in two", pictures, f"<table>{head}{''.join(rows)}</table>{examples}")


def _duplicates_and_people(stages: Mapping[str, Mapping[str, Any]]) -> str:
    same: Counter[str] = Counter()
    personal: Counter[str] = Counter()
    for accounting in stages.values():
        for rule, count in accounting["dropped"].items():
            if re.search(r"dedup|repeated|same_|near_", rule):
                same[rule] += count
        for note, count in (accounting.get("notes") or {}).items():
            if note.startswith("redact."):
                personal[note.removeprefix("redact.")] += count
    pictures = _titled("Duplicates left out", chart.bars(same, title="duplicates", color=chart.SECOND))
    pictures += _titled("Personal data masked", chart.bars(personal, title="personal data", color=chart.WARN))
    pictures += _personal(stages, personal)
    words = "" if same else "<p>No duplicates were left out.</p>"
    words += "" if personal else "<p>No personal data was found by the rules that ran. Names are not among them.</p>"
    return _section("Duplicates and personal data", pictures, words)


def _personal(stages: Mapping[str, Mapping[str, Any]], counts: Counter[str]) -> str:
    """For each kind: how it is told, who published that, masked samples, and how its documents are listed."""
    samples = {rule: found for each in stages.values() for rule, found in (each.get("samples") or {}).items()}
    shown = []
    for kind, count in counts.most_common():
        if kind not in RULES:
            continue
        name, rule = f"redact.{kind}", RULES[kind]
        rows = "".join(
            f"<tr><td><code>{_text(sample['document'])}</code></td><td>{_text(_cut(sample['text']))}</td></tr>"
            for sample in samples.get(name, ())
        )
        shown.append(
            f'<details id="{name}"><summary><code>{name}</code> {count:,}: {_text(rule.finds)}</summary>'
            f"<p>Told by: {_text(rule.check)}. Source: {_text(rule.source)}. Its documents: <code>treadle rule {name}"
            f"</code></p><table>{rows}</table></details>"
        )
    return "".join(shown)


def _quarantined(stages: Mapping[str, Mapping[str, Any]]) -> str:
    pieces = [piece for accounting in stages.values() for piece in accounting["quarantined"]]
    if not pieces:
        return ""
    rows = "".join(
        f"<tr><td>{_text(piece['source'])}</td><td>{int(piece['offset']):,}</td><td>{_text(piece['reason'])}</td></tr>"
        for piece in pieces[:_SHOWN_QUARANTINED]
    )
    more = f"<p>{len(pieces) - _SHOWN_QUARANTINED:,} more.</p>" if len(pieces) > _SHOWN_QUARANTINED else ""
    head = "<tr><th>source</th><th>byte</th><th>why it could not be read</th></tr>"
    return _section("Quarantined", "", f"<table>{head}{rows}</table>{more}")


def _sample(sample: Mapping[str, Any]) -> str:
    reason, text = _text(sample.get("reason", "")), _text(_cut(str(sample.get("text", ""))))
    return (
        f"<tr><td><code>{_text(_cut(str(sample.get('locator', ''))))}</code></td><td>{text}</td><td>{reason}</td></tr>"
    )


def _example(split: str, example: Example) -> str:
    asked, told = _text(_cut(example.question)), _text(_cut(example.answer))
    return f"<tr><td>{split}</td><td>{asked}</td><td>{told}</td></tr>"


def _quartiles(what: str, values: Sequence[float]) -> str:
    if not values:
        return ""
    ordered = sorted(values)
    low, middle, high = (ordered[min(len(ordered) - 1, len(ordered) * part // 4)] for part in (1, 2, 3))
    return f"<li>{_text(what)}: half are between {low:,.0f} and {high:,.0f}, the middle one is {middle:,.0f}</li>"


def _section(title: str, pictures: str, words: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{pictures}{words}</section>" if pictures or words else ""


def _titled(title: str, picture: str) -> str:
    return f"<h3>{_text(title)}</h3>{picture}" if picture else ""


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _text(value: object) -> str:
    """Text for the page: escaped, and without characters that could hide or reorder what is read."""
    return html.escape(chart.printable(str(value), keep=_MARKS))


_STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf8;--card:#fff;--ink:#22252b;--soft:#666b75;--line:#e3e1dc;
--accent:#2f6f9f;--second:#c98a3b;--third:#5b8c6a;--warn:#b4533f}
@media (prefers-color-scheme:dark){:root{--paper:#15171b;--card:#1d2025;--ink:#e7e6e2;--soft:#9aa0aa;--line:#33373f;
--accent:#6fb1dd;--second:#e0ad66;--third:#86bb97;--warn:#dd8672}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:860px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:30px;margin:0 0 20px}h2{font-size:20px;margin:0 0 12px}
h3{font-size:15px;margin:16px 0 4px;color:var(--soft)}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:20px 24px;margin:18px 0}
section{overflow-x:auto}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:12px}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px}
.tiles b{display:block;font-size:24px;font-variant-numeric:tabular-nums}.tiles span{color:var(--soft);font-size:13px}
svg{display:block;max-width:100%;height:auto;margin:6px 0}
table{border-collapse:collapse;width:100%;font-size:14px;margin:8px 0}
td,th{text-align:left;vertical-align:top;padding:5px 8px;border-top:1px solid var(--line);overflow-wrap:anywhere}
th{color:var(--soft);font-weight:500}summary{cursor:pointer;padding:3px 0}ul{padding-left:20px;color:var(--soft)}
code{font:13px ui-monospace,monospace}p{color:var(--soft)}
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}</style></head>
<body><main><h1>{title}</h1>
{body}
</main></body></html>
"""
