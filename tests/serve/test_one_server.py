"""One server as people start it, with keys, a real engine and its record on disk, asked by everybody's own client:
OpenAI's, Triton's, and curl in the shapes of SageMaker, Vertex AI and TensorFlow Serving."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openai
import pydantic
import pytest
import tritonclient.http as triton
from real_server import serve_model

import command
from made_once import made_once
from tiny_models import write_encoder, write_release
from treadle.core.artifacts import Builder
from treadle.core.ledger import Fact
from treadle.lm.base_model import resolve
from treadle.project import open_project
from treadle.record.interaction import Interaction
from treadle.record.release import Release, ReleaseSpec

pytest.importorskip("openvino_genai")
MODEL = "b3:" + "11" * 32
FILE = """\
name: smol
task: chat
collect: {sources: [{type: files, path: chats.jsonl, license: CC0-1.0}]}
develop: {base_model: smollm2-135m-instruct}
"""
TEXT = "Say hello."
QUESTION: list[Any] = [{"role": "user", "content": TEXT}]
PREDICT, ALIVE = "/v1/endpoints/7:predict", "/alive"


@dataclass
class There:
    """A running server, the keys to it, and its project."""

    url: str
    release: str
    folder: Path
    keys: dict[str, str]

    def client(self, key: str = "all") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.keys.get(key, key), max_retries=0, timeout=60)

    def rows(self) -> list[Interaction]:
        """Of the record, as any other process reads it."""
        with open_project(self.folder) as project:
            return list(project.record.recorder.interactions(self.release))

    def curl(self, path: str, body: Any = None, *more: str, key: str = "all") -> tuple[int, dict[str, str], str]:
        """Status, headers and body of an answer to the program."""
        sent = ["-d", json.dumps(body), "-H", "content-type: application/json"] if body is not None else []
        said = ["-H", f"authorization: Bearer {self.keys.get(key, key)}"]
        asked = ["curl", "-sS", "-i", "--noproxy", "*", self.url + path, *said, *sent, *more]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
        head, _, text = done.stdout.partition("\n\n")  # text: line ends are one character
        first, *lines = head.splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), headers, text

    def infer(self, *inputs: tuple[str, list[Any]], model: str = "smol", key: str = "all", **more: Any) -> Any:
        with self.tritons() as client:
            made = []
            for name, values in inputs:
                data = np.array(values, dtype=object if isinstance(values[0], str) else np.int64)
                made.append(triton.InferInput(name, data.shape, "BYTES" if data.dtype == object else "INT64"))
                made[-1].set_data_from_numpy(data)
            return client.infer(model, made, headers=self.header(key), **more)

    def tritons(self) -> Any:
        return triton.InferenceServerClient(self.url.removeprefix("http://"))

    def header(self, key: str = "all") -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys.get(key, key)}"}


def promoted(folder: Path, made: Path) -> str:
    """A release of the real model, promoted in the project; its digest."""
    spec = ReleaseSpec("smol", "chat", MODEL, "b3:" + "22" * 32, {}, "openvino", "You are brief.", {"max_tokens": 24})
    with open_project(folder) as project:
        record = project.record
        with Builder(Release, record.store) as builder:
            shutil.copytree(made / "model", builder.path / "model")
            (builder.path / "release.json").write_text(json.dumps(spec.to_json()))
            release = builder.commit()
        body = {"digest": release.digest, "kind": "release", "bytes": 1, "documents": 0, "run": "run-1"}
        record.ledger.append(Fact("artifact", body))
        version = record.versions.register("model", MODEL, None)
        record.versions.point("champion", version, reason="better", release=release.digest)
    return release.digest


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    source = resolve("smollm2-135m-instruct").path
    made = made_once(tmp_path_factory, "smollm2-release", lambda folder: write_release(source, folder))
    folder = tmp_path_factory.mktemp("one") / "project"
    folder.mkdir()
    (folder / "treadle.yaml").write_text(FILE)
    release = promoted(folder, made)
    keys = {}
    for name, *rules in (
        ("all",),
        ("models", "--scope", "models"),
        ("one", "--tokens", "1"),
        ("slow", "--requests-per-minute", "1"),
    ):
        done = command.run("-C", str(folder), "keys", "create", name, *rules, "--json")
        keys[name] = json.loads(done.stdout)["key"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIP_PREDICT_ROUTE", PREDICT)
        patch.setenv("AIP_HEALTH_ROUTE", ALIVE)
        process = command.start("-C", str(folder), "serve", "--port", "0", "--json")
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        yield There(json.loads(line)["url"], release, folder, keys)
    finally:
        process.terminate()
        rest = process.communicate(timeout=60)[0]
        assert process.returncode == 0, line + rest


PLAIN = ("-H", "content-type: text/plain", "-H", "accept: text/plain", "-d", TEXT)
# path, body, where in the answer the text stands, what curl is given besides
BY_CURL: list[tuple[str, Any, tuple[str | int, ...], tuple[str, ...]]] = [
    ("/invocations", {"inputs": TEXT}, (0, "generated_text"), ()),
    ("/invocations", {"inputs": [TEXT], "parameters": {"max_new_tokens": 24, "do_sample": False}},
     (0, "generated_text"), ()),
    ("/invocations", {"messages": QUESTION}, ("choices", 0, "message", "content"), ()),
    ("/invocations", None, (), PLAIN),
    (PREDICT, {"instances": [TEXT]}, ("predictions", 0), ()),
    (PREDICT, {"instances": [{"messages": QUESTION}], "parameters": {"maxOutputTokens": 24, "temperature": 0}},
     ("predictions", 0), ()),
    ("/v1/models/smol:predict", {"instances": [TEXT]}, ("predictions", 0), ()),
    ("/v1/models/smol/versions/1:predict", {"inputs": {"text": [TEXT]}}, ("outputs", 0), ()),
    ("/v1/models/smol/labels/champion:predict", {"instances": [{"text": TEXT}]}, ("predictions", 0), ()),
]  # fmt: skip


def test_everybody_gets_the_same_text_and_leaves_one_row(there: There) -> None:
    before = len(there.rows())
    said: list[tuple[Any, str]] = []  # what was answered, and the interaction that the client was told
    with there.client() as client:
        answer = client.chat.completions.create(model="smol", messages=QUESTION)
        said.append((answer.choices[0].message.content, answer.id))
        assert (answer.model, answer.system_fingerprint) == ("smol@v1", there.release)
        chunks = list(client.chat.completions.create(model="smol@champion", messages=QUESTION, stream=True))
        said.append(("".join(each.choices[0].delta.content or "" for each in chunks if each.choices), chunks[0].id))
    for inputs in ([("text", [TEXT])], [("text", [TEXT]), ("max_tokens", [24])]):
        inferred = there.infer(*inputs)
        interaction = inferred.get_response()["parameters"]["interaction"]
        said.append((inferred.as_numpy("text")[0].decode(), interaction))
    for path, body, place, more in BY_CURL:
        status, headers, text = there.curl(path, body, *more)
        assert status == 200, text
        assert headers["treadle-release"] == there.release
        found: Any = json.loads(text) if place else text
        for key in place:
            found = found[key]
        said.append((found, headers["treadle-interaction"]))
    texts = {text for text, _ in said}
    assert len(texts) == 1, said
    assert len(texts.pop()) > 4
    rows = there.rows()[before:]
    assert [(row.answer, row.id) for row in rows] == said
    first = ("chat", "ok", "smol@v1", there.release, rows[0].key, rows[0].messages)
    assert rows[0].key is not None
    for row in rows:
        assert (row.endpoint, row.status, row.model, row.release, row.key, row.messages) == first


def test_what_each_platform_asks_before_it_sends_anybody(there: There) -> None:
    with there.tritons() as client:
        assert client.is_server_live(headers=there.header())
        assert client.is_server_ready(headers=there.header())
        assert client.is_model_ready("smol", headers=there.header())
        assert client.is_model_ready("smol", "1", headers=there.header())
        assert not client.is_model_ready("gpt-9", headers=there.header())
        metadata = client.get_model_metadata("smol", headers=there.header())
        assert (metadata["name"], metadata["versions"]) == ("smol", ["1"])
        assert [each["datatype"] for each in metadata["outputs"]] == ["BYTES"]
    for path in ("/ping", ALIVE, "/health/live", "/health/ready"):
        assert there.curl(path, key="nobody's")[0] == 200
    state = json.loads(there.curl("/v1/models/smol")[2])["model_version_status"]
    assert [(each["version"], each["state"]) for each in state] == [("1", "AVAILABLE")]
    described = json.loads(there.curl("/v1/models/smol/metadata")[2])
    assert described["model_spec"]["name"] == "smol"
    with there.client() as client:
        assert [each.id for each in client.models.list()] == ["smol@v1"]
        assert client.models.retrieve("smol@champion").id == "smol@v1"
    paths = json.loads(there.curl("/openapi.json")[2])["paths"]
    assert {path for path, _, _, _ in BY_CURL if ":predict" not in path or path == PREDICT} <= paths.keys()


class Weather(pydantic.BaseModel):
    """What the weather will be."""

    city: Literal["Bern", "Oslo"]
    days: int = pydantic.Field(ge=1, le=7)


class Leg(pydantic.BaseModel):
    """From one stop to the next."""

    by: Literal["train", "boat"]
    weather: Weather


def test_structured_output(there: There) -> None:
    """By the client's own ways: whole, in a stream, and by the schema of its own."""
    asked: dict[str, Any] = {"model": "smol", "messages": QUESTION, "max_tokens": 64}
    with there.client() as client:
        whole = client.chat.completions.parse(**asked, response_format=Leg)
        beta = client.beta.chat.completions.parse(**asked, response_format=Leg)
        with client.chat.completions.stream(**asked, response_format=Leg) as events:
            kinds = {event.type for event in events}
            streamed = events.get_final_completion()
        assert {"chunk", "content.delta", "content.done"} <= kinds
        for answer in (whole, beta, streamed):
            assert isinstance(answer.choices[0].message.parsed, Leg)
            assert answer.choices[0].finish_reason == "stop"
            assert answer.choices[0].message.parsed == whole.choices[0].message.parsed
        form = {"type": "json_schema", "json_schema": {"name": "w", "schema": Weather.model_json_schema()}}
        plain = client.chat.completions.create(**asked, response_format=form)  # type: ignore[call-overload]
        Weather.model_validate_json(plain.choices[0].message.content)
        with pytest.raises(openai.LengthFinishReasonError):
            client.chat.completions.parse(**asked | {"max_tokens": 3}, response_format=Leg)
    rows = there.rows()[-5:]
    assert [row.id for row in rows[:4]] == [whole.id, beta.id, streamed.id, plain.id]
    assert {row.parameters["schema"] for row in rows[:3]} == {rows[0].parameters["schema"]}
    assert [row.answer for row in rows[:4]] == [
        each.choices[0].message.content for each in (whole, beta, streamed, plain)
    ]
    assert rows[-1].finish_reason == "length"


