"""An endpoint's log becomes interactions: every shape, every rule, and nothing twice."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from small_project import Project
from treadle.core.errors import UserError
from treadle.core.verify import verify
from treadle.erasing import forget
from treadle.importing.logs import import_logs
from treadle.project import open_project
from treadle.record.interaction import IMPORTED, Interaction
from treadle.record.lineage import Graph
from treadle.record.version import NOT_RECORDED
from treadle.stages.track.walk import lineage

Fresh = Callable[[], Project]
NOW = int(time.time())


def chat(number: int = 0, **changes: Any) -> dict[str, Any]:
    """One pair of request and response, as a client and a server exchange them."""
    row: dict[str, Any] = {
        "request": {
            "model": "theirs",
            "messages": [{"role": "user", "content": f"How do I mend number {number}?"}],
            "user": f"person-{number}",
            "temperature": 0.2,
        },
        "response": {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": NOW - 3600 + number,
            "model": "theirs-q8",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "With glue."}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
        },
    }
    return {**row, **changes}


def write(path: Path, *rows: Any) -> str:
    """A file of JSON lines; texts are lines as they are."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def imported(project: Project, *places: str, **settings: Any) -> tuple[dict[str, Any], list[Interaction]]:
    """What the import said, and the interactions that are there."""
    with open_project(project.folder) as opened, opened.record.workspace.exclusive():
        said = import_logs(opened, places, **settings).public()
        rows = [row for row in opened.record.recorder.interactions() if row.origin == IMPORTED]
        assert verify(opened.record.workspace).ok
    assert said["in"] == said["kept"] + sum(said["dropped"].values()) + len(said["quarantined"])
    return said, rows


def of(project: Project, ref: str, *, down: bool = False) -> Graph:
    with open_project(project.folder) as opened:
        return lineage(opened.record, ref, down=down)


def test_a_pair_of_request_and_response(fresh: Fresh, tmp_path: Path) -> None:
    project = fresh()
    said, rows = imported(project, write(tmp_path / "log.jsonl", chat(latency_ms=1500, ttft=0.5)))
    assert (said["in"], said["kept"], said["release"]) == (1, 1, NOT_RECORDED)
    row = rows[0]
    assert (row.request, row.model, row.endpoint, row.status) == (
        *("chatcmpl-0", "theirs-q8", "/v1/chat/completions", "ok"),
    )
    assert row.messages == ({"role": "user", "content": "How do I mend number 0?"},)
    assert (row.answer, row.finish_reason, row.parameters) == ("With glue.", "stop", {"temperature": 0.2})
    assert (row.tokens.prompt, row.tokens.completion, row.tokens.cached) == (9, 3, 4)
    assert (row.seconds.total, row.seconds.ttft, row.tokens_per_second) == (1.5, 0.5, 2.0)
    assert row.user is not None
    assert "person" not in row.user
    graph = of(project, row.id)
    assert graph.verified
    assert [node.label for node in graph.nodes.values()] == [row.id, NOT_RECORDED]


