"""``/v1/score`` and ``/v1/rerank``, and vectors that are cut: real models against transformers and numpy."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_server import serve_model
from toy_server import Served

from tiny_models import write_encoder, write_encoder_decoder
from treadle.lm.tokenizer import ChatTokenizer
from treadle.serve.guardrail import Guardrails, Named
from treadle.serve.guards import PersonalData

TEXTS = ["the function returns the value", "the value of the object", "system user assistant"]


def likelihood(folder: Path, prompt: list[int], answer: list[int]) -> float:
    """In nats, by transformers itself."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logprobs = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(float(logprobs[len(prompt) - 1 + place, token]) for place, token in enumerate(answer))


def test_a_generator_scores_answers_by_their_likelihood(tiny_llama: Path) -> None:
    tokenizer = ChatTokenizer.load(tiny_llama)
    with serve_model(tiny_llama, system_prompt="Be brief.") as real:
        given = real.http.post("/v1/score", json={"model": "tiny", "text_1": "which", "text_2": TEXTS}).json()
        system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "which"}
        total = 0
        for text, found in zip(TEXTS, given["data"], strict=True):
            prompt = tokenizer.encode_chat([system, user])
            answer = [*tokenizer.encode(text), *tokenizer.eos_ids]
            assert found["score"] == pytest.approx(likelihood(tiny_llama, prompt, answer), abs=1e-3)
            assert found["tokens"] == len(answer)
            total += len(prompt) + len(answer)
        assert given["usage"] == {"prompt_tokens": total, "completion_tokens": 0, "total_tokens": total}
        (row,) = real.recorder.rows
        assert (row["endpoint"], row["status"], row["id"]) == ("score", "ok", given["id"])
        raw = real.http.post("/v1/score", json={"text_1": "the function", "text_2": " returns", "raw": True}).json()
        pair = tokenizer.encode("the function"), tokenizer.encode(" returns")
        assert raw["data"][0]["score"] == pytest.approx(likelihood(tiny_llama, *pair), abs=1e-3)
        ranked = real.http.post("/v1/rerank", json={"query": "which", "documents": TEXTS, "top_n": 2}).json()
        order = sorted(given["data"], key=lambda each: -each["score"])[:2]
        assert [each["index"] for each in ranked["results"]] == [each["index"] for each in order]
        long = real.http.post("/v1/score", json={"text_1": "x " * 400, "text_2": "y"})
        assert long.json()["error"]["code"] == "context_length_exceeded"
        invoked = real.http.post("/invocations", json={"text_1": "which", "text_2": TEXTS}).json()
        assert invoked["data"] == given["data"]


def test_an_encoder_decoder_scores_targets(tmp_path: Path) -> None:
    folder = write_encoder_decoder(tmp_path / "t5")
    with serve_model(folder) as real:
        asked = {"text_1": TEXTS[0], "text_2": TEXTS[1:]}
        found = real.http.post("/v1/score", json=asked).json()["data"]
        assert all(each["score"] < 0 < each["tokens"] for each in found)
        bare = real.http.post("/v1/score", json=asked | {"raw": True}).json()["data"]
        assert [each["score"] for each in bare] == pytest.approx([each["score"] for each in found])


def test_an_embedder_scores_by_cosine_and_ranks_by_it(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "bert", TEXTS)
    with serve_model(folder, tokenizer=False, task="embed", asking="embed") as real:
        vectors = np.array([d.embedding for d in real.client.embeddings.create(model="tiny", input=TEXTS).data])
        expected = vectors @ vectors[0]
        scored = real.http.post("/v1/score", json={"text_1": TEXTS[0], "text_2": TEXTS}).json()["data"]
        assert [each["score"] for each in scored] == pytest.approx(expected.tolist(), abs=1e-5)
        paired = real.http.post("/v1/score", json={"text_1": TEXTS, "text_2": TEXTS}).json()["data"]
        assert [each["score"] for each in paired] == pytest.approx([1, 1, 1])
        ranked = real.http.post("/v1/rerank", json={"query": TEXTS[0], "documents": TEXTS[::-1]}).json()["results"]
        assert [each["relevance_score"] for each in ranked] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
        assert ranked[0]["document"] == {"text": TEXTS[0]}
        bare = real.http.post("/v1/rerank", json={"query": "x", "documents": TEXTS, "return_documents": False})
        assert all(set(each) == {"index", "relevance_score"} for each in bare.json()["results"])
        refused = real.http.post("/v1/score", json={"text_1": "a", "text_2": "b", "raw": True})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "raw")