TOOLS: list[Any] = [openai.pydantic_function_tool(Weather, name="weather"), openai.pydantic_function_tool(Leg)]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_of_a_tool_comes_back_parsed_and_its_answer_goes_on(there: There, choice: Any) -> None:
    asked: dict[str, Any] = {"model": "smol", "messages": QUESTION, "max_tokens": 64, "tools": TOOLS}
    with there.client() as client:
        whole = client.chat.completions.parse(**asked, tool_choice=choice)
        with client.chat.completions.stream(**asked, tool_choice=choice) as events:
            streamed = events.get_final_completion()
        calls: list[Any] = []
        for answer in (whole, streamed):
            [call] = answer.choices[0].message.tool_calls or []
            assert isinstance(call.function.parsed_arguments, Weather if call.function.name == "weather" else Leg)
            assert answer.choices[0].finish_reason == "tool_calls"
            assert not answer.choices[0].message.content
            calls.append((call.function.name, call.function.arguments))
        assert calls[0] == calls[1]
        assert choice == "required" or calls[0][0] == "weather"
        pieces = list(client.chat.completions.create(**asked, tool_choice=choice, stream=True))
        made = [call for each in pieces for call in each.choices[0].delta.tool_calls or ()]
        assert "".join(call.function.arguments or "" for call in made if call.function) == calls[0][1]
        assert pieces[-1].choices[0].finish_reason == "tool_calls"
        message = streamed.choices[0].message  # what the client has is what people send back
        assert message.tool_calls
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Sunny."}
        asked["messages"] = [*QUESTION, message, result]
        told = client.chat.completions.create(**asked | {"max_tokens": 8, "tool_choice": "none"})
        assert told.choices[0].message.content
    rows = there.rows()[-4:]
    assert [row.id for row in rows] == [whole.id, streamed.id, pieces[0].id, told.id]
    assert all(row.parameters["tools"] == ["weather", "Leg"] for row in rows[:3])
    assert [json.loads(row.answer or "") for row in rows[:3]] == [
        {"name": calls[0][0], "arguments": json.loads(calls[0][1])}
    ] * 3
    assert [each["role"] for each in rows[3].messages or ()] == ["user", "assistant", "user"]


