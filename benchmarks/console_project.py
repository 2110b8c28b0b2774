"""A project with a long history, for the console's pages: written by the code that writes real ones."""

from __future__ import annotations

import builtins
import hashlib
import json
import random
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import treadle.record
from treadle.core.artifacts import Artifact
from treadle.core.ledger import Fact, now
from treadle.core.runs import Run
from treadle.evals.report import EvaluationReport
from treadle.lm.model import Model
from treadle.project import open_project
from treadle.record.feedback import Feedback, Kind
from treadle.record.interaction import Interaction, Seconds, Status, Tokens
from treadle.record.record import Record
from treadle.record.release import Release, ReleaseSpec
from treadle.record.report import Report
from treadle.record.turn import TurnInputs
from treadle.text.corpus import Corpus, write_corpus
from treadle.text.dataset import Dataset
from treadle.text.document import Document, document_id

DAYS = 30  # of traffic, up to the present
DOCUMENTS = 1_000
ITEMS = 150
RUNS_OF_A_TURN = 10
_SEGMENT = 5_000  # rows, as the journal seals them by itself
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_FILE = """\
name: helper
task: chat
collect:
  sources: [{type: files, path: chats.jsonl, license: CC0-1.0, fields: {messages: messages}}]
develop: {base_model: base, tokens: 1000}
govern: {purpose: a benchmark}
improve: {retrain_when: {corrections: 1000000}, promote: ask}
"""
_WORDS = tuple(name for name in dir(builtins) if name.isalpha() and name.islower())


@dataclass(frozen=True, slots=True)
class Size:
    """How much history."""

    runs: int
    interactions: int


FULL = Size(10_000, 1_000_000)
QUICK = Size(1_000, 50_000)


def built(size: Size) -> Path:
    """The project, kept in the folder for temporary files; built anew each day, because traffic lies in the last days,
    and when what writes it has changed."""
    today = datetime.now(UTC).strftime("%Y%m%d")
    place = Path(tempfile.gettempdir(), "treadle-benchmarks")
    folder = place / f"console-{size.runs}-{size.interactions}-{today}-{_writers()}"
    if not folder.is_dir():
        for old in place.glob(f"console-{size.runs}-{size.interactions}-*"):
            shutil.rmtree(old)
        building = folder.with_suffix(".building")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        (building / "treadle.yaml").write_text(_FILE)
        with open_project(building) as project:
            releases = History(project.record, building, random.Random(17)).write(size.runs)
            Traffic(project.record, random.Random(17), releases).write(size.interactions)
        building.rename(folder)
    return folder


def _writers() -> str:
    """Changes with this module and the nouns of the record."""
    sources = sorted(Path(treadle.record.__file__).parent.glob("*.py"))
    written = [
        path for path in sources if not path.name.startswith(("index_", "interaction_index", "interaction_filter"))
    ]
    return hashlib.sha256(b"".join(path.read_bytes() for path in (*written, Path(__file__)))).hexdigest()[:8]


