"""Who sends long texts waits for them alone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import toy_server
from toy_keys import Book, ask
from toy_server import Served, serve_toy

from treadle.serve.guardrail import Guardrails, Named
from treadle.serve.guards import BlockList

LONG = "bomb w" + "w" * 30_000


def slowest_of_others(served: Served, key: str | None = None, **more: object) -> float:
    """Seconds that the slowest of some short requests took while a long one was under way."""
    worst = 0.0
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(served.chat, LONG, **more)
        while not asking.done():
            began = time.monotonic()
            assert ask(served.url, key).status_code == 200
            worst = max(worst, time.monotonic() - began)
    return worst


@pytest.mark.parametrize("refused", [False, True])
def test_taking_personal_data_out_of_a_long_text(monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    calls: list[int] = []

    def slow(text: str) -> str:
        if len(text) > 20_000:
            calls.append(len(text))
            time.sleep(0.7)
        return text.replace("w", "x")

    monkeypatch.setattr(toy_server, "redact", slow)
    rails = Guardrails(inward=(Named("block_list", BlockList(words=["bomb"])),) if refused else ())
    with serve_toy(guardrails=rails) as served:
        assert slowest_of_others(served) < 0.5
        [row] = [row for row in served.rows if len(row["messages"][0]["content"]) > 1000]
    assert calls == [len(LONG)]
    assert row["messages"][0]["content"] == LONG.replace("w", "x")
    assert row["error"] == ("content_filter" if refused else None)


def test_many_long_texts_leave_the_keys_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.serve.keyring._STALE", 1.5)
    book = Book(tmp_path / "store")
    _, secret = book.create("one")
    with serve_toy(keys=book.use(), record="none") as served, ThreadPoolExecutor(40) as pool:
        encoder = served.gateway.serving.tokenizer
        assert encoder is not None
        short = encoder.encode_chat

        def encode(messages: list[dict[str, str]], **more: object) -> list[int]:
            if len(messages[0]["content"]) > 20_000:
                time.sleep(0.25)
            return short(messages)

        monkeypatch.setattr(encoder, "encode_chat", encode)
        asking = [pool.submit(ask, served.url, secret, LONG) for _ in range(40)]
        ends = time.monotonic() + 4
        while time.monotonic() < ends:
            assert ask(served.url, secret).status_code == 200
        assert {each.result().status_code for each in asking} == {200}
    book.close()
