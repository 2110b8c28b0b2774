"""The source ``deployment``: what a Treadle project's deployment was asked and answered, and what people said of it.

It is another project's record, or this one's own. ``refresh`` notes which interactions and feedback there are, so that
a server that goes on answering does not change the source while it is read; texts stay where they are. What was erased
there is not read, and goes from the corpus with the next collection.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import UserError
from treadle.core.workspace import Workspace
from treadle.record.feedback import Feedback
from treadle.record.interaction import SHADOW, Interaction, is_smoke
from treadle.record.interaction_filter import moment
from treadle.record.record import PROJECTIONS, Record
from treadle.record.recorder import FEEDBACK, INTERACTIONS
from treadle.text.accounting import Dropped, Quarantined
from treadle.text.document import Document, Origin, document_id
from treadle.text.rows import RowError, check_value
from treadle.text.source import SourceContext
from treadle.text.units import Known, Unit, nothing_known, without_units

SOURCE = "deployment"
FOLDER = "deployments"
FORMAT = 1
Rating = Literal["up", "down", "corrected", "rated", "unrated"]
Piece = Document | Dropped | Quarantined
_DEEPEST = 16
_SPOOL = """
CREATE TABLE interactions (id TEXT PRIMARY KEY, row TEXT) WITHOUT ROWID;
CREATE TABLE feedback (
    interaction TEXT, time TEXT, id TEXT, row TEXT, PRIMARY KEY (interaction, time, id)) WITHOUT ROWID;
