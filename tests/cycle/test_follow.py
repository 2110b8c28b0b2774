"""``treadle serve`` as a process that follows what others write into the record: promotions, rollbacks, a canary, an
erasure, under a load that never pauses."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from small_project import SUBJECT, Project
from treadle.core.artifacts import Builder
from treadle.core.digest import canonical_json
from treadle.core.identifiers import new_id
from treadle.core.ledger import Fact
from treadle.hosting import _finder
from treadle.lm.gguf import write_gguf
from treadle.lm.model import Model
from treadle.lm.tokenizer import ChatTokenizer
from treadle.project import open_project
from treadle.record.feedback import Feedback, new_feedback_id
from treadle.record.record import Record
from treadle.record.release import Release
from treadle.record.version import Version
from treadle.serve.guardrail_settings import described
from treadle.stages.deploy.serving import RecordGuide, serving_now

QUESTIONS = ("How do I reset my radio?", "Where is the tent?", "Clean my stove", "one two three", "lamp", "a b c d e f")
LETTERS = "xyz"


@dataclass
class Server:
    """A running ``treadle serve``, and the project's record through a connection of the test's own."""

    project: Project
    record: Record
    process: subprocess.Popen[str]
    url: str
    http: httpx.Client

    def models(self) -> list[dict[str, Any]]:
        return list(self.http.get("/v1/models").json()["data"])

    def chat(self, text: str, **more: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": text}], "temperature": 0} | more
        return self.http.post("/v1/chat/completions", json=body)

    def promote(self, version: Version, release: str) -> None:
        """What a promotion and a rollback leave in the record."""
        self.record.versions.point("champion", version, reason="a test", release=release)

    def roll_back(self) -> None:
        """``treadle rollback``, as a person gives it."""
        self.project.call("rollback", "--reason", "a test")

    def answering(self, release: str) -> None:
        """Wait until it answers, and alone."""
        until(lambda: [model["digest"] for model in self.models()] == [release])

    def deployed(self) -> dict[str, float]:
        """Shares that the record says are in force here."""
        return {each.release: each.share for each in self.record.deployments.all() if each.endpoint == self.url}

    def workers(self) -> list[int]:
        """Processes of its engines, the latest last."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == self.process.pid and fields[0] != "Z":
                found.append((int(fields[19]), int(path.parent.name)))
        return [pid for _, pid in sorted(found)]


@dataclass(frozen=True)
class Said:
    """One answer as a client saw it."""

    status: int
    question: str
    text: str
    releases: frozenset[str] = frozenset()
    interaction: str = ""


