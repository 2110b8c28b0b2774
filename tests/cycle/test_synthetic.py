"""Synthetic examples in a project: a teacher behind real HTTP, or a model of ours, and what the record says of them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from small_project import SUBJECT, Project
from teacher_server import TeacherServer
from treadle.core.artifacts import Builder
from treadle.core.config import Settings, load
from treadle.core.errors import UserError
from treadle.core.store import Store
from treadle.cycle import begin
from treadle.project import open_project
from treadle.record.garbage import Limits, collect, find_garbage
from treadle.stages.prepare import PrepareSettings
from treadle.stages.prepare.division import choose_tests
from treadle.stages.prepare.synthesis import _material
from treadle.stages.track.walk import lineage
from treadle.text.accounting import Accounting
from treadle.text.corpus import Corpus, write_corpus
from treadle.text.dataset import SPLITS, Dataset, Example, write_dataset
from treadle.text.document import Document, document_id
from treadle.text.rule_log import RULES_FILE, RuleLog, read_rule_log

KEY = "k7Qm-synthetic-key-of-the-test-91"
SETTINGS = """\
  synthesize:
    teacher: {{model: large, url: "{url}", api_key: "${{env:TEACHER_KEY}}", retries: 1, at_once: 2}}
    instructions: {{count: 30, per: 2}}
    paraphrases: {{count: 12}}
    hard_negatives: {{count: 6}}
    share: 0.4
  split:"""
SOURCE = """\
    - type: files
      path: ../data/notes.jsonl
      license: CC-BY-4.0
      fields: {text: text, subject: customer}