class History:
    """Turns of the cycle: runs with their artifacts, versions, judgments, deployments."""

    def __init__(self, record: Record, folder: Path, chance: random.Random) -> None:
        self._record, self._folder, self._chance = record, folder, chance
        self._documents: list[str] = []

    def write(self, runs: int) -> list[str]:
        """Returns the digests of the releases that were promoted, oldest first."""
        releases = []
        turns = runs // RUNS_OF_A_TURN
        corpus = self._corpus(0)
        for number in range(1, turns + 1):
            if number % 50 == 0:
                corpus = self._corpus(number)
            release = self._turn(number, corpus, promoted=number % 4 == 1, detailed=number > turns - 4)
            if release is not None:
                releases.append(release)
        return releases

    def _turn(self, number: int, corpus: Artifact, *, promoted: bool, detailed: bool) -> str | None:
        record, ledger = self._record, self._record.ledger
        until = now()
        begun = {"number": number, "reasons": ["corrections 40 >= 40"], "until": until, **asdict(TurnInputs())}
        ledger.append(Fact("turn.begun", begun))
        files = {"dataset.json": b"%d" % number}
        dataset = self._made("prepare.split_examples", Dataset, {"corpus": corpus.digest}, files)
        for step in ("prepare.normalize", "prepare.deduplicate"):
            self._run(step, {"corpus": corpus.digest}, {"corpus": corpus})
        weights = self._chance.randbytes(256)
        model = self._made("develop.train", Model, {"dataset": dataset.digest}, {"model.bin": weights}, points=200)
        evaluated = {"model": model.digest, "dataset": dataset.digest}
        self._made("develop.evaluate_chat", EvaluationReport, evaluated, self._evaluation(detailed=detailed))
        version = record.versions.register("model", model.digest, None)
        record.versions.register("dataset", dataset.digest, None)
        base = {"name": "base", "digest": dataset.digest}
        spec = ReleaseSpec(version.ref, "chat", model.digest, dataset.digest, base, "openvino").to_json()
        files = {"release.json": json.dumps(spec).encode(), "model.gguf": weights}
        release = self._made("deploy.release", Release, {"model": model.digest, "dataset": dataset.digest}, files)
        self._run("deploy.smoke", {"release": release.digest}, {})
        figures = {"difference": 0.03, "low": 0.01, "high": 0.05}
        detail = "log_likelihood is better by 0.03 [0.01, 0.05]"
        gate = {"gate": "quality", "passed": promoted, "detail": detail, "figures": figures}
        gates = [gate, {**gate, "gate": "license", "detail": f"turn {number}"}]
        files = {"gates.json": json.dumps(gates).encode()}
        report = self._made("govern.apply_gates", Report, {"release": release.digest}, files)
        files = {"card.md": b"# Model %d\n\nIt helps.\n" % number}
        self._made("govern.model_card", Report, {"report": report.digest}, files)
        self._run("improve.harvest", {}, {}, status="failed" if number % 20 == 0 else "done")
        judgment = {"release": release.digest, "model": model.digest, "report": report.digest, "passed": promoted}
        ledger.append(Fact("gate", {**judgment, "gates": {"quality": promoted, "license": promoted}}))
        if number % 10 == 0:
            record.approvals.record(version.ref, "reject", f"k3:{number:040x}", None, report.digest)
        outcome = "promoted" if promoted else "refused"
        if promoted:
            record.versions.point("champion", version, reason="gates passed", release=release.digest)
            record.deployments.record(release.digest, version.ref, "http://127.0.0.1:8000")
        ending = {"number": number, "outcome": outcome, "detail": "all gates passed", "candidate": version.ref}
        ledger.append(Fact("turn.ended", ending))
        return release.digest if promoted else None

    def _corpus(self, number: int) -> Artifact:
        run = self._start("collect.gather", {"number": number}, {})
        with run.create(Corpus) as builder:
            documents = [self._document(number, place) for place in range(DOCUMENTS)]
            builder.add_documents(write_corpus(builder.path, [documents]))
            corpus = builder.commit()
        self._documents = sorted(document.id for document in documents)
        self._record.runs.finish(run, "done", seconds=1.5, outputs={"corpus": corpus})
        return corpus

    def _document(self, number: int, place: int) -> Document:
        text = " ".join(self._chance.choices(_WORDS, k=30))
        locator = f"module{place % 100}.function{place}"
        identifier = document_id("python", locator, f"{number if place % 10 == 0 else 0}{locator}".encode())
        return Document(identifier, "python", locator, text, "PSF-2.0")

    def _made(
        self, step: str, kind: type[Artifact], inputs: dict[str, str], files: dict[str, bytes], *, points: int = 0
    ) -> Artifact:
        run = self._start(step, {"learning_rate": self._chance.random(), "tokens": 17_000, "seed": 17}, inputs)
        for point in range(points):
            run.log(point, loss=3.0 / (1 + point) + self._chance.random() / 10, learning_rate=1e-4)
        with run.create(kind) as builder:
            for name, data in files.items():
                (builder.path / name).write_bytes(data)
            builder.add_documents(self._documents[:-50])
            made: Artifact = builder.commit()
        run.summary(loss=self._chance.random(), perplexity=10 + self._chance.random())
        self._record.runs.finish(run, "done", seconds=self._chance.random() * 100, outputs={"made": made})
        return made

    def _run(self, step: str, inputs: dict[str, str], outputs: dict[str, Artifact], status: str = "done") -> None:
        run = self._start(step, {"min_chars": self._chance.randrange(100)}, inputs)
        error = "ValueError: what was expected did not come" if status == "failed" else None
        self._record.runs.finish(run, status, seconds=self._chance.random(), outputs=outputs, error=error)

    def _start(self, step: str, parameters: dict[str, Any], inputs: dict[str, str]) -> Run:
        key = hashlib.sha256(json.dumps([step, parameters, inputs]).encode()).hexdigest()
        return self._record.runs.start(
            step,
            version=1,
            key=key,
            parameters=parameters,
            inputs=dict(inputs),
            seed=17,
            progress=_nothing,
            folder=self._folder,
        )

    def _evaluation(self, *, detailed: bool) -> dict[str, bytes]:
        scores = {"rouge_l": {"value": self._chance.random(), "low": 0.1, "high": 0.9, "higher_is_better": True}}
        rows = []
        for place in range(ITEMS if detailed else 0):
            asked = [{"role": "user", "content": _sentence(random.Random(place), 12)}]
            item = {"id": f"item-{place}", "messages": asked, "text": "", "reference": "as the manual says"}
            output = {"text": _sentence(self._chance, 40), "log_likelihood": None, "reference_tokens": 0}
            values = {"rouge_l": self._chance.random()}
            rows.append({"item": item | {"documents": [], "fields": {}}, "output": output, "values": values})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        return {"scores.json": json.dumps({"format": 1, "scores": scores}).encode(), "items.jsonl": lines.encode()}


