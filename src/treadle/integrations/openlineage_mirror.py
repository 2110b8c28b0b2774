"""The mirror to OpenLineage: an event when a run begins and one when it ends, with what it took and made.

    job       the step, in the project's namespace; its parent is the turn of the cycle that it belongs to
    run       a UUID of version 7 made of the run's id, so that the same run has the same name everywhere
    dataset   the kind of artifact and the name it has; its version is the digest

Events go to ``OPENLINEAGE_URL`` by HTTP, or where ``OPENLINEAGE_CONFIG`` says, by HTTP or into a file, one a line. An
event that is sent twice is the same event: run, type and time are its key. Events cannot be taken back; they hold
digests, names from the file and numbers, no text.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, ClassVar, Self

from treadle.core.fact import Row
from treadle.core.identifiers import id_at, number_of
from treadle.core.sink import Ref, SentRun, View
from treadle.integrations.openlineage_transport import Transport, configured

_PRODUCER = f"https://pypi.org/project/treadle/{version('treadle')}"
_SPEC = "https://openlineage.io/spec"
_EVENT = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
_CUSTOM = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/"
_STATES = {"done": "COMPLETE", "failed": "FAIL", "crashed": "ABORT"}


class OpenLineageMirror:
    """Runs and turns as events, in the namespace ``OPENLINEAGE_NAMESPACE``, or that of the project's name."""

    variables: ClassVar[str] = "OPENLINEAGE_URL or OPENLINEAGE_CONFIG"

    def __init__(self, view: View, transport: Transport) -> None:
        self.place = transport.place
        self._view = view
        self._transport = transport
        self._namespace = os.environ.get("OPENLINEAGE_NAMESPACE") or view.project

    @classmethod
    def open(cls, view: View) -> Self | None:
        """On where a transport is configured."""
        transport = configured(view.folder)
        return cls(view, transport) if transport else None

    def deliver(self, batch: Sequence[Row], *, again: bool) -> list[str]:
        """As ``Sink``."""
        events = [event for row in batch for event in self._events(row)]
        return self._transport.send(events, again=again)

    def retract(self, refs: Sequence[Ref]) -> list[str]:
        """Events hold nothing of a person: neither tags nor texts, and of an artifact its digest."""
        return []

    def close(self) -> None:
        """Close connections."""
        self._transport.close()

    def _events(self, row: Row) -> Iterator[dict[str, Any]]:
        body = row.body
        if row.kind in ("run.started", "run.finished"):
            run = self._view.run(body["run"])
            if run is not None:
                ended = row.kind == "run.finished"
                state = _STATES[body["status"]] if ended else "START"
                outputs = body["outputs"] if ended else {}
                yield self._event(run_uuid(run.id), run.step, state, row.time, self._facets(run), run.inputs, outputs)
        elif row.kind in ("turn.begun", "turn.ended"):
            state = "START"
            if row.kind == "turn.ended":
                state = "FAIL" if body["outcome"] == "failed" else "COMPLETE"
            identifier = self._turn_uuid(body["number"])
            yield self._event(identifier, "turn", state, row.time, _facets(body["number"]), {}, {})

    def _event(
        self,
        run: str,
        job: str,
        state: str,
        time: str,
        facets: Mapping[str, Any],
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
    ) -> dict[str, Any]:
        kind = {"processingType": "BATCH", "integration": "TREADLE", "jobType": "CYCLE" if job == "turn" else "STEP"}
        return {
            "eventType": state,
            "eventTime": time,
            "producer": _PRODUCER,
            "schemaURL": _EVENT,
            "run": {"runId": run, "facets": dict(facets)},
            "job": {
                "namespace": self._namespace,
                "name": self._job(job),
                "facets": {"jobType": _facet("2-0-4/JobTypeJobFacet", kind)},
            },
            "inputs": list(self._datasets(inputs)),
            "outputs": list(self._datasets(outputs)),
        }

    def _job(self, step: str) -> str:
        return f"{self._view.project}.{step}"

    def _facets(self, run: SentRun) -> dict[str, Any]:
        facets = _facets(None)
        known = {"id": run.id, "kind": run.kind, "seed": run.seed, "commit": run.commit, "metrics": dict(run.metrics)}
        facets["treadle_run"] = _custom("RunFacet", known)
        if run.turn is not None:
            parent = {
                "run": {"runId": self._turn_uuid(run.turn)},
                "job": {"namespace": self._namespace, "name": self._job("turn")},
            }
            facets["parent"] = _facet("1-2-0/ParentRunFacet", parent)
        return facets

    def _turn_uuid(self, number: int) -> str:
        """Turns have numbers; their time is left out, so that runs need not look it up."""
        seed = f"{self._view.identity} turn {number}".encode()
        return run_uuid(id_at("turn", 0, hashlib.sha256(seed).hexdigest()))

    def _datasets(self, digests: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        for digest in dict.fromkeys(digests.values()):
            artifact = self._view.artifact(digest)
            kind, name = (artifact.kind, artifact.name) if artifact else ("artifact", digest)
            known: dict[str, Any] = {"digest": digest, "kind": kind}
            if artifact:
                known |= {"bytes": artifact.bytes, "documents": artifact.documents, "number": artifact.number}
            facets = {
                "version": _facet("1-0-1/DatasetVersionDatasetFacet", {"datasetVersion": digest}),
                "treadle_artifact": _custom("DatasetFacet", known),
            }
            yield {"namespace": self._namespace, "name": f"{kind}/{name}", "facets": facets}


def run_uuid(identifier: str) -> str:
    """A UUID of version 7 (RFC 9562) with the time and 74 of the 80 random bits of a run's id."""
    bits = number_of(identifier)
    moment, chance = bits >> 80, bits & (1 << 74) - 1
    return str(uuid.UUID(int=moment << 80 | 7 << 76 | (chance >> 62) << 64 | 2 << 62 | chance & (1 << 62) - 1))


def _facets(turn: int | None) -> dict[str, Any]:
    engine = {"version": version("treadle"), "name": "treadle"}
    facets = {"processing_engine": _facet("1-1-1/ProcessingEngineRunFacet", engine)}
    return facets if turn is None else {**facets, "treadle_turn": _custom("RunFacet", {"number": turn})}


def _facet(schema: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A facet of the standard, by version and name."""
    name = schema.rpartition("/")[2]
    return {"_producer": _PRODUCER, "_schemaURL": f"{_SPEC}/facets/{schema}.json#/$defs/{name}", **value}


def _custom(base: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A facet of our own, which is as the standard says that any may be."""
    known = {name: item for name, item in value.items() if item is not None}
    return {"_producer": _PRODUCER, "_schemaURL": _CUSTOM + base, **known}
