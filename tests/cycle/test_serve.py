"""``treadle serve`` as a process: OpenAI's own client, plain and streaming, counts that agree, and an orderly end."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI
from prometheus_client.parser import text_string_to_metric_families

from small_project import Project


@pytest.fixture
def served(project: Project) -> Iterator[tuple[Project, str]]:
    process = project.start("serve", "--port", "0", "--json")
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        yield project, json.loads(line)["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 0, line + rest


def test_the_openai_client(served: tuple[Project, str]) -> None:
    project, url = served
    before = project.json("status")["counts"]["interactions"]
    with OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        model = client.models.list().data[0].id
        assert model == "helper@v1"
        question: list[Any] = [{"role": "user", "content": "How do I reset my radio?"}]
        plain = client.chat.completions.create(model=model, messages=question, temperature=0)
        pieces = client.chat.completions.create(model="helper", messages=question, temperature=0, stream=True)
        chunks = list(pieces)
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert streamed == plain.choices[0].message.content
        assert {chunk.id for chunk in chunks} == {chunks[0].id}
        with pytest.raises(NotFoundError):
            client.chat.completions.create(model="another", messages=question)
        kept_back = client.chat.completions.create(model=model, messages=question, store=False)
        given = client.chat.completions.create(
            model=model,
            messages=question,
            extra_body={"context": [{"title": "Manual", "text": "Hold the button for five seconds."}]},
        )
    release = project.json("status")["deployment"]["release"]
    assert {plain.system_fingerprint, chunks[0].system_fingerprint} == {release}
    assert project.json("status")["counts"]["interactions"] == before + 4
    roles = {edge["role"] for edge in project.json("lineage", given.id)["edges"]}
    assert {"made_by", "given"} <= roles
    graph = project.json("lineage", plain.id)
    assert "document" in {node["kind"] for node in graph["nodes"]}
    assert "similar" not in {edge["role"] for edge in project.json("lineage", kept_back.id)["edges"]}
    metrics = httpx.get(f"{url}/metrics").text
    counted = {
        (sample.labels["endpoint"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "treadle_requests_total"
    }
    completions = {key: value for key, value in counted.items() if key[0] == "chat"}
    assert sum(value for (_, status), value in completions.items() if status == "200") == 4
    assert sum(completions.values()) == 5


def test_feedback_over_http_and_from_the_command_line(served: tuple[Project, str]) -> None:
    project, url = served
    asked = httpx.post(f"{url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello?"}]})
    interaction = asked.json()["id"]
    sent = httpx.post(f"{url}/v1/feedback", json={"interaction": interaction, "thumbs": "down"})
    assert sent.status_code == 201
    assert httpx.post(f"{url}/v1/feedback", json={"interaction": "int-nothing", "thumbs": "up"}).status_code == 404
    project.call("feedback", interaction, "--correction", "Say hello back.")
    kinds = [row["kind"] for row in project.json("feedback")]
    assert sorted(kinds) == ["correction", "thumbs"]
    assert project.json("improve")["corrections"] == 1


def test_a_second_server_on_the_port_is_told_so(served: tuple[Project, str]) -> None:
    project, url = served
    port = url.rpartition(":")[2]
    done = project.call("serve", "--port", port, check=2)
    assert f"port {port}" in done.stderr
    assert "in use" in done.stderr


def test_ask_uses_the_server_that_runs(served: tuple[Project, str]) -> None:
    project, url = served
    answer = project.json("ask", "How do I store my tent?")
    metrics = httpx.get(f"{url}/metrics").text
    assert 'treadle_requests_total{endpoint="chat",status="200"} 1.0' in metrics
    assert answer["id"].startswith("int-")
