"""The log of an OpenAI-style endpoint becomes interactions of this project, traced to the model that gave them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from treadle.core.digest import canonical_json
from treadle.core.errors import UserError
from treadle.core.identifiers import id_at
from treadle.core.runs import Run
from treadle.evals.task import load_task
from treadle.importing.admission import FUTURE, Admission, iso
from treadle.importing.exchanges import Exchange, OtherError, UnreadableError, read_exchange
from treadle.importing.import_run import account, import_run
from treadle.importing.lines import Line, read_lines
from treadle.lm.model import Model
from treadle.project import Project
from treadle.record.interaction import IMPORTED, Interaction
from treadle.record.recorder import INTERACTIONS
from treadle.record.release import Release, ReleaseSpec
from treadle.record.version import NOT_RECORDED, Version
from treadle.text.accounting import Accounting, Quarantined

ERASED, RETENTION, BEFORE = "logs.erased", "logs.retention", "logs.imported_before"


@dataclass(frozen=True)
class ImportedRows:
    """What became of every row, the run that did it, and the release the answers are traced to (logs only)."""

    run: str
    accounting: Accounting
    release: str | None = None

    def public(self) -> dict[str, Any]:
        """As JSON: ``in`` = ``kept`` + ``dropped`` + ``quarantined``."""
        counted = self.accounting.to_json()
        shown = {name: counted[name] for name in ("in", "kept", "dropped", "quarantined")}
        return {"run": self.run, **shown, **({"release": self.release} if self.release else {})}


def import_logs(
    project: Project,
    places: Sequence[str],
    *,
    model: str | None = None,
    time: datetime | None = None,
    note: str | None = None,
) -> ImportedRows:
    """Take in every line of the files and URLs. The caller holds the project's lock.

    ``model`` names the version that gave the answers; without it that is not recorded. ``time`` is for lines that say
    none. A line that was imported before is dropped, so the same log may be given again, grown or renamed.
    """
    version = _version(project, model) if model else None
    release = _endpoint(project, version) if version else NOT_RECORDED
    accounting = Accounting()
    taken = {} if version is None else {"model": version.digest, "release": release}

    def work(run: Run) -> Any:
        reader = _Reader(project, release, time, accounting)
        for place in places:
            for line in read_lines(place):
                reader.take(line)
        return account(run, accounting)

    done = import_run(project, "import.logs", work, note=note, inputs=taken, once=False, files=len(places))
    return ImportedRows(done.run, accounting, release)


def _version(project: Project, ref: str) -> Version:
    version = project.record.versions.resolve(ref)
    if version is None or version.kind != "model":
        raise UserError(f"import logs: --model {ref!r} is no model version; expected model@v1 or @champion")
    return version


def _endpoint(project: Project, version: Version) -> str:
    """A release that stands for the model as it ran elsewhere: with which engine and settings nobody wrote down."""
    record = project.record
    model = Model(version.digest, record.store)
    if not record.store.has(model.digest):
        raise UserError(f"import logs: {version.ref} was erased; name another model, or none")

    def work(run: Run) -> Any:
        base = model.about()["base_model"] if model.has("treadle.json") else {}
        unknown = dict.fromkeys(("name", "digest", "license", "origin"), NOT_RECORDED)
        task = load_task(project.file.task, project.folder)
        spec = ReleaseSpec(
            record.name, task.name, model.digest, "", {**unknown, **base}, NOT_RECORDED, asking=task.asking
        )
        with run.create(Release) as release:
            (release.path / "release.json").write_bytes(canonical_json(spec.to_json()))
            release.add_documents(model.document_ids())
            return {"release": release.commit()}

    return import_run(project, "import.endpoint", work, inputs={"model": model.digest}).outputs["release"]


@dataclass
class _Reader:
    """Takes line after line, and counts."""

    project: Project
    release: str
    time: datetime | None
    accounting: Accounting
    batch: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.admission = Admission(self.project)
        self.known = set(_known(self.project))
        self.keys = self.project.record.workspace.keys
        self.now = datetime.now(UTC)

    def take(self, line: Line) -> None:
        accounting = self.accounting
        accounting.read += 1
        try:
            row = self._row(line)
            exchange = read_exchange(row, self.batch, self.time)
            if self.admission.is_future(exchange.time):
                raise UnreadableError(FUTURE)
        except UnreadableError as error:
            accounting.quarantined.append(Quarantined(line.name, line.offset, str(error)))
            return
        except OtherError as rule:
            self._drop(str(rule))
            return
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError):
            reason = "of no shape that is known; see treadle import logs --help"
            accounting.quarantined.append(Quarantined(line.name, line.offset, reason))
            return
        identity = self.keys.keyed("import", canonical_json(row).decode())
        made = id_at("int", int(exchange.time.timestamp() * 1000), identity)
        if made in self.known:
            self._drop(BEFORE)
            return
        self.known.add(made)
        person = self.admission.person(exchange.user)
        until = self.admission.until(exchange.time)
        if until is not None and until <= self.now:
            self._drop(RETENTION)
        elif self.admission.erased(person, *_texts(exchange)):
            self._drop(ERASED)
        else:
            self.project.record.recorder.interaction(self._interaction(made, exchange, person, until))
            accounting.kept += 1

    @staticmethod
    def _row(line: Line) -> Any:
        if line.data is None:
            raise UnreadableError("the line is longer than 16 MB")
        try:
            row = json.loads(line.data)
            canonical_json(row)  # no NaN, no half of a surrogate pair
        except (ValueError, RecursionError):
            raise UnreadableError("not JSON") from None
        return row

    def _drop(self, rule: str) -> None:
        self.accounting.dropped[rule] = self.accounting.dropped.get(rule, 0) + 1

    def _interaction(self, made: str, said: Exchange, person: str | None, until: datetime | None) -> Interaction:
        kept, clean = said.store and self.admission.keeps_text, self.admission.clean
        answers = [clean(text) for text in said.answers] if kept else []
        messages = tuple({**m, "content": clean(m["content"])} for m in said.messages or ())
        return Interaction(
            id=made,
            request=said.request,
            time=iso(said.time),
            release=self.release,
            model=said.model,
            endpoint=said.endpoint,
            status=said.status,
            store=said.store,
            finish_reason=said.finish_reason,
            error=said.error,
            user=person,
            messages=messages if kept and said.messages is not None else None,
            answer=answers[0] if answers else None,
            alternatives=tuple(answers[1:]),
            tokens=said.tokens,
            seconds=said.seconds,
            tokens_per_second=_rate(said),
            stream=said.stream,
            parameters=said.parameters,
            origin=IMPORTED,
            purpose=self.admission.recording.purpose,
            retain_until=iso(until) if until else None,
        )


def _known(project: Project) -> Iterator[str]:
    for row in project.record.workspace.journal.read(INTERACTIONS):
        if row.get("origin") == IMPORTED:
            yield row["id"]


def _texts(exchange: Exchange) -> Iterator[str]:
    yield from (message["content"] for message in exchange.messages or ())
    yield from exchange.answers
    yield exchange.request


def _rate(said: Exchange) -> float | None:
    ttft, total, count = said.seconds.ttft, said.seconds.total, said.tokens.completion
    if ttft is None or count < 2 or total <= ttft:
        return None
    return round((count - 1) / (total - ttft), 3)