def test_a_strict_call_that_the_model_decides_on_keeps_to_its_schema(there: There) -> None:
    def call(number: int, city: str) -> list[Any]:
        function = {"name": "weather", "arguments": json.dumps({"city": city, "days": 30})}
        return [
            {"role": "user", "content": f"How will the weather be in {city} in the next 30 days?"},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": f"call{number:05d}", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": f"call{number:05d}", "content": "Sunny."},
            {"role": "assistant", "content": "It will be sunny."},
        ]  # fmt: skip

    said = [*call(1, "Rome"), *call(2, "Paris"), *call(3, "Rome"), *call(4, "Madrid")]
    said.append({"role": "user", "content": "How will the weather be in Lima in the next 30 days?"})
    asked: dict[str, Any] = {"model": "smol", "messages": said, "max_tokens": 96}
    loose = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    with there.client() as client:
        free = client.chat.completions.create(**asked, tools=[loose])
        [call_] = free.choices[0].message.tool_calls or []
        with pytest.raises(pydantic.ValidationError):
            Weather.model_validate_json(call_.function.arguments)
        whole = client.chat.completions.parse(**asked, tools=TOOLS)
        with client.chat.completions.stream(**asked, tools=TOOLS) as events:
            streamed = events.get_final_completion()
    for answer in (whole, streamed):
        [made] = answer.choices[0].message.tool_calls or []
        assert isinstance(made.function.parsed_arguments, Weather if made.function.name == "weather" else Leg)
        assert answer.choices[0].finish_reason == "tool_calls"
    rows = there.rows()[-3:]
    assert [row.id for row in rows] == [free.id, whole.id, streamed.id]
    assert rows[1].answer == rows[2].answer


