"""One site as it wants to be asked: one request at a time, a pause between two, and patience when it is busy.

The one policy for trying again: no answer, 429, 500, 502, 503 and 504; as long as ``Retry-After`` says, or the pause
doubled each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from treadle.text.crawl.client import Answer, Client, Wanted
from treadle.text.crawl.opt_outs import Policy, values
from treadle.text.crawl.warc_file import Headers

BUSY = (429, 500, 502, 503, 504)
_SHORTEST_WAIT = 0.5  # seconds before trying again
_LONGEST_WAIT = 600.0


@dataclass(frozen=True, slots=True)
class Manners:
    """``delay`` in seconds between two requests, ``attempts`` for each page."""

    delay: float
    attempts: int


class Site:
    """``policy`` and ``unreachable`` (why its robots.txt could not be had) are set by whoever asked for them."""

    def __init__(self, client: Client, manners: Manners) -> None:
        self.policy = Policy()
        self.unreachable = ""
        self.asked = False  # for its robots.txt
        self._client = client
        self._manners = manners
        self._next = 0.0
        self._turn = asyncio.Lock()

    async def get(self, url: str, conditions: Mapping[str, str], wanted: Wanted) -> Answer:
        """The answer, after waiting for our turn; a site that stays busy is a failure that says so."""
        async with self._turn:
            answer = Answer()
            for attempt in range(1, self._manners.attempts + 1):
                await self._pause()
                answer = await self._client.get(url, conditions, wanted)
                self._next = time.monotonic() + self._delay
                if not answer.again and answer.status not in BUSY:
                    return answer
                wait = _retry_after(answer.headers)
                if wait is None:
                    wait = max(self._delay, _SHORTEST_WAIT) * 2 ** (attempt - 1)
                if wait > _LONGEST_WAIT:
                    return _given_up(answer, f"and asks to wait for {wait:.0f} seconds")
                self._next = time.monotonic() + max(wait, self._delay)
            return _given_up(answer, f"{self._manners.attempts} times")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    @property
    def _delay(self) -> float:
        return max(self._manners.delay, self.policy.robots.delay)

    async def _pause(self) -> None:
        left = self._next - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)


def _given_up(answer: Answer, words: str) -> Answer:
    if answer.failure:
        return answer
    return replace(answer, failure=f"answered {answer.status} {words}", again=True)


def _retry_after(headers: Headers) -> float | None:
    """Seconds; None where there is no such header, or nobody can read it."""
    found = values(headers, "retry-after")
    if not found:
        return None
    value = found[0].strip()
    if value.isascii() and value.isdecimal() and len(value) < 10:
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