@pytest.mark.parametrize("said", [{"matryoshka_dimensions": [16, 32]}, {"is_matryoshka": True}])
def test_vectors_are_cut_where_the_model_was_trained_for_it(tmp_path: Path, said: dict[str, Any]) -> None:
    folder = write_encoder(tmp_path / "bert", TEXTS)
    config = json.loads((folder / "config.json").read_text())
    with serve_model(folder, tokenizer=False, task="embed", asking="embed") as real:
        whole = np.array([d.embedding for d in real.client.embeddings.create(model="tiny", input=TEXTS).data])
        plain = real.http.post("/v1/embeddings", json={"input": "x", "dimensions": 16})
        assert plain.status_code == 400
        assert "was not trained to have its vectors cut" in plain.json()["error"]["message"]
    (folder / "config.json").write_text(json.dumps(config | said))
    with serve_model(folder, tokenizer=False, task="embed", asking="embed") as real:
        cut = [d.embedding for d in real.client.embeddings.create(model="tiny", input=TEXTS, dimensions=16).data]
        expected = whole[:, :16] / np.linalg.norm(whole[:, :16], axis=1, keepdims=True)
        assert np.allclose(cut, expected, atol=1e-5)
        body = {"input": TEXTS[0], "dimensions": 16, "encoding_format": "base64"}
        packed = real.http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
        assert np.allclose(np.frombuffer(base64.b64decode(packed), "<f4"), expected[0], atol=1e-5)
        assert real.client.embeddings.create(model="tiny", input="x", dimensions=64).data[0].embedding
        for size in (65, 17) if "matryoshka_dimensions" in said else (65,):
            refused = real.http.post("/v1/embeddings", json={"input": "x", "dimensions": size})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "dimensions"), size
        assert real.http.post("/v1/embeddings", json={"input": "x", "dimensions": 0}).status_code == 400


def test_what_reads_single_texts_scores_no_pairs(start: Callable[..., Served]) -> None:
    for asking in ("classify", "tag", "extract"):
        served = start(release={"task": asking, "asking": asking})
        refused = served.http.post("/v1/score", json={"text_1": "a", "text_2": "b"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "wrong_endpoint")
        assert served.rows == []


def test_wrong_pairs_are_named(served: Served) -> None:
    for body, param in (
        ({"text_1": ["a", "b"], "text_2": ["a"]}, "text_2"),
        ({"text_1": "a", "text_2": []}, "text_2"),
        ({"text_1": "", "text_2": "x"}, "text_1"),
        ({"text_1": "a"}, "text_2"),
        ({"text_1": "a", "text_2": "b", "model": "other"}, "model"),
    ):
        refused = served.http.post("/v1/score", json=body)
        assert refused.status_code in (400, 404), refused.text
        assert refused.json()["error"]["param"] == param
    assert served.rows == []
    served.engine.failing = RuntimeError("no")
    failed = served.http.post("/v1/score", json={"text_1": "a", "text_2": "b"})
    assert failed.status_code == 500
    assert [(row["status"], row["endpoint"]) for row in served.rows] == [("failed", "score")]


def test_guardrails_see_both_texts_and_what_comes_back_is_what_they_left(start: Callable[..., Served]) -> None:
    served = start(guardrails=Guardrails(inward=(Named("personal_data", PersonalData()),)))
    body = {"query": "mail eve@example.com", "documents": ["or bob@example.com", "nobody"]}
    answer = served.http.post("/v1/rerank", json=body)
    assert "example.com" not in answer.text
    assert "example.com" not in json.dumps(served.rows)
    words = served.engine.tokenizer.decode([i for pair in served.engine.scored for part in pair for i in part])
    assert "example.com" not in words
    assert "[EMAIL]" in words
