"""The platforms' own requests against one server: the same answers as OpenAI's clients get, in each platform's form."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from toy_server import DIGEST, Served

from treadle.core.errors import TreadleError, UserError
from treadle.serve.contracts import asked_port, vertex
from treadle.serve.server import bind

CLASSIFIER = {"name": "reviews@v2", "task": "classify", "asking": "classify"}
TAGGER = {"name": "names@v2", "task": "tag", "asking": "tag"}
VECTORS = {"name": "vectors@v1", "task": "embed", "asking": "embed"}
READER = {"name": "reader@v2", "task": "qa", "asking": "extract"}


def good(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def interactions(response: httpx.Response) -> list[str]:
    return response.headers["treadle-interaction"].split(",")


def infer(served: Served, model: str, columns: dict[str, Any], *, binary: bool = True, **more: Any) -> Any:
    """By Triton's own client."""
    kinds = {"U": "BYTES", "O": "BYTES", "i": "INT64", "f": "FP32"}
    with triton.InferenceServerClient(served.url.removeprefix("http://")) as client:
        inputs = []
        for name, values in columns.items():
            data = np.array(values)
            data = data.astype(object) if data.dtype.kind == "U" else data
            data = data.astype(np.float32) if data.dtype.kind == "f" else data
            inputs.append(triton.InferInput(name, data.shape, kinds[data.dtype.kind]))
            inputs[-1].set_data_from_numpy(data, binary_data=binary)
        return client.infer(model, inputs, **more)


def test_every_contract_gives_the_same_answer_and_leaves_one_row(served: Served) -> None:
    http, text = served.http, "one two three"
    encoded, tensor = base64.b64encode(text.encode()).decode(), {"name": "x", "shape": [1], "datatype": "BYTES"}
    asked = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": text}]},
        "/invocations": {"inputs": text},
        "/predict": {"instances": [text]},
        "/v1/models/docs-assistant:predict": {"instances": [text]},
        "/v1/models/docs-assistant/versions/1:predict": {"inputs": [text]},
        "/v1/models/docs-assistant/labels/champion:predict": {"instances": [{"b64": encoded}]},
        "/v2/models/docs-assistant/infer": {"inputs": [tensor | {"data": [text]}]},
    }  # fmt: skip
    found = {path: http.post(path, json=body, headers={"x-request-id": "r-7"}) for path, body in asked.items()}
    for response in found.values():
        assert text in json.dumps(good(response))
        assert response.headers["treadle-release"] == DIGEST
        assert response.headers["x-request-id"] == "r-7"
    assert [row["id"] for row in served.rows] == [
        each for response in found.values() for each in interactions(response)
    ]
    assert {(row["answer"], row["endpoint"], row["request"]) for row in served.rows} == {(text, "chat", "r-7")}


