"""What of the record may leave the project, for other tools that are told of it.

Ids, digests, numbers, times, and texts that are one plain word; any other text leaves as its keyed digest. Notes,
errors, command lines, diffs, what was printed, interactions and feedback never leave.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from treadle.core.fact import Row
from treadle.core.run import METRICS
from treadle.core.run_record import RunRecord
from treadle.core.secrets import conceal
from treadle.core.sink import POINTS, Ref, SentArtifact, SentRun, Unavailable
from treadle.core.texts import is_word, keyed_text, read_texts
from treadle.record.record import Record

_DIGEST = re.compile(r"(?:b3:|doc:)[0-9a-f]{64}|k3:[0-9a-f]{40}")
_AS_THEY_ARE = ("run.started", "run.noted", "run.finished", "artifact", "version", "alias", "turn.begun", "turn.ended")
_SEAL, _ERASURE = "seal", "erasure"
_SOMETHING = "(kind = 'seal' AND body LIKE ?) OR (kind = 'erasure' AND body NOT LIKE ?)"
_PATTERNS = (f'%"stream":"{METRICS}"%', '%"objects":[]%')
KINDS = (*_AS_THEY_ARE, _SEAL, _ERASURE)  # what sinks are told of
_NAMING = ("run.started", "run.noted")  # rows that name texts


class Outgoing:
    """The record as sinks see it: `core.sink.View`, and the rows that they are given."""

    def __init__(self, record: Record, folder: Path) -> None:
        self.project = record.name
        self.identity = record.workspace.keys.project
        self.folder = folder
        self._record = record

    # -- looked up

    def run(self, identifier: str) -> SentRun | None:
        """A run as it stands now."""
        found = self._record.runs.get(identifier)
        return None if found is None else self._sent(found)

    def _sent(self, run: RunRecord) -> SentRun:
        facts = run.facts
        return SentRun(
            run.id,
            run.step,
            facts.get("name") or run.step,
            facts["kind"],
            run.status,
            run.started,
            self._ended(run),
            facts.get("seed"),
            facts.get("commit"),
            self._turn(run) if facts["kind"] in ("step", "action") else None,
            dict(self._flat("", run.parameters)),
            run.metrics,
            self._tags(facts),
            dict(_digests(run.inputs)),
            run.outputs,
        )

    @staticmethod
    def _ended(run: RunRecord) -> str | None:
        if run.status == "running" or run.seconds is None:
            return None
        try:
            return _stamp(datetime.fromisoformat(run.started) + timedelta(seconds=run.seconds))
        except OverflowError:  # whoever reported the run has another calendar
            return None

    def _turn(self, run: RunRecord) -> int | None:
        for turn in reversed(self._record.turns.all()):
            if turn.begun <= run.started:
                return turn.number if turn.ended is None or run.started <= turn.ended else None
        return None

    def _flat(self, name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from self._flat(f"{name}.{key}" if name else str(key), item)
        elif isinstance(value, list):
            yield name, json.dumps([self._leaf(item) for item in value], ensure_ascii=False)
        else:
            yield name, self._leaf(value)

    def _leaf(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: self._leaf(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._leaf(item) for item in value]
        return self._word(value) if isinstance(value, str) else value

    def _word(self, text: str) -> str:
        kept = conceal(text)
        plain = kept in ("", "[secret]") or is_word(kept) or _DIGEST.fullmatch(kept)
        return kept if plain else keyed_text(self._record.workspace.keys, text)

    def _tags(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """A tag that is text stands as a keyed digest in the ledger; a plain word is put back from the store, unless it
        names a user."""
        texts: dict[str, str] = {}
        for digest in (facts.get("texts"), *facts.get("more_texts", ())):
            texts |= read_texts(self._record.store, digest)
        found = {}
        for name, value in facts.get("tags", {}).items():
            told = isinstance(value, str) and name.rpartition(".")[2] != "user"
            text = texts.get(f"tags.{name}") if told else None
            same = text is not None and is_word(text) and keyed_text(self._record.workspace.keys, text) == value
            found[name] = text if same else value
        return found

    def artifact(self, digest: str) -> SentArtifact | None:
        """An artifact that a run made or took."""
        sql = "SELECT kind, bytes, documents FROM artifacts WHERE digest = ? ORDER BY seq LIMIT 1"
        rows = self._record.ledger.database.query(sql, (digest,))
        if not rows:
            return None
        kind, size, documents = rows[0]
        versions = self._record.versions.with_digest(digest)
        name, number = (versions[0].name, versions[0].number) if versions else (self.project, None)
        return SentArtifact(digest, kind, name, number, size, documents)

    def version(self, name: str, number: int) -> str | None:
        """The digest of the model that is a version of this name."""
        sql = "SELECT digest FROM versions WHERE kind = 'model' AND name = ? AND number = ?"
        rows = self._record.ledger.database.query(sql, (name, number))
        return str(rows[0][0]) if rows else None

    def points(self, run: str) -> list[dict[str, Any]]:
        """Every row about a run's metrics, in the order they were logged."""
        return self._record.workspace.journal.find_all(METRICS, run)

    def points_before(self, run: str, seq: int) -> int:
        """How many rows about a run's metrics were sealed before row ``seq``."""
        return self._record.workspace.journal.count_sealed(METRICS, run, before=seq)

    # -- given

    def rows(self, after: int) -> Iterator[tuple[Row, Sequence[Row] | Sequence[Ref]]]:
        """Rows of the ledger after a cursor, each with what a sink is given for it: rows, or what was erased."""
        gone = {name for row in self._record.ledger.rows(_ERASURE) for name in row.body["objects"]}
        for row in self._record.ledger.rows(*KINDS, after=after):
            if row.kind == "version" and row.body["digest"] in gone:
                yield row, []
            elif row.kind == _ERASURE:
                yield row, self._erased(row)
            elif row.kind == _SEAL:
                yield row, list(self._pieces(row))
            else:
                yield row, [row]

    def erased(self) -> list[Ref]:
        """Everything that was erased so far."""
        return [ref for row in self._record.ledger.rows(_ERASURE) for ref in self._erased(row)]

    def last(self) -> int:
        """The latest row that a sink would be told of."""
        marks = ", ".join("?" * len(KINDS))
        sql = f"SELECT coalesce(max(seq), 0) FROM ledger WHERE kind IN ({marks})"
        return int(self._record.ledger.database.query(sql, KINDS)[0][0])

    def waiting(self, after: int) -> int:
        """How many rows after a cursor there is something to tell of."""
        marks = ", ".join("?" * len(_AS_THEY_ARE))
        sql = f"SELECT count(*) FROM ledger WHERE seq > ? AND (kind IN ({marks}) OR {_SOMETHING})"
        return int(self._record.ledger.database.query(sql, (after, *_AS_THEY_ARE, *_PATTERNS))[0][0])

    def _pieces(self, seal: Row) -> Iterator[Row]:
        if seal.body["stream"] != METRICS or seal.body["replaces"]:
            return
        by_run: dict[str, list[dict[str, Any]]] = {}
        found = self._record.workspace.journal.segment(METRICS, seal.body["segment"])
        if not found and seal.body["rows"] and not self._gone(seal.body["segment"]):
            raise Unavailable(
                f"points of row {seal.seq} are not in this store; treadle pull them, or mirror where they were logged"
            )
        for point in found:
            by_run.setdefault(str(point["id"]), []).append(point)
        for run, points in by_run.items():
            for start in range(0, len(points), POINTS):
                body = {"run": run, "first": start, "points": points[start : start + POINTS]}
                yield Row(seal.seq, "points", 1, seal.time, body)

    def _gone(self, digest: str) -> bool:
        """Whether an erasure or a collection accounts for the absence of an object."""
        sql = "SELECT 1 FROM ledger WHERE kind IN ('erasure', 'gc') AND body LIKE ? LIMIT 1"
        return bool(self._record.ledger.database.query(sql, (f'%"{digest}"%',)))

    def _erased(self, erasure: Row) -> list[Ref]:
        gone = set(erasure.body["objects"])
        if not gone:
            return []
        found = []
        for row in self._record.ledger.rows(*_NAMING):
            texts, tags = row.body.get("texts"), row.body.get("tags") or {}
            names = tuple(name for name, value in tags.items() if isinstance(value, str))
            if texts in gone and names:
                found.append(Ref(run=row.body["run"], tags=names))
        sql = "SELECT DISTINCT digest FROM artifacts"
        made = {str(row[0]) for row in self._record.ledger.database.query(sql)}
        return found + [Ref(artifact=digest) for digest in sorted(gone & made)]


def _digests(inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Inputs by name, one digest each; those of a list are numbered."""
    for name, value in inputs.items():
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, list):
            for place, digest in enumerate(value):
                yield f"{name}.{place}", digest


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
