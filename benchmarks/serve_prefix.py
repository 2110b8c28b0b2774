"""What the prefix cache saves: the time to the first token of a new prompt, and of one that begins like one before.

A prompt is some of Python's documentation and a question about it. *Cold*: nobody asked about that text before.
*Cached*: another question about the same text. One request at a time, from when it is sent to its first text.

What is not cached, the question and what is left of a block, takes the same time however long the text is, so the ratio
grows with it: ``prefix`` is of a text as long as eight retrieved passages, ``prefix_short`` of one of 500 words.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from typing import Any

from treadle.loading.client import Client, Target

WORDS = {"prefix": 1_300, "prefix_short": 500}  # of a text
_ABOUT = ("What is this about, in one sentence?", "Which word of it matters most?")


def measured(url: str, system_prompt: str, texts: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Ratios: the median of a text's cold time over its cached one, by the length of the texts; and the times."""
    ratios: dict[str, float] = {}
    figures: dict[str, Any] = {}
    for name, words in WORDS.items():
        found = asyncio.run(_measured(url, system_prompt, documents(texts + 1, words)))
        ratios[name] = found[0]
        figures |= {f"{name}_{figure}": value for figure, value in found[1].items()}
    return ratios, figures


def documents(count: int, words: int) -> list[str]:
    """So many texts of equal length, no two of which begin alike."""
    from pydoc_data.topics import topics

    every = [word for _, text in sorted(topics.items()) for word in text.split()]
    found = [every[start : start + words] for start in range(0, len(every) - words, words)]
    if len(found) < count:
        raise RuntimeError(f"{count} texts of {words} words asked for; there are {len(found)}")
    return [f"Part {number}, of {words} words. {' '.join(text)}" for number, text in enumerate(found[:count])]


async def _measured(url: str, system_prompt: str, texts: list[str]) -> tuple[float, dict[str, Any]]:
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
        "cold_ms": round(statistics.median(cold), 1),
        "cached_ms": round(statistics.median(cached), 1),
        "cached_worst_ms": round(max(cached), 1),
        "prompt_tokens": round(statistics.median(tokens)),
        "texts": len(times),
    }
    return statistics.median(a / b for a, b in times), figures


def _body(system_prompt: str, text: str, question: str) -> bytes:
    messages = [{"role": "system", "content": f"{system_prompt}\n\n{text}"}, {"role": "user", "content": question}]
    body = {"messages": messages, "max_tokens": 8, "temperature": 0, "stream": True}
    return json.dumps(body | {"stream_options": {"include_usage": True}}).encode()
