"""A small client that puts test questions to a release over HTTP, a few at a time, as users would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from treadle.evals.task import PATHS, Asking
from treadle.record.interaction import SMOKE
from treadle.text.dataset import Example

_AT_ONCE = 4
_TIMEOUT = 120.0  # seconds for one answer


@dataclass(frozen=True, slots=True)
class Answered:
    """HTTP status and the digest of the release that answered; ``too_long``: refused, for the model cannot read so
    much."""

    status: int
    release: str | None
    too_long: bool = False


def put_questions(
    url: str, key: str | None, asking: Asking, examples: Sequence[Example], progress: Callable[[int], None]
) -> list[Answered]:
    """Ask everything; the answers' text is judged elsewhere, here it counts that they come, and from whom."""
    return asyncio.run(_all(url, key, asking, examples, progress))


async def _all(
    url: str, key: str | None, asking: Asking, examples: Sequence[Example], progress: Callable[[int], None]
) -> list[Answered]:
    import httpx

    room = asyncio.Semaphore(_AT_ONCE)
    done = 0
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False) as client:

        async def ask(example: Example) -> Answered:
            nonlocal done
            async with room:
                path, body = _request(asking, example)
                response = await client.post(path, json=body)
            done += 1
            progress(done)
            reply = response.json()
            if response.status_code == 200:
                return Answered(200, reply.get("system_fingerprint"))
            return Answered(response.status_code, None, reply.get("error", {}).get("code") == "context_length_exceeded")

        return list(await asyncio.gather(*(ask(example) for example in examples)))


def _request(asking: Asking, example: Example) -> tuple[str, dict[str, object]]:
    if asking not in ("chat", "extract"):
        return PATHS[asking], {"input": example.question, "metadata": SMOKE}
    messages = list(example.messages[:-1])
    return PATHS[asking], {"messages": messages, "max_tokens": 64, "temperature": 0, "metadata": SMOKE}


def memory_of(url: str, key: str | None) -> int:
    """Bytes of memory that the engine behind a server has, by its own metrics; 0 where they do not say."""
    import httpx

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        text = httpx.get(f"{url}/metrics", headers=headers, timeout=_TIMEOUT, trust_env=False).text
        said = next(line for line in text.splitlines() if line.startswith('treadle_memory_bytes{process="engine"}'))
        return int(float(said.rpartition(" ")[2]))
    except (httpx.HTTPError, StopIteration, ValueError):
        return 0