UNKEPT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", "pattern": "^a"}}}
FLY = {"type": "function", "function": {"name": "fly"}}
WRONG: list[tuple[dict[str, Any], type[openai.APIStatusError], str | None, str, str]] = [
    ({"temperature": 9}, openai.BadRequestError, "temperature", "invalid_type", "<= 2"),
    ({"extra_body": {"typo": 1}}, openai.BadRequestError, "typo", "unknown_parameter", "Unrecognized"),
    ({"presence_penalty": 1}, openai.BadRequestError, "presence_penalty", "unsupported_parameter", "leave it out"),
    ({"logprobs": True, "top_logprobs": 2}, openai.BadRequestError, "top_logprobs", "unsupported_parameter",
     "on the openvino engine"),
    ({"messages": [{"role": "user", "content": "word " * 20_000}]}, openai.BadRequestError, "messages",
     "context_length_exceeded", "maximum context length"),
    ({"max_tokens": 20_000}, openai.BadRequestError, "messages", "context_length_exceeded", "20000 in the answer"),
    ({"response_format": UNKEPT}, openai.BadRequestError, None, "refused_by_model", "response_format"),
    ({"tools": TOOLS, "tool_choice": FLY}, openai.BadRequestError, "tool_choice.function.name", "invalid_value",
     "one of tools"),
    ({"model": "gpt-9"}, openai.NotFoundError, "model", "model_not_found", "smol"),
]  # fmt: skip


def test_what_the_client_is_told_of_mistakes(there: There) -> None:
    before = len(there.rows())
    with there.client() as client:
        for change, kind, param, code, said in WRONG:
            with pytest.raises(kind) as raised:
                client.chat.completions.create(**{"model": "smol", "messages": QUESTION} | change)
            assert (raised.value.param, raised.value.code) == (param, code), raised.value
            assert said in raised.value.message
            assert raised.value.type == "invalid_request_error"
        with pytest.raises(openai.BadRequestError) as raised:  # this engine gives no vectors
            client.embeddings.create(model="smol", input=TEXT)
        assert (raised.value.param, raised.value.code) == ("model", "wrong_endpoint")
        assert "smol@v1 on the openvino engine cannot do embeddings" in raised.value.message
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-9")
    rows = there.rows()[before:]
    assert {row.status for row in rows} <= {"failed"}
    assert {row.error for row in rows} <= {"refused_by_model", "wrong_endpoint"}


