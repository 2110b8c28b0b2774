"""Metrics that Prometheus can read, with counts that agree with what was sent; and a true description."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from prometheus_client.parser import text_string_to_metric_families
from toy_server import DIGEST, Served

from treadle.integrations.kubernetes_scale import QUEUE


def scrape(served: Served) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    response = served.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_counts_agree_with_what_was_sent(served: Served) -> None:
    asked = [served.chat("one two three").json()["id"] for _ in range(5)]
    for _ in range(3):
        list(
            served.client.chat.completions.create(
                model="docs-assistant", messages=[{"role": "user", "content": "one two"}], stream=True
            )
        )
    served.http.post("/v1/chat/completions", content=b"{")
    served.http.post("/v1/completions", json={"prompt": "a b", "model": "gpt-9"})
    served.http.post("/v1/feedback", json={"interaction": asked[0], "thumbs": "up"})
    served.http.get("/v1/models")
    served.http.get("/nothing")
    samples = scrape(served)
    count = lambda name, **labels: samples.get((name, tuple(sorted(labels.items()))), 0)  # noqa: E731
    assert count("treadle_requests_total", endpoint="chat", status="200") == 8
    assert count("treadle_requests_total", endpoint="chat", status="400") == 1
    assert count("treadle_requests_total", endpoint="completions", status="404") == 1
    assert count("treadle_requests_total", endpoint="feedback", status="201") == 1
    assert count("treadle_requests_total", endpoint="models", status="200") == 1
    assert count("treadle_requests_total", endpoint="other", status="404") == 1
    assert count("treadle_request_seconds_count", endpoint="chat") == 9
    assert count("treadle_time_to_first_token_seconds_count", endpoint="chat") == 8
    assert (
        count("treadle_tokens_total", kind="prompt") == sum(r["tokens"]["prompt"] for r in served.rows) == 5 * 5 + 3 * 4
    )
    assert count("treadle_tokens_total", kind="completion") == 5 * 3 + 3 * 2
    assert count("treadle_tokens_per_second_count") == 8
    assert count("treadle_errors_total", code="invalid_json") == 1
    assert count("treadle_errors_total", code="model_not_found") == 1
    assert count("treadle_feedback_total", kind="thumbs") == 1
    assert count("treadle_release_info", release="docs-assistant@v1", digest=DIGEST, engine="toy") == 1
    assert samples[QUEUE, ()] == count("treadle_running_requests") == 0  # by its name an autoscaler asks for it
    assert count("treadle_memory_bytes", process="gateway") > 10 << 20
    assert count("treadle_memory_bytes", process="engine") == 1 << 20


def test_the_description_is_small_and_true(served: Served) -> None:
    data = served.http.get("/openapi.json")
    assert len(data.content) < 52_000
    document = data.json()
    served_paths = {route.path.replace(":path", "") for route in _routes(served)} - {"/openapi.json"}
    assert set(document["paths"]) == served_paths

    def check(schema: dict[str, Any], value: Any) -> None:
        jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)

    def schema_of(path: str, method: str = "post", status: str = "200") -> dict[str, Any]:
        answer = document["paths"][path][method]["responses"][status]
        return answer["content"]["application/json"]["schema"]  # type: ignore[no-any-return]

    check(schema_of("/v1/chat/completions"), served.chat(logprobs=True).json())
    check(schema_of("/v1/completions"), served.http.post("/v1/completions", json={"prompt": "x y"}).json())
    check(schema_of("/v1/embeddings"), served.http.post("/v1/embeddings", json={"input": "x y"}).json())
    check(schema_of("/v1/models", "get"), served.http.get("/v1/models").json())
    check(schema_of("/v1/models/{model}", "get"), served.http.get("/v1/models/docs-assistant").json())
    check(schema_of("/v1/chat/completions", status="default"), served.chat(n=0).json())
    feedback = served.http.post("/v1/feedback", json={"interaction": served.rows[0]["id"], "score": 0.5}).json()
    check(schema_of("/v1/feedback", status="201"), feedback)
    request = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    check(request, {"messages": [{"role": "user", "content": "x"}], "n": 2, "stop": ["a"]})
    for bad in ({}, {"messages": []}, {"messages": [{"role": "user", "content": "x"}], "n": 9}):
        try:
            check(request, bad)
        except jsonschema.ValidationError:
            continue
        raise AssertionError(json.dumps(bad))


def _routes(served: Served) -> Any:
    from treadle.serve.app import create_app

    return create_app(served.gateway).routes
