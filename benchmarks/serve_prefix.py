"""What the prefix cache saves: the time to the first token of a new prompt, and of one that begins like one before.

A prompt is a text of Python's documentation and a question about it. *Cold*: nobody asked about that text before.
*Cached*: another question about the same text. One request at a time, from when it is sent to its first text.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from typing import Any

from treadle.loading.client import Client, Target

WORDS = 500  # of a text
_ABOUT = ("What is this about, in one sentence?", "Which word of it matters most?")


def measured(url: str, system_prompt: str, texts: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Ratio ``prefix``: the median of a text's cold time over its cached one; and the times."""
    return asyncio.run(_measured(url, system_prompt, documents(texts + 1)))


def documents(count: int) -> list[str]:
    """So many texts of equal length."""
    from pydoc_data.topics import topics

    found = [text.split()[:WORDS] for _, text in sorted(topics.items())]
    # Only those that are long enough, and no two that begin alike.
    chosen = {tuple(words[:8]): " ".join(words) for words in found if len(words) == WORDS}
    return list(chosen.values())[:count]


async def _measured(url: str, system_prompt: str, texts: list[str]) -> tuple[dict[str, float], dict[str, Any]]:
    client = Client(Target(url, "/v1/chat/completions"))
    times: list[tuple[float, float]] = []
    tokens: list[int] = []
    try:
        for text in texts:
            answers = [await client.ask(_body(system_prompt, text, question)) for question in _ABOUT]
            if broken := next((each.error for each in answers if each.error), None):
                raise RuntimeError(f"not answered: {broken}")
            times.append((answers[0].ttft, answers[1].ttft))
            tokens.append(answers[1].prompt_tokens)
    finally:
        await client.close()
    times, tokens = times[1:], tokens[1:]  # the first warms up
    cold, cached = ([each[place] * 1e3 for each in times] for place in (0, 1))
    figures = {
        "prefix_cold_ms": round(statistics.median(cold), 1),
        "prefix_cached_ms": round(statistics.median(cached), 1),
        "prefix_cached_worst_ms": round(max(cached), 1),
        "prefix_prompt_tokens": round(statistics.median(tokens)),
        "prefix_texts": len(times),
    }
    return {"prefix": statistics.median(a / b for a, b in times)}, figures


def _body(system_prompt: str, text: str, question: str) -> bytes:
    messages = [{"role": "system", "content": f"{system_prompt}\n\n{text}"}, {"role": "user", "content": question}]
    body = {"messages": messages, "max_tokens": 8, "temperature": 0, "stream": True}
    return json.dumps(body | {"stream_options": {"include_usage": True}}).encode()