def test_the_same_mistakes_in_the_words_of_the_other_platforms(there: There) -> None:
    before = len(there.rows())
    infer, tf = "/v2/models/smol/infer", "/v1/models/smol:predict"
    bad: dict[str, Any] = {"parameters": {"temperature": 9}}
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXT]}
    for path, body, param in (
        ("/invocations", {"inputs": TEXT} | bad, "parameters.temperature"),
        (PREDICT, {"instances": [TEXT]} | bad, "parameters.temperature"),
        (tf, {"instances": [{"text": TEXT, "temperature": 9}]}, "temperature"),
        (infer, {"inputs": [tensor]} | bad, "temperature"),
    ):
        status, _, text = there.curl(path, body)
        error = json.loads(text)["error"]
        assert status == 400
        assert param in (error if path in (tf, infer) else error["message"]), (path, error)
        assert (status := there.curl(path, body, key="tk-nobody's")[0]) == 401, (path, status)
    for path, body in (
        (PREDICT, {"instances": [TEXT]}),
        (tf, {"instances": [TEXT]}),
        ("/invocations", {"inputs": TEXT}),
    ):
        assert there.curl(path, body, key="models")[0] == 403
    for path, body in ((tf, {"instances": [TEXT]}), (infer, {"inputs": [tensor]})):
        status, _, text = there.curl(path.replace("smol", "gpt-9"), body)
        assert (status, "does not exist here" in json.loads(text)["error"]) == (404, True), (path, text)
    for more, told in (({"model": "gpt-9"}, "does not exist here"), ({"key": "tk-nobody's"}, "key")):
        with pytest.raises(triton.InferenceServerException, match=told):
            there.infer(("text", [TEXT]), **more)
    assert len(there.rows()) == before


def test_what_a_key_may_not_or_no_more(there: There) -> None:
    before = len(there.rows())

    def refused(key: str, kind: type[openai.APIStatusError], tries: int = 1) -> openai.APIStatusError:
        with there.client(key) as client, pytest.raises(kind) as raised:
            for _ in range(tries):
                client.chat.completions.create(model="smol", messages=QUESTION, max_tokens=2)
        return raised.value

    assert refused("tk-nobody's", openai.AuthenticationError).code == "invalid_api_key"
    assert refused("models", openai.PermissionDeniedError).code == "endpoint_not_allowed"
    assert len(there.rows()) == before
    spent = refused("one", openai.RateLimitError, tries=2)
    assert (spent.code, spent.response.headers["x-should-retry"]) == ("insufficient_quota", "false")
    assert len(there.rows()) == before + 1
    quick = refused("slow", openai.RateLimitError, tries=4)  # a minute may end in between
    assert quick.code == "rate_limit_exceeded"
    assert 0 < int(quick.response.headers["retry-after"]) <= 60
    for key, path, body in (
        ("one", PREDICT, {"instances": [TEXT]}),
        ("one", "/invocations", {"inputs": TEXT}),
        ("one", "/v1/models/smol:predict", {"instances": [TEXT]}),
    ):
        assert there.curl(path, body, key=key)[0] == 429
    with pytest.raises(triton.InferenceServerException, match=r"quota|budget|used up"):
        there.infer(("text", [TEXT]), key="one")
    with there.client("models") as client:
        assert [each.id for each in client.models.list()] == ["smol@v1"]


def test_vectors_are_the_same_by_every_contract(tmp_path: Path) -> None:
    """Of a release that embeds, on the engine that does."""
    texts = ["the lamp is here", "where is the tent"]
    folder = write_encoder(tmp_path / "bert", texts)
    with serve_model(folder, tokenizer=False, task="embed", asking="embed") as real:
        url = str(real.http.base_url).rstrip("/")
        there = There(url, "", folder, {"all": "none"})
        packed = real.client.embeddings.create(model="tiny", input=texts)
        plain = real.client.embeddings.create(model="tiny", input=texts, encoding_format="float")
        inferred = there.infer(("text", texts), model="tiny").as_numpy("embedding").tolist()
        found = [[each.embedding for each in packed.data], [each.embedding for each in plain.data], inferred]
        for path, body, key in (
            ("/invocations", {"inputs": texts}, None),
            ("/predict", {"instances": texts}, "predictions"),
            ("/v1/models/tiny:predict", {"instances": texts}, "predictions"),
        ):
            status, _, text = there.curl(path, body)
            assert status == 200, text
            found.append(json.loads(text)[key] if key else json.loads(text))
    for vectors in found:
        assert np.allclose(vectors, found[0], atol=1e-6)
        assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1, 1], abs=1e-3)
    assert len(real.recorder.rows) == len(found)
    assert {row["endpoint"] for row in real.recorder.rows} == {"embeddings"}
