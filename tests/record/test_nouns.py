"""Versions, aliases, approvals, deployments, alerts and erasures: what was last said of each, and its history."""

from __future__ import annotations

import re

import pytest

from treadle.core.errors import Corrupt, UserError
from treadle.core.fact import Fact
from treadle.core.verify import verify
from treadle.record.alert import Alerts
from treadle.record.record import Record
from treadle.record.release import Release, ReleaseSpec
from treadle.record.version import Version


def digest(number: int) -> str:
    return f"b3:{number:064x}"


def register(record: Record, count: int, kind: str = "model") -> list[Version]:
    return [record.versions.register(kind, digest(number), None) for number in range(count)]


# -- versions


def test_versions_are_numbered_and_a_digest_has_one(record: Record) -> None:
    versions = register(record, 3)
    assert [version.ref for version in versions] == [f"model/models-demo@v{n}" for n in (1, 2, 3)]
    assert versions[0].short == "model@v1"
    assert register(record, 3) == versions
    assert record.versions.all("model") == versions
    (dataset,) = register(record, 1, "dataset")
    assert dataset.number == 1
    assert record.versions.with_digest(digest(0)) == [versions[0], dataset]


def test_aliases_have_a_history_and_the_champion_a_predecessor(record: Record) -> None:
    first, second, third = register(record, 3)
    versions = record.versions
    assert versions.alias("model", "champion") is None
    versions.point("champion", first, reason="gates passed")
    assert versions.alias("model", "previous") is None
    versions.point("champion", second, reason="better", report="b3:0")
    assert (versions.alias("model", "champion"), versions.alias("model", "previous")) == (second, first)
    versions.point("champion", second, reason="again")
    assert versions.alias("model", "previous") == first
    versions.point("challenger", third, reason="tried")
    versions.point("challenger", None, reason="erased")
    assert versions.alias("model", "challenger") is None
    assert [(each["version"], each["reason"]) for each in versions.history("champion")] == [
        (1, "gates passed"),
        (2, "better"),
        (2, "again"),
    ]
    assert [each["version"] for each in versions.history("challenger")] == [3, None]


@pytest.mark.parametrize(
    ("ref", "number"),
    [
        ("@v2", 2),
        ("model@v2", 2),
        ("model/models-demo@v2", 2),
        ("models-demo@v2", 2),
        ("@champion", 1),
        ("model@champion", 1),
        ("models-demo@champion", 1),
        ("model/models-demo@champion", 1),
    ],
)
def test_references_lead_to_versions(record: Record, ref: str, number: int) -> None:
    versions = register(record, 3)
    record.versions.point("champion", versions[0], reason="first")
    assert record.versions.resolve(ref) == versions[number - 1]


def test_references_to_datasets(record: Record) -> None:
    register(record, 2)
    (dataset,) = register(record, 1, "dataset")
    assert record.versions.resolve("dataset@v1") == dataset
    assert record.versions.resolve("dataset/models-demo@v1") == dataset


@pytest.mark.parametrize("ref", ["", "champion", "b3:00", "int-01", "@", "@V1", "model@v1 ", "a b@v1", "model/@v1/x"])
def test_what_is_no_reference_to_a_version(record: Record, ref: str) -> None:
    assert record.versions.resolve(ref) is None


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("model@v9", "there is no model@v9; there are: @v1, @v2"),
        ("dataset@v1", "there is no dataset@v1; there are: none yet"),
        ("other@v1", "there is no other@v1; there are: none yet"),
        ("@champion", "there is no @champion; there are: @v1, @v2"),
        ("@champoin", "did you mean 'champion'?"),
    ],
)
def test_a_version_that_is_not_there_is_one_line(record: Record, ref: str, expected: str) -> None:
    register(record, 2)
    with pytest.raises(UserError, match=re.escape(expected)):
        record.versions.resolve(ref)


# -- approvals


def test_approvals_count_people_and_their_last_word(record: Record) -> None:
    ref, approvals = "model/models-demo@v1", record.approvals
    assert not approvals.granted(ref, 1, "b3:r")
    assert approvals.granted(ref, 0, "b3:r")
    approvals.record(ref, "approve", "k3:a", None, "b3:r")
    approvals.record(ref, "approve", "k3:a", None, "b3:r")
    assert approvals.granted(ref, 1, "b3:r")
    assert not approvals.granted(ref, 2, "b3:r")
    assert not approvals.granted(ref, 1, "b3:another")  # said of another judgment
    approvals.record("model/models-demo@v2", "approve", "k3:b", None, "b3:r")
    assert not approvals.granted(ref, 2, "b3:r")
    approvals.record(ref, "approve", "k3:b", None, "b3:r")
    assert approvals.granted(ref, 2, "b3:r")
    approvals.record(ref, "reject", "k3:a", None, "b3:r")
    assert not approvals.granted(ref, 1, "b3:r")
    assert not approvals.granted(ref, 0, "b3:another")  # a refusal stands until it is taken back
    assert [(word.actor, word.decision) for word in approvals.of(ref)] == [("k3:b", "approve"), ("k3:a", "reject")]
    approvals.record(ref, "approve", "k3:a", None, "b3:r")
    assert approvals.granted(ref, 2, "b3:r")


