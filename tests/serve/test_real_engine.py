"""The whole way with a real model: OpenAI's client, the gateway, the engine's own process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from toy_server import DIGEST, ListRecorder, redact

from treadle.lm.base_model import resolve
from treadle.lm.engines import open_engine
from treadle.lm.gguf import write_gguf
from treadle.lm.tokenizer import ChatTokenizer
from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
from treadle.serve.server import serving

pytest.importorskip("openvino_genai")
QUESTION = [{"role": "user", "content": "Say hello."}]


@dataclass
class Real:
    url: str
    client: openai.OpenAI
    recorder: ListRecorder
    gateway: Gateway


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    source = resolve("smollm2-135m-instruct").path
    folder = tmp_path_factory.mktemp("release")
    for file in source.glob("*.json"):
        shutil.copy(file, folder)
    write_gguf(source, folder / "model.gguf")
    recorder = ListRecorder()
    made: list[Gateway] = []

    async def build() -> Gateway:
        engine = await open_engine("openvino", folder)
        release = ServedRelease("smol@v1", DIGEST, system_prompt="You are brief.", max_tokens=64)
        served = Serving(release, engine, ChatTokenizer.load(folder))
        made.append(Gateway(served, recorder, settings=GatewaySettings(api_key=None), redact=redact))
        return made[0]

    with serving(build) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield Real(url, client, recorder, made[0])


def test_plain_and_streaming_say_the_same(real: Real) -> None:
    plain = real.client.chat.completions.create(model="smol", messages=QUESTION, max_tokens=24)
    chunks = list(
        real.client.chat.completions.create(
            model="smol", messages=QUESTION, max_tokens=24, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == plain.choices[0].message.content
    assert len(text) > 4
    assert chunks[-1].usage is not None
    assert plain.usage is not None
    assert chunks[-1].usage.completion_tokens == plain.usage.completion_tokens
    assert len(chunks) > 5
    assert [r["answer"] for r in real.recorder.rows[-2:]] == [text, text]


def test_stop_strings_logprobs_and_choices(real: Real) -> None:
    whole = real.client.completions.create(model="smol", prompt="One, two, three, four,", max_tokens=16)
    words = whole.choices[0].text.split()
    cut = real.client.completions.create(
        model="smol", prompt="One, two, three, four,", max_tokens=16, stop=[words[1]], logprobs=0
    )
    assert cut.choices[0].text == whole.choices[0].text[: whole.choices[0].text.index(words[1])]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].logprobs is not None
    assert all(value <= 0 for value in cut.choices[0].logprobs.token_logprobs or ())
    many = real.client.chat.completions.create(model="smol", messages=QUESTION, n=3, temperature=1.5, seed=5)
    assert len({choice.message.content for choice in many.choices}) > 1


def test_many_at_once_each_get_their_own(real: Real) -> None:
    def ask(number: int) -> tuple[str, str]:
        answer = real.client.chat.completions.create(
            model="smol", messages=[{"role": "user", "content": f"Count from {number}."}], max_tokens=16
        )
        return answer.id, answer.choices[0].message.content or ""

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(32)))
    rows = {row["id"]: row for row in real.recorder.rows}
    for number, (interaction, text) in enumerate(answers):
        assert rows[interaction]["answer"] == text
        assert rows[interaction]["messages"][0]["content"] == f"Count from {number}."
    assert real.gateway.in_flight == 0


def test_an_over_long_prompt_is_refused_with_counts(real: Real) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        real.client.chat.completions.create(model="smol", messages=[{"role": "user", "content": "word " * 20_000}])


def test_a_client_that_leaves_frees_the_engine(real: Real) -> None:
    before = len(real.recorder.rows)
    with real.client.chat.completions.create(
        model="smol", messages=[{"role": "user", "content": "Write a long story."}], max_tokens=2000, stream=True
    ) as stream:
        next(iter(stream))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (len(real.recorder.rows) == before or _running(real)):
        time.sleep(0.05)
    assert real.recorder.rows[-1]["status"] == "cancelled"
    assert _running(real) == 0


def _running(real: Real) -> float:
    text = httpx.get(f"{real.url}/metrics").text
    values: dict[str, Any] = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return float(values["treadle_running_requests"]) + float(values["treadle_queue_requests"])


def test_an_engine_that_is_killed_is_a_clean_error_and_comes_back(real: Real) -> None:
    pid = real.gateway.serving.engine.worker_pid  # type: ignore[attr-defined]
    seen = 0
    with pytest.raises(openai.APIError):
        for chunk in real.client.chat.completions.create(
            model="smol", messages=[{"role": "user", "content": "Write a long story."}], max_tokens=2000, stream=True
        ):
            seen += len(chunk.choices[0].delta.content or "")
            if pid and seen > 20:
                os.kill(pid, signal.SIGKILL)
                pid = None
    row = real.recorder.rows[-1]
    assert (row["status"], row["error"]) == ("failed", "engine_unavailable")
    assert len(row["answer"]) >= 20
    answer = real.client.chat.completions.create(model="smol", messages=QUESTION, max_tokens=8)
    assert answer.choices[0].message.content
    assert httpx.get(f"{real.url}/health/ready").status_code == 200


@pytest.mark.slow
def test_every_contract_gives_the_real_models_same_answer(real: Real) -> None:
    text, most = QUESTION[0]["content"], {"max_tokens": 24}
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
    asked: dict[str, Any] = {
        "/v1/chat/completions": {"messages": QUESTION} | most,
        "/invocations": {"inputs": text, "parameters": most},
        "/predict": {"instances": [text], "parameters": most},
        "/v1/models/smol:predict": {"instances": [{"text": text} | most]},
        "/v2/models/smol/infer": {"inputs": [tensor], "parameters": most},
    }
    before = len(real.recorder.rows)
    with httpx.Client(base_url=real.url, timeout=60) as client:
        for path, body in asked.items():
            response = client.post(path, json=body)
            assert response.status_code == 200, response.text
            row = real.recorder.rows[-1]
            assert response.headers["treadle-interaction"] == row["id"]
            assert json.dumps(row["answer"]) in response.text.replace("\\/", "/")
    assert len({row["answer"] for row in real.recorder.rows[before:]}) == 1
    assert len(real.recorder.rows) == before + len(asked)
