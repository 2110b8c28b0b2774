"""Answers held to a JSON Schema: a random model, which by itself writes anything but JSON."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tiny_models import write_release
from treadle.core.errors import UserError
from treadle.lm.engine import Engine, GenerateRequest
from treadle.lm.engines import BlockingEngine, open_engine

NEEDS = {"transformers": "llguidance", "openvino": "openvino_genai"}
SCHEMA = {
    "type": "object",
    "properties": {"grade": {"enum": ["good", "bad"]}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["grade", "stars"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("engine", NEEDS)
def test_what_a_random_model_says_keeps_to_the_schema(
    make_model: Callable[..., Path], tmp_path: Path, engine: str
) -> None:
    pytest.importorskip(NEEDS[engine])
    folder = make_model(tmp_path / "llama", "llama")
    if engine == "openvino":
        folder = write_release(folder, tmp_path / "release")
    held = [
        GenerateRequest(
            f"s{n}", (5, 6, 7 + n), max_tokens=200, temperature=float(n > 0), seed=n, schema=json.dumps(SCHEMA)
        )
        for n in range(6)
    ]
    free = GenerateRequest("free", (5, 6, 7), max_tokens=20)
    settings: dict[str, Any] = {"precision": "f32"}
    with BlockingEngine(engine, folder, threads=1, settings=settings, here=True) as opened:
        alone = opened.generate_all([free])
        *answers, beside = opened.generate_all([*held, free])
        assert [beside] == alone  # the others are not held by it
        found = [json.loads(answer) for answer in answers]
        for answer, each in zip(answers, found, strict=True):
            jsonschema.validate(each, SCHEMA)
            assert answer == json.dumps(each)  # in one line, and no space more than that takes
        assert len({json.dumps(each) for each in found}) > 1
        with pytest.raises(UserError, match="response_format: this schema cannot be kept to"):
            opened.generate_all([GenerateRequest("bad", (5,), schema='{"type": "no such type"}')])
        assert opened.generate_all([free]) == alone


def test_a_schema_that_nobody_can_take_apart_is_refused_and_holds_nobody_up(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "llama", "llama")
    hostile = {"allOf": [{"type": "string", "pattern": f"(a|b)*a(a|b){{{n}}}"} for n in range(1, 30)]}

    async def work() -> None:
        engine = await open_engine("transformers", folder, threads=1)
        try:
            bad = asyncio.create_task(all_of(engine, GenerateRequest("bad", (5, 6), schema=json.dumps(hostile))))
            while not bad.done():
                began = time.monotonic()
                await all_of(engine, GenerateRequest("good", (5, 6), max_tokens=2))
                assert time.monotonic() - began < 2.5
            with pytest.raises(UserError, match="takes too long to take apart"):
                await bad
            began = time.monotonic()
            with pytest.raises(UserError, match="takes too long"):  # and is not tried again
                await all_of(engine, GenerateRequest("again", (5, 6), schema=json.dumps(hostile)))
            assert time.monotonic() - began < 1
        finally:
            await engine.close()

    asyncio.run(asyncio.wait_for(work(), 60))


async def all_of(engine: Engine, request: GenerateRequest) -> str:
    return "".join([chunk.text async for chunk in engine.generate(request)])