class Traffic:
    """Interactions of the last days, with feedback on every tenth, through the recorder."""

    def __init__(self, record: Record, chance: random.Random, releases: list[str]) -> None:
        self._record, self._chance, self.releases = record, chance, releases
        self._users = [record.recorder.keyed(f"user {number}") for number in range(500)]
        self._answers = [_sentence(chance, 60) for _ in range(500)]
        self._questions = [_sentence(chance, 25) for _ in range(5_000)]

    def write(self, count: int) -> None:
        """The oldest first; sealed as the journal does it."""
        begin = datetime.now(UTC) - timedelta(days=DAYS)
        step = timedelta(days=DAYS) / count
        for number in range(count):
            row = self.interaction(begin + number * step, self.releases[number * len(self.releases) // count])
            self._record.recorder.interaction(row)
            if number % 10 == 0:
                self._record.recorder.feedback(self._feedback(row, begin + (number + 1) * step))
            if number % _SEGMENT == _SEGMENT - 1:
                self._record.workspace.journal.seal("interactions")
            if number % (10 * _SEGMENT) == 0:
                self._record.workspace.journal.seal("feedback")

    def interaction(self, moment: datetime, release: str) -> Interaction:
        """One request of a moment."""
        chance = self._chance
        status: Status = "failed" if chance.random() < 0.01 else "cancelled" if chance.random() < 0.01 else "ok"
        ttft = None if status == "failed" else round(chance.lognormvariate(-2.5, 0.6), 6)
        number = chance.randrange(100)
        asked = self._questions[chance.randrange(len(self._questions))]
        return Interaction(
            id=_identifier("int", moment, chance),
            request=f"req-{number}",
            time=_iso(moment),
            release=release,
            model=f"model/helper@v{release[3:7]}",
            endpoint="chat.completions",
            status=status,
            store=True,
            finish_reason="stop" if status == "ok" else "error",
            user=chance.choice(self._users),
            key="key-1",
            messages=({"role": "user", "content": asked},),
            answer=chance.choice(self._answers) if status == "ok" else None,
            tokens=Tokens(40, 80, 0),
            seconds=Seconds(0.001, ttft, round((ttft or 0.0) + 0.9, 6)),
            tokens_per_second=80.0,
            metadata={"treadle": "smoke"} if number == 0 else None,
            parameters={"max_tokens": 64, "temperature": 0.0, "top_p": 1.0, "n": 1, "seed": None},
        )

    def _feedback(self, row: Interaction, moment: datetime) -> Feedback:
        kind: Kind = self._chance.choice(("thumbs", "thumbs", "thumbs", "score", "correction"))
        value = {"thumbs": float(self._chance.random() < 0.7), "score": round(self._chance.random(), 2)}.get(kind)
        wanted = "It does what the manual says." if kind == "correction" else None
        identifier = _identifier("fb", moment, self._chance)
        return Feedback(identifier, row.id, _iso(moment), kind, value, wanted, user=row.user)


def _identifier(prefix: str, moment: datetime, chance: random.Random) -> str:
    """As ``new_id`` makes them, of another time."""
    number = int(moment.timestamp() * 1000) << 80 | chance.getrandbits(80)
    return prefix + "-" + "".join([_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5)])


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _sentence(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words)).capitalize() + "."


def _nothing(done: float, total: float | None, unit: str, note: str = "") -> None:
    return
