"""The page that shows a body of texts: where they came from, what they say, what was dropped and why, the splits.

One HTML file that needs nothing else and loads nothing, light and dark by the reader's own setting, readable without
its one small script. Every text that came from a source is escaped. Dropped texts are shown as the accounting sampled
them, cut and masked; of texts about people there are only counts. A number leads to its rule, the rule to its source
and to the command that lists the documents it touched.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from treadle.text import chart
from treadle.text.chart import text
from treadle.text.comparison import Change, Comparison
from treadle.text.dataset import SPLITS, Example
from treadle.text.evaluation_set import PREFIX, told
from treadle.text.examples import NO_GROUP
from treadle.text.explore_texts import languages, measures, text_map, vocabulary
from treadle.text.overview import Overview
from treadle.text.page import beside, page, rule_anchor, section, table, titled
from treadle.text.rules import rule_info

_SHOWN_EXAMPLES = 4
_SHOWN_QUARANTINED = 20
_SHOWN_CHARACTERS = 320
_SHOWN_NAMES = 12
_OPEN_RULES = 3
_FATES = {"kept": "accent", "dropped": "second", "quarantined": "warn"}

Account = Mapping[str, Any]


@dataclass(slots=True)
class SplitShape:
    """What is shown of one split, counted as its examples stream by."""

    examples: int = 0
    groups: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    synthetic: int = 0
    shown: list[Example] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """Count one more."""
        self.examples += 1
        self.groups[example.group] += 1
        self.synthetic += example.fields.get("origin") == "synthetic"
        if example.label is not None:
            self.labels[example.label] += 1
        if len(self.shown) < _SHOWN_EXAMPLES:
            self.shown.append(example)


@dataclass(frozen=True, slots=True)
class Material:
    """What a page is made of.

    ``stages`` maps a stage to its accounting as JSON (``in``, ``kept``, ``dropped``, ``quarantined``, ``notes``,
    ``samples``, ``duplicates``), in order. ``collected`` and ``kept`` are the documents before and after cleaning,
    ``tokens`` the tokens of each example by split. ``ref`` is what commands call it, ``touched`` how many
    documents each rule touched where that was noted: the command can list these.
    """

    title: str
    collected: Overview
    kept: Overview | None = None
    stages: Mapping[str, Account] = field(default_factory=dict)
    splits: Mapping[str, SplitShape] = field(default_factory=dict)
    tokens: Mapping[str, Sequence[int]] = field(default_factory=dict)
    comparison: Comparison | None = None
    subtitle: str = ""
    ref: str = ""
    touched: Mapping[str, int] = field(default_factory=dict)

    @property
    def subject(self) -> Overview:
        """What the page is about: what was kept, else everything."""
        return self.kept if self.kept is not None else self.collected


def render_report(material: Material) -> str:
    """The page as HTML."""
    stages, subject = material.stages, material.subject
    sections = [
        _what_became(stages),
        _compared(material),
        text_map(subject),
        _lengths(material),
        languages(subject),
        _origins(subject),
        vocabulary(subject),
        measures(subject),
        _duplicates(stages),
        _evaluation_sets(stages),
        _personal_data(stages),
        _splits(material.splits, stages),
        _rules(stages, material.ref, material.touched),
        _quarantined(stages),
    ]
    return page(material.title, material.subtitle or _about(material), _tiles(material), sections)


def _about(material: Material) -> str:
    overview = material.subject
    part = "" if overview.sampled == overview.documents else f"; {overview.sampled:,} of them looked at word by word"
    cleaned = " after cleaning" if material.kept is not None and material.comparison is None else ""
    return f"{overview.documents:,} documents{cleaned}, {overview.lengths.total:,} characters{part}"


def _tiles(material: Material) -> str:
    facts: list[tuple[str, str]] = []
    subject = material.subject
    if material.comparison is not None:
        members = material.comparison.members
        facts += [("documents in both", f"{members.shared:,}"), ("added", f"{members.added:,}")]
        facts += [("removed", f"{members.removed:,}")]
        if members.changed is not None:
            facts.append(("of both, changed", f"{members.changed:,}"))
    elif material.stages:
        first, last = next(iter(material.stages.values())), list(material.stages.values())[-1]
        facts.append(("documents in", f"{int(first['in']):,}"))
        if first is not last and (beside := int(last["in"]) - int(first["kept"])) > 0:  # corrections, a teacher's texts
            facts.append(("added to them", f"{beside:,}"))
        facts.append(("documents kept", f"{int(last['kept']):,}"))
    else:
        facts.append(("documents", f"{subject.documents:,}"))
    facts.append(("characters", chart.short(subject.lengths.total)))
    facts += [(f"{name} examples", f"{part.examples:,}") for name, part in material.splits.items() if part.examples]
    facts += [(f"{name} tokens", f"{sum(found):,}") for name, found in material.tokens.items() if name == "train"]
    tiles = "".join(f"<div><b>{count}</b><span>{text(name)}</span></div>" for name, count in facts)
    return f'<div class="tiles">{tiles}</div>'


def _what_became(stages: Mapping[str, Account]) -> str:
    if not stages:
        return ""
    parts = {
        name: {
            "kept": int(account["kept"]),
            "dropped": sum(account["dropped"].values()),
            "quarantined": len(account["quarantined"]),
        }
        for name, account in stages.items()
    }
    lines = "".join(
        f"<li><b>{text(name)}</b>: {int(stages[name]['in']):,} in = {part['kept']:,} kept"
        f' + <a href="#rules">{part["dropped"]:,} dropped</a> + {_to_quarantined(part["quarantined"])}</li>'
        for name, part in parts.items()
    )
    picture = chart.stacked(parts, title="what became of every document, by stage", series=_FATES)
    counts, _, links = _by_rule(stages)
    rules = chart.bars(counts, title="documents dropped, by rule", color="second", links=links)
    return section(
        "What became of every document", picture, f'<ul class="plain">{lines}</ul>', titled("Dropped, by rule", rules)
    )


def _to_quarantined(count: int) -> str:
    return f'<a href="#quarantined">{count:,} quarantined</a>' if count else "0 quarantined"


def _by_rule(stages: Mapping[str, Account]) -> tuple[Counter[str], Counter[str], dict[str, str]]:
    """Documents dropped and findings noted by rule, and where each rule is explained."""
    dropped: Counter[str] = Counter()
    noted: Counter[str] = Counter()
    for account in stages.values():
        dropped.update({rule: int(n) for rule, n in account["dropped"].items()})
        notes = {rule: int(n) for rule, n in (account.get("notes") or {}).items() if not rule.startswith(PREFIX)}
        noted.update(notes)
    return dropped, noted, {rule: "#" + rule_anchor(rule) for rule in (*dropped, *noted)}


def _rules(stages: Mapping[str, Account], ref: str, touched: Mapping[str, int]) -> str:
    dropped, noted, _ = _by_rule(stages)
    samples = {rule: found for each in stages.values() for rule, found in (each.get("samples") or {}).items()}
    names = [*(rule for rule, _ in dropped.most_common()), *sorted(rule for rule, n in noted.items() if n)]
    shown = []
    for place, rule in enumerate(names):
        info = rule_info(rule)
        count = f"{dropped[rule]:,} dropped" if rule in dropped else f"{noted[rule]:,} found or changed"
        cited = (
            f'<a href="{text(info.url)}" rel="noreferrer">{text(info.source)}</a>' if info.url else text(info.source)
        )
        said = f"{text(info.what)} " if info.what else ""
        parts = [f'<p class="note">{said}Source: {cited}.</p>']
        found = samples.get(rule, ())
        if found:
            parts.append(f'<div class="samples">{"".join(_sample(sample) for sample in found)}</div>')
        if rule in dropped and not found:
            parts.append('<p class="note">No sample is kept of texts about people.</p>')
        if ref and touched.get(rule):
            command = f"treadle explore {ref} --rule {shlex.quote(rule)}"
            parts.append(
                f'<p class="note">The {touched[rule]:,} documents it touched:</p>'
                f"<pre><code>{text(command)}</code></pre>"
            )
        opened = " open" if place < _OPEN_RULES else ""
        shown.append(
            f'<details class="rule" id="{text(rule_anchor(rule))}"{opened}><summary><b><code>{text(rule)}</code></b>'
            f" <span>{count}</span></summary>{''.join(parts)}</details>"
        )
    intro = "Each rule with who published it, and samples of what it dropped, the trigger <mark>marked</mark>."
    return section("Rules", *shown, intro=intro)


def _sample(sample: Mapping[str, Any]) -> str:
    said = str(sample.get("text", ""))
    mark = sample.get("mark")
    if mark and 0 <= mark[0] < mark[1] <= len(said):
        inside = f"{text(said[: mark[0]])}<mark>{text(said[mark[0] : mark[1]])}</mark>{text(said[mark[1] :])}"
    else:
        inside = text(_cut(said))
    who = f"<code>{text(_cut(str(sample.get('locator', ''))))}</code>: {text(sample.get('reason', ''))}"
    return f'<div class="sample"><p>{inside or "<i>not shown: about a person</i>"}</p><small>{who}</small></div>'


def _lengths(material: Material) -> str:
    named = {"collected": material.collected}
    if material.comparison is not None:
        named = {material.comparison.before: material.collected}
    if material.kept is not None:
        named[material.comparison.after if material.comparison else "kept"] = material.kept
    bins = sorted({place for overview in named.values() for place in overview.lengths.bins})
    series = {
        name: [
            (overview.lengths.at(place), overview.lengths.bins[place] / overview.lengths.count)
            for place in range(bins[0], bins[-1] + 1)
        ]
        for name, overview in named.items()
        if overview.lengths.count
    }
    pictures = chart.curves(series, title="characters in a document", unit="characters in a document")
    lengths = material.subject.lengths
    facts = []
    if lengths.count:
        low, middle, high = (lengths.quantile(share) for share in (0.25, 0.5, 0.75))
        facts.append(_quartiles("characters in a document", low, middle, high, lengths.longest))
    by_split = {name: material.tokens[name] for name in SPLITS if material.tokens.get(name)}
    if by_split:
        points = {name: chart.histogram_of([float(n) for n in found]) for name, found in by_split.items()}
        pictures += titled("Tokens", chart.curves(points, title="tokens in an example", unit="tokens in an example"))
        for name, found in by_split.items():
            ordered = sorted(found)
            low, middle, high = (ordered[min(len(ordered) - 1, len(ordered) * part // 4)] for part in (1, 2, 3))
            facts.append(_quartiles(f"tokens in a {name} example", low, middle, high, ordered[-1]))
    return section("Lengths", pictures, f'<ul class="plain">{"".join(facts)}</ul>' if facts else "")


def _quartiles(what: str, low: float, middle: float, high: float, longest: float) -> str:
    return (
        f"<li>{text(what)}: half are between <b>{low:,.0f}</b> and <b>{high:,.0f}</b>, the middle one is"
        f" <b>{middle:,.0f}</b>, the longest {longest:,.0f}</li>"
    )


def _origins(overview: Overview) -> str:
    sources = chart.bars(overview.sources.counts, title="documents by source", others=overview.sources.given_up)
    licenses = chart.bars(overview.licenses.counts, title="documents by license", color="third")
    origins = chart.bars(overview.origins.counts, title="documents by origin")
    pictures = beside(titled("Sources", sources), titled("Licenses", licenses))
    if len(overview.origins.counts) > 1:
        pictures += titled("Origins", origins)
    months = overview.months.counts
    only = ""
    if len(months) == 1:
        only = f"All with a time are of {next(iter(months))}. "
    elif months:
        many = len(months) > 36
        counts = Counter[str]()
        for month, count in months.items():
            counts[month[:4] if many else month] += count
        pictures += titled("Time", chart.columns(counts, title="documents by " + ("year" if many else "month")))
    undated = overview.documents - months.total()
    note = only + (f"{undated:,} of {overview.documents:,} documents carry no time of their own." if undated else "")
    return section("Where it comes from", pictures, f'<p class="note">{note}</p>' if note else "")


def _splits(splits: Mapping[str, SplitShape], stages: Mapping[str, Account]) -> str:
    sizes = {name: splits[name].examples for name in SPLITS if name in splits and splits[name].examples}
    if not sizes:
        return ""
    rows, shown = [], []
    labels: Counter[str] = Counter()
    for name, size in sizes.items():
        groups = splits[name].groups
        largest = ", ".join(f"{_cut(group)} {count:,}" for group, count in groups.most_common(5))
        if len(groups) == size or any(group.startswith("doc:") for group in groups):
            largest = "each example is a group of its own" if len(groups) == size else "-"
        made = f" ({splits[name].synthetic:,} synthetic)" if splits[name].synthetic else ""
        rows.append((name, f"{size:,}{made}", f"{len(groups):,}", text(largest)))
        shown += [(name, text(_cut(one.question)), text(_cut(one.answer))) for one in splits[name].shown]
        labels.update({str(label): count for label, count in splits[name].labels.items()})
    pictures = beside(
        titled("Examples", chart.bars(sizes, title="examples by split")),
        titled("Labels", chart.bars(labels, title="examples by label", color="third")),
    )
    told = table(("split", "examples", "groups", "largest groups"), rows, numbers=frozenset({1, 2}))
    alone = _by_rule(stages)[1][NO_GROUP]
    note = f'<p class="note">{alone:,} examples without the field are each a group of their own.</p>' if alone else ""
    examples = table(("split", "question or text", "answer"), shown)
    return section(
        "Splits: no group is in two", pictures, told, note, f"<details><summary>Examples</summary>{examples}</details>"
    )


def _duplicates(stages: Mapping[str, Account]) -> str:
    dropped, _, links = _by_rule(stages)
    same = {rule: n for rule, n in dropped.items() if re.search(r"^dedup|^earlier|repeated_|\.same_|\.near_", rule)}
    if not stages:
        return ""
    picture = chart.bars(same, title="documents left out as duplicates", color="second", links=links)
    found = [account["duplicates"] for account in stages.values() if account.get("duplicates")]
    clusters = _clusters(found[-1]) if found else ""
    return section("Duplicates", picture or '<p class="note">No duplicates were left out.</p>', clusters)


def _clusters(duplicates: Mapping[str, Any]) -> str:
    """The largest clusters: ``largest`` lists ``locator`` (of what stayed), ``size`` and the first ``members``."""
    rows = []
    for cluster in duplicates.get("largest", ()):
        members = "<br>".join(
            f"<code>{text(_cut(str(each.get('locator', ''))))}</code> {float(each.get('similarity', 1)):.2f}"
            for each in cluster.get("members", ())
        )
        stays = f"<code>{text(_cut(str(cluster.get('locator', ''))))}</code>"
        rows.append((stays, f"{int(cluster.get('size', 0)):,}", members))
    said = f"{int(duplicates.get('clusters', 0)):,} clusters; {int(duplicates.get('dropped', 0)):,} documents left out."
    told = table(("stays", "documents", "left out, with likeness"), rows, numbers=frozenset({1}))
    return f'<h3>Largest clusters</h3><p class="note">{said}</p>{told}'


def _evaluation_sets(stages: Mapping[str, Account]) -> str:
    _, _, links = _by_rule(stages)
    rows = []
    for account in stages.values():
        for name, found in told(account).items():
            gone = ", ".join(
                f'{count:,} <a href="{links[PREFIX + name + "." + rule]}">{text(rule)}</a>'
                for rule, count in found["dropped"].items()
            )
            unread = f" ({len(found['quarantined']):,} quarantined)" if found["quarantined"] else ""
            rows.append((text(name) + unread, f"{int(found['items']):,}", f"{int(found['met']):,}", gone or "none"))
    head = ("set", "items", "met in examples", "documents dropped")
    return section("Evaluation sets kept apart", table(head, rows, numbers=frozenset({1, 2})))


def _personal_data(stages: Mapping[str, Account]) -> str:
    if not stages:
        return ""
    _, noted, links = _by_rule(stages)
    found = {name: n for name, n in noted.items() if name.startswith("redact.") and name != "redact.documents" and n}
    short = {name.removeprefix("redact."): n for name, n in found.items()}
    to = {name.removeprefix("redact."): link for name, link in links.items()}
    picture = chart.bars(short, title="personal data masked, by kind", color="warn", links=to)
    touched = noted.get("redact.documents", 0)
    note = f"In {touched:,} documents." if touched else ""
    if not found:
        note = "No personal data was found by the rules that ran. Names are not among them."
    return section("Personal data", picture, f'<p class="note">{note}</p>' if note else "")


def _quarantined(stages: Mapping[str, Account]) -> str:
    pieces: list[list[Any]] = [account["quarantined"] for account in stages.values()]
    longest: list[Any] = max(pieces, key=len, default=[])
    rows = [
        (text(piece["source"]), f"{int(piece['offset']):,}", text(piece["reason"]))
        for piece in longest[:_SHOWN_QUARANTINED]
    ]
    more = len(longest) - _SHOWN_QUARANTINED
    told = table(("source", "byte", "why it could not be read"), rows, numbers=frozenset({1}))
    return section("Quarantined", told, f'<p class="note">{more:,} more.</p>' if more > 0 else "")


def _compared(material: Material) -> str:
    comparison = material.comparison
    if comparison is None:
        return ""
    members = comparison.members
    changed = "" if members.changed is None else f", <b>{members.changed:,}</b> of them with another text"
    said = (
        f'<p class="intro">From {text(comparison.before)} to {text(comparison.after)}: <b>{members.added:,}</b> added,'
        f" <b>{members.removed:,}</b> removed, <b>{members.shared:,}</b> in both{changed}.</p>"
    )
    names = beside(
        titled("Added", _names(members.added_names, members.added)),
        titled("Removed", _names(members.removed_names, members.removed)),
    )
    words = beside(
        titled("Words that became more frequent", _diverging(comparison.more, "accent")),
        titled("Words that became less frequent", _diverging(comparison.less, "second")),
    )
    how = "Bars are standard errors of the log-odds; numbers are per million words, before and after."
    return section("What changed", said, names, words, f'<p class="note">{how}</p>' if words else "")


def _names(names: Sequence[str], count: int) -> str:
    if not count:
        return '<p class="note">none</p>'
    rows = "".join(f"<li><code>{text(_cut(name))}</code></li>" for name in names[:_SHOWN_NAMES])
    more = count - min(len(names), _SHOWN_NAMES)
    return f'<ul class="plain">{rows}{f"<li>{more:,} more</li>" if more > 0 else ""}</ul>'


def _diverging(changes: Sequence[Change], color: str) -> str:
    if not changes:
        return '<p class="note">none beyond chance</p>'
    longest = max(abs(change.z) for change in changes)
    rows = "".join(
        f'<tr><th scope="row">{text(chart.cut(change.word, 24))}</th><td title="{change.z:+.1f} standard errors">'
        f'<i class="{color}" style="width:{abs(change.z) / longest:.1%}"></i></td>'
        f'<td class="n">{change.before:,.0f} → {change.after:,.0f}</td></tr>'
        for change in changes
    )
    return f'<table class="diverge"><caption>words by how surely they changed</caption>{rows}</table>'


def _cut(value: str) -> str:
    return value if len(value) <= _SHOWN_CHARACTERS else value[: _SHOWN_CHARACTERS - 1] + "…"