@dataclass
class Load:
    """Clients that ask without a pause, plain and streaming by turns."""

    url: str
    model: str | None = None
    most: int | None = None
    said: list[Said] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self, clients: int = 4) -> Iterator[Load]:
        with ThreadPoolExecutor(clients) as pool:
            work = [pool.submit(self._client, number) for number in range(clients)]
            try:
                yield self
            finally:
                self._stop.set()
            for each in work:
                each.result()

    def more(self, count: int = 8) -> None:
        """Wait for so many more answers."""
        wanted = len(self.said) + count
        until(lambda: len(self.said) >= wanted)

    def _client(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self._stop.is_set():
                question = QUESTIONS[number % len(QUESTIONS)]
                body = {"messages": [{"role": "user", "content": question}], "temperature": 0}
                body |= {"model": self.model, "max_tokens": self.most}
                ask = self._streamed if number % 2 else self._plain
                self.said.append(ask(client, question, body))
                number += 5

    def _plain(self, client: httpx.Client, question: str, body: dict[str, Any]) -> Said:
        answer = client.post("/v1/chat/completions", json=body)
        if answer.status_code != 200:
            return Said(answer.status_code, question, answer.text)
        reply = answer.json()
        text = reply["choices"][0]["message"]["content"]
        return Said(200, question, text, frozenset({reply["system_fingerprint"]}), reply["id"])

    def _streamed(self, client: httpx.Client, question: str, body: dict[str, Any]) -> Said:
        with client.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as answer:
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
        if answer.status_code != 200 or lines[-1:] != ["[DONE]"]:
            return Said(answer.status_code, question, f"ended with {lines[-1:]}")
        chunks = [json.loads(line) for line in lines[:-1]]
        text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
        return Said(200, question, text, frozenset(c["system_fingerprint"] for c in chunks), chunks[0]["id"])


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def saying(record: Record, letter: str) -> tuple[Version, str]:
    """A version whose weights say one letter over and over, whatever it is asked, and its release.

    All embeddings get a common direction, and the letter's twice as much of it: every state points there, and the
    letter's logit is far above all others. So an answer tells which weights gave it, however requests are batched.
    """
    import torch
    from safetensors.torch import load_file, save_file

    served = record.versions.served()
    assert served is not None
    release = Release(served, record.store)
    before = Model(release.read().model, record.store)
    (token,) = ChatTokenizer.load(before.path()).encode(letter)
    with Builder(Model, record.store) as builder:
        for path in before.path().iterdir():
            if path.name not in ("documents.ids", "model.safetensors"):
                shutil.copyfile(path, builder.path / path.name)
        weights = load_file(before.path() / "model.safetensors")
        table = weights["model.embed_tokens.weight"]
        assert "lm_head.weight" not in weights  # the same table reads and writes
        direction = torch.linspace(-1, 1, table.shape[1], dtype=table.dtype)
        table += 50 * direction
        table[token] += 50 * direction
        save_file(weights, builder.path / "model.safetensors", metadata={"format": "pt"})
        builder.add_documents(before.document_ids())
        model = builder.commit()
    with Builder(Release, record.store) as builder:
        shutil.copytree(release.path() / "model", builder.path / "model", copy_function=shutil.copyfile)
        (builder.path / "model").chmod(0o755)
        (builder.path / "model" / "model.gguf").unlink()
        write_gguf(model.path(), builder.path / "model" / "model.gguf")
        spec = {**json.loads((release.path() / "release.json").read_bytes()), "model": model.digest}
        (builder.path / "release.json").write_bytes(canonical_json(spec))
        builder.add_documents(model.document_ids())
        made = builder.commit()
    row = {"digest": made.digest, "kind": "release", "bytes": 0, "documents": 0, "run": "run-of-a-test"}
    record.ledger.append(Fact("artifact", row))
    return record.versions.register("model", model.digest, None), made.digest


def damaged(record: Record, of: str) -> str:
    """A release that no engine can open."""
    release = Release(of, record.store)
    with Builder(Release, record.store) as builder:
        shutil.copytree(release.path() / "model", builder.path / "model", copy_function=shutil.copyfile)
        (builder.path / "model").chmod(0o755)
        (builder.path / "model" / "model.gguf").write_bytes(b"GGUF and nothing behind it")
        shutil.copyfile(release.path() / "release.json", builder.path / "release.json")
        builder.add_documents(release.document_ids())
        return builder.commit().digest


def again(record: Record, of: str) -> str:
    """Another release of the same version."""
    release = Release(of, record.store)
    with Builder(Release, record.store) as builder:
        shutil.copytree(release.path() / "model", builder.path / "model", copy_function=shutil.copyfile)
        spec = json.loads((release.path() / "release.json").read_bytes())
        spec["settings"]["guardrails"] = described({"in": [{"block_list": {"words": ["zebra"]}}]}, None)
        (builder.path / "release.json").write_bytes(canonical_json(spec))
        builder.add_documents(release.document_ids())
        return builder.commit().digest


@contextmanager
def serving(project: Project, record: Record, *arguments: str) -> Iterator[Server]:
    process = project.start("serve", "--json", *(arguments or ("--port", "0")))
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        url = json.loads(line)["url"]
        with httpx.Client(base_url=url, timeout=60) as client:
            yield Server(project, record, process, url, client)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL), line + rest


@dataclass(frozen=True)
class Three:
    """A project with three versions, each with a release that says its letter; the first is champion."""

    project: Project
    record: Record
    versions: list[Version]
    releases: list[str]


