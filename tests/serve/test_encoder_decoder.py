"""An encoder-decoder behind the gateway: the user's message is the source."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from toy_server import DIGEST, ListRecorder, redact

from tiny_models import write_encoder_decoder
from treadle.lm.tokenizer import ChatTokenizer
from treadle.lm.transformers_engine import TransformersEngine
from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
from treadle.serve.server import serving

SOURCE = "the value of the object"


def test_chat_completions_and_refusals(tmp_path: Path) -> None:
    folder = write_encoder_decoder(tmp_path / "t5")

    async def build() -> Gateway:
        engine = await TransformersEngine.open_here(folder, threads=1, settings={"precision": "f32"})
        served = Serving(ServedRelease("tiny@v1", DIGEST, max_tokens=24), engine, ChatTokenizer.load(folder))
        return Gateway(served, ListRecorder(), settings=GatewaySettings(api_key=None), redact=redact)

    user = {"role": "user", "content": SOURCE}
    with serving(build) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:

        def post(path: str, **body: object) -> httpx.Response:
            return client.post(f"/v1/{path}", json=body)

        whole = post("chat/completions", messages=[user], logprobs=True).json()
        text = whole["choices"][0]["message"]["content"]
        assert len(text) > 4
        assert whole["usage"]["prompt_tokens"] == len(ChatTokenizer.load(folder).encode(SOURCE)) + 1  # and its end
        assert len(whole["choices"][0]["logprobs"]["content"]) == whole["usage"]["completion_tokens"] == 24
        assert post("completions", prompt=SOURCE, max_tokens=24).json()["choices"][0]["text"] == text
        lines = post("chat/completions", messages=[user], stream=True).text.split("\n\n")
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == text
        # The context of 128 tokens is for the source and for the answer apart.
        long = {"role": "user", "content": "the value " * 30}
        assert post("chat/completions", messages=[long], max_tokens=120).status_code == 200
        for path, body, said in (
            ("chat/completions", {"messages": [user, {"role": "assistant", "content": "a"}, user]}, "reads one source"),
            ("chat/completions", {"messages": [{**user, "content": SOURCE * 50}]}, "128"),
            ("chat/completions", {"messages": [user], "max_tokens": 129}, "128"),
            ("embeddings", {"input": SOURCE}, "cannot do embeddings"),
        ):
            refused = post(path, **body)
            assert (refused.status_code, said in refused.json()["error"]["message"]) == (400, True), refused.text