def test_the_reason_of_an_approval_is_looked_after(record: Record) -> None:
    note = record.store.put_bytes(b"I read the card.")
    record.approvals.record("model/models-demo@v1", "approve", "k3:a", note)
    assert verify(record.workspace).ok
    record.store.delete({note})
    assert [problem.ref for problem in verify(record.workspace).problems] == [note]


# -- deployments and alerts


def test_the_last_deployment_is_in_force_and_none_is_written_twice(record: Record) -> None:
    deployments = record.deployments
    assert deployments.current() is None
    for release in ("r1", "r1", "r2", "r1"):
        deployments.record(release, "m", "http://127.0.0.1:1")
    current = deployments.current()
    assert current is not None
    assert (current.release, current.share) == ("r1", 1.0)
    assert len(list(record.ledger.rows("deployment"))) == 3


def test_an_alert_is_raised_once_and_answered_by_a_promotion(record: Record) -> None:
    alerts: Alerts = record.alerts
    assert alerts.raise_("drift", "prompts differ", "r1", {"js": 0.3})
    assert not alerts.raise_("drift", "still", "r1", {"js": 0.4})
    assert alerts.raise_("drift", "another release", "r2", {})
    assert alerts.raise_("errors", "many", None, {})
    body = {"of": "model", "name": "reviewer", "alias": "champion", "number": 1, "reason": "set by a script"}
    record.ledger.append(Fact("alias", body))  # of a model that some other program registered
    assert [alert.public()["kind"] for alert in alerts.open()] == ["drift", "drift", "errors"]
    (version,) = register(record, 1)
    record.versions.point("challenger", version, reason="trained")
    assert len(alerts.open()) == 3
    record.versions.point("champion", version, reason="better")
    assert alerts.open() == []
    assert alerts.raise_("drift", "again", "r1", {})


# -- erasures


def test_a_request_stands_until_it_is_done(record: Record) -> None:
    erasures = record.erasures
    assert erasures.suppression() is None
    first = erasures.extend({"k3:b": 2, "k3:a": 1})
    assert erasures.suppression() is None  # no row names it yet
    erasures.record("era-1", "k3:s", "requested", first.digest, documents=3)
    assert erasures.suppression() == first
    second = erasures.extend({"k3:c": 0})
    assert second.suppressed() == {"k3:a": 1, "k3:b": 2, "k3:c": 0}
    erasures.record("era-2", "k3:t", "requested", second.digest)
    erasures.record("era-1", "k3:s", "deleting", second.digest, objects=[])
    assert [(each.request, each.phase) for each in erasures.open()] == [("era-1", "deleting"), ("era-2", "requested")]
    erasures.record("era-1", "k3:s", "done", second.digest)
    assert [each.request for each in erasures.open()] == ["era-2"]
    assert erasures.suppression() == second
    assert verify(record.workspace).ok


def test_a_suppression_list_that_is_deleted_by_hand_is_missed(record: Record) -> None:
    listed = record.erasures.extend({"k3:a": 1})
    record.erasures.record("era-1", "k3:s", "requested", listed.digest)
    record.store.delete({listed.digest})
    assert [problem.ref for problem in verify(record.workspace).problems] == [listed.digest]


def test_the_order_of_names_does_not_change_the_list(record: Record) -> None:
    assert record.erasures.extend({"k3:b": 2, "k3:a": 1}) == record.erasures.extend({"k3:a": 1, "k3:b": 2})


# -- releases

SPEC = ReleaseSpec(
    "models-demo@v1",
    "chat",
    digest(1),
    digest(2),
    {"name": "x", "license": "Apache-2.0"},
    "openvino",
    licenses=("PSF",),
)


def test_a_release_is_read_as_it_was_written() -> None:
    assert ReleaseSpec.from_json(SPEC.to_json()) == SPEC
    assert Release.kind == "release"


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"format": None}, {"licenses": None}, {"surprise": 1}],
    ids=lambda change: next(iter(change)),
)
def test_a_release_of_another_shape_is_one_line(change: dict[str, object]) -> None:
    with pytest.raises(Corrupt):
        ReleaseSpec.from_json({**SPEC.to_json(), **change})
    short = SPEC.to_json()
    del short["model"]
    with pytest.raises(Corrupt, match="not a release"):
        ReleaseSpec.from_json(short)
