"""What is asked: a body for each arrival, as long as the trace says, by the server's own count."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.loading.client import Client
from treadle.loading.trace import Arrival

PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "classify": "/v1/classify",
    "tag": "/v1/tag",
    "embeddings": "/v1/embeddings",
}
_WRITES = ("chat", "completions")
_MOST_BYTES = 256 << 20
_SAMPLE = 100  # words
_WORDS = """
time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work number night point home water room mother area
money story fact month lot right study book eye job word business issue side kind head house service friend
father
""".split()  # noqa: SIM905 - a list would be a line a word


class Questions:
    """Makes bodies. ``prompts`` are asked in turn where an arrival has no text of its own; without them words are made
    up, no two prompts alike, so that no prefix cache knows them."""

    def __init__(self, endpoint: str, *, model: str | None, prompts: Sequence[str] = (), seed: int = 0) -> None:
        self.path = PATHS[endpoint]
        self._endpoint = endpoint
        self._model = model
        self._prompts = prompts
        self._draw = random.Random(seed)  # noqa: S311 - no secret
        self._number = 0
        self._fixed, self._each = 0.0, 1.3  # tokens of a prompt: so many, and so many for each word

    async def calibrate(self, client: Client) -> None:
        """Ask twice, to learn how the server counts. Raises ``UserError`` when it does not answer."""
        first = await client.ask(self._body(self._prompts[0] if self._prompts else self._made_up(1), 1))
        if first.error is not None and first.status:
            what = "the address, the key, --model, --endpoint and --prompts"
            raise UserError(f"the server refused a first request: {first.error}; check {what}")
        if first.error is not None:
            raise UserError(f"the server does not answer: {first.error}; check the address")
        words = 0 if self._prompts else _SAMPLE
        while words > 1:
            second = await client.ask(self._body(self._made_up(words), 1))
            if second.error is None:
                self._learn(first.prompt_tokens, second.prompt_tokens, words)
                return
            words //= 2  # it may read less at once

    def _learn(self, one: int, more: int, words: int) -> None:
        """From the tokens that one word came to, and more of them."""
        if 0 < one < more:
            self._each = (more - one) / (words - 1)
            self._fixed = one - self._each

    def body(self, arrival: Arrival) -> bytes:
        """The request for an arrival."""
        content = arrival.text
        if content is None and self._prompts:
            content = self._prompts[self._number % len(self._prompts)]
        if content is None:
            content = self._made_up(round((arrival.prompt - self._fixed) / self._each))
        self._number += 1
        return self._body(content, arrival.answer)

    def _made_up(self, words: int) -> str:
        return " ".join([f"{self._draw.randrange(10**6)}", *self._draw.choices(_WORDS, k=max(1, words) - 1)])

    def _body(self, content: str, most: int) -> bytes:
        body: dict[str, Any] = {"store": False}
        if self._model is not None:
            body["model"] = self._model
        if self._endpoint in _WRITES:
            body |= {"max_tokens": most, "stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
        if self._endpoint == "chat":
            body["messages"] = [{"role": "user", "content": content}]
        else:
            body["prompt" if self._endpoint == "completions" else "input"] = content
        return json.dumps(body).encode()


def read_prompts(path: Path) -> list[str]:
    """One a line, as text or as a JSON object with ``prompt``. Raises ``UserError``."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path}: larger than {_MOST_BYTES >> 20} MB; a part of it will do")
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected UTF-8 text, a prompt a line") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a file of prompts, one a line") from None
    found = []
    for number, line in enumerate(lines, 1):
        if line.startswith("{") and path.suffix == ".jsonl":
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
                raise UserError(f"{path}:{number}: expected an object with `prompt`")
            found.append(row["prompt"])
        elif line.strip():
            found.append(line)
    if not found:
        raise UserError(f"{path}: no prompt in it; expected one a line")
    return found