@pytest.fixture(scope="module")
def three(built: tuple[Project, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    folder = tmp_path_factory.mktemp("follow") / "copy"
    shutil.copytree(built[0].folder.parent, folder, symlinks=True)
    project = Project(folder / "project")
    project.file.write_text(project.file.read_text() + "monitor: {record: full}\n")
    with open_project(project.folder) as opened:
        record = opened.record
        made = [saying(record, letter) for letter in LETTERS]
        record.versions.point("champion", made[0][0], reason="a test", release=made[0][1])
        yield Three(project, record, [version for version, _ in made], [release for _, release in made])


@pytest.fixture(scope="module")
def server(three: Three) -> Iterator[Server]:
    with serving(three.project, three.record) as running:
        yield running


@contextmanager
def canary(three: Three, server: Server, share: float) -> Iterator[str]:
    """The second beside the first for as long as the block lasts; gives the canary's id."""
    record, name = three.record, new_id("can")
    begin(three, server)
    record.canaries.begin(name, three.releases[1], three.versions[1].digest, three.releases[0], share)
    record.versions.point("challenger", three.versions[1], reason="canary", release=three.releases[1])
    until(lambda: [model["aliases"][0] for model in server.models()] == ["champion", "challenger"])
    yield name
    canary = record.canaries.open()
    if canary is not None:
        take_back(three)
        server.answering(three.releases[0])


def begin(three: Three, server: Server) -> None:
    """The first is champion."""
    server.promote(three.versions[0], three.releases[0])
    server.answering(three.releases[0])


def take_back(three: Three) -> None:
    canaries, number = three.record.canaries, three.versions[1].number
    canary = canaries.open()
    assert canary is not None
    ending = canaries.decided(canary.id, "take_back", "a test", {}, number)
    three.record.versions.point("challenger", None, reason="taken back", together=(ending,))


def test_of_two_releases_of_one_version_the_one_on_trial_is_the_challenger(three: Three, server: Server) -> None:
    record, version, old = three.record, three.versions[0], three.releases[0]
    new, name = again(record, old), new_id("can")
    begin(three, server)
    record.canaries.begin(name, new, version.digest, old, 0.1)
    record.versions.point("challenger", version, reason="canary", release=new)
    until(lambda: [model["digest"] for model in server.models()] == [old, new])
    named = [set(model["aliases"]) - {"previous"} for model in server.models()]  # which it may be as well
    assert named == [{"champion"}, {"challenger"}]
    for alias, release in (("champion", old), ("challenger", new)):
        assert server.http.get(f"/v1/models/helper@{alias}").json()["digest"] == release
        assert server.chat("lamp", max_tokens=1, model=f"helper@{alias}").json()["system_fingerprint"] == release
    ending = record.canaries.decided(name, "take_back", "a test", {})
    record.versions.point("challenger", None, reason="taken back", together=(ending,))
    server.answering(old)


@pytest.mark.parametrize("back_and_forth", [2, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_promotions_and_rollbacks_lose_nothing(three: Three, server: Server, back_and_forth: int) -> None:
    begin(three, server)
    expected = {release: 16 * letter for release, letter in zip(three.releases, LETTERS, strict=True)}
    until(lambda: server.deployed() == {three.releases[0]: 1})
    before = len(three.record.deployments.history())
    load = Load(server.url, model="helper")
    # Back and forth, with no loading; and through a third, so that engines are opened and closed under load.
    moves = [1, 0] * back_and_forth + [2, 1, 2, 0, 1, 0]
    with load.running():
        for at, number in enumerate(moves):
            if at < 2 * back_and_forth and number == 0:
                server.roll_back()
            else:
                server.promote(three.versions[number], three.releases[number])
            server.answering(three.releases[number])
            load.more()
    assert [said for said in load.said if said.status != 200] == []
    rows = {row.id: row for row in three.record.recorder.interactions()}
    seen = set()
    for said in load.said:
        (release,) = said.releases
        row = rows[said.interaction]
        assert (row.release, row.status, row.share) == (release, "ok", 1.0)
        assert said.text == row.answer == expected[release]
        seen.add((release, row.stream))
    assert seen == {(release, stream) for release in three.releases for stream in (False, True)}
    until(lambda: len(server.workers()) == 2)  # the champion's engine, and the one that is kept
    until(lambda: server.deployed() == {three.releases[0]: 1})
    deployed = three.record.deployments.history()[before:]
    assert [each.release for each in deployed if each.share == 1] == [three.releases[number] for number in moves]


def test_a_canary_gets_its_share_and_people_stay_on_their_side(three: Three, server: Server) -> None:
    record, (old, new, _) = three.record, three.releases

    def drawn(user: str | None) -> tuple[str, str]:
        reply = server.chat("lamp", max_tokens=1, **({"user": user} if user else {})).json()
        return reply["id"], reply["system_fingerprint"]

    n = 400
    with canary(three, server, 0.3) as name, ThreadPoolExecutor(4) as pool:
        until(lambda: server.deployed() == {old: 0.7, new: 0.3})
        anybody = dict(pool.map(drawn, [None] * n))
        people = [f"person {number}" for number in range(50) for _ in range(2)]
        sides: dict[str, set[str]] = {}
        for user, (_, release) in zip(people, pool.map(drawn, people), strict=True):
            sides.setdefault(user, set()).add(release)
        for asked in (f"helper@v{three.versions[1].number}", "helper@challenger", new):
            reply = server.chat("lamp", max_tokens=1, model=asked).json()
            assert reply["system_fingerprint"] == new
            row = record.recorder.find_interaction(reply["id"])
            assert row is not None
            assert row.share is None
        record.canaries.widen(name, 0.9, {})
        until(lambda: server.models()[1]["share"] == 0.9)
    count = list(anybody.values()).count(new)
    assert abs(count - 0.3 * n) < 5 * (n * 0.3 * 0.7) ** 0.5  # missed by chance once in a million times
    assert all(len(side) == 1 for side in sides.values())
    assert set.union(*sides.values()) == {old, new}
    shares = {(row.release, row.share) for row in record.recorder.interactions() if row.id in anybody}
    assert shares == {(old, 0.7), (new, 0.3)}


def test_a_canary_whose_engine_dies_leaves_the_champion_alone(three: Three, server: Server) -> None:
    record, (old, new, _) = three.record, three.releases
    champion, drawn = Load(server.url, model="helper@champion"), Load(server.url)
    before = {row.id for row in record.recorder.interactions()}
    with canary(three, server, 0.5), champion.running(2), drawn.running(2):
        drawn.more()
        os.kill(server.workers()[-1], signal.SIGKILL)
        champion.more(30)
        back = len(drawn.said)
        until(lambda: any(said.status == 200 and new in said.releases for said in drawn.said[back:]))
    assert {said.status for said in champion.said} == {200}
    assert {release for said in champion.said for release in said.releases} == {old}
    lost = [row for row in record.recorder.interactions() if row.id not in before and row.status != "ok"]
    assert {row.release for row in lost} <= {new}
    assert len(lost) == sum(said.status != 200 or not said.releases for said in drawn.said)


def test_a_canary_is_taken_back_in_the_middle_of_its_answers(three: Three, server: Server) -> None:
    old, new, _ = three.releases
    load = Load(server.url, most=200)
    with canary(three, server, 0.9), load.running():
        load.more()
        engines = len(server.workers())
        take_back(three)
        server.answering(old)
        until(lambda: len(server.workers()) == engines - 1)  # its engine is closed, not kept
        load.more()
    said = {(each.status, each.releases, each.text) for each in load.said}
    assert said == {(200, frozenset({old}), 200 * LETTERS[0]), (200, frozenset({new}), 200 * LETTERS[1])}
    assert server.models()[0]["share"] == 1


def test_what_cannot_be_opened_leaves_everything_as_it_is(three: Three, server: Server) -> None:
    record, (old, new, _) = three.record, three.releases
    begin(three, server)
    server.promote(three.versions[1], damaged(record, new))
    until(lambda: any(alert.kind == "deploy" for alert in record.alerts.open()))
    assert server.chat("lamp").json()["system_fingerprint"] == old
    assert server.http.get("/health/ready").status_code == 200
    assert server.models()[0]["digest"] == old
    server.promote(three.versions[1], new)
    server.answering(new)


def test_a_withdrawn_champion_is_not_asked_any_more(three: Three, server: Server) -> None:
    record = three.record
    record.versions.point("champion", None, reason="erased")
    until(lambda: server.models() == [])
    refused = server.chat("lamp")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_model")
    until(lambda: server.workers() == [])  # nor is it kept in memory
    begin(three, server)
    assert server.chat("lamp").status_code == 200


def test_what_others_recorded_meanwhile_counts(three: Three, server: Server) -> None:
    begin(three, server)
    recorder = three.record.recorder
    first, second = (server.chat("lamp").json()["id"] for _ in range(2))
    row = Feedback(new_feedback_id(), first, "2026-01-01T00:00:00.000Z", "thumbs", 1.0, source="cli")
    recorder.feedback(row)
    body = {"interaction": first, "thumbs": "up"}
    said = server.http.post("/v1/feedback", json=body)
    assert (said.status_code, said.json()["id"]) == (200, row.id)
    assert server.http.post("/v1/feedback", json=body | {"thumbs": "down"}).status_code == 201
    assert [each.value for each in recorder.feedback_on(first)] == [1.0, 0.0]
    erased = {first}
    three.record.workspace.journal.rewrite(
        "interactions", lambda row: {**row, "answer": None, "erased": True} if row["id"] in erased else row
    )
    suppression = three.record.erasures.extend({}).digest
    three.record.erasures.record("era-1", "k3:0", "done", suppression)
    gone = server.http.post("/v1/feedback", json=body)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
    assert server.http.post("/v1/feedback", json=body | {"interaction": second}).status_code == 201


def test_who_serves_is_known_and_what_a_dead_server_left_is_put_right(three: Three, server: Server) -> None:
    record, (old, new, _) = three.record, three.releases
    server.promote(three.versions[1], new)
    begin(three, server)
    assert serving_now(record) == [server.url]
    with serving(three.project, record) as other:
        assert set(serving_now(record)) == {server.url, other.url}
        other.process.kill()
        other.process.wait()
        assert serving_now(record) == [server.url]
        assert other.deployed() == {old: 1}
    port = other.url.rpartition(":")[2]
    with serving(three.project, record, new, "--port", port) as fixed:
        assert fixed.url == other.url
        assert fixed.deployed() == {new: 1}
        assert [model["aliases"] for model in fixed.models()] == [["previous"]]
        server.promote(three.versions[1], new)
        server.answering(new)
        until(lambda: [model["aliases"] for model in fixed.models()] == [["champion"]])
        server.promote(three.versions[0], old)
        server.answering(old)
        assert fixed.chat("lamp").json()["system_fingerprint"] == new
    assert serving_now(record) == [server.url]
    assert fixed.deployed() == {}


def test_the_console_is_there_where_there_is_a_key(
    three: Three, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.http.get("/console/").status_code == 404
    monkeypatch.setenv("TREADLE_API_KEY", "sesame")
    with serving(three.project, three.record) as keyed:
        key, wanted = {"authorization": "Bearer sesame"}, {"accept": "application/json"}
        assert keyed.http.get("/console/runs", headers=wanted).status_code == 401
        assert keyed.http.get("/console/runs", headers=wanted | key).json()["runs"]
        assert keyed.http.get("/v1/models").status_code == 401
        assert keyed.http.get("/v1/models", headers=key).status_code == 200


def test_nobody_is_answered_by_a_model_that_knew_a_forgotten_person(project: Project) -> None:
    with (
        open_project(project.folder) as opened,
        serving(project, opened.record) as following,
        serving(project, opened.record, "model@v1", "--port", "0") as fixed,
    ):
        for server in (following, fixed):
            assert server.chat("lamp").status_code == 200
        asked = following.chat("Where is my tent?", user=SUBJECT).json()["id"]
        project.call("forget", SUBJECT, "--no-rebuild")
        for server in (following, fixed):
            until(lambda server=server: server.workers() == [])  # type: ignore[misc]
            refused = server.chat("lamp")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_model")
            assert server.models() == []
        body = {"interaction": asked, "thumbs": "up"}
        assert following.http.post("/v1/feedback", json=body).status_code == 404
    assert project.json("verify")["problems"] == []


def test_an_erased_release_is_told_from_one_that_is_there(project: Project) -> None:
    with open_project(project.folder) as opened:
        record = opened.record
        served, (_, other) = str(record.versions.served()), saying(record, "q")
        guide = RecordGuide(record)
        held = frozenset({served, other})
        view = guide.look(held)
        assert (view.routing, view.gone) == (record.deployments.wanted(), frozenset())
        assert guide.look(held) is view  # nothing was written since
        for erased, gone, left in ((other, {other}, served), (served, {other}, None)):
            record.store.delete({erased})
            record.alerts.raise_("any row", "", erased, {})
            view = guide.look(held)
            assert view.gone >= gone
            assert (view.routing.champion if view.routing else None) == left


def test_a_killed_engine_is_covered_by_the_fallback_and_a_challenger_gets_copies(three: Three, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(three.project.folder.parent, folder, symlinks=True)
    project = Project(folder / "project")
    beside = f"fallback: '{three.releases[2]}'\n  shadow: {{release: '{three.releases[1]}', share: 1}}"
    project.edit("deploy:\n", f"deploy:\n  {beside}\n")
    with open_project(project.folder) as opened, serving(project, opened.record) as server:
        record = opened.record
        server.promote(three.versions[0], three.releases[0])
        server.answering(three.releases[0])
        until(lambda: len(server.workers()) == 3)
        champion = server.workers()[0]
        load = Load(server.url)
        with load.running(3):
            load.more(12)
            for _ in range(3):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(champion, signal.SIGKILL)
                load.more(12)
                champion = server.workers()[-1]
        until(lambda: 'treadle_shadow_requests_total{release="helper@v' in server.http.get("/metrics").text)
        letters = dict(zip(three.releases, LETTERS, strict=True))
        plain = [each for each in load.said if each.status == 200 and each.releases]
        assert all(set(each.text) == {letters[next(iter(each.releases))]} for each in plain)
        # A streamed answer that had begun when its engine was killed is lost; nothing else is.
        assert sum(each.status != 200 or not each.releases for each in load.said) <= 9
        rows = {row.id: row for row in record.recorder.interactions()}
        covered = [row for row in rows.values() if row.instead_of]
        assert covered
        assert {row.release for row in covered} == {three.releases[2]}
        assert {rows[row.instead_of or ""].status for row in covered} == {"failed"}
        copies = [row for row in rows.values() if row.origin == "shadow"]
        assert {row.release for row in copies} == {three.releases[1]}
        assert {rows[row.copy_of or ""].origin for row in copies} == {"traffic"}
        assert not {each.id for each in copies} & {each.interaction for each in load.said}
    assert project.json("verify")["problems"] == []


@pytest.mark.parametrize("named", ["helper@v99", "nobody"])
def test_a_fallback_that_is_not_there_is_said(three: Three, named: str) -> None:
    said: list[str] = []
    with open_project(three.project.folder) as opened:
        find = _finder(opened, "fallback", named, said.append)
        assert find is not None
        assert find() is None
        assert said[0].startswith("deploy.fallback: there is no ")


def test_a_release_that_another_server_runs_goes_the_whole_way(built: tuple[Project, Any], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(built[0].folder.parent, folder, symlinks=True)
    project = Project(folder / "project")
    with open_project(project.folder) as opened:
        champion = opened.record.versions.served()
        assert champion is not None
        with serving(project, opened.record, champion, "--port", "0") as behind:
            upstream = f"engine: upstream\n  upstream: {{urls: [{behind.url}/v1], model: helper}}"
            project.edit("  quantize: {format: q8_0, max_loss: 0.5}\n", f"  {upstream}\n")
            release = project.json("deploy")["release"]
            with serving(project, opened.record, release, "--port", "0") as front:
                for question in QUESTIONS:
                    answer, direct = front.chat(question, max_tokens=8), behind.chat(question, max_tokens=8)
                    assert answer.json()["choices"] == direct.json()["choices"]
                    assert answer.json()["usage"] == direct.json()["usage"]
                    assert answer.json()["system_fingerprint"] == release
                row = opened.record.recorder.find_interaction(answer.json()["id"])
                assert row is not None
                assert row.upstream is not None
                assert row.upstream["fingerprint"] == champion
                assert (row.release, row.status) == (release, "ok")
        refused = project.call("serve", release, "--port", "0", check=2)
        assert "does not answer" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1


def test_a_server_of_one_release_has_a_fallback_and_a_shadow_too(three: Three, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(three.project.folder.parent, folder, symlinks=True)
    project = Project(folder / "project")
    one, two, other = three.releases
    beside = f"fallback: '{other}'\n  shadow: {{release: '{two}', share: 1}}"
    project.edit("deploy:\n", f"deploy:\n  {beside}\n")
    with open_project(project.folder) as opened, serving(project, opened.record, one, "--port", "0") as fixed:
        fixed.answering(one)
        until(lambda: len(fixed.workers()) == 3)
        champion, load = fixed.workers()[0], Load(fixed.url)

        def copies() -> int:
            return sum(row.origin == "shadow" for row in opened.record.recorder.interactions(two))

        with load.running(2):
            until(lambda: copies() >= 8)
            for _ in range(3):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(champion, signal.SIGKILL)
                load.more(12)
                champion = fixed.workers()[-1]
        rows = list(opened.record.recorder.interactions())
        assert {row.release for row in rows if row.instead_of} == {other}
        assert {row.release for row in rows if row.origin == "shadow"} == {two}
        assert fixed.deployed() == {one: 1}
    found = project.json("evaluate", two, "--shadow")
    assert found["pairs"] >= 8
    assert found["same"]["value"] == 0  # each says a letter of its own