"""


class Deployment:
    """Source ``deployment``: conversations with their answers. ``fields`` of a document: ``messages`` (of a classifier
    ``label``), ``interaction``, ``release``, ``model``, and where somebody said it ``thumbs`` and ``score``.

    ``project`` is a project's folder. ``since`` and ``until`` are times, ``release`` a digest or the name it was served
    under. ``rating`` takes what was rated ``up`` or ``down``, ``corrected``, ``rated`` at all, or ``unrated``. With
    ``corrections`` the last correction stands in place of the answer; the origin is then ``feedback``, else
    ``traffic``.
    """

    version = 1
    choosing = ("since", "until", "release", "rating")

    def __init__(
        self,
        *,
        context: SourceContext,
        project: str = ".",
        since: str | None = None,
        until: str | None = None,
        release: str | None = None,
        rating: Rating | None = None,
        corrections: bool = True,
        license: str | None = None,  # noqa: A002 (the file's word)
        purpose: str | None = None,
    ) -> None:
        self._since, self._until = _moment("since", since), _moment("until", until)
        self._release, self._rating, self._corrections = release, rating, corrections
        self._license, self._purpose, self._context = license, purpose, context
        self._folder = (context.project / Path(project).expanduser()).resolve()
        self._own = self._folder == context.project.resolve()
        name = blake3_bytes(str(self._folder).encode())[3:15]
        self._snapshot = context.project / FOLDER / f"{'own' if self._own else self._folder.name}-{name}.jsonl"

    def fingerprint(self) -> str:
        """A digest over which interactions and feedback were there, and how often something was erased since."""
        head = self._head()
        if head is None:
            return "not looked at yet"
        with self._record() as record:
            return f"{head['interactions']} interactions {head['digest']} {_erasures(record)} erasures"

    def due(self) -> str | None:
        """Why the next collection will look again; None when nothing came since."""
        head = self._head()
        if head is None:
            return "it was not looked at yet"
        with self._record() as record:
            now = {name: record.workspace.journal.count(name) for name in (INTERACTIONS, FEEDBACK)}
        new = sum(now[name] != head[name] for name in now)
        return "interactions or feedback came since" if new else None

    def refresh(self, tell: Callable[[str], None], *, asked: bool = False) -> None:
        """Note what there is, when that is due or ``asked`` for."""
        if self.due() is None and not asked:
            return
        with self._record() as record:
            journal = record.workspace.journal
            counts = {name: journal.count(name) for name in (INTERACTIONS, FEEDBACK)}
            ids = sorted({str(row["id"]) for name in counts for row in journal.read(name)})
        hasher = blake3()
        for identifier in ids:
            hasher.update(f"{identifier}\n".encode())
        head = {"format": FORMAT, **counts, "digest": f"b3:{hasher.hexdigest()}"}
        self._snapshot.parent.mkdir(parents=True, exist_ok=True)
        made = self._snapshot.with_suffix(".new")
        with made.open("w") as file:
            file.write("\n".join([json.dumps(head), *ids, ""]))
        made.replace(self._snapshot)

    def read(self, cursor: str | None = None) -> Iterator[Piece]:
        """Interactions in the order of their ids, which is that of time; with ``cursor``, an id, those after it."""
        return without_units(self._pieces(nothing_known, cursor))

    def read_changed(self, known: Known) -> Iterator[Piece | Unit]:
        """The same by interactions; one is known by its row and what was said of it."""
        return self._pieces(known, None)

    def _pieces(self, known: Known, cursor: str | None) -> Iterator[Piece | Unit]:
        with closing(sqlite3.connect("")) as spool:  # a file without a name, gone with this process
            spool.executescript(_SPOOL)
            self._fill(spool)
            said = "SELECT row FROM feedback WHERE interaction = ? ORDER BY time, id"
            for identifier, row in spool.execute("SELECT id, row FROM interactions ORDER BY id"):
                rows = [found for (found,) in spool.execute(said, (identifier,))]
                interaction = Interaction.from_dict(json.loads(row))
                voice = _Voice([Feedback.from_dict(json.loads(found)) for found in rows])
                if (cursor is not None and identifier <= cursor) or not self._wanted(interaction, voice):
                    continue
                mark = blake3_bytes(canonical_json([row, *rows]))
                unit = Unit(identifier, mark, known(identifier, mark))
                yield unit
                if not unit.known:
                    yield self._piece(interaction, voice)

    def _fill(self, spool: sqlite3.Connection) -> None:
        """The rows of the snapshot that are still there, in a place where they can be sorted."""
        if self._head() is None:
            raise UserError(f"{SOURCE}: {self._folder} was not looked at yet; run `treadle collect`")
        noted = set(self._snapshot.read_text().splitlines()[1:])
        with self._record() as record, spool:
            recorder = record.recorder
            rows = ((one.id, json.dumps(one.to_dict())) for one in recorder.interactions() if one.id in noted)
            spool.executemany("INSERT OR IGNORE INTO interactions VALUES (?, ?)", rows)
            said = (one for one in recorder.all_feedback() if one.id in noted and not one.erased)
            values = ((one.interaction, one.time, one.id, json.dumps(one.to_dict())) for one in said)
            spool.executemany("INSERT OR IGNORE INTO feedback VALUES (?, ?, ?, ?)", values)

    def _wanted(self, interaction: Interaction, voice: _Voice) -> bool:
        arrived = moment(interaction.time)
        if (self._since is not None and arrived < self._since) or (self._until is not None and arrived >= self._until):
            return False
        if self._release is not None and self._release not in (interaction.release, interaction.model):
            return False
        return self._rating is None or voice.is_(self._rating)

    def _piece(self, interaction: Interaction, voice: _Voice) -> Piece:
        corrected = voice.correction if self._corrections else None
        answer = corrected or interaction.answer or ""
        asked = [dict(message) for message in interaction.messages or ()]
        origin: Origin = "feedback" if corrected else "traffic"
        fields: dict[str, Any] = {"release": interaction.release, "model": interaction.model, **voice.said()}
        fields["interaction"] = interaction.id
        texts = [message["content"] for message in asked]
        if interaction.endpoint in ("classify", "tag", "/v1/classify"):
            fields["label"] = answer
        else:
            fields["messages"] = [*asked, {"role": "assistant", "content": answer}]
            texts.append(answer)
        try:
            check_value([*texts, answer], _DEEPEST)
        except RowError as error:
            return Quarantined(f"{SOURCE}:{interaction.id}", 0, str(error))
        refused = _refused(interaction, answer)
        document = Document(
            id=document_id(SOURCE, interaction.id, canonical_json([asked, answer])),
            source=SOURCE,
            locator=interaction.id,
            text="" if refused else "\n".join(texts),
            license=self._license,
            time=interaction.time,
            origin=origin,
            purpose=self._purpose or interaction.purpose,
            subject=None if refused else self._subject(interaction.user),
            retain_until=interaction.retain_until,
            fields={} if refused else fields,
        )
        return Dropped(document, f"{SOURCE}.{refused[0]}", refused[1]) if refused else document

    def _subject(self, user: str | None) -> str | None:
        # Another project's key made another digest of the same name; so it is one of this project's, too.
        return user if user is None or self._own else self._context.keyed(user)

    def _head(self) -> dict[str, Any] | None:
        try:
            with self._snapshot.open() as file:
                head = json.loads(file.readline())
        except (OSError, ValueError):
            return None
        return head if isinstance(head, dict) and head.get("format") == FORMAT else None

    @contextmanager
    def _record(self) -> Iterator[Record]:
        from treadle.core.config import load
        from treadle.core.remote import is_bucket
        from treadle.project import FILE, File, cipher_of, ledger_of, store_folder

        if not (self._folder / FILE).is_file():
            raise UserError(f"{SOURCE}: there is no {FILE} in {self._folder}; give the folder of a Treadle project")
        file = load(self._folder / FILE, File)
        root = store_folder(self._folder, file)
        if not (root / "keys").exists():
            raise UserError(f"{SOURCE}: nothing ran in {self._folder} yet; there is no record at {root}")
        bucket = file.store if is_bucket(file.store) else None
        place, cipher = ledger_of(self._folder, file), cipher_of(self._folder, file)
        with Workspace(root, place, PROJECTIONS, cipher, bucket=bucket) as workspace:
            yield Record(workspace, file.name)


class _Voice:
    """What was said of an interaction, the last word of each kind."""

    def __init__(self, rows: Sequence[Feedback]) -> None:
        last = {row.kind: row for row in rows}
        self.correction = last["correction"].correction if "correction" in last else None
        self._thumbs = last["thumbs"].value if "thumbs" in last else None
        self._score = last["score"].value if "score" in last else None

    def is_(self, rating: Rating) -> bool:
        rated = self._thumbs is not None or self._score is not None or bool(self.correction)
        return {
            "up": self._thumbs == 1,
            "down": self._thumbs == 0,
            "corrected": bool(self.correction),
            "rated": rated,
            "unrated": not rated,
        }[rating]

    def said(self) -> dict[str, float]:
        found = {"thumbs": self._thumbs, "score": self._score}
        return {name: value for name, value in found.items() if value is not None}


def _refused(interaction: Interaction, answer: str) -> tuple[str, str] | None:
    """The rule by which an interaction is no document, and why."""
    if interaction.origin == SHADOW:
        return "shadow", "a copy that was answered in the background"
    if is_smoke(interaction.metadata):
        return "smoke", "Treadle's own question to a new release"
    if not interaction.store or not interaction.messages:
        return "not_stored", "its text was not kept"
    if interaction.status != "ok" or not answer.strip():
        return "no_answer", f"{interaction.status}, and nobody said what the answer should have been"
    return None


def _erasures(record: Record) -> int:
    return sum(1 for _ in record.ledger.rows("erasure"))


def _moment(name: str, text: str | None) -> int | None:
    try:
        return None if text is None else moment(text)
    except (ValueError, OverflowError):
        raise UserError(f"{SOURCE}: {name} is {text!r}; expected a time such as 2026-01-31T12:00:00Z") from None