def test_the_commands_of_the_docs(served: Served) -> None:
    page = (Path(__file__).parents[2] / "docs/stages/deploy.md").read_text()
    commands = [line for line in page.splitlines() if line.startswith("curl ")]
    assert len(commands) == 8
    for command in commands:
        asked = shlex.split(command.replace("localhost:8000", served.url))
        done = subprocess.run([*asked, "-sS", "-f"], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, (command, done.stderr)
        answers = {"/v1/score": '"tokens":4', "/v1/rerank": '"document":{"text":'}  # of others, what was asked
        path = next(part for part in asked if "http" in part).removeprefix(served.url)
        assert answers.get(path, "What does json.dumps do?") in done.stdout
    assert len(served.rows) == len(commands)


def test_sagemaker(start: Callable[..., Served]) -> None:
    served = start()
    http = served.http
    assert http.get("/ping").status_code == 200
    one = http.post("/invocations", json={"inputs": "a b c", "parameters": {"max_new_tokens": 2, "do_sample": False}})
    assert good(one) == [{"generated_text": "a b"}]
    assert one.headers["x-amzn-sagemaker-custom-attributes"] == served.rows[-1]["id"]
    sampled = http.post("/invocations", json={"inputs": "a b c", "parameters": {"do_sample": True}})
    assert good(sampled) == [{"generated_text": "a b c"}]
    assert served.rows[-1]["parameters"]["temperature"] == 1.0
    for parameters in ({"top_k": 5}, {"do_sample": True, "temperature": 0}):
        refused = http.post("/invocations", json={"inputs": "a", "parameters": parameters})
        assert refused.status_code == 400, parameters
    two = http.post("/invocations", json={"inputs": ["a", {"text": "b c", "max_tokens": 1}]})
    assert good(two) == [{"generated_text": "a"}, {"generated_text": "b"}]
    assert len(interactions(two)) == 2
    openai = good(http.post("/invocations", json={"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}))
    assert openai["choices"][0]["message"]["content"] == "hi"
    assert good(http.post("/invocations", json={"prompt": "go on"}))["object"] == "text_completion"
    streamed = http.post("/invocations", json={"messages": [{"role": "user", "content": "hi"}], "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text.endswith("data: [DONE]\n\n")
    plain = {"content-type": "text/plain; charset=utf-8"}
    assert http.post("/invocations", content=b"x y", headers=plain | {"accept": "text/plain"}).text == "x y"
    assert good(http.post("/invocations", content=b"x y", headers=plain)) == [{"generated_text": "x y"}]
    served.gateway.draining = True
    assert http.get("/ping").status_code == 503


def test_sagemaker_answers_as_the_pipeline_of_the_task(start: Callable[..., Served]) -> None:
    http = start(release=CLASSIFIER).http
    label = {"label": "good", "score": 0.75}
    assert good(http.post("/invocations", json={"inputs": "good"})) == [label]
    assert good(http.post("/invocations", json={"inputs": ["good", "x"], "parameters": {"top_k": 1}})) == [
        [label],
        [{"label": "bad", "score": 0.9}],
    ]
    assert good(http.post("/invocations", json={"inputs": "good", "parameters": {"top_k": 0}})) == [
        label,
        {"label": "bad", "score": 0.25},
    ]
    assert good(http.post("/invocations", json={"input": "good"}))["data"][0]["label"] == "good"
    http = start(release=TAGGER).http
    span = {"entity_group": "NAME", "score": 0.75, "word": "Ann", "start": 3, "end": 6}
    assert good(http.post("/invocations", json={"inputs": "It Ann"}))[1:] == [span]
    assert good(start(release=VECTORS).http.post("/invocations", json={"inputs": "abc"})) == [[3.0, 0.5, 1.0]]
    asked = {"inputs": {"question": "Did Bob meet her?", "context": "Ann met Bob."}}
    assert good(start(release=READER).http.post("/invocations", json=asked)) == {"answer": "Bob"}
    summary = start(release={"name": "s@v1", "task": "summarize"}).http.post("/invocations", json={"inputs": "a b"})
    assert good(summary) == [{"summary_text": "a b"}]


def test_vertex(start: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("HTTP_PORT", "8123"),
        ("HEALTH_ROUTE", "/alive"),
        ("PREDICT_ROUTE", "/v1/endpoints/7:predict"),
    ):
        monkeypatch.setenv(f"AIP_{name}", value)
    monkeypatch.setenv("AIP_DEPLOYED_MODEL_ID", "42")
    assert asked_port() == 8123
    served = start()
    assert served.http.get("/alive").status_code == 200
    chat, raw = {"messages": [{"role": "user", "content": "c d"}]}, {"prompt": "raw x", "maxOutputTokens": 2}
    body = {"instances": ["a b", chat, raw], "parameters": {"maxOutputTokens": 1, "stopSequences": ["z"]}}
    refused = served.http.post("/v1/endpoints/7:predict", json=body)
    assert refused.status_code == 200, refused.text
    assert refused.json() == {
        "predictions": ["a", "c", "raw x"],
        "deployedModelId": "42",
        "model": "docs-assistant@v1",
        "modelVersionId": "1",
        "system_fingerprint": DIGEST,
    }
    assert [row["endpoint"] for row in served.rows] == ["chat", "chat", "completions"]
    served = start(release=CLASSIFIER)
    found = good(served.http.post("/v1/endpoints/7:predict", json={"instances": ["good", {"text": "x"}]}))
    assert [each["label"] for each in found["predictions"]] == ["good", "bad"]
    assert found["predictions"][0]["probabilities"] == {"bad": 0.25, "good": 0.75}
    assert len(served.rows) == 1
    assert good(served.http.get("/openapi.json"))["paths"]["/v1/endpoints/7:predict"]["post"]
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/v1/chat/completions")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/health/ready")
    assert start().chat("a b").json()["choices"][0]["message"]["content"] == "a b"


@pytest.mark.parametrize(
    "environment",
    [
        {"AIP_PREDICT_ROUTE": "predict"},
        {"AIP_PREDICT_ROUTE": "/a{b}"},
        {"AIP_PREDICT_ROUTE": "/a", "AIP_HEALTH_ROUTE": "/a"},
    ],
)
def test_vertex_variables_that_name_nothing(environment: dict[str, str]) -> None:
    with pytest.raises(UserError, match="AIP_"):
        vertex.contract(environment)
    bind("0.0.0.0", 0, keyed=True).close()
    for port in ("x", "0", "70000", "-1", "9" * 5000):
        with pytest.raises(UserError, match="AIP_HTTP_PORT"):
            vertex.port({"AIP_HTTP_PORT": port})


def test_tensorflow_serving(start: Callable[..., Served]) -> None:
    served = start(release=CLASSIFIER)
    http = served.http
    row = {"label": "good", "score": 0.75, "probabilities": {"bad": 0.25, "good": 0.75}}
    rows = http.post(
        "/v1/models/reviews:predict", json={"instances": ["good", "x"], "signature_name": "serving_default"}
    )
    assert good(rows)["predictions"][0] == row
    columns = good(http.post("/v1/models/reviews:predict", json={"inputs": {"text": ["good", "x"]}}))["outputs"]
    assert (columns["label"], columns["score"]) == (["good", "bad"], [0.75, 0.9])
    classified = http.post("/v1/models/reviews/versions/2:classify", json={"examples": [{"text": "good"}]})
    assert good(classified) == {"result": [[["bad", 0.25], ["good", 0.75]]]}
    status = good(http.get("/v1/models/reviews/versions/2"))
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
    both = good(http.get("/v1/models/reviews"))
    assert both["model_version_status"] == status["model_version_status"]
    assert both["id"] == served.client.models.retrieve("reviews").id == "reviews@v2"
    metadata = good(http.get("/v1/models/reviews/metadata"))
    assert metadata["model_spec"] == {"name": "reviews", "signature_name": "", "version": "2"}
    outputs = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["outputs"]
    assert set(outputs) == {"label", "score", "probabilities"}
    chat = start()
    answer = chat.http.post(
        "/v1/models/docs-assistant:predict", json={"inputs": {"text": ["a b", "c d"], "max_tokens": 1}}
    )
    assert good(answer) == {"outputs": ["a", "c"]}
    assert len(interactions(answer)) == 2


def test_tritons_client(start: Callable[..., Served]) -> None:
    served = start()
    with triton.InferenceServerClient(served.url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("docs-assistant")
        assert client.is_model_ready("docs-assistant", "1")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        assert client.get_model_metadata("docs-assistant")["inputs"][0]["datatype"] == "BYTES"
    for binary in (True, False):
        found = infer(served, "docs-assistant", {"text": ["one two", "drei vier"], "max_tokens": [1]}, binary=binary)
        assert found.as_numpy("text").tolist() == [b"one", b"drei"]
    wanted = [triton.InferRequestedOutput("text", binary_data=False)]
    said = infer(served, "docs-assistant", {"prompt": [["grün blau"]]}, outputs=wanted, request_id="mine",
                 parameters={"max_tokens": 1})  # fmt: skip
    assert said.as_numpy("text").tolist() == ["grün"]
    assert said.get_response()["id"] == "mine"
    assert said.get_response()["parameters"]["interaction"] == served.rows[-1]["id"]
    labels = infer(start(release=CLASSIFIER), "reviews", {"any": ["good", "x"]})
    assert labels.as_numpy("label").tolist() == [b"good", b"bad"]
    assert labels.as_numpy("probabilities").tolist() == [[0.25, 0.75], pytest.approx([0.9, 0.1])]
    assert infer(start(release=VECTORS), "vectors", {"any": ["abc"]}).as_numpy("embedding").tolist() == [
        [3.0, 0.5, 1.0]
    ]
    spans = infer(start(release=TAGGER), "names", {"any": ["Ann"]}).as_numpy("spans")[0]
    assert json.loads(spans)[0]["text"] == "Ann"
    both = {"question": ["Did Bob meet her?"], "context": ["Ann met Bob."]}
    assert infer(start(release=READER), "reader", both).as_numpy("text").tolist() == [b"Bob"]
    with pytest.raises(Exception, match="does not exist here"):
        infer(served, "gpt-9", {"text": ["x"]})


TF, V2 = "/v1/models/docs-assistant:predict", "/v2/models/docs-assistant/infer"
ONE = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["x"]}
WRONG: list[tuple[str, Any, int, str]] = [
    ("/invocations", {}, 400, "The body needs messages, prompt, input, text_1, query or inputs"),
    ("/invocations", {"inputs": []}, 400, "length >= 1"),
    ("/invocations", {"inputs": "x", "parameters": {"temperature": -1}}, 400, "parameters.temperature"),
    ("/invocations", {"inputs": "x", "parameters": {"return_full_text": True}}, 400, "return_full_text"),
    ("/invocations", {"inputs": "x", "parameters": {"typo": 1}}, 400, "parameters.typo"),
    ("/invocations", {"inputs": "word " * 1000}, 400, "maximum context length"),
    ("/predict", {"instances": "x"}, 400, "instances"),
    ("/predict", {"instances": ["x"] * 65}, 400, "expected 1 to 64"),
    ("/predict", {"instances": [{"text": "x", "prompt": "y"}]}, 400, "instances[0]: expected one of"),
    ("/predict", {"instances": [{"text": {"b64": "!"}}]}, 400, "instances[0].text: expected the base64"),
    ("/predict", {"instances": [{"b64": "/w=="}]}, 400, "UTF-8"),
    ("/predict", {"instances": ["x"], "parameters": {"max_tokens": 1, "maxOutputTokens": 2}}, 400, "contradicts"),
    ("/predict", {"instances": ["x", {"text": "x", "max_tokens": 399}]}, 400, "context_length_exceeded"),
    (TF, {}, 400, "either instances (rows) or inputs"),
    (TF, {"instances": ["x"], "inputs": ["x"]}, 400, "either"),
    (TF, {"instances": ["x"], "signature_name": "other"}, 400, "serving_default"),
    (TF, {"inputs": {}}, 400, "at least one"),
    (TF, {"inputs": {"text": ["a", "b"], "seed": [1, 2, 3]}}, 400, "another input has 3"),
    (TF, {"inputs": {"text": [1]}}, 400, "instances[0]"),
    (TF.replace(":predict", ":classify"), {"examples": [{"text": "x"}]}, 400, "not a classifier"),
    ("/v1/models/docs-assistant/versions/9:predict", {"instances": ["x"]}, 404, "does not exist here"),
    ("/v1/models/gpt-9:predict", {"instances": ["x"]}, 404, "does not exist here"),
    (V2, {"inputs": []}, 400, "length >= 1"),
    (V2, {"inputs": [ONE, ONE]}, 400, "came twice"),
    (V2, {"inputs": [ONE | {"shape": [2]}]}, 400, "do not fill"),
    (V2, {"inputs": [ONE | {"shape": [4096, 4096]}]}, 400, "expected the shape"),
    (V2, {"inputs": [ONE | {"shape": [-1]}]}, 400, "shape"),
    (V2, {"inputs": [ONE | {"datatype": "FP32"}]}, 400, "of the type FP32"),
    (V2, {"inputs": [ONE | {"data": None}]}, 400, "either data or binary_data_size"),
    (V2, {"inputs": [ONE], "outputs": [{"name": "label"}]}, 400, "expected one of text"),
    (V2, {"inputs": [ONE, ONE | {"name": "speed"}]}, 400, "speed"),
]  # fmt: skip


def test_what_is_wrong_is_named_in_the_contracts_own_shape(served: Served) -> None:
    for path, body, status, said in WRONG:
        response = served.http.post(path, json=body)
        assert response.status_code == status, (path, body, response.text)
        assert said in response.text, response.text
        error = response.json()["error"]
        assert isinstance(error, str if path.startswith(("/v1/models", "/v2")) else dict)
    assert [row for row in served.rows if row["status"] == "ok" and row["answer"] != "x"] == []


BODIES = [
    b"", b"{", b"[]", b"null", b'{"inputs": "\xff"}', b'{"instances": ["\\ud800"]}', b"[" * 100_000,
    b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"inputs": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    b'{"inputs": [{"name": "x", "shape": [1e999]}]}', b"\x1f\x8b\x08\x00 not json",
]  # fmt: skip


def test_bodies_that_are_no_requests(served: Served) -> None:
    for path in ("/invocations", "/predict", TF, TF.replace(":predict", ":classify"), V2):
        for body in BODIES:
            assert served.http.post(path, content=body).status_code == 400, (path, body[:30])
    plain = {"content-type": "text/plain"}
    assert served.http.post("/invocations", content=b"\xff", headers=plain).status_code == 400
    assert served.http.post("/invocations", content=b" ", headers=plain).status_code == 400
    assert served.http.post("/invocations", content=b"x", headers={"content-type": "image/png"}).status_code == 415
    assert served.rows == []


def test_binary_tensors_that_lie(served: Served) -> None:
    for size, data, length in (
        (5, b"\x01\0\0\0x", "9" * 30),
        (5, b"\x01\0\0\0x", "-1"),
        (5, b"\x01\0\0\0x", "x"),
        (50, b"\x01\0\0\0x", None),
        (5, b"\xff\xff\xff\xffx", None),
        (5, b"\x01\0\0\0\xff", None),
        (5, b"\x01\0\0\0xrest", None),
        (0, b"", None),
    ):
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [tensor]}).encode()
        headers = {"inference-header-content-length": length or str(len(head))}
        response = served.http.post(V2, content=head + data, headers=headers)
        assert response.status_code == 400, (size, data, response.text)
    numbers = {"name": "seed", "shape": [1], "datatype": "INT32", "parameters": {"binary_data_size": 3}}
    head = json.dumps({"inputs": [ONE, numbers]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    assert "no whole number" in served.http.post(V2, content=head + b"abc", headers=headers).json()["error"]


def test_the_key_counts_for_every_contract(start: Callable[..., Served]) -> None:
    served = start(key="k-1")
    with httpx.Client(base_url=served.url) as client:
        for path in ("/invocations", "/predict", TF, V2):
            refused = client.post(path, json={"inputs": "x"})
            assert refused.status_code == 401
            assert isinstance(refused.json()["error"], str if path.startswith("/v") else dict)
        for path in ("/v2", "/v2/models/docs-assistant", "/v1/models/docs-assistant/metadata"):
            assert client.get(path).status_code == 401
        for path in ("/ping", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
    assert good(served.http.post("/predict", json={"instances": ["x"]}))["predictions"] == ["x"]
    assert [row["key"] for row in served.rows] == ["default"]


def test_one_that_fails_ends_the_others_and_all_are_in_the_record(start: Callable[..., Served]) -> None:
    served = start(pace=0.01)
    served.engine.failing, served.engine.fail_after = TreadleError("gone"), 3
    response = served.http.post("/predict", json={"instances": ["a b c d e"] * 4})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_unavailable")
    assert len(served.rows) == 4
    assert {row["status"] for row in served.rows} <= {"failed", "cancelled"}
    assert served.gateway.in_flight == 0
