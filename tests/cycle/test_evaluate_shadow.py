"""``treadle evaluate REF --shadow``: copies beside what was shown, pair by pair."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from docs.test_json import differences, promised
from small_project import Project
from treadle.core.errors import UserError
from treadle.evaluating_shadow import compare_shadow
from treadle.project import Project as Opened
from treadle.project import open_project
from treadle.record.interaction import Interaction, Seconds, Tokens, new_interaction_id

OTHER = "b3:" + "9" * 64


def shown(number: int, **given: Any) -> Interaction:
    fields: dict[str, Any] = {
        "answer": f"Answer {number}",
        "seconds": Seconds(0.0, 0.1, 1.0 + number / 100),
        "tokens": Tokens(30, 20),
        "tokens_per_second": 20.0,
    }
    return Interaction(
        id=new_interaction_id(),
        request=f"req-{number}",
        time="2026-01-31T12:00:00.000Z",
        release=OTHER,
        model="helper@v0",
        endpoint="chat",
        status="ok",
        store=True,
        messages=({"role": "user", "content": f"Question {number}"},),
        **fields | given,
    )


def copied(opened: Opened, of: Interaction, **given: Any) -> Interaction:
    release = opened.record.versions.served()
    assert release is not None
    made = replace(of, id=new_interaction_id(), release=release, model="helper@v1", origin="shadow", copy_of=of.id)
    return replace(made, **given)


def write(opened: Opened) -> None:
    """24 pairs of which 20 were answered twice, 15 of them alike; the copies are quicker and write more."""
    recorder = opened.record.recorder
    for number in range(24):
        first = shown(number)
        recorder.interaction(first)
        more: dict[str, Any] = {"seconds": Seconds(0.0, 0.1, first.seconds.total / 2), "tokens": Tokens(30, 25)}
        if number < 5:
            more["answer"] = f"Another answer {number}"
        if number < 10:
            more["guardrails"] = ({"guardrail": "personal_data", "side": "out", "action": "redact", "found": {"e": 2}},)
        if number >= 20:
            more |= {"status": "failed", "error": "engine_unavailable", "answer": None}
        recorder.interaction(copied(opened, first, **more))
    recorder.interaction(copied(opened, shown(99)))  # of a request whose own answer is not there
    gone = shown(98)
    recorder.interaction(gone)
    recorder.interaction(copied(opened, gone, status="cancelled"))  # the server ended


def test_copies_are_set_beside_what_was_shown(project: Project) -> None:
    with open_project(project.folder) as opened:
        write(opened)
    found = project.json("evaluate", "@champion", "--shadow")
    assert (found["pairs"], found["alone"], found["against"]) == (24, 1, [OTHER])
    assert (found["same"]["value"], found["same"]["n"]) == (0.75, 20)
    assert 0.4 < found["same"]["low"] < 0.75 < found["same"]["high"] < 1
    figures = found["figures"]
    told = {name: (each["more"], each["less"], each["n"], each["decided"]) for name, each in figures.items()}
    assert told == {
        "failed": (4, 0, 24, True),
        "total": (0, 20, 20, True),
        "ttft": (0, 0, 20, False),
        "tokens_per_second": (0, 0, 20, False),
        "prompt_tokens": (0, 0, 20, False),
        "completion_tokens": (20, 0, 20, True),
        "guardrail_findings": (10, 0, 20, True),
    }
    assert figures["total"]["difference"] == pytest.approx(-0.5475)
    assert figures["total"]["low"] <= figures["total"]["difference"] <= figures["total"]["high"] < 0
    assert (figures["completion_tokens"]["shadow"], figures["completion_tokens"]["shown"]) == (25, 20)
    assert (figures["guardrail_findings"]["shadow"], figures["guardrail_findings"]["low"] > 0) == (1.0, True)
    assert figures["total"]["level"] == pytest.approx(1 - 0.05 / 7)
    assert not differences(promised("evaluate --shadow"), found)
    said = project.call("evaluate", "@champion", "--shadow").stdout
    assert "@champion on 24 copies" in said
    assert "the same text in 0.75 [" in said
    assert said == project.call("evaluate", "@champion", "--shadow").stdout


def test_what_is_asked_in_vain_says_why(project: Project) -> None:
    for arguments, words in (
        (("@champion", "--shadow"), "of its copies 0 can be compared; expected at least 2: set deploy.shadow"),
        (("@champion", "--shadow", "--metric", "bleu"), "goes with --against and --json, and nothing else"),
        (("model@v9", "--shadow"), "model@v9"),
    ):
        said = project.call("evaluate", *arguments, check=2).stderr
        assert words in said
        assert said.count("\n") == 1, said
    with open_project(project.folder) as opened:
        write(opened)
        with pytest.raises(UserError, match="0 can be compared beside answers of @champion"):
            compare_shadow(opened, "@champion", "@champion")


def test_texts_that_are_not_kept_are_not_compared(project: Project) -> None:
    with open_project(project.folder) as opened:
        for number in range(3):
            first = shown(number, answer=None)
            opened.record.recorder.interaction(first)
            opened.record.recorder.interaction(copied(opened, first))
        found = compare_shadow(opened, "@champion")
    assert (found.pairs, found.same) == (3, None)
    assert not any(each.decided for each in found.figures.values())  # three pairs decide nothing
