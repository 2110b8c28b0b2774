"""``/lineage``: walk up or down from anything; ``?format=json`` gives a `LineagePage`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from treadle.console.visit import Page, Visit
from treadle.record.lineage import Edge, Graph
from treadle.record.record import Record
from treadle.stages.track.walk import lineage as walk

NODES = 50  # of a kind, unless asked otherwise
_ORDER = ("interaction", "release", "model", "dataset", "corpus", "document")
_MOST = 500


@dataclass(frozen=True, slots=True)
class Step:
    """How one thing came about: ``role`` is made_by (exact), given (exact) or similar (likeness, not cause)."""

    role: str
    through: str
    through_label: str


@dataclass(frozen=True, slots=True)
class Found:
    """One thing on the way; ``likeness`` says what a similar document shares with the answer."""

    id: str
    kind: str
    label: str
    steps: tuple[Step, ...]
    likeness: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Things of one kind, and how many more there are."""

    kind: str
    found: tuple[Found, ...]
    cut: int = 0


@dataclass(frozen=True, slots=True)
class LineagePage:
    """``root`` is None until a reference is named. ``verified``: every object on the way is what was recorded.
    ``searched``, where it is a number: in how many of the latest answers a document was looked for that was sent along.
    """

    ref: str
    way: str
    limit: int
    root: Found | None = None
    groups: tuple[Group, ...] = ()
    verified: bool = True
    searched: int | None = None


def lineage(visit: Visit) -> Page:
    """Walk, or ask where from."""
    query = visit.query
    ref, limit = query.text("ref", most=300), query.number("limit", NODES, 1, _MOST)
    # Nothing lies above a document: it came from outside.
    way = query.choice("way", ("up", "down"), "down" if ref.startswith("doc:") else "up")
    if not ref:
        return Page("lineage.html", "Lineage", "lineage", LineagePage(ref, way, limit))
    view = walked(visit.record, ref, way, limit)
    assert view.root is not None
    return Page("lineage.html", f"Lineage of {view.root.label}", "lineage", view)


def walked(record: Record, ref: str, way: str, limit: int) -> LineagePage:
    """The graph around a reference, by kind. Raises ``UserError`` for what is no reference."""
    graph = walk(record, ref, down=way == "down", limit=limit, indexed=True)
    root = graph.nodes[graph.root]
    links = _links(graph, way)
    kinds = {node.kind: None for node in graph.nodes.values() if node.id != graph.root} | dict.fromkeys(graph.truncated)
    groups = tuple(
        Group(
            kind,
            tuple(
                Found(node.id, node.kind, node.label, links.get(node.id, ()), graph.likeness.get(node.id))
                for node in graph.nodes.values()
                if node.kind == kind and node.id != graph.root
            ),
            graph.truncated.get(kind, 0),
        )
        for kind in _sorted(kinds, way)
    )
    shown = Found(root.id, root.kind, root.label, ())
    return LineagePage(ref, way, limit, shown, groups, graph.verified, graph.searched)


def _links(graph: Graph, way: str) -> dict[str, tuple[Step, ...]]:
    """By thing, what it is linked to on the side of the root."""
    found: dict[str, list[Step]] = {}
    for edge in graph.edges:
        here, there = _ends(edge, way)
        found.setdefault(here, []).append(Step(edge.role, there, graph.nodes[there].label))
    return {name: tuple(steps) for name, steps in found.items()}


def _ends(edge: Edge, way: str) -> tuple[str, str]:
    return (edge.target, edge.source) if way == "up" else (edge.source, edge.target)


def _sorted(kinds: Iterable[str], way: str) -> list[str]:
    known = {kind: place for place, kind in enumerate(_ORDER)}
    ordered = sorted(kinds, key=lambda kind: (known.get(kind, len(_ORDER)), kind))
    return ordered if way == "up" else ordered[::-1]
