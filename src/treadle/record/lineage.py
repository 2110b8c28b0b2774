"""Lineage: the walk over everything recorded, from an answer to its documents and from a document to its answers.

Three roles that are never mixed: ``made_by`` (exact: what it was built from, by digest), ``given`` (exact: context
that was sent with the request) and ``similar`` (likeness, not cause; added by whoever can compare texts).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from treadle.core.artifacts import Artifact
from treadle.core.errors import Corrupt, UserError
from treadle.core.reach import collected_artifacts
from treadle.core.verify import erased_by
from treadle.core.workspace import Workspace
from treadle.record.document_index import DocumentIndex
from treadle.record.interaction_index import MAX_PAGE, InteractionFilter, InteractionIndex
from treadle.record.release import Release
from treadle.record.version import NOT_RECORDED, Versions

Role = Literal["made_by", "given", "similar"]
Label = Callable[[list[str]], dict[str, str]]

HOLDING_DOCUMENTS = ("corpus", "dataset", "model", "release")
PARENTS_FILE = "parents.json"  # of a corpus: by synthetic document, the ids of those it was made from
_AT_ONCE = 500  # artifacts that are looked up together
_GIVEN = 20  # answers that were sent a document, of those that the index finds at once


@dataclass(frozen=True, slots=True)
class Node:
    """A thing on the way: its id, its kind (one of the design's nouns), and a name for people."""

    id: str
    kind: str
    label: str


@dataclass(frozen=True, slots=True)
class Edge:
    """``source`` came about through ``target`` in this role."""

    source: str
    target: str
    role: Role


@dataclass
class Graph:
    """What a walk found. ``truncated`` counts by kind what the limit cut off. ``searched`` says, where not all of them
    were, in how many of the latest answers a document was looked for that was sent along with the question. ``erased``
    names for what is gone with a person the request that accounts for it."""

    root: str
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: dict[Edge, None] = field(default_factory=dict)
    truncated: dict[str, int] = field(default_factory=dict)
    verified: bool = True
    erased: dict[str, str] = field(default_factory=dict)
    likeness: dict[str, str] = field(default_factory=dict)  # what a similar document shares with the answer
    searched: int | None = None

    def add(self, identifier: str, kind: str, label: str) -> None:
        """Put a node in, once."""
        self.nodes.setdefault(identifier, Node(identifier, kind, label))

    def link(self, source: str, target: str, role: Role = "made_by") -> None:
        """Put an edge in, once."""
        self.edges[Edge(source, target, role)] = None

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle lineage --json`` promises."""
        return {
            "root": self.root,
            "nodes": [{"id": node.id, "kind": node.kind, "label": node.label} for node in self.nodes.values()],
            "edges": [{"from": edge.source, "to": edge.target, "role": edge.role} for edge in self.edges],
            "truncated": self.truncated,
            "verified": self.verified,
            "erased": self.erased,
        }


class Lineage:
    """Walks up and down. ``label`` names documents for people; ``limit`` bounds nodes per kind (0: no bound).

    With an ``index`` the way down to the answers does not read the journal.
    """

    def __init__(
        self,
        workspace: Workspace,
        versions: Versions,
        documents: DocumentIndex,
        label: Label,
        limit: int,
        index: InteractionIndex | None = None,
    ) -> None:
        self._workspace = workspace
        self._index = index if limit else None
        self._versions = versions
        self._documents = documents
        self._label = label
        self._limit = limit

    # -- up

    def of_interaction(self, row: dict[str, Any]) -> Graph:
        """From an answer: the release that gave it, its model, dataset and documents; and what was sent with it."""
        graph = Graph(row["id"])
        graph.add(row["id"], "interaction", row["id"])
        self._given(graph, row)
        self._release(graph, row["release"], above=row["id"])
        return graph

    def of_artifact(self, digest: str, kind: str) -> Graph:
        """From a release, a model, a dataset or any other artifact, to what it was made of."""
        graph = Graph(digest)
        if kind == "release":
            self._release(graph, digest, above=None)
        elif kind == "model":
            self._model(graph, digest, above=None)
        else:
            self._holder(graph, digest, kind, above=None, documents=True)
        return graph

    def of_run(self, identifier: str) -> Graph:
        """From a run: what it made, and what it made it from."""
        graph = Graph(identifier)
        run = self._workspace.runs.get(identifier)
        if run is None:
            raise UserError(f"there is no run {identifier}; treadle runs lists them")
        graph.add(identifier, "run", f"{run.step} ({run.status})")
        kinds = self._kinds([*run.outputs.values(), *_flat(run.inputs)])
        for made in run.outputs.values():
            graph.add(made, kinds.get(made, "artifact"), self._name(made, kinds.get(made, "artifact")))
            graph.link(made, identifier)
        for taken in _flat(run.inputs):
            graph.add(taken, kinds.get(taken, "artifact"), self._name(taken, kinds.get(taken, "artifact")))
            graph.link(identifier, taken)
        return graph

    def alone(self, document: str) -> Graph:
        """A document by itself: it came from outside, so nothing lies above it."""
        graph = Graph(document)
        graph.add(document, "document", self._label([document]).get(document, document))
        return graph

    def _given(self, graph: Graph, row: dict[str, Any]) -> None:
        for index, piece in enumerate(row.get("given") or ()):
            identifier = piece.get("document") or piece["digest"]
            graph.add(identifier, "document", piece.get("title") or f"context {index + 1}")
            graph.link(row["id"], identifier, "given")

    def _release(self, graph: Graph, digest: str, above: str | None) -> None:
        if digest == NOT_RECORDED:
            graph.add(digest, "release", NOT_RECORDED)
            if above:
                graph.link(above, digest)
            return
        release = Release(digest, self._workspace.store)
        graph.add(digest, "release", "release " + digest[3:11])
        spec = self._read(graph, digest, lambda: release.check().read(), remains=release.read)
        if above:
            graph.link(above, digest)
        if spec:
            self._model(graph, spec.model, above=digest, dataset=spec.dataset)

    def _model(self, graph: Graph, digest: str, above: str | None, dataset: str | None = None) -> None:
        self._holder(graph, digest, "model", above, documents=True)
        producer = self._workspace.runs.producer(digest)
        outside = self._outside(digest)
        if outside is not None:
            self._end_at(graph, digest, outside)
        if outside == digest:
            return  # the dataset of its release is what it was judged on
        dataset = dataset or (producer.inputs.get("dataset") if producer else None)
        if dataset:
            self._holder(graph, dataset, "dataset", above=digest, documents=False)

    def _outside(self, digest: str) -> str | None:
        """The model from outside that this one is, or that its training started from; None where there is none."""
        seen: set[str] = set()
        while digest and digest not in seen:
            seen.add(digest)
            producer = self._workspace.runs.producer(digest)
            if producer is None or producer.facts["kind"] == "import":
                return digest if producer else None
            digest = producer.inputs.get("start") or ""
        return None

    def _end_at(self, graph: Graph, digest: str, outside: str) -> None:
        """Lineage ends at a model from outside: what it was trained on, and from what, nobody wrote down."""
        if outside != digest:
            self._holder(graph, outside, "model", above=digest, documents=False)
        name = f"{NOT_RECORDED}: {outside}"
        graph.add(name, NOT_RECORDED, "training data and base model")
        graph.link(outside, name)

    def _holder(self, graph: Graph, digest: str, kind: str, above: str | None, *, documents: bool) -> None:
        """An artifact and, where asked, the documents it was made from."""
        graph.add(digest, kind, self._name(digest, kind))
        if above:
            graph.link(above, digest)
        artifact = Artifact(digest, self._workspace.store)
        ids = self._read(graph, digest, lambda: artifact.check().document_ids(), remains=artifact.document_ids)
        if documents and ids:
            shown = self._cut(graph, "document", ids)
            names = self._label(list(shown))
            for identifier in shown:
                graph.add(identifier, "document", names.get(identifier, identifier))
                graph.link(digest, identifier)

    # -- down

    def of_document(self, document: str) -> Graph:
        """From a document: every artifact that holds it, and every answer those models gave."""
        graph = Graph(document)
        graph.add(document, "document", self._label([document]).get(document, document))
        held = self._documents.holders(document, HOLDING_DOCUMENTS, self._limit, whole="release")
        graph.verified &= held.verified
        names = self._versions.names([each.digest for each in held.found])
        for each in sorted(held.found, key=lambda each: HOLDING_DOCUMENTS.index(each.kind)):
            graph.add(each.digest, each.kind, names.get(each.digest) or f"{each.kind} {each.digest[3:11]}")
            graph.link(each.digest, document)
        shown = Counter(each.kind for each in held.found)
        graph.truncated |= dict(sorted((held.counts - shown).items()))
        self._interactions(graph, document, held.whole)
        return graph

    def below_artifact(self, digest: str, kind: str) -> Graph:
        """From an artifact: what runs made of it, and every answer that came of that."""
        graph = Graph(digest)
        graph.add(digest, kind, self._name(digest, kind))
        made = self._made_of(digest)
        kinds = self._kinds(made)
        for kind in dict.fromkeys(kinds.values()):
            for name in self._cut(graph, kind, [each for each in made if kinds.get(each) == kind]):
                graph.add(name, kind, self._name(name, kind))
        for name, sources in made.items():
            for source in sources if name in graph.nodes else ():
                if source in graph.nodes:
                    graph.link(name, source)
        releases = {name for name, kind in kinds.items() if kind == "release"}
        self._interactions(graph, None, releases | ({digest} if kind == "release" else set()))
        return graph

    def _made_of(self, digest: str) -> dict[str, list[str]]:
        """What runs made of an artifact, and of that, and so on, each with what it was made of; as far as it is still
        there, and the latest first among what is made of the same."""
        taken: dict[str, list[tuple[str, ...]]] = {}
        for inputs, outputs in self._workspace.runs.edges():
            for name in inputs:
                taken.setdefault(name, []).append(outputs)
        made: dict[str, list[str]] = {}
        waiting = deque([digest])
        while waiting:
            source = waiting.popleft()
            for outputs in taken.get(source, ()):
                for name in outputs:
                    if name not in made and name != digest and self._workspace.store.has_object(name):
                        made[name] = []
                        waiting.append(name)
                    if name in made and source not in made[name]:
                        made[name].append(source)
        return made

    def _interactions(self, graph: Graph, document: str | None, releases: set[str]) -> None:
        if self._index is not None:
            self._indexed(graph, self._index, document, releases)
            return
        found = []
        for row in self._workspace.journal.read("interactions", newest_first=True):
            given = document is not None and any(piece.get("document") == document for piece in row.get("given") or ())
            if given or row["release"] in releases:
                found.append((row["id"], row["release"], given))
        for identifier, release, given in self._cut(graph, "interaction", found):
            graph.add(identifier, "interaction", identifier)
            if release in graph.nodes:
                graph.link(identifier, release)
            if given and document:
                graph.link(identifier, document, "given")

    def _indexed(self, graph: Graph, index: InteractionIndex, document: str | None, releases: set[str]) -> None:
        where = InteractionFilter(release=tuple(sorted(releases)))
        rows = index.page(where, limit=min(self._limit, MAX_PAGE)).rows if releases else ()
        for row in rows:
            graph.add(row.id, "interaction", row.id)
            if row.release in graph.nodes:
                graph.link(row.id, row.release)
        more = (index.count(where) if releases else 0) - len(rows)
        if more > 0:
            graph.truncated["interaction"] = more
        if document is not None:
            sent = index.page(InteractionFilter(text=document), limit=_GIVEN)
            graph.searched = sent.searched if sent.next else None
            for row in sent.rows:
                graph.add(row.id, "interaction", row.id)
                graph.link(row.id, document, "given")

    # -- the record

    def _kinds(self, digests: Iterable[str]) -> dict[str, str]:
        """What artifacts are, in the order they were made."""
        wanted, found = list(digests), []
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            sql = f"SELECT min(seq), digest, kind FROM artifacts WHERE digest IN ({marks}) GROUP BY digest, kind"
            found += self._workspace.database.query(sql, some)
        return {digest: kind for _, digest, kind in sorted(found)}

    def _name(self, digest: str, kind: str) -> str:
        return self._versions.names([digest]).get(digest) or f"{kind} {digest[3:11]}"

    def _cut(self, graph: Graph, kind: str, found: Any) -> Any:
        if self._limit and len(found) > self._limit:
            graph.truncated[kind] = graph.truncated.get(kind, 0) + len(found) - self._limit
            return found[: self._limit]
        return found

    def _read(
        self, graph: Graph, digest: str, read: Callable[[], Any], remains: Callable[[], Any] | None = None
    ) -> Any:
        """What ``read`` gives, or None where the object is gone or damaged; then the graph is not verified.

        ``remains`` reads what a collection leaves of an artifact. What an erasure accounts for is as it should be.
        """
        try:
            if digest and self._workspace.store.has(digest):
                return read()
            if remains is not None and digest in collected_artifacts(self._workspace.ledger):
                return remains()
        except Corrupt:
            pass
        request = erased_by(self._workspace, digest)
        if request is None:
            graph.verified = False
        else:
            graph.erased[digest] = request
            node = graph.nodes[digest]
            graph.nodes[digest] = replace(node, label=f"{node.label} (erased by {request})")
        return None


def _flat(inputs: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for value in inputs.values():
        found.extend(value if isinstance(value, list) else [value] if value else [])
    return found