SHAPES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "a proxy's flat row": (
        [
            {
                "id": "call-7",
                "call_type": "acompletion",
                "status": "success",
                "model": "theirs",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "image_url"}]}],
                "response": {"choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}]},
                "startTime": NOW - 60.5,
                "completionStartTime": NOW - 60.25,
                "endTime": NOW - 59.5,
                "prompt_tokens": 4,
                "completion_tokens": 2,
                "end_user": "eve",
                "model_parameters": {"max_tokens": 5},
            }
        ],
        {"request": "call-7", "asked": "Hello\n[image_url]", "answer": "Hi.", "total": 1.0, "tokens": 2},
    ),
    "output of a batch after its input": (
        [
            {"custom_id": "q-1", "method": "POST", "url": "/v1/chat/completions", "body": chat(1)["request"]},
            {
                "id": "batch_req_1",
                "custom_id": "q-1",
                "response": {"status_code": 200, "request_id": "r", "body": chat(1)["response"]},
                "error": None,
            },
        ],
        {"request": "chatcmpl-1", "asked": "How do I mend number 1?", "answer": "With glue."},
    ),
    "output of a batch alone": (
        [{"custom_id": "q-1", "response": {"status_code": 200, "body": chat(1)["response"]}, "error": None}],
        {"request": "chatcmpl-1", "asked": None, "answer": "With glue."},
    ),
    "JSON in texts": (
        [{"request": json.dumps(chat(2)["request"]), "response": json.dumps(chat(2)["response"])}],
        {"request": "chatcmpl-2", "asked": "How do I mend number 2?", "answer": "With glue."},
    ),
    "a stream's chunks": (
        [
            chat(
                3,
                response=[
                    {
                        "id": "c-3",
                        "created": NOW,
                        "model": "m",
                        "choices": [{"index": 0, "delta": {"content": "With "}}],
                    },
                    {"id": "c-3", "created": NOW, "choices": [{"index": 0, "delta": {"content": "glue."}}]},
                    {"id": "c-3", "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]},
                    {"id": "c-3", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
                ],
            )
        ],
        {"request": "c-3", "asked": "How do I mend number 3?", "answer": "With glue.", "finish": "length", "tokens": 2},
    ),
    "server-sent events": (
        [
            chat(
                4,
                response='data: {"id": "c-4", "choices": [{"delta": {"content": "Yes"}}]}\n\ndata: [DONE]\n',
                time=NOW,
            )
        ],
        {"request": "c-4", "asked": "How do I mend number 4?", "answer": "Yes"},
    ),
    "a completion": (
        [
            {
                "request": {"prompt": "Once", "max_tokens": 3},
                "response": {
                    "id": "cmpl-1",
                    "object": "text_completion",
                    "created": NOW,
                    "choices": [{"text": " upon"}],
                },
            }
        ],
        {"request": "cmpl-1", "asked": "Once", "answer": " upon", "endpoint": "/v1/completions"},
    ),
    "an answer with output items": (
        [
            {
                "request": {"input": "Say hi", "instructions": "Be kind."},
                "response": {
                    "id": "resp_1",
                    "object": "response",
                    "created_at": NOW,
                    "status": "completed",
                    "output": [
                        {"type": "reasoning"},
                        {"type": "message", "content": [{"type": "output_text", "text": "Hi."}]},
                    ],
                    "usage": {"input_tokens": 3, "output_tokens": 2},
                },
            }
        ],
        {"request": "resp_1", "asked": "Say hi", "answer": "Hi.", "endpoint": "/v1/responses", "tokens": 2},
    ),
    "an error": (
        [
            {
                "request": chat(5)["request"],
                "response": {
                    "status_code": 429,
                    "body": {"error": {"message": "Jane, slow down", "code": "rate_limit"}},
                },
                "time": "2026-11-01T00:00:00+01:00",
            }
        ],
        {"request": "", "asked": "How do I mend number 5?", "answer": None, "error": "rate_limit"},
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape(shape: str, fresh: Fresh, tmp_path: Path) -> None:
    lines, expected = SHAPES[shape]
    project = fresh()
    project.edit("deploy:\n", "monitor: {retention: null}\ndeploy:\n")
    said, rows = imported(project, write(tmp_path / "log.jsonl", *lines))
    assert said["kept"] == 1, said
    row = rows[0]
    asked = [message["content"] for message in row.messages or () if message["role"] == "user"]
    found = {
        "request": row.request,
        "asked": asked[0] if row.messages else None,
        "answer": row.answer,
        "finish": row.finish_reason,
        "total": row.seconds.total,
        "tokens": row.tokens.completion,
        "endpoint": row.endpoint,
        "error": row.error,
    }
    assert {key: found[key] for key in expected} == expected
    assert row.status == ("failed" if "error" in expected else "ok")
    assert imported(project, str(tmp_path / "log.jsonl"))[0]["kept"] == 0


def test_what_is_no_answer_is_dropped_and_what_cannot_be_read_is_named(fresh: Fresh, tmp_path: Path) -> None:
    embedding = {"request": {"input": "x", "model": "e"}, "response": {"object": "list", "data": []}}
    timeless = chat()
    del timeless["response"]["created"]
    place = write(tmp_path / "log.jsonl", chat(), "{broken", embedding, "[1, 2]", timeless, '{"a": NaN}', {"a": 1})
    said, _ = imported(fresh(), place)
    assert (said["kept"], said["dropped"]) == (1, {"logs.no_answer": 1})
    named = {piece["source"]: piece["reason"] for piece in said["quarantined"]}
    assert list(named) == [f"log.jsonl line {number}" for number in (2, 4, 5, 6, 7)]
    assert named["log.jsonl line 2"] == "not JSON"
    assert "--time" in named["log.jsonl line 5"]


def test_a_time_for_lines_that_say_none(fresh: Fresh, tmp_path: Path) -> None:
    row = chat()
    del row["response"]["created"]
    moment = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    project, place = fresh(), write(tmp_path / "log.jsonl", row)
    _, rows = imported(project, place, time=moment)
    assert rows[0].time == moment.isoformat().removesuffix("+00:00") + ".000Z"
    assert imported(project, place, time=moment)[0]["dropped"] == {"logs.imported_before": 1}


def test_what_is_dated_in_the_future_is_quarantined(fresh: Fresh, tmp_path: Path) -> None:
    project = fresh()
    soon, later = ((datetime.now(UTC) + timedelta(hours=hours)).isoformat() for hours in (20, 30))
    times = ("2031-01-01T00:00:00Z", later, soon)
    far = chat(9)
    far["response"]["created"] = 99999999999999
    place = write(tmp_path / "log.jsonl", *(chat(number, time=time) for number, time in enumerate(times)), far)
    said, rows = imported(project, place)
    assert [row.request for row in rows] == ["chatcmpl-2"]
    assert [piece["source"] for piece in said["quarantined"]] == [f"log.jsonl line {number}" for number in (1, 2, 4)]
    assert all("ahead of this machine's clock" in piece["reason"] for piece in said["quarantined"])


def test_a_log_that_grew_gives_what_is_new(fresh: Fresh, tmp_path: Path) -> None:
    project, place = fresh(), tmp_path / "log.jsonl"
    imported(project, write(place, chat(0), chat(1)))
    said, rows = imported(project, write(tmp_path / "renamed.jsonl", chat(0), chat(1), chat(2), chat(2)))
    assert (said["kept"], said["dropped"]) == (1, {"logs.imported_before": 3})
    assert len(rows) == 3


def test_texts_are_kept_as_the_file_says(fresh: Fresh, tmp_path: Path) -> None:
    row = chat()
    row["request"]["messages"][0]["content"] = "I am jane.roe@example.org"
    private = chat(1)
    private["request"]["store"] = False
    place = write(tmp_path / "log.jsonl", row, private)
    _, rows = imported(fresh(), place)
    assert "jane.roe" not in (rows[0].messages or ())[0]["content"]
    assert (rows[1].messages, rows[1].answer, rows[1].store) == (None, None, False)
    full, none = fresh(), fresh()
    full.edit("deploy:\n", "monitor: {record: full}\ndeploy:\n")
    none.edit("deploy:\n", "monitor: {record: none}\ndeploy:\n")
    assert "jane.roe" in (imported(full, place)[1][0].messages or ())[0]["content"]
    assert imported(none, place)[1][0].messages is None


def test_what_is_older_than_its_retention_stays_out(fresh: Fresh, tmp_path: Path) -> None:
    old = chat(0)
    old["response"]["created"] = NOW - 40 * 86_400
    said, rows = imported(fresh(), write(tmp_path / "log.jsonl", old, chat(1)))
    assert (said["kept"], said["dropped"]) == (1, {"logs.retention": 1})
    assert rows[0].retain_until is not None


def test_who_was_forgotten_stays_out(fresh: Fresh, tmp_path: Path) -> None:
    project, mentioned = fresh(), chat(2)
    mentioned["request"]["messages"][0]["content"] = "Is person-1 there?"
    place = write(tmp_path / "log.jsonl", chat(0), chat(1), mentioned)
    imported(project, place)
    with open_project(project.folder) as opened, opened.record.workspace.exclusive():
        assert forget(opened, "person-1", rebuild=False).interactions == 2
    later = write(tmp_path / "later.jsonl", chat(0), chat(1), mentioned, chat(1, latency=3))
    said, rows = imported(project, later)
    assert said["dropped"] == {"logs.imported_before": 3, "logs.erased": 1}
    assert [row.request for row in rows] == ["chatcmpl-0"]


def test_answers_lead_to_the_model_that_gave_them(fresh: Fresh, elsewhere: Path, tmp_path: Path) -> None:
    project = fresh()
    version = project.json("import", "model", str(elsewhere))
    said, rows = imported(project, write(tmp_path / "log.jsonl", chat(0), chat(1)), model="model@v1")
    graph = of(project, rows[0].id)
    assert graph.verified
    assert [node.kind for node in graph.nodes.values()] == ["interaction", "release", "model", NOT_RECORDED]
    assert version["digest"] in graph.nodes
    assert {row.id for row in rows} <= set(of(project, "model@v1", down=True).nodes)
    again, _ = imported(project, write(tmp_path / "more.jsonl", chat(2)), model="model@v1")
    assert again["release"] == said["release"]


def test_zipped_and_over_http(fresh: Fresh, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "log.jsonl.gz").write_bytes(gzip.compress(json.dumps(chat(0)).encode()))
    write(folder / "log.jsonl", chat(1))
    with _served(folder) as url:
        said, _ = imported(fresh(), f"{url}/log.jsonl", f"{url}/log.jsonl.gz", str(folder / "log.jsonl.gz"))
    assert (said["kept"], said["dropped"]) == (2, {"logs.imported_before": 1})


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("place", ["absent.jsonl", "s3://bucket/log", "http://me:word@127.0.0.1/log", "cut.jsonl.gz"])
def test_what_gives_no_lines_is_refused(place: str, fresh: Fresh, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(chat()).encode() * 100)[:-20])
    with pytest.raises(UserError, match="import: "):
        imported(fresh(), place)


KEYS = st.sampled_from(
    ["request", "response", "body", "messages", "role", "content", "choices", "message", "delta", "index", "usage",
     "error", "status_code", "created", "time", "custom_id", "input", "output", "type", "text", "prompt_tokens", "id",
     "startTime", "endTime", "latency_ms", "user", "metadata", "object"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(st.dictionaries(KEYS, VALUES, max_size=8), min_size=1, max_size=5), junk=st.binary(max_size=40))
def test_any_line_is_accounted_for(rows: list[dict[str, Any]], junk: bytes, shared: Project) -> None:
    path = shared.folder / "any.jsonl"
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows) + junk)
    with open_project(shared.folder) as opened, opened.record.workspace.exclusive():
        said = import_logs(opened, [str(path)], time=datetime.now(UTC)).public()
    assert said["in"] == said["kept"] + sum(said["dropped"].values()) + len(said["quarantined"])
    assert said["in"] >= len(rows)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Project:
    """One project for many imports."""
    from small_project import make_project

    return make_project(tmp_path_factory.mktemp("shared"), base)
