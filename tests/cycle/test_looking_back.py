"""How it stood at a time, while versions come and go."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from docs.test_json import differences, promised
from small_project import Project
from treadle.core.errors import UserError
from treadle.core.ledger import now
from treadle.looking_back import moment, standing_at
from treadle.project import open_project
from treadle.record.note import keep_note


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-01-31", "2026-01-31T00:00:00.000000Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000Z"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00.000000Z"),
        ("2026-01-31 12:00:00.5", "2026-01-31T12:00:00.500000Z"),
    ],
)
def test_moments(text: str, found: str) -> None:
    assert moment(text) == found


@pytest.mark.parametrize("text", ["", "yesterday", "31.1.2026", "0001-01-01T00:00:00+14:00", "2026-13-01"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(UserError, match="expected a time"):
        moment(text)


def test_each_time_has_its_answer(project: Project) -> None:
    with open_project(project.folder) as opened:
        record = opened.record
        begun = next(iter(record.ledger.rows())).time
        first = record.versions.alias("model", "champion")
        assert first is not None
        promoted = next(row.time for row in record.ledger.rows("alias") if row.body["alias"] == "champion")
        release = record.versions.served()
        assert release is not None
        alone = now()
        record.deployments.record(release, first.ref, "http://127.0.0.1:1")
        record.approvals.record(first.ref, "approve", "k3:jane", keep_note(record.store, "it is fine"))
        approved = now()
        record.canaries.begin("can-1", "b3:other", "b3:model", release, 0.2)
        trying = now()
        record.ledger.append(record.canaries.decided("can-1", "promote", "not worse", {}))
        evaluation = record.runs.find(step="develop.evaluate", status="done")[0].outputs["evaluation"]
        second = record.versions.register("model", evaluation, None)
        record.approvals.record(first.ref, "reject", "k3:jane", None)
        record.versions.point("champion", second, reason="asked for", release="b3:gone")
        later = now()

        def at(time: str) -> dict[str, Any]:
            return standing_at(opened, moment(time))

        nothing = at("2001-01-01")
        assert (nothing["champion"], nothing["approvals"], nothing["deployments"]) == (None, [], [])
        assert at(begun)["champion"] is None
        then = at(promoted)
        assert then["champion"]["ref"] == first.ref
        assert then["champion"]["release"] == release
        assert then["release"]["model"] == first.digest
        assert then["release"]["system_prompt"] == "You help."
        assert then["training"]["parameters"]["learning_rate"] == 1e-2
        assert then["gates"]["passed"] is True
        assert (then["approvals"], then["deployments"], then["canary"]) == ([], [], None)
        assert at(alone)["approvals"] == []
        then = at(approved)
        assert [(word["decision"], word["actor"], word["note"]) for word in then["approvals"]] == [
            ("approve", "k3:jane", "it is fine")
        ]
        assert [(each["model"], each["share"]) for each in then["deployments"]] == [(first.ref, 1.0)]
        assert at(trying)["canary"]["share"] == 0.2
        assert not differences(promised("status --at"), at(trying))
        then = at(later)
        assert (then["champion"]["ref"], then["release"], then["canary"]) == (second.ref, None, None)
        assert then["champion"]["reason"] == "asked for"
    said = project.call("status", "--at", approved).stdout
    assert re.search(rf"^champion +{first.ref}", said, re.MULTILINE)
    assert re.search(r"^approve +k3:jane at .*: it is fine$", said, re.MULTILINE)
    assert "engine" in said
    assert "learning_rate=0.01" in said
    assert json.loads(project.call("status", "--at", approved, "--json").stdout)["champion"]["number"] == 1
    assert "expected a time" in project.call("status", "--at", "soon", check=2).stderr