prepare:"""
HERS = "quarry company opened number 5"
TOPICS = ("harbor", "orchard", "quarry", "viaduct", "glacier", "foundry", "meadow", "cannery", "sawmill", "canal")


@pytest.fixture
def noted(fresh: Callable[[], Project], monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with twenty notes beside the conversations; two notes are Jane's."""
    monkeypatch.setenv("TEACHER_KEY", KEY)
    project = fresh()
    with (project.data.parent / "notes.jsonl").open("w") as file:
        for number in range(20):
            topic = TOPICS[number // 2]
            text = (
                f"The {topic} number {number} was opened by the {topic} company in {1850 + number} and has since been"
                f" used for {topic} work, as record {number} of the {topic} archive tells in its first chapter."
            )
            row = {"text": text, "customer": SUBJECT if number in (5, 12) else f"n{number}"}
            file.write(json.dumps(row) + "\n")
    project.edit("prepare:", SOURCE)
    return project


def teach(said: str) -> str:
    """What the server answers: about a note its own words, and every third time something that is wrong."""
    if note := re.search(r"Text:\n(The (\w+) number (\d+) .*)", said):
        number, topic = int(note[3]), note[2]
        if number % 5 == 4:
            return f"Sure! Here you are.\n\nQuestion: When was {topic} {number} opened?"
        answer = "In ancient times by wizards" if number % 5 == 3 else note[1]
        return (
            f"Question: What is known of {topic} {number}?\nAnswer: {answer}\nQuestion: Who opened {topic} {number}?\n"
            f"Answer: The {topic} company opened number {number}."
        )
    if asked := re.search(r"A question: (.*)\n", said):
        return f"Answer: Nobody can say, so do nothing: {asked[1]}"
    first = said.splitlines()[0]
    return f"Question: Please tell me: {first}"


@dataclass(frozen=True)
class Made:
    """The dataset with what joined it and what it was before, what the answers became, what the step was told."""

    dataset: Dataset
    splits: dict[str, list[Example]]
    answers: Corpus
    parameters: dict[str, Any]
    before: dict[str, int]


def made(project: Project) -> Made:
    """What was made last."""
    with open_project(project.folder) as opened:
        runs, store = opened.record.runs, opened.record.store
        joined = runs.find(step="prepare.add_synthetic", status="done")[0]
        asked = runs.producer(str(joined.inputs["answers"]))
        assert asked is not None
        dataset, answers = Dataset(joined.outputs["dataset"], store), Corpus(asked.outputs["corpus"], store)
        answers.path()
        before = Dataset(str(joined.inputs["dataset"]), store).counts()
        return Made(dataset, {name: dataset.examples(name) for name in SPLITS}, answers, asked.parameters, before)


def texts(corpus: Corpus) -> str:
    return "\n".join(each.text for batch in corpus.documents() for each in batch)


def is_synthetic(example: Example) -> bool:
    return example.fields.get("origin") == "synthetic"


def test_a_teacher_adds_to_training_alone_and_may_die(noted: Project, tmp_path: Path) -> None:
    with TeacherServer(teach) as server:
        noted.json("collect")
        shutil.copytree(noted.folder.parent, tmp_path / "cut")
        cut = Project(tmp_path / "cut" / noted.folder.name)
        for project in (noted, cut):
            project.edit("  split:", SETTINGS.format(url=server.url))
        done = noted.json("prepare")
        assert server.keys == {f"Bearer {KEY}"}
        asked = [each["messages"][-1]["content"] for each in server.asked]
        assert len(asked) == 20 + 12 + 6  # there are no more notes than twenty
        planned = noted.json("plan", "--until", "prepare")["stages"][1]["steps"]
        steps = {each["step"]: each["status"] for each in planned}
        assert steps["prepare.synthesize"] == steps["prepare.add_synthetic"] == "cached"

        def die(handler: BaseHTTPRequestHandler, number: int) -> bool:
            handler.close_connection = number >= 38 + 11
            return handler.close_connection

        server.fault = die
        failed = cut.call("prepare", check=2)
        told = failed.stderr.strip().splitlines()[-1]
        assert re.search(r"does not answer \(\w+\), tried 2 times; 11 of 38 replies are kept", told)
        assert KEY not in failed.stdout + failed.stderr
        server.fault = lambda handler, number: False
        server.asked.clear()
        cut.json("prepare")
        assert len(server.asked) == 38 - 11
    assert not (cut.folder / ".treadle" / "cache" / "checkpoints" / "replies").exists()
    assert made(noted).dataset.digest == made(cut).dataset.digest
    check_account(made(noted), done)
    check_examples(made(noted), asked)
    check_record(noted, server.url)
    with open_project(noted.folder) as opened:  # its tests are those from before it joined, so evaluations stay known
        (before,) = opened.record.runs.find(step="prepare.choose_tests", status="done")
        again = begin(opened).driver.run(choose_tests, Dataset(made(noted).dataset.digest, opened.record.store))
        assert again.digest == before.outputs["dataset"]
    splits = made(noted).splits
    page = (noted.folder / done["report"]).read_text()
    assert "documents by origin" in page
    assert f"{len(splits['train']):,} ({sum(map(is_synthetic, splits['train'])):,} synthetic)" in page


def check_account(found: Made, done: dict[str, Any]) -> None:
    """Nothing is lost, every rule has its count, and what is judged by stays as it was."""
    assert done["in"] == done["kept"] + sum(done["dropped"].values()) + len(done["quarantined"])
    assert done["dropped"]["synthesize.malformed"] == 4 * 2  # a preamble, and a question without its answer
    assert done["dropped"]["synthesize.ungrounded"] == 4
    notes = found.dataset.read_json("accounting.json")["notes"]
    assert notes["synthesize.tested_parent"] == found.before["test"] + found.before["validation"]
    rows = [row.fate for row in read_rule_log(found.dataset.path(RULES_FILE)) if row.rule == "synthesize.malformed"]
    assert rows == ["dropped"] * 8
    for name in ("validation", "test", "holdout"):
        assert done["splits"][name] == found.before[name]


def check_examples(found: Made, asked: list[str]) -> None:
    """Where synthetic examples are, and where not."""
    real = found.before["train"]
    synthetic = [example for example in found.splits["train"] if is_synthetic(example)]
    judged = [example for name in ("validation", "test", "holdout") for example in found.splits[name]]
    assert not any(map(is_synthetic, judged))
    assert not [each.question for each in judged if any(each.question in said for said in asked)]
    assert len(found.splits["train"]) - len(synthetic) == real
    assert 20 < len(synthetic) <= int(0.4 / 0.6 * real)
    assert {example.fields["kind"] for example in synthetic} == {"instructions", "paraphrases"}
    wrong = [example for example in found.splits["train"] if "rejected" in example.fields]
    assert len(wrong) == 6
    assert all(each.fields["rejected"][:-1] == list(each.messages[:-1]) for each in wrong)
    documents = {document.id: document for batch in found.answers.documents() for document in batch}
    for example in synthetic:
        document = documents[example.documents[0]]
        assert (document.origin, document.parents) == ("synthetic", example.documents[1:])
        assert document.fields["synthetic"]["by"] == "fp-7"
        assert document.license == ("CC-BY-4.0" if example.fields["kind"] == "instructions" else "CC0-1.0")


def check_record(project: Project, url: str) -> None:
    """Who taught, by which prompts, stands in the record; the key stands nowhere."""
    parameters = made(project).parameters
    assert parameters["teacher"]["url"] == url
    assert parameters["teacher"]["api_key"] == "${env:TEACHER_KEY}"
    assert [kind["template"]["version"] for kind in parameters["kinds"]] == [1, 1, 1]
    assert not [path for path in project.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_lineage_and_erasure_reach_what_was_made_of_a_document(noted: Project) -> None:
    with TeacherServer(teach) as server:
        noted.edit("  split:", SETTINGS.format(url=server.url))
        noted.json("prepare")
        found = made(noted)
        one = next(each for each in found.splits["train"] if each.fields.get("kind") == "instructions")
        with open_project(noted.folder) as opened:
            down = lineage(opened.record, one.documents[1], down=True)
            up = lineage(opened.record, one.documents[0]).public()
        assert {found.answers.digest, found.dataset.digest} <= set(down.nodes)
        assert {"from": one.documents[0], "to": one.documents[1], "role": "made_by"} in up["edges"]
        (run,) = [node["label"] for node in up["nodes"] if node["kind"] == "run"]
        assert all(word in run for word in ("large", "instructions v1", "seed 17", "temperature 0"))
        assert HERS in texts(found.answers)
        erased = noted.json("forget", SUBJECT, "--no-rebuild", check=None)
        assert erased["done"]
        with open_project(noted.folder) as opened:
            assert not opened.record.store.has(found.answers.digest)
            assert not opened.record.store.has(found.dataset.digest)
        noted.json("prepare")
        assert "harbor company opened number 0" in texts(made(noted).answers)
        assert HERS not in texts(made(noted).answers)
    check_collected(noted)
    assert noted.json("verify")["ok"]


def check_collected(project: Project) -> None:
    """What is gone from the store still leads from a synthetic document to its parents."""
    found = made(project)
    left = next(each for each in found.splits["train"] if is_synthetic(each))
    with open_project(project.folder) as opened:
        record, digest = opened.record, found.answers.digest
        limits = Limits(older_than=0.0, grace=0.0)
        collect(record, find_garbage(record, limits), limits)
        assert not record.store.has(digest)
        up = lineage(record, left.documents[0]).public()
    edges = [edge["to"] for edge in up["edges"] if edge["from"] == left.documents[0]]
    assert set(left.documents[1:]) < set(edges)


def test_whom_a_reply_alone_names_stays_erased(noted: Project) -> None:
    """Zelda is in an answer that becomes an example; Yves in some that become none, of which samples quote him."""
    name, other = "Zelda Marchbanks", "Yves Tallgren"
    notes = (noted.data.parent / "notes.jsonl").read_text().splitlines(keepends=True)
    (noted.data.parent / "notes.jsonl").write_text("".join(notes[n] for n in range(20) if n % 5 < 4))
    (noted.data.parent / "more.jsonl").write_text("".join(notes[4::5]))
    more = SOURCE.replace("notes.jsonl", "more.jsonl").replace(", subject: customer", "")  # nobody's: samples quote it
    noted.edit("prepare:", more)

    def say(said: str) -> str:
        told = teach(said).replace("viaduct company opened number 6", f"viaduct company opened number 6 for {name}")
        return told.replace("Sure! Here you are.", f"Sure! {other} says:")

    with TeacherServer(say) as server:
        noted.edit("  split:", SETTINGS.format(url=server.url))
        noted.json("prepare")
        assert f"number 6 for {name}" in texts(made(noted).answers)
        assert name in all_it_holds(noted)
        assert other in all_it_holds(noted)
        erased = noted.json("forget", name, check=None)
    assert erased["done"]
    assert erased["rebuilt"] is not None
    assert name not in all_it_holds(noted)
    answers = made(noted).answers
    assert answers.accounting().dropped["suppress.erased"] == 1
    assert "harbor company opened number 0" in texts(answers)
    assert other in all_it_holds(noted)
    assert noted.json("forget", other, "--no-rebuild")["done"]
    assert other not in all_it_holds(noted)


def all_it_holds(project: Project) -> str:
    """Every file of a project, and its objects as they were put, with what their tables say."""
    with open_project(project.folder) as opened:
        store = opened.record.store
        held = [store.read(name) for name in store.names()]
    tables = [str(parquet.read_table(BytesIO(data)).to_pylist()) for data in held if data.startswith(b"PAR1")]
    held += [path.read_bytes() for path in project.folder.rglob("*") if path.is_file()]
    return "\n".join([*tables, *(data.decode("utf-8", "replace") for data in held)])


def test_what_may_not_be_learned_from_is_not_asked_about(tmp_path: Path) -> None:
    """Neither what the split or decontamination dropped, nor what is as new as a test."""
    store = Store(tmp_path)
    times = {"train": "2026-01-05", "new": "2026-02-02", "old": "2026-01-06", "leak": "2026-01-07", "undated": None}
    times |= {"test": "2026-03-01", "other": "2026-01-08"}
    ids = {name: document_id("s", name, b"") for name in times}
    documents = [Document(ids[name], "s", name, "some words", time=time) for name, time in times.items()]
    splits = {side: [Example((ids[side],), text="some words", label="a", group=side)] for side in ("train", "test")}
    split = {"by": None, "time": {"validation": "2026-02-01", "test": "2026-03-01", "undated": "drop"}}
    with Builder(Corpus, store) as builder:
        builder.add_documents(write_corpus(builder.path, [documents]))
        corpus = builder.commit()
    with Builder(Dataset, store) as made_of_it:
        write_dataset(made_of_it.path, splits, accounting=Accounting().to_json(), info={"split": split})
        with RuleLog(made_of_it.path) as log:
            log.add((ids["leak"],), "decontaminate.same_text", "dropped")
            log.add((ids["other"],), "split.other_time", "dropped")
            log.add((ids["old"],), "redact.email", "changed")
        material, aside = _material(made_of_it.commit(), corpus)
    barred = {ids[name] for name in ("new", "leak", "undated", "other")}
    assert aside == {"tested_parent": (ids["test"],), "barred_parent": tuple(sorted(barred))}
    assert material.tested == {ids["test"], *barred}


@pytest.mark.parametrize(
    ("teacher", "more", "told"),
    [
        ("{model: m}", "", "expected instructions, paraphrases or hard_negatives"),
        ("{}", "paraphrases: {}", "expected either model or version"),
        ("{model: m, version: model@v1}", "paraphrases: {}", "expected either model or version"),
        ("{model: m, api_key: '${env:K}'}", "paraphrases: {}", "give its url"),
        ("{version: model@v1, url: 'http://h'}", "paraphrases: {}", "give model beside url"),
        ("{model: m, url: 'https://h/v1', api_key: word-of-mine}", "paraphrases: {}", "secret"),
        ("{model: m}", "paraphrases: {count: 0}", "paraphrases.count"),
        ("{model: m}", "paraphrases: {grounded: 1}", "paraphrases.grounded"),
        ("{model: m}", "paraphrases: {}, share: 1", "share"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, teacher: str, more: str, told: str) -> None:
    path = tmp_path / "treadle.yaml"
    path.write_text(f"prepare:\n  synthesize: {{teacher: {teacher}{', ' + more if more else ''}}}\n")
    with pytest.raises(UserError, match=told) as caught:
        load(path, _Prepare)
    assert str(caught.value).startswith("treadle.yaml:2: prepare.synthesize")
    assert "word-of-mine" not in str(caught.value)


class _Prepare(Settings):
    prepare: PrepareSettings


def test_a_release_of_the_project_teaches(project: Project) -> None:
    said = "  synthesize: {teacher: {version: model@v1, max_tokens: 8}, paraphrases: {count: 3}}\n  split:"
    project.edit("  split:", said)
    done = project.json("prepare")
    assert sum(count for rule, count in done["dropped"].items() if rule.startswith("synthesize.")) >= 3
    with open_project(project.folder) as opened:
        (run,) = opened.record.runs.find(step="prepare.synthesize_here", status="done")
        release = str(run.inputs["release"])
        assert opened.record.versions.served() == release
        assert run.outputs["corpus"] in lineage(opened.record, release, down=True).nodes


@pytest.mark.slow
def test_smollm2_teaches_the_same_twice(noted: Project, tmp_path: Path) -> None:
    said = (
        "  synthesize: {teacher: {model: smollm2-135m-instruct, max_tokens: 160},"
        " instructions: {count: 12, per: 2}, paraphrases: {count: 6}, hard_negatives: {count: 4}}\n  split:"
    )
    noted.json("collect")
    noted.edit("  split:", said)
    shutil.copytree(noted.folder.parent, tmp_path / "again")
    again = Project(tmp_path / "again" / noted.folder.name)
    done = noted.json("prepare")
    found = made(noted)
    synthetic = [example for example in found.splits["train"] if is_synthetic(example)]
    assert len(synthetic) >= 5
    assert done["in"] == done["kept"] + sum(done["dropped"].values()) + len(done["quarantined"])
    assert found.parameters["teacher"]["fingerprint"].startswith("b3:")
    again.json("prepare")
    assert made(again).dataset.digest == found.dataset.digest
