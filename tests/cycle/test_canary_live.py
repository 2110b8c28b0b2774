"""A challenger meets real traffic: a slow one is taken back, a good one is promoted, and no request is lost."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from small_project import DEEDS, THINGS, Project
from treadle.project import open_project

CANARY = "  canary: {steps: [0.2, 0.5], min_requests: 20, patience: 5m}\n"


@contextmanager
def serving(project: Project) -> Iterator[str]:
    """``treadle serve``, following the record, as a process of its own."""
    process = project.start("serve", "--port", "0", "--json")
    try:
        assert process.stdout is not None
        yield str(json.loads(process.stdout.readline())["url"])
    finally:
        process.terminate()
        process.communicate(timeout=60)


class Traffic:
    """Three people who ask without a break, in twenty sessions each; statuses, and the releases that answered, also by
    session."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.statuses: list[int] = []
        self.releases: list[str] = []
        self.sessions: dict[str, list[str]] = defaultdict(list)
        self._stop = threading.Event()
        self._people = [threading.Thread(target=self._ask, args=(number,)) for number in range(3)]

    def __enter__(self) -> Traffic:
        for person in self._people:
            person.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for person in self._people:
            person.join()

    def _ask(self, person: int) -> None:
        number = person
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            while not self._stop.is_set():
                number += 1
                question = f"How do I {DEEDS[number % 7]} my {THINGS[number % 10]} number {number}?"
                body = {"messages": [{"role": "user", "content": question}], "max_tokens": 12}
                session = f"{person}-{number % 20}"
                reply = client.post("/v1/chat/completions", json=body, headers={"x-session-id": session})
                self.statuses.append(reply.status_code)
                if reply.status_code == 200:
                    release = reply.json()["system_fingerprint"]
                    self.releases.append(release)
                    self.sessions[session].append(release)
                time.sleep(0.15)


def turn_under_traffic(project: Project) -> tuple[Traffic, subprocess.CompletedProcess[str]]:
    """The next turn and its canary, while people ask."""
    with serving(project) as url, Traffic(url) as traffic:
        assert project.call("run", "--next", check=None).returncode in (0, 1)
        done = project.call("watch", "--once", "--json", check=None)
        time.sleep(2)  # answers that follow the decision
    return traffic, done


def last_canary(project: Project) -> Any:
    with open_project(project.folder) as opened:
        return opened.record.canaries.all()[-1]


@pytest.mark.slow
def test_a_good_challenger_is_promoted_under_traffic(project: Project) -> None:
    project.edit("improve:\n", "improve:\n" + CANARY)
    project.edit("tokens: 3000", "tokens: 6000")
    project.edit("deploy:\n", "deploy:\n  sticky: x-session-id\n")
    before = project.json("status")["champion"]
    traffic, done = turn_under_traffic(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(traffic.statuses) == {200}
    status = project.json("status")
    assert status["champion"]["number"] == before["number"] + 1
    canary = last_canary(project)
    assert canary.decision == "promote"
    assert "not decidable" in canary.reason
    assert {canary.release, canary.champion} == set(traffic.releases)
    assert set(traffic.releases[-20:]) == {canary.release}
    assert len(traffic.sessions) > 20
    for answers in traffic.sessions.values():  # who was given the new release stays with it, as its share grows
        assert answers == sorted(answers, key=lambda release: release == canary.release)
    with open_project(project.folder) as opened:
        shares = {(row.release, row.share) for row in opened.record.deployments.history()}
    assert {(canary.release, 0.2), (canary.release, 0.5), (canary.release, 1.0)} <= shares
    assert project.json("verify")["ok"]


@pytest.mark.slow
def test_a_slow_challenger_is_taken_back_under_traffic(project: Project) -> None:
    # Many requests before the other rule decides: next to other tests the champion has slow answers as well.
    project.edit("improve:\n", "improve:\n  canary: {steps: [0.5], min_requests: 300, patience: 5m}\n")
    project.edit("tokens: 3000", "tokens: 6000")
    project.edit("deploy:\n", "deploy:\n  engine: transformers\n")
    before = project.json("status")["champion"]
    traffic, done = turn_under_traffic(project)
    assert done.returncode == 1, done.stdout + done.stderr
    assert set(traffic.statuses) == {200}
    assert project.json("status")["champion"] == before
    canary = last_canary(project)
    assert canary.decision == "take_back"
    assert "slow" in canary.reason
    assert set(traffic.releases[-20:]) == {canary.champion}
    assert "taken back" in project.call("run", check=1).stdout
    assert project.json("verify")["ok"]
