"""Scripted users for the demo: they ask what was kept back from training and say what they think of the answers.

    demo_users.py PROJECT URL ask      questions; corrections (the reference answers), thumbs and scores
    demo_users.py PROJECT URL traffic  questions and thumbs, until it is ended or the canary is decided

Nothing here is taken from the record but the questions: all else goes through the HTTP API, like anybody's.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from treadle.evals.answers import rouge_l_f
from treadle.project import open_project
from treadle.text.dataset import Dataset, Example

ASKED, CORRECTED = 60, 48
AT_ONCE = 3
QUIET_SECONDS = 10.0  # between two questions of a person while nothing is tried
PEOPLE = 24
PLURAL = {"correction": "corrections", "score": "scores"}
GOOD = 0.3  # ROUGE-L against the reference above which a scripted user is content


@dataclass
class Users:
    """A handful of people with different names."""

    client: httpx.AsyncClient
    said: Counter[str] = field(default_factory=Counter)

    async def ask(self, number: int, example: Example) -> tuple[str, str]:
        """One question; the interaction's id and the answer."""
        body = {"messages": list(example.messages[:-1]), "max_tokens": 48, "temperature": 0}
        reply = await self.client.post("/v1/chat/completions", json=body | {"user": f"scripted-{number % PEOPLE}"})
        reply.raise_for_status()
        self.said["questions"] += 1
        return reply.json()["id"], reply.json()["choices"][0]["message"]["content"]

    async def say(self, number: int, interaction: str, **what: Any) -> None:
        """Feedback of the person who asked."""
        body = {"interaction": interaction, "user": f"scripted-{number % PEOPLE}", **what}
        reply = await self.client.post("/v1/feedback", json=body)
        reply.raise_for_status()
        self.said[next(iter(what))] += 1


async def first(users: Users, examples: list[Example]) -> None:
    """Most answers are corrected, some of them also voted on."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, example: Example) -> None:
        async with room:
            interaction, answer = await users.ask(number, example)
            content = closeness(example, answer) >= GOOD
            if number < CORRECTED:
                await users.say(number, interaction, correction=example.answer)
            if number % 4 == 0:
                await users.say(number, interaction, thumbs="up" if content else "down")
            elif number % 10 == 3:
                await users.say(number, interaction, score=round(closeness(example, answer), 2))

    await asyncio.gather(*(one(number, example) for number, example in enumerate(examples[:ASKED])))


async def traffic(users: Users, examples: list[Example]) -> None:
    """A question now and then while the next version is made, and many while it is tried."""
    stop, busy = asyncio.Event(), asyncio.Event()

    async def person(start: int) -> None:
        for number in count(start, AT_ONCE):
            if stop.is_set():
                return
            example = examples[(ASKED + number) % len(examples)]
            try:
                interaction, answer = await users.ask(number, example)
                if number % 5 == 0:
                    await users.say(number, interaction, thumbs="up" if closeness(example, answer) >= GOOD else "down")
            except httpx.ConnectError:  # the server has ended: so does the day
                stop.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(busy.wait(), QUIET_SECONDS)

    async def watch() -> None:
        tried = False
        while not stop.is_set():
            await asyncio.sleep(0.5)
            served = (await users.client.get("/v1/models")).json()["data"]
            trying = len(served) > 1
            if tried and not trying:
                stop.set()
            tried = tried or trying
            (busy.set if trying else busy.clear)()

    await asyncio.gather(watch(), *(person(start) for start in range(AT_ONCE)))


def closeness(example: Example, answer: str) -> float:
    """ROUGE-L of an answer with the reference, from 0 to 1."""
    return rouge_l_f(example.answer, answer)


async def main(folder: str, url: str, what: str) -> None:
    """Do it, and tell in one line what was said."""
    with open_project(Path(folder)) as project:
        data = project.record.versions.all("dataset")
        examples = Dataset(data[0].digest, project.record.store).examples("holdout")
    key = os.environ.get("TREADLE_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120, trust_env=False) as client:
        users = Users(client)
        await (first if what == "ask" else traffic)(users, examples)
    counts = ", ".join(f"{number} {PLURAL.get(name, name)}" for name, number in users.said.items())
    sys.stdout.write(f"USERS     scripted: {counts}, through POST /v1/chat/completions and /v1/feedback\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
